"""Two completions in one row against each of them read alone."""

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    GraniteConfig,
    GraniteForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from alignlab.errors import AlignlabError
from alignlab.models.pairs import (
    FIRST,
    PADDING,
    PROMPT,
    SECOND,
    pair_log_probs,
    require_one_row_will_do,
    rows_of,
)
from alignlab.objectives import sequence_log_probs

SMALL = dict(
    vocab_size=60,
    hidden_size=16,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
)
PAIRS = [
    ([5, 6, 7], [8, 9, 10, 11], [12]),
    ([5], [8, 9], [8, 9, 10, 4, 5, 6]),
    ([9, 9, 9, 9, 9, 8], [1], [1]),
    ([7, 8], [3, 4, 5], [5, 4, 3]),
]


def lora(model):
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(init_lora_weights=False))


KINDS = {
    "llama": lambda tiny: tiny,
    "gpt2": lambda tiny: GPT2LMHeadModel(
        GPT2Config(vocab_size=60, n_embd=16, n_layer=2, n_head=2)
    ),
    # It scales its logits after the output layer, which a short cut could miss.
    "granite": lambda tiny: GraniteForCausalLM(
        GraniteConfig(**SMALL, logits_scaling=4.0)
    ),
    "qwen3": lambda tiny: Qwen3ForCausalLM(Qwen3Config(**SMALL, head_dim=8)),
    "eager": lambda tiny: Qwen3ForCausalLM(
        Qwen3Config(**SMALL, head_dim=8, attn_implementation="eager")
    ),
    "lora": lambda tiny: lora(tiny),
}


@pytest.fixture(params=KINDS)
def model(request, tiny_model):
    torch.manual_seed(0)
    model = KINDS[request.param](tiny_model).double().eval()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)  # logits worth telling apart
    return model


def alone(model, prompt, completion):
    ids = torch.tensor([[*prompt, *completion]])
    mask = (torch.arange(ids.shape[1]) >= len(prompt)).long()[None]
    return sequence_log_probs(model(ids).logits, ids, mask)[0]


def test_a_row_is_prompt_first_second_and_padding():
    ids, part = rows_of(PAIRS[:2], pad_token_id=99)
    assert ids.tolist() == [
        [5, 6, 7, 8, 9, 10, 11, 12, 99],
        [5, 8, 9, 8, 9, 10, 4, 5, 6],
    ]
    assert part[0].tolist() == 3 * [PROMPT] + 4 * [FIRST] + [SECOND, PADDING]
    assert part[1].tolist() == [PROMPT] + 2 * [FIRST] + 6 * [SECOND]


def test_each_completion_has_the_log_probability_it_has_alone(model):
    first, second = pair_log_probs(model, *rows_of(PAIRS, pad_token_id=0))
    for i, (prompt, one, other) in enumerate(PAIRS):
        for found, completion in ((first[i], one), (second[i], other)):
            expected = alone(model, prompt, completion)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-10)
    assert first[2].item() == pytest.approx(second[2].item())  # the same completion
    assert first.std() > 0.1


def test_gradients_are_those_of_rows_read_alone(tiny_model):
    model = tiny_model.double()
    first, second = pair_log_probs(model, *rows_of(PAIRS, pad_token_id=0))
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0], dtype=torch.float64)
    found = torch.autograd.grad(
        (weights * (first - second**2)).sum(), list(model.parameters())
    )
    apart = [
        torch.stack([alone(model, pair[0], pair[side]) for pair in PAIRS])
        for side in (1, 2)
    ]
    wanted = torch.autograd.grad(
        (weights * (apart[0] - apart[1] ** 2)).sum(), list(model.parameters())
    )
    scale = max(gradient.abs().max() for gradient in wanted)
    for a, b in zip(found, wanted, strict=True):  # norms are taken in float32
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 * scale)


def test_the_first_completion_and_the_padding_leave_no_trace(tiny_model):
    wide = PAIRS + [([1] * 9, [2] * 9, [3] * 9)]
    few = pair_log_probs(tiny_model, *rows_of(PAIRS[:1], 0))
    many = pair_log_probs(tiny_model, *rows_of(wide, 0))
    for a, b in zip(few, many, strict=True):
        torch.testing.assert_close(a[0], b[0])
    prompt, _, second = PAIRS[0]
    other = pair_log_probs(tiny_model, *rows_of([(prompt, [40, 41], second)], 0))
    torch.testing.assert_close(other[1], few[1])


def test_the_model_is_left_as_it_was(tiny_model):
    ids, part = rows_of(PAIRS, 0)
    pair_log_probs(tiny_model, ids, part)
    assert tiny_model(ids).logits.shape == (*ids.shape, tiny_model.config.vocab_size)
    with pytest.raises(IndexError):
        pair_log_probs(tiny_model, ids + 1000, part)
    assert tiny_model(ids).logits.shape == (*ids.shape, tiny_model.config.vocab_size)


def test_bfloat16_sums_are_kept_in_float32(tiny_model):
    exact = pair_log_probs(tiny_model, *rows_of(PAIRS, 0))
    rough = pair_log_probs(tiny_model.to(torch.bfloat16), *rows_of(PAIRS, 0))
    assert rough[0].dtype == torch.float32
    for a, b in zip(exact, rough, strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.5)


LONG = [5, 6, 7], [*range(20, 32)], [*range(40, 52)]


def test_models_that_take_the_mask_pass_and_stay_in_their_mode(model):
    for one in (model, model.float()):
        one.train()
        require_one_row_will_do(one, *LONG)
        assert one.training


def windowed():
    """It sees the last four tokens only, unless the mask is already made."""
    return MistralForCausalLM(MistralConfig(**SMALL, sliding_window=4))


def alibi():
    """It takes its places from a mask of two dimensions."""
    return BloomForCausalLM(
        BloomConfig(vocab_size=60, hidden_size=16, n_layer=2, n_head=2)
    )


@pytest.mark.parametrize(
    "kind, message",
    [(windowed, "does not read two .* against"), (alibi, "cannot read")],
)
def test_models_that_read_a_row_otherwise_are_refused(kind, message):
    torch.manual_seed(0)
    model = kind()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)
    with pytest.raises(
        AlignlabError, match=message + '.*Load it with attn_impl.*"sdpa"'
    ):
        require_one_row_will_do(model, *LONG)


def test_wrong_arguments_are_named():
    ids, part = rows_of(PAIRS, 0)
    with pytest.raises(ValueError, match=r"\(4, 9\) and \(4, 8\)"):
        pair_log_probs(None, ids, part[:, 1:])
    for which, name in ((PROMPT, "prompt"), (FIRST, "first"), (SECOND, "second")):
        less = part.clone()
        less[1][less[1] == which] = PADDING
        with pytest.raises(ValueError, match=f"row 1 has no token of its {name}"):
            pair_log_probs(None, ids, less)
