"""The arms of notebook 04: PPO on a learnt reward, as it is and with one thing changed,
and DPO on the comparisons that the reward was learnt from.

All of them start from one reference policy, are measured on the same unseen subjects,
and differ from ``RECIPE`` and the defaults of :class:`PPOConfig` by what they name.
"""

import itertools
import json
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from alignlab import cache
from alignlab.errors import AlignlabError
from alignlab.evaluation.exact import best_of_n_kl
from alignlab.models.base import device_in_use, load_model, weights_hash
from alignlab.models.reward import score
from alignlab.models.sampler import sample
from alignlab.objectives import exact_kl, kl_estimate
from alignlab.ppo import PPOConfig, PPOTrainer
from alignlab.study import artifacts as alignment
from alignlab.study.arms import run_groups
from alignlab.training.dpo import train_dpo
from alignlab.training.ppo.rollout import Episodes, PolicyAndValue, pad_left
from alignlab.training.ppo.trainer import VALUE_FILE
from alignlab.world import gold, tasks

# Beside these, everything is as PPOConfig has it. 64 episodes an update in two
# minibatches; higher rates learn sooner and fail sooner.
RECIPE: Mapping[str, object] = dict(
    per_device_train_batch_size=32,
    num_mini_batches=2,
    learning_rate=1.5e-4,
    lr_scheduler_type="constant",
    max_completion_length=alignment.MAX_NEW_TOKENS,
    per_device_eval_batch_size=256,  # fewer take less memory, and longer
)
BETA = 0.05  # PPOConfig's kl_coef, in units of reward per nat
PENALISED = 0.2  # the price at which the claim on reward and KL is judged
UNCLIPPED = 1e6  # a clip range that no ratio reaches
KL_LIMIT = 15.0  # nats a reply; a run that ends beyond has failed

# What is left of PPO without one of its pieces.
PIECES: Mapping[str, dict] = {
    "clipping": dict(cliprange=UNCLIPPED),
    "gae": dict(lam=1.0),
    "whitening": dict(whiten_advantages=False),
    # Untrained, the head says 0 throughout: rewards-to-go, less their mean.
    "value": dict(vf_coef=0.0, lam=1.0),
}
# From REINFORCE to PPO, each with what the one before has; the last is the default.
_REINFORCE = dict(
    num_ppo_epochs=1,
    num_mini_batches=1,
    per_device_train_batch_size=64,
    cliprange=UNCLIPPED,
    vf_coef=0.0,
    lam=1.0,
    whiten_advantages=False,
    kl_coef=0.0,
)
_WHITENED = {k: v for k, v in _REINFORCE.items() if k != "whiten_advantages"}
_VALUED = {k: v for k, v in _WHITENED.items() if k not in ("vf_coef", "lam")}
LADDER: Mapping[str, dict] = {
    "REINFORCE": _REINFORCE,
    "+ baseline, whitened": _WHITENED,
    "+ value function, GAE": _VALUED,
    "+ epochs, unclipped": dict(kl_coef=0.0, cliprange=UNCLIPPED),
    "+ clipping": dict(kl_coef=0.0),
    "+ KL penalty: PPO": dict(kl_coef=BETA),
}
EAGER: Mapping[str, object] = dict(num_ppo_epochs=4)  # as TRL's PPO had it
SICK: Mapping[str, object] = dict(
    learning_rate=1.5e-3, cliprange=UNCLIPPED, kl_coef=0.0
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
    "seconds_rollout",
    "seconds_reward",
    "seconds_update",
)


# --- A trainer on the world's task ---------------------------------------------------


def requests(split: str, repeat: int = 1) -> list[dict]:
    """Prompts for PPO: a request for every subject of a split, the subject beside it.

    Args:
        split: "train" or "test".
        repeat: how often each is asked, one round after the other.
    """
    rows = [
        {"prompt": [{"role": "user", "content": gold.request(name)}], "subject": name}
        for name in alignment.subjects(split)
    ]
    return rows * repeat


def gold_of(completions: Sequence[str], subject: Sequence[str]) -> list[float]:
    """The gold reward of each completion, as a reward function for PPO."""
    world = tasks.default_world()
    judged = (gold.gold_reward(world, *pair) for pair in zip(subject, completions))
    return [one.total for one in judged]


gold_of.__name__ = "gold"  # what the trainer's logs call it


def rewards_of(
    model, tokenizer, subjects: Sequence[str], replies: Sequence[str]
) -> list[float]:
    """What a reward model gives replies to the requests about these subjects."""
    return score(
        model, tokenizer, [gold.request(s) for s in subjects], replies
    ).tolist()


def trainer_for(
    policy,
    tokenizer,
    reward_model,
    *,
    seed: int = 0,
    updates: int = 1,
    reference=None,
    **dials,
) -> PPOTrainer:
    """A trainer that optimises the learnt reward and only looks at the gold one.

    Args:
        policy: what to train, in place.
        reward_model: what is optimised; it reads the policy's tokens.
        seed: of prompts, sampling and minibatches.
        updates: of 64 episodes each.
        reference: what KL is measured to; by default the policy as it is now.
        dials: of :class:`PPOConfig`, other than in ``RECIPE``.
    """
    args = PPOConfig(
        seed=seed,
        max_steps=updates,
        reward_weights=[1.0, 0.0],
        use_cpu=device_in_use() == "cpu",
        disable_tqdm=True,
        report_to="none",
        **{**RECIPE, **dials},
    )
    return PPOTrainer(
        policy,
        [reward_model, gold_of],
        args,
        requests("train"),
        processing_class=tokenizer,
        ref_model=reference,
    )


def trained(
    *, seed: int, updates: int, size: str, steps: int, n_pairs: int, k: int, **dials
) -> PPOTrainer:
    """The trainer after PPO from the reference policy; one whose loss exploded is left
    where it stopped, and its ``stopped`` says why."""
    policy, tokenizer = alignment.reference_policy(size, steps)
    learnt, _ = alignment.reward_model(n_pairs, k=k, size=size, steps=steps)
    trainer = trainer_for(
        policy, tokenizer, learnt, seed=seed, updates=updates, **dials
    )
    trainer.stopped = None
    try:
        trainer.train()
    except AlignlabError as error:
        trainer.stopped = str(error)
    return trainer


def history(trainer: PPOTrainer) -> dict[str, list[float]]:
    """What the trainer logged, by name, a number for each update."""
    rows = [row for row in trainer.state.log_history if "kl_exact" in row]
    return {name: [row[name] for row in rows] for name in LOGGED}


def ppo_folder(
    *, seed: int, updates: int, size: str, steps: int, n_pairs: int, k: int, **dials
) -> Path:
    """Folder of a policy after PPO, with its value function and ``history.json``, from
    the cache if it was made before. The arguments are those of :func:`trained`."""
    recipe = dict(seed=seed, updates=updates, size=size, steps=steps)
    recipe |= dict(n_pairs=n_pairs, k=k, **dials)

    def build(folder: Path) -> None:
        trainer = trained(**recipe)
        trainer.save_model(str(folder))
        logged = history(trainer) | {"stopped": trainer.stopped}
        text = json.dumps(logged)
        (folder / "history.json").write_text(text, encoding="utf-8")

    key = recipe | {"base": weights_hash()}
    return cache.artifact("ppo", build, key=key, code=[sys.modules[__name__]])


def ppo_policy(beta: float = BETA, seed: int = 0, **settings):
    """``(model, tokenizer)`` after PPO with a price ``beta`` of KL.

    Args:
        beta: higher keeps closer to the reference, 0 lets go.
        seed: of prompts, sampling and minibatches.
        settings: the other arguments of :func:`trained`.
    """
    return load_model(ppo_folder(kl_coef=beta, seed=seed, **settings))


def with_value(folder: Path):
    """``(policy and value function, tokenizer)`` from a :func:`ppo_folder`."""
    from safetensors.torch import load_file

    policy, tokenizer = load_model(folder)
    model = PolicyAndValue(policy).eval()
    model.load_state_dict(load_file(folder / VALUE_FILE), strict=False)
    return model, tokenizer


# --- What a policy is worth on unseen subjects ---------------------------------------


def measure(
    policy, tokenizer, *, seed: int, size: str, steps: int, n_pairs: int, k: int, n: int
) -> dict:
    """Replies of a policy to the test requests: mean ``gold`` and its parts, ``golds``
    of each subject, ``proxy`` (the learnt reward), exact ``kl`` to the reference (nats
    a reply), ``entropy`` (nats a token), ``length`` (tokens), ``ended`` (share).

    Args:
        seed: of the sampling, at temperature 1.
        n: replies to each request.
    """
    reference, _ = alignment.reference_policy(size, steps)
    learnt, _ = alignment.reward_model(n_pairs, k=k, size=size, steps=steps)
    trainer = trainer_for(policy, tokenizer, learnt, seed=seed, reference=reference)
    asked = requests("test", n)
    found = trainer.evaluate(asked)
    world = tasks.default_world()
    golds = [
        gold.gold_reward(world, row["subject"], said["completion"])
        for row, said in zip(asked, trainer.eval_completions, strict=True)
    ]
    means = {
        part: float(np.mean([getattr(one, part) for one in golds]))
        for part in gold.PARTS
    }
    rounds = np.reshape([one.total for one in golds], (n, -1))  # (n, subjects)
    return means | {
        "golds": rounds.mean(0).tolist(),
        "gold": found["eval_reward/gold"],
        "proxy": found["eval_score"],
        "kl": found["eval_kl_exact"],
        "entropy": found["eval_entropy"],
        "length": found["eval_completion_length"],
        "ended": found["eval_eos_rate"],
    }


# --- Arms -----------------------------------------------------------------------------


def start_arm(**settings) -> dict:
    """The reference policy itself, measured: see :func:`measure`."""
    model, tokenizer = alignment.reference_policy(settings["size"], settings["steps"])
    return measure(model, tokenizer, **settings)


def ppo_arm(*, n: int, keep: bool = False, **recipe) -> dict:
    """One PPO run, and what its policy is worth.

    Args:
        n: replies to each test request.
        keep: leave the policy in the cache, for other notebooks.
        recipe: see :func:`trained`.

    Returns:
        What :func:`path_arm` gives, and what :func:`measure` does, unless the run had
        to stop.
    """
    policy, tokenizer, result = _ppo(keep, recipe)
    if result["stopped"] is None:
        names = ("seed", "size", "steps", "n_pairs", "k")
        settings = {name: recipe[name] for name in names}
        result |= measure(policy, tokenizer, n=n, **settings)
    return result


def path_arm(**recipe) -> dict:
    """One PPO run as :func:`trained` makes it, of which only the path counts:
    ``history``, the number logged for each update, ``seconds`` of training, and
    ``stopped``, why it had to stop, or None."""
    _, _, result = _ppo(False, recipe)
    return result


def seconds_spent(logged: Mapping[str, Sequence[float]]) -> float:
    """Seconds of training in a :func:`history`."""
    parts = ("rollout", "reward", "update")
    return float(np.sum([logged[f"seconds_{part}"] for part in parts]))


def _ppo(keep: bool, recipe: dict):
    """The policy, its tokenizer, and what :func:`path_arm` says of the run."""
    if keep:
        folder = ppo_folder(**recipe)
        logged = json.loads((folder / "history.json").read_text(encoding="utf-8"))
        model, stopped = load_model(folder), logged.pop("stopped")
    else:
        trainer = trained(**recipe)
        model = trainer.policy, trainer.processing_class
        logged, stopped = history(trainer), trainer.stopped
    spent = seconds_spent(logged)
    return *model, {"history": logged, "stopped": stopped, "seconds": spent}


def dpo_arm(
    *,
    n: int,
    seed: int,
    dpo_steps: int,
    learning_rate: float,
    kl_coef: float,
    size: str,
    steps: int,
    n_pairs: int,
    k: int,
) -> dict:
    """DPO on the comparisons that the reward model learnt from: the measures of
    :func:`measure`, and ``seconds`` of training.

    Args:
        n: replies to each test request.
        seed: draws which of the comparisons it gets, and their order.
        dpo_steps: updates of 32 pairs; each pair comes at most once.
        learning_rate: the peak.
        kl_coef: DPO's β, which is a price of KL in the same unit of reward.
    """
    some = alignment.candidates("train", k, size=size, steps=steps)
    pairs = alignment.comparisons(some, n_pairs)
    order = np.random.default_rng([seed, 40]).permutation(len(pairs))
    count = min(len(pairs), 32 * dpo_steps)
    policy, tokenizer = alignment.reference_policy(size, steps)
    start = time.perf_counter()
    try:
        train_dpo(
            policy,
            tokenizer,
            [pairs[i] for i in order[:count]],
            beta=kl_coef,
            steps=dpo_steps,
            learning_rate=learning_rate,
            seed=seed,
            progress=False,
        )
    except AlignlabError as error:
        return {"stopped": str(error), "seconds": time.perf_counter() - start}
    seconds = time.perf_counter() - start
    settings = dict(seed=seed, size=size, steps=steps, n_pairs=n_pairs, k=k)
    found = measure(policy, tokenizer, n=n, **settings)
    return found | {"stopped": None, "seconds": seconds}


def arms(
    *,
    seeds: Sequence[int],
    many_seeds: Sequence[int],
    piece_seeds: Sequence[int],
    few_seeds: Sequence[int],
    dpo_seeds: Sequence[int],
    betas: Sequence[float],
    rates: Sequence[float],
    grid_betas: Sequence[float],
    updates: int,
    dpo_steps: int,
    n: int,
    jobs: int = 2,
    **policy,
) -> dict[str, list[dict]]:
    """Every run of the notebook, each once, by what it is for.

    Args:
        seeds: of the sweep and of the grid.
        many_seeds: of the default configuration, to count failures.
        piece_seeds: of PPO without one of its pieces, and of PPO with four epochs; they
            are among many_seeds.
        few_seeds: of the ladder and of the sick run, for their figures.
        dpo_seeds: of DPO's default configuration.
        betas: prices of KL of the sweep, at the default rate.
        rates, grid_betas: the grid, of PPO and of DPO.
        updates: of PPO. dpo_steps: of DPO.
        n: replies to each test request.
        policy: ``size``, ``steps``, ``n_pairs`` and ``k`` of what is there already.

    Returns:
        "start", "default", "eager", "sweep", "pieces", "ladder", "sick", "grid" and
        "dpo": rows, which hold the arm's parameters and its results. Rows of "pieces"
        and "ladder" also have ``without`` and ``rung``. Every row of PPO and DPO has
        ``rate`` and ``beta``, which the default does not name.
    """
    usual = RECIPE["learning_rate"]
    common = dict(updates=updates, **policy)

    def paths(these: Sequence[int], **dials) -> list[tuple]:
        return [(path_arm, dict(seed=s, **dials, **common)) for s in these]

    def sweep_of(beta: float, these: Sequence[int]) -> list[tuple]:
        arm = dict(kl_coef=beta, keep=True, n=n, **common)
        return [(ppo_arm, dict(seed=s, **arm)) for s in these]

    every = sorted({*seeds, *many_seeds, *dpo_seeds})
    # What takes longest comes first: the runs of PPO, then the others.
    calls = {("default", None): sweep_of(BETA, many_seeds)}
    eager = dict(n=n, **EAGER, **common)
    calls["eager", None] = [(ppo_arm, dict(seed=s, **eager)) for s in piece_seeds]
    calls["sick", None] = paths(few_seeds, **SICK)
    calls |= {("sweep", beta): sweep_of(beta, seeds) for beta in betas}
    calls |= {("pieces", name): paths(piece_seeds, **d) for name, d in PIECES.items()}
    calls |= {("ladder", name): paths(few_seeds, **d) for name, d in LADDER.items()}
    calls["ladder", "+ clipping"] = sweep_of(0.0, few_seeds)
    calls["ladder", "+ KL penalty: PPO"] = sweep_of(BETA, few_seeds)
    cells = list(itertools.product(rates, grid_betas))
    for rate, beta in cells:
        dials = {} if rate == usual else {"learning_rate": rate}
        calls["grid", (rate, beta)] = [
            (run, arm | dials) for run, arm in sweep_of(beta, seeds)
        ]
    calls["start", None] = [(start_arm, dict(seed=s, n=n, **policy)) for s in every]
    for rate, beta in cells:
        these = dpo_seeds if (rate, beta) == (usual, BETA) else seeds
        calls["dpo", (rate, beta)] = [
            (dpo_arm, dict(seed=s, learning_rate=rate, kl_coef=beta,
                           dpo_steps=dpo_steps, n=n, **policy))
            for s in these
        ]  # fmt: skip
    found = run_groups(calls, jobs=jobs, label="PPO")

    def rows(kind: str, label: str = "") -> list[dict]:
        # Keyed arms hold what they name; the rest is the default.
        return [
            {"rate": usual, "beta": BETA, **_named(row)}
            | ({label: of} if label else {})
            for (group, of), some in found.items()
            if group == kind
            for row in some
        ]

    kinds = ("start", "default", "eager", "sick", "sweep", "grid", "dpo")
    labelled = {"pieces": rows("pieces", "without"), "ladder": rows("ladder", "rung")}
    return {kind: rows(kind) for kind in kinds} | labelled


def _named(row: dict) -> dict:
    names = {"learning_rate": "rate", "kl_coef": "beta"}
    return {names.get(name, name): value for name, value in row.items()}


# --- Numbers read off runs ------------------------------------------------------------


def gain(rows: Sequence[dict], start: Sequence[dict], measure: str) -> np.ndarray:
    """By how much each run ended above the reference policy with the same seed."""
    before = {row["seed"]: row[measure] for row in start}
    return np.array([row[measure] - before[row["seed"]] for row in rows])


def failed(row: dict, start: Sequence[dict]) -> bool:
    """Whether a run ended with less gold than it began with, further than ``KL_LIMIT``
    from the reference, or with a number that is not finite."""
    if row["stopped"] is not None or not math.isfinite(row["gold"]):
        return True
    [lost] = -gain([row], start, "gold")
    return bool(lost > 0 or not row["kl"] <= KL_LIMIT)


def failure_rates(rows: Sequence[dict], start: Sequence[dict]) -> dict[int, float]:
    """Share of a seed's runs that failed, by seed."""
    return {
        seed: float(np.mean([failed(r, start) for r in rows if r["seed"] == seed]))
        for seed in sorted({row["seed"] for row in rows})
    }


def spreads(rows: Sequence[dict], start: Sequence[dict]) -> dict[int, float]:
    """Best minus worst gold over a seed's runs, by seed. One that had to stop has no
    gold; it counts as one that is no better than the reference policy."""
    before = {row["seed"]: row["gold"] for row in start}
    ends: dict[int, list[float]] = {}
    for row in rows:
        gold_then = before[row["seed"]] if row["stopped"] else row["gold"]
        ends.setdefault(row["seed"], []).append(gold_then)
    return {seed: max(some) - min(some) for seed, some in sorted(ends.items())}


def height(
    kl: Sequence[float], values: Sequence[float], limit: float, points: int = 50
) -> float:
    """Mean of a curve over KL from its start to ``limit`` nats, straight lines between
    the updates, which are put in the order of their KL.

    Raises:
        ValueError: if the curve does not reach the limit.
    """
    order = np.argsort(kl, kind="stable")
    kl, values = np.asarray(kl, float)[order], np.asarray(values, float)[order]
    if kl[-1] < limit:
        raise ValueError(f"the curve ends at {kl[-1]:.3g} nats, before {limit:.3g}")
    places = np.linspace(kl[0], limit, points)
    return float(np.interp(places, kl, values).mean())


def lost_without(
    whole: Sequence[dict], ablated: Sequence[dict], measure: str = "reward/gold"
) -> np.ndarray:
    """By seed, the mean height over KL of whole runs minus that of the ablated ones,
    over the range of KL that both reach: what the piece is worth at matched KL."""
    others = {row["seed"]: row["history"] for row in ablated}
    lost = []
    for row in whole:
        if row["seed"] not in others:
            continue
        pair = row["history"], others[row["seed"]]
        limit = min(max(one["kl_exact"]) for one in pair)
        heights = [height(one["kl_exact"], one[measure], limit) for one in pair]
        lost.append(heights[0] - heights[1])
    return np.array(lost)


def growth(kl: Sequence[float]) -> float:
    """Nats by which KL rose in the last third of a run: near 0 where it has settled."""
    last = max(1, len(kl) // 3)
    return float(kl[-1] - kl[-1 - last]) if len(kl) > 1 else 0.0


# --- Best of n ------------------------------------------------------------------------


def best_of_n_curve(
    proxies: Float[np.ndarray, "prompts samples"],
    golds: Float[np.ndarray, "prompts samples"],
    ns: Sequence[int],
) -> list[dict]:
    r"""Gold and proxy of the reply that the proxy likes best of n, averaged over all
    ways to draw n of the samples of a prompt, without a draw.

    The sample of rank i (from 0, by proxy, of N) is the best of n of them with
    probability :math:`\binom{i}{n-1} / \binom{N}{n}`.

    Returns:
        A row for each n: ``n``, ``kl`` (nats, exact if no two tie), ``gold``,
        ``proxy``.

    Raises:
        ValueError: if an n is below 1 or above the number of samples.

    Source: Nakano et al. (2021), appendix I.
    """
    count = proxies.shape[1]
    order = np.argsort(proxies, axis=1, kind="stable")
    ranked = [np.take_along_axis(table, order, axis=1) for table in (golds, proxies)]
    rows = []
    for n in ns:
        if not 1 <= n <= count:
            raise ValueError(f"n is {n}; there are {count} samples of each prompt")
        weights = [math.comb(i, n - 1) / math.comb(count, n) for i in range(count)]
        found = [float((table @ weights).mean()) for table in ranked]
        rows.append(dict(n=n, kl=best_of_n_kl(n), gold=found[0], proxy=found[1]))
    return rows


def best_of_n(
    ns: Sequence[int], *, size: str, steps: int, n_pairs: int, k: int
) -> list[dict]:
    """:func:`best_of_n_curve` of the reference policy's k replies to the test requests,
    picked by the reward model that PPO optimises."""
    some = alignment.candidates("test", k, size=size, steps=steps)
    model, tokenizer = alignment.reward_model(n_pairs, k=k, size=size, steps=steps)
    prompts = [one.prompt for one in some for _ in one.replies]
    texts = [reply.text for one in some for reply in one.replies]
    proxies = score(model, tokenizer, prompts, texts).reshape(len(some), -1)
    golds = np.array([[reply.gold.total for reply in one.replies] for one in some])
    return best_of_n_curve(proxies, golds, ns)


# --- One reply, token by token --------------------------------------------------------


@torch.no_grad()
def one_episode(
    model: PolicyAndValue,
    reference,
    tokenizer,
    prompt: str,
    *,
    seed: int = 0,
    max_new_tokens: int = alignment.MAX_NEW_TOKENS,
) -> tuple[Episodes, list[str]]:
    """One sampled reply with all that PPO knows of its tokens before it learns, in
    tensors of one row, and the tokens as text."""
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}],
        tokenize=False,
        add_generation_prompt=True,
    )
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"]]
    end, pad = tokenizer.eos_token_id, tokenizer.pad_token_id
    device = next(model.parameters()).device
    sampled = sample(
        model,
        *(x.to(device) for x in pad_left(ids, pad)),
        max_new_tokens,
        eos_token_id=end,
        pad_token_id=pad,
        generator=torch.Generator(device).manual_seed(seed),
    )
    episode = Episodes.pack(ids, sampled, end, pad)
    episode.old_log_probs, episode.values, logits = says(model, episode)
    whole = PolicyAndValue(reference).eval()
    episode.ref_log_probs, _, ref_logits = says(whole, episode)
    episode.exact_kl = episode.spread(exact_kl(logits, ref_logits))
    [tokens] = episode.completion_ids()
    return episode, [tokenizer.decode([token]) for token in tokens]


def says(model: PolicyAndValue, episode: Episodes) -> tuple[Tensor, Tensor, Tensor]:
    """Log-probabilities and values of the episode's tokens, (1, T), as the model has
    them now, with gradient; and the logits, (T, V)."""
    logits, values = model(episode.input_ids, episode.asked)
    log_probs = logits.float().log_softmax(-1)
    chosen = log_probs.gather(1, episode.tokens[:, None])[:, 0]
    return episode.spread(chosen), episode.spread(values), logits.float()


# --- Whose gradient is that of the KL? ------------------------------------------------


def kl_gradients(seed: int = 0, choices: int = 6) -> list[dict]:
    """Every use of every estimator of KL(policy || reference) against the gradient of
    the KL itself, exactly, on a softmax over a few choices.

    Returns:
        Rows of ``estimator``, ``place`` ("reward" or "loss"), ``cosine`` with the true
        gradient and ``error``, the length of the difference over that of the truth.
    """
    generator = torch.Generator().manual_seed(seed)
    shape = dict(generator=generator, dtype=torch.float64)
    logits = torch.randn(choices, **shape).requires_grad_()
    reference = torch.randn(choices, **shape).log_softmax(0)
    log_probs = logits.log_softmax(0)
    probs = log_probs.exp().detach()
    kl = (log_probs.exp() * (log_probs - reference)).sum()
    [truth] = torch.autograd.grad(kl, logits, retain_graph=True)
    rows = []
    for estimator in ("k1", "k2", "k3"):
        value = kl_estimate(log_probs, reference, estimator)
        expected = {
            # REINFORCE: the value is a number that weighs the log-probability.
            "reward": (probs * value.detach() * log_probs).sum(),
            "loss": (probs * value).sum(),
        }
        for place, loss in expected.items():
            [found] = torch.autograd.grad(loss, logits, retain_graph=True)
            error = float((found - truth).norm() / truth.norm())
            norm = found.norm() * truth.norm()
            cosine = float(found @ truth / norm) if found.norm() > 1e-9 else math.nan
            rows.append(dict(estimator=estimator, place=place, cosine=cosine))
            rows[-1]["error"] = error
    return rows


# --- What it costs --------------------------------------------------------------------


def cost(rows: Mapping[str, Sequence[dict]], trainer: PPOTrainer) -> list[dict]:
    """Models, memory and seconds of PPO and DPO, a row each.

    Memory is what has to be held at once while training: weights of every model, and of
    what is trained also gradients and Adam's two moments; activations are not in it.

    Args:
        rows: of :func:`arms`.
        trainer: a PPO trainer on these models, to count parameters.
    """

    def size_of(*models) -> int:
        return sum(p.numel() * p.element_size() for m in models for p in m.parameters())

    trained_bytes = size_of(trainer.model)
    judges = [reward.model for reward in trainer.rewards if reward.model is not None]
    fixed = size_of(trainer.ref_model, *judges)
    ppo, dpo = rows["default"], rows["dpo"]
    return [
        {
            "method": "PPO",
            "models": "policy + value head, reference, reward model",
            "held": 2 + len(judges),
            "megabytes": (4 * trained_bytes + fixed) / 1e6,
            "seconds": float(np.mean([row["seconds"] for row in ppo])),
            "completions": ppo[0]["updates"] * 64,
        },
        {
            "method": "DPO",
            "models": "policy; of the reference only its log-probabilities",
            "held": 1,
            "megabytes": 4 * size_of(trainer.policy) / 1e6,
            "seconds": float(np.mean([row["seconds"] for row in dpo])),
            "completions": dpo[0]["dpo_steps"] * 64,
        },
    ]


def seconds_per_completion(rows: Sequence[dict]) -> dict[int, float]:
    """Seconds of training for each completion learnt from, by seed."""
    found: dict[int, list[float]] = {}
    for row in rows:
        count = 64 * (row["updates"] if "updates" in row else row["dpo_steps"])
        found.setdefault(row["seed"], []).append(row["seconds"] / count)
    return {seed: float(np.mean(some)) for seed, some in sorted(found.items())}
