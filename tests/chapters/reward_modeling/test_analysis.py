"""What rewards are worth, against closed forms, enumeration and another library."""

import numpy as np
import pytest
from scipy.special import expit

from alignlab.chapters.reward_modeling import analysis
from alignlab.study import artifacts
from alignlab.world.annotators import Reply
from alignlab.world.comparisons import Candidates
from alignlab.world.gold import Gold


def reply(text, form=0.0, completeness=0.0, truth=0.0):
    return Reply(text, Gold(form + completeness + truth, form, completeness, truth, {}))


def pair_of(chosen, rejected, prompt="p", subject="s"):
    row = {"prompt": prompt, "subject": subject}
    for side, one in (("chosen", chosen), ("rejected", rejected)):
        row[side] = one.text
        for part in ("form", "completeness", "truth"):
            row[f"{part}_{side}"] = getattr(one.gold, part)
        row[f"gold_{side}"] = one.gold.total
    return row


A, B, C = reply("a a a", form=1.0), reply("b", truth=0.5), reply("c c")
SOME = [Candidates("p", "s", (A, B, C)), Candidates("q", "t", (C, A, B))]


def test_differences_are_of_the_same_request():
    rewards = [[1.0, 2.0, 4.0], [10.0, 30.0, 70.0]]
    pairs = [pair_of(A, C), pair_of(C, A), pair_of(A, C, "q"), pair_of(B, A, "q")]
    found = analysis.differences(rewards, SOME, pairs)
    assert found.tolist() == [-3.0, 3.0, 20.0, 40.0]
    with pytest.raises(ValueError, match="rewards: expected one for each reply"):
        analysis.differences([[1.0, 2.0], [1.0, 2.0, 3.0]], SOME, pairs)


def test_a_constant_reward_measures_as_a_coin():
    pairs = [pair_of(A, B), pair_of(B, A)]
    found = analysis.measures(pairs, np.zeros(2))
    coin = {"label": 0.5, "gold": 0.5, "brier": 0.25, "nll": np.log(2)}
    assert found == pytest.approx(coin)


def test_measures_by_hand():
    pairs = [pair_of(A, B), pair_of(B, A), pair_of(A, A)]  # right, noisy, a tie
    d = np.array([2.0, 1.0, -3.0])
    p = 1 / (1 + np.exp(-d))
    found = analysis.measures(pairs, d)
    assert found["label"] == pytest.approx(2 / 3)
    assert found["gold"] == pytest.approx(1 / 2)
    assert found["brier"] == pytest.approx(np.mean((1 - p) ** 2))
    assert found["nll"] == pytest.approx(-np.log(p).mean())


def test_each_subject_has_its_own_share_and_ties_count_one_half():
    right, wrong = pair_of(A, B), pair_of(B, A)
    pairs = [right, right, wrong | {"subject": "t"}, pair_of(A, A) | {"subject": "t"}]
    some = [*SOME, Candidates("r", "u", (A, A))]
    found = analysis.order_by_subject(pairs, np.array([1.0, -2.0, 3.0, 9.0]), some)
    assert found.tolist() == [0.5, 0.0, 0.5], "of u there is no pair"
    with pytest.raises(KeyError):
        analysis.order_by_subject([right | {"subject": "other"}], np.ones(1), SOME)


def test_rows_are_scored_on_the_pairs_of_their_seed():
    tested = {1: SOME, 2: SOME[:1]}
    pairs = {1: [pair_of(A, B), pair_of(C, A, "q", "t")], 2: [pair_of(A, C)]}
    rows = [
        dict(seed=2, rewards=[[3.0, 0.0, 1.0]], name="x"),
        dict(seed=1, rewards=[[1.0, 2.0, 0.0], [5.0, 1.0, 0.0]]),
    ]
    second, first = analysis.score_rows(rows, tested, pairs)
    assert second["difference"].tolist() == [2.0] and second["name"] == "x"
    assert second["gold"] == 1.0 and second["subjects"].tolist() == [1.0]
    assert first["subjects"].tolist() == [0.0, 0.0] and first["label"] == 0.5
    table = analysis.subject_table([first, first | {"subjects": np.ones(2)}], [1])
    assert table.tolist() == [[0.5, 0.5]], "the mean over a seed's arms"
    with pytest.raises(ValueError, match=r"no rows of seeds \[2\] among 1"):
        analysis.subject_table([first], [1, 2])


# --- Parts --------------------------------------------------------------------------


def random_pairs(n, seed=0, words=True):
    """Pairs whose parts and lengths differ at random, of ten subjects."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(n):
        two = [
            reply("w " * rng.integers(1, 30 if words else 2), *rng.normal(size=3))
            for _ in range(2)
        ]
        rows.append(pair_of(*two, subject=f"s{number % 10}"))
    return rows


def test_weights_are_what_the_reward_pays_for_each_part():
    pairs = random_pairs(200)
    parts = analysis.part_differences(pairs)
    seen = analysis.seen_parts(pairs, parts @ [2.0, 0.5, -1.0])
    weights = {name: found["weight"] for name, found in seen.items()}
    assert weights == pytest.approx({"form": 2, "completeness": 0.5, "truth": -1})
    gold = analysis.seen_parts(pairs, 0.3 * parts.sum(axis=1))
    assert [found["weight"] for found in gold.values()] == pytest.approx([0.3] * 3)


def test_shares_of_the_variance_of_gold_add_up_to_one():
    rng = np.random.default_rng(0)
    golds = rng.normal(size=(3000, 2, 3)) * [1.0, 2.0, 3.0]
    pairs = [pair_of(*(reply("w", *parts) for parts in two)) for two in golds]
    seen = analysis.seen_parts(pairs, np.zeros(3000))
    shares = [found["share"] for found in seen.values()]
    assert sum(shares) == pytest.approx(1)
    assert shares == pytest.approx([1 / 14, 4 / 14, 9 / 14], abs=0.03)


def test_accuracy_within_a_part_counts_pairs_that_differ_in_it_alone():
    form, truth = reply("f", form=1.0), reply("t", truth=1.0)
    none, both = reply("n"), reply("b", form=1.0, truth=1.0)
    pairs = [
        pair_of(form, none),
        pair_of(none, form),
        pair_of(none, form),
        pair_of(truth, none),
        pair_of(form, both),  # in truth alone
        pair_of(both, none),  # in two parts
        pair_of(none, none),
    ]
    d = np.array([1.0, -1.0, 2.0, 0.0, 5.0, -9.0, 9.0])
    seen = analysis.seen_parts(pairs, d)
    assert seen["form"]["pairs"] == 3 and seen["truth"]["pairs"] == 2
    assert seen["form"]["accuracy"] == pytest.approx(2 / 3)
    assert seen["truth"]["accuracy"] == pytest.approx((0.5 + 0) / 2)
    assert np.isnan(seen["completeness"]["accuracy"])


# --- Length -------------------------------------------------------------------------


def labelled(rng, n, a=1.0, lam=0.1):
    """Pairs of golds and lengths as the series has them, chosen with the bias."""
    form = rng.normal(0, 1.6, size=(n, 2))
    words = np.round(12 + 3 * form + rng.normal(0, 5, size=(n, 2))).clip(1).astype(int)
    utility = a * (form[:, 0] - form[:, 1] + lam * (words[:, 0] - words[:, 1]))
    first = rng.random(n) < expit(utility)
    rows = []
    for gold, length, one in zip(form, words, first, strict=True):
        two = [reply("w " * n_words, g) for g, n_words in zip(gold, length)]
        rows.append(pair_of(*(two if one else two[::-1])))
    return rows


def test_the_length_coefficient_is_the_logistic_regressions():
    import statsmodels.api as sm

    pairs = labelled(np.random.default_rng(0), 600, a=0.7)
    gold = np.array([p["gold_chosen"] - p["gold_rejected"] for p in pairs])
    words = np.array([analysis.extra_words(p) for p in pairs])
    # Rows turned round at random, as any logistic regression wants two outcomes.
    turned = np.random.default_rng(1).integers(2, size=len(pairs))
    x = np.column_stack([gold, words]) * (2 * turned - 1)[:, None]
    fit = sm.Logit(turned, x).fit(disp=0)
    a, b = fit.params
    test = fit.t_test(np.array([[-b / a, 1.0]]) / a)
    found = analysis.length_coefficient(pairs)
    assert found.value == pytest.approx(b / a, rel=1e-6)
    half = 1.959964 * test.sd.item()
    assert found.high - found.value == pytest.approx(half, rel=1e-5)
    assert found.value - found.low == pytest.approx(half, rel=1e-5)


@pytest.mark.parametrize("lam", [0.0, 0.1, -0.2])
def test_the_interval_holds_the_injected_coefficient_as_often_as_it_says(lam):
    rng = np.random.default_rng(3)
    found = [
        analysis.length_coefficient(labelled(rng, 250, lam=lam)) for _ in range(100)
    ]
    covered = np.mean([one.low <= lam <= one.high for one in found])
    # Binomial: 0.95 ± 3 standard errors of 100 intervals.
    assert 0.88 < covered <= 1.0
    mean = np.mean([one.value for one in found])
    spread = np.std([one.value for one in found])
    assert abs(mean - lam) < 4 * spread / np.sqrt(100) + 0.05 * abs(lam)
    claimed = np.mean([one.high - one.value for one in found]) / 1.96
    assert claimed == pytest.approx(spread, rel=0.25)


def test_another_scale_of_annotators_leaves_the_coefficient():
    one = analysis.length_coefficient(labelled(np.random.default_rng(0), 3000, a=0.5))
    other = analysis.length_coefficient(labelled(np.random.default_rng(0), 3000, a=2))
    assert one.value == pytest.approx(0.1, abs=0.03)
    assert other.value == pytest.approx(0.1, abs=0.03)


def test_labels_without_exception_have_no_likeliest_coefficient():
    pairs = [pair_of(*sorted((A, C), key=lambda r: -r.gold.total)) for _ in range(50)]
    pairs += [pair_of(A, B) for _ in range(50)]
    with pytest.raises(ValueError, match="gold and words separate all 100 labels"):
        analysis.length_coefficient(pairs)


def test_the_length_weight_is_in_log_odds_per_word():
    pairs = random_pairs(300)
    words = np.array([analysis.extra_words(p) for p in pairs])
    d = analysis.part_differences(pairs) @ [2.0, 1.0, 0.0] + 0.3 * words
    assert analysis.length_weight(pairs, d) == pytest.approx(0.3)
    rng = np.random.default_rng(0)
    blind = analysis.part_differences(pairs) @ [1.0, 0.4, 0.0]
    blind = blind + 0.01 * rng.normal(size=300)
    assert analysis.length_weight(pairs, blind) == pytest.approx(0, abs=1e-3)


def test_what_length_explains_is_taken_away_within_each_request():
    words = np.array([[3, 1, 2], [2, 3, 1]])
    only = analysis.without_length(0.7 * words + [[5.0], [-2.0]], SOME)
    assert np.ptp(only, axis=1) == pytest.approx([0, 0], abs=1e-12)
    rewards = np.random.default_rng(0).normal(size=(2, 3))
    left = analysis.without_length(rewards, SOME)
    centred = words - words.mean(axis=1, keepdims=True)
    assert (left * centred).sum() == pytest.approx(0, abs=1e-12)
    # What is no matter of length stays: the part of the rewards at right angles to it.
    again = analysis.without_length(left, SOME)
    assert again == pytest.approx(left)


# --- Calibration --------------------------------------------------------------------


def test_the_temperature_undoes_a_known_one():
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, 1.5, size=8000)
    pairs = random_pairs(8000, words=False)
    right = rng.random(8000) < expit(np.abs(log_odds))
    # The pair lists the chosen reply first: positive where the model agrees.
    d = np.where(right, 1, -1) * 3 * np.abs(log_odds)
    found = analysis.calibrate(pairs, d)
    assert found["temperature"] == pytest.approx(3, rel=0.1)
    assert found["before"] > 0.01 > 0.002 > found["after"]
    other = [p["subject"] in {"s1", "s3", "s5", "s7", "s9"} for p in pairs]
    assert found["sure"] == pytest.approx(expit(np.abs(d))[other])
    assert found["right"].tolist() == (d > 0)[other].tolist()
    assert found["repaired"] == pytest.approx(
        expit(np.abs(d[other]) / found["temperature"])
    )


# --- Picking ------------------------------------------------------------------------


def test_guessing_is_corrected_for():
    assert analysis.corrected(0.5, 0.5) == 0
    assert analysis.corrected(1.0, 0.3) == 1
    assert analysis.corrected(0.65, 0.3) == pytest.approx(0.5)


def test_replies_are_held_against_every_other():
    golds = np.array([[1.0, 2.0], [0.0, 0.5]])
    others = np.array([[1.5, 1.0, 0.0], [0.5, 9.0, 0.1]])
    chosen = np.array([[0.25, 0.75], [1.0, 0.0]])
    wins, preferred = np.zeros(2), np.zeros(2)
    for i in range(2):
        for j in range(2):
            for other in others[i]:
                gap = golds[i, j] - other
                share = chosen[i, j] / 3
                wins[i] += share * (0.5 if gap == 0 else gap > 0)
                preferred[i] += share / (1 + np.exp(-gap / 2))
    found = analysis.against(golds, others, chosen, temperature=2.0)
    assert found["wins"] == pytest.approx(wins)
    assert found["preferred"] == pytest.approx(preferred)


def test_better_writers_have_more_gold_and_are_the_same_each_time():
    names = artifacts.subjects("test")[:6]
    some = [Candidates(artifacts.gold.request(n), n, ()) for n in names]
    golds = [analysis.demonstration_golds(some, q, per_subject=8) for q in (0, 1)]
    assert golds[0].shape == (6, 8)
    assert golds[1].mean() > golds[0].mean() + 0.5
    assert np.ptp(golds[1], axis=1) == pytest.approx(np.zeros(6)), "the best there is"
    assert golds[1].tolist() == analysis.demonstration_golds(some, 1, 8).tolist()


# --- Saying what came out -----------------------------------------------------------
