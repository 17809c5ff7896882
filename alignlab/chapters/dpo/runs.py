"""The arms of notebook 05: DPO and its family on the comparisons that notebook 03's
reward model was learnt from, and DPO on the exact laboratory.

All of them start from one reference policy, learn at one rate, and are measured on the
same unseen subjects. What they are held against (PPO, best-of-n) is in ``dpo_rivals``.
"""

import copy
import functools
import itertools
import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from alignlab.errors import AlignlabError
from alignlab.evaluation.exact import (
    bradley_terry,
    every_completion,
    expected_dpo_loss,
    few_word_model,
    log_probs_of_all,
    optimal_policy,
)
from alignlab.models.pairs import pack, pair_log_probs
from alignlab.models.sampler import complete
from alignlab.objectives.policy import exact_kl
from alignlab.objectives.preference import dpo_loss
from alignlab.study import artifacts as alignment
from alignlab.training.dpo import (
    WITHOUT_REFERENCE,
    encode_pairs,
    log_probs_of,
    train_dpo,
)
from alignlab.training.loop import train
from alignlab.training.sft import collate, encode
from alignlab.world import gold, tasks

BATCH = 8  # pairs an update; small ones make the most of few pairs
# One rate for the whole family: Adam's steps do not depend on the scale of a loss.
# Higher leaves the reference sooner, and less steadily.
# Found for DPO on training subjects; of four tried it gained most for its distance.
RATE = {"300k": 5e-4, "1m": 2.5e-4}
BETA = 0.1  # of the runs that are looked at closely
HELD_OUT_SEED = 5  # of the comparisons about unseen subjects
LOOKS = 8  # at the pairs that are followed, evenly over a run


class Method(NamedTuple):
    """A loss of `train_dpo`, and four strengths (its ``beta``) from far-going to
    cautious."""

    loss_type: str
    strengths: tuple[float, float, float, float]


# Strengths were set from what each loss says of its own scale, once. IPO's are margins
# to reach of 25, 5, 1 and 0.25 nats; ORPO's weigh the preference against the
# likelihood; SimPO's scale a margin in nats a token.
FAMILY: Mapping[str, Method] = {
    "DPO": Method("sigmoid", (0.02, 0.2, 1.0, 5.0)),
    "IPO": Method("ipo", (0.02, 0.1, 0.5, 2.0)),
    "KTO": Method("kto", (0.02, 0.2, 1.0, 5.0)),
    "ORPO": Method("orpo", (10.0, 2.0, 0.5, 0.1)),
    "SimPO": Method("simpo", (1.0, 4.0, 16.0, 64.0)),
    "DPOP": Method("dpop", (0.02, 0.2, 1.0, 5.0)),
}
# Losses that know of wrong labels, or bound the margin, and plain DPO beside them.
GUARDS: Mapping[str, str] = {
    "DPO": "sigmoid",
    "cDPO": "sigmoid",
    "robust": "robust",
    "IPO": "ipo",
}


# --- What a policy is worth on unseen subjects ---------------------------------------


def measure(
    policy, tokenizer, reference, *, seed: int, n: int, split: str = "test"
) -> dict:
    """Replies of a policy to the requests of a split, and how far it has gone.

    Args:
        reference: what KL is measured to.
        seed: of the sampling, at temperature 1.
        n: replies to each request.
        split: "test" is what results are from.

    Returns:
        ``golds``, each subject's mean gold reward, and ``gold``, the mean of these;
        ``kl``, nats a reply: the KL of every token's distribution, exactly, summed over
        sampled replies, so that only the replies are left to chance; ``length`` in
        tokens, ``ended``, the share of replies that end.
    """
    names = alignment.subjects(split)
    prompts = [gold.request(name) for name in names for _ in range(n)]
    replies = complete(
        policy, tokenizer, prompts, alignment.MAX_NEW_TOKENS, 1.0, seed=seed
    )
    world = tasks.default_world()
    subjects = [name for name in names for _ in range(n)]
    totals = [
        gold.gold_reward(world, subject, reply.text).total
        for subject, reply in zip(subjects, replies, strict=True)
    ]
    golds = np.reshape(totals, (len(names), n)).mean(axis=1)
    return {
        "golds": golds.tolist(),
        "gold": float(golds.mean()),
        "kl": reply_kl(policy, reference, tokenizer, prompts, replies),
        "length": float(np.mean([len(reply.tokens) for reply in replies])),
        "ended": float(np.mean([reply.ended for reply in replies])),
    }


@torch.no_grad()
def reply_kl(policy, reference, tokenizer, prompts, replies, rows: int = 32) -> float:
    """Mean KL(policy || reference) of a reply, in nats: exact at every token of replies
    that the policy has sampled.

    Args:
        prompts: strings. replies: as ``complete`` gives them, in the same order.
        rows: replies at once; more takes more memory.
    """
    texts = _as_read(tokenizer, prompts, replies)
    pad = tokenizer.pad_token_id
    total = 0.0
    for start in range(0, len(texts), rows):
        batch = collate(texts[start : start + rows], pad)
        batch = {name: x.to(policy.device) for name, x in batch.items()}
        mask = batch.pop("mask")[:, 1:].bool()  # (B, T-1): tokens of the reply
        logits = [m(**batch).logits[:, :-1][mask] for m in (policy, reference)]
        total += exact_kl(*logits).sum().item()
    return total / len(texts)


def _as_read(tokenizer, prompts, replies):
    """The very tokens that were sampled, behind their prompts."""
    encoded = encode(tokenizer, [dict(prompt=p, completion="") for p in prompts])
    texts = []
    for one, reply in zip(encoded, replies, strict=True):
        start = one.completion_mask.index(1)
        ids = [*one.input_ids[:start], *reply.tokens]
        mask = [0] * start + [1] * len(reply.tokens)
        texts.append(type(one)(ids, mask))
    return texts


# --- Arms -----------------------------------------------------------------------------


def start_arm(*, seed: int, n: int, size: str, steps: int) -> dict:
    """The reference policy itself, measured: see :func:`measure`."""
    policy, tokenizer = alignment.reference_policy(size, steps)
    return measure(policy, tokenizer, policy, seed=seed, n=n)


def preference_arm(
    *,
    seed: int,
    loss_type: str,
    beta: float,
    n_used: int,
    passes: int,
    n: int,
    size: str,
    steps: int,
    k: int,
    n_pairs: int,
    flips: float = alignment.FLIPS,
    follow: int = 0,
    split: str = "test",
    rate: float | None = None,
    **dials: float,
) -> dict:
    """One run of a loss of the family, and what its policy is worth at the end.

    Args:
        seed: draws which of the comparisons it learns from, their order and, at the
            end, the replies.
        loss_type, beta, dials: see :func:`alignlab.training.dpo.train_dpo`.
        n_used: comparisons it learns from; more of them teach more.
        passes: over these.
        n: replies to each request.
        size, steps: of the reference policy.
        k, n_pairs: the comparisons are drawn from the first ``n_pairs`` of k replies to
            each training request, those that the reward model has learnt from.
        flips: rate of wrong labels.
        follow: pairs of those learnt from, and as many about unseen subjects, whose
            log-probabilities are looked at along the run; 0 for none. Then each pair's
            gradient is measured too.
        split: where replies are measured.
        rate: the peak learning rate, if not ``RATE``.

    Returns:
        What :func:`measure` gives (nothing if the run had to stop); ``seconds`` from
        the pairs to the policy, what the reference thinks of them and all looks
        included; ``updates``; ``stopped``, why it had to stop, or None. If pairs are
        followed also ``followed``, see :func:`_followed`, and ``gradients`` of the
        unseen ones, see :func:`pair_gradients`.
    """
    drawn = (seed, n_used, size, steps, k, n_pairs, flips)
    pairs = _drawn(*drawn)
    reference, tokenizer = alignment.reference_policy(size, steps)
    known, spent = None, 0.0
    if loss_type not in ("kto", *WITHOUT_REFERENCE):
        known, spent = _reference_says(*drawn)
    policy = copy.deepcopy(reference)
    unseen = _held_out(follow, flips, size=size, steps=steps, k=k) if follow else []
    updates = max(1, n_used * passes // BATCH)
    watched = dict(
        eval_pairs={"train": pairs[:follow], "held_out": unseen},
        eval_every=max(1, updates // LOOKS),
    )
    began = time.perf_counter()
    try:
        history = train_dpo(
            policy,
            tokenizer,
            pairs,
            loss_type=loss_type,
            beta=beta,
            steps=updates,
            batch_size=BATCH,
            learning_rate=RATE[size] if rate is None else rate,
            seed=seed,
            ref_log_probs=known,
            progress=False,
            **(watched if follow else {}),
            **dials,
        )
    except AlignlabError as error:
        return {"stopped": str(error)}
    seconds = spent + time.perf_counter() - began
    found = measure(policy, tokenizer, reference, seed=seed, n=n, split=split)
    found |= {"stopped": None, "seconds": seconds, "updates": updates}
    if follow:
        found["followed"] = _followed(history)
        found["gradients"] = pair_gradients(policy, reference, tokenizer, unseen, beta)
    return found


@functools.cache  # the arms of one process share them
def _comparisons(size, steps, k, n_pairs, flips) -> list[dict]:
    some = alignment.candidates("train", k, size=size, steps=steps)
    return alignment.comparisons(some, n_pairs, flips=flips)


@functools.cache
def _reference_says(*drawn) -> tuple[tuple[Tensor, Tensor], float]:
    """The reference's log-probabilities of what ``_drawn`` gives, and the seconds that
    they took: each arm counts these as if it were alone."""
    _, _, size, steps, *_ = drawn
    reference, tokenizer = alignment.reference_policy(size, steps)
    began = time.perf_counter()
    encoded = encode_pairs(tokenizer, _drawn(*drawn))
    known = log_probs_of(reference, encoded, tokenizer.pad_token_id)
    return known, time.perf_counter() - began


def _drawn(seed: int, n_used: int, *made) -> list[dict]:
    """What an arm learns from; ``made`` says what ``_comparisons`` are meant."""
    pairs = _comparisons(*made)
    order = np.random.default_rng([seed, 50]).permutation(len(pairs))
    return [pairs[i] for i in order[:n_used]]


def _held_out(count, flips, *, size, steps, k) -> list[dict]:
    """Comparisons about unseen subjects, labelled as noisily, the same for all arms."""
    some = alignment.candidates("test", k, size=size, steps=steps)
    return alignment.comparisons(some, count, flips=flips, seed=HELD_OUT_SEED)


def _followed(history: Sequence[dict]) -> dict[str, list[float]]:
    """By name, a number for each look at the pairs that were followed, beginning with
    the reference itself: ``pairs`` learnt from so far, and the mean log-ratios of the
    two lists of pairs, such as ``held_out/chosen``, in nats a reply."""
    looks = [row for row in history if "held_out/accuracies" in row]
    found = {"pairs": [0, *(row["step"] * BATCH for row in looks)]}
    for where in ("train", "held_out"):
        for side in ("chosen", "rejected"):
            ratios = [row[f"{where}/log_ratios/{side}"] for row in looks]
            found[f"{where}/{side}"] = [0.0, *ratios]
        accuracies = [row[f"{where}/accuracies"] for row in looks]
        found[f"{where}/accuracy"] = [0.5, *accuracies]
    return found


def pair_gradients(
    policy, reference, tokenizer, pairs: Sequence[Mapping], beta: float
) -> dict[str, list[float]]:
    """What every pair by itself would do to the policy.

    Returns:
        A number for each pair: ``margin``, its log-ratios' difference h in nats;
        ``gradient``, the length of the gradient of its DPO loss in all parameters; and
        ``of_margin``, that of h itself.
    """
    encoded = encode_pairs(tokenizer, pairs)
    fixed = torch.stack(log_probs_of(reference, encoded, tokenizer.pad_token_id))
    found: dict[str, list[float]] = {"margin": [], "gradient": [], "of_margin": []}
    parameters = [p for p in policy.parameters() if p.requires_grad]
    for number, pair in enumerate(encoded):
        batch = pack([pair], tokenizer.pad_token_id)
        batch = {name: x.to(policy.device) for name, x in batch.items()}
        now = pair_log_probs(policy, batch)
        then = fixed[:, number : number + 1].to(policy.device)
        margin = ((now[0] - then[0]) - (now[1] - then[1])).sum()
        loss = dpo_loss(*now, *then, beta).sum()
        found["margin"].append(margin.item())
        for name, value in (("gradient", loss), ("of_margin", margin)):
            slopes = torch.autograd.grad(value, parameters, retain_graph=True)
            lengths = torch.stack([slope.norm() for slope in slopes])
            found[name].append(lengths.norm().item())
    return found


# --- The exact laboratory -------------------------------------------------------------


class Laboratory(NamedTuple):
    """A transformer whose every reply can be written down, and what each is worth."""

    model: torch.nn.Module
    tokenizer: object
    prompt: list[int]
    completions: list[tuple[int, ...]]
    reward: Float[Tensor, "completions"]  # between -1 and 1
    beta: float

    def policy(self, model=None) -> Float[Tensor, "completions"]:
        """The probability of every reply."""
        with torch.no_grad():
            return log_probs_of_all(
                self.model if model is None else model, self.prompt, self.completions
            ).exp()


LAB_WORDS, LAB_LENGTH, LAB_BETA = 4, 2, 0.5
LAB_PROMPT = "a b"


def laboratory(seed: int) -> Laboratory:
    """A random transformer over four words that replies in at most two tokens, 21
    replies in all, and a random reward.

    Args:
        seed: of the weights and of the reward.
    """
    model, tokenizer = few_word_model(LAB_WORDS, seed)
    prompt = tokenizer(LAB_PROMPT)["input_ids"]
    completions = every_completion(len(tokenizer), LAB_LENGTH)
    reward = np.random.default_rng([seed, 51]).uniform(-1, 1, len(completions))
    return Laboratory(
        model, tokenizer, prompt, completions, torch.as_tensor(reward), LAB_BETA
    )


def optimum_arm(*, seed: int, updates: int) -> dict[str, list[float]]:
    """DPO on unlimited comparisons in the laboratory: the probability of every reply
    before (``reference``), after (``policy``) and at the ``optimum``, and its
    ``reward``."""
    lab = laboratory(seed)
    reference = lab.policy()
    preferences = bradley_terry(lab.reward)

    def step(policy, _):
        log_probs = log_probs_of_all(policy, lab.prompt, lab.completions)
        loss = expected_dpo_loss(log_probs, reference.log(), preferences, lab.beta)
        return loss, {}

    policy = copy.deepcopy(lab.model)
    nothing = itertools.repeat({})
    train(policy, nothing, step, steps=updates, learning_rate=1e-2, progress=False)
    optimum = optimal_policy(reference, lab.reward, lab.beta)
    return {
        "reference": reference.tolist(),
        "policy": lab.policy(policy).tolist(),
        "optimum": optimum.tolist(),
        "reward": lab.reward.tolist(),
    }
