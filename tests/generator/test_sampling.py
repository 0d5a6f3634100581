"""Sampling: both schedulers agree, every step count works, a clip shares its noise, frames in = frames out."""

from __future__ import annotations

import pytest
import torch

from dynamicface.generator.network import Generator
from dynamicface.generator.sampling import clip_noise, sample, sigma_steps


@pytest.mark.parametrize("steps", [1, 2, 4])
def test_diffusers_scheduler_gives_the_same(tiny, pictures, steps):
    diffusers = pytest.importorskip("diffusers")
    conditions = tiny.condition(pictures["guides"], None, pictures["embedding"], pictures["shape"], pictures["reference"])
    plain = sample(tiny, pictures["composite"], pictures["mask"], conditions, steps=steps, seed=5)
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler()
    other = sample(tiny, pictures["composite"], pictures["mask"], conditions, steps=steps, seed=5, scheduler=scheduler)
    torch.testing.assert_close(plain, other, atol=1e-4, rtol=0)


def test_windows_are_seamless(tiny, pictures):
    """Nine frames pass in two windows and come out as each would alone."""
    composite, mask = pictures["composite"].repeat(3, 1, 1, 1), pictures["mask"].repeat(3, 1, 1, 1)
    guides = {name: value.repeat(3, 1, 1, 1) for name, value in pictures["guides"].items()}
    done = []
    out = sample(tiny, composite, mask, tiny.condition(guides), steps=2, progress=lambda *step: done.append(step))
    assert out.shape == composite.shape and done[-1] == (18, 18) and len(done) == 4
    torch.testing.assert_close(out[8], out[2], atol=2e-5, rtol=0)


def test_what_the_steps_share_is_computed_once(tiny, pictures):
    conditions = tiny.condition(pictures["guides"], None, pictures["embedding"], pictures["shape"], pictures["reference"])
    ran = []
    layers = [tiny.fusion, tiny.middle.transformer.guiders.to_k]
    hooks = [layer.register_forward_hook(lambda module, *_: ran.append(module)) for layer in layers]
    sample(tiny, pictures["composite"], pictures["mask"], conditions, steps=3)
    for hook in hooks:
        hook.remove()
    assert len(ran) == 2 and set(ran) == set(layers)


def test_one_noise_for_the_clip_and_the_seed_matters(tiny, pictures):
    noise = clip_noise(pictures["composite"], 1)
    assert noise.shape == (1, 3, 32, 32) and not torch.equal(noise, clip_noise(pictures["composite"], 2))
    still = {k: v[:1].repeat(3, 1, 1, 1) for k, v in pictures.items() if k in ("composite", "mask")}
    out = sample(tiny, still["composite"], still["mask"], seed=1)
    assert torch.equal(out[0], out[1]) and not torch.equal(out, sample(tiny, still["composite"], still["mask"], seed=2))


def test_little_denoise_stays_close_to_the_composite(tiny, pictures):

    newborn = Generator(tiny.config)
    for denoise in (0.2, 1.0):
        out = sample(newborn, pictures["composite"], pictures["mask"], denoise=denoise, steps=3)
        torch.testing.assert_close(out, pictures["composite"], atol=1e-5, rtol=0)


def test_sigma_steps():
    assert sigma_steps(4) == [1, 0.75, 0.5, 0.25, 0] and sigma_steps(1, 0.5) == [0.5, 0]
    with pytest.raises(ValueError, match="at least one step"):
        sample(None, torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 8), steps=0)
