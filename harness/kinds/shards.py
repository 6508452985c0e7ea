"""Mistakes of steps that are split over several devices: what each device has, and what becomes of it.

An axis is cut into 2, 4 or 8 equal shards, one a device. Where it is summed over, devices hold parts of the sum
(Shoeybi et al. 2019, "Megatron-LM"); elsewhere, parts of the output.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from harness.kinds.rows import Columns, Rows
from harness.kinds.step import Array, Evaluation, Hypothesis

SHARDS = (2, 4, 8)

Order = Callable[[Evaluation, int, int], Array]
"""(evaluation, size, shards) -> of each place along an axis, which one is there instead. Raises ValueError for none."""


def _first_for_all(e: Evaluation, size: int, shards: int) -> Array:
    return e.xp.indices(size) % _width(size, shards)


def _reversed(e: Evaluation, size: int, shards: int) -> Array:
    return e.xp.indices(size).reshape(shards, _width(size, shards))[::-1].reshape(-1)


def _next(e: Evaluation, size: int, shards: int) -> Array:
    return (e.xp.indices(size) + _width(size, shards)) % size


def _previous(e: Evaluation, size: int, shards: int) -> Array:
    return (e.xp.indices(size) - _width(size, shards)) % size


def _width(size: int, shards: int) -> int:
    """Of one shard. A shard of one is no shard: what is wrong with it has a name of its own."""
    if size % shards or size == shards:
        raise ValueError(f"{size} cannot be cut into {shards} shards")
    return size // shards


_ORDERS: tuple[tuple[str, str, Order, tuple[int, ...]], ...] = (
    ("first_shard_for_all", "the first of {} shards of {} on every device", _first_for_all, SHARDS),
    ("shards_reordered", "{} shards of {} put together in reverse order", _reversed, SHARDS),
    ("shards_reordered", "{} shards of {} put together one device late", _previous, SHARDS[1:]),
    ("shards_reordered", "{} shards of {} put together one device early", _next, SHARDS[1:]),
)
"""Name, words for (shards, what is cut), order; of two shards, one late is reversed."""


def reordered(
    what: str, change: Callable[[Order, int, Evaluation], Evaluation | None]
) -> Iterator[Hypothesis]:
    """Mistakes in which shard is where. what: is cut into shards; change: the evaluation with these in an order."""
    for name, says, order, counts in _ORDERS:
        for shards in counts:
            yield Hypothesis(name, says.format(shards, what), change=partial(change, order, shards))


def _outputs(roles: tuple[str, ...], order: Order, shards: int, e: Evaluation) -> Evaluation | None:
    """A product with weight and bias, or one of the two, in this order of outputs."""
    rows = order(e, e.parameters["weight"].shape[0], shards)
    there = {role: Rows(value, rows) for role, value in e.parameters.items() if role in roles}
    return e.with_parameters(**there) if there else None


def _one_head_each(order: Order, roles: tuple[str, ...], e: Evaluation) -> Evaluation | None:
    """As many devices as heads."""
    size, outputs = e.settings.get("head_dim"), e.parameters["weight"].shape[0]
    return (
        _outputs(roles, order, outputs // size, e)
        if size and outputs % size == 0 and outputs > size
        else None
    )


def _inputs(order: Order, shards: int, e: Evaluation) -> Evaluation:
    x = e.inputs["x"]
    return e.with_inputs(x=x[..., order(e, x.shape[-1], shards)])


def _first_columns(shards: int, e: Evaluation) -> Evaluation:
    weight = e.parameters["weight"]
    return e.with_parameters(weight=Columns(weight, _first_for_all(e, weight.shape[1], shards)))


def heads_in_shards(arguments: tuple[str, ...]) -> Iterator[Hypothesis]:
    """Mistakes in the order of heads, which are the second axis of these arguments."""

    def change(order: Order, shards: int, e: Evaluation) -> Evaluation:
        given = {name: e.inputs[name] for name in arguments}
        return e.with_inputs(**{name: x[:, order(e, x.shape[1], shards)] for name, x in given.items()})

    yield from reordered("the heads", change)


def partial_sums(argument: str, what: str) -> Iterator[Hypothesis]:
    """What is summed over the last axis of an argument, and is not summed over devices: a shard of it alone."""
    yield from _alone(f"{what} alone", change=partial(_only, argument))


def _alone(what: str, **how: Callable[..., Any]) -> Iterator[Hypothesis]:
    """how: `change` or `evaluate` of a hypothesis, which is told (shards, shard) first"""
    for shards in SHARDS:
        for shard in range(shards):
            told: dict[str, Any] = {name: partial(call, shards, shard) for name, call in how.items()}
            yield Hypothesis(
                "partial_sum", f"sum over devices missing: shard {shard} of {shards} of {what}", **told
            )


def _only(argument: str, shards: int, shard: int, e: Evaluation) -> Evaluation:
    given = e.inputs[argument]
    return e.with_inputs(**{argument: given * _inside(e, given.shape[-1], shards, shard)})


def _inside(e: Evaluation, size: int, shards: int, shard: int) -> Array:
    return e.xp.indices(size) // _width(size, shards) == shard


def _times(factor: Callable[[int], float], shards: int, e: Evaluation) -> Evaluation | None:
    """The product so many times, and its bias once. Roots of sizes have names of their own."""
    roots = (e.settings.get("hidden_size"), e.settings.get("head_dim"), e.inputs["x"].shape[-1])
    if shards**2 in roots:
        return None
    return e.with_inputs(x=e.inputs["x"] * factor(shards))


def _bias_times(shards: int, e: Evaluation) -> Evaluation | None:
    bias = e.parameters.get("bias")
    return None if bias is None else e.with_parameters(bias=bias * shards)


def _summed_over_texts(parts: int, shards: int, e: Evaluation) -> Evaluation:
    """The sum taken over the axis of the batch: that of other texts, of the first shard of inputs if these are cut."""
    x = e.inputs["x"]
    width = len(x) // parts
    if width * parts != len(x):
        raise ValueError(f"{len(x)} texts cannot be cut into {parts}")
    summed = x.astype("float64").reshape(parts, width, *x.shape[1:]).sum(axis=0)
    inside = True if shards == 1 else _inside(e, x.shape[-1], shards, 0)
    return e.with_inputs(x=(summed * inside)[e.xp.indices(len(x)) % width])


PRODUCTS = (
    *reordered("the outputs", partial(_outputs, ("weight", "bias"))),
    *reordered("the outputs of the weight alone", partial(_outputs, ("weight",))),
    *reordered("the bias", partial(_outputs, ("bias",))),
    *(
        Hypothesis(name, f"the outputs of {says}", change=partial(_one_head_each, order, roles))
        for name, says, order in (
            ("shards_reordered", "heads put together in reverse order", _reversed),
            ("shards_reordered", "heads put together one late", _previous),
            ("shards_reordered", "heads put together one early", _next),
        )
        for roles in (("weight", "bias"), ("weight",))
    ),
    *reordered("the inputs", _inputs),
    *(
        Hypothesis(
            "first_shard_for_all",
            f"the first of {shards} shards of the weight, by inputs, on every device",
            change=partial(_first_columns, shards),
        )
        for shards in SHARDS
    ),
    *partial_sums("x", "the inputs"),
    *(
        Hypothesis(name, says.format(shards), change=partial(_times, factor, shards))
        for shards in SHARDS
        for name, says, factor in (
            ("reduced_twice", "summed over {} devices twice", float),
            ("mean_for_sum", "averaged over {} devices instead of summed", lambda shards: 1 / shards),
        )
    ),
    *(
        Hypothesis(
            "bias_on_every_shard",
            f"bias added on each of {shards} devices, before the sum over them",
            change=partial(_bias_times, shards),
        )
        for shards in SHARDS[1:]  # on two, it is added twice
    ),
    *(
        Hypothesis(
            "reduced_over_texts",
            f"summed over the devices of {parts} parts of the batch"
            + ("" if shards == 1 else f", with the first of {shards} shards of the inputs"),
            change=partial(_summed_over_texts, parts, shards),
        )
        for parts in SHARDS
        for shards in (1, *SHARDS)
    ),
)
"""Of a product with a matrix, whose outputs or inputs are cut."""


def _tokens_of(order: Order, shards: int, e: Evaluation) -> Evaluation:
    rows = order(e, e.parameters["weight"].shape[0], shards)
    return e.with_inputs(token_ids=rows[e.inputs["token_ids"]])


def _rows_inside(evaluate: Callable[[Evaluation], Array], shards: int, shard: int, e: Evaluation) -> Array:
    ids = e.inputs["token_ids"]
    inside = _inside(e, e.parameters["weight"].shape[0], shards, shard)[ids]
    return e.xp.wide(evaluate(e)) * inside[..., None]


def lookups(evaluate: Callable[[Evaluation], Array]) -> Iterator[Hypothesis]:
    """Of rows looked up in a vocabulary that is cut: a device has zeros for tokens of others."""
    yield from reordered("the vocabulary", _tokens_of)
    yield from _alone("the vocabulary alone, zeros elsewhere", evaluate=partial(_rows_inside, evaluate))
    for shards in SHARDS:
        yield Hypothesis(
            "reduced_twice",
            f"summed over {shards} devices twice",
            evaluate=partial(_rows_times, evaluate, shards),
        )


def _rows_times(evaluate: Callable[[Evaluation], Array], shards: int, e: Evaluation) -> Array:
    if shards**2 == e.parameters["weight"].shape[-1]:
        raise ValueError("the root of the hidden size")
    return e.xp.wide(evaluate(e)) * shards
