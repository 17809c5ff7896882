"""Figures of notebook 01 show the numbers they are given, of one seed or several."""

import html

import numpy as np
import pytest

from alignlab.chapters.instruction_tuning import figures
from alignlab.chapters.instruction_tuning.artifacts import mean_over
from alignlab.plots.style import LINESTYLES
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
@pytest.mark.parametrize("sizes", [["300k"], ["300k", "1m", "3m"]])
def test_diversity_has_a_curve_for_each_size(seeds, sizes, families):
    rows = [
        {"seed": s, "size": z, "k": k, "held_out": k / 10 + number}
        for number, z in enumerate(sizes)
        for s in seeds
        for k in (1, 2, 4)
    ]
    figure = labelled(figures.diversity(rows))
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
    figure = labelled(figures.families(arms, families, "Base and tuned"))
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
    figure = labelled(figures.wordings(rows, names))
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
    figure = labelled(figures.compared(rows, "forgetting (nats)", "Two arms"))
    [axes] = figure.axes
    assert ticks(axes.xaxis) == ["one", "two"]
    assert [y.tolist() for _, y in points(axes, "o")] == list(rows.values())
    marks = [y for _, y in points(axes, "None")]
    assert [y[0] for y in marks] == pytest.approx([np.mean(v) for v in rows.values()])
    low, high = axes.get_ylim()
    drawn = [v for values in rows.values() for v in values]
    assert low <= min(0, *drawn) and high >= max(drawn), "nothing is cut off"


def test_the_mask_shows_text_as_it_is_and_in_two_styles():
    pairs = [
        ("<|user|>", False),
        (" 1 < 2 & \"so\" 'on'", False),
        (" <b>Yes</b>.", True),
    ]
    written = figures.mask(pairs).data
    assert "<b>" not in written and "<|user|>" not in written
    for text, _ in pairs:
        assert f">{html.escape(text)}</span>" in written
    assert written.count("<span") == written.count("</span>") == 3
    styles = [part.split('"')[1] for part in written.split("<span ")[1:]]
    assert styles[0] == styles[1] != styles[2]
