"""A closer look at what DPO does to pairs: how likely chosen and rejected replies are
along a run, seen and unseen, and which pairs pull at its end.

Beside DPO stand a run without the weight of its gradient, DPO-positive, which holds the
chosen replies up, and DPO after SFT on chosen replies.
"""

import copy
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from scipy.special import expit
from scipy.stats import spearmanr
from torch import nn

from alignlab.models.pairs import EncodedPair, pack, pair_log_probs
from alignlab.objectives.preference import dpo_loss
from alignlab.plots.style import interval_line, series_style
from alignlab.seeds import stream
from alignlab.study.chains import Chain
from alignlab.study.optimising import DPO_RECIPE, Looks, run_dpo
from alignlab.study.scale import scaled
from alignlab.training.pairs import encode_pairs, log_probs_of
from alignlab.training.sft import finetune

EVALUATIONS = 8  # of the pairs that are followed, spread evenly over a run
LOOKS = (0.5, 1.0)  # shares of a run after which replies are sampled
SFT_BATCH = 8
LOSSES: Mapping[str, str] = {
    "DPO": "sigmoid",
    "unweighted": "unweighted",
    "DPOP": "dpop",
    "SFT first": "sigmoid",
}

# --- The arm --------------------------------------------------------------------------


def closer_arm(
    *,
    chain: dict,
    n_used: int,
    follow: int,
    n: int,
    loss_type: str,
    sft_steps: int = 0,
) -> dict:
    """One pass over comparisons, with all else as in ``DPO_RECIPE``.

    Args:
        chain: arguments of :class:`alignlab.study.chains.Chain`.
        n_used: comparisons to learn from; the chain's others are for SFT.
        follow: how many of these, and as many about unseen subjects, are evaluated
            along the way. The labels of the unseen ones are all right.
        n: replies to each test request at a look.
        loss_type: of :func:`alignlab.training.dpo.train_dpo`.
        sft_steps: of SFT on the chosen replies of other comparisons, before DPO; the
            policy after them is then the reference. More make those likelier.

    Returns:
        What :func:`alignlab.study.optimising.run_dpo` does, its KL to the chain's
        reference. Its history also has the evaluations, see :func:`displacement`.
        ``gradients``, see :func:`pair_gradients`, of the unseen pairs at the end, or
        None if the run was stopped.
    """
    link = Chain(**chain)
    drawn = stream(link.seed, "DPO pairs").permutation(link.n_pairs)
    pairs = [link.comparisons()[i] for i in drawn]
    pairs, others = pairs[:n_used], pairs[n_used:]
    unseen = link.held_out_comparisons(follow, flips=0.0)
    policy, tokenizer = link.policy()
    settings = {**DPO_RECIPE, "loss_type": loss_type}
    settings["learning_rate"] = scaled(DPO_RECIPE["learning_rate"], link.base)
    if sft_steps:
        options = dict(learning_rate=settings["learning_rate"], seed=link.seed)
        imitate_chosen(policy, tokenizer, others, steps=sft_steps, **options)
    reference = copy.deepcopy(policy)
    steps = max(1, len(pairs) // settings["batch_size"])
    due = [max(1, round(share * steps)) for share in LOOKS]
    result = run_dpo(
        policy,
        tokenizer,
        pairs,
        Looks(link, due, n),
        seed=link.seed,
        steps=steps,
        eval_pairs={"train": pairs[:follow], "held_out": unseen},
        eval_every=max(1, steps // EVALUATIONS),
        **settings,
    )
    result["gradients"] = None
    if result["stopped"] is None:
        gradients = pair_gradients(
            policy, reference, tokenizer, unseen, settings["beta"]
        )
        result["gradients"] = gradients
    return result


def imitate_chosen(
    policy: nn.Module, tokenizer, pairs: Sequence[Mapping], **options
) -> None:
    """SFT, in place, on the chosen replies of pairs; ``steps``, ``learning_rate`` and
    ``seed`` are those of ``training.sft.finetune``."""
    examples = [dict(prompt=p["prompt"], completion=p["chosen"]) for p in pairs]
    finetune(
        policy,
        tokenizer,
        examples,
        batch_size=SFT_BATCH,
        progress=False,
        **options,
    )


def pair_gradients(
    policy, reference, tokenizer, pairs: Sequence[Mapping], beta: float
) -> dict[str, list[float]]:
    """DPO's gradient of each pair by itself.

    Returns:
        A number for each pair: ``margin`` h, the difference of its log-ratios in nats;
        ``length``, the norm of the gradient of its loss over all
            trained parameters.
    """
    encoded = encode_pairs(tokenizer, pairs)
    ref = torch.stack(log_probs_of(reference, encoded, tokenizer.pad_token_id))
    margins, lengths = zip(
        *(
            _pair_gradient(policy, pair, ref[:, [number]], tokenizer, beta)
            for number, pair in enumerate(encoded)
        ),
        strict=True,
    )
    return {"margin": list(margins), "length": list(lengths)}


def _pair_gradient(
    policy, pair: EncodedPair, ref: torch.Tensor, tokenizer, beta: float
) -> tuple[float, float]:
    """Margin and length of the gradient of a pair, ref its (2, 1) log-probabilities."""
    packed = pack([pair], tokenizer.pad_token_id)
    packed = {name: values.to(policy.device) for name, values in packed.items()}
    log_probs = torch.stack(pair_log_probs(policy, packed))
    ref = ref.to(policy.device)
    ratios = log_probs.detach() - ref
    parameters = [p for p in policy.parameters() if p.requires_grad]
    loss = dpo_loss(*log_probs, *ref, beta).sum()
    slopes = torch.autograd.grad(loss, parameters)
    length = torch.stack([slope.norm() for slope in slopes]).norm()
    return (ratios[0] - ratios[1]).item(), length.item()


def calls(
    *, chains: Sequence[dict], n_used: int, follow: int, sft_steps: int, n: int
) -> dict[str, list[tuple]]:
    """The arms of the closer look by kind, for ``alignlab.study.arms.run_groups``; see
    :func:`closer_arm`. Only "SFT first" begins with SFT."""
    common = dict(n_used=n_used, follow=follow, n=n)
    groups: dict[str, list[tuple]] = {}
    for kind, loss_type in LOSSES.items():
        own = dict(loss_type=loss_type, **common)
        if kind == "SFT first":
            own["sft_steps"] = sft_steps
        groups[kind] = [(closer_arm, dict(chain=chain, **own)) for chain in chains]
    return groups


# --- From rows to numbers -------------------------------------------------------------


def displacement(row: Mapping) -> dict[str, list[float]]:
    """The evaluations along a run of :func:`closer_arm`, the reference itself first.

    Returns:
        ``pairs`` learnt from so far, and for each split, "train" or "held_out", mean
        log-ratios in nats a reply (``held_out/chosen``, ``held_out/rejected``) and
        ``held_out/accuracy``, the share of pairs with a margin above 0.
    """
    history = row["history"]
    seen = [i for i, x in enumerate(history["held_out/accuracies"]) if x is not None]
    series = {
        "pairs": [0] + [history["step"][i] * DPO_RECIPE["batch_size"] for i in seen]
    }
    for split in ("train", "held_out"):
        for side in ("chosen", "rejected"):
            ratios = history[f"{split}/log_ratios/{side}"]
            series[f"{split}/{side}"] = [0.0] + [ratios[i] for i in seen]
        accuracies = history[f"{split}/accuracies"]
        series[f"{split}/accuracy"] = [0.5] + [accuracies[i] for i in seen]
    return series


def at_end(rows: Sequence[Mapping], name: str) -> list[float]:
    """For each run the last value of one of the series of :func:`displacement`."""
    return [displacement(row)[name][-1] for row in rows]


def weights(row: Mapping) -> np.ndarray:
    r"""Of each unseen pair at the end of a run, :math:`\sigma(-\beta h)`: how probable
    the policy finds the wrong order."""
    return expit(-DPO_RECIPE["beta"] * np.array(row["gradients"]["margin"]))


def rank_correlation(row: Mapping) -> float:
    """Spearman's, of the weights of unseen pairs with the lengths of their
    gradients."""
    return float(spearmanr(weights(row), row["gradients"]["length"]).statistic)


def gold_minus(rows: Sequence[Mapping], others: Sequence[Mapping]) -> list[float]:
    """Gold at the last look, of runs minus other runs on the same chains."""
    golds = [_gold_by_seed(group) for group in (rows, others)]
    return [golds[0][seed] - golds[1][seed] for seed in golds[0]]


def _gold_by_seed(rows: Sequence[Mapping]) -> dict[int, float]:
    return {row["chain"]["seed"]: row["points"][-1]["gold"] for row in rows}


# --- Figures --------------------------------------------------------------------------


def log_ratios(groups: Mapping[str, Sequence[Mapping]]):
    """Log-ratios of chosen and rejected replies along runs: a column of panels for each
    kind of run, trained pairs above and unseen ones below. All columns but that of
    "unweighted", which stands last, have one scale."""
    kinds = [kind for kind in groups if kind != "unweighted"]
    kinds += ["unweighted"] if "unweighted" in groups else []
    figure, panels = plt.subplots(
        2, len(kinds), figsize=(3.1 * len(kinds), 6), squeeze=False, sharey="col"
    )
    for column, kind in zip(panels.T, kinds, strict=True):
        series = [displacement(row) for row in groups[kind]]
        for axes, split in zip(column, ("train", "held_out"), strict=True):
            for number, side in enumerate(("chosen", "rejected")):
                lines = [by_name[f"{split}/{side}"] for by_name in series]
                interval_line(axes, series[0]["pairs"], lines, side, color=number)
            axes.axhline(0, color="0.6", linewidth=1)
            axes.set_xlim(0, series[0]["pairs"][-1])
        column[0].set_title(kind, fontsize=13)
        column[1].set_xlabel("comparisons seen")
    common = panels[0, : len(kinds) - ("unweighted" in groups)]
    ends = [axes.get_ylim() for axes in common]
    for axes in common:
        axes.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
    for axes, what in zip(panels[:, 0], ("pairs learnt from", "unseen pairs")):
        axes.set_ylabel(f"{what}:\nlog(π / π_ref), nats a reply")
    panels[0, 0].legend(fontsize=10)
    figure.suptitle("Do chosen replies become likelier?", fontweight="bold")
    return figure


def pulls(rows: Sequence[Mapping]):
    """Length of every unseen pair's gradient at the end of DPO against the pair's
    weight, and the two factors apart: right, the length without the weight."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 3.8))
    for number, row in enumerate(rows):
        style = series_style(number, "color", "marker")
        style |= dict(linestyle="", alpha=0.5, markersize=5)
        weight, length = weights(row), np.array(row["gradients"]["length"])
        label = f"seed {row['chain']['seed']}"
        panels[0].plot(weight, length, label=label, **style)
        panels[1].plot(weight, length / (DPO_RECIPE["beta"] * weight), **style)
    for axes in panels:
        axes.axvline(0.5, color="0.6", linewidth=1)
        axes.set_xlabel("weight σ(-β margin); line: before training")
        axes.set_ylim(bottom=0)
    panels[0].set(ylabel="|gradient of the loss|", title="How hard a pair pulls")
    panels[1].set(
        ylabel="|gradient of the margin|", title="The same without the weight"
    )
    panels[0].legend(fontsize=10)
    return figure
