"""One update of PPO, RLOO or GRPO: advantages, then epochs of clipped steps over a
batch of episodes."""

import math
from collections.abc import Callable, Iterator

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from alignlab.errors import AlignlabError
from alignlab.objectives import (
    entropy,
    exact_kl,
    generalized_advantage_estimate,
    grpo_advantages,
    kl_estimate,
    masked_mean,
    ppo_diagnostics,
    ppo_policy_loss,
    ppo_value_loss,
    rloo_advantages,
    whiten,
)
from alignlab.objectives.policy import EPSILON
from alignlab.seeds import stream
from alignlab.training.loop import set_training_mode
from alignlab.training.ppo.checkpoints import last_checkpoint
from alignlab.training.ppo.config import PPOConfig
from alignlab.training.ppo.rollout import (
    Episodes,
    predict,
    split_by_width,
)

LOSS_LIMIT = 1e6  # beyond this, the loss has exploded


class OneProcess:
    """How a single process makes an optimizer step. Several processes have
    `distributed.Processes`, with the same methods."""

    vocabulary = 1  # logits of a token, which limit what fits into one pass

    def micro_batches(
        self, model: nn.Module, episodes: Episodes, rows: np.ndarray, config: PPOConfig
    ) -> Iterator[tuple[Episodes, Float[Tensor, ""]]]:
        """A minibatch in parts of like width, each with its share of the tokens."""
        tokens = episodes.mask[rows].sum()
        parts = config.gradient_accumulation_steps
        for part in split_by_width(episodes, rows, parts, self.vocabulary):
            batch = episodes.take(part)
            yield batch, batch.mask.sum() / tokens

    def backward(self, loss: Float[Tensor, ""]) -> None:
        loss.backward()

    def clip_grad_norm(self, model: nn.Module, max_norm: float) -> float:
        """Scale the gradient down to a norm (0: leave it); return the norm it had."""
        limit = max_norm if max_norm > 0 else math.inf
        return float(nn.utils.clip_grad_norm_(model.parameters(), limit))

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum over all processes."""
        return numbers


ONE_PROCESS = OneProcess()


def ppo_update(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    episodes: Episodes,
    config: PPOConfig,
    update: int = 0,  # its number, which draws the minibatches
    kl_coef: float | None = None,  # config.kl_coef, unless it adapts
    ref_logits: Callable[[Episodes], Tensor] | None = None,  # for an exact KL
    processes: OneProcess = ONE_PROCESS,
) -> list[dict[str, float]]:
    """Train a PolicyAndValue on a batch of episodes that have rewards and values.

    Sets their advantages and returns; gives the numbers of each optimizer step.
    Source: Schulman et al. (2017); Stiennon et al. (2020).
    """
    scale = set_advantages(episodes, config)
    kl_price = (config.kl_coef if kl_coef is None else kl_coef) / scale  # as advantages
    clip_ranges = config.cliprange, config.cliprange_high
    steps = []
    for epoch in range(config.num_ppo_epochs):
        order = stream(config.seed, "PPO minibatches", update, epoch)
        order = order.permutation(len(episodes))
        for rows in np.array_split(order, config.num_mini_batches):
            set_training_mode(model, dropout=False)
            episodes.weights = token_weights(episodes.lengths, rows, config)
            sums = 0.0
            for batch, share in processes.micro_batches(model, episodes, rows, config):
                log_probs, values, logits = predict(model, batch, config.temperature)
                weighted = batch.advantages * batch.weights[:, None]
                old = batch.old_log_probs, weighted, batch.mask
                loss = ppo_policy_loss(log_probs, *old, *clip_ranges)
                numbers = {"policy_loss": loss}
                if config.has_values:
                    old_values = batch.values, batch.returns, batch.mask
                    clip = config.cliprange_value
                    numbers["value_loss"] = ppo_value_loss(values, *old_values, clip)
                    loss = loss + config.vf_coef * numbers["value_loss"]
                if config.entropy_coef:
                    loss = loss - config.entropy_coef * entropy(logits).mean()
                if kl_price and config.has_kl_loss:
                    kl = mean_kl(batch, log_probs, logits, config, ref_logits)
                    loss = loss + kl_price * kl
                processes.backward(loss * share)
                numbers |= ppo_diagnostics(log_probs.detach(), *old, *clip_ranges)
                numbers = {"loss": loss} | numbers
                sums += share * torch.stack(list(numbers.values())).detach()
            norm = processes.clip_grad_norm(model, config.max_grad_norm)
            step = dict(zip(numbers, processes.sum(sums).tolist(), strict=True))
            steps.append(step | {"grad_norm": norm})
            require_finite(steps[-1], config, update)
            optimizer.step()
            optimizer.zero_grad()
        epoch_kl = np.mean([s["approx_kl"] for s in steps[-config.num_mini_batches :]])
        if config.early_stop_kl is not None and epoch_kl > config.early_stop_kl:
            break
    return steps


def set_advantages(episodes: Episodes, config: PPOConfig) -> float:
    """Set advantages, and the returns that values are fitted to; give what both were
    divided by."""
    rewards, mask, scale = episodes.rewards, episodes.mask, 1.0
    if config.whiten_rewards:
        scale *= standard_deviation(rewards, mask)
        rewards = whiten(rewards, mask, shift_mean=False)
    if config.has_values:
        advantages, episodes.returns = generalized_advantage_estimate(
            rewards, episodes.values, mask, config.gamma, config.lam
        )
    else:
        advantages = compare_completions(rewards, config)[:, None] * mask
    if config.whiten_advantages:
        scale *= standard_deviation(advantages, mask)
        advantages = whiten(advantages, mask)
    episodes.advantages = advantages
    return scale


def compare_completions(
    rewards: Float[Tensor, "batch time"], config: PPOConfig
) -> Float[Tensor, "batch"]:
    """The advantage of each completion over the others of its prompt."""
    discounts = config.gamma ** torch.arange(rewards.shape[1], device=rewards.device)
    scores, k = (rewards * discounts).sum(1), config.completions_per_prompt
    if config.advantages == "rloo":
        return rloo_advantages(scores, k)
    return grpo_advantages(scores, k, config.scale_rewards)


def token_weights(
    lengths: Int[Tensor, "batch"], rows: np.ndarray, config: PPOConfig
) -> Float[Tensor, "batch"]:
    """The weight of each episode's tokens in a loss that is a mean over the tokens of
    the minibatch's rows.

    PPO's is such a mean. RLOO sums over each completion's tokens, and GRPO averages
    over them or divides their sum by a constant; both then average over completions.
    """
    if config.has_values:
        return torch.ones_like(lengths, dtype=torch.float32)
    own = lengths[torch.from_numpy(rows).to(lengths.device)]
    weights = own.sum() / len(rows) * torch.ones_like(lengths, dtype=torch.float32)
    if config.advantages == "rloo":
        return weights
    longest = config.max_completion_length
    return weights / (lengths if config.length_normalize else longest)


def mean_kl(
    batch: Episodes,
    log_probs: Float[Tensor, "batch time"],
    logits: Float[Tensor, "tokens vocab"],
    config: PPOConfig,
    ref_logits: Callable[[Episodes], Tensor] | None,
) -> Float[Tensor, ""]:
    """Mean KL to the reference in nats per token, as the tokens are weighted, with the
    gradient of the policy.

    Raises:
        ValueError: if the KL is exact and there are no ``ref_logits``.
    """
    if config.kl_estimator == "exact":
        if ref_logits is None:
            raise ValueError('kl_estimator="exact" needs ref_logits, and it is None')
        weights = batch.weights.repeat_interleave(batch.lengths)  # flat, as the logits
        return (weights * exact_kl(logits, ref_logits(batch))).mean()
    kl = kl_estimate(log_probs, batch.ref_log_probs, config.kl_estimator)
    # As if the policy as it is now had sampled, not the one before the update.
    ratio = (log_probs.detach() - batch.old_log_probs).exp()
    return masked_mean(ratio * kl * batch.weights[:, None], batch.mask)


def standard_deviation(values: Tensor, mask: Tensor) -> float:
    """What `whiten` divides by."""
    squares = (values - masked_mean(values, mask)).square()
    return math.sqrt(masked_mean(squares, mask).item() + EPSILON)


def require_finite(step: dict[str, float], config: PPOConfig, update: int) -> None:
    """Stop before an optimizer step on a loss or gradient that has exploded."""
    loss, norm = step["loss"], step["grad_norm"]
    if abs(loss) <= LOSS_LIMIT and math.isfinite(norm):
        return
    checkpoint = last_checkpoint(config.output_dir)
    raise AlignlabError(
        f"In update {update + 1} the loss is {loss:.3g} and the norm of its gradient "
        f"{norm:.3g}; the last good checkpoint is "
        f"{checkpoint or 'none, as none was written'}.",
        f"Lower learning_rate (now {config.learning_rate}), or scale the rewards with "
        "normalize_rewards.",
    )
