"""What explains facts that are wrong: a mistake has to explain most of the texts, chats or logits in which one is.

A text of one word shows less than others, and what is made of it fits other mistakes, too. One that is said to show
nothing by itself agrees with what it fits.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from harness.facts.family import Found
from harness.model import FactIn, Verdict
from harness.report.result import Explanation


def explain_facts(found: Iterable[tuple[FactIn, Found]]) -> list[Explanation]:
    """An explanation for each component of facts that fails with one, in the order in which they come."""
    failed: dict[str, list[Found]] = {}
    for fact, each in found:
        if each.verdict is Verdict.FAIL:
            failed.setdefault(fact.component, []).append(each)
    return [_agreed(component, own) for component, own in failed.items() if any(each.text for each in own)]


def _agreed(component: str, failed: Sequence[Found]) -> Explanation:
    said_by_one = {name for each in failed if each.text for name in each.hypotheses}
    counts = Counter(name for each in failed for name in each.hypotheses if name in said_by_one)
    most = max(counts.values(), default=0)
    names = [name for name in counts if counts[name] == most and 2 * most > len(failed)]
    if names:
        saying = [each for each in failed if each.text and names[0] in each.hypotheses]
        fewest = min(saying, key=lambda each: len(each.hypotheses))
        return Explanation(component, names, fewest.text)
    said = list(dict.fromkeys(each.text for each in failed if each.text))
    if len(failed) == 1:
        return Explanation(component, [], said[0])
    return Explanation(
        component, [], f"unexplained: some of what is wrong would be explained by: {'; '.join(said)}"
    )
