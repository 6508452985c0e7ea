"""A port with another method in the place of one, and the facts that are then wrong."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from harness.audit.fault import Answer, Lacking, Method, Planting, Rewired
from harness.model import FactIn
from harness.replay import port as contract
from harness.replay.port import Port

_PROTOCOLS = (
    contract.Port,
    contract.Isolated,
    contract.Wired,
    contract.Cached,
    contract.Weighted,
    contract.Configured,
    contract.Tokenizing,
    contract.Templated,
    contract.Processing,
    contract.Drawing,
    contract.Generating,
)


class _Fronted:
    """Offers these methods, and no others: what a port offers is read off its attributes."""

    def __init__(self, methods: Mapping[str, Any]) -> None:
        self.__dict__.update(methods)


def fronted(port: Port, planting: Method) -> Port:
    """The port, offering what it offers, with a fault in front of one method. Raises Lacking where it lacks that."""
    methods = {name: getattr(port, name) for name in dict.fromkeys(_offered()) if hasattr(port, name)}
    if planting.name not in methods:
        raise Lacking(
            f"the port does not offer `{planting.name}`: the fault cannot be planted, and nobody would see it"
        )
    stand_in: Any = _Fronted(methods | {planting.name: planting.change(methods[planting.name])})
    return stand_in


def _offered() -> Iterator[str]:
    """The methods of the contract."""
    for protocol in _PROTOCOLS:
        for each in protocol.__mro__:
            yield from (
                name for name, value in vars(each).items() if callable(value) and not name.startswith("_")
            )


def facts_in(planting: Planting, facts: Sequence[FactIn]) -> tuple[str, ...]:
    """The facts that a fault is in, by name."""
    globs: Collection[str] = getattr(planting, "at", ())
    return tuple(dict.fromkeys(f.component for f in facts if any(fnmatchcase(f.component, g) for g in globs)))


def asked_of(planting: Planting, facts: Sequence[FactIn]) -> list[FactIn]:
    """The facts that a port with the fault is asked for.

    Behind a method that is wrong, all of its families; where components are changed or fed otherwise, none, since
    the port is not asked as a whole; else whatever there is.
    """
    if isinstance(planting, Answer | Rewired):
        return []
    if not isinstance(planting, Method):
        return list(facts)
    names = facts_in(planting, facts)
    families = {fact.fact.family for fact in facts if fact.component in names}
    return [fact for fact in facts if fact.fact.family in families]


def by_family(facts: Sequence[FactIn]) -> dict[str, list[FactIn]]:
    """Family -> its facts, in the order in which they come."""
    families: dict[str, list[FactIn]] = {}
    for fact in facts:
        families.setdefault(fact.fact.family, []).append(fact)
    return families


def same(a: Any, b: Any) -> bool:
    """Whether two answers are alike, bit by bit."""
    import numpy as np

    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, str) or isinstance(b, str) or a is None or b is None:
        return type(a) is type(b) and bool(a == b)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    ours, theirs = np.asarray(a), np.asarray(b)
    alike = ours.dtype == theirs.dtype and ours.shape == theirs.shape
    return bool(alike and ours.tobytes() == theirs.tobytes())
