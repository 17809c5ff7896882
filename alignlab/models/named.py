"""What the name of a model stands for: a folder, "smollm2", a GGUF file or a Hub id.

Whatever it is, it becomes a folder that `transformers` loads, or one clear error.
"""

import functools
import hashlib
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from alignlab.errors import AlignlabError, did_you_mean
from alignlab.models.archives import (
    SMOLLM2,
    gguf_folder,
    smollm2_folder,
    smollm2_hash,
)

HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
CONFIGS = ("config.json", "adapter_config.json")


def find_model(name: str | Path, known: Iterable[str] = ()) -> Path:
    """The folder of a model; one from the Hub is downloaded, or found in its cache.

    Args:
        name: "smollm2", a folder, a GGUF file or a folder with one, or a Hub id.
        known: other names, for the error.

    Raises:
        AlignlabError: if there is no such model, no network, or the folder or file is
            no model.
    """
    path = Path(name).expanduser()
    if str(name) == SMOLLM2:
        return smollm2_folder()
    if path.is_dir():
        return _model_in(path)
    if path.is_file():
        if path.suffix != ".gguf":
            raise AlignlabError(
                f"The model {str(name)!r} is a file that is no model.",
                "Pass the folder that holds config.json and the weights.",
            )
        return gguf_folder(path)
    if not HUB_ID.fullmatch(str(name)) or re.match(r"[.~]", str(name)):
        raise AlignlabError(
            f"The model {str(name)!r} is not there: there is no such folder.",
            "Pass a folder with config.json and weights, or a Hub id (owner/name).",
        )
    return _from_the_hub(str(name), tuple(known))


def _model_in(folder: Path) -> Path:
    if any((folder / config).exists() for config in CONFIGS):
        return folder
    files = sorted(folder.glob("*.gguf"))
    if len(files) == 1:
        return gguf_folder(files[0])
    what = f"{len(files)} GGUF files" if files else "no config.json"
    raise AlignlabError(
        f"The folder {str(folder)!r} is no model: it has {what}.",
        "Pass one of the files."
        if files
        else "Pass the folder that `save_pretrained` wrote.",
    )


@functools.cache  # one commit throughout a process
def _from_the_hub(name: str, known: tuple[str, ...]) -> Path:
    from huggingface_hub import errors as hub
    from huggingface_hub import snapshot_download

    texts = ["*.json", "*.jinja", "*.model", "*.txt", "*.tiktoken"]

    def download(weights: str) -> Path:
        patterns = dict(allow_patterns=[*texts, weights], ignore_patterns=["*/*"])
        return Path(snapshot_download(name, **patterns))

    try:
        folder = download("*.safetensors")
        if not any(folder.glob("*.safetensors")):
            folder = download("pytorch_model*.bin")
    except hub.GatedRepoError as error:
        raise AlignlabError(
            f"The model {name!r} is gated on the Hub.",
            f"Accept its terms on huggingface.co/{name}, then `hf auth login`.",
        ) from error
    except (hub.RepositoryNotFoundError, hub.HFValidationError) as error:
        hint = "" if "/" in name else f" {did_you_mean(name, [*known, SMOLLM2])}"
        raise AlignlabError(
            f"The model {name!r} is neither a folder nor on the Hub.",
            f"Check the spelling (owner/name); a private one needs `hf auth login`."
            f"{hint}",
        ) from error
    except Exception as error:  # of many kinds: no network, offline mode, time-outs
        raise AlignlabError(
            f"The model {name!r} is no folder, the Hub's cache does not hold it, and "
            f"the Hub cannot be reached: {str(error).splitlines()[0]:.200}",
            "Check the network, pass a folder, or take a model that needs no network: "
            f"{', '.join([*known, SMOLLM2])}.",
        ) from error
    return _model_in(folder)


@contextmanager
def explained(name: str | Path) -> Iterator[None]:
    """Turn what `transformers` says of a folder that is no model, or has no tokenizer,
    into one sentence with a remedy.

    Raises:
        AlignlabError: for whatever is raised inside.
    """
    try:
        yield
    except AlignlabError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise AlignlabError(
            f"The model {str(name)!r} cannot be loaded: {first:.300}",
            "Pass a folder or Hub id of a causal language model of `transformers`, "
            "with its tokenizer.",
        ) from error


# --- Whether it is still the same -----------------------------------------------------


def contents_hash(name: str | Path) -> str:
    """Short hash of a model's weights, config, tokenizer and chat template; of one from
    the Hub, its commit.

    Raises:
        AlignlabError: if there is no such model.
    """
    if str(name) == SMOLLM2:
        return smollm2_hash()
    folder = find_model(name)
    if re.fullmatch(r"[0-9a-f]{40}", folder.name) and folder.parent.name == "snapshots":
        return folder.name[:12]
    files = [path for path in sorted(folder.iterdir()) if _counts(path)]
    states = (path.stat() for path in files)
    return _hash_of(tuple((p, s.st_size, s.st_mtime_ns) for p, s in zip(files, states)))


def _counts(path: Path) -> bool:
    """Whether a file has a say in what the model answers."""
    kinds = (".safetensors", ".bin", ".json", ".jinja", ".model", ".txt", ".tiktoken")
    of_training = ("trainer_state.json", "training_args.bin")
    hidden = path.name.startswith(".") or path.name in of_training
    return path.is_file() and path.suffix in kinds and not hidden


@functools.lru_cache(maxsize=64)
def _hash_of(files: tuple[tuple[Path, int, int], ...]) -> str:
    digest = hashlib.sha256()
    for path, *_ in files:
        with path.open("rb") as content:
            digest.update(path.name.encode() + b"\0")
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()[:12]
