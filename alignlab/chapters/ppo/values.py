"""How much of a reply's reward can be read off the policy's states while it is being
written: what a linear value head on its trunk could know at best."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import nn

from alignlab.models.reward import score
from alignlab.study import artifacts as alignment
from alignlab.training.ppo.rollout import completion_logits
from alignlab.training.sft import collate, encode


def readable_share(
    *, size: str, steps: int, n_pairs: int, k: int, ridge: float = 100.0
) -> float:
    """Share of the learnt reward's variance, at the tokens of the reference policy's
    replies to the test requests, that the best linear function of its states explains.

    It is fitted on every other reply of each subject and judged on the rest, so that it
    may know the subjects: a head that PPO trains has seen less.

    Args:
        size, steps, n_pairs, k: of policy, reward model and replies; k at least 2.
        ridge: higher fits less closely.
    """
    policy, tokenizer = alignment.reference_policy(size, steps)
    model, _ = alignment.reward_model(n_pairs, k=k, size=size, steps=steps)
    some = alignment.candidates("test", k, size=size, steps=steps)
    prompts = [one.prompt for one in some for _ in one.replies]
    replies = [reply.text for one in some for reply in one.replies]
    rewards = score(model, tokenizer, prompts, replies)
    states = list(states_of(policy, tokenizer, prompts, replies))
    halves = []
    for first in (0, 1):
        tokens = [len(one) for one in states[first::2]]
        targets = np.repeat(rewards[first::2], tokens)
        halves.append((np.concatenate(states[first::2]), targets))
    (seen, targets), (unseen, truth) = halves
    found = linear_fit(seen, targets, ridge)(unseen)
    return float(1 - np.var(truth - found) / np.var(truth))


@torch.no_grad()
def states_of(
    policy: nn.Module,
    tokenizer,
    prompts: Sequence[str],
    replies: Sequence[str],
    batch_size: int = 128,
) -> Iterator[Float[np.ndarray, "tokens hidden"]]:
    """For each reply the last hidden states that its tokens are sampled from, which are
    those that a value head sees."""
    policy.eval()
    rows = [dict(prompt=p, completion=c) for p, c in zip(prompts, replies, strict=True)]
    encoded = encode(tokenizer, rows)
    for start in range(0, len(encoded), batch_size):
        batch = collate(encoded[start : start + batch_size], tokenizer.pad_token_id)
        asked = batch["mask"].bool().roll(-1, dims=1)  # one before each token
        asked[:, -1] = False
        ids = batch["input_ids"].to(policy.device)
        _, states = completion_logits(policy, ids, asked.to(policy.device))
        lengths = batch["mask"].sum(1).tolist()
        yield from np.split(states.cpu().double().numpy(), np.cumsum(lengths)[:-1])


def linear_fit(
    states: Float[np.ndarray, "tokens hidden"],
    targets: Float[np.ndarray, "tokens"],
    ridge: float,
):
    r"""The function :math:`x \mapsto \bar y + (x - \bar x)^\top w` of least squared
    error plus ``ridge`` times :math:`\lVert w \rVert^2`."""
    center, mean = states.mean(0), targets.mean()
    spread = states - center
    penalty = ridge * np.eye(states.shape[1])
    weights = np.linalg.solve(spread.T @ spread + penalty, spread.T @ (targets - mean))
    return lambda others: mean + (others - center) @ weights
