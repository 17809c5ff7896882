"""Claims: what the lectures say, what would show it, and what would break its control.

They stand in each chapter's claims.yaml. Thresholds are fixed before anything is
measured and are never moved. If a design turns out to be the wrong one, a claim with a
new id replaces it, is measured on fresh seeds, and keeps the former verdict and the
reason. Rates, accuracies and their differences are shares from 0 to 1.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from alignlab.runs.profiles import chapter_folders


@dataclass(frozen=True)
class Condition:
    """A recorded metric and the side of a threshold its interval must lie on.

    Attributes:
        metric: the name that ``record`` gets.
        direction: "above" or "below": the side that shows the claim.
        threshold: null plus or minus the smallest effect worth the name.
        why: why this threshold, in a line.
        null: the value of no effect; None for a level ("format at least 0.9"). The
            threshold lies between it and an effect, except for a control that has to
            show none: "below 0.1" beside null 0.
        bounds: what the metric cannot leave: (0, 1) for a rate.
        control: whether it is what the claim is held against.
        breaks_if: for a control, the result that would break it.
    """

    metric: str
    direction: str
    threshold: float
    why: str
    null: float | None = None
    bounds: tuple[float, float] | None = None
    control: bool = False
    breaks_if: str = ""

    @property
    def wants_null(self) -> bool:
        """Whether the side that is wanted is that of no effect."""
        above = self.direction == "above"
        return self.null is not None and above == (self.null > self.threshold)


@dataclass(frozen=True)
class Former:
    """A claim that was replaced: its id, its last verdict, and what was wrong."""

    id: str
    verdict: str
    why: str


@dataclass(frozen=True)
class Claim:
    """One entry of a claims.yaml; it holds if *all* of its conditions do.

    Attributes:
        id: its name in claims.yaml.
        notebook: two digits.
        claim: what the lectures say.
        measured_as, control, reference: prose.
        conditions: effects and controls.
        min_seeds: with fewer there is no verdict.
        needs_known_pretraining: what of its model's pretraining it rests on, such as
            "how often each fact was stated". Where a model of other people's is run
            nobody knows that, and there is no verdict. Empty if any model will do.
        chosen_by_looking: what was chosen after a pilot had been seen.
        former: the claims that it replaces.
    """

    id: str
    notebook: str
    claim: str
    measured_as: str
    control: str
    reference: str
    conditions: tuple[Condition, ...]
    min_seeds: int
    needs_known_pretraining: str = ""
    chosen_by_looking: str = ""
    former: tuple[Former, ...] = ()


@cache
def load_claims() -> dict[str, Claim]:
    """The claims of all chapters by id, in the order of the chapters.

    Raises:
        ValueError: for an id given twice or replaced and still there, or a condition
            that cannot be judged.
    """
    claims: dict[str, Claim] = {}
    owners: dict[str, str] = {}
    for number, folder in chapter_folders().items():
        for claim in _read_claims(folder, number):
            if claim.id in claims:
                raise ValueError(f"claims.yaml: two claims have the id {claim.id}")
            claims[claim.id] = claim
            for condition in claim.conditions:
                _check_condition(claim, condition, owners)
    for claim in claims.values():
        for former in claim.former:
            if former.id in claims:
                raise ValueError(
                    f"claims.yaml: {claim.id} replaces {former.id}, which is still "
                    "there; remove it or give the replacement up"
                )
    return claims


def claims_as_json(number: str) -> dict[str, dict]:
    """The claims of one notebook, by id, for a run to keep: it is judged by them
    whatever becomes of claims.yaml."""
    return {
        claim.id: {key: value for key, value in asdict(claim).items() if key != "id"}
        for claim in load_claims().values()
        if claim.notebook == number
    }


def claims_from_json(kept: Mapping[str, Mapping]) -> dict[str, Claim]:
    """The claims that a run has kept, by id."""
    claims = {}
    for name, entry in kept.items():
        conditions = [_condition(dict(item)) for item in entry["conditions"]]
        former = [Former(**item) for item in entry["former"]]
        rest = entry | {"conditions": tuple(conditions), "former": tuple(former)}
        claims[name] = Claim(id=name, **rest)
    return claims


def _read_claims(folder: Path, number: str) -> list[Claim]:
    import yaml

    entries = yaml.safe_load((folder / "claims.yaml").read_text(encoding="utf-8"))
    return [_claim(name, number, entry) for name, entry in entries.items()]


def _claim(name: str, number: str, entry: dict) -> Claim:
    try:
        conditions = tuple(_condition(item) for item in entry.pop("conditions"))
        former = tuple(Former(**item) for item in entry.pop("former", ()))
        return Claim(
            id=name, notebook=number, conditions=conditions, former=former, **entry
        )
    except (KeyError, TypeError) as error:
        raise ValueError(f"claims.yaml, {name}: {error}") from None


def _condition(item: dict) -> Condition:
    # YAML reads the key `null` as None.
    item = {"null" if key is None else key: value for key, value in item.items()}
    bounds = item.pop("bounds", None)
    return Condition(**item, bounds=bounds and (float(bounds[0]), float(bounds[1])))


def _check_condition(
    claim: Claim, condition: Condition, owners: dict[str, str]
) -> None:
    """Refuse what cannot be judged, and a metric that belongs to another claim."""
    for wrong, problem in _problems(condition):
        if wrong:
            raise ValueError(f"claims.yaml, {claim.id}, {condition.metric}: {problem}")
    other = owners.setdefault(condition.metric, claim.id)
    if other != claim.id:
        raise ValueError(
            f"claims.yaml: {condition.metric} is a condition of {other} and "
            f"{claim.id}; give each its own metric"
        )


def _problems(condition: Condition) -> list[tuple[bool, str]]:
    null, threshold, bounds = condition.null, condition.threshold, condition.bounds
    return [
        (
            condition.direction not in ("above", "below"),
            f"direction must be 'above' or 'below', not {condition.direction!r}",
        ),
        (
            threshold == 0 and null is None,
            "threshold 0 makes every effect count; give null and the smallest effect "
            "worth the name",
        ),
        (
            null == threshold,
            f"null and threshold are both {threshold}; their distance is the smallest "
            "effect worth the name",
        ),
        (
            condition.wants_null and not condition.control,
            f"{condition.direction} {threshold} is no effect beside null {null}; for a "
            "limit leave null out",
        ),
        (
            condition.control and not condition.breaks_if.strip(),
            "a control needs breaks_if: the result that would break it",
        ),
        (
            bounds is not None and not bounds[0] < threshold < bounds[1],
            f"threshold {threshold} must lie within bounds {bounds}",
        ),
    ]
