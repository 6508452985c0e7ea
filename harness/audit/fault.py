"""What a fault is: one deliberate mistake, and how it is put into a port.

Faults share no code and no formula with `harness.kinds`, its hypotheses or `harness.diagnose`: otherwise naming them
would prove nothing. numpy only.
"""

from collections.abc import Callable, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from harness.errors import GoldensError
from harness.model import Component

Array = Any
Arrays = Mapping[str, Array]


class DoesNotApply(GoldensError):
    """A fault that cannot be planted here: the port, its checkpoint or the golden file has nothing that it changes."""


class Lacking(GoldensError):
    """A fault that cannot be planted because the port does not offer what it needs: it would not be caught."""


class Area(StrEnum):
    """The part of a port that a fault is in."""

    WEIGHTS = "weights"
    EMBEDDING = "embedding"
    NORMS = "norms"
    ROTARY = "cos and sin"
    ROPE = "RoPE"
    SCORES = "scores"
    MASK = "mask"
    SOFTMAX = "softmax"
    CONTEXT = "context"
    MLP = "MLP"
    RESIDUAL = "residual"
    LOGITS = "logits"
    WIRING = "wiring"
    CACHE = "cache and decode"
    CONFIG = "config"
    TOKENIZER = "tokenizer"
    SAMPLING = "sampling"
    GENERATION = "generation"
    PLATFORM = "platform"
    SHARDING = "sharding"


@dataclass(frozen=True)
class Call:
    """One component of the port asked for its output.

    component: as the golden file has it, with its `settings` (`eps`, `theta`, `head_dim`, `window`, `groups`, ...)
    inputs: by argument name, in the axes of the step table, floating-point ones as float64
    run: the port's own code for the component, with some inputs replaced: `run(positions=...)` -> float64
    parameters: role -> the reference's parameter, float64, in reference layout; read when asked for
    """

    component: Component
    inputs: Arrays
    run: Callable[..., Array]
    parameters: Arrays

    @property
    def output(self) -> Array:
        """What the port puts out without the fault, as float64."""
        return self.run()


def always(component: Component) -> bool:
    return True


@dataclass(frozen=True)
class Answer:
    """The components that match any glob of `at` answer `change(call)`, rounded to the port's dtype.

    when: of these, the ones that have what is changed (a window, groups of heads)
    Through the contract: works on every port that runs components by themselves.
    """

    at: tuple[str, ...]
    change: Callable[[Call], Array]
    when: Callable[[Component], bool] = always


@dataclass(frozen=True)
class Overrides:
    """The port's parameters are replaced: `edit(parameters, components)` gives those that change, in reference layout.

    parameters: reference name -> array, in the port's dtype. Through the contract: `parameters`, `with_parameters`.
    """

    edit: Callable[[Arrays, Sequence[Component]], Arrays]


@dataclass(frozen=True)
class Rewired:
    """Components take their inputs from elsewhere: `edges(components)` gives component -> {argument: source}.

    Passes every isolated replay. Through the contract: the port's components, run in this wiring, in whatever order
    it asks for. Sources are components, or `case.positions` and the like; they must not go round in a circle.
    """

    edges: Callable[[Sequence[Component]], Mapping[str, Mapping[str, str]]]


@dataclass(frozen=True)
class EditedConfig:
    """The port is made by its factory from a copy of the checkpoint with another config.json, edited in place.

    at: globs of the components that are then wrong.
    """

    at: tuple[str, ...]
    edit: Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class EditedCheckpoint:
    """The port is made by its factory from a copy of the checkpoint with other tensors, edited in place.

    at: globs of the components that are then wrong. The tensors are in the dtype the checkpoint stores; they are
    read-only, so that an edit puts another in the place of one.
    """

    at: tuple[str, ...]
    edit: Callable[[MutableMapping[str, Array]], None]


@dataclass(frozen=True)
class Method:
    """A method of the port does something else: `change(method)` gives what stands in for it, called alike.

    at: globs of the facts that are then wrong. Through the contract: works on every port that offers the method.
    """

    at: tuple[str, ...]
    name: str
    change: Callable[[Callable[..., Any]], Callable[..., Any]]


@dataclass(frozen=True)
class Patch:
    """The port is made by its factory from a copy of its package with text replaced.

    replace: (file in the package, text that is there exactly once, text in its place)
    at: globs of the components that are wrong by themselves; for a fault in the wiring, of those whose edge is wrong
    """

    at: tuple[str, ...]
    replace: tuple[tuple[str, str, str], ...]


Planting = Answer | Overrides | Rewired | EditedConfig | EditedCheckpoint | Method | Patch


@dataclass(frozen=True)
class Fault:
    """One deliberate mistake.

    name: unique, in lower case with hyphens; says: what the port does wrong, in one clause
    named_by: the hypotheses that would be the right name for it; empty if none is known
    equivalent: why no input and no weights can show it, if that is so: the proof, in one or two sentences
    """

    name: str
    area: Area
    says: str
    planting: Planting
    named_by: frozenset[str] = frozenset()
    equivalent: str = ""
