"""The same pairs through `trl.DPOTrainer`: for real models, and to hold ours to it.

TRL is imported inside the function, as in :mod:`alignlab.training.recipes`.
"""

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlab.training.dpo import batches, encode_pairs, log_probs_of, preference_step
from alignlab.training.recipes import first_loss

# What TRL 1.16 calls our losses. Its "ipo" divides by tokens and is our "ipo_norm"; our
# "ipo", the paper's equation, and "dpop" it does not have.
TRL_NAMES = {
    "sigmoid": "sigmoid",
    "sigmoid_norm": "sigmoid_norm",
    "ipo_norm": "ipo",
    "hinge": "hinge",
    "robust": "robust",
}


def trl_dpo_loss(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[dict],
    reference: PreTrainedModel,
    loss_type: str = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> float:
    """The loss at which `trl.DPOTrainer` starts, with all the pairs as one batch.

    TRL puts only chat messages through a chat template, so prompts and completions that
    are strings become messages first. The step is taken on a copy of the policy.

    Args:
        pairs: see :func:`alignlab.training.dpo.encode_pairs`; with a prompt column.
        reference: a model other than the policy, or every pair costs what a margin of 0
            costs. (Left to itself, TRL loads one from where the policy came from, which
            fails for a policy that came from nowhere.)
        loss_type: one of ``TRL_NAMES``, by our name.
        beta: higher keeps closer to the reference.
        label_smoothing: acts on "robust" only; TRL ignores it elsewhere.

    Raises:
        ValueError: if TRL has no such loss.
    """
    from trl import DPOConfig, DPOTrainer

    if loss_type not in TRL_NAMES:
        raise ValueError(
            f"loss_type is {loss_type!r}; TRL has one of {[*TRL_NAMES]} (our names)"
        )
    return first_loss(
        DPOTrainer,
        DPOConfig,
        policy,
        tokenizer,
        [_as_messages(pair) for pair in pairs],
        reference,
        loss_type=[TRL_NAMES[loss_type]],
        beta=beta,
        label_smoothing=label_smoothing,
    )


def compare_dpo_losses(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[dict],
    reference: PreTrainedModel,
    loss_type: str = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> tuple[float, float]:
    """The same pairs through our loss and through TRL's trainer: ``(ours, theirs)``,
    per pair. The arguments are those of :func:`trl_dpo_loss`."""
    examples = encode_pairs(tokenizer, pairs)
    pad = tokenizer.pad_token_id
    known = dict(
        zip(("ref_chosen", "ref_rejected"), log_probs_of(reference, examples, pad))
    )
    batch = next(batches(examples, known, len(examples), 0, pad))
    batch = {name: value.to(policy.device) for name, value in batch.items()}
    dials = {"label_smoothing": label_smoothing} if label_smoothing else {}
    with torch.no_grad():
        ours, _ = preference_step(policy, batch, loss_type, beta, **dials)
    return ours.item(), trl_dpo_loss(
        policy, tokenizer, pairs, reference, loss_type, beta, label_smoothing
    )


def _as_messages(pair: dict) -> dict:
    """The pair for TRL, in chat messages."""
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    return {
        name: [{"role": role, "content": pair[name]}]
        if isinstance(pair[name], str)
        else pair[name]
        for name, role in roles.items()
    }
