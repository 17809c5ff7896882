"""Notebook 01's numbers are the closed forms of made-up arms."""

import numpy as np
import pytest

from alignlab.chapters.instruction_tuning import analysis
from alignlab.evaluation.intervals import Interval
from alignlab.world import tasks


def test_differences_are_taken_within_a_seed():
    rows = [
        {"arm": arm, "seed": seed, "accuracy": value}
        for arm, seed, value in [
            ("after", 3, 0.25),
            ("mid", 3, 0.75),
            ("mid", 1, 0.5),
            ("after", 1, 1.0),
        ]
    ]
    found = analysis.paired_differences(rows, "accuracy", "arm", "mid", "after")
    assert found == [-0.5, 0.5], "seed 1, then seed 3"
    back = analysis.paired_differences(rows, "accuracy", "arm", "after", "mid")
    assert back == [0.5, -0.5]


# --- Reading numbers off curves -----------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 0.3])
def test_n_is_read_off_between_the_points_in_doublings(scale):
    # Straight in log2(1 + n): 0, 1, 2, 3, 4 doublings.
    ns, values = [0, 1, 3, 7, 15], scale * np.array([0, 0.25, 0.5, 0.75, 1])
    assert analysis.n_at_share(ns, values) == pytest.approx(2**3.6 - 1)
    assert analysis.n_at_share(ns, values, 0.75) == pytest.approx(7)
    assert analysis.n_at_share(ns, values, 0.5) == pytest.approx(3)
    assert analysis.n_at_share(ns, values, 1.0) == pytest.approx(15)


def test_the_first_crossing_counts_and_the_ceiling_is_the_highest_point():
    values = [0, 0.95, 0.5, 1.0]
    assert analysis.n_at_share([0, 1, 3, 7], values, 0.95) == pytest.approx(1)
    falling = [0.0, 0.5, 1.0, 0.2]
    assert analysis.n_at_share([0, 1, 3, 7], falling, 1.0) == pytest.approx(3)


def test_n_is_at_least_one():
    assert analysis.n_at_share([0, 4], [0.95, 1.0]) == 1
    assert analysis.n_at_share([8, 64], [0.95, 1.0]) == 8
    assert analysis.n_at_share([0, 1], [0.0, 1.0], 0.1) == 1, (
        "not a tenth of an example"
    )


def test_more_than_the_ceiling_is_never_reached():
    with pytest.raises(ValueError, match="never reach 1.5"):
        analysis.n_at_share([1, 2], [0.5, 1.0], 1.5)


def test_the_mean_of_doublings_is_the_geometric_mean_of_the_ratios():
    few, many = [2.0, 8.0, 1.0], [8.0, 8.0, 64.0]
    doublings = analysis.doublings(few, many)
    assert doublings == pytest.approx([-2, 0, -6])
    geometric = np.prod(np.divide(few, many)) ** (1 / 3)
    assert 2 ** doublings.mean() == pytest.approx(geometric)
    assert np.mean(np.divide(few, many)) > 0.42 > geometric, "not the arithmetic mean"


def test_the_spread_over_wordings_is_of_each_family_and_seed():
    rows = [
        {"seed": 1, "wordings": {"a": [0.3, 0.3, 0.3], "b": [0.2, 0.8]}},
        {"seed": 0, "wordings": {"a": [0.0, 1.0], "b": [0.5, 0.5]}},
    ]
    # The standard deviation of two values is half their distance.
    assert analysis.spread_over_wordings(rows) == pytest.approx([0.25, 0.15])


# --- Questions that are the same for every seed -------------------------------------


def choosing(seed, k, items, by_family=None):
    return {"seed": seed, "k": k, "items": items, "by_family": by_family or {}}


def test_the_slope_by_item_has_the_slope_of_the_means():
    ks, slopes = (1, 2, 8), np.array([[0.1, -0.2, 0.0], [0.3, 0.0, 0.05]])
    rows = [
        choosing(s, k, (0.4 + slopes[s] * np.log2(k)).tolist())
        for s in (1, 0)
        for k in ks
    ]
    assert analysis.slopes_by_item(rows) == pytest.approx(slopes)
    rng = np.random.default_rng(0)
    for row in rows:
        row["items"] = (rng.random(3) > 0.5).astype(float).tolist()
    found = analysis.slopes_by_item(rows)
    for seed in (0, 1):
        means = [np.mean(r["items"]) for r in rows if r["seed"] == seed]
        expected = np.polyfit(np.log2(ks), means, 1)[0]
        assert found[seed].mean() == pytest.approx(expected)


def test_items_are_by_seed():
    rows = [choosing(1, 2, [1.0, 0.0]), choosing(0, 2, [0.0, 0.0])]
    assert analysis.items(rows, k=2).tolist() == [[0, 0], [1, 0]]


def test_families_at_chance_are_those_that_no_group_of_arms_lifts():
    def rows(**accuracies):
        by_family = {name: {"accuracy": a} for name, a in accuracies.items()}
        return [choosing(0, 1, [], by_family)]

    groups = [rows(a=0.25, b=0.4, c=0.3), rows(a=0.34, b=0.2, c=0.5)]
    chance = {"a": 0.25, "b": 0.25, "c": 0.5}
    assert analysis.at_chance(groups, chance) == ["a", "c"]
    assert analysis.at_chance(groups, chance, margin=0.05) == ["c"]


@pytest.mark.parametrize(
    "low, high, expected",
    [
        (0.03, 0.4, "more"),
        (-0.4, -0.03, "less"),
        (-0.01, 0.015, "same"),
        (0.01, 0.4, "open"),
        (-0.4, 0.4, "open"),
        (-np.inf, np.inf, "open"),
    ],
)
def test_the_reading_of_an_interval_depends_on_where_it_lies(low, high, expected):
    words = {word: word for word in ("more", "less", "same", "open")}
    assert analysis.reading(Interval(0.0, low, high), 0.02, words) == expected


@pytest.fixture
def three_families(monkeypatch):
    monkeypatch.setattr(tasks, "trained_families", lambda: ("a", "b", "c"))


def scored(seed, weights, a, b, c):
    by_family = {"a": a, "b": b, "c": c, "held out": 0.5}
    return {"seed": seed, "weights": weights, "by_family": by_family}


def test_the_worst_family_that_can_be_solved_is_compared_within_a_seed(three_families):
    rows = [
        scored(0, "equal", 0.9, 0.6, 0.0),
        scored(1, "equal", 0.4, 0.8, 0.1),
        scored(1, "proportional", 0.3, 0.7, 0.9),
        scored(0, "proportional", 0.2, 1.0, 0.0),
        scored(0, "third", 0.0, 0.0, 0.3),
        scored(1, "third", 0.0, 0.0, 0.3),
    ]
    # No scheme solves c: the best reaches 0.45 over both seeds. So it does not count.
    gain = analysis.worst_family_gain(rows, "equal", "proportional")
    assert gain == pytest.approx([0.6 - 0.2, 0.4 - 0.3])
    back = analysis.worst_family_gain(rows, "proportional", "equal")
    assert sorted(back) == pytest.approx(sorted(-g for g in gain))


def test_a_family_that_any_scheme_solves_counts(three_families):
    rows = [
        scored(0, "equal", 0.9, 0.9, 0.1),
        scored(0, "proportional", 0.9, 0.9, 0.2),
        scored(0, "third", 0.0, 0.0, 0.5),
    ]
    gain = analysis.worst_family_gain(rows, "equal", "proportional")
    assert gain == pytest.approx([-0.1])


def test_where_nothing_is_solved_no_scheme_gains(three_families):
    rows = [scored(0, w, 0.1, 0.1, 0.1) for w in ("equal", "proportional")]
    assert analysis.worst_family_gain(rows, "equal", "proportional") == [0.0]


def test_small_families_have_the_fewest_examples(monkeypatch):
    sizes = {"a": 5, "b": 900, "c": 30, "d": 10, "held out": 1}
    monkeypatch.setattr(tasks, "sizes", lambda: sizes)
    monkeypatch.setattr(tasks, "trained_families", lambda: ("a", "b", "c", "d"))
    assert analysis.small_families() == ("a", "d")


def test_examples_needed_and_the_gap_to_the_control_are_by_seed():
    rows = [
        {"seed": s, "n": n, "shuffled": False, "accuracy": n / 7 * (1 - s / 10)}
        for s in (1, 0)
        for n in (0, 1, 3, 7)
    ]
    rows += [
        {"seed": s, "n": 7, "shuffled": True, "accuracy": 0.25 - s / 10} for s in (0, 1)
    ]
    gap = analysis.gap_to_shuffled(rows, "accuracy")
    assert gap == pytest.approx([0.75, 0.9 - 0.15])
    needed = analysis.examples_needed(rows, "accuracy")
    assert needed[0] == needed[1] == analysis.n_at_share([0, 1, 3, 7], [0, 1, 3, 7])


def test_accuracy_on_some_families_is_by_scheme_and_seed():
    rows = [
        scored(1, "equal", 0.2, 0.4, 1.0),
        scored(0, "equal", 0.6, 0.8, 1.0),
        scored(0, "third", 0.0, 0.0, 0.0),
    ]
    assert analysis.accuracy_on(rows, ["a", "b"], "equal") == pytest.approx([0.7, 0.3])
