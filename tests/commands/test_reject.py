"""`goldens reject`: a recording is dropped, and its golden file stays what it was."""

import pytest

from tests.commands.waiting import A, B, at_a_terminal, pending


def test_one_that_is_named(waiting):
    before = A.read_bytes()
    told = waiting("reject", "a.h5")
    assert told.status == 0
    assert told.out == "a.h5: rejected, a.h5.new is gone; the golden file is as it was\n"
    assert not pending(A).exists()
    assert A.read_bytes() == before
    assert pending(B).exists()


def test_all(waiting):
    assert waiting("reject", "--all").status == 0
    assert not pending(A).exists()
    assert not pending(B).exists()
    assert waiting("reject", "--all").out == "nothing is pending here\n"


def test_a_damaged_one_too(waiting):
    pending(A).write_bytes(b"half a file")
    assert waiting("reject", "a.h5").status == 0
    assert not pending(A).exists()


def test_without_a_terminal_nothing_is_dropped_that_is_not_named(waiting):
    told = waiting("reject")
    assert told.status == 2
    assert (
        "nothing is named to reject: name golden files, or give --all; pending: a.h5, goldens/b.h5"
        in told.err
    )
    assert pending(A).exists()


@pytest.mark.parametrize("named", ["no.h5", "a.h5.new"])
def test_what_is_not_pending_gets_one_sentence(waiting, named):
    told = waiting("reject", named)
    assert told.status == 2
    assert told.err.count("\n") == 1
    assert pending(A).exists()


def test_one_that_is_missing_keeps_all_from_being_dropped(waiting):
    assert waiting("reject", "a.h5", "no.h5").status == 2
    assert pending(A).exists()


def test_at_a_terminal_it_asks_as_accept_does(waiting):
    status, shown = at_a_terminal("s\nr\n", verb="reject")
    assert status == 1, shown
    assert pending(A).exists()
    assert not pending(B).exists()
