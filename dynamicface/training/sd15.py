"""Adapters of the artist's Stable Diffusion 1.5 checkpoint as a task of the loop: five guiders and the identity's tokens.

The checkpoint itself (a folder in diffusers' layout, not part of the pack) stays as it is. Trained are the published guiders, added after
the U-Net's first convolution as their plain sum, and ID2Token, whose tokens take the place of the prompt's. They are written one file each
under the published names, so every loader of such files reads them.
"""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor, nn

from ..errors import DynamicFaceError
from ..guiders import GUIDERS, MixtureOfGuiders
from ..identity_stream import ID2Token
from .config import TrainConfig

_MIN_SNR = 5.0


class Adapters(nn.Module):
    """What is trained."""

    def __init__(self, channels: int, token_dim: int, embedding: int = 1024) -> None:
        super().__init__()
        self.guiders = MixtureOfGuiders(out_channels=channels)
        self.identity = ID2Token(embedding, token_dim).eval()  # its dropout would draw beside the step's seed
        nn.init.normal_(self.identity.query, std=0.02)


class AdapterTask(nn.Module):
    """Denoising at a random time, with the adapters' help."""

    def __init__(self, config: TrainConfig, device: torch.device) -> None:
        """Raises DynamicFaceError: diffusers is not installed, or `config.base` is no folder of a Stable Diffusion checkpoint."""
        super().__init__()
        try:
            from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
        except (ImportError, RuntimeError) as error:  # diffusers raises the latter where a package it finds does not fit torch
            reason = str(error).strip().splitlines()[-1]
            raise DynamicFaceError(f"Training adapters needs a working diffusers (`pip install diffusers`), but: {reason}") from error
        parts = {"unet": UNet2DConditionModel, "vae": AutoencoderKL, "scheduler": DDPMScheduler}
        if not config.base or any(not (Path(config.base) / name).is_dir() for name in parts):
            raise DynamicFaceError(
                f"The configuration's base {config.base!r} is no Stable Diffusion 1.5 checkpoint; give a folder in diffusers' layout "
                f"(with {', '.join(parts)})."
            )
        self.config = config
        unet, vae, self.schedule = (
            kind.from_pretrained(config.base, subfolder=name, local_files_only=True) for name, kind in parts.items()
        )
        # Kept out of the module's own parameters: they are neither trained nor saved.
        self.frozen = (unet.to(device).requires_grad_(False).eval(), vae.to(device).requires_grad_(False).eval())
        self.net = Adapters(unet.config.block_out_channels[0], unet.config.cross_attention_dim).to(device)

    def forward(self, batch: dict[str, Tensor], seed: int) -> tuple[dict[str, Tensor], None]:
        """The weighted denoising error inside and around the face."""
        unet, vae = self.frozen
        draw = torch.Generator().manual_seed(seed)
        target, count = self._enlarged(batch["target"]), len(batch["target"])
        with torch.no_grad():
            clean = vae.encode(target).latent_dist.mode() * vae.config.scaling_factor
        noise = torch.randn(clean.shape, generator=draw).to(clean)
        time = torch.randint(self.schedule.config.num_train_timesteps, (count,), generator=draw).to(clean.device)
        keep = (torch.rand(len(GUIDERS) + 1, count, generator=draw) >= self.config.drop).to(clean)
        found = self._denoise(unet, self.schedule.add_noise(clean, noise, time), time, batch, keep)
        mode = self.schedule.config.prediction_type
        wanted = noise if mode == "epsilon" else self.schedule.get_velocity(clean, noise, time)
        level = self.schedule.alphas_cumprod.to(clean)[time]
        snr = level / (1 - level)
        weight = snr.clamp_max(_MIN_SNR) / (snr if mode == "epsilon" else snr + 1)
        region = F.interpolate(batch["mask"], clean.shape[-2:], mode="area")
        region = region + self.config.losses.outside * (1 - region)
        error = ((found.float() - wanted).square().mean(1, keepdim=True) * region).mean((1, 2, 3)) / region.mean((1, 2, 3))
        return {"denoising": (weight * error).mean()}, None

    def sheet(self, net: Adapters, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Columns of pictures in -1..1: the photograph, and the clean picture predicted from its half-noised latent."""
        unet, vae = self.frozen
        clean = vae.encode(self._enlarged(batch["target"])).latent_dist.mode() * vae.config.scaling_factor
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0)).to(clean)
        time = torch.full((len(clean),), self.schedule.config.num_train_timesteps // 2, device=clean.device)
        noisy = self.schedule.add_noise(clean, noise, time)
        found = self._denoise(unet, noisy, time, batch, torch.ones(len(GUIDERS) + 1, len(clean)).to(clean), net).float()
        level = self.schedule.alphas_cumprod.to(clean)[time].view(-1, 1, 1, 1)
        epsilon = self.schedule.config.prediction_type == "epsilon"
        latent = (noisy - (1 - level).sqrt() * found) / level.sqrt() if epsilon else level.sqrt() * noisy - (1 - level).sqrt() * found
        picture = vae.decode(latent / vae.config.scaling_factor).sample
        size = batch["target"].shape[-2:]
        return {"photograph": batch["target"], "denoised": F.interpolate(picture, size, mode="area").clamp(-1, 1)}

    @staticmethod
    def export(net: Adapters, folder: Path, facts: dict[str, str]) -> list[Path]:
        """Write every guider and the identity's tokens, fp16, under their published names."""
        parts = {f"guider_{name}": guider for name, guider in net.guiders.guiders.items()} | {"id2token": net.identity}
        paths = []
        for name, part in parts.items():
            paths.append(folder / f"{name}.safetensors")
            save_file({key: value.detach().half().cpu().contiguous() for key, value in part.state_dict().items()}, paths[-1], facts)
        return paths

    def _denoise(self, unet: nn.Module, noisy: Tensor, time: Tensor, batch: dict, keep: Tensor, net: Adapters | None = None) -> Tensor:
        """The U-Net's answer with the adapters' sum behind its first convolution and their tokens for a prompt."""
        net = net or self.net
        guidance = net.guiders({n: self._enlarged(batch[n]) for n in GUIDERS}, keep[:-1].T[:, :, None, None, None], mode="sum")
        tokens = net.identity(batch["embedding"]) * keep[-1].view(-1, 1, 1)
        hook = unet.conv_in.register_forward_hook(lambda module, inputs, features: features + guidance.to(features))
        try:
            return unet(noisy, time, tokens).sample
        finally:
            hook.remove()

    def _enlarged(self, pictures: Tensor) -> Tensor:
        """To the checkpoint's working size."""
        return F.interpolate(pictures, scale_factor=self.config.enlarge, mode="bilinear") if self.config.enlarge != 1 else pictures
