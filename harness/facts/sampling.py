"""`sampling`: logits that were processed for the choice of a token, as generation settings say.

What is kept must be the same tokens exactly. A logit that is kept has gone through one product or quotient for the
repetition penalty and one for the temperature. Each has at most three roundings: of the setting to float32, of its
reciprocal, and of the product. So port and reference are at most 6 u32 |x| apart for each of the two that is set, u32
being float32's unit roundoff and x the reference's logit; without either, they are bit by bit the same.

A fact's `given` has `logits` (B V), `token_ids` (B T) and `settings`, those that are not off. These are null where the
port is to take them from its checkpoint: then `checkpoint` has what the reference takes from there, `do_sample` among
it. `expected` has null for what may not be chosen.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from harness.facts.family import PASSED, Context, Family, Found, wrong
from harness.model import UNIT_ROUNDOFF, Fact
from harness.replay.port import NotOffered, Processing

if TYPE_CHECKING:
    from harness.facts.mishandled import Mistake
    from harness.facts.processing import Question

Array = Any

_ROUNDINGS = 6
_NEAR = 16
_ROUNDED = ("repetition_penalty", "temperature")
_DEFAULTS = {"top_k": 50}
"""What transformers uses of a checkpoint that says nothing, where it samples."""
_SHOWN = 8
"""So many token ids are told."""


def _ask(port: Any, fact: Fact) -> Any:
    import numpy as np

    if not isinstance(port, Processing):
        raise NotOffered("the port does not offer `process_logits`")
    logits = np.asarray(fact.given["logits"], np.float32)
    token_ids = np.asarray(fact.given["token_ids"], np.int32)
    return port.process_logits(logits, token_ids, fact.given["settings"])


def _judge(fact: Fact, answer: Any, context: Context) -> Found:
    import numpy as np

    q, right = question(fact), np.asarray(fact.expected, dtype=np.float64)
    right = np.where(np.isnan(right), -np.inf, right)
    port = numbers(answer, right.shape)
    if isinstance(port, str):
        return wrong(port)
    allowed = _allowed(q, right)
    reason = _difference(port, right, allowed)
    if reason is None:
        return PASSED
    with np.errstate(all="ignore"):
        found = explained(reason, _fitting(fact, q, port, right))
    if len(q.settings) > 1 and _is_one_token(port, right, allowed):
        return replace(found, text="")
    return found


def question(fact: Fact) -> "Question":
    """What the port was asked, with the settings that the checkpoint brings in where they were not given."""
    import numpy as np

    from harness.facts.processing import Question

    given = fact.given
    settings = given["settings"] if given["settings"] is not None else in_effect(given["checkpoint"])
    return Question(np.asarray(given["logits"], np.float64), np.asarray(given["token_ids"]), settings)


def in_effect(checkpoint: Mapping[str, Any]) -> dict[str, float]:
    """What is applied of a checkpoint's settings: without sampling, nothing but the repetition penalty."""
    return {
        name: value
        for name, value in checkpoint.items()
        if name != "do_sample" and (checkpoint["do_sample"] or name == "repetition_penalty")
    }


def numbers(answer: Any, shape: tuple[int, ...]) -> Array | str:
    """The answer as float64, or why it is none."""
    import numpy as np

    if answer is None:
        return "the port gave nothing"
    try:
        array = np.asarray(answer).astype(np.float64)
    except (TypeError, ValueError):
        return f"the port gave a {type(answer).__name__} that is no array of numbers"
    if array.shape != shape:
        return f"has shape {list(array.shape)}, where {list(shape)} was expected"
    strange = np.isnan(array) | np.isposinf(array)
    if strange.any():
        place = [int(n) for n in np.argwhere(strange)[0]]
        return (
            f"{int(strange.sum())} of {array.size} numbers are NaN or positive infinity, the first at {place}"
        )
    return array


def explained(reason: str, fitting: Iterable[tuple[str, str]]) -> Found:
    """A failure, with the mistakes, by name and in words, that fit it."""
    found = dict(fitting)
    says = list(dict.fromkeys(found.values()))
    return wrong(
        reason, *found, text=says[0] if len(says) == 1 else f"one of: {'; '.join(says)}" if says else ""
    )


def _allowed(q: "Question", x: Array) -> Array:
    """The largest difference that rounding explains, number by number; 0 where nothing is kept."""
    import numpy as np

    count = sum(name in q.settings for name in _ROUNDED)
    return _ROUNDINGS * UNIT_ROUNDOFF["float32"] * count * np.where(np.isfinite(x), np.abs(x), 0)


def _near(q: "Question", x: Array) -> Array:
    """How near to what a mistake gives it has to be told by it: whatever the mistake computes, rounding is less."""
    import numpy as np

    size = np.maximum(np.where(np.isfinite(x), np.abs(x), 0), np.abs(q.logits))
    return _NEAR * UNIT_ROUNDOFF["float32"] * np.maximum(size, 1)


def _difference(port: Array, right: Array, allowed: Array) -> str | None:
    """What is wrong, or None."""
    import numpy as np

    kept, wanted = np.isfinite(port), np.isfinite(right)
    if (kept != wanted).any():
        rows = (
            _support(row, kept[row], wanted[row]) for row in range(len(right)) if (kept != wanted)[row].any()
        )
        return "; ".join(rows)
    gap = np.where(wanted, np.abs(np.where(wanted, port, 0) - np.where(wanted, right, 0)), 0)
    if (gap <= allowed).all():
        return None
    row, token = (int(n) for n in np.unravel_index(int(np.argmax(gap - allowed)), gap.shape))
    return (
        f"{int((gap > allowed).sum())} of {int(wanted.sum())} logits differ, most that of token {token} in text {row}: "
        f"port {port[row, token]:.9g}, reference {right[row, token]:.9g}; {allowed[row, token]:.2g} is allowed"
    )


def _support(row: int, kept: Array, wanted: Array) -> str:
    told = [
        f"{what} {tokens(ids)} too {much}"
        for what, much, ids in (("keeps", "many", kept & ~wanted), ("keeps", "few", wanted & ~kept))
        if ids.any()
    ]
    return f"text {row} {' and '.join(told)} ({int(wanted.sum())} of {wanted.size} are to be kept)"


def tokens(chosen: Array) -> str:
    """Token ids where `chosen` (V) holds, in words."""
    ids = [int(n) for n in chosen.nonzero()[0]]
    shown = ", ".join(map(str, ids[:_SHOWN])) + (", ..." if len(ids) > _SHOWN else "")
    return f"token{'s' if len(ids) > 1 else ''} {shown}"


def _fitting(fact: Fact, q: "Question", port: Array, right: Array) -> Iterator[tuple[str, str]]:
    """The mistakes that make a difference here and give what the port gave."""
    allowed = _allowed(q, right)
    for mistake in (*_looked_for(fact, q), *_with_a_number_for_dropped(port, right)):
        makes_a_difference = _difference(mistake.answer, right, allowed) is not None
        if makes_a_difference and _difference(port, mistake.answer, _near(q, mistake.answer)) is None:
            yield mistake.name, mistake.says


def _is_one_token(port: Array, right: Array, allowed: Array) -> bool:
    """One token is too many or too few, and nothing else is wrong: of several settings together, that fits too much."""
    import numpy as np

    differs = np.isfinite(port) != np.isfinite(right)
    rest = np.where(differs, right, port)
    return int(differs.sum()) == 1 and _difference(rest, right, allowed) is None


def _looked_for(fact: Fact, q: "Question") -> "Iterator[Mistake]":
    from harness.facts.mishandled import Mistake, mistakes
    from harness.facts.processing import processed

    if fact.given["settings"] is not None:
        yield from mistakes(q)
        return
    for mistake in mistakes(q):
        if mistake.name == "settings_ignored":
            yield Mistake(
                "generation_config_ignored", "the checkpoint's generation settings are not used", q.logits
            )
        else:
            yield mistake
    checkpoint = fact.given["checkpoint"]
    other = q.with_settings(in_effect({**checkpoint, "do_sample": not checkpoint["do_sample"]}))
    if checkpoint["do_sample"] and other.settings and len(q.settings) > 2:
        says = "the checkpoint's settings of sampling are not used, although it samples"
        yield Mistake("greedy_although_sampled", says, processed(other))
    if checkpoint["do_sample"]:
        says = "transformers' own defaults are used, not the checkpoint's generation settings"
        yield Mistake("default_settings", says, processed(q.with_settings(_DEFAULTS)))
    else:
        says = "the checkpoint's settings of sampling are used, although it does not sample"
        yield Mistake("sampled_although_greedy", says, processed(other))


def _with_a_number_for_dropped(port: Array, right: Array) -> "Iterator[Mistake]":
    """What may not be chosen, three tokens at least, has one and the same number."""
    import numpy as np

    from harness.facts.mishandled import Mistake

    instead = np.unique(port[np.isneginf(right)])
    if len(instead) == 1 and np.isneginf(right).sum() >= 3:
        says = f"what may not be chosen has {instead[0]:g} instead of -inf"
        yield Mistake("filter_value_finite", says, np.where(np.isneginf(right), instead[0], right))


SAMPLING = Family("sampling", _ask, _judge)
