"""A model whose parts are compiled one by one, and those that are alike once: a layer for all layers.

A program of 24 layers takes XLA almost 24 times as long to compile as one layer. It is worth it where the program is
launched often and does little each time, as for a single token; a prompt is read as fast layer by layer.
"""

from collections.abc import Callable
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

from flax import nnx

from qwen_flax.layers import DecoderLayer, Embedding, RMSNorm
from qwen_flax.model import Model
from qwen_flax.rope import RotaryEmbedding

Compile = Callable[..., Callable[..., Any]]
"""`compiled.jit`; or `jax.jit` within a program that is compiled as a whole, to trace what is alike but once."""

_CACHE = 6
"""Which argument of a layer's is its cache, after the parameters: it is written in place."""


class InParts(Model):
    """`model.hidden`, each part of it launched by itself."""

    def __init__(self, model: Model, compiled: Compile):
        each = partial(part, compiled)
        self.embed_tokens = each(Embedding.__call__, model.embed_tokens)
        self.rotary_emb: Any = SimpleNamespace(
            cos=each(RotaryEmbedding.cos, model.rotary_emb), sin=each(RotaryEmbedding.sin, model.rotary_emb)
        )
        self.layers: Any = [each(DecoderLayer.__call__, layer, donated=_CACHE) for layer in model.layers]
        self.norm = each(RMSNorm.__call__, model.norm)


def part(
    compiled: Compile,
    function: Callable[..., Any],
    module: nnx.Module,
    *static: Any,
    donated: int | None = None,
) -> Any:
    """`function(module, *static, ...)`, compiled once for all modules that are like this one.

    static: hashable arguments
    """
    graph, state = nnx.split(module)
    return partial(_program(compiled, function, graph, static, donated), state)


@lru_cache
def _program(
    compiled: Compile,
    function: Callable[..., Any],
    graph: nnx.GraphDef[Any],
    static: tuple[Any, ...],
    donated: int | None,
) -> Callable[..., Any]:
    def run(state: nnx.State[Any, Any], *inputs: Any) -> Any:
        return function(nnx.merge(graph, state), *static, *inputs)

    run.__name__ = function.__qualname__  # under which XLA and profiles know it
    return compiled(run, donate_argnums=() if donated is None else donated)
