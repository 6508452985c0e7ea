"""A port that lies otherwise wherever it can: RoPE on neighbouring channels with weights permuted for it, a padded
vocabulary. Declared, it is compared with the reference as it is; nothing of it has to be put back in place.
"""

from pathlib import Path

import jax.numpy as jnp
import pytest
from flax import nnx

from harness.model import Mode, Verdict
from harness.ports import ModelPort, Param, Part, Tap, nnx_model
from harness.replay.session import Session
from harness.store.reader import GoldenFile
from qwen_flax import checkpoint as checkpoints
from qwen_flax import config as configs
from qwen_flax import port as qwen
from qwen_flax.layers import Attention, split_heads

GOLDENS = Path(__file__).parents[1] / "goldens"
PADDING = 21
"""Rows of the vocabulary that no token has."""
HALVES_TO_PAIRS = {
    **{f"rotary_emb.{part}": "B T (E F) -> B T (F E)" for part in ("cos", "sin")},
    "layers.{n}.self_attn.q_proj": "B T (K G E F) -> B T (K G F E)",
    "layers.{n}.self_attn.k_proj": "B T (K E F) -> B T (K F E)",
    "layers.{n}.self_attn.q_rope": "B H T (E F) -> B H T (F E)",
    "layers.{n}.self_attn.k_rope": "B K T (E F) -> B K T (F E)",
    "layers.{n}.self_attn.k_expanded": "B H T (E F) -> B H T (F E)",
}


def rotate_neighbours(x, cos, sin):
    """x (B H T D); each even channel and the one behind it turn together."""
    turned = jnp.stack([-x[..., 1::2], x[..., ::2]], axis=-1).reshape(x.shape)
    return x * cos[:, None] + turned * sin[:, None]


def q_rope(self, x, cos, sin):
    return rotate_neighbours(jnp.swapaxes(split_heads(x, self.head_dim), 1, 2), cos, sin)


def paired(matrix, head_dim):
    """The outputs of a kernel (O I) transposed, of a bias (O), or angles: each head's in pairs."""
    heads = matrix.reshape(*matrix.shape[:-1], -1, 2, head_dim // 2)
    return jnp.swapaxes(heads, -1, -2).reshape(matrix.shape)


@pytest.fixture
def port(monkeypatch):
    monkeypatch.setattr(Attention, "q_rope", q_rope)
    monkeypatch.setattr(Attention, "k_rope", q_rope)
    folder = GOLDENS / "checkpoints" / "qwen2-tiny"
    config = configs.read(folder)
    model, size = checkpoints.load(folder, config, dtype="float32"), config.head_dim
    angles = model.rotary_emb.angles
    monkeypatch.setattr(type(model.rotary_emb), "angles", lambda self, p: paired(angles(p), size))
    for layer in model.layers:
        for product in (layer.self_attn.q_proj, layer.self_attn.k_proj):
            product.kernel[...] = paired(product.kernel[...].T, size).T
            product.bias[...] = paired(product.bias[...], size)
    vocabulary = model.embed_tokens.embedding[...].shape[0]
    model.embed_tokens.embedding = nnx.Param(
        jnp.pad(model.embed_tokens.embedding[...], ((0, PADDING), (0, 0)))
    )
    model.lm_head.kernel = nnx.Param(jnp.pad(model.lm_head.kernel[...], ((0, PADDING), (0, 0))))
    queries, keys = config.num_attention_heads, config.num_key_value_heads
    return ModelPort(
        nnx_model(model),
        lambda model, **inputs: model(**inputs),
        {
            **qwen.COMPONENTS,
            **{name: Tap(name, layout=layout) for name, layout in HALVES_TO_PAIRS.items()},
            "lm_head": Tap("lm_head", part=Part(0, (vocabulary, PADDING))),
        },
        parameters={
            **qwen.PARAMETERS,
            **{
                f"model.layers.{{n}}.self_attn.{name}.{role}": Param(
                    f"layers.{{n}}.self_attn.{name}.{ours}", layout
                )
                for name, heads in (("q_proj", "K G"), ("k_proj", "K"))
                for role, ours, layout in (
                    ("weight", "kernel", f"({heads} E F) I -> ({heads} F E) I"),
                    ("bias", "bias", f"({heads} E F) -> ({heads} F E)"),
                )
            },
            "model.embed_tokens.weight": Param(
                "embed_tokens.embedding", part=Part(0, (vocabulary, PADDING), axis=0)
            ),
            "lm_head.weight": Param("lm_head.kernel", part=Part(0, (vocabulary, PADDING), axis=0)),
        },
        sizes={"K": keys, "G": queries // keys, "E": 2, "F": size // 2},
    )


def test_it_passes_as_it_lies(port):
    file = GoldenFile.open(GOLDENS / "qwen2-tiny.h5")
    session = Session(file, lambda dtype: port)
    goldens = file.select(cases=["left-padded"], dtypes=["float32"])
    facts = [
        f
        for f in file.select_facts(cases=["checkpoint"], dtypes=["float32"])
        if f.fact.family == "parameters"
    ]
    results = list(session.replay([*goldens, *facts], [Mode.ISOLATED, Mode.END_TO_END]))
    assert {result.verdict for result in results} == {Verdict.PASS}
    assert {"layers.1.self_attn.scores", "lm_head", "parameters.lm_head.weight"} <= {
        r.component for r in results
    }


def test_undeclared_it_fails_where_it_lies_otherwise_and_scores_do_not(port):
    file = GoldenFile.open(GOLDENS / "qwen2-tiny.h5")
    told = {name: Tap(name) for name in HALVES_TO_PAIRS}
    port._components |= told
    session = Session(file, lambda dtype: port)
    goldens = file.select(["*.self_attn.*", "rotary*"], cases=["left-padded"], dtypes=["float32"])
    results = list(session.replay(goldens, [Mode.END_TO_END]))
    wrong = {result.component for result in results if result.verdict is Verdict.FAIL}
    assert wrong == {name.replace("{n}", str(n)) for name in HALVES_TO_PAIRS for n in range(3)}
    assert len(results) > len(wrong)
