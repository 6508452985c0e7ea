"""How large is the error of honest implementations, beside the noise floor and the tolerance?

    python benchmarks/floors.py goldens/*.h5               # golden files, replayed with the project's port
    python benchmarks/floors.py --wide 896 --wide 3584     # single layers of these hidden sizes, made for it

For every kind of component and dtype it prints, over all layers and cases: the reference's error against float64 over
the modelled floor and the port's over the noise floor (largest of the three views), the tolerance of the whole tensor
as a relative L2 (median and maximum), and the tolerance over the worst error of an honest implementation. Reference
and port are two of these; where both happen to round alike, a third stands for other honest orders: products, norms
and softmax summed from the first term to the last in float32, the bias added after rounding, and the frequencies of
cos and sin by exp and log in float32.

Exits with 1 when an error exceeds its tolerance, when the tolerance of a float32 product reaches 1e-5 up to
K = 4,864, or when a kind's tolerance is more than 8 times the worst honest error.
"""

import argparse
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from safetensors import safe_open

from harness.checkpoints import read_config, resolve
from harness.compare.files import places
from harness.compare.metrics import counts, views
from harness.compare.tolerance import limit, noise_floor
from harness.inputs import Rows, assemble, draw_rows
from harness.kinds.frequencies import attention_factor, frequencies
from harness.kinds.step import Evaluation
from harness.kinds.table import STEPS
from harness.model import Golden, Mode, Views
from harness.record.keep import parse
from harness.record.recorder import Request, Silent, record
from harness.record.reference import TORCH_DTYPES
from harness.record.torch_arrays import TorchArrays
from harness.replay.port import Isolated, wired
from harness.replay.session import checked_factory, recorded_checkpoint
from harness.report.result import ratio
from harness.settings import port_setting
from harness.store.reader import GoldenFile

PRODUCT_LIMIT, PRODUCT_WIDTH, SLACK = 1e-5, 4864, 8.0
SAMPLE = 4096
"""Elements of a kind from which its worst honest error is no luck."""
HEAD_SAMPLE = 32
"""Angles hang on the roundings of half as many frequencies: of a head of 8, on three, which may all be lucky."""
FLOAT64 = TorchArrays(torch.float64)


@dataclass(frozen=True)
class Row:
    """One golden: errors over floor of reference and port, tolerance and worst honest error of the whole tensor.

    width: of a product; elements: how many roundings its errors are of; 0 for those of too few frequencies
    """

    kind: str
    dtype: str
    reference: float
    port: float
    port_over_limit: float
    tolerance: float
    worst: float
    width: int
    elements: int


def rows(file: GoldenFile, checkpoint: Path) -> Iterator[Row]:
    """Every rounded component of a golden file, isolated, against its step in float64."""
    make_port = checked_factory(file, port_setting(Path.cwd()), str(checkpoint))
    weights = Weights(checkpoint)
    for dtype in file.dtypes:
        port = wired(make_port(dtype), file.contents.components)
        assert isinstance(port, Isolated)
        goldens = [g for g in file.contents.goldens if g.dtype == dtype and g.isolated is not None]
        for golden in track(
            goldens, f"{file.path.name} {dtype}", console=Console(stderr=True), transient=True
        ):
            component = file.component(golden.component)
            if not component.exact:
                answer = np.asarray(port.apply(golden.component, file.inputs(golden))[golden.component])
                yield measure(file, golden, answer, weights)


def measure(file: GoldenFile, golden: Golden, answer: np.ndarray, weights: "Weights") -> Row:
    component = file.component(golden.component)
    assert component.step is not None
    assert golden.isolated is not None
    inputs = {name: widened(array) for name, array in file.inputs(golden).items()}
    parameters = {role: weights[name].to(torch.float64) for role, name in component.parameters.items()}
    evaluation = Evaluation(FLOAT64, inputs, parameters, component.settings)
    exact = STEPS[component.step].evaluate(evaluation).numpy()
    where = places(file, golden)

    def error(value: np.ndarray) -> Views:
        return views(value.astype(np.float64) - exact, exact, component.axes, where)

    reference, port = error(file.output(golden)), error(answer)
    third = reference.whole
    if component.step in THIRD:
        other = THIRD[component.step](evaluation, TORCH_DTYPES[golden.dtype])
        same = exact[:, : other.shape[1], ..., : other.shape[-1]]
        third = error(other).whole if other.shape == exact.shape else relative(other - same, same)
    floor = noise_floor(golden.isolated, golden.dtype, component.exact)
    sizes = counts(exact.shape, component.axes, where)
    allowed = limit(golden.isolated, golden.dtype, Mode.ISOLATED, component.exact, sizes)
    # The reference's own error is part of its floor; against the model alone it is a check of the model.
    modelled = noise_floor(
        type(golden.isolated)(golden.isolated.modelled, golden.isolated.modelled), golden.dtype, False
    )
    few = component.step in ("cos", "sin") and component.settings["head_dim"] < HEAD_SAMPLE
    return Row(
        kind=component.kind,
        dtype=golden.dtype,
        reference=ratio(reference, modelled),
        port=ratio(port, floor),
        port_over_limit=ratio(port, allowed),
        tolerance=allowed.whole,
        worst=max(reference.whole, port.whole, third),
        width=inputs["x"].shape[-1] if component.step == "linear" else 0,
        elements=0 if few else exact.size,
    )


def relative(error: np.ndarray, reference: np.ndarray) -> float:
    """Of the whole tensor."""
    return float(np.linalg.norm(error) / np.linalg.norm(reference))


def summed_in_order(e: Evaluation, dtype: torch.dtype) -> np.ndarray:
    """A product of the first tokens, term by term in float32, rounded, and then its bias; only so many channels."""
    x = e.inputs["x"][:, :ROWS].float()
    weight = e.parameters["weight"][:CHANNELS].float()
    total = torch.zeros(*x.shape[:2], len(weight))
    for term in range(x.shape[-1]):
        total += x[..., term, None] * weight[:, term]
    product = total.to(dtype)
    bias = e.parameters.get("bias")
    return (product if bias is None else product + bias[:CHANNELS].to(dtype)).double().numpy()


def normed_in_order(e: Evaluation, dtype: torch.dtype) -> np.ndarray:
    """A norm whose squares are added one after another in float32."""
    x = e.inputs["x"]
    size = e.settings["head_dim"]
    x = (x if size is None else x.reshape(*x.shape[:2], -1, size)).float()
    squares = torch.zeros(*x.shape[:-1], 1)
    for channel in range(x.shape[-1]):
        squares += x[..., channel, None].square()
    normed = x * torch.rsqrt(squares / x.shape[-1] + e.settings["eps"])
    return (e.parameters["weight"].to(dtype) * normed.to(dtype)).double().numpy()


def softmax_in_order(e: Evaluation, dtype: torch.dtype) -> np.ndarray:
    """A softmax whose exponentials are added one after another in float32."""
    visible = STEPS["probs"].evaluate(e) > 0
    scores = torch.where(visible, e.inputs["scores"], -torch.inf).float()
    terms = torch.exp(scores - scores.amax(-1, keepdim=True))
    total = torch.zeros(*terms.shape[:-1], 1)
    for key in range(terms.shape[-1]):
        total += terms[..., key, None]
    return (terms / total).nan_to_num().to(dtype).double().numpy()


def by_logarithm(e: Evaluation, function: str) -> np.ndarray:
    """cos or sin in float32, with frequencies exp(-2i / D ln theta), stretched as the step's are."""
    size, theta = e.settings["head_dim"], e.settings["theta"]
    exponents = np.arange(0, size, 2, dtype=np.float32) / np.float32(size)
    stretched = frequencies(e).numpy() * theta ** exponents.astype(np.float64)
    own = np.exp(-exponents * np.log(np.float32(theta))) * stretched.astype(np.float32)
    angles = e.inputs["positions"].numpy().astype(np.float32)[..., None] * own
    turned = getattr(np, function)(np.concatenate((angles, angles), axis=-1))
    return turned.astype(np.float64) * attention_factor(e.settings)


ROWS, CHANNELS = 8, 256
THIRD: dict[str, Callable[[Evaluation, torch.dtype], np.ndarray]] = {
    "linear": summed_in_order,
    "rms_norm": normed_in_order,
    "head_norm": normed_in_order,
    "probs": softmax_in_order,
    "cos": lambda e, dtype: by_logarithm(e, "cos"),
    "sin": lambda e, dtype: by_logarithm(e, "sin"),
}


class Weights:
    """A checkpoint's tensors by name, read as they are asked for; a tied head is its embedding."""

    def __init__(self, folder: Path) -> None:
        self._files = [safe_open(path, framework="pt") for path in sorted(folder.glob("*.safetensors"))]

    def __getitem__(self, name: str) -> torch.Tensor:
        for file in self._files:
            if name in file.keys():  # noqa: SIM118 - it is no mapping
                return file.get_tensor(name)
        raise KeyError(name)


def widened(array: np.ndarray) -> torch.Tensor:
    if np.issubdtype(array.dtype, np.integer):
        return torch.from_numpy(array.astype(np.int64))
    return torch.from_numpy(array.astype(np.float64))


def make_wide(folder: Path, hidden: int) -> GoldenFile:
    """Record one case of a single wide layer."""
    checkpoint = wide_checkpoint(folder, hidden)
    ids = Rows(draw_rows(1, 512, 2, 8, 24, "left"), "left", 200)
    case = assemble("random", "randomized", "seed 1", ids, 512)
    path = folder / f"wide-{hidden}.h5"
    request = Request(
        str(checkpoint),
        "folder",
        checkpoint,
        read_config(checkpoint),
        (case,),
        ("float32", "bfloat16"),
        parse([]),
    )
    record(request, path, Silent())
    return GoldenFile.open(path)


def wide_checkpoint(folder: Path, hidden: int) -> Path:
    """Make one layer of Qwen2.5's proportions: 3,584 has an intermediate size of 18,944, 896 one of 4,864."""
    import transformers

    config = transformers.Qwen2Config(
        vocab_size=512,
        hidden_size=hidden,
        intermediate_size=round(hidden * 37 / 7 / 128) * 128 if hidden > 1024 else 4864,
        num_hidden_layers=1,
        num_attention_heads=hidden // 128 if hidden > 1024 else hidden // 64,
        num_key_value_heads=4 if hidden > 1024 else 2,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
    )
    torch.manual_seed(hidden)
    model = transformers.Qwen2ForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.uniform_(0.2, 3.0)
            elif "bias" in name:
                parameter.normal_(0, 0.3)
            else:
                # one input channel in a hundred carries most of the norm, as in trained models
                parameter.normal_(0, parameter.shape[-1] ** -0.5)
                parameter[:, ::100].mul_(8)
                if "q_proj" in name or "k_proj" in name:  # attention that is neither uniform nor one key
                    parameter.mul_(0.4)
    checkpoint = folder / f"wide-{hidden}"
    model.save_pretrained(checkpoint)
    return checkpoint


def report(name: str, found: list[Row], console: Console) -> list[str]:
    """Print the table of one golden file; return what does not hold."""
    groups: dict[tuple[str, str], list[Row]] = defaultdict(list)
    for row in found:
        groups[row.dtype, row.kind].append(row)
    table = Table(title=name, title_justify="left", box=None, header_style="dim", pad_edge=False)
    for heading in ("dtype", "kind"):
        table.add_column(heading)
    for heading in ("n", "reference/model", "port/floor", "tolerance median", "max", "over worst"):
        table.add_column(heading, justify="right")
    wrong = []
    for (dtype, kind), members in groups.items():
        tolerance = np.array([row.tolerance for row in members])
        slack = tolerance.max() / max(row.worst for row in members)
        reference, port = max(row.reference for row in members), max(row.port for row in members)
        table.add_row(
            dtype,
            kind,
            str(len(members)),
            f"{reference:.2f}",
            f"{port:.2f}",
            f"{np.median(tolerance):.1e}",
            f"{tolerance.max():.1e}",
            f"{slack:.1f}",
        )
        narrow = [row.tolerance for row in members if 0 < row.width <= PRODUCT_WIDTH and dtype == "float32"]
        for holds, sentence in (
            (max(row.port_over_limit for row in members) <= 1, "the port exceeds its tolerance"),
            (reference <= 4, "the reference exceeds the modelled floor by more than 4"),
            (max(narrow, default=0) < PRODUCT_LIMIT, f"a product's tolerance reaches {PRODUCT_LIMIT:.0e}"),
            (
                slack <= SLACK or sum(row.elements for row in members) < SAMPLE,
                f"the tolerance is {slack:.1f} x the worst honest error",
            ),
        ):
            if not holds:
                wrong.append(f"{name} {dtype} {kind}: {sentence}")
    console.print(table)
    return wrong


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE.h5")
    parser.add_argument("--wide", action="append", type=int, default=[], metavar="HIDDEN")
    parser.add_argument("--checkpoint", help="where the files' checkpoint is, if it was moved")
    options = parser.parse_args()
    console = Console(width=120)
    wrong = []
    for path in options.files:
        file = GoldenFile.open(path)
        checkpoint = resolve(options.checkpoint or recorded_checkpoint(file))
        wrong += report(path.name, list(rows(file, checkpoint)), console)
    for hidden in options.wide:
        with tempfile.TemporaryDirectory() as folder:
            file = make_wide(Path(folder), hidden)
            wrong += report(
                f"one layer, hidden {hidden}", list(rows(file, Path(folder) / f"wide-{hidden}")), console
            )
    for sentence in wrong:
        console.print(sentence, style="red")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
