"""Figures of notebook 07 show what they are given."""

import numpy as np
import pytest

from alignlab.calibration import expected_calibration_error
from alignlab.chapters.calibration import figures
from tests.drawing import labelled

pytestmark = pytest.mark.usefixtures("style")


def some_answers(n=400, seed=0):
    rng = np.random.default_rng(seed)
    confidence = rng.uniform(0.3, 1, n)
    return confidence, (rng.random(n) < confidence**2).astype(int)


def texts(axes):
    return "\n".join(text.get_text() for text in axes.texts)


def test_a_diagram_for_each_model_with_its_error():
    answers = {"base": some_answers(), "SFT": some_answers(seed=1)}
    figure = figures.diagrams(answers)
    figure.canvas.draw()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["base", "SFT"]
    for axes, pair in zip(figure.axes, answers.values()):
        error = expected_calibration_error(*pair, 10)
        assert f"ECE {error:.3f}" in texts(axes) and "by chance" in texts(axes)


def test_stages_have_a_dot_for_each_seed():
    values = {"base": [0.01, 0.012], "SFT": [0.03, 0.05]}
    temperatures = {"base": [1.1, 1.0], "SFT": [2.0, 4.0]}
    left, right = labelled(figures.stages(values, temperatures)).axes
    drawn = [line.get_xdata() for line in left.lines if len(line.get_xdata()) == 2]
    assert list(drawn[0]) == values["base"] and list(drawn[1]) == values["SFT"]
    assert right.get_xscale() == "log"
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == ["base", "SFT"]
    assert "2" in [label.get_text() for label in right.get_xticklabels()]


def test_what_was_measured_lies_beside_the_closed_form_in_order_of_beta():
    figure = figures.against_optimum([1.0, 0.1], [[0.1, 0.3]], [[0.2, 0.4]], [0.05])
    [axes] = labelled(figure).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines["after training"] == [0.3, 0.1]
    assert lines["π ∝ p·exp(p/β)"] == [0.4, 0.2]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.1", "1"]


def test_chance_has_a_line_for_each_number_of_bins():
    rows = [
        dict(n=n, bins=b, ece=b / n, squared=0.001)
        for n in (1000, 100)
        for b in (5, 15)
    ]
    left, right = labelled(figures.chance(rows)).axes
    assert [list(line.get_ydata()) for line in left.lines] == [
        [0.05, 0.005],
        [0.15, 0.015],
    ]
    assert right.get_ylim()[0] < 0 < right.get_ylim()[1]
