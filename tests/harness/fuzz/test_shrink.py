"""Shrinking: to the shortest beginning, without what is not needed, with the smallest tokens."""

from harness.fuzz.drawn import Drawn
from harness.fuzz.shrink import shrink

ASCENDING = tuple(range(200))


def test_the_least_length_is_found_where_every_longer_one_fails():
    found = Drawn((ASCENDING, ASCENDING[:150]), "right", 7)
    smallest = shrink(found, lambda drawn: drawn.length > 100 and len(drawn.rows) > 1)
    assert smallest.length == 101
    assert (smallest.padding, smallest.start) == ("right", 7)


def test_tokens_that_are_not_needed_are_dropped_wherever_they_are():
    smallest = shrink(Drawn((ASCENDING,)), lambda drawn: any(token >= 150 for token in drawn.rows[0]))
    assert smallest.rows == ((150,),)


def test_without_padding_rows_stay_equally_long():
    found = Drawn((ASCENDING, ASCENDING))
    tried = []
    smallest = shrink(found, lambda drawn: (tried.append(drawn), 90 in drawn.rows[1])[1])
    assert smallest.rows == ((0,), (90,))
    assert all(len(set(map(len, drawn.rows))) == 1 for drawn in tried)


def test_what_fails_always_becomes_one_token():
    assert shrink(Drawn((ASCENDING,)), lambda drawn: True) == Drawn(((0,),))


def test_what_cannot_shrink_stays():
    found = Drawn((ASCENDING[:40],), start=3)
    assert shrink(found, lambda drawn: drawn == found) == found
