"""Log-probabilities of chosen and rejected completions, their prompt read only once.

Both follow the prompt in one row, and rejected does not see chosen. Short pairs share a
row, without seeing each other, so that there is hardly any padding.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from alignlab.errors import AlignlabError
from alignlab.models.base import evaluation_mode
from alignlab.models.fit import says_how_to_save_memory
from alignlab.models.positions import completion_log_probs, log_probs_at
from alignlab.models.text import pad_right

PROMPT, CHOSEN, REJECTED = range(3)  # what a token is part of


class EncodedPair(NamedTuple):
    """Token ids of a prompt and of its two completions, chosen and rejected.

    The masks are 1 on those tokens of a completion that count, and 0 on what was given
    to it, such as a user's turn; without a mask all count. The prompt may be empty if
    no completion's first token counts.
    """

    prompt: list[int]
    chosen: list[int]
    rejected: list[int]
    chosen_mask: list[int] | None = None
    rejected_mask: list[int] | None = None

    @property
    def length(self) -> int:
        return len(self.prompt) + len(self.chosen) + len(self.rejected)


def pack(pairs: Sequence[EncodedPair], pad_token_id: int) -> dict[str, Tensor]:
    """Lay pairs out in rows, several per row, with little padding.

    Returns:
        For each token, (rows, width): ``input_ids``; ``attention_mask``, 0 on padding;
        ``position_ids``, which continue the prompt's in both completions; ``part``,
        PROMPT, CHOSEN or REJECTED; ``pair``, its index, -1 on padding; and for tokens
        of completions ``source``, the column of the token that predicts it. For each
        pair, (B,): the numbers ``chosen_tokens`` and ``rejected_tokens`` that count. If
        a pair has masks, also ``counts``, (rows, width), True on the completions'
        tokens that count.

    Raises:
        ValueError: if a prompt or a completion has no tokens, or a mask none that count
            or another length.
    """
    for number, pair in enumerate(pairs):
        _require_tokens(number, pair)
    parts = [pair[:3] for pair in pairs]
    lengths = np.array([[len(part) for part in pair] for pair in parts])  # (B, 3)
    rows, start, shape = _cheapest_layout(lengths.sum(1))
    # Of each token, pair after pair, (N,):
    pair = np.repeat(np.arange(len(pairs)), lengths.sum(1))
    part = np.repeat(np.tile([PROMPT, CHOSEN, REJECTED], len(pairs)), lengths.ravel())
    offset = np.arange(len(pair)) - np.repeat(
        lengths.sum(1).cumsum() - lengths.sum(1), lengths.sum(1)
    )
    prompt, chosen, _ = lengths[pair].T
    column = start[pair] + offset
    at_fork = offset == prompt + chosen  # rejected's first token, which chosen precedes
    source = column - 1 - np.where(at_fork, chosen, 0)
    tokens = {
        "input_ids": list(chain.from_iterable(chain.from_iterable(parts))),
        "attention_mask": 1,
        "position_ids": offset - np.where(part == REJECTED, chosen, 0),
        "part": part,
        "pair": pair,
        "source": np.where(part == PROMPT, 0, source),
    }
    if any(pair.chosen_mask or pair.rejected_mask for pair in pairs):
        tokens["counts"] = np.array(list(chain.from_iterable(map(_counts, pairs))))
    packed = {}
    for name, values in tokens.items():
        fill = {"input_ids": pad_token_id, "pair": -1, "counts": False}.get(name, 0)
        table = np.full(shape, fill)
        table[rows[pair], column] = values
        packed[name] = torch.from_numpy(table)
    counted = [
        [sum(mask) if mask else len(part) for part, mask in zip(pair[1:3], pair[3:])]
        for pair in pairs
    ]
    packed["chosen_tokens"], packed["rejected_tokens"] = torch.tensor(counted).T
    return packed


def pack_apart(pairs: Sequence[EncodedPair], pad_token_id: int) -> dict[str, Tensor]:
    """Each completion in a row of its own behind its prompt, all the chosen ones first:
    twice the prompts, and no mask of (width, width) numbers.

    Returns:
        ``input_ids``, ``attention_mask`` and ``mask``, 1 on the completions' tokens
        that count, each (2B, width), padded on the right; and ``chosen_tokens`` and
        ``rejected_tokens``, (B,), as from :func:`pack`.

    Raises:
        ValueError: see :func:`pack`.
    """
    for number, pair in enumerate(pairs):
        _require_tokens(number, pair)
    rows, masks = [], []
    for side in (1, 2):  # chosen, rejected
        for pair in pairs:
            rows.append([*pair.prompt, *pair[side]])
            mask = pair[side + 2] or [1] * len(pair[side])
            masks.append([0] * len(pair.prompt) + mask)
    input_ids, attention_mask = pad_right(rows, pad_token_id)
    mask, _ = pad_right(masks, 0)
    chosen, rejected = mask.sum(1).view(2, -1)
    return {
        "input_ids": input_ids,
        "attention_mask": attention_mask,
        "mask": mask,
        "chosen_tokens": chosen,
        "rejected_tokens": rejected,
    }


def _counts(pair: EncodedPair) -> list[bool]:
    """Of each token of a pair whether it counts."""
    sides = zip(pair[1:3], pair[3:], strict=True)
    masks = [mask or [1] * len(part) for part, mask in sides]
    return [False] * len(pair.prompt) + [bool(m) for mask in masks for m in mask]


def _require_tokens(number: int, pair: EncodedPair) -> None:
    for name, tokens in zip(pair._fields, pair[:3]):
        given = [mask for mask in pair[3:] if mask is not None]
        unread = name == "prompt" and len(given) == 2 and not given[0][0] + given[1][0]
        if not len(tokens) and not unread:
            raise ValueError(
                f"pair {number} has no tokens in its {name}: was it cut off? "
                "Leave the pair out, or allow more tokens"
            )
    for name, tokens, mask in zip(pair._fields[1:], pair[1:3], pair[3:]):
        if mask is not None and (len(mask) != len(tokens) or not any(mask)):
            raise ValueError(
                f"pair {number} has {len(tokens)} tokens in its {name}, and a mask of "
                f"{len(mask)} of which {sum(mask)} count"
            )


def pair_log_probs(
    model: nn.Module, packed: Mapping[str, Tensor]
) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs"]]:
    """Log-probabilities of chosen and of rejected completions, in nats.

    The same as from a row of its own for each prompt and completion.

    Args:
        model: a causal language model of `transformers` whose attention takes a mask of
            any shape; see :func:`require_rows_can_be_shared`.
        packed: the result of :func:`pack` or :func:`pack_apart`.
    """
    if "mask" in packed:
        apart = {n: packed[n] for n in ("input_ids", "attention_mask", "mask")}
        sums = completion_log_probs(model, **apart).sum(1)
        return sums[: len(sums) // 2], sums[len(sums) // 2 :]
    part, count = packed["part"], len(packed["chosen_tokens"])
    in_completion = (part != PROMPT) & (packed["pair"] >= 0)  # (R, T)
    if "counts" in packed:
        in_completion = packed["counts"]
    row, column = in_completion.nonzero(as_tuple=True)  # (N,)
    source = packed["source"][row, column]
    prediction_mask = torch.zeros_like(in_completion)
    prediction_mask[row, source] = True
    index = (prediction_mask.flatten().cumsum(0) - 1).view_as(prediction_mask)
    log_probs = log_probs_at(  # (N,)
        model,
        prediction_mask.nonzero(as_tuple=True),
        packed["input_ids"][row, column],
        packed["input_ids"],
        index[row, source],
        attention_mask=_mask(part, packed["pair"], next(model.parameters()).dtype),
        position_ids=packed["position_ids"],
        use_cache=False,
    )
    completion = (packed["pair"] + count * (part == REJECTED))[row, column]  # < 2B
    sums = log_probs.new_zeros(2 * count).index_add(0, completion, log_probs)
    return sums[:count], sums[count:]


def require_rows_can_be_shared(model: nn.Module, pair: EncodedPair) -> None:
    """Refuse a model that reads a pair in one row otherwise than in two.

    Attention that ignores the mask (windows, recurrent layers, some fast kernels) would
    silently let the rejected completion see the chosen one.

    Args:
        pair: the one to try; a longer one leaves less to chance.

    Raises:
        AlignlabError: if the log-probabilities differ by more than rounding.
    """
    try:
        with (
            says_how_to_save_memory("Leave out the longest texts."),
            evaluation_mode(model),
            torch.no_grad(),
        ):
            together = torch.cat(_read_together(model, pair))
            sides = zip(pair[1:3], pair[3:], strict=True)
            apart = [_read_alone(model, pair.prompt, *side) for side in sides]
    except AlignlabError:
        raise
    except Exception as error:  # of many kinds, from inside the model
        raise AlignlabError(
            f"This model cannot read two completions in one row: {error}", _REMEDY
        ) from error
    apart = torch.stack(apart)
    single = next(model.parameters()).dtype.itemsize >= 4  # bytes: float32 or better
    rtol, atol = (1e-4, 1e-3) if single else (0.03, 0.3)
    if not torch.allclose(together, apart, rtol, atol):
        raise AlignlabError(
            "This model reads two completions in one row differently from two rows: "
            f"log-probabilities {together.tolist()} against {apart.tolist()}.",
            _REMEDY,
        )


_REMEDY = (
    'Load it with attn_implementation="sdpa" or "eager"; if that fails too, train it '
    "with trl.DPOTrainer."
)


def _cheapest_layout(
    lengths: Int[np.ndarray, "pairs"],
) -> tuple[Int[np.ndarray, "pairs"], Int[np.ndarray, "pairs"], tuple[int, int]]:
    """Each pair's row and first column, and the shape of them all.

    Of all widths from the longest pair's to twice that, the cheapest, when the pairs
    go, the longest first, each into the first row that has room for it.
    """
    widths = np.arange(lengths.max(), 2 * lengths.max() + 1)  # (W,)
    room = np.repeat(widths[:, None], len(lengths), axis=1)  # in each row, (W, B)
    rows, start = np.zeros((2, *room.shape), dtype=int)
    for pair in np.argsort(-lengths, kind="stable"):
        row = (room >= lengths[pair]).argmax(axis=1)  # (W,)
        chosen = np.arange(len(widths)), row
        rows[:, pair], start[:, pair] = row, widths - room[chosen]
        room[chosen] -= lengths[pair]
    counts = rows.max(axis=1) + 1
    best = _cost(counts, widths).argmin()
    return rows[best], start[best], (counts[best], widths[best])


def _cost(rows: np.ndarray, width: np.ndarray) -> np.ndarray:
    """In arbitrary units, of a small model on a CPU: attention takes longer in wide
    rows, and where their width is no multiple of 16, its kernels' unit."""
    return rows * width * (768 + width + 24 * (width % 16 > 0))


def _mask(part: Tensor, pair: Tensor, dtype: torch.dtype) -> Tensor:
    """Additive attention mask, (R, 1, T, T): it hides later tokens, other pairs, and
    the chosen completion from the rejected one."""
    time = torch.arange(part.shape[1], device=part.device)
    hidden = (time[:, None] < time) | (pair[:, :, None] != pair[:, None, :])
    hidden |= (part == REJECTED)[:, :, None] & (part == CHOSEN)[:, None, :]
    mask = torch.zeros(hidden.shape, dtype=dtype, device=part.device)
    return mask.masked_fill(hidden, torch.finfo(dtype).min)[:, None]


def _read_together(model: nn.Module, pair: EncodedPair) -> tuple[Tensor, Tensor]:
    device = next(model.parameters()).device
    packed = pack([pair], pad_token_id=0)
    return pair_log_probs(model, {name: x.to(device) for name, x in packed.items()})


def _read_alone(
    model: nn.Module, prompt: list[int], completion: list[int], mask: list[int] | None
) -> Tensor:
    device = next(model.parameters()).device
    ids = torch.tensor([[*prompt, *completion]], device=device)
    mask = [0] * len(prompt) + (mask or [1] * len(completion))
    mask = torch.tensor([mask], device=device)
    return completion_log_probs(model, ids, torch.ones_like(ids), mask).sum()
