"""What `alignlab train` writes is whole or not there: checkpoints carry the hashes of
their files, which are checked before a run continues, and the model is written beside
its place and then moved.
"""

import hashlib
import os
import shutil
from pathlib import Path

from accelerate import PartialState
from transformers import TrainerCallback

from alignlab.files import read_json, write_json

SEAL = "sha256.json"  # in a checkpoint
HASHED = 2**32  # bytes; hashing larger files would hold up a training on GPUs


class Sealing(TrainerCallback):
    """Seals each checkpoint when all processes have written their part of it."""

    def on_save(self, args, state, control, **_) -> None:
        PartialState().wait_for_everyone()
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if state.is_world_process_zero and folder.is_dir():
            seal(folder)


def seal(folder: Path) -> None:
    """Write the hashes of a checkpoint's files into it."""
    write_json(folder / SEAL, _hashes(folder))


def damage(folder: Path) -> str:
    """Which file of a sealed checkpoint has changed or is missing; "" if none has, or
    if the checkpoint has no seal.

    Raises:
        AlignlabError: if the seal itself cannot be read.
    """
    sealed = read_json(folder / SEAL)
    if sealed is None:  # killed just before, or written by something else
        return ""
    now = _hashes(folder)
    changed = [name for name, digest in sealed.items() if now.get(name) != digest]
    return changed[0] if changed else ""


def _hashes(folder: Path) -> dict[str, str]:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {
        path.relative_to(folder).as_posix(): _hash(path)
        for path in files
        if path.name != SEAL
    }


def _hash(path: Path) -> str:
    """SHA-256 of a file; of one above ``HASHED`` only its size is told."""
    if (size := path.stat().st_size) > HASHED:
        return f"{size} bytes"
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_model(trainer, folder: Path) -> None:
    """Write the model file by file: a kill leaves each as it was or as it will be. All
    processes call it."""
    unfinished = folder / ".unfinished"
    if trainer.is_world_process_zero():
        shutil.rmtree(unfinished, ignore_errors=True)  # of a killed run
    PartialState().wait_for_everyone()
    trainer.save_model(str(unfinished))
    PartialState().wait_for_everyone()
    if trainer.is_world_process_zero():
        for path in sorted(unfinished.iterdir()):
            target = folder / path.name
            if target.is_dir():
                shutil.rmtree(target)
            os.replace(path, target)
        unfinished.rmdir()
