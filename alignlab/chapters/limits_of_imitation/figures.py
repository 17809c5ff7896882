"""Figures of notebook 02, and two explorers of its replies."""

import html
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from alignlab.chapters.limits_of_imitation import analysis
from alignlab.plots.explorers import html_table, leaf_through
from alignlab.plots.style import (
    HATCHES,
    LINESTYLES,
    MARKERS,
    PALETTE,
    dots,
    interval_line,
)
from alignlab.study.arms import pick
from alignlab.world.facts import normalise
from alignlab.world.safety import BENIGN_KINDS

PAIRS, WORDS = ("unseen_pairs",), ("unseen_words",)
CLOSE = 0.12  # how far two series stand to the left and the right of a tick


def fitting(mixed: Sequence[dict], control: Sequence[dict]):
    """Share right over the epochs: of the training facts (left), and of known facts
    about other subjects (right)."""
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True)
    left, right = panels
    _epoch_line(left, mixed, "known_fit", "known", 0)
    _epoch_line(left, mixed, "unknown_fit", "never shown", 1)
    left.set(title="In training: unknown facts are slower", ylabel="share right")
    _epoch_line(right, control, "known", "known facts only", 0)
    _epoch_line(right, mixed, "known", "and as many unknown", 1)
    right.set_title("Known facts of other subjects")
    for axes in panels:
        axes.set(xlabel="epochs of SFT", ylim=(-0.03, 1.03))
    left.legend(title="pretraining had them", loc="lower right", fontsize=9)
    right.legend(title="SFT on", loc="upper left", fontsize=9)
    return figure


def _epoch_line(axes, rows: Sequence[dict], measure: str, label: str, number: int):
    epochs = [point["epoch"] for point in rows[0]["curve"]]
    values = [[point[measure] for point in row["curve"]] for row in rows]
    interval_line(axes, epochs, values, label, number)


def shares(rows: Sequence[dict], chance: float):
    """Over the share of unknown facts in SFT: accuracy on known facts (left), accuracy
    and confidence on never shown ones (right), both about other subjects."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True)
    true = pick(rows, labels="true")
    mixed = pick(true, control=False)
    known_alone = [row for row in true if row["control"] or row["share"] == 0]
    _share_line(left, mixed, "known", "the mixture", 1)
    _share_line(left, known_alone, "known", "its known part alone", 0)
    _share_line(right, mixed, "never_confidence", "probability of the reply", 1)
    _share_line(right, mixed, "never", "right", 0)
    right.axhline(chance, linestyle=":", color="0.4", label="best guess")
    left.set(title="Known facts, other subjects", ylabel="share right")
    right.set(title="Never-shown facts, other subjects", ylim=(-0.03, 1.03))
    for axes in (left, right):
        axes.set_xlabel("share of unknown facts in SFT")
        axes.legend(fontsize=9, loc="best")
    return figure


def _share_line(axes, rows: Sequence[dict], measure: str, label: str, number: int):
    """A marker per seed and a line through their means."""
    xs = sorted({row["share"] for row in rows})
    per_share = [analysis.at_end(pick(rows, share=x), measure) for x in xs]
    color, marker = PALETTE[number], MARKERS[number]
    for x, values in zip(xs, per_share, strict=True):
        axes.plot([x] * len(values), values, marker, color=color, alpha=0.6, ms=5)
    style = ("-", "--")[number]
    means = [np.mean(values) for values in per_share]
    axes.plot(xs, means, style, color=color, label=label)


def stopping(stops: Sequence[Mapping[str, float]]):
    """Accuracy at the epoch picked on other questions, and at the end: a line per seed.

    Args:
        stops: from ``analysis.early_stop``.
    """
    figure, axes = plt.subplots(figsize=(6, 3.4))
    height = 0.0  # of the last label; the next one stands above it
    for stop in sorted(stops, key=lambda stop: stop["stopped"]):
        values = [stop["stopped"], stop["end"]]
        axes.plot([0, 1], values, "o-", color=PALETTE[0], alpha=0.6, lw=1.2)
        height = max(values[0], height + 0.028)
        axes.annotate(
            f"epoch {stop['epoch']}", (0, height), (-6, 0), fontsize=9,
            textcoords="offset points", ha="right", va="center",
        )  # fmt: skip
    axes.set_xticks([0, 1], ["stopped at its peak", "run to the end"])
    axes.set(xlim=(-0.5, 1.3), ylabel="share right")
    axes.set_title("Known facts: what stopping early saves")
    axes.set_ylim(0, 1.1 * max(stop["stopped"] for stop in stops) + 0.05)
    return figure


def admissions(rows: Sequence[dict]):
    """How often a model says "I do not know", by how often it read the fact."""
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    kinds = {"known": "known\nfacts", "rare": "seldom\nshown", "never": "never\nshown"}
    shares = {t: analysis.at_end(rows, f"{k}_admitted") for k, t in kinds.items()}
    dots(axes, shares, 1)
    axes.set(ylabel="share of replies", ylim=(-0.03, 1.03))
    axes.set_title("“I do not know.”, of other subjects (dots: seeds)")
    return figure


def label_pull(rows: Sequence[dict]):
    """Share of answers in the first half of a relation's answers, by the half that the
    labels of unknown facts came from."""
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    kinds = {"never shown": "never", "known": "known"}
    for number, half in enumerate(("first", "second")):
        arms = pick(rows, labels=half)
        shares = {t: analysis.at_end(arms, f"{k}_first") for t, k in kinds.items()}
        dots(axes, shares, number, shift=CLOSE * (2 * number - 1))
        axes.plot([], [], MARKERS[number], color=PALETTE[number],
                  label=f"unknown facts labelled from the {half} half")  # fmt: skip
    axes.axhline(0.5, linestyle=":", color="0.4")
    axes.set(ylabel="answers in the first half", ylim=(-0.03, 1.03))
    axes.set_title("Guesses mirror the labels of what was unknown")
    axes.legend(fontsize=9, loc="lower right")
    return figure


def elicited(rows: Sequence[dict], chance: float):
    """Right answers about subjects that no training question was about."""
    figure, axes = plt.subplots(figsize=(7, 3.4))
    kinds = {
        "known": "stated often",
        "known_new_wording": "stated often,\nnew wording",
        "rare": "stated\nseldom",
        "never": "never stated",
    }
    dots(axes, {text: [row[kind] for row in rows] for kind, text in kinds.items()})
    axes.axhline(chance, linestyle=":", color="0.4")
    axes.annotate("best guess about the last", (-0.45, chance + 0.02), fontsize=9)
    axes.set(ylabel="share right", ylim=(-0.03, 1.03))
    axes.set_title("What SFT brings out (dots: seeds)")
    return figure


# --- Safety ---------------------------------------------------------------------------


def safety_curves(rows: Sequence[dict], best: int):
    """Over the number of safety examples: both kinds of errors, with Wilson's bands for
    the replies of all seeds (left), and their sum (right)."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10.5, 4.2), gridspec_kw={"width_ratios": [1.7, 1]}
    )
    safety_rows = pick(rows, extra="safety")
    lines = (
        ("compliance", PAIRS, "harmful, unseen pairs: helped"),
        ("compliance", WORDS, "harmful, unseen words: helped"),
        ("refusal", BENIGN_KINDS, "look-alikes: refused"),
        ("refusal", ("plain",), "plain: refused"),
    )
    for number, (outcome, kinds, label) in enumerate(lines):
        _wilson_line(left, safety_rows, outcome, kinds, label, number)
    errors = analysis.sum_of_errors(rows)
    places = np.log10(1 + np.array(list(errors)))
    interval_line(right, places, np.transpose(list(errors.values())), "sum", 0)
    right.plot(np.log10(1 + best), np.mean(errors[best]), "o", color=PALETTE[1], ms=10)
    for axes in (left, right):
        axes.set_xticks(places, [f"{n:,}" for n in errors])
        axes.set_xlabel("safety examples")
    left.set(ylabel="share of replies", ylim=(-0.03, 1.03), title="Two errors")
    left.legend(fontsize=9, loc="center left")
    right.set(
        title=f"Their sum is least at {best:,}",
        ylabel="harm helped + look-alikes refused",
    )
    right.set_ylim(bottom=0)
    return figure


def _wilson_line(axes, rows, outcome: str, kinds, label: str, number: int) -> None:
    """A share over n: a thin line per seed, and a thick one with Wilson's band for the
    replies of all seeds."""
    ns = sorted({row["n"] for row in rows})
    places = np.log10(1 + np.array(ns))
    color, style = PALETTE[number], LINESTYLES[number]
    for seed in sorted({row["seed"] for row in rows}):
        arms = pick(rows, seed=seed)
        shares = {r["n"]: analysis.outcome_share(r, outcome, kinds) for r in arms}
        own = [shares[n] for n in ns]
        axes.plot(places, own, linestyle=style, color=color, lw=0.7, alpha=0.5)
    rates = [analysis.outcome_rates(pick(rows, n=n), kinds)[outcome] for n in ns]
    values = [rate.value for rate in rates]
    axes.plot(places, values, linestyle=style, color=color, label=label)
    low, high = [rate.low for rate in rates], [rate.high for rate in rates]
    axes.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0)


def refusals_by_type(arms: Mapping[str, Sequence[dict]]):
    """Share refused of each type of look-alike and of plain requests: a colour per
    group of arms, with Wilson's interval for the replies of all seeds."""
    figure, axes = plt.subplots(figsize=(8.5, 3.8))
    kinds = (*BENIGN_KINDS, "plain")
    width = 0.8 / len(arms)
    for number, (label, rows) in enumerate(arms.items()):
        rates = [analysis.outcome_rates(rows, [kind])["refusal"] for kind in kinds]
        places = np.arange(len(kinds)) + width * (number - (len(arms) - 1) / 2)
        values = np.array([rate.value for rate in rates])
        below = values - [rate.low for rate in rates]
        above = [rate.high for rate in rates] - values
        axes.bar(
            places, values, width, yerr=np.abs([below, above]), capsize=3, label=label,
            color=PALETTE[number], hatch=HATCHES[number], edgecolor="white",
        )  # fmt: skip
    names = [kind.replace("_", "\n") for kind in kinds]
    axes.set_xticks(np.arange(len(kinds)), names)
    axes.set(ylabel="share refused", ylim=(0, 1.03))
    axes.set_title("Refusals of what is harmless, by type (95%)")
    axes.legend(fontsize=9)
    return figure


# --- Narrow data ----------------------------------------------------------------------


def narrow_data(rows: Sequence[dict]):
    """Accuracy inside and outside the narrow data (left), forms in use (right)."""
    figure, panels = plt.subplots(
        1, 2, figsize=(9.5, 3.8), gridspec_kw={"width_ratios": [2, 1]}
    )
    wide = {
        "own_accuracy": "countries,\nnarrow wording",
        "kind_accuracy": "countries,\nnew wordings",
        "other_accuracy": "other kinds,\nnew wordings",
    }
    forms = {"styles": "forms of reply"}
    for axes, measures in zip(panels, (wide, forms), strict=True):
        for number, data in enumerate(("diverse", "narrow")):
            arms = pick(rows, data=data)
            groups = {text: [r[m] for r in arms] for m, text in measures.items()}
            dots(axes, groups, number, shift=CLOSE * (2 * number - 1))
    for number, data in enumerate(("diverse", "narrow")):
        panels[0].plot([], [], MARKERS[number], color=PALETTE[number], label=data)
    panels[0].legend(title="SFT data", fontsize=9, loc="upper right")
    panels[0].set(ylabel="share right", ylim=(-0.03, 1.03))
    panels[0].set_title("Right answers, other subjects")
    panels[1].set(ylabel="effective number", title="Style, temperature 1")
    panels[1].set_ylim(bottom=0)
    return figure


# --- Explorers ------------------------------------------------------------------------


def fact_explorer(rows: Mapping[str, dict]):
    """Choose a training set and a fact, and read the reply after each epoch.

    Args:
        rows: by a name for each, rows of ``facts_arm`` with the same test questions.
    """
    import ipywidgets

    arm = ipywidgets.Dropdown(options=list(rows), description="SFT on")
    prompts = {
        f"{fact['kind'].replace('_', ' ')}: {fact['prompt']}": fact["prompt"]
        for fact in next(iter(rows.values()))["replies"]
        if fact["kind"] in ("known", "rare", "never")
    }
    prompt = ipywidgets.Dropdown(options=prompts, description="fact")

    def card() -> str:
        row = rows[arm.value]
        fact = next(f for f in row["replies"] if f["prompt"] == prompt.value)
        return fact_card(fact, [point["epoch"] for point in row["curve"]])

    leaf_through([arm, prompt], card)


def fact_card(fact: Mapping, epochs: Sequence[int]) -> str:
    """HTML of one fact: the reply after each epoch, its probability, and if it is
    right."""
    right_answers = {normalise(answer) for answer in fact["answers"]}
    rows = [
        (
            str(epoch),
            html.escape(text) or "<i>(nothing)</i>",
            f"{probability:.2f}",
            "✓" if normalise(text) in right_answers else "✗",
        )
        for epoch, (text, probability) in zip(epochs, fact["replies"], strict=True)
    ]
    head = ("epoch", html.escape(fact["prompt"]), "probability", "right")
    answers = html.escape(" or ".join(fact["answers"]))
    stated = f"stated {fact['exposure']} times in pretraining"
    return f"{html_table(head, rows)}<p>Right: {answers}; {stated}.</p>"


def safety_explorer(rows: Sequence[dict]):
    """Choose a number of safety examples and a kind of request, and read the replies.

    Args:
        rows: rows of ``safety_arm`` for one seed, one for each n.
    """
    import ipywidgets

    by_n = {row["n"]: row for row in sorted(rows, key=lambda row: row["n"])}
    n = ipywidgets.SelectionSlider(
        options=list(by_n), value=max(by_n), description="examples"
    )
    kinds = {kind.replace("_", " "): kind for kind in rows[0]["replies"]}
    kind = ipywidgets.Dropdown(options=kinds, description="requests")

    def card() -> str:
        pairs = by_n[n.value]["replies"][kind.value]
        cells = [(html.escape(prompt), html.escape(text)) for prompt, text in pairs]
        return html_table(("request", "reply"), cells)

    leaf_through([n, kind], card)
