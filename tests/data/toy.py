"""A toy wheel that real pip takes from a local folder, so that no network is needed."""

import hashlib
import os
import zipfile

import pytest

from alignlab.cache import cache_dir
from alignlab.data import pins, sources

WHEEL = "toy_source-1.0-py3-none-any.whl"
METADATA = "Metadata-Version: 2.1\nName: toy-source\nVersion: 1.0\n"
TAG = "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder pip looks into instead of the package index, holding one toy wheel."""
    folder = tmp_path / "index"
    folder.mkdir()
    with zipfile.ZipFile(folder / WHEEL, "w") as wheel:
        wheel.writestr("toy/hello.txt", "\ufeffhello\r\nworld\r\n")
        wheel.writestr("toy_source-1.0.dist-info/METADATA", METADATA)
        wheel.writestr("toy_source-1.0.dist-info/WHEEL", TAG)
        wheel.writestr("toy_source-1.0.dist-info/RECORD", "")
    only_this_folder(monkeypatch, PIP_NO_INDEX="1", PIP_FIND_LINKS=str(folder))
    return folder


def only_this_folder(monkeypatch, **settings):
    """Hide this machine's configuration of pip."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def toy(index, tmp_path, monkeypatch):
    """The toy source, pinned to that wheel, and an empty cache."""
    content = (index / WHEEL).read_bytes()
    source = pinned(hashlib.sha256(content).hexdigest(), len(content))
    monkeypatch.setitem(sources.SOURCES, "toy-source", source)
    monkeypatch.setenv("ALIGNLAB_CACHE", str(tmp_path / "cache"))
    return source


def pinned(sha256, size):
    return pins.Source(
        "toy-source", "1.0", WHEEL, sha256, size, "MIT", "made here", "a toy"
    )


def cached(source):
    return cache_dir() / "sources" / source.filename
