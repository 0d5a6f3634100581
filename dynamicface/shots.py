"""Whole shots, read from a file and written to a file, window by window: memory does not grow with their length.

A clip's prior is an ordinary prior whose plate is a :class:`Clip` instead of a tensor, so every edit of coefficients works on it. The clip
is decoded once to track (and count) it, once for skin and light, and once to be composited; between the passes only numbers are kept:
about 20 kB a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from .composite import is_unchanged
from .errors import DynamicFaceError, ImageError
from .io.clips import WINDOW, Clip, ClipWriter, copy_clip
from .occlusion import find_occlusion, hidden_face
from .perception import Perception
from .pipeline import render_composite
from .prior.estimate import fit_prior, select_frames
from .prior.head import HeadModel
from .prior.temporal import smooth_prior
from .skin import SwapLook
from .track import track_faces
from .types import FacePrior, FaceTrack
from .windows import windows

Progress = Callable[[int, int], None]


@torch.inference_mode()
def fit_shot(
    clip: Clip,
    perception: Perception,
    head: HeadModel,
    *,
    smoothing: float = 0.5,
    find_occlusions: bool = False,
    progress: Progress | None = None,
    **choice,
) -> tuple[FaceTrack, FacePrior]:
    """Track and fit one person in a clip; the prior's plate is the clip. smoothing as in `smooth_prior`, `choice` as in `track_faces`.

    find_occlusions: look for what is in front of the face first, and do not believe what is seen there; one more pass over the clip.
    progress(done, total) counts the frames of all passes.
    """
    passes = 3 if find_occlusions else 2
    track = track_faces(clip, perception, progress=_shifted(progress, 0, passes), **choice)
    hidden = None
    if find_occlusions:
        plain = fit_prior(clip, track, head, texture_size=0)
        hidden = hidden_face(plain, clip, head, perception, progress=_shifted(progress, len(track), passes))
    prior = fit_prior(clip, track, head, occlusion=hidden, progress=_shifted(progress, (passes - 1) * len(track), passes))
    return track, smooth_prior(prior, head, smoothing)


@torch.inference_mode()
def composite_shot(
    prior: FacePrior,
    perception: Perception,
    head: HeadModel,
    path: str | Path,
    *,
    occlusion: Clip | None = None,
    find_occlusions: bool = False,
    look: SwapLook | None = None,
    codec: str | None = None,
    progress: Progress | None = None,
) -> float:
    """Write a composed prior's picture over its clip to a file; returns the share of frames that changed.

    A prior that was not changed gives a copy of the clip's own packets. occlusion: a roto in the clip's size, white where something is in
    front of the face; one frame serves the whole clip. find_occlusions: also look for that in the clip itself, where the roto is empty.
    codec as in :class:`ClipWriter`. A file that was not finished (the callback
    raised, the machine ran full) is removed.
    """
    clip = clip_of(prior)
    if occlusion is not None:
        _check_roto(occlusion, clip)
    if is_unchanged(prior) and codec is None:
        copy_clip(clip, path)
        return 0.0
    changed = 0
    try:
        with ClipWriter(path, clip, codec) as writer:
            options = {"occlusion": occlusion, "find_occlusions": find_occlusions, "look": look}
            for picture, mask in composite_windows(prior, perception, head, **options):
                writer.write(picture, mask)
                changed += int((mask > 0).flatten(1).any(1).sum())
                del picture, mask
                if progress is not None:
                    progress(writer.frames, len(prior))
    except BaseException:
        Path(path).unlink(missing_ok=True)
        raise
    return changed / len(prior)


def composite_windows(
    prior: FacePrior,
    perception: Perception,
    head: HeadModel,
    *,
    occlusion: Clip | None = None,
    find_occlusions: bool = False,
    look: SwapLook | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pictures (N, H, W, C) and masks (N, H, W) of a prior over a clip, a few frames at a time, in order."""
    for index in windows(len(prior), WINDOW):
        part = select_frames(prior, index)
        plate, alpha = part.background.plate.tensor_split([3], -1)
        part = part.replace(background=replace(part.background, plate=plate, matte=perception.matte.coarse(plate, part.cuts)))
        hidden = None
        if occlusion is not None:
            hidden = occlusion[torch.arange(index.start, index.stop).clamp(max=len(occlusion) - 1)][..., :3].mean(-1)
        if find_occlusions and not is_unchanged(part):
            hidden = find_occlusion(part, head, perception, roto=hidden)
        picture, mask = render_composite(part, head, occlusion=hidden, look=look)
        if alpha.shape[-1]:
            picture = torch.cat([picture, alpha], -1)
        del part, plate, alpha, hidden  # 25 MB a frame of 1080p, not to be held while the picture is written
        yield picture, mask
        del picture, mask


def clip_of(prior: FacePrior) -> Clip:
    """The clip on disk behind a prior. Raises DynamicFaceError where its plate is no clip."""
    if prior.background is None or not isinstance(prior.background.plate, Clip):
        raise DynamicFaceError(
            "This prior does not come from a clip on disk. Fit the clip with Fit Clip, or composite its frames as pictures."
        )
    return prior.background.plate


def _check_roto(roto: Clip, clip: Clip) -> None:
    """Raise ImageError unless a roto fits a clip."""
    if roto.size != clip.size or len(roto) not in (1, len(clip)):
        found, wanted = (f"{len(one)} frames of {one.size[1]} x {one.size[0]} pixels" for one in (roto, clip))
        raise ImageError(f"The roto has {found}, the clip {wanted}. Make it of the clip's size, with one frame or as many as the clip.")


def _shifted(progress: Progress | None, done: int, parts: int) -> Progress | None:
    """One of several passes as a part of the whole."""
    return None if progress is None else lambda at, total: progress(done + at, max(parts * total, done + at))
