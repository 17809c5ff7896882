"""Figures of notebook 09 show the seeds that they are given."""

import numpy as np
import pytest

from alignlab.chapters.a_real_model import figures
from tests.drawing import legend, points, ticks

pytestmark = pytest.mark.usefixtures("style")
GROUPS = {"SFT": [0.1, 0.2, 0.3], "PPO": [0.5, 0.6, 0.4]}


def seeds_of(axes):
    return [list(y) for _, y in points(axes) if len(y) == 3]


def test_panels_have_a_dot_for_each_seed_and_a_title_each():
    figure = figures.panels({"words": GROUPS, "ended": GROUPS}, "What changes")
    figure.canvas.draw()
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["words", "ended"]
    for axes in figure.axes:
        assert ticks(axes.xaxis) == list(GROUPS)
        assert seeds_of(axes) == list(GROUPS.values())


def test_accuracy_marks_chance_and_the_ceiling_of_people():
    figure = figures.accuracy(GROUPS, [0.9, 0.8], "Title")
    figure.canvas.draw()
    levels = [
        y[0] for _, y in points(figure.axes[0]) if len(set(y)) == 1 and len(y) == 2
    ]
    assert any(np.isclose(levels, 0.85)) and any(np.isclose(levels, 0.5))


@pytest.mark.parametrize("draw", [figures.gains, figures.refusals])
def test_both_series_are_named_and_drawn(draw):
    figure = draw(GROUPS, {name: [v[0]] * 3 for name, v in GROUPS.items()}, "Title")
    figure.canvas.draw()
    [axes] = figure.axes
    assert len(legend(axes)) == 2 and len(seeds_of(axes)) == 4


def test_curves_have_a_line_for_each_seed():
    curve = {"PPO": [[0, 1, 2], [1, 2, 3]], "RLOO": [[0, 0, 0], [1, 1, 1]]}
    figure = figures.along({"score": curve, "KL": curve}, "Along")
    figure.canvas.draw()
    assert [axes.get_ylabel() for axes in figure.axes] == ["score", "KL"]
    assert legend(figure.axes[0]) == ["PPO", "RLOO"]
    assert [0, 1, 2] in [list(y) for _, y in points(figure.axes[0])]


def test_a_single_seed_draws_too():
    one = {name: values[:1] for name, values in GROUPS.items()}
    figures.panels({"words": one}, "One").canvas.draw()
    figures.gains(one, one, "One").canvas.draw()
