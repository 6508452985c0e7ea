"""How a config.json says that RoPE is scaled, misread: whichever version of the reference wrote it."""

from collections.abc import Callable
from typing import Any

from harness.audit.fault import Area, EditedConfig, Fault

Config = dict[str, Any]

_ANGLES = ("*.cos", "*.sin")


def _scaling(config: Config) -> Config:
    """The object that says how RoPE is scaled; an empty one where it is not."""
    for key in ("rope_parameters", "rope_scaling"):
        found: Config = config.get(key) or {}
        if _rope_type(found) != "default":
            return found
    return {}


def _rope_type(scaling: Config) -> Any:
    return scaling.get("rope_type", scaling.get("type", "default"))


def _scaled_positions(config: Config) -> None:
    """In the object that this config.json has for it, or would have had before there was one."""
    if not _scaling(config):
        key = "rope_parameters" if "rope_parameters" in config else "rope_scaling"
        config[key] = {**(config.get(key) or {}), "rope_type": "linear", "factor": 4.0}


def _scaled_otherwise(kinds: str, change: Callable[[Config, Config], Config]) -> Callable[[Config], None]:
    """Where RoPE is scaled in one of these ways: `change(scaling, config)` gives the settings that are put in."""

    def edit(config: Config) -> None:
        scaling = _scaling(config)
        if scaling and _rope_type(scaling) in kinds.split():
            scaling.update(change(scaling, config))

    return edit


def _only(rope_type: str, *kept: str) -> Callable[[Config], None]:
    """Another way of scaling, of whose settings only these are kept; for `linear`, in the place of another one."""

    def edit(config: Config) -> None:
        scaling = _scaling(config)
        if not scaling or _rope_type(scaling) == rope_type:
            return
        for name in scaling.keys() - {"type", "rope_theta", *kept}:
            del scaling[name]
        scaling.update({"type" if "type" in scaling else "rope_type": rope_type})

    return edit


def _longest_position(change: Callable[[int], int], kind: str) -> Callable[[Config], None]:
    """max_position_embeddings, where RoPE is scaled so; `default` where it is not."""

    def edit(config: Config) -> None:
        if _rope_type(_scaling(config)) == kind and "max_position_embeddings" in config:
            config["max_position_embeddings"] = change(config["max_position_embeddings"])

    return edit


FAULTS = (
    Fault(
        "config-positions-scaled",
        Area.CONFIG,
        "positions are divided by 4 though the checkpoint does not say so",
        EditedConfig(_ANGLES, _scaled_positions),
        frozenset({"linear_scaling_4"}),
    ),
    Fault(
        "config-scaling-ignored",
        Area.CONFIG,
        "how RoPE is scaled is not looked for",
        EditedConfig(_ANGLES, _only("default")),
        frozenset({"scaling_ignored"}),
    ),
    Fault(
        "config-scaling-linear",
        Area.CONFIG,
        "RoPE is scaled linearly, whatever its type is said to be",
        EditedConfig(_ANGLES, _only("linear", "factor")),
        frozenset({"linear_instead"}),
    ),
    Fault(
        "config-linear-factor-doubled",
        Area.CONFIG,
        "the factor of linear scaling is doubled",
        EditedConfig(_ANGLES, _scaled_otherwise("linear", lambda rope, _: {"factor": 2 * rope["factor"]})),
        frozenset({"linear_scaling_8"}),
    ),
    Fault(
        "config-scaling-factor-doubled",
        Area.CONFIG,
        "the factor of RoPE scaling is doubled",
        EditedConfig(
            _ANGLES, _scaled_otherwise("dynamic yarn llama3", lambda rope, _: {"factor": 2 * rope["factor"]})
        ),
    ),
    Fault(
        "config-attention-factor-1",
        Area.CONFIG,
        "the attention factor is 1 where none is written",
        EditedConfig(_ANGLES, _scaled_otherwise("yarn", lambda rope, _: {"attention_factor": 1.0})),
        frozenset({"attention_factor_missing"}),
    ),
    Fault(
        "config-not-truncated",
        Area.CONFIG,
        "the ends of YaRN's ramp are not rounded where nothing is written of it",
        EditedConfig(_ANGLES, _scaled_otherwise("yarn", lambda rope, _: {"truncate": False})),
        frozenset({"truncation"}),
    ),
    Fault(
        "config-original-length-mistaken",
        Area.CONFIG,
        "the original length is taken for max_position_embeddings",
        EditedConfig(
            _ANGLES,
            _scaled_otherwise(
                "yarn llama3",
                lambda _, config: {"original_max_position_embeddings": config["max_position_embeddings"]},
            ),
        ),
        frozenset({"original_length_of_config"}),
    ),
    Fault(
        "config-longest-position-halved",
        Area.CONFIG,
        "RoPE is scaled dynamically from half of max_position_embeddings",
        EditedConfig(_ANGLES, _longest_position(lambda longest: longest // 2, "dynamic")),
    ),
    Fault(
        "config-shorter-longest-position",
        Area.CONFIG,
        "max_position_embeddings is taken for 4096",
        EditedConfig(_ANGLES, _longest_position(lambda longest: 4096, "default")),
        equivalent="The default RoPE has no table and knows no longest position: the setting is read only where "
        "frequencies are scaled.",
    ),
)
