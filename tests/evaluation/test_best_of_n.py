"""Best-of-n against enumeration of all subsets and against the exact laboratory."""

import itertools
import math

import numpy as np
import pytest
import torch

from alignlab.evaluation import exact
from alignlab.evaluation.best_of_n import (
    best_of_n_curve,
    best_of_n_probabilities,
    best_of_n_values,
)


def by_enumeration(proxies, values, n):
    """Mean over all subsets of n, in each over the samples that tie for best."""
    found = []
    for row, worth in zip(proxies, values):
        picked = []
        for subset in itertools.combinations(range(len(row)), n):
            best = max(row[i] for i in subset)
            picked.append(np.mean([worth[i] for i in subset if row[i] == best]))
        found.append(np.mean(picked))
    return np.array(found)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 2, 3, 6, 7])
def test_best_of_n_is_the_mean_over_all_subsets(n, ties):
    random = np.random.default_rng(n)
    proxies, values = random.normal(size=(2, 4, 7))
    if ties:
        proxies = random.integers(0, 3, size=(4, 7)).astype(float)
    found = best_of_n_values(proxies, values, n)
    np.testing.assert_allclose(found, by_enumeration(proxies, values, n), atol=1e-12)


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("n", [1, 2, 4, 6])
def test_probabilities_are_those_of_every_draw(n, ties):
    random = np.random.default_rng(n)
    proxies = random.normal(size=(3, 6)).round(0 if ties else 9)
    expected = np.zeros((3, 6))
    for row, chances in zip(proxies, expected):
        draws = list(itertools.combinations(range(6), n))
        for draw in draws:
            best = [i for i in draw if row[i] == max(row[j] for j in draw)]
            chances[best] += 1 / len(draws) / len(best)
    found = best_of_n_probabilities(proxies, n)
    assert found == pytest.approx(expected)
    assert found.sum(axis=1) == pytest.approx(1)


def test_without_ties_probabilities_are_nakanos_to_the_last_digit():
    for n in (1, 3, 17, 64):
        [found] = best_of_n_probabilities(np.arange(128.0)[None], n)
        ways = [math.comb(rank, n - 1) / math.comb(128, n) for rank in range(128)]
        assert found.tolist() == ways


def test_a_tie_is_worth_the_mean_of_what_ties():
    [value] = best_of_n_values([[0.0, 0.0]], [[1.0, 0.0]], 2)
    assert value == 0.5


def test_a_curve_has_a_row_for_each_n():
    random = np.random.default_rng(5)
    proxies, golds = random.normal(size=(2, 4, 7))
    rows = best_of_n_curve(proxies, golds, [1, 3])
    assert [row["n"] for row in rows] == [1, 3]
    assert [row["kl"] for row in rows] == [0, exact.best_of_n_kl(3)]
    for row in rows:
        for name, values in (("gold", golds), ("proxy", proxies)):
            expected = by_enumeration(proxies, values, row["n"]).mean()
            assert row[name] == pytest.approx(expected)


def test_a_proxy_that_is_gold_gains_most_and_a_blind_one_nothing():
    golds, blind = np.random.default_rng(1).normal(size=(2, 400, 8))
    gains = [
        np.subtract(*(row["gold"] for row in best_of_n_curve(proxies, golds, [8, 1])))
        for proxies in (golds, blind)
    ]
    assert gains[0] == pytest.approx(1.4236, abs=0.1)  # the largest of 8 normals
    assert abs(gains[1]) < 0.15


def test_equal_proxies_say_nothing():
    values = np.random.default_rng(0).normal(size=(3, 9))
    for n in (1, 4, 9):
        found = best_of_n_values(np.ones((3, 9)), values, n)
        np.testing.assert_allclose(found, values.mean(axis=1), atol=1e-12)


def test_best_of_n_of_samples_is_unbiased_for_the_exact_laboratory():
    """Samples of a policy that can be enumerated, against its exact best-of-n."""
    model, _ = exact.few_word_model(words=3, seed=1)
    completions = exact.every_completion(vocabulary=4, length=3)
    with torch.no_grad():
        reference = exact.log_probs_of_all(model, [1, 2], completions).exp().double()
    reference = (reference / reference.sum()).numpy()
    random = np.random.default_rng(0)
    proxy, gold = random.normal(size=(2, len(completions)))
    pools = random.choice(len(completions), size=(4000, 12), p=reference)
    for n in (1, 3, 8):
        estimates = best_of_n_values(proxy[pools], gold[pools], n)
        truth = float(exact.best_of_n(reference, proxy, n) @ torch.tensor(gold))
        error = estimates.std() / math.sqrt(len(estimates))
        assert abs(estimates.mean() - truth) < 4 * error
        assert error < 0.05


def test_the_analytic_kl_is_exact_where_nothing_ties_and_a_bound_elsewhere():
    """log n - (n-1)/n against the enumerated best-of-n policy."""
    for n in (2, 4, 16, 64):
        gaps = []
        for count in (10, 100, 1000, 10_000):
            reference = np.full(count, 1 / count)
            policy = exact.best_of_n(reference, np.arange(count), n)
            gaps.append(exact.best_of_n_kl(n) - float(exact.kl(policy, reference)))
        assert all(gap > 0 for gap in gaps), "a bound"
        assert sorted(gaps, reverse=True) == gaps, "closer with more completions"
        assert gaps[-1] < 0.01 * exact.best_of_n_kl(n)
    coarse = exact.best_of_n(np.full(100, 0.01), np.arange(100) // 50, 16)
    ties = float(exact.kl(coarse, np.full(100, 0.01)))
    assert ties == pytest.approx(math.log(2), abs=1e-3), "two levels: one bit"


@pytest.mark.parametrize("n", [0, 4])
def test_n_has_to_fit(n):
    with pytest.raises(ValueError, match=f"n is {n}; of 3 samples it can be 1 to 3"):
        best_of_n_values(np.zeros((2, 3)), np.zeros((2, 3)), n)


def test_shapes_have_to_agree():
    with pytest.raises(ValueError, match=r"\(prompts, samples\) twice"):
        best_of_n_values(np.zeros((2, 3)), np.zeros((3, 2)), 1)
    with pytest.raises(ValueError, match=r"shape \(3,\); expected"):
        best_of_n_probabilities(np.zeros(3), 1)
