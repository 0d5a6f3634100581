"""FusionTVO: stable faces and backgrounds, on finished frames (stream.py) and while a diffusion model samples (sampling.py)."""

from .background import BACKGROUNDS
from .flow import DisFlow, PairFlow, RaftFlow, plate_flow
from .stream import Dials, FusionTVO, stabilise

__all__ = ["BACKGROUNDS", "Dials", "DisFlow", "FusionTVO", "PairFlow", "RaftFlow", "plate_flow", "stabilise"]
