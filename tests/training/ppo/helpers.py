"""What the tests of PPO share: prompts, trainers, and a plain recomputation."""

import pytest
import torch

from alignlab.ppo import PPOConfig, PPOTrainer

PROMPTS = [
    {"prompt": "What is the capital of France?", "answer": "Paris"},
    {"prompt": "Is gold a metal?", "answer": "Yes"},
    {"prompt": "Peru", "answer": "sol"},
    {"prompt": "The capital of Kenya, and the number of iron: say", "answer": "no"},
    {"prompt": "Say it in one word:", "answer": "Oslo"},
]
QUIET = dict(use_cpu=True, disable_tqdm=True, report_to="none")
QUESTION = "What is the capital of France?"
TEXT = [{"prompt": QUESTION}, {"prompt": "Peru"}]
CHAT = [
    {"prompt": [{"role": "user", "content": QUESTION}], "answer": "Paris"},
    {"prompt": [{"role": "user", "content": "Peru"}], "answer": "sol"},
]


def letters(completions, **columns):
    """A reward that differs between completions: their share of vowels."""
    return [sum(c in "aeiou" for c in text) / 10 for text in completions]


def talkative(model, tokenizer, by=4.0):
    """Make EOS likelier, so that completions differ in length."""
    with torch.no_grad():
        model.get_output_embeddings().weight[tokenizer.eos_token_id] *= by
    return model


def train_by_sgd(
    model, tokenizer, reward=letters, data=PROMPTS, trainer=None, **settings
):
    """The trainer after its updates."""
    defaults = dict(
        max_steps=1,
        per_device_train_batch_size=16,
        num_ppo_epochs=2,
        max_completion_length=10,
        learning_rate=0.05,
        lr_scheduler_type="constant",
        optim="sgd",
        max_grad_norm=0.0,
        kl_coef=0.2,
    )
    args = PPOConfig(**QUIET | defaults | settings)
    trainer = PPOTrainer(model, reward, args, data, processing_class=tokenizer)
    trainer.train()
    return trainer


def parameters(trainer):
    return {n: p.detach().clone() for n, p in trainer.model.named_parameters()}


def assert_same(actual, expected, **tolerance):
    assert actual.keys() == expected.keys()
    for name in actual:
        torch.testing.assert_close(actual[name], expected[name], **tolerance, msg=name)


def moved(trainer, model):
    """How far the policy is from where it began."""
    before = dict(model.named_parameters())
    return sum(
        (p - before[n]).abs().max().item() for n, p in trainer.policy.named_parameters()
    )


class Recorder:
    """A reward function that records the completions it was given."""

    __name__ = "recorder"

    def __call__(self, completions, prompt_ids, completion_ids):
        self.prompts, self.completions = prompt_ids, completion_ids
        self.rewards = letters(completions)
        return self.rewards


def recompute(model, head, prompt, completion, temperature):
    """Log-probabilities and values of one completion's tokens: no batch, no padding."""
    ids = torch.tensor([prompt + completion])
    out = model(ids, output_hidden_states=True)
    at = slice(len(prompt) - 1, -1)
    log_p = (out.logits[0, at] / temperature).log_softmax(-1)
    chosen = log_p[torch.arange(len(completion)), completion]
    values = (out.hidden_states[-1][0, at] @ head["weight"].T)[:, 0] + head["bias"]
    return chosen, values, log_p


def config(**settings):
    defaults = dict(
        max_steps=1,
        per_device_train_batch_size=4,
        max_completion_length=5,
        learning_rate=1e-2,
        use_cpu=True,
        disable_tqdm=True,
        report_to="none",
    )
    return PPOConfig(**defaults | settings)


def ones(completions):
    return [1.0] * len(completions)


def make_trainer(model, tokenizer, reward=ones, data=TEXT, args=None, **models):
    args = config() if args is None else args
    return PPOTrainer(model, reward, args, data, processing_class=tokenizer, **models)


def make_and_train(*args, **kwargs):
    trainer = make_trainer(*args, **kwargs)
    trainer.train()
    return trainer


def lora():
    peft = pytest.importorskip("peft")
    return peft.LoraConfig(
        r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"
    )
