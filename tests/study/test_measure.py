"""The measure of a policy, against exact enumeration and against its parts by hand."""

import copy
import json
import math

import numpy as np
import pytest
import torch

from alignlab.evaluation import exact
from alignlab.evaluation.diversity import per_input_diversity
from alignlab.models.reward import reward_model_from, score
from alignlab.models.sampler import Completion, complete
from alignlab.objectives import exact_kl
from alignlab.study import artifacts
from alignlab.study.measure import (
    evaluate_policy,
    kl_and_entropy,
    measure,
    sample_and_judge,
    sums_over_tokens,
)
from alignlab.study.scale import cap
from alignlab.training.ppo import rollout
from alignlab.world import gold, tasks

PROMPT, LENGTH = "a b", 3


@pytest.fixture(scope="module")
def laboratory():
    """Two policies over three words, every completion, and their probabilities."""
    policy, tokenizer = exact.few_word_model(words=3, seed=3)
    reference, _ = exact.few_word_model(words=3, seed=4)
    completions = exact.every_completion(len(tokenizer), LENGTH)
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": PROMPT}], tokenize=False
    )
    prompt = tokenizer(text)["input_ids"]
    with torch.no_grad():
        p, q = (
            exact.log_probs_of_all(model, prompt, completions).exp()
            for model in (policy, reference)
        )
    return policy, reference, tokenizer, completions, p, q


def as_replies(completions):
    return [Completion("", list(tokens), tokens[-1] == 0) for tokens in completions]


def test_weighted_by_their_probability_all_completions_give_the_exact_numbers(
    laboratory,
):
    policy, reference, tokenizer, completions, p, q = laboratory
    prompts = [PROMPT] * len(completions)
    replies = as_replies(completions)
    kls, entropies = sums_over_tokens(policy, reference, tokenizer, prompts, replies)
    weights = p.double().numpy()
    assert weights @ kls == pytest.approx(exact.kl(p, q).item(), rel=1e-4)
    # Entropies of the tokens add up to that of whole completions.
    entropy = -torch.xlogy(p, p).sum().item()
    assert weights @ entropies == pytest.approx(entropy, rel=1e-4)


def test_sampled_replies_give_them_within_chance(laboratory):
    policy, reference, tokenizer, completions, p, q = laboratory
    mean_length = (p * torch.tensor([float(len(c)) for c in completions])).sum()
    truth = exact.kl(p, q).item(), (-torch.xlogy(p, p).sum() / mean_length).item()
    estimates = []
    for seed in range(10):
        replies = complete(policy, tokenizer, [PROMPT] * 400, LENGTH, 1.0, seed=seed)
        prompts = [PROMPT] * 400
        estimates.append(kl_and_entropy(policy, reference, tokenizer, prompts, replies))
    errors = np.std(estimates, axis=0, ddof=1) / math.sqrt(10)
    assert (np.abs(np.mean(estimates, axis=0) - truth) < 3 * errors + 1e-4).all()
    assert (errors < 0.03 * np.array(truth)).all()
    itself = kl_and_entropy(policy, policy, tokenizer, prompts, replies)
    assert itself == (0, estimates[-1][1])


@pytest.mark.parametrize("limit", [1, 40, 10_000], ids="{} tokens at once".format)
def test_padding_changes_nothing(laboratory, monkeypatch, limit):
    monkeypatch.setattr(rollout, "GROUP_LIMIT", {"cpu": limit})
    policy, reference, tokenizer, completions, _, _ = laboratory
    prompts = ["a b", "b a c a"] * len(completions)
    replies = [reply for reply in as_replies(completions) for _ in range(2)]
    measured = sums_over_tokens(policy, reference, tokenizer, prompts, replies)
    for prompt, reply, *sums in zip(prompts, replies, *measured, strict=True):
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False
        )
        ids = tokenizer(text)["input_ids"]
        start = len(ids) - 1
        with torch.no_grad():
            logits, ref_logits = (
                model(torch.tensor([ids + reply.tokens])).logits[0, start:-1]
                for model in (policy, reference)
            )
        log_p = logits.log_softmax(-1)
        kl = exact_kl(logits, ref_logits).sum().item()
        entropy = -(log_p.exp() * log_p).sum().item()
        assert sums == pytest.approx([kl, entropy], rel=1e-3, abs=1e-6)
    tokens = sum(len(reply.tokens) for reply in replies)
    means = kl_and_entropy(policy, reference, tokenizer, prompts, replies)
    assert means[0] == pytest.approx(measured[0].mean())
    assert means[1] == pytest.approx(measured[1].sum() / tokens)


def test_as_many_replies_as_prompts_are_needed(laboratory):
    policy, reference, tokenizer, completions, _, _ = laboratory
    with pytest.raises(ValueError, match="there is none"):
        kl_and_entropy(policy, reference, tokenizer, [], [])
    with pytest.raises(ValueError):
        kl_and_entropy(policy, reference, tokenizer, [PROMPT], as_replies(completions))


@pytest.fixture
def two_subjects(monkeypatch):
    subjects = {"test": ("Peru", "argon"), "train": ("France",)}
    monkeypatch.setattr(artifacts, "subjects", subjects.get)
    monkeypatch.setattr(artifacts, "MAX_NEW_TOKENS", 12)


@pytest.fixture
def moved(tiny_model):
    """A policy other than ``tiny_model``, with dropout that is on."""
    policy = copy.deepcopy(tiny_model)
    with torch.no_grad():
        policy.lm_head.weight += 0.01
    for layer in policy.model.layers:
        layer.self_attn.attention_dropout = 0.5
    return policy.train()


@pytest.mark.network
def test_every_number_is_that_of_the_sampled_replies(
    two_subjects, tiny_model, tiny_tokenizer
):
    judge = reward_model_from(tiny_model, seed=0)
    arguments = tiny_model, tiny_tokenizer, tiny_model
    known = evaluate_policy(*arguments, seed=5, n=3, proxy=judge)
    means = measure(*arguments, seed=5, n=3, proxy=judge)
    json.dumps([known, means])
    subjects = ["Peru"] * 3 + ["argon"] * 3
    prompts = [gold.request(name) for name in subjects]
    longest = cap(tiny_tokenizer, 12)
    replies = complete(tiny_model, tiny_tokenizer, prompts, longest, 1.0, seed=5)
    texts = [reply.text for reply in replies]
    assert known["texts"] == [texts[:3], texts[3:]]
    world = tasks.default_world()
    rewards = [gold.gold_reward(world, *pair) for pair in zip(subjects, texts)]
    totals = [reward.total for reward in rewards]
    assert known["golds"] == [totals[:3], totals[3:]]
    assert means["golds"] == pytest.approx([np.mean(totals[:3]), np.mean(totals[3:])])
    assert means["gold"] == pytest.approx(np.mean(totals))
    for part in gold.PARTS:
        values = [getattr(reward, part) for reward in rewards]
        assert known[part] == [values[:3], values[3:]]
        assert means[part] == pytest.approx(np.mean(values))
    proxies = score(judge, tiny_tokenizer, prompts, texts)
    assert np.ravel(known["proxies"]) == pytest.approx(proxies, rel=1e-4, abs=1e-6)
    assert means["proxy"] == np.mean(known["proxies"])
    assert known["kl"] == 0 and known["entropy"] > 0
    assert known["length"] == np.mean([len(reply.tokens) for reply in replies])
    assert known["ended"] == np.mean([reply.ended for reply in replies])
    same = ("kl", "entropy", "length", "ended")
    assert [means[name] for name in same] == [known[name] for name in same]
    tokens = [tiny_tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    by_prompt = per_input_diversity([tokens[:3], tokens[3:]], len(tiny_tokenizer))
    assert means["diversity"] == pytest.approx(np.nanmean(by_prompt))


@pytest.mark.network
def test_a_proxy_may_be_a_function_of_requests_and_replies(
    two_subjects, tiny_model, tiny_tokenizer
):
    def longest_wins(prompts, completions):
        assert prompts == [gold.request("Peru")] * 2 + [gold.request("argon")] * 2
        return np.array([len(text) for text in completions])

    known = evaluate_policy(
        tiny_model, tiny_tokenizer, tiny_model, seed=0, n=2, proxy=longest_wins
    )
    assert known["proxies"] == [[len(t) for t in row] for row in known["texts"]]


@pytest.mark.network
def test_training_does_not_see_that_it_is_measured(
    two_subjects, tiny_model, tiny_tokenizer, moved
):
    judge = reward_model_from(tiny_model, seed=0).train()
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    measured = measure(moved, tiny_tokenizer, tiny_model, seed=0, n=2, proxy=judge)
    assert torch.equal(torch.rand(4), expected)
    for model in (moved, judge):
        assert all(module.training for module in model.modules())
    assert not any(module.training for module in tiny_model.modules())
    layers = zip(moved.modules(), tiny_model.modules(), strict=True)
    assert all(type(layer) is type(other) for layer, other in layers), "plain again"
    # No dropout meanwhile: the same numbers as in evaluation mode.
    plain = [moved.eval(), tiny_tokenizer, tiny_model]
    assert measure(*plain, seed=0, n=2, proxy=judge.eval()) == measured


@pytest.mark.network
def test_at_another_temperature_replies_are_judged_alike(
    two_subjects, tiny_model, tiny_tokenizer
):
    replies, columns = sample_and_judge(
        tiny_model, tiny_tokenizer, seed=0, n=2, temperature=0.0
    )
    assert [row[0] for row in columns["texts"]] == [row[1] for row in columns["texts"]]
    assert [reply.text for reply in replies] == sum(columns["texts"], [])
    varied = sample_and_judge(tiny_model, tiny_tokenizer, seed=0, n=2, temperature=2.0)
    assert varied[1]["texts"] != columns["texts"]


@pytest.mark.network
def test_the_split_the_seed_and_n_are_heeded(two_subjects, tiny_model, tiny_tokenizer):
    def measured(**options):
        return measure(tiny_model, tiny_tokenizer, tiny_model, **options)

    train = measured(seed=0, n=2, split="train")
    assert len(train["golds"]) == 1 and "proxy" not in train
    same, other = measured(seed=1, n=2), measured(seed=2, n=2)
    assert same == measured(seed=1, n=2) and same["entropy"] != other["entropy"]
    with pytest.raises(ValueError, match="n is 0"):
        measured(seed=0, n=0)
