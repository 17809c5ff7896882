"""Seeds and facts: the formula by brute force, and coverage where both are random."""

import numpy as np
import pytest
from scipy.stats import norm

from alignlab.calibration import (
    clustered_difference,
    clustered_squared_error,
    squared_error_interval,
)
from alignlab.calibration.clusters import _jackknife, _table
from alignlab.calibration.metrics import bin_edges, bin_index


def arms(rng, seeds, facts, each, gaps, spread=0.0, shared=0.3):
    """Arms of the same seeds on the same items. The luck of a fact is common to all,
    and that of an item to the arms of a seed; a seed adds its own gap to each arm."""
    fact = np.repeat(np.arange(facts), each)
    base = np.repeat(rng.uniform(0.4, 0.9, facts), each)
    common = np.repeat(rng.normal(size=facts), each)
    luck = rng.normal(size=(seeds, len(fact)))
    own_gap = spread * rng.normal(size=(seeds, 1))
    predictions = []
    for gap in gaps:
        confidence = np.clip(base + 0.03 * rng.normal(size=luck.shape), 0.35, 0.95)
        own = 0.8 * luck + 0.6 * rng.normal(size=luck.shape)
        z = np.sqrt(shared) * common + np.sqrt(1 - shared) * own
        right = norm.cdf(z) < confidence - gap - own_gap
        predictions.append((confidence, right.astype(int)))
    return predictions, fact


def brute_force(p, y, fact, edges, kept):
    """Pairs of different facts in the same bin, counted one by one."""
    where, d, total = bin_index(p, edges), y - p, 0.0
    for b in range(len(edges) - 1):
        items = [i for i in np.flatnonzero(where == b) if fact[i] in kept]
        pairs = [d[i] * d[j] for i in items for j in items if fact[i] != fact[j]]
        total += len(items) * np.mean(pairs) if pairs else 0.0
    return total / np.isin(fact, list(kept)).sum()


def test_leaving_out_each_fact_is_what_counting_pairs_gives():
    rng = np.random.default_rng(0)
    fact = rng.permutation(np.repeat(np.arange(12), rng.integers(1, 5, 12)))
    p = rng.uniform(0.1, 0.9, len(fact))
    y = (rng.random(len(fact)) < p).astype(int)
    value, without = _jackknife(p, y, fact, 4, "quantile")
    edges, every = bin_edges(p, 4, "quantile"), set(range(12))
    assert value == pytest.approx(brute_force(p, y, fact, edges, every), rel=1e-10)
    expected = [brute_force(p, y, fact, edges, every - {f}) for f in range(12)]
    assert without == pytest.approx(expected, rel=1e-10, abs=1e-14)


def test_with_one_item_for_each_fact_it_is_the_debiased_error():
    (group,), fact = arms(np.random.default_rng(0), 3, 200, 1, [0.1])
    alone = [squared_error_interval(p, y).value for p, y in zip(*group)]
    result = clustered_squared_error(*group, fact)
    assert result.value == pytest.approx(np.mean(alone), rel=1e-12)
    assert result.high - result.value == pytest.approx(result.value - result.low)


def test_copies_of_an_item_add_nothing_and_do_not_bias():
    """Items that are asked three times and answered alike."""
    rng = np.random.default_rng(1)
    values, widths = [], []
    for _ in range(40):
        ((p, y),), fact = arms(rng, 4, 150, 1, [0.0])
        once = clustered_squared_error(p, y, fact, 5)
        copies = (np.repeat(x, 3, axis=-1) for x in (p, y, fact))
        thrice = clustered_squared_error(*copies, 5)
        values.append([once.value, thrice.value])
        widths.append((thrice.high - thrice.low) / (once.high - once.low))
    assert np.mean(widths) == pytest.approx(1, abs=0.03)
    values = np.array(values)
    assert values[:, 0] == pytest.approx(values[:, 1], abs=4e-4)
    assert np.abs(values.mean(0)).max() < 4 * values.std() / np.sqrt(40)


@pytest.mark.parametrize("seeds", [4, 10])
@pytest.mark.parametrize("spread", [0.0, 0.04])
@pytest.mark.parametrize("each", [1, 3])
def test_it_covers_where_seeds_and_facts_are_random(seeds, spread, each):
    rng = np.random.default_rng(seeds)
    truth = np.array([0.1**2 + spread**2, 0.1**2 - 0.04**2])
    hits, off, runs = np.zeros(2), [], 120
    for _ in range(runs):
        (first, second), fact = arms(rng, seeds, 150, each, [0.1, 0.04], spread)
        error = clustered_squared_error(*first, fact, 8)
        gain = clustered_difference(first, second, fact, 8)
        hits += [x.low <= t <= x.high for x, t in zip((error, gain), truth)]
        off.append([error.value - truth[0], gain.value - truth[1]])
    assert (hits / runs >= 0.92).all()  # 0.94 less a standard error of 0.02
    off = np.array(off)
    assert (np.abs(off.mean(0)) < 4 * off.std(0) / np.sqrt(runs)).all()


def test_pairing_seeds_and_facts_narrows_a_difference():
    rng = np.random.default_rng(0)
    (first, second), fact = arms(rng, 6, 300, 2, [0.1, 0.08], 0.02)
    (_, other), _ = arms(rng, 6, 300, 2, [0.1, 0.08], 0.02)
    paired = clustered_difference(first, second, fact)
    apart = clustered_difference(first, other, fact)
    assert paired.high - paired.low < 0.8 * (apart.high - apart.low)
    backwards = clustered_difference(second, first, fact)
    assert backwards == pytest.approx((-paired.value, -paired.high, -paired.low))


def test_more_seeds_do_not_help_where_facts_decide():
    """Every seed gives the same answers: only more facts would narrow the interval."""
    ((p, y),), fact = arms(np.random.default_rng(0), 2, 300, 1, [0.1])
    twenty = [np.repeat(x[:1], 20, axis=0) for x in (p, y)]
    result = clustered_squared_error(*twenty, fact)
    one = squared_error_interval(p[0], y[0])
    assert result.high - result.low > 0.8 * (one.high - one.low)


def test_seeds_may_be_asked_other_items_of_the_same_facts():
    (group,), fact = arms(np.random.default_rng(0), 3, 80, 2, [0.1])
    orders = [np.random.default_rng(s).permutation(160) for s in range(3)]
    mixed = [np.stack([row[o] for row, o in zip(x, orders)]) for x in group]
    rows = np.stack([fact[o] for o in orders])
    names = np.array([f"fact {f}" for f in rows.ravel()]).reshape(rows.shape)
    expected = clustered_squared_error(*group, fact)
    assert clustered_squared_error(*mixed, names) == pytest.approx(expected, rel=1e-9)
    _, table = _table(*group, fact, 15, "quantile")
    assert table.shape == (3, 80)


def test_wrong_arguments_are_named():
    ((p, y),), fact = arms(np.random.default_rng(0), 2, 20, 1, [0.1])
    for message, call in {
        r"confidence has shape \(1, 20\)": lambda: clustered_squared_error(
            p[0], y[0], fact
        ),
        r"facts has 19 values": lambda: clustered_squared_error(p, y, fact[:19]),
        r"facts has shape \(3, 20\)": lambda: clustered_squared_error(
            p, y, np.stack([fact] * 3)
        ),
        "facts holds only 0": lambda: clustered_squared_error(p, y, 0 * fact),
        r"facts\[1\] has no item of 3": lambda: clustered_squared_error(
            p, y, [fact, np.where(fact == 3, 4, fact)]
        ),
        "no two facts in one of 2 bins": lambda: clustered_squared_error(
            np.array([[0.5, 0.6]] * 2), np.array([[0, 1]] * 2), [0, 1], 2
        ),
        r"first has shape \(2, 20\) and second \(1, 20\)": lambda: clustered_difference(
            (p, y), (p[:1], y[:1]), fact
        ),
        r"correct\[0\] is 2": lambda: clustered_squared_error(p, y + 2 - y, fact),
        "level must be": lambda: clustered_squared_error(p, y, fact, level=2),
    }.items():
        with pytest.raises(ValueError, match=message):
            call()
