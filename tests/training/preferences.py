"""Pairs to learn from, and what a model gives to each completion read by itself."""

import copy

import torch

from alignlab.objectives import sequence_log_probs
from alignlab.training.dpo import train_dpo
from alignlab.training.sft import encode

PAIRS = [
    {"prompt": "The capital of France?", "chosen": "Paris", "rejected": "Oslo."},
    {"prompt": "Is gold a metal?", "chosen": "Yes. It is.", "rejected": "No"},
    {"prompt": "The number of iron?", "chosen": "26", "rejected": "Iron is 79."},
    {"prompt": "The money of Peru?", "chosen": "the sol", "rejected": "the yen"},
    {"prompt": "What is Oslo?", "chosen": "The capital of Norway", "rejected": "gold"},
]
BETA = 0.3


def tokens_of(tokenizer, prompt, reply):
    """Prompt and completion, as tokens."""
    text = encode(tokenizer, [{"prompt": prompt, "completion": reply}])[0]
    start = text.completion_mask.index(1)
    return text.input_ids[:start], text.input_ids[start:]


def alone(model, prompt, completion):
    """Log-probability of one completion, from all the logits of one row."""
    ids = torch.tensor([prompt + completion])
    mask = torch.tensor([[0] * len(prompt) + [1] * len(completion)])
    return sequence_log_probs(model(ids).logits, ids, mask)[0]


def both_alone(model, encoded):
    """Log-probabilities of the first and second completions, each row by itself."""
    return [
        torch.stack([alone(model, pair.prompt, pair[side]) for pair in encoded])
        for side in (1, 2)
    ]


def moved(model, seed=1, by=0.02):
    """A copy of a model a little elsewhere."""
    other = copy.deepcopy(model)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return other


def learn(model, tokenizer, pairs=PAIRS, **settings):
    settings = dict(steps=20, learning_rate=5e-3, beta=BETA, progress=False) | settings
    return train_dpo(model, tokenizer, pairs, **settings)
