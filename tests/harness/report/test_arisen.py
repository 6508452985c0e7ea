"""Where NaN and infinities first arose, as a sentence; and what only has them from there."""

from harness.model import Mode, Verdict
from harness.report.arisen import first_arisen, where_arisen, without_followers
from harness.report.result import Arisen, Result

ORDER = ["embed_tokens", "layers.0.act", "layers.1.act", "lm_head"]


def result(component, at=None, mode=Mode.END_TO_END, case="hello", step=None, verdict=None):
    arisen = None if at is None else Arisen(3, at, float("inf"), step)
    verdict = verdict or (Verdict.PASS if at is None else Verdict.FAIL)
    return Result(component, "act", case, "float32", mode, verdict, arisen=arisen)


HERE = {"B": 1, "T": 4, "F": 7}


def test_the_first_in_forward_order_whatever_the_order_of_results():
    results = [
        result("lm_head", HERE),
        result("layers.1.act", HERE),
        result("layers.0.act"),
        result("embed_tokens"),
    ]
    assert list(where_arisen(results, ORDER)) == [
        "NaN or infinity first arose end to end in layers.1.act (hello float32): inf at text 1, token 4, channel 7; "
        "of 2 before it none has any, of those after it 1"
    ]
    assert [each.component for each in first_arisen(results, ORDER)] == ["layers.1.act"]
    left = [each.component for each in without_followers(results, ORDER)]
    assert left == ["layers.1.act", "layers.0.act", "embed_tokens"]


def test_what_was_not_measured_before_it_is_said():
    results = [result("layers.0.act", verdict=Verdict.UNMEASURED), result("layers.1.act", HERE)]
    (told,) = where_arisen(results, ORDER)
    assert told.endswith("; of 1 before it none has any (1 unmeasured)")


def test_of_several_cases_the_one_that_shows_it_earliest():
    results = [
        result("lm_head", HERE),
        result("layers.0.act", HERE, case="far"),
        result("lm_head", HERE, case="far"),
    ]
    (told,) = where_arisen(results, ORDER)
    assert "in layers.0.act (far float32)" in told
    assert [each.case for each in without_followers(results, ORDER)] == ["hello", "far"]


def test_isolated_each_stands_for_itself():
    results = [result(name, HERE, Mode.ISOLATED) for name in ("layers.0.act", "layers.1.act")]
    (told,) = where_arisen(results, ORDER)
    assert told.endswith("channel 7; it does in 1 more")
    assert without_followers(results, ORDER) == results


def test_in_decode_an_earlier_step_goes_before_an_earlier_component():
    results = [
        result("lm_head", HERE, Mode.DECODE, step=2),
        result("layers.0.act", HERE, Mode.DECODE, step=3),
    ]
    (told,) = where_arisen(results, ORDER)
    assert "in lm_head" in told
    assert told.endswith("channel 7, in step 2; from then on it is in 1 more")
    (told,) = where_arisen([result("lm_head", HERE, Mode.DECODE, step=0)], ORDER)
    assert told.endswith("channel 7, with what is read at once")


def test_axes_have_names():
    scores = {"B": 0, "H": 2, "T": 3, "S": 1}
    (told,) = where_arisen([result("layers.0.act", scores)], ORDER)
    assert "inf at text 0, head 2, token 3, key 1;" in told


def test_without_any_nothing_is_said():
    assert not list(where_arisen([result("lm_head")], ORDER))
