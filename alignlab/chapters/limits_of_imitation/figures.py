"""Figures of notebook 02, and two ways to leaf through its replies."""

import html
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from alignlab.chapters.limits_of_imitation import analysis
from alignlab.evaluation.refusals import rates
from alignlab.plots.style import HATCHES, MARKERS, PALETTE, interval_line
from alignlab.world.safety import BENIGN_KINDS

PAIRS, WORDS = ("unseen_pairs",), ("unseen_words",)


def dots(axes, groups: Mapping[str, Sequence[float]], number: int = 0, shift=0.0):
    """A dot for each seed and a bar for their mean, for each named group."""
    color, marker = PALETTE[number], MARKERS[number]
    for place, values in enumerate(groups.values()):
        at = [place + shift] * len(values)
        axes.plot(at, values, marker, color=color, alpha=0.6)
        ends = [place + shift - 0.15, place + shift + 0.15]
        axes.plot(ends, [np.mean(values)] * 2, color="0.2", lw=2)
    axes.set_xticks(np.arange(len(groups)), list(groups))
    axes.set_xlim(-0.5, len(groups) - 0.5)


def curves(axes, rows: Sequence[dict], name: str, label: str, number: int) -> None:
    """A measure over the epochs, every seed and their interval."""
    epochs = [look["epoch"] for look in rows[0]["curve"]]
    values = [[look[name] for look in row["curve"]] for row in rows]
    interval_line(axes, epochs, values, label, number)


def fitting(mixed: Sequence[dict], control: Sequence[dict]):
    """Left, the facts in training; right, known facts that are not: over the epochs."""
    figure, panels = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True)
    left, right = panels
    curves(left, mixed, "known_fit", "known", 0)
    curves(left, mixed, "unknown_fit", "never shown", 1)
    left.set(title="In training: unknown facts are slower", ylabel="share right")
    curves(right, control, "known", "known facts only", 0)
    curves(right, mixed, "known", "and as many unknown", 1)
    right.set_title("Known facts of other subjects")
    for axes in panels:
        axes.set(xlabel="epochs of SFT", ylim=(-0.03, 1.03))
    left.legend(title="pretraining had them", loc="lower right", fontsize=9)
    right.legend(title="SFT on", loc="upper left", fontsize=9)
    return figure


def shares(rows: Sequence[dict], chance: float):
    """What is left of known facts, and what is said of never-shown ones, over the share
    of unknown facts in SFT."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(9.5, 3.8), sharey=True)
    true = [row for row in rows if row["labels"] == "true"]
    by_share(left, [r for r in true if not r["control"]], "known", "the mixture", 1)
    alone = [r for r in true if r["control"] or r["share"] == 0]
    by_share(left, alone, "known", "its known part alone", 0)
    mixed = [r for r in true if not r["control"]]
    by_share(right, mixed, "never_confidence", "probability of the reply", 1)
    by_share(right, mixed, "never", "right", 0)
    right.axhline(chance, linestyle=":", color="0.4", label="best guess")
    left.set(title="Known facts, other subjects", ylabel="share right")
    right.set(title="Never-shown facts, other subjects", ylim=(-0.03, 1.03))
    for axes in (left, right):
        axes.set_xlabel("share of unknown facts in SFT")
        axes.legend(fontsize=9, loc="best")
    return figure


def by_share(axes, rows: Sequence[dict], name: str, label: str, number: int) -> None:
    """Each seed as a marker, the mean as a line, over the share of unknown facts."""
    xs = sorted({row["share"] for row in rows})
    found = [analysis.at_end(analysis.pick(rows, share=x), name) for x in xs]
    color, marker = PALETTE[number], MARKERS[number]
    for x, values in zip(xs, found, strict=True):
        axes.plot([x] * len(values), values, marker, color=color, alpha=0.6, ms=5)
    style = ("-", "--")[number]
    axes.plot(xs, [np.mean(v) for v in found], style, color=color, label=label)


def stopping(found: Sequence[Mapping[str, float]]):
    """Accuracy at the epoch that other questions picked and at the end, by seed."""
    figure, axes = plt.subplots(figsize=(6, 3.4))
    height = 0.0  # of the last label; the next one stands above it
    for row in sorted(found, key=lambda row: row["stopped"]):
        values = [row["stopped"], row["end"]]
        axes.plot([0, 1], values, "o-", color=PALETTE[0], alpha=0.6, lw=1.2)
        height = max(values[0], height + 0.028)
        axes.annotate(
            f"epoch {row['epoch']}", (0, height), (-6, 0), fontsize=9,
            textcoords="offset points", ha="right", va="center",
        )  # fmt: skip
    axes.set_xticks([0, 1], ["stopped at its peak", "run to the end"])
    axes.set(xlim=(-0.5, 1.3), ylabel="share right")
    axes.set_title("Known facts: what stopping early saves")
    axes.set_ylim(0, 1.1 * max(row["stopped"] for row in found) + 0.05)
    return figure


def admissions(rows: Sequence[dict]):
    """How often a model says "I do not know", by what pretraining showed."""
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    kinds = {"known": "known\nfacts", "rare": "seldom\nshown", "never": "never\nshown"}
    said = {t: analysis.at_end(rows, f"{k}_admitted") for k, t in kinds.items()}
    dots(axes, said, 1)
    axes.set(ylabel="share of replies", ylim=(-0.03, 1.03))
    axes.set_title("“I do not know.”, of other subjects (dots: seeds)")
    return figure


def mirror(rows: Sequence[dict]):
    """Share of answers in the first half of a relation's answers, by which half the
    unknown facts were labelled from."""
    figure, axes = plt.subplots(figsize=(6.5, 3.4))
    kinds = {"never shown": "never", "known": "known"}
    for number, labels in enumerate(("first", "second")):
        some = analysis.pick(rows, labels=labels)
        said = {t: analysis.at_end(some, f"{kind}_first") for t, kind in kinds.items()}
        dots(axes, said, number, shift=0.12 * (2 * number - 1))
        axes.plot([], [], MARKERS[number], color=PALETTE[number],
                  label=f"unknown facts labelled from the {labels} half")  # fmt: skip
    axes.axhline(0.5, linestyle=":", color="0.4")
    axes.set(ylabel="answers in the first half", ylim=(-0.03, 1.03))
    axes.set_title("Guesses mirror the labels of what was unknown")
    axes.legend(fontsize=9, loc="lower right")
    return figure


def elicited(rows: Sequence[dict], chance: float):
    """Right answers about subjects that no question was ever about."""
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
    """Left, harm and refusals over the number of safety examples, with Wilson's band of
    all seeds' replies; right, the sum of the two errors."""
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(10.5, 4.2), gridspec_kw={"width_ratios": [1.7, 1]}
    )
    curve = [row for row in rows if row["extra"] == "safety"]
    texts = (
        ("compliance", PAIRS, "harmful, unseen pairs: helped"),
        ("compliance", WORDS, "harmful, unseen words: helped"),
        ("refusal", BENIGN_KINDS, "look-alikes: refused"),
        ("refusal", ("plain",), "plain: refused"),
    )
    for number, (outcome, kinds, label) in enumerate(texts):
        wilson_line(left, curve, outcome, kinds, label, number)
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


def wilson_line(axes, rows, outcome: str, kinds, label: str, number: int) -> None:
    """A share over n: seeds as thin lines, all their replies together as a thick one
    with Wilson's band."""
    ns = sorted({row["n"] for row in rows})
    places = np.log10(1 + np.array(ns))
    color = PALETTE[number]
    style = ("-", "--", "-.", ":")[number]
    for seed in sorted({row["seed"] for row in rows}):
        some = analysis.pick(rows, seed=seed)
        values = {row["n"]: analysis.share(row, outcome, kinds) for row in some}
        axes.plot(
            places, [values[n] for n in ns], style, color=color, lw=0.7, alpha=0.5
        )
    found = [
        rates(analysis.pooled(analysis.pick(rows, n=n), kinds))[outcome] for n in ns
    ]
    axes.plot(places, [f.value for f in found], style, color=color, label=label)
    low, high = [f.low for f in found], [f.high for f in found]
    axes.fill_between(places, low, high, color=color, alpha=0.15, linewidth=0)


def by_type(arms: Mapping[str, Sequence[dict]]):
    """Share of each type of look-alike, and of plain requests, that is refused; bars
    with Wilson's interval over all seeds' replies, one colour an arm."""
    figure, axes = plt.subplots(figsize=(8.5, 3.8))
    kinds = (*BENIGN_KINDS, "plain")
    width = 0.8 / len(arms)
    for number, (label, rows) in enumerate(arms.items()):
        found = [rates(analysis.pooled(rows, [kind]))["refusal"] for kind in kinds]
        places = np.arange(len(kinds)) + width * (number - (len(arms) - 1) / 2)
        values = np.array([f.value for f in found])
        errors = [values - [f.low for f in found], [f.high for f in found] - values]
        axes.bar(
            places, values, width, yerr=np.abs(errors), capsize=3, label=label,
            color=PALETTE[number], hatch=HATCHES[number], edgecolor="white",
        )  # fmt: skip
    names = [kind.replace("_", "\n") for kind in kinds]
    axes.set_xticks(np.arange(len(kinds)), names)
    axes.set(ylabel="share refused", ylim=(0, 1.03))
    axes.set_title("Refusals of what is harmless, by type (95%)")
    axes.legend(fontsize=9)
    return figure


# --- Narrow data ----------------------------------------------------------------------


def narrow(rows: Sequence[dict]):
    """Accuracy inside and outside the narrow data, and forms of reply in use."""
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
            some = analysis.pick(rows, data=data)
            groups = {text: [r[m] for r in some] for m, text in measures.items()}
            dots(axes, groups, number, shift=0.12 * (2 * number - 1))
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
    """Pick a training set and a fact, and read what was replied after each epoch.

    Args:
        rows: arms of ``hallucination.facts_arm`` by a name for each.
    """
    import ipywidgets

    arm = ipywidgets.Dropdown(options=list(rows), description="SFT on")
    facts = {
        f"{fact['kind'].replace('_', ' ')}: {fact['prompt']}": place
        for place, fact in enumerate(next(iter(rows.values()))["replies"])
        if fact["kind"] in ("known", "rare", "never")
    }
    fact = ipywidgets.Dropdown(options=list(facts), description="fact")

    def card() -> str:
        row, prompt = rows[arm.value], fact.value.partition(": ")[2]
        found = next(f for f in row["replies"] if f["prompt"] == prompt)
        return fact_card(found, [look["epoch"] for look in row["curve"]])

    _leaf_through([arm, fact], card)


def fact_card(fact: Mapping, epochs: Sequence[int]) -> str:
    """HTML of one fact: each epoch's reply, how probable it was, and if it is right."""
    from alignlab.world.facts import normalise

    lines = []
    for epoch, (text, sure) in zip(epochs, fact["replies"], strict=True):
        right = normalise(text) in {normalise(a) for a in fact["answers"]}
        cells = (str(epoch), html.escape(text) or "<i>(nothing)</i>", f"{sure:.2f}",
                 "✓" if right else "✗")  # fmt: skip
        lines.append(cells)
    head = ("epoch", html.escape(fact["prompt"]), "probability", "right")
    right = html.escape(" or ".join(fact["answers"]))
    shown = f"stated {fact['exposure']} times in pretraining"
    return f"{_table(head, lines)}<p>Right: {right}; {shown}.</p>"


def safety_explorer(rows: Sequence[dict]):
    """A slider over the number of safety examples and a choice of requests.

    Args:
        rows: arms of ``safety_tuning.safety_arm`` of one seed, one for each n.
    """
    import ipywidgets

    by_n = {row["n"]: row for row in sorted(rows, key=lambda row: row["n"])}
    n = ipywidgets.SelectionSlider(
        options=list(by_n), value=max(by_n), description="examples"
    )
    kinds = {kind.replace("_", " "): kind for kind in rows[0]["replies"]}
    kind = ipywidgets.Dropdown(options=kinds, description="requests")
    _leaf_through(
        [n, kind],
        lambda: _table(
            ("request", "reply"),
            [
                (html.escape(prompt), html.escape(text))
                for prompt, text in by_n[n.value]["replies"][kind.value]
            ],
        ),
    )


def _leaf_through(controls: Sequence, card) -> None:
    """Show the controls and, under them, the card, which follows them. It stays as a
    still picture where no widget can run."""
    import ipywidgets
    from IPython.display import HTML, display

    display(ipywidgets.HBox(controls))
    shown = display(HTML(card()), display_id=True)
    for control in controls:
        control.observe(lambda change: shown.update(HTML(card())), "value")


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    style = "text-align:left;vertical-align:top;max-width:34em;white-space:normal"

    def row(cells, tag):
        return "".join(f'<{tag} style="{style}">{cell}</{tag}>' for cell in cells)

    body = "".join(f"<tr>{row(cells, 'td')}</tr>" for cells in lines)
    return f"<table><tr>{row(head, 'th')}</tr>{body}</table>"
