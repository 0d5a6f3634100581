"""What of another identity's skin comes along in a swap, and what stays behind."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dynamicface.prior import texture
from dynamicface.skin import _FOREHEAD, _TEMPLE, _without_fringe

SIZE = 256
PLACES = {  # metres in the head model: from and to across, from and to upwards
    "forehead": (-0.035, 0.035, 0.045, 0.050),
    "temple": (0.067, 0.072, -0.020, 0.010),
    "cheek": (0.025, 0.045, -0.045, -0.040),
    "jaw": (0.060, 0.066, -0.068, -0.056),
}


def limited(head, place: str, darkness: float) -> Tensor:
    """What is left, log colour (K, 3), of a bar that much darker than a texture without any other detail."""
    left, right, low, high = PLACES[place]
    table = texture.atlas(head, SIZE)
    x, y = table.scatter(table.gather(head.template[None]))[0, :2]
    skin = table.scatter((table.part == 0)[None, :, None].float())[0, 0] > 0
    bar = skin & (x > left) & (x < right) & (y > low) & (y < high)
    assert int(bar.sum()) > 30
    return _without_fringe(bar.float().expand(1, 3, -1, -1) * darkness, head)[0][:, bar].T


@pytest.mark.parametrize("place, limit", [("forehead", _FOREHEAD), ("temple", _TEMPLE)])
@pytest.mark.parametrize("darkness", [-1.2, 1.2])
def test_a_fringe_stays_behind(head, place, limit, darkness):
    assert (limited(head, place, darkness).abs() - limit).abs().max() < 0.01


@pytest.mark.parametrize("darkness", [-0.15, 0.15])
def test_wrinkles_of_the_forehead_come_along(head, darkness):
    assert torch.allclose(limited(head, "forehead", darkness), torch.tensor(darkness))


@pytest.mark.parametrize("place", ["cheek", "jaw"])
def test_moles_and_beards_come_along(head, place):
    assert torch.allclose(limited(head, place, -1.2), torch.tensor(-1.2), atol=0.02)
