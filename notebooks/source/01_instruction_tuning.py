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
# # 01 · What does instruction tuning teach, and from how much of what?
#
# A base model continues text. *Supervised fine-tuning* (SFT) shows it instructions with
# their replies and lowers the same next-token loss on them. The lectures say a lot
# about it: that it teaches form rather than knowledge, that few examples are enough,
# that variety carries over to new tasks. Here you write its loss, train with it, break
# it, and then measure each of these sayings.
#
# | | |
# | --- | --- |
# | **time** | `smoke` half a minute · `cpu` 3 minutes · `full` 12 minutes (two cores) |
# | **memory** | under 3 GB |
# | **you need** | notebook 00 (it runs alone: what is missing is built) |
# | **look at first** | your own training run in section 3, the two curves in section 5 |
# | **worth changing** | `hand_steps`, `n_examples`; `run.settings` shows all settings |
# | **on Colab** | run the set-up cell below first |

# %% tags=["parameters"]
profile = "cpu"  # smoke, cpu, full or gpu: how much to measure
seed = 0  # the first seed; the others follow it
device = "cpu"
out_dir = ""  # where metrics and figures go; empty: runs/interactive

# %%
from itertools import islice

import numpy as np
import pandas as pd
import torch

from alignlab import runs
from alignlab.chapters.instruction_tuning import analysis, artifacts, figures, transfer
from alignlab.chapters.instruction_tuning import runs as arms
from alignlab.chapters.instruction_tuning.self_instruct import generate_pairs
from alignlab.course import check, hint
from alignlab.data.loading import load
from alignlab.evaluation import answers
from alignlab.models.base import (
    is_shipped,
    load_base,
    pretraining_seeds,
    use_device,
)
from alignlab.models.sampler import complete
from alignlab.plots.explorers import reply_explorer
from alignlab.plots.style import use_style
from alignlab.study.arms import pick
from alignlab.study.scale import cap
from alignlab.study.statements import statement_log_probs
from alignlab.study.tuning import reply, sft_policy
from alignlab.training import sft, trl_parity
from alignlab.world import tasks
from alignlab.world.facts import split_subjects

use_style()
run = runs.start("01_instruction_tuning", profile, seed, device, out_dir)
use_device(device)
settings = run.settings
first = run.seeds[0]
sweep = dict(seeds=run.seeds, base=settings.model, jobs=settings.jobs)
few_seeds = {**sweep, "seeds": run.seeds[: settings.costly_seeds]}
larger = settings.shown_model if is_shipped(settings.model) else settings.model
base, tokenizer = load_base(larger)
wide = {"white-space": "normal", "max-width": "24em", "text-align": "left"}
shown_with = f"profile {profile}, seed {first}"

# %% [markdown]
# ## 1 · A completion first
#
# The same model, before and after SFT on a mixture of tasks. The questions are from the
# test half: training never asked about their subjects, and some belong to task families
# that were not trained at all.

# %%
policy, _ = sft_policy(
    first, base=larger, n_examples=settings.n_examples, steps=settings.steps
)
questions = [
    tasks.examples(family, 1, split="test", seed=seed + 1)[0]
    for family in ("capital", "opposite", "sorted", "movie_polarity", "last", "next")
]
prompts = [q.prompt for q in questions]
longest = cap(tokenizer, 20)  # tokens
before = complete(base, tokenizer, prompts, longest, chat=False)
after = complete(policy, tokenizer, prompts, longest)
pd.DataFrame(
    {
        "prompt": prompts,
        "base": [r.text.strip() or "(ends the text here)" for r in before],
        "after SFT": [r.text.strip() or "(nothing)" for r in after],
        "right": [" / ".join(q.answers[:2]) for q in questions],
        "family trained": [
            "no" if tasks.FAMILIES[q.family].held_out else "yes" for q in questions
        ],
    }
).style.set_properties(**wide).set_caption(f"{larger} parameters, {shown_with}")

# %%
scores = [answers.score(questions, replies) for replies in (before, after)]
runs.say(
    "Of these {n} questions the base model answers {b} rightly and the tuned one {a}; "
    "in the taught form (one short line that ends) are {fb} and {fa}.",
    n=len(questions),
    b=scores[0]["correct"].sum(),
    a=scores[1]["correct"].sum(),
    fb=scores[0]["formatted"].sum(),
    fa=scores[1]["formatted"].sum(),
)

# %% [markdown]
# Ask it yourself (the field needs a running kernel):

# %%
reply_explorer(policy, tokenizer, prompt="What is the capital of Germany?")

# %% [markdown]
# ## 2 · What a training example looks like
#
# **Rows.** Public instruction data mostly come as *(instruction, input, output)*: what
# to do, what to do it to, and the reply. The first two become the prompt.

# %%
capital = tasks.examples("capital", 1, seed=seed)[0]
continent = next(
    e for e in tasks.examples("continent") if e.fact.subject == capital.fact.subject
)
movie = next(
    item
    for item in tasks.table("movie_polarity")
    if item.split == "train" and len(item.fields["x"]) < 60
)
film, label = movie.fields["x"], movie.replies[0]
rows = [
    {"instruction": capital.prompt, "input": "", "output": capital.completion},
    {
        "instruction": "Is this film comment positive or negative?",
        "input": film,
        "output": f"{label}.",
    },
    {"instruction": "Sort the numbers.", "input": "7, 2, 5", "output": "2, 5, 7."},
]
as_pairs = load(rows, quiet=True)
table = pd.DataFrame(rows)
table["becomes the prompt"] = [row["prompt"].replace("\n", "⏎") for row in as_pairs]
table["and the completion"] = [row["completion"] for row in as_pairs]
table.style.set_properties(**wide)

# %%
runs.say(
    "{n} rows became {m} pairs; where there is an input, it follows the instruction "
    "after an empty line (⏎⏎). `load` reads files and Hub data of this kind as well.",
    n=len(rows),
    m=len(as_pairs),
)

# %% [markdown]
# **Templates.** An academic data set has no instructions: a row of film comments is a
# text and a label. FLAN and Super-NaturalInstructions wrote *templates* around such
# rows, several for each task, and so does our mixture. Here is one row in every
# wording; the last ones are never trained, but kept for a test:

# %%
family = tasks.FAMILIES["movie_polarity"]
wordings = (*family.instructions, *family.held_out_instructions)
pd.DataFrame(
    {
        "template": wordings,
        "prompt": [wording.format(**movie.fields) for wording in wordings],
        "completion": f"{label}.",
        "trained": ["yes"] * len(family.instructions)
        + ["no"] * len(family.held_out_instructions),
    }
).style.set_properties(**wide).set_caption(f"text: {film!r}, label: {label!r}")

# %%
runs.say(
    "One row of a classification gives {trained} training prompts and {kept} that are "
    "never trained. The mixture has {families} families of tasks made like this.",
    trained=len(family.instructions),
    kept=len(family.held_out_instructions),
    families=len(tasks.trained_families()),
)

# %% [markdown]
# **Turns, and which tokens count.** The chat template marks who speaks. The loss is
# taken on what the assistant says, with the token that ends it, not on the prompt. In a
# dialogue of several turns there is a choice: the last reply, every turn of the
# assistant, or everything. What is learnt is in colour; the rest is only read.

# %%
dialogue = [
    {"role": "user", "content": capital.prompt},
    {"role": "assistant", "content": capital.completion},
    {"role": "user", "content": continent.prompt},
    {"role": "assistant", "content": continent.completion},
]
masks = {
    loss_on: sft.show_mask(
        tokenizer, sft.encode(tokenizer, [{"messages": dialogue}], loss_on)[0]
    )
    for loss_on in ("completion", "assistant", "all")
}
figures.masks(masks)

# %%
counts = {name: sum(learnt for _, learnt in pairs) for name, pairs in masks.items()}
runs.say(
    "Of {total} tokens, {completion} are learnt with the loss on the last reply, "
    "{assistant} with the loss on all the assistant's turns, {all} with the loss on "
    "everything.",
    total=len(masks["all"]),
    **counts,
)

# %% [markdown]
# Two turns with the model of section 1. Its mixture has single turns only; the second
# question comes after its own first reply.

# %%
chat = []
for question in (capital, continent):
    chat.append({"role": "user", "content": question.prompt})
    [answer] = complete(policy, tokenizer, [chat], longest)
    chat.append({"role": "assistant", "content": answer.text})
right = [
    answers.is_correct(q, turn["content"])
    for q, turn in zip((capital, continent), chat[1::2], strict=True)
]
pd.DataFrame(chat).style.set_properties(**wide).set_caption(shown_with)

# %%
runs.say(
    "Its first reply is {first}, its second, which no training example looks like, "
    "{second} (right: {capital} {continent}).",
    first="right" if right[0] else "wrong",
    second="right" if right[1] else "wrong",
    capital=capital.completion,
    continent=continent.completion,
)

# %% [markdown]
# ## 3 · The loss, and a training run with yours
#
# $$L = -\frac{1}{\sum_t m_t} \sum_t m_t \log \pi(x_t \mid x_{<t}),
# \qquad m_t = 1 \text{ on the completion}$$
#
# **Exercise 01.1** · ★ · 5 minutes · `hint("01.1")`
#
# Make the mask.


# %% nbgrader={"grade": false, "grade_id": "nb01-q1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_completion_mask(prompt_ids, input_ids):
    """A list of 0 and 1, as long as input_ids, which begins with prompt_ids."""
    ### BEGIN SOLUTION
    return [0] * len(prompt_ids) + [1] * (len(input_ids) - len(prompt_ids))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb01-q1-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("01.1", my_completion_mask)

# %% [markdown]
# **Exercise 01.2** · ★★ · 20 minutes · `hint("01.2")`
#
# Take the loss. Mind two things that go wrong in practice: the shift by one, and rows of
# unequal length (the mean is over tokens, not over rows).


# %% nbgrader={"grade": false, "grade_id": "nb01-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_sft_loss(logits, input_ids, mask):
    """(B, T, V), (B, T), (B, T) to one number: nats per learnt token."""
    ### BEGIN SOLUTION
    log_probs = logits[:, :-1].log_softmax(-1)
    chosen = log_probs.gather(-1, input_ids[:, 1:, None])[..., 0]
    learnt = mask[:, 1:]
    return -(chosen * learnt).sum() / learnt.sum()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb01-q2-check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check("01.2", my_sft_loss)

# %% [markdown]
# Now train with it. The loop below is all there is to SFT: a batch, your loss, a step.
# The examples are questions about one half of the world's subjects; the model has 300
# thousand parameters and has never seen a question.

# %%
world = tasks.default_world()
taught, untaught = split_subjects(world, 0)
lessons = artifacts.questions_about(world, taught, 16 * settings.hand_steps, first)
lessons = [{"prompt": e.prompt, "completion": e.completion} for e in lessons]
untrained, words = load_base("300k")
encoded = sft.encode(words, lessons)


def train_by_hand(loss_of, steps=settings.hand_steps, learning_rate=1e-3):
    """A new 300k model after SFT with a loss, and what it minimised at each step."""
    model, _ = load_base("300k")
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    batches = sft.batches(encoded, 16, seed, words.pad_token_id)
    history = []
    for batch in islice(batches, steps):
        batch = {name: value.to(model.device) for name, value in batch.items()}
        ids, real, mask = batch["input_ids"], batch["attention_mask"], batch["mask"]
        logits = model(ids, attention_mask=real).logits
        loss = loss_of(logits, ids, mask, real)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        history.append(loss.item())
    return model.eval(), history


def as_it_should_be(logits, ids, mask, real):
    return my_sft_loss(logits, ids, mask)


mine, history = train_by_hand(as_it_should_be)

# %%
asked = tasks.world_questions(world, untaught, seed=7, n=100)
kinds_shown = ("capital", "continent", "city_country", "currency", "opposite")
shown = [next(q for q in asked if q.family == kind) for kind in kinds_shown]
pd.DataFrame(
    {
        "prompt": [q.prompt for q in shown],
        "before": [r.text[:60] or "(nothing)" for r in reply(untrained, words, shown)],
        "after your loop": [r.text[:60] for r in reply(mine, words, shown)],
        "right": [" / ".join(q.answers[:2]) for q in shown],
    }
).style.set_properties(**wide).set_caption(f"300k parameters, {shown_with}")


# %%
def tested(model):
    """What comes of a training: shares of 100 questions, and the loss on replies."""
    replies = reply(model, words, asked)
    scores = answers.score(asked, replies)
    return {
        "right": scores["correct"].mean(),
        "in format": scores["formatted"].mean(),
        "ends by itself": np.mean([r.ended for r in replies]),
        "loss on test replies": transfer.reply_loss(model, words, asked),
    }


results = {"before": tested(untrained), "as it should be": tested(mine)}
runs.say(
    "In {steps} steps your loss went from {start:.2f} to {end:.2f} nats per token. Of "
    "{n} questions about subjects that training never mentioned, {right:.0%} are "
    "answered rightly ({before:.0%} before) and {format:.0%} in the taught form.",
    steps=len(history),
    start=history[0],
    end=history[-1],
    n=len(asked),
    right=results["as it should be"]["right"],
    before=results["before"]["right"],
    format=results["as it should be"]["in format"],
)

# %% [markdown]
# **Now break it.** Four mistakes that people make, each swapped into the same loop.
#
# <details><summary>Predict before you run: which of the four will you notice from the
# loss curve alone?</summary>
#
# The flipped sign is plain to see. The others have curves that fall nicely: a wrong
# mask defines another task, and the model learns that one. The loss on the wrong tokens
# says nothing about the right ones; only the replies do.
#
# </details>


# %%
def mask_one_early(logits, ids, mask, real):
    return my_sft_loss(logits, ids, mask.roll(-1, dims=1))


def mask_one_late(logits, ids, mask, real):
    return my_sft_loss(logits, ids, mask.roll(1, dims=1))


def prompt_included(logits, ids, mask, real):
    return my_sft_loss(logits, ids, real)


def sign_flipped(logits, ids, mask, real):
    return -my_sft_loss(logits, ids, mask)


curves, broken = {"as it should be": history}, {"as it should be": mine}
for swapped in (mask_one_early, mask_one_late, prompt_included, sign_flipped):
    name = swapped.__name__.replace("_", " ")
    broken[name], curves[name] = train_by_hand(swapped)
    results[name] = tested(broken[name])
runs.save_figure(
    figures.losses(curves),
    "by_hand",
    "What each version of the loop minimises; the value says nothing of the replies.",
)

# %%
pd.DataFrame(
    {"prompt": [q.prompt for q in shown]}
    | {
        name: [repr(r.text[:40]) for r in reply(model, words, shown)]
        for name, model in broken.items()
    }
).style.set_properties(**wide).set_caption(f"300k parameters, {shown_with}")

# %%
pd.DataFrame(results).T.style.format("{:.2f}").set_caption(
    f"{len(asked)} test questions; the loss is in nats per token, {shown_with}"
)

# %%
good = results["as it should be"]
runs.say(
    "*One early*: the token that ends a reply is never learnt; {early:.0%} of replies "
    "end by themselves, with the right mask {ended:.0%}, before any training "
    "{untaught:.0%}, because texts end as well; {early_right:.0%} of answers are "
    "right. *One late*: the first token "
    "of the reply is never learnt; {late:.0%} of answers are right, with the right "
    "mask {right:.0%}. *Prompt included*: the loss it trains on ends at {own:.2f} nats "
    "per token; {included:.0%} are right. *Sign flipped*: what it minimises ends at "
    "{flipped:.1f}, and the loss on test replies goes from {base:.1f} to {worse:.1f}.",
    early=results["mask one early"]["ends by itself"],
    untaught=results["before"]["ends by itself"],
    early_right=results["mask one early"]["right"],
    ended=good["ends by itself"],
    late=results["mask one late"]["right"],
    right=good["right"],
    own=curves["prompt included"][-1],
    included=results["prompt included"]["right"],
    flipped=curves["sign flipped"][-1],
    base=results["before"]["loss on test replies"],
    worse=results["sign flipped"]["loss on test replies"],
)

# %% [markdown]
# **Experiment 01.3** · ★★ · 20 minutes · `hint("01.3")`
#
# The loop teaches questions. What becomes of the statements that the model had read
# before? `statement_log_probs(model, words)` has the mean log-probability
# of the tokens of each of 60 of them, about subjects that no training question is
# about. **Write down a prediction first:** from no training to all of it, does that
# mean rise, fall, or stay? Then train with your loss for 0 steps, for some and for
# more.
#
# Hand in a report, a dict: `prediction` and `outcome` (`"rises"`, `"falls"` or
# `"stays"`; up to two standard errors are `"stays"`, and a prediction that fails costs
# nothing), `settings` from low to high, `measured` (a row for each of them, a number
# for each statement), `difference` (the mean of the last row less the first) and
# `error` (its standard error).

# %% nbgrader={"grade": false, "grade_id": "nb01-q3", "locked": false, "schema_version": 3, "solution": true, "task": false}
my_report = None
### BEGIN SOLUTION
prediction = "falls"  # written down before the run
tried, found = [0, settings.hand_steps // 3, settings.hand_steps], []
for n_steps in tried:
    learner, _ = train_by_hand(as_it_should_be, n_steps)
    found.append(statement_log_probs(learner, words))
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

# %% nbgrader={"grade": true, "grade_id": "nb01-q3-check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
check("01.3", my_report)

# %%
runs.say(
    "From {low} to {high} steps the mean log-probability of a statement's tokens "
    "changes by {difference:+.3f} nats (standard error {error:.3f}): it {outcome}. A "
    "token of a statement is then {factor:.2f} times as probable as before training.",
    low=my_report["settings"][0],
    high=my_report["settings"][-1],
    difference=float(my_report["difference"]),
    error=float(my_report["error"]),
    outcome=my_report["outcome"],
    factor=np.exp(float(my_report["difference"])),
)

# %% [markdown] nbgrader={"grade": false, "grade_id": "nb01-q4", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": true}
# **Interpretation 01.4** · ★★ · 15 minutes · `hint("01.4")`
#
# *Answer in about five sentences, in the cell below.* No example contradicted a
# statement, and still their probability changed. What carries the change from replies
# in a chat to plain sentences? What does the number of your run say about what the
# model *knows*, and what does it not say? Name one change of the training that should
# make it smaller, and how you would test that.
#
# <!-- === BEGIN MARK SCHEME === -->
# *Rubric.* **1 point:** the same weights serve both; gradients on replies move them,
# and nothing in the loss holds statements where they were (the size of the change and
# its error are named). **1 point:** a lower probability of a sentence is not a lost
# fact: the table above has right answers about untaught subjects; form and knowledge
# are told apart. **1 point:** a change that follows from the first point (statements
# mixed in, fewer steps, a lower rate, a KL penalty to the base model) and a comparison
# that could show it does not help.
# <!-- === END MARK SCHEME === -->

# %% [markdown]
# *Your answer:*

# %% [markdown]
# ## 4 · Does it matter that the prompt is left out?
#
# On the whole mixture now, with several seeds: the loss on the reply alone, on
# everything, and on both in equal parts. The third is there because prompts are longer
# than replies: in one mean over all tokens they thin out the reply's gradient. In equal
# parts (the mean over the reply plus the mean over the prompt) the reply keeps the
# gradient that it has alone.
#
# <details><summary>Predict: if thinning were the whole trouble, where would the third
# arm end?</summary>
#
# Beside the first. If it stays below, learning to write prompts costs something of its
# own: capacity, and steps in another direction.
#
# </details>

# %%
loss_rows = arms.sweep_losses(
    n_examples=settings.sweep_examples,
    steps=settings.mask_steps,
    n_test=settings.n_test,
    **sweep,
)
by_place = {
    "reply alone": pick(loss_rows, loss_on="completion"),
    "everything,\none mean": pick(loss_rows, loss_on="all"),
    "everything,\nequal parts": pick(loss_rows, loss_on="balanced"),
}
runs.save_figure(
    figures.compared(
        {name: [row["accuracy"] for row in rows] for name, rows in by_place.items()},
        "accuracy on test questions",
        "Where should the loss go? (dots: seeds, bars: 95%)",
    ),
    "mask",
    "Accuracy after equal steps with the loss on the reply, and on all tokens.",
)

# %%
correct = {place: analysis.items(loss_rows, loss_on=place) for place in transfer.LOSSES}
for name, other in {
    "completion_minus_full_accuracy": "all",
    "completion_minus_balanced_accuracy": "balanced",
}.items():
    difference = correct["completion"] - correct[other]
    minus_balanced = runs.record(name, difference.mean(), **analysis.behind(difference))
runs.record(
    "full_sequence_accuracy", correct["all"].mean(), **analysis.behind(correct["all"])
)
losses = {
    name: np.mean([row["reply_loss"] for row in rows])
    for name, rows in by_place.items()
}
runs.say(
    "The reply alone minus everything: {completion_minus_full_accuracy:+.3f} in "
    "accuracy, minus equal parts {completion_minus_balanced_accuracy:+.3f}. {words} "
    "The loss on test replies is {one:.2f}, {two:.2f} and {three:.2f} nats per token.",
    words=analysis.reading(
        minus_balanced,
        0.02,
        {
            "more": "It is not only thinning: the prompt's loss does harm of its own.",
            "less": "Equal parts do better than the reply alone.",
            "same": "In equal parts the prompt's loss does no harm worth the name.",
            "open": "Whether equal parts repair it, these seeds leave open.",
        },
    ),
    one=losses["reply alone"],
    two=losses["everything,\none mean"],
    three=losses["everything,\nequal parts"],
)

# %% [markdown]
# ## 5 · How few examples teach the format?
#
# We tune on $n$ questions about one half of the world's subjects, always with the same
# number of steps, and ask about the *other* half. Two things are scored: is the reply
# well formed, and is it right? The control gets replies that were shuffled between
# prompts of the same kind: the form stays, the truth goes.
#
# <details><summary>Predict: how many examples until nine of ten replies are well
# formed? And what will the shuffled replies teach?</summary>
#
# The form is the same in every example, so a handful shows all of it, true or not. To
# answer rightly the model must find out that the *content* of pretraining is wanted,
# for every kind of question. LIMA needed 1,000 examples, chosen by hand.
#
# </details>

# %%
few_rows = arms.sweep_few_examples(
    ns=settings.ns, steps=settings.few_steps, n_test=settings.n_questions, **sweep
)
runs.save_figure(
    figures.few_examples(few_rows),
    "few_examples",
    "Format and accuracy against the number of examples; open marks: shuffled replies.",
)

# %%
n90 = {m: analysis.examples_needed(few_rows, m) for m in ("format", "accuracy")}
ratio = analysis.doublings(n90["format"], n90["accuracy"])
gap = analysis.gap_to_shuffled(few_rows, "accuracy")
kept = [row["format"] for row in pick(few_rows, shuffled=True)]
runs.record(
    "log2_n90_format_over_accuracy", ratio.mean(), seeds=ratio, unit="doublings"
)
runs.record("shuffled_control_format", np.mean(kept), seeds=kept)
runs.record("shuffled_control_accuracy_gap", gap.mean(), seeds=gap)
geometric = {m: 2 ** np.log2(values).mean() for m, values in n90.items()}
runs.say(
    "90% of the ceiling takes about {few:.0f} examples for format and {many:.0f} for "
    "accuracy (geometric means): a ratio of {ratio:.2f}, or "
    "{log2_n90_format_over_accuracy:+.1f} doublings. With shuffled replies format is "
    "{shuffled_control_format:.2f}, and accuracy is lower by "
    "{shuffled_control_accuracy_gap:.2f}.",
    few=geometric["format"],
    many=geometric["accuracy"],
    ratio=2 ** ratio.mean(),
)

# %% [markdown]
# ## 6 · It elicits what pretraining knows
#
# No question was ever in the pretraining text. Tuned on questions about one half of the
# subjects, the model is asked about the other half: facts it read often, facts it read
# seldom, and facts it never read. For those the fair comparison is the best guess.
#
# <details><summary>Predict: what will it do with facts that it never read?</summary>
#
# Answer, in the right form and of the right kind. The question shows that a capital is
# wanted; nothing shows which, and nothing has taught it to say so.
#
# </details>

# %%
elicited = artifacts.sweep_elicitation(
    steps=settings.elicit_steps, n_test=settings.n_questions, **sweep
)
kinds = {
    "known": "read often",
    "known_new_wording": "read often,\nnew wording",
    "rare": "read\nseldom",
    "never": "never\nread",
    "chance": "best guess\n(never read)",
}
runs.save_figure(
    figures.compared(
        {label: [row[kind] for row in elicited] for kind, label in kinds.items()},
        "accuracy on the untouched half",
        "Is what SFT elicits what pretraining put there?",
    ),
    "elicitation",
    "Accuracy on subjects that SFT never asked about, by how often each fact was read.",
)

# %%
for kind in (*kinds, "format"):
    values = [row[kind] for row in elicited]
    runs.record(
        f"elicited_{kind}", np.mean(values), seeds=values, n=settings.n_questions
    )
beyond = [row["never"] - row["chance"] for row in elicited]
over_guess = runs.record("elicited_never_minus_guess", np.mean(beyond), seeds=beyond)
runs.say(
    "Facts read often, of the untouched half: {elicited_known:.2f} right, in new "
    "wordings {elicited_known_new_wording:.2f}; read seldom {elicited_rare:.2f}; never "
    "read {elicited_never:.2f}, where the best guess has {elicited_chance.value:.2f}. "
    "{words} In format: {elicited_format:.2f}.",
    words=analysis.reading(
        over_guess,
        0.05,
        {
            "more": "That is more than a guess: some of it can be worked out.",
            "less": "That is less than the best guess: SFT elicits, it does not add.",
            "same": "That is a guess: SFT elicits, it does not add.",
            "open": "Whether it is more than a guess, this run leaves open.",
        },
    ),
)

# %% [markdown]
# Look at the facts that were never read. Nothing in training says "I do not know": the
# model learnt *to answer*, and answers. Notebook 02 is about that.

# %% [markdown]
# ## 7 · New tasks: zero-shot on families never trained
#
# The mixture has families of six kinds. Some families were held out whole:

# %%
sizes = tasks.sizes()
filled = {name: family for name, family in tasks.FAMILIES.items() if sizes[name]}
pd.DataFrame(
    {
        "kind": family.category,
        "held out": "yes" if family.held_out else "",
        "examples": sizes[name],
        "for example": tasks.examples(name, 1, seed=seed)[0].prompt[:100],
    }
    for name, family in filled.items()
).set_axis(list(filled)).style.set_properties(**{"text-align": "left"})

# %%
example_counts = tasks.sizes(tasks.trained_families())
runs.say(
    "{held} of {all} families are held out. The trained ones have from {least} to "
    "{most} different training examples.",
    held=len(tasks.held_out_families()),
    all=len(tasks.FAMILIES),
    least=min(example_counts.values()),
    most=max(example_counts.values()),
)

# %% [markdown]
# Sampled replies of small models on new tasks are nearly always wrong, before and after,
# which shows nothing. So every question gets four options (or its two labels), and we
# ask which one the model finds likeliest. A guess is right in a quarter (or half) of the
# cases. Wrong options come from the prompt where they can, so that copying is no help:

# %%
choices = transfer.choice_questions(tasks.held_out_families(), 1, seed=first)
pd.DataFrame(
    {
        "prompt": [q.example.prompt[:90] for q in choices],
        "right option": [q.options[0] for q in choices],
        "wrong options": [" / ".join(q.options[1:]) for q in choices],
    }
).style.set_properties(**wide)

# %%
guess = transfer.held_out_chance(settings.n_choices)
mean_guess = np.mean(list(guess.values()))
runs.say(
    "Over the {n} held-out families, each with the same weight, a guess is right in "
    "{guess:.2f} of cases: the line to beat in what follows.",
    n=len(guess),
    guess=mean_guess,
)

# %% [markdown]
# Four ways: the base model with the bare question; after worked examples of the same
# family (it has read no question and answer in pretraining, so this is hard for it);
# after SFT on a *single* family; after SFT on all training families. Each seed has its
# own draw of families, and the pretraining changes with the seed as well.
#
# <details><summary>Predict: in which families will SFT help most? And which will stay at
# a guess?</summary>
#
# Skills that have a near relative in training (*last* beside *first* and *second*,
# *smallest* beside *largest*) can be composed from what was taught. A family whose facts
# the model hardly read can not.
#
# </details>

# %%
chosen = dict(n_test=settings.n_choices, **sweep)
base_rows = arms.sweep_untuned(
    shots=settings.shots, n_wording_test=settings.n_wording_test, **chosen
)
mixed_rows = arms.sweep_mixed(
    n_examples=settings.sweep_examples,
    steps=settings.sweep_steps,
    n_wording_test=settings.n_wording_test,
    **chosen,
)
diversity_rows = arms.sweep_diversity(
    ks=settings.ks,
    n_examples=settings.n_diverse,
    steps=settings.sweep_steps,
    **chosen,
)
ways = {
    "base, bare": pick(base_rows, shots=0),
    "base, few-shot": pick(base_rows, shots=settings.shots),
    "SFT on one family": pick(diversity_rows, k=1),
    "SFT on the mixture": mixed_rows,
}
runs.save_figure(
    figures.families(ways, guess, "Does SFT help with families never trained?"),
    "held_out",
    "How often the likeliest option is right in held-out families; dots are seeds.",
)

# %%
held_out = {way: analysis.items(rows) for way, rows in ways.items()}
for name, other in {
    "sft_minus_base_held_out_choice": "base, bare",
    "sft_minus_single_held_out_choice": "SFT on one family",
    "sft_minus_fewshot_held_out_choice": "base, few-shot",
}.items():
    gain = held_out["SFT on the mixture"] - held_out[other]
    runs.record(name, gain.mean(), **analysis.behind(gain))
other_question = analysis.items(mixed_rows, "other_items") - mean_guess
runs.record(
    "other_question_minus_chance",
    other_question.mean(),
    **analysis.behind(other_question),
)
floor = analysis.at_chance(list(ways.values()), guess)
runs.say(
    "On families never trained the mixture picks the right option in {level:.2f} of "
    "cases (a guess: {guess:.2f}): {sft_minus_base_held_out_choice:+.2f} against the "
    "base model, {sft_minus_single_held_out_choice:+.2f} against SFT on one family, "
    "{sft_minus_fewshot_held_out_choice:+.2f} against few-shot. Under another question "
    "the same options are told right by {other_question_minus_chance:+.2f} more than a "
    "guess. {floor}",
    level=held_out["SFT on the mixture"].mean(),
    guess=mean_guess,
    floor=(
        f"No arm is above a guess by 0.1 in {', '.join(floor).replace('_', ' ')}; the "
        "means count such families too."
        if floor
        else "Some arm is above a guess by 0.1 in every family."
    ),
)

# %% [markdown]
# ## 8 · Is it the variety?
#
# The number of examples and of steps stays the same; only the number of families they
# come from grows. Each seed draws its families anew. The control is volume: one large
# family with an eighth of the examples, and with all.
#
# <details><summary>Predict: one family or thirty-two, with equally many examples in
# all. Which model reads a new kind of question better?</summary>
#
# One family shows what a reply looks like, and gives no reason to read the question:
# all its prompts ask the same. Many families leave no other way than to read. But each
# of them is then practised less.
#
# </details>

# %%
larger_rows = []
if settings.large_seeds and larger != settings.model:  # pretrained once: to look at
    larger_rows = arms.sweep_diversity(
        ks=[min(settings.ks), max(settings.ks)],
        n_examples=settings.n_diverse,
        steps=settings.sweep_steps,
        **{**chosen, "base": larger, "seeds": run.seeds[: settings.large_seeds]},
    )
volume_rows = arms.sweep_volume(
    ns=[settings.n_diverse // 8, settings.n_diverse],
    steps=settings.sweep_steps,
    **chosen,
)
runs.save_figure(
    figures.diversity(diversity_rows, mean_guess, larger_rows),
    "diversity",
    "Choices in held-out families against the number of families trained on.",
)

# %%
slopes = analysis.slopes_by_item(diversity_rows)
slope = runs.record(
    "choice_slope_per_doubling", slopes.mean(), **analysis.behind(slopes)
)
volume = {n: analysis.items(volume_rows, n_examples=n) for n in
          (settings.n_diverse // 8, settings.n_diverse)}  # fmt: skip
gain = volume[settings.n_diverse] - volume[settings.n_diverse // 8]
runs.record("one_family_volume_gain", gain.mean(), **analysis.behind(gain))
nats = [
    np.polyfit(np.log2(settings.ks), [row["log_likelihood"] for row in rows], 1)[0]
    for rows in (
        sorted(pick(diversity_rows, seed=s), key=lambda row: row["k"])
        for s in run.seeds
    )
]
runs.record("log_likelihood_slope", np.mean(nats), seeds=nats, unit="nats per doubling")
runs.say(
    "For twice as many families: {choice_slope_per_doubling:+.3f} in how often the "
    "likeliest option is right, {log_likelihood_slope:+.3f} nats in the "
    "log-probability of the right one. {words} Eight times as many examples of one "
    "family: {one_family_volume_gain:+.3f}.",
    words=analysis.reading(
        slope,
        0.01,
        {
            "more": "Variety carries over.",
            "less": "Here variety does harm.",
            "same": "Variety makes no difference worth the name.",
            "open": "Whether variety carries over, these draws leave open.",
        },
    ),
)
if larger_rows:
    ends = [
        np.mean([row["accuracy"] for row in pick(larger_rows, k=k)])
        for k in (min(settings.ks), max(settings.ks))
    ]
    runs.say(
        "The model with a million parameters goes from {one:.2f} to {other:.2f} "
        "between {k} and {ks} families. It was pretrained once, so this is no test of "
        "size: a second pretraining could lie anywhere.",
        one=ends[0],
        other=ends[1],
        k=min(settings.ks),
        ks=max(settings.ks),
    )
else:
    runs.say("Profile full also shows the larger model that ships; there is one of it.")

# %% [markdown]
# ## 9 · Fewer prompts to engineer?
#
# Each trained family is asked in every wording we have, the last ones never trained,
# with the same questions and the same options. If a model understands the task, the
# wording should not matter.
#
# <details><summary>Predict: if wordings matter less to a model, is it always the better
# for it?</summary>
#
# No. One that ignores the question is perfectly even. So look at both: where the dots
# are, and how far apart the strokes lie.
#
# </details>

# %%
bare_rows = pick(base_rows, shots=0)
runs.save_figure(
    figures.wordings(bare_rows, mixed_rows, tasks.trained_families()),
    "wordings",
    "Probability of the right option in every wording (strokes) and its mean (dots).",
)

# %%
spread = {
    "before": analysis.spread_over_wordings(bare_rows),
    "after": analysis.spread_over_wordings(mixed_rows),
}
ratio = analysis.doublings(spread["after"], spread["before"])
shrinking = runs.record(
    "log2_spread_after_over_before", ratio.mean(), seeds=ratio, unit="doublings"
)
better = [
    after["wording_accuracy"] - before["wording_accuracy"]
    for before, after in zip(bare_rows, mixed_rows, strict=True)
]
runs.record("tuned_minus_base_choice", np.mean(better), seeds=better)
runs.say(
    "Over the wordings of a task, the probability of the right option has a standard "
    "deviation of {before:.3f} before tuning and {after:.3f} after it: "
    "{log2_spread_after_over_before:+.2f} doublings, a ratio of {ratio:.2f}. {words} "
    "The likeliest option is right more often by {tuned_minus_base_choice:.2f}.",
    before=spread["before"].mean(),
    after=spread["after"].mean(),
    ratio=2 ** ratio.mean(),
    words=analysis.reading(
        shrinking,
        0.32,
        {
            "more": "After tuning the wording matters *more*.",
            "less": "After tuning the wording matters less.",
            "same": "It matters as much as before, within a fifth or so.",
            "open": "Whether it matters less by a fifth, these seeds leave open.",
        },
    ),
)

# %% [markdown]
# ## 10 · How much of which task?
#
# Families differ in how many examples they have (the table in section 7).
# *Proportional* weights follow size; *capped* ones stop counting at a limit;
# *temperature* takes $n^{1/T}$; *equal* gives everyone the same.
#
# <details><summary>Predict: what will the large families lose under equal weights?
# </summary>
#
# Less than the small ones gain, if a large family is learnt before all of its examples
# are read. The second half of the figure shows it.
#
# </details>
#
# **Exercise 01.5** · ★ · 10 minutes · `hint("01.5")`
#
# Write the temperature scheme.


# %% nbgrader={"grade": false, "grade_id": "nb01-q5", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_mixture_weights(sizes, temperature):
    """Family sizes to probabilities; a higher temperature is flatter."""
    ### BEGIN SOLUTION
    powers = {name: size ** (1 / temperature) for name, size in sizes.items()}
    return {name: power / sum(powers.values()) for name, power in powers.items()}
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb01-q5-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("01.5", my_mixture_weights)

# %%
mixture_rows = arms.sweep_mixtures(
    schemes=("proportional", "capped", "temperature", "equal"),
    n_examples=settings.sweep_examples,
    steps=settings.sweep_steps,
    n_test=settings.n_test,
    **few_seeds,
)
runs.save_figure(
    figures.mixture(mixture_rows),
    "mixture",
    "Accuracy on the smallest and the largest families under four schemes of weights.",
)

# %%
small = analysis.small_families()
on_small = {
    scheme: analysis.accuracy_on(mixture_rows, small, scheme)
    for scheme in ("proportional", "equal")
}
difference = on_small["proportional"] - on_small["equal"]
runs.record(
    "proportional_minus_equal_small_task_accuracy", difference.mean(), seeds=difference
)
worst = analysis.worst_family_gain(mixture_rows, "equal", "proportional")
runs.record("worst_family_gain_equal_over_proportional", np.mean(worst), seeds=worst)
runs.record(
    "small_task_accuracy_equal", on_small["equal"].mean(), seeds=on_small["equal"]
)
runs.say(
    "On the smaller half of the families equal weights get "
    "{small_task_accuracy_equal:.2f} right, and proportional minus equal is "
    "{proportional_minus_equal_small_task_accuracy:+.3f}. The worst family that some "
    "scheme solves changes by {worst_family_gain_equal_over_proportional:+.3f} from "
    "proportional to equal weights."
)

# %% [markdown]
# ## 11 · Can a model write its own instructions?
#
# Our model has read statements and no question, so it cannot invent instructions from
# nothing. But from a few questions that people wrote, each beside the statement it asks
# about, it can learn to ask; then it is let loose on other statements, and a filter
# that knows no facts drops what is malformed. A model of this size cannot copy a name
# that it has seldom met, so names are masked while it writes and put back by a program.
# First, what comes of it:

# %%
writer = dict(
    base=settings.model,
    n_seeds=settings.n_seeds,
    n_generated=settings.n_generated,
    generator_steps=settings.generator_steps,
)
pairs = generate_pairs(seed=first, **writer)
parsed = [p for p in pairs if p.question]
few = [p for p in parsed if p.kept][:5] + [p for p in parsed if not p.kept][:5]
pd.DataFrame(
    {
        "statement": [p.statement for p in few],
        "it writes": [f"{p.question} {p.answer}." for p in few],
        "dropped because": [p.reason.replace("_", " ") for p in few],
        "right": ["yes" if p.right else "no" for p in few],
    }
).style.set_properties(**wide).set_caption(shown_with)

# %%
kept = [p for p in pairs if p.kept]
runs.say(
    "Of {n} lines {parsed} can be read as a question and its answer and {right} of "
    "those are right. The filter keeps {kept}, of which {good} are right.",
    n=len(pairs),
    parsed=len(parsed),
    right=sum(p.right for p in parsed),
    kept=len(kept),
    good=sum(p.right for p in kept),
)

# %%
synthetic_rows = arms.sweep_self_instruct(
    n_test=settings.n_questions, steps=settings.few_steps, **{**few_seeds, **writer}
)
labels = {
    "seeds": "seeds\nonly",
    "unfiltered": "+ generated",
    "filtered": "+ generated,\nfiltered",
    "human": "+ as many\nby people",
}
runs.save_figure(
    figures.compared(
        {
            label: [row["accuracy"] for row in pick(synthetic_rows, kind=kind)]
            for kind, label in labels.items()
        },
        "accuracy on the untouched half",
        "What are a model's own instructions worth? (dots: seeds)",
    ),
    "synthetic",
    "Accuracy after SFT on a few seeds, with generated questions, and with people's.",
)

# %%
for name, one, other in (
    ("generated_minus_seeds_accuracy", "filtered", "seeds"),
    ("filtered_minus_unfiltered_accuracy", "filtered", "unfiltered"),
    ("human_minus_seeds_accuracy", "human", "seeds"),
):
    values = analysis.paired_differences(synthetic_rows, "accuracy", "kind", one, other)
    runs.record(name, np.mean(values), seeds=values)
kept = [r["kept"] / r["generated"] for r in pick(synthetic_rows, kind="filtered")]
runs.record("filter_yield", np.mean(kept), seeds=kept)
runs.say(
    "The filter keeps {filter_yield.value:.0%} of what is generated. Filtered "
    "questions change accuracy by {generated_minus_seeds_accuracy:+.3f} over the seeds "
    "alone, and by {filtered_minus_unfiltered_accuracy:+.3f} over unfiltered ones; as "
    "many by people change it by {human_minus_seeds_accuracy:+.3f} over the seeds."
)

# %% [markdown]
# ## 12 · A stage of its own, or inside pretraining?
#
# *Mid-training* mixes the instructions into the last part of pretraining, while the
# learning rate decays. All arms start at the end of the stable phase and read the same
# text and the same examples, each once; they differ in when. *High rate* is the arm
# that gives the later stage the learning rates of the decay; *replay* keeps some text
# for the SFT stage.
#
# <details><summary>Predict: replay keeps a twentieth of the tokens of the SFT stage for
# text. Will that do as well as mixing?</summary>
#
# Mixing spends most of each batch on text, and lowers the learning rate to nothing at
# the same time. A twentieth is what is usual later. The second figure shows how much of
# the forgetting it prevents.
#
# </details>

# %%
mid_rows = arms.sweep_mid_training(
    decay_steps=settings.decay_steps,
    n_documents=settings.n_documents or None,
    n_questions=settings.n_mid_questions,
    **few_seeds,
)
labels = {
    "after": "SFT\nafter",
    "mid": "mixed\nin",
    "after_high_rate": "after,\nhigh rate",
    "replay": "after,\nreplay",
}
for metric, ylabel, name in (
    ("accuracy", "accuracy on test questions", "mid_training_task"),
    ("forgetting", "rise of loss on text\n(nats per token)", "mid_training_text"),
):
    runs.save_figure(
        figures.compared(
            {
                label: [row[metric] for row in pick(mid_rows, arm=arm)]
                for arm, label in labels.items()
            },
            ylabel,
            "The same tokens in another order: " + {
                "accuracy": "what is learnt?", "forgetting": "what is forgotten?"
            }[metric],
        ),
        name,
        f"Mid-training against a later stage: {ylabel}.",
    )  # fmt: skip

# %%
for name, metric, other in (
    ("mid_minus_after_task", "accuracy", "after"),
    ("mid_minus_after_forgetting", "forgetting", "after"),
    ("mid_minus_replay_forgetting", "forgetting", "replay"),
):
    values = analysis.paired_differences(mid_rows, metric, "arm", "mid", other)
    unit = "nats per token" if metric == "forgetting" else ""
    runs.record(name, np.mean(values), seeds=values, unit=unit)
forgotten = [row["forgetting"] for row in pick(mid_rows, arm="after")]
runs.record(
    "after_forgetting", np.mean(forgotten), seeds=forgotten, unit="nats per token"
)
runs.say(
    "A later stage raises the loss on text by {after_forgetting:.2f} nats per token. "
    "Mixed in minus after: {mid_minus_after_task:+.3f} in accuracy and "
    "{mid_minus_after_forgetting:+.2f} nats per token; minus replay: "
    "{mid_minus_replay_forgetting:+.2f} nats per token."
)

# %% [markdown]
# ## 13 · The same batch through TRL
#
# For models of a billion parameters one would use TRL's `SFTTrainer`. It is the same
# mathematics: one batch, both losses.

# %%
batch = [{"prompt": q.prompt, "completion": q.completion} for q in questions]
if trl_parity.has_trl():
    ours, theirs = trl_parity.compare_sft_losses(policy, tokenizer, batch)
    runs.record("trl_loss_difference", abs(ours - theirs), unit="nats per token")
    runs.say(
        "Ours: {ours:.6f} nats per token; TRL's: {theirs:.6f}.",
        ours=ours,
        theirs=theirs,
    )

# %% [markdown]
# ## 14 · Verdicts
#
# Thresholds were fixed before measuring. Where this profile has too few seeds for a
# verdict, it says so; `alignlab run 01 --profile full` has enough.

# %%
runs.say(
    "Profile {profile}, seeds {low} to {high}. Sections 4, 7, 8 and 9 give each seed "
    "one of {n} pretrained models; the other sections stand on one.",
    profile=profile,
    low=run.seeds[0],
    high=run.seeds[-1],
    n=len(pretraining_seeds(settings.model)),
)
runs.show_verdicts()

# %% [markdown]
# ## What the big labs do that we left out
#
# * **Human writers and reviewers**, guidelines, and several rounds of data collection;
#   our replies come from programs.
# * **Long, open-ended replies**, system prompts, tools, and dialogues of many turns.
# * **Packing** of many examples into one sequence, LoRA, several devices (notebook 09).
# * **Choice of data** by influence or by loss; **rejection sampling** from the model.
# * **Rephrasing of pretraining text** into questions at scale, which blurs the line that
#   section 12 draws.
#
# *Change one thing:* in section 3, give `train_by_hand` a learning rate of 1e-2, or 5
# steps. Which of the four columns of the table suffers first?
