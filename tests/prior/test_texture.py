"""Texture: what is painted on the head is read back from its picture, light and albedo come apart, gaps are filled from the other side."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from dynamicface.conventions import PARTS, srgb_to_linear
from dynamicface.filters import blur
from dynamicface.landmark_sets import FACE_OVAL
from dynamicface.prior import light, texture
from dynamicface.prior.camera import rotation_from_euler
from dynamicface.prior.geometry import face_crop, pose_head
from dynamicface.render import render_prior
from dynamicface.types import FacePrior, Identity

SIZE = 128
WHITE = 1 / 0.282095


@pytest.fixture(scope="module")
def painted(head) -> FacePrior:
    """The mean head with smooth random paint in even light, seen from the front and from either side."""
    random = torch.Generator().manual_seed(0)
    paint = blur(torch.rand(1, 3, SIZE, SIZE, generator=random), 6)[0]
    paint = 0.2 + 0.5 * (paint - paint.amin()) / (paint.amax() - paint.amin())
    illumination = torch.zeros(3, 9, 3)
    illumination[:, 0] = WHITE
    zero = torch.zeros(3)
    return FacePrior(
        identity=Identity(torch.zeros(len(head.shape_basis)), paint),
        expression=torch.zeros(3, 52),
        gaze=torch.zeros(3, 2, 2),
        rotation=rotation_from_euler(torch.tensor([0.0, 35.0, -35.0]), zero, zero),
        translation=torch.tensor([0.0, 0.0, -1.2]).expand(3, 3),
        focal=torch.full((3,), 1500.0),
        illumination=illumination,
        offset=torch.zeros(3, 478, 3),
        confidence=torch.ones(3),
        image_size=(600, 800),
    )


def read(prior: FacePrior, head, size: int = SIZE) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Radiance, weight and normals of the prior's own picture."""
    pictures = srgb_to_linear(render_prior(prior, head, 384)).permute(0, 3, 1, 2)
    posed = pose_head(prior, head, face_crop(prior, 384))
    return *texture.extract(pictures, posed, size), posed.normal


def on_face(weight: torch.Tensor, head, least: float = 0.8) -> torch.Tensor:
    """Texels of the face's skin that are seen well, away from its border."""
    table = texture.atlas(head, SIZE)
    skin = torch.zeros(SIZE * SIZE)
    skin[table.texel[table.part == PARTS.index("skin")]] = 1
    inner = -F.max_pool2d(-skin.view(1, 1, SIZE, SIZE), 5, 1, 2)
    return (weight > least) & (inner > 0) & (texture.head_region(head, SIZE)[None] > 0.9)


def test_paint_is_read_back_from_every_side(painted, head):
    radiance, weight, _ = read(painted, head)
    for view in range(3):
        seen = on_face(weight, head)[view].expand(3, -1, -1)
        assert seen.float().mean() > 0.05
        assert (radiance[view] - painted.identity.albedo)[seen].abs().mean() < 0.012
    left, right = weight[..., : SIZE // 2].mean((1, 2, 3)), weight[..., SIZE // 2 :].mean((1, 2, 3))
    assert right[2] > 1.2 * left[2] and left[1] > 1.2 * right[1], "a turned head hides its far side"


def test_what_is_outside_the_picture_has_no_weight(painted, head):
    posed = pose_head(painted, head, face_crop(painted.replace(translation=painted.translation + torch.tensor([0.12, 0.0, 0.0])), 128))
    _, weight = texture.extract(torch.ones(3, 3, 128, 128), posed, SIZE)
    table = texture.atlas(head, SIZE)
    x = table.scatter(table.gather(posed.screen[..., :1]))[:, 0]
    assert not weight[:, 0][x < 0].any() and weight[:, 0][x > 20].any()


def test_a_mask_keeps_texels_out(painted, head):
    posed = pose_head(painted, head, face_crop(painted, 128))
    _, weight = texture.extract(torch.ones(3, 3, 128, 128), posed, SIZE, mask=torch.zeros(3, 128, 128))
    assert not weight.any()


def test_light_and_albedo_come_apart(painted, head):
    """The mean head's own albedo under a lamp from the right: the lamp is found, and the albedo no longer shows it."""
    skin = head.albedo
    lamp = light.directional(50.0, 10.0, skin)[None, :, None].expand(1, 9, 3) * 0.8
    lamp = lamp + 0.3 * painted.illumination[:1]
    one = painted.replace(
        **{k: getattr(painted, k)[:1] for k in ("expression", "gaze", "rotation", "translation", "focal", "offset", "confidence")},
        illumination=lamp,
        identity=Identity(painted.identity.shape, skin),
    )
    radiance, weight, normal = read(one, head)
    albedo, _, found = texture.separate(radiance, weight, normal, head)
    assert light.key_direction(found)[0, 0] > 0.6, "from the viewer's right"
    truth = F.interpolate(skin[None], (SIZE, SIZE), mode="area")[0]
    seen = on_face(weight, head, 0.5)[0, 0]
    ratio = (albedo / truth).mean(0)
    left, right = seen.clone(), seen.clone()
    left[:, SIZE // 2 :], right[:, : SIZE // 2] = False, False
    lit = (radiance[0] / truth).mean(0)
    assert lit[right].mean() > 1.5 * lit[left].mean(), "the picture itself is lit from one side"
    assert 0.8 < ratio[right].mean() / ratio[left].mean() < 1.25


def test_known_albedo_gives_the_light(painted, head):
    lamp = light.directional(-40.0, 20.0, head.albedo)[None, :, None].expand(3, 9, 3) + 0.4 * painted.illumination
    lit = painted.replace(illumination=lamp, identity=Identity(painted.identity.shape, head.albedo))
    radiance, weight, normal = read(lit, head)
    found = texture.light_under(radiance, weight, normal, head.albedo, head)
    towards = F.normalize(torch.tensor([[[-0.6, 0.2, 0.7], [0.0, 0.0, 1.0], [-0.2, 0.4, 0.8]]]), dim=-1).expand(3, -1, -1)
    torch.testing.assert_close(light.shade(towards, found), light.shade(towards, lamp), atol=0.15, rtol=0.12)


def test_the_unseen_side_is_completed_from_the_other(painted, head):
    half = painted.identity.albedo
    mirrored = torch.cat([half[..., : SIZE // 2], half[..., : SIZE // 2].flip(-1)], -1)  # a symmetric face
    table = texture.atlas(head, SIZE)
    skin = torch.zeros(SIZE * SIZE, dtype=torch.bool)
    skin[table.texel[table.skin()]] = True
    skin = skin.view(1, 1, SIZE, SIZE)
    weight = skin.float()
    weight[..., SIZE // 2 :] = 0
    broken = torch.where(weight > 0, mirrored, 5.0)
    whole = texture.complete(broken, weight, skin)
    face = (texture.head_region(head, SIZE)[None] > 0.9) & skin
    assert (whole - mirrored).abs()[face.expand_as(whole)].mean() < 0.08
    assert whole[..., SIZE // 2 :].max() < 1.0


def test_where_the_other_side_fades_nothing_unseen_comes_through():
    """The seen side fades out downwards; of what is wrong on the unseen one nothing is left, not even a line."""
    skin = torch.ones(1, 1, SIZE, SIZE, dtype=torch.bool)
    weight = torch.linspace(1, 0, SIZE).view(1, 1, SIZE, 1).repeat(1, 1, 1, SIZE)
    weight[..., SIZE // 2 :] = 0
    broken = torch.where(torch.arange(SIZE) < SIZE // 2, 0.4, 5.0).expand(1, 3, SIZE, SIZE)
    assert texture.complete(broken, weight, skin).max() < 0.41


def test_teeth_are_the_heads_own_and_seen_skin_stays(painted, head):
    albedo = painted.identity.albedo
    whole = texture.finish_albedo(albedo, torch.ones(1, SIZE, SIZE), head)
    table = texture.atlas(head, SIZE)
    mean = F.interpolate(head.albedo[None], (SIZE, SIZE), mode="bilinear", align_corners=False)[0].flatten(1)
    teeth = table.texel[table.part == PARTS.index("teeth")]
    torch.testing.assert_close(whole.flatten(1)[:, teeth], mean[:, teeth])
    seen = on_face(torch.ones(1, 1, SIZE, SIZE), head)[0].expand(3, -1, -1)
    assert (whole - albedo)[seen].abs().mean() < 0.01


def test_hair_over_the_forehead_is_no_skin(fitted, head):
    """Dark strands painted over the upper part of an evenly lit face lose their weight, the cheeks keep theirs."""
    table = texture.atlas(head, SIZE)
    height = table.scatter(table.gather(head.template[None, :, 1:2]))
    region = texture.head_region(head, SIZE)[None]
    face = torch.full((1, 3, SIZE, SIZE), 0.4)
    fringe = (height > 0.045) & (region > 0.5)
    likely = texture.skin_likelihood(torch.where(fringe, 0.03, face), (region > 0.2).float(), head)
    cheeks = (height < -0.01) & (height > -0.06) & (region > 0.95)
    assert likely[fringe].mean() < 0.3 and likely[cheeks].mean() > 0.9


def test_a_lit_forehead_is_skin_and_a_hat_is_not(head):
    """Both are five times as bright as the cheeks; only the forehead has their colour."""
    table = texture.atlas(head, SIZE)
    height = table.scatter(table.gather(head.template[None, :, 1:2]))
    region = texture.head_region(head, SIZE)[None]
    skin = torch.tensor([0.2, 0.1, 0.06]).view(1, 3, 1, 1)
    forehead = (height > 0.045) & (region > 0.9)
    likely = [
        texture.skin_likelihood(torch.where(forehead, colour, skin), (region > 0.2).float(), head)[forehead].mean()
        for colour in (5 * skin, 5 * skin.flip(1))
    ]
    assert likely[0] > 0.9 and likely[1] < 0.3


def test_the_whole_face_reaches_the_jaw_and_leaves_ears_and_neck(head):
    face = texture.whole_face(head)
    ears, neck = (head.faces[head.part == PARTS.index(name)].unique() for name in ("ears", "neck"))
    assert face[ears].max() == 0 and face[neck].mean() < 0.1
    oval = head.landmarks(head.template)[list(FACE_OVAL)]
    jaw = oval[oval[:, 1] < -0.03] * torch.tensor([0.92, 0.97, 1.0])
    near = torch.cdist(jaw, head.template).argmin(1)
    assert face[near].min() > 0.5 and face.max() == 1


@pytest.mark.parametrize("colour", [(0.6, 0.4, 0.3), (0.12, 0.07, 0.05)])
def test_skin_tone_splits_brightness_between_skin_and_light(colour):
    radiance = torch.tensor(colour).expand(1, 50, 3)
    albedo, lamp = texture.skin_tone(radiance, torch.ones(1, 50))
    torch.testing.assert_close(albedo * lamp, torch.tensor([colour]))
    assert 0.5 < lamp.mean() < 2


def test_the_portraits_albedo_is_plausible_and_whole(fitted):
    albedo = fitted.identity.albedo
    assert albedo.shape == (3, 512, 512) and torch.isfinite(albedo).all() and albedo.min() >= 0 and albedo.max() <= 1.2
