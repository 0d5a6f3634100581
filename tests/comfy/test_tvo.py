"""FusionTVO in genuine ComfyUI: on frames through the executor, while sampling on a small random U-Net that stands for the mechanics."""

from __future__ import annotations

import sys

import pytest
import torch

FRAMES, SIZE = 10, 64  # of the latents: 8 x 8


@pytest.fixture(scope="module")
def pack(comfy):
    """pack("nodes.host.tvo") -> a module of the pack as ComfyUI loaded it."""
    package = comfy.nodes["DynamicFace_TrackFaces"].__module__.rpartition(".nodes.")[0]
    return lambda name: sys.modules[f"{package}.{name}"]


@pytest.fixture(scope="module")
def model(comfy):
    """A native SD 1.5 MODEL with a U-Net of a million random weights."""
    import comfy.model_base
    import comfy.model_management as mm
    import comfy.model_patcher
    import comfy.supported_models

    unet = {
        **{"image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1, 1], "channel_mult": (1, 2)},
        **{"num_heads": 4, "num_head_channels": -1, "use_spatial_transformer": True, "context_dim": 32, "transformer_depth": [1, 1]},
        **{"transformer_depth_middle": 1, "transformer_depth_output": [1, 1, 1, 1], "use_linear_in_transformer": False, "legacy": False},
        **{"adm_in_channels": None, "use_temporal_attention": False, "use_temporal_resblock": False},
    }
    config = comfy.supported_models.SD15(unet)
    config.unet_config.update(unet)
    config.set_inference_dtype(torch.float32, None)
    base = comfy.model_base.BaseModel(config)
    random = torch.Generator().manual_seed(0)
    for parameter in base.diffusion_model.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.dim() > 1 else 0.1
        parameter.data = torch.randn(parameter.shape, generator=random) * scale + (parameter.dim() == 1)
    return comfy.model_patcher.ModelPatcher(base, load_device=mm.get_torch_device(), offload_device=mm.unet_offload_device())


@pytest.fixture(scope="module")
def plate():
    """(FRAMES, SIZE, SIZE, 3): a texture that drifts two pixels a frame to the left."""
    picture = torch.nn.functional.avg_pool2d(torch.rand(1, 3, SIZE + 4, 2 * SIZE, generator=torch.Generator().manual_seed(1)), 5, 1)
    return torch.stack([picture[0, :, :, 2 * t : 2 * t + SIZE] for t in range(FRAMES)]).movedim(1, -1)


def sample(model, steps: int = 4, seed: int = 7, latents: torch.Tensor | None = None) -> torch.Tensor:
    import nodes

    random = torch.Generator().manual_seed(2)
    positive, negative = ([[torch.randn(1, 5, 32, generator=random), {}]] for _ in range(2))
    latents = torch.zeros(FRAMES, 4, SIZE // 8, SIZE // 8) if latents is None else latents
    return nodes.common_ksampler(model, seed, steps, 3.0, "euler", "normal", positive, negative, {"samples": latents})[0]["samples"]


@pytest.fixture(scope="module")
def unpatched(model):
    return sample(model)


@pytest.fixture(scope="module")
def patch(comfy, model, plate):
    """patch(**dials) -> the MODEL output of the node."""

    def make(**dials):
        settings = {"segment": 0, "overlap": 2, "variation": 0.0, "shared_noise": 0.0, "anchor": -1} | dials
        return comfy.nodes["DynamicFace_FusionTVOSampling"].execute(model, settings.pop("plate", plate), **settings).args[0]

    return make


def test_with_all_dials_at_zero_the_model_passes_through(patch, model):
    assert patch() is model
    assert patch(segment=FRAMES) is model  # the clip is no longer than a segment


def test_patches_leave_the_model_alone(patch, model, unpatched, plate):
    """After a run with everything on, the model gives the same pixels as before, to the bit."""
    face = torch.zeros(FRAMES, SIZE, SIZE)
    face[:, 16:48, 16:48] = 1
    everything = patch(segment=4, variation=1.0, shared_noise=1.0, anchor=0, mask=face, background={"samples": torch.ones_like(unpatched)})
    assert not torch.equal(sample(everything), unpatched)
    assert torch.equal(sample(model), unpatched)


@pytest.mark.parametrize("anchor", [-1, 0])
def test_segments_of_a_model_without_temporal_layers_change_nothing(patch, unpatched, anchor):
    """Each frame is predicted alike in every segment, so that fusing gives the same clip: the weights sum up to one everywhere."""
    assert (sample(patch(segment=4, overlap=2, anchor=anchor)) - unpatched).abs().max() < 1e-4 * unpatched.std()


def test_a_segment_is_all_the_model_sees(patch):
    from comfy.patcher_extension import WrappersMP

    patched, seen = patch(segment=4, overlap=1, anchor=0), []

    def watch(executor, x, *args, **kwargs):
        seen.append(len(x) // 2)  # with and without guidance
        return executor(x, *args, **kwargs)

    patched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "watch", watch)
    sample(patched, steps=1)
    assert seen == [4, 5, 5]  # 0-3, the anchor and 3-6, the anchor and 6-9


def test_seams_of_segments_cannot_be_seen(patch):
    """A model whose prediction depends on the segment (as temporal layers make it): steps across borders are as small as inside."""
    from comfy.patcher_extension import WrappersMP

    def change(overlap: int) -> torch.Tensor:
        patched = patch(segment=4, overlap=overlap)

        def lean(executor, x, *args, **kwargs):  # every segment drifts from its first frame to its last
            slope = torch.linspace(-1, 1, len(x)).view(-1, 1, 1, 1) if len(x) > 1 else 0
            return torch.zeros_like(executor(x, *args, **kwargs)) - slope

        patched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "lean", lean)
        clip = sample(patched, steps=2)
        return (clip[1:] - clip[:-1]).abs().mean((1, 2, 3))

    assert change(3).max() < 0.6 * change(0).max()


def test_variation_along_the_plate_is_taken_out(patch, unpatched, plate, pack):
    flow = pack("dynamicface.tvo.flow").plate_flow(plate.movedim(-1, 1)).resized((SIZE // 8, SIZE // 8))

    def variation(clip):
        return float((pack("dynamicface.tvo.flow").warp(clip[:-1], flow.backward) - clip[1:]).abs().mean())

    half, whole = variation(sample(patch(variation=0.5))), variation(sample(patch(variation=1.0)))
    assert whole < half < 0.95 * variation(unpatched)


def test_background_is_held(patch, unpatched):
    """Away from the mask the latents are those of the plate; in the mask they are sampled."""
    filmed = torch.randn(unpatched.shape, generator=torch.Generator().manual_seed(5))
    face = torch.zeros(FRAMES, SIZE, SIZE)
    face[:, :, :16] = 1
    clip = sample(patch(mask=face, background={"samples": filmed}))
    assert torch.allclose(clip[..., 5:], filmed[..., 5:], atol=1e-4)
    assert (clip[..., :2] - filmed[..., :2]).abs().mean() > 0.1


def test_noise_rides_on_the_plate(comfy, plate):
    """White in every frame, shifted with the plate, and ordinary noise where nothing is shared."""
    latents = {"samples": torch.zeros(FRAMES, 4, SIZE, SIZE)}  # as large as the plate: pixel space

    def noise(share):
        return comfy.nodes["DynamicFace_SharedNoise"].execute(plate, 11, share).args[0]

    from comfy.sample import prepare_noise

    assert noise(1.0).seed == 11
    assert torch.equal(noise(0.0).generate_noise(latents), prepare_noise(latents["samples"], 11))
    carried = noise(1.0).generate_noise(latents)
    assert torch.allclose(carried.std((1, 2, 3)), torch.ones(FRAMES), atol=0.03)
    same = (carried[1, ..., 8:-8, 8:-10] == carried[0, ..., 8:-8, 10:-8]).float().mean()
    assert same > 0.9  # two pixels to the left


def test_ksampler_starts_from_shared_noise(patch, comfy, plate):
    still = patch(plate=plate[:1].expand(FRAMES, -1, -1, -1), shared_noise=1.0)
    clip = sample(still, steps=2)
    assert torch.allclose(clip, clip[:1].expand_as(clip), atol=1e-4)


def test_clip_and_latents_must_have_one_length(patch):
    with pytest.raises(ValueError, match="hold 3 frames, the plate has 10"):
        sample(patch(shared_noise=1.0), latents=torch.zeros(3, 4, 8, 8))
    with pytest.raises(ValueError, match="not 'mask'"):
        patch(background={"samples": torch.zeros(FRAMES, 4, 8, 8)})
    with pytest.raises(ValueError, match="Encode the plate with the same VAE"):
        sample(patch(mask=torch.ones(FRAMES, SIZE, SIZE), background={"samples": torch.zeros(FRAMES, 4, 4, 4)}))


# --- on frames --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stabilised(comfy, plate):
    from comfy_execution.utils import CurrentNodeContext

    def run(images, plate=plate, **dials):
        settings = {"strength": 1.0, "radius": 2, "detail_protect": 0.5, "background": "leave", "background_strength": 1.0}
        with CurrentNodeContext("prompt", "node"):
            return comfy.nodes["DynamicFace_FusionTVO"].execute(images, plate, **settings | {"lock": True, "live": False} | dials).args[0]

    return run


@pytest.fixture(scope="module")
def flicker(plate):
    return plate * (1 + 0.1 * torch.randn(FRAMES, 1, 1, 1, generator=torch.Generator().manual_seed(4)))


def test_strength_zero_is_the_input(stabilised, flicker):
    assert stabilised(flicker, strength=0.0) is flicker


def test_frames_are_steadier_inside_one_mask_for_all(stabilised, flicker, plate):
    mask = torch.zeros(1, SIZE, SIZE)
    mask[:, 8:56, 8:56] = 1
    result = stabilised(flicker, mask=mask)
    assert torch.equal(result[:, :8], flicker[:, :8])
    inside = (slice(None), slice(8, 56), slice(8, 56))
    assert (result - plate)[inside].std() < 0.7 * (flicker - plate)[inside].std()


def test_person_matte_is_found_where_none_is_connected(stabilised, flicker, plate):
    """There is nobody in this plate: all of it is background, and becomes the plate."""
    result = stabilised(flicker, background="plate", strength=0.0)
    assert (result - plate).abs().mean() < 0.1 * (flicker - plate).abs().mean()


def test_core_flow_model_is_accepted(stabilised, flicker, plate):
    """OPTICAL_FLOW holds a ModelPatcher around a RAFT network."""
    from comfy.model_management import get_torch_device, unet_offload_device
    from comfy.model_patcher import ModelPatcher

    class Still(torch.nn.Module):
        calls = 0

        def forward(self, a, b):
            Still.calls += 1
            return [a[:, :2] * 0]

    patcher = ModelPatcher(Still(), load_device=get_torch_device(), offload_device=unet_offload_device())
    assert stabilised(flicker, flow_model=patcher).shape == plate.shape
    assert Still.calls > 0
