"""What several components have in common: a precision that products of matrices lack, and orders of roundings."""

from collections.abc import Iterator, Sequence

import numpy as np

from harness.compare.files import places
from harness.diagnose.problem import Array, step_of
from harness.diagnose.subject import Subject
from harness.kinds.numpy_arrays import NumpyArrays
from harness.kinds.step import CastOrder, Evaluation
from harness.model import UNIT_ROUNDOFF, Component, Golden, Mode, Verdict
from harness.report.result import Explanation, Result
from harness.store.layout import numpy_dtype

_PRODUCTS = frozenset({"linear", "scores", "context"})
_SMALL = 0.05
"""Relative errors of products beyond this are no precision's."""
_SAME, _OTHER = 0.98, 0.95
"""The share of bit-identical elements from which an order of roundings is the one, and up to which it is not."""


def low_precision(
    subject: Subject, results: Sequence[Result], explanations: Sequence[Explanation]
) -> Iterator[str]:
    """Every product of matrices fails, by little, and all else passes: that is the platform, and no component.

    Not if a kind of product was not compared, or if something else explains one.
    """
    named = {name for told in explanations for name in told.hypotheses}
    if any(not name.startswith("low_precision") for name in named):
        return
    isolated = [result for result in results if result.mode is Mode.ISOLATED and result.error is not None]
    for dtype in dict.fromkeys(result.dtype for result in isolated):
        own = [result for result in isolated if result.dtype == dtype]
        steps = {result.component: subject.file.component(result.component).step for result in own}
        products = [result for result in own if steps[result.component] in _PRODUCTS]
        others = [result for result in own if steps[result.component] not in _PRODUCTS]
        failing = {result.component for result in products if result.verdict is Verdict.FAIL}
        if (
            {steps[result.component] for result in products} == _PRODUCTS
            and failing == {result.component for result in products}
            and all(result.error is not None and result.error.whole < _SMALL for result in products)
            and others
            and all(result.verdict is Verdict.PASS for result in others)
        ):
            yield (
                f"in {dtype} every product of matrices fails and everything else passes: products are taken in a lower "
                "precision than the reference takes them in; ask for more with precision=jax.lax.Precision.HIGHEST, or "
                'jax.config.update("jax_default_matmul_precision", "highest")'
            )


def cast_orders(subject: Subject, results: Sequence[Result]) -> Iterator[str]:
    """Another order of roundings lies inside the noise floor; the share of bit-identical elements tells it."""
    passed = {
        (result.component, result.case, result.dtype)
        for result in results
        if result.mode is Mode.ISOLATED and result.verdict is Verdict.PASS and result.error is not None
    }
    largest: dict[tuple[str, str], Golden] = {}
    for golden in subject.file.contents.goldens:
        component = subject.file.component(golden.component)
        if (
            (golden.component, golden.case, golden.dtype) in passed
            and UNIT_ROUNDOFF[golden.dtype] > UNIT_ROUNDOFF["float32"]
            and step_of(component).cast_orders
        ):
            key = (component.kind, golden.dtype)
            both = (largest.get(key, golden), golden)
            largest[key] = max(both, key=lambda one: subject.file.tensors[one.output].nbytes)
    for golden in largest.values():
        yield from _cast_order(subject, subject.file.component(golden.component), golden)


def _cast_order(subject: Subject, component: Component, golden: Golden) -> Iterator[str]:
    answer, recorded = subject.answer(golden), subject.file.output(golden)
    valid = places(subject.file, golden).valid(component.axes)
    alike = _share(answer, recorded, valid)
    for order in step_of(component).cast_orders:
        share = _share(answer, _in_order(subject, component, golden, order), valid)
        if share >= _SAME and alike < _OTHER:
            yield (
                f"{component.name} in {golden.dtype} rounds in another order than the reference: {order.says} "
                f"({share:.2f} of its elements are bit-identical to that, {alike:.2f} to the reference). It is inside "
                "the noise floor, and no failure"
            )


def _in_order(subject: Subject, component: Component, golden: Golden, order: CastOrder) -> Array:
    dtype = numpy_dtype(golden.dtype)
    parameters = {role: subject.weights[name].astype(dtype) for role, name in component.parameters.items()}
    settings = {**subject.facts, **component.settings}
    return order.evaluate(Evaluation(NumpyArrays(dtype), subject.file.inputs(golden), parameters, settings))


def _share(answer: Array, other: Array, valid: Array) -> float:
    """Of bit-identical elements; padding is left out."""
    if answer.shape != other.shape:
        return 0.0
    return float(np.mean((answer == other)[np.broadcast_to(valid, answer.shape)]))
