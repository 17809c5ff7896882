"""PPO against what is known exactly: the optimum of an enumerable task, probe tasks
that each need one part of it, and shortest paths."""

import itertools
from collections import deque

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

from alignlab.ppo import PPOConfig, PPOTrainer

END = 1


def word_tokenizer(words):
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<end>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="<end>"
    )


def small_model(vocabulary, seed=0):
    """Two layers, near to uniform: nothing is so rare that it is never tried."""
    torch.manual_seed(seed)
    config = GPT2Config(
        vocab_size=vocabulary,
        n_embd=32,
        n_layer=2,
        n_head=2,
        n_positions=16,
        initializer_range=0.2,
        resid_pdrop=0.0,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=0,
        tie_word_embeddings=False,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.lm_head.weight *= 0.25
    return model


def trained(model, tokenizer, reward, prompts, **settings):
    defaults = dict(
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
        per_device_train_batch_size=64,
        learning_rate=3e-3,
        num_ppo_epochs=4,
        max_grad_norm=0.0,
        vf_coef=1.0,
        cliprange_value=None,
        whiten_advantages=False,
        kl_coef=0.0,
        lam=1.0,
    )
    data = [{"prompt": prompt} for prompt in prompts]
    args = PPOConfig(**defaults | settings)
    trainer = PPOTrainer(model, reward, args, data, processing_class=tokenizer)
    trainer.train()
    return trainer


# --- The exact optimum of the KL-regularised objective -----------------------------


class Enumerable:
    """All completions of up to ``length`` tokens of a vocabulary of four, each with a
    reward of its own between -1 and 1; the prompt is "p"."""

    PROMPT, VOCABULARY = 3, 4

    def __init__(self, length):
        self.length = length
        going = [token for token in range(self.VOCABULARY) if token != END]
        self.completions = list(itertools.product(going, repeat=length))
        for n in range(length):
            self.completions += [(*c, END) for c in itertools.product(going, repeat=n)]
        rewards = np.random.default_rng(0).uniform(-1, 1, len(self.completions))
        self.rewards = torch.tensor(rewards)
        self.place = {c: i for i, c in enumerate(self.completions)}
        self.tokenizer = word_tokenizer(["a", "p"])

    def reward(self, completion_ids):
        return [self.rewards[self.place[tuple(c)]].item() for c in completion_ids]

    @torch.no_grad()
    def log_probs(self, model):
        """Of every completion: nothing is sampled."""
        lengths = torch.tensor([len(c) for c in self.completions])
        rows = [[self.PROMPT, *c, *[0] * self.length] for c in self.completions]
        ids = torch.tensor([row[: self.length + 1] for row in rows])
        log_p = model(ids, attention_mask=torch.ones_like(ids)).logits.log_softmax(-1)
        chosen = log_p[:, :-1].gather(2, ids[:, 1:, None])[..., 0]
        real = torch.arange(self.length) < lengths[:, None]
        return (chosen * real).sum(1).double()

    def optimum(self, reference, beta):
        return (reference + self.rewards / beta).softmax(0)

    def without_future_kl(self, reference, beta):
        """Where a KL in the loss leads, by backward induction: each token weighs the
        reward to come, and not the KL to come."""

        def best(prefix):
            """The distribution over what follows, and its mean reward."""
            place = self.place.get(prefix)
            if place is not None:
                return {prefix: 1.0}, self.rewards[place].item()
            branches = [best((*prefix, token)) for token in range(self.VOCABULARY)]
            mass = [
                sum(reference[self.place[c]].exp().item() for c in branch)
                for branch, _ in branches
            ]
            value = np.array([value for _, value in branches])
            weight = np.array(mass) * np.exp(value / beta)
            weight /= weight.sum()
            follows = {
                completion: w * p
                for w, (branch, _) in zip(weight, branches, strict=True)
                for completion, p in branch.items()
            }
            return follows, float(weight @ value)

        follows, _ = best(())
        return torch.tensor([follows[c] for c in self.completions])


def total_variation(p, q):
    return 0.5 * (p - q).abs().sum().item()


def run_ppo(task, beta=0.5, **settings):
    """``(policy, reference log-probs, trainer)`` after PPO on the task."""
    model = small_model(task.VOCABULARY)
    reference = task.log_probs(model)
    assert reference.exp().sum().item() == pytest.approx(1, abs=1e-5)
    defaults = dict(
        max_completion_length=task.length,
        kl_coef=beta,
        per_device_train_batch_size=256,
    )
    trainer = trained(model, task.tokenizer, task.reward, ["p"], **defaults | settings)
    return task.log_probs(model).exp(), reference, trainer


def test_ppo_reaches_the_closed_form_optimum():
    task = Enumerable(2)
    actual, reference, trainer = run_ppo(task, max_steps=40)
    optimum = task.optimum(reference, 0.5)
    assert total_variation(reference.exp(), optimum) > 0.3
    assert total_variation(actual, optimum) < 0.02
    # At the optimum reward less KL is the same for all: beta times log Z.
    log_z = (reference + task.rewards / 0.5).logsumexp(0).item()
    row = trainer.state.log_history[-2]
    assert row["return"] == pytest.approx(0.5 * log_z, abs=0.02)
    kl = (optimum * (optimum.log() - reference)).sum().item()
    assert row["kl_exact"] == pytest.approx(kl, rel=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("whiten", [False, True])
def test_ppo_reaches_the_optimum_over_three_tokens(whiten):
    task = Enumerable(3)
    actual, reference, _ = run_ppo(task, max_steps=80, whiten_advantages=whiten)
    optimum = task.optimum(reference, 0.5)
    assert len(task.completions) == 40
    assert total_variation(reference.exp(), optimum) > 0.3
    assert total_variation(actual, optimum) < 0.02


@pytest.mark.parametrize(
    ("estimator", "place"), [("k2", "loss"), ("exact", "loss"), ("exact", "reward")]
)
def test_for_one_token_every_right_kl_leads_to_the_optimum(estimator, place):
    task = Enumerable(1)
    actual, reference, _ = run_ppo(
        task, max_steps=25, kl_estimator=estimator, kl_in=place, whiten_advantages=True
    )
    optimum = task.optimum(reference, 0.5)
    assert total_variation(reference.exp(), optimum) > 0.3
    assert total_variation(actual, optimum) < 0.02


@pytest.mark.parametrize("estimator", ["k2", "exact"])
def test_a_kl_in_the_loss_does_not_see_the_kl_to_come(estimator):
    task = Enumerable(2)
    actual, reference, _ = run_ppo(
        task, max_steps=40, kl_estimator=estimator, kl_in="loss"
    )
    optimum = task.optimum(reference, 0.5)
    predicted = task.without_future_kl(reference, 0.5)
    assert predicted.sum().item() == pytest.approx(1, abs=1e-6)
    assert total_variation(predicted, optimum) > 0.1
    # At this fixed point rewards still differ, so that there is noise left.
    assert total_variation(actual, predicted) < 0.04
    assert total_variation(actual, optimum) > 0.08


def test_an_exact_kl_in_the_reward_does():
    task = Enumerable(2)
    actual, reference, _ = run_ppo(task, max_steps=80, kl_estimator="exact")
    assert total_variation(actual, task.optimum(reference, 0.5)) < 0.02


# --- Probes: each needs one part, and would fail without it ------------------------


WORDS = word_tokenizer(["a", "b", "p", "q"])
A, B, P, Q = 2, 3, 4, 5
PROBE = dict(
    model=6, tokenizer=WORDS, prompts=["p", "q"], max_steps=25, learning_rate=5e-3
)


def probe(reward, **settings):
    settings = PROBE | settings
    model = small_model(settings.pop("model"))
    return trained(
        model, settings.pop("tokenizer"), reward, settings.pop("prompts"), **settings
    )


@torch.no_grad()
def values_after(trainer, *tokens):
    ids = torch.tensor([tokens])
    _, values = trainer.model(ids, torch.ones_like(ids, dtype=torch.bool))
    return values.tolist()


@torch.no_grad()
def chance(trainer, prompt, token):
    return (
        trainer.policy(torch.tensor([[prompt]])).logits[0, -1].softmax(-1)[token].item()
    )


def always(completions):
    return [1.0] * len(completions)


def test_probe_a_constant_reward_is_foreseen():
    trainer = probe(always, max_completion_length=1)
    assert values_after(trainer, P)[-1] == pytest.approx(1, abs=0.05)
    assert trainer.state.log_history[0]["value"] == 0


def test_probe_a_reward_that_depends_on_the_prompt_is_foreseen():
    def reward(prompts, completions):
        return [1.0 if prompt == "p" else -1.0 for prompt in prompts]

    trainer = probe(reward, max_completion_length=1)
    assert values_after(trainer, P)[-1] == pytest.approx(1, abs=0.1)
    assert values_after(trainer, Q)[-1] == pytest.approx(-1, abs=0.1)
    assert trainer.state.log_history[-2]["explained_variance"] > 0.95


def test_probe_a_delayed_reward_is_discounted_token_by_token():
    trainer = probe(always, stop_token_id=[], max_completion_length=3, gamma=0.5)
    assert trainer.state.log_history[-2]["completion_length"] == 3
    values = values_after(trainer, P, A, B)
    assert values == pytest.approx([0.25, 0.5, 1.0], abs=0.1)


def test_probe_a_reward_for_an_action_makes_it_likelier():
    def reward(completion_ids):
        return [float(c[0] == A) for c in completion_ids]

    trainer = probe(reward, max_completion_length=1)
    assert chance(trainer, P, A) > 0.95


def test_probe_an_action_is_rewarded_when_it_suits_the_prompt():
    def reward(prompt_ids, completion_ids):
        wanted = {P: A, Q: B}
        return [
            float(c[0] == wanted[p[0]])
            for p, c in zip(prompt_ids, completion_ids, strict=True)
        ]

    trainer = probe(reward, max_completion_length=1)
    assert chance(trainer, P, A) > 0.95 and chance(trainer, Q, B) > 0.95


def test_probe_credit_reaches_the_first_token_from_the_end():
    def reward(completion_ids):
        return [float(c[0] == A and len(c) == 3) for c in completion_ids]

    trainer = probe(reward, max_completion_length=3, max_steps=35, lam=0.95)
    assert chance(trainer, P, A) > 0.9
    assert trainer.state.log_history[-2]["score"] > 0.85


# --- Shortest paths ----------------------------------------------------------------

EDGES = {  # a directed graph; the goal is g
    "s": "uvw",
    "u": "vx",
    "v": "swy",
    "w": "xs",
    "x": "ug",
    "y": "zu",
    "z": "xy",
}


def distances(goal="g"):
    """Steps from each node to the goal, backwards from there."""
    actual, todo = {goal: 0}, deque([goal])
    while todo:
        node = todo.popleft()
        for other, edges in EDGES.items():
            if node in edges and other not in actual:
                actual[other] = actual[node] + 1
                todo.append(other)
    return actual


def test_ppo_finds_the_shortest_paths():
    nodes = [*EDGES, "g"]
    tokenizer = word_tokenizer(nodes)
    best = distances()
    assert best["s"] == 3 and best["z"] == 2

    def reward(prompts, completions):
        """The share of the shortest path in the steps that were needed, 0 off it."""
        rewards = []
        for at, path in zip(prompts, completions, strict=True):
            start, steps = at, path.split()
            for node in steps:
                at = node if node in EDGES.get(at, "") else None
            rewards.append(best[start] / len(steps) if at == "g" else 0.0)
        return rewards

    trainer = trained(
        small_model(len(tokenizer)),
        tokenizer,
        reward,
        list(EDGES),
        max_steps=80,
        # Enough tries of each start before it is settled: 26 of 26 seeds end above
        # 0.99. With half as many, twice the epochs and a higher rate, two of eight gave
        # a start up, and which ones do depends on how a processor rounds.
        per_device_train_batch_size=256,
        num_ppo_epochs=2,
        learning_rate=3e-3,
        max_completion_length=6,
        stop_token_id=tokenizer.convert_tokens_to_ids("g"),
        entropy_coef=0.01,
        whiten_advantages=True,
    )
    scores = [row["score"] for row in trainer.state.log_history if "score" in row]
    assert scores[0] < 0.2
    assert np.mean(scores[-10:]) > 0.95
