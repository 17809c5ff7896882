"""Hyperparameters from the command line, and those that are refused."""

import math

import pytest
from transformers import HfArgumentParser

from alignlab.errors import AlignlabError
from alignlab.ppo import PPOConfig
from tests.training.ppo.helpers import config


def test_the_config_is_read_from_a_command_line():
    line = "--total_episodes 64 --kl_target 3 --kl_estimator exact --whiten_rewards"
    (args,) = HfArgumentParser(PPOConfig).parse_args_into_dataclasses(
        [*line.split(), "--use_cpu", "--per_device_train_batch_size", "16"]
    )
    assert (args.max_steps, args.kl_target, args.whiten_rewards) == (4, 3.0, True)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(kl_estimator="k3"), "'k3' with kl_in='reward' has the wrong gradient"),
        (dict(kl_estimator="k2"), "'k2' with kl_in='reward' has the wrong gradient"),
        (dict(kl_in="loss"), "'k1' with kl_in='loss'.*0 on average"),
        (dict(kl_estimator="k4"), "kl_estimator is 'k4'"),
        (dict(kl_in="both"), "kl_in is 'both'"),
        (dict(normalize_rewards="batch"), "normalize_rewards is 'batch'"),
        (dict(temperature=0.0), "temperature is 0.0"),
        (dict(num_ppo_epochs=0), "num_ppo_epochs is 0"),
        (dict(num_mini_batches=-1), "num_mini_batches is -1"),
        (dict(max_completion_length=0), "max_completion_length is 0"),
        (dict(cliprange=0), "cliprange is 0"),
        (dict(cliprange_high=0), "cliprange_high is 0"),
        (dict(cliprange_value=-0.2), "cliprange_value is -0.2"),
        (dict(kl_coef=-0.1), "kl_coef is -0.1"),
        (dict(kl_coef=math.nan), "kl_coef is nan"),
        (dict(lam=1.5), "lam is 1.5"),
        (dict(gamma=-1), "gamma is -1"),
        (dict(kl_target=0), "kl_target is 0"),
        (dict(fp16=True), "fp16=True"),
        (dict(max_steps=3, total_episodes=8), "total_episodes is 8 and max_steps 3"),
        (
            dict(max_steps=-1, total_episodes=10),
            r"total_episodes=10 is not a whole number of batches of 4 .*Take 8 or 12",
        ),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(settings, message):
    with pytest.raises(AlignlabError, match=message):
        config(**settings)
