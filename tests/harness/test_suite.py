"""Suites: what is written in TOML is what is recorded, and mistakes in it are told in one sentence."""

from pathlib import Path

import numpy as np
import pytest

from harness.errors import GoldensError
from harness.suite import build_cases, default_suite, load_suite

ROOT = Path(__file__).parents[2]
VOCAB = 320


def write(folder, text, name="mine.toml"):
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def no_embedding():
    raise AssertionError("no case asked for the embedding")


def suite_of(folder, *cases, more=""):
    return load_suite(write(folder, f'checkpoint = "some/model"\ncases = {list(cases)!r}\n{more}'))


RANDOMIZED = """
[[randomized]]
name = "drawn"
seed = 3
batch = 3
length = [4, 9]
padding = "left"
start_position = 300
"""
RANDOM = f'checkpoint = "some/model"{RANDOMIZED}'


def test_a_suite_is_read_and_its_paths_are_relative_to_the_file(tmp_path):
    (tmp_path / "model").mkdir()
    suites = tmp_path / "suites"
    suites.mkdir()
    suite = load_suite(
        write(
            suites,
            'checkpoint = "../model"\ngolden = "out.h5"\ndtypes = ["bfloat16"]\nprompts = "p.toml"\n'
            'cases = ["b", "a"]\nkeep = ["layers=0"]\n',
        )
    )
    assert suite.name == "mine"
    assert suite.checkpoint == str(suites / "../model")
    assert suite.golden == suites / "out.h5"
    assert suite.prompts == suites / "p.toml"
    assert (suite.dtypes, suite.cases, suite.keep) == (("bfloat16",), ("b", "a"), ("layers=0",))


def test_the_golden_file_defaults_to_one_folder_up_and_a_hub_id_stays_one(tmp_path):
    suite = suite_of(tmp_path, "english")
    assert suite.golden == tmp_path.parent / "mine.h5"
    assert suite.checkpoint == "some/model"
    assert suite.dtypes == ("float32",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("checkpoint = 3\ncases = ['a']", "checkpoint: expected `str`, got `int`"),
        ("cases = ['a']", "missing required field `checkpoint`"),
        ("checkpoint = 'x'", "there is nothing to record"),
        ("checkpoint = 'x'\ncases = ['a', 'a']", "case a is there twice"),
        ("checkpoint = 'x'\ncase = ['a']", "unknown field `case`; nearest: cases"),
        ("checkpoint = 'x'\ncases = ['a']\ndtypes = ['float64']", "dtypes[0]: invalid enum value 'float64'"),
        ("checkpoint = 'x'\ncases = ['a']\ndtypes = []", "dtypes: expected `array` of length >= 1"),
        (RANDOM.replace("seed = 3", "seed = -3"), "randomized[0].seed (drawn): expected `int` >= 0"),
        (RANDOM.replace("seed = 3", "sed = 3"), "randomized[0] (drawn): object contains unknown field `sed`"),
        (RANDOM.replace("sed = 3", "seed = 3").replace("batch", "bach"), "`bach`; nearest: batch"),
        (RANDOM.replace("[4, 9]", "[9, 4]"), "length runs from 9 down to 4"),
        (RANDOM.replace("[4, 9]", "0"), "length is 0"),
        (RANDOM.replace("[4, 9]", "9"), "padding needs a batch of 2 or more"),
        (RANDOM.replace("batch = 3", ""), "padding needs a batch of 2 or more"),
        (RANDOM.replace("drawn", "a/b"), "randomized[0].name (a/b)"),
        ("checkpoint = ", "is not TOML"),
    ],
)
def test_a_mistake_names_the_file_and_the_field(tmp_path, text, told):
    path = write(tmp_path, text)
    with pytest.raises(GoldensError) as error:
        load_suite(path)
    assert str(error.value).startswith(str(path))
    assert told in str(error.value)


def test_a_file_that_is_not_there_is_told_so(tmp_path):
    with pytest.raises(GoldensError, match=r"cannot read .*gone\.toml: No such file"):
        load_suite(tmp_path / "gone.toml")


def test_an_unknown_case_is_refused_with_the_nearest_names(tmp_path):
    with pytest.raises(GoldensError, match=r"asks for case left-paded.*nearest: left-padded"):
        build_cases(suite_of(tmp_path, "left-paded"), tmp_path, VOCAB, no_embedding)


def test_cases_keep_their_order_and_randomized_ones_come_last(tmp_path):
    pytest.importorskip("transformers")
    suite = suite_of(tmp_path, "far", "english", more=RANDOMIZED)
    cases = build_cases(suite, ROOT / "goldens/checkpoints/qwen2-deep", VOCAB, no_embedding)
    assert [(case.name, case.origin) for case in cases] == [
        ("far", "prompt"),
        ("english", "prompt"),
        ("drawn", "randomized"),
    ]


def test_randomized_cases_need_no_tokenizer_and_never_change(tmp_path):
    """The very numbers: a golden file is recorded again years later, and must get the same tokens."""
    [case] = build_cases(load_suite(write(tmp_path, RANDOM)), tmp_path / "nowhere", VOCAB, no_embedding)
    assert case.token_ids.tolist() == [
        [118, 206, 162, 242, 221, 80, 74, 32, 282],
        [0, 0, 0, 0, 0, 193, 109, 295, 167],
        [0, 180, 103, 247, 289, 93, 287, 300, 317],
    ]
    assert case.attention_mask.sum(axis=1).tolist()[:2] == [9, 4]
    assert case.positions.max() == 308
    assert case.detail == "seed 3: 3 x 4 to 9 tokens, padding left, from position 300"


def test_the_default_suite_holds_what_can_show_faults():
    pytest.importorskip("transformers")
    checkpoint = ROOT / "goldens" / "checkpoints" / "qwen2-tiny"
    suite = default_suite(str(checkpoint))
    assert suite.golden == Path("qwen2-tiny.h5")
    cases = build_cases(suite, checkpoint, 512, lambda: np.arange(512.0))
    fixed = [case for case in cases if case.origin == "prompt"]
    assert len(fixed) >= 5
    assert len(cases) - len(fixed) == 2
    assert any((case.attention_mask[:, 0] == 0).any() for case in fixed), "no left padding"
    assert any((case.attention_mask[:, -1] == 0).any() for case in fixed), "no right padding"
    assert any(256 < case.token_ids.shape[1] < 300 for case in fixed), "no long case"
    assert any(case.positions.max() > 29_000 for case in fixed), "no far positions"
    assert "tiny-norm" in suite.cases


@pytest.mark.parametrize("checkpoint", ["organisation/some-model", "some-model"])
def test_the_default_golden_file_is_named_after_the_model(checkpoint):
    assert default_suite(checkpoint).golden == Path("some-model.h5")


@pytest.mark.parametrize("name", ["qwen2-tiny", "qwen3-tiny", "qwen2-deep"])
def test_the_built_in_suites_can_show_faults_and_stay_small(name):
    pytest.importorskip("transformers")
    suite = load_suite(ROOT / "goldens" / "suites" / f"{name}.toml")
    assert suite.golden.resolve() == ROOT / "goldens" / f"{name}.h5"
    cases = build_cases(suite, suite.checkpoint, VOCAB, lambda: np.arange(float(VOCAB)))
    assert sum(case.token_ids.size for case in cases) < 120
    assert any((case.attention_mask[:, 0] == 0).any() for case in cases), "no left padding"
    assert any(case.positions.max() > 256 for case in cases), "no position beyond 256"
    assert min(case.attention_mask.sum(axis=1).min() for case in cases) > 1, "a row of one token"
    if name != "qwen2-deep":
        assert max(case.token_ids.shape[1] for case in cases) > 16, "no case longer than the window"
