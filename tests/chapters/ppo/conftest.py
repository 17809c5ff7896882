"""A random reference policy and reward model, with a cache of their own."""

import copy
import os

import pytest

from alignlab import cache
from alignlab.models.reward import reward_model_from
from alignlab.study import artifacts as study
from alignlab.study import optimising


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """An empty cache that knows the downloaded sources."""
    sources = cache.cache_dir() / "sources"
    sources.mkdir(parents=True, exist_ok=True)
    os.symlink(sources, tmp_path / "sources")
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))


@pytest.fixture
def tiny(own_cache, monkeypatch, tiny_model, tiny_tokenizer):
    """A random reference policy and reward model over a few subjects, in no time."""

    def reference_policy(base, steps, seed=0, **options):
        return copy.deepcopy(tiny_model), tiny_tokenizer

    def reward_model(n, **options):
        return reward_model_from(tiny_model, seed=0), tiny_tokenizer

    names = {"train": ("France", "gold", "Norway", "iron"), "test": ("Peru", "argon")}
    monkeypatch.setattr(study, "reference_policy", reference_policy)
    monkeypatch.setattr(study, "reward_model", reward_model)
    monkeypatch.setattr(study, "subjects", names.get)
    recipe = {**optimising.RECIPE, "max_completion_length": 8}
    recipe["per_device_train_batch_size"] = 4
    monkeypatch.setattr(optimising, "RECIPE", recipe)
    return tiny_model, tiny_tokenizer
