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
# # 09 · Does what the small world showed hold for a real model?
#
# So far everything happened in a world that we made, where the worth of every reply is
# known. Now the whole road once more, with a model that people use and what people
# said: a chat model of 135 million parameters, sentences of film reviews that fifteen
# or more people have rated, requests that should be refused, questions with several
# answers. Each stage trains a small *adapter* (LoRA), so that the model itself is held
# only once. What cannot be known here is not faked: held-out raters and a held-out
# judge take the place of gold.
#
# | | |
# | --- | --- |
# | **time** | `smoke` a minute · `cpu` 25 minutes · `full` more than an hour |
# | **memory** | 6 GB |
# | **you need** | nothing of the other notebooks; 150 MB of archives come from PyPI |
# | **look at first** | the replies in section 1, the two judges in section 5 |
# | **sweeps worth trying** | `updates`, `n_pairs`, `model`; `run.settings` has all |
# | **on Colab** | run the two set-up lines of the README in a first cell |

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
from alignlab.chapters.a_real_model import (
    analysis,
    exams,
    experiments,
    figures,
    reviews,
    training,
)
from alignlab.chapters.a_real_model import runs as arms
from alignlab.course import check, hint
from alignlab.evaluation.intervals import reading
from alignlab.models.base import load_base, use_device
from alignlab.models.positions import completion_log_probs
from alignlab.models.sampler import complete
from alignlab.models.text import pad_token_id
from alignlab.plots.calibration import reliability_panels
from alignlab.plots.style import use_style
from alignlab.study.statements import statement_log_probs
from alignlab.training import sft

use_style()
run = runs.start("09_a_real_model", profile, seed, device, out_dir)
use_device(device)
settings = run.settings
first = run.seeds[0]
base = dict(base=settings.model)
asked = dict(n_requests=settings.n_requests, xstest=settings.xstest)
runs.say(
    "Profile {profile}, model {model}, seeds {seeds}. Each seed draws sentences, "
    "raters, comparisons, requests, questions, adapters and samples anew; the model "
    "that all start from is the same, so every interval below holds *given this "
    "model*.",
    profile=profile,
    model=settings.model,
    seeds=", ".join(map(str, run.seeds)),
)

# %% [markdown]
# All training of this notebook happens here, side by side; what was done before is read
# from the cache.

# %%
rows = arms.run_all(
    seeds=run.seeds,
    jobs=settings.jobs,
    reward=dict(n_pairs=settings.n_pairs, n_test=settings.n_test, **base),
    stage=dict(
        sft_steps=settings.sft_steps,
        n_pairs=settings.n_pairs,
        updates=settings.updates,
        n_prompts=settings.n_prompts,
        n_replies=settings.n_replies,
        n_questions=settings.n_questions_after,
        **asked,
        **base,
    ),
    refusal=dict(
        n_refused=settings.n_refused, steps=settings.refusal_steps, **asked, **base
    ),
    n_questions=settings.n_questions,
)
START, SFT, DPO = arms.START, arms.SFT, arms.DPO
RL = list(training.METHODS)


def record(name, values, **more):
    """Record one value a seed."""
    return runs.record(name, np.mean(values), seeds=list(values), **more)


def replies_of(*stages, n=3):
    """The first seed's first reply to some requests, a column a stage."""
    words = rows[SFT][0]["asked"][:n]
    return pd.DataFrame(
        {stage: [own[0] for own in rows[stage][0]["texts"][:n]] for stage in stages},
        index=pd.Index(words, name="with the word"),
    ).style.set_properties(**{"white-space": "normal", "max-width": "22em"})


def say_heard(*stages, n=3):
    """Of the replies that ``replies_of`` shows, how many have the word."""
    heard = {s: sum(own[0] for own in rows[s][0]["obeyed"][:n]) for s in stages}
    shown = min(n, settings.n_prompts)
    counts = ", ".join(f"{stage} {count}" for stage, count in heard.items())
    runs.say("Of these {n} words, the replies have: {counts}.", n=shown, counts=counts)


def say_refused(*stages, n):
    """Of the requests of each set that are shown, how many each stage refuses."""
    shown = [
        f"{stage} "
        f"{sum(sum(a['refused'][:n]) for a in rows[stage][0]['requests'].values())}"
        for stage in stages
    ]
    runs.say("Refused among these: {counts}.", counts=", ".join(shown))


runs.say(
    "{n} trainings: SFT, a reward model, PPO, RLOO, DPO and two kinds of SFT on "
    "refusals for each of {seeds} {word}.",
    n=(2 + len(RL) + 1 + len(arms.REFUSING)) * len(run.seeds),
    seeds=len(run.seeds),
    word="seed" if len(run.seeds) == 1 else "seeds",
)

# %% [markdown]
# ## 1 · What does it say?
#
# Before anything is measured: the model as it comes is asked for a sentence of a film
# review that has a certain word. Below are three such replies, sampled, and greedy ones
# to two requests that it should refuse and two that only sound so.

# %%
replies_of(START)

# %%
before = rows[START][0]["requests"]
pd.DataFrame(
    [
        {
            "from": name,
            "request": answers["prompts"][i],
            "reply": answers["replies"][i],
            "refuses": "yes" if answers["refused"][i] else "no",
        }
        for name, answers in before.items()
        for i in range(min(2, len(answers["prompts"])))
    ]
).style.hide(axis="index").set_properties(
    **{"white-space": "normal", "max-width": "24em"}
)

# %%
runs.say(
    "Of its sentences {obeyed:.0%} have the word that was asked for, and {ended:.0%} "
    "end within {most} tokens; a reply has {words:.0f} words. It refuses "
    "{harmful:.0%} of the requests that it should refuse, and {benign:.0%} of those "
    "that only sound so.",
    obeyed=analysis.means(rows[START], "obeyed").mean(),
    ended=analysis.means(rows[START], "ended").mean(),
    words=analysis.means(rows[START], "words").mean(),
    most=training.MAX_NEW_TOKENS,
    harmful=analysis.refused(rows[START], harmful=True).mean(),
    benign=analysis.refused(rows[START], harmful=False).mean(),
)

# %% [markdown]
# ## 2 · An adapter of your own
#
# Training all weights of a model keeps four numbers for each: the weight, its gradient,
# and two of Adam's. *LoRA* leaves the weight $W$ of a linear layer as it is and adds the
# product of two thin matrices,
#
# $$y = W x + \frac{\alpha}{r}\, B A x, \qquad A: r \times \text{in}, \quad
# B: \text{out} \times r,$$
#
# and trains only those. $B$ begins at 0.
#
# **Exercise 09.1** · ★ · 10 minutes · `hint("09.1")`
#
# Write the layer's output.


# %% nbgrader={"grade": false, "grade_id": "nb09-q1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_lora(x, weight, down, up, alpha):
    """x (..., in), weight (out, in), down (r, in), up (out, r), to (..., out)."""
    ### BEGIN SOLUTION
    return x @ weight.T + alpha / len(down) * (x @ down.T @ up.T)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb09-q1-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("09.1", my_lora)

# %% [markdown]
# Put it into the upper half of the model's blocks. The lower half then has nothing to
# learn, and no gradient has to pass through it.


# %%
class Adapted(torch.nn.Module):
    """A linear layer that stays as it is, with an adapter of rank 8."""

    def __init__(self, linear, spread):
        super().__init__()
        outputs, inputs = linear.weight.shape
        start = torch.randn(8, inputs) / inputs**0.5, spread * torch.randn(outputs, 8)
        self.linear = linear
        self.down, self.up = (
            torch.nn.Parameter(part.to(linear.weight)) for part in start
        )

    def forward(self, x):
        output = my_lora(x, self.linear.weight, self.down, self.up, alpha=16)
        return output if self.linear.bias is None else output + self.linear.bias


def adapt(policy, spread=0.0):
    """Adapters in place; their `up` begins with this spread."""
    policy.requires_grad_(False)
    blocks = policy.base_model.layers
    for block in blocks[len(blocks) // 2 :]:
        for part in (block.self_attn, block.mlp):
            for name, layer in list(part.named_children()):
                if isinstance(layer, torch.nn.Linear):
                    setattr(part, name, Adapted(layer, spread))


# %% [markdown]
# The style to learn: sentences of published film reviews, in dialogues of two requests
# each. Here is one. Only what the assistant says is learnt, in both turns.

# %%
shown = reviews.dialogues(reviews.draw_parts(first).shown[: 8 * settings.lesson_steps])
pd.DataFrame(shown[0]["messages"]).style.hide(axis="index").set_properties(
    **{"white-space": "normal", "max-width": "40em", "text-align": "left"}
)

# %%
runs.say(
    "{n} such dialogues will do for this section, {words:.0f} words a reply; section 3 "
    "takes {more}.",
    n=len(shown),
    words=np.mean(
        [len(d["messages"][k]["content"].split()) for d in shown for k in (2, 4)]
    ),
    more=training.SFT_BATCH * settings.sft_steps,
)


# %%
def tune(steps, spread=0.0):
    torch.manual_seed(first)
    policy, tokenizer = load_base(settings.model)
    adapt(policy, spread)
    encoded = sft.encode(tokenizer, shown, loss_on="assistant")
    batches = sft.batches(encoded, 4, first, pad_token_id(tokenizer))
    learning = [p for p in policy.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-3)
    losses = []
    for _, batch in zip(range(steps), batches):
        batch = {name: tensor.to(policy.device) for name, tensor in batch.items()}
        learned = batch["mask"][:, 1:].sum()
        loss = -completion_log_probs(policy, **batch).sum() / learned
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return policy, tokenizer, losses


# %%
policy, tokenizer, losses = tune(settings.lesson_steps)
words = rows[SFT][0]["asked"][:3]
spoken = complete(
    policy,
    tokenizer,
    [reviews.request(word) for word in words],
    training.MAX_NEW_TOKENS,
    training.TEMPERATURE,
    seed=first,
)
pd.DataFrame(
    {
        "as it comes": [own[0] for own in rows[START][0]["texts"][:3]],
        "after your training": [reply.text for reply in spoken],
    },
    index=pd.Index(words, name="with the word"),
).style.set_properties(**{"white-space": "normal", "max-width": "24em"})

# %%
n_all = sum(p.numel() for p in policy.parameters())
n_learning = sum(p.numel() for p in policy.parameters() if p.requires_grad)
runs.say(
    "The loss goes from {begin:.2f} to {end:.2f} nats a token in {steps} steps. "
    "{learning:,} of {all:,} parameters learn, {share:.1%}. With gradient and Adam's "
    "two moments in four bytes each, training all would take {full:.2f} GB beside the "
    "weights; this takes {small:.3f}.",
    begin=losses[0],
    end=losses[-1],
    steps=len(losses),
    learning=n_learning,
    all=n_all,
    share=n_learning / n_all,
    full=12 * (n_all - n_learning) / 1e9,
    small=12 * n_learning / 1e9,
)

# %% [markdown]
# **Now break it.** Why does $B$ begin at 0, and not at random like $A$? Predict the loss
# of the very first step if it does not.
#
# <details><summary>Open when you have an answer</summary>
#
# With $B = 0$ the first step sees exactly the model that was loaded. With $B$ at random
# every layer of the upper half begins with noise of its own, and what the model knows
# has to be found again.
# </details>

# %%
starts = {f"B begins at ±{spread:g}": tune(1, spread)[2][0] for spread in (0.01, 0.1)}
starts = {"B begins at 0": losses[0]} | starts
pd.DataFrame({"loss of the first step": starts}).style.format(precision=2)

# %%
runs.say(
    "At 0 the first loss is {zero:.2f} nats a token, at ±0.1 {noisy:.2f}: {verdict}.",
    zero=starts["B begins at 0"],
    noisy=starts["B begins at ±0.1"],
    verdict="a random start destroys what was there"
    if starts["B begins at ±0.1"] > starts["B begins at 0"] + 0.2
    else "this model had little to lose",
)

# %% [markdown]
# An adapter costs two thin products at every layer. Once trained it can be folded in.
#
# **Exercise 09.2** · ★★ · 10 minutes · `hint("09.2")`
#
# Write the weight of one plain layer that gives the same output.


# %% nbgrader={"grade": false, "grade_id": "nb09-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_merged_weight(weight, down, up, alpha):
    """weight (out, in), down (r, in), up (out, r), to (out, in)."""
    ### BEGIN SOLUTION
    return weight + alpha / len(down) * up @ down
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb09-q2-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("09.2", my_merged_weight)


# %%
def merge(policy):
    for module in policy.modules():
        for name, layer in list(module.named_children()):
            if isinstance(layer, Adapted):
                parts = layer.linear.weight, layer.down, layer.up
                layer.linear.weight.data = my_merged_weight(*parts, alpha=16).data
                setattr(module, name, layer.linear)


with torch.no_grad():
    ids = torch.tensor([tokenizer(spoken[0].text or "A")["input_ids"]])
    ids = ids.to(policy.device)
    with_adapters = policy(ids).logits
    merge(policy)
    gap = (policy(ids).logits - with_adapters).abs().max().item()
del policy
runs.say(
    "Merged, the logits differ by {gap:.1e} at most: {verdict}.",
    gap=gap,
    verdict="rounding" if gap < 1e-2 else "**more than rounding**",
)

# %% [markdown]
# **Experiment 09.3** · ★★ · 20 minutes · `hint("09.3")`
#
# An adapter of rank $r$ can hold an update of rank $r$ and no other. How much of a
# training of *all* weights does that capture? `experiments.with_adapters(rank,
# my_merged_weight)` gives the small model of the series as it was before the last phase
# of its pretraining, with the part of that rank of what the phase did to each linear
# layer (64 is all of it), and its tokenizer. **Write down a prediction first:** from
# rank 0 to a higher one, does the mean log-probability of statements that it has read
# rise, fall, or stay? Then measure it with `statement_log_probs(model, tokenizer)` at
# rank 0 and at two ranks or more.
#
# Hand in a report, a dict: `prediction` and `outcome` (`"rises"`, `"falls"` or
# `"stays"`; up to two standard errors are `"stays"`, and a prediction that fails costs
# nothing), `settings` from low to high, `measured` (a row for each of them, a number
# for each statement), `difference` (the mean of the last row less the first) and
# `error` (its standard error).

# %% nbgrader={"grade": false, "grade_id": "nb09-q3", "locked": false, "schema_version": 3, "solution": true, "task": false}
my_report = None
### BEGIN SOLUTION
prediction = "rises"  # written down before the run
tried, found = [0, 2, 8, 32, 64], []
for rank in tried:
    learner, words_of = experiments.with_adapters(rank, my_merged_weight)
    found.append(statement_log_probs(learner, words_of))
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

# %% nbgrader={"grade": true, "grade_id": "nb09-q3-check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
check("09.3", my_report)

# %%
means = [float(np.mean(np.asarray(row))) for row in my_report["measured"]]
runs.say(
    "At rank {ranks} the mean log-probability of a statement's tokens is {means} nats. "
    "From first to last that is {difference:+.3f} (standard error {error:.3f}): it "
    "{outcome}.",
    ranks=", ".join(f"{rank:g}" for rank in my_report["settings"]),
    means=", ".join(f"{mean:.3f}" for mean in means),
    difference=float(my_report["difference"]),
    error=float(my_report["error"]),
    outcome=my_report["outcome"],
)

# %% [markdown] nbgrader={"grade": false, "grade_id": "nb09-q4", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": true}
# **Interpretation 09.4** · ★★★ · 15 minutes · `hint("09.4")`
#
# *Answer in about five sentences, in the cell below.* What share of the way from rank 0
# to rank 64 has rank 8 gone, and how many numbers does it hold beside those of the full
# layers? The embeddings and norms stayed as they were before the phase: what might that
# do to your measurement? Would an adapter of rank 8 that is *trained* on the same texts
# do better or worse than this one, and why?
#
# <!-- === BEGIN MARK SCHEME === -->
# *Rubric.* **1 point:** the share is computed from the means of the run (with an error,
# or with the remark that it is a ratio of small differences), and set beside the share
# of the numbers: r (in + out) against in × out. **1 point:** layers that were trained
# together are pulled apart: linear layers that fit new embeddings meet old ones, so
# that even rank 64 is not the trained model, and the measured gain is a lower bound (or
# even a loss). **1 point:** better: the best part of rank r of a matrix keeps its
# largest singular values, which is not what lowers the loss most; training looks for
# that directly. Half a point for "worse" with a reason that could be tested.
# <!-- === END MARK SCHEME === -->

# %% [markdown]
# *Your answer:*

# %% [markdown]
# ## 3 · SFT to a style
#
# Now in earnest, for every seed, by the library (`peft` has these adapters). Does the
# style of published sentences come over, and is the request still heard?

# %%
replies_of(START, SFT)

# %%
say_heard(START, SFT)

# %%
panels = {
    "has the word asked for": "obeyed",
    "ends in time": "ended",
    "words a reply": "words",
}
runs.save_figure(
    figures.panels(
        {
            what: {stage: analysis.means(rows[stage], name) for stage in (START, SFT)}
            for what, name in panels.items()
        },
        "What SFT to a style changes",
    ),
    "style",
    "Replies to held-out requests before and after SFT: share with the word that was "
    "asked for, share that ends within the limit, words a reply (dots: seeds).",
)

# %%
style = {
    name: record(f"sft_{name}_change", analysis.gains(rows[SFT], rows[START], name))
    for name in panels.values()
}
runs.say(
    "After {steps} steps the words a reply change by {sft_words_change:+.1f} and the "
    "share that ends by {sft_ended_change:+.2f}: {ends}. The share with the word that "
    "was asked for changes by {sft_obeyed_change:+.2f}: {hears}.",
    steps=settings.sft_steps,
    ends=reading(
        style["ended"],
        "it has learnt where such a sentence stops",
        "**it ends less often**",
        "these seeds do not tell whether it ends more often",
    ),
    hears=reading(
        style["obeyed"],
        "it heeds the request more than before",
        "**the style came at the price of the request**",
        "these seeds do not tell it from none",
    ),
)

# %% [markdown]
# It learnt from dialogues of two turns. Does it still know in the second what this is
# about? The first reply below is given, the second is its own.

# %%
tuned, tokenizer = training.tuned(settings.model, first, settings.sft_steps)
example = reviews.draw_parts(first).test[:2]
talk = reviews.dialogues(example)[0]["messages"]
[second] = complete(tuned, tokenizer, [talk[:4]], training.MAX_NEW_TOKENS)
del tuned
pd.DataFrame(
    [*talk[:4], dict(role="assistant (its own)", content=second.text)]
).style.hide(axis="index").set_properties(
    **{"white-space": "normal", "max-width": "40em", "text-align": "left"}
)

# %%
runs.say(
    "The second reply has {n} words, {ends}, and {has} the word “{word}”.",
    n=len(second.text.split()),
    ends="ends by itself" if second.ended else "is cut",
    has="has" if reviews.obeys(example[1].word, second.text) else "does not have",
    word=example[1].word,
)

# %% [markdown]
# ## 4 · A reward model from people
#
# Fifteen or more people have rated each sentence from -4 (extremely negative) to 4. One
# rating of each of two sentences makes a comparison: what a single person might have
# said. Half of each sentence's raters are held out, and the mean of those stands in for
# gold. Three comparisons:

# %%
learnt = training.compared(first, settings.n_pairs)
pd.DataFrame(learnt[:3])[["chosen", "rejected", "gold"]].rename(
    columns={"gold": "held-out raters: chosen minus rejected"}
).style.hide(axis="index").format(precision=1).set_properties(
    **{"white-space": "normal", "max-width": "24em"}
)

# %%
wrong = np.mean([pair["gold"] < 0 for pair in learnt])
runs.say(
    "Of the {n} comparisons to learn from, {wrong:.0%} contradict the mean of the "
    "held-out raters.",
    n=len(learnt),
    wrong=wrong,
)

# %% [markdown]
# **Predict first:** with so few comparisons, how many of 100 unseen pairs will the reward
# model put in the order of the held-out raters? The *other* raters of the same sentences,
# all together, are the ceiling that people give; a judge that counts words and pairs of
# words, fitted to the mean ratings of about 14,000 other texts, is what can be had
# without a language model.
#
# <details><summary>What to think of before you open this</summary>
#
# In the small world a model of a million parameters needed thousands of comparisons. This
# one has read a good part of the web: it need not learn what praise is, only that praise
# is what is asked for.
# </details>

# %%
scores = {
    name: np.array([row[key] for row in rows["reward"]])
    for name, key in {
        "words counted": "length",
        "held-out judge": "judge",
        "reward model": "reward_model",
    }.items()
}
panel = np.array([row["panel"] for row in rows["reward"]])
right = record("reward_model_accuracy", scores["reward model"])
record("length_accuracy", scores["words counted"])
record("judge_accuracy", scores["held-out judge"])
record("panel_accuracy", panel)
record("one_rater_accuracy", [row["one_rater"] for row in rows["reward"]])
over_length = scores["reward model"] - scores["words counted"]
record("reward_model_minus_length_accuracy", over_length)
over_judge = record(
    "reward_model_minus_judge",
    over_length + scores["words counted"] - scores["held-out judge"],
)
runs.save_figure(
    figures.accuracy(
        scores,
        panel,
        reading(
            right,
            "A few hundred ratings teach the order that others see",
            "The rewards are in the wrong order",
            "The rewards and the order of the raters",
            0.5,
        ),
    ),
    "accuracy",
    "Unseen pairs in the order of held-out raters: by the number of words, a judge "
    "fitted to many mean ratings, and the reward model; dashed: the other raters.",
)

# %%
runs.say(
    "From {n} comparisons the reward model has {reward_model_accuracy:.2f} of the "
    "unseen pairs in order; {verdict}. The judge has {judge_accuracy:.2f}: {beside}. "
    "Words counted have {length_accuracy:.2f}, one rater {one_rater_accuracy:.2f}, "
    "the other raters together {panel_accuracy:.2f}.",
    n=settings.n_pairs,
    verdict=reading(
        right,
        "people differ from a coin in the same direction",
        "**worse than a coin**",
        "these seeds do not tell that from a coin",
        0.5,
    ),
    beside=reading(
        over_judge,
        "what the model has read is worth more than those",
        "**counting words is better than this model**",
        "these seeds do not tell which is better",
    ),
)

# %% [markdown]
# ## 5 · PPO and RLOO
#
# The reward model now pays the SFT policy. What SFT learnt is folded in, and the policy
# gets a new adapter. With that switched off the same weights are the reference, so KL
# needs no second copy. PPO fits a value function, RLOO compares four replies to each
# request instead.
#
# Two things score what comes out. The *reward model* is the proxy that was optimised.
# The *judge* of section 4 was held out: it never met the policy, and the policy never met
# it. A straight line through real sentences and their ratings says what a score of either
# means on the raters' scale, from -4 to 4.
#
# **Predict first:** will both rise? Equally?
#
# <details><summary>What to think of before you open this</summary>
#
# In notebook 06 gold stopped rising while the proxy went on. The judge here is no gold:
# it reads words only, and is right about people less often than people are. But its
# errors are other errors than the proxy's, so what both see is likely to be there.
# </details>

# %%
replies_of(SFT, *RL, n=5)

# %%
say_heard(SFT, *RL, n=5)

# %%
curves = {
    label: {method: [row["history"][key] for row in rows[method]] for method in RL}
    for label, key in {
        "score by the reward model": "score",
        "KL to SFT (nats a reply)": "kl_exact",
    }.items()
}
runs.save_figure(
    figures.along(curves, "Reward and distance along the way"),
    "along",
    "Score by the reward model and exact KL to the SFT policy of each update's replies "
    "(thin lines: seeds; bands: 95%).",
)

# %%
risen = {
    method: np.array([s[-2:] for s in curves["score by the reward model"][method]])
    .mean(1) for method in RL
}  # fmt: skip
began = {
    method: np.array([s[:2] for s in curves["score by the reward model"][method]])
    .mean(1) for method in RL
}  # fmt: skip
runs.say(
    "Over {n} updates of 16 replies the score of the training replies changes by "
    "{ppo:+.2f} with PPO and {rloo:+.2f} with RLOO (last two updates minus first two); "
    "the last ones are {far:.1f} nats from SFT on average.",
    n=settings.updates,
    ppo=(risen["PPO"] - began["PPO"]).mean(),
    rloo=(risen["RLOO"] - began["RLOO"]).mean(),
    far=np.mean([r[-1] for m in RL for r in curves["KL to SFT (nats a reply)"][m]]),
)

# %% [markdown]
# Those are replies to requests that were trained on. Now to held-out requests.

# %%
after = [*RL, DPO]
proxy, judge = (
    {m: analysis.gains(rows[m], rows[SFT], name) for m in after}
    for name in ("proxies", "judges")
)
ppo_gain = record("real_ppo_proxy_gain", proxy["PPO"], unit="points")
rloo_gain = record("real_rloo_proxy_gain", proxy["RLOO"], unit="points")
of_rl = {
    name: np.mean([gain[m] for m in RL], axis=0)
    for name, gain in (("proxy", proxy), ("judge", judge))
}
record("rl_proxy_gain", of_rl["proxy"], unit="points")
judged = record("rl_judge_gain", of_rl["judge"], unit="points")
apart = record("proxy_minus_judge_gain", of_rl["proxy"] - of_rl["judge"], unit="points")
record("rl_kl", np.mean([[row["kl"] for row in rows[m]] for m in RL], 0), unit="nats")
record("rl_ended", np.mean([analysis.means(rows[m], "ended") for m in RL], axis=0))
runs.save_figure(
    figures.gains(
        proxy,
        judge,
        reading(
            apart,
            "The optimised reward rises more than the held-out judge",
            "The held-out judge rises more than the optimised reward",
            "What the optimised reward and the held-out judge gain",
        ),
    ),
    "gains",
    "Gain over the SFT policy on held-out requests, by the reward model that was "
    "optimised and by a judge that was not (dots: seeds; bars: 95%).",
)

# %%
runs.say(
    "On held-out requests the reward model sees a gain of {real_ppo_proxy_gain:+.2f} "
    "points with PPO and {real_rloo_proxy_gain:+.2f} with RLOO, {far:.1f} nats from "
    "SFT. {rises} The judge sees {rl_judge_gain:+.2f}, {seen}; the difference is "
    "{proxy_minus_judge_gain:+.2f}: {verdict}.",
    far=np.mean([row["kl"] for m in RL for row in rows[m]]),
    rises=reading(
        ppo_gain,
        reading(
            rloo_gain,
            "Both raise what they are paid for.",
            "**RLOO lowers what it is paid for.**",
            "PPO raises what it is paid for; for RLOO these seeds do not tell.",
        ),
        "**PPO lowers what it is paid for.**",
        reading(
            rloo_gain,
            "RLOO raises what it is paid for; for PPO these seeds do not tell.",
            "**RLOO lowers what it is paid for.**",
            "For neither do these seeds tell a gain from none.",
        ),
    ),
    seen=reading(
        judged,
        "so that part of it is there for others too",
        "**a loss**",
        "which these seeds do not tell from nothing",
    ),
    verdict=reading(
        apart,
        "**part of what was gained is the reward model's own error**",
        "no sign of hacking, as the judge gains more",
        "not clearly more than the judge",
    ),
)

# %% [markdown]
# What else changed? In the small world optimising brought replies that are all alike,
# replies of another length, and requests that nobody hears any more. The reward model
# reads a sentence without its request, so nothing pays for the word that was asked for.

# %%
harm = {
    "distinct n-grams in replies\nto one request": "diversity",
    "words a reply": "words",
    "has the word asked for": "obeyed",
}
runs.save_figure(
    figures.panels(
        {
            what: {stage: analysis.means(rows[stage], name) for stage in (SFT, *after)}
            for what, name in harm.items()
        },
        "What was not paid for",
    ),
    "failures",
    "Diversity of replies to the same request, length, and whether the request is "
    "still heard, after SFT and after each way to optimise (dots: seeds; bars: 95%).",
)

# %%
changes = {
    name: record(
        f"rl_{name}_change",
        np.mean([analysis.gains(rows[m], rows[SFT], name) for m in RL], axis=0),
    )
    for name in harm.values()
}
record("sft_obeyed", analysis.means(rows[SFT], "obeyed"))
runs.say(
    "Mean of PPO and RLOO, beside SFT: diversity {rl_diversity_change:+.3f}, {narrow}; "
    "words {rl_words_change:+.1f}, {long}; share with the word asked for "
    "{rl_obeyed_change:+.2f}, {deaf}.",
    narrow=reading(
        changes["diversity"],
        "more varied",
        "**narrower**",
        "no change that these seeds can tell",
    ),
    long=reading(
        changes["words"],
        "**longer**",
        "**shorter**",
        "no change that these seeds can tell",
    ),
    deaf=reading(
        changes["obeyed"],
        "better heard than before",
        "**less heard**",
        "no change that these seeds can tell",
    ),
)

# %% [markdown]
# ## 6 · DPO on the same comparisons
#
# DPO needs no reward model: it learns from the very comparisons that the reward model
# learnt from, sentences of other people, in one pass. What does it write?

# %%
replies_of(SFT, DPO, n=5)

# %%
say_heard(SFT, DPO, n=5)

# %%
dpo_margin = [row["history"]["rewards/margins"] for row in rows[DPO]]
right_end = [np.mean(row["history"]["rewards/accuracies"][-5:]) for row in rows[DPO]]
record("dpo_last_accuracy", right_end)
dpo_gain = record("dpo_proxy_gain", proxy[DPO], unit="points")
dpo_judge = record("dpo_judge_gain", judge[DPO], unit="points")
record("dpo_kl", [row["kl"] for row in rows[DPO]], unit="nats")
runs.save_figure(
    figures.along(
        {"margin of implicit rewards": {DPO: dpo_margin}}, "DPO's margin", "step"
    ),
    "dpo_margin",
    "Implicit reward of the chosen minus that of the rejected sentence, on each step's "
    "comparisons before they are learnt (thin lines: seeds).",
)

# %%
runs.say(
    "Of the last five batches, not yet learnt from, it has {dpo_last_accuracy:.2f} in "
    "order. On held-out requests the reward model sees {dpo_proxy_gain:+.2f} points, "
    "the judge {dpo_judge_gain:+.2f}, {dpo_kl:.1f} nats from SFT: {verdict}.",
    verdict=reading(
        dpo_judge,
        "what it took from the comparisons is in what it writes",
        "**what it writes is worse for the judge**",
        reading(
            dpo_gain,
            "the reward model sees a gain, the judge none that these seeds can tell",
            "**the reward model sees a loss**",
            "to prefer what others wrote is not yet to write it",
        ),
    ),
)

# %% [markdown]
# ## 7 · Refusing
#
# Two more kinds of SFT, on the model as it comes. One shows harmful questions, each
# refused. The other shows the same, and with each a harmless question of the same form,
# with the first sentence of an answer. Neither shows any of the requests below.
#
# **Predict first:** what happens to harmless requests that sound edgy?
#
# <details><summary>What to think of before you open this</summary>
#
# Whoever is only ever shown one reply learns one reply. In notebook 02 a model that saw
# refusals alone refused what only looked like harm.
# </details>

# %%
kinds = list(arms.REFUSING)
told = [
    {
        "from": name,
        "request": rows[START][0]["requests"][name]["prompts"][0],
        **{
            stage: rows[stage][0]["requests"][name]["replies"][0]
            for stage in (START, *kinds)
        },
    }
    for name in exams.request_sets(settings.xstest)
]
pd.DataFrame(told).style.hide(axis="index").set_properties(
    **{"white-space": "normal", "max-width": "20em"}
)

# %%
say_refused(START, *kinds, n=1)

# %%
stages = [START, SFT, "PPO", DPO, *kinds]
harmful, benign = (
    {stage: analysis.refused(rows[stage], harmful=flag) for stage in stages}
    for flag in (True, False)
)
alone, twins = kinds
over = record("benign_refused_alone_minus_before", benign[alone] - benign[START])
back = record("benign_refused_twins_minus_alone", benign[twins] - benign[alone])
learnt_it = record(
    "harmful_refused_alone_minus_before", harmful[alone] - harmful[START]
)
kept = record("harmful_refused_twins_minus_before", harmful[twins] - harmful[START])
runs.save_figure(
    figures.refusals(
        harmful,
        benign,
        reading(
            over,
            "Refusals alone teach it to refuse what is harmless too",
            "Refusals alone make it refuse less of what is harmless",
            "What is refused, by what was learnt",
        ),
    ),
    "refusals",
    "Share refused of harmful requests and of benign ones that sound edgy, after each "
    "kind of training (dots: seeds; bars: 95%).",
)

# %%
runs.say(
    "Refusals alone add {harmful_refused_alone_minus_before:+.2f} to the share of "
    "harmful requests that are refused, and {benign_refused_alone_minus_before:+.2f} "
    "to that of harmless ones: {over}. With answered twins harmless ones change by "
    "{benign_refused_twins_minus_alone:+.2f} against that, {back}, and harmful ones "
    "are at {harmful_refused_twins_minus_before:+.2f} beside the start, {kept}.",
    over=reading(
        over,
        "**it refuses the harmless with the harmful**"
        if learnt_it.low > 0
        else "**it refuses the harmless**",
        "it refuses fewer of those",
        "these seeds do not tell a change",
    ),
    back=reading(
        back,
        "**still more refusals**",
        "so that the twins take it back",
        "which these seeds do not tell from none",
    ),
    kept=reading(
        kept,
        "so that safety stays",
        "**less safe than before**",
        "which these seeds do not tell from none",
    ),
)

# %% [markdown]
# The film reviews were about none of this. What does a policy that was paid for praise
# say to such requests?

# %%
pd.DataFrame(
    [
        {
            "from": name,
            "request": rows[START][0]["requests"][name]["prompts"][i],
            START: rows[START][0]["requests"][name]["replies"][i],
            "PPO": rows["PPO"][0]["requests"][name]["replies"][i],
        }
        for name in exams.request_sets(settings.xstest)
        for i in range(min(3, settings.n_requests))
    ]
).style.hide(axis="index").set_properties(
    **{"white-space": "normal", "max-width": "24em"}
)

# %%
say_refused(START, "PPO", n=3)

# %%
record("start_harmful_refused", harmful[START])
drift = {
    stage: record(
        f"{stage.lower()}_harmful_refused_change", harmful[stage] - harmful[START]
    )
    for stage in (SFT, "PPO", DPO)
}
runs.say(
    "The model as it comes refuses {start_harmful_refused:.2f} of the harmful "
    "requests. That changes by {sft_harmful_refused_change:+.2f} after SFT on film "
    "reviews, {ppo_harmful_refused_change:+.2f} after PPO and "
    "{dpo_harmful_refused_change:+.2f} after DPO: {verdict}.",
    verdict=reading(
        drift[SFT],
        "after film reviews it refuses more",
        "**film reviews have taken refusals away**, though nobody asked for that",
        "there was little to lose"
        if np.mean(harmful[START]) < 0.1
        else "no loss after SFT that these seeds can tell",
    ),
)

# %% [markdown]
# ## 8 · Does it know what it knows?
#
# Questions of CommonsenseQA, OpenBookQA and PIQA, each with its answers as text: an
# answer counts by the mean log-probability of its tokens, and *confidence* is the share
# of the favourite. (There is no untuned twin of this model in the archive, so that base
# against instruct cannot be shown; what can be is before against after.) One question:

# %%
[question] = exams.draw_questions("CommonsenseQA", 1, first)
answered = rows[START][0]["questions"]["CommonsenseQA"]
nats = np.array(answered["log_probs"][0])
pd.DataFrame(
    {
        "answer": question["choices"],
        "nats a token": nats,
        "share": np.exp(nats) / np.exp(nats).sum(),
        "right": ["✓" if k == question["label"] else "" for k in range(len(nats))],
    }
).style.hide(axis="index").format(precision=2).set_caption(question["question"])

# %%
runs.say(
    "It takes “{favourite}”, which is {right}.",
    favourite=question["choices"][int(nats.argmax())],
    right="right" if nats.argmax() == question["label"] else "wrong",
)

# %%
sets = list(exams.QUESTION_SETS)


def pooled(name, mended):
    """Confidences and correctness on the judging halves of all seeds."""
    pairs = [
        analysis.judged(
            row, name, analysis.fitted_temperature(row, name) if mended else 1.0
        )
        for row in rows[START]
    ]
    return tuple(np.concatenate(part) for part in zip(*pairs))


runs.save_figure(
    reliability_panels(
        {
            f"{name}{', one temperature' if mended else ''}": pooled(name, mended)
            for mended in (False, True)
            for name in sets
        },
        columns=3,
    ),
    "reliability",
    "Confidence and share right of the model as it comes, above, and at a temperature "
    "fitted on other questions, below; grey: where a calibrated model's points would "
    "lie.",
)

# %%
lead = np.mean(
    [[analysis.lead_over_guessing(row, name) for name in sets] for row in rows[START]],
    axis=1,
)
raw, mended = (
    np.array([analysis.mean_squared_error(row, flag) for row in rows[START]])
    for flag in (False, True)
)
knows = record("right_minus_guessing", lead)
cured = record("squared_error_mended_by_temperature", raw - mended)
record("squared_error_as_it_comes", raw)
left = record("share_of_squared_error_left", mended / raw)


def warmth(temperatures):
    """The median of temperatures in words; none is best where guessing wins."""
    median = np.median(temperatures)
    return f"{median:.1f}" if median < 100 else "more than 100, which is to guess,"


fits = {
    name: [analysis.fitted_temperature(row, name) for row in rows[START]]
    for name in sets
}
runs.say(
    "Right beyond guessing: {right_minus_guessing:+.3f}, {knows}. The mean squared "
    "gap is {squared_error_as_it_comes:.3f}; temperatures of {fits} take "
    "{squared_error_mended_by_temperature:+.3f} off it, {cured}. Its mean confidence "
    "is then {sure:.2f}, from {was:.2f}: {worth}.",
    knows=reading(
        knows,
        "so it knows something",
        "**worse than guessing**",
        "which these seeds do not tell from nothing",
    ),
    fits=", ".join(f"{warmth(values)} ({name})" for name, values in fits.items()),
    cured=reading(
        cured,
        "so one number mends most of it"
        if left.value < 0.25
        else "so one number mends a part",
        "**which makes it worse**",
        "which these seeds do not tell from nothing",
    ),
    sure=np.mean([pooled(name, True)[0].mean() for name in sets]),
    was=np.mean([pooled(name, False)[0].mean() for name in sets]),
    worth="honest, and close to saying that it does not know"
    if np.mean([pooled(name, True)[0].mean() for name in sets])
    < 0.1
    + np.mean(
        [
            1 / np.array(rows[START][0]["questions"][n]["log_probs"]).shape[1]
            for n in sets
        ]
    )
    else "honest, and it still tells what it knows from what it does not",
)

# %% [markdown]
# And after training on film reviews? All are asked the same questions.

# %%
few = settings.n_questions_after
tested = [START, SFT, "PPO", DPO]
errors = {
    how: {
        stage: [analysis.mean_squared_error(row, mended, few) for row in rows[stage]]
        for stage in tested
    }
    for how, mended in (("as they are", False), ("at a fitted temperature", True))
}
runs.save_figure(
    figures.panels(errors, "Mean squared calibration error on the same questions"),
    "calibration_after",
    "Debiased mean squared gap of confidence and share right, mean of three question "
    "sets, before and after training on film reviews (dots: seeds; bars: 95%).",
)

# %%
moved = {
    stage: record(
        f"{stage.lower()}_squared_error_change",
        np.subtract(errors["as they are"][stage], errors["as they are"][START]),
    )
    for stage in tested[1:]
}
runs.say(
    "Beside the model as it comes the mean squared gap changes by "
    "{sft_squared_error_change:+.3f} after SFT, {ppo_squared_error_change:+.3f} after "
    "PPO and {dpo_squared_error_change:+.3f} after DPO: {verdict}.",
    verdict="; ".join(
        f"{stage} {reading(change, 'is **worse**', 'is better', 'not clearly either')}"
        for stage, change in moved.items()
    ),
)

# %% [markdown]
# ## 9 · Verdicts
#
# Thresholds were fixed before measuring on these seeds. All verdicts are about this one
# model: with others, `alignlab run 09 --param model=...`.

# %%
runs.show_verdicts()

# %% [markdown]
# ## What the big labs do that we left out
#
# * **Size.** A reward model of 135 million parameters from some hundred ratings, and a
#   handful of updates of sixteen replies. There, both are a thousand times as large and
#   more; profile `gpu` takes a step in that direction.
# * **People who rate what the policy writes**, again and again. Our raters saw sentences
#   of professional critics, long before; the policy's own never met one of them.
# * **A task that matters.** To please in one sentence about a film is a toy, though a
#   real one. Helpfulness has no list of rated sentences.
# * **Judges that were not trained on the same kind of ratings**: people first of all.
#   Ours is held out, but it learnt from raters of the same panel.
# * **Red teams** in place of a list of requests from a paper, and policies for what lies
#   between harmful and harmless.
#
# *Try:* `--param updates=40` and look at the two judges of section 5 again. We would
# expect them to part; if they rise together all the way, that would surprise us.
