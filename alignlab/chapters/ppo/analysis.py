"""From runs to numbers: gains, failures, what a piece is worth at matched KL, costs.
Also what needs no run: best-of-n, KL gradients, what a value head could know."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from alignlab.evaluation.best_of_n import best_of_n_curve
from alignlab.models.reward import score
from alignlab.models.text import as_messages, encode_prompt
from alignlab.objectives import kl_estimate
from alignlab.seeds import torch_seed
from alignlab.study import artifacts as study
from alignlab.training.ppo.policy_value import PolicyAndValue, completion_logits
from alignlab.training.ppo.rollout import Episodes, add_predictions, sample_episodes
from alignlab.training.sft import collate, encode

KL_LIMIT = 15.0  # nats a reply; a run that ends further away has failed
EPISODES = 64  # completions of one update of PPO, and of one step of DPO (32 pairs)


# --- The end of a run -----------------------------------------------------------------


def gain(rows: Sequence[dict], start: Sequence[dict], measure: str) -> np.ndarray:
    """By how much each run ended above the reference policy of the same seed."""
    before = {row["seed"]: row[measure] for row in start}
    return np.array([row[measure] - before[row["seed"]] for row in rows])


def failed(row: dict, start: Sequence[dict]) -> bool:
    """Whether a run ended with less gold than it started with, further than
    ``KL_LIMIT`` from the reference, or with a number that is not finite."""
    if row["stopped"] is not None or not math.isfinite(row["gold"]):
        return True
    [gained] = gain([row], start, "gold")
    return bool(gained < 0 or not row["kl"] <= KL_LIMIT)


def failure_rates(rows: Sequence[dict], start: Sequence[dict]) -> dict[int, float]:
    """By seed, the share of runs that failed."""
    return {
        seed: float(np.mean([failed(r, start) for r in rows if r["seed"] == seed]))
        for seed in sorted({row["seed"] for row in rows})
    }


def gold_spreads(rows: Sequence[dict], start: Sequence[dict]) -> dict[int, float]:
    """By seed, best minus worst gold over the runs. A run that had to stop has no gold
    and counts as no better than the reference policy."""
    before = {row["seed"]: row["gold"] for row in start}
    golds: dict[int, list[float]] = {}
    for row in rows:
        end = before[row["seed"]] if row["stopped"] else row["gold"]
        golds.setdefault(row["seed"], []).append(end)
    return {seed: max(ends) - min(ends) for seed, ends in sorted(golds.items())}


# --- The path of a run ----------------------------------------------------------------


def mean_over_kl(
    kl: Sequence[float], values: Sequence[float], limit: float, points: int = 50
) -> float:
    """Mean of a curve over KL from its start to ``limit`` nats, with straight lines
    between the updates, in the order of their KL.

    Raises:
        ValueError: if the curve does not reach the limit.
    """
    order = np.argsort(kl, kind="stable")
    kl, values = np.asarray(kl, float)[order], np.asarray(values, float)[order]
    if kl[-1] < limit:
        raise ValueError(f"the curve ends at {kl[-1]:.3g} nats, before {limit:.3g}")
    places = np.linspace(kl[0], limit, points)
    return float(np.interp(places, kl, values).mean())


def lost_at_matched_kl(
    intact: Sequence[dict], ablated: Sequence[dict], measure: str = "reward/gold"
) -> np.ndarray:
    """By seed, the mean over KL of intact runs minus that of ablated ones, over the
    range of KL that both reach: what the missing piece is worth."""
    others = {row["seed"]: row["history"] for row in ablated}
    lost = []
    for row in intact:
        if row["seed"] not in others:
            continue
        histories = row["history"], others[row["seed"]]
        limit = min(max(history["kl_exact"]) for history in histories)
        with_piece, without = (
            mean_over_kl(history["kl_exact"], history[measure], limit)
            for history in histories
        )
        lost.append(with_piece - without)
    return np.array(lost)


def late_growth(kl: Sequence[float]) -> float:
    """Nats by which KL rose in the last third of a run; near 0 if it has settled."""
    last = max(1, len(kl) // 3)
    return float(kl[-1] - kl[-1 - last]) if len(kl) > 1 else 0.0


# --- What it costs --------------------------------------------------------------------


def costs(
    seconds: Mapping[str, Sequence[dict]],
    policy: PolicyAndValue,
    reference: nn.Module,
    reward_model: nn.Module,
) -> list[dict]:
    """Models, memory and completions per second of PPO and DPO, a row each.

    Memory is what is held at once in training: the weights of every model and, of those
    trained, gradients and Adam's two moments. Activations are not counted.

    Args:
        seconds: of ``runs.time_each``.
        policy: with its value function; DPO trains the policy alone.
    """

    def megabytes(*models: nn.Module) -> float:
        parameters = [p for model in models for p in model.parameters()]
        return sum(p.numel() * p.element_size() for p in parameters) / 1e6

    per_second = {
        method: 1 / np.mean(list(seconds_per_completion(rows).values()))
        for method, rows in seconds.items()
    }
    return [
        {
            "method": "PPO",
            "models": "policy + value head, reference, reward model",
            "held": 3,
            "megabytes": 4 * megabytes(policy) + megabytes(reference, reward_model),
            "completions/s": per_second["PPO"],
        },
        {
            "method": "DPO",
            "models": "policy; of the reference only its log-probabilities",
            "held": 1,
            "megabytes": 4 * megabytes(policy.policy),
            "completions/s": per_second["DPO"],
        },
    ]


def seconds_per_completion(rows: Sequence[dict]) -> dict[int, float]:
    """By seed, seconds of training per completion trained on, from the ``seconds`` of
    an update of PPO or a step of DPO."""
    return {row["seed"]: row["seconds"] / EPISODES for row in rows}


# --- Best of n ------------------------------------------------------------------------


def reference_best_of_n(
    ns: Sequence[int], *, size: str, steps: int, n_pairs: int, k: int
) -> list[dict]:
    """``best_of_n_curve`` of the reference policy's k replies to the test requests, by
    the reward model that PPO optimises."""
    candidates = study.candidates("test", k, size=size, steps=steps)
    model, tokenizer = study.reward_model(n_pairs, k=k, size=size, steps=steps)
    proxies = study.score_candidates(model, tokenizer, candidates)
    return best_of_n_curve(proxies, study.golds_of(candidates), ns)


# --- One reply, token by token --------------------------------------------------------


def sample_reply(
    model: PolicyAndValue,
    reference: nn.Module,
    tokenizer,
    prompt: str,
    *,
    seed: int = 0,
    max_new_tokens: int = study.MAX_NEW_TOKENS,
) -> tuple[Episodes, list[str]]:
    """One sampled reply as episodes of one row, with what policy, value function and
    reference say about its tokens; and the tokens as text."""
    generator = torch.Generator(next(model.parameters()).device)
    generator.manual_seed(torch_seed(seed, "one reply"))
    episode = sample_episodes(
        model,
        [encode_prompt(tokenizer, as_messages(prompt, "user"))],
        max_new_tokens=max_new_tokens,
        stop_token_ids=[tokenizer.eos_token_id],
        pad_token_id=tokenizer.pad_token_id,
        generator=generator,
    )

    def ref_logits(episode: Episodes) -> Float[Tensor, "tokens vocab"]:
        inputs = episode.input_ids, episode.prediction_mask
        return completion_logits(reference, *inputs)[0].float()

    add_predictions(episode, model, ref_logits)
    [tokens] = episode.completion_ids()
    return episode, [tokenizer.decode([token]) for token in tokens]


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


# --- What a value head could know -----------------------------------------------------


def readable_share(
    *, size: str, steps: int, n_pairs: int, k: int, ridge: float = 100.0
) -> float:
    """Share of the proxy reward's variance, at the tokens of the reference policy's
    replies to the test requests, that a linear function of its states explains.

    It is fitted on every other reply of each subject and evaluated on the rest, so it
    may know the subjects; a head that PPO trains has seen less.

    Args:
        size, steps, n_pairs, k: of policy, reward model and replies; k at least 2.
        ridge: higher fits less closely.
    """
    policy, tokenizer = study.reference_policy(size, steps)
    model, _ = study.reward_model(n_pairs, k=k, size=size, steps=steps)
    candidates = study.candidates("test", k, size=size, steps=steps)
    prompts = [c.prompt for c in candidates for _ in c.replies]
    replies = [reply.text for c in candidates for reply in c.replies]
    rewards = score(model, tokenizer, prompts, replies)
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
