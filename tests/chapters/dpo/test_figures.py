"""Figures of notebook 05 show the runs they are given; the explorer explains a pair."""

import numpy as np
import pytest

from alignlab.chapters.dpo import figures
from alignlab.chapters.dpo.analysis import GRID, envelopes
from tests.drawing import drawn, legend, points, ticks

pytestmark = pytest.mark.usefixtures("style")


def end(seed, kl, gained, **others):
    golds = [1.0 + gained, 3.0 + gained]
    return dict(seed=seed, kl=kl, golds=golds, gold=2.0 + gained, **others)


START = [end(seed, 0.0, 0.0) for seed in (0, 1)]


def test_replies_stand_in_the_order_of_their_reward():
    policies = {"reference": [0.5, 0.2, 0.3], "optimum": [0.1, 0.8, 0.1]}
    left, right = drawn(
        figures.optimum(policies, [0.0, 1.0, -1.0], [0.3, 1.3, -0.7], ["x", "y", "z"])
    ).axes
    assert ticks(left.xaxis) == ["y", "x", "z"]
    drawn_lines = [line.get_ydata().tolist() for line in left.lines]
    assert drawn_lines == [[0.2, 0.5, 0.3], [0.8, 0.1, 0.1]]
    assert legend(left) == list(policies)
    [(x, y)] = points(right, "o")
    assert x.tolist() == [0, 1, -1] and y.tolist() == [0.3, 1.3, -0.7]
    [line] = [line for line in right.lines if line.get_linestyle() == "--"]
    assert line.get_ydata() == pytest.approx([-0.7, 1.3])


def test_pulls_are_relative_to_that_at_margin_zero():
    figure = drawn(figures.loss_and_gradient(0.2, margin=10.0))
    _, right = figure.axes
    assert legend(right) == list(figures.LOSSES)
    marks = {
        name: mark[1][0]
        for name, mark in zip(figures.LOSSES, points(right, "o"), strict=True)
    }
    assert marks["DPO"] == pytest.approx(2 / (1 + np.exp(2.0)))
    assert marks["hinge"] == 0 and marks["unweighted"] == pytest.approx(1)
    assert marks["IPO"] == pytest.approx(1 - 10 / 2.5), "it turns back beyond 2.5"


def test_the_story_says_what_a_margin_means():
    story = figures.margin_story(0.1, 0.0)
    assert "probability 0.50" in story and "aims at a margin of 5.0" in story
    assert story.endswith("pulls on.")
    assert figures.margin_story(0.1, 9.0).endswith("pulls back.")
    assert "weight is 0.29" in figures.margin_story(0.1, 9.0)


def test_the_explorer_draws_every_pair(explorer, capsys):
    figures.margin_explorer()
    assert explorer.controls["beta"].value == pytest.approx(0.1)
    assert len(explorer.shown) == 2
    for beta, margin in ((0.01, -30.0), (3.0, 30.0)):
        explorer.function(beta, margin)
        assert capsys.readouterr().out == figures.margin_story(beta, margin) + "\n"


def test_gradients_show_every_pair_of_every_seed():
    def row(seed, margin):
        margin = np.array(margin)
        weight = 1 / (1 + np.exp(0.5 * margin))
        measured = dict(margin=margin, gradient=weight, of_margin=2 + 0 * margin)
        return {"seed": seed, "gradients": measured}

    rows = [row(0, [0.0, 2.0]), row(1, [4.0, -4.0])]
    left, right = drawn(figures.gradients(rows, 0.5)).axes
    for number, marker in enumerate("os"):
        weight = rows[number]["gradients"]["gradient"]
        [(x, y)] = points(left, marker)
        assert x == pytest.approx(weight) and y == pytest.approx(weight)
        assert points(right, marker)[0][1] == pytest.approx(weight)
    assert legend(right) == ["seed 0", "seed 1"]


def test_log_ratios_have_a_row_a_kind_and_a_line_a_side():
    def row(scale):
        series = {"pairs": [0, 8, 16]}
        for place, name in enumerate(
            ("train/chosen", "train/rejected", "held_out/chosen", "held_out/rejected")
        ):
            series[name] = [0.0, scale * (place + 1), 2 * scale * (place + 1)]
        return {"log_ratios": series}

    groups = {"DPO": [row(1), row(3)], "unweighted": [row(-1), row(-1)]}
    axes = drawn(figures.log_ratios(groups)).axes
    assert len(axes) == 4 and legend(axes[0]) == ["chosen", "rejected"]
    means = {
        panel.get_title(loc="left"): [
            line.get_ydata()[-1] for line in panel.lines if line.get_label()[0] != "_"
        ]
        for panel in axes
    }
    assert means == {
        "DPO: training pairs": [4, 8],
        "DPO: pairs about unseen subjects": [12, 16],
        "unweighted: training pairs": [-2, -4],
        "unweighted: pairs about unseen subjects": [-6, -8],
    }


def test_strengths_are_drawn_in_order_a_line_a_seed():
    rows = [end(s, 5 - b, b + s, beta=b) for b in (2.0, 0.5) for s in (0, 1)]
    rows.append({"seed": 0, "beta": 9.0, "stopped": "inf"})
    left, right = drawn(figures.strengths(rows, START)).axes
    assert [y.tolist() for _, y in points(left, "o")] == [[4.5, 3.0]] * 2
    assert [y.tolist() for _, y in points(right, "o")] == [[0.5, 2.0], [1.5, 3.0]]


def test_noise_shows_every_run_and_the_means():
    groups = {
        "DPO": [end(s, 3.0, 1.0 + s - f, flips=f) for f in (0.0, 0.4) for s in (0, 1)],
        "cDPO": [end(0, 1.0, 0.5, flips=f) for f in (0.0, 0.4)],
    }
    left, right = drawn(figures.noise(groups, START)).axes
    assert legend(left) == ["DPO", "cDPO"]
    assert points(left, "o")[0][1] == pytest.approx([1.5, 1.1])
    assert points(right, "s")[0][1] == pytest.approx([1.0, 1.0])
    dots = np.concatenate([y for _, y in points(left, ".")])
    assert sorted(dots) == pytest.approx(sorted([1, 2, 0.6, 1.6, 0.5, 0.5]))


def test_the_frontier_has_every_run_and_each_methods_envelope():
    methods = {
        "DPO": [end(s, 2.0, 1.0 + s, stopped=None) for s in (0, 1)],
        "PPO": [end(0, 8.0, 4.0), {"seed": 1, "stopped": "inf"}],
    }
    figure = drawn(figures.frontier({"all": methods, "one": {"DPO": methods["DPO"]}},
                                    START))  # fmt: skip
    left, right = figure.axes
    assert legend(left) == ["DPO", "PPO"] and legend(right) == ["DPO"]
    assert [y.tolist() for _, y in points(left, "o")] == [[1.0, 2.0]]
    assert [y.tolist() for _, y in points(left, "s")] == [[4.0]]
    [mean] = [line for line in left.lines if line.get_label() == "DPO"]
    expected = np.mean(list(envelopes(methods["DPO"], START).values()), axis=0)
    assert mean.get_ydata() == pytest.approx(expected)
    assert mean.get_xdata() == pytest.approx(GRID)
    assert "nats" in left.get_xlabel() and "gold" in left.get_ylabel()


def test_areas_have_a_row_a_method_and_a_dot_a_seed():
    areas = {"DPO": {0: 1.0, 1: 2.0, 2: 1.5}, "IPO": {0: 0.7}}
    [axes] = drawn(figures.area_dots(areas)).axes
    assert ticks(axes.yaxis) == ["DPO", "IPO"]
    assert [x.tolist() for x, _ in points(axes, "o")] == [[1.0, 2.0, 1.5], [0.7]]
