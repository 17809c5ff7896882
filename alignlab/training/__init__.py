"""Training: one small loop for SFT, reward models and DPO, and PPO in `ppo`."""
