"""What a PPOTrainer is given: models and tokenizer, loaded and checked."""

import copy
from pathlib import Path

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.base import tokenizer_path
from alignlab.training.ppo.config import PPOConfig


def load_policy(
    model: PreTrainedModel | str | Path, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """``(model, tokenizer)``, loaded where the model is a folder or a Hub id."""
    if isinstance(model, str | Path):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        tokenizer = tokenizer or AutoTokenizer.from_pretrained(tokenizer_path(model))
        model = AutoModelForCausalLM.from_pretrained(model)
    if tokenizer is None:
        raise AlignlabError("processing_class is None.", "Pass the model's tokenizer.")
    if tokenizer.pad_token_id is None:
        raise AlignlabError(
            f"The tokenizer {tokenizer.name_or_path!r} has no padding token.",
            "Set one: `tokenizer.pad_token = tokenizer.eos_token` will do.",
        )
    return model, tokenizer


def add_adapters(model: PreTrainedModel, peft_config) -> nn.Module:
    from peft import get_peft_model

    if hasattr(model, "disable_adapter"):
        raise AlignlabError(
            "peft_config was passed with a model that has adapters already.",
            "Pass only one of them, or `model.merge_and_unload()`.",
        )
    return get_peft_model(model, peft_config)


def copy_reward_model(sources: list) -> PreTrainedModel:
    """A copy of the only reward model, to start a value model from."""
    models = [source for source in sources if isinstance(source, nn.Module)]
    if len(models) != 1:
        raise AlignlabError(
            f"value_model is 'reward model', and {len(models)} of reward_funcs are "
            "models that read the policy's tokens.",
            "Have exactly one of them, or pass the value model itself.",
        )
    return copy.deepcopy(models[0])


def require_compatible(model, ref_model, value_model, sources: list, tokenizer) -> None:
    """Refuse models that are the same object, or do not fit together."""
    if getattr(model, "get_output_embeddings", lambda: None)() is None:
        raise AlignlabError(
            f"A {type(model).__name__} has no output layer over a vocabulary.",
            "Pass a causal language model.",
        )
    if ref_model is model:
        raise AlignlabError(
            "ref_model is the policy itself: it would be trained too, and the KL to it "
            "would always be 0.",
            "Pass copy.deepcopy(model), or None for the policy as it is now.",
        )
    classifiers = [source for source in sources if isinstance(source, nn.Module)]
    with_tokenizer = [source[0] for source in sources if isinstance(source, tuple)]
    if value_model is not None:
        others = (model, *classifiers, *with_tokenizer)
        if any(value_model is other for other in others):
            raise AlignlabError(
                "value_model is also the policy or a reward model, which training it "
                "would change.",
                "Pass a copy of it.",
            )
        classifiers.append(value_model)
    for classifier in (*classifiers, *with_tokenizer):
        _require_scalar_head(classifier)
    references = [] if ref_model is None else [ref_model]
    for other in (model, *classifiers, *references):
        _require_vocabulary(model, other, tokenizer, same=other is ref_model)


def _require_scalar_head(model: PreTrainedModel) -> None:
    if model.config.num_labels != 1 or not hasattr(model, "score"):
        raise AlignlabError(
            f"A {type(model).__name__} with {model.config.num_labels} labels gives "
            "no single number.",
            "Pass a sequence classifier with num_labels=1 and a `score` head.",
        )


def _require_vocabulary(model, other, tokenizer, same: bool) -> None:
    size = vocabulary_size(other)
    needed = vocabulary_size(model) if same else len(tokenizer)
    if size < needed or (same and size != needed):
        raise AlignlabError(
            f"A {type(other).__name__} has a vocabulary of {size} tokens and needs one "
            f"of {needed}.",
            "Pass models that read the policy's tokens, or a reward model together "
            "with its own tokenizer.",
        )


def vocabulary_size(model: PreTrainedModel) -> int:
    return model.config.get_text_config().vocab_size


def stop_token(
    config: PPOConfig, tokenizer: PreTrainedTokenizerBase, vocabulary: int
) -> int | None:
    """The token that ends a completion, or None if there is none."""
    stop = config.stop_token_id
    stop = tokenizer.eos_token_id if stop is None else stop
    if stop is None and config.missing_eos_penalty is not None:
        raise AlignlabError(
            "missing_eos_penalty is set, and the tokenizer has no EOS token.",
            "Set stop_token_id, or leave the penalty out.",
        )
    if stop is not None and not 0 <= stop < vocabulary:
        raise AlignlabError(
            f"stop_token_id is {stop}; the model's vocabulary has {vocabulary} tokens.",
            "Pass one of them.",
        )
    return stop
