"""Identity Stream, Detail Stream and Dual-Stream Fusion: who the generated face is, and in how much detail."""

from __future__ import annotations

from dataclasses import replace

import torch
from comfy_api.latest import io

from ..dynamicface.generator.steering import detail_stream, identity_stream
from ..dynamicface.reference import BLOCKS
from ..dynamicface.streams import IDENTITY_SHARE
from ..dynamicface.streams import Fusion as FusionValue
from .guiders import END, START
from .host.adapter_files import NONE, embedding_files, load_embedding
from .host.models import to_graph_device, to_working_device
from .schema import Detail, Fusion, Identity, Prior, advanced, schema, slider

_REFERENCE_SIZE = 512
SOURCE = "The source person: a prior fitted in a photo or clip of them."


class IdentityStream(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "IdentityStream",
            "Identity Stream",
            "The person's identity as the generator reads it: the low frequencies, who it is. Needs no file with the embedded "
            "generator; on Stable Diffusion it needs one (see help). Before: Fit 3D Prior of the source. Next: Apply DynamicFace.",
            search_aliases=["face former", "face id", "ip-adapter"],
            inputs=[
                Prior.Input("source", tooltip=SOURCE),
                slider("weight", 0.0, 2.0, "How strongly: 1 as trained, 0 not at all. Costs nothing.", default=1.0),
                advanced(slider("start", 0.0, 1.0, START)),
                advanced(slider("end", 0.0, 1.0, END, default=1.0)),
                advanced(
                    io.Combo.Input(
                        "embedding_file",
                        options=[NONE, *embedding_files()],
                        default=NONE,
                        tooltip="A .safetensors in models/dynamicface/embeddings with one vector, for identity files that were trained on "
                        "another network's embedding (ArcFace's 512 numbers). 'none': the embedding of the prior.",
                    )
                ),
            ],
            outputs=[Identity.Output("identity", display_name="identity", tooltip="For Apply DynamicFace.")],
        )

    @classmethod
    def execute(cls, source, weight, start, end, embedding_file) -> io.NodeOutput:
        stream = replace(identity_stream(source, weight), start=start, end=end)
        return io.NodeOutput(stream if embedding_file == NONE else replace(stream, embedding=load_embedding(embedding_file)))


class DetailStream(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "DetailStream",
            "Detail Stream",
            "The person's skin and features as the generator reads them: the high frequencies. Up to four frames of the source are "
            "read beside the picture; in each frame the one nearest in head turn counts most. Works on any Stable Diffusion 1.5 "
            "checkpoint without a file. Before: Fit 3D Prior of the source. Next: Apply DynamicFace.",
            search_aliases=["reference net", "reference only", "reference attention"],
            inputs=[
                Prior.Input("source", tooltip=SOURCE),
                slider("weight", 0.0, 2.0, "How strongly: 1 as trained, 0 not at all. Any other value than 1 costs a little.", default=1.0),
                advanced(slider("start", 0.0, 1.0, START)),
                advanced(slider("end", 0.0, 1.0, END, default=1.0)),
                advanced(
                    io.Combo.Input(
                        "blocks",
                        options=list(BLOCKS),
                        tooltip="Stable Diffusion only: which blocks read. Fewer are faster and keep more of the composite's own layout.",
                    )
                ),
                Detail.Input("previous", optional=True, tooltip="Further photos of the same person, from another Detail Stream."),
            ],
            outputs=[Detail.Output("detail", display_name="detail", tooltip="For Apply DynamicFace.")],
        )

    @classmethod
    def execute(cls, source, weight, start, end, blocks, previous=None) -> io.NodeOutput:
        stream = to_graph_device(detail_stream(to_working_device(source), _REFERENCE_SIZE, weight))
        if previous is not None:
            pictures, yaw = torch.cat([previous.pictures, stream.pictures]), torch.cat([previous.yaw, stream.yaw])
            stream = replace(stream, pictures=pictures, yaw=yaw)
        return io.NodeOutput(replace(stream, start=start, end=end, blocks=blocks))


class DualStreamFusion(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            "DualStreamFusion",
            "Dual-Stream Fusion",
            "How identity and detail share the work. By itself 3:7, and by the rule: every doubling of the visible face moves a tenth from "
            "identity to detail. Next: Apply DynamicFace.",
            search_aliases=["balance", "likeness", "resolution"],
            inputs=[
                io.Boolean.Input(
                    "follow_resolution",
                    default=True,
                    tooltip="On: the shares follow the face's size in the plate and in the crop. Off: 'identity' below decides.",
                ),
                slider(
                    "identity",
                    0.0,
                    1.0,
                    "The identity stream's share; the detail stream has the rest. 0.3 as trained.",
                    default=IDENTITY_SHARE,
                ),
            ],
            outputs=[Fusion.Output("fusion", display_name="fusion", tooltip="For Apply DynamicFace.")],
        )

    @classmethod
    def execute(cls, follow_resolution, identity) -> io.NodeOutput:
        return io.NodeOutput(FusionValue(None if follow_resolution else identity))
