"""Figures show the numbers they are given, of one seed or several, with labels."""

import html
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from alignlab.chapters.base_model import figures as base_model
from alignlab.chapters.instruction_tuning import figures as instruction_tuning
from alignlab.chapters.instruction_tuning.runs import mean_over
from alignlab.evaluation.intervals import wilson_interval
from alignlab.plots import explorers
from alignlab.plots.style import LINESTYLES
from alignlab.world import tasks
from alignlab.world.facts import Fact
from tests.drawing import points, ticks

pytestmark = pytest.mark.usefixtures("style")
SEEDS = [[4], [4, 0, 7]]


@pytest.fixture(autouse=True)
def families(monkeypatch):
    """Four families of known sizes in place of the whole mixture."""
    sizes = {"opposite": 5, "trec": 900, "sum": 30, "city_country": 10}
    monkeypatch.setattr(tasks, "sizes", lambda: sizes)
    monkeypatch.setattr(tasks, "trained_families", lambda: tuple(sizes))
    return tuple(sizes)


def complete(figure):
    """Draw it; every panel has a title and says what its axes are."""
    figure.canvas.draw()
    for axes in figure.axes:
        assert axes.get_title(loc="left")
        labels = axes.get_xlabel(), axes.get_ylabel()
        assert any(labels)
        for axis, label in zip((axes.xaxis, axes.yaxis), labels):
            shared = axes is not figure.axes[0] and axes.get_shared_y_axes()
            named = any(text.strip("0123456789.−\n") for text in ticks(axis))
            assert label or named or shared, "an axis of bare numbers needs a label"
    return figure


# --- Notebook 00 --------------------------------------------------------------------


def test_next_tokens_are_bars_with_the_likeliest_on_top():
    figure, axes = plt.subplots()
    given = [(" Paris", 0.6), ("", 0.25), (" '$x_1$", 0.1)]
    base_model.next_token_bars(axes, given, "after “The capital”")
    complete(figure)
    bars = sorted(axes.patches, key=lambda bar: -bar.get_y())
    assert [bar.get_width() for bar in bars] == [0.6, 0.25, 0.1]
    named = dict(zip(axes.get_yticks(), ticks(axes.yaxis)))
    tops = [bar.get_y() + bar.get_height() / 2 for bar in bars]
    assert [named[round(y)] for y in tops][:2] == ["'Paris'", "''"]


def test_surprise_is_minus_the_log_probability():
    figure, axes = plt.subplots()
    base_model.surprise_bars(
        axes, [" The", " cat", "."], [-1.0, -4.5, -0.1], "surprise"
    )
    complete(figure)
    assert [bar.get_height() for bar in axes.patches] == [1.0, 4.5, 0.1]
    assert ticks(axes.xaxis) == ["The", "cat", "."]


def test_exposures_fall_and_the_never_shown_are_counted():
    facts = [
        Fact(f"a{i}", "capital", ("x",), e) for i, e in enumerate((3, 0, 900, 0, 40))
    ]
    figure = complete(base_model.exposures(SimpleNamespace(facts=facts)))
    [axes] = figure.axes
    [(x, y)] = points(axes)
    assert x.tolist() == [1, 2, 3, 4, 5] and y.tolist() == [900, 40, 3, 0, 0]
    assert "never shown: 2 facts" in [text.get_text() for text in axes.texts]


RECALL = [
    {"from": 0, "to": 0, "facts": 300, "recall": 0.17},
    {"from": 3, "to": 21, "facts": 170, "recall": 0.4},
    {"from": 21, "to": 900, "facts": 170, "recall": 1.0},
]


def test_recall_is_drawn_with_its_intervals_and_chance():
    figure = complete(base_model.recall(RECALL, chance=0.31, threshold=100))
    [axes] = figure.axes
    [bars] = axes.containers
    line, _, [strokes] = bars
    assert line.get_ydata() == pytest.approx([51 / 300, 68 / 170, 1.0])
    for row, stroke in zip(RECALL, strokes.get_segments(), strict=True):
        expected = wilson_interval(round(row["recall"] * row["facts"]), row["facts"])
        assert sorted(stroke[:, 1]) == pytest.approx([expected.low, expected.high])
    assert ticks(axes.xaxis) == ["never", "3–21", "21–900"]
    assert any(np.all(y == 0.31) for _, y in points(axes))
    assert "100" in axes.get_xlabel()


@pytest.mark.parametrize("seeds", SEEDS)
def test_ways_of_asking_are_bars_at_the_mean_with_every_seed(seeds):
    groups = {
        way: {
            "accuracy": [base + 0.01 * s for s in seeds],
            "format": [base / 2 + 0.01 * s for s in seeds],
        }
        for way, base in [("bare", 0.1), ("few-shot", 0.3), ("tuned", 0.8)]
    }
    figure = complete(base_model.answering(groups))
    [axes] = figure.axes
    heights = [[bar.get_height() for bar in c] for c in axes.containers]
    for measure, found in zip(("accuracy", "format"), heights, strict=True):
        means = [np.mean(groups[way][measure]) for way in groups]
        assert found == pytest.approx(means)
    assert [text.get_text() for text in axes.get_legend().texts] == [
        "accuracy",
        "format",
    ]
    dots = sorted(y for _, ys in points(axes) for y in ys)
    assert dots == sorted(v for g in groups.values() for vs in g.values() for v in vs)
    centres = [bar.get_x() + bar.get_width() / 2 for c in axes.containers for bar in c]
    assert min(np.diff(sorted(centres))) > 0.3, "side by side"
    places = [x for xs, _ in points(axes) for x in xs]
    assert set(np.round(places, 6)) == set(np.round(centres, 6)), "dots on their bars"


# --- Notebook 01 --------------------------------------------------------------------


def test_rows_become_a_table_by_seed():
    rows = [
        {"seed": s, "n": n, "format": 10 * s + n} for n in (16, 0, 4) for s in (3, 1)
    ]
    xs, values = instruction_tuning.by_seed(rows, "n", "format")
    assert xs == [0, 4, 16]
    assert values.tolist() == [[10, 14, 26], [30, 34, 46]]


@pytest.mark.parametrize("seeds", SEEDS)
def test_few_examples_shows_both_curves_and_the_control(seeds):
    rows = [
        {"seed": s, "n": n, "format": n / 20 + s / 100, "accuracy": n / 40}
        for s in seeds
        for n in (0, 4, 16)
    ]
    control = {"n": 16, "shuffled": True, "format": 0.9, "accuracy": 0.1}
    rows += [{"seed": s, **control} for s in seeds]
    figure = complete(instruction_tuning.few_examples(rows))
    [axes] = figure.axes
    assert ticks(axes.xaxis) == ["0", "4", "16", "\nshuffled"]
    curves = [(x, y) for x, y in points(axes, "None") if len(x) == 3]
    assert all(x == pytest.approx(np.log2([1, 5, 17])) for x, _ in curves)
    means = np.mean([[s / 100, 0.2 + s / 100, 0.8 + s / 100] for s in seeds], axis=0)
    assert any(y == pytest.approx(means) for _, y in curves)
    assert any(y == pytest.approx([0, 0.1, 0.4]) for _, y in curves)
    last = np.log2(17)
    shuffled = [(x, y) for x, y in points(axes) if min(x) > last]
    assert [y.tolist() for _, y in shuffled] == [[0.9] * len(seeds), [0.1] * len(seeds)]


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("sizes", [["300k"], ["300k", "1m", "3m"]])
def test_diversity_has_a_curve_for_each_size(seeds, sizes, families):
    rows = [
        {"seed": s, "size": z, "families": families[:k], "held_out": k / 10 + number}
        for number, z in enumerate(sizes)
        for s in seeds
        for k in (1, 2, 4)
    ]
    figure = complete(instruction_tuning.diversity(rows))
    [axes] = figure.axes
    legend = axes.get_legend()
    assert [t.get_text() for t in legend.texts] == [f"{z} parameters" for z in sizes]
    means = [line for line in axes.lines if not line.get_label().startswith("_")]
    for number, line in enumerate(means):
        assert line.get_xdata() == pytest.approx([0, 1, 2])
        assert line.get_ydata() == pytest.approx(number + np.array([0.1, 0.2, 0.4]))
        assert line.get_linestyle() == LINESTYLES[number], "to tell without colour"
    assert ticks(axes.xaxis) == ["1", "2", "4"]


def by_family(families, value):
    return {name: value * (i + 1) ** 2 / 30 for i, name in enumerate(families)}


@pytest.mark.parametrize("seeds", SEEDS)
def test_families_have_a_marker_for_each_condition(seeds, families):
    arms = {
        label: [
            {"seed": s, "by_family": by_family(families, v + s / 10)} for s in seeds
        ]
        for label, v in [("base", 0.5), ("tuned", 2.0)]
    }
    figure = complete(instruction_tuning.families(arms, families, "Base and tuned"))
    [axes] = figure.axes
    named = dict(zip(axes.get_yticks(), ticks(axes.yaxis)))
    assert named[3] == "opposite" and named[0] == "city country"
    for marker, rows in zip("os", arms.values(), strict=True):
        [(x, y)] = points(axes, marker)
        assert np.round(y).tolist() == [3, 2, 1, 0]
        expected = [np.mean([r["by_family"][n] for r in rows]) for n in families]
        assert x == pytest.approx(expected)
    dots = sorted(v for x, _ in points(axes, ".") for v in x)
    every = [v for rows in arms.values() for r in rows for v in r["by_family"].values()]
    assert dots == pytest.approx(sorted(every))


@pytest.mark.parametrize("seeds", SEEDS)
def test_mixtures_compare_small_and_large_families(seeds, families):
    rows = [
        {"seed": s, "weights": w, "by_family": by_family(families, v + s / 10)}
        for w, v in [("proportional", 0.5), ("equal", 1.5)]
        for s in seeds
    ]
    figure = complete(instruction_tuning.mixture(rows))
    [axes] = figure.axes
    assert ticks(axes.xaxis) == ["proportional", "equal"]
    assert [text.get_text() for text in axes.get_legend().texts] == [
        "2 smallest families",
        "2 largest families",
    ]
    groups = [("opposite", "city_country"), ("trec", "sum")]
    for marker, group in zip("os", groups, strict=True):
        [(_, y)] = points(axes, marker)
        expected = [
            np.mean(
                [mean_over(r["by_family"], group) for r in rows if r["weights"] == w]
            )
            for w in ("proportional", "equal")
        ]
        assert y == pytest.approx(expected)
    assert len([v for _, y in points(axes, ".") for v in y]) == 4 * len(seeds)


@pytest.mark.parametrize("seeds", SEEDS)
def test_phrasings_show_every_wording_base_and_tuned(seeds):
    names = ["opposite", "city_country"]
    rows = [
        {
            "seed": s,
            "tuned": t,
            "by_wording": [[0.1 + t / 2, 0.3], [0.0, 0.2, 0.4 + t / 2]],
        }
        for s in seeds
        for t in (False, True)
    ]
    figure = complete(instruction_tuning.phrasings(rows, names))
    base, tuned = figure.axes
    assert base.get_title(loc="left") != tuned.get_title(loc="left")
    assert ticks(base.yaxis) == ["opposite", "city country"]
    assert base.get_yticks().tolist() == [1, 0]
    for axes, t in ((base, 0), (tuned, 1)):
        wordings = [x.tolist() for x, _ in points(axes, "|")]
        assert wordings[0] == pytest.approx([0.1 + t / 2, 0.3])
        assert wordings[1] == pytest.approx([0.0, 0.2, 0.4 + t / 2])
        means = [(float(x[0]), int(y[0])) for x, y in points(axes, "o")]
        assert means == [
            (pytest.approx(0.2 + t / 4), 1),
            (pytest.approx(0.2 + t / 6), 0),
        ]


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("sign", [1, -1])
def test_arms_show_every_seed_and_the_mean(seeds, sign):
    rows = {"one": [sign * (0.1 + s / 100) for s in seeds], "two": [0.0] * len(seeds)}
    figure = complete(instruction_tuning.arms(rows, "forgetting (nats)", "Two arms"))
    [axes] = figure.axes
    assert ticks(axes.xaxis) == ["one", "two"]
    assert [y.tolist() for _, y in points(axes, "o")] == list(rows.values())
    marks = [y for _, y in points(axes, "None")]
    assert [y[0] for y in marks] == pytest.approx([np.mean(v) for v in rows.values()])
    low, high = axes.get_ylim()
    drawn = [v for values in rows.values() for v in values]
    assert low <= min(0, *drawn) and high >= max(drawn), "nothing is cut off"


# --- Text ---------------------------------------------------------------------------


def test_the_mask_shows_text_as_it_is_and_in_two_styles():
    pairs = [
        ("<|user|>", False),
        (" 1 < 2 & \"so\" 'on'", False),
        (" <b>Yes</b>.", True),
    ]
    written = instruction_tuning.mask(pairs).data
    assert "<b>" not in written and "<|user|>" not in written
    for text, _ in pairs:
        assert f">{html.escape(text)}</span>" in written
    assert written.count("<span") == written.count("</span>") == 3
    styles = [part.split('"')[1] for part in written.split("<span ")[1:]]
    assert styles[0] == styles[1] != styles[2]


# --- Explorers ----------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_next_tokens_are_those_of_the_model(tiny_model, tiny_tokenizer, temperature):
    text = "The capital of"
    found = explorers.next_tokens(tiny_model, tiny_tokenizer, text, temperature, 5)
    ids = tiny_tokenizer(text, return_tensors="pt").input_ids
    with torch.no_grad():
        logits = tiny_model(ids).logits[0, -1].double().numpy() / temperature
    shares = np.exp(logits) / np.exp(logits).sum()
    order = np.argsort(-shares)[:5]
    assert [token for token, _ in found] == [tiny_tokenizer.decode([i]) for i in order]
    assert [share for _, share in found] == pytest.approx(shares[order], rel=1e-4)


@pytest.fixture
def displayed(monkeypatch):
    """What an explorer puts on the page, and the function behind its dials."""
    import ipywidgets
    from IPython import display

    shown, drawn = [], []
    monkeypatch.setattr(display, "display", lambda *things: shown.extend(things))

    def interactive_output(function, dials):
        drawn.append((function, dials))
        return ipywidgets.Output()

    monkeypatch.setattr(ipywidgets, "interactive_output", interactive_output)
    monkeypatch.setattr(plt, "show", lambda: None)
    return SimpleNamespace(shown=shown, drawn=drawn)


def test_the_next_token_explorer_draws_what_its_dials_say(
    displayed, tiny_model, tiny_tokenizer
):
    explorers.next_token_explorer(tiny_model, tiny_tokenizer, "The capital", k=4)
    [(draw, dials)] = displayed.drawn
    assert dials["text"].value == "The capital" and dials["temperature"].value == 1.0
    assert len(displayed.shown) == 2
    draw("Where is", 0.7)
    [axes] = complete(plt.gcf()).axes
    expected = explorers.next_tokens(tiny_model, tiny_tokenizer, "Where is", 0.7, 4)
    widths = [bar.get_width() for bar in axes.patches]
    assert widths == pytest.approx([share for _, share in expected])
    assert "Where is" in axes.get_title(loc="left")
    plt.close("all")
    draw("  ", 0.7)
    assert not plt.get_fignums(), "an emptied field draws nothing"


def test_the_reply_explorer_answers_its_prompt(
    displayed, tiny_model, tiny_tokenizer, capsys
):
    from alignlab.models.sampler import complete as sampled

    explorers.reply_explorer(tiny_model, tiny_tokenizer, "Where is Oslo?", 6)
    [(answer, dials)] = displayed.drawn
    assert dials["prompt"].value == "Where is Oslo?" and dials["temperature"].value == 0
    for temperature in (0.0, 1.0):
        answer("Is gold a metal?", temperature)
        [expected] = sampled(
            tiny_model, tiny_tokenizer, ["Is gold a metal?"], 6, temperature, seed=0
        )
        assert capsys.readouterr().out == expected.text + "\n"
    answer("", 1.0)
    assert capsys.readouterr().out == ""
