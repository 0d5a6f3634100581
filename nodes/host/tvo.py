"""FusionTVO on a MODEL: wrappers and core's context windows on a clone. The model itself is not touched; a dial at 0 adds nothing.

Segments are core's own context windows with the paper's weights, so ControlNets and conditioning are cut to each segment by core itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import comfy.model_management as mm
import comfy.sample
import torch
from comfy.context_windows import ContextFuseMethod, ContextSchedule, IndexListContextHandler, create_prepare_sampling_wrapper
from comfy.model_patcher import ModelPatcher
from comfy.patcher_extension import WrappersMP
from torch import Tensor

from ...dynamicface.errors import ImageError
from ...dynamicface.tvo.flow import DisFlow, Estimator, PairFlow, RaftFlow, plate_flow
from ...dynamicface.tvo.noise import carried_noise
from ...dynamicface.tvo.sampling import SamplingDials, check_clip, latent_mask, smooth_along_flow, variation_weight
from ...dynamicface.tvo.segments import anchored, segment_weights, segments

_KEY = "dynamicface_tvo"


def flow_estimator(model: ModelPatcher | None = None, preset: str = "medium") -> Estimator:
    """OpenCV's DIS, or the network of core's Load Optical Flow Model where one is connected."""
    if model is None:
        return DisFlow(preset)
    mm.load_models_gpu([model])
    return RaftFlow(model.model)


def flow_of(plate: Tensor, estimator: Estimator) -> PairFlow | None:
    """The plate's flow on the device values are kept on; None for a single frame."""
    return plate_flow(plate[..., :3].float().movedim(-1, 1), estimator) if len(plate) > 1 else None


@dataclass(frozen=True)
class Background:
    """What stays as filmed while the face is sampled."""

    latents: Tensor  # (F, C, h, w) the plate, as the VAE encoded it
    face: Tensor  # (F, H, W) 1 = is sampled


def apply(
    model: ModelPatcher, plate: Tensor, flow: PairFlow | None, dials: SamplingDials, mask: Tensor | None, background: Background | None
) -> ModelPatcher:
    """A clone of the model that samples the plate's frames as one clip; the model itself where nothing is to be done."""
    frames = len(plate)
    segmented = 0 < dials.length < frames
    moving = flow is not None and (dials.variation > 0 or dials.shared_noise > 0)
    if not segmented and not moving and background is None:
        return model
    model = model.clone()
    if segmented:
        model.model_options["context_handler"] = _segment_handler(dials)
        create_prepare_sampling_wrapper(model)
    model.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, _KEY, _with_noise(frames, flow, dials.shared_noise))
    if moving or background is not None:
        model.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, _KEY, _Step(flow, dials.variation, mask, background))
    return model


class _Segments(IndexListContextHandler):
    """Core's context windows where frames are the batch, which early versions of it handle only in part."""

    def set_step(self, timestep: Tensor, model_options: dict) -> None:
        """Segments are the same at every step, and samplers ask between steps, too: nothing to find out."""

    def get_resized_cond(self, cond_in, x_in, window, device=None):
        """Conditioning of one segment: what a model prepared frame by frame is cut to the segment's frames."""
        resized, frames = super().get_resized_cond(cond_in, x_in, window, device), x_in.shape[0]
        for entry in resized or ():
            prepared = entry.get("model_conds", {})
            for name, value in prepared.items():
                cond = getattr(value, "cond", None)
                if isinstance(cond, Tensor) and cond.dim() > 0 and cond.shape[0] == frames:
                    prepared[name] = value._copy_with(window.get_tensor(cond, device, dim=0))
        return resized


def _segment_handler(dials: SamplingDials) -> _Segments:
    """Context windows cut and weighed as in segments.py."""

    def schedule(frames: int, handler, model_options) -> list[list[int]]:
        cut = segments(frames, dials.length, dials.overlap)
        return [anchored(part, dials.anchor) for part in cut] if 0 <= dials.anchor < frames else cut

    def weights(length: int, *, idxs: list[int], **_) -> list[float]:
        return segment_weights(idxs, dials.overlap)

    handler = _Segments(
        ContextSchedule(_KEY, schedule), ContextFuseMethod(_KEY, weights), context_length=dials.length, context_overlap=dials.overlap, dim=0
    )
    handler.causal_window_fix = False  # of newer cores: one more frame before each segment, of which this one has an anchor
    return handler


def _with_noise(frames: int, flow: PairFlow | None, share: float) -> Callable:
    """OUTER_SAMPLE: the sampler's own noise, made to ride on the flow."""

    def wrapper(executor, noise: Tensor, latent_image: Tensor, *args, **kwargs):
        check_clip(noise, frames)
        if flow is not None:
            noise = carried_noise(noise, flow, share)
        return executor(noise, latent_image, *args, **kwargs)

    return wrapper


class _Step:
    """PREDICT_NOISE: one step of sampling on the whole clip, after guidance."""

    def __init__(self, flow: PairFlow | None, variation: float, mask: Tensor | None, background: Background | None) -> None:
        self.flow, self.variation, self.mask, self.background = flow, variation, mask, background

    def __call__(self, executor, x: Tensor, timestep: Tensor, model_options: dict | None = None, seed: int | None = None):
        options = model_options or {}
        size = tuple(x.shape[-2:])
        model = executor.class_obj.inner_model
        if self.background is not None:
            face = latent_mask(self.background.face, size).to(x)
            filmed = model.process_latent_in(self._filmed(x))
            noise = torch.randn(x[:1].shape, generator=torch.Generator().manual_seed(seed or 0)).to(x).expand_as(x)
            x = torch.lerp(model.scale_latent_inpaint(x=x, sigma=timestep, noise=noise, latent_image=filmed), x, face)
        clean = executor(x, timestep, options, seed)
        weight = variation_weight(self.variation, _done(options, timestep))
        if self.flow is not None and weight > 0:
            where = None if self.mask is None else latent_mask(self.mask, size).to(x)
            clean = smooth_along_flow(clean, _on(self.flow, x), weight, where)
        return clean if self.background is None else torch.lerp(filmed, clean, face)

    def _filmed(self, x: Tensor) -> Tensor:
        latents = self.background.latents
        if latents.shape != x.shape:
            found, wanted = (" x ".join(map(str, tuple(shape))) for shape in (latents.shape, x.shape))
            raise ImageError(
                f"The background latents are {found}, what is sampled is {wanted}. Encode the plate with the same VAE and size."
            )
        return latents.to(x)


class CarriedNoise:
    """A NOISE that rides on the plate's motion, for SamplerCustomAdvanced and core's Add Noise."""

    def __init__(self, seed: int, flow: PairFlow | None, frames: int, share: float) -> None:
        self.seed, self.flow, self.frames, self.share = seed, flow, frames, share

    def generate_noise(self, input_latent: dict) -> Tensor:
        noise = comfy.sample.prepare_noise(input_latent["samples"], self.seed, input_latent.get("batch_index"))
        check_clip(noise, self.frames)
        return noise if self.flow is None else carried_noise(noise, self.flow, self.share)


def _done(options: dict, sigma: Tensor) -> float:
    """Share of the sampling steps that lie behind this noise level; 0 where the sampler does not tell its levels."""
    levels = options.get("transformer_options", {}).get("sample_sigmas")
    if levels is None or len(levels) < 2:
        return 0.0
    return float((levels > sigma.max().to(levels) * 1.0001).sum()) / (len(levels) - 1)


def _on(flow: PairFlow, like: Tensor) -> PairFlow:
    return PairFlow(*(part.to(like) for part in (flow.forward, flow.backward, flow.forward_seen, flow.backward_seen)))
