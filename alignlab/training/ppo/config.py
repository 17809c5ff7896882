"""The hyperparameters of PPO, RLOO and GRPO, each with its direction.

Where TRL has the same hyperparameter, it has TRL's name.
"""

from dataclasses import dataclass
from typing import Literal

from transformers import TrainingArguments

from alignlab.errors import AlignlabError


@dataclass
class PPOConfig(TrainingArguments):
    """Hyperparameters of PPO, beside those of `transformers.TrainingArguments`.

    What those call a step (``max_steps``, ``logging_steps``, ``save_steps``, the
    learning rate schedule) is one update: a batch of completions and epochs over it.
    Without an ``output_dir`` nothing is written to disk.

    Args:
        total_episodes: completions to train on in all; a whole number of batches. By
            default ``max_steps`` (updates) or ``num_train_epochs`` (passes over the
            prompts) decide.
        per_device_train_batch_size: episodes in one forward and backward pass. Times
            ``gradient_accumulation_steps`` it is a minibatch; times
            ``num_mini_batches``, the device's share of an update. A smaller one with
            more accumulation takes less memory and leaves the update as it is.
        num_mini_batches: optimizer steps per epoch. More of them also draw more
            episodes, as each minibatch keeps its size (TRL splits the same episodes).
        num_ppo_epochs: passes over an update's episodes. More learn more from each
            episode but move further from the policy that sampled it; 1 is on-policy.
            With TRL's 4, runs of notebook 04 end lower, and now and then fail.
        local_rollout_forward_batch_size: episodes sampled and scored at once; fewer
            take less memory. None takes all of a device's share. Each such group has
            its own random stream, so the same number gives the same episodes on any
            number of devices.
        dtype: precision of a policy given by name: "float32", so that small steps are
            not lost, or "auto" for the one its checkpoint was saved in. For speed, set
            ``bf16=True`` instead, which leaves the weights in float32.
        chat_template_kwargs: further arguments of the chat template, such as
            ``{"enable_thinking": False}``. A prompt's own column of that name wins.

        advantages: how much better a completion was than expected. "gae" asks a value
            function, token by token: PPO. "rloo" and "grpo" compare the completions of
            one prompt and need no value function. See
            :func:`alignlab.objectives.rloo_advantages` and ``grpo_advantages``.
        completions_per_prompt: completions of each prompt in an update; at least 2
            without a value function. More compare better, on fewer prompts.
        scale_rewards: for "grpo": divide by the standard deviation of a prompt's
            scores. True weighs easy and very hard prompts more than their rewards say;
            False leaves that bias out.
        length_normalize: for "grpo": True averages the loss over a completion's tokens,
            so that each token of a long completion counts for less. Among bad
            completions that favours the long ones. False divides by
            ``max_completion_length`` instead, and leaves that bias out (Dr. GRPO).

        max_completion_length: longest completion, in tokens; longer ones are cut.
        temperature: divides the logits, in sampling and in every log-probability, so
            that the sampled policy is the trained one. Higher explores more.
        stop_token_id: the token that ends a completion, or several. None takes all that
            end a reply: the EOS token, the chat template's end of turn and those of the
            model's generation config. An empty list ends none before its full length.
        missing_eos_penalty: subtracted from the score of a completion that is cut;
            higher pushes harder towards ending in time.

        reward_weights: one factor per reward function; None weighs all 1. A higher
            weight makes its function count more.
        normalize_rewards: "initial" shifts and scales scores to mean 0 and variance 1
            by the statistics of the first update, "running" by those of all updates so
            far, which follows a changing reward; "none" leaves scores alone.
            Normalised, the same ``kl_coef`` suits rewards of any scale.
        whiten_rewards: scale the tokens' rewards, KL penalty included, to variance 1.

        kl_coef: price of one nat of KL to the reference, in units of reward; higher
            keeps closer to the reference, 0 lets go.
        kl_estimator: "k1" in the reward, "k2" or "k3" in the loss, each at the sampled
            tokens; or "exact", over the whole vocabulary, in either. "exact" has no
            sampling noise of its own but needs the reference once per epoch. Near the
            optimum "k1" is still less noisy, as its noise offsets the reward's.
        kl_in: "reward" also charges a token for the KL of later tokens, and its optimum
            is exactly reference * exp(reward / kl_coef). "loss" charges each token for
            its own KL only; where completions have several tokens, that ends at more
            reward and more KL.
        kl_target: KL of a completion to hold, in nats, by adapting ``kl_coef``; higher
            lets the policy go further. None keeps the coefficient fixed.
        kl_horizon: episodes in which ``kl_coef`` may adapt by a fifth; higher reacts
            more slowly.
        early_stop_kl: an update ends after the first epoch whose ``approx_kl`` (KL to
            the policy that sampled, in nats per token) exceeds this; lower keeps
            updates smaller. None never ends early.
        kl_limit: the run stops, with a warning, once the KL of a completion to the
            reference exceeds this, in nats; higher tolerates more. None never stops.

        gamma: discount per token. Lower cares less for later rewards; 1 counts a reward
            at the end in full.
        lam: GAE's lambda. 1 trusts the sampled reward (no bias); lower trusts the value
            function (less variance), and needs one that has learnt: a head that still
            gives 0 where scores are high makes early tokens look bad, and completions
            short.
        whiten_advantages: shift and scale the advantages to mean 0 and variance 1 over
            the batch, so that the learning rate does not depend on the reward's scale.
            None does so for "gae" only.
        cliprange: how far a token's probability ratio may leave 1 within an update;
            lower is more careful.
        cliprange_high: how far it may rise above 1, where that is not the same. Higher
            lets unlikely tokens rise sooner ("clip higher"); None takes ``cliprange``.
        cliprange_value: how far a value may move within an update, in units of reward;
            lower is more careful. None does not clip.
        vf_coef: weight of the value loss; higher fits values better but changes a
            shared trunk more.
        entropy_coef: weight of an entropy bonus; higher keeps the policy more varied.
        detach_value: True keeps the value loss out of the policy's trunk, so that only
            the value head learns from it. Has no effect with a ``value_model``.

        log_completions: completions to print as a table at each log; 0 prints none.
        learning_rate: the peak; about 3e-6 for a billion parameters, 1e-4 to 1e-3 for a
            million. Higher learns faster and fails sooner.
        adam_epsilon: higher damps Adam's first, badly scaled steps.
    """

    total_episodes: int | None = None
    num_mini_batches: int = 1
    num_ppo_epochs: int = 2
    local_rollout_forward_batch_size: int | None = None
    dtype: str = "float32"
    chat_template_kwargs: dict | None = None

    advantages: Literal["gae", "rloo", "grpo"] = "gae"
    completions_per_prompt: int = 1
    scale_rewards: bool = True
    length_normalize: bool = True

    max_completion_length: int = 64
    temperature: float = 1.0
    stop_token_id: list[int] | None = None  # or just the one
    missing_eos_penalty: float | None = None

    reward_weights: list[float] | None = None
    normalize_rewards: Literal["none", "initial", "running"] = "none"
    whiten_rewards: bool = False

    kl_coef: float = 0.05
    kl_estimator: Literal["k1", "k2", "k3", "exact"] = "k1"
    kl_in: Literal["reward", "loss"] = "reward"
    kl_target: float | None = None
    kl_horizon: float = 10_000
    early_stop_kl: float | None = None
    kl_limit: float | None = None

    gamma: float = 1.0
    lam: float = 1.0
    whiten_advantages: bool | None = None
    cliprange: float = 0.2
    cliprange_high: float | None = None
    cliprange_value: float | None = 0.2
    vf_coef: float = 0.1
    entropy_coef: float = 0.0
    detach_value: bool = False

    log_completions: int = 0
    learning_rate: float = 3e-6
    adam_epsilon: float = 1e-5
    logging_steps: float = 1
    per_device_eval_batch_size: int = 64

    def __post_init__(self):
        if self.output_dir is None:
            self.save_strategy = "no"
        super().__post_init__()
        _check_values(self)
        if self.whiten_advantages is None:
            self.whiten_advantages = self.has_values
        if self.total_episodes is not None:
            self.max_steps = self.total_episodes // self.batch_size

    @property
    def has_values(self) -> bool:
        """Whether advantages come from a value function."""
        return self.advantages == "gae"

    @property
    def has_kl_loss(self) -> bool:
        """Whether the loss has a KL term. Exact KL in the reward has one as well: the
        reward prices the KL that a token leads to, the loss that of its own choice."""
        return self.kl_in == "loss" or self.kl_estimator == "exact"

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
    "completions_per_prompt",
    "max_completion_length",
    "temperature",
    "kl_horizon",
    "cliprange",
)
POSITIVE_OR_NONE = (
    "total_episodes",
    "cliprange_high",
    "local_rollout_forward_batch_size",
    "cliprange_value",
    "kl_target",
    "early_stop_kl",
    "kl_limit",
)
NOT_NEGATIVE = ("kl_coef", "vf_coef", "entropy_coef")
ONE_OF = {
    "advantages": ("gae", "rloo", "grpo"),
    "kl_estimator": ("k1", "k2", "k3", "exact"),
    "kl_in": ("reward", "loss"),
    "normalize_rewards": ("none", "initial", "running"),
}
WRONG_GRADIENTS = {
    ("k1", "loss"): "the gradient of k1 at the samples is 0 on average: there would "
    "be noise but no penalty",
    ("k2", "reward"): "rewards are not differentiated, and as a reward k2 does not "
    "penalise the KL",
    ("k3", "reward"): "rewards are not differentiated, and as a reward k3 gives the "
    "gradient of KL(policy, reference) minus that of KL(reference, policy), which can "
    "point away from the reference",
}


def _check_values(args: PPOConfig) -> None:
    for name in POSITIVE + POSITIVE_OR_NONE:
        value = getattr(args, name)
        if value is None and name in POSITIVE_OR_NONE:
            continue
        if not value > 0:
            raise AlignlabError(f"{name} is {value}.", "Set it above 0.")
    for name in NOT_NEGATIVE:
        if not getattr(args, name) >= 0:
            raise AlignlabError(
                f"{name} is {getattr(args, name)}.", "Set it to 0 or more."
            )
    for name, allowed in ONE_OF.items():
        value = getattr(args, name)
        if value not in allowed:
            raise AlignlabError(f"{name} is {value!r}.", f"Choose one of {allowed}.")
    for name in ("gamma", "lam"):
        if not 0 <= getattr(args, name) <= 1:
            raise AlignlabError(
                f"{name} is {getattr(args, name)}.", "Set it within [0, 1]."
            )
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
            "fp16=True: PPO's gradients overflow in float16.", "Use bf16=True."
        )
    if args.n_gpu > 1:
        raise AlignlabError(
            f"One process sees {args.n_gpu} GPUs.",
            "Start one process per GPU with `accelerate launch`.",
        )
    k = args.completions_per_prompt
    if not args.has_values and k < 2:
        raise AlignlabError(
            f"advantages={args.advantages!r} compares the completions of a prompt, and "
            f"completions_per_prompt is {k}.",
            "Set it to 2 or more, such as 4.",
        )
    if args.batch_size % k:
        raise AlignlabError(
            f"completions_per_prompt={k} does not divide an update's {args.batch_size} "
            "episodes.",
            "Set per_device_train_batch_size to a multiple of it.",
        )
    if args.total_episodes is None:
        return
    if args.max_steps > 0:
        raise AlignlabError(
            f"total_episodes is {args.total_episodes} and max_steps {args.max_steps}.",
            "Set only one of them.",
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
