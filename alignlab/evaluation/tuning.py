"""What tuning is worth: the best of n configurations drawn at random from a space.

A method that does well in one run of forty needs about forty runs to get there; the
expected best of n says what n runs buy.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from alignlab.evaluation.best_of_n import best_of_n_values
from alignlab.evaluation.intervals import Interval, t_interval


def expected_best(
    values: Float[np.ndarray, "seeds trials"],
    n: int,
    measured: Float[np.ndarray, "seeds trials"] | None = None,
) -> Float[np.ndarray, "seeds"]:
    r"""What the best of n trials is worth, for each seed: the mean over all ways to
    draw n of its N trials without replacement.

    .. math:: \mathbb{E}[\max_n] = \sum_{i=n}^{N}
              \frac{\binom{i-1}{n-1}}{\binom{N}{n}} \, v_{(i)}

    with :math:`v_{(1)} \le \dots \le v_{(N)}` the sorted values. It is the mean for
    n = 1, the maximum for n = N, and never falls as n rises. Dodge et al. draw with
    replacement, which can draw the same trial twice and so is too low on average; this
    one is unbiased for trials that are independent draws from the space.

    Args:
        values: what the best is picked by, higher is better, in any unit. A run that
            broke down needs a value too: leaving it out would flatter the method.
        n: trials to pick from; higher is worth more.
        measured: what the picked trial counts, where that is not the same: the best by
            a noisy value flatters itself, but not on other prompts than it was picked
            by. Ties of ``values`` count their mean.

    Returns:
        (seeds,), in the unit of what is counted.

    Raises:
        ValueError: if n is not between 1 and the number of trials, the shapes differ,
            or a value is not finite.

    Source: Dodge et al. (2019), "Show your work"; Tang et al. (2020), "Showing your
    work doesn't always work", for the unbiased form.
    """
    values = np.asarray(values, float)
    measured = values if measured is None else np.asarray(measured, float)
    if not (np.isfinite(values).all() and np.isfinite(measured).all()):
        raise ValueError("every trial needs a finite value, also one that broke down")
    return best_of_n_values(values, measured, n)


def expected_best_curve(
    values: Float[np.ndarray, "seeds trials"],
    ns: Sequence[int] | None = None,
    measured: Float[np.ndarray, "seeds trials"] | None = None,
    level: float = 0.95,
) -> list[Interval]:
    """The expected best of each n, with Student's interval over seeds: a seed's trials
    share its data and its start, so that seeds are what repeats independently.

    Args:
        values, measured: as for :func:`expected_best`.
        ns: by default 1 to the number of trials.
        level: coverage of each n's interval; a higher level gives wider ones.

    Raises:
        ValueError: as there.
    """
    ns = range(1, np.shape(values)[1] + 1) if ns is None else ns
    return [t_interval(expected_best(values, n, measured), level) for n in ns]
