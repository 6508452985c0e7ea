"""What a port does that it should not. One that is wrong in itself is a verdict: it fails, with status 1."""

from tests.misuse.misuse import Misuse, Section

_ODD = """
import numpy as np
from tests.fakes import NumpyPort

class Odd(NumpyPort):
{body}

def make(checkpoint, *, dtype):
    return Odd(dtype)
"""
_TRACED = """
import jax
import jax.numpy as jnp
from tests.fakes import NumpyPort

kept = []

class Odd(NumpyPort):
{body}

def make(checkpoint, *, dtype):
    return Odd(dtype)
"""
_WITH = "goldens replay tiny.h5 --port odd:make"
ALONE = f"{_WITH} --mode isolated --include layers.0.q_proj"
WHOLE = f"{_WITH} --mode end-to-end --include layers.0.q_proj"
CHECKED = "goldens check-port tiny.h5 --port odd:make"


def _port(body: str, around: str = _ODD) -> dict[str, str]:
    indented = "\n".join(f"    {line}" for line in body.strip().splitlines())
    return {"odd.py": around.format(body=indented)}


def _apply(answer: str, around: str = _ODD) -> dict[str, str]:
    """right: the right answer."""
    return _port(
        f"def apply(self, name, inputs):\n    right = super().apply(name, inputs)[name]\n    {answer}", around
    )


def _trace(answer: str, around: str = _ODD) -> dict[str, str]:
    """right: the right answers."""
    return _port(
        f"def trace(self, inputs, names):\n    right = super().trace(inputs, names)\n    {answer}", around
    )


def _factory(text: str) -> dict[str, str]:
    return {"odd.py": f"from tests.fakes import NumpyPort\n{text}\n"}


MADE = Section(
    "Ports that cannot be asked",
    "What happens before anything is compared.",
    (
        Misuse(
            "a module that does not compile",
            ALONE,
            "port 'odd:make': importing 'odd' raised SyntaxError: ...",
            files=_factory("def make(:"),
        ),
        Misuse(
            "a module that leaves",
            ALONE,
            "code that is not this program's, the port's perhaps, called sys.exit(0): take the call out; `goldens --debug ...` shows where it is",
            files=_factory("raise SystemExit(0)"),
        ),
        Misuse(
            "a factory that takes no dtype",
            ALONE,
            "port 'odd:make' could not be made: its factory, called as factory(checkpoint, dtype='float32'), raised TypeError: make() got an unexpected keyword argument 'dtype'",
            files=_factory("def make(checkpoint):\n    return NumpyPort()"),
        ),
        Misuse(
            "a factory that refuses",
            ALONE,
            "port 'odd:make' refused checkpoint checkpoint: float64 only",
            files=_factory("def make(checkpoint, *, dtype):\n    raise ValueError('float64 only')"),
        ),
        Misuse(
            "a factory that gives nothing",
            ALONE,
            "port 'odd:make' made a NoneType, which has no method 'trace'",
            files=_factory("def make(checkpoint, *, dtype):\n    pass"),
        ),
        Misuse(
            "a factory that does not come back",
            f"{ALONE} --timeout 1",
            "the port did not come back from its factory (float32) within 1 s: mend what does not end there, or give it longer with --timeout",
            files=_factory("def make(checkpoint, *, dtype):\n    while True:\n        pass"),
            apart=True,
        ),
        Misuse(
            "a component that does not come back",
            f"{ALONE} --timeout 1",
            "the port did not come back from layers.0.q_proj (hello float32 isolated) within 1 s: mend what does not end there, or give it longer with --timeout",
            files=_apply("while True: pass"),
            apart=True,
        ),
        Misuse(
            "a component that does not come back, where the port is held against itself",
            f"{CHECKED} --timeout 1",
            "the port did not come back from layers.0.q_proj (hello float32) within 1 s: mend what does not end there, or give it longer with --timeout",
            files=_apply("while name == 'layers.0.q_proj': pass\n    return {name: right}"),
            apart=True,
        ),
        Misuse(
            "a forward pass that XLA does not end",
            f"{WHOLE} --timeout 12",
            "the port did not come back from a whole run (hello float32 end-to-end) within 12 s: mend what does not end there, or give it longer with --timeout",
            files=_trace(
                "jax.lax.while_loop(lambda x: jnp.sin(x) < 2, lambda x: x + 1, 0.0).block_until_ready(); return right",
                _TRACED,
            ),
            apart=True,
        ),
    ),
)

ASKED = Section(
    "Ports that answer wrongly",
    "Verdicts: the component fails, and the others go on.",
    (
        Misuse(
            "None for an array",
            ALONE,
            "the port gave a NoneType, where an array of numbers was expected",
            files=_apply("return {name: None}"),
            status=1,
        ),
        Misuse(
            "an array for a mapping",
            ALONE,
            "the port gave a ndarray, where a mapping of names to arrays was expected",
            files=_apply("return right"),
            status=1,
        ),
        Misuse(
            "another shape",
            ALONE,
            "shape (2, 2, 4), where the golden has (2, 3, 4)",
            files=_apply("return {name: right[:, :-1]}"),
            status=1,
        ),
        Misuse(
            "another dtype",
            ALONE,
            "the port answered in float64, asked for float32: not compared",
            files=_apply("return {name: right.astype(np.float64)}"),
            status=1,
        ),
        Misuse(
            "rows that are not equally long",
            ALONE,
            "the port raised ValueError: setting an array element with a sequence. ...",
            files=_apply("return {name: [[1.0], [1.0, 2.0]]}"),
            status=1,
        ),
        Misuse(
            "NaN",
            ALONE,
            "20 elements are NaN or infinite in one of port and golden only, first at [0, 1, 0]: port nan, golden 0.42544400691986084",
            files=_apply("return {name: right * np.nan}"),
            status=1,
        ),
        Misuse(
            "an exception",
            ALONE,
            "the port raised RuntimeError: no such head",
            files=_apply("raise RuntimeError('no such head')"),
            status=1,
        ),
        Misuse(
            "an exception without a word",
            ALONE,
            "the port raised AssertionError: AssertionError",
            files=_apply("assert not len(right)"),
            status=1,
        ),
        Misuse(
            "what jit traced, and no array",
            ALONE,
            "the port raised TracerArrayConversionError: ...",
            files=_apply("jax.jit(lambda x: kept.append(x) or x)(right); return {name: kept[-1]}", _TRACED),
            status=1,
        ),
        Misuse(
            "a component that is not offered",
            ALONE,
            "the port does not offer this component",
            files=_apply("from harness.replay.port import NotOffered; raise NotOffered(name)"),
            status=1,
        ),
        Misuse(
            "no `apply`",
            ALONE,
            "the port does not offer `apply`",
            files=_factory(
                "class Odd:\n    def trace(self, inputs, names):\n        return {}\ndef make(checkpoint, *, dtype):\n    return Odd()"
            ),
            status=1,
        ),
        Misuse(
            "a forward pass that raises",
            WHOLE,
            "the port raised KeyError: 'layers.1.q_proj'",
            files=_trace("return right['layers.1.q_proj']"),
            status=1,
        ),
        Misuse(
            "a forward pass of the last token only",
            WHOLE,
            "shape (2, 1, 4), where the whole output has (2, 3, 4)",
            files=_trace("return {name: value[:, -1:] for name, value in right.items()}"),
            status=1,
        ),
        Misuse(
            "a port that does not decode",
            f"{_WITH} --mode decode",
            "the port does not offer `init_cache`, `step` and `read_cache`",
            files=_port("pass"),
            status=1,
        ),
    ),
)

CONTRADICTIONS = Section(
    "Ports that contradict themselves",
    "What `goldens check-port` finds without a look at any golden.",
    (
        Misuse(
            "`apply` runs other code",
            CHECKED,
            "`apply`, on what `trace` had there, does not give what `trace` gave (20 of 20 elements differ, and none may); let `apply` run the code of the forward pass, and `trace` hand out each value where it is",
            files=_apply("return {name: right * 2}"),
            status=1,
        ),
        Misuse(
            "`apply` raises",
            CHECKED,
            "`apply` raised RuntimeError: no such head; raise NotOffered for what cannot be run alone, and mend the rest",
            files=_apply("raise RuntimeError('no such head')"),
            status=1,
        ),
        Misuse(
            "`apply` gives no mapping",
            CHECKED,
            "the port gave a ndarray, where a mapping of names to arrays was expected; give {name: array}, or raise NotOffered",
            files=_apply("return right"),
            status=1,
        ),
        Misuse(
            "`trace` raises",
            CHECKED,
            "`trace` raised RuntimeError: no such head; it has to run every case of the golden file",
            files=_trace("raise RuntimeError('no such head')"),
            status=1,
        ),
        Misuse(
            "`trace` gives no logits",
            CHECKED,
            "`trace` hands out no lm_head; every port hands out its logits",
            files=_trace("right.pop('lm_head', None); return right"),
            status=1,
        ),
        Misuse(
            "`config` raises",
            CHECKED,
            "`config` raised RuntimeError: no file; raise NotOffered for what it does not know",
            files=_port("def config(self):\n    raise RuntimeError('no file')"),
            status=1,
        ),
        Misuse(
            "`parameters` raises",
            CHECKED,
            "`parameters` raised RuntimeError: no file; hand out {name: array}",
            files=_port(
                "def parameters(self):\n    raise RuntimeError('no file')\ndef with_parameters(self, overrides):\n    return self"
            ),
            status=1,
        ),
    ),
)
