"""The nodes, in the order of the graph. One file per stage; each node is a schema and a few lines that call the library."""

from __future__ import annotations

from comfy_api.latest import ComfyExtension, io

NODES: tuple[type[io.ComfyNode], ...] = ()


class DynamicFaceExtension(ComfyExtension):
    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return list(NODES)
