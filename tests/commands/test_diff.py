"""`goldens diff`: what changed between two golden files, and the exit status that says whether it counts."""

import json
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from tests.commandline import runner
from tests.fakes import write_checkpoint, write_golden
from tests.rewritten import rewrite

OLD, NEW = Path("tiny.h5"), Path("tiny.h5.new")
ACT = "goldens/float32/hello/layers.0.act/output"


@pytest.fixture
def goldens(monkeypatch, capsys, tmp_path):
    """Run `goldens` in a folder that has `tiny.h5`, of two cases and two dtypes."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    versions = {"versions": {"torch": "2.13.0", "transformers": "5.23.0"}}
    write_golden(tmp_path / "tiny.h5", ("float32", "bfloat16"), ("hello", "padded"), checkpoint, versions)
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)


def nudged(by):
    """An edit that moves one element."""

    def edit(array):
        array[1, 2, 3] += by
        return array

    return edit


def rounded_otherwise(array):
    array[1, 2, 3] = np.nextafter(array[1, 2, 3], np.float32(np.inf))
    return array


def told_as_json(told):
    return json.loads(told.out)


def test_the_same_agrees(goldens):
    rewrite(OLD, NEW)
    told = goldens("diff", "tiny.h5")
    assert told.status == 0
    assert "tiny.h5 -> tiny.h5.new" in told.out
    assert (
        "agrees: 0 changes in what was recorded, 0 goldens differ, 0 agree within the noise floor, 20 bit"
        in told.out
    )


def test_a_number_beyond_the_noise_floor_differs_and_is_told_first(goldens):
    q_proj = "goldens/float32/hello/layers.0.q_proj/output"
    rewrite(OLD, NEW, arrays={ACT: nudged(1e-3), q_proj: rounded_otherwise})
    told = goldens("diff", "tiny.h5")
    assert told.status == 1
    rows = [line.split() for line in told.out.splitlines() if line.startswith("l")]
    assert [row[0] for row in rows] == ["layers.0.act", "layers.0", "layers.0.q_proj"]
    assert rows[0][3:11] == ["1", "of", "1", "hello", "float32", "[1,", "2,", "3]"]
    found = told_as_json(goldens("diff", "tiny.h5", "--json"))
    assert found["counts"] == {"identical": 17, "within": 1, "differs": 2}
    worst = found["differences"][0]
    assert worst["worst"]["new"] - worst["worst"]["old"] == pytest.approx(1e-3, rel=1e-3)
    assert worst["over_floor"] > worst["over_limit"] > 1


def test_within_the_noise_floor_agrees(goldens):
    rewrite(OLD, NEW, arrays={ACT: rounded_otherwise})
    told = goldens("diff", "tiny.h5", "--json")
    assert told.status == 0
    assert told_as_json(told)["counts"] == {"identical": 18, "within": 2, "differs": 0}


def test_versions_and_the_machine_are_told_and_do_not_count(goldens):
    rewrite(
        OLD, NEW, provenance={"versions": {"torch": "2.13.0", "transformers": "5.24.0"}, "machine": "arm64"}
    )
    told = goldens("diff", "tiny.h5")
    assert told.status == 0
    assert "version changed: transformers   5.23.0 -> 5.24.0" in told.out
    assert "provenance new: machine" in told.out
    assert "torch" not in told.out


def test_another_checkpoint_file_counts_and_another_config_file_does_not(goldens):
    """config.json is compared setting by setting, so its bytes may change; replay refuses other weights."""
    files = {"config.json": "0" * 64, "model.safetensors": "1" * 64}
    rewrite(OLD, OLD, provenance={"checkpoint_files": files})
    rewrite(OLD, NEW, provenance={"checkpoint_files": files | {"config.json": "2" * 64}})
    assert goldens("diff", "tiny.h5").status == 0
    rewrite(OLD, NEW, provenance={"checkpoint_files": files | {"model.safetensors": "3" * 64}})
    told = goldens("diff", "tiny.h5")
    assert told.status == 1
    assert "checkpoint file changed: model.safetensors   111111111111 -> 333333333333" in told.out


def test_settings_parameters_components_and_cases_by_name(goldens):
    def edit(contents):
        first, *others = contents.parameters
        components = [
            replace(component, settings={"eps": 1e-5}) if component.name == "layers.0.act" else component
            for component in contents.components
        ]
        return replace(
            contents,
            config=contents.config | {"hidden_size": 8, "added": True},
            parameters=[replace(first, sha256="f" * 64), *others],
            components=components,
        )

    ids = "cases/padded/token_ids"

    def other_token(array):
        array[0, 1] = 9 if array[0, 1] != 9 else 8
        return array

    rewrite(OLD, NEW, contents=edit, arrays={ids: other_token})
    told = goldens("diff", "tiny.h5")
    assert told.status == 1
    assert "setting changed: hidden_size   4 -> 8" in told.out
    assert "setting new: added" in told.out
    assert "parameter changed: model.embed_tokens.weight   sha256 000000000000 -> ffffffffffff" in told.out
    assert "component changed: layers.0.act   settings.eps absent -> 1e-05" in told.out
    assert "case changed: padded   token_ids[0][1]" in told.out
    assert "10 bit by bit" in told.out, "numbers of other tokens are not compared"


def test_what_is_in_one_only_is_told_once_and_what_is_in_both_is_compared(goldens, tmp_path):
    write_golden(tmp_path / "more.h5", ("float32",), ("hello", "other"), tmp_path / "checkpoint")
    told = goldens("diff", "tiny.h5", "--against", "more.h5", "--json")
    assert told.status == 1
    found = told_as_json(told)
    one_only = [
        (c["what"], c["name"], c["change"]) for c in found["changes"] if c["what"] not in ("version",)
    ]
    assert one_only == [("case", "padded", "gone"), ("case", "other", "new"), ("dtype", "bfloat16", "gone")]
    assert found["counts"]["identical"] == 5
    assert (
        goldens("diff", "tiny.h5", "--against", "more.h5", "--case", "hello", "--dtype", "float32").status
        == 0
    )


def test_one_dtype_against_another(goldens):
    told = goldens("diff", "tiny.h5", "--against", "tiny.h5", "--dtype", "float32:bfloat16", "--json")
    found = told_as_json(told)
    assert told.status == 0, told.err
    assert len(found["differences"]) == 10
    by_name = {d["component"]: d for d in found["differences"] if d["case"] == "hello"}
    assert {d["dtype"] for d in found["differences"]} == {"float32:bfloat16"}
    assert by_name["lm_head"]["floor"]["whole"] == 6e-3, "bfloat16's floor is the wider one"
    assert by_name["embed_tokens"]["agreement"] == "within", (
        "its numbers were rounded to bfloat16, which is no difference"
    )


def test_a_fault_of_a_dtype_is_seen_beside_another(goldens):
    rewrite(OLD, Path("wrong.h5"), arrays={"goldens/bfloat16/hello/lm_head/output": lambda array: array * 2})
    told = goldens(
        "diff", "wrong.h5", "--against", "wrong.h5", "--dtype", "float32:bfloat16", "--include", "lm_head"
    )
    assert told.status == 1
    assert "1 goldens differ" in told.out


def test_nan_in_one_only(goldens):
    rewrite(OLD, NEW, arrays={ACT: nudged(np.nan)})
    told = goldens("diff", "tiny.h5")
    assert told.status == 1
    assert "NaN or infinite in one of the two only" in told.out
    assert told_as_json(goldens("diff", "tiny.h5", "--json"))["differences"][0]["over_limit"] == "Infinity"


def test_everything_pending_below_this_folder(goldens, tmp_path):
    (tmp_path / "goldens").mkdir()
    write_golden(tmp_path / "goldens" / "b.h5")
    rewrite(tmp_path / "goldens" / "b.h5", tmp_path / "goldens" / "b.h5.new")
    rewrite(OLD, NEW, arrays={ACT: nudged(1)})
    told = goldens("diff", "--json")
    assert told.status == 1
    assert [json.loads(line)["old"] for line in told.out.splitlines()] == ["goldens/b.h5", "tiny.h5"]


def test_nothing_pending(goldens):
    told = goldens("diff")
    assert (told.status, told.out) == (0, "")
    assert "nothing is pending here" in told.err


def test_the_rest_is_counted(goldens):
    rewrite(OLD, NEW, arrays={path: nudged(1) for path in (ACT, ACT.replace("act", "q_proj"))})
    told = goldens("diff", "tiny.h5", "--worst", "1")
    assert "and 2 components more that changed, 2 of them beyond the noise floor" in told.out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["tiny.h5"], "tiny.h5 has no pending recording: tiny.h5.new is not there"),
        (["tiny.h5.new"], "tiny.h5.new is a pending recording: name its golden file, tiny.h5"),
        (["no.h5", "--against", "tiny.h5"], "there is no golden file no.h5"),
        (["--against", "tiny.h5"], "name one FILE before it"),
        (["tiny.h5", "tiny.h5", "--against", "tiny.h5"], "name one FILE before it"),
        (["tiny.h5", "--against", "tiny.h5", "--dtype", "float32:"], "write float32, or float32:bfloat16"),
        (
            ["tiny.h5", "--against", "tiny.h5", "--dtype", "float32:float16"],
            "'float16' was not recorded in tiny.h5",
        ),
        (
            ["tiny.h5", "--against", "tiny.h5", "--case", "helo"],
            "have no case 'helo'; they have hello, padded",
        ),
        (["tiny.h5", "--against", "tiny.h5", "--include", "q_prok"], "matches 'q_prok'"),
        (["tiny.h5", "--against", "checkpoint/config.json"], "checkpoint/config.json is not a golden file"),
        (["tiny.h5", "--against", "tiny.h5", "--exclude", "*"], "nothing that was asked for can be compared"),
    ],
)
def test_what_cannot_be_asked_gets_one_sentence(goldens, arguments, sentence):
    told = goldens("diff", *arguments)
    assert told.status == 2
    assert told.out == ""
    assert told.err.count("\n") == 1, told.err
    assert sentence in told.err


def test_a_damaged_file_is_not_compared(goldens):
    file = rewrite(OLD, NEW)
    content = bytearray(NEW.read_bytes())
    content[file.tensors[-1].offset] ^= 1
    NEW.write_bytes(content)
    told = goldens("diff", "tiny.h5")
    assert told.status == 2
    assert "tiny.h5.new is damaged at" in told.err
