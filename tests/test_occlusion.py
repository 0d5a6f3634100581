from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dynamicface import FacePrior, fit_prior
from dynamicface.errors import ImageError
from dynamicface.filters import pixel_grid
from dynamicface.occlusion import Geometry, _other_half, _steadied, find_occlusion, mask_of_face
from dynamicface.prior.estimate import select_frames
from dynamicface.training.occluders import Scene, occlude
from dynamicface.types import FaceCrop, FaceMask

BLUE = (0.1, 0.25, 0.8)


@pytest.fixture(scope="module")
def disc(portrait, track) -> Tensor:
    """(1, 512, 512) bool: a disc over the left cheek and half of the mouth."""
    points = track.landmarks[0, :, :2]
    centre, radius = (points[280] + points[291]) / 2, 0.35 * (points[33] - points[263]).norm()
    return ((pixel_grid(512, 512, portrait) - centre).norm(dim=-1) < radius)[None]


@pytest.fixture(scope="module")
def hidden(portrait, disc) -> Tensor:
    """The portrait with a blue disc in front of it."""
    return torch.where(disc[..., None], torch.tensor(BLUE), portrait)


@pytest.fixture(scope="module")
def covered(pipeline, hidden) -> FacePrior:
    return pipeline.fit(hidden)


def test_what_covers_the_face_is_found_and_the_bare_face_is_not(pipeline, covered, fitted, disc):
    found, bare = (pipeline.occlusion(prior) > 0.5 for prior in (covered, fitted))
    assert found.shape == (1, 512, 512)
    assert (found & disc).sum() > 0.8 * disc.sum()
    assert (bare & disc).sum() < 0.3 * disc.sum()


def test_exposure_does_not_matter(pipeline, covered):
    """A plate twice as bright, beyond the display's range, has the same occluders but for a few pixels."""
    bright = covered.replace(background=replace(covered.background, plate=covered.background.plate * 1.35))
    one, two = pipeline.occlusion(covered) > 0.5, pipeline.occlusion(bright) > 0.5
    assert (one ^ two).sum() < 0.25 * one.sum()


def test_sensitivity_finds_more(pipeline, covered):
    areas = [float(pipeline.occlusion(covered, sensitivity=s).sum()) for s in (0.1, 0.5, 0.9)]
    assert areas[0] < areas[1] < areas[2]


def test_a_roto_wins_where_something_is_drawn(pipeline, covered):
    frames = 2
    shot = select_frames(covered, torch.zeros(frames, dtype=torch.long))
    roto = torch.zeros(frames, 512, 512)
    roto[1, :40, :40] = 1.0
    both = find_occlusion(shot, pipeline.head, pipeline.perception, roto=roto)
    assert torch.equal(both[1], roto[1])
    assert both[0].sum() > 0
    with pytest.raises(ImageError, match="occlusion mask is 10 x 10 pixels"):
        find_occlusion(shot, pipeline.head, pipeline.perception, roto=torch.zeros(frames, 10, 10))


def test_what_is_found_stays_as_filmed(pipeline, covered, disc):
    mask = pipeline.occlusion(covered)
    picture, _ = pipeline.render(pipeline.edit(covered, laugh=1.0), occlusion=mask)
    plate = covered.background.plate
    kept = mask >= 1
    assert kept.sum() > 0.5 * disc.sum()
    assert torch.equal(picture[kept], plate[kept])


def test_the_fit_does_not_believe_what_covers_the_face(pipeline, hidden, fitted, disc):
    """With the disc masked, light and skin lie nearer to those of the bare face."""
    aware = pipeline.fit(hidden, occlusion=disc.float())
    plain = pipeline.fit(hidden)
    lights = [float((prior.illumination - fitted.illumination).norm()) for prior in (aware, plain)]
    assert lights[0] < lights[1]
    albedos = [float((prior.identity.albedo - fitted.identity.albedo).abs().mean()) for prior in (aware, plain)]
    assert albedos[0] < albedos[1]
    assert aware.confidence < plain.confidence


def test_landmarks_that_are_hidden_do_not_count(pipeline, portrait, track, fitted):
    """Landmarks under a mask may be anywhere: the fit hardly notices."""
    chin = [152, 148, 377, 176, 400, 17, 18, 200, 199, 175]
    landmarks = track.landmarks.clone()
    landmarks[:, chin, 1] += 25
    lowest = track.landmarks[0, 17, 1]
    drawn = (pixel_grid(512, 512, portrait)[..., 1] > lowest - 1)[None].float()
    moved = []
    for mask in (mask_of_face(drawn, fitted), None):
        options = {"texture_size": 0, "focal": fitted.focal, "occlusion": mask}
        fits = [fit_prior(portrait, one, pipeline.head, **options) for one in (track, replace(track, landmarks=landmarks))]
        moved.append(float((fits[0].expression - fits[1].expression).norm()))
    assert moved[0] < 0.5 * moved[1]


def test_frames_steady_each_other_where_nothing_changed_and_never_across_a_cut():
    logits = torch.tensor([4.0, -2.0, 4.0]).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    still = torch.full((3, 3, 8, 8), 0.3)
    assert torch.allclose(_steadied(logits, still, torch.zeros(3)), torch.tensor([1.0, 2.0, 1.0]).view(3, 1, 1, 1))
    assert torch.equal(_steadied(logits, still, torch.tensor([0, 1, 2])), logits)
    changed = still * torch.tensor([1.0, 4.0, 16.0]).view(3, 1, 1, 1)
    assert torch.allclose(_steadied(logits, changed, torch.zeros(3)), logits, atol=1e-4)


def test_the_halves_of_the_face_are_compared():
    """What lies on both halves alike cancels; what lies on one stands out there, and with the other sign on the other half."""
    size = 64
    place = (pixel_grid(size, size, torch.zeros(1)) / size - 0.5) * torch.tensor([2.0, -2.0])
    position = torch.cat([place, place[..., :1].square()], -1).permute(2, 0, 1)[None]
    ones = torch.ones(1, 1, size, size)
    shown = Geometry(position, position, position, ones, ones, ones)
    both = position[:, :1].square() + position[:, 1:2]
    assert _other_half(both, shown).abs().amax() < 1e-3
    spot = torch.zeros_like(both)
    spot[..., 20:28, 10:18] = 1.0
    assert torch.allclose(_other_half(spot, shown), spot - spot.flip(-1), atol=1e-3)


def test_a_mask_is_read_where_it_lies_in_the_plate():
    crop = FaceCrop(torch.tensor([[[0.5, 0.0, -10.0], [0.0, 0.5, -10.0]]]), 40)  # plate 20..100
    values = torch.zeros(1, 20, 20)
    values[:, :, 10:] = 1.0
    read = FaceMask(crop, values).at(torch.tensor([[[40.0, 50.0], [80.0, 50.0], [300.0, 50.0]]]))
    assert read[0].tolist() == [0.0, 1.0, 0.0]


def test_drawn_occluders_are_told_from_shadows():
    """The mask of a drawing says where it hides the picture: elsewhere only shadow, light and make-up change it."""
    size, draw = 64, torch.Generator().manual_seed(3)
    position = torch.stack([*((pixel_grid(size, size, torch.zeros(1)) / size - 0.5) * torch.tensor([2.0, -2.0])).unbind(-1)])
    scene = Scene(
        torch.full((3, size, size), 0.3), torch.rand(3, size, size), torch.cat([position, 0 * position[:1]]), torch.ones(size, size)
    )
    shares = []
    for _ in range(40):
        picture, mask = occlude(scene, draw)
        assert picture.isfinite().all()
        assert 0 <= mask.min() <= mask.max() <= 1 + 1e-5
        shares.append(float(mask.mean()))
    assert 2 <= sum(share == 0 for share in shares) <= 16  # some faces stay bare
    assert 0.02 < sum(shares) / len(shares) < 0.6
