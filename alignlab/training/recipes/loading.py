"""The models and data of a recipe, loaded and looked over: whatever is missing is one
clear message with its remedy."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from alignlab.errors import AlignlabError, did_you_mean
from alignlab.training.recipes.config import Recipe, make_config

COLUMNS = {  # what each stage trains on, in TRL's columns
    "sft": (("messages",), ("prompt", "completion"), ("text",)),
    "reward": (("chosen", "rejected"),),
    "dpo": (("chosen", "rejected"),),
    "orpo": (("chosen", "rejected"),),
    "kto": (("prompt", "completion", "label"),),
    "ppo": (("prompt",),),
}
BESIDE = ("prompt", "tools", "chat_template_kwargs", "margin")  # read where there


# --- Data -----------------------------------------------------------------------------


def load_data(recipe: Recipe, given: dict, quiet: bool = False):
    """The data set of a recipe, with the columns that its stage trains on; for PPO with
    all of them, as reward functions may ask for any.

    Raises:
        AlignlabError: if it cannot be loaded or lacks columns.
    """
    from alignlab.data import load

    options = dict(given)
    data = load(options.pop("source"), **options, quiet=quiet)
    wanted = COLUMNS[recipe.stage]
    there = [names for names in wanted if set(names) <= set(data.column_names)]
    if not there:
        needs = " or ".join(" and ".join(names) for names in wanted)
        raise AlignlabError(
            f"{given['source']} has the columns {', '.join(data.column_names)}; "
            f"{recipe.stage} needs {needs}.",
            "Say which column is which, data: {source: ..., columns: {theirs: "
            f"{wanted[0][0]}}}}}, or give other data.",
        )
    if recipe.stage == "kto" and not isinstance(data[0]["label"], bool):
        raise AlignlabError(
            f"{given['source']} has labels such as {data[0]['label']!r}; KTO needs "
            "true for a good completion and false for a bad one.",
            "Give other data, or rename the column.",
        )
    if recipe.stage == "ppo":
        return data
    kept = [name for name in (*BESIDE, *there[0]) if name in data.column_names]
    return data.select_columns(list(dict.fromkeys(kept)))


def require_chat_template(tokenizer, data, source: object, stage: str) -> None:
    """Refuse conversations where there is no chat template to write them with.

    Raises:
        AlignlabError: with the remedy.
    """
    cells = [data[0][name] for name in data.column_names]
    chats = any(isinstance(cell, list) and cell and "role" in cell[0] for cell in cells)
    if chats and tokenizer.chat_template is None:
        own = "args.chat_template_path, " if stage in HAS_PATH else ""
        raise AlignlabError(
            f"{source} holds conversations, and the model's tokenizer has no chat "
            "template.",
            f"Set {own}take the instruct version of the model, or give plain texts.",
        )


HAS_PATH = ("sft", "reward")


# --- Models ---------------------------------------------------------------------------


def load_for(recipe: Recipe, name: str | None = None):
    """The model to train, or another one of the recipe, on the CPU. For the stage
    "reward" a language model gets a scalar head, as small at first as in
    :func:`alignlab.models.reward.reward_model_from`.

    Raises:
        AlignlabError: if it cannot be loaded.
    """
    import transformers

    from alignlab.models.base import base_path, load_weights

    place = base_path(name or recipe.model)
    options = {
        "attn_implementation": recipe.attn_implementation,
        "quantization_config": quantization(recipe),
    }
    options = {key: value for key, value in options.items() if value is not None}
    if recipe.stage == "reward":
        return _with_scalar_head(place, recipe, options)
    return load_weights(
        transformers.AutoModelForCausalLM, place, recipe.dtype, **options
    )


def _with_scalar_head(place: Path, recipe: Recipe, options: dict):
    import torch
    from transformers import AutoModelForSequenceClassification

    from alignlab.models.base import adapters_base, load_weights
    from alignlab.models.named import explained
    from alignlab.seeds import torch_seed

    kind = AutoModelForSequenceClassification
    if adapters_base(place) is not None:
        return load_weights(kind, place, recipe.dtype, num_labels=1, **options)
    with _quiet(), explained(place):  # that the head is new is what we want
        model, report = kind.from_pretrained(
            place, dtype=recipe.dtype, num_labels=1, output_loading_info=True, **options
        )
    if "score.weight" in report["missing_keys"]:
        head = model.score.weight
        generator = torch.Generator()
        generator.manual_seed(torch_seed(recipe.seed, "reward head"))
        start = torch.randn(head.shape, generator=generator) / (head.shape[1] + 1)
        with torch.no_grad():
            head.copy_(start)
    return model


@contextmanager
def _quiet() -> Iterator[None]:
    from transformers.utils import logging

    verbosity = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)


def load_tokenizer(recipe: Recipe):
    """The tokenizer of the recipe's model; see :func:`require_padding`.

    Raises:
        AlignlabError: if there is none.
    """
    from transformers import AutoTokenizer

    from alignlab.models.base import base_path, tokenizer_path
    from alignlab.models.named import explained

    with explained(recipe.model):
        return AutoTokenizer.from_pretrained(tokenizer_path(base_path(recipe.model)))


def require_padding(tokenizer, recipe: Recipe) -> str | None:
    """Give the tokenizer a padding token, or say what serves as one.

    Returns:
        a line to show, if its EOS token serves.

    Raises:
        AlignlabError: if there is nothing to pad with.
    """
    wanted = recipe.pad_token
    if wanted is not None and wanted not in tokenizer.get_vocab():
        raise AlignlabError(
            f"pad_token is {wanted!r}, which is no token of the model.",
            "Name one that its texts never hold, such as <|finetune_right_pad_id|>.",
        )
    if wanted is not None:
        tokenizer.pad_token = wanted
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.pad_token is None:
        raise AlignlabError(
            f"The tokenizer of {recipe.model} has neither a padding nor an EOS token.",
            "Set pad_token in the recipe to a token that no text holds.",
        )
    if tokenizer.pad_token != tokenizer.eos_token:
        return None
    note = f"The EOS token, {tokenizer.eos_token!r}, also serves as padding"
    if recipe.stage == "reward":
        note += ": rewards are read one token before it"
    return f"{note}."


def quantization(recipe: Recipe):
    """The recipe's BitsAndBytesConfig, None if it has none.

    Raises:
        AlignlabError: if bitsandbytes is not installed or a field is unknown.
    """
    if recipe.quantization is None:
        return None
    if find_spec("bitsandbytes") is None:
        raise AlignlabError(
            "The recipe has `quantization`, and bitsandbytes is not installed.",
            "python -m pip install bitsandbytes, or leave quantization out.",
        )
    import inspect

    from transformers import BitsAndBytesConfig

    known = [*inspect.signature(BitsAndBytesConfig).parameters]
    for name in recipe.quantization:
        if name not in known:
            raise AlignlabError(
                f"quantization has an unknown key {name!r}.", did_you_mean(name, known)
            )
    return BitsAndBytesConfig(**recipe.quantization)


def adapters(recipe: Recipe):
    """The recipe's LoraConfig, None if it has none."""
    if recipe.lora is None:
        return None
    from peft import LoraConfig

    task = "SEQ_CLS" if recipe.stage == "reward" else "CAUSAL_LM"
    return make_config(LoraConfig, recipe.lora, "lora", task_type=task)
