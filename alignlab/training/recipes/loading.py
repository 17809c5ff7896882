"""The models and data of a recipe, loaded and looked over: whatever is missing is one
clear message with its remedy."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from alignlab.errors import AlignlabError, did_you_mean
from alignlab.training.recipes.config import Recipe, first_line, make_config

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
            f"{wanted[0][-1]}}}}}, or give other data.",
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


def place_of(model: str) -> str:
    """Folder or Hub id of what a recipe calls its model.

    Raises:
        AlignlabError: if it is a file, or a folder without a model.
    """
    from alignlab.models.base import SIZES, base_path

    if model in SIZES:
        return str(base_path(model))
    place = Path(model).expanduser()
    if place.is_file():
        raise AlignlabError(
            f"The model {model} is a file.", "Give the folder that holds config.json."
        )
    if place.is_dir():
        if not any((place / name).exists() for name in CONFIGS):
            raise AlignlabError(
                f"The folder {model} holds no model: there is no {CONFIGS[0]}.",
                "Give the folder that save_pretrained wrote, or one of its "
                "checkpoint-* folders.",
            )
        return str(place)
    if model.count("/") > 1 or model.startswith((".", "/", "~")):
        raise AlignlabError(
            f"There is no folder {model}.",
            f"Give a path as seen from {Path.cwd()}, a size ({', '.join(SIZES)}), "
            "smollm2, or a Hub id.",
        )
    return model


CONFIGS = ("config.json", "adapter_config.json")


def load_for(recipe: Recipe, name: str | None = None, scalar: bool | None = None):
    """A model of the recipe, on the CPU: the one to train, or another one.

    Args:
        name: which, if not the one to train.
        scalar: a reward model; by default where the stage trains one. A language model
            gets a new scalar head, as small as in
            :func:`alignlab.models.reward.reward_model_from`.

    Raises:
        AlignlabError: if it cannot be loaded.
    """
    import transformers

    from alignlab.models.base import load_weights

    name = name or recipe.model
    scalar = recipe.stage == "reward" if scalar is None else scalar
    options = {
        "attn_implementation": recipe.attn_implementation,
        "revision": recipe.revision,
        "quantization_config": quantization(recipe),
    }
    options = {key: value for key, value in options.items() if value is not None}
    with explained(name):
        place = place_of(name)
        if scalar:
            return _with_scalar_head(place, recipe, options)
        kind = transformers.AutoModelForCausalLM
        return load_weights(kind, place, recipe.dtype, **options)


def _with_scalar_head(place: str, recipe: Recipe, options: dict):
    import torch
    from transformers import AutoModelForSequenceClassification

    from alignlab.models.base import adapters_base, load_weights
    from alignlab.seeds import torch_seed

    kind = AutoModelForSequenceClassification
    if adapters_base(place) is not None:
        return load_weights(kind, place, recipe.dtype, num_labels=1, **options)
    with _quiet():  # that the head is new is what we want
        model, report = kind.from_pretrained(
            place, dtype=recipe.dtype, num_labels=1, output_loading_info=True, **options
        )
    if "score.weight" in report["missing_keys"]:
        head = model.score.weight
        generator = torch.Generator().manual_seed(
            torch_seed(recipe.seed, "reward head")
        )
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

    from alignlab.models.base import tokenizer_path

    with explained(recipe.model):
        place = tokenizer_path(place_of(recipe.model))
        options = {"revision": recipe.revision} if recipe.revision else {}
        return AutoTokenizer.from_pretrained(place, **options)


def require_padding(tokenizer, recipe: Recipe) -> str | None:
    """Give the tokenizer a padding token, or say what serves as one.

    Returns:
        a line to show, if its EOS token serves.

    Raises:
        AlignlabError: if there is nothing to pad with, or the EOS token, at which a
            reward model is read, would have to serve.
    """
    wanted = recipe.args.get("pad_token")
    if wanted is not None and wanted not in tokenizer.get_vocab():
        raise AlignlabError(
            f"args.pad_token is {wanted!r}, which is no token of the model.",
            "Name one that its texts never hold, such as <|finetune_right_pad_id|>.",
        )
    if wanted is not None:
        tokenizer.pad_token = wanted
    if tokenizer.pad_token is not None:
        return None
    if tokenizer.eos_token is None or recipe.stage == "reward":
        has = "neither a padding nor an EOS token"
        if tokenizer.eos_token is not None:
            has = "no padding token, and a reward model is read at its EOS token"
        raise AlignlabError(
            f"The tokenizer of {recipe.model} has {has}.",
            "Save it with one: tokenizer.pad_token = '<|pad|>' (a token that no text "
            "holds), tokenizer.save_pretrained(folder)"
            + (", or set args.pad_token." if recipe.stage in HAS_PAD else "."),
        )
    tokenizer.pad_token = tokenizer.eos_token
    return f"There is no padding token; EOS, {tokenizer.eos_token!r}, serves as one."


HAS_PAD = ("sft", "reward", "dpo")


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


# --- What went wrong ------------------------------------------------------------------


@contextmanager
def explained(model: str) -> Iterator[None]:
    """Turn what `transformers` and the Hub raise about a model into one sentence with a
    remedy; every other error passes."""
    try:
        yield
    except AlignlabError:
        raise
    except (OSError, ValueError, RuntimeError, KeyError) as error:
        reason = _reason(model, _chain(error))
        if reason is None:
            raise
        raise AlignlabError(*reason) from error


def _chain(error: BaseException) -> list[BaseException]:
    """The error and those that led to it."""
    chain = []
    while error is not None and error not in chain:
        chain.append(error)
        error = error.__cause__ or error.__context__
    return chain


def _reason(model: str, errors: Sequence[BaseException]) -> tuple[str, str] | None:
    kinds = {kind.__name__ for error in errors for kind in type(error).__mro__}
    said = " ".join(str(error) for error in errors)
    if "out of memory" in said or "can't allocate memory" in said:
        return None
    if "GatedRepoError" in kinds:
        return (
            f"The model {model!r} is gated on the Hub.",
            "Accept its licence on its page, then log in: hf auth login",
        )
    if kinds & {"RepositoryNotFoundError", "RevisionNotFoundError"}:
        return (
            f"There is no model {model!r} on the Hub, or you may not see it.",
            "Correct the id or the revision, or log in: hf auth login",
        )
    if "couldn't connect" in said.lower() or kinds & OFFLINE:
        return (
            f"The model {model!r} is neither a folder nor in the Hub's cache, and the "
            "Hub cannot be reached.",
            "Connect, download it where there is a network (hf download "
            f"{model}), or take one that needs none: 1m, smollm2.",
        )
    if isinstance(errors[0], OSError | ValueError | KeyError) or "state_dict" in said:
        return (
            f"Cannot load the model {model!r}: {first_line(errors[0])}",
            "Give the folder of a causal language model, or of its adapters.",
        )
    return None


OFFLINE = {
    "LocalEntryNotFoundError",
    "OfflineModeIsEnabled",
    "ConnectionError",
    "ConnectError",
    "ConnectTimeout",
}
