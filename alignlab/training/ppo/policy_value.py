"""The policy and its value function as one module to train."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignlab.models.decoding import can_step, step
from alignlab.models.fit import output_width
from alignlab.models.lean import last_mlp_at
from alignlab.models.positions import logits_at, needs_no_mask


class NextToken(NamedTuple):
    """What a step of sampling has of each row: logits of its next token, and the value
    before it, which is None where there is none, or another model has to compute it."""

    logits: Float[Tensor, "rows 1 vocab"]
    values: Float[Tensor, "rows"] | None


class PolicyAndValue(nn.Module):
    """A causal language model with a value function.

    Without a value model, one pass through the policy's trunk gives both: the logits,
    and the values by a linear head on the same hidden states, which starts at 0.

    Args:
        policy: the causal language model.
        value_model: a sequence classifier with one label, with a trunk of its own.
        detach_value: True keeps the value head's gradient out of the policy's trunk.
        has_values: False for advantages that need none; the values are then 0.
        vocabulary: ids from here on, which the output layer has and the tokenizer does
            not, get no probability. None leaves all.
    """

    FORWARDED_TO_POLICY = (  # what a Trainer reads off a model
        "config",
        "generation_config",
        "hf_device_map",
        "activation_checkpointing_enable",
        "gradient_checkpointing_enable",
        "is_activation_checkpointing",
        "is_gradient_checkpointing",
        "_keys_to_ignore_on_save",
        "_no_split_modules",
    )

    def __init__(
        self,
        policy: PreTrainedModel,
        value_model: PreTrainedModel | None = None,
        detach_value: bool = False,
        has_values: bool = True,
        vocabulary: int | None = None,
    ):
        super().__init__()
        self.policy, self.value_model = policy, value_model
        self.detach_value, self.vocabulary = detach_value, vocabulary
        self.value_head = None
        if has_values and value_model is None:
            self.value_head = nn.Linear(output_width(policy), 1, device=policy.device)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)

    def forward(
        self,
        input_ids: Int[Tensor, "batch width"],
        prediction_mask: Bool[Tensor, "batch width"] | None = None,
        logits_to_keep: int = 1,
        **sampling,
    ) -> tuple[Float[Tensor, "tokens vocab"], Float[Tensor, "tokens"]] | NextToken:
        """Logits and values at the positions of the prediction mask, row by row.
        Without a mask, those at the last position, for sampling."""
        if prediction_mask is None:
            logits, hidden = self._at_last(input_ids, **sampling)
            logits = within(logits, self.vocabulary)[:, None]
            return NextToken(logits, self._values_by_head(hidden))
        logits, hidden = completion_logits(
            self.policy, input_ids, prediction_mask, self.vocabulary
        )
        if self.value_model is not None:
            return logits, self.values_by_model(input_ids, prediction_mask)
        values = self._values_by_head(hidden)
        return logits, hidden.new_zeros(len(hidden)) if values is None else values

    def _at_last(
        self, input_ids: Int[Tensor, "rows width"], **sampling
    ) -> tuple[Float[Tensor, "rows vocab"], Float[Tensor, "rows hidden"]]:
        """Logits and hidden states at the last position."""
        cache = sampling.get("past_key_values")
        if can_step(self.policy, input_ids, cache):
            mask, positions = sampling["attention_mask"], sampling["position_ids"]
            return step(self.policy, input_ids, mask, positions, cache)
        last = torch.zeros_like(input_ids, dtype=torch.bool)
        last[:, -1] = True
        return logits_at(self.policy, last, input_ids, **sampling)

    def _values_by_head(
        self, hidden: Float[Tensor, "tokens hidden"]
    ) -> Float[Tensor, "tokens"] | None:
        if self.value_head is None:
            return None
        hidden = hidden.detach() if self.detach_value else hidden
        return self.value_head(hidden.to(self.value_head.weight.dtype))[:, 0]

    def values_by_model(
        self,
        input_ids: Int[Tensor, "batch width"],
        prediction_mask: Bool[Tensor, "batch width"],
    ) -> Float[Tensor, "tokens"]:
        """Values at the prediction mask, row by row, by the value model; 0 if there is
        none."""
        if self.value_model is None:
            return torch.zeros(int(prediction_mask.sum()), device=input_ids.device)
        places = prediction_mask.nonzero(as_tuple=True)
        mask = _unpadded(self.value_model, input_ids)
        with last_mlp_at(self.value_model, places, input_ids.shape[1]):
            hidden = self.value_model.base_model(
                input_ids, use_cache=False, **mask
            ).last_hidden_state
        return self.value_model.score(hidden[places])[:, 0].float()

    def __getattr__(self, name: str):
        if name in PolicyAndValue.FORWARDED_TO_POLICY:
            return getattr(self.policy, name)
        return super().__getattr__(name)


def completion_logits(
    model: nn.Module,
    input_ids: Int[Tensor, "batch width"],
    prediction_mask: Bool[Tensor, "batch width"],
    vocabulary: int | None = None,
) -> tuple[Float[Tensor, "tokens vocab"], Float[Tensor, "tokens hidden"]]:
    """Logits and last hidden states at the prediction mask, row by row, of rows that
    are padded on the right: no real token attends to padding there, so attention needs
    no mask, which is faster. Only the logits of ids below ``vocabulary``."""
    mask = _unpadded(model, input_ids)
    logits, hidden = logits_at(
        model, prediction_mask, input_ids, use_cache=False, **mask
    )
    return within(logits, vocabulary), hidden


def _unpadded(model: nn.Module, input_ids: Tensor) -> dict[str, Tensor]:
    """What tells the model that no token is hidden: a mask of ones, or none where the
    model takes that for the same, as the host would wait for a GPU to look at it."""
    if needs_no_mask(model):
        return {}
    return {"attention_mask": torch.ones_like(input_ids)}


@contextlib.contextmanager
def swapped(parameters: list[nn.Parameter], others: list[Tensor]) -> Iterator[None]:
    """Meanwhile, the parameters hold the other tensors, and these theirs; nothing is
    copied. Not for gradients."""
    _swap(parameters, others)
    try:
        yield
    finally:
        _swap(parameters, others)


def _swap(parameters: list[nn.Parameter], others: list[Tensor]) -> None:
    for parameter, other in zip(parameters, others, strict=True):
        parameter.data, other.data = other.data, parameter.data


def within(
    logits: Float[Tensor, "tokens outputs"], vocabulary: int | None
) -> Float[Tensor, "tokens vocab"]:
    """The logits of ids below ``vocabulary``; of all where it is None, as even a slice
    of everything would copy the gradient."""
    return logits if vocabulary is None else logits[:, :vocabulary]
