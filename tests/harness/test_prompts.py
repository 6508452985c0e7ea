"""Fixed prompts: what a prompts file says is what the model is given; mistakes are told in one sentence."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from harness.errors import GoldensError
from harness.prompts import BUILT_IN, Source, build_case, load_prompts

CHECKPOINT = Path(__file__).parents[2] / "goldens" / "checkpoints" / "qwen2-tiny"
VOCAB = 512


def source(folder=CHECKPOINT, vocab_size=VOCAB, rms=None):
    return Source(str(folder), vocab_size, lambda: np.array(rms))


@pytest.fixture
def build(tmp_path):
    """Builds the one case whose TOML is given."""

    def build(toml, given=None):
        pytest.importorskip("transformers")
        path = tmp_path / "prompts.toml"
        path.write_text(f'[[case]]\nname = "it"\n{toml}', encoding="utf-8")
        return build_case(load_prompts(path)["it"], given or source())

    return build


def test_a_text_is_tokenized(build):
    case = build('text = "水 ok"')
    assert case.token_ids.tolist() == [list("水 ok".encode())]
    assert case.attention_mask.tolist() == [[1] * 6]
    assert case.positions.tolist() == [[0, 1, 2, 3, 4, 5]]
    assert (case.name, case.origin, case.detail) == ("it", "prompt", "水 ok")
    assert {case.token_ids.dtype, case.attention_mask.dtype, case.positions.dtype} == {np.dtype("int32")}


def test_left_padding_counts_positions_from_the_first_real_token(build):
    case = build('texts = ["abc", "de"]\npadding = "left"\nstart_position = 300')
    assert case.token_ids.tolist() == [[97, 98, 99], [256, 100, 101]]
    assert case.attention_mask.tolist() == [[1, 1, 1], [0, 1, 1]]
    assert case.positions.tolist() == [[300, 301, 302], [0, 300, 301]]
    assert case.detail == "abc | de (from position 300)"


def test_right_padding(build):
    case = build('texts = ["abc", "de"]\npadding = "right"')
    assert case.token_ids.tolist() == [[97, 98, 99], [100, 101, 256]]
    assert case.attention_mask.tolist() == [[1, 1, 1], [1, 1, 0]]
    assert case.positions.tolist() == [[0, 1, 2], [0, 1, 0]]


def test_a_chat_goes_through_the_template_with_its_special_tokens(build):
    case = build('chat = [{ role = "user", content = "Hi" }]')
    assert case.detail == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert case.token_ids[0, [0, 8, 10]].tolist() == [257, 258, 257]


def test_what_a_tokenizer_puts_before_a_text_it_does_not_put_before_a_chat(build, tmp_path):
    """A template writes its own special tokens; a second one at the start would be a mistake."""
    tokenizer = json.loads((CHECKPOINT / "tokenizer.json").read_text())
    begin = {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}
    text = {"Sequence": {"id": "A", "type_id": 0}}
    tokenizer["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [begin, text],
        "pair": [begin, text],
        "special_tokens": {
            "<|endoftext|>": {"id": "<|endoftext|>", "ids": [256], "tokens": ["<|endoftext|>"]}
        },
    }
    (tmp_path / "tokenizer.json").write_text(json.dumps(tokenizer))
    (tmp_path / "tokenizer_config.json").write_bytes((CHECKPOINT / "tokenizer_config.json").read_bytes())
    assert build('text = "a"', source(tmp_path)).token_ids.tolist() == [[256, 97]]
    chat = build('chat = [{ role = "user", content = "a" }]', source(tmp_path))
    assert chat.token_ids[0, 0] == 257


@pytest.mark.parametrize("tokens", [3, 20])
def test_a_text_can_be_given_an_exact_length(build, tokens):
    case = build(f'text = "abcdef"\ntokens = {tokens}')
    assert case.token_ids.shape == (1, tokens)
    assert case.token_ids[0].tolist() == list(b"abcdef\nabcdef\nabcdef\n"[:tokens])


def test_token_ids_need_no_tokenizer(build, tmp_path):
    case = build("token_ids = [5, 511, 7]", source(tmp_path / "nowhere"))
    assert case.token_ids.tolist() == [[5, 511, 7]]


def test_rows_of_token_ids_are_a_batch(build, tmp_path):
    given = source(tmp_path / "nowhere")
    case = build('rows = [[5, 511, 7], [9]]\npadding = "left"\nstart_position = 30', given)
    assert case.token_ids.tolist() == [[5, 511, 7], [0, 0, 9]]
    assert case.attention_mask.tolist() == [[1, 1, 1], [0, 0, 1]]
    assert case.positions.tolist() == [[30, 31, 32], [0, 0, 30]]
    assert build("rows = [[5, 6], [7, 8]]", given).token_ids.tolist() == [[5, 6], [7, 8]]


def test_the_tiny_norm_probe_takes_the_least_norms_that_are_not_zero(build):
    rms = [0.5, 0.0, 0.1, 0.3, 0.2, 0.0]
    case = build('probe = "tiny-norm"\ntokens = 3', source(rms=rms, vocab_size=6))
    assert case.token_ids.tolist() == [[2, 4, 3]]
    with pytest.raises(GoldensError, match="wants 5 embedding rows that are not zero, the checkpoint has 4"):
        build('probe = "tiny-norm"\ntokens = 5', source(rms=rms, vocab_size=6))


def test_the_special_token_probe_takes_the_tokenizers_own(build):
    assert build('probe = "special-tokens"\ntokens = 8').token_ids.tolist() == [[256, 257, 258]]


@pytest.mark.parametrize(
    ("toml", "told"),
    [
        ("", "case[0] (it): expected exactly one of text, texts, chat, token_ids, rows, probe, found none"),
        ('text = "a"\ntoken_ids = [1]', "found text and token_ids"),
        ('text = ""', "text is empty"),
        ('texts = ["a", ""]\npadding = "left"', "texts is empty"),
        ('texts = ["a", "bc"]', "texts and padding come together"),
        ('text = "a"\npadding = "left"', "texts and padding come together"),
        ('texts = ["a", "bc"]\npadding = "both"', "case[0].padding (it): invalid enum value 'both'"),
        ('probe = "tiny-norm"', "a probe needs tokens"),
        ('probe = "huge-norm"\ntokens = 3', "invalid enum value 'huge-norm'"),
        ("token_ids = [1]\ntokens = 3", "tokens belongs to a text or a probe"),
        ("rows = [[1, 2], [3]]", "case it has rows of 1 to 2 tokens: say padding"),
        ('rows = [[1], []]\npadding = "left"', "case[0].rows[1] (it): expected `array` of length >= 1"),
        ('text = "a"\nstart_position = -1', "case[0].start_position (it): expected `int` >= 0"),
        ('txt = "a"', "unknown field `txt`; nearest: text"),
        ('text = "a"\n[[case]]\nname = "it"\ntext = "b"', "case it is there twice"),
        ("token_ids = [512]", "case it has token id 512, outside the checkpoint's vocabulary of 512"),
        ("token_ids = [-1]", "case it has token id -1"),
    ],
)
def test_a_mistake_is_told_in_one_sentence(build, toml, told):
    with pytest.raises(GoldensError) as error:
        build(toml)
    assert told in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_tokenizer_is_refused(build, tmp_path):
    """transformers makes up an empty one from config.json alone, and says nothing."""
    (tmp_path / "config.json").write_bytes((CHECKPOINT / "config.json").read_bytes())
    with pytest.raises(GoldensError, match="has no tokenizer"):
        build('text = "a"', source(tmp_path))


def test_a_chat_without_a_template_is_refused(build, tmp_path):
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((CHECKPOINT / name).read_bytes())
    settings = json.loads((CHECKPOINT / "tokenizer_config.json").read_text())
    del settings["chat_template"]
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(settings))
    with pytest.raises(GoldensError, match="the checkpoint's tokenizer has no chat template"):
        build('chat = [{ role = "user", content = "Hi" }]', source(tmp_path))


def test_the_built_in_prompts_are_all_there():
    assert {"english", "chinese", "code", "chat", "special-tokens", "left-padded", "right-padded"} <= set(
        load_prompts(BUILT_IN)
    )
    assert {"long", "far", "past-256", "tiny-norm", "hello"} <= set(load_prompts(BUILT_IN))


def test_reading_suites_and_prompts_imports_nothing_heavy():
    heavy = "numpy torch transformers jax hypothesis h5py"
    code = f"import sys, harness.suite; print([name for name in {heavy.split()!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
