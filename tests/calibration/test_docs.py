"""Every block of docs/calibration.md runs, in order, and prints what the page shows."""

import contextlib
import io
import re
from pathlib import Path

import matplotlib
import pytest

matplotlib.use("Agg")
PAGE = Path(__file__).parents[2] / "docs" / "calibration.md"
BLOCK = re.compile(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.S)


@pytest.mark.filterwarnings("ignore")
def test_the_page_does_what_it_shows(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    blocks = BLOCK.findall(PAGE.read_text(encoding="utf-8"))
    assert len(blocks) >= 12
    for code, shown in blocks:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile(code, str(PAGE), "exec"), names)
        assert printed.getvalue() == shown, code


def test_everything_public_is_on_the_page():
    from alignlab import calibration

    page = PAGE.read_text(encoding="utf-8")
    assert [name for name in calibration.__all__ if name not in page] == []
