"""The measure of a policy, against exact enumeration and against its parts by hand."""

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
from alignlab.study.measure import kl_and_entropy, measure, token_kl_and_entropy
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
    sums = [
        torch.stack([kls.sum(), entropies.sum()])
        for kls, entropies in token_kl_and_entropy(
            policy,
            reference,
            tokenizer,
            [PROMPT] * len(completions),
            as_replies(completions),
            batch_size=1,
        )
    ]
    kl, entropy = p.double() @ torch.stack(sums).double()
    assert kl.item() == pytest.approx(exact.kl(p, q).item(), rel=1e-4)
    # Entropies of the tokens add up to that of whole completions.
    assert entropy.item() == pytest.approx(-torch.xlogy(p, p).sum().item(), rel=1e-4)


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


@pytest.mark.parametrize("batch_size", [1, 7, 100])
def test_padding_changes_nothing(laboratory, batch_size):
    policy, reference, tokenizer, completions, _, _ = laboratory
    prompts = ["a b", "b a c a"] * len(completions)
    replies = [reply for reply in as_replies(completions) for _ in range(2)]
    found = kl_and_entropy(
        policy, reference, tokenizer, prompts, replies, batch_size=batch_size
    )
    expected = [0.0, 0.0]
    for prompt, reply in zip(prompts, replies):
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
        expected[0] += exact_kl(logits, ref_logits).sum().item()
        expected[1] -= (log_p.exp() * log_p).sum().item()
    expected[0] /= len(replies)
    expected[1] /= sum(len(reply.tokens) for reply in replies)
    assert found == pytest.approx(expected, rel=1e-4)


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


@pytest.mark.network
def test_every_number_is_that_of_the_sampled_replies(
    two_subjects, tiny_model, tiny_tokenizer
):
    reference, _ = tiny_model, tiny_tokenizer
    judge = reward_model_from(tiny_model, seed=0)
    found = measure(
        tiny_model, tiny_tokenizer, reference, seed=5, n=3, reward_model=judge
    )
    json.dumps(found)
    subjects = ["Peru"] * 3 + ["argon"] * 3
    prompts = [gold.request(name) for name in subjects]
    replies = complete(tiny_model, tiny_tokenizer, prompts, 12, 1.0, seed=5)
    texts = [reply.text for reply in replies]
    world = tasks.default_world()
    rewards = [gold.gold_reward(world, *pair) for pair in zip(subjects, texts)]
    totals = [reward.total for reward in rewards]
    assert found["golds"] == pytest.approx([np.mean(totals[:3]), np.mean(totals[3:])])
    assert found["gold"] == pytest.approx(np.mean(totals))
    for part in gold.PARTS:
        expected = np.mean([getattr(reward, part) for reward in rewards])
        assert found[part] == pytest.approx(expected)
    proxies = score(judge, tiny_tokenizer, prompts, texts)
    assert found["proxy"] == pytest.approx(proxies.mean(), rel=1e-5)
    assert found["kl"] == 0 and found["entropy"] > 0
    assert found["length"] == np.mean([len(reply.tokens) for reply in replies])
    assert found["ended"] == np.mean([reply.ended for reply in replies])
    tokens = [tiny_tokenizer(t, add_special_tokens=False)["input_ids"] for t in texts]
    by_prompt = per_input_diversity([tokens[:3], tokens[3:]], len(tiny_tokenizer))
    assert found["diversity"] == pytest.approx(np.nanmean(by_prompt))


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
