"""Batched generation with little overhead for a small model.

Greedy decoding gives the same tokens as ``model.generate`` of each prompt. Rows that
have ended leave the batch. That is for models that keep all they remember in keys and
values; others (recurrent, hybrids, state spaces; see ``cache.keeps_cache``) generate by
themselves, and where they would read the padding, prompts of one length at a time.
Whether the model says the same of a whole text, ``require_sampled_is_scored`` tells.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm.auto import tqdm
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import ModelOutput

from alignlab.errors import AlignlabError
from alignlab.models.base import evaluation_mode
from alignlab.models.cache import empty_cache, holds, keeps_cache
from alignlab.models.fit import (
    inputs_of,
    is_precise,
    plain_model,
    require_causal_lm,
    require_vocabulary,
    says_how_to_save_memory,
    text_inputs,
    tokenizer_size,
)
from alignlab.models.lean import has_plain_attention
from alignlab.models.positions import logits_at, pick_log_probs
from alignlab.models.text import (
    Prompt,
    as_messages,
    completion_text,
    context_length,
    encode_prompt,
    end_token_ids,
    pad_left,
    pad_right,
    pad_token_id,
    require_room,
)
from alignlab.seeds import torch_seed

Observe = Callable[[int, Int[Tensor, "rows"], ModelOutput], None]
FULL_ENOUGH = 0.9  # below this share of running rows, the ended ones leave the batch
SHORTEST = torch.finfo(torch.float32).tiny  # so that its logarithm is a number
LOOK_EVERY = 8  # steps: on a GPU the host waits to learn which rows have ended


@dataclass(frozen=True)
class Completion:
    """A reply: its text as ``text.completion_text`` has it, its tokens including EOS,
    and whether the model ended it with EOS or another token that ends a turn."""

    text: str
    tokens: list[int]
    ended: bool


@torch.no_grad()
def sample(
    model: PreTrainedModel,
    input_ids: Int[Tensor, "batch time"],
    attention_mask: Int[Tensor, "batch time"],
    max_new_tokens: int,
    temperature: float = 1.0,
    eos_token_id: int | Sequence[int] | None = None,
    pad_token_id: int | None = None,
    generator: torch.Generator | None = None,
    observe: Observe | None = None,
    vocabulary: int | None = None,
) -> Int[Tensor, "batch new"]:
    """Continue each row until it reaches EOS or has ``max_new_tokens`` new tokens.

    Args:
        model: a causal language model; put it in eval mode first if it has dropout.
        input_ids: the prompts, padded on the left.
        attention_mask: 1 on the prompts' tokens, 0 on padding.
        temperature: divides the logits. Higher is more varied, 1 is the model's own
            distribution, 0 is greedy.
        eos_token_id: the token that ends a row, or several of which each does; None
            runs every row to full length.
        pad_token_id: fills a row after its end; by default (the first) EOS does.
        generator: source of randomness; by default torch's global one.
        observe: called at each step with its number, the rows still in the batch, some
            of which may have ended, and the model's output for them.
        vocabulary: only ids below it are sampled, for a model with more logits than
            its tokenizer has tokens; None samples all.

    Returns:
        The new tokens, (B, T_new), as wide as the longest new row.

    Raises:
        ValueError: if the shapes differ, a prompt ends in padding, temperature or
            max_new_tokens is out of range, or ``observe`` is given with a model that
            ``generate`` has to sample from; see :func:`keeps_cache`.
    """
    _require_prompts(input_ids, attention_mask, max_new_tokens, temperature)
    _require_cache_is_used(model)
    ends = _end_ids(eos_token_id)
    fill = pad_token_id if pad_token_id is not None else ends[0] if ends else 0

    def choose(step: int, rows: Tensor, logits: Tensor) -> Tensor:
        return _choose(logits[:, :vocabulary], temperature, generator)

    batch = _Batch(input_ids, attention_mask, max_new_tokens, ends, fill)
    return _continue(model, batch, choose, observe)


class _Batch(NamedTuple):
    """Prompts, and how long to continue them."""

    input_ids: Int[Tensor, "batch time"]
    attention_mask: Int[Tensor, "batch time"]
    max_new_tokens: int
    ends: list[int]
    fill: int


# Of a step's number, the rows still in the batch, and their logits: a token for each
Chooser = Callable[[int, Int[Tensor, "rows"], Tensor], Int[Tensor, "rows"]]


def _continue(
    model: nn.Module, batch: _Batch, choose: Chooser, observe: Observe | None = None
) -> Int[Tensor, "batch new"]:
    if keeps_cache(model):
        new = _sample_with_cache(model, batch, choose, observe)
        if new is not None:
            return new
    if not hasattr(model, "generate"):
        raise ValueError(
            "the model keeps more in mind than its cache, and what was passed has no "
            "generate(): pass the plain model; see keeps_cache"
        )
    if observe is not None:
        raise ValueError(
            f"observe is given, and a {type(plain_model(model)).__name__} is sampled "
            "from by its own generate(), which shows no outputs; see keeps_cache"
        )
    return _generate(model, batch, choose)


def _sample_with_cache(
    model: nn.Module, batch: _Batch, choose: Chooser, observe: Observe | None
) -> Int[Tensor, "batch new"] | None:
    """The new tokens; None if the model does not fill the cache it is given."""
    input_ids, attention_mask, max_new_tokens, ends, fill = batch
    output = input_ids.new_full((len(input_ids), max_new_tokens), fill)
    rows = torch.arange(len(input_ids), device=input_ids.device)  # still in the batch
    running = torch.ones_like(rows, dtype=torch.bool)
    width = torch.zeros_like(rows[0])  # steps in which a row was running
    stops = torch.tensor(ends, device=rows.device, dtype=rows.dtype)
    every = _looks_every(rows.device)
    spread_mask = _takes_spread_mask(model, input_ids)
    cache = empty_cache(model)
    # Without padding no mask is needed, which saves building one at every step.
    mask = None if attention_mask.all() else attention_mask
    positions = (attention_mask.cumsum(1) - 1).clamp(min=0)
    tokens = input_ids
    for step in range(max_new_tokens):
        shown = mask
        if step and mask is not None and spread_mask:
            shown = mask[:, None, None].bool()
        inputs = dict(attention_mask=shown, position_ids=positions, logits_to_keep=1)
        inputs |= dict(past_key_values=cache, use_cache=True)
        outputs = model(tokens, **text_inputs(model, tokens, **inputs))
        if step == 0 and not holds(cache, tokens.shape[1]):
            return None
        if observe is not None:
            observe(step, rows, outputs)
        chosen = choose(step, rows, outputs.logits[:, -1])  # (B,)
        output[rows, step] = chosen.where(running, fill)
        width += running.any()
        running &= torch.isin(chosen, stops, invert=True)
        left = len(rows) if (step + 1) % every else int(running.sum())
        if not left:
            return output[:, :width]
        if left <= FULL_ENOUGH * len(rows):
            keep = running.nonzero()[:, 0]
            rows, running, chosen, positions = (
                x[keep] for x in (rows, running, chosen, positions)
            )
            mask = None if mask is None else mask[keep]
            cache.batch_select_indices(keep)
        tokens, positions = chosen[:, None], positions[:, -1:] + 1
        if mask is not None:
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
    return output[:, :width]


def _looks_every(device: torch.device) -> int:
    return 1 if device.type == "cpu" else LOOK_EVERY


def _takes_spread_mask(model: nn.Module, input_ids: Tensor) -> bool:
    """Whether a step may get its mask in attention's shape. `transformers` looks at
    every number of a mask of shape (batch, time), which on a GPU the host waits for."""
    if input_ids.device.type == "cpu" or not has_plain_attention(model):
        return False
    return model.config._attn_implementation == "sdpa"


def _generate(
    model: PreTrainedModel, batch: _Batch, choose: Chooser
) -> Int[Tensor, "batch new"]:
    """The same by ``model.generate``, without its other ways to change logits."""
    groups = _groups(model, batch)
    if len(groups) > 1:
        return _generate_apart(model, batch, choose, groups)
    input_ids, attention_mask, max_new_tokens, ends, fill = batch
    every = torch.arange(len(input_ids), device=input_ids.device)

    def only_chosen(ids, logits):
        step = ids.shape[1] - input_ids.shape[1]
        chosen = choose(step, every, logits)[:, None]
        return torch.full_like(logits, -torch.inf).scatter_(1, chosen, 0.0)

    settings = GenerationConfig(
        max_new_tokens=max_new_tokens, eos_token_id=ends or None, pad_token_id=fill
    )
    with _generation_settings(model, settings):
        if getattr(plain_model(model), "_is_stateful", False):
            model(input_ids[:1, :1], use_cache=False)  # forgets what it last generated
        output = model.generate(
            input_ids=input_ids,
            attention_mask=attention_mask,
            generation_config=settings,
            logits_processor=[only_chosen],
        )
    return output[:, input_ids.shape[1] :]


def _groups(model: PreTrainedModel, batch: _Batch) -> list[Int[Tensor, "rows"]]:
    """Rows that the model can continue together: all of them, or those of one length
    where it would read the padding. RWKV mixes the states of its rows up."""
    lengths = batch.attention_mask.sum(1)
    if "state" in inputs_of(type(plain_model(model))):
        return list(torch.arange(len(lengths), device=lengths.device)[:, None])
    if not _reads_padding(model, batch):
        return [torch.arange(len(lengths), device=lengths.device)]
    return [(lengths == length).nonzero()[:, 0] for length in lengths.unique()]


def _reads_padding(model: PreTrainedModel, batch: _Batch) -> bool:
    """Whether padding on the left changes what the model says of the shortest prompt:
    some have recurrent layers that read it, some count positions from it."""
    lengths = batch.attention_mask.sum(1)
    if lengths.min() == batch.input_ids.shape[1]:
        return False
    row, length = lengths.argmin(), lengths.min()
    last = [
        model(ids[None], attention_mask=mask[None]).logits[0, -1].float()
        for ids, mask in (
            (batch.input_ids[row], batch.attention_mask[row]),
            (batch.input_ids[row, -length:], batch.attention_mask[row, -length:]),
        )
    ]
    tolerance = (1e-3 if is_precise(model) else 0.1) * last[1].std()
    return bool((last[0] - last[1]).square().mean().sqrt() > tolerance)


def _generate_apart(
    model: PreTrainedModel, batch: _Batch, choose: Chooser, groups: list[Tensor]
) -> Int[Tensor, "batch new"]:
    """The same for each group of rows, which have one length, without padding."""
    ids, mask, max_new_tokens, _, fill = batch
    output, width = ids.new_full((len(ids), max_new_tokens), fill), 0
    for rows in groups:
        length = mask[rows[0]].sum()
        part = batch._replace(
            input_ids=ids[rows, -length:], attention_mask=mask[rows, -length:]
        )
        new = _generate(model, part, _for_rows(rows, choose))
        output[rows, : new.shape[1]] = new
        width = max(width, new.shape[1])
    return output[:, :width]


def _for_rows(rows: Tensor, choose: Chooser) -> Chooser:
    def choose_for(step: int, own: Int[Tensor, "running"], logits: Tensor) -> Tensor:
        return choose(step, rows[own], logits)

    return choose_for


@contextmanager
def _generation_settings(model: nn.Module, settings: GenerationConfig):
    """Meanwhile, these are the model's own, which ``generate`` fills gaps from."""
    parts = {id(part): part for part in (model, plain_model(model))}.values()
    usual = [part.generation_config for part in parts]
    try:
        for part in parts:
            part.generation_config = settings
        yield
    finally:
        for part, own in zip(parts, usual, strict=True):
            part.generation_config = own


def complete(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    max_new_tokens: int = 32,
    temperature: float = 0.0,
    seed: int | None = None,
    batch_size: int = 256,
    chat: bool = True,
    progress: bool = False,
    chat_template_kwargs: Mapping | None = None,
) -> list[Completion]:
    """The model's reply to each prompt, in the order given. A reply ends at any token
    of ``text.end_token_ids``, and consists of tokens that the tokenizer has.

    Args:
        prompts: strings, or lists of chat messages; an assistant's turn at the end of
            one is continued.
        max_new_tokens: the longest reply allowed.
        temperature: 0 is greedy; higher is more varied.
        seed: the same seed and batch_size give the same replies; None draws from
            torch's global generator.
        batch_size: prompts at once; more is faster and takes more memory.
        chat: True puts each prompt through the chat template, a string as one user
            turn; False lets the model continue the text as it stands.
        progress: show a progress bar.
        chat_template_kwargs: what else the chat template reads, such as
            ``{"enable_thinking": False}``.

    Raises:
        AlignlabError: if a prompt is empty or does not fit, with ``max_new_tokens``
            more, into the model's context, if the tokenizer has no chat template or
            tokens that the model lacks, or if that is no causal language model.
    """
    if not prompts:
        return []
    require_causal_lm(model)
    require_vocabulary(model, tokenizer)
    ids = [
        encode_prompt(
            tokenizer, as_messages(prompt, "user"), **(chat_template_kwargs or {})
        )
        if chat
        else encode_prompt(tokenizer, prompt)
        for prompt in prompts
    ]
    require_room(model, ids, max_new_tokens)
    generator = None
    if seed is not None:
        generator = torch.Generator(model.device)
        generator.manual_seed(torch_seed(seed, "completions"))
    ends, pad = end_token_ids(tokenizer, model), pad_token_id(tokenizer)
    vocabulary = tokenizer_size(tokenizer)
    settings = max_new_tokens, temperature, ends, pad, generator, None, vocabulary
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))  # for little padding
    replies: list = [None] * len(ids)
    bar = tqdm(total=len(ids), desc="replies", disable=not progress)
    remedy = "Lower batch_size or max_new_tokens."
    with evaluation_mode(model), says_how_to_save_memory(remedy), bar:
        for start in range(0, len(order), batch_size):
            numbers = order[start : start + batch_size]
            batch = pad_left([ids[i] for i in numbers], pad)
            batch = [tensor.to(model.device) for tensor in batch]
            new = sample(model, *batch, *settings)
            for i, tokens in zip(numbers, new.tolist(), strict=True):
                replies[i] = _completion(tokenizer, tokens, ends)
            bar.update(len(numbers))
    return replies


# --- What is sampled is what is scored ------------------------------------------------


def require_sampled_is_scored(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    pad_token_id: int,
    *,
    new_tokens: int = 8,
) -> None:
    """Refuse a model that says something else of a token when it samples it than when
    it reads the whole text: training would take the difference for a change of policy.

    A few prompts are continued in one batch, which rows leave at different times, and
    the completions are read again, padded on the right.

    Args:
        model: the plain model, before it is wrapped for several devices or autocast.
        prompts: token ids of each; up to four of them are tried.
        new_tokens: of the longest completion; more make a more thorough check.

    Raises:
        AlignlabError: if the log-probabilities differ by more than rounding.
    """
    kind = type(plain_model(model)).__name__
    prompts = _few(prompts, room=context_length(model) - new_tokens)
    try:
        with (
            says_how_to_save_memory("Take a smaller model, or load it in bfloat16."),
            evaluation_mode(model),
            torch.no_grad(),
        ):
            sampled, scored, spread = _read_twice(
                model, prompts, pad_token_id, new_tokens
            )
    except AlignlabError:
        raise
    except Exception as error:  # of many kinds, from inside the model
        raise AlignlabError(f"A {kind} cannot be sampled from: {error}", REMEDY) from (
            error
        )
    difference = (sampled - scored).square().mean().sqrt()
    exact = 5e-4 if model.device.type == "cpu" else 3e-3  # GPUs round more coarsely
    tolerance = 1e-5 + (exact if is_precise(model) else 0.1) * spread
    if not difference <= tolerance:  # also if it is not a number
        worst = (sampled - scored).abs().argmax()
        raise AlignlabError(
            f"A {kind} gives tokens other log-probabilities when it samples them than "
            f"when it reads the whole text: {sampled[worst]:.4f} against "
            f"{scored[worst]:.4f} nats for one of them, {difference:.2g} apart on "
            f"average (root mean square), where {tolerance:.2g} could be rounding.",
            REMEDY,
        )


REMEDY = (
    'Load it with attn_implementation="eager" and without code of its own '
    "(trust_remote_code); if that fails too, train another architecture: see "
    "alignlab.models.sampler for what is supported."
)


def _few(prompts: Sequence[Sequence[int]], room: float) -> list[list[int]]:
    """Four prompts, from the shortest to the longest, cut where there is no room; the
    shortest twice, as some models fail at several rows of one length."""
    ordered = sorted((list(prompt) for prompt in prompts), key=len)
    places = torch.linspace(0, len(ordered) - 1, 3).round().int().tolist()
    few = [ordered[0], *(ordered[place] for place in sorted(set(places)))]
    few = [prompt[-int(min(room, len(prompt))) :] for prompt in few]
    while len(few) < 4:  # of other lengths, and with other ends
        few.append(few[-1][: (len(few[-1]) + 1) // 2])
    return few


def _read_twice(
    model: PreTrainedModel, prompts: list[list[int]], pad_token_id: int, new_tokens: int
) -> tuple[Float[Tensor, "tokens"], Float[Tensor, "tokens"], Float[Tensor, ""]]:
    """Log-probabilities of some completions' tokens as they were sampled, and as they
    are scored, in nats; and the spread of the logits, their standard deviation."""
    ids, mask = (x.to(model.device) for x in pad_left(prompts, pad_token_id))
    generator = torch.Generator(ids.device)
    generator.manual_seed(torch_seed(0, "sampled as scored"))
    end = prompts[0][0]
    # Rows end one after the other, the last one not at all.
    last = torch.arange(1, 2 * len(prompts), 2, device=ids.device)
    last[-1] = new_tokens
    sampled = torch.zeros(len(prompts), new_tokens, device=ids.device)

    def choose(step: int, rows: Tensor, logits: Tensor) -> Tensor:
        tokens = _choose(logits, 1.0, generator)
        tokens[last[rows] == step] = end
        log_probs = logits.float().log_softmax(dim=-1)
        sampled[rows, step] = log_probs.gather(1, tokens[:, None])[:, 0]
        return tokens

    batch = _Batch(ids, mask, new_tokens, [end], pad_token_id)
    new = _continue(model, batch, choose).tolist()
    new = [row[: row.index(end) + 1] if end in row else row for row in new]
    whole, _ = pad_right([p + c for p, c in zip(prompts, new)], pad_token_id)
    whole = whole.to(ids.device)
    predicts = torch.zeros_like(whole, dtype=torch.bool)
    for row, (prompt, completion) in enumerate(zip(prompts, new, strict=True)):
        predicts[row, len(prompt) - 1 : len(prompt) + len(completion) - 1] = True
    logits, _ = logits_at(
        model, predicts, whole, attention_mask=torch.ones_like(whole), use_cache=False
    )
    spread = logits.float().std(dim=1).mean()
    scored = pick_log_probs(logits, None, whole[:, 1:][predicts[:, :-1]])
    counted = [sampled[row, : len(completion)] for row, completion in enumerate(new)]
    return torch.cat(counted), scored, spread


def _end_ids(eos_token_id: int | Sequence[int] | None) -> list[int]:
    if eos_token_id is None:
        return []
    return torch.as_tensor(eos_token_id).long().reshape(-1).tolist()


def _require_cache_is_used(model: nn.Module) -> None:
    if getattr(model, "training", False) and any(
        getattr(part, "gradient_checkpointing", False) for part in model.modules()
    ):
        raise ValueError(
            "the model is in train mode with gradient checkpointing, where it keeps no "
            "cache: call model.eval() first"
        )


def _choose(logits: Tensor, temperature: float, generator) -> Tensor:
    """A token per row, (B, V) -> (B,).

    On a CPU by inverting the cumulative distribution: one random number per row. That
    takes sums in float64, which GPUs are slow at; there :func:`_race`.
    """
    if temperature == 0:
        return logits.argmax(dim=-1)
    if logits.device.type != "cpu":
        return _race(logits, temperature, generator)
    probabilities = (logits.float() / temperature).softmax(dim=-1)
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    uniform = torch.rand(len(cumulative), 1, dtype=torch.float64, generator=generator)
    targets = uniform * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, targets, right=True)[:, 0]
    return tokens.clamp(max=logits.shape[1] - 1)  # in case rounding reaches the end


def _race(logits: Tensor, temperature: float, generator) -> Tensor:
    """The same by one random number per vocabulary entry, in float32: of waiting times
    that are exponential with the tokens' probabilities as rates, the shortest."""
    waits = torch.empty_like(logits, dtype=torch.float32)
    waits.exponential_(generator=generator).clamp_(min=SHORTEST)
    return (logits.float() / temperature - waits.log_()).argmax(dim=-1)


def _completion(
    tokenizer: PreTrainedTokenizerBase, tokens: list[int], ends: list[int]
) -> Completion:
    place = next((i for i, token in enumerate(tokens) if token in ends), None)
    content = tokens[:place]
    tokens = tokens if place is None else tokens[: place + 1]
    text = completion_text(tokenizer, content)
    return Completion(text, tokens, ended=place is not None)


def _require_prompts(input_ids, attention_mask, max_new_tokens, temperature) -> None:
    shape, mask_shape = tuple(input_ids.shape), tuple(attention_mask.shape)
    if len(shape) != 2 or shape != mask_shape or 0 in shape:
        raise ValueError(
            f"input_ids have shape {shape} and attention_mask {mask_shape}: "
            "both must be (batch, time), and not empty"
        )
    if not attention_mask[:, -1].all():
        raise ValueError(
            "attention_mask marks the end of a prompt as padding: pad on the left, "
            "and leave out empty prompts"
        )
    if max_new_tokens < 1 or not 0 <= temperature < float("inf"):
        raise ValueError(
            f"max_new_tokens is {max_new_tokens} and temperature {temperature}: "
            "they must be at least 1 and at least 0"
        )
