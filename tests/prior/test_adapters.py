"""Foreign head models, written as tiny files with the true keys, layouts and units."""

import pickle

import numpy as np
import pytest
import torch

from dynamicface.conventions import ARKIT_NAMES, LANDMARKS, PARTS
from dynamicface.errors import WeightsError
from dynamicface.prior.adapters import (
    build_head,
    find_eyeballs,
    landmark_file,
    load_foreign,
    read_bfm_mat,
    save_landmarks,
    with_landmarks,
)
from dynamicface.prior.embed import place_landmarks
from dynamicface.prior.head import HeadModel

RNG = np.random.default_rng(0)
EYES = np.array([[0.032, 0.01, 0.07], [-0.032, 0.01, 0.07]])  # metres, [left, right]; the origin is not between them on purpose


def ball(rings: int, sectors: int, size, centre) -> tuple[np.ndarray, np.ndarray]:
    """Closed sphere: vertices and outward triangles."""
    polar, turn = np.linspace(0, np.pi, rings + 2)[1:-1], np.arange(sectors) * 2 * np.pi / sectors
    p, t = np.meshgrid(polar, turn, indexing="ij")
    middle = np.stack([np.sin(p) * np.sin(t), np.cos(p), np.sin(p) * np.cos(t)], -1).reshape(-1, 3)
    points = np.concatenate([[[0, 1, 0]], middle, [[0, -1, 0]]]) * size + centre
    faces, last = [], len(points) - 1
    for j in range(sectors):
        k = (j + 1) % sectors
        faces += [(0, 1 + j, 1 + k), (last, last - sectors + k, last - sectors + j)]
        for r in range(rings - 1):
            a, b = 1 + r * sectors, 1 + (r + 1) * sectors
            faces += [(a + j, b + j, b + k), (a + j, b + k, a + k)]
    return points, np.array(faces)


def tiny_head(eyes: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """A head-sized ellipsoid, with or without eyeballs, metres."""
    pieces = [ball(7, 16, np.array([0.075, 0.12, 0.095]), np.zeros(3))]
    if eyes:
        pieces += [ball(5, 10, 0.012, centre) for centre in EYES]
    points, faces, count = [], [], 0
    for p, f in pieces:
        points.append(p)
        faces.append(f + count)
        count += len(p)
    return np.concatenate(points), np.concatenate(faces)


def write_landmarks(path) -> None:
    """A landmark file for the model at path; the places do not matter here."""
    head = load_foreign(path, landmarks=False)
    embedded = HeadModel.load()
    save_landmarks(place_landmarks(head, embedded.landmarks(embedded.template)[:468], embedded.landmark_sigma[:468]), landmark_file(path))


def write_flame(path, **changes) -> tuple[np.ndarray, np.ndarray]:
    points, faces = tiny_head()
    weights = np.zeros((len(points), 5))
    weights[:, 1] = 1
    low = points[:, 1] < -0.05
    weights[low, 2], weights[low, 1] = 1, 0
    regressor = np.zeros((5, len(points)))
    regressor[:, :114] = 1 / 114  # every joint in the middle of the ellipsoid
    data = {
        "v_template": points,
        "f": faces.astype(np.uint32),
        "shapedirs": RNG.normal(0, 1e-3, (len(points), 3, 400)),
        "weights": weights,
        "J_regressor": regressor,
        "kintree_table": np.zeros((2, 5)),
    } | changes
    np.savez(path, **{k: v for k, v in data.items() if v is not None})
    return points, faces


def test_flame(tmp_path):
    path = tmp_path / "flame2023_open.npz"
    points, _ = write_flame(path)
    write_landmarks(path)
    head = HeadModel.load(path)
    assert head.name == "FLAME" and head.metric
    assert head.shape_basis.shape == (300, len(points), 3)
    assert head.expression_names[:2] == ("flame000", "flame001") and head.expression_names[-3:] == ("jawOpen", "jawLeft", "jawRight")
    assert len(head.expression_basis) == 103
    assert head.eye_centre.mean(0).abs().max() < 1e-4
    assert (head.eye_centre[0] - head.eye_centre[1]).norm().item() == pytest.approx(0.064, rel=1e-3)
    assert head.eye_centre[0, 0] > 0 and head.eye_radius.numpy() == pytest.approx([0.012, 0.012], rel=1e-3)
    opened = head.vertices(torch.zeros(300), torch.tensor([0.0] * 100 + [1.0, 0.0, 0.0])) - head.template
    low = torch.from_numpy(points[:, 1] < -0.05)
    low[torch.cat(head.eye_vertices)] = False
    front = low & (head.template[:, 2] > head.template[low, 2].median())
    assert opened[front, 1].mean() < -0.002 and opened[~low].abs().max() == 0
    assert set(head.part.unique().tolist()) == {PARTS.index(p) for p in ("skin", "eye_left", "eye_right")}


def test_flame_behaves_like_any_head(tmp_path):
    path = tmp_path / "flame.npz"
    write_flame(path, weights=None, J_regressor=None)
    write_landmarks(path)
    head = HeadModel.load(path)
    assert len(head.expression_names) == 100
    shape, expression, gaze = torch.randn(3, 300) * 0.1, torch.randn(3, 100) * 0.1, torch.tensor([[0.2, 0.0], [0.2, 0.1]])
    out = head.vertices(shape, expression, gaze)
    assert head.landmarks(out).shape == (3, LANDMARKS, 3)
    moved = (head.vertices(shape, expression) - out).abs().amax((0, 2)) > 1e-6
    assert torch.isin(torch.nonzero(moved).squeeze(1), torch.cat(head.eye_vertices)).all() and moved.any()
    assert head.uv.min() >= 0 and head.uv.max() <= 1 and torch.isfinite(head.albedo).all()
    assert 0.05 < head.face_region.mean() < 1
    assert len(head.subdivided().template) > len(head.template)


def test_flame_pickle_is_refused_unopened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "generic_model.pkl"
    path.write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(WeightsError, match=r"refused.*np\.savez"):
        HeadModel.load(path)
    np.savez(tmp_path / "objects.npz", v_template=np.array([Bomb()], dtype=object))
    with pytest.raises(WeightsError, match="pickled objects"):
        load_foreign(tmp_path / "objects.npz")
    assert not (tmp_path / "ran").exists()


def test_missing_keys_and_files_are_named(tmp_path):
    path = tmp_path / "flame.npz"
    write_flame(path, shapedirs=None)
    with pytest.raises(WeightsError, match="lacks shapedirs"):
        load_foreign(path)
    write_flame(path, shapedirs=np.zeros((5, 3, 400)))
    with pytest.raises(WeightsError, match="shapedirs is"):
        load_foreign(path)
    with pytest.raises(WeightsError, match="There is no head model"):
        load_foreign(tmp_path / "none.npz")
    (tmp_path / "head.txt").write_text("")
    with pytest.raises(WeightsError, match="not a known head model"):
        load_foreign(tmp_path / "head.txt")
    (tmp_path / "folder").mkdir()
    with pytest.raises(WeightsError, match="FaceXModel"):
        load_foreign(tmp_path / "folder")
    (tmp_path / "broken.npz").write_bytes(b"PK\x03\x04 cut short")
    with pytest.raises(WeightsError, match="cannot be read"):
        load_foreign(tmp_path / "broken.npz")


def test_landmarks_must_have_been_found(tmp_path):
    path = tmp_path / "flame.npz"
    write_flame(path)
    with pytest.raises(WeightsError, match=r"tools/embed_landmarks\.py --head flame\.npz"):
        HeadModel.load(path)
    write_landmarks(path)
    smaller = build_head(read_bfm_mat(write_bfm_front(tmp_path)))
    with pytest.raises(WeightsError, match="does not belong"):
        with_landmarks(smaller, landmark_file(path))


def write_bfm_front(folder):
    scipy_io = pytest.importorskip("scipy.io")
    points, faces = tiny_head(eyes=False)
    path = folder / "BFM_model_front.mat"
    data = {
        "meanshape": points.reshape(1, -1) * 10,
        "meantex": np.tile([200.0, 150.0, 120.0], len(points))[None],
        "idBase": RNG.normal(0, 0.02, (points.size, 80)),
        "exBase": RNG.normal(0, 0.02, (points.size, 64)),
        "texBase": np.zeros((points.size, 80)),
        "tri": faces[:, ::-1] + 1,  # wound the other way, counted from one
    }
    scipy_io.savemat(path, data)
    return path


def test_bfm_of_deep3d(tmp_path):
    path = write_bfm_front(tmp_path)
    write_landmarks(path)
    head = HeadModel.load(path)
    assert (len(head.shape_basis), len(head.expression_names)) == (80, 64)
    size = head.template.amax(0) - head.template.amin(0)
    assert size[1].item() == pytest.approx(0.24, rel=1e-3)  # decimetres became metres
    corner = head.template[head.faces]
    normal = torch.linalg.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    assert ((normal * (corner.mean(1) - head.template.mean(0))).sum(-1) > 0).all()  # outward again
    skin = head.albedo[:, 100, 256]
    assert skin[0] > skin[1] > skin[2]
    assert all(len(ids) == 0 for ids in head.eye_vertices)
    assert head.vertices(torch.zeros(2, 80), torch.zeros(2, 64), torch.ones(2, 2, 2)).shape == (2, len(head.template), 3)


def test_bfm_2009(tmp_path):
    scipy_io = pytest.importorskip("scipy.io")
    points, faces = tiny_head(eyes=False)
    path = tmp_path / "01_MorphableModel.mat"
    deviation = np.linspace(9e5, 1e4, 199)[:, None]
    axes = RNG.normal(0, 1e-3, (points.size, 199))
    tone = np.full((points.size, 1), 128.0)
    scipy_io.savemat(path, {"shapeMU": points.reshape(-1, 1) * 1e6, "shapePC": axes, "shapeEV": deviation, "texMU": tone, "tl": faces + 1})
    head = load_foreign(path, landmarks=False)
    assert len(head.shape_basis) == 199 and head.expression_names == ()
    assert head.shape_basis[0].flatten().numpy() == pytest.approx(axes[:, 0] * deviation[0] * 1e-6, abs=1e-6)
    assert head.vertices(torch.zeros(199), torch.zeros(0)).shape == head.template.shape


def test_bfm_2019_h5(tmp_path):
    h5py = pytest.importorskip("h5py")
    points, faces = tiny_head(eyes=False)
    path = tmp_path / "model2019_fullHead.h5"
    axes, variance = RNG.normal(0, 1, (points.size, 199)), np.linspace(9, 0.1, 199)
    with h5py.File(path, "w") as file:
        for group, mean, count in (("shape", points.reshape(-1) * 1e3, 199), ("expression", np.zeros(points.size), 100)):
            file[f"{group}/model/mean"] = mean
            file[f"{group}/model/pcaBasis"] = axes[:, :count]
            file[f"{group}/model/pcaVariance"] = variance[:count]
        file["color/model/mean"] = np.full(points.size, 0.5)
        file["shape/representer/cells"] = faces.T
    head = load_foreign(path, landmarks=False)
    assert (len(head.shape_basis), len(head.expression_names)) == (199, 100)
    assert head.shape_basis[0].flatten().numpy() == pytest.approx(axes[:, 0] * 3e-3, abs=1e-6)
    with h5py.File(path, "a") as file:
        del file["shape/representer/cells"]
    with pytest.raises(WeightsError, match="shape/representer/cells is missing"):
        load_foreign(path)


def test_ict_facekit(tmp_path):
    points, faces = tiny_head()
    folder = tmp_path / "FaceXModel"
    folder.mkdir()

    def write(name: str, delta: float, axis: int = 1) -> None:
        moved = points.copy()
        moved[:, axis] += delta
        lines = [f"v {x:.6f} {y:.6f} {z:.6f}" for x, y, z in moved * 100] + [f"f {a + 1}/1/1 {b + 1}/2/2 {c + 1}/3/3" for a, b, c in faces]
        (folder / f"{name}.obj").write_text("\n".join(lines))

    write("generic_neutral_mesh", 0)
    for i in range(3):
        write(f"identity{i:03d}", 1e-3 * (i + 1), 0)
    for name, delta in (("eyeBlink_L", 1e-3), ("browInnerUp_L", 2e-3), ("browInnerUp_R", 3e-3), ("jawOpen", -5e-3), ("mouthLeft", 4e-3)):
        write(name, delta)
    write_landmarks(folder)
    head = HeadModel.load(folder)
    assert head.expression_names == ARKIT_NAMES and len(head.shape_basis) == 3
    skin = 0  # a vertex of the head, not of an eye
    moves = dict(zip(ARKIT_NAMES, head.expression_basis[:, skin, 1].tolist(), strict=True))
    assert moves["eyeBlinkLeft"] == pytest.approx(1e-3, abs=1e-5) and moves["eyeBlinkRight"] == 0
    assert moves["browInnerUp"] == pytest.approx(5e-3, abs=1e-5)
    assert moves["jawOpen"] == pytest.approx(-5e-3, abs=1e-5) and moves["mouthLeft"] == pytest.approx(4e-3, abs=1e-5)
    assert head.expression_basis[:, torch.cat(head.eye_vertices)].abs().max() == 0
    assert head.shape_basis[2, skin, 0].item() == pytest.approx(3e-3, abs=1e-5)


def test_eyeballs_are_found_by_shape():
    points, faces = (torch.from_numpy(x) for x in tiny_head())
    left, right = find_eyeballs(points, faces)
    assert (points[left].mean(0) - torch.from_numpy(EYES[0])).abs().max() < 1e-3
    assert (points[right].mean(0) - torch.from_numpy(EYES[1])).abs().max() < 1e-3
    bare = (torch.from_numpy(x) for x in tiny_head(eyes=False))
    assert all(len(ids) == 0 for ids in find_eyeballs(*bare))
