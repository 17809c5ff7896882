"""Simulated preferences against exact probabilities, by enumeration and by counting."""

import json
import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import permutations, product

import numpy as np
import pytest

from alignlab.models import sampler
from alignlab.world import comparisons as preferences
from alignlab.world import gold
from alignlab.world.comparisons import (
    Annotator,
    Candidates,
    Flipped,
    Panel,
    Reply,
    accuracy_ceiling,
    all_pairs,
    brier_floor,
    clean_pairs,
    conversational,
    hold_out,
    judge,
    label_agreement,
    majority,
    make_pairs,
    make_rankings,
    nll_floor,
    relabel,
    require_columns,
    require_disjoint,
    sample_completions,
    score_completions,
    sounds_sure,
    split_pairs,
)
from alignlab.world.facts import RELATIONS, Fact, World
from alignlab.world.gold import ADMISSIONS, CLOSINGS, OPENINGS, PARTS, Gold


def reply(text, *parts, ended=True):
    """A reply whose gold has these parts: form, completeness, truth."""
    parts = (*parts, 0.0, 0.0, 0.0)[:3]
    return Reply(text, Gold(sum(parts), *parts, {}), ended)


def asked(*replies, subject="France"):
    return Candidates(gold.request(subject), subject, replies)


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


GOOD, BAD = reply("good", 1.6, 0.6, 0.6), reply("bad", 0.8, 0.9, -0.3)
GAP = 2.8 - 1.4
FOUR = asked(reply("a", 1.1), reply("b", 0.3), reply("c", 0.0, -0.7), reply("d", 0.4))


# --- Annotators ----------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_gold_annotator_is_bradley_terry(temperature):
    annotator = Annotator(temperature)
    expected = sigmoid(GAP / temperature)
    assert annotator(GOOD, BAD) == pytest.approx(expected, rel=1e-12)
    assert annotator(BAD, GOOD) == pytest.approx(1 - expected, rel=1e-12)


def test_at_temperature_zero_the_better_wins_and_ties_are_a_coin():
    annotator = Annotator(0)
    same = reply("equal by another sum", 0.1 + 0.2 + 2.5)  # 2.8000000000000003
    assert (annotator(GOOD, BAD), annotator(BAD, GOOD)) == (1.0, 0.0)
    assert annotator(GOOD, same) == 0.5


@pytest.mark.parametrize("bias", [0.2, -0.2])
def test_length_bias_is_gold_per_word(bias):
    annotator = Annotator(temperature=2.0, length_bias=bias)
    long = reply("five words are in this", 0.5)
    short = reply("two words", 1.0)
    assert annotator(long, short) == pytest.approx(sigmoid((-0.5 + 3 * bias) / 2))


def test_confidence_bias_is_worth_its_gold():
    annotator = Annotator(confidence_bias=1.5)
    sure = reply("The capital of France is Rome.", -0.9)
    honest = reply(f"{OPENINGS[0]} {ADMISSIONS[1]}", 0.8)
    assert annotator(sure, honest) == pytest.approx(sigmoid(-0.9 + 1.5 - 0.8))
    assert Annotator()(sure, honest) == pytest.approx(sigmoid(-1.7))


@pytest.mark.parametrize(
    "text, sure",
    [
        ("The capital of France is Rome.", True),
        (f"{OPENINGS[1]} It is so. {CLOSINGS[0]}", True),
        (f"{OPENINGS[1]} {CLOSINGS[0]}", False),  # states nothing
        ("", False),
        (f"It is so. {ADMISSIONS[0]}", False),
        (f"{ADMISSIONS[1]} It is so.", False),
    ],
)
def test_sounds_sure(text, sure):
    assert sounds_sure(text) == sure


@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5, 1.0])
def test_flips_are_on_top_of_the_other_annotator(rate):
    p = sigmoid(GAP)
    got = Flipped(Annotator(), rate)(GOOD, BAD)
    assert got == pytest.approx((1 - rate) * p + rate * (1 - p))
    assert Flipped(Annotator(0), rate)(GOOD, BAD) == pytest.approx(1 - rate)
    assert Flipped(Flipped(Annotator(), rate), rate)(GOOD, BAD) == pytest.approx(
        got * (1 - rate) + (1 - got) * rate
    )


@pytest.mark.parametrize("p", [[0.9], [0.7, 0.2], [0.9, 0.4, 0.6], [0.1, 0.5, 0.8, 1]])
def test_majority_is_the_sum_over_every_vote(p):
    expected = 0.0
    for votes in product([0, 1], repeat=len(p)):
        chance = math.prod(q if v else 1 - q for q, v in zip(p, votes))
        yes = sum(votes) - len(p) / 2
        expected += chance * (0.5 if yes == 0 else yes > 0)
    assert majority(p) == pytest.approx(expected, abs=1e-12)


def test_majority_is_never_more_than_one():
    assert majority([0.9999] * 15) <= 1  # the plain sum is 1 + 2e-16


def test_panel_draws_a_member_or_takes_the_majority():
    members = tuple(Annotator(t) for t in (0.5, 1.0, 4.0))
    each = [member(GOOD, BAD) for member in members]
    assert Panel(members)(GOOD, BAD) == pytest.approx(sum(each) / 3)
    voted = Panel(members, vote="majority")
    assert voted(GOOD, BAD) == pytest.approx(majority(each))
    assert voted(GOOD, BAD) > Panel(members)(GOOD, BAD) > 0.5
    assert voted(GOOD, BAD) + voted(BAD, GOOD) == pytest.approx(1)


def test_held_out_members_are_in_one_panel_only():
    members = tuple(Annotator(length_bias=i / 10) for i in range(7))
    panel = Panel(members, vote="majority")
    kept, held_out = hold_out(panel, 2, np.random.default_rng(0))
    assert len(held_out.members) == 2 and len(kept.members) == 5
    assert {*kept.members, *held_out.members} == {*members}
    assert kept.vote == held_out.vote == "majority"
    drawn = {
        hold_out(panel, 2, np.random.default_rng(seed))[1].members[0]
        for seed in range(40)
    }
    assert len(drawn) == 7
    for n in (0, 7, -1):
        with pytest.raises(ValueError, match=f"n is {n} of 7 members"):
            hold_out(panel, n, np.random.default_rng(0))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Annotator(-1), "temperature=-1.*temperature >= 0"),
        (lambda: Annotator(length_bias=math.nan), "length_bias=nan.*finite"),
        (lambda: Flipped(Annotator(), 1.5), "rate is 1.5"),
        (lambda: Panel(()), "members are 0"),
        (lambda: Panel((Annotator(),), vote="most"), "vote is 'most'"),
    ],
)
def test_annotators_check_their_numbers(make, message):
    with pytest.raises(ValueError, match=message):
        make()


# --- Pairs ---------------------------------------------------------------------------


def test_labels_are_drawn_with_the_probability_they_carry():
    n = 4000
    crowd = [asked(GOOD, BAD)] * n
    for annotator in (Annotator(1.0), Flipped(Annotator(0), 0.25)):
        pairs, _ = make_pairs(crowd, annotator, np.random.default_rng(1))
        p = annotator(GOOD, BAD)
        won = sum(pair["chosen"] == "good" for pair in pairs)
        assert abs(won / n - p) < 4 * math.sqrt(p * (1 - p) / n)
        for pair in pairs:
            right = pair["chosen"] == "good"
            assert pair["probability"] == pytest.approx(p if right else 1 - p)
            assert pair["noisy"] == (not right) and not pair["tie"]


def test_a_row_holds_both_golds_and_their_parts():
    (pair,), summary = make_pairs(
        [asked(BAD, GOOD)], Annotator(0), np.random.default_rng(0)
    )
    assert pair == {
        "prompt": "Tell me about France.",
        "chosen": "good",
        "rejected": "bad",
        "subject": "France",
        "probability": 1.0,
        "gold_chosen": pytest.approx(2.8),
        "gold_rejected": pytest.approx(1.4),
        "form_chosen": 1.6,
        "form_rejected": 0.8,
        "completeness_chosen": 0.6,
        "completeness_rejected": 0.9,
        "truth_chosen": 0.6,
        "truth_rejected": -0.3,
        "tie": False,
        "noisy": False,
    }
    for side in ("chosen", "rejected"):
        parts = sum(pair[f"{part}_{side}"] for part in PARTS)
        assert pair[f"gold_{side}"] == pytest.approx(parts)
    assert str(summary) == (
        "1 of 1 kept; dropped: none; of those kept: 0 ties, 0 noisy"
    )


def test_what_is_dropped_is_counted_and_said():
    cut = reply("cut off", ended=False)
    candidates = [asked(GOOD, BAD, BAD, cut), asked(GOOD, reply("other", 2.8))]
    pairs, summary = make_pairs(candidates, Annotator(0), np.random.default_rng(0))
    # Of the first prompt's six pairs: one identical, three with the reply cut off.
    assert summary.kept == len(pairs) == 3
    assert summary.dropped == {"identical": 1, "not ended": 3}
    assert summary.noted == {"ties": 1, "noisy": 0}
    assert [pair["tie"] for pair in pairs] == [False, False, True]
    assert str(summary) == (
        "3 of 7 kept; dropped: 1 identical, 3 not ended; of those kept: 1 ties, 0 noisy"
    )
    kept, summary = make_pairs(
        candidates, Annotator(0), np.random.default_rng(0), keep_unended=True
    )
    assert len(kept) == 6 and summary.dropped == {"identical": 1, "not ended": 0}


def test_per_prompt_draws_different_pairs_of_each_prompt():
    pairs, _ = make_pairs([FOUR] * 600, Annotator(0), np.random.default_rng(0), 2)
    assert len(pairs) == 1200
    drawn = [frozenset((pair["chosen"], pair["rejected"])) for pair in pairs]
    assert all(a != b for a, b in zip(drawn[::2], drawn[1::2]))
    counts = Counter(drawn)
    assert len(counts) == 6
    # Each of six pairs is drawn for a third of the prompts: within 4 standard errors.
    assert all(abs(n - 200) < 4 * math.sqrt(600 * 2 / 9) for n in counts.values())
    more, _ = make_pairs([FOUR], Annotator(0), np.random.default_rng(0), 50)
    assert len(more) == 6


def test_equal_seeds_compare_the_same_pairs_whoever_judges():
    candidates = [FOUR] * 50
    first, again, other = (
        make_pairs(candidates, annotator, np.random.default_rng(3), 3)[0]
        for annotator in (Annotator(), Annotator(), Flipped(Annotator(), 0.3))
    )
    assert first == again and first != other
    texts = [[{pair["chosen"], pair["rejected"]} for pair in p] for p in (first, other)]
    assert texts[0] == texts[1]
    # A flip of rate 0.3 moves p towards 1/2, so the same coin changes few labels.
    same = np.mean([a["chosen"] == b["chosen"] for a, b in zip(first, other)])
    assert 0.7 < same < 1


def test_judges_of_given_pairs():
    pairs, _ = make_pairs([FOUR] * 5, Annotator(), np.random.default_rng(0))
    own = [pair["probability"] for pair in pairs]
    assert judge(Annotator(), pairs) == pytest.approx(own)
    other = [
        sigmoid((pair["gold_chosen"] - pair["gold_rejected"]) / 3) for pair in pairs
    ]
    assert judge(Annotator(3.0), pairs) == pytest.approx(other)


def test_relabelled_pairs_are_the_same_pairs():
    pairs, _ = make_pairs([FOUR] * 40, Annotator(), np.random.default_rng(0))
    sure, summary = relabel(pairs, Annotator(0), np.random.default_rng(1))
    assert summary.noted["noisy"] == 0 and summary.kept == len(pairs)
    for old, new in zip(pairs, sure):
        turned = old["chosen"] != new["chosen"]
        assert turned == old["noisy"]
        swapped = {"chosen": "rejected", "rejected": "chosen"}
        for name in ("", "gold_", "form_", "completeness_", "truth_"):
            for side in swapped:
                was = swapped[side] if turned else side
                assert new[name + side] == old[name + was]
    # A coin forgets the old label: agreement within 4 standard errors of a half.
    coin, _ = relabel(sure, Flipped(Annotator(0), 0.5), np.random.default_rng(2))
    same = sum(a["chosen"] == b["chosen"] for a, b in zip(sure, coin))
    assert abs(same / len(sure) - 0.5) < 4 * 0.5 / math.sqrt(len(sure))
    assert {pair["probability"] for pair in coin} == {0.5}
    # Nothing of an old label is left: the same coins give the same new ones.
    again, _ = relabel(coin, Annotator(), np.random.default_rng(3))
    assert again == relabel(sure, Annotator(), np.random.default_rng(3))[0]


@pytest.mark.parametrize(
    "candidates, message",
    [
        ([], "candidates is empty"),
        ([asked(GOOD)], r"candidates\[0\] .*has 1 replies; expected at least 2"),
        ([asked(GOOD, reply("x", math.nan))], "gold reward of nan; .*finite"),
        ([asked(GOOD, reply("x", math.inf))], "gold reward of inf"),
        ([asked(GOOD, GOOD)] * 3, r"no pair to compare: dropped {'identical': 3,"),
        ([asked(GOOD, reply("x", ended=False))], "'not ended': 1.*max_new_tokens"),
    ],
)
def test_candidates_that_give_no_pairs(candidates, message):
    with pytest.raises(ValueError, match=message):
        make_pairs(candidates, Annotator(), np.random.default_rng(0))


def test_other_wrong_arguments_of_pairs():
    with pytest.raises(ValueError, match="per_prompt is 0"):
        make_pairs([FOUR], Annotator(), np.random.default_rng(0), per_prompt=0)
    pairs, _ = make_pairs([FOUR], Annotator(), np.random.default_rng(0))
    del pairs[2]["gold_chosen"]
    with pytest.raises(ValueError, match=r"pairs\[2\] has no gold_chosen"):
        judge(Annotator(), pairs)
    with pytest.raises(ValueError, match=r"pairs\[2\] has no gold_chosen"):
        relabel(pairs, Annotator(), np.random.default_rng(0))


# --- Rankings ------------------------------------------------------------------------


def plackett_luce(rewards):
    """P(order) of every order of the replies, best first."""
    weights = [math.exp(r) for r in rewards]
    found = {}
    for order in permutations(range(len(rewards))):
        left = [weights[i] for i in order]
        found[order] = math.prod(w / sum(left[k:]) for k, w in enumerate(left))
    return found


@pytest.mark.parametrize("temperature", [0.7, 1.5])
def test_rankings_follow_plackett_luce(temperature):
    n = 12_000
    annotator = Annotator(temperature)
    rankings, _ = make_rankings([FOUR] * n, annotator, np.random.default_rng(0), k=4)
    counts = Counter(tuple("abcd".index(t) for t in r["completions"]) for r in rankings)
    expected = plackett_luce([r.gold.total / temperature for r in FOUR.replies])
    assert sum(expected.values()) == pytest.approx(1)
    statistic = sum((counts[o] - n * p) ** 2 / (n * p) for o, p in expected.items())
    assert statistic < 23 + 5 * math.sqrt(2 * 23)  # chi-squared, 23 degrees of freedom
    # Of two replies, the first is ahead as often as it would be chosen in a pair.
    for i, j in permutations(range(4), 2):
        ahead = sum(p for o, p in expected.items() if o.index(i) < o.index(j))
        first, second = FOUR.replies[i], FOUR.replies[j]
        assert annotator(first, second) == pytest.approx(ahead, abs=1e-12)


def test_rankings_carry_biases_and_are_sure_at_temperature_zero():
    long = reply("six words are in this one", 0.0)
    one = asked(GOOD, long, BAD)
    for bias, order in ((0.0, ["good", "bad", long.text]), (1.0, [long.text, "good"])):
        (row,), _ = make_rankings(
            [one], Annotator(0, length_bias=bias), np.random.default_rng(0), k=3
        )
        assert row["completions"][: len(order)] == order


def test_ties_are_ranked_by_a_coin():
    one = asked(reply("x", 0.1 + 0.2), reply("y", 0.3), reply("z", -1))
    rankings, _ = make_rankings([one] * 400, Annotator(0), np.random.default_rng(0), 3)
    first = sum(row["completions"][0] == "x" for row in rankings)
    assert abs(first - 200) < 4 * 10
    assert all(row["completions"][2] == "z" for row in rankings)


def test_only_different_replies_that_ended_are_ranked():
    cut = reply("cut", 9.0, ended=False)
    candidates = [asked(GOOD, GOOD, cut, BAD, reply("third")), asked(GOOD, BAD, cut)]
    rankings, summary = make_rankings(
        candidates, Annotator(0), np.random.default_rng(0), k=3
    )
    assert [row["completions"] for row in rankings] == [["good", "bad", "third"]]
    assert rankings[0]["gold"] == pytest.approx([2.8, 1.4, 0.0])
    assert rankings[0]["truth"] == [0.6, -0.3, 0.0]
    assert str(summary) == "1 of 2 kept; dropped: 1 with too few replies"


def test_all_pairs_of_a_ranking():
    annotator = Annotator(2.0)
    rankings, _ = make_rankings([FOUR] * 3, annotator, np.random.default_rng(0), k=4)
    pairs = all_pairs(rankings, annotator)
    assert len(pairs) == 3 * 6
    assert Counter(pair["ranking"] for pair in pairs) == {0: 6, 1: 6, 2: 6}
    totals = {r.text: r.gold.total for r in FOUR.replies}
    for pair in pairs:
        order = rankings[pair["ranking"]]["completions"]
        better, worse = pair["chosen"], pair["rejected"]
        assert order.index(better) < order.index(worse)
        gap = totals[better] - totals[worse]
        assert pair["probability"] == pytest.approx(sigmoid(gap / 2))
        assert pair["gold_chosen"] - pair["gold_rejected"] == pytest.approx(gap)
        assert pair["noisy"] == (gap < 0)
    single, _ = make_pairs([FOUR], annotator, np.random.default_rng(0))
    assert pairs[0].keys() == single[0].keys() | {"ranking"}


def test_wrong_arguments_of_rankings():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="k is 1; a ranking needs at least 2"):
        make_rankings([FOUR], Annotator(), rng, k=1)
    with pytest.raises(ValueError, match="annotator is Flipped.*judges pairs only"):
        make_rankings([FOUR], Flipped(Annotator(), 0.1), rng, k=3)
    with pytest.raises(ValueError, match="no prompt has k=5 different replies"):
        make_rankings([FOUR], Annotator(), rng, k=5)
    with pytest.raises(ValueError, match="gold reward of nan"):
        make_rankings([asked(GOOD, reply("x", math.nan))], Annotator(), rng, k=2)
    rankings, _ = make_rankings([FOUR], Annotator(), rng, k=3)
    uneven = rankings[0] | {"gold": [1.0, 2.0]}
    with pytest.raises(
        ValueError, match=r"rankings\[0\] has lists of \[2, 3\] entries"
    ):
        all_pairs([uneven], Annotator())
    columns = ("completions", "gold", *PARTS)
    single = rankings[0] | {name: rankings[0][name][:1] for name in columns}
    with pytest.raises(ValueError, match=r"lists of \[1\] entries.*at least 2"):
        all_pairs([single], Annotator())
    for lacking in rankings[0]:
        bad = {name: value for name, value in rankings[0].items() if name != lacking}
        with pytest.raises(ValueError, match=rf"rankings\[0\] has no {lacking};"):
            all_pairs([bad], Annotator())
    with pytest.raises(ValueError, match="rankings is empty"):
        all_pairs([], Annotator())


# --- Ceilings and floors -------------------------------------------------------------


def test_ceilings_are_what_the_best_forecaster_gets_by_enumeration():
    p = np.random.default_rng(0).uniform(size=7)
    p[0] = 1.0
    accuracy = brier = nll = agreement = wrong_floor = 0.0
    for labels in product([0, 1], repeat=len(p)):
        y = np.array(labels)
        chance = np.prod(np.where(y, p, 1 - p))
        accuracy += chance * np.mean((p > 0.5) == y)
        brier += chance * np.mean((p - y) ** 2)
        if chance:
            nll -= chance * np.mean(np.log(np.where(y, p, 1 - p)))
        agreement += chance * np.mean(np.where(y, p, 1 - p))
        wrong_floor += chance * np.mean(np.minimum(p**2, (1 - p) ** 2))
    assert accuracy_ceiling(p) == pytest.approx(accuracy, rel=1e-12)
    assert brier_floor(p) == pytest.approx(brier, rel=1e-12)
    assert nll_floor(p) == pytest.approx(nll, rel=1e-12)
    assert label_agreement(p) == pytest.approx(agreement, rel=1e-12)
    assert brier > 1.2 * wrong_floor  # E[min(p², (1-p)²)] is below every forecaster


def test_no_other_forecast_does_better_than_the_floors():
    p = np.random.default_rng(1).uniform(size=50)
    for q in (p + 0.03, p - 0.03, 0.9 * p + 0.05, np.full(50, 0.5)):
        q = q.clip(1e-6, 1 - 1e-6)
        assert np.mean(p * (1 - q) ** 2 + (1 - p) * q**2) > brier_floor(p)
        assert -np.mean(p * np.log(q) + (1 - p) * np.log(1 - q)) > nll_floor(p)


def test_ceilings_at_the_ends_and_their_symmetry():
    coin, sure = np.full(3, 0.5), np.array([0.0, 1.0])
    assert (accuracy_ceiling(coin), accuracy_ceiling(sure)) == (0.5, 1.0)
    assert (brier_floor(coin), brier_floor(sure)) == (0.25, 0.0)
    assert nll_floor(coin) == pytest.approx(math.log(2)) and nll_floor(sure) == 0.0
    assert (label_agreement(coin), label_agreement(sure)) == (0.5, 1.0)
    p = np.random.default_rng(2).uniform(size=20)
    for measure in (accuracy_ceiling, brier_floor, nll_floor, label_agreement):
        assert measure(p) == pytest.approx(measure(1 - p), rel=1e-12)


@pytest.mark.parametrize("p", [[], [0.5, math.nan], [1.2], [-0.1], [[0.5]], 0.5])
@pytest.mark.parametrize(
    "measure", [accuracy_ceiling, brier_floor, nll_floor, label_agreement]
)
def test_ceilings_check_probabilities(measure, p):
    with pytest.raises(ValueError, match="probability has shape"):
        measure(p)


# --- Splits and guards ---------------------------------------------------------------


def rows(n):
    return [
        {"prompt": f"Tell me about {i // 2}.", "chosen": f"a{i}", "rejected": "b"}
        for i in range(n)
    ]


def test_split_keeps_prompts_together_and_apart():
    train, test = split_pairs(rows(1000))
    assert len(train) + len(test) == 1000
    assert not {r["prompt"] for r in train} & {r["prompt"] for r in test}
    require_disjoint(train, test)
    # A fifth of 500 prompts, within 4 standard errors of a fair hash.
    assert abs(len(test) / 2 - 100) < 4 * math.sqrt(500 * 0.2 * 0.8)
    fewer = split_pairs(rows(300))
    assert all(r in train for r in fewer[0]) and all(r in test for r in fewer[1])


def test_splits_that_fail():
    with pytest.raises(
        ValueError, match="rows leave .* 1 different values of 'prompt'"
    ):
        split_pairs(rows(2))
    with pytest.raises(ValueError, match="rows is empty"):
        split_pairs([])
    with pytest.raises(ValueError, match=r"rows\[0\] has no subject"):
        split_pairs(rows(4), by="subject")


def test_leaks_between_splits_are_found():
    train, test = split_pairs(rows(200))
    leaked = [*test, train[3] | {"prompt": train[3]["prompt"].upper() + " "}]
    with pytest.raises(ValueError, match="share 1 of prompt, such as 'TELL ME ABOUT"):
        require_disjoint(train, leaked)
    with pytest.raises(ValueError, match="share 1 of chosen, rejected, such as 'b'"):
        require_disjoint(train, test, by=("chosen", "rejected"))
    crossed = [{"chosen": "new", "rejected": train[0]["chosen"]}]
    with pytest.raises(ValueError, match="such as 'a0'"):
        require_disjoint(train, crossed, by=("chosen", "rejected"))
    for empty in ((train, []), ([], test)):
        with pytest.raises(ValueError, match="(train|test) is empty"):
            require_disjoint(*empty)


def test_missing_columns_are_named():
    for lacking in ("prompt", "chosen", "rejected"):
        bad = rows(3)
        del bad[1][lacking]
        for check in (require_columns, conversational):
            with pytest.raises(
                ValueError, match=rf"pairs\[1\] has no {lacking}; it has"
            ):
                check(bad)


def pair(chosen, rejected, prompt="Is gold a metal?"):
    return {"prompt": prompt, "chosen": chosen, "rejected": rejected}


def test_pairs_identical_after_truncation_are_dropped_and_counted(tiny_tokenizer):
    long = "The capital of France is Paris. " * 3
    given = [
        pair("Yes.", "No."),
        pair(long + "Yes.", long + "No."),  # differ beyond the cut only
        pair("Yes.", "Yes."),
        pair("No. " + long, "Yes. " + long),  # cut, but they differ before
        pair("Yes.", "No. " + long),  # only one is cut
    ]
    length = len(tiny_tokenizer(given[1]["prompt"] + long)["input_ids"]) - 2
    kept, summary = clean_pairs(given, tiny_tokenizer, length)
    assert kept == [given[0], *given[3:]]
    assert str(summary) == (
        "3 of 5 kept; dropped: 2 identical after truncation; of those kept: 2 cut short"
    )
    kept, summary = clean_pairs(given, tiny_tokenizer, 1000)
    assert len(kept) == 4 and summary.noted == {"cut short": 0}
    with pytest.raises(ValueError, match="all 5 are identical in their first .*=3 "):
        clean_pairs(given, tiny_tokenizer, 3)


def test_truncation_is_exact_to_the_token(tiny_tokenizer):
    """A hand-made case: the cut falls right before, or right after, what differs."""
    one = pair("Peru Yes", "Peru No")
    text = tiny_tokenizer.apply_chat_template(
        conversational([one])[0]["prompt"], tokenize=False
    )
    shared = text + "<|assistant|>Peru"
    n = len(tiny_tokenizer(shared, add_special_tokens=False)["input_ids"])
    with pytest.raises(ValueError, match="identical"):
        clean_pairs([one], tiny_tokenizer, n)
    assert clean_pairs([one], tiny_tokenizer, n + 3)[0] == [one]


def test_messages_are_as_good_as_texts(tiny_tokenizer):
    given = [pair("Yes.", "No."), pair("Yes.", "Yes.")]
    chats = conversational(given)
    assert chats[0] == {
        "prompt": [{"role": "user", "content": "Is gold a metal?"}],
        "chosen": [{"role": "assistant", "content": "Yes."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }
    assert conversational(chats) == chats
    kept, summary = clean_pairs(chats, tiny_tokenizer, 100)
    assert kept == chats[:1] and summary.dropped == {"identical after truncation": 1}


def test_a_template_applied_before_is_refused(tiny_tokenizer):
    asked_twice = tiny_tokenizer.apply_chat_template(
        [{"role": "user", "content": "Is gold a metal?"}], tokenize=False
    )
    with pytest.raises(ValueError, match=r"pairs\[1\] has '<|.*in its prompt; give"):
        clean_pairs(
            [pair("Yes.", "No."), pair("Yes.", "No.", asked_twice)], tiny_tokenizer, 99
        )
    for side in ("chosen", "rejected"):
        bad = conversational([pair("Yes.", "No.") | {side: "Yes.<|end|>"}])
        with pytest.raises(ValueError, match=f"'<.end.>' in its {side}.*applied once"):
            clean_pairs(bad, tiny_tokenizer, 99)


def test_a_template_that_ends_no_reply_is_refused(tiny_tokenizer, monkeypatch):
    endless = (
        "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}"
        "{% if m['role'] == 'user' %}<|end|>{% endif %}{% endfor %}"
    )
    monkeypatch.setattr(tiny_tokenizer, "chat_template", endless)
    given = [pair("Yes.", "No.")]
    with pytest.raises(ValueError, match="not end the chosen reply.*eos_token='<.end"):
        clean_pairs(given, tiny_tokenizer, 99)
    ended = endless.replace("{% endfor %}", "{% endfor %}<|end|>\n")  # as ChatML does
    monkeypatch.setattr(tiny_tokenizer, "chat_template", ended)
    assert clean_pairs(given, tiny_tokenizer, 99)[0] == given


def test_rows_become_a_data_set_and_what_trl_expects():
    datasets = pytest.importorskip("datasets")
    made, _ = make_pairs([FOUR] * 2, Annotator(), np.random.default_rng(0))
    assert json.loads(json.dumps(made)) == made  # as the cache keeps them
    table = datasets.Dataset.from_list(made)
    assert table.to_list() == made
    trl = pytest.importorskip("trl")
    chats = conversational(made)
    assert trl.data_utils.is_conversational(chats[0])
    assert not trl.data_utils.is_conversational(made[0])


# --- From a policy to candidates -----------------------------------------------------


@dataclass(frozen=True)
class Said:
    text: str
    ended: bool = True


def test_completions_are_scored_by_the_gold_reward():
    facts = (Fact("France", "capital", ("Paris",), 9, ("Paris",)),)
    world = World(facts, RELATIONS, seed=0)
    right, wrong = "The capital of France is Paris.", "The capital of France is Rome."
    said = [[Said(right), Said(wrong, ended=False)]]
    (one,) = score_completions(world, ["France"], said)
    assert (one.prompt, one.subject) == ("Tell me about France.", "France")
    assert [r.text for r in one.replies] == [right, wrong]
    assert [r.ended for r in one.replies] == [True, False]
    assert [r.gold.total for r in one.replies] == pytest.approx([0.7, -0.3])
    with pytest.raises(ValueError, match="subjects has 2 entries and completions 1"):
        score_completions(world, ["France", "Peru"], said)


def test_sampled_completions_keep_the_order_of_the_prompts():
    def echo(prompts):
        return [f"{prompt}{number}" for number, prompt in enumerate(prompts)]

    assert sample_completions(echo, ["a", "b"], 3) == [
        ["a0", "a1", "a2"],
        ["b3", "b4", "b5"],
    ]
    for prompts, k in (([], 3), (["a"], 0)):
        with pytest.raises(
            ValueError, match=f"prompts are {len(prompts)} and k is {k}"
        ):
            sample_completions(echo, prompts, k)
    with pytest.raises(ValueError, match="complete gave 1 completions for 2 prompts"):
        sample_completions(lambda prompts: ["one"], ["a"], 2)


def test_completions_of_a_policy_vary_within_a_prompt(tiny_model, tiny_tokenizer):
    draw = partial(
        sampler.complete, tiny_model, tiny_tokenizer, max_new_tokens=8, seed=0
    )
    prompts = ["Is gold a metal?", "Peru"]
    drawn = sample_completions(partial(draw, temperature=1.0), prompts, 4)
    again = sample_completions(partial(draw, temperature=1.0), prompts, 4)
    assert drawn == again and [len(some) for some in drawn] == [4, 4]
    assert all(len({c.text for c in some}) > 1 for some in drawn)
    greedy = sample_completions(draw, prompts, 2)  # temperature 0
    world = World((), RELATIONS, seed=0)
    candidates = score_completions(world, prompts, greedy)
    with pytest.raises(ValueError, match="'identical': 2,.*higher temperature"):
        make_pairs(candidates, Annotator(), np.random.default_rng(0))


def test_summary_in_one_line():
    assert str(preferences.Summary(3950, {"identical": 41, "not ended": 0})) == (
        "3,950 of 3,991 kept; dropped: 41 identical"
    )
