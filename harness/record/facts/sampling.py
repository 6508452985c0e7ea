"""Facts of sampling: what transformers' own processors make of chosen logits.

The logits are drawn from fixed seeds, some of them equal; the tokens before them come again and again.
The seeds are those with which every mistake that `harness.facts.mishandled` knows makes a difference, and no
two of them the same, so that each can be told by its name.
"""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from harness.errors import GoldensError
from harness.facts.processing import Question, processed, softmax
from harness.facts.sampling import in_effect
from harness.model import Fact
from harness.record.decoder import Module

Settings = Mapping[str, Any]
Rows = tuple[np.ndarray, np.ndarray]
"""Logits (B V) float32, and the tokens before them (B T)."""

_VALUES = {"repetition_penalty": 1.05, "temperature": 0.7, "top_k": 20, "top_p": 0.8, "min_p": 0.05}
_ONE = {"logits-1": (1, 25), "logits-2": (7, 49)}
_TOGETHER = {"logits-3": (4175, 3640, 2982, 1935, 2456), "logits-4": (842, 4884, 1439, 978, 5511)}
_DRAWN = {"logits-5": (1954, ("temperature", "top_k", "top_p")), "logits-6": (1556, ("temperature",))}
_DRAWS = 20_000
_VOCABULARY, _TOKENS = 48, 12
_WIDER = 64
"""More than the 50 tokens that the reference keeps where a checkpoint samples and does not say how many."""
_BATCH = 6
_TRIED = 100
"""So many seeds are tried for logits that a checkpoint's own settings cut safely."""
_STEP = 0.01237
_MARGIN = 1e-4
"""No port may depend on how a sum was rounded: so much more or less of a probability changes nothing."""


def sampling_facts(model: Module) -> list[Fact]:
    """Each setting by itself, all of them together, what the checkpoint brings in, and draws.

    Without the checkpoint's part where the reference itself refuses its generation settings.
    """
    alone = {name: {name: value} for name, value in _VALUES.items()}
    return [
        *(
            _fact(model, name, case, seeds, settings)
            for name, settings in alone.items()
            for case, seeds in _ONE.items()
        ),
        *(_fact(model, "all", case, seeds, _VALUES) for case, seeds in _TOGETHER.items()),
        *_of_checkpoint(model),
        *(_draws(case, seed, names) for case, (seed, names) in _DRAWN.items()),
    ]


def _fact(model: Module, name: str, case: str, seeds: Iterable[int], settings: Settings) -> Fact:
    rows = _rows(seeds, _VOCABULARY)
    if not _safe(rows, settings):
        raise GoldensError(f"{case} lies at the edge of what {name} keeps: choose other seeds")
    given = {**_given(rows), "settings": dict(settings)}
    # What is not named is off: a fresh configuration has no values that _get_logits_processor would take.
    right = _by_reference(model, GenerationConfig(do_sample=True, **settings), rows)
    return Fact(f"sampling.{name}", "sampling", case, given, right)


def _of_checkpoint(model: Module) -> Iterator[Fact]:
    """Nothing is asked for but what the checkpoint's generation settings say, as `generate` does without arguments."""
    config, _ = model._prepare_generation_config(None)
    asked = _asked(config)
    try:
        model._prepare_special_tokens(config, True, device=torch.device("cpu"))
        _by_reference(model, config, _rows((0,), _WIDER))
    except (
        Exception
    ):  # a temperature of 0, say: each processor raises in its own way, and so would generation
        return
    settings = in_effect(asked)
    fewer = [{name: settings[name] for name in settings if name != left_out} for left_out in settings]
    seeds = (
        seed
        for seed in range(_TRIED)
        if all(_safe(_rows((seed,), _WIDER), each) for each in (settings, *fewer))
    )
    safe = list(islice(seeds, _BATCH))
    if safe:
        rows = _rows(safe, _WIDER)
        given = {**_given(rows), "settings": None, "checkpoint": asked}
        right = _by_reference(model, config, rows)
        yield Fact("sampling.generation_config", "sampling", "checkpoint", given, right)


def _asked(config: GenerationConfig) -> dict[str, Any]:
    """What the reference takes from the checkpoint: whether it samples, and the settings that are not off."""
    off = {"repetition_penalty": 1, "temperature": 1, "top_k": 0, "top_p": 1, "min_p": 0}
    values = {name: getattr(config, name) for name in _VALUES}
    on = {name: value for name, value in values.items() if value is not None and value != off[name]}
    return {"do_sample": bool(config.do_sample), **on}


def _draws(case: str, seed: int, names: Iterable[str]) -> Fact:
    settings = {name: _VALUES[name] for name in names}
    logits, token_ids = _rows((seed,), _VOCABULARY)
    probs = softmax(processed(Question(logits.astype(np.float64), token_ids, settings)))
    given = {"logits": logits[0].tolist(), "settings": settings, "count": _DRAWS, "seed": seed}
    return Fact("sampling.draws", "draws", case, given, probs[0].tolist())


def _by_reference(model: Module, config: GenerationConfig, rows: Rows) -> list[list[float | None]]:
    """By the processors that the reference makes for a configuration, in its order; null for what is not kept."""
    logits, token_ids = rows
    processors = model._get_logits_processor(config, input_ids_seq_length=token_ids.shape[1])
    scores = processors(torch.from_numpy(token_ids).long(), torch.from_numpy(logits.copy()))
    return [[value if np.isfinite(value) else None for value in row] for row in scores.tolist()]


def _given(rows: Rows) -> dict[str, Any]:
    logits, token_ids = rows
    return {"logits": logits.tolist(), "token_ids": token_ids.tolist()}


def _rows(seeds: Iterable[int], vocabulary: int) -> Rows:
    logits, token_ids = zip(*(_row(seed, vocabulary) for seed in seeds), strict=True)
    return np.stack(logits), np.stack(token_ids)


def _row(seed: int, vocabulary: int) -> tuple[np.ndarray, np.ndarray]:
    """Logits (V): a heap, narrow or wide, up to three that stand out, and up to five that are equal near the 20th.

    Tokens (T): few, and often likely ones.
    """
    generator = np.random.PCG64(seed)

    def below(limit: int) -> int:
        return int(generator.random_raw()) % limit

    width, peaks, height, middle = (60, 110, 200)[below(3)], below(4), below(500), below(300) - 200
    steps = np.asarray(
        [sum(below(width) for _ in range(3)) - 3 * width // 2 + middle for _ in range(vocabulary)]
    )
    for _ in range(peaks):
        steps[below(vocabulary)] += height
    likeliest = np.argsort(-steps, kind="stable")
    first = 16 + below(5)
    steps[likeliest[first : first + 1 + below(5)]] = steps[likeliest[first]]
    pool = [0, *(below(vocabulary) for _ in range(5)), *(int(likeliest[below(12)]) for _ in range(3))]
    tokens = [below(vocabulary), *(pool[below(9)] for _ in range(_TOKENS - 2)), below(vocabulary)]
    return steps.astype(np.float32) * np.float32(_STEP), np.asarray(tokens, np.int32)


def _safe(rows: Rows, settings: Settings) -> bool:
    """Nothing lies at the edge of what is kept: a little more or less is the same, and no equal one is left behind."""
    logits, token_ids = rows
    q = Question(logits.astype(np.float64), token_ids, settings)
    kept = np.isfinite(processed(q))
    for name, size in (("top_p", 1.0), ("min_p", settings.get("min_p", 0.0))):
        for change in (-_MARGIN * size, _MARGIN * size) if name in settings else ():
            nudged = q.with_settings({**settings, name: settings[name] + change})
            if (np.isfinite(processed(nudged)) != kept).any():
                return False
    scaling = {name: settings[name] for name in ("repetition_penalty", "temperature") if name in settings}
    values = processed(q.with_settings(scaling))
    least, left = np.where(kept, values, np.inf).min(axis=1), np.where(kept, -np.inf, values).max(axis=1)
    return bool((least > left + _MARGIN).all())
