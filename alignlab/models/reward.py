"""Reward models: a policy's trunk with a scalar head that scores a whole dialogue.

They are plain ``AutoModelForSequenceClassification`` models with one label, as
`transformers` and TRL expect, and give the same scores there: the score is read at the
last token that is not ``config.pad_token_id``. Encoders with a head of another name
(BERT, DeBERTa, ModernBERT) score as well; they are not started from a policy.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal
from weakref import WeakKeyDictionary

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.base import (
    adapters_base,
    device_in_use,
    evaluation_mode,
    load_weights,
    tokenizer_path,
)
from alignlab.models.cache import keeps_cache
from alignlab.models.fit import (
    has_virtual_tokens,
    is_precise,
    plain_model,
    require_loaded,
    require_scalar_head,
    require_vocabulary,
    says_how_to_save_memory,
    text_inputs,
)
from alignlab.models.lean import Places, last_mlp_at, lean_layers
from alignlab.models.named import explained, located
from alignlab.models.positions import needs_no_mask, positions_of
from alignlab.models.text import (
    Prompt,
    Reply,
    encode_dialogues,
    first_position,
    pad_right,
    pad_token_id,
    require_room,
)
from alignlab.seeds import torch_seed

Combination = Literal["mean", "worst", "penalised"]


def reward_model_from(policy: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """A reward model with a copy of the policy's trunk and a new scalar head.

    The head starts small, so that rewards start near 0, but not at 0, so that the trunk
    learns from the first step on.

    Args:
        policy: a causal language model; merge peft adapters into it first. The copy
            is in float32, or better where the policy is, so that no step is lost.
        seed: of the head's initial weights.

    Raises:
        AlignlabError: if `transformers` has no classifier for this kind of trunk.

    Source: Stiennon et al. (2020), appendix B.1, start from the SFT policy; the head's
    initial spread is that of Ziegler et al. (2019), further reduced.
    """
    from transformers import AutoModelForSequenceClassification

    require_loaded(policy)
    config = copy.deepcopy(policy.config)
    config.num_labels = 1
    precise = torch.promote_types(policy.dtype, torch.float32)
    try:
        model = AutoModelForSequenceClassification.from_config(config, dtype=precise)
        model.base_model.load_state_dict(policy.base_model.state_dict())
        head = model.score
    except (ValueError, RuntimeError, AttributeError) as error:
        raise AlignlabError(
            f"Cannot put a scalar head on a {type(policy).__name__}: "
            f"{str(error).splitlines()[0]}",
            "Pass a plain causal LM of `transformers` (peft adapters merged) that has "
            "a classifier there, such as Llama, Qwen, Gemma or GPT-2.",
        ) from error
    generator = torch.Generator().manual_seed(torch_seed(seed, "reward head"))
    hidden = head.weight.shape[1]
    start = torch.randn(1, hidden, generator=generator) / (hidden + 1)
    with torch.no_grad():
        head.weight.copy_(start)
    return model.to(policy.device).train(policy.training)


def load_reward_model(name_or_path: str | Path, dtype="float32"):
    """``(model, tokenizer)`` from a folder that ``models.base.save_model`` wrote, or
    from a Hub id, on the device that ``models.base.use_device`` named.

    Args:
        dtype: precision of the weights, such as "bfloat16" or ``torch.bfloat16``;
            "auto" takes the one that the checkpoint names.

    Raises:
        AlignlabError: if there is no such model or it has no tokenizer, or the
            checkpoint does not give one number per dialogue. From a language model,
            `transformers` would make one with a random head.
    """
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    name_or_path = located(name_or_path)
    _require_one_label(name_or_path)
    model = load_weights(
        AutoModelForSequenceClassification, name_or_path, dtype, num_labels=1
    )
    require_scalar_head(model)
    with explained(name_or_path):
        tokenizer = AutoTokenizer.from_pretrained(tokenizer_path(name_or_path))
    if model is not plain_model(model):  # adapters come without what they are read by
        read_before_padding(model, pad_token_id(tokenizer))
    return model.to(device_in_use()), tokenizer


def read_before_padding(model: nn.Module, pad_token_id: int) -> None:
    """Make this the model's padding, so that its scores are read before it. RoBERTa and
    its relatives stay as they are: their positions begin behind the padding's number,
    and scores are read at the first token."""
    if first_position(model) == 0:
        for config in (model.config, model.config.get_text_config()):
            config.pad_token_id = pad_token_id


def _require_one_label(name_or_path: str | Path) -> None:
    """Refuse a checkpoint of another kind, by its config or that of its adapters."""
    if adapters_base(name_or_path) is not None:
        from peft import PeftConfig

        task = PeftConfig.from_pretrained(name_or_path).task_type
        what = None if task == "SEQ_CLS" else f"it has adapters for the task {task}"
    else:
        from transformers import AutoConfig

        labels = AutoConfig.from_pretrained(name_or_path).num_labels
        what = None if labels == 1 else f"it has {labels} labels, not 1"
    if what is not None:
        raise AlignlabError(
            f"{name_or_path} is no reward model: {what}.",
            "Start one from a policy: `reward_model_from(policy)`.",
        )


def sequence_rewards(
    model: nn.Module,
    input_ids: Int[Tensor, "batch time"],
    attention_mask: Int[Tensor, "batch time"],
) -> Float[Tensor, "batch"]:
    """The reward of each row; at least float32.

    It is read where `transformers` reads it: at the last real token that is not
    ``config.pad_token_id``, which is one before EOS where EOS serves as padding. Where
    the config names no padding, `transformers` refuses batches; here the mask decides.

    Args:
        model: a sequence classifier with one label, also with LoRA adapters.
        input_ids: whole dialogues, padded on either side.
        attention_mask: 1 on real tokens, 0 on padding.

    Raises:
        ValueError: if the shapes differ, a row holds only padding, or an adapter puts
            virtual tokens before the text.
    """
    if input_ids.shape != attention_mask.shape or not attention_mask.any(dim=1).all():
        raise ValueError(
            f"input_ids have shape {tuple(input_ids.shape)} and attention_mask "
            f"{tuple(attention_mask.shape)}: they must agree, with a real token a row"
        )
    if has_virtual_tokens(model):
        raise ValueError(
            "the reward model's adapter puts virtual tokens before the text: see "
            "alignlab.models.fit.require_scalar_head"
        )
    plain = plain_model(model)
    by_token = scores_tokens(plain)
    if not (by_token and keeps_cache(plain.base_model)):  # padding before may count
        order = attention_mask.argsort(dim=1, descending=True, stable=True)
        input_ids, attention_mask = (
            x.gather(1, order) for x in (input_ids, attention_mask)
        )
    if by_token:
        rewards = _score_last_token(plain, input_ids, attention_mask)  # (B,)
    elif attention_mask.all() or not _reads_padding(model):
        logits = model(input_ids, attention_mask=attention_mask).logits
        rewards = logits.reshape(len(input_ids))  # (B, 1) -> (B,)
    else:
        rewards = _score_by_length(model, input_ids, attention_mask)
    return rewards.to(torch.promote_types(rewards.dtype, torch.float32))


def scores_tokens(plain: nn.Module) -> bool:
    """Whether the model is one of `transformers` that puts every token through its
    head ``score`` and picks the last one."""
    ours = type(plain).__module__.startswith("transformers.")
    return ours and isinstance(getattr(plain, "score", None), nn.Module)


_READS_PADDING: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def _reads_padding(model: nn.Module) -> bool:
    """Whether padding behind a text changes what the model says of it, although the
    mask marks it: some encoders mix neighbours, or all tokens, without asking."""
    plain = plain_model(model)
    if plain not in _READS_PADDING:
        device = next(model.parameters()).device
        cuda = [device] if device.type == "cuda" else []
        with (
            torch.random.fork_rng(devices=cuda),
            torch.autocast(device.type, enabled=False),
            evaluation_mode(model),
        ):
            _READS_PADDING[plain] = _padding_shows(model, device)
    return _READS_PADDING[plain]


@torch.no_grad()
def _padding_shows(model: nn.Module, device: torch.device) -> bool:
    size = model.config.get_text_config().vocab_size
    ids = (5 + torch.arange(24, device=device).view(3, 8)) % size
    mask = (torch.arange(12, device=device) < 8).long().expand(3, 12)
    alone = _read(model, ids, torch.ones_like(ids))
    for padding in (0, 5):  # the embedding of a padding token may be 0
        padded = _read(model, F.pad(ids, (0, 4), value=padding), mask)
        for own, other in zip(alone, padded, strict=True):
            other = other[:, : own.shape[1]]
            tolerance = (1e-4 if is_precise(model) else 0.03) * own.std()
            if (own - other).square().mean().sqrt() > tolerance:
                return True
    return False


def _read(model: nn.Module, ids: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Scores, and last hidden states, as a new head may still be 0."""
    entered = []
    trunk = getattr(plain_model(model), "base_model", model)
    hook = trunk.register_forward_hook(lambda *given: entered.append(given[-1][0]))
    try:
        logits = model(ids, attention_mask=mask).logits
    finally:
        hook.remove()
    return logits.float(), entered[0].float()


def _score_by_length(
    model: nn.Module,
    input_ids: Int[Tensor, "batch time"],
    attention_mask: Int[Tensor, "batch time"],
) -> Float[Tensor, "batch"]:
    """The same for rows with padding on the right, those of one length together, so
    that none is read with padding."""
    lengths = attention_mask.sum(1)
    groups = [(lengths == length).nonzero()[:, 0] for length in lengths.unique()]
    rewards = [
        model(ids, attention_mask=torch.ones_like(ids)).logits.reshape(len(rows))
        for rows in groups
        for ids in [input_ids[rows, : lengths[rows[0]]]]
    ]
    return torch.cat(rewards)[torch.cat(groups).argsort()]


def _score_last_token(
    plain: nn.Module,
    input_ids: Int[Tensor, "batch time"],
    attention_mask: Int[Tensor, "batch time"],
) -> Float[Tensor, "batch"]:
    places = _last_places(plain, input_ids, attention_mask)
    where = {}
    if not needs_no_mask(plain, attention_mask):
        counted = positions_of(attention_mask)
        where = {"attention_mask": attention_mask, "position_ids": counted}
    inputs = text_inputs(plain.base_model, input_ids, use_cache=False, **where)
    with last_mlp_at(plain, places, input_ids.shape[1]):
        hidden = plain.base_model(input_ids, **inputs).last_hidden_state
    return plain.score(hidden[places])[:, 0]  # (B, T, hidden) -> (B,)


def _last_places(
    plain: nn.Module,
    input_ids: Int[Tensor, "batch time"],
    attention_mask: Int[Tensor, "batch time"],
) -> Places:
    """Where each row's score is read, as (rows, columns): once a row, at its first
    token if all of them are padding by the config."""
    padding = plain.config.get_text_config().pad_token_id
    read = attention_mask.bool()
    if padding is not None:
        not_padding = read & (input_ids != padding)
        first = read & (read.cumsum(1) == 1)
        read = torch.where(not_padding.any(1, keepdim=True), not_padding, first)
    last = read.shape[1] - 1 - read.int().flip(1).argmax(1)  # (B,)
    return torch.arange(len(last), device=last.device), last


@torch.no_grad()
def score(
    model: nn.Module,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    completions: Sequence[Reply],
    batch_size: int = 256,
    chat_template_kwargs: Mapping | Sequence[Mapping | None] | None = None,
) -> np.ndarray:
    """The reward of each completion of its prompt, in the order given.

    Args:
        prompts: strings, or lists of chat messages.
        completions: one per prompt, strings without special tokens (the chat template
            adds EOS) or lists of chat messages.
        batch_size: dialogues at once; more is faster and takes more memory, and changes
            rewards by rounding only.
        chat_template_kwargs: what else the chat template reads, for all dialogues or
            one (or None) for each.

    Returns:
        (N,) of float64. Rewards have no unit and no zero: only differences between
        completions of one prompt mean something.

    Raises:
        ValueError: if there are not as many completions as prompts, or batch_size is
            not positive.
        AlignlabError: if the model does not give one number per text, the tokenizer
            has tokens that it lacks, or a dialogue does not fit into its context.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; it must be at least 1")
    require_scalar_head(model)
    require_vocabulary(model, tokenizer)
    ids = encode_dialogues(tokenizer, prompts, completions, chat_template_kwargs)
    require_room(model, ids, what="Dialogue")
    rewards = np.zeros(len(ids))
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # for little padding
    remedy = says_how_to_save_memory("Lower batch_size.")
    with evaluation_mode(model), lean_layers(model), remedy:
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            batch = pad_right([ids[i] for i in numbers], pad_token_id(tokenizer))
            batch = [tensor.to(model.device) for tensor in batch]
            rewards[numbers] = sequence_rewards(model, *batch).double().cpu().numpy()
    return rewards


def combine(
    scores: Float[np.ndarray, "members replies"],
    how: Combination = "mean",
    *,
    reference: Float[np.ndarray, "members others"] | None = None,
    penalty: float = 1.0,
) -> Float[np.ndarray, "replies"]:
    r"""One reward from the scores of an ensemble of reward models.

    "mean" is :math:`\bar r`; "worst" is the lowest score of a member; "penalised" is
    :math:`\bar r - \lambda \, \mathrm{var}(r)`, with the variance between the members
    (divided by their number). The last two trust a reply less where members disagree,
    so that a policy gains less from one member's faults.

    Args:
        scores: (M, N), a row for each member, as :func:`score` gives it.
        how: "mean", "worst" or "penalised".
        reference: (M, R), the members' scores of some common replies, such as the SFT
            policy's; each member's mean over them becomes its zero. Without it, members
            that differ in level, which means nothing, count as disagreeing.
        penalty: :math:`\lambda`; higher avoids disagreement more.

    Raises:
        ValueError: if the shapes do not fit, a score is not finite, or ``how`` is
            unknown.

    Source: Coste et al. (2024), section 3.2; Eisenstein et al. (2023) on the level.
    """
    if how not in Combination.__args__:
        raise ValueError(f"how is {how!r}; it can be one of {Combination.__args__}")
    scores = _finite_rows("scores", scores)
    if reference is not None:
        reference = _finite_rows("reference", reference)
        if len(reference) != len(scores):
            raise ValueError(
                f"reference has {len(reference)} rows and scores {len(scores)}: both "
                "need one per member of the ensemble"
            )
        scores = scores - reference.mean(axis=1, keepdims=True)
    if how == "worst":
        return scores.min(axis=0)
    mean = scores.mean(axis=0)
    return mean if how == "mean" else mean - penalty * scores.var(axis=0)


def _finite_rows(name: str, values) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 2 or not values.size:
        raise ValueError(
            f"{name} has shape {values.shape}; it must be (members, replies), not empty"
        )
    if not np.isfinite(values).all():
        place = np.argwhere(~np.isfinite(values))[0].tolist()
        raise ValueError(f"{name}{place} is {values[tuple(place)]}; it must be finite")
    return values
