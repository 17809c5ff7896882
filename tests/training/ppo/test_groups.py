"""RLOO and GRPO: their gradients against enumeration, and every loss against verl's and
OpenRLHF's code."""

import copy
import itertools

import numpy as np
import pytest
import torch
from polgrad import advantages as peer_advantages
from polgrad.aggregate import Aggregation
from polgrad.conformance._vendor import openrlhf_loss, verl_core_algos
from polgrad.kl import KLEstimator, kl_loss

from alignlab.errors import AlignlabError
from alignlab.objectives import grpo_advantages, ppo_policy_loss, rloo_advantages
from alignlab.ppo import PPOConfig, PPOTrainer, ppo_update
from alignlab.training.ppo.policy_value import PolicyAndValue
from alignlab.training.ppo.rollout import Episodes
from alignlab.training.ppo.update import mean_kl, token_weights
from tests.training.ppo.helpers import (
    PROMPTS,
    QUIET,
    assert_same,
    config,
    letters,
    make_trainer,
    moved,
    parameters,
    talkative,
)
from tests.training.ppo.test_optimum import (
    END,
    Enumerable,
    run_ppo,
    small_model,
    total_variation,
)

K = 3  # completions per prompt
PAIR = 2  # where all of them are enumerated
RLOO = dict(advantages="rloo", completions_per_prompt=K)
GRPO = RLOO | dict(advantages="grpo")
PLAIN_GRPO = GRPO | dict(scale_rewards=False, length_normalize=False)
BIASED = [
    GRPO,
    GRPO | dict(scale_rewards=False),
    GRPO | dict(length_normalize=False),
]


# --- Advantages ---------------------------------------------------------------------


def test_rloo_compares_a_completion_with_the_others_of_its_prompt():
    scores = torch.tensor([1.0, 2.0, 6.0, 0.0, 0.0, 3.0])
    expected = [1 - 4, 2 - 3.5, 6 - 1.5, 0 - 1.5, 0 - 1.5, 3 - 0]
    assert rloo_advantages(scores, K).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("scale", [True, False])
def test_advantages_are_those_of_another_implementation(scale):
    scores = torch.randn(12, generator=torch.Generator().manual_seed(0))
    groups = torch.arange(12) // K
    peer = peer_advantages.rloo_advantages(scores, groups)
    torch.testing.assert_close(rloo_advantages(scores, K), peer)
    settings = peer_advantages.GroupNormConfig(scale="std" if scale else "none")
    peer = peer_advantages.grpo_advantages(scores, groups, settings)
    torch.testing.assert_close(grpo_advantages(scores, K, scale), peer)


def test_equal_scores_teach_nothing():
    scores = torch.full((6,), 0.7)
    for advantages in (rloo_advantages(scores, K), grpo_advantages(scores, K)):
        assert advantages.abs().max() < 1e-3


@pytest.mark.parametrize("function", [rloo_advantages, grpo_advantages])
@pytest.mark.parametrize(("scores", "k"), [(5, 3), (4, 1), (4, 0)])
def test_incomplete_groups_are_refused(function, scores, k):
    with pytest.raises(ValueError, match=f"shape \\({scores},\\) with {k} completions"):
        function(torch.zeros(scores), k)


# --- Gradients, against enumeration -------------------------------------------------


@pytest.fixture(scope="module")
def task():
    task = Enumerable(2)  # 13 completions of one or two tokens
    with torch.random.fork_rng():
        model = small_model(task.VOCABULARY, seed=3).double()
    task.policy = PolicyAndValue(model, has_values=False)
    return task


def gradient_of(task, completions, settings):
    """What one update on these completions does to the weights, by SGD at rate 1."""
    model = copy.deepcopy(task.policy)
    width = task.length
    sampled = torch.tensor([[*c, *[0] * (width - len(c))] for c in completions])
    prompts = [[task.PROMPT]] * len(completions)
    episodes = Episodes.pack(prompts, sampled, [END], pad_token_id=0)
    rewards = torch.tensor(task.reward(completions))
    last = torch.nn.functional.one_hot(episodes.lengths - 1, episodes.mask.shape[1])
    episodes.rewards = rewards[:, None] * last
    with torch.no_grad():
        episodes.values = torch.zeros_like(episodes.rewards)
        logits, _ = model(episodes.input_ids, episodes.prediction_mask)
        log_probs = logits.log_softmax(-1).gather(1, episodes.tokens[:, None])[:, 0]
        episodes.old_log_probs = episodes.ref_log_probs = episodes.unflatten(log_probs)
    settings = dict(num_ppo_epochs=1, max_grad_norm=0.0, kl_coef=0.0) | settings
    settings |= dict(per_device_train_batch_size=len(completions))
    args = PPOConfig(**QUIET, max_completion_length=width, **settings)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    ppo_update(model, optimizer, episodes, args)
    before = torch.nn.utils.parameters_to_vector(task.policy.parameters())
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach() - before


def expected_gradient(task, settings):
    """The mean over all pairs of completions that the policy can give, as it would."""
    p = task.log_probs(task.policy.policy).exp().tolist()
    total = 0.0
    settings = settings | dict(completions_per_prompt=PAIR)
    for draw in itertools.combinations_with_replacement(range(len(p)), PAIR):
        orders = len(set(itertools.permutations(draw)))
        weight = orders * np.prod([p[i] for i in draw])
        completions = [task.completions[i] for i in draw]
        total = total + weight * gradient_of(task, completions, settings)
    return total


def enumerated(task, weight_of=lambda rewards, lengths, i: rewards[i]):
    """The gradient of the sum over completions of p times a weight, by autograd."""
    model = copy.deepcopy(task.policy.policy)
    lengths = torch.tensor([len(c) for c in task.completions])
    rows = [[task.PROMPT, *c, *[0] * task.length] for c in task.completions]
    ids = torch.tensor([row[: task.length + 1] for row in rows])
    log_p = model(ids, attention_mask=torch.ones_like(ids)).logits.log_softmax(-1)
    chosen = log_p[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
    real = torch.arange(task.length) < lengths[:, None]
    log_p = (chosen * real).sum(1)
    weights = torch.stack(
        [weight_of(task.rewards, lengths, i) for i in range(len(lengths))]
    )
    ((log_p.exp().detach() * weights.detach()) * log_p).sum().backward()
    return torch.cat([p.grad.flatten() for p in model.parameters()])


@pytest.fixture(scope="module")
def exact(task):
    return enumerated(task)


def relative_error(actual, expected):
    return ((actual - expected).norm() / expected.norm()).item()


def test_the_expected_gradient_of_rloo_is_that_of_the_mean_reward(task, exact):
    assert relative_error(expected_gradient(task, RLOO), exact) < 1e-4


def test_so_is_that_of_grpo_without_its_two_biases_up_to_a_factor(task, exact):
    factor = (PAIR - 1) / PAIR / task.length  # its mean holds the completion itself
    actual = expected_gradient(task, PLAIN_GRPO)
    assert relative_error(actual, factor * exact) < 1e-4


@pytest.mark.parametrize("settings", BIASED)
def test_each_bias_turns_the_gradient_away(task, exact, settings):
    actual = expected_gradient(task, settings)
    cosine = torch.cosine_similarity(actual, exact, dim=0).item()
    assert 0.5 < cosine < 0.999


def test_the_length_bias_is_a_factor_of_1_over_the_length(task):
    p = task.log_probs(task.policy.policy).exp()
    mean = (p * task.rewards).sum()

    def weight_of(rewards, lengths, i):
        return (PAIR - 1) / PAIR * (rewards[i] - mean) / lengths[i]

    actual = expected_gradient(task, GRPO | dict(scale_rewards=False))
    assert relative_error(actual, enumerated(task, weight_of)) < 1e-4


@pytest.mark.parametrize("settings", [RLOO, PLAIN_GRPO])
def test_both_reach_the_closed_form_optimum(settings):
    task = Enumerable(2)
    settings = settings | dict(completions_per_prompt=64)
    actual, reference, trainer = run_ppo(task, max_steps=25, **settings)
    optimum = task.optimum(reference, 0.5)
    assert total_variation(reference.exp(), optimum) > 0.3
    assert total_variation(actual, optimum) < 0.05
    assert "value" not in trainer.state.log_history[0]


# --- Losses and their gradients, against verl and OpenRLHF --------------------------


MODES = {
    "gae": ({}, "token-mean", Aggregation.TOKEN_MEAN),
    "rloo": (RLOO, "seq-mean-token-sum", Aggregation.SEQ_MEAN_TOKEN_SUM),
    "grpo": (GRPO, "seq-mean-token-mean", Aggregation.SEQ_MEAN_TOKEN_MEAN),
    "dr-grpo": (PLAIN_GRPO, None, Aggregation.TOKEN_SUM_NORM),
}


@pytest.fixture
def tokens():
    """Six completions of four to seven tokens, from a policy some way off."""
    random = torch.Generator().manual_seed(1)
    lengths = torch.tensor([4, 7, 5, 7, 6, 4])
    mask = torch.arange(7) < lengths[:, None]
    old, ref, noise, advantages = torch.randn(4, 6, 7, generator=random).double()
    old = -old.abs() * mask
    return Episodes(
        input_ids=torch.zeros(6, 8, dtype=torch.long),
        prompt_length=torch.ones(6, dtype=torch.long),
        mask=mask,
        ended=torch.ones(6, dtype=torch.bool),
        old_log_probs=old,
        ref_log_probs=(old + 0.3 * ref) * mask,
        advantages=advantages * mask,
    ), ((old + 0.3 * noise) * mask).requires_grad_()


def ours(episodes, log_probs, settings):
    args = PPOConfig(
        **QUIET, per_device_train_batch_size=6, max_completion_length=9, **settings
    )
    episodes.weights = token_weights(episodes.lengths, np.arange(6), args).double()
    weighted = episodes.advantages * episodes.weights[:, None]
    old = episodes.old_log_probs, weighted, episodes.mask
    clip_ranges = args.cliprange, args.cliprange_high
    return ppo_policy_loss(log_probs, *old, *clip_ranges), args


def same_with_gradient(actual, expected, log_probs):
    gradients = [torch.autograd.grad(x, log_probs)[0] for x in (actual, expected)]
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(*gradients, rtol=1e-6, atol=1e-12)
    assert gradients[0].abs().max() > 1e-3


@pytest.mark.parametrize("high", [None, 0.28])
@pytest.mark.parametrize("name", ["gae", "rloo", "grpo"])
def test_policy_losses_are_those_of_verl(tokens, name, high):
    episodes, log_probs = tokens
    settings, aggregation, _ = MODES[name]
    loss, args = ours(episodes, log_probs, settings | dict(cliprange_high=high))
    peer, *_ = verl_core_algos.compute_policy_loss(
        episodes.old_log_probs,
        log_probs,
        episodes.advantages,
        episodes.mask,
        cliprange=args.cliprange,
        cliprange_high=high,
        clip_ratio_c=1e9,  # no second clip
        loss_agg_mode=aggregation,
    )
    same_with_gradient(loss, peer, log_probs)


@pytest.mark.parametrize("name", ["gae", "grpo"])
def test_policy_losses_are_those_of_openrlhf(tokens, name):
    episodes, log_probs = tokens
    loss, _ = ours(episodes, log_probs, MODES[name][0])
    peer, *_ = openrlhf_loss.PolicyLoss(token_level_loss=name == "gae")(
        log_probs, episodes.old_log_probs, episodes.advantages, episodes.mask
    )
    same_with_gradient(loss, peer, log_probs)


@pytest.mark.parametrize("name", MODES)
@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_a_kl_in_the_loss_is_averaged_as_the_policy_loss(tokens, name, estimator):
    episodes, _ = tokens
    log_probs = episodes.old_log_probs.clone().requires_grad_()  # on-policy
    settings, _, aggregation = MODES[name]
    settings = settings | dict(kl_estimator=estimator, kl_in="loss")
    _, args = ours(episodes, log_probs, settings)
    peer = kl_loss(
        log_probs,
        episodes.ref_log_probs,
        KLEstimator(estimator),
        aggregation,
        response_mask=episodes.mask,
        norm_len=args.max_completion_length,
    )
    kl = mean_kl(episodes, log_probs, None, args, None)
    same_with_gradient(kl, peer, log_probs)


# --- In the trainer -----------------------------------------------------------------


def test_completions_of_a_prompt_stand_together(tiny_model, tiny_tokenizer):
    talkative(tiny_model, tiny_tokenizer)
    args = config(per_device_train_batch_size=6, **GRPO)
    trainer = make_trainer(tiny_model, tiny_tokenizer, letters, PROMPTS, args=args)
    before = copy.deepcopy(tiny_model)
    trainer.train()
    prompts = [row["prompt"] for row in trainer.completions]
    assert len(prompts) == 6 and len(set(prompts)) == 2
    assert len(set(prompts[:K])) == len(set(prompts[K:])) == 1
    assert len({row["completion"] for row in trainer.completions[:K]}) > 1
    assert moved(trainer, before) > 0
    row = trainer.state.log_history[0]
    assert row["kl_exact"] == 0 and row["score_std"] > 0
    assert not {"value", "value_loss", "explained_variance"} & row.keys()
    assert not any("value" in name for name, _ in trainer.model.named_parameters())


def test_a_run_without_values_resumes_exactly(tiny_model, tiny_tokenizer, tmp_path):
    talkative(tiny_model, tiny_tokenizer)
    settings = dict(per_device_train_batch_size=6, lr_scheduler_type="constant", **RLOO)
    ends = []
    for stops in ([4], [2, 4]):
        for steps in stops:
            model = copy.deepcopy(tiny_model)
            folder = str(tmp_path / str(len(stops)))
            args = config(max_steps=steps, output_dir=folder, save_steps=2, **settings)
            trainer = make_trainer(model, tiny_tokenizer, letters, PROMPTS, args=args)
            trainer.train(resume_from_checkpoint=steps != stops[0] or None)
        ends.append(parameters(trainer))
    assert_same(*ends, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(advantages="rloo"), "completions_per_prompt is 1"),
        (dict(advantages="grpo", completions_per_prompt=1), "completions_per_prompt"),
        (dict(completions_per_prompt=3), "does not divide an update's 4 episodes"),
        (dict(completions_per_prompt=0), "completions_per_prompt is 0"),
        (dict(advantages="reinforce"), "advantages is 'reinforce'"),
    ],
)
def test_what_does_not_fit_is_refused(settings, words):
    with pytest.raises(AlignlabError, match=words):
        config(**settings)


def test_a_value_model_without_use_is_refused(tiny_model, tiny_tokenizer, judge):
    args = config(advantages="rloo", completions_per_prompt=2)
    with pytest.raises(AlignlabError, match="value_model .*advantages='rloo'"):
        PPOTrainer(
            tiny_model,
            letters,
            args,
            PROMPTS,
            processing_class=tiny_tokenizer,
            value_model=judge,
        )
