"""Facts of parameters: what each one's numbers hash to in every dtype, read from the checkpoint's own files."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from harness.errors import GoldensError
from harness.facts.fingerprint import fingerprint
from harness.model import Fact
from harness.weights import Weights

CASE = "checkpoint"


def parameter_names(model: Any) -> dict[str, str]:
    """Every name that the loaded reference has for a parameter -> the name it goes by, which differs where it is tied.

    In the order of the modules.
    """
    first: dict[int, str] = {}
    return {
        name: first.setdefault(id(parameter), name)
        for name, parameter in model.named_parameters(remove_duplicate=False)
    }


def parameter_facts(folder: Path, dtypes: Collection[str], names: Mapping[str, str]) -> list[Fact]:
    """One fact of the list of names, then one of each parameter.

    names: as `parameter_names` gives them. Raises GoldensError for a parameter that the files do not name.
    """
    own = [name for name, goes_by in names.items() if name == goes_by]
    tied = {name: goes_by for name, goes_by in names.items() if name != goes_by}
    listed = Fact("parameters", "parameters", CASE, {}, {"names": own, "tied": tied})
    return [listed, *_of_each(folder, dtypes, own, tied)]


def _of_each(
    folder: Path, dtypes: Collection[str], names: Collection[str], tied: Mapping[str, str]
) -> Iterator[Fact]:
    weights = Weights(folder)
    for name in names:
        stored_as = [name, *(other for other, goes_by in tied.items() if goes_by == name)]
        found = next((weights[stored] for stored in stored_as if stored in weights), None)
        if found is None:
            raise GoldensError(
                f"checkpoint {folder} has no tensor {name}, which the loaded model has: "
                "save the model again with the version of transformers that is installed"
            )
        expected = {
            "shape": list(found.shape),
            "stored": found.dtype.name,
            "sha256": {dtype: fingerprint(found, dtype) for dtype in dtypes},
        }
        yield Fact(f"parameters.{name}", "parameters", CASE, {}, expected)
