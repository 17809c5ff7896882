"""Errors keep their message and remedy, also on the way out of a worker process."""

import pickle

from alignlab.errors import AlignlabError


def test_an_error_survives_the_way_out_of_a_worker():
    error = AlignlabError("No source.", "Fetch it.")
    back = pickle.loads(pickle.dumps(error))
    assert (back.message, back.remedy) == ("No source.", "Fetch it.")
    assert str(back) == str(error) == "No source. Fetch it."


def test_a_remedy_may_be_missing():
    assert str(AlignlabError("No source.")) == "No source."
