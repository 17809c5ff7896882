"""Figures of notebook 07 show what they are given."""

from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pytest
from scipy.special import softmax

from alignlab.calibration import expected_calibration_error, top_label
from alignlab.chapters.calibration import figures

pytestmark = pytest.mark.usefixtures("style")


def complete(figure):
    """Draw it; every panel has a title and a name for its y axis or its x axis."""
    figure.canvas.draw()
    for axes in figure.axes:
        assert axes.get_title(loc="left") and axes.get_xlabel() + axes.get_ylabel()
    return figure


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
    left, right = complete(figures.stages(values, temperatures)).axes
    drawn = [line.get_xdata() for line in left.lines if len(line.get_xdata()) == 2]
    assert list(drawn[0]) == values["base"] and list(drawn[1]) == values["SFT"]
    assert right.get_xscale() == "log"
    names = [label.get_text() for label in left.get_yticklabels()]
    assert names == ["base", "SFT"]
    assert "2" in [label.get_text() for label in right.get_xticklabels()]


def test_gaps_have_a_line_for_each_model_and_seed():
    rows = {"base": [[0.4, 0.0], [0.5, 0.1]], "SFT": [[0.6, 0.0], [0.5, -0.1]]}
    [axes] = complete(figures.gaps(rows, ["never", "often"])).axes
    means = [line.get_ydata() for line in axes.lines if line.get_label() in rows]
    assert np.allclose(means, [[0.45, 0.05], [0.55, -0.05]])


def test_what_was_measured_lies_beside_the_closed_form_in_order_of_beta():
    figure = figures.against_optimum([1.0, 0.1], [[0.1, 0.3]], [[0.2, 0.4]], [0.05])
    [axes] = complete(figure).axes
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
    left, right = complete(figures.chance(rows)).axes
    assert [list(line.get_ydata()) for line in left.lines] == [
        [0.05, 0.005],
        [0.15, 0.015],
    ]
    assert right.get_ylim()[0] < 0 < right.get_ylim()[1]


def test_the_temperature_moves_the_diagram_and_its_ece():
    rng = np.random.default_rng(0)
    logits = 4 * rng.normal(size=(500, 4))
    right = (logits / 4 + rng.gumbel(size=logits.shape)).argmax(axis=1)
    for temperature in (1.0, 4.0):
        [axes, *_] = figures.at_temperature(logits, right, temperature).axes
        pair = top_label(softmax(logits / temperature, axis=1), right)
        told = axes.get_legend_handles_labels()[1][-1]
        assert f"T = {temperature:.2f}: ECE" in told
        assert f"{expected_calibration_error(*pair, 10):.3f}" in told


def test_the_explorer_shows_a_picture_and_draws_it_anew_when_its_slider_moves(
    monkeypatch,
):
    import IPython.display

    drawn, shown = [], []

    def at_temperature(log_probs, right, temperature, n_bins):
        drawn.append(temperature)
        return plt.figure()

    def display(thing, display_id=False):
        shown.append(thing)
        return SimpleNamespace(update=shown.append)

    monkeypatch.setattr(figures, "at_temperature", at_temperature)
    monkeypatch.setattr(IPython.display, "display", display)
    figures.temperature_explorer(np.zeros((9, 4)), np.zeros(9, int), start=2.0)
    slider, picture = shown
    assert drawn == [2.0] and isinstance(picture, plt.Figure)
    slider.value = 4.0
    assert drawn == [2.0, pytest.approx(4.0)] and len(shown) == 3
