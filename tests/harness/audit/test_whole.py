"""Every fault there is, in every built-in golden file: the whole audit, and how well it names.

That takes hours: a night has the seventh of the faults that `SHARD` says, `2/7` for instance; without it, all.
"""

import os
from pathlib import Path

import pytest
from rich.console import Console

from harness.audit.command import Question, Shard, audit, chosen_faults, select
from harness.audit.outcome import Naming, Verdict, score, witness
from harness.store.reader import GoldenFile

ROOT = Path(__file__).parents[3]
SHARD = os.environ.get("SHARD")
WHOLE = ("qwen2-tiny", "qwen3-tiny", "qwen2-deep")
QUESTION = Question(
    port="qwen_flax.port:make",
    checkpoint=None,
    cases=(),
    dtype="float32",
    faults=(),
    sources=(ROOT / "goldens" / "faults" / "qwen_flax.toml",),
    shard=Shard.parse(SHARD) if SHARD else None,
)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def audits():
    """In the other files, whose RoPE is scaled, what could be planted nowhere before."""
    faults = chosen_faults(QUESTION)
    assert len(faults) > (400 if QUESTION.shard is None else 400 // QUESTION.shard.of)
    found = [audited(name, faults) for name in WHOLE]
    nowhere = planted_nowhere([result for one in found for result in one.results])
    left = [fault for fault in faults if fault.name in nowhere]
    others = sorted({path.stem for path in (ROOT / "goldens").glob("*.h5")} - {*WHOLE})
    return [*found, *(audited(name, left) for name in others if left)]


def audited(name, faults):
    asked = select(GoldenFile.open(ROOT / "goldens" / f"{name}.h5"), QUESTION)
    return audit(asked, QUESTION, faults, Console(quiet=True))


def planted_nowhere(results):
    planted = {result.key for result in results if result.verdict is not Verdict.NOT_PLANTED}
    return {name for _, name in {result.key for result in results} - planted}


@pytest.fixture(scope="module")
def results(audits):
    return [result for one in audits for result in one.results]


def told(results):
    return [f"{result.planting} {result.fault}: {result.reason or result.misnamed}" for result in results]


def refuse_more(results, share, fails):
    """Those that fail may be so many, by all that there are."""
    assert len(results) > 100
    failing = [result for result in results if fails(result)]
    assert len(failing) <= share * len(results), told(failing)


def invisible(result):
    return result.effect.exact or result.effect.over_limit <= 1


def test_nothing_that_could_be_seen_is_missed(results):
    missed = [result for result in results if result.verdict is Verdict.MISSED]
    assert told(result for result in missed if not invisible(result)) == []


def test_what_one_file_misses_another_catches_unless_no_number_of_float32_shows_it(audits, results):
    """Where no file has it: no fault that changes anything at all in float32, wherever it was planted."""
    missed = [result for result in results if result.verdict is Verdict.MISSED]
    nowhere = [result for result in missed if not witness(result, audits)]
    assert told(result for result in nowhere if not result.effect.exact) == []
    assert score(results) > 0.95


def test_every_fault_can_be_planted_somewhere(results):
    # no built-in chat template has a system prompt of its own
    lacking = {"default-system-prompt-missing"} & {result.fault for result in results}
    assert planted_nowhere(results) == lacking


def test_an_equivalent_fault_is_caught_nowhere_and_has_a_proof(results):
    equivalent = {result.key for result in results if result.verdict is Verdict.EQUIVALENT}
    assert equivalent
    verdicts = {result.verdict for result in results if result.key in equivalent}
    assert verdicts <= {Verdict.EQUIVALENT, Verdict.NOT_PLANTED}
    assert all(result.reason for result in results if result.key in equivalent)


def test_the_first_wrong_component_is_the_one_that_is_wrong(results):
    ran = [result for result in results if result.ran]
    refuse_more(ran, 0.01, lambda result: not result.planted)


def test_no_name_is_wrong(results):
    assert told(result for result in results if result.naming is Naming.WRONG) == []


def test_a_fault_that_has_a_name_gets_it(results):
    """Those caught when loading are refused before there is anything to name."""
    namable = [result for result in results if result.ran and result.namable]
    refuse_more(namable, 0.05, lambda result: result.naming is not Naming.NAMED)
    refuse_more(namable, 0.01, lambda result: result.naming is Naming.NOT_NAMED)
