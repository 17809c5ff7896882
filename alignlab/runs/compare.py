"""`alignlab check`: is a run sound, and does it agree with its record?

A run *fails* if it is broken by itself: a notebook that did not finish, a number that
is none. It *drifted* if a metric left its band, if many moved a little, if something
that was recorded is gone, or if a verdict turned into its opposite.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from alignlab.runs.bands import (
    ERROR,
    Band,
    band_of,
    joint_p,
    moderated,
    odd_one_out,
    quantile,
    tolerance_of,
)
from alignlab.runs.claims import Former, load_claims
from alignlab.runs.folders import FINISHED
from alignlab.runs.judging import (
    EQUIVALENT,
    NOT_MEASURED,
    NOT_REPRODUCED,
    REPRODUCED,
)
from alignlab.runs.likeness import Common, common_part
from alignlab.runs.profiles import load_profiles

SOUND, DRIFTED, FAILED = "sound", "drifted", "failed"
GONE = "gone"  # a claim that the run does not judge
ALL = "all notebooks"
TIMING = "timing"  # a tolerance in profiles.yaml: compared only where asked
TIMING_TOLERANCE = 0.5  # of the recorded value
FEWER = 2  # how many times fewer questions make a metric another one
OPPOSED = {REPRODUCED: {NOT_REPRODUCED, EQUIVALENT}}
OPPOSED |= {verdict: {REPRODUCED} for verdict in (NOT_REPRODUCED, EQUIVALENT)}


@dataclass(frozen=True)
class Problem:
    """Something wrong, of a notebook ("" for the whole run) and of what in it."""

    notebook: str
    what: str
    text: str

    def __str__(self) -> str:
        return f"{self.notebook}: {self.text}" if self.notebook else self.text


@dataclass(frozen=True)
class Comparison:
    """One metric of a run beside its record.

    Attributes:
        notebook, metric: which.
        recorded: mean of the recorded values.
        value: the run's.
        half: half of the width of the 95% band around ``recorded``.
        p: two-sided p-value under the record.
        score: the value as a draw from the standard normal, by its own spread: spreads
            that lean on each other would make metrics that move together move more.
        limit: the p-value that would be drift.
        same: whether it equals that of a recorded run of the same seeds to the last
            digit; None if there is no such run.
    """

    notebook: str
    metric: str
    recorded: float
    value: float
    half: float
    p: float
    score: float
    limit: float
    same: bool | None

    @property
    def inside(self) -> bool:
        return abs(self.value - self.recorded) <= self.half

    @property
    def drifted(self) -> bool:
        return self.p <= self.limit

    def __str__(self) -> str:
        return (
            f"{self.metric} is {self.value:.4g} and was {self.recorded:.4g} ± "
            f"{self.half:.2g}"
        ) + (f" (p = {self.p:.1g})" if self.p else "")


@dataclass(frozen=True)
class Change:
    """A verdict that is not what it was, and the metrics that moved most."""

    notebook: str
    claim: str
    before: str
    now: str
    moved: tuple[Comparison, ...]

    @property
    def drifted(self) -> bool:
        """Whether it is its opposite now, or none; one that is merely less certain is
        what other seeds do."""
        lost = self.now in (GONE, NOT_MEASURED)
        return lost or self.now in OPPOSED.get(self.before, ())

    def __str__(self) -> str:
        moved = "; ".join(map(str, self.moved))
        text = f"claim {self.claim} was {self.before} and is {self.now}"
        return f"{text}: {moved}" if moved else text


@dataclass
class Outcome:
    """All that a check has to say.

    Attributes:
        failures, drifts: what is wrong.
        notes: what to know, but nothing wrong.
        comparisons: every metric that was compared.
        changes: verdicts that are not what they were, whether that is drift or not.
        joint: p-value of each notebook's metrics taken together, and of all of them.
    """

    failures: list[Problem] = field(default_factory=list)
    drifts: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    comparisons: list[Comparison] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    joint: dict[str, float] = field(default_factory=dict)

    @property
    def state(self) -> str:
        return FAILED if self.failures else DRIFTED if self.drifts else SOUND


def check_run(
    run: dict,
    record: Sequence[dict] | None = None,
    *,
    identical: bool = False,
    timings: bool = False,
    unlike: bool = False,
) -> Outcome:
    """Whether a run is sound, and agrees with its record if one is given.

    Args:
        run: as its metrics.json has it.
        record: the runs to hold it against.
        identical: every number must be that of a recorded run of the same seeds, to the
            last digit.
        timings: compare timings as well.
        unlike: compare although profile or settings differ.

    Raises:
        AlignlabError: if run and record are unlike.
    """
    outcome = Outcome()
    outcome.failures += _broken(run, bool(record))
    if record is None:
        return outcome
    common = common_part(run, record, unlike)
    outcome.notes += common.notes
    outcome.notes += [
        f"{name}: not compared, {x}" for name, x in common.left_out.items()
    ]
    tolerances = {name: tolerances_of(name) for name in common.sections}
    gone, excused = _gone(run, common, identical)
    outcome.drifts += gone + _thinned(run, common)
    outcome.notes += [f"{problem}, which other seeds may bring" for problem in excused]
    outcome.comparisons += _compared(run, common, tolerances, timings)
    if identical:
        outcome.drifts += _not_identical(run, common, outcome.comparisons)
    outcome.drifts += [
        Problem(c.notebook, c.metric, str(c)) for c in outcome.comparisons if c.drifted
    ]
    outcome.joint = _joint(common, outcome.comparisons)
    outcome.drifts += _moved_together(outcome)
    outcome.changes += _changes(run, record, common, outcome.comparisons)
    outcome.drifts += [
        Problem(c.notebook, c.claim, str(c)) for c in outcome.changes if c.drifted
    ]
    outcome.notes += _about_sameness(outcome.comparisons, identical)
    return outcome


def tolerances_of(notebook: str) -> dict[str, float | str]:
    """What a chapter's profiles.yaml allows metrics that no spread tells anything of:
    an absolute number, or "timing"."""
    entry = load_profiles()["notebooks"].get(notebook[:2], {})
    return entry.get("tolerances") or {}


def occasional_metrics(notebook: str) -> Sequence[str]:
    """Metrics that a run may lack, by its chapter's profiles.yaml: whether they can be
    computed depends on what is measured."""
    entry = load_profiles()["notebooks"].get(notebook[:2], {})
    return entry.get("occasional") or ()


# --- A run by itself --------------------------------------------------------------


def _broken(run: dict, compared: bool) -> list[Problem]:
    problems = []
    for name, section in run["notebooks"].items():
        if section["status"] != FINISHED:
            text = f"{section['status']}, not finished"
            if section.get("reason"):
                text += f": {section['reason']}"
            problems.append(Problem(name, "execution", text))
        for metric, entry in section["metrics"].items():
            if not math.isfinite(entry["value"]):
                problems.append(Problem(name, metric, f"{metric} is {entry['value']}"))
    if not compared and run.get("profile") == "full":
        problems += [
            Problem("", claim, f"claim {claim} has no verdict: {entry['reason']}")
            for claim, entry in run["claims"].items()
            if entry["verdict"] == NOT_MEASURED
        ]
    return problems


# --- What is gone -----------------------------------------------------------------


def _gone(
    run: dict, common: Common, identical: bool
) -> tuple[list[Problem], list[Problem]]:
    """Metrics that all of the record has and the run has not: those that are missed,
    and those that other seeds may lack."""
    gone, excused = [], []
    for name, known in common.sections.items():
        section = run["notebooks"][name]
        if section["status"] != FINISHED:
            continue
        occasional = () if identical else occasional_metrics(name)
        for metric, entries in _by_metric(known).items():
            if len(entries) == len(known) and metric not in section["metrics"]:
                problem = Problem(name, metric, f"{metric} is no longer recorded")
                (excused if metric in occasional else gone).append(problem)
    return gone, excused


def _thinned(run: dict, common: Common) -> list[Problem]:
    """Claims, seeds and questions that the record has and the run has not."""
    problems = []
    for name, known in common.sections.items():
        section = run["notebooks"][name]
        if section["status"] != FINISHED:
            continue
        fewest = min(len(before["seeds"]) for before in known)
        if len(section["seeds"]) < fewest:
            text = f"it has {len(section['seeds'])} seeds, in the record {fewest}"
            problems.append(Problem(name, "seeds", text))
        for metric, entries in _by_metric(known).items():
            now = section["metrics"].get(metric)
            if now is None:
                continue
            problems += _thinner(name, metric, now, entries)
            claims = {entry.get("claim") for entry in entries} - {None}
            if claims and now.get("claim") not in claims and not _replaced(claims):
                text = f"{metric} no longer decides claim {', '.join(sorted(claims))}"
                problems.append(Problem(name, metric, text))
    return problems


def _by_metric(known: Sequence[dict]) -> dict[str, list[dict]]:
    entries: dict[str, list[dict]] = {}
    for section in known:
        for metric, entry in section["metrics"].items():
            entries.setdefault(metric, []).append(entry)
    return entries


def _thinner(
    name: str, metric: str, now: dict, entries: Sequence[dict]
) -> list[Problem]:
    """A metric that rests on fewer seeds, or on many fewer questions."""
    problems = []
    seeds = min(len(entry.get("seeds") or []) for entry in entries)
    mine = len(now.get("seeds") or [])
    if mine < seeds:
        text = f"{metric} rests on {mine} seeds, in the record on {seeds}"
        problems.append(Problem(name, metric, text))
    asked = [entry["n"] for entry in entries if entry.get("n")]
    if asked and (now.get("n") or 0) * FEWER < min(asked):
        text = f"{metric} rests on n = {now.get('n')}, in the record on {min(asked)}"
        problems.append(Problem(name, metric, text))
    return problems


def _replaced(claims: set[str]) -> bool:
    """Whether all of these were replaced by claims with new ids."""
    return claims <= {former.id for former in _former()}


def _former() -> list[Former]:
    return [former for claim in load_claims().values() for former in claim.former]


# --- Metric by metric -------------------------------------------------------------


def _compared(
    run: dict, common: Common, tolerances: Mapping[str, Mapping], timings: bool
) -> list[Comparison]:
    bands: dict[tuple[str, str], Band] = {}
    units: dict[tuple[str, str], str] = {}
    for name, known in common.sections.items():
        metrics = run["notebooks"][name]["metrics"]
        for metric, entries in _by_metric(known).items():
            allowed = tolerances[name].get(metric)
            if metric in metrics and (timings or allowed != TIMING):
                now = metrics[metric]
                if math.isfinite(now["value"]) and _same_claim(now, entries):
                    key = name, metric
                    seeds = run["notebooks"][name]["seeds"]
                    known_seeds = any(section["seeds"] == seeds for section in known)
                    bands[key] = band_from(entries, now, allowed, known_seeds)
                    units[key] = f"{name} {now.get('unit') or ''}"
    alone = moderated(bands, units)
    limit = ERROR / 2 / max(len(bands), 1)
    rows = []
    for (name, metric), band in alone.items():
        now = run["notebooks"][name]["metrics"][metric]
        value, score = now["value"], bands[name, metric].score(now["value"])
        same = _is_same(run, common, name, metric)
        judged = band.mean, value, band.half_width(), band.p(value), score
        rows.append(Comparison(name, metric, *judged, limit, same))
    return rows


def _same_claim(now: dict, entries: Sequence[dict]) -> bool:
    """Metrics that were recorded for different claims are not the same."""
    claims = {entry.get("claim") for entry in entries} | {now.get("claim")}
    return len(claims - {None}) <= 1


def band_from(
    entries: Sequence[dict],
    now: dict,
    allowed: float | str | None = None,
    known_seeds: bool = False,
) -> Band:
    """The band of a metric, by what the runs of a record have of it.

    Several runs are the sample: what the seeds of a run share (questions, a reference
    policy) is another in the next one. Of a single run the seeds are the sample, and
    its interval is heeded where it is wider. With a tolerance from profiles.yaml a
    metric that was always the same is not expected to vary.

    Args:
        entries: of the metrics.json of each recorded run.
        now: of the run that is judged.
        allowed: the metric's tolerance in profiles.yaml, if it has one.
        known_seeds: whether a recorded run has the seeds of this one, so that nothing
            is expected to vary where no spread is known.
    """
    values = [entry["value"] for entry in entries]
    mean = math.fsum(values) / len(values)
    asked = [entry["n"] for entry in entries if entry.get("n")]
    explicit = TIMING_TOLERANCE * abs(mean) if allowed == TIMING else allowed
    unit = now.get("unit") or ""
    tolerance = tolerance_of(unit, mean, min(asked, default=None), explicit)
    if allowed is not None and allowed != TIMING and len(set(values)) == 1:
        return Band(mean, math.nan, 0, 0.0, tolerance=tolerance)
    if len(entries) > 1:
        return _cautious(band_of(values, 1, tolerance), values, 1, asked)
    (entry,) = entries
    seeds = entry.get("seeds") or []
    error, df = _stated_error(entry)
    stated = dict(stated=math.sqrt(2) * error, stated_df=df)
    if len(seeds) < 2 or not math.isclose(math.fsum(seeds) / len(seeds), mean):
        unknown = not (error or known_seeds or (asked and not seeds))
        least = odd_one_out(1, 1) if unknown and allowed is None else 0.0
        return Band(
            mean, math.nan, 0, 0.0, tolerance=tolerance, least_p=least, **stated
        )
    k = len(now.get("seeds") or seeds)
    return _cautious(band_of(seeds, k, tolerance, **stated), seeds, k, asked)


def _cautious(band: Band, values: Sequence[float], k: int, asked: list[int]) -> Band:
    """The band, but of a metric that did not vary, and is no rate of so many questions,
    without the certainty that this would suggest."""
    if band.sd > 0 or asked:
        return band
    return replace(band, least_p=odd_one_out(len(values), k))


def _stated_error(entry: dict) -> tuple[float, float]:
    """The standard error behind a recorded interval that is not that of the seeds, and
    its degrees of freedom; 0 if there is none."""
    low, high = entry.get("low"), entry.get("high")
    if low is None or high is None or entry.get("interval") == "seeds":
        return 0.0, math.inf
    df = entry.get("df") or math.inf
    return (high - low) / 2 / quantile(0.975, df), df


def _is_same(run: dict, common: Common, name: str, metric: str) -> bool | None:
    section = run["notebooks"][name]
    for known in common.sections[name]:
        if known["seeds"] == section["seeds"] and metric in known["metrics"]:
            before, now = known["metrics"][metric], section["metrics"][metric]
            return _numbers(before) == _numbers(now)
    return None


def _numbers(metric: dict) -> tuple:
    limits = metric.get("low"), metric.get("high")
    return metric["value"], *limits, tuple(metric.get("seeds") or ())


def _not_identical(
    run: dict, common: Common, rows: Sequence[Comparison]
) -> list[Problem]:
    """Metrics that are not those of the recorded run with the same seeds."""
    problems = []
    for name, known in common.sections.items():
        seeds = run["notebooks"][name]["seeds"]
        if not any(section["seeds"] == seeds for section in known):
            text = f"no recorded run has the seeds {seeds}, so nothing can be identical"
            problems.append(Problem(name, "seeds", text))
    return problems + [
        Problem(
            c.notebook,
            c.metric,
            f"{c.metric} is {c.value!r}, not the recorded run's value of these seeds",
        )
        for c in rows
        if c.same is False
    ]


def _about_sameness(rows: Sequence[Comparison], identical: bool) -> list[str]:
    known = [row for row in rows if row.same is not None]
    changed = sum(not row.same for row in known)
    if not known or identical:
        return []
    if not changed:
        return [f"all {len(known)} metrics are those of the recorded run to the digit"]
    return [
        f"{changed} of {len(known)} metrics are not to the digit those of the recorded "
        "run of the same seeds. On one kind of machine with the same libraries that "
        "means that the code computes something else; --identical makes it drift"
    ]


# --- All metrics of a notebook ----------------------------------------------------


def _joint(common: Common, rows: Sequence[Comparison]) -> dict[str, float]:
    """The p-value of each notebook's metrics taken together, and of all of them. What
    drifted alone is told by itself, and would drown the others."""
    kept = [row for row in rows if not row.drifted]
    groups = {
        name: [row for row in kept if row.notebook == name] for name in common.sections
    }
    if len(groups) > 1:
        groups[ALL] = kept
    return {
        name: joint_p([row.score for row in own], _matrix(common, own))
        for name, own in groups.items()
        if len(own) > 1
    }


def _matrix(common: Common, rows: Sequence[Comparison]) -> np.ndarray | None:
    """(runs, metrics), or of a single run (seeds, metrics), of those metrics that have
    a value of every one; where some have fewer, of those that have most."""
    columns = []
    for row in rows:
        entries = [
            section["metrics"][row.metric]
            for section in common.sections[row.notebook]
            if row.metric in section["metrics"]
        ]
        single = len(entries) == 1
        values = entries[0].get("seeds") if single else [e["value"] for e in entries]
        columns.append(values or [])
    most = max(map(len, columns), default=0)
    table = [values for values in columns if len(values) == most > 1]
    return np.array(table).T if table else None


def _moved_together(outcome: Outcome) -> list[Problem]:
    problems = []
    for name, p in outcome.joint.items():
        if p <= ERROR / 2 / len(outcome.joint):
            own = [row for row in outcome.comparisons if name in (row.notebook, ALL)]
            outside = sum(not row.inside for row in own)
            text = (
                f"metrics moved together (p = {p:.1g}): {outside} of {len(own)} are "
                "outside their 95% bands"
            )
            problems.append(Problem(name, "all metrics", text))
    return problems


# --- Verdicts ---------------------------------------------------------------------


def _changes(
    run: dict, record: Sequence[dict], common: Common, rows: Sequence[Comparison]
) -> list[Change]:
    """Verdicts that no run of the record had, and recorded claims without one."""
    changes = []
    names = [n for n in common.sections if run["notebooks"][n]["status"] == FINISHED]
    for claim, verdicts in recorded_verdicts(record, names).items():
        now = run["claims"].get(claim, {}).get("verdict")
        if now in verdicts or (now is None and _replaced({claim})):
            continue
        name, metrics = _decided_by(claim, run, common)
        moved = [row for row in rows if row.notebook == name and row.metric in metrics]
        most = sorted(moved, key=lambda row: -abs(row.score))[:2]
        before = " or ".join(dict.fromkeys(verdicts))
        changes.append(Change(name, claim, before, now or GONE, tuple(most)))
    return changes


def recorded_verdicts(
    record: Sequence[dict], finished: Sequence[str]
) -> dict[str, list[str]]:
    """Verdicts by claim, of the claims that these notebooks decide."""
    numbers = {name[:2] for name in finished}
    result: dict[str, list[str]] = {}
    for content in record:
        for claim, entry in content["claims"].items():
            if _notebook_of(claim, entry, content) in numbers:
                result.setdefault(claim, []).append(entry["verdict"])
    return result


def _notebook_of(claim: str, entry: dict, content: dict) -> str | None:
    """Two digits. Runs of before it was recorded tell it by their metrics."""
    if "notebook" in entry:
        return entry["notebook"]
    for name, section in content["notebooks"].items():
        if any(metric.get("claim") == claim for metric in section["metrics"].values()):
            return name[:2]
    return None


def _decided_by(claim: str, run: dict, common: Common) -> tuple[str, set[str]]:
    """The notebook of a claim, and the metrics that decide it in run or record."""
    for name, known in common.sections.items():
        metrics = {
            metric
            for section in (*known, run["notebooks"][name])
            for metric, entry in section["metrics"].items()
            if entry.get("claim") == claim
        }
        if metrics:
            return name, metrics
    return "", set()
