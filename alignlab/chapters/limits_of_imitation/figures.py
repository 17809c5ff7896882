"""Figures of notebook 02, and two explorers of its replies."""

import html
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from alignlab.chapters.limits_of_imitation import analysis
from alignlab.evaluation.intervals import t_interval
from alignlab.plots.explorers import as_html, explore, html_table
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
SHARES = (-0.03, 1.03)  # limits of an axis of shares


def _dots(axes, groups: Mapping[str, Sequence[float]], number=0, shift=0.0) -> None:
    """A dot per seed, their mean, and the mean's 95% t-interval."""
    dots(axes, groups, number, shift)
    for place, values in enumerate(groups.values()):
        if len(values) > 1:
            interval = t_interval(values)
            limits = [interval.low, interval.high]
            axes.plot([place + shift] * 2, limits, color="0.2", lw=1.5)


def _legend_of_dots(axes, labels: Sequence[str], **options) -> None:
    for number, label in enumerate(labels):
        style = dict(color=PALETTE[number], marker=MARKERS[number])
        axes.plot([], [], **style, linestyle="", label=label)
    axes.legend(fontsize=9, title_fontsize=9, **options)


# --- What SFT brings out --------------------------------------------------------------


def elicited(
    rows: Sequence[dict],
    guesses: Mapping[str, float],
    curve: Mapping[str, Sequence[float]],
    guess: float,
):
    """Right answers about subjects that no training question was about: by kind of fact
    (left), and over exposure in the relations that the long tail has (right).

    Args:
        guesses: accuracy of the best guess about the facts of each kind.
        curve: of ``analysis.by_exposure``.
        guess: accuracy of the best guess in those relations.
    """
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(11.5, 4), gridspec_kw={"width_ratios": [1.15, 1]}
    )
    kinds = {
        "made_up": (dict(kind="never", made_up=True), "made up"),
        "never": (dict(kind="never", made_up=False), "0"),
        "tail": (dict(kind="tail"), "1–5"),
        "rare": (dict(kind="rare"), "6–99"),
        "known": (dict(kind="known"), "100+"),
        "new_wording": (dict(kind="new_wording"), "100+, new\nwordings"),
    }
    shares = {
        n: analysis.shares_right(rows, **wanted) for n, (wanted, _) in kinds.items()
    }
    _dots(left, {kinds[name][1]: values for name, values in shares.items()})
    for place, name in enumerate(kinds):
        left.plot([place - 0.32, place + 0.32], [guesses[name]] * 2, ":", color="0.3",
                  label="best guess" if not place else None)  # fmt: skip
    left.set(ylabel="share right", ylim=SHARES, xlabel="statements in pretraining")
    left.set_title("All relations")
    left.legend(fontsize=9, loc="upper left")
    _dots(right, curve, 1)
    right.tick_params(axis="x", labelsize=10)
    right.axhline(guess, linestyle=":", color="0.3", label="best guess, never stated")
    right.set(ylim=SHARES, xlabel="statements in pretraining")
    right.set_title("Countries of cities, classes of words")
    right.legend(fontsize=9, loc="upper left")
    return figure


# --- Facts ----------------------------------------------------------------------------


def fitting(mixture: Sequence[dict], alone: Sequence[dict]):
    """Share right over the updates: of the training facts (left), and of known facts
    about other subjects (right)."""
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True)
    left, right = panels
    _line(left, mixture, "known_fit", "known", 0)
    _line(left, mixture, "never_fit", "never shown", 1)
    left.set(title="Trained facts of the mixture", ylabel="share right")
    _line(right, alone, "known", "known facts alone", 0)
    _line(right, mixture, "known", "and as many never shown", 1)
    half = alone[0]["curve"][-1]["update"] / 2
    right.axvline(half, color="0.6", lw=1, linestyle=":")
    right.annotate(
        "known alone: as many\nepochs as the mixture\nhas at the end", (half, 0.0),
        (5, 0), textcoords="offset points", fontsize=8, color="0.35",
    )  # fmt: skip
    right.set_title("Known facts of other subjects")
    for axes in panels:
        axes.set(xlabel="updates of SFT", ylim=SHARES)
    small = dict(fontsize=9, title_fontsize=9)
    left.legend(title="pretraining had them", loc="lower right", **small)
    right.legend(title="SFT on", loc=(0.35, 0.25), **small)
    return figure


def _line(axes, rows: Sequence[dict], kind: str, label: str, number: int) -> None:
    updates = [point["update"] for point in rows[0]["curve"]]
    values = [[np.mean(p[kind]["right"]) for p in row["curve"]] for row in rows]
    interval_line(axes, updates, values, label, number)


def stopping(stops: Sequence[Mapping[str, float]]):
    """Accuracy at the update picked on other questions, and at the end: a line per
    seed.

    Args:
        stops: from ``analysis.early_stop``.
    """
    figure, axes = plt.subplots(figsize=(6, 3.4))
    height = 0.0  # of the last label; the next one stands above it
    for stop in sorted(stops, key=lambda stop: stop["stopped"]):
        values = [stop["stopped"], stop["end"]]
        axes.plot([0, 1], values, "o-", color=PALETTE[0], alpha=0.6, lw=1.2)
        height = max(values[0], height + 0.055)
        axes.annotate(
            f"update {stop['update']}", (0, height), (-6, 0), fontsize=9,
            textcoords="offset points", ha="right", va="center",
        )  # fmt: skip
    axes.set_xticks([0, 1], ["at the picked look", "at the end"])
    axes.set(xlim=(-0.5, 1.3), ylabel="share right")
    axes.set_title("Does stopping early save known facts?")
    axes.set_ylim(0, min(1.03, 1.1 * max(height, *values) + 0.05))
    return figure


def answer_rates(answering: Sequence[dict], admitting: Sequence[dict]):
    """Share of replies that are answers, not admissions, by what pretraining showed."""
    figure, axes = plt.subplots(figsize=(8, 3.8))
    names = {"known": "100 times\nor more", "rare": "6–99", "tail": "1–5"}
    names |= {"never": "never", "made up": "made up"}
    for number, rows in enumerate((answering, admitting)):
        rates = analysis.answer_rates(rows)
        groups = {names[kind]: values for kind, values in rates.items()}
        _dots(axes, groups, number, CLOSE * (2 * number - 1))
    labels = ("answered, a quarter admitted", "all admitted")
    _legend_of_dots(axes, labels, title="never-shown facts in SFT", loc="lower left")
    axes.set(ylabel="answer rate", ylim=SHARES, xlabel="statements in pretraining")
    axes.set_title("Who answers, about other subjects?")
    return figure


def label_pull(first: Sequence[dict], second: Sequence[dict]):
    """Share of answers in the first half of a relation's answers, by the half that the
    labels of never-shown facts came from."""
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    kinds = {"never shown": "never", "known": "known"}
    for number, rows in enumerate((first, second)):
        shares = {t: analysis.first_half_share(rows, k) for t, k in kinds.items()}
        _dots(axes, shares, number, CLOSE * (2 * number - 1))
    axes.axhline(0.5, linestyle=":", color="0.4")
    axes.set(ylabel="answers in the first half", ylim=SHARES)
    axes.set_title("Do guesses mirror the labels?")
    labels = [f"labelled from the {half} half" for half in ("first", "second")]
    _legend_of_dots(axes, labels, loc="lower right")
    return figure


# --- Safety ---------------------------------------------------------------------------


def safety_curves(rows: Sequence[dict], best: int):
    """Over the number of refusals in SFT: both kinds of errors, with Wilson's bands for
    the replies of all seeds (left), and their sum (right)."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10.5, 4.2), gridspec_kw={"width_ratios": [1.7, 1]}
    )
    curve = analysis.curve_of(rows)
    lines = (
        ("compliance", PAIRS, "harmful, unseen pairs: helped"),
        ("compliance", WORDS, "harmful, unseen words: helped"),
        ("refusal", BENIGN_KINDS, "look-alikes: refused"),
        ("refusal", ("plain",), "plain: refused"),
    )
    for number, (outcome, kinds, label) in enumerate(lines):
        _wilson_line(left, curve, outcome, kinds, label, number)
    errors = analysis.sum_of_errors(rows)
    places = np.log10(1 + np.array(list(errors)))
    interval_line(right, places, np.transpose(list(errors.values())), "sum", 0)
    right.plot(np.log10(1 + best), np.mean(errors[best]), "o", color=PALETTE[1], ms=10)
    for axes in (left, right):
        axes.set_xticks(places, [f"{n:,}" for n in errors])
        axes.set_xlabel(f"refusals among {rows[0]['total']:,} examples")
    left.set(ylabel="share of replies", ylim=SHARES, title="Two errors")
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
    ns = sorted({row["n_refusals"] for row in rows})
    places = np.log10(1 + np.array(ns))
    color, style = PALETTE[number], LINESTYLES[number]
    for seed in sorted({row["seed"] for row in rows}):
        arms = pick(rows, seed=seed)
        shares = {
            r["n_refusals"]: analysis.outcome_share(r, outcome, kinds) for r in arms
        }
        own = [shares[n] for n in ns]
        axes.plot(places, own, linestyle=style, color=color, lw=0.7, alpha=0.5)
    rates = [
        analysis.outcome_rates(pick(rows, n_refusals=n), kinds)[outcome] for n in ns
    ]
    values = [rate.value for rate in rates]
    axes.plot(places, values, linestyle=style, color=color, label=label)
    low, high = [rate.low for rate in rates], [rate.high for rate in rates]
    axes.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0)


def refusals_by_type(arms: Mapping[str, Sequence[dict]]):
    """Share refused of harmful requests, of each type of look-alike and of plain
    requests: a colour per group of arms, with Wilson's interval for the replies of all
    seeds."""
    figure, axes = plt.subplots(figsize=(11, 3.8))
    kinds = ("unseen_pairs", "unseen_words", *BENIGN_KINDS, "plain")
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
    axes.axvline(1.5, color="0.6", lw=1)
    names = ["harmful:\nunseen\npairs", "harmful:\nunseen\nwords"]
    names += [kind.replace("_", "\n") for kind in kinds[2:]]
    axes.set_xticks(np.arange(len(kinds)), names)
    axes.set(ylabel="share refused", ylim=(0, 1.03))
    axes.set_title("What is refused, by type of request (95%)")
    small = dict(fontsize=9, title_fontsize=9)
    axes.legend(title="in SFT", loc="upper left", bbox_to_anchor=(1, 1), **small)
    return figure


def discrimination(arms: Mapping[str, Sequence[dict]]):
    """Two rates (left: only to the upper left is better), and what does not depend on
    where the model draws the line (right)."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 4))
    for number, (label, rows) in enumerate(arms.items()):
        harm = [analysis.outcome_share(row, "refusal", PAIRS) for row in rows]
        style = dict(color=PALETTE[number], marker=MARKERS[number], linestyle="")
        refused = analysis.look_alike_refusal(rows)
        left.plot(refused, harm, **style, alpha=0.6, label=label)
    left.plot([0, 1], [0, 1], ":", color="0.4", label="no difference")
    left.set(
        xlabel="look-alikes refused", ylabel="harmful pairs refused",
        xlim=SHARES, ylim=SHARES, title="Two rates (dots: seeds)",
    )  # fmt: skip
    left.legend(fontsize=9, title_fontsize=9, title="in SFT", loc="lower right")
    for number, (label, rows) in enumerate(arms.items()):
        _dots(right, {label: analysis.discrimination(rows)}, number, shift=number)
    names = [label.replace(" + ", "\n+ ") for label in arms]
    right.set_xticks(range(len(arms)), names, fontsize=9)
    right.set_xlim(-0.5, len(arms) - 0.5)
    right.axhline(0.5, linestyle=":", color="0.4")
    right.annotate("chance", (-0.45, 0.51), fontsize=9)
    right.set(ylabel="AUC of log P(refuse)", ylim=(0.4, 1.02))
    right.set_title("Harmful pairs against look-alikes")
    return figure


# --- Narrow data ----------------------------------------------------------------------


def narrow_data(rows: Sequence[dict]):
    """Accuracy inside and outside the narrow data (left), forms in use (right)."""
    figure, panels = plt.subplots(
        1, 2, figsize=(9.5, 3.8), gridspec_kw={"width_ratios": [2, 1]}
    )
    sets = {
        "own": "countries,\nnarrow wording",
        "kind": "countries,\nnew wordings",
        "other": "other kinds,\nnew wordings",
    }
    for number, data in enumerate(("diverse", "narrow")):
        arms, shift = pick(rows, data=data), CLOSE * (2 * number - 1)
        groups = {
            text: analysis.narrow_items(arms, name).mean(axis=1).tolist()
            for name, text in sets.items()
        }
        _dots(panels[0], groups, number, shift)
        styles = {"forms of reply,\nother kinds": [row["styles"] for row in arms]}
        _dots(panels[1], styles, number, shift)
    labels = ("diverse", "narrow")
    _legend_of_dots(panels[0], labels, title="SFT data", loc="upper right")
    panels[0].set(ylabel="share right", ylim=SHARES)
    panels[0].set_title("Right answers, other subjects")
    panels[1].set(ylabel="effective number", title="Style, temperature 1")
    panels[1].set_ylim(bottom=0)
    return figure


# --- Explorers ------------------------------------------------------------------------


def fact_explorer(rows: Mapping[str, dict]):
    """Choose a training set and a fact, and read the reply at each look.

    Args:
        rows: by a name for each, rows of ``facts_arm`` with the same test questions.
    """
    import ipywidgets

    arm = ipywidgets.Dropdown(options=list(rows), description="SFT on")
    prompts = {
        f"{fact['kind'].replace('_', ' ')}: {fact['prompt']}": fact["prompt"]
        for fact in next(iter(rows.values()))["replies"]
        if fact["kind"] in ("known", "rare", "tail", "never")
    }
    prompt = ipywidgets.Dropdown(options=prompts, description="fact")

    def card() -> str:
        row = rows[arm.value]
        fact = next(f for f in row["replies"] if f["prompt"] == prompt.value)
        return fact_card(fact, [point["update"] for point in row["curve"]])

    explore([arm, prompt], card)


def fact_card(fact: Mapping, updates: Sequence[int]) -> str:
    """HTML of one fact: the reply after each update looked at, its probability, and if
    it is right."""
    right_answers = {normalise(answer) for answer in fact["answers"]}
    rows = [
        (
            str(update),
            as_html(text),
            f"{probability:.2f}",
            "✓" if normalise(text) in right_answers else "✗",
        )
        for update, (text, probability) in zip(updates, fact["replies"], strict=True)
    ]
    head = ("update", html.escape(fact["prompt"]), "probability", "right")
    answers = html.escape(" or ".join(fact["answers"]))
    stated = f"stated in pretraining: {analysis.stated(fact)}"
    if fact["made_up"]:
        stated = "made up, so that nobody can know"
    return f"{html_table(head, rows)}<p>Right: {answers}; {stated}.</p>"


def safety_explorer(rows: Sequence[dict]):
    """Choose a number of refusals in SFT and a kind of request, and read the replies.

    Args:
        rows: rows of ``safety_arm`` for one seed, one for each number.
    """
    import ipywidgets

    by_n = {row["n_refusals"]: row for row in rows}
    n = ipywidgets.SelectionSlider(
        options=sorted(by_n), value=max(by_n), description="refusals"
    )
    kinds = {kind.replace("_", " "): kind for kind in rows[0]["replies"]}
    kind = ipywidgets.Dropdown(options=kinds, description="requests")

    def card() -> str:
        pairs = by_n[n.value]["replies"][kind.value]
        cells = [(html.escape(prompt), html.escape(text)) for prompt, text in pairs]
        return html_table(("request", "reply"), cells)

    explore([n, kind], card)
