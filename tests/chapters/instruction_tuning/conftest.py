"""A small world, for tests of questions about facts."""

import pytest

from alignlab.world.facts import KNOWN_FROM, RELATIONS, Fact, World


@pytest.fixture
def world():
    """Known facts of three relations, a rare and a never-shown one."""
    facts = [
        Fact(
            f"Land{i}",
            relation,
            (f"{relation}{i}",),
            KNOWN_FROM + i,
            (f"{relation}{i}",),
        )
        for i in range(12)
        for relation in ("capital", "currency", "language")
    ]
    facts.append(Fact("Rareland", "capital", ("Raretown",), 3, ("Raretown",)))
    facts.append(Fact("Newland", "capital", ("Newtown",), 0, ("Newtown",)))
    return World(tuple(facts), RELATIONS, 0)
