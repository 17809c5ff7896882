"""One SFT run: the loop's own result on the mixture asked for, made once and judged."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from alignlab.errors import AlignlabError
from alignlab.models.base import load_base
from alignlab.models.sampler import Completion
from alignlab.study import tuning
from alignlab.study.scale import rate
from alignlab.training.sft import finetune
from alignlab.world.tasks import Example

EXAMPLES = [
    Example("capital", f"What is the capital of {land}?", f"{town}.", (town,))
    for land, town in [("France", "Paris"), ("Norway", "Oslo"), ("Peru", "Lima")]
]


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


@pytest.fixture
def base_model(monkeypatch, tiny_model, tiny_tokenizer):
    """The tiny random model in place of every base model; what was asked for."""
    start = {name: value.clone() for name, value in tiny_model.state_dict().items()}
    asked = []

    def load_base(base, stage="final"):
        asked.append((base, stage))
        tiny_model.load_state_dict(start)
        return tiny_model, tiny_tokenizer

    monkeypatch.setattr(tuning, "trainable_base", load_base)
    return SimpleNamespace(load=load_base, asked=asked)


# --- Tuning -------------------------------------------------------------------------


@pytest.mark.parametrize("loss_on", ["completion", "all"])
@pytest.mark.parametrize("copies", [1, 20])  # fewer and more examples than a batch
def test_tuning_is_fine_tuning_on_prompts_and_completions(base_model, loss_on, copies):
    examples = EXAMPLES * copies
    model, _ = tuning.tune(examples, base="300k", steps=3, seed=5, loss_on=loss_on)
    ours = weights(model)
    model, tokenizer = base_model.load("300k")
    untouched = weights(model)
    pairs = [{"prompt": e.prompt, "completion": e.completion} for e in examples]
    finetune(
        model,
        tokenizer,
        pairs,
        steps=3,
        batch_size=3 if copies == 1 else tuning.BATCH,
        learning_rate=rate("tasks", "300k"),
        seed=5,
        loss_on=loss_on,
        progress=False,
    )
    assert torch.equal(ours, weights(model))
    assert not torch.equal(ours, untouched)


def test_the_seed_the_size_and_the_stage_matter(base_model):
    def tuned(**options):
        options = {"base": "300k", "steps": 2, "seed": 0} | options
        return weights(tuning.tune(EXAMPLES * 20, **options)[0]).clone()

    same = tuned()
    assert torch.equal(tuned(), same)
    assert not torch.equal(tuned(seed=1), same)
    assert not torch.equal(tuned(base="1m"), same), "each base has its learning rate"
    assert not torch.equal(tuned(teaches="facts"), same)
    tuned(stage="stable")
    assert base_model.asked[-1] == ("300k", "stable")
    assert base_model.asked[0] == ("300k", "final")


def test_no_example_is_named():
    with pytest.raises(AlignlabError, match="no example"):
        tuning.tune([], base="300k", steps=1, seed=0)


# --- Asking and judging -------------------------------------------------------------


def test_examples_are_asked_as_chats_and_greedily(monkeypatch):
    def complete(model, tokenizer, prompts, max_new_tokens, **options):
        assert options == {"batch_size": 2}, "a chat at temperature 0, as by default"
        assert max_new_tokens == 24
        return [Completion(p.upper(), [], True) for p in prompts]

    monkeypatch.setattr(tuning, "complete", complete)
    _, tokenizer = load_base("300k")
    replies = tuning.reply(None, tokenizer, EXAMPLES, batch_size=2)
    assert [r.text for r in replies] == [e.prompt.upper() for e in EXAMPLES]


def test_shares_are_of_all_replies(monkeypatch):
    scores = {
        "correct": np.array([True, False, True, True]),
        "formatted": np.array([True, False, False, False]),
    }
    monkeypatch.setattr(tuning.answers, "score", lambda examples, replies: scores)
    found = tuning.judge(EXAMPLES, [])
    assert found == {"accuracy": 0.75, "format": 0.25}
    json.dumps(found)
    families = [SimpleNamespace(family=name) for name in ("b", "a", "b", "b")]
    found = tuning.accuracy_by_family(families, [])
    assert found == {"a": 0.0, "b": 1.0}
    json.dumps(found)


@pytest.mark.network
def test_replies_are_judged_by_the_answers():
    texts = ["Paris.", "Oslo", "Bogotá."]
    replies = [Completion(t, [], t != "Oslo") for t in texts]
    assert tuning.judge(EXAMPLES, replies) == pytest.approx(
        {"accuracy": 2 / 3, "format": 2 / 3}
    )
    assert tuning.accuracy_by_family(EXAMPLES, replies)["capital"] == pytest.approx(
        2 / 3
    )


# --- The policy that later notebooks start from -------------------------------------


def test_the_policy_is_made_once_for_each_recipe(base_model, monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path))
    drawn = []

    def mixture(n, *, weights, seed):
        drawn.append((n, weights, seed))
        return [EXAMPLES[(i + seed) % 3] for i in range(n)]

    monkeypatch.setattr(tuning.tasks, "mixture", mixture)
    recipe = dict(base="300k", n_examples=20, steps=2, weights="equal")
    first, tokenizer = tuning.sft_policy(3, **recipe)
    again, _ = tuning.sft_policy(3, **recipe)
    assert drawn == [(20, "equal", 3)]
    assert torch.equal(weights(first), weights(again))
    assert tokenizer.padding_side == "left" and tokenizer.chat_template
    expected, _ = tuning.tune(
        mixture(20, weights="equal", seed=3), base="300k", steps=2, seed=3
    )
    assert torch.equal(weights(first), weights(expected))
    drawn.clear()
    others = [
        tuning.sft_policy(4, **recipe),
        tuning.sft_policy(3, **recipe | {"base": "1m"}),
        tuning.sft_policy(3, **recipe | {"n_examples": 21}),
        tuning.sft_policy(3, **recipe | {"steps": 3}),
        tuning.sft_policy(3, **recipe | {"weights": "capped"}),
    ]
    monkeypatch.setattr(tuning, "weights_hash", lambda base: "retrained")
    others.append(tuning.sft_policy(3, **recipe))
    assert len(drawn) == len(others), "each is another one"
    assert not any(torch.equal(weights(m), weights(first)) for m, _ in others[:4])


def test_a_size_that_does_not_ship_is_named():
    with pytest.raises(AlignlabError, match="size is '2m'"):
        tuning.tune(EXAMPLES, base="2m", steps=1, seed=0)
