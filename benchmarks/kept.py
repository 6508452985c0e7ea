"""How large golden files of a model of 7B are, by what is kept of ten cases of 256 tokens.

python benchmarks/kept.py

Nothing of that size is made: a model with as many layers and heads, but narrow, says which components there are, and
the configuration of Qwen2.5-7B how wide each is. `goldens record --dry-run` says the same of a checkpoint at hand.
"""

import argparse

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from transformers import Qwen2Config, Qwen2ForCausalLM

from harness.inputs import CaseInputs
from harness.record.decoder import find_decoder
from harness.record.discover import discover
from harness.record.keep import parse
from harness.record.plan import Plan, Planned
from harness.report.plan import shares

HEADS = {"num_hidden_layers": 28, "num_attention_heads": 28, "num_key_value_heads": 4, "head_dim": 128}
NARROW = {"hidden_size": 32, "intermediate_size": 32, "vocab_size": 512}
WIDE = {"hidden_size": 3584, "intermediate_size": 18944, "vocab_size": 152064}
KEPT = ("", "tokens=0-7", "tokens=sample:16", "tokens=sample:8", "tokens=sample:4")
DTYPES = ("float32", "bfloat16")


def model(widths: dict[str, int]) -> Qwen2ForCausalLM:
    config = Qwen2Config(**HEADS, **widths, tie_word_embeddings=False, attn_implementation="eager")
    return Qwen2ForCausalLM(config).eval()


def cases(count: int, tokens: int) -> list[CaseInputs]:
    ids = np.arange(tokens, dtype=np.int32)[None]
    return [CaseInputs(f"case-{n}", "randomized", "", ids, np.ones_like(ids), ids) for n in range(count)]


def plans(count: int, tokens: int) -> dict[str, Plan]:
    torch.manual_seed(0)
    components = [each for each in discover(find_decoder(model(NARROW))) if not each.cached]
    with torch.device("meta"):
        shapes = {name: tuple(value.shape) for name, value in model(WIDE).named_parameters()}
    drawn = cases(count, tokens)
    return {
        keep: Planned(components, components, shapes, drawn, (), DTYPES, parse([keep] if keep else [])).plan()
        for keep in KEPT
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, default=10)
    parser.add_argument("--tokens", type=int, default=256, help="of each case")
    asked = parser.parse_args()
    found = plans(asked.cases, asked.tokens)
    console = Console(width=120)
    table = Table("--keep", *DTYPES, "both", "dearest")
    for keep, plan in found.items():
        dearest = ", ".join(f"{part} {share}" for part, _, share in shares(plan)[:3])
        sizes = [*(plan.by_dtype()[dtype] for dtype in DTYPES), plan.nbytes]
        table.add_row(keep or "everything", *(f"{size / 1e9:.2f} GB" for size in sizes), dearest)
    console.print(table)


if __name__ == "__main__":
    main()
