"""Run the reference as generation does: a prompt at once, then token by token through its cache.

`transformers` writes the text itself. What passes by on the way is kept where it costs little: logits, what they are
made of, and the cache. The steps whose components are recorded are then run once more, each on a cache that holds
exactly what it held: there every component is captured and proved, as in a whole pass.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from harness.errors import GoldensError
from harness.inputs import CaseInputs
from harness.kinds.frequencies import depend_on_length
from harness.kinds.step import Evaluation
from harness.kinds.table import STEPS, at_keys
from harness.model import LOGITS, Component
from harness.record.capture import Past, capture
from harness.record.decoder import Decoder
from harness.record.parts import logits_made_by
from harness.record.torch_arrays import TorchArrays
from harness.record.watch import Captured

NEAREST_TIES = 2
"""How many of the steps at which the two likeliest tokens were nearest are recorded beside those asked for: where
texts part, they part there."""


@dataclass(frozen=True)
class Writing:
    """A text to be written: up to `new_tokens` after the prompt. steps: those whose components are all recorded."""

    prompt: CaseInputs
    new_tokens: int
    steps: tuple[int, ...]


def refuse_changing_angles(components: list[Component], writing: Writing) -> None:
    """Raise GoldensError where a key's angle depends on how long the text has become since."""
    last = int(writing.prompt.positions.max()) + writing.new_tokens
    for component in components:
        if depend_on_length(component.settings, last):
            length = component.settings["scaling"]["max_position_embeddings"]
            raise GoldensError(
                f"case {writing.prompt.name} reaches position {last}, and beyond {length} dynamic RoPE changes its "
                "angles from step to step: no whole pass says what is right; write fewer tokens"
            )


@dataclass(frozen=True)
class Written:
    """A text as the reference wrote it, N tokens after T of the prompt.

    inputs: the case: prompt and new tokens but the last, which is read by nobody
    tokens: (B N), filled up with the padding token after a text's end
    lengths: (B) tokens of each text, the one that ended it included; stop: (B) that token, or -1
    logits: (B N V) that tokens were chosen from, before processing; before: (B N C) or (B N V), what they were made of
    keys, values: for each layer (B K T+N-1 D), as the cache held them in the end
    max_new_tokens: the limit on N; repetition_penalty: of the checkpoint's generation settings, 1 for none
    gaps: (N) how far the chosen token was ahead of the next, in the text where it was least
    """

    inputs: CaseInputs
    tokens: np.ndarray
    lengths: np.ndarray
    stop: np.ndarray
    logits: Tensor
    before: Tensor
    keys: list[Tensor]
    values: list[Tensor]
    gaps: np.ndarray
    max_new_tokens: int
    repetition_penalty: float

    @property
    def prompt_tokens(self) -> int:
        return self.inputs.token_ids.shape[1] - self.tokens.shape[1] + 1

    @property
    def parts(self) -> tuple[int, ...]:
        return tuple(range(self.prompt_tokens, self.inputs.token_ids.shape[1] + 1))

    @property
    def generated(self) -> list[int]:
        """The token positions whose logits chose the new tokens."""
        return [read - 1 for read in self.parts]

    def steps(self, asked: tuple[int, ...]) -> list[int]:
        """Token positions of the steps to record: those asked for, and where two tokens were nearest.

        asked: 1 is the first after the prompt was read, -1 the last
        """
        last = self.tokens.shape[1] - 1
        wanted = {step if step > 0 else last + 1 + step for step in asked}
        near = [int(step) for step in np.argsort(self.gaps, kind="stable") if step > 0][:NEAREST_TIES]
        inside = sorted(step for step in {*wanted, *near} if 1 <= step <= last)
        return [self.prompt_tokens - 1 + step for step in inside]


@torch.inference_mode()
def write(decoder: Decoder, prompt: CaseInputs, new_tokens: int) -> Written:
    """Let the reference write greedily, logits processed as the checkpoint's generation settings say."""
    model = decoder.model
    mask = prompt.attention_mask
    if not mask[:, -1].all() or (np.diff(mask, axis=1) < 0).any():
        raise GoldensError(f"case {prompt.name} is generated from: pad its texts on the left")
    cache, before, settings = DynamicCache(), [], model.generation_config
    made_of = model.lm_head if logits_made_by(decoder) else decoder.base.norm
    handle = made_of.register_forward_hook(lambda _, __, output: before.append(output[:, -1:]))
    try:
        out = model.generate(
            torch.from_numpy(prompt.token_ids).long(),
            attention_mask=torch.from_numpy(mask).long(),
            past_key_values=cache,
            max_new_tokens=new_tokens,
            do_sample=False,
            num_beams=1,
            output_logits=True,
            output_scores=True,
            return_dict_in_generate=True,
        )
    finally:
        handle.remove()
    tokens = out.sequences[:, mask.shape[1] :].numpy().astype(np.int32)
    if tokens.shape[1] < 2:
        raise GoldensError(
            f"case {prompt.name}: the reference ends the text at once, so nothing is read through its cache: "
            "write from another prompt"
        )
    lengths, stop = _ends(tokens, settings.eos_token_id)
    best = torch.stack(out.scores).float().topk(2, dim=-1).values
    gaps = (best[..., 0] - best[..., 1]).numpy()
    gaps = np.where(np.arange(len(gaps))[:, None] < lengths, gaps, np.inf).min(axis=1)
    return Written(
        inputs=_read(prompt, tokens[:, :-1]),
        tokens=tokens,
        lengths=lengths,
        stop=stop,
        logits=torch.stack(out.logits, dim=1).to(decoder.dtype),
        before=torch.cat(before, dim=1),
        keys=[layer.keys for layer in cache.layers],
        values=[layer.values for layer in cache.layers],
        gaps=gaps,
        max_new_tokens=new_tokens,
        repetition_penalty=settings.repetition_penalty or 1.0,
    )


def _ends(tokens: np.ndarray, eos: Any) -> tuple[np.ndarray, np.ndarray]:
    """How long each text is, and the token that ended it, or -1."""
    ends = np.isin(tokens, [] if eos is None else np.atleast_1d(eos))
    stopped = ends.any(axis=1)
    lengths = np.where(stopped, ends.argmax(axis=1) + 1, tokens.shape[1])
    stop = np.where(stopped, tokens[np.arange(len(tokens)), lengths - 1], -1)
    return lengths.astype(np.int32), stop.astype(np.int32)


def _read(prompt: CaseInputs, tokens: np.ndarray) -> CaseInputs:
    """The prompt and the tokens that were read after it."""
    count = tokens.shape[1]
    return CaseInputs(
        name=prompt.name,
        origin="generated",
        detail=prompt.detail,
        token_ids=np.concatenate((prompt.token_ids, tokens), axis=1),
        attention_mask=np.pad(prompt.attention_mask, ((0, 0), (0, count)), constant_values=1),
        positions=np.concatenate(
            (prompt.positions, prompt.positions[:, -1:] + 1 + np.arange(count, dtype=np.int32)), axis=1
        ),
    )


Seen = dict[tuple[str, str], Tensor]
"""(component, which token positions) -> what the reference put out there."""


@torch.inference_mode()
def capture_steps(
    decoder: Decoder, components: list[Component], written: Written, positions: list[int]
) -> Seen:
    """What the reference put out at the steps that read `positions` (`kept`).

    Logits and what they are made of are there also for every token that they chose (`generated`), keys and values for
    every token (`query_index`). Raises GoldensError if a step run again gives other logits than it gave.
    """
    held, keys = _held(components, written), at_keys(components)
    steps = [_step(decoder, components, written, held, position) for position in positions]
    seen: Seen = {(name, "query_index"): value for name, value in held.items()}
    for component in components:
        if component.cached:
            continue
        if component.name in keys:
            seen[component.name, "query_index"] = _evaluated(
                component, written.before.dtype, x=held[component.inputs["x"]]
            )
        rows = [_row(step[component.name], component, written.inputs.token_ids.shape[1]) for step in steps]
        seen[component.name, "kept"] = torch.cat(rows, dim=component.axes.split().index("T"))
        if component.step in ("scores", "capped_scores"):
            _complete_scores(component, seen, positions)
    chosen = [position - written.prompt_tokens + 1 for position in positions]
    if not torch.equal(seen[LOGITS, "kept"], written.logits[:, chosen]):
        raise GoldensError(
            f"case {written.inputs.name}: a step that is run again gives other logits than before"
        )
    head = next(component for component in components if component.name == LOGITS)
    seen[LOGITS, "generated"], seen[head.inputs["x"], "generated"] = written.logits, written.before
    return seen


def _held(components: list[Component], written: Written) -> Captured:
    """What the cache held in the end, by the components that were written to it, in their axes."""
    held = {}
    for kind, layers in (("k_cache", written.keys), ("v_cache", written.values)):
        for component in components:
            if component.kind == kind:
                value = layers[int(component.name.split(".")[1])]
                held[component.composite_of or ""] = (
                    value if kind == "k_cache" else value.transpose(1, 2).flatten(2)
                )
    return held


def _step(
    decoder: Decoder, components: list[Component], written: Written, held: Captured, position: int
) -> Captured:
    """Read the token at `position` again, on the cache as it was."""
    cache = DynamicCache()
    for layer, (keys, values) in enumerate(zip(written.keys, written.values, strict=True)):
        cache.update(keys[:, :, :position], values[:, :, :position], layer)
    part, inputs = slice(position, position + 1), written.inputs
    case = {
        "case.token_ids": torch.from_numpy(inputs.token_ids[:, part]).long(),
        "case.attention_mask": torch.from_numpy(inputs.attention_mask[:, : position + 1]).long(),
        "case.positions": torch.from_numpy(inputs.positions[:, part]).long(),
        "case.query_index": torch.tensor([position]),
    }
    axes = {component.name: component.axes.split() for component in components}
    before = {name: value.narrow(axes[name].index("T"), 0, position) for name, value in held.items()}
    return capture(decoder, components, case, Past(cache, before))


def _row(value: Tensor, component: Component, tokens: int) -> Tensor:
    """A step's own token; of keys that were not read yet, zeros."""
    letters = component.axes.split()
    along = letters.index("T")
    own = value.narrow(along, value.shape[along] - 1, 1)
    if "S" not in letters:
        return own
    return torch.nn.functional.pad(own, (0, tokens - own.shape[-1]))  # S is the last of the axes


def _complete_scores(component: Component, seen: Seen, positions: list[int]) -> None:
    """With the scores of keys that a step had not read: no probability reaches them, and a port may compute them."""
    read = seen[component.name, "kept"]
    taken = {"q": "kept", "k": "query_index", "x": "kept"}
    given = {argument: seen[source, taken[argument]] for argument, source in component.inputs.items()}
    every = _evaluated(component, read.dtype, **given)
    was_read = torch.arange(read.shape[-1]) <= torch.tensor(positions)[:, None]
    seen[component.name, "kept"] = torch.where(was_read, read, every)


def _evaluated(component: Component, dtype: torch.dtype, **inputs: Tensor) -> Tensor:
    step = STEPS[component.step or ""]
    return step.evaluate(Evaluation(TorchArrays(dtype), inputs, {}, component.settings))
