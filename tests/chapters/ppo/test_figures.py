"""Figures of notebook 04 show the runs they are given; the explorer tells one reply."""

import html
import math

import numpy as np
import pandas as pd
import pytest
import torch

from alignlab.chapters.ppo import figures
from alignlab.evaluation.intervals import Interval, t_interval
from alignlab.study.optimising import LOGGED
from tests.drawing import drawn, legend, points, ticks

pytestmark = pytest.mark.usefixtures("style")


def run(scale=1.0, updates=3):
    """A run whose logged numbers are the update's number times a scale."""
    logged = {name: [scale * (t + 1) for t in range(updates)] for name in LOGGED}
    return {"history": logged}


def test_the_ladder_has_a_row_for_each_rung_in_both_panels():
    completions = {"a": [0.1, 0.3, 0.5], "b": [0.0, 0.2, 0.1]}
    seconds = {"a": [1.0, math.nan, 2.0], "b": [0.5, 0.5, 0.5]}
    left, right = drawn(figures.ladder(completions, seconds, 9.6, "A")).axes
    assert [x.tolist() for x, _ in points(left, ".")] == list(completions.values())
    assert [x.tolist() for x, _ in points(right, ".")] == [[1.0, 2.0], [0.5] * 3]
    assert [x[0] for x, _ in points(left, "D")] == pytest.approx([0.3, 0.1])
    assert ticks(left.yaxis) == ["a", "b"]
    assert "10 processor's seconds" in right.get_title(loc="left")


def test_the_clipped_objective_is_the_smaller_of_the_two():
    good, bad = drawn(figures.clipping(0.3)).axes
    for axes, advantage in ((good, 1), (bad, -1)):
        (_, plain), (ratio, clipped), _ = points(axes)
        expected = np.minimum(plain, np.clip(ratio, 0.7, 1.3) * advantage)
        assert clipped == pytest.approx(expected)
    assert points(good)[1][1].max() == pytest.approx(1.3)
    assert points(bad)[1][1].max() == pytest.approx(-0.7)


def test_a_price_is_drawn_with_what_it_should_become():
    path = {"kl": [0.0, 2.0, 1.0], "beta": [0.1, 0.2, 0.4]}
    kl, beta = drawn(figures.price(path, 1.0, 0.5)).axes
    for axes, name, goal in ((kl, "kl", 1.0), (beta, "beta", 0.5)):
        (_, walked), (_, level) = points(axes)
        assert walked.tolist() == path[name] and set(level) == {goal}


def test_the_sweep_shows_every_seeds_kl_and_gain():
    rows = {beta: [run(beta + 1), run(beta + 2)] for beta in (0.0, 0.2)}
    gains = {"gold": {0.0: [1.0, 2.0], 0.2: [3.0, 4.0]}}
    left, right = drawn(figures.sweep(rows, gains, "KL")).axes
    assert legend(left) == ["β = 0", "β = 0.2"]
    lines = [y.tolist() for _, y in points(left)]
    assert lines[:3] == [[1, 2, 3], [2, 4, 6], [1.5, 3.0, 4.5]]
    assert ticks(right.xaxis) == ["0", "0.2"]
    [(_, means)] = points(right, "o")
    assert means.tolist() == [1.5, 3.5]
    assert [y.tolist() for _, y in points(right, ".")] == [[1, 2], [3, 4]]


def test_the_mean_of_a_curve_ends_where_the_shortest_run_does():
    rows = {0.2: [run(1), run(3, updates=2)]}
    left, _ = drawn(figures.sweep(rows, {"gold": {0.2: [1.0, 2.0]}}, "KL")).axes
    assert points(left)[-1][1].tolist() == [2, 4]


def test_the_frontier_has_best_of_n_and_the_end_of_every_run():
    best = [
        [dict(n=n, kl=n / 4, gold=s * n, proxy=n / 8) for n in (1, 2, 4)]
        for s in (1, 3)
    ]
    ends = {"β = 0": [(1.0, 0.1, 0.5), (3.0, 0.3, 0.7)]}
    gold, proxy = drawn(figures.frontier(best, ends, "Both")).axes
    assert points(gold, "s")[0][1].tolist() == [2, 4, 8]
    assert points(proxy, "s")[0][1].tolist() == [1 / 8, 1 / 4, 1 / 2]
    each, mean = points(gold, "o")
    assert each[1].tolist() == [0.1, 0.3]
    assert (mean[0].item(), mean[1].item()) == pytest.approx((2.0, 0.2))
    assert [text.get_text() for text in gold.texts] == ["2", "4"]
    assert legend(proxy) == ["best of n", "β = 0"]


def test_pieces_show_seeds_interval_and_the_least_that_counts():
    lost = {"clipping": [0.1, 0.5, 0.3], "gae": [-0.2, 0.0, 0.2]}
    [axes] = drawn(figures.pieces(lost, 0.1, "Pieces")).axes
    assert ticks(axes.yaxis) == ["without clipping", "without gae"]
    assert [x.tolist() for x, _ in points(axes, ".")] == list(lost.values())
    bars = [x.tolist() for x, _ in points(axes, "None")][:2]
    assert bars[0] == pytest.approx(list(t_interval(lost["clipping"])[1:]))
    assert points(axes)[-1][0][0] == 0.1


def test_paths_are_in_the_order_of_the_updates():
    whole, without = run(), run(2.0)
    without["history"]["kl_exact"] = [0.0, 5.0, 2.0]
    [axes] = drawn(figures.paths([whole], {"without it": [without]}, "Far")).axes
    lines = [x.tolist() for x, _ in points(axes, "None")]
    assert lines == [[1, 2, 3], [0.0, 5.0, 2.0]]
    assert [x.item() for x, _ in points(axes, "o")] == [3, 2]
    assert legend(axes) == ["all of PPO", "without it"]


def test_diagnostics_draw_all_that_is_worth_watching():
    figure = drawn(figures.diagnostics({"healthy": [run()], "sick": [run(9)]}, "Two"))
    assert len(figure.axes) == len(figures.DIAGNOSTICS)
    assert set(figures.DIAGNOSTICS) <= set(LOGGED)
    for axes in figure.axes:
        assert [y.tolist() for _, y in points(axes)] == [[1, 2, 3], [9, 18, 27]]
    [names] = figure.legends
    assert [text.get_text() for text in names.get_texts()] == ["healthy", "sick"]


def test_failures_are_crosses_and_none_is_out_of_sight():
    groups = {"PPO": [(1.0, False), (-9.0, True)], "DPO": [(0.5, False)]}
    [axes] = drawn(figures.failures(groups, 0.25, "Runs")).axes
    assert [x.tolist() for x, _ in points(axes, "o")] == [[1.0], [0.5]]
    assert [x.tolist() for x, _ in points(axes, "X")] == [[-2.0], []]
    assert ticks(axes.yaxis) == ["PPO", "DPO"]
    assert points(axes)[-1][0][0] == -0.25


def test_the_search_has_a_curve_for_each_method_and_the_default():
    curves = {
        "PPO": [Interval(0.0, -0.1, 0.1), Interval(0.2, 0.1, 0.3)],
        "DPO": [Interval(0.1, -math.inf, math.inf)] * 2,
    }
    [axes] = drawn(figures.search(curves, Interval(0.15, 0.1, 0.2), "Ahead")).axes
    assert legend(axes) == ["PPO", "DPO", "PPO, default configuration"]
    assert points(axes, "o")[0][1].tolist() == [0.0, 0.2]
    bars = [y.tolist() for _, y in points(axes, "None") if len(set(y)) == 2]
    assert bars == [[-0.1, 0.1], [0.1, 0.3]]


# --- One reply ----------------------------------------------------------------------

TABLE = pd.DataFrame(
    {
        "token": [" The", " Euro", ".", "<|end|>"],
        "log_ratio": [0.5, -0.2, 0.0, 1.0],
        "kl": [0.1, 0.2, 0.0, 0.3],
        "reward": [-0.02, 0.01, 0.0, 1.4],
        "value": [0.3, 0.4, 0.5, 0.6],
        "advantage": [1.0, -1.0, 1.0, -1.0],
        "ratio": [1.3, 0.7, 0.7, 1.3],
    }
)


def test_a_table_has_a_row_for_each_token():
    columns = dict(kl=torch.tensor([[0.1, 0.2]]), ratio=torch.tensor([[1.0, 2.0]]))
    columns["ratio"].requires_grad_()
    table = figures.token_table(["a", "b"], **columns)
    assert table["token"].tolist() == ["a", "b"]
    assert table["ratio"].tolist() == [1.0, 2.0]
    assert table["kl"].tolist() == pytest.approx([0.1, 0.2])


def test_a_rollout_shows_all_numbers_and_hatches_what_is_clipped():
    figure = drawn(figures.rollout(TABLE, 0.2))
    assert len(figure.axes) == 6
    names = "log_ratio", "kl", "reward", "value", "advantage"
    for axes, name in zip(figure.axes, names):
        heights = [bar.get_height() for bar in axes.patches]
        assert heights == pytest.approx(TABLE[name].tolist())
    bars = figure.axes[-1].patches
    tops = [bar.get_y() + bar.get_height() for bar in bars]
    assert tops == pytest.approx(TABLE["ratio"].tolist())
    # A good token that rose far enough, and a bad one that fell far enough.
    assert [bar.get_hatch() for bar in bars] == ["//", "//", None, None]
    assert ticks(figure.axes[-1].xaxis) == ["The", "Euro", ".", "<|end|>"]


def test_what_comes_after_the_marked_token_is_pale():
    figure = drawn(figures.rollout(TABLE, at=1))
    alphas = [bar.get_alpha() for bar in figure.axes[0].patches[:4]]
    assert alphas == [None, None, 0.25, 0.25]


def test_a_tokens_story_says_whether_it_still_pulls():
    first, second, third, last = [figures.describe_token(TABLE, at) for at in range(4)]
    assert "comes  “The”   (1 of 4)" in first and "+0.500 nats" in first
    assert "clipped away" in first and "clipped away" in second
    assert "after  “The Euro”" in third and "still pulls up" in third
    assert "0.300 nats" in last and "+1.400" in last and "still pulls down" in last
    assert "clipped" not in figures.describe_token(TABLE, 0, clip_range=0.4)


def test_the_explorer_steps_through_every_token_of_every_reply(explorer):
    table = TABLE.assign(advantage=[1.0, -1.0, -3.0, 2.0])
    figures.rollout_explorer({"long": table, "short": table[:2]})
    reply, token = explorer.controls
    assert (token.min, token.max) == (0, 3)
    assert token.value == 2, "where the advantage is greatest"

    def shown():
        words, figure = explorer.pictures
        drawn(figure)
        return html.unescape(words), len(figure.axes[0].patches) - 1

    for token.value in range(4):
        words, n = shown()
        assert figures.describe_token(table, token.value) in words and n == 4
    reply.value = "short"
    words, n = shown()
    assert (token.value, token.max) == (1, 1)
    assert figures.describe_token(table[:2], 1) in words and n == 2
