"""The Brier score and its parts, for `evaluate`."""

import datasets
import evaluate

from alignlab.calibration import brier_decomposition

DESCRIPTION = """\
The Brier score of an event's probability, taken apart into reliability (what
recalibration can win), resolution (how well it tells events apart), uncertainty (of the
outcome itself) and what bins hide. The score equals
reliability - resolution + uncertainty + within_bins exactly.
"""

INPUTS = """\
Args:
    predictions: the probability of an event, one per item, from 0 to 1. For a
        classifier, that of its likeliest class.
    references: whether it happened (whether that class was right), 0 or 1.
    n_bins: more bins show more and know less about each.
    strategy: "uniform" for equal widths, "quantile" for equal numbers.
Returns:
    brier, reliability, resolution, uncertainty, within_bins.
"""

CITATION = """\
@article{murphy1973new,
  title={A New Vector Partition of the Probability Score},
  author={Murphy, Allan H.},
  journal={Journal of Applied Meteorology},
  volume={12},
  number={4},
  pages={595--600},
  year={1973}
}
"""


class BrierDecomposition(evaluate.Metric):
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
    ) -> dict[str, float]:
        parts = brier_decomposition(predictions, references, n_bins, strategy)
        return parts._asdict()
