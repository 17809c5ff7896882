"""Each stage's trainer: SFT, reward models, DPO, KTO and ORPO are TRL's; PPO, RLOO and
GRPO are ours. TRL is imported where it is needed, as that takes seconds."""

import importlib
import importlib.util
import warnings
from collections.abc import Callable
from pathlib import Path

from alignlab.errors import AlignlabError, did_you_mean
from alignlab.models.base import base_path
from alignlab.training.recipes.config import Recipe, first_line, make_config
from alignlab.training.recipes.loading import (
    adapters,
    load_data,
    load_for,
    load_tokenizer,
    require_chat_template,
    require_padding,
)

CONFIGS = {  # module, config, trainer
    "sft": ("trl", "SFTConfig", "SFTTrainer"),
    "reward": ("trl", "RewardConfig", "RewardTrainer"),
    "dpo": ("trl", "DPOConfig", "DPOTrainer"),
    "kto": ("trl", "KTOConfig", "KTOTrainer"),
    "orpo": ("trl.experimental.orpo", "ORPOConfig", "ORPOTrainer"),
    "ppo": ("alignlab.ppo", "PPOConfig", "PPOTrainer"),
}
REPORTERS = {"trackio", "wandb", "tensorboard", "mlflow", "comet_ml", "swanlab"}


def parts_of(stage: str) -> tuple[type, type]:
    """``(config, trainer)``, the classes of a stage."""
    module, config, trainer = CONFIGS[stage]
    with warnings.catch_warnings(action="ignore"):  # TRL calls ORPO experimental
        module = importlib.import_module(module)
    return getattr(module, config), getattr(module, trainer)


def training_arguments(recipe: Recipe) -> tuple[object, list[str]]:
    """The trainer's own config, and what in it is not as the library has it, in lines
    to show.

    Raises:
        AlignlabError: if a field is unknown or refused, the device is not there, or a
            reporter is not installed.
    """
    on_cpu = _require_device(recipe.device) == "cpu"
    values, notes = dict(recipe.args), []
    if on_cpu and recipe.stage != "ppo":  # whose defaults are those of transformers
        ours = {"bf16": False, "gradient_checkpointing": False}
        ours = {name: value for name, value in ours.items() if name not in values}
        values |= ours
        if ours:
            notes.append(
                f"Off on a CPU unless args says otherwise: {', '.join(ours)}. TRL has "
                "them on."
            )
    values.setdefault("ddp_find_unused_parameters", False)  # there are none
    for name in _as_list(values.get("report_to")):
        _require_reporter(name)
    config, _ = parts_of(recipe.stage)
    # TRL and its trainers still use the names of transformers before the last.
    warnings.filterwarnings("ignore", "`(is_)?gradient_checkpointing` is deprecated")
    args = make_config(
        config,
        values,
        "args",
        output_dir=recipe.output_dir,
        seed=recipe.seed,
        use_cpu=recipe.device == "cpu",
        push_to_hub=False,  # at the end, with our card
        hub_model_id=None,
        **({"dtype": recipe.dtype} if recipe.stage == "ppo" else OF_LOADING),
    )
    if recipe.device not in (None, args.device.type):
        raise AlignlabError(
            f"device is {recipe.device!r}, and this process was started on "
            f"{args.device.type!r}.",
            "Start it without --cpu, or --set device=" + args.device.type,
        )
    if args.mixed_precision != "no" and not (args.bf16 or args.fp16):
        notes.append(
            f"accelerate's configuration has mixed_precision {args.mixed_precision}: "
            "it counts, though args has neither bf16 nor fp16."
        )
    return args, notes


OF_LOADING = {"model_init_kwargs": None}  # TRL would ignore them


def _require_device(device: str | None) -> str:
    """The type of the device that training will be on.

    Raises:
        AlignlabError: if it is not there.
    """
    import torch

    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if device is None:
        return next(name for name, is_there in there.items() if is_there)
    if not there[device]:
        raise AlignlabError(
            f"device is {device!r}, and torch {torch.__version__} sees none.",
            "Run `nvidia-smi` and install a build of torch for your GPU, or take a "
            "recipe for a CPU: --set device=cpu"
            if device == "cuda"
            else "--set device=cpu",
        )
    return device


def _as_list(value: object) -> list:
    return value if isinstance(value, list) else [] if value is None else [value]


def _require_reporter(name: str) -> None:
    if name in ("none", "all"):
        return
    if name in REPORTERS and importlib.util.find_spec(name) is None:
        raise AlignlabError(
            f"args.report_to is {name!r}, which is not installed.",
            f"python -m pip install {name.replace('_', '-')}, or report_to: none",
        )
    if name not in REPORTERS:
        from transformers.integrations import INTEGRATION_TO_CALLBACK as known

        if name not in known:
            raise AlignlabError(
                f"args.report_to is {name!r}.", did_you_mean(name, known)
            )


def make_trainer(recipe: Recipe, args, quiet: bool = False) -> tuple[object, list[str]]:
    """The trainer of a recipe, with everything loaded, and lines to show.

    Args:
        args: see :func:`training_arguments`.
        quiet: another process has printed what the data are.

    Raises:
        AlignlabError: if anything is missing or does not fit together.
    """
    data = load_data(recipe, recipe.data, quiet)
    eval_data = recipe.eval_data
    if eval_data is not None:
        eval_data = load_data(recipe, eval_data, quiet)
    tokenizer = load_tokenizer(recipe)
    note = require_padding(tokenizer, recipe)
    if "chat_template_path" not in recipe.args:
        require_chat_template(tokenizer, data, recipe.data["source"], recipe.stage)
    model = load_for(recipe)
    has_adapters = hasattr(model, "peft_config")
    if has_adapters and recipe.lora is not None:
        raise AlignlabError(
            f"{recipe.model} holds adapters, and the recipe has `lora` for new ones.",
            "Leave lora out to train those further, or merge them first: "
            "model.merge_and_unload().save_pretrained(folder).",
        )
    options = dict(
        args=args,
        train_dataset=data,
        eval_dataset=eval_data,
        processing_class=tokenizer,
        peft_config=adapters(recipe),
    )
    if recipe.stage in ("dpo", "kto", "ppo"):
        options["ref_model"] = _reference(recipe, has_adapters)
    if recipe.stage == "ppo":
        options["reward_funcs"] = [reward_source(name) for name in recipe.reward_funcs]
        options["value_model"] = recipe.value_model
    _, trainer = parts_of(recipe.stage)
    try:
        made = trainer(model, **options)
    except (ValueError, NotImplementedError, TypeError) as error:
        raise AlignlabError(
            f"{trainer.__name__} refused the recipe: {first_line(error)}",
            f"Correct it in {recipe.where}.",
        ) from error
    if recipe.stage == "ppo" and args.disable_tqdm:
        made.add_callback(_lines())
    return made, [note] if note else []


def _lines():
    """A callback that prints the most telling numbers of each update, where there is
    no progress bar."""
    from transformers import TrainerCallback

    class Lines(TrainerCallback):
        def on_log(self, args, state, control, logs=None, **kwargs):
            if state.is_world_process_zero and logs and "score" in logs:
                shown = [f"{name} {logs[name]:.3f}" for name in TELLING]
                print(f"update {state.global_step}: {', '.join(shown)}", flush=True)

    return Lines()


TELLING = ("score", "kl_exact", "entropy", "completion_length", "eos_rate", "loss")


def _reference(recipe: Recipe, has_adapters: bool):
    """The reference model, None where the trainer has it anyway: with adapters it is
    the base without them, or the adapters as they were, and PPO copies its policy. TRL
    would load it from where the policy came from, which may be nowhere."""
    if recipe.ref_model is not None:
        return load_for(recipe, recipe.ref_model)
    if recipe.stage == "ppo" or has_adapters or recipe.lora is not None:
        return None
    if recipe.args.get("precompute_ref_log_probs"):
        return None
    return load_for(recipe)


def reward_source(name: str) -> str | Callable:
    """What a recipe calls a reward: a function ("file.py:name", "package.module:name"),
    or the folder or Hub id of a reward model.

    Raises:
        AlignlabError: if there is no such function or model.
    """
    place, colon, function = name.rpartition(":")
    if not colon or len(place) == 1:  # C:\...
        return str(base_path(name))
    try:
        if place.endswith(".py"):
            spec = importlib.util.spec_from_file_location(Path(place).stem, place)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(place)
    except (ImportError, OSError) as error:
        raise AlignlabError(
            f"reward_funcs names {name!r}: {first_line(error)}",
            f"Give a path as seen from {Path.cwd()}, such as rewards.py:brevity.",
        ) from error
    known = [key for key, value in vars(module).items() if callable(value)]
    if function not in known:
        raise AlignlabError(
            f"reward_funcs names {name!r}, and {place} has no function {function!r}.",
            did_you_mean(function, known),
        )
    return getattr(module, function)
