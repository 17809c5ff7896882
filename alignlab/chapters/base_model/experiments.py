"""What a reader of notebook 00 measures and explains: how often a fact is told rightly
at which temperature, if it was read a hundred times, and if it was read once or twice.
"""

from functools import cache
from typing import TYPE_CHECKING

from alignlab.course.exercise import Interpretation
from alignlab.course.experiment import Experiment, miscounted, unlike_means

if TYPE_CHECKING:
    from torch import Tensor

OFTEN, FACTS = 24, 48  # facts that were read often, and all
DRAWS = 32  # the least that a reader may take of each


@cache
def often_and_seldom() -> tuple["Tensor", "Tensor"]:
    """What the shipped model of 300,000 parameters expects after the beginning of a
    statement ("The capital of France is"), of ``OFTEN`` facts that it has read 100
    times or more, and then of as many that it has read one to five times.

    Returns:
        Logits of the next token, (N, V), and the first token of right answers, (N,).
    """
    import torch

    from alignlab.models.base import load_base
    from alignlab.world.facts import RELATIONS, build_world

    model, tokenizer = load_base("300k")
    ends = {name: r.statements[0].endswith("{a}.") for name, r in RELATIONS.items()}
    facts = [f for f in build_world(0).facts if ends[f.relation] and not f.contested]
    kinds = [f for f in facts if f.known], [f for f in facts if 1 <= f.exposure <= 5]
    chosen = [k[i * len(k) // OFTEN] for k in kinds for i in range(OFTEN)]
    logits, right = [], []
    for fact in chosen:
        whole = (
            RELATIONS[fact.relation]
            .statements[0]
            .format(s=fact.subject, a=fact.stated[0])
        )
        begun = whole.removesuffix(f" {fact.stated[0]}.")
        ids = tokenizer(begun, return_tensors="pt").input_ids.to(model.device)
        with torch.no_grad():
            logits.append(model(ids).logits[0, -1].float().cpu())
        right.append(tokenizer(whole).input_ids[ids.shape[1]])
    return torch.stack(logits), torch.tensor(right)


def _compare(temperatures: "Tensor", measured: "Tensor") -> str:
    import torch

    logits, right = often_and_seldom()
    if fault := miscounted(measured, len(right)):
        return fault
    rows = [(logits / t).softmax(1)[torch.arange(FACTS), right] for t in temperatures]
    p = torch.stack(rows).double()
    slack = 5 * ((p * (1 - p)).mean(1) / DRAWS / FACTS).sqrt() + 1e-3
    return unlike_means(temperatures, measured, p.mean(1), slack)


EXERCISES = {
    "00.3": Experiment(
        changed="the temperature",
        measured="the share of draws that are right",
        lowest=0.1,
        highest=5.0,
        hints=(
            "One call of `my_sample` draws one token for every fact. How many calls "
            "make a share?",
            "`(my_sample(logits, T, generator) == right)` for 64 calls, stacked; then "
            "the mean over the calls, and not yet over facts.",
            "`change = measured[-1] - measured[0]`, then `change.mean()` and "
            "`change.std() / len(change) ** 0.5`.",
        ),
        minutes=20,
        stars=2,
        items=FACTS,
        limits=(0.0, 1.0),
        counted=True,
        compare=_compare,
    ),
    "00.4": Interpretation(
        hints=(
            "At temperature 0 the likeliest token is always taken. Was the right one "
            "always the likeliest?",
            "Look at facts one by one: which of them gain by a higher temperature?",
        ),
        minutes=15,
        stars=2,
    ),
}
