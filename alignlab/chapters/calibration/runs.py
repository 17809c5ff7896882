"""The arms of notebook 07: multiple-choice items from the world's facts, posed to one
model after another, from the base model to what reinforcement learning makes of it.

An arm gives the log-probability of every option; what these are worth is worked out in
``calibration_analysis``, without asking a model again.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from alignlab import cache as artifacts
from alignlab.calibration.elicitation import multiple_choice
from alignlab.calibration.estimators import TemperatureScaler
from alignlab.models.base import load_base, load_model, save_model, weights_hash
from alignlab.models.options import option_log_probs, pack_options
from alignlab.study.arms import run_each, run_groups
from alignlab.study.tuning import sft_policy
from alignlab.training.dpo import prompt_and_completion, train_dpo
from alignlab.training.loop import train
from alignlab.training.sft import encode
from alignlab.world import tasks
from alignlab.world.facts import Fact, normalise

Split = Literal["train", "calibration", "test"]
OPTIONS = 4
LEFT_OUT = ("neighbour",)  # its questions have several right answers
TOLD_APART = 3  # of the unseen subjects one in so many is for fitting, the others test
ITEMS = 24  # in a batch, with all their options
# Found on calibration subjects, once: higher goes further from the reference in as many
# updates, until accuracy suffers.
RATE = {"300k": 5e-4, "1m": 3e-4}
DPO_BETA = 0.1
JUDGED_BETA = 0.2  # the price that the claims are about


# --- Items ----------------------------------------------------------------------------


class Item(NamedTuple):
    """A fact to be completed or asked for, with four answers of which one is right."""

    fact: Fact
    statement: str  # a sentence of pretraining, up to its answer
    question: str  # as instruction tuning asks
    options: tuple[str, ...]
    right: int  # the place of the right one


@cache
def subjects(split: Split) -> frozenset[str]:
    """The subjects of a split; no two splits share one.

    "train" is the half whose questions instruction tuning asks. Of the other half, one
    in three is for fitting ("calibration"), the rest is for judging ("test").

    Raises:
        ValueError: if there is no such split.
    """
    if split not in Split.__args__:
        raise ValueError(f"split is {split!r}; it can be one of {Split.__args__}")
    if split == "train":
        return tasks.trained_subjects()
    world = tasks.default_world()
    unseen = [s for s in world.subjects() if s not in tasks.trained_subjects()]
    order = np.random.default_rng(7).permutation(len(unseen))
    fitting = {unseen[i] for i in order[: len(unseen) // TOLD_APART]}
    return frozenset(fitting if split == "calibration" else set(unseen) - fitting)


@cache
def items(
    splits: tuple[Split, ...], draws: int, seed: int, limit: int = 0
) -> tuple[Item, ...]:
    """Items about the subjects of some splits, in an order that does not depend on the
    seed: all facts once, then all of them again in other wordings with other options.

    Args:
        splits: of :func:`subjects`.
        draws: items of each fact. They share it, so they are not independent: whoever
            needs that takes the first draw only.
        seed: draws wordings, options, and their order.
        limit: only so many facts, spread evenly; 0 takes all.
    """
    wanted = frozenset().union(*map(subjects, splits))
    facts = [f for f in tasks.default_world().facts if f.subject in wanted]
    facts = [f for f in facts if f.relation not in LEFT_OUT]
    if 0 < limit < len(facts):
        facts = [facts[i * len(facts) // limit] for i in range(limit)]
    rng = np.random.default_rng([seed, 70])
    return tuple(_item(fact, rng) for _ in range(draws) for fact in facts)


def _item(fact: Fact, rng: np.random.Generator) -> Item:
    relation = tasks.default_world().relations[fact.relation]
    known = fact.stated or fact.answers
    right = known[rng.integers(len(known))]
    allowed = {normalise(answer) for answer in fact.answers}
    others = [a for a in _answers(fact.relation) if normalise(a) not in allowed]
    # Uniformly, without regard to how often they are answers: which options there are
    # then says nothing about which of them is right.
    wrong = [others[i] for i in rng.permutation(len(others))[: OPTIONS - 1]]
    place = int(rng.integers(OPTIONS))
    options = (*wrong[:place], right, *wrong[place:])
    endings = [s for s in relation.statements if s.endswith(" {a}.")]
    statement = endings[rng.integers(len(endings))].removesuffix(" {a}.")
    question = relation.questions[rng.integers(len(relation.questions))]
    asked = statement.format(s=fact.subject), question.format(s=fact.subject)
    return Item(fact, *asked, options, place)


@cache
def _answers(relation: str) -> tuple[str, ...]:
    """Every answer to questions of a relation, each once."""
    facts = (f for f in tasks.default_world().facts if f.relation == relation)
    return tuple(dict.fromkeys(answer for f in facts for answer in f.answers))


def ask(
    model,
    tokenizer,
    some: Sequence[Item],
    form: Literal["statement", "question"] = "question",
    prefix: str = "",
    reduction: Literal["sum", "mean"] = "sum",
) -> dict:
    """What a model gives to the options of each item.

    Args:
        form: "statement" lets it complete a sentence of pretraining, as a base model
            can; "question" asks in a chat.
        prefix: put before each question.
        reduction: "sum" is an option's log-probability, "mean" that of its mean token.

    Returns:
        ``log_probs``, nats, one row an item, and ``outside``, the mean probability of
        none of the options.
    """
    chat = form == "question"
    prompts = [prefix + i.question if chat else i.statement for i in some]
    options = [[f"{o}." if chat else f" {o}." for o in i.options] for i in some]
    settings = dict(chat=chat, end=chat, reduction=reduction)
    found = multiple_choice(model, tokenizer, prompts, options, **settings)
    return {
        "log_probs": np.round(found.log_probs, 5).tolist(),
        "outside": float(np.mean(found.outside)),
    }


# --- Tuning on right answers ----------------------------------------------------------


def reward_loss(
    log_probs: Float[Tensor, "items options"],
    right: Int[Tensor, "items"],
    reference: Float[Tensor, "items options"],
    beta: float,
) -> Float[Tensor, ""]:
    r"""Minus what reinforcement learning maximises, exactly: no sample is drawn.

    .. math:: -\frac1n \sum_i \pi(y_i^* \mid x_i)
        - \beta \, \mathrm{KL}(\pi \,\|\, \pi_\text{ref})

    with a reward of 1 for the right option, and all probabilities among the options of
    the item. Of a model that cannot know which is right, but believes each with
    probability p, the optimum is :math:`\pi \propto \pi_\text{ref}\, e^{p / \beta}`.

    Args:
        log_probs: of the options under the policy; a constant a row does not matter.
        right: the place of the right one.
        reference: of the options under the reference.
        beta: price of a nat; lower goes further from the reference.
    """
    policy, reference = log_probs.log_softmax(1), reference.log_softmax(1)
    expected = policy.exp().gather(1, right[:, None]).mean()
    kl = (policy.exp() * (policy - reference)).sum(1).mean()
    return beta * kl - expected


def answer_loss(
    log_probs: Float[Tensor, "items options"],
    right: Int[Tensor, "items"],
    reference: Float[Tensor, "items options"],
) -> Float[Tensor, ""]:
    """Cross-entropy of the right option among the options, in nats: a proper score on
    the very same items, the control for :func:`reward_loss`."""
    return nn.functional.cross_entropy(log_probs, right)


def tune_on_options(
    policy,
    tokenizer,
    some: Sequence[Item],
    loss: Callable,
    *,
    size: str,
    steps: int,
    seed: int,
    temperature: float = 1.0,
) -> None:
    """Train a policy, in place, on a loss over the options of items in batches.

    Args:
        loss: of log-probabilities, right places and the reference's log-probabilities.
        temperature: at which the policy, and its reference, choose among the options.
    """
    known = ask(policy, tokenizer, some)["log_probs"]
    train(
        policy,
        option_batches(tokenizer, some, known, seed),
        partial(_option_step, loss=loss, temperature=temperature),
        steps=steps,
        learning_rate=RATE[size],
        seed=seed,
        progress=False,
    )


def option_batches(
    tokenizer, some: Sequence[Item], reference, seed: int
) -> Iterator[dict[str, Tensor]]:
    """Batches for ever: what ``pack_options`` gives for some items, with ``right``
    (items,) and the reference's log-probabilities (items, options)."""
    examples = [
        {"prompt": item.question, "completion": f"{option}."}
        for item in some
        for option in item.options
    ]
    texts = [prompt_and_completion(text) for text in encode(tokenizer, examples)]
    rng = np.random.default_rng([seed, 71])
    while True:
        order = rng.permutation(len(some))
        for chosen in np.array_split(order, -(-len(some) // ITEMS)):
            prompts = [texts[i * OPTIONS][0] for i in chosen]
            own = [[texts[i * OPTIONS + k][1] for k in range(OPTIONS)] for i in chosen]
            batch = pack_options(prompts, own, tokenizer.pad_token_id)
            batch["right"] = torch.tensor([some[i].right for i in chosen])
            batch["reference"] = torch.tensor([reference[i] for i in chosen])
            yield batch


def _option_step(model, batch: dict[str, Tensor], loss: Callable, temperature: float):
    right, reference = batch["right"], batch["reference"]
    log_probs = option_log_probs(model, batch).float().view(-1, OPTIONS)
    return loss(log_probs / temperature, right, reference / temperature), {}


def answer_pairs(some: Sequence[Item], log_probs, seed: int) -> list[dict]:
    """The right answer to each item's question over a wrong one, drawn as the policy
    would say it, in TRL's preference format."""
    rng = np.random.default_rng([seed, 72])
    pairs = []
    for item, row in zip(some, np.asarray(log_probs), strict=True):
        row = np.where(np.arange(OPTIONS) == item.right, -np.inf, row)
        chances = np.exp(row - np.logaddexp.reduce(row))
        rejected = item.options[rng.choice(OPTIONS, p=chances)]
        texts = dict(chosen=f"{item.options[item.right]}.", rejected=f"{rejected}.")
        pairs.append({"prompt": item.question, **texts})
    return pairs


# --- A policy that is calibrated to begin with ----------------------------------------


def fitting_temperature(policy, tokenizer, seed: int, limit: int = 0) -> float:
    """The temperature at which a policy's choice among options is calibrated, fitted on
    the subjects for that: whoever samples at it has a calibrated policy."""
    some = items(("calibration",), 1, seed, limit)
    log_probs = ask(policy, tokenizer, some)["log_probs"]
    right = [item.right for item in some]
    return TemperatureScaler().fit(log_probs, right).temperature_


# --- Arms -----------------------------------------------------------------------------

KINDS = ("reward", "answers", "dpo")


def base_arm(*, seed: int, draws: int, size: str, limit: int = 0) -> dict:
    """The base model on the held-out items, as sentences to complete: see :func:`ask`.

    Args:
        seed, draws, limit: of :func:`items`.
        size: of the model.
    """
    some = items(("calibration", "test"), draws, seed, limit)
    return ask(*load_base(size), some, "statement")


def sft_arm(
    *,
    seed: int,
    draws: int,
    size: str,
    n_examples: int,
    sft_steps: int,
    limit: int = 0,
) -> dict:
    """The instruction-tuned policy of a seed on the same items, as questions:
    :func:`ask`; ``statement``, the log-probabilities when it completes the sentences
    that the base model completes; and ``mean``, those of the mean token."""
    policy, tokenizer = tuned(
        seed=seed, size=size, n_examples=n_examples, sft_steps=sft_steps
    )
    some = items(("calibration", "test"), draws, seed, limit)
    statement = ask(policy, tokenizer, some, "statement")
    mean = ask(policy, tokenizer, some, reduction="mean")
    return ask(policy, tokenizer, some) | {
        "statement": statement["log_probs"],
        "mean": mean["log_probs"],
    }


def tuned_arm(*, seed: int, draws: int, limit: int = 0, size: str, **recipe) -> dict:
    """A policy of :func:`tuned` on the same items as questions: :func:`ask`, and the
    ``temperature`` at which it was tuned, 1 unless it was ``calibrated``."""
    policy, tokenizer = tuned(seed=seed, size=size, limit=limit, **recipe)
    some = items(("calibration", "test"), draws, seed, limit)
    temperature = 1.0
    if recipe.get("calibrated"):
        names = ("n_examples", "sft_steps")
        start = tuned(seed=seed, size=size, **{name: recipe[name] for name in names})
        temperature = fitting_temperature(*start, seed, limit)
    return ask(policy, tokenizer, some) | {"temperature": temperature}


def tuned(
    *,
    seed: int,
    size: str,
    n_examples: int,
    sft_steps: int,
    kind: str | None = None,
    beta: float = JUDGED_BETA,
    steps: int = 0,
    calibrated: bool = False,
    limit: int = 0,
):
    """``(policy, tokenizer)`` after instruction tuning and, unless ``kind`` is None,
    after learning from right and wrong answers about training subjects; from the cache
    if it was made before.

    Args:
        seed: of everything that is drawn.
        size: of the base model.
        n_examples, sft_steps: of ``sft_policy``.
        kind: "reward" is policy gradient on a reward of 1 for the right option;
            "answers" cross-entropy on the same items; "dpo" right over wrong answers.
        beta: price of KL, for "reward" and "dpo"; lower goes further.
        steps: updates, of ``ITEMS`` items each.
        calibrated: for "reward" and "answers", let the policy choose among options at
            its :func:`fitting_temperature` while it learns.
        limit: of :func:`items`.

    Raises:
        ValueError: if there is no such kind.
    """
    start = partial(sft_policy, seed, size=size, n_examples=n_examples, steps=sft_steps)
    if kind is None:
        return start()
    if kind not in KINDS:
        raise ValueError(f"kind is {kind!r}; it can be one of {KINDS}")

    def build(folder: Path) -> None:
        policy, tokenizer = start()
        some = items(("train",), 1, seed, limit)
        how = dict(size=size, steps=steps, seed=seed)
        if kind == "dpo":
            learn_pairs(policy, tokenizer, some, beta=beta, **how)
        else:
            if calibrated:
                at = fitting_temperature(policy, tokenizer, seed, limit)
                how["temperature"] = at
            reward = partial(reward_loss, beta=beta)
            loss = reward if kind == "reward" else answer_loss
            tune_on_options(policy, tokenizer, some, loss, **how)
        save_model(policy, tokenizer, folder)

    key = dict(seed=seed, size=size, n=n_examples, sft=sft_steps, kind=kind, beta=beta)
    key |= dict(steps=steps, calibrated=calibrated, limit=limit, base=weights_hash())
    code = [sys.modules[__name__]]
    return load_model(artifacts.artifact("options", build, key=key, code=code))


def learn_pairs(policy, tokenizer, some: Sequence[Item], *, beta, size, steps, seed):
    """DPO on :func:`answer_pairs`, in place."""
    train_dpo(
        policy,
        tokenizer,
        answer_pairs(some, ask(policy, tokenizer, some)["log_probs"], seed),
        beta=beta,
        steps=steps,
        batch_size=ITEMS,
        learning_rate=RATE[size],
        seed=seed,
        progress=False,
    )


def stages(
    *, seeds: Sequence[int], betas: Sequence[float], steps: int, jobs: int, **common
) -> dict[str, list[dict]]:
    """Rows of every stage, a row a seed.

    Args:
        seeds: of SFT, of what follows, and of the items.
        betas: prices of KL for the reward.
        steps: updates after SFT.
        jobs: arms at a time.
        common: ``draws``, ``limit``, ``size``, and ``n_examples`` and ``sft_steps``.

    Returns:
        "base", "SFT", "reward 0.2" (and other prices), "DPO", "cross-entropy" (the
        control), and "calibrated, reward 0.2" (and other prices).
    """
    base = {name: common[name] for name in ("draws", "limit", "size")}
    recipes = {f"reward {b:g}": dict(kind="reward", beta=b) for b in betas}
    recipes["DPO"] = dict(kind="dpo", beta=DPO_BETA)
    recipes["cross-entropy"] = dict(kind="answers")
    for beta in betas:
        calibrated = dict(kind="reward", beta=beta, calibrated=True)
        recipes[f"calibrated, reward {beta:g}"] = calibrated
    # First what the others start from, then side by side what takes longest.
    first = [(sft_arm, dict(seed=s, **common)) for s in seeds]
    run_each(first, jobs=jobs, label="instruction tuning")
    calls = {
        name: [
            (tuned_arm, dict(seed=s, steps=steps, **recipe, **common)) for s in seeds
        ]
        for name, recipe in recipes.items()
    }
    calls["SFT"] = first
    calls["base"] = [(base_arm, dict(seed=s, **base)) for s in seeds]
    return run_groups(calls, jobs=jobs, label="stages")
