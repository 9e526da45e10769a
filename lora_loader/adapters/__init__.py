"""What an adapter does to a weight: added to it, or a function of it. Torch only, no host."""

from .additive import Additive, Dense, Hadamard, Kronecker, LowRank, blocks
from .transforms import Transform

__all__ = ["Additive", "Dense", "Hadamard", "Kronecker", "LowRank", "Transform", "blocks"]
