"""A config.json that a port would misread without a word: each is edited to say what the port would take it to say.

Settings are looked for where any version of the reference writes them.
"""

from collections.abc import Callable
from typing import Any

from harness.audit.catalogue import rope_config
from harness.audit.fault import Area, EditedConfig, Fault

Config = dict[str, Any]

_ANGLES = ("*.cos", "*.sin")
_NORMS = ("*norm",)
_PROBS = ("*.probs",)
_ROTATED = ("*.cos", "*.sin", "*.q_rope", "*.k_rope", "*.q_norm", "*.k_norm")
_HEADS = (*_ROTATED, "*.k_expanded", "*.v_expanded", "*.scores", "*.probs", "*.context")
_EVERYWHERE = ("*",)

_SLIDING, _FULL = "sliding_attention", "full_attention"


def _places_of_theta(config: Config) -> list[Config]:
    inner = (config.get(key) for key in ("rope_parameters", "rope_scaling"))
    places = [config, *(place for place in inner if isinstance(place, dict))]
    return [place for place in places if "rope_theta" in place]


def _theta(change: Callable[[float], float]) -> Callable[[Config], None]:
    def edit(config: Config) -> None:
        for place in _places_of_theta(config):
            place["rope_theta"] = change(place["rope_theta"])

    return edit


def _theta_not_found(config: Config) -> None:
    for place in _places_of_theta(config):
        del place["rope_theta"]


def _put(key: str, value: Any) -> Callable[[Config], None]:
    """Another value for a setting that is there."""

    def edit(config: Config) -> None:
        if key in config:
            config[key] = value

    return edit


def _window_by(change: Callable[[int], int]) -> Callable[[Config], None]:
    def edit(config: Config) -> None:
        if config.get("use_sliding_window") and config.get("sliding_window"):
            config["sliding_window"] = change(config["sliding_window"])

    return edit


def _window_on(config: Config) -> None:
    """A port that reads `sliding_window` and not the switch beside it."""
    if config.get("sliding_window") and not config.get("use_sliding_window"):
        config["use_sliding_window"] = True
        if config.get("layer_types"):
            config["layer_types"] = [_SLIDING] * len(config["layer_types"])


def _window_off(config: Config) -> None:
    if config.get("use_sliding_window"):
        config["use_sliding_window"] = False
        if config.get("layer_types"):
            config["layer_types"] = [_FULL] * len(config["layer_types"])


def _window_from_the_first_layer(config: Config) -> None:
    """A port that does not know that the first layers see everything."""
    if config.get("use_sliding_window"):
        config["max_window_layers"] = 0
        if config.get("layer_types"):
            config["layer_types"] = [_SLIDING] * len(config["layer_types"])


def _layer_types_inverted(config: Config) -> None:
    if config.get("use_sliding_window") and config.get("layer_types"):
        config["layer_types"] = [_FULL if kind == _SLIDING else _SLIDING for kind in config["layer_types"]]


def _layer_types_one_late(config: Config) -> None:
    if config.get("layer_types"):
        config["layer_types"] = [config["layer_types"][-1], *config["layer_types"][:-1]]


def _heads(wider: int) -> Callable[[Config], None]:
    """Fewer heads that are wider, or by a negative number more that are narrower: every tensor keeps its shape."""

    def edit(config: Config) -> None:
        keys = ("num_attention_heads", "num_key_value_heads")
        if not all(isinstance(config.get(key), int) for key in keys):
            return
        if wider > 0 and any(config[key] % wider for key in keys):
            return
        for key in keys:
            config[key] = config[key] // wider if wider > 0 else config[key] * -wider
        if config.get("head_dim"):
            config["head_dim"] = config["head_dim"] * wider if wider > 0 else config["head_dim"] // -wider

    return edit


def _without_last_layer(config: Config) -> None:
    config["num_hidden_layers"] -= 1
    if config.get("layer_types"):
        config["layer_types"] = config["layer_types"][:-1]


def _tied_or_not(config: Config) -> None:
    if "tie_word_embeddings" in config:
        config["tie_word_embeddings"] = not config["tie_word_embeddings"]


def _kept_off_window(config: Config) -> None:
    if config.get("use_sliding_window") is False and config.get("sliding_window"):
        config["sliding_window"] //= 2


FAULTS = (
    Fault(
        "config-theta-default",
        Area.CONFIG,
        "rope_theta is taken for 10000",
        EditedConfig(_ANGLES, _theta(lambda theta: 10_000.0)),
        frozenset({"theta_10000"}),
    ),
    Fault(
        "config-theta-not-found",
        Area.CONFIG,
        "rope_theta is looked for in the wrong place and not found",
        EditedConfig(_ANGLES, _theta_not_found),
        frozenset({"theta_10000"}),
    ),
    Fault(
        "config-theta-of-an-older-model",
        Area.CONFIG,
        "rope_theta is taken for 500000",
        EditedConfig(_ANGLES, _theta(lambda theta: 500_000.0)),
        frozenset({"theta_500000"}),
    ),
    Fault(
        "config-theta-1e6",
        Area.CONFIG,
        "rope_theta is taken for 1000000, that of a sister model",
        EditedConfig(_ANGLES, _theta(lambda theta: 1_000_000.0)),
        frozenset({"theta_1e+06"}),
    ),
    Fault(
        "config-theta-5e6",
        Area.CONFIG,
        "rope_theta is taken for 5000000, that of a sister model",
        EditedConfig(_ANGLES, _theta(lambda theta: 5_000_000.0)),
        frozenset({"theta_5e+06"}),
    ),
    Fault(
        "config-theta-tripled",
        Area.CONFIG,
        "rope_theta is tripled",
        EditedConfig(_ANGLES, _theta(lambda theta: 3 * theta)),
    ),
    *rope_config.FAULTS,
    Fault(
        "config-eps-1e-5",
        Area.CONFIG,
        "rms_norm_eps is taken for 1e-05",
        EditedConfig(_NORMS, _put("rms_norm_eps", 1e-5)),
        frozenset({"eps_1e-05"}),
    ),
    Fault(
        "config-eps-1e-8",
        Area.CONFIG,
        "rms_norm_eps is taken for 1e-08",
        EditedConfig(_NORMS, _put("rms_norm_eps", 1e-8)),
        frozenset({"eps_1e-08"}),
    ),
    Fault(
        "config-eps-1e-3",
        Area.CONFIG,
        "rms_norm_eps is taken for 0.001",
        EditedConfig(_NORMS, _put("rms_norm_eps", 1e-3)),
        frozenset({"eps_0.001"}),
    ),
    Fault(
        "config-eps-2e-6",
        Area.CONFIG,
        "rms_norm_eps is taken for 2e-06",
        EditedConfig(_NORMS, _put("rms_norm_eps", 2e-6)),
    ),
    Fault(
        "config-window-on",
        Area.CONFIG,
        "sliding_window is used though use_sliding_window is false",
        EditedConfig(_PROBS, _window_on),
        frozenset({"window_although_off"}),
    ),
    Fault(
        "config-window-off",
        Area.CONFIG,
        "the sliding window is never used",
        EditedConfig(_PROBS, _window_off),
        frozenset({"window_ignored"}),
    ),
    Fault(
        "config-window-from-the-first-layer",
        Area.CONFIG,
        "the sliding window is used in the layers before max_window_layers, too",
        EditedConfig(_PROBS, _window_from_the_first_layer),
        frozenset({"window_although_off"}),
    ),
    Fault(
        "config-window-one-wider",
        Area.CONFIG,
        "sliding_window is read as the number of keys before the query's own",
        EditedConfig(_PROBS, _window_by(lambda window: window + 1)),
        frozenset({"window_plus_one"}),
    ),
    Fault(
        "config-window-one-narrower",
        Area.CONFIG,
        "sliding_window is taken for one less",
        EditedConfig(_PROBS, _window_by(lambda window: window - 1)),
        frozenset({"window_minus_one"}),
    ),
    Fault(
        "config-window-halved",
        Area.CONFIG,
        "sliding_window is taken for both sides together and halved",
        EditedConfig(_PROBS, _window_by(lambda window: window // 2)),
    ),
    Fault(
        "config-layer-types-inverted",
        Area.CONFIG,
        "layers with a window see everything, and those without see a window",
        EditedConfig(_PROBS, _layer_types_inverted),
        frozenset({"window_ignored", "window_although_off"}),
    ),
    Fault(
        "config-layer-types-one-late",
        Area.CONFIG,
        "layer_types is read one layer late",
        EditedConfig(_PROBS, _layer_types_one_late),
        frozenset({"window_ignored", "window_although_off"}),
    ),
    Fault(
        "config-heads-twice-as-wide",
        Area.CONFIG,
        "half as many heads, each twice as wide, which fits every tensor",
        EditedConfig(_HEADS, _heads(2)),
        frozenset({"shape"}),
    ),
    Fault(
        "config-heads-half-as-wide",
        Area.CONFIG,
        "twice as many heads, each half as wide, which fits every tensor",
        EditedConfig(_HEADS, _heads(-2)),
        frozenset({"shape"}),
    ),
    Fault(
        "config-tied-or-not",
        Area.CONFIG,
        "tie_word_embeddings is read the wrong way round",
        EditedConfig(("lm_head",), _tied_or_not),
        frozenset({"parameters_of_another_component"}),
    ),
    Fault(
        "config-one-layer-less",
        Area.CONFIG,
        "num_hidden_layers is taken for one less: the last layer is never made",
        EditedConfig(_EVERYWHERE, _without_last_layer),
    ),
    Fault(
        "config-activation-gelu",
        Area.CONFIG,
        "hidden_act is taken for gelu",
        EditedConfig(("*.act",), _put("hidden_act", "gelu")),
        frozenset({"gelu"}),
    ),
    Fault(
        "config-off-window-halved",
        Area.CONFIG,
        "sliding_window is misread where use_sliding_window is false",
        EditedConfig(_PROBS, _kept_off_window),
        equivalent="use_sliding_window is false, and the reference reads the window's size nowhere else.",
    ),
)
