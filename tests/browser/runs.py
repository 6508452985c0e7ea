"""Runs that no port has to make: a model of any depth, one component of it wrong."""

import random

from harness.model import Mode, Verdict, Views
from harness.report.result import Environment, Explanation, Map, Picture, Place, Result, Run, Worst

COLUMNS = (
    "input_layernorm", "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.q_rope",
    "self_attn.k_rope", "self_attn.scores", "self_attn.probs", "self_attn.context", "self_attn.o_proj",
    "self_attn", "attn_residual", "post_attention_layernorm", "mlp.gate_proj", "mlp.up_proj", "mlp.act",
    "mlp.gated", "mlp.down_proj", "mlp_residual", "",
)  # fmt: skip
COMPOSITES = ("self_attn", "")
WRONG = "layers.1.self_attn.q_proj"


def components(layers: int) -> list[str]:
    inside = [f"layers.{i}.{column}".rstrip(".") for i in range(layers) for column in COLUMNS]
    return ["embed_tokens", *inside, "norm", "lm_head"]


def run(
    layers: int = 3,
    dtypes: tuple[str, ...] = ("float32", "bfloat16"),
    cases: tuple[str, ...] = ("hello", "padded"),
    wrong: str = WRONG,
    **changes,
) -> Run:
    """`wrong` fails isolated, and it and all behind it end to end; `norm` is unmeasured isolated."""
    order = components(layers)
    numbers = random.Random(0)
    results = [
        result(name, case, dtype, mode, order, wrong, numbers)
        for dtype in dtypes
        for case in cases
        for mode in (Mode.ISOLATED, Mode.END_TO_END)
        for name in order
        if mode is Mode.END_TO_END or not name.endswith(("self_attn", *map(str, range(10))))
    ]
    made = Run.from_results("goldens/model.h5", "my_port:make", results, order)
    explanation = Explanation(wrong, ["weight_not_transposed"], "weight used without transposing", 0.9)
    defaults = {
        "explanations": [explanation] if wrong in order else [],
        "recorded": {"checkpoint": "checkpoints/model", "versions": {"torch": "2.13.0"}},
        "environment": Environment(
            "2026-11-26T18:02:11+00:00", {"jax": "0.10.2"}, "cpu (cpu)", "default", "3841170d1c0b"
        ),
        "pictures": [picture(wrong, cases[0], dtypes[0])] if wrong in order else [],
    }  # fmt: skip
    return Run(**{name: getattr(made, name) for name in made.__struct_fields__} | defaults | changes)


def result(name, case, dtype, mode, order, wrong, numbers) -> Result:
    behind = wrong in order and order.index(name) >= order.index(wrong)
    fails = behind if mode is Mode.END_TO_END else name == wrong
    if name == "norm" and mode is Mode.ISOLATED:
        return Result(name, "norm", case, dtype, mode, Verdict.UNMEASURED, reason="not offered")
    floor = 2e-7 * (1 + numbers.random()) * (2**16 if dtype == "bfloat16" else 1)
    error = floor * numbers.uniform(0.1, 2) * (1e5 if fails else 1)
    return Result(
        name,
        name.rpartition(".")[2] if not name[-1].isdigit() else "layer",
        case,
        dtype,
        mode,
        Verdict.FAIL if fails else Verdict.PASS,
        Views(error, 1.1 * error, 1.2 * error),
        Views(floor, floor, floor),
        Views(6 * floor, 6 * floor, 6 * floor),
        Worst([0, 3, 17], 1.25, 1.2500001),
    )


def picture(name: str, case: str, dtype: str, mode: Mode = Mode.ISOLATED, size: int = 12) -> Picture:
    noise = random.Random(name)
    pixels = bytes(noise.choice((0, 1, 100, 200, 255)) for _ in range(size * size))
    return Picture(
        Place(name, case, dtype, mode),
        [Map("T tokens", "C channels", (size, size), (size, size), pixels)],
        low=1e-6, high=3.0, unit=2e-7, first=-3.0, step=0.3, histogram=[0] * 20 + [5, 40, 60, 12] + [0] * 16, same=7,
        worst=[Worst([0, 3, 17], 1.5, -2.25)],
    )  # fmt: skip
