"""The meter on clips with known faults, and what the report makes of curves."""

from __future__ import annotations

import json

import pytest
import torch

from dynamicface import DynamicFaceError, ImageError
from dynamicface.io.pictures import read_image, write_image
from dynamicface.metrics.compare import compare
from dynamicface.metrics.meter import QualityMeter
from dynamicface.metrics.picture import draw_report
from dynamicface.metrics.report import METRICS, QualityReport


@pytest.fixture(scope="module")
def plate(portrait):
    """Six frames of a face that drifts one pixel a frame."""
    return torch.cat([portrait[:, 10:330, 60 + t : 380 + t] for t in range(6)])


@pytest.fixture(scope="module")
def faulty(plate):
    """Result and mask: frame 3 flashes inside of the mask, frame 5 has a dead pixel outside of it."""
    mask = torch.zeros(plate.shape[:3])
    mask[:, 30:250, 80:250] = 1
    result = plate.clone()
    result[3, 30:250, 80:250] *= 0.7
    result[5, 300, 300] = 1.5
    return result, mask


def measured(pipeline, *parts, **settings):
    meter = QualityMeter(pipeline.perception, pipeline.head, **settings)
    for part in parts:
        meter.add(*part)
    return meter.report()


@pytest.fixture(scope="module")
def report(pipeline, plate, faulty):
    return measured(pipeline, (faulty[0], plate, faulty[1]))


def test_the_plate_itself_is_faultless(pipeline, plate):
    clean = measured(pipeline, (plate[:3], plate[:3], torch.zeros(1, *plate.shape[1:3])))
    for name in ("expression", "gaze", "pose", "light", "outside"):
        assert clean.summary(name).worst == pytest.approx(0, abs=1e-4), name
    assert clean.summary("sharpness").mean == pytest.approx(1) and clean.summary("identity").mean > 0.95
    assert clean.worst_frames() == []


def test_faults_are_found_in_their_frames(report):
    assert set(report.worst_frames(3)) == {3, 4, 5}  # the flash comes and goes, so frame 4 differs from the one before
    assert report.summary("light").worst_frame == 3 and report.summary("light").worst > 0.2
    assert report.summary("outside").worst_frame == 5 and report.summary("outside").worst == pytest.approx(1.5, abs=1)
    error, filmed = report.curves["warp_error"], report.plate["warp_error"]
    assert error[3] > 0.05 and error[4] > 0.05 and max(error[1:3]) < 0.02 and filmed[1:].max() < 0.02
    assert error[0].isnan() and report.curves["ssim_compensated"][1:].max() > report.curves["ssim"][1:].max()


def test_windows_give_the_same_curves(pipeline, plate, faulty, report):
    """A clip may come in pieces; neighbours are remembered across them."""
    parts = [(faulty[0][s], plate[s], faulty[1][s]) for s in (slice(0, 2), slice(2, 3), slice(3, 6))]
    pieces = measured(pipeline, *parts)
    assert pieces.curves.keys() == report.curves.keys()
    for name, tolerance in (("ssim", 0.01), ("warp_error", 0.01), ("light", 0.02), ("outside", 0.0), ("landmark_jitter", 0.3)):
        torch.testing.assert_close(pieces.curves[name], report.curves[name], atol=tolerance, rtol=0, equal_nan=True)


def test_frames_without_a_face_come_first(pipeline, plate):
    result = plate.clone()
    result[2] = 0.5
    report = measured(pipeline, (result, plate))
    assert report.worst_frames()[0] == 2 and report.curves["presence"][2] < 0.5
    nobody = measured(pipeline, (torch.full_like(plate[:2], 0.5),))
    assert nobody.curves.keys() == {"presence"} and nobody.worst_frames() == [0, 1]


def test_a_result_alone_is_measured_too(pipeline, plate):
    """Without a plate there is nothing to compare factors with; steadiness remains."""
    alone = measured(pipeline, (plate[:4],))
    assert {"presence", "identity_drift", "ssim", "warp_error", "landmark_jitter"} <= alone.curves.keys()
    assert not {"expression", "identity", "sharpness", "outside"} & alone.curves.keys() and alone.plate == {}


def test_a_source_is_whom_to_look_for(pipeline, plate, fitted, photograph):
    other = pipeline.fit(photograph("single_face.jpg"))
    same, stranger = (measured(pipeline, (plate[:1], plate[:1]), source=person).summary("identity").mean for person in (fitted, other))
    assert same > 0.9 and stranger < 0.7


def test_frames_as_a_set(pipeline, plate, faulty, report, fitted):
    """The plate's own faces are at no distance from themselves; a source asks for other faces than the plate's."""
    assert measured(pipeline, (plate[:3], plate[:3])).sets == {"face_frechet": pytest.approx(0, abs=1e-3)}
    assert report.sets["face_frechet"] > 0.1 and json.loads(report.to_json())["sets"]["face_frechet"]["value"] > 0.1
    assert measured(pipeline, (plate[:3], plate[:3]), source=fitted).sets == {}
    judged = measured(pipeline, (faulty[0][2:4], plate[2:4]), inception=lambda squares: squares[:, ::32, ::32].flatten(1)).sets
    assert judged.keys() == {"face_frechet", "fid"} and judged["fid"] > 0.1


def test_naturalness_is_shown_beside_the_plate_s_and_marks_no_frame(pipeline, plate):
    result = plate[:4].clone()
    result[2] = torch.nn.functional.avg_pool2d(result[2].permute(2, 0, 1), 5, 1, 2).permute(1, 2, 0)
    report = measured(pipeline, (result, plate[:4]))
    now, filmed = report.curves["niqe"], report.plate["niqe"]
    assert now[2] > filmed[2] + 3 and torch.equal(now[[0, 1, 3]], filmed[[0, 1, 3]])
    assert QualityReport.of({name: report.curves[name] for name in ("presence", "niqe")}, {}).worst_frames() == []
    assert json.loads(report.to_json())["metrics"]["niqe"]["plate_mean"] > 0


def test_frames_too_small_for_naturalness_are_said_to_be(pipeline, plate):
    report = measured(pipeline, (plate[:1, 20:200, 60:260],))
    assert "niqe" not in report.curves
    assert report.notes == ("NIQE was not measured: it needs frames of 192 x 192 pixels; these are 200 x 180.",)


def test_one_frame_is_enough(pipeline, plate):
    report = measured(pipeline, (plate[:1], plate[:1]))
    assert len(report) == 1 and "ssim" not in report.curves and report.summary("pose").worst_frame == 0
    assert draw_report(report).shape[0] == 1


def test_without_opencv_motion_stays_in_and_the_report_says_so(pipeline, plate):
    def missing(*_):
        raise DynamicFaceError("Optical flow needs OpenCV.")

    report = measured(pipeline, (plate[:3], plate[:3]), flow=missing)
    assert "ssim" in report.curves and "warp_error" not in report.curves
    assert report.notes == ("Motion was not taken out. Optical flow needs OpenCV.",)
    with pytest.raises(DynamicFaceError, match=r"'warp_error' was not measured; this report has presence, .*OpenCV"):
        report.summary("warp_error")


def test_plate_and_result_must_fit(pipeline, plate):
    meter = QualityMeter(pipeline.perception, pipeline.head)
    with pytest.raises(DynamicFaceError, match="there are no frames"):
        meter.report()
    with pytest.raises(ImageError, match="The result is 6 frames of 320 x 320 with 3 channels, the plate is 5 frames"):
        meter.add(plate, plate[:5])
    meter.add(plate[:1], plate[:1])
    with pytest.raises(ImageError, match="with a plate and some without"):
        meter.add(plate[1:2])


def synthetic(**curves):
    frames = len(next(iter(curves.values())))
    values = {"presence": torch.ones(frames)} | {name: torch.tensor(curve) for name, curve in curves.items()}
    return QualityReport.of(values, {})


def test_worst_frames_stand_out_from_the_rest_of_the_clip():
    """A constant change is what the artist wanted; noise below a metric's step is nothing."""
    pose = [8.0, 8.2, 7.9, 12.0, 8.1, 8.0, 10.0]
    report = synthetic(pose=pose, light=[0.010, 0.011, 0.010, 0.012, 0.010, 0.049, 0.010])
    assert report.worst_frames() == [3, 6] and report.worst_frames(1) == [3]
    quick = QualityReport.of({"presence": torch.ones(7), "pose_jitter": torch.tensor(pose)}, {"pose_jitter": torch.tensor(pose)})
    assert quick.worst_frames() == []


def test_thresholds_are_read_in_the_metric_s_direction():
    report = synthetic(identity=[0.9, 0.5, 0.7], pose=[1.0, 2.0, 6.0])
    assert report.failure("identity", 0.6) is None and report.failure("pose", 3.0) is None
    assert report.failure("identity", 0.6, worst=True) == "Identity cosine is 0.5 in frame 1; it must be at least 0.6."
    assert synthetic(niqe=[7.0, 9.0]).failure("niqe", 6).startswith("NIQE is 8 on average")
    assert report.failure("pose", 2.5) == "Pose change is 3 on average over 3 frames, worst in frame 2; it must be at most 2.5 degrees."


def test_json_and_picture_hold_the_report(report, tmp_path):
    found = json.loads(report.to_json())
    assert found["frames"] == 6 and found["worst_frames"] == report.worst_frames()
    assert found["metrics"]["warp_error"]["curve"][0] is None and len(found["metrics"]["light"]["curve"]) == 6
    assert found["metrics"]["light"]["worst_frame"] == 3 and set(found["metrics"]) <= METRICS.keys()
    write_image(tmp_path / "report.png", draw_report(report))
    picture = read_image(tmp_path / "report.png")[0]
    blue = ((picture - picture.new_tensor([88, 176, 255]) / 255).abs() < 0.02).all(-1)
    assert blue[:, 620:].any() and not blue[:, :600].any()


def test_comparisons(plate):
    a, b = plate[:2], 1 - plate[:2]
    wiped = compare(a, b, "wipe", 0.25)
    assert torch.equal(wiped[:, :, :79], a[:, :, :79]) and torch.equal(wiped[:, :, 81:], b[:, :, 81:])
    assert torch.equal(compare(a, b, "wipe", 0.0), b) and torch.equal(compare(a, b, "wipe", 1.0), a)
    assert torch.equal(compare(a, b, "side by side"), torch.cat([a, b], 2))
    assert compare(a, a, "difference").abs().max() == 0
    assert compare(a, a + 1 / 24, "difference", gain=8)[0, 0, 0].tolist() == pytest.approx([1, 0, 0], abs=1e-3)
    with pytest.raises(DynamicFaceError, match="wipe, side by side, difference"):
        compare(a, b, "onion")
