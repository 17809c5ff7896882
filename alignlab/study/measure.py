"""The one measure of a policy, whatever it was trained with: gold and proxy reward, KL
to the reference, entropy, length and diversity of sampled replies."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from alignlab.evaluation.diversity import per_input_diversity
from alignlab.models.positions import logits_at
from alignlab.models.reward import score
from alignlab.models.sampler import Completion, complete
from alignlab.models.text import as_messages, encode_prompt, pad_right, pad_token_id
from alignlab.objectives import entropy, exact_kl
from alignlab.study import artifacts
from alignlab.world import gold, tasks


def measure(
    policy,
    tokenizer,
    reference,
    *,
    seed: int,
    n: int,
    reward_model=None,
    split: str = "test",
) -> dict:
    """Sample n replies to each request of a split, at temperature 1, and measure them.

    Args:
        reference: the policy that KL is measured to; it shares the tokenizer.
        seed: of the sampling.
        n: replies to each request. More make every number less noisy.
        reward_model: adds ``proxy``; it shares the tokenizer too.
        split: "test" for results, "train" for tuning.

    Returns:
        ``golds``, mean gold reward of each subject, in the order of
        ``artifacts.subjects``; ``gold``, the mean over subjects, and its parts
        ``form``, ``completeness`` and ``truth``; ``proxy``, mean proxy reward; ``kl``,
        nats per reply, and ``entropy``, nats per token, see :func:`kl_and_entropy`;
        ``length``, tokens per reply with the EOS token; ``ended``, share of the replies
        that end by themselves; ``diversity`` of the replies to one request, see
        :func:`alignlab.evaluation.diversity.per_input_diversity`.

    Raises:
        ValueError: if n is less than 1, or the split is neither "train" nor "test".
    """
    if n < 1:
        raise ValueError(f"n is {n}; each request needs at least 1 reply")
    subjects = [name for name in artifacts.subjects(split) for _ in range(n)]
    prompts = [gold.request(name) for name in subjects]
    replies = complete(
        policy, tokenizer, prompts, artifacts.MAX_NEW_TOKENS, 1.0, seed=seed
    )
    kl, token_entropy = kl_and_entropy(policy, reference, tokenizer, prompts, replies)
    result = _gold_of(subjects, replies, n)
    if reward_model is not None:
        texts = [reply.text for reply in replies]
        result["proxy"] = float(score(reward_model, tokenizer, prompts, texts).mean())
    return result | {
        "kl": kl,
        "entropy": token_entropy,
        "length": float(np.mean([len(reply.tokens) for reply in replies])),
        "ended": float(np.mean([reply.ended for reply in replies])),
        "diversity": _diversity(tokenizer, replies, n),
    }


def _gold_of(subjects: Sequence[str], replies: Sequence[Completion], n: int) -> dict:
    world = tasks.default_world()
    rewards = [
        gold.gold_reward(world, subject, reply.text)
        for subject, reply in zip(subjects, replies, strict=True)
    ]
    golds = np.reshape([reward.total for reward in rewards], (-1, n)).mean(axis=1)
    parts = {
        part: float(np.mean([getattr(reward, part) for reward in rewards]))
        for part in gold.PARTS
    }
    return {"golds": golds.tolist(), "gold": float(golds.mean()), **parts}


def _diversity(tokenizer, replies: Sequence[Completion], n: int) -> float:
    texts = [reply.text for reply in replies]
    tokens = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    by_prompt = [tokens[i : i + n] for i in range(0, len(tokens), n)]
    values = per_input_diversity(by_prompt, len(tokenizer))
    return float(np.nanmean(values)) if np.isfinite(values).any() else float("nan")


# --- Distance and entropy, exact at every token ---------------------------------------


def kl_and_entropy(
    policy,
    reference,
    tokenizer,
    prompts: Sequence[str],
    replies: Sequence[Completion],
    batch_size: int = 32,
) -> tuple[float, float]:
    """KL(policy || reference) of a reply and entropy of a token, in nats.

    Every token's distribution enters in full, so only the choice of replies is random.
    Both are unbiased if the policy itself sampled the replies at temperature 1 (the
    entropy as a ratio of two means, up to O(1/replies)).

    Args:
        prompts: one user turn each.
        replies: one for each prompt, as ``complete`` gives them.
        batch_size: replies at once; more takes more memory.

    Raises:
        ValueError: if there are not as many replies as prompts, or none.
    """
    if not replies:
        raise ValueError("replies: there is none to measure")
    total_kl = total_entropy = 0.0
    n_tokens = 0
    batches = token_kl_and_entropy(
        policy, reference, tokenizer, prompts, replies, batch_size
    )
    for kls, entropies in batches:
        total_kl += kls.sum().item()
        total_entropy += entropies.sum().item()
        n_tokens += len(kls)
    return total_kl / len(replies), total_entropy / n_tokens


@torch.no_grad()
def token_kl_and_entropy(
    policy,
    reference,
    tokenizer,
    prompts: Sequence[str],
    replies: Sequence[Completion],
    batch_size: int = 32,
) -> Iterator[tuple[Float[Tensor, "tokens"], Float[Tensor, "tokens"]]]:
    """For each batch of replies, KL and entropy at each of their tokens, reply by
    reply. The arguments are those of :func:`kl_and_entropy`."""
    prompt_ids = [encode_prompt(tokenizer, as_messages(p, "user")) for p in prompts]
    pairs = list(zip(prompt_ids, [reply.tokens for reply in replies], strict=True))
    for start in range(0, len(pairs), batch_size):
        batch = pairs[start : start + batch_size]
        texts = [[*prompt, *tokens] for prompt, tokens in batch]
        mask = [[0] * len(prompt) + [1] * len(tokens) for prompt, tokens in batch]
        input_ids, attention_mask = pad_right(texts, pad_token_id(tokenizer))
        completion_mask, _ = pad_right(mask, 0)
        # Logits at t predict token t+1.
        prediction_mask = F.pad(completion_mask[:, 1:].bool(), (0, 1))
        inputs = dict(
            prediction_mask=prediction_mask.to(policy.device),
            input_ids=input_ids.to(policy.device),
            attention_mask=attention_mask.to(policy.device),
        )
        logits, _ = logits_at(policy, **inputs)  # (N, V)
        ref_logits, _ = logits_at(reference, **inputs)
        yield exact_kl(logits, ref_logits), entropy(logits)
