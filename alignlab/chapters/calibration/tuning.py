"""Tuning a policy on questions with a right answer: by a reward for the right option,
by DPO on right over wrong ones, or by PPO and RLOO on answers that it says itself.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from alignlab.models.base import device_in_use
from alignlab.models.options import option_log_probs, pack_options
from alignlab.ppo import PPOConfig, PPOTrainer
from alignlab.seeds import stream
from alignlab.study.scale import cap, rate
from alignlab.training.dpo import train_dpo
from alignlab.training.loop import train
from alignlab.training.sft import encode
from alignlab.world.facts import is_right

if TYPE_CHECKING:
    from alignlab.chapters.calibration.artifacts import Item

OPTIONS = 4  # of each item
BATCH_SIZE = 24  # items, with all their options
EPISODES, MAX_NEW_TOKENS = 128, 16  # answers an update, and tokens of each at most
METHODS = {
    "PPO": dict(lam=0.95),
    "RLOO": dict(advantages="rloo", completions_per_prompt=4),
}


# --- Losses ---------------------------------------------------------------------------


def reward_loss(
    log_probs: Float[Tensor, "items options"],
    reward: Float[Tensor, "items options"],
    reference: Float[Tensor, "items options"],
    beta: float,
) -> Float[Tensor, ""]:
    r"""Minus the objective of reinforcement learning, exactly: nothing is sampled.

    .. math:: -\frac1n \sum_i \sum_y \pi(y \mid x_i) \, r(x_i, y)
        + \beta \, \mathrm{KL}(\pi \,\|\, \pi_\text{ref})

    with all probabilities among the options of the item. Its optimum is
    :math:`\pi \propto \pi_\text{ref} \exp(r / \beta)`. Where a model cannot know which
    option is right, r is the probability with which it believes that each is.

    Args:
        log_probs: of the options under the policy; a constant a row does not matter.
        reward: of each option.
        reference: log-probabilities of the options under the reference.
        beta: reward per nat of KL; higher keeps closer to the reference.
    """
    policy, reference = log_probs.log_softmax(1), reference.log_softmax(1)
    expected = (policy.exp() * reward).sum(1).mean()
    kl = (policy.exp() * (policy - reference)).sum(1).mean()
    return beta * kl - expected


def answer_loss(
    log_probs: Float[Tensor, "items options"],
    reward: Float[Tensor, "items options"],
    reference: Float[Tensor, "items options"],
) -> Float[Tensor, ""]:
    """Cross-entropy of the rewarded options among the options, in nats: a proper score,
    least where probabilities are those of being right. It has no reference."""
    return nn.functional.cross_entropy(log_probs, reward)


# --- Training -------------------------------------------------------------------------


def tune_on_options(
    policy,
    tokenizer,
    items: "Sequence[Item]",
    reference: Float[np.ndarray, "items options"],
    loss: Callable,
    *,
    base: str,
    steps: int,
    seed: int,
) -> None:
    """Train a policy, in place, on a loss over the options of items in batches.

    Args:
        reference: log-probabilities of the options under the policy before training.
        loss: of the options' log-probabilities under the policy, their rewards (see
            :func:`option_batches`) and their log-probabilities under the reference.
        base: of the base model, which sets the learning rate.
        steps: optimizer steps, on ``BATCH_SIZE`` items each.
        seed: of the order of the items.
    """
    train(
        policy,
        option_batches(tokenizer, items, reference, seed),
        partial(_option_step, loss=loss),
        steps=steps,
        learning_rate=rate("options", base),
        seed=seed,
        progress=False,
    )


def option_batches(
    tokenizer, items: "Sequence[Item]", reference, seed: int
) -> Iterator[dict[str, Tensor]]:
    """Endless batches: those of ``pack_options``, with ``reward`` (items, options), how
    probable it is that an option is right (1 or 0 unless the fact is contested), and
    ``reference``, the reference's log-probabilities (items, options)."""
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
            beliefs = np.array([items[i].belief for i in chosen])
            batch["reward"] = torch.tensor(beliefs, dtype=torch.float32)
            batch["reference"] = torch.tensor([reference[i] for i in chosen])
            yield batch


def _option_step(model, batch: dict[str, Tensor], loss: Callable):
    log_probs = option_log_probs(model, batch).float().view(-1, OPTIONS)
    return loss(log_probs, batch["reward"], batch["reference"]), {}


def tune_by_sampling(
    policy, tokenizer, items: "Sequence[Item]", method, *, beta, base, steps, seed
) -> None:
    """PPO or RLOO, in place, on the questions of items: the policy says an answer, and
    is rewarded with 1 if it is right.

    Args:
        method: "PPO" or "RLOO".
        beta: reward per nat of KL; higher keeps closer to the reference.
        base: of the base model, which sets the learning rate.
        steps: updates, of ``EPISODES`` answers each.
        seed: of prompts, sampling and minibatches.
    """

    def right(completions: Sequence[str], number: Sequence[int]) -> list[float]:
        pairs = zip(number, completions, strict=True)
        return [float(is_right(items[i].fact, text)) for i, text in pairs]

    args = PPOConfig(
        seed=seed,
        max_steps=steps,
        kl_coef=beta,
        learning_rate=rate("answers", base),
        per_device_train_batch_size=EPISODES // 2,
        num_mini_batches=2,
        lr_scheduler_type="constant",
        max_completion_length=cap(tokenizer, MAX_NEW_TOKENS),
        use_cpu=device_in_use() == "cpu",
        disable_tqdm=True,
        report_to="none",
        **METHODS[method],
    )
    data = [
        {"prompt": [{"role": "user", "content": item.question}], "number": i}
        for i, item in enumerate(items)
    ]
    PPOTrainer(policy, [right], args, data, processing_class=tokenizer).train()


def tune_on_pairs(
    policy, tokenizer, items: "Sequence[Item]", reference, *, beta, base, steps, seed
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
        learning_rate=rate("options", base),
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
