"""Measure a clip window by window, so that its length costs no memory: frames go in, curves come out (`report.py`).

The result is compared with the plate it was made from and, for a swap, with the person who was put in. Faces are found and fitted anew in
both. Neighbouring frames are compared in a square around the face, the same pixels of both; the motion that is taken out between them is
the plate's, so that what remains is flicker the plate does not have. SSIM is that of the brightness.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import DynamicFaceError, ImageError, NoFaceError
from ..images import as_plate, sample_crops
from ..perception import Perception
from ..prior.estimate import fit_prior
from ..prior.head import HeadModel
from ..track import PRESENT, find_landmarks, find_roi, landmarks_roi, track_faces
from ..tvo.flow import DisFlow, Estimator, consistency, warp
from ..types import FacePrior, FaceTrack, Identity
from .checks import same_shape
from .factors import factor_change, refit
from .fid import InceptionFeatures, fid
from .frechet import face_feature_frechet
from .identity import cosine, identity_drift
from .jitter import landmark_jitter, pose_jitter
from .lpips import Lpips
from .niqe import LEAST, PATCH, niqe
from .outside import outside_difference
from .report import QualityReport
from .sharpness import luma, relative_detail
from .square import cut_squares, face_extent, face_oval, face_square
from .ssim import ssim
from .temporal import rms_difference

SIZE = 256  # side of the square in which pictures are compared, px
WINDOW = 24  # frames to measure at once; more than track.PHOTOS, so that faces are detected on key frames only
_SETTLED = 0.1  # of a face's region, see track.py
_TEXTURE = 256
_MOST = 6 * PATCH  # side of what NIQE is measured in, px
_FACTORS = ("expression", "gaze", "pose", "light")


class QualityMeter:
    """Call `add` with the windows of a clip in order, then `report`.

    source: the person who should be seen, where it is not the plate's own. lpips: also measure how different the face looks; inception:
    also the FID.
    flow: any estimator of optical flow, None = DIS. choice: keyword arguments of `track_faces` that choose a face.
    """

    def __init__(
        self,
        perception: Perception,
        head: HeadModel,
        *,
        source: FacePrior | None = None,
        lpips: Lpips | None = None,
        inception: InceptionFeatures | None = None,
        flow: Estimator | None = None,
        **choice,
    ) -> None:
        self._perception, self._head, self._source, self._choice = perception, head, source, choice
        self._lpips, self._inception = lpips, inception
        self._flow: Estimator | None = flow or DisFlow()
        self._notes: list[str] = []
        self._natural_side: int | None = None  # of the square in which NIQE is measured, px; 0: the frames are too small
        self._curves, self._plate_curves, self._whole = _Curves(), _Curves(), _Curves()
        self._person: Tensor | None = None  # (D,) identity of who is followed
        self._last: tuple[Tensor, Tensor | None] | None = None  # result and plate of the frame before the next window
        self._likes: tuple[FacePrior, FacePrior | None] | None = None  # whose identity is held in result and plate

    @torch.inference_mode()
    def add(self, result: Tensor, plate: Tensor | None = None, mask: Tensor | None = None) -> None:
        """Measure the next frames (F, H, W, C), beside their plate and with the mask (F, H, W) of what may have changed.

        Windows of about `WINDOW` frames: long enough to follow a face, short enough to hold.

        Raises:
            ImageError: result and plate differ in shape, or some frames come with a plate and some without.
        """
        result = as_plate(result, "result")
        if plate is not None:
            plate = as_plate(plate, "plate")
            same_shape(result, plate, ("result", "plate"))
        if self._last is not None and (self._last[1] is None) != (plate is None):
            raise ImageError("Some frames were given with a plate and some without; give the plate for all of them or for none.")
        self._window(result, plate, mask)

    def report(self) -> QualityReport:
        """Everything measured so far. Raises DynamicFaceError where that is nothing."""
        if not self._curves:
            raise DynamicFaceError("Nothing was measured: there are no frames.")
        curves, plate, whole = (part.joined() for part in (self._curves, self._plate_curves, self._whole))
        seen = curves["presence"] > 0
        if seen.any():
            curves["identity_drift"] = torch.full_like(curves["presence"], torch.nan)
            curves["identity_drift"][seen] = identity_drift(whole["embedding"][seen])
            lonely = ~(seen & F.pad(seen, (1, -1)) & F.pad(seen, (-1, 1)))
            for values, name in ((curves, "result"), (plate, "plate")):
                if f"{name} landmarks" in whole:
                    values["landmark_jitter"] = landmark_jitter(whole[f"{name} landmarks"]).masked_fill(lonely, torch.nan)
                    values["pose_jitter"] = pose_jitter(whole[f"{name} rotation"]).masked_fill(lonely, torch.nan)
        return QualityReport.of(curves, plate, tuple(self._notes), _distances(whole, seen))

    def _window(self, result: Tensor, plate: Tensor | None, mask: Tensor | None) -> None:
        curves, of_plate, whole = {"presence": result.new_zeros(len(result))}, {}, {}
        tracks = self._tracks(result, plate)
        if tracks is not None:
            curves, whole = self._faces(result, plate, *tracks)
            pictures, of_plate, looks = self._pictures(result, plate, tracks[1] or tracks[0])
            natural = self._naturalness((result, plate), tracks[1] or tracks[0])
            pictures, of_plate = pictures | natural[0], of_plate | natural[1]
            whole |= looks
            seen = tracks[0].presence > 0
            curves = {name: values.masked_fill(~seen, torch.nan) for name, values in (curves | pictures).items()}
            curves["presence"] = tracks[0].presence
        if plate is not None and mask is not None:
            curves["outside"] = outside_difference(result, plate, mask)
        for part, values in ((self._curves, curves), (self._plate_curves, of_plate), (self._whole, whole)):
            part.append(values, len(result))
        self._last = result[-1:].clone(), None if plate is None else plate[-1:].clone()  # not views, which would keep the window

    def _tracks(self, result: Tensor, plate: Tensor | None) -> tuple[FaceTrack, FaceTrack | None] | None:
        """Tracks of result and plate; None: nobody in this window.

        The result's face is looked for where the plate's is, and both are found from the same start, so that equal pictures give equal
        landmarks.
        """
        choice = self._choice
        if self._person is not None:  # several people: the next window follows the same one
            choice = choice | {"choose": "reference", "reference": self._person}
        try:
            track = track_faces(result if plate is None else plate, self._perception, **choice)
        except NoFaceError:
            return None
        self._person = track.embedding if self._person is None else self._person
        if plate is None:
            return track, None
        found = []
        for frames in (result, plate):
            roi = find_roi(frames, self._perception, landmarks_roi(track.landmarks), _SETTLED)
            landmarks, presence = find_landmarks(frames, self._perception, roi)
            presence = torch.where((presence >= PRESENT) & (track.presence > 0), presence, 0.0)
            found.append(replace(track, landmarks=landmarks, presence=presence))
        return found[0], found[1]

    def _faces(
        self, result: Tensor, plate: Tensor | None, track: FaceTrack, plate_track: FaceTrack | None
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Curves of who is seen and how, and what is evaluated over the whole clip at its end."""
        if self._likes is None:
            self._likes = self._fit(result, plate, track, plate_track)
        like, plate_like = self._likes
        embedding = self._perception.identity.embed(result, track.landmarks)
        fit = refit(result, track, self._head, like)
        curves, whole = {}, {"embedding": embedding, "result landmarks": track.landmarks[..., :2], "result rotation": fit.rotation}
        wanted = self._source or plate_like
        if wanted is not None and wanted.identity.embedding is not None:
            curves["identity"] = cosine(embedding, wanted.identity.embedding[None].to(embedding))
        if plate_like is not None:
            filmed = refit(plate, plate_track, self._head, plate_like)
            if self._source is None:
                whole["plate embedding"] = self._perception.identity.embed(plate, plate_track.landmarks)
            change = factor_change(filmed, fit)
            curves |= {name: getattr(change, name) for name in _FACTORS}
            whole |= {"plate landmarks": plate_track.landmarks[..., :2], "plate rotation": filmed.rotation}
        return curves, whole

    def _fit(
        self, result: Tensor, plate: Tensor | None, track: FaceTrack, plate_track: FaceTrack | None
    ) -> tuple[FacePrior, FacePrior | None]:
        """The identities that are held: without a source the result shows the plate's person, with one the source's shape."""
        if plate is None:
            return fit_prior(result, track, self._head, texture_size=_TEXTURE), None
        filmed = fit_prior(plate, plate_track, self._head, texture_size=_TEXTURE)
        if self._source is None:
            return filmed, filmed
        own = fit_prior(result, track, self._head, texture_size=_TEXTURE, focal=filmed.focal)
        return own.replace(identity=Identity(self._source.identity.shape.to(own.expression), own.identity.albedo)), filmed

    def _pictures(
        self, result: Tensor, plate: Tensor | None, track: FaceTrack
    ) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Curves of what the face looks like, of the result and of the plate, and features of both for the whole clip's end."""
        matrix = face_square(track.landmarks, SIZE)
        mask = face_oval(track.landmarks, matrix, SIZE)
        pair = self._squares(result, 0, matrix)
        filmed = pair if plate is None else self._squares(plate, 1, matrix)
        motion = self._motion(*filmed)
        curves = self._steadiness(pair, motion, mask)
        if plate is None:
            return curves, {}, {}
        now, reference = (_last_channel(x[0]) for x in (pair, filmed))
        curves["sharpness"] = relative_detail(now, reference, mask)
        if self._lpips is not None:
            curves["lpips"] = self._lpips(now, reference)
        network = self._inception
        looks = {} if network is None else {"look": network(now), "plate look": network(reference)}
        return curves, self._steadiness(filmed, motion, mask), looks

    def _naturalness(self, pair: tuple[Tensor, Tensor | None], track: FaceTrack) -> list[dict[str, Tensor]]:
        """NIQE of result and plate around the face, on the pixels as they are: resampling would change it.

        The square keeps its size over the clip, because fewer patches give a larger figure.
        """
        centre, extent = face_extent(track.landmarks)
        height, width = pair[0].shape[1:3]
        if self._natural_side is None:
            side = min(max(LEAST, float(extent.nanmedian())), _MOST, height, width)
            self._natural_side = int(side) // PATCH * PATCH if side >= LEAST else 0
            if not self._natural_side:
                self._notes.append(f"NIQE was not measured: it needs frames of {LEAST} x {LEAST} pixels; these are {width} x {height}.")
        side = self._natural_side
        if not 0 < side <= min(height, width):
            return [{}, {}]
        return [{} if frames is None else {"niqe": niqe(cut_squares(frames, centre, side)).to(frames)} for frames in pair]

    def _squares(self, frames: Tensor, which: int, matrix: Tensor) -> tuple[Tensor, Tensor]:
        """Squares (F, 3, SIZE, SIZE) of every frame, and of the frame before it at the same place."""
        earlier = frames[:1] if self._last is None else self._last[which]
        before = torch.cat([sample_crops(earlier, matrix[:1], SIZE), sample_crops(frames[:-1], matrix[1:], SIZE)])
        return sample_crops(frames, matrix, SIZE), before

    def _motion(self, now: Tensor, before: Tensor) -> tuple[Tensor, Tensor] | None:
        """Flow (F, 2, SIZE, SIZE) from squares back to the frame before, and how sure it is (F, SIZE, SIZE); None: none can be had here."""
        if self._flow is None:
            return None
        now, before = now.clamp(0, 1), before.clamp(0, 1)
        try:
            flow, reverse = self._flow(now, before), self._flow(before, now)
        except DynamicFaceError as reason:
            self._flow = None
            self._notes.append(f"Motion was not taken out. {reason}")
            return None
        return flow, consistency(flow, reverse)[:, 0]

    def _steadiness(self, pair: tuple[Tensor, Tensor], motion: tuple[Tensor, Tensor] | None, mask: Tensor) -> dict[str, Tensor]:
        """Curves of squares against the frame before."""
        now, before = (_last_channel(x) for x in pair)
        curves = {"ssim": ssim(luma(now), luma(before), mask)}
        if motion is not None:
            flow, sure = motion
            carried = _last_channel(warp(pair[1], flow))
            curves["ssim_compensated"] = ssim(luma(now), luma(carried), mask * sure)
            curves["warp_error"] = rms_difference(now, carried, mask * sure)
        if self._last is None:  # nothing lies before the first frame
            for values in curves.values():
                values[0] = torch.nan
        return curves


def measure_quality(
    result: Tensor,
    plate: Tensor | None,
    mask: Tensor | None,
    perception: Perception,
    head: HeadModel,
    *,
    progress: Callable[[int, int], None] | None = None,
    **settings,
) -> QualityReport:
    """The report of a clip that is in memory; arguments as for `QualityMeter` and its `add`. progress(done, total) is called."""
    meter = QualityMeter(perception, head, **settings)
    for start in range(0, len(result), WINDOW):
        part = slice(start, start + WINDOW)
        masked = mask if mask is None or len(mask) == 1 else mask[part]
        meter.add(result[part], None if plate is None else plate[part], masked)
        if progress is not None:
            progress(min(start + WINDOW, len(result)), len(result))
    return meter.report()


def _distances(whole: dict[str, Tensor], seen: Tensor) -> dict[str, float]:
    """`SETS` of what was kept of every frame; nothing where fewer than two frames show a face."""
    if seen.sum() < 2:
        return {}
    pairs = {"face_frechet": ("embedding", "plate embedding", face_feature_frechet), "fid": ("look", "plate look", fid)}
    return {name: distance(whole[ours][seen], whole[theirs][seen]) for name, (ours, theirs, distance) in pairs.items() if theirs in whole}


class _Curves(dict):
    """Values (F, ..) by name, window by window; not a number where a window has none of a name."""

    def __init__(self) -> None:
        super().__init__()
        self._frames = 0

    def append(self, values: dict[str, Tensor], frames: int) -> None:
        for name, value in values.items():
            self.setdefault(name, [value.new_full((self._frames, *value.shape[1:]), torch.nan)] if self._frames else []).append(value)
        for name, parts in self.items():
            if name not in values:
                parts.append(parts[-1].new_full((frames, *parts[-1].shape[1:]), torch.nan))
        self._frames += frames

    def joined(self) -> dict[str, Tensor]:
        return {name: torch.cat(parts) for name, parts in self.items()}


def _last_channel(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1)
