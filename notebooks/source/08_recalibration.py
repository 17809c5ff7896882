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
# itself, reward it for an honest answer to that, ask several models, or do not answer.
# Each is fitted on some subjects and judged on others, and beside every calibration
# error stand accuracy, Brier score and log loss: a model that always says the base rate
# is calibrated, and useless.
#
# | | |
# | --- | --- |
# | **time** | `smoke` 20 seconds · `cpu` 4 minutes after notebook 07 · `full` an hour (two cores) |
# | **memory** | under 3 GB |
# | **you need** | notebook 07, for its policies (it runs alone: what is missing is built) |
# | **look at first** | section 2, and the frontier of section 6 |
# | **sweeps worth trying** | `ns`, `weights`; `run.settings` shows all settings |
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
from scipy.special import softmax

from alignlab import runs
from alignlab.calibration import TemperatureScaler
from alignlab.calibration.training import token_logits
from alignlab.chapters.calibration import artifacts
from alignlab.chapters.calibration.artifacts import read_answers
from alignlab.chapters.recalibration import (
    analysis,
    experiments,
    figures,
    models,
    models_analysis,
    models_figures,
    stated,
    stated_analysis,
    stated_figures,
    stated_ways,
)
from alignlab.chapters.recalibration import runs as arms
from alignlab.course import check, hint
from alignlab.evaluation.intervals import reading, t_interval
from alignlab.models.base import is_shipped, load_base, use_device
from alignlab.models.sampler import complete
from alignlab.objectives import focal_loss
from alignlab.plots.calibration import gap_lines, temperature_explorer
from alignlab.plots.style import use_style
from alignlab.seeds import stream
from alignlab.study.arms import run_groups
from alignlab.training.sft import batches
from alignlab.world.tasks import default_world

use_style()
run = runs.start("08_recalibration", profile, seed, device, out_dir)
use_device(device)
settings = run.settings

# %% [markdown]
# All policies are trained here, side by side; what was trained before is read from the
# cache. The exercises need none of it and can be done first.

# %%
rows = arms.policies(
    seeds=run.seeds,
    steps=settings.steps,
    updates=settings.updates,
    jobs=settings.jobs,
    draws=settings.draws,
    limit=settings.limit,
    base=settings.model,
    n_examples=settings.n_examples,
    sft_steps=settings.sft_steps,
    answer_steps=settings.answer_steps,
)
answers = {name: [read_answers(row) for row in rows[name]] for name in rows}
judged = "PPO"
sure = answers[judged]  # the policy to be mended, one a seed
parts = [analysis.fitting_and_test(a) for a in sure]
tests = [test for _, test in parts]


def record_facts(name: str, table: np.ndarray, **options):
    """Record the mean of a table of seeds and facts, both of which are samples."""
    return runs.record(name, table.mean(), items=table, **options)


# %% [markdown]
# ## 1 · Answers first
#
# The policy of notebook 07 that PPO rewarded for saying right answers. Its surest wrong
# ones, on subjects that it was never tuned on:

# %%
items = artifacts.draw_items(
    artifacts.HELD_OUT, settings.draws, run.seeds[0], settings.limit
)
confidence, correct = sure[0].top_label
worst = [i for i in np.argsort(-confidence) if not correct[i]][:4]
pd.DataFrame(
    {
        "asked": items[i].question,
        "answered": items[i].options[int(sure[0].log_probs[i].argmax())],
        "right": items[i].options[items[i].right],
        "confidence": confidence[i],
        "times read": artifacts.times_read(items[i].fact),
    }
    for i in worst
).style.format({"confidence": "{:.3f}"}).hide(axis="index")

# %%
above = confidence >= 0.99
runs.say(
    "It is at least 99% sure of {share:.0%} of its answers, and right in {right:.0%} "
    "of these.",
    share=above.mean(),
    right=correct[above].mean() if above.any() else float("nan"),
)

# %% [markdown]
# ## 2 · One number
#
# Divide all logits by a *temperature* $T$, and choose it on items that were kept for it.
# Usually by log loss:
#
# $$\hat p = \operatorname{softmax}(z / T), \qquad
# T = \arg\min_T \; -\frac1n \sum_i \log \hat p_{i, y_i}$$
#
# $T > 1$ makes the model less sure. The order of the options stays, and so does every
# answer.
#
# **Exercise 08.1** · ★ · 10 minutes · `hint("08.1")`
#
# Write the loss that is minimised.


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
# **Experiment 08.2** · ★ · 20 minutes · `hint("08.2")`
#
# Which is worse, to be four times too sure or four times too unsure?
# `experiments.base_answers()` has the logits that a small base model gives to four
# options of 200 facts, (200, 4), and which of them are right. **Write down a prediction
# first:** from T = 1/4 to T = 4, does its mean log loss rise, fall, or stay? Then
# compute with your function the loss of every item, at 1/4, at 4, and at one or more
# temperatures between them.
#
# Hand in a report, a dict: `prediction` and `outcome` (`"rises"`, `"falls"` or
# `"stays"`; up to two standard errors are `"stays"`, and a prediction that fails costs
# nothing), `settings` from low to high, `measured` (a row for each of them, a number
# for each item: its loss), `difference` (the mean of the last row less the first) and
# `error` (its standard error).

# %% nbgrader={"grade": false, "grade_id": "nb08-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
my_report = None
### BEGIN SOLUTION
prediction = "rises"  # written down before the run
z, y = experiments.base_answers()
tried, found = [0.25, 1.0, 4.0], []
for t in tried:
    each = [my_scaled_nll(z[i : i + 1], y[i : i + 1], t) for i in range(len(y))]
    found.append(torch.stack(each))
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

# %% nbgrader={"grade": true, "grade_id": "nb08-q2-check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
check("08.2", my_report)

# %%
means = [float(np.mean(np.asarray(row))) for row in my_report["measured"]]
runs.say(
    "At T = {ts} the mean log loss is {means} nats (saying 25% of each option: 1.39). "
    "From first to last that is {difference:+.2f} (standard error {error:.2f}): it "
    "{outcome}.",
    ts=", ".join(f"{t:g}" for t in my_report["settings"]),
    means=", ".join(f"{mean:.2f}" for mean in means),
    difference=float(my_report["difference"]),
    error=float(my_report["error"]),
    outcome=my_report["outcome"],
)

# %% [markdown] nbgrader={"grade": false, "grade_id": "nb08-q3", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": true}
# **Interpretation 08.3** · ★★ · 15 minutes · `hint("08.3")`
#
# *Answer in about five sentences, in the cell below.* Which of the two mistakes costs
# more, and of which items does that cost come? Would the Brier score give the same
# answer? You have to choose a temperature for a model about which you know nothing: on
# which side of the truth would you rather err, and would that change if wrong answers
# cost nothing?
#
# <!-- === BEGIN MARK SCHEME === -->
# *Rubric.* **1 point:** the two losses are compared with their numbers; the loss at 1/4
# comes from few items that are sure and wrong, each of which costs about four times
# what it cost at 1, without a limit, while at 4 it costs about a quarter. **1 point:**
# the Brier score of an item is at most 2, so sure and wrong items count for less and
# the two sides are closer. **1 point:** a choice that follows (rather unsure, under log
# loss), and that it depends on costs: where wrong answers cost nothing one always
# answers, and the temperature, which keeps the order, changes no answer.
# <!-- === END MARK SCHEME === -->

# %% [markdown]
# *Your answer:*

# %% [markdown]
# Now find T with it, and beside it the T that the *Brier score* chooses, the squared
# distance between probabilities and what was right. The policy's logits stand fixed;
# only one number is learnt.

# %%
fitting, test = parts[0]
logits, labels = torch.tensor(fitting.log_probs), torch.tensor(fitting.right)


def brier(logits, labels, temperature):
    p = (logits / temperature).softmax(1)
    return (p - torch.nn.functional.one_hot(labels, p.shape[1])).square().sum(1).mean()


own_t = {}
for name, loss_of in (("log loss", my_scaled_nll), ("Brier", brier)):
    log_t = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([log_t], lr=0.05)
    for _ in range(200):
        optimizer.zero_grad()
        loss_of(logits, labels, log_t.exp()).backward()
        optimizer.step()
    own_t[name] = log_t.exp().item()
library = {
    name: TemperatureScaler(loss=loss).fit(fitting.log_probs, fitting.right)
    for name, loss in (("log loss", "nll"), ("Brier", "brier"))
}
runs.say(
    "Your log loss finds T = {nll:.3f} (the library {nll_library:.3f}), the Brier "
    "score T = {brier:.3f} ({brier_library:.3f}). {dragged:.0%} of the log loss at "
    "T = 1 comes from the tenth of the items on which it is greatest, of the Brier "
    "score {brier_share:.0%}.",
    nll=own_t["log loss"],
    nll_library=library["log loss"].temperature_,
    brier=own_t["Brier"],
    brier_library=library["Brier"].temperature_,
    **analysis.shares_of_worst_tenth(fitting),
)

# %% [markdown]
# *Break it.* Return the loss at `logits * temperature`, or leave the logarithm out.
#
# Below, the diagram of the other subjects, with a slider that starts at the Brier
# score's T.

# %%
temperature_explorer(test.log_probs, test.right, start=library["Brier"].temperature_)

# %% [markdown]
# Others do more. *Platt* and *beta* scaling bend the confidence along a curve of two or
# three numbers; *isotonic* regression takes any curve that never falls, a *histogram*
# any at all. *Vector* and *matrix* scaling have a number for each class, or for each
# pair of classes. Here an option has no class of its own, only its place in the list,
# which was drawn at random: they can learn nothing more than the temperature, and
# over-fit.
#
# <details><summary>Predict: which of them can change the accuracy?</summary>
# Vector and matrix scaling, which can change the order of the options. The others keep
# every answer.
# </details>

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
pairs = {
    "none": [t.top_label for t in tests],
    "temperature": [analysis.recalibrated("temperature", *p) for p in parts],
    "isotonic": [analysis.recalibrated("isotonic", *p) for p in parts],
    "transferred": [analysis.transferred(a, s) for a, s in zip(sure, run.seeds)],
    "shuffled": [
        analysis.recalibrated("temperature", analysis.shuffled(fitting, s), test)
        for (fitting, test), s in zip(parts, run.seeds)
    ],
}
table = {name: analysis.tables(tests, pairs[name]) for name in pairs}
record_facts("temperature_squared_error_left", table["temperature"]["squared"])
for name, metric in (
    ("squared", "squared_error"),
    ("nll", "nll"),
    ("brier", "brier"),
    ("accuracy", "accuracy"),
):
    record_facts(
        f"temperature_{metric}_change",
        table["temperature"][name] - table["none"][name],
        unit="nats per item" if name == "nll" else "",
    )
record_facts(
    "shuffled_minus_own_temperature_squared_error",
    table["shuffled"]["squared"] - table["temperature"]["squared"],
)
runs.say(
    "With one temperature the squared error goes from {was:.4f} to "
    "{temperature_squared_error_left:.4f}. Log loss changes by "
    "{temperature_nll_change:+.3f} nats, the Brier score by "
    "{temperature_brier_change:+.4f}, accuracy by {temperature_accuracy_change:+.4f}. "
    "Fitted to right answers dealt out at random, a temperature leaves {shuffled:.4f}.",
    was=table["none"]["squared"].mean(),
    shuffled=table["shuffled"]["squared"].mean(),
)

# %% [markdown]
# **Whom does it help?** The items are a mixture: facts that the model knows, and facts
# that it never read and answers all the same. One number, and one curve, has to serve
# them all (notebook 07, section 6).

# %%
gaps = {
    method: [analysis.gaps_by_exposure(method, a) for a in sure]
    for method in ("none", "temperature", "isotonic")
}
runs.save_figure(
    gap_lines(
        gaps,
        artifacts.class_names(settings.model),
        "One number for facts known and unknown",
    ),
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
    "{gap_never_temperature:+.3f} with one temperature; on those read 100 times and "
    "more: {gap_often_none:+.3f} before, {gap_often_temperature:+.3f} with it."
)

# %% [markdown]
# **Does it carry over?** Rows say where the temperature was fitted, columns where it is
# judged; off the diagonal it had to carry over. First between kinds of subjects, then
# between policies.

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
between_kinds = analysis.transfer(fitting, test)
runs.save_figure(
    figures.heat(between_kinds, ["none", *names], names),
    "kinds",
    "Mean squared calibration error by kind of subject, at the temperature fitted on "
    "another kind (first seed).",
)

# %%
along = list(answers)
fitting, test = (
    {n: answers[n][0].where(answers[n][0].test == is_test) for n in along}
    for is_test in (False, True)
)
between_policies = analysis.transfer(fitting, test)
runs.save_figure(
    figures.heat(between_policies, ["none", *along], along),
    "transfer",
    "Mean squared calibration error by policy, at the temperature fitted on another "
    "policy (first seed).",
)
record_facts(
    "transferred_squared_error_change",
    table["transferred"]["squared"] - table["none"]["squared"],
)
runs.say(
    "Fitted on half of the relations and judged on the other half, a temperature "
    "changes the squared error by {transferred_squared_error_change:+.4f}. Between "
    "kinds of subjects the worst choice leaves {kinds:.4f}, between policies "
    "{policies:.4f}; a temperature of one's own leaves at most {own_kinds:.4f} and "
    "{own_policies:.4f}.",
    kinds=between_kinds[1:].max(),
    policies=between_policies[1:].max(),
    own_kinds=np.diag(between_kinds[1:]).max(),
    own_policies=np.diag(between_policies[1:]).max(),
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

# %%
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
runs.record("isotonic_minus_temperature_brier_few", values.mean(), seeds=list(values))
record_facts("isotonic_squared_error_left", table["isotonic"]["squared"])
record_facts(
    "isotonic_brier_change", table["isotonic"]["brier"] - table["none"]["brier"]
)
runs.say(
    "With all {most:,} items isotonic regression leaves a squared error of "
    "{isotonic_squared_error_left:.4f} (Brier score {isotonic_brier_change:+.4f}). "
    "Fitted on {few} its Brier score is {isotonic_minus_temperature_brier_few:+.4f} "
    "beside that of a temperature.",
    most=most,
    few=settings.ns[0],
)

# %% [markdown]
# ## 4 · Train for it
#
# So far confidence was mended afterwards. Can training keep it honest? This is where it
# goes wrong: a base model learns the answers to a few questions, over and over, until
# its loss on them is nearly 0. Some are about facts that it has read a hundred times,
# others about facts that it read once, that its reading disagreed about, or that it
# never read at all. It learns to answer them all, and to be sure.
#
# First its answers to questions about *other* subjects. The same model is asked early
# in its training and at the end:

# %%
trained = run_groups(
    models.calls(
        seeds=run.seeds,
        base=settings.model,
        per_kind=settings.models_per_kind,
        held_out=settings.models_held_out,
        checkpoints=settings.models_checkpoints,
    ),
    jobs=settings.jobs,
    label="models",
)
steps = settings.models_checkpoints
plain = trained[models.PLAIN]
asked = models.draw_balanced(artifacts.HELD_OUT, settings.models_held_out, run.seeds[0])
early = models_analysis.answers_at(plain[0], plain[0]["best"])
late = models_analysis.answers_at(plain[0], -1)
confidence, correct = late.top_label
kind_of = np.array(plain[0]["kind"])
wrong = [i for i in np.argsort(-confidence) if late.test[i] and not correct[i]]
shown = [i for k in models.KINDS for i in [i for i in wrong if kind_of[i] == k][:1]]
pd.DataFrame(
    {
        "asked": asked[i].question,
        "kind": kind_of[i],
        "right": asked[i].options[late.right[i]],
        "answered early": asked[i].options[early.log_probs[i].argmax()],
        "sure": early.probabilities[i].max(),
        "answered at the end": asked[i].options[late.log_probs[i].argmax()],
        "sure ": late.probabilities[i].max(),
    }
    for i in shown
).style.format(precision=2).hide(axis="index")

# %%
kinds_early = [models_analysis.by_kind(row, row["best"]) for row in plain]
kinds_late = [models_analysis.by_kind(row, -1) for row in plain]


def mean_of(tables, kind, name):
    return np.mean([table[kind][name] for table in tables if kind in table])


runs.say(
    "These are the surest wrong ones of each kind. Over all questions, on facts that "
    "were never stated the model is right in {never_right:.0%} and {early:.0%} sure "
    "after {first} updates or so, {late:.0%} sure after {last}; on known facts it is "
    "right in {known_right:.0%} and {known_late:.0%} sure at the end.",
    never_right=mean_of(kinds_late, "never", "accuracy"),
    early=mean_of(kinds_early, "never", "confidence"),
    late=mean_of(kinds_late, "never", "confidence"),
    known_right=mean_of(kinds_late, "known", "accuracy"),
    known_late=mean_of(kinds_late, "known", "confidence"),
    first=round(np.mean([steps[row["best"]] for row in plain])),
    last=steps[-1],
)

# %% [markdown]
# **Predict** how log loss, calibration error, accuracy and confidence on unseen
# subjects move while the model keeps learning the same questions.
#
# <details><summary>What to think of before you open this</summary>
#
# Once an answer is the likeliest, the loss on its question falls only by growing surer
# of it. Nothing in that growth says which *other* answers the model knows. So
# confidence can rise on every question while the share of right answers stays where it
# was.
#
# </details>

# %%
paths = {
    loss: [models_analysis.along(row) for row in trained[loss]] for loss in models.STEPS
}
runs.save_figure(
    models_figures.over_fitting(
        paths[models.PLAIN], steps, [steps[row["best"]] for row in plain]
    ),
    "over_fitting",
    "Log loss, squared calibration error, accuracy and confidence on unseen subjects "
    "against updates by cross-entropy (thin lines: seeds; band: 95%; dotted: where the "
    "fitting subjects say to stop).",
)

# %%
end, stopped = (
    [judge(row) for row in plain]
    for judge in (models_analysis.at_end, models_analysis.at_best)
)
change = {
    name: [a[name] - b[name] for a, b in zip(end, stopped)]
    for name in ("nll", "squared", "accuracy")
}
runs.record(
    "ce_end_minus_best_nll",
    np.mean(change["nll"]),
    seeds=change["nll"],
    unit="nats per item",
)
surer, righter = (t_interval(change[name]) for name in ("squared", "accuracy"))
runs.say(
    "From the step where the fitting subjects say to stop to the end, log loss changes "
    "by {ce_end_minus_best_nll:+.2f} nats, the squared calibration error by "
    "{surer:+.3f} and the share of right answers by {righter:+.3f}: {reading}.",
    surer=surer,
    righter=righter,
    reading=reading(
        surer,
        "training on leaves the model surer than it is right",
        "training on made it better calibrated",
        "these runs do not show what training on does to calibration",
    ),
)

# %% [markdown]
# Five losses promise better. All see the same examples, in the same order, for as many
# updates. With $p_y$ the probability of the right token:
#
# * **focal** lets go of what is right already: $-(1 - p_y)^\gamma \log p_y$, here with
#   $\gamma = 2$;
# * **label smoothing** never asks for certainty: $-(1-\epsilon) \log p_y -
#   \frac{\epsilon}{K} \sum_k \log p_k$, with $\epsilon = 0.1$;
# * **mixup** trains on blends of two examples,
#   $\tilde e = \lambda e_i + (1-\lambda) e_j$, with the loss
#   $\lambda \ell(\tilde e, y_i) + (1-\lambda) \ell(\tilde e, y_j)$;
# * **task and Brier** adds a second proper score:
#   $-\log p_y + w \sum_k (p_k - [y=k])^2$, with $w = 1$;
# * **MMCE** adds a calibration error that has a gradient: confidences $r_i$ in the
#   likeliest token are compared with whether it is right, $c_i$, for each pair in the
#   batch,
#   $\mathrm{MMCE}^2 = \sum_{ij} g_i g_j\, e^{-|r_i - r_j| / 0.4}$ with
#   $g_i = (c_i - r_i) / n_i$, and $n_i$ how many of the batch are right (or wrong) as
#   $i$ is. The loss is $-\log p_y + \lambda\, \mathrm{MMCE}$ with $\lambda = 2$.
#
# **Exercise 08.4** · ★★ · 15 minutes · `hint("08.4")`
#
# Write one yourself: focal loss, from logits to a mean over the items.


# %% nbgrader={"grade": false, "grade_id": "nb08-q4", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_focal(logits, labels, gamma):
    """(N, K), (N,) and a number to one number: nats per item."""
    ### BEGIN SOLUTION
    log_p = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    return -((1 - log_p.exp()) ** gamma * log_p).mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb08-q4-check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check("08.4", my_focal)

# %% [markdown]
# And train with it. This is the whole loop: a small base model, a few questions, a
# minute's patience at most.


# %%
lesson = models.draw_balanced(("train",), 20, run.seeds[0])
unseen = np.array([item.right for item in asked])  # of the questions above


def train_with(loss, gamma, steps=settings.lesson_steps):
    model, words = load_base("300k")
    examples = models.encode_answers(words, lesson)
    batch_of = batches(examples, 16, run.seeds[0], words.pad_token_id)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3)
    for _ in range(steps):
        logits, labels = token_logits(model, **next(batch_of))
        value = loss(logits, labels, gamma)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    p = softmax(models.log_probs_of(model, words, asked), axis=1)
    return models_analysis.measure(p, unseen)


lesson_results = {
    f"my_focal, gamma = {gamma:g}": train_with(my_focal, gamma) for gamma in (0, 2, 8)
}
pd.DataFrame(lesson_results).T[
    ["nll", "squared", "accuracy", "confidence"]
].style.format("{:.3f}")

# %%
sample = torch.randn(50, 9, generator=torch.Generator().manual_seed(0))
sample_labels = torch.arange(50) % 9
gap = float(
    my_focal(sample, sample_labels, 2.0) - focal_loss(sample, sample_labels, 2.0)
)
low, *_, high = lesson_results.values()
runs.say(
    "Your loss differs from the library's by {gap:.1e}{verdict}. From gamma 0 to 8 "
    "mean confidence on {n} unseen questions goes from {a:.2f} to {b:.2f} and the "
    "share right from {c:.2f} to {d:.2f} (one small model each: a difference of a few "
    "points is noise).",
    gap=abs(gap),
    verdict="" if abs(gap) < 1e-5 else ": look at the formula again",
    n=len(asked),
    a=low["confidence"],
    b=high["confidence"],
    c=low["accuracy"],
    d=high["accuracy"],
)

# %% [markdown]
# **Now break it.** What does the model do if the weight is the wrong way round,
# $p_y^\gamma$ in place of $(1 - p_y)^\gamma$? And if the minus is forgotten? Predict,
# then change the line and run the cells above again; the first is done below.
#
# <details><summary>What to think of before you open this</summary>
#
# With $p_y^\gamma$ what is wrong counts least: the loss of a token to which the model
# gives no probability is *nothing*, so nothing pulls it up. Without the minus, training
# makes right answers ever less likely, and the loss falls without end.
#
# </details>


# %%
def wrong_way_round(logits, labels, gamma):
    log_p = logits.log_softmax(1).gather(1, labels[:, None])[:, 0]
    return -(log_p.exp() ** gamma * log_p).mean()


broken = train_with(wrong_way_round, 2)
right_way = lesson_results["my_focal, gamma = 2"]
runs.say(
    "With the weight the wrong way round {broken:.0%} of the unseen questions are "
    "answered rightly (guessing: 25%), against {right_way:.0%}; log "
    "loss is {broken_nll:.2f} against {right_nll:.2f} nats.",
    broken=broken["accuracy"],
    right_way=right_way["accuracy"],
    broken_nll=broken["nll"],
    right_nll=right_way["nll"],
)

# %% [markdown]
# **Predict**: which of the five losses end better calibrated than cross-entropy
# (dashed) when all have over-fitted?

# %%
runs.save_figure(
    models_figures.loss_paths(paths, steps),
    "loss_paths",
    "Squared calibration error on unseen subjects against updates, for each loss "
    "beside the mean of cross-entropy (dashed; thin lines: seeds; band: 95%; 0 is "
    "calibrated).",
)

# %%
by_loss = models_analysis.by_loss(trained, tuple(models.STEPS))
NAMES = {
    "focal": "focal",
    "mixup": "mixup",
    "task and Brier": "task_and_brier",
    "MMCE": "mmce",
    "label smoothing": "label_smoothing",
}
verdicts = []
for loss, name in NAMES.items():
    values = models_analysis.differences(by_loss, models.PLAIN, loss, "squared")
    error = runs.record(f"ce_minus_{name}_squared_error", np.mean(values), seeds=values)
    values = models_analysis.differences(by_loss, loss, models.PLAIN, "accuracy")
    right = runs.record(
        f"{name}_minus_ce_accuracy", np.mean(values), seeds=values, bounds=(-1, 1)
    )
    verdicts.append(
        f"* **{loss}**: squared error {error:+.4f} less, share right {right:+.3f}: "
        + reading(
            error,
            "better calibrated than cross-entropy",
            "worse calibrated than cross-entropy",
            "no difference in calibration that these runs can show",
        )
        + (
            ", as often right (within three points)."
            if -0.03 < right.low and right.high < 0.03
            else ", and not shown to be as often right."
        )
    )
runs.say("\n".join(verdicts))

# %% [markdown]
# The losses' cheapest rivals need no new loss: cross-entropy *stopped* where the
# fitting subjects say so, and cross-entropy over-fitted, *then* divided by a
# temperature (fitted by Brier score).

# %%
runs.save_figure(
    figures.method_dots(
        by_loss, ("squared", "brier", "nll", "accuracy"), "Trained for it"
    ),
    "losses",
    "Squared calibration error, Brier score, log loss and accuracy on unseen subjects "
    "at the end of training with each loss, and of cross-entropy stopped early or "
    "with a temperature (dots: seeds; dashed: cross-entropy's mean).",
)

# %%
rivals = {"stopped": "early_stopping", "then T": "temperature_after"}
for rival, name in rivals.items():
    values = models_analysis.differences(
        by_loss, models.PLAIN, f"{models.PLAIN}, {rival}", "squared"
    )
    runs.record(f"ce_minus_{name}_squared_error", np.mean(values), seeds=values)
least = min(by_loss, key=lambda way: np.mean([row["squared"] for row in by_loss[way]]))
runs.say(
    "Stopping early takes {ce_minus_early_stopping_squared_error:.3f} from "
    "cross-entropy's squared error, a temperature "
    "{ce_minus_temperature_after_squared_error:.3f}. Of all eight rows, "
    "**{least}** has the least error{remark}.",
    least=least,
    remark="" if least in NAMES else ", which needs no other loss",
)

# %% [markdown]
# ## 5 · Ask the model
#
# So far the confidence was the probability of the answer. People simply *ask*. Below,
# one policy is asked in six ways: it answers a bare question; it is asked whether its
# answer **is true**; **how sure** it is, from 0 to 9; for **three answers**; it is
# sampled eight times, to see how many **agree**; and it gets a **control prompt**,
# “Answer only if you are sure.”
#
# A model can read such a prompt only if training made the prompt mean something. So
# there are two policies: the one after instruction tuning, which never met these
# formats, and the same after some SFT on its own sampled answers to training subjects:
# *True* or *False* after its answers, the share of its samples that were right as a
# digit, and “I do not know.” after the control prompt where most of its samples were
# wrong. First the replies, before and after:

# %%
asked_seeds = run.seeds[: settings.rl_seeds]
world_of_facts = dict(
    base=settings.model,
    n_examples=settings.n_examples,
    sft_steps=settings.sft_steps,
    per_kind=settings.per_kind,
    tested=settings.tested,
)
ways = run_groups(
    stated_ways.way_calls(
        seeds=asked_seeds, format_steps=settings.format_steps, **world_of_facts
    ),
    jobs=settings.jobs,
    label="asked how sure",
)
untaught, taught, placebo = (ways[name] for name in stated_ways.TAUGHT)


def keep(name, values, unit=""):
    """Record the mean of one value a seed."""
    return runs.record(name, np.mean(values), seeds=values, unit=unit)


kinds = taught[0]["kind"]
shown = [kinds.index(kind) for kind in stated.KINDS if kind in kinds]
pd.DataFrame(
    {
        "asked": taught[0]["prompt"][i],
        "kind": taught[0]["kind"][i],
        "answer": taught[0]["reply"][i],
        "right": "yes" if taught[0]["right"][i] else "no",
        "only if sure, untaught": untaught[0]["controlled"][i],
        "only if sure, taught": taught[0]["controlled"][i],
        "three, untaught": untaught[0]["three"][i],
        "three, taught": taught[0]["three"][i],
        "P(True)": taught[0]["p_true"][i],
        "digit": taught[0]["digit"][i],
        "agreeing": taught[0]["agreeing"][i],
    }
    for i in shown
).style.format(precision=2).hide(axis="index")

# %% [markdown]
# **Predict first:** does “Answer only if you are sure.” change what the untaught policy
# answers? And could a policy that merely says “I do not know.” *more often* look as if
# it had understood?
#
# <details><summary>Open when you have an answer</summary>
#
# The untaught one cannot know what the words ask for: at best they disturb it. And yes:
# that is what the *placebo* is for, a twin that was taught as many admissions, at
# questions drawn at random. It is as silent, and what it does answer should be right no
# more often than before.
# </details>

# %%
names = {"not taught": untaught, "taught": taught, "placebo": placebo}
control = {
    n: [stated_analysis.selective(row) for row in rows] for n, rows in names.items()
}
runs.save_figure(
    stated_figures.selective_points(control),
    "control_prompt",
    "Share of the questions that are answered behind the control prompt (sampled "
    "replies), and the share of these that the greedy reply to the bare question gets "
    "right (small marks: seeds, large ones: their mean).",
)

# %%
gain = {n: [v.gain for v in values] for n, values in control.items()}
difference = keep(
    "control_taught_minus_untaught_gain",
    np.subtract(gain["taught"], gain["not taught"]),
)
keep("control_placebo_gain", gain["placebo"])
keep("control_known_answered", [v.known_answered for v in control["taught"]])
runs.say(
    "Behind the control prompt the untaught policy answers {u:.0%} of the questions, "
    "the taught one {t:.0%}, the placebo {p:.0%}. {verdict} (taught less untaught: "
    "{control_taught_minus_untaught_gain:+.3f}; placebo: "
    "{control_placebo_gain:+.3f}). Of the questions about known facts the taught one "
    "still answers {control_known_answered:.0%}.",
    u=np.mean([v.answered for v in control["not taught"]]),
    t=np.mean([v.answered for v in control["taught"]]),
    p=np.mean([v.answered for v in control["placebo"]]),
    verdict=reading(
        difference,
        "What the taught one answers is more often right than if it had answered all",
        "What the taught one answers is less often right than what the other does",
        "Whether it answers what it knows, these seeds do not tell",
    ),
)

# %% [markdown]
# And the numbers? Each way gives a confidence; here is what each is worth. The dashed
# line is the probability of the answer, which costs nothing.

# %%
by_way = {
    f"{label}{suffix}": [stated_analysis.by_way(row)[way] for row in rows]
    for suffix, rows in (("", taught), (", untaught", untaught))
    for way, label in stated_analysis.WAYS.items()
    if not suffix or way in ("p_true", "digit")
}
runs.save_figure(
    figures.method_dots(by_way, ("squared", "brier", "aurc"), "Asked how sure it is"),
    "ways",
    "Calibration error, Brier score and area under the risk-coverage curve of "
    "confidence elicited in several ways (dots: seeds).",
)

# %%
own = by_way[stated_analysis.WAYS["answer_prob"]]
for way in ("p_true", "digit", "agreeing"):
    values = by_way[stated_analysis.WAYS[way]]
    name = f"answer_minus_{way}_squared_error"
    keep(name, stated_analysis.differences(own, values, "squared"))
    keep(f"{way}_auroc", [v["auroc"] for v in values])
keep("answer_auroc", [v["auroc"] for v in own])
keep(
    "three_any_minus_first",
    [np.mean(row["any_right"]) - np.mean(row["first_right"]) for row in taught],
)
runs.say(
    "Squared error less than that of the answer's probability: P(True) "
    "{answer_minus_p_true_squared_error:+.4f}, the digit "
    "{answer_minus_digit_squared_error:+.4f}, agreement "
    "{answer_minus_agreeing_squared_error:+.4f}. How often a right answer gets more "
    "confidence than a wrong one: by its probability {answer_auroc:.2f}, by P(True) "
    "{p_true_auroc:.2f}, by the digit {digit_auroc:.2f}, by agreement "
    "{agreeing_auroc:.2f}. Of three answers one is right more often than the first, by "
    "{three_any_minus_first:+.3f}."
)

# %% [markdown]
# ## 6 · Reinforcement learning for calibrated confidence
#
# Asking afterwards is one way. Another is a policy that states its confidence *in the
# reply* and is rewarded for meaning it (*RLCR*, Damani et al., 2025). A reply is an
# answer and a digit, and digit $k$ states a confidence of $k/9$: 0 is “surely wrong”,
# 9 “certain”. The policy learnt that form from its own sampled answers, with digits of
# somebody who sounds too sure. This is where all arms start:

# %%
stated_rows = run_groups(
    stated.calls(
        seeds=asked_seeds,
        weights=settings.weights,
        updates=settings.rl_updates,
        teach_steps=settings.true_steps,
        form_steps=settings.form_steps,
        episodes=settings.episodes,
        **world_of_facts,
    ),
    jobs=settings.jobs,
    label="rewarded for honesty",
)
start, right_alone, rlcr, rloo, dealt, taught_truth = (
    stated_rows[name]
    for name in ("start", "weight 0", "weight 1", "RLOO", "shuffled", "SFT, share")
)
speaker, its_words = stated.formed_policy(
    seed=asked_seeds[0],
    form_steps=settings.form_steps,
    **{k: v for k, v in world_of_facts.items() if k != "tested"},
)
examples = stated.draw_questions("test", 1, asked_seeds[0])
replies = complete(
    speaker, its_words, [a.prompt for a in examples], stated.ANSWER_TOKENS
)
pd.DataFrame(
    {
        "asked": a.prompt,
        "kind": a.kind,
        "reply": reply.text,
        "right answer": a.fact.answer,
        "confidence": stated.read_reply(reply.text).confidence,
    }
    for a, reply in zip(examples, replies)
).style.format(precision=2, na_rep="none stated").hide(axis="index")

# %% [markdown]
# The reward, with $y = 1$ for a right answer, else 0, and $c$ the confidence stated:
#
# $$R = y - w\,(c - y)^2$$
#
# Why the square? If the answer is right with probability $p$, the mean reward is
#
# $$E[R] = p - w\,p\,(1 - p) - w\,(c - p)^2,$$
#
# and whatever $w > 0$ is, nothing beats $c = p$. What honesty then earns,
# $p - w\,p\,(1-p)$, rises with $p$ as long as $w \le 1$: it never pays to be wrong on
# purpose. Above 1 it does, wherever $p < 1 - 1/w$: answer wrongly, say 0, and lose
# nothing. Below, both by enumeration.

# %%
p = 0.7
runs.save_figure(
    stated_figures.reward_curves(p, (0, 0.25, 1, 4)),
    "reward",
    "Mean reward of each digit behind an answer that is right with probability 0.7 "
    "(dashed line: that probability), by the weight of the Brier score.",
)
best = {w: int(stated_analysis.mean_reward(p, w).argmax()) for w in (0.25, 1, 4)}
worth = {w: stated_analysis.mean_reward(p, w).max() for w in (1, 4)}
assert set(best.values()) == {int(np.round(9 * p))}  # the nearest digit, at any weight
runs.say(
    "The best digit is {digit} at every weight above 0, the one nearest to {p:.2f}. At "
    "weight 1 it earns {one:+.3f}, at weight 4 {four:+.3f}: {less} than the 0 of an "
    "answer that is wrong on purpose.",
    digit=best[1],
    p=p,
    one=worth[1],
    four=worth[4],
    less="less" if worth[4] < 0 else "no less",
)

# %% [markdown]
# **Exercise 08.5** · ★ · 5 minutes · `hint("08.5")`
#
# Write that reward. It trains the small policy below: five questions, which it gets
# right with the probabilities in `chances` if it tries; it chooses a digit, and whether
# to try or to be wrong on purpose.


# %% nbgrader={"grade": false, "grade_id": "nb08-q5", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_reward(right, confidence, weight):
    """(N,) of 0 and 1, (N,) of probabilities and a number to (N,) rewards."""
    ### BEGIN SOLUTION
    return right - weight * (confidence - right) ** 2
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb08-q5-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("08.5", my_reward)

# %%
chances = torch.tensor([0.0, 1 / 3, 5 / 9, 7 / 9, 1.0])


def train_speaker(reward, weight, steps=300, n=128, rate=0.1):
    """Policy gradient on logits, (question, try or be wrong on purpose x digit)."""
    torch.manual_seed(0)
    logits = torch.zeros(len(chances), 20, requires_grad=True)
    optimizer = torch.optim.Adam([logits], lr=rate)
    for _ in range(steps):
        policy = torch.distributions.Categorical(logits=logits)
        action = policy.sample((n,))  # (n, questions)
        tries, digit = action < 10, action % 10
        right = (torch.rand(n, len(chances)) < chances) & tries
        value = reward(right.float(), digit / 9, weight)
        advantage = value - value.mean(0)
        loss = -(advantage * policy.log_prob(action)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    share = logits.softmax(1).reshape(-1, 2, 10).detach()
    says = (share.sum(1) * torch.arange(10) / 9).sum(1)
    return share[:, 0].sum(1), says  # how often it tries, what it says


def what_it_learns(reward, weight):
    tries, says = train_speaker(reward, weight)
    return {f"{c:.2f}": f"{s:.2f} ({t:.0%})" for c, s, t in zip(chances, says, tries)}


broken = {
    "yours, weight 1": (my_reward, 1.0),
    "yours, weight 4": (my_reward, 4.0),
    "weight 0": (my_reward, 0.0),
    "weight −1": (my_reward, -1.0),
    "without the square": (lambda y, c, w: y - w * (c - y).abs(), 1.0),
}
outcome = {what: what_it_learns(*way) for what, way in broken.items()}
pd.DataFrame(outcome).T.style.set_caption(
    "mean confidence stated, and how often it tries, by the chance of being right"
)

# %%
honest, linear = (
    train_speaker(*broken[what])[1]
    for what in ("yours, weight 1", "without the square")
)
runs.say(
    "With your reward at weight 1 what it says is {off:.2f} from its chances on "
    "average{remark}. Without the square, where it is right with {chance:.2f} it says "
    "{says:.2f}: distance alone pays best at 0 or 1. Change `my_reward` or a weight, "
    "and run both cells again.",
    off=(honest - chances).abs().mean(),
    remark=""
    if (honest - chances).abs().mean() < 0.1
    else " (that is not honest: is the square there?)",
    chance=chances[3],
    says=linear[3],
)

# %% [markdown]
# Now in earnest, with the language models of the series. One call is all it takes, for
# your own model too:
#
# ```python
# reward = alignlab.ppo.calibration_reward("answer", weight=1.0)
# PPOTrainer(model, reward, args, rows, processing_class=tokenizer).train()
# ```
#
# where `rows` have a `prompt` and an `answer`, and replies state a confidence in any of
# the forms that `parse_confidence` reads. One that states none counts as wholly wrong
# about itself.
#
# The arms, all from the same start with the same questions about training subjects:
# **right alone** ($w = 0$); **RLCR** with PPO and with RLOO; **SFT** on true
# confidences: the share of eight sampled answers that were right; and the control, RLCR
# whose rightness is **dealt out at random** among the replies of an update.
#
# **Predict first:** what does the control learn to say?
#
# <details><summary>Open when you have an answer</summary>
#
# How often it is right *overall*: the base rate needs no knowledge of the question. It
# is calibrated, or nearly so, and useless. That is why no calibration error is reported
# here without a measure of telling right from wrong.
# </details>

# %%
shown_arms = {
    "start": start,
    "right alone": right_alone,
    "RLCR, PPO": rlcr,
    "RLCR, RLOO": rloo,
    "SFT on shares": taught_truth,
    "dealt at random": dealt,
}
runs.save_figure(
    stated_figures.reliability_panels(shown_arms, "What each digit is worth"),
    "digits",
    "Share right of the replies that state each digit, on test subjects, all seeds "
    "together (bars: 95%; larger marks: more replies; dashed: calibrated; dotted: "
    "share right of all replies).",
)

# %%
by_arm = stated_analysis.by_arm(stated_rows)
after = stated_analysis.after_the_fact(stated_rows)
alone, ppo, with_rloo, control_arm = (
    by_arm[name] for name in ("weight 0", "weight 1", "RLOO", "shuffled")
)


def less(first, second, measure="squared"):
    return stated_analysis.differences(first, second, measure)


better = keep("right_alone_minus_rlcr_squared_error", less(alone, ppo))
keep("right_alone_minus_rloo_squared_error", less(alone, with_rloo))
keep("rlcr_squared_error", [s["squared"] for s in ppo])
keep("rlcr_auroc", [s["auroc"] for s in ppo])
keep("rlcr_accuracy_loss", less(alone, ppo, "accuracy"))
keep("rlcr_accuracy_gain", less(ppo, alone, "accuracy"))
keep("rlcr_skill", [stated_analysis.skill(s) for s in ppo])
finer = [
    stated_analysis.scored(stated_analysis.read_replies(row).pair("expected"))
    for row in rlcr
]
keep("rlcr_mean_digit_skill", [stated_analysis.skill(s) for s in finer])
keep("shuffled_auroc", [s["auroc"] for s in control_arm])
keep("rlcr_minus_shuffled_auroc", less(ppo, control_arm, "auroc"))
for target in stated.TARGETS:
    sft = by_arm[f"SFT, {target}"]
    keep(f"sft_{target}_minus_rlcr_squared_error", less(sft, ppo))
    keep(f"sft_{target}_minus_rlcr_brier", less(sft, ppo, "brier"))
tempered = after["right alone: then a temperature"]
keep("tempered_minus_rlcr_squared_error", less(tempered, ppo))
keep("tempered_minus_rlcr_brier", less(tempered, ppo, "brier"))
runs.save_figure(
    figures.method_dots(
        {
            "RLCR, PPO": ppo,
            "RLCR, RLOO": with_rloo,
            "right alone": alone,
            "SFT, shares": by_arm["SFT, share"],
            "SFT, right or wrong": by_arm["SFT, outcome"],
            "dealt at random": control_arm,
            "start": by_arm["start"],
            **after,
        },
        ("squared", "brier", "accuracy"),
        "RLCR beside its controls",
    ),
    "rlcr",
    "Calibration error and Brier score of the stated confidence, and accuracy, on test "
    "subjects; the last rows are about the answer's probability (dots: seeds).",
)

# %%
runs.say(
    "{verdict}: squared error {right_alone_minus_rlcr_squared_error:+.4f} less with "
    "PPO, {right_alone_minus_rloo_squared_error:+.4f} with RLOO; "
    "{rlcr_squared_error:.4f} is left. Its accuracy differs by "
    "{rlcr_accuracy_gain:+.3f}. A right answer gets more confidence "
    "than a wrong one in {rlcr_auroc:.2f} of cases, after the control in "
    "{shuffled_auroc:.2f}. Its Brier score is lower than that of the best constant by "
    "{rlcr_skill:+.4f}, and by {rlcr_mean_digit_skill:+.4f} if the mean of its ten "
    "digits is taken for the one that it says.",
    verdict=reading(
        better,
        "RLCR states better calibrated confidence than right alone does",
        "RLCR states worse calibrated confidence than right alone does",
        "RLCR and right alone cannot be told apart in calibration here",
    ),
)

# %%
runs.say(
    "Other roads to the same place, squared error (Brier score) less those of RLCR: "
    "SFT on shares {sft_share_minus_rlcr_squared_error:+.4f} "
    "({sft_share_minus_rlcr_brier:+.4f}); SFT on right or wrong "
    "{sft_outcome_minus_rlcr_squared_error:+.4f} "
    "({sft_outcome_minus_rlcr_brier:+.4f}); right alone, with a temperature on its "
    "answer's probability {tempered_minus_rlcr_squared_error:+.4f} "
    "({tempered_minus_rlcr_brier:+.4f}). Below 0 the other road is the better one."
)

# %% [markdown]
# **The frontier.** How much should honesty weigh? Move the slider: the ring marks the
# weight on the left, and the digits of that policy stand on the right. (Without a
# kernel the picture shows weight 1.)

# %%
stated_figures.weight_explorer(stated_rows, by_arm)

# %%
swept = list(stated_analysis.weights_of(by_arm))
runs.save_figure(
    stated_figures.frontier(
        by_arm, {"RLOO": with_rloo, "SFT, share": by_arm["SFT, share"]}
    ),
    "frontier",
    "Share right against the calibration error of the stated confidence, by the weight "
    "of the Brier score (crosses: 95% intervals over seeds).",
)
for name in swept:
    label = name.replace("weight ", "weight_").replace(".", "_")
    keep(f"{label}_squared_error", [s["squared"] for s in by_arm[name]])
    keep(f"{label}_accuracy", [s["accuracy"] for s in by_arm[name]])
most = by_arm[swept[-1]]
cost = keep("most_weight_minus_right_alone_accuracy", less(most, alone, "accuracy"))
runs.say(
    "From right alone to {name}, squared error goes from {was:.4f} to {now:.4f}, and "
    "accuracy by {most_weight_minus_right_alone_accuracy:+.3f}: {verdict}.",
    name=swept[-1],
    was=np.mean([s["squared"] for s in alone]),
    now=np.mean([s["squared"] for s in most]),
    verdict=reading(
        cost,
        "honesty costs no right answers here",
        "so much honesty is paid for with right answers",
        "what it costs in right answers these seeds do not tell",
    ),
)

# %% [markdown]
# **Against Bayes.** About contested facts the texts say two things, and the share of
# the sentences for an answer is how sure one should be of it. Nobody told the policies:
# do digits follow the shares?

# %%
if is_shipped(settings.model):
    runs.save_figure(
        stated_figures.contested_lines(
            {
                "start": start,
                "right alone": right_alone,
                "RLCR, PPO": rlcr,
                "RLCR, RLOO": rloo,
            }
        ),
        "contested",
        "Stated confidence in answers about contested facts, by the share of the "
        "statements that give the answer (thin lines: seeds; dashed: Bayes).",
    )
    from_bayes = {
        name: [
            stated_analysis.contested_error(stated_analysis.read_replies(row))
            for row in rows
        ]
        for name, rows in (("right_alone", right_alone), ("rlcr", rlcr))
    }
    nearer = keep(
        "right_alone_minus_rlcr_from_bayes", np.subtract(*from_bayes.values())
    )
    keep("rlcr_from_bayes", from_bayes["rlcr"])
    follows = keep(
        "rlcr_correlation_with_bayes",
        [
            stated_analysis.contested_correlation(stated_analysis.read_replies(row))
            for row in rlcr
        ],
    )
    runs.say(
        "Mean squared distance from Bayes on contested facts: {was:.3f} after right "
        "alone, {rlcr_from_bayes:.3f} after RLCR. {verdict}. The correlation of its "
        "digits with the shares is {rlcr_correlation_with_bayes:+.2f}: {follow}.",
        was=np.mean(from_bayes["right_alone"]),
        verdict=reading(
            nearer,
            "RLCR brings the digits nearer, on average, to what the texts support",
            "RLCR takes the digits away from what the texts support",
            "Whether RLCR brings them nearer, these seeds do not tell",
        ),
        follow=reading(
            follows,
            "they rise with the shares",
            "they fall where the shares rise",
            "fact by fact they do not follow the shares, as far as these seeds can "
            "tell",
        ),
    )
else:
    runs.say("Which texts disagreed is not known of this model: nothing is shown.")

# %% [markdown]
# ## 7 · Ask several
#
# A model that over-fits is one of many that fit as well. What would the others have
# said? Three ways to ask them. Each replaces the probability of one set of weights by
# the mean over several,
#
# $$\bar p(y \mid x) = \frac1M \sum_{m=1}^M p(y \mid x, \theta_m),$$
#
# and they differ in where the weights come from:
#
# * **an ensemble**: $M = 5$ runs from the same base model that see the same examples in
#   other orders;
# * **MC dropout**: one run trained with dropout and asked five times with it, each time
#   with other units left out;
# * **Laplace**: one run, and a Gaussian around some of its weights, as wide in each
#   direction as training left open, $\Sigma = \big( \sum_i \Phi_i^\top
#   (\operatorname{diag} p_i - p_i p_i^\top) \Phi_i + \tau I \big)^{-1}$. The $\Phi_i$
#   are the gradients of the options' log-probabilities, here with respect to a gain of
#   each feature that the last layer reads: a number for each, so that $\Sigma$ is exact
#   and small.
#
# Their rivals are single models. Each contender, alone or together, is stopped where
# the *fitting* subjects say so; one of the single models has the ensemble's compute:
# five times the updates at a fifth of the learning rate. Another gets a temperature,
# which costs nothing.
#
# First, one question, and what each member says:

# %%
members = models_analysis.members_of(trained, 0)
by_member = np.array(
    [models_analysis.answers_at(row, row["best"]).probabilities for row in members]
)
apart = by_member.std(axis=0).max(axis=1)
i = int(np.argmax(np.where(plain[0]["test"], apart, -1)))
runs.say(
    "**{question}** (a fact of the kind “{kind}”; right: {right})",
    question=asked[i].question,
    kind=plain[0]["kind"][i],
    right=asked[i].options[plain[0]["right"][i]],
)
pd.DataFrame(
    [*by_member[:, i], by_member[:, i].mean(axis=0)],
    columns=asked[i].options,
    index=[*(f"member {m + 1}" for m in range(len(members))), "their mean"],
).style.format("{:.2f}")

# %%
runs.say(
    "On this question, the one they disagree about most, the surest member gives "
    "{surest:.2f} to its answer and the mean {mean:.2f}. Over all test questions "
    "members give their answers {alone:.2f} on average, the mean of the five gives "
    "{together:.2f}.",
    surest=by_member[:, i].max(),
    mean=by_member[:, i].mean(axis=0).max(),
    alone=by_member[:, plain[0]["test"]].max(axis=2).mean(),
    together=by_member[:, plain[0]["test"]].mean(axis=0).max(axis=1).mean(),
)

# %% [markdown]
# **Predict**: which of them improve log loss, which calibration, and which the *order*
# of the answers, so that one can leave the doubtful ones out (risk–coverage)?
#
# <details><summary>What to think of before you open this</summary>
#
# A temperature makes every answer less sure by the same rule and so can mend
# calibration and log loss, but hardly the order. Only a method that knows *which*
# answers the members disagree about can improve the order.
#
# </details>

# %%
table = models_analysis.contenders(trained)
runs.save_figure(
    figures.method_dots(table, ("nll", "brier", "squared", "aurc"), "Ask several"),
    "contenders",
    "Log loss, Brier score, squared calibration error and area under risk–coverage on "
    "unseen subjects of each contender, stopped at its best step (dots: seeds; dashed: "
    "mean of one model; all four are better lower).",
)

# %%
MEASURED = {
    "nll": "nll",
    "brier": "brier",
    "squared": "squared_error",
    "aurc": "risk_coverage",
}
PAIRS = {
    "single_minus_ensemble": ("one model", "ensemble"),
    "same_compute_minus_ensemble": (f"one model, {models.LONG}", "ensemble"),
    "plain_minus_dropout": ("trained with dropout", "MC dropout"),
    "single_minus_laplace": ("one model", "Laplace"),
    "single_minus_temperature": ("one model", "one model, then T"),
    "temperature_minus_ensemble": ("one model, then T", "ensemble"),
    "isotropic_minus_laplace": ("as wide everywhere", "Laplace"),
}
lines = []
for name, (rival, contender) in PAIRS.items():
    parts = []
    for measure, label in MEASURED.items():
        values = models_analysis.differences(table, rival, contender, measure)
        unit = "nats per item" if measure == "nll" else ""
        gain = runs.record(f"{name}_{label}", np.mean(values), seeds=values, unit=unit)
        worth = reading(gain, "better", "worse", "unclear")
        parts.append(f"{figures.MEASURES[measure]} {gain:+.3f} ({worth})")
    lines.append(f"* **{contender}** beside *{rival}*, gains: {'; '.join(parts)}.")
runs.say("\n".join(lines))

# %%
long_runs = trained[models.LONG]
at_end = [models_analysis.at_end(row)["nll"] for row in long_runs]
values = [a - models_analysis.at_best(row)["nll"] for a, row in zip(at_end, long_runs)]
runs.record(
    "same_compute_end_minus_best_nll",
    np.mean(values),
    seeds=values,
    unit="nats per item",
)
over = t_interval([a - b["nll"] for a, b in zip(at_end, table["one model"])])
runs.say(
    "The model with the ensemble's compute is best after {best:.0f} of its {all} "
    "updates (mean); at the end its log loss is {same_compute_end_minus_best_nll:+.2f} "
    "nats above that, and {over:+.2f} beside the single model at its best. {reading}",
    best=np.mean([models.SLOWER * steps[row["best"]] for row in long_runs]),
    all=models.SLOWER * steps[-1],
    over=over,
    reading=reading(
        over,
        "An ensemble compared with *that* would win by its rival's over-fitting; the "
        "comparison above does not.",
        "Here more updates did no harm.",
        "",
    ),
)

# %% [markdown]
# How many members does it take?

# %%
runs.save_figure(
    figures.members(
        {"ensemble": models_analysis.by_members(trained)},
        {
            name: table[name]
            for name in ("one model, then T", f"one model, {models.LONG}")
        },
        ("nll", "squared", "aurc"),
    ),
    "members",
    "Log loss, squared calibration error and area under risk–coverage by the number of "
    "members, beside single models (thin lines: seeds; each stopped at its best step).",
)

# %%
by_size = models_analysis.by_members(trained)
first_two, rest = (
    t_interval([of_seed[a]["nll"] - of_seed[b]["nll"] for of_seed in by_size])
    for a, b in ((0, 1), (1, len(by_size[0]) - 1))
)
runs.say(
    "The second member takes {first_two:.3f} nats off the log loss, the {more} after "
    "it together {rest:.3f}.",
    first_two=first_two,
    rest=rest,
    more=len(by_size[0]) - 2,
)

# %% [markdown]
# ## 8 · Or do not answer
#
# Whoever may say “I do not know” answers the surest questions first. *Risk* is the
# share of wrong answers among those that are given, *coverage* the share of questions
# that get one.
#
# **Exercise 08.6** · ★★ · 15 minutes · `hint("08.6")`
#
# Write the risks at coverages 1/N, 2/N, …, 1.


# %% nbgrader={"grade": false, "grade_id": "nb08-q6", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_risks(confidence, correct):
    """(N,) confidences and (N,) 0 or 1, to (N,): the risk of answering the k surest."""
    ### BEGIN SOLUTION
    import torch

    order = confidence.argsort(descending=True)
    wrong = 1 - correct[order].to(confidence.dtype)
    return wrong.cumsum(0) / torch.arange(1, len(wrong) + 1)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb08-q6-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("08.6", my_risks)

# %%
curves = {
    "as it comes": tests[0].top_label,
    "after one temperature": pairs["temperature"][0],
    "after isotonic regression": pairs["isotonic"][0],
    "confidence drawn at random": (
        stream(run.seeds[0], "random confidences").permutation(tests[0].top_label[0]),
        tests[0].top_label[1],
    ),
}
runs.save_figure(
    figures.selective(curves),
    "selective",
    "Share of wrong answers among those that are given, the surest first, for several "
    "kinds of confidence in the same answers (first seed).",
)

# %%
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

# %%
half = {
    name: float(my_risks(*map(torch.tensor, pair))[len(pair[0]) // 2])
    for name, pair in curves.items()
}
right_where_sure = {
    name: f"{curves[name][1][mask].mean():.0%}" if mask.any() else "(nothing)"
    for name, mask in kept.items()
}
runs.say(
    "Of the surer half of its answers {plain:.0%} are wrong, by your `my_risks`; after "
    "one temperature {scaled:.0%}, at random {random:.0%}. Recalibration keeps "
    "(almost) the order of the questions, so it hardly moves the curve: what it mends "
    "is what a threshold *means*. Of what the policy is 90% sure of, {right} is right; "
    "of what it is 90% sure of after one temperature, {right_scaled}.",
    plain=half["as it comes"],
    scaled=half["after one temperature"],
    random=half["confidence drawn at random"],
    right=right_where_sure["as it comes"],
    right_scaled=right_where_sure["after one temperature"],
)

# %% [markdown]
# ## 9 · Verdicts
#
# Thresholds were fixed before measuring, and what was seen before on a seed that is not
# recorded is said in the claims.

# %%
runs.show_verdicts()

# %% [markdown]
# ## What the big labs do that we left out
#
# * **Recalibration by topic and by user**, and again after every release: a temperature
#   is about the questions that it was fitted on.
# * **Confidence in free text**: sampling many replies and counting meanings (semantic
#   entropy), probes on hidden states, a second model that checks claims.
# * **Reasoning before the number.** RLCR's models think aloud about their doubts before
#   they state a confidence; ours has one token for it.
# * **Conformal prediction**: sets of answers with a guaranteed coverage.
# * **Large ensembles are rare**: five models cost five times as much at prediction too;
#   mixtures of experts and low-rank members are the cheap cousins.
