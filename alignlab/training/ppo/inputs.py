"""What a PPOTrainer is given: models and tokenizer, loaded and checked."""

import copy
from pathlib import Path

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    ProcessorMixin,
)

from alignlab.errors import AlignlabError
from alignlab.models.base import (
    evaluation_mode,
    load_model,
    load_weights,
    tokenizer_path,
)
from alignlab.models.fit import (
    require_causal_lm,
    require_scalar_head,
    require_trainable,
    require_vocabulary,
    tokenizer_size,
    vocabulary_size,
)
from alignlab.models.text import end_token_ids, pad_token_id
from alignlab.training.ppo.config import PPOConfig


def load_policy(
    model: PreTrainedModel | str | Path,
    tokenizer: PreTrainedTokenizerBase | ProcessorMixin | None,
    dtype: str = "float32",
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """``(model, tokenizer)``, loaded where the model is a folder or a Hub id.

    Args:
        dtype: of weights that are loaded.
    """
    if isinstance(model, str | Path):
        if tokenizer is None:
            model, tokenizer = load_model(model, dtype)
        else:
            model = load_weights(AutoModelForCausalLM, model, dtype)
    if isinstance(tokenizer, ProcessorMixin):
        tokenizer = tokenizer.tokenizer
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        given = None if tokenizer is None else type(tokenizer).__name__
        raise AlignlabError(
            f"processing_class is {given}.", "Pass the model's tokenizer."
        )
    pad_token_id(tokenizer)  # refuses one with nothing to pad with
    return model, tokenizer


def add_adapters(model: PreTrainedModel, peft_config) -> nn.Module:
    """The model with new adapters, in place.

    Raises:
        AlignlabError: if it has adapters already, or the new ones put virtual tokens
            before every text.
    """
    from peft import get_peft_model

    if hasattr(model, "peft_config"):
        raise AlignlabError(
            "peft_config was passed with a model that has adapters already.",
            "Pass only one of them, or `model.merge_and_unload()`.",
        )
    model = get_peft_model(model, peft_config)
    require_causal_lm(model)
    return model


def copy_reward_model(sources: list) -> PreTrainedModel:
    """A copy of the only reward model, to start a value model from: all of it can be
    trained, in float32, whatever the reward model is kept in."""
    models = [source for source in sources if isinstance(source, nn.Module)]
    if len(models) != 1:
        raise AlignlabError(
            f"value_model is 'reward model', and {len(models)} of reward_funcs are "
            "models that read the policy's tokens.",
            "Have exactly one of them, or pass the value model itself.",
        )
    model = copy.deepcopy(models[0])
    if hasattr(model, "merge_and_unload"):  # it has adapters
        model = model.merge_and_unload()
    return model.float().requires_grad_(True)


# --- Whether the models fit together ------------------------------------------------


def require_compatible(model, ref_model, value_model, sources: list, tokenizer) -> None:
    """Refuse models that PPO cannot use, that do not fit together, or that share
    weights with what is trained.

    Raises:
        AlignlabError: naming the argument and the remedy.
    """
    readers = [source for source in sources if isinstance(source, nn.Module)]
    pairs = [source for source in sources if isinstance(source, tuple)]
    judges = readers + [judge for judge, _ in pairs]
    for argument, given in dict(
        model=[model], ref_model=[ref_model], value_model=[value_model],
        reward_funcs=judges,
    ).items():  # fmt: skip
        for other in given:
            _require_model(other, argument)
    _require_apart(model, ref_model, value_model, judges)
    require_causal_lm(model)
    require_vocabulary(model, tokenizer)
    if ref_model is not None:
        _require_reference(ref_model, model, tokenizer)
    for judge, own_tokenizer in [(judge, tokenizer) for judge in readers] + pairs:
        require_scalar_head(judge)
        require_vocabulary(judge, own_tokenizer)
        pad_token_id(own_tokenizer)
    if value_model is not None:
        _require_value_model(value_model)
        require_vocabulary(value_model, tokenizer)
    for other in (ref_model, value_model, *readers):
        if other is not None:
            _require_same_tokens(other, tokenizer)


def _require_model(given, argument: str) -> None:
    if given is not None and not hasattr(given, "config"):
        raise AlignlabError(
            f"{argument} has a {type(given).__name__}, which is no model of "
            "`transformers`.",
            "Load one; to reward by another model, wrap it in a function of (prompts, "
            "completions).",
        )


def _require_apart(model, ref_model, value_model, judges: list) -> None:
    """Refuse models that would change as others are trained."""
    if _share_weights(model, [ref_model]):
        raise AlignlabError(
            f"ref_model {'is the' if ref_model is model else 'shares weights with the'}"
            " policy itself: it would be trained too, and the KL to it would always be "
            "0.",
            "Pass copy.deepcopy(model), or None for the policy as it is now.",
        )
    if _share_weights(model, judges):
        raise AlignlabError(
            "A reward model shares weights with the policy: training it would change "
            "the rewards.",
            "Pass a copy of the reward model.",
        )
    if _share_weights(value_model, [model, ref_model, *judges]):
        raise AlignlabError(
            "value_model is also the policy or a reward model, or shares weights with "
            "one, which training it would change.",
            "Pass a copy of it.",
        )


def _share_weights(model: nn.Module | None, others: list) -> bool:
    if model is None:
        return False
    own = {id(parameter) for parameter in model.parameters()}
    others = [other for other in others if other is not None]
    return any(id(p) in own for other in others for p in other.parameters())


def _require_reference(ref_model, model, tokenizer) -> None:
    require_causal_lm(ref_model)
    require_vocabulary(ref_model, tokenizer)
    own, other = vocabulary_size(model), vocabulary_size(ref_model)
    ids = tokenizer_size(tokenizer)
    # Ids beyond the tokenizer's are never sampled, and their logits left out.
    if other != own and (own <= ids or other < ids):
        raise AlignlabError(
            f"ref_model has a vocabulary of {other} tokens, and the policy one of "
            f"{own}.",
            "Pass a reference that reads the policy's tokens.",
        )


def _require_value_model(value_model) -> None:
    """Refuse a value model that cannot be trained, or knows the future."""
    require_scalar_head(value_model)
    if hasattr(value_model, "get_base_model"):
        raise AlignlabError(
            "value_model has peft adapters.", "Pass value_model.merge_and_unload()."
        )
    require_trainable(value_model, "value model")
    if not hasattr(value_model, "score") or _sees_later_tokens(value_model):
        raise AlignlabError(
            f"value_model is a {type(value_model).__name__}, in which a token sees "
            "those that follow it: the value of a token would depend on its future.",
            "Pass a sequence classifier on a decoder, such as "
            "alignlab.models.reward.reward_model_from(policy), or None.",
        )


@torch.no_grad()
def _sees_later_tokens(model) -> bool:
    ids = torch.tensor([[1, 2, 3, 1], [1, 2, 3, 2]], device=model.device)
    with evaluation_mode(model):
        hidden = model.base_model(ids, attention_mask=torch.ones_like(ids))
    first, second = hidden.last_hidden_state[:, :3].float()
    single = model.dtype.itemsize >= 4
    return bool((first - second).std() > (1e-4 if single else 0.03) * first.std())


def _require_same_tokens(model, tokenizer) -> None:
    """Refuse a model whose own tokenizer, where it is at hand, gives a number that both
    have to another token."""
    own = _own_tokenizer(model)
    if own is None:
        return
    tokens = {number: token for token, number in tokenizer.get_vocab().items()}
    for token, number in own.get_vocab().items():
        if tokens.get(number, token) != token:
            raise AlignlabError(
                f"{model.config.name_or_path!r} has a tokenizer of its own, in which "
                f"token {number} is {token!r}; in the policy's it is "
                f"{tokens[number]!r}.",
                "Pass a reward model together with its tokenizer: (model, tokenizer). "
                "A reference or value model has to read the policy's tokens.",
            )


def _own_tokenizer(model) -> PreTrainedTokenizerBase | None:
    """The tokenizer in the folder that the model was loaded from, or in the Hub's cache
    on this machine; None if there is none."""
    name = model.config.name_or_path
    if not name:
        return None
    folder = Path(tokenizer_path(name))
    if folder.is_dir() and not (folder / "tokenizer.json").exists():
        return None
    try:
        return AutoTokenizer.from_pretrained(
            str(folder), local_files_only=True, trust_remote_code=False
        )
    except Exception:  # whatever there is, it is no tokenizer
        return None


# --- When a completion ends ---------------------------------------------------------


def stop_tokens(
    config: PPOConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    vocabulary: int,
) -> list[int]:
    """The tokens that end a completion, each below ``vocabulary``."""
    given = config.stop_token_id
    if given is None:
        ends = end_token_ids(tokenizer, model)
        stops = [token for token in ends if token < vocabulary]
    else:
        stops = [given] if isinstance(given, int) else list(given)
    if not stops and config.missing_eos_penalty is not None:
        raise AlignlabError(
            "missing_eos_penalty is set, and nothing ends a completion: the tokenizer "
            "has no EOS token.",
            "Set stop_token_id, or leave the penalty out.",
        )
    for stop in stops:
        if not 0 <= stop < vocabulary:
            raise AlignlabError(
                f"stop_token_id is {given}; the vocabulary has {vocabulary} tokens.",
                "Pass one of them, or several in a list.",
            )
    return stops
