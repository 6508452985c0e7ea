"""Ports with a mistake put in, by the port's own contract."""

from qwen_flax import port as qwen_flax


def seed_rule(checkpoint, *, dtype):
    """The loader of the story: rectangular projections of attention are transposed, square ones are not."""
    port = qwen_flax.make(checkpoint, dtype=dtype)
    untransposed = {
        name: weight.T
        for name, weight in port.parameters().items()
        if "self_attn" in name and weight.ndim == 2 and weight.shape[0] == weight.shape[1]
    }
    return port.with_parameters(untransposed)
