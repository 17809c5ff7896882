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
# Whoever reads an answer needs to know how far to trust it. A model is *calibrated* if
# its confidence says so: of all answers given with 80% confidence, four in five are
# right. We follow one model along the road of alignment, from the base model over
# instruction tuning to rewards and preferences, and ask it the same questions at every
# stage. We know how often pretraining stated each fact and, where statements disagree,
# which share of them says what. So we can say *where* a model is too sure, and how sure
# it ought to be.
#
# | | |
# | --- | --- |
# | **time** | `smoke` 20 seconds · `cpu` 3 minutes · `full` 45 minutes (two cores) |
# | **memory** | under 3 GB |
# | **you need** | notebook 01 (it runs alone: what is missing is built) |
# | **look at first** | the earnings in section 2, the three panels of section 5 |
# | **sweeps worth trying** | `betas`, `steps`, `model`; `run.settings` shows all settings |
# | **on Colab** | run the set-up cell below first |

# %% tags=["parameters"]
profile = "cpu"  # smoke, cpu, full or gpu: how much to measure
seed = 0  # the first seed; the others follow it
device = "cpu"
out_dir = ""  # where metrics and figures go; empty: runs/interactive

# %%
import numpy as np
import pandas as pd
import torch

from alignlab import runs
from alignlab.calibration import (
    all_options,
    expected_calibration_error,
    null_calibration_error,
    smooth_calibration_error,
)
from alignlab.chapters.calibration import analysis, artifacts, figures, tuning
from alignlab.chapters.calibration import runs as arms
from alignlab.chapters.calibration.artifacts import EXPOSURES, read_answers
from alignlab.course import check, hint
from alignlab.evaluation.intervals import reading, t_interval
from alignlab.models.base import is_shipped, use_device
from alignlab.models.options import option_log_probs
from alignlab.plots.calibration import (
    gap_lines,
    reliability_panels,
    temperature_explorer,
)
from alignlab.plots.style import use_style
from alignlab.seeds import stream
from alignlab.study.chains import chains
from alignlab.study.scale import rate
from alignlab.world.tasks import default_world

use_style()
run = runs.start("07_calibration", profile, seed, device, out_dir)
use_device(device)
settings = run.settings
taught = dict(
    base=settings.model,
    n_examples=settings.n_examples,
    sft_steps=settings.sft_steps,
    answer_steps=settings.answer_steps,
    limit=settings.limit,
)

# %% [markdown]
# All policies are trained here, side by side; what was trained before is read from the
# cache. The exercises need none of it and can be done first.

# %%
rows = arms.stages(
    seeds=run.seeds,
    betas=settings.betas,
    dpo_betas=settings.dpo_betas,
    steps=settings.steps,
    updates=settings.updates,
    draws=settings.draws,
    jobs=settings.jobs,
    **taught,
)
answers = {name: [read_answers(row) for row in rows[name]] for name in rows}
tested = {name: [a.where(a.test) for a in answers[name]] for name in answers}


def record_facts(name: str, table: np.ndarray):
    """Record the mean of a table of seeds and facts, both of which are samples."""
    return runs.record(name, table.mean(), items=table)


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
# Four items: a fact that pretraining never stated, one that it stated once, one that it
# stated often, and one that is *contested*: some statements give one answer (✓, it is
# right in the world), the others a rival (✗).

# %%
items = artifacts.draw_items(
    artifacts.HELD_OUT, settings.draws, run.seeds[0], settings.limit
)
exposure = answers["base"][0].exposure
contested = answers["base"][0].rival >= 0
shown = [
    int(np.argmin(np.abs(exposure - times) + 1e4 * contested)) for times in (0, 1, 400)
]
if contested.any():
    shown.append(int(np.argmax(contested)))
mark = {True: " ✓", False: ""}
pd.DataFrame(
    [
        {
            "times read": artifacts.times_read(items[i].fact),
            "completed by base": f"{items[i].statement} …",
            "asked after SFT": items[i].question,
            "option": option
            + (" ✓" if k == items[i].right else " ✗" if k == items[i].rival else ""),
            "base": answers["base"][0].probabilities[i, k],
            "SFT": answers["SFT"][0].probabilities[i, k],
        }
        for i in shown
        for k, option in enumerate(items[i].options)
    ]
).set_index(
    ["times read", "completed by base", "asked after SFT", "option"]
).style.format("{:.2f}").background_gradient(cmap="Blues", vmin=0, vmax=1)

# %%
of_sft = answers["SFT"][0]
text = (
    "On the fact that was never stated the SFT policy is {never:.0%} sure of its "
    "favourite, on the one stated once {once:.0%}, on the one stated often "
    "{often:.0%}. "
)
if contested.any():
    text += (
        "Of the statements about the contested one {share:.0%} give the same answer, "
        "and it is {contested:.0%} sure."
    )
runs.say(
    text,
    share=items[shown[-1]].belief.max(),
    **{
        name: of_sft.probabilities[i].max()
        for name, i in zip(("never", "once", "often", "contested"), shown)
    },
)

# %% [markdown]
# All items are about subjects that no tuning asks about. A third of these subjects is
# kept for *fitting* (a temperature, say), the rest is for *judging*. Whatever interval
# follows allows for two samples at once: other seeds, and other facts.
#
# ## 2 · What is confidence for?
#
# Suppose a right answer earns 1, a wrong one costs $c$, and “I do not know” earns
# nothing. An answer that is right with probability $p$ is worth $p - c\,(1-p)$, so
# whoever trusts the confidence answers where it is at least $c/(1+c)$: half at $c = 1$,
# 80% at $c = 4$. That is what calibration is worth: the rule needs no other knowledge.
#
# <details><summary>Predict: the SFT policy is surer than it is right. What does that
# cost where mistakes are cheap, and what where they are expensive?</summary>
# Where mistakes are cheap everything is answered anyway. Where they are expensive the
# policy answers what it should not: watch the line that believes it fall below the one
# that chooses its threshold in hindsight, and perhaps below 0, where silence is better.
# </details>

# %%
costs = np.linspace(0, 8, 33)
sft = [a.top_label for a in tested["SFT"]]
earned = {
    "believing the policy": [analysis.earnings(pair, costs) for pair in sft],
    "best threshold, in hindsight": [
        analysis.earnings(pair, costs, "best") for pair in sft
    ],
    "answering everything": [analysis.earnings(pair, costs, "none") for pair in sft],
}
runs.save_figure(
    figures.earnings(costs, earned),
    "earnings",
    "Mean earnings a question over the cost of a wrong answer, for who believes the "
    "SFT "
    "policy's confidence, who knows the best threshold, and who always answers (thin "
    "lines: seeds).",
)

# %%
at = int(np.argmin(np.abs(costs - 4)))
at_four = {name: np.array(lines)[:, at] for name, lines in earned.items()}
believing, best, everything = at_four.values()
lost = t_interval(best - believing)
runs.say(
    "Where a wrong answer costs 4, believing the policy earns {believing:+.2f} a "
    "question, the best threshold {best:+.2f}, answering everything "
    "{everything:+.2f}. {verdict}",
    believing=believing.mean(),
    best=best.mean(),
    everything=everything.mean(),
    verdict=(
        "It would be better to say nothing than to believe it."
        if believing.mean() < 0
        else "Believing it still beats saying nothing."
    )
    + f" Over-confidence costs {lost.value:.2f} of a right answer on each question.",
)

# %% [markdown]
# ## 3 · Is the base model calibrated?
#
# Sort the answers into bins by confidence, and compare in each the mean confidence with
# the share that was right. The *expected calibration error* is the mean distance,
#
# $$\mathrm{ECE} = \sum_b \frac{n_b}{n} \, \lvert \text{accuracy}_b -
# \text{confidence}_b \rvert .$$
#
# **Exercise 07.1** · ★★★ · 25 minutes · `hint("07.1")`
#
# Write it, with $B$ bins of equal width: bin $b$ is
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
# confidences and this many answers: a point within its bar shows nothing. Nothing was
# fitted to the base model, so all held-out subjects judge it.

# %%
classes = {
    "stated 6 times and more": [
        a.where((a.exposure > 5) | (a.rival >= 0)) for a in answers["base"]
    ],
    "stated 1 to 5 times": [analysis.with_exposure(a, (1, 6)) for a in answers["base"]],
    "never stated": [analysis.with_exposure(a, (0, 1)) for a in answers["base"]],
}
runs.save_figure(
    reliability_panels({name: a[0].top_label for name, a in classes.items()}),
    "base",
    "The base model's confidence and accuracy, on facts by how often pretraining "
    "stated "
    "them (first seed).",
)

# %%
often, seldom, never = (analysis.squared_table(a) for a in classes.values())
record_facts("base_often_squared_error", often)
record_facts("base_seldom_squared_error", seldom)
gap = analysis.difference_of_tables(never, often)
runs.record(
    "base_never_minus_often_squared_error",
    *gap,
    seeds=None if len(run.seeds) == 1 else list(never.mean(1) - often.mean(1)),
)
stated = [f.times or 0 for f in default_world().facts]
by_class = {name: analysis.measures(a[0]) for name, a in classes.items()}
runs.say(
    "On the facts that {share} of its statements were about, it is right in "
    "{right:.0%} and {sure:.0%} sure: its mean squared error is "
    "{base_often_squared_error:.4f} (root {root:.3f}). On those stated one to five "
    "times it is right in {tail_right:.0%} and {tail_sure:.0%} sure, on those never "
    "stated right in {never_right:.0%} and {never_sure:.0%} sure.",
    share=f"{sum(e for e in stated if e > 5) / sum(stated):.0%}"
    if is_shipped(settings.model)
    else "an unknown share",
    right=by_class["stated 6 times and more"]["accuracy"],
    sure=by_class["stated 6 times and more"]["confidence"],
    root=max(often.mean(), 0) ** 0.5,
    tail_right=by_class["stated 1 to 5 times"]["accuracy"],
    tail_sure=by_class["stated 1 to 5 times"]["confidence"],
    never_right=by_class["never stated"]["accuracy"],
    never_sure=by_class["never stated"]["confidence"],
)

# %% [markdown]
# ## 4 · Four ways to fool yourself
#
# **Few answers, many bins.** Take a *perfect* model: draw right and wrong by its own
# confidences. Its ECE is above 0, and the more so the fewer answers a bin holds. So
# report no ECE without its n, its bins and what chance alone would show. Or leave out
# each answer's product with itself, and what chance adds is gone (right). The squared
# errors of this notebook do that.

# %%
confidence, correct = tested["SFT"][0].top_label
bias = analysis.plug_in_bias(confidence, (100, 300, 1000, 3000), (5, 15, 50), draws=60)
runs.save_figure(
    figures.chance(bias),
    "chance",
    "ECE of a perfectly calibrated model over the number of answers, and the debiased "
    "mean squared error of the same.",
)

# %%
worst = max(bias, key=lambda row: row["ece"])
runs.say(
    "With {n} answers in {bins} bins a perfect model shows an ECE of {ece:.3f}; "
    "debiased, no setting shows more than {squared:.4f}, squared.",
    n=worst["n"],
    bins=worst["bins"],
    ece=worst["ece"],
    squared=max(abs(row["squared"]) for row in bias),
)

# %% [markdown]
# **Exactly 1.** Single precision rounds a sure model's confidence to 1.0. A bin
# $[\text{low}, \text{high})$ puts those into a bin of their own, where their distance
# is not made up for by their neighbours; some libraries do. Two answers suffice to see
# it: 0.95, right, and 1.0, wrong.
#
# **Sum or mean.** Long options are less likely for being long. Dividing by the number
# of tokens mends that, but gives the probability of nothing.
#
# **Which confidences.** Of the favourite only, or of every option? The second is the
# diagram of the GPT-4 report. Most options are improbable and wrong, so its error is
# smaller: the two cannot be compared. And all are shares *among the four options*: what
# the policy would say unasked lies mostly outside them.

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
    "favourite among all completions": analysis.open_top_label(tested["SFT"][0]),
}
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

# %%
runs.say(
    "The same {n:,} answers of the SFT policy have an ECE of {favourite:.3f} or "
    "{every:.3f}, by which confidence is meant. {ones} of them are exactly 1 in single "
    "precision; of the two answers above the ECE is {right:.3f}, or {wrong:.3f} with a "
    "bin of its own for 1.0. Asked without options, the policy says something else "
    "with a probability of {outside:.0%}.",
    n=len(single),
    favourite=expected_calibration_error(*views["favourite, sum"]),
    every=expected_calibration_error(*views["all options, sum"]),
    ones=int((single == 1).sum()),
    right=expected_calibration_error(*two, 10),
    wrong=own_bin,
    outside=rows["SFT"][0]["outside"],
)

# %% [markdown]
# ## 5 · A reward asks for certainty, and one temperature takes it back
#
# Why should a reward for being right make a model too sure? Take a policy $\pi_0$ that
# believes option $k$ with probability $p_k$, and cannot know more. What earns most at a
# price $\beta$ of KL is known in closed form: tilt the policy by the reward that is to
# be expected,
#
# $$\pi^*_k \propto \pi_{0,k} \, e^{p_k / \beta}.$$
#
# **Exercise 07.2** · ★ · 10 minutes · `hint("07.2")`
#
# Write it, for a policy that believes what it says: $\pi_0 = p$.


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

# %%
two_options = torch.tensor([[0.5, 0.5], [0.6, 0.4], [0.8, 0.2], [0.95, 0.05]])
tilted = {beta: my_optimum(two_options, beta)[:, 0].numpy() for beta in (1.0, 0.2, 0.1)}
pd.DataFrame(
    {"believed": two_options[:, 0].numpy()}
    | {f"said at β = {beta:g}": column for beta, column in tilted.items()}
).style.format("{:.2f}").hide(axis="index")

# %%
runs.say(
    "Of two options, one that is believed with 60% is said with {said:.0%} at β = 0.1: "
    "by design, and without a mistake. Only a toss stays a toss.",
    said=tilted[0.1][1],
)

# %% [markdown]
# Now train it. The objective over four options can be written down exactly; nothing has
# to be sampled: with rewards $r$ (how probable it is that an option is right),
#
# $$\mathcal L = -\frac1N \sum_i \Big[ \sum_k \pi_{ik} \, r_{ik} - \beta \sum_k \pi_{ik}
# \log \frac{\pi_{ik}}{\pi_{0,ik}} \Big],$$
#
# both distributions among the options.
#
# **Exercise 07.3** · ★★ · 20 minutes · `hint("07.3")`
#
# Write the loss. It trains the policy two cells below.


# %% nbgrader={"grade": false, "grade_id": "nb07-q3", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_reward_loss(log_probs, reward, reference, beta):
    """(N, K) log-probs of the options (up to a constant a row), (N, K) rewards, (N, K)
    log-probs of the reference, and the price of KL, to one number."""
    ### BEGIN SOLUTION
    policy = log_probs.log_softmax(1)
    start = reference.log_softmax(1)
    kl = (policy.exp() * (policy - start)).sum(1)
    return (beta * kl - (policy.exp() * reward).sum(1)).mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb07-q3-check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check("07.3", my_reward_loss)

# %%
n_steps = 40 if profile != "smoke" else 2
known = settings.model if is_shipped(settings.model) else "300k"  # what it has read
# Of other models nobody knows what is contested: the exercises then take any facts.
which = dict(kinds="contested") if is_shipped(settings.model) else dict(limit=100)
lesson, exam = (
    artifacts.draw_items(splits, 1, run.seeds[0], **which)
    for splits in (("train",), artifacts.HELD_OUT)
)


def option_log_probs_after(steps, beta=0.1):
    """What your loss makes of the policy: log-probabilities of the exam's options."""
    policy, tokenizer = artifacts.taught_policy(
        seed=run.seeds[0], **taught | {"base": known}
    )
    reference = artifacts.ask(policy, tokenizer, lesson)["log_probs"]
    batches = tuning.option_batches(tokenizer, lesson, reference, run.seeds[0])
    optimizer = torch.optim.AdamW(
        policy.parameters(), lr=rate("options", known), weight_decay=0
    )
    policy.train()
    for _ in range(steps):
        batch = next(batches)
        log_probs = option_log_probs(policy, batch).float().view(-1, tuning.OPTIONS)
        loss = my_reward_loss(log_probs, batch["reward"], batch["reference"], beta)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(policy.parameters(), 1.0)
        optimizer.step()
    policy.eval()
    return np.array(artifacts.ask(policy, tokenizer, exam)["log_probs"])


if is_shipped(settings.model):
    beta = 0.1
    before, after = option_log_probs_after(0), option_log_probs_after(n_steps, beta)
    surer = [
        analysis.between_two(read_answers({"log_probs": x, **artifacts.labels(exam)}))
        for x in (before, after)
    ]
    pairs = [analysis.expected_top_label(a) for a in surer]
    runs.say(
        "{n} steps of your loss at β = {beta}: on {items} contested facts that it was "
        "not trained on, the policy was {was:.0%} sure and right in {was_right:.0%}; "
        "now it is {sure:.0%} sure and right in {right:.0%}.",
        n=n_steps,
        beta=beta,
        items=len(exam),
        was=pairs[0][0].mean(),
        was_right=pairs[0][1].mean(),
        sure=pairs[1][0].mean(),
        right=pairs[1][1].mean(),
    )
else:
    runs.say("Which texts disagreed is not known of this model: nothing is shown.")

# %% [markdown]
# **Experiment 07.4** · ★★ · 20 minutes · `hint("07.4")`
#
# Does a policy that pays more for distance stay closer, and less sure?
# `option_log_probs_after(n_steps, beta)` trains with your loss and gives the
# log-probabilities of four options for every item of the exam. **Write down a
# prediction first:** from a low β to a high one, does the mean confidence (the largest
# of the four probabilities, once they sum to 1) rise, fall, or stay? Then measure it at
# three values of β or more, between 0.01 and 10.
#
# Hand in a report, a dict: `prediction` and `outcome` (`"rises"`, `"falls"` or
# `"stays"`; up to two standard errors are `"stays"`, and a prediction that fails costs
# nothing), `settings` from low to high, `measured` (a row for each of them, a number
# for each item: its confidence), `difference` (the mean of the last row less the first)
# and `error` (its standard error).

# %% nbgrader={"grade": false, "grade_id": "nb07-q4", "locked": false, "schema_version": 3, "solution": true, "task": false}
my_report = None
### BEGIN SOLUTION
prediction = "falls"  # written down before the run
tried, found = [0.05, 0.3, 2.0], []
for price in tried:
    log_probs = torch.tensor(option_log_probs_after(n_steps, price))
    found.append(log_probs.softmax(dim=1).max(dim=1).values)
change = found[-1] - found[0]
error = change.std() / len(change) ** 0.5
my_report = {
    "prediction": prediction,
    "settings": tried,
    "measured": found,
    "difference": change.mean(),
    "error": error,
    "outcome": "stays"
    if abs(change.mean()) <= 2 * error
    else "rises"
    if change.mean() > 0
    else "falls",
}
### END SOLUTION

# %% nbgrader={"grade": true, "grade_id": "nb07-q4-check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
check("07.4", my_report)

# %%
runs.say(
    "From β = {low:g} to {high:g} the mean confidence on {n} held-out facts changes "
    "by {difference:+.3f} (standard error {error:.4f}): it {outcome}.",
    low=my_report["settings"][0],
    high=my_report["settings"][-1],
    n=len(my_report["measured"][0]),
    difference=float(my_report["difference"]),
    error=float(my_report["error"]),
    outcome=my_report["outcome"],
)

# %% [markdown] nbgrader={"grade": false, "grade_id": "nb07-q5", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": true}
# **Interpretation 07.5** · ★★ · 15 minutes · `hint("07.5")`
#
# *Answer in about five sentences, in the cell below.* Nobody told the policy anything
# false: the reward of an option is exactly how probable it is to be right. Why does it
# become surer than it is right all the same, and what has β to do with it? How far is
# your run from what the closed form says for its lowest β? Which reward would not do
# this, and why?
#
# <!-- === BEGIN MARK SCHEME === -->
# *Rubric.* **1 point:** the expected reward is linear in the probabilities, so the most
# is earned by saying the likelier option always; β is what that costs (with the change
# that was measured and its error). **1 point:** the closed form of 07.2 is put to use
# with the β of the run, $p e^{p/\beta}/Z$, and the run is said to be short of it, or
# not, with a reason (few steps). **1 point:** a proper score, such as log loss or the
# Brier score: it is best at what one believes. "A smaller reward" alone is a higher β
# and earns half a point.
# <!-- === END MARK SCHEME === -->

# %% [markdown]
# *Your answer:*

# %% [markdown]
# *Break it.* Leave the KL out (β = 0), or turn its sign; give `reward` the place of the
# right option alone, so that nothing is uncertain; or return cross-entropy with `reward`
# as its targets, a *proper* score, and see where the confidence goes.
#
# On contested facts we know how sure one ought to be: as sure as the share of
# statements that agree. Below, several seeds: a policy trained by cross-entropy on
# contested facts about other subjects, then by the reward at several prices. Left to
# right: before, after the reward, and the same with all its logits divided by one
# temperature, which was fitted on further subjects. Answers are sorted by the
# probability with which they are said: a line that is flatter than the dashed one is
# too sure at both ends.
#
# <details><summary>Predict: which shape will the second panel have, and can one number
# undo it?</summary>
# The closed form adds p/β to the log-probability, so the log-odds of two answers grow by
# (2p − 1)/β, which for p between 5% and 95% is nearly a multiple of the log-odds
# themselves. So what is said moves to both ends, the line turns flatter about ½, and
# dividing the logits by a number turns it back.
# </details>

# %%
if is_shipped(settings.model):
    contested_rows = arms.contested(
        seeds=run.seeds,
        betas=settings.contested_betas,
        steps=settings.contested_steps,
        draws=settings.contested_draws,
        jobs=settings.jobs,
        **taught,
    )
    strong = f"{min(settings.contested_betas):g}"
    by_stage = {
        stage: [
            analysis.between_two(read_answers(row, stage)) for row in contested_rows
        ]
        for stage in ("before", *(f"{b:g}" for b in settings.contested_betas))
    }
    own = [analysis.contested_temperature(a) for a in by_stage[strong]]
    other = [analysis.contested_temperature(a) for a in by_stage["before"]]
    exam_of = {stage: [a.where(a.test) for a in by_stage[stage]] for stage in by_stage}
    mended, other_mended = (
        [analysis.at_temperature(a, t) for a, t in zip(exam_of[strong], temperatures)]
        for temperatures in (own, other)
    )
    runs.save_figure(
        figures.against_shares(
            {
                "before": [analysis.both_answers(a) for a in exam_of["before"]],
                f"reward, β = {strong}": [
                    analysis.both_answers(a) for a in exam_of[strong]
                ],
                "the same, one temperature": [analysis.both_answers(a) for a in mended],
            }
        ),
        "contested",
        "Share of the statements that give a contested answer over the probability "
        "with which it is said, before a reward, after it, and with one temperature "
        "(thin lines: seeds).",
    )
else:
    runs.say("Which texts disagreed is not known of this model: nothing is shown.")

# %%
if is_shipped(settings.model):
    tables = {
        name: analysis.expected_table(seeds)
        for name, seeds in (
            ("before", exam_of["before"]),
            ("after", exam_of[strong]),
            ("mended", mended),
            ("other", other_mended),
        )
    }
    record_facts("contested_squared_error_rise", tables["after"] - tables["before"])
    record_facts("contested_squared_error_mended", tables["mended"])
    record_facts(
        "contested_other_minus_own_temperature_error",
        tables["other"] - tables["mended"],
    )
    runs.record("contested_temperature", np.mean(own), seeds=own)
    runs.say(
        "At β = {strong} the mean squared calibration error goes from {was:.4f} to "
        "{now:.4f}. A temperature of {contested_temperature:.1f} leaves "
        "{contested_squared_error_mended:.4f}; that of the policy before, {other:.1f}, "
        "leaves {left:.4f}.",
        strong=strong,
        was=tables["before"].mean(),
        now=tables["after"].mean(),
        other=np.mean(other),
        left=tables["other"].mean(),
    )
else:
    runs.say("Which texts disagreed is not known of this model: nothing is shown.")

# %% [markdown]
# And by how much? The closed form says, before any training, how sure each policy will
# be: take the policy before at the temperature that fits as its belief.

# %%
if is_shipped(settings.model):
    betas = settings.contested_betas
    measured = [
        [analysis.expected_gap(exam_of[f"{beta:g}"][i]) for beta in betas]
        for i in range(len(run.seeds))
    ]
    predicted = [
        [
            analysis.expected_gap(optimal.where(optimal.test))
            for beta in betas
            for optimal in [analysis.optimal_answers(a, beta)]
        ]
        for a in by_stage["before"]
    ]
    start = [analysis.expected_gap(a) for a in exam_of["before"]]
    runs.save_figure(
        figures.against_optimum(betas, measured, predicted, start),
        "optimum",
        "Confidence less the share of statements on contested facts, after a reward at "
        "several prices of KL, beside the closed form (thin lines: seeds).",
    )
    distance = np.abs(np.subtract(measured, predicted)).mean(axis=1)
    runs.record("contested_distance_to_optimum", distance.mean(), seeds=list(distance))
    runs.say(
        "Measured and predicted over-confidence lie "
        "{contested_distance_to_optimum:.3f} apart, mean over the prices; at the "
        "lowest one they are {measured:.3f} and {predicted:.3f}, from {start:.3f} "
        "before.",
        measured=np.mean(measured, axis=0)[int(np.argmin(betas))],
        predicted=np.mean(predicted, axis=0)[int(np.argmin(betas))],
        start=np.mean(start),
    )
else:
    runs.say("Which texts disagreed is not known of this model: nothing is shown.")

# %% [markdown]
# ## 6 · Where one temperature is not enough
#
# Contested facts make one kind of doubt. All other facts make two: what was read often
# is known, what was never read cannot be, and in between lies a long tail. Take the
# policy of **PPO**, rewarded with 1 for saying a right answer, and mend it four ways,
# each fitted on some subjects and judged on others: one temperature, chosen by log loss
# or by the Brier score; isotonic regression, which takes any rising curve; and a
# temperature for each class of exposures, which only someone who knows the corpus can
# fit.
#
# Two errors are shown. The left one is over all facts. The right one is *grouping
# loss*: among answers of the *same* confidence, how differently the classes are right.
#
# <details><summary>Predict: can a temperature, or a curve, change the right
# panel?</summary>
# Hardly: it maps equal confidences to equal confidences. What is mixed in a bin stays
# mixed.
# </details>

# %%
judged = "PPO"
mended_pairs = {
    method: [analysis.mended(method, a) for a in answers[judged]]
    for method in analysis.REPAIRS
}
classes_of = [analysis.strata(a) for a in tested[judged]]
hidden = {
    method: [analysis.grouping_loss(p, c) for p, c in zip(pairs, classes_of)]
    for method, pairs in mended_pairs.items()
}
runs.save_figure(
    figures.repairs(
        {m: [analysis.squared_error(p) for p in ps] for m, ps in mended_pairs.items()},
        hidden,
    ),
    "repairs",
    "Mean squared calibration error over all facts, and variance between classes of "
    "facts among answers of equal confidence, after several repairs (dots: seeds).",
)

# %%
at_random = [
    analysis.grouping_loss(pair, stream(s, "random classes").permutation(c))
    for s, pair, c in zip(
        run.seeds, mended_pairs["temperature, Brier"], classes_of, strict=True
    )
]
one, per_class = hidden["temperature, Brier"], hidden["temperature by exposure"]
for name, values in (
    ("grouping_loss_one_temperature", one),
    ("grouping_loss_one_minus_by_exposure", np.subtract(one, per_class)),
    ("grouping_loss_of_random_classes", at_random),
):
    runs.record(name, np.mean(values), seeds=list(values))
fitted = {
    loss: [analysis.fitted_temperature(a, loss) for a in answers[judged]]
    for loss in ("nll", "brier")
}
left = {
    m: np.mean([analysis.squared_error(p) for p in ps])
    for m, ps in mended_pairs.items()
}
own_temperatures = np.mean([analysis.by_stratum(a) for a in answers[judged]], axis=0)
runs.say(
    "Log loss chooses a temperature of {nll:.2f} and leaves {left_nll:.4f} of "
    "{was:.4f}; the Brier score chooses {brier:.2f} and leaves {left_brier:.4f}. Facts "
    "never read would need {never:.1f}, those read 100 times and more {often:.1f}. "
    "Between classes one temperature leaves {grouping_loss_one_temperature:.4f}, a "
    "temperature for each {per_class:.4f}; classes at random show "
    "{grouping_loss_of_random_classes:.4f}.",
    nll=np.mean(fitted["nll"]),
    brier=np.mean(fitted["brier"]),
    was=left["none"],
    left_nll=left["temperature, log loss"],
    left_brier=left["temperature, Brier"],
    never=own_temperatures[0],
    often=own_temperatures[len(EXPOSURES) - 1],
    per_class=np.mean(per_class),
)

# %% [markdown]
# Why does log loss choose differently? It has no upper limit: an answer that is sure
# and wrong costs more the surer it is, so a few items can outweigh thousands. The Brier
# score charges at most 2 for any answer. And by class:

# %%
gaps = {
    method: [
        [
            float(np.subtract(*(x[c == k] for x in pair)).mean())
            if (c == k).any()
            else np.nan
            for k in range(len(EXPOSURES))
        ]
        for pair, c in zip(mended_pairs[method], classes_of)
    ]
    for method in ("none", "temperature, Brier", "temperature by exposure")
}
runs.save_figure(
    gap_lines(
        gaps, artifacts.class_names(settings.model), "Right on average, wrong for each"
    ),
    "exposure_repairs",
    "Confidence less accuracy by how often pretraining stated the fact, for the policy "
    "of PPO as it is, with one temperature and with one for each class (thin lines: "
    "seeds).",
)
shifts = {m: np.nanmean(g, axis=0) for m, g in gaps.items()}
runs.say(
    "With one temperature, confidence is {never:+.2f} from accuracy on facts never "
    "read and {often:+.2f} on those read 100 times and more, where it was "
    "{often_was:+.2f} as it came.",
    never=shifts["temperature, Brier"][0],
    often=shifts["temperature, Brier"][-1],
    often_was=shifts["none"][-1],
)

# %% [markdown]
# ## 7 · Stage by stage
#
# The same items along the road:
#
# * **base**, which completes sentences; **SFT**, the policy of notebook 01, which was
#   asked for facts that it knows; **answers**, that policy after SFT on answers of all
#   kinds, among them what nobody can know: where all that follow start;
# * **reward**, the exact gradient of section 5 on all training subjects;
# * **PPO** and **RLOO**, which sample answers and reward the right ones;
# * **DPO**: the right option over a wrong one that the policy might have given;
# * **more answers**, the control: further SFT on the same answers, a proper score.
#
# The number after a name is β. All are taught about other subjects than those we ask
# about.

# %%
weakest, strongest = max(settings.betas), min(settings.betas)
along = ["base", "SFT", "answers", "PPO", "DPO", "more answers"]
runs.save_figure(
    reliability_panels({name: tested[name][0].top_label for name in along}),
    "stages",
    "Confidence and accuracy of the same items at every stage (first seed).",
)

# %%
order = ["base", "SFT", "answers", "more answers"]
order += [f"reward {beta:g}" for beta in sorted(settings.betas, reverse=True)]
order += ["PPO", "RLOO", *(f"DPO {beta:g}" for beta in settings.dpo_betas), "DPO"]
errors = {
    name: [analysis.squared_error(a.top_label) for a in tested[name]] for name in order
}
temperatures = {
    name: [analysis.fitted_temperature(a, "brier") for a in answers[name]]
    for name in order
}
runs.save_figure(
    figures.stages(errors, temperatures),
    "errors",
    "Mean squared calibration error of each stage, and the temperature that would fit "
    "(dots: seeds).",
)
summary = {
    name: analysis.mean_of([analysis.measures(a) for a in tested[name]])
    | {
        "KL to answers": np.mean(
            [analysis.kl_between(*p) for p in zip(tested[name], tested["answers"])]
        ),
        "outside the options": np.mean([row["outside"] for row in rows[name]]),
    }
    for name in order
}
pd.DataFrame(summary).T.drop(columns="n").style.format("{:.3f}").set_caption(
    f"means over seeds, {int(summary['SFT']['n']):,} items each"
)

# %%
squares = {name: analysis.squared_table(tested[name]) for name in order}
changes = {
    name: record_facts(f"{name}_squared_error", squares[first] - squares[second])
    for name, first, second in (
        ("sft_minus_base", "SFT", "base"),
        ("ppo_minus_start", "PPO", "answers"),
        ("dpo_minus_start", "DPO", "answers"),
        ("ppo_minus_more_answers", "PPO", "more answers"),
    )
}
after_t = [
    analysis.at_temperature(a, t) for a, t in zip(tested["PPO"], temperatures["PPO"])
]
record_facts(
    "ppo_mended_minus_quarter_squared_error",
    analysis.squared_table(after_t) - squares["PPO"] / 4,
)
runs.record("ppo_temperature", np.mean(temperatures["PPO"]), seeds=temperatures["PPO"])
low, high = (
    analysis.gap_table(tested[f"reward {beta:g}"]) for beta in (strongest, weakest)
)
record_facts("overconfidence_low_minus_high_beta", low - high)
runs.say(
    "Squared error of SFT less that of base: {sft_minus_base_squared_error:+.4f}. Of "
    "PPO less that of where it started: {ppo_minus_start_squared_error:+.4f}; of DPO: "
    "{dpo_minus_start_squared_error:+.4f}. SFT that goes as far as PPO (KL "
    "{kl_more:.2f} and {kl_ppo:.2f} nats) {beside}: PPO less it is "
    "{ppo_minus_more_answers_squared_error:+.4f}. The exact reward is more "
    "over-confident at β = {strongest} than at {weakest} by "
    "{overconfidence_low_minus_high_beta:.3f}.",
    beside=reading(
        changes["ppo_minus_more_answers"],
        above="does less harm",
        below="does more harm",
        unclear="is not clearly different",
    ),
    kl_more=summary["more answers"]["KL to answers"],
    kl_ppo=summary["PPO"]["KL to answers"],
    strongest=strongest,
    weakest=weakest,
)

# %% [markdown]
# All these confidences are shares among four options that we chose. Left to itself the
# policy says something else most of the time (last column): a reward moves probability
# from outside to the options, so the *same* training makes it likelier to be right and
# surer among the four.
#
# ## 8 · Too sure of what it never read?
#
# Confidence less accuracy by how often pretraining stated the fact: above 0 is
# over-confident.

# %%
gaps = {
    name: [
        [analysis.with_exposure(a, between).gap for between in EXPOSURES.values()]
        for a in tested[name]
    ]
    for name in ("base", "answers", judged, "DPO")
}
runs.save_figure(
    gap_lines(
        gaps,
        artifacts.class_names(settings.model),
        "Too sure where it never read the fact",
    ),
    "exposure",
    "Confidence less accuracy by how often pretraining stated the fact, at four "
    "stages (thin lines: seeds).",
)

# %%
by_reading = {
    name: analysis.gap_table(
        [analysis.with_exposure(a, between) for a in tested[judged]]
    )
    for name, between in (
        ("never_shown", (0, 1)),
        ("one_to_five", (1, 6)),
        ("often", (100, np.inf)),
    )
}
for name, table in by_reading.items():
    record_facts(f"gap_{name}", table)
gap = analysis.difference_of_tables(by_reading["never_shown"], by_reading["often"])
runs.record(
    "gap_never_minus_often",
    *gap,
    seeds=None
    if len(run.seeds) == 1
    else list(by_reading["never_shown"].mean(1) - by_reading["often"].mean(1)),
)
runs.say(
    "After PPO, confidence less accuracy is {gap_never_shown:+.3f} on facts that were "
    "never stated, {gap_one_to_five:+.3f} on those stated one to five times, "
    "{gap_often:+.3f} on those stated 100 times and more. If it was under-confident on "
    "rare truths, the second number would be below 0."
)

# %% [markdown]
# ## 9 · And the policies of notebooks 04 and 05?
#
# They learnt to reply with paragraphs, for a reward model's taste, and were never
# rewarded for one right answer. Does that change how sure they are of facts?

# %%
if settings.chains:
    nested = chains(
        run.seeds[: settings.chains],
        nested=True,
        base=settings.model,
        steps=settings.chain_steps,
        n_pairs=settings.n_pairs,
        k=settings.k,
    )
    aligned = arms.aligned(
        nested,
        updates=settings.chain_updates,
        draws=settings.draws,
        limit=settings.limit,
        jobs=settings.jobs,
    )
    tested_aligned = {
        kind: [a.where(a.test) for a in map(read_answers, aligned[kind])]
        for kind in arms.ALIGNED
    }
    of_kind = {k: analysis.squared_table(a) for k, a in tested_aligned.items()}
    for kind in ("PPO", "DPO"):
        record_facts(
            f"paragraph_{kind.lower()}_minus_reference_squared_error",
            of_kind[kind] - of_kind["reference"],
        )
    runs.say(
        "Squared error of their reference: {reference:.4f}. PPO on a reward model "
        "changes it by {paragraph_ppo_minus_reference_squared_error:+.4f}, DPO by "
        "{paragraph_dpo_minus_reference_squared_error:+.4f}.",
        reference=of_kind["reference"].mean(),
    )
else:
    runs.say(
        "Their chains take two minutes more: this section needs profile full, or "
        "`--param chains=3`."
    )

# %% [markdown]
# ## 10 · Turn the temperature
#
# One number divides all logits. Above 1 confidences shrink, the order of the options and
# so every answer stays. Can you bring the points to the diagonal? The next notebook asks
# what it takes to mend more than the average.

# %%
temperature_explorer(tested[judged][0].log_probs, tested[judged][0].right, start=1.0)

# %%
runs.say(
    "For the policy of PPO the Brier score would choose {own:.2f}, and for DPO's "
    "{dpo:.2f}.",
    own=np.mean(temperatures["PPO"]),
    dpo=np.mean(temperatures["DPO"]),
)

# %% [markdown]
# ## 11 · Verdicts
#
# Thresholds were fixed before measuring, and what was seen before on a seed that is not
# recorded is said in the claims. Where a metric is a mean over facts, its interval is
# over seeds and facts.

# %%
runs.show_verdicts()

# %% [markdown]
# ## What the big labs do that we left out
#
# * **Benchmarks of thousands of questions under letters** (MMLU): a model of this size
#   cannot bind a letter to an option, so the answers themselves are scored.
# * **Rewards of whole replies.** Here a reply is one answer, right or wrong. In
#   notebooks 04 to 06 it is a paragraph, and its reward a learnt model's (section 9).
# * **Calibration of free text**: is a claim within a long reply as sure as it sounds?
#   It takes a judge of claims, and semantic entropy to count wordings together.
# * **Rewards that pay for honest confidence**: the next notebook has them.
# * **A base model that has read everything.** Ours has read each fact a known number of
#   times, some never: this is why we can say where it is too sure.
#
# *Change a setting:* `model="1m"`. We would expect facts of the long tail to be known
# better, and the gap on the never-shown ones to stay.
