"""The arms of notebook 08: models trained for calibration, several models in place of
one, and policies that are asked how sure they are.

They answer the items of notebook 07; what the answers are worth is worked out in
``recalibration_analysis``.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np

from alignlab.calibration.elicitation import IS_IT_TRUE, bank_confidence, p_true
from alignlab.calibration.ensembles import dropout, mc_dropout
from alignlab.calibration.training import loss_step, mixup_step
from alignlab.chapters.calibration.runs import Item, ask, items, tuned
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
APART = 1000  # from a member's seed to the next one's
# The control prompt, and the two ways to ask about an answer that was given.
CARE = "Be careful to be right. "
HOW_SURE = "{question} Proposed answer: {answer} How sure is that, from 0 to 9?"
VERDICTS = ("True.", "False.")
SURE, UNSURE = "9.", "0."


# --- Losses, and several models -------------------------------------------------------


def learn(
    *,
    loss: str = "cross-entropy",
    seed: int,
    size: str,
    steps: int,
    rate: float = 0.0,
    limit: int = 0,
):
    """A base model taught to answer questions about training subjects, those of facts
    that it never read among them: ``(model, tokenizer)``.

    Args:
        loss: one of ``STEPS``.
        seed: of the order of the examples, and of dropout.
        size: of the base model.
        steps: updates of 16 examples.
        rate: of dropout while training; 0 is none.
        limit: of ``calibration.items``.

    Raises:
        ValueError: if there is no such loss.
    """
    if loss not in STEPS:
        raise ValueError(f"loss is {loss!r}; it can be one of {tuple(STEPS)}")
    model, tokenizer = load_base(size)
    some = items(("train",), 1, 0, limit)  # the same examples for all
    data = batches(answered(tokenizer, some), BATCH, seed, tokenizer.pad_token_id)
    with dropout(model, rate):
        train(
            model,
            data,
            STEPS[loss],
            steps=steps,
            learning_rate=LEARNING_RATE[size],
            seed=seed,
            progress=False,
        )
    return model, tokenizer


def answered(tokenizer, some: Sequence[Item]) -> list:
    """Each item's question with its right answer, in tokens."""
    return encode(
        tokenizer,
        [
            {"prompt": item.question, "completion": f"{item.options[item.right]}."}
            for item in some
        ],
    )


def loss_arm(
    *, seed: int, item_seed: int, draws: int, limit: int = 0, **recipe
) -> dict:
    """A model of :func:`learn` on the held-out items: see ``calibration.ask``.

    Args:
        seed: of the training.
        item_seed: of the items, so that several models can be asked the same ones.
        draws, limit: of ``calibration.items``.
        recipe: the other arguments of :func:`learn`.
    """
    model, tokenizer = learn(seed=seed, limit=limit, **recipe)
    return ask(
        model, tokenizer, items(("calibration", "test"), draws, item_seed, limit)
    )


def dropout_arm(
    *, seed: int, draws: int, limit: int = 0, size: str, steps: int
) -> dict:
    """A model trained with dropout: :func:`ask` without it, and ``passes``, the
    log-probabilities of the options in ``MEMBERS`` passes with it, (passes, items, K).
    """
    model, tokenizer = learn(
        seed=seed, size=size, steps=steps, rate=DROPOUT, limit=limit
    )
    some = items(("calibration", "test"), draws, seed, limit)

    def predict(model) -> np.ndarray:
        return np.array(ask(model, tokenizer, some)["log_probs"])

    passes = mc_dropout(model, predict, n_passes=MEMBERS, rate=DROPOUT, seed=seed)
    plain = ask(model, tokenizer, some)
    return plain | {"passes": passes.tolist()}


# --- Asking how sure it is ------------------------------------------------------------


def prompt_arm(
    *, seed: int, draws: int, limit: int = 0, size: str, teach_steps: int, **recipe
) -> dict:
    """The policy tuned by reward, asked in several ways how sure it is of its answers.

    Args:
        seed, draws, limit: of ``calibration.items``; the seed also of the policy.
        size: of the base model.
        teach_steps: updates of 16 examples that teach the two formats.
        recipe: the other arguments of ``calibration.tuned``.

    Returns:
        ``log_probs`` of the options as the policy has them; ``careful``, those after a
        control prompt; and, a confidence an item in the likeliest option, ``p_true``
        and ``verbal`` after teaching, ``p_true_untaught`` and ``verbal_untaught``
        before it.
    """
    policy, tokenizer = tuned(
        seed=seed, size=size, kind="reward", limit=limit, **recipe
    )
    some = items(("calibration", "test"), draws, seed, limit)
    own = ask(policy, tokenizer, some)["log_probs"]
    careful = ask(policy, tokenizer, some, prefix=CARE)["log_probs"]
    untaught = sure_of(policy, tokenizer, some, own)
    teach(policy, tokenizer, items(("train",), 1, seed, limit), size, teach_steps, seed)
    taught = sure_of(policy, tokenizer, some, own)
    return {
        "log_probs": own,
        "careful": careful,
        **{name: values.tolist() for name, values in taught.items()},
        **{f"{name}_untaught": values.tolist() for name, values in untaught.items()},
    }


def sure_of(
    policy, tokenizer, some: Sequence[Item], log_probs
) -> dict[str, np.ndarray]:
    """P(True) and the digit's confidence for the likeliest option of each item."""
    asked = list(about_answers(some, log_probs))
    questions, answers, _ = zip(*asked)
    true = p_true(policy, tokenizer, questions, answers, words=VERDICTS, chat=True)
    prompts = [HOW_SURE.format(question=q, answer=a) for q, a, _ in asked]
    digit = bank_confidence(policy, tokenizer, prompts)
    return {"p_true": true.confidence, "verbal": digit.confidence}


def teach(
    policy, tokenizer, some: Sequence[Item], size: str, steps: int, seed: int
) -> None:
    """Teach both formats, in place, on the policy's own answers: True or False, and 9
    or 0. What it then says of new answers is how often it saw the like be right."""
    log_probs = ask(policy, tokenizer, some)["log_probs"]
    examples = []
    for question, answer, right in about_answers(some, log_probs):
        words = dict(question=question, answer=answer)
        said = {IS_IT_TRUE: VERDICTS[not right], HOW_SURE: SURE if right else UNSURE}
        examples += [
            {"prompt": template.format(**words), "completion": reply}
            for template, reply in said.items()
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


def about_answers(some: Sequence[Item], log_probs) -> Iterator[tuple[str, str, bool]]:
    """Question, likeliest option, and whether it is right, of each item."""
    for item, row in zip(some, log_probs, strict=True):
        chosen = int(np.argmax(row))
        yield item.question, f"{item.options[chosen]}.", chosen == item.right


# --- Sweeps ---------------------------------------------------------------------------


def models(
    *, seeds: Sequence[int], losses: Sequence[str], jobs: int, **common
) -> dict[str, list]:
    """Rows of all models that are trained here, by what they are; a row a seed.

    Args:
        seeds: of the first model of each kind, and of the items.
        losses: of ``STEPS``; cross-entropy is trained in any case.
        jobs: arms at a time.
        common: ``draws``, ``limit``, ``size`` and ``steps``.

    Returns:
        The losses by name; "members", for each seed the rows of ``MEMBERS`` models by
        cross-entropy; "single", with as many updates as these together; "dropout".
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
        (loss_arm, dict(loss=losses[0], seed=s + APART * m, item_seed=s, **common))
        for s in seeds
        for m in range(MEMBERS)
    ]
    found = run_groups(calls, jobs=jobs, label="models")
    members = found["members"]
    found["members"] = [
        members[i : i + MEMBERS] for i in range(0, len(members), MEMBERS)
    ]
    return found


def prompts(*, seeds: Sequence[int], jobs: int, **common) -> list[dict]:
    """Rows of :func:`prompt_arm`, one a seed."""
    calls = [(prompt_arm, dict(seed=s, **common)) for s in seeds]
    return run_each(calls, jobs=jobs, label="how sure?")
