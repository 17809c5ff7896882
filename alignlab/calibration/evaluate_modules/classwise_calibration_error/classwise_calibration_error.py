from alignlab.calibration import evaluate_modules


class ClasswiseCalibrationError(evaluate_modules.CalibrationMetric):
    """Class-wise calibration error."""
