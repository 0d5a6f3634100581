"""FusionTVO: real talking clips whose faces are swapped, made to flicker, and stabilised; against doing it the simple ways.

The truth is a swap of somebody who does not exist onto a real clip, rendered from a fit smoothed over time: it moves, talks and blinks
like the clip and holds still otherwise. Two inputs are made from it:

- made to flicker: every frame gets its own exposure and colour, generation noise from grain to blotches, and 1-3 px of crop jitter
- swapped frame by frame: the same swap from the unsmoothed fit, as it comes out of the pipeline

python -m benchmarks.tvo --pictures DIR writes strips and time slices of one clip instead of measuring.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch
import torch.nn.functional as F
from PIL import Image
from skimage.data import astronaut
from torch import Tensor

from dynamicface import FacePipeline, FacePrior, FaceTrack, compose_prior
from dynamicface.filters import blur, dilate, pixel_grid, sample
from dynamicface.images import invert, transform
from dynamicface.io.clips import Clip
from dynamicface.landmark_sets import EYES, LIPS_OUTER
from dynamicface.metrics.sharpness import detail
from dynamicface.metrics.ssim import ssim
from dynamicface.metrics.temporal import inter_frame_ssim, warp_error
from dynamicface.tvo import Dials, FusionTVO, PairFlow, plate_flow, stabilise
from dynamicface.tvo.flow import warp
from dynamicface.tvo.segments import segment_weights, segments

from .common import SEED, Data, Figure, Options, SkippedError, Table, arguments, command, fit_photo, log, prepare
from .faces import RIGID, retrack, similarity
from .speed import moving_face

CLIPS, FRAMES = 3, 48
EXPOSURE, COLOUR, NOISE, JITTER = 0.05, 0.025, 0.02, (1.0, 3.0)  # of 1; px in the plate
METHODS = ("as it came", "temporal median of 5", "flow blending", "FusionTVO, live", "FusionTVO")
_BLOTCHES = 2, 8  # px
_SMOOTH = 1.5  # frames, of the truth's fit
_INNER = 0.99  # of the mask: only the changed face is measured
_MOUTH, _MOUTH_CORNERS = (13, 14), (61, 291)
_IRIS = 468
_MOVES = 0.02  # standard deviation of an opening below which there is nothing to measure
_PORTRAITS, _PEOPLE = 16, (2, 10, 4, 1, 3)  # of so many portraits spread over the set: adults who look into the camera
_EYES = ((159, 145, 33, 133), (386, 374, 362, 263))
_PARTS = ((LIPS_OUTER,), EYES)  # outlines of what opens and closes, in the order of `openings`
_READ = 16  # px, motion per frame and the window of the SSIM together
_GROWN = 1.15  # the windows around them
_QUICK_FRAMES = 8
_LENGTHS, _QUICK_LENGTHS = (30, 60, 120), (8, 16, 24)  # frames of a clip after which its memory is looked at
COLUMNS = (
    *("inter-frame SSIM", "warp error x 255", "detail over truth", "detail's correlation", "distance to truth x 255", "SSIM to truth"),
    *("mouth amplitude, tracked", "lid amplitude, tracked", "mouth amplitude, pixels", "eye amplitude, pixels"),
)


@dataclass(frozen=True)
class Shot:
    """One clip: the plate, the truth, the frame-by-frame swap, and where they differ."""

    plate: Tensor  # (F, H, W, 3)
    truth: Tensor
    raw: Tensor
    mask: Tensor  # (F, H, W)
    flow: PairFlow  # of the plate, at its own size
    plate_openings: tuple[Tensor, Tensor]  # (F,) of mouth and lids
    truth_openings: tuple[Tensor, Tensor]
    parts: tuple[Tensor, Tensor]  # (F, P, 2) px, points of mouth and eyes that stay where they are on the head


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    found: dict[str, dict[str, list[tuple[float, ...]]]] = defaultdict(partial(defaultdict, list))
    untouched = []
    for number, path in enumerate(options.data.clips(options.count(1 if options.quick else CLIPS))):
        shot = swapped(pipe, path, options, number)
        best = score(pipe, shot.truth, shot)
        inputs = {"made to flicker": flickering(shot, number)} | ({} if options.quick else {"swapped frame by frame": shot.raw})
        for kind, bad in inputs.items():
            for name, result in methods(bad, shot).items():
                found[kind][name].append(score(pipe, result, shot))
                log.info("%s, %s, %s: %s", path.name, kind, name, " ".join(f"{value:.3f}" for value in found[kind][name][-1]))
                if name.startswith("FusionTVO"):
                    untouched.append(torch.equal(result[shot.mask == 0], bad[shot.mask == 0]))
            found[kind]["the truth itself"].append(best)
    frames = len(shot.plate)
    return [*(_quality(kind, rows, frames, untouched) for kind, rows in found.items()), background(pipe, options), seams(), *cost(options)]


def _quality(kind: str, rows: dict[str, list[tuple[float, ...]]], frames: int, untouched: Sequence[bool]) -> Table:
    means = {name: torch.tensor(values).nanmean(0).tolist() for name, values in rows.items()}
    clips = len(next(iter(rows.values())))
    ours, before = means["FusionTVO"], means["as it came"]
    data = f"{clips} clip{'s' * (clips > 1)} of {frames} frames, {kind}"
    figures = ()
    if kind == "made to flicker":
        figures = (
            Figure("tvo.ssim", ours[0], "", "higher", data),
            Figure("tvo.ssim_gain", 100 * (ours[0] / before[0] - 1), "%", "higher", data),
            Figure("tvo.detail", 100 * ours[2], "%", "higher", data),
            Figure("tvo.distance", ours[4], "of 255", "lower", data),
            Figure("tvo.mouth", 100 * ours[6], "%", "higher", data),
            Figure("tvo.lids", 100 * ours[7], "%", "higher", data),
            Figure("tvo.mouth_pixels", 100 * ours[8], "%", "higher", data),
            Figure("tvo.eyes_pixels", 100 * ours[9], "%", "higher", data),
        )
    note = (
        "Inside the mask only. Motion is taken out by the plate's flow. Amplitude, tracked: covariance of the re-tracked opening of mouth "
        "and lids with the plate's, over the truth's; flicker disturbs the tracker itself, as the row of what came in shows. Amplitude, "
        f"pixels: how much of what the truth's pixels do in step with its openings the result's pixels do, too. FusionTVO's pixels outside "
        f"the mask are identical to the bit in {sum(untouched)} of "
        f"{len(untouched)} results, of all clips and both inputs."
    )
    figures = tuple(figure for figure in figures if not math.isnan(figure.value))  # where nothing opens and closes
    return Table(f"Swapped clips, {kind}; means of {clips} clips", ("", *COLUMNS), [(k, *v) for k, v in means.items()], note, figures)


# --- material -----------------------------------------------------------------------------------------------------------------


def swapped(pipe: FacePipeline, path: Path, options: Options, number: int) -> Shot:
    """A clip with the face of one of the portraits; a different person for each clip."""
    clip = Clip(path)
    plate = clip[: min(_QUICK_FRAMES if options.quick else FRAMES, len(clip))].to(options.device)
    source = fit_photo(pipe, options.data.faces(_PORTRAITS)[_PEOPLE[number % len(_PEOPLE)]], options)
    if source is None:
        raise SkippedError("No face was found in the portrait that is swapped in.")
    prior = pipe.fit(plate)
    raw, _ = pipe.render(compose_prior(prior, identity=source))
    truth, mask = pipe.render(compose_prior(smoothed(prior), identity=source))
    flow = plate_flow(plate.movedim(-1, 1), longest=max(plate.shape[1:3]))
    found = retrack(pipe, truth)
    if found is None:
        raise SkippedError(f"No face was found in the swap of {path.name}.")
    return Shot(plate, truth, raw, mask, flow, openings(retrack(pipe, plate)), openings(found), parts_of(found.landmarks[..., :2]))


def smoothed(prior: FacePrior) -> FacePrior:
    """A fit without jitter: every factor averaged over time."""
    left, _, right = torch.linalg.svd(over_time(prior.rotation))
    steady = prior.replace(
        rotation=left @ right,
        **{name: over_time(getattr(prior, name)) for name in ("expression", "gaze", "translation", "illumination", "offset")},
    )
    return steady.replace(background=replace(prior.background, prior=steady.replace(background=None)))


def over_time(values: Tensor) -> Tensor:
    """Gaussian mean along the first dimension, the ends repeated."""
    radius = int(3 * _SMOOTH)
    steps = torch.arange(-radius, radius + 1, device=values.device, dtype=values.dtype)
    kernel = torch.softmax(-steps.square() / (2 * _SMOOTH**2), 0)
    rows = F.pad(values.flatten(1).mT[:, None], (radius, radius), mode="replicate")
    return F.conv1d(rows, kernel[None, None])[:, 0].mT.reshape(values.shape)


def flickering(shot: Shot, number: int) -> Tensor:
    """The truth with exposure, colour, generation noise and place of its own in every frame, inside the mask."""
    random = torch.Generator().manual_seed(SEED + number)
    frames, height, width = shot.truth.shape[:3]
    draw = partial(torch.randn, generator=random)
    angle, reach = torch.rand(2, frames, generator=random)
    shift = (JITTER[0] + (JITTER[1] - JITTER[0]) * reach)[:, None] * torch.stack(
        [(2 * torch.pi * angle).cos(), (2 * torch.pi * angle).sin()], -1
    )
    picture = shot.truth.cpu().movedim(-1, 1)
    picture = sample(picture, pixel_grid(height, width, picture) + shift[:, None, None], mode="bicubic")
    bad = generated(picture, draw).movedim(1, -1).to(shot.plate)
    return torch.where(shot.mask[..., None] > 0, torch.lerp(shot.plate, bad, shot.mask[..., None]), shot.truth)


def generated(picture: Tensor, draw: Callable[..., Tensor]) -> Tensor:
    """Pictures (F, 3, H, W) with exposure, colour and noise from grain to blotches of their own."""
    frames = len(picture)
    picture = picture * (1 + EXPOSURE * draw(frames, 1, 1, 1) + COLOUR * draw(frames, 3, 1, 1)) + COLOUR / 2.5 * draw(frames, 3, 1, 1)
    noise = NOISE * draw(picture.shape)
    for radius in _BLOTCHES:
        blotches = blur(draw(picture.shape), radius, 2)
        noise = noise + 0.75 * NOISE * blotches / blotches.std()
    return picture + noise


# --- methods --------------------------------------------------------------------------------------------------------------------


def methods(bad: Tensor, shot: Shot) -> dict[str, Tensor]:
    """Each method's result, in the order of METHODS."""
    inside = shot.mask[..., None]
    results = (
        bad,
        torch.lerp(bad, temporal_median(bad), inside),
        torch.lerp(bad, flow_blending(bad, shot.flow), inside),
        stabilise(bad, shot.plate, shot.mask, Dials(live=True)),
        stabilise(bad, shot.plate, shot.mask),
    )
    return dict(zip(METHODS, results, strict=True))


def temporal_median(clip: Tensor, radius: int = 2) -> Tensor:
    """Each pixel's median over neighbouring frames, without motion."""
    padded = torch.cat([clip[:1]] * radius + [clip] + [clip[-1:]] * radius)
    return torch.stack([padded[i : i + len(clip)] for i in range(2 * radius + 1)]).median(0).values


def flow_blending(clip: Tensor, flow: PairFlow, share: float = 0.5) -> Tensor:
    """Each frame mixed with the result before it, carried along the flow, where flow agrees both ways (VFace's smoothing)."""
    out = [clip[:1].movedim(-1, 1)]
    for i in range(1, len(clip)):
        here = clip[i : i + 1].movedim(-1, 1)
        out.append(torch.lerp(here, warp(out[-1], flow.backward[i - 1 : i]), share * flow.backward_seen[i - 1 : i]))
    return torch.cat(out).movedim(1, -1)


# --- figures --------------------------------------------------------------------------------------------------------------------


def score(pipe: FacePipeline, result: Tensor, shot: Shot) -> tuple[float, ...]:
    """`COLUMNS` of a result."""
    rows, columns = _around(shot.mask > _INNER)
    here, truth, mask = (images[:, rows, columns] for images in (result, shot.truth, shot.mask))
    flow, seen = (part[..., rows, columns] for part in (shot.flow.backward, shot.flow.backward_seen[:, 0]))
    inside = (mask > _INNER).to(result)
    steady = inside[1:] * (seen > _INNER)
    fine, wanted = (_fine(clip) * inside for clip in (here, truth))
    distance = ((here - truth).square().mean(-1) * inside).sum() / inside.sum()
    return (
        float(inter_frame_ssim(here, flow, steady).mean()),
        255 * float(warp_error(here, flow, steady).mean()),
        float((detail(here, inside) / detail(truth, inside)).mean()),
        float((fine * wanted).sum() / (fine.norm() * wanted.norm())),
        255 * float(distance.sqrt()),
        float(ssim(here, truth, inside).mean()),
        *tracked_amplitudes(pipe, result, shot),
        *pixel_amplitudes(result, shot),
    )


def _around(inside: Tensor) -> tuple[slice, slice]:
    """Rows and columns of everything inside (F, H, W), with what flow and windows read around it."""
    spans = []
    for dim in (1, 0):
        found = inside.any(0).any(dim).nonzero()[:, 0]
        spans.append(slice(max(int(found.amin()) - _READ, 0), int(found.amax()) + 1 + _READ))
    return spans[0], spans[1]


def _fine(clip: Tensor) -> Tensor:
    """(F, H, W) what is finer than about three pixels."""
    grey = clip.mean(-1)[:, None]
    return (grey - blur(grey, 1, 2))[:, 0]


def tracked_amplitudes(pipe: FacePipeline, result: Tensor, shot: Shot) -> list[float]:
    """How far mouth and lids open and close, as a share of the truth; not a number where the truth's hardly move.

    cov(result, plate) / cov(truth, plate): the plate's own curve says when something happens, so that the tracker's noise is less heard.
    """
    track = retrack(pipe, result)
    if track is None:
        return [float("nan")] * 2
    out = []
    for found, wanted, filmed in zip(openings(track), shot.truth_openings, shot.plate_openings, strict=True):
        event = filmed - filmed.mean()
        out.append(float((found * event).sum() / (wanted * event).sum()) if float(wanted.std()) > _MOVES else float("nan"))
    return out


def pixel_amplitudes(result: Tensor, shot: Shot) -> list[float]:
    """The same without a tracker on the result: <r, t> / <t, t> of the pixels' covariances with the truth's opening.

    Linear in the result's pixels, so that noise that is new in every frame cancels out, whereas what is displaced, blurred or late counts.
    """
    out = []
    for points, opening in zip(shot.parts, shot.truth_openings, strict=True):
        event = (opening - opening.mean())[:, None, None]
        ours, wanted = ((event * sample(clip.movedim(-1, 1), points)).sum(0) for clip in (result, shot.truth))
        out.append(float((ours * wanted).sum() / wanted.square().sum()) if float(opening.std()) > _MOVES else float("nan"))
    return out


def parts_of(landmarks: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels (F, P, 2) in windows around mouth and eyes that follow the head, not what opens; from landmarks (F, 478, 2)."""
    rigid = list(RIGID)
    mean = landmarks.mean(0)
    head = torch.cat([similarity(mean[rigid], frame[rigid]) for frame in landmarks])  # the mean face to each frame
    on_head = transform(landmarks, invert(head))
    parts = []
    for outlines in _PARTS:
        points = []
        for outline in outlines:
            low, high = on_head[:, list(outline)].flatten(0, 1).aminmax(dim=0)
            size = (_GROWN * (high - low)).ceil().int().tolist()
            points.append((pixel_grid(size[1], size[0], mean) - mean.new_tensor(size) / 2 + (low + high) / 2).flatten(0, 1))
        parts.append(transform(torch.cat(points).expand(len(head), -1, -1), head))
    return parts[0], parts[1]


def openings(track: FaceTrack) -> tuple[Tensor, Tensor]:
    """Opening of mouth and lids (F,) over their widths."""

    def ratio(top: int, bottom: int, left: int, right: int) -> Tensor:
        high, low, start, end = (track.landmarks[:, point, :2] for point in (top, bottom, left, right))
        return (high - low).norm(dim=-1) / (start - end).norm(dim=-1)

    return ratio(*_MOUTH, *_MOUTH_CORNERS), sum(ratio(*eye) for eye in _EYES) / 2


# --- what else is promised ----------------------------------------------------------------------------------------------------


def background(pipe: FacePipeline, options: Options) -> Table:
    """A portrait before a camera that pans and comes closer, its background generated anew, flickering; the person as filmed."""
    frames, side = _QUICK_FRAMES if options.quick else 32, 288
    random = torch.Generator().manual_seed(SEED)
    scene = torch.from_numpy(astronaut().copy()).movedim(-1, 0)[None] / 255
    pattern = blur(torch.randn(scene.shape, generator=random), 2, 2)
    other = 0.7 * scene.flip(1) + 0.1 + 0.06 * pattern / pattern.std()
    t = torch.linspace(0, 1, frames).view(-1, 1, 1, 1)
    seen = (
        (pixel_grid(side, side, scene) - side / 2) * (1.2 - 0.1 * t) + torch.tensor([200.0, 190.0]) + 80 * t
    )  # the camera, about 3 px a frame
    plate, new = (
        sample(picture.expand(frames, -1, -1, -1), seen, mode="bicubic").movedim(1, -1).to(options.device) for picture in (scene, other)
    )
    person = pipe.perception.matte.matte(plate)
    truth = torch.lerp(new, plate, person[..., None])
    flickering = generated(new.cpu().movedim(-1, 1), partial(torch.randn, generator=random)).movedim(1, -1).to(plate)
    bad = torch.lerp(flickering, plate, person[..., None])
    flow = plate_flow(plate.movedim(-1, 1))
    nothing = torch.zeros_like(person)  # of the face is to be stabilised
    ours = stabilise(bad, plate, nothing, Dials(background="generated"), matte=person)
    results = {
        "as it came": bad,
        "temporal median of 5": temporal_median(bad),
        "flow blending": flow_blending(bad, flow),
        "FusionTVO": ours,
    }
    outside = (person < 1 - _INNER).to(plate)
    steady = outside[1:] * (flow.backward_seen[:, 0] > _INNER)
    rows = []
    for name, clip in (*results.items(), ("the truth itself", truth)):
        similar, changed = inter_frame_ssim(clip, flow.backward, steady).mean(), warp_error(clip, flow.backward, steady).mean()
        distance = ((clip - truth).square().mean(-1) * outside).sum() / outside.sum()
        sharp = (detail(clip, outside) / detail(truth, outside)).mean()
        rows.append((name, float(similar), 255 * float(changed), float(sharp), 255 * float(distance.sqrt())))
    put_back = stabilise(bad, plate, nothing, Dials(background="plate"), matte=torch.where(person < 1 - _INNER, 0.0, person))
    inner = -dilate(-outside[:, None], 12)[:, 0] > 0  # away from where the matte, held still, is soft
    note = (
        f"{frames} frames of {side} px, the background 'generated'; measured where there is nobody. With 'plate', "
        f"{100 * float((put_back == plate).all(-1)[inner].float().mean()):.4g} % of the background's pixels are the plate's to the bit."
    )
    figures = (Figure("tvo.background_ssim", rows[3][1], "", "higher", f"{frames} frames"),)
    return Table("Generated background under a moving camera", ("", *COLUMNS[:3], COLUMNS[4]), rows, note, figures)


def seam(overlap: int) -> float:
    """Change between frames at the borders of segments over that inside, of a drifting clip each segment of which leans its own way."""
    frames, random = 64, torch.Generator().manual_seed(2)
    picture = F.avg_pool2d(torch.randn(1, 4, 34, 34 + frames, generator=random), 3, 1) * 3
    clip = torch.cat([picture[..., t : t + 32] for t in range(frames)])
    parts = segments(frames, 16, overlap)
    total, mass = torch.zeros_like(clip), torch.zeros(frames, 1, 1, 1)
    for part in parts:
        weight = torch.tensor(segment_weights(part, overlap)).view(-1, 1, 1, 1)
        leaning = 0.8 * F.interpolate(torch.randn(1, 4, 2, 2, generator=random), (32, 32), mode="bilinear")
        total[part] += weight * (clip[part] + leaning)
        mass[part] += weight
    change = (total / mass).diff(dim=0).abs().mean((1, 2, 3))
    borders = sorted({edge for part in parts for edge in (part[0] - 1, part[-1]) if 0 <= edge < frames - 1})
    inside = [i for i in range(frames - 1) if i not in borders]
    return float(change[borders].mean() / change[inside].mean())


def seams() -> Table:
    """How much more changes where segments meet, by their overlap."""
    rows = [(f"{overlap} frames", seam(overlap)) for overlap in (0, 2, 4, 8)]
    note = "Latents of 64 frames that drift; segments of 16, each of which leans its own way, as a model's temporal layers make them."
    figure = Figure("tvo.seam", rows[2][1], "times", "lower", "64 frames, overlap 4")
    return Table("Seams of segments while sampling", ("overlap", "change across borders over change inside"), rows, note, (figure,))


def cost(options: Options) -> list[Table]:
    """Frames per second on a portrait that moves, and what memory does as the clip gets longer."""
    rows, figures = [], []
    frames = 4 if options.quick else 20
    portrait = torch.from_numpy(astronaut().copy()).to(options.device)[None] / 255
    still = portrait.expand(frames, -1, -1, -1)
    clips = {
        "512 x 512": torch.stack([torch.roll(frame, t, 1) for t, frame in enumerate(still)]),
        "1080p": moving_face(frames, options.device),
    }
    for name, plate in clips.items():
        height, width = plate.shape[1:3]
        face = (pixel_grid(height, width, plate) - plate.new_tensor([width / 2 - 30, height / 2 - 80])).norm(dim=-1) < 0.25 * height
        mask = face.to(plate).expand(frames, -1, -1)
        for mode, dials in (("", Dials()), (", live", Dials(live=True)), (", without lock", Dials(lock=False))):
            began = time.perf_counter(), time.process_time()
            stabilise(plate * 0.98, plate, mask, dials)
            wall, processor = (now - then for now, then in zip((time.perf_counter(), time.process_time()), began, strict=True))
            rows.append((f"{name}{mode}", frames / wall, 1e3 * processor / frames))
            if not mode:
                figures.append(Figure(f"tvo.frames_per_second_{name.split()[0]}", frames / wall, "frames/s", "higher", f"{frames} frames"))
    note = "Only the area around the face is worked on: half the picture's height here. Radius 4, both directions; live: only the past."
    speed = Table("Speed", ("", "frames/s", "processor ms per frame"), rows, note, tuple(figures))
    return [speed, _memory(portrait[:, ::2, ::2], _QUICK_LENGTHS if options.quick else _LENGTHS)]


def _memory(portrait: Tensor, lengths: Sequence[int]) -> Table:
    """What is held inside, and by the process, at points of a clip that is pushed frame by frame."""
    tvo, held, rows = FusionTVO(Dials(radius=2)), 0, []
    for t in range(1, lengths[-1] + 1):
        frame = torch.roll(portrait, t, 2)
        tvo.push(frame * 0.98, frame)
        held = max(held, tvo.held)
        if t in lengths:
            rows.append((f"after {t} frames", held, psutil.Process().memory_info().rss / 2**20))
    return Table("Memory against the clip's length", ("", "most frames held inside", "the whole process, MB"), rows, "256 px, radius 2.")


# --- pictures -------------------------------------------------------------------------------------------------------------------

_SHOWN = ("made to flicker", "temporal median of 5", "flow blending", "FusionTVO", "truth")


def pictures(pipe: FacePipeline, options: Options, folder: Path) -> None:
    """tvo_slices.jpg: one column of pixels through an eye (above) and the mouth (below) over time; tvo_strip.jpg: five frames in a row."""
    shot = swapped(pipe, options.data.clips()[-1], options, 0)
    bad = flickering(shot, 0)
    results = methods(bad, shot)
    clips = [bad, *(results[name] for name in _SHOWN[1:4]), shot.truth]
    inside = (shot.mask > 0.5).any(0)
    (top, bottom), (left, right) = ((int(x.amin()), int(x.amax()) + 1) for x in (inside.any(d).nonzero()[:, 0] for d in (1, 0)))
    middle = len(bad) // 2
    eye, mouth = retrack(pipe, shot.truth).landmarks[middle, [_IRIS, _MOUTH[0]], 0].int().tolist()
    slices = [torch.cat([clip[:, top:bottom, column].movedim(0, 1) for column in (eye, mouth)]) for clip in clips]
    strip = [clip[middle : middle + 5, top:bottom, left:right].movedim(0, 1).flatten(1, 2) for clip in clips]
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / "tvo_slices.jpg", slices, (4, 2), across=True)
    _write(folder / "tvo_strip.jpg", strip, (1, 1), across=False)


def _write(path: Path, parts: Sequence[Tensor], scale: tuple[int, int], *, across: bool) -> None:
    """Pictures (H, W, 3) side by side or below each other, enlarged by whole pixels across and down."""
    gap = 4
    parts = [part.clamp(0, 1).mul(255).byte().cpu().numpy() for part in parts]
    pad = ((0, 0), (0, gap), (0, 0)) if across else ((0, gap), (0, 0), (0, 0))
    joined = np.concatenate([np.pad(part, pad, constant_values=255) for part in parts], 1 if across else 0)
    size = joined.shape[1] * scale[0], joined.shape[0] * scale[1]
    Image.fromarray(joined).resize(size, Image.Resampling.NEAREST).save(path, quality=80)
    log.info("wrote %s (%s, from first to last)", path, ", ".join(_SHOWN))


def main(argv: list[str] | None = None) -> None:
    parser = arguments("FusionTVO: pictures, or (without --pictures) measurements")
    parser.add_argument("--pictures", type=Path, metavar="DIR", help="write strips and time slices there instead of measuring")
    args, rest = parser.parse_known_args(argv)
    if args.pictures is None:
        command("FusionTVO", measure, argv)
        return
    if rest:
        parser.error(f"unknown: {' '.join(rest)}")
    prepare()
    pictures(FacePipeline.load(args.device), Options(Data(args.data), args.limit, args.device), args.pictures)


if __name__ == "__main__":
    main()
