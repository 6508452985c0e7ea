"""Reading a text in parts through the cache gives what reading it at once gives, however it is split.

Tolerances are those of the goldens of the whole pass, so that nothing is guessed.
"""

from itertools import accumulate
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.compare.files import places
from harness.compare.judge import judge
from harness.model import LOGITS, Mode, Verdict
from harness.replay.decode import along_tokens, asked_in_decode, decode
from harness.replay.port import TRACE_INPUTS
from harness.replay.session import recorded_checkpoint
from harness.store.reader import GoldenFile
from qwen_flax import port as ports

GOLDENS = Path(__file__).parents[1] / "goldens"
WINDOW = 16
PADDED = {"qwen2-tiny": "left-padded", "qwen3-tiny": "random-1"}
"""A batch with padding; that of qwen3-tiny is longer than its window."""


@pytest.fixture(scope="module", params=["qwen2-tiny", "qwen3-tiny"])
def replayed(request):
    file = GoldenFile.open(GOLDENS / f"{request.param}.h5")
    return file, ports.make(recorded_checkpoint(file), dtype="float32")


def whole_cases(file):
    """Cases that the reference read at once -> how many tokens they have."""
    return {
        case.name: file.case_inputs(case.name)["token_ids"].shape[1]
        for case in file.contents.cases
        if not case.parts and file.case_inputs(case.name)["token_ids"].shape[1] > 1
    }


def goldens_of(file, case):
    wanted = {LOGITS, "layers.0.self_attn.probs", "layers.2.self_attn.probs", "layers.1.self_attn.context"}
    return [
        golden
        for golden in file.contents.goldens
        if (golden.case, golden.dtype) == (case, "float32") and golden.component in wanted
    ]


def failures(file, port, case, parts):
    goldens = goldens_of(file, case)
    inputs = {name: file.case_inputs(case)[name] for name in TRACE_INPUTS}
    decoded = decode(port, inputs, asked_in_decode(file, goldens), along_tokens(file), parts)
    assert decoded.read[-1] == inputs["token_ids"].shape[1]
    results = []
    for golden in goldens:
        component, recorded = file.component(golden.component), file.output(golden)
        value = decoded.output(component, recorded)
        results.append(judge(component, golden, Mode.DECODE, value, recorded, places(file, golden)))
    return [result for result in results if result.verdict is not Verdict.PASS], decoded.miswritten


def in_any_parts(data, replayed, cases):
    file, port = replayed
    tokens = whole_cases(file)
    case = data.draw(st.sampled_from(cases))
    # Few different lengths: every one is compiled.
    lengths = data.draw(st.lists(st.sampled_from([1, 1, 2, 5]), min_size=1, max_size=tokens[case]))
    parts = [read for read in accumulate(lengths) if read < tokens[case]]
    assert failures(file, port, case, (*parts, tokens[case])) == ([], {})


@settings(max_examples=4, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_text_that_is_read_in_any_parts_gives_what_a_whole_pass_gives(replayed, data):
    """One case of each model: what is compiled for it serves all of its examples."""
    in_any_parts(data, replayed, [PADDED[replayed[0].path.stem]])


@pytest.mark.slow
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_case_can_be_read_in_any_parts(replayed, data):
    in_any_parts(data, replayed, sorted(whole_cases(replayed[0])))


def test_a_text_longer_than_the_window_is_read_token_by_token_from_its_start():
    file = GoldenFile.open(GOLDENS / "qwen3-tiny.h5")
    tokens = whole_cases(file)["english"]
    assert tokens > WINDOW + 2
    port = ports.make(recorded_checkpoint(file), dtype="float32")
    assert failures(file, port, "english", tuple(range(1, tokens + 1))) == ([], {})


def test_a_wrong_split_would_be_seen(replayed):
    """What the test rests on: a port whose steps stand at other positions fails it."""
    file, port = replayed
    case = PADDED[file.path.stem]
    tokens = whole_cases(file)[case]

    class Shifted:
        def __getattr__(self, name):
            return getattr(port, name)

        def step(self, cache, inputs, names):
            late = np.asarray(inputs["query_index"]) >= tokens - 2
            return port.step(cache, {**inputs, "positions": inputs["positions"] + late}, names)

    wrong, _ = failures(file, Shifted(), case, tuple(range(2, tokens + 1)))
    assert wrong
