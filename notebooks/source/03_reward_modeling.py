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
# # 03 · What does a reward model learn from comparisons, and what limits it?
#
# People cannot say what a reply is worth, but they can say which of two is better. A
# *reward model* turns such comparisons into a number, and the next notebooks optimise
# that number, so its faults become theirs. Here the true worth of every reply is known,
# and so is how noisy each annotator is: what the best possible model could reach is not
# guessed but computed.
#
# | | |
# | --- | --- |
# | **time** | `smoke` half a minute · `cpu` 3 minutes · `full` a quarter of an hour |
# | **memory** | under 4 GB |
# | **you need** | notebook 01 (it runs alone: what is missing is built, once) |
# | **look at first** | the loop in section 2, the three panels in section 4 |
# | **sweeps worth trying** | `n_reward`, `flips`, `n_length`; `run.settings` has all |
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
from scipy.special import expit

from alignlab import runs
from alignlab.chapters.reward_modeling import (
    analysis,
    costs,
    figures,
    judging,
    raters,
    variance,
)
from alignlab.chapters.reward_modeling import runs as arms
from alignlab.course import check, hint
from alignlab.evaluation.best_of_n import best_of_n_probabilities, best_of_n_values
from alignlab.evaluation.intervals import (
    bounded_interval,
    reading,
    t_interval,
    two_level_interval,
)
from alignlab.models.base import load_base, use_device
from alignlab.models.reward import reward_model_from, score
from alignlab.models.text import encode_dialogues, pad_right
from alignlab.plots import rating
from alignlab.plots.explorers import pair_explorer
from alignlab.plots.rating_panel import RatingPanel
from alignlab.plots.style import use_style
from alignlab.seeds import stream
from alignlab.study import artifacts
from alignlab.study.tuning import TEST_SEED
from alignlab.training import trl_parity
from alignlab.world import ceilings, gold
from alignlab.world.annotators import Annotator
from alignlab.world.comparisons import make_pairs
from alignlab.world.tasks import default_world

use_style()
run = runs.start("03_reward_modeling", profile, seed, device, out_dir)
use_device(device)
settings = run.settings
policy_of = dict(base=settings.model, steps=settings.steps)
common = dict(k=settings.k, **policy_of)
jobs = dict(jobs=settings.jobs)
chains = arms.links(run.seeds, settings.nested)  # a reference for each seed, or one
few = chains[: settings.costly_seeds]
first = chains[0]["seed"]
start = dict(reference_seed=chains[0]["reference_seed"], **policy_of)
reply_seeds = dict(seed=start["reference_seed"], progress=True)
to_learn_from = artifacts.candidates("train", settings.k, **start, **reply_seeds)
to_test = artifacts.candidates("test", arms.TEST_REPLIES, **start, **reply_seeds)
runs.say(
    "Profile {profile}, seeds {seeds}. {chain}",
    profile=profile,
    seeds=", ".join(map(str, run.seeds)),
    chain="Each seed has a reference policy, replies, comparisons and reward models of "
    "its own."
    if settings.nested
    else f"All stand on the reference policy of seed {start['reference_seed']} and its "
    "replies: intervals hold *given this reference* (profile full draws it anew).",
)

# %% [markdown]
# ## 1 · Two replies first
#
# The policy from notebook 01, tuned on replies of mixed quality to "Tell me about
# France.", answers requests about subjects that no comparison will be about. Here are
# two of its replies to one request, and what each is really worth, in three parts:
# **form** (courtesies, not too long), **completeness** (different things said of the
# right subject) and **truth** (are they right?).

# %%
rng = stream(first, "a reply to compare")
annotator = Annotator(temperature=arms.TEMPERATURE)
pairs, summary = make_pairs(to_test, annotator, rng, per_prompt=1)
shown_pair = max(pairs[:20], key=lambda p: p["gold_rejected"] - 9 * p["tie"])
parts = ("gold", *gold.PARTS)
pd.DataFrame(
    {
        side: {"reply": shown_pair[side]}
        | {part: shown_pair[f"{part}_{side}"] for part in parts}
        for side in ("chosen", "rejected")
    }
).T.style.format(precision=1).set_caption(shown_pair["prompt"]).set_properties(
    subset=["reply"], **{"white-space": "normal", "max-width": "30em"}
)

# %% [markdown]
# *(An annotator chose one of them; was it the one that you would have taken?)*
#
# What is a reply worth? The **gold** reward was fixed before anything was trained, by
# what people would say of replies, and no weight was chosen with a reward model in
# view:

# %%
runs.say("\n".join(f"* {text}" for text in gold.PROPERTIES))

# %%
world = default_world()
fact = "The capital of France is Paris."
examples = {
    "three right facts": f"{fact} France lies in Europe. French is spoken in France.",
    "one right fact": fact,
    "the same, politely": f"Good day to you. {fact} I hope this helps.",
    "a wrong fact": "The capital of France is Rome.",
    "the wrong one, politely": "Good day to you. The capital of France is Rome. I hope "
    "this helps.",
    "one right, one wrong": f"{fact} France lies in Asia.",
    "said twice": f"{fact} {fact}",
    "an admission": "I do not know.",
    "courtesy alone": "Good day to you. Thank you for asking. That is all I can say.",
    "babble": "He went up to the house. And the house was there.",
}
worth = {
    what: dict(reply=text, gold=g.total)
    | {part: getattr(g, part) for part in parts[1:]}
    for what, text in examples.items()
    for g in [gold.gold_reward(world, "France", text)]
}
pd.DataFrame(worth).T.sort_values("gold", ascending=False).style.format(
    precision=1
).set_properties(subset=["reply"], **{"white-space": "normal", "max-width": "26em"})

# %%
value = {what: row["gold"] for what, row in worth.items()}
kinds = list(gold.PARTS)
runs.say(
    "To “Tell me about France.”, one bare right fact is worth {right:+.1f}, all "
    "courtesies around it {polite:+.1f} more, a wrong fact {wrong:+.1f}, an admission "
    "{admits:+.1f} (France is a subject that the model should know), and courtesy "
    "without content {empty:+.1f}.",
    right=value["one right fact"],
    polite=value["the same, politely"] - value["one right fact"],
    wrong=value["a wrong fact"],
    admits=value["an admission"],
    empty=value["courtesy alone"],
)

# %% [markdown]
# One annotator chose. What would 300 say? *Bradley and Terry's* model has each of them
# see the worth $u$ of a reply with some noise, and take what seems better. If the noise
# is such that the *difference* of two has the logistic distribution, then
#
# $$P(1 \succ 2) = \sigma\!\left(\frac{u_1 - u_2}{T}\right), \qquad
# \sigma(x) = \frac{1}{1 + e^{-x}}$$
#
# with $T$ the size of the noise. Our annotators work this way, with $u$ the gold reward
# and $T$ such that two of them agree about as often as people do (73% in Ouyang et al.,
# 2022). Below are their votes on one pair of replies for each subject.

# %%
probability = np.array([p["probability"] for p in pairs])
gaps = [p["gold_chosen"] - p["gold_rejected"] for p in pairs]
shares = rng.binomial(300, probability) / 300
runs.save_figure(
    figures.votes(gaps, shares, arms.TEMPERATURE, 300),
    "votes",
    "Share of 300 simulated annotators who prefer the first of two replies, against "
    "the difference in gold; the dashed curve is what they are drawn from.",
)

# %%
share = shares[pairs.index(shown_pair)]
runs.say(
    "Of the pair in the table, {share:.0%} take the reply that the first annotator "
    "took{minority}. Over all pairs two annotators agree in {agreement:.0%}, and who "
    "knew every gold reward would agree with an annotator in {ceiling:.0%}: no model "
    "can expect more.",
    share=share,
    minority=", who was in the minority" if share < 0.5 else "",
    agreement=ceilings.label_agreement(probability),
    ceiling=ceilings.accuracy_ceiling(probability),
)

# %% [markdown]
# ## 2 · Train one yourself
#
# To learn rewards $r$ from comparisons, put $r$ in the place of $u/T$ and make what was
# seen likely: the loss is minus the logarithm of the probability that each chosen reply
# is chosen,
#
# $$L = -\frac{1}{n} \sum_i \log \sigma(r^+_i - r^-_i).$$
#
# Only differences matter: a constant added to all rewards of a prompt changes nothing.
#
# **Exercise 03.1** · ★ · 10 minutes · `hint("03.1")`
#
# Write the loss. It must stay finite where a difference is -200.


# %% nbgrader={"grade": false, "grade_id": "nb03-q1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_bradley_terry_loss(chosen, rejected):
    """(N,), (N,) to one number: nats per pair."""
    ### BEGIN SOLUTION
    import torch.nn.functional as F

    return -F.logsigmoid(chosen - rejected).mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb03-q1-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("03.1", my_bradley_terry_loss)

# %% [markdown]
# Now train with it. A reward model is a language model with one number for an output,
# read at the last token: it has then seen the whole dialogue. This is the whole loop.
# So that it takes seconds, the trunk is the base model of 300,000 parameters, and the
# comparisons are the easy ones: replies that differ by more than a right fact, and an
# annotator who makes no mistakes. (From section 3 on nothing is that easy.)

# %%
trunk, words = load_base("300k")


def clear_cut(candidates):
    """Comparisons without a wrong label, of replies that differ by more than a fact;
    all there are of a policy that writes next to none."""
    pairs = artifacts.comparisons(candidates, flips=0.0, seed=first)
    clear = [p for p in pairs if p["gold_chosen"] - p["gold_rejected"] > 1]
    return clear if len(clear) >= 16 else pairs


clear, unseen_clear = clear_cut(to_learn_from), clear_cut(to_test)
steps = min(settings.lesson_steps, len(clear) // 16)
shown_clear = clear[0]
runs.say(
    "{n:,} comparisons to learn from. The first: **{chosen}** was preferred to "
    "**{rejected}**",
    n=16 * steps,
    chosen=shown_clear["chosen"],
    rejected=shown_clear["rejected"],
)


# %%
def last_token(mask):
    return mask.sum(1) - 1


def rewards(model, pairs, side, read_at):
    prompts, replies = [p["prompt"] for p in pairs], [p[side] for p in pairs]
    ids = encode_dialogues(words, prompts, replies)
    batch = pad_right(ids, words.pad_token_id)
    tokens, mask = (x.to(model.device) for x in batch)
    hidden = model.base_model(tokens, attention_mask=mask).last_hidden_state
    return model.score(hidden[torch.arange(len(pairs)), read_at(mask)])[:, 0]


def train(loss, read_at=last_token):
    model = reward_model_from(trunk, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.5e-3)
    losses = []
    for step in range(steps):
        batch = clear[16 * step : 16 * (step + 1)]
        chosen = rewards(model, batch, "chosen", read_at)
        rejected = rewards(model, batch, "rejected", read_at)
        value = loss(chosen, rejected)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    return model, losses


# %%
@torch.no_grad()
def accuracy(model, read_at=last_token, pairs=unseen_clear[: 10 * steps]):
    two = [rewards(model, pairs, side, read_at) for side in ("chosen", "rejected")]
    return (0.5 + 0.5 * torch.sign(two[0] - two[1])).mean().item()


before = accuracy(reward_model_from(trunk, seed))
model, losses = train(my_bradley_terry_loss)
after = accuracy(model)
runs.say(
    "{n:,} comparisons, {steps} steps: the loss goes from {begin:.3f} to {end:.3f} "
    "nats (a coin: 0.693). Of clear-cut pairs about unseen subjects it has "
    "{before:.2f} in order before training and {after:.2f} after{remark}.",
    n=16 * steps,
    steps=steps,
    begin=np.mean(losses[:3]),
    end=np.mean(losses[-10:]),
    before=before,
    after=after,
    remark="" if after > before else " (too few comparisons to learn from)",
)

# %% [markdown]
# **Now break it.** Predict first what each of these does to the accuracy on unseen
# pairs: (a) chosen and rejected exchanged; (b) the reward read at a token of the
# request, before the reply begins; (c) each reply judged by itself, "chosen is good,
# rejected is bad", without the difference.
#
# <details><summary>What to think of before you open this</summary>
#
# (a) The gradient has the other sign. (b) Both rewards of a pair are then read from
# the same tokens. (c) A reply that is chosen over a bad one may be rejected for a good
# one: is anything left that the two labels agree on?
# </details>
#
# Change `broken` and run the cell again.

# %%
broken = {
    "chosen and rejected exchanged": (
        lambda c, r: my_bradley_terry_loss(r, c),
        last_token,
    ),
    "read before the reply": (my_bradley_terry_loss, lambda mask: 0 * mask.sum(1) + 2),
    "each reply by itself": (
        lambda c, r: my_bradley_terry_loss(c, 0 * c) + my_bradley_terry_loss(0 * r, r),
        last_token,
    ),
}
outcome = {"as it should be": (losses, after)}
for what, (loss, read_at) in broken.items():
    model, losses = train(loss, read_at)
    outcome[what] = losses, accuracy(model, read_at)
pd.DataFrame(
    {
        what: {"loss at the end": np.mean(values[-10:]), "unseen pairs in order": right}
        for what, (values, right) in outcome.items()
    }
).T.style.format(precision=3)

# %%
exchanged, before_reply, alone = (outcome[what][1] for what in broken)
ends = {what: np.mean(values[-10:]) for what, (values, _) in outcome.items()}
runs.say(
    "Exchanged, it {learns} ({exchanged:.2f}), and its loss ends at {wrong_end:.3f}, "
    "that of the right one at {end:.3f}: a loss curve does not show a wrong sign. Read "
    "before the reply begins, both rewards are the same whatever was said: "
    "{before_reply:.2f} of the pairs are in order, a coin, and the loss is "
    "{same:.3f}. Each reply by itself reaches {alone:.2f} against {after:.2f}: "
    "{verdict}.",
    end=ends["as it should be"],
    wrong_end=ends["chosen and rejected exchanged"],
    same=ends["read before the reply"],
    learns="learns the wrong order"
    if exchanged < 0.5
    else "should learn the wrong order",
    exchanged=exchanged,
    before_reply=before_reply,
    alone=alone,
    after=after,
    verdict="here that works too, as good replies are good whatever they are held "
    "against; the loss now also asks for a level that comparisons do not tell"
    if alone > after - 0.02
    else "good and bad are relative, and the level that it looks for is not in the "
    "labels",
)

# %% [markdown]
# **Experiment 03.2** · ★★ · 25 minutes · `hint("03.2")`
#
# People err. Flip a share of the labels at random, and train with your loss on the
# result. **Write down a prediction first:** from no wrong labels to many, does the mean
# lead of the better reply (its reward less that of the other) rise, fall, or stay? Then
# train at three shares or more, from 0 to a half at most, and measure the lead in every
# pair of `unseen_clear[: 10 * steps]`.
#
# Hand in a report, a dict: `prediction` and `outcome` (`"rises"`, `"falls"` or
# `"stays"`; up to two standard errors are `"stays"`, and a prediction that fails costs
# nothing), `settings` from low to high, `measured` (a row for each of them, a number
# for each pair: its lead), `difference` (the mean of the last row less the first) and
# `error` (its standard error).

# %% nbgrader={"grade": false, "grade_id": "nb03-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
my_report = None
### BEGIN SOLUTION
prediction = "falls"  # written down before the run


def leads(share):
    generator = torch.Generator().manual_seed(seed)

    def noisy_loss(chosen, rejected):
        wrong = torch.rand(len(chosen), generator=generator) < share
        wrong = wrong.to(chosen.device)
        return my_bradley_terry_loss(
            torch.where(wrong, rejected, chosen), torch.where(wrong, chosen, rejected)
        )

    learner, _ = train(noisy_loss)
    with torch.no_grad():
        better, worse = (
            rewards(learner, unseen_clear[: 10 * steps], side, last_token)
            for side in ("chosen", "rejected")
        )
    return better - worse


tried = [0.0, 0.2, 0.4]
found = [leads(share) for share in tried]
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

# %% nbgrader={"grade": true, "grade_id": "nb03-q2-check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
check("03.2", my_report)

# %%
noisiest = torch.as_tensor(my_report["measured"][-1])
runs.say(
    "From {low:.0%} to {high:.0%} wrong labels the mean lead changes by "
    "{difference:+.3f} (standard error {error:.3f}): it {outcome}. With the most wrong "
    "labels {right:.0%} of {n} unseen pairs are still in order.",
    low=my_report["settings"][0],
    high=my_report["settings"][-1],
    difference=float(my_report["difference"]),
    error=float(my_report["error"]),
    outcome=my_report["outcome"],
    right=(noisiest > 0).double().mean().item(),
    n=len(noisiest),
)

# %% [markdown] nbgrader={"grade": false, "grade_id": "nb03-q3", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": true}
# **Interpretation 03.3** · ★★★ · 15 minutes · `hint("03.3")`
#
# *Answer in about five sentences, in the cell below.* What do wrong labels do to the
# *scale* of rewards, and what to their *order*? Which lead would a model have that
# knows a quarter of the labels to be wrong, and learns without end? Does PPO (notebook
# 04), which takes the reward in standard deviations, care about the one or the other?
# And how could you find out how many labels are wrong, without gold?
#
# <!-- === BEGIN MARK SCHEME === -->
# *Rubric.* **1 point:** scale and order are told apart with numbers of the run: the
# lead shrinks (or not clearly, if that is what was measured) while the share in order
# changes less. **1 point:** at a share q of wrong labels the loss is least where
# σ(lead) = 1 - q, so log((1 - q)/q), 1.1 at a quarter: finite, where it has no limit
# without noise. **1 point:** standardised rewards do not change with scale, order does
# matter; and a way to find q: two annotators on the same pairs, whose agreement is (1 -
# q)² + q², or a held-out likelihood. Half a point for one of the two.
# <!-- === END MARK SCHEME === -->

# %% [markdown]
# *Your answer:*

# %% [markdown]
# ## 3 · More comparisons, more noise
#
# Now in earnest. An annotator knows the gold order, but some of the labels are flipped.
# The reward model is the policy's own trunk; it is trained on $n$ comparisons about
# training subjects and judged on all pairs of replies about the others. There are three
# lines: how often it agrees with *noisy labels*, the *exact ceiling* $E[\max(p, 1-p)]$
# for that, and how often it has the *gold order*, which labels alone would never show.
#
# **What would show that something is wrong?** Each model has a *twin*: the same head,
# comparisons and order, and every label reversed. What labels teach, the twin learns
# the wrong way round, and it must lie below one half as clearly as the model lies above
# it. Gold that leaks into training by any other way raises both.
#
# **Predict first:** can the model be right more often than its labels are?
#
# <details><summary>Open when you have an answer</summary>
#
# It can in principle: errors of single labels cancel over thousands of them, if they are
# errors of chance. Whether it does depends on how much of gold such a model can see at
# all. The line "best possible on labels" is a ceiling on agreement with *labels*; the
# gold order has none but 1.
# </details>

# %%
ns = [settings.n_reward // part for part in settings.parts]
swept = arms.accuracy_sweep(
    chains,
    n_reward=settings.n_reward,
    flips=settings.flips,
    ns=ns,
    noise=settings.noise,
    n_noise=ns[len(ns) // 2],
    twins=chains[: settings.twin_seeds],
    noisy=few,
    draws=settings.draws,
    **jobs,
    **common,
)
policies = {
    c["seed"]: policy_of | {"reference_seed": c["reference_seed"]} for c in chains
}
tested = {s: arms.replies("test", arms.TEST_REPLIES, **p) for s, p in policies.items()}
unseen = {
    rate: {
        s: artifacts.comparisons(replies, flips=rate, seed=TEST_SEED)
        for s, replies in tested.items()
    }
    for rate in {settings.flips, *settings.noise}
}
usual = unseen[settings.flips]


def judged(rows, flips=settings.flips):
    return analysis.score_rows(rows, tested, unseen[flips])


def keep(name, table):
    """Record values by seed and subject: the subjects are the same for all seeds."""
    table = np.asarray(table)  # (seeds, subjects)
    if len(table) > 1:
        return runs.record(name, table.mean(), items=table)
    return runs.record(name, table.mean(), seeds=table.mean(1), n=table.shape[1])


def rate(name, values):
    """Record a share, by seed or by seed and subject, with limits from 0 to 1."""
    values = np.asarray(values, float)
    by_seed = values if values.ndim == 1 else values.mean(1)
    limits = ()
    if len(by_seed) > 1:
        interval = bounded_interval if values.ndim == 1 else two_level_interval
        limits = interval(values.tolist(), (0, 1))[1:]
    return runs.record(name, by_seed.mean(), *limits, seeds=by_seed)


def table(rows, seeds=run.seeds):
    return analysis.subject_table(rows, seeds)


main, twins, curve, draws = (
    judged(swept[group]) for group in ("series", "twins", "curve", "draws")
)
noise = [
    row
    for rate in unseen
    for row in judged([r for r in swept["noise"] if r["flips"] == rate], rate)
]
chance_of = {
    rate: np.concatenate([[p["probability"] for p in by[s]] for s in by])
    for rate, by in unseen.items()
}
ceiling = {rate: ceilings.accuracy_ceiling(p) for rate, p in chance_of.items()}

# %%
by_size = [table([row for row in curve if row["n"] == n]) for n in ns]
slopes = np.polyfit(np.log2(ns), np.reshape(by_size, (len(ns), -1)), 1)[0]
right = keep("gold_order_accuracy", table(main))
slope = keep("accuracy_slope_per_doubling", slopes.reshape(by_size[0].shape))
twinned = run.seeds[: settings.twin_seeds]
twin = keep("twin_accuracy", table(twins, twinned))
keep("model_minus_twin_accuracy", table(main, twinned) - table(twins, twinned))
labels = [row["label"] for row in main]
rate("label_accuracy", labels)
runs.record("label_accuracy_ceiling", ceiling[settings.flips])
runs.save_figure(
    figures.accuracy(
        curve,
        noise,
        twins,
        ceiling,
        reading(
            slope,
            "More comparisons bring reward models closer to gold",
            "More comparisons lead reward models away from gold",
            "Reward models and gold, by comparisons and noise",
        ),
    ),
    "accuracy",
    "Accuracy on unseen pairs against noisy labels and against the gold order, over "
    "the number of comparisons and over the noise; dashed: the best possible on "
    "labels; dotted: chance.",
)

# %%
runs.say(
    "With {n:,} comparisons it has the gold order in {gold_order_accuracy:.3f} of the "
    "unseen pairs, {above}; {wrong:.0%} of the labels are wrong. With noisy labels it "
    "agrees in {label_accuracy:.3f}, where {label_accuracy_ceiling.value:.3f} is the "
    "most that can be expected. Twice as many comparisons bring "
    "{accuracy_slope_per_doubling:+.3f}: {more}. The twin, which learns from reversed "
    "labels, has the gold order in {twin_accuracy:.3f}: {control}.",
    n=settings.n_reward,
    wrong=settings.flips,
    above=reading(
        right,
        "more than chance",
        "**less than chance**",
        "not clearly more than chance",
        0.5,
    ),
    more=reading(
        slope, "still rising", "**falling**", "not clearly rising over these sizes"
    ),
    control=reading(
        twin,
        "**gold comes in by another way than labels**",
        "it took the wrong order from its labels, as it should, so it is the labels "
        "that teach",
        "too few seeds to tell it from chance",
        0.5,
    ),
)

# %% [markdown]
# (Real reward models agree with held-out human labels in 65 to 75% of pairs. What is
# reached here is a finding, not a design: gold was fixed first.)
#
# Does it take a network? Two controls learn from the same comparisons: a reward that
# only knows *how many* words a reply has, and one that only knows *which*, a bag of
# words. Neither can know what is true of which subject.

# %%
controls = judged(
    arms.control_sweep(
        chains, n=settings.n_reward, flips=settings.flips, **jobs, **common
    )
)
compared = {
    kind: [row for row in controls if row["kind"] == kind] for kind in arms.CONTROLS
} | {"reward model": main}
for kind, rows in list(compared.items())[:2]:
    rate(f"control_{kind.replace(' ', '_')}_accuracy", table(rows))
ahead = keep(
    "reward_model_minus_bag_of_words",
    table(main) - table(compared["bag of words"]),
)
runs.save_figure(
    figures.kinds(
        {kind: [row["gold"] for row in rows] for kind, rows in compared.items()},
        reading(
            ahead,
            "The network sees more than which words there are",
            "Counting words does better than the network",
            "The network is not clearly better than counting words",
        ),
    ),
    "controls",
    "Gold-order accuracy of a length-only and a bag-of-words reward, and of the reward "
    "model, from the same comparisons.",
)

# %%
runs.say(
    "Length only: {control_length_only_accuracy:.3f}. Bag of words: "
    "{control_bag_of_words_accuracy:.3f}. The reward model minus the bag of words: "
    "{reward_model_minus_bag_of_words:+.3f}. {verdict}",
    verdict=reading(
        ahead,
        "What it sees beyond single words (their order, or which subject they are said "
        "of) is worth having.",
        "**With so few comparisons the simpler model is the better one**: it has less "
        "to learn.",
        "What it gains over single words is within the noise of this profile.",
    ),
)

# %% [markdown]
# Accuracy is coarse. $\sigma(r^+ - r^-)$ is a probability, and has a Brier score
# $(1-\sigma)^2$ and a log loss. Neither can go to zero: of a pair whose first reply is
# chosen with probability $p$, even a forecast of exactly $p$ errs.
#
# **Exercise 03.4** · ★★ · 15 minutes · `hint("03.4")`
#
# What do the *best* forecasts score, on average? (Mind $0 \log 0$,
# which is 0 here.)


# %% nbgrader={"grade": false, "grade_id": "nb03-q4", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_floors(probability):
    """(N,) probabilities to (brier, nll): the least expected score, mean over pairs."""
    ### BEGIN SOLUTION
    import torch

    p = probability
    brier = (p * (1 - p)).mean()
    nll = -(torch.xlogy(p, p) + torch.xlogy(1 - p, 1 - p)).mean()
    return brier, nll
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb03-q4-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("03.4", my_floors)

# %%
p = chance_of[settings.flips]
floor = {"brier": ceilings.brier_floor(p), "nll": ceilings.nll_floor(p)}
coin = {"brier": 0.25, "nll": np.log(2)}
runs.save_figure(
    figures.floors(curve, floor),
    "floors",
    "Brier score and log loss on noisy labels of unseen pairs, with the exact floors.",
)

# %%
for name, least in floor.items():
    values = [row[name] for row in main]
    runs.record(f"{name}_unseen", np.mean(values), seeds=values)
    runs.record(f"{name}_floor", least)
won = 1 - (np.mean([row["nll"] for row in main]) - floor["nll"]) / (
    coin["nll"] - floor["nll"]
)
runs.say(
    "At {n:,} comparisons the Brier score is {brier_unseen:.4f} over a floor of "
    "{brier_floor.value:.4f}, and the loss {nll_unseen:.4f} nats over "
    "{nll_floor.value:.4f}. A coin has a loss of 0.6931: {closed}.",
    n=settings.n_reward,
    closed=f"of the way from there to the floor the model has gone {won:.0%}"
    if won > 0
    else "the model does worse than that, as it is too sure of what it says",
)

# %% [markdown]
# See for yourself: a pair, its gold and its rewards.

# %%
model, tokenizer = artifacts.reward_model(
    settings.n_reward,
    flips=settings.flips,
    seed=first,
    reply_seed=start["reference_seed"],
    k=settings.k,
    **start,
)
shown = usual[first][:40]
prompts = [pair["prompt"] for pair in shown]
scored = np.column_stack(
    [
        score(model, tokenizer, prompts, [pair[side] for pair in shown])
        for side in ("chosen", "rejected")
    ]
)
pair_explorer(shown, scored)

# %%
lead = scored[:, 0] - scored[:, 1]
runs.say(
    "The first of {n} pairs stands here; with a kernel the slider leafs through them. "
    "In {noisy} of them the label contradicts gold, and the reward model has "
    "{right:.0%} in the gold order.",
    n=len(shown),
    noisy=sum(p["noisy"] for p in shown),
    right=ceilings.gold_order_accuracy(shown, lead),
)

# %% [markdown]
# ## 4 · Which differences does it see?
#
# The gold order is missed in some pairs. In which? **Left:** what there is to see, the
# share of each part in the variance of gold differences. **Middle:** what the model pays
# for it, its reward regressed on the differences in the three parts; a model that saw
# them all alike would pay the same for a unit of each. **Right:** pairs of replies that
# differ in a single part.
#
# **Predict first:** order the three parts by how much of each the model will see.
#
# <details><summary>Open when you have an order</summary>
#
# What can be read off the reply alone is easiest: a greeting is there or not. For
# completeness one has to compare sentences and know the subject that was asked about.
# For truth one has to know the world, and the trunk's knowledge of it must reach the
# head. Whether it does is what the panels show.
# </details>

# %%
seen = [analysis.seen_parts(usual[row["seed"]], row["difference"]) for row in main]
in_part = {}
for part in gold.PARTS:
    for measure in ("share", "weight", "accuracy"):
        values = [found[part][measure] for found in seen]
        if np.isfinite(values).all():
            name = f"{part}_{measure}"
            in_part[part, measure] = (
                rate(name, values)
                if measure == "accuracy"
                else runs.record(name, np.mean(values), seeds=values)
            )
most = max(gold.PARTS, key=lambda part: in_part[part, "share"].value)
runs.save_figure(
    figures.parts(seen, f"{most.capitalize()} makes most of gold; what is seen of it?"),
    "parts",
    "What makes gold differ, what the reward model pays for each part of it, and how "
    "often it orders pairs that differ in one part alone (dots: seeds; bars: 95%).",
)

# %%
for part in gold.PARTS:
    alone = in_part.get((part, "accuracy"))
    runs.say(
        f"**{part.capitalize()}** is {{{part}_share.value:.0%}} of the variance of "
        f"gold. The model pays {{{part}_weight:+.2f}} of log-odds for a unit of it: "
        "{pays}.{order}",
        pays=reading(
            in_part[part, "weight"],
            "it sees some of it",
            "**it pays for the opposite**",
            "not clearly anything",
        ),
        order=""
        if alone is None
        else f" Of pairs that differ in nothing else {alone:.2f} are in order"
        + reading(alone, ", more than chance.", ", **less than chance**.", ".", 0.5),
    )

# %% [markdown]
# This is the gap that the next notebooks fall into. A policy that is paid by this model
# gains by whatever stands high in the middle panel; what is high on the left and low in
# the middle it can lose without being told.
#
# ## 5 · Rankings of K against pairs
#
# A labeller who has read four replies can rank them all. *Plackett and Luce's* model has
# the best one chosen among all, then the next among those that remain:
#
# $$P(1 \succ 2 \succ \dots \succ K) = \prod_{k=1}^{K}
# \frac{e^{r_k}}{\sum_{j \ge k} e^{r_j}}$$
#
# **Exercise 03.5** · ★★ · 15 minutes · `hint("03.5")`
#
# Write its loss.


# %% nbgrader={"grade": false, "grade_id": "nb03-q5", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_plackett_luce_loss(rewards):
    """(N, K), best reply first in each row, to one number: nats per ranking."""
    ### BEGIN SOLUTION
    import torch

    remaining = torch.stack(
        [rewards[:, k:].logsumexp(1) for k in range(rewards.shape[1])], dim=1
    )
    return (remaining - rewards).sum(1).mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb03-q5-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("03.5", my_plackett_luce_loss)

# %% [markdown]
# The same groups of replies, labelled in four ways by the annotators of section 1: two
# pairs of each group; a ranking of it; the same ranking cut into its pairs
# (InstructGPT's loss); and every pair judged on its own. **The cost is what is read:**
# as many replies in the first three, three times as many in the last (for groups of
# four). All take equally many replies into a batch and see each label once.
#
# **Predict first:** a ranking of four puts six pairs in order, two pairs put two. Will
# it teach three times as much?
#
# <details><summary>Open when you have an answer</summary>
#
# The six are not independent: they are made of four noisy impressions, as the two pairs
# are. And rewards are pulled up and down by the same replies either way. So the gain can
# be much smaller than the count of comparisons suggests. Judging all six on their own,
# with six fresh impressions, tells whether *any* further label helps: if it does not,
# this design says nothing about rankings.
# </details>

# %%
often = settings.ranking_draws
ranked = judged(
    arms.ranking_sweep(
        chains,
        draws={
            "rankings": often,
            "pairs": often,
            "all pairs": 1,
            "one by one": settings.one_by_one_draws,
        },
        n=settings.n_groups,
        group=settings.group,
        **jobs,
        **common,
    )
)


def of_kind(kind, draws):
    """(seeds, subjects): the mean over the first draws of each seed."""
    return table([r for r in ranked if r["kind"] == kind and r["draw"] < draws])


gain = keep(
    "ranking_minus_pairs_accuracy", of_kind("rankings", often) - of_kind("pairs", often)
)
fewer = min(often, settings.one_by_one_draws)
helps = keep(
    "one_by_one_minus_pairs_accuracy",
    of_kind("one by one", fewer) - of_kind("pairs", fewer),
)
shown_kinds = {}
for kind in ("pairs", "rankings", "all pairs", "one by one"):
    accuracies = of_kind(kind, often)
    rate(f"{kind.replace(' ', '_')}_accuracy", accuracies)
    row = next(r for r in ranked if r["kind"] == kind)
    label = f"{kind}\n{row['read']:,} read\n{row['comparisons']:,} ordered"
    shown_kinds[label] = accuracies.mean(1)
runs.save_figure(
    figures.kinds(
        shown_kinds,
        reading(
            gain,
            "Rankings teach more than pairs of the same replies",
            "Rankings teach less than pairs of the same replies",
            "Rankings and pairs of the same replies: no clear difference",
        ),
    ),
    "rankings",
    "Gold-order accuracy after labelling the same replies in four ways, with how many "
    "were read and how many pairs the labels put in order.",
)

# %%
powers = [
    variance.chance_to_see(0.01, spread, len(run.seeds), often)
    for spread in (0.017, 0.009)
    if len(run.seeds) > 1
]
runs.say(
    "For the same reading, rankings minus pairs: {ranking_minus_pairs_accuracy:+.3f}"
    "{small}. Every pair judged on its own minus pairs, at three times the reading: "
    "{one_by_one_minus_pairs_accuracy:+.3f}; {control}. The ranking cut into its pairs "
    "reaches {all_pairs_accuracy:.3f}, the ranking itself {rankings_accuracy:.3f}. "
    "{power}",
    small=", less than the hundredth that was fixed as worth the name"
    if max(abs(gain.low), abs(gain.high)) < 0.01
    else "",
    control=reading(
        helps,
        "so more labels of the same replies do help, and the design can see it",
        "**more labels made it worse, so this design says nothing of rankings**",
        "too noisy here to tell whether more labels of the same replies help at all",
    ),
    power=f"Beforehand, from the spread of former runs (0.009 to 0.017 for one draw), "
    f"{len(run.seeds)} seeds of {often} draws see a gain of 0.02 as more than 0.01 "
    f"with a chance of {powers[0]:.0%} to {powers[1]:.0%}."
    if powers
    else "One seed cannot tell.",
)

# %% [markdown]
# ## 6 · An annotator who likes length
#
# Now annotators add $\lambda$ to the worth of a reply for every word it has. Can one
# tell, from their labels, by how much? Where gold is known (a small set that experts
# judged, in practice), regress the labels on both differences: the likelihood of
# $P = \sigma(a\,\Delta\text{gold} + b\,\Delta\text{words})$ is largest at
# $\hat\lambda = \hat b / \hat a$. It is the very model that the annotators follow, so
# the estimate is consistent and its 95% interval holds $\lambda$ 19 times in 20.

# %%
biased = dict(bias=arms.LENGTH_BIAS, **common)
audited = [
    arms.length_pairs("biased", None, **biased, **link)[: settings.n_audit]
    for link in chains
]
recovered = [analysis.length_coefficient(pairs) for pairs in audited]
holds = [found.low <= arms.LENGTH_BIAS <= found.high for found in recovered]
runs.record("length_coefficient", *recovered[0], unit="gold per word")
runs.record("length_coefficient_injected", arms.LENGTH_BIAS, unit="gold per word")
runs.say(
    "Injected: {length_coefficient_injected.value:.3f} gold per word. Recovered from "
    "{n:,} labels: {length_coefficient:.3f}; the interval holds it with {held} of "
    "{of} seeds.",
    n=min(map(len, audited)),
    held=sum(holds),
    of=len(holds),
)

# %% [markdown]
# How much of it does a reward model take over? A reward is in log-odds, so all of it
# would be $\lambda / T$ a word. We learn from the same pairs with and without the bias,
# and try two remedies. *Equal lengths:* keep only pairs whose replies differ by one
# word at most; there a taste for length has nothing to say. *Length removed:* subtract
# from the biased model's rewards whatever the number of words explains. It needs no
# gold, but it cannot tell a taste for length from what longer replies deserve.

# %%
lengths = judged(arms.length_sweep(few, n=settings.n_length, **jobs, **biased))
by_kind = {
    kind.replace(" ", "\n"): [r for r in lengths if r["kind"] == kind]
    for kind in arms.LENGTH_KINDS
}
by_kind["biased,\nlength removed"] = judged(
    [
        {
            "seed": row["seed"],
            "rewards": analysis.without_length(row["rewards"], tested[row["seed"]]),
        }
        for row in by_kind["biased"]
    ]
)
per_word = {
    kind: [analysis.length_weight(usual[r["seed"]], r["difference"]) for r in rows]
    for kind, rows in by_kind.items()
}
injected = arms.LENGTH_BIAS / arms.TEMPERATURE
log_odds = type(recovered[0])(*(limit / arms.TEMPERATURE for limit in recovered[0]))
runs.save_figure(
    figures.length(per_word, injected, log_odds),
    "length",
    "What a word is worth to the annotators (injected, recovered) and to reward models "
    "from unbiased and biased labels and under two remedies.",
)
in_short = {}
for kind, rows in by_kind.items():
    name = kind.replace(",\n", "_").replace("\n", "_").replace(" ", "_")
    values, right = per_word[kind], [row["gold"] for row in rows]
    runs.record(
        f"length_weight_{name}", np.mean(values), seeds=values, unit="log-odds per word"
    )
    rate(f"length_accuracy_{name}", right)
    in_short[kind.replace("\n", " ")] = [np.mean(values), np.mean(right)]
taken = np.subtract(per_word["biased"], per_word["unbiased"])
absorbed = runs.record(
    "length_absorbed", taken.mean(), seeds=taken, unit="log-odds per word"
)
pd.DataFrame(in_short, index=["log-odds per word", "share in gold order"]).T.round(3)

# %%
nearest = min(in_short, key=lambda kind: abs(in_short[kind][0]))
runs.say(
    "From biased labels a word is worth {length_weight_biased:+.3f} of log-odds to the "
    "reward model, from unbiased ones {length_weight_unbiased:+.3f}: it took over "
    "{length_absorbed:+.3f} of the {all_of_it:.3f}{how_sure}. On pairs of equal length "
    "it comes to {length_weight_equal_lengths.value:+.3f}, with length removed to "
    "{length_weight_biased_length_removed.value:+.3f}. Nearest to no taste for length: "
    "*{nearest}*.{unbiased}",
    all_of_it=injected,
    how_sure=reading(
        absorbed,
        "",
        ", **the wrong way round**",
        ", which these seeds do not tell from 0",
    ),
    nearest=nearest,
    unbiased=" (That unbiased labels already favour long replies is no bias of "
    "annotators: the model cannot see all of what is better in them, and their length "
    "is a sign of it.)"
    if in_short["unbiased"][0] > 0.25 * injected
    else "",
)

# %% [markdown]
# ## 7 · Real people
#
# So far annotators were simulated. Here are people: each of thousands of short texts was
# rated by 15 of them or more for how positive it is. One rater for each of two texts
# makes a label. Half of the raters are held out and say what there was to learn. So
# there are two marks: how often *one person* has the order of the held-out mean, and how
# often the *ten others together* have it.

# %%
examples = raters.rated_test_pairs("movies", 40)[:3]
pd.DataFrame(examples)[["chosen", "rejected", "probability"]].style.format(
    precision=2
).set_properties(**{"white-space": "normal", "max-width": "26em"})

# %%
rated = raters.sweep(
    few, n=settings.n_rated, n_test=settings.n_rated_test, **jobs, **policy_of
)
domains = list(rated[0]["accuracy"])
people = {}
for domain in domains:
    values, counting = (
        [row["accuracy"][domain][kind] for row in rated]
        for kind in ("reward_model", "bag_of_words")
    )
    more = np.subtract(values, counting)
    rate(f"raters_{domain}_accuracy", values)
    people[domain] = runs.record(
        f"raters_{domain}_minus_bag_of_words", more.mean(), seeds=more
    )
runs.save_figure(
    figures.raters(
        rated, "Trained on people's judgement of movies, tested on all four"
    ),
    "raters",
    "A reward model and a bag of words learnt from comparisons of movie snippets, on "
    "unseen texts of four domains; lines: one person, ten people, chance.",
)

# %%
marks = rated[0]["accuracy"]["movies"]
at_home = run.metrics["raters_movies_accuracy"]["value"]
runs.say(
    "The third column is the share of the held-out raters who would choose so "
    "too. From {kept:,} comparisons of movie snippets the reward model has the "
    "held-out order in {raters_movies_accuracy:.3f} of unseen pairs; one person has it "
    "in {one:.3f}, ten in {ten:.3f}. Against the bag of words that is "
    "{raters_movies_minus_bag_of_words:+.3f}: {verdict}. On the other domains, of "
    "which it saw no label: tweets {raters_tweets_accuracy:.3f}, products "
    "{raters_products_accuracy:.3f}, editorials {raters_editorials_accuracy:.3f}. "
    "{person}",
    kept=round(np.mean([row["kept"] for row in rated])),
    one=marks["one_rater"],
    ten=marks["panel"],
    verdict=reading(
        people["movies"],
        "better than counting words",
        "**worse than counting words**",
        "**not shown to be better than counting words**",
    ),
    person="A million parameters that have read little are no match for one person."
    if at_home < marks["one_rater"]
    else "That is as good as one person.",
)

# %% [markdown]
# ## 8 · Does it know when it is guessing?
#
# A pair always lists the chosen reply first, so ask about the model's own answer: how
# sure is it, $\sigma(|r_1 - r_2|)$, and is the label what it said? A temperature for the
# rewards, fitted on the pairs of every other subject, is judged on the rest. It is a
# repair only if it lowers the error *there*.

# %%
calibrated = [analysis.calibrate(usual[r["seed"]], r["difference"]) for r in main]
runs.save_figure(
    figures.calibration(calibrated[0]),
    "calibration",
    "How sure the reward model is against how often the label agrees, before and after "
    "a temperature that was fitted on other subjects (first seed).",
)

# %%
for name in ("before", "after"):
    values = [fit[name] for fit in calibrated]
    runs.record(
        f"reward_squared_calibration_error_{name}", np.mean(values), seeds=values
    )
log_temperature = t_interval(np.log([fit["temperature"] for fit in calibrated]))
known = log_temperature if len(calibrated) > 1 else log_temperature[:1]
fitted = runs.record("reward_temperature", *np.exp(known))
change = np.subtract(*([c[name] for c in calibrated] for name in ("after", "before")))
repair = runs.record("reward_calibration_change", change.mean(), seeds=change)
runs.say(
    "Fitted temperature: {reward_temperature:.2f} ({sure}). The mean squared "
    "calibration error goes from {reward_squared_calibration_error_before:.4f} to "
    "{reward_squared_calibration_error_after:.4f}, a change of "
    "{reward_calibration_change:+.4f}: {verdict}. (The estimate is unbiased, so it can "
    "fall below 0 where there is hardly any error.) The order of replies, and so "
    "accuracy, stays either way.",
    sure=reading(
        fitted,
        "above 1: it was too sure",
        "below 1: it was not sure enough",
        "not clearly on either side of 1, where it would be as sure as it should be",
        1.0,
    ),
    verdict=reading(
        repair,
        "**the temperature makes it worse on subjects that it was not fitted on**",
        "the temperature repairs some of it",
        "no repair that these seeds can show; there was little to repair, or one "
        "number does not do it",
    ),
)

# %% [markdown]
# ## 9 · Is judging easier than writing?
#
# The *generation–validation gap*: one policy, the same questions (about subjects that
# tuning never asked about), twice. As *author* it answers. As *judge* it is given the
# right answer and a wrong one *of its own*, sampled, and takes the one it finds
# likelier. (Against a random wrong answer a judge would win by knowing hardly
# anything.) Both are corrected for what guessing gives. On facts that pretraining never
# showed nobody can judge, so a judge who did well there must have got the answers in
# some other way.
#
# Then whole replies against demonstrations by writers of several qualities: one of the
# policy's own replies; the likeliest of four; the best of four in the eyes of the reward
# model; and in the eyes of its twin from reversed labels.
#
# **Predict first:** is the policy a better judge of its own mistakes than it is an
# author? And which writers can it beat by picking?
#
# <details><summary>Open when you have answers</summary>
#
# Its own mistakes are those that it found likely, so likelihood is a judge with an
# interest in the matter: where it wrote something wrong, it often believes it. Picking
# chooses among what was written: it beats writers who are about as good as the better
# ones of four replies, and cannot beat those who make no mistakes.
# </details>

# %%
asked, likelihood = judging.sweep(
    chains,
    n=settings.n_questions,
    samples=settings.samples,
    **jobs,
    **policy_of,
)
author = [analysis.corrected(row["author"], row["chance"]) for row in asked]
judge = [analysis.corrected(row["judge"], 0.5) for row in asked]
blind = [analysis.corrected(row["unknowable"], 0.5) for row in asked]
golds = {s: artifacts.golds_of(replies) for s, replies in tested.items()}
even = np.full(golds[first].shape, 1 / arms.TEST_REPLIES)
picks = {
    "own reply": [(row["seed"], even) for row in main],
    "likeliest of 4": [
        (r["seed"], best_of_n_probabilities(r["rewards"], 4)) for r in likelihood
    ],
    "picked of 4": [
        (r["seed"], best_of_n_probabilities(r["rewards"], 4)) for r in main
    ],
    "picked by the twin": [
        (r["seed"], best_of_n_probabilities(r["rewards"], 4)) for r in twins
    ],
}
qualities = (0.0, 0.25, 0.5, 0.75, 1.0)
to_beat = [analysis.demonstration_golds(tested[first], q) for q in qualities]
fared = {  # by how a reply was picked: for each seed and quality, by subject
    how: [
        [analysis.against(golds[s], d, share, arms.TEMPERATURE) for d in to_beat]
        for s, share in chosen
    ]
    for how, chosen in picks.items()
}
wins = {
    how: np.array([[found["wins"] for found in row] for row in of_seeds])
    for how, of_seeds in fared.items()
}

# %%
gap = np.subtract(judge, author)
ahead = runs.record("judge_minus_author_accuracy", gap.mean(), seeds=gap)
runs.record("author_accuracy", np.mean(author), seeds=author)
runs.record("judge_accuracy", np.mean(judge), seeds=judge)
no_knowledge = runs.record("unknowable_judge_accuracy", np.mean(blind), seeds=blind)
picked_gold = {
    how: np.array([(share * golds[s]).sum(1) for s, share in chosen])
    for how, chosen in picks.items()
}
plain_gold = picked_gold["own reply"]
better = keep("picked_minus_unpicked_gold", picked_gold["picked of 4"] - plain_gold)
keep(
    "reversed_pick_minus_unpicked_gold",
    picked_gold["picked by the twin"] - plain_gold[: len(twins)],
)
runs.save_figure(
    figures.judging(
        {"author": author, "judge": judge, "judge of what\nnobody can know": blind},
        qualities,
        {how: rates.mean(2) for how, rates in wins.items()},
        reading(
            ahead,
            "The policy judges answers more surely than it writes them",
            "The policy is a worse judge of its own mistakes than it is an author",
            "Author and judge: no clear difference",
        ),
    ),
    "judging",
    "Left: right answers beyond guessing, as author and as judge. Right: how often a "
    "reply has more gold than a demonstration for the same request, by the quality of "
    "the demonstration's writer.",
)

# %%
own_share = np.mean([row["own"] for row in asked])
preferred = {
    how: np.array([row[-1]["preferred"] for row in fared[how]])
    for how in ("own reply", "picked of 4")
}
preference = rate("preference_over_demonstration", preferred["picked of 4"])
rate("unpicked_preference_over_demonstration", preferred["own reply"])
beaten = [
    q for q, rate in zip(qualities, wins["picked of 4"].mean((0, 2))) if rate > 0.5
]
runs.say(
    "To {own_share:.0%} of the questions the policy gave a wrong answer of its own. "
    "Judge minus author, beyond guessing: {judge_minus_author_accuracy:+.3f}; "
    "{verdict}. On what nobody can know the judge scores "
    "{unknowable_judge_accuracy:+.3f}: {control}.",
    own_share=own_share,
    verdict=reading(
        ahead,
        "it judges more surely than it writes",
        "**it is a worse judge than author**: its own mistakes are those it found "
        "likely",
        "these seeds do not tell which is better",
    ),
    control=reading(
        no_knowledge,
        "**right answers give themselves away**",
        "below guessing, as what it made up itself is what it finds likely",
        "these seeds do not tell it from guessing",
    ),
)
runs.say(
    "A reply picked by the reward model has {picked_minus_unpicked_gold:+.2f} more "
    "gold than one that nobody picked, {judgement}; one picked by the twin "
    "{reversed_pick_minus_unpicked_gold:+.2f}. {preference_over_demonstration:.2f} of "
    "annotators prefer the picked one to the best demonstration (unpicked: "
    "{unpicked_preference_over_demonstration.value:.2f}): {written}. {quality}",
    judgement=reading(
        better,
        "so its judgement is worth something",
        "**so its judgement does harm**",
        "which these seeds do not tell from nothing",
    ),
    written=reading(
        preference,
        "what was picked is preferred to what people write at their best",
        "what people write at their best is what they prefer",
        "these seeds do not tell whether that is more than half",
        0.5,
    ),
    quality=f"Picking beats writers up to a quality of {max(beaten)}."
    if beaten
    else "Picking beats no writer, not even those of quality 0.",
)

# %% [markdown]
# So "what people write is not what they prefer" depends on how well they write. Labellers
# who are short of time make mistakes that they would see in somebody else's text; against
# those, picking wins.
#
# ## 10 · Rating is cheaper than writing
#
# What does a comparison cost a person, and what a demonstration? We count the words and
# tokens of ours. Seconds need assumptions: adults read 238 words a minute (Brysbaert,
# 2019) and compose 19 on a keyboard (Karat et al., 1999), and we grant 5 seconds to make
# up one's mind. Set your own: `costs.Pace(reading=..., composing=..., choosing=...)`.
#
# What do they say? A label that is wrong at a known rate says $1 - H(\text{rate})$ bits
# about which of two replies is better. A demonstration says as many bits as it surprises
# the policy by; most of them are about wording, so this overstates it.

# %%
pace = costs.Pace()
policy, tokenizer = artifacts.reference_policy(
    **policy_of, seed=start["reference_seed"]
)
compared_pairs = artifacts.comparisons(to_learn_from, seed=first)[:500]
written = costs.good_demonstrations(200, first)
one = costs.comparison_cost(compared_pairs, tokenizer, pace)
other = costs.demonstration_cost(written, tokenizer, pace)
one["bits"] = costs.label_bits(settings.flips)
other["bits"] = costs.surprise_bits(policy, tokenizer, written)
for row in (one, other):
    row["bits per minute"] = 60 * row["bits"] / row["seconds"]
for name in ("tokens", "seconds", "bits"):
    runs.record(f"{name}_of_a_comparison", one[name], unit=name)
    runs.record(f"{name}_of_a_demonstration", other[name], unit=name)
pd.DataFrame({"a comparison": one, "a demonstration": other}).T.style.format(
    precision=2
)

# %%
n_written = max(1, round(settings.n_reward * one["seconds"] / other["seconds"]))
runs.say(
    "A comparison takes {a:.0f} seconds and a demonstration {b:.0f}: {times:.1f} "
    "comparisons for one demonstration. {ta:.0f} tokens are read for a comparison, and "
    "{tb:.0f} read or written for a demonstration: reading is not what costs. "
    "{bits}. {n:,} comparisons are {hours:.1f} hours, or {m:,} demonstrations.",
    a=one["seconds"],
    b=other["seconds"],
    times=other["seconds"] / one["seconds"],
    ta=one["tokens"],
    tb=other["tokens"],
    bits="Minute for minute a demonstration says more bits"
    if other["bits per minute"] > one["bits per minute"]
    else "Minute for minute a comparison says more bits",
    n=settings.n_reward,
    hours=settings.n_reward * one["seconds"] / 3600,
    m=n_written,
)

# %% [markdown]
# What do the same hours buy? *Rating:* the reward model, used to pick the best of four
# replies of the reference. *Writing:* SFT of the reference on as many of the best
# demonstrations as could be written meanwhile, and one reply of what comes out. Neither
# recipe was tuned for this.

# %%
after_writing = costs.writing_sweep(
    few, n=n_written, epochs=settings.written_epochs, **jobs, **policy_of
)
rated_gold = [
    best_of_n_values(np.array(r["rewards"]), golds[r["seed"]], 4).mean()
    for r in main[: len(few)]
]
written_gold = [np.mean(row["golds"]) for row in after_writing]
plain = [golds[link["seed"]].mean() for link in few]
bought = {
    "reference": plain,
    f"rated: {settings.n_reward:,}\n(best of 4)": rated_gold,
    f"written: {n_written:,}\n(SFT)": written_gold,
}
advantage = np.subtract(rated_gold, written_gold)
for name, values in (
    ("reference", plain),
    ("rated", rated_gold),
    ("written", written_gold),
):
    runs.record(f"{name}_gold", np.mean(values), seeds=values, unit="gold")
cheaper = runs.record(
    "rated_minus_written_gold", advantage.mean(), seeds=advantage, unit="gold"
)
runs.save_figure(
    figures.hours(
        bought,
        reading(
            cheaper,
            "The same hours buy more when people rate",
            "The same hours buy more when people write",
            "The same hours, spent on rating or on writing",
        ),
    ),
    "hours",
    "Mean gold of replies about unseen subjects: of the reference, picked by a reward "
    "model, and after SFT on demonstrations that cost as many hours.",
)

# %%
runs.say(
    "Gold of a reply: reference {reference_gold:.2f}, after rating {rated_gold:.2f}, "
    "after writing {written_gold:.2f}; rating minus writing "
    "{rated_minus_written_gold:+.2f}. {verdict}",
    verdict=reading(
        cheaper,
        "Hour for hour, rating bought more. (It also samples four replies for each "
        "that it gives; and these writers were perfect.)",
        "**Hour for hour, writing bought more**, with writers who make no mistakes; "
        "section 9 says how much hangs on that.",
        "These seeds do not tell which bought more.",
    ),
)

# %% [markdown]
# ## 11 · Where does the spread come from?
#
# Seeds differ in everything: reference policy, its replies, the comparisons, their
# labels, the head. Which link makes the results differ? Several reward models on each
# reference tell: with $\sigma_b^2$ the variance between references (policy and replies)
# and $\sigma_w^2$ that within one (comparisons, labels, head), the share of the first
# is $\sigma_b^2 / (\sigma_b^2 + \sigma_w^2)$. Whoever repeats only the last links sees
# only $\sigma_w$.

# %%
on_reference = {
    link["reference_seed"]: [
        row for row in draws if row["reference_seed"] == link["reference_seed"]
    ]
    for link in chains
}
measured = {
    "gold order": {
        r: [row["gold"] for row in rows] for r, rows in on_reference.items()
    },
    "gold of best of 4": {
        r: [
            best_of_n_values(np.array(row["rewards"]), golds[row["seed"]], 4).mean()
            for row in rows
        ]
        for r, rows in on_reference.items()
    },
}
nested = settings.nested and settings.draws > 1 and len(run.seeds) > 1
of_links = {
    what: variance.components(list(values.values()))
    for what, values in measured.items()
    if nested
}
runs.save_figure(
    figures.chains(
        measured["gold order"],
        "Reward models on their references"
        if nested
        else "Reward models on one reference: needs profile full",
    ),
    "chains",
    "Gold-order accuracy of the reward models on each reference policy (dots), and the "
    "mean of each (bars).",
)

# %%
if nested:
    for what, found in of_links.items():
        runs.record(f"share_between_references_{what.replace(' ', '_')}", *found.share)
        known = (1 - found.share.value) ** 0.5
        runs.say(
            "**{what}**: standard deviation {b:.3f} between references and {w:.3f} "
            "within one; references and replies carry {share:.0%} of the variance. "
            "With so few references it lies between {low:.0%} and {high:.0%}{wide}. "
            "Intervals of runs on a single reference would be {known:.0%} as wide as "
            "they should be.",
            what=what.capitalize(),
            b=found.between,
            w=found.within,
            share=found.share.value,
            low=found.share.low,
            high=found.share.high,
            wide=", which is to say hardly at all"
            if found.share.high - found.share.low > 0.5
            else "",
            known=known,
        )
else:
    runs.say(
        "Needs profile full: all seeds of this run stand on one reference, so that "
        "what differs here is comparisons, labels and head alone. Every interval above "
        "holds *given this reference*."
    )

# %% [markdown]
# ## 12 · Be the rater yourself
#
# Twenty pairs of replies to the same requests: one that the policy gave, and the best of
# eight in the eyes of the reward model (where that is the same reply, the request is left
# out). Which is which is hidden until you have rated them all. Use the mouse, or the
# keys; your ratings stay in a file beside the run and the panel goes on from there. Read
# for what is *true* and see how long it takes: that is why section 10 is about cost. At
# the end, the panel sets what an annotator of section 1, who knows gold, and the reward
# model prefer beside what you did.

# %%
test_rewards = np.array(main[0]["rewards"])
texts = [[reply.text for reply in c.replies] for c in tested[first]]
to_rate = rating.pairs_to_rate(
    [c.prompt for c in tested[first]],
    [own[0] for own in texts],
    [own[best] for own, best in zip(texts, test_rewards.argmax(1))],
    names=("SFT", "best of 8"),
    seed=first,
    n=20,
)
kept_in = run.out_dir / f"ratings_{profile}_{first}.json"
session = rating.RatingSession(to_rate, path=kept_in)
subject_of = {c.prompt: c.subject for c in tested[first]}
reward_of = {
    (c.prompt, text): reward
    for c, own, rewards in zip(tested[first], texts, test_rewards, strict=True)
    for text, reward in zip(own, rewards, strict=True)
}


def prefer(prompt, one, other):
    """Probability that the annotator takes the first of two replies."""
    worth_of = [
        gold.gold_reward(world, subject_of[prompt], text).total for text in (one, other)
    ]
    return float(expit((worth_of[0] - worth_of[1]) / arms.TEMPERATURE))


def reward_model_prefers(prompt, one, other):
    """The same for the reward model."""
    return float(expit(reward_of[prompt, one] - reward_of[prompt, other]))


RatingPanel(
    session, {"the annotator": prefer, "the reward model": reward_model_prefers}
)

# %%
runs.say("**You:** {summary}", summary=session.summary())

# %% [markdown]
# The annotator rates the same twenty pairs:

# %%
simulated = rating.simulate(rating.RatingSession(to_rate), prefer, seed=first)
simulated.reveal()
runs.say("**A simulated rater:** {summary}", summary=simulated.summary())

# %% [markdown]
# ## 13 · The same batch through TRL
#
# For models of a billion parameters one would use TRL's `RewardTrainer`. It is the same
# mathematics: one batch, both losses.

# %%
if trl_parity.has_trl():
    ours, theirs = trl_parity.compare_reward_losses(model, tokenizer, shown[:16])
    runs.record("trl_loss_difference", abs(ours - theirs), unit="nats per pair")
    runs.say(
        "Ours: {ours:.6f} nats per pair; TRL's: {theirs:.6f}; they {agree}.",
        ours=ours,
        theirs=theirs,
        agree="agree" if abs(ours - theirs) < 1e-4 else "**do not agree**",
    )

# %% [markdown]
# ## 14 · Verdicts
#
# Thresholds were fixed before measuring. Where this profile has too few seeds for a
# verdict, it says so; `alignlab run 03 --profile full` has enough.

# %%
runs.show_verdicts()

# %% [markdown]
# ## What the big labs do that we left out
#
# * **Guidelines, training and auditing of labellers**, several labels a pair, and rating
#   scales that say by *how much* a reply is better (`margin`, soft labels: the library
#   has them, this notebook does not use them).
# * **New comparisons as the policy changes**: a reward model is right about replies like
#   those it was trained on. Notebooks 04 and 06 show what happens elsewhere.
# * **Several reward models**, one for helpfulness and one for safety, or an ensemble;
#   rewards for single steps of a solution; programs that verify; rubrics, and language
#   models as judges (RLAIF).
# * **Large reward models**: here 1 million parameters, there as large as the policy.
#
# *Try:* lower `n_reward` to 1,000 and look at section 4. We would expect completeness to
# suffer before form does; the other way round would surprise us.
