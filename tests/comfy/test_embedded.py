"""The embedded generator as a native MODEL. A tiny network with stirred weights stands for the mechanics."""

from __future__ import annotations

import gc
import sys
from dataclasses import replace

import pytest
import torch
from comfy_in_process import fitted_photo, node

from dynamicface.guiders import GUIDERS, Guidance

FRAMES, SIZE = 3, 32


@pytest.fixture(scope="module")
def embedded(package):
    return sys.modules[f"{package}.nodes.host.embedded"]


@pytest.fixture(scope="module")
def steering(package):
    """Steering of the pack's own classes, with every condition present."""
    modules = {name: sys.modules[f"{package}.dynamicface.{name}"] for name in ("generator.steering", "streams", "guiders")}
    draw = torch.Generator().manual_seed(1)

    def make(**changes):
        streams = modules["streams"]
        weight = changes.pop("weight", {})
        guidances = tuple(
            modules["guiders"].Guidance(name, torch.rand(FRAMES, 3, SIZE, SIZE, generator=draw.manual_seed(k)), weight.get(name, 1.0))
            for k, name in enumerate(GUIDERS)
            if name not in changes.get("without", ())
        )
        changes.pop("without", None)
        detail = changes.pop("detail", 1.0)
        pictures = torch.rand(2, SIZE, SIZE, 3, generator=draw.manual_seed(12))
        values = {
            "composite": torch.rand(FRAMES, 3, SIZE, SIZE, generator=draw.manual_seed(11)) * 2 - 1,
            "mask": torch.ones(FRAMES, 1, SIZE, SIZE),
            "mixture": streams.Mixture(guidances),
            "identity": streams.IdentityStream(torch.nn.functional.normalize(torch.ones(1024), dim=0), torch.ones(80)),
            "detail": None if detail is None else streams.DetailStream(pictures, torch.tensor([-20.0, 20.0]), weight=detail),
            "yaw": torch.tensor([-20.0, 0.0, 20.0]),
        }
        return modules["generator.steering"].Steering(**(values | changes))

    return make


def run(embedded, model, steering, sampler="euler", scheduler="simple", steps=2, cfg=1.0, seed=7, latent=None, **options):
    """KSampler's own path on the model, with the steering on both sides."""
    import comfy.sample

    values = {embedded.STEERING: steering}
    conditioning = [[torch.zeros(1, 1, 1), values]]
    latent = steering.composite if latent is None else latent
    noise = comfy.sample.prepare_noise(latent, seed, [0] * len(latent))
    return comfy.sample.sample(model, noise, steps, cfg, sampler, scheduler, conditioning, conditioning, latent, seed=seed, **options)


@pytest.fixture(scope="module")
def model(embedded, tiny_weights):
    return embedded.load(str(tiny_weights))


def test_both_hosts_give_the_same_picture(embedded, model, tiny_weights, steering):
    """Same weights, noise and steps in ComfyUI and in the library."""
    from dynamicface.generator.files import load_generator
    from dynamicface.generator.sampling import sample
    from dynamicface.generator.steering import Steering
    from dynamicface.streams import DetailStream, IdentityStream, Mixture

    theirs = steering()
    guidances = tuple(Guidance(g.name, g.map, g.weight) for g in theirs.mixture.guidances)
    who, look = theirs.identity, theirs.detail
    streams = {"identity": IdentityStream(who.embedding, who.shape), "detail": DetailStream(look.pictures, look.yaw)}
    ours = Steering(theirs.composite, theirs.mask, Mixture(guidances), yaw=theirs.yaw, **streams)
    network = load_generator(tiny_weights)
    for steps in (1, 2, 5):
        here = run(embedded, model, theirs, steps=steps)
        with torch.inference_mode():
            there = sample(network, ours.composite, ours.mask, ours.conditions(network), steps=steps, seed=7)
        assert (here - there).abs().max() < 1e-4


def test_a_guider_or_stream_of_weight_zero_is_absent_to_the_bit(embedded, model, steering):
    full = run(embedded, model, steering())
    off = run(embedded, model, steering(weight={"pose": 0.0}))
    assert torch.equal(off, run(embedded, model, steering(without=("pose",)))) and not torch.equal(off, full)
    assert torch.equal(run(embedded, model, steering(detail=0.0)), run(embedded, model, steering(detail=None)))
    for stream in ("identity", "mixture"):
        assert not torch.equal(run(embedded, model, steering(**{stream: None})), full)


@pytest.mark.parametrize(
    "sampler", ["euler", "euler_ancestral", "heun", "dpmpp_2m", "dpmpp_2m_sde", "lcm", "uni_pc", "res_multistep", "ddim"]
)
def test_stock_samplers(embedded, model, steering, sampler):
    out = run(embedded, model, steering(), sampler=sampler, steps=4)
    assert out.shape == (FRAMES, 3, SIZE, SIZE) and torch.isfinite(out).all()


@pytest.mark.parametrize("scheduler", ["normal", "karras", "exponential", "sgm_uniform", "beta", "kl_optimal", "linear_quadratic"])
def test_stock_schedulers(embedded, model, steering, scheduler):
    assert torch.isfinite(run(embedded, model, steering(), scheduler=scheduler, steps=4)).all()


def test_guidance_with_an_unsteered_negative(embedded, model, steering):
    out = run(embedded, model, steering(), cfg=2.0)
    assert torch.isfinite(out).all()


def test_a_noise_mask_keeps_what_it_covers(embedded, model, steering):
    mask = torch.zeros(1, 1, SIZE, SIZE)
    mask[..., SIZE // 2 :] = 1
    given = steering()
    out = run(embedded, model, given, noise_mask=mask)
    torch.testing.assert_close(out[..., : SIZE // 2], given.composite[..., : SIZE // 2], atol=1e-5, rtol=0)
    assert (out - given.composite)[..., SIZE // 2 :].abs().mean() > 1e-3


def test_lora_works_and_comes_off_to_the_bit(embedded, model, steering):
    import comfy.sd

    plain = run(embedded, model, steering())
    down, up = torch.randn(2, 32) * 0.3, torch.randn(32, 2) * 0.3
    name = "lora_unet_middle_transformer_attn1_to_q"
    patched, _ = comfy.sd.load_lora_for_models(model, None, {f"{name}.lora_down.weight": down, f"{name}.lora_up.weight": up}, 1.0, 0)
    assert len(patched.patches) == 1
    assert not torch.equal(run(embedded, patched, steering()), plain)
    assert torch.equal(run(embedded, model, steering()), plain)


def test_attention_patches_are_honoured(embedded, model, steering):
    clone = model.clone()
    seen = []

    def patch(q, k, v, extra):
        seen.append(extra["block"])
        return q, k * 2, v

    clone.set_model_attn2_patch(patch)
    plain = run(embedded, model, steering())
    assert not torch.equal(run(embedded, clone, steering()), plain)
    assert {place[0] for place in seen} == {"middle"} and torch.equal(run(embedded, model, steering()), plain)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_storage(embedded, tiny_weights, model, steering, dtype):
    half = embedded.load(str(tiny_weights), dtype=dtype)
    assert half.model.diffusion_model.dtype == dtype
    exact, rough = run(embedded, model, steering()), run(embedded, half, steering())
    assert (rough - exact).abs().mean() < 0.05 * exact.abs().mean()


def test_partly_loaded_is_the_same_to_the_bit(embedded, model, tiny_weights, steering):
    import comfy.model_management as mm

    whole = run(embedded, model, steering())
    part = embedded.load(str(tiny_weights))
    mm.unload_all_models()
    part.load(torch.device("cpu"), lowvram_model_memory=part.model_size() // 3)
    assert torch.equal(run(embedded, part, steering()), whole)


def test_stop_button_within_a_step(embedded, model, steering):
    import comfy.model_management as mm

    stopped, steps = model.clone(), []

    def press(executor, *args, **kwargs):
        steps.append(1)
        mm.interrupt_current_processing(True)
        return executor(*args, **kwargs)

    stopped.add_wrapper("diffusion_model", press)
    try:
        with pytest.raises(mm.InterruptProcessingException):
            run(embedded, stopped, steering(), steps=20)
    finally:
        mm.interrupt_current_processing(False)
    assert len(steps) == 1


def test_memory_does_not_grow_over_runs(embedded, model, steering):
    """Fifty runs with every condition on leave as many tensors as three."""
    steered, counts = steering(), []
    for number in range(50):
        run(embedded, model, steered, steps=1)
        if number in (2, 49):
            gc.collect()
            counts.append(sum(isinstance(item, torch.Tensor) for item in gc.get_objects()))
    assert counts[1] <= counts[0]


def test_guiders_that_come_and_go_are_the_same_in_both_hosts(embedded, model, tiny_weights, steering):
    """With start and end the mixture changes between the steps, so nothing of it is kept over them."""
    from dynamicface.generator.files import load_generator
    from dynamicface.generator.sampling import sample
    from dynamicface.generator.steering import Steering
    from dynamicface.streams import Mixture

    late = [replace(g, start=0.4) if g.name == "pose" else g for g in steering().mixture.guidances]
    theirs = steering(mixture=replace(steering().mixture, guidances=tuple(late)), identity=None, detail=None)
    guidances = tuple(Guidance(g.name, g.map, g.weight, g.start, g.end) for g in late)
    ours, network = Steering(theirs.composite, theirs.mask, Mixture(guidances)), load_generator(tiny_weights)
    here = run(embedded, model, theirs, steps=4)
    there = sample(network, ours.composite, ours.mask, ours.conditions(network), steps=4, seed=7)
    assert (here - there).abs().max() < 1e-4
    assert not torch.equal(here, run(embedded, model, steering(identity=None, detail=None), steps=4))


def test_wrong_use_is_a_sentence(embedded, model, steering, package):
    import comfy.sample

    error = sys.modules[f"{package}.dynamicface.errors"].DynamicFaceError
    latent = torch.zeros(1, 3, SIZE, SIZE)
    with pytest.raises(error, match="connect positive and negative of Apply DynamicFace"):
        nothing = embedded.empty_conditioning()
        comfy.sample.sample(model, latent, 1, 1.0, "euler", "simple", nothing, nothing, latent)
    with pytest.raises(error, match=r"latent has shape \(1, 3, 32, 32\), the face crops \(3, 3, 32, 32\)"):
        run(embedded, model, steering(), latent=latent)


def test_the_loader_lists_the_embedded_model_first(comfy, tiny_weights):
    options = comfy.nodes["DynamicFace_LoadDynamicFace"].INPUT_TYPES()["required"]["weights"]
    listed = options[1]["options"] if isinstance(options[0], str) else options[0]
    assert listed[0] == "embedded" and "test_tiny.safetensors" in listed


def test_generate_face_refines_the_face_only(comfy, tiny_weights, input_photo):
    import numpy as np
    from PIL import Image

    def picture(strength: float, steps: int = 1) -> np.ndarray:
        generate = {"prior": ["3", 0], "weights": tiny_weights.name, "steps": steps, "seed": 0, "strength": strength}
        nodes = {"4": node("DynamicFace_GenerateFace", **generate), "5": node("PreviewImage", images=["4", 0])}
        outputs = comfy.run({**fitted_photo(input_photo), **nodes})
        return np.asarray(Image.open(comfy.folders["temp"] / outputs["5"]["images"][0]["filename"]).convert("RGB")).astype(int)

    plate = np.asarray(Image.open(comfy.folders["input"] / input_photo).convert("RGB")).astype(int)
    assert (picture(0.0) == plate).all(), "strength 0 is the composite, which is the plate here"
    changed = np.abs(picture(1.0) - plate).max(-1) > 0
    assert 0.005 < changed.mean() < 0.2, "the face changes and nothing else"
    assert "1" not in comfy.executed() and "4" in comfy.executed()
