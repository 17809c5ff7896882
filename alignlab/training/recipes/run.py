"""One run from a recipe: check, load, say what will be trained, train, save, push."""

import json
from pathlib import Path

from alignlab.errors import AlignlabError
from alignlab.training.ppo.checkpoints import last_checkpoint
from alignlab.training.recipes.card import push, write_card
from alignlab.training.recipes.checkpoints import Sealing, damage, save_model
from alignlab.training.recipes.config import Recipe
from alignlab.training.recipes.launch import (
    launcher_arguments,
    require_started_as_asked,
)
from alignlab.training.recipes.memory import estimate, in_words
from alignlab.training.recipes.stages import make_trainer, training_arguments
from alignlab.training.recipes.summary import SMALLER, say, size_of


def train(recipe: Recipe, resume: bool = False, dry_run: bool = False):
    """Train as the recipe says; the model and its card end up in its output_dir.

    Args:
        resume: continue from the last complete checkpoint in output_dir; from the start
            if there is none yet.
        dry_run: load and check everything, say what would be trained, and stop.

    Returns:
        the trainer.

    Raises:
        AlignlabError: if anything in the recipe, on the machine or on the way is wrong
            that the user can mend.
    """
    args, notes = training_arguments(recipe)
    require_started_as_asked(
        args.world_size,
        args.device.type == "cpu",
        args.n_gpu,
        recipe.num_processes,
        launcher_arguments(),
    )
    checkpoint = _checkpoint(recipe, resume, notes)
    is_main = args.process_index == 0
    parts: dict = {}
    try:
        trainer, more = make_trainer(recipe, args, quiet=not is_main)
        trainer.add_callback(Sealing)
        parts = estimate(*size_of(recipe, trainer))
        if is_main:
            say(recipe, trainer, parts, notes + more)
        if dry_run:
            return trainer
        if checkpoint is not None and is_finished(trainer, checkpoint):
            trainer._load_from_checkpoint(checkpoint)
        else:
            trainer.train(resume_from_checkpoint=checkpoint)
    except (RuntimeError, MemoryError, AlignlabError) as error:
        if not _is_out_of_memory(error.__cause__ or error):
            raise
        needs = f" It needs about {in_words(parts)}." if parts else ""
        raise AlignlabError(
            f"{recipe.where}: out of memory.{needs}", SMALLER
        ) from error
    save_model(trainer, Path(recipe.output_dir))
    if is_main:
        write_card(recipe, trainer)
        print(f"model and card: {recipe.output_dir}", flush=True)
        if recipe.push_to_hub is not None:
            push(recipe)
    return trainer


def _checkpoint(recipe: Recipe, resume: bool, notes: list[str]) -> str | None:
    folder = Path(recipe.output_dir)
    last = last_checkpoint(folder) if folder.is_dir() else None
    if last is not None and not resume:
        raise AlignlabError(
            f"{recipe.output_dir} holds checkpoints of another run.",
            "Continue it with --resume, or write elsewhere: --set output_dir=FOLDER",
        )
    if last is not None and (changed := damage(Path(last))):
        raise AlignlabError(
            f"Checkpoint {last} is damaged: {changed} is not what was written.",
            "Delete it to continue from the one before it, or from the beginning if "
            "there is none.",
        )
    if resume:
        notes.append(
            f"Continues from {last}."
            if last
            else f"There is no checkpoint in {folder}: starts from the beginning."
        )
    return None if last is None else str(last)


def is_finished(trainer, checkpoint: str) -> bool:
    """Whether a checkpoint is the run's last: `transformers` would add a step to it.

    Raises:
        AlignlabError: if it is, and its weights are spread over processes.
    """
    state = json.loads((Path(checkpoint) / "trainer_state.json").read_text())
    steps = trainer.args.max_steps if trainer.args.max_steps > 0 else state["max_steps"]
    if state["global_step"] < steps:
        return False
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise AlignlabError(
            f"The run is finished: {checkpoint} is its last step.",
            "Use that folder as the model, or train longer: --set args.max_steps=N",
        )
    trainer.state.global_step = state["global_step"]
    trainer.state.log_history = state["log_history"]
    return True


def _is_out_of_memory(error: Exception) -> bool:
    message = str(error)
    return (
        isinstance(error, MemoryError)
        or type(error).__name__ == "OutOfMemoryError"
        or "out of memory" in message
        or "can't allocate memory" in message  # torch's allocator on a CPU
    )
