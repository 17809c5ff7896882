"""Preference optimisation without a reward model: DPO and its family.

Pairs become token ids, what the reference thinks of them is computed once, and the
shared loop does the rest: one pass a step, chosen and rejected behind one prompt.
"""

import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from alignlab.errors import AlignlabError
from alignlab.models.pairs import (
    Two,
    pack,
    pair_log_probs,
    require_rows_can_be_shared,
)
from alignlab.objectives import (
    dpo_loss,
    implicit_reward,
    kto_loss,
    orpo_loss,
    simpo_loss,
)
from alignlab.training.loop import train
from alignlab.training.sft import Encoded, encode

# Every loss that train_dpo knows, with the dials of its own.
DIALS: Mapping[str, tuple[str, ...]] = {
    "sigmoid": ("label_smoothing",),
    "sigmoid_norm": ("label_smoothing",),
    "robust": ("label_smoothing",),
    "ipo": (),
    "ipo_norm": (),
    "hinge": (),
    "dpop": ("penalty",),
    "unweighted": (),
    "orpo": (),
    "simpo": ("gamma",),
    "kto": ("desirable_weight", "undesirable_weight"),
}
WITHOUT_REFERENCE = {"orpo": orpo_loss, "simpo": simpo_loss}


# --- From rows to tokens -------------------------------------------------------------


def encode_pairs(
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Mapping],
    max_length: float = math.inf,
) -> list[Two]:
    """Put pairs through the chat template, once.

    Args:
        pairs: TRL's preference format, dicts with `prompt`, `chosen` and `rejected`,
            each a string or a list of chat messages. Without a `prompt`, `chosen` and
            `rejected` are whole conversations that differ in their last message.
        max_length: pairs with a longer text, in tokens, are left out, for a completion
            that is cut says something else. So are pairs whose two completions are the
            same tokens: they hold no preference. A warning counts both.

    Raises:
        AlignlabError: if a pair lacks a column, its template leaves no boundary
            between prompt and completion, or no pair is left.
    """
    rows = [_prompted(number, pair) for number, pair in enumerate(pairs)]
    if not rows:
        raise AlignlabError("There is no pair to learn from.", "Pass at least one.")
    chosen, rejected = (
        map(
            prompt_and_completion,
            encode(tokenizer, [{**r, "completion": r[side]} for r in rows]),
        )
        for side in ("chosen", "rejected")
    )
    encoded = [Two(*one, other[1]) for one, other in zip(chosen, rejected, strict=True)]
    return _worth_learning(encoded, max_length)


def encode_unpaired(
    tokenizer: PreTrainedTokenizerBase,
    rows: Sequence[Mapping],
    max_length: float = math.inf,
) -> list[tuple[list[int], list[int], bool]]:
    """Put unpaired rows through the chat template, once: the tokens of prompt and
    completion, and whether it is desirable.

    Args:
        rows: TRL's unpaired format, dicts with `prompt`, `completion` (strings or lists
            of chat messages) and `label`, true for a good completion.
        max_length: longer texts, in tokens, are left out, and a warning counts them.

    Raises:
        AlignlabError: if there is no row, one lacks a column, or none is short enough.
    """
    for number, row in enumerate(rows):
        _require_columns(number, row, ("prompt", "completion", "label"))
    encoded = encode(tokenizer, rows)
    texts = [
        (*prompt_and_completion(text), bool(row["label"]))
        for text, row in zip(encoded, rows, strict=True)
        if len(text.input_ids) <= max_length
    ]
    if not texts:
        raise AlignlabError(
            f"None of the {len(encoded)} texts fits into {max_length} tokens.",
            f"The shortest has {min(len(text.input_ids) for text in encoded)}.",
        )
    if dropped := len(encoded) - len(texts):
        warnings.warn(
            f"{dropped} of {len(encoded)} texts are longer than {max_length} tokens "
            "and were left out",
            stacklevel=4,
        )
    return texts


# --- What the reference thinks of them, once -----------------------------------------


@torch.no_grad()
def log_probs_of(
    model: nn.Module, pairs: Sequence[Two], pad_token_id: int, batch_size: int = 16
) -> tuple[Float[Tensor, "pairs"], Float[Tensor, "pairs"]]:
    """Log-probabilities of all first and of all second completions, in nats, in the
    order given and on the CPU.

    Args:
        model: a causal language model; it is put into eval mode meanwhile.
        pairs: what :func:`encode_pairs` gives.
        batch_size: pairs at once; more takes more memory.

    Raises:
        AlignlabError: if the model cannot read two completions in one row.
    """
    require_rows_can_be_shared(model, _longest(pairs))
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    found = []
    for start in range(0, len(pairs), batch_size):
        packed = pack(pairs[start : start + batch_size], pad_token_id)
        packed = {name: value.to(device) for name, value in packed.items()}
        found.append(torch.stack(pair_log_probs(model, packed)).float().cpu())
    model.train(was_training)
    first, second = torch.cat(found, dim=1)
    return first, second


def batches(
    pairs: Sequence[Two],
    known: Mapping[str, Tensor],
    batch_size: int,
    seed: int,
    pad_token_id: int,
) -> Iterator[dict[str, Tensor]]:
    """Batches for ever; each epoch has every pair once, in an order of its own.

    A batch is what :func:`alignlab.models.pairs.pack` gives for its B pairs, and what
    is ``known`` of them, each (B,). Pairs meet at random whatever their lengths: packed
    as they are, hardly any padding comes of it. An epoch that ``batch_size`` does not
    divide is cut into batches of nearly the same size.

    Raises:
        ValueError: if there is no pair or batch_size is not positive.
    """
    if not pairs or batch_size < 1:
        raise ValueError(
            f"batch_size is {batch_size} with {len(pairs)} pairs; both > 0"
        )
    random = np.random.default_rng(seed)
    while True:
        order = random.permutation(len(pairs))
        for some in np.array_split(order, -(-len(pairs) // batch_size)):
            batch = pack([pairs[i] for i in some], pad_token_id)
            yield batch | {name: values[some] for name, values in known.items()}


# --- One step ------------------------------------------------------------------------


def preference_step(
    model: nn.Module,
    batch: dict[str, Tensor],
    loss_type: str = "sigmoid",
    beta: float = 0.1,
    **dials: float,
) -> tuple[Tensor, dict[str, float]]:
    """The mean loss of a batch of pairs that :func:`batches` made, and what to log.

    Args:
        batch: for the losses with a reference also its log-probabilities of the
            completions, ``ref_chosen`` and ``ref_rejected``, each (B,).
        loss_type, beta, dials: see :func:`train_dpo`.

    Returns:
        The loss in its own unit per pair, and the batch's means of
        ``log_probs/chosen`` and ``log_probs/rejected`` (nats a completion),
        ``rewards/chosen``, ``rewards/rejected`` and ``rewards/margins`` (implicit
        rewards; without a reference β times the mean log-probability of the tokens),
        and ``rewards/accuracies``, the share of pairs whose chosen completion has the
        higher reward. A tie counts one half; TRL counts it as wrong.

    Raises:
        ValueError: if a dial is out of range.
    """
    chosen, rejected = pair_log_probs(model, batch)  # (B,) each
    tokens = batch["first_tokens"], batch["second_tokens"]
    if loss_type in WITHOUT_REFERENCE:
        means = chosen / tokens[0], rejected / tokens[1]
        losses = WITHOUT_REFERENCE[loss_type](*means, beta, **dials)
        rewards = [beta * mean for mean in means]
    else:
        reference = batch["ref_chosen"], batch["ref_rejected"]
        counts = dict(zip(("chosen_tokens", "rejected_tokens"), tokens))
        losses = dpo_loss(
            chosen, rejected, *reference, beta, loss_type, **dials, **counts
        )
        rewards = [
            implicit_reward(policy, fixed, beta)
            for policy, fixed in zip((chosen, rejected), reference)
        ]
    return losses.mean(), _logs(chosen, rejected, *rewards)


def kto_step(
    model: nn.Module,
    batch: dict[str, Tensor],
    beta: float = 0.1,
    desirable_weight: float = 1.0,
    undesirable_weight: float = 1.0,
) -> tuple[Tensor, dict[str, float]]:
    """The mean KTO loss of a batch of completions, and what to log.

    The reference point is the batch's mean log-ratio of *mismatched* completions, each
    to another row's prompt, which get no gradient. They are the rows' second ones.

    Args:
        batch: of each completion also ``desirable``, and the reference's
            log-probabilities of it, ``ref``, and of the mismatched one,
            ``ref_mismatched``, each (B,).

    Returns:
        The loss, and means over the batch's desirable (chosen) and undesirable
        (rejected) completions: ``log_probs/...``, ``rewards/...`` and
        ``rewards/margins`` as in :func:`preference_step`, NaN where the batch has none;
        and ``kl``, the reference point in nats.
    """
    log_probs, mismatched = pair_log_probs(model, batch)
    kl = (mismatched - batch["ref_mismatched"]).mean()
    good = batch["desirable"]
    weights = desirable_weight, undesirable_weight
    losses = kto_loss(log_probs, batch["ref"], good, kl, beta, *weights)
    rewards = implicit_reward(log_probs.detach(), batch["ref"], beta)
    logs = {
        f"{name}/{side}": values[rows].mean().item()
        for name, values in (("log_probs", log_probs.detach()), ("rewards", rewards))
        for side, rows in (("chosen", good), ("rejected", ~good))
    }
    logs["rewards/margins"] = logs["rewards/chosen"] - logs["rewards/rejected"]
    return losses.mean(), logs | {"kl": kl.clamp(min=0).item()}


# --- Training ------------------------------------------------------------------------


def train_dpo(
    policy: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    pairs: Sequence[Mapping],
    *,
    loss_type: str = "sigmoid",
    beta: float = 0.1,
    steps: int,
    batch_size: int = 32,
    learning_rate: float,
    seed: int = 0,
    reference: PreTrainedModel | None = None,
    ref_log_probs: tuple[Tensor, Tensor] | None = None,
    max_length: int | None = None,
    eval_pairs: Sequence[Mapping] | Mapping[str, Sequence[Mapping]] | None = None,
    eval_every: int | None = None,
    progress: bool = True,
    **options,
) -> list[dict]:
    """Teach a policy, in place, to prefer what people preferred.

    Args:
        policy: a causal language model, usually fine-tuned on the chosen completions.
        pairs: see :func:`encode_pairs`. For "kto" they are taken apart; it also takes
            unpaired rows, see :func:`encode_unpaired`.
        loss_type: one of ``DIALS``: a type of :func:`alignlab.objectives.dpo_loss`, or
            "orpo", "simpo" or "kto".
        beta: strength, in each loss's own sense; see `alignlab.objectives`. For those
            with a reference, higher keeps closer to it.
        steps: updates; ``steps * batch_size / len(pairs)`` is the number of epochs.
        batch_size: pairs in a batch, or completions if the rows are unpaired.
        learning_rate: the peak; higher leaves the reference sooner, and less steadily.
        seed: fixes the order of the pairs, and dropout.
        reference: what the policy is held to. None is the policy as it comes in. Its
            log-probabilities are computed once, before the first update, so that no
            second model is kept; "orpo" and "simpo" train without any.
        ref_log_probs: what :func:`log_probs_of` gives for the reference and these
            pairs, if it is known: several runs on the same pairs then take it once.
            "kto", "orpo" and "simpo" have no use for it.
        max_length: in tokens, see :func:`encode_pairs`; by default as many as the
            policy has positions for.
        eval_pairs: pairs to follow without learning from them, or several lists of them
            by name, such as ``{"train": ..., "held_out": ...}``.
        eval_every: steps between two looks at those; by default a tenth of all. The
            last step always has one.
        options: the loss's own dials, as ``DIALS`` lists and `alignlab.objectives`
            explains them, and further arguments of
            :func:`alignlab.training.loop.train`.

    Returns:
        The history, one row a step, with the loss and the logs of
        :func:`preference_step` or :func:`kto_step`: of the policy before that step's
        update, on its batch. Rows with a look at ``eval_pairs`` also have, of the
        policy after the update and under the list's name ("eval" if it has none),
        ``eval/log_probs/chosen`` and ``.../rejected``, ``eval/log_ratios/chosen`` and
        ``.../rejected`` (means in nats a completion; the ratios are to the reference,
        whatever the loss) and ``eval/accuracies``, the share of pairs whose chosen
        completion has the higher log-ratio.

    Raises:
        AlignlabError: if a row lacks a column or none is left to learn from, the
            reference has another vocabulary, a model cannot read two completions in one
            row, or the loop raises one.
        ValueError: if there is no such loss or dial, a dial is out of range, or
            ``ref_log_probs`` are of another number of pairs.
    """
    dials = {name: options.pop(name) for name in _ALL_DIALS if name in options}
    step = _step_of(loss_type, beta, dials)
    reference = policy if reference is None else reference
    _require_same_vocabulary(policy, reference)
    if max_length is None:
        max_length = getattr(policy.config, "max_position_embeddings", None) or math.inf
    pad = tokenizer.pad_token_id
    pad = tokenizer.eos_token_id if pad is None else pad
    read = (tokenizer, pairs, reference, ref_log_probs, max_length, pad)
    examples, known = _prepared(loss_type, *read)
    require_rows_can_be_shared(policy, _longest(examples))
    if loss_type == "kto" and not _is_unpaired(pairs):
        batch_size *= 2  # completions, as many as the other losses see in a step
    if eval_pairs is not None:
        every = max(1, steps // 10) if eval_every is None else eval_every
        look = _look_at(eval_pairs, policy, tokenizer, reference, max_length, pad)
        options["on_log"] = _now_and_then(look, every, steps, options.get("on_log"))
    options = {"description": loss_type} | options
    return train(
        policy,
        batches(examples, known, batch_size, seed, pad),
        step,
        steps=steps,
        learning_rate=learning_rate,
        seed=seed,
        progress=progress,
        **options,
    )


def _step_of(loss_type: str, beta: float, dials: dict[str, float]) -> Callable:
    """The loss function of the loop, after a trial that costs nothing: a dial out of
    range shows now and not after the reference has read all pairs."""
    if loss_type not in DIALS:
        raise ValueError(f"loss_type is {loss_type!r}; it can be one of {[*DIALS]}")
    for name in dials.keys() - set(DIALS[loss_type]):
        has = ", ".join(DIALS[loss_type]) or "none besides beta"
        raise ValueError(
            f"{name} is {dials[name]}, and loss_type {loss_type!r} has no such dial; "
            f"it has {has}"
        )
    one, no = torch.full((1,), -1.0), torch.tensor([False])
    if loss_type == "kto":
        kto_loss(one, one, no, one[0], beta, **dials)
        return partial(kto_step, beta=beta, **dials)
    if loss_type in WITHOUT_REFERENCE:
        WITHOUT_REFERENCE[loss_type](one, one, beta, **dials)
    else:
        counts = {"chosen_tokens": -one, "rejected_tokens": -one}
        dpo_loss(one, one, one, one, beta, loss_type, **dials, **counts)
    return partial(preference_step, loss_type=loss_type, beta=beta, **dials)


def _prepared(
    loss_type: str,
    tokenizer,
    pairs,
    reference: nn.Module,
    ref_log_probs: tuple[Tensor, Tensor] | None,
    max_length: float,
    pad: int,
) -> tuple[list[Two], dict[str, Tensor]]:
    """What a loss learns from, and what is known of it beforehand."""
    if loss_type != "kto":
        encoded = encode_pairs(tokenizer, pairs, max_length)
        if loss_type in WITHOUT_REFERENCE:
            return encoded, {}
        if ref_log_probs is None:
            ref_log_probs = log_probs_of(reference, encoded, pad)
        counts = [len(log_probs) for log_probs in ref_log_probs]
        if counts != [len(encoded)] * 2:
            raise ValueError(
                f"ref_log_probs are of {counts[0]} chosen and {counts[1]} rejected "
                f"completions; {len(encoded)} pairs fit into {max_length} tokens"
            )
        return encoded, dict(zip(("ref_chosen", "ref_rejected"), ref_log_probs))
    if _is_unpaired(pairs):
        texts = encode_unpaired(tokenizer, pairs, max_length)
    else:
        two = encode_pairs(tokenizer, pairs, max_length)
        texts = [(prompt, chosen, True) for prompt, chosen, _ in two]
        texts += [(prompt, rejected, False) for prompt, _, rejected in two]
    mismatched = _mismatched(texts, max_length)
    ref, ref_mismatched = log_probs_of(reference, mismatched, pad)
    desirable = torch.tensor([good for _, _, good in texts])
    known = {"desirable": desirable, "ref": ref, "ref_mismatched": ref_mismatched}
    return mismatched, known


def _mismatched(texts: list[tuple], max_length: float) -> list[Two]:
    """Beside each completion another's, cut where that would not fit.

    The others are so many places before, the same number for all: the least at which
    the fewest prompts meet themselves. Where neighbours differ it is 1, as in TRL.
    """
    numbers: dict[tuple, int] = {}
    which = [numbers.setdefault(tuple(text[0]), len(numbers)) for text in texts]
    places = min(
        range(1, len(texts)),
        key=lambda places: (np.roll(which, places) == which).sum(),
        default=0,
    )
    rows = []
    for i, (prompt, completion, _) in enumerate(texts):
        other, room = texts[i - places][1], max_length - len(prompt)
        other = other if len(other) <= room else other[:room]
        rows.append(Two(prompt, completion, other))
    return rows


# --- Looking at pairs without learning from them -------------------------------------


def _look_at(
    eval_pairs, policy, tokenizer, reference, max_length: float, pad: int
) -> Callable[[], dict[str, float]]:
    """A function that measures the policy on each list of pairs against the reference,
    whose log-probabilities are taken now."""
    lists = eval_pairs if isinstance(eval_pairs, Mapping) else {"eval": eval_pairs}
    encoded = {
        name: encode_pairs(tokenizer, some, max_length) for name, some in lists.items()
    }
    before = {
        name: log_probs_of(reference, some, pad) for name, some in encoded.items()
    }

    def look() -> dict[str, float]:
        found = {}
        for name, some in encoded.items():
            now = log_probs_of(policy, some, pad)
            ratios = [log_probs - ref for log_probs, ref in zip(now, before[name])]
            for i, side in enumerate(("chosen", "rejected")):
                found[f"{name}/log_probs/{side}"] = now[i].mean().item()
                found[f"{name}/log_ratios/{side}"] = ratios[i].mean().item()
            found[f"{name}/accuracies"] = _accuracy(*ratios)
        return found

    return look


def _now_and_then(look, every: int, steps: int, then: Callable | None) -> Callable:
    def on_log(row: dict) -> None:
        if row["step"] % every == 0 or row["step"] == steps:
            row |= look()
        if then is not None:
            then(row)

    return on_log


# --- Small parts ---------------------------------------------------------------------

_ALL_DIALS = sorted({name for names in DIALS.values() for name in names})


def prompt_and_completion(text: Encoded) -> tuple[list[int], list[int]]:
    """Tokens of a text's prompt, and those of its completion."""
    start = text.completion_mask.index(1)
    return text.input_ids[:start], text.input_ids[start:]


def _logs(chosen, rejected, reward_chosen, reward_rejected) -> dict[str, float]:
    means = torch.stack([chosen, rejected, reward_chosen, reward_rejected]).detach()
    names = ("log_probs/chosen", "log_probs/rejected")
    names += ("rewards/chosen", "rewards/rejected")
    logs = dict(zip(names, means.mean(dim=1).tolist()))
    logs["rewards/margins"] = logs["rewards/chosen"] - logs["rewards/rejected"]
    logs["rewards/accuracies"] = _accuracy(reward_chosen, reward_rejected)
    return logs


def _accuracy(chosen: Tensor, rejected: Tensor) -> float:
    return (0.5 + 0.5 * (chosen - rejected).detach().sign()).mean().item()


def _longest(pairs: Sequence[Two]) -> Two:
    return max(pairs, key=lambda pair: pair.length)


def _is_unpaired(rows: Sequence[Mapping]) -> bool:
    return len(rows) > 0 and "completion" in rows[0]


def _prompted(number: int, pair: Mapping) -> dict:
    """The pair's three columns; a prompt that two conversations share is cut out."""
    _require_columns(number, pair, ("chosen", "rejected"))
    chosen, rejected = pair["chosen"], pair["rejected"]
    if "prompt" not in pair and not isinstance(chosen, str) and chosen[:-1]:
        if chosen[:-1] != rejected[:-1]:
            raise AlignlabError(
                f"The two conversations of row {number} differ before their last "
                "message, and it has no prompt.",
                "Add a prompt column, and leave the prompt out of both.",
            )
        return dict(prompt=chosen[:-1], chosen=chosen[-1:], rejected=rejected[-1:])
    _require_columns(number, pair, ("prompt",))
    return dict(prompt=pair["prompt"], chosen=chosen, rejected=rejected)


def _require_columns(number: int, row: Mapping, names: tuple[str, ...]) -> None:
    missing = [name for name in names if name not in row]
    if missing:
        raise AlignlabError(
            f"Row {number} has no {' and no '.join(missing)}; it has {sorted(row)}.",
            "A pair needs prompt, chosen and rejected; an unpaired row prompt, "
            "completion and label.",
        )


def _worth_learning(pairs: list[Two], max_length: float) -> list[Two]:
    short = [
        pair
        for pair in pairs
        if len(pair.prompt) + max(len(pair.first), len(pair.second)) <= max_length
    ]
    kept = [pair for pair in short if pair.first != pair.second]
    long, same = len(pairs) - len(short), len(short) - len(kept)
    if long or same:
        counts = (
            f"of {len(pairs)} pairs, {long} have a text of more than {max_length} "
            f"tokens and {same} have the same tokens as chosen and as rejected"
        )
        if not kept:
            raise AlignlabError(
                f"None is left to learn from: {counts}.", "Pass others."
            )
        warnings.warn(f"{counts}; they were left out", stacklevel=5)
    return kept


def _require_same_vocabulary(policy: nn.Module, reference: nn.Module) -> None:
    sizes = [
        model.get_input_embeddings().weight.shape[0] for model in (policy, reference)
    ]
    if sizes[0] != sizes[1]:
        raise AlignlabError(
            f"The reference has a vocabulary of {sizes[1]} tokens and the policy one "
            f"of {sizes[0]}: their log-probabilities are of different texts.",
            "Pass the model that the policy came from, or none.",
        )
