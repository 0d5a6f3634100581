"""The two common jobs as one node each, made of the same functions as the graph."""

from __future__ import annotations

from comfy_api.latest import io

from ..dynamicface.compose import compose_prior
from ..dynamicface.edit import edit_expression, edit_pose
from ..dynamicface.errors import NoFaceError
from ..dynamicface.prior.estimate import fit_prior
from ..dynamicface.skin import SwapLook
from .edit import SHOWS_PREVIEW, expression_dials, intensity_slider, pose_dials
from .guides import OCCLUSION_TOOLTIP, composite, result_outputs
from .host.models import head_model, person_matte, to_working_device
from .host.preview import live_preview
from .host.run import progress
from .schema import advanced, schema, slider
from .track import CHOICES, CHOOSE_TOOLTIP, INDEX_TOOLTIP, REFERENCE_TOOLTIP, find_track


def fitted(images, name="images", **choice):
    """Track and fit; frames of one batch are one person. name: of the input, for the sentence where no face is found."""
    try:
        track = find_track(images, **choice)
    except NoFaceError as error:
        raise NoFaceError(f"'{name}': {error}") from error
    images, track = to_working_device((images, track))
    return fit_prior(images, track, head_model(), matte=person_matte(images, track.cuts), progress=progress())


def choice_inputs() -> list[io.Input]:
    return [
        advanced(io.Combo.Input("choose", options=CHOICES, default="largest", tooltip=CHOOSE_TOOLTIP)),
        advanced(io.Int.Input("index", default=0, min=0, max=63, tooltip=INDEX_TOOLTIP)),
        io.Image.Input("reference", optional=True, tooltip=REFERENCE_TOOLTIP),
        io.Mask.Input("occlusion", optional=True, tooltip=OCCLUSION_TOOLTIP),
    ]


class Expression(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Expression",
            "DynamicFace Expression",
            "Photo or shot in, edited face out: tracking, fit, expression and pose dials and composite in one node. Every change of a dial "
            "runs all of it; for quick dials use Track Faces, Fit 3D Prior, Edit Expression and Composite into Plate.",
            search_aliases=["smile", "expression editor"],
            inputs=[
                io.Image.Input("images", tooltip="A photo or the frames of a shot."),
                intensity_slider(),
                *pose_dials(),
                *choice_inputs(),
                *expression_dials(),
            ],
            outputs=result_outputs(),
            **SHOWS_PREVIEW,
        )

    @classmethod
    def execute(cls, images, intensity, yaw, pitch, roll, choose, index, reference=None, occlusion=None, **dials) -> io.NodeOutput:
        prior = fitted(images, choose=choose, index=index, reference=reference)
        edited = edit_pose(edit_expression(prior, dials, intensity=intensity), yaw=yaw, pitch=pitch, roll=roll)
        return io.NodeOutput(*composite(edited, occlusion), ui=live_preview(prior))


class Swap(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "Swap",
            "DynamicFace Swap",
            "The person of 'source' appears in 'target', with the target's expression, head pose, light and background. Several source "
            "photos in one batch make the likeness better. Use it with the consent of the people shown.",
            search_aliases=["face swap", "deepfake", "reactor"],
            inputs=[
                io.Image.Input(
                    "source", tooltip="One or several photos of the person who shall appear. Frontal, neutral and evenly lit is best."
                ),
                io.Image.Input("target", tooltip="The photo or the frames of the shot to work on."),
                slider(
                    "identity", 0.0, 1.0, "How far towards the source person: 0 leaves the target, 0.5 is a blend of both.", default=1.0
                ),
                advanced(
                    slider("skin_tone", 0.0, 1.0, "0 keeps the target's skin tone, so that neck and ears match; 1 takes the source's.")
                ),
                advanced(
                    slider("detail", 0.0, 1.0, "Strength of the source's pores and wrinkles: 1 as in the photo, 0 smooth.", default=1.0)
                ),
                *choice_inputs(),
            ],
            outputs=result_outputs(),
        )

    @classmethod
    def execute(cls, source, target, identity, skin_tone, detail, choose, index, reference=None, occlusion=None) -> io.NodeOutput:
        base = fitted(target, "target", choose=choose, index=index, reference=reference)
        prior = compose_prior(base, identity=fitted(source, "source"), identity_weight=identity)
        return io.NodeOutput(*composite(prior, occlusion, SwapLook(skin_tone=skin_tone, detail=detail)))
