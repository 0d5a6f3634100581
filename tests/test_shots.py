"""A whole clip through the library and the command line: frames, sound and everything beside the face stay; nothing is held as a whole."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dynamicface.checks import plate_of
from dynamicface.cli import main
from dynamicface.edit import edit_expression
from dynamicface.errors import DynamicFaceError, ImageError
from dynamicface.inspection import bad_frames, draw_curves
from dynamicface.io.clips import Clip
from dynamicface.io.pictures import write_image
from dynamicface.overlay import draw_prior
from dynamicface.shots import composite_shot, fit_shot

av = pytest.importorskip("av")

FRAMES = 19
GAP = range(9, 12)


@pytest.fixture(scope="module")
def panning(portrait, tmp_path_factory) -> Path:
    """A clip with sound: a window that pans over the portrait; in three frames nobody is there."""
    path = tmp_path_factory.mktemp("clip") / "panning.mp4"
    with av.open(str(path), "w") as target:
        video = target.add_stream("libx264", rate=25, options={"crf": "8"})
        video.width, video.height, video.pix_fmt = 256, 256, "yuv420p"
        sound = target.add_stream("aac", rate=48000)
        for i in range(FRAMES):
            picture = torch.full((256, 256, 3), 0.4) if i in GAP else portrait[0, 20 + i // 2 : 276 + i // 2, 80 + i : 336 + i]
            target.mux(video.encode(av.VideoFrame.from_ndarray((picture.numpy() * 255).astype(np.uint8), format="rgb24")))
        target.mux(video.encode(None))
        for start in range(0, 48000 * FRAMES // 25, 1024):
            chunk = av.AudioFrame.from_ndarray(np.full((1, 1024), 0.1, np.float32), format="fltp", layout="mono")
            chunk.sample_rate, chunk.pts = 48000, start
            target.mux(sound.encode(chunk))
        target.mux(sound.encode(None))
    return path


@pytest.fixture(scope="module")
def shot(pipeline, panning):
    """The clip, its track and its prior."""
    clip = Clip(panning)
    seen = []
    track, prior = fit_shot(clip, pipeline.perception, pipeline.head, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2 * FRAMES, 2 * FRAMES) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    return clip, track, prior


def test_every_frame_is_fitted_and_the_gap_is_marked(shot):
    _, track, prior = shot
    assert len(track) == len(prior) == FRAMES
    assert (prior.confidence == 0).nonzero().flatten().tolist() == list(GAP)
    assert [bad.frame for bad in bad_frames(prior)] == list(GAP) and str(bad_frames(prior)[0]) == "frame 9: confidence 0.00, no face"
    low, high = prior.translation[8], prior.translation[12]
    torch.testing.assert_close(prior.translation[10], (low + high) / 2, atol=2e-3, rtol=0)


def test_an_edit_changes_the_face_and_nothing_else(pipeline, shot, tmp_path):
    clip, _, prior = shot
    smiling = edit_expression(prior, {"smile": 0.9})
    share = composite_shot(smiling, pipeline.perception, pipeline.head, tmp_path / "out.mkv", codec="ffv1")
    result = Clip(tmp_path / "out.mkv")
    assert len(result) == FRAMES and share == pytest.approx((FRAMES - len(GAP)) / FRAMES, abs=0.15)
    change = (result[:] - clip[:]).abs().amax(-1)
    assert change[list(GAP)].max() == 0, "frames without the face are the clip's own"
    assert change[4].max() > 0.1 and (change[4] == 0).float().mean() > 0.4


def test_a_roto_keeps_what_it_covers(pipeline, shot, tmp_path):
    clip, _, prior = shot
    white = torch.zeros(256, 256, 3)
    white[:, 128:] = 1.0
    write_image(tmp_path / "roto.png", white)
    smiling, roto = edit_expression(prior, {"smile": 0.9}), Clip(tmp_path / "roto.png")
    composite_shot(smiling, pipeline.perception, pipeline.head, tmp_path / "out.mkv", codec="ffv1", occlusion=roto)
    change = (Clip(tmp_path / "out.mkv")[:] - clip[:]).abs().amax(-1)
    assert change[:, :, 130:].max() == 0 and change[:, :, :126].max() > 0.05
    write_image(tmp_path / "small.png", white[:100])
    with pytest.raises(ImageError, match="1 frames of 256 x 100 pixels"):
        composite_shot(smiling, pipeline.perception, pipeline.head, tmp_path / "no.mkv", occlusion=Clip(tmp_path / "small.png"))


def test_an_unedited_clip_is_a_copy(pipeline, shot, tmp_path, panning):
    assert composite_shot(shot[2], pipeline.perception, pipeline.head, tmp_path / "same.mp4") == 0.0
    assert torch.equal(Clip(tmp_path / "same.mp4")[:], Clip(panning)[:])


def test_stopping_leaves_no_half_file(pipeline, shot, tmp_path):
    class Stopped(Exception):
        pass

    def stop(done: int, total: int) -> None:
        raise Stopped

    with pytest.raises(Stopped):
        composite_shot(edit_expression(shot[2], {"smile": 0.5}), pipeline.perception, pipeline.head, tmp_path / "out.mp4", progress=stop)
    assert not (tmp_path / "out.mp4").exists()


def test_nodes_that_hold_all_frames_refuse_a_clip_in_words(shot):
    with pytest.raises(DynamicFaceError, match="a clip of 19 frames on disk"):
        plate_of(shot[2])


def test_looks_at_a_prior(pipeline, shot):
    clip, _, prior = shot
    overlay = draw_prior(prior, pipeline.head, frame=3, count=4)
    assert overlay.shape == (4, 256, 256, 3) and (overlay - clip[3:7]).abs().mean() > 0.01
    assert len(draw_prior(prior, pipeline.head, frame=100, count=4)) == 1
    assert torch.equal(draw_prior(prior, pipeline.head, frame=GAP[0], count=1), clip[GAP[0] : GAP[0] + 1]), "nobody is there"
    curves = draw_curves(prior)
    assert curves.shape[0] == 1 and curves.shape[2:] == (1024, 3) and curves.std() > 0.05
    red = (curves[0, ..., 0] > 0.8) & (curves[0, ..., 1] < 0.3) & (curves[0, ..., 2] < 0.3)
    assert red.any(), "the gap shows in the confidence strip"


def run(capsys, *arguments: str) -> tuple[int, dict | str]:
    code = main([*map(str, arguments)])
    out, err = capsys.readouterr()
    return code, json.loads(out) if code == 0 else err


def test_command_line(capsys, panning, portrait, tmp_path):
    out = tmp_path / "out.mp4"
    write_image(tmp_path / "face.png", portrait.flip(2))
    arguments = (
        "video",
        "--target",
        panning,
        "--out",
        out,
        "--source",
        tmp_path / "face.png",
        "--set",
        "smile=0.5",
        "--hold",
        "0",
        "--json",
    )
    code, figures = run(capsys, *arguments)
    assert code == 0 and figures["frames"] == FRAMES and figures["bad_frames"] == list(GAP) and not figures["resumed"]
    assert figures["size"] == [256, 256] and figures["frame_rate"] == 25 and len(figures["yaw_pitch_roll"]) == FRAMES
    assert len(Clip(out)) == FRAMES and sorted(p.name for p in tmp_path.iterdir()) == ["face.png", "out.mp4", "out.mp4.provenance.json"]
    record = json.loads((tmp_path / "out.mp4.provenance.json").read_text())
    assert record["action"] == "swap" and record["settings"]["smile"] == 0.5
    assert [source["name"] for source in record["sources"]] == [panning.name, "face.png"]


def test_command_line_goes_on_where_it_was_stopped(capsys, monkeypatch, panning, tmp_path):
    from dynamicface.commands import video

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    out = tmp_path / "out.mp4"
    with monkeypatch.context() as patch:
        patch.setattr(video, "composite_shot", interrupted)
        with pytest.raises(KeyboardInterrupt):
            main(["video", "--target", str(panning), "--out", str(out), "--set", "smile=0.5"])
    assert (tmp_path / "out.fit.safetensors").is_file()
    code, figures = run(capsys, "video", "--target", panning, "--out", out, "--set", "smile=0.5", "--json")
    assert code == 0 and figures["resumed"] and "track and fit" not in figures["seconds"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--target", "nowhere.mp4", "--out", "out.mp4"), "There is no file nowhere.mp4"),
        (("--target", "same.mp4", "--out", "same.mp4"), "give the result another name"),
        (("--target", "a.mp4", "--out", "b.mp4", "--set", "grin=1"), "but found 'grin=1'"),
    ],
)
def test_unusable_requests_are_sentences(capsys, monkeypatch, tmp_path, arguments, sentence):
    monkeypatch.chdir(tmp_path)
    code, text = run(capsys, "video", *arguments)
    assert code == 2 and sentence in text
