"""What a port offers, power by power. docs/ports.md has the same table."""

from collections.abc import Iterator
from typing import Any

from harness.errors import told
from harness.portcheck.outcome import Power
from harness.portcheck.trouble import Trouble
from harness.replay.port import NotOffered

_POWERS = {
    ("trace",): "the whole model runs, and its components are compared end to end",
    ("apply",): "each component runs on what the reference fed it",
    ("init_cache", "step", "read_cache"): "it is run token by token, and what its cache holds is compared",
    ("parameters", "with_parameters"): (
        "each parameter is held against the checkpoint's, and an audit can put wrong ones in"
    ),
    ("config",): "what it understood of config.json is compared, setting by setting",
    ("tokenize",): "token ids are compared",
    ("render_chat",): "chats are compared",
    ("process_logits",): "temperature, top-k, top-p, min-p and penalties are compared",
    ("draw",): "draws are compared",
    ("generate",): "the text that it writes is compared with the reference's",
}
_ASKED = ("parameters", "config")
"""Methods that need no argument, so that they can be asked whether they are only there to refuse."""


def powers(port: Any) -> list[Power]:
    return [_power(port, methods, lets) for methods, lets in _POWERS.items()]


def _power(port: Any, methods: tuple[str, ...], lets: str) -> Power:
    missing = [method for method in methods if not callable(getattr(port, method, None))]
    why = ""
    if missing and len(missing) < len(methods):
        why = f"{', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing"
    elif not missing and methods[0] in _ASKED:
        why = _refusal(getattr(port, methods[0]))
    return Power(list(methods), not missing and not why, lets, why)


def _refusal(method: Any) -> str:
    """Why a method offers nothing; a failure is another matter."""
    try:
        method()
    except NotOffered as error:
        return str(error)
    except Exception:
        return ""
    return ""


def config(port: Any) -> Iterator[Trouble]:
    """A `config` that fails. Its answer is compared by facts."""
    try:
        if callable(getattr(port, "config", None)):
            port.config()
    except NotOffered:
        return
    except Exception as error:
        yield Trouble(
            "config", f"`config` raised {told(error)}", "raise NotOffered for what it does not know"
        )
