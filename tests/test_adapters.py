"""Other projects' files: full key lists as data, scaled-down files of every layout, and a sentence for each thing that can be wrong."""

from __future__ import annotations

import hashlib

import pytest
import torch
from published import answer, inputs, weights

from dynamicface import WeightsError
from dynamicface.generator.adapters.families import families, missing, row_of, sampling_of
from dynamicface.generator.adapters.files import recognise
from dynamicface.generator.adapters.guiders import ChampGuider, load_guider
from dynamicface.generator.adapters.layouts import layouts
from dynamicface.identity_stream import id2token
from dynamicface.temporal_layers import TemporalLayers

TINY = {"m": 32, "t": 64, "p": 8, "e": 16, "q": 5, "r": 4}
TENSORS = {
    "unet": 686,
    "motion": 588,
    "temporal_personalive": 588,
    "motion_cross_personalive": 546,
    "guider": 16,
    "guider_personalive": 16,
    "guider_champ": 149,
    "controlnet_embedding": 16,
    "controlnet_hint": 16,
    "id2token": 57,
    "face_id": 294,
}


def checkpoint(*names: str, **sizes: int) -> dict[str, torch.Tensor]:
    """A scaled-down file of these layouts."""
    return {key: torch.zeros(shape) for name in names for key, shape in layouts()[name].at(TINY | sizes).items()}


@pytest.mark.parametrize("name", TENSORS)
def test_key_lists_are_the_published_ones(name):
    """Names and shapes at the published sizes, as read from the projects' own networks, are pinned by their hash."""
    shapes = layouts()[name].at()
    text = "\n".join(f"{key} {'x'.join(map(str, shape))}" for key, shape in sorted(shapes.items()))
    assert len(shapes) == TENSORS[name]
    assert hashlib.sha256(text.encode()).hexdigest() == layouts()[name].sha256


def test_known_parameter_counts():
    """Figures anyone can check: the published guider stack and Stable Diffusion 1.5's U-Net."""
    assert layouts()["guider"].parameters() == 1_086_480
    whole = layouts()["unet"].at()
    assert sum(torch.Size(shape).numel() for shape in whole.values()) == 859_520_964


@pytest.mark.parametrize("name", TENSORS)
def test_every_layout_is_recognised(name):
    adapter = recognise(checkpoint(name), f"{name}.pth")
    assert adapter.parts == (name,)
    assert all(adapter.sizes[size] == TINY[size] for size in adapter.sizes if size in TINY)


def test_a_denoiser_may_bring_its_temporal_layers():
    adapter = recognise(checkpoint("unet", "motion"), "champ/denoising_unet.pth")
    assert adapter.parts == ("unet", "motion") and adapter.row.family == "champ"
    assert len(adapter.part("motion")) == TENSORS["motion"]


def test_a_reference_unet_has_no_end():
    state = {key: value for key, value in checkpoint("unet").items() if not key.startswith(("conv_out", "conv_norm_out"))}
    assert len(state) == 682
    assert recognise(state, "moore/reference_unet.pth").row.role == "reference"


def test_temporal_layers_without_a_middle_are_animatediffs():
    state = {key: value for key, value in checkpoint("motion").items() if not key.startswith("mid_block")}
    layers = TemporalLayers.from_state(recognise(state, "v3_sd15_mm.ckpt").part("motion"))
    assert len(layers.places) == 20 and layers.layers[0].length == TINY["p"]


def test_wrappers_of_training_scripts_are_taken_off():
    wrapped = {f"module.{key}": value for key, value in checkpoint("guider").items()} | {"epoch": 3}
    assert recognise(wrapped, "pose_guider.pth").parts == ("guider",)
    flat = checkpoint("face_id")
    nested = {half: {k.removeprefix(f"{half}."): v for k, v in flat.items() if k.startswith(half)} for half in ("image_proj", "ip_adapter")}
    assert recognise(nested, "ip-adapter-faceid_sd15.bin").parts == ("face_id",)


@pytest.mark.parametrize("name", ["guider", "guider_personalive", "controlnet_embedding", "controlnet_hint"])
def test_one_stack_under_four_names(name):
    """The same weights give the same features whatever their names."""
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(shape, generator=generator) * 0.1 for shape in layouts()[name].at(TINY).values()]
    guider = load_guider(recognise(dict(zip(layouts()[name].shapes, values, strict=True)), f"{name}.pth"))
    features = guider(torch.linspace(0, 1, 3 * 16 * 16).view(1, 3, 16, 16))
    assert features.shape == (1, 32, 2, 2)
    plain = dict(zip(layouts()["guider"].shapes, values, strict=True))
    assert torch.equal(features, load_guider(recognise(plain, "guider.pth"))(torch.linspace(0, 1, 3 * 16 * 16).view(1, 3, 16, 16)))


def test_champs_guider_attends_before_its_end():
    state = checkpoint("guider_champ")
    for key in state:
        state[key] = torch.full_like(state[key], 0.01)
    guider = load_guider(recognise(state, "guidance_encoder_normal.pth"))
    assert isinstance(guider, ChampGuider)
    picture = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert guider(picture).shape == (1, 32, 4, 4)


def test_champs_guider_answers_as_champs_own_code():
    guider = load_guider(recognise(weights("guider_champ"), "guidance_encoder_normal.pth"))
    torch.testing.assert_close(guider(inputs()["pose"])[:, :4], answer("champ", 3, 4, 8, 8), atol=1e-4, rtol=1e-4)


def test_id2token_answers_as_face_adapters_own_code():
    file = recognise(weights("id2token"), "net_id2token.pth")
    tokens = id2token(file.part("id2token"), inputs()["embedding"][0]).tokens
    torch.testing.assert_close(tokens, answer("id2token", 1, 5, 64), atol=1e-4, rtol=1e-4)


def test_a_whole_controlnet_is_recognised_by_its_embedding():
    state = checkpoint("controlnet_embedding") | {"controlnet_down_blocks.0.weight": torch.zeros(1)}
    assert recognise(state, "control_v11p_sd15_normalbae.safetensors").parts == ("controlnet_embedding",)


def test_an_incomplete_file_says_what_is_missing():
    state = checkpoint("motion")
    gone = sorted(state)[-40:]
    for key in gone:
        del state[key]
    with pytest.raises(
        WeightsError, match=r"incomplete: of temporal layers .* holds 548 of 588 tensors; the first missing one is up_blocks"
    ):
        recognise(state, "motion_module.pth")


def test_a_file_whose_second_part_is_damaged_is_incomplete():
    state = checkpoint("unet") | dict(list(checkpoint("motion").items())[:100])
    with pytest.raises(WeightsError, match=r"incomplete: of temporal layers .* 100 of 588"):
        recognise(state, "denoising_unet.pth")


def test_a_file_for_another_base_model_is_named():
    state = checkpoint("unet")
    key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    state[key] = torch.zeros(128, 1024)
    with pytest.raises(WeightsError, match=r"is 128 x 1024, but .* needs 128 x 64 there.*Stable Diffusion 1\.5"):
        recognise(state, "reference_unet.pth")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight", "LoRA loader"),
        ("model.diffusion_model.input_blocks.0.0.weight", "Load Checkpoint"),
        ("layers.0.weight", "no known adapter.*Expected one of"),
    ],
)
def test_a_foreign_file_is_sent_where_it_belongs(key, says):
    with pytest.raises(WeightsError, match=says):
        recognise({key: torch.zeros(1)}, "some.safetensors")


def test_an_empty_file_is_a_sentence():
    with pytest.raises(WeightsError, match="holds no tensors"):
        recognise({"epoch": 1}, "empty.pth")


def test_a_file_without_a_guider_is_not_one():
    with pytest.raises(WeightsError, match="holds no guider"):
        load_guider(recognise(checkpoint("id2token"), "net_id2token.pth"))


def test_files_are_told_by_name_and_folder():
    assert row_of("personalive/temporal_module.pth").family == "personalive"
    assert row_of("champ/denoising_unet.safetensors").family == "champ"
    assert row_of("denoising_unet.pth") is None  # four families use this name
    assert row_of("mm_sd_v15_v2.ckpt").layout == "motion"


def test_every_row_is_of_a_known_layout_and_every_denoiser_samples():
    rows, _ = families()
    assert all(row.layout in layouts() for row in rows)
    assert all(sampling_of(row.family) for row in rows if row.role == "denoising")


def test_a_missing_file_is_one_message_with_all_that_is_needed():
    rows, _ = families()
    text = missing("The guider 'normal' has no weights.", [row for row in rows if row.guider == "normal"])
    assert (
        "models/dynamicface/champ/guidance_encoder_normal.pth" in text and "MIT" in text and "commercial use: yes" in text and " MB" in text
    )
