"""Calibration while training: steps for the shared loop that use another loss than
cross-entropy, or blends of examples (mixup).
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

Loss = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[nn.Module, dict[str, Tensor]], tuple[Tensor, dict]]


def token_logits(
    model: nn.Module,
    input_ids: Int[Tensor, "batch time"],
    attention_mask: Int[Tensor, "batch time"],
    mask: Int[Tensor, "batch time"],
) -> tuple[Float[Tensor, "tokens vocab"], Int[Tensor, "tokens"]]:
    """The logits of each completion token, and those tokens: inputs and labels of any
    classification loss.

    Args:
        input_ids, attention_mask, mask: as from ``alignlab.training.sft.collate``; mask
            is the completion mask, and its first column is not used.

    Raises:
        ValueError: if mask is 0 everywhere.
    """
    predicted = mask[:, 1:].bool()
    if not predicted.any():
        raise ValueError("mask has no token to learn: check where prompts end")
    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
    logits = model(
        input_ids,
        attention_mask=attention_mask,
        position_ids=positions,
        use_cache=False,
    ).logits
    return logits[:, :-1][predicted], input_ids[:, 1:][predicted]


def loss_step(loss: Loss) -> Step:
    """A step for ``alignlab.training.loop.train`` that minimises ``loss(logits,
    labels)`` over the completion tokens of each batch.

    Any loss of ``alignlab.objectives.calibration`` fits: ``loss_step(focal_loss)``, or
    with a hyperparameter ``loss_step(partial(focal_loss, gamma=3))``. With
    cross-entropy it is plain supervised fine-tuning.
    """

    def step(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict]:
        return loss(*token_logits(model, **batch)), {}

    return step


def mixup_step(alpha: float = 0.2) -> Step:
    r"""A step that trains on blends of two examples, with blended answers (mixup).

    .. math:: \tilde e = \lambda e_i + (1 - \lambda) e_j, \qquad
        \lambda \, \ell(\tilde e, y_i) + (1 - \lambda) \, \ell(\tilde e, y_j), \qquad
        \lambda = \max(\lambda', 1 - \lambda'), \;
        \lambda' \sim \mathrm{Beta}(\alpha, \alpha)

    Between two examples the model learns to be as unsure as the blend is, and so on
    questions between those it knows.

    Embeddings are blended token by token, with the examples aligned at their ends. Each
    keeps its own length and is the larger part of its blend. This suits answers of
    equal length, such as a letter, a label or a digit and the EOS token. Others are
    blended too; each answer is then learnt at its own positions.

    Args:
        alpha: higher blends more evenly and more often; 0 blends nothing, which is
            plain supervised fine-tuning. Usual values are 0.1 to 0.4.

    Raises:
        ValueError: if alpha is negative.

    Source: Zhang et al. (2018); on embeddings of text Guo et al. (2019); for its
    calibration Thulasidasan et al. (2019).
    """
    if not alpha >= 0:
        raise ValueError(f"alpha is {alpha}; it must be at least 0")

    def step(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict]:
        ids, attention, mask = _ends_together(**batch)
        n, device = len(ids), ids.device
        partner = torch.randperm(n, device=device)
        share = _blend_shares(alpha, n).to(device)  # (B,): lambda
        embedded = model.get_input_embeddings()(ids)  # (B, T, H)
        foreign = (1 - share)[:, None] * attention[partner]  # without its padding
        blended = embedded + foreign[:, :, None] * (embedded[partner] - embedded)
        logits = model(
            inputs_embeds=blended,
            attention_mask=attention,
            position_ids=(attention.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        ).logits
        # The tokens of the partner's answer that follow a real token of this row.
        seen = mask[partner] * F.pad(attention[:, :-1], (1, 0))
        own = _summed_loss(logits, ids, mask)  # (B,)
        other = _summed_loss(logits, ids[partner], seen)
        tokens = share * mask[:, 1:].sum(dim=1) + (1 - share) * seen[:, 1:].sum(dim=1)
        return (share * own + (1 - share) * other).sum() / tokens.sum(), {}

    return step


def _blend_shares(alpha: float, n: int) -> Float[Tensor, "batch"]:
    """The share of each example in its own blend, at least a half; drawn from torch's
    global state, which the training loop seeds."""
    if alpha == 0:
        return torch.ones(n)
    share = torch.distributions.Beta(alpha, alpha).sample((n,))
    return torch.maximum(share, 1 - share)


def _ends_together(input_ids, attention_mask, mask) -> tuple[Tensor, Tensor, Tensor]:
    """The batch with its padding moved to the left."""
    order = attention_mask.argsort(dim=1, stable=True)
    return tuple(x.gather(1, order) for x in (input_ids, attention_mask, mask))


def _summed_loss(logits: Tensor, ids: Tensor, mask: Tensor) -> Float[Tensor, "batch"]:
    """-log p of the completion tokens, summed over each row, in nats."""
    targets = ids[:, 1:].masked_fill(~mask[:, 1:].bool(), -100)
    losses = F.cross_entropy(
        logits[:, :-1].transpose(1, 2).float(), targets, reduction="none"
    )
    return losses.sum(dim=1)
