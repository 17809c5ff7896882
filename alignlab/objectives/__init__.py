"""The mathematics of alignment as pure tensor functions: no model, no tokenizer, no
file. Each states its shapes, its units, whether it sums or averages, and its source.
"""

from alignlab.objectives.calibration import (
    brier_loss,
    focal_loss,
    label_smoothing_loss,
    mmce,
    mmce_loss,
    task_and_brier_loss,
)
from alignlab.objectives.log_probs import sequence_log_probs, sft_loss, token_log_probs
from alignlab.objectives.policy import (
    adaptive_kl_coef,
    entropy,
    exact_kl,
    explained_variance,
    generalized_advantage_estimate,
    grpo_advantages,
    kl_estimate,
    masked_mean,
    ppo_diagnostics,
    ppo_policy_loss,
    ppo_value_loss,
    rloo_advantages,
    whiten,
)
from alignlab.objectives.preference import (
    PREFERENCE_LOSSES,
    dpo_loss,
    implicit_reward,
    kto_loss,
    orpo_loss,
    simpo_loss,
)
from alignlab.objectives.reward import (
    all_pairs_loss,
    bradley_terry_loss,
    centring_loss,
    plackett_luce_loss,
)

__all__ = [
    "PREFERENCE_LOSSES",
    "adaptive_kl_coef",
    "all_pairs_loss",
    "bradley_terry_loss",
    "brier_loss",
    "centring_loss",
    "dpo_loss",
    "entropy",
    "exact_kl",
    "explained_variance",
    "focal_loss",
    "generalized_advantage_estimate",
    "grpo_advantages",
    "implicit_reward",
    "kl_estimate",
    "kto_loss",
    "label_smoothing_loss",
    "masked_mean",
    "mmce",
    "mmce_loss",
    "orpo_loss",
    "plackett_luce_loss",
    "ppo_diagnostics",
    "ppo_policy_loss",
    "ppo_value_loss",
    "rloo_advantages",
    "sequence_log_probs",
    "sft_loss",
    "simpo_loss",
    "task_and_brier_loss",
    "token_log_probs",
    "whiten",
]
