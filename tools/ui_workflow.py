"""Turn a workflow as the browser stores it (UI format, version 0.4) into the prompt the server runs (API format).

What the frontend does in `graphToPrompt`, for the workflows of this repository: widget values are stored by position, in the order of
the node's inputs as /object_info gives them (required, then optional); an integer with control_after_generate has a second value behind
it; a link overrides its input; inputs that the node got after the workflow was stored have their defaults. Muted nodes with the links from
them and notes are left out; bypassed nodes and subgraphs are refused with a sentence.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

WIDGET_TYPES = {"INT", "FLOAT", "STRING", "BOOLEAN", "COMBO"}
NOTES = {"Note", "MarkdownNote"}
MUTED = 2  # a node's mode: drawn, but it does not run
CHECKPOINTS = ("CheckpointLoaderSimple",)  # nodes that need a file of the artist's


def widget_names(node_info: dict) -> list[str]:
    """Names of a node type's widgets in the order of `widgets_values`; "" for a value that is no input of the server's node."""
    names = []
    for kind in ("required", "optional"):
        for name in node_info["input_order"].get(kind, []):
            io_type, *rest = node_info["input"][kind][name]
            options = rest[0] if rest else {}
            if (isinstance(io_type, list) or io_type in WIDGET_TYPES) and not options.get("forceInput"):
                names.append(name)
                if options.get("control_after_generate") or (io_type == "INT" and name in ("seed", "noise_seed")):
                    names.append("")
    return names


def default_value(node_info: dict, name: str):
    """What a widget holds before anybody touches it."""
    section = next((kind for kind in ("required", "optional") if name in node_info["input"].get(kind, {})), None)
    if section is None:
        return "fixed"  # control_after_generate
    io_type, *rest = node_info["input"][section][name]
    options = rest[0] if rest else {}
    choices = io_type if isinstance(io_type, list) else options.get("options")
    return options["default"] if "default" in options else choices[0] if choices else ""


def to_api(workflow: dict, object_info: dict[str, dict]) -> dict[str, dict]:
    """API-format prompt. Raises ValueError with the node's id and type where the workflow does not fit the server's nodes."""
    muted = {node["id"] for node in workflow["nodes"] if node.get("mode", 0) == MUTED}
    source = {link[0]: [str(link[1]), link[2]] for link in workflow["links"] if link[1] not in muted}
    prompt = {}
    for node in workflow["nodes"]:
        where = f"node {node['id']} ({node['type']})"
        if node["type"] in NOTES or node["id"] in muted:
            continue
        if node["type"] not in object_info:
            raise ValueError(f"{where}: the server has no such node.")
        if node.get("mode", 0) != 0:
            raise ValueError(f"{where}: bypassed nodes are not converted.")
        info = object_info[node["type"]]
        names, values = widget_names(info), list(node.get("widgets_values") or [])
        values += [default_value(info, name) for name in names[len(values) :]]  # inputs the node got since the workflow was stored
        inputs = {name: value for name, value in zip(names, values, strict=False) if name}
        inputs |= {slot["name"]: source[slot["link"]] for slot in node.get("inputs", []) if slot.get("link") in source}
        prompt[str(node["id"])] = {"class_type": node["type"], "inputs": inputs, "_meta": {"title": node.get("title", node["type"])}}
    return prompt


def without(prompt: Mapping[str, dict], kinds: Collection[str]) -> dict[str, dict]:
    """An API-format prompt without the nodes of these types and all that depends on them."""
    gone = {number for number, node in prompt.items() if node["class_type"] in kinds}
    while more := {number for number, node in prompt.items() if number not in gone and _sources(node) & gone}:
        gone |= more
    return {number: node for number, node in prompt.items() if number not in gone}


def _sources(node: dict) -> set[str]:
    return {value[0] for value in node["inputs"].values() if isinstance(value, list)}


def choose_checkpoint(prompt: Mapping[str, dict], object_info: Mapping[str, dict]) -> str:
    """Put a checkpoint the server has where the prompt names one that it has not; "" or the name of what is missing and its folder."""
    for node in prompt.values():
        if node["class_type"] in CHECKPOINTS:
            io_type, *rest = object_info[node["class_type"]]["input"]["required"]["ckpt_name"]
            files = io_type if isinstance(io_type, list) else rest[0]["options"]
            if node["inputs"]["ckpt_name"] not in files:
                if not files:
                    return f"{node['inputs']['ckpt_name']} in models/checkpoints"
                node["inputs"]["ckpt_name"] = files[0]
    return ""
