"""PPO for language models; it lives in :mod:`alignlab.training.ppo.trainer`."""

from alignlab.training.ppo.trainer import PPOConfig, PPOTrainer

__all__ = ["PPOConfig", "PPOTrainer"]
