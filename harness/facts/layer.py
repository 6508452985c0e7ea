"""Which layer a parameter is in, by its name."""

import re

_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


def is_same_in_another_layer(name: str, other: str) -> bool:
    """`layers.1.mlp.up_proj.weight` and `layers.2.mlp.up_proj.weight`."""
    return name != other and _NUMBER.sub("{n}", name) == _NUMBER.sub("{n}", other)


def of_same_layer(name: str, other: str) -> bool:
    """Both in one layer, or both in none."""
    return _NUMBER.findall(name) == _NUMBER.findall(other)
