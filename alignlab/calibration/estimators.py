"""Recalibration as scikit-learn estimators: fit on one split, evaluate on another.

Three take logits (temperature, vector, matrix), one a score (Platt), three a confidence
(beta, isotonic, histogram). All have ``predict_proba``, (n, classes).

Options that were masked out of the logits (-inf, -1e9, -1e4, the smallest number of the
type) have no part in a fit and get probability 0.
"""

import warnings
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray
from scipy.optimize import minimize
from scipy.special import expit, log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, validate_data

from alignlab.calibration.checks import (
    as_array,
    check_probabilities,
    check_same_length,
    check_weights,
    warn_if_reordered,
)
from alignlab.calibration.logits import (
    MASKED,
    depths_of,
    masked_depth,
    padded,
    require_columns_in_order,
    require_none_masked,
    require_right_not_masked,
    spread_of,
    warn_of_probabilities,
    without_tensors,
)
from alignlab.calibration.metrics import Strategy, bin_index, tally
from alignlab.calibration.temperatures import WIDEST, least_brier, least_log_loss

Loss = Literal["nll", "brier"]
SEPARATED = 1e-6  # nats per item: no likelihood is left to gain
FAR = 1e3  # times the usual distance from the median: hardly a score


# --- From logits ------------------------------------------------------------------


class _FromLogits(ClassifierMixin, BaseEstimator):
    """Takes (n, K) logits, or (n,) log-odds of the second class."""

    def fit(
        self,
        X: Float[ndarray, "items classes"],
        y: Int[ndarray, "items"],
        sample_weight: Float[ndarray, "items"] | None = None,
    ):
        """Fit to logits and labels; returns the estimator.

        Args:
            X: (n, K) logits or log-probabilities, one column per class; or (n,)
                log-odds of the second of two classes. A list may have rows of different
                lengths, as from ``multiple_choice``. Masked options are those at -inf,
                and those below -1,000 that are as much below their row's largest logit
                and ten times as far from it as any other. If you have probabilities,
                pass their logarithm.
            y: the right class: 0 to K-1, or any K labels in sorted order.
            sample_weight: how much each item counts; None counts each once.

        Raises:
            ValueError: if X holds NaN or plus infinity, lengths differ, labels do not
                fit the columns, there is a single class, or the right class of an item
                is masked.
        """
        X = padded(X)
        array, y, weights, rows = _read_training(self, X, y, sample_weight)
        logits = self._logits(array)
        self.classes_, codes = _classes_of_columns(y, logits.shape[1])
        require_columns_in_order(X, self.classes_)
        warn_of_probabilities(array)
        self._masked_depth = masked_depth(logits) if array.shape[1] > 1 else np.inf
        logits = self._without_masked(logits)
        self._some_masked = bool(np.isneginf(logits).any())
        require_right_not_masked(logits, array, codes, y, rows)
        self._fit(logits, codes, weights / weights.sum())
        return self

    def predict_proba(self, X) -> Float[ndarray, "items classes"]:
        """Recalibrated probabilities, one column for each of ``classes_``; 0 for masked
        options."""
        check_is_fitted(self)
        X = padded(X, self.n_features_in_ if self._some_masked else 0)
        logits = self._without_masked(self._logits(_read(self, X, reset=False)))
        return softmax(self._recalibrate(logits), axis=1)

    def predict(self, X) -> ndarray:
        """The likeliest class."""
        likeliest = self.predict_proba(X).argmax(axis=1)
        return self.classes_[likeliest]

    def _logits(self, array) -> Float[ndarray, "items classes"]:
        """Two logits for the log-odds of the second class; logits as they are."""
        return np.hstack([0 * array, array]) if array.shape[1] == 1 else array

    def _without_masked(self, logits) -> Float[ndarray, "items classes"]:
        """Masked options at -inf."""
        deep = depths_of(logits) > self._masked_depth
        return np.where(deep & (logits < -MASKED), -np.inf, logits)


class TemperatureScaler(_FromLogits):
    r"""Divides all logits by one number.

    .. math:: \hat p = \mathrm{softmax}(z / T), \quad
        T = \arg\min \, -\textstyle\sum_i \log \hat p_{i, y_i}
        \quad \text{or} \quad
        \arg\min \, \textstyle\sum_{ik} (\hat p_{ik} - [y_i = k])^2

    The order of the classes, and so the accuracy, does not change. T above 1 makes
    confidences smaller (the model was over-confident), below 1 larger.

    Both losses have their optimum at the true probabilities, so where one temperature
    mends the model they agree, and "nll" is the less noisy. Where none does, they
    differ. The log loss of an item that is sure and wrong has no bound: a few items
    that nobody could know can decide T, and make the model too unsure of all others.
    The Brier score of an item is at most 2. Take "brier" if items of both kinds are
    mixed; take "nll" if the probabilities will be judged by log loss.

    The log loss has a single optimum in log T, where its slope is 0. The Brier score
    may have several: T is the best on a grid, refined. With either, T cannot diverge or
    become negative.

    There is a ``ConvergenceWarning`` wherever there is no optimum: if every answer is
    right T is the lower bound, and if the logits are no better than chance the upper
    one. The Brier score can also be least at the lower bound: if few answers are wrong
    and these are among the surest. The bounds are exp(-10) and exp(10) times the median
    distance of an option's logit from its row's largest. Of logits that are constant in
    every row, T is 1.

    The pairs of a reward model are always (chosen, rejected). Recalibrate it with
    ``fit(abs(margin), margin > 0)``: the log-odds of its answer, and whether that was
    right.

    Args:
        loss: "nll" for the log loss, "brier" for the Brier score over all classes.

    Attributes:
        temperature_: T.
        classes_: the labels, in the order of the columns.

    Raises:
        ValueError: on fitting, if the loss is another.

    Source: Guo et al. (2017), section 4.2; the Brier score as its loss: Brier (1950).
    """

    def __init__(self, loss: Loss = "nll"):
        self.loss = loss

    def _fit(self, logits, codes, weights):
        if self.loss not in Loss.__args__:
            raise ValueError(f"loss is {self.loss!r}; it can be one of {Loss.__args__}")
        depths = depths_of(logits)
        spread = spread_of(depths, logits)
        if spread == 0:
            self.temperature_ = 1.0
            _warn("no temperature is best: every row is constant. temperature_ is 1")
            return
        right = depths[np.arange(len(codes)), codes]
        if not right.any():
            log_t, reason = -WIDEST, "every answer is right"
        elif self.loss == "nll":
            gaps = (right[:, None] - depths) / spread  # to the right class
            log_t, reason = least_log_loss(gaps, weights)
        else:
            log_t, reason = least_brier(-depths / spread, codes, weights)
        self.temperature_ = float(spread * np.exp(log_t))
        if reason is not None:
            _warn(
                f"no temperature is best: {reason}. temperature_ is "
                f"{self.temperature_:g}, the bound of the search"
            )

    def _recalibrate(self, logits):
        return logits / self.temperature_


class VectorScaler(_FromLogits):
    r"""A factor and an offset for each class.

    .. math:: \hat p = \mathrm{softmax}(w \odot z + b)

    It can correct a bias towards a letter or a class, which a temperature cannot. With
    2K - 1 parameters it needs more data. The accuracy can change.

    Attributes:
        coef_: w, (K,).
        intercept_: b, (K,), summing to 0.
        classes_: the labels, in the order of the columns.

    Raises:
        ValueError: on fitting, also if one of the classes never occurs in y: its offset
            would be minus infinity.

    Source: Guo et al. (2017), section 4.2.
    """

    def _fit(self, logits, codes, weights):
        _require_every_class(codes, logits.shape[1])
        masked, classes = np.isneginf(logits), logits.shape[1]
        scale = np.std(logits[~masked]) or 1.0
        z = np.where(masked, 0.0, logits / scale)
        right = np.zeros_like(z)
        right[np.arange(len(z)), codes] = 1.0

        def loss_and_gradient(parameters):
            factor, offset = parameters.reshape(2, classes)
            scaled = np.where(masked, -np.inf, factor * z + offset)
            error = weights[:, None] * (softmax(scaled, axis=1) - right)
            gradient = np.concatenate([(error * z).sum(axis=0), error.sum(axis=0)])
            return _cross_entropy(scaled, codes, weights), gradient

        start = np.concatenate([np.full(classes, scale), np.zeros(classes)])
        result = minimize(
            loss_and_gradient,
            start,
            jac=True,
            method="L-BFGS-B",
            options={"maxiter": 2000, "ftol": 1e-15, "gtol": 1e-9},
        )
        if result.fun < SEPARATED:
            _warn("every answer can be made right, and the factors grow without end")
        elif not result.success:
            _warn(f"the fit stopped early ({result.message})")
        factor, offset = result.x.reshape(2, classes)
        self.coef_, self.intercept_ = factor / scale, offset - offset.mean()

    def _recalibrate(self, logits):
        scaled = self.coef_ * np.where(np.isneginf(logits), 0.0, logits)
        return np.where(np.isneginf(logits), -np.inf, scaled + self.intercept_)


class MatrixScaler(_FromLogits):
    r"""A full linear map of the logits: multinomial logistic regression on them.

    .. math:: \hat p = \mathrm{softmax}(W z + b)

    With K (K + 1) parameters it fits the calibration split best and over-fits it first.

    Args:
        C: inverse regularisation, as in scikit-learn. A lower C shrinks W towards 0 and
            over-fits less with little data; infinite is maximum likelihood.

    Attributes:
        coef_: W, (K, K). ``intercept_``: b, (K,).
        classes_: the labels, in the order of the columns.

    Raises:
        ValueError: on fitting, also if one of the classes never occurs in y, or an
            option is masked: W mixes all logits of an item.

    Source: Guo et al. (2017), section 4.2; computed by scikit-learn's
    ``LogisticRegression``.
    """

    def __init__(self, C: float = np.inf):
        self.C = C

    def _fit(self, logits, codes, weights):
        _require_every_class(codes, logits.shape[1])
        require_none_masked(logits)
        scale = np.sqrt((weights @ logits**2).mean()) or 1.0
        regression = LogisticRegression(C=self.C, tol=1e-8, max_iter=5000)
        # scikit-learn weighs C against a sum over items: let weights sum to n.
        regression.fit(logits / scale, codes, sample_weight=weights * len(codes))
        coef, offset = regression.coef_ / scale, regression.intercept_
        if len(coef) == 1:  # of two classes it keeps only the second
            halves = np.array([-0.5, 0.5])
            coef, offset = halves[:, None] * coef, halves * offset
        self.coef_, self.intercept_ = coef, offset
        fitted = self._recalibrate(logits)
        if (
            not np.isfinite(self.C)
            and _cross_entropy(fitted, codes, weights) < SEPARATED
        ):
            _warn("every answer can be made right, and W grows without end: lower C")

    def _recalibrate(self, logits):
        require_none_masked(logits)
        return logits @ self.coef_.T + self.intercept_


# --- From one number per prediction -----------------------------------------------


class _FromScore(ClassifierMixin, BaseEstimator):
    """Takes one number per prediction, and gives probabilities of two classes."""

    def fit(
        self,
        X: Float[ndarray, "items"],
        y: Int[ndarray, "items"],
        sample_weight: Float[ndarray, "items"] | None = None,
    ):
        """Fit to scores or confidences and labels; returns the estimator.

        Args:
            X: one number per prediction, (n,) or (n, 1).
            y: whether the predicted event happened, 0 or 1; or any two labels, of which
                X predicts the second in sorted order.
            sample_weight: how much each item counts; None counts each once.

        Raises:
            ValueError: if X holds NaN or infinite values, or a confidence outside
                [0, 1]; if lengths differ or there are not two classes.
        """
        array, y, weights, _ = _read_training(self, X, y, sample_weight)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) > 2:
            first = int(np.flatnonzero(codes == 2)[0])
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"multiclass: y[{first}] is {y[first]}, a third class"
            )
        self._fit(self._score(array), codes, weights)
        return self

    def predict_proba(self, X) -> Float[ndarray, "items 2"]:
        """Recalibrated probabilities of both ``classes_``; column 1 is the event's."""
        check_is_fitted(self)
        event = self._recalibrate(self._score(_read(self, X, reset=False)))
        return np.column_stack([1 - event, event])

    def predict(self, X) -> ndarray:
        """The likelier class."""
        likelier = self.predict_proba(X)[:, 1] >= 0.5
        return self.classes_[likelier.astype(int)]

    def _score(self, array) -> Float[ndarray, "items"]:
        if array.shape[1] != 1:
            raise ValueError(
                f"X has {array.shape[1]} columns; expected one number per prediction, "
                "(n,) or (n, 1)"
            )
        return array[:, 0]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags


class PlattScaler(_FromScore):
    r"""A logistic curve of any score: a logit, a margin, a reward difference.

    .. math:: \hat p = \sigma(a s + b)

    The targets are Platt's: a little inside 0 and 1, as if one more of each class had
    been seen, so that separable data give finite parameters. If you have confidences,
    pass their log-odds (``scipy.special.logit``); the identity is then one of the
    curves. A score far away from all others, such as -1e9 for "none", can bend the
    curve for all, and gives a warning.

    Attributes:
        coef_: a. ``intercept_``: b. ``classes_``: the two labels.

    Source: Platt (1999); fitted by scikit-learn's ``LogisticRegression``.
    """

    def _fit(self, score, codes, weights):
        _warn_of_far_scores(score)
        wrong, right = weights[codes == 0].sum(), weights[codes == 1].sum()
        target = np.where(codes == 1, (right + 1) / (right + 2), 1 / (wrong + 2))
        centre, scale = score.mean(), np.std(score) or 1.0
        # Each item enters as both classes, with its target's share of its weight.
        twice = np.concatenate([score, score])[:, None]
        classes = np.repeat([1, 0], len(score))
        shares = np.concatenate([weights * target, weights * (1 - target)])
        regression = _maximum_likelihood()
        regression.fit((twice - centre) / scale, classes, sample_weight=shares)
        self.coef_ = float(regression.coef_[0, 0] / scale)
        self.intercept_ = float(regression.intercept_[0] - self.coef_ * centre)

    def _recalibrate(self, score):
        return expit(self.coef_ * score + self.intercept_)


class _FromConfidence(_FromScore):
    def _score(self, array) -> Float[ndarray, "items"]:
        return check_probabilities(super()._score(array), "X")


class BetaCalibrator(_FromConfidence):
    r"""A monotone curve from [0, 1] onto itself: an S, an inverse S, or bent to one
    side. The identity is one of them.

    .. math:: \log\frac{\hat p}{1 - \hat p} = a \log p - b \log(1 - p) + c,
        \quad a, b \ge 0

    Attributes:
        a_, b_, c_: the three parameters. ``classes_``: the two labels.

    Source: Kull et al. (2017); fitted by scikit-learn's ``LogisticRegression``. A
    negative coefficient is set to 0 and the others are fitted again.
    """

    def _fit(self, confidence, codes, weights):
        features = _log_pair(confidence)
        used, coef = np.array([True, True]), np.zeros(2)
        regression = _maximum_likelihood()
        while used.any():
            regression.fit(features[:, used], codes, sample_weight=weights)
            coef[used], coef[~used] = regression.coef_[0], 0.0
            if (coef >= 0).all():
                break
            used &= coef > coef.min()
        if used.any():
            offset = regression.intercept_[0]
        else:  # confidence falls with the outcome: only the base rate is left
            share = np.average(codes, weights=weights)
            offset = np.log(share) - np.log1p(-share)
        self.a_, self.b_ = map(float, np.where(used, coef, 0.0))
        self.c_ = float(offset)

    def _recalibrate(self, confidence):
        return expit(_log_pair(confidence) @ [self.a_, self.b_] + self.c_)


class IsotonicCalibrator(_FromConfidence):
    """The best-fitting non-decreasing curve: a staircase.

    It assumes only the order, so it needs much data: with little it over-fits, and its
    ends are often exactly 0 and 1, which the log loss punishes. It interpolates between
    the steps and is constant beyond them.

    Attributes:
        isotonic_: the fitted ``IsotonicRegression``. ``classes_``: the two labels.

    Source: Zadrozny & Elkan (2002); computed by scikit-learn (pool adjacent violators).
    """

    def _fit(self, confidence, codes, weights):
        self.isotonic_ = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip")
        self.isotonic_.fit(confidence, codes, sample_weight=weights)

    def _recalibrate(self, confidence):
        return self.isotonic_.predict(confidence)


class HistogramCalibrator(_FromConfidence):
    """Replaces each confidence by the accuracy of its bin, or by the bin's middle where
    it is empty. Confidences in the same bin become equal.

    Args:
        n_bins: more bins follow the curve more closely, but each is less certain.
        strategy: "uniform" for equal widths, "quantile" for equal numbers.

    Attributes:
        edges_: (bins + 1,). ``accuracy_``: (bins,). ``classes_``: the two labels.

    Source: Zadrozny & Elkan (2001).
    """

    def __init__(self, n_bins: int = 15, strategy: Strategy = "uniform"):
        self.n_bins = n_bins
        self.strategy = strategy

    def _fit(self, confidence, codes, weights):
        t = tally(confidence, codes, self.n_bins, self.strategy, weights)
        middle = (t.edges[1:] + t.edges[:-1]) / 2
        self.edges_ = t.edges
        self.accuracy_ = np.divide(t.correct, t.weight, middle, where=t.weight > 0)

    def _recalibrate(self, confidence):
        return self.accuracy_[bin_index(confidence, self.edges_)]


# --- Shared -----------------------------------------------------------------------


def _cross_entropy(logits, codes, weights) -> float:
    """Weighted mean of -log softmax at the right class; the weights sum to 1."""
    return float(-weights @ log_softmax(logits, axis=1)[np.arange(len(codes)), codes])


def _warn(text: str) -> None:
    warnings.warn(text, ConvergenceWarning, stacklevel=4)


def _maximum_likelihood() -> LogisticRegression:
    return LogisticRegression(C=np.inf, tol=1e-10, max_iter=1000)


def _warn_of_far_scores(score: Float[ndarray, "items"]) -> None:
    distance = np.abs(score - np.median(score))
    apart = distance[distance > 0]
    far = distance > FAR * (np.median(apart) if len(apart) else 0.0)
    if far.any():
        first = int(np.argmax(distance))
        warnings.warn(
            f"{far.sum()} of {len(score)} scores lie more than {FAR:g} times as far "
            f"from the median as scores usually do, such as {score[first]:g}, and can "
            "bend the curve for all: leave them out if they stand for no score",
            stacklevel=4,
        )


def _log_pair(confidence) -> Float[ndarray, "items 2"]:
    """log p and -log(1 - p), finite also at 0 and 1."""
    smallest = np.finfo(float).eps
    p = np.clip(confidence, smallest, 1 - smallest)
    return np.column_stack([np.log(p), -np.log1p(-p)])


def _read_training(estimator, X, y, sample_weight) -> tuple[ndarray, ...]:
    """(n, columns), labels, weights and row numbers, of the items with a weight above
    0."""
    if y is None:
        raise ValueError("requires y to be passed, but the target y is None")
    warn_if_reordered(X=X, y=y)
    array = _read(estimator, X, reset=True)
    y = column_or_1d(without_tensors(y, "y"), warn=True)
    if y.dtype.kind == "f" and not np.isfinite(y).all():
        first = int(np.flatnonzero(~np.isfinite(y))[0])
        raise ValueError(f"y[{first}] is {_text(y[first])}; labels must be finite")
    check_classification_targets(y)
    check_same_length(X=array, y=y)
    weights = np.ones(len(y))
    if sample_weight is not None:
        weights = as_array(sample_weight, "sample_weight").astype(float)
        weights = np.full(len(y), weights) if weights.ndim == 0 else weights
    counted = np.flatnonzero(check_weights(weights, len(y)).reshape(-1) > 0)
    array, y, weights = array[counted], y[counted], weights.reshape(-1)[counted]
    if (y == y[0]).all():
        raise ValueError(
            f"y holds a single class, {y[0]}, from y[0] on: at least two classes are "
            "needed (of pairs, pass the model's answer and whether it was right)"
        )
    return array, y, weights, counted


def _read(estimator, X, reset: bool) -> Float[ndarray, "items columns"]:
    """Numbers in columns; one number per item is one column. Of several logits some
    may be minus infinity, all others are finite."""
    X = without_tensors(X, "X")
    X = np.asarray(X) if isinstance(X, (list, tuple)) else X
    if getattr(X, "ndim", 0) == 1 and (reset or estimator.n_features_in_ == 1):
        X = np.asarray(X).reshape(-1, 1)
    fewest = 2 if reset else 1
    array = validate_data(
        estimator,
        X,
        dtype=np.float64,
        reset=reset,
        ensure_all_finite=False,  # checked below, naming the first wrong entry
        ensure_min_samples=fewest,
    )
    good = np.isfinite(array)
    if array.shape[1] > 1 and isinstance(estimator, _FromLogits):
        masked = np.isneginf(array)
        good |= masked & ~masked.all(axis=1, keepdims=True)
    if not good.all():
        row, column = np.argwhere(~good)[0]
        value = _text(array[row, column])
        raise ValueError(f"X[{row}, {column}] is {value}; numbers must be finite")
    return array


def _text(value: float) -> str:
    return "NaN" if np.isnan(value) else str(value)


def _classes_of_columns(y, columns: int) -> tuple[ndarray, Int[ndarray, "items"]]:
    """The label of each column, and each item's column."""
    labels, codes = np.unique(y, return_inverse=True)
    if len(labels) == columns:
        return labels, codes
    whole = labels.dtype.kind in "iu" or (
        labels.dtype.kind == "f" and (labels % 1 == 0).all()
    )
    if not whole or labels[0] < 0 or labels[-1] >= columns:
        raise ValueError(
            f"y has {len(labels)} classes and X {columns} columns: expected one column "
            "per class, or labels from 0 to the number of columns minus 1"
        )
    return np.arange(columns), y.astype(np.intp)


def _require_every_class(codes, classes: int) -> None:
    missing = np.flatnonzero(np.bincount(codes, minlength=classes) == 0)
    if len(missing):
        raise ValueError(
            f"y never has class {missing[0]} of {classes}: it cannot be fitted"
        )
