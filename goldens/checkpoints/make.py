"""Makes the small synthetic checkpoints beside this file: `python goldens/checkpoints/make.py [FOLDER]`.

They exist to show faults, so nothing in them is neutral: no zero bias, no norm weight of one, no near-uniform
attention, no two layers alike, no default rope base. docs/checkpoints.md says which mistake each choice
brings to light.

Every byte is the same wherever they are made. A weight is a whole number from a fixed generator times a
scale: one multiplication and the roundings to float32 and bfloat16, all of which IEEE 754 fixes. No
exponential, sine or normal distribution is involved, since those differ in the last place between machines.
"""

import json
import sys
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
END_OF_TEXT, END_OF_TURN = 256, 258

CHAT_TEMPLATE = Path(__file__).with_name("chat_template.jinja").read_text(encoding="utf-8")

PENALISED = {"do_sample": True, "repetition_penalty": 1.05, "temperature": 0.7, "top_k": 20, "top_p": 0.8}
"""What a checkpoint may bring in without a word: greedy texts are others, too, under the penalty."""
THINKING = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}


@dataclass(frozen=True)
class Checkpoint:
    """A model's shape, how its config.json is written, and how loud its weights are.

    rope: how frequencies are scaled for texts longer than the original length; empty if they are not
    generation: settings of generation_config.json; ends: token ids that end a text beside those of all
    """

    name: str
    model_type: str
    config_form: int
    vocab: int
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    tied: bool
    rope_theta: float
    sliding_window: int
    use_sliding_window: bool
    max_window_layers: int
    final_norm: float
    branch: float
    longest: int = 32768
    rope: Mapping[str, object] = field(default_factory=dict)
    generation: Mapping[str, object] = field(default_factory=lambda: {"do_sample": False})
    ends: tuple[int, ...] = ()

    @property
    def has_biases(self) -> bool:
        return self.model_type == "qwen2"


def scaled(name: str, config_form: int, longest: int, **rope: object) -> Checkpoint:
    """One layer with a scaled RoPE: heads of 16, so that there are frequencies on both sides of a ramp and on it."""
    return Checkpoint(
        name=name, model_type="qwen2", config_form=config_form, vocab=272, hidden=48, intermediate=32,
        layers=1, heads=4, kv_heads=2, head_dim=16, tied=True, rope_theta=1e6,
        sliding_window=16, use_sliding_window=False, max_window_layers=1, final_norm=12.0, branch=0.5,
        longest=longest, rope=rope,
    )  # fmt: skip


CHECKPOINTS = (
    # Seven query heads to a key-value head, square q_proj and o_proj, a head of its own. The window is
    # written down but switched off: a port that reads it all the same goes wrong after 16 tokens.
    Checkpoint(
        name="qwen2-tiny", model_type="qwen2", config_form=4, vocab=512, hidden=112, intermediate=160,
        layers=3, heads=14, kv_heads=2, head_dim=8, tied=False, rope_theta=1e6,
        sliding_window=16, use_sliding_window=False, max_window_layers=1, final_norm=1.0, branch=0.5,
        generation=PENALISED,
    ),
    # Heads twice as wide as hidden / heads, norms on queries and keys, a window from layer 1 on. One of the texts
    # that are written after `left-padded` comes upon token 148, and ends.
    Checkpoint(
        name="qwen3-tiny", model_type="qwen3", config_form=5, vocab=384, hidden=64, intermediate=128,
        layers=3, heads=8, kv_heads=4, head_dim=16, tied=True, rope_theta=5e6,
        sliding_window=16, use_sliding_window=True, max_window_layers=1, final_norm=8.0, branch=0.5,
        generation=THINKING, ends=(148,),
    ),
    # More than ten layers, so that layers.10 must not sort before layers.2.
    Checkpoint(
        name="qwen2-deep", model_type="qwen2", config_form=5, vocab=320, hidden=32, intermediate=64,
        layers=12, heads=4, kv_heads=2, head_dim=8, tied=True, rope_theta=1e6,
        sliding_window=16, use_sliding_window=False, max_window_layers=12, final_norm=12.0, branch=0.5,
    ),
    scaled("qwen2-linear", 4, 64, type="linear", factor=4.0),
    # So short that one text of a batch is within the original length, and another beyond.
    scaled("qwen2-dynamic", 5, 8, rope_type="dynamic", factor=4.0),
    # The ends of the ramp are not YaRN's own, and the factor is not the quotient of the two lengths.
    scaled(
        "qwen2-yarn", 4, 1280, type="yarn", factor=4.0, original_max_position_embeddings=256,
        beta_fast=24, beta_slow=2,
    ),
    # Two waves lie between the ends.
    scaled(
        "qwen2-llama3", 5, 1024, rope_type="llama3", factor=8.0, original_max_position_embeddings=256,
        low_freq_factor=1.0, high_freq_factor=8.0,
    ),
    # All that is split over devices can be split over eight.
    Checkpoint(
        name="qwen2-eight", model_type="qwen2", config_form=5, vocab=264, hidden=48, intermediate=64,
        layers=1, heads=16, kv_heads=8, head_dim=8, tied=False, rope_theta=1e6,
        sliding_window=16, use_sliding_window=False, max_window_layers=1, final_norm=1.0, branch=0.5,
    ),
)  # fmt: skip

EMBEDDING_RMS = 2.0**-5
"""Small, as in real models: eps then matters in the first norm."""

TINY_ROWS = {7: 2.0**-11, 77: 2.0**-9, 127: 2.0**-10, 177: 2.0**-8, -3: 2.0**-9, -2: 2.0**-10}
"""Embedding rows with far less than EMBEDDING_RMS: in their norms eps is as large as the mean square."""


def draw(name: str, *shape: int) -> np.ndarray:
    """Whole numbers between -1020 and 1020 with a bell-shaped spread of `SPREAD`, from a stream per name.

    Each is the sum of the eight bytes of one raw word. The raw words of PCG64 never change between versions
    of numpy, which its distributions may.
    """
    words = np.random.PCG64(zlib.crc32(name.encode())).random_raw(int(np.prod(shape)))
    bytes_ = words.reshape(*shape, 1) >> np.arange(0, 64, 8, dtype=np.uint64) & np.uint64(255)
    return bytes_.sum(axis=-1).astype(np.int64) - 1020


SPREAD = 209.0
"""The standard deviation of `draw`: sqrt(8 (256^2 - 1) / 12), to the nearest whole number."""


def matrix(name: str, outputs: int, inputs: int, gain: float) -> np.ndarray:
    """A weight (O I) that turns inputs of rms 1 into outputs of rms `gain`. IEEE 754 fixes the root too."""
    return draw(name, outputs, inputs) * (gain / (SPREAD * float(np.sqrt(np.float64(inputs)))))


def bias(name: str, size: int, rms: float, large_every: int = 0) -> np.ndarray:
    """A bias of the given rms; every `large_every`-th channel is eight times as large, as key biases are."""
    values = draw(name, size) * (rms / SPREAD)
    if large_every:
        values[large_every // 2 :: large_every] *= 8.0
    return values


def norm_weight(name: str, size: int, scale: float = 1.0) -> np.ndarray:
    """Norm weights between 0.5 and 2 times `scale`, different in the two halves of every rotary pair."""
    return (16 + draw(name, size) % 48) * (scale / 32.0)


def embedding(name: str, vocab: int, hidden: int) -> np.ndarray:
    values = draw(name, vocab, hidden) * (EMBEDDING_RMS / SPREAD)
    for row, rms in TINY_ROWS.items():
        values[row] *= rms / EMBEDDING_RMS
    return values


def layer_tensors(spec: Checkpoint, prefix: str) -> Iterator[tuple[str, np.ndarray]]:
    """One decoder layer's tensors under the names `transformers` gives them."""
    stream = f"{spec.name}/{prefix}"
    queries, keys = spec.heads * spec.head_dim, spec.kv_heads * spec.head_dim
    projections = {
        "self_attn.q_proj": (queries, spec.hidden, 1.5),
        "self_attn.k_proj": (keys, spec.hidden, 1.5),
        "self_attn.v_proj": (keys, spec.hidden, 1.0),
        "self_attn.o_proj": (spec.hidden, queries, spec.branch),
        "mlp.gate_proj": (spec.intermediate, spec.hidden, 1.0),
        "mlp.up_proj": (spec.intermediate, spec.hidden, 1.0),
        "mlp.down_proj": (spec.hidden, spec.intermediate, spec.branch),
    }
    for role, (outputs, inputs, gain) in projections.items():
        yield f"{prefix}{role}.weight", matrix(f"{stream}{role}.weight", outputs, inputs, gain)
    for role in ("input_layernorm", "post_attention_layernorm"):
        yield f"{prefix}{role}.weight", norm_weight(f"{stream}{role}.weight", spec.hidden)
    if spec.has_biases:
        yield f"{prefix}self_attn.q_proj.bias", bias(f"{stream}q.bias", queries, 0.5)
        yield f"{prefix}self_attn.k_proj.bias", bias(f"{stream}k.bias", keys, 1.0, large_every=4)
        yield f"{prefix}self_attn.v_proj.bias", bias(f"{stream}v.bias", keys, 0.25)
    else:
        yield f"{prefix}self_attn.q_norm.weight", norm_weight(f"{stream}q_norm", spec.head_dim)
        yield f"{prefix}self_attn.k_norm.weight", norm_weight(f"{stream}k_norm", spec.head_dim, 2.0)


def tensors(spec: Checkpoint) -> dict[str, np.ndarray]:
    """Every tensor of the checkpoint, in bfloat16, rounded to float32 on the way."""
    embed, head, norm = "model.embed_tokens.weight", "lm_head.weight", "model.norm.weight"
    values = {embed: embedding(f"{spec.name}/{embed}", spec.vocab, spec.hidden)}
    for layer in range(spec.layers):
        values.update(layer_tensors(spec, f"model.layers.{layer}."))
    values[norm] = norm_weight(f"{spec.name}/{norm}", spec.hidden, spec.final_norm)
    if not spec.tied:
        values[head] = matrix(f"{spec.name}/{head}", spec.vocab, spec.hidden, 2.0)
    return {name: value.astype(np.float32).astype(ml_dtypes.bfloat16) for name, value in values.items()}


def config(spec: Checkpoint) -> dict[str, object]:
    """config.json, as transformers 4 or 5 writes it."""
    common: dict[str, object] = {
        "architectures": [f"{spec.model_type.capitalize()}ForCausalLM"],
        "attention_dropout": 0.0,
        "bos_token_id": END_OF_TEXT,
        "eos_token_id": END_OF_TURN,
        "hidden_act": "silu",
        "hidden_size": spec.hidden,
        "initializer_range": 0.02,
        "intermediate_size": spec.intermediate,
        "max_position_embeddings": spec.longest,
        "max_window_layers": spec.max_window_layers,
        "model_type": spec.model_type,
        "num_attention_heads": spec.heads,
        "num_hidden_layers": spec.layers,
        "num_key_value_heads": spec.kv_heads,
        "rms_norm_eps": 1e-6,
        "sliding_window": spec.sliding_window,
        "tie_word_embeddings": spec.tied,
        "use_cache": True,
        "use_sliding_window": spec.use_sliding_window,
        "vocab_size": spec.vocab,
    }
    if spec.model_type == "qwen3":
        common |= {"attention_bias": False}
    if spec.head_dim * spec.heads != spec.hidden:
        common |= {"head_dim": spec.head_dim}
    if spec.config_form == 4:
        common |= {"rope_theta": spec.rope_theta, "torch_dtype": "bfloat16"}
        return common | ({"rope_scaling": dict(spec.rope)} if spec.rope else {})
    return common | {
        "dtype": "bfloat16",
        "layer_types": [layer_type(spec, layer) for layer in range(spec.layers)],
        "rope_parameters": {"rope_theta": spec.rope_theta, "rope_type": "default", **spec.rope},
    }


def layer_type(spec: Checkpoint, layer: int) -> str:
    slides = spec.use_sliding_window and layer >= spec.max_window_layers
    return "sliding_attention" if slides else "full_attention"


def byte_alphabet() -> list[str]:
    """The printable stand-in of every byte in a byte-level vocabulary, by byte value.

    Bytes that print stand for themselves; the others take the code points from 256 upwards in turn.
    """
    printable = {*range(33, 127), *range(161, 173), *range(174, 256)}
    stand_ins = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(stand_ins)) for byte in range(256)]


def tokenizer() -> dict[str, object]:
    """tokenizer.json: one token a byte, whose id is the byte, and the special tokens after them."""
    byte_level = {"add_prefix_space": False, "trim_offsets": False, "type": "ByteLevel", "use_regex": False}
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [
            {"id": 256 + place, "content": token, **flags} for place, token in enumerate(SPECIAL_TOKENS)
        ],
        "normalizer": None,
        "pre_tokenizer": byte_level,
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {character: byte for byte, character in enumerate(byte_alphabet())},
            "merges": [],
        },
    }


def write_json(path: Path, content: dict[str, object]) -> None:
    text = json.dumps(content, ensure_ascii=True, indent=2, sort_keys=True) + "\n"
    path.write_bytes(text.encode())


def write_checkpoint(folder: Path, spec: Checkpoint) -> None:
    """Writes one Hugging Face folder: weights, configuration, tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(tensors(spec), folder / "model.safetensors", metadata={"format": "pt"})
    write_json(folder / "config.json", config(spec))
    write_json(folder / "tokenizer.json", tokenizer())
    write_json(
        folder / "generation_config.json",
        {
            "bos_token_id": END_OF_TEXT,
            "eos_token_id": [END_OF_TURN, END_OF_TEXT, *spec.ends],
            "pad_token_id": END_OF_TEXT,
            **spec.generation,
        },
    )
    in_config = spec.config_form == 4
    if not in_config:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8")
    write_json(
        folder / "tokenizer_config.json",
        {
            "add_bos_token": False,
            **({"chat_template": CHAT_TEMPLATE} if in_config else {}),
            "clean_up_tokenization_spaces": False,
            "eos_token": "<|im_end|>",
            "model_max_length": 32768,
            "pad_token": "<|endoftext|>",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    )


def main(folder: Path) -> None:
    for spec in CHECKPOINTS:
        write_checkpoint(folder / spec.name, spec)
        print(folder / spec.name)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
