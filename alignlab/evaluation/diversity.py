"""Diversity of replies: entropy of tokens, distinct n-grams, self-BLEU.

*Per input* compares several replies to one prompt, *across inputs* replies to different
prompts. RLHF may reduce the first and spare the second.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from alignlab.objectives import entropy

Tokens = Sequence[Hashable]
ORDERS = (1, 2, 3, 4)  # of n-grams, as in BLEU


def token_entropy(
    logits: Float[Tensor, "batch time vocabulary"], mask: Int[Tensor, "batch time"]
) -> float:
    r"""Mean entropy of the next token, in nats a token.

    .. math:: -\frac{1}{\sum m} \sum_{b,t} m_{bt} \sum_v p_{btv} \log p_{btv}

    From 0, if sampling is deterministic, to log V. The mean is over tokens, not over
    replies. Logits where the mask is 0 are ignored, even if they are not finite.

    Args:
        logits: that each token was sampled from; divide them by the temperature first
            if it is not 1.
        mask: completion mask, 1 on the tokens of the replies.

    Raises:
        ValueError: if the shapes differ or the mask is 0 everywhere.
    """
    if logits.shape[:2] != mask.shape or not mask.any():
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and mask {tuple(mask.shape)}: "
            "expected (batch, time, vocabulary), (batch, time) and at least one token"
        )
    return entropy(logits[mask.bool()].double()).mean().item()


def adjusted_distinct_n(replies: Sequence[Tokens], n: int, vocabulary: int) -> float:
    r"""Distinct n-grams, relative to the number expected of uniformly random ones.

    .. math:: \mathrm{EAD}_n = \frac{N}{M \big[1 - (1 - 1/M)^C\big]}, \quad M = V^n

    with N distinct ones among C in all. 1 is as varied as uniform draws, however many
    tokens there are; near 0 everything is repeated. NaN if there is no n-gram.

    Args:
        replies: tokens or words of each; no n-gram reaches from one to the next.
        n: length of the n-grams.
        vocabulary: V, the number of possible tokens.

    Raises:
        ValueError: if n or the vocabulary is below 1.

    Source: Liu et al. (2022), Rethinking and refining the distinct metric, eq. 2, for
    n = 1; extended to n-grams as in Kirk et al. (2024).
    """
    if vocabulary < 1:
        raise ValueError(f"vocabulary is {vocabulary}; it must be at least 1")
    grams = _grams(replies, n)
    if not grams:
        return float("nan")
    possible = float(vocabulary) ** n
    if possible == 1:
        return float(len(set(grams)))
    # 1 - (1 - 1/M)^C, accurate for large M.
    share = -np.expm1(len(grams) * np.log1p(-1 / possible))
    return float(len(set(grams)) / (possible * share))


def _grams(replies: Sequence[Tokens], n: int) -> list[tuple]:
    if n < 1:
        raise ValueError(f"n is {n}; n-grams have at least 1 token")
    return [
        tuple(reply[i : i + n]) for reply in replies for i in range(len(reply) - n + 1)
    ]


def mean_adjusted_distinct(
    replies: Sequence[Tokens], vocabulary: int, orders: Sequence[int] = ORDERS
) -> float:
    """Mean of :func:`adjusted_distinct_n` over the orders n that have an n-gram; NaN if
    none has one."""
    values = [adjusted_distinct_n(replies, n, vocabulary) for n in orders]
    values = [value for value in values if not np.isnan(value)]
    return float(np.mean(values)) if values else float("nan")


def per_input_diversity(
    replies: Sequence[Sequence[Tokens]],
    vocabulary: int,
    orders: Sequence[int] = ORDERS,
) -> Float[np.ndarray, "prompts"]:
    """:func:`mean_adjusted_distinct` of the replies to each prompt.

    Args:
        replies: at [prompt][reply]. Values are comparable only between policies with
            the same number of replies to each prompt.
        vocabulary, orders: see :func:`adjusted_distinct_n`.

    Source: Kirk et al. (2024), Understanding the effects of RLHF on LLM generalisation
    and diversity, section 4.3.
    """
    return np.array([mean_adjusted_distinct(r, vocabulary, orders) for r in replies])


def across_input_diversity(
    replies: Sequence[Sequence[Tokens]],
    vocabulary: int,
    orders: Sequence[int] = ORDERS,
) -> float:
    """:func:`mean_adjusted_distinct` of one reply to each prompt, averaged over the
    first replies, the second ones, and so on.

    Raises:
        ValueError: if prompts have different numbers of replies.

    Source: Kirk et al. (2024), section 4.3.
    """
    counts = {len(row) for row in replies}
    if len(counts) != 1:
        raise ValueError(
            f"replies: prompts have {sorted(counts)} replies; all need the same number"
        )
    rounds = zip(*replies, strict=True)
    return float(
        np.mean([mean_adjusted_distinct(row, vocabulary, orders) for row in rounds])
    )


def self_bleu(texts: Sequence[str], max_order: int = 4) -> float:
    """Mean sentence BLEU of each text against all others, from 0 to 1. Higher is less
    diverse; 1 is one text repeated.

    It grows with the number of texts, so compare equal numbers. Its tokens are
    sacrebleu's, see :func:`self_bleu_signature`.

    Args:
        texts: two or more; the work grows with the square of their number.
        max_order: length of the longest n-grams.

    Raises:
        ValueError: if there are fewer than two texts.

    Source: Zhu et al. (2018), Texygen; BLEU by sacrebleu, Post (2018).
    """
    if len(texts) < 2:
        raise ValueError(f"texts: {len(texts)}; self-BLEU needs at least 2")
    bleu = _bleu(max_order)
    scores = [
        bleu.sentence_score(text, [*texts[:i], *texts[i + 1 :]]).score
        for i, text in enumerate(texts)
    ]
    return float(np.mean(scores)) / 100


def self_bleu_signature(texts: Sequence[str], max_order: int = 4) -> str:
    """sacrebleu's signature of :func:`self_bleu`: tokens, smoothing, version."""
    bleu = _bleu(max_order)
    bleu.sentence_score(texts[0], list(texts[1:]))
    return str(bleu.get_signature())


def _bleu(max_order: int):
    from sacrebleu.metrics import BLEU

    # Texts too short for the longest n-grams get the BLEU of the orders they have.
    return BLEU(max_ngram_order=max_order, effective_order=True)


def distinct_share(texts: Sequence[Hashable]) -> float:
    """Distinct texts as a share of all. A crude measure: one changed word makes a text
    distinct."""
    return len(set(texts)) / len(texts) if texts else float("nan")
