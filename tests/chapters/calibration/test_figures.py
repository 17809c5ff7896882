"""Figures of notebook 07 show what they are given."""

import numpy as np
import pytest

from alignlab.chapters.calibration import figures
from tests.drawing import labelled

pytestmark = pytest.mark.usefixtures("style")


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
    assert lines["π ∝ π₀·exp(p/β)"] == [0.4, 0.2]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0.1", "1"]


def test_shares_are_drawn_over_probabilities_in_bins_of_equally_many():
    rng = np.random.default_rng(0)
    probability = rng.uniform(0.02, 0.98, 80)
    share = np.sqrt(probability)
    seeds = [(probability, share), (probability, share**4)]
    figure = figures.against_shares({"before": seeds, "after": seeds[:1]}, n_bins=4)
    first, second = labelled(figure).axes
    assert [first.get_title(loc="left"), second.get_title(loc="left")] == [
        "before",
        "after",
    ]
    [mean] = [line for line in first.lines if line.get_label() == "_mean"]
    bins = np.split(np.argsort(probability), 4)
    assert mean.get_xdata() == pytest.approx([probability[b].mean() for b in bins])
    expected = [(share[b].mean() + (share[b] ** 4).mean()) / 2 for b in bins]
    assert mean.get_ydata() == pytest.approx(expected)


def test_earnings_have_a_line_for_each_rule():
    rows = {"believing": [[1.0, 0.2], [0.8, 0.0]], "always": [[0.9, -3.0]]}
    [axes] = labelled(figures.earnings([0.0, 4.0], rows)).axes
    lines = {line.get_label(): list(line.get_ydata()) for line in axes.lines}
    assert lines["believing"] == pytest.approx([0.9, 0.1])
    assert axes.get_ylim()[0] == -1.0  # what lies far below 0 is cut off


def test_repairs_have_a_row_each_in_both_panels():
    errors = {"none": [0.02, 0.03], "isotonic": [0.001, 0.0]}
    left, right = labelled(figures.repairs(errors, {k: [0.01] for k in errors})).axes
    assert [t.get_text() for t in left.get_yticklabels()] == list(errors)
    drawn = [line.get_xdata() for line in left.lines if len(line.get_xdata()) == 2]
    assert list(drawn[0]) == errors["none"]
    assert left.get_title(loc="left") != right.get_title(loc="left")


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
