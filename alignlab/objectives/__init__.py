"""The mathematics of alignment as pure tensor functions: no model, no tokenizer, no
file.

Each says its shapes, its units, whether it sums or averages, and where it comes from.
"""

from alignlab.objectives.log_probs import sequence_log_probs, sft_loss, token_log_probs
from alignlab.objectives.preference import (
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
    "all_pairs_loss",
    "bradley_terry_loss",
    "centring_loss",
    "dpo_loss",
    "implicit_reward",
    "kto_loss",
    "orpo_loss",
    "plackett_luce_loss",
    "sequence_log_probs",
    "sft_loss",
    "simpo_loss",
    "token_log_probs",
]
