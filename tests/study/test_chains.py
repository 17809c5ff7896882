"""Chains: what nests in a seed and what is shared, and that each link is made of the
one before."""

import json

import numpy as np
import pytest

from alignlab.study import artifacts
from alignlab.study.chains import Chain, chain_arm, chains
from alignlab.world import gold

SETTINGS = dict(base="300k", steps=3, n_pairs=64, k=2)


def test_seeds_nest_or_share_the_reference_of_seed_0():
    nested = chains([3, 4], nested=True, **SETTINGS)
    shared = chains([3, 4], nested=False, **SETTINGS)
    assert [c["seed"] for c in nested] == [c["seed"] for c in shared] == [3, 4]
    assert [c["reference_seed"] for c in nested] == [3, 4]
    assert [c["reference_seed"] for c in shared] == [0, 0]
    for chain in (*nested, *shared):
        assert json.loads(json.dumps(chain)) == chain
        assert Chain(**chain).n_pairs == 64


@pytest.fixture
def chain(own_artifacts):
    return Chain(seed=1, reference_seed=0, **SETTINGS)


def sides(rows):
    return [(row["subject"], {row["chosen"], row["rejected"]}) for row in rows]


@pytest.mark.network
def test_the_reward_model_learns_from_the_comparisons_of_the_chain(chain, monkeypatch):
    lessons = []
    learn = artifacts.train_reward_model

    def watched(model, tokenizer, rows, **options):
        lessons.append(list(rows))
        return learn(model, tokenizer, rows, **options)

    monkeypatch.setattr(artifacts, "train_reward_model", watched)
    full = Chain(**SETTINGS | dict(seed=7, reference_seed=0))
    full.reward_model()
    full.reward_model(32)
    full.reward_model(seed=8)
    assert lessons[0] == full.comparisons()
    assert lessons[1] == full.comparisons()[:32]
    other = Chain(**SETTINGS | dict(seed=8, reference_seed=0))
    assert lessons[2] == other.comparisons() != full.comparisons()
    texts = {reply.text for one in full.replies() for reply in one.replies}
    for row in (*lessons[0], *lessons[2]):  # other comparisons of the same replies
        assert {row["chosen"], row["rejected"]} <= texts


@pytest.mark.network
def test_flips_change_labels_and_nothing_else(chain):
    right, noisy = chain.comparisons(0.0), chain.comparisons(0.5)
    assert sides(right) == sides(noisy)
    assert not any(row["noisy"] for row in right)
    turned = [pair for pair in zip(right, noisy, strict=True) if pair[1]["noisy"]]
    assert len(turned) > 3
    assert all(first["chosen"] == second["rejected"] for first, second in turned)


@pytest.mark.network
def test_held_out_comparisons_are_about_other_subjects(chain):
    rows = chain.held_out_comparisons(40)
    assert len(rows) == 40
    assert {row["subject"] for row in rows} <= set(artifacts.subjects("test"))
    trained = {row["subject"] for row in chain.comparisons()}
    assert trained <= set(artifacts.subjects("train"))


@pytest.mark.network
def test_a_policy_is_a_new_copy_each_time(chain):
    (first, _), (second, _) = chain.policy(), chain.policy()
    first.model.norm.weight.data.zero_()
    assert second.model.norm.weight.abs().min() > 0


@pytest.mark.network
def test_the_arm_describes_the_proxy_and_leaves_the_pool(chain, monkeypatch):
    arguments = dict(seed=1, reference_seed=0, **SETTINGS)
    known = chain_arm(chain=arguments, pool=3)
    model = chain.reward_model()
    proxies = artifacts.score_candidates(*model, chain.replies()[:64])
    assert known["mean"] == pytest.approx(proxies.mean())
    assert known["sd"] == pytest.approx(proxies.std())
    golds = [r.gold.total for one in chain.replies() for r in one.replies]
    assert known["gold"] == pytest.approx(np.mean(golds))
    monkeypatch.setattr(artifacts, "complete", None)  # the pool is there already
    pool = chain.replies("test", 3)
    assert [one.prompt for one in pool] == [
        gold.request(name) for name in artifacts.subjects("test")
    ]
    assert {len(one.replies) for one in pool} == {3}
