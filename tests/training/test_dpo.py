"""Preference training: nothing is lost on the way to the losses, and policies learn."""

import copy
import math
import warnings

import pytest
import torch
from torch import nn
from transformers import MistralConfig, MistralForCausalLM

from alignlab.errors import AlignlabError
from alignlab.models.pairs import Two, pack
from alignlab.objectives import (
    dpo_loss,
    kto_loss,
    orpo_loss,
    sequence_log_probs,
    simpo_loss,
)
from alignlab.objectives.preference import DpoLossType
from alignlab.training import dpo
from alignlab.training.dpo import (
    DIALS,
    _mismatched,
    batches,
    encode_pairs,
    encode_unpaired,
    kto_step,
    log_probs_of,
    preference_step,
    train_dpo,
)
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


def both_alone(model, two):
    """Log-probabilities of the first and second completions, each row by itself."""
    return [
        torch.stack([alone(model, pair.prompt, pair[side]) for pair in two])
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


# --- encoding -------------------------------------------------------------------------


def test_both_sides_are_the_template_once_up_to_the_token_that_ends_a_reply(
    tiny_tokenizer,
):
    for pair, two in zip(PAIRS, encode_pairs(tiny_tokenizer, PAIRS), strict=True):
        prompt, chosen = tokens_of(tiny_tokenizer, pair["prompt"], pair["chosen"])
        _, rejected = tokens_of(tiny_tokenizer, pair["prompt"], pair["rejected"])
        assert two == Two(prompt, chosen, rejected)
        texts = [tiny_tokenizer.decode(tokens) for tokens in two]
        assert texts[0] == f"<|user|> {pair['prompt']}<|end|><|assistant|>"
        assert texts[1] == f" {pair['chosen']}<|end|>"
        assert texts[2] == f" {pair['rejected']}<|end|>"


def test_strings_messages_and_whole_conversations_are_the_same_pair(tiny_tokenizer):
    prompt = [{"role": "user", "content": PAIRS[0]["prompt"]}]
    replies = {
        side: [{"role": "assistant", "content": PAIRS[0][side]}]
        for side in ("chosen", "rejected")
    }
    expected = encode_pairs(tiny_tokenizer, PAIRS[:1])
    assert encode_pairs(tiny_tokenizer, [{"prompt": prompt, **replies}]) == expected
    whole = {side: prompt + reply for side, reply in replies.items()}
    assert encode_pairs(tiny_tokenizer, [whole]) == expected
    other = [{"role": "user", "content": "Is gold a metal?"}] + replies["rejected"]
    with pytest.raises(AlignlabError, match="row 0 differ before their last"):
        encode_pairs(tiny_tokenizer, [{**whole, "rejected": other}])


def test_identical_and_long_pairs_are_left_out_and_counted(tiny_tokenizer):
    same = {**PAIRS[0], "rejected": PAIRS[0]["chosen"]}
    long = {**PAIRS[0], "rejected": 30 * "the yen "}
    mixed = [same, PAIRS[0], long, same, PAIRS[1]]
    with pytest.warns(UserWarning, match="of 5 pairs, 1 have .* 40 tokens and 2 have"):
        kept = encode_pairs(tiny_tokenizer, mixed, 40)
    assert kept == encode_pairs(tiny_tokenizer, PAIRS[:2])
    with pytest.raises(AlignlabError, match="None is left.* of 1 pairs, 0 .* and 1"):
        encode_pairs(tiny_tokenizer, [same])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode_pairs(tiny_tokenizer, PAIRS, 40)


def test_missing_columns_are_named_with_the_row(tiny_tokenizer):
    without = {k: v for k, v in PAIRS[1].items() if k != "rejected"}
    with pytest.raises(AlignlabError, match=r"Row 1 has no rejected; it has \['chosen"):
        encode_pairs(tiny_tokenizer, [PAIRS[0], without])
    with pytest.raises(AlignlabError, match="Row 0 has no prompt"):
        encode_pairs(tiny_tokenizer, [{"chosen": "Yes.", "rejected": "No."}])
    with pytest.raises(AlignlabError, match="Row 0 has no label"):
        encode_unpaired(tiny_tokenizer, [{"prompt": "Is it?", "completion": "Yes."}])
    with pytest.raises(AlignlabError, match="There is no pair"):
        encode_pairs(tiny_tokenizer, [])


def test_unpaired_rows_keep_their_labels_when_long_ones_go(tiny_tokenizer):
    rows = [
        {"prompt": "Is gold?", "completion": 30 * "Yes. ", "label": True},
        {"prompt": "Is gold?", "completion": "Yes.", "label": True},
        {"prompt": "Is gold?", "completion": "No", "label": False},
    ]
    with pytest.warns(UserWarning, match="1 of 3 texts are longer than 40 tokens"):
        texts = encode_unpaired(tiny_tokenizer, rows, 40)
    assert [good for _, _, good in texts] == [True, False]
    assert texts[1][:2] == tokens_of(tiny_tokenizer, "Is gold?", "No")
    with pytest.raises(AlignlabError, match="None of the 3 texts fits into 2"):
        encode_unpaired(tiny_tokenizer, rows, 2)


# --- log-probabilities and batches ----------------------------------------------------


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_log_probs_are_each_completions_own_in_the_order_given(
    tiny_model, tiny_tokenizer, batch_size
):
    two = encode_pairs(tiny_tokenizer, PAIRS)
    expected = both_alone(tiny_model, two)
    tiny_model.train()
    for layer in tiny_model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    found = log_probs_of(tiny_model, two, tiny_tokenizer.pad_token_id, batch_size)
    assert tiny_model.training
    for a, b in zip(found, expected, strict=True):
        assert a.tolist() == pytest.approx(b.tolist(), rel=1e-4)


def test_a_batch_holds_its_pairs_and_what_is_known_of_them():
    two = [Two([i], [i] * (1 + i % 4), [i] * (4 - i % 3)) for i in range(20)]
    known = {"number": torch.arange(20.0)}
    stream, seen = batches(two, known, 6, seed=0, pad_token_id=99), []
    for _ in range(4):
        batch = next(stream)
        rows = [two[int(number)] for number in batch["number"]]
        packed = pack(rows, 99)
        assert len(rows) == 5 and set(batch) == {*packed, "number"}
        for name, values in packed.items():
            assert torch.equal(batch[name], values)
        seen += batch["number"].tolist()
    assert sorted(seen) == list(range(20))
    with pytest.raises(ValueError, match="batch_size is 0 with 20"):
        next(batches(two, known, 0, 0, 0))


def test_the_seed_fixes_the_order_and_no_two_epochs_are_alike():
    two = [Two([i], [i], [i]) for i in range(40)]

    def order(seed):
        stream = batches(two, {}, 4, seed, 0)
        return [tuple(next(stream)["input_ids"][:, 0].tolist()) for _ in range(20)]

    assert order(3) == order(3) != order(4)
    first, second = order(3)[:10], order(3)[10:]
    assert not {frozenset(b) for b in first} & {frozenset(b) for b in second}


# --- one step -------------------------------------------------------------------------


@pytest.fixture
def step_case(tiny_model, tiny_tokenizer):
    """A float64 policy and reference, pairs of unequal lengths, and their batch."""
    policy = moved(tiny_model.double())
    two = encode_pairs(tiny_tokenizer, PAIRS)
    with torch.no_grad():
        known = dict(
            zip(
                ("ref_chosen", "ref_rejected"), both_alone(tiny_model, two), strict=True
            )
        )
    known["number"] = torch.arange(len(two))
    batch = next(batches(two, known, len(two), 0, tiny_tokenizer.pad_token_id))
    return policy, [two[i] for i in batch.pop("number")], batch


def by_hand(policy, two, batch, loss_type, dials):
    """The batch's loss from separate rows without padding, all logits of each."""
    sides = both_alone(policy, two)
    counts = [torch.tensor([len(pair[side]) for pair in two]) for side in (1, 2)]
    if loss_type in ("orpo", "simpo"):
        means = [total / count for total, count in zip(sides, counts, strict=True)]
        loss = {"orpo": orpo_loss, "simpo": simpo_loss}[loss_type]
        return loss(*means, BETA, **dials).mean()
    reference = batch["ref_chosen"], batch["ref_rejected"]
    counts = dict(zip(("chosen_tokens", "rejected_tokens"), counts, strict=True))
    return dpo_loss(*sides, *reference, BETA, loss_type, **dials, **counts).mean()


EXAMPLE_DIALS = {"label_smoothing": 0.2, "penalty": 3.0, "gamma": 0.7}


@pytest.mark.parametrize("loss_type", sorted(set(DIALS) - {"kto"}))
def test_the_step_has_the_loss_and_gradient_of_the_objective(step_case, loss_type):
    policy, two, batch = step_case
    dials = {name: EXAMPLE_DIALS[name] for name in DIALS[loss_type]}
    expected = by_hand(policy, two, batch, loss_type, dials)
    wanted = torch.autograd.grad(expected, list(policy.parameters()))
    loss, _ = preference_step(policy, batch, loss_type, BETA, **dials)
    found = torch.autograd.grad(loss, list(policy.parameters()))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-9)
    scale = max(gradient.abs().max() for gradient in wanted)
    for a, b in zip(found, wanted, strict=True):  # norms are taken in float32
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 * scale)


def test_the_logs_are_implicit_rewards_and_log_probabilities(step_case):
    policy, two, batch = step_case
    with torch.no_grad():
        chosen, rejected = both_alone(policy, two)
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
    counts = torch.tensor([len(pair.first) for pair in two])
    mean_reward = (2.0 * chosen / counts).mean().item()
    assert logs["rewards/chosen"] == pytest.approx(mean_reward, rel=1e-9)


def test_equal_rewards_are_right_half_the_time(tiny_model):
    batch = next(batches([Two([5, 6], [7], [7])], {}, 1, 0, 0))
    batch |= {"ref_chosen": torch.tensor([-1.0]), "ref_rejected": torch.tensor([-1.0])}
    _, logs = preference_step(tiny_model, batch)
    assert logs["rewards/accuracies"] == 0.5


def kto_case(tokenizer):
    """Unpaired rows, and by hand each with the completion of the row before."""
    rows = [
        {"prompt": pair["prompt"], "completion": pair["chosen"], "label": i % 3 > 0}
        for i, pair in enumerate(PAIRS)
    ]
    texts = [tokens_of(tokenizer, row["prompt"], row["completion"]) for row in rows]
    two = [Two(*text, texts[i - 1][1]) for i, text in enumerate(texts)]
    return rows, two


def test_kto_takes_its_reference_point_from_mismatched_texts(
    tiny_model, tiny_tokenizer
):
    """The first step of a training whose batch is everything."""
    reference, policy = tiny_model, moved(tiny_model)
    rows, two = kto_case(tiny_tokenizer)
    with torch.no_grad():
        now, now_other = both_alone(policy, two)
        ref, ref_other = both_alone(reference, two)
    good = torch.tensor([row["label"] for row in rows])
    kl = (now_other - ref_other).mean()
    expected = kto_loss(now, ref, good, kl, BETA, 1.3, 0.7).mean().item()
    history = learn(
        policy,
        tiny_tokenizer,
        rows,
        loss_type="kto",
        reference=reference,
        steps=1,
        desirable_weight=1.3,
        undesirable_weight=0.7,
    )
    assert history[0]["loss"] == pytest.approx(expected, rel=1e-4)
    assert history[0]["kl"] == pytest.approx(max(kl.item(), 0), rel=1e-3, abs=1e-5)
    rewards = BETA * (now - ref)
    assert history[0]["rewards/chosen"] == pytest.approx(
        rewards[good].mean().item(), rel=1e-3
    )
    assert history[0]["rewards/rejected"] == pytest.approx(
        rewards[~good].mean().item(), rel=1e-3
    )


def test_no_prompt_meets_its_own_completion_in_the_mismatched_texts(tiny_tokenizer):
    two = encode_pairs(tiny_tokenizer, [PAIRS[0], PAIRS[0], PAIRS[1], PAIRS[1]])
    texts = [(pair.prompt, pair.first, True) for pair in two]
    found = _mismatched(texts, 100)
    assert [row[:2] for row in found] == [text[:2] for text in texts]
    assert [row.second for row in found] == [two[i].first for i in (2, 3, 0, 1)]
    cut = _mismatched(texts, len(two[0].prompt) + 2)
    assert cut[0].second == two[2].first[:2] and len(two[2].first) > 2


def test_ktos_reference_point_has_no_gradient(tiny_model, tiny_tokenizer):
    _, two = kto_case(tiny_tokenizer)
    known = {
        "ref": torch.full((5,), -9.0),
        "ref_mismatched": torch.full((5,), -200.0),  # a reference point above 0
        "desirable": torch.ones(5, dtype=torch.bool),
    }
    batch = next(batches(two, known, 5, 0, 0))
    loss, logs = kto_step(tiny_model, batch, BETA)
    found = torch.autograd.grad(loss, list(tiny_model.parameters()))
    log_probs = both_alone(tiny_model, two)[0]
    kl = torch.tensor(logs["kl"])
    fixed = kto_loss(log_probs, known["ref"], known["desirable"], kl, BETA).mean()
    assert logs["kl"] > 1 and math.isnan(logs["rewards/rejected"])
    wanted = torch.autograd.grad(fixed, list(tiny_model.parameters()))
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


# --- training -------------------------------------------------------------------------


@pytest.mark.parametrize("loss_type", sorted(set(DIALS) - {"unweighted"}))
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
    # Once at the trial both ways, once to be read: all the pairs in two or three rows.
    assert len(read) == 3 + 1 and read[3] <= len(PAIRS)
    assert all(p.grad is None for p in reference.parameters())
    for name, value in reference.state_dict().items():
        assert torch.equal(value, weights[name])


def test_what_the_reference_says_can_be_brought_along(tiny_model, tiny_tokenizer):
    reference, other = moved(tiny_model), copy.deepcopy(tiny_model)
    two = encode_pairs(tiny_tokenizer, PAIRS)
    known = log_probs_of(reference, two, tiny_tokenizer.pad_token_id)
    read = learn(tiny_model, tiny_tokenizer, steps=5, reference=reference)
    brought = learn(other, tiny_tokenizer, steps=5, ref_log_probs=known)
    for one, same in zip(read, brought, strict=True):
        assert one["loss"] == pytest.approx(same["loss"], rel=1e-6)
    assert read[0]["loss"] != pytest.approx(math.log(2), abs=1e-3)
    short = tuple(log_probs[:-1] for log_probs in known)
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
    looks = [row["step"] for row in history if "held_out/accuracies" in row]
    assert looks == [3, 6, 7] and seen == history
    two = encode_pairs(tiny_tokenizer, lists["held_out"])
    after = both_alone(watched, two)[1].mean().item()
    assert history[-1]["held_out/log_probs/rejected"] == pytest.approx(after, rel=1e-4)


def test_ktos_pairs_are_as_many_texts_a_step(tiny_model, tiny_tokenizer, monkeypatch):
    sizes = []

    def counted(pairs, *rest):
        sizes.append(len(pairs))
        return pack(pairs, *rest)

    monkeypatch.setattr(dpo, "pack", counted)
    for loss_type, texts in (("kto", 1), ("sigmoid", 2)):
        settings = dict(steps=4, batch_size=2, loss_type=loss_type)
        learn(tiny_model, tiny_tokenizer, PAIRS[:4], **settings)
        assert [texts * size for size in sizes[-4:]] == [4, 4, 4, 4]


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


# --- wrong arguments ------------------------------------------------------------------


def test_a_reference_with_another_vocabulary_is_refused(tiny_model, tiny_tokenizer):
    other = copy.deepcopy(tiny_model)
    other.resize_token_embeddings(400)
    with pytest.raises(AlignlabError, match="vocabulary of 400 tokens and the policy"):
        learn(tiny_model, tiny_tokenizer, reference=other)


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
    with pytest.raises(AlignlabError, match="does not read two completions in one row"):
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
        (dict(gamma=1.0), "gamma is 1.0, and loss_type 'sigmoid' has no such dial"),
        (dict(loss_type="ipo", label_smoothing=0.1), "it has none besides beta"),
        (dict(label_smoothing=0.5), "label_smoothing is 0.5"),
        (dict(loss_type="kto", desirable_weight=0.0), "desirable_weight is 0.0"),
    ],
)
def test_wrong_dials_are_refused_before_anything_is_read(settings, message):
    with pytest.raises(ValueError, match=message):
        learn(Unread(), None, **settings)


def test_every_loss_of_the_family_can_be_trained():
    assert set(DIALS) == {*DpoLossType.__args__, "orpo", "simpo", "kto"}
