"""Hair over forehead and temples is taken out of a person's albedo; brows, beards, moles and wrinkles stay."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dynamicface.landmark_sets import BROWS
from dynamicface.prior import texture
from dynamicface.prior.hair import without_hair

SIZE = 256
FRINGE = (-0.08, 0.08, 0.044, 0.2)  # metres in the head model: from and to across, from and to upwards
STRAND = (0.010, 0.013, 0.030, 0.045)
BLACK = -1.5  # natural log


@pytest.fixture(scope="module", params=[1.0, 0.15], ids=["light", "dark"])
def bare(head, request) -> Tensor:
    """The mean head's albedo (3, U, U) as light and as dark skin."""
    return F.interpolate(head.albedo[None], (SIZE, SIZE), mode="area")[0] * request.param


def place(head, box: tuple[float, float, float, float]) -> Tensor:
    """(U, U) bool: the skin within a box."""
    table = texture.atlas(head, SIZE)
    x, y = table.scatter(table.gather(head.template[None]))[0, :2]
    left, right, low, high = box
    skin = table.scatter((table.part == 0)[None, :, None].float())[0, 0] > 0
    return skin & (x > left) & (x < right) & (y > low) & (y < high)


def kept(albedo: Tensor, head, painted: dict[tuple, float], unseen: tuple) -> Tensor:
    """How well each texel was seen, (U, U), with boxes painted that much darker and one box that the fit took for hair by itself."""
    seen = (texture.head_region(head, SIZE) > 0.5).float() * ~place(head, unseen)
    for box, darkness in painted.items():
        albedo = torch.where(place(head, box), albedo * torch.tensor(darkness).exp(), albedo)
    after = without_hair(albedo, seen, head)[0]
    assert (after <= seen[0]).all()
    return torch.where(seen[0] > 0, after, 1.0)


def test_a_strand_that_hangs_from_the_fringe_is_not_seen(bare, head):
    found = kept(bare, head, {FRINGE: BLACK, STRAND: BLACK}, FRINGE)
    assert found[place(head, (*STRAND[:3], 0.042))].max() < 0.1
    assert found[place(head, (-0.05, 0.0, 0.026, 0.036))].min() > 0.9


def test_a_lock_over_one_brow_is_not_seen(bare, head):
    lock = (0.034, 0.058, 0.016, 0.045)
    found = kept(bare, head, {FRINGE: BLACK, lock: BLACK}, FRINGE)
    assert found[place(head, (*lock[:3], 0.042))].mean() < 0.1
    assert found[place(head, (-0.055, -0.015, 0.012, 0.022))].mean() > 0.95


@pytest.mark.parametrize(
    "box, darkness",
    [
        ((0.010, 0.014, 0.030, 0.034), BLACK),
        ((-0.06, 0.06, 0.034, 0.036), -0.12),
        ((-0.075, 0.075, -0.12, -0.035), BLACK),
        ((0.03, 0.034, -0.03, -0.026), BLACK),
    ],
    ids=["a mole of the forehead", "a wrinkle", "a beard", "a mole of the cheek"],
)
def test_what_does_not_hang_together_with_the_hair_stays(bare, head, box, darkness):
    assert kept(bare, head, {FRINGE: BLACK, box: darkness}, FRINGE)[place(head, box)].min() > 0.9


def test_bare_skin_and_brows_stay(bare, head):
    assert kept(bare, head, {}, FRINGE)[place(head, (-0.065, 0.065, -0.13, 0.042))].min() > 0.9


def test_under_a_photographed_fringe_is_skin(fitted, head):
    """The astronaut's fringe reaches one of her brows."""
    logs = fitted.identity.albedo.clamp_min(2e-3).log().mean(0)
    table = texture.atlas(head, logs.shape[-1])
    x, y = table.scatter(table.gather(head.template[None]))[0, :2]
    brows = head.landmarks(head.template)[[*BROWS[0], *BROWS[1]]]
    forehead = (y > brows[:, 1].max() + 4e-3) & (y < 0.07) & (x.abs() < 0.05)
    assert logs[forehead].amin() > logs[forehead].median() - 0.5
