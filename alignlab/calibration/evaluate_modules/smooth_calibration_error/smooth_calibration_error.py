"""Smooth calibration error, for `evaluate`."""

import datasets
import evaluate

from alignlab.calibration import smooth_calibration_error

DESCRIPTION = """\
Smooth calibration error (smECE): gaps between confidence and outcome, smoothed by a
kernel whose width is chosen by the error itself. No bins to choose, and it changes
little when a confidence does.
"""

INPUTS = """\
Args:
    predictions: the probability of an event, one per item, from 0 to 1. For a
        classifier, that of its likeliest class.
    references: whether it happened (whether that class was right), 0 or 1.
Returns:
    smooth_calibration_error: the error, above 0 for a calibrated model too.
"""

CITATION = """\
@inproceedings{blasiok2024smooth,
  title={Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing},
  author={B{\\l}asiok, Jaros{\\l}aw and Nakkiran, Preetum},
  booktitle={International Conference on Learning Representations},
  year={2024}
}
"""


class SmoothCalibrationError(evaluate.Metric):
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
    ) -> dict[str, float]:
        error = smooth_calibration_error(predictions, references)
        return {"smooth_calibration_error": error}
