import logging
import re
from collections import Counter

import jax
import numpy as np
import pytest

from qwen_flax import cache as caches
from qwen_flax import checkpoint, config
from qwen_flax.generate import generate
from qwen_flax.port import Port
from tests.qwen_flax import tiny

NEW = 9


@pytest.fixture
def loaded(folder):
    settings = config.read(folder)
    return checkpoint.load(folder, settings, dtype="float32"), settings


def prompts():
    case = tiny.padded_batch()
    return case["token_ids"], case["attention_mask"]


def without_cache(model, settings, token_ids, mask):
    """The logits (T V) of one unpadded text, by one pass over all of it."""
    ids = token_ids[mask != 0][None]
    n = np.arange(ids.shape[1], dtype=np.int32)
    case = {"token_ids": ids, "attention_mask": np.ones_like(ids), "positions": n[None], "query_index": n}
    return np.asarray(Port(model, settings, "float32").trace(case, ["lm_head"])["lm_head"])[0]


@pytest.mark.parametrize("fill", [0.0, np.nan, np.inf])
def test_each_step_is_what_one_pass_over_the_text_gives(loaded, fill):
    """The prompts are longer than the window and of unequal length, and every step moves its edge."""
    model, settings = loaded
    ids, mask = prompts()
    made = generate(
        model, settings, ids, mask, max_new_tokens=NEW, eos_token_ids=(), keep_logits=True, cache_fill=fill
    )
    for row in range(2):
        text = np.concatenate([ids[row], made.tokens[row]])
        whole = without_cache(model, settings, text, np.concatenate([mask[row], np.ones(NEW, np.int32)]))[
            -NEW - 1 : -1
        ]
        np.testing.assert_allclose(made.logits[row], whole, atol=1e-4 * np.abs(whole).max())
        np.testing.assert_array_equal(made.tokens[row], whole.argmax(-1))


def test_what_is_written_is_what_the_reference_writes(folder, loaded):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    reference = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids, mask = prompts()
    reference.generation_config.eos_token_id = None
    with torch.no_grad():
        theirs = reference.generate(
            torch.tensor(ids), attention_mask=torch.tensor(mask), do_sample=False, max_new_tokens=NEW
        )[:, ids.shape[1] :]
    ours = generate(*loaded, ids, mask, max_new_tokens=NEW, eos_token_ids=()).tokens
    np.testing.assert_array_equal(ours, theirs.numpy())


def test_a_text_ends_at_any_of_the_ids_that_end_it(loaded):
    model, settings = loaded
    ids, mask = prompts()
    free = generate(model, settings, ids, mask, max_new_tokens=NEW, eos_token_ids=()).tokens
    ends = (int(free[0, 2]), int(free[1, 5]))
    first = [min(np.flatnonzero(np.isin(row, ends))) for row in free]
    made = generate(model, settings, ids, mask, max_new_tokens=NEW, eos_token_ids=ends)
    np.testing.assert_array_equal(made.lengths, [n + 1 for n in first])
    assert made.tokens.shape == (2, max(made.lengths))
    for row, n in enumerate(made.lengths):
        np.testing.assert_array_equal(made.tokens[row, :n], free[row, :n])
        assert (made.tokens[row, n:] == made.tokens[row, n - 1]).all()
    assert made.logits is None


def test_the_checkpoint_s_own_ids_end_a_text_by_default(loaded):
    model, settings = loaded
    ids, mask = prompts()
    free = generate(model, settings, ids, mask, max_new_tokens=NEW, eos_token_ids=())
    ends = (int(free.tokens[0, 0]), int(free.tokens[1, 0]))
    changed = config.Config(**{**vars(settings), "eos_token_ids": ends})
    assert (generate(model, changed, ids, mask, max_new_tokens=NEW).lengths == 1).all()


def test_layers_that_are_alike_compile_once_for_a_prompt_and_all_together_for_a_token(tmp_path, caplog):
    settings = config.read(tiny.write(tmp_path, tiny.QWEN2))
    model = checkpoint.load(tmp_path, settings, dtype="float32")
    ids = np.arange(3 * 5, dtype=np.int32).reshape(
        3, 5
    )  # a batch of three: no other test has compiled for it
    with jax.log_compiles(), caplog.at_level(logging.WARNING):
        generate(model, settings, ids, np.ones_like(ids), max_new_tokens=NEW, eos_token_ids=())
        generate(model, settings, ids[:, 1:], np.ones_like(ids[:, 1:]), max_new_tokens=NEW, eos_token_ids=())
    compiled = Counter(re.findall(r"Compiling jit\(([\w.]+)\)", caplog.text))
    assert compiled["DecoderLayer.__call__"] == 2 * 2, (
        "two prompt lengths; one layer has no window, two have one"
    )
    assert compiled["_step"] == 1, "one token, after either"


def test_slots_that_are_not_written_read_as_zeros():
    cache = caches.init(config.parse(tiny.QWEN2), batch=1, capacity=6, dtype="float32", fill=np.nan)[0]
    k, v = np.ones((1, 2, 2, 8), np.float32), np.ones((1, 2, 16), np.float32)
    index = np.array([0, 1])
    k_read, v_read = cache.write(k, v, index).read(index)
    np.testing.assert_array_equal(k_read, np.pad(k, ((0, 0), (0, 0), (0, 4), (0, 0))))
    np.testing.assert_array_equal(v_read, np.pad(v, ((0, 0), (0, 4), (0, 0))))


@pytest.mark.parametrize(
    ("ids", "mask", "new", "message"),
    [
        (np.ones((1, 3)), np.ones((1, 2)), 1, "must both be"),
        (np.ones(3), np.ones(3), 1, "must both be"),
        (np.ones((1, 3)), np.array([[1, 1, 0]]), 1, "0 on the left"),
        (np.ones((1, 3)), np.array([[1, 0, 1]]), 1, "0 on the left"),
        (np.ones((1, 3)), np.zeros((1, 3)), 1, "0 on the left"),
        (np.ones((1, 0)), np.ones((1, 0)), 1, "0 on the left"),
        (np.ones((1, 3)), np.ones((1, 3)), 0, "max_new_tokens is 0"),
    ],
)
def test_prompts_that_do_not_fit_are_refused(loaded, ids, mask, new, message):
    with pytest.raises(ValueError, match=message):
        generate(*loaded, ids, mask, max_new_tokens=new)
