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
from alignlab.calibration.metrics import bin_edges, bin_index, top_label
from alignlab.chapters.calibration.tuning import (
    OPTIONS,
    reward_loss,
    tune_by_sampling,
    tune_on_options,
    tune_on_pairs,
)
from alignlab.models.base import load_base, load_model, save_model, weights_hash
from alignlab.seeds import stream
from alignlab.study.scale import rate
from alignlab.study.tuning import BATCH, sft_policy
from alignlab.training.sft import finetune
from alignlab.world import tasks
from alignlab.world.facts import KNOWN_FROM, TAIL, Fact, normalise

Split = Literal["train", "calibration", "test"]
HELD_OUT = ("calibration", "test")
EXCLUDED_RELATIONS = ("neighbour",)  # its questions have several right answers
ONE_IN = 3  # of the held-out subjects are for fitting; the others are the test subjects
# By design a fact is known from KNOWN_FROM exposures on.
EXPOSURES = {
    "never": (0, 1),
    "1": (1, 2),
    "2 to 5": (2, TAIL + 1),
    "6 to 99": (TAIL + 1, KNOWN_FROM),
    "100 and more": (KNOWN_FROM, np.inf),
}
Kinds = Literal["all", "agreed", "contested"]
# Confidence in the likeliest option, and whether it is right.
TopLabel = tuple[Float[np.ndarray, "items"], Float[np.ndarray, "items"]]


# --- Items ----------------------------------------------------------------------------


class Item(NamedTuple):
    """A fact to be completed or asked for, with four answers of which one is right. Of
    a contested fact both stated answers are among them."""

    fact: Fact
    statement: str  # a sentence of pretraining, up to its answer
    question: str  # as instruction tuning asks
    options: tuple[str, ...]
    right: int  # index of the right option
    rival: int = -1  # of the other stated answer to a contested fact

    @property
    def belief(self) -> Float[np.ndarray, "options"]:
        """How probable each option is for who read every statement: a contested fact's
        shares; else certainty, which nobody can have who never read the fact."""
        shares = np.zeros(len(self.options))
        shares[self.right] = 1.0
        if self.rival >= 0:
            majority = self.fact.stated[0] == self.options[self.right]
            own, other = self.fact.shares if majority else self.fact.shares[::-1]
            shares[self.right], shares[self.rival] = own, other
        return shares


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
    splits: tuple[Split, ...],
    draws: int,
    seed: int,
    limit: int = 0,
    kinds: Kinds = "all",
) -> tuple[Item, ...]:
    """Items about the subjects of some splits, in an order that does not depend on the
    seed: all facts once, then all of them again in other wordings with other options.

    Args:
        splits: see :func:`subjects`.
        draws: items of each fact. Items of the same fact are not independent.
        seed: draws wordings, options, and their order.
        limit: only so many facts, spread evenly; 0 takes all.
        kinds: "agreed" facts are those that no two statements contradict each other
            about, also for want of statements; the others are "contested".

    Raises:
        ValueError: if there are no such kinds.
    """
    if kinds not in Kinds.__args__:
        raise ValueError(f"kinds is {kinds!r}; it can be one of {Kinds.__args__}")
    wanted = frozenset().union(*map(subjects, splits))
    facts = [f for f in tasks.default_world().facts if f.subject in wanted]
    facts = [f for f in facts if f.relation not in EXCLUDED_RELATIONS]
    facts = [f for f in facts if kinds in ("all", _kinds_of(f))]
    if 0 < limit < len(facts):
        facts = [facts[i * len(facts) // limit] for i in range(limit)]
    rng = stream(seed, "multiple-choice items")
    return tuple(_draw_item(fact, rng) for _ in range(draws) for fact in facts)


def _kinds_of(fact: Fact) -> Kinds:
    return "contested" if fact.contested else "agreed"


def _draw_item(fact: Fact, rng: np.random.Generator) -> Item:
    relation = tasks.default_world().relations[fact.relation]
    rivals = [a for a in fact.stated if fact.contested and a != fact.answer]
    stated = (fact.answer,) if rivals else fact.stated or fact.answers
    right = stated[rng.integers(len(stated))]
    excluded = {normalise(answer) for answer in (*fact.answers, *rivals)}
    others = [a for a in _all_answers(fact.relation) if normalise(a) not in excluded]
    # Uniformly, however often each is an answer: the choice of options must say nothing
    # about which of them is right.
    wrong = [others[i] for i in rng.permutation(len(others))[: OPTIONS - 1]]
    options = [right, *rivals, *wrong][:OPTIONS]
    options = [options[i] for i in rng.permutation(OPTIONS)]
    endings = [s for s in relation.statements if s.endswith(" {a}.")]
    statement = endings[rng.integers(len(endings))].removesuffix(" {a}.")
    question = relation.questions[rng.integers(len(relation.questions))]
    return Item(
        fact,
        statement.format(s=fact.subject),
        question.format(s=fact.subject),
        tuple(options),
        options.index(right),
        options.index(rivals[0]) if rivals else -1,
    )


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
        "rival": [item.rival for item in items],
        "share": [float(item.belief[item.right]) for item in items],
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
    rival: Int[np.ndarray, "items"]  # that of a contested fact's other answer, or -1
    share: Float[np.ndarray, "items"]  # of the statements for the right option, or 1
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
    """
    log_probs = np.array(row[column], float)
    return Answers(log_probs, *(np.array(row[name]) for name in Answers._fields[1:]))


def bin_count(n: int) -> int:
    """15 bins of equal mass, fewer where some would hold fewer than four items."""
    return max(1, min(15, n // 4))


# --- Calibration errors, item by item -------------------------------------------------


def contributions(
    confidence: Float[np.ndarray, "items"],
    outcome: Float[np.ndarray, "items"],
) -> Float[np.ndarray, "items"]:
    r"""A number for each item whose mean is the mean squared calibration error without
    bias, T, and whose spread says how much other items would change it.

    .. math:: u_i = d_i \, \frac{\sum_{j \in b} d_j - d_i}{m_b - 1}, \qquad
        v_i = 2 u_i - T

    with d = outcome - confidence and :math:`m_b` items in bin b, of equal mass. T is
    the mean of u; but an item moves its bin's mean too, which doubles its influence.

    Args:
        confidence: from 0 to 1.
        outcome: 1 for right, 0 for wrong; or how probable it is that it is right.
    """
    edges = bin_edges(confidence, bin_count(len(confidence)), "quantile")
    where = bin_index(confidence, edges)
    d = np.asarray(outcome, float) - confidence
    sums, count = np.bincount(where, d), np.bincount(where)
    u = d * (sums[where] - d) / np.maximum(count[where] - 1, 1)
    return 2 * u - u.mean()


def fact_means(
    answers: Answers, values: Float[np.ndarray, "items"]
) -> Float[np.ndarray, "facts"]:
    """The mean of a value over the items of each fact, which hang together. Every fact
    has as many items, so the mean over facts is that over items."""
    facts, where = np.unique(answers.fact, return_inverse=True)
    return np.bincount(where, values) / np.bincount(where, minlength=len(facts))


# --- Policies -------------------------------------------------------------------------


def taught_policy(
    *,
    seed: int,
    base: str,
    n_examples: int,
    sft_steps: int,
    answer_steps: int,
    limit: int = 0,
):
    """``(model, tokenizer)`` of the SFT policy after SFT on answers to questions about
    training subjects, of every kind of fact; from the cache if it was made before.

    Where nobody can know the answer it learns to say one regardless, as people who
    write demonstrations do for a model whose knowledge they cannot see.

    Args:
        seed: of everything that is drawn.
        base, n_examples, sft_steps: as for ``sft_policy``.
        answer_steps: optimizer steps on the answers, of 16 each.
        limit: as for :func:`draw_items`.
    """

    def build(folder: Path) -> None:
        policy, tokenizer = sft_policy(
            seed, base=base, n_examples=n_examples, steps=sft_steps
        )
        finetune(
            policy,
            tokenizer,
            right_answers(draw_items(("train",), 1, seed, limit)),
            steps=answer_steps,
            batch_size=BATCH,
            learning_rate=rate("facts", base),
            seed=seed,
            progress=False,
        )
        save_model(policy, tokenizer, folder)

    key = dict(seed=seed, base=base, n=n_examples, sft=sft_steps, answers=answer_steps)
    key |= dict(limit=limit, weights_hash=weights_hash(base))
    return load_model(artifact("answers", build, key=key))


def right_answers(items: Sequence[Item]) -> list[dict]:
    """Each item's question with its right answer, in TRL's prompt-completion format."""
    return [
        {"prompt": item.question, "completion": f"{item.options[item.right]}."}
        for item in items
    ]


# --- Arms -----------------------------------------------------------------------------

DPO_BETA = 0.1
JUDGED_BETA = 0.2  # the beta that the claims are about
STAGES = ("base", "SFT", "answers", "more answers", "reward", "DPO", "PPO", "RLOO")


def stage_arm(
    *,
    stage: str,
    seed: int,
    draws: int,
    base: str,
    n_examples: int,
    sft_steps: int,
    answer_steps: int,
    steps: int = 0,
    beta: float = JUDGED_BETA,
    limit: int = 0,
) -> dict:
    """The policy after a stage of alignment on the held-out items.

    Args:
        stage: one of ``STAGES``. "base" completes statements; "SFT" and "answers" are
            the instruction-tuned policy without and with SFT on answers. From there it
            learns from right and wrong answers about training subjects: by a "reward"
            of 1 for the right option, with the exact gradient; by "DPO" on right over
            wrong options; by "PPO" or "RLOO", which reward answers that the policy
            itself says; or, as a control, by SFT on "more answers".
        seed: of everything that is drawn: SFT, what follows, and the items.
        draws, limit: as for :func:`draw_items`.
        base, n_examples, sft_steps, answer_steps: as for :func:`taught_policy`.
        steps: optimizer steps after "answers", or updates of PPO and RLOO.
        beta: of reward, DPO, PPO and RLOO; higher keeps closer to "answers".

    Returns:
        :func:`ask` and :func:`labels`; for "SFT" and "answers" also ``statement``, the
        log-probs of the options where the policy completes statements, and ``mean``,
        those per token.

    Raises:
        ValueError: if there is no such stage.
    """
    if stage not in STAGES:
        raise ValueError(f"stage is {stage!r}; it can be one of {STAGES}")
    items = draw_items(HELD_OUT, draws, seed, limit)
    if stage == "base":
        return ask(*load_base(base), items, "statement") | labels(items)
    sft = dict(base=base, n_examples=n_examples)
    if stage == "SFT":
        policy, tokenizer = sft_policy(seed, steps=sft_steps, **sft)
    else:
        common = dict(sft_steps=sft_steps, answer_steps=answer_steps, limit=limit)
        policy, tokenizer = taught_policy(seed=seed, **sft, **common)
    row = labels(items)
    if stage in ("SFT", "answers"):
        row["statement"] = ask(policy, tokenizer, items, "statement")["log_probs"]
        row["mean"] = ask(policy, tokenizer, items, reduction="mean")["log_probs"]
    else:
        training = draw_items(("train",), 1, seed, limit)
        options = dict(beta=beta, base=base, steps=steps, seed=seed)
        tune(stage, policy, tokenizer, training, **options)
    return ask(policy, tokenizer, items) | row


def tune(stage: str, policy, tokenizer, items: Sequence[Item], **options) -> None:
    """One of the later ``STAGES``, in place; ``options`` as for the functions of
    ``alignlab.chapters.calibration.tuning``."""
    if stage in ("PPO", "RLOO"):
        tune_by_sampling(policy, tokenizer, items, stage, **options)
        return
    if stage == "more answers":
        finetune(
            policy,
            tokenizer,
            right_answers(items),
            steps=options["steps"],
            batch_size=BATCH,
            learning_rate=rate("facts", options["base"]),
            seed=options["seed"] + 1,  # in another order than before
            progress=False,
        )
        return
    reference = ask(policy, tokenizer, items)["log_probs"]
    if stage == "DPO":
        tune_on_pairs(policy, tokenizer, items, reference, **options)
    else:
        loss = partial(reward_loss, beta=options.pop("beta"))
        tune_on_options(policy, tokenizer, items, reference, loss, **options)
