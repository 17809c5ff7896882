"""Calibration: is an answer given 80% right 80% of the time, and what makes it so?

Metrics, intervals and recalibrators are named here and work for any classifier's
output. What needs a language model is in ``elicitation``, ``ensembles`` and
``training``.
"""

from alignlab.calibration.clusters import (
    clustered_difference,
    clustered_squared_error,
)
from alignlab.calibration.estimators import (
    BetaCalibrator,
    HistogramCalibrator,
    IsotonicCalibrator,
    MatrixScaler,
    PlattScaler,
    TemperatureScaler,
    VectorScaler,
)
from alignlab.calibration.inference import (
    bootstrap_interval,
    calibration_error_interval,
    calibration_summary,
    calibration_test,
    consistency_band,
    cumulative_test,
    null_calibration_error,
    spiegelhalter_test,
    squared_error_difference,
    squared_error_interval,
)
from alignlab.calibration.metrics import (
    all_options,
    area_under_risk_coverage,
    auroc,
    brier_decomposition,
    brier_score,
    classwise_calibration_error,
    expected_calibration_error,
    negative_log_likelihood,
    reliability_curve,
    risk_coverage_curve,
    smooth_calibration_error,
    top_label,
)

__all__ = [
    "BetaCalibrator",
    "HistogramCalibrator",
    "IsotonicCalibrator",
    "MatrixScaler",
    "PlattScaler",
    "TemperatureScaler",
    "VectorScaler",
    "all_options",
    "area_under_risk_coverage",
    "auroc",
    "bootstrap_interval",
    "brier_decomposition",
    "brier_score",
    "calibration_error_interval",
    "calibration_summary",
    "calibration_test",
    "classwise_calibration_error",
    "clustered_difference",
    "clustered_squared_error",
    "consistency_band",
    "cumulative_test",
    "expected_calibration_error",
    "negative_log_likelihood",
    "null_calibration_error",
    "reliability_curve",
    "risk_coverage_curve",
    "smooth_calibration_error",
    "spiegelhalter_test",
    "squared_error_difference",
    "squared_error_interval",
    "top_label",
]
