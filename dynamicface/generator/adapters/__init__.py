"""Files of other projects, made for Stable Diffusion 1.5: their layouts, whose they are (families), what is in one (files), guiders."""
