"""Downloading: whatever goes wrong with pip is one clear message."""

import sys

import pytest

from alignlab.data import download, sources
from alignlab.errors import AlignlabError
from tests.data.toy import WHEEL, cached, only_this_folder


def test_no_network_and_empty_cache_give_one_clear_message(toy, monkeypatch):
    only_this_folder(monkeypatch, PIP_INDEX_URL="http://127.0.0.1:9/simple")
    with pytest.raises(AlignlabError, match="no connection") as error:
        sources.fetch("toy-source", progress=False)
    assert "'toy-source'" in error.value.message
    assert "alignlab data pull toy-source" in error.value.remedy
    assert len(str(error.value).splitlines()) == 1
    assert [p.name for p in cached(toy).parent.iterdir()] == [f"{WHEEL}.lock"]


def test_pip_missing(toy, monkeypatch):
    monkeypatch.setattr(download.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(AlignlabError, match="pip is not installed"):
        sources.fetch("toy-source")


def test_full_disk_inside_pip(toy):
    log = "Collecting toy\nERROR: [Errno 28] No space left on device: 'toy.whl'\n"
    assert "disk is full" in download._pip_failed(toy, log).message


def test_what_pip_prints_is_kept_off_the_disk(toy, monkeypatch):
    """A log file in the full folder would lose the very line that says it is full."""
    script = "print('x' * 200_000); print('OSError: [Errno 28] no room'); exit(2)"
    command = [sys.executable, "-c", script]
    monkeypatch.setattr(download, "_pip_command", lambda source, folder: command)
    with pytest.raises(AlignlabError, match="disk is full"):
        sources.fetch("toy-source", progress=False)
