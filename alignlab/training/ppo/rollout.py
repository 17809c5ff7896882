"""What PPO rolls out and trains: prompts, completions with all that is known about
their tokens, and the module that is policy and value function in one."""

import math
from dataclasses import dataclass, fields

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from alignlab.errors import AlignlabError
from alignlab.models.lean import last_mlp_at
from alignlab.models.reward import positions
from alignlab.training.ppo.config import PPOConfig

PROMPT_ORDER = 2**33  # a random stream that nothing else draws from
# Tokens that could be computed in the time that one more pass takes to get going.
GROUP_PRICE = {"cpu": 128, "gpu": 8192}
# Tokens in a pass. Beyond, a processor spends its time on fetching memory: a batch of
# 7,000 tokens takes a third longer in one pass than in four.
GROUP_LIMIT = {"cpu": 2048, "gpu": math.inf}


# --- Prompts ------------------------------------------------------------------------


class Prompts(torch.utils.data.Dataset):
    """Prompts as they were given, as tokens, and the columns that came with them."""

    def __init__(self, dataset, tokenizer, argument: str, args: PPOConfig, model):
        """
        Args:
            dataset: rows with a ``prompt``.
            argument: what the caller calls it, for error messages.

        Raises:
            AlignlabError: if there is no prompt, or one is empty or too long.
        """
        rows = _rows_of(dataset, argument)
        self.given = [row["prompt"] for row in rows]
        names = [name for name in rows[0] if name != "prompt"]
        self.columns = {name: [row.get(name) for row in rows] for name in names}
        self.ids = [
            _prompt_tokens(tokenizer, prompt, f"{argument}[{number}]")
            for number, prompt in enumerate(self.given)
        ]
        room = positions(model) - args.max_completion_length
        for number, ids in enumerate(self.ids):
            if len(ids) > room:
                raise AlignlabError(
                    f"{argument}[{number}] has {len(ids)} tokens; with "
                    f"max_completion_length={args.max_completion_length} the model's "
                    f"context has room for {room}: {self.given[number]!r:.200}",
                    "Leave such prompts out, or lower max_completion_length.",
                )

    def __len__(self) -> int:
        return len(self.given)

    def __getitem__(self, number: int) -> dict:
        columns = {name: column[number] for name, column in self.columns.items()}
        return {"prompt": self.given[number]} | columns

    def shuffled(self, update: int, count: int, seed: int) -> list[int]:
        """Rows for one update, out of an endless series of epochs, each with every
        prompt once in an order of its own."""
        places = range(update * count, (update + 1) * count)
        orders = {
            epoch: random_stream(seed, PROMPT_ORDER, epoch).permutation(len(self))
            for epoch in {place // len(self) for place in places}
        }
        return [int(orders[p // len(self)][p % len(self)]) for p in places]


def _rows_of(dataset, argument: str) -> list[dict]:
    if dataset is None or not hasattr(dataset, "__len__"):
        raise AlignlabError(
            f"{argument} is {type(dataset).__name__}, which has no length.",
            "Pass a list of dicts or a datasets.Dataset with a column `prompt`.",
        )
    rows = list(dataset)
    if not rows:
        raise AlignlabError(f"{argument} holds no row.", "Pass at least one prompt.")
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or "prompt" not in row:
            raise AlignlabError(
                f"{argument}[{number}] has no `prompt`: {row!r:.200}",
                "Every row needs one: text, or a list of chat messages.",
            )
    return rows


def _prompt_tokens(tokenizer, prompt: str | list[dict], place: str) -> list[int]:
    """Chat messages through the template, which brings its own special tokens; text as
    it is, with those that the tokenizer adds, unless it has them already."""
    if not prompt or not isinstance(prompt, str | list):
        raise AlignlabError(f"{place} is no prompt: {prompt!r}.", "Leave it out.")
    text = prompt
    if not isinstance(prompt, str):
        if tokenizer.chat_template is None:
            raise AlignlabError(
                f"{place} is a chat, and the tokenizer {tokenizer.name_or_path!r} has "
                "no chat template.",
                "Pass text, or set tokenizer.chat_template.",
            )
        text = tokenizer.apply_chat_template(
            prompt, tokenize=False, add_generation_prompt=True
        )
    begun = tokenizer.bos_token is not None and text.startswith(tokenizer.bos_token)
    plain = isinstance(prompt, str) and not begun
    ids = tokenizer(text, add_special_tokens=plain)["input_ids"]
    if not ids:
        raise AlignlabError(f"{place} has no token: {prompt!r}.", "Leave it out.")
    return ids


def pad_left(ids: list[list[int]], pad: int) -> tuple[Tensor, Tensor]:
    width = max(map(len, ids))
    padded = [[pad] * (width - len(row)) + row for row in ids]
    mask = [[0] * (width - len(row)) + [1] * len(row) for row in ids]
    return torch.tensor(padded), torch.tensor(mask)


def _pad_right(ids: list[list[int]], pad: int) -> Tensor:
    width = max(map(len, ids))
    return torch.tensor([row + [pad] * (width - len(row)) for row in ids])


# --- Completions --------------------------------------------------------------------


@dataclass
class Episodes:
    """Completions, a row each, and what there is to know about each of their tokens.

    Rows of W tokens hold a prompt, its completion, and padding on the right. All that
    is said about a completion's tokens is (B, T), from its first token on, 0 behind its
    last.
    """

    input_ids: Int[Tensor, "batch width"]
    prompt_length: Int[Tensor, "batch"]
    mask: Bool[Tensor, "batch time"]  # True on the completion's tokens
    ended: Bool[Tensor, "batch"]  # whether the policy ended it itself
    old_log_probs: Float[Tensor, "batch time"] | None = None
    ref_log_probs: Float[Tensor, "batch time"] | None = None
    values: Float[Tensor, "batch time"] | None = None
    entropy: Float[Tensor, "batch time"] | None = None
    exact_kl: Float[Tensor, "batch time"] | None = None
    raw_rewards: Float[Tensor, "batch functions"] | None = None
    advantages: Float[Tensor, "batch time"] | None = None
    returns: Float[Tensor, "batch time"] | None = None

    @classmethod
    def pack(
        cls,
        prompts: list[list[int]],
        sampled: Int[Tensor, "batch time"],
        stop: int | None,
        pad: int,
    ) -> "Episodes":
        """Cut what was sampled behind each row's first stop token, and put it directly
        behind its prompt, so that all padding is at the end."""
        stops = sampled == (-1 if stop is None else stop)
        ended = stops.any(1)
        lengths = torch.where(ended, stops.int().argmax(1) + 1, sampled.shape[1])
        sampled = sampled[:, : lengths.max()]
        columns = torch.arange(sampled.shape[1], device=sampled.device)
        rows = [
            prompt + new[:length]
            for prompt, new, length in zip(
                prompts, sampled.tolist(), lengths.tolist(), strict=True
            )
        ]
        return cls(
            _pad_right(rows, pad).to(sampled.device),
            torch.tensor([len(p) for p in prompts], device=sampled.device),
            columns < lengths[:, None],
            ended,
        )

    @property
    def lengths(self) -> Int[Tensor, "batch"]:
        """Of the completions, in tokens, the ending one included."""
        return self.mask.sum(1)

    @property
    def asked(self) -> Bool[Tensor, "batch width"]:
        """Where the model is asked for a completion's token: one place before it."""
        columns = torch.arange(self.input_ids.shape[1], device=self.mask.device)
        first = self.prompt_length[:, None] - 1
        return (columns >= first) & (columns < first + self.lengths[:, None])

    @property
    def tokens(self) -> Int[Tensor, "tokens"]:
        """The completions' tokens, row by row."""
        return self.input_ids[:, 1:][self.asked[:, :-1]]

    @property
    def widths(self) -> Int[Tensor, "batch"]:
        """Of prompts and completions together, in tokens."""
        return self.prompt_length + self.lengths

    def spread(self, flat: Float[Tensor, "tokens"]) -> Float[Tensor, "batch time"]:
        """One number for each token of the completions, row by row, laid out (B, T)."""
        flat = flat.float()
        return flat.new_zeros(self.mask.shape).masked_scatter(self.mask, flat)

    def completion_ids(self) -> list[list[int]]:
        return [
            row[start : start + length]
            for row, start, length in zip(
                self.input_ids.tolist(),
                self.prompt_length.tolist(),
                self.lengths.tolist(),
                strict=True,
            )
        ]

    def tensors(self) -> dict[str, Tensor]:
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: x for name, x in named.items() if x is not None}

    def take(self, rows: np.ndarray) -> "Episodes":
        """The episodes of these rows, without columns that would be all padding."""
        rows = torch.from_numpy(rows).to(self.mask.device)
        time, width = self.lengths[rows].max(), self.widths[rows].max()
        cut = {}
        for name, tensor in self.tensors().items():
            tensor = tensor[rows]
            if name == "input_ids":
                tensor = tensor[:, :width]
            elif tensor.ndim == 2 and name != "raw_rewards":
                tensor = tensor[:, :time]
            cut[name] = tensor
        return Episodes(**cut)

    @classmethod
    def join(cls, parts: list["Episodes"]) -> "Episodes":
        """Several batches as one, padded to the widest."""
        if len(parts) == 1:
            return parts[0]
        whole = {}
        for name in parts[0].tensors():
            tensors = [getattr(part, name) for part in parts]
            if tensors[0].ndim == 2:
                width = max(tensor.shape[1] for tensor in tensors)
                tensors = [F.pad(t, (0, width - t.shape[1])) for t in tensors]
            whole[name] = torch.cat(tensors)
        return cls(**whole)


def by_width(
    widths: np.ndarray, price: int, limit: float = math.inf
) -> list[np.ndarray]:
    """Rows in groups of like width, so that there is little padding to compute.

    A group costs its rows times its greatest width, and ``price`` tokens for being one
    more; of all ways to cut the sorted rows, this is the cheapest in which no group of
    several rows has more than ``limit`` tokens.
    """
    order = np.argsort(widths, kind="stable")
    cost, cut = np.zeros(len(order) + 1), np.zeros(len(order) + 1, dtype=int)
    for end in range(1, len(order) + 1):
        rows = end - np.arange(end)  # in the last group, for each place it may begin
        tokens = rows * widths[order[end - 1]]
        fits = (tokens <= limit) | (rows == 1)
        total = np.where(fits, cost[:end] + tokens + price, math.inf)
        cut[end] = total.argmin()
        cost[end] = total[cut[end]]
    groups, end = [], len(order)
    while end:
        groups.append(order[cut[end] : end])
        end = cut[end]
    return groups[::-1]


def alike(widths: np.ndarray, device: torch.device) -> list[np.ndarray]:
    """:func:`by_width` with what a pass costs on this device."""
    kind = "cpu" if device.type == "cpu" else "gpu"
    return by_width(widths, GROUP_PRICE[kind], GROUP_LIMIT[kind])


# --- Policy and value ---------------------------------------------------------------


class PolicyAndValue(nn.Module):
    """A causal language model and what it expects to earn, as one module to train.

    Without a value model, one pass through the policy's trunk gives both: the logits,
    and from the same hidden states the values.
    """

    POLICYS_OWN = (  # what a Trainer asks of a model
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
    ):
        super().__init__()
        self.policy, self.value_model = policy, value_model
        self.detach_value = detach_value
        if value_model is None:
            hidden = policy.config.get_text_config().hidden_size
            self.value_head = nn.Linear(hidden, 1, device=policy.device)
            nn.init.zeros_(self.value_head.weight)
            nn.init.zeros_(self.value_head.bias)

    def forward(
        self,
        input_ids: Int[Tensor, "batch width"],
        asked: Bool[Tensor, "batch width"] | None = None,
        **sampling,
    ) -> tuple[Float[Tensor, "tokens vocab"], Float[Tensor, "tokens"]]:
        """Logits and value at each position asked about, row by row; without any, what
        the policy itself says, for sampling."""
        if asked is None:
            return self.policy(input_ids, **sampling)
        logits, hidden = completion_logits(self.policy, input_ids, asked)
        if self.value_model is not None:
            return logits, _values(self.value_model, input_ids, asked)
        hidden = hidden.detach() if self.detach_value else hidden
        return logits, self.value_head(hidden.to(self.value_head.weight.dtype))[:, 0]

    def __getattr__(self, name: str):
        if name in PolicyAndValue.POLICYS_OWN:
            return getattr(self.policy, name)
        return super().__getattr__(name)


def completion_logits(
    model: nn.Module,
    input_ids: Int[Tensor, "batch width"],
    asked: Bool[Tensor, "batch width"],
) -> tuple[Float[Tensor, "tokens vocab"], Float[Tensor, "tokens hidden"]]:
    """Logits and last hidden states at the positions asked about, row by row.

    The output layer, dearest of all in a small model, sees nothing else, nor does the
    last MLP. Padding is on the right, where no real token looks, so that the mask can
    call it real: then attention needs none, which is faster.
    """
    seen = []

    def select(module, inputs):
        seen.append(inputs[0][asked])  # (N, hidden)
        return (seen[0][None], *inputs[1:])

    hook = model.get_output_embeddings().register_forward_pre_hook(select)
    try:
        with last_mlp_at(model, asked):
            logits = model(
                input_ids, attention_mask=torch.ones_like(input_ids), use_cache=False
            ).logits.squeeze(0)  # (N, V); [0] would be written out again in backward
    finally:
        hook.remove()
    return logits, seen[0]


def _values(model: nn.Module, input_ids: Tensor, asked: Tensor) -> Tensor:
    with last_mlp_at(model, asked):
        hidden = model.base_model(
            input_ids, attention_mask=torch.ones_like(input_ids), use_cache=False
        ).last_hidden_state
    return model.score(hidden[asked])[:, 0].float()  # (N,)


def training_mode(model: nn.Module, dropout: bool) -> None:
    """Without dropout all is in eval mode, except that layers save memory by computing
    activations twice only in training mode."""
    model.train(dropout)
    for module in model.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.training = True


def random_stream(*stream: int) -> np.random.Generator:
    """Random numbers that depend on these numbers and on nothing else."""
    return np.random.default_rng(stream)
