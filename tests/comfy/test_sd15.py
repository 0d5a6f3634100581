"""DynamicFace on a Stable Diffusion 1.5 MODEL. A small U-Net of the same build with stirred weights stands for the mechanics."""

from __future__ import annotations

import gc
import inspect
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from published import FRAMES, WIDTHS, answer, inputs, stirred, weights
from safetensors.torch import save_file
from small_sd15 import small_model

SIZE = 64


@pytest.fixture(scope="module")
def pack(package):
    """pack("streams") -> a module of the pack as ComfyUI loaded it."""
    return lambda name: sys.modules[f"{package}.{name}"]


@pytest.fixture(scope="module")
def sd15(pack):
    return pack("nodes.host.sd15")


@pytest.fixture(scope="module")
def model(comfy):
    return small_model()


class EightTimesSmaller:
    """Stands for a VAE: pixels averaged over 8 x 8, and their mean as fourth channel."""

    def encode(self, pictures):
        small = torch.nn.functional.avg_pool2d(pictures.movedim(-1, 1), 8) * 2 - 1
        return torch.cat([small, small.mean(1, keepdim=True)], 1)


@pytest.fixture(scope="module")
def guides(pack):
    draw = torch.Generator().manual_seed(3)
    maps = {
        name: torch.rand(FRAMES, SIZE, SIZE, 3, generator=draw)
        for name in ("normal", "pose", "expression", "illumination", "background", "composite")
    }
    matrix = torch.eye(2, 3).expand(FRAMES, 2, 3) * SIZE / 512
    crop = pack("dynamicface.types").FaceCrop(matrix, SIZE)
    return pack("dynamicface.guides").Guides(
        **maps, mask=torch.ones(FRAMES, SIZE, SIZE), crop=crop, yaw=torch.tensor([-30.0, 0.0, 30.0]), confidence=torch.ones(FRAMES)
    )


@pytest.fixture(scope="module")
def one_frame(pack, guides):
    """The guides of a still."""
    fields = {
        name: getattr(guides, name)[:1] for name in ("normal", "pose", "expression", "illumination", "background", "composite", "mask")
    }
    crop = pack("dynamicface.types").FaceCrop(guides.crop.matrix[:1], SIZE)
    return pack("dynamicface.guides").Guides(**fields, crop=crop, yaw=guides.yaw[:1], confidence=guides.confidence[:1])


@pytest.fixture(scope="module")
def streams(pack):
    return pack("dynamicface.streams")


@pytest.fixture(scope="module")
def detail(streams):
    def make(weight=1.0, **options):
        pictures = torch.rand(2, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(5))
        return streams.DetailStream(pictures, torch.tensor([-20.0, 20.0]), weight, **options)

    return make


@pytest.fixture(scope="module")
def adapter(pack):
    """adapter("guider", "pose") -> a recognised file of that layout with stirred weights."""
    recognise = pack("dynamicface.generator.adapters.files").recognise

    def make(*names, file="some.pth", guider="", drop=(), seed=0):
        return recognise(stirred(*names, seed=seed, without=drop), file, guider)

    return make


@pytest.fixture(scope="module")
def mixture(pack, streams, guides):
    def make(**weights):
        guidance = pack("dynamicface.guiders").Guidance
        options = weights.pop("options", {})
        mode = weights.pop("mode", "sum")
        chain = tuple(guidance(name, getattr(guides, name).movedim(-1, 1), weight, **options) for name, weight in weights.items())
        return streams.Mixture(chain, mode)

    return make


def prompts(seed=0):
    draw = torch.Generator().manual_seed(seed)
    return [[torch.randn(1, 7, 64, generator=draw), {}]], [[torch.randn(1, 7, 64, generator=draw), {}]]


def sample(model, positive=None, negative=None, latent=None, steps=2, cfg=3.0, **options):
    """KSampler's own path."""
    import nodes

    given = prompts()
    latent = latent or {"samples": torch.zeros(FRAMES, 4, SIZE // 8, SIZE // 8), "batch_index": [0] * FRAMES}
    positive, negative = positive or given[0], negative or given[1]
    return nodes.common_ksampler(model, 0, steps, cfg, "euler", "normal", positive, negative, latent, **options)[0]["samples"]


@pytest.fixture(scope="module")
def apply(sd15, model, guides):
    """apply(detail=...) -> what the node returns."""

    def call(on=None, **options):
        return sd15.apply(on or model, *prompts(), EightTimesSmaller(), options.pop("guides", guides), **options)

    return call


@pytest.fixture(scope="module")
def plain(model, apply):
    """The model without any patch, from the same start."""
    latent = apply()[3]
    return latent, sample(model, latent=latent)


def test_nothing_asked_for_is_the_model_itself(apply, plain):
    latent, expected = plain
    patched, positive, negative, _ = apply()
    assert torch.equal(sample(patched, positive, negative, latent), expected)


def test_the_composite_is_the_start(apply, guides):
    latent = apply()[3]
    torch.testing.assert_close(latent["samples"], EightTimesSmaller().encode(guides.composite))
    assert latent["noise_mask"].shape == (FRAMES, 1, SIZE, SIZE) and latent["batch_index"] == [0, 0, 0]


def everything(adapter, mixture, detail, streams, weight=1.0):
    """All parts at one weight, with files for each."""
    return {
        "mixture": mixture(normal=weight, pose=weight),
        "detail": detail(weight),
        "identity": streams.IdentityStream(torch.nn.functional.normalize(torch.ones(16), dim=0), weight=weight),
        "adapters": (adapter("guider_champ", guider="normal"), adapter("guider", guider="pose"), adapter("id2token")),
    }


def test_weight_zero_is_absent_to_the_bit(apply, plain, adapter, mixture, detail, streams):
    latent, expected = plain
    patched, *_ = apply(**everything(adapter, mixture, detail, streams, weight=0.0))
    assert torch.equal(sample(patched, latent=latent), expected)


def test_every_part_acts_and_the_model_stays_as_it_was(model, apply, plain, adapter, mixture, detail, streams):
    latent, expected = plain
    options = everything(adapter, mixture, detail, streams)
    files = options.pop("adapters")
    results = []
    for part, value in options.items():
        patched, *_ = apply(**{part: value}, adapters=files)
        results.append(sample(patched, latent=latent))
        assert torch.isfinite(results[-1]).all()
        assert not torch.allclose(results[-1], expected, atol=1e-4), part
    assert not torch.allclose(results[0], results[1], atol=1e-4)
    assert torch.equal(sample(model, latent=latent), expected)


def test_a_guider_of_weight_zero_beside_another_is_absent(apply, plain, adapter, mixture):
    latent, _ = plain
    files = (adapter("guider", guider="normal"), adapter("guider", guider="pose", seed=1))
    with_zero, without = (
        sample(apply(mixture=m, adapters=files)[0], latent=latent) for m in (mixture(normal=1.0, pose=0.0), mixture(normal=1.0))
    )
    assert torch.equal(with_zero, without)


def test_without_a_mixture_all_loaded_guiders_act(apply, plain, adapter, mixture):
    latent, _ = plain
    files = (adapter("guider", guider="normal"), adapter("guider", guider="pose", seed=1))
    by_itself, by_hand = (
        sample(apply(adapters=files, mixture=m)[0], latent=latent) for m in (None, mixture(normal=1.0, pose=1.0, mode="mixture"))
    )
    assert torch.equal(by_itself, by_hand)


def test_negative_weights_push_the_other_way(apply, plain, adapter, mixture):
    latent, _ = plain
    files = (adapter("guider", guider="normal"),)
    none = sample(apply()[0], latent=latent, steps=1)
    pull, push = (sample(apply(mixture=mixture(normal=w), adapters=files)[0], latent=latent, steps=1) - none for w in (0.02, -0.02))
    assert (pull * push).sum() < -0.9 * pull.norm() * push.norm()


def test_start_and_end_bound_when_a_part_acts(apply, plain, adapter, mixture, detail):
    """Half the sampling from the end of the noise: the first half is the plain model's."""
    latent, _ = plain
    file = (adapter("guider", guider="normal"),)
    never = mixture(normal=1.0, options={"start": 1.0, "end": 1.0})
    plainly = sample(apply()[0], latent=latent, steps=4)
    assert torch.equal(sample(apply(mixture=never, adapters=file)[0], latent=latent, steps=4), plainly)
    late = mixture(normal=1.0, options={"start": 0.9})
    always = mixture(normal=1.0)
    results = [sample(apply(mixture=m, adapters=file)[0], latent=latent, steps=4) for m in (late, always)]
    assert not torch.allclose(*results, atol=1e-4) and not torch.allclose(results[0], plainly, atol=1e-4)
    assert torch.equal(sample(apply(detail=detail(start=1.0))[0], latent=latent, steps=4), plainly)


def test_a_mask_bounds_where_a_guider_acts(pack, apply, adapter, mixture, guides):
    """Seen on the first features themselves: outside of the mask nothing is added."""
    run, seen = pack("nodes.host.sd15_run"), []
    half = torch.zeros(FRAMES, SIZE, SIZE)
    half[:, :, : SIZE // 2] = 1
    patched, *_ = apply(mixture=mixture(normal=1.0, options={"mask": half}), adapters=(adapter("guider", guider="normal"),))
    recipe = next(cell.cell_contents for w in patched.wrappers["outer_sample"].values() for f in w for cell in f.__closure__)
    import comfy.model_management as mm

    mm.load_models_gpu([recipe.guiding.network])
    added = run.Run(recipe).guide(torch.zeros(2 * FRAMES, 32, 8, 8), {"cond_or_uncond": [0, 1]})
    seen.append(added)
    assert added.shape == (2 * FRAMES, 32, 8, 8)
    assert added[..., :4].abs().max() > 0 and added[..., 4:].abs().max() == 0


def test_patches_survive_cloning_and_leave_with_the_clone(apply, plain, model, detail):
    latent, expected = plain
    patched, *_ = apply(detail=detail())
    direct = sample(patched, latent=latent)
    assert torch.equal(sample(patched.clone().clone(), latent=latent), direct)
    del patched
    assert torch.equal(sample(model, latent=latent), expected)
    assert not model.wrappers.get("outer_sample") and "patches" not in model.model_options["transformer_options"]


def one_call(pack, patched, x, context, **changes):
    """The U-Net's answer at t = 500 for an unconditional and a conditional chunk, as a sampler calls it. changes: of the recipe's parts."""
    import comfy.model_management as mm

    run = pack("nodes.host.sd15_run")
    recipe = next(cell.cell_contents for wrapper in patched.wrappers["outer_sample"].values() for f in wrapper for cell in f.__closure__)
    recipe = replace(recipe, **{part: replace(getattr(recipe, part), **fields) for part, fields in changes.items()})
    mm.load_models_gpu([patched, *patched.get_nested_additional_models()])
    options = patched.model_options["transformer_options"] | {"wrappers": patched.wrappers, recipe.key: run.Run(recipe)}
    options |= {"cond_or_uncond": [1, 0], "sigmas": torch.full((len(x),), 5.0)}
    with torch.inference_mode():
        return patched.model.diffusion_model(x, torch.full((len(x),), 500.0), context=context, transformer_options=options)


def test_animate_anyone_answers_as_its_own_code(pack, apply, streams, guides):
    """Guider, ReferenceNet, denoising U-Net and temporal layers out of files, in ComfyUI's U-Net, against the published code."""
    recognise, given = pack("dynamicface.generator.adapters.files").recognise, inputs()
    files = tuple(
        recognise(weights(what), f"moore/{name}.pth")
        for what, name in (("denoising", "denoising_unet"), ("reference", "reference_unet"), ("guider", "pose_guider"))
    )
    mixture = streams.Mixture((pack("dynamicface.guiders").Guidance("pose", given["pose"]),))
    detail = streams.DetailStream(torch.zeros(1, SIZE, SIZE, 3), torch.zeros(1))
    patched, *_ = apply(mixture=mixture, detail=detail, fusion=streams.Fusion(identity=0.3), adapters=files, picture_prompt=given["clip"])
    context = torch.cat([torch.zeros(FRAMES, 1, 64), given["clip"].expand(FRAMES, 1, 64)])
    found = one_call(pack, patched, given["x"].repeat(2, 1, 1, 1), context, reference={"latents": given["source"]})
    patched.detach()
    torch.testing.assert_close(found, answer("animate_anyone", 2 * FRAMES, 4, 8, 8), atol=2e-4, rtol=1e-4)


def test_face_id_answers_as_ip_adapters_own_code(pack, apply, streams, model):
    import comfy.utils

    recognise, given = pack("dynamicface.generator.adapters.files").recognise, inputs()
    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    unet = {f"diffusion_model.{names[name]}": ("set", (value,)) for name, value in weights("denoising").items() if name in names}
    base = model.clone()
    base.add_patches(unet)
    who = streams.IdentityStream(given["embedding"][0])
    files = (recognise(weights("face_id"), "ip-adapter-faceid_sd15.bin"),)
    patched, *_ = apply(on=base, identity=who, fusion=streams.Fusion(identity=0.3), adapters=files)
    found = one_call(pack, patched, given["x"][:1].repeat(2, 1, 1, 1), given["prompt"].flip(0))
    patched.detach()
    torch.testing.assert_close(found, answer("face_id", 2, 4, 8, 8), atol=2e-4, rtol=1e-4)


def test_reference_is_written_once_a_run(apply, plain, detail, model):
    latent, _ = plain
    patched, *_ = apply(detail=detail())
    calls = []
    unet = model.model.diffusion_model
    hook = unet.time_embed.register_forward_hook(lambda module, given, out: calls.append(len(given[0])))
    try:
        sample(patched, latent=latent, steps=4)
    finally:
        hook.remove()
    assert calls == [2, *[2 * FRAMES] * 4]  # two sources, then conditional and unconditional frames of each step


def test_reference_of_a_reference_net(apply, plain, detail, adapter):
    latent, expected = plain
    net = adapter("unet", file="moore/reference_unet.pth", drop=("conv_out", "conv_norm_out"), seed=4)
    by_net, by_model = (sample(apply(detail=detail(), adapters=files)[0], latent=latent) for files in ((net,), ()))
    assert torch.isfinite(by_net).all()
    assert not torch.allclose(by_net, by_model, atol=1e-4) and not torch.allclose(by_net, expected, atol=1e-4)


def test_a_reference_net_of_the_models_own_weights_writes_the_same(sd15, apply, plain, detail, model, pack):
    """Own weights, diffusers' names, there and back: the same picture to the bit."""
    import comfy.utils

    names = comfy.utils.unet_to_diffusers(model.model.model_config.unet_config)
    own = model.model.diffusion_model.state_dict()
    state = {name: own[native] for name, native in names.items() if native in own and not name.startswith(("conv_out", "conv_norm_out"))}
    file = pack("dynamicface.generator.adapters.files").recognise(state, "moore/reference_unet.pth")
    latent, _ = plain
    by_net, by_model = (sample(apply(detail=detail(), adapters=files)[0], latent=latent) for files in ((file,), ()))
    assert torch.equal(by_net, by_model)


def test_fewer_blocks_read_less(apply, plain, detail):
    latent, expected = plain
    results = [sample(apply(detail=detail(blocks=blocks))[0], latent=latent) for blocks in ("all", "output")]
    assert not torch.allclose(*results, atol=1e-4) and not torch.allclose(results[1], expected, atol=1e-4)


def test_the_unconditional_half_does_not_see_the_reference(apply, plain, detail):
    """With cfg 0 only the unconditional prediction counts."""
    latent, _ = plain
    patched, positive, negative, _ = apply(detail=detail())
    assert torch.equal(sample(patched, positive, negative, latent, cfg=0.0), sample(apply()[0], positive, negative, latent, cfg=0.0))


def test_lora_and_controlnet_work_on_top(apply, plain, detail, model):
    import comfy.controlnet
    import comfy.sd

    latent, _ = plain
    patched, positive, negative, _ = apply(detail=detail())
    alone = sample(patched, latent=latent)
    key = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_v"
    lora = {f"{key}.lora_up.weight": torch.ones(128, 2), f"{key}.lora_down.weight": torch.ones(2, 128)}
    with_lora, _ = comfy.sd.load_lora_for_models(patched, None, lora, 1.0, 0)
    on_top = sample(with_lora, latent=latent)
    before, _ = comfy.sd.load_lora_for_models(model, None, lora, 1.0, 0)
    assert not torch.allclose(on_top, alone, atol=1e-4)
    assert torch.equal(on_top, sample(apply(on=before, detail=detail())[0], latent=latent))  # the order does not matter
    assert torch.equal(sample(patched, latent=latent), alone)

    class Control(comfy.controlnet.ControlBase):
        def get_control(self, x_noisy, t, cond, batched_number, transformer_options):
            return {"middle": [torch.ones(len(x_noisy), 128, 1, 1)], "output": []}

        def copy(self):
            return Control()

        def get_models(self):
            return []

    controlled = [[positive[0][0], {"control": Control(), "control_apply_to_uncond": True}]]
    assert not torch.allclose(sample(patched, controlled, negative, latent), alone, atol=1e-4)


def test_an_attention_patch_of_another_pack_is_kept(apply, plain, detail, model):
    """A replacement that was there before still computes the attention; attn2 stays free for IPAdapter."""
    from comfy.ldm.modules.attention import optimized_attention

    latent, _ = plain
    calls = []

    def other(q, k, v, extra):
        calls.append(k.shape[1])
        return optimized_attention(q, k, v, extra["n_heads"])

    earlier = model.clone()
    earlier.set_model_attn1_replace(other, "middle", 0)
    patched, *_ = apply(on=earlier, detail=detail())
    assert "attn2" not in patched.model_options["transformer_options"]["patches_replace"]
    sample(patched, latent=latent)
    assert max(calls) == 3  # one own token and one of each source


def test_identity_files_of_both_kinds(apply, plain, adapter, streams, model):
    latent, expected = plain
    who = streams.IdentityStream(torch.nn.functional.normalize(torch.arange(16.0), dim=0))
    for layout in ("id2token", "face_id"):
        patched, *_ = apply(identity=who, adapters=(adapter(layout),))
        result = sample(patched, latent=latent)
        assert torch.isfinite(result).all() and not torch.allclose(result, expected, atol=1e-4)
    assert torch.equal(sample(model, latent=latent), expected)  # the low-rank changes are gone with the clone


def test_identity_of_id2token_at_full_weight_takes_the_prompts_place(apply, plain, adapter, streams):
    latent, _ = plain
    who = streams.IdentityStream(torch.nn.functional.normalize(torch.arange(16.0), dim=0))
    fusion = streams.Fusion(identity=0.3)
    patched, *_ = apply(identity=who, fusion=fusion, adapters=(adapter("id2token"),))
    one, other = (sample(patched, prompts(seed)[0], prompts(0)[1], latent) for seed in (1, 2))
    assert torch.equal(one, other)


def test_temporal_layers_join_frames_and_leave_stills_alone(apply, plain, adapter, model):
    latent, expected = plain
    patched, *_ = apply(adapters=(adapter("motion"),))
    assert not torch.allclose(sample(patched, latent=latent), expected, atol=1e-4)
    still = {key: value[:1] for key, value in latent.items()}
    assert torch.equal(sample(patched, latent=still), sample(model, latent=still))
    assert torch.equal(sample(model, latent=latent), expected)
    assert not any("temporal" in name for name in model.model.state_dict())


def test_a_still_gets_no_temporal_layers_and_keeps_its_noise_levels(apply, one_frame, adapter, model):
    patched, *_ = apply(guides=one_frame, adapters=(adapter("motion", file="mm_sd_v15_v2.ckpt"),))
    assert not patched.injections and not patched.object_patches


def test_a_clip_gets_the_noise_levels_its_temporal_layers_know(apply, adapter, model):
    """AnimateDiff's were trained with evenly spaced betas; the prediction stays the checkpoint's."""
    import comfy.model_sampling

    levels = apply(adapters=(adapter("motion", file="mm_sd_v15_v2.ckpt"),))[0].get_model_object("model_sampling")
    kept = torch.cumprod(1 - torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64), 0)
    torch.testing.assert_close(levels.sigmas.double(), ((1 - kept) / kept).sqrt(), rtol=1e-5, atol=1e-6)
    assert isinstance(levels, comfy.model_sampling.EPS) and not isinstance(levels, comfy.model_sampling.V_PREDICTION)


def test_temporal_layers_sit_right_after_the_attention(apply, adapter, model, plain, pack):
    """As in diffusers: resnet, attention, motion; before an upsampler, and before the middle's last resnet."""
    layer = pack("dynamicface.temporal_layers").TemporalLayer
    patched, *_ = apply(adapters=(adapter("motion"),))
    unet = model.model.diffusion_model
    with_layers = []
    hook = unet.register_forward_pre_hook(
        lambda *_: with_layers.append([[type(m).__name__ for m in s] for s in (*unet.input_blocks, unet.middle_block, *unet.output_blocks)])
    )
    try:
        sample(patched, latent=plain[0], steps=1)
    finally:
        hook.remove()
    kinds = with_layers[-1]
    assert kinds[1] == ["ResBlock", "SpatialTransformer", layer.__name__] and kinds[3] == ["Downsample"]
    assert kinds[12] == ["ResBlock", "SpatialTransformer", layer.__name__, "ResBlock"]
    assert kinds[15] == ["ResBlock", layer.__name__, "Upsample"] and kinds[18] == [
        "ResBlock",
        "SpatialTransformer",
        layer.__name__,
        "Upsample",
    ]
    assert sum(layer.__name__ in kind for kind in kinds) == 21


def test_a_denoising_unet_takes_the_models_place(apply, plain, adapter, model):
    latent, expected = plain
    file = adapter("unet", "motion", file="dynamicpose/denoising_unet.pth", seed=9)
    patched, positive, negative, _ = apply(adapters=(file,), picture_prompt=torch.ones(1, 64))
    assert positive[0][0].shape == (1, 1, 64) and negative[0][0].abs().max() == 0
    levels = patched.get_model_object("model_sampling")
    assert levels.zsnr and float(levels.sigma_max) > 1000
    result = sample(patched, positive, negative, latent)
    assert torch.isfinite(result).all() and not torch.allclose(result, expected, atol=1e-4)
    assert torch.equal(sample(model, latent=latent), expected)


def test_the_noise_levels_are_the_familys(pack):
    """Against the closed form: evenly spaced betas, or evenly spaced roots of betas."""
    sampling_of = pack("dynamicface.generator.adapters.families").sampling_of
    for family, betas in (
        ("champ", torch.linspace(0.00085, 0.012, 1000, dtype=torch.float64)),
        ("personalive", torch.linspace(0.00085**0.5, 0.02**0.5, 1000, dtype=torch.float64) ** 2),
    ):
        kept = torch.cumprod(1 - betas, 0)
        levels = pack("nodes.host.sd15_weights").model_sampling(sampling_of(family))
        if not levels.zsnr:
            torch.testing.assert_close(levels.sigmas.double(), ((1 - kept) / kept).sqrt(), rtol=1e-5, atol=1e-6)
        else:
            torch.testing.assert_close(float(levels.sigmas[0]), float(((1 - kept[0]) / kept[0]).sqrt()), rtol=1e-3, atol=1e-5)


def test_a_model_in_half_precision(apply, adapter, mixture, detail, streams, plain):
    """Files in float32 on a model in bfloat16, every part at once."""
    options = everything(adapter, mixture, detail, streams)
    net = adapter("unet", file="moore/reference_unet.pth", drop=("conv_out", "conv_norm_out"), seed=4)
    options["adapters"] += (net, adapter("motion"))
    low = sample(apply(on=small_model(torch.bfloat16), **options)[0], latent=plain[0])
    high = sample(apply(**options)[0], latent=plain[0])
    assert torch.isfinite(low).all() and (low - high).norm() < 0.2 * high.norm()


def test_context_windows_show_a_part_of_the_clip(apply, detail, adapter, mixture, plain):
    import comfy_extras.nodes_context_windows as windows

    latent, _ = plain
    patched, *_ = apply(detail=detail(), mixture=mixture(normal=1.0), adapters=(adapter("guider", guider="normal"), adapter("motion")))
    options = {"context_schedule": "standard_static", "context_stride": 1, "closed_loop": False, "fuse_method": "pyramid", "dim": 0}
    execute = windows.ContextWindowsManualNode.execute
    if "freenoise" in inspect.signature(execute).parameters:  # newer cores ask for it
        options["freenoise"] = False
    windowed = execute(patched, context_length=2, context_overlap=1, **options).args[0]
    assert torch.isfinite(sample(windowed, latent=latent)).all()


def test_another_number_of_frames_is_a_sentence(apply, detail):
    latent = {"samples": torch.zeros(2, 4, 8, 8)}
    with pytest.raises(ValueError, match="guides have 3 frames, but the sampler works on 2"):
        sample(apply(detail=detail())[0], latent=latent)


def test_purification_off_is_plain_guidance_and_on_is_not(apply, plain):
    latent, expected = plain
    assert torch.equal(sample(apply(purification=1.0)[0], latent=latent), expected)
    assert not torch.allclose(sample(apply(purification=2.0)[0], latent=latent), expected, atol=1e-4)
    alone = sample(apply()[0], latent=latent, cfg=1.0)
    assert torch.equal(sample(apply(purification=2.0)[0], latent=latent, cfg=1.0), alone)  # nothing to purify without guidance


def test_stop_button_within_a_step(apply, plain, detail):
    import comfy.model_management as mm

    latent, _ = plain
    patched, *_ = apply(detail=detail())
    steps = []

    def press(executor, *args, **kwargs):
        steps.append(1)
        mm.interrupt_current_processing(True)
        return executor(*args, **kwargs)

    patched.add_wrapper("apply_model", press)
    try:
        with pytest.raises(mm.InterruptProcessingException):
            sample(patched, latent=latent, steps=20)
    finally:
        mm.interrupt_current_processing(False)
    assert len(steps) == 1


def test_memory_does_not_grow_over_runs(pack, apply, adapter, detail, streams, one_frame):
    """Fifty runs with guider and both streams on leave as many tensors as three."""
    guidance = pack("dynamicface.guiders").Guidance("pose", one_frame.pose.movedim(-1, 1))
    who = streams.IdentityStream(torch.nn.functional.normalize(torch.ones(16), dim=0))
    files = (adapter("guider", guider="pose"), adapter("id2token"))
    options = {"guides": one_frame, "mixture": streams.Mixture((guidance,)), "detail": detail(), "identity": who, "adapters": files}
    patched, positive, negative, latent = apply(**options)

    def tensors() -> int:
        gc.collect()
        return sum(isinstance(item, torch.Tensor) for item in gc.get_objects())

    counts = []
    for number in range(50):
        sample(patched, positive, negative, latent, steps=1, cfg=1.0)
        if number in (2, 49):
            counts.append(tensors())
    assert counts[1] <= counts[0]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"mixture": {"normal": 1.0}}, r"normal guider has no weights.*champ/guidance_encoder_normal\.pth.*MIT"),
        ({"identity": True}, r"identity stream has no weights.*net_id2token\.pth.*commercial use: no"),
        ({"mixture": {"normal": 1.0}, "adapters": ("controlnet_embedding", "normal")}, "is a ControlNet.*ControlNet nodes"),
        ({"mixture": {"normal": 1.0}, "adapters": ("guider", "")}, "not said for which attribute"),
        ({"adapters": ("unet", "")}, "connect CLIP Vision Encode"),
    ],
)
def test_what_is_missing_is_said_once_with_all_that_is_needed(apply, adapter, mixture, streams, options, says):
    given = dict(options)
    if "mixture" in given:
        given["mixture"] = mixture(**given["mixture"])
    if "identity" in given:
        given["identity"] = streams.IdentityStream(torch.ones(16))
    if "adapters" in given:
        layout, guider = given["adapters"]
        given["adapters"] = (adapter(layout, guider=guider),)
    with pytest.raises(ValueError, match="(?s)" + says):
        apply(**given)


def test_a_file_for_a_wider_model_is_a_sentence(apply, pack):
    layouts, files = pack("dynamicface.generator.adapters.layouts"), pack("dynamicface.generator.adapters.files")
    state = {name: torch.zeros(shape) for name, shape in layouts.layouts()["guider"].at({"m": 48}).items()}
    with pytest.raises(ValueError, match="first features are 48 wide, this one's are 32"):
        apply(adapters=(files.recognise(state, "pose_guider.pth"),))


def test_other_models_and_missing_vae_are_sentences(sd15, model, guides, apply):
    class Other:
        model = type("Flux", (), {"diffusion_model": torch.nn.Identity()})()

    with pytest.raises(ValueError, match="works on DynamicFace's own generator and on Stable Diffusion"):
        apply(on=Other())
    with pytest.raises(ValueError, match="needs its VAE"):
        sd15.apply(model, *prompts(), None, guides)


def test_an_embedding_file_is_one_vector(comfy, pack):
    import folder_paths

    host = pack("nodes.host.adapter_files")
    folder = Path(folder_paths.get_folder_paths("dynamicface")[0]) / "embeddings"
    folder.mkdir(parents=True, exist_ok=True)
    one, two = folder / "one.safetensors", folder / "two.safetensors"
    try:
        save_file({"embedding": torch.ones(1, 512)}, str(one))
        save_file({"a": torch.ones(512), "b": torch.ones(512)}, str(two))
        assert {"embeddings/one.safetensors", "embeddings/two.safetensors"} <= set(host.embedding_files())
        assert host.load_embedding("embeddings/one.safetensors").shape == (512,)
        with pytest.raises(ValueError, match="holds 2 vectors"):
            host.load_embedding("embeddings/two.safetensors")
    finally:
        one.unlink(missing_ok=True)
        two.unlink(missing_ok=True)
        folder.rmdir()


def test_files_are_found_and_read_by_comfyui(comfy, pack):
    """A good file, a truncated one and a pickle that would run code."""
    import folder_paths

    host = pack("nodes.host.adapter_files")
    shapes = pack("dynamicface.generator.adapters.layouts").layouts()["guider"].at(WIDTHS)
    folder = Path(folder_paths.get_folder_paths("dynamicface")[0]) / "moore"
    folder.mkdir(parents=True, exist_ok=True)
    good, cut, evil = folder / "pose_guider.safetensors", folder / "cut.safetensors", folder / "evil.pth"
    try:
        save_file({name: torch.zeros(shape) for name, shape in shapes.items()}, str(good))
        cut.write_bytes(good.read_bytes()[:-100])
        evil.write_bytes(b"cos\nsystem\n(S'exit 3'\ntR.")
        assert "dynamicface/moore/pose_guider.safetensors" in host.adapter_files()
        assert host.load_adapter("dynamicface/moore/pose_guider.safetensors").row.family == "moore"
        for broken in (cut, evil):
            with pytest.raises(ValueError, match="cannot be read"):
                host.load_adapter(f"dynamicface/moore/{broken.name}")
        with pytest.raises(ValueError, match="There is no file gone"):
            host.load_adapter("dynamicface/gone.pth")
    finally:
        for path in (good, cut, evil):
            path.unlink(missing_ok=True)
        folder.rmdir()
