"""Reward functions that recipes name: `reward_funcs: [recipes/rewards.py:brevity]`.

Each gets lists, one entry for each completion, and returns one number for each. It may
also ask for columns of the data by their names.
"""


def brevity(completions: list[str]) -> list[float]:
    """1 for an empty completion, 0 for one of forty words or more."""
    return [1 - min(len(text.split()), 40) / 40 for text in completions]


def names_subject(completions: list[str], subject: list[str]) -> list[float]:
    """How often, up to thrice, a completion names its subject, a column of the data."""
    pairs = zip(completions, subject, strict=True)
    return [min(text.count(name), 3) / 3 for text, name in pairs]
