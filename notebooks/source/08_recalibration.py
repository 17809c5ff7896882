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
# # 08 · How do you mend a model that is too sure?
#
# The last notebook found models that are surer than they are right. Here are the
# remedies: stretch the confidence afterwards, train for it from the start, ask the model
# itself, ask several models, or do not answer. Each is fitted on some subjects and
# judged on others, and beside every calibration error stand accuracy, Brier score and
# log loss: a model that always says the base rate is calibrated, and useless.
#
# | | |
# | --- | --- |
# | **time** | `smoke` half a minute · `cpu` 3 minutes after notebook 07, 4 alone · `full` an hour (two cores) |
# | **memory** | under 3 GB |
# | **you need** | notebook 07, for its stages (it runs alone: what is missing is built) |
# | **look at first** | the table in section 2, the three panels of section 6 |
# | **sweeps worth trying** | `ns`, `train_steps`; `run.settings` shows all dials |
# | **on Colab** | run the two set-up lines of the README in a first cell |

# %% tags=["parameters"]
profile = "cpu"  # smoke, cpu, full or gpu: how much to measure
seed = 0  # the first seed; the others follow it
device = "cpu"
out_dir = ""  # where metrics and figures go; empty: runs/interactive

# %%
import numpy as np
import pandas as pd
from scipy.special import softmax

from alignlab import runs
from alignlab.calibration import TemperatureScaler
from alignlab.chapters.calibration import artifacts
from alignlab.chapters.calibration.artifacts import EXPOSURES, read_answers
from alignlab.chapters.recalibration import analysis, figures
from alignlab.chapters.recalibration import runs as arms
from alignlab.course import check
from alignlab.models.base import use_device
from alignlab.plots.calibration import gap_lines, temperature_explorer
from alignlab.plots.style import use_style
from alignlab.world.tasks import default_world

use_style()
run = runs.start("08_recalibration", profile, seed, device, out_dir)
use_device(device)
settings = run.settings
policy_settings = dict(
    n_examples=settings.n_examples,
    sft_steps=settings.sft_steps,
    steps=settings.steps,
    size=settings.size,
    limit=settings.limit,
)
rows = artifacts.tuned_stages(
    seeds=run.seeds,
    betas=(artifacts.JUDGED_BETA,),
    draws=settings.draws,
    jobs=settings.jobs,
    **policy_settings,
)
answers = {name: [read_answers(row) for row in rows[name]] for name in rows}
judged = f"reward {artifacts.JUDGED_BETA:g}"
sure = answers[judged]  # the policy to be mended, one a seed
parts = [analysis.fitting_and_test(a) for a in sure]


def spread(values: list[dict], name: str) -> list[float]:
    """One measure of each seed."""
    return [value[name] for value in values]


# %% [markdown]
# ## 1 · Answers first
#
# The policy of notebook 07 that was tuned by a reward for right answers. Its surest
# wrong answers, on subjects that it was never tuned on:

# %%
items = artifacts.draw_items(artifacts.HELD_OUT, settings.draws, seed, settings.limit)
confidence, correct = sure[0].top_label
worst = [i for i in np.argsort(-confidence) if not correct[i]][:4]
pd.DataFrame(
    {
        "asked": items[i].question,
        "answered": items[i].options[int(sure[0].log_probs[i].argmax())],
        "right": items[i].options[items[i].right],
        "confidence": confidence[i],
        "times read": sure[0].exposure[i],
    }
    for i in worst
).style.format({"confidence": "{:.3f}"}).hide(axis="index")

# %% [markdown]
# ## 2 · One number
#
# Divide all logits by a *temperature* $T$, and choose it by the log loss on items that
# were kept for it:
#
# $$\hat p = \operatorname{softmax}(z / T), \qquad
# T = \arg\min_T \; -\frac1n \sum_i \log \hat p_{i, y_i}$$
#
# $T > 1$ makes less sure. The order of the options stays, and so does every answer.
#
# **Exercise 08.1.** Write the loss that is minimised.


# %% nbgrader={"grade": false, "grade_id": "nb08-q1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_scaled_nll(logits, labels, temperature):
    """(N, K), (N,) and a number to one number: nats per item."""
    ### BEGIN SOLUTION
    log_probs = (logits / temperature).log_softmax(1)
    return -log_probs.gather(1, labels[:, None]).mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb08-q1-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("08.1", my_scaled_nll)

# %% [markdown]
# Below, the diagram of the other subjects, with a slider that starts at the T that was
# found.

# %%
fitting, test = parts[0]
scaler = TemperatureScaler().fit(fitting.log_probs, fitting.right)
temperature_explorer(test.log_probs, test.right, start=scaler.temperature_)

# %% [markdown]
# Others do more. *Platt* and *beta* scaling bend the confidence along a curve of two or
# three numbers; *isotonic* regression takes any curve that never falls, a *histogram*
# any at all. *Vector* and *matrix* scaling have a number for each class, or each two of
# them. Here an option has no class of its own, only its place in the list, which was
# tossed: they can learn nothing more than the temperature, and over-fit.

# %%
methods = [analysis.every_method(a) for a in sure]
by_method = {name: [scores[name] for scores in methods] for name in methods[0]}
runs.save_figure(
    figures.method_dots(
        by_method, ("squared", "brier", "nll", "accuracy"), "Recalibrated"
    ),
    "methods",
    "Calibration error, Brier score, log loss of the confidence and accuracy after "
    "each way to recalibrate, fitted on other subjects (dots: seeds).",
)
pd.DataFrame(
    {name: pd.DataFrame(scores).mean() for name, scores in by_method.items()}
).T.style.format("{:.3f}").set_caption("on test subjects, means over seeds")

# %%
before, after = by_method["none"], by_method["temperature"]
share = [
    analysis.repaired_share(b["squared"], a["squared"]) for b, a in zip(before, after)
]
runs.record("temperature_repaired_share", np.mean(share), seeds=share)
for name in ("nll", "brier", "accuracy"):
    values = [a[name] - b[name] for b, a in zip(before, after)]
    unit = "nats per item" if name == "nll" else ""
    runs.record(f"temperature_{name}_change", np.mean(values), seeds=values, unit=unit)
share = []
for i, (fitting, test) in enumerate(parts):
    wrong = analysis.shuffled(fitting, run.seeds[i])
    pair = analysis.recalibrated("temperature", wrong, test)
    left = analysis.proper_scores(pair)["squared"]
    share.append(analysis.repaired_share(before[i]["squared"], left))
runs.record("shuffled_temperature_repaired_share", np.mean(share), seeds=share)
runs.say(
    "With one temperature the squared error goes from {was:.4f} to {now:.4f} (share "
    "taken away: {temperature_repaired_share:.0%}). Log loss changes by "
    "{temperature_nll_change:+.3f} nats, the Brier score by "
    "{temperature_brier_change:+.4f}, accuracy by {temperature_accuracy_change:+.4f}. "
    "Fitted to right answers dealt out at random, the share is "
    "{shuffled_temperature_repaired_share:.0%}.",
    was=np.mean(spread(before, "squared")),
    now=np.mean(spread(after, "squared")),
)

# %% [markdown]
# **Whom does it help?** The items are a mixture: facts that the model knows, and facts
# that it never read and answers all the same. One number has to serve them all. Log loss
# punishes most what is sure and wrong, so the temperature is that of the facts it never
# read, whatever it does to the others.

# %%
gaps = {
    method: [analysis.gaps_by_exposure(method, a) for a in sure]
    for method in ("none", "temperature", "isotonic")
}
runs.save_figure(
    gap_lines(gaps, list(EXPOSURES), "One number for facts known and unknown"),
    "exposure",
    "Confidence less accuracy by how often pretraining stated the fact, before and "
    "after recalibration (thin lines: seeds).",
)
for method in ("none", "temperature"):
    for place, name in ((0, "never"), (-1, "often")):
        values = [row[place] for row in gaps[method]]
        runs.record(f"gap_{name}_{method}", np.mean(values), seeds=values)
runs.say(
    "Confidence less accuracy on facts never read: {gap_never_none:+.3f} before, "
    "{gap_never_temperature:+.3f} with one temperature; on those read 300 times and "
    "more: {gap_often_none:+.3f} before, {gap_often_temperature:+.3f} with it."
)

# %% [markdown]
# **Does it carry over?** Rows say where the temperature was fitted, columns where it is
# judged; off the diagonal it had to carry over. First between kinds of subjects, then
# between stages.

# %%
world = default_world()
kinds = np.array([world.relations[name].kind for name in sure[0].relation])
names = [
    kind
    for kind in ("country", "element", "city", "word")
    # A temperature can be fitted where not all right options are at one place.
    if len(set(sure[0].right[(kinds == kind) & ~sure[0].test])) > 1
]
fitting, test = (
    {k: sure[0].where((kinds == k) & (sure[0].test == is_test)) for k in names}
    for is_test in (False, True)
)
runs.save_figure(
    figures.heat(analysis.transfer(fitting, test), ["none", *names], names),
    "kinds",
    "Mean squared calibration error by kind of subject, at the temperature fitted on "
    "another kind (first seed).",
)

# %%
along = ["SFT", judged, "DPO", "cross-entropy"]
fitting, test = (
    {n: answers[n][0].where(answers[n][0].test == is_test) for n in along}
    for is_test in (False, True)
)
runs.save_figure(
    figures.heat(analysis.transfer(fitting, test), ["none", *along], along),
    "transfer",
    "Mean squared calibration error by stage, at the temperature fitted on another "
    "stage (first seed).",
)
share = [analysis.transfer_share(a, s) for a, s in zip(sure, run.seeds)]
runs.record("temperature_transfer_repaired_share", np.mean(share), seeds=share)
runs.say(
    "Fitted on half of the relations and judged on the other half, the share of the "
    "squared error that a temperature takes away is "
    "{temperature_transfer_repaired_share:.0%}."
)

# %% [markdown]
# ## 3 · How much data does it take?
#
# The same, fitted on fewer items. One number needs few; a staircase that may take any
# shape needs hundreds, and its ends, 0 and 1, cost log loss.

# %%
sized = [
    analysis.by_size(
        a,
        settings.ns,
        ("temperature", "beta", "isotonic", "histogram"),
        settings.n_draws,
        run.seeds[i],
    )
    for i, a in enumerate(sure)
]
most = max(row["n"] for row in sized[0])
runs.save_figure(
    figures.sizes(sized, ("squared", "brier", "nll"), most),
    "sizes",
    "Calibration error, Brier score and log loss by the number of items that a "
    "recalibration is fitted on (bands: seeds).",
)
few = {
    name: [
        next(
            row["brier"]
            for row in of_seed
            if row["method"] == name and row["n"] == settings.ns[0]
        )
        for of_seed in sized
    ]
    for name in ("temperature", "isotonic")
}
values = np.subtract(few["isotonic"], few["temperature"])
runs.record("isotonic_minus_temperature_brier_few", values.mean(), seeds=values)
staircase = by_method["isotonic"]
values = [
    analysis.repaired_share(b["squared"], a["squared"])
    for b, a in zip(before, staircase)
]
runs.record("isotonic_repaired_share", np.mean(values), seeds=values)
values = [a["brier"] - b["brier"] for b, a in zip(before, staircase)]
runs.record("isotonic_brier_change", np.mean(values), seeds=values)
runs.say(
    "With all {most:,} items isotonic regression takes away "
    "{isotonic_repaired_share:.0%} of the squared error (Brier score "
    "{isotonic_brier_change:+.4f}). With {few} its Brier score is "
    "{isotonic_minus_temperature_brier_few:+.4f} beside that of a temperature.",
    most=most,
    few=settings.ns[0],
)

# %% [markdown]
# ## 4 · Train for it
#
# The base model learns the answers to questions about training subjects, facts that it
# never read among them: what makes a model answer regardless. Same examples, order and
# updates, other losses: **focal** $-(1-p)^\gamma \log p$ lets go of what is right
# already; **label smoothing** caps confidence; **mixup** blends the embeddings of two
# examples, and their answers; **task and Brier** adds the squared distance. The last row
# is cross-entropy with a temperature fitted afterwards.

# %%
trained = arms.models(
    seeds=run.seeds,
    losses=tuple(arms.STEPS),
    draws=settings.train_draws,
    limit=settings.limit,
    size=settings.train_size,
    steps=settings.train_steps,
    jobs=settings.jobs,
)
models = {
    name: [analysis.fitting_and_test(read_answers(row)) for row in trained[name]]
    for name in (*arms.STEPS, "single", "dropout")
}
by_loss = {
    name: [analysis.scores(test.top_label) for _, test in models[name]]
    for name in arms.STEPS
}
by_loss["cross-entropy, then T"] = [
    analysis.scores(analysis.recalibrated("temperature", fitting, test))
    for fitting, test in models["cross-entropy"]
]
runs.save_figure(
    figures.method_dots(
        by_loss, ("squared", "brier", "nll", "accuracy"), "Trained for it"
    ),
    "losses",
    "Calibration error, Brier score, log loss and accuracy on unseen subjects after "
    "training with several losses (dots: seeds).",
)

# %%
plain = by_loss["cross-entropy"]
for loss, metric in (
    ("focal", "focal"),
    ("mixup", "mixup"),
    ("task and Brier", "task_and_brier"),
    ("label smoothing", "label_smoothing"),
):
    error = np.subtract(spread(plain, "squared"), spread(by_loss[loss], "squared"))
    runs.record(f"ce_minus_{metric}_squared_error", error.mean(), seeds=error)
    right = np.subtract(spread(by_loss[loss], "accuracy"), spread(plain, "accuracy"))
    runs.record(f"{metric}_minus_ce_accuracy", right.mean(), seeds=right)
runs.say(
    "Squared error less than after cross-entropy (accuracy more): focal "
    "{ce_minus_focal_squared_error:+.4f} ({focal_minus_ce_accuracy.value:+.3f}), mixup "
    "{ce_minus_mixup_squared_error:+.4f} ({mixup_minus_ce_accuracy.value:+.3f}), task "
    "and Brier {ce_minus_task_and_brier_squared_error:+.4f} "
    "({task_and_brier_minus_ce_accuracy.value:+.3f}), label smoothing "
    "{ce_minus_label_smoothing_squared_error:+.4f} "
    "({label_smoothing_minus_ce_accuracy.value:+.3f}). A temperature afterwards: "
    "{then:+.4f}.",
    then=np.mean(spread(plain, "squared"))
    - np.mean(spread(by_loss["cross-entropy, then T"], "squared")),
)

# %% [markdown]
# ## 5 · Ask the model
#
# The policy of section 2, asked in four ways: the probability of its answer; the same
# after a *control prompt*, “Be careful to be right.”, which may change the answer;
# whether its answer is true, **P(True)**; and how sure of it it is *in words*, a digit
# from 0 to 9. A model of this size has never met the last two formats, so it is taught
# them on its own answers to training subjects: True or False, 9 or 0. Below the taught
# ones stand the same two before teaching.

# %%
elicited = arms.prompts(
    seeds=run.seeds,
    teach_steps=settings.teach_steps,
    beta=artifacts.JUDGED_BETA,
    draws=settings.ask_draws,
    jobs=settings.jobs,
    **policy_settings,
)
own = [read_answers(row) for row in elicited]
careful = [read_answers(row, "careful") for row in elicited]
ways = {
    "probability of the answer": [a.where(a.test).top_label for a in own],
    "control prompt": [a.where(a.test).top_label for a in careful],
}
for name, key in (
    ("P(True)", "p_true"),
    ("in words", "verbal"),
    ("P(True), untaught", "p_true_untaught"),
    ("in words, untaught", "verbal_untaught"),
):
    ways[name] = [
        (np.array(row[key])[a.test], a.where(a.test).top_label[1])
        for row, a in zip(elicited, own)
    ]
by_way = {n: [analysis.scores(pair) for pair in ways[n]] for n in ways}
runs.save_figure(
    figures.method_dots(by_way, ("squared", "brier", "aurc"), "Asked how sure it is"),
    "elicited",
    "Calibration error, Brier score and area under the risk-coverage curve of the same "
    "policy's confidence, elicited in several ways (dots: seeds).",
)

# %%
answer = by_way["probability of the answer"]
for name, metric in (
    ("control prompt", "control_prompt"),
    ("P(True)", "p_true"),
    ("in words", "verbal"),
):
    values = np.subtract(spread(answer, "squared"), spread(by_way[name], "squared"))
    runs.record(f"answer_minus_{metric}_squared_error", values.mean(), seeds=values)
    values = spread(by_way[name], "auroc")
    runs.record(f"{metric}_auroc", np.mean(values), seeds=values)
runs.say(
    "Squared error less than that of the answer's probability: control prompt "
    "{answer_minus_control_prompt_squared_error:+.4f}, P(True) "
    "{answer_minus_p_true_squared_error:+.4f}, in words "
    "{answer_minus_verbal_squared_error:+.4f}. How often a right answer gets more "
    "than a wrong one: {own:.2f} by its probability, {p_true_auroc:.2f} by P(True), "
    "{verbal_auroc:.2f} in words.",
    own=np.mean(spread(answer, "auroc")),
)

# %% [markdown]
# ## 6 · Ask several
#
# Models that differ only in the order of their examples agree on what they know and
# guess differently, so that their mean is less sure where it should be. The control has
# the same compute: *one* model with five times the updates. *MC dropout* asks one model
# several times, each time without some of its units.

# %%
ensembles, passes = [], []
for group, row in zip(trained["members"], trained["dropout"]):
    tests = [analysis.fitting_and_test(read_answers(member))[1] for member in group]
    members = np.stack([test.probabilities for test in tests])
    ensembles.append(analysis.by_members(members, tests[0].right))
    a = read_answers(row)
    members = softmax(np.array(row["passes"])[:, a.test], axis=2)
    passes.append(analysis.by_members(members, a.right[a.test]))
alone = {
    f"one model, {arms.MEMBERS} × the updates": models["single"],
    "trained with dropout, asked without": models["dropout"],
}
alone = {
    name: [analysis.option_scores(test.probabilities, test.right) for _, test in pairs]
    for name, pairs in alone.items()
}
runs.save_figure(
    figures.members(
        {"ensemble": ensembles, "MC dropout": passes}, alone, ("nll", "squared", "aurc")
    ),
    "members",
    "Log loss, calibration error and area under the risk-coverage curve by the number "
    "of members, beside one model of the same compute (thin lines: seeds).",
)

# %%
single, plain = alone.values()
for name, metric in (
    ("nll", "nll"),
    ("squared", "squared_error"),
    ("aurc", "risk_coverage"),
):
    values = [s[name] - rows[-1][name] for s, rows in zip(single, ensembles)]
    runs.record(f"single_minus_ensemble_{metric}", np.mean(values), seeds=values)
values = [p["nll"] - rows[-1]["nll"] for p, rows in zip(plain, passes)]
runs.record(
    "plain_minus_dropout_nll", np.mean(values), seeds=values, unit="nats per item"
)
runs.say(
    "One model of the same compute less {members} members: log loss "
    "{single_minus_ensemble_nll:+.3f} nats, squared error "
    "{single_minus_ensemble_squared_error:+.4f}, area under risk-coverage "
    "{single_minus_ensemble_risk_coverage:+.4f}. Dropout at prediction brings "
    "{plain_minus_dropout_nll:+.3f} nats.",
    members=arms.MEMBERS,
)

# %% [markdown]
# ## 7 · Or do not answer
#
# Who is allowed to say “I do not know” answers the surest questions first. *Risk* is the
# share of wrong answers among those that were given, *coverage* the share that was.
#
# **Exercise 08.2.** Write the risks at coverages 1/N, 2/N, …, 1.


# %% nbgrader={"grade": false, "grade_id": "nb08-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_risks(confidence, correct):
    """(N,) confidences and (N,) 0 or 1, to (N,): the risk of answering the k surest."""
    ### BEGIN SOLUTION
    import torch

    order = confidence.argsort(descending=True)
    wrong = 1 - correct[order].to(confidence.dtype)
    return wrong.cumsum(0) / torch.arange(1, len(wrong) + 1)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb08-q2-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("08.2", my_risks)

# %%
fitting, test = analysis.fitting_and_test(own[0])
curves = {
    "probability of the answer": test.top_label,
    "after one temperature": analysis.recalibrated("temperature", fitting, test),
    "after isotonic regression": analysis.recalibrated("isotonic", fitting, test),
    "P(True)": ways["P(True)"][0],
    "in words": ways["in words"][0],
}
runs.save_figure(
    figures.selective(curves),
    "selective",
    "Share of wrong answers among those that are given, the surest first, for several "
    "kinds of confidence (first seed).",
)
threshold = 0.9
kept = {name: pair[0] >= threshold for name, pair in curves.items()}
pd.DataFrame(
    {
        "share answered": {name: mask.mean() for name, mask in kept.items()},
        "of those right": {
            name: curves[name][1][mask].mean() if mask.any() else np.nan
            for name, mask in kept.items()
        },
    }
).style.format("{:.0%}", na_rep="–").set_caption(
    f"answering what is {threshold:.0%} sure"
)

# %% [markdown]
# Recalibration hardly moves the curve, for it (almost) keeps the order of the questions.
# What it mends is what a threshold *means*. And a confidence that is the same for every
# question, however well calibrated, gives a flat line.
#
# ## 8 · Verdicts
#
# Thresholds were fixed before measuring.

# %%
runs.show_verdicts()

# %% [markdown]
# ## What the big labs do that we left out
#
# * **Recalibration by topic and by user**, and again after every release: a temperature
#   is about the questions that it was fitted on.
# * **Confidence in free text**: sampling many replies and counting meanings (semantic
#   entropy), probes on hidden states, a second model that checks claims.
# * **Training it to abstain**, with rewards that charge for wrong answers, and reasoning
#   that ends in a stated probability.
# * **Conformal prediction**: sets of answers with a guaranteed coverage.
# * **Large ensembles are rare**: five models cost five times as much at prediction too;
#   mixtures of experts and low-rank members are the cheap cousins.
#
# *Turn a dial:* raise `train_steps` to 480. We would expect cross-entropy to become
# surer of what it cannot know, and the losses of section 4 to earn their keep.
