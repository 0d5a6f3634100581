"""The face as USD (.usda, .usdc, .usd): a UsdSkel blend-shape face, texture, eyeballs that turn, camera, animation.

Stage: metres, y up, frames as time codes. `/face` (SkelRoot) carries the head's motion, `/face/head` the mesh with a BlendShape for
every target, `/face/skeleton/performance` their weights; the skeleton's one joint never moves, blend shapes need it to be found.
`/camera` stands at the origin and looks along -z. The texture lies beside the file.
Written with usd-core (`pip install usd-core`), which is imported only here.
"""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image
from torch import Tensor

from ..errors import DynamicFaceError
from ..rig import EYE_NAMES, FaceRig, Mesh

ENDINGS = (".usda", ".usdc", ".usd")
_APERTURE = 36.0  # millimetres of film across the picture's width
_STILL = 1e-7  # metres a blend shape moves a point at least


def save_usd(rig: FaceRig, path: str | Path) -> None:
    """Write a rig. Raises DynamicFaceError for another ending, or where usd-core is not installed."""
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise DynamicFaceError(f"{path} must end in {', '.join(ENDINGS)}.")
    pxr = _usd()
    path.parent.mkdir(parents=True, exist_ok=True)
    texture = path.with_name(f"{path.stem}_albedo.png")
    Image.fromarray((rig.texture.cpu() * 255).round().byte().numpy()).save(texture)
    stage = pxr.Usd.Stage.CreateInMemory()
    pxr.UsdGeom.SetStageUpAxis(stage, pxr.UsdGeom.Tokens.y)
    pxr.UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    stage.SetTimeCodesPerSecond(rig.fps)
    stage.SetFramesPerSecond(rig.fps)
    stage.SetStartTimeCode(0)
    stage.SetEndTimeCode(len(rig) - 1)
    face = pxr.UsdSkel.Root.Define(stage, "/face")
    stage.SetDefaultPrim(face.GetPrim())
    _move(pxr, face, rig.rotation, rig.translation)
    _camera(pxr, stage, rig)
    material = _material(pxr, stage, texture.name)
    skin = _mesh(pxr, stage, "/face/head", rig.skin, material)
    _blend_shapes(pxr, stage, skin, rig)
    for k, eye in enumerate(rig.eyes):
        mesh = _mesh(pxr, stage, f"/face/{EYE_NAMES[k]}", eye, material)
        _move(pxr, mesh, rig.eye_rotation[:, k], rig.pivots[k].expand(len(rig), 3))
    stage.Export(str(path))


def _usd() -> ModuleType:
    try:
        import pxr
        from pxr import Gf, Sdf, Usd, UsdGeom, UsdShade, UsdSkel, Vt  # noqa: F401
    except ImportError as error:
        raise DynamicFaceError("Writing USD needs the package usd-core; install it with `pip install usd-core`, or export GLB.") from error
    return pxr


def _array(kind: type, values: Tensor):
    return kind.FromNumpy(np.ascontiguousarray(values.detach().cpu().float().numpy()))


def _move(pxr: ModuleType, prim, rotation: Tensor, translation: Tensor) -> None:
    """Sample a rigid motion: rotations (F, 3, 3), translations (F, 3). USD's matrices act on row vectors."""
    motion = prim.AddTransformOp()
    for frame, (turn, shift) in enumerate(zip(rotation.mT.double().tolist(), translation.double().tolist(), strict=True)):
        motion.Set(pxr.Gf.Matrix4d([*([*row, 0.0] for row in turn), [*shift, 1.0]]), frame)


def _camera(pxr: ModuleType, stage, rig: FaceRig) -> None:
    height, width = rig.image_size
    camera = pxr.UsdGeom.Camera.Define(stage, "/camera")
    camera.CreateHorizontalApertureAttr(_APERTURE)
    camera.CreateVerticalApertureAttr(_APERTURE * height / width)
    camera.CreateClippingRangeAttr(pxr.Gf.Vec2f(0.01, 100.0))
    focal = camera.CreateFocalLengthAttr()
    for frame, pixels in enumerate(rig.focal.tolist()):
        focal.Set(_APERTURE * pixels / width, frame)


def _material(pxr: ModuleType, stage, texture: str):
    sdf, shade = pxr.Sdf, pxr.UsdShade
    material = shade.Material.Define(stage, "/face/skin")
    surface, picture, place = (shade.Shader.Define(stage, f"/face/skin/{name}") for name in ("surface", "albedo", "uv"))
    surface.CreateIdAttr("UsdPreviewSurface")
    surface.CreateInput("roughness", sdf.ValueTypeNames.Float).Set(0.6)
    surface.CreateInput("metallic", sdf.ValueTypeNames.Float).Set(0.0)
    picture.CreateIdAttr("UsdUVTexture")
    picture.CreateInput("file", sdf.ValueTypeNames.Asset).Set(sdf.AssetPath(f"./{texture}"))
    picture.CreateInput("sourceColorSpace", sdf.ValueTypeNames.Token).Set("sRGB")
    place.CreateIdAttr("UsdPrimvarReader_float2")
    place.CreateInput("varname", sdf.ValueTypeNames.String).Set("st")
    uv = place.CreateOutput("result", sdf.ValueTypeNames.Float2)
    picture.CreateInput("st", sdf.ValueTypeNames.Float2).ConnectToSource(uv)
    colour = picture.CreateOutput("rgb", sdf.ValueTypeNames.Float3)
    surface.CreateInput("diffuseColor", sdf.ValueTypeNames.Color3f).ConnectToSource(colour)
    material.CreateSurfaceOutput().ConnectToSource(surface.CreateOutput("surface", sdf.ValueTypeNames.Token))
    return material


def _mesh(pxr: ModuleType, stage, path: str, mesh: Mesh, material):
    vt = pxr.Vt
    prim = pxr.UsdGeom.Mesh.Define(stage, path)
    prim.CreatePointsAttr(_array(vt.Vec3fArray, mesh.points))
    prim.CreateNormalsAttr(_array(vt.Vec3fArray, mesh.normals))
    prim.SetNormalsInterpolation(pxr.UsdGeom.Tokens.vertex)
    prim.CreateFaceVertexCountsAttr([3] * len(mesh.faces))
    prim.CreateFaceVertexIndicesAttr(mesh.faces.flatten().tolist())
    prim.CreateSubdivisionSchemeAttr(pxr.UsdGeom.Tokens.none)
    prim.CreateDoubleSidedAttr(True)
    uv = mesh.uv * mesh.uv.new_tensor([1.0, -1.0]) + mesh.uv.new_tensor([0.0, 1.0])
    st = pxr.UsdGeom.PrimvarsAPI(prim).CreatePrimvar("st", pxr.Sdf.ValueTypeNames.TexCoord2fArray, pxr.UsdGeom.Tokens.vertex)
    st.Set(_array(vt.Vec2fArray, uv))
    pxr.UsdShade.MaterialBindingAPI.Apply(prim.GetPrim()).Bind(material)
    return prim


def _blend_shapes(pxr: ModuleType, stage, skin, rig: FaceRig) -> None:
    vt, skel = pxr.Vt, pxr.UsdSkel
    identity = vt.Matrix4dArray([pxr.Gf.Matrix4d(1)])
    skeleton = skel.Skeleton.Define(stage, "/face/skeleton")
    skeleton.CreateJointsAttr(["head"])
    skeleton.CreateBindTransformsAttr(identity)
    skeleton.CreateRestTransformsAttr(identity)
    animation = skel.Animation.Define(stage, "/face/skeleton/performance")
    animation.CreateBlendShapesAttr(rig.names)
    weights = animation.CreateBlendShapeWeightsAttr()
    for frame, values in enumerate(rig.weights.tolist()):
        weights.Set(values, frame)
    skel.BindingAPI.Apply(skeleton.GetPrim()).CreateAnimationSourceRel().SetTargets([animation.GetPath()])
    binding = skel.BindingAPI.Apply(skin.GetPrim())
    binding.CreateSkeletonRel().SetTargets([skeleton.GetPath()])
    binding.CreateJointIndicesPrimvar(True, 1).Set([0])
    binding.CreateJointWeightsPrimvar(True, 1).Set([1.0])
    shapes = []
    for name, points, normals in zip(rig.names, rig.targets, rig.target_normals, strict=True):
        moved = (points.abs().amax(1) > _STILL).nonzero()[:, 0]
        shape = skel.BlendShape.Define(stage, skin.GetPath().AppendChild(name))
        shape.CreateOffsetsAttr(_array(vt.Vec3fArray, points[moved]))
        shape.CreateNormalOffsetsAttr(_array(vt.Vec3fArray, normals[moved]))
        shape.CreatePointIndicesAttr(moved.tolist())
        shapes.append(shape.GetPath())
    binding.CreateBlendShapesAttr(rig.names)
    binding.CreateBlendShapeTargetsRel().SetTargets(shapes)
