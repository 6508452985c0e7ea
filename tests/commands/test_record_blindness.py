"""`goldens record` warns of what the recording cannot show, and goes on."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

RECORD = ("record", "suites/small.toml")
COMPLETE = """
checkpoint = "../checkpoint"
cases = ["left-padded", "right-padded", "far", "tiny-norm"]
dtypes = ["float32"]
facts = ["config"]
"""


def warnings(told):
    lines = told.err.splitlines()
    assert all(line.startswith("warning: ") for line in lines), told.err
    return [line.removeprefix("warning: ") for line in lines]


def test_a_recording_that_leaves_nothing_out_has_no_warning(goldens):
    Path("suites/small.toml").write_text(COMPLETE)
    told = goldens(*RECORD)
    assert (told.status, told.err) == (0, "")


def test_a_warning_is_a_line_and_changes_no_status(goldens):
    told = goldens(*RECORD, "--case", "tiny-norm")
    assert told.status == 0
    assert warnings(told) == [
        "no case has padding: hides the padding mask, and positions that count padding; add the case `left-padded`",
        "every case is a batch of one: hides rows of a batch mixed up, and what is taken from one row for all;"
        " add the case `left-padded`",
        "no position is beyond 255: hides positions and angles computed in too little precision; add the case `far`",
        "every row starts at position 0: hides positions that are counted where they should be taken as given;"
        " add the case `past-256`",
    ]
    assert "goldens of 74 components in 1 cases" in told.out


def test_what_only_the_checkpoint_decides_is_said_so(goldens, change_tensors):
    def silence(tensors):
        for name in tensors:
            if name.endswith("bias"):
                tensors[name] = np.zeros_like(tensors[name])

    change_tensors(silence)
    Path("suites/small.toml").write_text(COMPLETE)
    assert warnings(goldens(*RECORD)) == [
        "all biases of q_proj, k_proj and v_proj are zero: hides a bias left out, added twice, or added to another"
        " product; only another checkpoint can show it"
    ]


def test_recording_again_warns_again(goldens):
    first = goldens(*RECORD)
    again = goldens(*RECORD)
    assert again.status == 0
    assert "left as it is" in again.out
    assert warnings(again) == warnings(first) != []
