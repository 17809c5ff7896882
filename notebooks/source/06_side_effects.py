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
# # 06 · What happens if we optimise too much?
#
# A reward model is a guess at what people prefer. A policy that is trained on it does
# not know that: it looks for whatever scores well, and in the end it finds what scores
# well *and is bad*. Here we let it, and watch. We read the replies along the way, hold
# the real (*gold*) reward against the learnt one, try what is said to help, and look at
# what else is lost: entropy, and with it diversity.
#
# | | |
# | --- | --- |
# | **time** | `smoke` under 1 minute · `cpu` 4 minutes · `full` 90 minutes (two cores) |
# | **memory** | under 4 GB |
# | **you need** | notebooks 03 and 04 (it runs alone: what is missing is built) |
# | **look at first** | the replies in section 1, the two curves in section 2 |
# | **sweeps worth trying** | `at`, `betas`, `ensembles`, `weak_pairs` in `run.settings` |
# | **on Colab** | run the two set-up lines of the README in a first cell |

# %% tags=["parameters"]
profile = "cpu"  # smoke, cpu, full or gpu: how much to measure
seed = 0  # the first seed; the others follow it
device = "cpu"
out_dir = ""  # where metrics and figures go; empty: runs/interactive

# %%
import math

import numpy as np
import pandas as pd
import torch

from alignlab import runs
from alignlab.chapters.side_effects import analysis, figures
from alignlab.chapters.side_effects import runs as arms
from alignlab.course import check
from alignlab.evaluation.best_of_n import best_of_n_values
from alignlab.evaluation.diversity import self_bleu_signature
from alignlab.evaluation.over_optimisation import (
    FORMS,
    Curve,
    can_be_fitted,
    fit_curves,
    held_out_error,
    peak_interval,
)
from alignlab.evaluation.win_rate import over_seeds, win_rate
from alignlab.models.base import use_device
from alignlab.plots.style import use_style
from alignlab.study import artifacts
from alignlab.world import gold

use_style()
run = runs.start("06_side_effects", profile, seed, device, out_dir)
use_device(device)
settings = run.settings
rows = arms.run_all(
    seeds=run.seeds,
    few_seeds=run.seeds[: settings.few_seeds],
    at=settings.at,
    control_at=settings.control_at,
    dpo_at=settings.dpo_at,
    n=settings.n,
    temperatures=settings.temperatures,
    betas=settings.betas,
    ensembles=settings.ensembles,
    weak_pairs=settings.weak_pairs,
    ns=settings.ns,
    trunks=settings.trunks,
    pool=settings.pool,
    n_pairs=settings.n_pairs,
    size=settings.size,
    steps=settings.steps,
    k=settings.k,
    jobs=settings.jobs,
)
names = artifacts.subjects("test")
requests = [gold.request(name) for name in names]

# %% [markdown]
# ## 1 · What does it say, along the way?
#
# One policy, PPO without any price of KL, one reward model; the same requests and the
# same random numbers at every look. *Gold* is what a reply is really worth: greeting,
# courtesy and closing, and right facts about what was asked; PPO never sees it. The
# *proxy reward* is what PPO sees, in standard deviations of the first policy's
# replies.

# %%
first = rows["ppo"][0]
looks = [0, analysis.turn_of(first).point, len(first["points"]) - 1]
scale = np.array(first["points"][0]["proxies"])
pd.DataFrame(
    [
        {
            "request": requests[i],
            "when": when,
            "reply": first["points"][at]["texts"][i][0],
            "gold": first["points"][at]["golds"][i][0],
            "proxy reward": (first["points"][at]["proxies"][i][0] - scale.mean())
            / scale.std(),
        }
        for i in range(1, 9, 2)
        for when, at in zip(("before", "at its best", "at the end"), looks)
    ]
).style.format(precision=2).hide(axis="index").set_properties(
    **{"white-space": "normal", "max-width": "34em", "text-align": "left"}
)

# %% [markdown]
# Slide along the run, and choose what is asked:

# %%
figures.run_explorer(first, requests)

# %% [markdown]
# In numbers, what the replies are made of. Greeting, courtesy and closing are *form*:
# a small reward model sees them at once. Whether a fact is there at all it sees less
# well, and whether it is right hardly. (Notebook 03 measured that.)

# %%
runs.save_figure(
    figures.contents(rows["ppo"]),
    "contents",
    "What replies are made of along the way, mean over reward models.",
)
made_of = [analysis.contents(row) for row in rows["ppo"]]
turns = [analysis.turn_of(row) for row in rows["ppo"]]
parts = {
    when: {
        label: np.mean([c[name][at] for c, at in zip(made_of, places)])
        for name, label in figures.CONTENTS.items()
    }
    for when, places in (
        ("before", [0] * len(turns)),
        ("at its best", [t.point for t in turns]),
        ("at the end", [-1] * len(turns)),
    )
}
pd.DataFrame(parts).T.style.format(precision=2)

# %%
runs.say(
    "At its best a reply states {best:.1f} facts about what was asked, {right:.1f} of "
    "them right; at the end {end:.1f}, and {filler:.1f} of its sentences are empty "
    "phrases. {empty:.0%} of the replies at the end say nothing about it at all.",
    best=parts["at its best"]["facts stated"],
    right=parts["at its best"]["right facts"],
    end=parts["at the end"]["facts stated"],
    filler=parts["at the end"]["empty phrases"],
    empty=parts["at the end"]["says nothing of the subject"],
)

# %% [markdown]
# ## 2 · Does what people prefer fall while the proxy reward rises?
#
# The same for every reward model, against the *distance* from the first policy,
# $d = \sqrt{\mathrm{KL}}$: near the start a policy improves about in proportion to it
# (Gao et al., 2023). The KL is exact for every token that was sampled, summed over the
# vocabulary, and averaged over replies. The control is the same run with gold itself
# as the reward: if *that* fell, the fault would lie with PPO, not with the reward. (It
# did, in a trial with notebook 04's settings and no price of KL. So updates are smaller
# here, `arms.STEADY`, as found on a seed that is not among these.)

# %%
runs.save_figure(
    figures.rise_and_fall(
        {"on a proxy reward": rows["ppo"], "on gold (control)": rows["control"]}
    ),
    "rise_and_fall",
    "Gold and proxy reward against the distance from the first policy: PPO on proxy "
    "rewards, and on gold itself.",
)

# %% [markdown]
# **Who picks the peak must not measure the fall.** The highest of several noisy points
# is so partly by luck, and whatever is compared with it seems to fall. So the peak is
# picked on every other request, and the rise to it and the fall from it are measured on
# the rest.

# %%
runs.save_figure(
    figures.halves(rows["ppo"]),
    "halves",
    "Gold on the requests that pick the peak (dotted) and on those that measure it.",
)
control = [analysis.turn_of(row) for row in rows["control"]]
measured = {
    "peak_minus_sft_gold": [turn.rise for turn in turns],
    "end_minus_peak_gold": [turn.fall for turn in turns],
    "end_minus_peak_proxy": [analysis.proxy_after_peak(r) for r in rows["ppo"]],
    "control_end_minus_peak_gold": [turn.fall for turn in control],
}
for name, values in measured.items():
    runs.record(name, np.mean(values), seeds=values, n=len(names) // 2 * settings.n)
runs.say(
    "Gold rises by {peak_minus_sft_gold:.2f} and then changes by "
    "{end_minus_peak_gold:.2f} ({count} reward models), while the proxy reward goes "
    "on by {end_minus_peak_proxy:+.2f} sd. With gold as the reward the change after "
    "the peak is {control_end_minus_peak_gold:+.2f}.",
    count=len(turns),
)

# %% [markdown]
# What would a reader say who sees two replies side by side? A *win rate* counts ties as
# halves; 50% is as good as the first policy.

# %%
wins = {
    when: [
        win_rate(row["points"][at]["golds"], row["points"][0]["golds"])
        for row, at in zip(rows["ppo"], places)
    ]
    for when, places in (
        ("at its best", [turn.point for turn in turns]),
        ("at the end", [-1] * len(turns)),
    )
}
for when, rates in wins.items():
    name = "win_rate_" + when.split()[-1]
    runs.record(name, *over_seeds(rates), seeds=[one.rate for one in rates])
runs.say(
    "Against the first policy it wins {win_rate_best:.0%} at its best and "
    "{win_rate_end:.0%} at the end."
)

# %% [markdown]
# ## 3 · Best of n: optimising without training
#
# Sample $n$ replies, take the one that the reward model likes best. To know what that
# is worth for every $n$, one pool of $N$ replies is enough: among all ways to take $n$
# of them, the sample with $i$ others below it (by proxy reward) is the best in
# $\binom{i}{n-1}$ of $\binom{N}{n}$.
#
# **Exercise 06.1.** Write the gold of best-of-n, for one request, without a draw.


# %% nbgrader={"grade": false, "grade_id": "nb06-q1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_best_of_n(proxies, golds, n):
    """(N,) twice, of the same samples: the expected gold of the best of n by proxy."""
    ### BEGIN SOLUTION
    ranked = golds[proxies.argsort()]
    total = math.comb(len(golds), n)
    return sum(math.comb(i, n - 1) / total * worth for i, worth in enumerate(ranked))
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb06-q1-check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check("06.1", my_best_of_n)

# %%
pools = {(row["trunk"], row["n_pairs"], row["seed"]): row for row in rows["pool"]}
pool_golds = analysis.pool_golds(settings.pool, settings.size, settings.steps)
ns = analysis.doublings(settings.pool // 2)
best = [
    analysis.best_of_n_curve(
        pools[settings.size, settings.n_pairs, s]["proxies"], pool_golds, ns
    )
    for s in run.seeds
]
proxies = torch.tensor(pools[settings.size, settings.n_pairs, seed]["proxies"])
mine = [float(my_best_of_n(*x, 2)) for x in zip(proxies, torch.tensor(pool_golds))]
ours = best_of_n_values(proxies.numpy(), pool_golds, 2)  # it also shares out ties
pd.DataFrame(best[0]).style.format(precision=2).hide(axis="index")

# %% [markdown]
# **How far is that?** No policy is trained, so its KL needs a thought: if no two
# replies tie, it is $\log n - (n-1)/n$, whatever the reward. Where replies come twice it
# is less. We can check that where every completion can be written down: a transformer
# over eight words, four tokens at most.

# %%
known = analysis.exact_kl_of_best_of_n(analysis.doublings(256))
runs.save_figure(
    figures.analytic_kl(known),
    "analytic_kl",
    "KL of best-of-n: the formula is a bound, and near the truth where no single reply "
    "is likely.",
)
over = max(row["formula"] - row["exact"] for row in known)
runs.say(
    "Mine and the library's differ by {gap:.3f} at most, over {count} requests. Over "
    "{total:,} completions the formula is never below the exact KL, and at most "
    "{over:.2f} nats above it.",
    gap=np.abs(np.subtract(mine, ours)).max(),
    count=len(ours),
    total=sum(8**i for i in range(5)),
    over=over,
)

# %% [markdown]
# ## 4 · Three ways to optimise
#
# The same preferences, three ways to follow them: best-of-n, PPO on the reward model,
# and DPO, which needs none (its proxy is the reward model from the same comparisons).
# Each thin line is one reward model; bold is Gao's form for the method, fitted to all of
# them; the star is its peak.

# %%
curves = {
    "best of n": [
        Curve(
            np.sqrt([row["kl"] for row in curve]),
            np.array([row["gold"] for row in curve]) - curve[0]["gold"],
        )
        for curve in best
    ],
    "PPO": [analysis.gold_curve(row) for row in rows["ppo"]],
    "DPO": [analysis.gold_curve(row) for row in rows["dpo"]],
}
runs.save_figure(
    figures.methods(curves),
    "methods",
    "Gold gained against the distance: best-of-n, PPO and DPO on the same comparisons.",
)
leads = [analysis.best_of_n_lead(curve, row) for curve, row in zip(best, rows["ppo"])]
runs.record("best_of_n_minus_ppo_gold", np.mean(leads), seeds=leads)
runs.say(
    "At equal KL, between 1 and 5 nats, best-of-n has {best_of_n_minus_ppo_gold:+.2f} "
    "gold more than PPO. It pays for that with n replies every time it is asked."
)

# %%
runs.save_figure(
    figures.rise_and_fall({"PPO": rows["ppo"], "DPO": rows["dpo"]}),
    "ppo_and_dpo",
    "Gold and proxy reward along PPO and DPO.",
)

# %% [markdown]
# ## 5 · Which curve is it, and where is its peak?
#
# Gao et al. found two forms: $d\,(a - b\,d)$ for best-of-n, with its peak at $a/2b$, and
# $d\,(a - b \log d)$ for RL, with its peak at $e^{a/b-1}$. Both are linear in $a$ and
# $b$, so least squares will do. Which one foretells a *new* run best? Each reward
# model's run is left out once, and foretold by the fit to the others. (Near 0 the slope
# of $d \log d$ is infinite: points within the grey band are left out.)

# %%
forms = list(FORMS)
if len(run.seeds) > 1:
    errors = {form: held_out_error(curves["PPO"], form) for form in forms}
else:
    errors = dict.fromkeys(forms, math.nan)  # nothing to leave out
runs.save_figure(
    figures.fits(curves["PPO"], errors),
    "fits",
    "PPO's gold against the distance, all reward models, with three forms fitted.",
)
found = {
    (method, form): peak_interval(some, form)
    for method, some in curves.items()
    for form in ("best-of-n", "RL")
    if can_be_fitted(some, form)
}
pd.DataFrame(
    [
        {
            "method": method,
            "form": form,
            "a": fit_curves(curves[method], form).coefficients[0],
            "b": fit_curves(curves[method], form).coefficients[1],
            "peak d* (95%, over reward models)": figures.interval_words(peak),
        }
        for (method, form), peak in found.items()
    ]
).style.format(precision=2).hide(axis="index")

# %%
closest = min(errors, key=errors.get)
if len(run.seeds) > 1:
    runs.record("ppo_held_out_error_rl", errors["RL"])
if ("PPO", "RL") in found:  # runs that stay too near have nothing to fit
    runs.say(
        "For PPO the peak of Gao's form for RL is at d* = {peak}. Left-out runs are "
        "foretold best by the form “{closest}”, to within {error:.2f} gold.",
        peak=figures.interval_words(found["PPO", "RL"]),
        closest=closest,
        error=errors[closest],
    )

# %% [markdown]
# ## 6 · More data, or a larger reward model?
#
# The same pool of replies, judged by reward models of several amounts of comparisons (a
# smaller amount of a seed is the beginning of its larger one) and, on profile `full`, of
# two sizes.

# %%
groups = {
    (trunk, count): [
        analysis.best_of_n_curve(pools[trunk, count, s]["proxies"], pool_golds, ns)
        for s in run.seeds
    ]
    for trunk in settings.trunks
    for count in settings.ns
}
runs.save_figure(
    figures.data_and_size(groups),
    "data_and_size",
    "Best-of-n by reward models of several sizes and amounts of data.",
)
few, many = min(settings.ns), max(settings.ns)
ends = {
    key: np.array([curve[-1]["gold"] for curve in some]) for key, some in groups.items()
}
gain = ends[settings.size, many] - ends[settings.size, few]
runs.record("data_gold_gain", gain.mean(), seeds=gain)
spread = ends[settings.size, few]
runs.say(
    "From {few:,} to {many:,} comparisons best of {n} gains {data_gold_gain:+.2f} "
    "gold. Among reward models of {few:,} comparisons it is anything from {low:.2f} to "
    "{high:.2f}: one reward model proves nothing.",
    few=few,
    many=many,
    n=ns[-1],
    low=spread.min(),
    high=spread.max(),
)

# %% [markdown]
# ## 7 · What helps?
#
# Each against PPO as it was: a **price of KL** β in the reward. On profile `full` there
# is also PPO on an **ensemble** of reward models, by its mean, its worst member, or its
# mean less its variance, and PPO on reward models of fewer comparisons, to see what more
# of them have done. One ensemble is one: it has no interval.

# %%
few_seeds = run.seeds[: settings.few_seeds]
few_rows = [row for row in rows["ppo"] if row["seed"] in few_seeds]
remedies = {"PPO as it was": few_rows}
for beta in settings.betas:
    some = [row for row in rows["beta"] if row["kl_coef"] == beta]
    remedies[f"β = {beta:g}"] = some
for how in settings.ensembles:
    some = [row for row in rows["ensemble"] if row["reward"] == how]
    remedies[f"ensemble of {len(run.seeds)}: {how}"] = some
for count in settings.weak_pairs:
    some = [row for row in rows["weak"] if row["n_pairs"] == count]
    remedies[f"{count:,} comparisons"] = some
runs.save_figure(
    figures.remedies(remedies),
    "remedies",
    "Gold along PPO with each remedy, and from its best look to its end.",
)

# %% [markdown]
# Best of n can ask an ensemble for nothing, as the replies are there:

# %%
ensembles = {
    how: analysis.best_of_n_curve(
        analysis.ensemble_proxies(
            [pools[settings.size, few, s] for s in run.seeds], how
        ),
        pool_golds,
        ns,
    )
    for how in arms.ENSEMBLES
}
alone = np.mean([curve[-1]["gold"] for curve in groups[settings.size, few]])
pd.DataFrame(
    {"one alone (mean)": {"gold": alone}}
    | {how: {"gold": curve[-1]["gold"]} for how, curve in ensembles.items()}
).T.rename_axis(f"best of {ns[-1]}, {few:,} comparisons").style.format(precision=2)

# %% [markdown]
# **Early stopping** needs to be told when, and gold is what one does not have. But the
# fit to *other* reward models' runs has a peak: stop each run there.

# %%
if len(run.seeds) > 1:
    stops = analysis.stopped_early(rows["ppo"])
    saved = [row["stopped"] - row["end"] for row in stops]
    missed = [row["best"] - row["stopped"] for row in stops]
    runs.record("early_stopping_gold_saved", np.mean(saved), seeds=saved)
    runs.record("early_stopping_gold_missed", np.mean(missed), seeds=missed)
    runs.say(
        "Stopped where the others' fit has its peak, a run ends "
        "{early_stopping_gold_saved:+.2f} in gold above its own end, and "
        "{early_stopping_gold_missed:.2f} below its own best look."
    )

# %% [markdown]
# ## 8 · What else is lost: entropy and diversity
#
# **Exercise 06.2.** Entropy says how much is left to chance at each token. Write its
# mean over the tokens of replies of different lengths: padding must not count, and every
# real token counts once.


# %% nbgrader={"grade": false, "grade_id": "nb06-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_token_entropy(logits, mask):
    """(B, T, V) and (B, T), mask 1 on real tokens, to one number in nats a token."""
    ### BEGIN SOLUTION
    log_p = logits.log_softmax(dim=-1)
    each = -(log_p.exp() * log_p).sum(dim=-1)
    return each[mask.bool()].mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb06-q2-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("06.2", my_token_entropy)

# %% [markdown]
# **Exercise 06.3.** Diversity of replies: how many different n-grams there are. As a
# share of all n-grams that falls with length, whatever is said. Divide instead by how
# many different ones there would be, were all $C$ of them drawn at random among
# $M = V^n$: $M \, [1 - (1 - 1/M)^C]$.


# %% nbgrader={"grade": false, "grade_id": "nb06-q3", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_adjusted_distinct(replies, n, vocabulary):
    """Lists of tokens to one number; no n-gram reaches from one reply to the next."""
    ### BEGIN SOLUTION
    grams = [tuple(r[i : i + n]) for r in replies for i in range(len(r) - n + 1)]
    possible = vocabulary**n
    expected = possible * (1 - (1 - 1 / possible) ** len(grams))
    return len(set(grams)) / expected
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb06-q3-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("06.3", my_adjusted_distinct)

# %% [markdown]
# *Per input*: how much several replies to one request differ. *Across inputs*: how much
# replies to different requests do. The dotted line is at 5 nats, where the verdict is
# given.

# %%
_, tokenizer = artifacts.reference_policy(settings.size, settings.steps)
along = [
    analysis.diversity_along(row, tokenizer)
    | {"entropy": analysis.over_points(row, "entropy")}
    for row in rows["ppo"]
]
runs.save_figure(
    figures.diversity(rows["ppo"], along),
    "diversity",
    "Entropy, diversity of replies to one request and across requests, and self-BLEU, "
    "along PPO.",
)
there = [analysis.beyond_budget(row) for row in rows["ppo"]]
changes = {
    "rlhf_minus_sft_entropy": "entropy",
    "rlhf_minus_sft_diversity": "per_input",
    "rlhf_minus_sft_diversity_across": "across_inputs",
    "rlhf_minus_sft_self_bleu": "self_bleu",
    "rlhf_minus_sft_distinct_replies": "distinct",
}
for name, measure in changes.items():
    values = [one[measure][at] - one[measure][0] for one, at in zip(along, there)]
    runs.record(name, np.mean(values), seeds=values)
kl_there = np.mean(
    [analysis.over_points(r, "kl")[a] for r, a in zip(rows["ppo"], there)]
)
runs.say(
    "At the first look beyond {budget:.0f} nats (at {kl:.1f} on average) entropy has "
    "changed by {rlhf_minus_sft_entropy:+.3f} nats a token from {before:.3f}, "
    "diversity per input by {rlhf_minus_sft_diversity:+.3f}, across inputs by "
    "{rlhf_minus_sft_diversity_across:+.3f}, and self-BLEU by "
    "{rlhf_minus_sft_self_bleu:+.3f} ({signature}).",
    budget=arms.BUDGET,
    kl=kl_there,
    before=np.mean([one["entropy"][0] for one in along]),
    signature=self_bleu_signature(first["points"][0]["texts"][0]),
)

# %% [markdown]
# **A measure that sees nothing.** The share of replies that are different from each
# other is what one counts first. One changed word makes another reply, so it hardly
# moves; and entropy can rise again, where the policy falls apart:

# %%
runs.say(
    "The share of different replies to a request changes by "
    "{rlhf_minus_sft_distinct_replies:+.3f}. Entropy is lowest at {lowest:.2f} nats a "
    "token and {last:.2f} at the end, while diversity per input ends at {ends:.2f} of "
    "{begins:.2f}.",
    lowest=np.mean([one["entropy"].min() for one in along]),
    last=np.mean([one["entropy"][-1] for one in along]),
    ends=np.mean([one["per_input"][-1] for one in along]),
    begins=np.mean([one["per_input"][0] for one in along]),
)

# %%
runs.save_figure(
    figures.entropy_and_reward(rows["ppo"]),
    "entropy_and_reward",
    "Entropy against gold and against proxy reward, along every run.",
)

# %% [markdown]
# ## 9 · Can temperature buy it back?
#
# A policy that says the same again and again can be made to say something else: sample
# at a higher temperature. The question is what that costs. Both policies, at several
# temperatures: to the right there is more diversity, up is better.

# %%
policy = [analysis.temperature_curve(row, tokenizer) for row in rows["ppo"]]
plain = [analysis.temperature_curve(row, tokenizer) for row in rows["reference"]]
runs.save_figure(
    figures.temperature(policy, plain),
    "temperature",
    "Gold against diversity per input, sampled at several temperatures: the first "
    "policy and the one after PPO, 5 nats away.",
)
repairs = [analysis.restored(*pair) for pair in zip(policy, plain)]
prices = [repair["price"] for repair in repairs]
runs.record("restored_minus_rlhf_gold", np.mean(prices), seeds=prices)
runs.say(
    "At temperature {heat:.2f} the policy after PPO is as diverse as the first one is "
    "at 1; its gold has changed by {restored_minus_rlhf_gold:+.2f}.",
    heat=np.mean([repair["temperature"] for repair in repairs]),
)

# %% [markdown]
# ## 10 · Verdicts
#
# Thresholds were fixed before measuring. Where this profile has too few seeds for a
# verdict, it says so; `alignlab run 06 --profile full` has enough.

# %%
runs.show_verdicts()

# %% [markdown]
# ## What the big labs do that we left out
#
# * **New comparisons of the policy's own replies**, every few thousand updates: the
#   reward model is taught where the policy goes, instead of where it came from.
# * **Reward models far larger than ours**, on hundreds of thousands of comparisons; and
#   rewards that can be checked by a program (tests that pass, sums that are right)
#   wherever there are any.
# * **Red teams and monitors** that read what is said: nobody has a gold reward to plot.
# * **Diversity as a goal**: entropy bonuses, sampling several modes on purpose, or
#   objectives with the forward KL, which does not give modes up.
# * **Hacks of another kind.** Ours are phrases; those of large models are flattery, sure
#   tone, length, and tests that are special-cased.
#
# *Turn a dial:* set `at` to fewer updates, or `betas` to 0.2. We would expect the fall to
# come later or not at all. If it came sooner, that would surprise us.
