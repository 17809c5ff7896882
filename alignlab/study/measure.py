"""The one measure of a policy, whatever it was trained with: gold and proxy reward, KL
to the reference, entropy, length and diversity of sampled replies."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from alignlab.evaluation.diversity import per_input_diversity
from alignlab.models.base import evaluation_mode
from alignlab.models.lean import lean_layers
from alignlab.models.reward import score
from alignlab.models.sampler import Completion, complete
from alignlab.models.text import as_messages, encode_prompt, pad_right, pad_token_id
from alignlab.objectives.policy import entropy_of, kl_of
from alignlab.study import artifacts
from alignlab.study.scale import cap
from alignlab.training.ppo.policy_value import completion_logits
from alignlab.training.ppo.rollout import group_by_width
from alignlab.world import gold, tasks

# A reward model that reads the policy's tokens, or rewards of prompts and completions.
Proxy = nn.Module | Callable[[Sequence[str], Sequence[str]], Sequence[float]]
SCORED = 32  # replies at once: larger batches pad more, and fall out of a CPU's cache
Column = list[list]  # at [subject][reply], subjects in the order of artifacts.subjects


def measure(
    policy,
    tokenizer,
    reference,
    *,
    seed: int,
    n: int,
    proxy: Proxy | None = None,
    split: str = "test",
) -> dict:
    """Sample n replies to each request of a split, at temperature 1, and measure them.

    The arguments are those of :func:`evaluate_policy`.

    Returns:
        ``golds``, mean gold reward of each subject, in the order of
        ``artifacts.subjects``; ``gold``, the mean over subjects, and its parts
        ``form``, ``completeness`` and ``truth``; ``proxy``, mean proxy reward, if there
        is a proxy; ``diversity`` of the replies to one request, see
        :func:`alignlab.evaluation.diversity.per_input_diversity`; ``kl``, ``entropy``,
        ``length`` and ``ended``, see :func:`evaluate_policy`.
    """
    known = evaluate_policy(
        policy, tokenizer, reference, seed=seed, n=n, proxy=proxy, split=split
    )
    golds = np.mean(known["golds"], axis=1)
    means = {"gold": golds, **{part: known[part] for part in gold.PARTS}}
    if proxy is not None:
        means["proxy"] = known["proxies"]
    return {
        "golds": golds.tolist(),
        **{name: float(np.mean(values)) for name, values in means.items()},
        "diversity": _diversity(tokenizer, known["texts"]),
        **{name: known[name] for name in ("kl", "entropy", "length", "ended")},
    }


def evaluate_policy(
    policy,
    tokenizer,
    reference,
    *,
    seed: int,
    n: int,
    proxy: Proxy | None = None,
    split: str = "test",
) -> dict:
    """Sample n replies to each request of a split, at temperature 1, and judge them.

    It may be called while the policy is trained: no random numbers but its own are
    drawn, and every model's mode is restored.

    Args:
        policy: to measure; the same weights and seed give the same numbers, whatever
            trained them.
        reference: the policy that KL is measured to; it shares the tokenizer.
        seed: of the sampling.
        n: replies to each request. More make every number less noisy.
        proxy: adds ``proxies``. A reward model shares the tokenizer; a function gets
            the requests and the replies as texts.
        split: "test" for results, "train" for tuning.

    Returns:
        ``kl``, nats per reply, and ``entropy``, nats per token, see
        :func:`kl_and_entropy`; ``length``, tokens per reply with the EOS token;
        ``ended``, share of the replies that end by themselves; the columns of
        :func:`sample_and_judge`; and ``proxies``, the proxy reward of each reply, at
        [subject][reply].

    Raises:
        ValueError: if n is less than 1, or the split is neither "train" nor "test".
    """
    with lean_layers(policy, reference):
        replies, columns = sample_and_judge(
            policy, tokenizer, seed=seed, n=n, split=split
        )
        prompts = _requests(split, n)
        kl, token_entropy = kl_and_entropy(
            policy, reference, tokenizer, prompts, replies
        )
    if proxy is not None:
        rewards = _rewards(proxy, tokenizer, prompts, [r.text for r in replies])
        columns["proxies"] = _by_subject(rewards, n)
    return {
        "kl": kl,
        "entropy": token_entropy,
        "length": float(np.mean([len(reply.tokens) for reply in replies])),
        "ended": float(np.mean([reply.ended for reply in replies])),
        **columns,
    }


def sample_and_judge(
    policy,
    tokenizer,
    *,
    seed: int,
    n: int,
    split: str = "test",
    temperature: float = 1.0,
) -> tuple[list[Completion], dict[str, Column]]:
    """n replies to each request of a split, and what they are worth.

    Args:
        temperature: higher is more varied; see :func:`evaluate_policy` for the others.

    Returns:
        The replies, subject by subject, and at [subject][reply] their ``texts``, gold
        rewards (``golds``) and its parts, ``form``, ``completeness`` and ``truth``.
    """
    if n < 1:
        raise ValueError(f"n is {n}; each request needs at least 1 reply")
    replies = complete(
        policy,
        tokenizer,
        _requests(split, n),
        cap(tokenizer, artifacts.MAX_NEW_TOKENS),
        temperature,
        seed=seed,
    )
    world, subjects = tasks.default_world(), artifacts.subjects(split)
    texts = _by_subject([reply.text for reply in replies], n)
    rewards = [
        [gold.gold_reward(world, subject, text) for text in row]
        for subject, row in zip(subjects, texts, strict=True)
    ]
    names = {"golds": "total"} | {part: part for part in gold.PARTS}
    columns = {
        name: [[getattr(reward, field) for reward in row] for row in rewards]
        for name, field in names.items()
    }
    return replies, {"texts": texts, **columns}


def _requests(split: str, n: int) -> list[str]:
    return [gold.request(s) for s in artifacts.subjects(split) for _ in range(n)]


def _by_subject(values: Sequence, n: int) -> Column:
    return [list(values[start : start + n]) for start in range(0, len(values), n)]


def _rewards(proxy: Proxy, tokenizer, prompts, texts) -> list[float]:
    if isinstance(proxy, nn.Module):
        rewards = score(proxy, tokenizer, prompts, texts, batch_size=SCORED)
        return rewards.tolist()
    return [float(reward) for reward in proxy(prompts, texts)]


def _diversity(tokenizer, texts: Column) -> float:
    tokens = [tokenizer(row, add_special_tokens=False)["input_ids"] for row in texts]
    values = per_input_diversity(tokens, len(tokenizer))
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


# --- Distance and entropy, exact at every token ---------------------------------------


def kl_and_entropy(
    policy, reference, tokenizer, prompts: Sequence[str], replies: Sequence[Completion]
) -> tuple[float, float]:
    """KL(policy || reference) of a reply and entropy of a token, in nats.

    Every token's distribution enters in full, so only the choice of replies is random.
    Both are unbiased if the policy itself sampled the replies at temperature 1 (the
    entropy as a ratio of two means, up to O(1/replies)).

    Args:
        prompts: one user turn each.
        replies: one for each prompt, as ``complete`` gives them.

    Raises:
        ValueError: if there are not as many replies as prompts, or none.
    """
    if not replies:
        raise ValueError("replies: there is none to measure")
    kls, entropies = sums_over_tokens(policy, reference, tokenizer, prompts, replies)
    tokens = sum(len(reply.tokens) for reply in replies)
    return float(kls.mean()), float(entropies.sum() / tokens)


@torch.no_grad()
def sums_over_tokens(
    policy, reference, tokenizer, prompts: Sequence[str], replies: Sequence[Completion]
) -> tuple[Float[np.ndarray, "replies"], Float[np.ndarray, "replies"]]:
    """KL and entropy of each reply, summed over its tokens. The arguments are those of
    :func:`kl_and_entropy`."""
    prompt_ids = [encode_prompt(tokenizer, as_messages(p, "user")) for p in prompts]
    pairs = list(zip(prompt_ids, [reply.tokens for reply in replies], strict=True))
    widths = np.array([len(prompt) + len(tokens) for prompt, tokens in pairs])
    kls, entropies = np.zeros(len(pairs)), np.zeros(len(pairs))
    for rows in group_by_width(widths, policy.device):
        batch = [pairs[row] for row in rows]
        log_p, log_q = (
            _log_probs(model, batch, pad_token_id(tokenizer))
            for model in (policy, reference)
        )
        lengths = [len(tokens) for _, tokens in batch]
        for sums, values in (
            (kls, kl_of(log_p, log_q)),
            (entropies, entropy_of(log_p)),
        ):
            sums[rows] = [part.sum().item() for part in values.split(lengths)]
    return kls, entropies


def _log_probs(
    model, batch: list[tuple[list[int], list[int]]], pad: int
) -> Float[Tensor, "tokens vocab"]:
    """Of every token's whole distribution, for pairs of prompt and completion."""
    input_ids, _ = pad_right([[*prompt, *tokens] for prompt, tokens in batch], pad)
    mask, _ = pad_right([[0] * len(p) + [1] * len(tokens) for p, tokens in batch], 0)
    prediction_mask = F.pad(mask[:, 1:].bool(), (0, 1))  # t predicts token t+1
    with evaluation_mode(model):
        logits, _ = completion_logits(
            model, input_ids.to(model.device), prediction_mask.to(model.device)
        )
    return logits.float().log_softmax(-1)
