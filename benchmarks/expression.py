"""Expression: edits against the real smiling photograph of the same person, and one dial moved alone."""

from __future__ import annotations

import statistics
from collections import defaultdict
from dataclasses import replace

import cv2
import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor

from dynamicface import FacePipeline, FacePrior, FaceTrack, HeadModel
from dynamicface.images import invert, transform
from dynamicface.prior.estimate import default_focal, landmark_offset

from . import peers
from .common import Figure, Options, SkippedError, Table, command, fit_photo, load, log
from .faces import (
    FOREHEAD,
    LIDS,
    LIPS,
    OVAL,
    RIGID,
    SMILE,
    chain,
    degrees_between,
    feature_distance,
    frame_matrix,
    framed,
    in_plate,
    landmark_error,
    outer_eyes,
    polygon,
    refit,
    retrack,
    rms,
    similarity,
    ssim,
)
from .judge import Judge, cosine, distance

STEPS = torch.linspace(0, 0.8, 9).tolist()
METRICS = ("face SSIM", "mouth SSIM", "feature distance", "identity cosine", "judge distance", "coefficient RMS", "lips, lids %")


def measure(pipe: FacePipeline, options: Options) -> list[Table]:
    judge = Judge()
    return [smiles(pipe, options, judge), *dial(pipe, options, judge)]


def smiles(pipe: FacePipeline, options: Options, judge: Judge) -> Table:
    """Neutral photographs given the coefficients of the smiling ones, against these."""
    found: dict[str, list[tuple[float, ...]]] = defaultdict(list)
    for number, (neutral, smile) in enumerate(options.data.london(options.count(70))):
        plate, real = load(neutral, options.device), load(smile, options.device)
        track, wanted = retrack(pipe, plate), retrack(pipe, real)
        if track is None or wanted is None:
            raise SkippedError(f"No face was found in {neutral.name} or {smile.name}.")
        prior = pipe.fit(plate, track)
        comparison = _Comparison(pipe, judge, prior, track, real, wanted)
        for name, (picture, matrix) in edited(pipe, prior, plate, track, wanted, comparison).items():
            found[name].append(comparison(picture, matrix))
        log.info("smile %d: %s", number + 1, neutral.name)
    rows = [(name, *(np.nanmean(column) for column in zip(*values, strict=True))) for name, values in found.items()]
    ours = dict(zip(METRICS, next(row[1:] for row in rows if row[0] == "DynamicFace"), strict=True))
    data = f"neutral to smile, {len(found['DynamicFace'])} people"
    figures = (
        Figure("expression.mouth_ssim", float(ours["mouth SSIM"]), "", "higher", data),
        Figure("expression.coefficients", float(ours["coefficient RMS"]), "RMS", "lower", data),
    )
    return Table(
        f"Neutral photograph given the smile's coefficients, against the real smile; means of {len(next(iter(found.values())))} people",
        ("", *METRICS),
        rows,
        "Pictures are aligned by eye corners and nose. Feature distance: four stages of the product's identity net; identity cosine: that "
        "net's embedding; judge: dlib. Coefficients and landmarks are tracked and fitted again on the result with the identity held; "
        "lips, lids: mean distance to the real smile's landmarks in % of the outer-eye distance. With offsets: the smile's landmark "
        "residuals travel along, as when its prior is connected as the expression.",
        figures,
    )


def edited(
    pipe: FacePipeline, prior: FacePrior, plate: Tensor, track: FaceTrack, wanted: FaceTrack, comparison: _Comparison
) -> dict[str, tuple[Tensor, Tensor]]:
    """Every way to make the face smile: picture (1, H, W, 3) and the matrix from the plate to it."""
    fit = comparison.target
    same = torch.eye(2, 3, device=plate.device)[None]
    bent, matrix = peers.warp_expression(plate, track, wanted, pipe.head)
    by_coefficients = prior.replace(expression=fit.expression[0], gaze=fit.gaze[0])
    offset = landmark_offset(fit, wanted.landmarks[..., :2], pipe.head, default_focal(wanted))
    return {
        "no edit": (plate, same),
        "prototype": (bent[None], matrix),
        "DynamicFace": (pipe.render(by_coefficients)[0], same),
        "DynamicFace with offsets": (pipe.render(by_coefficients.replace(offset=offset))[0], same),
    }


class _Comparison:
    """One real smile, to compare results with."""

    def __init__(self, pipe: FacePipeline, judge: Judge, prior: FacePrior, track: FaceTrack, real: Tensor, wanted: FaceTrack) -> None:
        self.pipe, self.judge, self.shape, self.size = pipe, judge, prior.identity.shape, prior.image_size
        self.target, self.embedding = refit(pipe.head, wanted, prior.identity.shape), wanted.embedding
        self.landmarks, self.descriptor = wanted.landmarks[0], judge.describe(real[0], wanted.boxes[0])
        self.frame = frame_matrix(track.landmarks[0])
        rigid = list(RIGID)
        aligned = chain(similarity(self.landmarks[rigid, :2], track.landmarks[0, rigid, :2]), self.frame)
        self.real = framed(real, aligned)
        points = transform(self.landmarks[None, :, :2], aligned)[0]
        self.face, self.mouth = polygon(points, OVAL), polygon(points, LIPS, grow=10)

    def __call__(self, picture: Tensor, matrix: Tensor) -> tuple[float, ...]:
        """`METRICS` of a result; matrix: from the neutral plate to the picture. Nothing found anew counts as not a number."""
        small = framed(picture, chain(invert(matrix), self.frame))
        looks = (
            *ssim(small, self.real, self.face, self.mouth),
            feature_distance(self.pipe.perception.identity, small, self.real, self.face),
        )
        track = retrack(self.pipe, picture)
        if track is None:
            return (*looks, *[float("nan")] * 4)
        fit = refit(self.pipe.head, in_plate(track, matrix, self.size), self.shape)
        return (
            *looks,
            float(track.embedding @ self.embedding),
            distance(self.judge.describe(picture[0], track.boxes[0]), self.descriptor),
            rms(fit.expression - self.target.expression),
            landmark_error(track.landmarks[0], self.landmarks, LIPS, LIDS),
        )


def dial(pipe: FacePipeline, options: Options, judge: Judge) -> list[Table]:
    """The smile dial alone, in nine steps on fifty faces."""
    half = (options.count(50) + 1) // 2
    photos = [neutral for neutral, _ in options.data.london(half)] + options.data.faces(half)
    rows, lost = [], []
    for number, path in enumerate(photos):
        prior = fit_photo(pipe, path, options)
        if prior is None:
            lost.append(f"{path.stem}: no face")
            continue
        row = _one_face(pipe, prior, judge)
        rows.append((path.stem, *row)) if row else lost.append(f"{path.stem}: no face after the edit")
        log.info("dial %d of %d: %s", number + 1, len(photos), path.name)
    columns = list(zip(*rows, strict=True))
    ranks, corner_ranks, turn, flow_turn, likeness, near, outside, neutral = columns[1:]
    weak = sorted(rows, key=lambda row: row[1])[:5]
    summary = [
        ("Spearman of dial and re-tracked smile coefficients, median / least", statistics.median(ranks), min(ranks)),
        ("... faces at or above 0.98", sum(r >= 0.98 for r in ranks), len(ranks)),
        ("Spearman of dial and re-tracked corners of the fitted mouth, median / least", statistics.median(corner_ranks), min(corner_ranks)),
        ("... faces at or above 0.98", sum(r >= 0.98 for r in corner_ranks), len(ranks)),
        ("pose change at 0.8 by re-tracked landmarks, degrees, median / most", statistics.median(turn), max(turn)),
        ("pose change at 0.8 by optical flow, degrees, median / most", statistics.median(flow_turn), max(flow_turn)),
        ("judge's cosine to the original at 0.8, median / least", statistics.median(likeness), min(likeness)),
        ("judge's distance to the original at 0.8, median / most", statistics.median(near), max(near)),
        ("faces with every pixel outside of the mask identical to the bit", sum(outside), len(outside)),
        ("faces identical to the bit with all dials at 0", sum(neutral), len(neutral)),
    ]
    note = f"Not measured: {', '.join(lost)}." if lost else ""
    data = f"smile 0 to 0.8, {len(rows)} faces"
    figures = (
        Figure("expression.dial_rank", statistics.median(ranks), "", "higher", data),
        Figure("expression.judge_cosine", statistics.median(likeness), "", "higher", data),
        Figure("expression.pose_by_flow", statistics.median(flow_turn), "degrees", "lower", data),
    )
    title = f"Smile dial 0 to 0.8 in nine steps, {len(rows)} faces, re-tracked from scratch"
    return [
        Table(title, ("", "value", "of / extreme"), summary, note, figures),
        Table(
            "The five least monotone faces",
            (
                "photo",
                "Spearman",
                "corners",
                "pose",
                "pose by flow",
                "judge cosine",
                "judge distance",
                "outside identical",
                "neutral identical",
            ),
            weak,
        ),
    ]


def _one_face(pipe: FacePipeline, prior: FacePrior, judge: Judge) -> tuple | None:
    """The columns of the table of single faces after the photo; None where the edited face is not found any more."""
    plate = prior.background.plate
    results = [pipe.render(pipe.edit(prior, smile=step)) for step in STEPS]
    pictures = torch.cat([picture for picture, _ in results])
    track = retrack(pipe, pictures)
    if track is None or float(track.presence.min()) < 0.5:
        return None
    fit = refit(pipe.head, track, prior.identity.shape)
    smile = fit.expression[0][:, list(SMILE)].mean(-1)
    first, last = (judge.describe(pictures[i], track.boxes[i]) for i in (0, -1))
    same = all(torch.equal(picture[mask == 0], plate[mask == 0]) for picture, mask in results)
    return (
        _rank(smile),
        _rank(corner_rise(pipe.head, prior.identity.shape, fit.expression[0])),
        float(degrees_between(fit.rotation[0, 0], fit.rotation[0, -1])),
        moved_pose(pipe.head, track, pictures[[0, -1]], prior.identity.shape),
        cosine(first, last),
        distance(first, last),
        same,
        torch.equal(results[0][0], plate),
    )


def moved_pose(head: HeadModel, track: FaceTrack, pictures: Tensor, shape: Tensor) -> float:
    """Degrees the head turned from the first picture (2, H, W, 3) to the second by optical flow of what an expression leaves still.

    The landmark net takes a part of every smile, real ones too, for a nod; the flow only believes what moved in the picture.
    """
    still = [*RIGID, *FOREHEAD]
    before, after = (cv2.cvtColor((x.clamp(0, 1) * 255).byte().cpu().numpy()[..., :3].copy(), cv2.COLOR_RGB2GRAY) for x in pictures)
    points = track.landmarks[0, still, :2]
    window = max(9, round(0.2 * float(outer_eyes(track.landmarks[0]))))
    start = (points.cpu().numpy() - 0.5)[:, None].astype(np.float32)
    end, _, _ = cv2.calcOpticalFlowPyrLK(before, after, start, None, winSize=(window, window), maxLevel=2)
    landmarks = track.landmarks[:1].repeat(2, 1, 1)
    landmarks[1, still, :2] += torch.from_numpy((end - start)[:, 0]).to(points)
    weight = torch.zeros(2, landmarks.shape[1]).index_fill(1, torch.tensor(still), 1.0)
    two = replace(track, boxes=track.boxes[:1].repeat(2, 1), landmarks=landmarks, presence=track.presence[:1].repeat(2))
    fit = refit(head, two, shape, weight.to(points))
    return float(degrees_between(fit.rotation[0, 0], fit.rotation[0, 1]))


def corner_rise(head: HeadModel, shape: Tensor, expression: Tensor) -> Tensor:
    """(F,) metres the corners of the fitted mouth are out and up from rest, whichever of the channels (F, 52) move them."""
    corners = [61, 291]
    rest, now = (head.landmarks(head.vertices(shape[None], e))[:, corners] for e in (torch.zeros_like(expression[:1]), expression))
    moved = now - rest
    out = torch.sign(rest[..., 0])
    return ((moved[..., 0] * out + moved[..., 1]) / 2**0.5).mean(-1)


def _rank(values: Tensor) -> float:
    """Spearman's correlation with the dial; 0 where nothing moves at all."""
    return float(np.nan_to_num(spearmanr(STEPS, values.cpu().numpy()).statistic))


def main(argv: list[str] | None = None) -> None:
    command("Expression", measure, argv)


if __name__ == "__main__":
    main()
