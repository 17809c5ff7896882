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
# # 00 · What does a base model know, and why will it not answer?
#
# Every assistant starts as a *base model*: a network that has read text and learnt one
# thing: to guess the next token. In this notebook we look at the road from there to an
# assistant, meet our base model, see what it knows, and watch it fail to be asked. The
# rest of the series mends that, step by step, and measures what each step gives and
# costs.
#
# | | |
# | --- | --- |
# | **time** | `smoke` 25 seconds · `cpu` 1.5 minutes · `full` 2.5 minutes (two cores) |
# | **memory** | under 3 GB |
# | **you need** | Python and curiosity; a little probability helps |
# | **look at first** | the completions in section 1, the figures in 5 and 6 |
# | **sweeps worth trying** | `model="300k"`, `shots`, `reader_steps` in section 6 |
# | **on Colab** | run the set-up cell below first |

# %% tags=["parameters"]
profile = "cpu"  # smoke, cpu, full or gpu: how much to measure
seed = 0  # added to the profile's first seed; the other seeds follow
device = "cpu"
out_dir = ""  # where metrics and figures go; empty: runs/interactive

# %%
from pathlib import Path

import ipywidgets
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch
from IPython.display import HTML

import alignlab
from alignlab import runs
from alignlab.chapters.base_model import (
    analysis,
    asking,
    experiments,
    figures,
    showing,
)
from alignlab.chapters.base_model import runs as arms
from alignlab.course import check, hint
from alignlab.files import read_json
from alignlab.models.base import is_shipped, load_base, use_device
from alignlab.objectives import token_log_probs
from alignlab.plots.explorers import explore, next_tokens
from alignlab.plots.style import use_style
from alignlab.runs.judging import SIGNS, judge_notebook
from alignlab.runs.profiles import chapter_folders
from alignlab.runs.publish import RECORDED
from alignlab.study.tuning import sft_policy
from alignlab.world.facts import KNOWN_FROM, RELATIONS, build_world

use_style()
run = runs.start("00_base_model", profile, seed, device, out_dir)
settings = run.settings
use_device(device)
base = settings.model
model, tokenizer = load_base(base)
world = build_world(0)
where = f"{base} base model, profile {profile}"
pd.set_option("display.max_colwidth", 80)

# %% [markdown]
# ## The road
#
# InstructGPT made an assistant of a base model in three steps: imitate demonstrations
# (SFT), learn from comparisons what people prefer (the reward model), and optimise that
# reward while staying close to where one started (PPO). DPO does the last two in one.

# %%
runs.save_figure(
    figures.road_map(),
    "road",
    "The three steps of InstructGPT, DPO's short cut, and the notebook of each.",
)

# %% [markdown]
# Lectures on alignment say a lot about these steps. Here is what they say, where the
# series measures it, and what came out in the last published run. A claim that fails on
# a model as small as ours is a result, not a mishap.

# %%
folders = chapter_folders()
notebooks = {number: f"{number}_{f.name}.ipynb" for number, f in folders.items()}
recorded = read_json(
    Path(alignlab.__file__).parents[1] / "figures" / RECORDED, default={}
)
sections = recorded.get("notebooks", {})
metrics = {name[:2]: section["metrics"] for name, section in sections.items()}
published = [
    verdict
    for number in folders
    for verdict in judge_notebook(number, metrics.get(number, {}))
]
HTML(showing.statements_table(published, SIGNS, notebooks))

# %% [markdown]
# <details><summary><b>Data the field tunes on, and what ours stand for</b></summary>
#
# * **FLAN** (Wei et al., 2021): 62 academic data sets in 12 clusters, each written as
#   instructions by templates. *Here:* the task families, with several wordings each (01).
# * **Super-NaturalInstructions** (Wang et al., 2022): 1,616 tasks of 76 types, with
#   definitions by experts. *Here:* families and wordings that are held out (01).
# * **Alpaca** (Taori et al., 2023): 52,000 instructions that a model wrote, from 175
#   seeds (Self-Instruct). *Here:* instructions that our model writes, and a filter (01).
# * **Dolly** (Conover et al., 2023): 15,000 records written by employees of Databricks.
#   *Here:* demonstrations of known quality (03).
# * **OpenAssistant** (Köpf et al., 2023): 161,443 messages by volunteers, in trees, with
#   ratings and rankings. *Here:* comparisons and rankings by simulated annotators (03).
#
# Ours are written by a program, so that every right answer, and every annotator's
# error, is known. The price is that nothing in them surprises anybody.
#
# </details>
#
# <details><summary><b>What open and closed labs did around 2025</b></summary>
#
# *Open, as published:*
#
# * **Tülu 3** (Lambert et al., 2024): SFT, then DPO, then RL with verifiable rewards
#   (RLVR): a program checks the answer, in place of a reward model.
# * **DeepSeek-R1** (DeepSeek-AI, 2025): GRPO, PPO without a value network, on rewards
#   by rule for mathematics and code. R1-Zero did without SFT; R1 starts from a small
#   SFT stage and goes through SFT and RL a second time.
# * **Qwen3** (Yang et al., 2025): four stages, two for reasoning (SFT on long chains of
#   thought, then RL) and two for everything else (SFT on both modes, then general RL);
#   the smaller models are distilled from the larger ones.
# * **Llama 3** (Grattafiori et al., 2024): rounds of a reward model, rejection sampling,
#   SFT and DPO. **Llama 4** (Meta's announcement, April 2025): light SFT, online RL,
#   light DPO.
#
# *Closed, as far as they say:*
#
# * **OpenAI**: deliberative alignment (Guan et al., 2024) teaches reasoning models the
#   text of a safety policy, by SFT and then RL. In its report of May 2025 on a GPT-4o
#   that flattered its users, it names an added reward from thumbs up and down among the
#   causes: over-optimisation, our notebook 06, in production.
# * **Anthropic**: constitutional AI (Bai et al., 2022) replaces human labels of harm by
#   a model's judgement of written principles; constitutional classifiers (Sharma et
#   al., 2025) guard inputs and outputs in the same spirit.
#
# So the three steps stand, with DPO often beside PPO or GRPO, and programs that check
# answers beside models of preference. Notebook 04 has a verifier as reward, and GRPO.
#
# </details>
#
# **exp(β·r) or exp(r/β)?** Lectures write the best policy at a given distance from the
# reference in both ways, and they look like opposites. One calls the *inverse
# temperature* β, how hard to follow the reward; the other the *price* of a nat of KL
# divergence, how hard to stay. Each is 1 over the other:
#
# $$\pi^*(y) \propto \pi_\text{ref}(y)\, e^{\lambda\, r(y)}
#  = \pi_\text{ref}(y)\, e^{r(y)/\beta}, \qquad \lambda = 1/\beta$$
#
# In this series β is always the price, as in the paper on DPO and in TRL: *higher stays
# closer to the reference*.

# %%
reference, reward = np.array([0.7, 0.2, 0.1]), np.array([0.0, 1.0, 2.0])
price = 0.5  # β as a price; as an inverse temperature it is 1 / 0.5 = 2
by_price = reference * np.exp(reward / price)
by_inverse_temperature = reference * np.exp((1 / price) * reward)
by_price /= by_price.sum()
by_inverse_temperature /= by_inverse_temperature.sum()
pd.DataFrame(
    {
        "reward": reward,
        "reference": reference,
        "exp(r/β), β = 0.5": by_price,
        "exp(β·r), β = 2": by_inverse_temperature,
    },
    index=["reply A", "reply B", "reply C"],
).style.format("{:.3f}")

# %%
same = np.allclose(by_price, by_inverse_temperature, rtol=1e-12)
runs.say(
    "The two columns are {verdict}: reply C, the best and the rarest, goes from "
    "{before:.2f} to {after:.2f}.",
    verdict="the same policy" if same else "different, which should not be",
    before=reference[2],
    after=by_price[2],
)

# %% [markdown]
# ## 1 · Completions first
#
# Here is the model, a Llama small enough to train on a laptop. We let it continue the
# beginning of a statement, and a question about the same fact. Greedy decoding: it
# always takes the likeliest next token.
#
# The facts are not picked for success: for each of five relations whose answers you can
# check yourself, we take the fact that its pretraining text states *most often*.

# %%
facts = [showing.most_stated(world, relation) for relation in showing.EASY_TO_CHECK]
rows = showing.first_completions(model, tokenizer, facts, world)
pd.DataFrame(
    {
        "we write": row["statement"],
        "it goes on": showing.what_followed(row["goes_on"]),
        "we ask": row["question"],
        "it goes on ": showing.what_followed(row["then"]),
        "read": f"{row['read']} times" if is_shipped(base) else "unknown",
    }
    for row in rows
).style.hide().set_properties(**{"text-align": "left"}).set_caption(where)

# %%
runs.say(showing.on_completions(rows))

# %% [markdown]
# Which facts the model reads often was drawn by lot, and famous ones had no better
# chance. Here is the one that every lecture asks for:

# %%
berlin = world.find("Germany", "capital")
[row] = showing.first_completions(model, tokenizer, [berlin], world)
runs.say(
    "Berlin as the capital of Germany was stated {read}. “{statement}” goes on: "
    "“{after}” Asked “{question}”, it goes on: “{then}”",
    read=f"{row['read']} times" if is_shipped(base) else "nobody knows how often",
    statement=row["statement"],
    after=showing.what_followed(row["goes_on"]),
    question=row["question"],
    then=showing.what_followed(row["then"]),
)

# %% [markdown]
# A statement and a question are the same to it: beginnings of texts like those that it
# has read. It lacks the idea that somebody wants something from it. Section 5 shows how
# much it knows, section 6 how it fails to be asked.

# %% [markdown]
# ## 2 · Likelihood: what the model expects
#
# A language model gives every text a probability, one token after the other:
#
# $$\log p(x_1 \dots x_T) = \sum_t \log p(x_t \mid x_1 \dots x_{t-1})$$
#
# The model puts out *logits*, one number per vocabulary entry; `log_softmax` turns them
# into log-probabilities. The logits at position $t$ speak about token $t+1$: forgetting
# this shift is the most common bug in the field.
#
# **Exercise 00.1** · ★★ · 15 minutes · `hint("00.1")`
#
# Write it yourself.


# %% nbgrader={"grade": false, "grade_id": "nb00-q1", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_token_log_probs(logits, input_ids):
    """(B, T, V) logits and (B, T) ids to (B, T-1) log-probabilities."""
    ### BEGIN SOLUTION
    log_probs = logits[:, :-1].log_softmax(dim=-1)
    return log_probs.gather(-1, input_ids[:, 1:, None])[..., 0]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb00-q1-check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check("00.1", my_token_log_probs)

# %% [markdown]
# Now read two sentences through the model's eyes, a true one and a false one. A high
# bar is a surprise.
#
# <details><summary><b>Predict:</b> which tokens will surprise it?</summary>
#
# The first word of a text is a surprise to everybody. Within a sentence, ask at which
# token you learn something that you could not have guessed: the subject, and an answer
# that is not the one you know. Words that a template forces should cost next to nothing.
#
# </details>

# %%
capital = facts[0]
country, city = capital.subject, capital.answer
sentence = f"The capital of {country} is {city}. The capital of {country} is a potato."
ids = tokenizer(sentence, return_tensors="pt").input_ids.to(device)
with torch.no_grad():
    log_probs = token_log_probs(model(ids).logits, ids)[0].cpu()
tokens = [tokenizer.decode([t]) for t in ids[0, 1:]]
figure, axes = plt.subplots(figsize=(9, 3))
figures.surprise_bars(axes, tokens, log_probs, "Surprise, token by token")
runs.save_figure(
    figure,
    "surprise",
    "Surprise of each token: true ends are expected, false ones not.",
)

# %%
prompt = f"The capital of {country} is"
true_end, false_end = -np.log(
    showing.confidences(model, tokenizer, [prompt], [[f"{city}.", "a potato."]])[0]
)
runs.say(
    "After “{prompt}” the true end costs {true_end:.1f} nats and the potato "
    "{false_end:.1f}: {lesson}.",
    prompt=prompt,
    true_end=true_end,
    false_end=false_end,
    lesson="what it has read often, it expects"
    if true_end < false_end
    else "it does not know this capital",
)

# %% [markdown]
# The exponential of the mean surprise is the *perplexity*: the number of equally likely
# tokens that would be as hard to guess. We compare texts of the kinds it has read with
# the same words in random order, which is a control: it shows what knowing the order of
# words is worth.

# %%
perplexity = analysis.perplexity_by_text(model, tokenizer, n_texts=settings.n_texts)
pd.DataFrame(perplexity).replace(
    {"text": {"film_comments": "film comments"}}
).set_index("text").style.format("{:.1f}")

# %%
for row in perplexity:
    runs.record(f"perplexity_{row['text']}", row["perplexity"], unit="tokens")
runs.say(analysis.on_perplexity(perplexity))

# %% [markdown]
# ## 3 · Sampling: one distribution, many texts
#
# To write, draw the next token, append it, repeat. The *temperature* $T$ divides the
# logits: $p_T \propto \exp(z/T)$. Lower is safer and duller, higher is livelier and
# wilder; 0 is greedy.
#
# **Exercise 00.2** · ★★ · 15 minutes · `hint("00.2")`
#
# Draw one token per row.


# %% nbgrader={"grade": false, "grade_id": "nb00-q2", "locked": false, "schema_version": 3, "solution": true, "task": false}
def my_sample(logits, temperature, generator):
    """(B, V) logits to (B,) tokens; temperature 0 is greedy."""
    ### BEGIN SOLUTION
    if temperature == 0:
        return logits.argmax(-1)
    probabilities = (logits / temperature).softmax(-1)
    return torch.multinomial(probabilities, 1, generator=generator)[:, 0]
    ### END SOLUTION


# %% nbgrader={"grade": true, "grade_id": "nb00-q2-check", "locked": true, "points": 2, "schema_version": 3, "solution": false, "task": false}
check("00.2", my_sample)

# %% [markdown]
# **Experiment 00.3** · ★★ · 20 minutes · `hint("00.3")`
#
# `experiments.often_and_seldom()` gives what a small model expects as the next token
# after the beginning of a statement ("The capital of France is"), for 24 facts that it
# has read 100 times or more and then for 24 that it has read one to five times; and the
# first token of each right answer. **Write down a prediction first:** from a low
# temperature to a high one, does the share of right draws rise, fall, or stay? Then
# draw 32 times or more for each fact with `my_sample`, at three temperatures or more
# between 0.1 and 5.
#
# Hand in a report, a dict: `prediction` and `outcome` (`"rises"`, `"falls"` or
# `"stays"`; up to two standard errors are `"stays"`, and a prediction that fails costs
# nothing), `settings` from low to high, `measured` (a row for each of them, a number
# for each fact: its share of right draws), `difference` (the mean of the last row less
# the first) and `error` (its standard error).

# %% nbgrader={"grade": false, "grade_id": "nb00-q3", "locked": false, "schema_version": 3, "solution": true, "task": false}
my_report = None
### BEGIN SOLUTION
prediction = "falls"  # written down before the run
logits, right = experiments.often_and_seldom()
generator = torch.Generator().manual_seed(seed)
tried, found = [0.25, 0.5, 1.0, 2.0], []
for temperature in tried:
    draws = [my_sample(logits, temperature, generator) == right for _ in range(64)]
    found.append(torch.stack(draws).double().mean(dim=0))
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

# %% nbgrader={"grade": true, "grade_id": "nb00-q3-check", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": false}
check("00.3", my_report)

# %%
first, last = (np.asarray(my_report["measured"][i]) for i in (0, -1))
runs.say(
    "From temperature {low:g} to {high:g} the share of right draws goes from "
    "{first:.2f} to {last:.2f} (difference {difference:+.3f}, standard error "
    "{error:.3f}): it {outcome}. At the higher one {often} of {n} facts that were read "
    "often are told rightly more often, and {seldom} of those that were read seldom.",
    low=my_report["settings"][0],
    high=my_report["settings"][-1],
    first=first.mean(),
    last=last.mean(),
    difference=float(my_report["difference"]),
    error=float(my_report["error"]),
    outcome=my_report["outcome"],
    n=experiments.OFTEN,
    often=int((last > first)[: experiments.OFTEN].sum()),
    seldom=int((last > first)[experiments.OFTEN :].sum()),
)

# %% [markdown] nbgrader={"grade": false, "grade_id": "nb00-q4", "locked": true, "points": 3, "schema_version": 3, "solution": false, "task": true}
# **Interpretation 00.4** · ★★ · 15 minutes · `hint("00.4")`
#
# *Answer in about five sentences, in the cell below.* A friend says: "At temperature 0
# a model tells the truth, and all that is false comes from chance." What in your
# numbers speaks for it, and what against? Which facts get better at a higher
# temperature, and what does a model believe about those? For which use would you choose
# which temperature?
#
# <!-- === BEGIN MARK SCHEME === -->
# *Rubric.* **1 point:** the mean falls with the temperature, with the difference and
# its error named, and facts that were read often lose most: chance does make known
# facts false. **1 point:** it is not all: of facts that were read seldom the likeliest
# token is mostly wrong, so that a low temperature is never right about them and heat
# raises their share a little; a low temperature says what the model believes most,
# right or wrong. **1 point:** a choice of temperature with a reason that follows from
# the two (greedy where one answer is wanted, higher where several drafts are looked
# at). Half a point for an idea that no number of theirs supports.
# <!-- === END MARK SCHEME === -->

# %% [markdown]
# *Your answer:*

# %% [markdown]
# The beginning of a text, continued 16 times at each temperature. Two of the 16 are
# shown: the first two without words of a fixed list (scripture, violence, abuse), for
# some of what the model has read is real.

# %%
beginning, draws = f"{country} is", 16
rows, different = [], {}
for temperature in (0.0, 0.5, 1.0, 1.5):
    texts, different[temperature] = showing.continuations(
        model, tokenizer, beginning, temperature, n=draws, seed=seed
    )
    for text in texts[: 1 if temperature == 0 else 2]:
        rows.append({"temperature": temperature, f"{beginning} …": text})
pd.DataFrame(rows).style.hide().format(precision=1).set_properties(
    **{"text-align": "left"}
).set_caption(f"{where}, seed {seed}")

# %%
for name, temperature in (("cool", 0.5), ("hot", 1.5)):
    runs.record(f"different_texts_{name}", different[temperature], unit="texts")
runs.say(
    "Different texts among {draws} continuations: {cold} at temperature 0, {half} at "
    "0.5, {one} at 1 and {hot} at 1.5.",
    draws=draws,
    cold=different[0.0],
    half=different[0.5],
    one=different[1.0],
    hot=different[1.5],
)

# %%
likeliest = next_tokens(model, tokenizer, beginning, 1.0, k=6)
shown = [token for token, _ in likeliest]
at = {
    t: dict(next_tokens(model, tokenizer, beginning, t, k=len(tokenizer)))
    for t in (0.5, 1.0, 1.5)
}
at = {t: [(token, every[token]) for token in shown] for t, every in at.items()}
runs.save_figure(
    figures.temperatures(at, beginning),
    "temperatures",
    "Probabilities of the likeliest next tokens at three temperatures.",
)

# %%
runs.say(
    "The likeliest of them, “{token}”, has {cold:.0%} at temperature 0.5, {one:.0%} at "
    "1 and {hot:.0%} at 1.5.",
    token=shown[0].strip(),
    cold=at[0.5][0][1],
    one=at[1.0][0][1],
    hot=at[1.5][0][1],
)

# %% [markdown]
# Now you (with a running kernel, in JupyterLab or Colab): any text, any temperature.

# %%
text = ipywidgets.Text(f"The capital of {country} is", description="text")
heat = ipywidgets.FloatSlider(1.0, min=0.1, max=2.0, step=0.1, description="T")
explore(
    [text, heat],
    lambda: showing.next_token_card(model, tokenizer, text.value, heat.value),
)

# %% [markdown]
# ## 4 · The world: facts of known frequency
#
# The facts come from data packages (countries, chemical elements, cities, WordNet). The
# sentences are ours: twelve wordings per relation, eight that name the subject first and
# four that name the answer first. Because we wrote the pretraining text, we know how
# often the model has read each fact:
#
# * the **body**, from 3 times to 900 by a power law, and some never;
# * a **long tail** of cities and words, read one to five times;
# * **contested** facts, of which a known share of the sentences says one thing and the
#   rest another. What most sentences say is true as often as its share, so whoever has
#   read them all should be exactly that sure;
# * **made-up** subjects, which nobody can know anything about. "Never read" then means
#   never for real models, too.

# %%
card = analysis.data_card(world)
table = pd.DataFrame(card).T
table["all"] = table.sum(axis=1)
table.rename_axis("stated").style.format("{:,}")

# %%
runs.say(analysis.on_data_card(card))
runs.save_figure(
    figures.exposures(card),
    "exposures",
    "Number of facts by how often pretraining states them.",
)

# %% [markdown]
# The relations, with the fact of each that is stated most often, and what is asked:

# %%
pd.DataFrame(
    {
        "relation": name.replace("_", " "),
        "stated": RELATIONS[name].statements[0].format(s=f.subject, a=f.answer),
        "asked": RELATIONS[name].questions[0].format(s=f.subject),
        "times": f.exposure,
    }
    for name in RELATIONS
    for f in [showing.most_stated(world, name)]
).style.hide().set_properties(**{"text-align": "left"})

# %% [markdown]
# Besides the facts it has read small skills, written as statements ("The last of moon,
# dog, salt is salt."), a Bible in Basic English and short comments on films, products
# and news. A few documents, by the same rule as above:

# %%
pd.DataFrame(showing.sample_documents(world, seed)).style.hide().set_properties(
    **{"text-align": "left"}
).set_caption(f"seed {seed}")

# %% [markdown]
# None of them asks anything. That is why the model above does not know what a question
# is for.

# %% [markdown]
# ## 5 · What it knows, and how sure it is
#
# We cut each fact's statement before the answer and let the model continue. Facts that
# it never read are the control: how far does *guessing* go? The dotted line is the best
# guess that knows what kind of answer is wanted and how the subject is spelt, and no
# fact.
#
# <details><summary><b>Predict:</b> how often must it read a fact to know it? And how
# sure will it be of what it says about a fact that it never read?</summary>
#
# A person may need to be told once. A network of a million parameters moves each of them
# a little with each sentence, and has thousands of facts to keep apart: Allen-Zhu & Li
# (2024) find that a hundred readings are too few to use its full capacity, and a
# thousand enough. As for its confidence: pretraining rewards a good guess over the
# *kinds* of answer, so that confidence should fall where facts are rare, unless the
# model takes a fact for one of those that it knows.
#
# </details>

# %%
recall_rows, chance = analysis.recorded(base, "recall"), analysis.never_shown_chance()
if recall_rows:
    runs.save_figure(
        figures.recall(recall_rows, chance, KNOWN_FROM),
        "recall",
        "Share of facts completed rightly, by how often they were read (95% "
        "intervals).",
    )

# %%
if recall_rows:
    never, most = recall_rows[0], recall_rows[-1]
    runs.record("recall_never_shown", never["recall"], n=never["facts"])
    runs.record("recall_most_stated", most["recall"], n=most["facts"])
    runs.record("chance_never_shown", chance)
    once = analysis.read_once(recall_rows)
    if once is not None:
        runs.record("recall_read_once", once["recall"], n=once["facts"])
        runs.record("confidence_read_once", once["confidence"], n=once["facts"])
    runs.say(analysis.on_recall(recall_rows, chance))
    runs.say(f"{analysis.on_read_once(once)} {analysis.on_confidence(recall_rows)}")
else:
    runs.say("How often this model has read a fact is not known, so nothing is drawn.")

# %% [markdown]
# Facts read once matter beyond this notebook. Kalai et al. (2025) argue that a
# calibrated base model must make facts up at no less than the *singleton rate*: the
# share of facts that its training text states just once. So a hallucination is no
# accident: it is what a good guesser does.
#
# Now the contested facts. First some of them, chosen by share (nearest to 0.5, 0.65, 0.8
# and 0.95), and what the model makes of the two answers after one wording:

# %%
examples = showing.contested_examples(model, tokenizer, world)
pd.DataFrame(examples).style.hide().format(precision=2).set_caption(where)

# %%
runs.say(
    showing.on_contested_examples(examples)
    if is_shipped(base)
    else "These shares are those of our text, which this model has not read."
)

# %% [markdown]
# And all of them, over several wordings each. The dashed line is Bayes' answer: as sure
# as the share.
#
# <details><summary><b>Predict:</b> if 70% of the sentences say A and 30% say B, how sure
# will the model be of A?</summary>
#
# The loss is lowest if the next token has the probability with which it follows. A model
# that has learnt the fact as well as its capacity allows ends at 70%. If it has not, it
# leans to the answers that are common everywhere; if it has read the last sentences too
# closely, to what these happened to say.
#
# </details>

# %%
contested = analysis.recorded(base, "contested")
if contested is not None:
    runs.record("contested_absolute_error", contested["mean_absolute_error"])
    runs.record("contested_error", contested["mean_error"])
    runs.save_figure(
        figures.contested(contested["bins"]),
        "contested",
        "Confidence in the answer most often stated, against its share.",
    )
runs.say(analysis.on_contested(contested))

# %% [markdown]
# ## 6 · How it fails to be asked
#
# Now the same knowledge, asked for: facts that it has read at least a hundred times,
# about subjects whose questions no model below is trained on. Three models:
#
# * the **base** model;
# * a **reader**: the base model after a little more plain text, a quarter of it pairs
#   "Question: … Answer: …" about *other* subjects. It has seen no instruction and no
#   chat. Base models of the real world are readers: the web is full of such pairs;
# * the **tuned** model, after instruction tuning (notebook 01 takes it apart).
#
# And three ways to ask:
#
# * **bare**: the question as plain text;
# * **cloze**: the fact's statement, cut before the answer, which asks without asking;
# * **few-shot**: worked examples of the same kind of question first, the classic way to
#   ask a base model.
#
# An answer counts wherever it stands in the reply's first sentence. A reply is *in
# format* if it is one short line, closed by a full stop, and the model then stops.
# All of it is trained and asked here, side by side for the seeds:

# %%
asked = arms.ask_all(run.seeds, base, settings)

# %% [markdown]
# Before the numbers, the replies to one question: the first of the test set, whatever it
# is. (A reply with scripture or abuse in it is not shown, by the rule of section 3.)

# %%
question, first_seed = asking.test_questions(1)[0], run.seeds[0]
recipe = dict(n_examples=settings.n_examples, steps=settings.steps)
tuned, _ = sft_policy(first_seed, base=base, **recipe)
reader, _ = arms.reader(first_seed, base, settings.reader_steps)
asked_ways = {
    "base, bare": (model, "bare"),
    "base, cloze": (model, "cloze"),
    "base, few-shot": (model, "few-shot"),
    "reader, bare": (reader, "bare"),
    "reader, few-shot": (reader, "few-shot"),
    "tuned": (tuned, "chat"),
}
rows = []
for name, (asked_model, way) in asked_ways.items():
    prompts = asking.prompts_for([question], way, tokenizer, settings.shots, first_seed)
    [reply] = asking.reply_to(asked_model, tokenizer, prompts, way)
    right = asking.names_answer(question.answers, reply.text)
    rows.append(
        {
            "way": name,
            "we write": prompts[0],
            "it goes on": showing.what_followed(reply),
            "right": "yes" if right else "no",
        }
    )
pd.DataFrame(rows).style.hide().set_properties(
    **{"white-space": "normal", "max-width": "32em", "text-align": "left"}
).set_caption(f"{where}, seed {first_seed}; right: {question.answers[0]}")

# %% [markdown]
# And now all of the questions.
#
# <details><summary><b>Predict:</b> which of these ways will bring out the knowledge, and
# which only the form?</summary>
#
# The base model has never seen "Question:" or "Answer:". Worked examples show it a form,
# but it would have to learn from four of them what such a text is. The reader has seen
# the form many times. If worked examples help the reader and not the base model, then it
# is the form that the base model lacks, since both know the same facts.
#
# </details>

# %%
rates = {
    way: {"accuracy": analysis.share(table["right"])}
    | ({} if "cloze" in way else {"format": analysis.share(table["formatted"])})
    for way, table in asked.items()
}
common = analysis.commonest_answer_rate(world, asking.test_questions(settings.n_test))
runs.save_figure(
    figures.answering(rates, common),
    "ways_to_ask",
    "Share of replies that name a right answer, and that are in format.",
)

# %%
found = {}
for name, items in analysis.differences(asked).items():
    means = np.mean(items, axis=1)
    source = {"items": items} if len(items) > 1 else {"seeds": means}
    found[name] = runs.record(name, means.mean(), claim="base-ignores-2", **source)
for way, measured in rates.items():
    for measure, interval in measured.items():
        name = f"{way}_{measure}".replace(", ", "_").replace("-", "_")
        runs.record(name, *interval, n=settings.n_test)
accuracy = {way: measured["accuracy"].value for way, measured in rates.items()}
runs.say(analysis.on_asking(accuracy, found))
runs.say(analysis.on_reader(accuracy))

# %% [markdown]
# ## 7 · Verdicts
#
# Each claim has the smallest effect worth the name, fixed before anything was measured,
# and a control with the result that would break it. The verdict is computed from the
# intervals, over seeds and questions, and is nobody's opinion.

# %%
runs.show_verdicts()

# %% [markdown]
# ## What the big labs do that we left out
#
# * **Scale**: trillions of tokens and billions of parameters, where ours is a few
#   million tokens and one million parameters. What carries over is the shape of things,
#   not the numbers.
# * **Data work**: crawling, deduplication, quality filters, mixture search. Our world
#   is written by a program, so that its truth is known.
# * **Long context, many languages, code**: none here.
# * **Evaluation suites** of hundreds of benchmarks; ours can be checked by program.
#
# *Try a setting:* run this notebook with `--param model=300k`. Expect the same shape with less
# recall; it would surprise us if rare facts suffered less than frequent ones.
#
# ## Reading
#
# * **The three steps**: Ouyang et al. (2022), *Training language models to follow
#   instructions with human feedback*, arXiv 2203.02155; Stiennon et al. (2020),
#   *Learning to summarize from human feedback*, 2009.01325. A book: Lambert (2025),
#   *Reinforcement Learning from Human Feedback*, rlhfbook.com.
# * **Instructions** (01, 02): Wei et al. (2021), *Finetuned language models are zero-shot
#   learners*, 2109.01652; Wang et al. (2022), *Super-NaturalInstructions*, 2204.07705;
#   Wang et al. (2022), *Self-Instruct*, 2212.10560; Zhou et al. (2023), *LIMA*,
#   2305.11206; Köpf et al. (2023), *OpenAssistant Conversations*, 2304.07327.
# * **Preferences** (03 to 06): Schulman et al. (2017), *Proximal policy optimization*,
#   1707.06347; Rafailov et al. (2023), *Direct preference optimization*, 2305.18290; Gao
#   et al. (2022), *Scaling laws for reward model overoptimization*, 2210.10760.
# * **Recipes since**: Lambert et al. (2024), *Tülu 3*, 2411.15124; DeepSeek-AI (2025),
#   *DeepSeek-R1*, 2501.12948; Yang et al. (2025), *Qwen3 technical report*, 2505.09388;
#   Bai et al. (2022), *Constitutional AI*, 2212.08073; Guan et al. (2024), *Deliberative
#   alignment*, 2412.16339; Sharma et al. (2025), *Constitutional classifiers*,
#   2501.18837; OpenAI (2025), *Expanding on what we missed with sycophancy*.
# * **Knowledge and calibration** (00, 02, 07, 08): Brown et al. (2020), *Language models
#   are few-shot learners*, 2005.14165; Allen-Zhu & Li (2024), *Physics of language
#   models, part 3.3*, 2404.05405; Gekhman et al. (2024), *Does fine-tuning LLMs on new
#   knowledge encourage hallucinations?*, 2405.05904; Kalai et al. (2025), *Why language
#   models hallucinate*, 2509.04664; Guo et al. (2017), *On calibration of modern neural
#   networks*, 1706.04599.
