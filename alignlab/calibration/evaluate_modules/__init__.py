"""The calibration metrics as modules of Hugging Face `evaluate`.

``evaluate.load(module_path("expected_calibration_error"))`` reads one of the scripts
beside this file; what they compute and how they describe it stands here.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from alignlab.errors import needs_extra

needs_extra("evaluate", "evaluate")

import datasets  # noqa: E402
import evaluate  # noqa: E402
import numpy as np  # noqa: E402
from evaluate.naming import camelcase_to_snakecase  # noqa: E402

from alignlab import calibration  # noqa: E402
from alignlab.calibration.checks import as_array, in_full_precision, is_half  # noqa: E402

FOLDER = Path(__file__).parent


def module_names() -> list[str]:
    """The metrics that can be loaded."""
    return sorted(SPECS)


def module_path(name: str) -> str:
    """The folder to give to ``evaluate.load``.

    Raises:
        ValueError: if there is no such metric.
    """
    if name not in SPECS:
        raise ValueError(f"name is {name!r}; there are {', '.join(module_names())}")
    return str(FOLDER / name)


class CalibrationMetric(evaluate.Metric):
    """A metric of ``SPECS``: a subclass has its name in camel case."""

    @property
    def spec(self) -> "Spec":
        return SPECS[camelcase_to_snakecase(type(self).__name__)]

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=self.spec.description,
            citation=self.spec.citation,
            inputs_description=self.spec.inputs(),
            features=datasets.Features(self.spec.features),
        )

    def add_batch(self, *, predictions=None, references=None, **kwargs):
        """Tensors, columns and data frames too. What `evaluate` would cut to a whole
        number, such as a reference of 0.5, is refused."""
        if predictions is not None:
            array = as_array(predictions, "predictions").astype(float)
            rows = array.ndim == 2 and array.shape[1] > 1
            array = in_full_precision(array) if rows and is_half(predictions) else array
            predictions = (array if rows else array.reshape(-1)).tolist()
        if references is not None:
            references = _whole(as_array(references, "references"))
        super().add_batch(predictions=predictions, references=references, **kwargs)

    def _compute(self, predictions, references, of=None, **options):
        results = self.spec.compute(predictions, references, **options)
        return results | {"of": of or self.spec.of}


def _whole(references) -> list[int]:
    if references.ndim == 2 and references.shape[1] == 1:
        references = references[:, 0]
    wrong = np.flatnonzero(references % 1 != 0)
    if len(wrong):
        first = int(wrong[0])
        raise ValueError(
            f"references[{first}] is {references[first]}; it must be a whole number"
        )
    return references.astype(int).tolist()


# --- What each computes -----------------------------------------------------------


def _area_under_risk_coverage(predictions, references):
    area = calibration.area_under_risk_coverage(predictions, references)
    wrong = sum(1 - right for right in references) / len(references)
    results = {"area_under_risk_coverage": area, "error_rate": float(wrong)}
    if 0 < wrong < 1:
        results["auroc"] = calibration.auroc(predictions, references)
    return results


def _brier_decomposition(predictions, references, n_bins=15, strategy="uniform"):
    options = n_bins, strategy
    return calibration.brier_decomposition(predictions, references, *options)._asdict()


def _classwise_calibration_error(
    predictions, references, n_bins=15, strategy="uniform", norm="l1"
):
    error = calibration.classwise_calibration_error(
        predictions, references, n_bins, strategy, norm
    )
    return {"classwise_calibration_error": error}


def _expected_calibration_error(
    predictions, references, n_bins=15, strategy="uniform", norm="l1", level=0.95
):
    options = n_bins, strategy, norm
    error = calibration.expected_calibration_error(predictions, references, *options)
    results = {
        "expected_calibration_error": error,
        "by_chance": calibration.null_calibration_error(predictions, *options),
    }
    if len(predictions) > n_bins:  # else no bin of equal mass holds two
        interval = calibration.calibration_error_interval(
            predictions, references, n_bins, level=level
        )
        results |= dict(zip(("rms", "rms_low", "rms_high"), interval))
    return results


def _smooth_calibration_error(predictions, references):
    error = calibration.smooth_calibration_error(predictions, references)
    return {"smooth_calibration_error": error}


# --- How each describes itself ----------------------------------------------------

OPTIONS = {
    "n_bins": "more bins show more and know less about each.",
    "strategy": '"uniform" for equal widths, "quantile" for equal numbers.',
    "norm": '"l1" (mean gap), "l2" (root mean square) or "max" (largest).',
    "level": "coverage of the interval.",
}
OF = (
    'which probability the predictions are, in words, such as "top label", "stated" or '
    '"P(True)".'
)
OF_EVENTS = {
    "predictions": (
        datasets.Value("float64"),
        "the probability of an event, one per item, from 0 to 1. For a classifier, "
        "that of its likeliest class.",
    ),
    "references": (
        datasets.Value("int64"),
        "whether it happened (whether that class was right), 0 or 1.",
    ),
}
OF_CLASSES = {
    "predictions": (
        datasets.List(datasets.Value("float64")),
        "a row of probabilities per item, summing to 1.",
    ),
    "references": (
        datasets.Value("int64"),
        "the right class of each item, counted from 0.",
    ),
}


class Spec(NamedTuple):
    """One metric: what it computes, takes and returns, in `evaluate`'s terms."""

    compute: Callable[..., dict[str, float]]
    description: str
    returns: str
    citation: str
    columns: dict = OF_EVENTS
    of: str = "confidence"

    @property
    def features(self) -> dict:
        return {name: feature for name, (feature, _) in self.columns.items()}

    def inputs(self) -> str:
        """Arguments and results, one a line."""
        given = inspect.signature(self.compute).parameters
        lines = [f"    {name}: {text}" for name, (_, text) in self.columns.items()]
        lines += [f"    {name}: {OPTIONS[name]}" for name in given if name in OPTIONS]
        lines.append(f"    of: {OF}")
        returns = f"    {self.returns}", "    of: as it was given."
        return "\n".join(["Args:", *lines, "Returns:", *returns])


SPECS = {
    "area_under_risk_coverage": Spec(
        _area_under_risk_coverage,
        "Area under the risk-coverage curve (AURC): the error rate when only the "
        "surest predictions are kept, averaged over how many are kept. Lower is "
        "better; knowing nothing gives the error rate.",
        "area_under_risk_coverage; error_rate, of all predictions; and auroc, if some "
        "were right and some wrong.",
        """\
@inproceedings{geifman2019bias,
  title={Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers},
  author={Geifman, Yonatan and Uziel, Guy and El-Yaniv, Ran},
  booktitle={International Conference on Learning Representations},
  year={2019}
}
""",
    ),
    "brier_decomposition": Spec(
        _brier_decomposition,
        "The Brier score of an event's probability, split into reliability (what "
        "recalibration can win), resolution (how well it tells events apart), "
        "uncertainty (of the outcome itself) and what bins hide. The score equals "
        "reliability - resolution + uncertainty + within_bins exactly.",
        "brier, reliability, resolution, uncertainty, within_bins.",
        """\
@article{murphy1973new,
  title={A New Vector Partition of the Probability Score},
  author={Murphy, Allan H.},
  journal={Journal of Applied Meteorology},
  volume={12},
  number={4},
  pages={595--600},
  year={1973}
}
""",
    ),
    "classwise_calibration_error": Spec(
        _classwise_calibration_error,
        "Class-wise calibration error: the calibration error of each class's own "
        "probability, taken over all classes. A model can be calibrated in its "
        "likeliest class and wrong about every other.",
        "classwise_calibration_error: the error in the chosen norm.",
        """\
@inproceedings{kull2019beyond,
  title={Beyond temperature scaling: Obtaining well-calibrated multi-class probabilities
    with Dirichlet calibration},
  author={Kull, Meelis and Perello Nieto, Miquel and K{\\"a}ngsepp, Markus and
    Silva Filho, Telmo and Song, Hao and Flach, Peter},
  booktitle={Advances in Neural Information Processing Systems},
  year={2019}
}
""",
        OF_CLASSES,
        "every class",
    ),
    "expected_calibration_error": Spec(
        _expected_calibration_error,
        "Expected calibration error (ECE): the mean gap between confidence and "
        "accuracy over bins of confidence. Chance makes it larger than 0 for a "
        "calibrated model too, so it comes with what chance alone would show, and with "
        "a debiased root mean square error and its interval.",
        "expected_calibration_error: the error in the chosen norm; by_chance: its mean "
        "if the model were calibrated; rms, rms_low, rms_high: debiased root mean "
        "square error over bins of equal mass.",
        """\
@inproceedings{guo2017calibration,
  title={On Calibration of Modern Neural Networks},
  author={Guo, Chuan and Pleiss, Geoff and Sun, Yu and Weinberger, Kilian Q.},
  booktitle={International Conference on Machine Learning},
  year={2017}
}
""",
    ),
    "smooth_calibration_error": Spec(
        _smooth_calibration_error,
        "Smooth calibration error (smECE): gaps between confidence and outcome, "
        "smoothed by a kernel whose width is chosen by the error itself. There are no "
        "bins to choose, and it changes little when a confidence does.",
        "smooth_calibration_error: the error, above 0 for a calibrated model too.",
        """\
@inproceedings{blasiok2024smooth,
  title={Smooth ECE: Principled Reliability Diagrams via Kernel Smoothing},
  author={B{\\l}asiok, Jaros{\\l}aw and Nakkiran, Preetum},
  booktitle={International Conference on Learning Representations},
  year={2024}
}
""",
    ),
}
