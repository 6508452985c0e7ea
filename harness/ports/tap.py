"""What an adapter declares: where in a model each component's value is to be seen, and in which axes. Loads nothing.

A layout is written as einops writes one, the reference's axes first: `"B T (K G D) -> B T K G D"`. Letters: B batch,
T query tokens, S key tokens, K key-value heads, G query heads to a key-value head, D head size, V vocabulary, and any
others that both sides share. A letter that only the reference has is copies there of what the port holds once
(`"B (K G) T D -> B T K D"`). `L`, on the right side of a parameter, counts layers.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Union

LAYER = "{n}"
"""In the names and paths of a table, a layer's number."""
UNDECIDED = "UNDECIDED"
"""The layout in a draft that somebody has to write: it is refused where it is used."""


@dataclass(frozen=True)
class Part:
    """One of several values that lie side by side along an axis, as in a fused projection or a padded vocabulary.

    index: which, of sizes: each a number, or letters, whose sizes are multiplied (`("K G D", "K D", "K D")`)
    """

    index: int
    sizes: tuple[str | int, ...]
    axis: int = -1


@dataclass(frozen=True)
class Tap:
    """A value in a model: what a call puts out, or takes in.

    call: a module by its path, or a method of one: `layers.{n}.attn.q_proj`, `embedder.encode`; {n} is a layer's
        number. Where layers are stacked under a scan, their path has none, and they are counted as they run
    function: a function that is called within that module, as `MODULE:NAME`, where the model looks it up
    nth: which of several such calls within one call of the module
    argument: what goes into the call, by name or place, and not what comes out
    result: which, where several values come out: its place, or its key
    value: the value that the model itself names, by `jax.ad_checkpoint.checkpoint_name(x, NAME)`; in place of a call
    layer: of which layer, for a component that is of none, where every layer has the value
    layout, part: how it lies there; as the reference has it, if nothing is said
    takes: argument of the component -> argument of the call, or where else that value is. What is not listed is taken
        by its name, or is the call's only argument, or is where the component is that puts it out
    """

    call: str = ""
    function: str = ""
    nth: int = 0
    argument: str | int | None = None
    result: str | int | None = None
    value: str = ""
    layer: int | None = None
    layout: str = ""
    part: Part | None = None
    takes: Mapping[str, Union[str, "Tap"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Param:
    """A parameter in a model's variables: its path, and how it lies there; as the reference has it, if nothing is said.

    Where layers are stacked, the path has no {n}, and `L` in the layout says along which axis they are.
    """

    path: str
    layout: str = ""
    part: Part | None = None
