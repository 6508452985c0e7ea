"""Each blind spot, found in a golden file recorded to have it, and not in one that leaves nothing out."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("torch")

from safetensors.numpy import load_file, save_file

from harness.checkpoints import read_config
from harness.guard.blindness import blind_spots, blind_spots_of_case
from harness.inputs import CaseInputs, Rows, assemble
from harness.record import recorder
from harness.record.floors import Depth
from harness.record.keep import parse
from harness.record.recorder import Recorder, Request, Silent, record
from harness.store.reader import GoldenFile
from harness.weights import Weights

GOLDENS = Path(__file__).parents[3] / "goldens"
TINY, LAST = 7, -1
"""A token whose embedding has a tiny norm, and the vocabulary's last."""
PADDED = Rows([[5, 9, 70, 41, 230, 3], [31, 8]], "left", 300)
BEHIND = Rows([[6, LAST], [7, TINY, 12, 11]], "right")
LONG = Rows([[TINY, 300, 4, LAST, *range(60, 80)]])
WHOLE = (PADDED, BEHIND, LONG)
"""Cases that leave nothing out."""


@dataclass(frozen=True)
class Blind:
    """A recording: of which cases, of a copy of which checkpoint, with these settings and these tensors."""

    cases: tuple[Rows, ...] = WHOLE
    checkpoint: str = "qwen2-tiny"
    config: dict = field(default_factory=dict)
    edit: Callable[[dict], None] = lambda tensors: None
    keep: str = "components=*"
    names: tuple[str, ...] = ("one", "two", "three", "four", "five")


@pytest.fixture(autouse=True)
def no_floors(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blind spots are found in what was recorded; noise floors take longer than all of it."""
    shallow = partial(Recorder, depth=Depth(isolated=False, draws=0))
    monkeypatch.setattr(recorder, "Recorder", shallow)


def recorded(folder: Path, blind: Blind) -> tuple[GoldenFile, Weights]:
    checkpoint = folder / "checkpoint"
    shutil.copytree(GOLDENS / "checkpoints" / blind.checkpoint, checkpoint)
    config = read_config(checkpoint) | blind.config
    (checkpoint / "config.json").write_text(json.dumps(config))
    tensors = load_file(checkpoint / "model.safetensors")
    blind.edit(tensors)
    save_file(tensors, checkpoint / "model.safetensors", metadata={"format": "pt"})
    named = zip(blind.names, blind.cases, strict=False)
    cases = tuple(case(name, rows, config["vocab_size"]) for name, rows in named)
    request = Request(str(checkpoint), "folder", checkpoint, config, cases, ("float32",), parse([blind.keep]))
    record(request, folder / "blind.h5", Silent())
    return GoldenFile.open(folder / "blind.h5"), Weights(checkpoint)


def case(name: str, rows: Rows, vocabulary: int) -> CaseInputs:
    ids = [[token % vocabulary for token in row] for row in rows.ids]
    return assemble(name, "randomized", "", Rows(ids, rows.padding, rows.start), vocabulary)


def set_all(end: str, value: float):
    def edit(tensors):
        for name in tensors:
            if name.endswith(end):
                tensors[name] = np.full_like(tensors[name], value)

    return edit


def equal_pairs(tensors):
    for name, value in tensors.items():
        if name.endswith("k_norm.weight"):
            tensors[name] = np.concatenate([value[: len(value) // 2]] * 2)


def symmetric(tensors):
    for name, value in tensors.items():
        if value.ndim == 2 and len(set(value.shape)) == 1:
            tensors[name] = np.tril(value) + np.tril(value, -1).T


def quieter(part: str, factor: float):
    def edit(tensors):
        for name in tensors:
            if part in name:
                tensors[name] = (tensors[name] * factor).astype(tensors[name].dtype)

    return edit


def loud_embedding(tensors):
    """Rows of an rms of one, the tiny ones too."""
    rows = tensors["model.embed_tokens.weight"].astype(np.float32)
    rows /= np.sqrt(np.mean(np.square(rows), axis=1, keepdims=True))
    tensors["model.embed_tokens.weight"] = rows.astype(ml_dtypes.bfloat16)


def layer_twice(tensors):
    tensors["model.layers.1.mlp.up_proj.weight"] = tensors["model.layers.0.mlp.up_proj.weight"].copy()


def head_like_embedding(tensors):
    tensors["lm_head.weight"] = tensors["model.embed_tokens.weight"].copy()


def heads(count: int):
    """The first `count` key-value heads of size 8 alone."""

    def edit(tensors):
        for name in tensors:
            if "k_proj" in name or "v_proj" in name:
                tensors[name] = np.concatenate([tensors[name]] * 7)[: count * 8].copy()

    return edit


def first_layer_only(tensors):
    for name in [name for name in tensors if "layers.1" in name or "layers.2" in name]:
        del tensors[name]


def narrow_heads(tensors):
    """Heads of 8 where they were of 16: as wide as hidden / heads."""
    for name, value in tensors.items():
        if "self_attn" in name:
            tensors[name] = value[:, ::2].copy() if "o_proj" in name else value[: len(value) // 2].copy()


UNPADDED = Rows([[5, 9, 70], [31, 8, 4]], start=300)
SPOTS = {
    "single token": Blind((Rows([[5]], start=300), Rows([[TINY], [LAST]]))),
    "identical tokens": Blind((Rows([[TINY] * 5, [LAST] * 3], "left", 300), Rows([[9] * 6, [4]], "right"))),
    "no padding": Blind((LONG, UNPADDED)),
    "right padding only": Blind((LONG, BEHIND, UNPADDED)),
    "left padding only": Blind((LONG, PADDED)),
    "batch of one": Blind((LONG, Rows([[5, 9]], start=300))),
    "short positions": Blind((BEHIND, Rows([[5, 9, 70], [31, 8]], "left", 3))),
    "positions from 0": Blind((BEHIND, Rows([[5, 9, 70], [31, 8]], "left"))),
    "end of vocabulary": Blind((PADDED, Rows([[6, 8], [7, TINY, 12, 447]], "right"))),
    "window never left": Blind((PADDED, BEHIND), "qwen3-tiny"),
    "near-uniform attention": Blind(edit=quieter("q_proj", 0.01)),
    "no tiny norm": Blind(edit=loud_embedding),
    "straight activation": Blind(edit=quieter("gate_proj", 0.05)),
    "no shared heads": Blind(config={"num_key_value_heads": 14}, edit=heads(14)),
    "one key-value head": Blind(config={"num_key_value_heads": 1}, edit=heads(1)),
    "head size": Blind(WHOLE, "qwen3-tiny", {"head_dim": 8}, narrow_heads),
    "default rope base": Blind(config={"rope_theta": 10_000.0}),
    "parameters alike": Blind(edit=layer_twice),
    "one layer": Blind(config={"num_hidden_layers": 1}, edit=first_layer_only),
    "zero biases": Blind(edit=set_all("v_proj.bias", 0)),
    "unit norm weights": Blind(edit=set_all("input_layernorm.weight", 1)),
    "norm weights in pairs": Blind(WHOLE, "qwen3-tiny", edit=equal_pairs),
    "symmetric weights": Blind(edit=symmetric),
}
BESIDES = {
    "single token": {"no padding"},
    "batch of one": {"no padding"},
    "positions from 0": {"short positions"},
}
"""What cannot be had without the other."""


@pytest.mark.parametrize("name", SPOTS)
def test_it_is_found_and_nothing_else(tmp_path, name):
    found = blind_spots(*recorded(tmp_path, SPOTS[name]))
    assert {spot.name for spot in found} == {name} | BESIDES.get(name, set())


@pytest.mark.parametrize("checkpoint", ["qwen2-tiny", "qwen3-tiny"])
def test_cases_that_leave_nothing_out_have_none(tmp_path, checkpoint):
    assert blind_spots(*recorded(tmp_path, Blind(checkpoint=checkpoint))) == []


@pytest.mark.parametrize("name", ["qwen2-tiny", "qwen3-tiny", "qwen2-deep"])
def test_the_built_in_golden_files_leave_nothing_out(name):
    assert blind_spots(GoldenFile.open(GOLDENS / f"{name}.h5"), Weights(GOLDENS / "checkpoints" / name)) == []


def test_one_layer_that_is_not_neutral_is_enough(tmp_path):
    def edit(tensors):
        for name in tensors:
            if name.endswith(("layernorm.weight", "bias")) and "layers.2" not in name:
                tensors[name] = np.full_like(tensors[name], "norm" in name)

    assert blind_spots(*recorded(tmp_path, Blind(edit=edit))) == []


def test_a_head_like_the_embedding_may_be_tied(tmp_path):
    [spot] = blind_spots(*recorded(tmp_path, Blind(edit=head_like_embedding)))
    assert str(spot) == (
        "lm_head.weight and model.embed_tokens.weight are the same: hides a head that is tied or not, and one"
        " loaded in place of another; only another checkpoint can show it"
    )


def test_what_is_not_recorded_is_not_judged(tmp_path):
    assert blind_spots(*recorded(tmp_path, Blind(edit=loud_embedding, keep="components=lm_head"))) == []


def test_tokens_that_are_left_out_make_a_case_blind(tmp_path):
    """Of the first two token positions, a text that is padded on the left has none, and no padding is seen."""
    found = list(map(str, blind_spots(*recorded(tmp_path, Blind(keep="tokens=0-1")))))
    assert any(
        spot.startswith(
            "by the tokens that are kept of it, case one is one of no padding: hides the padding mask"
        )
        for spot in found
    )


@pytest.mark.parametrize("keep", ["tokens=sample:2", "tokens=sample:8"])
def test_a_sample_leaves_no_case_blind(tmp_path, keep):
    assert blind_spots(*recorded(tmp_path, Blind(keep=keep))) == []


def test_it_says_what_it_hides_and_which_case_shows_it(tmp_path):
    spots = blind_spots(*recorded(tmp_path, SPOTS["single token"]))
    assert str(spots[0]) == (
        "every case is one token: hides RoPE, mask, scores and softmax; add the case `english`"
    )


def test_a_case_that_was_not_enough_is_not_asked_for_again(tmp_path):
    blind = Blind((Rows([[5]], start=300), Rows([[TINY], [LAST]])), names=("english", "other"))
    assert blind_spots(*recorded(tmp_path, blind))[0].remedy == "add a `[[randomized]]` entry"
    again = Blind(edit=loud_embedding, names=("a", "b", "tiny-norm"))
    (tmp_path / "again").mkdir()
    [spot] = blind_spots(*recorded(tmp_path / "again", again))
    assert spot.remedy == "only another checkpoint can show it"


def test_what_one_case_cannot_show(tmp_path):
    cases = (Rows([[5], [6]]), Rows([[5, 5, 5], [6, 6]], "left"), UNPADDED, BEHIND, PADDED)
    file, _ = recorded(tmp_path, Blind(cases))
    assert {
        case.name: [spot.name for spot in blind_spots_of_case(file, case.name)]
        for case in file.contents.cases
    } == {
        "one": ["single token", "no padding"],
        "two": ["identical tokens"],
        "three": ["no padding"],
        "four": ["right padding only"],
        "five": [],
    }
    single = blind_spots_of_case(file, "one")[0]
    assert (single.says, single.hides) == ("this case has one token", "RoPE, mask, scores and softmax")


def test_it_needs_numpy_only():
    heavy = "{'torch', 'jax', 'flax', 'h5py', 'transformers'}"
    check = f"import sys, harness.guard.blindness; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", check], check=True)
