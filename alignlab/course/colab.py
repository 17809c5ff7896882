"""What the set-up cell of a notebook calls on Google Colab, behind the installation."""

import importlib
import os
from pathlib import Path

import alignlab
from alignlab.errors import AlignlabError

DRIVE = Path("/content/drive")


def set_up(version: str, drive: str = "") -> None:
    """Prepare a Colab session: look at versions, mount the Drive, fetch the data.

    It may be run again, as after a restart: what is there already is kept.

    Args:
        version: the release of alignlab that the notebook was built with.
        drive: a folder of the user's Google Drive in which downloads and trained models
            are kept for the next session; empty: they last as long as this one.

    Raises:
        AlignlabError: if another release is installed, or a source cannot be fetched.
    """
    if alignlab.__version__ != version:
        raise AlignlabError(
            f"This notebook is of alignlab {version}; {alignlab.__version__} is "
            "installed.",
            "Open the notebook from its repository again. If it is the newest, choose "
            "Runtime, Disconnect and delete runtime, and run the set-up once more.",
        )
    if drive:
        _keep_on_drive(drive)
    from alignlab.cache import cache_dir
    from alignlab.data.sources import pull

    pull()
    print(f"alignlab {version} is ready; it keeps what it trains in {cache_dir()}.")


def _keep_on_drive(folder: str) -> None:
    colab = importlib.import_module("google.colab")  # of no package one could install
    colab.drive.mount(str(DRIVE))
    os.environ["ALIGNLAB_CACHE"] = str(DRIVE / "MyDrive" / folder)
