from pathlib import Path

import numpy as np
import pytest

from harness.cli.options import Modes
from harness.kinds.table import at_keys
from harness.marker import read_marker
from harness.model import BY_DEFAULT, Component, Mode, Verdict
from harness.replay import session
from harness.replay.decode import Asked, Decoded
from harness.replay.decode import slots as slots_for
from harness.replay.miswritten import SAYS, Written
from harness.replay.modes import modes_of, replays
from harness.replay.port import Cached, load_port
from harness.replay.session import NO_CACHE, NOT_OFFERED, Session, recorded_checkpoint
from harness.store.reader import GoldenFile
from tests import fakes

GOLDENS = Path(__file__).parents[3] / "goldens"


class CachedPort(fakes.NumpyPort):
    """Its cache holds the output of `layers.0.q_proj` (B capacity O): nothing reads it."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def init_cache(self, batch, capacity, fill):
        self.fill = fill
        return np.full((batch, capacity, fakes.HIDDEN), fill, np.float32)

    def step(self, cache, inputs, names):
        self.seen.append(inputs)
        found = self.trace(inputs, [*names, "layers.0.q_proj"])
        cache = cache.copy()
        cache[:, inputs["query_index"]] = found["layers.0.q_proj"]
        return found, cache

    def read_cache(self, cache):
        return {"layers.0.q_proj": cache}


@pytest.fixture(autouse=True)
def cached(monkeypatch):
    """The fakes have no attention, which would tell what a cache may hold."""
    monkeypatch.setattr(session, "along_tokens", lambda file: {"layers.0.q_proj": 1})


def replay(port, tmp_path, **options):
    path = tmp_path / "tiny.h5"
    fakes.write_golden(path, **options)
    file = GoldenFile.open(path)
    results = Session(file, lambda dtype: port).replay(file.select(), [Mode.DECODE])
    return {result.component: result for result in results}


def verdicts(results):
    return {name: result.verdict for name, result in results.items()}


def test_a_case_is_read_as_generation_reads_it(tmp_path):
    port = CachedPort()
    results = replay(port, tmp_path)
    assert verdicts(results) == {component.name: Verdict.PASS for component in fakes.COMPONENTS}
    assert {result.mode for result in results.values()} == {Mode.DECODE}
    assert np.isnan(port.fill)
    inputs = fakes.case_inputs(0)
    others, own = port.seen[:3], port.seen[3:]
    assert [list(step["query_index"]) for step in own] == [[0], [1], [2]]
    for n, step in enumerate(others):  # in another cache, the tokens from behind
        np.testing.assert_array_equal(step["token_ids"], inputs["token_ids"][:, [2 - n]])
    for n, step in enumerate(own):
        np.testing.assert_array_equal(step["token_ids"], inputs["token_ids"][:, [n]])
        np.testing.assert_array_equal(step["positions"], inputs["positions"][:, [n]])
        np.testing.assert_array_equal(
            step["attention_mask"], [[0] + [1] * (slots_for(3) - 1), [1] * slots_for(3)]
        )


def test_half_of_the_tokens_are_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(
        fakes,
        "case_inputs",
        lambda seed: {
            "token_ids": np.arange(7)[None],
            "attention_mask": np.ones((1, 7), int),
            "positions": np.arange(7)[None],
            "query_index": np.arange(7),
            "kept": np.arange(7),
        },
    )
    port = CachedPort()
    assert set(verdicts(replay(port, tmp_path)).values()) == {Verdict.PASS}
    own = port.seen[3:]
    assert [list(step["query_index"]) for step in own] == [[0, 1, 2], [3], [4], [5], [6]]


def test_one_token_is_not_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr(
        fakes,
        "case_inputs",
        lambda seed: {
            "token_ids": np.ones((2, 1), int),
            "attention_mask": np.ones((2, 1), int),
            "positions": np.zeros((2, 1), int),
            "query_index": np.arange(1),
            "kept": np.arange(1),
        },
    )
    port = CachedPort()
    assert replay(port, tmp_path) == {}
    file = GoldenFile.open(tmp_path / "tiny.h5")
    assert all(replays(file, golden, Mode.END_TO_END) for golden in file.select())


def test_only_the_recorded_tokens_are_compared(tmp_path, monkeypatch):
    inputs = fakes.case_inputs(0)
    outputs = fakes.NumpyPort().trace(inputs, [c.name for c in fakes.COMPONENTS])
    monkeypatch.setattr(fakes, "case_inputs", lambda seed: {**inputs, "kept": np.array([0, 2])})
    monkeypatch.setattr(
        fakes.NumpyPort, "trace", lambda self, given, names: {n: x[:, [0, 2]] for n, x in outputs.items()}
    )
    path = tmp_path / "tiny.h5"
    fakes.write_golden(path)
    monkeypatch.undo()
    file = GoldenFile.open(path)
    results = [*Session(file, lambda dtype: CachedPort()).replay(file.select(), [Mode.DECODE])]
    assert {result.verdict for result in results} == {Verdict.PASS}


def test_a_port_without_a_cache_is_unmeasured(tmp_path):
    results = replay(fakes.NumpyPort(), tmp_path)
    assert {(result.verdict, result.reason) for result in results.values()} == {
        (Verdict.UNMEASURED, NO_CACHE)
    }


@pytest.mark.parametrize("steps", [(), (1,), (2, 3)])
def test_a_component_that_not_every_step_hands_out_is_unmeasured(tmp_path, steps):
    class Port(CachedPort):
        def step(self, cache, inputs, names):
            found, cache = super().step(cache, inputs, names)
            return {
                n: x for n, x in found.items() if n != "layers.0.act" or len(self.seen) - 3 in steps
            }, cache

    results = replay(Port(), tmp_path)
    result = results.pop("layers.0.act")
    assert (result.verdict, result.reason) == (Verdict.UNMEASURED, NOT_OFFERED)
    assert set(verdicts(results).values()) == {Verdict.PASS}


def test_a_port_may_write_into_its_arrays_again(tmp_path):
    class Port(CachedPort):
        def step(self, cache, inputs, names):
            found, cache = super().step(cache, inputs, names)
            self.memory = getattr(self, "memory", {})
            for name, value in found.items():
                self.memory.setdefault(name, value.copy())[:] = value
            return {name: self.memory[name] for name in found}, cache

    assert set(verdicts(replay(Port(), tmp_path)).values()) == {Verdict.PASS}


class Writing(CachedPort):
    """Writes `write(port, before, put_out, index)` instead of what it put out to its slots."""

    def __init__(self, write):
        super().__init__()
        self.write = write

    def step(self, cache, inputs, names):
        before = cache.copy()
        found, _ = super().step(cache, inputs, names)
        return found, self.write(self, before, found["layers.0.q_proj"], inputs["query_index"])


def put(cache, value, index):
    cache[:, index] = value
    return cache


def kept(port, cache, value, index):
    """In the one cache that the port ever makes."""
    if index[0] == 0:
        cache = getattr(port, "latest", cache)
    port.latest = put(cache, value, index).copy()
    return port.latest


WRITTEN = {
    "cache_slot_off_by_one": lambda port, cache, value, index: put(cache, value, index + 1),
    "cache_last_slot_overwritten": lambda port, cache, value, index: put(
        cache, value, index - (index[0] > 0)
    ),
    "cache_written_to_the_front": lambda port, cache, value, index: put(cache, value, index - index[0]),
    "cache_written_to_the_end": lambda port, cache, value, index: put(
        cache, value, np.arange(cache.shape[1] - len(index), cache.shape[1])
    ),
    "cache_slot_wrong": lambda port, cache, value, index: put(cache, value, index + 2),
    "cache_not_written": lambda port, cache, value, index: cache if index[0] else put(cache, value, index),
    "cache_slots_in_another_order": lambda port, cache, value, index: put(cache, value, index[::-1]),
    "cache_written_again": lambda port, cache, value, index: put(cache * np.float32(2), value, index),
    "cache_written_early": lambda port, cache, value, index: put(put(cache, value, index + 1), value, index),
    "cache_fill_ignored": lambda port, cache, value, index: put(np.nan_to_num(cache), value, index),
    "first_row_for_all": lambda port, cache, value, index: put(cache, value[:1], index),
    "output_rounded_bfloat16": lambda port, cache, value, index: put(
        cache, value.astype(fakes.numpy_dtype("bfloat16")), index
    ),
    "output_rounded_float16": lambda port, cache, value, index: put(cache, value.astype(np.float16), index),
    "cache_not_reset": kept,
    None: lambda port, cache, value, index: put(cache, value * np.float32(1.1), index),
}


def miswritten(write, tmp_path, monkeypatch):
    """Of a case of nine tokens, of which four are read at once."""
    inputs = {
        "token_ids": np.array([[3, 1, 4, 10, 5, 9, 2, 6, 8], [2, 7, 12, 8, 11, 13, 4, 5, 14]]),
        "attention_mask": np.ones((2, 9), int),
        "positions": np.tile(np.arange(9), (2, 1)),
        "query_index": np.arange(9),
        "kept": np.arange(9),
    }
    monkeypatch.setattr(fakes, "case_inputs", lambda seed: inputs)
    path = tmp_path / "tiny.h5"
    fakes.write_golden(path)
    file = GoldenFile.open(path)
    session = Session(file, lambda dtype: Writing(write))
    wrong = [r.component for r in session.replay(file.select(), [Mode.DECODE]) if r.verdict is Verdict.FAIL]
    return session.decoded(file.select()[0]).miswritten.get("layers.0.q_proj"), wrong


@pytest.mark.parametrize("name", WRITTEN)
def test_what_is_written_wrongly_fails_though_it_was_computed_rightly(name, tmp_path, monkeypatch):
    trouble, wrong = miswritten(WRITTEN[name], tmp_path, monkeypatch)
    assert wrong == ["layers.0.q_proj"]
    assert trouble.hypotheses == (() if name is None else (name,))
    assert set(trouble.hypotheses) <= SAYS.keys()
    assert "slot" in trouble.says


def test_what_is_written_rightly_is_no_trouble(tmp_path, monkeypatch):
    right = miswritten(lambda port, cache, value, index: put(cache, value, index), tmp_path, monkeypatch)
    assert right == (None, [])


def slots(*values, batch=2):
    """Slots (S B 3) of a number each; no number is an empty one."""
    numbers = np.array([np.nan if value is None else value for value in values], np.float32)
    return np.broadcast_to(numbers[:, None, None], (len(values), batch, 3)) + np.arange(3, dtype=np.float32)


@pytest.mark.parametrize(
    ("before", "held", "names"),
    [
        ({}, {"a.k": (7, 8, None), "b.k": (7, 8, None)}, ("cache_of_another_layer",)),
        ({}, {"a.k": (5, 6, None), "b.k": (7, 8, None)}, ("keys_and_values_exchanged",)),
        ({}, {"a.k": (None, None, None), "b.k": (None, None, None)}, ("cache_not_written",)),
    ],
)
def test_another_component_in_the_cache_is_told(before, held, names):
    put_out = {"a.k": slots(1, 2), "b.k": slots(7, 8), "a.v": slots(5, 6)}
    filled = {name: slots(*values) for name, values in held.items()} | {"a.v": slots(5, 6, None)}
    assert Written({}, filled, put_out, {}, 0, 2).trouble("a.k").hypotheses == names


def test_slots_of_another_layer_in_the_place_of_earlier_ones_are_told():
    before = {"a.k": slots(1, None), "b.k": slots(7, None)}
    held = {"a.k": slots(7, 2), "b.k": slots(7, 8)}
    put_out = {"a.k": slots(2), "b.k": slots(8)}
    assert Written(before, held, put_out, {}, 1, 2).trouble("a.k").hypotheses == ("cache_of_another_layer",)
    assert Written(before, held, put_out, {}, 1, 2).trouble("b.k") is None


def test_empty_slots_are_not_taken_for_those_of_another_layer():
    """Where nothing is written, what later layers put out may be no number either."""
    put_out = {"a.k": slots(1, 2), "b.k": slots(None, None)}
    held = {"a.k": slots(None, None, None), "b.k": slots(None, None, None)}
    assert Written({}, held, put_out, {}, 0, 2).trouble("a.k").hypotheses == ("cache_not_written",)


def test_one_slot_that_is_as_another_text_left_it_may_be_so_by_chance():
    put_out, left = {"a.k": slots(1, 2)}, {"a.k": slots(9, 3, None)}
    one = Written({}, {"a.k": slots(1, 3, None)}, put_out, left, 0, 2)
    assert one.trouble("a.k").hypotheses == ()
    both = Written({}, {"a.k": slots(9, 3, None)}, put_out, left, 0, 2)
    assert both.trouble("a.k").hypotheses == ("cache_not_reset",)


def test_one_slot_that_is_written_early_may_be_as_another_text_left_it_by_chance():
    put_out, left = {"a.k": slots(1)}, {"a.k": slots(9, 8, 3, None)}

    def names(*held):
        return Written({}, {"a.k": slots(*held)}, put_out, left, 0, 1).trouble("a.k").hypotheses

    assert names(1, 8, None, None) == ("cache_not_reset", "cache_written_early")
    assert names(1, 8, 3, None) == ("cache_not_reset",)
    assert names(1, 8, 4, None) == ("cache_written_early",)


def test_another_size_of_slots_is_told():
    trouble = Written({}, {"a.k": slots(1, 2, batch=1)}, {"a.k": slots(1)}, {}, 0, 1).trouble("a.k")
    assert (
        trouble.says == "a slot of the cache has [1, 3] numbers for each text, and [2, 3] are written to it"
    )


def test_a_wrong_number_in_the_cache_is_told_apart_from_a_wrong_step(tmp_path):
    class Port(CachedPort):
        def read_cache(self, cache):
            return {"layers.0.q_proj": cache * np.float32(1.1)}

    told = replay(Port(), tmp_path)["layers.0.q_proj"]
    assert told.verdict is Verdict.FAIL
    assert told.reason == "slot 0 does not hold what was put out for token 0"
    told = replay(CachedPort(faulty={"layers.0.q_proj"}), tmp_path / "..")["layers.0.q_proj"]
    assert (told.verdict, told.reason) == (Verdict.FAIL, "")


@pytest.mark.parametrize("place", ["step", "read_cache"])
def test_another_shape_fails(tmp_path, place):
    class Port(CachedPort):
        def step(self, cache, inputs, names):
            found, cache = super().step(cache, inputs, names)
            return ({n: x[..., :-1] for n, x in found.items()} if place == "step" else found), cache

        def read_cache(self, cache):
            return {"layers.0.q_proj": cache[:, :3] if place == "read_cache" else cache}

    result = replay(Port(), tmp_path)["layers.0.q_proj"]
    assert result.verdict is Verdict.FAIL
    reasons = {
        "step": "shape (2, 1, 3), where (2, 1, 4) was expected in decode",
        "read_cache": f"shape (2, 3, 4), where (2, {slots_for(3)}, 4) was expected in decode",
    }
    assert result.reason == reasons[place]


@pytest.mark.parametrize("method", ["init_cache", "step", "read_cache"])
def test_what_the_port_raises_is_a_failure_of_every_component(tmp_path, method):
    def broken(self, *arguments):
        raise ValueError("spam")

    results = replay(type("Port", (CachedPort,), {method: broken})(), tmp_path)
    assert len(results) == len(fakes.COMPONENTS)
    told = {(result.verdict, result.reason) for result in results.values()}
    assert told == {(Verdict.FAIL, "the port raised ValueError: spam")}


def test_what_is_no_mapping_is_a_failure(tmp_path):
    class Port(CachedPort):
        def step(self, cache, inputs, names):
            return [1], cache

    results = replay(Port(), tmp_path)
    told = "the port gave a list, where a mapping of names to arrays was expected"
    assert {(r.verdict, r.reason) for r in results.values()} == {(Verdict.FAIL, told)}


def test_decode_is_asked_for_by_name(tmp_path):
    def asked(**keywords):
        return read_marker(["a.h5"], keywords, tmp_path, ".").modes

    assert asked() == Modes.DEFAULT.modes == BY_DEFAULT
    assert asked(modes="decode") == Modes.DECODE.modes == (Mode.DECODE,)
    assert Modes.ALL.modes == tuple(Mode)


def test_a_score_of_a_key_that_was_not_read_is_the_goldens_in_the_ports_dtype():
    """Two tokens at once, then one; the port has NaN wherever nothing was read yet."""
    scores = Component("scores", "scores", "B H T S", step="scores")
    recorded = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    whole = np.full((1, 1, 3, slots_for(3)), np.nan, np.float16)
    whole[..., :2, :2], whole[..., 2, :3] = -1, -1
    parts = ({"scores": whole[..., :2, :]}, {"scores": whole[..., 2:, :]})

    def output(recorded, *tokens):
        asked = Asked({"scores": tokens}, frozenset())
        wanted = [
            names and part
            for part, names in zip(parts, (set(tokens) & {0, 1}, {2} & set(tokens)), strict=True)
        ]
        return Decoded(asked, tuple(part or {} for part in wanted), (2, 3), {}, {}).output(scores, recorded)

    whole_output = output(recorded, 0, 1, 2)
    np.testing.assert_array_equal(whole_output[0, 0], [[-1, -1, 2], [-1, -1, 5], [-1, -1, -1]])
    assert whole_output.dtype == np.float16
    np.testing.assert_array_equal(output(recorded[..., [1], :], 1), whole_output[..., [1], :])


def test_keys_and_values_are_taken_in_at_every_slot():
    file = GoldenFile.open(GOLDENS / "qwen3-tiny.h5")
    parts = [f"layers.{n}.self_attn.{part}_expanded" for n in range(3) for part in "kv"]
    assert at_keys(file.contents.components) == set(parts)
    assert at_keys(fakes.COMPONENTS) == set()


def test_a_case_that_was_read_through_the_cache_is_decoded_by_default():
    file = GoldenFile.open(GOLDENS / "qwen3-tiny.h5")
    modes = {
        golden.case: modes_of(file, golden, BY_DEFAULT)
        for golden in file.select(
            include=["lm_head"], cases=["written.float32", "english"], dtypes=["float32"]
        )
    }
    assert modes == {
        "written.float32": [Mode.ISOLATED, Mode.DECODE],
        "english": [Mode.ISOLATED, Mode.END_TO_END],
    }


def decoded(name, cases, dtypes):
    file = GoldenFile.open(GOLDENS / f"{name}.h5")
    session = Session(file, lambda dtype: load_port("qwen_flax.port:make", recorded_checkpoint(file), dtype))
    return list(session.replay(file.select(cases=cases, dtypes=dtypes), [Mode.DECODE]))


@pytest.mark.parametrize(
    ("name", "cases", "dtypes"),
    [
        ("qwen2-tiny", ["right-padded"], ["bfloat16"]),
        ("qwen3-tiny", ["random-1"], ["float32"]),  # longer than its window, and padded
        *(
            pytest.param(name, [], [], marks=pytest.mark.slow)
            for name in ("qwen2-tiny", "qwen3-tiny", "qwen2-deep")
        ),
    ],
)
def test_the_port_gives_in_decode_what_the_whole_pass_gave(name, cases, dtypes):
    results = decoded(name, cases, dtypes)
    assert {result.verdict for result in results} == {Verdict.PASS}
    assert {"layers.0.self_attn.k_expanded", "layers.2", "lm_head"} < {r.component for r in results}


def test_the_port_reads_its_cache_by_the_names_of_what_is_written(tmp_path):
    folder = GOLDENS / "checkpoints" / "qwen2-tiny"
    port = load_port("qwen_flax.port:make", str(folder), "float32")
    assert isinstance(port, Cached)
    held = port.read_cache(port.init_cache(2, 5, float("nan")))
    shapes = {name.partition("self_attn.")[2]: value.shape for name, value in held.items()}
    assert shapes == {"k_rope": (2, 2, 5, 8), "v_proj": (2, 5, 16)}
    assert len(held) == 6
    assert all(np.isnan(value).all() for value in held.values())
