"""Tuning a policy on the options of items: by a reward for the right one, by
cross-entropy, or by DPO on right over wrong answers.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from alignlab.models.options import option_log_probs, pack_options
from alignlab.seeds import stream
from alignlab.training.dpo import train_dpo
from alignlab.training.loop import train
from alignlab.training.sft import encode

if TYPE_CHECKING:
    from alignlab.chapters.calibration.artifacts import Item

OPTIONS = 4  # of each item
BATCH_SIZE = 24  # items, with all their options
# Found on calibration subjects, once: higher goes further from the reference in as many
# steps, until accuracy suffers.
LEARNING_RATE = {"300k": 5e-4, "1m": 3e-4}


# --- Losses ---------------------------------------------------------------------------


def reward_loss(
    log_probs: Float[Tensor, "items options"],
    right: Int[Tensor, "items"],
    reference: Float[Tensor, "items options"],
    beta: float,
) -> Float[Tensor, ""]:
    r"""Minus the objective of reinforcement learning, exactly: nothing is sampled.

    .. math:: -\frac1n \sum_i \pi(y_i^* \mid x_i)
        + \beta \, \mathrm{KL}(\pi \,\|\, \pi_\text{ref})

    with a reward of 1 for the right option, and all probabilities among the options of
    the item. Of a model that cannot know which is right, but believes each with
    probability p, the optimum is :math:`\pi \propto \pi_\text{ref}\, e^{p / \beta}`.

    Args:
        log_probs: of the options under the policy; a constant a row does not matter.
        right: index of the right option.
        reference: log-probabilities of the options under the reference.
        beta: reward per nat of KL; higher keeps closer to the reference.
    """
    policy, reference = log_probs.log_softmax(1), reference.log_softmax(1)
    expected = policy.exp().gather(1, right[:, None]).mean()
    kl = (policy.exp() * (policy - reference)).sum(1).mean()
    return beta * kl - expected


def answer_loss(
    log_probs: Float[Tensor, "items options"],
    right: Int[Tensor, "items"],
    reference: Float[Tensor, "items options"],
) -> Float[Tensor, ""]:
    """Cross-entropy of the right option among the options, in nats: a proper score on
    the very same items, the control for :func:`reward_loss`. It has no reference."""
    return nn.functional.cross_entropy(log_probs, right)


# --- Training -------------------------------------------------------------------------


def tune_on_options(
    policy,
    tokenizer,
    items: "Sequence[Item]",
    reference: Float[np.ndarray, "items options"],
    loss: Callable,
    *,
    size: str,
    steps: int,
    seed: int,
    temperature: float = 1.0,
) -> None:
    """Train a policy, in place, on a loss over the options of items in batches.

    Args:
        reference: log-probabilities of the options under the policy before training.
        loss: of log-probabilities, right options and the reference's log-probabilities.
        temperature: at which the policy, and its reference, choose among the options.
    """
    train(
        policy,
        option_batches(tokenizer, items, reference, seed),
        partial(_option_step, loss=loss, temperature=temperature),
        steps=steps,
        learning_rate=LEARNING_RATE[size],
        seed=seed,
        progress=False,
    )


def option_batches(
    tokenizer, items: "Sequence[Item]", reference, seed: int
) -> Iterator[dict[str, Tensor]]:
    """Endless batches: those of ``pack_options``, with ``right`` (items,) and the
    reference's log-probabilities (items, options)."""
    examples = [
        {"prompt": item.question, "completion": f"{option}."}
        for item in items
        for option in item.options
    ]
    texts = [(t.prompt, t.completion) for t in encode(tokenizer, examples)]
    rng = stream(seed, "batches of items")
    while True:
        order = rng.permutation(len(items))
        for chosen in np.array_split(order, -(-len(items) // BATCH_SIZE)):
            prompts = [texts[i * OPTIONS][0] for i in chosen]
            own = [[texts[i * OPTIONS + k][1] for k in range(OPTIONS)] for i in chosen]
            batch = pack_options(prompts, own, tokenizer.pad_token_id)
            batch["right"] = torch.tensor([items[i].right for i in chosen])
            batch["reference"] = torch.tensor([reference[i] for i in chosen])
            yield batch


def _option_step(model, batch: dict[str, Tensor], loss: Callable, temperature: float):
    right, reference = batch["right"], batch["reference"]
    log_probs = option_log_probs(model, batch).float().view(-1, OPTIONS)
    return loss(log_probs / temperature, right, reference / temperature), {}


def tune_on_pairs(
    policy, tokenizer, items: "Sequence[Item]", reference, *, beta, size, steps, seed
) -> None:
    """DPO on :func:`answer_pairs`, in place; arguments as for :func:`tune_on_options`,
    and a higher beta keeps closer to the policy before."""
    train_dpo(
        policy,
        tokenizer,
        answer_pairs(items, reference, seed),
        beta=beta,
        steps=steps,
        batch_size=BATCH_SIZE,
        learning_rate=LEARNING_RATE[size],
        seed=seed,
        progress=False,
    )


def answer_pairs(
    items: "Sequence[Item]",
    log_probs: Float[np.ndarray, "items options"],
    seed: int,
) -> list[dict]:
    """The right answer to each item's question over a wrong one, which is drawn from
    the policy's ``log_probs``; in TRL's preference format."""
    rng = stream(seed, "pairs of answers")
    pairs = []
    for item, row in zip(items, np.asarray(log_probs), strict=True):
        row = np.where(np.arange(OPTIONS) == item.right, -np.inf, row)
        probabilities = np.exp(row - np.logaddexp.reduce(row))
        rejected = item.options[rng.choice(OPTIONS, p=probabilities)]
        texts = dict(chosen=f"{item.options[item.right]}.", rejected=f"{rejected}.")
        pairs.append({"prompt": item.question, **texts})
    return pairs
