"""A checkpoint as a folder of files: where it is, and what its files hash to. Needs neither torch nor jax."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from harness.errors import GoldensError, first_line

_DECIDING_FILES = ("config.json", "*.safetensors", "*.safetensors.index.json")
_NAMES_ONLY = frozenset({"transformers_version", "_name_or_path", "_model_name_or_path"})
"""Settings that say who wrote a configuration, and change nothing."""
_ABSENT = "absent"
_HUB_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt"]


def resolve(checkpoint: str) -> Path:
    """The folder of a checkpoint: a local one, or a hub id's snapshot, fetched if need be."""
    folder = Path(checkpoint).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise GoldensError(f"checkpoint {checkpoint} has no config.json: it is not a Hugging Face folder")
        if not any(folder.glob("*.safetensors")):
            raise GoldensError(
                f"checkpoint {checkpoint} has no .safetensors file: convert it first, pickles are not read"
            )
        return folder
    if folder.exists() or checkpoint.startswith((".", "/", "~")) or checkpoint.count("/") != 1:
        raise GoldensError(
            f"checkpoint {checkpoint} is neither a folder nor a hub id such as ORGANISATION/MODEL"
        )
    try:
        from huggingface_hub import snapshot_download
    except ModuleNotFoundError as error:
        raise GoldensError(
            f"checkpoint {checkpoint} is not a folder here; to fetch it from the hub, install huggingface_hub"
        ) from error
    try:
        return Path(snapshot_download(checkpoint, allow_patterns=_HUB_FILES))
    except Exception as error:  # what the hub raises and what a refused connection raises share no base class
        reason = first_line(error)
        raise GoldensError(
            f"checkpoint {checkpoint} is not a folder here, and the hub did not give it: {reason}"
        ) from error


def file_digests(folder: Path) -> dict[str, str]:
    """file name -> SHA-256, of the files that decide what a checkpoint computes."""
    files = sorted(path for pattern in _DECIDING_FILES for path in folder.glob(pattern))
    return {path.name: _file_digest(path) for path in files}


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_config(folder: Path, name: str = "config.json") -> dict[str, Any]:
    """The checkpoint's config.json, or another object of its, as it is written."""
    path = folder / name
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise GoldensError(f"{path} cannot be read as JSON: {error}") from error
    if not isinstance(config, dict):
        raise GoldensError(f"{path} holds a {type(config).__name__}, where a JSON object was expected")
    return config


def meaningful(config: Mapping[str, Any]) -> dict[str, Any]:
    """A configuration without the settings that only say who wrote it."""
    return {name: value for name, value in config.items() if name not in _NAMES_ONLY}


def refuse_other(folder: Path, recorded_files: Mapping[str, str], recorded_config: Mapping[str, Any]) -> None:
    """Raise GoldensError unless `folder` computes what the recorded checkpoint computes.

    Weights are compared by their files' SHA-256, the configuration setting by setting.
    """
    config, recorded_config = meaningful(read_config(folder)), meaningful(recorded_config)
    changed = sorted(
        name
        for name in config.keys() | recorded_config.keys()
        if config.get(name, _ABSENT) != recorded_config.get(name, _ABSENT)
    )
    if changed:
        told = ", ".join(
            f"{name} is {config.get(name, _ABSENT)!r}, recorded {recorded_config.get(name, _ABSENT)!r}"
            for name in changed[:4]
        )
        raise GoldensError(f"checkpoint {folder} is not the recorded one: {told}")
    files = file_digests(folder)
    weights = {name for name in files.keys() | recorded_files.keys() if name != "config.json"}
    other = sorted(name for name in weights if files.get(name) != recorded_files.get(name))
    if other:
        raise GoldensError(
            f"checkpoint {folder} is not the recorded one: {', '.join(other[:4])} differ by SHA-256; "
            "replay with the recorded checkpoint, or record this one"
        )
