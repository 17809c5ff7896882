"""Expected calibration error, beside what chance would show, for `evaluate`."""

import datasets
import evaluate

from alignlab.calibration import (
    calibration_error_interval,
    expected_calibration_error,
    null_calibration_error,
)

DESCRIPTION = """\
Expected calibration error (ECE): the mean gap between confidence and accuracy over bins
of confidence. Chance makes it larger than 0 for a calibrated model too, so what chance
shows is given beside it, and an unbiased root mean square error with an interval that
covers.
"""

INPUTS = """\
Args:
    predictions: the probability of an event, one per item, from 0 to 1. For a
        classifier, that of its likeliest class.
    references: whether it happened (whether that class was right), 0 or 1.
    n_bins: more bins show more and know less about each.
    strategy: "uniform" for equal widths, "quantile" for equal numbers.
    norm: "l1" (ECE), "l2" (root mean square) or "max" (MCE).
    level: coverage of the interval.
Returns:
    expected_calibration_error: the error in the chosen norm.
    by_chance: its mean if the model were calibrated, at these confidences and this n.
    rms, rms_low, rms_high: debiased root mean square error over bins of equal mass.
"""

CITATION = """\
@inproceedings{guo2017calibration,
  title={On Calibration of Modern Neural Networks},
  author={Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle={International Conference on Machine Learning},
  year={2017}
}
"""


class ExpectedCalibrationError(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.Value("float64"),  # probability of an event
            "references": datasets.Value("int64"),  # 0 or 1: whether it happened
        }
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(features),
        )

    def _compute(
        self,
        predictions,
        references,
        n_bins: int = 15,
        strategy: str = "uniform",
        norm: str = "l1",
        level: float = 0.95,
    ) -> dict[str, float]:
        binning = n_bins, strategy, norm
        error = expected_calibration_error(predictions, references, *binning)
        found = {
            "expected_calibration_error": error,
            "by_chance": null_calibration_error(predictions, *binning),
        }
        if len(predictions) > n_bins:  # else no bin of equal mass holds two
            interval = calibration_error_interval(
                predictions, references, n_bins, level=level
            )
            found |= dict(zip(("rms", "rms_low", "rms_high"), interval))
        return found
