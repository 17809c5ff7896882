"""Over-optimisation: how gold rises and falls with the distance from the reference.

Distance is d = √KL to the reference; gain is gold reward above that of the reference.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from alignlab.evaluation.intervals import Interval
from alignlab.seeds import stream

NEAR = 0.5  # nats^½; fits ignore closer points, as d log d has infinite slope at 0

# --- Gao's forms ----------------------------------------------------------------------


@dataclass(frozen=True)
class Form:
    """A curve that is linear in its coefficients, and the distance of its peak."""

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
    """A form with its coefficients, in gain per power of d, in the order of its formula
    (a, b; for the quadratic c, a, b)."""

    form: str
    coefficients: tuple[float, ...]

    def __call__(self, d: Float[np.ndarray, "points"]) -> Float[np.ndarray, "points"]:
        """The gain at each distance, which must be greater than 0."""
        columns = FORMS[self.form].columns(np.asarray(d, float))
        return np.stack(columns, axis=-1) @ np.array(self.coefficients)

    @property
    def peak(self) -> float:
        """The distance d* of the highest gain, a/2b or exp(a/b - 1); infinite if b is
        not positive, since the curve then never turns."""
        b = self.coefficients[-1]
        return math.inf if b <= 0 else FORMS[self.form].top(*self.coefficients)


def fit_form(
    d: Float[np.ndarray, "points"],
    gain: Float[np.ndarray, "points"],
    form: str,
    near: float = NEAR,
) -> Fit:
    """Fit one of ``FORMS`` by least squares.

    Args:
        d: distance, √KL in nats^½.
        gain: gold reward above that at d = 0.
        form: "best-of-n", "RL" or "quadratic".
        near: points closer than this are left out; higher leaves out more.

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
        raise ValueError("d and gain: expected equally many finite numbers")
    far = d >= near
    columns = np.stack(FORMS[form].columns(d[far]), axis=-1)
    if len(columns) < columns.shape[1]:
        raise ValueError(
            f"{len(columns)} points are {near} or more away, and the form {form!r} has "
            f"{columns.shape[1]} coefficients: measure more of them, or lower near"
        )
    coefficients = np.linalg.lstsq(columns, gain[far], rcond=None)[0]
    return Fit(form, tuple(coefficients.tolist()))


class Curve(NamedTuple):
    """Distances and gains along one run, or of best-of-n by one reward model."""

    d: np.ndarray
    gain: np.ndarray


def can_be_fitted(curves: Sequence[Curve], form: str, near: float = NEAR) -> bool:
    """Whether every curve has enough points that are ``near`` or further away."""
    needed = len(FORMS[form].columns(np.ones(1)))
    return all(np.sum(np.asarray(curve.d) >= near) >= needed for curve in curves)


def fit_curves(curves: Sequence[Curve], form: str, near: float = NEAR) -> Fit:
    """:func:`fit_form` of the points of several curves together."""
    d, gain = (np.concatenate([np.asarray(c[i]) for c in curves]) for i in (0, 1))
    return fit_form(d, gain, form, near)


def held_out_error(curves: Sequence[Curve], form: str, near: float = NEAR) -> float:
    """Root mean square error, in gain, of predicting each curve from a fit to the
    others: how well the form carries over to another reward model.

    Raises:
        ValueError: if there is only one curve.
    """
    if len(curves) < 2:
        raise ValueError(f"curves: {len(curves)}; holding one out needs at least 2")
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
    """The peak d* of a fit to all curves, with a percentile interval from a bootstrap
    over curves: the unit is the reward model, not the point.

    Resamples that never turn have an infinite peak, so limits may be infinite. With
    three curves there are only ten distinct resamples and the interval is rough; with
    one its limits are infinite.

    Args:
        curves: one for each reward model.
        form, near: see :func:`fit_form`.
        level: coverage; higher is wider.
        draws: number of resamples; more are more precise.
        seed: of the resamples.
    """
    peak = fit_curves(curves, form, near).peak
    if len(curves) < 2:
        return Interval(peak, -math.inf, math.inf)
    random = stream(seed, "peak interval")
    peaks = []
    for _ in range(draws):
        drawn = random.integers(len(curves), size=len(curves))
        peaks.append(fit_curves([curves[i] for i in drawn], form, near).peak)
    # No interpolation, which fails between a number and infinity.
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(peaks, tails, method="inverted_cdf")
    return Interval(peak, float(low), float(high))


# --- A peak without selection bias ----------------------------------------------------


class Turn(NamedTuple):
    """Index of the point picked as the peak, and rise and fall on other prompts."""

    point: int
    rise: float
    fall: float


def turn(
    golds: Float[np.ndarray, "points prompts"], picking: Bool[np.ndarray, "prompts"]
) -> Turn:
    """Find where gold peaks on some prompts, and measure on the *others* its rise from
    the first point to there and its fall (negative) from there to the last.

    The highest of several noisy points is biased upwards, so that gold would seem to
    fall after it even if it did not. On other prompts the noise is independent.

    Args:
        golds: mean gold of each prompt's replies, at each point of a run.
        picking: mask of the prompts that pick the peak; the rest measure.

    Raises:
        ValueError: if the shapes do not match, or all prompts are on one side.
    """
    golds, picking = np.asarray(golds, float), np.asarray(picking, bool)
    if golds.ndim != 2 or picking.shape != golds.shape[1:]:
        raise ValueError(
            f"golds have shape {golds.shape} and picking {picking.shape}: expected "
            "(points, prompts) and (prompts,)"
        )
    if picking.all() or not picking.any():
        raise ValueError("picking: some prompts must pick the peak and others measure")
    point = int(golds[:, picking].mean(axis=1).argmax())
    means = golds[:, ~picking].mean(axis=1)
    return Turn(point, float(means[point] - means[0]), float(means[-1] - means[point]))
