"""`parameters` and `with_parameters`: what there is, and whether the model runs with it."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from harness.errors import told
from harness.model import LOGITS
from harness.portcheck.asked import Asked, Broken
from harness.portcheck.trouble import Trouble
from harness.portcheck.whole import Whole
from harness.replay.port import NotOffered, Port, Weighted, no_mapping, wired
from harness.report.wording import some_of

Array = Any


def parameters(asked: Asked, whole: Whole) -> Iterator[Trouble]:
    """No number of the checkpoint is looked at: its names and shapes are what an adapter has to hand out."""
    port = asked.port
    if not isinstance(port, Weighted):
        return
    try:
        with asked.watched("its parameters"):
            found: Any = port.parameters()
            own = {} if not isinstance(found, Mapping) else {name: np.asarray(x) for name, x in found.items()}
    except NotOffered:
        return
    except Exception as error:
        yield Trouble("parameters", f"`parameters` raised {told(error)}", "hand out {name: array}")
        return
    if not isinstance(found, Mapping):
        what = no_mapping(found).replace("the port", "`parameters`", 1)
        yield Trouble("parameters", what, "hand out {name: array}")
        return
    yield from _of_the_checkpoint(asked, own)
    if LOGITS not in whole.handed_out:
        return  # nothing tells whether the model runs with them
    try:
        yield from _replaced(asked, whole, port, own)
    except Broken as broken:
        yield Trouble(
            "with_parameters", f"with replaced parameters, {broken.trouble.what}", "give a whole port"
        )


def _of_the_checkpoint(asked: Asked, own: Mapping[str, Array]) -> Iterator[Trouble]:
    recorded = {parameter.name: parameter for parameter in asked.file.contents.parameters}
    tied = _tied(asked)
    lacking = [name for name in recorded if name not in own and name not in tied]
    surplus = [str(name) for name in own if name not in recorded and name not in tied]
    if lacking:
        what = f"`parameters` lacks {some_of(lacking)}, which the checkpoint has"
        yield Trouble("parameters", what, "add what the table does not name")
    if surplus:
        what = f"`parameters` has {some_of(surplus)}, which the checkpoint has not"
        yield Trouble("parameters", what, "name parameters as the checkpoint does, each once")
    misshapen = [
        f"{name} of shape {value.shape}, where the checkpoint has {tuple(recorded[name].shape)}"
        for name, value in own.items()
        if name in recorded and value.shape != tuple(recorded[name].shape)
    ]
    if misshapen:
        more = f" (and {len(misshapen) - 1} more of other shapes)" if len(misshapen) > 1 else ""
        yield Trouble("parameters", f"`parameters` has {misshapen[0]}{more}", "declare its layout")


def _replaced(asked: Asked, whole: Whole, port: Weighted, own: Mapping[str, Array]) -> Iterator[Trouble]:
    before = asked.logits(LOGITS)
    same = _logits(asked, port, own)
    if not whole.has_logits(same):
        what = "`with_parameters` of the port's own `parameters` changes the logits"
        yield Trouble("with_parameters", what, "put each one back where, and as, it was read")
    longest = asked.inputs["attention_mask"].sum(axis=1).max()
    if longest > 1:  # with a single token, queries and keys do not matter
        unused = [
            name
            for name in _one_of_each_kind(asked, own)
            if np.array_equal(_logits(asked, port, {name: _changed(own[name])}), before, equal_nan=True)
        ]
        if unused:
            what = f"`with_parameters` of another {some_of(unused)} leaves the logits as they are"
            yield Trouble(
                "with_parameters", what, "run the model with what is replaced, and read what it runs with"
            )
    if not whole.has_logits(asked.logits(LOGITS)):
        what = "`with_parameters` changes the port that it is asked of"
        yield Trouble("with_parameters", what, "give another port, and leave this one as it is")


def _logits(asked: Asked, port: Weighted, overrides: Mapping[str, Array]) -> Array:
    try:
        with asked.watched(f"another {some_of(list(overrides))}"):
            other: Port = wired(port.with_parameters(overrides), asked.file.contents.components)
    except Exception as error:
        what = f"`with_parameters` of {some_of(list(overrides))} raised {told(error)}"
        raise Broken(Trouble("with_parameters", what, "")) from error
    return asked.logits(LOGITS, other)


def _one_of_each_kind(asked: Asked, own: Mapping[str, Array]) -> list[str]:
    """The last layer's: an adapter that only ever replaces the first one is seen, too."""
    recorded, tied = {parameter.name for parameter in asked.file.contents.parameters}, _tied(asked)
    names = [name for name in own if name in recorded and name not in tied]
    return list({re.sub(r"\.\d+\.", ".{n}.", name): name for name in names}.values())


def _changed(value: Array) -> Array:
    """Another one, also of zeros, and no multiple, which a norm would take back."""
    return (1.5 * value.astype(np.float32) + 0.5).astype(value.dtype)


def _tied(asked: Asked) -> set[str]:
    """Names that are another parameter's in the reference, so that they may be handed out or not."""
    facts = [fact for fact in asked.file.contents.facts if fact.component == "parameters"]
    tied = {name for fact in facts for name in fact.expected["tied"]}
    return tied | ({f"{LOGITS}.weight"} if asked.file.contents.config.get("tie_word_embeddings") else set())
