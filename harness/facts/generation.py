"""`generation`: the text that the reference wrote, token by token, and what ended it.

Where the port's text parts from it, the reference's logits at that step decide: a token that was ahead by less than
rounding explains is a near tie, which another honest order of evaluation may decide the other way. What follows a near
tie is another text, and says nothing more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from harness.facts.family import PASSED, Context, Family, Found, wrong
from harness.model import LOGITS, Fact, Golden, Mode, Verdict
from harness.replay.port import Generating, NotOffered


def _ask(port: Any, fact: Fact) -> Any:
    import numpy as np

    if not isinstance(port, Generating):
        raise NotOffered("the port does not offer `generate`")
    ids, mask = (np.array(fact.given[name], np.int32) for name in ("token_ids", "attention_mask"))
    return port.generate(ids, mask, fact.given["max_new_tokens"])


_EXCHANGED = "texts of a batch are exchanged"


@dataclass(frozen=True)
class _Text:
    """One text of the batch as it was written: its own tokens, and the one that ended it, or -1."""

    tokens: list[int]
    stop: int


def _judge(fact: Fact, answer: Any, context: Context) -> Found:
    expected = [_Text(*text) for text in zip(fact.expected["tokens"], fact.expected["stop"], strict=True)]
    texts = _texts(answer, len(expected))
    if isinstance(texts, str):
        return wrong(texts)
    notes = []
    if len(texts) > 1 and texts != expected and texts == expected[::-1]:
        return wrong("the texts of the batch are in reverse order", "texts_exchanged", text=_EXCHANGED)
    for number, (ours, theirs) in enumerate(zip(texts, expected, strict=True)):
        found = _compare(_Place(fact, context, number), ours, theirs)
        if found.verdict is Verdict.FAIL:
            return found
        notes += [found.reason] if found.reason else []
    return Found(Verdict.PASS, "; ".join(notes))


def _texts(answer: Any, count: int) -> list[_Text] | str:
    """The port's texts, or why they are none."""
    import numpy as np

    if not isinstance(answer, Mapping) or not {"tokens", "lengths", "stop"} <= answer.keys():
        return "the port's `generate` gave no mapping with tokens, lengths and stop"
    tokens, lengths, stop = (np.asarray(answer[name]) for name in ("tokens", "lengths", "stop"))
    if tokens.ndim != 2 or len(tokens) != count or lengths.shape != (count,) or stop.shape != (count,):
        return (
            f"the port's `generate` gave tokens {list(tokens.shape)}, lengths {list(lengths.shape)} and stop "
            f"{list(stop.shape)}, where [{count}, N], [{count}] and [{count}] were expected"
        )
    return [
        _Text(row[: int(length)].tolist(), int(end))
        for row, length, end in zip(tokens, lengths, stop, strict=True)
    ]


@dataclass(frozen=True)
class _Place:
    """One text of a fact's batch."""

    fact: Fact
    context: Context
    number: int

    @property
    def told(self) -> str:
        return f"text {self.number}"

    @property
    def prompt(self) -> list[int]:
        """Its tokens, without padding."""
        row = (self.fact.given[name][self.number] for name in ("token_ids", "attention_mask"))
        return [token for token, real in zip(*row, strict=True) if real]


def _compare(place: _Place, ours: _Text, theirs: _Text) -> Found:
    shared = min(len(ours.tokens), len(theirs.tokens))
    parting = next((step for step in range(shared) if ours.tokens[step] != theirs.tokens[step]), None)
    if theirs.tokens[1:] == ours.tokens:
        text = "the first new token is left out"
        return wrong(
            f"{place.told} begins with the second token of the reference", "first_token_missing", text=text
        )
    if parting is not None:
        return _parted(place, parting, ours.tokens[parting], theirs.tokens[: parting + 1])
    if len(ours.tokens) > shared:
        name, text = ("eos_ignored", f"token {theirs.stop} ends a text, and the port does not stop at it")
        if theirs.stop == -1:
            name, text = "limit_too_large", "more new tokens are written than were asked for"
        return wrong(
            f"{place.told} goes on after step {shared}, where the reference ended it", name, text=text
        )
    if len(ours.tokens) < len(theirs.tokens):
        name, text = ("stopped_early", "a token ends the text that does not end one in the reference")
        if ours.stop == theirs.stop and ours.tokens == theirs.tokens[:-1]:
            name, text = "eos_left_out", "the token that ends a text is not counted to it"
        if ours.stop == -1:
            name, text = "limit_too_small", "fewer new tokens are written than were asked for"
        reason = (
            f"{place.told} ends after {len(ours.tokens)} tokens, the reference's after {len(theirs.tokens)}"
        )
        return wrong(reason, name, text=text)
    if ours.stop != theirs.stop:
        return wrong(
            f"{place.told} was ended by {_end(ours.stop)}, the reference's by {_end(theirs.stop)}",
            "stop_reason_wrong",
            text="the reason that a text ended for is told wrongly",
        )
    return PASSED


def _end(token: int) -> str:
    return "the limit" if token == -1 else f"token {token}"


def _parted(place: _Place, step: int, ours: int, until: Sequence[int]) -> Found:
    """What it means that the port chose another token at a step. until: the reference's tokens, its own last."""
    what = f"{place.told} parts at step {step}: token {ours}, where the reference has {until[-1]}"
    if step == 0 and ours == place.prompt[0]:
        return wrong(what, "prompt_repeated", text="the prompt is handed out in front of what was written")
    golden = _logits(place)
    if golden is None:
        return wrong(f"{what}; the golden file has no logits to tell a near tie by")
    raw = place.context.session.file.output(golden)[place.number, step].astype(float)
    penalty = place.fact.given.get("repetition_penalty") or 1.0
    scores = _penalised(raw, [*place.prompt, *until[:-1]], penalty)
    gap, explained = float(scores[until[-1]] - scores[ours]), _explained(golden, raw)
    drift = _drift(place)
    if gap <= explained:
        return Found(
            Verdict.PASS, f"{what}: a near tie (gap {gap:.2g}, rounding explains {explained:.2g}){drift}"
        )
    reason = f"{what}: no near tie (gap {gap:.2g}, rounding explains {explained:.2g}){drift}"
    if penalty != 1.0 and ours == int(raw.argmax()):
        text = f"the repetition penalty of {penalty:g} in the generation settings is not applied"
        return wrong(reason, "penalty_ignored", text=text)
    return wrong(reason)


def _logits(place: _Place) -> Golden | None:
    """The golden of the logits that the text's tokens were chosen from."""
    session = place.context.session
    if session is None:
        return None
    found = (
        golden
        for golden in session.file.contents.goldens
        if (golden.component, golden.case, golden.dtype) == (LOGITS, place.fact.case, place.context.dtype)
    )
    return next(found, None)


def _penalised(scores: Any, tokens: Sequence[int], penalty: float) -> Any:
    """Scores of tokens that are there already made less likely (Keskar et al. 2019, "CTRL")."""
    penalised = scores.copy()
    there = sorted(set(tokens))
    penalised[there] = [s / penalty if s > 0 else s * penalty for s in scores[there]]
    return penalised


def _explained(golden: Golden, scores: Any) -> float:
    """How far rounding may move a logit at this step."""
    import numpy as np

    from harness.compare.tolerance import multiple, noise_floor

    floor = noise_floor(golden.end_to_end, golden.dtype, exact=False)
    return multiple(Mode.END_TO_END, 1) * floor.row * float(np.sqrt(np.mean(np.square(scores))))


def _drift(place: _Place) -> str:
    """The first component that is wrong on the way to the logits; where none is, the one nearest to its limit."""
    session = place.context.session
    goldens = [
        golden
        for golden in session.file.contents.goldens
        if (golden.case, golden.dtype) == (place.fact.case, place.context.dtype)
    ]
    order = session.file.order
    results = [session.result(golden, Mode.DECODE) for golden in goldens]
    results = sorted(results, key=lambda result: order.index(result.component))
    first = next((result for result in results if result.verdict is Verdict.FAIL), None)
    if first is not None:
        return f"; first wrong in decode: {first.component}"
    measured = [result for result in results if result.error is not None]
    if not measured:
        return ""
    worst = max(measured, key=lambda result: result.over_limit)
    return f"; most drift at {worst.component}, {worst.over_limit:.2g} of what passes"


GENERATION = Family("generation", _ask, _judge, Mode.DECODE)
