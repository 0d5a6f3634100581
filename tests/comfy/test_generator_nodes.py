"""The nodes from Guider to Apply DynamicFace in ComfyUI's own executor, on a photograph, with a tiny generator that was never trained."""

from __future__ import annotations

import pytest
import torch
from comfy_in_process import ComfyError, fitted_photo, node
from PIL import Image, ImageChops

from dynamicface.guiders import GUIDERS


def own(kind: str, **inputs) -> dict:
    return node(f"DynamicFace_{kind}", **inputs)


@pytest.fixture(scope="module")
def graph(input_photo, tiny_weights):
    """graph(**changes of nodes by id) -> prompt: photograph, prior, guides, five guiders, both streams, generator, sampler."""

    def make(**changes) -> dict:
        prompt = {
            **fitted_photo(input_photo, 128),
            "4": own("RenderGuides", prior=["3", 0], size=128, zoom=1.3),
            "6": own("MixtureOfGuiders", guidance=[f"g{GUIDERS[-1]}", 0], mode="mixture"),
            "7": own("IdentityStream", source=["3", 0], weight=1.0, start=0.0, end=1.0, embedding_file="none"),
            "8": own("DetailStream", source=["3", 0], weight=1.0, start=0.0, end=1.0, blocks="all", previous=["9", 0]),
            "9": own("DetailStream", source=["3", 0], weight=1.0, start=0.0, end=1.0, blocks="all"),
            "10": own("DualStreamFusion", follow_resolution=True, identity=0.3),
            "11": own("LoadDynamicFace", weights=tiny_weights.name),
            "12": own("ApplyDynamicFace", model=["11", 0], positive=["11", 2], negative=["11", 2], guides=["4", 8], purification=1.0),
            "13": node("KSampler", model=["12", 0], positive=["12", 1], negative=["12", 2], latent_image=["12", 3]),
            "14": node("VAEDecode", samples=["13", 0], vae=["11", 1]),
            "15": node("PreviewImage", images=["14", 0]),
        }
        for before, name in zip((None, *GUIDERS), GUIDERS, strict=False):
            prompt[f"g{name}"] = own("Guider", guides=["4", 8], attribute=name, weight=1.0, start=0.0, end=1.0)
            if before:
                prompt[f"g{name}"]["inputs"]["previous"] = [f"g{before}", 0]
        prompt["12"]["inputs"] |= {"mixture": ["6", 0], "identity": ["7", 0], "detail": ["8", 0], "fusion": ["10", 0]}
        prompt["13"]["inputs"] |= {"seed": 1, "steps": 2, "cfg": 1.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
        for key, inputs in changes.items():
            prompt[key.lstrip("n")]["inputs"] |= inputs
        return prompt

    return make


def picture(comfy, prompt: dict) -> Image.Image:
    outputs = comfy.run(prompt)
    return Image.open(comfy.folders["temp"] / outputs["15"]["images"][0]["filename"]).convert("RGB")


def test_the_whole_graph_runs_and_every_part_matters(comfy, graph):
    whole = picture(comfy, graph())
    assert whole.size == (128, 128)
    for change in ({"gpose": {"weight": 0.0}}, {"n7": {"weight": 0.0}}, {"n8": {"weight": 0.0}}):
        assert ImageChops.difference(picture(comfy, graph(**change)), whole).getbbox() is not None, change


def test_moving_a_guider_renders_no_guides_again(comfy, graph):
    picture(comfy, graph())
    picture(comfy, graph(gnormal={"weight": 0.5}))
    assert "4" not in comfy.executed() and {"12", "13"} <= comfy.executed()


def test_the_same_attribute_twice_counts_once(comfy):
    import types

    guider = comfy.nodes["DynamicFace_Guider"]
    guides = types.SimpleNamespace(mask=torch.ones(1, 8, 8), normal=torch.ones(1, 8, 8, 3), yaw=torch.zeros(1))
    first = guider.execute(guides, "normal", 0.3, 0.0, 1.0).args[0]
    second = guider.execute(guides, "normal", 0.7, 0.0, 1.0, previous=first).args[0]
    assert [guidance.weight for guidance in second] == [0.7]


def test_maps_of_another_number_of_frames_are_a_sentence(comfy):
    import types

    guides = types.SimpleNamespace(mask=torch.ones(3, 8, 8), pose=torch.ones(3, 8, 8, 3), yaw=torch.zeros(3))
    with pytest.raises(ValueError, match="image has 2 frames, the guides have 3"):
        comfy.nodes["DynamicFace_Guider"].execute(guides, "pose", 1.0, 0.0, 1.0, image=torch.ones(2, 8, 8, 3))


def test_adapters_on_the_own_generator_are_a_sentence(comfy, graph, tiny_weights):
    prompt = graph(n12={"adapters": ["16", 0]})
    prompt["16"] = own("LoadAdapter", file="none", guider="by its name")
    comfy.run(prompt)  # "none" loads nothing, which is allowed
    apply = comfy.nodes["DynamicFace_ApplyDynamicFace"]
    model = comfy.nodes["DynamicFace_LoadDynamicFace"].execute(tiny_weights.name).args[0]
    with pytest.raises(ValueError, match="Adapter files are for Stable Diffusion"):
        apply.execute(model, [], [], None, 1.0, adapters=("a file",))


def test_frames_of_the_own_generator_are_the_guides(comfy, graph):
    prompt = graph()
    prompt["13"]["inputs"]["latent_image"] = ["17", 0]
    prompt["17"] = node("RepeatLatentBatch", samples=["12", 3], amount=2)
    with pytest.raises(ComfyError, match="connect the latent of Apply DynamicFace"):
        comfy.run(prompt)
