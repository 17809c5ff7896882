"""Diversity of replies: entropy of tokens, distinct n-grams, self-BLEU.

*Per input*: how much several replies to one prompt differ. *Across inputs*: how much
replies to different prompts do. RLHF may take the first and leave the second.
"""

from collections.abc import Hashable, Sequence

import numpy as np
from jaxtyping import Float, Int
from torch import Tensor

from alignlab.objectives import entropy

Tokens = Sequence[Hashable]
ORDERS = (1, 2, 3, 4)  # of n-grams, as many as BLEU has


def token_entropy(
    logits: Float[Tensor, "batch time vocabulary"], mask: Int[Tensor, "batch time"]
) -> float:
    r"""Mean entropy of the next token, in nats a token.

    .. math:: -\frac{1}{\sum m} \sum_{b,t} m_{bt} \sum_v p_{btv} \log p_{btv}

    From 0, where nothing is left to chance, to log V. A mean over tokens, not over
    replies; whatever stands in the padding, infinite or not a number, is not looked at.

    Args:
        logits: at each place, of the token that comes there; divide them by the
            temperature first, if replies are sampled at another than 1.
        mask: 1 on the reply's tokens.

    Raises:
        ValueError: if the shapes differ or there is no token.
    """
    if logits.shape[:2] != mask.shape or not mask.any():
        raise ValueError(
            f"logits have shape {tuple(logits.shape)} and mask {tuple(mask.shape)}: "
            "expected (batch, time, vocabulary) and (batch, time), and a token to ask"
        )
    return entropy(logits[mask.bool()].double()).mean().item()


def distinct_n(replies: Sequence[Tokens], n: int) -> float:
    """Different n-grams of the replies as a share of all; NaN if there is none.

    It falls with the number of tokens, whatever is said: long texts repeat words. For
    comparisons take :func:`adjusted_distinct_n`.

    Source: Li et al. (2016), A diversity-promoting objective function for neural
    conversation models.
    """
    grams = _grams(replies, n)
    return len(set(grams)) / len(grams) if grams else float("nan")


def adjusted_distinct_n(replies: Sequence[Tokens], n: int, vocabulary: int) -> float:
    r"""Different n-grams over how many there would be, were they drawn at random.

    .. math:: \mathrm{EAD}_n = \frac{N}{M \big[1 - (1 - 1/M)^C\big]}, \quad M = V^n

    with N different ones among C in all. 1 is as varied as uniform draws, also for few
    or many tokens; near 0 the same is said over and over. NaN if there is no n-gram.

    Args:
        replies: tokens, or words, of each; n-grams do not reach from one to the next.
        n: length of the n-grams.
        vocabulary: V, how many different tokens there can be.

    Raises:
        ValueError: if n or the vocabulary is below 1.

    Source: Liu et al. (2022), Rethinking and refining the distinct metric, eq. 2, for
    n = 1; taken to n-grams as in Kirk et al. (2024).
    """
    if vocabulary < 1:
        raise ValueError(f"vocabulary is {vocabulary}; it must be at least 1")
    grams = _grams(replies, n)
    if not grams:
        return float("nan")
    possible = float(vocabulary) ** n
    if possible == 1:
        return float(len(set(grams)))
    # 1 - (1 - 1/M)^C without losing the digits of a large M.
    seen = -np.expm1(len(grams) * np.log1p(-1 / possible))
    return float(len(set(grams)) / (possible * seen))


def _grams(replies: Sequence[Tokens], n: int) -> list[tuple]:
    if n < 1:
        raise ValueError(f"n is {n}; n-grams have at least 1 token")
    return [
        tuple(reply[i : i + n]) for reply in replies for i in range(len(reply) - n + 1)
    ]


def mean_adjusted_distinct(
    replies: Sequence[Tokens], vocabulary: int, orders: Sequence[int] = ORDERS
) -> float:
    """Mean of :func:`adjusted_distinct_n` over n; orders without an n-gram are left
    out, and NaN comes back where none has one."""
    found = [adjusted_distinct_n(replies, n, vocabulary) for n in orders]
    found = [value for value in found if not np.isnan(value)]
    return float(np.mean(found)) if found else float("nan")


def per_input_diversity(
    replies: Sequence[Sequence[Tokens]],
    vocabulary: int,
    orders: Sequence[int] = ORDERS,
) -> Float[np.ndarray, "prompts"]:
    """:func:`mean_adjusted_distinct` of the replies to each prompt.

    Args:
        replies: at [prompt][reply]; compare only what has as many replies a prompt.
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
    """:func:`mean_adjusted_distinct` of one reply to each prompt, averaged over first,
    second, ... replies.

    Raises:
        ValueError: if prompts have different numbers of replies.

    Source: Kirk et al. (2024), section 4.3.
    """
    rounds = list(zip(*_as_many(replies), strict=True))
    each = [mean_adjusted_distinct(said, vocabulary, orders) for said in rounds]
    return float(np.mean(each))


def self_bleu(texts: Sequence[str], max_order: int = 4) -> float:
    """How far each text is said by the others: the mean sentence BLEU of each against
    all others as its references, from 0 to 1. Higher is less diverse; 1 is the same
    text again and again.

    It grows with the number of texts, so compare as many of each, and its tokens are
    sacrebleu's: :func:`self_bleu_signature` says which.

    Args:
        texts: two or more; the work grows with the square of their number.
        max_order: longest n-grams.

    Raises:
        ValueError: if there are fewer than two texts.

    Source: Zhu et al. (2018), Texygen; BLEU by sacrebleu, Post (2018).
    """
    if len(texts) < 2:
        raise ValueError(f"texts: {len(texts)}; each is compared with the others")
    bleu = _bleu(max_order)
    scores = [
        bleu.sentence_score(text, [*texts[:i], *texts[i + 1 :]]).score
        for i, text in enumerate(texts)
    ]
    return float(np.mean(scores)) / 100


def self_bleu_signature(texts: Sequence[str], max_order: int = 4) -> str:
    """What sacrebleu says to report of a BLEU: tokens, smoothing, version."""
    bleu = _bleu(max_order)
    bleu.sentence_score(texts[0], list(texts[1:]))
    return str(bleu.get_signature())


def _bleu(max_order: int):
    from sacrebleu.metrics import BLEU

    # Short replies have no long n-grams: their BLEU is that of the orders they have.
    return BLEU(max_ngram_order=max_order, effective_order=True)


def distinct_share(texts: Sequence[Hashable]) -> float:
    """Different texts as a share of all. Nearly blind: one changed word is enough for a
    text to count as another."""
    return len(set(texts)) / len(texts) if texts else float("nan")


def _as_many(replies: Sequence[Sequence]) -> Sequence[Sequence]:
    counts = {len(row) for row in replies}
    if len(counts) != 1:
        raise ValueError(
            f"replies: prompts have {sorted(counts)} replies; each needs as many"
        )
    return replies
