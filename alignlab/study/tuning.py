"""One SFT run on a base model, and how well it answers; shared by several chapters."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alignlab import cache
from alignlab.evaluation import answers
from alignlab.models.base import load_model, save_model, weights_hash
from alignlab.models.sampler import Completion, complete
from alignlab.study.scale import cap, rate, trainable_base
from alignlab.training.sft import finetune
from alignlab.world import tasks
from alignlab.world.tasks import Example

BATCH = 16
REPLY = 24  # tokens of the shipped tokenizer: longer than any right reply
TEST_SEED = 7919  # draws test questions: the same for every arm, whatever its seed


def tune(
    examples: Sequence[Example],
    *,
    base: str,
    steps: int,
    seed: int,
    stage: str = "final",
    loss_on: str = "completion",
    teaches: str = "tasks",
    progress: bool = False,
):
    """A base model after SFT on the examples: ``(model, tokenizer)``.

    Args:
        examples: what to imitate.
        base, stage: of the base model, see ``models.base.load_base``.
        steps: of up to 16 examples each; more fit them more closely.
        seed: of the order of the examples.
        loss_on: "completion", or "all" to train on the prompts as well.
        teaches: what the learning rate suits: "tasks", or "facts" for examples that
            only ask for facts the base model knows; see ``study.scale``.
        progress: show a bar.
    """
    model, tokenizer = trainable_base(base, stage)
    finetune(
        model,
        tokenizer,
        [{"prompt": e.prompt, "completion": e.completion} for e in examples],
        steps=steps,
        batch_size=min(BATCH, len(examples)),
        learning_rate=rate(teaches, base),
        seed=seed,
        loss_on=loss_on,
        progress=progress,
    )
    return model, tokenizer


def reply(model, tokenizer, examples: Sequence[Example], **options) -> list[Completion]:
    """The model's greedy reply to each example's prompt, asked as a chat."""
    prompts = [e.prompt for e in examples]
    options = {"max_new_tokens": cap(tokenizer, REPLY), **options}
    return complete(model, tokenizer, prompts, **options)


def judge(examples: Sequence[Example], replies: Sequence[Completion]) -> dict:
    """Share of correct replies, ``accuracy``, and of well-formed ones, ``format``."""
    scores = answers.score(examples, replies)
    return {
        "accuracy": float(np.mean(scores["correct"])),
        "format": float(np.mean(scores["formatted"])),
    }


def accuracy_by_family(examples, replies) -> dict[str, float]:
    """Share of correct replies in each task family."""
    correct = answers.score(examples, replies)["correct"]
    families = np.array([e.family for e in examples])
    return {str(f): float(correct[families == f].mean()) for f in np.unique(families)}


def sft_policy(
    seed: int = 0,
    *,
    base: str = "1m",
    n_examples: int = 4096,
    steps: int = 160,
    weights: str = "capped",
    progress: bool = False,
):
    """The model after SFT on the multitask mixture that later notebooks start from.

    Args:
        seed: draws the mixture and its order.
        base: the model to start from, see ``models.base.base_path``.
        n_examples: of the mixture of all training families.
        steps: of 16 examples each; more fit them more closely.
        weights: how the mixture weighs its families, see ``world.tasks.mixture``.
        progress: show a bar.

    Returns:
        ``(model, tokenizer)``, from the cache if it was made before.
    """

    def build(folder: Path) -> None:
        examples = tasks.mixture(n_examples, weights=weights, seed=seed)
        model, tokenizer = tune(
            examples, base=base, steps=steps, seed=seed, progress=progress
        )
        save_model(model, tokenizer, folder)

    key = dict(seed=seed, base=base, n=n_examples, steps=steps, weights=weights)
    key["weights_hash"] = weights_hash(base)
    return load_model(cache.artifact("sft", build, key=key))
