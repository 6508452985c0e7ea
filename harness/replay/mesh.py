"""The devices that a port is spread over: a mesh of them, by name. Imports JAX when one is made."""

import math
import os
import re
from functools import cache
from typing import TYPE_CHECKING, Any

from harness.errors import GoldensError, first_line
from harness.replay.watch import leaving_after

if TYPE_CHECKING:
    from jax.sharding import Mesh

_AXIS = re.compile(r"([A-Za-z_]\w*)=([1-9]\d*)")
_PATIENCE = 300.0
"""Seconds for processes to come together, where nobody says how many: those that JAX has by default."""


def parse_mesh(text: str) -> dict[str, int]:
    """`dp=2,tp=4` -> how many devices there are along each axis. Raises GoldensError."""
    found = [_AXIS.fullmatch(part.strip()) for part in text.split(",")]
    sizes = {match[1]: int(match[2]) for match in found if match is not None}
    if len(sizes) != len(found):
        raise GoldensError(
            f"mesh {text!r} does not say how many devices there are along each axis: write it as dp=2,tp=4"
        )
    return sizes


@cache
def mesh_of(text: str, timeout: float | None = None) -> "Mesh":
    """The mesh `dp=2,tp=4`, of the devices that JAX has. Raises GoldensError where these are too few.

    Where JAX_COORDINATOR_ADDRESS is set, this process first joins those that share the mesh, or leaves after `timeout`
    seconds. A CPU stands for as many devices as are asked for: that has to be said before JAX looks at it, so a mesh
    comes before anything else.
    """
    sizes = parse_mesh(text)
    import jax

    config: Any = jax.config
    count, shared = math.prod(sizes.values()), _join(timeout or _PATIENCE)
    if count % shared:
        raise GoldensError(
            f"mesh {text} is {count} devices, which {shared} processes cannot share evenly: "
            "choose a mesh of a multiple of that, or start fewer"
        )
    try:
        if config.jax_num_cpu_devices < 0 and "host_platform_device_count" not in _flags():
            config.update("jax_num_cpu_devices", count // shared)
    except RuntimeError:
        pass  # JAX has looked already: what it has then is counted
    devices = jax.devices()
    if len(devices) < count or (shared > 1 and len(devices) > count):
        raise GoldensError(
            f"mesh {text} is {count} devices, but JAX has {len(devices)} ({devices[0].platform}): choose a mesh "
            f"that fits, or let the CPU stand for them with JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES={count // shared}"
        )
    auto = (jax.sharding.AxisType.Auto,) * len(sizes)
    return jax.make_mesh(tuple(sizes.values()), tuple(sizes), devices=devices[:count], axis_types=auto)


def mesh_name(mesh: "Mesh | None") -> str:
    """As it is asked for; empty without one."""
    return "" if mesh is None else ",".join(f"{axis}={size}" for axis, size in mesh.shape.items())


def processes(mesh: "Mesh | None") -> int:
    """How many processes share it."""
    return 1 if mesh is None else len({device.process_index for device in mesh.devices.flat})


def is_first(mesh: "Mesh | None") -> bool:
    """Whether this process is the first of those that share it."""
    if mesh is None:
        return True
    import jax

    return bool(jax.process_index() == 0)


def _flags() -> str:
    return os.environ.get("XLA_FLAGS", "")


def _join(timeout: float) -> int:
    """Join the processes that share a mesh, if there are any. Returns how many they are.

    What the environment leaves out, JAX asks a cluster for that it knows (Slurm, MPI, Kubernetes, TPU). Where its own
    time for that is over, it aborts with a stack trace, so that this process has to leave before.
    """
    if "JAX_COORDINATOR_ADDRESS" not in os.environ:
        return 1
    import jax

    if not jax.distributed.is_initialized():
        # Computed one after another, sums over devices meet in all processes in the same order.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
        count, number = _number("JAX_NUM_PROCESSES"), _number("JAX_PROCESS_ID")
        longer = math.ceil(timeout) + 60
        try:
            with leaving_after(timeout, _not_together(timeout, number)):
                jax.distributed.initialize(
                    num_processes=count, process_id=number, initialization_timeout=longer
                )
        except (ValueError, RuntimeError) as error:
            raise GoldensError(
                f"the processes of JAX_COORDINATOR_ADDRESS={os.environ['JAX_COORDINATOR_ADDRESS']} cannot be joined: "
                f"{first_line(error)}"
            ) from error
    return _number("JAX_NUM_PROCESSES") or 1


def _not_together(timeout: float, number: int | None) -> str:
    here = "" if number is None else f", of which this is number {number},"
    return (
        f"the processes of JAX_COORDINATOR_ADDRESS={os.environ['JAX_COORDINATOR_ADDRESS']}{here} did not come together "
        f"within {timeout:g} s: start each of them, number 0 on the host of that address, and see that its port is "
        "free and can be reached"
    )


def _number(name: str) -> int | None:
    text = os.environ.get(name)
    if text is not None and not text.isdecimal():
        raise GoldensError(f"{name} is {text!r}, but a whole number was expected")
    return None if text is None else int(text)
