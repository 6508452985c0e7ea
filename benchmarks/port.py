"""How fast is the port? `qwen_flax` beside `transformers` and tunix, on one checkpoint, as ratios.

    python benchmarks/port.py CHECKPOINT [--dtype float32] [--side qwen_flax ...] [--tokens 64] [--rounds 5] [--cpu]

Each side loads the checkpoint and writes in a process of its own, one after the other, round by round, on the same
processors. The sides: `transformers` (sdpa, eager mode: the baseline), `torch.compile` (the same with a static cache),
`tunix` (its Qwen2, jitted, the cache donated; left out where there is no .venv-tunix/), `qwen_flax`. The prompt is
random tokens; all sides take the likeliest next token, and nothing ends a text. No side has compiled anything before.

Prints medians over the rounds, the ratio to `transformers` in brackets, above 1 where a side is better, and how many
tokens are the same. Load: from files to parameters in the dtype, with modules imported before. First: what the first
text takes longer than the same one again: compiling. Prefill: a text of one token. Decode: the tokens after it.
Memory: the most that was resident, pages of mapped files with it. --cpu compares CPU time in place of wall time, for a
machine that has other things to do. A side that cannot run is told, and left out.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
TUNIX = ROOT / ".venv-tunix" / "bin" / "python"
"""tunix wants other versions of what is here: examples/tunix/README.md tells how to install it."""

BASELINE = "transformers"
Write = Callable[[int], np.ndarray]
"""So many tokens (N) after the prompt."""


@dataclass(frozen=True)
class Run:
    """One process. Seconds, and bytes; decode is for one token."""

    load: float
    first: float
    prefill: float
    decode: float
    memory: int
    tokens: list[int]


def with_transformers(checkpoint: str, dtype: str, prompt: np.ndarray) -> Callable[[], Write]:
    return _torch(checkpoint, dtype, prompt, {})


def with_torch_compile(checkpoint: str, dtype: str, prompt: np.ndarray) -> Callable[[], Write]:
    return _torch(checkpoint, dtype, prompt, {"cache_implementation": "static"})


def _torch(checkpoint: str, dtype: str, prompt: np.ndarray, options: dict[str, Any]) -> Callable[[], Write]:
    import torch
    from transformers import Qwen2ForCausalLM

    torch.set_num_threads(len(os.sched_getaffinity(0)))

    def load() -> Write:
        model = Qwen2ForCausalLM.from_pretrained(
            checkpoint, dtype=getattr(torch, dtype), attn_implementation="sdpa"
        )
        model.generation_config.repetition_penalty = None
        model.generation_config.eos_token_id = None
        ids = torch.from_numpy(prompt)
        if options:
            model.forward = torch.compile(model.forward, dynamic=False)

        def write(count: int) -> np.ndarray:
            with torch.inference_mode():
                written = model.generate(
                    ids,
                    attention_mask=torch.ones_like(ids),
                    do_sample=False,
                    max_new_tokens=count,
                    disable_compile=True,  # it would compile where there is a GPU only
                    **options,
                )
            return np.asarray(written[0, prompt.shape[1] :])

        return write

    return load


def with_qwen_flax(checkpoint: str, dtype: str, prompt: np.ndarray) -> Callable[[], Write]:
    import jax

    from qwen_flax import checkpoint as checkpoints
    from qwen_flax import config as configs
    from qwen_flax.generate import generate

    jax.devices()

    def load() -> Write:
        config = configs.read(checkpoint)
        model = jax.block_until_ready(checkpoints.load(checkpoint, config, dtype=dtype))
        mask = np.ones_like(prompt)
        return lambda count: generate(
            model, config, prompt, mask, max_new_tokens=count, eos_token_ids=()
        ).tokens[0]

    return load


def with_tunix(checkpoint: str, dtype: str, prompt: np.ndarray) -> Callable[[], Write]:
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from examples.tunix import cache as caches
    from examples.tunix.load import load as load_tunix

    jax.devices()
    length = prompt.shape[1]

    def load() -> Write:
        model = jax.block_until_ready(load_tunix("qwen2", checkpoint, dtype))
        graph, state = nnx.split(model)

        def step(state: Any, cache: Any, ids: Any, positions: Any, slots: int) -> Any:
            logits, cache = caches.step(
                nnx.merge(graph, state), cache, ids, positions, jnp.ones((1, slots), jnp.int32), positions[0]
            )
            return jnp.argmax(logits[:, -1:], axis=-1), cache

        compiled = jax.jit(step, static_argnums=4, donate_argnums=1)

        def write(count: int) -> np.ndarray:
            slots = -(-(length + count) // 64) * 64
            cache = jax.tree.map(jnp.copy, caches.empty(model.config, 1, slots, 0.0))  # no array twice
            token, cache = compiled(state, cache, jnp.asarray(prompt), jnp.arange(length)[None], slots)
            written = [np.asarray(token)]
            while len(written) < count:
                position = jnp.asarray([[length + len(written) - 1]])
                token, cache = compiled(state, cache, token, position, slots)
                written.append(np.asarray(token))
            return np.concatenate(written, axis=1)[0]

        return write

    return load


SIDES = {
    BASELINE: with_transformers,
    "torch.compile": with_torch_compile,
    "tunix": with_tunix,
    "qwen_flax": with_qwen_flax,
}


def measure(side: str, asked: argparse.Namespace) -> Run:
    """In this process. A whole text is written twice: the second time, all is compiled, and for one token, too."""
    clock = time.process_time if asked.cpu else time.perf_counter
    prompt = np.random.default_rng(0).integers(0, 50_000, (1, asked.prompt))
    prepared = SIDES[side](asked.checkpoint, asked.dtype, prompt)

    def timed(task: Callable[[], Any]) -> tuple[float, Any]:
        start = clock()
        done = task()
        return clock() - start, done

    load, write = timed(prepared)
    first, _ = timed(lambda: write(asked.tokens))
    prefill, _ = timed(lambda: write(1))
    whole, tokens = timed(lambda: write(asked.tokens))
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    decode = (whole - prefill) / (asked.tokens - 1)
    return Run(load, first - whole, prefill, decode, memory, tokens.tolist())


def in_a_process(side: str) -> Run:
    """With the arguments of this one."""
    alone = {"PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1"}
    environment = os.environ | alone | {"TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"}
    python = str(TUNIX) if side == "tunix" else sys.executable
    command = [python, __file__, *sys.argv[1:], "--measure", side]
    found = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return Run(**json.loads(found.stdout.splitlines()[-1]))


def show(runs: dict[str, list[Run]], asked: argparse.Namespace, console: Console) -> None:
    clock = "CPU time" if asked.cpu else "time"
    table = Table(
        title=f"{asked.dtype}, {asked.prompt} and {asked.tokens} tokens, {clock}, medians of {asked.rounds}"
    )
    for heading in ("side", "prefill, tokens/s", "decode, tokens/s", "load, s", "first, s", "memory, GB"):
        table.add_column(heading, justify="left" if heading == "side" else "right")
    columns = {
        side: {
            name: statistics.median(getattr(run, name) for run in own)
            for name in ("prefill", "decode", "load", "first", "memory")
        }
        for side, own in runs.items()
    }
    for side, own in columns.items():
        better = {name: columns[BASELINE][name] / value for name, value in own.items()}
        table.add_row(
            side,
            f"{asked.prompt / own['prefill']:.0f} ({better['prefill']:.2f})",
            f"{1 / own['decode']:.1f} ({better['decode']:.2f})",
            f"{own['load']:.2f} ({better['load']:.2f})",
            f"{own['first']:.1f}",
            f"{own['memory'] / 1e9:.2f} ({better['memory']:.2f})",
        )
    console.print(table)
    for side, rounds in runs.items():
        pairs = list(zip(runs[BASELINE][0].tokens, rounds[0].tokens, strict=True))
        same = next((n for n, (right, left) in enumerate(pairs) if right != left), len(pairs))
        console.print(f"{side}: {same} of {len(pairs)} tokens are the same as {BASELINE}'s before any other")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkpoint")
    parser.add_argument("--dtype", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument(
        "--side", action="append", choices=list(SIDES), help="beside the baseline; all by default"
    )
    parser.add_argument("--prompt", type=int, default=512, help="tokens")
    parser.add_argument("--tokens", type=int, default=64, help="to write, the first one by the prefill")
    parser.add_argument(
        "--rounds", type=int, default=5, help="of one process a side (at least 5 for a result)"
    )
    parser.add_argument("--processors", type=int, default=len(os.sched_getaffinity(0)), help="for every side")
    parser.add_argument("--cpu", action="store_true", help="compare CPU time")
    parser.add_argument("--measure", choices=list(SIDES), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: asked.processors])
    if asked.measure:
        print(json.dumps(asdict(measure(asked.measure, asked))))
        return
    sides = [BASELINE, *(asked.side or [side for side in SIDES if side != BASELINE])]
    if not TUNIX.exists() and not asked.side:
        sides.remove("tunix")
    console = Console(width=140, highlight=False)
    runs: dict[str, list[Run]] = {side: [] for side in dict.fromkeys(sides)}
    for number in range(asked.rounds):
        for side in list(runs):
            try:
                runs[side].append(in_a_process(side))
            except (subprocess.CalledProcessError, OSError) as trouble:
                if side == BASELINE:
                    raise
                console.print(f"{side} did not run: {trouble}")
                del runs[side]
            Console(stderr=True).print(f"round {number + 1}: {side}", style="dim")
    show(runs, asked, console)


if __name__ == "__main__":
    main()
