"""Figures of notebook 01 show the numbers they are given, of one seed or several."""

import html

import numpy as np
import pytest

from alignlab.chapters.instruction_tuning import figures
from alignlab.chapters.instruction_tuning.artifacts import mean_over
from alignlab.evaluation.intervals import t_interval
from alignlab.world import tasks
from tests.drawing import labelled, points, ticks

pytestmark = pytest.mark.usefixtures("style")
SEEDS = [[4], [4, 0, 7]]


@pytest.fixture(autouse=True)
def families(monkeypatch):
    """Four families of known sizes in place of the whole mixture."""
    sizes = {"opposite": 5, "trec": 900, "sum": 30, "city_country": 10}
    monkeypatch.setattr(tasks, "sizes", lambda: sizes)
    monkeypatch.setattr(tasks, "trained_families", lambda: tuple(sizes))
    return tuple(sizes)


@pytest.mark.parametrize("seeds", SEEDS)
def test_few_examples_shows_both_curves_and_the_control(seeds):
    rows = [
        {"seed": s, "n": n, "format": n / 20 + s / 100, "accuracy": n / 40}
        | {"shuffled": False}
        for s in seeds
        for n in (0, 4, 16)
    ]
    control = {"n": 16, "shuffled": True, "format": 0.9, "accuracy": 0.1}
    rows += [{"seed": s, **control} for s in seeds]
    figure = labelled(figures.few_examples(rows))
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
@pytest.mark.parametrize("larger", [False, True])
def test_diversity_has_a_curve_a_guess_and_dots_of_the_larger_model(seeds, larger):
    rows = [
        {"seed": s, "base": "300k", "k": k, "accuracy": k / 10 + s / 100}
        for s in seeds
        for k in (1, 2, 4)
    ]
    extra = [{"seed": 4, "base": "1m", "k": k, "accuracy": 0.6} for k in (1, 4)]
    figure = labelled(figures.diversity(rows, 0.29, extra if larger else ()))
    [axes] = figure.axes
    named = {line.get_label(): line for line in axes.lines}
    curve = named["300k parameters"]
    assert curve.get_xdata() == pytest.approx([0, 1, 2])
    shift = np.mean(seeds) / 100
    assert curve.get_ydata() == pytest.approx(np.array([0.1, 0.2, 0.4]) + shift)
    assert set(named["a guess"].get_ydata()) == {0.29}
    dots = named.get("1m (pretrained once)")
    assert (dots is not None) == larger
    if larger:
        assert dots.get_xdata().tolist() == [0, 2] and set(dots.get_ydata()) == {0.6}
        assert dots.get_linestyle() == "None"
    assert ticks(axes.xaxis) == ["1", "2", "4"]


def by_family(families, value):
    return {name: value * (i + 1) ** 2 / 30 for i, name in enumerate(families)}


def chosen(families, value):
    shares = by_family(families, value)
    return {name: {"accuracy": share} for name, share in shares.items()}


@pytest.mark.parametrize("seeds", SEEDS)
def test_families_have_a_marker_for_each_way_and_one_for_a_guess(seeds, families):
    arms = {
        label: [{"seed": s, "by_family": chosen(families, v + s / 10)} for s in seeds]
        for label, v in [("base", 0.5), ("tuned", 1.0)]
    }
    guess = {name: 0.25 + i / 10 for i, name in enumerate(families)}
    figure = labelled(figures.families(arms, guess, "Base and tuned"))
    [axes] = figure.axes
    named = dict(zip(axes.get_yticks(), ticks(axes.yaxis)))
    assert named[3] == "opposite" and named[0] == "city country"
    for marker, rows in zip("os", arms.values(), strict=True):
        [(x, y)] = points(axes, marker)
        assert np.round(y).tolist() == [3, 2, 1, 0]
        shares = [[r["by_family"][n]["accuracy"] for r in rows] for n in families]
        assert x == pytest.approx(np.mean(shares, axis=1))
    [(x, y)] = points(axes, "|")
    assert x == pytest.approx(list(guess.values())) and y.tolist() == [3, 2, 1, 0]
    dots = sorted(v for x, _ in points(axes, ".") for v in x)
    every = [
        v["accuracy"]
        for rows in arms.values()
        for r in rows
        for v in r["by_family"].values()
    ]
    assert dots == pytest.approx(sorted(every))


@pytest.mark.parametrize("seeds", SEEDS)
def test_mixtures_compare_small_and_large_families(seeds, families):
    rows = [
        {"seed": s, "weights": w, "by_family": by_family(families, v + s / 10)}
        for w, v in [("proportional", 0.5), ("equal", 1.5)]
        for s in seeds
    ]
    figure = labelled(figures.mixture(rows))
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
def test_wordings_show_the_mean_over_seeds_before_and_after(seeds):
    names = ["opposite", "city_country"]

    def rows(gain):
        own = {"opposite": [0.1 + gain, 0.3], "city_country": [0.0, 0.2, 0.4]}
        shifted = ({n: np.add(w, s / 100) for n, w in own.items()} for s in seeds)
        return [{"seed": s, "wordings": w} for s, w in zip(seeds, shifted)]

    figure = labelled(figures.wordings(rows(0), rows(0.5), names))
    shift = np.mean(seeds) / 100
    assert ticks(figure.axes[0].yaxis) == ["opposite", "city country"]
    assert figure.axes[0].get_yticks().tolist() == [1, 0]
    for axes, gain in zip(figure.axes, (0, 0.5), strict=True):
        strokes = [x for x, _ in points(axes, "|")]
        assert strokes[0] == pytest.approx(np.array([0.1 + gain, 0.3]) + shift)
        assert strokes[1] == pytest.approx(np.array([0.0, 0.2, 0.4]) + shift)
        means = [(float(x[0]), int(y[0])) for x, y in points(axes, "o")]
        assert means[0] == (pytest.approx(0.2 + gain / 2 + shift), 1)
        assert means[1] == (pytest.approx(0.2 + shift), 0)


@pytest.mark.parametrize("seeds", SEEDS)
@pytest.mark.parametrize("sign", [1, -1])
def test_arms_show_every_seed_and_the_mean(seeds, sign):
    rows = {"one": [sign * (0.1 + s / 100) for s in seeds], "two": [0.0] * len(seeds)}
    figure = labelled(figures.compared(rows, "forgetting (nats)", "Two arms"))
    [axes] = figure.axes
    assert ticks(axes.xaxis) == ["one", "two"]
    assert [y.tolist() for _, y in points(axes, "o")] == list(rows.values())
    marks = [y for _, y in points(axes, "None") if y[0] == y[-1]]
    means = [np.mean(v) for v in rows.values()]
    assert [y[0] for y in marks][: len(rows)] == pytest.approx(means)
    low, high = axes.get_ylim()
    drawn = [v for values in rows.values() for v in values]
    assert low <= min(0, *drawn) and high >= max(drawn), "nothing is cut off"


def test_intervals_and_a_guess_are_drawn_where_there_are_several_seeds():
    figure = figures.compared({"one": [0.1, 0.2, 0.4], "two": [0.5]}, "y", "t", 0.25)
    [axes] = figure.axes
    low, high = t_interval([0.1, 0.2, 0.4])[1:]
    lines = [np.asarray(line.get_ydata(), float).tolist() for line in axes.lines]
    assert [pytest.approx(low), pytest.approx(high)] in lines
    assert [0.25, 0.25] in lines
    assert len(lines) == 2 * 2 + 1 + 1, "one seed has no interval"


def test_losses_are_a_curve_for_each_run_and_far_values_do_not_hide_the_rest():
    curves = {"right": [3.0, 2.0, 1.0], "flipped": [-3.0, -40.0, -900.0]}
    figure = labelled(figures.losses(curves))
    [axes] = figure.axes
    named = {line.get_label(): line.get_ydata() for line in axes.lines}
    assert all(list(named[name]) == values for name, values in curves.items())
    assert axes.get_ylim()[0] == -12 and axes.get_ylim()[1] >= 3


def test_masks_show_text_as_it_is_in_two_styles_and_a_row_for_each_name():
    pairs = [
        ("<|user|>", False),
        (" 1 < 2 & \"so\" 'on'", False),
        (" <b>Yes</b>.", True),
    ]
    written = figures.masks({"reply": pairs, "<all>": pairs[1:]}).data
    assert "<b>" not in written and "<|user|>" not in written
    assert written.count("<tr>") == 2 and "&lt;all&gt;" in written
    for text, _ in pairs:
        assert f">{html.escape(text)}</span>" in written
    assert written.count("<span") == written.count("</span>") == 5
    styles = [part.split('"')[1] for part in written.split("<span ")[1:]]
    assert styles[0] == styles[1] == styles[3] and styles[2] == styles[4] != styles[0]
