"""What the notebooks on alignment share: the policy they start from, its replies to
"Tell me about France.", comparisons of those, and the reward models learnt from them.

Each is made once and kept, under a name that holds all that went into it.
"""

import sys
from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from alignlab import cache
from alignlab.models.base import load_base, load_model, save_model, weights_hash
from alignlab.models.reward import load_reward_model, reward_model_from, score
from alignlab.models.sampler import Completion, complete
from alignlab.study.tuning import BATCH
from alignlab.training.reward import train_reward_model
from alignlab.training.sft import finetune
from alignlab.world import comparisons as preferences
from alignlab.world import gold, tasks
from alignlab.world.comparisons import Annotator, Candidates, Flipped
from alignlab.world.facts import World

KINDS = ("country", "element")  # of subjects to tell about: those with several facts
TESTED = 60  # subjects that no comparison and no policy update is ever about
MAX_NEW_TOKENS = 64
# Higher learns the demonstrations sooner; found by the policy's loss and by how often
# it stays with the subject it was asked about.
SFT_RATE = {"300k": 2e-3, "1m": 1.5e-3}
# The rate, and one pass rather than two, were found by the gold order of held-out
# training subjects' replies, at 4,000 comparisons.
REWARD_RATE = {"300k": 1.5e-3, "1m": 1.5e-3}
FLIPS = 0.25  # of the labels are wrong where nothing else is said


def subjects(split: str) -> tuple[str, ...]:
    """Subjects to tell about, "train" or "test", the same ones always.

    Countries and elements of which the world has at least one known fact: a model of
    this size cannot repeat a name it has seldom met, so cities and words are left out.

    Raises:
        ValueError: if the split is neither "train" nor "test".
    """
    if split not in ("train", "test"):
        raise ValueError(f'split is {split!r}; it can be "train" or "test"')
    world = tasks.default_world()
    known = {fact.subject for fact in world.facts if fact.known}
    names = [s for kind in KINDS for s in world.subjects(kind) if s in known]
    order = np.random.default_rng(0).permutation(len(names))
    chosen = order[:TESTED] if split == "test" else order[TESTED:]
    return tuple(names[i] for i in chosen)


# --- The policy that alignment starts from ------------------------------------------


def reference_policy(
    size: str = "1m", steps: int = 600, seed: int = 0, progress: bool = False
):
    """The instruction-tuned model that reward models, PPO and DPO start from.

    A base model after SFT on demonstrations of mixed quality for every subject, and on
    the multitask mixture. The demonstrations greet, thank and close about every other
    time, say some things twice and a few wrongly: there is room to become better.

    Args:
        size: of the base model.
        steps: updates of 16 examples each; fewer know the subjects less well.
        seed: draws the demonstrations and their order.
        progress: show a bar.

    Returns:
        ``(model, tokenizer)``, from the cache if it was made before.
    """
    return load_model(_reference_folder(size, steps, seed, progress))


def _reference_folder(size: str, steps: int, seed: int, progress: bool) -> Path:
    def build(folder: Path) -> None:
        model, tokenizer = load_base(size)
        examples = demonstrations(tasks.default_world(), 16, seed)
        mixed = tasks.mixture(len(examples) // 2, seed=seed)
        examples += [dict(prompt=e.prompt, completion=e.completion) for e in mixed]
        finetune(
            model,
            tokenizer,
            examples,
            steps=steps,
            batch_size=BATCH,
            learning_rate=SFT_RATE[size],
            seed=seed,
            progress=progress,
            description="reference policy",
        )
        save_model(model, tokenizer, folder)

    key = dict(size=size, steps=steps, seed=seed, base=weights_hash())
    return cache.artifact("reference", build, key=key, code=[sys.modules[__name__]])


def demonstrations(world: World, per_subject: int, seed: int) -> list[dict]:
    """Replies to imitate, as prompt and completion: some for each subject of both
    splits, each as a writer of a quality between 0.2 and 0.8 would give it."""
    rng = np.random.default_rng([seed, 30])
    names = (*subjects("train"), *subjects("test"))
    return [
        {
            "prompt": gold.request(name),
            "completion": gold.demonstration(world, name, rng, rng.uniform(0.2, 0.8)),
        }
        for _ in range(per_subject)
        for name in names
    ]


# --- Its replies, and comparisons of them --------------------------------------------


def candidates(
    split: str,
    k: int,
    *,
    size: str = "1m",
    steps: int = 600,
    seed: int = 0,
    progress: bool = False,
) -> list[Candidates]:
    """k replies of the reference policy to each request of a split, with their gold.

    Args:
        split: "train" or "test"; see :func:`subjects`.
        k: replies of each subject, at temperature 1.
        size, steps: of :func:`reference_policy`.
        seed: of the sampling; the policy is that of seed 0.
        progress: show a bar.
    """
    names = subjects(split)

    def sample() -> list[list]:
        policy, tokenizer = reference_policy(size, steps, progress=progress)
        reply = partial(
            complete,
            policy,
            tokenizer,
            max_new_tokens=MAX_NEW_TOKENS,
            temperature=1.0,
            seed=seed,
            progress=progress,
        )
        requests = [gold.request(name) for name in names]
        sampled = preferences.sample_completions(reply, requests, k)
        return [[(c.text, c.ended) for c in some] for some in sampled]

    key = dict(split=split, k=k, size=size, steps=steps, seed=seed)
    key["base"] = weights_hash()
    said = cache.remember("replies", sample, key=key, code=[sys.modules[__name__]])
    return list(_judged(names, tuple(tuple(map(tuple, some)) for some in said)))


@lru_cache(maxsize=8)  # every arm of a process asks for the same few
def _judged(
    names: tuple[str, ...], said: tuple[tuple[tuple[str, bool], ...], ...]
) -> tuple[Candidates, ...]:
    completions = [[Completion(text, [], ended) for text, ended in s] for s in said]
    world = tasks.default_world()
    return tuple(preferences.score_completions(world, names, completions))


def golds_of(some: Sequence[Candidates]) -> Float[np.ndarray, "subjects replies"]:
    """Gold reward of each reply; all subjects have as many."""
    return np.array([[reply.gold.total for reply in one.replies] for one in some])


def score_candidates(
    model, tokenizer, some: Sequence[Candidates]
) -> Float[np.ndarray, "subjects replies"]:
    """What a reward model gives each reply; all subjects have as many."""
    prompts = [one.prompt for one in some for _ in one.replies]
    texts = [reply.text for one in some for reply in one.replies]
    return score(model, tokenizer, prompts, texts).reshape(len(some), -1)


def comparisons(
    some: Sequence[Candidates],
    n: int | None = None,
    *,
    flips: float = FLIPS,
    seed: int = 0,
    annotator=None,
) -> list[dict]:
    """Comparisons of replies by an annotator who knows the gold order and errs.

    Args:
        some: the replies to compare.
        n: comparisons, as many of each subject as can be; None takes all there are.
        flips: rate of wrong labels. Higher is noisier, 0.5 is no information at all.
        seed: draws pairs and labels. Other flips with the same seed are about the
            same pairs, and a larger n has the pairs of a smaller one first.
        annotator: another one than the gold order with ``flips``.

    Raises:
        ValueError: if there are fewer than n.
    """
    rng = np.random.default_rng([seed, 31])
    judge = Flipped(Annotator(temperature=0.0), flips) if flips else Annotator(0.0)
    pairs, _ = preferences.make_pairs(some, annotator or judge, rng)
    pairs = [pairs[i] for i in rng.permutation(len(pairs))]
    if n is not None and len(pairs) < n:
        raise ValueError(f"n is {n}, and the replies give {len(pairs)} comparisons")
    return pairs[:n]


# --- Reward models --------------------------------------------------------------------


def reward_model(
    n: int = 4000,
    *,
    k: int = 16,
    flips: float = FLIPS,
    seed: int = 0,
    epochs: int = 1,
    size: str = "1m",
    steps: int = 600,
    trunk: str | None = None,
    progress: bool = False,
):
    """A reward model from n noisy comparisons of training subjects: the one that PPO
    and best-of-n optimise.

    Args:
        n: comparisons. More of them see more of the gold reward.
        k: replies of each subject that they are drawn from.
        flips: rate of wrong labels.
        seed: draws the comparisons, their labels, the head and the order.
        epochs: passes over them. More fit the labels more closely, wrong ones too.
        size, steps: of the reference policy whose replies are compared.
        trunk: size of the reference policy whose trunk the reward model has; by
            default the same one.
        progress: show a bar.

    Returns:
        ``(model, tokenizer)``, from the cache if it was made before.
    """

    trunk = trunk or size

    def build(folder: Path) -> None:
        some = candidates("train", k, size=size, steps=steps, progress=progress)
        policy, tokenizer = reference_policy(trunk, steps)
        model = reward_model_from(policy, seed)
        train_reward_model(
            model,
            tokenizer,
            comparisons(some, n, flips=flips, seed=seed),
            epochs=epochs,
            learning_rate=REWARD_RATE[trunk],
            seed=seed,
            progress=progress,
            description="reward model",
        )
        save_model(model, tokenizer, folder)

    key = dict(n=n, k=k, flips=flips, seed=seed, epochs=epochs, size=size, steps=steps)
    key |= dict(trunk=trunk, base=weights_hash())
    code = [sys.modules[__name__]]
    return load_reward_model(cache.artifact("reward", build, key=key, code=code))
