"""Logits in people's terms: each number against its definition, computed plainly."""

import io
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from harness.compare import logits
from harness.compare.logits import merged, ratio_interval, rows, summarise
from harness.report.logits import show

V = 50


def drawn(seed, *shape, scale=3.0):
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def log_softmax(x):
    """In the longest float that there is."""
    wide = x.astype(np.longdouble)
    wide = wide - wide.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


def divergence(golden, port):
    p, q = log_softmax(golden), log_softmax(port)
    return (np.exp(p) * (p - q)).sum(-1).astype(np.float64)


@settings(max_examples=60)
@given(seed=st.integers(0, 10**6), power=st.floats(-7, 1.3), scale=st.floats(0.1, 30))
def test_the_divergence_is_right_however_near_the_two_are(seed, power, scale):
    golden = drawn(seed, 4, V, scale=scale)
    port = golden + drawn(seed + 1, 4, V, scale=10.0**power)
    expected = divergence(golden, port)
    assert rows(port, golden).kl == pytest.approx(expected, rel=1e-5, abs=1e-18)


def test_the_same_logits_diverge_by_nothing_and_so_do_shifted_ones():
    golden = drawn(0, 8, V)
    assert rows(golden, golden).kl.max() == 0
    assert rows(golden.astype(np.float64) + 1000, golden).kl.max() < 1e-24


def test_the_golden_is_what_the_port_is_measured_from():
    certain = np.array([[0.0, -30.0]], np.float32)
    even = np.array([[0.0, 0.0]], np.float32)
    assert rows(even, certain).kl[0] == pytest.approx(math.log(2), rel=1e-9)
    assert rows(certain, even).kl[0] == pytest.approx(15 - math.log(2), rel=1e-9)


def test_tokens_that_cannot_come():
    """-inf stands in processed logits: nothing if both exclude a token, infinite if only the port does."""
    golden = np.array([[0.0, 1.0, -np.inf]], np.float32)
    assert rows(golden, golden).kl[0] == 0
    assert rows(np.array([[0.0, -np.inf, -np.inf]], np.float32), golden).kl[0] == math.inf
    open_to_more = rows(np.array([[0.0, 1.0, 0.0]], np.float32), golden).kl[0]
    assert open_to_more == pytest.approx(math.log((2 + math.e) / (1 + math.e)), rel=1e-9)


@pytest.mark.filterwarnings("error")
def test_an_infinite_logit_leaves_nothing_to_say_and_warns_of_nothing():
    """float16 overflows for real, in port and golden alike."""
    golden = np.array([[0.0, np.inf, 1.0], [0.0, 1.0, 2.0]], np.float32)
    found = rows(golden, golden)
    assert math.isnan(found.kl[0])
    assert found.kl[1] == 0


def test_what_is_not_a_number_is_not_taken_for_agreement():
    golden, port = drawn(0, 2, V), drawn(0, 2, V)
    port[1, 3] = np.nan
    found = rows(port, golden)
    assert found.kl[0] == 0
    assert math.isnan(found.kl[1])
    assert math.isnan(summarise(found, "float32", "end-to-end").kl_max)


def test_the_likeliest_token_of_equal_ones_is_the_first():
    golden = np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0]], np.float32)
    port = np.array([[1.0, 1.1, 0.0], [0.0, 1.0, 0.9]], np.float32)
    assert rows(port, golden).agree.tolist() == [False, True]


def test_padding_is_left_out_and_texts_are_pooled():
    golden, port = drawn(0, 2, 3, V), drawn(1, 2, 3, V)
    valid = np.array([[False, True, True], [True, True, True]])
    found = rows(port, golden, valid=valid)
    assert found.kl == pytest.approx(divergence(golden, port)[valid], rel=1e-9)
    pooled = merged([rows(port[:1], golden[:1], valid=valid[:1]), rows(port[1:], golden[1:])])
    assert pooled.kl.tolist() == found.kl.tolist()
    assert summarise(pooled, "float32", "decode").tokens == 5
    assert summarise(merged([]), "float32", "decode") is None
    nothing = rows(port, golden, valid=np.zeros((2, 3), bool))
    assert summarise(nothing, "float32", "decode") is None


@pytest.mark.parametrize("block", [1, 120, 10**6])
def test_blocks_change_nothing(block, monkeypatch):
    golden, port, exact = drawn(0, 7, V), drawn(1, 7, V), drawn(2, 7, V)
    ids = np.arange(7)
    whole = rows(port, golden, exact, ids)
    monkeypatch.setattr(logits, "_BLOCK", block)
    for name in ("kl", "agree", "nll_port", "nll_golden", "kl_exact_port", "kl_exact_golden"):
        assert getattr(rows(port, golden, exact, ids), name).tolist() == getattr(whole, name).tolist()


def test_quantiles_and_agreement():
    golden = drawn(0, 200, V)
    port = golden + drawn(1, 200, V, scale=0.5)
    found = rows(port, golden)
    summary = summarise(found, "bfloat16", "end-to-end")
    expected = np.sort(divergence(golden, port))
    assert (summary.dtype, summary.mode, summary.tokens) == ("bfloat16", "end-to-end", 200)
    assert summary.kl_median == pytest.approx(expected[99], rel=1e-9)
    assert summary.kl_95 == pytest.approx(expected[189], rel=1e-9)
    assert summary.kl_99 == pytest.approx(expected[197], rel=1e-9)
    assert summary.kl_max == pytest.approx(expected[-1], rel=1e-9)
    assert summary.agreeing == np.count_nonzero(golden.argmax(-1) == port.argmax(-1)) < 200
    assert summary.perplexity_port is None
    assert summary.further is None


def test_perplexity_is_of_the_known_tokens_and_its_difference_is_paired():
    count, known_of = 800, 600
    golden = drawn(0, count, V, scale=1.0)
    port = golden + drawn(1, count, V, scale=0.01)
    ids = np.random.default_rng(2).integers(0, V, count)
    ids[::4] = -1
    known = ids >= 0
    theirs, ours = (-log_softmax(x)[np.arange(count), ids][known].astype(float) for x in (golden, port))
    summary = summarise(rows(port, golden, next_ids=ids), "float32", "end-to-end")
    assert summary.next_tokens == known_of
    assert summary.perplexity_golden == pytest.approx(np.exp(theirs.mean()), rel=1e-9)
    assert summary.perplexity_port == pytest.approx(np.exp(ours.mean()), rel=1e-9)
    difference = summary.perplexity_difference
    assert difference.value == pytest.approx(np.exp(ours.mean()) - np.exp(theirs.mean()), rel=1e-6)
    half = (difference.high - difference.low) / 2
    again = np.random.default_rng(3).integers(0, known_of, (4000, known_of))
    spread = np.std(np.exp(ours[again].mean(1)) - np.exp(theirs[again].mean(1)))
    assert half == pytest.approx(1.96 * spread, rel=0.06)
    alone = 1.96 * np.std(theirs) / known_of**0.5 * summary.perplexity_golden
    assert half < alone / 20  # what is hard in a text is hard for both


def test_one_known_token_has_no_error_bar():
    ids = np.array([-1, 3])
    difference = summarise(rows(drawn(0, 2, V), drawn(1, 2, V), next_ids=ids), "f", "m").perplexity_difference
    assert (difference.low, difference.high) == (-math.inf, math.inf)


def test_the_distance_from_float64_is_told_beside_the_references():
    exact = drawn(0, 300, V).astype(np.float64)
    golden = exact + drawn(1, 300, V, scale=1e-4)
    port = exact + drawn(2, 300, V, scale=2e-4)
    summary = summarise(rows(port, golden, exact), "float32", "end-to-end")
    assert summary.exact_port == pytest.approx(divergence(exact, port).mean(), rel=1e-4)
    assert summary.exact_golden == pytest.approx(divergence(exact, golden).mean(), rel=1e-4)
    assert summary.further.value == pytest.approx(summary.exact_port / summary.exact_golden)
    assert summary.further.low < 4 < summary.further.high
    assert summary.further.high - summary.further.low < 1


def test_float64_is_what_both_are_measured_from():
    exact, golden, port = drawn(0, 5, V), drawn(1, 5, V), drawn(2, 5, V)
    found = rows(port, golden, exact)
    assert found.kl_exact_port == pytest.approx(divergence(exact, port), rel=1e-9)
    assert found.kl_exact_golden == pytest.approx(divergence(exact, golden), rel=1e-9)


def test_the_interval_holds_the_ratio_nineteen_times_of_twenty():
    draw, held = np.random.default_rng(0), 0
    for _ in range(200):
        scale = draw.exponential(size=80)
        a, b = 1.5 * scale * draw.uniform(0.5, 1.5, 80), scale * draw.uniform(0.5, 1.5, 80)
        interval = ratio_interval(a, b)
        held += interval.low <= 1.5 <= interval.high
    assert 180 <= held <= 198


def test_the_interval_is_the_same_every_time_and_does_not_hang_on_the_size_of_a_block(monkeypatch):
    a, b = np.abs(drawn(0, 40)), np.abs(drawn(1, 40))
    assert ratio_interval(a, b) == ratio_interval(a, b)
    monkeypatch.setattr(logits, "_BLOCK", 1)
    assert ratio_interval(a, b) == pytest.approx(ratio_interval(a, b))
    assert ratio_interval(a, a).low == ratio_interval(a, a).high == 1


def test_logits_of_bfloat16_are_widened_first():
    import ml_dtypes

    golden = drawn(0, 3, V)
    low = golden.astype(ml_dtypes.bfloat16)
    assert rows(low, golden).kl == pytest.approx(divergence(golden, low.astype(np.float32)), rel=1e-9)


def shown(*summaries):
    console = Console(file=io.StringIO(), width=160)
    show(summaries, console)
    return console.file.getvalue()


def test_there_is_a_line_for_each_dtype_and_mode():
    golden, port = drawn(0, 9, V), drawn(0, 9, V) + drawn(1, 9, V, scale=1e-3)
    ids = np.arange(9)
    plain = summarise(rows(port, golden), "float32", "end-to-end")
    full = summarise(
        rows(port, golden, golden.astype(np.float64) + 1e-9 * drawn(2, 9, V), ids), "bfloat16", "decode"
    )
    told = shown(plain, full)
    assert "float32" in told
    assert "end-to-end" in told
    assert f"{plain.kl_max:.1e}" in told
    assert f"{full.perplexity_port:.5g}" in told
    assert "±" in told
    assert f"{full.further.value:.2f} (" in told
    assert "KL to float64" not in shown(plain)
    assert shown() == ""


def test_it_loads_with_nothing():
    import subprocess
    import sys

    code = "import sys, harness.compare.logits; print([m for m in ('numpy', 'torch', 'jax') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
