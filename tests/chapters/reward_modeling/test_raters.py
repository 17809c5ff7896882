"""Pairs made of people's ratings, against crowds whose opinion is known exactly."""

import math
import re
from collections import Counter

import numpy as np
import pytest

from alignlab.chapters.reward_modeling import raters
from alignlab.chapters.reward_modeling.raters import (
    DOMAINS,
    PROMPT,
    RatedText,
    divide_raters,
    load_rated,
    panel_agreement,
    preferred_by,
    rated_pairs,
    rater_agreement,
)
from alignlab.data import sources
from alignlab.world.ceilings import gold_order_accuracy
from alignlab.world.comparisons import Summary


def crowd(n_texts, n_raters, seed=0, spread=1.0):
    """Texts whose raters score around an opinion of their own, which is normal."""
    rng = np.random.default_rng(seed)
    opinions = rng.normal(size=n_texts)
    scores = opinions[:, None] + spread * rng.normal(size=(n_texts, n_raters))
    texts = [
        divide_raters(f"text {i}", np.round(row).tolist(), rng)
        for i, row in enumerate(scores)
    ]
    return texts, opinions


# --- Raters --------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 15, 20])
def test_every_rater_is_on_one_side(n):
    ratings = list(range(n))
    for seed in range(5):
        got = divide_raters("a text", ratings, np.random.default_rng(seed))
        assert sorted(got.ratings + got.held_out) == ratings
        assert len(got.held_out) == n // 2
    sides = {
        divide_raters("a", ratings, np.random.default_rng(seed)).held_out
        for seed in range(20)
    }
    assert len(sides) > 1  # drawn, not the first half
    assert (
        divide_raters(" a \n text ", [1, 2], np.random.default_rng(0)).text == "a text"
    )


def test_wrong_ratings_are_named():
    rng = np.random.default_rng(0)
    for bad in ([1], [], [1, math.nan, 2]):
        with pytest.raises(ValueError, match="ratings of 'a' are .*two finite ones"):
            divide_raters("a", bad, rng)
    with pytest.raises(ValueError, match="domain is 'films'.*movies, tweets"):
        load_rated("films")
    with pytest.raises(ValueError, match="split 'dev'; expected .*'train', 'test'"):
        load_rated("movies", "dev")


def test_preferred_by_counts_every_two_raters():
    # Of the six twos: 3>1, 3=3, 3>0, 2>1, 2<3, 2>0.
    assert preferred_by([3, 2], [1, 3, 0]) == pytest.approx(4 / 5)
    assert preferred_by([1, 3, 0], [3, 2]) == pytest.approx(1 / 5)
    assert preferred_by([2, 2], [2]) == 0.5
    assert preferred_by([4], [-4]) == 1.0


# --- Pairs ---------------------------------------------------------------------------


def test_a_row_of_two_texts():
    good = RatedText("good", (2, 2, 3), (3, 1))
    bad = RatedText("bad", (-1, -1), (-2, 1))
    pairs, summary = rated_pairs([good, bad], 5, np.random.default_rng(0))
    assert (
        pairs
        == [
            {
                "prompt": PROMPT,
                "chosen": "good",
                "rejected": "bad",
                "probability": 1.0,  # 3>-2, 3>1, 1>-2, and 1=1 does not count
                "gold_chosen": 2.0,
                "gold_rejected": -0.5,
                "panel_chosen": pytest.approx(7 / 3),
                "panel_rejected": -1.0,
                "tie": False,
                "noisy": False,
            }
        ]
        * 5
    )
    assert summary == Summary(
        5, {"identical": 0, "rated alike": 0}, {"ties": 0, "noisy": 0}
    )


def test_labels_are_of_the_raters_kept_and_truth_of_those_held_out():
    """The two groups disagree outright, so each is seen by what it decides."""
    first, second = RatedText("x", (4, 3), (-4, -3)), RatedText("y", (0, 1), (0, -1))
    pairs, summary = rated_pairs([first, second], 20, np.random.default_rng(0))
    for pair in pairs:
        assert (pair["chosen"], pair["rejected"]) == ("x", "y")
        assert (pair["probability"], pair["noisy"]) == (0.0, True)
        assert pair["panel_chosen"] > pair["panel_rejected"]
        assert pair["gold_chosen"] < pair["gold_rejected"]
    assert summary.noted == {"ties": 0, "noisy": 20}


def test_labels_follow_one_rater_a_side():
    """Chosen as often as one rater scores higher than another, ties left out."""
    n = 6000
    first, second = RatedText("x", (1, 2, 3), (0,)), RatedText("y", (2, 3, 0, 0), (0,))
    pairs, summary = rated_pairs([first, second], n, np.random.default_rng(0))
    # Of twelve twos x is ahead in 7 (1>0 1>0 2>0 2>0 3>2 3>0 3>0), alike in 2.
    wins, alike = sum(pair["chosen"] == "x" for pair in pairs), 2 / 12
    p = preferred_by(first.ratings, second.ratings)
    assert p == pytest.approx(7 / 10)
    assert abs(wins / len(pairs) - p) < 4 * math.sqrt(p * (1 - p) / len(pairs))
    dropped = summary.dropped["rated alike"]
    assert abs(dropped - n * alike) < 4 * math.sqrt(n * alike * (1 - alike))
    assert summary.kept + dropped == n
    assert summary.noted["ties"] == len(pairs)  # both held-out means are 0


def test_every_two_texts_are_compared_alike_and_none_with_itself():
    texts = [RatedText(str(i), (i,), (i,)) for i in range(4)]
    pairs, _ = rated_pairs(texts, 6000, np.random.default_rng(0))
    counts = Counter((pair["chosen"], pair["rejected"]) for pair in pairs)
    assert len(counts) == 6 and len(pairs) == 6000
    assert all(abs(n - 1000) < 4 * math.sqrt(6000 * 5 / 36) for n in counts.values())


def test_copies_of_a_text_are_not_compared():
    texts = [RatedText("a", (1,), (1,)), RatedText("a", (2,), (2,))]
    more = [*texts, RatedText("b", (3,), (3,))]
    pairs, summary = rated_pairs(more, 300, np.random.default_rng(0))
    assert all(pair["chosen"] == "b" for pair in pairs)
    assert summary.dropped["identical"] + len(pairs) == 300
    assert re.fullmatch(
        r"\d+ of 300 kept; dropped: \d+ identical; of those kept: 0 ties, 0 noisy",
        str(summary),
    )
    with pytest.raises(ValueError, match="all 9 pairs were dropped: {'identical': 9,"):
        rated_pairs(texts, 9, np.random.default_rng(0))


def test_the_same_generator_gives_the_same_pairs():
    texts, _ = crowd(50, 20)
    first, again, other = (
        rated_pairs(texts, 100, np.random.default_rng(seed))[0] for seed in (0, 0, 1)
    )
    assert first == again and first != other


def test_wrong_arguments_of_pairs():
    texts, _ = crowd(3, 4)
    for some, n in ((texts[:1], 5), ([], 5), (texts, 0)):
        with pytest.raises(ValueError, match=f"texts are {len(some)} and n is {n}"):
            rated_pairs(some, n, np.random.default_rng(0))


# --- Agreement -----------------------------------------------------------------------


def pair(gold, probability=0.5, panel=(0.0, 0.0)):
    return {
        "gold_chosen": gold[0],
        "gold_rejected": gold[1],
        "probability": probability,
        "panel_chosen": panel[0],
        "panel_rejected": panel[1],
    }


HAND_MADE = [
    pair((1, 0), 0.9, panel=(2, 1)),  # label and panel right
    pair((1, 0), 0.6, panel=(1, 2)),  # label right, panel wrong
    pair((0, 1), 0.2, panel=(1, 1)),  # label wrong, panel undecided
    pair((1, 1), 0.5, panel=(3, 0)),  # a tie: left out of both
]


def test_agreement_by_hand():
    assert rater_agreement(HAND_MADE) == pytest.approx(2 / 3)
    assert panel_agreement(HAND_MADE) == pytest.approx(1.5 / 3)


def test_ties_alone_have_no_agreement():
    with pytest.raises(ValueError, match="all 1 are of equal gold"):
        rater_agreement(HAND_MADE[3:])


def test_agreement_checks_columns():
    for measure, lacking in (
        (rater_agreement, "gold_chosen"),
        (panel_agreement, "panel_rejected"),
    ):
        bad = [dict(HAND_MADE[0])]
        del bad[0][lacking]
        with pytest.raises(ValueError, match=rf"pairs\[0\] has no {lacking}"):
            measure(bad)
    with pytest.raises(ValueError, match="pairs is empty"):
        rater_agreement([])


def test_agreement_of_a_crowd_whose_opinions_are_known():
    """With n raters kept and held out of normal opinions and scores, two means agree in
    order with probability 1/2 + arcsin(r)/π, r being their correlation."""
    spread, half = 1.0, 10
    texts, opinions = crowd(3000, 2 * half, spread=spread)
    pairs, _ = rated_pairs(texts, 10_000, np.random.default_rng(1))
    opinion = {text.text: o for text, o in zip(texts, opinions)}

    noise = spread**2 + 1 / 12  # rounding to whole scores adds a uniform's variance
    mean = 1 + noise / half
    panel = 0.5 + math.asin(1 / mean) / math.pi
    known = 0.5 + math.asin(1 / math.sqrt(mean)) / math.pi

    # All twos of texts, as ties of the label would select the clearer ones.
    rng = np.random.default_rng(2)
    some, other = rng.integers(3000, size=(2, 10_000))
    every = [raters._pair(texts[i], texts[j]) for i, j in zip(some, other) if i != j]
    assert panel_agreement(every) == pytest.approx(panel, abs=0.015)
    truth = [opinion[p["chosen"]] - opinion[p["rejected"]] for p in every]
    assert gold_order_accuracy(every, truth) == pytest.approx(known, abs=0.015)

    # A single rater is right less often than the panel, the panel less than one who
    # knows all opinions.
    truth = np.array([opinion[p["chosen"]] - opinion[p["rejected"]] for p in pairs])
    steps = rater_agreement(pairs), panel_agreement(pairs)
    assert steps[0] + 0.05 < steps[1] < gold_order_accuracy(pairs, truth)


# --- The real texts ------------------------------------------------------------------


@pytest.fixture(scope="module")
def rated():
    return {domain: load_rated(domain) for domain in DOMAINS}


@pytest.mark.network
def test_the_four_domains_are_all_the_rated_texts(rated):
    assert sum(len(texts) for texts in rated.values()) == 23_703
    for domain, texts in rated.items():
        rows = sources.load(DOMAINS[domain])
        assert [t.text for t in texts] == [" ".join(t.split()) for t in rows["text"]]
        both = [sorted(t.ratings + t.held_out) for t in texts[:500]]
        assert both == [sorted(r) for r in rows["ratings"][:500]]
        assert all(len(t.held_out) >= 7 for t in texts)
        assert all(t.text for t in texts)


@pytest.mark.network
@pytest.mark.parametrize("domain", ["tweets", "editorials"])
def test_splits_share_no_text_and_no_raters_change_sides(rated, domain):
    train, test = load_rated(domain, "train"), load_rated(domain, "test")
    assert Counter(train + test) == Counter(rated[domain])
    assert 0.17 < len(test) / len(rated[domain]) < 0.23
    some, other = (
        rated_pairs(texts, 2000, np.random.default_rng(0))[0] for texts in (train, test)
    )
    texts = [
        {p[side] for p in x for side in ("chosen", "rejected")} for x in (some, other)
    ]
    assert not texts[0] & texts[1]
    assert load_rated(domain, "test", seed=1) != test


@pytest.mark.network
@pytest.mark.parametrize("domain", DOMAINS)
def test_people_agree_more_than_chance_and_less_than_fully(rated, domain):
    pairs, summary = rated_pairs(rated[domain], 4000, np.random.default_rng(0))
    one, panel = rater_agreement(pairs), panel_agreement(pairs)
    assert 0.8 < one < panel - 0.02 and panel < 0.98
    assert 0.1 < summary.dropped["rated alike"] / 4000 < 0.35


# --- The arm -----------------------------------------------------------------------


def rated_texts(domain, split):
    """Texts with good or bad words, fifteen raters each; tests have other fillers."""
    rng = np.random.default_rng([len(domain), split == "test"])
    texts = []
    for i in range(60):
        good = i % 2
        word = ("fine", "poor")[1 - good]
        ratings = rng.normal(3 if good else -3, 1.0, size=15).round()
        text = f"{word} {domain} {split} {i}"
        texts.append(RatedText(text, tuple(ratings[7:]), tuple(ratings[:7])))
    return texts


@pytest.fixture
def stand_ins(monkeypatch):
    monkeypatch.setattr(
        raters, "load_rated", lambda domain, split: rated_texts(domain, split)
    )
    monkeypatch.setattr(
        raters, "train_from_reference", lambda pairs, **options: (None, None)
    )
    monkeypatch.setattr(
        raters,
        "score",
        lambda model, tokenizer, prompts, texts: np.array([len(t) for t in texts]),
    )


def test_raters_are_scored_in_every_domain(stand_ins):
    arm = dict(domain="movies", n=60, n_test=80, seed=0, base="tiny", steps=1)
    found = raters.rater_arm(**arm)
    assert 20 < found["kept"] <= 60
    assert list(found["accuracy"]) == list(raters.DOMAINS)
    for domain, scores in found["accuracy"].items():
        tested = raters.rated_test_pairs(domain, 80)
        # Half of the pairs have two texts of a kind, in whose order is only noise.
        assert scores["bag_of_words"] > 0.7, "it has learnt which word is good"
        assert scores["reward_model"] < 0.65, "the stand-in counts letters"
        assert scores["one_rater"] == raters.rater_agreement(tested)
        assert scores["panel"] == raters.panel_agreement(tested)
    other = raters.rater_arm(**{**arm, "seed": 1})
    assert (
        other["accuracy"]["tweets"]["panel"] == (found["accuracy"]["tweets"]["panel"])
    ), "every arm is asked the same"
