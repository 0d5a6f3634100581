"""Write workflows/*.json (and, with --thumbnails A B, their pictures) from the descriptions below.

The descriptions name nodes, sockets and the few values that matter; positions of sockets, the order of widget values and the defaults
come from the running ComfyUI's /object_info, so the files always fit the nodes:

    python tools/build_workflows.py
    python tools/build_workflows.py --thumbnails portrait_a.png portrait_b.png
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from comfy_server import BASE, ROOT, ComfyServer
from photographs import CLIP, CLIP_FRAMES, write_clip
from PIL import Image, ImageDraw, ImageOps, UnidentifiedImageError
from ui_workflow import CHECKPOINTS, MUTED, WIDGET_TYPES, default_value, to_api, widget_names, without

WORKFLOWS = ROOT / "workflows"
WIDTH, ROW, TITLE = 300, 24, 40
PICTURE = 300  # height of a node's picture
TEXT = 90  # further height of a text of several lines
FRAME, HEADING = 15, 50  # of a group around its nodes, and above their titles
SHOWS_A_PICTURE = ("LoadImage", "LoadVideo", "PreviewImage", "SaveImage", "SaveVideo", "DynamicFace_QCReport", "DynamicFace_Provenance")
SHOWS_A_PICTURE += ("DynamicFace_EditExpression", "DynamicFace_EditPose", "DynamicFace_EditIdentity", "DynamicFace_EditLight")  # live
SHOWS_A_PICTURE += ("DynamicFace_Composite", "DynamicFace_Expression", "DynamicFace_Swap", "DynamicFace_RenderPrior")  # while it runs
THUMBNAIL, THUMBNAIL_TILES = 320, 3


class Graph:
    """A workflow under construction. Nodes stand in columns, from left to right in the order of work."""

    def __init__(self, object_info: dict[str, dict]) -> None:
        self.info, self.nodes, self.links, self.groups = object_info, [], [], []
        self.x, self.y = 40, 100
        self.mode = 0

    def column(self, width: int = WIDTH) -> None:
        """Start the next column."""
        self.x, self.y = self.x + self.width() + 60, 100

    def width(self) -> int:
        return max((node["size"][0] for node in self.nodes if node["pos"][0] == self.x), default=WIDTH)

    @contextmanager
    def group(self, title: str, *, muted: bool = False) -> Iterator[None]:
        """A frame with a title around the nodes added inside; muted: they are drawn, but do not run until the artist wakes them."""
        first = len(self.nodes)
        self.y += HEADING if self.y > 100 else 0
        self.mode = MUTED if muted else 0
        yield
        self.mode = 0
        inside = self.nodes[first:]
        left, top = (min(node["pos"][axis] for node in inside) for axis in (0, 1))
        right, bottom = (max(node["pos"][axis] + node["size"][axis] for node in inside) for axis in (0, 1))
        top -= TITLE + HEADING - FRAME
        bounding = [left - FRAME, top, right - left + 2 * FRAME, bottom - top + FRAME]
        colour = "#555555" if muted else "#3f789e"
        self.groups.append(
            {"id": len(self.groups) + 1, "title": title, "bounding": bounding, "color": colour, "font_size": 24, "flags": {}}
        )

    def note(self, text: str, height: int = 200) -> None:
        """A note in the first column, in Markdown."""
        self._place(
            {"type": "MarkdownNote", "title": "Read me", "widgets_values": [text], "inputs": [], "outputs": [], "properties": {}},
            [360, height],
        )

    def add(self, kind: str, title: str | None = None, values: dict | None = None, **inputs) -> dict:
        """A node; inputs are (node, output name), values the widgets that differ from their defaults."""
        info = self.info[kind]
        sections = [section for section in ("required", "optional") if section in info["input_order"]]
        fields = {name: (section, *info["input"][section][name]) for section in sections for name in info["input_order"][section]}
        unknown = (set(inputs) | set(values or {})) - set(fields)
        if unknown:
            raise ValueError(f"{kind} has no input {', '.join(sorted(unknown))}")
        widgets = widget_names(info)
        node = {
            "type": kind,
            "title": title or info["display_name"],
            "inputs": [
                {"name": name, "type": io_type, "link": None, **({"shape": 7} if section == "optional" else {})}
                for name, (section, io_type, *_) in fields.items()
                if not isinstance(io_type, list) and io_type not in WIDGET_TYPES
            ]
            + [{"name": n, "type": fields[n][1], "link": None, "widget": {"name": n}} for n in inputs if fields[n][1] in WIDGET_TYPES],
            "outputs": [
                {"name": name, "type": io_type, "links": []} for name, io_type in zip(info["output_name"], info["output"], strict=True)
            ],
            "properties": {"Node name for S&R": kind},
            "widgets_values": [(values or {}).get(name, default_value(info, name)) for name in widgets],
        }
        if kind == "LoadImage":
            node["widgets_values"].append("image")  # the upload button stores a value, too
        shown = sum(not _options(fields[name]).get("advanced") for name in widgets if name)
        height = TITLE + ROW * (max(len(node["inputs"]), len(node["outputs"])) + shown)
        height += TEXT * sum(bool(_options(fields[name]).get("multiline")) for name in widgets if name)
        self._place(node, [WIDTH, height + (PICTURE if kind in SHOWS_A_PICTURE else 0)])
        for name, (source, output) in inputs.items():
            self._link(source, output, node, name)
        return node

    def _place(self, node: dict, size: list[int]) -> None:
        index = len(self.nodes)
        self.nodes.append({"id": index + 1, **node, "pos": [self.x, self.y], "size": size, "flags": {}, "order": index, "mode": self.mode})
        node["id"] = index + 1
        self.y += size[1] + 60

    def _link(self, source: dict, output: str, target: dict, name: str) -> None:
        out = next(i for i, slot in enumerate(source["outputs"]) if slot["name"] == output)
        into = next(i for i, slot in enumerate(target["inputs"]) if slot["name"] == name)
        link = len(self.links) + 1
        self.links.append([link, source["id"], out, target["id"], into, source["outputs"][out]["type"]])
        source["outputs"][out]["links"].append(link)
        target["inputs"][into]["link"] = link

    def workflow(self) -> dict:
        return {
            "id": "00000000-0000-0000-0000-000000000000",
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": self.nodes,
            "links": self.links,
            "groups": self.groups,
            "config": {},
            "extra": {"ds": {"scale": 0.7, "offset": [0, 0]}},
            "version": 0.4,
        }


def _options(field: tuple) -> dict:
    return field[2] if len(field) > 2 else {}


# --- the workflows ------------------------------------------------------------------------------------------------------

A, B = {"image": "portrait_a.png"}, {"image": "portrait_b.png"}
ATTRIBUTES = ("normal", "expression", "pose", "illumination", "background")


def _fitted(g: Graph, photo: dict, name: str) -> dict:
    """Track and fit a photograph, in one column."""
    track = g.add("DynamicFace_TrackFaces", f"Track Faces {name}".strip(), images=(photo, "IMAGE"))
    return g.add("DynamicFace_FitPrior", f"Fit 3D Prior {name}".strip(), images=(photo, "IMAGE"), track=(track, "track"))


def edit_an_expression(g: Graph) -> None:
    g.note(
        "## Edit an expression\nChoose a photograph, move the dials of **Edit Expression**, queue. Only the face changes; with "
        "every dial at 0 and intensity at 1 the picture comes back identical to the bit.\n\nTracking and fitting are cached: "
        "moving a dial does not run them again, and the node's own preview follows at once. ARKit's 52 channels are under *More*."
    )
    photo = g.add("LoadImage", "Photograph", values=A)
    g.column()
    prior = _fitted(g, photo, "")
    g.column()
    edited = g.add("DynamicFace_EditExpression", prior=(prior, "prior"), values={"smile": 0.7, "brows_up": 0.3})
    g.column()
    result = g.add("DynamicFace_Composite", prior=(edited, "prior"))
    g.add("DynamicFace_RenderPrior", "The 3D head", prior=(edited, "prior"))
    g.column()
    g.add("SaveImage", "Edited", images=(result, "image"), values={"filename_prefix": "DynamicFace/expression"})


def swap_a_face(g: Graph) -> None:
    g.note(
        "## Swap a face\nThe person of **Source** appears in **Target**, with the target's expression, head pose, light and "
        "background. Use it with the consent of the people shown.\n\nFor several people in the target set *choose* (Show "
        "advanced inputs). To mix single factors instead, see the workflow *compose five factors*."
    )
    source = g.add("LoadImage", "Source: this person", values=A)
    target = g.add("LoadImage", "Target: in this picture", values=B)
    g.column()
    swap = g.add("DynamicFace_Swap", source=(source, "IMAGE"), target=(target, "IMAGE"))
    g.column()
    g.add("SaveImage", "Swapped", images=(swap, "image"), values={"filename_prefix": "DynamicFace/swap"})
    mask = g.add("MaskToImage", mask=(swap, "mask"))
    g.add("PreviewImage", "What changed", images=(mask, "IMAGE"))


def relight(g: Graph) -> None:
    g.note(
        "## Relight\n**Edit Light** fades from the filmed light to a key light that you place: *azimuth* 90 is the viewer's "
        "right, *elevation* 90 is overhead. *turn* rotates the filmed light itself."
    )
    photo = g.add("LoadImage", "Photograph", values=A)
    g.column()
    prior = _fitted(g, photo, "")
    g.column()
    values = {"strength": 0.8, "azimuth": 70.0, "elevation": 20.0, "warmth": 0.3}
    edited = g.add("DynamicFace_EditLight", prior=(prior, "prior"), values=values)
    g.column()
    result = g.add("DynamicFace_Composite", prior=(edited, "prior"))
    g.add("DynamicFace_RenderPrior", "The 3D head", prior=(edited, "prior"))
    g.column()
    g.add("SaveImage", "Relit", images=(result, "image"), values={"filename_prefix": "DynamicFace/relight"})


def compose_five_factors(g: Graph) -> None:
    g.note(
        "## Five factors from two people\nIdentity, expression, pose, light and background each come from **A** or **B**. "
        "Here: B's identity and expression; A's pose, light and background. Pull a link to another prior to change one factor; "
        "*identity_weight* blends the two people."
    )
    first = g.add("LoadImage", "A", values=A)
    second = g.add("LoadImage", "B", values=B)
    g.column()
    prior_a = _fitted(g, first, "A")
    prior_b = _fitted(g, second, "B")
    g.column()
    sources = {"identity": prior_b, "expression": prior_b, "pose": prior_a, "illumination": prior_a, "background": prior_a}
    composed = g.add("DynamicFace_ComposePrior", base=(prior_a, "prior"), **{factor: (p, "prior") for factor, p in sources.items()})
    g.add("DynamicFace_RenderPrior", "The composed head", prior=(composed, "prior"))
    g.column()
    result = g.add("DynamicFace_Composite", prior=(composed, "prior"))
    g.column()
    g.add("SaveImage", "Composed", images=(result, "image"), values={"filename_prefix": "DynamicFace/compose"})


def guides_for_any_controlnet(g: Graph) -> None:
    g.note(
        "## Guides for any ControlNet\n**Render Guides** makes the maps in a crop around the face. Feed *normal* to a normal "
        "ControlNet and *composite* to an image-to-image sampler, then put the sampler's picture into **Paste Back** (it may "
        "be larger than the crop). Here the composite itself is pasted back."
    )
    photo = g.add("LoadImage", "Photograph", values=A)
    g.column()
    prior = _fitted(g, photo, "")
    edited = g.add("DynamicFace_EditPose", prior=(prior, "prior"), values={"yaw": 12.0})
    g.column()
    guides = g.add("DynamicFace_RenderGuides", prior=(edited, "prior"))
    inputs = {"images": (guides, "composite"), "mask": (guides, "mask"), "crop": (guides, "crop")}
    pasted = g.add("DynamicFace_PasteBack", plate=(photo, "IMAGE"), **inputs)
    mask = g.add("MaskToImage", mask=(guides, "mask"))
    g.column()
    for name in ("normal", "expression"):
        g.add("PreviewImage", name.capitalize(), images=(guides, name))
    g.add("SaveImage", "Pasted back", images=(pasted, "image"), values={"filename_prefix": "DynamicFace/guides"})
    g.column()
    for name in ("illumination", "background"):
        g.add("PreviewImage", name.capitalize(), images=(guides, name))
    g.add("PreviewImage", "Mask", images=(mask, "IMAGE"))


def change_a_shot(g: Graph) -> None:
    g.note(
        "## Change a shot\n**Fit Clip** reads the file a few frames at a time and fits one person, smooth in time, never across cuts; "
        "**Composite Clip** writes the changed clip with its sound, frame rate and colours. Between them work all Edit nodes.\n\n"
        "**Inspect Prior** shows what was found and lists the frames to look at."
    )
    shot = g.add("LoadVideo", "Shot", values={"file": "shot.mp4"})
    g.column()
    prior = g.add("DynamicFace_FitClip", video=(shot, "VIDEO"))
    g.column()
    edited = g.add("DynamicFace_EditExpression", prior=(prior, "prior"), values={"smile": 0.8})
    g.column()
    result = g.add("DynamicFace_CompositeClip", prior=(edited, "prior"))
    inspected = g.add("DynamicFace_InspectPrior", prior=(prior, "prior"), values={"count": 3})
    g.column()
    g.add("SaveVideo", "Changed shot", video=(result, "video"), values={"filename_prefix": "DynamicFace/shot"})
    g.add("SaveImage", "The fit over the shot", images=(inspected, "overlay"), values={"filename_prefix": "DynamicFace/fit"})
    g.add("PreviewImage", "Its curves", images=(inspected, "curves"))


def stabilise_any_swap(g: Graph) -> None:
    g.note(
        "## Stabilise any swap\n**FusionTVO** calms frames that were changed one by one, here by *DynamicFace Swap*, but frames of any "
        "other pack do as well: it needs them, the plate they were made from, and the mask of the change. Strength 0 gives them back "
        "to the bit."
    )
    source = g.add("LoadImage", "Source: this person", values=A)
    shot = g.add("LoadVideo", "Shot", values={"file": "shot.mp4"})
    g.column()
    parts = g.add("GetVideoComponents", video=(shot, "VIDEO"))
    g.column()
    swap = g.add("DynamicFace_Swap", source=(source, "IMAGE"), target=(parts, "images"))
    g.column()
    wires = {"images": (swap, "image"), "plate": (parts, "images"), "mask": (swap, "mask")}
    calm = g.add("DynamicFace_FusionTVO", **wires)
    g.column()
    video = g.add("CreateVideo", images=(calm, "image"), audio=(parts, "audio"), fps=(parts, "fps"))
    g.add("SaveVideo", "Stable swap", video=(video, "VIDEO"), values={"filename_prefix": "DynamicFace/stable"})
    frame = g.add("ImageFromBatch", "One frame", image=(calm, "image"), values={"batch_index": 5, "length": 1})
    g.add("SaveImage", "One frame", images=(frame, "IMAGE"), values={"filename_prefix": "DynamicFace/stable"})


def generate_an_expression(g: Graph) -> None:
    g.note(
        "## Generate an expression\nAs *edit an expression*, and DynamicFace's own generator repairs what the warp cannot know: seams, "
        "mouth, lids, shading. It works on a 256 px crop; **Paste Back** adds only the difference to the composite, so the plate's own "
        "detail stays.\n\nThe sampler is ComfyUI's: cfg 1, one step. The node *Generate Face* does all of this at once."
    )
    photo = g.add("LoadImage", "Photograph", values=A)
    g.column()
    with g.group("Analyse"):
        prior = _fitted(g, photo, "")
    g.column()
    with g.group("Change"):
        edited = g.add("DynamicFace_EditExpression", prior=(prior, "prior"), values={"smile": 0.8})
        g.column()
        composite, guides = _composed(g, edited)
    _generated(g, guides, prior, composite, "expression_generated")


def swap_with_the_generator(g: Graph) -> None:
    g.note(
        "## Swap with the generator\nThe whole method as a graph: the composed prior's **guides** act together through the **Mixture of "
        "Guiders**; **Identity Stream** and **Detail Stream** read the source person; **Dual-Stream Fusion** shares the work between "
        "them; a stock sampler generates; **Paste Back** puts the difference into the plate.\n\n"
        "Use it with the consent of the people shown.",
        height=260,
    )
    source = g.add("LoadImage", "Source: this person", values=A)
    target = g.add("LoadImage", "Target: in this picture", values=B)
    g.column()
    with g.group("Analyse"):
        who = _fitted(g, source, "source")
        where = _fitted(g, target, "target")
    g.column()
    with g.group("Compose"):
        composed = g.add("DynamicFace_ComposePrior", base=(where, "prior"), identity=(who, "prior"))
        composite, guides = _composed(g, composed)
    _generated(g, guides, who, composite, "swap_generated", mixture=True)


def _composed(g: Graph, prior: dict) -> tuple[dict, dict]:
    """The composite in its plate, and the guides for the embedded generator."""
    composite = g.add("DynamicFace_Composite", prior=(prior, "prior"))
    return composite, g.add("DynamicFace_RenderGuides", prior=(prior, "prior"), values={"size": 256, "zoom": 1.3})


def _generated(g: Graph, guides: dict, source: dict, composite: dict, name: str, mixture: bool = False) -> None:
    """From guides to the saved picture through the embedded generator and a stock sampler."""
    streams = {}
    g.column()
    if mixture:
        with g.group("Mixture of Guiders"):
            streams["mixture"] = (_guiders(g, guides), "mixture")
        g.column()
    with g.group("Streams"):
        streams["identity"] = (g.add("DynamicFace_IdentityStream", source=(source, "prior")), "identity")
        streams["detail"] = (g.add("DynamicFace_DetailStream", source=(source, "prior")), "detail")
        if mixture:
            streams["fusion"] = (g.add("DynamicFace_DualStreamFusion"), "fusion")
    g.column()
    with g.group("Generate"):
        model = g.add("DynamicFace_LoadDynamicFace")
        empty = {"positive": (model, "empty"), "negative": (model, "empty")}
        applied = g.add("DynamicFace_ApplyDynamicFace", model=(model, "model"), guides=(guides, "guides"), **empty, **streams)
        g.column()
        conditioned = {key: (applied, key) for key in ("model", "positive", "negative")}
        values = {"seed": 0, "steps": 1, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
        latent = g.add("KSampler", latent_image=(applied, "latent"), values=values, **conditioned)
        crops = g.add("VAEDecode", samples=(latent, "LATENT"), vae=(model, "vae"))
    g.column()
    with g.group("Deliver"):
        inputs = {"images": (crops, "IMAGE"), "mask": (guides, "mask"), "crop": (guides, "crop"), "base": (guides, "composite")}
        pasted = g.add("DynamicFace_PasteBack", plate=(composite, "image"), **inputs)
        g.add("SaveImage", "Generated", images=(pasted, "image"), values={"filename_prefix": f"DynamicFace/{name}"})
        g.add("PreviewImage", "Without the generator", images=(composite, "image"))


def _guiders(g: Graph, guides: dict) -> dict:
    """All five guiders and their mixture, in one column."""
    chain = {}
    for attribute in ATTRIBUTES:
        wires = {"guides": (guides, "guides"), **chain}
        guider = g.add("DynamicFace_Guider", f"{attribute.capitalize()} Guider", values={"attribute": attribute}, **wires)
        chain = {"previous": (guider, "guiders")}
    return g.add("DynamicFace_MixtureOfGuiders", guidance=chain["previous"])


def expression_by_name(g: Graph) -> None:
    g.note(
        "## An expression by name\n**Expression Preset** gives the face a whole expression: emotions, winks, visemes, and your own from "
        "*Save Preset*. *second* and *blend* mix two; *brows*, *eyes*, *mouth*, *jaw* (advanced) scale its regions. **Edit Expression** "
        "behind it refines the result, with a live preview."
    )
    photo = g.add("LoadImage", "Photograph", values=A)
    g.column()
    prior = _fitted(g, photo, "")
    g.column()
    preset = g.add("DynamicFace_ExpressionPreset", prior=(prior, "prior"), values={"preset": "surprise", "second": "laugh", "blend": 0.3})
    edited = g.add("DynamicFace_EditExpression", prior=(preset, "prior"))
    g.column()
    result = g.add("DynamicFace_Composite", prior=(edited, "prior"))
    g.column()
    g.add("SaveImage", "Surprised", images=(result, "image"), values={"filename_prefix": "DynamicFace/preset"})


def bring_a_photograph_to_life(g: Graph) -> None:
    g.note(
        "## Bring a photograph to life\n**Expression Curves** moves dials and the head by keyframes: `[frame, value, how]`. A still "
        "becomes "
        "a shot as long as the last key. Any dial, ARKit channel, *intensity*, *yaw*, *pitch* and *roll* can be moved."
    )
    keyframes = {"smile": [[0, 0, "smooth"], [11, 0.8]], "blink_left": [[3, 0], [5, 1], [7, 0]], "blink_right": [[3, 0], [5, 1], [7, 0]]}
    keyframes["yaw"] = [[0, -6, "smooth"], [11, 6]]
    rows = ",\n ".join(f"{json.dumps(name)}: {json.dumps(keys)}" for name, keys in keyframes.items())
    photo = g.add("LoadImage", "Photograph", values=A)
    g.column()
    prior = _fitted(g, photo, "")
    g.column()
    moved = g.add("DynamicFace_ExpressionCurves", prior=(prior, "prior"), values={"keyframes": f"{{\n {rows}\n}}"})
    g.column()
    result = g.add("DynamicFace_Composite", prior=(moved, "prior"))
    g.column()
    g.add("SaveImage", "Frames", images=(result, "image"), values={"filename_prefix": "DynamicFace/life"})
    video = g.add("CreateVideo", images=(result, "image"), values={"fps": 12.0})
    g.add("SaveVideo", video=(video, "VIDEO"), values={"filename_prefix": "DynamicFace/life"})


def expression_of_another_photo(g: Graph) -> None:
    g.note(
        "## The expression of another photo\n**Drive from Prior** gives A the expression of B. *absolute* copies it, *relative* "
        "adds what a "
        "clip's driver changes since its neutral frame. For a shot put its frames in place of B: the still becomes a shot."
    )
    photo = g.add("LoadImage", "A: this face", values=A)
    driver = g.add("LoadImage", "B: this expression", values=B)
    g.column()
    prior = _fitted(g, photo, "A")
    performance = _fitted(g, driver, "B")
    g.column()
    wires = {"prior": (prior, "prior"), "driver": (performance, "prior")}
    driven = g.add("DynamicFace_DriveFromPrior", values={"mode": "absolute"}, **wires)
    g.column()
    result = g.add("DynamicFace_Composite", prior=(driven, "prior"))
    g.column()
    g.add("SaveImage", "A with B's expression", images=(result, "image"), values={"filename_prefix": "DynamicFace/driven"})


def library_of_an_actor(g: Graph) -> None:
    g.note(
        "## A library of one actor's expressions\nOne picture in; every preset at every intensity out, as a batch in the order of "
        "*names* and "
        "as a contact sheet. *presets*: names or groups (emotion, eyes, viseme, own), *intensities*: e.g. 0.5, 1.0."
    )
    photo = g.add("LoadImage", "Actor", values=A)
    g.column()
    prior = _fitted(g, photo, "")
    g.column()
    values = {"presets": "smile, surprise, anger, sadness, kiss, wink_left", "intensities": "0.5, 1.0", "size": 256}
    library = g.add("DynamicFace_ExpressionLibrary", prior=(prior, "prior"), values=values)
    g.column()
    g.add("SaveImage", "Contact sheet", images=(library, "sheet"), values={"filename_prefix": "DynamicFace/sheet"})
    g.add("SaveImage", "Sequence", images=(library, "images"), values={"filename_prefix": "DynamicFace/library"})


def a_face_for_3d(g: Graph) -> None:
    g.note(
        "## The face for 3D and comp\n**Export 3D Face** writes the person's mesh with ARKit's 52 shapes, texture, animation and "
        "camera for "
        "Blender, Maya or Unreal. **Render Passes** gives comp the normals, depth, UV and parts over the whole plate (*save*: EXR or PNG)."
    )
    photo = g.add("LoadImage", "Photograph", values=A)
    g.column()
    prior = _fitted(g, photo, "")
    g.column()
    g.add("DynamicFace_ExportFace", prior=(prior, "prior"), values={"filename_prefix": "DynamicFace/face"})
    passes = g.add("DynamicFace_RenderPasses", prior=(prior, "prior"))
    g.column()
    g.add("SaveImage", "Normals", images=(passes, "normal"), values={"filename_prefix": "DynamicFace/normal"})
    g.add("PreviewImage", "Depth", images=(passes, "depth"))
    g.column()
    g.add("PreviewImage", "Parts", images=(passes, "parts"))
    g.add("PreviewImage", "UV", images=(passes, "uv"))


def check_before_delivery(g: Graph) -> None:
    g.note(
        "## Check before delivery\n**QC Report** fits the result anew and says what changed against the plate, frame by frame. "
        "**Gate** lets "
        "it pass only when a figure is good enough. **Save with Provenance** writes down sources, models, consent and the mark for "
        "synthetic media."
    )
    photo = g.add("LoadImage", "Plate", values=A)
    g.column()
    prior = _fitted(g, photo, "")
    edited = g.add("DynamicFace_EditExpression", prior=(prior, "prior"), values={"smile": -0.5})
    g.column()
    result = g.add("DynamicFace_Composite", prior=(edited, "prior"))
    g.column()
    wires = {"images": (result, "image"), "plate": (photo, "IMAGE"), "mask": (result, "mask")}
    report = g.add("DynamicFace_QCReport", **wires)
    wires = {"images": (result, "image"), "quality": (report, "quality")}
    gate = g.add("DynamicFace_Gate", **wires)
    g.column()
    values = {"consent": "Who agreed to what, and where the release is kept", "filename_prefix": "DynamicFace/delivery"}
    g.add("DynamicFace_Provenance", images=(gate, "image"), values=values)
    g.add("SaveImage", "Report", images=(report, "report"), values={"filename_prefix": "DynamicFace/report"})


CHECKPOINT = {"ckpt_name": "v1-5-pruned-emaonly-fp16.safetensors"}
PROMPT, NEGATIVE = "photograph of a person's face, natural skin, sharp eyes", "painting, drawing, blurry, plastic skin"
WAKE = "Grey groups are muted. To wake one: put its files into their folder, press R, select its nodes, press Ctrl+M."


def your_checkpoint_a_still(g: Graph) -> None:
    g.note(
        "## A still with your own checkpoint\nAny **Stable Diffusion 1.5** checkpoint finishes a swap: choose yours in *Load Checkpoint* "
        "(it lies in `models/checkpoints`). The composite is the start picture, the **Detail Stream** shows the model the source person, "
        "**Paste Back** keeps everything else. *denoise* in KSampler decides how much the checkpoint may change.\n\n"
        "**Mixture of Guiders** and **Identity Stream** need adapters for the checkpoint. `python -m dynamicface train --config sd15` "
        "writes them (`guider_normal`, `guider_expression`, `guider_pose`, `guider_illumination`, `guider_background`, `id2token`): put "
        "them into `models/dynamicface/sd15`. Files of Champ and others go into the same nodes; the help of *Load Adapter* lists them "
        f"with their licences. {WAKE}\n\nNothing is downloaded. Use it with the consent of the people shown.",
        height=520,
    )
    g.column()
    with g.group("Analyse"):
        source = g.add("LoadImage", "Source: this person", values=A)
        target = g.add("LoadImage", "Target: in this picture", values=B)
        g.column()
        who = _fitted(g, source, "source")
        where = _fitted(g, target, "target")
    g.column()
    with g.group("Compose"):
        composed = g.add("DynamicFace_ComposePrior", base=(where, "prior"), identity=(who, "prior"))
        composite = g.add("DynamicFace_Composite", prior=(composed, "prior"))
        guides = g.add("DynamicFace_RenderGuides", prior=(composed, "prior"))
    g.column()
    _shown(g, guides)
    g.column()
    loaded = {}
    with g.group("Mixture of Guiders (needs files)", muted=True):
        for attribute in ATTRIBUTES:
            values = {"file": f"dynamicface/sd15/guider_{attribute}.safetensors", "guider": attribute}
            loader = g.add("DynamicFace_LoadAdapter", f"Load {attribute} guider", values=values, **loaded)
            loaded = {"previous": (loader, "adapters")}
        g.column()
        mixture = _guiders(g, guides)
    g.column()
    with g.group("Streams"):
        detail = g.add("DynamicFace_DetailStream", source=(who, "prior"))
        fusion = g.add("DynamicFace_DualStreamFusion")
    with g.group("Identity Stream (needs a file)", muted=True):
        values = {"file": "dynamicface/sd15/id2token.safetensors"}
        loader = g.add("DynamicFace_LoadAdapter", "Load identity tokens", values=values, **loaded)
        identity = g.add("DynamicFace_IdentityStream", source=(who, "prior"))
    streams = {"detail": (detail, "detail"), "fusion": (fusion, "fusion"), "mixture": (mixture, "mixture")}
    streams |= {"identity": (identity, "identity"), "adapters": (loader, "adapters")}
    pasted = _on_a_checkpoint(g, guides, composite, streams)
    g.column()
    with g.group("Deliver"):
        g.add("SaveImage", "Finished", images=(pasted, "image"), values={"filename_prefix": "DynamicFace/checkpoint_still"})
        g.add("PreviewImage", "Without the checkpoint", images=(composite, "image"))


def your_checkpoint_a_shot(g: Graph) -> None:
    g.note(
        "## A shot with your own checkpoint\nAny **Stable Diffusion 1.5** checkpoint finishes a changed expression, frame by frame but as "
        "one clip: **FusionTVO (while sampling)** lets the frames share their noise along the plate's motion, takes variation out and "
        "holds the background. Choose the checkpoint in *Load Checkpoint* (it lies in `models/checkpoints`).\n\n"
        "**Temporal layers** come from an AnimateDiff motion module, e.g. `v3_sd15_mm.ckpt` or `mm_sd_v15_v2.ckpt`, in "
        f"`models/dynamicface/animatediff` or the folder of AnimateDiff-Evolved. {WAKE}\n\n"
        "Nothing is downloaded. Try a short part first: the time grows with the number of frames.",
        height=440,
    )
    g.column()
    with g.group("Analyse"):
        shot = g.add("LoadVideo", "Shot", values={"file": "shot.mp4"})
        parts = g.add("GetVideoComponents", video=(shot, "VIDEO"))
        track = g.add("DynamicFace_TrackFaces", images=(parts, "images"))
        fitted = g.add("DynamicFace_FitPrior", images=(parts, "images"), track=(track, "track"))
        prior = g.add("DynamicFace_SmoothPrior", prior=(fitted, "prior"))
    g.column()
    with g.group("Change"):
        edited = g.add("DynamicFace_EditExpression", prior=(prior, "prior"), values={"smile": 0.8})
        composite = g.add("DynamicFace_Composite", prior=(edited, "prior"))
    g.column()
    with g.group("Crops"):
        guides = g.add("DynamicFace_RenderGuides", prior=(edited, "prior"))
        plate = g.add("DynamicFace_RenderGuides", "The plate in the same crop", prior=(prior, "prior"))
    g.column()
    _shown(g, guides)
    g.column()
    with g.group("Streams"):
        detail = g.add("DynamicFace_DetailStream", source=(prior, "prior"))
        fusion = g.add("DynamicFace_DualStreamFusion")
    with g.group("Temporal layers (need a file)", muted=True):
        values = {"file": "dynamicface/animatediff/v3_sd15_mm.ckpt"}
        loader = g.add("DynamicFace_LoadAdapter", "Load AnimateDiff", values=values)
    streams = {"detail": (detail, "detail"), "fusion": (fusion, "fusion"), "adapters": (loader, "adapters")}
    pasted = _on_a_checkpoint(g, guides, composite, streams, plate)
    g.column()
    with g.group("Deliver"):
        video = g.add("CreateVideo", images=(pasted, "image"), audio=(parts, "audio"), fps=(parts, "fps"))
        g.add("SaveVideo", "Finished shot", video=(video, "VIDEO"), values={"filename_prefix": "DynamicFace/checkpoint_shot"})
        frame = g.add("ImageFromBatch", "One frame", image=(pasted, "image"), values={"batch_index": 5, "length": 1})
        g.add("SaveImage", "One frame", images=(frame, "IMAGE"), values={"filename_prefix": "DynamicFace/checkpoint_shot"})


def _shown(g: Graph, guides: dict) -> None:
    """What steers the checkpoint, as pictures."""
    with g.group("What steers it"):
        g.add("PreviewImage", "Start picture", images=(guides, "composite"))
        for name in ("normal", "expression"):
            g.add("PreviewImage", f"{name.capitalize()} guide", images=(guides, name))


def _on_a_checkpoint(g: Graph, guides: dict, composite: dict, streams: dict, plate: dict | None = None) -> dict:
    """From guides and streams to the pasted picture through the artist's checkpoint. plate: guides of the unchanged clip, for FusionTVO."""
    g.column()
    with g.group("Your checkpoint"):
        checkpoint = g.add("CheckpointLoaderSimple", values=CHECKPOINT)
        said = [
            g.add("CLIPTextEncode", t, clip=(checkpoint, "CLIP"), values={"text": v}) for t, v in (("Prompt", PROMPT), ("Not", NEGATIVE))
        ]
        wires = {"model": (checkpoint, "MODEL"), "vae": (checkpoint, "VAE"), "guides": (guides, "guides"), **streams}
        wires |= {"positive": (said[0], "CONDITIONING"), "negative": (said[1], "CONDITIONING")}
        applied = g.add("DynamicFace_ApplyDynamicFace", **wires)
        conditioned = {key: (applied, key) for key in ("model", "positive", "negative")}
        if plate is not None:
            filmed = g.add("VAEEncode", "The plate as latent", pixels=(plate, "composite"), vae=(checkpoint, "VAE"))
            wires = {"plate": (plate, "composite"), "mask": (guides, "mask"), "background": (filmed, "LATENT")}
            calm = g.add("DynamicFace_FusionTVOSampling", model=(applied, "model"), **wires)
            conditioned["model"] = (calm, "model")
        g.column()
        values = {"seed": 0, "steps": 20, "cfg": 5.0, "sampler_name": "dpmpp_2m", "scheduler": "karras", "denoise": 0.4}
        latent = g.add("KSampler", latent_image=(applied, "latent"), values=values, **conditioned)
        crops = g.add("VAEDecode", samples=(latent, "LATENT"), vae=(checkpoint, "VAE"))
        inputs = {"images": (crops, "IMAGE"), "mask": (guides, "mask"), "crop": (guides, "crop"), "base": (guides, "composite")}
        return g.add("DynamicFace_PasteBack", plate=(composite, "image"), **inputs)


BUILDERS: tuple[Callable[[Graph], None], ...] = (
    edit_an_expression,
    swap_a_face,
    relight,
    compose_five_factors,
    guides_for_any_controlnet,
    change_a_shot,
    stabilise_any_swap,
    generate_an_expression,
    swap_with_the_generator,
    your_checkpoint_a_still,
    your_checkpoint_a_shot,
    expression_by_name,
    bring_a_photograph_to_life,
    expression_of_another_photo,
    library_of_an_actor,
    a_face_for_3d,
    check_before_delivery,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--thumbnails", nargs=2, metavar=("A", "B"), type=Path, help="run the workflows on these photographs for their pictures"
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these workflows instead of all")
    options = parser.parse_args()
    for file, photo in zip(("portrait_a.png", "portrait_b.png"), options.thumbnails or (), strict=False):
        Image.open(photo).convert("RGB").resize((512, 512), Image.Resampling.LANCZOS).save(BASE / "input" / file)
    if options.thumbnails:
        still = Image.open(BASE / "input" / "portrait_b.png")
        write_clip(BASE / "input" / CLIP, [still.crop((k, 0, 480 + k, 480)) for k in range(0, 2 * CLIP_FRAMES, 2)])
    with ComfyServer() as server:
        object_info = server.get("/object_info")
        for build in [build for build in BUILDERS if not options.only or build.__name__ in options.only]:
            graph = Graph(object_info)
            build(graph)
            path = WORKFLOWS / f"{build.__name__}.json"
            path.write_text(json.dumps(graph.workflow(), indent=1) + "\n", encoding="utf-8")
            if options.thumbnails:
                _thumbnail(server, graph.workflow(), object_info).save(path.with_suffix(".jpg"), quality=88)
            print(path)


def _thumbnail(server: ComfyServer, workflow: dict, object_info: dict) -> Image.Image:
    """What goes in and what comes out, side by side. Without the artist's checkpoint: what steers it, and said to be no result."""
    whole = to_api(workflow, object_info)
    prompt = without(whole, CHECKPOINTS)
    outputs = server.run(prompt)
    order = ["SaveVideo", "SaveImage", "DynamicFace_Provenance", "DynamicFace_RenderPrior", "PreviewImage"]
    nodes = sorted(
        (node for node in outputs if prompt[node]["class_type"] in order),
        key=lambda node: (order.index(prompt[node]["class_type"]), int(node)),
    )
    results = [picture for node in nodes for picture in _spread([_opened(server.view(entry)) for entry in outputs[node]["images"]])]
    given = [_opened((BASE / "input" / name).read_bytes()) for name in _inputs(prompt)]
    if prompt != whole:
        results, given = [_opened(server.view(outputs[node]["images"][0])) for node in nodes], []
    tiles = [*given, *results][:THUMBNAIL_TILES]
    sheet = Image.new("RGB", (THUMBNAIL * len(tiles), THUMBNAIL))
    for index, picture in enumerate(tiles):
        lay = ImageOps.fit if max(picture.size) < 1.5 * min(picture.size) else ImageOps.pad  # a contact sheet is shown whole
        sheet.paste(lay(picture, (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS), (index * THUMBNAIL, 0))
        if prompt != whole:
            _label(sheet, index * THUMBNAIL, f"{prompt[nodes[index]]['_meta']['title']}, not the result")
    return sheet


def _inputs(prompt: dict) -> list[str]:
    """The files a prompt reads, in its order."""
    fields = {"LoadImage": "image", "LoadVideo": "file"}
    return [node["inputs"][fields[node["class_type"]]] for node in prompt.values() if node["class_type"] in fields]


def _opened(file: bytes) -> Image.Image:
    """A picture, or the middle frame of a clip."""
    try:
        return Image.open(io.BytesIO(file)).convert("RGB")
    except UnidentifiedImageError:
        with av.open(io.BytesIO(file)) as clip:
            frames = [frame.to_image() for frame in clip.decode(video=0)]
        return frames[len(frames) // 2]


def _spread(images: list[Image.Image]) -> list[Image.Image]:
    """The middle and the last of a batch."""
    return [images[k] for k in sorted({len(images) // 2, len(images) - 1})]


def _label(sheet: Image.Image, left: int, text: str) -> None:
    """White on black along a tile's lower edge."""
    draw = ImageDraw.Draw(sheet)
    draw.rectangle((left, THUMBNAIL - 28, left + THUMBNAIL, THUMBNAIL), fill="black")
    draw.text((left + 8, THUMBNAIL - 24), text, fill="white", font_size=16)


if __name__ == "__main__":
    main()
