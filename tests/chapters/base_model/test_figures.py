"""Figures of notebook 00 show the numbers they are given, with labels."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from alignlab.chapters.base_model import figures
from alignlab.evaluation.intervals import Interval, wilson_interval
from tests.drawing import labelled, legend, points, ticks

pytestmark = pytest.mark.usefixtures("style")


def test_surprise_is_minus_the_log_probability():
    figure, axes = plt.subplots()
    figures.surprise_bars(axes, [" The", " cat", "."], [-1.0, -4.5, -0.1], "surprise")
    labelled(figure)
    assert [bar.get_height() for bar in axes.patches] == [1.0, 4.5, 0.1]
    assert ticks(axes.xaxis) == ["The", "cat", "."]


def test_temperatures_are_bars_side_by_side():
    likeliest = {0.5: [(" a", 0.9), (" b", 0.1)], 1.5: [(" a", 0.6), (" b", 0.4)]}
    figure = labelled(figures.temperatures(likeliest, "x is"))
    [axes] = figure.axes
    heights = [[bar.get_height() for bar in c] for c in axes.containers]
    assert heights == [[0.9, 0.1], [0.6, 0.4]]
    assert legend(axes) == ["temperature 0.5", "temperature 1.5"]
    assert ticks(axes.xaxis) == ["a", "b"] and "x is" in axes.get_xlabel()


def test_the_road_has_all_steps_and_their_notebooks():
    figure = figures.road_map()
    figure.canvas.draw()
    [axes] = figure.axes
    texts = " ".join(text.get_text() for text in axes.texts)
    for part in ("Pretraining", "SFT", "Reward model", "PPO", "DPO", "InstructGPT"):
        assert part in texts
    for number in range(9):
        assert f"{number:02}" in texts
    boxes = [patch.get_window_extent() for patch in axes.patches]
    assert len(boxes) == 5
    assert not any(
        a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[i + 1 :]
    ), "boxes stand apart"


def test_exposures_are_stacked_by_kind():
    card = {"never": {"city": 3, "word": 1}, "once": {"city": 0, "word": 5}}
    figure = labelled(figures.exposures(card))
    [axes] = figure.axes
    widths = [[bar.get_width() for bar in c] for c in axes.containers]
    assert widths == [[3, 0], [1, 5]]
    starts = [[bar.get_x() for bar in c] for c in axes.containers]
    assert starts == [[0, 0], [3, 0]]
    assert ticks(axes.yaxis) == ["never", "once"] and legend(axes) == ["city", "word"]


RECALL = [
    {"from": 0, "to": 0, "facts": 300, "recall": 0.17},
    {"from": 1, "to": 1, "facts": 170, "recall": 0.4},
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
    assert ticks(axes.xaxis) == ["never", "1", "21–900"]
    assert any(np.all(y == 0.31) for _, y in points(axes))
    assert "100" in axes.get_xlabel() and "confidence" not in legend(axes)


def test_confidence_stands_beside_recall_where_it_was_measured():
    rows = [row | {"confidence": 0.2 * i} for i, row in enumerate(RECALL)]
    [axes] = labelled(figures.recall(rows, chance=0.31, threshold=100)).axes
    assert "confidence" in legend(axes)
    [(_, sure)] = points(axes, "s")
    assert sure.tolist() == pytest.approx([0.0, 0.2, 0.4])


def test_contested_confidence_is_drawn_against_the_share():
    bins = [
        {"share": 0.55, "confidence": 0.5, "facts": 60},
        {"share": 0.9, "confidence": 0.8, "facts": 40},
    ]
    [axes] = labelled(figures.contested(bins)).axes
    (bayes_x, bayes_y), (shares, sure) = points(axes)
    assert bayes_x.tolist() == bayes_y.tolist()
    assert shares.tolist() == [0.55, 0.9] and sure.tolist() == [0.5, 0.8]
    assert "the model (100 facts)" in legend(axes)


def test_ways_of_asking_are_rows_with_their_intervals():
    rates = {
        "base, bare": {"accuracy": Interval(0.1, 0, 0.2), "format": Interval(0, 0, 0)},
        "base, cloze": {"accuracy": Interval(0.9, 0.8, 1.01)},
        "tuned": {"accuracy": Interval(0.7, 0.6, 0.8), "format": Interval(1, 0.9, 1)},
    }
    [axes] = labelled(figures.answering(rates, chance=0.15)).axes
    assert ticks(axes.yaxis) == list(rates)
    [(right, rows)] = points(axes, "o")
    assert right.tolist() == [0.1, 0.9, 0.7]
    assert np.round(rows).tolist() == [0, 1, 2], "each near its name"
    [(formatted, rows)] = points(axes, "s")
    assert formatted.tolist() == [0, 1] and np.round(rows).tolist() == [0, 2]
    limits = [x.tolist() for x, y in points(axes, "None") if len(x) == 2]
    assert [0.8, 1.0] in limits, "inside the bounds"
    assert [0.15, 0.15] in limits
    assert "the commonest answer" in legend(axes)
