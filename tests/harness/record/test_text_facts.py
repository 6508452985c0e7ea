"""Facts of texts and chats: they are the reference's, a right port has them all, and mistakes are told by them."""

import json
import shutil
from pathlib import Path

import msgspec
import pytest

from harness.audit.catalogue import chat_template, tokenizer
from harness.audit.fault import DoesNotApply
from harness.facts.chat_template import CHAT_TEMPLATE
from harness.facts.family import Context
from harness.facts.tokenizer import TOKENIZER
from harness.model import Fact, Verdict
from harness.prompts import Message, Prompt
from harness.texts import load_chats, load_texts
from qwen_flax.tokenizer import Tokenizer

transformers = pytest.importorskip("transformers")

from harness.record.facts.texts import text_facts  # noqa: E402

ROOT = Path(__file__).parents[3]
BUILT_IN = ROOT / "goldens" / "checkpoints"
RICH = (ROOT / "goldens" / "checkpoints" / "chat_template.jinja").read_text(encoding="utf-8")
KIND = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nBe kind.<|im_end|>\n' }}{% endif %}" + RICH
)
FAMILIES = {"tokenizer": TOKENIZER, "chat_template": CHAT_TEMPLATE}
FAULTS = (*tokenizer.FAULTS, *chat_template.FAULTS)


class Port:
    """The right port, whose methods can be replaced."""

    def __init__(self, folder):
        made = Tokenizer.read(folder)
        self.tokenize, self.render_chat = made.encode, made.render_chat


def failures(facts, port):
    """What is found of the facts that do not pass, by case."""
    found = {}
    for fact in facts:
        family = FAMILIES[fact.family]
        judged = family.judge(fact, family.ask(port, fact), Context("float32", None))
        if judged.verdict is not Verdict.PASS:
            found[fact.family, fact.case] = judged
    return found


def copied(folder, template=None, name="qwen3-tiny", leave=("model.safetensors",)):
    shutil.copytree(BUILT_IN / name, folder, ignore=shutil.ignore_patterns(*leave))
    if template is not None:
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def kind(tmp_path_factory):
    """A checkpoint whose template has tools, thinking and a system prompt of its own; its facts; the right port."""
    folder = copied(tmp_path_factory.mktemp("facts") / "it", KIND)
    return text_facts(folder, ()), Port(folder)


def of(facts, family):
    return {fact.case: fact for fact in facts if fact.family == family}


@pytest.mark.parametrize("name", ["qwen2-tiny", "qwen3-tiny", "qwen2-deep"])
def test_facts_are_the_references_and_a_right_port_has_them(name):
    facts = text_facts(BUILT_IN / name, ())
    reference = transformers.AutoTokenizer.from_pretrained(BUILT_IN / name)
    for fact in of(facts, "tokenizer").values():
        assert fact.expected["ids"] == reference(fact.given["text"])["input_ids"]
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    texts, chats = load_texts(special), load_chats(special)
    assert of(facts, "tokenizer").keys() == texts.keys() | chats.keys()
    assert list(of(facts, "chat_template")) == list(chats)
    for case, fact in of(facts, "chat_template").items():
        options = {"tokenize": False, **chats[case]["options"]}
        assert fact.expected["text"] == reference.apply_chat_template(chats[case]["messages"], **options)
        assert fact.expected["text"] == of(facts, "tokenizer")[case].given["text"]
    assert not failures(facts, Port(BUILT_IN / name))
    assert {(fact.component, fact.family) for fact in facts} == {(name, name) for name in FAMILIES}


def test_what_the_prompts_of_a_suite_say_is_among_them():
    prompts = [
        Prompt("snow", text="Schnee"),
        Prompt("long", text="ab", tokens=99),
        Prompt("pair", texts=("one", "two"), padding="left"),
        Prompt("talk", chat=(Message("user", "Hi"),)),
        Prompt("ids", token_ids=(1, 2)),
        Prompt("probe", probe="tiny-norm", tokens=3),
    ]
    facts = text_facts(BUILT_IN / "qwen2-tiny", iter(prompts))
    texts = of(facts, "tokenizer")
    given = {case: texts[case].given["text"] for case in ("snow", "long", "pair-1", "pair-2", "talk")}
    talk = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    assert given == {"snow": "Schnee", "long": "ab", "pair-1": "one", "pair-2": "two", "talk": talk}
    assert not {"ids", "probe", "pair"} & texts.keys()
    assert of(facts, "chat_template")["talk"].expected["text"] == talk


def test_facts_survive_a_golden_file_which_sorts_the_keys_of_objects(kind):
    facts, port = kind
    encoded = msgspec.json.encode(facts, order="deterministic")
    decoded = msgspec.json.decode(encoded, type=list[Fact])
    assert decoded == facts
    assert not failures(decoded, port)
    asked = json.loads(of(decoded, "chat_template")["chat-tools"].given["chat"])
    assert list(asked["options"]["tools"][0]) == ["type", "function"]


def test_without_tokenizer_or_template_there_are_no_facts_of_it(tmp_path):
    assert text_facts(copied(tmp_path / "a", leave=("tokenizer*", "*.safetensors")), ()) == []
    bare = copied(tmp_path / "b", leave=("tokenizer_config.json", "chat_template*", "*.safetensors"))
    assert {fact.family for fact in text_facts(bare, ())} == {"tokenizer"}


def test_a_chat_that_is_refused_or_depends_on_the_day_is_left_out(tmp_path):
    refusing = "{% if tools %}{{ raise_exception('no tools') }}{% endif %}ok"
    chats = of(text_facts(copied(tmp_path / "a", refusing), ()), "chat_template")
    assert len(chats) > 9
    assert not [case for case in chats if case.startswith("chat-tool")]
    dated = "{% if messages|length > 1 %}{{ strftime_now('%Y') }}{% endif %}ok"
    chats = of(text_facts(copied(tmp_path / "b", dated), ()), "chat_template")
    assert "chat-user" in chats
    assert "chat-turns" not in chats


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_fault_is_seen_and_named_where_it_is_first_seen(kind, fault):
    facts, right = kind
    port = Port.__new__(Port)
    vars(port).update(vars(right))
    method = fault.planting
    setattr(port, method.name, method.change(getattr(right, method.name)))
    found = failures(facts, port)
    assert {family for family, _ in found} == set(method.at)
    first = next(iter(found.values()))
    assert bool(set(first.hypotheses) & fault.named_by) == bool(fault.named_by)
    assert len(first.hypotheses) <= 2


def test_a_fault_is_not_planted_where_there_is_nothing_that_it_changes(tmp_path):
    plain = "{% for message in messages %}{{ message.role + '\\n' + message.content }}{% endfor %}"
    port = Port(copied(tmp_path / "it", plain, "qwen2-tiny"))
    for fault in FAULTS:
        if fault.name in (
            "text-in-nfc",
            "tools-ignored",
            "thinking-off-by-default",
            "default-system-prompt-missing",
        ):
            with pytest.raises(DoesNotApply):
                fault.planting.change(getattr(port, fault.planting.name))


def test_special_tokens_read_as_text_are_not_called_added_tokens_as_well(kind):
    mistaken = of(kind[0], "tokenizer")["text-special"].expected["mistaken"]
    assert ["special_tokens_as_text"] in [each["names"] for each in mistaken]


OTHER_JINJA = {
    "blocks_not_trimmed": "chat-user",
    "jinja_tojson": "chat-tools",
    "json_compact": "chat-tools",
    "json_as_python": "chat-tools",
    "default_system_prompt_emptied": "chat-user",
    "thinking_dropped": "chat-thought-before",
    "reasoning_ignored": "chat-reasoning",
}


@pytest.mark.parametrize("name", sorted(OTHER_JINJA.keys() - {"thinking_dropped"}))
def test_what_another_jinja_writes_is_known(kind, name):
    facts, _ = kind
    mistaken = of(facts, "chat_template")[OTHER_JINJA[name]].expected["mistaken"]
    assert name in {each for entry in mistaken for each in entry["names"]}


def test_words_that_are_merged_otherwise_are_known(tmp_path):
    """A tokenizer with merges over spaces and digits, which a port loses with the pattern that splits words."""
    folder = copied(tmp_path / "it")
    written = json.loads((folder / "tokenizer.json").read_text())
    vocab = written["model"]["vocab"]
    space = next(text for text, byte in vocab.items() if byte == 32)
    pairs = [("1", "2"), (space, space), ("a", space)]
    written["model"]["merges"] = [" ".join(pair) for pair in pairs]
    written["model"]["vocab"] = vocab | {"".join(pair): 300 + n for n, pair in enumerate(pairs)}
    pattern = {
        "type": "Split",
        "pattern": {"Regex": r"\p{L}+|\p{N}| |\s+"},
        "behavior": "Isolated",
        "invert": False,
    }
    written["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [pattern, written["pre_tokenizer"]]}
    written["normalizer"] = {"type": "NFC"}
    (folder / "tokenizer.json").write_text(json.dumps(written))
    facts = of(text_facts(folder, ()), "tokenizer").values()
    names = {name for fact in facts for each in fact.expected["mistaken"] for name in each["names"]}
    assert {"digits_grouped", "split_as_gpt2", "not_split", "not_normalised"} <= names
