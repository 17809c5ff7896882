"""Models that learn the answers to a few questions until they over-fit, with several
losses, and several models in place of one.

Every run starts from the base model and is asked about held-out subjects at several
checkpoints on its way. Which checkpoint to stop at is read off the fitting subjects.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from scipy.special import softmax
from torch import nn

from alignlab.calibration.ensembles import dropout, mc_dropout
from alignlab.calibration.laplace import laplace_covariance, laplace_probabilities
from alignlab.calibration.metrics import negative_log_likelihood
from alignlab.calibration.training import loss_step, mixup_step
from alignlab.chapters.calibration.artifacts import (
    HELD_OUT,
    Item,
    ask,
    draw_items,
    labels,
)
from alignlab.models.fit import plain_model
from alignlab.objectives.calibration import (
    focal_loss,
    label_smoothing_loss,
    mmce_loss,
    task_and_brier_loss,
)
from alignlab.seeds import stream
from alignlab.study.arms import Call
from alignlab.study.scale import rate as learning_rate
from alignlab.study.scale import trainable_base
from alignlab.study.tuning import BATCH
from alignlab.training.loop import train
from alignlab.training.sft import batches, collate, encode, sft_step
from alignlab.world.facts import KNOWN_FROM, TAIL, Fact

PLAIN = "cross-entropy"
DROPOUT = 0.1
# Losses with the hyperparameters of the papers they come from; none was tuned here.
STEPS: Mapping[str, Callable] = {
    PLAIN: sft_step,
    "focal": loss_step(partial(focal_loss, gamma=2.0)),
    "label smoothing": loss_step(partial(label_smoothing_loss, label_smoothing=0.1)),
    "mixup": mixup_step(alpha=0.2),
    "task and Brier": loss_step(partial(task_and_brier_loss, brier_weight=1.0)),
    "MMCE": loss_step(partial(mmce_loss, mmce_weight=2.0)),
}
MEMBERS = 5
PASSES = MEMBERS  # with dropout
SEED_STRIDE = 1000  # from one member's seed to the next one's
SLOWER = MEMBERS  # the rival of the same compute: so many times the updates
LONG = f"{SLOWER} × the updates"
# Of Laplace's prior, to choose from on the fitting subjects.
PRECISIONS = (1e-3, 0.01, 0.1, 1.0, 10.0, 100.0, 1e3, 1e4)
TINY = 1e-30  # a probability below this counts as this
KINDS = ("known", "rare", "tail", "contested", "never")


# --- Items of all kinds ---------------------------------------------------------------


def kind_of(fact: Fact) -> str:
    """Which of ``KINDS`` a fact is: "never" was not stated, if only because it is made
    up; of a contested fact the statements disagree; the others by how often they were
    stated: "tail" up to 5 times, "rare" up to 99 times, "known" more often."""
    if fact.contested:
        return "contested"
    if not fact.exposure:
        return "never"
    if fact.exposure <= TAIL:
        return "tail"
    return "rare" if fact.exposure < KNOWN_FROM else "known"


def draw_balanced(splits: tuple, per_kind: int, seed: int) -> tuple[Item, ...]:
    """Items of as many facts of each of ``KINDS``, of a kind with fewer all.

    Args:
        splits: see ``artifacts.subjects``.
        per_kind: facts of each kind.
        seed: draws the facts, the wordings and the options.
    """
    items = draw_items(splits, 1, seed)
    rng = stream(seed, f"facts of each kind, {' and '.join(splits)}")
    kinds = np.array([kind_of(item.fact) for item in items])
    chosen = [rng.permutation(np.flatnonzero(kinds == k))[:per_kind] for k in KINDS]
    return tuple(items[i] for i in np.concatenate(chosen))


def encode_answers(
    tokenizer, items: Sequence[Item], every_option: bool = False
) -> list:
    """Each item's question with its right answer, in tokens, or with every option."""
    return encode(
        tokenizer,
        [
            {"prompt": item.question, "completion": f"{option}."}
            for item in items
            for option in (item.options if every_option else [item.options[item.right]])
        ],
    )


# --- One run, asked at its checkpoints ------------------------------------------------


def train_on_answers(
    items: Sequence[Item],
    *,
    loss: str,
    seed: int,
    base: str,
    checkpoints: Sequence[int],
    rate: float = 0.0,
    slower: int = 1,
) -> tuple:
    """A base model learns the answers to some questions, over and over: ``model``,
    ``tokenizer`` and the states of the weights at the checkpoints.

    Args:
        items: what it learns from, on 16 of them an update.
        loss: one of ``STEPS``.
        seed: of the order of the items, and of dropout.
        base: the model to start from, see ``models.base.base_path``.
        checkpoints: updates after which the weights are kept, rising; the last of them
            ends the run. The learning rate is constant, so that each of them is as if
            the run had ended there.
        rate: of dropout while training; higher drops more, 0 is none.
        slower: take so many times the updates, at a learning rate that is so many times
            lower.

    Raises:
        ValueError: if there is no such loss.
    """
    if loss not in STEPS:
        raise ValueError(f"loss is {loss!r}; it can be one of {tuple(STEPS)}")
    model, tokenizer = trainable_base(base)
    states, kept = [], {slower * step for step in checkpoints}

    def step(model, batch):
        with dropout(model, rate):
            return STEPS[loss](model, batch)

    def keep(row: dict) -> None:
        if row["step"] in kept:
            trained = ((k, v) for k, v in model.named_parameters() if v.requires_grad)
            states.append({k: v.detach().clone() for k, v in trained})

    examples = encode_answers(tokenizer, items)
    train(
        model,
        batches(examples, BATCH, seed, tokenizer.pad_token_id),
        step if rate else STEPS[loss],
        steps=slower * checkpoints[-1],
        learning_rate=learning_rate("tasks", base) / slower,
        schedule="constant",
        seed=seed,
        progress=False,
        on_log=keep,
    )
    return model, tokenizer, states


def run_arm(
    *,
    seed: int,
    member: int = 0,
    per_kind: int,
    held_out: int,
    laplace: bool = False,
    rate: float = 0.0,
    **recipe,
) -> dict:
    """A run of :func:`train_on_answers` on the held-out items.

    Args:
        seed: of the items to learn from and to be asked about.
        member: of the ensemble; another one sees the same items in another order.
        per_kind, held_out: facts of each kind to learn from, and to be asked about.
        laplace: also predict with a Gaussian around the gain of the last layer.
        rate: of dropout; above 0, also predict with it.
        recipe: the other arguments of :func:`train_on_answers`.

    Returns:
        ``artifacts.labels`` with ``kind``; ``log_probs`` of the options, in nats,
        (checkpoints, items, options); ``best``, the index of the checkpoint to stop at
        by :func:`best_checkpoint`; and as predicted by the model stopped there, each
        (..., items, options): ``passes``, in ``PASSES`` passes with dropout, and
        ``laplace`` and ``isotropic``, see :func:`laplace_predictions`.
    """
    learned = draw_balanced(("train",), per_kind, seed)
    items = draw_balanced(HELD_OUT, held_out, seed)
    order = seed + SEED_STRIDE * member
    model, tokenizer, states = train_on_answers(
        learned, seed=order, rate=rate, **recipe
    )
    row = labels(items) | {"kind": [kind_of(item.fact) for item in items]}
    log_probs = [log_probs_of(load(model, s), tokenizer, items) for s in states]
    row |= {"log_probs": rounded(log_probs), "best": best_checkpoint(log_probs, row)}
    load(model, states[row["best"]])
    if rate:
        predict = partial(log_probs_of, tokenizer=tokenizer, items=items)
        options = dict(n_passes=PASSES, rate=rate, seed=order)
        row["passes"] = rounded(mc_dropout(model, predict, **options))
    if laplace:
        gaussians = laplace_predictions(model, tokenizer, learned, items)
        row |= {name: rounded(log_probs) for name, log_probs in gaussians.items()}
    return row


def best_checkpoint(log_probs: Sequence, row: Mapping) -> int:
    """The index of the checkpoint with the lowest log loss on the fitting subjects.

    Args:
        log_probs: of the options, (checkpoints, items, options).
        row: with ``right`` and ``test``, see ``artifacts.labels``.
    """
    fitting, right = ~np.array(row["test"]), np.array(row["right"])
    p = softmax(np.array(log_probs)[:, fitting], axis=2)
    return int(np.argmin([negative_log_likelihood(q, right[fitting]) for q in p]))


@torch.no_grad()
def load(model: nn.Module, state: Mapping) -> nn.Module:
    """The model, with these of its weights in place."""
    for name, parameter in model.named_parameters():
        if name in state:
            parameter.copy_(state[name])
    return model


def log_probs_of(model, tokenizer, items) -> Float[np.ndarray, "items options"]:
    return np.array(ask(model, tokenizer, items)["log_probs"])


def rounded(log_probs) -> list:
    return np.round(log_probs, 3).tolist()


# --- Laplace --------------------------------------------------------------------------


def laplace_predictions(
    model, tokenizer, learned: Sequence[Item], items: Sequence[Item]
) -> dict[str, Float[np.ndarray, "precisions items options"]]:
    """Log-probabilities of the options of ``items`` under a Gaussian around the last
    layer's gain, for each of ``PRECISIONS``: ``laplace``, as wide in each direction as
    training on ``learned`` left open, and ``isotropic``, the prior alone, as wide in
    all of them."""
    known = gain_gradients(model, tokenizer, learned)
    p = softmax(log_probs_of(model, tokenizer, learned), axis=1)
    gradients = gain_gradients(model, tokenizer, items)
    logits = log_probs_of(model, tokenizer, items)
    results = {"laplace": [], "isotropic": []}
    for precision in PRECISIONS:
        covariances = {
            "laplace": laplace_covariance(known, p, precision),
            "isotropic": np.eye(known.shape[2]) / precision,
        }
        for name, covariance in covariances.items():
            mean = laplace_probabilities(gradients, logits, covariance)
            results[name].append(np.log(np.maximum(mean, TINY)))
    return {name: np.array(rows) for name, rows in results.items()}


@torch.no_grad()
def gain_gradients(
    model, tokenizer, items: Sequence[Item]
) -> Float[np.ndarray, "items options width"]:
    r"""The gradient of each option's log-probability with respect to a gain s, a number
    for each feature h that the last layer W reads, at s = 1.

    .. math:: z_t = W (s \odot h_t), \qquad
        \frac{\partial \ell_k}{\partial s}
        = \sum_t h_t \odot \big( W_{o_t} - \textstyle\sum_v p_{tv} W_v \big)

    The sum is over the option's tokens, p the model's probabilities of each next token.
    """
    encoded = encode_answers(tokenizer, items, every_option=True)
    weight = model.get_output_embeddings().weight
    rows = []
    for start in range(0, len(encoded), 256):
        chunk = encoded[start : start + 256]
        batch = {k: v.to(weight.device) for k, v in collate(chunk, 0).items()}
        hidden = (
            plain_model(model)
            .base_model(batch["input_ids"], attention_mask=batch["attention_mask"])
            .last_hidden_state
        )
        predicted = batch["mask"][:, 1:].bool()
        h, token = hidden[:, :-1][predicted], batch["input_ids"][:, 1:][predicted]
        slope = h * (weight[token] - (h @ weight.T).softmax(1) @ weight)
        row = predicted.nonzero()[:, 0]
        rows.append(torch.zeros(len(chunk), h.shape[1]).to(h).index_add(0, row, slope))
    return torch.cat(rows).view(len(items), -1, rows[0].shape[1]).cpu().numpy()


# --- All runs -------------------------------------------------------------------------


def calls(
    *,
    seeds: Sequence[int],
    base: str,
    per_kind: int,
    held_out: int,
    checkpoints: Sequence[int],
) -> dict[str, list[Call]]:
    """The runs of notebook 08's sections 4 and 5, for ``study.arms.run_groups``.

    Args:
        seeds: each draws its own items.
        base, per_kind, held_out, checkpoints: see :func:`run_arm`.

    Returns:
        One run a seed by the name of its loss; "dropout"; "5 × the updates", at a fifth
        of the learning rate; "member 2" to "member 5". The first member is the run by
        cross-entropy.
    """
    common = dict(base=base, per_kind=per_kind, held_out=held_out)
    common["checkpoints"] = list(checkpoints)
    recipes = {LONG: dict(loss=PLAIN, slower=SLOWER), PLAIN: dict(laplace=True)}
    recipes |= {loss: {} for loss in STEPS if loss != PLAIN}
    recipes["dropout"] = dict(loss=PLAIN, rate=DROPOUT)
    for number in range(1, MEMBERS):
        recipes[f"member {number + 1}"] = dict(loss=PLAIN, member=number)
    return {
        name: [
            (run_arm, {"seed": seed, "loss": name, **recipe, **common})
            for seed in seeds
        ]
        for name, recipe in recipes.items()
    }
