"""Profiles: how much each notebook does, from a smoke test to the recorded run.

Everything they set is in profiles.yaml beside this file; this module reads it.
"""

from pathlib import Path

from alignlab.errors import AlignlabError
from alignlab.runs.files import did_you_mean

PROFILES_FILE = Path(__file__).with_name("profiles.yaml")


def load_profiles() -> dict:
    """profiles.yaml as it is written."""
    import yaml

    return yaml.safe_load(PROFILES_FILE.read_text(encoding="utf-8"))


def check_profile(profile: str) -> str:
    """The profile's name, or an error that lists the ones there are."""
    known = load_profiles()["profiles"]
    if profile not in known:
        raise AlignlabError(
            f"there is no profile {profile!r}.", did_you_mean(profile, known)
        )
    return profile


def notebook_dials(number: str, profile: str, **overrides) -> dict:
    """The dials of one notebook in one profile, with some of them overridden.

    Args:
        number: the notebook's two digits, "01".
        profile: one of profiles.yaml.
        overrides: dials to set otherwise, by name.

    Raises:
        AlignlabError: if the profile or a dial is unknown, or a number is given a
            value that is not one.
    """
    check_profile(profile)
    everything = load_profiles()
    own = everything["notebooks"].get(number, {}).get("dials") or {}
    dials = {
        name: _at(value, profile)
        for name, value in {**everything["defaults"], **own}.items()
    }
    for name, value in overrides.items():
        if name not in dials:
            raise AlignlabError(
                f"notebook {number} has no dial {name!r}.", did_you_mean(name, dials)
            )
        _check_kind(name, value, dials[name])
        dials[name] = value
    return dials


def timeout_seconds(profile: str) -> float:
    """How long a notebook may take in this profile before it is stopped."""
    return float(load_profiles()["profiles"][check_profile(profile)]["timeout"])


def budget_seconds(number: str, profile: str) -> float | None:
    """What a notebook is meant to take on the reference machine, if a budget is set."""
    budgets = load_profiles()["notebooks"].get(number, {}).get("budget", {})
    return budgets.get(profile)


def _at(value: object, profile: str) -> object:
    """A dial written once per profile, or once for all."""
    return value[profile] if isinstance(value, dict) else value


def _check_kind(name: str, value: object, usual: object) -> None:
    if _is_number(usual) and not _is_number(value):
        raise AlignlabError(
            f"the dial {name!r} is a number; got {value!r}.",
            f"Give a number, for example {name}={usual}.",
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
