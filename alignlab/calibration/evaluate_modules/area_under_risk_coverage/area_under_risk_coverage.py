from alignlab.calibration import evaluate_modules


class AreaUnderRiskCoverage(evaluate_modules.CalibrationMetric):
    """Area under the risk-coverage curve."""
