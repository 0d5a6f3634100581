"""Networks that judge pictures and that this package must not ship: they are read from a folder of the user's, never downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from ..errors import WeightsError

Network = TypeVar("Network", bound=nn.Module)


def load_network(network: Network, folder: str | Path, name: str, recipe: str) -> Network:
    """Fill a network with the safetensors file `name` of a folder; keys the network does not have are left out.

    recipe: how to make the file, for the message.

    Raises:
        WeightsError: the file is missing, unreadable or of another network.
    """
    path = Path(folder) / name
    if not path.is_file():
        raise WeightsError(f"There is no file {path}, which this metric needs and this package must not ship. Make it once: {recipe}")
    try:
        tensors = load_file(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} cannot be read ({error}). Make it again: {recipe}") from error
    wanted = network.state_dict()
    wrong = [key for key, value in wanted.items() if key not in tensors or tensors[key].shape != value.shape]
    if wrong:
        some = ", ".join(wrong[:3])
        raise WeightsError(f"{path} is of another network: {len(wrong)} of {len(wanted)} tensors do not fit ({some} ..). Make it: {recipe}")
    network.load_state_dict({key: tensors[key] for key in wanted})
    return network.eval().requires_grad_(False)
