"""`goldens accept`: a recording takes the place of its golden file whole, and only if somebody says so."""

import pytest

from harness.review.pending import Policy, on_ci, policy
from harness.store.reader import GoldenFile
from tests.commands.waiting import A, B, at_a_terminal, pending
from tests.rewritten import rewrite


def version_of(golden):
    return GoldenFile.open(golden).contents.provenance["versions"]["transformers"]


def test_one_that_is_named(waiting):
    new = pending(A).read_bytes()
    told = waiting("accept", "a.h5")
    assert told.status == 0, told.err
    assert told.out.startswith("a.h5: accepted, 5 goldens of 5 components in 1 cases, float32")
    assert A.read_bytes() == new
    assert not pending(A).exists()
    assert version_of(B) == "5.23.0", "the other one was not named"
    assert pending(B).exists()


def test_some_and_all(waiting):
    assert waiting("accept", "a.h5", "goldens/b.h5").status == 0
    assert [version_of(A), version_of(B)] == ["5.24.0", "5.24.0"]
    rewrite(A, pending(A), provenance={"versions": {"transformers": "5.25.0"}})
    told = waiting("accept", "--all")
    assert told.status == 0
    assert [version_of(A), version_of(B)] == ["5.25.0", "5.24.0"]
    assert waiting("accept", "--all").out == "nothing is pending here\n"


def test_a_golden_file_that_is_not_there_yet(waiting):
    """As a recording leaves it that was broken off between its last two steps."""
    A.unlink()
    assert waiting("accept", "a.h5").status == 0
    assert version_of(A) == "5.24.0"


def test_without_a_terminal_nothing_is_taken_that_is_not_named(waiting):
    told = waiting("accept")
    assert told.status == 2
    assert told.err == (
        "goldens: nothing is named to accept: name golden files, or give --all; pending: a.h5, goldens/b.h5\n"
    )
    assert [version_of(A), version_of(B)] == ["5.23.0", "5.23.0"]


def test_a_damaged_recording_keeps_all_from_being_taken(waiting):
    content = pending(B).read_bytes()
    pending(B).write_bytes(content[:-100])
    told = waiting("accept", "--all")
    assert told.status == 2
    assert "goldens/b.h5.new has" in told.err
    assert [version_of(A), version_of(B)] == ["5.23.0", "5.23.0"]
    file = GoldenFile.open(A)
    offset = file.tensors[-1].offset
    spoiled = bytearray(content)
    spoiled[offset] ^= 1
    pending(B).write_bytes(spoiled)
    told = waiting("accept", "goldens/b.h5")
    assert told.status == 2
    assert "goldens/b.h5.new is damaged: " in told.err
    assert told.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["checkpoint/config.json"], "checkpoint/config.json has no pending recording"),
        (["a.h5.new"], "a.h5.new is a pending recording: name its golden file, a.h5"),
        (["a.h5", "--all"], "the names of golden files, or --all, and not both"),
    ],
)
def test_what_cannot_be_accepted_gets_one_sentence(waiting, arguments, sentence):
    told = waiting("accept", *arguments)
    assert told.status == 2
    assert told.err.count("\n") == 1
    assert sentence in told.err
    assert version_of(A) == "5.23.0"


def test_a_port_never_takes_the_place_of_the_reference(waiting):
    rewrite(A, pending(A), provenance={"port": "my_port:make"})
    told = waiting("accept", "a.h5")
    assert told.status == 2
    assert "a.h5 was recorded from the reference, and this recording is from a port" in told.err


def test_who_is_asked_is_one_pure_rule():
    for ci in (True, False):
        for terminal in (True, False):
            assert policy(named=True, every=False, terminal=terminal, ci=ci) is Policy.NAMED
            assert policy(named=False, every=True, terminal=terminal, ci=ci) is Policy.ALL
            asked = Policy.ASK if terminal and not ci else Policy.REFUSE
            assert policy(named=False, every=False, terminal=terminal, ci=ci) is asked
    assert [on_ci({"CI": text}) for text in ("true", "1", "yes", "", "0", "false")] == [True] * 3 + [
        False
    ] * 3
    assert not on_ci({})


def test_at_a_terminal_each_is_shown_and_asked_for(waiting):
    status, shown = at_a_terminal("a\nr\n")
    assert status == 0, shown
    assert "1 of 2" in shown
    assert "version changed: transformers   5.23.0 -> 5.24.0" in shown
    assert [version_of(A), version_of(B)] == ["5.24.0", "5.23.0"]
    assert not pending(A).exists()
    assert not pending(B).exists()
    assert "a.h5: accepted" in shown
    assert "goldens/b.h5: rejected" in shown


def test_what_is_skipped_waits_on(waiting):
    status, shown = at_a_terminal("s\na\n")
    assert status == 1, shown
    assert [version_of(A), version_of(B)] == ["5.23.0", "5.24.0"]
    assert pending(A).exists()


def test_on_a_ci_machine_nobody_is_asked(waiting):
    status, shown = at_a_terminal("a\na\n", ci="true")
    assert status == 2
    assert "name golden files, or give --all" in shown
    assert [version_of(A), version_of(B)] == ["5.23.0", "5.23.0"]
