"""From runs to numbers: what they gained, which failed, what a piece is worth. Also
what needs no run: gradients of KL, adaptive prices, one batch, what a value head could
know."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from alignlab.evaluation import exact
from alignlab.models.reward import score
from alignlab.models.text import as_messages, encode_prompt
from alignlab.objectives import adaptive_kl_coef, kl_estimate
from alignlab.seeds import torch_seed
from alignlab.study import artifacts as study
from alignlab.study.chains import Chain
from alignlab.study.optimising import EPISODES
from alignlab.training.ppo.policy_value import PolicyAndValue, completion_logits
from alignlab.training.ppo.rollout import Episodes, add_predictions, sample_episodes
from alignlab.training.sft import collate, encode

KL_LIMIT = 15.0  # nats a reply; a run that ends further away has failed
GOLD_LIMIT = 0.25  # so much less gold than the reference's is a failure
PATH = ("kl_exact", "reward/gold")  # of a history: where a run is, and what it gets


# --- The end of a run -----------------------------------------------------------------


def seed_of(row: dict) -> int:
    """The seed of a run's chain."""
    return row["chain"]["seed"]


def of_seed(rows: Sequence[dict], seed: int) -> list[dict]:
    """The runs on one chain, in their order."""
    return [row for row in rows if seed_of(row) == seed]


def end_of(row: dict) -> dict | None:
    """The look at the end of a run; None if it had to stop."""
    return None if row.get("stopped") else row["points"][-1]


def ends(rows: Sequence[dict], name: str) -> Float[np.ndarray, "runs"]:
    """A number of each run's last look, NaN for a run that had to stop."""
    points = [end_of(row) for row in rows]
    return np.array([math.nan if point is None else point[name] for point in points])


def gains(
    rows: Sequence[dict], start: Sequence[dict], column: str
) -> Float[np.ndarray, "runs subjects"]:
    """By how much each run ended above the reference policy of its chain, by subject;
    NaN for a run that had to stop.

    Args:
        rows: runs, of any chains.
        start: rows of ``start_arm`` for these chains.
        column: "golds" or "proxies".
    """
    before = {seed_of(row): np.array(row["points"][0][column]) for row in start}
    nothing = [math.nan]
    return np.array(
        [
            (nothing * len(first) if point is None else np.array(point[column])) - first
            for row in rows
            for first, point in [(before[seed_of(row)], end_of(row))]
        ]
    )


def failed(row: dict, start: Sequence[dict]) -> bool:
    """Whether a run had to stop, or ended with ``GOLD_LIMIT`` less gold than the
    reference policy, further than ``KL_LIMIT`` from it, or with a number that is not
    finite."""
    point = end_of(row)
    if point is None or not math.isfinite(point["gold"]):
        return True
    gained = gains([row], start, "golds").mean()
    return bool(gained <= -GOLD_LIMIT or not point["kl"] <= KL_LIMIT)


def failure_rates(
    rows: Sequence[dict], start: Sequence[dict], seeds: Sequence[int]
) -> Float[np.ndarray, "seeds"]:
    """Share of the runs on each chain that failed."""
    return np.array(
        [np.mean([failed(row, start) for row in of_seed(rows, s)]) for s in seeds]
    )


def final_golds(rows: Sequence[dict], worst: float) -> Float[np.ndarray, "runs"]:
    """Gold at the last look of each run, and ``worst`` where there was no look."""
    return np.array(
        [row["points"][-1]["gold"] if row["points"] else worst for row in rows]
    )


def worst_gold(rows: Sequence[dict]) -> float:
    """The least gold that any run of a chain was seen with.

    Raises:
        ValueError: if no run was looked at.
    """
    return min(point["gold"] for row in rows for point in row["points"][-1:])


# --- What each piece is worth ---------------------------------------------------------


def gold_lost(
    whole: Sequence[dict], without: Sequence[dict], seeds: Sequence[int]
) -> Float[np.ndarray, "seeds"]:
    """Final gold of the whole minus that without a piece, chain by chain. A run that
    had to stop counts as its last look or, without one, as the worst of its chain."""
    lost = []
    for seed in seeds:
        pair = of_seed(whole, seed), of_seed(without, seed)
        worst = worst_gold([*pair[0], *pair[1]])
        with_it, without_it = (final_golds(rows, worst).mean() for rows in pair)
        lost.append(with_it - without_it)
    return np.array(lost)


def mean_path(rows: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Exact KL and training gold of each update, means over the runs that reached it,
    in the order of the updates."""
    columns = [[row["history"][name] for row in rows] for name in PATH]
    updates = range(max(map(len, columns[0])))
    kl, gold = (
        [np.mean([values[t] for values in runs if t < len(values)]) for t in updates]
        for runs in columns
    )
    return np.array(kl), np.array(gold)


# --- Random search --------------------------------------------------------------------


def search_gains(
    rows: Sequence[dict], start: Sequence[dict], seeds: Sequence[int]
) -> Float[np.ndarray, "seeds tries subjects"]:
    """Gold gained by each configuration of each seed, by subject. A run that had to
    stop counts as the worst run of its seed.

    Raises:
        ValueError: if no run of a seed was looked at.
    """
    tables = []
    for seed in seeds:
        own = of_seed(rows, seed)
        seen = [row["points"][-1] for row in own if row["points"]]
        worst = min(seen, key=lambda point: point["gold"])
        [before] = [row["points"][0]["golds"] for row in of_seed(start, seed)]
        points = [end_of(row) or worst for row in own]
        tables.append(np.array([point["golds"] for point in points]) - before)
    return np.array(tables)


def seconds_per_completion(
    rows: Sequence[dict], completions: int, seeds: Sequence[int]
) -> Float[np.ndarray, "seeds"]:
    """Processor's seconds of training for each completion learnt from: the mean over
    the runs of each chain that came to their end."""
    return np.array(
        [np.nanmean(ends(of_seed(rows, s), "seconds")) / completions for s in seeds]
    )


# --- The ladder -----------------------------------------------------------------------


def gold_for_seconds(row: dict, seconds: float) -> float:
    """Training gold that a run gained in so many processor's seconds, by the straight
    line of least squares through its updates.

    Its seconds are spread evenly over the updates. NaN with fewer than two updates.
    """
    golds = row["history"]["reward/gold"]
    if len(golds) < 2 or end_of(row) is None:
        return math.nan
    each = end_of(row)["seconds"] / len(golds)
    slope = np.polyfit(each * np.arange(len(golds)), golds, 1)[0]
    return float(slope * seconds)


# --- What it costs --------------------------------------------------------------------


def memory(
    policy: PolicyAndValue, reference: nn.Module, reward_model: nn.Module
) -> dict[str, dict]:
    """Models that each method holds at once in training, and their megabytes: weights
    and, of those trained, gradients and Adam's two moments. Activations do not count.

    Args:
        policy: with its value function, which only PPO has.
    """

    def megabytes(*models: nn.Module) -> float:
        parameters = [p for model in models for p in model.parameters()]
        return sum(p.numel() * p.element_size() for p in parameters) / 1e6

    others, trained = megabytes(reference, reward_model), megabytes(policy.policy)
    grouped = {"models": "policy, reference, reward model", "held": 3}
    return {
        "PPO": {
            "models": "policy with value head, reference, reward model",
            "held": 3,
            "megabytes": 4 * megabytes(policy) + others,
        },
        "RLOO": grouped | {"megabytes": 4 * trained + others},
        "GRPO": grouped | {"megabytes": 4 * trained + others},
        "DPO": {
            "models": "policy; of the reference only its log-probabilities",
            "held": 1,
            "megabytes": 4 * trained,
        },
    }


# --- One batch ------------------------------------------------------------------------


def sample_batch(
    model: PolicyAndValue,
    reference: nn.Module,
    tokenizer,
    prompts: Sequence[str],
    *,
    seed: int,
    max_new_tokens: int = study.MAX_NEW_TOKENS,
) -> tuple[Episodes, list[str]]:
    """A sampled reply to each prompt as episodes, with what policy, value function and
    reference say about their tokens; and the replies as text."""
    generator = torch.Generator(next(model.parameters()).device)
    generator.manual_seed(torch_seed(seed, "a batch of replies"))
    episodes = sample_episodes(
        model,
        [encode_prompt(tokenizer, as_messages(prompt, "user")) for prompt in prompts],
        max_new_tokens=max_new_tokens,
        stop_token_ids=[tokenizer.eos_token_id],
        pad_token_id=tokenizer.pad_token_id,
        generator=generator,
    )

    def ref_logits(episodes: Episodes) -> Float[Tensor, "tokens vocab"]:
        inputs = episodes.input_ids, episodes.prediction_mask
        return completion_logits(reference, *inputs)[0].float()

    add_predictions(episodes, model, ref_logits)
    texts = [
        tokenizer.decode(ids, skip_special_tokens=True).strip()
        for ids in episodes.completion_ids()
    ]
    return episodes, texts


# --- Which KL estimators have the gradient of the KL? ---------------------------------


def kl_gradients(seed: int = 0, choices: int = 6) -> list[dict]:
    """The gradient of every use of every estimator of KL(policy || reference), and that
    of the KL itself, exactly, on a softmax over a few choices.

    Returns:
        Rows of ``estimator``, ``place`` ("reward" or "loss"), ``cosine`` with the true
        gradient and ``error``, the length of the difference over that of the truth.
    """
    generator = torch.Generator().manual_seed(torch_seed(seed, "KL gradients"))
    options = dict(generator=generator, dtype=torch.float64)
    logits = torch.randn(choices, **options).requires_grad_()
    reference = torch.randn(choices, **options).log_softmax(0)
    log_probs = logits.log_softmax(0)
    probs = log_probs.exp().detach()
    kl = (log_probs.exp() * (log_probs - reference)).sum()
    [truth] = torch.autograd.grad(kl, logits, retain_graph=True)
    rows = []
    for estimator in ("k1", "k2", "k3"):
        value = kl_estimate(log_probs, reference, estimator)
        expectations = {
            # REINFORCE: the value is a number that weighs the log-probability.
            "reward": (probs * value.detach() * log_probs).sum(),
            "loss": (probs * value).sum(),
        }
        for place, loss in expectations.items():
            [gradient] = torch.autograd.grad(loss, logits, retain_graph=True)
            error = float((gradient - truth).norm() / truth.norm())
            norms = gradient.norm() * truth.norm()
            has_direction = gradient.norm() > 1e-9
            cosine = float(gradient @ truth / norms) if has_direction else math.nan
            rows.append(
                dict(estimator=estimator, place=place, cosine=cosine, error=error)
            )
    return rows


# --- A price that adapts --------------------------------------------------------------


def adapt_price(
    target: float, *, beta: float, seed: int = 0, updates: int = 300, choices: int = 20
) -> dict[str, list[float]]:
    """Exact policy-gradient steps on a softmax over a few choices, with a price of KL
    that adapts to hold a distance.

    Args:
        target: KL to hold, in nats; higher lets the policy go further.
        beta: the price to begin with.
        seed: of the reference and the rewards.
        updates: steps, each of which may change the price by a fifth.
        choices: of the softmax.

    Returns:
        ``kl`` and ``beta`` of each update.
    """
    reference, rewards = _few_choices(seed, choices)
    logits = reference.log().clone().requires_grad_()
    path: dict[str, list[float]] = {"kl": [], "beta": []}
    for _ in range(updates):
        log_probs = logits.log_softmax(0)
        kl = (log_probs.exp() * (log_probs - reference.log())).sum()
        objective = (log_probs.exp() * rewards).sum() - beta * kl
        [gradient] = torch.autograd.grad(objective, logits)
        logits = (logits.detach() + 2 * gradient).requires_grad_()
        path["kl"].append(kl.item())
        path["beta"].append(beta)
        options = dict(target=target, horizon=EPISODES, episodes=EPISODES)
        beta = adaptive_kl_coef(beta, kl.item(), **options)
    return path


def price_of(target: float, *, seed: int = 0, choices: int = 20) -> float:
    """The price of KL at which the best policy of :func:`adapt_price` is ``target``
    nats from the reference, by bisection over the closed form."""
    reference, rewards = _few_choices(seed, choices)
    low, high = 1e-3, 1e3
    for _ in range(60):
        middle = math.sqrt(low * high)
        best = exact.optimal_policy(reference, rewards, middle)
        far = float(exact.kl(best, reference)) > target
        low, high = (middle, high) if far else (low, middle)
    return middle


def _few_choices(seed: int, choices: int) -> tuple[Tensor, Tensor]:
    """A reference policy over a few choices, and the reward of each."""
    generator = torch.Generator().manual_seed(torch_seed(seed, "an adaptive price"))
    options = dict(generator=generator, dtype=torch.float64)
    return torch.randn(choices, **options).softmax(0), torch.randn(choices, **options)


# --- What a value head could know -----------------------------------------------------


def readable_share(chain: Mapping, *, pool: int, ridge: float = 100.0) -> float:
    """Share of the proxy reward's variance, at the tokens of the reference policy's
    replies to the test requests, that a linear function of its states explains.

    It is fitted on every other reply of each subject and evaluated on the rest, so it
    may know the subjects; a head that PPO trains has seen less.

    Args:
        chain: arguments of :class:`alignlab.study.chains.Chain`.
        pool: replies to each request, at least 2.
        ridge: higher fits less closely.
    """
    link = Chain(**chain)
    policy, tokenizer = link.policy()
    candidates = link.replies("test", pool)
    prompts = [c.prompt for c in candidates for _ in c.replies]
    replies = [reply.text for c in candidates for reply in c.replies]
    rewards = score(*link.reward_model(), prompts, replies)
    states = list(value_states(policy, tokenizer, prompts, replies))
    halves = []
    for first in (0, 1):
        tokens = [len(reply_states) for reply_states in states[first::2]]
        targets = np.repeat(rewards[first::2], tokens)
        halves.append((np.concatenate(states[first::2]), targets))
    (fit_states, fit_rewards), (test_states, test_rewards) = halves
    predicted = fit_ridge(fit_states, fit_rewards, ridge)(test_states)
    return float(1 - np.var(test_rewards - predicted) / np.var(test_rewards))


@torch.no_grad()
def value_states(
    policy: nn.Module,
    tokenizer,
    prompts: Sequence[str],
    replies: Sequence[str],
    batch_size: int = 128,
) -> Iterator[Float[np.ndarray, "tokens hidden"]]:
    """For each reply, the last hidden states that predict its tokens: what a value head
    on the policy's trunk reads."""
    policy.eval()
    rows = [dict(prompt=p, completion=c) for p, c in zip(prompts, replies, strict=True)]
    encoded = encode(tokenizer, rows)
    for start in range(0, len(encoded), batch_size):
        batch = collate(encoded[start : start + batch_size], tokenizer.pad_token_id)
        prediction_mask = batch["mask"].bool().roll(-1, dims=1)
        prediction_mask[:, -1] = False
        ids = batch["input_ids"].to(policy.device)
        _, states = completion_logits(policy, ids, prediction_mask.to(policy.device))
        lengths = batch["mask"].sum(1).tolist()
        yield from np.split(states.cpu().double().numpy(), np.cumsum(lengths)[:-1])


def fit_ridge(
    states: Float[np.ndarray, "tokens hidden"],
    targets: Float[np.ndarray, "tokens"],
    ridge: float,
) -> Callable[[np.ndarray], np.ndarray]:
    r"""The function :math:`x \mapsto \bar y + (x - \bar x)^\top w` of least squared
    error plus ``ridge`` times :math:`\lVert w \rVert^2`."""
    center, mean = states.mean(0), targets.mean()
    centered = states - center
    penalty = ridge * np.eye(states.shape[1])
    covariance = centered.T @ centered + penalty
    weights = np.linalg.solve(covariance, centered.T @ (targets - mean))
    return lambda others: mean + (others - center) @ weights
