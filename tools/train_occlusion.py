"""Train the occlusion net (``dynamicface/weights/occlusion.safetensors``) on portraits with drawn occluders.

    python tools/train_occlusion.py --photos faces/ --minutes 40

Every ninth portrait is held out, as for the generator (`training_photos`). Needs about 0.5 GB of memory and one core or two. What may lie
in front of a face, and what may not count as an occluder, is drawn by `dynamicface/training/occluders.py`. Portraits that do have hair or
glasses in front of the face, which nobody marked, are not held against the net once it is sure of them.
"""

from __future__ import annotations

import argparse
import copy
import logging
import math
import random
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save, save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from headbuild.registry import register_own  # noqa: E402

from dynamicface import FacePipeline, NoFaceError  # noqa: E402
from dynamicface.conventions import srgb_to_linear  # noqa: E402
from dynamicface.filters import dilate, pixel_grid, sample  # noqa: E402
from dynamicface.images import sample_crops  # noqa: E402
from dynamicface.io.pictures import read_image  # noqa: E402
from dynamicface.occlusion import AROUND, SIDE, ZOOM, Geometry, evidence, geometry  # noqa: E402
from dynamicface.perception.occlusion import OcclusionNet  # noqa: E402
from dynamicface.prior.geometry import face_crop  # noqa: E402
from dynamicface.training.data import training_photos  # noqa: E402
from dynamicface.training.occluders import Scene, occlude  # noqa: E402

log = logging.getLogger("train_occlusion")

BATCH, RATE, DECAY, AVERAGE = 12, 2e-3, 1e-3, 0.995
FRESH, POOL = 4, 384  # drawings made anew for each batch; drawings kept, from which the batch is taken
WINDOW = 96  # px of the crop that a batch sees: the net is convolutional
MIRRORED = (6, 9)  # channels of the evidence that change their sign from left to right
HIDDEN = 1.5  # weight of hidden pixels: they are few
OUTSIDE = 0.3  # weight of the head outside of the face
SURE = 0.9  # probability from which an unmarked pixel of a portrait is left out ..
WARM = 0.5  # .. after this share of the training
_EXTENT = 2.5  # decimetres stored as full scale
_KEPT = ("position", "normal", "tint", "facing", "face", "head")


def pack(photo: Path, pipe: FacePipeline) -> Tensor:
    """A portrait's crop and geometry as bytes (15, S, S)."""
    image = read_image(photo)
    prior = pipe.fit(image, texture_size=0, matte=None)
    crop = face_crop(prior, SIDE, ZOOM)
    maps = {name: getattr(geometry(prior, pipe.head, crop), name)[0] for name in _KEPT}
    maps["position"], maps["normal"] = maps["position"] / (2 * _EXTENT) + 0.5, maps["normal"] / 2 + 0.5
    maps["tint"] = maps["tint"] / 4
    picture = sample_crops(image, crop.matrix, SIDE)[0]
    return (torch.cat([picture, *maps.values()]).clamp(0, 1) * 255).round().byte()


def unpack(row: Tensor) -> tuple[Tensor, Geometry]:
    """The linear picture (3, S, S) and its geometry, F = 1."""
    picture, position, normal, tint, facing, face, head = (row.float() / 255).split((3, 3, 3, 3, 1, 1, 1))
    maps = ((position - 0.5) * 2 * _EXTENT * head, (normal * 2 - 1) * head, tint * 4, facing, face, head)
    return srgb_to_linear(picture), Geometry(*(x[None] for x in maps))


class Drawn(Dataset):
    """Portraits with something in front of them: evidence (17, S, S), mask and weight (1, S, S), stacked: (19, S, S)."""

    def __init__(self, rows: Tensor, length: int, seed: int) -> None:
        self.rows, self.length, self.seed = rows, length, seed

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Tensor:
        draw = torch.Generator().manual_seed(self.seed * 1_000_003 + index)
        one, two = torch.randint(len(self.rows), (2,), generator=draw).tolist()
        picture, shown = unpack(self.rows[one])
        other = unpack(self.rows[two])[0]
        picture = self._misfitted(picture, draw)
        picture, mask = occlude(Scene(picture, other, shown.position[0], shown.face[0, 0]), draw)
        picture = self._taken(picture, draw)
        noise = 0.012 * float(torch.rand((), generator=draw)) * torch.randn(picture.shape, generator=draw)
        weight = torch.maximum(shown.face, OUTSIDE * dilate(shown.head, AROUND))[0]
        return torch.cat([evidence((picture + noise)[None].clamp_min(0), shown)[0], mask[None], weight]).half()

    def _taken(self, picture: Tensor, draw: torch.Generator) -> Tensor:
        """The picture as a smaller or softer one would show it, every fourth time."""
        if torch.rand((), generator=draw) < 0.75:
            return picture
        size = int(SIDE * (0.4 + 0.6 * float(torch.rand((), generator=draw))))
        small = F.interpolate(picture[None], (size, size), mode="bilinear", antialias=True, align_corners=False)
        return F.interpolate(small, (SIDE, SIDE), mode="bilinear", align_corners=False)[0]

    def _misfitted(self, picture: Tensor, draw: torch.Generator) -> Tensor:
        """The picture moved a little against its geometry, as a fit under an occluder is."""
        turn, grow, *shift = torch.randn(4, generator=draw).tolist()
        turn, grow = 0.03 * turn, 1 + 0.025 * grow
        grid = pixel_grid(SIDE, SIDE, picture) - SIDE / 2
        matrix = picture.new_tensor([[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]) * grow
        bent = F.interpolate(torch.randn(1, 2, 6, 6, generator=draw), (SIDE, SIDE), mode="bicubic", align_corners=True)[0]
        at = grid @ matrix + SIDE / 2 + 1.2 * picture.new_tensor(shift) + 0.7 * bent.permute(1, 2, 0)
        return sample(picture[None], at[None])[0]


class Pool:
    """The latest drawings: each is seen several times, from other windows and flipped, since drawing costs more than a step."""

    def __init__(self, seed: int) -> None:
        self.kept: list[Tensor] = []
        self.draw = random.Random(seed)

    def batch(self, fresh: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Take in fresh drawings (n, 19, S, S); evidence (BATCH, 17, WINDOW, WINDOW), mask and weight (BATCH, 1, WINDOW, WINDOW)."""
        self.kept = [*self.kept, *fresh][-POOL:]
        picked = torch.stack([self._seen(self.draw.choice(self.kept)) for _ in range(BATCH)]).float()
        return picked.split((picked.shape[1] - 2, 1, 1), 1)

    def _seen(self, drawing: Tensor) -> Tensor:
        top, left = (self.draw.randint(0, SIDE - WINDOW) for _ in range(2))
        window = drawing[:, top : top + WINDOW, left : left + WINDOW]
        if self.draw.random() < 0.5:
            window = window.flip(-1)
            window[list(MIRRORED)] *= -1
        return window


def loss_of(logits: Tensor, mask: Tensor, weight: Tensor, warm: bool) -> Tensor:
    """Cross entropy and overlap, where somebody marked the truth."""
    chance = logits.detach().sigmoid()
    believed = weight * (1 - ((mask < 0.05) & (chance > SURE)).float() * float(warm))
    few = logits.new_tensor(HIDDEN)
    entropy = (F.binary_cross_entropy_with_logits(logits, mask, pos_weight=few, reduction="none") * believed).sum() / believed.sum()
    both, either = (believed * mask * logits.sigmoid()).sum((1, 2, 3)), (believed * (mask + logits.sigmoid())).sum((1, 2, 3))
    shown = (weight * mask).sum((1, 2, 3)) > 20
    overlap = 1 - 2 * both / either.clamp_min(1)
    return entropy + 0.4 * (overlap * shown).sum() / shown.sum().clamp_min(1)


def train(rows: Tensor, minutes: float, out: Path, seed: int, start: Path | None) -> OcclusionNet:
    """The average of the last weights, after so many minutes."""
    torch.manual_seed(seed)
    net = OcclusionNet().train().to(memory_format=torch.channels_last)
    if start is not None:
        net.load_state_dict({name: t.float() if t.is_floating_point() else t for name, t in load_file(start).items()})
    average = copy.deepcopy(net)
    optimiser = torch.optim.AdamW(net.parameters(), lr=RATE, weight_decay=DECAY)
    loader, pool = DataLoader(Drawn(rows, 10**7, seed), FRESH, num_workers=1, prefetch_factor=8), Pool(seed)
    started, recent = time.time(), []
    for step, fresh in enumerate(loader):
        done = (time.time() - started) / (60 * minutes)
        if done >= 1:
            break
        for group in optimiser.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 50) * 0.5 * (1 + math.cos(math.pi * done))
        seen, mask, weight = pool.batch(fresh)
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(seen)
        loss = loss_of(logits.float(), mask, weight, done > WARM)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimiser.step()
        with torch.no_grad():
            keep = min(AVERAGE, (step + 1) / (step + 10))
            for mean, value in zip(average.state_dict().values(), net.state_dict().values(), strict=True):
                mean.lerp_(value, 1 - keep) if mean.is_floating_point() else mean.copy_(value)
        recent = [*recent[-49:], loss.item()]
        if step % 50 == 0:
            log.info("step %d, %.0f %%, loss %.4f", step, 100 * done, sum(recent) / len(recent))
            write(average, out)
    write(average, out)
    return average.eval()


def write(net: OcclusionNet, path: Path) -> None:
    """Weights in half precision."""
    state = {name: t.half().contiguous() if t.is_floating_point() else t for name, t in net.state_dict().items()}
    path.write_bytes(save(state))


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=40)
    parser.add_argument("--limit", type=int, help="portraits to read (default: all that may train)")
    parser.add_argument("--cache", type=Path, help="keep the packed portraits here (safetensors) between runs")
    parser.add_argument("--start", type=Path, help="go on from these weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=ROOT / "dynamicface" / "weights" / "occlusion.safetensors")
    args = parser.parse_args()
    rows = packed(args.photos, args.limit, args.cache)
    train(rows, args.minutes, args.out, args.seed, args.start)
    how = f"tools/train_occlusion.py, {args.minutes:g} minutes on two shared cores, {len(rows)} portraits, fp16"
    register_own(args.out, "occlusion", how, "Trained on synthetic portraits of nobody real with drawn occluders.")


def packed(folder: Path, limit: int | None, cache: Path | None) -> Tensor:
    """(N, 15, S, S) bytes of the portraits that may train."""
    if cache is not None and cache.is_file():
        return load_file(cache)["rows"]
    pipe, rows = FacePipeline.load(), []
    for photo in training_photos(folder)[:limit]:
        try:
            rows.append(pack(photo, pipe))
        except NoFaceError:
            log.info("%s: no face", photo.name)
    rows = torch.stack(rows)
    if cache is not None:
        save_file({"rows": rows}, cache)
    return rows


if __name__ == "__main__":
    main()
