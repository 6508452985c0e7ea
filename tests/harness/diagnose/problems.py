"""A component made for a test: a step on random inputs, and what a port made of it."""

from dataclasses import replace

import numpy as np

from harness.compare.metrics import Places
from harness.compare.tolerance import NOTHING
from harness.diagnose.fits import describe
from harness.diagnose.problem import FLOAT64, Observation, Problem, Sample
from harness.diagnose.search import distance, explaining, under
from harness.kinds.step import Evaluation
from harness.kinds.table import STEPS
from harness.model import Component, Floor, Golden

BATCH, TOKENS, INPUTS, OUTPUTS = 2, 5, 16, 12


def drawn(*shape, seed=0):
    """Random numbers that are numbers of float32."""
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32).astype(np.float64)


class Made:
    """One component. right: what the reference gives, float64."""

    def __init__(self, step, inputs, parameters=(), settings=(), padding=()):
        self.step = STEPS[step]
        self.component = Component("made", step, self.step.output, step)
        self.evaluation = Evaluation(FLOAT64, dict(inputs), dict(parameters), dict(settings))
        self.right = self.step.evaluate(self.evaluation)
        sizes = dict(zip(self.step.output.split(), self.right.shape, strict=True))
        self.real = np.ones((sizes["B"], sizes["T"]), dtype=bool)
        for place in padding:
            self.real[place] = False
        keys = sizes.get("S", sizes["T"])
        self.keys = self.real if keys == sizes["T"] else np.ones((sizes["B"], keys), dtype=bool)

    def problem(self, answer):
        floor = Floor(NOTHING, NOTHING)
        golden = Golden("made", "made", "float32", 0, {}, floor, floor)
        observation = Observation(
            golden=golden,
            evaluation=self.evaluation,
            answer=answer.astype(np.float32),
            recorded=self.right.astype(np.float32),
            places=Places(queries=self.real, keys=self.keys),
            failed=True,
            over_floor=np.inf,
        )
        problem = Problem(self.component, "float32", [], [observation])
        right = under(problem, observation, None, Sample())
        over_floor = distance(problem, observation, right, Sample()).over_floor
        return replace(problem, observations=[replace(observation, over_floor=over_floor)])

    def described(self, answer):
        problem = self.problem(answer)
        return describe(problem, problem.observations[0])

    def named(self, answer, withheld=()):
        return {candidate.name for candidate in explaining(self.problem(answer), withheld)}

    def under(self, **parameters):
        """What the step gives with other parameters."""
        changed = replace(self.evaluation, parameters={**self.evaluation.parameters, **parameters})
        return self.step.evaluate(changed)


def product(padding=()):
    """(2 5 16) -> (2 5 12), with a bias."""
    return Made(
        "linear",
        {"x": drawn(BATCH, TOKENS, INPUTS)},
        {"weight": drawn(OUTPUTS, INPUTS, seed=1), "bias": drawn(OUTPUTS, seed=2)},
        padding=padding,
    )


def residual():
    return Made(
        "residual",
        {"residual": drawn(BATCH, TOKENS, OUTPUTS), "branch": drawn(BATCH, TOKENS, OUTPUTS, seed=1)},
    )
