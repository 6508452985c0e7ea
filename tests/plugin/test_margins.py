"""`--goldens-margins`, `goldens_margins`: the comparisons nearest to their limit."""

import re
from collections.abc import Callable

import pytest

pytest_plugins = ["pytester"]
Run = Callable[..., pytest.RunResult]


def shown(result: pytest.RunResult) -> list[tuple[float, str]]:
    """The errors over their limits, and what they are of."""
    found = [re.fullmatch(r"  (\S+) x limit   (.*)", line) for line in result.outlines]
    return [(float(match[1]), match[2]) for match in found if match is not None]


def test_nearest_first_on_either_side(parity: Run) -> None:
    result = parity("--goldens-margins=3", factory="make_faulty", keywords='cases="hello", dtypes="float32"')
    told = shown(result)
    assert len(told) == 3
    assert [ratio for ratio, _ in told] == sorted(ratio for ratio, _ in told)
    assert told[0][1] == "layers.0.q_proj   hello float32 end-to-end"
    result.stdout.fnmatch_lines(["nearest to their limit, 3 of 5 with an error"])


def test_none_by_default_and_no_more_than_there_are(parity: Run) -> None:
    keywords = 'cases="hello", dtypes="float32"'
    assert shown(parity(factory="make_faulty", keywords=keywords)) == []
    assert len(shown(parity("--goldens-margins=99", factory="make_faulty", keywords=keywords))) == 5


def test_the_flag_goes_before_the_setting(project: pytest.Pytester, parity: Run) -> None:
    parity(factory="make_faulty")
    project.makeini("[pytest]\ngoldens_port = tests.fakes:make_faulty\ngoldens_margins = 2\n")
    assert len(shown(project.runpytest())) == 2
    assert len(shown(project.runpytest("--goldens-margins", "1"))) == 1
    assert shown(project.runpytest("--goldens-margins", "0")) == []


def test_it_takes_a_number(parity: Run) -> None:
    assert parity("--goldens-margins=-1").ret == pytest.ExitCode.USAGE_ERROR
