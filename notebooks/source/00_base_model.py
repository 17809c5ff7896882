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
# thing, to guess the next token. In this notebook we meet ours, see what it knows, and
# watch it fail to be asked. The rest of the series mends that, step by step, and measures
# what each step gives and costs.
#
# | | |
# | --- | --- |
# | **time** | `smoke` 1 minute · `cpu` 2 minutes · `full` 5 minutes (two cores) |
# | **memory** | under 3 GB |
# | **you need** | Python and curiosity; a little probability helps |
# | **look at first** | the three replies in section 1, then the figure in section 5 |
# | **sweeps worth trying** | `size="300k"`, `temperature` in section 3, `shots` in section 6 |
# | **on Colab** | run the two set-up lines of the README in a first cell |

# %% tags=["parameters"]
profile = "cpu"  # smoke, cpu, full or gpu: how much to measure
seed = 0  # the first seed; the others follow it
device = "cpu"
out_dir = ""  # where metrics and figures go; empty: runs/interactive
size = "1m"  # parameters of the base model: "1m" or "300k"

# %%
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import torch

from alignlab import runs
from alignlab.chapters.base_model import analysis, figures
from alignlab.chapters.base_model import runs as arms
from alignlab.course import check
from alignlab.evaluation import answers
from alignlab.models.base import load_base, use_device
from alignlab.models.sampler import complete
from alignlab.objectives import token_log_probs
from alignlab.plots.explorers import next_token_explorer
from alignlab.plots.style import use_style
from alignlab.world import tasks
from alignlab.world.facts import KNOWN_FROM, RELATIONS, build_world

use_style()
run = runs.start("00_base_model", profile, seed, device, out_dir)
use_device(device)
model, tokenizer = load_base(size)
world = build_world(0)

# %% [markdown]
# ## 1 · A completion first
#
# Here is the model, a Llama small enough to train on a laptop. We give it three texts:
# the beginning of a statement, a question, and an instruction. Greedy decoding: it
# always takes the likeliest next token.

# %%
prompts = [
    "The capital of Germany is",
    "What is the capital of Germany?",
    "Sort the numbers 7, 2, 9 in ascending order.",
]
completions = complete(model, tokenizer, prompts, max_new_tokens=24, chat=False)
written = [c.text or "(nothing: for it the text ends here)" for c in completions]
pd.DataFrame({"we write": prompts, "it goes on": written})

# %% [markdown]
# It writes on, in the manner of what it has read. A statement it goes on with; a
# question or an instruction is to it just another beginning. Section 5 shows how much it
# knows. What it lacks is the idea that somebody wants something from it.

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
# **Exercise 00.1.** Write it yourself.


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
# Now read a sentence with the model's eyes. A high bar is a surprise.

# %%
sentence = "The capital of Germany is Berlin. The capital of Germany is a potato."
ids = tokenizer(sentence, return_tensors="pt").input_ids.to(device)
with torch.no_grad():
    log_probs = token_log_probs(model(ids).logits, ids)[0].cpu()
tokens = [tokenizer.decode([t]) for t in ids[0, 1:]]
figure, axes = plt.subplots(figsize=(8, 3))
figures.surprise_bars(axes, tokens, log_probs, "Surprise, token by token")
runs.save_figure(
    figure,
    "surprise",
    "Surprise of each token: true ends are expected, false ones not.",
)

# %% [markdown]
# The exponential of the mean surprise is the *perplexity*: the number of equally likely
# tokens that would be as hard to guess. We compare texts of the kinds it has read with
# the same words in random order, which is a control: it shows what knowing the order of
# words is worth.

# %%
settings = run.settings
perplexity = analysis.perplexity_by_text(model, tokenizer, n_texts=settings.n_texts)
pd.DataFrame(perplexity).set_index("text").style.format("{:.1f}")

# %%
by_text = {row["text"]: row for row in perplexity}
for name, row in by_text.items():
    runs.record(f"perplexity_{name}", row["perplexity"], unit="tokens")
runs.say(
    "On statements of the world its perplexity is {world:.1f}, on the Bible in Basic "
    "English {bible:.1f}; with the words shuffled the same Bible has {shuffled:.0f}.",
    world=by_text["world"]["perplexity"],
    bible=by_text["bible"]["perplexity"],
    shuffled=by_text["bible"]["shuffled"],
)

# %% [markdown]
# ## 3 · Sampling: one distribution, many texts
#
# To write, draw the next token, append it, repeat. The *temperature* $T$ divides the
# logits: $p_T \propto \exp(z/T)$. Lower is safer and duller, higher is livelier and
# wilder; 0 is greedy.
#
# **Exercise 00.2.** Draw one token per row.


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

# %%
rows = []
for temperature in (0.0, 0.5, 1.0, 1.5):
    texts = complete(
        model,
        tokenizer,
        ["Germany is"] * 2,
        max_new_tokens=24,
        temperature=temperature,
        seed=seed,
        chat=False,
    )
    rows += [{"temperature": temperature, "Germany is …": t.text} for t in texts]
pd.DataFrame(rows).set_index("temperature")

# %% [markdown]
# Turn the dials yourself (in JupyterLab or Colab): any text, any temperature.

# %%
next_token_explorer(model, tokenizer, text="The capital of Germany is")

# %% [markdown]
# ## 4 · The world: facts of known frequency
#
# The facts come from data packages (countries, chemical elements, cities, WordNet). The
# sentences are ours: twelve wordings per relation, eight that name the subject first and
# four that name the answer first. Because we wrote the pretraining text, we know how
# often the model has read each fact, and which facts it has *never* read.

# %%
card = pd.DataFrame(
    {
        "facts": len(chosen := [f for f in world.facts if f.relation == name]),
        "never shown": sum(f.exposure == 0 for f in chosen),
        f"known ({KNOWN_FROM} times or more)": sum(f.known for f in chosen),
        "for example": relation.statements[0].format(
            s=chosen[0].subject, a=chosen[0].answer
        ),
    }
    for name, relation in RELATIONS.items()
)
card.index = list(RELATIONS)
card

# %%
runs.save_figure(
    figures.exposures(world),
    "exposures",
    "How often each fact is stated in pretraining: a power law, and some never.",
)

# %% [markdown]
# Beside the facts it has read small skills as statements ("The last of moon, dog, salt
# is salt."), a Bible in Basic English and short comments on films, products and news. A
# few documents, as they are:

# %%
sample = arms.sample_documents(world, seed)
pd.DataFrame(sample).style.set_properties(**{"text-align": "left"})

# %% [markdown]
# ## 5 · What it knows
#
# We cut each fact's statement before the answer and let the model go on. Facts that it
# never read are the control: how far does *guessing* go? The dashed line is the best
# guess that knows what kind of answer is wanted and how the subject is spelt, and no
# fact.

# %%
recall_rows, chance = analysis.recorded_recall(size), analysis.never_shown_chance()
runs.save_figure(
    figures.recall(recall_rows, chance, KNOWN_FROM),
    "recall",
    "Share of facts completed rightly, by how often they were read (95% intervals).",
)

# %%
never, most = recall_rows[0], recall_rows[-1]
runs.record("recall_never_shown", never["recall"], n=never["facts"])
runs.record("recall_most_frequent_tenth", most["recall"], n=most["facts"])
runs.record("chance_never_shown", chance)
runs.say(
    "Of the most frequent tenth it completes {recall_most_frequent_tenth.value:.0%}, "
    "of the facts never shown {recall_never_shown.value:.0%}, where the best guess "
    "reaches {chance_never_shown.value:.0%}. How often a fact was read decides whether "
    "the model knows it."
)

# %% [markdown]
# ## 6 · How it fails to be asked
#
# Now the same knowledge, asked for. Test questions of every family in the instruction
# mixture (facts, words, lists, numbers, classification, rewriting), asked three ways:
#
# * **bare**: the instruction as plain text, to the base model;
# * **few-shot**: worked examples of the same task first, the classic way to ask a base
#   model, and our control;
# * **tuned**: the same model after instruction tuning (notebook 01 takes it apart).
#
# A reply is *in format* if it is one short line, closed by a full stop, and the model
# then stops. All of it is trained and asked here, side by side for the seeds:

# %%
replies = analysis.replies_by_way(arms.ask_three_ways(run.seeds, size, settings))

# %% [markdown]
# Before the numbers, the replies to one question:

# %%
question = tasks.examples("capital", 1, split="test", seed=seed)[0]
shots = tasks.examples("capital", settings.shots, seed=seed)
few_shot = answers.few_shot_prompt(shots, question, tokenizer=tokenizer)
tuned_model, _ = arms.tuned_policy(run.seeds[0], size, settings)
bare_reply, shot_reply = complete(
    model, tokenizer, [question.prompt, few_shot], max_new_tokens=24, chat=False
)
tuned_reply = complete(tuned_model, tokenizer, [question.prompt])[0]
pd.DataFrame(
    {
        "way": ["bare", "few-shot", "tuned"],
        "we write": [question.prompt, few_shot, question.prompt],
        "reply": [bare_reply.text, shot_reply.text, tuned_reply.text],
        "stops by itself": [r.ended for r in (bare_reply, shot_reply, tuned_reply)],
    }
).style.set_properties(**{"white-space": "normal", "max-width": "32em"})

# %%
runs.save_figure(
    figures.answering(replies),
    "three_ways",
    "Share of replies that are right and in format, for three ways to ask.",
)

# %%
differences = {
    "sft_minus_base_format": ("format", "tuned", "bare"),
    "sft_minus_base_accuracy": ("accuracy", "tuned", "bare"),
    "sft_minus_fewshot_format": ("format", "tuned", "few-shot"),
}
for name, (measure, one, other) in differences.items():
    per_seed = np.subtract(replies[one][measure], replies[other][measure])
    runs.record(name, per_seed.mean(), claim="base-ignores", seeds=per_seed)
runs.say(
    "Instruction tuning raises the share of replies in format by "
    "{sft_minus_base_format:.2f} and that of right answers by "
    "{sft_minus_base_accuracy:.2f} over the bare instruction (95% intervals over "
    "seeds)."
)

# %% [markdown]
# ## 7 · Verdicts
#
# Each claim has a threshold that was fixed before anything was measured. The verdict is
# computed from the interval over seeds, and is nobody's opinion.

# %%
runs.show_verdicts()

# %% [markdown]
# ## What the big labs do that we left out
#
# * **Scale**: trillions of tokens and billions of parameters, where ours is a few
#   million tokens and one million parameters. What carries over is the shape of things,
#   not the numbers.
# * **Data work**: crawling, deduplication, quality filters, mixture search. Our world is
#   written by program, so that its truth is known.
# * **Long context, many languages, code**: none here.
# * **Evaluation suites** of hundreds of benchmarks; ours can be checked by program.
#
# *Turn a dial:* run this notebook with `size="300k"`. Expect the same shape with less
# recall; it would surprise us if rare facts suffered less than frequent ones.
