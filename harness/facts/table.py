"""All families of facts by name, in the order of forward passes: what comes before one, then what comes after."""

from harness.facts.config import CONFIG
from harness.facts.family import Family

BEFORE = (CONFIG,)
"""Families whose facts decide what a forward pass is given: a mistake there comes first."""

AFTER: tuple[Family, ...] = ()
"""Families of what is made of logits."""

FAMILIES = {family.name: family for family in (*BEFORE, *AFTER)}
