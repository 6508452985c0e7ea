from pathlib import Path

import numpy as np
import pytest

from harness.cli import Modes
from harness.marker import read_marker
from harness.model import Component, Mode, Verdict
from harness.replay.decode import SPARE, Decoded, at_keys
from harness.replay.modes import replays
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
        found = self.trace(inputs, [*fakes.weights("float32"), *names, "layers.0.q_proj"])
        cache[:, inputs["query_index"]] = found["layers.0.q_proj"]
        return found, cache

    def read_cache(self, cache):
        return {"layers.0.q_proj": cache}


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
    assert [list(step["query_index"]) for step in port.seen] == [[0], [1], [2]]
    for n, step in enumerate(port.seen):
        np.testing.assert_array_equal(step["token_ids"], inputs["token_ids"][:, [n]])
        np.testing.assert_array_equal(step["positions"], inputs["positions"][:, [n]])
        np.testing.assert_array_equal(step["attention_mask"], [[0, 1, 1] + [1] * SPARE, [1] * (3 + SPARE)])


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
    assert [list(step["query_index"]) for step in port.seen] == [[0, 1, 2], [3], [4], [5], [6]]


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
            return {n: x for n, x in found.items() if n != "layers.0.act" or len(self.seen) in steps}, cache

    results = replay(Port(), tmp_path)
    result = results.pop("layers.0.act")
    assert (result.verdict, result.reason) == (Verdict.UNMEASURED, NOT_OFFERED)
    assert set(verdicts(results).values()) == {Verdict.PASS}


def test_a_port_may_write_into_its_arrays_again(tmp_path):
    class Port(CachedPort):
        def step(self, cache, inputs, names):
            found, cache = super().step(cache, inputs, names)
            self.memory = getattr(self, "memory", {n: x.copy() for n, x in found.items()})
            for name, value in found.items():
                self.memory[name][:] = value
            return self.memory, cache

    assert set(verdicts(replay(Port(), tmp_path)).values()) == {Verdict.PASS}


def test_what_is_written_wrongly_fails_though_it_was_computed_rightly(tmp_path):
    class Port(CachedPort):
        def step(self, cache, inputs, names):
            found, _ = super().step(cache.copy(), inputs, names)
            cache[:, inputs["query_index"] + 1] = found["layers.0.q_proj"]
            return found, cache

    results = replay(Port(), tmp_path)
    wrong = [name for name, verdict in verdicts(results).items() if verdict is Verdict.FAIL]
    assert wrong == ["layers.0.q_proj"]
    assert "NaN" in results["layers.0.q_proj"].reason


def test_a_wrong_number_in_the_cache_is_told_apart_from_a_wrong_step(tmp_path):
    class Port(CachedPort):
        def read_cache(self, cache):
            return {"layers.0.q_proj": cache * np.float32(1.1)}

    told = replay(Port(), tmp_path)["layers.0.q_proj"]
    assert (told.verdict, told.reason) == (Verdict.FAIL, "the cache holds something else in the end")
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
    given, whole = ((2, 1, 3), (2, 1, 4)) if place == "step" else ((2, 3, 4), (2, 3 + SPARE, 4))
    assert result.reason == f"shape {given}, where {whole} was expected in decode"


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

    assert asked() == Modes.BOTH.modes == (Mode.ISOLATED, Mode.END_TO_END)
    assert asked(modes="decode") == Modes.DECODE.modes == (Mode.DECODE,)
    assert Modes.ALL.modes == tuple(Mode)


def test_a_score_of_a_key_that_was_not_read_is_the_goldens_in_the_ports_dtype():
    """Two tokens at once, then one; the port has NaN wherever nothing was read yet."""
    scores = Component("scores", "scores", "B H T S", step="scores")
    recorded = np.arange(9, dtype=np.float32).reshape(1, 1, 3, 3)
    whole = np.full((1, 1, 3, 3 + SPARE), np.nan, np.float16)
    whole[..., :2, :2], whole[..., 2, :3] = -1, -1
    decoded = Decoded(({"scores": whole[..., :2, :]}, {"scores": whole[..., 2:, :]}), (2, 3), {}, frozenset())
    output = decoded.output(scores, recorded, np.arange(3))
    np.testing.assert_array_equal(output[0, 0], [[-1, -1, 2], [-1, -1, 5], [-1, -1, -1]])
    assert output.dtype == np.float16
    kept = decoded.output(scores, recorded[..., [1], :], np.array([1]))
    np.testing.assert_array_equal(kept, output[..., [1], :])


def test_keys_and_values_are_taken_in_at_every_slot():
    file = GoldenFile.open(GOLDENS / "qwen3-tiny.h5")
    parts = [f"layers.{n}.self_attn.{part}_expanded" for n in range(3) for part in "kv"]
    assert at_keys(file.contents.components) == set(parts)
    assert at_keys(fakes.COMPONENTS) == set()


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
