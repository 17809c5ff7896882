"""In how many parts a batch is computed, so that it fits into memory."""

import math
from collections.abc import Sequence

import numpy as np
from torch import nn

from alignlab.models.fit import plain_model
from alignlab.training.recipes.memory import BYTES, Load, Shape, activations

ACTIVATIONS = 2**31  # bytes of one part's activations, about


def parts_of(
    model: nn.Module, lengths: Sequence[int], batch_size: int, options: dict
) -> int:
    """Parts in which even a batch of the longest texts has ``ACTIVATIONS`` bytes of
    activations or little more; 1 for the small models that ship.

    Args:
        lengths: of all texts, in tokens.
        batch_size: texts in a batch.
        options: of the loop; ``autocast`` and ``gradient_checkpointing`` take less.
    """
    config = plain_model(model).config.get_text_config()
    sizes = [
        getattr(config, name, None)
        for name in ("num_hidden_layers", "hidden_size", "intermediate_size")
    ]
    if None in sizes:  # nothing is known of it
        return 1
    layers, hidden, intermediate = sizes
    shape = Shape(0, 0, 0, layers, hidden, intermediate, 0)
    dtype = options.get("autocast") or str(model.dtype).removeprefix("torch.")
    dtype = dtype if dtype in BYTES else "float32"
    checkpointing = bool(options.get("gradient_checkpointing"))
    rows = min(batch_size, len(lengths))
    load = Load(dtype, dtype, rows, max(lengths), 0, checkpointing)
    return min(rows, math.ceil(activations(shape, load) / ACTIVATIONS))


def in_parts(rows: np.ndarray, parts: int) -> list[np.ndarray]:
    """Row numbers of a batch in so many parts of nearly the same size, or in as many as
    there are rows."""
    return [part for part in np.array_split(rows, parts) if len(part)]
