"""Two completions in one row, against each of them in a row of its own."""

import pytest
import torch
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    MistralConfig,
    MistralForCausalLM,
)

from alignlab.errors import AlignlabError
from alignlab.models.pairs import (
    CHOSEN,
    PROMPT,
    REJECTED,
    EncodedPair,
    pack,
    pack_apart,
    pair_log_probs,
    require_rows_can_be_shared,
)
from alignlab.objectives import sequence_log_probs

PAIRS = [
    EncodedPair([7, 8], [3, 4], [5]),
    EncodedPair([5, 6, 7], [8, 9, 10, 11], [12, 13]),
    EncodedPair([5], [8, 9], [8, 9, 10, 4, 5, 6, 7, 8, 9]),
    EncodedPair([9], [1], [1]),
    EncodedPair([7, 8], [3, 4, 5], [5, 4, 3]),
]


@pytest.fixture(params=["llama", "gpt2", "granite", "qwen3", "eager", "lora"])
def model(request, model_of):
    return model_of(request.param)


def alone(model, prompt, completion):
    ids = torch.tensor([[*prompt, *completion]])
    mask = (torch.arange(ids.shape[1]) >= len(prompt)).long()[None]
    return sequence_log_probs(model(ids).logits, ids, mask)[0]


def test_short_pairs_share_a_row():
    packed = pack(PAIRS[:4], pad_token_id=99)
    # In rows of 15, less is padding (1) than in rows as wide as the longest (7).
    assert packed["input_ids"].tolist() == [
        [5, 8, 9, 8, 9, 10, 4, 5, 6, 7, 8, 9, 9, 1, 1],
        [5, 6, 7, 8, 9, 10, 11, 12, 13, 7, 8, 3, 4, 5, 99],
    ]
    assert packed["pair"].tolist() == [
        12 * [2] + 3 * [3],
        9 * [1] + 5 * [0] + [-1],
    ]
    first, second = packed["part"].tolist()
    assert first == [PROMPT] + 2 * [CHOSEN] + 9 * [REJECTED] + [
        PROMPT,
        CHOSEN,
        REJECTED,
    ]
    assert second[:9] == 3 * [PROMPT] + 4 * [CHOSEN] + 2 * [REJECTED]
    assert second[9:14] == [PROMPT, PROMPT, CHOSEN, CHOSEN, REJECTED]
    positions = packed["position_ids"].tolist()
    assert positions[0] == [0, 1, 2, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 1]
    assert positions[1][:14] == [0, 1, 2, 3, 4, 5, 6, 3, 4, 0, 1, 2, 3, 2]
    first, second = packed["source"].tolist()
    assert first[1:12] == [0, 1, 0, 3, 4, 5, 6, 7, 8, 9, 10] and first[13:] == [12, 12]
    assert second[3:9] == [2, 3, 4, 5, 2, 7] and second[11:14] == [10, 11, 10]
    assert packed["attention_mask"].sum(1).tolist() == [15, 14]
    assert packed["chosen_tokens"].tolist() == [2, 4, 2, 1]
    assert packed["rejected_tokens"].tolist() == [1, 2, 9, 1]


def first_fit(lengths, width):
    """The number of rows it takes, the longest pair first."""
    rooms = []
    for length in sorted(lengths, reverse=True):
        row = next((i for i, room in enumerate(rooms) if room >= length), None)
        if row is None:
            rooms.append(width - length)
        else:
            rooms[row] -= length
    return len(rooms)


def test_no_other_width_of_the_rows_costs_less():
    generator = torch.Generator().manual_seed(0)
    saved = 0
    for _ in range(20):
        sizes = torch.randint(1, 30, (24, 3), generator=generator).tolist()
        pairs = [EncodedPair(*([7] * size for size in three)) for three in sizes]
        lengths = [pair.length for pair in pairs]
        rows, width = pack(pairs, 0)["input_ids"].shape

        def cost(rows, width):
            return rows * width * (768 + width + 24 * (width % 16 > 0))

        widths = range(max(lengths), 2 * max(lengths) + 1)
        assert width in widths
        least = min(cost(first_fit(lengths, other), other) for other in widths)
        assert cost(rows, width) == least
        narrow = first_fit(lengths, max(lengths)) * max(lengths)
        assert rows * width < 1.1 * sum(lengths)
        saved += narrow - rows * width
    assert saved > 0


def test_log_probs_are_those_of_rows_read_alone(model):
    chosen, rejected = pair_log_probs(model, pack(PAIRS, 0))
    for i, pair in enumerate(PAIRS):
        for found, completion in (
            (chosen[i], pair.chosen),
            (rejected[i], pair.rejected),
        ):
            expected = alone(model, pair.prompt, completion)
            # Norms are computed in float32, even in a double-precision model.
            torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)
    assert chosen[3].item() == pytest.approx(rejected[3].item())  # the same tokens
    assert chosen.std() > 0.1


def test_gradients_are_those_of_rows_read_alone(tiny_model):
    model = tiny_model.double()
    chosen, rejected = pair_log_probs(model, pack(PAIRS, 0))
    weights = torch.tensor([1.0, -2.0, 0.5, 3.0, -1.0], dtype=torch.float64)
    found = torch.autograd.grad(
        (weights * (chosen - rejected**2)).sum(), list(model.parameters())
    )
    apart = [
        torch.stack([alone(model, pair[0], pair[side]) for pair in PAIRS])
        for side in (1, 2)
    ]
    expected = torch.autograd.grad(
        (weights * (apart[0] - apart[1] ** 2)).sum(), list(model.parameters())
    )
    scale = max(gradient.abs().max() for gradient in expected)
    for a, b in zip(found, expected, strict=True):  # norms are computed in float32
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6 * scale)


def test_neighbours_padding_and_the_other_completion_change_nothing(
    tiny_model,
):
    alone = pair_log_probs(tiny_model, pack(PAIRS[3:4], 0))
    wide = PAIRS + [EncodedPair([1] * 9, [2] * 9, [3] * 9)]
    crowded = pair_log_probs(tiny_model, pack(wide, 0))
    for a, b in zip(alone, crowded, strict=True):
        torch.testing.assert_close(a[0], b[3])
    other = pack([PAIRS[1]._replace(chosen=[40, 41])], 0)
    torch.testing.assert_close(pair_log_probs(tiny_model, other)[1][0], crowded[1][1])


def test_the_model_is_left_as_it_was(tiny_model):
    packed = pack(PAIRS, 0)
    ids = packed["input_ids"]
    pair_log_probs(tiny_model, packed)
    assert tiny_model(ids).logits.shape == (*ids.shape, tiny_model.config.vocab_size)
    with pytest.raises(IndexError):
        pair_log_probs(tiny_model, packed | {"input_ids": ids + 1000})
    assert tiny_model(ids).logits.shape == (*ids.shape, tiny_model.config.vocab_size)


def test_bfloat16_models_give_float32_sums(tiny_model):
    exact = pair_log_probs(tiny_model, pack(PAIRS, 0))
    rough = pair_log_probs(tiny_model.to(torch.bfloat16), pack(PAIRS, 0))
    assert rough[0].dtype == torch.float32
    for a, b in zip(exact, rough, strict=True):
        torch.testing.assert_close(a, b, rtol=0.05, atol=0.5)


LONG = EncodedPair([5, 6, 7], [*range(20, 32)], [*range(40, 52)])


def test_models_that_take_the_mask_pass_and_stay_in_their_mode(model):
    for precise in (model, model.float()):
        precise.train()
        require_rows_can_be_shared(precise, LONG)
        assert precise.training


def windowed():
    """Attends to the last four tokens only, unless it is given a ready mask."""
    return MistralForCausalLM(
        MistralConfig(
            vocab_size=60,
            hidden_size=16,
            intermediate_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            num_key_value_heads=1,
            sliding_window=4,
        )
    )


def alibi():
    """Takes its positions from a two-dimensional mask."""
    return BloomForCausalLM(
        BloomConfig(vocab_size=60, hidden_size=16, n_layer=2, n_head=2)
    )


@pytest.mark.parametrize(
    "kind, message",
    [(windowed, "reads two .* differently .* against"), (alibi, "cannot read")],
)
def test_models_that_read_shared_rows_differently_are_refused(kind, message):
    torch.manual_seed(0)
    model = kind()
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(20)
    with pytest.raises(
        AlignlabError, match=message + '.*Load it with attn_impl.*"sdpa"'
    ):
        require_rows_can_be_shared(model, LONG)


# --- Tokens that do not count ---------------------------------------------------------

MASKED = [
    EncodedPair([7, 8], [3, 4, 5, 6], [5, 9], [1, 0, 0, 1], None),
    EncodedPair([5, 6], [8, 9, 10], [12, 13, 14, 4], None, [0, 0, 1, 1]),
    EncodedPair([], [3, 4, 5], [6, 7, 8, 9], [0, 1, 1], [0, 0, 1, 1]),
    PAIRS[1],
]


def masked_alone(model, prompt, completion, mask):
    ids = torch.tensor([[*prompt, *completion]])
    mask = torch.tensor([[0] * len(prompt) + (mask or [1] * len(completion))])
    return sequence_log_probs(model(ids).logits, ids, mask)[0]


def test_only_tokens_that_count_are_in_the_log_probs(model):
    packed = pack(MASKED, 0)
    chosen, rejected = pair_log_probs(model, packed)
    for i, (prompt, *sides) in enumerate(MASKED):
        for found, side in ((chosen[i], 0), (rejected[i], 1)):
            expected = masked_alone(model, prompt, sides[side], sides[side + 2])
            torch.testing.assert_close(found, expected, rtol=1e-7, atol=0)
    assert packed["chosen_tokens"].tolist() == [2, 3, 2, 4]
    assert packed["rejected_tokens"].tolist() == [2, 2, 2, 2]
    assert packed["counts"].sum() == 2 + 3 + 2 + 4 + 8
    require_rows_can_be_shared(model, MASKED[1])
    require_rows_can_be_shared(model, MASKED[2])


def test_without_masks_nothing_more_is_computed():
    assert "counts" not in pack(PAIRS, 0)
    full = PAIRS[0]._replace(chosen_mask=[1, 1], rejected_mask=[1])
    assert pack([full], 0)["counts"].sum() == 3


@pytest.mark.parametrize(
    "pair, message",
    [
        (
            MASKED[0]._replace(chosen_mask=[1]),
            "4 tokens in its chosen, and a mask of 1",
        ),
        (MASKED[1]._replace(rejected_mask=[0] * 4), "of which 0 count"),
        (MASKED[2]._replace(chosen_mask=[1, 1, 1]), "no tokens in its prompt"),
        (MASKED[2]._replace(rejected_mask=None), "no tokens in its prompt"),
    ],
)
def test_masks_that_do_not_fit_are_refused(pair, message):
    with pytest.raises(ValueError, match=f"pair 1 has .*{message}|{message}"):
        pack([PAIRS[0], pair], 0)


def test_empty_parts_are_refused():
    for part, name in ((PROMPT, "prompt"), (CHOSEN, "chosen"), (REJECTED, "rejected")):
        less = PAIRS[1]._replace(**{name: []})
        with pytest.raises(ValueError, match=f"pair 1 has no tokens in its {name}"):
            pack([PAIRS[0], less], 0)
        assert less[part] == []


@pytest.mark.parametrize("pairs", [PAIRS, MASKED])
def test_rows_of_their_own_give_the_same(tiny_model, pairs):
    model, parameters = tiny_model.double(), list(tiny_model.parameters())
    together, apart = (
        pair_log_probs(model, layout(pairs, 0)) for layout in (pack, pack_apart)
    )
    for a, b in zip(together, apart, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=0)
    gradients = [
        torch.autograd.grad((chosen - rejected**2).sum(), parameters)
        for chosen, rejected in (together, apart)
    ]
    for a, b in zip(*gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6 * b.abs().max().item())


def test_both_layouts_count_the_same_tokens():
    for pairs in (PAIRS, MASKED):
        shared, own = pack(pairs, 0), pack_apart(pairs, 0)
        for side in ("chosen_tokens", "rejected_tokens"):
            assert own[side].tolist() == shared[side].tolist()
    with pytest.raises(ValueError, match="no tokens in its chosen"):
        pack_apart([PAIRS[0]._replace(chosen=[])], 0)
