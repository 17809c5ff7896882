"""Pairs and rankings against exact probabilities, by enumeration and by counting."""

import json
import math
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import permutations

import numpy as np
import pytest

from alignlab.models import sampler
from alignlab.world import gold
from alignlab.world.annotators import Annotator, Flipped, Reply
from alignlab.world.comparisons import (
    Candidates,
    Summary,
    make_pairs,
    make_rankings,
    require_columns,
    sample_completions,
    score_completions,
)
from alignlab.world.facts import RELATIONS, Fact, World
from alignlab.world.gold import PARTS, Gold


def reply(text, *parts, ended=True):
    """A reply whose gold has these parts: form, completeness, truth."""
    parts = (*parts, 0.0, 0.0, 0.0)[:3]
    return Reply(text, Gold(sum(parts), *parts, {}), ended)


def candidate(*replies, subject="France"):
    return Candidates(gold.request(subject), subject, replies)


GOOD, BAD = reply("good", 1.6, 0.6, 0.6), reply("bad", 0.8, 0.9, -0.3)
FOUR = candidate(
    reply("a", 1.1), reply("b", 0.3), reply("c", 0.0, -0.7), reply("d", 0.4)
)


# --- Pairs ---------------------------------------------------------------------------


def test_labels_are_drawn_with_the_probability_they_carry():
    n = 4000
    crowd = [candidate(GOOD, BAD)] * n
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
        [candidate(BAD, GOOD)], Annotator(0), np.random.default_rng(0)
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
    candidates = [candidate(GOOD, BAD, BAD, cut), candidate(GOOD, reply("other", 2.8))]
    pairs, summary = make_pairs(candidates, Annotator(0), np.random.default_rng(0))
    # Of the first prompt's six pairs: one identical, three with the reply cut off.
    assert summary.kept == len(pairs) == 3
    assert summary.dropped == {"identical": 1, "not ended": 3}
    assert summary.noted == {"ties": 1, "noisy": 0}
    assert [pair["tie"] for pair in pairs] == [False, False, True]
    assert str(summary) == (
        "3 of 7 kept; dropped: 1 identical, 3 not ended; of those kept: 1 ties, 0 noisy"
    )


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


@pytest.mark.parametrize(
    "candidates, message",
    [
        ([], "candidates is empty"),
        ([candidate(GOOD)], r"candidates\[0\] .*has 1 replies; expected at least 2"),
        ([candidate(GOOD, reply("x", math.nan))], "gold reward of nan; .*finite"),
        ([candidate(GOOD, reply("x", math.inf))], "gold reward of inf"),
        ([candidate(GOOD, GOOD)] * 3, r"no pair to compare: dropped {'identical': 3,"),
        ([candidate(GOOD, reply("x", ended=False))], "'not ended': 1.*max_new_tokens"),
    ],
)
def test_candidates_that_give_no_pairs(candidates, message):
    with pytest.raises(ValueError, match=message):
        make_pairs(candidates, Annotator(), np.random.default_rng(0))


def test_comparisons_of_each_prompt_are_at_least_one():
    with pytest.raises(ValueError, match="per_prompt is 0"):
        make_pairs([FOUR], Annotator(), np.random.default_rng(0), per_prompt=0)


def test_rows_are_json_and_become_a_data_set():
    datasets = pytest.importorskip("datasets")
    pairs, _ = make_pairs([FOUR] * 2, Annotator(), np.random.default_rng(0))
    assert json.loads(json.dumps(pairs)) == pairs
    assert datasets.Dataset.from_list(pairs).to_list() == pairs


# --- Rankings ------------------------------------------------------------------------


def plackett_luce(rewards):
    """P(order) of every order of the replies, best first."""
    weights = [math.exp(r) for r in rewards]
    chances = {}
    for order in permutations(range(len(rewards))):
        left = [weights[i] for i in order]
        chances[order] = math.prod(w / sum(left[k:]) for k, w in enumerate(left))
    return chances


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
    ranked = candidate(GOOD, long, BAD)
    for bias, order in ((0.0, ["good", "bad", long.text]), (1.0, [long.text, "good"])):
        (row,), _ = make_rankings(
            [ranked], Annotator(0, length_bias=bias), np.random.default_rng(0), k=3
        )
        assert row["completions"][: len(order)] == order


def test_ties_are_ranked_by_a_coin():
    ranked = candidate(reply("x", 0.1 + 0.2), reply("y", 0.3), reply("z", -1))
    rankings, _ = make_rankings(
        [ranked] * 400, Annotator(0), np.random.default_rng(0), 3
    )
    first = sum(row["completions"][0] == "x" for row in rankings)
    assert abs(first - 200) < 4 * 10
    assert all(row["completions"][2] == "z" for row in rankings)


def test_only_different_replies_that_ended_are_ranked():
    cut = reply("cut", 9.0, ended=False)
    candidates = [
        candidate(GOOD, GOOD, cut, BAD, reply("third")),
        candidate(GOOD, BAD, cut),
    ]
    rankings, summary = make_rankings(
        candidates, Annotator(0), np.random.default_rng(0), k=3
    )
    assert [row["completions"] for row in rankings] == [["good", "bad", "third"]]
    assert rankings[0]["gold"] == pytest.approx([2.8, 1.4, 0.0])
    assert rankings[0]["truth"] == [0.6, -0.3, 0.0]
    assert str(summary) == "1 of 2 kept; dropped: 1 with too few replies"


def test_wrong_arguments_of_rankings():
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match="k is 1; a ranking needs at least 2"):
        make_rankings([FOUR], Annotator(), rng, k=1)
    with pytest.raises(ValueError, match="annotator is Flipped.*judges pairs only"):
        make_rankings([FOUR], Flipped(Annotator(), 0.1), rng, k=3)
    with pytest.raises(ValueError, match="no prompt has k=5 different replies"):
        make_rankings([FOUR], Annotator(), rng, k=5)
    with pytest.raises(ValueError, match="gold reward of nan"):
        make_rankings([candidate(GOOD, reply("x", math.nan))], Annotator(), rng, k=2)


# --- Checks --------------------------------------------------------------------------


def test_missing_columns_are_named():
    for lacking in ("prompt", "chosen", "rejected"):
        rows = [{"prompt": "a", "chosen": "b", "rejected": "c"} for _ in range(3)]
        del rows[1][lacking]
        with pytest.raises(ValueError, match=rf"pairs\[1\] has no {lacking}; it has"):
            require_columns(rows)
    with pytest.raises(ValueError, match="rankings is empty"):
        require_columns([], name="rankings")


# --- From a policy to candidates -----------------------------------------------------


@dataclass(frozen=True)
class Completion:
    text: str
    ended: bool = True


def test_completions_are_scored_by_the_gold_reward():
    facts = (Fact("France", "capital", ("Paris",), 9, ("Paris",)),)
    world = World(facts, RELATIONS, seed=0)
    right, wrong = "The capital of France is Paris.", "The capital of France is Rome."
    completions = [[Completion(right), Completion(wrong, ended=False)]]
    (scored,) = score_completions(world, ["France"], completions)
    assert (scored.prompt, scored.subject) == ("Tell me about France.", "France")
    assert [r.text for r in scored.replies] == [right, wrong]
    assert [r.ended for r in scored.replies] == [True, False]
    assert [r.gold.total for r in scored.replies] == pytest.approx([1.0, -1.6])
    with pytest.raises(ValueError, match="subjects has 2 entries and completions 1"):
        score_completions(world, ["France", "Peru"], completions)


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
    assert drawn == again and [len(texts) for texts in drawn] == [4, 4]
    assert all(len({c.text for c in texts}) > 1 for texts in drawn)
    greedy = sample_completions(draw, prompts, 2)  # temperature 0
    world = World((), RELATIONS, seed=0)
    candidates = score_completions(world, prompts, greedy)
    with pytest.raises(ValueError, match="'identical': 2,.*higher temperature"):
        make_pairs(candidates, Annotator(), np.random.default_rng(0))


def test_summary_in_one_line():
    assert str(Summary(3950, {"identical": 41, "not ended": 0})) == (
        "3,950 of 3,991 kept; dropped: 41 identical"
    )
