"""The same stages on TRL's trainers: for real models, and to hold our loop to them.

TRL is imported inside the functions: it takes seconds, and the tiny model does not need
it.
"""

import copy
import tempfile
import warnings

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlab.models.reward import turns
from alignlab.training import reward
from alignlab.training.sft import collate, encode, messages, sft_step


def trl_sft_loss(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: list[dict]
) -> float:
    """The loss at which `trl.SFTTrainer` starts, with all the examples as one batch.

    It is what `alignlab.objectives.sft_loss` gives, in nats per completion token.
    TRL puts only chat messages through a chat template, so prompts and completions that
    are strings become messages first. The step is taken on a copy of the model.

    Args:
        examples: see :func:`alignlab.training.sft.encode`.
    """
    from trl import SFTConfig, SFTTrainer

    chats = [messages(number, example) for number, example in enumerate(examples)]
    rows = [{"prompt": chat[:-1], "completion": chat[-1:]} for chat in chats]
    return first_loss(
        SFTTrainer, SFTConfig, model, tokenizer, rows, completion_only_loss=True
    )


def first_loss(
    trainer_class: type,
    config_class: type,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict],
    reference: PreTrainedModel | None = None,
    **dials,
) -> float:
    """The loss of one step of a trainer of TRL on copies of the models, with all rows
    as one batch.

    Args:
        trainer_class, config_class: of TRL.
        rows: in the columns that the trainer wants, as chat messages.
        reference: for trainers that have one.
        dials: of the config, beside those that make it one step, whole and in float32.
    """
    from datasets import Dataset, disable_progress_bars, enable_progress_bars
    from transformers import PrinterCallback

    models = [copy.deepcopy(m) for m in (model, reference) if m is not None]
    with (
        tempfile.TemporaryDirectory() as folder,
        # TRL and its trainers set and read gradient checkpointing, whatever is passed,
        # by names that transformers warns about.
        warnings.catch_warnings(action="ignore", category=FutureWarning),
    ):
        settings = config_class(
            output_dir=folder,
            max_steps=1,
            per_device_train_batch_size=len(rows),
            max_length=None,  # its own default cuts, or leaves out, what is longer
            bf16=False,  # its own default, also where the hardware lacks it
            gradient_checkpointing=False,  # its own default; takes time
            use_cpu=model.device.type == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **dials,
        )
        disable_progress_bars()  # it would draw one for each step of the preparation
        trainer = trainer_class(
            *models,
            args=settings,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        enable_progress_bars()
        trainer.remove_callback(PrinterCallback)
        return trainer.train().training_loss


def compare_sft_losses(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: list[dict]
) -> tuple[float, float]:
    """The same batch through our loss and through TRL's trainer: ``(ours, theirs)``, in
    nats per token of the completions."""
    encoded = encode(tokenizer, examples)
    batch = collate(encoded, tokenizer.pad_token_id)
    batch = {name: value.to(model.device) for name, value in batch.items()}
    with torch.no_grad():
        ours = sft_step(model, batch)[0].item()
    return ours, trl_sft_loss(model, tokenizer, examples)


def trl_reward_loss(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[dict],
    center_rewards_coefficient: float | None = None,
) -> float:
    """The loss at which `trl.RewardTrainer` starts, with all the pairs as one batch, in
    nats per pair.

    It reads a pair's `margin`, but no probability: it has neither soft labels nor label
    smoothing. The step is taken on a copy of the model.

    Args:
        model: a reward model, see :mod:`alignlab.models.reward`.
        tokenizer: with a padding token other than its ending token, or TRL reads the
            reward off one token before the end.
        pairs: see :func:`alignlab.training.reward.encode`.
        center_rewards_coefficient: higher draws the rewards of a pair nearer to 0.
    """
    from trl import RewardConfig, RewardTrainer

    return first_loss(
        RewardTrainer,
        RewardConfig,
        model,
        tokenizer,
        [_as_messages(pair) for pair in pairs],
        center_rewards_coefficient=center_rewards_coefficient,
    )


def compare_reward_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[dict],
    center_rewards_coefficient: float = 0.0,
) -> tuple[float, float]:
    """The same pairs through our loss and through TRL's trainer: ``(ours, theirs)``, in
    nats per pair."""
    batch = reward.collate(reward.encode(tokenizer, pairs), tokenizer)
    batch = {name: value.to(model.device) for name, value in batch.items()}
    with torch.no_grad():
        ours, _ = reward.reward_step(
            model, batch, center_rewards_coefficient=center_rewards_coefficient
        )
    theirs = trl_reward_loss(model, tokenizer, pairs, center_rewards_coefficient)
    return ours.item(), theirs


def _as_messages(pair: dict) -> dict:
    """The pair for TRL, which puts only chat messages through a chat template."""
    row = {"prompt": turns(pair["prompt"], "user")}
    row |= {name: turns(pair[name], "assistant") for name in ("chosen", "rejected")}
    return row | ({"margin": float(pair["margin"])} if "margin" in pair else {})
