"""ECE of ten million predictions: ours with an interval, torchmetrics' and netcal's.

They take turns, and the result is the median of the ratios within a turn. Run it with
`python benchmarks/calibration.py [predictions] [turns]`; it installs the peers once,
into an environment of their own in alignlab's cache.
"""

import os
import statistics
import subprocess
import sys
import sysconfig
import time
import venv
from pathlib import Path

PEERS = ("netcal==1.4.0", "torchmetrics==1.9.0")
BINS = 15


def enter_peer_environment() -> None:
    """Restart in the peers' environment, unless it is this one."""
    from alignlab.cache import cache_dir

    folder = (cache_dir() / "environments" / "calibration").resolve()
    python = folder / "bin" / "python"
    if Path(sys.prefix).resolve() == folder:
        return
    if not (folder / "complete").exists():
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
        (folder / "complete").touch()
    os.execv(python, [str(python), *sys.argv])


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


def main(n: int = 10_000_000, turns: int = 5) -> None:
    enter_peer_environment()
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


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
