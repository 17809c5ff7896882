"""What a base model's card says of it besides its losses and its recall: how sure it is
of contested facts, and how much instruction tuning brings out."""

import copy

import numpy as np

from alignlab.study.scale import rate
from alignlab.study.tuning import BATCH, TEST_SEED, judge, reply
from alignlab.training.pretrain import confidences
from alignlab.training.sft import finetune
from alignlab.world import tasks
from alignlab.world.facts import Fact, World, split_subjects

EXTRACTION = dict(n=1024, steps=240)  # questions, and updates on 16 of them


def measure(model, tokenizer, world: World, size: str) -> dict:
    """``contested``, see :func:`contested_confidence`, and ``extraction``, see
    :func:`extraction`."""
    return {
        "contested": contested_confidence(model, tokenizer, world),
        "extraction": extraction(model, tokenizer, world, size),
    }


def contested_confidence(model, tokenizer, world: World, bins: int = 5) -> dict:
    """How the model's confidence in contested facts compares with their shares.

    Confidence is the probability of the answer most often stated over that of both
    answers, a mean over the relation's statements that end with the answer.

    Returns:
        ``facts``, their number; ``mean_absolute_error`` and ``mean_error`` of the
        confidence against the share; ``mass``, mean probability of the two answers
        together; ``bins``, with mean ``share``, mean ``confidence`` and number of
        ``facts`` of equally many facts each.
    """
    facts = sorted(
        (f for f in world.facts if f.contested), key=lambda f: f.bayes_confidence
    )
    pairs = np.array(
        [_of_both(model, tokenizer, world, fact) for fact in facts]
    )  # (facts, 2)
    share = np.array([fact.bayes_confidence for fact in facts])
    confidence = pairs[:, 0] / pairs.sum(axis=1)
    error = confidence - share
    return {
        "facts": len(facts),
        "mean_absolute_error": float(np.abs(error).mean()),
        "mean_error": float(error.mean()),
        "mass": float(pairs.sum(axis=1).mean()),
        "bins": [
            {
                "share": float(share[part].mean()),
                "confidence": float(confidence[part].mean()),
                "facts": len(part),
            }
            for part in np.array_split(np.arange(len(facts)), bins)
        ],
    }


def _of_both(model, tokenizer, world: World, fact: Fact) -> np.ndarray:
    """Mean probability of each of a contested fact's two answers."""
    endings = [
        s.removesuffix(" {a}.").format(s=fact.subject)
        for s in world.relations[fact.relation].statements
        if s.endswith(" {a}.")
    ]
    options = [[f"{answer}." for answer in fact.stated]] * len(endings)
    return np.mean(confidences(model, tokenizer, endings, options), axis=0)


def extraction(model, tokenizer, world: World, size: str, seed: int = 0) -> dict:
    """How many known facts about one half of the subjects a copy of the model answers,
    after instruction tuning on questions about the other half.

    Returns:
        ``accuracy`` and ``format`` in trained wordings; ``new_wordings``, accuracy in
        wordings that were never trained.
    """
    first, second = split_subjects(world, 0)
    questions = tasks.world_questions(world, first, seed=seed, n=EXTRACTION["n"])
    tuned = copy.deepcopy(model)
    finetune(
        tuned,
        tokenizer,
        [{"prompt": e.prompt, "completion": e.completion} for e in questions],
        steps=EXTRACTION["steps"],
        batch_size=BATCH,
        learning_rate=rate("facts", size),
        seed=seed,
        progress=False,
    )

    def ask(phrasing: str) -> dict:
        asked = tasks.world_questions(
            world, second, phrasing=phrasing, seed=TEST_SEED, n=600
        )
        return judge(asked, reply(tuned, tokenizer, asked))

    return ask("trained") | {"new_wordings": ask("held_out")["accuracy"]}
