"""`config`: what the port understood of config.json, setting by setting, against what the reference uses."""

from typing import Any

from harness.facts.family import PASSED, Context, Family, Found, wrong
from harness.model import Fact
from harness.replay.port import Configured, NotOffered


def _ask(port: Any, fact: Fact) -> Any:
    if not isinstance(port, Configured):
        raise NotOffered("the port does not offer `config`")
    settings = port.config()
    name = fact.component.removeprefix("config.")
    if name not in settings:
        raise NotOffered(f"the port's `config` does not tell {name}")
    return settings[name]


def _judge(fact: Fact, answer: Any, context: Context) -> Found:
    return PASSED if answer == fact.expected else wrong(f"is {answer!r}, where the reference has {fact.expected!r}")


CONFIG = Family("config", _ask, _judge)
