"""The embedded generator as a native ComfyUI MODEL: an own BaseModel around the library's network.

Conditioning carries one entry, "dynamicface", a :class:`Steering`. The guiders, the Face Former and the reference run once per sampling run
(`extra_conds`), after ComfyUI has put the network on its device; the steps read what they left.
"""

from __future__ import annotations

from typing import Any

import comfy.conds
import comfy.latent_formats
import comfy.model_base
import comfy.model_management as mm
import comfy.model_patcher
import comfy.supported_models_base
import comfy.utils
import node_helpers
import torch
from comfy.ldm.modules.attention import optimized_attention
from comfy.patcher_extension import WrapperExecutor, WrappersMP, get_all_wrappers

from ...dynamicface.errors import DynamicFaceError
from ...dynamicface.generator.files import read_generator
from ...dynamicface.generator.network import Conditions, Generator, GeneratorConfig
from ...dynamicface.generator.steering import SIZE, Steering, steer

STEERING = "dynamicface"  # the key in a conditioning's dictionary
_PER_FRAME = ("features", "strength", "tokens", "mixed", "seen")
_PER_BLOCK = ("told", "recalled")  # a tensor per transformer block each
_WINDOWS = ("window", "identity_window", "detail_window")


class NativeGenerator(Generator):
    """The network with ComfyUI's calling convention: returns the flow's velocity, honours wrappers and attention patches."""

    def __init__(self, network: GeneratorConfig, dtype: torch.dtype | None = None, device: Any = None, operations: Any = None, **_: Any):
        super().__init__(network, operations=operations, dtype=dtype, device=device)
        self.dtype = dtype

    def forward(self, x, timesteps, context=None, control=None, transformer_options=None, **conds):
        """(B, 3, H, W) velocity (x - x0) / sigma; timesteps are 1000 sigma, conds what `FaceModel.extra_conds` prepared."""
        options = transformer_options if transformer_options is not None else {}
        executor = WrapperExecutor.new_class_executor(self._velocity, self, get_all_wrappers(WrappersMP.DIFFUSION_MODEL, options))
        return executor.execute(x, timesteps, context, control, options, **conds)

    def _velocity(self, x, timesteps, context=None, control=None, transformer_options=None, composite=None, mask=None, **conds):
        sigma = (timesteps / 1000).to(torch.float32)
        conditions = Conditions(
            **{name: conds.get(name) for name in _PER_FRAME},
            **{name: conds.get(name) for name in _WINDOWS},
            **{name: tuple(conds[key] for key in sorted(conds) if key.startswith(name)) or None for name in _PER_BLOCK},
            identity=conds.get("identity"),
            detail=conds.get("detail"),
            mode=conds.get("mode", "mixture"),
        )
        clean = super().forward(x, sigma, composite, mask, conditions, transformer_options | {"attention": optimized_attention})
        return (x - clean) / sigma.clamp_min(1e-6).to(x.dtype).view(-1, 1, 1, 1)


class FaceModel(comfy.model_base.BaseModel):
    """BaseModel whose conditions come from a Steering."""

    def __init__(self, config, device=None):
        super().__init__(config, comfy.model_base.ModelType.FLOW, device=device, unet_model=NativeGenerator)

    def extra_conds(self, **kwargs) -> dict[str, comfy.conds.CONDRegular]:
        """Run what does not depend on the step. kwargs: the conditioning's dictionary, noise and device."""
        steering, noise = kwargs.get(STEERING), kwargs["noise"]
        if not isinstance(steering, Steering):
            raise DynamicFaceError(
                "This model is DynamicFace's generator; connect positive and negative of Apply DynamicFace to the sampler."
            )
        if noise.shape != steering.composite.shape:
            raise DynamicFaceError(
                f"The latent has shape {tuple(noise.shape)}, the face crops {tuple(steering.composite.shape)}; "
                "connect the latent of Apply DynamicFace, or one of the same frames and size."
            )
        device, dtype = kwargs.get("device") or noise.device, self.manual_cast_dtype or self.get_dtype()
        conditions = self.diffusion_model.keep(steering.conditions(self.diffusion_model, torch.empty(0, device=device, dtype=dtype)))
        out: dict[str, Any] = {"composite": comfy.conds.CONDNoiseShape(steering.composite.to(device))}
        out["mask"] = comfy.conds.CONDNoiseShape(steering.mask.to(device))
        out |= {name: comfy.conds.CONDRegular(value) for name in _PER_FRAME if (value := getattr(conditions, name)) is not None}
        for name in _PER_BLOCK:
            out |= {f"{name}{k:02d}": comfy.conds.CONDRegular(value) for k, value in enumerate(getattr(conditions, name) or ())}
        out |= {name: comfy.conds.CONDRegular(v) for name in ("identity", "detail") if (v := getattr(conditions, name)) is not None}
        out |= {name: _Shared(value) for name in _WINDOWS if (value := getattr(conditions, name)) is not None}
        out["mode"] = comfy.conds.CONDConstant(conditions.mode)
        return out


class FaceConfig(comfy.supported_models_base.BASE):
    """What ComfyUI asks about a model before it builds it."""

    unet_config: dict = {}  # noqa: RUF012 (the base class's own form)
    unet_extra_config: dict = {}  # noqa: RUF012
    sampling_settings = {"shift": 1.0}  # noqa: RUF012
    latent_format = comfy.latent_formats.ChromaRadiance  # RGB pixels in -1..1, what core's pixel_space VAE makes
    memory_usage_factor = 0.05
    supported_inference_dtypes = [torch.float16, torch.bfloat16, torch.float32]  # noqa: RUF012

    def model_type(self, state_dict, prefix=""):
        return comfy.model_base.ModelType.FLOW

    def get_model(self, state_dict, prefix="", device=None):
        return FaceModel(self, device=device)


class _Shared(comfy.conds.CONDRegular):
    """A tensor that is the same for every frame."""

    def process_cond(self, batch_size, **kwargs):
        return self

    def can_concat(self, other):
        return torch.equal(self.cond, other.cond)

    def concat(self, others):
        return self.cond


def load(path: str | None, dtype: torch.dtype | None = None) -> comfy.model_patcher.ModelPatcher:
    """A generator file (None = the shipped one) as MODEL, under ComfyUI's memory management. Raises WeightsError."""
    network, state, _ = read_generator(path)
    load_device, offload_device = mm.get_torch_device(), mm.unet_offload_device()
    config = FaceConfig({"network": network})
    supported = config.supported_inference_dtypes
    count, stored = comfy.utils.calculate_parameters(state), comfy.utils.weight_dtype(state)
    dtype = dtype or mm.unet_dtype(model_params=count, supported_dtypes=supported, weight_dtype=stored)
    config.set_inference_dtype(dtype, mm.unet_manual_cast(dtype, load_device, supported))
    model = config.get_model(state, "", device=offload_device)
    patcher_type = getattr(comfy.model_patcher, "CoreModelPatcher", comfy.model_patcher.ModelPatcher)
    patcher = patcher_type(model, load_device=load_device, offload_device=offload_device)
    model.load_model_weights(state, "", **({"assign": True} if getattr(patcher, "is_dynamic", bool)() else {}))
    return patcher


def is_embedded(model: comfy.model_patcher.ModelPatcher) -> bool:
    """Whether a MODEL is this generator."""
    return isinstance(model.model, FaceModel)


def apply(model, positive, negative, mixture, identity, detail, fusion, guides):
    """(model, positive, negative, latent) for a stock sampler. The model itself needs no patch: all steering is conditioning.

    guides: a `Guides`; mixture, identity, detail, fusion: values of `streams.py` or None (mixture None = all five guiders of the guides).
    """
    size, multiple = guides.crop.size, model.model.diffusion_model.config.multiple
    if size % multiple:
        raise DynamicFaceError(f"The guides are {size} px; DynamicFace's generator needs a multiple of {multiple}, best {SIZE}.")
    steering = steer(guides, mixture, identity, detail, fusion)
    values = {STEERING: steering}
    samples = steering.composite.to(mm.intermediate_device())
    latent = {"samples": samples, "batch_index": [0] * len(samples)}  # one noise for the whole clip
    return model, node_helpers.conditioning_set_values(positive, values), node_helpers.conditioning_set_values(negative, values), latent


def empty_conditioning() -> list:
    """A CONDITIONING that says nothing: this generator reads no text."""
    return [[torch.zeros(1, 1, 1), {}]]
