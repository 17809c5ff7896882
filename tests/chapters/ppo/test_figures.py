"""Figures of notebook 04 show the runs they are given; the explorer tells one reply."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch

from alignlab.chapters.ppo import figures
from alignlab.chapters.ppo.artifacts import LOGGED
from tests.drawing import drawn, points, ticks

pytestmark = pytest.mark.usefixtures("style")


def run(seed, scale=1.0, updates=3, **labels):
    """A run whose logged numbers are the update's number times a scale."""
    logged = {name: [scale * (t + 1) for t in range(updates)] for name in LOGGED}
    ends = dict(gold=scale, proxy=scale / 2, kl=3 * scale, stopped=None)
    return {"seed": seed, "history": logged, **ends, **labels}


START = [dict(seed=s, gold=0.5, proxy=0.1, kl=0.0) for s in (0, 1)]


def test_the_ladder_draws_the_mean_of_every_rung():
    rows = [
        run(s, scale + s, rung=r) for r, scale in (("a", 1), ("b", 5)) for s in (0, 1)
    ]
    figure = drawn(figures.ladder(rows))
    assert [axes.get_ylabel() for axes in figure.axes] == [
        "gold reward",
        "proxy reward",
        "KL (nats a reply)",
    ]
    for axes in figure.axes:
        assert [y.tolist() for _, y in points(axes)] == [[1.5, 3, 4.5], [5.5, 11, 16.5]]
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]


def test_runs_that_stopped_early_shorten_the_curve_only():
    rows = [run(0, rung="a"), run(1, updates=2, rung="a")]
    [axes, *_] = drawn(figures.ladder(rows)).axes
    assert [x.tolist() for x, _ in points(axes)] == [[1, 2]]


def test_the_clipped_objective_is_the_smaller_of_the_two():
    good, bad = drawn(figures.clipping(0.3)).axes
    for axes, advantage in ((good, 1), (bad, -1)):
        (_, plain), (ratio, clipped), _ = points(axes)
        expected = np.minimum(plain, np.clip(ratio, 0.7, 1.3) * advantage)
        assert clipped == pytest.approx(expected)
    assert points(good)[1][1].max() == pytest.approx(1.3)
    assert points(bad)[1][1].max() == pytest.approx(-0.7)


def test_the_sweep_shows_every_seeds_kl_and_gain():
    rows = [run(s, b + 1 + s, beta=b) for b in (0.2, 0.0) for s in (0, 1)]
    left, right = drawn(figures.sweep(rows, START)).axes
    legend = [text.get_text() for text in left.get_legend().get_texts()]
    assert legend == ["β = 0", "β = 0.2"]
    means = [y for x, y in points(left) if len(x) == 3][2::3]
    assert [y.tolist() for y in means] == [
        [1.5, 3.0, 4.5],
        pytest.approx([1.7, 3.4, 5.1]),
    ]
    assert ticks(right.xaxis) == ["0", "0.2"]
    (_, gold), (_, proxy) = points(right, "o") + points(right, "s")
    assert gold == pytest.approx([1.5 - 0.5, 1.7 - 0.5])
    assert proxy == pytest.approx([0.75 - 0.1, 0.85 - 0.1])
    dots = [y for _, y in points(right, ".")]
    assert len(dots) == 4 and all(len(y) == 2 for y in dots)


def test_the_frontier_has_best_of_n_every_run_and_the_start():
    rows = [run(s, 1 + s, beta=b) for b in (0.0, 0.2) for s in (0, 1)]
    best = [dict(n=n, kl=n / 4, gold=n / 2, proxy=n / 8) for n in (1, 2, 4)]
    for axes, name, start in zip(
        drawn(figures.frontier(rows, best, START)).axes, ("gold", "proxy"), (0.5, 0.1)
    ):
        line, *runs, reference = points(axes)
        assert line[1].tolist() == [row[name] for row in best]
        assert [y.tolist() for _, y in runs] == [[r[name] for r in rows[:2]]] * 2
        assert [x.tolist() for x, _ in runs] == [[3, 6]] * 2
        assert reference[1] == pytest.approx([start, start])
        assert [text.get_text() for text in axes.texts] == ["2", "4"]


def test_pieces_show_seeds_mean_and_the_least_that_counts():
    lost = {"clipping": [0.1, 0.5], "gae": [-0.2, 0.0]}
    [axes] = drawn(figures.pieces(lost, 0.1)).axes
    assert ticks(axes.yaxis) == ["without clipping", "without gae"]
    assert [x.tolist() for x, _ in points(axes, "o")] == list(lost.values())
    marks = [x[0] for x, _ in points(axes, "None")]
    assert marks == pytest.approx([0.3, -0.1, 0.0, 0.1])


def test_diagnostics_draw_all_that_is_worth_watching():
    figure = drawn(figures.diagnostics({"healthy": [run(0)], "sick": [run(0, 9)]}))
    assert len(figure.axes) == len(figures.DIAGNOSTICS)
    assert set(figures.DIAGNOSTICS) <= set(LOGGED)
    for axes in figure.axes:
        assert [y.tolist() for _, y in points(axes)] == [[1, 2, 3], [9, 18, 27]]
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["healthy", "sick"]


def test_failures_are_crosses():
    groups = {"PPO": [(1.0, False), (-1.0, True)], "DPO": [(0.5, False)]}
    [axes] = drawn(figures.failures(groups, "gold gained")).axes
    assert [x.tolist() for x, _ in points(axes, "o")] == [[1.0], [0.5]]
    assert [x.tolist() for x, _ in points(axes, "X")] == [[-1.0], []]
    assert ticks(axes.yaxis) == ["PPO", "DPO"] and axes.get_xlabel() == "gold gained"


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
    assert len(figure.axes) == 5
    for axes, name in zip(figure.axes, ("log_ratio", "kl", "value", "advantage")):
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


def test_the_explorer_steps_through_every_token(explorer, capsys):
    figures.rollout_explorer(TABLE)
    slider = explorer.controls["at"]
    assert (slider.min, slider.max, slider.value) == (0, 3, 0)
    assert len(explorer.shown) == 2
    for at in range(4):
        explorer.function(at)
        assert capsys.readouterr().out == figures.describe_token(TABLE, at) + "\n"
    assert len(plt.get_fignums()) == 4
