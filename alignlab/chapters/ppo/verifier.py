"""A verifier as reward: a program says whether an answer is right, no reward model has
to guess it. GRPO on questions with checkable answers, and what it does to questions
that were not trained on.

Sharpening or teaching? Where answers only become more reliable, pass@1 rises towards
pass@k, the share of questions with a right answer among k, which stays; greedy decoding
of the policy before training shows how much of that needs no training at all.
"""

from collections.abc import Mapping, Sequence
from math import comb
from types import MappingProxyType

import matplotlib.pyplot as plt
import numpy as np
from transformers import TrainerCallback

from alignlab.errors import AlignlabError
from alignlab.evaluation import answers
from alignlab.models.base import device_in_use
from alignlab.models.sampler import complete
from alignlab.plots.style import series_style
from alignlab.ppo import PPOConfig, PPOTrainer
from alignlab.seeds import stream
from alignlab.study.chains import Chain
from alignlab.study.measure import kl_and_entropy
from alignlab.study.optimising import history_of
from alignlab.study.scale import cap, scaled
from alignlab.world import tasks
from alignlab.world.tasks import Example

PROMPTS, COMPLETIONS = 16, 8  # of an update: questions, and answers to each
MAX_NEW_TOKENS = 24
# No KL penalty: there is no reward model whose flaws distance could exploit. A higher
# rate learns sooner and forgets more; chosen on seed 0, where 3e-4 lost accuracy on
# questions that were not trained on.
VERIFIED: Mapping[str, object] = dict(
    advantages="grpo",
    completions_per_prompt=COMPLETIONS,
    per_device_train_batch_size=64,
    num_mini_batches=PROMPTS * COMPLETIONS // 64,
    learning_rate=1e-4,
    kl_coef=0.0,
    lr_scheduler_type="constant",
    max_completion_length=MAX_NEW_TOKENS,
)
# What can be worked out from the question, and what has to be known.
FAMILIES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"lists": ("count", "sorted", "largest", "backwards"), "facts": ()}
)
ARMS = (("lists", "verifier"), ("facts", "verifier"), ("lists", "random"))
SPLITS = ("train", "test")


# --- Questions and rewards ------------------------------------------------------------


def questions(domain: str, split: str, n: int, seed: int) -> list[Example]:
    """At most n questions in random order, as many of each kind as there are.

    Args:
        domain: "lists", short lists to count, sort, reverse or search; or "facts" about
            the world, half of them known and half rare, see ``tasks.examples``.
        split: "train" or "test". No list, and no subject, is in both.
        n: how many in all.
        seed: draws questions, wordings and order.

    Raises:
        ValueError: if the domain is not one of the two.
    """
    if domain not in FAMILIES:
        raise ValueError(f'domain is {domain!r}; it can be "lists" or "facts"')
    rng = stream(seed, f"{split} questions for a verifier")
    if domain == "lists":
        kinds = [
            tasks.examples(family, split=split, seed=seed)
            for family in FAMILIES["lists"]
        ]
    else:
        kinds = [_facts(kind, split, seed) for kind in ("known", "rare")]
    shares = np.array_split(np.arange(n), len(kinds))
    drawn = [
        kind[i]
        for kind, share in zip(kinds, shares, strict=True)
        for i in rng.permutation(len(kind))[: len(share)]
    ]
    return [drawn[i] for i in rng.permutation(len(drawn))]


def _facts(kind: str, split: str, seed: int) -> list[Example]:
    """Questions for facts of every relation."""
    relations = tasks.default_world().relations
    return [
        example
        for relation in relations
        for example in tasks.examples(relation, split=split, facts=kind, seed=seed)
    ]


def verifier_of(asked: Sequence[Example]):
    """A reward function: 1 for a right completion, 0 for another. The data's column
    ``number`` says which of the questions was asked."""

    def verifier(completions: Sequence[str], number: Sequence[int]) -> list[float]:
        pairs = zip(number, completions, strict=True)
        return [float(answers.is_correct(asked[i], text)) for i, text in pairs]

    return verifier


def tossed_coin(seed: int):
    """A reward function that reads nothing: 1 or 0, each as likely."""
    rng = stream(seed, "rewards at random")

    def random(completions: Sequence[str]) -> list[float]:
        return rng.integers(2, size=len(completions)).astype(float).tolist()

    return random


# --- The arm --------------------------------------------------------------------------


def verifier_arm(
    *,
    chain: dict,
    domain: str,
    reward: str,
    at: Sequence[int],
    n_questions: int,
    n: int,
    samples: int,
    **hyperparameters,
) -> dict:
    """GRPO from a chain's reference policy on questions with checkable answers.

    Args:
        chain: arguments of :class:`alignlab.study.chains.Chain`.
        domain: of :func:`questions`.
        reward: "verifier", or "random" for a control that learns from tossed coins.
        at: updates to look after; the last one ends the run. A look before the first
            comes on top.
        n_questions: to train on.
        n: questions to look at, of those trained on and of others. More make every
            share less noisy.
        samples: answers to each of them at temperature 1; pass@k needs at least k.
        hyperparameters: of :class:`PPOConfig`, in place of those in ``VERIFIED``.

    Returns:
        ``points``, see :func:`look`, with the ``step`` of each; ``history`` of the
        run, a number for each update; ``stopped``, why it could not go on, or None.
    """
    if reward not in ("verifier", "random"):
        raise ValueError(f'reward is {reward!r}; it can be "verifier" or "random"')
    link = Chain(**chain)
    policy, tokenizer = link.policy()
    reference, _ = link.policy()
    asked = questions(domain, "train", n_questions, link.seed)
    shown = {"train": asked[:n], "test": questions(domain, "test", n, link.seed)}
    points: list[dict] = []

    def add_point(step: int) -> None:
        models = policy, tokenizer, reference
        point = look(*models, shown, samples=samples, seed=link.seed)
        points.append({"step": step, **point})

    function = verifier_of(asked) if reward == "verifier" else tossed_coin(link.seed)
    add_point(0)
    trainer = PPOTrainer(
        policy,
        [function],
        _config(link, tokenizer, at[-1], hyperparameters),
        [
            dict(prompt=[dict(role="user", content=e.prompt)], number=i)
            for i, e in enumerate(asked)
        ],
        processing_class=tokenizer,
        callbacks=[_Looking(at, add_point)],
    )
    stopped = None
    try:
        trainer.train()
    except AlignlabError as error:
        stopped = str(error)
    return {"points": points, "history": history_of(trainer), "stopped": stopped}


def _config(
    link: Chain, tokenizer, updates: int, hyperparameters: Mapping
) -> PPOConfig:
    settings = {**VERIFIED, **hyperparameters}
    settings["learning_rate"] = scaled(settings["learning_rate"], link.base)
    length = cap(tokenizer, settings["max_completion_length"])
    settings["max_completion_length"] = length
    return PPOConfig(
        seed=link.seed,
        max_steps=updates,
        use_cpu=device_in_use() == "cpu",
        disable_tqdm=True,
        report_to="none",
        **settings,
    )


class _Looking(TrainerCallback):
    def __init__(self, at: Sequence[int], look):
        self.at, self.look = at, look

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step in self.at:
            self.look(state.global_step)


def look(
    policy,
    tokenizer,
    reference,
    shown: Mapping[str, Sequence[Example]],
    *,
    samples: int,
    seed: int,
) -> dict:
    """How a policy answers the questions of each split.

    Returns:
        For each split ``right``, how many of a question's answers are, sampled at
        temperature 1; ``greedy``, whether the likeliest one is (1 or 0); ``kl`` to the
        reference in nats an answer and ``entropy`` in nats a token; and the first
        answer of each question, ``texts``.
    """
    point = {}
    for split, asked in shown.items():
        repeated = [e for e in asked for _ in range(samples)]
        prompts = [e.prompt for e in repeated]
        options = dict(max_new_tokens=cap(tokenizer, MAX_NEW_TOKENS))
        greedy = complete(policy, tokenizer, prompts[::samples], **options)
        replies = complete(
            policy, tokenizer, prompts, temperature=1.0, seed=seed, **options
        )
        right = answers.score(repeated, replies)["correct"].reshape(-1, samples)
        first = slice(None, None, samples)
        kl, entropy = kl_and_entropy(
            policy, reference, tokenizer, prompts[first], replies[first]
        )
        point[split] = {
            "right": right.sum(axis=1).tolist(),
            "greedy": answers.score(asked, greedy)["correct"].astype(int).tolist(),
            "kl": kl,
            "entropy": entropy,
            "texts": [reply.text for reply in replies[first]],
        }
    return point


def calls(
    *,
    chains: Sequence[dict],
    at: Sequence[int],
    n_questions: int,
    n: int,
    samples: int,
) -> dict[tuple[str, str], list[tuple]]:
    """The arms by domain and reward, for ``alignlab.study.arms.run_groups``; see
    :func:`verifier_arm`."""
    common = dict(at=at, n_questions=n_questions, n=n, samples=samples)
    return {
        (domain, reward): [
            (verifier_arm, dict(chain=c, domain=domain, reward=reward, **common))
            for c in chains
        ]
        for domain, reward in ARMS
    }


# --- From rows to numbers -------------------------------------------------------------


def pass_at_k(right: Sequence[int], samples: int, k: int) -> float:
    r"""Share of questions with a right answer among k, without bias from more samples.

    .. math:: \text{pass@}k = E\left[1 - \binom{n - c}{k} \Big/ \binom{n}{k}\right]

    Args:
        right: c, how many of a question's answers are right.
        samples: n, answers to each question.
        k: answers allowed; pass@1 is the accuracy.

    Raises:
        ValueError: if k is not from 1 to ``samples``.

    Source: Chen et al. (2021), equation 1.
    """
    if not 1 <= k <= samples:
        raise ValueError(f"k is {k}; it must be from 1 to samples, {samples}")
    every = comb(samples, k)
    return float(np.mean([1 - comb(samples - c, k) / every for c in right]))


def share(row: Mapping, split: str, k: int | str, place: int = -1) -> float:
    """pass@k of one look of a run, by default the last; k may also be "greedy"."""
    seen = row["points"][place][split]
    if k == "greedy":
        return float(np.mean(seen["greedy"]))
    return pass_at_k(seen["right"], row["samples"], k)


def gains(rows: Sequence[Mapping], split: str, k: int | str) -> list[float]:
    """For each run, by how much :func:`share` rises from the first look to the last."""
    return [share(row, split, k) - share(row, split, k, 0) for row in rows]


def over_cooling(rows: Sequence[Mapping], split: str) -> list[float]:
    """For each run, pass@1 at the end minus what the reference's greedy answers have:
    what training brings beyond taking the likeliest answer."""
    return [share(row, split, 1) - share(row, split, "greedy", 0) for row in rows]


def answer_table(row: Mapping, split: str, count: int) -> list[dict]:
    """Questions whose first answer differs before and after, with both answers: rows
    for a table, in the order in which they were drawn, at most ``count``."""
    domain, seed, n = row["domain"], row["chain"]["seed"], row["n"]
    drawn = row["n_questions"] if split == "train" else n
    asked = questions(domain, split, drawn, seed)[:n]
    before, after = (row["points"][place][split]["texts"] for place in (0, -1))
    table = [
        {
            "question": example.prompt,
            "before": _marked(example, old),
            "after": _marked(example, new),
        }
        for example, old, new in zip(asked, before, after, strict=True)
        if old != new
    ]
    return table[:count]


def _marked(example: Example, text: str) -> str:
    return f"{text} ({'right' if answers.is_correct(example, text) else 'wrong'})"


def draw_accuracy(rows: Mapping[tuple[str, str], Sequence[Mapping]], title: str):
    """pass@1 along the runs, a panel for each arm: questions that were trained on and
    others, with the reference's greedy answers to the others as a level."""
    figure, axes = plt.subplots(
        1, len(rows), figsize=(4.0 * len(rows), 3.8), sharey=True, squeeze=False
    )
    for ax, ((domain, reward), runs) in zip(axes[0], rows.items(), strict=True):
        runs = complete_runs(runs)
        steps = [point["step"] for point in runs[0]["points"]]
        for number, (split, label) in enumerate(
            zip(SPLITS, ("trained on", "not trained on"), strict=True)
        ):
            heights = [
                [share(run, split, 1, place) for place in range(len(steps))]
                for run in runs
            ]
            _draw_lines(ax, steps, heights, label, number)
        level = np.mean([share(run, "test", "greedy", 0) for run in runs])
        ax.axhline(
            level,
            color=series_style(1, "color")["color"],
            linewidth=1,
            linestyle=":",
            label="not trained on, greedy, before",
        )
        ax.set(title=f"{domain}, {reward}", xlabel="updates", xlim=(0, steps[-1]))
    axes[0, 0].set(ylabel="right answers (pass@1)", ylim=(0, 1))
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncol=3)
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def draw_pass_at_k(rows: Sequence[Mapping], title: str):
    """pass@k over k before and after, on questions trained on and on others."""
    figure, axes = plt.subplots(1, 2, figsize=(8.4, 3.8), sharey=True)
    ks = [2**power for power in range(rows[0]["samples"].bit_length())]
    names = ("questions trained on", "questions not trained on")
    for ax, split, name in zip(axes, SPLITS, names, strict=True):
        for number, (place, label) in enumerate(((0, "before"), (-1, "after"))):
            heights = [[share(row, split, k, place) for k in ks] for row in rows]
            _draw_lines(ax, ks, heights, label, number)
        ax.set_xscale("log", base=2)
        ax.set_xticks(ks, ks)
        ax.set(title=name, xlabel="k, answers allowed", xlim=(ks[0], ks[-1]))
    axes[0].set(ylabel="a right one among k (pass@k)", ylim=(0, 1))
    axes[0].legend()
    figure.suptitle(title, x=0.01, ha="left", weight="bold")
    return figure


def _draw_lines(ax, x, heights, label: str, number: int) -> None:
    """A thin line for each run and a thick one for their mean. Bands over three seeds
    would cover each other; what differs within a seed is told by the text's intervals.
    """
    style = series_style(number, "color", "linestyle")
    if len(heights) > 1:
        for values in heights:
            ax.plot(x, values, **style, linewidth=0.8, alpha=0.6)
    ax.plot(x, np.mean(heights, axis=0), **style, label=label)


def complete_runs(rows: Sequence[Mapping]) -> list[Mapping]:
    """The runs that went to their end, or all if none did."""
    return [row for row in rows if row["stopped"] is None] or list(rows)
