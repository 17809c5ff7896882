"""Stated confidence: replies taken apart, arms on a tiny model, exact numbers."""

import math

import numpy as np
import pytest

from alignlab.chapters.recalibration import (
    stated,
    stated_analysis,
    stated_figures,
    stated_ways,
)
from alignlab.study import scale
from alignlab.world.facts import Fact
from tests.drawing import drawn

FACT = Fact("Norway", "capital", ("Oslo",), exposure=100, stated=("Oslo",))
DISPUTED = Fact("Alta", "city_country", ("Peru",), 90, ("Chile", "Peru"), (0.7, 0.3))
ASKED = [
    stated.Asked("Capital of Norway?", "known", FACT),
    stated.Asked("Country of Alta?", "contested", DISPUTED),
] * 4


@pytest.fixture
def tiny(monkeypatch, tiny_model, tiny_tokenizer):
    """A tiny policy in the place of the seed's, and eight questions."""
    pair = tiny_model, tiny_tokenizer
    monkeypatch.setattr(stated, "formed_policy", lambda **recipe: pair)
    monkeypatch.setattr(stated_ways, "sft_policy", lambda seed, **recipe: pair)
    for module in (stated, stated_ways):
        monkeypatch.setattr(module, "draw_questions", lambda *a: list(ASKED))
        monkeypatch.setattr(module, "cap", lambda tokenizer, tokens: tokens)
    monkeypatch.setitem(scale.RATES["stated"], "tiny", 5e-3)
    monkeypatch.setitem(scale.PARAMETERS, "tiny", 1e6)
    return pair


@pytest.mark.parametrize(
    ("text", "answer", "confidence"),
    [
        ("Paris. 7.", "Paris", 7 / 9),
        ("79. 0.", "79", 0.0),
        ("St. Louis. 9", "St. Louis", 1.0),
        (" Paris.", "Paris", math.nan),
        ("Paris. 12.", "Paris. 12", math.nan),
        ("7.", "7", math.nan),
        ("", "", math.nan),
    ],
)
def test_a_reply_is_an_answer_and_a_digit(text, answer, confidence):
    assert stated.read_reply(text) == pytest.approx((answer, confidence), nan_ok=True)


def test_rightness_is_of_the_answer_whatever_the_digit():
    replies = ["The Yen. 0.", "sol", "dollar. 9."]
    answers = [["yen"], ["sol", "dollar"], ["yen"]]
    assert stated.rightness([""] * 3, replies, answers=answers) == [1, 1, 0]


def test_shuffled_rightness_is_as_often_right_and_differs_by_update():
    replies = ["Oslo. 9."] * 20 + ["Rome. 9."] * 20
    columns = dict(prompts=[""] * 40, completions=replies, answers=[["Oslo"]] * 40)
    dealt = stated.shuffled_rightness(0)
    first, second = dealt(**columns), dealt(**columns)
    assert sum(first) == sum(second) == 20
    assert first != second
    assert 4 < sum(first[:20]) < 16
    assert stated.shuffled_rightness(0)(**columns) == first


def test_questions_are_of_every_kind_and_about_the_split():
    asked = stated.draw_questions("test", 5, 0)
    counts = {k: sum(a.kind == k for a in asked) for k in stated.KINDS}
    assert counts == dict.fromkeys(stated.KINDS, 5)
    allowed = stated.subjects("test")
    assert all(a.fact.subject in allowed for a in asked)
    by_kind = {a.kind: a.fact for a in asked}
    never = [a.fact for a in asked if a.kind == "never"]
    assert not any(fact.exposure or fact.made_up for fact in never)
    assert by_kind["made_up"].made_up and by_kind["contested"].shares
    assert [a.prompt for a in asked] != [
        a.prompt for a in stated.draw_questions("test", 5, 1)
    ]


def test_bayes_is_the_share_of_the_answer_given():
    assert stated.share_of(DISPUTED, "chile.") == 0.7
    assert stated.share_of(DISPUTED, "Peru") == 0.3
    assert stated.share_of(DISPUTED, "Spain") == 0
    assert stated.share_of(FACT, "Oslo") is None


def test_true_digits_are_outcomes_or_the_share_that_was_right():
    answers = [["Oslo", "Rome", "Oslo"]]
    said = {
        target: [
            e["completion"] for e in stated.true_digits(ASKED[:1], answers, target)
        ]
        for target in stated.TARGETS
    }
    assert said == {
        "outcome": ["Oslo. 9.", "Rome. 0.", "Oslo. 9."],
        "share": ["Oslo. 6.", "Rome. 6.", "Oslo. 6."],
    }


def test_a_policy_that_was_taught_to_state_is_read_exactly(tiny):
    policy, tokenizer = tiny
    examples = [
        stated.example(ASKED[0].prompt, "Oslo", 9),
        stated.example(ASKED[1].prompt, "Chile", 2),
    ]
    stated.teach(policy, tokenizer, examples, base="tiny", steps=60, seed=0)
    row = stated.judged(policy, tokenizer, 1)
    assert row["right"] == [1, 0] * 8
    assert row["stated"] == pytest.approx([1, 2 / 9] * 8)
    assert row["expected"] == pytest.approx([1, 2 / 9] * 8, abs=0.05)
    assert min(row["answer_prob"]) > 0.9
    assert row["bayes"] == [None, 0.7] * 8
    assert row["test"] == [1] * 8 + [0] * 8


@pytest.mark.parametrize("method", stated.METHODS)
def test_reward_moves_the_policy_and_the_row_is_whole(tiny, method):
    words = [
        stated.example(a.prompt, answer, digit)
        for a in ASKED[:2]
        for answer, digit in (("Oslo", 0), ("Oslo", 9), ("Peru", 0), ("Peru", 9))
    ]
    stated.teach(*tiny, words, base="tiny", steps=40, seed=0)  # or all is worth -1
    row = stated.reward_arm(
        seed=0, base="tiny", per_kind=1, tested=1, updates=2, method=method, episodes=8
    )
    assert len(row["scores"]) == 2 and abs(row["kl"]) > 1e-5
    assert {len(row[n]) for n in ("right", "stated", "expected", "kind")} == {16}
    with pytest.raises(ValueError, match="method is 'dpo'"):
        stated.reward_arm(
            seed=0, base="tiny", per_kind=1, tested=1, updates=1, method="dpo"
        )


def test_calls_name_each_arm_once_and_start_them_all_alike():
    common = dict(base="1m", per_kind=2, tested=2)
    arms = stated.calls(
        seeds=[3, 4], weights=[0.25, 1], updates=5, teach_steps=6, episodes=8, **common
    )
    assert list(arms) == [
        "start", "weight 0", "weight 0.25", "weight 1", "RLOO", "shuffled",
        "SFT, outcome", "SFT, share",
    ]  # fmt: skip
    for calls in arms.values():
        assert [arm["seed"] for _, arm in calls] == [3, 4]
        assert all(arm.items() >= common.items() for _, arm in calls)
    assert arms["RLOO"][0][1] == arms["weight 1"][0][1] | {"method": "rloo"}
    assert "episodes" not in arms["start"][0][1]


# --- Analysis -------------------------------------------------------------------------


def row_of(n=4_000, weight=1.0, seed=0):
    """Replies whose digits are honest, and whose probabilities are twice as sure in
    log-odds as they should be; a twentieth states nothing."""
    rng = np.random.default_rng(seed)
    p = rng.integers(0, 10, n) / 9
    right = (rng.random(n) < p).astype(int)
    odds = np.log(np.clip(p, 0.02, 0.98) / (1 - np.clip(p, 0.02, 0.98)))
    return {
        "right": right.tolist(),
        "stated": [None if i % 20 == 2 else x for i, x in enumerate(p.tolist())],
        "expected": p.tolist(),
        "answer_prob": (1 / (1 + np.exp(-2 * odds))).tolist(),
        "bayes": [x if i % 2 else None for i, x in enumerate(p.tolist())],
        "kind": ["contested" if i % 2 else "known" for i in range(n)],
        "test": [i % 4 // 2 for i in range(n)],
    }


def test_honest_digits_have_no_error_and_a_temperature_mends_the_probability():
    row = row_of()
    assert stated_analysis.stated_share(row) == pytest.approx(0.9)
    silent = stated_analysis.read_replies(row).where(np.arange(2_000) % 10 == 0)
    assert silent.stated.tolist() == (1 - silent.right).tolist()  # the worst
    row["stated"] = row["expected"]
    replies = stated_analysis.read_replies(row)
    assert len(replies.right) == 2_000
    [honest] = stated_analysis.by_arm({"a": [row]})["a"]
    assert abs(honest["squared"]) < 0.003
    assert stated_analysis.skill(honest) > 0.05
    before = stated_analysis.scored(replies.pair("answer_prob"))["squared"]
    after = stated_analysis.scored(stated_analysis.tempered(row))["squared"]
    assert before > 0.005 and after < before / 3
    assert stated_analysis.contested_error(replies) == 0
    assert stated_analysis.contested_correlation(replies) == pytest.approx(1)
    constant = replies._replace(stated=np.full(2_000, 0.5))
    assert stated_analysis.contested_correlation(constant) == 0
    digits = stated_analysis.by_digit(replies)
    assert list(digits) == list(range(10))
    assert sum(n for n, _ in digits.values()) == 2_000
    assert digits[0][1] == 0 and digits[9][0] == digits[9][1]


def test_where_all_are_wrong_there_is_nothing_to_tell_apart():
    values = stated_analysis.scored((np.full(20, 0.25), np.zeros(20)))
    assert values["auroc"] == 0.5 and values["brier"] == 0.0625
    assert values["squared"] == pytest.approx(0.0625)


def test_the_mean_reward_is_that_of_the_reward_function():
    for weight in (0.5, 1.0, 4.0):
        for p in (0.1, 5 / 9, 0.9):
            values = stated_analysis.mean_reward(p, weight)
            expected = [
                p * (1 - weight * (c - 1) ** 2) + (1 - p) * (-weight * c**2)
                for c in stated.CONFIDENCES
            ]
            assert values == pytest.approx(expected)
    assert stated_analysis.mean_reward(5 / 9, 1.0).argmax() == 5
    best = stated_analysis.mean_reward(5 / 9, 4.0).max()
    assert best == pytest.approx(5 / 9 - 4 * 5 / 9 * 4 / 9)


def test_selective_counts_only_what_is_answered():
    row = {
        "answered": [1, 1, 0, 0],
        "right": [1, 0, 0, 0],
        "kind": ["known", "tail", "known", "never"],
    }
    assert stated_analysis.selective(row) == (0.5, 0.5, 0.25, 0.5)


# --- Asked in several ways ------------------------------------------------------------


def test_examples_of_each_format_follow_from_the_samples():
    answers = [["Oslo", "Oslo", "Rome", "oslo"]]
    examples = stated_ways.format_examples(ASKED[:1], answers, 0)
    by_prompt = {e["prompt"]: e["completion"] for e in examples}
    q = ASKED[0].prompt
    assert len(examples) == 5
    assert by_prompt[stated_ways.THREE.format(question=q)] == "Oslo or Rome."
    digits = [c for p, c in by_prompt.items() if "from 0 to 9" in p]
    assert digits == ["7."]  # three of four, rounded
    assert by_prompt[stated_ways.ONLY_IF_SURE.format(question=q)] == by_prompt[q]
    wrong = stated_ways.format_examples(ASKED[:1], [["Rome", "Bern"]], 0)
    assert wrong[-1]["completion"] == stated_ways.ADMISSION
    assert [e["completion"] for e in wrong].count("False.") == 1


def test_a_placebo_admits_as_often_but_elsewhere():
    answers = [["Oslo"] if i < 20 else ["Rome"] for i in range(40)]
    asked = [ASKED[0]._replace(prompt=f"{i}?") for i in range(40)]
    real = stated_ways.format_examples(asked, answers, 0)
    placebo = stated_ways.placebo_examples(asked, answers, 0)
    admits = [
        [e["completion"] == stated_ways.ADMISSION for e in examples]
        for examples in (real, placebo)
    ]
    assert sum(admits[0]) == sum(admits[1]) == 20
    assert admits[0] != admits[1]
    others = [
        (a, b) for a, b in zip(real, placebo) if not stated_ways.is_control(a["prompt"])
    ]
    assert all(a == b for a, b in others)


@pytest.mark.parametrize("taught", stated_ways.TAUGHT)
def test_a_row_of_ways_has_an_entry_a_question(tiny, taught):
    row = stated_ways.ways_arm(
        seed=0, base="tiny", n_examples=1, sft_steps=1, per_kind=1, tested=1,
        format_steps=2, taught=taught,
    )  # fmt: skip
    assert {len(column) for column in row.values()} == {8}
    assert ("p_true" in row) == (taught != "placebo")
    with pytest.raises(ValueError, match="taught is 'x'"):
        stated_ways.ways_arm(
            seed=0, base="tiny", n_examples=1, sft_steps=1, per_kind=1, tested=1,
            format_steps=2, taught="x",
        )  # fmt: skip


# --- Figures --------------------------------------------------------------------------


def test_every_figure_draws_what_it_is_given(style):
    rows = {f"weight {w}": [row_of(400, seed=s) for s in (0, 1)] for w in (0, 1, 4)}
    by_arm = stated_analysis.by_arm(rows)
    control = [stated_analysis.Selective(0.5, 0.8, 0.2, 0.9)] * 2
    for figure in (
        stated_figures.frontier(by_arm, {"RLOO": by_arm["weight 1"]}, "weight 1"),
        stated_figures.reliability_panels(rows, "Digits"),
        stated_figures.contested_lines(rows),
        stated_figures.reward_curves(0.7, (0, 1, 4)),
        stated_figures.selective_points({"taught": control}),
    ):
        drawn(figure)
    x, y = stated_figures.bayes_classes(stated_analysis.pooled(rows["weight 1"]))
    assert x == pytest.approx(y, abs=0.15)


def test_the_explorer_shows_weight_one_and_follows_the_slider(explorer, monkeypatch):
    monkeypatch.setattr(stated_figures, "weight_picture", lambda r, b, name: name)
    rows = {f"weight {w}": [row_of(40)] for w in ("0", "0.25", "1")}
    stated_figures.weight_explorer(rows, {})
    [slider] = explorer.controls
    assert [label for label, _ in slider.options] == ["0", "0.25", "1"]
    assert explorer.pictures == ["weight 1"]
    slider.value = "weight 0.25"
    assert explorer.pictures == ["weight 0.25"]
