"""Reward models: the policy's trunk, pooling at the last real token, and ensembles."""

import copy

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    BertConfig,
    BloomConfig,
    ConvBertConfig,
    DebertaV2Config,
    FNetConfig,
    Gemma3TextConfig,
    GPT2Config,
    GPT2LMHeadModel,
    GPTNeoXConfig,
    JambaConfig,
    LlamaForSequenceClassification,
    MambaConfig,
    MambaForCausalLM,
    MobileBertConfig,
    ModernBertConfig,
    NystromformerConfig,
    OPTConfig,
    XLNetConfig,
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

TINY = dict(vocab_size=356, hidden_size=32, intermediate_size=32, num_attention_heads=4)
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


@pytest.mark.parametrize("pad", ["<|pad|>", "<|end|>", "<|system|>"])
def test_a_saved_reward_model_scores_batches_alike_under_any_padding_token(
    reward_model, tiny_tokenizer, tmp_path, pad
):
    reward_model.config.pad_token_id = tiny_tokenizer.convert_tokens_to_ids(pad)
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.pad_token = pad
    save_model(reward_model, tokenizer, tmp_path)
    plain = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    rows = encode_dialogues(tokenizer, PROMPTS, REPLIES)
    batch = tokenizer.pad({"input_ids": rows}, return_tensors="pt")
    expected = score(reward_model, tokenizer, PROMPTS, REPLIES)
    found = plain(**batch).logits[:, 0].detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.ptp(expected) > 0.5


def test_coarse_policies_and_checkpoints_make_float32_reward_models(
    tiny_model, tiny_tokenizer, tmp_path
):
    model = reward_model_from(tiny_model.bfloat16())
    assert model.dtype == torch.float32
    save_model(model.bfloat16(), tiny_tokenizer, tmp_path)
    assert load_reward_model(tmp_path)[0].dtype == torch.float32
    assert load_reward_model(tmp_path, dtype="auto")[0].dtype == torch.bfloat16


def test_adapters_of_a_reward_model_are_loaded_to_be_trained(
    reward_model, tiny_model, tiny_tokenizer, tmp_path
):
    peft = pytest.importorskip("peft")
    save_model(reward_model, tiny_tokenizer, tmp_path / "base")
    base = AutoModelForSequenceClassification.from_pretrained(tmp_path / "base")
    settings = peft.LoraConfig(task_type="SEQ_CLS", init_lora_weights=False)
    adapted = peft.get_peft_model(base, settings).eval()
    expected = score(adapted, tiny_tokenizer, PROMPTS, REPLIES)
    save_model(adapted, tiny_tokenizer, tmp_path / "adapters")
    model, tokenizer = load_reward_model(tmp_path / "adapters")
    found = score(model, tokenizer, PROMPTS, REPLIES)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert any("lora_A" in name for name in trained)
    assert any("score" in name for name in trained)  # saved with the adapters
    tuned = peft.LoraConfig(task_type="CAUSAL_LM", target_modules=["q_proj"])
    peft.get_peft_model(tiny_model, tuned).save_pretrained(tmp_path / "other")
    with pytest.raises(AlignlabError, match="adapters for the task CAUSAL_LM"):
        load_reward_model(tmp_path / "other")


def test_a_language_model_is_not_loaded_as_a_reward_model(
    tiny_model, tiny_tokenizer, tmp_path
):
    save_model(tiny_model, tiny_tokenizer, tmp_path)
    assert AutoModelForCausalLM.from_pretrained(tmp_path) is not None
    with pytest.raises(AlignlabError, match="no reward model: it has 2 labels"):
        load_reward_model(tmp_path)


# --- pooling --------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("pad", ["<|pad|>", "<|end|>", None])
def test_the_score_is_read_where_transformers_reads_it(
    reward_model, tiny_tokenizer, side, pad
):
    """One token early where EOS is the padding; `transformers` has no batches without
    a padding token."""
    rows = encode_dialogues(tiny_tokenizer, PROMPTS, REPLIES)
    reward_model.config.pad_token_id = pad and tiny_tokenizer.convert_tokens_to_ids(pad)
    cut = -1 if pad == "<|end|>" else None
    expected = torch.tensor([by_hand(reward_model, row[:cut]) for row in rows])
    assert np.ptp(expected.numpy()) > 0.5
    ids, mask = padded(rows, reward_model.config.pad_token_id or 0, side)
    found = sequence_rewards(reward_model, ids, mask)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    for number, row in enumerate(rows):
        plain = reward_model(torch.tensor([row])).logits[0, 0]
        torch.testing.assert_close(plain, expected[number], rtol=1e-4, atol=1e-4)
    if pad is not None:
        plain = reward_model(ids, attention_mask=mask).logits[:, 0]
        torch.testing.assert_close(plain, expected, rtol=1e-3, atol=1e-3)


def test_a_row_of_padding_tokens_alone_is_read_at_its_first(reward_model):
    reward_model.config.pad_token_id = 7
    ids, mask = torch.tensor([[7, 7, 7, 0], [5, 6, 7, 7]]), torch.ones(2, 4).long()
    mask[0, 3] = 0
    plain = [reward_model(ids[:1, :3]), reward_model(ids[1:])]
    expected = torch.cat([output.logits[:, 0] for output in plain])
    found = sequence_rewards(reward_model, ids, mask)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


CLASSIFIERS = {
    "bert": (BertConfig, TINY | dict(num_hidden_layers=2)),
    "deberta": (DebertaV2Config, TINY | dict(num_hidden_layers=2)),
    "modernbert": (ModernBertConfig, TINY | dict(num_hidden_layers=2)),
    "opt": (
        OPTConfig,
        TINY | dict(num_hidden_layers=2, ffn_dim=32, word_embed_proj_dim=16),
    ),
    "gpt neox": (GPTNeoXConfig, TINY | dict(num_hidden_layers=2)),
    "gemma3": (
        Gemma3TextConfig,
        TINY | dict(num_hidden_layers=2, head_dim=8, num_key_value_heads=1),
    ),
    "bloom": (BloomConfig, dict(vocab_size=356, hidden_size=32, n_layer=2, n_head=4)),
    "jamba": (
        JambaConfig,
        TINY
        | dict(num_hidden_layers=2, num_key_value_heads=2, num_experts=2)
        | dict(num_experts_per_tok=1, mamba_d_state=4, mamba_dt_rank=4)
        | dict(attn_layer_period=2, attn_layer_offset=1)
        | dict(expert_layer_period=2, expert_layer_offset=1),
    ),
}


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_every_architecture_scores_a_batch_as_its_own_class_does(kind):
    config, sizes = CLASSIFIERS[kind]
    config = config(**sizes, num_labels=1, pad_token_id=3)
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(5)
    rows = [[7, 8, 9, 10, 1, 12, 3], [11], [5, 6, 8, 8]]  # one ends in padding's token
    plain = [model(torch.tensor([row])).logits[0, 0] for row in rows]
    expected = torch.stack(plain)
    for side in ("left", "right"):
        found = sequence_rewards(model, *padded(rows, 3, side))
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert expected.std() > 0.01


SMALL_BERT = TINY | dict(num_hidden_layers=2, num_labels=1, pad_token_id=0)
READ_PADDING = {
    "fnet": (FNetConfig, SMALL_BERT),
    "nystromformer": (NystromformerConfig, SMALL_BERT),
    "convbert": (ConvBertConfig, SMALL_BERT | dict(embedding_size=32)),
    "mobilebert": (
        MobileBertConfig,
        SMALL_BERT
        | dict(embedding_size=32, true_hidden_size=32, intra_bottleneck_size=32),
    ),
    "xlnet": (
        XLNetConfig,
        dict(vocab_size=356, d_model=32, n_layer=2, n_head=4, num_labels=1),
    ),
}


@pytest.mark.parametrize("kind", READ_PADDING)
@pytest.mark.parametrize("side", ["left", "right"])
def test_encoders_that_read_padding_are_given_none(kind, side):
    config, sizes = READ_PADDING[kind]
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config(**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(5)
    rows = [[7, 8, 9, 10, 6, 12, 13], [11, 12, 14], [5, 6, 8, 8], [33, 34, 35]]
    ids, mask = padded(rows, 4, side)
    with torch.no_grad():
        expected = torch.stack([model(torch.tensor([r])).logits[0, 0] for r in rows])
        behind, real = padded(rows, 4, "right")
        plain = model(behind, attention_mask=real).logits[:, 0]
    assert (plain - expected).abs().max() > 1e-3 * expected.std()
    state = torch.get_rng_state()
    found = sequence_rewards(model, ids, mask)
    assert torch.equal(state, torch.get_rng_state())
    exact = 1e-4 * expected.std().item()
    torch.testing.assert_close(found, expected, rtol=0, atol=exact)
    found.sum().backward()
    assert not any(module.training for module in model.modules())


def test_other_encoders_read_a_batch_at_once():
    model = AutoModelForSequenceClassification.from_config(BertConfig(**SMALL_BERT))
    ids, mask = padded([[7, 8, 9, 10], [11, 12], [5]], 0, "right")
    sequence_rewards(model.eval(), ids, mask)  # finds out
    calls = []
    model.register_forward_hook(lambda *_: calls.append(1))
    sequence_rewards(model, ids, mask)
    assert len(calls) == 1


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


def test_the_chat_template_gets_its_arguments(reward_model, tiny_tokenizer):
    tokenizer = copy.deepcopy(tiny_tokenizer)
    tokenizer.chat_template = "{% if loud %}<|system|>{% endif %}" + (
        tokenizer.chat_template
    )
    plain = score(reward_model, tiny_tokenizer, PROMPTS, REPLIES)
    marked = score(
        reward_model, tokenizer, PROMPTS, REPLIES, chat_template_kwargs={"loud": True}
    )
    each = score(
        reward_model,
        tokenizer,
        PROMPTS,
        REPLIES,
        chat_template_kwargs=[None, {"loud": True}, None],
    )
    assert (np.abs(marked - plain) > 1e-3).all()
    np.testing.assert_allclose(each, [plain[0], marked[1], plain[2]], rtol=1e-4)


def test_models_that_do_not_fit_are_refused(reward_model, tiny_model, tiny_tokenizer):
    peft = pytest.importorskip("peft")
    with pytest.raises(AlignlabError, match="no single number"):
        score(tiny_model, tiny_tokenizer, PROMPTS, REPLIES)
    more = copy.deepcopy(tiny_tokenizer)
    more.add_special_tokens({"pad_token": "<|new|>"})
    with pytest.raises(AlignlabError, match="resize_token_embeddings"):
        score(reward_model, more, PROMPTS, REPLIES)
    for kind in ("PromptTuningConfig", "PrefixTuningConfig"):
        settings = getattr(peft, kind)(task_type="SEQ_CLS", num_virtual_tokens=3)
        tuned = peft.get_peft_model(copy.deepcopy(reward_model), settings)
        with pytest.raises(AlignlabError, match="virtual tokens.*LoRA"):
            score(tuned, tiny_tokenizer, PROMPTS, REPLIES)
        ids = torch.ones(1, 3).long()
        with pytest.raises(ValueError, match="virtual tokens"):
            sequence_rewards(tuned, ids, ids)


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
