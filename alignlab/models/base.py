"""The base model: a small Llama that ships inside the package, or any model you name.

It is a genuine ``LlamaForCausalLM``: whatever runs on it runs on SmolLM2, Qwen or
Llama as well.
"""

import functools
import hashlib
from pathlib import Path

from alignlab.errors import AlignlabError

SIZES = {
    "300k": dict(hidden_size=64, intermediate_size=172),
    "1m": dict(hidden_size=128, intermediate_size=344),
    "3m": dict(hidden_size=256, intermediate_size=688),
}
WEIGHTS = Path(__file__).parent / "weights"
CONTEXT = 512  # tokens


def new_model(size: str, tokenizer, seed: int = 0):
    """An untrained model of one of the ``SIZES``.

    Args:
        size: "300k", "1m" or "3m": about that many parameters.
        tokenizer: gives the vocabulary and the special tokens.
        seed: of the initial weights.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **SIZES[_known_size(size)],
    )
    return LlamaForCausalLM(config)


def base_path(size: str = "1m", stage: str = "final") -> Path:
    """Folder of a shipped model, for ``AutoModelForCausalLM.from_pretrained``.

    Args:
        size: "1m" or "300k".
        stage: "final", or "stable" for the checkpoint before the learning rate decays,
            from which notebook 01 branches into mid-training.

    Raises:
        AlignlabError: if no such model ships.
    """
    name = _known_size(size)
    path = WEIGHTS / (name if stage == "final" else f"{name}-{stage}")
    if not (path / "model.safetensors").exists():
        shipped = sorted(p.parent.name for p in WEIGHTS.glob("*/model.safetensors"))
        raise AlignlabError(
            f"No model of size={size!r}, stage={stage!r} ships; there is "
            f"{', '.join(shipped) or 'none'}.",
            f"Make it: `alignlab pretrain --size {size}`.",
        )
    return path


def load_base(size: str = "1m", stage: str = "final"):
    """``(model, tokenizer)`` of a shipped base model, float32, on the device in use."""
    return load_model(base_path(size, stage))


def load_model(name_or_path: str | Path):
    """``(model, tokenizer)`` from a folder or a Hub id, with left padding for sampling,
    on the device that ``use_device`` named."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(name_or_path, padding_side="left")
    return AutoModelForCausalLM.from_pretrained(name_or_path).to(_device), tokenizer


_device = "cpu"


def device_in_use() -> str:
    """Where loaded models live, as ``use_device`` named it."""
    return _device


def use_device(device: str) -> None:
    """Where models loaded from now on live: "cpu", "cuda", "cuda:1" ...

    Raises:
        AlignlabError: if torch does not have that device.
    """
    import torch

    global _device
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise AlignlabError(
            f"device is {device!r}, and torch cannot use it: {error}",
            "Pass device='cpu', or install a build of torch for your GPU.",
        ) from error
    _device = device


def save_model(model, tokenizer, folder: Path) -> None:
    """Write a plain checkpoint folder that ``load_model`` reads."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@functools.cache
def weights_hash() -> str:
    """Short hash of all shipped weights: what was trained from others is another
    artifact."""
    digest = hashlib.sha256()
    for path in sorted(WEIGHTS.glob("*/model.safetensors")):
        digest.update(path.parent.name.encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _known_size(size: str) -> str:
    if size not in SIZES:
        raise AlignlabError(
            f"size is {size!r}; the sizes are {', '.join(SIZES)}.", "Pass one of those."
        )
    return size
