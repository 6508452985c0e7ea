"""Qwen2, Qwen2.5 and dense Qwen3: token ids in, logits out.

The forward pass is composed of the steps that goldens are recorded of, and of nothing else: each is a
submodule or a method with the step's name, so that running one by itself runs the code of the forward pass.
"""

from flax import nnx
from jax import Array

from qwen_flax.cache import Cache, LayerCache
from qwen_flax.config import Config
from qwen_flax.layers import DecoderLayer, Embedding, Linear, RMSNorm, TiedHead
from qwen_flax.rope import RotaryEmbedding


class Model(nnx.Module):
    """A decoder-only transformer. Parameters are zeros until a checkpoint fills them.

    dtype: of parameters and of every step's output, "float32", "bfloat16" or "float16"
    """

    def __init__(self, config: Config, *, dtype: str):
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size, dtype=dtype)
        self.rotary_emb = RotaryEmbedding(config.rope_theta, config.head_dim, dtype, config.rope_scaling)
        self.layers = nnx.List(
            [DecoderLayer(config, window=window, dtype=dtype) for window in config.windows]
        )
        self.norm = RMSNorm(config.hidden_size, eps=config.rms_norm_eps, dtype=dtype)
        self.lm_head = (
            TiedHead(self.embed_tokens)
            if config.tie_word_embeddings
            else Linear(config.hidden_size, config.vocab_size, bias=False, dtype=dtype)
        )

    def __call__(
        self,
        token_ids: Array,
        attention_mask: Array,
        positions: Array,
        query_index: Array,
    ) -> Array:
        """The logits (B T V) of one pass without a cache.

        token_ids, positions (B T); attention_mask (B S), 0 at padding; query_index (T), the key that each
        query stands at, so S = T and query_index = 0 .. T-1 for a whole prompt.
        """
        x, _ = self.hidden(token_ids, attention_mask, positions, query_index, None)
        return self.lm_head(x)

    def hidden(
        self,
        token_ids: Array,
        attention_mask: Array,
        positions: Array,
        query_index: Array,
        cache: Cache | None,
    ) -> tuple[Array, Cache | None]:
        """What lm_head takes in (B T C), and the cache with these tokens in it; S is the cache's capacity."""
        x = self.embed_tokens(token_ids)
        cos, sin = self.rotary_emb.cos(positions), self.rotary_emb.sin(positions)
        written: list[LayerCache] = []
        for n, layer in enumerate(self.layers):
            layer_cache = None if cache is None else cache[n]
            x, layer_cache = layer(x, cos, sin, attention_mask, query_index, layer_cache)
            if layer_cache is not None:
                written.append(layer_cache)
        return self.norm(x), tuple(written) if cache is not None else None
