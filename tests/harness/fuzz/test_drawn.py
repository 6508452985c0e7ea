"""What is drawn lies within the bounds, reaches far, and shrinks towards the simplest input."""

from hypothesis import find, given, settings

from harness.fuzz.drawn import Bounds, Drawn, _tokens, drawn

BOUNDS = Bounds(vocab_size=512, tokens=64, rows=3, positions=1_000)
SEARCH = settings(derandomize=True, database=None, max_examples=300)


@given(drawn(BOUNDS))
def test_inputs_lie_within_the_bounds(each):
    assert 1 <= len(each.rows) <= 3
    assert each.length * len(each.rows) <= 64
    case = each.case("it", 512)
    assert case.positions.max() < 1_000
    assert each.padding != "none" or len(set(map(len, each.rows))) == 1


@given(drawn(Bounds(vocab_size=3, tokens=1, rows=5, positions=1)))
def test_bounds_may_leave_one_input_of_one_token(each):
    assert len(each.rows) == each.length == 1
    assert each.start == 0


def test_the_simplest_input_is_one_short_row_of_small_tokens():
    assert find(drawn(BOUNDS), lambda _: True, settings=SEARCH) == Drawn(((0, 1, 2, 3),))


def test_padding_on_either_side_and_far_positions_are_reached():
    for padding in ("left", "right"):
        found = find(drawn(BOUNDS), lambda each, p=padding: each.padding == p, settings=SEARCH)
        assert len(found.rows) == 2
    assert find(drawn(BOUNDS), lambda each: each.start > 400, settings=SEARCH).start == 401


def test_a_shorter_row_begins_as_the_longer_one():
    assert _tokens(5, 1, 20, 512)[:7] == _tokens(5, 1, 7, 512)
    assert _tokens(0, 1, 3, 512) == (1, 2, 3)
    assert _tokens(0, 1, 3, 2) == (1, 0, 1)
