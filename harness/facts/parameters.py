"""`parameters`: what the port loaded, by the digest of each parameter's numbers, and the list of their names."""

from collections.abc import Mapping
from typing import Any

from harness.errors import told
from harness.facts.family import PASSED, Context, Family, Found, wrong
from harness.facts.fingerprint import fingerprint
from harness.facts.mistake import Mistake
from harness.model import Fact, Verdict
from harness.replay.port import NotOffered, Weighted, no_mapping

Array = Any

_NAMES = "parameters"
_SHOWN = 6


def _ask(port: Any, fact: Fact) -> Any:
    """All that `parameters` gives, since what one parameter holds may be another's."""
    if not isinstance(port, Weighted):
        raise NotOffered("the port does not offer `parameters` and `with_parameters`")
    answer = port.parameters()
    if fact.component != _NAMES and isinstance(answer, Mapping) and _name(fact) not in answer:
        raise NotOffered(f"the port's `parameters` does not give {_name(fact)}")
    return answer


def _judge(fact: Fact, answer: Any, context: Context) -> Found:
    if not isinstance(answer, Mapping):
        return wrong(no_mapping(answer))
    return (_judge_names if fact.component == _NAMES else _judge_one)(fact, answer, context)


def _name(fact: Fact) -> str:
    return fact.component.removeprefix(f"{_NAMES}.")


def _judge_names(fact: Fact, answer: Mapping[str, Any], context: Context) -> Found:
    """What there is and is not. A tied parameter may be handed out under either name, or under both."""
    names, tied = fact.expected["names"], fact.expected["tied"]
    lacking = [name for name in names if name not in answer]
    surplus = [str(name) for name in answer if name not in names and name not in tied]
    if lacking or surplus:
        found = [
            f"{verb} {len(several)} {what}: {_some(several)}"
            for verb, several, what in (
                ("lacks", lacking, f"of the reference's {len(names)}"),
                ("has", surplus, "that the reference has not"),
            )
            if several
        ]
        why = _why_lacking(lacking, surplus)
        return wrong("; ".join(found), *why.names, text=why.text)
    for name, other in tied.items():
        if name in answer and other in answer:
            found_tied = _judge_tied(name, other, answer)
            if found_tied is not PASSED:
                return found_tied
    return PASSED


def _why_lacking(lacking: list[str], surplus: list[str]) -> Mistake:
    if lacking == ["lm_head.weight"]:
        text = "tied wrongly: the embedding is the head, and the reference has a parameter of its own"
        return Mistake(("parameters_of_another_component",), text)
    if lacking and all(name.endswith(".bias") for name in lacking):
        return Mistake(("bias_missing",), "biases are not loaded")
    if surplus and not lacking and all(name.endswith(".bias") for name in surplus):
        return Mistake(("bias_added",), "biases that the reference has not")
    return Mistake((), "")


def _judge_tied(name: str, other: str, answer: Mapping[str, Any]) -> Found:
    """name, other: what is one parameter in the reference."""
    import numpy as np

    from harness.facts.fingerprint import same

    try:
        ours, theirs = np.asarray(answer[name]), np.asarray(answer[other])
    except Exception as error:  # whatever a port's arrays raise when they are read
        return wrong(f"{name} cannot be read: the port raised {told(error)}")
    if same(ours, theirs):
        return PASSED
    reason = f"{name} is not {other}, and in the reference they are one"
    if ours.dtype != object and not ours.any():
        return wrong(
            reason, "weight_zero", text="tie_word_embeddings ignored: it is zero, and was never loaded"
        )
    return wrong(reason, "tie_ignored", text="tie_word_embeddings ignored: it has a parameter of its own")


def _judge_one(fact: Fact, answer: Mapping[str, Any], context: Context) -> Found:
    import numpy as np

    try:
        ours = np.asarray(answer[_name(fact)])
    except Exception as error:  # JAX computes when the array is asked for, and then finds what it cannot
        return wrong(f"it cannot be read: the port raised {told(error)}")
    expected = fact.expected["sha256"].get(context.dtype)
    if expected is None:
        return Found(Verdict.UNMEASURED, f"the golden file has no fingerprint of it in {context.dtype}")
    if ours.dtype.name not in _holding(context.dtype):
        return wrong(f"is {_kind(ours)}, where the port was made in {context.dtype}")
    digest = fingerprint(ours, context.dtype)
    if digest == expected and list(ours.shape) == fact.expected["shape"]:
        return PASSED
    return _looked_at(fact, answer, ours, digest, context)


def _holding(dtype: str) -> tuple[str, ...]:
    """The dtypes that parameters may be kept in, to be rounded to `dtype` where they are used."""
    return (dtype, "float32", "float64")


def _kind(ours: Array) -> str:
    return "no array of numbers" if ours.dtype == object else f"an array of {ours.dtype.name}"


def _looked_at(fact: Fact, answer: Mapping[str, Any], ours: Array, digest: str, context: Context) -> Found:
    """A parameter that is wrong: what it is instead."""
    from harness.facts.compared import Compared
    from harness.facts.likeness import compare

    name = _name(fact)
    others = _fingerprints(context)
    twins = [
        other for other, hashes in others.items() if hashes.get(context.dtype) == digest and other != name
    ]
    if twins and list(ours.shape) == fact.expected["shape"]:
        return _of_another(name, twins)
    if context.weights is None or name not in context.weights:
        shape = fact.expected["shape"]
        if list(ours.shape) != shape:
            return wrong(f"has shape {list(ours.shape)}, where the reference has {shape}")
        return wrong(
            f"hashes to {digest[:12]}, where the reference's hashes to "
            f"{fact.expected['sha256'][context.dtype][:12]}; the checkpoint is not here to be looked into"
        )
    return compare(Compared.of(name, ours, context.weights, context.dtype, answer, _head_dim(context)))


def _of_another(name: str, twins: list[str]) -> Found:
    """twins: the parameters whose numbers these are. Those of another layer first, as the likeliest."""
    from harness.facts.layer import is_same_in_another_layer

    in_layers = [twin for twin in twins if is_same_in_another_layer(name, twin)]
    twin = (in_layers or twins)[0]
    reason = f"holds the numbers of {twin}"
    if in_layers:
        return wrong(reason, "parameters_of_another_layer", text=f"parameters of another layer: {twin}")
    if name == "lm_head.weight" and "embed_tokens" in twin:
        text = "tied wrongly: it is the embedding, and the reference has a parameter of its own"
        return wrong(reason, "parameters_of_another_component", text=text)
    return wrong(reason, "parameters_of_another_component", text=f"another parameter's numbers: {twin}")


def _facts(context: Context, family: str) -> list[Fact]:
    if context.session is None:
        return []
    return [fact for fact in context.session.file.contents.facts if fact.family == family]


def _fingerprints(context: Context) -> dict[str, Mapping[str, str]]:
    """Of every parameter that was recorded."""
    return {
        _name(fact): fact.expected["sha256"] for fact in _facts(context, _NAMES) if fact.component != _NAMES
    }


def _head_dim(context: Context) -> int | None:
    facts = (fact for fact in _facts(context, "config") if fact.component == "config.head_dim")
    return next((int(fact.expected) for fact in facts), None)


def _some(names: list[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")


PARAMETERS = Family("parameters", _ask, _judge, every_dtype=True)
