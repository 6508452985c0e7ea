"""What a port is: whatever can be driven. The more it offers, the more can be said.

Arrays go in as numpy arrays and may come out as anything `numpy.asarray` takes. A golden's `dtype` is the
dtype the port was made with; a port that answers in another one is not compared.
"""

import importlib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Protocol, Self, runtime_checkable

from harness.errors import GoldensError, first_line, nearest, told
from harness.model import Component
from harness.replay.compilations import keep_compilations
from harness.report.result import SHAPE

Arrays = Mapping[str, Any]

TRACE_INPUTS = ("token_ids", "attention_mask", "positions", "query_index")
"""What a whole run is given of a case."""


class NotOffered(LookupError):
    """Raised for what a port cannot be asked, by `apply` for a component that it cannot run by itself: unmeasured."""


class Miswired(ValueError):
    """Raised by `apply`, or by a value that is handed out, where the forward pass does not make a component of what it
    takes in: that is wrong whatever the numbers are.
    """


class Misshaped(Miswired):
    """Raised where what a component takes in has other sizes than the golden, however its axes are laid out."""


@runtime_checkable
class Port(Protocol):
    """The least a port offers: run the whole model and hand out named components."""

    def trace(self, inputs: Arrays, names: Collection[str]) -> Arrays:
        """Run on `token_ids` (B T), `attention_mask` (B S), `positions` (B T), `query_index` (T).

        Returns those of `names` that the port offers, each in the axes of the step table; `lm_head` at least.
        """
        ...


@runtime_checkable
class Isolated(Port, Protocol):
    """A port whose components can be run one by one."""

    def apply(self, name: str, inputs: Arrays) -> Arrays:
        """Run component `name`, by the very code that the forward pass runs; return `{name: array}`.

        Raises `NotOffered` when there is no such component to run.
        """
        ...


@runtime_checkable
class Expecting(Port, Protocol):
    """A port that reads its parameters when they are needed, and can do so while something else is computed."""

    def expect(self, name: str) -> None:
        """Told that component `name` is going to be run soon. It raises nothing: whatever is wrong shows then."""
        ...


@runtime_checkable
class Wired(Port, Protocol):
    """A port that wants to know what each component takes in, and from where."""

    def wire(self, components: Iterable[Component]) -> None:
        """Called with the golden file's components before anything else is asked. A port around another hands it on."""
        ...


@runtime_checkable
class Cached(Port, Protocol):
    """A port that reads a text in parts, and keeps the keys and values of what it has read.

    A cache is whatever the port makes of it; a slot of it holds one token of each text of the batch.
    """

    def init_cache(self, batch: int, capacity: int, fill: float) -> Any:
        """A cache of `capacity` slots, all holding `fill`, which is NaN: no result may depend on it."""
        ...

    def step(self, cache: Any, inputs: Arrays, names: Collection[str]) -> tuple[Arrays, Any]:
        """Read the next tokens: `token_ids`, `positions` (B t), `query_index` (t), `attention_mask` (B capacity).

        query_index: the slots of the tokens, which follow each other
        attention_mask: 0 at padding, 1 elsewhere, slots that are not written yet among them
        Returns those of `names` that the port offers, and the cache with the tokens in it; `cache` is not used again.
        S is the capacity; so is the T of what the scores and the context take in at every key (`k_expanded`).
        """
        ...

    def read_cache(self, cache: Any) -> Arrays:
        """What the cache holds, by the names of the components that are written to it, with T its capacity."""
        ...


@runtime_checkable
class Weighted(Port, Protocol):
    """A port whose parameters can be read and replaced, in the reference's names and layout."""

    def parameters(self) -> Arrays: ...

    def with_parameters(self, overrides: Arrays) -> Self: ...


@runtime_checkable
class Configured(Protocol):
    """A port that tells what it understood of the checkpoint's configuration."""

    def config(self) -> Mapping[str, Any]:
        """Setting -> value, as JSON has it; the settings that docs/ports.md lists, or those that the port knows."""
        ...


@runtime_checkable
class Tokenizing(Protocol):
    """A port that turns text into token ids."""

    def tokenize(self, text: str) -> Sequence[int]:
        """The token ids of a text, special tokens in it recognised, with what the tokenizer puts around a text."""
        ...


@runtime_checkable
class Templated(Protocol):
    """A port that writes chats as the checkpoint's template does."""

    def render_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """The text of a chat. options: `tools`, `add_generation_prompt`, and variables of the template such as
        `enable_thinking`."""
        ...


@runtime_checkable
class Processing(Protocol):
    """A port that prepares logits for the choice of a token, as generation settings say."""

    def process_logits(self, logits: Any, token_ids: Any, settings: Mapping[str, Any] | None) -> Any:
        """logits (B V) float32, after the tokens `token_ids` (B T) -> (B V), -inf for what may not be chosen.

        settings: any of `repetition_penalty`, `temperature`, `top_k`, `top_p`, `min_p`, applied in this order; None:
        what the checkpoint's generation settings say.
        """
        ...


@runtime_checkable
class Drawing(Protocol):
    """A port that draws tokens at random."""

    def draw(self, logits: Any, settings: Mapping[str, Any], count: int, seed: int) -> Any:
        """`count` independent draws (count) of a token id from logits (V), processed as `settings` say."""
        ...


@runtime_checkable
class Generating(Protocol):
    """A port that writes text by itself."""

    def generate(self, token_ids: Any, attention_mask: Any, max_new_tokens: int) -> Mapping[str, Any]:
        """The likeliest next token, again and again, after logits were processed as the checkpoint's generation
        settings say. token_ids, attention_mask: (B T), shorter texts padded on the left.

        Returns `tokens` (B N), N <= max_new_tokens, where a text that ended is filled up with any id, and `lengths`
        (B): how many tokens are a text's own, the one that ended it included, and `stop` (B): the token that ended it,
        or -1 where the limit did.
        """
        ...


def load_port(spec: str, checkpoint: str, dtype: str, mesh: Any = None) -> Port:
    """Make the port that `spec` (`MODULE:FACTORY`) names, from `checkpoint`, in `dtype`, on `mesh` if there is one.

    A factory that raises ValueError or OSError has refused the checkpoint: its message is the sentence.
    """
    factory = _factory(spec)
    keep_compilations()
    where = {} if mesh is None else {"mesh": mesh}
    if where and not _takes_mesh(factory):
        raise GoldensError(
            f"port {spec!r} runs on one device: a mesh is for a factory that is called as "
            "factory(checkpoint, dtype=..., mesh=...)"
        )
    try:
        port = factory(checkpoint, dtype=dtype, **where)
    except (ValueError, OSError) as error:
        raise GoldensError(f"port {spec!r} refused checkpoint {checkpoint}: {first_line(error)}") from error
    except Exception as error:  # whatever a stranger's factory raises
        raise GoldensError(
            f"port {spec!r} could not be made: its factory, called as factory(checkpoint, dtype={dtype!r}), "
            f"raised {told(error)}"
        ) from error
    if not isinstance(port, Port):
        raise GoldensError(f"port {spec!r} made a {type(port).__name__}, which has no method 'trace'")
    return port


def _takes_mesh(factory: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError):  # it does not say what it takes: it is asked
        return True
    return "mesh" in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def wired(port: Any, components: Iterable[Component]) -> Any:
    """The port, told how the components hang together if it wants to know."""
    if isinstance(port, Wired):
        port.wire(components)
    return port


def _factory(spec: str) -> Callable[..., Any]:
    module_name, _, factory_name = spec.partition(":")
    if not module_name or not factory_name or module_name.startswith("."):
        raise GoldensError(f"port {spec!r} does not name a factory: write it as MODULE:FACTORY")
    module = imported(module_name, f"port {spec!r}")
    if not hasattr(module, factory_name):
        close = nearest(factory_name, vars(module))
        raise GoldensError(f"port {spec!r}: module {module_name!r} has no factory {factory_name!r}{close}")
    factory = getattr(module, factory_name)
    if not callable(factory):
        raise GoldensError(
            f"port {spec!r} is a {type(factory).__name__}: name the function that makes the port"
        )
    return factory


def imported(module_name: str, named: str) -> Any:
    """A stranger's module; `named` begins the message. Raises GoldensError where it cannot be imported."""
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise GoldensError(
            f"{named}: no module named {error.name!r} can be imported; is it installed, or in this folder?"
        ) from error
    except Exception as error:  # it may raise anything
        raise GoldensError(f"{named}: importing {module_name!r} raised {told(error)}") from error


def raised(error: Exception) -> str:
    """Why a component fails for which the port raised an exception."""
    if isinstance(error, Misshaped):
        return f"{SHAPE}of what it takes in: {first_line(error)}"
    return (
        f"{MISWIRED}{first_line(error)}" if isinstance(error, Miswired) else f"the port raised {told(error)}"
    )


def no_mapping(value: Any) -> str:
    """Why nothing can be taken out of what a port gave."""
    return f"the port gave a {type(value).__name__}, where a mapping of names to arrays was expected"


MISWIRED = "wired otherwise: "
"""What the reason of a failure begins with that no number decides."""
