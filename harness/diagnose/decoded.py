"""One case as a port decoded it: what each component took in and put out, at single tokens and in all slots."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import numpy as np

from harness.compare.metrics import Places
from harness.diagnose.problem import FLOAT64, Array, Observation, step_of, wide
from harness.diagnose.subject import Subject
from harness.kinds.step import Evaluation
from harness.kinds.table import STEPS
from harness.model import Component, Golden
from harness.replay.decode import Decoded, over_slots, slots
from harness.replay.session import Session

_CASE = "case."


@dataclass(frozen=True)
class DecodedCase:
    """goldens: of the case and a dtype, by component."""

    subject: Subject
    decoded: Decoded
    case: Mapping[str, Array]
    goldens: Mapping[str, Golden]

    @classmethod
    def of(cls, subject: Subject, session: Session, case: str, dtype: str) -> Self | None:
        """None where the port raises something."""
        goldens = {
            golden.component: golden
            for golden in subject.file.contents.goldens
            if (golden.case, golden.dtype) == (case, dtype)
        }
        decoded = session.decoded(next(iter(goldens.values())))
        return None if decoded is None else cls(subject, decoded, subject.file.case_inputs(case), goldens)

    @property
    def tokens(self) -> int:
        return self.decoded.read[-1]

    @property
    def capacity(self) -> int:
        """Slots of the cache."""
        return slots(self.tokens)

    @property
    def prompt(self) -> int:
        """How many tokens are read at once; the others are read one by one."""
        return self.decoded.read[0]

    @cached_property
    def _components(self) -> dict[str, Component]:
        return {component.name: component for component in self.subject.file.contents.components}

    def observe(self, component: Component, held: bool) -> Observation | None:
        """What the port made of what it handed out itself; None where it did not hand out all of that.

        held: what the cache holds of the component is looked at, not what the steps put out.
        """
        golden = self.goldens.get(component.name)
        if golden is None:
            return None
        try:
            return (
                self._at_slots(component, golden)
                if self._expands(component)
                else self._at_tokens(component, golden, held)
            )
        except (KeyError, IndexError):
            return None

    def _expands(self, component: Component) -> bool:
        return component.name in self.decoded.asked.at_keys

    def _at_slots(self, component: Component, golden: Golden) -> Observation:
        """What is expanded, of every token, as the last step had it."""
        every = range(self.tokens)
        ((argument, source),) = component.inputs.items()
        x = self.held(source)
        answer = self._take(self.decoded.parts[-1][component.name], component.axes, every)
        return self._observation(component, golden, every, {argument: x}, answer)

    def _at_tokens(self, component: Component, golden: Golden, held: bool) -> Observation:
        tokens = self._single(component, held)
        inputs = {argument: self._input(component, argument, tokens) for argument in component.inputs}
        answer = (
            self._take(self.decoded.cache[component.name], component.axes, tokens)
            if held
            else self._rows(component.name, tokens)
        )
        return self._observation(component, golden, tokens, inputs, answer)

    def held(self, written: str) -> Array:
        """What the cache holds of every token in the end."""
        return self._take(self.decoded.cache[written], self._components[written].axes, range(self.tokens))

    def before_norm(self, component: Component, tokens: Sequence[int]) -> Array | None:
        """What the norm took in whose heads the component takes in, if there is a norm, and it was handed out."""
        norm = self._components.get(component.inputs.get("x", ""))
        if norm is None or norm.step != "head_norm":
            return None
        try:
            return wide(self._rows(norm.inputs["x"], tokens))
        except (KeyError, IndexError):
            return None

    def _single(self, component: Component, held: bool) -> list[int]:
        """The tokens that were handed out with all that is taken in; those that were read one by one, if there are.

        Of scores the last of them, for which nothing has been written to the cache since.
        """
        asked = self.decoded.asked
        names = [component.name, *(s for s in component.inputs.values() if not s.startswith(_CASE))]
        wanted = [set(asked.tokens[name]) for name in names if name not in asked.at_keys]
        both = sorted(set.intersection(*wanted))
        single = [token for token in both if token >= self.prompt] or both
        return single[-1:] if component.step == "scores" else single

    def _input(self, component: Component, argument: str, tokens: Sequence[int]) -> Array:
        source = component.inputs[argument]
        if source == "case.attention_mask":
            return over_slots(self.case["attention_mask"])
        if source.startswith(_CASE):
            given = self.case[source.removeprefix(_CASE)]
            return given[..., tokens]
        if (
            "S" in STEPS[component.step or ""].arguments[argument].split()
            and source in self.decoded.asked.at_keys
        ):
            return self.decoded.parts[-1][source]
        return self._rows(source, tokens)

    def _rows(self, name: str, tokens: Sequence[int]) -> Array:
        """What the steps put out for these tokens."""
        axes, read = self._components[name].axes, (0, *self.decoded.read)
        parts = np.searchsorted(self.decoded.read, tokens, side="right")
        rows = [
            self._take(self.decoded.parts[part][name], axes, [token - read[part]])
            for token, part in zip(tokens, parts, strict=True)
        ]
        return np.concatenate(rows, axis=axes.split().index("T"))

    @staticmethod
    def _take(value: Array, axes: str, tokens: Sequence[int]) -> Array:
        return np.take(value, tokens, axis=axes.split().index("T"))

    def _observation(
        self,
        component: Component,
        golden: Golden,
        tokens: Sequence[int],
        inputs: dict[str, Array],
        answer: Array,
    ) -> Observation:
        step, places = step_of(component), np.asarray(tokens)
        unread = np.arange(self.capacity) > places[:, None]
        keys = self.capacity
        if component.step == "scores":  # other slots have been written to since
            keys = tokens[-1] + 1
            inputs["k"], answer = inputs["k"][:, :, :keys], answer[..., :keys]
        if "scores" in inputs and np.isfinite(answer).all():
            inputs["scores"] = np.where(unread & np.isnan(inputs["scores"]), 0, inputs["scores"])
        if not step.exact:
            inputs = {name: wide(x) for name, x in inputs.items()}
        parameters = self.subject.parameters(component.parameters, golden.dtype)
        about = {"decoded": self, "component": component, "tokens": places}
        settings = {**self.subject.facts, **component.settings, **about}
        evaluation = Evaluation(FLOAT64, inputs, parameters, settings)
        right = step.evaluate(_wide_parameters(evaluation))
        real = over_slots(self.case["attention_mask"]) != 0
        return Observation(
            golden=golden,
            evaluation=evaluation,
            answer=answer,
            recorded=right,
            places=Places(queries=real[:, places], keys=real[:, :keys]),
            failed=True,
            over_floor=np.inf,
        )

    def angles(self, positions: Array) -> tuple[Array, Array]:
        """cos and sin (B T D) of positions (B T), as they should be."""
        found = []
        for function in ("cos", "sin"):
            component = next(c for c in self._components.values() if c.step == function)
            e = Evaluation(FLOAT64, {"positions": positions}, {}, component.settings)
            found.append(STEPS[function].evaluate(e))
        return found[0], found[1]


def _wide_parameters(e: Evaluation) -> Evaluation:
    return e.with_parameters(**{role: wide(x) for role, x in e.parameters.items()})
