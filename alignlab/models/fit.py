"""Whether a model is one that can be trained and read, in words a user knows.

Causal language models of `transformers`, also with LoRA and other adapters that change
weights, and sequence classifiers with one label: decoders such as Llama, Qwen, Gemma 1
to 4, GPT-2, OPT, GPT-NeoX, Bloom and mixtures of experts; state-space, recurrent and
hybrid models such as Mamba, Jamba, LFM2, Bamba, Qwen3-Next, RWKV and RecurrentGemma.

Refused are encoder-decoders, encoders that see later tokens (BERT without
``is_decoder=True``), RoBERTa's relatives, which do not count positions from 0, and
adapters that put virtual tokens before the text. What else would be sampled otherwise
than it is scored, ``sampler.require_sampled_is_scored`` refuses.
"""

import functools
import inspect
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from weakref import WeakSet

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.base import evaluation_mode
from alignlab.seeds import torch_seed


@contextmanager
def says_how_to_save_memory(remedy: str) -> Iterator[None]:
    """Where the memory of a GPU, or of the machine, runs out, say so with the remedy.

    Raises:
        AlignlabError: for that. Other errors pass.
    """
    try:
        yield
    except RuntimeError as error:  # torch.OutOfMemoryError is one
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        on_cpu = "not enough memory" in reason or "can't allocate memory" in reason
        if not on_cpu and not isinstance(error, torch.OutOfMemoryError):
            raise
        raise AlignlabError(f"The memory has run out: {reason}", remedy) from error


def output_width(model: nn.Module) -> int:
    """Size of the hidden states that enter the output layer. Mostly the config's
    ``hidden_size``, but not of models that project them first, such as OPT-350m."""
    head = model.get_output_embeddings()
    return getattr(head, "in_features", None) or head.weight.shape[1]


def vocabulary_size(model: nn.Module) -> int:
    """Number of logits: often more than the tokenizer has tokens."""
    head = model.get_output_embeddings()
    return getattr(head, "out_features", None) or head.weight.shape[0]


def tokenizer_size(tokenizer: PreTrainedTokenizerBase) -> int:
    """One more than the tokenizer's highest id."""
    return max(tokenizer.get_vocab().values()) + 1


_ORDERED: WeakSet[nn.Module] = WeakSet()  # in which no token sees later ones


def require_causal_lm(model: nn.Module) -> None:
    """Refuse what is no causal language model, or not one of text alone. What takes a
    try of the model is checked once for each.

    Raises:
        AlignlabError: for encoder-decoders, models without an output layer, models in
            which a token sees later ones or that do not count positions from 0, and
            prompt, prefix and p-tuning.
    """
    require_loaded(model)
    plain = plain_model(model)
    kind, config = type(plain).__name__, model.config
    if getattr(config, "is_encoder_decoder", False):
        raise AlignlabError(
            f"{kind} is an encoder-decoder: it does not continue a text, it answers it "
            "from a decoder of its own.",
            "Pass a causal language model, which AutoModelForCausalLM loads.",
        )
    if has_virtual_tokens(model):
        raise AlignlabError(
            "The model's adapter is prompt, prefix or p-tuning: its virtual tokens "
            "come before every text.",
            "Train LoRA adapters or the weights themselves.",
        )
    if getattr(model, "get_output_embeddings", lambda: None)() is None:
        raise AlignlabError(
            f"{kind} has no output layer over a vocabulary.",
            "Pass a causal language model, which AutoModelForCausalLM loads.",
        )
    whole = all(p.numel() and not p.is_meta for p in model.parameters())
    if whole and plain not in _ORDERED:  # sharded ones cannot be tried
        _require_order(model, kind)
        _ORDERED.add(plain)


def require_trainable(model: nn.Module, what: str = "policy") -> None:
    """Refuse a model that training would leave as it is, and warn of one whose weights
    are too coarse for small steps.

    Args:
        what: what the caller calls the model.

    Raises:
        AlignlabError: see :func:`trained_parameters`.
    """
    trained = trained_parameters(model, what)
    coarse = {p.dtype for p in trained} & {torch.float16, torch.bfloat16}
    if coarse:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in coarse))
        warnings.warn(
            f"The {what}'s trainable weights are {names}: steps smaller than their "
            'rounding are lost. Load them in float32 (dtype="float32"); for speed, '
            "compute in bfloat16 (bf16=True).",
            stacklevel=2,
        )


def trained_parameters(model: nn.Module, what: str = "policy") -> list[nn.Parameter]:
    """The parameters that training would change.

    Raises:
        AlignlabError: if no parameter that is in use requires a gradient, or the
            weights are quantized and have no adapters.
    """
    adapters = getattr(model, "peft_config", None) or {}
    trained = [p for name, p in model.named_parameters() if p.requires_grad]
    if adapters:
        idle = set(adapters) - set(_active_adapters(model))
        trained = [
            parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and idle.isdisjoint(name.split("."))
        ]
    if not trained:
        raise AlignlabError(
            f"Nothing of the {what} can be trained: no parameter "
            f"{'of its active adapter ' if adapters else ''}has requires_grad.",
            "Load adapters by PeftModel.from_pretrained(..., is_trainable=True) or by "
            "alignlab.models.base.load_model."
            if adapters
            else "Call model.requires_grad_(True), or put adapters on it.",
        )
    if getattr(model, "is_quantized", False) and not adapters:
        raise AlignlabError(
            f"The {what} has quantized weights, which cannot be trained.",
            "Put adapters on it (peft_config), or load it without quantization.",
        )
    return trained


def require_vocabulary(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse a tokenizer with tokens that the model has no embedding for.

    Places of images and sounds do not count: text has none.

    Raises:
        AlignlabError: naming such a token.
    """
    size = _embeddings(model)
    media = {
        getattr(tokenizer, f"{kind}_token", None)
        for kind in ("image", "audio", "video")
    }
    unknown = sorted(
        (number, token)
        for token, number in tokenizer.get_vocab().items()
        if number >= size and token not in media
    )
    if unknown:
        number, token = unknown[0]
        raise AlignlabError(
            f"The tokenizer has {len(unknown)} tokens that {type(model).__name__} has "
            f"no embedding for, the first being {token!r}, number {number} of {size}.",
            "Call model.resize_token_embeddings(len(tokenizer)) after adding tokens, "
            "or take an old token for padding (tokenizer.pad_token = "
            "tokenizer.eos_token).",
        )


def require_scalar_head(model: nn.Module) -> None:
    """Refuse a model that does not give one number per text.

    Raises:
        AlignlabError: unless it is a sequence classifier with one label, whatever its
            head is called; for encoder-decoders, and prompt, prefix and p-tuning.
    """
    require_loaded(model)
    kind, labels = type(plain_model(model)).__name__, model.config.num_labels
    if labels != 1:
        raise AlignlabError(
            f"A {kind} with {labels} labels gives no single number.",
            "Pass a sequence classifier with num_labels=1, such as "
            "alignlab.models.reward.reward_model_from(policy).",
        )
    has_head = any(hasattr(plain_model(model), name) for name in HEADS)
    if "TokenClassification" in kind or not (
        has_head or kind.endswith("ForSequenceClassification")
    ):
        raise AlignlabError(
            f"A {kind} has no head that gives one number per text.",
            "Pass what AutoModelForSequenceClassification loads, with num_labels=1.",
        )
    if has_virtual_tokens(model):
        raise AlignlabError(
            "The reward model's adapter is prompt, prefix or p-tuning: its virtual "
            "tokens come before every text.",
            "Pass one with LoRA adapters or none.",
        )
    if getattr(model.config, "is_encoder_decoder", False):
        raise AlignlabError(
            f"The reward model is a {kind}, an encoder-decoder.",
            "Pass a decoder or an encoder with one label.",
        )


HEADS = ("score", "classifier")


def plain_model(model: nn.Module) -> nn.Module:
    """The model of `transformers` inside a model with peft adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def text_inputs(
    model: nn.Module, input_ids: Int[Tensor, "batch time"], **inputs
) -> dict:
    """Those of the inputs that the model's ``forward`` takes, and what models that also
    see images want to be told in training: that these are tokens of text.

    A wrapper around a model takes all of them.
    """
    plain = plain_model(model)
    if not isinstance(plain, PreTrainedModel):
        return inputs
    known = inputs_of(type(plain))
    taken = {name: x for name, x in inputs.items() if name in known}
    if "use_cache" in inputs:  # some take it unnamed
        taken["use_cache"] = inputs["use_cache"]
    if plain.training and hasattr(plain.config, "vision_config"):
        for name in known & {"token_type_ids", "mm_token_type_ids"}:
            taken[name] = torch.zeros_like(input_ids)
    return taken


@functools.cache
def inputs_of(kind: type[nn.Module]) -> frozenset[str]:
    """What a class of models takes by name."""
    return frozenset(inspect.signature(kind.forward).parameters)


def is_precise(model: nn.Module) -> bool:
    """Whether the model computes to float32's rounding or better."""
    exact = torch.get_float32_matmul_precision() == "highest"
    return exact and all(p.dtype.itemsize >= 4 for p in model.parameters())


def has_virtual_tokens(model: nn.Module) -> bool:
    """Whether an adapter of `peft` puts learnt tokens before the text."""
    adapters = getattr(model, "peft_config", None) or {}
    virtual = {
        n for n, a in adapters.items() if getattr(a, "is_prompt_learning", False)
    }
    # Which are active is asked last, as that takes milliseconds.
    return bool(virtual) and not virtual.isdisjoint(_active_adapters(model))


def require_loaded(model: object) -> None:
    """Refuse what is no model, such as the name of one.

    Raises:
        AlignlabError: naming it.
    """
    if not hasattr(model, "config"):
        raise AlignlabError(
            f"The model is {model!r:.100}, which is no model of `transformers`.",
            "Load one, such as by alignlab.models.base.load_model(name)[0].",
        )


def _active_adapters(model: nn.Module) -> list[str]:
    active = getattr(model, "active_adapters", [])  # a method in `transformers`
    if callable(active):
        try:
            active = active()
        except ValueError:  # it has none
            active = []
    return [active] if isinstance(active, str) else list(active)


def _embeddings(model: nn.Module) -> int:
    layer = model.get_input_embeddings()
    return getattr(layer, "num_embeddings", None) or layer.weight.shape[0]


def _first_logits(model: nn.Module, ids: Int[Tensor, "1 4"], **inputs) -> Tensor:
    """Logits at the first three tokens, by the same random numbers every time: some
    models drop out even when they are evaluated."""
    inputs |= text_inputs(model, ids, attention_mask=torch.ones_like(ids))
    with torch.random.fork_rng([ids.device] if ids.is_cuda else []):
        torch.manual_seed(torch_seed(0, "order of tokens"))
        return model(ids, **inputs).logits[0, :3].float()


@torch.no_grad()
def _require_order(model: nn.Module, kind: str) -> None:
    """Refuse models in which a token sees later ones, and those that count positions
    from elsewhere than 0, as RoBERTa does, which ``generate`` does not know."""
    ids = torch.tensor([[1, 2, 3, 1]], device=model.device)
    other, places = ids.clone(), torch.arange(4, device=model.device)[None]
    other[0, 3] = 2
    with evaluation_mode(model):
        usual = _first_logits(model, ids)
        before_other = _first_logits(model, other)
        inputs = text_inputs(model, ids, position_ids=places)
        counted = _first_logits(model, ids, **inputs)
    tolerance = (1e-4 if is_precise(model) else 0.03) * usual.std()
    if (usual - before_other).std() > tolerance:
        raise AlignlabError(
            f"In {kind} as it is configured a token sees those that follow it, so that "
            "it cannot be sampled from.",
            "Load an encoder with is_decoder=True in its config, or pass another "
            "causal language model.",
        )
    if (usual - counted).std() > tolerance:
        raise AlignlabError(
            f"{kind} does not count the positions of tokens from 0, as generate() does "
            "for it: it would sample from another distribution than it has.",
            "Pass another causal language model.",
        )
