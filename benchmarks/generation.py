"""Does a real checkpoint's text come out the same? Twenty prompts, greedy, up to 128 tokens, by reference and port.

    python benchmarks/generation.py CHECKPOINT [--dtype float32] [--tokens 128] [--prompt NAME ...]

For each text: whether tokens and the reason it ended for are the same; where texts part, whether that was a near tie:
the reference's two tokens were nearer together than twice what the logits of that step differ by.
Exits with 1 where texts part otherwise. Floors, caches and every component are compared by recording
benchmarks/generation.toml and replaying it.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from harness.checkpoints import read_config, resolve
from harness.record import reference
from harness.record.decoder import find_decoder
from harness.record.generation import Written, write
from harness.suite import build_generations, load_suite
from qwen_flax import checkpoint as checkpoints
from qwen_flax import config as configs
from qwen_flax import sampling
from qwen_flax.generate import Generation, generate

SUITE = Path(__file__).with_name("generation.toml")


@dataclass(frozen=True)
class Compared:
    """One text. tokens: the reference's; parts: the step at which the port parts from it, or None.

    gap: how far the reference's token is ahead of the port's there; apart: the largest difference of logits
    """

    name: str
    tokens: int
    stop: int
    same_stop: bool
    parts: int | None
    gap: float
    apart: float

    @property
    def near_tie(self) -> bool:
        return self.parts is not None and self.gap <= 2 * self.apart

    @property
    def holds(self) -> bool:
        return self.near_tie or (self.parts is None and self.same_stop)


def compare(name: str, theirs: Written, ours: Generation, penalty: float) -> Iterator[Compared]:
    """Text by text of a batch; logits are compared up to where texts part, its step with them."""
    assert ours.logits is not None
    for row, length in enumerate(theirs.lengths):
        right, left = theirs.tokens[row, :length], ours.tokens[row, : ours.lengths[row]]
        shared = min(len(right), len(left))
        apart = np.flatnonzero(right[:shared] != left[:shared])
        parts = int(apart[0]) if apart.size else (None if len(right) == len(left) else shared)
        until = shared if parts is None else min(parts + 1, shared)
        logits = theirs.logits[row, :until].float().numpy()
        difference = np.abs(logits - ours.logits[row, :until].astype(np.float32)).max()
        gap = float("inf")
        if apart.size:
            scores = logits[until - 1].copy()
            real = theirs.inputs.attention_mask[row, : theirs.prompt_tokens] != 0
            prompt = theirs.inputs.token_ids[row, : theirs.prompt_tokens][real]
            there = np.unique(np.concatenate((prompt, right[: until - 1])))
            scores[there] = np.where(scores[there] > 0, scores[there] / penalty, scores[there] * penalty)
            gap = float(scores[right[until - 1]] - scores[left[until - 1]])
        stop = int(theirs.stop[row])
        yield Compared(name, int(length), stop, stop == int(ours.stop[row]), parts, gap, float(difference))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--tokens", type=int, default=128)
    parser.add_argument("--prompt", action="append", metavar="NAME")
    options = parser.parse_args()
    folder = resolve(options.checkpoint)
    prompts = build_generations(load_suite(SUITE), folder, read_config(folder)["vocab_size"])
    prompts = [prompt for prompt in prompts if not options.prompt or prompt.name in options.prompt]
    console = Console(highlight=False, soft_wrap=True)
    model = reference.load(folder, options.dtype)
    penalty = model.generation_config.repetition_penalty or 1.0
    decoder, written = find_decoder(model), []
    start = time.perf_counter()
    for prompt in prompts:
        written.append(write(decoder, prompt, options.tokens))
        console.print(f"reference: {prompt.name}, {written[-1].tokens.shape[1]} tokens", style="dim")
    del model, decoder
    config, settings = configs.read(folder), sampling.read(folder)
    port = checkpoints.load(folder, config, dtype=options.dtype)
    compared = []
    for prompt, theirs in zip(prompts, written, strict=True):
        ours = generate(
            port,
            config,
            prompt.token_ids,
            prompt.attention_mask,
            max_new_tokens=options.tokens,
            settings=sampling.Settings(repetition_penalty=settings.repetition_penalty),
            keep_logits=True,
            cache_fill=float("nan"),
        )
        compared += compare(prompt.name, theirs, ours, penalty)
        console.print(f"port: {prompt.name}", style="dim")
    show(compared, console)
    console.print(f"{time.perf_counter() - start:.0f} s")
    sys.exit(0 if all(text.holds for text in compared) else 1)


def show(compared: list[Compared], console: Console) -> None:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for heading in ("prompt", "tokens", "ended by", "text", "logits apart"):
        table.add_column(heading, no_wrap=True)
    for text in compared:
        found = "the same" if text.parts is None else f"parts at {text.parts}, gap {text.gap:.1e}"
        found += ", a near tie" if text.near_tie else "" if text.holds else ", NO near tie"
        ended = "the limit" if text.stop == -1 else f"token {text.stop}"
        table.add_row(text.name, str(text.tokens), ended, found, f"{text.apart:.1e}")
    console.print(table)
    ties = sum(text.near_tie for text in compared)
    same = sum(text.parts is None and text.same_stop for text in compared)
    rest = len(compared) - same - ties
    console.print(f"{len(compared)} texts: {same} the same, {ties} part at a near tie, {rest} part otherwise")


if __name__ == "__main__":
    main()
