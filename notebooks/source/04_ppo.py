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
# # 04 · What is each piece of PPO for?
#
# A reward model says which replies people would prefer. *Proximal policy optimisation*
# (PPO) samples replies, asks for their reward, and makes the better ones likelier. We
# build it up from REINFORCE, one piece at a time, look at every number that it logs,
# and measure what the lectures say about it: that it raises reward near the reference,
# that each of its pieces matters, and that it is fragile.
#
# | | |
# | --- | --- |
# | **time** | `smoke` under 1 minute · `cpu` 4 minutes · `full` 35 minutes (two cores) |
# | **memory** | under 4 GB |
# | **you need** | notebook 03 (it runs alone: what is missing is built) |
# | **look at first** | the replies in section 1, the ladder in section 2 |
# | **sweeps worth trying** | `updates`, `betas`, `rates`; `run.settings` shows all dials |
# | **on Colab** | run the two set-up lines of the README in a first cell |

# %% tags=["parameters"]
profile = "cpu"  # smoke, cpu, full or gpu: how much to measure
seed = 0  # the first seed; the others follow it
device = "cpu"
out_dir = ""  # where metrics and figures go; empty: runs/interactive

# %%
import copy
import inspect

import numpy as np
import pandas as pd
import torch
from IPython.display import Markdown

from alignlab import runs
from alignlab.chapters.ppo import analysis, artifacts, figures
from alignlab.chapters.ppo.artifacts import BETA
from alignlab.chapters.ppo.runs import PENALISED, PIECES, run_all, time_each
from alignlab.course import check
from alignlab.evaluation.intervals import wilson_interval
from alignlab.models.base import use_device
from alignlab.models.sampler import complete
from alignlab.objectives import whiten
from alignlab.plots.style import use_style
from alignlab.ppo import PPOConfig, ppo_update
from alignlab.study import artifacts as study
from alignlab.training.ppo.rollout import predict
from alignlab.world import gold

use_style()
run = runs.start("04_ppo", profile, seed, device, out_dir)
use_device(device)
settings = run.settings
shared = dict(
    size=settings.size, steps=settings.steps, n_pairs=settings.n_pairs, k=settings.k
)
reference, tokenizer = study.reference_policy(
    settings.size, settings.steps, progress=True
)
reward_model, _ = study.reward_model(
    settings.n_pairs,
    k=settings.k,
    size=settings.size,
    steps=settings.steps,
    progress=True,
)

# %% [markdown]
# All runs of this notebook but those that are timed (in section 11) are made here, side
# by side; what was made before is read from the cache.

# %%
many = range(seed, seed + settings.many_seeds)
rows = run_all(
    seeds=run.seeds,
    many_seeds=many,
    piece_seeds=run.seeds[: settings.piece_seeds],
    few_seeds=run.seeds[: settings.few_seeds],
    dpo_seeds=range(seed, seed + settings.dpo_seeds),
    betas=settings.betas,
    rates=settings.rates,
    grid_betas=settings.grid_betas,
    updates=settings.updates,
    dpo_steps=settings.dpo_steps,
    n=settings.n,
    jobs=settings.jobs,
    **shared,
)
start = rows["start"]

# %% [markdown]
# ## 1 · A completion first
#
# The same requests, before PPO and after it. The subjects are from the test split: no
# comparison and no update was about them. Beside each reply stands what it is really
# worth (the *gold* reward, which PPO never sees) and what the reward model gives it.

# %%
recipe = dict(seed=seed, updates=settings.updates, kl_coef=BETA, **shared)
folder = artifacts.ppo_folder(**recipe)
after, _ = artifacts.load_policy_and_value(folder)
names = list(study.subjects("test")[:4])
replies = {
    "before": complete(
        reference, tokenizer, [gold.request(s) for s in names], 64, 1.0, seed=seed
    ),
    "after": complete(
        after.policy, tokenizer, [gold.request(s) for s in names], 64, 1.0, seed=seed
    ),
}
table_rows = [
    {
        "request": gold.request(name),
        "policy": when,
        "reply": replies[when][i].text,
        "gold": artifacts.gold_of([replies[when][i].text], [name])[0],
        "proxy reward": artifacts.proxy_of(
            reward_model, tokenizer, [name], [replies[when][i].text]
        )[0],
    }
    for i, name in enumerate(names)
    for when in replies
]
pd.DataFrame(table_rows).style.format(precision=2).set_properties(
    **{"white-space": "normal", "max-width": "30em", "text-align": "left"}
)

# %% [markdown]
# ## 2 · From REINFORCE to PPO
#
# What we want is the greatest expected reward at a price $\beta$ of distance to the
# reference:
#
# $$\max_\pi \; E_{y \sim \pi}[r(y)] - \beta \, \mathrm{KL}(\pi \,\|\, \pi_\text{ref})$$
#
# We cannot differentiate through sampling. **REINFORCE** needs not: it samples, and
# weighs the gradient of each token's log-probability by the reward that came,
# $\nabla E[r] = E[r \, \nabla \log \pi(y)]$. Everything else mends what is wrong with
# that:
#
# | piece | without it |
# | --- | --- |
# | **baseline**: subtract what was to be expected | every sampled reply is pushed up, good or bad, and the step size follows the scale of the reward |
# | **value function, GAE**: what to expect from each token on | a token is thanked for what others did |
# | **several epochs** on the same replies | most of the time goes into sampling; one step for each batch |
# | **clipping**: no token moves far in one update | several epochs walk off from what was sampled |
# | **KL penalty**: each nat away from the reference costs β | nothing ends the walk; the reward model is asked about what it has never seen |

# %%
runs.save_figure(
    figures.ladder(rows["ladder"]),
    "ladder",
    "From REINFORCE to PPO: gold reward, proxy reward and KL, a line for each rung.",
)
last = {
    row["rung"]: {
        "gold": np.mean(row["history"]["reward/gold"][-3:]),
        "proxy reward": np.mean(row["history"]["score"][-3:]),
        "KL": np.mean(row["history"]["kl_exact"][-3:]),
        "seconds": row["seconds"],
    }
    for row in rows["ladder"]
    if row["seed"] == seed
}
pd.DataFrame(last).T.rename_axis("mean of the last updates").style.format(precision=2)

# %% [markdown]
# ## 3 · How much better was this token than expected?
#
# The value function $V$ says what reward to expect from each token on. What a token
# brought beyond that is $\delta_t = r_t + \gamma V_{t+1} - V_t$; *generalised advantage
# estimation* sums it up, later ones less,
#
# $$A_t = \delta_t + \gamma\lambda A_{t+1}.$$
#
# $\lambda = 1$ trusts the reward that came (no bias, all of its noise), $\lambda = 0$
# trusts the value function alone.
#
# **Exercise 04.1.** Write it. A row is over after its last real token: the value there
# is 0, and whatever the padding holds must not matter.


# %% nbgrader={"grade": false, "grade_id": "nb04-q1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_gae(rewards, values, mask, gamma, lam):
    """(B, T) each, mask 1 on real tokens, to advantages (B, T)."""
    ### BEGIN SOLUTION
    values = values * mask
    advantages = torch.zeros_like(rewards)
    advantage = following = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        delta = rewards[:, t] + gamma * following - values[:, t]
        advantage = (delta + gamma * lam * advantage) * mask[:, t]
        following = values[:, t]
        advantages[:, t] = advantage
    return advantages
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb04-q1-check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check("04.1", my_gae)

# %% [markdown]
# ## 4 · No token moves far in one update
#
# Several epochs on the same replies use them better, but after the first step they are
# replies of a policy that is no more. The ratio $\rho = \pi(a) / \pi_\text{old}(a)$
# corrects for that, and clipping takes a token out that has moved far enough:
#
# $$L = -\operatorname{mean} \; \min\big(\rho A,\;
# \mathrm{clip}(\rho, 1-\epsilon, 1+\epsilon)\, A\big)$$

# %%
runs.save_figure(
    figures.clipping(),
    "clipping",
    "The clipped objective: flat where a token has moved far enough the right way, and "
    "as steep as ever where it went the wrong way.",
)

# %% [markdown]
# **Exercise 04.2.** Write the loss: the mean over real tokens.


# %% nbgrader={"grade": false, "grade_id": "nb04-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_ppo_loss(log_probs, old_log_probs, advantages, mask, clip_range):
    """(B, T) each, mask 1 on real tokens, to one number."""
    ### BEGIN SOLUTION
    ratio = (log_probs - old_log_probs).exp()
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range)
    objective = torch.minimum(ratio * advantages, clipped * advantages)
    return -(objective * mask).sum() / mask.sum()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb04-q2-check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check("04.2", my_ppo_loss)

# %% [markdown]
# ## 5 · How far from the reference?
#
# With $d = \log\pi - \log\pi_\text{ref}$ of a token that the *policy* drew, three
# estimators of KL are in use: $k_1 = d$, $k_2 = d^2/2$, and $k_3 = e^{-d} - 1 + d$, which
# is unbiased like the first and never negative like the second.
#
# **Exercise 04.3.** Write the third.


# %% nbgrader={"grade": false, "grade_id": "nb04-q3", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_kl_estimate(log_probs, ref_log_probs):
    """k3 at each token: of KL(policy || reference), drawn from the policy."""
    ### BEGIN SOLUTION
    d = log_probs - ref_log_probs
    return torch.exp(-d) - 1 + d
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb04-q3-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("04.3", my_kl_estimate)

# %% [markdown]
# A good estimate of a *number* need not have the right *gradient*. Here is what each
# does, in the reward or in the loss, against the gradient of the KL itself, computed
# exactly over six choices. `PPOConfig` refuses the wrong ones.

# %%
pd.DataFrame(analysis.kl_gradients(seed)).style.format(
    precision=3, na_rep="no direction"
)

# %% [markdown]
# ## 6 · One update, by hand
#
# One reply of the policy from section 1, with its own value function. What you wrote
# above is all it takes.

# %%
episode, tokens = analysis.sample_reply(
    after, reference, tokenizer, gold.request(names[0]), seed=seed
)
text = tokenizer.decode(episode.completion_ids()[0], skip_special_tokens=True).strip()
[reward] = artifacts.proxy_of(reward_model, tokenizer, [names[0]], [text])

log_ratio = episode.old_log_probs - episode.ref_log_probs
rewards = -BETA * log_ratio  # every token pays for leaving the reference
rewards[:, -1] += reward  # and the last one earns what the reply is worth
mask = episode.mask.float()
advantages = my_gae(rewards, episode.values, mask, gamma=1.0, lam=0.95)
advantages = whiten(advantages, mask)  # mean 0, variance 1; else over a whole batch

learner = copy.deepcopy(after)
optimizer = torch.optim.Adam(learner.policy.parameters(), lr=1e-4)
for _ in range(4):
    log_probs, values, _ = predict(learner, episode)
    loss = my_ppo_loss(log_probs, episode.old_log_probs, advantages, mask, 0.2)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
with torch.no_grad():
    log_probs, _, _ = predict(learner, episode)

table = figures.token_table(
    tokens,
    log_ratio=log_ratio,
    kl=episode.exact_kl,
    reward=rewards,
    value=episode.values,
    advantage=advantages,
    ratio=(log_probs - episode.old_log_probs).exp(),
)
runs.save_figure(
    figures.rollout(table),
    "rollout",
    "One reply, token by token: log-ratio and KL to the reference, value, advantage, "
    "and the ratio after four steps on this reply alone.",
)
runs.say(
    "The reply “{text}” has a proxy reward of {reward:+.2f} and is {kl:.2f} nats from "
    "the reference (k1 says {k1:.2f}, k3 {k3:.2f}).",
    text=text,
    reward=reward,
    kl=episode.exact_kl.sum().item(),
    k1=log_ratio.sum().item(),
    k3=my_kl_estimate(episode.old_log_probs, episode.ref_log_probs).sum().item(),
)

# %% [markdown]
# Step through it:

# %%
figures.rollout_explorer(table)

# %%
Markdown(f"```python\n{inspect.getsource(ppo_update)}```")

# %% [markdown]
# This is the function that `PPOTrainer` calls for each update, and so what every PPO
# run of this notebook is trained with. Here it is called on the reply above:

# %%
episode.rewards = rewards
learner = copy.deepcopy(after)
optimizer = torch.optim.Adam(learner.parameters(), lr=1e-4)
config = PPOConfig(lam=0.95, use_cpu=device == "cpu")
steps = ppo_update(learner, optimizer, episode, config)
pd.DataFrame(steps).style.format(precision=4)

# %% [markdown]
# A row for each step of the optimizer. In the first the ratio is 1 and no token is
# clipped: the policy is still the one that sampled the reply.

# %% [markdown]
# ## 7 · Is it healthy?
#
# Everything that is worth watching, along a run with the default configuration and
# along a sick one (ten times the learning rate, no clipping, no penalty). What to look
# for:
#
# * **KL** should rise a little with each update, and slow down where a price holds it; a
#   leap is a bad sign. **Entropy** should sink slowly: a fall towards 0 is collapse, a
#   rise says that the policy is falling apart.
# * **KL of one update** and the **share clipped** should stay small, and the **mean
#   ratio** near 1. (In the sick run nothing is clipped, as it has no clipping.)
# * **Explained variance** is 1 for a value function that knows every return, 0 for one
#   that knows their mean at best, and below 0 for one that is worse than that. Below we
#   also measure what a value head could know: how much of a reply's reward can be read
#   off the policy's states while it writes.
# * **Gold**, which one never has: where it falls while the learnt reward rises, the
#   reward model is being exploited. Notebook 06 is about that.

# %%
healthy = [row for row in rows["default"] if row["seed"] == seed]
runs.save_figure(
    figures.diagnostics({"healthy": healthy, "sick": rows["sick"][:1]}),
    "diagnostics",
    "All diagnostics along a healthy run and a sick one.",
)
explained = [np.mean(r["history"]["explained_variance"][-3:]) for r in rows["default"]]
runs.record("explained_variance", np.nanmean(explained))
clipped = [np.mean(r["history"]["clip_fraction"]) for r in rows["default"]]
runs.record("clip_fraction", np.mean(clipped), seeds=clipped)
runs.record("readable_share", analysis.readable_share(**shared))
runs.say(
    "With the default configuration {clip_fraction.value:.1%} of tokens are clipped, "
    "and at the end the value function explains {explained_variance.value:.2f} of the "
    "returns' variance. The best linear function of the reference policy's states, "
    "fitted on replies about the same subjects, explains {readable_share.value:.2f} of "
    "the reward's; a head that is learnt along the way has that to find."
)

# %% [markdown]
# ## 8 · Reward against distance: the price β
#
# The same run at several prices of KL. At β = 0, the control, nothing holds it.

# %%
runs.save_figure(
    figures.sweep(rows["sweep"], start),
    "beta",
    "Exact KL along runs at several prices β; gold and proxy reward gained on unseen "
    "subjects (dots: seeds).",
)
at = {b: [r for r in rows["sweep"] if r["beta"] == b] for b in settings.betas}
gains = {name: analysis.gain(at[PENALISED], start, name) for name in ("gold", "proxy")}
for name, values in gains.items():
    runs.record(f"ppo_{name}_gain", values.mean(), seeds=values, n=settings.n * 60)
kl = {beta: np.array([row["kl"] for row in group]) for beta, group in at.items()}
runs.record("ppo_kl", kl[PENALISED].mean(), seeds=kl[PENALISED], unit="nats")
ratio = kl[BETA] / kl[max(settings.betas)]
runs.record("kl_weak_over_strong_penalty", ratio.mean(), seeds=ratio)
further = kl[0.0] - kl[PENALISED]
runs.record(
    "unpenalised_minus_penalised_kl", further.mean(), seeds=further, unit="nats"
)
growing = [analysis.late_growth(row["history"]["kl_exact"]) for row in at[0.0]]
runs.record("unpenalised_kl_growth", np.mean(growing), seeds=growing, unit="nats")
runs.say(
    "At β = {beta}: gold {ppo_gold_gain:+.2f}, proxy reward {ppo_proxy_gain:+.2f}, at "
    "{ppo_kl:.1f} nats. Without a penalty the policy ends "
    "{unpenalised_minus_penalised_kl:+.1f} nats further, and moves by "
    "{unpenalised_kl_growth:+.1f} nats in the last third of the run.",
    beta=PENALISED,
)

# %% [markdown]
# ## 9 · Why train at all? Best of n
#
# One can also sample $n$ replies and take the one that the reward model likes best. Its
# KL is at most $\log n - (n-1)/n$, so both can be held against the same axis. Best-of-n
# trains nothing, and pays for it with every reply.

# %%
ns = [n for n in (1, 2, 4, 8, 16) if n <= settings.k]
best = analysis.reference_best_of_n(ns, **shared)
runs.save_figure(
    figures.frontier(rows["sweep"], best, start),
    "best_of_n",
    "Gold and proxy reward against KL: best-of-n of the reference's replies, and the "
    "ends of PPO runs. The grey line is the reference policy.",
)
runs.record("best_of_n_gold_gain", best[-1]["gold"] - best[0]["gold"])
runs.say(
    "Best of {n} gains {best_of_n_gold_gain:+.2f} in gold at {kl:.1f} nats or less.",
    n=best[-1]["n"],
    kl=best[-1]["kl"],
)

# %% [markdown]
# ## 10 · Does each piece matter?
#
# The default configuration with one piece taken out, everything else the same. Further
# from the reference there is more reward to be had, so the comparison is *at matched
# KL*: the mean gold along the path, over the range of KL that both runs of a seed reach.
# Beside it what the replies of the last updates are like, after equally many.

# %%
intact = [r for r in rows["default"] if r["seed"] in run.seeds[: settings.piece_seeds]]
removed = {name: [r for r in rows["pieces"] if r["without"] == name] for name in PIECES}
lost = {
    name: analysis.lost_at_matched_kl(intact, group) for name, group in removed.items()
}
for name, values in lost.items():
    runs.record(f"gold_lost_without_{name}", values.mean(), seeds=values)
names_of = {"gae": "GAE (λ = 1)", "value": "the value function"}
runs.save_figure(
    figures.pieces({names_of.get(n, n): v for n, v in lost.items()}, threshold=0.1),
    "pieces",
    "Gold lost at matched KL without clipping, GAE, whitening or the value function.",
)
pd.DataFrame(
    {
        name: {
            "gold": np.mean([r["history"]["reward/gold"][-3:] for r in group]),
            "proxy reward": np.mean([r["history"]["score"][-3:] for r in group]),
            "KL": np.mean([r["history"]["kl_exact"][-3:] for r in group]),
            "share clipped": np.mean([r["history"]["clip_fraction"] for r in group]),
            "KL of one update": np.mean([r["history"]["approx_kl"] for r in group]),
        }
        for name, group in ({"PPO as it is": intact} | removed).items()
    }
).T.rename_axis("without, at the last updates").style.format(precision=3)

# %%
for name in lost:
    runs.say(
        f"Without {{piece}}, {{gold_lost_without_{name}:+.2f}} in gold is lost at "
        "matched KL.",
        piece=names_of.get(name, name),
    )

# %% [markdown]
# ## 11 · Is it fragile?
#
# What counts as a failure was written down before any run: less gold on unseen subjects
# at the end than at the start, more than 15 nats from the reference, or a number that
# is not finite. First the default configuration over many seeds, which goes over an
# update's replies twice, and the same with four epochs, as TRL had it. Then a small grid
# of learning rate and β; and DPO over the same grid, on the comparisons that the reward
# model was learnt from.

# %%
by_setting = {}
for method in ("grid", "dpo"):
    for rate in settings.rates:
        for beta in settings.grid_betas:
            group = [r for r in rows[method] if (r["rate"], r["beta"]) == (rate, beta)]
            label = f"{'PPO' if method == 'grid' else 'DPO'}  lr {rate:g}  β {beta:g}"
            by_setting[label] = group
usual = {"PPO, default": rows["default"], "PPO, four epochs": rows["eager"]}
runs.save_figure(
    figures.failures(
        {
            label: [
                (
                    0.0 if row["stopped"] else analysis.gain([row], start, "gold")[0],
                    analysis.failed(row, start),
                )
                for row in group
            ]
            for label, group in (usual | by_setting).items()
        },
        "gold gained on unseen subjects",
    ),
    "failures",
    "The end of every run by setting; crosses have failed.",
)

# %%
flags = [float(analysis.failed(row, start)) for row in rows["default"]]
interval = wilson_interval(int(sum(flags)), len(flags))
runs.record("ppo_failure_rate", *interval, seeds=flags)
rates, spreads = (
    [function(rows[method], start) for method in ("grid", "dpo")]
    for function in (analysis.failure_rates, analysis.gold_spreads)
)
for name, (ppo_by, dpo_by) in {
    "ppo_minus_dpo_failure_rate": rates,
    "ppo_minus_dpo_gold_spread": spreads,
}.items():
    values = [ppo_by[s] - dpo_by[s] for s in run.seeds]
    runs.record(name, np.mean(values), seeds=values)
runs.say(
    "With the default configuration {failures:.0f} of {count} runs fail, with four "
    "epochs {eager} of {eager_count}. On the grid "
    "PPO fails in {ppo:.0%} and DPO in {dpo:.0%} of runs; best and worst setting "
    "differ by {wide:.2f} gold for PPO and {narrow:.2f} for DPO.",
    failures=sum(flags),
    count=len(flags),
    eager=sum(analysis.failed(row, start) for row in rows["eager"]),
    eager_count=len(rows["eager"]),
    ppo=np.mean(list(rates[0].values())),
    dpo=np.mean(list(rates[1].values())),
    wide=np.mean(list(spreads[0].values())),
    narrow=np.mean(list(spreads[1].values())),
)

# %% [markdown]
# What it takes to learn, on this machine, with each running alone and on one thread:

# %%
seconds = time_each(
    run.seeds[: settings.timed_seeds], dpo_steps=settings.dpo_steps, **shared
)
ppo_seconds, dpo_seconds = (
    analysis.seconds_per_completion(seconds[method]) for method in ("PPO", "DPO")
)
values = [ppo_seconds[s] / dpo_seconds[s] for s in ppo_seconds]
runs.record("ppo_over_dpo_seconds", np.mean(values), seeds=values)
costs = analysis.costs(seconds, after, reference, reward_model)
pd.DataFrame(costs).set_index("method").style.format(precision=1)

# %%
runs.say(
    "A completion takes PPO {ppo_over_dpo_seconds:.1f} times as long to learn from as "
    "it takes DPO: it has to be written first, and read by two more models."
)

# %% [markdown]
# ## 12 · Verdicts
#
# Thresholds were fixed before measuring. Where this profile has too few seeds for a
# verdict, it says so; `alignlab run 04 --profile full` has enough.

# %%
runs.show_verdicts()

# %% [markdown]
# ## What the big labs do that we left out
#
# * **Generation on other machines** than training, with engines such as vLLM, and
#   corrections for replies that come from a policy some updates old.
# * **Reward models of the policy's size or larger**, ensembles of them, new comparisons
#   of the policy's own replies every few thousand updates, rewards for safety and for
#   facts beside the preference.
# * **A value function of its own trunk**, started from the reward model
#   (`value_model="reward model"` does it here), and pretraining gradients mixed in
#   (PPO-ptx).
# * **No value function at all**: RLOO and GRPO compare several replies to one prompt
#   instead. Many moved to those; the ladder of section 2 shows where they stand.
#
# *Turn a dial:* set `RECIPE["lr_scheduler_type"]` or `learning_rate` and look at
# section 7 first. We would expect a higher rate to gain faster and to fail at some
# seeds; no failure at ten times the rate would surprise us.
