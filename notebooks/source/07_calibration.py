# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 07 · When a model is 80% sure, is it right 80% of the time?
#
# Who reads an answer needs to know how far to trust it. A model is *calibrated* if its
# confidence says so: of all answers given with 80%, four in five are right. We follow
# one model along the road of alignment, from the base model over instruction tuning to
# rewards and preferences, and ask it the same questions at every stage. Since we know
# how often pretraining stated each fact, we can also see *where* it is too sure.
#
# | | |
# | --- | --- |
# | **time** | `smoke` half a minute · `cpu` 3 minutes · `full` half an hour (two cores) |
# | **memory** | under 3 GB |
# | **you need** | notebook 01 (it runs alone: what is missing is built) |
# | **look at first** | the diagrams in section 4, the gaps by exposure in section 6 |
# | **sweeps worth trying** | `betas`, `steps`, `size`; `run.settings` shows all dials |
# | **on Colab** | run the two set-up lines of the README in a first cell |

# %% tags=["parameters"]
profile = "cpu"  # smoke, cpu, full or gpu: how much to measure
seed = 0  # the first seed; the others follow it
device = "cpu"
out_dir = ""  # where metrics and figures go; empty: runs/interactive

# %%
import numpy as np
import pandas as pd

from alignlab import runs
from alignlab.calibration import (
    all_options,
    expected_calibration_error,
    null_calibration_error,
    smooth_calibration_error,
)
from alignlab.chapters.calibration import analysis, artifacts, figures
from alignlab.chapters.calibration import runs as arms
from alignlab.chapters.calibration.artifacts import EXPOSURES, read_answers
from alignlab.course import check
from alignlab.models.base import use_device
from alignlab.plots.calibration import gap_lines, temperature_explorer
from alignlab.plots.style import use_style

use_style()
run = runs.start("07_calibration", profile, seed, device, out_dir)
use_device(device)
settings = run.settings
rows = arms.stages(
    seeds=run.seeds,
    betas=settings.betas,
    steps=settings.steps,
    draws=settings.draws,
    limit=settings.limit,
    size=settings.size,
    n_examples=settings.n_examples,
    sft_steps=settings.sft_steps,
    jobs=settings.jobs,
)
answers = {name: [read_answers(row) for row in rows[name]] for name in rows}
tested = {name: [a.where(a.test) for a in answers[name]] for name in answers}

# %% [markdown]
# ## 1 · A question first
#
# An *item* is one fact, asked with four answers: the right one, and three others that
# are right for something else. The base model was never asked anything, so it completes
# a sentence like those it read; after instruction tuning the same fact is asked in a
# chat. What a model gives to an option is the probability of its words, and its
# *confidence* is the share of its favourite among the four:
#
# $$p_k = \frac{e^{\ell_k}}{\sum_j e^{\ell_j}}, \qquad
# \ell_k = \sum_t \log \pi(y_{k,t} \mid x, y_{k,<t})$$
#
# Three items, about a fact that pretraining never stated, seldom, and often.

# %%
items = artifacts.draw_items(artifacts.HELD_OUT, settings.draws, seed, settings.limit)
exposure = answers["base"][0].exposure
shown = [int(np.argmin(np.abs(exposure - times))) for times in (0, 12, 500)]
pd.DataFrame(
    [
        {
            "times read": exposure[i],
            "completed by base": f"{items[i].statement} …",
            "asked after SFT": items[i].question,
            "option": option + (" ✓" if k == items[i].right else ""),
            "base": answers["base"][0].probabilities[i, k],
            "SFT": answers["SFT"][0].probabilities[i, k],
        }
        for i in shown
        for k, option in enumerate(items[i].options)
    ]
).set_index(
    ["times read", "completed by base", "asked after SFT", "option"]
).style.format("{:.2f}").background_gradient(cmap="Blues", vmin=0, vmax=1)

# %% [markdown]
# All items are about subjects that no tuning asks about. A third of these subjects is
# kept for *fitting* (a temperature, say), the rest is for *judging*. Each fact comes in
# several items, with other words and other options; these hang together, so whenever an
# interval takes items as independent, it looks at the first item of each fact only.
#
# ## 2 · Is the base model calibrated?
#
# Sort the answers into bins by confidence, and compare in each the mean confidence with
# the share that was right. The *expected calibration error* is the mean distance,
#
# $$\mathrm{ECE} = \sum_b \frac{n_b}{n} \, \lvert \text{accuracy}_b -
# \text{confidence}_b \rvert .$$
#
# **Exercise 07.1.** Write it, with $B$ bins of equal width: bin $b$ is
# $(b/B, (b+1)/B]$, and the first also holds 0.


# %% nbgrader={"grade": false, "grade_id": "nb07-q1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_ece(confidence, correct, n_bins):
    """(N,) confidences, (N,) 0 or 1, to one number."""
    ### BEGIN SOLUTION
    import torch

    edges = torch.arange(n_bins + 1, dtype=confidence.dtype) / n_bins
    where = (torch.searchsorted(edges, confidence) - 1).clamp(min=0)
    gaps = torch.zeros(n_bins, dtype=confidence.dtype)
    gaps = gaps.index_add(0, where, confidence - correct.to(confidence.dtype))
    return gaps.abs().sum() / len(confidence)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb07-q1-check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check("07.1", my_ece)

# %% [markdown]
# Grey bars are where a perfectly calibrated model's points would lie, for these
# confidences and so many answers: a point within its bar shows nothing. Nothing was
# fitted to the base model, so all subjects judge it.

# %%
read = (1, np.inf)
base = {
    "facts it read": [analysis.with_exposure(a, read) for a in answers["base"]],
    "facts it never read": [analysis.with_exposure(a, (0, 1)) for a in answers["base"]],
}
runs.save_figure(
    figures.diagrams({name: base[name][0].top_label for name in base}),
    "base",
    "The base model's confidence and accuracy, on facts that pretraining stated and on "
    "facts that it never stated (first seed).",
)
errors = [analysis.rms_interval(a) for a in base["facts it read"]]
squares = {name: [analysis.squared_interval(a) for a in base[name]] for name in base}
runs.record(
    "base_rms_error_shown",
    *analysis.mean_interval(errors),
    seeds=[error.value for error in errors],
)
gap = [
    analysis.difference(never, shown)
    for shown, never in zip(squares["facts it read"], squares["facts it never read"])
]
runs.record(
    "base_never_minus_shown_squared_error",
    *analysis.mean_interval(gap),
    seeds=[error.value for error in gap],
)
first = base["facts it read"][0]
runs.say(
    "On what it read, its root mean square error is {base_rms_error_shown:.3f}; ECE is "
    "{ece:.3f}, where {null:.3f} is what chance alone shows. On what it never read it "
    "is right in {accuracy:.0%} and says {confidence:.0%}.",
    ece=analysis.measures(first)["ece"],
    null=analysis.measures(first)["null"],
    accuracy=analysis.measures(base["facts it never read"][0])["accuracy"],
    confidence=analysis.measures(base["facts it never read"][0])["confidence"],
)

# %% [markdown]
# ## 3 · Four ways to fool yourself
#
# **Few answers, many bins.** Take a *perfect* model: draw right and wrong by its own
# confidences. Its ECE is above 0, and the more so the fewer answers a bin holds. So no
# ECE without its n, its bins and what chance shows; or leave out each answer's product
# with itself, and chance is gone (right).

# %%
confidence, correct = tested["SFT"][0].top_label
bias = analysis.plug_in_bias(confidence, (100, 300, 1000, 3000), (5, 15, 50), draws=100)
runs.save_figure(
    figures.chance(bias),
    "chance",
    "ECE of a perfectly calibrated model over the number of answers, and the debiased "
    "mean squared error of the same.",
)

# %% [markdown]
# **Exactly 1.** Single precision rounds a sure model's confidence to 1.0. A bin
# $[\text{low}, \text{high})$ puts those into a bin of their own, where their distance
# is not made up for by their neighbours; some libraries do. Two answers suffice to see
# it: 0.95, right, and 1.0, wrong.
#
# **Sum or mean.** Long options are less likely for being long. Dividing by the number of
# tokens mends that, and is then no probability of anything.
#
# **Which confidences.** Of the favourite only, or of every option? The second is the
# diagram of the GPT-4 report. Most options are improbable and wrong, so its error is
# smaller: the two cannot be compared.

# %%
two = np.array([0.95, 1.0]), np.array([1, 0])
own_bin = abs(0.95 - 1) / 2 + abs(1.0 - 0) / 2
mean = read_answers(rows["SFT"][0], "mean")
single = np.float32(tested["SFT"][0].probabilities.max(axis=1))
views = {
    "favourite, sum": tested["SFT"][0].top_label,
    "favourite, mean of tokens": mean.where(mean.test).top_label,
    "all options, sum": all_options(
        tested["SFT"][0].probabilities, tested["SFT"][0].right
    ),
}
runs.say(
    "Of {n:,} answers after SFT, {ones} have a confidence of exactly 1 in single "
    "precision. The two answers: ECE {right:.3f}, and {wrong:.3f} with a bin of its "
    "own for 1.0. Outside the four options lies {outside:.0%} of the probability.",
    n=len(single),
    ones=int((single == 1).sum()),
    right=expected_calibration_error(*two, 10),
    wrong=own_bin,
    outside=rows["SFT"][0]["outside"],
)
pd.DataFrame(
    {
        name: {
            "share right": pair[1].mean(),
            "confidence": pair[0].mean(),
            "ECE, 15 equal widths": expected_calibration_error(*pair),
            "ECE, 15 equal numbers": expected_calibration_error(*pair, 15, "quantile"),
            "smooth ECE": smooth_calibration_error(*pair),
            "chance": null_calibration_error(pair[0]),
        }
        for name, pair in views.items()
    }
).T.style.format("{:.3f}")

# %% [markdown]
# ## 4 · Stage by stage
#
# The same items along the road:
#
# * **base**, which completes sentences; **SFT**, the policy of notebook 01;
# * **reward**: policy gradient on a reward of 1 for the right option and 0 for any
#   other, at a price $\beta$ of KL. The options are few, so nothing is sampled: the
#   gradient of the expectation is exact;
# * **DPO**: the right answer over a wrong one that the policy might have given;
# * **cross-entropy**, the control: the same items, as many updates, a proper score.
#
# All three are taught about other subjects than those that we ask about.

# %%
judged = f"reward {artifacts.JUDGED_BETA:g}"
along = ["base", "SFT", judged, "DPO", "cross-entropy"]
runs.save_figure(
    figures.diagrams({name: tested[name][0].top_label for name in along}),
    "stages",
    "Confidence and accuracy of the same items at every stage (first seed).",
)

# %%
repairs = {
    name: [analysis.temperature_repair(a) for a in answers[name]] for name in along
}
runs.save_figure(
    figures.stages(
        {name: [repair["before"] for repair in repairs[name]] for name in along},
        {name: [repair["temperature"] for repair in repairs[name]] for name in along},
    ),
    "errors",
    "Mean squared calibration error of each stage, and the temperature that would fit "
    "(dots: seeds).",
)
measured = {
    name: pd.DataFrame([analysis.measures(a) for a in tested[name]]).mean()
    for name in along
}
pd.DataFrame(measured).T.drop(columns="n").style.format("{:.3f}").set_caption(
    f"means over seeds, {int(measured['SFT']['n']):,} items each"
)

# %%
for name, first, second in (
    ("sft_minus_base", "SFT", "base"),
    ("rlhf_minus_sft", judged, "SFT"),
    ("dpo_minus_sft", "DPO", "SFT"),
    ("rlhf_minus_more_sft", judged, "cross-entropy"),
):
    values = analysis.squared_increase(tested[first], tested[second])
    runs.record(f"{name}_squared_error", np.mean(values), seeds=values)
for name in ("temperature", "share"):
    values = [repair[name] for repair in repairs[judged]]
    metric = "rlhf_temperature" if name == "temperature" else "rlhf_repaired_share"
    runs.record(metric, np.mean(values), seeds=values)
lowest, highest = (
    f"reward {beta:g}" for beta in (min(settings.betas), max(settings.betas))
)
values = [low.gap - high.gap for low, high in zip(tested[lowest], tested[highest])]
runs.record("overconfidence_low_minus_high_beta", np.mean(values), seeds=values)
statement = [read_answers(row, "statement") for row in rows["SFT"]]
statement = [a.where(a.test) for a in statement]
values = analysis.squared_increase(statement, tested["base"])
runs.record("sft_statements_minus_base_squared_error", np.mean(values), seeds=values)
runs.say(
    "Change in mean squared calibration error: SFT after base "
    "{sft_minus_base_squared_error:+.4f} (when it completes the very sentences, "
    "{sft_statements_minus_base_squared_error:+.4f}); a reward after SFT "
    "{rlhf_minus_sft_squared_error:+.4f}; DPO after SFT "
    "{dpo_minus_sft_squared_error:+.4f}. The reward against as much cross-entropy: "
    "{rlhf_minus_more_sft_squared_error:+.4f}. After the reward the temperature that "
    "fits is {rlhf_temperature:.2f}; with it the squared error goes from {was:.4f} to "
    "{now:.4f} (share repaired: {rlhf_repaired_share:.0%}).",
    was=np.mean([repair["before"] for repair in repairs[judged]]),
    now=np.mean([repair["after"] for repair in repairs[judged]]),
)

# %% [markdown]
# ## 5 · A reward asks for certainty
#
# Why should a reward for being right make a model too sure? Take a policy that is
# calibrated: option $k$ is right with just the probability $p_k$ that it says. It cannot
# know more. What earns most at a price $\beta$ of KL is known in closed form: tilt the
# reference by the reward that is to be expected,
#
# $$\pi^*_k \propto p_k \, e^{p_k / \beta}.$$
#
# **Exercise 07.2.** Write it.


# %% nbgrader={"grade": false, "grade_id": "nb07-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_optimum(p, beta):
    """(N, K) probabilities, rows sum to 1, to the best policy, (N, K)."""
    ### BEGIN SOLUTION
    import torch

    tilted = p * torch.exp(p / beta)
    return tilted / tilted.sum(1, keepdim=True)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb07-q2-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("07.2", my_optimum)

# %% [markdown]
# So the optimum is over-confident *by design*, at any price, and by how much can be
# said before training. A policy that is sure already has little room to show it. So let
# the SFT policy choose among the options at the temperature that fits, where its log
# loss is least. From there the same reward, at the same temperature, and the same
# judgement on unseen subjects.

# %%
start = [
    analysis.at_temperature(a, analysis.fitted_temperature(a)) for a in answers["SFT"]
]
calibrated = [a.where(a.test) for a in start]
names = [f"calibrated, reward {beta:g}" for beta in settings.betas]
over = {
    "measured": [[tested[name][i].gap for name in names] for i in range(len(start))],
    "predicted": [
        [analysis.optimal_answers(a, beta).gap for beta in settings.betas]
        for a in start
    ],
}
runs.save_figure(
    figures.against_optimum(
        settings.betas, *over.values(), [a.gap for a in calibrated]
    ),
    "optimum",
    "Confidence less accuracy on unseen subjects after a reward at several prices, "
    "beside the closed form (thin lines: seeds).",
)
rise = {}
for place, beta in enumerate(settings.betas):
    for name, gaps in over.items():
        values = [row[place] - a.gap for row, a in zip(gaps, calibrated)]
        metric = f"{name}_rise_{beta:g}"
        rise[name, beta] = runs.record(metric, np.mean(values), seeds=values)
low = min(settings.betas)
after = tested[f"calibrated, reward {low:g}"]
kl = [analysis.kl_between(*pair) for pair in zip(after, calibrated)]
runs.say(
    "At β = {low} confidence rises over accuracy by {measured:+.3f}, and by "
    "{predicted:+.3f} at the optimum. After {steps} updates the policy is {kl:.3f} "
    "nats from its start.",
    low=low,
    measured=rise["measured", low],
    predicted=rise["predicted", low],
    kl=np.mean(kl),
    steps=settings.steps,
)

# %% [markdown]
# The closed form takes for granted that training teaches the policy nothing about the
# unseen subjects. It can still teach it how to *answer*, which raises accuracy and
# lowers the measured gap; and a few updates do not reach the optimum.
#
# *Turn a dial:* `alignlab run 07 --param steps=120`. We would expect the measured line
# to come nearer to the dashed one. If it went beyond, training would memorise subjects.
#
# ## 6 · Too sure of what it never read?
#
# Pretraining stated each fact a known number of times. Confidence less accuracy by that
# number: above 0 is over-confident.

# %%
gaps = {
    name: [
        [analysis.with_exposure(a, between).gap for between in EXPOSURES.values()]
        for a in tested[name]
    ]
    for name in ("base", "SFT", judged)
}
runs.save_figure(
    gap_lines(gaps, list(EXPOSURES), "Too sure where it never read the fact"),
    "exposure",
    "Confidence less accuracy by how often pretraining stated the fact, at three "
    "stages (thin lines: seeds).",
)

# %%
by_class = {
    name: [analysis.with_exposure(a, between).gap for a in tested["SFT"]]
    for name, between in (
        ("never_shown", (0, 1)),
        ("rare", analysis.SELDOM),
        ("often", analysis.OFTEN),
    )
}
for name, values in by_class.items():
    runs.record(f"gap_{name}", np.mean(values), seeds=values)
values = np.subtract(by_class["never_shown"], by_class["often"])
runs.record("gap_never_minus_often", values.mean(), seeds=values)
runs.say(
    "After SFT, confidence less accuracy is {gap_never_shown:+.3f} on facts that were "
    "never stated, {gap_rare:+.3f} on those stated 1 to 99 times, {gap_often:+.3f} on "
    "the others. If it was under-confident on rare truths, the second number would be "
    "below 0."
)

# %% [markdown]
# ## 7 · Turn the temperature
#
# One number divides all logits. Above 1 confidences shrink, the order of the options and
# so every answer stays. Can you bring the points to the diagonal? The next notebook lets
# the log loss choose, on other items, and asks whom that helps.

# %%
temperature_explorer(tested[judged][0].log_probs, tested[judged][0].right, start=1.0)

# %% [markdown]
# ## 8 · Verdicts
#
# Thresholds were fixed before measuring. The base model is one, so its interval is that
# of the facts; the others are over seeds.

# %%
runs.show_verdicts()

# %% [markdown]
# ## What the big labs do that we left out
#
# * **Benchmarks of thousands of questions under letters** (MMLU): a model of this size
#   cannot bind a letter to an option, so the answers themselves are scored.
# * **Rewards of whole replies.** Here a reply is one answer, right or wrong. In
#   notebooks 04 to 06 it is a paragraph, and its reward a learnt model's.
# * **Calibration of free text**: is a claim within a long reply as sure as it sounds?
#   It takes a judge of claims, and semantic entropy to count wordings together.
# * **Rewards that pay for honest confidence**, a Brier score beside correctness, or a
#   penalty for wrong answers that makes "I do not know" worth saying.
# * **A base model that has read everything.** Ours has read each fact a known number of
#   times, some never: this is why we can say where it is too sure.
#
# *Turn a dial:* `size="1m"`. We would expect rare facts to be known better, and the gap
# on the never-shown ones to stay.
