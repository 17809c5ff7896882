"""Everything that can be set about PPO: each dial says which way it works.

The names are those of TRL's last PPO, where it had one.
"""

from dataclasses import dataclass
from typing import Literal

from transformers import TrainingArguments

from alignlab.errors import AlignlabError


@dataclass
class PPOConfig(TrainingArguments):
    """What can be set, beside everything of `transformers.TrainingArguments`.

    A step of those (``max_steps``, ``logging_steps``, ``save_steps``, the learning rate
    schedule) is one update: a batch of completions and all that is learnt from it.
    Without an ``output_dir`` nothing is written to disk.

    Args:
        total_episodes: completions to learn from in all; a whole number of batches. By
            default ``max_steps`` (updates) or ``num_train_epochs`` (passes over the
            prompts) decide.
        per_device_train_batch_size: episodes in one forward and backward pass. Times
            ``gradient_accumulation_steps`` it is a minibatch, times
            ``num_mini_batches`` the device's share of an update. A smaller one with
            more accumulation takes less memory and changes no update.
        num_mini_batches: optimizer steps in one pass over an update's episodes, each on
            as many as accumulate to one; so more of them also draw more episodes (in
            TRL they cut the same number smaller).
        num_ppo_epochs: passes over an update's episodes; more learn more from each, and
            leave the policy that sampled them further behind. 1 is on-policy. With 4,
            as TRL has it, runs of notebook 04 end lower, and now and then fail.
        local_rollout_forward_batch_size: episodes at once where no gradient is needed;
            fewer take less memory. None takes a device's share whole. Each such group
            draws from a random stream of its own, so the same number gives the same
            episodes on any number of devices.

        max_completion_length: tokens of a completion at most.
        temperature: divides the logits, in sampling and in scoring alike, so that what
            is optimised is what was sampled. Higher explores more.
        stop_token_id: the token that ends a completion; the tokenizer's by default.
        missing_eos_penalty: taken off the score of a completion that does not end
            itself; higher pushes harder towards ending in time.
        disable_dropout: measure and train without dropout, so that the ratio of the
            first pass is 1; False lets dropout look like a change of the policy.

        reward_weights: one factor per reward function; all 1 by default.
        normalize_rewards: "initial" shifts and scales scores to mean 0 and variance 1
            by the first update's statistics, "running" by those of all updates so far;
            "none" leaves them. It makes ``kl_coef`` comparable between rewards.
        cliprange_reward: scores are clipped to plus and minus this, after they are
            normalised; lower guards harder against outliers.
        whiten_rewards: scale the tokens' rewards, KL penalty included, to variance 1.

        kl_coef: price of one nat of KL to the reference, in units of reward; higher
            keeps closer to the reference, 0 lets go.
        kl_estimator: "k1" in the reward, "k2" or "k3" in the loss, each at the sampled
            tokens; or "exact", over the whole vocabulary, in either. That has no noise
            of its own and costs a pass of the reference in each epoch. Near the optimum
            "k1" is still the less noisy one, as its noise offsets the reward's.
        kl_in: "reward" also charges a token for the KL of those that follow it, and the
            optimum is reference * exp(reward / kl_coef), exactly. "loss" takes every
            prefix as it comes: of completions of several tokens, it leads to those that
            have more reward and more KL.
        kl_target: KL of a completion to hold, in nats, by changing ``kl_coef``; higher
            lets the policy go further. None keeps the coefficient fixed.
        kl_horizon: episodes over which that may change the coefficient by a fifth;
            higher reacts more slowly.
        early_stop_kl: an update ends its epochs after the one whose ``approx_kl`` (KL
            to the policy that sampled, in nats per token) is above this; lower keeps
            updates smaller.
        kl_limit: the run stops, with a warning, where KL of a completion exceeds this.

        gamma: discount per token; 1 counts a reward at the end in full.
        lam: 1 trusts the reward that came (no bias), lower the value function (less
            variance).
        whiten_advantages: bring advantages to mean 0 and variance 1 over the batch, so
            that the learning rate does not depend on the rewards' scale.
        cliprange: how far a token's probability may move in an update, as a share;
            lower is more careful.
        cliprange_value: how far a value may move in an update, in units of reward; None
            does not clip.
        vf_coef: weight of the value loss; higher fits values better and bends a shared
            trunk more.
        entropy_coef: weight of an entropy bonus; higher keeps the policy more varied.
        detach_value: the value head learns from the trunk's states without changing
            them; False lets value loss into the shared trunk.
        loss_limit: an absolute loss above this counts as exploded and stops the run.

        log_completions: so many completions are printed as a table at each log.
        learning_rate: the peak; about 3e-6 for a billion parameters, 1e-4 to 1e-3 for a
            million.
        adam_epsilon: larger damps the first, badly scaled steps of Adam.
    """

    total_episodes: int | None = None
    num_mini_batches: int = 1
    num_ppo_epochs: int = 2
    local_rollout_forward_batch_size: int | None = None

    max_completion_length: int = 64
    temperature: float = 1.0
    stop_token_id: int | None = None
    missing_eos_penalty: float | None = None
    disable_dropout: bool = True

    reward_weights: list[float] | None = None
    normalize_rewards: Literal["none", "initial", "running"] = "none"
    cliprange_reward: float | None = None
    whiten_rewards: bool = False

    kl_coef: float = 0.05
    kl_estimator: Literal["k1", "k2", "k3", "exact"] = "k1"
    kl_in: Literal["reward", "loss"] = "reward"
    kl_target: float | None = None
    kl_horizon: float = 10_000
    early_stop_kl: float | None = None
    kl_limit: float | None = None

    gamma: float = 1.0
    lam: float = 0.95
    whiten_advantages: bool = True
    cliprange: float = 0.2
    cliprange_value: float | None = 0.2
    vf_coef: float = 0.1
    entropy_coef: float = 0.0
    detach_value: bool = False
    loss_limit: float = 1e6

    log_completions: int = 0
    learning_rate: float = 3e-6
    adam_epsilon: float = 1e-5
    logging_steps: float = 1
    per_device_eval_batch_size: int = 64

    def __post_init__(self):
        if self.output_dir is None:
            self.save_strategy = "no"
        super().__post_init__()
        _check_dials(self)
        if self.total_episodes is not None:
            self.max_steps = self.total_episodes // self.batch_size

    @property
    def mini_batch_size(self) -> int:
        """Episodes on one device in one optimizer step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    @property
    def local_batch_size(self) -> int:
        """Episodes on one device in one update."""
        return self.mini_batch_size * self.num_mini_batches

    @property
    def batch_size(self) -> int:
        """Episodes in one update."""
        return self.local_batch_size * self.world_size


# --- Checks -------------------------------------------------------------------------

POSITIVE = (
    "num_mini_batches",
    "num_ppo_epochs",
    "max_completion_length",
    "temperature",
    "kl_horizon",
    "cliprange",
    "loss_limit",
)
POSITIVE_OR_NONE = (
    "total_episodes",
    "local_rollout_forward_batch_size",
    "cliprange_reward",
    "cliprange_value",
    "kl_target",
    "early_stop_kl",
    "kl_limit",
)
NOT_NEGATIVE = ("kl_coef", "vf_coef", "entropy_coef")
ONE_OF = {
    "kl_estimator": ("k1", "k2", "k3", "exact"),
    "kl_in": ("reward", "loss"),
    "normalize_rewards": ("none", "initial", "running"),
}
WRONG_GRADIENTS = {
    ("k1", "loss"): "the gradient of E[k1] that passes through the samples' log-"
    "probabilities is 0 on average, so there would be no penalty, only noise",
    ("k2", "reward"): "a token's reward is not differentiated, so what k2 would push "
    "against is not KL",
    ("k3", "reward"): "a token's reward is not differentiated, so k3's gradient would "
    "be that of KL(policy, reference) less that of KL(reference, policy), which can "
    "point away from the reference",
}


def _check_dials(args: PPOConfig) -> None:
    """Raise an ``AlignlabError`` at a setting that cannot be meant."""
    for name in POSITIVE + POSITIVE_OR_NONE:
        value = getattr(args, name)
        if value is None and name in POSITIVE_OR_NONE:
            continue
        if not value > 0:
            raise AlignlabError(f"{name} is {value}.", "It has to be greater than 0.")
    for name in NOT_NEGATIVE:
        if not getattr(args, name) >= 0:
            raise AlignlabError(f"{name} is {getattr(args, name)}.", "It is 0 or more.")
    for name, allowed in ONE_OF.items():
        value = getattr(args, name)
        if value not in allowed:
            raise AlignlabError(f"{name} is {value!r}.", f"It is one of {allowed}.")
    for name in ("gamma", "lam"):
        if not 0 <= getattr(args, name) <= 1:
            raise AlignlabError(f"{name} is {getattr(args, name)}.", "It is in [0, 1].")
    reason = WRONG_GRADIENTS.get((args.kl_estimator, args.kl_in))
    if reason is not None:
        raise AlignlabError(
            f"kl_estimator={args.kl_estimator!r} with kl_in={args.kl_in!r} has the "
            f"wrong gradient: {reason}.",
            'Use "k1" or "exact" with "reward", or "k2", "k3" or "exact" with "loss".',
        )
    _check_sizes(args)


def _check_sizes(args: PPOConfig) -> None:
    if args.fp16:
        raise AlignlabError(
            "fp16=True: PPO's gradients leave its range.", "Use bf16=True."
        )
    if args.n_gpu > 1:
        raise AlignlabError(
            f"One process sees {args.n_gpu} GPUs.",
            "Start one process for each with `accelerate launch`.",
        )
    if args.total_episodes is None:
        return
    if args.max_steps > 0:
        raise AlignlabError(
            f"total_episodes is {args.total_episodes} and max_steps {args.max_steps}.",
            "Set one of them.",
        )
    if args.total_episodes % args.batch_size:
        raise AlignlabError(
            f"total_episodes={args.total_episodes} is not a whole number of batches of "
            f"{args.batch_size} episodes (per_device_train_batch_size="
            f"{args.per_device_train_batch_size} x gradient_accumulation_steps="
            f"{args.gradient_accumulation_steps} x num_mini_batches="
            f"{args.num_mini_batches} x {args.world_size} processes).",
            f"Take {args.total_episodes // args.batch_size * args.batch_size} or "
            f"{-(-args.total_episodes // args.batch_size) * args.batch_size}.",
        )
