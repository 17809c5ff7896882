"""Figures of notebook 05 show the runs they are given; the explorer explains a pair."""

import numpy as np
import pytest
from scipy.special import expit, logit

from alignlab.chapters.dpo import card, figures
from alignlab.chapters.dpo.analysis import GRID, envelopes
from tests.drawing import drawn, legend, points, ticks

pytestmark = pytest.mark.usefixtures("style")


def look(kl, gained):
    golds = [1.0 + gained, 3.0 + gained]
    return dict(kl=kl, golds=golds, gold=2.0 + gained)


def run(seed, *looks):
    return {"chain": {"seed": seed}, "points": list(looks), "stopped": None}


START = {seed: look(0.0, 0.0) for seed in (0, 1)}


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


def test_the_explorer_draws_every_pair(explorer):
    figures.margin_explorer()
    beta, margin = explorer.controls
    assert beta.value == pytest.approx(0.1)
    for beta.value, margin.value in ((0.01, -30.0), (3.0, 30.0)):
        figure, words = explorer.pictures
        assert figures.margin_story(beta.value, margin.value) in words
        marks = {line.get_xdata()[0] for line in drawn(figure).axes[0].lines[1::2]}
        assert margin.value in marks


# --- Two replies ----------------------------------------------------------------------


@pytest.mark.parametrize("preferred, reference, beta", [(0.8, 0.3, 1), (0.6, 0.9, 0.4)])
@pytest.mark.parametrize("loss", ["DPO", "IPO"])
def test_margins_are_where_gradient_descent_ends(loss, preferred, reference, beta):
    margin = figures.margins(preferred, beta)[loss]
    ends = expit(logit(reference) + margin)
    assert ends == pytest.approx(
        card.two_replies(loss, preferred, reference, beta), abs=1e-5
    )


def test_dpo_ends_where_reward_less_the_price_of_kl_is_greatest():
    preferred, reference, beta = 0.75, 0.2, 0.7
    p = np.linspace(1e-4, 1 - 1e-4, 100_001)
    kl = p * np.log(p / reference) + (1 - p) * np.log((1 - p) / (1 - reference))
    best = p[np.argmax(p * logit(preferred) - beta * kl)]
    story = figures.two_replies_story(preferred, reference, beta)
    assert f"probability {best:.2f}" in story
    assert f"{np.interp(best, p, kl):.2f} nats from the reference" in story


def test_certain_labels_ask_dpo_for_all_and_ipo_for_a_margin():
    story = figures.two_replies_story(1.0, 0.3, 0.5)
    assert "no minimum" in story and "margin of 1.00 nats" in story
    drawn(figures.two_replies(1.0, 0.3, 0.5))


def test_the_loss_of_two_replies_is_least_where_the_line_is(explorer):
    figures.two_replies_explorer()
    beta, preferred, reference = explorer.controls
    preferred.value, beta.value = 0.9, 2.0
    figure, words = explorer.pictures
    assert figures.two_replies_story(0.9, reference.value, 2.0) in words
    left, right = drawn(figure).axes
    lines = {line.get_label(): line for line in left.lines}
    p, loss = lines["the loss"].get_data()
    end = lines["where DPO ends"].get_xdata()[0]
    assert p[np.argmin(loss)] == pytest.approx(end, abs=0.02)
    marks = [line for line in right.lines if line.get_marker() != "None"]
    assert marks[0].get_xdata() == [2.0] and marks[0].get_ydata()[0] == end


def test_bars_of_tokens_add_up_to_the_title():
    tokens = {"chosen": ["a", "b"], "rejected": ["c"]}
    ratios = {"chosen": [0.5, -0.25], "rejected": [-2.0]}
    top, bottom = drawn(figures.token_log_ratios(tokens, ratios)).axes
    assert ticks(top.xaxis) == ["a", "b"]
    assert [bar.get_height() for bar in top.patches] == [0.5, -0.25]
    assert "+0.25" in top.get_title(loc="left")
    assert "-2.00" in bottom.get_title(loc="left")


def test_each_loss_has_a_panel_with_dpo_behind_it():
    groups = {
        "DPO": [run(s, look(2.0, 1.0 + s)) for s in (0, 1)],
        "IPO": [run(s, look(1.0, 0.5)) for s in (0, 1)],
    }
    [axes] = drawn(figures.paths(groups, START, 3.0)).axes
    assert axes.get_title(loc="left") == "IPO" and axes.get_xlim() == (0, 3)
    thick = {line.get_label(): line for line in axes.lines if line.get_linewidth() > 2}
    assert thick["DPO"].get_ydata().tolist() == [0, 1.5]
    assert thick["IPO"].get_xdata().tolist() == [0, 1]


def test_gains_have_a_row_a_method_and_a_dot_a_seed():
    gains = {"DPO": {0: 1.0, 1: 2.0, 2: 1.5}, "IPO": {0: 0.7}}
    [axes] = drawn(figures.gain_rows(gains, "title", "gold")).axes
    assert ticks(axes.yaxis) == ["DPO", "IPO"]
    assert [x.tolist() for x, _ in points(axes, "o")] == [[1.0, 2.0, 1.5], [0.7]]
    assert axes.get_xlabel() == "gold"


def test_the_frontier_has_every_look_and_each_methods_envelope():
    methods = {
        "DPO": [run(s, look(1.0, 0.5), look(2.0, 1.0 + s)) for s in (0, 1)],
        "PPO": [run(0, look(8.0, 4.0)), run(1, look(2.0, 3.0))],
    }
    [axes] = drawn(figures.frontier(methods, START)).axes
    assert legend(axes) == ["DPO", "PPO", "reference"]
    assert [y.tolist() for _, y in points(axes, "o")] == [[0.5, 1.0], [0.5, 2.0]]
    [mean] = [line for line in axes.lines if line.get_label() == "DPO"]
    expected = np.mean(list(envelopes(methods["DPO"], START).values()), axis=0)
    assert mean.get_ydata() == pytest.approx(expected)
    assert mean.get_xdata() == pytest.approx(GRID)


def test_time_begins_when_a_method_can():
    lines = {
        "DPO": [(np.array([0.0, 10.0]), np.array([0.0, 0.2]))],
        "PPO": [(np.array([30.0, 40.0]), np.array([0.0, 0.4]))],
    }
    [axes] = drawn(figures.time_to_gold(lines)).axes
    assert legend(axes) == ["DPO", "PPO"]
    assert [x.tolist() for x, _ in points(axes, "s")] == [[30, 40]]
