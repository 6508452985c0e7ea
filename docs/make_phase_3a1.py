"""Writes docs/phase-3a1.md: the story of a weight loader, told with what the tool says.

    python docs/make_phase_3a1.py            # writes the page
    python docs/make_phase_3a1.py -          # to stdout

Everything that the page shows is run: `goldens record` into a temporary folder, then replays of it. Rounding differs
from one machine to another, and so do the last digits.
"""

import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable
from pathlib import Path
from string import Template
from typing import Any

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).with_name("phase-3a1.md")
TEXT = Path(__file__).with_name("phase-3a1.template.md")
WIDTH = 114

PROMPTS = """\
[[case]]
name = "hello"
text = "H"

[[case]]
name = "greetings"
texts = ["Hello, world.", "Hi."]
padding = "left"
"""
SUITE = """\
checkpoint = "qwen2-tiny"
golden = "story.h5"
prompts = "prompts.toml"
facts = []
cases = ["hello", "greetings"]
dtypes = ["bfloat16"]
"""
NO_ROPE = '''\
from qwen_flax import port as qwen_flax


class Unturned:
    """The right port, with heads that are never turned."""

    def __init__(self, port):
        self._port = port

    def wire(self, components):
        self._port.wire(components)

    def trace(self, inputs, names):
        return self._port.trace(inputs, names)

    def apply(self, name, inputs):
        if name.endswith("_rope"):
            inputs = {**inputs, "cos": 0 * inputs["cos"] + 1, "sin": 0 * inputs["sin"]}
        return self._port.apply(name, inputs)


def make(checkpoint, *, dtype):
    return Unturned(qwen_flax.make(checkpoint, dtype=dtype))
'''

FAULTY = ("replay", "story.h5", "--port", "tests.ports:seed_rule", "--case", "hello")
RIGHT = ("replay", "story.h5", "--port", "qwen_flax.port:make", "--case", "hello")
OTHER = ("explain", "story.h5", "--port", "tests.linen_port:make", "--case", "hello")
LONGER = ("replay", "story.h5", "--port", "tests.ports:seed_rule", "--case", "greetings")
UNTURNED = ("replay", "story.h5", "--port", "no_rope:make", "--mode", "isolated", "--include", "*_rope")

SUSPECTS = {
    "cosines and sines": ("cos", "sin"),
    "RoPE": ("q_rope", "k_rope"),
    "grouped heads": ("k_expanded", "v_expanded"),
    "scores": ("scores",),
    "softmax and mask": ("probs",),
    "weighted sum of values": ("context",),
}
"""What the notes suspected, and the kinds of components that it is."""


class Shell:
    """`goldens`, run in a folder as a reader of the page would."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        self._environment = os.environ | {"COLUMNS": str(WIDTH), "PYTHONPATH": path}

    def run(self, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "harness.cli", *arguments]
        done = subprocess.run(
            command, cwd=self._folder, env=self._environment, capture_output=True, text=True, check=False
        )
        if done.returncode != status:
            raise RuntimeError(f"goldens {' '.join(arguments)} left with {done.returncode}: {done.stderr}")
        return done

    def replay(self, *arguments: str, status: int = 0) -> tuple[str, dict[str, Any]]:
        """What is shown, and the same as JSON."""
        done = self.run(*arguments, "--json", status=status)
        return shown(arguments, done.stderr), json.loads(done.stdout)


def shown(arguments: Iterable[str], output: str) -> str:
    """A command and what it prints, indented as code."""
    quoted = (f"'{word}'" if "*" in word else word for word in arguments)
    lines = [f"$ goldens {' '.join(quoted)}", *output.splitlines()]
    return "\n".join(f"    {line}".rstrip() for line in lines)


def story(folder: Path) -> dict[str, str]:
    """Runs everything in `folder`, and gives what the page is filled in with."""
    shutil.copytree(ROOT / "goldens" / "checkpoints" / "qwen2-tiny", folder / "qwen2-tiny")
    for name, text in (("prompts.toml", PROMPTS), ("story.toml", SUITE), ("no_rope.py", NO_ROPE)):
        (folder / name).write_text(text)
    shell = Shell(folder)
    recorded = shell.run("record", "story.toml").stdout
    told, before = shell.replay(*FAULTY, status=1)
    _, after = shell.replay(*RIGHT)
    _, other = shell.replay(*OTHER)
    _, longer = shell.replay(*LONGER, status=1)
    blind, _ = shell.replay(*UNTURNED, "--case", "hello")
    seen, _ = shell.replay(*UNTURNED, "--case", "greetings", status=1)
    return {
        "prompts": indented(PROMPTS),
        "suite": indented(SUITE),
        "no_rope": indented(NO_ROPE),
        "recorded": shown(("record", "story.toml"), recorded),
        "told": told,
        "conclusions": conclusions(before),
        "norm": norm(other),
        "suspects": suspects(longer),
        "blind": blind,
        "seen": seen,
        "progress": progress(before, after),
    }


def indented(text: str) -> str:
    return "\n".join(f"    {line}".rstrip() for line in text.splitlines())


def isolated(run: dict[str, Any]) -> list[dict[str, Any]]:
    return [result for result in run["results"] if result["mode"] == "isolated"]


def named(run: dict[str, Any], component: str) -> dict[str, Any]:
    return next(result for result in isolated(run) if result["component"] == component)


def largest(run: dict[str, Any], component: str) -> str:
    """The largest difference of any element, as the notes measured it."""
    worst = named(run, component)["worst"]
    return f"{abs(worst['port'] - worst['golden']):.3g}"


def table(*rows: tuple[str, ...]) -> str:
    """A Markdown table; the first row is its head."""
    head, *body = rows
    lines = [head, tuple("---" for _ in head), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def conclusions(run: dict[str, Any]) -> str:
    """The notes' list, component by component, each on the reference's own inputs."""
    rows = [("component of layer 0", "largest difference", "error / noise floor", "verdict")]
    for component in (
        "embed_tokens",
        "layers.0.input_layernorm",
        "layers.0.self_attn.q_proj",
        "layers.0.self_attn.k_proj",
        "layers.0.self_attn.v_proj",
        "layers.0.self_attn.o_proj",
    ):
        result = named(run, component)
        over = result["error"]["whole"] / result["floor"]["whole"] if result["floor"]["whole"] else 0.0
        rows.append((f"`{component}`", largest(run, component), f"{over:.2g}", result["verdict"]))
    return table(*rows)


def norm(run: dict[str, Any]) -> str:
    """What another correct port has for the first norm, in units in the last place; and why."""
    result = named(run, "layers.0.input_layernorm")
    port, golden = result["worst"]["port"], result["worst"]["golden"]
    unit = 2.0 ** (math.floor(math.log2(abs(golden))) - 7)
    (why,) = (note for note in run["notes"] if note.startswith(result["component"]))
    units = abs(port - golden) / unit
    said = (
        f"Its first norm is off by up to {abs(port - golden):g}, where the port has {port:g} and the golden "
        f"{golden:g}. Numbers of that size are {unit:g} apart in bfloat16, so this is {units:g} "
        f"unit{'' if units == 1 else 's'} in the last place. `goldens explain` says why:"
    )
    return f"{textwrap.fill(said, WIDTH)}\n\n{indented(textwrap.fill(why, WIDTH - 4))}"


def suspects(run: dict[str, Any]) -> str:
    rows = [("suspected", "components", "compared", "fail", "worst error / limit")]
    for what, kinds in SUSPECTS.items():
        own = [result for result in isolated(run) if result["kind"] in kinds]
        fail = sum(result["verdict"] != "pass" for result in own)
        worst = max((_over_limit(result) for result in own), default=0.0)
        names = ", ".join(f"`{kind}`" for kind in kinds)
        rows.append((what, names, str(len(own)), str(fail), f"{worst:.2g}"))
    return table(*rows)


def _over_limit(result: dict[str, Any]) -> float:
    pairs = [(result["error"][view], result["limit"][view]) for view in ("whole", "row", "channel")]
    return max(error / limit if limit else 0.0 if not error else math.inf for error, limit in pairs)


def progress(before: dict[str, Any], after: dict[str, Any]) -> str:
    """The notes' table of progress, measured."""

    def counted(run: dict[str, Any], mode: str) -> str:
        own = [result for result in run["results"] if result["mode"] == mode]
        passing = sum(result["verdict"] == "pass" for result in own)
        return f"{passing}/{len(own)} ({passing / len(own):.0%})"

    def equal(run: dict[str, Any]) -> str:
        same = sum(result["error"]["whole"] == 0 for result in isolated(run))
        return f"{same}/{len(isolated(run))}"

    def wrong(run: dict[str, Any]) -> str:
        kinds = sorted({r["kind"] for r in isolated(run) if r["verdict"] == "fail"}, reverse=True)
        return f"wrong: {' and '.join(f'`{kind}`' for kind in kinds)}" if kinds else "right"

    def first(run: dict[str, Any]) -> str:
        return f"`{run['first_wrong']['component']}`" if run["first_wrong"] else "none"

    def cause(run: dict[str, Any]) -> str:
        names = sorted({name for e in run["explanations"] for name in e["hypotheses"]})
        return ", ".join(f"`{name}`" for name in names) or "nothing to explain"

    def logits(run: dict[str, Any]) -> str:
        (head,) = (r for r in run["results"] if (r["component"], r["mode"]) == ("lm_head", "end-to-end"))
        return f"{head['error']['whole']:.2g}"

    return table(
        ("metric", "before: square weights left alone", "after: every weight transposed"),
        ("components that pass by themselves", counted(before, "isolated"), counted(after, "isolated")),
        ("components that are equal bit by bit", equal(before), equal(after)),
        ("components that pass end to end", counted(before, "end-to-end"), counted(after, "end-to-end")),
        ("weight loading", wrong(before), wrong(after)),
        ("first wrong component", first(before), first(after)),
        ("cause", cause(before), cause(after)),
        ("relative error of the logits", logits(before), logits(after)),
    )


def page() -> str:
    with tempfile.TemporaryDirectory(prefix="story-") as folder:
        return Template(TEXT.read_text(encoding="utf-8")).substitute(story(Path(folder)))


if __name__ == "__main__":
    if sys.argv[1:] == ["-"]:
        print(page(), end="")
    else:
        PAGE.write_text(page(), encoding="utf-8")
