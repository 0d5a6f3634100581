"""The embedded head: symmetry, identity modes, correctives, landmarks."""

import pytest
import torch

from dynamicface.conventions import ARKIT_NAMES, LANDMARKS, PARTS
from dynamicface.errors import WeightsError
from dynamicface.prior.head import HeadModel, save_head
from dynamicface.prior.lids import CLEARANCE
from dynamicface.prior.raster import rasterise
from dynamicface.weights import FOLDER

FLIP = torch.tensor([-1.0, 1.0, 1.0])
MM = 1e-3


@pytest.fixture(scope="module")
def head() -> HeadModel:
    return HeadModel.load()


@pytest.fixture(scope="module")
def people(head: HeadModel) -> torch.Tensor:
    """(12, S) the mean and eleven random people."""
    generator = torch.Generator().manual_seed(3)
    shape = torch.randn(12, len(head.shape_basis), generator=generator)
    shape[0] = 0
    return shape


def state(head: HeadModel, **values: float) -> torch.Tensor:
    """(52,) expression; a name without its side sets both."""
    out = torch.zeros(len(head.expression_names))
    for name, value in values.items():
        chosen = [i for i, full in enumerate(head.expression_names) if full in (name, f"{name}Left", f"{name}Right")]
        assert chosen, name
        out[chosen] = value
    return out


def ids_of(head: HeadModel, *parts: str) -> torch.Tensor:
    chosen = torch.isin(head.part, torch.tensor([PARTS.index(p) for p in parts]))
    return head.faces[chosen].unique()


def test_names_shapes_and_finiteness(head):
    assert head.expression_names == ARKIT_NAMES
    assert head.licence == "CC0-1.0"
    for name, value in vars(head).items():
        if isinstance(value, torch.Tensor) and value.is_floating_point():
            assert torch.isfinite(value).all(), name
    assert head.landmark_index.shape == (LANDMARKS, 3)
    assert int(head.faces.max()) == len(head.template) - 1
    assert set(head.part.unique().tolist()) >= {PARTS.index(p) for p in PARTS if p != "lashes"}
    assert head.uv.min() >= 0 and head.uv.max() <= 1


def test_origin_is_between_the_eyes_and_size_is_human(head):
    assert head.eye_centre.mean(0).abs().max() < 1e-5
    assert head.eye_centre[0, 0] > 0  # the character's left is the viewer's right
    assert float((head.eye_centre[0] - head.eye_centre[1]).norm()) == pytest.approx(0.063, abs=1e-3)
    points = head.landmarks(head.template)
    assert float((points[168] - points[152]).norm()) == pytest.approx(0.116, abs=0.012)  # sellion to chin


def test_mirror_is_exact(head):
    mirror = head.vertex_mirror
    assert torch.equal(mirror[mirror], torch.arange(len(mirror)))
    assert (head.template[mirror] * FLIP - head.template).abs().max() < 1e-7
    flipped = head.shape_basis[:, mirror] * FLIP
    scale = head.shape_basis.abs().amax((1, 2))
    symmetric = (flipped - head.shape_basis).abs().amax((1, 2)) < 2e-3 * scale
    antisymmetric = (flipped + head.shape_basis).abs().amax((1, 2)) < 2e-3 * scale
    assert (symmetric ^ antisymmetric).all()
    assert antisymmetric.sum() >= 8
    swap = [ARKIT_NAMES.index(n.replace("Left", "#").replace("Right", "Left").replace("#", "Right")) for n in ARKIT_NAMES]
    assert (head.expression_basis[swap][:, mirror] * FLIP - head.expression_basis).abs().max() < 1e-5


def test_triangles_are_mirror_images_of_each_other(head):
    def rolled(faces):
        return torch.stack([f.roll(-int(f.argmin())) for f in faces])

    own = {tuple(f) for f in rolled(head.faces).tolist()}
    twins = {tuple(f) for f in rolled(head.vertex_mirror[head.faces].flip(1)).tolist()}
    assert own == twins


def test_a_mirrored_expression_gives_the_mirrored_face(head):
    left = head.vertices(torch.zeros(len(head.shape_basis)), state(head, eyeBlinkLeft=0.7, mouthSmileLeft=0.5, jawLeft=0.3))
    right = head.vertices(torch.zeros(len(head.shape_basis)), state(head, eyeBlinkRight=0.7, mouthSmileRight=0.5, jawRight=0.3))
    assert (left[head.vertex_mirror] * FLIP - right).abs().max() < 1e-5


def test_modes_are_orthogonal_and_fall_in_variance(head):
    weight = 0.15 + 0.85 * head.face_region
    flat = (head.shape_basis * weight.sqrt()[:, None]).flatten(1)
    gram = flat @ flat.T
    size = gram.diagonal().sqrt()
    cosine = gram / size[:, None] / size
    assert (cosine - torch.eye(len(size))).abs().max() < 0.02
    assert (size[1:] <= size[:-1] * 1.01).all()


def test_unit_coefficients_vary_like_people(head):
    """Mean deviation over the face of a person drawn with unit variance; scanned adults aligned by a similarity vary by about 3 mm."""
    face = head.face_region > 0.5
    spread = head.shape_basis[:, face].square().sum((0, 2)).sqrt().mean()
    assert 2.0 * MM < spread < 4.0 * MM


def test_neutral_is_exactly_the_template(head):
    out = head.vertices(torch.zeros(len(head.shape_basis)), torch.zeros(52), torch.zeros(2, 2))
    assert (out - head.template).abs().max() < 1e-7


def test_batch_equals_single_and_broadcasts(head, people):
    generator = torch.Generator().manual_seed(0)
    expression, gaze = torch.rand(4, 52, generator=generator), torch.randn(4, 2, 2, generator=generator) * 0.2
    together = head.vertices(people[:4], expression, gaze)
    alone = torch.stack([head.vertices(s, e, g) for s, e, g in zip(people[:4], expression, gaze, strict=True)])
    assert (together - alone).abs().max() < 1e-6
    shared = head.vertices(people[1:2], expression, gaze)
    assert (shared - head.vertices(people[1:2].expand(4, -1), expression, gaze)).abs().max() < 1e-6
    assert (head.landmarks(together)[2] - head.landmarks(alone[2])).abs().max() < 1e-6


def test_gradients_flow(head):
    shape, expression = torch.zeros(len(head.shape_basis)).requires_grad_(), torch.full((52,), 0.3).requires_grad_()
    head.landmarks(head.vertices(shape, expression, torch.zeros(2, 2))).square().sum().backward()
    assert torch.isfinite(shape.grad).all() and torch.isfinite(expression.grad).all()
    assert (shape.grad != 0).any() and (expression.grad != 0).any()


def test_dtype_moves_with_the_model(head):
    double = head.to(dtype=torch.float64)
    out = double.vertices(torch.zeros(len(head.shape_basis), dtype=torch.float64), state(head, eyeBlink=1.0).double())
    assert out.dtype == torch.float64 and double.faces.dtype == torch.int64


@pytest.mark.parametrize("blink", [i / 10 for i in range(11)])
def test_lids_never_enter_the_eyeball(head, people, blink):
    for extra in ({}, {"eyeSquint": 1.0}, {"eyeLookDown": 1.0}, {"eyeWide": 1.0}):
        out = head.vertices(people, state(head, **extra) + state(head, eyeBlink=blink))
        centre, radius = head.eyes(people)
        for eye, lids in enumerate(head.lids):
            distance = (out[:, lids.shell] - centre[:, None, eye]).norm(dim=-1) / radius[:, None, eye]
            assert distance.min() > CLEARANCE - 1e-3


def test_a_full_blink_closes_every_eye(head, people):
    for extra in ({}, {"eyeSquint": 1.0}, {"eyeLookDown": 0.5}, {"eyeWide": 0.4}, {"browDown": 1.0}):
        out = head.vertices(people, state(head, **extra) + state(head, eyeBlink=1.0))
        for lids in head.lids:
            assert lids.gap(out).norm(dim=-1).max() < 1.0 * MM
    opened = head.vertices(people, state(head))
    assert all(lids.gap(opened).norm(dim=-1).amax(-1).min() > 4 * MM for lids in head.lids)


def test_lids_never_cross(head, people):
    for blink in (0.0, 0.5, 1.0, 1.5):
        out = head.vertices(people, state(head, eyeBlink=blink, eyeSquint=1.0))
        for lids in head.lids:
            assert lids.gap(out)[..., 1].max() < 0.7 * MM


def test_no_eyeball_shows_in_a_full_blink(head, people):
    out = head.vertices(people[:4], state(head, eyeBlink=1.0))
    screen = torch.stack([out[..., 0] * 2500 + 200, -out[..., 1] * 2500 + 60, 10 - out[..., 2]], -1)
    raster = rasterise(screen, head.faces, (120, 400))
    part = head.part[raster.face.clamp_min(0)]
    shown = torch.isin(part, torch.tensor([PARTS.index("eye_left"), PARTS.index("eye_right")])).sum((1, 2))
    assert shown.max() <= 12  # an open eye covers about 1500 of these pixels


def test_mouth_close_needs_an_open_jaw(head):
    zero = torch.zeros(len(head.shape_basis))
    assert torch.equal(head.vertices(zero, state(head, mouthClose=1.0)), head.vertices(zero, state(head)))
    partly = head.vertices(zero, state(head, jawOpen=0.3, mouthClose=1.0))
    assert torch.equal(partly, head.vertices(zero, state(head, jawOpen=0.3, mouthClose=0.3)))
    lips = ids_of(head, "lips")
    opened = head.vertices(zero, state(head, jawOpen=0.3))
    assert (partly - opened)[lips].norm(dim=-1).max() > 3 * MM


def test_closed_lips_stay_closed_on_every_face(head, people):
    for expression in ({}, {"mouthSmile": 1.0}, {"mouthPress": 1.0}, {"mouthLeft": 1.0}, {"jawOpen": 0.6, "mouthClose": 0.6}):
        out = head.vertices(people[:6], state(head, **expression))
        screen = torch.stack([out[..., 0] * 2500 + 200, -(out[..., 1] + 0.02) * 2500, 10 - out[..., 2]], -1)
        part = head.part[rasterise(screen, head.faces, (300, 400)).face.clamp_min(0)]
        assert (part == PARTS.index("teeth")).sum((1, 2)).max() <= 12


def test_upper_teeth_stay_and_lower_teeth_follow_the_jaw(head):
    zero, teeth = torch.zeros(len(head.shape_basis)), ids_of(head, "teeth")
    rest = head.vertices(zero, state(head))
    moved = (head.vertices(zero, state(head, jawOpen=1.0)) - rest)[teeth]
    still = moved.norm(dim=-1) == 0
    assert 0.4 < still.float().mean() < 0.6
    assert moved[~still][:, 1].max() < -5 * MM
    smiled = (head.vertices(zero, state(head, mouthSmile=1.0, mouthPucker=1.0)) - rest)[teeth]
    assert smiled.abs().max() == 0


def test_no_background_shows_through_an_open_mouth(head, people):
    out = head.vertices(people[:4], state(head, jawOpen=1.0))
    screen = torch.stack([out[..., 0] * 1500 + 200, -(out[..., 1] + 0.02) * 1500, 10 - out[..., 2]], -1)
    face = rasterise(screen, head.faces, (160, 400)).face
    part = torch.where(face < 0, -1, head.part[face.clamp_min(0)])
    inside = torch.isin(part, torch.tensor([PARTS.index(p) for p in ("inner_mouth", "teeth", "tongue")]))
    assert (inside.sum((1, 2)) > 300).all()
    for picture, mouth in zip(part, inside, strict=True):
        row, column = torch.nonzero(mouth, as_tuple=True)
        assert (picture[row.min() : row.max() + 1, column.min() : column.max() + 1] >= 0).all()


def test_gaze_turns_the_eyeballs_only(head, people):
    gaze = torch.tensor([[0.3, -0.2], [0.3, 0.1]])
    still, turned = head.vertices(people[1], torch.zeros(52)), head.vertices(people[1], torch.zeros(52), gaze)
    moved = torch.nonzero((still - turned).abs().amax(-1) > 0).squeeze(1)
    eyes = torch.cat(head.eye_vertices)
    assert torch.isin(moved, eyes).all() and len(moved) > 0.9 * len(eyes)
    centre, radius = head.eyes(people[1])
    for eye, ids in enumerate(head.eye_vertices):
        assert ((turned[ids] - centre[eye]).norm(dim=-1) / radius[eye] - 1).abs().max() < 2e-3


def test_gaze_signs(head):
    """Positive yaw looks to the viewer's right, positive pitch up."""
    zero = torch.zeros(len(head.shape_basis))
    pupil = [473, 468]
    rest = head.landmarks(head.vertices(zero, torch.zeros(52)))[pupil]
    assert (head.landmarks(head.vertices(zero, torch.zeros(52), torch.tensor([[0.3, 0.0]] * 2)))[pupil] - rest)[:, 0].min() > 2 * MM
    assert (head.landmarks(head.vertices(zero, torch.zeros(52), torch.tensor([[0.0, 0.3]] * 2)))[pupil] - rest)[:, 1].min() > 2 * MM


def test_landmarks_lie_in_triangles_and_mirror(head):
    assert (head.landmark_weight >= 0).all()
    assert (head.landmark_weight.sum(1) - 1).abs().max() < 1e-5
    triangles = {tuple(sorted(f)) for f in head.faces.tolist()}
    assert all(tuple(sorted(t)) in triangles for t in head.landmark_index.tolist())
    twin = head.landmark_mirror
    assert torch.equal(twin[twin], torch.arange(LANDMARKS))
    assert (twin[[33, 61, 13, 468]] == torch.tensor([263, 291, 13, 473])).all()
    points = head.landmarks(head.template)
    assert (points[twin] * FLIP - points).abs().max() < 1e-5
    assert (head.landmark_sigma > 0.3 * MM).all()
    assert (head.landmark_mirror[[80, 95, 82]] == torch.tensor([310, 324, 312])).all()  # inner lips are not mixed up


def test_landmarks_are_where_their_names_say(head):
    point = head.landmarks(head.template)
    assert point[1, 2] > point[:, 2].max() - 8 * MM  # nose tip
    assert point[152, 1] < point[17, 1] < point[14, 1] < point[0, 1] < point[1, 1]  # chin, lower lip, mouth, upper lip, nose
    opened = head.landmarks(head.vertices(torch.zeros(len(head.shape_basis)), state(head, jawOpen=0.6)))
    assert (point[13] - point[14]).norm() < 2 * MM and opened[13, 1] - opened[14, 1] > 8 * MM  # inner lips part
    assert point[159, 1] > point[145, 1]  # upper over lower lid
    assert point[33, 0] < point[133, 0] < 0 < point[362, 0] < point[263, 0]


def test_subdivided_keeps_the_face_and_its_interface(head, people):
    fine = head.subdivided()
    assert len(fine.faces) == 4 * len(head.faces)
    coarse, smooth = head.vertices(people[1], state(head, jawOpen=0.4)), fine.vertices(people[1], state(head, jawOpen=0.4))
    shift = (coarse - smooth[: len(coarse)]).norm(dim=-1)
    assert shift[head.face_region > 0.5].median() < 0.5 * MM
    assert ((head.landmarks(coarse) - fine.landmarks(smooth)).norm(dim=-1)).median() < 0.5 * MM
    assert (fine.landmark_weight >= -1e-6).all() and (fine.landmark_weight.sum(1) - 1).abs().max() < 1e-5
    mirror = fine.vertex_mirror
    assert (fine.template[mirror] * FLIP - fine.template).abs().max() < 1e-6
    closed = fine.vertices(people, state(head, eyeBlink=1.0))
    assert max(float(lids.gap(closed).norm(dim=-1).max()) for lids in fine.lids) < 1.0 * MM


def test_saved_head_reads_back(head, tmp_path):
    save_head(head, tmp_path / "head.safetensors")
    back = HeadModel.load(tmp_path / "head.safetensors")
    assert torch.equal(back.template, head.template) and torch.equal(back.shape_basis, head.shape_basis)
    assert (back.albedo - head.albedo).abs().max() < 1e-6
    assert torch.equal(back.lids[1].follow, head.lids[1].follow)


def test_the_same_head_gives_the_same_bytes(head, tmp_path):
    save_head(head, tmp_path / "head.safetensors")
    assert (tmp_path / "head.safetensors").read_bytes() == (FOLDER / "head.safetensors").read_bytes()


def test_bad_files_are_refused_with_a_sentence(tmp_path):
    broken = tmp_path / "head.safetensors"
    broken.write_bytes(b"not a head")
    with pytest.raises(WeightsError, match="cannot be read"):
        HeadModel.load(broken)
    from safetensors.torch import save_file

    save_file({"x": torch.zeros(1)}, broken)
    with pytest.raises(WeightsError, match="not a head model"):
        HeadModel.load(broken)
    with pytest.raises(WeightsError):
        HeadModel.load(tmp_path / "missing.safetensors")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_matches_cpu(head, people):
    gpu = head.to("cuda")
    out = gpu.vertices(people.cuda(), state(head, eyeBlink=0.6, jawOpen=0.3).cuda(), torch.zeros(2, 2).cuda()).cpu()
    assert (out - head.vertices(people, state(head, eyeBlink=0.6, jawOpen=0.3), torch.zeros(2, 2))).abs().max() < 1e-5
