"""Class-wise calibration error, for `evaluate`."""

import datasets
import evaluate

from alignlab.calibration import classwise_calibration_error

DESCRIPTION = """\
Class-wise calibration error: the calibration error of each class's own probability,
taken over all classes. A model can be calibrated in its likeliest class and wrong about
every other.
"""

INPUTS = """\
Args:
    predictions: a row of probabilities per item, summing to 1.
    references: the right class of each item, counted from 0.
    n_bins: more bins show more and know less about each.
    strategy: "uniform" for equal widths, "quantile" for equal numbers.
    norm: "l1" (mean over classes), "l2" (root mean square) or "max".
Returns:
    classwise_calibration_error: the error in the chosen norm.
"""

CITATION = """\
@inproceedings{kull2019beyond,
  title={Beyond temperature scaling: Obtaining well-calibrated multi-class probabilities
    with Dirichlet calibration},
  author={Kull, Meelis and Perello Nieto, Miquel and K{\\"a}ngsepp, Markus and
    Silva Filho, Telmo and Song, Hao and Flach, Peter},
  booktitle={Advances in Neural Information Processing Systems},
  year={2019}
}
"""


class ClasswiseCalibrationError(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        features = {
            "predictions": datasets.List(datasets.Value("float64")),  # sum to 1
            "references": datasets.Value("int64"),  # the right class, from 0
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
    ) -> dict[str, float]:
        error = classwise_calibration_error(
            predictions, references, n_bins, strategy, norm
        )
        return {"classwise_calibration_error": error}
