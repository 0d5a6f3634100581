"""FusionTVO on frames: what flickers is taken out of a clip, what moves stays.

What is unusual here:
- Not the result is filtered over time but its DIFFERENCE from the plate, along the plate's flow. Motion, light, blinks and plosives are
  in the plate and therefore not in what is averaged; the plate's own grain comes back with it.
- Which neighbours agree is judged on the plate where it can be, so strong flicker does not disturb the judgement.
- Two passes over a sliding window: every frame is regraded and re-aligned as a whole (lock.py, small and far-reaching), then fused
  scale by scale (fuse.py).
- A frame depends on `history` frames before and `look_ahead` after it and on nothing else: memory does not grow with the clip, and a job
  that was stopped goes on from any frame after `history` frames of warming up, with the same pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from ..errors import DynamicFaceError, ImageError
from ..images import as_plate
from .background import BACKGROUNDS, explained, steady_matte, to_plate
from .flow import FLOW_SIZE, DisFlow, Estimator, paths, plate_flow, resize, resize_flow, warp
from .fuse import Neighbour, agreement, fuse, usual_energy
from .lock import LOCK_SIZE, Correction, anchor, measure

_GRAIN = 1 / 255  # difference that eight bits alone bring
_LOCK_REACH = 2  # the first pass looks this many radii far: a mean of more frames, a steadier place to lock to
_MARGIN = 0.15  # around the masked area, as a share of its size: flow and pyramid need surroundings


@dataclass(frozen=True)
class Dials:
    """How much is done. The defaults are meant for a swapped or edited face."""

    strength: float = 1.0  # 0..1, of the correction inside the mask; 0 = bit-identical
    radius: int = 4  # frames on each side that are fused; 0 = none
    protect: float = 0.5  # 0..1, detail protect: shortens the reach of fine bands
    lock: bool = True  # regrade and re-align each frame as a whole first
    background: str = "leave"  # one of BACKGROUNDS
    background_strength: float = 1.0  # 0..1, for "plate" and "generated"
    live: bool = False  # only frames of the past are used: no delay, less calm

    def __post_init__(self) -> None:
        for name in ("strength", "protect", "background_strength"):
            if not 0 <= getattr(self, name) <= 1:
                raise DynamicFaceError(f"The dial {name!r} is {getattr(self, name)}; choose a value from 0 to 1.")
        if self.radius < 0:
            raise DynamicFaceError(f"The temporal radius is {self.radius} frames; choose 0 (no fusing) or more.")
        if self.background not in BACKGROUNDS:
            raise DynamicFaceError(f"The background is {self.background!r}; choose one of {', '.join(BACKGROUNDS)}.")

    @property
    def neutral(self) -> bool:
        """True where nothing is changed."""
        return (self.strength == 0 or self.radius == 0) and (self.background == "leave" or self.background_strength == 0)


@dataclass(frozen=True)
class _Frame:
    """One frame of the window; tensors (1, C, H, W)."""

    given: Tensor  # as it came in, all channels
    picture: Tensor  # (1, 3, H, W), after the first pass regraded and re-aligned
    plate: Tensor
    mask: Tensor  # 0..1 what may be stabilised
    clear: Tensor | None  # 0..1, 0 = something in front of it; None = never
    person: Tensor | None  # matte, where one was given
    guide: Tensor  # at flow resolution: what the flow was estimated on
    small: Tensor  # the guide at the size of the first pass
    small_difference: Tensor  # from the plate, as it came in, at that size
    difference: Tensor  # from what the plate explains

    @property
    def inside(self) -> Tensor:
        """0..1 what is the face, seen."""
        return self.mask if self.clear is None else self.mask * self.clear


@dataclass
class FusionTVO:
    """Frames in, the same number of steadier frames out, window by window.

    tvo = FusionTVO(Dials(strength=0.8))
    for images, plate, mask in windows:
        write(tvo.push(images, plate, mask))
    write(tvo.flush())
    """

    dials: Dials = field(default_factory=Dials)
    estimator: Estimator = field(default_factory=DisFlow)
    flow_size: int = FLOW_SIZE

    def __post_init__(self) -> None:
        self._reset()

    def _reset(self) -> None:
        self._raw, self._steady = _Window(), _Window()  # frames before and after the first pass
        self._flow, self._small_flow = _Window(), _Window()  # between them, as estimated and at the size of the first pass
        self._shakes = deque[Tensor](maxlen=self._lock_reach + 1)  # (4,) squared motions of the last frames
        self._done = 0  # frames given out

    @property
    def look_ahead(self) -> int:
        """Frames by which the output lags behind the input."""
        return 0 if self.dials.live or self.dials.neutral else self.dials.radius + self._lock_reach

    @property
    def history(self) -> int:
        """Frames before a frame that have an influence on it: fused with it, locked to, and telling how much the clip shakes."""
        return 0 if self.dials.neutral else self.dials.radius + 2 * self._lock_reach

    @property
    def held(self) -> int:
        """Frames that are kept inside at the moment; does not grow with the clip."""
        return max(len(self._raw), len(self._steady))

    @property
    def _lock_reach(self) -> int:
        return _LOCK_REACH * self.dials.radius if self.dials.lock else 0

    @torch.inference_mode()
    def push(
        self, frames: Tensor, plate: Tensor, mask: Tensor | None = None, *, occlusion: Tensor | None = None, matte: Tensor | None = None
    ) -> Tensor:
        """Add frames (F, H, W, C) of the result and of its plate; returns the frames that are finished, maybe none, in order.

        mask (F, H, W), 1 = may be stabilised; without it everything may. occlusion, 1 = in front of the face: neither changed nor used.
        matte, 1 = person: needed when the background is not left alone. Masks of one frame serve all.
        Raises ImageError where the inputs do not fit each other.
        """
        check(frames, plate, {"mask": mask, "occlusion": occlusion, "matte": matte})
        if self.dials.neutral:
            return frames
        if self.dials.background != "leave" and matte is None:
            raise ImageError(f"The background is set to {self.dials.background!r}, but there is no matte of the person. Connect one.")
        pictures, plates = (as_plate(images, name).movedim(-1, 1) for images, name in ((frames, "images"), (plate, "plate")))
        masks, occlusions, mattes = (_per_frame(m, pictures) for m in (mask, occlusion, matte))
        out = []
        for i in range(len(frames)):
            person = None if mattes is None else mattes[i : i + 1]
            self._add(
                frames[i : i + 1].movedim(-1, 1),
                pictures[i : i + 1],
                plates[i : i + 1],
                pictures.new_ones(1, 1, *pictures.shape[-2:]) if masks is None else masks[i : i + 1],
                None if occlusions is None else 1 - occlusions[i : i + 1],
                person,
            )
            out += self._advance(final=False)
        return torch.cat(out) if out else frames[:0]

    @torch.inference_mode()
    def flush(self) -> Tensor | None:
        """The frames still inside, at the end of the clip; None where there are none. Afterwards a new clip may begin."""
        out = list(self._advance(final=True))
        self._reset()
        return torch.cat(out) if out else None

    # --- the window ---------------------------------------------------------------------------------------------------

    def _add(self, given: Tensor, picture: Tensor, plate: Tensor, mask: Tensor, clear: Tensor | None, person: Tensor | None) -> None:
        guide, difference = explained(picture, plate, person if self.dials.background == "generated" else None)
        scale = min(self.flow_size / max(guide.shape[-2:]), 1.0)
        guide = resize(guide, tuple(max(round(n * scale), 1) for n in guide.shape[-2:]))
        small = resize(guide, _fit(guide, LOCK_SIZE))
        if len(self._raw):
            flow = plate_flow(torch.cat([self._raw[self._raw.end - 1].guide, guide]), self.estimator, self.flow_size)
            self._flow.append(flow)
            self._small_flow.append(flow.resized(tuple(small.shape[-2:])))
        coarse = resize(picture - plate, tuple(small.shape[-2:]))
        self._raw.append(_Frame(given, picture, plate, mask, clear, person, guide, small, coarse, difference))

    def _advance(self, final: bool) -> Iterator[Tensor]:
        """Finish what can be finished."""
        ahead, far = (0, 0) if self.dials.live else (self.dials.radius, self._lock_reach)
        source = self._raw
        if self.dials.lock:
            while self._steady.end < self._raw.end and (final or self._steady.end + far < self._raw.end):
                self._steady.append(self._locked(self._steady.end))
            source = self._steady
        while self._done < source.end and (final or self._done + ahead < source.end):
            yield self._finished(source, self._done)
            self._done += 1
        oldest = self._done - self.dials.radius
        self._steady.forget(oldest)
        unlocked = self._steady.end - self._lock_reach if self.dials.lock else oldest
        self._raw.forget(min(unlocked, self._raw.end - 1))
        self._flow.forget(oldest)
        self._small_flow.forget(unlocked)

    def _neighbours(self, window: _Window, flows: _Window, t: int, reach: int, guide: str) -> Iterator[tuple[int, Tensor, Tensor]]:
        """(index, flow, sure) of the frames up to `reach` away from frame t, nearest first in each direction.

        Flow and sureness are at the size of the flows; guide: the name of the frames' pictures of that size.
        """
        back = min(reach, t - window.start)
        ahead = 0 if self.dials.live else min(reach, window.end - 1 - t)
        here = getattr(window[t], guide)
        size = tuple(here.shape[-2:])
        inside = resize(window[t].mask, size)
        for sign, steps in ((-1, back), (1, ahead)):
            calm = None
            for k, (flow, seen) in enumerate(paths(flows, t, sign * steps), 1):
                there = window[t + sign * k]
                energy = (warp(getattr(there, guide), flow) - here).square().mean(1, keepdim=True)
                calm = usual_energy([energy], inside).clamp_min(_GRAIN**2) if calm is None else calm
                known = agreement(energy, calm)
                if self.dials.background == "generated":  # there the guide is the flickering result itself
                    known = torch.lerp(torch.ones_like(known), known, resize(window[t].person, size))
                sure = seen * known
                yield t + sign * k, flow, sure if there.clear is None else sure * warp(resize(there.clear, size), flow)

    # --- first pass: the frame as a whole ---------------------------------------------------------------------------------

    def _locked(self, t: int) -> _Frame:
        frame = self._raw[t]
        size = tuple(frame.small.shape[-2:])
        plate = resize(frame.plate, size)
        picture = plate + frame.small_difference
        total, mass, count = torch.zeros_like(plate), plate.new_zeros(1, 1, *size), 0
        for s, flow, sure in self._neighbours(self._raw, self._small_flow, t, self._lock_reach, "small"):
            total, mass, count = total + sure * warp(self._raw[s].small_difference, flow), mass + sure, count + 1
        if float(mass.amax()) == 0:
            self._shakes.append(plate.new_zeros(4))
            return frame
        weight = resize(frame.inside, size) * (mass / mass.amax())
        if frame.person is not None:
            weight = weight * resize(frame.person, size)
        consensus = plate + total / mass.clamp_min(1e-3)
        correction = measure(picture, consensus, weight)
        self._shakes.append(correction.motion.square())
        wander = torch.stack(tuple(self._shakes)).mean(0) / count
        correction = replace(correction, motion=correction.motion + anchor(consensus, plate, weight, wander))
        return self._corrected(frame, correction)

    def _corrected(self, frame: _Frame, correction: Correction) -> _Frame:
        """A frame brought in line where it may be."""
        steady = correction.apply(frame.picture)
        inside = frame.inside
        if self.dials.background == "generated":
            inside = inside * frame.person
        picture = torch.lerp(frame.picture, steady, inside)
        return replace(frame, picture=picture, difference=frame.difference + (picture - frame.picture))

    # --- second pass: scale by scale --------------------------------------------------------------------------------------

    def _finished(self, window: _Window, t: int) -> Tensor:
        """Frame t as it is given out, (1, H, W, C)."""
        frame, size = window[t], window[t].picture.shape[-2:]
        found, mattes = [], []
        for s, flow, sure in self._neighbours(window, self._flow, t, self.dials.radius, "guide"):
            flow, sure = resize_flow(flow, size), resize(sure, size)
            found.append(Neighbour(s - t, warp(window[s].difference, flow, mode="bicubic"), sure))
            if frame.person is not None:
                mattes.append(Neighbour(s - t, warp(window[s].person, flow), sure))
        person = None if frame.person is None else steady_matte(frame.person, mattes)
        amount = self.dials.strength * frame.mask
        if self.dials.background == "generated":
            amount = torch.maximum(amount * person, self.dials.background_strength * (1 - person))
        amount = amount if frame.clear is None else amount * frame.clear
        picture = frame.given[:, :3]
        if self.dials.strength or self.dials.background == "generated":
            changed = (amount > 0) & (frame.difference.abs().amax(1, keepdim=True) > _GRAIN)  # elsewhere nothing can be learnt
            steady = frame.picture + fuse(frame.difference, found, changed.to(amount), self.dials.radius, self.dials.protect)
            picture = torch.where(amount > 0, picture + amount * (steady - picture), picture)
        if self.dials.background == "plate":
            picture = to_plate(picture, frame.plate, person, self.dials.background_strength)
        return torch.cat([picture.to(frame.given), frame.given[:, 3:]], 1).movedim(1, -1)


class _Window:
    """A list that forgets its beginning and keeps its numbering."""

    def __init__(self) -> None:
        self.start, self._items = 0, []

    @property
    def end(self) -> int:
        return self.start + len(self._items)

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int):
        if not self.start <= index < self.end:
            raise IndexError(index)
        return self._items[index - self.start]

    def append(self, item) -> None:
        self._items.append(item)

    def forget(self, index: int) -> None:
        """Drop what lies before an index."""
        gone = max(min(index, self.end) - self.start, 0)
        self.start, self._items = self.start + gone, self._items[gone:]


def stabilise(
    frames: Tensor,
    plate: Tensor,
    mask: Tensor | None = None,
    dials: Dials | None = None,
    *,
    occlusion: Tensor | None = None,
    matte: Tensor | None = None,
    estimator: Estimator | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """A whole clip (F, H, W, C) at once; arguments as for :meth:`FusionTVO.push`. Only the area around the mask is worked on."""
    dials = dials or Dials()
    check(frames, plate, {"mask": mask, "occlusion": occlusion, "matte": matte})
    if dials.neutral:
        return frames
    top, bottom, left, right = _area(mask, frames) if dials.background == "leave" else (0, frames.shape[1], 0, frames.shape[2])
    if top >= bottom:
        return frames
    here = slice(None), slice(top, bottom), slice(left, right)
    tvo, out, done = FusionTVO(dials, estimator or DisFlow()), frames.clone(), 0

    def put(finished: Tensor | None) -> None:
        nonlocal done
        if finished is not None and len(finished):
            out[done : done + len(finished), top:bottom, left:right] = finished
            done += len(finished)
            if progress is not None:
                progress(done, len(frames))

    for i in range(len(frames)):
        one = [None if m is None else m[here][i : i + 1] if len(m) > 1 else m[here] for m in (mask, occlusion, matte)]
        put(tvo.push(frames[here][i : i + 1], plate[here][i : i + 1], one[0], occlusion=one[1], matte=one[2]))
    put(tvo.flush())
    return out


def check(frames: Tensor, plate: Tensor, masks: dict[str, Tensor | None]) -> None:
    """Raise ImageError unless result, plate and masks have as many frames of the same size."""
    for name, images in (("images", frames), ("plate", plate)):
        if images.dim() != 4:
            as_plate(images, name)
        if images.shape[-1] < 3:
            raise ImageError(f"The {name} input has {images.shape[-1]} channel(s); stabilising needs RGB. Convert it to RGB first.")
    if len(frames) != len(plate):
        raise ImageError(f"There are {len(frames)} frames of the result and {len(plate)} of the plate. Connect the same frames of both.")
    if frames.shape[1:3] != plate.shape[1:3]:
        found, wanted = (f"{images.shape[2]} x {images.shape[1]}" for images in (frames, plate))
        raise ImageError(f"The result is {found} pixels, the plate {wanted}. Bring them to one size, or paste the result back first.")
    for name, mask in masks.items():
        if mask is None:
            continue
        if mask.dim() != 3 or mask.shape[1:] != plate.shape[1:3]:
            found = " x ".join(map(str, mask.shape[:0:-1]))
            raise ImageError(f"The {name} is {found} pixels, the plate {plate.shape[2]} x {plate.shape[1]}. Make it in the plate's size.")
        if len(mask) not in (1, len(plate)):
            raise ImageError(f"The {name} has {len(mask)} frames, the plate has {len(plate)}. Give one per frame, or one for all.")


def _area(mask: Tensor | None, frames: Tensor) -> tuple[int, int, int, int]:
    """top, bottom, left, right around everything that is masked in any frame, with a margin."""
    height, width = frames.shape[1:3]
    if mask is None:
        return 0, height, 0, width
    inside = (mask > 0).any(0)
    if not inside.any():
        return 0, 0, 0, 0
    rows, columns = (inside.any(dim).nonzero()[:, 0] for dim in (1, 0))
    (top, bottom), (left, right) = ((int(x.amin()), int(x.amax()) + 1) for x in (rows, columns))
    margin = max(int(_MARGIN * max(bottom - top, right - left)), 16)
    return max(top - margin, 0), min(bottom + margin, height), max(left - margin, 0), min(right + margin, width)


def _fit(images: Tensor, longest: int) -> tuple[int, int]:
    height, width = images.shape[-2:]
    scale = min(longest / max(height, width), 1.0)
    return max(round(height * scale), 1), max(round(width * scale), 1)


def _per_frame(mask: Tensor | None, like: Tensor) -> Tensor | None:
    """(F, 1, H, W) of a mask for every frame or for all."""
    return None if mask is None else mask.to(like).expand(len(like), -1, -1)[:, None]
