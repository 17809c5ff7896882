r"""What depends on how many parameters a base model has: learning rates, precision and
adapters, in one table.

=================  ========================================  =========================
parameters         learning rates                            what is trained
=================  ========================================  =========================
shipped sizes      ``RATES``, chosen on development seeds    all weights, in float32
below ``LARGE``    those of "1m" × sqrt(1e6 / parameters)    all weights, in float32
``LARGE`` or more  the same × ``LORA_FACTOR``                LoRA adapters, in float32;
                                                             on a GPU the base model
                                                             is in bfloat16
=================  ========================================  =========================

Batches have as many rows at every size, so that the rates mean the same; what does not
fit into memory at once is computed in parts by the loops. The rates of models that do
not ship are interpolated, not searched: full fine-tuning is known to want about 1e-3 at
a million parameters and 1e-5 at seven billion, which a square root connects, and LoRA
about ten times as much (Schulman et al., 2025, "LoRA without regret"); none is above
``HIGHEST``.
"""

import functools
import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from alignlab.errors import AlignlabError
from alignlab.models.base import (
    LARGE,
    WEIGHTS,
    evaluation_mode,
    freeze_coarse,
    is_large,
    load_base,
    parameter_count,
)
from alignlab.models.fit import plain_model
from alignlab.models.reward import reward_model_from
from alignlab.seeds import torch_seed
from alignlab.training import pretrain
from alignlab.world.facts import read_relations

# By what is trained, and by size. Higher learns sooner, and at some point diverges.
RATES: Mapping[str, Mapping[str, float]] = {
    # The mixture of tasks. Higher learns new tasks sooner and forgets more of
    # pretraining. Chosen by accuracy on held-out questions, as the next one.
    "tasks": {"300k": 1.5e-3, "1m": 1e-3},
    # Examples that only ask for facts that the base model knows.
    "facts": {"300k": 1e-3, "1m": 5e-4},
    # Demonstrations, for the reference policy. Higher fits them sooner. Chosen by the
    # policy's loss and by how often its reply stays on the subject.
    "demonstrations": {"300k": 2e-3, "1m": 1.5e-3},
    # Reward models. Chosen on development seeds by what gold the best of n has, with
    # 4,000 comparisons and one epoch; higher ends at rewards that differ more by seed.
    "reward": {"300k": 1.5e-3, "1m": 7e-4},
    # A reward for the right option, and DPO on answers. Found on calibration subjects,
    # once: higher goes further from the reference in as many steps, until accuracy
    # suffers. The next one is for PPO and RLOO on answers.
    "options": {"300k": 5e-4, "1m": 3e-4},
    "answers": {"300k": 3e-4, "1m": 2e-4},
    # The form and the meaning of a stated confidence.
    "stated": {"300k": 1e-3, "1m": 5e-4},
    # Plain text, from where pretraining's rate decays.
    "text": pretrain.LEARNING_RATE,
}
PARAMETERS = {"300k": 3e5, "1m": 1e6, "3m": 3e6}  # about
LORA_FACTOR = 10.0
HIGHEST = 2e-3  # for models that do not ship
# Adapters on every linear layer but the output layer. A higher rank can learn more and
# takes more memory: 16 adds 3.6% to a model of 135 million parameters.
LORA: Mapping[str, object] = dict(
    r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"
)


def rate(what: str, base: str | Path) -> float:
    """The peak learning rate to train something with.

    Args:
        what: a key of ``RATES``.
        base: the model that is trained, see ``models.base.base_path``.

    Raises:
        ValueError: if the key is unknown.
    """
    if what not in RATES:
        raise ValueError(f"what is {what!r}; it can be one of {', '.join(RATES)}")
    own = RATES[what].get(str(base))
    return scaled(RATES[what]["1m"], base) if own is None else own


def scaled(learning_rate: float, base: str | Path) -> float:
    """A learning rate that was chosen for the shipped sizes, for this base model: the
    same for them, else by the table above."""
    if str(base) in ("300k", "1m"):
        return learning_rate
    parameters = PARAMETERS.get(str(base)) or parameter_count(base)
    factor = LORA_FACTOR if parameters >= LARGE else 1.0
    interpolated = learning_rate * factor * math.sqrt(1e6 / parameters)
    return float(f"{min(interpolated, HIGHEST):.3g}")


# --- What is trained ------------------------------------------------------------------


def trainable_base(base: str | Path = "1m", stage: str = "final", seed: int = 0):
    """``(model, tokenizer)`` of a base model to be trained: a large one with fresh LoRA
    adapters, of which B is zero, so that it is still the same model. The arguments are
    those of ``models.base.load_base``."""
    model, tokenizer = load_base(base, stage, seed)
    if is_large(base) and not hasattr(model, "peft_config"):
        model = with_adapters(model)
    return model, tokenizer


def with_adapters(model: nn.Module) -> nn.Module:
    """The model with fresh LoRA adapters, in place. Its last norm is kept with them, so
    that :func:`sharpen` changes what is saved; the initial adapters are always the
    same."""
    from peft import get_peft_model

    settings = _lora(model, "CAUSAL_LM", [_last_norm(model)[0]])
    with torch.random.fork_rng(_gpu_of(model)):
        torch.manual_seed(torch_seed(0, "adapters"))
        model = get_peft_model(model, settings)
    freeze_coarse(model)
    return model


def _lora(model: nn.Module, task: str, kept: list[str]):
    from peft import LoraConfig

    return LoraConfig(**LORA, task_type=task, modules_to_save=kept)


def _gpu_of(model: nn.Module) -> list[torch.device]:
    return [model.device] if model.device.type == "cuda" else []


def reward_model_of(policy: nn.Module, seed: int = 0) -> nn.Module:
    """A reward model that starts from a policy: a copy of its trunk in float32 with a
    new head, see ``models.reward.reward_model_from``. Of a policy with adapters, these
    are copied and trained on, with the head, over its frozen base model; the policy
    loses them."""
    if not hasattr(policy, "peft_config"):
        return reward_model_from(policy, seed)
    from peft import (
        get_peft_model,
        get_peft_model_state_dict,
        set_peft_model_state_dict,
    )

    learned = get_peft_model_state_dict(policy)
    base = policy.peft_config["default"].base_model_name_or_path
    plain = policy.unload()
    norm = _last_norm(plain)[0]
    model = reward_model_from(plain, seed)
    settings = _lora(model, "SEQ_CLS", ["score", norm])
    settings.base_model_name_or_path = base
    with torch.random.fork_rng(_gpu_of(model)):
        model = get_peft_model(model, settings)
    set_peft_model_state_dict(model, get_peft_model_state_dict(model) | learned)
    return model.train(policy.training)


# --- Temperature ----------------------------------------------------------------------


@torch.no_grad()
def sharpen(model: nn.Module, temperature: float) -> None:
    """Divide a model's logits by a temperature, in place and for good: its last norm,
    which scales what the output layer reads, is divided by it. Gemma's norms scale by 1
    + weight.

    Raises:
        AlignlabError: if that does not divide the logits, as where they are capped.
    """
    _, norm = _last_norm(model)
    before = _probe(model)
    weights = [p for p in (norm.weight, getattr(norm, "bias", None)) if p is not None]
    kept = [p.clone() for p in weights]
    for shift in (0.0, 1.0):
        for parameter in weights:
            if shift:
                parameter.add_(shift).div_(temperature).sub_(shift)
            else:
                parameter.div_(temperature)
        off = (_probe(model) * temperature - before).std() / before.std()
        if off < (1e-3 if model.dtype == torch.float32 else 0.03):
            return
        for parameter, value in zip(weights, kept):
            parameter.copy_(value)
    raise AlignlabError(
        f"The logits of a {type(plain_model(model)).__name__} cannot be divided by a "
        "temperature through its last norm.",
        "Pass another base model, such as Llama, Qwen or SmolLM.",
    )


def _probe(model: nn.Module) -> torch.Tensor:
    """Logits of four tokens."""
    ids = torch.tensor([[1, 2, 3, 1]], device=model.device)
    with evaluation_mode(model):
        return model(ids).logits.float()


@torch.no_grad()
def _last_norm(model: nn.Module) -> tuple[str, nn.Module]:
    """Name (in the plain model) and module of the norm before the output layer: the
    last module with one weight a feature to be called."""
    plain, called, hooks = plain_model(model), [], []
    for name, module in plain.named_modules():
        weight = getattr(module, "weight", None)
        if isinstance(weight, nn.Parameter) and weight.ndim == 1:
            hooks.append(
                module.register_forward_hook(
                    lambda module, *_, name=name: called.append((name, module))
                )
            )
    try:
        _probe(model)
    finally:
        for hook in hooks:
            hook.remove()
    return called[-1]


# --- Room for replies -----------------------------------------------------------------


def cap(tokenizer, tokens: int) -> int:
    """How many tokens of a tokenizer have room for what ``tokens`` of the shipped one
    have: as many of the shipped one itself, and never fewer.

    The longest of the world's statements, in tokens for one of ours, decides.
    """
    ours = _shipped_tokenizer()
    if len(tokenizer) == len(ours) and tokenizer.get_vocab() == ours.get_vocab():
        return tokens
    texts = _statements()
    lengths = [
        [len(ids) for ids in each(texts, add_special_tokens=False)["input_ids"]]
        for each in (tokenizer, ours)
    ]
    ratio = max(theirs / own for theirs, own in zip(*lengths, strict=True))
    return max(tokens, math.ceil(tokens * ratio))


@functools.cache
def _shipped_tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(WEIGHTS / "tokenizer")


@functools.cache
def _statements() -> list[str]:
    """Every wording of the world's statements, with long names in it."""
    names = dict(s="Papua New Guinea", a="Bandar Seri Begawan")
    relations = read_relations().values()
    return [text.format(**names) for each in relations for text in each.statements]
