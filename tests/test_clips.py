"""Clips come back with every frame, time stamp, tag and sound they had, and with their own samples where nothing changed."""

from __future__ import annotations

import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dynamicface.errors import DynamicFaceError, ImageError
from dynamicface.images import crops_of_frames, linear_crops, square_matrix
from dynamicface.io.clips import WINDOW, Clip, ClipWriter, copy_clip

av = pytest.importorskip("av")

HEIGHT, WIDTH = 48, 64


def moving(frames: int, height: int = HEIGHT, width: int = WIDTH, channels: int = 3) -> Tensor:
    """A soft bright spot that moves to the right over a ramp, (F, H, W, C)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    centre = 8 + torch.arange(frames)[:, None, None] * 2 % (width - 16)
    spot = torch.exp(-((x - centre) ** 2 + (y - height / 2) ** 2) / 60)
    base = torch.stack([spot, (x / width).expand_as(spot), (y / height).expand_as(spot)], -1)
    return torch.cat([base, spot[..., None]], -1) if channels == 4 else base


def make(path: Path, frames: int = 20, codec: str = "libx264", pixels: str = "yuv420p", **options) -> Path:
    """Write a clip with FFmpeg. Options: pts (ticks of 1/600), rotation, sound, colour, size (H, W)."""
    height, width = options.get("size", (HEIGHT, WIDTH))
    deep, alpha = "10" in pixels or "12" in pixels, "a4" in pixels
    plate = moving(frames, height, width, 4 if alpha else 3)
    with av.open(str(path), "w") as target:
        video = target.add_stream(codec, rate=options.get("rate", 25), options={"crf": "10"} if codec.startswith("libx26") else {})
        video.width, video.height, video.pix_fmt = width, height, pixels
        if "pts" in options:
            video.time_base = video.codec_context.time_base = Fraction(1, 600)
        if options.get("rotation"):
            video.set_display_rotation(options["rotation"])
        for name, value in options.get("colour", {}).items():
            setattr(video.codec_context, name, value)
        sound = target.add_stream("aac", rate=48000) if options.get("sound", True) else None
        kind, top = (np.uint16, 65535) if deep else (np.uint8, 255)
        form = ("rgba64le" if alpha else "rgb48le") if deep else ("rgba" if alpha else "rgb24")
        for i, picture in enumerate(plate):
            frame = av.VideoFrame.from_ndarray((picture.numpy() * top + 0.5).astype(kind), format=form).reformat(format=pixels)
            if "pts" in options:
                frame.pts, frame.time_base = options["pts"][i], Fraction(1, 600)
            target.mux(video.encode(frame))
        target.mux(video.encode(None))
        if sound is not None:
            tone = np.sin(np.arange(48000 * frames // 25) * 0.05).astype(np.float32)[None] * 0.2
            for start in range(0, tone.shape[1], 1024):
                chunk = av.AudioFrame.from_ndarray(np.ascontiguousarray(tone[:, start : start + 1024]), format="fltp", layout="mono")
                chunk.sample_rate, chunk.pts = 48000, start
                target.mux(sound.encode(chunk))
            target.mux(sound.encode(None))
    return path


def written(clip: Clip, path: Path, change: bool = False, **options) -> Clip:
    """The clip written again, window by window; with a change, a red square in every frame."""
    with ClipWriter(path, clip, **options) as writer:
        for start in range(0, len(clip), WINDOW):
            plate = clip[start : start + WINDOW]
            mask = torch.zeros(plate.shape[:3])
            if change:
                plate, mask[:, 8:20, 8:20] = plate.clone(), 1.0
                plate[:, 8:20, 8:20, :3] = torch.tensor([1.0, 0.0, 0.0])
            writer.write(plate, mask)
    return Clip(path)


def packets(path: Path, kind: str) -> list[bytes]:
    with av.open(str(path)) as source:
        return [bytes(packet) for packet in source.demux(getattr(source.streams, kind)[0]) if packet.size]


def seconds(clip: Clip) -> list[Fraction]:
    return [p * clip.time_base for p in clip.pts]


@pytest.mark.parametrize("frames", [1, WINDOW - 1, WINDOW, WINDOW + 1, 3 * WINDOW])
def test_frames_in_frames_out(tmp_path, frames):
    clip = Clip(make(tmp_path / "in.mp4", frames))
    assert clip.shape == (frames, HEIGHT, WIDTH, 3)
    assert [len(window) for window in clip.windows()] == [WINDOW] * (frames // WINDOW) + ([frames % WINDOW] if frames % WINDOW else [])
    result = written(clip, tmp_path / "out.mp4", change=True)
    assert len(result) == frames and seconds(result) == seconds(clip)


def test_pictures_are_what_was_written(tmp_path):
    clip = Clip(make(tmp_path / "in.mp4"))
    assert (clip[:] - moving(20)).abs().mean() < 0.02


def test_any_frame_can_be_read_and_equals_reading_in_order(tmp_path):
    clip = Clip(make(tmp_path / "in.mp4", 90))
    whole = torch.cat(list(clip.windows())).float() / 255
    for order in ([89, 0, 40, 41, 3], [7], list(range(30, 20, -1))):
        assert torch.equal(Clip(tmp_path / "in.mp4")[torch.tensor(order)], whole[order])
    assert torch.equal(clip[-3:], whole[-3:])


@pytest.mark.parametrize(("pixels", "dtype"), [("yuv420p", torch.uint8), ("yuv420p10le", torch.float32)])
def test_windows_and_samples_are_bytes_only_where_those_hold_the_clip(tmp_path, pixels, dtype):
    clip = Clip(make(tmp_path / "in.mp4", 3, codec="libx265", pixels=pixels, rotation=90))
    window = next(clip.windows())
    assert window.dtype == clip.samples(1).dtype == dtype
    assert torch.equal(clip.samples(1), window[1])
    assert torch.equal(window.float() / 255 if dtype == torch.uint8 else window, clip[:])


def test_crops_of_a_clip_equal_crops_of_its_frames(tmp_path):
    clip = Clip(make(tmp_path / "in.mp4", 9))
    matrix = square_matrix(torch.tensor([[40.0, 30.0], [3.0, 2.0]]), torch.tensor([30.0, 31.0]), torch.tensor([0.2, -0.3]), 16)
    frames = torch.tensor([7, 2])
    torch.testing.assert_close(crops_of_frames(clip, frames, matrix, 16), linear_crops(clip[frames], matrix, 16), atol=1e-4, rtol=0)


@pytest.mark.parametrize("degrees", [0, 90])
def test_a_part_of_the_frames_is_read_like_a_tensors(tmp_path, degrees):
    clip = Clip(make(tmp_path / "in.mp4", 6, rotation=degrees))
    assert torch.equal(clip[1:5, 10:20, 4:9], clip[:][1:5, 10:20, 4:9])


def test_sound_and_tags_are_kept(tmp_path):
    colour = {"color_range": 1, "colorspace": 1, "color_primaries": 1, "color_trc": 1}
    clip = Clip(make(tmp_path / "in.mp4", colour=colour))
    result = written(clip, tmp_path / "out.mp4", change=True)
    assert packets(tmp_path / "out.mp4", "audio") == packets(tmp_path / "in.mp4", "audio")
    assert result.colour == clip.colour and clip.colour["colorspace"] == 1
    assert result.rate == clip.rate == 25


def test_sound_goes_into_another_container(tmp_path):
    clip = Clip(make(tmp_path / "in.mp4"))
    written(clip, tmp_path / "out.mkv")
    assert packets(tmp_path / "out.mkv", "audio") == packets(tmp_path / "in.mp4", "audio")


def test_variable_frame_rate_keeps_every_time_stamp(tmp_path):
    pts = [0, 10, 20, 45, 46, 47, 90, 130, 150, 151, 170, 200]
    clip = Clip(make(tmp_path / "in.mp4", len(pts), pts=pts))
    assert seconds(clip) == [Fraction(p, 600) for p in pts]
    assert seconds(written(clip, tmp_path / "out.mp4", change=True)) == seconds(clip)


@pytest.mark.parametrize("degrees", [90, 180, -90])
def test_turned_phone_clips_come_out_upright(tmp_path, degrees):
    clip = Clip(make(tmp_path / "in.mp4", 6, rotation=degrees))
    upright = torch.rot90(moving(6), round(degrees / 90), (1, 2))
    assert clip.shape == tuple(upright.shape)
    assert (clip[:] - upright).abs().mean() < 0.02
    result = written(clip, tmp_path / "out.mp4", change=True)
    assert result.shape == clip.shape and result.quarter_turns == 0
    assert (result[:] - clip[:])[:, 24:].abs().mean() < 0.02


def test_ten_bits_stay_ten_bits(tmp_path):
    clip = Clip(make(tmp_path / "in.mp4", codec="libx265", pixels="yuv420p10le"))
    assert clip.bits == 10
    ramp = clip[0][HEIGHT - 4, :, 1]
    assert len(torch.unique((ramp * 1023).round())) > WIDTH // 2
    result = written(clip, tmp_path / "out.mp4", change=True)
    assert (result.codec, result.bits) == ("hevc", 10)
    assert len(written(clip, tmp_path / "again.mov", codec="h264")) == len(clip) and Clip(tmp_path / "again.mov").bits == 10


def test_alpha_is_read_kept_and_never_dropped_silently(tmp_path):
    clip = Clip(make(tmp_path / "in.mov", 5, codec="prores_ks", pixels="yuva444p10le", sound=False))
    assert clip.shape == (5, HEIGHT, WIDTH, 4) and (clip[:] - moving(5, channels=4)).abs().mean() < 0.02
    result = written(clip, tmp_path / "out.mov", change=True)
    assert result.has_alpha and (result[:] - clip[:])[..., 3].abs().mean() < 0.01
    assert written(clip, tmp_path / "out.mkv", codec="ffv1").has_alpha
    with pytest.raises(DynamicFaceError, match=r"alpha channel, which h264 in \.mp4 cannot hold; write \.mov"):
        ClipWriter(tmp_path / "out.mp4", clip)


def test_odd_sizes(tmp_path):
    clip = Clip(make(tmp_path / "in.mkv", 4, codec="ffv1", pixels="yuv444p", size=(37, 51)))
    assert written(clip, tmp_path / "out.mp4", change=True).shape == (4, 37, 51, 3)


def test_samples_outside_of_the_mask_are_the_decoders_own(tmp_path):
    """Through a lossless codec: to the bit outside, changed inside."""
    clip = Clip(make(tmp_path / "in.mp4", 10))
    result = written(clip, tmp_path / "out.mkv", change=True, codec="ffv1")
    for number in range(10):
        before, after = (one.decoded(number).to_ndarray()[:HEIGHT] for one in (clip, result))
        same = before == after
        same[8:20, 8:20] = True
        assert same.all() and (before != after)[9:19, 9:19].mean() > 0.9
    untouched = written(clip, tmp_path / "same.mkv", codec="ffv1")
    assert all((clip.decoded(i).to_ndarray() == untouched.decoded(i).to_ndarray()).all() for i in range(10))


def test_a_copy_is_the_same_packets(tmp_path):
    clip = Clip(make(tmp_path / "in.mp4"))
    copy_clip(clip, tmp_path / "copy.mp4")
    for kind in ("video", "audio"):
        assert packets(tmp_path / "copy.mp4", kind) == packets(tmp_path / "in.mp4", kind)


def test_a_clip_from_memory(tmp_path):
    clip = Clip(io.BytesIO(make(tmp_path / "in.mp4").read_bytes()))
    result = written(clip, tmp_path / "out.mp4", change=True)
    assert len(result) == 20 and packets(tmp_path / "out.mp4", "audio")


def test_a_clip_that_was_cut_off_has_the_frames_before_the_cut(tmp_path):
    whole = make(tmp_path / "in.mkv", 60, sound=False)
    (tmp_path / "short.mkv").write_bytes(whole.read_bytes()[: whole.stat().st_size * 2 // 3])
    clip = Clip(tmp_path / "short.mkv")
    assert 10 < len(clip) < 60
    assert (clip[:10] - Clip(whole)[:10]).abs().max() == 0
    assert len(written(clip, tmp_path / "out.mp4")) == len(clip)


def test_unusable_files(tmp_path):
    with pytest.raises(ImageError, match="There is no file"):
        Clip(tmp_path / "nothing.mp4")
    (tmp_path / "text.mp4").write_text("not a video")
    with pytest.raises(ImageError, match="cannot be read as a video"):
        Clip(tmp_path / "text.mp4")
    clip = Clip(make(tmp_path / "in.mp4", 2))
    with pytest.raises(DynamicFaceError, match="no clip format"):
        ClipWriter(tmp_path / "out.txt", clip)
    with pytest.raises(DynamicFaceError, match="No codec is called 'xyz'"):
        ClipWriter(tmp_path / "out.mp4", clip, codec="xyz")
    with pytest.raises(DynamicFaceError, match=r"A \.webm file cannot hold prores"):
        ClipWriter(tmp_path / "out.webm", clip, codec="prores")
    with pytest.raises(ImageError, match="holds no video"):
        sound = tmp_path / "sound.mp4"
        with av.open(str(sound), "w") as target:
            stream = target.add_stream("aac", rate=48000)
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            frame.sample_rate = 48000
            target.mux(stream.encode(frame))
            target.mux(stream.encode(None))
        Clip(sound)
