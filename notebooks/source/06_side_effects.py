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
# A reward model is not what people want; it is a guess at it, from comparisons. This
# notebook optimises the guess far beyond where it is any good, and watches: what people
# really prefer rises, and then falls. Then it asks who could have noticed, when to stop,
# and what else is lost on the way: entropy, and different answers to one question.
#
# | | |
# | --- | --- |
# | **time** | `smoke` half a minute · `cpu` 3½ minutes · `full` 35 minutes (two cores) |
# | **memory** | under 4 GB |
# | **you need** | notebooks 03 and 04 (it runs alone: what is missing is built) |
# | **look at first** | the replies in section 1, rise and fall in section 2 |
# | **sweeps worth trying** | `at`, `temperatures`; `run.settings` shows all |
# | **on Colab** | run the set-up cell below first |

# %% tags=["parameters"]
profile = "cpu"  # smoke, cpu, full or gpu: how much to measure
seed = 0  # the first seed; the others follow it
device = "cpu"
out_dir = ""  # where metrics and figures go; empty: runs/interactive

# %%
import math
import warnings

import numpy as np
import pandas as pd
import torch

from alignlab import runs
from alignlab.chapters.side_effects import analysis, experiments, figures
from alignlab.chapters.side_effects import runs as arms
from alignlab.course import check, hint
from alignlab.evaluation.best_of_n import best_of_n_values
from alignlab.evaluation.diversity import self_bleu_signature
from alignlab.evaluation.intervals import reading, t_interval
from alignlab.evaluation.over_optimisation import (
    FORMS,
    Curve,
    can_be_fitted,
    held_out_error,
    peak_interval,
)
from alignlab.evaluation.win_rate import over_seeds, win_rate
from alignlab.models.base import use_device
from alignlab.models.sampler import complete
from alignlab.plots import rating
from alignlab.plots.rating_panel import RatingPanel
from alignlab.plots.style import use_style
from alignlab.ppo import RewardHackingCallback
from alignlab.study import artifacts
from alignlab.study.chains import Chain
from alignlab.study.chains import chains as make_chains
from alignlab.study.optimising import requests as requests_of
from alignlab.study.optimising import trainer_for
from alignlab.study.scale import cap
from alignlab.world import gold

use_style()
run = runs.start("06_side_effects", profile, seed, device, out_dir)
use_device(device)
settings = run.settings
chains = make_chains(
    run.seeds,
    nested=settings.nested,
    base=settings.model,
    steps=settings.steps,
    n_pairs=settings.n_pairs,
    k=settings.k,
)

# %% [markdown]
# All runs are made here, side by side; what was made before is read from the cache.
# The exercises need none of it and can be done first.

# %%
rows = arms.run_all(
    chains=chains,
    control_chains=chains[: settings.control_seeds],
    few_chains=chains[: settings.few_seeds],
    at=settings.at,
    control_at=settings.control_at,
    dpo_at=settings.dpo_at,
    remedies=settings.remedies,
    ns=settings.ns,
    pool=settings.pool,
    temperatures=settings.temperatures,
    n=settings.n,
    jobs=settings.jobs,
)
ppo, control, dpo = (
    analysis.followed(rows[kind], rows["start"]) for kind in ("ppo", "control", "dpo")
)
names = artifacts.subjects("test")
requests = [gold.request(name) for name in names]
wide = {"white-space": "normal", "max-width": "34em", "text-align": "left"}

# %% [markdown]
# On profile `full` every seed has its own reference policy, replies, comparisons and
# reward model; on `cpu` and `smoke` all share one reference, and what is measured holds
# given that one. Runs are followed up to 8 nats from the reference: beyond that, a
# policy babbles, and nothing is learnt from watching it.
#
# ## 1 · What does it say, along the way?
#
# One policy, PPO without any price of KL, one reward model; the same requests and the
# same random numbers at every look. *Gold* is what a reply is really worth: right facts
# about what was asked, none that are wrong, and a little courtesy; PPO never sees it.
# The *proxy reward* is what PPO sees, in standard deviations of the first policy's
# replies.

# %%
first = ppo[0]
places = [0, analysis.turn_of(first).point, len(first["points"]) - 1]
scale = np.array(first["points"][0]["proxies"])
shown = pd.DataFrame(
    [
        {
            "request": requests[i],
            "when": when,
            "reply": first["points"][at]["texts"][i][0],
            "who knows the facts says": analysis.remarks(
                names[i], first["points"][at]["texts"][i][0]
            ),
            "gold": first["points"][at]["golds"][i][0],
            "proxy reward": (first["points"][at]["proxies"][i][0] - scale.mean())
            / scale.std(),
        }
        for i in range(1, 9, 2)
        for when, at in zip(("before", "at its best", "at the end"), places)
    ]
)
shown.style.format(precision=2).hide(axis="index").set_properties(**wide)

# %%
last = first["points"][-1]
runs.say(
    "At the end, {kl:.1f} nats from where it began, this policy's replies are worth "
    "{end:.2f} in gold on average, where they were worth {start:.2f}; what the reward "
    "model gives them has changed by {proxy:+.1f} standard deviations.",
    kl=last["kl"],
    end=np.mean(last["golds"]),
    start=np.mean(first["points"][0]["golds"]),
    proxy=(np.mean(last["proxies"]) - scale.mean()) / scale.std(),
)

# %% [markdown]
# Slide along the run, and choose what is asked:

# %%
figures.run_explorer(first, requests)

# %% [markdown]
# In numbers, what the replies are made of. Opening and closing are *form*: a small
# reward model sees them at once. Whether a fact is right it hardly sees. (Notebook 03
# measured that.)

# %%
runs.save_figure(
    figures.contents(ppo),
    "contents",
    "What replies are made of along the way, mean over seeds.",
)
made_of = [analysis.contents(row) for row in ppo]
turns = [analysis.turn_of(row) for row in ppo]
parts = {
    when: {
        label: np.mean([c[name][at] for c, at in zip(made_of, at_of)])
        for name, label in figures.CONTENTS.items()
    }
    for when, at_of in (
        ("before", [0] * len(turns)),
        ("at its best", [t.point for t in turns]),
        ("at the end", [-1] * len(turns)),
    )
}
pd.DataFrame(parts).T.style.format(precision=2)

# %%
runs.say(
    "Right facts a reply: {right[0]:.2f} before, {right[1]:.2f} at its best and "
    "{right[2]:.2f} at the end; wrong ones: {wrong[0]:.2f}, {wrong[1]:.2f} and "
    "{wrong[2]:.2f}. It opens politely in {opens[0]:.0%} of the replies before and in "
    "{opens[2]:.0%} at the end, where it repeats itself {repeats[2]:.2f} times a reply "
    "({repeats[0]:.2f} before).",
    **{
        name: [part[label] for part in parts.values()]
        for name, label in (
            ("right", "right facts"),
            ("wrong", "wrong facts"),
            ("opens", "opens politely"),
            ("repeats", "repeats"),
        )
    },
)

# %% [markdown]
# ## 2 · Does what people prefer fall while the proxy reward rises?
#
# The same for every seed, against the *distance* from the first policy,
# $d = \sqrt{\mathrm{KL}}$: near the start a policy improves about in proportion to it
# (Gao et al., 2023). The KL is exact for every token that was sampled, summed over the
# vocabulary, and averaged over replies. The control is the same run with gold itself as
# the reward, at a higher rate, so that it comes as far: if *that* fell, the fault would
# lie with PPO and not with the reward.
#
# <details><summary>Predict: at what distance does gold turn, and does the control
# turn?</summary>
#
# The proxy sees form, and there is not much form to gain: a greeting, thanks, a close.
# When that is gained, all that is left to be rewarded are the proxy's own errors. So one
# would expect the turn soon, and none in the control, where there is nothing to exploit.
# </details>

# %%
runs.save_figure(
    figures.rise_and_fall({"on a proxy reward": ppo, "on gold (control)": control}),
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
    figures.halves(ppo),
    "halves",
    "Gold on the requests that pick the peak and on those that measure it.",
)
turned = [analysis.turn_of(row) for row in control]
reached = {row["seed"]: row["points"][-1]["kl"] for row in ppo}
measured = {
    "peak_minus_sft_gold": [turn.rise for turn in turns],
    "end_minus_peak_gold": [turn.fall for turn in turns],
    "end_minus_peak_proxy": [analysis.proxy_after_peak(r) for r in ppo],
    "control_end_minus_peak_gold": [turn.fall for turn in turned],
    "control_over_run_kl": [
        row["points"][-1]["kl"] / reached[row["seed"]] for row in control
    ],
}
for name, values in measured.items():
    runs.record(name, np.mean(values), seeds=values, n=len(names) // 2 * settings.n)
runs.say(
    "To its peak gold {rises} ({peak_minus_sft_gold:+.2f}), and then it {falls} "
    "({end_minus_peak_gold:+.2f}; seeds: {count}), while the proxy reward changes by "
    "{end_minus_peak_proxy:+.2f} sd. With gold as the reward the change after the peak "
    "is {control_end_minus_peak_gold:+.2f}; that run ends at {control_over_run_kl:.2f} "
    "times the distance in nats.",
    rises=reading(
        t_interval(measured["peak_minus_sft_gold"]),
        "rises",
        "is lower",
        "does not clearly rise",
    ),
    falls=reading(
        t_interval(measured["end_minus_peak_gold"]),
        "goes on rising",
        "falls",
        "does not clearly fall",
    ),
    count=len(turns),
)

# %% [markdown]
# What would a reader say who sees two replies side by side? A *win rate* counts ties as
# halves; 50% is as good as the first policy. Again only requests count that did not
# pick the peak.

# %%
measures = ~analysis.picking(len(names))
wins = {
    when: [
        win_rate(
            np.array(row["points"][at]["golds"])[measures],
            np.array(row["points"][0]["golds"])[measures],
        )
        for row, at in zip(ppo, at_of)
    ]
    for when, at_of in (
        ("at its best", [turn.point for turn in turns]),
        ("at the end", [-1] * len(turns)),
    )
}
for when, rates in wins.items():
    name = "win_rate_" + when.split()[-1]
    runs.record(name, *over_seeds(rates), seeds=[win.rate for win in rates])
runs.say(
    "Against the first policy it wins {win_rate_best:.0%} at its best and "
    "{win_rate_end:.0%} at the end."
)

# %% [markdown]
# **Judge for yourself.** Twenty pairs, blind: a reply of the first policy and one of the
# optimised policy at its end, to the same request, sides shuffled. Your ratings are kept
# in the run's folder, and the panel goes on from there.

# %%
pairs_to_rate = rating.pairs_to_rate(
    requests[:20],
    [texts[0] for texts in first["points"][0]["texts"][:20]],
    [texts[0] for texts in first["points"][-1]["texts"][:20]],
    names=("first policy", "at the end"),
    seed=seed,
)
session = rating.RatingSession(pairs_to_rate, path=run.out_dir / "ratings.json")
RatingPanel(session)

# %% [markdown]
# ## 3 · Best of n: optimising without training
#
# Sample $n$ replies, take the one that the reward model likes best. To know what that
# is worth for every $n$, one pool of $N$ replies is enough: among all ways to take $n$
# of them, the sample with $i$ others below it (by proxy reward) is the best in
# $\binom{i}{n-1}$ of $\binom{N}{n}$.
#
# **Exercise 06.1** · ★★★ · 25 minutes · `hint("06.1")`
#
# Write the expected gold of best-of-n, for one request, without drawing samples.


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
ns = analysis.doublings(settings.pool)
pools = {(row["n_pairs"], row["chain"]["seed"]): row for row in rows["pool"]}
best = [
    analysis.best_of_n_curve(
        pools[settings.n_pairs, s]["proxies"], pools[settings.n_pairs, s]["golds"], ns
    )
    for s in run.seeds
]
own = pools[settings.n_pairs, run.seeds[0]]
proxies, golds = torch.tensor(own["proxies"]), torch.tensor(own["golds"])
mine = [float(my_best_of_n(*x, 2)) for x in zip(proxies, golds)]
ours = best_of_n_values(proxies.numpy(), golds.numpy(), 2)  # it also shares out ties
pd.DataFrame(best[0]).style.format(precision=2).hide(axis="index")

# %%
runs.say(
    "The best of {n} replies is worth {more:+.2f} gold more than one reply, on the "
    "first seed, at {kl:.1f} nats or less; your function and the library's differ by "
    "{gap:.3f} at most for the best of two.",
    n=best[0][-1]["n"],
    more=best[0][-1]["gold"] - best[0][0]["gold"],
    kl=best[0][-1]["kl"],
    gap=np.abs(np.subtract(mine, ours)).max(),
)

# %% [markdown]
# **How far is that?** No policy is trained, so its KL needs a thought: if no two
# replies tie, it is $\log n - (n-1)/n$, whatever the reward. Where a reply comes twice
# it is less. We can check that where every completion can be written down: a
# transformer over eight words, four tokens at most.

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
    "Over {total:,} completions the formula is at most {over:.2f} nats above the exact "
    "KL, and at most {under:.1e} below it.",
    under=max(0.0, max(row["exact"] - row["formula"] for row in known)),
    total=sum(8**i for i in range(5)),
    over=over,
)

# %% [markdown]
# **Experiment 06.2** · ★★ · 20 minutes · `hint("06.2")`
#
# How fast does best-of-n run out of gold? That depends on the proxy's errors.
# `experiments.heavy_tailed_pool(seed)` has the proxy reward and the gold of 256 replies
# to each of 100 requests, (100, 256) both; here proxy is gold plus an error that is now
# and then far larger than all gold. **Write down a prediction first:** from n = 1 to n
# = 256, does the gold of the best of n rise, fall, or stay? Then compute it with your
# function for every request, at three values of n or more, of which 1 is the first.
#
# Hand in a report, a dict: `prediction` and `outcome` (`"rises"`, `"falls"` or
# `"stays"`; up to two standard errors are `"stays"`, and a prediction that fails costs
# nothing), `settings` from low to high, `measured` (a row for each of them, a number
# for each request), `difference` (the mean of the last row less the first) and `error`
# (its standard error).

# %% nbgrader={"grade": false, "grade_id": "nb06-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
my_report = None
### BEGIN SOLUTION
prediction = "rises"  # written down before the run
by_proxy, worth = experiments.heavy_tailed_pool(seed)
tried, found = [1, 4, 16, 64, 256], []
for n in tried:
    each = [float(my_best_of_n(p, g, n)) for p, g in zip(by_proxy, worth)]
    found.append(np.array(each))
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

# %% nbgrader={"grade": true, "grade_id": "nb06-q2-check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
check("06.2", my_report)

# %%
means = [float(np.mean(np.asarray(row))) for row in my_report["measured"]]
runs.say(
    "At n = {ns} the best by proxy is worth {means} in gold, on average over requests. "
    "From first to last that is {difference:+.2f} (standard error {error:.2f}): it "
    "{outcome}; the most is at n = {best}.",
    ns=", ".join(f"{n:g}" for n in my_report["settings"]),
    means=", ".join(f"{mean:.2f}" for mean in means),
    difference=float(my_report["difference"]),
    error=float(my_report["error"]),
    outcome=my_report["outcome"],
    best=my_report["settings"][int(np.argmax(means))],
)

# %% [markdown] nbgrader={"grade": false, "grade_id": "nb06-q3", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": true}
# **Interpretation 06.3** · ★★★ · 15 minutes · `hint("06.3")`
#
# *Answer in about five sentences, in the cell below.* Gold and error are independent
# here, and more proxy reward always makes more gold *likelier*. Why does gold not go on
# rising with n? What would be different with normal errors of any size? Where in a real
# reward model would such rare, large errors come from, and which observation, without
# gold, would warn you?
#
# <!-- === BEGIN MARK SCHEME === -->
# *Rubric.* **1 point:** the largest of many is decided by whatever has the heavier
# tail: at a high n it is the error, and gold of such a reply is that of any reply (with
# the numbers of the run: where it is highest, and what is left at 256). **1 point:**
# with normal errors gold's share of the proxy stays the same at any n, so gold rises
# on, if slowly. **1 point:** a source (replies unlike all that was compared,
# repetition, tricks of form) and a warning (proxy rewards far beyond those of training,
# disagreement of several reward models, a spread that grows faster than that of a
# normal distribution).
# <!-- === END MARK SCHEME === -->

# %% [markdown]
# *Your answer:*

# %% [markdown]
# ## 4 · Three ways to optimise, and Gao's curves
#
# The same preferences, three ways to follow them: best-of-n, PPO on the reward model,
# and DPO, which needs none (its proxy is the reward model from the same comparisons).
# Each thin line is a seed; bold is Gao's form for the method, $d\,(a - b\,d)$ for
# best-of-n and $d\,(a - b \log d)$ for the others, fitted to all of them; the star is
# its peak, at $a/2b$ and $e^{a/b-1}$.
#
# <details><summary>Predict: which of the three gains most at equal distance?</summary>
#
# Best of n picks whole replies, and spends no KL on the noise of training: of the proxy
# it has nearly as much as any policy could have at its distance. But it cannot go far.
# </details>

# %%
curves = {
    "best of n": [
        Curve(
            np.sqrt([row["kl"] for row in curve]),
            np.array([row["gold"] for row in curve]) - curve[0]["gold"],
        )
        for curve in best
    ],
    "PPO": [analysis.gold_curve(row) for row in ppo],
    "DPO": [analysis.gold_curve(row) for row in dpo],
}
runs.save_figure(
    figures.methods(curves),
    "methods",
    "Gold gained against the distance: best-of-n, PPO and DPO on the same comparisons.",
)
leads = [analysis.best_of_n_lead(curve, row) for curve, row in zip(best, ppo)]
runs.record("best_of_n_minus_ppo_gold", np.mean(leads), seeds=leads)
runs.say(
    "At equal KL, between {low:g} and {high:g} nats, best of n {verdict} PPO "
    "({best_of_n_minus_ppo_gold:+.2f} gold). It pays for that with n replies every "
    "time it is asked.",
    low=analysis.KL_RANGE[0],
    high=analysis.KL_RANGE[1],
    verdict=reading(
        t_interval(leads), "has more than", "has less than", "cannot be told from"
    ),
)

# %% [markdown]
# **What does a price of KL do?** Whoever pays a price for each nat stops where the next
# nat buys less proxy reward than it costs: where a line of that slope touches the
# curve. The mean curves of these runs, with a slider for the price:

# %%
figures.price_explorer(figures.mean_frontiers({"PPO": ppo, "DPO": dpo}, best))

# %% [markdown]
# Which form predicts a *new* run best? Each seed's run is left out once, and predicted
# by the fit to the others. (Near 0 the slope of $d \log d$ is infinite: points within
# the grey band are left out.)

# %%
if len(ppo) > 1 and all(can_be_fitted(curves["PPO"][1:], form) for form in FORMS):
    errors = {form: held_out_error(curves["PPO"], form) for form in FORMS}
    runs.save_figure(
        figures.fits(curves["PPO"], errors),
        "fits",
        "PPO's gold against the distance, all seeds, with three forms fitted.",
    )
    runs.record("ppo_held_out_error_rl", errors["RL"])
    closest = min(errors, key=errors.get)
    runs.say(
        "Left-out runs are predicted best by the form “{closest}”, to within "
        "{error:.2f} gold. By Gao's form for RL the peak is at d* = {peak}.",
        closest=closest,
        error=errors[closest],
        peak=figures.interval_words(peak_interval(curves["PPO"], "RL")),
    )
else:
    runs.say("These runs stay too near, or are too few, to fit a curve to.")

# %% [markdown]
# ## 5 · Who could have noticed?
#
# Nobody has a gold reward to plot. What one can have is a *held-out judge*: a reward
# model of other comparisons of the same replies, which nobody optimises. Its chance
# errors are its own. Where the proxy goes up and the judge comes down, the proxy is being
# exploited. (What no reward model of this kind sees, whether a fact is right, this judge
# does not see either: a judge notices what it is able to notice.)
# `RewardHackingCallback` watches for that in any run of `PPOTrainer`, here at more than
# twice the learning rate of the long runs:

# %%
chain = Chain(**chains[0])
policy, tokenizer = chain.policy()
judge = chain.reward_model(seed=chain.seed + arms.OTHERS[0])
trainer = trainer_for(
    policy,
    tokenizer,
    chain.reward_model()[0],
    seed=chain.seed,
    updates=settings.watched,
    **{**arms.LONG, "learning_rate": 4e-4},
)
monitor = RewardHackingCallback(
    trainer, judge, requests_of("test"), every=max(1, settings.watched // 4)
)
trainer.add_callback(monitor)
with warnings.catch_warnings(record=True) as alarms:
    warnings.simplefilter("always")
    trainer.train()
runs.save_figure(
    figures.monitor(monitor.looks),
    "monitor",
    "Proxy and held-out judge along a run with the monitor.",
)

# %%
before, after = monitor.looks[0], monitor.looks[-1]
moved = {
    name: (np.mean(after[name]) - np.mean(before[name])) / np.std(before[name])
    for name in ("proxy", "judge")
}
runs.say(
    "After {updates} updates the proxy has changed by {proxy:+.2f} and the judge by "
    "{judge:+.2f} standard deviations of the first look. {alarm}",
    updates=settings.watched,
    alarm="The alarm went off: “{}”".format(
        next(a.message for a in alarms if "Reward hacking" in str(a.message))
    )
    if monitor.alarm
    else "The alarm did not go off: it wants the judge down by two standard errors at "
    "two looks in a row.",
    **moved,
)

# %% [markdown]
# ### When to stop
#
# The same judge, and a third reward model, on the replies of the long runs of section 2:

# %%
if settings.remedies:
    judged = {row["chain"]["seed"]: row for row in rows["judged"]}
    seen = [analysis.noticed(row, judged[row["seed"]]) for row in ppo]
    runs.save_figure(
        figures.noticed(ppo, seen),
        "noticed",
        "What can be seen without gold along the long runs: proxy, held-out judge, and "
        "how much three reward models disagree.",
    )
    since = {
        name: t_interval([values[name][-1] - values[name][0] for values in seen])
        for name in seen[0]
    }
    runs.say(
        "From the first policy to the end the proxy changes by {proxy:+.2f} sd and the "
        "judge by {judge:+.2f} sd. The three reward models {word} than before "
        "({disagreement:+.2f} sd).",
        word=reading(
            since["disagreement"],
            "disagree more",
            "disagree less",
            "do not clearly disagree more",
        ),
        **since,
    )
else:
    runs.say("Three reward models a seed need profile full.")

# %% [markdown]
# Five rules to stop by. *End*: not at all. *Proxy*: where what is optimised is highest.
# *Judge*: where the held-out judge is highest. *Worst*: where the least of the three is
# highest, which suffers where they disagree. *Oracle*: where gold is. All of them see
# every other request; the gold that they leave is measured on the rest.

# %%
if settings.remedies:
    rules = [analysis.stops(row, judged[row["seed"]]) for row in ppo]
    gained = {
        rule: [
            analysis.look_gold(row)[stop[rule]] - analysis.look_gold(row)[0]
            for row, stop in zip(ppo, rules)
        ]
        for rule in rules[0]
    }
    runs.save_figure(
        figures.stopping(gained),
        "stopping",
        "Gold gained over the reference where each rule stops a run.",
    )
    saved = {
        rule: np.subtract(gained[rule], gained["end"]) for rule in ("judge", "worst")
    }
    for rule, values in saved.items():
        runs.record(f"stop_by_{rule}_gold_saved", np.mean(values), seeds=list(values))
    runs.say(
        "Against its own end, a run that is stopped by the held-out judge {judge} "
        "({stop_by_judge_gold_saved:+.2f} gold), and one stopped by the worst of three "
        "{worst} ({stop_by_worst_gold_saved:+.2f}). Over the reference the oracle has "
        "{oracle:+.2f} gold, the judge {by_judge:+.2f}, the worst of three "
        "{by_worst:+.2f}.",
        **{
            rule: reading(t_interval(values), "gains", "loses", "gains nothing clear")
            for rule, values in saved.items()
        },
        oracle=t_interval(gained["oracle"]),
        by_judge=t_interval(gained["judge"]),
        by_worst=t_interval(gained["worst"]),
    )
else:
    runs.say("Stopping by judges needs profile full.")

# %% [markdown]
# ## 6 · What helps?
#
# Each against PPO as it was: a **price of KL** β in the reward; an **ensemble** of
# three reward models, by their mean or by the worst of them; and, to see what more
# comparisons bring, a reward model from fewer. Peaks are picked on one half of the
# requests, and gold on the right is measured on the other.

# %%
few = [row for row in ppo if row["seed"] in run.seeds[: settings.few_seeds]]
labels = {
    "price": f"β = {arms.PRICE:g}",
    "mean": "mean of three",
    "worst": "worst of three",
    "weak": f"{arms.WEAK_PAIRS} comparisons",
}
if settings.remedies:
    remedies = {"PPO as it was": few} | {
        label: analysis.followed(
            [row for row in rows["remedy"] if row["how"] == how], rows["start"]
        )
        for how, label in labels.items()
    }
    runs.save_figure(
        figures.remedies(remedies),
        "remedies",
        "Gold along PPO with each remedy, and from its peak to its end.",
    )
    ends = {
        label: np.array([analysis.look_gold(row)[-1] for row in group])
        for label, group in remedies.items()
    }
    better = {
        label: t_interval(golds - ends["PPO as it was"])
        for label, golds in ends.items()
        if label != "PPO as it was"
    }
    runs.say(
        "Gold at the end, the last look within {reach:g} nats, against PPO as it was "
        "on "
        "the same seeds: {lines}. Updates are as many, distances are not equal.",
        reach=analysis.REACH,
        lines="; ".join(
            f"**{label}** {reading(gap, 'more', 'less', 'not clearly other')}, "
            f"{gap:+.2f}, at {np.mean([r['points'][-1]['kl'] for r in group]):.1f} nats"
            for (label, gap), group in zip(
                better.items(), list(remedies.values())[1:], strict=True
            )
        ),
    )
else:
    runs.say("Remedies need profile full.")

# %%
weak_curves = {
    count: [
        analysis.best_of_n_curve(
            pools[count, s]["proxies"], pools[count, s]["golds"], ns
        )
        for s in run.seeds
    ]
    for count in settings.ns
}
runs.save_figure(
    figures.weaker(weak_curves),
    "weaker",
    "Best of n by reward models of several amounts of comparisons.",
)
runs.say(
    "Best of {n} in gold over one reply, by the comparisons that the reward model has "
    "seen: {lines}.",
    n=ns[-1],
    lines="; ".join(
        f"{count:,}: {t_interval([c[-1]['gold'] - c[0]['gold'] for c in own]):+.2f}"
        for count, own in weak_curves.items()
    ),
)

# %% [markdown]
# ## 7 · What else is lost: entropy and diversity
#
# **Exercise 06.4** · ★★ · 15 minutes · `hint("06.4")`
#
# Entropy says how much is left to chance at each token. Write its
# mean over the tokens of replies of different lengths: padding must not count, and every
# real token counts once.


# %% nbgrader={"grade": false, "grade_id": "nb06-q4", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_token_entropy(logits, mask):
    """(B, T, V) and (B, T), mask 1 on real tokens, to one number in nats a token."""
    ### BEGIN SOLUTION
    log_p = logits.log_softmax(dim=-1)
    each = -(log_p.exp() * log_p).sum(dim=-1)
    return each[mask.bool()].mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb06-q4-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("06.4", my_token_entropy)

# %% [markdown]
# **Exercise 06.5** · ★★ · 20 minutes · `hint("06.5")`
#
# Diversity of replies: how many different n-grams there are. As a
# share of all n-grams that falls with length, whatever is said. Divide instead by how
# many different ones there would be, were all $C$ of them drawn at random among
# $M = V^n$: $M \, [1 - (1 - 1/M)^C]$.


# %% nbgrader={"grade": false, "grade_id": "nb06-q5", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_adjusted_distinct(replies, n, vocabulary):
    """Lists of tokens to one number; no n-gram reaches from one reply to the next."""
    ### BEGIN SOLUTION
    grams = [tuple(r[i : i + n]) for r in replies for i in range(len(r) - n + 1)]
    possible = vocabulary**n
    expected = possible * (1 - (1 - 1 / possible) ** len(grams))
    return len(set(grams)) / expected
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb06-q5-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("06.5", my_adjusted_distinct)

# %% [markdown]
# *Per input*: how much several replies to one request differ. *Across inputs*: how much
# replies to different requests do.

# %%
_, tokenizer = Chain(**chains[0]).policy()
along = [
    analysis.diversity_along(row, tokenizer)
    | {"entropy": analysis.over_points(row, "entropy")}
    for row in ppo
]
runs.save_figure(
    figures.diversity(ppo, along),
    "diversity",
    "Entropy, diversity of replies to one request and across requests, and self-BLEU, "
    "along PPO.",
)
near = [
    next(
        (i for i, p in enumerate(row["points"]) if p["step"] == arms.HEATED),
        len(row["points"]) - 1,
    )
    for row in ppo
]
changes = {
    "rlhf_minus_sft_entropy": "entropy",
    "rlhf_minus_sft_diversity": "per_input",
    "rlhf_minus_sft_diversity_across": "across_inputs",
    "rlhf_minus_sft_self_bleu": "self_bleu",
    "rlhf_minus_sft_distinct_replies": "distinct",
}
for name, kind in changes.items():
    values = [seen[kind][at] - seen[kind][0] for seen, at in zip(along, near)]
    runs.record(name, np.mean(values), seeds=values)
runs.say(
    "After {step} updates, {kl:.1f} nats away, entropy has changed by "
    "{rlhf_minus_sft_entropy:+.3f} nats a token from {before:.3f}, diversity per input "
    "by {rlhf_minus_sft_diversity:+.3f}, across inputs by "
    "{rlhf_minus_sft_diversity_across:+.3f}, and self-BLEU by "
    "{rlhf_minus_sft_self_bleu:+.3f} ({signature}). The share of different replies to "
    "a request, which one counts first, changes by "
    "{rlhf_minus_sft_distinct_replies:+.3f}.",
    step=first["points"][near[0]]["step"],
    kl=np.mean([row["points"][at]["kl"] for row, at in zip(ppo, near)]),
    before=np.mean([seen["entropy"][0] for seen in along]),
    signature=self_bleu_signature(first["points"][0]["texts"][0]),
)

# %%
runs.save_figure(
    figures.entropy_and_reward(ppo),
    "entropy_and_reward",
    "Entropy against gold and against proxy reward, along every run.",
)
runs.say(
    "Entropy is lowest at {lowest:.2f} nats a token and {last:.2f} at the end (before: "
    "{first:.2f}), means over seeds.",
    lowest=np.mean([seen["entropy"].min() for seen in along]),
    last=np.mean([seen["entropy"][-1] for seen in along]),
    first=np.mean([seen["entropy"][0] for seen in along]),
)

# %% [markdown]
# ## 8 · Can temperature buy it back?
#
# A policy that says the same thing again and again can be made to say something else:
# sample at a higher temperature. What does that cost? Heating the *reference* costs
# gold too, so both are sampled at several temperatures: to the right there is more
# diversity, up is better. The policy is the one six updates into the run, near its
# best. Dotted is the reference as it is: along the one line diversity is equal, along
# the other gold.
#
# <details><summary>Predict: on which side of the reference's line does the policy's
# lie?</summary>
#
# Above it, if PPO has taught something that cooling the reference does not give; on it,
# if all that PPO did was to sharpen what was there.
# </details>

# %%
heated = {
    how: [
        analysis.temperature_curve(row, tokenizer)
        for row in rows["heated"]
        if row["how"] == how
    ]
    for how in ("policy", "reference")
}
runs.save_figure(
    figures.temperature(heated["policy"], heated["reference"]),
    "temperature",
    "Gold against diversity per input, sampled at several temperatures: the first "
    "policy and the one after PPO, near its best.",
)
at_one = {
    how: [next(r["gold"] for r in curve if r["temperature"] == 1) for curve in group]
    for how, group in heated.items()
}
both = list(zip(heated["policy"], heated["reference"]))
repairs = [analysis.restored(*pair) for pair in both]
left = [repair["gold"] - g for repair, g in zip(repairs, at_one["reference"])]
runs.record("restored_minus_sft_gold", np.mean(left), seeds=left)
values = np.subtract(at_one["policy"], at_one["reference"])
runs.record("unheated_minus_sft_gold", np.mean(values), seeds=list(values))
cooler = [analysis.cooled(*pair) for pair in both]
apart = [
    next(r["diversity"] for r in policy if r["temperature"] == 1) - cool["diversity"]
    for (policy, _), cool in zip(both, cooler)
]
runs.record("rlhf_minus_cooled_diversity", np.mean(apart), seeds=apart)
short = sum(
    max(r["diversity"] for r in policy)
    < next(r["diversity"] for r in reference if r["temperature"] == 1)
    for policy, reference in both
)
runs.say(
    "At temperature 1 the policy has {unheated_minus_sft_gold:+.2f} gold over the "
    "reference. Heated to {heat:.2f}, where it is at least as diverse as the reference "
    "is at 1{but}, {restored_minus_sft_gold:+.2f} is left. The other way round: cooled "
    "to {cool:.2f}, where it has the policy's gold or comes nearest to it, the "
    "reference's diversity is such that the policy's differs from it by "
    "{rlhf_minus_cooled_diversity:+.3f}.",
    but=f" (not reached by {short} of {len(both)}, which are heated as far as it goes)"
    if short
    else "",
    heat=np.mean([repair["temperature"] for repair in repairs]),
    cool=np.mean([cool["temperature"] for cool in cooler]),
)

# %% [markdown]
# **Does best of n lose diversity as well?** The picked replies to one request, each the
# best of four, against as many that nobody picked.

# %%
picked, plain = [], []
for s in run.seeds:
    pool = pools[settings.n_pairs, s]
    groups = settings.pool // 4
    chosen = [
        [
            texts[4 * g + int(np.argmax(scores[4 * g : 4 * g + 4]))]
            for g in range(groups)
        ]
        for texts, scores in zip(pool["texts"], pool["proxies"])
    ]
    unpicked = [texts[:groups] for texts in pool["texts"]]
    picked.append(analysis.diversity_of(chosen, tokenizer)["per_input"])
    plain.append(analysis.diversity_of(unpicked, tokenizer)["per_input"])
values = np.subtract(picked, plain)
runs.record("best_of_4_minus_reference_diversity", np.mean(values), seeds=list(values))
runs.say(
    "Best of four is {word} than as many replies that nobody picked: "
    "{best_of_4_minus_reference_diversity:+.3f} in adjusted distinct n-grams of "
    "{groups} replies a request, at {kl:.2f} nats or less.",
    word=reading(
        t_interval(values),
        "more diverse",
        "less diverse",
        "neither clearly more nor clearly less diverse",
    ),
    groups=settings.pool // 4,
    kl=math.log(4) - 3 / 4,
)

# %% [markdown]
# **Ask for several.** A large model can be asked for five different answers at once,
# each with a probability (*verbalised sampling*, Zhang et al., 2025), which undoes much
# of its collapse. What does ours say to that?

# %%
policy, _ = Chain(**chains[0]).policy()
asked = f"{requests[0]} Give five different answers, each with its probability."
[said] = complete(policy, tokenizer, [asked], cap(tokenizer, 64), 1.0, seed=seed)
runs.say("“{asked}” — “{reply}”", asked=asked, reply=said.text)

# %%
runs.say(
    "It {verdict}. Our policy has {size:.1f} million parameters, and nobody has shown "
    "it a list; the repair is one for models that know what is asked of them.",
    verdict="numbers its answers"
    if any(mark in said.text for mark in ("1.", "1)", "2."))
    else "makes no list of answers with probabilities",
    size=policy.num_parameters() / 1e6,
)

# %% [markdown]
# ## 9 · Verdicts
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
# *Change a setting:* end `at` at 6 updates. We would expect no fall, and most of the
# gain; a fall within them would surprise us.
