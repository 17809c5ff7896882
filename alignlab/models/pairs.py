"""What a model thinks of two completions of one prompt, which it reads only once.

Both stand in one row behind the prompt, and the second does not see the first. Short
pairs share a row, without seeing each other. Beside two padded rows for each pair that
saves the second reading of the prompt and nearly all of the padding.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from alignlab.errors import AlignlabError
from alignlab.models.likelihood import _output_layer_sees, completion_log_probs

PROMPT, FIRST, SECOND = range(3)  # what a token is part of


class Two(NamedTuple):
    """Two completions of one prompt, as tokens: of a pair, chosen and rejected."""

    prompt: list[int]
    first: list[int]
    second: list[int]

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.first) + len(self.second)


def pack(pairs: Sequence[Two], pad_token_id: int) -> dict[str, Tensor]:
    """Lay pairs out in rows as wide as the longest of them, several where they fit.

    Returns:
        Of each token, (rows, width): ``input_ids``; ``attention_mask``, 0 on padding;
        ``position_ids``, which go on from the prompt's in both completions; ``part``;
        ``pair``, its number, and -1 on padding; ``source``, the column of the token
        that foretells it if it is a completion's. And of each pair, (B,):
        ``first_tokens`` and ``second_tokens``, how many there are.

    Raises:
        ValueError: if a prompt or a completion has no token.
    """
    for number, pair in enumerate(pairs):
        for name, tokens in pair._asdict().items():
            if not len(tokens):
                raise ValueError(
                    f"pair {number} has no token in its {name}: was it cut to nothing? "
                    "Leave the pair out, or allow more tokens"
                )
    width = max(pair.length for pair in pairs)
    rows: list[list[tuple[int, ...]]] = []  # of tokens, each with what is known of it
    for number in sorted(range(len(pairs)), key=lambda i: -pairs[i].length):
        room = width - pairs[number].length
        row = next((row for row in rows if len(row) <= room), None)
        if row is None:
            rows.append(row := [])
        row += _tokens(number, pairs[number], start=len(row))
    nothing = (pad_token_id, 0, 0, PROMPT, -1, 0)
    table = torch.tensor([row + [nothing] * (width - len(row)) for row in rows])
    names = ("input_ids", "attention_mask", "position_ids", "part", "pair", "source")
    return {
        **dict(zip(names, table.unbind(dim=2), strict=True)),
        "first_tokens": torch.tensor([len(pair.first) for pair in pairs]),
        "second_tokens": torch.tensor([len(pair.second) for pair in pairs]),
    }


def pair_log_probs(
    model: nn.Module, packed: Mapping[str, Tensor]
) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs"]]:
    """Log-probabilities of the pairs' first and second completions, in nats.

    They are those of prompt and first, prompt and second, each read by itself. As with
    ``completion_log_probs``, only states that foretell a completion's token meet the
    output layer.

    Args:
        model: a causal language model of `transformers` whose attention takes a mask of
            any shape; see :func:`require_rows_can_be_shared`.
        packed: what :func:`pack` gives.
    """
    part, count = packed["part"], len(packed["first_tokens"])
    asked = (part != PROMPT) & (packed["pair"] >= 0)  # (R, T)
    row, column = asked.nonzero(as_tuple=True)  # (N,)
    source = packed["source"][row, column]
    foretells = torch.zeros_like(asked)
    foretells[row, source] = True
    with _output_layer_sees(model, foretells):
        logits = model(
            packed["input_ids"],
            attention_mask=_mask(part, packed["pair"], next(model.parameters()).dtype),
            position_ids=packed["position_ids"],
            use_cache=False,
        ).logits[0]  # (M, V): a row for each state that foretells
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    number = (foretells.flatten().cumsum(0) - 1).view_as(foretells)[row, source]
    found = logits.log_softmax(dim=-1)[number, packed["input_ids"][row, column]]  # (N,)
    completion = packed["pair"] + count * (part == SECOND)  # (R, T), 0 to 2B - 1
    sums = found.new_zeros(2 * count).index_add(0, completion[row, column], found)
    return sums[:count], sums[count:]


def require_rows_can_be_shared(model: nn.Module, pair: Two) -> None:
    """Read one pair both ways, and refuse a model that does not read it alike.

    Attention that ignores the mask (windows, recurrent layers, some fast kernels) would
    let the second completion see the first, and nothing else would tell.

    Args:
        pair: a long one, to be sure.

    Raises:
        AlignlabError: if the log-probabilities differ by more than rounding does.
    """
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            together = torch.cat(_read_together(model, pair))
            apart = [_read_alone(model, pair.prompt, tokens) for tokens in pair[1:]]
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


_REMEDY = (
    'Load it with attn_implementation="sdpa" or "eager"; if that does not help, train '
    "it with trl.DPOTrainer."
)


def _tokens(number: int, pair: Two, start: int) -> list[tuple[int, ...]]:
    """A pair's tokens from column ``start`` on, each with what :func:`pack` says."""
    tokens = []
    prompt_end = start + len(pair.prompt) - 1
    for part, ids in enumerate(pair):
        begin = 0 if part == PROMPT else len(pair.prompt)
        for i, token in enumerate(ids):
            source = prompt_end if i == 0 else start + len(tokens) - 1
            tokens.append((token, 1, begin + i, part, number, source))
    return tokens


def _mask(part: Tensor, pair: Tensor, dtype: torch.dtype) -> Tensor:
    """What to add to attention, (R, 1, T, T): nothing where a token may look, and the
    lowest number at what comes later, at other pairs, and from second to first."""
    time = torch.arange(part.shape[1], device=part.device)
    hidden = (time[:, None] < time) | (pair[:, :, None] != pair[:, None, :])
    hidden |= (part == SECOND)[:, :, None] & (part == FIRST)[:, None, :]
    mask = torch.zeros(hidden.shape, dtype=dtype, device=part.device)
    return mask.masked_fill(hidden, torch.finfo(dtype).min)[:, None]


def _read_together(model: nn.Module, pair: Two) -> tuple[Tensor, Tensor]:
    device = next(model.parameters()).device
    packed = pack([pair], pad_token_id=0)
    return pair_log_probs(model, {name: x.to(device) for name, x in packed.items()})


def _read_alone(model: nn.Module, prompt: list[int], completion: list[int]) -> Tensor:
    device = next(model.parameters()).device
    ids = torch.tensor([[*prompt, *completion]], device=device)
    mask = (torch.arange(ids.shape[1], device=device) >= len(prompt)).long()[None]
    return completion_log_probs(model, ids, torch.ones_like(ids), mask).sum()
