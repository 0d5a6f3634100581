"""Export 3D Face, Render Passes and Provenance: the face for other departments, and where pictures come from."""

from __future__ import annotations

import json

import comfy.cli_args
import numpy as np
from comfy_api.latest import io, ui
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..dynamicface.io.gltf import save_glb
from ..dynamicface.io.obj import UNITS, closed_head, save_closed_head, save_obj_sequence
from ..dynamicface.io.passes import save_passes
from ..dynamicface.io.provenance import Provenance as Record
from ..dynamicface.io.provenance import hash_graph, record_provenance, source_file
from ..dynamicface.io.usd import save_usd
from ..dynamicface.passes import render_passes
from ..dynamicface.rig import rig_of
from .edit import prior_input
from .host import files
from .host.models import head_model, to_graph_device, to_working_device
from .host.run import progress
from .schema import schema

_SEQUENCE, _CLOSED = "obj sequence", ("closed head obj", "closed head stl")
_RIGS = {"glb": save_glb, "usdc": save_usd, "usda": save_usd}
_PREFIX = "Folder and name in the output folder."


class ExportFace(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ExportFace",
            "Export 3D Face",
            "Writes the face for Blender, Maya, Unreal or a printer into the output folder. glb and usd: neutral mesh, 52 ARKit shapes, "
            "own skin texture, animation, camera. obj sequence: every frame's mesh. closed head: the neutral head, watertight, in mm. "
            "Before: Fit 3D Prior or an Edit node. Takes a second or two.",
            search_aliases=["glTF", "USD", "OBJ", "STL", "mesh", "3D print"],
            is_output_node=True,
            inputs=[
                prior_input(),
                io.Combo.Input(
                    "format",
                    options=[*_RIGS, _SEQUENCE, *_CLOSED],
                    default="glb",
                    tooltip="usdc and usda need the package usd-core.",
                ),
                io.Float.Input("fps", default=24.0, min=1.0, max=240.0, step=0.01, tooltip="Frames per second of the animation."),
                io.Combo.Input("unit", options=list(UNITS), default="m", tooltip="Of an obj sequence; glb and usd are metres."),
                io.Float.Input(
                    "pupil_distance",
                    default=0.0,
                    min=0.0,
                    max=90.0,
                    step=0.1,
                    tooltip="Millimetres between the person's pupils as measured; a closed head is scaled to it. 0: as fitted, an average "
                    "head's size, because a photograph does not tell how large a head is.",
                ),
                io.String.Input("filename_prefix", default="face/face", tooltip=_PREFIX),
            ],
            outputs=[io.String.Output("file", display_name="file", tooltip="Full path of the file, or of a sequence's first file.")],
        )

    @classmethod
    def execute(cls, prior, format, fps, unit, pupil_distance, filename_prefix) -> io.NodeOutput:
        folder, name, _ = files.result_stem(filename_prefix)
        prior, head = to_working_device(prior), head_model()
        if format in _RIGS:
            path = folder / f"{name}.{format}"
            _RIGS[format](rig_of(prior, head, fps), path)
        elif format == _SEQUENCE:
            path = save_obj_sequence(prior, head, folder / name, unit=unit)[0]
        else:
            path = folder / f"{name}.{format[-3:]}"
            save_closed_head(closed_head(prior, head, pupil_distance or None), path)
        return io.NodeOutput(str(path), ui=ui.PreviewText(str(path)))


class RenderPasses(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "RenderPasses",
            "Render Passes",
            "Renders the fitted head over the whole plate as data passes: normals, depth, texture coordinates, parts, mask. As images, "
            "and if you like as files in the output folder. Before: Fit 3D Prior or an Edit node. About 0.2 s a frame at 1080p on a CPU.",
            search_aliases=["AOV", "normal pass", "depth", "UV pass", "cryptomatte", "EXR"],
            is_output_node=True,
            inputs=[
                prior_input(),
                io.Combo.Input(
                    "save",
                    options=["off", "exr", "png"],
                    default="off",
                    tooltip="exr: one multi-layer 32-bit file a frame with raw values (metres, camera space); needs the package OpenEXR. "
                    "png: 16 bit, one folder a pass, as shown.",
                ),
                io.String.Input("filename_prefix", default="face/passes", tooltip=_PREFIX),
            ],
            outputs=[
                io.Image.Output("normal", display_name="normal", tooltip="Camera-space normals, n / 2 + 0.5."),
                io.Image.Output("depth", display_name="depth", tooltip="1 nearest, 0 farthest of the head over all frames."),
                io.Image.Output("uv", display_name="uv", tooltip="Texture coordinates as red and green, v down."),
                io.Image.Output("parts", display_name="parts", tooltip="Skin, lips, eyes, teeth .. as flat colours."),
                io.Mask.Output("mask", display_name="mask", tooltip="1 on the head, hard-edged."),
            ],
        )

    @classmethod
    def execute(cls, prior, save, filename_prefix) -> io.NodeOutput:
        prior = to_working_device(prior)
        passes = render_passes(prior, head_model(), progress=progress())
        if save != "off":
            folder, name, _ = files.result_stem(filename_prefix)
            save_passes(passes, prior, folder / name, kind=save)
        pictures = to_graph_device(tuple(passes.pictures().values()))
        return io.NodeOutput(*pictures[:-1], to_graph_device(passes.mask))


def _record_inputs() -> list[io.Input]:
    """What the artist says about a result, and where it goes."""
    return [
        io.Boolean.Input(
            "generated",
            default=False,
            tooltip="On when a generator (KSampler, Generate Face) made pixels: marked as composite with trained algorithmic "
            "media; off: as composite synthetic.",
        ),
        io.String.Input("consent", default="", multiline=True, tooltip="Who agreed to what, and where the release is kept. Recorded."),
        io.String.Input("filename_prefix", default="DynamicFace", tooltip=_PREFIX),
    ]


def _how(prompt: dict, generated: bool, consent: str) -> Record:
    """The record of a workflow's result."""
    sources = tuple(source_file("loaded", path) for path in files.loaded_files(prompt))
    return Record("workflow", sources, generated, graph_sha256=hash_graph(prompt), consent=consent)


class Provenance(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Provenance",
            "Save with Provenance",
            "Saves the pictures as PNG and writes down where they come from: hashes of the loaded files, of the models and of the "
            "workflow, your words about consent, and IPTC's mark for synthetic media, inside each picture and as JSON beside the first.",
            search_aliases=["C2PA", "content credentials", "metadata", "save image", "IPTC"],
            is_output_node=True,
            inputs=[
                io.Image.Input("images", tooltip="The finished pictures."),
                io.Boolean.Input("record", default=True, tooltip="Off: saves plain pictures without any record."),
                *_record_inputs(),
            ],
            outputs=[io.Image.Output("saved", display_name="images", tooltip="The same pictures, to go on with.")],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, images, record, generated, consent, filename_prefix) -> io.NodeOutput:
        folder, name, subfolder = files.result_stem(filename_prefix)
        prompt = cls.hidden.prompt or {}
        paths = [folder / f"{name}{frame:04d}_.png" for frame in range(len(images))]
        for path, image in zip(paths, images, strict=True):
            pixels = (image[..., :3].cpu().clamp(0, 1) * 255).round().byte().numpy()
            Image.fromarray(np.ascontiguousarray(pixels)).save(path, pnginfo=cls._workflow(), compress_level=4)
        if record:
            record_provenance(_how(prompt, generated, consent), paths)
        shown = [ui.SavedResult(path.name, subfolder, io.FolderType.output) for path in paths]
        return io.NodeOutput(images, ui=ui.SavedImages(shown))

    @classmethod
    def _workflow(cls) -> PngInfo | None:
        """What core's Save Image writes, so that the picture can be dropped on the canvas."""
        if comfy.cli_args.args.disable_metadata:
            return None
        info = PngInfo()
        for key, value in _graph(cls.hidden).items():
            info.add_text(key, json.dumps(value))
        return info


def _graph(hidden) -> dict:
    """Prompt and workflow, as core's savers write them."""
    return {key: value for key, value in {"prompt": hidden.prompt, **(hidden.extra_pnginfo or {})}.items() if value is not None}


class ProvenanceVideo(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ProvenanceVideo",
            "Save Video with Provenance",
            "Saves a clip as MP4 and writes down where it comes from: hashes of the loaded files, of the models and of the workflow, your "
            "words about consent, and IPTC's mark for synthetic media, inside the file and as JSON beside it. A clip of Composite Clip is "
            "not encoded again. Before: Composite Clip or Create Video.",
            search_aliases=["C2PA", "content credentials", "metadata", "save video", "IPTC"],
            is_output_node=True,
            inputs=[
                io.Video.Input("video", tooltip="The finished clip, from Composite Clip or Create Video."),
                io.Boolean.Input("record", default=True, tooltip="Off: saves the plain clip without any record."),
                *_record_inputs(),
            ],
            outputs=[],
            hidden=[io.Hidden.prompt, io.Hidden.extra_pnginfo],
        )

    @classmethod
    def execute(cls, video, record, generated, consent, filename_prefix) -> io.NodeOutput:
        folder, name, subfolder = files.result_stem(filename_prefix)
        path = folder / f"{name}.mp4"
        graph = None if comfy.cli_args.args.disable_metadata else _graph(cls.hidden)
        video.save_to(str(path), metadata=graph or None)
        if record:
            record_provenance(_how(cls.hidden.prompt or {}, generated, consent), [path])
        return io.NodeOutput(ui=ui.PreviewVideo([ui.SavedResult(path.name, subfolder, io.FolderType.output)]))
