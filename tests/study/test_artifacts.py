"""What the notebooks on alignment share: disjoint prompts, paired comparisons, and
artifacts that are made once."""

import numpy as np
import pytest
import torch

from alignlab.study import artifacts
from alignlab.study.artifacts import (
    MAX_NEW_TOKENS,
    candidates,
    comparisons,
    demonstrations,
    reference_policy,
    reward_model,
    subjects,
)
from alignlab.world import comparisons as preferences
from alignlab.world import gold, tasks
from alignlab.world.annotators import Reply

pytestmark = [pytest.mark.network, pytest.mark.usefixtures("own_artifacts")]
TINY = dict(base="300k", steps=3)


def replies(*totals, subject="France"):
    """Candidates of one subject with these golds, made of form alone."""
    made = tuple(
        Reply(f"Reply {i}.", gold.Gold(t, t, 0.0, 0.0, {}))
        for i, t in enumerate(totals)
    )
    return preferences.Candidates(gold.request(subject), subject, made)


def test_subjects_are_split_in_two_and_each_has_something_to_tell():
    train, test = subjects("train"), subjects("test")
    assert not set(train) & set(test) and len(test) == artifacts.TESTED
    world = tasks.default_world()
    for name in (*train, *test):
        facts = world.about(name)
        assert any(f.known for f in facts)
        assert {world.kind_of(f) for f in facts} & {"country", "element"}
    with pytest.raises(ValueError, match="split is 'dev'"):
        subjects("dev")


def test_demonstrations_cover_every_subject_and_leave_room_to_improve():
    world = tasks.default_world()
    rows = demonstrations(world, 2, seed=0)
    names = [*subjects("train"), *subjects("test")] * 2
    assert [row["prompt"] for row in rows] == [gold.request(name) for name in names]
    assert rows == demonstrations(world, 2, seed=0) != demonstrations(world, 2, seed=1)
    golds = [
        gold.gold_reward(world, name, row["completion"])
        for name, row in zip(names, rows)
    ]
    # Qualities are 0.5 on average, so each line of form is there half of the time.
    for line in ("opening", "courtesy", "closing"):
        share = np.mean([g.details[line] for g in golds])
        assert abs(share - 0.5) < 5 * 0.5 / len(golds) ** 0.5


def test_comparisons_of_several_rates_are_about_the_same_pairs():
    rng = np.random.default_rng(0)
    some = [replies(*rng.normal(size=6), subject=s) for s in subjects("test")]
    right, noisy = comparisons(some, 600, flips=0.0), comparisons(some, 600)

    def pairs(rows):
        return [(r["subject"], {r["chosen"], r["rejected"]}) for r in rows]

    assert pairs(right) == pairs(noisy)
    assert not any(row["noisy"] for row in right)
    wrong = np.mean([row["noisy"] for row in noisy])
    assert abs(wrong - 0.25) < 5 * (0.25 * 0.75 / 600) ** 0.5
    assert comparisons(some, 100) == noisy[:100]
    with pytest.raises(ValueError, match="n is 1000, and the replies give 900"):
        comparisons(some, 1000)


def test_candidates_are_sampled_once_and_scored():
    first = candidates("test", 2, **TINY)
    assert [one.subject for one in first] == list(subjects("test"))
    assert all(len(one.replies) == 2 for one in first)
    assert len({reply.text for one in first for reply in one.replies}) > len(first)
    world = tasks.default_world()
    for one in first[:5]:
        for reply in one.replies:
            assert reply.gold == gold.gold_reward(world, one.subject, reply.text)
    assert candidates("test", 2, **TINY) == first


def test_reward_model_has_the_trunk_of_the_policy_and_is_kept(monkeypatch):
    options = dict(k=2, epochs=1, **TINY)
    model, tokenizer = reward_model(64, **options)
    policy, spelling = reference_policy(**TINY)
    assert model.config.hidden_size == policy.config.hidden_size
    assert model.config.num_labels == 1
    assert tokenizer.chat_template == spelling.chat_template
    monkeypatch.setattr(artifacts, "train_reward_model", None)  # kept, so not needed
    again, _ = reward_model(64, **options)
    for name, value in model.state_dict().items():
        assert (value == again.state_dict()[name]).all()


def test_a_best_reply_fits_into_the_tokens_that_a_policy_gets():
    _, tokenizer = reference_policy(**TINY)
    world, rng = tasks.default_world(), np.random.default_rng(0)
    lengths = [
        len(tokenizer(gold.demonstration(world, name, rng, quality=1.0)).input_ids)
        for name in subjects("train")
    ]
    assert np.mean(np.array(lengths) < MAX_NEW_TOKENS) > 0.95


def test_sharpening_divides_the_logits_by_the_temperature(tiny_model):
    ids = torch.arange(5, 15)[None]
    with torch.no_grad():
        before = tiny_model(ids).logits.double()
        artifacts.sharpen(tiny_model, 0.7)
        after = tiny_model(ids).logits.double()
    assert torch.allclose(after * 0.7, before, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(after, before, rtol=0.1)
