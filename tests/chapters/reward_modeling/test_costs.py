"""What comparisons and demonstrations cost and say, by hand and by closed forms."""

import numpy as np
import pytest
import torch

from alignlab.chapters.reward_modeling import costs
from alignlab.study import artifacts, scale
from alignlab.world import gold
from alignlab.world.tasks import default_world

PACE = costs.Pace(reading=60.0, composing=6.0, choosing=2.0)  # a word a second, or ten


def test_reading_is_quick_and_writing_slow(tiny_tokenizer):
    pairs = [
        {"prompt": "Say it.", "chosen": "Oslo.", "rejected": "No no."},  # 2 + 1 + 2
        {"prompt": "Say it.", "chosen": "a b c d", "rejected": "e"},  # 2 + 4 + 1
    ]
    found = costs.comparison_cost(pairs, tiny_tokenizer, PACE)
    assert found["words"] == 6 and found["seconds"] == 6 + 2
    rows = [{"prompt": "Say it.", "completion": "a b c"}]
    found = costs.demonstration_cost(rows, tiny_tokenizer, PACE)
    assert found["words"] == 5 and found["seconds"] == 2 + 30
    tokens = (
        tiny_tokenizer("Say it.")["input_ids"] + tiny_tokenizer("a b c")["input_ids"]
    )
    special = set(tiny_tokenizer.all_special_ids)
    assert found["tokens"] == len([t for t in tokens if t not in special])


@pytest.mark.parametrize("flips", [0.1, 0.25, 0.4])
def test_bits_of_a_label_are_the_capacity_of_a_noisy_channel(flips):
    # Mutual information of a fair coin and the label, from the joint distribution.
    joint = np.array([[1 - flips, flips], [flips, 1 - flips]]) / 2
    expected = (joint * np.log2(joint / 0.25)).sum()
    assert costs.label_bits(flips) == pytest.approx(expected)


def test_sure_labels_say_one_bit_and_tossed_ones_nothing():
    assert costs.label_bits(0.0) == 1.0 == costs.label_bits(1.0)
    assert costs.label_bits(0.5) == pytest.approx(0)


def test_surprise_is_in_bits(tiny_model, tiny_tokenizer):
    rows = [{"prompt": "Say it.", "completion": "Oslo."}]
    bits = costs.surprise_bits(tiny_model, tiny_tokenizer, rows)
    nats = costs.log_probs(tiny_model, tiny_tokenizer, ["Say it."], ["Oslo."])
    assert bits == pytest.approx(-np.nansum(nats) / np.log(2))
    assert bits > 0


def test_good_demonstrations_are_about_training_subjects_and_cannot_be_better():
    names = artifacts.subjects("train")
    rows = costs.good_demonstrations(len(names) + 5, seed=1)
    assert len(rows) == len(names) + 5
    asked = [row["prompt"] for row in rows]
    assert set(asked[: len(names)]) == {gold.request(name) for name in names}
    world, subject_of = default_world(), {gold.request(n): n for n in names}
    golds = [
        gold.gold_reward(world, subject_of[row["prompt"]], row["completion"])
        for row in rows
    ]
    assert min(g.total for g in golds) > 0
    assert not any(g.details["wrong"] + g.details["repeat"] for g in golds)
    assert rows == costs.good_demonstrations(len(names) + 5, seed=1)
    assert rows != costs.good_demonstrations(len(names) + 5, seed=2)


def test_writing_moves_the_policy_and_its_replies_are_judged(
    tiny_model, tiny_tokenizer, monkeypatch
):
    import copy

    policy = copy.deepcopy(tiny_model)
    start = policy.lm_head.weight.detach().clone()
    monkeypatch.setattr(
        artifacts,
        "reference_policy",
        lambda base, steps, seed: (policy, tiny_tokenizer),
    )
    monkeypatch.setitem(scale.RATES["demonstrations"], "tiny", 1e-2)
    monkeypatch.setattr(artifacts, "MAX_NEW_TOKENS", 4)
    monkeypatch.setattr(costs, "TEST_REPLIES", 2)
    found = costs.writing_arm(
        n=4, epochs=2, seed=0, base="tiny", steps=1, reference_seed=0
    )
    golds = np.array(found["golds"])
    assert golds.shape == (len(artifacts.subjects("test")), 2)
    assert np.isfinite(golds).all()
    assert not torch.equal(policy.lm_head.weight, start)
