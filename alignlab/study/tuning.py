"""One SFT run on a base model, and how well it answers; shared by several chapters."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alignlab import cache
from alignlab.evaluation import answers
from alignlab.models.base import load_base, load_model, save_model, weights_hash
from alignlab.models.sampler import Completion, complete
from alignlab.training.sft import finetune
from alignlab.world import tasks
from alignlab.world.tasks import Example

# By size, for the mixture of tasks and for facts alone. A higher rate learns new tasks
# sooner and forgets more of pretraining. Chosen by accuracy on held-out questions.
LEARNING_RATE = {"300k": 1.5e-3, "1m": 1e-3}
FACTS_RATE = {"300k": 1e-3, "1m": 5e-4}
BATCH = 16
TEST_SEED = 7919  # draws test questions: the same for every arm, whatever its seed


def tune(
    examples: Sequence[Example],
    *,
    size: str,
    steps: int,
    seed: int,
    stage: str = "final",
    loss_on: str = "completion",
    rates: dict[str, float] = LEARNING_RATE,
    progress: bool = False,
):
    """A base model after SFT on the examples: ``(model, tokenizer)``.

    Args:
        examples: what to imitate.
        size, stage: of the base model, see ``models.base.load_base``.
        steps: of up to 16 examples each; more fit them more closely.
        seed: of the order of the examples.
        loss_on: "completion", or "all" to train on the prompts as well.
        rates: learning rate by size; ``FACTS_RATE`` suits examples that only ask for
            facts the base model knows.
        progress: show a bar.
    """
    model, tokenizer = load_base(size, stage)
    finetune(
        model,
        tokenizer,
        [{"prompt": e.prompt, "completion": e.completion} for e in examples],
        steps=steps,
        batch_size=min(BATCH, len(examples)),
        learning_rate=rates[size],
        seed=seed,
        loss_on=loss_on,
        progress=progress,
    )
    return model, tokenizer


def reply(model, tokenizer, examples: Sequence[Example], **options) -> list[Completion]:
    """The model's greedy reply to each example's prompt, asked as a chat."""
    prompts = [e.prompt for e in examples]
    return complete(model, tokenizer, prompts, max_new_tokens=24, **options)


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
    size: str = "1m",
    n_examples: int = 4096,
    steps: int = 160,
    weights: str = "capped",
    progress: bool = False,
):
    """The model after SFT on the multitask mixture that later notebooks start from.

    Args:
        seed: draws the mixture and its order.
        size: of the base model.
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
            examples, size=size, steps=steps, seed=seed, progress=progress
        )
        save_model(model, tokenizer, folder)

    key = dict(seed=seed, size=size, n=n_examples, steps=steps, weights=weights)
    key["base"] = weights_hash()
    return load_model(cache.artifact("sft", build, key=key))
