"""Figures of notebook 08 show what they are given."""

import numpy as np
import pytest

from alignlab.calibration import risk_coverage_curve
from alignlab.chapters.recalibration import figures

pytestmark = pytest.mark.usefixtures("style")


def named(axes):
    return {line.get_label(): list(line.get_ydata()) for line in axes.lines}


def test_dots_are_seeds_and_the_first_method_has_a_line():
    rows = {
        "none": [{"squared": 0.04, "nll": 0.5}, {"squared": 0.06, "nll": 0.7}],
        "temperature": [{"squared": 0.01, "nll": 0.4}, {"squared": 0.0, "nll": 0.4}],
    }
    figure = figures.method_dots(rows, ("squared", "nll"), "Recalibrated")
    figure.canvas.draw()
    left, right = figure.axes
    assert left.get_title(loc="left") == "Recalibrated"
    assert [t.get_text() for t in left.get_yticklabels()] == list(rows)
    assert left.get_xlabel() == "mean squared calibration error"
    first, mean, second, _, line = left.lines
    assert list(first.get_xdata()) == [0.04, 0.06]
    assert list(second.get_xdata()) == [0.01, 0.0]
    assert mean.get_xdata() == line.get_xdata()[0] == pytest.approx(0.05)


def test_sizes_have_a_line_for_each_method_over_n():
    rows = [
        [
            dict(method=m, n=n, brier=b + n / 1000)
            for m, b in (("temperature", 0.1), ("isotonic", 0.2))
            for n in (30, 300)
        ]
    ] * 2
    figure = figures.sizes(rows, ("brier",), most=300)
    figure.canvas.draw()
    [axes] = figure.axes
    assert named(axes)["isotonic"] == pytest.approx([0.23, 0.5])
    assert [t.get_text() for t in axes.get_xticklabels()] == ["30", "300\n(all)"]


def test_heat_has_a_number_for_each_pair():
    table = np.array([[0.1, 0.2], [0.01, 0.02], [0.03, 0.04]])
    figure = figures.heat(table, ["none", "city", "word"], ["city", "word"])
    figure.canvas.draw()
    [axes] = figure.axes
    labels = [text.get_text() for text in axes.texts]
    assert labels == [f"{value:.3f}" for value in table.ravel()]
    assert [t.get_text() for t in axes.get_yticklabels()] == ["none", "city", "word"]


def test_members_are_beside_one_model_of_the_same_compute():
    rows = [[dict(members=m, nll=1 / m + s) for m in (1, 2)] for s in (0.0, 0.2)]
    figure = figures.members(
        {"ensemble": rows}, {"one model": [{"nll": 0.8}, {"nll": 1.0}]}, ("nll",)
    )
    figure.canvas.draw()
    [axes] = figure.axes
    assert named(axes)["ensemble"] == pytest.approx([1.1, 0.6])
    assert named(axes)["one model"] == pytest.approx([0.9, 0.9])


def test_selective_answers_are_the_risk_coverage_curve():
    rng = np.random.default_rng(0)
    pair = rng.random(50), rng.integers(0, 2, 50)
    figure = figures.selective({"own": pair})
    figure.canvas.draw()
    [axes] = figure.axes
    assert named(axes)["own"] == pytest.approx(list(risk_coverage_curve(*pair).risk))
