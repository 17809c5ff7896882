"""Profiles: how much each notebook does, from a smoke test to the recorded run.

Shared values are in profiles.yaml beside this file, a notebook's own in its chapter's.
"""

from pathlib import Path

import alignlab
from alignlab.errors import AlignlabError, did_you_mean

PROFILES_FILE = Path(__file__).with_name("profiles.yaml")
CHAPTERS = Path(alignlab.__file__).parent / "chapters"


def load_profiles() -> dict:
    """profiles.yaml, with each chapter's budget and settings in ``"notebooks"``, by the
    two digits of its number."""
    import yaml

    profiles = yaml.safe_load(PROFILES_FILE.read_text(encoding="utf-8"))
    return {**profiles, "notebooks": _load_chapters()}


def _load_chapters() -> dict[str, dict]:
    import yaml

    chapters = {}
    for file in CHAPTERS.glob("*/profiles.yaml"):
        entry = yaml.safe_load(file.read_text(encoding="utf-8"))
        number = entry.pop("notebook")
        if number in chapters:
            raise ValueError(f"two chapters have the number {number}; one is {file}")
        chapters[number] = entry | {"folder": file.parent}
    return dict(sorted(chapters.items()))


def chapter_folders() -> dict[str, Path]:
    """The chapters' folders by the two digits of their numbers, in ascending order."""
    return {number: entry["folder"] for number, entry in _load_chapters().items()}


def check_profile(profile: str) -> str:
    """The profile's name, or an error that lists the ones there are."""
    known = load_profiles()["profiles"]
    if profile not in known:
        raise AlignlabError(
            f"There is no profile {profile!r}.", did_you_mean(profile, known)
        )
    return profile


def notebook_settings(number: str, profile: str, **overrides) -> dict:
    """The settings of one notebook in one profile.

    Args:
        number: the notebook's two digits, "01".
        profile: one of profiles.yaml.
        overrides: values that replace the profile's, by name.

    Raises:
        AlignlabError: if the profile or a setting is unknown, or a number is replaced
            by something that is none.
    """
    check_profile(profile)
    profiles = load_profiles()
    own = profiles["notebooks"].get(number, {}).get("settings") or {}
    defaults = profiles["defaults"]
    settings = {
        name: _in_profile(value, profile, defaults.get(name))
        for name, value in {**defaults, **own}.items()
    }
    for name, value in overrides.items():
        if name not in settings:
            raise AlignlabError(
                f"Notebook {number} has no setting {name!r}.",
                did_you_mean(name, settings),
            )
        check_type("setting", name, value, settings[name])
        settings[name] = value
    return settings


def timeout_seconds(profile: str) -> float:
    """How long a notebook may take in this profile before it is stopped."""
    return float(load_profiles()["profiles"][check_profile(profile)]["timeout"])


def budget_seconds(number: str, profile: str) -> float | None:
    """How long a notebook should take on the reference machine; None if not stated."""
    budgets = load_profiles()["notebooks"].get(number, {}).get("budget", {})
    return budgets.get(profile)


def named_only(profile: str) -> set[str]:
    """The numbers of the notebooks that a run in this profile leaves out unless they
    are named: those whose chapter lists it under ``named_only``."""
    chapters = load_profiles()["notebooks"]
    return {
        n for n, entry in chapters.items() if profile in entry.get("named_only", ())
    }


def _in_profile(value: object, profile: str, default: object = None) -> object:
    """A setting has one value per profile, or a single one for all of them. A chapter's
    own may leave profiles out, in which it is the default one."""
    if not isinstance(value, dict):
        return value
    return value[profile] if profile in value else default[profile]


def check_type(what: str, name: str, value: object, default: object) -> None:
    """Refuse a value that is no number, or no text, where the usual one is.

    Args:
        what: "setting" or "parameter", for the message.

    Raises:
        AlignlabError: with the remedy.
    """
    if _is_number(default) and not _is_number(value):
        raise AlignlabError(
            f"The {what} {name!r} is a number; got {value!r}.",
            f"Give a number, for example {name}={default}.",
        )
    if name == "seed" and not isinstance(value, int):
        raise AlignlabError(f"seed is a whole number; got {value!r}.")
    if isinstance(default, bool) and not isinstance(value, bool):
        raise AlignlabError(f"The {what} {name!r} is true or false; got {value!r}.")
    if isinstance(default, str) and not isinstance(value, str):
        raise AlignlabError(
            f"The {what} {name!r} is text; got {value!r}.",
            f"Give it in quotes: {name}=\"'{value}'\".",
        )


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
