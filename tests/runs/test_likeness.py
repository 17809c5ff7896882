"""Like is held against like; what is unlike is refused, what differs is told."""

import pytest

from alignlab.errors import AlignlabError
from alignlab.runs.likeness import common_part

from .recorded_runs import NAME, changed, make_run

RECORD = [make_run(0), make_run(3)]
SECTION = ("notebooks", NAME)


def other_notebook(run):
    return {**run, "notebooks": {"01_other": run["notebooks"][NAME]}}


@pytest.mark.parametrize(
    "run, said",
    [
        (changed(make_run(6), "notebooks", to={}), "holds no notebook"),
        (
            other_notebook(make_run(6)),
            "no notebook in common with the record: 01_other",
        ),
        (changed(make_run(6), "profile", to="smoke"), "recorded on profile cpu"),
        (
            changed(make_run(6), *SECTION, "settings", "steps", to=100),
            f"{NAME} is not like its record: steps is 200 and 100 here",
        ),
        (
            changed(make_run(6), *SECTION, "settings", "seeds", to=2),
            "it has 2 seeds where the record has 3",
        ),
    ],
)
def test_unlike_runs_are_refused(run, said):
    with pytest.raises(AlignlabError) as error:
        common_part(run, RECORD)
    assert said in str(error.value) and error.value.remedy


@pytest.mark.parametrize(
    "path, to, said",
    [
        (("profile",), "smoke", None),
        ((*SECTION, "settings", "steps"), 100, f"{NAME}: steps is 200 and 100 here"),
        ((*SECTION, "settings", "seeds"), 2, f"{NAME}: it has 2 seeds where"),
    ],
)
def test_unlike_compares_all_the_same_and_tells(path, to, said):
    common = common_part(changed(make_run(6), *path, to=to), RECORD, unlike=True)
    assert list(common.sections) == [NAME]
    assert said is None or any(note.startswith(said) for note in common.notes)


@pytest.mark.parametrize(
    "path, to, said",
    [
        (("commit",), "b" * 40, "commit bbbbbbbbbb; in the record aaaaaaaaaa"),
        (("dirty",), True, "commit aaaaaaaaaa with changes; in the record aaaaaaaaaa"),
        (("weights",), {"1m": "x"}, "weights of 1m x; in the record w"),
        (("versions",), {"torch": "3.0"}, "torch 3.0; in the record 2.13"),
        (("platform",), "another", "machine another; in the record a machine"),
        (
            (*SECTION, "model_hash"),
            "h",
            f"{NAME}: None has other weights than in the record",
        ),
        (
            (*SECTION, "settings", "new"),
            1,
            f"{NAME}: the record has no setting new",
        ),
    ],
)
def test_what_differs_is_told(path, to, said):
    assert common_part(make_run(6), RECORD).notes == ()
    assert said in common_part(changed(make_run(6), *path, to=to), RECORD).notes


def test_seeds_and_jobs_may_differ():
    run = changed(make_run(6), *SECTION, "settings", "jobs", to=8)
    assert common_part(run, RECORD).notes == ()


def test_a_notebook_that_the_record_lacks_is_left_out():
    run = make_run(6)
    run["notebooks"]["01_other"] = run["notebooks"][NAME]
    common = common_part(run, RECORD)
    assert common.left_out == {"01_other": "not in the record"}
    assert list(common.sections) == [NAME]


def test_a_section_recorded_on_another_profile_is_left_out():
    """As notebook 09 of the recorded run."""
    record = changed(RECORD[0], "notebooks", "01_other", to=None or {})
    record["notebooks"]["01_other"] = {
        **record["notebooks"][NAME],
        "profile": "smoke",
    }
    run = make_run(6)
    run["notebooks"]["01_other"] = run["notebooks"][NAME]
    assert common_part(run, [record]).left_out == {
        "01_other": "recorded on profile smoke"
    }


def test_seeds_on_one_reference_say_nothing_of_another_reference():
    """One recorded run whose seeds share a reference policy: the same first seed can be
    judged by it, another cannot. Several runs can judge any."""
    record = [changed(r, *SECTION, "settings", "nested", to=False) for r in RECORD]
    same, other = (
        changed(make_run(seed), *SECTION, "settings", "nested", to=False)
        for seed in (0, 6)
    )
    assert list(common_part(same, record[:1]).sections) == [NAME]
    assert list(common_part(other, record).sections) == [NAME]
    with pytest.raises(AlignlabError, match="share one reference policy"):
        common_part(other, record[:1])


def test_a_single_seed_says_nothing_of_others():
    record = [make_run(0, seeds=1), make_run(1, seeds=1)]
    assert list(common_part(make_run(0, seeds=1), record[:1]).sections) == [NAME]
    assert list(common_part(make_run(6, seeds=1), record).sections) == [NAME]
    with pytest.raises(AlignlabError, match="a single run of one seed"):
        common_part(make_run(6, seeds=1), record[:1])
