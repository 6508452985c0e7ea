"""The words of the project as small frozen records. Imports nothing heavy.

Letters in `axes`, everywhere alike: B batch, T query tokens, S key tokens, H query heads, K key-value
heads, D head size, C hidden size, F intermediate size, I and O a product's inputs and outputs,
V vocabulary. B, T and S are places in the input; every other letter is a channel.
"""

import enum
from typing import Annotated, Any

import msgspec


class Mode(enum.StrEnum):
    """How a port is replayed: each component on golden inputs, the whole port by itself, or token by token."""

    ISOLATED = "isolated"
    END_TO_END = "end-to-end"
    DECODE = "decode"


BY_DEFAULT: tuple[Mode, ...] = ()
"""The modes of a replay that does not say which: isolated, and the way in which a case was recorded."""


class Verdict(enum.StrEnum):
    """Unmeasured is never a pass."""

    PASS = "pass"
    FAIL = "fail"
    UNMEASURED = "unmeasured"


LOGITS = "lm_head"
"""The component that every port offers: what it puts out is what tokens are chosen from."""

CASE = "case."
"""What the source of an input begins with that a case gives, and no component."""

UNIT_ROUNDOFF = {"float32": 2.0**-24, "bfloat16": 2.0**-8, "float16": 2.0**-11}
"""Half the distance from 1 to the next number, for each dtype a golden can have."""


Size = Annotated[float, msgspec.Meta(ge=0)]


class Views(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A relative L2 error seen three ways: whole tensor, worst token row, worst channel."""

    whole: Size
    row: Size
    channel: Size


class Floor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The error that rounding alone causes: as the reference showed it, and as any order of evaluation may."""

    measured: Views
    modelled: Views


class Component(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A named step of the model.

    name: as its module has it in `transformers`, without the leading `model.`
    kind: what components of all layers share (`q_proj`, `rms_norm`, `scores`)
    step: the entry of `harness.kinds` that evaluates it; None for a composite
    axes: the output's axes, e.g. "B T C"
    inputs: argument name -> the component it comes from, or `case.token_ids` and the like
    parameters: role -> the parameter's name in the reference (`weight` -> `model.norm.weight`)
    settings: the numbers the step takes from the configuration (`eps`, `scaling`, `window`)
    exact: nothing is rounded, so it is compared bit by bit
    composite_of: the component whose output this composite hands out; judged end to end only
    cached: it is that as the cache holds it, at every token; judged in decode only
    """

    name: str
    kind: str
    axes: str
    step: str | None = None
    inputs: dict[str, str] = {}
    parameters: dict[str, str] = {}
    settings: dict[str, Any] = {}
    exact: bool = False
    composite_of: str | None = None
    cached: bool = False


class Case(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One input. `inputs` maps `token_ids` (B T), `attention_mask` (B S), `positions` (B T) and
    `query_index` (T) to rows of the tensor table.

    origin: `prompt`, `randomized` or `generated`; detail: the texts, or the seed and how it was drawn
    parts: how many tokens had been read after each part, where the reference read the case through its cache, as
        generation does; empty where it read the case at once
    """

    name: str
    origin: str
    detail: str
    inputs: dict[str, int]
    parts: tuple[int, ...] = ()


class Tensor(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row of the tensor table: where a payload lies in the file, and what it must hash to.

    repeats: along the second axis each entry is there so many times in a row, and stored once
    """

    path: str
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int
    sha256: str
    repeats: int = 1

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape of the payload."""
        if self.repeats == 1:
            return self.shape
        return (self.shape[0], self.shape[1] // self.repeats, *self.shape[2:])


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The recorded tensor of one component in one case and dtype, its inputs, and its floors.

    `output` and the values of `inputs` are rows of the tensor table. `isolated` is None for composites.
    tokens: the input of the case that lists the token positions that are recorded, where T is among the axes
    exact: for logits in less than float32, the row of the same from float64, as float32
    """

    component: str
    case: str
    dtype: str
    output: int
    inputs: dict[str, int]
    end_to_end: Floor
    isolated: Floor | None = None
    tokens: str = "kept"
    exact: int | None = None


class Parameter(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A parameter's fingerprint: its bytes as the checkpoint stores them, in reference layout."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str


class Fact(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A golden that is no tensor of the forward pass: a setting, a fingerprint, token ids, a text, chosen tokens.

    component: `config.head_dim`, `parameters.model.norm.weight`, `tokenizer`, `chat_template`, `sampling.top_p`,
        `generation.tokens`
    family: the entry of `harness.facts` that asks a port for it and compares the answer; its kind, too
    case: what it is a fact of: a text, a chat, logits by name; `checkpoint` for what every input shares
    dtype: the only one in which it is asked, where it is what the reference did in that dtype
    given: what the port is given, and expected: what the reference made of it, both as JSON has it
    """

    component: str
    family: str
    case: str
    given: Any
    expected: Any
    dtype: str = ""


class FactIn(msgspec.Struct, frozen=True):
    """A fact, asked of a port in a dtype."""

    fact: Fact
    dtype: str

    @property
    def component(self) -> str:
        return self.fact.component

    @property
    def case(self) -> str:
        return self.fact.case


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a golden file says of itself, apart from where its payloads lie.

    provenance: library versions, device, threads, attention implementation, checkpoint files, time
    config: the checkpoint's config.json as it was read
    components: in forward order
    facts: family by family, in the order of `harness.facts.table`
    """

    provenance: dict[str, Any]
    config: dict[str, Any]
    parameters: list[Parameter]
    components: list[Component]
    cases: list[Case]
    goldens: list[Golden]
    facts: list[Fact] = []
