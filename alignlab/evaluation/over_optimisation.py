"""Over-optimisation: what best-of-n and a trained policy gain, and where it turns.

Distance is d = √KL to the policy that was started from; gain is gold reward above that
policy's. Curves of several reward models are fitted together, and their peak is as
uncertain as these models differ.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from alignlab.evaluation.intervals import Interval

NEAR = 0.5  # nats^½; d log d has an infinite slope at 0, so no fit looks closer

# --- Best of n ------------------------------------------------------------------------


def best_of_n_values(
    proxies: Float[np.ndarray, "prompts samples"],
    values: Float[np.ndarray, "prompts samples"],
    n: int,
) -> Float[np.ndarray, "prompts"]:
    r"""What the reply that the proxy likes best of n is worth, for each prompt, without
    a draw: the mean over all ways to take n of the N samples.

    .. math:: \sum_{i=1}^{N} \binom{i-1}{n-1} \Big/ \binom{N}{n} \; v_{(i)}

    with :math:`v_{(i)}` the value of the sample of rank i by proxy, the lowest first.
    It is unbiased for best-of-n of fresh samples, and has the least variance that N
    samples allow. Samples of equal proxy are drawn between, so they share their
    weights.

    Args:
        proxies: what is best; only its order counts.
        values: what is averaged: gold, or the proxy itself.
        n: samples to choose among; above N/10 the estimate rests on few of them.

    Raises:
        ValueError: if the shapes differ or n is not between 1 and N.

    Source: Nakano et al. (2021), WebGPT, appendix I; Hilton & Gao (2022), Measuring
    Goodhart's law.
    """
    proxies, values = np.asarray(proxies, float), np.asarray(values, float)
    if proxies.ndim != 2 or proxies.shape != values.shape:
        raise ValueError(
            f"proxies have shape {proxies.shape} and values {values.shape}: expected "
            "(prompts, samples) twice"
        )
    count = proxies.shape[1]
    if not 1 <= n <= count:
        raise ValueError(f"n is {n}; of {count} samples it can be 1 to {count}")
    chance = np.array([math.comb(i, n - 1) / math.comb(count, n) for i in range(count)])
    up_to = np.concatenate([[0.0], chance.cumsum()])
    return np.array(
        [
            _shared(row, up_to) @ worth
            for row, worth in zip(proxies, values, strict=True)
        ]
    )


def _shared(proxies: np.ndarray, up_to: np.ndarray) -> np.ndarray:
    """How probable each sample is to be taken; ``up_to[i]`` is the probability that one
    of the i lowest is."""
    _, level, sizes = np.unique(proxies, return_inverse=True, return_counts=True)
    last = sizes.cumsum()
    return ((up_to[last] - up_to[last - sizes]) / sizes)[level]


# --- Gao's forms ----------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """A curve that is linear in its coefficients, and where it is highest."""

    formula: str
    columns: Callable[[np.ndarray], list[np.ndarray]]
    top: Callable[..., float]


def _top_of_parabola(*coefficients: float) -> float:
    a, b = coefficients[-2:]
    return max(0.0, a / (2 * b))


FORMS: Mapping[str, Form] = {
    "best-of-n": Form("d (a - b d)", lambda d: [d, -(d**2)], _top_of_parabola),
    "RL": Form(
        "d (a - b log d)",
        lambda d: [d, -d * np.log(d)],
        lambda a, b: math.exp(min(a / b - 1, 700)),
    ),
    "quadratic": Form(
        "c + a d - b d²", lambda d: [np.ones_like(d), d, -(d**2)], _top_of_parabola
    ),
}


@dataclass(frozen=True)
class Fit:
    """A form with its coefficients, in gain per power of d, as the formula names them
    from left to right (a, b; the quadratic has c before them)."""

    form: str
    coefficients: tuple[float, ...]

    def __call__(self, d: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points"]:
        """The gain at each distance, which must be greater than 0."""
        columns = FORMS[self.form].columns(np.asarray(d, float))
        return np.stack(columns, axis=-1) @ np.array(self.coefficients)

    @property
    def peak(self) -> float:
        """The distance d* of the highest gain, a/2b or exp(a/b - 1); infinite where b
        is not positive, for then the curve never turns."""
        b = self.coefficients[-1]
        return math.inf if b <= 0 else FORMS[self.form].top(*self.coefficients)


def fit_form(
    d: Float[np.ndarray, "points"],
    gain: Float[np.ndarray, "points"],
    form: str,
    near: float = NEAR,
) -> Fit:
    """Least squares of one of ``FORMS``.

    Args:
        d: distance, √KL in nats^½.
        gain: gold reward above that at d = 0.
        form: "best-of-n", "RL" or "quadratic".
        near: points closer than this are left out.

    Raises:
        ValueError: if the form is unknown, a number is not finite, or fewer points are
            left than the form has coefficients.

    Source: Gao, Schulman & Hilton (2023), Scaling laws for reward model
    overoptimization, eq. 1 and 2.
    """
    if form not in FORMS:
        raise ValueError(f"form is {form!r}; it can be one of {sorted(FORMS)}")
    d, gain = np.asarray(d, float), np.asarray(gain, float)
    if d.shape != gain.shape or not np.isfinite([d, gain]).all():
        raise ValueError("d and gain: expected as many finite numbers in each")
    far = d >= near
    columns = np.stack(FORMS[form].columns(d[far]), axis=-1)
    if len(columns) < columns.shape[1]:
        raise ValueError(
            f"{len(columns)} points are {near} or more away, and the form {form!r} has "
            f"{columns.shape[1]} coefficients: measure more of them, or lower near"
        )
    found = np.linalg.lstsq(columns, gain[far], rcond=None)[0]
    return Fit(form, tuple(found.tolist()))


class Curve(NamedTuple):
    """One run, or best-of-n by one reward model: distances and gains at its points."""

    d: np.ndarray
    gain: np.ndarray


def can_be_fitted(curves: Sequence[Curve], form: str, near: float = NEAR) -> bool:
    """Whether enough points are far enough, in every curve: of a run that never left
    the start nothing can be said."""
    needed = len(FORMS[form].columns(np.ones(1)))
    return all(np.sum(np.asarray(curve.d) >= near) >= needed for curve in curves)


def fit_curves(curves: Sequence[Curve], form: str, near: float = NEAR) -> Fit:
    """:func:`fit_form` of the points of several curves together."""
    d, gain = (np.concatenate([np.asarray(c[i]) for c in curves]) for i in (0, 1))
    return fit_form(d, gain, form, near)


def held_out_error(curves: Sequence[Curve], form: str, near: float = NEAR) -> float:
    """Root mean square error, in gain, at the points of each curve of a fit to the
    others: how well the form foretells what another reward model's run will do.

    Raises:
        ValueError: if there is only one curve.
    """
    if len(curves) < 2:
        raise ValueError(f"curves: {len(curves)}; one is held out, so it takes two")
    errors = []
    for place, (d, gain) in enumerate(curves):
        others = [curve for i, curve in enumerate(curves) if i != place]
        far = np.asarray(d) >= near
        fit = fit_curves(others, form, near)
        errors.append(fit(np.asarray(d)[far]) - np.asarray(gain)[far])
    return float(np.sqrt(np.mean(np.concatenate(errors) ** 2)))


def peak_interval(
    curves: Sequence[Curve],
    form: str,
    near: float = NEAR,
    level: float = 0.95,
    draws: int = 1000,
    seed: int = 0,
) -> Interval:
    """The peak d* of all curves together, with a percentile interval of the bootstrap
    over curves: reward models are the unit, not the points of one run.

    A limit is infinite where so many resamples never turn. Three curves have only ten
    different resamples, so their interval is a rough one; one has limits that are
    infinite.

    Args:
        curves: one of each reward model.
        form, near: see :func:`fit_form`.
        level: coverage; higher is wider.
        draws: resamples.
        seed: of these.
    """
    peak = fit_curves(curves, form, near).peak
    if len(curves) < 2:
        return Interval(peak, -math.inf, math.inf)
    random = np.random.default_rng(seed)
    peaks = []
    for _ in range(draws):
        drawn = random.integers(len(curves), size=len(curves))
        peaks.append(fit_curves([curves[i] for i in drawn], form, near).peak)
    # Not interpolated: halfway between a number and infinity is nowhere.
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(peaks, tails, method="inverted_cdf")
    return Interval(peak, float(low), float(high))


# --- A peak that luck has not picked --------------------------------------------------


class Turn(NamedTuple):
    """The point that was picked as the peak, and what other prompts say about it."""

    point: int
    rise: float
    fall: float


def turn(
    golds: Float[np.ndarray, "points prompts"], picking: Bool[np.ndarray, "prompts"]
) -> Turn:
    """Where gold is highest on some prompts, and on the *others* how far it has risen
    there since the first point, and how far it has fallen (below 0) by the last.

    The highest of several noisy points is partly so by luck, and whatever is compared
    with it would seem to fall. On other prompts the luck is not the same.

    Args:
        golds: mean gold of each prompt's replies at each point of a run, in its order.
        picking: which prompts pick the peak; the rest measure.

    Raises:
        ValueError: if the shapes do not fit, or either half is empty.
    """
    golds, picking = np.asarray(golds, float), np.asarray(picking, bool)
    if golds.ndim != 2 or picking.shape != golds.shape[1:]:
        raise ValueError(
            f"golds have shape {golds.shape} and picking {picking.shape}: expected "
            "(points, prompts) and (prompts,)"
        )
    if picking.all() or not picking.any():
        raise ValueError("picking: some prompts must pick the peak, and others measure")
    point = int(golds[:, picking].mean(axis=1).argmax())
    seen = golds[:, ~picking].mean(axis=1)
    return Turn(point, float(seen[point] - seen[0]), float(seen[-1] - seen[point]))
