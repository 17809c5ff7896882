"""The stages of notebook 09, each on adapters in the upper half of one base model.

The lower half has nothing to learn, so that no gradient goes through it: that halves
the time of a backward pass.
"""

import copy
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from alignlab import cache
from alignlab.chapters.a_real_model import reviews
from alignlab.models.base import device_in_use, load_base, weights_hash
from alignlab.models.reward import read_before_padding, reward_model_from, score
from alignlab.ppo import PPOConfig, PPOTrainer
from alignlab.seeds import stream, torch_seed
from alignlab.training.dpo import train_dpo
from alignlab.training.reward import train_reward_model
from alignlab.training.sft import finetune

# `peft` still asks for what `transformers` has renamed.
warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)

RANK = 16  # higher can learn more, and takes more memory
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
MAX_NEW_TOKENS = 24
TEMPERATURE = 0.7  # of all sampling; higher is more varied, and more often nonsense
# Learning rates of the adapters; higher learns faster until it diverges.
SFT_RATE, REWARD_RATE, DPO_RATE = 1e-3, 1e-3, 5e-4
BATCH, SFT_BATCH = 8, 4
RL = dict(
    per_device_train_batch_size=8,
    num_mini_batches=2,
    num_ppo_epochs=1,
    learning_rate=1e-3,
    lr_scheduler_type="constant",
    kl_coef=0.05,
    normalize_rewards="initial",
    max_completion_length=MAX_NEW_TOKENS,
    temperature=TEMPERATURE,
)
METHODS = {"PPO": {}, "RLOO": dict(advantages="rloo", completions_per_prompt=4)}


def adapters(model, task: str = "CAUSAL_LM") -> LoraConfig:
    """LoRA on all linear layers of the upper half of a model's blocks."""
    blocks = model.config.num_hidden_layers
    return LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=LINEAR,
        layers_to_transform=list(range(blocks // 2, blocks)),
        task_type=task,
    )


def with_adapters(model, seed: int, task: str = "CAUSAL_LM"):
    """The model, in place, with fresh adapters that the seed draws."""
    torch.manual_seed(torch_seed(seed, "adapters"))
    return get_peft_model(model, adapters(model, task))


# --- Made once a seed -----------------------------------------------------------------


def tuned(base: str, seed: int, sft_steps: int):
    """``(model, tokenizer)`` after SFT on dialogues of two requests each, adapters
    merged: where PPO, RLOO and DPO start.

    Args:
        sft_steps: of ``SFT_BATCH`` dialogues.
    """

    def build(folder: Path) -> None:
        model, tokenizer = load_base(base)
        policy = with_adapters(model, seed)
        shown = reviews.draw_parts(seed).shown[: 2 * SFT_BATCH * sft_steps]
        finetune(
            policy,
            tokenizer,
            reviews.dialogues(shown),
            steps=sft_steps,
            batch_size=SFT_BATCH,
            learning_rate=SFT_RATE,
            loss_on="assistant",
            seed=seed,
            progress=False,
        )
        policy.save_pretrained(folder)

    key = dict(base=base, seed=seed, steps=sft_steps, weights=weights_hash(base))
    folder = cache.artifact("real-sft", build, key=key)
    model, tokenizer = load_base(base)
    return PeftModel.from_pretrained(model, folder).merge_and_unload(), tokenizer


def reward_score(base: str, seed: int, n_pairs: int) -> reviews.Score:
    """A reward model from n single comparisons, as a score of texts.

    It reads a text alone, without the request, as the raters did.
    """

    def build(folder: Path) -> None:
        judge, tokenizer = _fresh_judge(base, seed)
        judge = with_adapters(judge, seed, "SEQ_CLS")
        train_reward_model(
            judge,
            tokenizer,
            compared(seed, n_pairs),
            batch_size=BATCH,
            learning_rate=REWARD_RATE,
            seed=seed,
            progress=False,
        )
        judge.save_pretrained(folder)

    key = dict(base=base, seed=seed, pairs=n_pairs, weights=weights_hash(base))
    folder = cache.artifact("real-reward", build, key=key)
    judge, tokenizer = _fresh_judge(base, seed)
    judge = PeftModel.from_pretrained(judge, folder).merge_and_unload()
    read_before_padding(judge, tokenizer.pad_token_id)

    def score_texts(texts: Sequence[str]) -> np.ndarray:
        return score(judge, tokenizer, [""] * len(texts), texts, batch_size=32)

    return score_texts


def _fresh_judge(base: str, seed: int):
    """``(model, tokenizer)``: the base model's trunk with a new head, and a tokenizer
    that reads texts as they stand."""
    model, tokenizer = load_base(base)
    return reward_model_from(model, seed), without_template(tokenizer)


def without_template(tokenizer):
    """A copy that reads texts as they stand."""
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = None
    return plain


def compared(seed: int, n_pairs: int) -> list[dict]:
    """The comparisons that the reward model and DPO learn from."""
    rng = stream(seed, "pairs of review sentences")
    return reviews.comparisons(reviews.draw_parts(seed).compared, n_pairs, rng)


# --- Optimising the policy ------------------------------------------------------------


def optimise(
    policy, tokenizer, reward, seed: int, method: str, updates: int, **changes
):
    """Train adapters on a policy with PPO or RLOO; returns ``(policy, history)``."""
    sentences = reviews.draw_parts(seed).compared
    args = PPOConfig(
        seed=seed,
        max_steps=updates,
        use_cpu=device_in_use() == "cpu",
        disable_tqdm=True,
        report_to="none",
        **RL | METHODS[method],
    )
    trainer = PPOTrainer(
        with_adapters(policy, seed),
        lambda completions, **_: reward(completions).tolist(),
        args,
        [dict(prompt=reviews.request(s.word)) for s in sentences],
        processing_class=tokenizer,
    )
    trainer.train()
    return trainer.policy, [
        row for row in trainer.state.log_history if "kl_exact" in row
    ]


def prefer(policy, tokenizer, seed: int, n_pairs: int):
    """Train adapters on a policy with DPO, once over the comparisons."""
    asked = reviews.request()
    rows = [
        dict(prompt=asked) | {side: pair[side] for side in ("chosen", "rejected")}
        for pair in compared(seed, n_pairs)
    ]
    policy = with_adapters(policy, seed)
    history = train_dpo(
        policy,
        tokenizer,
        rows,
        beta=0.1,
        steps=len(rows) // BATCH,
        batch_size=BATCH,
        learning_rate=DPO_RATE,
        seed=seed,
        progress=False,
    )
    return policy, history
