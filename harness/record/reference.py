"""Load the reference: `transformers` in eager mode, and what it was loaded from."""

import hashlib
import os
import platform
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from safetensors import safe_open
from transformers import CONFIG_MAPPING, AutoConfig, AutoModelForCausalLM
from transformers.utils import GENERATION_CONFIG_NAME

from harness.checkpoints import file_digests, read_config
from harness.errors import GoldensError, first_line
from harness.model import Parameter
from harness.record.decoder import Decoder, Module, find_decoder
from harness.weights import Weights

TORCH_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def load(folder: Path, dtype: str) -> Module:
    """The reference in `dtype`, in eager mode, every parameter from the checkpoint."""
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    _refuse_own_code(folder)
    if (folder / GENERATION_CONFIG_NAME).exists():
        read_config(folder, GENERATION_CONFIG_NAME)  # transformers goes on without one that is damaged
    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        model, info = AutoModelForCausalLM.from_pretrained(
            folder,
            config=config,
            dtype=TORCH_DTYPES[dtype],
            attn_implementation="eager",
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # refused below, by name
            trust_remote_code=False,
            use_safetensors=True,
        )
    except (
        Exception
    ) as error:  # transformers and safetensors raise a dozen unrelated types for a bad checkpoint
        reason = first_line(error)
        raise GoldensError(f"transformers cannot load {folder}: {reason}") from error
    _refuse_incomplete(folder, info)
    loaded = {parameter.dtype for parameter in model.parameters()}
    if loaded != {TORCH_DTYPES[dtype]}:
        raise GoldensError(f"asked for {dtype}, but transformers loaded {folder} as {loaded}")
    if hasattr(model, "set_experts_implementation"):
        model.set_experts_implementation("eager")  # others take no float64
    return model.eval()


def loaded_as(folder: Path, dtype: str, limit: int) -> str:
    """The dtype to load a checkpoint in: `dtype`, or, where that takes more than `limit` bytes, the stored one.

    In the one that it is stored in it is mapped, and takes next to no memory; `Parameters` casts it as it runs.
    """
    stored = Weights(folder)
    dtypes = {stored[name].dtype.name for name in stored}
    whole = sum(stored[name].size for name in stored) * TORCH_DTYPES[dtype].itemsize
    streamed = whole > limit and len(dtypes) == 1 and dtypes <= TORCH_DTYPES.keys()
    return dtypes.pop() if streamed else dtype


def half_of_memory() -> int:
    """In bytes, of the machine's."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def decoder(folder: Path, dtype: str, limit: int | None = None) -> Decoder:
    """The reference taken apart, running in `dtype`. limit: bytes that it may take in memory; half of it by default."""
    as_stored = loaded_as(folder, dtype, half_of_memory() if limit is None else limit)
    return find_decoder(load(folder, as_stored), TORCH_DTYPES[dtype])


def _refuse_own_code(folder: Path) -> None:
    """transformers would ask at the terminal whether to run it."""
    config = read_config(folder)
    if "auto_map" in config and config.get("model_type") not in CONFIG_MAPPING:
        raise GoldensError(
            f"checkpoint {folder} brings code of its own for model_type {config.get('model_type')!r} (auto_map), and "
            "none of it is run: record it with a version of transformers that has this model"
        )


def _refuse_incomplete(folder: Path, info: dict[str, Any]) -> None:
    """transformers only warns of these, and fills what is missing with random numbers."""
    for key, trouble in (
        ("missing_keys", "lacks"),
        ("unexpected_keys", "has the surplus"),
        ("mismatched_keys", "has a wrong shape for"),
    ):
        names = sorted(map(_told, info.get(key) or ()))
        if names:
            raise GoldensError(
                f"checkpoint {folder} {trouble} tensors {', '.join(names[:8])}: it is not whole"
            )


def _told(key: str | tuple[str, Any, Any]) -> str:
    """A tensor's name; of one that has a wrong shape, that and the right one."""
    return key if isinstance(key, str) else f"{key[0]} ({list(key[1])} instead of {list(key[2])})"


def fingerprints(folder: Path) -> list[Parameter]:
    """Every tensor of the checkpoint's safetensors files as they store it, in order of name."""
    return sorted(_fingerprints(folder), key=lambda parameter: parameter.name)


def _fingerprints(folder: Path) -> Iterator[Parameter]:
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                tensor = file.get_tensor(name)
                data = tensor.contiguous().view(-1).view(torch.uint8).numpy()
                dtype = str(tensor.dtype).removeprefix("torch.")
                yield Parameter(name, dtype, tuple(tensor.shape), hashlib.sha256(data).hexdigest())


def provenance(checkpoint: str, origin: str, folder: Path, model: Module) -> dict[str, Any]:
    """What the goldens came from: versions, the kind of machine, and the checkpoint. Nothing of the environment.

    checkpoint: as the golden file names it; origin: `folder`, as seen from the golden file, or `hub id`
    """
    libraries = ("torch", "transformers", "numpy", "h5py")
    return {
        "recorded_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint": checkpoint,
        "checkpoint_is": origin,
        "checkpoint_files": file_digests(folder),
        "architecture": type(model).__name__,
        "attention": model.config._attn_implementation,
        "versions": {"python": platform.python_version()} | {name: version(name) for name in libraries},
        "device": next(model.parameters()).device.type,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


def embedding_rms(folder: Path) -> np.ndarray:
    """The root mean square of every row of the embedding (V), read from the checkpoint."""
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - it is no mapping
                if name.endswith("embed_tokens.weight"):
                    return file.get_tensor(name).float().pow(2).mean(-1).sqrt().numpy()
    raise GoldensError(
        f"checkpoint {folder} has no tensor embed_tokens.weight, which probe = 'tiny-norm' needs"
    )
