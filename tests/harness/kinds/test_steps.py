"""Steps say the same in numpy and torch, and their rounding models hold for any honest order of evaluation."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.compare.metrics import Places, views
from harness.kinds.numpy_arrays import NumpyArrays
from harness.kinds.step import U32, Evaluation, summation
from harness.kinds.table import STEPS
from harness.model import UNIT_ROUNDOFF

torch = pytest.importorskip("torch")
from harness.record.torch_arrays import TorchArrays  # noqa: E402

B, T, H, K, D, C, F, O, V = 2, 9, 4, 2, 8, 24, 32, 20, 50
SIZES = {"B": B, "T": T, "S": T, "H": H, "K": K, "D": D, "C": C, "F": F, "V": V}
PARAMETERS = {
    "embedding": {"weight": (V, C)},
    "scaled_embedding": {"weight": (V, C)},
    "layer_norm": {"weight": (C,), "bias": (C,)},
    "rms_norm": {"weight": (C,)},
    "head_norm": {"weight": (D,)},
    "linear": {"weight": (O, C), "bias": (O,)},
}
SETTINGS = {
    "scaled_embedding": {"scale": C**0.5},
    "layer_norm": {"eps": 1e-5},
    "part": {"start": C // 4, "stop": C // 2},
    "heads": {"head_dim": D},
    "capped_scores": {"cap": 5.0},
    "capped_logits": {"cap": 3.0},
    "scaled_logits": {"divisor": 3.0},
    "cos": {"theta": 1e6, "head_dim": D},
    "sin": {"theta": 1e6, "head_dim": D},
    "rms_norm": {"eps": 1e-6, "head_dim": None},
    "head_norm": {"eps": 1e-6, "head_dim": D},
    "expand_keys": {"groups": H // K},
    "expand_values": {"groups": H // K, "head_dim": D},
    "scores": {"scaling": D**-0.5},
    "probs": {"window": 5},
}
FLAT = {"linear": C, "part": C, "heads": H * D, "head_norm": H * D, "rope": H * D, "expand_values": K * D}
KNOWN = [name for name, step in STEPS.items() if not step.opaque]
ROUNDED = [name for name in KNOWN if not STEPS[name].exact]
VARIANTS = {
    "rms_norm": [{"weighted": "wide"}, {"weighted": "plus_one"}],
    "layer_norm": [{"wide": True}],
    "scaled_embedding": [{"multiplier": 12.3}],
    "residual": [{"multiplier": 0.22}],
    "rope": [{"head_dim": 2 * D}],
    "scaled_logits": [{"multiplier": 0.4}],
}
"""Settings with which a step is computed otherwise."""
NOTHING: Mapping[str, Any] = MappingProxyType({})
WAYS = [(name, {}) for name in KNOWN] + [(name, more) for name, every in VARIANTS.items() for more in every]
ROUNDED_WAYS = [(name, more) for name, more in WAYS if name in ROUNDED]


def drawn(name: str, seed: int, dtype: str = "float64", more: Mapping[str, Any] = NOTHING) -> Evaluation:
    """A step on random inputs that `dtype` can hold, in numpy and float64."""
    random = np.random.default_rng(seed)

    def normal(shape: tuple[int, ...]) -> np.ndarray:
        values = torch.from_numpy(random.standard_normal(shape) * np.exp2(random.integers(-3, 4)))
        return values.to(getattr(torch, dtype)).to(torch.float64).numpy()

    inputs = {}
    for argument, axes in STEPS[name].arguments.items():
        shape = tuple(SIZES.get(letter, FLAT.get(name, 0)) for letter in axes.split())
        inputs[argument] = normal(shape)
    if "token_ids" in inputs:
        inputs["token_ids"] = random.integers(0, V, (B, T))
    if "positions" in inputs:
        inputs["positions"] = random.integers(0, 32_000) + np.arange(T)[None].repeat(B, 0)
    if name == "probs":
        inputs["attention_mask"] = np.ones((B, T), dtype=np.int64)
        inputs["attention_mask"][0, : random.integers(0, T - 1)] = 0
        inputs["query_index"] = np.arange(T)
    if name == "context":
        inputs["probs"] = np.abs(inputs["probs"])
    parameters = {role: normal(shape) for role, shape in PARAMETERS.get(name, {}).items()}
    settings = {**SETTINGS.get(name, {}), **more}
    if "multiplier" in more:
        settings = {key: value for key, value in settings.items() if key not in ("scale", "divisor")}
    return Evaluation(NumpyArrays(np.float64), inputs, parameters, settings)


def in_torch(e: Evaluation, dtype: "torch.dtype") -> Evaluation:
    def cast(arrays):
        tensors = {name: torch.from_numpy(np.asarray(array)) for name, array in arrays.items()}
        return {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}

    return Evaluation(TorchArrays(dtype), cast(e.inputs), cast(e.parameters), e.settings)


def real_places(e: Evaluation) -> Places:
    mask = e.inputs.get("attention_mask", np.ones((B, T))) != 0
    return Places(queries=mask, keys=mask)


@pytest.mark.parametrize(("name", "more"), WAYS)
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32))
def test_numpy_and_torch_evaluate_alike(name, more, seed):
    step, ours = STEPS[name], drawn(name, seed, more=more)
    theirs = in_torch(ours, torch.float64)
    output, expected = step.evaluate(ours), step.evaluate(theirs)
    np.testing.assert_allclose(output, expected.numpy(), rtol=1e-11, atol=1e-12)
    assert output.ndim == len(step.output.split())
    if step.variance is not None:
        variance = step.variance(ours, output, 2.0**-8)
        np.testing.assert_allclose(
            variance, step.variance(theirs, expected, 2.0**-8).numpy(), rtol=1e-5, atol=1e-30
        )
        assert variance.shape == output.shape
        assert (variance >= 0).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize(("name", "more"), ROUNDED_WAYS)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32))
def test_reference_order_stays_within_four_sigma(name, more, dtype, seed):
    """The model holds for the reference: a check of both."""
    step, exact = STEPS[name], drawn(name, seed, dtype, more)
    output = step.evaluate(exact)
    sigma = np.sqrt(step.variance(exact, output, UNIT_ROUNDOFF[dtype]))
    rounded = step.evaluate(in_torch(exact, getattr(torch, dtype))).double().numpy()
    places = real_places(exact)
    error = views(rounded - output, output, step.output, places)
    allowed = views(sigma, output, step.output, places)
    least = UNIT_ROUNDOFF[dtype] / 4
    assert error.whole <= 4 * max(allowed.whole, least)
    assert error.row <= 4 * max(allowed.row, least)
    assert error.channel <= 4 * max(allowed.channel, least)


@pytest.mark.parametrize("spread", [0.0, 1.0, 30.0])
def test_summation_model_is_the_error_of_sums_in_random_order(spread):
    """Add the same terms up in many orders, in float32: their errors have the modelled variance."""
    random = np.random.default_rng(3)
    terms = (random.standard_normal(400) + spread).astype(np.float32)
    exact = terms.astype(np.float64).sum()
    errors = []
    for _ in range(600):
        partial = np.cumsum(random.permutation(terms), dtype=np.float32)
        errors.append(float(partial[-1]) - exact)
    squares = float(np.sum(terms.astype(np.float64) ** 2))
    modelled = summation(len(terms), exact, squares)
    assert 0.25 < np.mean(np.square(errors)) / modelled < 2.0


def test_narrow_sums_would_not_pass():
    """The model is of float32 accumulation: adding up in bfloat16 is a mistake that it shows."""
    exact = drawn("linear", 1, "bfloat16")
    output = STEPS["linear"].evaluate(exact)
    sigma = np.sqrt(STEPS["linear"].variance(exact, output, UNIT_ROUNDOFF["bfloat16"]))
    x, weight = (
        torch.from_numpy(exact.inputs["x"]).bfloat16(),
        torch.from_numpy(exact.parameters["weight"]).bfloat16(),
    )
    total = torch.zeros(B, T, O, dtype=torch.bfloat16)
    for i in range(C):
        total = total + x[..., i : i + 1] * weight[:, i]
    narrow = (total + torch.from_numpy(exact.parameters["bias"]).bfloat16()).double().numpy()
    places = real_places(exact)
    assert (
        views(narrow - output, output, "B T O", places).whole
        > 1.5 * views(sigma, output, "B T O", places).whole
    )


def test_unit_of_accumulation_is_float32():
    assert UNIT_ROUNDOFF["float32"] == U32 == np.finfo(np.float32).eps / 2
