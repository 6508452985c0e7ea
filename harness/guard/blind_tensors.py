"""What recorded tensors, settings and weights leave unseen. numpy only."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from harness.compare.files import places
from harness.guard.blind_spot import CHECKPOINT, RANDOMIZED, BlindSpot, add_case, recorded_positions
from harness.model import Component, Golden
from harness.store.reader import GoldenFile

Array = Any

_KEYS, _SHARES = 4, 2.0
"""Rows with fewer visible keys are sharp or uniform by chance. With its likeliest key below twice an equal share, a
row's best score is less than ln 2 above the others: what is wrong with scores then moves a probability by less than
itself, and the context by less still."""
_ROOTS = 30.0
"""Of an rms of 30 sqrt(eps), leaving eps out moves a norm by one part in 1,800: hundreds of times what passes in
float32. Above, a slightly wrong eps is lost first, and in bfloat16 any."""
_BENT = 1.0
"""Up to here SiLU and GELU are half of x and a little curvature; GELU and its tanh form are one part in 5,000 apart."""
_DEFAULT_BASE = 10_000.0


def of_tensors(file: GoldenFile) -> Iterator[BlindSpot]:
    """Found from cases, goldens, settings and fingerprints."""
    for check in _OF_TENSORS:
        yield from check(file)


def of_weights(file: GoldenFile, weights: Mapping[str, Array]) -> Iterator[BlindSpot]:
    """Found from the checkpoint's own numbers; a tensor is read only while it can still matter."""
    for check in _OF_WEIGHTS:
        yield from check(file, weights)


def _rows(file: GoldenFile) -> Iterator[tuple[Array, Array]]:
    """Of each row of each case: the real tokens up to the last that is recorded, and the ids of those that are."""
    for case in file.contents.cases:
        inputs, recorded = file.case_inputs(case.name), recorded_positions(file, case.name)
        for ids, mask in zip(inputs["token_ids"], inputs["attention_mask"] != 0, strict=True):
            own = recorded[mask[recorded]]
            if own.size:
                yield np.flatnonzero(mask[: own.max() + 1]), ids[own]


def _outputs(file: GoldenFile, step: str) -> Iterator[tuple[Golden, Component]]:
    """The goldens of a step in the first recorded dtype."""
    dtype = file.dtypes[0]
    for golden in file.contents.goldens:
        component = file.component(golden.component)
        if golden.dtype == dtype and component.step == step:
            yield golden, component


def _of_step(file: GoldenFile, *steps: str) -> list[Component]:
    return [component for component in file.contents.components if component.step in steps]


def _vocabulary(file: GoldenFile) -> Iterator[BlindSpot]:
    """The last eighth, at most 512 rows, is where special and unused tokens lie; drawn cases reach there."""
    size = int(file.contents.config.get("vocab_size", 0))
    end = size - min(max(size // 8, 1), 512)
    if all((ids < end).all() for _, ids in _rows(file)):
        yield BlindSpot(
            "end of vocabulary",
            f"no token id is beyond {end - 1}",
            "embedding rows and logits cut off or shifted at the vocabulary's end",
            RANDOMIZED,
        )


def _attention(file: GoldenFile) -> Iterator[BlindSpot]:
    found = [_shares(file, golden, component) for golden, component in _outputs(file, "probs")]
    shares = np.concatenate(found or [[]])
    if shares.size and np.median(shares) < _SHARES:
        yield BlindSpot(
            "near-uniform attention",
            f"half of the attention gives its likeliest key less than {_SHARES:g} times an equal share",
            "most of what is wrong with RoPE, scale, scores and mask from all that comes after them",
            CHECKPOINT,
        )


def _shares(file: GoldenFile, golden: Golden, component: Component) -> Array:
    """The likeliest key's probability times the number of visible keys, of each head and row that sees enough."""
    inputs, probs = file.inputs(golden), file.output(golden).astype(np.float64)
    visible = _visible(inputs["query_index"], inputs["attention_mask"], component.settings["window"])
    enough = (visible >= _KEYS) & places(file, golden).queries
    return np.moveaxis(probs.max(axis=-1) * visible[:, None], 1, -1)[enough].ravel()


def _visible(query_index: Array, attention_mask: Array, window: int | None) -> Array:
    """How many keys each query sees: (B T)."""
    distance = query_index[:, None] - np.arange(attention_mask.shape[1])
    seen = (distance >= 0) & (distance < (window or np.inf))
    return (seen & (attention_mask != 0)[:, None]).sum(axis=-1)


def _window(file: GoldenFile) -> Iterator[BlindSpot]:
    windows = [component.settings["window"] for component in _of_step(file, "probs")]
    least = min((window for window in windows if window is not None), default=0)
    longest = max((len(seen) for seen, _ in _rows(file)), default=0)
    if least and longest <= least:
        yield BlindSpot(
            "window never left",
            f"no row is longer than the sliding window of {least}",
            "a sliding window that is ignored, of another size, or in other layers",
            f"{RANDOMIZED} of {least + 4} tokens",
        )


def _tiny_norm(file: GoldenFile) -> Iterator[BlindSpot]:
    found = [
        _least_rms(file, golden, component)
        for step in ("rms_norm", "head_norm")
        for golden, component in _outputs(file, step)
    ]
    if found and min(found) >= _ROOTS:
        there = any(case.name == "tiny-norm" for case in file.contents.cases)
        yield BlindSpot(
            "no tiny norm",
            f"no norm takes in less than {_ROOTS:g} times the root of its eps",
            "a wrong eps, and eps outside the root",
            CHECKPOINT if there else add_case(file, "tiny-norm"),
        )


def _least_rms(file: GoldenFile, golden: Golden, component: Component) -> float:
    """The least rms of what a norm takes in, in units of the root of its eps; infinite without eps."""
    x = file.inputs(golden)["x"][places(file, golden).queries].astype(np.float64)
    size, eps = component.settings["head_dim"] or x.shape[-1], component.settings["eps"]
    rms = np.sqrt(np.mean(np.square(x.reshape(-1, size)), axis=-1))
    return float(rms.min() / np.sqrt(eps)) if eps else np.inf


def _activation(file: GoldenFile) -> Iterator[BlindSpot]:
    taken = [
        np.abs(file.inputs(golden)["x"][places(file, golden).queries].astype(np.float64)).max()
        for golden, _ in _outputs(file, "silu")
    ]
    if taken and max(taken) < _BENT:
        yield BlindSpot(
            "straight activation",
            f"no activation takes in more than {_BENT:g}",
            "one activation in place of a similar one",
            CHECKPOINT,
        )


def _heads(file: GoldenFile) -> Iterator[BlindSpot]:
    groups = [component.settings["groups"] for component in _of_step(file, "expand_keys")]
    if groups and max(groups) == 1:
        yield BlindSpot(
            "no shared heads",
            "there are as many key-value heads as heads",
            "how key-value heads are shared among query heads",
            CHECKPOINT,
        )
    kept = {file.tensors[golden.inputs["x"]].shape[1] for golden, _ in _outputs(file, "expand_keys")}
    if groups and max(groups) > 1 and kept == {1}:
        yield BlindSpot(
            "one key-value head",
            "one key-value head serves all heads",
            "key-value heads tiled where they should be repeated",
            CHECKPOINT,
        )


def _head_size(file: GoldenFile) -> Iterator[BlindSpot]:
    """Where the configuration has a head size of its own."""
    config = file.contents.config
    size, heads, hidden = (config.get(name) for name in ("head_dim", "num_attention_heads", "hidden_size"))
    if size and heads and size * heads == hidden:
        yield BlindSpot(
            "head size",
            "heads are as wide as hidden / heads",
            "a head size or scale computed from these instead of read",
            CHECKPOINT,
        )


def _base(file: GoldenFile) -> Iterator[BlindSpot]:
    bases = {component.settings["theta"] for step in ("cos", "sin") for component in _of_step(file, step)}
    if bases == {_DEFAULT_BASE}:
        yield BlindSpot(
            "default rope base",
            f"the rope base is the usual default, {_DEFAULT_BASE:g}",
            "a base that is not read from the configuration",
            CHECKPOINT,
        )


def _alike(file: GoldenFile) -> Iterator[BlindSpot]:
    """By fingerprint. Vectors apart: where those are alike they are neutral, too, and reported as such."""
    names = defaultdict(list)
    for parameter in file.contents.parameters:
        if len(parameter.shape) == 2:
            names[parameter.sha256].append(parameter.name)
    for same in names.values():
        if len(same) > 1:
            more = f" and {len(same) - 2} more" if len(same) > 2 else ""
            yield BlindSpot(
                "parameters alike",
                f"{same[0]} and {same[1]}{more} are the same",
                "a head that is tied or not, and one loaded in place of another"
                if _is_head(file, same)
                else "one loaded in place of another",
                CHECKPOINT,
            )


def _is_head(file: GoldenFile, names: Iterable[str]) -> bool:
    """Whether embedding and head are both among the parameters of these names."""
    ends = (part for part in file.contents.components if part.name in ("embed_tokens", "lm_head"))
    both = {component.parameters.get("weight") for component in ends}
    return len(both) == 2 and both <= set(names)


def _one_layer(file: GoldenFile) -> Iterator[BlindSpot]:
    if file.contents.config.get("num_hidden_layers") == 1:
        yield BlindSpot(
            "one layer",
            "there is one layer",
            "layers in another order, left out, or with each other's parameters",
            CHECKPOINT,
        )


def _parameters(
    file: GoldenFile, weights: Mapping[str, Array], role: str, *steps: str
) -> Iterator[tuple[str, Iterable[Array]]]:
    """What components of all layers share, by the last part of their names -> their parameters, read one by one."""
    names: dict[str, list[str]] = defaultdict(list)
    for component in _of_step(file, *steps):
        name = component.parameters.get(role, "")
        if name in weights:
            names[component.name.rpartition(".")[2]].append(name)
    for part, members in names.items():
        yield part, (weights[name].astype(np.float32) for name in members)


def _biases(file: GoldenFile, weights: Mapping[str, Array]) -> Iterator[BlindSpot]:
    """A component that has no bias in this architecture has none to get wrong."""
    parts = [
        part
        for part, biases in _parameters(file, weights, "bias", "linear")
        if all(not np.any(bias) for bias in biases)
    ]
    if parts:
        yield BlindSpot(
            "zero biases",
            f"all biases of {_listed(parts)} are zero",
            "a bias left out, added twice, or added to another product",
            CHECKPOINT,
        )


def _unit_norms(file: GoldenFile, weights: Mapping[str, Array]) -> Iterator[BlindSpot]:
    parts = [
        part
        for part, values in _parameters(file, weights, "weight", "rms_norm", "head_norm")
        if all(np.all(value == 1) for value in values)
    ]
    if parts:
        yield BlindSpot(
            "unit norm weights",
            f"all weights of {_listed(parts)} are one",
            "a norm weight left out, or taken from another norm",
            CHECKPOINT,
        )


def _paired_norms(file: GoldenFile, weights: Mapping[str, Array]) -> Iterator[BlindSpot]:
    """Turning a pair of channels and scaling both alike are done in either order with the same result."""
    parts = [
        part
        for part, values in _parameters(file, weights, "weight", "head_norm")
        if all(_in_pairs(value) for value in values)
    ]
    if parts:
        yield BlindSpot(
            "norm weights in pairs",
            f"all weights of {_listed(parts)} are equal within each rotary pair",
            "RoPE before its norm instead of after",
            CHECKPOINT,
        )


def _in_pairs(weight: Array) -> bool:
    first, second = np.split(weight, 2)
    return np.array_equal(first, second)


def _symmetric(file: GoldenFile, weights: Mapping[str, Array]) -> Iterator[BlindSpot]:
    """Only of square ones is a transposed weight let through; the first that is not symmetric settles it."""
    shapes = {parameter.name: parameter.shape for parameter in file.contents.parameters}
    names = [component.parameters.get("weight", "") for component in _of_step(file, "linear")]
    square = [name for name in names if name in weights and len(set(shapes[name])) == 1]
    if square and all(np.array_equal(weights[name], weights[name].T) for name in square):
        yield BlindSpot(
            "symmetric weights",
            "all square weights are symmetric",
            "a weight used without transposing",
            CHECKPOINT,
        )


def _listed(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


_OF_TENSORS = (
    *(_vocabulary, _window, _attention, _tiny_norm, _activation),
    *(_heads, _head_size, _base, _alike, _one_layer),
)
_OF_WEIGHTS = (_biases, _unit_norms, _paired_norms, _symmetric)
