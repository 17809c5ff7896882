"""Lean layers in training: the losses and gradients of the plain ones, in every step
and pass, and gone when it is over."""

import copy

import pytest
import torch

from alignlab.models import lean
from alignlab.models.reward import reward_model_from, score
from alignlab.models.text import pad_token_id
from alignlab.training import dpo, kto, pairs, reward, sft
from alignlab.training.loop import train
from tests.training.preferences import PAIRS, learn, moved

EXAMPLES = [{"prompt": pair["prompt"], "completion": pair["chosen"]} for pair in PAIRS]


def sft_case(model, tokenizer):
    encoded = sft.encode(tokenizer, EXAMPLES)
    return model, sft.sft_step, sft.collate(encoded, pad_token_id(tokenizer))


def dpo_case(model, tokenizer):
    encoded, pad = pairs.encode_pairs(tokenizer, PAIRS), pad_token_id(tokenizer)
    log_probs = pairs.log_probs_of(model, encoded, pad)
    columns = dict(zip(("ref_chosen", "ref_rejected"), log_probs, strict=True))
    batch = next(pairs.batches(encoded, columns, len(encoded), 0, pad))
    return moved(model), dpo.preference_step, batch


def kto_case(model, tokenizer):
    pad = pad_token_id(tokenizer)
    encoded, columns = kto.kto_data(tokenizer, PAIRS, model, 128, pad)
    batch = next(pairs.batches(encoded, columns, len(encoded), 0, pad))
    return moved(model), kto.kto_step, batch


def reward_case(model, tokenizer):
    comparisons = reward.encode(tokenizer, PAIRS)
    batch = reward.collate(comparisons, pad_token_id(tokenizer))
    return reward_model_from(model), reward.reward_step, batch


@pytest.mark.parametrize("case", [sft_case, dpo_case, kto_case, reward_case])
def test_lean_losses_and_gradients_are_the_plain_ones(
    case, tiny_model, tiny_tokenizer, monkeypatch
):
    model, step, batch = case(tiny_model, tiny_tokenizer)
    calls = counted_norms(monkeypatch)

    def loss_and_gradients():
        model.zero_grad()
        loss, _ = step(model, batch)
        loss.backward()
        return loss.item(), [p.grad.clone() for p in model.parameters()]

    with lean.lean_layers(model):
        found, lean_gradients = loss_and_gradients()
    assert len(calls) == 7  # two in each of three layers, and the last
    monkeypatch.setattr(lean, "MODULES", [])  # no family is known
    expected, gradients = loss_and_gradients()
    assert len(calls) == 7
    assert found == pytest.approx(expected, rel=1e-5)
    largest = max(gradient.abs().max() for gradient in gradients).item()
    for a, b in zip(lean_gradients, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5 * largest)


def counted_norms(monkeypatch):
    """A list that grows with each norm that is computed lean."""
    calls, apply = [], lean.RMSNorm.apply

    def counted(*args):
        calls.append(args)
        return apply(*args)

    monkeypatch.setattr(lean.RMSNorm, "apply", counted)
    return calls


def test_the_loop_trains_lean_layers_and_restores_them(tiny_model, tiny_tokenizer):
    model, step, batch = sft_case(tiny_model, tiny_tokenizer)
    usual, seen = type(model.model.norm), []

    def watched(model, batch):
        seen.append(type(model.model.norm))
        if len(seen) == 3:
            raise KeyError
        return step(model, batch)

    def run(steps):
        train(
            model, [batch] * 3, watched, steps=steps, learning_rate=1e-3, progress=False
        )

    run(2)
    assert len(seen) == 2 and usual not in seen
    assert type(model.model.norm) is usual
    with pytest.raises(KeyError):
        run(3)
    assert seen[2] is not usual and type(model.model.norm) is usual


def test_reference_and_evaluation_passes_are_lean(tiny_model, tiny_tokenizer):
    """Also that of a reference, which the loop does not train."""
    policy, reference = copy.deepcopy(tiny_model), tiny_model
    usual, seen = type(reference.model.norm), []
    for model in (policy, reference):
        model.lm_head.register_forward_hook(
            lambda *_, model=model: seen.append(type(model.model.norm))
        )
    learn(policy, tiny_tokenizer, steps=2, reference=reference, eval_pairs=PAIRS[:2])
    checks = 2 * 3  # whether a token sees later ones, policy and reference
    checks += 2 * 3 + 3 + 2 * 3  # whether rows can be shared: before, at evaluations
    passes = 2 + 2 + 2  # of the reference on two lists, steps, evaluations
    assert len(seen) == checks + passes
    assert len([kind for kind in seen if kind is not usual]) >= passes
    assert type(policy.model.norm) is type(reference.model.norm) is usual

    seen.clear()
    encoded = pairs.encode_pairs(tiny_tokenizer, PAIRS)
    pairs.log_probs_of(reference, encoded, pad_token_id(tiny_tokenizer))
    assert len(seen) == 4 and seen[3] is not usual
    with pytest.raises(IndexError):  # behind the check, which reads the longest pair
        wrong = [encoded[0]._replace(prompt=[10**6]), *encoded]
        pairs.log_probs_of(reference, wrong, pad_token_id(tiny_tokenizer))
    assert type(reference.model.norm) is usual


def test_reward_models_score_and_are_validated_lean(tiny_model, tiny_tokenizer):
    model = reward_model_from(tiny_model)
    usual, seen, rows = type(model.model.norm), [], []
    model.model.norm.register_forward_hook(
        lambda *_: seen.append(type(model.model.norm))
    )
    model.model.layers[-1].mlp.down_proj.register_forward_hook(
        lambda module, inputs, output: rows.append(output[..., 0].numel())
    )
    score(model, tiny_tokenizer, ["What is Oslo?"] * 3, ["Gold.", "Iron.", ""])
    assert len(seen) == 1 and seen[0] is not usual
    assert rows == [3]  # the last tokens only
    settings = dict(batch_size=5, learning_rate=1e-3, validation=PAIRS, progress=False)
    reward.train_reward_model(model, tiny_tokenizer, PAIRS, **settings)
    assert len(seen) == 3 and usual not in seen
    assert type(model.model.norm) is usual
