"""What the notebooks on alignment share: the reference policy, its replies to requests
such as "Tell me about France.", comparisons of these, and reward models.

Each is made once and cached under a key of everything that went into it.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from alignlab import cache
from alignlab.models.base import (
    load_model,
    save_model,
    weights_behind,
    weights_hash,
)
from alignlab.models.reward import load_reward_model, score
from alignlab.models.sampler import Completion, complete
from alignlab.seeds import stream
from alignlab.study.scale import cap, rate, reward_model_of, sharpen, trainable_base
from alignlab.study.tuning import BATCH
from alignlab.training.reward import train_reward_model
from alignlab.training.sft import finetune
from alignlab.world import comparisons as preferences
from alignlab.world import gold, tasks
from alignlab.world.annotators import Annotator, Flipped
from alignlab.world.comparisons import Candidates
from alignlab.world.facts import World

KINDS = ("country", "element")  # of subjects to tell about: those with several facts
TESTED = 60  # subjects held out of all comparisons and policy updates
MAX_NEW_TOKENS = 64  # of the shipped tokenizer; see ``study.scale.cap``
# The reference policy's logits are divided by this. Chosen on a development seed by how
# often the policy errs: at 0.7 one statement in ten is wrong, at 1 one in four.
TEMPERATURE = 0.7
FLIPS = 0.25  # default rate of wrong labels


def subjects(split: str) -> tuple[str, ...]:
    """Subjects of a split, "train" or "test": always the same ones.

    They are the countries and elements with at least one known fact. A model of this
    size cannot repeat names it has seldom read, so cities and words are left out. In a
    world as another model knows it (``study.knowledge``) all real ones count.

    Raises:
        ValueError: if the split is neither "train" nor "test".
    """
    if split not in ("train", "test"):
        raise ValueError(f'split is {split!r}; it can be "train" or "test"')
    world = tasks.default_world()
    known = {fact.subject for fact in world.facts if fact.known or fact.knowledge}
    names = [s for kind in KINDS for s in world.subjects(kind) if s in known]
    order = stream(0, "subjects to test on").permutation(len(names))
    tested = min(TESTED, len(names) // 2)
    chosen = order[:tested] if split == "test" else order[tested:]
    return tuple(names[i] for i in chosen)


# --- The policy that alignment starts from ------------------------------------------


def reference_policy(
    base: str = "1m", steps: int = 600, seed: int = 0, progress: bool = False
):
    """The instruction-tuned model that reward models, PPO and DPO start from.

    A base model after SFT on demonstrations of mixed quality for every subject, and on
    the multitask mixture. About half of the demonstrations greet, thank or close, and
    some repeat themselves or state wrong facts, which leaves room for improvement. Its
    logits are then divided by ``TEMPERATURE``, so that it errs less: sampling from it
    as it is equals sampling from the fine-tuned model at that temperature.

    Args:
        base: the model to start from, see ``models.base.base_path``.
        steps: of 16 examples each; more teach more about the subjects.
        seed: draws the demonstrations and their order.
        progress: show a bar.

    Returns:
        ``(model, tokenizer)``, from the cache if it was made before.
    """
    return load_model(_reference_folder(base, steps, seed, progress))


def _reference_folder(base: str, steps: int, seed: int, progress: bool) -> Path:
    def build(folder: Path) -> None:
        model, tokenizer = trainable_base(base)
        examples = demonstrations(tasks.default_world(), 16, seed)
        mixed = tasks.mixture(len(examples) // 2, seed=seed)
        examples += [dict(prompt=e.prompt, completion=e.completion) for e in mixed]
        finetune(
            model,
            tokenizer,
            examples,
            steps=steps,
            batch_size=BATCH,
            learning_rate=rate("demonstrations", base),
            seed=seed,
            progress=progress,
            description="reference policy",
        )
        sharpen(model, TEMPERATURE)
        save_model(model, tokenizer, folder)

    key = dict(base=base, steps=steps, seed=seed, weights_hash=weights_hash(base))
    return cache.artifact("reference", build, key=key)


def demonstrations(world: World, per_subject: int, seed: int) -> list[dict]:
    """Replies to imitate, as rows of prompt and completion: ``per_subject`` for each
    subject of both splits, each of a random quality between 0.2 and 0.8."""
    rng = stream(seed, "demonstrations")
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
    base: str = "1m",
    steps: int = 600,
    seed: int = 0,
    reference_seed: int = 0,
    progress: bool = False,
) -> list[Candidates]:
    """k replies of the reference policy to each request of a split, with their gold
    rewards.

    Args:
        split: "train" or "test"; see :func:`subjects`.
        k: replies to each request, at temperature 1.
        base, steps: of :func:`reference_policy`.
        seed: of the sampling.
        reference_seed: of the reference policy.
        progress: show a bar.
    """
    names = subjects(split)

    def sample() -> list[list]:
        policy, tokenizer = reference_policy(base, steps, reference_seed, progress)
        reply = partial(
            complete,
            policy,
            tokenizer,
            max_new_tokens=cap(tokenizer, MAX_NEW_TOKENS),
            temperature=1.0,
            seed=seed,
            progress=progress,
        )
        requests = [gold.request(name) for name in names]
        sampled = preferences.sample_completions(reply, requests, k)
        return [[(c.text, c.ended) for c in replies] for replies in sampled]

    key = dict(split=split, k=k, base=base, steps=steps, seed=seed)
    key |= dict(reference_seed=reference_seed, weights_hash=weights_hash(base))
    texts = cache.remember("replies", sample, key=key)
    return list(_scored(names, tuple(tuple(map(tuple, row)) for row in texts)))


@lru_cache(maxsize=8)  # the arms of a process want the same few
def _scored(
    names: tuple[str, ...], texts: tuple[tuple[tuple[str, bool], ...], ...]
) -> tuple[Candidates, ...]:
    completions = [
        [Completion(text, [], ended) for text, ended in row] for row in texts
    ]
    world = tasks.default_world()
    return tuple(preferences.score_completions(world, names, completions))


def golds_of(
    candidates: Sequence[Candidates],
) -> Float[np.ndarray, "subjects replies"]:
    """Gold reward of each reply. Every subject needs the same number of replies."""
    return np.array([[reply.gold.total for reply in c.replies] for c in candidates])


def score_candidates(
    model, tokenizer, candidates: Sequence[Candidates]
) -> Float[np.ndarray, "subjects replies"]:
    """Proxy reward of each reply. Every subject needs the same number of replies."""
    prompts = [c.prompt for c in candidates for _ in c.replies]
    texts = [reply.text for c in candidates for reply in c.replies]
    return score(model, tokenizer, prompts, texts).reshape(len(candidates), -1)


def comparisons(
    candidates: Sequence[Candidates],
    n: int | None = None,
    *,
    flips: float = FLIPS,
    seed: int = 0,
    annotator=None,
) -> list[dict]:
    """Comparisons of replies by an annotator who knows the gold order but makes errors.

    Args:
        candidates: the replies to compare.
        n: comparisons to return; None returns all there are.
        flips: rate of wrong labels; higher is noisier, 0.5 carries no information.
        seed: draws pairs and labels. With the same seed, other ``flips`` label the same
            pairs, and a larger n begins with the pairs of a smaller one.
        annotator: replaces the gold order with ``flips``.

    Raises:
        ValueError: if there are fewer than n.
    """
    rng = stream(seed, "comparisons")
    judge = Flipped(Annotator(temperature=0.0), flips) if flips else Annotator(0.0)
    pairs, _ = preferences.make_pairs(candidates, annotator or judge, rng)
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
    base: str = "1m",
    steps: int = 600,
    trunk: str | None = None,
    reference_seed: int = 0,
    reply_seed: int = 0,
    progress: bool = False,
):
    """The reward model that PPO and best-of-n optimise, trained on n noisy comparisons
    of training subjects.

    Args:
        n: comparisons; more bring the proxy reward closer to gold.
        k: replies to each request that they are drawn from.
        flips: rate of wrong labels; higher is noisier.
        seed: draws the comparisons, their labels, the head and the order.
        epochs: passes over them; more fit the labels more closely, wrong ones too.
        base, steps: of the reference policy whose replies are compared.
        trunk: base model of the reference policy that the reward model starts from, by
            default ``base``.
        reference_seed, reply_seed: of the reference policy and of its replies.
        progress: show a bar.

    Returns:
        ``(model, tokenizer)``, from the cache if it was made before.
    """
    trunk = trunk or base

    def build(folder: Path) -> None:
        replies = candidates(
            "train",
            k,
            base=base,
            steps=steps,
            seed=reply_seed,
            reference_seed=reference_seed,
            progress=progress,
        )
        policy, tokenizer = reference_policy(trunk, steps, reference_seed)
        model = reward_model_of(policy, seed)
        train_reward_model(
            model,
            tokenizer,
            comparisons(replies, n, flips=flips, seed=seed),
            epochs=epochs,
            learning_rate=rate("reward", trunk),
            seed=seed,
            progress=progress,
            description="reward model",
        )
        save_model(model, tokenizer, folder)

    key = dict(n=n, k=k, flips=flips, seed=seed, epochs=epochs, base=base, steps=steps)
    key |= dict(reference_seed=reference_seed, reply_seed=reply_seed)
    key |= dict(trunk=trunk, weights_hash=weights_behind(dict(base=base, trunk=trunk)))
    return load_reward_model(cache.artifact("reward", build, key=key))
