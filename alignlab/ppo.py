"""PPO for language models; it lives in :mod:`alignlab.training.ppo`."""

from alignlab.training.ppo.calibration_reward import calibration_reward
from alignlab.training.ppo.config import PPOConfig
from alignlab.training.ppo.monitor import RewardHackingCallback
from alignlab.training.ppo.trainer import PPOTrainer
from alignlab.training.ppo.update import ppo_update

__all__ = [
    "PPOConfig",
    "PPOTrainer",
    "RewardHackingCallback",
    "calibration_reward",
    "ppo_update",
]
