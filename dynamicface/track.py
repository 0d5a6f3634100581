"""Follow one person's face through a clip, or find it in a batch of photos.

What is unusual here:
- No frame waits for the frame before it. Faces are detected on key frames only; between them the region of interest (ROI) is
  interpolated, the landmark net runs on all frames in batches, and a frame is run again only where its landmarks say that the
  ROI was off. So the landmarks of a frame do not depend on where the clip starts, and a GPU is kept busy.
- ROIs are sub-pixel, rotated squares; nothing is rounded to whole pixels, so landmarks stay quiet on a quiet face.
- A frame without the face never fails the shot: it gets presence 0 and values interpolated from its neighbours.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .conventions import LANDMARKS
from .errors import DynamicFaceError, NoFaceError
from .images import as_plate, invert, sample_crops, square_matrix, transform
from .perception import Detections, Perception
from .perception.detector import iou
from .types import FaceTrack

log = logging.getLogger(__name__)

CHOICES = ("largest", "index", "leftmost", "rightmost", "centre", "reference")
KEY_STEP = 8  # frames between key frames of a clip
PHOTOS = 16  # batches up to this long may be unrelated photos: every frame is a key frame
CHUNK = 16  # frames per network call
PRESENT = 0.5  # presence from which a frame counts as showing the face
ROI_MARGIN = 1.5  # side of the ROI over the extent of the face; what the landmark net was trained with
SETTLED = 0.06  # ROI error, as a part of its side, up to which the landmarks are left as they are
PASSES = 4  # landmark passes per frame at most
BEST_FRAMES = 8  # frames averaged into the identity embedding
RIGHT_EYE, LEFT_EYE = (33, 133), (263, 362)  # eye corners


@dataclass
class Roi:
    """Square regions of interest, one per item."""

    centre: Tensor  # (N, 2) plate px
    side: Tensor  # (N,) px
    angle: Tensor  # (N,) radians, of the line from the right to the left eye

    def __getitem__(self, index: Tensor) -> Roi:
        return Roi(self.centre[index], self.side[index], self.angle[index])

    def __setitem__(self, index: Tensor, value: Roi) -> None:
        self.centre[index], self.side[index], self.angle[index] = value.centre, value.side, value.angle

    def matrix(self, size: int) -> Tensor:
        return square_matrix(self.centre, self.side, self.angle, size)

    def distance(self, other: Roi) -> Tensor:
        """(N,) largest deviation of position, size and angle, as a part of the side."""
        shift = (self.centre - other.centre).norm(dim=-1) / other.side
        growth = (self.side / other.side).log().abs() / 2
        turn = (torch.remainder(self.angle - other.angle + torch.pi, 2 * torch.pi) - torch.pi).abs() / 2
        return torch.stack([shift, growth, turn]).amax(0)

    @staticmethod
    def of_detections(boxes: Tensor, keypoints: Tensor) -> Roi:
        """From boxes (N, 4) and keypoints (N, 6, 2)."""
        eyes = keypoints[:, 1] - keypoints[:, 0]
        low, high = boxes[:, :2], boxes[:, 2:]
        return Roi((low + high) / 2, ROI_MARGIN * (high - low).amax(-1), torch.atan2(eyes[:, 1], eyes[:, 0]))

    @staticmethod
    def of_landmarks(landmarks: Tensor) -> Roi:
        """From landmarks (N, 478, 3): the bounding box in the frame of the eye line."""
        xy = landmarks[..., :2]
        eyes = xy[:, LEFT_EYE].mean(1) - xy[:, RIGHT_EYE].mean(1)
        angle = torch.atan2(eyes[:, 1], eyes[:, 0])
        cos, sin = torch.cos(angle), torch.sin(angle)
        upright = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)
        local = xy[:, :468] @ upright.mT
        low, high = local.amin(1), local.amax(1)
        centre = ((low + high) / 2)[:, None] @ upright
        return Roi(centre[:, 0], ROI_MARGIN * (high - low).amax(-1), angle)


def find_landmarks(plate: Tensor, perception: Perception, roi: Roi, frame: Tensor) -> tuple[Tensor, Tensor]:
    """One pass of the landmark net over ROIs of given frames (N,): landmarks (N, 478, 3) in plate px, presence (N,)."""
    size = perception.landmarks.size
    landmarks, presence = [], []
    for start in range(0, len(frame), CHUNK):
        part = slice(start, start + CHUNK)
        matrix = roi.matrix(size)[part]
        first, last = int(frame[part].min()), int(frame[part].max())
        crops = sample_crops(plate[first : last + 1], matrix, size, frame[part] - first)
        local, score = perception.landmarks(crops)
        xy = transform(local[..., :2], invert(matrix))
        z = local[..., 2:] * (roi.side[part] / size)[:, None, None]
        landmarks.append(torch.cat([xy, z], -1))
        presence.append(score)
    return torch.cat(landmarks), torch.cat(presence)


def settle(plate: Tensor, perception: Perception, roi: Roi, frame: Tensor, passes: int = PASSES) -> tuple[Tensor, Tensor]:
    """Landmarks whose own ROI agrees with the ROI they were found in; runs only the unsettled ones again."""
    landmarks, presence = find_landmarks(plate, perception, roi, frame)
    roi = roi[torch.arange(len(frame), device=frame.device)]
    active = torch.arange(len(frame), device=frame.device)
    for _ in range(passes - 1):
        found = Roi.of_landmarks(landmarks[active])
        moved = found.distance(roi[active]) > SETTLED
        active, found = active[moved], found[moved]
        if len(active) == 0:
            break
        roi[active] = found
        landmarks[active], presence[active] = find_landmarks(plate, perception, found, frame[active])
    return landmarks, presence


class _Follower:
    """Chooses the same person's face on one key frame after the other."""

    def __init__(self, plate: Tensor, perception: Perception, choose: str, index: int, reference: Tensor | None) -> None:
        self.plate, self.perception = plate, perception
        self.choose, self.index, self.target = choose, index, reference
        self.last: Tensor | None = None  # (4,) box of the person where last seen

    def pick(self, frame: int, faces: Detections) -> int:
        """Number of the person's face among the faces of a frame (at least one)."""
        picked = self._pick(frame, faces)
        self.last = faces.boxes[picked]
        if self.target is None and len(faces) > 1:
            self.target = self._embed(frame, faces)[picked]
        return picked

    def _pick(self, frame: int, faces: Detections) -> int:
        if self.last is not None:
            if len(faces) == 1:
                return 0
            overlap = iou(self.last[None], faces.boxes)[0]
            if overlap.max() > 0.3:
                return int(overlap.argmax())
        if self.target is not None:
            return int((self._embed(frame, faces) @ self.target).argmax())
        centre = (faces.boxes[:, :2] + faces.boxes[:, 2:]) / 2
        area = (faces.boxes[:, 2:] - faces.boxes[:, :2]).prod(-1)
        if self.choose == "leftmost":
            return int(centre[:, 0].argmin())
        if self.choose == "rightmost":
            return int(centre[:, 0].argmax())
        if self.choose == "centre":
            middle = torch.tensor([self.plate.shape[2] / 2, self.plate.shape[1] / 2], device=centre.device)
            return int((centre - middle).norm(dim=-1).argmin())
        by_size = area.argsort(descending=True)
        return int(by_size[min(self.index, len(faces) - 1) if self.choose == "index" else 0])

    def _embed(self, frame: int, faces: Detections) -> Tensor:
        """(N, D) identity of every face of a frame."""
        roi = Roi.of_detections(faces.boxes, faces.keypoints)
        frames = torch.full((len(faces),), frame, device=self.plate.device)
        landmarks, _ = settle(self.plate, self.perception, roi, frames, passes=2)
        return self.perception.identity.embed(self.plate[frame : frame + 1], landmarks, torch.zeros_like(frames))


def _key_frames(frames: int) -> list[int]:
    """Every frame of a short batch, else every KEY_STEP-th and the last."""
    return list(range(frames)) if frames <= PHOTOS else sorted({*range(0, frames, KEY_STEP), frames - 1})


def _interpolate(values: Tensor, known: Tensor, wanted: Tensor) -> Tensor:
    """Values (K, ...) given at the sorted times `known` (K,), at the times `wanted`: linear between, held outside."""
    right = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    left = (right - 1).clamp_min(0)
    left = torch.where(wanted >= known[right], right, left)
    gap = (known[right] - known[left]).clamp_min(1)
    t = ((wanted - known[left]) / gap).clamp(0, 1).to(values.dtype).reshape(-1, *[1] * (values.dim() - 1))
    return values[left] + t * (values[right] - values[left])


@torch.inference_mode()
def track_faces(
    images: Tensor,
    perception: Perception,
    *,
    choose: str = "largest",
    index: int = 0,
    reference: Tensor | None = None,
    threshold: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> FaceTrack:
    """Follow one person through the frames of a clip or a batch of photos (F, H, W, C).

    Args:
        choose: which of several faces, decided on the first frame that shows any; afterwards the person is followed.
            "largest"; "index" (faces numbered by size, largest first); "leftmost", "rightmost"; "centre" (nearest to the
            middle of the plate); "reference" (most like the identity vector `reference`).
        threshold: least detector score of a face.
        progress: called with (frames done, frames).

    Raises:
        NoFaceError: no frame shows a face.
        ImageError: the images are unusable (see `as_plate`).
        DynamicFaceError: unknown `choose`, or "reference" without a reference.
    """
    if choose not in CHOICES:
        raise DynamicFaceError(f"Unknown way to choose a face: {choose!r}; use one of {', '.join(CHOICES)}.")
    if choose == "reference" and reference is None:
        raise DynamicFaceError("Choosing the face by reference needs a reference photo; connect one or choose by size or position.")
    plate = as_plate(images)
    frames, height, width, _ = plate.shape
    report = progress or (lambda done, total: None)
    device = plate.device
    follower = _Follower(plate, perception, choose, index, reference if choose == "reference" else None)

    def detect(wanted: list[int]) -> tuple[list[int], Roi]:
        """The person's ROI on those of the wanted frames that show a face."""
        found, boxes, keypoints = [], [], []
        thorough = choose not in ("largest",)
        for start in range(0, len(wanted), CHUNK):
            part = wanted[start : start + CHUNK]
            picture = plate[part] if len(part) < frames else plate
            faces = perception.detector.detect(picture, threshold, tiles=thorough)
            empty = [i for i, f in enumerate(faces) if len(f) == 0]
            if empty and not thorough:
                for i, f in zip(empty, perception.detector.detect(picture[empty], threshold), strict=True):
                    faces[i] = f
            for frame, f in zip(part, faces, strict=True):
                if len(f):
                    picked = follower.pick(frame, f)
                    found.append(frame)
                    boxes.append(f.boxes[picked])
                    keypoints.append(f.keypoints[picked])
        if not found:
            return [], Roi(torch.zeros(0, 2, device=device), torch.zeros(0, device=device), torch.zeros(0, device=device))
        return found, Roi.of_detections(torch.stack(boxes), torch.stack(keypoints))

    landmarks = torch.zeros(frames, LANDMARKS, 3, device=device)
    presence = torch.zeros(frames, device=device)

    def locate(wanted: list[int], roi: Roi) -> None:
        frame = torch.tensor(wanted, device=device)
        landmarks[frame], presence[frame] = settle(plate, perception, roi, frame)

    keys = _key_frames(frames)
    found, roi = detect(keys)
    if found:
        locate(found, roi)
    report(len(keys), frames)

    rest = [f for f in range(frames) if f not in set(keys)]
    present = (presence >= PRESENT).nonzero().flatten()
    if rest and len(present):
        wanted = torch.tensor(rest, device=device)
        guess = _interpolate(landmarks[present], present, wanted)
        for start in range(0, len(rest), CHUNK):
            part = slice(start, start + CHUNK)
            locate(rest[part], Roi.of_landmarks(guess[part]))
            report(len(keys) + min(start + CHUNK, len(rest)), frames)
    lost = [f for f in rest if presence[f] < PRESENT]
    if lost:
        found, roi = detect(lost)
        if found:
            locate(found, roi)
    report(frames, frames)

    present = (presence >= PRESENT).nonzero().flatten()
    if len(present) == 0:
        raise NoFaceError(
            f"No face was found in {'the picture' if frames == 1 else f'any of the {frames} frames'} ({width} x {height}). "
            "Use a picture in which the face is at least about 30 pixels wide and not turned away, or lower the detection threshold."
        )
    if len(present) < frames:
        absent = sorted(set(range(frames)) - set(present.tolist()))
        log.warning("No face in %d of %d frames: %s", len(absent), frames, ", ".join(map(str, absent[:20])))
        landmarks = _interpolate(landmarks[present], present, torch.arange(frames, device=device))
        presence = torch.where(presence >= PRESENT, presence, 0.0)
    return FaceTrack(
        image_size=(height, width),
        boxes=torch.cat([landmarks[..., :2].amin(1), landmarks[..., :2].amax(1)], -1),
        landmarks=landmarks,
        presence=presence,
        embedding=embed_best(plate, perception, landmarks, presence),
    )


def embed_best(plate: Tensor, perception: Perception, landmarks: Tensor, presence: Tensor) -> Tensor:
    """(D,) unit identity vector, averaged over the frames that show the face best: present and frontal."""
    xy = landmarks[..., :2]
    left, right = (xy[:, 454] - xy[:, 1]).norm(dim=-1), (xy[:, 234] - xy[:, 1]).norm(dim=-1)
    frontal = torch.minimum(left, right) / torch.maximum(left, right).clamp_min(1e-6)
    best = (presence * frontal).topk(min(BEST_FRAMES, len(presence))).indices.sort().values
    best = best[presence[best] >= PRESENT]
    vectors = [perception.identity.embed(plate[i : i + 1], landmarks[i : i + 1]) for i in best]
    return F.normalize(torch.cat(vectors).mean(0), dim=0)


def track_to_core(track: FaceTrack) -> dict:
    """A track as ComfyUI core's FACE_LANDMARKS dict (numpy arrays; one face per frame, none where the face is absent).

    Blend shapes and the transformation matrix are not ours to know; `blendshapes` is empty and consumers must accept that.
    """
    frames = []
    for box, points, presence in zip(track.boxes, track.landmarks, track.presence, strict=True):
        face = {
            "bbox_xyxy": box.cpu().numpy().astype(np.float32),
            "blendshapes": {},
            "landmarks_xy": points[:, :2].cpu().numpy().astype(np.float32),
            "landmarks_3d": points.cpu().numpy().astype(np.float32),
            "presence": float(presence),
            "score": float(presence),
        }
        frames.append([face] if presence > 0 else [])
    return {"frames": frames, "image_size": track.image_size, "connection_sets": {}}


def track_from_core(face_landmarks: dict, index: int = 0) -> FaceTrack:
    """A track from core's FACE_LANDMARKS dict: face number `index` of every frame.

    Core's `landmarks_3d` are in the units of its network's crop; the depth is scaled to plate px by comparing their x, y with
    `landmarks_xy`. Frames without the face are interpolated and get presence 0.

    Raises:
        NoFaceError: no frame has a face with that index.
        DynamicFaceError: the dict lacks what a track needs.
    """
    missing = {"frames", "image_size"} - set(face_landmarks)
    if missing:
        raise DynamicFaceError(f"The face landmarks lack {', '.join(sorted(missing))}; connect the output of a face landmarker node.")
    frames = face_landmarks["frames"]
    known, landmarks = [], []
    for number, faces in enumerate(frames):
        if index < len(faces):
            xy = torch.as_tensor(np.asarray(faces[index]["landmarks_xy"]), dtype=torch.float32)
            local = torch.as_tensor(np.asarray(faces[index].get("landmarks_3d", np.zeros((len(xy), 3)))), dtype=torch.float32)
            if xy.shape != (LANDMARKS, 2):
                raise DynamicFaceError(f"Frame {number} has landmarks of shape {tuple(xy.shape)}; expected ({LANDMARKS}, 2).")
            spread = (local[:, :2] - local[:, :2].mean(0)).norm()
            scale = (xy - xy.mean(0)).norm() / spread if spread > 0 else 0.0
            known.append(number)
            landmarks.append(torch.cat([xy, local[:, 2:] * scale], -1))
    if not known:
        raise NoFaceError(f"None of the {len(frames)} frames of the face landmarks has a face number {index}; lower the index.")
    points = _interpolate(torch.stack(landmarks), torch.tensor(known), torch.arange(len(frames)))
    presence = torch.zeros(len(frames))
    presence[known] = 1.0
    height, width = face_landmarks["image_size"]
    boxes = torch.cat([points[..., :2].amin(1), points[..., :2].amax(1)], -1)
    return FaceTrack(image_size=(int(height), int(width)), boxes=boxes, landmarks=points, presence=presence)
