"""All families of facts by name, in the order of forward passes: what comes before one, then what comes after."""

from harness.facts.family import Family
from harness.facts.generation import GENERATION

BEFORE: tuple[Family, ...] = ()
"""Families whose facts decide what a forward pass is given: a mistake there comes first."""

AFTER = (GENERATION,)
"""Families of what is made of logits."""

FAMILIES = {family.name: family for family in (*BEFORE, *AFTER)}
