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
# # 05 · Can a policy learn from comparisons without a reward model?
#
# PPO needs a reward model, a value function, and replies written afresh at every
# update. *Direct preference optimisation* (DPO) needs the comparisons and one policy. It
# claims the same optimum. We derive it, with every step executed on a model so small
# that nothing has to be believed; look at what it does to the replies that were chosen
# and rejected; and hold it and its family against PPO, at equal distance from where
# they began.
#
# | | |
# | --- | --- |
# | **time** | `smoke` under 1 minute · `cpu` 4½ minutes · `full` 90 minutes (two cores) |
# | **memory** | under 4 GB |
# | **you need** | notebooks 03 and 04 (it runs alone: what is missing is built) |
# | **look at first** | the replies in section 1, the log-ratios in section 4 |
# | **sweeps worth trying** | `n_used`, `close_passes`, `flips`; `run.settings` has all |
# | **on Colab** | run the two set-up lines of the README in a first cell |

# %% tags=["parameters"]
profile = "cpu"  # smoke, cpu, full or gpu: how much to measure
seed = 0  # the first seed; the others follow it
device = "cpu"
out_dir = ""  # where metrics and figures go; empty: runs/interactive

# %%
import copy

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from alignlab import runs
from alignlab.chapters.dpo import analysis, figures, laboratory
from alignlab.chapters.dpo import runs as arms
from alignlab.chapters.ppo.artifacts import gold_of
from alignlab.course import check
from alignlab.evaluation import exact
from alignlab.models.base import use_device
from alignlab.models.sampler import complete
from alignlab.plots.style import use_style
from alignlab.seeds import stream
from alignlab.study import artifacts
from alignlab.training.dpo import train_dpo
from alignlab.training.trl_parity import compare_dpo_losses
from alignlab.world import gold

use_style()
run = runs.start("05_dpo", profile, seed, device, out_dir)
use_device(device)
settings = run.settings
policy_of = dict(size=settings.size, steps=settings.steps)
made = dict(n_pairs=settings.n_pairs, k=settings.k, **policy_of)
reference, tokenizer = artifacts.reference_policy(**policy_of, progress=True)
replies = artifacts.candidates("train", settings.k, **policy_of, progress=True)
pairs = artifacts.comparisons(replies, settings.n_pairs)

# %% [markdown]
# ## 1 · A completion first
#
# A comparison, as the reward model of notebook 03 learnt from them: the policy's own
# replies, and a label that is wrong in one case of four.

# %%
pair = pairs[0]
pd.Series({side: pair[side] for side in ("prompt", "chosen", "rejected")}).to_frame(
    "a comparison"
).style.set_properties(**{"white-space": "normal", "text-align": "left"})

# %% [markdown]
# Here is all that it takes to learn from them. No reward model, no sampling:

# %%
policy = copy.deepcopy(reference)
history = train_dpo(
    policy,
    tokenizer,
    pairs[: settings.n_used],
    beta=arms.BETA,
    steps=max(1, settings.n_used // arms.BATCH),
    batch_size=arms.BATCH,
    learning_rate=arms.RATE[settings.size],
    seed=seed,
)
names = list(artifacts.subjects("test")[:3])
sampled = {
    when: complete(
        model, tokenizer, [gold.request(name) for name in names], 64, 1.0, seed=seed
    )
    for when, model in (("before", reference), ("after", policy))
}
pd.DataFrame(
    {
        "request": gold.request(name),
        "policy": when,
        "reply": sampled[when][i].text,
        "gold": gold_of([sampled[when][i].text], [name])[0],
    }
    for i, name in enumerate(names)
    for when in sampled
).style.format(precision=2).set_properties(
    **{"white-space": "normal", "max-width": "34em", "text-align": "left"}
)

# %% [markdown]
# ## 2 · The derivation, executed
#
# In four steps, each of them checked on an *exact laboratory*: a real transformer over
# four words that replies with at most two tokens. It can say 21 things, so that
# a policy is a list of 21 numbers, and nothing below is sampled or estimated.

# %%
lab = laboratory.laboratory(seed)
start = lab.policy()  # the reference: the probability of every reply
texts = [lab.tokenizer.decode(c).replace("<|end|>", "·") for c in lab.completions]
beta, reward = lab.beta, lab.reward
pd.DataFrame({"reply": texts, "probability": start, "reward": reward}).head(
    6
).style.format(precision=3)

# %% [markdown]
# **Step 1: the best policy has a closed form.** Both methods want much reward at a price
# of distance, $\max_\pi E_\pi[r] - \beta\,\mathrm{KL}(\pi \| \pi_\text{ref})$. Put
# $\pi^* = \pi_\text{ref}\, e^{r/\beta} / Z$, with $Z$ whatever makes it sum to 1; then
#
# $$E_\pi[r] - \beta\,\mathrm{KL}(\pi \| \pi_\text{ref})
# = \beta \log Z - \beta\,\mathrm{KL}(\pi \| \pi^*),$$
#
# and a KL divergence is least, zero, where the two are the same.
#
# **Exercise 05.1.** Write the optimum. Rewards may be hundreds of $\beta$.


# %% nbgrader={"grade": false, "grade_id": "nb05-q1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_optimum(reference, reward, beta):
    """(K,) probabilities and (K,) rewards to (K,) probabilities."""
    ### BEGIN SOLUTION
    return (reference.log() + reward / beta).softmax(dim=-1)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb05-q1-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("05.1", my_optimum)

# %%
best = my_optimum(start.double(), reward, beta)
log_z = exact.log_partition(start, reward, beta)
rng = stream(seed, "pairs for TRL")
others = torch.tensor(rng.dirichlet(np.ones(len(reward)), size=10_000))
others = torch.cat([others, 0.9 * best + 0.1 * others])  # far from it, and near
sides = (
    exact.regularised_reward(others, start, reward, beta),
    beta * log_z - beta * exact.kl(others, best),
)
runs.say(
    "Both sides of the equation, for {count:,} policies, differ by {gap:.0e} at most. "
    "The best of these has {most:.4f}; the closed form has β log Z = {bound:.4f}.",
    count=len(others),
    gap=(sides[0] - sides[1]).abs().max().item(),
    most=sides[0].max().item(),
    bound=beta * log_z.item(),
)

# %% [markdown]
# **Step 2: read the reward back from the policy.** Solve for $r$:
# $r = \beta \log(\pi^*/\pi_\text{ref}) + \beta \log Z$. A policy *is* a reward, but
# for a constant.
#
# **Step 3: put that into Bradley and Terry's model.** It sees differences of rewards,
# so the constant goes:
#
# $$P(1 \succ 2) = \sigma(r_1 - r_2) = \sigma\Big(\beta \log
# \frac{\pi^*(1)}{\pi_\text{ref}(1)} - \beta \log
# \frac{\pi^*(2)}{\pi_\text{ref}(2)}\Big)$$
#
# $Z$, a sum over everything that could be said, is the reason why nobody can compute
# $\pi^*$ for a language model. It is gone.

# %%
implicit = beta * (best.log() - start.double().log())
with_z = implicit + beta * log_z
preferred = exact.bradley_terry(reward), exact.bradley_terry(implicit)
runs.say(
    "With β log Z = {constant:+.3f} added, rewards come back to {back:.0e}; without "
    "it, the probabilities of all {count} comparisons do, to {same:.0e}.",
    constant=beta * log_z.item(),
    back=(with_z - reward).abs().max().item(),
    count=preferred[0].numel(),
    same=(preferred[0] - preferred[1]).abs().max().item(),
)

# %% [markdown]
# **Step 4: fit the policy to the comparisons as one would fit a reward model.** With
# $h$, the *margin*, the loss of a pair is
#
# $$L = -\log \sigma(\beta h), \qquad
# h = \log\frac{\pi(y^+)}{\pi_\text{ref}(y^+)}
# - \log\frac{\pi(y^-)}{\pi_\text{ref}(y^-)}$$
#
# **Exercise 05.2.** Write it: the mean over pairs. The log-probabilities are of whole
# replies, and it must stay finite where $h$ is -900.


# %% nbgrader={"grade": false, "grade_id": "nb05-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_dpo_loss(policy_chosen, policy_rejected, ref_chosen, ref_rejected, beta):
    """(N,) log-probabilities each, to one number: nats per pair."""
    ### BEGIN SOLUTION
    margin = (policy_chosen - ref_chosen) - (policy_rejected - ref_rejected)
    return -F.logsigmoid(beta * margin).mean()
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb05-q2-check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check("05.2", my_dpo_loss)

# %% [markdown]
# Does gradient descent get there? The transformer learns by DPO from unlimited
# comparisons, in which every pair comes as often as Bradley and Terry say; and by PPO,
# which samples replies and is told their reward. Distance to the optimum is *total
# variation*: the largest difference in the probability of any set of replies.

# %%
solved = laboratory.sweep(
    seeds=run.seeds,
    dpo_updates=settings.lab_dpo,
    ppo_updates=settings.lab_ppo,
    jobs=settings.jobs,
)
reached = {
    name: [analysis.against_optimum(row, beta) for row in rows]
    for name, rows in solved.items()
}
shown = solved["DPO"][0]
runs.save_figure(
    figures.optimum(
        {
            "reference": shown["reference"],
            "exact optimum": shown["optimum"],
            "after DPO": shown["policy"],
            "after PPO": solved["PPO"][0]["policy"],
        },
        shown["reward"],
        reached["DPO"][0]["implicit"],
        texts,
    ),
    "optimum",
    "All replies of the laboratory's transformer before and after DPO and PPO, with "
    "the exact optimum; and the reward read back from the policy (first seed).",
)
for name, key, values in (
    ("dpo_total_variation", "variation", reached["DPO"]),
    ("ppo_total_variation", "variation", reached["PPO"]),
    ("implicit_reward_correlation", "correlation", reached["DPO"]),
    ("untrained_total_variation", "before", reached["DPO"]),
):
    values = [value[key] for value in values]
    runs.record(name, np.mean(values), seeds=values)
runs.say(
    "Total variation to the optimum: {untrained_total_variation.value:.3f} before, "
    "{dpo_total_variation.value:.4f} after DPO, {ppo_total_variation.value:.4f} after "
    "PPO. Correlation of DPO's reward with the true one: "
    "{implicit_reward_correlation.value:.4f}."
)

# %% [markdown]
# **When preferences are certain**, the reward that explains them is infinite, and DPO
# follows it: of three replies, of which the first always beats the second and both the
# third, all but one vanish. *IPO* asks for a margin of $1/(2\beta)$ and no more.

# %%
certain = [[0.5, 1.0, 1.0], [0.0, 0.5, 1.0], [0.0, 0.0, 0.5]]
uniform = torch.full((3,), 1 / 3, dtype=torch.float64)
fitted = {
    loss: exact.fit_policy(
        lambda log_probs, loss=loss: exact.expected_dpo_loss(
            log_probs, uniform.log(), certain, 0.1, loss
        ),
        uniform,
    )
    for loss in ("sigmoid", "ipo")
}
expected = exact.ipo_optimum(uniform, certain, 0.1)
runs.record("ipo_bandit_error", (fitted["ipo"] - expected).abs().max())
pd.DataFrame(
    {"DPO": fitted["sigmoid"], "IPO": fitted["ipo"], "IPO, closed form": expected},
    index=["first", "second", "third"],
).T.style.format(precision=4)

# %% [markdown]
# ## 3 · What does the gradient do?
#
# $$-\nabla L = \beta\, \sigma(-\beta h)\, \big[\nabla \log \pi(y^+) -
# \nabla \log \pi(y^-)\big]$$
#
# Up with the chosen, down with the rejected, and a weight: $\sigma(-\beta h)$ is how
# probable the policy finds the *other* order. A pair that is in order by far is left
# alone.
#
# **Exercise 05.3.** Write what multiplies the bracket.


# %% nbgrader={"grade": false, "grade_id": "nb05-q3", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_weight(margin, beta):
    """(N,) margins in nats to (N,) weights."""
    ### BEGIN SOLUTION
    return beta * torch.sigmoid(-beta * margin)
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb05-q3-check", "locked": true, "points": 1, "schema_version": 3, "solution": false, "task": false}
check("05.3", my_weight)

# %%
runs.save_figure(
    figures.loss_and_gradient(arms.BETA, margin=5.0),
    "loss",
    "Losses of a pair and how hard each pulls on its margin, relative to its pull at "
    "margin 0. DPO and hinge let go, IPO turns back, the unweighted loss never does.",
)

# %% [markdown]
# Turn both dials:

# %%
figures.margin_explorer()

# %% [markdown]
# Now measured. Runs at β = 0.1 go over a few comparisons several times; at the end,
# every pair about unseen subjects gets a gradient of its own. Left: its length over
# that of the bracket. Right: which pairs pull most. Beside DPO runs a control *without
# the weight*, whose loss is $-\beta h$.

# %%
close = arms.close_sweep(
    seeds=run.seeds,
    follow=settings.follow,
    n_used=settings.close_used,
    passes=settings.close_passes,
    n=settings.n,
    jobs=settings.jobs,
    **made,
)
runs.save_figure(
    figures.gradients(close["DPO"], arms.BETA),
    "gradients",
    "Every held-out pair's gradient after DPO: its weight as measured against "
    "σ(-β margin), and its length (marks: seeds).",
)
weighed = [analysis.gradient_summary(r["gradients"], arms.BETA) for r in close["DPO"]]
for name, key in (
    ("gradient_weight_error", "error"),
    ("gradient_weight_rank_correlation", "rank_correlation"),
):
    values = [summary[key] for summary in weighed]
    runs.record(name, np.mean(values), seeds=values, n=settings.follow)
runs.say(
    "The weight is off by {gradient_weight_error.value:.1e} at most. It decides who "
    "pulls most with a rank correlation of {gradient_weight_rank_correlation:.2f}; the "
    "rest is the bracket, which is longer for some pairs than for others."
)

# %% [markdown]
# ## 4 · Do chosen replies become likelier?
#
# "It raises the chosen and lowers the rejected" is how DPO is mostly told. Here are
# both, against the reference:

# %%
runs.save_figure(
    figures.log_ratios(close),
    "log_ratios",
    "Mean log-ratios of chosen and rejected replies along runs with and without the "
    "weight, on pairs learnt from and on unseen ones (thin lines: seeds).",
)
last = [row["log_ratios"] for row in close["DPO"]]
for side in ("chosen", "rejected"):
    values = [look[f"held_out/{side}"][-1] for look in last]
    runs.record(
        f"held_out_{side}_log_prob_change", np.mean(values), seeds=values, unit="nats"
    )
    values = [look[f"train/{side}"][-1] for look in last]
    runs.record(f"train_{side}_log_prob_change", np.mean(values), seeds=values)
accuracies = [look["held_out/accuracy"][-1] for look in last]
runs.record("held_out_margin_accuracy", np.mean(accuracies), seeds=accuracies)
runs.say(
    "At the end, on unseen pairs, a chosen reply's log-probability has changed by "
    "{held_out_chosen_log_prob_change:+.2f} nats and a rejected one's by "
    "{held_out_rejected_log_prob_change:+.2f}; on the pairs learnt from by "
    "{train_chosen_log_prob_change:+.2f} and {train_rejected_log_prob_change:+.2f}. "
    "The margin agrees with {held_out_margin_accuracy:.2f} of unseen labels, of which "
    "about a quarter are wrong."
)

# %% [markdown]
# Nothing in the loss holds the chosen ones up. Chosen and rejected are both replies *of
# the reference*, and over everything that the reference says, the mean of
# $\log(\pi/\pi_\text{ref})$ is $-\mathrm{KL}(\pi_\text{ref} \| \pi)$, which is never
# above zero: a policy that moves anywhere takes probability from what the reference
# said. So chosen replies rise only as long as half of the margin, on average, is more
# than that. In the laboratory, exactly:

# %%
after = torch.tensor(shown["policy"], dtype=torch.float64)
log_ratio = after.log() - torch.tensor(shown["reference"], dtype=torch.float64).log()
ref = torch.tensor(shown["reference"], dtype=torch.float64)
runs.say(
    "Mean log-ratio of the reference's replies {mean:+.4f}; minus KL(π_ref ‖ π) "
    "{minus_kl:+.4f}.",
    mean=(ref * log_ratio).sum().item() / ref.sum().item(),
    minus_kl=-exact.kl(ref, after).item(),
)

# %% [markdown]
# And the control, whose loss never has enough:

# %%
gold_at_end = {
    name: {row["seed"]: row["gold"] for row in rows if not row["stopped"]}
    for name, rows in close.items()
}
values = analysis.difference(gold_at_end["unweighted"], gold_at_end["DPO"])
runs.record("unweighted_minus_dpo_gold", np.mean(values), seeds=values)
runs.say(
    "Without the weight the policy ends {unweighted_minus_dpo_gold:+.2f} in gold from "
    "where DPO does, {far:.1f} nats from the reference instead of {near:.1f}.",
    far=np.mean([row["kl"] for row in close["unweighted"] if not row["stopped"]]),
    near=np.mean([row["kl"] for row in close["DPO"]]),
)

# %% [markdown]
# ## 5 · What does β do?
#
# In the closed form β is a price of KL. All runs of sections 5, 7 and 8 are made here:
# each loss of the family at four strengths, once over the same comparisons, at the same
# rate.

# %%
rows = arms.frontier_sweep(
    seeds=run.seeds,
    family_seeds=run.seeds[: settings.family_seeds],
    gold_seeds=run.seeds[: settings.family_seeds],
    betas=settings.betas,
    gold_betas=settings.gold_betas,
    strengths=settings.strengths,
    ns=[n for n in (2, 4, 8, 16) if n <= settings.k],
    updates=settings.updates,
    n_used=settings.n_used,
    n=settings.n,
    jobs=settings.jobs,
    **made,
)
begun = rows["start"]
runs.save_figure(
    figures.strengths(rows["DPO"], begun),
    "beta",
    "KL and gold gained at the end of DPO runs against β (a line for each seed).",
)
betas = arms.FAMILY["DPO"].strengths
kl = {b: [r["kl"] for r in rows["DPO"] if r["beta"] == b] for b in betas}
values = np.divide(kl[min(betas)], kl[max(betas)])
runs.record("dpo_kl_weak_over_strong_beta", values.mean(), seeds=values)
runs.say(
    "At β = {weak} a policy ends {dpo_kl_weak_over_strong_beta:.1f} times as far from "
    "the reference as at β = {strong}, after as many updates.",
    weak=min(betas),
    strong=max(betas),
)

# %% [markdown]
# ## 6 · Wrong labels
#
# A loss that takes every label at its word learns the wrong ones as well, if it sees
# them often enough. *cDPO* expects a share of wrong ones and stops at a finite margin;
# *robust* DPO is DPO on the right labels in expectation; IPO bounds the margin anyway.
# The first two are told the true share.

# %%
noisy = arms.noise_sweep(
    seeds=run.seeds[: settings.noise_seeds],
    flips=settings.flips,
    n_used=settings.noise_used,
    passes=settings.noise_passes,
    n=settings.n,
    jobs=settings.jobs,
    **made,
)
runs.save_figure(
    figures.noise(noisy, begun),
    "noise",
    "Gold gained and KL after several passes over comparisons, against the share of "
    "wrong labels (dots: seeds).",
)
worst = max(settings.flips)
at_worst = {
    name: {
        row["seed"]: row["gold"]
        for row in group
        if row["flips"] == worst and not row["stopped"]
    }
    for name, group in noisy.items()
}
for name in ("cDPO", "robust", "IPO"):
    values = analysis.difference(at_worst[name], at_worst["DPO"])
    runs.record(f"noisy_{name}_minus_dpo_gold", np.mean(values), seeds=values)
runs.say(
    "With {worst:.0%} of the labels wrong, and against plain DPO: cDPO "
    "{noisy_cDPO_minus_dpo_gold:+.2f}, robust {noisy_robust_minus_dpo_gold:+.2f}, IPO "
    "{noisy_IPO_minus_dpo_gold:+.2f} in gold.",
    worst=worst,
)

# %% [markdown]
# ## 7 · Reward against distance: the whole family, PPO, best of n
#
# One policy with more reward than another may just have gone further. So we ask what
# each method has *within* every distance: each run is a point, and the line above
# a method's points is its **upper envelope**. To take one of two policies by the toss
# of a coin is a policy too, so the envelope is concave. Its points are picked on one
# half of the unseen subjects and measured on the other: the best of several noisy
# numbers would be too good.
#
# **The budgets are equal**: four strengths a method (best-of-n has its n, PPO on gold
# what `gold_betas` lists), one run each and seed, measured once, at its end; one
# learning rate for DPO and its family, the best of four for DPO on training subjects,
# and for PPO that of notebook 04. Two things are not equal where time is short: PPO's
# reward model has learnt from all comparisons (`n_pairs`), DPO from `n_used` of them,
# once; and DPO's relatives have only their first `strengths`. Profile `full` gives all
# of them all. Two controls: PPO on the gold reward shows what a
# better reward would bring, DPO on *tossed labels* what no information brings.
# (Where a method's runs end, its envelope goes on level: with few strengths, all near
# the reference, it is low for that reason alone. Look at the points as well.)

# %%
rivals = ["DPO", arms.PPO, arms.GOLD_PPO, arms.BEST_OF_N, arms.TOSSED]
runs.save_figure(
    figures.frontier(
        {
            "DPO and its rivals": {name: rows[name] for name in rivals},
            "The family": {name: rows[name] for name in arms.FAMILY},
        },
        begun,
    ),
    "frontier",
    "Gold gained over the reference against exact KL (of best-of-n, its upper bound): "
    "runs, and each method's upper envelope (bands: 95% over seeds, where there are "
    "several). Envelopes are compared up to the vertical line.",
)

# %%
heights = {name: analysis.areas(group, begun) for name, group in rows.items()}
del heights["start"]
runs.save_figure(
    figures.area_dots(heights),
    "areas",
    "Mean height of each method's envelope between 0 and 4 nats.",
)
for name, by_seed in heights.items():
    label = "area_" + name.lower().replace(" ", "_")
    values = list(by_seed.values())
    runs.record(label, np.mean(values), seeds=values, unit="gold")
apart = {
    "dpo_minus_ppo_area": ("DPO", arms.PPO),
    "gold_ppo_minus_dpo_area": (arms.GOLD_PPO, "DPO"),
    "dpo_minus_best_of_n_area": ("DPO", arms.BEST_OF_N),
}
for name, (first, second) in apart.items():
    values = analysis.difference(heights[first], heights[second])
    runs.record(name, np.mean(values), seeds=values, unit="gold")
runs.say(
    "Mean height of the envelope: DPO {area_dpo:.2f}, PPO {area_ppo:.2f}, PPO on gold "
    "{area_ppo_on_gold:.2f}, best-of-n {area_best_of_n:.2f}. DPO minus PPO: "
    "{dpo_minus_ppo_area:+.2f}."
)

# %%
values = analysis.spread({name: heights[name] for name in arms.FAMILY})
runs.record("family_area_spread", np.mean(values), seeds=values, unit="gold")
same = [row for row in rows["DPO"] if row["beta"] == arms.TOSSED_BETA]
one_strength = analysis.areas(same, begun)
values = analysis.difference(one_strength, heights[arms.TOSSED])
runs.record("dpo_minus_tossed_area", np.mean(values), seeds=values, unit="gold")
order = sorted(arms.FAMILY, key=lambda name: -np.mean([*heights[name].values()]))
runs.say(
    "In the family, from the highest envelope to the lowest: {order}; "
    "{family_area_spread:.2f} lies between best and worst. The control, DPO at one "
    "strength on labels tossed with a coin, is {dpo_minus_tossed_area:.2f} below DPO "
    "at that strength.",
    order=", ".join(order),
)

# %% [markdown]
# ORPO and SimPO hold on to no reference, and KTO is given no pairs; the distance is
# measured to the reference all the same. Strengths mean something else for each loss
# (`arms.FAMILY` lists them), which is why no two of their βs are compared.
#
# ## 8 · What does it cost?
#
# Seconds of one run, alone and on one thread of this machine; DPO's with what the
# reference thinks of the pairs, PPO's without the training of its reward model. Of PPO
# two updates are timed, and scaled to all of a run.

# %%
reward_model, _ = artifacts.reward_model(settings.n_pairs, k=settings.k, **policy_of)
costs = pd.DataFrame(analysis.training_memory(reference, reward_model))
costs = costs.set_index("method")
seconds = arms.time_each(
    run.seeds[: settings.timed_seeds],
    updates=settings.updates,
    n_used=settings.n_used,
    **made,
)
costs["seconds a run"] = {
    method: np.mean([*by_seed.values()]) for method, by_seed in seconds.items()
}
values = [seconds[arms.PPO][s] / seconds["DPO"][s] for s in seconds["DPO"]]
runs.record("ppo_over_dpo_run_seconds", np.mean(values), seeds=values)
megabytes = costs["megabytes"]
runs.record("ppo_over_dpo_megabytes", megabytes["PPO"] / megabytes["DPO"])
costs.style.format(precision=1)

# %%
runs.say(
    "A run of PPO takes {ppo_over_dpo_run_seconds:.1f} times as long as one of DPO, "
    "and {ppo_over_dpo_megabytes.value:.1f} times the memory for weights."
)

# %% [markdown]
# ## 9 · The same batch through TRL
#
# For models of a billion parameters one would use TRL's `DPOTrainer`. One batch, the
# policy of section 1, and the loss at which each begins. Elsewhere definitions differ:
# what TRL calls `ipo` averages over tokens and is our `ipo_norm` (our `ipo` is the
# paper's, of whole replies, and its β means something else), and its `sigmoid` ignores
# `label_smoothing`, which in ours makes cDPO.

# %%
ours, theirs = compare_dpo_losses(
    policy, tokenizer, pairs[:16], reference, beta=arms.BETA
)
runs.record("trl_dpo_loss_difference", abs(ours - theirs), unit="nats per pair")
runs.say(
    "Ours: {ours:.6f} nats per pair; TRL's: {theirs:.6f}.", ours=ours, theirs=theirs
)

# %% [markdown]
# ## 10 · Verdicts
#
# Thresholds were fixed before measuring. Where this profile has too few seeds for a
# verdict, it says so; `alignlab run 05 --profile full` has enough.

# %%
runs.show_verdicts()

# %% [markdown]
# ## What the big labs do that we left out
#
# * **New comparisons of the policy's own replies** as it changes (online and iterative
#   DPO): ours are all of the reference's, so the further a policy goes, the less it
#   is told about what it says.
# * **Fine-tuning on the chosen replies first**, or with a weight beside the loss, which
#   holds up what section 4 shows falling.
# * **Preferences made by other models**, filtered for pairs whose two replies differ
#   clearly, and mixed over skills.
# * **Several rounds with merged or averaged policies**, a length penalty in the loss,
#   rates a hundred times lower on models a thousand times larger.
#
# *Turn a dial:* `alignlab run 05 --param n_used=1500`. We would expect DPO's envelope to
# rise, and both log-ratios of section 4 to fall further; a gain without more distance
# would surprise us.
