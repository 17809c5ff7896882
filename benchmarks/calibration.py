"""Calibration errors: how often intervals cover and see a gap, and how fast they are.

    python benchmarks/calibration.py coverage    # about 7 minutes on one core
    python benchmarks/calibration.py speed [predictions] [turns]

`coverage` draws predictions whose calibration error is known, asks every library for a
95% interval of it, and counts two things: how often the interval holds the true error
(coverage; it should be 95%), and how often its lower limit is above 0 (power, if there
is a gap; with none, a false alarm). Everybody over-estimates confidence by the same gap
everywhere, so that ECE and root mean square error are both that gap. Results are kept
in benchmarks/results/calibration_coverage.json after every cell; a run that was stopped
goes on where it was, and `--only NAME` measures one library again. The page is
calibration_coverage.md beside it.

`speed` times the ECE of ten million predictions, ours with an interval, torchmetrics'
and netcal's. They take turns; the result is the median of the ratios within a turn.

Both install the peers once, into an environment of their own in alignlab's cache.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

PEERS = (
    "netcal==1.4.0",
    "torchmetrics==1.9.0",
    "calibstats==0.1.0",
    "calikit==0.1.0",
    "relplot==1.0.3",
)
BINS = 15
RESULTS = Path(__file__).parent / "results"


def enter_peer_environment() -> None:
    """Restart in the peers' environment, unless it is this one."""
    from alignlab.cache import cache_dir

    folder = (cache_dir() / "environments" / "calibration").resolve()
    python = folder / "bin" / "python"
    if Path(sys.prefix).resolve() == folder:
        return
    complete = folder / "complete"
    if not complete.exists() or complete.read_text() != " ".join(PEERS):
        print(f"installing {', '.join(PEERS)} into {folder}", flush=True)
        venv.create(folder, with_pip=True, clear=True)
        # Its packages come on top of this environment's, so torch is installed once.
        site = subprocess.check_output(
            [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
            text=True,
        )
        below = [sysconfig.get_path("purelib"), str(Path(__file__).parents[1])]
        (Path(site.strip()) / "below.pth").write_text("\n".join(below) + "\n")
        subprocess.check_call([python, "-m", "pip", "install", "--quiet", *PEERS])
        complete.write_text(" ".join(PEERS))
    os.execv(python, [str(python), *sys.argv])


# --- Coverage and power -----------------------------------------------------------

SIZES = (200, 500, 2000, 5000)
GAPS = (0.0, 0.05, 0.1, 0.15)
SHAPES = ("uniform", "piled at the end", "discrete")
OURS, WALD, PLUG_IN = "ours", "ours, T ± 1.96 errors", "plug-in bootstrap"
RUNS = {  # in each cell; peers are slow, and far from 95% a few runs show it
    OURS: 500,
    WALD: 500,
    PLUG_IN: 20,
    "netcal": 7,
    "calibstats": 7,
    "calikit": 7,
    "relplot": 4,
}
HOW = {
    OURS: "calibration_error_interval",
    WALD: "the same estimate with its standard error, as of version 0.1",
    PLUG_IN: "percentiles of ECE, 15 bins of equal width, 200 resamples",
    "netcal": "offers no interval: percentiles of its ECE(15), 60 resamples",
    "calibstats": "bootstrap_ci of its debiased_ece, 200 resamples",
    "calikit": "ci.bootstrap_ci of its ECE, 10 bins of equal mass, 60 resamples",
    "relplot": "its own basic bootstrap of smECE, with 30 resamples for its 100",
}


def draw(n: int, gap: float, shape: str, run: int):
    """n confidences and outcomes that happen less often by ``gap``, everywhere."""
    import numpy as np

    rng = np.random.default_rng([n, round(1000 * gap), SHAPES.index(shape), run])
    if shape == "uniform":
        confidence = rng.uniform(0.2, 0.95, n)
    elif shape == "discrete":
        confidence = rng.choice(np.arange(2, 10) / 10, n)
    else:
        confidence = 0.2 + 0.8 * rng.beta(8, 1, n)  # half of it above 0.93
    return confidence, (rng.random(n) < confidence - gap).astype(np.int64)


def intervals() -> dict:
    """By name, functions that give the limits of the error of predictions."""
    import warnings

    import calibstats
    import numpy as np
    from calikit.binning import bin_predictions, ece
    from calikit.ci import bootstrap_ci
    from netcal.metrics import ECE
    from relplot.metrics import smECE_fast
    from scipy import stats

    from alignlab.calibration import calibration_error_interval
    from alignlab.calibration.inference import _variance
    from alignlab.calibration.metrics import binned_error, debiased_squares, tally

    warnings.simplefilter("ignore")
    ECE_of_netcal = ECE(BINS)

    def wald(p, y):
        t = tally(p, y, BINS, "quantile")
        value, half = debiased_squares(t).sum(), 1.96 * _variance(t) ** 0.5
        return [max(x, 0) ** 0.5 for x in (value - half, value + half)]

    def percentiles(metric, resamples):
        def limits(p, y):
            rng = np.random.default_rng(0)
            draws = (rng.integers(0, len(p), len(p)) for _ in range(resamples))
            return np.quantile([metric(p[i], y[i]) for i in draws], [0.025, 0.975])

        return limits

    def calikit(p, y):
        def error(p, y):
            return ece(bin_predictions(p, y, k=10, scheme="mass"))

        return bootstrap_ci(p.tolist(), y.tolist(), error, reps=60)

    def relplot(p, y):
        result = stats.bootstrap(
            (p, y.astype(float)),
            smECE_fast,
            paired=True,
            n_resamples=30,
            method="basic",
            confidence_level=0.95,
            rng=0,
        )
        return result.confidence_interval

    return {
        OURS: lambda p, y: calibration_error_interval(p, y, BINS)[1:],
        WALD: wald,
        PLUG_IN: percentiles(
            lambda p, y: binned_error(tally(p, y, BINS, "uniform"), "l1"), 200
        ),
        "netcal": percentiles(ECE_of_netcal.measure, 60),
        "calibstats": lambda p, y: (
            calibstats.bootstrap_ci(p, y, calibstats.debiased_ece, n_boot=200).ci
        ),
        "calikit": calikit,
        "relplot": relplot,
    }


def measure(limits, cell: tuple, runs: int) -> dict:
    """How many intervals hold the gap, and how many lie above 0."""
    n, gap, shape = cell
    covered = above = 0
    start = time.process_time()
    for run in range(runs):
        low, high = limits(*draw(n, gap, shape, run))
        covered += bool(low <= gap <= high)
        above += bool(low > 0)
    seconds = round(time.process_time() - start, 3)
    return {"runs": runs, "covered": covered, "above 0": above, "seconds": seconds}


def coverage(only: list[str] | None, runs: float) -> None:
    """Measure every cell that is not there yet, or those of ``only`` again."""
    cells = [(n, gap, shape) for n in SIZES for gap in GAPS for shape in SHAPES]
    path = RESULTS / "calibration_coverage.json"
    results = json.loads(path.read_text()) if path.exists() else {}
    for name in only or ():
        results.pop(name, None)
    for name, limits in intervals().items():
        part = results.setdefault(name, {})
        for cell in cells:
            key = "{} predictions, gap {}, {}".format(*cell)
            if key not in part:
                count = max(1, round(runs * RUNS[name]))
                part[key] = measure(limits, cell, count)
                path.write_text(json.dumps(results, indent=1) + "\n")
        seconds = sum(row["seconds"] for row in part.values())
        print(f"{name:25}{seconds:8.1f} s of CPU time", flush=True)
        page = written({n: p for n, p in results.items() if len(p) == len(cells)})
        (RESULTS / "calibration_coverage.md").write_text(page)
    print("\n" + page)


def share(rows: list[dict], what: str) -> float:
    return sum(row[what] for row in rows) / sum(row["runs"] for row in rows)


def written(results: dict) -> str:
    """The page: everybody by size and gap, and our cells one by one."""

    def rows(name, n, gap, shapes=SHAPES):
        keys = (f"{n} predictions, gap {gap}, {shape}" for shape in shapes)
        return [results[name][key] for key in keys]

    names = [name for name in RUNS if name in results]
    settings = [(n, gap) for n in SIZES for gap in GAPS]
    lines = ["# How often intervals cover a calibration error, and see one", ""]
    lines += [
        "Predictions of a model that is over-confident by the same gap everywhere; 95% "
        "intervals. Confidences are uniform from 0.2 to 0.95, piled at the end (half "
        "above 0.93) or discrete (0.2, 0.3 to 0.9). `python benchmarks/calibration.py "
        "coverage` makes this page.",
        "",
    ]
    for name in names:
        cells = list(results[name].values())
        seconds, runs = sum(c["seconds"] for c in cells), sum(c["runs"] for c in cells)
        lines.append(
            f"- **{name}**: {HOW[name]}; {cells[0]['runs']} runs a cell, "
            f"{1000 * seconds / runs:.1f} ms an interval on average."
        )
    every = results[OURS].items()
    key, worst = min(every, key=lambda item: share([item[1]], "covered"))
    error = (0.95 * 0.05 / worst["runs"]) ** 0.5
    lines += [
        "",
        f"Our lowest coverage in {len(every)} cells is "
        f"{share([worst], 'covered'):.3f} ({key}); its standard error is {error:.3f}. "
        "Each number of the two tables that follow is of three cells.",
    ]
    for what, title in (
        ("covered", "Coverage: the interval holds the gap"),
        ("above 0", "Power: the lower limit is above 0 (false alarms at gap 0)"),
    ):
        lines += ["", f"## {title}", "", "All three shapes together.", ""]
        lines += table(
            ("n", "gap", *names),
            [
                (n, gap, *(f"{share(rows(name, n, gap), what):.2f}" for name in names))
                for n, gap in settings
            ],
        )
    lines += ["", "## Ours, cell by cell: coverage, power", ""]
    lines += table(
        ("n", "gap", *SHAPES),
        [
            (n, gap, *(two_shares(rows(OURS, n, gap, [shape])) for shape in SHAPES))
            for n, gap in settings
        ],
    )
    return "\n".join(lines) + "\n"


def two_shares(rows: list[dict]) -> str:
    return f"{share(rows, 'covered'):.3f}, {share(rows, 'above 0'):.2f}"


def table(head: tuple, rows: list[tuple]) -> list[str]:
    every = [head, ("---",) * len(head), *rows]
    return ["| " + " | ".join(map(str, row)) + " |" for row in every]


# --- Speed ------------------------------------------------------------------------


def contestants(n: int) -> dict:
    """By name, functions that give the ECE of the same predictions."""
    import numpy as np
    import torch
    from netcal.metrics import ECE
    from torchmetrics.functional.classification import binary_calibration_error

    from alignlab.calibration import calibration_error_interval, calibration_summary

    rng = np.random.default_rng(0)
    confidence = rng.beta(5, 2, n)
    correct = (rng.random(n) < confidence**1.2).astype(np.int64)
    tensors = torch.from_numpy(confidence), torch.from_numpy(correct)

    def ours():
        return calibration_summary(confidence, correct, BINS).ece

    def ours_with_quantile_interval():
        calibration_error_interval(confidence, correct, BINS)
        return ours()

    def torchmetrics(validate=True):
        error = binary_calibration_error(*tensors, n_bins=BINS, validate_args=validate)
        return float(error)

    return {
        "ours, ECE and interval": ours,
        "ours, and interval over equal mass": ours_with_quantile_interval,
        "torchmetrics": torchmetrics,
        "torchmetrics, no validation": lambda: torchmetrics(False),
        "netcal": lambda: float(ECE(BINS).measure(confidence, correct)),
    }


def speed(n: int, turns: int) -> None:
    import torch

    torch.set_num_threads(1)
    calls = contestants(n)
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(turns):
        order = list(calls) if turn % 2 == 0 else list(calls)[::-1]
        errors = {}
        for name in order:
            start = time.perf_counter()
            errors[name] = calls[name]()
            times[name].append(time.perf_counter() - start)
        spread = max(errors.values()) - min(errors.values())
        assert spread < 1e-6, f"the errors differ: {errors}"
    first = next(iter(calls))
    print(f"{n:,} predictions, {BINS} bins, one thread, median of {turns} turns")
    for name, seconds in times.items():
        ratio = statistics.median(a / b for a, b in zip(seconds, times[first]))
        print(f"{name:40}{statistics.median(seconds):8.2f} s {ratio:8.2f} times ours")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parts = parser.add_subparsers(dest="part", required=True)
    one = parts.add_parser("coverage", help="how often intervals cover, and see a gap")
    one.add_argument(
        "--only", nargs="+", choices=list(RUNS), help="forget and measure these again"
    )
    one.add_argument(
        "--runs",
        type=float,
        default=1.0,
        metavar="TIMES",
        help="times as many runs as usual; 4 halves the errors of the shares",
    )
    two = parts.add_parser("speed", help="seconds for ten million predictions")
    two.add_argument("predictions", nargs="?", type=int, default=10_000_000)
    two.add_argument("turns", nargs="?", type=int, default=5)
    arguments = parser.parse_args()
    enter_peer_environment()
    if arguments.part == "speed":
        speed(arguments.predictions, arguments.turns)
    else:
        coverage(arguments.only, arguments.runs)


if __name__ == "__main__":
    main()
