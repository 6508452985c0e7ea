"""The mistake that explains why a fact fails. Imports nothing heavy."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Mistake:
    """names: of hypotheses, none if the text only describes what is wrong; text: a clause behind "explained by:"."""

    names: tuple[str, ...]
    text: str
