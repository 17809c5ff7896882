"""The same batch through our losses and through TRL's trainers: do the numbers agree?

TRL is imported inside the functions: it takes seconds, and the tiny model does not need
it.
"""

import copy
import tempfile
import warnings

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlab.errors import AlignlabError, needs_extra
from alignlab.models.text import as_messages, pad_token_id
from alignlab.training import pairs as preference_pairs
from alignlab.training import reward
from alignlab.training.dpo import preference_step
from alignlab.training.sft import collate, conversation, encode, sft_step

# What TRL 1.16 calls our losses. Its "ipo" divides by tokens and is our "ipo_norm"; it
# has neither our "ipo", the paper's equation, nor "dpop".
TRL_NAMES = {
    "sigmoid": "sigmoid",
    "sigmoid_norm": "sigmoid_norm",
    "ipo_norm": "ipo",
    "hinge": "hinge",
    "robust": "robust",
}


def has_trl() -> bool:
    """Whether TRL is installed; if not, it is said how to have it."""
    try:
        needs_extra("trl", "trl")
    except AlignlabError as error:
        print(f"Left out: {error}")
        return False
    return True


# --- SFT ------------------------------------------------------------------------------


def compare_sft_losses(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, examples: list[dict]
) -> tuple[float, float]:
    """The loss of the examples as one batch, ours and that at which `trl.SFTTrainer`
    starts: ``(ours, theirs)``, in nats per completion token.

    Args:
        examples: see :func:`alignlab.training.sft.encode`.
    """
    needs_extra("trl", "trl")
    from trl import SFTConfig, SFTTrainer

    batch = collate(encode(tokenizer, examples), pad_token_id(tokenizer))
    with torch.no_grad():
        ours, _ = sft_step(model, _on_device(batch, model))
    chats = [conversation(number, example) for number, example in enumerate(examples)]
    theirs = first_loss(
        SFTTrainer,
        SFTConfig,
        model,
        tokenizer,
        [{"prompt": chat[:-1], "completion": chat[-1:]} for chat in chats],
        completion_only_loss=True,
    )
    return ours.item(), theirs


# --- Reward models --------------------------------------------------------------------


def compare_reward_losses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[dict],
    center_rewards_coefficient: float = 0.0,
) -> tuple[float, float]:
    """The loss of the pairs as one batch, ours and that at which `trl.RewardTrainer`
    starts: ``(ours, theirs)``, in nats per pair.

    TRL reads a pair's `margin`, but has neither soft labels nor label smoothing.

    Args:
        model: a reward model, see :mod:`alignlab.models.reward`.
        tokenizer: with a padding token other than its EOS token, or TRL reads the
            reward one token before the end.
        pairs: with a prompt column; see :func:`alignlab.training.reward.encode`.
        center_rewards_coefficient: higher ties the rewards of a pair closer to 0.
    """
    needs_extra("trl", "trl")
    from trl import RewardConfig, RewardTrainer

    comparisons = reward.encode(tokenizer, pairs)
    batch = reward.collate(comparisons, pad_token_id(tokenizer))
    with torch.no_grad():
        ours, _ = reward.reward_step(
            model,
            _on_device(batch, model),
            center_rewards_coefficient=center_rewards_coefficient,
        )
    theirs = first_loss(
        RewardTrainer,
        RewardConfig,
        model,
        tokenizer,
        [_as_messages(pair) for pair in pairs],
        center_rewards_coefficient=center_rewards_coefficient or None,
    )
    return ours.item(), theirs


# --- DPO ------------------------------------------------------------------------------


def compare_dpo_losses(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: list[dict],
    reference: PreTrainedModel,
    loss_type: str = "sigmoid",
    beta: float = 0.1,
    label_smoothing: float = 0.0,
) -> tuple[float, float]:
    """The loss of the pairs as one batch, ours and that at which `trl.DPOTrainer`
    starts: ``(ours, theirs)``, per pair.

    Args:
        pairs: with a prompt column; see
            :func:`alignlab.training.pairs.encode_pairs`.
        reference: a model other than the policy, or every pair costs what a margin of 0
            costs. (By default, TRL would load one from where the policy came from,
            which fails for a policy that was never saved.)
        loss_type: one of ``TRL_NAMES``, by our name.
        beta: higher keeps closer to the reference.
        label_smoothing: acts on "robust" only; TRL ignores it elsewhere.

    Raises:
        ValueError: if TRL has no such loss.
    """
    needs_extra("trl", "trl")
    from trl import DPOConfig, DPOTrainer

    if loss_type not in TRL_NAMES:
        raise ValueError(
            f"loss_type is {loss_type!r}; TRL has one of {[*TRL_NAMES]} (our names)"
        )
    encoded = preference_pairs.encode_pairs(tokenizer, pairs)
    pad = pad_token_id(tokenizer)
    log_probs = preference_pairs.log_probs_of(reference, encoded, pad)
    columns = dict(zip(("ref_chosen", "ref_rejected"), log_probs, strict=True))
    batch = next(preference_pairs.batches(encoded, columns, len(encoded), 0, pad))
    options = {"label_smoothing": label_smoothing} if label_smoothing else {}
    with torch.no_grad():
        batch = _on_device(batch, policy)
        ours, _ = preference_step(policy, batch, loss_type, beta, **options)
    theirs = first_loss(
        DPOTrainer,
        DPOConfig,
        policy,
        tokenizer,
        [_as_messages(pair) for pair in pairs],
        reference,
        loss_type=[TRL_NAMES[loss_type]],
        beta=beta,
        label_smoothing=label_smoothing,
    )
    return ours.item(), theirs


# --- What the three share -------------------------------------------------------------


def first_loss(
    trainer_class: type,
    config_class: type,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: list[dict],
    reference: PreTrainedModel | None = None,
    **hyperparameters,
) -> float:
    """The loss of one step of a TRL trainer on copies of the models, with all rows as
    one batch.

    Args:
        trainer_class, config_class: of TRL.
        rows: in the columns that the trainer wants. TRL puts only chat messages through
            a chat template, so strings have to become messages first.
        reference: for trainers that have one.
        hyperparameters: of the config, beside those that make it one whole step in
            float32.
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
        config = config_class(
            output_dir=folder,
            max_steps=1,
            per_device_train_batch_size=len(rows),
            max_length=None,  # the default cuts, or leaves out, what is longer
            bf16=False,  # the default, even where the hardware lacks it
            gradient_checkpointing=False,  # the default; takes time
            use_cpu=model.device.type == "cpu",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            **hyperparameters,
        )
        disable_progress_bars()  # it would draw one for each step of the preparation
        trainer = trainer_class(
            *models,
            args=config,
            train_dataset=Dataset.from_list(rows),
            processing_class=tokenizer,
        )
        enable_progress_bars()
        trainer.remove_callback(PrinterCallback)
        return trainer.train().training_loss


def _as_messages(pair: dict) -> dict:
    """The pair in chat messages, with its margin if it has one."""
    roles = {"prompt": "user", "chosen": "assistant", "rejected": "assistant"}
    row = {name: as_messages(pair[name], role) for name, role in roles.items()}
    return row | ({"margin": float(pair["margin"])} if "margin" in pair else {})


def _on_device(batch: dict, model: PreTrainedModel) -> dict:
    return {name: value.to(model.device) for name, value in batch.items()}
