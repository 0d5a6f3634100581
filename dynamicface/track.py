"""Follow one person's face through a clip, or find it in a batch of photos.

What is unusual here:
- No frame waits for the frame before it. Faces are detected on key frames only; between them the region of interest (ROI) is
  interpolated, and the landmark net runs on many frames at once: first looks that only correct the ROI, repeated where it
  moved far, then one full pass. So the landmarks of a frame hardly depend on where the clip starts, and a GPU is kept busy.
- ROIs are sub-pixel, rotated squares around a soft bounding box: the landmarks of a quiet face are quieter than when the ROI
  hangs on the outermost points of the frame before.
- A frame without the face never fails the shot: it gets presence 0 and values interpolated from its neighbours.

An ROI is a row (x, y, u, v): the centre of a square in plate px and the vector along its upper edge, which holds its side and
its angle. ROIs so written can be interpolated like any other vector.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .conventions import LANDMARKS
from .errors import DynamicFaceError, NoFaceError
from .images import as_plate, invert, sample_crops, square_matrix, transform
from .perception import Detections, Perception
from .perception.detector import iou
from .perception.landmarks import LEFT_EYE, RIGHT_EYE
from .types import FaceTrack

log = logging.getLogger(__name__)

CHOICES = ("largest", "index", "leftmost", "rightmost", "centre", "reference")
KEY_STEP = 8  # frames between key frames of a clip
PHOTOS = 16  # batches up to this long may be unrelated photos: every frame is a key frame
CHUNK = 16  # frames per network call
LOOKS = 3  # passes at most that correct the ROI before the full pass
SETTLED = 0.1  # change of an ROI, as a part of its side, up to which a clip's frame is not looked at again; photos get every look
PRESENT = 0.5  # presence from which a frame counts as showing the face
SURE = 0.99  # presence from which it needs no second opinion; real faces nearly always have it, lettering that passes for one seldom
STRANGER = 0.5  # cosine to the person's identity below which a doubtful frame shows something else
SAME_PLACE = 0.2  # IoU from which a detection continues the face seen before
SAME_PERSON = 0.6  # cosine of identity vectors from which two faces may be one person
BEST_FRAMES = 6  # frames averaged into the identity embedding

ROI_TO_BOX = 1.5  # the landmark net was trained on squares this much larger than the face's bounding box
SOFTNESS = 0.2  # of the soft bounding box of the landmarks, as a part of their spread
SOFT_BOX_GROWTH, SOFT_BOX_DROP = 1.107, 0.0032  # make the soft box as large and as low as the hard one, on average


def faces_roi(faces: Detections) -> Tensor:
    """ROIs (N, 4) around detections, upright along the line between the eyes."""
    low, high = faces.boxes[:, :2], faces.boxes[:, 2:]
    right = F.normalize(faces.keypoints[:, 1] - faces.keypoints[:, 0], dim=-1)
    return torch.cat([(low + high) / 2, right * ROI_TO_BOX * (high - low).amax(-1, keepdim=True)], -1)


def landmarks_roi(landmarks: Tensor) -> Tensor:
    """ROIs (N, 4) from landmarks (N, 468.., 2..): around their soft bounding box, upright along the line between the eyes.

    A soft maximum, the mean weighted by exp(x / softness), follows all points near the edge and so is quieter than the outermost.
    """
    xy = landmarks[:, :468, :2]
    right = F.normalize(xy[:, LEFT_EYE].mean(1) - xy[:, RIGHT_EYE].mean(1), dim=-1)
    upright = torch.stack([right, torch.stack([-right[:, 1], right[:, 0]], -1)], -2)  # rows: right, down
    mean = xy.mean(1, keepdim=True)
    local = (xy - mean) @ upright.mT
    steep = local / (SOFTNESS * local.pow(2).mean((1, 2), keepdim=True).sqrt())
    low, high = ((local * weight.softmax(1)).sum(1) for weight in (-steep, steep))
    side = ROI_TO_BOX * SOFT_BOX_GROWTH * (high - low).amax(-1, keepdim=True)
    centre = (low + high) / 2 + side * side.new_tensor([0.0, SOFT_BOX_DROP])
    return torch.cat([mean[:, 0] + (centre[:, None] @ upright)[:, 0], side * right], -1)


def roi_matrix(roi: Tensor, size: int) -> Tensor:
    """(N, 2, 3) PLATE to the crop of an ROI."""
    return square_matrix(roi[:, :2], roi[:, 2:].norm(dim=-1), torch.atan2(roi[:, 3], roi[:, 2]), size)


def roi_box(roi: Tensor) -> Tensor:
    """(N, 4) roughly the detector's box of the face in an ROI."""
    half = roi[:, 2:].norm(dim=-1, keepdim=True) / ROI_TO_BOX / 2
    return torch.cat([roi[:, :2] - half, roi[:, :2] + half], -1)


def roi_change(a: Tensor, b: Tensor) -> Tensor:
    """(N,) how far a's square lies from b's, as a part of b's side."""
    return torch.maximum((a - b)[:, :2].norm(dim=-1), (a - b)[:, 2:].norm(dim=-1) / 2) / b[:, 2:].norm(dim=-1)


def find_roi(plate: Tensor, perception: Perception, roi: Tensor, settled: float = 0.0) -> Tensor:
    """ROIs (N, 4) of the faces in frames (N, H, W, 3) from rough ones: looks again while a look moves the ROI by more than `settled`."""
    net, size = perception.landmarks, perception.landmarks.size
    roi, active = roi.clone(), torch.arange(len(roi), device=roi.device)
    for _ in range(LOOKS):
        matrix = roi_matrix(roi[active], size)
        mesh = net.mesh_only(sample_crops(plate, matrix, size, active, max_taps=2))
        found = landmarks_roi(transform(mesh[..., :2], invert(matrix)))
        change = roi_change(found, roi[active])
        roi[active] = found
        active = active[change > settled]
        if len(active) == 0:
            break
    return roi


def find_landmarks(plate: Tensor, perception: Perception, roi: Tensor) -> tuple[Tensor, Tensor]:
    """Landmarks (N, 478, 3) in plate px and presence (N,) of frames (N, H, W, 3), from exact ROIs."""
    net, size = perception.landmarks, perception.landmarks.size
    matrix = roi_matrix(roi, size)
    local, presence = net(sample_crops(plate, matrix, size))
    depth = local[..., 2:] * roi[:, None, 2:].norm(dim=-1, keepdim=True) / size
    return torch.cat([transform(local[..., :2], invert(matrix)), depth], -1), presence


class _Chooser:
    """Recognises the wanted person among the faces of a frame."""

    def __init__(self, plate: Tensor, perception: Perception, choose: str, index: int, reference: Tensor | None, clip: bool) -> None:
        self.plate, self.perception = plate, perception
        self.choose, self.index, self.clip = choose, index, clip
        self.reference = reference  # (D,) identity vector to look for
        self.first: tuple[int, Tensor] | None = None  # frame and ROI where the person was chosen
        self.crowd = False  # more than one face was seen so far

    def continues(self, faces: Detections, expected: Tensor | None) -> int | None:
        """Number of the face that lies where the person was last seen (box (4,)), if any."""
        if len(faces) == 0 or expected is None:
            return None
        overlap = iou(expected[None], faces.boxes)[0]
        return int(overlap.argmax()) if overlap.max() > SAME_PLACE else None

    def pick(self, frame: int, faces: Detections, expected: Tensor | None) -> int | None:
        """Number of the person's face; None where it is not seen, or only others are."""
        self.crowd |= len(faces) > 1
        if len(faces) == 0:
            return None
        if (same := self.continues(faces, expected)) is not None:
            return same
        if self.first is None:
            return self._choose(frame, faces)
        if not self.crowd and self.reference is None:
            return 0
        likeness = self._identity(frame, faces_roi(faces)) @ self._target()
        best = int(likeness.argmax())
        return best if likeness[best] >= SAME_PERSON or not self.clip else None

    def _choose(self, frame: int, faces: Detections) -> int | None:
        """The first pick, among the detections that the landmark net confirms."""
        roi = faces_roi(faces)
        if len(faces) > 1:
            real = (self._landmarks(frame, roi)[1] >= PRESENT).nonzero().flatten()
            if len(real) == 0:
                return None
        else:
            real = torch.zeros(1, dtype=torch.long, device=roi.device)
        boxes = faces.boxes[real]
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        middle = centre.new_tensor([self.plate.shape[2] / 2, self.plate.shape[1] / 2])
        by_size = (boxes[:, 2:] - boxes[:, :2]).prod(-1).argsort(descending=True)
        if self.choose == "reference":
            best = (self._identity(frame, roi[real]) @ self.reference).argmax()
        elif self.choose == "leftmost":
            best = centre[:, 0].argmin()
        elif self.choose == "rightmost":
            best = centre[:, 0].argmax()
        elif self.choose == "centre":
            best = (centre - middle).norm(dim=-1).argmin()
        else:
            best = by_size[min(self.index, len(real) - 1) if self.choose == "index" else 0]
        picked = int(real[best])
        self.first = frame, roi[picked]
        return picked

    def _target(self) -> Tensor:
        """(D,) identity of the person, computed when somebody has to be told apart."""
        if self.reference is None:
            frame, roi = self.first
            self.reference = self._identity(frame, roi[None])[0]
        return self.reference

    def _landmarks(self, frame: int, roi: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks and presence of the faces in several ROIs (N, 4) of one frame."""
        same = self.plate[frame : frame + 1].expand(len(roi), -1, -1, -1)
        return find_landmarks(same, self.perception, find_roi(same, self.perception, roi, SETTLED))

    def _identity(self, frame: int, roi: Tensor) -> Tensor:
        """(N, D) identity vectors of the faces in several ROIs (N, 4) of one frame."""
        same = self.plate[frame : frame + 1].expand(len(roi), -1, -1, -1)
        return self.perception.identity.embed(same, self._landmarks(frame, roi)[0])


def _interpolate(values: Tensor, known: Tensor, wanted: Tensor) -> Tensor:
    """Values (K, ...) given at the sorted times `known` (K,), at the times `wanted`: linear between, held outside."""
    right = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    left = torch.where(wanted >= known[right], right, (right - 1).clamp_min(0))
    gap = (known[right] - known[left]).clamp_min(1)
    t = ((wanted - known[left]) / gap).clamp(0, 1).to(values.dtype).reshape(-1, *[1] * (values.dim() - 1))
    return torch.lerp(values[left], values[right], t)


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
        choose: which of several faces, decided on the first frame that shows any; afterwards the person is followed, by place
            and, where that fails, by identity. "largest"; "index" (numbered by size, the largest is 0); "leftmost",
            "rightmost"; "centre" (nearest to the middle of the plate); "reference" (most like the identity vector `reference`).
        threshold: least detector score of a face.
        progress: called with (frames done, frames); may raise to interrupt.

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
    clip = frames > PHOTOS
    chooser = _Chooser(plate, perception, choose, index, reference if choose == "reference" else None, clip)
    report = progress or (lambda done, total: None)

    keys, rois = _detect_keys(plate, perception, chooser, KEY_STEP if clip else 1, threshold)
    landmarks = torch.zeros(frames, LANDMARKS, 3, device=plate.device)
    presence = torch.zeros(frames, device=plate.device)
    if keys:
        roi = _interpolate(torch.stack(rois), torch.tensor(keys, device=plate.device), torch.arange(frames, device=plate.device))
        for start in range(0, frames, CHUNK):
            part = slice(start, start + CHUNK)
            exact = find_roi(plate[part], perception, roi[part], SETTLED if clip else 0.0)
            landmarks[part], presence[part] = find_landmarks(plate[part], perception, exact)
            report(min(start + CHUNK, frames), frames)
    present = (presence >= PRESENT).nonzero().flatten()
    if clip and 0 < len(present) < frames:
        _search_lost(plate, perception, chooser, landmarks, presence, threshold)
        present = (presence >= PRESENT).nonzero().flatten()
    if clip and len(present):
        presence = _without_impostors(plate, perception, landmarks, presence)
        present = (presence >= PRESENT).nonzero().flatten()
    if len(present) == 0:
        raise NoFaceError(
            f"No face was found in {'the picture' if frames == 1 else f'any of the {frames} frames'} ({width} x {height} pixels). "
            "Use a picture that shows the face from the front or the side, at least about 30 pixels wide, or lower the threshold."
        )
    if len(present) < frames:
        absent = (presence < PRESENT).nonzero().flatten().tolist()
        log.warning("No face in %d of %d frames: %s", len(absent), frames, ", ".join(map(str, absent[:20])))
        landmarks = _interpolate(landmarks[present], present, torch.arange(frames, device=plate.device))
        presence = torch.where(presence >= PRESENT, presence, 0.0)
    return FaceTrack(
        image_size=(height, width),
        boxes=_boxes(landmarks),
        landmarks=landmarks,
        presence=presence,
        embedding=embed_best(plate, perception, landmarks, presence),
    )


def _detect_keys(plate: Tensor, perception: Perception, chooser: _Chooser, step: int, threshold: float) -> tuple[list[int], list[Tensor]]:
    """Key frames that show the person, and its ROI (4,) in each. Small faces are searched for only where the quick look fails."""
    found, rois, expected = [], [], None
    for start in range(0, len(plate), step * CHUNK):
        part = plate[start : start + step * CHUNK : step]
        for i, faces in enumerate(perception.detector.detect(part, threshold, small=False)):
            doubtful = chooser.continues(faces, expected) is None and (expected is not None or chooser.choose != "largest")
            if len(faces) == 0 or doubtful:
                faces = perception.detector.detect(part[i : i + 1], threshold)[0]
            frame = start + i * step
            picked = chooser.pick(frame, faces, expected)
            if picked is not None:
                found.append(frame)
                rois.append(faces_roi(faces)[picked])
                expected = faces.boxes[picked] if chooser.clip else None
    return found, rois


def _search_lost(plate: Tensor, perception: Perception, chooser: _Chooser, landmarks: Tensor, presence: Tensor, threshold: float) -> None:
    """Detect the person on the frames between the key frames where following it failed; fills landmarks and presence in place."""
    lost = (presence < PRESENT).nonzero().flatten()
    present = (presence >= PRESENT).nonzero().flatten()
    expected = roi_box(_interpolate(landmarks_roi(landmarks[present]), present, lost))
    for start in range(0, len(lost), CHUNK):
        frames = lost[start : start + CHUNK]
        pictures = plate[frames]
        items, rois = [], []
        for i, faces in enumerate(perception.detector.detect(pictures, threshold, small=False)):
            picked = chooser.pick(int(frames[i]), faces, expected[start + i])
            if picked is not None:
                items.append(i)
                rois.append(faces_roi(faces)[picked])
        if items:
            pictures = pictures[items]
            roi = find_roi(pictures, perception, torch.stack(rois), SETTLED)
            landmarks[frames[items]], presence[frames[items]] = find_landmarks(pictures, perception, roi)


def _without_impostors(plate: Tensor, perception: Perception, landmarks: Tensor, presence: Tensor) -> Tensor:
    """Presence (F,) with 0 in the doubtful frames (less than sure, or a brief appearance) that look nothing like the person."""
    present = presence >= PRESENT
    _, lengths = torch.unique_consecutive(present, return_counts=True)
    brief = lengths.repeat_interleave(lengths) <= KEY_STEP
    doubtful = (present & ((presence < SURE) | brief)).nonzero().flatten()
    if len(doubtful) == 0:
        return presence
    person = embed_best(plate, perception, landmarks, presence)
    likeness = torch.cat([perception.identity.embed(plate[i : i + 1], landmarks[i : i + 1]) for i in doubtful]) @ person
    return presence.index_fill(0, doubtful[likeness < STRANGER], 0.0)


def embed_best(plate: Tensor, perception: Perception, landmarks: Tensor, presence: Tensor) -> Tensor:
    """(D,) unit identity vector, averaged over the frames that show the face best: present, frontal and large."""
    to_nose = (landmarks[:, [234, 454], :2] - landmarks[:, 1:2, :2]).norm(dim=-1)  # from either edge of the face
    frontal = to_nose.amin(1) / to_nose.amax(1).clamp_min(1e-6)
    size = landmarks_roi(landmarks)[:, 2:].norm(dim=-1)
    quality = torch.where(presence >= PRESENT, presence * frontal * size, -1.0)
    best = quality.topk(min(BEST_FRAMES, int((quality >= 0).sum()))).indices
    return F.normalize(perception.identity.embed(plate[best], landmarks[best]).mean(0), dim=0)


def _boxes(landmarks: Tensor) -> Tensor:
    return torch.cat([landmarks[..., :2].amin(1), landmarks[..., :2].amax(1)], -1)


def track_to_core(track: FaceTrack) -> dict:
    """A track as ComfyUI core's FACE_LANDMARKS dict: numpy arrays, one face per frame, none where the face is absent.

    Blend shapes are not known here: `blendshapes` is empty.
    """
    frames = []
    for box, points, presence in zip(track.boxes.cpu(), track.landmarks.cpu(), track.presence.tolist(), strict=True):
        face = {
            "bbox_xyxy": box.numpy().astype(np.float32),
            "blendshapes": {},
            "landmarks_xy": points[:, :2].numpy().astype(np.float32),
            "landmarks_3d": points.numpy().astype(np.float32),
            "presence": presence,
            "score": presence,
        }
        frames.append([face] if presence > 0 else [])
    return {"frames": frames, "image_size": track.image_size, "connection_sets": {}}


def track_from_core(face_landmarks: dict, index: int = 0) -> FaceTrack:
    """A track from core's FACE_LANDMARKS dict: face number `index` of every frame.

    Core's `landmarks_3d` are in px of its network's crop; the depth is scaled to plate px by comparing their x, y with
    `landmarks_xy`. Frames without the face are interpolated and get presence 0. Blend shapes are not needed.

    Raises:
        NoFaceError: no frame has a face with that index.
        DynamicFaceError: the dict lacks what a track needs.
    """
    if not isinstance(face_landmarks, dict) or not {"frames", "image_size"} <= face_landmarks.keys():
        raise DynamicFaceError("This is no face landmarks output: it lacks frames and image_size. Connect a face landmarker node.")
    frames = face_landmarks["frames"]
    known, landmarks = [], []
    for number, faces in enumerate(frames):
        if index >= len(faces):
            continue
        xy = torch.as_tensor(np.asarray(faces[index]["landmarks_xy"], dtype=np.float32))
        if xy.shape != (LANDMARKS, 2):
            raise DynamicFaceError(f"Frame {number} has landmarks of shape {tuple(xy.shape)}; a track needs ({LANDMARKS}, 2).")
        local = torch.as_tensor(np.asarray(faces[index]["landmarks_3d"], dtype=np.float32))
        scale = (xy - xy.mean(0)).norm() / (local[:, :2] - local[:, :2].mean(0)).norm().clamp_min(1e-6)
        known.append(number)
        landmarks.append(torch.cat([xy, local[:, 2:] * scale], -1))
    if not known:
        raise NoFaceError(f"None of the {len(frames)} frames of the face landmarks has a face number {index}; lower the index.")
    points = _interpolate(torch.stack(landmarks), torch.tensor(known), torch.arange(len(frames)))
    presence = torch.zeros(len(frames)).index_fill(0, torch.tensor(known), 1.0)
    height, width = (int(n) for n in face_landmarks["image_size"])
    return FaceTrack(image_size=(height, width), boxes=_boxes(points), landmarks=points, presence=presence)
