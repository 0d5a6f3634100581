"""The prior path on a real portrait: exact where it must be, one attribute at a time, unclamped, and the dial reads back."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dynamicface.composite import Change, _smooth_edges, apply_change, compute_change, is_unchanged
from dynamicface.conventions import ARKIT_NAMES, linear_to_srgb, srgb_to_linear
from dynamicface.dials import DIALS
from dynamicface.edit import edit_expression, edit_identity, edit_light, edit_pose
from dynamicface.filters import sample
from dynamicface.images import sample_crops
from dynamicface.prior import light
from dynamicface.prior.camera import euler_from_rotation
from dynamicface.prior.estimate import select_frames
from dynamicface.prior.geometry import face_crop, pose_head
from dynamicface.types import FaceCrop, FacePrior, Filmed, Identity

WINDOW = 4  # frames the pipeline renders at once
SMILE = [ARKIT_NAMES.index(name) for name in ("mouthSmileLeft", "mouthSmileRight")]


def on(prior: FacePrior, plate: Tensor) -> FacePrior:
    """The prior with another plate behind it."""
    return prior.replace(background=Filmed(plate, prior.background.prior, prior.background.matte))


def clip(prior: FacePrior, frames: int) -> FacePrior:
    return select_frames(prior, torch.zeros(frames, dtype=torch.long))


@pytest.fixture(scope="module")
def smiles(pipeline, fitted) -> dict[float, tuple[Tensor, Tensor]]:
    """Picture and mask by the value of the smile dial."""
    return {v: pipeline.render(edit_expression(fitted, {"smile": v})) for v in (-1.0, -0.5, 0.0, 0.3, 0.6, 0.9)}


def test_neutral_is_exact_to_the_bit(pipeline, fitted, portrait):
    picture, mask = pipeline.render(fitted)
    assert torch.equal(picture, portrait) and not mask.any()
    same = fitted.replace(expression=fitted.expression.clone(), rotation=fitted.rotation.clone())
    assert is_unchanged(same) and torch.equal(pipeline.render(same)[0], portrait)


EDITS = {
    "expression": lambda p, head: edit_expression(p, {"laugh": 0.8}),
    "pose": lambda p, head: edit_pose(p, yaw=15.0, pitch=-5.0),
    "light": lambda p, head: edit_light(p, strength=1.0),
    "shape": lambda p, head: edit_identity(p, head, {"jaw_width": 0.8}),
    "skin": lambda p, head: p.replace(identity=Identity(p.identity.shape, p.identity.albedo.flip(0))),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS.keys())
def test_nothing_outside_the_mask_changes_and_inside_something_does(pipeline, fitted, portrait, edit):
    picture, mask = pipeline.render(edit(fitted, pipeline.head))
    outside = mask == 0
    assert torch.equal(picture[outside], portrait[outside])
    assert outside.float().mean() > 0.6, "the face is a small part of the picture"
    assert (picture - portrait)[mask > 0.5].abs().mean() > 2e-3
    assert torch.isfinite(picture).all() and mask.min() >= 0 and mask.max() <= 1


@pytest.mark.parametrize("frames", [1, WINDOW - 1, WINDOW, WINDOW + 1])
def test_as_many_frames_come_out_as_went_in(pipeline, fitted, portrait, frames):
    picture, mask = pipeline.render(edit_expression(clip(fitted, frames), {"smile": 0.7}), size=256)
    assert picture.shape == (frames, *portrait.shape[1:]) and mask.shape == picture.shape[:3]
    assert all(torch.allclose(picture[0], picture[f], atol=1e-5) for f in range(frames))


def test_values_beyond_the_display_survive_inside_and_outside(pipeline, fitted, portrait):
    """A linear plate's lights and undershoots: nothing is clamped, and the change is the same as on the ordinary plate."""
    plate = portrait.clone()
    x0, y0, x1, y1 = 200, 120, 240, 160  # a square over the middle of the face
    plate[:, y0:y1, x0 : (x0 + x1) // 2] = 4.0
    plate[:, y0:y1, (x0 + x1) // 2 : x1] = -0.5
    plate[:, :20] = 7.5
    picture, mask = pipeline.render(on(edit_expression(fitted, {"smile": 0.8}), plate))
    outside, inside = mask == 0, picture[mask > 0.9]
    assert torch.equal(picture[outside], plate[outside]) and plate[outside].max() == 7.5
    assert inside.max() > 3.5 and inside.min() < -0.4


def test_an_alpha_channel_is_carried(pipeline, fitted, portrait):
    plate = torch.cat([portrait, torch.rand(1, 512, 512, 1, generator=torch.Generator().manual_seed(0))], -1)
    picture, _ = pipeline.render(on(edit_expression(fitted, {"smile": 0.8}), plate))
    assert picture.shape == plate.shape and torch.equal(picture[..., 3], plate[..., 3])


def test_an_occluder_stays_as_filmed(pipeline, fitted, portrait):
    hand = torch.zeros(1, 512, 512)
    hand[:, :, 220:] = 1
    edited = edit_expression(fitted, {"laugh": 1.0})
    free, _ = pipeline.render(edited)
    held, mask = pipeline.render(edited, occlusion=hand)
    assert torch.equal(held[:, :, 220:], portrait[:, :, 220:]) and not mask[:, :, 220:].any()
    assert torch.equal(held[:, :, :219], free[:, :, :219])


def test_doubtful_frames_fade_to_the_plate(pipeline, fitted, portrait):
    three = clip(edit_expression(fitted, {"smile": 0.8}), 3).replace(confidence=torch.tensor([0.9, 0.15, 0.0]))
    picture, _ = pipeline.render(three)
    change = (picture - portrait).abs().flatten(1).mean(1)
    assert change[0] > 1.5 * change[1] > 0 and change[2] == 0


def test_strength_mixes_plate_and_change(pipeline, fitted, portrait):
    edited = edit_light(fitted, strength=1.0)
    change = compute_change(edited, pipeline.head, portrait)
    half, mask = apply_change(portrait, change, strength=0.5)
    full, _ = apply_change(portrait, change)
    torch.testing.assert_close(half, (portrait + full) / 2, atol=1e-5, rtol=0)
    assert mask.max() <= 0.5


def test_the_smile_dial_reads_back_monotonically(pipeline, smiles):
    """Tracked and fitted again as one person: the dial's own channels, and how high the corners of the mouth stand."""
    pictures = torch.cat([picture for picture, _ in smiles.values()])
    track = pipeline.track(pictures)
    weight = torch.zeros(len(ARKIT_NAMES))
    for sign, channels in ((1, DIALS["smile"].up), (-1, DIALS["smile"].down)):
        for name, amount in channels.items():
            weight[ARKIT_NAMES.index(name)] += sign * amount
    reading = pipeline.fit(pictures, track, texture_size=0).expression @ weight
    assert (reading.diff() > 0).all() and reading[-1] - reading[0] > 0.8, reading
    points = track.landmarks
    corners = (points[:, 0, 1] - points[:, [61, 291], 1].mean(1)) / (points[:, 33] - points[:, 263])[:, :2].norm(dim=-1)
    assert (corners.diff() > 0).all() and corners[-1] - corners[0] > 0.06, corners


def test_a_smile_moves_the_corners_of_the_mouth_up_and_outwards(pipeline, smiles, track):
    before, after = (pipeline.track(smiles[v][0]).landmarks[0] for v in (0.0, 0.9))
    eyes = (before[33, :2] - before[263, :2]).norm()
    assert (before[[61, 291], 1] - after[[61, 291], 1]).mean() / eyes > 0.02
    assert ((after[291, 0] - after[61, 0]) - (before[291, 0] - before[61, 0])) / eyes > 0.03
    assert (after[[33, 133, 362, 263, 1, 168], :2] - track.landmarks[0, [33, 133, 362, 263, 1, 168], :2]).norm(dim=-1).max() / eyes < 0.06


def test_an_expression_moves_alone(pipeline, fitted, smiles):
    """Pose within a degree, light and identity as they were."""
    again = pipeline.fit(torch.cat([smiles[0.0][0], smiles[0.9][0]]))
    angles = euler_from_rotation(again.rotation)
    assert (angles[1] - angles[0]).abs().max() < 1.0
    assert pipeline.track(smiles[0.9][0]).embedding @ fitted.identity.embedding > 0.8
    level = light.frontal_level(again.illumination) / light.frontal_level(fitted.illumination)
    assert (level - 1).abs().max() < 0.06


@pytest.mark.parametrize("yaw", [-15.0, 15.0])
def test_a_turn_moves_alone(pipeline, fitted, portrait, yaw):
    edited = edit_pose(fitted, yaw=yaw)
    turned, _ = pipeline.render(edited)
    again = pipeline.fit(torch.cat([portrait, turned]), texture_size=0)
    wanted = euler_from_rotation(torch.cat([fitted.rotation, edited.rotation])).diff(dim=0)[0]
    found = euler_from_rotation(again.rotation).diff(dim=0)[0]
    assert 0.75 < found[0] / wanted[0] < 1.25 and (found - wanted)[1:].abs().max() < 3.5, (found, wanted)
    face = pipeline.head.landmarks(pipeline.head.vertices(again.identity.shape[None], again.expression))
    assert face.diff(dim=0).norm(dim=-1).mean() < 2.5e-3, "the expression's own motion, metres"
    assert pipeline.track(turned).embedding @ fitted.identity.embedding > 0.7


def test_what_lies_between_two_surfaces_is_not_drawn_along_their_edge():
    size, scale = 64, 0.7
    picture = torch.full((1, 3, size, size), 0.2)
    picture[..., 36:48] = 0.9
    flow = torch.zeros(1, 2, size, size)
    flow[:, 0, :, 32:] = 20.0  # the right half shows what is beyond the bright bar
    matrix = torch.tensor([[[scale, 0.0, 0.0], [0.0, scale, 0.0]]])
    plate = linear_to_srgb(F.interpolate(picture, scale_factor=1 / scale, mode="bilinear")).permute(0, 2, 3, 1)
    edge, alpha = _smooth_edges(flow, picture)
    drawn = []
    for layer_alpha in (torch.zeros_like(alpha), alpha):
        change = Change(FaceCrop(matrix, size), flow, torch.ones(1, 3, size, size), edge, layer_alpha, torch.ones(1, 1, size, size))
        drawn.append(float(apply_change(plate, change)[0][0, 20:40, 30:60].max()))
    assert drawn[0] > 0.8 and abs(drawn[1] - float(plate.min())) < 0.02, drawn
    assert float(_smooth_edges(torch.zeros_like(flow), picture)[1].max()) == 0.0


def test_a_lamp_lights_its_own_side_and_moves_nothing(pipeline, fitted):
    lit = [pipeline.render(edit_light(fitted, azimuth=a, elevation=0.0, strength=0.9))[0] for a in (-70.0, 70.0)]
    crops = [srgb_to_linear(sample_crops(p, face_crop(fitted, 128).matrix, 128)).mean(1)[0] for p in lit]
    left, right = (crop[56:84, 40:60].mean() for crop in crops), (crop[56:84, 68:88].mean() for crop in crops)
    balance = [float(b / a) for a, b in zip(left, right, strict=True)]
    assert balance[1] > 1.5 * balance[0]
    landmarks = [pipeline.track(p).landmarks[0, :468, :2] for p in lit]
    eyes = (landmarks[0][33] - landmarks[0][263]).norm()
    assert (landmarks[0] - landmarks[1]).norm(dim=-1).mean() / eyes < 0.03


def test_blinking_closes_the_lids(pipeline, fitted):
    picture, _ = pipeline.render(edit_expression(fitted, {"blink_left": 1.0}))
    points = pipeline.track(picture).landmarks[0, :, :2]
    openness = [
        (points[a] - points[b]).norm() / (points[c] - points[d]).norm() for a, b, c, d in ((386, 374, 362, 263), (159, 145, 33, 133))
    ]
    assert openness[0] < 0.55 * openness[1], "the character's left eye closes, the right stays open"


def test_being_swapped_with_oneself_changes_little(pipeline, fitted, portrait):
    """The same face as another's: its own texture under its own light, but for the fringe, which is skin now."""
    who = fitted.identity
    twin = fitted.replace(identity=Identity(who.shape.clone(), who.albedo * 1.0001, who.albedo_weight, who.embedding))
    picture, mask = pipeline.render(twin)
    inside = mask > 0.5
    assert (picture - portrait)[inside].abs().mean() < 0.025
    assert pipeline.track(picture).embedding @ who.embedding > 0.88


@pytest.mark.parametrize("brightness", [0.3, 3.0])
def test_how_bright_the_source_was_does_not_show(pipeline, fitted, brightness):
    """The plate's tone is kept, and the source's own shines through nowhere: not inside, not along the soft edge."""
    who = fitted.identity
    twins = (fitted.replace(identity=Identity(who.shape.clone(), who.albedo * k, who.albedo_weight)) for k in (1.0001, brightness))
    (usual, mask), (other, _) = (pipeline.render(twin) for twin in twins)
    change = ((other - usual).mean(-1) * mask).abs()
    assert change[mask > 0.5].mean() < 0.015
    edge = (mask > 0.02) & (mask < 0.98)
    assert change[edge].mean() < 0.01


def test_another_identity_keeps_pose_and_expression(pipeline, fitted):
    random = torch.Generator().manual_seed(3)
    shape = 0.8 * torch.randn(fitted.identity.shape.shape, generator=random)
    other = Identity(shape, F.interpolate(pipeline.head.albedo[None], (512, 512), mode="bilinear", align_corners=False)[0])
    picture, _ = pipeline.render(fitted.replace(identity=other))
    again = pipeline.fit(picture)
    yaw, pitch, roll = (euler_from_rotation(again.rotation) - euler_from_rotation(fitted.rotation))[0].abs()
    assert max(yaw, roll) < 3.0 and pitch < 7.0, "pitch and the unknown face's shape look alike"
    assert (again.expression - fitted.expression)[0, SMILE].abs().mean() < 0.3
    assert again.identity.embedding @ fitted.identity.embedding < 0.75, "and it is no longer the same person"


def test_the_frames_of_a_batch_do_not_influence_each_other(pipeline, fitted):
    two = clip(fitted, 2)
    expression = torch.cat([edit_expression(fitted, d).expression for d in ({"smile": 1.0}, {"jaw_open": 1.0})])
    both, _ = pipeline.render(two.replace(expression=expression))
    alone, _ = pipeline.render(edit_expression(fitted, {"jaw_open": 1.0}))
    torch.testing.assert_close(both[1:], alone, atol=2e-3, rtol=0)


def test_a_smile_that_opens_shows_its_own_teeth_over_the_dark(pipeline, fitted, portrait):
    """A mouth that was open when filmed keeps its upper teeth where they are; below them is no stretched lip but the mouth's inside."""
    picture, _ = pipeline.render(edit_expression(fitted, {"jaw_open": 0.9}))
    crop = face_crop(fitted, 512)
    before, after = (pose_head(prior, pipeline.head, crop) for prior in (fitted, edit_expression(fitted, {"jaw_open": 0.9})))
    top, bottom = after.head.landmarks(after.screen)[0, [13, 14], :2]
    gap = torch.lerp(top, bottom, torch.tensor([0.5, 0.6, 0.7])[:, None])
    teeth = before.head.landmarks(before.screen)[0, [13, 14], :2].mean(0)
    plate, opened = (sample_crops(x, crop.matrix, crop.size).mean(1, keepdim=True) for x in (portrait, picture))
    assert float(sample(opened, gap[None]).max()) < 0.4 < 0.6 < float(sample(plate, teeth[None, None]))
