"""What notebooks 07 and 08 share: multiple-choice items from the world's facts, the
policies that answer them, and their answers. An arm's row carries its items' labels.
"""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.special import softmax

from alignlab.cache import artifact
from alignlab.calibration.elicitation import multiple_choice
from alignlab.calibration.estimators import TemperatureScaler
from alignlab.calibration.metrics import top_label
from alignlab.chapters.calibration.tuning import (
    OPTIONS,
    answer_loss,
    reward_loss,
    tune_on_options,
    tune_on_pairs,
)
from alignlab.models.base import load_model, save_model, weights_hash
from alignlab.seeds import stream
from alignlab.study.arms import run_each, run_groups
from alignlab.study.tuning import sft_policy
from alignlab.world import tasks
from alignlab.world.facts import KNOWN_FROM, TAIL, Fact, normalise

Split = Literal["train", "calibration", "test"]
HELD_OUT = ("calibration", "test")
EXCLUDED_RELATIONS = ("neighbour",)  # its questions have several right answers
ONE_IN = 3  # of the held-out subjects are for fitting; the others are the test subjects
# By design a fact is known from KNOWN_FROM exposures on; each side is cut once more.
EXPOSURES = {
    "never": (0, 1),
    "1 to 24": (1, 25),
    "25 to 99": (25, KNOWN_FROM),
    "100 to 299": (KNOWN_FROM, 300),
    "300 and more": (300, np.inf),
}


# --- Items ----------------------------------------------------------------------------


class Item(NamedTuple):
    """A fact to be completed or asked for, with four answers of which one is right."""

    fact: Fact
    statement: str  # a sentence of pretraining, up to its answer
    question: str  # as instruction tuning asks
    options: tuple[str, ...]
    right: int  # index of the right option


@cache
def subjects(split: Split) -> frozenset[str]:
    """The subjects of a split; no two splits share one.

    "train" is the half whose questions instruction tuning asks. Of the other half, one
    in three is for fitting ("calibration"), the rest is for evaluation ("test").

    Raises:
        ValueError: if there is no such split.
    """
    if split not in Split.__args__:
        raise ValueError(f"split is {split!r}; it can be one of {Split.__args__}")
    if split == "train":
        return tasks.trained_subjects()
    world = tasks.default_world()
    unseen = [s for s in world.subjects() if s not in tasks.trained_subjects()]
    order = stream(7, "fitting subjects").permutation(len(unseen))
    fitting = {unseen[i] for i in order[: len(unseen) // ONE_IN]}
    return frozenset(fitting if split == "calibration" else set(unseen) - fitting)


@cache
def draw_items(
    splits: tuple[Split, ...], draws: int, seed: int, limit: int = 0
) -> tuple[Item, ...]:
    """Items about the subjects of some splits, in an order that does not depend on the
    seed: all facts once, then all of them again in other wordings with other options.

    Args:
        splits: see :func:`subjects`.
        draws: items of each fact. Items of the same fact are not independent.
        seed: draws wordings, options, and their order.
        limit: only so many facts, spread evenly; 0 takes all.
    """
    wanted = frozenset().union(*map(subjects, splits))
    facts = [f for f in tasks.default_world().facts if f.subject in wanted]
    facts = [f for f in facts if f.relation not in EXCLUDED_RELATIONS and _in_body(f)]
    if 0 < limit < len(facts):
        facts = [facts[i * len(facts) // limit] for i in range(limit)]
    rng = stream(seed, "multiple-choice items")
    return tuple(_draw_item(fact, rng) for _ in range(draws) for fact in facts)


def _in_body(fact: Fact) -> bool:
    """Whether a fact is outside the long tail, uncontested, and about a real subject:
    the designs of this chapter and the next are those of a world without these."""
    if fact.contested or fact.made_up:
        return False
    return not 0 < fact.exposure <= TAIL


def _draw_item(fact: Fact, rng: np.random.Generator) -> Item:
    relation = tasks.default_world().relations[fact.relation]
    stated = fact.stated or fact.answers
    right = stated[rng.integers(len(stated))]
    allowed = {normalise(answer) for answer in fact.answers}
    others = [a for a in _all_answers(fact.relation) if normalise(a) not in allowed]
    # Uniformly, however often each is an answer: the choice of options must say nothing
    # about which of them is right.
    wrong = [others[i] for i in rng.permutation(len(others))[: OPTIONS - 1]]
    place = int(rng.integers(OPTIONS))
    options = (*wrong[:place], right, *wrong[place:])
    endings = [s for s in relation.statements if s.endswith(" {a}.")]
    statement = endings[rng.integers(len(endings))].removesuffix(" {a}.")
    question = relation.questions[rng.integers(len(relation.questions))]
    texts = statement.format(s=fact.subject), question.format(s=fact.subject)
    return Item(fact, *texts, options, place)


@cache
def _all_answers(relation: str) -> tuple[str, ...]:
    """Every answer to questions of a relation, each once."""
    facts = (f for f in tasks.default_world().facts if f.relation == relation)
    return tuple(dict.fromkeys(answer for f in facts for answer in f.answers))


def ask(
    model,
    tokenizer,
    items: Sequence[Item],
    form: Literal["statement", "question"] = "question",
    prefix: str = "",
    reduction: Literal["sum", "mean"] = "sum",
) -> dict:
    """The probability that a model gives to the options of each item.

    Args:
        form: "statement" lets it complete a sentence of pretraining, as a base model
            can; "question" asks in a chat.
        prefix: text before each question.
        reduction: "sum" gives an option's log-probability, "mean" the mean over its
            tokens.

    Returns:
        ``log_probs``, in nats, one row an item, and ``outside``, the mean probability
        of saying something other than the options.
    """
    chat = form == "question"
    prompts = [prefix + i.question if chat else i.statement for i in items]
    options = [[f"{o}." if chat else f" {o}." for o in i.options] for i in items]
    settings = dict(chat=chat, end=chat, reduction=reduction)
    choices = multiple_choice(model, tokenizer, prompts, options, **settings)
    return {
        "log_probs": np.round(choices.log_probs, 5).tolist(),
        "outside": float(np.mean(choices.outside)),
    }


def labels(items: Sequence[Item]) -> dict[str, list]:
    """What is true of each item, for its row: the columns of :class:`Answers` besides
    the log-probabilities."""
    numbers = {fact: n for n, fact in enumerate(dict.fromkeys(i.fact for i in items))}
    test = subjects("test")
    return {
        "right": [item.right for item in items],
        "exposure": [item.fact.exposure for item in items],
        "fact": [numbers[item.fact] for item in items],
        "test": [item.fact.subject in test for item in items],
        "relation": [item.fact.relation for item in items],
    }


# --- Answers --------------------------------------------------------------------------


class Answers(NamedTuple):
    """One model's answers to the items, and what is true of these."""

    log_probs: Float[np.ndarray, "items options"]  # nats, up to a constant a row
    right: Int[np.ndarray, "items"]  # index of the right option
    exposure: Int[np.ndarray, "items"]  # how often pretraining stated the fact
    fact: Int[np.ndarray, "items"]  # a number for each fact: items that share it
    test: Bool[np.ndarray, "items"]  # about a test subject, not one for fitting
    relation: np.ndarray  # (items,) names

    def where(self, mask: Bool[np.ndarray, "items"]) -> "Answers":
        """Only the items of a mask, or of indices."""
        return Answers(*(column[mask] for column in self))

    @property
    def probabilities(self) -> Float[np.ndarray, "items options"]:
        """Among the options; rows sum to 1."""
        return softmax(self.log_probs, axis=1)

    @property
    def top_label(
        self,
    ) -> tuple[Float[np.ndarray, "items"], Float[np.ndarray, "items"]]:
        """Confidence in the likeliest option, and whether it is right (0 or 1)."""
        return top_label(self.probabilities, self.right)

    @property
    def gap(self) -> float:
        """Mean confidence minus accuracy: above 0 is over-confident."""
        confidence, correct = self.top_label
        return float(confidence.mean() - correct.mean())


def read_answers(row: Mapping, column: str = "log_probs") -> Answers:
    """The answers in an arm's row.

    Args:
        row: with the columns of :func:`labels`.
        column: its log-probabilities; the rows of SFT also have "statement" and "mean".
            They are divided by the ``temperature`` at which a policy was tuned.
    """
    log_probs = np.array(row[column], float) / row.get("temperature", 1.0)
    return Answers(log_probs, *(np.array(row[name]) for name in Answers._fields[1:]))


def bin_count(n: int) -> int:
    """15 bins of equal mass, fewer where some would hold fewer than four items."""
    return max(1, min(15, n // 4))


# --- Policies -------------------------------------------------------------------------

KINDS = ("reward", "answers", "dpo")
DPO_BETA = 0.1
JUDGED_BETA = 0.2  # the beta that the claims are about


def tuned_policy(
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
        n_examples, sft_steps: as for ``sft_policy``.
        kind: "reward" is policy gradient on a reward of 1 for the right option;
            "answers" cross-entropy on the same items; "dpo" right over wrong answers.
        beta: for "reward" and "dpo"; higher keeps closer to the policy before.
        steps: optimizer steps, on a batch of items each.
        calibrated: for "reward" and "answers", let the policy choose among options at
            its :func:`fitted_temperature` while it learns.
        limit: as for :func:`draw_items`.

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
        items = draw_items(("train",), 1, seed, limit)
        options = dict(size=size, steps=steps, seed=seed)
        if calibrated and kind != "dpo":
            options["temperature"] = fitted_temperature(policy, tokenizer, seed, limit)
        reference = ask(policy, tokenizer, items)["log_probs"]
        if kind == "dpo":
            tune_on_pairs(policy, tokenizer, items, reference, beta=beta, **options)
        else:
            reward = partial(reward_loss, beta=beta)
            loss = reward if kind == "reward" else answer_loss
            tune_on_options(policy, tokenizer, items, reference, loss, **options)
        save_model(policy, tokenizer, folder)

    key = dict(seed=seed, size=size, n=n_examples, sft=sft_steps, kind=kind, beta=beta)
    key |= dict(steps=steps, calibrated=calibrated, limit=limit, base=weights_hash())
    return load_model(artifact("options", build, key=key))


def fitted_temperature(policy, tokenizer, seed: int, limit: int = 0) -> float:
    """The temperature at which a policy's choice among options is calibrated, fitted on
    the subjects for that."""
    items = draw_items(("calibration",), 1, seed, limit)
    log_probs = ask(policy, tokenizer, items)["log_probs"]
    right = [item.right for item in items]
    return TemperatureScaler().fit(log_probs, right).temperature_


# --- Arms -----------------------------------------------------------------------------


def sft_arm(
    *,
    seed: int,
    draws: int,
    size: str,
    n_examples: int,
    sft_steps: int,
    limit: int = 0,
) -> dict:
    """The instruction-tuned policy of a seed on the held-out items: :func:`ask` and
    :func:`labels`; ``statement``, the log-probabilities when it completes the sentences
    that the base model completes; and ``mean``, those per token.

    Args:
        seed, draws, limit: as for :func:`draw_items`; the seed also of the policy.
        size, n_examples, sft_steps: as for :func:`tuned_policy`.
    """
    policy, tokenizer = tuned_policy(
        seed=seed, size=size, n_examples=n_examples, sft_steps=sft_steps
    )
    items = draw_items(HELD_OUT, draws, seed, limit)
    statement = ask(policy, tokenizer, items, "statement")["log_probs"]
    mean = ask(policy, tokenizer, items, reduction="mean")["log_probs"]
    others = {"statement": statement, "mean": mean}
    return ask(policy, tokenizer, items) | others | labels(items)


def tuned_arm(*, seed: int, draws: int, limit: int = 0, size: str, **recipe) -> dict:
    """A policy of :func:`tuned_policy` on the same items: :func:`ask`, :func:`labels`,
    and the ``temperature`` at which it was tuned, 1 unless it was ``calibrated``."""
    policy, tokenizer = tuned_policy(seed=seed, size=size, limit=limit, **recipe)
    items = draw_items(HELD_OUT, draws, seed, limit)
    temperature = 1.0
    if recipe.get("calibrated"):
        sft = {name: recipe[name] for name in ("n_examples", "sft_steps")}
        start = tuned_policy(seed=seed, size=size, **sft)
        temperature = fitted_temperature(*start, seed, limit)
    return ask(policy, tokenizer, items) | labels(items) | {"temperature": temperature}


def tuned_stages(
    *,
    seeds: Sequence[int],
    betas: Sequence[float],
    calibrated: bool = False,
    steps: int,
    jobs: int,
    **common,
) -> dict[str, list[dict]]:
    """Rows of every stage from instruction tuning on, a row a seed.

    Args:
        seeds: of SFT, of what follows, and of the items.
        betas: of the reward; higher keeps closer to SFT.
        calibrated: also tune by the reward from a policy that is calibrated.
        steps: optimizer steps after SFT.
        jobs: arms at a time.
        common: ``draws``, ``limit``, ``size``, ``n_examples`` and ``sft_steps``.

    Returns:
        "SFT", "reward 0.2" (and other betas), "DPO", "cross-entropy" (the control) and,
        if asked for, "calibrated, reward 0.2" (and other betas).
    """
    recipes = {f"reward {b:g}": dict(kind="reward", beta=b) for b in betas}
    recipes["DPO"] = dict(kind="dpo", beta=DPO_BETA)
    recipes["cross-entropy"] = dict(kind="answers")
    for beta in betas if calibrated else ():
        recipe = dict(kind="reward", beta=beta, calibrated=True)
        recipes[f"calibrated, reward {beta:g}"] = recipe
    # First what the others start from, then side by side what takes longest.
    sft = [(sft_arm, dict(seed=s, **common)) for s in seeds]
    run_each(sft, jobs=jobs, label="instruction tuning")
    calls = {
        name: [
            (tuned_arm, dict(seed=s, steps=steps, **recipe, **common)) for s in seeds
        ]
        for name, recipe in recipes.items()
    }
    return run_groups(calls | {"SFT": sft}, jobs=jobs, label="stages")
