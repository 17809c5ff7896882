"""PPO for language models; it lives in :mod:`alignlab.training.ppo`."""

from alignlab.training.ppo import PPOConfig, PPOTrainer

__all__ = ["PPOConfig", "PPOTrainer"]
