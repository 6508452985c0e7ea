"""Logits in people's terms: how far the next token's probabilities are from the reference's, and the text's perplexity.

Nothing here decides a verdict: a fault can leave the likeliest token where it is, and rounding can move it in a tie.
Numbers are nats of the natural logarithm. numpy inside functions, so that this loads with nothing.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from typing import Any, Self

import msgspec

Array = Any

_BLOCK = 2**17
"""Elements that are looked at at a time, in float64: 1 MB, so that what is made of them stays near the processor."""
_NEAR = 0.01
"""Logarithms of probabilities that differ by less are compared by a series."""
_RESAMPLES = 2000
_SEED = 20260
_HALF_WIDTH = 1.96
"""Standard errors either side of a mean that hold 95 % of a normal distribution."""


@dataclass(frozen=True)
class Rows:
    """What is known of each token that is no padding, one number (N) for each.

    kl: of the port's distribution from the golden's; agree: whether both have the same likeliest token
    nll_port, nll_golden: minus the logarithm of the probability of the token that does come next; NaN if none is known
    kl_exact_port, kl_exact_golden: of either from the distribution in float64; NaN where that is not known
    """

    kl: Array
    agree: Array
    nll_port: Array
    nll_golden: Array
    kl_exact_port: Array
    kl_exact_golden: Array


class Interval(msgspec.Struct, frozen=True):
    """A number, and the bounds that hold it in 95 of 100 samples."""

    value: float
    low: float
    high: float


class LogitsSummary(msgspec.Struct, frozen=True):
    """The tokens of all cases of a dtype and mode together.

    tokens: how many; agreeing: of how many the likeliest next token is the reference's, of equals the first
    kl_*: the divergence KL(reference || port), in nats
    next_tokens: how many are followed by a known token; perplexity_*: of these, None where there are none
    perplexity_difference: the port's less the reference's, token by token, with its 95 % interval
    exact_*: mean divergence from the logits in float64, of port and reference; None where those are not known
    further: the port's over the reference's, with its 95 % interval
    """

    dtype: str
    mode: str
    tokens: int
    agreeing: int
    kl_median: float
    kl_95: float
    kl_99: float
    kl_max: float
    next_tokens: int = 0
    perplexity_port: float | None = None
    perplexity_golden: float | None = None
    perplexity_difference: Interval | None = None
    exact_port: float | None = None
    exact_golden: float | None = None
    further: Interval | None = None


def rows(
    port: Array,
    golden: Array,
    exact: Array | None = None,
    next_ids: Array | None = None,
    valid: Array | None = None,
) -> Rows:
    """Compare logits (B T V), or (N V), token by token, leaving out those that are not `valid` (B T).

    exact: the logits in float64; next_ids (B T): the token that comes next, negative where it is not known
    """
    import numpy as np

    count = math.prod(golden.shape[:-1])
    ours, theirs = _flat(port, count), _flat(golden, count)
    truth = None if exact is None else _flat(exact, count)
    ids = np.full(count, -1) if next_ids is None else np.asarray(next_ids).reshape(count)
    chosen = np.arange(count) if valid is None else np.flatnonzero(np.asarray(valid).reshape(count))
    step = max(1, _BLOCK // golden.shape[-1])
    parts = (chosen[start : start + step] for start in range(0, len(chosen), step))
    return merged(_block(ours[p], theirs[p], None if truth is None else truth[p], ids[p]) for p in parts)


def _flat(logits: Array, count: int) -> Array:
    import numpy as np

    return np.asarray(logits).reshape(count, -1)


def _block(port: Array, golden: Array, exact: Array | None, ids: Array) -> Rows:
    """A few tokens, (n V)."""
    import numpy as np

    ours, theirs = Likelihoods.of(port), Likelihoods.of(golden)
    unknown = np.full(len(ids), np.nan)
    truth = None if exact is None else Likelihoods.of(exact)
    return Rows(
        kl=divergence(theirs, ours),
        agree=np.argmax(port, axis=-1) == np.argmax(golden, axis=-1),
        nll_port=ours.against(ids),
        nll_golden=theirs.against(ids),
        kl_exact_port=unknown if truth is None else divergence(truth, ours),
        kl_exact_golden=unknown if truth is None else divergence(truth, theirs),
    )


@dataclass(frozen=True)
class Likelihoods:
    """Probabilities of the next token and their logarithms (n V), in float64."""

    shares: Array
    logs: Array

    @classmethod
    def of(cls, logits: Array) -> Self:
        """A logit of -inf is a token that cannot come; one of +inf, as float16 has it, leaves nothing to say: NaN."""
        import numpy as np

        logs = logits.astype(np.float64)
        with np.errstate(invalid="ignore"):
            logs -= logs.max(axis=-1, keepdims=True)
        shares = np.exp(logs)
        totals = shares.sum(axis=-1, keepdims=True)
        logs -= np.log(totals)
        shares /= totals
        return cls(shares, logs)

    def against(self, ids: Array) -> Array:
        """Minus the logarithm of the probability of the tokens `ids` (n); NaN for one that is negative."""
        import numpy as np

        found = self.logs[np.arange(len(ids)), np.maximum(ids, 0)]
        return np.where(ids >= 0, -found, np.nan)


def divergence(p: Likelihoods, q: Likelihoods) -> Array:
    """KL(p || q) of each row (n), in nats; infinite where q excludes what p does not.

    Summed as p (d + exp(-d) - 1), d = log p - log q. That is the same, since both sum to 1, but no term is negative,
    so that nothing cancels however near the two are: of d = 1e-6, terms of 1e-6 would leave 1e-12. exp(-d) is q / p,
    and a series where d is small.
    """
    import numpy as np

    with np.errstate(all="ignore"):
        d = p.logs - q.logs
        terms = _series(d)
        terms *= p.shares
        far = ~(np.abs(d) < _NEAR)
        if far.any():
            d, ours, theirs = d[far], p.shares[far], q.shares[far]
            terms[far] = np.where(ours == 0, theirs, ours * (d - 1) + theirs)
        return terms.sum(axis=-1)


def _series(d: Array) -> Array:
    """d + exp(-d) - 1 of small numbers: d^2 (1/2 - d/6 + d^2/24 - ...), in place, since memory is what takes time."""
    total = d / 720
    for coefficient in (-1 / 120, 1 / 24, -1 / 6, 1 / 2):
        total += coefficient
        total *= d
    total *= d
    return total


def merged(parts: Iterable[Rows]) -> Rows:
    """The tokens of several texts together."""
    import numpy as np

    held = list(parts)
    empty = np.zeros(0)
    columns = ([getattr(part, field.name) for part in held] for field in fields(Rows))
    return Rows(*(np.concatenate(column) if column else empty for column in columns))


def summarise(rows: Rows, dtype: str, mode: str) -> LogitsSummary | None:
    """None where there is no token."""
    import numpy as np

    if not len(rows.kl):
        return None
    median, upper, most_of_all = np.percentile(rows.kl, (50, 95, 99), method="inverted_cdf")
    summary = LogitsSummary(
        dtype=dtype,
        mode=mode,
        tokens=len(rows.kl),
        agreeing=int(np.count_nonzero(rows.agree)),
        kl_median=float(median),
        kl_95=float(upper),
        kl_99=float(most_of_all),
        kl_max=float(np.max(rows.kl)),
    )
    return msgspec.structs.replace(summary, **dict(_perplexities(rows)), **dict(_distances(rows)))


def _perplexities(rows: Rows) -> Iterator[tuple[str, Any]]:
    import numpy as np

    known = ~np.isnan(rows.nll_golden)
    if not known.any():
        return
    ours, theirs = rows.nll_port[known], rows.nll_golden[known]
    with np.errstate(over="ignore"):
        port, golden = float(np.exp(ours.mean())), float(np.exp(theirs.mean()))
    yield "next_tokens", int(known.sum())
    yield "perplexity_port", port
    yield "perplexity_golden", golden
    yield "perplexity_difference", _paired(port, golden, ours, theirs)


def _paired(port: float, golden: float, ours: Array, theirs: Array) -> Interval:
    """exp(mean ours) - exp(mean theirs). Its standard error is that of the mean of port x ours - golden x theirs, by
    the delta method: what both find hard in a token cancels."""
    import numpy as np

    count, difference = len(ours), port - golden
    if count < 2:
        return Interval(difference, -math.inf, math.inf)
    half = _HALF_WIDTH * float(np.std(port * ours - golden * theirs, ddof=1)) / math.sqrt(count)
    return Interval(difference, difference - half, difference + half)


def _distances(rows: Rows) -> Iterator[tuple[str, Any]]:
    import numpy as np

    known = ~np.isnan(rows.kl_exact_golden)
    if not known.any():
        return
    ours, theirs = rows.kl_exact_port[known], rows.kl_exact_golden[known]
    yield "exact_port", float(ours.mean())
    yield "exact_golden", float(theirs.mean())
    yield "further", ratio_interval(ours, theirs)


def ratio_interval(a: Array, b: Array) -> Interval:
    """mean(a) / mean(b) of numbers of the same tokens (N), with the 95 % interval of a bootstrap over the tokens."""
    import numpy as np

    draw, count = np.random.default_rng(_SEED), len(a)
    step, ratios = max(1, 32 * _BLOCK // count), []
    with np.errstate(divide="ignore", invalid="ignore"):
        for start in range(0, _RESAMPLES, step):
            picked = draw.integers(count, size=(min(step, _RESAMPLES - start), count))
            ratios.append(a[picked].sum(axis=1) / b[picked].sum(axis=1))
        low, high = np.percentile(np.concatenate(ratios), (2.5, 97.5))
        return Interval(float(np.divide(a.sum(), b.sum())), float(low), float(high))
