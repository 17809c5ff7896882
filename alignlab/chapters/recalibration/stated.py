"""Policies that state how sure they are: taught the form, then rewarded for meaning it.

A reply is an answer and a digit, "Paris. 7.", where digit k states a confidence of k/9:
0 is "surely wrong", 9 "certain", and both ends can be meant. Everything is nested in
the seed: the instruction-tuned policy, the form, the reward's sampling. The test
questions are the same for all.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from alignlab.cache import artifact
from alignlab.calibration.elicitation import multiple_choice, sequence_probability
from alignlab.chapters.calibration.artifacts import subjects
from alignlab.models.base import device_in_use, load_model, save_model, weights_hash
from alignlab.models.sampler import complete
from alignlab.ppo import PPOConfig, PPOTrainer, calibration_reward
from alignlab.seeds import stream, torch_seed
from alignlab.study.arms import Call
from alignlab.study.scale import cap, rate, scaled
from alignlab.study.tuning import TEST_SEED, sft_policy
from alignlab.training.sft import finetune
from alignlab.world.facts import Fact, is_right, normalise
from alignlab.world.tasks import default_world, world_questions

KINDS = ("known", "rare", "tail", "contested", "never", "made_up")
DIGITS = "0123456789"
CONFIDENCES = np.arange(10) / 9  # what each digit states
ANSWER_TOKENS = 12  # of the longest reply, digit included
BOAST = 0.6  # lower sounds surer; 1 would state the answer's own probability
SPOKEN = 4  # answers to each question that the form is taught with
SAMPLES = 8  # of each question, where the share of right ones is counted
BATCH = 32
# Of PPO and RLOO; everything else is as PPOConfig has it. Chosen on seeds 0 and 1.
RECIPE: Mapping[str, object] = dict(
    per_device_train_batch_size=128,
    num_mini_batches=2,
    learning_rate=5e-4,
    kl_coef=0.02,
    lr_scheduler_type="linear",
    max_completion_length=ANSWER_TOKENS,
)
METHODS: Mapping[str, dict] = {
    "ppo": dict(vf_coef=1.0),
    "rloo": dict(advantages="rloo", completions_per_prompt=4),
}
TARGETS = ("outcome", "share")
EPISODES = 256  # replies of an update


# --- Questions ------------------------------------------------------------------------


class Asked(NamedTuple):
    """A question about a fact, and what is known of that fact by design."""

    prompt: str
    kind: str  # one of ``KINDS``
    fact: Fact


def draw_questions(split: str, per_kind: int, seed: int) -> list[Asked]:
    """Questions about subjects of a split, as many of each kind of fact as there are,
    up to a limit; in random order.

    Args:
        split: "train", "calibration" or "test", see ``artifacts.subjects``.
        per_kind: at most so many of each of ``KINDS``.
        seed: draws facts, wordings and order.
    """
    asked = []
    for kind in KINDS:
        own = world_questions(
            default_world(), subjects(split), facts=kind, seed=seed
        )  # "never" includes the made-up ones
        own = [e for e in own if e.fact.made_up == (kind == "made_up")]
        asked += [Asked(e.prompt, kind, e.fact) for e in own[:per_kind]]
    order = stream(seed, "order of kinds of questions").permutation(len(asked))
    return [asked[i] for i in order]


class Stated(NamedTuple):
    """A reply taken apart; ``confidence`` is NaN where it states none."""

    answer: str
    confidence: float


def read_reply(text: str) -> Stated:
    """The answer and the confidence in a reply such as "Paris. 7."."""
    match = re.fullmatch(r"(.+?)\. (\d)\.?", text.strip())
    if match is None:
        return Stated(text.strip().rstrip("."), float("nan"))
    return Stated(match[1], float(CONFIDENCES[int(match[2])]))


def stated_confidence(text: str) -> float:
    """The confidence in a reply, NaN if it states none."""
    return read_reply(text).confidence


def rightness(
    prompts: Sequence[str], completions: Sequence[str], *, answers, **_
) -> list[float]:
    """1 for each reply whose answer is one of the right ones, else 0; a column
    ``answers`` has these."""
    return [
        float(normalise(read_reply(text).answer) in {normalise(a) for a in own})
        for text, own in zip(completions, answers, strict=True)
    ]


def shuffled_rightness(seed: int) -> Callable[..., list[float]]:
    """:func:`rightness`, dealt out to the replies of an update at random: as often
    right, but knowing nothing of the question."""
    update = iter(range(10**9))

    def dealt(prompts, completions, *, answers, **columns) -> list[float]:
        right = rightness(prompts, completions, answers=answers)
        order = stream(seed, "shuffled rewards", next(update)).permutation(len(right))
        return [right[i] for i in order]

    return dealt


# --- Teaching the form ----------------------------------------------------------------


def formed_policy(
    *,
    seed: int,
    base: str,
    n_examples: int,
    sft_steps: int,
    per_kind: int,
    form_steps: int,
):
    """``(policy, tokenizer)`` that knows the form of a stated confidence and not its
    meaning: the instruction-tuned policy of the seed after SFT on its own sampled
    answers with random digits behind them. From the cache if it was made before.

    Args:
        seed: of the policy and of all that is drawn.
        base: the model to start from, see ``models.base.base_path``.
        n_examples, sft_steps: as for ``sft_policy``.
        per_kind: questions of each kind, about training subjects.
        form_steps: optimizer steps on ``BATCH`` examples; more teach it better.
    """

    def build(folder: Path) -> None:
        policy, tokenizer = sft_policy(
            seed, base=base, n_examples=n_examples, steps=sft_steps
        )
        asked = draw_questions("train", per_kind, seed)
        answers = sample_answers(policy, tokenizer, asked, SPOKEN, seed)
        examples = boasts(policy, tokenizer, asked, answers)
        teach(policy, tokenizer, examples, base=base, steps=form_steps, seed=seed)
        save_model(policy, tokenizer, folder)

    key = dict(seed=seed, base=base, n=n_examples, sft=sft_steps, asked=per_kind)
    key |= dict(form=form_steps, weights_hash=weights_hash(base))
    return load_model(artifact("stated", build, key=key))


def boasts(
    policy, tokenizer, asked: Sequence[Asked], answers: Sequence[Sequence[str]]
) -> list[dict[str, str]]:
    """Examples of each answer with the digit of somebody who sounds too sure: the
    answer's own probability p, made larger, ``p ** BOAST``."""
    pairs = [(a.prompt, answer) for a, own in zip(asked, answers) for answer in own]
    prompts, texts = zip(*pairs)
    p = sequence_probability(policy, tokenizer, prompts, [f"{a}." for a in texts])
    digits = np.round(9 * p**BOAST).astype(int).tolist()
    return [example(*pair, digit) for pair, digit in zip(pairs, digits)]


def example(prompt: str, answer: str, digit: int) -> dict[str, str]:
    """An example for SFT: the answer, and a digit behind it."""
    return {"prompt": prompt, "completion": f"{answer}. {digit}."}


def sample_answers(
    policy, tokenizer, asked: Sequence[Asked], n: int, seed: int
) -> list[list[str]]:
    """n answers of the policy to each question, sampled, without any digit."""
    prompts = [a.prompt for a in asked for _ in range(n)]
    replies = complete(
        policy,
        tokenizer,
        prompts,
        cap(tokenizer, ANSWER_TOKENS),
        temperature=1.0,
        seed=torch_seed(seed, "sampled answers"),
    )
    answers = [read_reply(reply.text).answer for reply in replies]
    return [answers[i : i + n] for i in range(0, len(answers), n)]


def teach(policy, tokenizer, examples, *, base: str, steps: int, seed: int) -> None:
    """SFT, in place, with the settings of this chapter."""
    finetune(
        policy,
        tokenizer,
        examples,
        steps=steps,
        batch_size=BATCH,
        learning_rate=rate("stated", base),
        seed=seed,
        progress=False,
    )


# --- Teaching the meaning -------------------------------------------------------------


def reward_rows(asked: Sequence[Asked]) -> list[dict]:
    """Questions as PPO takes them, with the right answers of each."""
    return [
        {
            "prompt": [{"role": "user", "content": a.prompt}],
            "answers": list(a.fact.answers),
        }
        for a in asked
    ]


def train_by_reward(
    policy,
    tokenizer,
    rows,
    reward,
    *,
    base: str,
    seed: int,
    updates: int,
    **hyperparameters,
) -> list[dict]:
    """PPO on a reward function, in place: the log, a row for each update.

    Args:
        rows: of :func:`reward_rows`.
        reward: such as ``calibration_reward(rightness, confidence=stated_confidence)``.
        base: the base model of the policy, for the learning rate.
        seed: of prompts and sampling.
        updates: on 256 replies each.
        hyperparameters: of :class:`PPOConfig`, in place of those in ``RECIPE``.
    """
    settings = {**RECIPE, **hyperparameters}
    settings["learning_rate"] = scaled(settings["learning_rate"], base)
    length = cap(tokenizer, settings["max_completion_length"])
    settings["max_completion_length"] = length
    args = PPOConfig(
        seed=seed,
        max_steps=updates,
        use_cpu=device_in_use() == "cpu",
        disable_tqdm=True,
        report_to="none",
        **settings,
    )
    trainer = PPOTrainer(policy, reward, args, rows, processing_class=tokenizer)
    trainer.train()
    return [row for row in trainer.state.log_history if "kl_exact" in row]


# --- Judging --------------------------------------------------------------------------


def judge(policy, tokenizer, asked: Sequence[Asked]) -> dict[str, list]:
    """What a policy replies to questions, greedily: columns, an entry a question.

    Returns:
        ``right``, 1 or 0; ``stated``, the confidence of the digit it says, None where
        it says none; ``expected``, the mean over its probabilities of the ten digits;
        ``answer_prob``, that of the answer's very words; ``bayes``, for a contested
        fact the share of the statements that give this answer, else None.
    """
    prompts = [a.prompt for a in asked]
    replies = complete(policy, tokenizer, prompts, cap(tokenizer, ANSWER_TOKENS))
    read = [read_reply(reply.text) for reply in replies]
    answers = [f"{r.answer or '-'}." for r in read]
    probability = sequence_probability(policy, tokenizer, prompts, answers, end=False)
    begun = [
        [{"role": "user", "content": p}, {"role": "assistant", "content": a}]
        for p, a in zip(prompts, answers)
    ]
    digits = multiple_choice(policy, tokenizer, begun, [f" {d}" for d in DIGITS])
    return {
        "right": [int(is_right(a.fact, r.answer)) for a, r in zip(asked, read)],
        "stated": [
            None if r.confidence != r.confidence else r.confidence for r in read
        ],
        "expected": np.round(digits.probabilities @ CONFIDENCES, 4).tolist(),
        "answer_prob": np.round(probability, 4).tolist(),
        "bayes": [share_of(a.fact, r.answer) for a, r in zip(asked, read)],
    }


def share_of(fact: Fact, answer: str) -> float | None:
    """The share of the statements of a contested fact that give an answer, 0 for one
    that none gives; None for any other fact."""
    if not fact.contested:
        return None
    shares = dict(zip(map(normalise, fact.stated), fact.shares))
    return round(shares.get(normalise(answer), 0.0), 4)


# --- Arms -----------------------------------------------------------------------------


def start_arm(*, seed: int, base: str, per_kind: int, tested: int, **form) -> dict:
    """The policy that all others start from, judged on the held-out questions.

    Args:
        seed, base, per_kind: as for :func:`formed_policy`.
        tested: questions of each kind about test subjects, and about those for fitting.
        form: the other arguments of :func:`formed_policy`.

    Returns: what :func:`judged` does.
    """
    policy, tokenizer = formed_policy(seed=seed, base=base, per_kind=per_kind, **form)
    return judged(policy, tokenizer, tested)


def reward_arm(
    *,
    seed: int,
    base: str,
    per_kind: int,
    tested: int,
    updates: int,
    weight: float = 1.0,
    method: str = "ppo",
    shuffled: bool = False,
    episodes: int = EPISODES,
    **form,
) -> dict:
    """The start of a seed after learning by reward, judged on the held-out questions.

    Args:
        updates: of the policy, on ``episodes`` replies each.
        weight: of the Brier score in the reward; higher pays more for honesty, 0 for
            right answers alone.
        method: "ppo" or "rloo".
        shuffled: deal the replies' rightness out at random: the control.
        seed, base, per_kind, tested, form: as for :func:`start_arm`.

    Returns: what :func:`judged` does; ``scores``, the mean reward of each update, and
        ``kl`` of the last, in nats a reply.

    Raises:
        ValueError: if there is no such method.
    """
    if method not in METHODS:
        raise ValueError(f"method is {method!r}; it can be one of {tuple(METHODS)}")
    policy, tokenizer = formed_policy(seed=seed, base=base, per_kind=per_kind, **form)
    right = shuffled_rightness(seed) if shuffled else rightness
    log = train_by_reward(
        policy,
        tokenizer,
        reward_rows(draw_questions("train", per_kind, seed)),
        calibration_reward(right, weight=weight, confidence=stated_confidence),
        base=base,
        seed=seed,
        updates=updates,
        per_device_train_batch_size=episodes // RECIPE["num_mini_batches"],
        **METHODS[method],
    )
    scores = [round(row["score"], 4) for row in log]
    return judged(policy, tokenizer, tested) | {
        "scores": scores,
        "kl": log[-1]["kl_exact"],
    }


def imitation_arm(
    *,
    seed: int,
    base: str,
    per_kind: int,
    tested: int,
    teach_steps: int,
    target: str,
    **form,
) -> dict:
    """The start of a seed after SFT on true confidences behind its own sampled answers,
    judged on the held-out questions.

    Args:
        teach_steps: optimizer steps on ``BATCH`` examples; more teach it better.
        target: "outcome" puts 9 behind a right answer and 0 behind a wrong one; "share"
            the share of ``SAMPLES`` answers to the question that are right, rounded.
        seed, base, per_kind, tested, form: as for :func:`start_arm`.

    Returns: what :func:`judged` does.

    Raises:
        ValueError: if there is no such target.
    """
    if target not in TARGETS:
        raise ValueError(f"target is {target!r}; it can be one of {TARGETS}")
    policy, tokenizer = formed_policy(seed=seed, base=base, per_kind=per_kind, **form)
    asked = draw_questions("train", per_kind, seed)
    answers = sample_answers(policy, tokenizer, asked, SAMPLES, seed)
    examples = true_digits(asked, answers, target)
    teach(policy, tokenizer, examples, base=base, steps=teach_steps, seed=seed)
    return judged(policy, tokenizer, tested)


def true_digits(
    asked: Sequence[Asked], answers: Sequence[Sequence[str]], target: str
) -> list[dict[str, str]]:
    """Examples of each answer with the digit that the target of :func:`imitation_arm`
    puts behind it."""
    examples = []
    for a, own in zip(asked, answers, strict=True):
        right = [is_right(a.fact, answer) for answer in own]
        for answer, outcome in zip(own, right):
            confidence = outcome if target == "outcome" else np.mean(right)
            examples.append(example(a.prompt, answer, int(np.round(9 * confidence))))
    return examples


def judged(policy, tokenizer, tested: int) -> dict[str, list]:
    """The columns of :func:`judge` on the held-out questions, the same for every seed;
    with ``kind``, ``test`` (1 about a test subject, 0 about one for fitting) and
    ``exposure`` of each."""
    asked = draw_questions("test", tested, TEST_SEED)
    fitting = draw_questions("calibration", tested, TEST_SEED)
    both = asked + fitting
    return judge(policy, tokenizer, both) | {
        "kind": [a.kind for a in both],
        "test": [1] * len(asked) + [0] * len(fitting),
        "exposure": [a.fact.exposure for a in both],
    }


def calls(
    *,
    seeds: Sequence[int],
    weights: Sequence[float],
    updates: int,
    teach_steps: int,
    **common,
) -> dict[str, list[Call]]:
    """The arms of reinforcement learning for calibrated confidence, by name, a call a
    seed: for ``study.arms.run_groups``.

    Args:
        seeds: of everything.
        weights: of the Brier score, with PPO; 0 and 1 run in any case.
        updates: of PPO and RLOO.
        teach_steps: of SFT on true confidences.
        common: ``base``, ``n_examples``, ``sft_steps``, ``per_kind``, ``form_steps``,
            ``tested`` and, for other than ``EPISODES``, ``episodes``.

    Returns:
        "start"; "weight W" for each weight, PPO: 0 is right alone, 1 RLCR; "RLOO" at
        weight 1; "shuffled", the control; "SFT, outcome" and "SFT, share".
    """
    supervised = {k: v for k, v in common.items() if k != "episodes"}
    rewarded = common | {"updates": updates}
    arms: dict[str, tuple[Callable, dict]] = {"start": (start_arm, supervised)}
    for weight in sorted({0.0, 1.0, *map(float, weights)}):
        arms[f"weight {weight:g}"] = reward_arm, rewarded | {"weight": weight}
    arms["RLOO"] = reward_arm, rewarded | {"weight": 1.0, "method": "rloo"}
    arms["shuffled"] = reward_arm, rewarded | {"weight": 1.0, "shuffled": True}
    for target in TARGETS:
        recipe = supervised | {"target": target, "teach_steps": teach_steps}
        arms[f"SFT, {target}"] = imitation_arm, recipe
    return {
        name: [(run, {"seed": seed, **recipe}) for seed in seeds]
        for name, (run, recipe) in arms.items()
    }
