"""The exact laboratory against algebra, enumeration and simulation; and a transformer
that DPO drives to the optimum it computes."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch

from alignlab.evaluation.exact import (
    best_of_n,
    best_of_n_kl,
    bradley_terry,
    every_completion,
    expected_dpo_loss,
    few_word_model,
    fit_policy,
    ipo_optimum,
    kl,
    log_partition,
    log_probs_of_all,
    optimal_policy,
    regularised_reward,
    total_variation,
)
from alignlab.models.sampler import complete, sample
from alignlab.objectives import implicit_reward
from alignlab.training.loop import train

BETA = 0.5
# Three completions; the first always beats the others, the second the third.
CERTAIN = [[0.5, 1.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]]
UNIFORM = [1 / 3, 1 / 3, 1 / 3]


@pytest.fixture
def bandit():
    """A reference and a reward over 12 completions."""
    random = np.random.default_rng(0)
    return random.dirichlet(np.ones(12)), 2 * random.standard_normal(12)


# --- policies as probabilities --------------------------------------------------------


def test_the_optimum_is_reference_times_exponential_written_out(bandit):
    reference, reward = bandit
    weights = [p * math.exp(r / BETA) for p, r in zip(*bandit, strict=True)]
    found = optimal_policy(reference, reward, BETA)
    assert found.tolist() == pytest.approx(
        [w / math.fsum(weights) for w in weights], rel=1e-10
    )
    log_z = log_partition(reference, reward, BETA).item()
    assert log_z == pytest.approx(math.log(math.fsum(weights)), rel=1e-12)


def test_no_policy_has_more_regularised_reward_than_the_optimum(bandit):
    reference, reward = bandit
    best = optimal_policy(reference, reward, BETA)
    top = regularised_reward(best, reference, reward, BETA).item()
    assert top == pytest.approx(BETA * log_partition(reference, reward, BETA).item())
    random = np.random.default_rng(1)
    for other in random.dirichlet(np.ones(12), size=50):
        for step in (1e-3, 1.0):
            near = (1 - step) * best.numpy() + step * other
            assert regularised_reward(near, reference, reward, BETA) < top
    climbed = fit_policy(
        lambda policy: -regularised_reward(policy.exp(), reference, reward, BETA),
        reference,
    )
    assert total_variation(climbed, best) < 1e-4


def test_the_reward_can_be_read_back_from_the_optimum_up_to_a_constant(bandit):
    reference, reward = (torch.as_tensor(x) for x in bandit)
    best = optimal_policy(reference, reward, BETA)
    constant = reward - implicit_reward(best.log(), reference.log(), BETA)
    expected = BETA * log_partition(reference, reward, BETA)
    torch.testing.assert_close(constant, expected.expand(12))


def test_beta_runs_from_the_best_completion_to_the_reference(bandit):
    reference, reward = bandit
    assert optimal_policy(reference, reward, 1e-3).argmax() == reward.argmax()
    assert optimal_policy(reference, reward, 1e-3).max() > 1 - 1e-9
    assert total_variation(optimal_policy(reference, reward, 1e6), reference) < 1e-5
    distances = [
        kl(optimal_policy(reference, reward, b), reference) for b in (4, 1, 0.2)
    ]
    assert distances == sorted(distances)


def test_kl_and_total_variation_are_their_sums(bandit):
    p, q = bandit[0], optimal_policy(*bandit, BETA).tolist()
    divergence = math.fsum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
    assert kl(p, q).item() == pytest.approx(divergence, rel=1e-10)
    distance = math.fsum(abs(a - b) for a, b in zip(p, q, strict=True)) / 2
    assert total_variation(p, q).item() == pytest.approx(distance, rel=1e-12)
    assert kl([0.5, 0.5, 0.0], [0.25, 0.5, 0.25]).item() == pytest.approx(
        math.log(2) / 2
    )
    assert kl([0.5, 0.5], [1.0, 0.0]).item() == math.inf
    assert total_variation([1.0, 0.0], [0.0, 1.0]).item() == 1


def test_many_policies_go_at_once_and_gradients_pass(bandit):
    reference, reward = bandit
    many = torch.stack([optimal_policy(reference, reward, b) for b in (0.5, 2.0)])
    assert kl(many, reference).shape == (2,)
    logits = torch.randn(12, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda z: regularised_reward(z.softmax(0), reference, reward, BETA), logits
    )


# --- best of n ------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("ties", [False, True])
def test_best_of_n_is_the_enumeration_of_all_samples(n, ties):
    reference = np.array([0.5, 0.2, 0.2, 0.1])
    reward = [1.0, 3.0, 3.0 if ties else -2.0, 2.0]
    expected = np.zeros(4)
    for draws in itertools.product(range(4), repeat=n):
        highest = max(reward[y] for y in draws)
        winners = [y for y in draws if reward[y] == highest]
        for y in winners:
            expected[y] += reference[list(draws)].prod() / len(winners)
    found = best_of_n(reference, reward, n)
    assert found.tolist() == pytest.approx(expected.tolist(), rel=1e-12)


def test_the_best_of_many_is_the_best_and_nothing_is_lost_on_the_way():
    random = np.random.default_rng(0)
    reference, reward = random.dirichlet(np.ones(2000)), random.standard_normal(2000)
    for n in (1, 10, 1000, 10**6):
        found = best_of_n(reference, reward, n)
        assert found.sum().item() == pytest.approx(1, abs=1e-12) and (found >= 0).all()
    assert total_variation(best_of_n(reference, reward, 1), reference) < 1e-12
    assert found[reward.argmax()] > 0.9
    unreachable = best_of_n([0.5, 0.5, 0.0], [1.0, 2.0, 3.0], 4)
    assert unreachable.tolist() == pytest.approx([1 / 16, 15 / 16, 0])


@pytest.mark.parametrize(
    "n, nats", [(2, 0.193), (4, 0.636), (16, 1.835), (64, 3.175), (1024, 5.932)]
)
def test_its_kl_is_the_closed_form_where_nothing_ties_and_below_it_elsewhere(n, nats):
    assert best_of_n_kl(n) == pytest.approx(nats, abs=5e-4)
    count = 200_000
    uniform, reward = np.full(count, 1 / count), np.arange(count)
    exact = kl(best_of_n(uniform, reward, n), uniform).item()
    assert exact < best_of_n_kl(n) and exact == pytest.approx(nats, abs=0.01)
    coarse = kl(best_of_n(uniform, reward // (count // 10), n), uniform).item()
    assert coarse < 0.995 * exact


# --- unlimited comparisons ------------------------------------------------------------


@pytest.mark.parametrize("drawn_from", ["all alike", "the reference"])
def test_dpo_on_unlimited_comparisons_finds_the_optimum(bandit, drawn_from):
    reference, reward = bandit
    log_reference = torch.as_tensor(reference).log()
    preferences = bradley_terry(reward)
    mu = None if drawn_from == "all alike" else reference
    found = fit_policy(
        lambda policy: expected_dpo_loss(
            policy, log_reference, preferences, BETA, drawn_from=mu
        ),
        reference,
    )
    best = optimal_policy(reference, reward, BETA)
    assert total_variation(found, best) < 1e-5 < 0.1 < total_variation(best, reference)


def test_the_expected_loss_is_the_mean_over_sampled_comparisons(bandit):
    reference, reward = bandit
    policy = optimal_policy(reference, reward, 2.0).log()
    log_reference = torch.as_tensor(reference).log()
    expected = expected_dpo_loss(
        policy, log_reference, bradley_terry(reward), BETA, drawn_from=reference
    ).item()
    random = np.random.default_rng(2)
    first, second = random.choice(12, size=(2, 400_000), p=reference)
    first, second = first[first != second], second[first != second]
    wins = random.random(len(first)) < 1 / (1 + np.exp(reward[second] - reward[first]))
    chosen, rejected = np.where(wins, (first, second), (second, first))
    ratio = (policy - log_reference).numpy()
    losses = np.log1p(np.exp(-BETA * (ratio[chosen] - ratio[rejected])))
    error = losses.std() / math.sqrt(len(losses))
    assert abs(losses.mean() - expected) < 4 * error < 0.01 * expected


def test_on_certain_preferences_ipo_stops_where_dpo_does_not():
    log_uniform = torch.tensor(UNIFORM, dtype=torch.float64).log()

    def fitted(loss_type, rate=0.0):
        return fit_policy(
            lambda policy: expected_dpo_loss(
                policy, log_uniform, CERTAIN, 0.1, loss_type, rate
            ),
            UNIFORM,
        )

    ipo = fitted("ipo")
    assert ipo.tolist() == pytest.approx([0.9644, 0.0344, 0.0012], abs=5e-5)
    margins = ipo.log().diff()
    assert margins.tolist() == pytest.approx([-10 / 3, -10 / 3], rel=1e-6)
    assert total_variation(ipo, ipo_optimum(UNIFORM, CERTAIN, 0.1)) < 1e-8
    assert fitted("sigmoid")[1] < 1e-30  # on its way to (1, 0, 0)
    # A finite margin, but at this beta still as good as one completion.
    cdpo = fitted("sigmoid", 0.1)
    assert 1e-12 < cdpo[1] < 1e-6
    pair = torch.tensor([0.5, 0.5], dtype=torch.float64)
    two = fit_policy(
        lambda policy: expected_dpo_loss(
            policy, pair.log(), [[0.5, 1.0], [0.0, 0.5]], 0.5, label_smoothing=0.1
        ),
        pair,
    )
    assert (two[0] / two[1]).log().item() == pytest.approx(math.log(9) / 0.5, rel=1e-6)


def test_ipos_optimum_is_that_of_its_loss_and_depends_on_the_rivals(bandit):
    reference, reward = bandit
    preferences = bradley_terry(reward)
    rivals = np.random.default_rng(3).dirichlet(np.ones(12))
    log_reference = torch.as_tensor(reference).log()
    for mu in (None, rivals):
        found = fit_policy(
            lambda policy, mu=mu: expected_dpo_loss(
                policy, log_reference, preferences, BETA, "ipo", drawn_from=mu
            ),
            reference,
        )
        assert (
            total_variation(found, ipo_optimum(reference, preferences, BETA, mu)) < 1e-6
        )
    assert total_variation(found, ipo_optimum(reference, preferences, BETA)) > 1e-3


# --- a transformer over a few words ---------------------------------------------------


def test_every_completion_is_there_once_and_their_probabilities_add_up_to_one():
    model, _ = few_word_model(words=3)
    completions = every_completion(4, 3)
    assert len(set(completions)) == len(completions) == 1 + 3 + 9 + 27
    assert all(0 not in body[:-1] for body in completions)
    assert all(len(body) == 3 or body[-1] == 0 for body in completions)
    with torch.no_grad():
        probabilities = log_probs_of_all(model, [1, 2], completions).exp()
        one = model(torch.tensor([[1, 2, 3]])).logits[0].log_softmax(-1)
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    assert probabilities.min() > 1e-5
    expected = (one[1, 3] + one[2, 0]).exp().item()
    assert probabilities[completions.index((3, 0))].item() == pytest.approx(expected)


def test_the_sampler_draws_from_the_enumerated_policy_and_text_tells_them_apart():
    model, tokenizer = few_word_model(words=3)
    completions = every_completion(len(tokenizer), 3)
    texts = [tokenizer.decode(c, skip_special_tokens=True) for c in completions]
    assert len(set(texts)) == len(texts)
    prompts = 20_000 * [[{"role": "user", "content": "a b"}]]
    replies = complete(
        model,
        tokenizer,
        prompts,
        max_new_tokens=3,
        temperature=1.0,
        seed=0,
        batch_size=20_000,
    )
    counts = dict.fromkeys(texts, 0)
    for reply in replies:
        counts[reply.text] += 1
    with torch.no_grad():
        probabilities = log_probs_of_all(model, [1, 2], completions).exp()
    expected = 20_000 * probabilities.double().numpy()
    found = np.array([counts[text] for text in texts])
    chi_square = ((found - expected) ** 2 / expected).sum()
    assert chi_square < 40 + 4 * math.sqrt(2 * 40)  # mean 39, standard deviation 8.8


def test_a_chat_is_its_words_and_a_reply_ends_in_the_ending_token():
    _, tokenizer = few_word_model()
    chat = [
        {"role": "user", "content": "a b"},
        {"role": "assistant", "content": "c a"},
    ]
    text = tokenizer.apply_chat_template(chat, tokenize=False)
    assert tokenizer(text)["input_ids"] == [1, 2, 3, 1, 0]
    asked = tokenizer.apply_chat_template(
        chat[:1], tokenize=False, add_generation_prompt=True
    )
    assert tokenizer(asked)["input_ids"] == [1, 2]


def test_dpo_drives_a_transformer_to_the_exact_optimum():
    """Unlimited Bradley–Terry comparisons of all 40 replies to one prompt, through the
    shared loop: total variation below 0.02 from one of 0.6."""
    model, tokenizer = few_word_model(words=3)
    prompt, completions = [1, 2], every_completion(len(tokenizer), 3)
    torch.manual_seed(0)
    reward = torch.randn(len(completions), dtype=torch.float64)
    with torch.no_grad():
        reference = log_probs_of_all(model, prompt, completions)
    preferences = bradley_terry(reward)
    best = optimal_policy(reference.exp(), reward, BETA)

    def step(policy, _):
        log_probs = log_probs_of_all(policy, prompt, completions)
        return expected_dpo_loss(log_probs, reference, preferences, BETA), {}

    policy = copy.deepcopy(model)
    train(
        policy,
        itertools.repeat({}),
        step,
        steps=200,
        learning_rate=1e-2,
        progress=False,
    )
    with torch.no_grad():
        found = log_probs_of_all(policy, prompt, completions).exp()
    assert total_variation(found, best) < 0.02
    assert total_variation(reference.exp(), best) > 0.5


def test_words_repeated_alone_cannot_be_counted():
    """Why prompts need two different words: with rotary positions, attention over equal
    tokens gives the same whatever their number."""
    model, _ = few_word_model()
    with torch.no_grad():
        once, twice, mixed = (
            model(torch.tensor([ids])).logits[0, -1] for ids in ([1], [1, 1], [2, 1])
        )
    torch.testing.assert_close(once, twice)
    assert (once - mixed).abs().max() > 1e-3


# --- wrong arguments ------------------------------------------------------------------


def test_wrong_arguments_are_named_with_their_values():
    with pytest.raises(
        ValueError, match=r"reference has entries from 0.5 and sums to 1.5"
    ):
        optimal_policy([0.5, 1.0], [0.0, 1.0], 1.0)
    with pytest.raises(ValueError, match="policy has entries from -0.5"):
        kl([-0.5, 1.5], [0.5, 0.5])
    with pytest.raises(ValueError, match="beta is 0; it must be greater than 0"):
        optimal_policy([0.5, 0.5], [0.0, 1.0], 0)
    with pytest.raises(ValueError, match=r"reward is \[0.0, inf\]"):
        optimal_policy([0.5, 0.5], [0.0, math.inf], 1.0)
    with pytest.raises(ValueError, match="reference 2, reward 3"):
        best_of_n([0.5, 0.5], [0.0, 1.0, 2.0], 2)
    for call in (lambda: best_of_n([1.0], [0.0], 0), lambda: best_of_n_kl(0)):
        with pytest.raises(ValueError, match="n is 0"):
            call()
    zeros = torch.zeros(2).log_softmax(0)
    with pytest.raises(ValueError, match="must add up to 1"):
        expected_dpo_loss(zeros, zeros, [[0.5, 0.9], [0.9, 0.5]], 1.0)
    with pytest.raises(ValueError, match=r"preferences have shape \(1, 2\)"):
        expected_dpo_loss(zeros, zeros, [[0.5, 0.9]], 1.0)
    with pytest.raises(ValueError, match="policy_log_probs 2, .* preferences 3"):
        expected_dpo_loss(zeros, zeros, CERTAIN, 1.0)
    with pytest.raises(ValueError, match="vocabulary is 30 and length 9"):
        every_completion(30, 9)
    with pytest.raises(ValueError, match="words is 0"):
        few_word_model(0)


def test_sampling_to_the_full_length_leaves_it_open_whether_the_reply_would_end():
    model, tokenizer = few_word_model(words=2)
    ids = torch.tensor([[1, 2]]).expand(500, 2)
    torch.manual_seed(0)
    new = sample(model, ids, torch.ones_like(ids), 2, 1.0, tokenizer.eos_token_id)
    replies = {
        tuple(row[: row.index(0) + 1] if 0 in row else row) for row in new.tolist()
    }
    assert replies == set(every_completion(3, 2))
