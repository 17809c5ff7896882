from alignlab.calibration import evaluate_modules


class ExpectedCalibrationError(evaluate_modules.CalibrationMetric):
    """Expected calibration error."""
