"""Two golden files with a recording beside each, and a terminal to answer at."""

import os
import pty
import subprocess
import sys
from pathlib import Path

from tests.commandline import runner
from tests.fakes import write_checkpoint, write_golden
from tests.rewritten import rewrite

ROOT = Path(__file__).parents[2]
A, B = Path("a.h5"), Path("goldens/b.h5")
DEAD = 2**22 + 1
"""More than any process has for a number."""


def pending(golden):
    return golden.with_name(golden.name + ".new")


def write_waiting(folder):
    """`a.h5` and `goldens/b.h5` in the working folder, each with a recording of a newer version."""
    checkpoint = write_checkpoint(folder / "checkpoint")
    B.parent.mkdir()
    for golden in (A, B):
        write_golden(golden, checkpoint=checkpoint, provenance={"versions": {"transformers": "5.23.0"}})
        rewrite(golden, pending(golden), provenance={"versions": {"transformers": "5.24.0"}})


def beside_them(monkeypatch, capsys, folder):
    """`goldens`, run in a folder that has them."""
    monkeypatch.chdir(folder)
    monkeypatch.delenv("CI", raising=False)
    write_waiting(folder)
    return runner(monkeypatch, capsys)


def at_a_terminal(answers, verb="accept", ci=None):
    """Run `goldens accept` at a terminal of its own, type `answers`, and give its status and what it showed."""
    ours, theirs = pty.openpty()
    environment = {k: v for k, v in os.environ.items() if k != "CI"} | {
        "PYTHONPATH": str(ROOT),
        "TERM": "dumb",
    }
    environment |= {} if ci is None else {"CI": ci}
    command = [sys.executable, "-m", "harness.cli", verb]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment)
    os.close(theirs)
    os.write(ours, answers.encode())
    shown = b""
    try:
        while part := os.read(ours, 4096):
            shown += part
    except OSError:  # how Linux tells that the other end is closed
        pass
    os.close(ours)
    return process.wait(timeout=60), shown.decode()
