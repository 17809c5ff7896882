"""Reward models: the policy's trunk, pooling at the last real token, and ensembles."""

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaForSequenceClassification,
    MambaConfig,
    MambaForCausalLM,
)

from alignlab.errors import AlignlabError
from alignlab.models.base import save_model
from alignlab.models.reward import (
    combine,
    load_reward_model,
    reward_model_from,
    score,
    sequence_rewards,
)
from alignlab.models.text import encode_dialogues

PROMPTS = ["What is the capital of France?", "Is gold a metal?", "The money of Japan?"]
REPLIES = ["Paris. The capital of France is Paris.", "Yes.", ""]


@pytest.fixture
def reward_model(tiny_model):
    """A reward model whose rewards differ between texts by more than rounding."""
    model = reward_model_from(tiny_model, seed=0)
    torch.nn.init.normal_(
        model.score.weight, generator=torch.Generator().manual_seed(1)
    )
    return model


def by_hand(model, ids):
    """One dialogue at a time, so that there is neither padding nor a batch."""
    with torch.no_grad():
        hidden = model.model(torch.tensor([ids])).last_hidden_state[0, -1]
        return (hidden @ model.score.weight[0]).item()


def padded(rows, pad, side):
    width = max(map(len, rows)) + 3
    ids, mask = (
        torch.full((len(rows), width), pad),
        torch.zeros(len(rows), width).long(),
    )
    for number, row in enumerate(rows):
        where = slice(0, len(row)) if side == "right" else slice(width - len(row), None)
        ids[number, where], mask[number, where] = torch.tensor(row), 1
    return ids, mask


# --- making one -----------------------------------------------------------------------


def test_the_trunk_is_the_policys_and_the_policy_keeps_its_own(tiny_model):
    model = reward_model_from(tiny_model, seed=3)
    assert type(model) is LlamaForSequenceClassification
    ids = torch.arange(5, 25).view(2, 10)
    torch.testing.assert_close(
        model.model(ids).last_hidden_state, tiny_model.model(ids).last_hidden_state
    )
    assert model.config.num_labels == 1 != tiny_model.config.num_labels
    before = tiny_model.model.embed_tokens.weight.clone()
    with torch.no_grad():
        model.model.embed_tokens.weight.add_(1)
    torch.testing.assert_close(tiny_model.model.embed_tokens.weight, before)


def test_the_head_is_small_and_depends_on_its_seed(tiny_model):
    torch.manual_seed(0)
    first = reward_model_from(tiny_model, seed=1).score.weight
    again = reward_model_from(tiny_model, seed=1).score.weight
    other = reward_model_from(tiny_model, seed=2).score.weight
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert first.shape == (1, 32)
    assert first.std().item() == pytest.approx(1 / 33, rel=0.4)


def test_models_without_a_classifier_are_refused(tiny_model, tiny_tokenizer):
    mamba = MambaForCausalLM(
        MambaConfig(vocab_size=len(tiny_tokenizer), hidden_size=8, num_hidden_layers=1)
    )
    with pytest.raises(AlignlabError, match="scalar head on a MambaForCausalLM"):
        reward_model_from(mamba)
    peft = pytest.importorskip("peft")
    adapted = peft.get_peft_model(tiny_model, peft.LoraConfig(task_type="CAUSAL_LM"))
    with pytest.raises(AlignlabError, match="adapters merged"):
        reward_model_from(adapted)


def test_a_saved_reward_model_is_a_plain_checkpoint(
    reward_model, tiny_tokenizer, tmp_path
):
    expected = score(reward_model, tiny_tokenizer, PROMPTS, REPLIES)
    save_model(reward_model, tiny_tokenizer, tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    model, tokenizer = load_reward_model(tmp_path)
    for loaded in (plain, model):
        found = score(loaded, tokenizer, PROMPTS, REPLIES)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_language_model_is_not_loaded_as_a_reward_model(
    tiny_model, tiny_tokenizer, tmp_path
):
    save_model(tiny_model, tiny_tokenizer, tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path) is not None
    with pytest.raises(AlignlabError, match="no reward model: it has 2 labels"):
        load_reward_model(tmp_path)


# --- pooling --------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", ["<|pad|>", "<|end|>"])
def test_the_last_real_token_is_pooled_under_any_padding(
    reward_model, tiny_tokenizer, side, pad
):
    """Also where EOS is the padding, so that looking for padding tokens misleads."""
    rows = encode_dialogues(tiny_tokenizer, PROMPTS, REPLIES)
    reward_model.config.pad_token_id = tiny_tokenizer.convert_tokens_to_ids(pad)
    expected = [by_hand(reward_model, row) for row in rows]
    assert np.ptp(expected) > 0.5
    ids, mask = padded(rows, reward_model.config.pad_token_id, side)
    found = sequence_rewards(reward_model, ids, mask)
    torch.testing.assert_close(found, torch.tensor(expected), rtol=1e-4, atol=1e-4)
    plain = reward_model(ids, attention_mask=mask).logits[:, 0]
    assert torch.allclose(plain, found, atol=1e-3) == (pad == "<|pad|>")


@pytest.mark.parametrize("side", ["left", "right"])
def test_positions_start_at_the_first_real_token(tiny_tokenizer, side):
    """GPT-2 adds its positions, so under left padding they must not count padding."""
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(tiny_tokenizer), n_positions=64, n_embd=32, n_layer=2, n_head=2
    )
    model = reward_model_from(GPT2LMHeadModel(config).eval(), seed=0)
    with torch.no_grad():
        model.score.weight.mul_(100)
    rows = [[7, 8, 9, 10, 1], [11, 1]]
    expected = torch.cat(
        [model.score(model.transformer(torch.tensor([r]))[0][:, -1])[0] for r in rows]
    )
    found = sequence_rewards(model, *padded(rows, 0, side))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_lora_adapters_count(reward_model):
    peft = pytest.importorskip("peft")
    settings = peft.LoraConfig(task_type="SEQ_CLS", r=2, init_lora_weights=False)
    torch.manual_seed(0)
    ids, mask = torch.arange(5, 25).view(2, 10), torch.ones(2, 10, dtype=torch.long)
    before = sequence_rewards(reward_model, ids, mask)
    adapted = peft.get_peft_model(reward_model, settings).eval()
    found = sequence_rewards(adapted, ids, mask)
    expected = adapted(ids, attention_mask=mask).logits[:, 0]
    torch.testing.assert_close(found, expected)
    assert (found - before).abs().max() > 1e-3


def test_rows_of_padding_and_wrong_shapes_are_refused(reward_model):
    ids, mask = torch.ones(2, 4).long(), torch.tensor([[1, 1, 1, 0], [0, 0, 0, 0]])
    with pytest.raises(ValueError, match="a real token a row"):
        sequence_rewards(reward_model, ids, mask)
    with pytest.raises(ValueError, match=r"\(2, 4\) and attention_mask \(2, 3\)"):
        sequence_rewards(reward_model, ids, mask[:, :3])


# --- scoring --------------------------------------------------------------------------


def test_scores_are_those_of_each_dialogue_alone_in_the_order_given(
    reward_model, tiny_tokenizer
):
    ids = encode_dialogues(tiny_tokenizer, PROMPTS, REPLIES)
    expected = [by_hand(reward_model, row) for row in ids]
    for layer in reward_model.model.layers:
        layer.self_attn.attention_dropout = 0.5
    reward_model.train()  # yet nothing is dropped
    for batch_size in (1, 2, 256):
        found = score(reward_model, tiny_tokenizer, PROMPTS, REPLIES, batch_size)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert reward_model.training
    assert score(reward_model, tiny_tokenizer, [], []).shape == (0,)


def test_dialogues_that_do_not_fit_are_refused(reward_model, tiny_tokenizer):
    with pytest.raises(
        AlignlabError, match=r"Dialogue 1 has \d+ tokens.*128 positions"
    ):
        score(
            reward_model, tiny_tokenizer, PROMPTS[:2], ["Yes.", 60 * "Gold is a metal."]
        )
    with pytest.raises(ValueError, match="prompts has 3 entries and completions 2"):
        score(reward_model, tiny_tokenizer, PROMPTS, REPLIES[:2])
    with pytest.raises(ValueError, match="batch_size is -1"):
        score(reward_model, tiny_tokenizer, PROMPTS, REPLIES, batch_size=-1)


# --- ensembles ------------------------------------------------------------------------


def test_members_combine_as_documented():
    scores = np.array([[1.0, 4.0], [3.0, 0.0], [2.0, 2.0]])
    np.testing.assert_allclose(combine(scores), [2, 2])
    np.testing.assert_allclose(combine(scores, "worst"), [1, 0])
    spread = [2 / 3, 8 / 3]  # divided by three members
    np.testing.assert_allclose(
        combine(scores, "penalised", penalty=0.5), 2 - 0.5 * np.array(spread)
    )
    np.testing.assert_allclose(combine(scores[:1], "penalised", penalty=9), scores[0])


def test_a_members_level_does_not_count_with_a_reference():
    random = np.random.default_rng(0)
    scores, reference = random.normal(size=(3, 5)), random.normal(size=(3, 7))
    level = np.array([[100.0], [0.0], [-7.0]])
    for how in ("mean", "worst", "penalised"):
        plain = combine(scores, how, reference=reference)
        moved = combine(scores + level, how, reference=reference + level)
        np.testing.assert_allclose(moved, plain, atol=1e-10)
    alike = combine(scores + 5, reference=scores + 5)
    assert alike.mean() == pytest.approx(0, abs=1e-12) and alike.std() > 0.1


def test_wrong_ensembles_are_refused():
    scores = np.ones((3, 4))
    with pytest.raises(ValueError, match="how is 'median'"):
        combine(scores, "median")
    with pytest.raises(ValueError, match=r"scores has shape \(4,\)"):
        combine(scores[0])
    with pytest.raises(ValueError, match="reference has 2 rows and scores 3"):
        combine(scores, reference=scores[:2])
    scores[1, 2] = np.nan
    with pytest.raises(ValueError, match=r"scores\[1, 2\] is nan"):
        combine(scores)
