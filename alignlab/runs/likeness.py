"""Like with like: what of a record a run may be held against, and in what it differs.

Another profile, other hyperparameters and fewer seeds are refused: the numbers would
differ and tell nothing of the code. Another commit, other libraries or another machine
are what a regression run is for, and are told.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from alignlab.errors import AlignlabError
from alignlab.runs.records import describe, different_settings, sections_of

REMEDY = "Run it as the record was, or add --unlike to compare all the same."


@dataclass(frozen=True)
class Common:
    """What a run and its record have in common.

    Attributes:
        sections: of each notebook, what the record's runs have of it.
        notes: how the run was made otherwise, a line each.
        left_out: notebooks of the run that the record cannot judge, and why.
    """

    sections: dict[str, list[dict]]
    notes: tuple[str, ...]
    left_out: dict[str, str]


def common_part(run: dict, record: Sequence[dict], unlike: bool = False) -> Common:
    """What of a record a run may be held against.

    Args:
        run: as its metrics.json has it.
        record: the runs to hold it against.
        unlike: go on where profile or settings differ, and tell it.

    Raises:
        AlignlabError: if they have nothing in common, or differ in what makes numbers
            incomparable.
    """
    if not run["notebooks"]:
        raise AlignlabError("The run holds no notebook.", "Run one: `alignlab run 00`.")
    sections, left_out, notes = {}, {}, []
    for name, section in run["notebooks"].items():
        known = sections_of(record, name)
        other = {s.get("profile", run["profile"]) for s in known} - {run["profile"]}
        if not known:
            left_out[name] = "not in the record"
        elif other and not unlike:
            left_out[name] = f"recorded on profile {', '.join(sorted(other))}"
        else:
            notes += _other_settings(name, section, known, unlike)
            sections[name] = known
    if not sections:
        why = "; ".join(f"{name} is {text}" for name, text in left_out.items())
        raise AlignlabError(
            f"The run is of profile {run['profile']} and has no notebook in common "
            f"with the record: {why}.",
            "Name another record with --against, or check the run by itself with "
            "--alone.",
        )
    return Common(sections, tuple(notes + _made_otherwise(run, sections)), left_out)


def _other_settings(
    name: str, section: dict, known: Sequence[dict], unlike: bool
) -> list[str]:
    """Settings that are not the record's; refused unless ``unlike``."""
    mine = section.get("settings", {})
    theirs = known[0].get("settings", {})
    if not mine:  # it failed before it began
        return []
    differing = different_settings(theirs, mine)
    problems = [f"{describe(differing)} here"] if differing else []
    few, many = mine.get("seeds", 1), theirs.get("seeds", 1)
    if few < many:
        problems.append(f"it has {few} seeds where the record has {many}")
    other_seeds = section["seeds"][:1] != known[0]["seeds"][:1]
    if len(known) == 1 and theirs.get("nested") is False and other_seeds:
        problems.append(
            "the record is a single run whose seeds share one reference policy, which "
            "says nothing of runs with another first seed"
        )
    if len(known) == 1 and len(known[0]["seeds"]) == 1 and other_seeds:
        problems.append(
            "the record is a single run of one seed, which says nothing of other seeds"
        )
    if problems and not unlike:
        raise AlignlabError(
            f"{name} is not like its record: {' and '.join(problems)}.", REMEDY
        )
    models = {before.get("model_hash", "") for before in known}
    if section.get("model_hash", "") not in models:
        problems.append(f"{mine.get('model')} has other weights than in the record")
    new = [key for key in mine if theirs and key not in theirs]
    gone = [key for key in theirs if mine and key not in mine]
    if new:
        problems.append(f"the record has no setting {', '.join(new)}")
    if gone:
        problems.append(f"the run has no setting {', '.join(gone)}")
    return [f"{name}: {problem}" for problem in problems]


def _made_otherwise(run: dict, sections: dict[str, list[dict]]) -> list[str]:
    """Code, weights, libraries and machine, where they are not the record's."""
    made = [section for known in sections.values() for section in known]
    notes = []
    commits = {_commit(section) for section in made}
    if _commit(run) not in commits or run.get("dirty"):
        notes.append(f"commit {_commit(run)}; in the record {_all(commits)}")
    for name, what in (("weights", "weights of "), ("versions", "")):
        for key, value in (run.get(name) or {}).items():
            others = {s[name][key] for s in made if key in (s.get(name) or {})}
            if others and others != {value}:
                notes.append(f"{what}{key} {value}; in the record {_all(others)}")
    platforms = {section["platform"] for section in made if section.get("platform")}
    if platforms and run.get("platform") not in platforms:
        mine = run.get("platform")
        notes.append(f"machine {mine}; in the record {_all(platforms)}")
    return notes


def _all(values: Iterable[str]) -> str:
    return ", ".join(sorted(values))


def _commit(made: dict) -> str:
    commit = (made.get("commit") or "unknown")[:10]
    return f"{commit} with changes" if made.get("dirty") else commit
