"""Exports, read back by independent programs: the same vertices, textures, animation and camera."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from dynamicface.conventions import ARKIT_NAMES, PARTS
from dynamicface.drive import Performance, drive_face, hold_still
from dynamicface.errors import DynamicFaceError
from dynamicface.io.gltf import save_glb
from dynamicface.io.obj import closed_head, save_closed_head, save_obj_sequence
from dynamicface.io.passes import save_passes
from dynamicface.io.pictures import read_image
from dynamicface.io.presets import apply_preset, shipped_presets
from dynamicface.passes import render_passes
from dynamicface.prior.camera import image_centre, rotation_from_euler, to_camera, to_screen
from dynamicface.prior.geometry import face_crop, pose_head
from dynamicface.rig import posed_vertices, rig_error, rig_of, rig_vertices

FRAMES = 5


@pytest.fixture(scope="module")
def shot(fitted):
    """Five frames from a neutral face to a wink, while eyes and head turn."""
    wink = apply_preset(fitted, shipped_presets()["wink_left"]).expression
    share = torch.linspace(0, 1, FRAMES)[:, None]
    turn = rotation_from_euler(20 * share[:, 0], -5 * share[:, 0], 9 * share[:, 0])
    gaze = (share * 0.3)[..., None].expand(FRAMES, 2, 2)
    return drive_face(fitted, Performance(share * wink, gaze, fitted.rotation @ turn), pose=1.0)


@pytest.fixture(scope="module")
def rig(shot, head):
    return rig_of(shot, head, fps=25.0)


# --- the rig ------------------------------------------------------------------------------------------------------------


def test_posed_vertices_are_the_renderers(shot, head):
    torch.testing.assert_close(posed_vertices(shot, head), pose_head(shot, head, face_crop(shot, 256)).camera)


def test_the_rig_plays_its_own_frames_exactly(rig, shot, head):
    assert rig.names[:52] == ARKIT_NAMES and 52 < len(rig.names) <= 60, "a wink bends the lids: correctives are needed"
    assert rig_error(rig, shot, head).max() < 1e-4


def test_channels_alone_and_neutral_need_no_correctives(fitted, head):
    alone = hold_still(fitted, 53).replace(expression=torch.cat([torch.zeros(1, 52), torch.eye(52)]))
    linear = rig_of(alone, head, correctives=0)
    error = rig_error(linear, alone, head).amax(1)
    closed = 1 + ARKIT_NAMES.index("mouthClose")
    assert error[closed] < 1e-5, "held back by the closed jaw"
    assert error.max() < 1e-5


def test_how_linear_the_presets_are(fitted, head):
    """The figures of docs/export.md: a rig animated by hand, without correctives."""
    bare = fitted.replace(expression=torch.zeros_like(fitted.expression))
    for name, preset in shipped_presets().items():
        posed = apply_preset(bare, preset)
        error = rig_error(rig_of(posed, head, correctives=0), posed, head)
        assert error.mean() < 1e-4 and error.max() < (3.5e-3 if name.startswith("wink") else 2e-3), name


# --- glTF ---------------------------------------------------------------------------------------------------------------


def accessor(gltf, index: int) -> np.ndarray:
    """An accessor's values by pygltflib's document."""
    a = gltf.accessors[index]
    view = gltf.bufferViews[a.bufferView]
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[a.type]
    kind = {5126: np.float32, 5125: np.uint32}[a.componentType]
    values = np.frombuffer(gltf.binary_blob(), kind, a.count * width, view.byteOffset)
    if a.max:
        table = values.reshape(-1, width)
        np.testing.assert_array_equal(table.max(0), np.float32(a.max)), np.testing.assert_array_equal(table.min(0), np.float32(a.min))
    return values.reshape(-1, width) if width > 1 else values


def matrix(quaternion) -> np.ndarray:
    """A rotation matrix by scipy."""
    return Rotation.from_quat(np.asarray(quaternion, np.float64)).as_matrix()


def test_a_glb_plays_the_shot(tmp_path, rig, shot, head):
    """Every frame of the animation, put together from what pygltflib reads, is the renderer's head."""
    pygltflib = pytest.importorskip("pygltflib")
    save_glb(rig, tmp_path / "new" / "a.glb")
    gltf = pygltflib.GLTF2().load(tmp_path / "new" / "a.glb")
    names = {node.name: k for k, node in enumerate(gltf.nodes)}
    assert gltf.meshes[0].extras["targetNames"] == list(rig.names)
    tracks = {}
    for channel in gltf.animations[0].channels:
        sampler = gltf.animations[0].samplers[channel.sampler]
        np.testing.assert_allclose(accessor(gltf, sampler.input), np.arange(FRAMES) / 25, atol=1e-6)
        tracks[gltf.nodes[channel.target.node].name, channel.target.path] = accessor(gltf, sampler.output)
    skin = gltf.meshes[0].primitives[0]
    base = accessor(gltf, skin.attributes.POSITION)
    targets = np.stack([accessor(gltf, target["POSITION"] if isinstance(target, dict) else target.POSITION) for target in skin.targets])
    weights = tracks["head", "weights"].reshape(FRAMES, -1)
    expected = posed_vertices(shot, head).numpy()
    for f in range(FRAMES):
        parts = [base + np.tensordot(weights[f], targets, 1)]
        for eye in ("eye_left", "eye_right"):
            node = gltf.nodes[names[eye]]
            local = accessor(gltf, gltf.meshes[node.mesh].primitives[0].attributes.POSITION)
            parts.append(local @ matrix(tracks[eye, "rotation"][f]).T + node.translation)
        world = np.concatenate(parts) @ matrix(tracks["head", "rotation"][f]).T + tracks["head", "translation"][f]
        origin = torch.cat([mesh.origin for mesh in (rig.skin, *rig.eyes)]).numpy()
        assert np.abs(world - expected[f, origin]).max() < 1e-4, f
    triangles = sum(len(accessor(gltf, mesh.primitives[0].indices)) for mesh in gltf.meshes) // 3
    assert triangles == len(head.faces)


def test_a_still_glb_stands_in_front_of_its_camera(tmp_path, fitted, head):
    """Trimesh builds the scene: the first frame's mesh in camera space, its texture, and a camera that sees the filmed landmarks."""
    trimesh = pytest.importorskip("trimesh")
    still = fitted.replace(expression=torch.zeros_like(fitted.expression))
    save_glb(rig_of(still, head), tmp_path / "a.glb")
    scene = trimesh.load_scene(tmp_path / "a.glb", process=False)
    rig = rig_of(still, head)
    expected = rig_vertices(rig)[0].numpy()
    meshes = {geometry: scene.graph.get(node) for node in scene.graph.nodes_geometry for geometry in [scene.graph[node][1]]}
    start = 0
    for name, mesh in (("head", rig.skin), *zip(("eye_left", "eye_right"), rig.eyes, strict=True)):
        found = trimesh.transform_points(scene.geometry[name].vertices, meshes[name][0])
        weights = rig.weights[0].numpy() if name == "head" else np.zeros(0)
        moved = found if not weights.any() else found + np.tensordot(weights, rig.targets.numpy(), 1) @ rig.rotation[0].numpy().T
        assert np.abs(moved - expected[start : start + len(mesh.points)]).max() < 1e-4
        assert len(scene.geometry[name].faces) == len(mesh.faces)
        start += len(mesh.points)
    texture = np.asarray(scene.geometry["head"].visual.material.baseColorTexture)
    assert np.abs(texture[..., :3] / 255 - rig.texture.numpy()).max() < 0.5 / 255 + 1e-6
    uv = scene.geometry["head"].visual.uv
    np.testing.assert_allclose(uv[:, 1], 1 - rig.skin.uv[:, 1].numpy(), atol=1e-6)  # trimesh turns v up
    height, width = fitted.image_size
    yfov = np.radians(scene.camera.fov[1])
    assert height / 2 / np.tan(yfov / 2) == pytest.approx(float(fitted.focal), rel=1e-4) and scene.camera.fov[0] == pytest.approx(
        2 * np.degrees(np.arctan(np.tan(yfov / 2) * width / height)), rel=1e-3
    )


# --- USD ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["usda", "usdc"])
def test_usd_plays_the_shot(tmp_path, rig, shot, head, ending):
    """USD's own skinning, at every frame, is the renderer's head; its camera projects as ours."""
    pytest.importorskip("pxr", reason="needs usd-core")
    from pxr import Gf, Usd, UsdGeom, UsdSkel

    from dynamicface.io.usd import save_usd

    save_usd(rig, tmp_path / f"a.{ending}")
    stage = Usd.Stage.Open(str(tmp_path / f"a.{ending}"))
    assert UsdGeom.GetStageMetersPerUnit(stage) == 1 and UsdGeom.GetStageUpAxis(stage) == "Y"
    assert (stage.GetStartTimeCode(), stage.GetEndTimeCode(), stage.GetTimeCodesPerSecond()) == (0, FRAMES - 1, 25)
    assert UsdSkel.BakeSkinning(UsdSkel.Root(stage.GetPrimAtPath("/face")), Gf.Interval(0, FRAMES - 1))
    expected = posed_vertices(shot, head).numpy()
    for f in range(FRAMES):
        cache = UsdGeom.XformCache(f)
        parts = []
        for name in ("head", "eye_left", "eye_right"):
            prim = UsdGeom.Mesh(stage.GetPrimAtPath(f"/face/{name}"))
            points = np.array(prim.GetPointsAttr().Get(f), np.float64)
            world = np.array(cache.GetLocalToWorldTransform(prim.GetPrim()))
            parts.append(points @ world[:3, :3] + world[3, :3])
        origin = torch.cat([mesh.origin for mesh in (rig.skin, *rig.eyes)]).numpy()
        assert np.abs(np.concatenate(parts) - expected[f, origin]).max() < 1e-4, f
    camera = UsdGeom.Camera(stage.GetPrimAtPath("/camera")).GetCamera(2)
    assert camera.focalLength / camera.horizontalAperture * shot.image_size[1] == pytest.approx(float(shot.focal[2]), rel=1e-5)
    assert (tmp_path / "a_albedo.png").is_file()


def test_usd_blend_shapes_carry_names_and_weights(tmp_path, rig):
    pytest.importorskip("pxr", reason="needs usd-core")
    from pxr import Usd, UsdSkel

    from dynamicface.io.usd import save_usd

    save_usd(rig, tmp_path / "a.usd")
    stage = Usd.Stage.Open(str(tmp_path / "a.usd"))
    animation = UsdSkel.Animation(stage.GetPrimAtPath("/face/skeleton/performance"))
    assert tuple(animation.GetBlendShapesAttr().Get()) == rig.names
    np.testing.assert_allclose(animation.GetBlendShapeWeightsAttr().Get(3), rig.weights[3].numpy(), atol=1e-6)
    with pytest.raises(DynamicFaceError, match="must end in"):
        save_usd(rig, tmp_path / "a.fbx")


# --- OBJ, STL -----------------------------------------------------------------------------------------------------------


def test_an_obj_sequence_is_the_shot(tmp_path, shot, head):
    trimesh = pytest.importorskip("trimesh")
    paths = save_obj_sequence(shot, head, tmp_path / "new", name="actor", unit="cm")
    assert [path.name for path in paths] == [f"actor.{f:04d}.obj" for f in range(FRAMES)]
    expected = posed_vertices(shot, head).numpy() * 100
    for frame in (0, FRAMES - 1):
        mesh = trimesh.load(paths[frame], process=False, maintain_order=True, force="mesh")
        found = np.asarray(mesh.vertices)
        nearest = np.linalg.norm(found[mesh.faces] - expected[frame][head.faces.numpy()], axis=-1)
        assert nearest.max() < 1e-3, "each corner of each triangle, in centimetres"
    picture = np.asarray(Image.open(tmp_path / "new" / "actor.png"))
    assert picture.shape == (*shot.identity.albedo.shape[1:], 3)


@pytest.mark.parametrize("ending", ["obj", "stl"])
def test_the_closed_head_is_watertight_and_of_the_stated_size(tmp_path, fitted, head, ending):
    trimesh = pytest.importorskip("trimesh")
    mesh = closed_head(fitted, head, ipd=61.5)
    save_closed_head(mesh, tmp_path / f"a.{ending}")
    found = trimesh.load(tmp_path / f"a.{ending}", force="mesh")
    assert found.is_watertight and found.is_winding_consistent and found.volume > 0
    bodies = sorted(found.split(), key=lambda body: body.volume)
    assert len(bodies) == 3 and all(body.is_watertight and body.volume > 0 for body in bodies)
    eyes = sorted(bodies[:2], key=lambda body: body.bounds.mean(0)[0])
    assert np.linalg.norm(eyes[1].bounds.mean(0) - eyes[0].bounds.mean(0)) == pytest.approx(61.5, abs=0.3)
    width = 2000 * float(head.eyes(fitted.identity.shape)[1][1]) * 61.5 / closed_head(fitted, head).ipd
    assert eyes[0].extents[0] == pytest.approx(width, rel=0.02), "the right eye comes first: x grows to the viewer's right"
    assert cKDTree(found.vertices).query(mesh.points.numpy())[0].max() < 1e-3


def test_the_closed_head_keeps_the_fits_size(fitted, head):
    own = closed_head(fitted, head)
    assert 50 < own.ipd < 75 and closed_head(fitted, head, ipd=own.ipd).points.allclose(own.points)
    with pytest.raises(DynamicFaceError, match=r"interpupillary distance is 6\.2 mm; expected 30 to 90"):
        closed_head(fitted, head, ipd=6.2)
    with pytest.raises(DynamicFaceError, match=r"must end in \.obj or \.stl"):
        save_closed_head(own, "a.ply")


# --- passes -------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def passes(fitted, head):
    return render_passes(fitted, head)


def test_passes_lie_on_the_plate(passes, fitted, head):
    """At the projected landmarks: the depth is the landmark's, the part is the right one, normals look at the camera."""
    vertices = head.vertices(fitted.identity.shape[None], fitted.expression, fitted.gaze)
    points = to_camera(head.landmarks(vertices), fitted.rotation, fitted.translation)
    x, y, depth = to_screen(points, fitted.focal, image_centre(fitted.image_size, points))[0].unbind(-1)
    nose, chin = 4, 199
    for landmark in (nose, chin):
        row, column = int(y[landmark]), int(x[landmark])
        assert passes.depth[0, row, column] == pytest.approx(float(depth[landmark]), abs=6e-3)
        assert PARTS[passes.part[0, row, column]] == "skin" and passes.normal[0, row, column, 2] > 0.3
    assert passes.mask.shape == (1, *fitted.image_size) and 0.02 < passes.mask.mean() < 0.5
    torch.testing.assert_close(passes.normal.norm(dim=-1), passes.mask, atol=1e-3, rtol=0)
    assert torch.equal(passes.part >= 0, passes.mask > 0) and torch.equal(passes.depth > 0, passes.mask > 0)


def test_passes_as_pictures(passes):
    for name, picture in passes.pictures().items():
        assert picture.shape == (*passes.mask.shape, 3) and picture.min() >= 0 and picture.max() <= 1, name
        assert not picture[passes.mask == 0].any(), name
    depth = passes.pictures()["depth"][..., 0]
    nearest = passes.depth.where(passes.mask > 0, 9.0).argmin()
    assert depth.flatten()[nearest] == pytest.approx(1.0)


def test_passes_come_back_from_exr(tmp_path, passes, fitted):
    OpenEXR = pytest.importorskip("OpenEXR")
    path, description = save_passes(passes, fitted, tmp_path, name="shot")
    with OpenEXR.File(str(path), separate_channels=True) as file:
        layers = {name: channel.pixels for name, channel in file.channels().items()}
    assert sorted(layers) == sorted(["normal.X", "normal.Y", "normal.Z", "depth.Z", "uv.U", "uv.V", "part.ID", "mask.A"])
    np.testing.assert_array_equal(layers["depth.Z"], passes.depth[0].numpy())
    np.testing.assert_array_equal(layers["part.ID"], passes.part[0].numpy())
    np.testing.assert_array_equal(layers["normal.Y"], passes.normal[0, ..., 1].numpy())
    document = json.loads(description.read_text())
    assert document["parts"] == list(PARTS) and document["camera"][0]["focal_px"] == pytest.approx(float(fitted.focal))


def test_passes_come_back_from_png(tmp_path, passes, fitted):
    save_passes(passes, fitted, tmp_path, kind="png")
    for name, picture in passes.pictures().items():
        torch.testing.assert_close(read_image(tmp_path / name / "face.0000.png"), picture, atol=1e-5, rtol=0)
    with pytest.raises(DynamicFaceError, match="cannot be written as 'tga'"):
        save_passes(passes, fitted, tmp_path, kind="tga")
