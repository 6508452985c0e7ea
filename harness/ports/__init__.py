"""Ports of any model: a model, a way to run it, and tables that say where its values and parameters are.

Only adapters import it; jax and flax are imported with it.
"""

from harness.ports.cached import Cache, CachedPort
from harness.ports.frameworks import function_model, linen_model, nnx_model
from harness.ports.port import ModelPort
from harness.ports.tap import UNDECIDED, Param, Part, Tap

__all__ = [
    "UNDECIDED",
    "Cache",
    "CachedPort",
    "ModelPort",
    "Param",
    "Part",
    "Tap",
    "function_model",
    "linen_model",
    "nnx_model",
]
