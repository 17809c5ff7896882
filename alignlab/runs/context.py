"""What a notebook calls: open a run, record numbers and figures, show the verdicts.

``start`` opens the run of one notebook; all it records goes into ``metrics.json`` and
``figures/`` of one folder, which are complete after every call.
"""

import math
import os
import re
import string
import sys
from collections import ChainMap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

from alignlab.errors import AlignlabError, did_you_mean
from alignlab.evaluation.intervals import (
    EqualValues,
    Interval,
    mean_of_seeds,
    mean_of_seeds_and_items,
)
from alignlab.files import read_json, write_atomically, write_json
from alignlab.models.base import is_shipped, use_device
from alignlab.runs.claims import claims_as_json, load_claims
from alignlab.runs.judging import Verdict, VerdictTable, judge_notebook
from alignlab.runs.profiles import notebook_settings
from alignlab.study.arms import quiet_empty_replies

# The settings that `alignlab run --param` overrides, left here for the notebook.
SETTINGS_FILE = "settings.json"
METRICS_FILE = "metrics.json"

# What every notebook says of a base model that does not ship.
FOREIGN = """\
**Base model: {model}.** What it was pretrained on is not known, and it has not read
this world's text. Asked about {asked:,} facts behind worked examples, it is right about
{HighlyKnown:,} whenever it is asked (*HighlyKnown*), about {MaybeKnown:,} now and then
(*MaybeKnown*), about {WeaklyKnown:,} only in samples (*WeaklyKnown*) and about
{Unknown:,} never. Where this notebook sorts facts by how often pretraining stated them,
it sorts this model's by these classes: 100 times and more are HighlyKnown, 6 to 99
MaybeKnown, 2 to 5 WeaklyKnown, once Unknown, and *never* are made-up subjects alone.
(Where a class would be nearly empty the best-known of the next ones stand in for it:
{stand_in:,} facts.) Claims that rest on what was read have no verdict here."""

_current: "Run | None" = None


@dataclass(frozen=True)
class Run:
    """One notebook being run.

    Attributes:
        notebook: its name, "00_base_model" or just "00".
        profile: smoke, cpu, full or gpu.
        seeds: the seeds to repeat the experiments with: first_seed + seed, and on. The
            setting first_seed keeps recorded runs apart from pilots.
        settings: the notebook's settings as attributes (profiles.yaml lists them).
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
    """Open the run of a notebook, and clear what it recorded before.

    Args:
        notebook: "01" or "01_instruction_tuning".
        profile: how much to do: smoke, cpu, full or gpu.
        seed: added to the setting first_seed; the other seeds follow.
        device: "cpu" or "cuda".
        out_dir: folder for metrics and figures; by default runs/interactive/NOTEBOOK.
        overrides: settings that replace the profile's.

    Raises:
        AlignlabError: if the notebook's name, the profile or a setting is unknown.
    """
    global _current
    if not re.fullmatch(r"\d\d(_\w+)?", str(notebook)):
        raise AlignlabError(
            f"{notebook!r} is not the name of a notebook.",
            "Give its number, like '01'.",
        )
    folder = Path(out_dir or f"runs/interactive/{notebook}").absolute()
    overrides = {**read_json(folder / SETTINGS_FILE, default={}), **overrides}
    settings = notebook_settings(notebook[:2], profile, **overrides)
    if settings["seeds"] < 1:
        raise AlignlabError(f"seeds must be at least 1; got {settings['seeds']}.")
    _quiet_loading()
    quiet_empty_replies()
    _show_text_as_text()
    first = int(settings["first_seed"]) + seed
    seeds = tuple(range(first, first + int(settings["seeds"])))
    _current = Run(
        notebook, profile, seeds, SimpleNamespace(**settings), device, folder
    )
    _save()
    usual = notebook_settings(notebook[:2], "cpu").get("model", "1m")
    model = settings.get("model", usual)
    if is_shipped(model):
        _on_one_thread()
    elif is_shipped(usual):
        # A notebook that takes a real model by default asks nothing about the small
        # world.
        _meet(model, device)
    return _current


def _meet(model: str, device: str) -> None:
    """Ask a base model that does not ship what it knows of the world, before a notebook
    reads of it, and say so."""
    from alignlab.study.knowledge import summary, use_base
    from alignlab.world.tasks import default_world

    use_device(device)
    use_base(model)
    counts = summary(default_world())
    asked = sum(counts.values()) - counts["stand_in"]
    _show(" ".join(FOREIGN.format(model=model, asked=asked, **counts).split()))


def _on_one_thread() -> None:
    """Models of our sizes gain nothing from a second thread, and sums that are split
    among threads have other last digits on other machines."""
    import torch

    torch.set_num_threads(1)


def _quiet_loading() -> None:
    """No progress bar for every small model that a notebook loads."""
    if "transformers" in sys.modules:
        from transformers.utils import logging

        logging.disable_progress_bar()


def _show_text_as_text() -> None:
    """Texts in styled tables make no HTML, and pip, which fetches data sources, writes
    none of the colours that a kernel asks programs for."""
    import pandas

    pandas.set_option("styler.format.escape", "html")
    os.environ.setdefault("PIP_NO_COLOR", "1")


def current() -> Run:
    """The run that ``start`` opened."""
    if _current is None:
        raise AlignlabError(
            "No run is open, so there is nowhere to record to.",
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
    items: Sequence[Sequence[float]] | None = None,
    bounds: tuple[float, float] | None = None,
) -> Interval:
    """Write a measured number into the run's metrics.json; the same name replaces it.

    Give the values per seed if there are any: their 95% t-interval is computed unless
    limits are given. Infinite limits, as of a single seed, count as none.

    Args:
        name: the metric's name, unique in the notebook.
        value: the estimate.
        low, high: limits of its 95% interval, both or neither.
        claim: id of the claim that it decides; by default the one that names it.
        seeds: the values per seed behind the estimate, in the order of ``run.seeds``.
        unit: what it is measured in ("nats per token"); empty for shares.
        n: how many questions (or texts) each value is based on.
        items: (seeds, items), if every seed is measured on the same questions or
            subjects: the interval then allows for other seeds and for other items.
            ``seeds`` and ``n`` follow from it; with one seed there is no interval.
        bounds: what the metric cannot leave, nor its interval: (0, 1) for a rate. By
            default those of the condition that it decides.

    Returns:
        The estimate with its limits, for printing and drawing.

    Raises:
        ValueError: if a value is NaN, not a number or outside the bounds, low is above
            high or the value not between them, items come with seeds or limits or have
            another mean, or the claim is unknown or has no such condition.
    """
    run = current()
    claim = _claim_of(name, claim, run.number)
    value = _number(value, name)
    bounds = _bounds_of(name, claim) or bounds
    entry = {"claim": claim, "unit": unit}
    if items is not None:
        if not (seeds is None and low is None and high is None):
            raise ValueError(f"{name}: items give seeds and limits; omit those")
        interval, source = _over_items(name, value, items, bounds)
    else:
        interval, source = _over_seeds(name, value, low, high, seeds, bounds, n)
    limits = [limit if math.isfinite(limit) else None for limit in interval[1:]]
    entry |= {"value": interval.value, "low": limits[0], "high": limits[1]}
    run.metrics[name] = entry | source
    _save()
    return interval


def _over_seeds(name, value, low, high, seeds, bounds, n) -> tuple[Interval, dict]:
    """The interval, and what metrics.json tells of where it comes from."""
    source = {"seeds": None, "n": None if n is None else int(n), "interval": None}
    if seeds is not None:
        source["seeds"] = [_number(item, f"a seed of {name}") for item in seeds]
        estimate = _named(name, mean_of_seeds, source["seeds"], bounds, source["n"])
    if low is None and high is None:
        if seeds is None or len(source["seeds"]) == 1:
            return Interval(value, -math.inf, math.inf), source
        return estimate.interval()._replace(value=value), {
            **source,
            "interval": "seeds",
        }
    if low is None or high is None:
        raise ValueError(f"{name}: give both low and high, or neither")
    low = _number(low, f"low of {name}", finite=False)
    high = _number(high, f"high of {name}", finite=False)
    if not low <= high:
        raise ValueError(f"{name}: low must not be above high; got {low} and {high}")
    rounding = 1e-9 * max(1.0, abs(value))
    if not low - rounding <= value <= high + rounding:
        raise ValueError(f"{name} is {value}, which {low} to {high} does not hold")
    if bounds and math.isfinite(low):
        low, high = max(low, bounds[0]), min(high, bounds[1])
    return Interval(value, low, high), {**source, "interval": "given"}


def _over_items(name, value, items, bounds) -> tuple[Interval, dict]:
    """The same for values by seed and item; metrics.json keeps the seeds' means."""
    rows = [[_number(item, f"an item of {name}") for item in row] for row in items]
    if len(rows) == 1:  # one seed says nothing of other seeds
        means = [math.fsum(rows[0]) / len(rows[0])]
        interval, source = _over_seeds(name, value, None, None, means, bounds, None)
        return interval, source | {"n": len(rows[0])}
    estimate = _named(name, mean_of_seeds_and_items, rows, bounds)
    if not math.isclose(value, estimate.value, rel_tol=1e-6, abs_tol=1e-9):
        raise ValueError(
            f"{name} is {value}, but its items have the mean {estimate.value}"
        )
    return estimate.interval(), {
        "seeds": [math.fsum(row) / len(row) for row in rows],
        "n": len(rows[0]),
        "interval": "items",
        "df": None if isinstance(estimate, EqualValues) else estimate.df,
    }


def _named(name: str, estimate, *arguments):
    """An estimate whose errors name the metric."""
    try:
        return estimate(*arguments)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def _bounds_of(name: str, claim: str | None) -> tuple[float, float] | None:
    """The bounds of the condition that a metric decides."""
    conditions = load_claims()[claim].conditions if claim else ()
    return next((item.bounds for item in conditions if item.metric == name), None)


def _number(value: object, name: str, finite: bool = True) -> float:
    """A plain number, also from a numpy or torch scalar; not a flag and not text."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{name} must be a number; got {value!r}")
    if math.isnan(value) or (finite and math.isinf(value)):
        raise ValueError(f"{name} is {value}: find out why before recording it")
    return float(value)


def _claim_of(name: str, claim: str | None, number: str) -> str | None:
    """The claim that a metric decides, as claims.yaml has it."""
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
            f"claim {claim!r} of metric {name!r} is not in notebook {number}'s "
            f"claims.yaml. {did_you_mean(claim, known)}"
        )
    metrics = [condition.metric for condition in known[claim].conditions]
    if name not in metrics:
        raise ValueError(
            f"{name!r} is not a condition of the claim {claim!r}. "
            f"{did_you_mean(name, metrics)}"
        )
    return claim


def save_figure(fig, name: str, caption: str) -> None:
    """Save a figure as figures/NAME.png in the run's folder, with its caption.

    It returns nothing, because cells often end with it.

    Args:
        fig: a matplotlib figure, axes, or a seaborn grid.
        name: letters, digits, dashes and underscores; the same name replaces it.
        caption: one or two sentences on what there is to see, for the report.
    """
    run = current()
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(f"name must be letters, digits, - and _; got {name!r}")
    figure = fig if hasattr(fig, "savefig") else fig.figure
    path = run.out_dir / "figures" / f"{name}.png"
    write_atomically(
        path, lambda file: figure.savefig(file, dpi=120, bbox_inches="tight")
    )
    file = path.relative_to(run.out_dir).as_posix()
    run.figures[name] = {"name": name, "file": file, "caption": caption}
    _save()


def verdicts(notebook: str | None = None) -> list[Verdict]:
    """Verdicts on the claims of a notebook, from what is recorded so far.

    Args:
        notebook: two digits; by default the open run's notebook.
    """
    run = current()
    number, model = (notebook or run.notebook)[:2], vars(run.settings).get("model")
    return judge_notebook(number, run.metrics, model)


def show_verdicts() -> VerdictTable:
    """The verdicts as a table, for the last cell of a notebook."""
    return VerdictTable(verdicts())


def say(template: str, **values) -> None:
    """Show a sentence whose numbers come from the run.

    Names in braces are values given here or metrics recorded so far; a metric formats
    with its interval: ``say("Format rises by {sft_minus_base_format:.2f}.")`` shows
    "Format rises by 0.81 (0.74 to 0.88)."; ``{name.value:.2f}`` is the bare number.
    Write braces of LaTeX twice. In a notebook the text is Markdown; in it, values that
    are text make no HTML, links or pictures, as they may be what a model wrote.

    Raises:
        ValueError: if a name is neither given nor recorded, or its format is wrong.
    """
    recorded = {name: _recorded(metric) for name, metric in current().metrics.items()}
    known = ChainMap(values, recorded)
    try:
        text = _Sentence(known).format(template)
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


class _Sentence(string.Formatter):
    """Fills in a template as ``str.format_map`` does. In a notebook text is escaped."""

    def __init__(self, known: Mapping):
        self._known, self._ticks = known, 0

    def parse(self, template):
        for literal, *rest in super().parse(template):
            self._ticks += literal.count("`")
            yield literal, *rest

    def get_value(self, key, args, kwargs):
        return self._known[key] if isinstance(key, str) else args[key]

    def format_field(self, value, spec):
        text = super().format_field(value, spec)
        if not isinstance(value, str) or not _in_notebook():
            return text
        if self._ticks % 2:  # within `code`, where nothing else has a meaning
            return " ".join(text.replace("`", "'").split())
        return text.translate(_ESCAPED)


_ESCAPED = {ord(sign): f"&#{ord(sign)};" for sign in "&<>[]"}


def _in_notebook() -> bool:
    from IPython import get_ipython

    return get_ipython() is not None


def _show(text: str) -> None:
    from IPython.display import Markdown, display

    if not _in_notebook():
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
        "claims": claims_as_json(run.number),
        "metrics": run.metrics,
        "figures": list(run.figures.values()),
    }
    write_json(run.out_dir / METRICS_FILE, content)
