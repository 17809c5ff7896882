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


def end(seed=0, gold=1.0, kl=1.0, stopped=None, **others):
    return dict(seed=seed, gold=gold, kl=kl, stopped=stopped, **others)


START = [end(seed=0, gold=2.0, kl=0.0), end(seed=1, gold=3.0, kl=0.0)]


def test_a_gain_is_over_the_start_of_the_same_seed():
    rows = [end(seed=1, gold=3.5), end(seed=0, gold=3.5)]
    assert analysis.gain(rows, START, "gold").tolist() == [0.5, 1.5]


@pytest.mark.parametrize(
    "row, expected",
    [
        (end(gold=2.1), False),
        (end(gold=2.0), False),
        (end(gold=1.9), True),
        (end(seed=1, gold=2.1), True),
        (end(gold=9.0, kl=15.0), False),
        (end(gold=9.0, kl=15.1), True),
        (end(gold=9.0, kl=math.nan), True),
        (end(gold=math.nan), True),
        ({"seed": 0, "stopped": "the loss is inf"}, True),
    ],
)
def test_what_counts_as_a_failure(row, expected):
    assert analysis.failed(row, START) is expected


def test_rates_and_spreads_are_by_seed():
    rows = [end(0, 4.0), end(0, 1.0), end(1, 3.0), end(1, 3.5)]
    assert analysis.failure_rates(rows, START) == {0: 0.5, 1: 0.0}
    assert analysis.gold_spreads(rows, START) == {0: 3.0, 1: 0.5}
    stopped = {"seed": 1, "stopped": "inf"}
    assert analysis.gold_spreads([*rows, stopped], START) == {0: 3.0, 1: 0.5}
    assert analysis.gold_spreads([rows[3], stopped], START) == {1: 0.5}, (
        "no better than start"
    )


def test_the_height_of_a_curve_is_its_mean_over_kl():
    # A straight line from 1 to 3 over 4 nats; its updates may come in any order of KL.
    kl, values = [0, 1, 4, 2], [1, 1.5, 3, 2]
    assert analysis.mean_over_kl(kl, values, 4) == pytest.approx(2)
    assert analysis.mean_over_kl(kl, values, 2) == pytest.approx(1.5)
    steps = analysis.mean_over_kl([0, 1, 1, 2], [0, 0, 6, 6], 2, points=20_001)
    assert steps == pytest.approx(3, rel=1e-3)
    with pytest.raises(ValueError, match="ends at 4 nats, before 5"):
        analysis.mean_over_kl(kl, values, 5)


def test_a_piece_is_worth_what_is_lost_at_equal_kl():
    def run(seed, kl, values):
        return {"seed": seed, "history": {"kl_exact": kl, "reward/gold": values}}

    intact = [run(0, [0, 4], [1, 5]), run(1, [0, 2], [0, 4]), run(2, [0, 1], [0, 9])]
    # Half as steep, and further away: only the range that both reach counts.
    ablated = [run(1, [0, 8], [0, 8]), run(0, [0, 2], [1, 2])]
    lost = analysis.lost_at_matched_kl(intact, ablated)
    assert lost == pytest.approx([2 - 1.5, 2 - 1])
    assert analysis.lost_at_matched_kl(intact, intact) == pytest.approx([0, 0, 0])


def test_growth_is_over_the_last_third():
    assert analysis.late_growth([0, 1, 2, 3, 3, 3, 3, 3.5, 4]) == pytest.approx(1.0)
    assert analysis.late_growth([0, 5, 5, 5]) == 0
    assert analysis.late_growth([0, 5]) == 5
    assert analysis.late_growth([3]) == 0


def test_costs_count_what_is_held_and_seconds_per_completion(tiny_model):
    seconds = {
        "PPO": [dict(seed=0, seconds=32.0), dict(seed=1, seconds=96.0)],
        "DPO": [dict(seed=0, seconds=16.0)],
    }
    assert analysis.seconds_per_completion(seconds["PPO"]) == {0: 0.5, 1: 1.5}
    judge = reward_model_from(tiny_model)
    policy = PolicyAndValue(copy.deepcopy(tiny_model))
    ppo, dpo = analysis.costs(seconds, policy, tiny_model, judge)
    assert ppo["completions/s"] == 1.0 and dpo["completions/s"] == 4.0
    assert (ppo["held"], dpo["held"]) == (3, 1)
    size = tiny_model.num_parameters()
    head = sum(p.numel() for p in policy.value_head.parameters())
    assert dpo["megabytes"] == pytest.approx(4 * 4 * size / 1e6)
    others = size + judge.num_parameters()
    assert ppo["megabytes"] == pytest.approx(4 * (4 * (size + head) + others) / 1e6)


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


# --- One reply ----------------------------------------------------------------------


def test_an_episode_holds_what_the_models_say_of_each_token(tiny_model, tiny_tokenizer):
    model = PolicyAndValue(tiny_model).eval()
    torch.nn.init.normal_(model.value_head.weight)
    reference = copy.deepcopy(tiny_model)
    with torch.no_grad():
        reference.model.embed_tokens.weight += 0.05
    episode, tokens = analysis.sample_reply(
        model, reference, tiny_tokenizer, "Where is Oslo?", seed=2, max_new_tokens=9
    )
    [ids] = episode.completion_ids()
    assert tokens == [tiny_tokenizer.decode([i]) for i in ids]
    start = int(episode.prompt_length)
    with torch.no_grad():
        logits = tiny_model(episode.input_ids).logits[0, start - 1 : -1]
        ref_logits = reference(episode.input_ids).logits[0, start - 1 : -1]
    for actual, model_logits in (
        (episode.old_log_probs, logits),
        (episode.ref_log_probs, ref_logits),
    ):
        expected = model_logits.log_softmax(-1)[torch.arange(len(ids)), ids]
        torch.testing.assert_close(actual[0], expected, rtol=1e-4, atol=1e-5)
    kl = exact_kl(logits, ref_logits)
    torch.testing.assert_close(episode.exact_kl[0], kl, rtol=1e-3, atol=1e-5)
    log_probs, values, _ = predict(model, episode)
    assert log_probs.requires_grad and values.requires_grad
    torch.testing.assert_close(values.detach(), episode.values)


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
