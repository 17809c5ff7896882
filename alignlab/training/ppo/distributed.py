"""Everything particular to several processes, FSDP and DeepSpeed."""

import contextlib
import functools
from collections.abc import Iterator

import numpy as np
import torch
from accelerate import Accelerator
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignlab.training.ppo.config import PPOConfig
from alignlab.training.ppo.rollout import Episodes, split_by_width
from alignlab.training.ppo.update import OneProcess


class Processes(OneProcess):
    """All processes of an accelerator, making the optimizer step that one would make:
    every process takes its share of a minibatch, and micro-batches count by their
    tokens, so that neither their number nor that of the processes changes the gradient.
    """

    def __init__(self, accelerator: Accelerator, vocabulary: int = 1):
        self.accelerator, self.vocabulary = accelerator, vocabulary
        state = accelerator.state
        self.fsdp = getattr(state, "fsdp_plugin", None) is not None
        plugin = getattr(state, "deepspeed_plugin", None)
        self.deepspeed = plugin is not None
        # Where parameters are spread over processes, all of them have to call the
        # model equally often.
        self.sharded = self.fsdp or (self.deepspeed and plugin.zero_stage == 3)

    # --- The optimizer step

    def micro_batches(
        self, model: nn.Module, episodes: Episodes, rows: np.ndarray, config: PPOConfig
    ) -> Iterator[tuple[Episodes, Float[Tensor, ""]]]:
        tokens = episodes.mask[rows].sum()
        own = np.array_split(rows, self.accelerator.num_processes)
        own = own[self.accelerator.process_index]
        parts = self.split(episodes, own, config.gradient_accumulation_steps)
        for number, part in enumerate(parts, start=1):
            batch = episodes.take(part)
            with self._exchange_gradients(number == len(parts), model):
                yield batch, batch.mask.sum() / tokens

    def split(
        self, episodes: Episodes, rows: np.ndarray, parts: int = 1
    ) -> list[np.ndarray]:
        """Rows in parts of like width; in exactly so many parts where processes may
        have to call the model equally often."""
        if self.fsdp or self.deepspeed:
            return np.array_split(rows, parts)
        return split_by_width(episodes, rows, parts, self.vocabulary)

    def _exchange_gradients(self, exchange: bool, model: nn.Module):
        """Processes exchange gradients in a minibatch's last backward pass only."""
        self.accelerator.gradient_state._set_sync_gradients(exchange)
        return contextlib.nullcontext() if exchange else self.accelerator.no_sync(model)

    def backward(self, loss: Float[Tensor, ""]) -> None:
        # Gradients are averaged over processes, and here have to be summed. DeepSpeed
        # would also average them over micro-batches.
        options = {"scale_wrt_gas": False} if self.deepspeed else {}
        self.accelerator.backward(loss * self.accelerator.num_processes, **options)

    def clip_grad_norm(self, model: nn.Module, max_norm: float) -> float:
        limit = max_norm if max_norm > 0 else torch.inf
        return float(self.accelerator.clip_grad_norm_(model.parameters(), limit))

    def sum(self, numbers: Tensor) -> Tensor:
        return self.accelerator.reduce(numbers, "sum")

    # --- Rollouts

    def share(self, rows: list[int]) -> tuple[list[int], int]:
        """This process's rows, and the place of the first one. Every process gets as
        many, so the last ones may repeat the first rows."""
        size = -(-len(rows) // self.accelerator.num_processes)
        first = self.accelerator.process_index * size
        return [rows[i % len(rows)] for i in range(first, first + size)], first

    def sampling_model(self, model: nn.Module, policy: PreTrainedModel):
        """The model as the sampler calls it, with the policy's config: a DeepSpeed
        engine has one of its own."""
        sampling = functools.partial(model)
        sampling.config = policy.config
        return sampling

    def gather(self, episodes: Episodes) -> Episodes:
        """The episodes of all processes, in order."""
        if self.accelerator.num_processes == 1:
            return episodes
        gathered = {}
        for name, tensor in episodes.tensors().items():
            dtype = tensor.dtype
            if dtype == torch.bool:
                tensor = tensor.int()  # padding would change it on some processes only
            if tensor.ndim == 2:
                tensor = self.accelerator.pad_across_processes(tensor, dim=1)
            gathered[name] = self.gather_tensor(tensor).to(dtype)
        return Episodes(**gathered)

    def gather_tensor(self, tensor: Tensor) -> Tensor:
        """The rows of all processes, in order."""
        if self.accelerator.num_processes == 1:
            return tensor
        return self.accelerator.gather(tensor.contiguous())

    # --- The reference

    def prepare_frozen(self, model: PreTrainedModel | None) -> nn.Module | None:
        """A model that is not trained, placed as the policy is."""
        if model is None:
            return None
        model.eval()
        if self.deepspeed:
            from trl.models.utils import prepare_deepspeed

            return prepare_deepspeed(model, self.accelerator)
        if self.fsdp:
            from trl.models.utils import prepare_fsdp

            return prepare_fsdp(model, self.accelerator)
        return self.accelerator.prepare_model(model, evaluation_mode=True)
