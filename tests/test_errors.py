"""Errors keep their message and remedy, also on the way out of a worker process."""

import errno
import os
import pickle

import pytest

from alignlab.errors import AlignlabError, explained_if_full


def test_an_error_survives_the_way_out_of_a_worker():
    error = AlignlabError("No source.", "Fetch it.")
    back = pickle.loads(pickle.dumps(error))
    assert (back.message, back.remedy) == ("No source.", "Fetch it.")
    assert str(back) == str(error) == "No source. Fetch it."


def test_a_remedy_may_be_missing():
    assert str(AlignlabError("No source.")) == "No source."


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
@pytest.mark.parametrize("file", ["{}", "{}/run/x.json", "{}/.."])
def test_a_folder_that_cannot_be_written_is_named_with_the_remedy(
    tmp_path, number, file
):
    path = os.path.normpath(file.format(tmp_path))
    with pytest.raises(AlignlabError, match=f"Cannot write to {tmp_path}: ") as caught:
        with explained_if_full(tmp_path, "Free some space."):
            raise OSError(number, os.strerror(number), path)
    assert "ALIGNLAB_CACHE" in caught.value.remedy


def test_other_places_that_cannot_be_written_are_other_errors(tmp_path):
    for error in (
        PermissionError(errno.EACCES, "no", str(tmp_path / "other")),
        PermissionError(errno.EACCES, "no"),
        FileNotFoundError(errno.ENOENT, "no", str(tmp_path)),
    ):
        with pytest.raises(type(error)):
            with explained_if_full(tmp_path / "folder", "Free some space."):
                raise error
