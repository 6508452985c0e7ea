"""What is diagnosed: a port, the golden file it is held against, and the checkpoint that both come from."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from harness.diagnose.problem import Array, wide
from harness.errors import GoldensError
from harness.model import Golden, Mode
from harness.replay.port import Isolated, Port
from harness.replay.watch import UNWATCHED, Watch
from harness.store.layout import numpy_dtype
from harness.store.reader import GoldenFile


@dataclass(frozen=True)
class Subject:
    """What is diagnosed: a port against a golden file.

    port: makes the port in a dtype, or hands out the one there is
    weights: the recorded checkpoint's tensors by name, mapped into memory
    withheld: hypotheses that may not be named, to see what is said without them
    watch: how long the port may take for one answer
    """

    file: GoldenFile
    port: Callable[[str], Port]
    weights: Mapping[str, Array]
    withheld: Collection[str] = ()
    watch: Watch = UNWATCHED

    def answer(self, golden: Golden, inputs: Mapping[str, Array] | None = None) -> Array:
        """What the port's own component puts out for a golden's inputs, or for others."""
        port = self.port(golden.dtype)
        assert isinstance(port, Isolated), "an isolated result came from a port that runs components"
        with self.watch.over(
            f"{golden.component} ({golden.case} {golden.dtype} {Mode.ISOLATED}), to explain it"
        ):
            answer = port.apply(golden.component, inputs or self.file.inputs(golden))
            return np.asarray(answer[golden.component])

    @cached_property
    def facts(self) -> dict[str, Any]:
        """What a model's components tell of it, for hypotheses to use."""
        facts: dict[str, Any] = {"config_window": self.file.contents.config.get("sliding_window")}
        shapes = {parameter.name: parameter.shape for parameter in self.file.contents.parameters}
        for component in self.file.contents.components:
            if component.step == "cos":
                facts |= {name: component.settings[name] for name in ("head_dim", "theta")}
            if component.step == "expand_keys":
                facts["groups"] = component.settings["groups"]
            if component.step == "rms_norm" and component.parameters.get("weight") in shapes:
                facts["hidden_size"] = shapes[component.parameters["weight"]][0]
        return facts

    def parameters(self, names: Mapping[str, str], dtype: str) -> dict[str, Array]:
        """role -> tensor, rounded to `dtype` if the checkpoint has more digits; vectors as float64."""
        found = {}
        for role, name in names.items():
            if name not in self.weights:
                raise GoldensError(
                    f"the checkpoint has no tensor {name}, which the golden file was recorded with"
                )
            tensor, wanted = self.weights[name], numpy_dtype(dtype)
            # Every number of a shorter dtype is one of float32, and is widened where it is used.
            if tensor.dtype != wanted and not (dtype == "float32" and tensor.dtype.itemsize < 4):
                tensor = tensor.astype(wanted)
            found[role] = wide(tensor) if tensor.ndim == 1 else tensor
        return found
