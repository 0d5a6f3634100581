"""LPIPS, Inception's features and Fréchet distances against the figures of the reference packages with the same weights.

Stored figures: packages lpips 0.1.4 and pytorch-fid 0.3.0, their AlexNet and Inception v3 filled with `weights`,
shown `noise`.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy.linalg import sqrtm
from torch import Tensor, nn

from dynamicface import DynamicFaceError, WeightsError
from dynamicface.metrics import face_feature_frechet, frechet_distance
from dynamicface.metrics.fid import InceptionFeatures, fid
from dynamicface.metrics.lpips import FILE, Lpips


def weights(shapes: dict[str, torch.Size], seed: int = 7) -> dict[str, Tensor]:
    """Tensors by name, scaled so that signals neither die out nor explode; positive where a network wants that."""
    drawn = torch.Generator().manual_seed(seed)
    tensors = {}
    for name in sorted(shapes):
        shape = shapes[name]
        values = torch.randn(shape, generator=drawn)
        if len(shape) == 4:
            values = values * (2 / shape[1:].numel()) ** 0.5
        if len(shape) < 2 or name.startswith("lin"):
            values = 0.5 + values.abs() if name.endswith(("running_var", "bn.weight")) or name.startswith("lin") else 0.1 * values
        tensors[name] = values
    return tensors


def fill(network: nn.Module) -> nn.Module:
    """A network with `weights`."""
    state = {name: value.shape for name, value in network.state_dict().items() if value.is_floating_point()}
    network.load_state_dict(weights(state), strict=False)
    return network.eval()


def noise(count: int = 3, size: int = 96, seed: int = 1) -> Tensor:
    """Smooth coloured noise (count, size, size, 3) in 0..1."""
    drawn = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, 3, size // 8, size // 8), generator=drawn)
    return nn.functional.interpolate(coarse, (size, size), mode="bilinear", align_corners=False).permute(0, 2, 3, 1)


@pytest.fixture(scope="module")
def pictures():
    return noise(seed=1), noise(seed=2)


def test_lpips_is_the_reference_s(pictures):
    network = fill(Lpips())
    assert network(*pictures).tolist() == pytest.approx([1.4140258, 1.3477639, 1.2857406], rel=1e-4)
    assert network(pictures[0], pictures[0]).tolist() == [0, 0, 0]


def test_inception_features_are_the_reference_s(pictures):
    features = fill(InceptionFeatures())(pictures[0])
    assert features.shape == (3, 2048)
    assert features[:, 0].tolist() == pytest.approx([402.19080, 510.95142, 433.31018], rel=1e-3)
    assert float(features.mean()) == pytest.approx(4933.5571, rel=1e-4) and float(features.std()) == pytest.approx(7229.4414, rel=1e-4)


def test_frechet_distance_is_that_of_the_matrix_root():
    drawn = torch.Generator().manual_seed(3)
    a, b = torch.randn(200, 16, generator=drawn), torch.randn(150, 16, generator=drawn) * 1.5 + 0.3
    one, two = (np.cov(x.double().numpy(), rowvar=False) for x in (a, b))
    shift = (a.double().mean(0) - b.double().mean(0)).square().sum()
    expected = float(shift) + np.trace(one + two - 2 * sqrtm(one @ two).real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert fid(a, b) == pytest.approx(6.5586079, rel=1e-5)  # pytorch-fid's figure
    assert face_feature_frechet(a, b) == pytest.approx(100 * expected, rel=1e-6)


def test_frechet_distance_with_fewer_pictures_than_features():
    """A set against itself is at 0, against itself moved at the square of the move: the covariances cancel."""
    a = torch.randn(12, 300, generator=torch.Generator().manual_seed(4))
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-6)
    assert frechet_distance(a, a + 0.1) == pytest.approx(3.0, rel=1e-5)
    with pytest.raises(DynamicFaceError, match="at least two"):
        frechet_distance(a[:1], a)


def test_networks_come_from_the_user_s_folder(tmp_path, pictures):
    with pytest.raises(WeightsError, match=r"no file .*lpips_alex.safetensors.*Make it once: python tools/to_safetensors.py"):
        Lpips.load(tmp_path)
    network = fill(Lpips())
    save_file(network.state_dict() | {"classifier.weight": torch.zeros(3)}, tmp_path / FILE)
    assert torch.equal(Lpips.load(tmp_path)(*pictures), network(*pictures))
    save_file({"features.0.weight": torch.zeros(3)}, tmp_path / FILE)
    with pytest.raises(WeightsError, match="of another network: 15 of 15 tensors do not fit"):
        Lpips.load(tmp_path)
    (tmp_path / FILE).write_bytes(b"<html>")
    with pytest.raises(WeightsError, match="cannot be read"):
        Lpips.load(tmp_path)
