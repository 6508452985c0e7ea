"""All families of facts by name, in the order of forward passes: what comes before one, then what comes after."""

from harness.facts.chat_template import CHAT_TEMPLATE
from harness.facts.config import CONFIG
from harness.facts.draws import DRAWS
from harness.facts.generation import GENERATION
from harness.facts.parameters import PARAMETERS
from harness.facts.sampling import SAMPLING
from harness.facts.tokenizer import TOKENIZER

BEFORE = (CONFIG, PARAMETERS, CHAT_TEMPLATE, TOKENIZER)
"""Families whose facts decide what a forward pass is given: a mistake there comes first."""

AFTER = (SAMPLING, DRAWS, GENERATION)
"""Families of what is made of logits."""

FAMILIES = {family.name: family for family in (*BEFORE, *AFTER)}
