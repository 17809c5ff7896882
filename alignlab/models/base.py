"""The base model: a small Llama that ships inside the package, or any model you name.

It is a genuine ``LlamaForCausalLM``: code that runs on it also runs on SmolLM2, Qwen
or Llama. Wherever an argument is called ``base`` it names one: a size that ships
("300k", "1m"), "smollm2", a folder, or a Hub id.
"""

import functools
import hashlib
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from alignlab import provenance
from alignlab.errors import AlignlabError
from alignlab.models.named import contents_hash, explained, find_model
from alignlab.seeds import torch_seed

SIZES = {
    "300k": dict(hidden_size=64, intermediate_size=172),
    "1m": dict(hidden_size=128, intermediate_size=344),
    "3m": dict(hidden_size=256, intermediate_size=688),
}
WEIGHTS = Path(__file__).parent / "weights"  # a folder per model, and "tokenizer"
CONTEXT = 512  # tokens
# Parameters. From here on a model is trained through adapters, and kept in bfloat16 on
# a GPU: in float32 a model of this size takes 0.2 GB, and with Adam's state 0.8 GB.
LARGE = 50_000_000


def new_model(size: str, tokenizer, seed: int = 0):
    """An untrained model of one of the ``SIZES``, with a context of ``CONTEXT`` tokens.

    Args:
        size: "300k", "1m" or "3m", roughly the number of parameters.
        tokenizer: its vocabulary and special tokens are the model's.
        seed: of the initial weights.

    Raises:
        AlignlabError: if there is no such size.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(torch_seed(seed, "initial weights"))
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


def is_shipped(base: str | Path) -> bool:
    """Whether ``base`` is one of our own ``SIZES``, whose pretraining is known. Write a
    folder of such a name as a path, "./1m"."""
    return str(base) in SIZES


def base_path(base: str | Path = "1m", stage: str = "final", seed: int = 0) -> Path:
    """Folder of a base model, for ``AutoModelForCausalLM.from_pretrained``; for its
    tokenizer see :func:`tokenizer_path`.

    Args:
        base: "1m" or "300k", which ship; "smollm2", SmolLM2-135M-Instruct from its
            package archive; a folder; a GGUF file or a folder with one; or a Hub id.
        stage: "final", or "stable" for the checkpoint before the learning rate decays,
            where mid-training branches off in notebook 01; see :func:`stages`.
        seed: of the pretraining, see :func:`pretraining_seeds`.

    Raises:
        AlignlabError: if no such model is shipped, the folder or file is no model, or
            the Hub has none of that name or cannot be reached.
    """
    if re.fullmatch(r"\d+[km]", str(base)):
        return _shipped_path(base, stage, seed)
    if (stage, seed) != ("final", 0):
        raise AlignlabError(
            f"Of the model {str(base)!r} there is no stage={stage!r}, seed={seed}: "
            "only those that ship have several.",
            "Leave stage and seed out, or pass base='1m'.",
        )
    return find_model(base, SIZES)


def _shipped_path(size: str, stage: str, seed: int) -> Path:
    path = WEIGHTS / model_name(_known_size(size), stage, seed)
    if not (path / "model.safetensors").exists():
        shipped = sorted(p.parent.name for p in WEIGHTS.glob("*/model.safetensors"))
        raise AlignlabError(
            f"No model of size={size!r}, stage={stage!r}, seed={seed} is shipped; "
            f"available: {', '.join(shipped) or 'none'}.",
            f"Pretrain it: `alignlab pretrain --size {size} --seed {seed}`.",
        )
    return path


def model_name(size: str, stage: str = "final", seed: int = 0) -> str:
    """Name of a base model's folder: "1m", "1m-stable", "300k-seed1"."""
    name = size if stage == "final" else f"{size}-{stage}"
    return f"{name}-seed{seed}" if seed else name


def stages(base: str | Path) -> tuple[str, ...]:
    """The checkpoints there are of a base model: of one that does not ship only the
    last, where mid-training then has to branch off."""
    return ("final", "stable") if is_shipped(base) else ("final",)


def pretraining_seeds(base: str | Path) -> tuple[int, ...]:
    """The seeds of the shipped models of a size. They read the same facts as often, in
    other words and another order, from other initial weights. Of any other base model
    there is one."""
    if not is_shipped(base):
        return (0,)
    paths = WEIGHTS.glob(f"{base}-seed*/model.safetensors")
    return (0, *sorted(int(p.parent.name.rpartition("seed")[2]) for p in paths))


def tokenizer_path(name_or_path: str | Path) -> str | Path:
    """Where a model's tokenizer is: with the model, except that the shipped models
    share one, and adapters without one have their base model's."""
    folder = Path(name_or_path)
    if folder.is_dir() and not (folder / "tokenizer_config.json").exists():
        base = adapters_base(folder)
        if base:
            return tokenizer_path(base)
    shared = folder.parent == WEIGHTS and not (folder / "tokenizer.json").exists()
    return WEIGHTS / "tokenizer" if shared else name_or_path


def load_base(base: str | Path = "1m", stage: str = "final", seed: int = 0):
    """``(model, tokenizer)`` of a base model; see :func:`base_path` and
    :func:`load_model`.

    Of a model that does not ship, the tokenizer gets what the series needs: EOS for
    padding where it has none, and ``PLAIN_TEMPLATE`` where it has no chat template.
    A warning tells of the template.

    Raises:
        AlignlabError: what :func:`base_path` raises, and if the model has no tokenizer
            or no EOS token.
    """
    model, tokenizer = load_model(base_path(base, stage, seed))
    if not is_shipped(base):
        fit_for_chat(tokenizer, base)
    return model, tokenizer


# For base models that know no chat. It writes plain words, so that any tokenizer has
# them, and EOS where the assistant's turn ends.
PLAIN_TEMPLATE = (
    "{% for message in messages %}"
    "{{ message['role'] | capitalize + ':\n' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}"
    "{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:\n' }}{% endif %}"
)


def fit_for_chat(tokenizer, base: str | Path) -> None:
    """Give a tokenizer what it lacks of padding and a chat template, in place.

    Args:
        base: the model's name, for messages.

    Raises:
        AlignlabError: if it has no EOS token, and so no way to end a reply.
    """
    if tokenizer.eos_token is None:
        raise AlignlabError(
            f"The tokenizer of {str(base)!r} has no EOS token: no reply could end.",
            "Set tokenizer.eos_token, save it into the model's folder and pass that.",
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    if tokenizer.chat_template is None:
        warnings.warn(
            f"{base} has no chat template; it is given a plain one, with turns such as "
            "'User:' and 'Assistant:'. For its own, set tokenizer.chat_template.",
            stacklevel=3,
        )
        tokenizer.chat_template = PLAIN_TEMPLATE


def parameter_count(base: str | Path) -> int:
    """Number of a base model's parameters, those of tied layers counted once. Nothing
    but its config is read."""
    return _parameters_in(base_path(base))


@functools.cache
def _parameters_in(folder: Path) -> int:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    inner = adapters_base(folder)
    if inner is not None:
        return parameter_count(inner)
    with explained(folder), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder)
        return AutoModelForCausalLM.from_config(config).num_parameters()


def is_large(base: str | Path) -> bool:
    """Whether a base model has ``LARGE`` parameters or more."""
    return not is_shipped(base) and parameter_count(base) >= LARGE


def usual_dtype(name_or_path: str | Path) -> str:
    """The precision to keep a model in: float32 on a CPU and up to ``LARGE``
    parameters, bfloat16 of larger ones on a GPU."""
    if _device == "cpu":
        return "float32"
    return "bfloat16" if is_large(name_or_path) else "float32"


def load_model(name_or_path: str | Path, dtype=None):
    """``(model, tokenizer)`` from a folder or a Hub id, on the device that
    :func:`use_device` named, with padding on the left for sampling.

    A folder with adapters of `peft` alone gives their base model with the adapters, to
    be trained further.

    Args:
        dtype: precision of the weights, such as "bfloat16" or ``torch.bfloat16``; in
            less than float32 small steps of training get lost. "auto" takes the one
            that the checkpoint names. By default :func:`usual_dtype`.

    Raises:
        AlignlabError: if it is no causal language model, or has no tokenizer.
    """
    from transformers import AutoModelForCausalLM, AutoTokenizer

    dtype = usual_dtype(name_or_path) if dtype is None else dtype
    model = load_weights(AutoModelForCausalLM, name_or_path, dtype)
    with explained(name_or_path):
        tokenizer = AutoTokenizer.from_pretrained(
            tokenizer_path(name_or_path), padding_side="left"
        )
    return model.to(_device), tokenizer


def load_weights(auto_class, name_or_path: str | Path, dtype="float32", **options):
    """The model of a folder or a Hub id, on the CPU. Where that holds adapters of
    `peft`, they are put on their base model, and can be trained: `transformers` itself
    would load them frozen.

    Args:
        auto_class: such as ``AutoModelForCausalLM``.
        options: for its ``from_pretrained``.

    Raises:
        AlignlabError: if the checkpoint has no weights for the model's head, which
            would be random, or the base model of adapters cannot be loaded.
    """
    base = adapters_base(name_or_path)
    if base is None:
        with explained(name_or_path):
            model, report = auto_class.from_pretrained(
                name_or_path, dtype=dtype, output_loading_info=True, **options
            )
        _require_head(name_or_path, model, report["missing_keys"])
        return model
    from peft import PeftConfig, PeftModel

    adapters = PeftConfig.from_pretrained(name_or_path)
    try:
        with _no_report():  # of a head that comes with the adapters
            model = auto_class.from_pretrained(base, dtype=dtype, **options)
    except (OSError, ValueError) as error:
        raise AlignlabError(
            f"{name_or_path} holds adapters for {base!r}, which cannot be loaded: "
            f"{str(error).splitlines()[0]}",
            "Correct base_model_name_or_path in its adapter_config.json, or load both "
            "yourself: PeftModel.from_pretrained(base, folder, is_trainable=True).",
        ) from error
    _make_room_for_tokens(model, name_or_path)
    trainable = not adapters.is_prompt_learning  # `peft` loads those frozen only
    model = PeftModel.from_pretrained(model, name_or_path, is_trainable=trainable)
    freeze_coarse(model)
    return model


@contextmanager
def _no_report() -> Iterator[None]:
    from transformers.utils import logging

    usual = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(usual)


def freeze_coarse(model) -> None:
    """Freeze whole layers that are kept with adapters in less than float32: small steps
    would get lost in them."""
    from peft.utils.other import ModulesToSaveWrapper

    for module in model.modules():
        if isinstance(module, ModulesToSaveWrapper):
            for parameter in module.parameters():
                if parameter.dtype.itemsize < 4:
                    parameter.requires_grad_(False)


def _require_head(name_or_path: str | Path, model, missing: Iterable[str]) -> None:
    trunk = f"{model.base_model_prefix}."
    absent = sorted(name for name in missing if not name.startswith(trunk))
    if absent:
        kind, labels = type(model).__name__, model.config.num_labels
        kind += f" with {labels} labels" if "Classification" in kind else ""
        raise AlignlabError(
            f"{name_or_path} has no weights for {', '.join(absent)} of a {kind}: they "
            "would be random.",
            "Load a language model by alignlab.models.base.load_model, and a reward "
            "model by alignlab.models.reward.load_reward_model.",
        )


def _make_room_for_tokens(model, name_or_path: str | Path) -> None:
    """Give a base model embeddings for the tokens that were added for its adapters."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tokenizer_path(name_or_path))
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer))


def adapters_base(name_or_path: str | Path) -> str | None:
    """Name or folder of the base model, where a folder or Hub id holds adapters of
    `peft`; None where it holds a whole model."""
    from transformers.utils.peft_utils import find_adapter_config_file

    config = find_adapter_config_file(str(name_or_path))
    if config is None:
        return None
    return json.loads(Path(config).read_text()).get("base_model_name_or_path") or ""


_device = "cpu"


def device_in_use() -> str:
    """The device that models are loaded onto; see :func:`use_device`."""
    return _device


provenance.SETTINGS["device"] = device_in_use  # results depend on it


def use_device(device: str) -> None:
    """Load models onto this device from now on: "cpu", "cuda", "cuda:1" ...

    Raises:
        AlignlabError: if torch cannot use it.
    """
    global _device
    require_device(device)
    _device = device


def require_device(device: str) -> None:
    """Refuse a device that torch cannot use.

    Raises:
        AlignlabError: with the remedy.
    """
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise AlignlabError(
            f"device is {device!r}, and torch cannot use it: {error}",
            "Pass device='cpu' (--param device=cpu; profile full has the same numbers "
            "and more seeds), or install a build of torch for your GPU.",
        ) from error


def save_model(model, tokenizer, folder: Path) -> None:
    """Write a plain checkpoint folder, for :func:`load_model`."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def weights_hash(base: str | Path = "1m") -> str:
    """Short hash of a base model, for cache keys: what was trained from other weights
    is another artifact.

    It covers weights, configuration, tokenizer and chat template; of the models that
    ship, those of all together; of one from the Hub it is the commit; of adapters it
    also has that of their base model. Model cards and pictures do not count.
    """
    if is_shipped(base):
        return _shipped_hash()
    under = adapters_base(base_path(base))
    own = contents_hash(base)
    return f"{own}-{weights_hash(under)}" if under else own


@functools.cache
def _shipped_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(WEIGHTS.glob("*/*")):
        if path.is_file() and path.suffix not in (".md", ".png"):
            digest.update(path.relative_to(WEIGHTS).as_posix().encode() + b"\0")
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def weights_behind(parameters: Mapping) -> str:
    """The hash of the base model that an arm's parameters name, as ``base`` or in its
    ``chain``; that of the models that ship, where they name none."""
    names = sorted({str(name) for name in _bases_in(parameters)} or {"1m"})
    return "-".join(dict.fromkeys(weights_hash(name) for name in names))


def _bases_in(parameters: Mapping) -> Iterator[str]:
    for name, value in parameters.items():
        if name in ("base", "trunk") and value is not None:
            yield value
        elif isinstance(value, Mapping):
            yield from _bases_in(value)


def _known_size(size: str) -> str:
    if size not in SIZES:
        raise AlignlabError(
            f"size is {size!r}; the sizes are {', '.join(SIZES)}.", "Pass one of them."
        )
    return size


@contextmanager
def modes_restored(model):
    """Put every module back in its train or eval mode at the end, also after errors."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def evaluation_mode(model):
    """Put a model in eval mode, and restore every module's own mode at the end."""
    with modes_restored(model):
        model.eval()
        yield
