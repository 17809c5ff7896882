"""Training reward models: comparisons lose nothing, the loss is the objective's, and a
visible preference is learned."""

import copy
import itertools
import math
import warnings
from itertools import islice

import numpy as np
import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from alignlab.errors import AlignlabError
from alignlab.models.base import evaluation_mode, save_model
from alignlab.models.reward import load_reward_model, reward_model_from, score
from alignlab.models.text import encode_dialogues
from alignlab.objectives import (
    all_pairs_loss,
    bradley_terry_loss,
    centring_loss,
    plackett_luce_loss,
)
from alignlab.training.reward import (
    Comparison,
    batches,
    collate,
    encode,
    order_accuracy,
    reward_step,
    train_reward_model,
)

PAIRS = [
    {
        "prompt": "What is the capital of France?",
        "chosen": "Paris.",
        "rejected": "Yes.",
    },
    {"prompt": "Is gold a metal?", "chosen": "Yes.", "rejected": "The yen is money."},
    {
        "prompt": "The number of iron?",
        "chosen": "26",
        "rejected": "Iron has number 79.",
    },
]
RANKINGS = [
    {"prompt": "Is gold a metal?", "completions": ["Yes.", "Yes. Gold is.", "", "79"]},
    {
        "prompt": "The capital of Peru?",
        "completions": ["Oslo.", "", "Paris.", "the sol"],
    },
]


@pytest.fixture
def model(tiny_model):
    """A reward model whose rewards differ from the start, in double precision."""
    model = reward_model_from(tiny_model, seed=0).double()
    torch.nn.init.normal_(
        model.score.weight, generator=torch.Generator().manual_seed(1)
    )
    return model


@pytest.fixture
def policy(tiny_model):
    """The tiny model with the usual small initial weights, as trained ones are."""
    torch.manual_seed(0)
    for parameter in tiny_model.parameters():
        if parameter.ndim == 2:
            torch.nn.init.normal_(parameter, std=0.05)
    return tiny_model


def batch_of(examples, tokenizer, **options):
    encoded = encode(tokenizer, examples, **options)
    return collate(encoded, tokenizer.pad_token_id)


def with_column(name, values, pairs=PAIRS):
    return [pair | {name: value} for pair, value in zip(pairs, values, strict=True)]


# --- encoding -------------------------------------------------------------------------


def test_pairs_are_the_prompt_with_each_reply_chosen_first(tiny_tokenizer):
    for pair, comparison in zip(PAIRS, encode(tiny_tokenizer, PAIRS), strict=True):
        assert [tiny_tokenizer.decode(d) for d in comparison.dialogues] == [
            f"<|user|> {pair['prompt']}<|end|><|assistant|> {pair[name]}<|end|>"
            for name in ("chosen", "rejected")
        ]
        assert comparison.margin is comparison.probability is None


def test_rankings_keep_their_order_and_columns_come_along(tiny_tokenizer):
    first, _ = encode(tiny_tokenizer, RANKINGS)
    expected = encode_dialogues(
        tiny_tokenizer, 4 * [RANKINGS[0]["prompt"]], RANKINGS[0]["completions"]
    )
    assert first.dialogues == expected
    pairs = with_column("margin", [1, 0.5, 0])
    pairs = with_column("probability", [0.9, 1, 0], pairs)
    encoded = encode(tiny_tokenizer, pairs, soft_labels=True)
    assert [c.margin for c in encoded] == [1, 0.5, 0]
    assert [c.probability for c in encoded] == [0.9, 1, 0]
    assert all(c.probability is None for c in encode(tiny_tokenizer, pairs))


def test_a_data_set_and_messages_are_read_like_a_list_of_strings(tiny_tokenizer):
    from datasets import Dataset

    expected = encode(tiny_tokenizer, PAIRS)
    assert encode(tiny_tokenizer, Dataset.from_list(PAIRS)) == expected
    as_messages = [
        {
            "prompt": [{"role": "user", "content": pair["prompt"]}],
            "chosen": [{"role": "assistant", "content": pair["chosen"]}],
            "rejected": [{"role": "assistant", "content": pair["rejected"]}],
        }
        for pair in PAIRS
    ]
    assert encode(tiny_tokenizer, as_messages) == expected


def test_each_side_is_read_with_its_own_history_and_the_prompt_once(tiny_tokenizer):
    asked = [{"role": "user", "content": "Is gold a metal?"}]
    sides = [
        [
            {"role": "assistant", "content": first},
            {"role": "user", "content": second},
            {"role": "assistant", "content": last},
        ]
        for first, second, last in (("Yes.", "Peru?", "sol"), ("No", "Oslo?", "79"))
    ]
    texts = [
        tiny_tokenizer.apply_chat_template(asked + side, tokenize=False)
        for side in sides
    ]
    expected = [Comparison(tiny_tokenizer(texts)["input_ids"])]
    for prompt, start in ((asked, []), (None, asked), ("Is gold a metal?", asked)):
        chosen, rejected = (start + side for side in sides)
        row = {"prompt": prompt, "chosen": chosen, "rejected": rejected}
        assert encode(tiny_tokenizer, [row]) == expected
        row = {"prompt": prompt, "completions": [chosen, rejected]}
        assert encode(tiny_tokenizer, [row]) == expected


def test_unfinished_turns_and_arguments_of_the_template(tiny_tokenizer, monkeypatch):
    toned = tiny_tokenizer.chat_template.replace("<|end|>", "{{ tone }}<|end|>")
    monkeypatch.setattr(tiny_tokenizer, "chat_template", toned)
    prompt = [
        {"role": "user", "content": "Is gold?"},
        {"role": "assistant", "content": "It is"},
    ]
    row = {"prompt": prompt, "chosen": " a metal", "rejected": " the yen"}
    rows = [row, row | {"chat_template_kwargs": {"tone": "?"}}]
    found = encode(tiny_tokenizer, rows, chat_template_kwargs={"tone": "."})
    for comparison, tone in zip(found, ".?", strict=True):
        texts = [tiny_tokenizer.decode(ids) for ids in comparison.dialogues]
        start = f"<|user|> Is gold?{tone}<|end|><|assistant|> It is"
        ends = [f" a metal{tone}<|end|>", f" the yen{tone}<|end|>"]
        assert texts == [start + end for end in ends]


def test_without_a_chat_template_pairs_are_plain_text(tiny_tokenizer, monkeypatch):
    monkeypatch.setattr(tiny_tokenizer, "chat_template", None)
    (found,) = encode(tiny_tokenizer, PAIRS[1:2])
    texts = [tiny_tokenizer.decode(ids) for ids in found.dialogues]
    assert texts == [
        f" {PAIRS[1]['prompt']}{PAIRS[1][side]}<|end|>"
        for side in ("chosen", "rejected")
    ]


def test_what_teaches_nothing_or_is_too_long_is_left_out_and_counted(tiny_tokenizer):
    same = PAIRS[0] | {"rejected": "Paris."}
    long = PAIRS[0] | {"rejected": 20 * "Is gold a metal? "}
    message = "of 5 comparisons, 1 have .* 60 tokens and 1 compare equal texts"
    with pytest.warns(UserWarning, match=message):
        kept = encode(tiny_tokenizer, [same, *PAIRS, long], max_length=60)
    assert kept == encode(tiny_tokenizer, PAIRS)
    with pytest.raises(AlignlabError, match="None is left .* and 2 compare equal"):
        encode(tiny_tokenizer, [same, same])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        encode(tiny_tokenizer, PAIRS, max_length=60)


def test_wrong_examples_are_named(tiny_tokenizer):
    def refused(message, examples, **options):
        with pytest.raises(AlignlabError, match=message):
            encode(tiny_tokenizer, examples, **options)

    refused("no comparison", [])
    refused(
        "Row 1 has no rejected; .*'chosen'",
        [PAIRS[0], {"prompt": "", "chosen": ""}],
    )
    refused("Row 0 has no prompt", [{"completions": ["Yes.", "No."]}])
    one = RANKINGS[0] | {"completions": ["Yes."]}
    refused("Row 0 ranks 1 completions.*at least two", [one])
    three = RANKINGS[1] | {"completions": ["Yes.", "No.", ""]}
    refused("Row 1 compares 3 replies, and the first 4", [RANKINGS[0], three])
    refused("probability of row 0 is None", PAIRS, soft_labels=True)
    for wrong in (float("nan"), 1.2, "half"):
        pairs = with_column("probability", [0.5, wrong, 1])
        refused(f"probability of row 1 is .*{wrong}.* 0 to 1", pairs, soft_labels=True)
    refused("margin of row 2 is inf", with_column("margin", [0, 1, float("inf")]))
    refused("margin of row 1 is None", [PAIRS[0] | {"margin": 1}, PAIRS[1]])


# --- batches --------------------------------------------------------------------------


def numbered(n):
    """Comparisons of 8 to 40 tokens; all tokens of one hold its number."""
    lengths = [8 + i * 7 % 33 for i in range(n)]
    return [Comparison([[i] * length, [i] * 5]) for i, length in enumerate(lengths)]


@pytest.mark.parametrize("n, batch_size", [(3, 8), (8, 8), (9, 8), (400, 8)])
def test_each_epoch_has_each_comparison_once_and_whole(n, batch_size):
    stream = batches(numbered(n), batch_size, 0, pad_token_id=-1)
    orders = []
    for _ in range(2):
        epoch = list(islice(stream, math.ceil(n / batch_size)))
        orders.append([batch["input_ids"][:, 0, 0].tolist() for batch in epoch])
        assert sorted(sum(orders[-1], [])) == list(range(n))
        for batch in epoch:
            ids = batch["input_ids"]  # (B, 2, T)
            assert torch.equal(ids[:, 0, 0], ids[:, 1, 0])
            assert batch["attention_mask"][:, 0].sum(1).max() == ids.shape[2]
            assert n <= batch_size or batch_size / 2 <= len(ids) <= batch_size
    if n == 400:
        assert orders[0] != orders[1]
        padding = [1 - b["attention_mask"][:, 0].float().mean() for b in epoch]
        assert np.mean(padding) < 0.15  # in random order about 0.35


def test_the_seed_fixes_every_batch():
    def first(seed):
        return next(batches(numbered(50), 8, seed, pad_token_id=-1))[
            "input_ids"
        ].tolist()

    assert first(3) == first(3) != first(4)
    with pytest.raises(ValueError, match="batch_size is 0 with 3 rows"):
        next(batches(numbered(3), 0, 0, pad_token_id=-1))


# --- the step -------------------------------------------------------------------------


def rewards_of(model, batch):
    """One row at a time, cut to its real tokens: (B, K)."""
    rows = zip(
        batch["input_ids"].flatten(0, 1),
        batch["attention_mask"].flatten(0, 1),
        strict=True,
    )
    found = [model.score(model.model(i[m == 1][None])[0][0, -1]) for i, m in rows]
    return torch.cat(found).view(batch["input_ids"].shape[:2])


@pytest.mark.parametrize(
    "columns, options",
    [
        ({}, {}),
        ({"margin": [1.0, 0.5, 2.0]}, {"label_smoothing": 0.2}),
        ({"probability": [0.9, 0.2, 0.5]}, {"center_rewards_coefficient": 0.3}),
    ],
)
def test_the_step_of_pairs_has_the_loss_and_gradient_of_the_objective(
    model, tiny_tokenizer, columns, options
):
    pairs = PAIRS
    for name, values in columns.items():
        pairs = with_column(name, values, pairs)
    batch = batch_of(pairs, tiny_tokenizer, soft_labels="probability" in columns)
    rewards = rewards_of(model, batch)
    expected = bradley_terry_loss(
        *rewards.T,
        **{name: torch.tensor(values) for name, values in columns.items()},
        label_smoothing=options.get("label_smoothing", 0.0),
    )
    coefficient = options.get("center_rewards_coefficient", 0.0)
    expected = expected + coefficient * centring_loss(rewards)
    loss, logs = reward_step(model, batch, **options)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-6)
    gap = rewards[:, 0] - rewards[:, 1]
    assert logs["gap"] == pytest.approx(gap.mean().item(), rel=1e-6)
    assert logs["accuracy"] == pytest.approx((gap > 0).double().mean().item())
    weights = list(model.parameters())
    wanted = torch.autograd.grad(expected, weights)
    found = torch.autograd.grad(loss, weights)
    for a, b in zip(found, wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize(
    "name, of_rankings",
    [("plackett_luce", plackett_luce_loss), ("all_pairs", all_pairs_loss)],
)
def test_the_step_of_rankings_is_the_chosen_loss(
    model, tiny_tokenizer, name, of_rankings
):
    batch = batch_of(RANKINGS, tiny_tokenizer)
    rewards = rewards_of(model, batch)
    loss, logs = reward_step(model, batch, ranking_loss=name)
    assert loss.item() == pytest.approx(of_rankings(rewards).item(), rel=1e-6)
    right = [a > b for row in rewards for a, b in itertools.combinations(row, 2)]
    assert logs["accuracy"] == pytest.approx(np.mean(right))
    with pytest.raises(ValueError, match="ranking_loss is 'listwise'"):
        reward_step(model, batch, ranking_loss="listwise")
    with pytest.raises(ValueError, match="label_smoothing is 0.1; it is for pairs"):
        reward_step(model, batch, label_smoothing=0.1)


def test_a_ranking_of_two_is_a_pair(model, tiny_tokenizer):
    rankings = [
        {"prompt": pair["prompt"], "completions": [pair["chosen"], pair["rejected"]]}
        for pair in PAIRS
    ]
    assert encode(tiny_tokenizer, rankings) == encode(tiny_tokenizer, PAIRS)


def test_a_constant_reward_is_at_chance():
    assert order_accuracy(torch.ones(5, 3)) == 0.5
    assert order_accuracy(torch.tensor([[3.0, 2.0, 1.0]])) == 1
    assert order_accuracy(torch.tensor([[1.0, 3.0, 2.0]])) == pytest.approx(1 / 3)


# --- training -------------------------------------------------------------------------


def visible(n, seed=0):
    """Pairs in which the reply that opens with "Yes" is always preferred."""
    random = np.random.default_rng(seed)
    words = ["gold", "iron", "Paris", "Oslo", "yen", "sol", "metal", "money", "Kenya"]

    def text():
        return " ".join(random.choice(words, 3))

    return [
        {
            "prompt": f"Is {text()}?",
            "chosen": f"Yes {text()}",
            "rejected": f"The {text()}",
        }
        for _ in range(n)
    ]


def turned(pairs):
    return [p | {"chosen": p["rejected"], "rejected": p["chosen"]} for p in pairs]


def differences(model, tokenizer, pairs):
    prompts = [pair["prompt"] for pair in pairs]
    chosen, rejected = (
        score(model, tokenizer, prompts, [pair[name] for pair in pairs])
        for name in ("chosen", "rejected")
    )
    return chosen - rejected


def fit(policy, tokenizer, examples, seed=0, **settings):
    model = reward_model_from(policy, seed)
    settings = {"learning_rate": 3e-3, "progress": False, "batch_size": 8} | settings
    return model, train_reward_model(model, tokenizer, examples, seed=seed, **settings)


def test_a_visible_preference_is_learned_and_holds_for_new_pairs(
    policy, tiny_tokenizer
):
    model, history = fit(policy, tiny_tokenizer, visible(64), epochs=4)
    assert len(history) == 32 and history[-1]["loss"] < 0.1 < 0.6 < history[0]["loss"]
    assert history[-1]["accuracy"] == 1 and history[-1]["gap"] > 2
    new = differences(model, tiny_tokenizer, visible(40, seed=1))
    assert (new > 0).mean() == 1
    again, same = fit(policy, tiny_tokenizer, visible(64), epochs=4)
    assert [row["loss"] for row in same] == [row["loss"] for row in history]
    assert not model.training


@pytest.mark.parametrize("loss", ["plackett_luce", "all_pairs"])
def test_a_ranking_is_learned(policy, tiny_tokenizer, loss):
    model, history = fit(policy, tiny_tokenizer, RANKINGS, epochs=60, ranking_loss=loss)
    assert history[-1]["accuracy"] == 1 > history[0]["accuracy"]


@pytest.mark.parametrize(
    "pairs, settings",
    [
        (with_column("probability", 3 * [0.8]), {"soft_labels": True}),
        (PAIRS, {"label_smoothing": 0.2}),
    ],
)
def test_doubt_about_labels_stops_the_gap_at_its_log_odds(
    policy, tiny_tokenizer, pairs, settings
):
    model, _ = fit(policy, tiny_tokenizer, pairs, epochs=150, **settings)
    found = differences(model, tiny_tokenizer, PAIRS)
    np.testing.assert_allclose(found, math.log(4), rtol=0.05)


@pytest.mark.parametrize("pad", ["<|pad|>", "<|end|>", None])
def test_a_trained_model_is_a_plain_one_whatever_the_padding(
    policy, tiny_tokenizer, tmp_path, pad
):
    """Saved, and read by `transformers` in a batch, it gives the scores of training."""
    from transformers import AutoModelForSequenceClassification

    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.pad_token = pad
    policy.config.pad_token_id = None
    model, _ = fit(policy, tokenizer, visible(16), epochs=2)
    expected = tokenizer.pad_token_id if pad else tokenizer.eos_token_id
    assert model.config.pad_token_id == expected
    model.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    batch = collate(encode(tokenizer, PAIRS), expected)
    with torch.no_grad():
        ids, mask = batch["input_ids"].flatten(0, 1), batch["attention_mask"]
        read = plain(ids, attention_mask=mask.flatten(0, 1)).logits[:, 0]
    ours = [
        score(model, tokenizer, [p["prompt"]] * 2, [p["chosen"], p["rejected"]])
        for p in PAIRS
    ]
    assert np.ptp(read.numpy()) > 0.1
    np.testing.assert_allclose(np.concatenate(ours), read.numpy(), rtol=1e-3, atol=1e-4)


def test_a_trained_encoder_is_a_plain_one_although_it_pads_with_another_token(
    tiny_tokenizer, tmp_path
):
    """RoBERTa counts positions from behind the number of its padding token."""
    from transformers import AutoModelForSequenceClassification, RobertaConfig

    torch.manual_seed(0)
    config = RobertaConfig(
        vocab_size=len(tiny_tokenizer), hidden_size=32, intermediate_size=32,
        num_hidden_layers=1, num_attention_heads=2, num_labels=1, pad_token_id=9,
        max_position_embeddings=120,
    )  # fmt: skip
    model = AutoModelForSequenceClassification.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(5)
    options = dict(learning_rate=1e-3, progress=False)
    train_reward_model(model, tiny_tokenizer, PAIRS, **options)
    model.save_pretrained(tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    texts = [p["prompt"] for p in PAIRS], [p["chosen"] for p in PAIRS]
    found, expected = (score(m, tiny_tokenizer, *texts) for m in (plain, model))
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(found, expected, atol=1e-4)


@pytest.mark.parametrize("pad", ["<|pad|>", "<|end|>"])
def test_trained_adapters_give_the_same_scores_when_loaded(
    policy, tiny_tokenizer, tmp_path, pad
):
    peft = pytest.importorskip("peft")
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.pad_token = pad
    policy.config.pad_token_id = None
    save_model(reward_model_from(policy), tokenizer, tmp_path / "base")
    base, _ = load_reward_model(tmp_path / "base")
    adapted = peft.get_peft_model(base, peft.LoraConfig(task_type="SEQ_CLS"))
    options = dict(learning_rate=3e-2, epochs=8, progress=False)
    with pytest.warns(UserWarning, match="pad_token_id was None.*load_reward_model"):
        train_reward_model(adapted, tokenizer, PAIRS, **options)
    save_model(adapted, tokenizer, tmp_path / "adapters")
    texts = [p["prompt"] for p in PAIRS], [p["chosen"] for p in PAIRS]
    expected = score(adapted, tokenizer, *texts)
    found = score(*load_reward_model(tmp_path / "adapters"), *texts)
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_reward_models_with_virtual_tokens_are_refused(policy, tiny_tokenizer):
    peft = pytest.importorskip("peft")
    settings = peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=3)
    tuned = peft.get_peft_model(reward_model_from(policy), settings)
    with pytest.raises(AlignlabError, match="virtual tokens"):
        train_reward_model(tuned, tiny_tokenizer, PAIRS, learning_rate=1e-3)


def test_models_that_cannot_be_trained_are_refused_in_words(policy, tiny_tokenizer):
    with pytest.raises(AlignlabError, match="label|number per"):
        train_reward_model(policy, tiny_tokenizer, PAIRS, learning_rate=1e-3)
    frozen = reward_model_from(policy).requires_grad_(False)
    with pytest.raises(AlignlabError, match="can be trained"):
        train_reward_model(frozen, tiny_tokenizer, PAIRS, learning_rate=1e-3)


def test_examples_and_validation_come_in_any_form(policy, tiny_tokenizer):
    from datasets import Dataset

    expected = fit(policy, tiny_tokenizer, PAIRS, validation=PAIRS)[1]
    streamed = Dataset.from_list(PAIRS).to_iterable_dataset()
    found = fit(policy, tiny_tokenizer, iter(PAIRS), validation=streamed)[1]
    assert [row["loss"] for row in found] == [row["loss"] for row in expected]
    assert found[-1]["validation_loss"] == expected[-1]["validation_loss"]


def test_centring_ties_the_level_down(policy, tiny_tokenizer):
    ends = [d[-1:] for c in encode(tiny_tokenizer, PAIRS) for d in c.dialogues]
    end = policy.model(torch.tensor(ends)).last_hidden_state.detach().mean((0, 1))

    def level(coefficient):
        model = reward_model_from(policy, seed=0)
        with torch.no_grad():  # rewards of about 1, as they may be by chance
            model.score.weight += end / end.square().sum()
        settings = {"learning_rate": 3e-3, "epochs": 5, "progress": False}
        train_reward_model(
            model,
            tiny_tokenizer,
            PAIRS,
            center_rewards_coefficient=coefficient,
            **settings,
        )
        with torch.no_grad():
            rewards = rewards_of(model, batch_of(PAIRS, tiny_tokenizer))
        return rewards.sum(1).abs().mean().item()

    assert level(1.0) < 0.5 * level(0.0)


def test_the_best_epoch_on_the_validation_split_is_kept(policy, tiny_tokenizer):
    """Validation disagrees with the labels, so the first epoch is the best one."""
    policy.config.attention_dropout = 0.1  # none of it while the model is judged
    train, validation = visible(24), turned(visible(21, seed=1))
    settings = dict(epochs=3, disable_dropout=False)
    model, history = fit(
        policy, tiny_tokenizer, train, validation=validation, **settings
    )
    judged = {
        r["step"]: r["validation_loss"] for r in history if "validation_loss" in r
    }
    assert list(judged) == [3, 6, 9] and judged[3] < judged[6] < judged[9]
    gaps = differences(model, tiny_tokenizer, validation)
    loss = np.log1p(np.exp(-gaps)).mean()
    assert loss == pytest.approx(judged[3], rel=1e-4)
    assert history[2]["validation_accuracy"] == pytest.approx((gaps > 0).mean())
    last, _ = fit(policy, tiny_tokenizer, train, **settings)
    gaps = differences(last, tiny_tokenizer, validation)
    assert np.log1p(np.exp(-gaps)).mean() == pytest.approx(judged[9], rel=1e-4)


def test_wrong_settings_are_named(policy, tiny_tokenizer):
    def refused(message, **settings):
        with pytest.raises(ValueError, match=message):
            fit(policy, tiny_tokenizer, PAIRS, **settings)

    refused("epochs is 0", epochs=0)
    refused("batch_size 0", batch_size=0)
    refused("center_rewards_coefficient -1", center_rewards_coefficient=-1)
    refused("label_smoothing is 0.5", label_smoothing=0.5)
    refused("ranking_loss is 'pairs'", ranking_loss="pairs")
    refused("on_log cannot go with validation", validation=PAIRS, on_log=print)
    with pytest.raises(AlignlabError, match="no comparison"):
        fit(policy, tiny_tokenizer, PAIRS, validation=[])


def test_rewards_that_are_not_numbers_stop_the_training(policy, tiny_tokenizer):
    model = reward_model_from(policy)
    with torch.no_grad():
        model.score.weight[0, 0] = float("nan")
    with pytest.raises(AlignlabError, match="step 1 of reward model the loss is nan"):
        train_reward_model(
            model, tiny_tokenizer, PAIRS, learning_rate=1e-3, progress=False
        )


def test_without_dropout_the_loss_is_that_of_eval_mode(policy, tiny_tokenizer):
    config = GPT2Config(  # its dropout is 0.1 everywhere
        vocab_size=len(tiny_tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=4
    )
    torch.manual_seed(0)
    model = reward_model_from(GPT2LMHeadModel(config).train())
    torch.nn.init.normal_(model.score.weight)
    with torch.no_grad(), evaluation_mode(model):
        expected = reward_step(model, batch_of(PAIRS, tiny_tokenizer))[0].item()

    def first_loss(**settings):
        history = train_reward_model(
            copy.deepcopy(model),
            tiny_tokenizer,
            PAIRS,
            learning_rate=1e-3,
            progress=False,
            **settings,
        )
        return history[0]["loss"]

    assert first_loss() == pytest.approx(expected, rel=1e-6)
    assert first_loss(seed=1) == pytest.approx(expected, rel=1e-6)
    assert abs(first_loss(disable_dropout=False) - expected) > 1e-3
