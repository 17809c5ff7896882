from alignlab.calibration import evaluate_modules


class BrierDecomposition(evaluate_modules.CalibrationMetric):
    """The Brier score and its parts."""
