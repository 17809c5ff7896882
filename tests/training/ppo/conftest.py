import pytest
import torch

from alignlab.models.reward import reward_model_from


@pytest.fixture
def judge(tiny_model):
    model = reward_model_from(tiny_model, seed=1)
    with torch.no_grad():
        model.score.weight *= 20
    return model
