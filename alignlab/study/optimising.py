"""Optimise the reference policy of a chain, and look at it along the way: the runs that
notebooks 04, 05 and 06 are made of.

Rewards are scaled to mean 0 and variance 1 over a run's first completions, so that a
price of KL means the same on a proxy reward, on gold and on an ensemble: standard
deviations of reward per nat.
"""

import time
from collections.abc import Mapping, Sequence

import numpy as np
from transformers import TrainerCallback

from alignlab.errors import AlignlabError
from alignlab.models.base import device_in_use
from alignlab.models.reward import score
from alignlab.ppo import PPOConfig, PPOTrainer
from alignlab.seeds import stream
from alignlab.study import artifacts
from alignlab.study.chains import Chain
from alignlab.study.measure import evaluate_policy
from alignlab.study.scale import cap, scaled
from alignlab.training.dpo import train_dpo
from alignlab.world import gold, tasks

EPISODES = 64  # completions of one update
# Everything else is as PPOConfig has it. A higher rate gains sooner, and spends more of
# its KL on noise; a higher kl_coef keeps closer to the reference. Both were chosen on
# seeds 0 and 1, which no recorded run has. Rates are those of the shipped sizes, also
# those that chapters put in their place; ``study.scale.scaled`` makes other models'.
RECIPE: Mapping[str, object] = dict(
    per_device_train_batch_size=32,
    num_mini_batches=2,
    learning_rate=1e-4,
    kl_coef=0.2,
    lam=0.95,
    lr_scheduler_type="constant",
    normalize_rewards="initial",
    max_completion_length=artifacts.MAX_NEW_TOKENS,
)
DPO_RECIPE: Mapping[str, object] = dict(
    loss_type="sigmoid", beta=0.1, batch_size=32, learning_rate=2.5e-4
)
LOGGED = (
    "score",
    "score_std",
    "reward/gold",
    "return",
    "kl",
    "kl_exact",
    "entropy",
    "completion_length",
    "eos_rate",
    "value",
    "explained_variance",
    "policy_loss",
    "value_loss",
    "approx_kl",
    "clip_fraction",
    "ratio",
    "grad_norm",
)


# --- A trainer on the world's task ----------------------------------------------------


def requests(split: str) -> list[dict]:
    """Prompts for PPO: a request for every subject of a split, "train" or "test", with
    its subject."""
    return [
        {"prompt": [{"role": "user", "content": gold.request(name)}], "subject": name}
        for name in artifacts.subjects(split)
    ]


def gold_of(completions: Sequence[str], subject: Sequence[str]) -> list[float]:
    """The gold reward of each completion, as a reward function for PPO."""
    world = tasks.default_world()
    pairs = zip(subject, completions, strict=True)
    return [gold.gold_reward(world, *pair).total for pair in pairs]


gold_of.__name__ = "gold"  # what the trainer's logs call it


def proxy_of(
    model, tokenizer, subjects: Sequence[str], replies: Sequence[str]
) -> list[float]:
    """A reward model's reward of replies to the requests about these subjects."""
    prompts = [gold.request(name) for name in subjects]
    return score(model, tokenizer, prompts, replies).tolist()


def trainer_for(
    policy,
    tokenizer,
    reward,
    *,
    base: str = "1m",
    seed: int = 0,
    updates: int = 1,
    **hyperparameters,
) -> PPOTrainer:
    """A trainer that optimises a reward and records the gold one beside it.

    Args:
        policy: what to train, in place.
        reward: a reward model that reads the policy's tokens, or a reward function;
            :func:`gold_of` optimises gold itself.
        base: the base model that it was trained from, for the learning rate.
        seed: of prompts, sampling and minibatches.
        updates: of ``EPISODES`` completions each.
        hyperparameters: of :class:`PPOConfig`, in place of those in ``RECIPE``.
    """
    on_gold = reward is gold_of
    settings = {**RECIPE, **hyperparameters}
    settings["learning_rate"] = scaled(settings["learning_rate"], base)
    length = cap(tokenizer, settings["max_completion_length"])
    settings["max_completion_length"] = length
    args = PPOConfig(
        seed=seed,
        max_steps=updates,
        reward_weights=[1.0] if on_gold else [1.0, 0.0],
        use_cpu=device_in_use() == "cpu",
        disable_tqdm=True,
        report_to="none",
        **settings,
    )
    functions = [gold_of] if on_gold else [reward, gold_of]
    return PPOTrainer(
        policy, functions, args, requests("train"), processing_class=tokenizer
    )


def history_of(trainer: PPOTrainer) -> dict[str, list[float]]:
    """What the trainer logged: for each name in ``LOGGED``, a number per update."""
    rows = [row for row in trainer.state.log_history if "kl_exact" in row]
    return {name: [row[name] for row in rows if name in row] for name in LOGGED}


# --- Looks along a run ----------------------------------------------------------------


class Looks:
    """Evaluates a policy after some of its updates, and counts the processor's seconds
    of everything else.

    Args:
        chain: whose reference and reward model judge.
        at: updates to look after.
        n: replies to each test request at each look.
        texts: whether to keep the replies and the rewards of each. They are sampled
            with the same random numbers at every look.
    """

    def __init__(self, chain: Chain, at: Sequence[int], n: int, texts: bool = False):
        self.reference, self.tokenizer = chain.policy()
        self.proxy, _ = chain.reward_model()
        self.at, self.texts = at, texts
        self.options = dict(seed=chain.seed, n=n)
        self.points: list[dict] = []
        self.looking, self.start = 0.0, time.process_time()

    def seconds(self) -> float:
        """Seconds of this process since the start, without its looks."""
        return time.process_time() - self.start - self.looking

    def look(self, step: int, policy) -> None:
        """Add a point, if one is due after this update."""
        if step not in self.at:
            return
        seconds, begun = self.seconds(), time.process_time()
        seen = evaluate_policy(
            policy, self.tokenizer, self.reference, proxy=self.proxy, **self.options
        )
        self.points.append(
            {"step": step, "seconds": seconds, **_summary(seen, self.texts)}
        )
        self.looking += time.process_time() - begun


def _summary(seen: Mapping, texts: bool) -> dict:
    """Means over the replies to each request, and over all of them."""
    names = {"golds": "gold", "proxies": "proxy"}
    columns = {column: np.mean(seen[column], axis=1) for column in names}
    point = {column: values.tolist() for column, values in columns.items()}
    point |= {names[column]: float(v.mean()) for column, v in columns.items()}
    point |= {part: float(np.mean(seen[part])) for part in gold.PARTS}
    point |= {name: seen[name] for name in ("kl", "entropy", "length", "ended")}
    if texts:
        point["texts"] = seen["texts"]
        point["each_gold"], point["each_proxy"] = seen["golds"], seen["proxies"]
    return point


class _AfterUpdates(TrainerCallback):
    def __init__(self, looks: Looks, policy):
        self.looks, self.policy = looks, policy

    def on_step_end(self, args, state, control, **kwargs) -> None:
        self.looks.look(state.global_step, self.policy)


# --- Arms -----------------------------------------------------------------------------


def start_arm(*, chain: dict, n: int, texts: bool = False) -> dict:
    """The reference policy itself: ``points``, the one before the first update, with
    the same random numbers as the looks of the other arms."""
    link = Chain(**chain)
    looks = Looks(link, [0], n, texts)
    looks.look(0, looks.reference)
    return {"points": looks.points}


def rl_arm(
    *,
    chain: dict,
    at: Sequence[int],
    n: int,
    reward: str = "proxy",
    run_seed: int | None = None,
    texts: bool = False,
    **hyperparameters,
) -> dict:
    """One run of PPO, RLOO or GRPO, looked at along the way.

    Args:
        chain: arguments of :class:`alignlab.study.chains.Chain`.
        at: updates to look after; the last one ends the run.
        n: replies to each test request at each look.
        reward: "proxy", the chain's reward model, or "gold".
        run_seed: of prompts, sampling and minibatches, by default the chain's.
        texts: keep the replies of every look.
        hyperparameters: of :class:`PPOConfig`, in place of those in ``RECIPE``.

    Returns:
        ``points``, one for each look that was reached: ``step``; ``seconds``, of this
        process, spent training up to there; ``golds`` and ``proxies`` of each test
        subject, with their means ``gold`` and ``proxy``, the parts of gold, ``kl`` in
        nats a reply, ``entropy``, ``length`` and ``ended``. ``history``, see
        :func:`history_of`; ``stopped``, why the run could not go on, or None.
    """
    link = Chain(**chain)
    policy, tokenizer = link.policy()
    function = gold_of if reward == "gold" else link.reward_model()[0]
    return run_rl(
        policy,
        tokenizer,
        function,
        Looks(link, at, n, texts),
        base=link.base,
        seed=link.seed if run_seed is None else run_seed,
        **hyperparameters,
    )


def run_rl(policy, tokenizer, reward, looks: Looks, **settings) -> dict:
    """Train a policy as :func:`trainer_for` has it, with looks along the way; returns
    what :func:`rl_arm` does."""
    trainer = trainer_for(policy, tokenizer, reward, updates=looks.at[-1], **settings)
    trainer.add_callback(_AfterUpdates(looks, trainer.policy))
    stopped = None
    try:
        trainer.train()
    except AlignlabError as error:
        stopped = str(error)
    history = history_of(trainer)
    if stopped is None and len(history["score"]) < looks.at[-1]:
        stopped = "the policy went beyond kl_limit"
    return {"points": looks.points, "history": history, "stopped": stopped}


def dpo_arm(
    *,
    chain: dict,
    at: Sequence[float],
    n: int,
    passes: int = 1,
    n_used: int | None = None,
    flips: float = artifacts.FLIPS,
    run_seed: int | None = None,
    texts: bool = False,
    **hyperparameters,
) -> dict:
    """One run of DPO or one of its family on the comparisons that the chain's reward
    model learnt from, looked at along the way.

    Args:
        chain: arguments of :class:`alignlab.study.chains.Chain`.
        at: shares of the run to look after, such as 0.5; the last one is 1.
        n: replies to each test request at each look.
        passes: over the comparisons; more fit them more closely.
        n_used: how many of them, None all.
        flips: rate of wrong labels.
        run_seed: of the order of the pairs, by default the chain's.
        texts: keep the replies of every look.
        hyperparameters: of :func:`alignlab.training.dpo.train_dpo`, in place of those
            in ``DPO_RECIPE``.

    Returns:
        ``points`` and ``stopped`` as :func:`rl_arm` does; seconds include what the
        reference thinks of the pairs. ``history``, what ``train_dpo`` gives, a list of
        each of its columns.
    """
    link = Chain(**chain)
    seed = link.seed if run_seed is None else run_seed
    pairs = link.comparisons(flips)
    pairs = [pairs[i] for i in stream(seed, "DPO pairs").permutation(len(pairs))]
    pairs = pairs[:n_used]
    settings = {**DPO_RECIPE, **hyperparameters}
    settings["learning_rate"] = scaled(settings["learning_rate"], link.base)
    steps = max(1, len(pairs) * passes // settings["batch_size"])
    due = [max(1, round(share * steps)) for share in at]
    policy, tokenizer = link.policy()
    return run_dpo(
        policy,
        tokenizer,
        pairs,
        Looks(link, due, n, texts),
        seed=seed,
        steps=steps,
        **settings,
    )


def run_dpo(policy, tokenizer, pairs, looks: Looks, **settings) -> dict:
    """Train a policy on pairs, with looks along the way; returns what :func:`dpo_arm`
    does."""
    history: list[dict] = []

    def after_step(row: Mapping) -> None:
        history.append(dict(row))
        looks.look(row["step"], policy)

    stopped = None
    try:
        train_dpo(
            policy,
            tokenizer,
            pairs,
            schedule="constant",
            progress=False,
            on_log=after_step,
            **settings,
        )
    except AlignlabError as error:
        stopped = str(error)
    names = {name for row in history for name in row}
    columns = {name: [row.get(name) for row in history] for name in sorted(names)}
    return {"points": looks.points, "history": columns, "stopped": stopped}
