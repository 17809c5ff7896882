"""Every form in which people have probabilities and labels, and what is refused."""

import inspect
import warnings

import numpy as np
import pandas as pd
import pytest
import torch

from alignlab.calibration import (
    IsotonicCalibrator,
    PlattScaler,
    TemperatureScaler,
    all_options,
    area_under_risk_coverage,
    auroc,
    bootstrap_interval,
    brier_decomposition,
    brier_score,
    calibration_error_interval,
    calibration_summary,
    calibration_test,
    classwise_calibration_error,
    consistency_band,
    cumulative_test,
    expected_calibration_error,
    negative_log_likelihood,
    null_calibration_error,
    reliability_curve,
    risk_coverage_curve,
    smooth_calibration_error,
    spiegelhalter_test,
    squared_error_difference,
    squared_error_interval,
    top_label,
)
from alignlab.calibration.ensembles import (
    deep_ensemble,
    ensemble_probabilities,
    ensemble_uncertainty,
)

EVENTS = [
    area_under_risk_coverage,
    auroc,
    brier_decomposition,
    brier_score,
    calibration_error_interval,
    calibration_summary,
    calibration_test,
    cumulative_test,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_curve,
    risk_coverage_curve,
    smooth_calibration_error,
    spiegelhalter_test,
    squared_error_interval,
    lambda p, y: squared_error_difference((p, y), (p, y)),
    lambda p, y: bootstrap_interval(brier_score, p, y, n_resamples=20),
    lambda p, y: null_calibration_error(p, n_samples=5),
    lambda p, y: consistency_band(p, n_samples=5),
    lambda p, y: IsotonicCalibrator().fit(p, y).predict_proba(p),
    lambda p, y: PlattScaler().fit(p, y).predict_proba(p),
]
CLASSES = [
    all_options,
    brier_score,
    classwise_calibration_error,
    negative_log_likelihood,
    top_label,
]


class Foreign:
    """An array of another library, known by ``__array__`` alone."""

    def __init__(self, values):
        self.values = values

    def __array__(self, dtype=None, copy=None):
        return np.asarray(self.values, dtype=dtype)

    def __len__(self):
        return len(self.values)


def events(n=400, seed=0):
    """Confidences that all float types hold exactly, and outcomes."""
    rng = np.random.default_rng(seed)
    confidence = rng.integers(1, 64, n) / 64
    return confidence, (rng.random(n) < confidence).astype(int)


def choices(n=300, classes=4, seed=1):
    """Rows in sixty-fourths, which sum to 1 in all float types, and labels."""
    rng = np.random.default_rng(seed)
    cuts = np.sort(rng.integers(0, 65, (n, classes - 1)), axis=1)
    rows = np.diff(cuts, axis=1, prepend=0, append=64) / 64
    return rows, (rows.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1)


def same(result, expected):
    for a, b in zip(np.atleast_1d(*[result]), np.atleast_1d(*[expected])):
        np.testing.assert_allclose(a, b, rtol=1e-12)


FORMS = {
    "float16": lambda p: p.astype(np.float16),
    "tensor": torch.tensor,
    "bfloat16": lambda p: torch.tensor(p, dtype=torch.bfloat16),
    "half": lambda p: torch.tensor(p, dtype=torch.float16),
    "with gradient": lambda p: torch.tensor(p, requires_grad=True) * 1,
    "bfloat16 with gradient": lambda p: torch.tensor(
        p, dtype=torch.bfloat16, requires_grad=True
    ),
    "list": lambda p: p.tolist(),
    "tuple": lambda p: tuple(p.tolist()),
    "list of tensors": lambda p: list(torch.tensor(p, requires_grad=True)),
    "list of bfloat16": lambda p: list(torch.tensor(p, dtype=torch.bfloat16)),
    "__array__": Foreign,
    "objects": lambda p: p.astype(object),
}
SERIES = {
    "Series": lambda p: pd.Series(p, index=np.arange(len(p))[::-1] + 7),
    "float32 Series": lambda p: pd.Series(p.astype(np.float32)),
    "nullable Series": lambda p: pd.Series(p, dtype="Float64"),
    "DataFrame": lambda p: pd.DataFrame({"confidence": p}),
    "column": lambda p: p[:, None],
    "column tensor": lambda p: torch.tensor(p)[:, None],
}
LABELS = {
    "booleans": lambda y: y.astype(bool),
    "whole floats": lambda y: y.astype(np.float32),
    "tensor": torch.tensor,
    "bool tensor": lambda y: torch.tensor(y).bool(),
    "bfloat16": lambda y: torch.tensor(y).bfloat16(),
    "list": lambda y: y.tolist(),
    "column": lambda y: y[:, None],
    "Series": lambda y: pd.Series(y, index=np.arange(len(y)) * 3),
    "nullable booleans": lambda y: pd.Series(y.astype(bool), dtype="boolean"),
    "categories": lambda y: pd.Series(y).astype("category"),
}


def flat(result):
    parts = result if isinstance(result, tuple) else (result,)
    parts = [part for part in parts if not isinstance(part, str)]
    return np.concatenate([np.ravel(np.asarray(part, dtype=float)) for part in parts])


@pytest.mark.parametrize("form", [*FORMS, *SERIES])
@pytest.mark.parametrize("metric", EVENTS)
@pytest.mark.filterwarnings("ignore")
def test_confidences_in_any_form_give_the_same_numbers(metric, form):
    p, y = events()
    given = {**FORMS, **SERIES}[form](p)
    np.testing.assert_allclose(flat(metric(given, y)), flat(metric(p, y)), rtol=1e-6)


@pytest.mark.parametrize("form", LABELS)
@pytest.mark.parametrize("metric", EVENTS)
@pytest.mark.filterwarnings("ignore")
def test_outcomes_in_any_form_give_the_same_numbers(metric, form):
    p, y = events()
    np.testing.assert_array_equal(flat(metric(p, LABELS[form](y))), flat(metric(p, y)))


@pytest.mark.parametrize("form", [*FORMS, "DataFrame"])
@pytest.mark.parametrize("metric", CLASSES)
def test_rows_in_any_form_give_the_same_numbers(metric, form):
    p, y = choices()
    forms = FORMS | {
        "DataFrame": lambda p: pd.DataFrame(p, index=np.arange(len(p)) * 2),
    }
    np.testing.assert_allclose(
        flat(metric(forms[form](p), y)), flat(metric(p, y)), rtol=1e-12
    )
    np.testing.assert_array_equal(
        flat(metric(p, torch.tensor(y))), flat(metric(p, y[:, None].astype(float)))
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_in_half_precision_are_divided_by_their_sums(dtype):
    """A softmax in half precision sums to 1 within its rounding alone."""
    logits = 2 * torch.randn(500, 7, generator=torch.Generator().manual_seed(0))
    rows = logits.softmax(1).to(dtype)
    labels = np.arange(500) % 7
    exact = rows.double().numpy()
    exact /= exact.sum(axis=1, keepdims=True)
    assert np.abs(rows.double().sum(1).numpy() - 1).max() > 1e-5
    for metric in CLASSES:
        result = metric(rows, labels)
        np.testing.assert_allclose(
            flat(result), flat(metric(exact, labels)), rtol=1e-12
        )
    members = [rows, rows.flip(0)]
    by_hand = (exact + exact[::-1]) / 2
    mean = ensemble_probabilities(deep_ensemble(members, lambda member: member))
    np.testing.assert_allclose(mean, by_hand, rtol=1e-12)
    np.testing.assert_allclose(
        ensemble_probabilities(torch.stack(members)), by_hand, rtol=1e-12
    )
    assert (ensemble_uncertainty(torch.stack(members)).disagreement >= 0).all()


def test_a_column_of_lists_is_read_as_rows():
    p, y = choices()
    for metric in (top_label, all_options):
        result = metric(pd.Series(p.tolist()), y)
        np.testing.assert_array_equal(flat(result), flat(metric(p, y)))


def test_ragged_rows_of_tensors():
    rows = [torch.tensor([0.25, 0.75]), torch.tensor([0.5, 0.25, 0.25]).bfloat16()]
    confidence, correct = top_label(rows, torch.tensor([1, 1]))
    assert confidence.tolist() == [0.75, 0.5] and correct.tolist() == [1, 0]


def test_double_precision_is_not_touched():
    p, y = choices()
    rows = p * (1 + 1e-7)
    assert top_label(rows, y)[0].tolist() == rows.max(axis=1).tolist()
    single = rows.astype(np.float32)
    assert top_label(single, y)[0].dtype == np.float32


# --- What is refused, and how -----------------------------------------------------


@pytest.mark.parametrize(
    ("confidence", "match"),
    [
        ([80.0, 35.0, 90.0], r"confidence\[0\] is 80.0; .*per cent, pass a hundredth"),
        ([-2.1, 0.3, 4.0], r"confidence\[0\] is -2.1; .*of logits, pass their softmax"),
        ([-0.1, -2.3, -0.4], r"\[0\] is -0.1; .*log-probabilities, pass their expon"),
        ([0.5, 1.0000001, 0.2], r"\[1\] is 1.0000001; .*if it is rounding, clip it"),
        (["0.5", "0.2", "0.1"], r"confidence holds text \(0.5\); expected numbers"),
        (np.array([0.5, 0.2, 0.1], dtype="S"), "confidence holds text"),
        (np.array([0.5, 0.2, 0.1]) + 0j, "confidence holds complex numbers"),
        ([0.5, None, 0.1], r"confidence\[1\] is nan"),
        (pd.Series([0.5, None, 0.1], dtype="Float64"), r"confidence\[1\] is nan"),
        (np.ma.array([0.5, 0.2, 0.1], mask=[0, 1, 0]), r"confidence\[1\] is masked"),
        ({0.5, 0.2, 0.1}, "confidence is of type set"),
        (np.full((3, 2), 0.5), r"shape \(3, 2\).*top_label and all_options"),
        ([[0.5], [0.2, 0.3], [0.1]], "confidence is no array of numbers"),
    ],
)
def test_what_is_no_confidence_is_named_with_its_remedy(confidence, match):
    for metric in (expected_calibration_error, calibration_summary, auroc):
        with pytest.raises(ValueError, match=match):
            metric(confidence, [0, 1, 1])


@pytest.mark.parametrize(
    ("correct", "match"),
    [
        (["yes", "no", "yes"], r"correct holds text \(yes\)"),
        (["1", "0", "1"], r"correct holds text \(1\)"),
        ([1, -1, 1], r"correct\[1\] is -1.*pass correct > 0"),
        ([1, 0.5, 1], r"correct\[1\] is 0.5; it can be 0 or 1"),
        (pd.Series([True, None, False], dtype="boolean"), r"correct\[1\] is nan"),
        ([1, np.nan, 0], r"correct\[1\] is nan"),
    ],
)
def test_what_is_no_outcome_is_named_with_its_remedy(correct, match):
    for metric in (expected_calibration_error, calibration_summary, auroc):
        with pytest.raises(ValueError, match=match):
            metric([0.2, 0.5, 0.7], correct)


@pytest.mark.parametrize("metric", CLASSES)
def test_labels_that_cannot_be_meant_are_refused(metric):
    p, y = choices(8)
    with pytest.raises(
        ValueError, match=r"is 4; the classes are 0 to 3 \(of labels fr"
    ):
        metric(p, [1, 2, 3, 4, 4, 3, 2, 1])
    with pytest.raises(ValueError, match="labels are booleans and there are 4 classes"):
        metric(p, y == 0)
    with pytest.raises(ValueError, match="labels hold|labels holds text"):
        metric(p, list("abcdabcd"))
    if metric not in (top_label, all_options):
        with pytest.raises(ValueError, match=r"one-hot labels, pass labels.argmax"):
            metric(p, np.eye(4)[y])
    with pytest.raises(ValueError, match=r"columns 0, 2, 1, 3; sort them"):
        metric(pd.DataFrame(p, columns=[0, 2, 1, 3]), y)
    with pytest.raises(ValueError, match=r"\[0\] sum to 0.998; .*divide each row"):
        metric(p * 0.998, y)


def test_series_in_another_order_are_not_matched_in_silence():
    p, y = events()
    shuffled = pd.Series(y).sample(frac=1, random_state=0)
    with pytest.warns(UserWarning, match="same index in different orders"):
        result = brier_score(pd.Series(p), shuffled)
    assert result == brier_score(p, shuffled.to_numpy())
    with pytest.warns(UserWarning, match="X and y have the same index"):
        IsotonicCalibrator().fit(pd.Series(p), shuffled)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        brier_score(pd.Series(p), pd.Series(y, index=np.arange(len(y)) + 5))
        brier_score(pd.Series(p, index=y), pd.Series(y, index=y))


def test_weights_in_any_form():
    p, y = events()
    w = np.arange(len(p)) % 3
    expected = expected_calibration_error(p, y, weights=w)
    for weights in (torch.tensor(w).bfloat16(), pd.Series(w), w[:, None], w.tolist()):
        assert expected_calibration_error(p, y, weights=weights) == expected


def test_debiasing_says_when_most_predictions_are_alone_in_their_bins():
    p, y = events(20)
    with pytest.warns(UserWarning, match="alone in one of 15 bins"):
        calibration_error_interval(np.arange(20) / 20, y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibration_error_interval(*events(400))


def test_estimators_take_tensors_and_frames():
    p, y = choices()
    z = np.log(p + 1 / 64)
    scaler = TemperatureScaler().fit(z, y)
    single = torch.tensor(z, requires_grad=True), torch.tensor(y)
    assert TemperatureScaler().fit(*single).temperature_ == scaler.temperature_
    assert TemperatureScaler().fit(list(single[0]), y).temperature_ == (
        scaler.temperature_
    )
    frame = pd.DataFrame(z, columns=list("abcd"))
    named = np.array(list("abcd"))[y]
    assert TemperatureScaler().fit(frame, named).temperature_ == scaler.temperature_
    with pytest.raises(ValueError, match="X has the columns d, c, b, a and the sorted"):
        TemperatureScaler().fit(frame[list("dcba")], named)
    half = torch.tensor(z).bfloat16()
    exact = TemperatureScaler().fit(half.double().numpy(), y)
    assert TemperatureScaler().fit(half, y).temperature_ == exact.temperature_
    never = y != 1
    floats = TemperatureScaler().fit(z[never], y[never].astype(float))
    assert floats.classes_.tolist() == [0, 1, 2, 3]


def test_evaluate_modules_take_tensors_and_refuse_what_they_would_cut():
    import evaluate

    from alignlab.calibration.evaluate_modules import module_path

    p, y = events()
    metric = evaluate.load(module_path("expected_calibration_error"))
    expected = metric.compute(predictions=p, references=y)
    for form in ("bfloat16 with gradient", "Series", "column"):
        given = {**FORMS, **SERIES}[form](p)
        assert metric.compute(predictions=given, references=y) == expected
    assert metric.compute(predictions=p, references=y.astype(bool)) == expected
    for wrong, match in ((y + 0.5, r"references\[0\] is"), (y.astype(str), "text")):
        with pytest.raises(ValueError, match=match):
            metric.compute(predictions=p, references=wrong)
    rows, labels = choices()
    classwise = evaluate.load(module_path("classwise_calibration_error"))
    assert classwise.compute(
        predictions=torch.tensor(rows).bfloat16(), references=labels
    ) == classwise.compute(predictions=rows, references=labels)


def test_events_are_all_metrics_of_events():
    from alignlab import calibration

    takes = [
        getattr(calibration, name)
        for name in calibration.__all__
        if "correct" in inspect.signature(getattr(calibration, name)).parameters
    ]
    several = {calibration.clustered_squared_error}  # takes those of several seeds
    assert [f.__name__ for f in takes if f not in [*EVENTS, *several]] == []
