"""The arms of notebook 08, on the items of notebook 07: models trained for calibration,
several models in place of one, and policies that are asked how sure they are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from alignlab.calibration.elicitation import IS_IT_TRUE, bank_confidence, p_true
from alignlab.calibration.ensembles import dropout, mc_dropout
from alignlab.calibration.training import loss_step, mixup_step
from alignlab.chapters.calibration.artifacts import (
    HELD_OUT,
    Item,
    ask,
    draw_items,
    labels,
    tuned_policy,
)
from alignlab.models.base import load_base
from alignlab.objectives.calibration import (
    focal_loss,
    label_smoothing_loss,
    task_and_brier_loss,
)
from alignlab.study.arms import run_each, run_groups
from alignlab.study.tuning import BATCH, LEARNING_RATE
from alignlab.training.loop import train
from alignlab.training.sft import batches, encode, finetune, sft_step

STEPS: Mapping[str, Callable] = {
    "cross-entropy": sft_step,
    "focal": loss_step(partial(focal_loss, gamma=2.0)),
    "label smoothing": loss_step(partial(label_smoothing_loss, label_smoothing=0.1)),
    "mixup": mixup_step(alpha=0.2),
    "task and Brier": loss_step(partial(task_and_brier_loss, brier_weight=1.0)),
}
MEMBERS = 5
DROPOUT = 0.1
SEED_STRIDE = 1000  # from one member's seed to the next one's
# The control prompt, and the two ways to ask about an answer.
CARE = "Be careful to be right. "
HOW_SURE = "{question} Proposed answer: {answer} How sure is that, from 0 to 9?"
VERDICTS = ("True.", "False.")
SURE, UNSURE = "9.", "0."


# --- Losses, and several models -------------------------------------------------------


def train_on_answers(
    *,
    loss: str = "cross-entropy",
    seed: int,
    size: str,
    steps: int,
    rate: float = 0.0,
    limit: int = 0,
):
    """A base model trained to answer questions about training subjects, also those
    whose facts it never read: ``(model, tokenizer)``.

    Args:
        loss: one of ``STEPS``.
        seed: of the order of the examples, and of dropout.
        size: of the base model.
        steps: optimizer steps, on 16 examples each.
        rate: of dropout while training; higher drops more, 0 is none.
        limit: as for ``artifacts.draw_items``.

    Raises:
        ValueError: if there is no such loss.
    """
    if loss not in STEPS:
        raise ValueError(f"loss is {loss!r}; it can be one of {tuple(STEPS)}")
    model, tokenizer = load_base(size)
    items = draw_items(("train",), 1, 0, limit)  # the same examples for all
    examples = encode_answers(tokenizer, items)
    with dropout(model, rate):
        train(
            model,
            batches(examples, BATCH, seed, tokenizer.pad_token_id),
            STEPS[loss],
            steps=steps,
            learning_rate=LEARNING_RATE[size],
            seed=seed,
            progress=False,
        )
    return model, tokenizer


def encode_answers(tokenizer, items: Sequence[Item]) -> list:
    """Each item's question with its right answer, in tokens."""
    return encode(
        tokenizer,
        [
            {"prompt": item.question, "completion": f"{item.options[item.right]}."}
            for item in items
        ],
    )


def loss_arm(
    *, seed: int, item_seed: int, draws: int, limit: int = 0, **recipe
) -> dict:
    """A model of :func:`train_on_answers` on the held-out items: ``artifacts.ask`` and
    ``artifacts.labels``.

    Args:
        seed: of the training.
        item_seed: of the items, so that several models can be asked the same ones.
        draws, limit: as for ``artifacts.draw_items``.
        recipe: the other arguments of :func:`train_on_answers`.
    """
    model, tokenizer = train_on_answers(seed=seed, limit=limit, **recipe)
    items = draw_items(HELD_OUT, draws, item_seed, limit)
    return ask(model, tokenizer, items) | labels(items)


def dropout_arm(
    *, seed: int, draws: int, limit: int = 0, size: str, steps: int
) -> dict:
    """A model trained with dropout: ``artifacts.ask`` without it, ``artifacts.labels``,
    and ``passes``, the log-probabilities of the options in ``MEMBERS`` passes with
    dropout, (passes, items, options).
    """
    model, tokenizer = train_on_answers(
        seed=seed, size=size, steps=steps, rate=DROPOUT, limit=limit
    )
    items = draw_items(HELD_OUT, draws, seed, limit)

    def predict(model) -> np.ndarray:
        return np.array(ask(model, tokenizer, items)["log_probs"])

    passes = mc_dropout(model, predict, n_passes=MEMBERS, rate=DROPOUT, seed=seed)
    return ask(model, tokenizer, items) | labels(items) | {"passes": passes.tolist()}


# --- Asking how sure it is ------------------------------------------------------------


def prompt_arm(
    *, seed: int, draws: int, limit: int = 0, size: str, teach_steps: int, **recipe
) -> dict:
    """The policy tuned by reward, asked in several ways how sure it is of its answers.

    Args:
        seed, draws, limit: as for ``artifacts.draw_items``; the policy's seed is the
            same.
        size: of the base model.
        teach_steps: optimizer steps, on 16 examples each, that teach the two formats.
        recipe: the other arguments of ``artifacts.tuned_policy``.

    Returns:
        ``artifacts.labels``; ``log_probs`` of the options as the policy has them;
        ``careful``, those after a control prompt; and, as confidences in the likeliest
        option, ``p_true`` and ``verbal`` after teaching, ``p_true_untaught`` and
        ``verbal_untaught`` before it.
    """
    policy, tokenizer = tuned_policy(
        seed=seed, size=size, kind="reward", limit=limit, **recipe
    )
    items = draw_items(HELD_OUT, draws, seed, limit)
    own = ask(policy, tokenizer, items)["log_probs"]
    careful = ask(policy, tokenizer, items, prefix=CARE)["log_probs"]
    untaught = elicit_confidence(policy, tokenizer, items, own)
    training_items = draw_items(("train",), 1, seed, limit)
    teach_formats(policy, tokenizer, training_items, size, teach_steps, seed)
    taught = elicit_confidence(policy, tokenizer, items, own)
    return {
        "log_probs": own,
        "careful": careful,
        **labels(items),
        **{name: values.tolist() for name, values in taught.items()},
        **{f"{name}_untaught": values.tolist() for name, values in untaught.items()},
    }


def elicit_confidence(
    policy, tokenizer, items: Sequence[Item], log_probs
) -> dict[str, np.ndarray]:
    """P(True) and the digit's confidence for the likeliest option of each item."""
    proposals = list(proposed_answers(items, log_probs))
    questions, answers, _ = zip(*proposals)
    true = p_true(policy, tokenizer, questions, answers, words=VERDICTS, chat=True)
    prompts = [HOW_SURE.format(question=q, answer=a) for q, a, _ in proposals]
    digit = bank_confidence(policy, tokenizer, prompts)
    return {"p_true": true.confidence, "verbal": digit.confidence}


def teach_formats(
    policy, tokenizer, items: Sequence[Item], size: str, steps: int, seed: int
) -> None:
    """Teach both formats, in place, on the policy's own answers: True or False, and 9
    or 0. The confidence it then gives is how often it saw similar answers be right."""
    log_probs = ask(policy, tokenizer, items)["log_probs"]
    examples = []
    for question, answer, right in proposed_answers(items, log_probs):
        fields = dict(question=question, answer=answer)
        replies = {IS_IT_TRUE: VERDICTS[not right], HOW_SURE: SURE if right else UNSURE}
        examples += [
            {"prompt": template.format(**fields), "completion": reply}
            for template, reply in replies.items()
        ]
    finetune(
        policy,
        tokenizer,
        examples,
        steps=steps,
        batch_size=BATCH,
        learning_rate=LEARNING_RATE[size],
        seed=seed,
        progress=False,
    )


def proposed_answers(
    items: Sequence[Item], log_probs
) -> Iterator[tuple[str, str, bool]]:
    """Question, likeliest option, and whether it is right, of each item."""
    for item, row in zip(items, log_probs, strict=True):
        chosen = int(np.argmax(row))
        yield item.question, f"{item.options[chosen]}.", chosen == item.right


# --- Sweeps ---------------------------------------------------------------------------


def models(
    *, seeds: Sequence[int], losses: Sequence[str], jobs: int, **common
) -> dict[str, list]:
    """Rows of all models that notebook 08 trains, by what they are; a row a seed.

    Args:
        seeds: of the first model of each kind, and of the items.
        losses: of ``STEPS``; cross-entropy is trained in any case.
        jobs: arms at a time.
        common: ``draws``, ``limit``, ``size`` and ``steps``.

    Returns:
        The losses by name; "members", for each seed the rows of ``MEMBERS`` models by
        cross-entropy; "single", with as many steps as these together; "dropout".
    """
    losses = tuple(dict.fromkeys(("cross-entropy", *losses)))
    long = common | {"steps": MEMBERS * common["steps"]}
    calls = {"single": [(loss_arm, dict(seed=s, item_seed=s, **long)) for s in seeds]}
    calls["dropout"] = [(dropout_arm, dict(seed=s, **common)) for s in seeds]
    for loss in losses:
        calls[loss] = [
            (loss_arm, dict(loss=loss, seed=s, item_seed=s, **common)) for s in seeds
        ]
    calls["members"] = [
        (
            loss_arm,
            dict(loss=losses[0], seed=s + SEED_STRIDE * m, item_seed=s, **common),
        )
        for s in seeds
        for m in range(MEMBERS)
    ]
    rows = run_groups(calls, jobs=jobs, label="models")
    flat = rows["members"]
    rows["members"] = [flat[i : i + MEMBERS] for i in range(0, len(flat), MEMBERS)]
    return rows


def prompts(*, seeds: Sequence[int], jobs: int, **common) -> list[dict]:
    """Rows of :func:`prompt_arm`, one a seed."""
    calls = [(prompt_arm, dict(seed=s, **common)) for s in seeds]
    return run_each(calls, jobs=jobs, label="how sure?")
