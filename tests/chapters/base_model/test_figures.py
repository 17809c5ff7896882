"""Figures of notebook 00 show the numbers they are given, with labels."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest

from alignlab.chapters.base_model import figures
from alignlab.evaluation.intervals import wilson_interval
from alignlab.world.facts import Fact
from tests.drawing import labelled, points, ticks

pytestmark = pytest.mark.usefixtures("style")
SEEDS = [[4], [4, 0, 7]]


def test_surprise_is_minus_the_log_probability():
    figure, axes = plt.subplots()
    figures.surprise_bars(axes, [" The", " cat", "."], [-1.0, -4.5, -0.1], "surprise")
    labelled(figure)
    assert [bar.get_height() for bar in axes.patches] == [1.0, 4.5, 0.1]
    assert ticks(axes.xaxis) == ["The", "cat", "."]


def test_exposures_fall_and_the_never_shown_are_counted():
    facts = [
        Fact(f"a{i}", "capital", ("x",), e) for i, e in enumerate((3, 0, 900, 0, 40))
    ]
    figure = labelled(figures.exposures(SimpleNamespace(facts=facts)))
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
    figure = labelled(figures.recall(RECALL, chance=0.31, threshold=100))
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
    figure = labelled(figures.answering(groups))
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
