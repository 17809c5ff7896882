"""Right and wrong reports of the experiments: numbers as a reader could have measured
them, and one thing wrong with each.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F

from alignlab.chapters.a_real_model import experiments as real_model
from alignlab.chapters.base_model import experiments as base_model
from alignlab.chapters.instruction_tuning import experiments as instruction_tuning
from alignlab.chapters.limits_of_imitation import experiments as imitation
from alignlab.chapters.recalibration import experiments as recalibration
from alignlab.chapters.side_effects import experiments as side_effects
from alignlab.course.checks import all_exercises
from alignlab.evaluation.best_of_n import best_of_n_values

# --- What a reader could have measured --------------------------------------------


def normal(*shape: int) -> torch.Tensor:
    return torch.randn(
        *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(5)
    )


@cache
def shares_at_temperatures() -> torch.Tensor:
    logits, right = base_model.often_and_seldom()
    generator = torch.Generator().manual_seed(7)
    return torch.stack(
        [
            (
                torch.multinomial(
                    (logits / t).softmax(1), 200, True, generator=generator
                ).T
            )
            .eq(right)
            .double()
            .mean(0)
            for t in (0.25, 1.0, 2.0)
        ]
    )


def after_training(untrained: torch.Tensor, down: float) -> torch.Tensor:
    """A row as it is without training, and two that a training could have left."""
    rows = [untrained, untrained - down * normal(len(untrained)).exp()]
    return torch.stack(
        [*rows, untrained - 3 * down * normal(1, len(untrained))[0].abs()]
    )


def in_pairs(means: list[float], items: int) -> torch.Tensor:
    """Rows with these means; items differ more than their changes do."""
    apart, noise = normal(1, items), normal(len(means) + 1, items)[1:]
    return torch.tensor(means)[:, None] + 2 * apart + 0.6 * noise


@cache
def gold_of_best() -> torch.Tensor:
    proxy, gold = side_effects.heavy_tailed_pool(seed=3)
    rows = [best_of_n_values(proxy.numpy(), gold.numpy(), n) for n in (1, 8, 64)]
    return torch.tensor(np.array(rows))


@cache
def losses_at_temperatures() -> torch.Tensor:
    z, y = recalibration.base_answers()
    return torch.stack(
        [F.cross_entropy(z / t, y, reduction="none") for t in (0.25, 1.0, 4.0)]
    )


@cache
def expected_at_ranks() -> torch.Tensor:
    return torch.stack([real_model.expected_at(rank) for rank in (0, 4, 16)]).double()


SETTINGS = {
    "00.3": [0.25, 1.0, 2.0],
    "01.3": [0, 20, 60],
    "02.3": [0, 20, 60],
    "03.2": [0.0, 0.2, 0.4],
    "04.4": [1, 4, 12],
    "05.3": [0.02, 0.2, 2.0],
    "06.2": [1, 8, 64],
    "07.4": [0.05, 0.3, 2.0],
    "08.2": [0.25, 1.0, 4.0],
    "09.3": [0, 4, 16],
}
MEASURED: dict[str, Callable[[], torch.Tensor]] = {
    "00.3": shares_at_temperatures,
    "01.3": lambda: after_training(instruction_tuning.untrained(), 0.3),
    "02.3": lambda: after_training(imitation.untrained(), 2.0),
    "03.2": lambda: in_pairs([2.0, 1.2, 0.4], 40),
    "04.4": lambda: in_pairs([6.0, 9.0, 12.0], 64).abs() / 40,
    "05.3": lambda: in_pairs([3.0, 2.5, 1.2], 27),
    "06.2": gold_of_best,
    "07.4": lambda: 0.3 + 0.6 * in_pairs([2.0, 1.0, 0.0], 50).sigmoid(),
    "08.2": losses_at_temperatures,
    "09.3": expected_at_ranks,
}


def outcome(change) -> str:
    score = change.mean() / (change.std() / len(change) ** 0.5)
    return "stays" if abs(score) <= 2 else "rises" if score > 0 else "falls"


def report(number: str, measured=None, **changed) -> dict:
    """A right report of the measurements, but for what is changed in it."""
    measured = MEASURED[number]() if measured is None else measured
    change = measured[-1] - measured[0]
    right = {
        "prediction": "stays",
        "settings": SETTINGS[number],
        "measured": measured,
        "difference": change.mean(),
        "error": change.std() / len(change) ** 0.5,
        "outcome": outcome(change),
    }
    return {name: x for name, x in (right | changed).items() if x is not None}


# --- Right reports ----------------------------------------------------------------


def bare(number: str) -> dict:
    given = report(number)
    return given | {
        "measured": given["measured"].tolist(),
        "difference": given["difference"].item(),
        "error": given["error"].item(),
    }


def right_reports(number: str) -> dict[str, dict]:
    given = report(number)
    measured, names = given["measured"], given["settings"]
    change = measured[-1] - measured[0]
    arrays = dict(
        measured=measured.numpy(), error=change.numpy().std() / len(change) ** 0.5
    )
    rounded = dict(
        difference=float(f"{change.mean():.4g}"), error=float(f"{given['error']:.4g}")
    )
    return {
        "tensors": given,
        "lists of numbers": bare(number),
        "arrays, and the spread that numpy has": given | arrays,
        "float32": given | {"measured": measured.float()},
        "a list of tensors": given | {"measured": list(measured)},
        "tuples": given
        | {"settings": tuple(names), "measured": tuple(measured.tolist())},
        "a row for each setting, by name": given
        | {"measured": dict(zip(names, measured))},
        "settings as a tensor": given | {"settings": torch.tensor(names)},
        "four digits": given | rounded,
        "a prediction that failed": given
        | {"prediction": "falls" if given["outcome"] == "rises" else "rises"},
        "words in capitals": given | {"outcome": given["outcome"].upper()},
        "tensors that have a gradient": given
        | {"measured": measured.clone().requires_grad_()},
        "with notes of one's own": given | {"notes": "the second run"},
    }


# --- Wrong reports ----------------------------------------------------------------


def wrong_reports(number: str) -> dict[str, list]:
    task, given = all_exercises()[number], report(number)
    measured = given["measured"]
    change = measured[-1] - measured[0]
    n, spread, error = len(change), change.std(), given["error"]
    other = next(w for w in ("rises", "falls", "stays") if w != given["outcome"])
    names = given["settings"]
    wrong = {
        "not answered yet": [None],
        "no report": [lambda: given, [given], "stays"],
        "no prediction in the report": [report(number, prediction=None)],
        "no settings in the report": [report(number, settings=None)],
        "no measured in the report": [{**given, "measured": None}],
        "no difference in the report": [{**given, "difference": None}],
        "no error in the report": [{**given, "error": None}],
        "no outcome in the report": [report(number, outcome=None)],
        "prediction is 'maybe'": [report(number, prediction="maybe")],
        "prediction is '0.3'": [report(number, prediction=0.3)],
        "outcome is 'it worked'": [report(number, outcome="it worked")],
        f"outcome is '{other}', and your numbers": [
            report(number, outcome=other, prediction=given["outcome"])
        ],
        f"outcome is '{other}', as predicted, and": [
            report(number, outcome=other, prediction=other)
        ],
        "settings in falling order": [report(number, settings=names[::-1])],
        "settings out of order": [
            report(number, settings=[names[0], names[2], names[1]]),
            report(number, settings=[names[0], names[1], names[1]]),
        ],
        "settings is no list of numbers": [report(number, settings=names[0])],
        "settings is no numbers": [report(number, settings=["low", "mid", "high"])],
        "settings: only 2": [report(number, measured[:2], settings=names[:2])],
        "settings from": [
            report(number, settings=[*names[:2], 10 * task.highest]),
            report(number, settings=[task.lowest - 1, *names[1:]]),
        ],
        "measured has means only": [{**given, "measured": measured.mean(1)}],
        "measured has shape": [
            {**given, "measured": measured.T},
            {**given, "measured": measured[:2]},
            {**given, "measured": measured[..., None]},
        ],
        "measured has rows of unequal lengths": [
            {**given, "measured": [measured[0], measured[1][:9], measured[2]]}
        ],
        "measured is no numbers": [{**given, "measured": "as I expected"}],
        "measured has NaN": [{**given, "measured": measured * math.nan}],
        "measured has 4 items": [report(number, measured[:, :4])],
        "measured has a row twice": [report(number, measured[[0, 2, 2]])],
        "difference: the wrong way round": [report(number, difference=-change.mean())],
        "difference: a sum": [report(number, difference=change.sum())],
        "difference: the last row only": [
            report(number, difference=measured[-1].mean())
        ],
        "difference: a ratio": [
            report(number, difference=measured[-1].mean() / measured[0].mean())
        ],
        "difference: the last two rows": [
            report(number, difference=(measured[-1] - measured[-2]).mean())
        ],
        f"difference is {n} numbers": [report(number, difference=change)],
        "error: the spread of single items": [report(number, error=spread)],
        "error: a variance": [report(number, error=error**2)],
        "error: divided by N": [report(number, error=spread / n)],
        "error: twice as large": [report(number, error=1.96 * error)],
        "error: unpaired": [
            report(
                number,
                error=((measured[0].var() + measured[-1].var()) / n).sqrt(),
            )
        ],
        "error: of one row": [report(number, error=measured[-1].std() / n**0.5)],
        "error is -": [report(number, error=-error)],
        "error is 0": [report(number, error=0.0)],
    }
    lowest, highest = task.limits
    if math.isfinite(lowest):
        too_low = measured.clone()
        too_low[1, 3] = lowest - 1
        wrong["measured has"] = [report(number, too_low)]
    if task.start is not None:
        later = [(task.start + names[1]) / 2, *names[1:]]
        wrong["settings begin at"] = [report(number, settings=later)]
    if not task.counted:
        wrong |= made_up(number, measured)
    return wrong | not_as_the_model(number, measured)


def made_up(number: str, measured: torch.Tensor) -> dict[str, list]:
    """Numbers that nobody measured, and medians, which shares may have for means."""
    means = measured.mean(1, keepdim=True).expand_as(measured)
    other = measured[0] + 0.05 * measured[0].std()
    few = measured[:, :2].repeat(1, measured.shape[1] // 2)
    medians = measured[-1].median() - measured[0].median()
    return {
        "difference: medians": [report(number, difference=medians)],
        "measured has the same number for all items": [report(number, means)],
        "measured has many numbers more than once": [report(number, few)],
        "measured is rounded": [report(number, measured.mul(100).round() / 100)],
        "measured has a row that was made from another": [
            report(number, torch.stack([measured[0], other, measured[2]]))
        ],
    }


def not_as_the_model(number: str, measured: torch.Tensor) -> dict[str, list]:
    """Other numbers than the shipped model gives, where it can be asked."""
    if number in ("00.3", "06.2"):
        moved = (measured * 0.5).clamp(0, 1) if number == "00.3" else measured + 0.7
        return {"not what chance allows": [report(number, moved)]}
    if number in ("01.3", "02.3"):
        rows = [measured[0].flip(0), *measured[1:]]
        return {
            "not what the model gives (backwards": [report(number, torch.stack(rows))],
            "not what the model gives": [report(number, measured * 0.9)],
        }
    if number in ("08.2", "09.3"):
        return {
            "not what the model gives": [
                report(number, measured.roll(1, dims=1)),
                report(number, measured * 0.9),
            ]
        }
    return {}


RIGHT = {number: right_reports(number) for number in SETTINGS}
WRONG = {number: wrong_reports(number) for number in SETTINGS}
