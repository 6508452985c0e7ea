"""Is a port in half precision as near to exact arithmetic as the reference is? Over thousands of tokens of real text.

    python benchmarks/half_precision.py CHECKPOINT [--dtype bfloat16] [--tokens 8192] [--window 512] [--text FILE ...]

Texts are read in windows, as they stand (the project's own documents and sources, if none are named), by the reference
in float64, the reference in DTYPE, and the port in DTYPE. Tells how far the port's next-token probabilities are from
the reference's, and how far either's are from float64: the mean divergence of the port over that of the reference, with
the 95 % intervals of bootstraps over tokens, and over whole windows, whose tokens are not independent.
Exits with 1 where the upper end of either interval is above --limit.
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from transformers import AutoTokenizer

from harness.checkpoints import resolve
from harness.compare import logits as compared
from harness.record import reference
from harness.report import logits as told
from qwen_flax import port as ports

ROOT = Path(__file__).parents[1]


def windows(folder: Path, paths: list[Path], length: int, tokens: int) -> Iterator[np.ndarray]:
    """Token ids (1 T) of the texts, `length` at a time, until there are `tokens` in all; ends of texts are left out."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for path in paths:
        ids = tokenizer(path.read_text())["input_ids"]
        for start in range(0, len(ids) - length + 1, length):
            if tokens <= 0:
                return
            yield np.array([ids[start : start + length]])
            tokens -= length


def of_reference(model: Any, ids: np.ndarray) -> np.ndarray:
    """Logits (1 T V), in float32 or float64."""
    with torch.inference_mode():
        logits = model(torch.from_numpy(ids), use_cache=False).logits
    return (logits if logits.dtype == torch.float64 else logits.float()).numpy()


def of_port(port: ports.Port, ids: np.ndarray) -> np.ndarray:
    """Logits (1 T V), in float32."""
    inputs = {
        "token_ids": ids,
        "positions": np.arange(ids.shape[1])[None],
        "attention_mask": np.ones_like(ids),
        "query_index": np.arange(ids.shape[1]),
    }
    return np.asarray(port.trace(inputs, ["lm_head"])["lm_head"].astype("float32"))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16"])
    parser.add_argument("--tokens", type=int, default=8192, help="of all windows together, about")
    parser.add_argument("--window", type=int, default=512, metavar="TOKENS")
    parser.add_argument("--text", action="append", type=Path, metavar="FILE", help="in place of ours")
    parser.add_argument("--limit", type=float, default=1.2, help="times the reference's distance")
    asked = parser.parse_args()
    folder = resolve(asked.checkpoint)
    paths = asked.text or sorted([*ROOT.glob("docs/*.md"), *ROOT.glob("qwen_flax/*.py")])
    texts = list(windows(folder, paths, asked.window, asked.tokens))
    exact, half = reference.load(folder, "float32").double(), reference.load(folder, asked.dtype)
    port = ports.make(str(folder), dtype=asked.dtype)
    found = []
    console = Console(highlight=False, soft_wrap=True)
    with Progress(console=Console(stderr=True)) as progress:
        for ids in progress.track(texts, description="windows"):
            following = np.append(ids[:, 1:], [[-1]], axis=1)
            theirs = of_reference(half, ids)
            found.append(compared.rows(of_port(port, ids), theirs, of_reference(exact, ids), following))
    rows = compared.merged(found)
    summary = compared.summarise(rows, asked.dtype, "end-to-end")
    if summary is None or summary.further is None:
        sys.exit(
            f"the texts have no window of {asked.window} tokens: name longer ones, or a shorter --window"
        )
    for sentence in told.sentences(summary):
        console.print(sentence)
    by_window = compared.ratio_interval(
        *(_sums(found, name) for name in ("kl_exact_port", "kl_exact_golden"))
    )
    console.print(f"resampling {len(found)} windows: {by_window.low:.3f} to {by_window.high:.3f}")
    console.print(f"mean KL to float64: port {summary.exact_port:.3e}, reference {summary.exact_golden:.3e}")
    sys.exit(0 if max(summary.further.high, by_window.high) <= asked.limit else 1)


def _sums(found: list[compared.Rows], name: str) -> np.ndarray:
    return np.array([getattr(rows, name).sum() for rows in found])


if __name__ == "__main__":
    main()
