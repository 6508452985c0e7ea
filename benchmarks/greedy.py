"""Does the port write the same greedy text as the reference, with its cache? Float32, three chat prompts.

    python benchmarks/greedy.py CHECKPOINT [--tokens 64] [--dtype float32]

Where the two part, the reference's gap between its two likeliest tokens is held against the noise floor of its logits
at that step: below it, the choice is a near tie that rounding decides. Exits with 1 when texts part elsewhere.
"""

import argparse
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from transformers import AutoTokenizer

from harness.checkpoints import read_config, resolve
from harness.compare.tolerance import multiple, noise_floor
from harness.inputs import CaseInputs, Rows, assemble
from harness.model import Mode
from harness.record import reference
from harness.record.keep import parse
from harness.record.recorder import Request, Silent, record
from harness.store.reader import GoldenFile
from qwen_flax import checkpoint as checkpoints
from qwen_flax import config as configs
from qwen_flax.generate import generate

PROMPTS = (
    "Write a Python function that returns the n-th Fibonacci number.",
    "请详细解释什么是递归，并举三个例子。",
    "Tell me a long story about a lighthouse keeper and her cat.",
)


@dataclass(frozen=True)
class Written:
    """New tokens (N) and the logits (N V) that they were chosen from."""

    tokens: np.ndarray
    logits: np.ndarray


def by_reference(folder: Path, dtype: str, prompts: list[np.ndarray], count: int) -> list[Written]:
    model = reference.load(folder, dtype)
    written = []
    for ids in prompts:
        out = model.generate(
            torch.from_numpy(ids).long(),
            attention_mask=torch.ones(ids.shape, dtype=torch.long),
            max_new_tokens=count,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            temperature=None,
            top_p=None,
            top_k=None,
            output_logits=True,
            return_dict_in_generate=True,
        )
        logits = torch.cat(out.logits).float().numpy()
        written.append(Written(out.sequences[0, ids.shape[1] :].numpy(), logits))
    return written


def by_port(folder: Path, dtype: str, prompts: list[np.ndarray], count: int) -> list[Written]:
    config = configs.read(str(folder))
    model = checkpoints.load(str(folder), config, dtype=dtype)
    written = []
    for ids in prompts:
        out = generate(model, config, ids, np.ones_like(ids), max_new_tokens=count, keep_logits=True)
        length = out.lengths[0]
        assert out.logits is not None
        written.append(Written(out.tokens[0, :length], out.logits[0, :length].astype(np.float32)))
    return written


def logits_floor(folder: Path, dtype: str, ids: np.ndarray) -> float:
    """What rounding may do to a single logit after `ids` (1 T): the end-to-end limit times the row's rms."""
    case: CaseInputs = assemble(
        "prefix", "prompt", "", Rows(ids.tolist()), int(read_config(folder)["vocab_size"])
    )
    keep = parse(["components=lm_head", "tokens=-1"])
    with tempfile.TemporaryDirectory() as where:
        path = Path(where) / "prefix.h5"
        record(
            Request(str(folder), "folder", folder, read_config(folder), (case,), (dtype,), keep),
            path,
            Silent(),
        )
        file = GoldenFile.open(path)
        (golden,) = file.contents.goldens
        rms = float(np.sqrt(np.mean(np.square(file.output(golden).astype(np.float64)))))
        return multiple(Mode.END_TO_END, 1) * noise_floor(golden.end_to_end, dtype, False).row * rms


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    options = parser.parse_args()
    folder = resolve(options.checkpoint)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    console = Console(highlight=False, soft_wrap=True)
    prompts = []
    for text in PROMPTS:
        chat = [{"role": "user", "content": text}]
        encoded = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)
        prompts.append(np.array([encoded["input_ids"]], np.int32))
    expected = by_reference(folder, options.dtype, prompts, options.tokens)
    holds = True
    for text, ids, ours, theirs in zip(
        PROMPTS, prompts, by_port(folder, options.dtype, prompts, options.tokens), expected, strict=True
    ):
        console.print(f"\n{text}", style="bold", markup=False)
        console.print(tokenizer.decode(ours.tokens), markup=False, style="dim")
        shared = min(len(ours.tokens), len(theirs.tokens))
        apart = np.flatnonzero(ours.tokens[:shared] != theirs.tokens[:shared])
        if len(apart) == 0 and len(ours.tokens) == len(theirs.tokens):
            error = np.abs(ours.logits - theirs.logits).max()
            console.print(f"same {shared} tokens; logits differ by {error:.1e} at most")
            continue
        step = int(apart[0]) if len(apart) else shared
        holds = near_tie(console, folder, options.dtype, ids, theirs, step) and holds
    sys.exit(0 if holds else 1)


def near_tie(console: Console, folder: Path, dtype: str, ids: np.ndarray, theirs: Written, step: int) -> bool:
    """Say what happened at the step where the texts part; whether rounding explains it."""
    if step >= len(theirs.logits):
        console.print(f"the reference stopped at step {step}, and the port went on", style="red")
        return False
    prefix = np.concatenate((ids[0], theirs.tokens[:step]))[None].astype(np.int32)
    second, first = np.sort(theirs.logits[step])[-2:]
    floor = logits_floor(folder, dtype, prefix)
    tie = bool(first - second < floor)
    verdict = "a near tie" if tie else "NOT a near tie"
    console.print(
        f"they part at step {step}: the gap of the two likeliest is {first - second:.2e}, rounding explains "
        f"{floor:.2e}: {verdict}",
        style="yellow" if tie else "red",
    )
    return tie


if __name__ == "__main__":
    main()
