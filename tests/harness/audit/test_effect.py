"""How much a fault changes: known changes of a small model, by itself and end to end."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from harness.audit.effect import effect
from harness.audit.planted import Remembering
from harness.replay.port import NotOffered
from harness.store.reader import GoldenFile
from tests import fakes

NAME = "layers.0.q_proj"


class Changed(fakes.NumpyPort):
    """Puts out `change(value)` at one component."""

    def __init__(self, change: Callable[[np.ndarray], np.ndarray], name: str = NAME):
        super().__init__()
        self._change, self._name = change, name

    def _run(self, name, inputs):
        value = super()._run(name, inputs)
        return self._change(value) if name == self._name else value


class Traced:
    """Only what a port gives as a whole."""

    def __init__(self, port):
        self.trace = port.trace


@pytest.fixture
def found(tmp_path: Path):
    """The effect on the golden file of `tests.fakes`, for two ports."""
    fakes.write_golden(tmp_path / "tiny.h5")
    file = GoldenFile.open(tmp_path / "tiny.h5")

    def run(faulty, without=None, components=(), **more):
        goldens = file.select(include=components)
        return effect(file, goldens, without or fakes.NumpyPort(), faulty, float64=False, **more)

    return run


def test_nothing_changed_is_exact(found):
    told = found(fakes.NumpyPort())
    assert (told.exact, told.over_floor, told.over_limit, told.component) == (True, 0, 0, "")


def test_the_modes_that_were_compared_are_told(found):
    assert found(fakes.NumpyPort()).modes == ["isolated", "end-to-end"]
    assert found(fakes.NumpyPort(), whole=False).modes == ["isolated"]
    assert found(Changed(lambda value: -value), components=["layers.0"]).modes == ["end-to-end"]


class Decoding(fakes.NumpyPort):
    """In decode its logits are `factor` times what they are else."""

    def __init__(self, factor: float = 1):
        super().__init__()
        self._factor = np.float32(factor)

    def init_cache(self, batch, capacity, fill):
        return None

    def step(self, cache, inputs, names):
        found = self.trace(inputs, names)
        return found | {"lm_head": found["lm_head"] * self._factor} if "lm_head" in found else found, cache

    def read_cache(self, cache):
        return {}


@pytest.mark.parametrize("wrapped", [Decoding, lambda: Remembering(Decoding())], ids=["bare", "remembering"])
def test_decode_is_looked_at_where_nothing_else_differs(found, wrapped):
    told = found(Decoding(2), wrapped())
    assert (told.exact, told.component, told.over_limit > 1e3) == (False, "lm_head", True)
    assert told.modes == ["isolated", "end-to-end", "decode"]
    assert found(Decoding(), wrapped()).exact


def test_decode_is_left_out_where_something_else_differs(found):
    class Both(Decoding, Changed):
        def __init__(self):
            Changed.__init__(self, lambda value: -value)
            self._factor = np.float32(2)

    assert "decode" not in found(Both(), Decoding()).modes


def test_what_cancels_to_nothing_in_a_channel_counts_as_the_verdict_counts_it(found):
    """One channel is far below the rounding of the others: what is left there is noise."""

    def cancelled(value):
        less = value.copy()
        less[..., 0] *= np.float32(1e-15)
        return less

    def more(value):
        moved = cancelled(value)
        moved[..., 0] *= np.float32(1.5)
        return moved

    told = found(Changed(more), Changed(cancelled), components=[NAME])
    assert not told.exact
    assert told.over_limit <= 1


def test_the_size_is_in_noise_floors_and_in_what_passes(found):
    """A thousandth, where rounding explains 1e-7 and what passes is at least four times that."""
    told = found(Changed(lambda value: value * np.float32(1.001)), components=[NAME])
    assert not told.exact
    assert (told.component, told.case, told.float64) == (NAME, "hello", False)
    assert told.over_floor == pytest.approx(1e-3 / 1e-7, rel=0.01)
    assert told.over_floor / 6.1 < told.over_limit < told.over_floor / 4


def test_the_worst_golden_counts(found):
    """By itself the head is right; end to end it is wrong by less than the component is by itself."""
    change = Changed(lambda value: value * np.float32(1.001))
    assert found(change).component == NAME
    assert 0 < found(change, components=["lm_head"]).over_floor < found(change).over_floor


def test_only_end_to_end_is_looked_at_where_components_do_not_run_by_themselves(found):
    """There, the floor of the golden file is three times larger."""

    def change(value):
        return value * np.float32(1.001)

    alone = found(Changed(change), components=[NAME])
    together = found(Traced(Changed(change)), Traced(fakes.NumpyPort()), components=[NAME])
    assert together.over_floor == pytest.approx(alone.over_floor / 3, rel=0.01)


def test_only_by_itself_where_it_cannot_be_traced(found):
    class Untraced(Changed):
        def trace(self, inputs, names):
            raise KeyError("layers.0.k_proj")

    faulty = Untraced(lambda value: -value)
    assert found(faulty, Untraced(lambda value: value), whole=False).component == NAME
    with pytest.raises(KeyError):
        found(faulty)


def test_a_component_that_is_not_offered_is_left_out(found):
    told = found(Changed(lambda value: -value), fakes.NumpyPort(missing={NAME}), components=[NAME])
    assert (told.exact, told.modes, told.over_limit) == (False, [], 0)
    with pytest.raises(NotOffered):
        fakes.NumpyPort(missing={NAME}).apply(NAME, {})


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value[:, :2],
        lambda value: np.where(np.arange(value.size).reshape(value.shape) == value.size - 1, np.nan, value),
    ],
    ids=["shape", "NaN"],
)
def test_what_is_no_number_is_infinite(found, change):
    told = found(Changed(change, "lm_head"), components=["lm_head"])
    assert (told.over_floor, told.over_limit, told.exact) == (math.inf, math.inf, False)


def test_padding_is_not_looked_at_but_is_not_the_same(found):
    def change(value):
        changed = value.copy()
        changed[0, 0] = 7  # the first token of the first text is padding
        return changed

    told = found(Changed(change, "lm_head"), components=["lm_head"])
    assert (told.exact, told.over_floor) == (False, 0)
    assert found(Changed(lambda value: change(value[::-1])[::-1], "lm_head")).over_floor > 0


def test_equal_nan_is_exact(found):
    port = Changed(lambda value: value * np.float32("nan"), "lm_head")
    assert found(port, port, components=["lm_head"]).exact


def test_an_exact_component_may_not_change_at_all(found):
    told = found(
        Changed(lambda value: value * np.float32(1.0000001), "embed_tokens"), components=["embed_tokens"]
    )
    assert told.over_limit == math.inf
