"""What a model thinks of two completions of one prompt, which it reads only once.

Both stand in one row behind the prompt, and the second does not see the first. Beside
two padded rows that saves the second reading of the prompt and most of the padding.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from alignlab.errors import AlignlabError
from alignlab.models.likelihood import _output_layer_sees, completion_log_probs

PADDING, PROMPT, FIRST, SECOND = range(4)  # what a token of a row is part of


def pair_log_probs(
    model: nn.Module,
    input_ids: Int[Tensor, "pairs time"],
    part: Int[Tensor, "pairs time"],
) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs"]]:
    """Log-probabilities of each row's first and second completion, in nats.

    They are those of two rows, prompt and first, prompt and second, read apart. As with
    ``completion_log_probs``, only states that foretell a completion's token meet the
    output layer.

    Args:
        model: a causal language model of `transformers` whose attention takes a mask of
            any shape; see :func:`require_one_row_will_do`.
        input_ids: prompts, first and second completions, padded on the right.
        part: ``PROMPT``, ``FIRST``, ``SECOND`` or ``PADDING`` for each token, in that
            order. A prompt has at least one token.

    Raises:
        ValueError: if the shapes differ, a row has no prompt, or a completion no token.
    """
    prompt, first, second = _parts(input_ids, part)  # (B, T) each
    mask, positions = _side_by_side(first, second, next(model.parameters()).dtype)
    row, column = (first | second).nonzero(as_tuple=True)  # (N,) tokens asked about
    # A token is foretold by the one before it, and both first ones by the prompt's end.
    leads = column == (prompt | first).sum(1)[row]
    source = torch.where(leads, prompt.sum(1)[row] - 1, column - 1)
    foretells = torch.zeros_like(first)
    foretells[row, source] = True
    with _output_layer_sees(model, foretells):
        logits = model(
            input_ids, attention_mask=mask, position_ids=positions, use_cache=False
        ).logits[0]  # (M, V): a row for each state that foretells
    log_probs = logits.to(torch.promote_types(logits.dtype, torch.float32))
    log_probs = log_probs.log_softmax(dim=-1)
    number = (foretells.flatten().cumsum(0) - 1).view_as(foretells)[row, source]
    found = log_probs[number, input_ids[row, column]]  # (N,)
    is_first, none = first[row, column], found.new_zeros(len(part))
    return (
        none.index_add(0, row[is_first], found[is_first]),
        none.index_add(0, row[~is_first], found[~is_first]),
    )


def require_one_row_will_do(
    model: nn.Module, prompt: Sequence[int], first: Sequence[int], second: Sequence[int]
) -> None:
    """Read one pair both ways, and refuse a model that does not read it alike.

    Attention that ignores the mask (windows, recurrent layers, some fast kernels) would
    let the second completion see the first, and nothing else would tell.

    Args:
        prompt, first, second: token ids; the longer, the surer.

    Raises:
        AlignlabError: if the log-probabilities differ by more than rounding does.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            together = torch.cat(_read_together(model, prompt, first, second))
            apart = [_read_alone(model, prompt, each) for each in (first, second)]
    except Exception as error:  # of many kinds, from inside the model
        raise AlignlabError(
            f"This model cannot read two completions in one row: {error}", _REMEDY
        ) from error
    finally:
        model.train(was_training)
    apart = torch.stack(apart)
    exact = next(model.parameters()).dtype.itemsize >= 4  # bytes: float32 or better
    rtol, atol = (1e-4, 1e-3) if exact else (0.03, 0.3)
    if not torch.allclose(together, apart, rtol, atol):
        raise AlignlabError(
            "This model does not read two completions in one row as it reads them "
            f"apart: log-probabilities {together.tolist()} against {apart.tolist()}.",
            _REMEDY,
        )


def rows_of(
    pairs: Sequence[tuple[Sequence[int], Sequence[int], Sequence[int]]],
    pad_token_id: int,
) -> tuple[Int[Tensor, "pairs time"], Int[Tensor, "pairs time"]]:
    """``input_ids`` and ``part`` of (prompt, first, second), padded on the right."""
    width = max(sum(map(len, pair)) for pair in pairs)
    input_ids = torch.full((len(pairs), width), pad_token_id)
    part = torch.full_like(input_ids, PADDING)
    for number, (prompt, first, second) in enumerate(pairs):
        ids = [*prompt, *first, *second]
        which = [PROMPT] * len(prompt) + [FIRST] * len(first) + [SECOND] * len(second)
        input_ids[number, : len(ids)] = torch.tensor(ids)
        part[number, : len(ids)] = torch.tensor(which)
    return input_ids, part


_REMEDY = (
    'Load it with attn_implementation="sdpa" or "eager"; if that does not help, train '
    "it with trl.DPOTrainer."
)


def _read_together(model, prompt, first, second) -> tuple[Tensor, Tensor]:
    device = next(model.parameters()).device
    rows = rows_of([(prompt, first, second)], pad_token_id=0)
    return pair_log_probs(model, *(x.to(device) for x in rows))


def _read_alone(model, prompt, completion) -> Tensor:
    device = next(model.parameters()).device
    ids = torch.tensor([[*prompt, *completion]], device=device)
    mask = (torch.arange(ids.shape[1], device=device) >= len(prompt)).long()[None]
    return completion_log_probs(model, ids, torch.ones_like(ids), mask).sum()


def _side_by_side(first: Tensor, second: Tensor, dtype) -> tuple[Tensor, Tensor]:
    """The mask (B, 1, T, T) to add to attention, and the positions (B, T), by which the
    second completion stands where the first one does and does not see it."""
    time = torch.arange(first.shape[1], device=first.device)
    positions = torch.where(second, time - first.sum(1)[:, None], time)
    hidden = (time[:, None] < time) | (second[:, :, None] & first[:, None, :])
    mask = torch.zeros(hidden.shape, dtype=dtype, device=first.device)
    return mask.masked_fill(hidden, torch.finfo(dtype).min)[:, None], positions


def _parts(input_ids: Tensor, part: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    if input_ids.shape != part.shape or part.ndim != 2:
        raise ValueError(
            f"input_ids and part have shapes {tuple(input_ids.shape)} and "
            f"{tuple(part.shape)}: expected (pairs, time) twice"
        )
    parts = tuple(part == which for which in (PROMPT, FIRST, SECOND))
    for name, where in zip(("prompt", "first completion", "second completion"), parts):
        if not (there := where.any(dim=1)).all():
            row = int((~there).nonzero()[0])
            raise ValueError(
                f"row {row} has no token of its {name}: was it cut to nothing? Leave "
                "the row out, or allow more tokens"
            )
    return parts
