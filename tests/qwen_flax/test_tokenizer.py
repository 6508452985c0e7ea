"""The port's ids and chats are the reference's, of any text and for every way in which a checkpoint is written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.replay.port import NotOffered
from harness.texts import load_chats, load_texts
from qwen_flax import port
from qwen_flax.tokenizer import Tokenizer
from tests.qwen_flax import tiny
from tests.versions import of_5_23

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

BUILT_IN = Path(__file__).parents[2] / "goldens" / "checkpoints" / "qwen2-tiny"
RICH = (Path(__file__).parents[2] / "goldens/checkpoints/chat_template.jinja").read_text(encoding="utf-8")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
CORPUS = [
    "Snow fell all night, and the children said that they'd stay. In 1998 it was 12345 flakes.",
    "def f(x):\n    return x * x\n\n\nclass A:\n\tpass\n",
    "水沸腾了。雪下了一整夜，天亮时才停。café naïve Å ệ fi ²",
] * 3


def merged(normalizer=None):
    """tokenizer.json of words that were merged, which are split by a pattern that is not the reference's."""
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)
    backend.decoder = tokenizers.decoders.ByteLevel()
    if normalizer is not None:
        backend.normalizer = normalizer
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=420, initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    backend.add_special_tokens(list(SPECIAL))
    backend.add_tokens(["<tool_call>"])
    return json.loads(backend.to_str())


def around(written):
    """With a token that begins a text and one that ends it."""
    first, last = (token["id"] for token in written["added_tokens"][:2])
    tokens = {
        name: {"id": name, "ids": [id_], "tokens": [name]}
        for name, id_ in zip(SPECIAL, (first, last), strict=False)
    }
    pieces = [
        {"SpecialToken": {"id": SPECIAL[0], "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": SPECIAL[1], "type_id": 0}},
    ]
    processor = {
        "type": "TemplateProcessing",
        "single": pieces,
        "pair": [*pieces, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": tokens,
    }
    return written | {"post_processor": processor}


def flags(content, **changed):
    plain = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {"content": content, **plain, **changed}


def listed(written):
    """The added tokens as tokenizer_config.json lists them, one more among them, and one that eats spaces."""
    tokens = {
        str(token["id"]): flags(token["content"], special=token["special"])
        for token in written["added_tokens"]
    }
    last = max(map(int, tokens))
    return tokens | {str(last + 1): flags("<more>", special=False, lstrip=True, rstrip=True)}


WRITTEN = {
    "as-qwen2": ("qwen2", merged(), {"tokenizer_class": "PreTrainedTokenizerFast"}),
    "qwen2-class": ("qwen3", merged(), {"tokenizer_class": "Qwen2TokenizerFast", "add_bos_token": True}),
    "no-class": ("qwen3", merged(), {"eos_token": "<|im_end|>", "unk_token": None}),
    "as-written": ("qwen3", merged(), {"tokenizer_class": "PreTrainedTokenizerFast", "pad_token": "<pad>"}),
    "as-written-nfkc": (
        "qwen3",
        merged(tokenizers.normalizers.NFKC()),
        {"tokenizer_class": "TokenizersBackend", "bos_token": {"content": "<s>", "__type": "AddedToken"}},
    ),
    "tokens-around": ("qwen3", around(merged()), {"tokenizer_class": "PreTrainedTokenizerFast"}),
    "tokens-around-qwen2": ("qwen2", around(merged()), {"image_token": "<image>", "add_prefix_space": True}),
    "tokens-listed": (
        "qwen2",
        merged(),
        {"added_tokens_decoder": listed(merged()), "extra_special_tokens": ["<extra>"]},
    ),
    "tokens-listed-as-written": (
        "qwen3",
        merged(),
        {"tokenizer_class": "PreTrainedTokenizerFast", "added_tokens_decoder": listed(merged())},
    ),
    "tokens-split": ("qwen2", merged(), {"split_special_tokens": True}),
    "cut-and-filled": (
        "qwen3",
        merged()
        | {
            "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
            "padding": {
                "strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": None,
                "pad_id": 3, "pad_type_id": 0, "pad_token": "a",
            },
        },
        {"tokenizer_class": "PreTrainedTokenizerFast"},
    ),
}  # fmt: skip


def write(folder, model_type, tokenizer, settings, template=RICH):
    folder.mkdir()
    for name, content in (
        ("config.json", {"model_type": model_type}),
        ("tokenizer.json", tokenizer),
        ("tokenizer_config.json", settings),
    ):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


@pytest.fixture(scope="module", params=[*WRITTEN, "built-in-qwen2", "built-in-qwen3"])
def both(request, tmp_path_factory):
    """The reference's tokenizer and the port's of one checkpoint."""
    if request.param.startswith("built-in"):
        folder = BUILT_IN.with_name(f"{request.param.removeprefix('built-in-')}-tiny")
    else:
        folder = write(tmp_path_factory.mktemp("tokenizer") / "it", *WRITTEN[request.param])
    return transformers.AutoTokenizer.from_pretrained(folder), Tokenizer.read(folder)


PIECES = st.one_of(
    st.text(max_size=8),
    st.sampled_from([*SPECIAL, "<tool_call>", "<more>", "<extra>", "<image>", "<pad>", " ", "\r\n", "12345"]),
    st.sampled_from(
        ["café", "cafe\u0301", "they'll", "\u1100\u1161", "def f(x):\n    return", "👩\u200d👧", "ﬁ ²"]
    ),
)


@settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(st.lists(PIECES, max_size=8).map("".join))
def test_ids_are_the_references(both, text):
    reference, tokenizer = both
    ids = tokenizer.encode(text)
    assert ids == reference(text)["input_ids"]
    assert tokenizer.decode(ids) == reference.decode(ids)


def test_built_in_texts_have_the_references_ids(both):
    reference, tokenizer = both
    for text in load_texts(SPECIAL).values():
        assert tokenizer.encode(text) == reference(text)["input_ids"]


def test_templates_know_the_special_tokens_that_the_reference_tells_them(both):
    reference, tokenizer = both
    assert tokenizer.named == reference.special_tokens_map


def test_built_in_chats_are_the_references(both):
    reference, tokenizer = both
    written = [
        (chat, reference.apply_chat_template(chat["messages"], tokenize=False, **chat["options"]))
        for chat in load_chats(SPECIAL).values()
    ]
    for chat, text in written:
        assert tokenizer.render_chat(chat["messages"], **chat["options"]) == text


CONTENT = st.one_of(
    st.none(), st.text(max_size=12), st.sampled_from([" a ", "<think>\nx\n</think>\n\ny", "{{ 1 }}"])
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["system", "user", "assistant", "tool", "judge"])},
        optional={
            "content": CONTENT,
            "reasoning_content": CONTENT,
            "thinking": CONTENT,
            "reasoning": CONTENT,
        },
    ),
    max_size=4,
)
OPTIONS = st.fixed_dictionaries(
    {},
    optional={
        "add_generation_prompt": st.booleans(),
        "enable_thinking": st.booleans(),
        "tools": st.one_of(
            st.none(), st.just([]), st.just([{"name": "wetter", "b": "°<&>'", "a": [1, 2.5, None]}])
        ),
        "eos_token": st.just("<end>"),
    },
)

PLAIN = "{% for m in messages %}\n  {% generation %}\n  {{ m }}{{ eos_token }}\n  {% endgeneration %}\n\n{% endfor %}\n"
"""Hands out what a message is after all."""


@pytest.fixture(scope="module", params=[RICH, PLAIN])
def writers(request, tmp_path_factory):
    folder = write(tmp_path_factory.mktemp("chat") / "it", *WRITTEN["no-class"], template=request.param)
    return transformers.AutoTokenizer.from_pretrained(folder), Tokenizer.read(folder)


@of_5_23
@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    derandomize=True,
)
@given(MESSAGES, OPTIONS)
def test_chats_are_the_references_or_refused_like_them(writers, messages, options):
    reference, tokenizer = writers
    try:
        expected = reference.apply_chat_template(messages, tokenize=False, **options)
    except Exception:  # refused by the template, or by Jinja, or by Python
        with pytest.raises((ValueError, TypeError)):
            tokenizer.render_chat(messages, **options)
    else:
        assert tokenizer.render_chat(messages, **options) == expected


@pytest.fixture
def copy(tmp_path):
    """A copy of a built-in checkpoint's tokenizer, without a template."""
    for name in ("tokenizer.json", "config.json"):
        (tmp_path / name).write_bytes((BUILT_IN / name).read_bytes())
    return tmp_path


HI = [{"role": "user", "content": "Hi"}]


def test_templates_are_looked_for_where_the_reference_does(copy):
    """A file of its own first, one by name for tools, then tokenizer_config.json."""
    tools = [{"name": "f"}]

    def alike(expected, **options):
        reference = transformers.AutoTokenizer.from_pretrained(copy)
        assert reference.apply_chat_template(HI, tokenize=False, **options) == expected
        assert Tokenizer.read(copy).render_chat(HI, **options) == expected

    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    (copy / "tokenizer_config.json").write_text(json.dumps({"chat_template": named}))
    alike("plain")
    alike("tools", tools=tools)
    (copy / "chat_template.jinja").write_text("file")
    alike("file")
    alike("file", tools=tools)
    (copy / "additional_chat_templates").mkdir()
    (copy / "additional_chat_templates" / "tool_use.jinja").write_text("file for tools")
    alike("file")
    alike("file for tools", tools=tools)


def test_the_template_of_a_processor_is_the_last_choice(copy):
    (copy / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages[0].content }}"}))
    assert Tokenizer.read(copy).render_chat(HI) == "Hi"
    (copy / "chat_template.json").write_text("{}")
    with pytest.raises(ValueError, match=r"chat_template\.json holds no chat_template$"):
        Tokenizer.read(copy)


def test_a_template_cannot_leave_its_sandbox(copy):
    (copy / "chat_template.jinja").write_text("{{ messages.append(1) }}")
    with pytest.raises(ValueError, match="the chat template cannot be applied: "):
        Tokenizer.read(copy).render_chat(HI)


def test_the_day_is_today(copy):
    (copy / "chat_template.jinja").write_text("{{ strftime_now('%Y') }}")
    reference = transformers.AutoTokenizer.from_pretrained(copy)
    assert Tokenizer.read(copy).render_chat(HI) == reference.apply_chat_template(HI, tokenize=False)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("tokenizer.json", None, "no file .*tokenizer.json: a checkpoint's tokenizer is read from it$"),
        ("tokenizer.json", "{", "tokenizer.json cannot be read as JSON: "),
        ("tokenizer.json", "[]", "tokenizer.json holds a list where an object was expected$"),
        ("tokenizer.json", '{"model": {"type": "BPE"}}', "tokenizer.json is no tokenizer that is known: "),
        ("tokenizer_config.json", "1", "tokenizer_config.json holds a int where an object was expected$"),
    ],
)
def test_what_cannot_be_read_is_told_in_a_sentence(copy, file, content, message):
    if content is None:
        (copy / file).unlink()
    else:
        (copy / file).write_text(content)
    with pytest.raises(ValueError, match=message):
        Tokenizer.read(copy)


def test_another_class_of_tokenizer_is_refused(copy):
    (copy / "config.json").write_text('{"model_type": "qwen3"}')
    (copy / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer"}')
    with pytest.raises(
        ValueError, match="tokenizer_class is 'LlamaTokenizer', but only 'Qwen2Tokenizer' and"
    ):
        Tokenizer.read(copy)


def test_a_chat_without_template_or_message_is_refused(copy):
    with pytest.raises(ValueError, match=r"^the checkpoint has no chat template: neither "):
        Tokenizer.read(copy).render_chat(HI)
    (copy / "chat_template.jinja").write_text("{{ raise_exception('not today') }}")
    with pytest.raises(ValueError, match=r"^the chat template cannot be applied: not today$"):
        Tokenizer.read(copy).render_chat(HI)
    with pytest.raises(ValueError, match="a chat without messages cannot be written"):
        Tokenizer.read(copy).render_chat([])
    (copy / "chat_template.jinja").unlink()
    (copy / "tokenizer_config.json").write_text('{"chat_template": [{"name": "rag", "template": ""}]}')
    with pytest.raises(ValueError, match="of the chat templates rag none is called 'default'"):
        Tokenizer.read(copy).render_chat(HI)


def test_the_port_reads_and_writes_with_its_checkpoint(tmp_path):
    made = port.make(str(BUILT_IN), dtype="float32")
    for each in (made, made.with_parameters({})):
        assert each.tokenize("a<|im_end|>") == [97, 258]
        assert each.render_chat(HI, add_generation_prompt=True).endswith("<|im_start|>assistant\n")
    without = port.make(str(tiny.write(tmp_path / "it", tiny.QWEN2)), dtype="float32")
    with pytest.raises(ValueError, match="no file"):
        without.tokenize("a")


def test_a_port_without_a_folder_offers_neither():
    made = port.make(str(BUILT_IN), dtype="float32")
    bare = port.Port(made.model, made._config, "float32")
    for ask in (lambda: bare.tokenize("a"), lambda: bare.render_chat(HI)):
        with pytest.raises(NotOffered, match="without a checkpoint folder"):
            ask()


def test_importing_the_port_imports_neither_tokenizers_nor_jinja2():
    code = "import sys, qwen_flax.port; print({'tokenizers', 'jinja2', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
