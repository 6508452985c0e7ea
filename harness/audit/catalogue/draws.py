"""Mistakes in drawing a token at random."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from harness.audit.catalogue.processing import ORDER, fault
from harness.audit.fault import Method

Array = Any
Draw = Callable[[Array, Mapping[str, Any], int, int], Array]


def _drawing(change: Callable[[Draw, Array, Mapping[str, Any], int, int], Array]) -> Method:
    def changed(method: Draw) -> Draw:
        return lambda logits, settings, count, seed: change(method, logits, settings, count, seed)

    return Method(("sampling.draws",), "draw", changed)


def _draw_without(*names: str) -> Method:
    return _drawing(
        lambda method, logits, settings, count, seed: method(
            logits, {name: value for name, value in settings.items() if name not in names}, count, seed
        )
    )


def _draw_at_temperature(change: Callable[[float], float]) -> Method:
    return _drawing(
        lambda method, logits, settings, count, seed: method(
            logits, {**settings, "temperature": change(settings["temperature"])}, count, seed
        )
    )


def _alike(method: Draw, logits: Array, settings: Mapping[str, Any], count: int, seed: int) -> Array:
    kept = np.unique(np.asarray(method(logits, settings, count, seed)))
    return np.random.default_rng(seed).choice(kept, count)


def _of_probabilities(
    method: Draw, logits: Array, settings: Mapping[str, Any], count: int, seed: int
) -> Array:
    """A token's probability, read off the port's own draws, is added to noise as if it were a logit."""
    drawn = np.asarray(method(logits, settings, 4 * count, seed))
    probs = np.bincount(drawn, minlength=len(logits)) / len(drawn)
    noise = np.random.default_rng(seed).gumbel(size=(count, len(logits)))
    return np.argmax(probs + noise, axis=1)


def _ranks(method: Draw, logits: Array, settings: Mapping[str, Any], count: int, seed: int) -> Array:
    ranks = np.argsort(np.argsort(-np.asarray(logits), kind="stable"))
    return ranks[np.asarray(method(logits, settings, count, seed))]


def _one_further(method: Draw, logits: Array, settings: Mapping[str, Any], count: int, seed: int) -> Array:
    return (np.asarray(method(logits, settings, count, seed)) + 1) % len(logits)


FAULTS = (
    fault(
        "draws-without-settings",
        "tokens are drawn from logits as they are",
        _draw_without(*ORDER),
        "settings_ignored",
    ),
    fault(
        "draws-without-temperature",
        "draws ignore the temperature",
        _draw_without("temperature"),
        "temperature_ignored",
    ),
    fault("draws-without-top-k", "draws ignore top_k", _draw_without("top_k"), "top_k_ignored"),
    fault("draws-without-top-p", "draws ignore top_p", _draw_without("top_p"), "top_p_ignored"),
    fault(
        "draws-at-inverse-temperature",
        "draws multiply by the temperature",
        _draw_at_temperature(lambda t: 1 / t),
        "temperature_multiplied",
    ),
    fault("draws-a-little-hotter", "draws are hotter by a tenth", _draw_at_temperature(lambda t: 1.1 * t)),
    fault(
        "draws-of-the-likeliest",
        "the likeliest token is taken each time",
        _drawing(lambda method, logits, settings, count, seed: np.full(count, np.argmax(logits))),
        "always_likeliest",
    ),
    fault("draws-alike", "all that is kept is drawn alike", _drawing(_alike), "uniform_over_support"),
    fault(
        "draws-of-probabilities",
        "probabilities are drawn by as if they were logits",
        _drawing(_of_probabilities),
        "probabilities_for_logits",
    ),
    fault(
        "draws-with-one-key",
        "the generator is in the same state for each draw",
        _drawing(
            lambda method, logits, settings, count, seed: np.full(
                count, np.asarray(method(logits, settings, 1, seed))[0]
            )
        ),
        "draws_repeated",
    ),
    fault("draws-of-ranks", "a token's rank is given for its id", _drawing(_ranks), "left_sorted"),
    fault("draws-one-token-further", "the id after the one that is drawn is given", _drawing(_one_further)),
    fault(
        "draws-with-another-seed",
        "the seed is another than the one that is given",
        _drawing(lambda method, logits, settings, count, seed: method(logits, settings, count, seed + 1)),
        equivalent="Every seed draws from the same distribution, which is all that can be compared.",
    ),
)
