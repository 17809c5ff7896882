"""`alignlab run --fresh`: as if nothing had ever been trained on this machine."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from alignlab.cache import cache_dir
from alignlab.runs.environ import variable

OWN = ("artifacts", "locks")  # what a fresh cache does not share with the usual one


@contextmanager
def empty_cache() -> Iterator[Path]:
    """A cache without artifacts while the block lasts, for this process and those that
    it starts; data archives are those of the usual one. What is built is removed at the
    end."""
    usual = cache_dir()
    (usual / "sources").mkdir(parents=True, exist_ok=True)  # what is downloaded stays
    folder = Path(tempfile.mkdtemp(prefix="fresh-", dir=usual))
    for item in usual.iterdir():
        if item.name not in OWN and not item.name.startswith("fresh-"):
            (folder / item.name).symlink_to(item.resolve())
    try:
        with variable("ALIGNLAB_CACHE", str(folder)):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
