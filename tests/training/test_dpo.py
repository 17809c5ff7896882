"""Preference training: the step is its objective, and policies learn."""

import copy
import itertools
import math
import warnings

import pytest
import torch
from torch import nn
from transformers import GPT2Config, GPT2LMHeadModel, MistralConfig, MistralForCausalLM

from alignlab.errors import AlignlabError
from alignlab.models.base import save_model
from alignlab.models.pairs import EncodedPair
from alignlab.objectives import PREFERENCE_LOSSES, dpo_loss, orpo_loss, simpo_loss
from alignlab.training.dpo import preference_step
from alignlab.training.pairs import batches, encode_pairs, log_probs_of
from tests.training.preferences import BETA, PAIRS, alone, both_alone, learn, moved

# --- one step -------------------------------------------------------------------------


@pytest.fixture
def step_case(tiny_model, tiny_tokenizer):
    """A float64 policy and reference, pairs of unequal lengths, and their batch."""
    policy = moved(tiny_model.double())
    encoded = encode_pairs(tiny_tokenizer, PAIRS)
    with torch.no_grad():
        columns = dict(
            zip(
                ("ref_chosen", "ref_rejected"),
                both_alone(tiny_model, encoded),
                strict=True,
            )
        )
    columns["number"] = torch.arange(len(encoded))
    batch = next(
        batches(encoded, columns, len(encoded), 0, tiny_tokenizer.pad_token_id)
    )
    return policy, [encoded[i] for i in batch.pop("number")], batch


def by_hand(policy, encoded, batch, loss_type, options):
    """The batch's loss from separate rows without padding, all logits of each."""
    sides = both_alone(policy, encoded)
    counts = [torch.tensor([len(pair[side]) for pair in encoded]) for side in (1, 2)]
    if loss_type in ("orpo", "simpo"):
        means = [total / count for total, count in zip(sides, counts, strict=True)]
        loss = {"orpo": orpo_loss, "simpo": simpo_loss}[loss_type]
        return loss(*means, BETA, **options).mean()
    reference = batch["ref_chosen"], batch["ref_rejected"]
    counts = dict(zip(("chosen_tokens", "rejected_tokens"), counts, strict=True))
    return dpo_loss(*sides, *reference, BETA, loss_type, **options, **counts).mean()


EXAMPLES = {"label_smoothing": 0.2, "penalty": 3.0, "gamma": 0.7}


@pytest.mark.parametrize("loss_type", sorted(set(PREFERENCE_LOSSES) - {"kto"}))
def test_the_step_has_the_loss_and_gradient_of_the_objective(step_case, loss_type):
    policy, encoded, batch = step_case
    loss = PREFERENCE_LOSSES[loss_type]
    options = {name: EXAMPLES[name] for name in loss.hyperparameters}
    expected = by_hand(policy, encoded, batch, loss_type, options)
    wanted = torch.autograd.grad(expected, list(policy.parameters()))
    loss, _ = preference_step(policy, batch, loss_type, BETA, **options)
    found = torch.autograd.grad(loss, list(policy.parameters()))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    scale = max(gradient.abs().max() for gradient in wanted)
    for a, b in zip(found, wanted, strict=True):  # norms are taken in float32
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 * scale)


def test_the_logs_are_implicit_rewards_and_log_probabilities(step_case):
    policy, encoded, batch = step_case
    with torch.no_grad():
        chosen, rejected = both_alone(policy, encoded)
    _, logs = preference_step(policy, batch, "ipo", BETA)
    rewards = BETA * (chosen - batch["ref_chosen"])
    others = BETA * (rejected - batch["ref_rejected"])
    accuracy = (rewards > others).double().mean().item()
    assert 0 < accuracy < 1
    expected = {
        "log_probs/chosen": chosen.mean().item(),
        "log_probs/rejected": rejected.mean().item(),
        "rewards/chosen": rewards.mean().item(),
        "rewards/rejected": others.mean().item(),
        "rewards/margins": (rewards - others).mean().item(),
        "rewards/accuracies": accuracy,
    }
    assert logs == pytest.approx(expected, rel=1e-9)
    _, logs = preference_step(policy, batch, "simpo", 2.0)
    counts = torch.tensor([len(pair.chosen) for pair in encoded])
    mean_reward = (2.0 * chosen / counts).mean().item()
    assert logs["rewards/chosen"] == pytest.approx(mean_reward, rel=1e-9)


def test_equal_rewards_are_right_half_the_time(tiny_model):
    batch = next(batches([EncodedPair([5, 6], [7], [7])], {}, 1, 0, 0))
    batch |= {"ref_chosen": torch.tensor([-1.0]), "ref_rejected": torch.tensor([-1.0])}
    _, logs = preference_step(tiny_model, batch)
    assert logs["rewards/accuracies"] == 0.5


# --- training -------------------------------------------------------------------------


@pytest.mark.parametrize("loss_type", sorted(set(PREFERENCE_LOSSES) - {"unweighted"}))
def test_every_loss_learns_to_prefer_what_was_chosen(
    tiny_model, tiny_tokenizer, loss_type
):
    history = learn(
        tiny_model, tiny_tokenizer, loss_type=loss_type, eval_pairs=PAIRS, eval_every=10
    )
    assert len(history) == 20 and history[-1]["loss"] < history[0]["loss"]
    assert history[-1]["eval/accuracies"] == 1
    chosen, rejected = (
        history[-1][f"eval/log_ratios/{s}"] for s in ("chosen", "rejected")
    )
    assert chosen > rejected + 1
    margins = [row["rewards/margins"] for row in history]
    assert margins[-1] > margins[0] and all(map(math.isfinite, margins))


def test_dpo_starts_at_log_two_from_its_own_reference(tiny_model, tiny_tokenizer):
    history = learn(tiny_model, tiny_tokenizer, steps=1)
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert history[0]["rewards/margins"] == pytest.approx(0, abs=1e-4)


def test_a_policy_with_dropout_starts_at_log_two_as_well(tiny_tokenizer):
    config = GPT2Config(  # its dropout is 0.1 everywhere
        vocab_size=len(tiny_tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=4
    )
    torch.manual_seed(0)
    policy = GPT2LMHeadModel(config).train()
    noisy = learn(copy.deepcopy(policy), tiny_tokenizer, steps=1, disable_dropout=False)
    assert abs(noisy[0]["loss"] - math.log(2)) > 1e-4
    history = learn(policy, tiny_tokenizer, steps=1)
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    assert policy.training  # as it came


def test_no_reference_is_the_policy_as_it_came(tiny_model, tiny_tokenizer):
    other = copy.deepcopy(tiny_model)
    before = copy.deepcopy(tiny_model)
    alone_history = learn(tiny_model, tiny_tokenizer, steps=5)
    held_history = learn(other, tiny_tokenizer, steps=5, reference=before)
    timeless = [
        {k: v for k, v in row.items() if k != "seconds"}
        for history in (alone_history, held_history)
        for row in history
    ]
    assert timeless[:5] == timeless[5:]
    for a, b in zip(tiny_model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
    assert any(
        not torch.equal(a, b)
        for a, b in zip(before.parameters(), other.parameters(), strict=True)
    )


def test_the_reference_reads_each_text_once_and_stays_as_it_is(
    tiny_model, tiny_tokenizer
):
    reference = moved(tiny_model)
    weights = copy.deepcopy(reference.state_dict())
    read = []
    reference.register_forward_pre_hook(lambda _, args: read.append(len(args[0])))
    learn(tiny_model, tiny_tokenizer, steps=8, batch_size=2, reference=reference)
    # Three tries of whether it is a causal LM, three of both ways, then once: all pairs
    # in two or three rows.
    assert len(read) == 3 + 3 + 1 and read[6] <= len(PAIRS)
    assert all(p.grad is None for p in reference.parameters())
    for name, value in reference.state_dict().items():
        assert torch.equal(value, weights[name])


def test_the_references_log_probs_can_be_passed_in(tiny_model, tiny_tokenizer):
    reference, other = moved(tiny_model), copy.deepcopy(tiny_model)
    encoded = encode_pairs(tiny_tokenizer, PAIRS)
    log_probs = log_probs_of(reference, encoded, tiny_tokenizer.pad_token_id)
    read = learn(tiny_model, tiny_tokenizer, steps=5, reference=reference)
    brought = learn(other, tiny_tokenizer, steps=5, ref_log_probs=log_probs)
    for row, same in zip(read, brought, strict=True):
        assert row["loss"] == pytest.approx(same["loss"], rel=1e-6)
    assert read[0]["loss"] != pytest.approx(math.log(2), abs=1e-3)
    short = tuple(side[:-1] for side in log_probs)
    with pytest.raises(ValueError, match="ref_log_probs are of"):
        learn(other, tiny_tokenizer, steps=1, ref_log_probs=short)


def test_orpo_and_simpo_read_no_reference(tiny_model, tiny_tokenizer):
    reference = moved(tiny_model)
    reference.forward = lambda *_, **__: pytest.fail("it was read")
    for loss_type in ("orpo", "simpo"):
        learn(
            tiny_model,
            tiny_tokenizer,
            steps=1,
            loss_type=loss_type,
            reference=reference,
        )


def test_pairs_are_followed_without_learning_from_them(tiny_model, tiny_tokenizer):
    plain, watched = copy.deepcopy(tiny_model), tiny_model
    lists = {"train": PAIRS, "held_out": PAIRS[:2]}
    seen = []
    history = learn(
        watched,
        tiny_tokenizer,
        steps=7,
        eval_pairs=lists,
        eval_every=3,
        on_log=seen.append,
    )
    learn(plain, tiny_tokenizer, steps=7)
    for a, b in zip(plain.parameters(), watched.parameters(), strict=True):
        assert torch.equal(a, b)
    evaluated = [row["step"] for row in history if "held_out/accuracies" in row]
    assert evaluated == [3, 6, 7] and seen == history
    encoded = encode_pairs(tiny_tokenizer, lists["held_out"])
    after = both_alone(watched, encoded)[1].mean().item()
    assert history[-1]["held_out/log_probs/rejected"] == pytest.approx(after, rel=1e-4)


def test_a_run_goes_on_from_its_checkpoint_with_the_same_bits(
    tiny_model, tiny_tokenizer, tmp_path
):
    start = copy.deepcopy(tiny_model)
    settings = dict(schedule="constant", warmup=1, eval_pairs=PAIRS, eval_every=2)
    whole = learn(tiny_model, tiny_tokenizer, steps=6, batch_size=2, **settings)
    settings |= dict(checkpoint=tmp_path / "run.pt", batch_size=2)
    learn(copy.deepcopy(start), tiny_tokenizer, steps=4, **settings)
    again = copy.deepcopy(start)
    resumed = learn(again, tiny_tokenizer, steps=6, **settings)
    for a, b in zip(tiny_model.parameters(), again.parameters(), strict=True):
        assert torch.equal(a, b)
    for key in ("loss", "rewards/margins"):
        assert [row[key] for row in whole] == [row[key] for row in resumed]


def test_lora_adapters_learn_against_the_model_without_them(tiny_model, tiny_tokenizer):
    from peft import LoraConfig, get_peft_model

    base = copy.deepcopy(tiny_model.state_dict())
    policy = get_peft_model(tiny_model, LoraConfig(r=4, target_modules=["q_proj"]))
    history = learn(policy, tiny_tokenizer, learning_rate=1e-2)
    assert history[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
    assert history[-1]["rewards/margins"] > 0.1
    for name, value in policy.get_base_model().state_dict().items():
        if "lora" not in name:
            assert torch.equal(value, base[name.replace(".base_layer", "")])


def dialogue(*contents):
    roles = itertools.cycle(["user", "assistant"])
    return [{"role": r, "content": c} for r, c in zip(roles, contents, strict=False)]


MANY_TURNS = [  # they part at the first reply, and at the last
    {
        "chosen": dialogue("Is gold?", "Yes.", "Peru?", "the sol"),
        "rejected": dialogue("Is gold?", "No", "Oslo?", "the yen"),
    },
    {
        "chosen": dialogue("Kenya?", "Paris", "Is it?", "Yes."),
        "rejected": dialogue("Kenya?", "Paris", "Is it?", "No"),
    },
]


@pytest.mark.parametrize("loss_type", sorted(set(PREFERENCE_LOSSES) - {"kto"}))
def test_dialogues_of_many_turns_have_the_loss_of_what_the_assistant_says(
    tiny_model, tiny_tokenizer, loss_type
):
    """The first step of a training, against log-probabilities by hand, turn by turn."""
    reference, policy = tiny_model, moved(tiny_model)
    loss = PREFERENCE_LOSSES[loss_type]
    options = {name: EXAMPLES[name] for name in loss.hyperparameters}
    sides, counts = {}, []
    for side in ("chosen", "rejected"):
        rows = [
            said(tiny_tokenizer, row[side], turns)
            for row, turns in zip(MANY_TURNS, [(1, 3), (3,)], strict=True)
        ]
        counts.append(torch.tensor([sum(len(c) for _, c in row) for row in rows]))
        for name, model in (("policy", policy), ("reference", reference)):
            with torch.no_grad():
                sums = [sum(alone(model, *turn) for turn in row) for row in rows]
            sides[name, side] = torch.stack(sums)
    names = itertools.product(("policy", "reference"), ("chosen", "rejected"))
    own = [sides[name] for name in names]
    if loss.reference:
        counts = dict(zip(("chosen_tokens", "rejected_tokens"), counts, strict=True))
        expected = dpo_loss(*own, BETA, loss_type, **options, **counts)
    else:
        means = [log_p / count for log_p, count in zip(own[:2], counts, strict=True)]
        expected = loss.function(*means, BETA, **options)
    settings = dict(loss_type=loss_type, reference=reference, steps=1, **options)
    history = learn(
        policy, tiny_tokenizer, MANY_TURNS, eval_pairs=iter(MANY_TURNS), **settings
    )
    assert history[0]["loss"] == pytest.approx(expected.mean().item(), rel=1e-3)
    chosen = own[0].mean().item()
    assert history[0]["log_probs/chosen"] == pytest.approx(chosen, rel=1e-4)


def said(tokenizer, messages, turns):
    """Of each of these turns the tokens before it and its own."""
    result = []
    for turn in turns:
        history = tokenizer.apply_chat_template(
            messages[:turn], tokenize=False, add_generation_prompt=True
        )
        texts = history, messages[turn]["content"] + "<|end|>"
        result.append([tokenizer(text)["input_ids"] for text in texts])
    return result


def test_kto_takes_dialogues_of_many_turns_and_any_label(tiny_model, tiny_tokenizer):
    rows = [
        {"prompt": row[side][:1], "completion": row[side], "label": label}
        for row in MANY_TURNS
        for side, label in (("chosen", "true"), ("rejected", "false"))
    ]
    streamed = (row for row in rows)
    history = learn(tiny_model, tiny_tokenizer, streamed, loss_type="kto", steps=40)
    assert history[-1]["rewards/margins"] > 0.5


# --- wrong arguments ------------------------------------------------------------------


def test_a_reference_with_another_vocabulary_is_refused(tiny_model, tiny_tokenizer):
    other = copy.deepcopy(tiny_model)
    other.resize_token_embeddings(400)
    with pytest.raises(AlignlabError, match="vocabulary of 400 tokens and the policy"):
        learn(tiny_model, tiny_tokenizer, reference=other)


def test_frozen_adapters_are_refused_in_words(tiny_model, tiny_tokenizer, tmp_path):
    from peft import LoraConfig, PeftModel, get_peft_model

    start = copy.deepcopy(tiny_model)
    config = LoraConfig(r=4, target_modules=["q_proj"])
    get_peft_model(tiny_model, config).save_pretrained(tmp_path)
    frozen = PeftModel.from_pretrained(start, tmp_path)
    with pytest.raises(AlignlabError, match="is_trainable=True"):
        learn(frozen, tiny_tokenizer)


def test_several_splits_are_refused_as_pairs_and_named_as_eval_pairs(
    tiny_model, tiny_tokenizer
):
    from datasets import Dataset, DatasetDict

    splits = DatasetDict(train=Dataset.from_list(PAIRS), test=Dataset.from_list(PAIRS))
    with pytest.raises(AlignlabError, match=r"pairs\['train'\]"):
        learn(tiny_model, tiny_tokenizer, splits)
    history = learn(tiny_model, tiny_tokenizer, steps=1, eval_pairs=splits)
    assert history[0]["test/accuracies"] == history[0]["train/accuracies"]


@pytest.mark.parametrize("loss_type", ["sigmoid", "orpo"])
def test_a_policy_that_cannot_read_two_completions_in_one_row_is_refused(
    tiny_tokenizer, loss_type
):
    config = MistralConfig(  # it sees the last four tokens only
        vocab_size=len(tiny_tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        sliding_window=4,
        initializer_range=1.0,
    )
    torch.manual_seed(0)
    with pytest.raises(AlignlabError, match="reads two completions in one row diff"):
        learn(MistralForCausalLM(config), tiny_tokenizer, loss_type=loss_type)


class Unread(nn.Module):
    """A policy that nothing may read."""

    def forward(self, *_, **__):
        pytest.fail("the policy was read")


@pytest.mark.parametrize(
    "settings, message",
    [
        (dict(beta=0.0), "beta is 0.0"),
        (dict(beta=-1.0, loss_type="kto"), "beta is -1.0"),
        (dict(beta=-1.0, loss_type="simpo"), "beta is -1.0"),
        (dict(loss_type="dpo"), r"loss_type is 'dpo'; it can be one of \['sigmoid'"),
        (dict(gamma=1.0), "gamma is 1.0, and loss_type 'sigmoid' has no such hyper"),
        (dict(loss_type="ipo", label_smoothing=0.1), "it has none besides beta"),
        (dict(label_smoothing=0.5), "label_smoothing is 0.5"),
        (dict(loss_type="kto", desirable_weight=0.0), "desirable_weight is 0.0"),
    ],
)
def test_wrong_hyperparameters_are_refused_before_anything_is_read(settings, message):
    with pytest.raises(ValueError, match=message):
        learn(Unread(), None, **settings)


def test_the_reference_may_be_the_name_of_a_model(tiny_model, tiny_tokenizer, tmp_path):
    reference = moved(tiny_model)
    save_model(reference, tiny_tokenizer, tmp_path)
    losses = [
        learn(copy.deepcopy(tiny_model), tiny_tokenizer, steps=2, reference=given)
        for given in (reference, str(tmp_path), tmp_path)
    ]
    first, *others = [[row["loss"] for row in history] for history in losses]
    assert abs(first[0] - math.log(2)) > 1e-3
    for other in others:
        assert other == pytest.approx(first, rel=1e-5)
    with pytest.raises(AlignlabError, match="reference is '.*nowhere'.*loaded"):
        learn(tiny_model, tiny_tokenizer, reference=tmp_path / "nowhere")
    with pytest.raises(AlignlabError, match="The model is 'name'.*load_model"):
        learn("name", tiny_tokenizer)


def test_a_policy_in_half_precision_brings_one_warning(tiny_model, tiny_tokenizer):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        learn(tiny_model.bfloat16(), tiny_tokenizer, steps=1, learning_rate=1e-4)
    told = [str(w.message) for w in caught if "rounding are lost" in str(w.message)]
    assert len(told) == 1
