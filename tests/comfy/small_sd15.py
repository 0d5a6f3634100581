"""A Stable Diffusion 1.5 model a tenth as wide, with random weights: as a MODEL, and as a checkpoint file for Load Checkpoint.

It stands for the mechanics only; what it draws is noise. ComfyUI knows checkpoints by their widths, so it has to be told of these.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file

_UNET = {
    **{"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "channel_mult": (1, 2, 4, 4)},
    **{"num_res_blocks": [2, 2, 2, 2], "num_heads": 8, "num_head_channels": -1, "use_spatial_transformer": True, "context_dim": 64},
    **{"transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1, "transformer_depth_output": [1] * 9 + [0] * 3},
    **{"use_linear_in_transformer": False, "adm_in_channels": None, "use_temporal_attention": False, "use_temporal_resblock": False},
    "legacy": False,
}
_TEXT = {"hidden_size": 64, "intermediate_size": 64, "num_attention_heads": 4, "num_hidden_layers": 2}


def stir(module: torch.nn.Module, dtype: torch.dtype = torch.float32) -> None:
    """Random weights that keep the size of what passes through."""
    generator = torch.Generator().manual_seed(0)
    for parameter in (parameter for parameter in module.parameters() if parameter.dim() > 0):
        scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
        parameter.data = (torch.randn(parameter.shape, generator=generator) * scale + (parameter.dim() == 1)).to(dtype)


def small_model(dtype: torch.dtype = torch.float32):
    """A native SD 1.5 MODEL."""
    import comfy.model_base
    import comfy.model_management as mm
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15(_UNET)
    config.unet_config.update(_UNET)
    config.set_inference_dtype(dtype, None)
    base = comfy.model_base.BaseModel(config)
    stir(base.diffusion_model, dtype)
    return comfy.model_patcher.ModelPatcher(base, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())


def small_kind():
    """What ComfyUI has to know to read :func:`write_checkpoint`'s file: SD 1.5 at these widths, for `comfy.supported_models.models`."""
    from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
    from comfy.supported_models import SD15
    from comfy.supported_models_base import ClipTarget

    class SmallText(SD1ClipModel):
        def __init__(self, device="cpu", dtype=None, model_options=None):
            super().__init__(device, dtype, {**(model_options or {}), "clip_l_model_config": _TEXT})

    class SmallSD15(SD15):
        unet_config = SD15.unet_config | {"context_dim": _UNET["context_dim"], "model_channels": _UNET["model_channels"]}

        def clip_target(self, state_dict=None):
            return ClipTarget(SD1Tokenizer, SmallText)

    return SmallSD15


def write_checkpoint(path: Path) -> None:
    """U-Net, text encoder and VAE in one file under Stable Diffusion 1.5's names; the VAE is of the tiny kind, TAESD."""
    import comfy.taesd.taesd

    text = small_kind().clip_target(None).clip()
    vae = comfy.taesd.taesd.TAESD(latent_channels=4)
    stir(text)
    stir(vae)
    parts = {
        "model.diffusion_model.": small_model().model.diffusion_model,
        "cond_stage_model.": text.clip_l,
        "first_stage_model.": vae,
    }
    state = {prefix + name: value.contiguous() for prefix, part in parts.items() for name, value in part.state_dict().items()}
    save_file(state, str(path))
