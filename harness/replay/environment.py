"""What a replay ran on: versions, device, precision, the project's commit. Nothing else of the environment."""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from harness.replay.mesh import mesh_name, processes
from harness.report.result import Environment

_LIBRARIES = ("flax-goldens", "jax", "jaxlib", "flax", "numpy")


def environment(folder: Path, mesh: Any = None) -> Environment:
    """As it is now; `folder` lies in the repository whose commit is told, `mesh` is what the port was spread over."""
    device, precision = _jax()
    time = datetime.now(UTC).isoformat(timespec="seconds")
    return Environment(time, _versions(), device, precision, commit(folder), mesh_name(mesh), processes(mesh))


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _jax() -> tuple[str, str]:
    """Asked only if the port has brought JAX along."""
    jax = sys.modules.get("jax")
    if jax is None:
        return "", ""
    device = jax.devices()[0]
    return f"{device.platform} ({device.device_kind})", jax.config.jax_default_matmul_precision or "default"


def platform_of_jax() -> str:
    """What JAX runs on: `cpu`, `gpu`, `tpu`; empty for a port without JAX."""
    jax = sys.modules.get("jax")
    return "" if jax is None else str(jax.default_backend())


def commit(folder: Path) -> str:
    """The commit that is checked out in `folder`, with `+` if tracked files differ; empty outside a repository."""
    try:
        head = _git(folder, "rev-parse", "--short=12", "HEAD")
        changed = _git(folder, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return ""
    return head + ("+" if changed else "")


def _git(folder: Path, *arguments: str) -> str:
    asked = ["git", "-C", str(folder), *arguments]
    return subprocess.run(asked, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
