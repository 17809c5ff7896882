from alignlab.calibration import evaluate_modules


class SmoothCalibrationError(evaluate_modules.CalibrationMetric):
    """Smooth calibration error."""
