"""What is wrong with a checkpoint, or with the pair of a golden file and a checkpoint."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.misuse.misuse import Change, Misuse, Section

RECORD, CHECK, REPLAY = (
    "goldens record suite.toml",
    "goldens check model --port qwen_flax.port:make",
    "goldens replay tiny.h5",
)
TEXT = {"suite.toml": 'checkpoint = "model"\ncases = ["english"]\n'}
CHAT = {"suite.toml": 'checkpoint = "model"\ncases = ["chat"]\n'}


def _json(name: str, **settings: Any) -> Change:
    """Settings changed in a file of `model/`; None takes one away."""

    def change(project: Path) -> None:
        path = project / "model" / name
        content = json.loads(path.read_text()) | settings
        path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))

    return change


def _without(*names: str) -> Change:
    def change(project: Path) -> None:
        for name in names:
            (project / name).unlink()

    return change


def _moved(old: str, new: str) -> Change:
    return lambda project: (project / old).rename(project / new) and None


def _tensors(edit: Callable[[dict[str, Any]], object], folder: str = "model") -> Change:
    def change(project: Path) -> None:
        from safetensors.numpy import load_file, save_file

        path = project / folder / "model.safetensors"
        tensors = load_file(path)
        edit(tensors)
        save_file(tensors, path, metadata={"format": "pt"})

    return change


def _cut(name: str) -> Change:
    def change(project: Path) -> None:
        path = project / name
        path.write_bytes(path.read_bytes()[:-40])

    return change


def _pickled(project: Path) -> None:
    _moved("model/model.safetensors", "model/pytorch_model.bin")(project)


def _gone(project: Path) -> None:
    (project / "checkpoint").rename(project / "elsewhere")


CHECKPOINTS = Section(
    "Checkpoints",
    "What cannot be recorded, or what a port refuses. Nothing is unpickled, and no code of a checkpoint is run.",
    (
        Misuse(
            "a folder without config.json",
            RECORD,
            "checkpoint model has no config.json: it is not a Hugging Face folder",
            change=_without("model/config.json"),
        ),
        Misuse(
            "weights as a pickle",
            RECORD,
            "checkpoint model has no .safetensors file: convert it first, pickles are not read",
            change=_pickled,
        ),
        Misuse(
            "a config.json that is no JSON",
            RECORD,
            "model/config.json cannot be read as JSON: ...",
            files={"model/config.json": "{"},
        ),
        Misuse(
            "a config.json that is a list",
            RECORD,
            "model/config.json holds a list, where a JSON object was expected",
            files={"model/config.json": "[]"},
        ),
        Misuse(
            "a config.json without a vocabulary",
            RECORD,
            "model/config.json has no vocab_size: it is no decoder's configuration",
            change=_json("config.json", vocab_size=None),
        ),
        Misuse(
            "a model that transformers does not know",
            RECORD,
            "transformers cannot load model: ...",
            change=_json("config.json", model_type="own"),
        ),
        Misuse(
            "a model with code of its own",
            RECORD,
            "checkpoint model brings code of its own for model_type 'own' (auto_map), and none of it is run: record it with a version of transformers that has this model",
            change=_json("config.json", model_type="own", auto_map={"AutoModelForCausalLM": "own.Model"}),
        ),
        Misuse(
            "a tensor too few",
            RECORD,
            "checkpoint model lacks tensors model.norm.weight: it is not whole",
            change=_tensors(lambda tensors: tensors.pop("model.norm.weight")),
        ),
        Misuse(
            "a tensor too many",
            RECORD,
            "checkpoint model has the surplus tensors model.norm.bias: it is not whole",
            change=_tensors(
                lambda tensors: tensors.update({"model.norm.bias": tensors["model.norm.weight"]})
            ),
        ),
        Misuse(
            "a tensor of another shape",
            RECORD,
            "checkpoint model has a wrong shape for tensors model.norm.weight ([111] instead of [112]): it is not whole",
            change=_tensors(
                lambda tensors: tensors.update({"model.norm.weight": tensors["model.norm.weight"][:-1]})
            ),
        ),
        Misuse(
            "a weight that is NaN",
            RECORD,
            "norm is NaN or infinite in 1344 of 1344 elements of the reference: is the checkpoint whole?",
            change=_tensors(
                lambda tensors: tensors.update(
                    {"model.norm.weight": tensors["model.norm.weight"] * float("nan")}
                )
            ),
        ),
        Misuse(
            "a file of tensors that is cut short",
            RECORD,
            "model/model.safetensors cannot be read as safetensors: ...",
            change=_cut("model/model.safetensors"),
        ),
        Misuse(
            "a text without a tokenizer",
            RECORD,
            "model has no tokenizer: add tokenizer.json, or give cases as token_ids",
            files=TEXT,
            change=_without("model/tokenizer.json", "model/tokenizer_config.json"),
        ),
        Misuse(
            "a tokenizer that is no JSON",
            RECORD,
            "the tokenizer of model cannot be loaded: ...",
            files=TEXT | {"model/tokenizer.json": "{"},
        ),
        Misuse(
            "a chat without a template",
            RECORD,
            "case chat is a chat, and the checkpoint's tokenizer has no chat template",
            files=CHAT,
            change=_json("tokenizer_config.json", chat_template=None),
        ),
        Misuse(
            "a dtype that the port does not run in",
            f"{CHECK} --dtype float64",
            "port 'qwen_flax.port:make' refused checkpoint model: dtype is 'float64', but one of float32, bfloat16, float16 was expected",
        ),
        Misuse(
            "a setting that the port does not know",
            CHECK,
            "port 'qwen_flax.port:make' refused checkpoint model: attn_logit_softcapping is a setting this model does not know (here 30.0): it may change results, so remove it from config.json only if it does not",
            change=_json("config.json", attn_logit_softcapping=30.0),
        ),
        Misuse(
            "a setting that the port does not implement",
            CHECK,
            "port 'qwen_flax.port:make' refused checkpoint model: hidden_act is 'gelu', but only 'silu' is implemented",
            change=_json("config.json", hidden_act="gelu"),
        ),
        Misuse(
            "a setting that the port needs",
            CHECK,
            "port 'qwen_flax.port:make' refused checkpoint model: hidden_size is missing from config.json, but a whole number of 1 or more was expected",
            change=_json("config.json", hidden_size=None),
        ),
        Misuse(
            "a number that is none",
            CHECK,
            "port 'qwen_flax.port:make' refused checkpoint model: hidden_size is '112', but a whole number of 1 or more was expected",
            change=_json("config.json", hidden_size="112"),
        ),
        Misuse(
            "heads that do not share keys evenly",
            CHECK,
            "port 'qwen_flax.port:make' refused checkpoint model: num_attention_heads is 14, which is no multiple of num_key_value_heads, 3: every key-value head must serve the same number of query heads",
            change=_json("config.json", num_key_value_heads=3),
        ),
        Misuse(
            "tensors that do not fit the port's model",
            CHECK,
            "port 'qwen_flax.port:make' refused checkpoint model: model does not fit its config.json: 9 of another shape: model.layers.0.mlp.down_proj.weight [112, 160] instead of [112, 144], model.layers.0.mlp.gate_proj.weight [160, 112] instead of [144, 112], model.layers.0.mlp.up_proj.weight [160, 112] instead of [144, 112], model.layers.1.mlp.down_proj.weight [112, 160] instead of [112, 144], model.layers.1.mlp.gate_proj.weight [160, 112] instead of [144, 112], model.layers.1.mlp.up_proj.weight [160, 112] instead of [144, 112], model.layers.2.mlp.down_proj.weight [112, 160] instead of [112, 144], model.layers.2.mlp.gate_proj.weight [160, 112] instead of [144, 112], model.layers.2.mlp.up_proj.weight [160, 112] instead of [144, 112]",
            change=_json("config.json", intermediate_size=144),
        ),
    ),
)

PAIRS = Section(
    "Golden file and checkpoint",
    "A replay is against what was recorded, or it is refused.",
    (
        Misuse(
            "other weights",
            REPLAY,
            "checkpoint checkpoint is not the recorded one: model.safetensors differ by SHA-256; replay with the recorded checkpoint, or record this one",
            change=_tensors(
                lambda tensors: tensors.update({"lm_head.weight": tensors["lm_head.weight"] * 2}),
                "checkpoint",
            ),
        ),
        Misuse(
            "another configuration",
            REPLAY,
            "checkpoint checkpoint is not the recorded one: hidden_size is 5, recorded 4",
            files={"checkpoint/config.json": '{"model_type": "tiny", "hidden_size": 5}'},
        ),
        Misuse(
            "a checkpoint that was moved",
            REPLAY,
            "tiny.h5 was recorded from the folder checkpoint, which is not there as seen from the file: say where it is with --checkpoint DIR",
            change=_gone,
        ),
    ),
)
