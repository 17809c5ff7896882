"""What carries over: SFT from one of the pretrained models, and how often the right
option is the likeliest, in families never trained and in wordings never trained.

Three models of the smaller size were pretrained with seeds of their own. An arm starts
from that of its seed, so that intervals over seeds hold for pretraining as well.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from alignlab.chapters.instruction_tuning.choices import (
    Question,
    chance,
    choice_questions,
    probabilities,
    summary,
    under_another,
    with_options,
)
from alignlab.evaluation import answers
from alignlab.models.base import pretraining_seeds
from alignlab.models.positions import completion_log_probs
from alignlab.seeds import stream
from alignlab.study.scale import rate, trainable_base
from alignlab.study.tuning import BATCH, TEST_SEED, reply
from alignlab.training import sft
from alignlab.training.loop import train
from alignlab.world import tasks
from alignlab.world.tasks import Example

# --- Training -------------------------------------------------------------------------


def base_of(base: str, seed: int):
    """``(model, tokenizer)`` pretrained with one of the shipped seeds: 0, 1, 2 and from
    the start again."""
    shipped = pretraining_seeds(base)
    return trainable_base(base, seed=shipped[seed % len(shipped)])


def balanced_step(model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict]:
    """The mean loss over the reply plus the mean over the prompt, in nats per token.

    One mean over all tokens gives the reply the share of its length, here about a fifth
    of the gradient. Here that part of the gradient is exactly the gradient of the loss
    on the reply alone, and the prompt's is added.
    """
    ids, real, mask = batch["input_ids"], batch["attention_mask"], batch["mask"]
    log_probs = completion_log_probs(model, ids, real, real)  # (B, T-1)
    replies = mask[:, 1:]
    prompts = real[:, 1:] - replies
    parts = (-(log_probs * part).sum() / part.sum() for part in (replies, prompts))
    return sum(parts), {}


# What is marked as learnt, and the loss of a batch.
LOSSES = {
    "completion": ("completion", sft.sft_step),
    "all": ("all", sft.sft_step),
    "balanced": ("completion", balanced_step),
}


def tuned(
    examples: Sequence[Example],
    *,
    base: str,
    steps: int,
    seed: int,
    loss_on: str = "completion",
):
    """``(model, tokenizer)`` of :func:`base_of` after SFT on the examples.

    Args:
        steps: of 16 examples each; more of them fit the examples more closely.
        loss_on: a key of ``LOSSES``.
    """
    model, tokenizer = base_of(base, seed)
    marked, step = LOSSES[loss_on]
    rows = [{"prompt": e.prompt, "completion": e.completion} for e in examples]
    encoded = sft.encode(tokenizer, rows, marked)
    train(
        model,
        sft.batches(encoded, BATCH, seed, tokenizer.pad_token_id),
        step,
        steps=steps,
        learning_rate=rate("tasks", base),
        seed=seed,
        progress=False,
    )
    return model, tokenizer


def mask_arm(
    *, seed: int, loss_on: str, base: str, n_examples: int, steps: int, n_test: int
) -> dict:
    """SFT on the mixture with the loss in one place, then test questions of the trained
    families.

    Args:
        seed: of pretraining, mixture and order.
        loss_on: "completion", "all", or "balanced", see :func:`balanced_step`.
        base, n_examples, steps: of the base model, the mixture and the training.
        n_test: questions per family.

    Returns:
        ``accuracy`` and ``format`` of sampled replies; ``items``, 1 for each right one
        and else 0; and ``reply_loss``, the loss on the test replies in nats per token.
    """
    mixed = tasks.mixture(n_examples, seed=seed)
    model, tokenizer = tuned(mixed, base=base, steps=steps, seed=seed, loss_on=loss_on)
    questions = [
        example
        for family in tasks.trained_families()
        for example in tasks.examples(family, n_test, split="test", seed=TEST_SEED)
    ]
    scores = answers.score(questions, reply(model, tokenizer, questions))
    return {
        "accuracy": float(scores["correct"].mean()),
        "format": float(scores["formatted"].mean()),
        "items": scores["correct"].astype(float).tolist(),
        "reply_loss": reply_loss(model, tokenizer, questions),
    }


@torch.no_grad()
def reply_loss(model, tokenizer, examples: Sequence[Example]) -> float:
    """Loss on the examples' replies, in nats per token."""
    rows = [{"prompt": e.prompt, "completion": e.completion} for e in examples]
    encoded = sft.encode(tokenizer, rows)
    total, count = 0.0, 0
    for at in range(0, len(encoded), 64):
        batch = sft.collate(encoded[at : at + 64], tokenizer.pad_token_id)
        batch = {name: x.to(model.device) for name, x in batch.items()}
        total -= float(completion_log_probs(model, **batch).sum())
        count += int(batch["mask"][:, 1:].sum())
    return total / count


# --- Choosing among options -----------------------------------------------------------


def transfer_arm(
    *,
    seed: int,
    base: str,
    families: Sequence[str] | None,
    n_examples: int,
    steps: int,
    weights: str,
    n_test: int,
    n_wording_test: int = 0,
) -> dict:
    """SFT on some families, then the options of families never trained.

    Args:
        seed: of pretraining, mixture and order.
        families: to train on; None takes all but the held-out ones.
        n_examples, steps, weights: of the mixture and the training.
        n_test: questions per family.
        n_wording_test: questions per wording of each trained family; 0 asks none.

    Returns:
        As :func:`chosen`.
    """
    mixed = tasks.mixture(n_examples, families=families, weights=weights, seed=seed)
    model, tokenizer = tuned(mixed, base=base, steps=steps, seed=seed)
    return chosen(model, tokenizer, n_test, n_wording_test)


def untuned_choices_arm(
    *, seed: int, base: str, shots: int, n_test: int, n_wording_test: int = 0
) -> dict:
    """The same options to the base model, which reads the question as plain text.

    Args:
        seed: of pretraining, and of the worked examples.
        shots: worked examples of the same family before each question.
        n_test, n_wording_test: as in :func:`transfer_arm`.

    Returns:
        As :func:`chosen`.
    """
    model, tokenizer = base_of(base, seed)
    if not shots:
        return chosen(model, tokenizer, n_test, n_wording_test, chat=False)
    questions = choice_questions(tasks.held_out_families(), n_test, TEST_SEED)
    prompts = [
        answers.few_shot_prompt(
            tasks.examples(q.example.family, shots, seed=seed),
            q.example,
            tokenizer=tokenizer,
        )
        for q in questions
    ]
    scored = probabilities(model, tokenizer, questions, chat=False, prompts=prompts)
    return summary(questions, scored)


def chosen(
    model, tokenizer, n_test: int, n_wording_test: int, chat: bool = True
) -> dict:
    """Scores of a model on the held-out families.

    Returns:
        What :func:`choices.summary` returns; ``other_items``, the items where the
        options stand under another question of their family; and, if wordings are
        asked, ``wordings``: for each trained family the mean probability of the right
        option in each wording, and ``wording_accuracy``, the mean over families and
        wordings of how often the likeliest option is right.
    """
    questions = choice_questions(tasks.held_out_families(), n_test, TEST_SEED)
    result = summary(questions, probabilities(model, tokenizer, questions, chat=chat))
    others = under_another(questions)
    swapped = summary(others, probabilities(model, tokenizer, others, chat=chat))
    result["other_items"] = swapped["items"]
    if n_wording_test:
        result |= _over_wordings(model, tokenizer, n_wording_test, chat)
    return result


def _over_wordings(model, tokenizer, n: int, chat: bool) -> dict:
    asked = {name: in_every_wording(name, n) for name in tasks.trained_families()}
    flat = [q for wordings in asked.values() for own in wordings for q in own]
    scored = iter(probabilities(model, tokenizer, flat, chat=chat).tolist())
    tables = {
        name: np.array([[next(scored) for _ in own] for own in wordings])
        for name, wordings in asked.items()
        if any(wordings)  # a model may know none of the facts that a family asks for
    }  # (wordings, questions, 2)
    right = [table[:, :, 1].mean() for table in tables.values()]
    return {
        "wordings": {
            name: table[:, :, 0].mean(1).tolist() for name, table in tables.items()
        },
        "wording_accuracy": float(np.mean(right)),
    }


def in_every_wording(family: str, n: int) -> list[list[Question]]:
    """Up to n test questions in each wording of a family, the trained ones first: the
    same inputs with the same options."""
    about = tasks.FAMILIES[family]
    count = len(about.instructions + about.held_out_instructions)
    asked = [
        tasks.examples(family, n, split="test", phrasing=number, seed=TEST_SEED)
        for number in range(count)
    ]
    options = [with_options(e, TEST_SEED).options for e in asked[0]]
    return [list(map(Question, own, options)) for own in asked]


def held_out_chance(n_test: int) -> dict[str, float]:
    """The accuracy of a guess in each held-out family."""
    return chance(choice_questions(tasks.held_out_families(), n_test, TEST_SEED))


# --- Which families -------------------------------------------------------------------


def draw_families(k: int, seed: int) -> list[str]:
    """k of the trained families, at most all of them. For one seed, a larger k adds
    families to those of a smaller one."""
    names = list(tasks.trained_families())
    order = stream(seed, "drawn families").permutation(len(names))
    return [names[i] for i in order[:k]]


def draw_large_family(seed: int, least: int) -> str:
    """One trained family with at least so many distinct examples."""
    sizes = tasks.sizes(tasks.trained_families())
    large = [name for name, size in sizes.items() if size >= least]
    return large[stream(seed, "drawn large family").integers(len(large))]
