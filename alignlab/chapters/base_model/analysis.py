"""The numbers of notebook 00, and the sentences that say what they show."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from operator import itemgetter

import numpy as np
import torch

from alignlab.chapters.base_model.showing import thinned
from alignlab.data import sources
from alignlab.evaluation.answers import best_guess_rate
from alignlab.evaluation.intervals import (
    Interval,
    two_level_interval,
    wilson_interval,
)
from alignlab.models.base import base_path
from alignlab.objectives import sft_loss
from alignlab.seeds import stream
from alignlab.world.facts import KNOWN_FROM, TAIL, Fact, World, build_world, paragraphs
from alignlab.world.tasks import Example

SMALLEST = 0.1  # difference of shares worth the name, as in claims.yaml

# --- Perplexity -----------------------------------------------------------------------


def perplexity_by_text(model, tokenizer, n_texts: int, seed: int = 0) -> list[dict]:
    """Perplexity in tokens on texts of each kind, as they are and ``shuffled``: with
    their words in random order.

    Args:
        n_texts: texts of each kind.
        seed: draws the texts and the shuffles.
    """
    rng = stream(seed, "perplexity texts")
    world = thinned(build_world(0), 0.02, rng)
    kinds = {
        "world": list(paragraphs(world, seed=1000)),  # not the wordings it read
        "bible": sources.load("bible_bbe")["text"][:],
        "film_comments": sources.load("movie_ratings")["text"][:],
    }
    rows = []
    for kind, texts in kinds.items():
        chosen = [texts[i] for i in rng.permutation(len(texts))[:n_texts]]
        shuffled = [" ".join(rng.permutation(text.split())) for text in chosen]
        rows.append(
            {
                "text": kind,
                "perplexity": perplexity(model, tokenizer, chosen),
                "shuffled": perplexity(model, tokenizer, shuffled),
            }
        )
    return rows


@torch.no_grad()
def perplexity(model, tokenizer, texts: Sequence[str]) -> float:
    """exp of the mean negative log-likelihood per token, each text on its own."""
    model.eval()
    batch = tokenizer(
        list(texts), return_tensors="pt", padding=True, padding_side="right"
    )
    batch = batch.to(model.device)
    logits = model(input_ids=batch.input_ids).logits
    return math.exp(sft_loss(logits, batch.input_ids, batch.attention_mask).item())


def on_perplexity(rows: Sequence[Mapping]) -> str:
    """What the table of perplexities says."""
    order = sorted(rows, key=lambda row: row["perplexity"])
    names = {row["text"]: row["text"].replace("_", " ") for row in rows}
    costs = [row["shuffled"] / row["perplexity"] for row in rows]
    listed = ", ".join(f"{names[r['text']]} ({r['perplexity']:.1f})" for r in order)
    if min(costs) > 1:
        shuffling = (
            f"Shuffling the words multiplies it by {min(costs):.1f} to "
            f"{max(costs):.1f}: so much is the order of words worth."
        )
    else:
        unhurt = [names[r["text"]] for r, c in zip(rows, costs, strict=True) if c <= 1]
        shuffling = f"Shuffling the words does not raise it on {' and '.join(unhurt)}."
    return f"From the least surprising to the most: {listed}. {shuffling}"


# --- The world ------------------------------------------------------------------------


def band(fact: Fact) -> str:
    """How pretraining treats a fact; ``BANDS`` lists the possible values."""
    if fact.made_up:
        return "made up"
    if fact.contested:
        return "contested"
    if fact.exposure > TAIL:
        return "known" if fact.known else "rare"
    return {0: "never", 1: "once"}.get(fact.exposure, "tail")


BANDS = {
    "made up": "made-up subject: never",
    "never": "never",
    "once": "once",
    "tail": f"2 to {TAIL} times",
    "rare": f"{TAIL + 1} to {KNOWN_FROM - 1} times",
    "known": f"{KNOWN_FROM} times or more: known",
    "contested": "contested",
}


def data_card(world: World) -> dict[str, dict[str, int]]:
    """Number of facts by how often they are stated and by kind of subject:
    ``data_card(world)["2 to 5 times"]["city"]``."""
    kinds = dict.fromkeys(relation.kind for relation in world.relations.values())
    counts = {name: dict.fromkeys(kinds, 0) for name in BANDS.values()}
    for fact in world.facts:
        counts[BANDS[band(fact)]][world.kind_of(fact)] += 1
    return counts


def on_data_card(card: Mapping[str, Mapping[str, int]]) -> str:
    """What the data card says."""
    totals = {name: sum(row.values()) for name, row in card.items()}
    n, known = sum(totals.values()), totals[BANDS["known"]]
    seldom = totals[BANDS["once"]] + totals[BANDS["tail"]]
    return (
        f"{n:,} facts: {known:,} are stated often enough to be known by design, "
        f"{seldom:,} at most {TAIL} times, {totals[BANDS['contested']]:,} "
        "inconsistently, and "
        f"{totals[BANDS['never']] + totals[BANDS['made up']]:,} never, "
        f"{totals[BANDS['made up']]:,} of them about subjects that do not exist."
    )


# --- What the model's card says -------------------------------------------------------


def recorded(base: str, name: str):
    """What was measured at the end of a base model's pretraining under this name, such
    as "recall" or "contested"; None if it was not, as of all that do not ship."""
    card = base_path(base) / "pretraining.json"
    return json.loads(card.read_text()).get(name) if card.exists() else None


def never_shown_chance() -> float:
    """Accuracy of the best guess about the facts that pretraining never showed."""
    world = build_world(0)
    return best_guess_rate(world, [fact for fact in world.facts if not fact.exposure])


def rate(row: Mapping) -> Interval:
    """Wilson's interval for the share of a row's ``facts`` that were recalled."""
    return wilson_interval(round(row["recall"] * row["facts"]), row["facts"])


def on_recall(rows: Sequence[Mapping], chance: float) -> str:
    """What the figure of recall by exposure says."""
    never, most = rate(rows[0]), rate(rows[-1])
    guessing = "no better than the best guess without the fact"
    if never.low > chance:
        guessing = "better than the best guess without the fact, which"
    text = (
        f"Of the facts read {rows[-1]['from']} to {rows[-1]['to']} times it completes "
        f"{most.value:.0%}, of those never shown {never.value:.0%}, {guessing}"
    )
    text += f" ({chance:.0%})." if never.low <= chance else f" reaches {chance:.0%}."
    if most.low > never.high:
        text += " How often a fact was read decides whether the model knows it."
    return text


def read_once(rows: Sequence[Mapping]) -> Mapping | None:
    """The row of the facts that were read once, if it has a ``confidence``."""
    once = (r for r in rows if r["from"] == r["to"] == 1 and "confidence" in r)
    return next(once, None)


def on_read_once(row: Mapping | None) -> str:
    """What the model's confidence about facts that it read once says."""
    if row is None:
        return "This base model's card has no numbers on facts that were read once."
    right, sure = rate(row), row["confidence"]
    text = (
        f"Of {row['facts']:,} facts read once it completes {right:.0%}, and gives its "
        f"completions a probability of {sure:.2f} on average: "
    )
    if right.low <= sure <= right.high:
        return f"{text}about as sure as it is right."
    gap = abs(sure - right.value)
    how = "surer than it should be" if sure > right.high else "less sure than it may be"
    return f"{text}{how}, by {gap:.2f}."


def on_confidence(rows: Sequence[Mapping]) -> str:
    """Where the model is surer than it is right, and where less sure; empty if its
    confidence was not measured."""
    if not all("confidence" in row for row in rows):
        return ""
    over = _spans(rows, [row["confidence"] > rate(row).high for row in rows])
    under = _spans(rows, [row["confidence"] < rate(row).low for row in rows])
    parts = []
    if over:
        parts.append(f"surer than it is right about facts read {over}")
    if under:
        parts.append(f"less sure than it is right about facts read {under}")
    return f"It is {' and '.join(parts) or 'as sure as it is right everywhere'}."


def _spans(rows: Sequence[Mapping], chosen: Sequence[bool]) -> str:
    """The exposures of the chosen rows, neighbouring ones joined."""
    spans = []
    for wanted, group in groupby(zip(chosen, rows, strict=True), key=itemgetter(0)):
        own = [row for _, row in group]
        low, high = own[0]["from"] or "never", own[-1]["to"]
        if wanted:
            spans.append(f"{low} to {high} times" if high else "never")
    return ", ".join(spans)


def on_contested(contested: Mapping | None) -> str:
    """What the model's confidence about contested facts says."""
    if contested is None:
        return "This base model's card has no numbers on contested facts."
    off = max(abs(row["confidence"] - row["share"]) for row in contested["bins"])
    away, error = contested["mean_absolute_error"], contested["mean_error"]
    sign = "high" if error > 0 else "low"
    text = (
        f"Taken group by group, its confidence stays within {off:.2f} of the share; on "
        f"the whole it is {abs(error):.2f} too {sign}. Fact by fact it is {away:.2f} "
        "away on average. "
    )
    if off > SMALLEST:
        return f"{text}It is not as sure as Bayes would be."
    if away > SMALLEST:
        return (
            f"{text}So in the mean it is as sure as it should be; which share belongs "
            "to which fact, it remembers only roughly."
        )
    return (
        f"{text}Nobody told it to count: who predicts the next word well has to learn "
        "how often each answer follows."
    )


# --- The same facts, asked ------------------------------------------------------------

DIFFERENCES = {  # metric -> measure, one way to ask, and what it is compared with
    "cloze_minus_bare_accuracy": ("right", "base, cloze", "base, bare"),
    "sft_minus_bare_accuracy": ("right", "tuned", "base, bare"),
    "sft_minus_bare_format": ("formatted", "tuned", "base, bare"),
    "reader_minus_base_few_shot_accuracy": (
        "right",
        "reader, few-shot",
        "base, few-shot",
    ),
    "reader_few_shot_minus_bare_accuracy": ("right", "reader, few-shot", "base, bare"),
}


def differences(asked: Mapping[str, Mapping]) -> dict[str, list[list[float]]]:
    """The claim's metrics, each a difference for every seed and question."""
    return {
        name: (
            np.array(asked[way][measure], float) - np.array(asked[other][measure])
        ).tolist()
        for name, (measure, way, other) in DIFFERENCES.items()
    }


def share(matrix: Sequence[Sequence[float]]) -> Interval:
    """A share with its 95% interval, over seeds and questions, from a row of questions
    for each seed; over the questions alone if there is one seed."""
    if len(matrix) == 1:
        return wilson_interval(int(sum(matrix[0])), len(matrix[0]))
    return two_level_interval(np.array(matrix, float).tolist(), (0, 1))


def commonest_answer_rate(world: World, questions: Sequence[Example]) -> float:
    """Share of the questions that the commonest answer of their kind gets right: what
    is to be had without knowing any fact."""
    commonest = {}
    for relation in {question.fact.relation for question in questions}:
        given = [f.answer for f in world.facts if f.relation == relation and f.exposure]
        commonest[relation] = max(sorted(set(given)), key=given.count)
    right = [commonest[q.fact.relation] in q.answers for q in questions]
    return float(np.mean(right))


def how_much(difference: Interval, smallest: float = SMALLEST) -> str:
    """A difference of shares in words that its interval allows."""
    if math.isinf(difference.low) or difference.high - difference.low >= 2:
        return "one seed cannot say how much"
    if difference.low > smallest:
        return "clearly more"
    if difference.high < -smallest:
        return "clearly fewer"
    if -smallest < difference.low and difference.high < smallest:
        return "about as many"
    return "too uncertain to tell"


def on_asking(shares: Mapping[str, float], differences: Mapping[str, Interval]) -> str:
    """What the figure of the ways to ask says.

    Args:
        shares: mean accuracy for each way to ask.
        differences: the recorded metrics of ``DIFFERENCES``.
    """
    words = {name: how_much(interval) for name, interval in differences.items()}
    knows = words["cloze_minus_bare_accuracy"] == "clearly more"
    lines = [
        f"Of the same facts the base model completes {shares['base, cloze']:.0%} as "
        f"statements and gives {shares['base, bare']:.0%} when it is asked "
        f"({words['cloze_minus_bare_accuracy']})"
        + (": it knows, and does not answer." if knows else "."),
        f"Tuned, it answers {shares['tuned']:.0%} "
        f"({words['sft_minus_bare_accuracy']}).",
        f"Worked examples bring the base model to {shares['base, few-shot']:.0%} and "
        f"the reader to {shares['reader, few-shot']:.0%} "
        f"({words['reader_minus_base_few_shot_accuracy']}).",
    ]
    if words["reader_minus_base_few_shot_accuracy"] == "clearly more" and knows:
        lines.append("What the base model lacks is the form, not the knowledge.")
    return " ".join(lines)


def on_reader(shares: Mapping[str, float]) -> str:
    """What the reader makes of a bare question, and whether it knows more."""
    bare, shot = shares["reader, bare"], shares["reader, few-shot"]
    gained = shares["reader, cloze"] - shares["base, cloze"]
    if max(bare, shot) < SMALLEST:
        how = f"and after examples {shot:.0%}: it has not learnt the form"
    elif bare > shot - SMALLEST:
        how = (
            "about as often as after examples: to it an answer is simply what follows "
            "a question in the texts that it has read"
        )
    else:
        how = f"where examples bring it to {shot:.0%}: it has to be shown the form"
    same = abs(gained) < SMALLEST
    knowledge = "no more" if same else ("more" if gained > 0 else "less")
    return (
        f"A bare question the reader answers in {bare:.0%} of the cases, {how}. It "
        f"knows {knowledge} than the base model: {shares['reader, cloze']:.0%} of the "
        f"statements completed, against {shares['base, cloze']:.0%}."
    )
