"""`goldens check-port`: every contradiction by a port that has it, what is offered, and what is refused."""

import json
import sys
from copy import copy
from functools import cache, partial
from pathlib import Path

import numpy as np
import pytest

from harness.replay.port import NotOffered
from qwen_flax import port as qwen_flax
from tests.commandline import runner
from tests.fakes import NAMES, NumpyPort, write_checkpoint, write_golden

ROOT = Path(__file__).parents[2]
GOLDEN = str(ROOT / "goldens" / "qwen2-linear.h5")
ACT, LAYER, Q = "layers.0.act", "layers.0", "layers.0.q_proj"


class Right(NumpyPort):
    """All that can be offered of a model without attention."""

    def parameters(self):
        return dict(zip(NAMES, (self.weights[name] for name in ("embed", "q", "head")), strict=True))

    def with_parameters(self, overrides):
        twin = copy(self)
        own = {**PARAMETERS(self), **overrides}
        twin.weights = dict(zip(("embed", "q", "head"), (own[name] for name in NAMES), strict=True))
        return twin

    def init_cache(self, batch, capacity, fill):
        return ()

    def step(self, cache, inputs, names):
        return self.trace(inputs, names), cache

    def read_cache(self, cache):
        return {}


def tracing(change):
    """A port whose `trace` is changed: change(port, values, names), in place or by what it returns."""

    class Port(Right):
        def trace(self, inputs, names):
            values = super().trace(inputs, names)
            changed = change(self, values, names)
            return values if changed is None else changed

    return Port


def applying(change):
    """change(port, name, value): what is put in place of a component's answer."""

    class Port(Right):
        def apply(self, name, inputs):
            found = change(self, name, super().apply(name, inputs)[name])
            return found if isinstance(found, dict) else {name: found}

    return Port


def having(**methods):
    return type("Port", (Right,), methods)


def put(name, change):
    def changed(port, values, names):
        if name in values:
            values[name] = change(values[name], values)

    return changed


def raises(*_, **__):
    raise RuntimeError("no such thing")


class Unreadable:
    def __array__(self, *_, **__):
        raise RuntimeError("found out when it is read")


def drawn(port, values, names):
    values["lm_head"] = values["lm_head"] + np.random.default_rng().normal()


def by_order(port, values, names):
    """Right for all names, and in each other's places for fewer."""
    return values if len(values) == 5 else dict(zip(values, reversed(values.values()), strict=True))


def everything(port, values, names):
    return values | {"layers.0.qproj": values["lm_head"]}


def nan(value, values):
    value = value.copy()
    value[1, 2, 0] = np.nan
    return value


def in_place(port, overrides):
    port.weights = Right.with_parameters(port, overrides).weights
    return port


def turned(port, overrides):
    twin = Right.with_parameters(port, overrides)
    twin.weights = {**twin.weights, "q": twin.weights["q"].T}
    return twin


PARAMETERS = Right.parameters
CONTRADICTIONS = {
    "apply is a copy that drifted": (
        applying(lambda port, name, value: value * np.float32(1.01) if name == ACT else value),
        f"{ACT}: `apply`, on what `trace` had there, does not give what `trace` gave (error",
    ),
    "apply gives another shape": (
        applying(lambda port, name, value: value[:, :2] if name == ACT else value),
        f"{ACT}: what `apply` gives has shape (2, 2, 4), where (2, 3, 4) was expected; give it in float32, as B T O",
    ),
    "apply answers in another dtype": (
        applying(lambda port, name, value: value.astype(np.float64) if name == ACT else value),
        f"{ACT}: what `apply` gives is in float64, where the port was made in float32",
    ),
    "apply answers by another name": (
        applying(lambda port, name, value: {"act": value} if name == ACT else value),
        f"{ACT}: `apply` gives nothing by its name; give {{name: array}}",
    ),
    "apply raises": (
        applying(lambda port, name, value: raises() if name == ACT else value),
        f"{ACT}: `apply` raised RuntimeError: no such thing; raise NotOffered",
    ),
    "apply gives what cannot be read": (
        applying(lambda port, name, value: Unreadable() if name == ACT else value),
        f"{ACT}: what `apply` gives cannot be read: RuntimeError: found out",
    ),
    "trace raises": (tracing(raises), "`trace` raised RuntimeError: no such thing"),
    "trace gives no mapping": (
        tracing(lambda port, values, names: [*values.values()]),
        "`trace` gave a list, where a mapping of names to arrays was expected",
    ),
    "trace gives what cannot be read": (
        tracing(put(ACT, lambda value, values: Unreadable())),
        f"{ACT}: what `trace` hands out cannot be read: RuntimeError: found out",
    ),
    "trace gives another shape": (
        tracing(put(ACT, lambda value, values: value.swapaxes(0, 1))),
        f"{ACT}: what `trace` hands out of it has shape (3, 2, 4), where (2, 3, 4) was expected; hand it out in",
    ),
    "trace answers in another dtype": (
        tracing(put(ACT, lambda value, values: value.astype(np.float16))),
        f"{ACT}: what `trace` hands out of it is in float16, where the port was made in float32",
    ),
    "trace makes NaN": (
        tracing(put(ACT, nan)),
        f"{ACT}: it is not finite where all that it takes in is (first at [1, 2, 0])",
    ),
    "trace without logits": (
        tracing(lambda port, values, names: {n: x for n, x in values.items() if n != "lm_head"}),
        "`trace` hands out no lm_head",
    ),
    "trace hands out other names": (
        tracing(everything),
        "`trace` hands out layers.0.qproj, which was not asked for; nearest: layers.0.q_proj",
    ),
    "trace hands out all that it has": (
        having(
            trace=lambda port, inputs, names: Right.trace(
                port, inputs, ("embed_tokens", Q, ACT, "lm_head", LAYER)
            )
        ),
        f"asked for other names, `trace` hands out {Q}, which was not asked for",
    ),
    "trace draws": (tracing(drawn), "lm_head: the same `trace` gives something else the second time"),
    "trace goes by the order of names": (
        tracing(by_order),
        "embed_tokens, lm_head: asked for fewer names, `trace` gives something else",
    ),
    "trace leaves out what is asked for alone": (
        tracing(lambda port, values, names: values if len(values) == 5 else {"lm_head": values["lm_head"]}),
        "embed_tokens, layers.0.act: asked for fewer names, `trace` gives something else (nothing at all)",
    ),
    "trace raises for fewer names": (
        tracing(lambda port, values, names: raises() if len(names) == 3 else values),
        "asked for half of the names, `trace` raised RuntimeError: no such thing; it has to run every case",
    ),
    "a composite is something else": (
        tracing(put(LAYER, lambda value, values: values[Q])),
        f"{LAYER}: as a whole it hands out something else than its last step does (error",
    ),
    "parameters raises": (having(parameters=raises), "`parameters` raised RuntimeError: no such thing"),
    "parameters gives no mapping": (
        having(parameters=lambda port: [1]),
        "`parameters` gave a list, where a mapping of names to arrays was expected",
    ),
    "a parameter is lacking": (
        having(parameters=lambda port: {n: x for n, x in PARAMETERS(port).items() if n != NAMES[1]}),
        f"`parameters` lacks {NAMES[1]}, which the checkpoint has",
    ),
    "a parameter too many": (
        having(
            parameters=lambda port: {**PARAMETERS(port), "layers.0.q.kernel": np.ones(3)},
            with_parameters=lambda port, given: Right.with_parameters(port, given),
        ),
        "`parameters` has layers.0.q.kernel, which the checkpoint has not; name parameters as the checkpoint does",
    ),
    "a parameter of another shape": (
        having(
            parameters=lambda port: {n: x.T for n, x in PARAMETERS(port).items()},
            with_parameters=lambda port, given: Right.with_parameters(
                port, {n: x.T for n, x in given.items()}
            ),
        ),
        f"`parameters` has {NAMES[0]} of shape (4, 16), where the checkpoint has (16, 4) (and 1 more of other",
    ),
    "own parameters are put back otherwise": (
        having(with_parameters=turned),
        "`with_parameters` of the port's own `parameters` changes the logits",
    ),
    "other parameters are not used": (
        having(with_parameters=lambda port, given: copy(port)),
        f"`with_parameters` of another {', '.join(NAMES)} leaves the logits as they are",
    ),
    "with_parameters changes the port itself": (
        having(with_parameters=in_place),
        "`with_parameters` changes the port that it is asked of",
    ),
    "with_parameters raises": (
        having(with_parameters=raises),
        "`with_parameters` of model.embed_tokens.weight, model.layers.0.q_proj.weight, lm_head.weight raised Runtime",
    ),
    "step gives something else": (
        having(
            step=lambda port, c, inputs, names: ({n: x * 2 for n, x in port.trace(inputs, names).items()}, c)
        ),
        "embed_tokens, layers.0.q_proj, layers.0.act and 2 more: read at once through a cache, `step` does not give",
    ),
    "step in parts gives something else": (
        having(
            step=lambda port, c, inputs, names: (
                {n: x * (1 + c[0]) for n, x in port.trace(inputs, names).items()},
                (inputs["query_index"][-1] < 2,),
            ),
            init_cache=lambda *_: (0,),
        ),
        "embed_tokens, layers.0.q_proj, layers.0.act and 2 more: read in parts through a cache, `step` does not give",
    ),
    "step raises": (
        having(step=raises),
        "read at once through a cache: the port raised RuntimeError: no such thing",
    ),
    "step gives no mapping": (
        having(step=lambda port, c, inputs, names: (3, c)),
        "`step` gave a int, where a mapping of names to arrays was expected",
    ),
    "step hands out another shape": (
        having(
            step=lambda port, c, inputs, names: ({n: x[:1] for n, x in port.trace(inputs, names).items()}, c)
        ),
        "(shape (1, 3, 4), where (2, 3, 4) was expected in decode)",
    ),
    "init_cache raises": (
        having(init_cache=raises),
        "a cache that nothing was read into: the port raised Runtime",
    ),
    "read_cache gives no mapping": (
        having(read_cache=lambda *_: 3),
        "`read_cache` gave a int, where a mapping of names to arrays was expected",
    ),
    "config raises": (having(config=raises), "`config` raised RuntimeError: no such thing; raise NotOffered"),
}


@pytest.fixture
def goldens(monkeypatch, capsys, tmp_path):
    """Run `goldens` in a folder that has `tiny.h5`, of two cases and two dtypes."""
    checkpoint = write_checkpoint(tmp_path / "checkpoint")
    write_golden(tmp_path / "tiny.h5", ("float32", "bfloat16"), ("hello", "padded"), checkpoint)
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)


@pytest.fixture
def check(goldens, monkeypatch):
    """Check a port that a function of its dtype makes; in float32, unless arguments say otherwise."""

    def run(make, *arguments, golden="tiny.h5"):
        monkeypatch.setattr(sys.modules[__name__], "current", lambda _, *, dtype: make(dtype), raising=False)
        return goldens(
            "check-port", golden, "--port", f"{__name__}:current", *(arguments or ("--dtype", "float32"))
        )

    return run


def test_a_port_that_is_in_order_holds_in_every_dtype(check):
    told = check(Right, "--case", "hello", "--case", "padded")
    assert told.status == 0, told.out
    assert told.err == ""
    assert "tiny.h5   float32 with hello, padded; bfloat16 with hello, padded" in told.out
    assert (
        "holds: the port does not contradict itself; whether it is right is for `goldens replay` to say"
        in told.out
    )


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_a_contradiction_is_told_with_the_way_out(check, name):
    """Once: what it spreads to is not told as if it were wrong, too."""
    make, sentence = CONTRADICTIONS[name]
    told = check(make)
    assert told.status == 1, told.out
    assert sentence in told.out
    assert "does not hold: 1 contradiction\n" in told.out
    assert told.err == ""


def test_a_port_with_a_wrong_weight_holds(check, goldens):
    assert check(lambda dtype: Right(dtype, faulty={Q})).status == 0
    assert goldens("replay", "tiny.h5", "--port", f"{__name__}:current").status == 1


def test_what_other_tools_read_of_a_contradiction(check):
    make, _ = CONTRADICTIONS["apply is a copy that drifted"]
    run = json.loads(check(make, "--dtype", "float32", "--json").out)
    assert run["verdict"] == "fail"
    assert run["asked"] == {"float32": ["hello"]}
    (found,) = run["contradictions"]
    assert found.pop("says")
    assert found == {"method": "apply", "components": [ACT], "case": "hello", "dtype": "float32"}


def test_what_is_not_offered_is_told_and_no_contradiction(check):
    told = check(lambda dtype: NumpyPort(dtype, missing={ACT}))
    assert told.status == 0
    words = " ".join(told.out.split())
    assert "trace yes the whole model runs" in words
    assert "init_cache, step, read_cache no it is run token by token" in words
    assert "unmeasured, float32 isolated: the port does not offer this component act: layers.0.act" in words
    assert "unmeasured, float32 end-to-end: the port does not offer this component act: layers.0.act" in words


def test_a_port_of_logits_alone(check):
    class Logits:
        def __init__(self, dtype):
            self.port = NumpyPort(dtype)

        def trace(self, inputs, names):
            return self.port.trace(inputs, ["lm_head"])

    words = " ".join(check(Logits).out.split())
    assert (
        "unmeasured, float32 isolated: the port does not offer `apply` embed_tokens: embed_tokens "
        "q_proj: layers.0.q_proj act: layers.0.act lm_head: lm_head"
    ) in words
    assert "holds: the port does not contradict itself" in words


def test_what_can_be_run_alone_and_not_be_verified(check):
    class Apart(Right):
        def trace(self, inputs, names):
            return super().trace(inputs, {"lm_head"} & set(names))

    told = json.loads(check(Apart, "--dtype", "float32", "--json").out)
    assert told["verdict"] == "pass"
    assert told["unverified"] == ["embed_tokens", Q, ACT, "lm_head"]
    assert [(each["mode"], each["kinds"]) for each in told["unmeasured"]] == [
        ("end-to-end", {"embed_tokens": ["embed_tokens"], "q_proj": [Q], "act": [ACT], "layer": [LAYER]})
    ]


def test_half_a_power_and_one_that_refuses(check):
    def refusing(*_):
        raise NotOffered("the adapter declares no table of parameters")

    told = check(having(parameters=refusing, read_cache=None))
    assert told.status == 0, told.out
    words = " ".join(told.out.split())
    assert "compared (read_cache is missing)" in words
    assert "wrong ones in (the adapter declares no table of parameters)" in words


@cache
def attention():
    """Made once, as what it compiles is kept in it."""
    return qwen_flax.make(str(ROOT / "goldens" / "checkpoints" / "qwen2-linear"), dtype="float32")


class Changed:
    """The port of `qwen_flax`, with some methods changed: method=change(port, *arguments)."""

    def __init__(self, dtype, **changes):
        for method in ("wire", "trace", "apply", "init_cache", "step", "read_cache"):
            own = getattr(attention(), method)
            setattr(self, method, partial(changes[method], attention()) if method in changes else own)


def misnamed(port, cache):
    return {name.replace("k_rope", "keys"): value for name, value in port.read_cache(cache).items()}


def shifted(port, cache):
    return {name: np.roll(value, 1, axis=value.ndim - 2) for name, value in port.read_cache(cache).items()}


def without_positions(port, cache, inputs, names):
    """The first step is right; the others begin again at zero."""
    later = inputs["query_index"][0] > 0
    return port.step(cache, {**inputs, "positions": inputs["positions"] * (not later)}, names)


def test_a_port_with_a_cache_holds(check):
    told = check(Changed, golden=GOLDEN)
    assert told.status == 0, told.out


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"read_cache": misnamed},
            "`read_cache` names layers.0.self_attn.keys, which no cache of this model holds; nearest: layers.",
        ),
        (
            {"read_cache": shifted},
            "read at once, the cache does not hold what `step` handed out (slot 0 does not hold what was put out for",
        ),
        (
            {"step": without_positions},
            "rotary_emb.cos, rotary_emb.sin, layers.0.self_attn.q_rope and 19 more: read in parts through a cache",
        ),
    ],
    ids=["names", "slots", "positions"],
)
def test_a_cache_that_contradicts(check, changes, sentence):
    told = check(partial(Changed, **changes), golden=GOLDEN)
    assert told.status == 1, told.out
    assert sentence in told.out


@pytest.mark.slow
@pytest.mark.parametrize("port", ["qwen_flax.port:make", "tests.linen_port:make"])
@pytest.mark.parametrize("golden", sorted((ROOT / "goldens").glob("*.h5")), ids=lambda path: path.stem)
def test_the_built_in_ports_hold(goldens, port, golden):
    told = goldens("check-port", str(golden), "--port", port)
    refused = "no plain Qwen2 or Qwen3 model" in told.err  # the second port scales no RoPE
    assert told.status == (2 if refused else 0), told.out + told.err
    assert not refused or port == "tests.linen_port:make"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("tiny.h5", "--case", "helo"), "case 'helo' was not recorded"),
        (("tiny.h5", "--dtype", "float16"), "dtype 'float16' was not recorded"),
        (("missing.h5",), "there is no golden file missing.h5"),
        (("tiny.h5", "--checkpoint", "nowhere"), "nowhere"),
        (("tiny.h5", "--port", "builtins:dict"), "builtins:dict"),
    ],
)
def test_misuse_is_one_sentence(goldens, arguments, sentence):
    told = goldens("check-port", "--port", "tests.fakes:make", *arguments)
    assert told.status == 2
    assert told.out == ""
    assert told.err.count("\n") == 1, told.err
    assert sentence in told.err
