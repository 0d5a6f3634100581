"""Expression Preset, Save Preset and Expression Library: whole expressions by name."""

from __future__ import annotations

import json

from comfy_api.latest import io, ui

from ..dynamicface.errors import DynamicFaceError
from ..dynamicface.io.presets import apply_preset, blend_presets, choose_presets, preset_of, save_preset
from ..dynamicface.library import render_library
from ..dynamicface.regions import REGIONS
from .edit import CHAIN, prior_input, prior_output
from .host import files
from .host.models import head_model, to_graph_device, to_working_device
from .host.run import progress
from .schema import advanced, schema, slider

NONE = "none"


def region_sliders(what: str) -> list[io.Input]:
    """A factor for each region of the face, folded away."""
    tip = "How much of {} the {} take: 1 as the rest, 0 as filmed, 2 twice as much."
    return [advanced(slider(region, 0.0, 2.0, tip.format(what, region), default=1.0, optional=True)) for region in REGIONS]


class ExpressionPreset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        names = files.preset_names()
        return schema(
            "ExpressionPreset",
            "Expression Preset",
            "Gives the face an expression by name: shipped ones (emotions, winks, visemes) and your own, alone or a blend of two. " + CHAIN,
            search_aliases=["emotion", "viseme", "wink", "kiss", "expression"],
            inputs=[
                prior_input(),
                io.Combo.Input("preset", options=names, default="smile", tooltip="The expression. Own ones come from Save Preset."),
                slider("intensity", 0.0, 2.0, "0 as filmed, 1 the preset, 2 twice as strong.", default=1.0),
                io.Combo.Input("second", options=[NONE, *names], default=NONE, tooltip="Another expression to blend in."),
                slider("blend", 0.0, 1.0, "From the first preset (0) to the second (1). Does nothing without a second."),
                io.Boolean.Input(
                    "on_top",
                    default=False,
                    tooltip="Off: the preset takes the filmed expression's place. On: it is added, so that a mouth goes on talking.",
                ),
                *region_sliders("the preset"),
            ],
            outputs=[prior_output()],
        )

    @classmethod
    def fingerprint_inputs(cls, preset, second, **others) -> str:
        return files.preset_stamp(preset, second)

    @classmethod
    def execute(cls, prior, preset, intensity, second, blend, on_top, **regions) -> io.NodeOutput:
        chosen = files.preset(preset)
        if second != NONE and blend > 0:
            chosen = blend_presets(chosen, files.preset(second), blend)
        return io.NodeOutput(apply_preset(prior, chosen, intensity, regions=regions, add=on_top))


class SavePreset(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "SavePreset",
            "Save Preset",
            "Keeps one frame's expression under a name, for Expression Preset in this and every other workflow: a JSON file in "
            "user/dynamicface/presets. Before: any Edit node, or Fit 3D Prior to take it from a photograph. Press R to see it listed.",
            search_aliases=["store expression", "pose library", "export preset"],
            is_output_node=True,
            inputs=[
                prior_input(),
                io.String.Input("name", default="my expression", tooltip="Letters, digits, spaces, - and _. The same name is replaced."),
                io.Int.Input("frame", default=0, min=0, max=1_000_000, tooltip="Which frame of a clip, counted from 0."),
                io.Boolean.Input("gaze", default=False, tooltip="On: keeps where the eyes look as well. Off: eyes stay as filmed."),
                io.String.Input("author", default="", tooltip="Who made it. Kept in the file.", optional=True),
                io.String.Input("note", default="", tooltip="What it is for. Kept in the file.", optional=True),
            ],
            outputs=[io.String.Output("file", display_name="file", tooltip="The preset's full path.")],
        )

    @classmethod
    def execute(cls, prior, name, frame, gaze, author="", note="") -> io.NodeOutput:
        path = files.preset_path(name)
        save_preset(preset_of(prior, name, frame=frame, gaze=gaze, author=author, note=note), path)
        return io.NodeOutput(str(path), ui=ui.PreviewText(f"saved as own/{name}"))


class ExpressionLibrary(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "ExpressionLibrary",
            "Expression Library",
            "Renders one actor's library of expressions from one picture: every preset at every intensity as a batch, a contact sheet with "
            "names, and the list of names. Before: Fit 3D Prior. Next: Save Image. About 0.1 s a picture at portrait size on a CPU.",
            search_aliases=["expression sheet", "model sheet", "FACS"],
            inputs=[
                prior_input(),
                io.String.Input(
                    "presets",
                    default="all",
                    tooltip="Names or groups (emotion, eyes, viseme, own) separated by commas, or all.",
                ),
                io.String.Input("intensities", default="1.0", tooltip="Numbers from 0 to 2 separated by commas, such as 0.3, 0.6, 1.0."),
                io.Int.Input(
                    "size",
                    default=512,
                    min=0,
                    max=2048,
                    step=64,
                    tooltip="Side of the face crops in pixels. 0 gives the whole plate: large batches of large plates need the memory.",
                ),
            ],
            outputs=[
                io.Image.Output("images", display_name="images", tooltip="One picture per expression, in the order of the names."),
                io.Image.Output("sheet", display_name="sheet", tooltip="All of them small on one sheet, with their names."),
                io.String.Output("names", display_name="names", tooltip='The names as a JSON list, such as ["smile 0.50", "smile 1.00"].'),
            ],
        )

    @classmethod
    def fingerprint_inputs(cls, **inputs) -> str:
        return files.preset_stamp(*files.preset_names())

    @classmethod
    def execute(cls, prior, presets, intensities, size) -> io.NodeOutput:
        known = {preset.name: preset for preset in map(files.preset, files.preset_names())}
        chosen, amounts = choose_presets(presets, known), _numbers(intensities)
        library = render_library(to_working_device(prior), head_model(), chosen, amounts, size=size, progress=progress())
        images, sheet = to_graph_device((library.pictures, library.sheet))
        return io.NodeOutput(images, sheet, json.dumps(library.names))


def _numbers(text: str) -> list[float]:
    """Raises DynamicFaceError unless the text lists numbers from 0 to 2."""
    try:
        numbers = [float(word) for word in text.split(",") if word.strip()]
    except ValueError:
        numbers = []
    if not numbers or not all(0 <= number <= 2 for number in numbers):
        raise DynamicFaceError(f"The intensities are {text!r}; expected numbers from 0 to 2 separated by commas, such as 0.5, 1.0.")
    return numbers
