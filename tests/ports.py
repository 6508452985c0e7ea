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


class Wrapped:
    """The right port with one answer changed."""

    def __init__(self, checkpoint, dtype):
        self._port = qwen_flax.make(checkpoint, dtype=dtype)

    def wire(self, components):
        self._port.wire(components)

    def trace(self, inputs, names):
        return self._port.trace(inputs, names)

    def apply(self, name, inputs):
        return self._port.apply(name, inputs)


def cut_short(checkpoint, *, dtype):
    """Reads the first four tokens of every prompt."""

    class Port(Wrapped):
        def trace(self, inputs, names):
            place = {"query_index": slice(4)}
            return super().trace(
                {name: x[place.get(name, (slice(None), slice(4)))] for name, x in inputs.items()}, names
            )

    return Port(checkpoint, dtype)


def heads_inside(checkpoint, *, dtype):
    """Hands out heads behind tokens: (B T H D)."""

    class Port(Wrapped):
        def trace(self, inputs, names):
            return {
                n: x.swapaxes(1, 2) if n.endswith("q_rope") else x
                for n, x in super().trace(inputs, names).items()
            }

    return Port(checkpoint, dtype)


def without_key_bias(checkpoint, *, dtype):
    port = qwen_flax.make(checkpoint, dtype=dtype)
    name = "model.layers.1.self_attn.k_proj.bias"
    return port.with_parameters({name: 0 * port.parameters()[name]})


def one_wrong_element(checkpoint, *, dtype):
    port = qwen_flax.make(checkpoint, dtype=dtype)
    name = "model.layers.2.mlp.down_proj.weight"
    weight = port.parameters()[name].copy()
    weight[5, 7] += 0.01
    return port.with_parameters({name: weight})
