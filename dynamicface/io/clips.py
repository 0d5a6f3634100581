"""Clips on disk: read as frames in windows, written window by window, so that memory does not grow with length. PyAV (FFmpeg) underneath.

Reading. Frames come out upright (a phone's rotation tag is applied), display-referred 0..1 (`conventions.py`), with alpha as a fourth
channel where the clip has it; clips of more than 8 bits keep them. What counts as a frame, and its time, is what the decoder delivers: a
clip whose file is cut off has the frames before the cut.

Writing. A result has the clip's frame count, time stamps (also of variable frame rate), colour tags, pixel aspect, and its sound and
subtitles as they are, packet by packet, where the container can hold them. Pixels outside of the mask go to the encoder as the decoder
gave them, not through RGB. A result in which nothing changed is a copy of the packets.
"""

from __future__ import annotations

import io
import itertools
import logging
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
import torch.nn.functional as F
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from torch import Tensor

from ..errors import DynamicFaceError, ImageError

log = logging.getLogger(__name__)

WINDOW = 8  # frames read, worked on and written together
_SKIP = 48  # frames up to which reading on is cheaper than seeking
_HD = 720  # lines from which an untagged clip is taken for BT.709, as players do
_SWS = {1: 1, 4: 4, 5: 5, 6: 5, 7: 7, 9: 9, 10: 9}  # the colour matrix as FFmpeg's tag and as its converter calls it
_ENCODERS = {
    "h264": "libx264",
    "hevc": "libx265",
    "vp9": "libvpx-vp9",
    "av1": "libsvtav1",
    "prores": "prores_ks",
    "ffv1": "ffv1",
    "png": "png",
    "qtrle": "qtrle",
}
_OF_CONTAINER = {".mp4": "h264", ".m4v": "h264", ".mov": "h264", ".mkv": "h264", ".webm": "vp9"}
_WITH_ALPHA = {".mov": "prores", ".mkv": "ffv1", ".webm": "vp9"}
_ALPHA_CODECS = ("prores", "ffv1", "vp9", "png", "qtrle")
_OPTIONS = {  # visually lossless
    "libx264": {"crf": "14", "preset": "medium"},
    "libx265": {"crf": "15", "preset": "medium", "x265-params": "log-level=error"},
    "libvpx-vp9": {"crf": "18", "b": "0", "row-mt": "1"},
    "libsvtav1": {"crf": "18", "preset": "6"},
}
_OWN_TAGS = ("major_brand", "minor_version", "compatible_brands", "encoder")


class Clip:
    """A video file as a plate: it has a tensor's `shape` (F, H, W, C), and indexing it by frames gives tensors.

    path: a file, or its bytes. device: where frames are put. Reading forwards is quick, elsewhere the file is sought; the window read last
    is kept. Not for several threads at once.

    Raises:
        ImageError: no such file, no video in it, or nothing that can be decoded.
    """

    def __init__(self, path: str | Path | io.BytesIO, device: str | torch.device = "cpu") -> None:
        self.path, self.device = path, torch.device(device)
        with self._open() as container:
            stream = _video(container, self._name)
            context = stream.codec_context
            self.codec: str = context.name
            self.time_base: Fraction = stream.time_base or Fraction(1, 90000)
            self.rate: Fraction = stream.average_rate or stream.guessed_rate or Fraction(25)
            self.pixel_aspect = stream.sample_aspect_ratio
            self.colour = {name: getattr(context, name) for name in ("color_range", "colorspace", "color_primaries", "color_trc")}
            self.metadata = {key: value for key, value in container.metadata.items() if key not in _OWN_TAGS}
            seconds = float(stream.duration * stream.time_base) if stream.duration else (container.duration or 0) / av.time_base
            self.expected_frames: int = stream.frames or max(round(seconds * self.rate), 1)
            frame = next(self._decode(container), None)
        if frame is None:
            raise ImageError(f"Not a single frame of {self._name} can be decoded; it is damaged or no video. Export it again.")
        self.format = frame.format.name
        self.has_alpha = any(part.is_alpha for part in frame.format.components)
        self.bits: int = max(part.bits for part in frame.format.components)
        self.quarter_turns: int = round(frame.rotation / 90) % 4  # counter-clockwise
        self.size = (frame.width, frame.height) if self.quarter_turns % 2 else (frame.height, frame.width)  # upright (H, W)
        self._pts: list[int] | None = None
        self._frames: Iterator[av.VideoFrame] | None = None
        self._next = 0
        self._kept: dict[int, av.VideoFrame] = {}

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def pts(self) -> list[int]:
        """Time stamp of every frame, in `time_base`; decodes the clip once where it was not read to its end before."""
        if self._pts is None:
            for _ in self._numbered(0):
                pass
        return self._pts

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self), *self.size, 4 if self.has_alpha else 3

    def __getitem__(self, index: slice | Tensor | int | tuple[slice | Tensor, slice, slice]) -> Tensor:
        """Frames (N, H, W, C) float32; (H, W, C) for one number. Rows and columns may follow: the rest never becomes a tensor."""
        if isinstance(index, int):
            return self[torch.tensor([index])][0]
        index, *window = index if isinstance(index, tuple) else (index,)
        numbers = range(len(self))[index] if isinstance(index, slice) else [int(i) for i in index]
        return self._pictures([self.decoded(i) for i in numbers], *window)

    def windows(self, size: int = WINDOW) -> Iterator[Tensor]:
        """All frames in order, `size` at a time, as :meth:`samples` gives them; after the last one the number of frames is known."""
        window, filled = None, 0
        for _, frame in self._numbered(0):
            picture = self._samples(frame)
            if window is None:
                window = np.empty((size, *picture.shape), picture.dtype)  # in large pages, which numpy asks for: small ones take long
            window[filled], filled = picture, filled + 1
            if filled == size:
                yield torch.from_numpy(window).to(self.device)
                window, filled = None, 0
        if filled:
            yield torch.from_numpy(window[:filled]).to(self.device)

    def samples(self, number: int) -> Tensor:
        """One frame (H, W, C) without the cost of floats: uint8 0..255, and only of clips of more than 8 bits float32 0..1."""
        return torch.from_numpy(np.ascontiguousarray(self._samples(self.decoded(number)))).to(self.device)

    def decoded(self, number: int) -> av.VideoFrame:
        """One frame as the decoder gave it, not turned."""
        if number not in self._kept:
            if not self._next <= number < self._next + _SKIP or self._frames is None:
                self._frames, self._next = self._seek(number)
                self._kept.clear()
            for at, frame in self._frames:
                self._next = at + 1
                self._kept[at] = frame
                for old in [n for n in self._kept if n <= at - 2 * WINDOW]:
                    del self._kept[old]
                if at == number:
                    break
            else:
                raise ImageError(f"Frame {number} of {self._name} cannot be decoded; the clip has {len(self)} frames.")
        return self._kept[number]

    def matrix(self) -> int:
        """The colour matrix to convert with, as FFmpeg's converter numbers it."""
        return _SWS.get(int(self.colour["colorspace"]), 1 if min(self.size) >= _HD else 5)

    def _pictures(self, frames: Sequence[av.VideoFrame], rows: slice = slice(None), columns: slice = slice(None)) -> Tensor:
        """(N, H, W, C) float32, upright; each frame is converted straight into its place, it may have 25 MB."""
        height, width = (len(range(side)[part]) for side, part in zip(self.size, (rows, columns), strict=True))
        pictures = np.empty((len(frames), height, width, 4 if self.has_alpha else 3), np.float32)
        for picture, frame in zip(pictures, frames, strict=True):
            np.divide(self._upright(frame)[rows, columns], 65535 if self.bits > 8 else 255, out=picture, dtype=np.float32)
        return torch.from_numpy(pictures).to(self.device)

    def _samples(self, frame: av.VideoFrame) -> np.ndarray:
        upright = self._upright(frame)
        return upright if self.bits <= 8 else np.divide(upright, 65535, dtype=np.float32)

    def _upright(self, frame: av.VideoFrame) -> np.ndarray:
        """(H, W, C) whole numbers, 0..65535 of clips of more than 8 bits, else 0..255."""
        name = ("rgba64le" if self.has_alpha else "rgb48le") if self.bits > 8 else ("rgba" if self.has_alpha else "rgb24")
        return np.rot90(frame.to_ndarray(format=name, src_colorspace=self.matrix()), self.quarter_turns)

    def _numbered(self, start: int, seek_to: int | None = None) -> Iterator[tuple[int, av.VideoFrame]]:
        """Frames with their numbers, from frame `start`; a run from 0 to the end learns all time stamps."""
        pts: list[int] = []
        with self._open() as container:
            if seek_to is not None:
                container.seek(seek_to, stream=_video(container, self._name), backward=True)
            number = start
            for frame in self._decode(container):
                if seek_to is not None and (frame.pts is None or frame.pts < seek_to):
                    continue
                pts.append(frame.pts)
                yield number, frame
                number += 1
        if start == 0 and self._pts is None:
            self._pts = self._times(pts)

    def _times(self, pts: list[int | None]) -> list[int]:
        """Time stamps that increase; where the file has none, even steps."""
        if all(p is not None for p in pts) and all(a < b for a, b in itertools.pairwise(pts)):
            return pts
        step = 1 / (self.rate * self.time_base)
        return [round(i * step) for i in range(len(pts))]

    def _seek(self, number: int) -> tuple[Iterator[tuple[int, av.VideoFrame]], int]:
        """Decoding from exactly this frame on; from the start where the file's own time stamps cannot be sought."""
        if number and self._pts is not None:
            frames = self._numbered(number, self.pts[number])
            first = next(frames, None)
            if first is not None and first[1].pts == self.pts[number]:
                return _chain(first, frames), number
        return self._numbered(0), 0

    def _open(self) -> InputContainer:
        try:
            if isinstance(self.path, io.BytesIO):
                self.path.seek(0)
                return av.open(self.path)
            if not Path(self.path).is_file():
                raise ImageError(f"There is no file {self.path}.")
            return av.open(str(self.path))
        except FFmpegError as error:
            raise ImageError(f"{self._name} cannot be read as a video ({error.strerror}); it is damaged or of another kind.") from error

    def _decode(self, container: InputContainer) -> Iterator[av.VideoFrame]:
        """Frames until the end, or until the file is cut off."""
        stream = _video(container, self._name)
        stream.thread_type = "AUTO"
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets, None)
            except FFmpegError:
                packet = None
            if packet is None:
                return
            try:
                yield from packet.decode()
            except FFmpegError as error:
                log.warning("%s: some of its data cannot be decoded (%s).", self._name, error.strerror)

    @property
    def _name(self) -> str:
        return "The video" if isinstance(self.path, io.BytesIO) else str(self.path)


class ClipWriter:
    """Writes the result of a clip; a context manager.

    path: the ending decides the container (.mp4, .mov, .mkv, .webm). The codec is the clip's own where it can be encoded and the container
    holds it, else the container's usual one. codec: force one ("h264", "hevc", "prores", "ffv1", "vp9", "av1").

    Raises:
        DynamicFaceError: an unknown ending or codec, or alpha that the container cannot hold.
    """

    def __init__(self, path: str | Path, clip: Clip, codec: str | None = None) -> None:
        self.path, self.clip = Path(path), clip
        codec = _choose_codec(self.path, clip, codec)
        encoder = _ENCODERS[codec]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        options = {"video_track_timescale": str(clip.time_base.denominator)} if clip.time_base.numerator == 1 else {}
        options["movflags"] = "use_metadata_tags"
        self._container = av.open(str(self.path), "w", options=options if self.path.suffix.lower() in (".mp4", ".m4v", ".mov") else {})
        self._container.metadata.update(clip.metadata)
        self._stream = self._container.add_stream(encoder, rate=clip.rate, options=dict(_OPTIONS.get(encoder, {})))
        height, width = clip.size
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = _pixel_format(self._stream.codec_context.codec, clip)
        self._stream.time_base = self._stream.codec_context.time_base = clip.time_base
        if encoder == "prores_ks":
            self._stream.options = {"profile": "4444" if clip.has_alpha or "444" in clip.format else "hq"}
        for name, value in clip.colour.items():
            setattr(self._stream.codec_context, name, value)
        if clip.pixel_aspect:
            aspect = clip.pixel_aspect if clip.quarter_turns % 2 == 0 else 1 / clip.pixel_aspect
            self._stream.codec_context.sample_aspect_ratio = aspect
        self._others = _OtherStreams(clip, self._container)
        self.frames = 0

    def __enter__(self) -> ClipWriter:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self._container.mux(self._stream.encode(None))
            self._others.mux_until(None)
        self._others.close()
        self._container.close()

    def write(self, pictures: Tensor, mask: Tensor | None = None) -> None:
        """The next frames (N, H, W, C); mask (N, H, W), where it is 0 the clip's own samples are kept."""
        for i, picture in enumerate(pictures):
            original = self.clip.decoded(self.frames)
            changed = None if mask is None else mask[i] > 0
            frame = (
                original if changed is not None and not changed.any() and self._fits(original) else self._frame(picture, original, changed)
            )
            frame.pts, frame.time_base = self.clip.pts[self.frames], self.clip.time_base
            frame.duration = original.duration
            frame.pict_type = 0  # the encoder's choice, not the source's
            self._container.mux(self._stream.encode(frame))
            self._others.mux_until(self.clip.pts[self.frames] * self.clip.time_base)
            self.frames += 1

    def _fits(self, original: av.VideoFrame) -> bool:
        return original.format.name == self._stream.pix_fmt and self.clip.quarter_turns == 0

    def _frame(self, picture: Tensor, original: av.VideoFrame, changed: Tensor | None) -> av.VideoFrame:
        """A frame to encode, in the encoder's pixel format."""
        deep, alpha = self.clip.bits > 8, picture.shape[-1] == 4
        top, kind = (65535, np.uint16) if deep else (255, np.uint8)
        name = ("rgba64le" if alpha else "rgb48le") if deep else ("rgba" if alpha else "rgb24")
        array = (picture.detach().float().cpu().clamp(0, 1).numpy() * top + 0.5).astype(kind)
        full = self.clip.colour["color_range"] if "yuvj" not in self.clip.format else 2
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(array), format=name).reformat(
            format=self._stream.pix_fmt, dst_colorspace=self.clip.matrix(), dst_color_range=2 if full == 2 else 1
        )
        if changed is not None and self._fits(original) and len(frame.planes) == len(frame.format.components):
            _keep_outside(frame, original, changed.cpu().numpy())
        return frame


def copy_clip(clip: Clip, path: str | Path) -> None:
    """The clip itself in another container, packet by packet: nothing is decoded."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with clip._open() as source, av.open(str(path), "w") as target:
        target.metadata.update(clip.metadata)
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams if s.type in ("video", "audio", "subtitle")}
        for packet in source.demux([source.streams[i] for i in streams]):
            if packet.dts is not None:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)


class _OtherStreams:
    """Sound and subtitles of a clip, copied beside the pictures as they are written."""

    def __init__(self, clip: Clip, target: OutputContainer) -> None:
        self._source = clip._open()
        self._target = target
        self._streams, self._waiting = {}, None
        for stream in self._source.streams:
            if stream.type in ("audio", "subtitle"):
                name = stream.codec_context.name
                if name not in target.supported_codecs and stream.codec_context.codec.canonical_name not in target.supported_codecs:
                    log.warning(
                        "The container cannot hold %s %s; that stream is left out. Write .mkv or .mov to keep it.", name, stream.type
                    )
                    continue
                self._streams[stream.index] = target.add_stream_from_template(stream)
        self._packets = self._source.demux([self._source.streams[i] for i in self._streams]) if self._streams else iter(())

    def mux_until(self, time: Fraction | None) -> None:
        """Copy packets up to a time in seconds; None = the rest."""
        while True:
            packet = self._waiting or next(self._packets, None)
            self._waiting = None
            if packet is None:
                return
            if packet.dts is None:
                continue
            if time is not None and packet.dts * packet.time_base > time:
                self._waiting = packet
                return
            packet.stream = self._streams[packet.stream.index]
            self._target.mux(packet)

    def close(self) -> None:
        self._source.close()


def _video(container: InputContainer, name: str) -> av.VideoStream:
    if not container.streams.video:
        raise ImageError(f"{name} holds no video stream; choose a clip with pictures.")
    return container.streams.video[0]


def _chain(first: tuple, rest: Iterator) -> Iterator:
    yield first
    yield from rest


def _choose_codec(path: Path, clip: Clip, wanted: str | None) -> str:
    suffix = path.suffix.lower()
    if suffix not in _OF_CONTAINER:
        raise DynamicFaceError(
            f"Cannot write {path}: '{path.suffix}' is no clip format that can be written here. Use .mp4, .mov, .mkv or .webm."
        )
    if wanted is not None and wanted not in _ENCODERS:
        raise DynamicFaceError(f"No codec is called {wanted!r}; there are {', '.join(_ENCODERS)}.")
    with av.open(io.BytesIO(), "w", format={".m4v": "mp4", ".mkv": "matroska"}.get(suffix, suffix[1:])) as probe:
        held = probe.supported_codecs
    if wanted is not None and wanted not in held:
        raise DynamicFaceError(f"A {suffix} file cannot hold {wanted}; write another ending, or another codec.")
    codec = wanted or (clip.codec if clip.codec in _ENCODERS and clip.codec in held else _OF_CONTAINER[suffix])
    if clip.has_alpha and codec not in _ALPHA_CODECS:
        if wanted is not None or suffix not in _WITH_ALPHA:
            raise DynamicFaceError(
                f"The clip has an alpha channel, which {codec} in {suffix} cannot hold; write .mov (ProRes 4444) or .mkv (FFV1)."
            )
        codec = _WITH_ALPHA[suffix]
    return codec


def _pixel_format(encoder: av.Codec, clip: Clip) -> str:
    """The clip's own pixel format where the encoder has it, else the nearest: no lost bits, no lost alpha, even sides for halved chroma."""
    odd = clip.size[0] % 2 or clip.size[1] % 2
    offered = [f.name for f in encoder.video_formats or ()]
    if odd:
        offered = [name for name in offered if "444" in name or av.VideoFormat(name).is_rgb] or offered
    if clip.format in offered:
        return clip.format

    def loss(name: str) -> tuple:
        shape = av.VideoFormat(name, 64, 64)
        source = av.VideoFormat(clip.format, 64, 64)
        bits = max(part.bits for part in shape.components)
        alpha = any(part.is_alpha for part in shape.components)
        chroma = min(part.width * part.height for part in shape.components)
        wanted = min(part.width * part.height for part in source.components)
        planar = len({part.plane for part in shape.components}) == len(shape.components)
        return (
            alpha < clip.has_alpha,
            bits < clip.bits,
            chroma < wanted,
            not planar,
            alpha > clip.has_alpha,
            bits - clip.bits,
            chroma - wanted,
            shape.is_rgb,
        )

    return min(offered, key=loss)


def _keep_outside(frame: av.VideoFrame, original: av.VideoFrame, changed: np.ndarray) -> None:
    """Put the original's samples back where nothing changed; planar formats. changed (H, W) bool."""
    whole = torch.from_numpy(changed)[None, None].float()
    for plane, old, part in zip(frame.planes, original.planes, sorted(frame.format.components, key=lambda c: c.plane), strict=True):
        kind = np.uint16 if part.bits > 8 else np.uint8
        new_rows, old_rows = (np.frombuffer(p, kind).reshape(p.height, -1)[:, : p.width] for p in (plane, old))
        cover = F.adaptive_max_pool2d(whole, (plane.height, plane.width))[0, 0].numpy() > 0
        full = np.frombuffer(plane, kind).reshape(plane.height, -1).copy()
        full[:, : plane.width] = np.where(cover, new_rows, old_rows)
        plane.update(full.tobytes())
