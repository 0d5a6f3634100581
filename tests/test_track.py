from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from dynamicface.errors import DynamicFaceError, ImageError, NoFaceError
from dynamicface.perception import Perception
from dynamicface.track import PHOTOS, FaceTracker, landmarks_roi, roi_change, roi_matrix, track_faces, track_from_core, track_to_core

FRAMES = 40


@pytest.fixture(scope="module")
def perception() -> Perception:
    return Perception.load()


@pytest.fixture(scope="module")
def paths() -> Tensor:
    """(FRAMES, 2) whole-pixel corner x, y of a window that pans over the portrait, up to 9 px a frame."""
    t = torch.arange(FRAMES)
    return torch.stack([60 + 50 * torch.sin(t * 0.18), 30 + 25 * torch.cos(t * 0.3)], -1).round().long()


@pytest.fixture(scope="module")
def clip(portrait, paths) -> Tensor:
    """(FRAMES, 256, 288, 3): the portrait panning, so that the true motion is known."""
    return torch.stack([portrait[0, y : y + 256, x : x + 288] for x, y in paths.tolist()])


def in_the_picture(landmarks: Tensor, paths: Tensor) -> Tensor:
    """Landmarks (F, 478, 2) of the panning clip, in pixels of the portrait, where they should stand still."""
    return landmarks[..., :2] + paths[:, None]


def test_a_moving_face_is_followed_quietly(perception, clip, paths):
    """Standard deviation over time: 0.2 px (0.3 % of the distance between the eyes) while the face moves up to 9 px a frame."""
    track = track_faces(clip, perception)
    assert len(track) == FRAMES and track.image_size == (256, 288)
    assert track.presence.min() > 0.9
    still = in_the_picture(track.landmarks, paths)
    eyes = (still[:, 33] - still[:, 263]).norm(dim=-1).mean()
    spread = (still - still.mean(0)).norm(dim=-1).mean()
    assert spread / eyes < 0.006
    assert (track.boxes[:, :2] <= track.landmarks[..., :2].amin(1)).all()


def test_landmarks_do_not_depend_on_where_the_clip_starts(perception, clip):
    whole, rest = track_faces(clip, perception), track_faces(clip[5:], perception)
    eyes = (whole.landmarks[0, 33, :2] - whole.landmarks[0, 263, :2]).norm()
    assert (whole.landmarks[5:] - rest.landmarks)[..., :2].norm(dim=-1).mean() / eyes < 0.01


@pytest.mark.parametrize("frames", [1, 2, PHOTOS, PHOTOS + 1, 33])
def test_frames_in_frames_out(perception, clip, frames):
    seen = []
    track = track_faces(clip[:frames], perception, progress=lambda done, total: seen.append((done, total)))
    assert len(track) == frames == len(track.presence) == len(track.boxes)
    assert seen[-1] == (frames, frames)
    assert all(a[0] < b[0] for a, b in itertools.pairwise(seen))


def test_frames_without_the_face_are_bridged(perception, clip, paths, caplog):
    gaps = clip.clone()
    missing = [0, 1, 12, 13, 14, 15, 16, 17, 39]
    gaps[missing] = 0.4
    track = track_faces(gaps, perception)
    assert (track.presence == 0).nonzero().flatten().tolist() == missing
    assert "9 of 40 frames" in caplog.text
    torch.testing.assert_close(track.landmarks[0], track.landmarks[2])  # held
    middle = torch.lerp(track.landmarks[11], track.landmarks[18], 3 / 7)
    torch.testing.assert_close(track.landmarks[14], middle)
    whole = track_faces(clip, perception)
    eyes = (whole.landmarks[0, 33, :2] - whole.landmarks[0, 263, :2]).norm()
    assert (track.landmarks - whole.landmarks)[20:35, :, :2].norm(dim=-1).mean() / eyes < 0.01


def test_a_face_that_enters_late_and_jumps_is_found(perception, clip):
    jumpy = clip.clone()
    jumpy[:11] = 0.4
    jumpy[25:] = clip[25:].roll(-70, dims=2)  # a cut between two key frames
    track = track_faces(jumpy, perception)
    assert (track.presence > 0.5).nonzero().flatten().tolist() == list(range(11, FRAMES))


@pytest.mark.parametrize("name", ["noface_face.mov", "face_noface.mov"])
def test_lettering_is_not_taken_for_the_person(perception, media, name):
    """A title sequence before or after the person, with letters in which both networks see a face now and then."""
    av = pytest.importorskip("av")
    with av.open(str(media(name))) as container:
        frames = [torch.from_numpy(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    clip = torch.stack(frames)[20:, ::2, ::2].float() / 255
    shown = (track_faces(clip, perception).presence > 0).nonzero().flatten()
    assert len(shown) == shown[-1] - shown[0] + 1, "the person is there once, without interruption"
    assert len(shown) > 45


@pytest.fixture(scope="module")
def three(portrait) -> Tensor:
    """(1, 512, 1280, 3): the portrait large in the middle, half as large on the left, two thirds on the right."""
    plate = torch.full((1, 512, 1280, 3), 0.4)
    pictures = torch.nn.functional.interpolate
    small = pictures(portrait.permute(0, 3, 1, 2), size=(256, 256), mode="bilinear", antialias=True).permute(0, 2, 3, 1)
    medium = pictures(portrait.permute(0, 3, 1, 2), size=(342, 342), mode="bilinear", antialias=True).permute(0, 2, 3, 1)
    plate[:, 100:356, 0:256] = small
    plate[:, :, 350:862] = portrait
    plate[:, 60:402, 930:1272] = medium
    return plate


@pytest.mark.parametrize(
    ("choice", "x"),
    [
        ({"choose": "largest"}, 576),
        ({"choose": "index", "index": 0}, 576),
        ({"choose": "index", "index": 1}, 1081),
        ({"choose": "index", "index": 2}, 113),
        ({"choose": "index", "index": 9}, 113),
        ({"choose": "leftmost"}, 113),
        ({"choose": "rightmost"}, 1081),
        ({"choose": "centre"}, 576),
    ],
)
def test_choosing_one_of_several_faces(perception, three, choice, x):
    track = track_faces(three, perception, **choice)
    assert track.landmarks[0, :, 0].mean().item() == pytest.approx(x, abs=15)


def test_the_chosen_person_is_followed_even_when_another_becomes_larger(perception, three):
    frames = three.expand(24, -1, -1, -1).clone()
    frames[8:, :, 350:862] = 0.4  # the large one leaves
    track = track_faces(frames, perception, choose="leftmost")
    assert (track.landmarks[:, :, 0].mean(1) - 113).abs().max() < 15


def test_choosing_by_reference(perception, portrait, media):
    """Of five people, each is found again by an identity vector made from another crop of that person."""
    cv2 = pytest.importorskip("cv2")
    picture = torch.from_numpy(cv2.imread(str(media("multi_face.jpg")))[..., ::-1].copy()).float()[None] / 255
    for index in range(3):
        chosen = track_faces(picture, perception, choose="index", index=index)
        box = chosen.boxes[0]
        grow = 0.35 * (box[2:] - box[:2]).max()
        x0, y0, x1, y1 = (int(v) for v in (*(box[:2] - grow).clamp_min(0), *(box[2:] + grow)))
        reference = track_faces(picture[:, y0:y1, x0:x1].flip(2), perception).embedding
        found = track_faces(picture, perception, choose="reference", reference=reference)
        assert (found.boxes[0] - box).abs().max() < 8


def test_photos_of_different_size_of_face_are_each_found(perception, portrait):
    """A short batch may be unrelated photos: nothing is interpolated between them."""
    photos = torch.cat([portrait, portrait.roll(150, dims=2), portrait.flip(2)])
    track = track_faces(photos, perception)
    assert track.presence.min() > 0.9
    alone = torch.cat([track_faces(photos[i : i + 1], perception).landmarks for i in range(3)])
    torch.testing.assert_close(track.landmarks, alone, atol=0.1, rtol=0)


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_alpha_pictures(perception, portrait, channels):
    images = portrait.mean(-1, keepdim=True) if channels == 1 else torch.cat([portrait, torch.rand_like(portrait[..., :1])], -1)
    assert track_faces(images, perception).presence[0] > 0.9


def test_highlights_and_odd_sizes(perception, portrait):
    images = portrait[:, :301, 51:402].clone()
    images[:, 200:, :50] = 80.0
    before = images.clone()
    assert track_faces(images, perception).presence[0] > 0.9
    assert torch.equal(images, before)


@pytest.mark.parametrize("size", [(1, 1), (16, 9), (300, 400)])
def test_a_picture_without_a_face(perception, size):
    with pytest.raises(NoFaceError, match=rf"No face was found in the picture \({size[1]} x {size[0]} pixels\)"):
        track_faces(torch.full((1, *size, 3), 0.5), perception)


def test_a_clip_without_a_face(perception):
    with pytest.raises(NoFaceError, match="any of the 20 frames"):
        track_faces(torch.rand(20, 64, 64, 3), perception)


def test_unusable_requests(perception, portrait):
    with pytest.raises(DynamicFaceError, match="Unknown way to choose a face: 'tallest'"):
        track_faces(portrait, perception, choose="tallest")
    with pytest.raises(DynamicFaceError, match="needs a reference photo"):
        track_faces(portrait, perception, choose="reference")
    with pytest.raises(ImageError, match="NaN or infinite pixels in frame 0"):
        track_faces(torch.full((1, 64, 64, 3), torch.nan), perception)


def test_progress_can_interrupt(perception, clip):
    class Interrupted(Exception):
        pass

    def interrupt(done: int, total: int) -> None:
        raise Interrupted

    with pytest.raises(Interrupted):
        track_faces(clip, perception, progress=interrupt)


def test_the_roi_turns_and_grows_with_the_face(track):
    points = track.landmarks[..., :2]
    angle, scale, shift = torch.tensor(0.7), 1.7, torch.tensor([30.0, -12.0])
    turn = torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    before, after = landmarks_roi(points), landmarks_roi(scale * points @ turn.T + shift)
    expected = torch.cat([scale * before[:, :2] @ turn.T + shift, scale * before[:, 2:] @ turn.T], -1)
    torch.testing.assert_close(after, expected, atol=1e-2, rtol=0)
    assert roi_change(after, expected).max() < 1e-3
    in_crop = roi_matrix(before, 192)[..., :2] @ points.mT + roi_matrix(before, 192)[..., 2:]
    assert in_crop.amin() > 20 and in_crop.amax() < 172  # the face fills two thirds


def test_core_landmarks_survive_the_round_trip(perception, clip):
    gaps = clip[:20].clone()
    gaps[7] = 0.4
    track = track_faces(gaps, perception)
    core = track_to_core(track)
    assert core["image_size"] == (256, 288) and core["frames"][7] == []
    assert core["frames"][0][0]["landmarks_xy"].shape == (478, 2)
    back = track_from_core(core)
    torch.testing.assert_close(back.landmarks, track.landmarks, atol=1e-3, rtol=0)
    torch.testing.assert_close(back.boxes, track.boxes, atol=1e-3, rtol=0)
    assert back.presence.tolist() == [float(i != 7) for i in range(20)]


def test_depth_of_core_landmarks_is_scaled_to_the_plate(track):
    """Core gives landmarks_3d in px of its network's own crop."""
    core = track_to_core(track)
    core["frames"][0][0]["landmarks_3d"] = core["frames"][0][0]["landmarks_3d"] * 0.37 + 11
    points = track_from_core(core).landmarks
    depth = points[..., 2] - points[..., 2].mean()
    torch.testing.assert_close(depth, track.landmarks[..., 2] - track.landmarks[..., 2].mean(), atol=1e-2, rtol=0)


def test_unusable_core_landmarks(track):
    with pytest.raises(DynamicFaceError, match="Connect a face landmarker node"):
        track_from_core({"frames": []})
    with pytest.raises(NoFaceError, match=r"None of the 1 frames .* has a face number 3"):
        track_from_core(track_to_core(track), index=3)
    core = track_to_core(track)
    core["frames"][0][0]["landmarks_xy"] = core["frames"][0][0]["landmarks_xy"][:68]
    with pytest.raises(DynamicFaceError, match=r"Frame 0 has landmarks of shape \(68, 2\)"):
        track_from_core(core)


# --- people, cuts, absences ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two(portrait, photograph) -> tuple[Tensor, Tensor]:
    """Pictures (200, 200, 3) of the faces of two people."""
    other = photograph("single_face.jpg")
    box = track_faces(other, Perception.load()).boxes[0]
    side = float(1.7 * (box[2:] - box[:2]).max())
    left, top = (float(v) - side / 2 for v in (box[:2] + box[2:]) / 2)
    crops = [portrait[:, 5:285, 90:370], other[:, max(int(top), 0) : int(top + side), max(int(left), 0) : int(left + side)]]
    return tuple(
        torch.nn.functional.interpolate(c.permute(0, 3, 1, 2), (200, 200), mode="bilinear", antialias=True)[0].permute(1, 2, 0)
        for c in crops
    )


def staged(frames: int, *actors: tuple[Tensor, list[int | None]]) -> Tensor:
    """A clip (F, 220, 640, 3): each actor's picture with its left edge at the given x, None = away; later actors are in front."""
    plate = torch.full((frames, 220, 640, 3), 0.35)
    for face, places in actors:
        for f, x in enumerate(places):
            if x is not None:
                plate[f, 10:210, x : x + 200] = face
    return plate


def centre(track) -> Tensor:
    """(F,) x of the middle of the tracked face."""
    return track.landmarks[..., 0].mean(1)


def test_two_people_who_cross_keep_their_names(perception, two):
    """The person from the left passes behind the other one; both are followed through."""
    frames = 44
    walk = [round(10 * i * 43 / 43) for i in range(frames)]
    first, second = two
    clip = staged(frames, (first, walk), (second, [430 - x for x in walk]))
    left = track_faces(clip, perception, choose="leftmost")
    right = track_faces(clip, perception, choose="rightmost")
    away = torch.tensor(walk)
    for track, places in ((left, away + 100), (right, 530 - away)):
        seen = track.presence > 0.5
        assert (centre(track)[seen] - places[seen]).abs().max() < 25, "never on the other person"
        assert seen[:10].all() and seen[-10:].all()
    assert (right.presence > 0.5).all() and left.presence.min() == 0


def test_a_person_who_leaves_and_comes_back_while_another_stays(perception, two):
    first, second = two
    frames = 60
    come_and_go = [20] * 16 + [None] * 24 + [240] * 20
    track = track_faces(staged(frames, (second, [420] * frames), (first, come_and_go)), perception, choose="leftmost")
    assert [bool(p > 0) for p in track.presence] == [x is not None for x in come_and_go]
    assert (centre(track)[40:] - 340).abs().max() < 25


def test_cuts_are_found_and_the_person_is_kept_through_them(perception, two):
    """First the person, then the other one alone, then the person elsewhere."""
    first, second = two
    clip = torch.cat([staged(20, (first, [40] * 20)), 0.6 * staged(20, (second, [200] * 20)), 0.8 * staged(20, (first, [400] * 20))])
    track = track_faces(clip, perception)
    assert track.cuts.nonzero().flatten().tolist() == [20, 40]
    assert (track.presence[:20] > 0.5).all() and (track.presence[40:] > 0.5).all()
    assert (track.presence[20:40] == 0).all(), "the other person is not taken for this one"


def test_a_flash_is_no_cut(perception, clip):
    flashed = clip.clone()
    flashed[13] = 1 - 0.1 * (1 - clip[13])
    assert not track_faces(flashed, perception).cuts.any()


def test_detects_only_when_it_must(perception, portrait):
    """A quiet face of 10 seconds: the detector runs at its start only."""
    tracker = FaceTracker(perception)
    for _ in range(5):
        tracker.feed(portrait[:, :300, 80:380].expand(16, -1, -1, -1))
    assert len(tracker.finish()) == 80 and tracker.detections <= 6


def test_readings_of_a_face_that_is_half_hidden_agree_less(perception, clip):
    hidden = clip.clone()
    track = track_faces(clip, perception)
    for f in range(20, 26):
        x0, y0, x1, y1 = track.boxes[f].long().tolist()
        hidden[f, y0:y1, x0 : (x0 + x1) // 2] = 0.2
    found = track_faces(hidden, perception)
    assert found.agreement.shape == found.presence.shape
    worth = found.presence * found.agreement
    assert worth[20:26].mean() < 0.95 * worth[:16].mean()
