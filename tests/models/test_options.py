"""Options that share one reading of their prompt, against a row for each."""

import pytest
import torch

from alignlab.models.options import option_log_probs, pack_options
from alignlab.objectives import sequence_log_probs
from tests.models.conftest import KINDS

PROMPTS = [[7, 8], [5, 6, 7, 9, 10], [5], [9, 3, 4]]
OPTIONS = [
    [[3, 4], [5]],
    [[8, 9, 10, 11], [12, 13], [8, 9]],
    [[8], [9, 8, 10, 4, 5, 6, 7, 8, 9], [1]],
    [[2, 2], [2]],
]


@pytest.fixture(params=KINDS)
def model(request, model_of):
    return model_of(request.param).float()


def alone(model, prompt, option):
    ids = torch.tensor([[*prompt, *option]])
    mask = (torch.arange(ids.shape[1]) >= len(prompt)).long()[None]
    return sequence_log_probs(model(ids).logits, ids, mask)[0]


def all_alone(model):
    pairs = [(p, option) for p, own in zip(PROMPTS, OPTIONS) for option in own]
    return torch.stack([alone(model, *pair) for pair in pairs])


def test_prompts_are_padded_on_the_left_and_options_on_the_right():
    packed = pack_options(PROMPTS[:2], OPTIONS[:2], pad_token_id=99)
    assert packed["prompt_ids"].tolist() == [[99, 99, 99, 7, 8], [5, 6, 7, 9, 10]]
    assert packed["prompt_mask"].tolist() == [[0, 0, 0, 1, 1], [1, 1, 1, 1, 1]]
    assert packed["option_ids"][:3].tolist() == [
        [3, 4, 99, 99], [5, 99, 99, 99], [8, 9, 10, 11],
    ]  # fmt: skip
    assert packed["option_mask"].sum(1).tolist() == [2, 1, 4, 2, 2]
    assert packed["prompt_of"].tolist() == [0, 0, 1, 1, 1]


@torch.no_grad()
def test_log_probs_are_those_of_rows_with_prompt_and_option(model):
    found = option_log_probs(model, pack_options(PROMPTS, OPTIONS, 0))
    expected = all_alone(model).double()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert found.std() > 0.1


@torch.no_grad()
def test_options_of_one_token_take_one_pass(tiny_model):
    options = [[[3], [5]], [[8], [12]], [[1]], [[2], [4]]]
    passes = []
    tiny_model.register_forward_hook(lambda *args: passes.append(1))
    found = option_log_probs(tiny_model, pack_options(PROMPTS, options, 0))
    assert len(passes) == 1
    pairs = [(p, option) for p, own in zip(PROMPTS, options) for option in own]
    expected = torch.stack([alone(tiny_model, *pair) for pair in pairs])
    torch.testing.assert_close(found.float(), expected, rtol=1e-5, atol=1e-5)


def test_gradients_are_those_of_rows_with_prompt_and_option(tiny_model):
    model = tiny_model.double()
    weights = torch.linspace(-2, 3, sum(map(len, OPTIONS)), dtype=torch.float64)
    found = option_log_probs(model, pack_options(PROMPTS, OPTIONS, 0))
    parameters = list(model.parameters())
    shared = torch.autograd.grad((weights * found**2).sum(), parameters)
    apart = torch.autograd.grad((weights * all_alone(model) ** 2).sum(), parameters)
    for one, other in zip(shared, apart, strict=True):
        size = other.abs().max().item()  # norms are float32, whatever the model is
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * size)


@pytest.mark.parametrize(
    "prompts, options",
    [([[1], []], [[[2]], [[3]]]), ([[1]], [[[2], []]]), ([[1]], [[]])],
)
def test_empty_prompts_and_options_are_refused(prompts, options):
    with pytest.raises(ValueError, match="each needs at least one"):
        pack_options(prompts, options, 0)
