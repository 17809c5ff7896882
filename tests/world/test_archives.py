"""The archives: facts that anybody can check."""

import pytest

from alignlab.world.archives import read_facts


@pytest.mark.network
def test_some_facts_that_anybody_can_check():
    facts = {(subject, relation): right for subject, relation, right in read_facts()}
    assert facts["France", "capital"] == ("Paris",)
    assert facts["Japan", "currency"] == ("yen",)
    assert facts["Brazil", "continent"] == ("South America",)
    assert set(facts["Portugal", "neighbour"]) == {"Spain"}
    assert facts["gold", "symbol"] == ("Au",)
    assert facts["iron", "atomic_number"] == ("26",)
    assert "mice" in facts["mouse", "plural"]
