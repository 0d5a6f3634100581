"""Follow one person's face through a clip, or find it in a batch of photos.

What is unusual here:
- A clip is read once, in windows, and only numbers are kept of it, so its length does not matter (:class:`FaceTracker`).
- No frame of a window waits for the frame before it. On key frames the region of interest (ROI) of the face is carried on from the last
  window, or detected where that fails: at the start, after a cut, where the face was lost, moved far or became somebody else's. Between
  key frames the ROI is interpolated, and the landmark net runs on many frames at once: first looks that only correct the ROI, repeated
  where it moved far, then one full pass. So the landmarks of a frame hardly depend on where the clip starts, and a GPU is kept busy.
- The person is known by identity vectors of several views. One frame of every window is compared with them, and every candidate is where
  several faces are seen or the face comes back, so that cuts, crossings and absences do not exchange people.
- ROIs are sub-pixel, rotated squares around a soft bounding box: the landmarks of a quiet face are quieter than when the ROI
  hangs on the outermost points of the frame before.
- Where the landmark net gives up because the head is seen from the side, the detector's keypoints still tell its pose, and the mean head's
  landmarks stand in (`perception/profile.py`).
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
from .io.clips import Clip
from .perception import Detections, Perception
from .perception.detector import iou
from .perception.landmarks import LEFT_EYE, RIGHT_EYE
from .prior.camera import euler_from_rotation
from .types import FaceTrack
from .windows import ahead, map_windows

log = logging.getLogger(__name__)

CHOICES = ("largest", "index", "leftmost", "rightmost", "centre", "reference")
KEY_STEP = 8  # frames between key frames of a clip
PHOTOS = 16  # batches up to this long may be unrelated photos: every frame is a key frame
WINDOW = 16  # frames followed together
CHUNK = 4  # of them per network call on a CPU: what the layers hand on stays in its caches
LOOKS = 3  # passes at most that correct the ROI before the full pass
SETTLED = 0.1  # change of an ROI, as a part of its side, up to which a clip's frame is not looked at again; photos get every look
PRESENT = 0.5  # presence from which a frame counts as showing the face
SURE = 0.99  # presence from which it needs no second opinion; real faces nearly always have it, lettering that passes for one seldom
STRANGER = 0.5  # cosine to the person's identity below which a doubtful frame shows something else
SAME_PLACE = 0.2  # IoU from which a detection continues the face seen before
SAME_PERSON = 0.6  # cosine of identity vectors from which two faces may be one person
FAMILIAR = 0.1  # added to the likeness of the face that lies where the person was
SIDE_BY_SIDE = 1.5  # distance of two faces, in their size, below which every frame is compared with the person
NEW_VIEW = 0.85  # cosine to all known views of the person below which another view is worth keeping
VIEWS = 8  # identity vectors kept of the person
FAR = 0.4  # change of a carried-on ROI, as a part of its side, from which the face is detected anew
DISAGREE = 0.06  # difference of two readings, as a part of the ROI's side, at which their agreement has fallen to 1 / e
DIVIDED = 0.5  # agreement below which the landmark net may be at a loss, however sure it is
AGREED = 0.8  # agreement below which a frame is read again, from where its neighbours say the face is
PROFILE = 0.6  # detector's score from which a face the landmark net is not sure of is one seen from the side, if its keypoints say so
PROFILE_YAW = 55.0  # degrees from which a face is seen from the side
UNLIKE = 2.5  # how much less like a profile the keypoints may be than profiles are on average
SURROUNDINGS = (1.2, 1.6, 2.2)  # of the ROI, in which a profile is looked for; the keypoints found are averaged
CERTAINTY = 20  # power of the presence in the quality of a frame: lettering is large and frontal, but not sure
CUT_LEAST, CUT_MOST = 0.07, 0.25  # mean difference of two frames, 0..1, below which there is no cut and above which there always is
CUT_RATIO = 3.0  # times the usual difference that makes a cut
CUT_MEMORY = 12  # frames that tell what is usual
CUT_UNKNOWN = 0.05  # taken for usual where too few frames came before
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


def find_roi(plate: Tensor, perception: Perception, roi: Tensor, settled: float = 0.0, frame: Tensor | None = None) -> Tensor:
    """ROIs (N, 4) of the faces in frames (F, H, W, 3) from rough ones: looks again while a look moves the ROI by more than `settled`.

    frame (N,): which frame each is in; None means one per frame, in order.
    """
    net, size = perception.landmarks, perception.landmarks.size
    roi, active = roi.clone(), torch.arange(len(roi), device=roi.device)
    frame = active if frame is None else frame
    for _ in range(LOOKS):
        matrix = roi_matrix(roi[active], size)
        mesh = net.mesh_only(sample_crops(plate, matrix, size, frame[active], max_taps=2))
        found = landmarks_roi(transform(mesh[..., :2], invert(matrix)))
        change = roi_change(found, roi[active])
        roi[active] = found
        active = active[change > settled]
        if len(active) == 0:
            break
    return roi


def find_landmarks(plate: Tensor, perception: Perception, roi: Tensor, frame: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Landmarks (N, 478, 3) in plate px and presence (N,) of faces in frames (F, H, W, 3), from exact ROIs (N, 4); frame as above."""
    net, size = perception.landmarks, perception.landmarks.size
    matrix = roi_matrix(roi, size)
    local, presence = net(sample_crops(plate, matrix, size, frame))
    depth = local[..., 2:] * roi[:, None, 2:].norm(dim=-1, keepdim=True) / size
    return torch.cat([transform(local[..., :2], invert(matrix)), depth], -1), presence


def find_profile(picture: Tensor, perception: Perception, roi: Tensor) -> tuple[Tensor, Tensor] | None:
    """Landmarks (478, 3) and the detector's score of a face seen from the side around an ROI (4,) of a picture (H, W, 3), if it is one."""
    size = perception.detector.full.size
    side = roi.new_tensor(SURROUNDINGS) * roi[2:].norm()
    matrix = square_matrix(roi[None, :2].expand(len(side), -1), side, torch.zeros_like(side), size)
    crops = sample_crops(picture[None, ..., :3].expand(len(side), -1, -1, -1), matrix, size, max_taps=2)
    found = perception.detector.detect(crops.permute(0, 2, 3, 1), PROFILE, small=False)
    seen = [(transform(one.keypoints[:1], back[None]), one.scores[0]) for one, back in zip(found, invert(matrix), strict=True) if len(one)]
    seen = [(points, score) for points, score in seen if (points.mean((0, 1)) - roi[:2]).norm() < FAR * roi[2:].norm()]
    if not seen:
        return None
    keypoints, scores = (torch.stack(x).mean(0) for x in zip(*seen, strict=True))
    rotation, unlike = perception.profile(keypoints)
    if float(euler_from_rotation(rotation)[0, 0].abs()) < PROFILE_YAW or float(unlike) > UNLIKE:
        return None
    return perception.profile.landmarks(keypoints, rotation)[0], scores


class FaceTracker:
    """Follows one person through a clip that is fed window by window; arguments as in :func:`track_faces`.

    clip: the frames follow each other in time; otherwise they are photos, and every one is searched by itself.
    """

    def __init__(
        self,
        perception: Perception,
        *,
        choose: str = "largest",
        index: int = 0,
        reference: Tensor | None = None,
        threshold: float = 0.5,
        clip: bool = True,
    ) -> None:
        if choose not in CHOICES:
            raise DynamicFaceError(f"Unknown way to choose a face: {choose!r}; use one of {', '.join(CHOICES)}.")
        if choose == "reference" and reference is None:
            raise DynamicFaceError("Choosing the face by reference needs a reference photo; connect one or choose by size or position.")
        self.perception, self.choose, self.index, self.threshold, self.clip = perception, choose, index, threshold, clip
        self.views: list[Tensor] = [reference] if choose == "reference" else []  # identity vectors (D,) of the person
        self.detections = 0  # frames the detector was run on, so far
        self._chosen = False
        self._beside: set[int] = set()  # frames of the window that show the person from the side
        self._crowd = False  # several faces were seen in this shot
        self._close = False  # .. and two of them side by side in this window
        self._roi: Tensor | None = None  # (4,) where the person was in the last frame, None where it was not seen
        self._speed: Tensor | None = None  # (4,) change of the ROI per frame
        self._cuts = _CutFinder()
        self._size: tuple[int, int] | None = None
        self._parts: list[tuple[Tensor, Tensor, Tensor]] = []  # landmarks, presence, agreement of each window
        self._best: list[tuple[float, Tensor]] = []  # quality and identity vector of the frames that show the face best
        self._doubtful: dict[int, Tensor] = {}  # frame -> identity vector
        self._since = 0  # frames since the person came into view

    def __len__(self) -> int:
        """Frames fed so far."""
        return sum(len(presence) for _, presence, _ in self._parts)

    @torch.inference_mode()
    def feed(self, frames: Tensor) -> None:
        """The next window of frames (N, H, W, 3), float or uint8."""
        self._size = tuple(frames.shape[1:3])
        starts = [0, *(i for i in self._cuts.feed(frames) if i > 0)] if self.clip else [0]
        fresh = self.clip and self._cuts.began
        for first, last in zip(starts, [*starts[1:], len(frames)], strict=True):
            if first > 0 or fresh:
                self._roi = self._speed = None
                self._crowd = False
            self._parts.append(self._follow(frames[first:last]))

    def finish(self) -> FaceTrack:
        """The track of all frames fed. Raises NoFaceError where none of them shows a face."""
        landmarks, presence, agreement = (torch.cat(parts) for parts in zip(*self._parts, strict=True))
        frames, (height, width) = len(presence), self._size
        person = _common(torch.stack([view for _, view in self._best])) if self._best else None
        strangers = torch.zeros_like(presence, dtype=torch.bool)
        for frame, view in self._doubtful.items():
            strangers[frame] = person is not None and bool(view @ person < STRANGER)
        presence = presence.masked_fill(_with_neighbours(strangers, presence >= PRESENT), 0.0)
        present = (presence >= PRESENT).nonzero().flatten()
        if len(present) == 0:
            raise NoFaceError(
                f"No face was found in {'the picture' if frames == 1 else f'any of the {frames} frames'} ({width} x {height} pixels). "
                "Use a picture that shows the face from the front or the side, at least about 30 pixels wide, or lower the threshold."
            )
        cuts = self._cuts.found(frames).to(presence.device) if self.clip else None
        if len(present) < frames:
            absent = (presence < PRESENT).nonzero().flatten().tolist()
            log.warning("No face in %d of %d frames: %s", len(absent), frames, ", ".join(map(str, absent[:20])))
            landmarks = _interpolate(landmarks[present], present, torch.arange(frames, device=presence.device))
            presence = torch.where(presence >= PRESENT, presence, 0.0)
        return FaceTrack((height, width), _boxes(landmarks), landmarks, presence, person, agreement, cuts)

    # --- one window -----------------------------------------------------------------------------------------------------

    def _follow(self, plate: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Landmarks (N, 478, 3), presence and agreement (N,) of frames that belong to one shot."""
        frames, self._close, self._beside = len(plate), False, set()
        keys = list(range(0, frames, KEY_STEP if self.clip else 1))
        if keys[-1] != frames - 1:
            keys.append(frames - 1)
        carried = self._carry_on(plate, keys)
        result = None if carried is None else self._read(plate, keys, carried)
        sound = result is not None and result[1].min() >= PRESENT and result[2].min() >= AGREED
        if not sound or self._is_stranger(plate, *result[:2]):
            found, rois = self._detect_keys(plate, keys)
            result = self._read(plate, found, rois)
        landmarks, presence = result[:2]
        self._remember(plate, landmarks, presence)
        seen = presence[-1] >= PRESENT
        rois = landmarks_roi(landmarks[-2:])
        self._roi = rois[-1] if seen else None
        self._speed = rois[-1] - rois[0] if seen and frames > 1 and presence[-2] >= PRESENT else None
        return result

    def _carry_on(self, plate: Tensor, keys: list[int]) -> Tensor | None:
        """ROIs (K, 4) of the person in key frames, from where it was and how it moved; None where that cannot be relied on."""
        if not self.clip or self._roi is None or self._crowd or not self.views:
            return None
        steps = torch.tensor(keys, device=plate.device)[:, None] + 1
        expected = self._roi + (0 if self._speed is None else self._speed * steps.clamp(max=KEY_STEP))
        rois = find_roi(plate, self.perception, expected, SETTLED, torch.tensor(keys, device=plate.device))
        return rois if roi_change(rois, expected).max() < FAR else None

    def _read(self, plate: Tensor, keys: list[int], rois: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Landmarks, presence and agreement of all frames, from ROIs (K, 4) in some; lost frames are searched one by one."""
        frames = len(plate)
        landmarks = torch.zeros(frames, LANDMARKS, 3, device=plate.device)
        presence, agreement = torch.zeros(2, frames, device=plate.device)
        if not keys:
            return landmarks, presence, agreement
        roi = _interpolate(rois, torch.tensor(keys, device=plate.device), torch.arange(frames, device=plate.device))
        self._look(plate, torch.arange(frames), roi, landmarks, presence, agreement)
        if not self.clip:
            return landmarks, presence, agreement
        good = (presence >= PRESENT) & (agreement >= AGREED)
        if good.any() and not good.all():
            again = (~good).nonzero().flatten()
            near = _interpolate(landmarks_roi(landmarks[good]), good.nonzero().flatten(), again)
            self._look(plate, again, near, landmarks, presence, agreement)
        lost = (presence < PRESENT).nonzero().flatten()
        present = (presence >= PRESENT).nonzero().flatten()
        if 0 < len(present) < frames:
            expected = roi_box(_interpolate(landmarks_roi(landmarks[present]), present, lost))
            items, found = [], []
            for i, faces in enumerate(self._detect(plate[lost], small=False)):
                picked = self._pick(plate[lost[i]], faces, expected[i])
                if picked is not None:
                    items.append(int(lost[i]))
                    found.append(faces_roi(faces)[picked])
            if items:
                self._look(plate, torch.tensor(items), torch.stack(found), landmarks, presence, agreement)
        return landmarks, presence, agreement

    def _look(self, plate: Tensor, frames: Tensor, roi: Tensor, landmarks: Tensor, presence: Tensor, agreement: Tensor) -> None:
        """Fill in what the landmark net sees in some frames, from rough ROIs."""
        frames = frames.to(plate.device)

        def see(part: slice) -> tuple[Tensor, Tensor, Tensor]:
            exact = find_roi(plate, self.perception, roi[part], SETTLED if self.clip else 0.0, frames[part])
            return *find_landmarks(plate, self.perception, exact, frames[part]), exact

        size = CHUNK if plate.device.type == "cpu" else WINDOW
        points, score, exact = (torch.cat(x) for x in zip(*map_windows(see, len(frames), size, plate.device), strict=True))
        landmarks[frames], presence[frames] = points, score
        agreement[frames] = torch.exp(-((roi_change(landmarks_roi(points), exact) / DISAGREE) ** 2))
        for i in ((score < SURE) | (agreement[frames] < DIVIDED)).nonzero().flatten().tolist():
            at = int(frames[i])
            beside = find_profile(plate[at], self.perception, roi[i])
            if beside is not None:
                landmarks[at], presence[at] = beside
                agreement[at] = 1.0
                self._beside.add(at)

    # --- who is it ------------------------------------------------------------------------------------------------------

    def _detect(self, pictures: Tensor, small: bool = True) -> list[Detections]:
        self.detections += len(pictures)
        return self.perception.detector.detect(pictures, self.threshold, small=small)

    def _detect_keys(self, plate: Tensor, keys: list[int]) -> tuple[list[int], Tensor | None]:
        """Key frames that show the person, and its ROIs (K, 4). Small faces are searched for only where the quick look fails."""
        found, rois = [], []
        expected = None if self._roi is None else roi_box(self._roi[None])[0]
        for key, faces in zip(keys, self._detect(plate[keys], small=False), strict=True):
            sought = expected is not None or self.choose != "largest" or (self.clip and self._chosen)
            doubtful = sought and self._continues(faces, expected) is None
            if len(faces) == 0 or doubtful:
                faces = self._detect(plate[key : key + 1])[0]
            picked = self._pick(plate[key], faces, expected)
            if picked is not None:
                found.append(key)
                rois.append(faces_roi(faces)[picked])
                expected = faces.boxes[picked] if self.clip else None
        return found, torch.stack(rois) if rois else None

    def _continues(self, faces: Detections, expected: Tensor | None) -> int | None:
        """Number of the face that lies where the person is expected (box (4,)), if any."""
        if len(faces) == 0 or expected is None:
            return None
        overlap = iou(expected[None], faces.boxes)[0]
        return int(overlap.argmax()) if overlap.max() > SAME_PLACE else None

    def _pick(self, picture: Tensor, faces: Detections, expected: Tensor | None) -> int | None:
        """Number of the person's face in a picture (H, W, 3); None where it is not seen, or only others are."""
        self._crowd |= len(faces) > 1
        self._close |= len(faces) > 1 and _touching(faces.boxes)
        if len(faces) == 0:
            return None
        same = self._continues(faces, expected)
        if not self._chosen:
            return self._choose(picture, faces)
        if not self.views or (same is not None and not self._crowd):
            return 0 if same is None else same
        likeness = self._likeness(picture, faces_roi(faces))
        if same is not None:
            likeness[same] += FAMILIAR
        best = int(likeness.argmax())
        return best if likeness[best] >= (SAME_PERSON if self._crowd else STRANGER) or not self.clip else None

    def _choose(self, picture: Tensor, faces: Detections) -> int | None:
        """The first pick, among the detections that the landmark net confirms."""
        roi = faces_roi(faces)
        real = torch.zeros(1, dtype=torch.long, device=roi.device)
        if len(faces) > 1:
            real = (self._landmarks(picture, roi)[1] >= PRESENT).nonzero().flatten()
            if len(real) == 0:
                return None
        boxes = faces.boxes[real]
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        middle = centre.new_tensor([picture.shape[1] / 2, picture.shape[0] / 2])
        by_size = (boxes[:, 2:] - boxes[:, :2]).prod(-1).argsort(descending=True)
        if self.choose == "reference":
            best = self._likeness(picture, roi[real]).argmax()
        elif self.choose == "leftmost":
            best = centre[:, 0].argmin()
        elif self.choose == "rightmost":
            best = centre[:, 0].argmax()
        elif self.choose == "centre":
            best = (centre - middle).norm(dim=-1).argmin()
        else:
            number = self.index if self.choose == "index" else 0
            if number >= len(real):
                log.warning("There is no face number %d, counted by size from 0: %d found; the smallest is used.", number, len(real))
            best = by_size[min(number, len(real) - 1)]
        picked = int(real[best])
        self._chosen = True
        if not self.views and (self._crowd or not self.clip):  # to be told apart from now on
            self.views.append(self._embed(picture, roi[picked : picked + 1])[0])
        return picked

    def _landmarks(self, picture: Tensor, roi: Tensor) -> tuple[Tensor, Tensor]:
        """Landmarks and presence of the faces in several ROIs (N, 4) of one picture (H, W, 3)."""
        same = picture[None].expand(len(roi), -1, -1, -1)
        return find_landmarks(same, self.perception, find_roi(same, self.perception, roi, SETTLED))

    def _embed(self, picture: Tensor, roi: Tensor) -> Tensor:
        """(N, D) identity vectors of the faces in several ROIs (N, 4) of one picture (H, W, 3)."""
        same = picture[None].expand(len(roi), -1, -1, -1)
        return self.perception.identity.embed(same, self._landmarks(picture, roi)[0])

    def _likeness(self, picture: Tensor, roi: Tensor) -> Tensor:
        """(N,) cosine to the most similar known view of the person."""
        return (self._embed(picture, roi) @ torch.stack(self.views).T).amax(1)

    def _is_stranger(self, plate: Tensor, landmarks: Tensor, presence: Tensor) -> bool:
        """Whether the face that was carried on has become somebody else's: the last frame is compared with the known views."""
        if not self.views or len(plate) - 1 in self._beside:
            return False
        view = self.perception.identity.embed(plate[-1:], landmarks[-1:])[0]
        return bool(presence[-1] >= PRESENT) and float((torch.stack(self.views) @ view).max()) < STRANGER

    def _remember(self, plate: Tensor, landmarks: Tensor, presence: Tensor) -> None:
        """Keep identity vectors of the best frames, and of doubtful ones (not sure, soon after the person came, or beside another)."""
        start = len(self)
        present = presence >= PRESENT
        quality = torch.where(present, presence.pow(CERTAINTY) * _showing(landmarks), -1.0)
        wanted = quality.topk(min(BEST_FRAMES if not self.clip else 2, int(present.sum()))).indices.tolist()
        doubtful = []
        for i in range(len(plate)) if self.clip else ():
            self._since = self._since + 1 if present[i] else 0
            if present[i] and i not in self._beside and (presence[i] < SURE or self._since <= KEY_STEP or self._close):
                doubtful.append(i)
        worst = self._best[-1][0] if len(self._best) == BEST_FRAMES else -1.0
        better = [i for i in wanted if quality[i] > worst]
        sure = int((presence >= SURE).sum()) >= min(KEY_STEP, len(plate))
        learns = self.clip and sure and len(self.views) < VIEWS
        chosen = sorted({*better, *doubtful, *(wanted[:1] if learns else ())})
        if not chosen:
            return
        at = torch.tensor(chosen, device=plate.device)
        views = dict(zip(chosen, self.perception.identity.embed(plate, landmarks[at], at), strict=True))
        self._doubtful |= {start + i: views[i] for i in doubtful}
        self._best = sorted([*self._best, *((float(quality[i]), views[i]) for i in better)], key=lambda kept: -kept[0])[:BEST_FRAMES]
        if learns and wanted:
            view = views[wanted[0]]
            nearest = float((torch.stack(self.views) @ view).max()) if self.views else 0.0
            if not self.views or STRANGER <= nearest < NEW_VIEW:
                self.views.append(view)


class _CutFinder:
    """Finds shot cuts in a clip fed in windows, from small grey pictures; only one number per pair of frames is kept."""

    def __init__(self) -> None:
        self.began = False  # the last window began with a cut
        self._last: Tensor | None = None  # (2, h, w) the last two pictures
        self._near: list[float] = []  # difference of each frame to the one before
        self._far: list[float] = []  # .. and to the one before that

    def feed(self, frames: Tensor) -> list[int]:
        """Frames of the window that seem to begin a shot, judged by what came before."""
        step = max(1, min(frames.shape[1:3]) // 128)
        some = frames[:, ::step, ::step, :3]
        some = some.float() / 255 if some.dtype == torch.uint8 else some.clamp(0, 1)
        grey = some.mean(-1, keepdim=True).permute(0, 3, 1, 2)
        small = F.interpolate(grey, (27, 48), mode="area")[:, 0]
        history = torch.cat([small[:1], small[:1]]) if self._last is None else self._last
        row = torch.cat([history, small])
        start = len(self._near)
        self._near += (row[2:] - row[1:-1]).abs().mean((1, 2)).tolist()
        self._far += (row[2:] - row[:-2]).abs().mean((1, 2)).tolist()
        self._last = row[-2:]
        jumps = [i - start for i in range(start, len(self._near)) if self._is_jump(i)]
        self.began = 0 in jumps
        return jumps

    def found(self, frames: int) -> Tensor:
        """(F,) bool, True where a shot begins. A flash of one frame is none: the frame after it looks like the one before."""
        cuts = torch.zeros(frames, dtype=torch.bool)
        for i in range(1, frames):
            flash = i + 1 < frames and self._far[i + 1] < 0.5 * self._near[i]
            back = i > 1 and self._is_jump(i - 1) and self._far[i] < 0.5 * self._near[i]
            cuts[i] = self._is_jump(i) and not flash and not back
        return cuts

    def _is_jump(self, i: int) -> bool:
        before = sorted(self._near[max(1, i - CUT_MEMORY) : i])
        usual = before[len(before) // 2] if len(before) > 2 else CUT_UNKNOWN
        return i > 0 and self._near[i] > min(max(CUT_LEAST, CUT_RATIO * usual), CUT_MOST)


def _touching(boxes: Tensor) -> bool:
    """Whether two of the boxes (N, 4) lie so close that the landmark net could slip from one face to the other."""
    centre, side = (boxes[:, :2] + boxes[:, 2:]) / 2, (boxes[:, 2:] - boxes[:, :2]).amax(1)
    apart = torch.cdist(centre, centre) / torch.maximum(side[:, None], side)
    return bool((apart.fill_diagonal_(torch.inf) < SIDE_BY_SIDE).any())


def _with_neighbours(strangers: Tensor, present: Tensor) -> Tensor:
    """(F,) bool: frames that show something else, and the short runs of present frames that border on them."""
    kept = present & ~strangers
    runs, lengths = torch.unique_consecutive(kept.long() * 2 + strangers.long(), return_counts=True)
    other = F.pad(runs == 1, (1, 1))
    borders = (runs == 2) & (other[:-2] | other[2:]) & (lengths <= KEY_STEP)
    return strangers | borders.repeat_interleave(lengths)


def _common(views: Tensor) -> Tensor:
    """(D,) unit mean of identity vectors (N, D), without those that are not of the person most of them are of."""
    alike = views @ views.T
    return F.normalize(views[alike[alike.mean(1).argmax()] >= STRANGER].mean(0), dim=0)


def _showing(landmarks: Tensor) -> Tensor:
    """(N,) how well faces show who they are: frontal and large, px."""
    to_nose = (landmarks[:, [234, 454], :2] - landmarks[:, 1:2, :2]).norm(dim=-1)  # from either edge of the face
    frontal = to_nose.amin(1) / to_nose.amax(1).clamp_min(1e-6)
    return frontal * landmarks_roi(landmarks)[:, 2:].norm(dim=-1)


def _interpolate(values: Tensor, known: Tensor, wanted: Tensor) -> Tensor:
    """Values (K, ...) given at the sorted times `known` (K,), at the times `wanted`: linear between, held outside."""
    right = torch.searchsorted(known, wanted).clamp(max=len(known) - 1)
    left = torch.where(wanted >= known[right], right, (right - 1).clamp_min(0))
    gap = (known[right] - known[left]).clamp_min(1)
    t = ((wanted - known[left]) / gap).clamp(0, 1).to(values.dtype).reshape(-1, *[1] * (values.dim() - 1))
    return torch.lerp(values[left], values[right], t)


def track_faces(
    images: Tensor | Clip,
    perception: Perception,
    *,
    choose: str = "largest",
    index: int = 0,
    reference: Tensor | None = None,
    threshold: float = 0.5,
    progress: Callable[[int, int], None] | None = None,
) -> FaceTrack:
    """Follow one person through the frames of a clip or a batch of photos (F, H, W, C), or through a clip on disk (`io.clips.Clip`).

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
    on_disk = isinstance(images, Clip)
    plate = images if on_disk else as_plate(images)
    total = images.expected_frames if on_disk else len(plate)
    clip = total > PHOTOS
    tracker = FaceTracker(perception, choose=choose, index=index, reference=reference, threshold=threshold, clip=clip)
    for window in ahead(images.windows(WINDOW)) if on_disk else plate.split(WINDOW):
        tracker.feed(window[..., :3])
        if progress is not None:
            progress(len(tracker), max(total, len(tracker)))
    return tracker.finish()


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
