// What both ways of drawing agree on; the shading is `render_prior`'s.

export const BACKDROP = 0x3c3c3c; // 4.5 % linear grey
export const DARKEST = 0.15; // openness of the deepest corner of the mouth
export const CLOSER = 1.2; // than the working crop, which has room for hair
export const NEAR = 0.02; // metres
export const FAR = 20;
