"""`draws`: tokens that were drawn at random, compared in distribution, whatever the generator of random numbers.

A fact's `given` has `logits` (V), `settings`, `count` and `seed`; `expected` is the probability of each token (V). No
token may come that has none. How often the others come is held against their probabilities by the G-test, with those
taken together that are expected less than 5 times: a right port fails it once in a million times. With 20,000 draws
from up to 20 tokens, whatever moves a twentieth of the probability elsewhere (a total variation of 0.05) is found for
sure, and what moves a hundredth mostly is not.
"""

from collections.abc import Iterator
from typing import Any

from harness.facts.family import PASSED, Context, Family, Found, wrong
from harness.facts.sampling import explained, tokens
from harness.model import Fact
from harness.replay.port import Drawing, NotOffered

Array = Any

FALSE_ALARMS = 1e-6
_FITS = 1e-3
"""A mistake explains draws that it would give no more rarely than this."""
_LEAST_EXPECTED = 5.0


def _ask(port: Any, fact: Fact) -> Any:
    import numpy as np

    if not isinstance(port, Drawing):
        raise NotOffered("the port does not offer `draw`")
    given = fact.given
    logits = np.asarray(given["logits"], np.float32)
    return port.draw(logits, given["settings"], given["count"], given["seed"])


def _judge(fact: Fact, answer: Any, context: Context) -> Found:
    import numpy as np

    right = np.asarray(fact.expected, np.float64)
    counts = _counts(answer, fact.given["count"], len(right))
    if isinstance(counts, str):
        return wrong(counts)
    impossible = (counts > 0) & (right == 0)
    p = chance(counts, right)
    if not impossible.any() and p >= FALSE_ALARMS:
        return PASSED
    fitting = _fitting(fact, counts, right)
    if impossible.any():
        often = int(counts[impossible].sum())
        return explained(
            f"{often} of {counts.sum()} draws are {tokens(impossible)}, which may not be chosen", fitting
        )
    most = int(np.argmax(np.abs(counts / counts.sum() - right)))
    return explained(
        f"in {counts.sum()} draws token {most} came {counts[most]} times, where {right[most] * counts.sum():.0f} "
        f"are expected; draws of a right port are as far off with p {_told(p)}, and {FALSE_ALARMS:g} passes",
        fitting,
    )


def _told(p: float) -> str:
    return f"= {p:.1g}" if p else "below 1e-300"


def chance(counts: Array, probs: Array) -> float:
    """How probable counts (V) this far from what `probs` (V) lets expect are. 0 for a token that cannot come."""
    import numpy as np
    from scipy.stats import chi2

    if counts[probs == 0].any():
        return 0.0
    order = np.argsort(-probs, kind="stable")
    expected, observed = probs[order] * counts.sum(), counts[order]
    alone = int((expected >= _LEAST_EXPECTED).sum())
    if expected[alone:].sum() < _LEAST_EXPECTED:
        alone = max(alone - 1, 0)
    cells = np.append(expected[:alone], expected[alone:].sum())
    seen = np.append(observed[:alone], observed[alone:].sum())
    if len(cells) == 1:
        return 1.0
    logs = np.log(np.where(seen > 0, seen, 1) / cells)
    return float(chi2.sf(2 * (seen * logs).sum(), len(cells) - 1))


def _counts(answer: Any, count: int, vocabulary: int) -> Array | str:
    """How often each token came (V), or why that cannot be said."""
    import numpy as np

    if answer is None:
        return "the port gave nothing"
    try:
        drawn = np.asarray(answer)
    except (TypeError, ValueError):
        return f"the port gave a {type(answer).__name__} that is no array of token ids"
    if drawn.shape != (count,):
        return f"has shape {list(drawn.shape)}, where {count} draws were asked for"
    if drawn.dtype.kind not in "iu":
        return f"holds {drawn.dtype}, where token ids are whole numbers"
    outside = (drawn < 0) | (drawn >= vocabulary)
    if outside.any():
        return f"token {drawn[outside][0]} was drawn, but there are {vocabulary} logits"
    return np.bincount(drawn.astype(np.int64), minlength=vocabulary)


def _fitting(fact: Fact, counts: Array, right: Array) -> Iterator[tuple[str, str]]:
    import numpy as np

    with np.errstate(all="ignore"):
        for name, says, probs in _instead(fact, counts, right):
            if not np.allclose(probs, right) and chance(counts, probs) >= _FITS:
                yield name, says


def _instead(fact: Fact, counts: Array, right: Array) -> Iterator[tuple[str, str, Array]]:
    """Mistakes by name and in words, and the probabilities (V) that they draw by."""
    import numpy as np

    from harness.facts.mishandled import mistakes, settings_ignored
    from harness.facts.processing import Question, softmax

    support = right > 0
    logits = np.asarray(fact.given["logits"], np.float64)
    q = Question(logits[None], np.zeros((1, 0), np.int64), fact.given["settings"])
    likeliest = np.arange(len(right)) == right.argmax()
    yield "always_likeliest", "the likeliest token is taken each time", likeliest.astype(np.float64)
    if (counts == counts.sum()).any():
        yield "draws_repeated", "one draw is given again and again", (counts > 0).astype(np.float64)
    yield "uniform_over_support", "all that may be chosen is drawn alike", support / support.sum()
    if not support.all():
        yield "uniform_over_vocabulary", "every token is drawn alike", np.full(len(right), 1 / len(right))
    for flat in (np.exp(right), np.where(support, np.exp(right), 0)):
        yield (
            "probabilities_for_logits",
            "probabilities are drawn by as if they were logits",
            flat / flat.sum(),
        )
    # the only setting ignored is all of them ignored: other draws tell which it is
    every = (*mistakes(q), settings_ignored(q)) if len(q.settings) == 1 else mistakes(q)
    for mistake in every:
        if mistake.name in _SEEN or mistake.name.endswith("_ignored"):
            yield mistake.name, mistake.says, softmax(mistake.answer)[0]


_SEEN = ("temperature_multiplied", "temperature_twice", "left_sorted")
"""Mistakes in processed logits that move enough probability to be told by draws, beside a setting that is ignored."""

DRAWS = Family("draws", _ask, _judge)
