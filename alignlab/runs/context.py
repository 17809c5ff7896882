"""What a notebook calls: open a run, record numbers and figures, show the verdicts.

``start`` opens the run of one notebook; everything it records goes into one folder,
``metrics.json`` and ``figures/``, written whole after every call.
"""

import math
import re
import sys
from collections import ChainMap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from alignlab.errors import AlignlabError
from alignlab.evaluation.intervals import Interval, t_interval
from alignlab.runs.claims import Verdict, VerdictTable, judge_notebook, load_claims
from alignlab.runs.files import did_you_mean, read_json, write_json, write_whole
from alignlab.runs.profiles import notebook_dials

# Dials that `alignlab run --param` sets wait for the notebook in this file.
DIALS_FILE = "dials.json"
METRICS_FILE = "metrics.json"

_current: "Run | None" = None


@dataclass(frozen=True)
class Run:
    """One notebook being run.

    Attributes:
        notebook: its name, "00_base_model" or just "00".
        profile: smoke, cpu, full or gpu.
        seeds: the seeds to repeat the experiments with: seed, seed + 1, ...
        settings: the notebook's dials as attributes (profiles.yaml says what they are).
        device: where models go, "cpu" or "cuda".
        out_dir: where metrics and figures are written.
    """

    notebook: str
    profile: str
    seeds: tuple[int, ...]
    settings: SimpleNamespace
    device: str
    out_dir: Path
    metrics: dict[str, dict] = field(default_factory=dict, repr=False)
    figures: dict[str, dict] = field(default_factory=dict, repr=False)

    @property
    def number(self) -> str:
        """The two digits the notebook is known by."""
        return self.notebook[:2]


def start(
    notebook: str,
    profile: str = "cpu",
    seed: int = 0,
    device: str = "cpu",
    out_dir: str | Path = "",
    **overrides,
) -> Run:
    """Open the run of a notebook; what it recorded here before is cleared.

    Args:
        notebook: "01" or "01_instruction_tuning".
        profile: how much to do: smoke, cpu, full or gpu.
        seed: the first seed; the others follow it.
        device: "cpu" or "cuda".
        out_dir: folder for metrics and figures; by default runs/interactive/NOTEBOOK.
        overrides: dials to set otherwise than the profile does.

    Raises:
        AlignlabError: if the notebook's name, the profile or a dial is unknown.
    """
    global _current
    if not re.fullmatch(r"\d\d(_\w+)?", str(notebook)):
        raise AlignlabError(
            f"{notebook!r} is no name of a notebook.", "Give its number, such as '01'."
        )
    folder = Path(out_dir or f"runs/interactive/{notebook}").absolute()
    given = {**read_json(folder / DIALS_FILE, default={}), **overrides}
    dials = notebook_dials(notebook[:2], profile, **given)
    if dials["seeds"] < 1:
        raise AlignlabError(f"seeds must be at least 1; got {dials['seeds']}.")
    _quiet_loading()
    seeds = tuple(range(seed, seed + int(dials["seeds"])))
    _current = Run(notebook, profile, seeds, SimpleNamespace(**dials), device, folder)
    _save()
    return _current


def _quiet_loading() -> None:
    """A progress bar for every small model that is loaded would bury a notebook."""
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.disable_progress_bar()


def current() -> Run:
    """The run that ``start`` opened."""
    if _current is None:
        raise AlignlabError(
            "no run is open, so there is nowhere to record to.",
            "Run the notebook's first cells: one of them calls alignlab.runs.start.",
        )
    return _current


def record(
    name: str,
    value: float,
    low: float | None = None,
    high: float | None = None,
    claim: str | None = None,
    *,
    seeds: Sequence[float] | None = None,
    unit: str = "",
    n: int | None = None,
) -> Interval:
    """Write a measured number into the run's metrics.json; the same name replaces it.

    Give the values per seed where there are any: the 95% t-interval over them is
    computed unless limits are given. Infinite limits (what one seed has) count as none.

    Args:
        name: the metric's name, unique in the notebook.
        value: the estimate.
        low, high: limits of its 95% interval, both or neither.
        claim: id of the claim it decides; found by itself if the name is a condition.
        seeds: the values per seed behind the estimate, in the order of ``run.seeds``.
        unit: what it is measured in ("nats per token"); empty for shares.
        n: how many questions (or texts) each value rests on.

    Returns:
        The estimate with its limits, to be printed or drawn.

    Raises:
        ValueError: if a number is NaN or none at all, low is above high, or the claim
            is unknown or has no such condition; the message names it.
    """
    run = current()
    interval = _interval(name, value, low, high, seeds)
    limits = [limit if math.isfinite(limit) else None for limit in interval[1:]]
    run.metrics[name] = {
        "value": interval.value,
        "low": limits[0],
        "high": limits[1],
        "claim": _claim_of(name, claim, run.number),
        "seeds": None if seeds is None else [float(item) for item in seeds],
        "unit": unit,
        "n": None if n is None else int(n),
    }
    _save()
    return interval


def _interval(name, value, low, high, seeds) -> Interval:
    value = _number(value, name)
    if seeds is not None:
        seeds = [_number(item, f"a seed of {name}") for item in seeds]
        computed = t_interval(seeds)
        if low is None and high is None:
            low, high = computed.low, computed.high
    if low is None and high is None:
        return Interval(value, -math.inf, math.inf)
    if low is None or high is None:
        raise ValueError(f"{name}: give both low and high, or neither")
    low = _number(low, f"low of {name}", finite=False)
    high = _number(high, f"high of {name}", finite=False)
    if not low <= high:
        raise ValueError(f"{name}: low must not be above high; got {low} and {high}")
    return Interval(value, low, high)


def _number(value: object, name: str, finite: bool = True) -> float:
    """A plain number, also out of a numpy or torch scalar; a flag or text is none."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number; got {value!r}")
    if math.isnan(value) or (finite and math.isinf(value)):
        raise ValueError(f"{name} is {value}: find out why before recording it")
    return float(value)


def _claim_of(name: str, claim: str | None, number: str) -> str | None:
    """The claim a metric decides, checked against claims.yaml."""
    everything = load_claims().items()
    known = {name: item for name, item in everything if item.notebook == number}
    if claim is None:
        owners = [
            item.id
            for item in known.values()
            if name in (condition.metric for condition in item.conditions)
        ]
        return owners[0] if owners else None
    if claim not in known:
        raise ValueError(
            f"claim {claim!r} of metric {name!r} is none of notebook {number}'s claims "
            f"in claims.yaml. {did_you_mean(claim, known)}"
        )
    metrics = [condition.metric for condition in known[claim].conditions]
    if name not in metrics:
        raise ValueError(
            f"{name!r} is no condition of the claim {claim!r}. "
            f"{did_you_mean(name, metrics)}"
        )
    return claim


def save_figure(fig, name: str, caption: str) -> None:
    """Save a figure as figures/NAME.png in the run's folder, with its caption.

    It returns nothing, for a cell often ends with it.

    Args:
        fig: a matplotlib figure, axes, or a seaborn grid.
        name: letters, digits, dashes and underscores; the same name replaces it.
        caption: one or two sentences that say what to see; the report shows them.
    """
    run = current()
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"name must be letters, digits, - and _; got {name!r}")
    figure = fig if hasattr(fig, "savefig") else fig.figure
    path = run.out_dir / "figures" / f"{name}.png"
    write_whole(path, lambda file: figure.savefig(file, dpi=120, bbox_inches="tight"))
    file = path.relative_to(run.out_dir).as_posix()
    run.figures[name] = {"name": name, "file": file, "caption": caption}
    _save()


def verdicts(notebook: str | None = None) -> list[Verdict]:
    """Verdicts on the claims of this notebook (or another), from what is recorded.

    Args:
        notebook: two digits; by default the open run's notebook.
    """
    run = current()
    return judge_notebook((notebook or run.notebook)[:2], run.metrics)


def show_verdicts() -> VerdictTable:
    """The verdicts as a table: the last line of a notebook's closing cell."""
    return VerdictTable(verdicts())


def say(template: str, **values) -> None:
    """Show a sentence whose numbers come from the run, so that prose cannot drift.

    Names in braces are values given here or metrics recorded so far; a metric formats
    with its interval: ``say("Format rises by {sft_minus_base_format:.2f}.")`` shows
    "Format rises by 0.81 (0.74 to 0.88)."; ``{name.value:.2f}`` is the bare number.
    Braces of LaTeX are written twice. In a notebook the text is Markdown.

    Raises:
        ValueError: if a name is neither given nor recorded, or cannot be formatted so.
    """
    recorded = {name: _recorded(metric) for name, metric in current().metrics.items()}
    known = ChainMap(values, recorded)
    try:
        text = template.format_map(known)
    except KeyError as error:
        wanted = str(error.args[0])
        raise ValueError(
            f"say: {wanted!r} is neither given nor recorded. "
            f"{did_you_mean(wanted, known)}"
        ) from None
    except (AttributeError, IndexError, TypeError, ValueError) as error:
        raise ValueError(f"say: {error} in {template!r}") from None
    _show(text)


def _recorded(metric: dict) -> Interval:
    low, high = metric["low"], metric["high"]
    low = -math.inf if low is None else low
    return Interval(metric["value"], low, math.inf if high is None else high)


def _show(text: str) -> None:
    from IPython import get_ipython
    from IPython.display import Markdown, display

    if get_ipython() is None:
        print(text)
    else:
        display(Markdown(text))


def _save() -> None:
    run = current()
    content = {
        "notebook": run.notebook,
        "profile": run.profile,
        "seeds": run.seeds,
        "device": run.device,
        "settings": vars(run.settings),
        "metrics": run.metrics,
        "figures": list(run.figures.values()),
    }
    write_json(run.out_dir / METRICS_FILE, content)
