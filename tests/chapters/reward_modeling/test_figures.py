"""Figures of notebook 03 show what they are given: seeds, means, and exact truths."""

import numpy as np
import pytest
from scipy.special import expit

from alignlab.chapters.reward_modeling import figures
from alignlab.evaluation.intervals import Interval
from tests.drawing import ticks

pytestmark = pytest.mark.usefixtures("style")
SEEDS = [[4], [4, 0, 7]]


def complete(figure):
    """Draw it; every panel has a title, and its axes have labels or names."""
    figure.canvas.draw()
    for axes in figure.axes:
        assert axes.get_title(loc="left")
        assert axes.get_xlabel() or axes.get_ylabel()
    return figure


def lines(axes, linestyle=None):
    """y values of the axes' lines, of one style or of all."""
    chosen = [x for x in axes.lines if linestyle in (None, x.get_linestyle())]
    return [np.asarray(x.get_ydata(), float) for x in chosen]


def test_votes_lie_about_the_curve_they_are_drawn_from():
    gaps, shares = [-2.0, 0.5, 3.0], [0.2, 0.55, 0.9]
    [axes] = complete(figures.votes(gaps, shares, 2.0, 300)).axes
    dots, curve = axes.lines
    assert dots.get_xdata().tolist() == gaps and dots.get_ydata().tolist() == shares
    assert curve.get_ydata() == pytest.approx(expit(curve.get_xdata() / 2.0))
    assert "300 annotators" in axes.get_title(loc="left")


def sweep_rows(seeds):
    """Rows whose accuracies name their cell: of the curve, of the noise, of twins."""
    curve, noise, twins = [], [], []
    for seed in seeds:
        for n in (100, 400):
            gold = 0.6 + n / 2000 + seed / 100
            row = dict(n=n, flips=0.25, seed=seed, gold=gold, label=gold - 0.1)
            curve.append(row)
        noise.append({**curve[-2], "gold": 0.61, "label": 0.6})
        noise.append(dict(n=100, flips=0.0, seed=seed, gold=0.9, label=0.8))
        twins.append(dict(n=400, flips=0.25, seed=seed, gold=0.3, label=0.4))
    return curve, noise, twins


@pytest.mark.parametrize("seeds", SEEDS)
def test_accuracy_has_both_lines_the_ceiling_chance_and_the_twins(seeds):
    ceiling = {0.0: 1.0, 0.25: 0.75}
    figure = complete(figures.accuracy(*sweep_rows(seeds), ceiling, "What there is"))
    left, right = figure.axes
    mean = np.mean([0.65 + s / 100 for s in seeds])
    drawn = [y for y in lines(left) if len(y) == 2]
    assert any(y == pytest.approx([mean, mean + 0.15]) for y in drawn)
    assert any(y == pytest.approx([mean - 0.1, mean + 0.05]) for y in drawn)
    assert any(set(y) == {0.75} for y in lines(left, "--"))
    assert any(y.tolist() == [0.3] * len(seeds) for y in lines(left))
    for axes in (left, right):
        assert any(set(y) == {0.5} for y in lines(axes, ":"))
    names = {text.get_text() for text in left.get_legend().texts}
    assert {*figures.ORDERS.values(), "best possible on labels", "chance"} < names
    assert ticks(left.xaxis) == ["100", "400"]
    assert ticks(right.xaxis) == ["0%", "25%"]
    steps = [y for y in lines(right, "--") if len(y) == 2]
    assert [y[0] for y in steps] == [1.0, 0.75]
    means = [y[0] for y in lines(right, "-") if len(y) == 2 and y[0] == y[1]]
    assert means == pytest.approx([0.9, 0.61, 0.8, 0.6])
    assert figure.get_suptitle() == "What there is"


def test_columns_have_every_seed_their_mean_and_its_interval():
    import matplotlib.pyplot as plt

    from alignlab.evaluation.intervals import t_interval

    figure, axes = plt.subplots()
    figures.spread(axes, {"one": [0.4], "three": [0.1, 0.2, 0.6]})
    [bars] = axes.containers
    [stroke] = bars.lines[2][0].get_segments()
    _, low, high = t_interval([0.1, 0.2, 0.6])
    assert stroke[:, 1].tolist() == pytest.approx([low, high])
    assert ticks(axes.xaxis) == ["one", "three"]


@pytest.mark.parametrize("seeds", SEEDS)
def test_scores_stand_over_their_floors(seeds):
    rows = [
        dict(n=n, seed=s, brier=0.2 - n / 1e4, nll=0.6 - n / 1e4)
        for n in (100, 400)
        for s in seeds
    ]
    figure = complete(figures.floors(rows, {"brier": 0.15, "nll": 0.5}))
    starts, floors, coins = (0.2, 0.6), (0.15, 0.5), (0.25, np.log(2))
    for axes, start, floor, coin in zip(figure.axes, starts, floors, coins):
        assert any(set(y) == {floor} for y in lines(axes, "--"))
        assert any(set(y) == {coin} for y in lines(axes, ":"))
        curve = pytest.approx([start - 0.01, start - 0.04])
        assert any(y == curve for y in lines(axes, "-") if len(y) == 2)


@pytest.mark.parametrize("count", [1, 3])
def test_parts_have_three_panels_with_every_seed(count):
    found = [
        {
            name: {"weight": 1 - 0.4 * i + 0.1 * s, "accuracy": 0.9 - 0.2 * i,
                   "share": 0.2 + 0.1 * i, "pairs": 1000 + i}
            for i, name in enumerate(("form", "completeness", "truth"))
        }
        for s in range(count)
    ]  # fmt: skip
    figure = complete(figures.parts(found, "Truth"))
    share, weight, accuracy = figure.axes
    shift = 0.1 * np.mean(range(count))
    for axes, expected in (
        (share, [0.2, 0.3, 0.4]),
        (weight, [1 + shift, 0.6 + shift, 0.2 + shift]),
        (accuracy, [0.9, 0.7, 0.5]),
    ):
        means = [y[0] for y in lines(axes, "-") if len(y) == 2 and y[0] == y[1]]
        assert means == pytest.approx(expected)
    assert ticks(accuracy.xaxis) == [
        "form\n1,000 pairs",
        "completeness\n1,001 pairs",
        "truth\n1,002 pairs",
    ]
    assert any(set(y) == {0.5} for y in lines(accuracy, ":"))


def test_a_part_without_pairs_leaves_a_gap():
    found = [
        {
            name: {"weight": 1.0, "accuracy": np.nan, "share": 0.3, "pairs": 0}
            for name in ("form", "completeness", "truth")
        }
        for _ in range(2)
    ]
    complete(figures.parts(found, "Nothing"))


def test_kinds_of_reward_stand_above_chance():
    given = {"pairs": [0.7, 0.8], "rankings\n800 read": [0.82]}
    [axes] = complete(figures.kinds(given, "Kinds")).axes
    assert any(set(y) == {0.5} for y in lines(axes, ":"))
    means = [y[0] for y in lines(axes, "-") if len(y) == 2 and y[0] == y[1]]
    assert means == pytest.approx([0.75, 0.82])
    assert ticks(axes.xaxis) == list(given)


def test_lengths_are_held_against_the_injected_one():
    arms = {"unbiased": [0.01, 0.03], "biased": [0.08]}
    recovered = Interval(0.11, 0.09, 0.13)
    [axes] = complete(figures.length(arms, 0.1, recovered)).axes
    assert any(set(y) == {0.1} for y in lines(axes, "--"))
    assert ticks(axes.xaxis) == ["labels", "unbiased", "biased"]
    means = [y for y in lines(axes, "-") if len(y) == 2 and y[0] == y[1] != 0]
    assert [y[0] for y in means] == pytest.approx([0.02, 0.08])
    [stroke] = axes.containers[0].lines[2][0].get_segments()
    assert stroke[:, 1].tolist() == pytest.approx([0.09, 0.13])


def test_raters_have_their_marks_in_every_domain():
    def scores(x):
        return {
            "reward_model": x,
            "bag_of_words": x - 0.1,
            "one_rater": 0.8,
            "panel": 0.95,
        }

    rows = [
        {"accuracy": {"movies": scores(a), "tweets": scores(a - 0.2)}}
        for a in (0.7, 0.74)
    ]
    [axes] = complete(figures.raters(rows, "Movies")).axes
    assert ticks(axes.xaxis) == ["movies", "tweets"]
    means = [y[0] for y in lines(axes, "-") if len(y) == 2 and y[0] == y[1]]
    assert means == pytest.approx([0.72, 0.52, 0.62, 0.42])
    assert [y[0] for y in lines(axes, "-.")] == [0.8, 0.8]
    assert [y[0] for y in lines(axes, "--")] == [0.95, 0.95]
    assert any(set(y) == {0.5} for y in lines(axes, ":"))


def test_author_and_judge_are_dots_and_picks_are_lines():
    author = {"author": [0.4, 0.5], "judge": [0.8, 0.9]}
    wins = {"own": [[0.9, 0.1], [0.7, 0.1]], "picked": [[1.0, 0.3], [1.0, 0.3]]}
    figure = complete(figures.judging(author, (0.0, 1.0), wins, "Judges"))
    left, right = figure.axes
    means = [y[0] for y in lines(left, "-") if len(y) == 2 and y[0] == y[1]]
    assert means == pytest.approx([0.45, 0.85])
    assert any(set(y) == {0} for y in lines(left, ":"))
    assert any(y == pytest.approx([0.8, 0.1]) for y in lines(right))
    assert any(set(y) == {0.5} for y in lines(right, ":"))
    assert [t.get_text() for t in right.get_legend().texts] == ["own", "picked"]


def test_reward_models_stand_over_their_reference():
    [axes] = complete(figures.chains({100: [0.6, 0.7], 101: [0.5]}, "Chains")).axes
    assert ticks(axes.xaxis) == ["100", "101"]
    assert any(y.tolist() == [0.6, 0.7] for y in lines(axes, "None"))
    means = [y[0] for y in lines(axes, "-") if len(y) == 2]
    assert means == pytest.approx([0.65, 0.5])


def test_hours_buy_gold():
    golds = {"reference": [0.1, 0.2], "rated": [0.5, 0.6]}
    [axes] = complete(figures.hours(golds, "Hours")).axes
    assert ticks(axes.xaxis) == ["reference", "rated"]
    means = [y[0] for y in lines(axes, "-") if len(y) == 2 and y[0] == y[1]]
    assert means == pytest.approx([0.15, 0.55])


def test_reliability_is_drawn_before_and_after():
    rng = np.random.default_rng(0)
    sure = rng.uniform(0.5, 1, size=400)
    right = (rng.random(400) < sure).astype(int)
    found = dict(
        temperature=1.5, sure=sure, repaired=0.5 + (sure - 0.5) / 2, right=right
    )
    before, after = figures.calibration(found).axes[:2]
    assert before.get_title(loc="left") == "As it is"
    assert after.get_title(loc="left") == "Rewards divided by 1.50"
