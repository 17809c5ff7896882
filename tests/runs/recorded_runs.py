"""Small runs as metrics.json has them, to hold against each other."""

import copy

import numpy as np

NAME = "00_base_model"
SETTINGS = {"seeds": 3, "first_seed": 0, "jobs": 2, "steps": 200}


def metric(values, claim=None, unit="", n=200, **more):
    values = [float(value) for value in values]
    half = 2 * np.std(values, ddof=1) if len(values) > 1 else None
    mean = sum(values) / len(values)
    return {
        "claim": claim,
        "unit": unit,
        "value": mean,
        "low": None if half is None else mean - half,
        "high": None if half is None else mean + half,
        "seeds": values,
        "n": n,
        "interval": "seeds" if len(values) > 1 else None,
        **more,
    }


def make_run(seed=0, shift=0.0, metrics=12, seeds=3):
    """A run of three seeds from ``seed`` on: metrics m0, m1, ... around 0.5, of which
    m0 decides the claim "gain"."""
    drawn = np.array(
        [
            np.random.default_rng([s, 9]).normal(0.5 + shift, 0.03, metrics)
            for s in range(seed, seed + seeds)
        ]
    )
    entries = {f"m{i}": metric(drawn[:, i]) for i in range(metrics)}
    entries["m0"]["claim"] = "gain"
    return {
        "profile": "cpu",
        "started": f"2026-01-{1 + seed:02d}T00:00:00Z",
        "commit": "a" * 40,
        "dirty": False,
        "package": "p",
        "weights": {"1m": "w"},
        "versions": {"torch": "2.13"},
        "platform": "a machine",
        "notebooks": {
            NAME: {
                "status": "finished",
                "seeds": list(range(seed, seed + seeds)),
                "settings": SETTINGS | {"first_seed": seed, "seeds": seeds},
                "metrics": entries,
            }
        },
        "claims": {
            "gain": {
                "notebook": "00",
                "verdict": "reproduced",
                "reason": "",
                "power": 1,
            }
        },
    }


def changed(run, *path, to):
    """A copy of a run in which one thing is another; ``None`` removes it."""
    run = copy.deepcopy(run)
    place = run
    for key in path[:-1]:
        place = place[key]
    if to is None:
        del place[path[-1]]
    else:
        place[path[-1]] = to
    return run
