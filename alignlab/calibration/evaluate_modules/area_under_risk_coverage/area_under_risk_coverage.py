"""Area under the risk-coverage curve, for `evaluate`."""

import datasets
import evaluate

from alignlab.calibration import area_under_risk_coverage, auroc

DESCRIPTION = """\
Area under the risk-coverage curve (AURC): the error rate when only the surest
predictions are kept, averaged over how many are kept. Lower is better; knowing nothing
gives the error rate.
"""

INPUTS = """\
Args:
    predictions: the probability of an event, one per item, from 0 to 1. For a
        classifier, that of its likeliest class.
    references: whether it happened (whether that class was right), 0 or 1.
Returns:
    area_under_risk_coverage, error_rate (what it would be without any order), and, if
    some were right and some wrong, auroc.
"""

CITATION = """\
@inproceedings{geifman2019bias,
  title={Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers},
  author={Geifman, Yonatan and Uziel, Guy and El-Yaniv, Ran},
  booktitle={International Conference on Learning Representations},
  year={2019}
}
"""


class AreaUnderRiskCoverage(evaluate.Metric):
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
        area = area_under_risk_coverage(predictions, references)
        wrong = sum(1 - right for right in references) / len(references)
        found = {"area_under_risk_coverage": area, "error_rate": float(wrong)}
        if 0 < wrong < 1:
            found["auroc"] = auroc(predictions, references)
        return found
