"""What is recorded of a text that the reference writes: what `generate` does, and what its cache held."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from harness.errors import GoldensError  # noqa: E402
from harness.inputs import CaseInputs, Rows, assemble  # noqa: E402
from harness.record import reference  # noqa: E402
from harness.record.decoder import find_decoder  # noqa: E402
from harness.record.discover import discover  # noqa: E402
from harness.record.generation import Writing, capture_steps, refuse_changing_angles, write  # noqa: E402

CHECKPOINTS = Path(__file__).parents[3] / "goldens" / "checkpoints"
NEW = 7


def prompt(padding: str = "left") -> CaseInputs:
    rows = Rows([list(range(40, 55)), [7, 300, 12, 90]], padding, pad_id=256)  # type: ignore[arg-type]
    return assemble("written", "prompt", "", rows, 384)


@pytest.fixture(scope="module", params=["qwen2-tiny", "qwen3-tiny"])
def decoder(request):
    return find_decoder(reference.load(CHECKPOINTS / request.param, "float32"))


def test_the_text_is_the_one_that_generate_writes(decoder):
    """qwen3-tiny has a window of 16, which `generate` by itself keeps no more keys than."""
    ours = write(decoder, prompt(), NEW)
    theirs = decoder.model.generate(
        torch.from_numpy(prompt().token_ids).long(),
        attention_mask=torch.from_numpy(prompt().attention_mask).long(),
        max_new_tokens=NEW,
        do_sample=False,
    )
    np.testing.assert_array_equal(ours.tokens, theirs[:, 15:].numpy())
    assert ours.parts == tuple(range(15, 15 + NEW))
    np.testing.assert_array_equal(ours.inputs.token_ids[:, 15:], ours.tokens[:, :-1])
    assert (ours.inputs.attention_mask[:, 15:] == 1).all()
    np.testing.assert_array_equal(np.diff(ours.inputs.positions[:, 14:], axis=1), np.ones((2, NEW - 1)))


def test_a_text_ends_at_the_token_that_ends_it(decoder):
    settings = decoder.model.generation_config
    before, settings.eos_token_id = settings.eos_token_id, None
    free = write(decoder, prompt(), NEW)
    end = int(free.tokens[1, 2])
    settings.eos_token_id = [end]
    try:
        written = write(decoder, prompt(), NEW)
    finally:
        settings.eos_token_id = before
    for row, text in enumerate(free.tokens):
        found = np.flatnonzero(text == end)
        assert written.lengths[row] == (found[0] + 1 if found.size else NEW)
        assert written.stop[row] == (end if found.size else -1)


def test_steps_are_those_asked_for_and_where_two_tokens_were_nearest(decoder):
    written = write(decoder, prompt(), NEW)
    steps = written.steps((1, -1, 99))
    assert {15, 15 + NEW - 2} <= set(steps)
    nearest = 1 + int(np.argmin(written.gaps[1:]))
    assert 14 + nearest in steps
    assert steps == sorted(steps)


def test_a_step_that_is_run_again_holds_what_a_whole_pass_holds(decoder):
    """Cached or not, a step computes the same numbers, but for rounding; and the cache holds keys and values."""
    components = discover(decoder)
    written = write(decoder, prompt(), NEW)
    positions = written.steps((1, -1))
    seen = capture_steps(decoder, components, written, positions)
    with torch.inference_mode():
        whole = decoder.model(
            input_ids=torch.from_numpy(written.inputs.token_ids).long(),
            attention_mask=torch.from_numpy(written.inputs.attention_mask).long(),
            position_ids=torch.from_numpy(written.inputs.positions).long(),
        )
    np.testing.assert_allclose(
        seen["lm_head", "generated"].numpy(), whole.logits[:, written.generated].numpy(), rtol=2e-3, atol=2e-3
    )
    for n, (keys, values) in enumerate(zip(written.keys, written.values, strict=True)):
        assert torch.equal(seen[f"layers.{n}.self_attn.k_rope", "query_index"], keys)
        held = seen[f"layers.{n}.self_attn.v_proj", "query_index"]
        assert torch.equal(held, values.transpose(1, 2).flatten(2))
        rows = seen[f"layers.{n}.self_attn.k_rope", "kept"]
        assert torch.equal(rows, keys[:, :, positions])
    probs = seen["layers.0.self_attn.probs", "kept"]
    for row, position in enumerate(positions):
        assert (probs[:, :, row, position + 1 :] == 0).all()
        torch.testing.assert_close(probs[:, :, row].sum(-1), torch.ones(probs.shape[:2]))


def test_a_step_that_is_not_what_was_run_is_refused(decoder):
    written = write(decoder, prompt(), NEW)
    with torch.inference_mode():
        written.values[0][:, :, 3] += 1
    with pytest.raises(GoldensError, match="run again gives other logits"):
        capture_steps(decoder, discover(decoder), written, written.steps((1,)))


def test_padding_on_the_right_is_nothing_to_write_from(decoder):
    with pytest.raises(GoldensError, match="pad its texts on the left"):
        write(decoder, prompt("right"), NEW)


def test_a_text_that_ends_at_once_is_refused(decoder):
    settings = decoder.model.generation_config
    before = settings.eos_token_id
    settings.eos_token_id = [int(token) for token in write(decoder, prompt(), NEW).tokens[:, 0]]
    try:
        with pytest.raises(GoldensError, match="ends the text at once"):
            write(decoder, prompt(), NEW)
    finally:
        settings.eos_token_id = before


def test_angles_that_change_from_step_to_step_are_refused():
    components = discover(find_decoder(reference.load(CHECKPOINTS / "qwen2-dynamic", "float32")))
    with pytest.raises(GoldensError, match=r"reaches position \d+, and beyond 8 dynamic RoPE"):
        refuse_changing_angles(components, Writing(prompt(), NEW, (1,)))
    short = assemble("written", "prompt", "", Rows([[5, 6]]), 272)
    refuse_changing_angles(components, Writing(short, 4, (1,)))
