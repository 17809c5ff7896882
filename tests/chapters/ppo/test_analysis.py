"""Numbers read off runs against closed forms, and what needs no run."""

import copy
import math

import numpy as np
import pytest
import torch

from alignlab.chapters.ppo import analysis
from alignlab.models.reward import reward_model_from
from alignlab.objectives import exact_kl
from alignlab.training.ppo.policy_value import PolicyAndValue
from alignlab.training.ppo.rollout import predict

# --- Numbers read off runs ----------------------------------------------------------


def look(gold=1.0, kl=1.0, seconds=1.0, golds=None):
    """A look at two subjects, which are a half above and below the mean."""
    golds = [gold - 0.5, gold + 0.5] if golds is None else golds
    return dict(gold=gold, golds=golds, kl=kl, seconds=seconds)


def ended(seed=0, gold=1.0, kl=1.0, stopped=None, **others):
    points = [look(gold, kl, **others)]
    return dict(chain={"seed": seed}, points=points, stopped=stopped)


def lost(seed=0, *points):
    """A run that had to stop, after some looks."""
    return dict(chain={"seed": seed}, points=list(points), stopped="the loss is inf")


START = [ended(0, 2.0, 0.0), ended(1, 3.0, 0.0)]


def test_a_gain_is_over_the_start_of_the_same_chain():
    rows = [ended(1, 3.5), ended(0, 3.5, golds=[3.0, 5.0]), lost(1, look(9.0))]
    found = analysis.gains(rows, START, "golds")
    assert found[:2].tolist() == [[0.5, 0.5], [1.5, 2.5]]
    assert np.isnan(found[2]).all()
    assert analysis.ends(rows, "gold")[:2].tolist() == [3.5, 3.5]
    assert math.isnan(analysis.ends(rows, "gold")[2])


@pytest.mark.parametrize(
    "row, expected",
    [
        (ended(gold=2.1), False),
        (ended(gold=1.76), False),
        (ended(gold=1.75), True),
        (ended(seed=1, gold=2.1), True),
        (ended(gold=9.0, kl=15.0), False),
        (ended(gold=9.0, kl=15.1), True),
        (ended(gold=9.0, kl=math.nan), True),
        (ended(gold=math.nan), True),
        (lost(0), True),
        (lost(0, look(9.0)), True),
    ],
)
def test_what_counts_as_a_failure(row, expected):
    assert analysis.failed(row, START) is expected


def test_failure_rates_are_by_seed():
    rows = [ended(0, 4.0), ended(0, 1.0), ended(1, 3.0), lost(1), ended(1, 3.5)]
    rates = analysis.failure_rates(rows, START, [1, 0])
    assert rates == pytest.approx([1 / 3, 1 / 2])


def test_a_piece_is_worth_the_final_gold_that_is_lost_without_it():
    whole = [ended(0, 2.0), ended(1, 3.0), ended(2, 1.0)]
    without = [ended(1, 2.5), ended(0, 2.25), ended(2, 1.0)]
    lost_gold = analysis.gold_lost(whole, without, [0, 1, 2])
    assert lost_gold.tolist() == [-0.25, 0.5, 0.0]


def test_a_run_that_stopped_counts_as_its_last_look_or_the_worst():
    whole = [ended(0, 2.0), ended(1, 2.0)]
    stopped = [lost(0, look(3.0), look(-1.0)), lost(1)]
    assert analysis.gold_lost(whole, stopped, [0, 1]).tolist() == [3.0, 0.0]
    assert analysis.worst_gold([*whole, *stopped]) == -1.0
    with pytest.raises(ValueError):
        analysis.worst_gold([lost(0)])


def test_a_path_keeps_the_order_of_the_updates():
    def walked(kl, gold):
        return {"history": {"kl_exact": kl, "reward/gold": gold}}

    kl, gold = analysis.mean_path([walked([0, 4, 2], [1, 5, 3])])
    assert kl.tolist() == [0, 4, 2] and gold.tolist() == [1, 5, 3]
    rows = [walked([0, 4, 2], [1, 5, 3]), walked([2, 6], [3, 1])]
    kl, gold = analysis.mean_path(rows)
    assert kl.tolist() == [1, 5, 2] and gold.tolist() == [2, 3, 3]


def test_a_search_counts_a_stopped_run_as_the_worst_of_its_seed():
    rows = [ended(0, 4.0), ended(0, 1.0), lost(0, look(3.0)), ended(1, 3.5), lost(1)]
    rows.insert(3, ended(1, 3.0))
    found = analysis.search_gains(rows, START, [0, 1])
    assert found.shape == (2, 3, 2)
    assert found.mean(-1).tolist() == [[2.0, -1.0, -1.0], [0.0, 0.5, 0.0]]
    worse = analysis.search_gains([ended(0, 4.0), lost(0, look(-5.0))], START, [0])
    assert worse.mean(-1).tolist() == [[2.0, -7.0]], "its own last look is the worst"


def test_seconds_are_those_of_the_runs_that_ended():
    rows = [ended(0, seconds=32.0), ended(0, seconds=96.0), lost(0, look(seconds=1))]
    found = analysis.seconds_per_completion([*rows, ended(1, seconds=6.0)], 64, [0, 1])
    assert found == pytest.approx([1.0, 6 / 64])


def test_gold_for_seconds_follows_the_straight_line():
    row = ended(seconds=20.0) | {"history": {"reward/gold": [1.0, 1.5, 2.0, 2.5]}}
    # Half a point of gold an update, five seconds each.
    assert analysis.gold_for_seconds(row, 30.0) == pytest.approx(3.0)
    assert math.isnan(analysis.gold_for_seconds(row | {"stopped": "inf"}, 30.0))
    short = row | {"history": {"reward/gold": [1.0]}}
    assert math.isnan(analysis.gold_for_seconds(short, 30.0))


def test_memory_counts_every_model_and_what_adam_keeps(tiny_model):
    judge = reward_model_from(tiny_model)
    policy = PolicyAndValue(copy.deepcopy(tiny_model))
    methods = analysis.memory(policy, tiny_model, judge)
    assert {name: row["held"] for name, row in methods.items()} == {
        "PPO": 3, "RLOO": 3, "GRPO": 3, "DPO": 1,
    }  # fmt: skip
    size = tiny_model.num_parameters()
    head = sum(p.numel() for p in policy.value_head.parameters())
    others = size + judge.num_parameters()
    expected = {
        "PPO": 4 * (size + head) + others, "GRPO": 4 * size + others, "DPO": 4 * size,
    }  # fmt: skip
    for name, numbers in expected.items():
        assert methods[name]["megabytes"] == pytest.approx(4 * numbers / 1e6)


# --- Gradients of KL ----------------------------------------------------------------


def test_only_k1_in_the_reward_and_k2_in_the_loss_have_the_gradient_of_the_kl():
    rows = {(r["estimator"], r["place"]): r for r in analysis.kl_gradients()}
    assert len(rows) == 6
    for right in (("k1", "reward"), ("k2", "loss")):
        assert rows[right]["cosine"] == pytest.approx(1)
        assert rows[right]["error"] == pytest.approx(0, abs=1e-9)
    nothing = rows["k1", "loss"]
    assert nothing["error"] == pytest.approx(1) and math.isnan(nothing["cosine"])
    for wrong in (("k2", "reward"), ("k3", "reward"), ("k3", "loss")):
        assert rows[wrong]["error"] > 0.1 and rows[wrong]["cosine"] < 0.999


# --- A price that adapts ------------------------------------------------------------


def test_the_price_finds_the_target_and_its_own_closed_form():
    path = analysis.adapt_price(1.0, beta=0.3)
    assert len(path["kl"]) == len(path["beta"]) == 300
    assert path["kl"][0] == pytest.approx(0, abs=1e-12) and path["beta"][0] == 0.3
    assert path["kl"][-1] == pytest.approx(1.0, rel=0.01)
    assert path["beta"][-1] == pytest.approx(analysis.price_of(1.0), rel=0.02)


def test_a_greater_distance_has_a_lower_price():
    prices = [analysis.price_of(target) for target in (0.1, 0.5, 1.5)]
    assert prices == sorted(prices, reverse=True)


# --- A batch ------------------------------------------------------------------------


def test_a_batch_holds_what_the_models_say_of_each_token(tiny_model, tiny_tokenizer):
    model = PolicyAndValue(tiny_model).eval()
    torch.nn.init.normal_(model.value_head.weight)
    reference = copy.deepcopy(tiny_model)
    with torch.no_grad():
        reference.model.embed_tokens.weight += 0.05
    prompts = ["Where is Oslo?", "Say it:"]
    episodes, texts = analysis.sample_batch(
        model, reference, tiny_tokenizer, prompts, seed=2, max_new_tokens=9
    )
    for row, ids in enumerate(episodes.completion_ids()):
        decoded = tiny_tokenizer.decode(ids, skip_special_tokens=True)
        assert texts[row] == decoded.strip()
        start, count = int(episodes.prompt_length[row]), len(ids)
        tokens = episodes.input_ids[row : row + 1, : start + count]
        with torch.no_grad():
            logits = tiny_model(tokens).logits[0, start - 1 : -1]
            ref_logits = reference(tokens).logits[0, start - 1 : -1]
        for actual, model_logits in (
            (episodes.old_log_probs, logits),
            (episodes.ref_log_probs, ref_logits),
        ):
            expected = model_logits.log_softmax(-1)[torch.arange(count), ids]
            given = actual[row, :count]
            torch.testing.assert_close(given, expected, rtol=1e-4, atol=1e-5)
        kl = exact_kl(logits, ref_logits)
        given = episodes.exact_kl[row, :count]
        torch.testing.assert_close(given, kl, rtol=1e-3, atol=1e-5)
    log_probs, values, _ = predict(model, episodes)
    assert log_probs.requires_grad and values.requires_grad
    torch.testing.assert_close(values.detach(), episodes.values)


# --- What a value head could know ----------------------------------------------------


def test_the_fit_is_that_of_least_squares():
    rng = np.random.default_rng(0)
    states, weights = rng.normal(size=(50, 4)) + 3, np.array([1.0, -2.0, 0.0, 0.5])
    fitted = analysis.fit_ridge(states, states @ weights + 7, ridge=1e-9)
    others = rng.normal(size=(5, 4))
    assert fitted(others) == pytest.approx(others @ weights + 7)


def test_ridge_is_data_that_says_nothing():
    """The same as least squares with rows of sqrt(ridge) that have target 0."""
    rng = np.random.default_rng(1)
    states, targets = rng.normal(size=(30, 3)), rng.normal(size=30)
    spread, gap = states - states.mean(0), targets - targets.mean()
    rows = np.vstack([spread, np.sqrt(5.0) * np.eye(3)])
    weights, *_ = np.linalg.lstsq(rows, np.append(gap, np.zeros(3)), rcond=None)
    others = rng.normal(size=(4, 3))
    expected = targets.mean() + (others - states.mean(0)) @ weights
    assert analysis.fit_ridge(states, targets, 5.0)(others) == pytest.approx(expected)


@pytest.mark.parametrize("batch_size", [2, 128])
def test_states_are_those_that_each_token_comes_from(
    tiny_model, tiny_tokenizer, batch_size
):
    prompts = ["Peru", "Is gold a metal?", "Say it:"]
    replies = ["Yes.", "No, it is not.", "a"]
    actual = list(
        analysis.value_states(tiny_model, tiny_tokenizer, prompts, replies, batch_size)
    )
    for prompt, reply, states in zip(prompts, replies, actual, strict=True):
        chat = [{"role": "user", "content": prompt}]
        prompt_text = tiny_tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True
        )
        start = tiny_tokenizer(prompt_text, add_special_tokens=False)["input_ids"]
        dialogue = tiny_tokenizer.apply_chat_template(
            [*chat, {"role": "assistant", "content": reply}], tokenize=False
        )
        ids = tiny_tokenizer(dialogue, add_special_tokens=False)["input_ids"]
        out = tiny_model(torch.tensor([ids]), output_hidden_states=True)
        expected = out.hidden_states[-1][0, len(start) - 1 : -1].detach()
        assert states.shape == expected.shape
        np.testing.assert_allclose(states, expected, rtol=1e-4, atol=1e-5)
