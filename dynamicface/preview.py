"""One frame of a prior in a few hundred kilobytes, for a live preview that deforms, turns and lights the face on its own.

The file is a safetensors file: tensors as below, and under "preview" in its metadata a JSON object with names and constants. It holds
what the edits of `edit.py` need, so the preview's dials are the library's: tables are data, never a second list. web/preview/ reads it;
tests hold its vertices against :meth:`HeadModel.vertices`.

    faces (T, 3), uv (V, 2), openness (V,), hidden (V,)   the mesh, and what `render_prior` shades the mouth with
    neutral, offset (V, 3)                                the identity's rest face; where the landmarks were seen beside it
    morph_start (E + 1,), morph_vertex (N,), morph_step (N, 3) int16, morph_scale (E,)    expressions, sparse: metres = step * scale
    eye_centre (2, 3), eye_radius (2,), eye_left, eye_right (ids), lids_left.*, lids_right.* (`Lids`, and its blink's travel)
    expression (E,), gaze (2, 2), rotation (3, 3), translation (3,), illumination (9, 3)  the frame's factors
    dial_up, dial_down (D, E), dial_gaze (D, 2) radians   the expression dials
    light_frontal, light_lobe (9,), luminance (3,)        `light.frontal_level`, `light.directional` and `light.luminance` as vectors
    texture                                               JPEG file, sRGB albedo
    identity_step (I, V, 3) int16, identity_scale (I,), identity_eye_centre (I, 2, 3), identity_eye_radius (I, 2)   only if asked for
"""

from __future__ import annotations

import io
import json
import math
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save
from torch import Tensor

from .conventions import PARTS, linear_to_srgb
from .dials import DIALS, MEASURES
from .edit import NECK_PIVOT, edit_identity
from .prior import light
from .prior.geometry import CROP_CENTRE, CROP_METRES, offset_field
from .prior.head import HeadModel
from .prior.lids import CLEARANCE, OVERLAP
from .regions import STRONGEST
from .render import HIDDEN_PARTS
from .types import FacePrior, Identity

FORMAT = "dynamicface.preview.1"
TEXTURE_SIZE, TEXTURE_QUALITY = 512, 90
_STEPS = 32767
_STILL = 2e-6  # metres; a vertex that moves less is not part of a morph


@torch.inference_mode()
def preview_file(prior: FacePrior, head: HeadModel, frame: int = 0, identity: bool = False) -> bytes:
    """The preview of one frame of a prior, on the head's device. identity adds what the dials of `edit_identity` need (+ 0.4 MB)."""
    frame = range(len(prior))[frame]
    shape = prior.identity.shape.to(head.template)
    names = head.expression_names
    centre, radius = head.eyes(shape)
    field = offset_field(head)
    tensors = dict(_fixed(head)) | {
        "neutral": head.template + torch.einsum("s,svc->vc", shape, head.shape_basis),
        "offset": field @ prior.offset[frame].to(field),
        "eye_centre": centre,
        "eye_radius": radius,
        "texture": _jpeg(head.albedo if prior.identity.albedo is None else prior.identity.albedo),
    }
    tensors |= {name: getattr(prior, name)[frame] for name in ("expression", "gaze", "rotation", "translation", "illumination")}
    meta = {
        "format": FORMAT,
        "channels": names,
        "dials": list(DIALS),
        "strongest": STRONGEST,
        "lids": {"overlap": OVERLAP, "clearance": CLEARANCE},
        "neck": NECK_PIVOT,
        "crop": {"metres": CROP_METRES, "centre": CROP_CENTRE},
        "identity": [],
    }
    if identity:
        meta["identity"] = ["exaggerate", *MEASURES]
        tensors |= _identity(prior.replace(identity=Identity(shape), background=None), head)
    return save({name: value.cpu().contiguous() for name, value in tensors.items()}, {"preview": json.dumps(meta)})


@lru_cache(maxsize=2)
def _fixed(head: HeadModel) -> dict[str, Tensor]:
    """What does not depend on the person: mesh, expressions, lids, dials."""
    moving = head.expression_basis.abs().amax(-1) > _STILL  # (E, V)
    scale = head.expression_basis.abs().amax((1, 2)).clamp_min(1e-9) / _STEPS
    steps = (head.expression_basis / scale[:, None, None]).round().to(torch.int16)
    hidden = torch.zeros(len(head.template), dtype=torch.uint8, device=head.template.device)
    hidden[head.faces[torch.isin(head.part, head.part.new_tensor([PARTS.index(part) for part in HIDDEN_PARTS]))].unique()] = 1
    ring = torch.eye(9, dtype=head.template.dtype, device=head.template.device)
    dials = {
        "dial_up": torch.tensor([[dial.up.get(name, 0.0) for name in head.expression_names] for dial in DIALS.values()]),
        "dial_down": torch.tensor([[dial.down.get(name, 0.0) for name in head.expression_names] for dial in DIALS.values()]),
        "dial_gaze": torch.tensor([dial.gaze for dial in DIALS.values()]) * (math.pi / 180),
    }
    lids = {}
    for side, (lid, blink) in zip(("left", "right"), zip(head.lids, ("eyeBlinkLeft", "eyeBlinkRight"), strict=False), strict=False):
        lids |= {f"lids_{side}.{name}": value for name, value in lid.pack().items()}
        lids[f"lids_{side}.travel"] = head.expression_basis[head.expression_names.index(blink), lid.upper]
    return {
        "faces": head.faces.int(),
        "uv": head.uv,
        "openness": head.ambient_occlusion,
        "hidden": hidden,
        "morph_start": torch.cat([moving.new_zeros(1, dtype=torch.int32), moving.sum(1).cumsum(0).int()]),
        "morph_vertex": moving.nonzero()[:, 1].int(),
        "morph_step": steps[moving],
        "morph_scale": scale,
        "eye_left": head.eye_vertices[0].int(),
        "eye_right": head.eye_vertices[1].int(),
        "light_frontal": light.frontal_level(ring[..., None].expand(9, 9, 3))[:, 0],
        "light_lobe": ring.new_tensor(light.COSINE_LOBE) * math.pi,
        "luminance": light.luminance(torch.eye(3)),
        **dials,
        **lids,
    }


def _identity(prior: FacePrior, head: HeadModel) -> dict[str, Tensor]:
    """What each identity dial at 1 does to the rest face and the eyeballs; `edit_identity` is linear in its dials."""
    shape = prior.identity.shape
    edits = [({}, 1.0), *(({name: 1.0}, 0.0) for name in MEASURES)]
    moved = torch.stack([edit_identity(prior, head, measures, exaggerate).identity.shape for measures, exaggerate in edits])
    motion = torch.einsum("is,svc->ivc", moved - shape, head.shape_basis)
    scale = motion.abs().amax((1, 2)).clamp_min(1e-9) / _STEPS
    (centre, radius), (moved_centre, moved_radius) = head.eyes(shape), head.eyes(moved)
    return {
        "identity_step": (motion / scale[:, None, None]).round().to(torch.int16),
        "identity_scale": scale,
        "identity_eye_centre": moved_centre - centre,
        "identity_eye_radius": moved_radius - radius,
    }


def _jpeg(albedo: Tensor) -> Tensor:
    """(3, U, U) linear -> the bytes of an sRGB JPEG."""
    if albedo.shape[-1] > TEXTURE_SIZE:
        albedo = torch.nn.functional.interpolate(albedo[None], (TEXTURE_SIZE, TEXTURE_SIZE), mode="area")[0]
    pixels = (linear_to_srgb(albedo).clamp(0, 1) * 255).round().byte().permute(1, 2, 0).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=TEXTURE_QUALITY)
    return torch.from_numpy(np.frombuffer(file.getvalue(), np.uint8).copy())
