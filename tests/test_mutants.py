"""Edit one line of arithmetic of the model: replay must fail, isolated and end to end alike.

This is what proves that isolated replay runs the code of the forward pass, and not a copy of it. Each mutant
is a copy of the package with one operator, comparison or call changed.
"""

import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OTHER = {ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.Div: ast.Mult, ast.Pow: ast.Mult}
COMPARED = {ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.NotEq: ast.Eq}
CALLED = {"square": "abs", "rsqrt": "sqrt", "exp": "expm1", "mean": "max"}
SCALED = ("einsum", "matmul", "take", "softmax")
SAMPLED = 20
"""One in so many runs every time; all of them run at night."""
FLIPPED = {"repeat": 1, "swapaxes": -1}


class Mutation(ast.NodeTransformer):
    """Changes the n-th place that can be changed; counts them when n is None."""

    def __init__(self, place=None):
        self.place, self.places = place, []

    def here(self, node, what):
        self.places.append((node.lineno, what))
        return len(self.places) - 1 == self.place

    def visit_FunctionDef(self, node):
        if node.name == "__init__":
            return node
        return self.generic_visit(node)

    def visit_BinOp(self, node):
        self.generic_visit(node)
        if type(node.op) in OTHER and self.here(node, ast.unparse(node)):
            node.op = OTHER[type(node.op)]()
        return node

    def visit_Compare(self, node):
        self.generic_visit(node)
        if type(node.ops[0]) in COMPARED and self.here(node, ast.unparse(node)):
            node.ops[0] = COMPARED[type(node.ops[0])]()
        return node

    def visit_AugAssign(self, node):
        self.generic_visit(node)
        if isinstance(node.op, ast.BitAnd) and self.here(node, ast.unparse(node)):
            node.op = ast.BitOr()
        return node

    def visit_Call(self, node):
        self.generic_visit(node)
        name = node.func.attr if isinstance(node.func, ast.Attribute) else ""
        if name in CALLED and self.here(node, ast.unparse(node)):
            node.func.attr = CALLED[name]
        if name in SCALED and self.here(node, ast.unparse(node)):
            return ast.BinOp(node, ast.Mult(), ast.Constant(1.001))
        if name in FLIPPED and self.here(node, ast.unparse(node)):
            return ast.parse(f"jnp.flip({ast.unparse(node)}, axis={FLIPPED[name]})", mode="eval").body
        return node


def source(name):
    return (ROOT / "qwen_flax" / name).read_text(encoding="utf-8")


def mutants():
    for name in ("layers.py", "model.py"):
        counted = Mutation()
        counted.visit(ast.parse(source(name)))
        for number, (line, what) in enumerate(counted.places):
            slow = number % SAMPLED and pytest.mark.slow
            place = f"{name}:{line}:{what.replace(' ', '')[:50]}"
            yield pytest.param(name, number, id=place, marks=[slow] if slow else [])


def golden_for(name, number):
    """The built-in suite whose architecture runs the line: norms of heads, ties and windows are Qwen3's."""
    counted = Mutation(number)
    tree = ast.parse(source(name))
    changed = ast.unparse(counted.visit(tree))
    line = counted.places[number][0]
    qwen3 = "window" in source(name).splitlines()[line - 1] or line in _lines_of(name, "TiedHead", "HeadNorm")
    return changed, ROOT / "goldens" / ("qwen3-tiny.h5" if qwen3 else "qwen2-tiny.h5")


def _lines_of(name, *classes):
    tree = ast.parse(source(name))
    found = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name in classes]
    return {line for node in found for line in range(node.lineno, node.end_lineno + 1)}


def test_there_are_mutants():
    assert len(list(mutants())) >= 20


@pytest.mark.parametrize(("name", "number"), list(mutants()))
def test_an_edited_line_fails_both_ways(tmp_path, name, number):
    changed, golden = golden_for(name, number)
    shutil.copytree(ROOT / "qwen_flax", tmp_path / "qwen_flax")
    (tmp_path / "qwen_flax" / name).write_text(changed, encoding="utf-8")
    case = "random-1" if golden.stem == "qwen3-tiny" else "left-padded"
    command = [sys.executable, "-P", "-m", "harness.cli", "replay", str(golden), "--json"]
    process = subprocess.run(
        [*command, "--port", "qwen_flax.port:make", "--dtype", "float32", "--case", case],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1, process.stderr
    results = json.loads(process.stdout)["results"]
    assert {result["mode"] for result in results if result["verdict"] == "fail"} == {"isolated", "end-to-end"}
