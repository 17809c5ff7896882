"""What a reader of notebook 06 measures and explains: what best-of-n finds, if the
errors of the proxy have heavy tails.
"""

from functools import cache
from typing import TYPE_CHECKING

from alignlab.course.exercise import Interpretation
from alignlab.course.experiment import Experiment, unlike_means

if TYPE_CHECKING:
    from torch import Tensor

POOL = 256  # replies to each request
REQUESTS = 100
JUDGING = 1000  # requests that a report is held against


def heavy_tailed_pool(seed: int, requests: int = REQUESTS) -> tuple["Tensor", "Tensor"]:
    """Proxy reward and gold of ``POOL`` replies to each request, (requests, POOL). Gold
    is normal; the proxy adds errors with Student's t distribution of two degrees of
    freedom, a few of which are far larger than all gold."""
    import torch

    from alignlab.seeds import stream

    rng = stream(seed, "heavy-tailed proxies")
    gold = rng.standard_normal((requests, POOL))
    proxy = gold + rng.standard_t(2, (requests, POOL))
    return torch.tensor(proxy), torch.tensor(gold)


@cache
def _expected(n: int) -> tuple[float, float]:
    """Mean and spread, over requests, of the gold of the best of n."""
    from alignlab.evaluation.best_of_n import best_of_n_values

    proxy, gold = heavy_tailed_pool(seed=1, requests=JUDGING)
    values = best_of_n_values(proxy.numpy(), gold.numpy(), n)
    return float(values.mean()), float(values.std())


def _compare(ns: "Tensor", measured: "Tensor") -> str:
    import torch

    if (ns != ns.round()).any():
        return "settings that are no whole numbers: n counts replies"
    means, spreads = torch.tensor([_expected(int(n)) for n in ns]).double().T
    slack = 5 * spreads * (1 / measured.shape[1] + 1 / JUDGING) ** 0.5
    return unlike_means(ns, measured, means, slack)


EXERCISES = {
    "06.2": Experiment(
        changed="n",
        measured="the expected gold of the best of n",
        lowest=1,
        highest=POOL,
        hints=(
            "`my_best_of_n` takes the replies to one request. Which of its arguments "
            "changes from row to row of your report?",
            "A list of `float(my_best_of_n(p, g, n))` over the rows of the pool, for "
            "each n.",
            "`change = measured[-1] - measured[0]`, then `change.mean()` and "
            "`change.std() / len(change) ** 0.5`.",
        ),
        minutes=20,
        stars=2,
        start=1,
        items=50,
        limits=(-10.0, 10.0),
        compare=_compare,
    ),
    "06.3": Interpretation(
        hints=(
            "Of the best reply by proxy, how much of its proxy reward is gold, and "
            "how much is error? How does that change with n?",
            "Compare with errors of the same spread that are normal: how far out is "
            "the largest of 256?",
        ),
        minutes=15,
        stars=3,
    ),
}
