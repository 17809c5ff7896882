"""What a causal language model keeps in mind between tokens.

Where that is keys and values alone, they are kept in tensors with room to grow, rows
can leave the batch, and several continuations share one prompt.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel, cache_utils
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from alignlab.models.fit import has_virtual_tokens, inputs_of, plain_model

if TYPE_CHECKING:
    from transformers.cache_utils import DummyLayer
else:  # of layers that keep nothing; older transformers, such as Colab's, has none
    DummyLayer = getattr(cache_utils, "DummyLayer", type("DummyLayer", (), {}))

SPARE_TOKENS = 16  # more takes more memory, fewer means copying more often


def keeps_cache(model: nn.Module) -> bool:
    """Whether the model remembers no more than the keys and values in its cache, so
    that it can be sampled from without its own, slower ``generate``.

    False for recurrent layers and hybrids with them, state-space models, virtual tokens
    of adapters, positions whose scale grows with the text or that no argument says, and
    what has no such cache. What only wraps a model is judged by its config.
    """
    plain = plain_model(model)
    if has_virtual_tokens(model) or _rescales_positions(plain.config):
        return False
    if isinstance(plain, PreTrainedModel):
        own_loop = getattr(plain, "_supports_default_dynamic_cache", lambda: True)
        stateful = getattr(plain, "_is_stateful", False)
        if stateful or not own_loop():
            return False
        if not {"past_key_values", "position_ids"} <= inputs_of(type(plain)):
            return False
    kinds = {type(layer) for layer in DynamicCache(config=plain.config).layers}
    return kinds <= {DynamicLayer, DynamicSlidingWindowLayer, DummyLayer}


def empty_cache(model: PreTrainedModel) -> DynamicCache:
    """An empty cache; layers of other kinds (such as sliding windows) stay as is."""
    cache = DynamicCache(config=model.config)
    cache.layers = [
        SpareLayer() if type(layer) is DynamicLayer else layer for layer in cache.layers
    ]
    return cache


def holds(cache: DynamicCache, tokens: int) -> bool:
    """Whether every layer has kept so many tokens in the cache."""
    kept = [x.get_seq_length() for x in cache.layers if not isinstance(x, DummyLayer)]
    return bool(kept) and set(kept) == {tokens}


class SpareLayer(DynamicLayer):
    """Keys and values of one layer, in tensors with room for more tokens. A plain
    ``DynamicLayer`` copies everything it holds at every token."""

    def update(self, key_states, value_states, *args, **kwargs):
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
            self.held = key_states[:, :, :0], value_states[:, :, :0]
        start = self.get_seq_length()
        end = start + key_states.shape[2]
        if end > self.held[0].shape[2]:
            self.held = [_with_spare(held[:, :, :start], end) for held in self.held]
        for held, new in zip(self.held, (key_states, value_states)):
            held[:, :, start:end] = new
        self.keys, self.values = (held[:, :, :end] for held in self.held)
        return self.keys, self.values

    def batch_select_indices(self, indices: Tensor) -> None:
        end = self.get_seq_length()
        # With their spare room, or the next token would copy everything once more.
        self.held = [held.index_select(0, indices) for held in self.held]
        self.keys, self.values = (held[:, :, :end] for held in self.held)


def _with_spare(held: Tensor, end: int) -> Tensor:
    rows, heads, start, width = held.shape
    larger = held.new_empty(rows, heads, end + SPARE_TOKENS, width)
    larger[:, :, :start] = held
    return larger


def _rescales_positions(config) -> bool:
    text = config.get_text_config(decoder=True)
    rope = getattr(text, "rope_parameters", None) or {}
    kinds = [rope, *(x for x in rope.values() if isinstance(x, Mapping))]
    return any(kind.get("rope_type") in ("dynamic", "longrope") for kind in kinds)
