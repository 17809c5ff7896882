"""What SECURITY.md promises, as far as a test can see it."""

import base64
import json
import re
import socket
import zipfile
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pandas as pd
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from alignlab import store
from alignlab.errors import AlignlabError
from alignlab.runs import context, say, start
from alignlab.runs.notebooks import read_parameters
from alignlab.runs.webpages import as_html, in_mathml

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "alignlab"
EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)> [a](javascript:b) ![c](d)"


# --- Code -----------------------------------------------------------------------------

# Where a pickle is read, it comes through a pipe from a process of our own.
PIPES = {"course/grading.py"}


def test_no_pickle_is_loaded_from_a_file_and_no_remote_code_is_run():
    for path in sorted(PACKAGE.rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        for call in re.findall(r"torch\.load\([^)]*\)", text):
            assert "weights_only=True" in call, path
        if path.relative_to(PACKAGE).as_posix() not in PIPES:
            assert not re.search(r"\b(un)?pickle\w*\.loads?\(|joblib\.load\(", text), (
                path
            )
        assert not re.search(r"allow_pickle|trust_remote_code\s*=\s*True", text), path
        assert "yaml.unsafe_load" not in text and "yaml.full_load" not in text, path
        assert not re.search(r"weights_only\s*=\s*False|shell=True", text), path


def test_yaml_makes_no_objects():
    from alignlab.training.recipes.config import _Loader
    from alignlab.world.texts import _LOADER

    for loader in (_Loader, _LOADER):
        assert issubclass(loader, yaml.SafeLoader | yaml.CSafeLoader)


# --- Zip files of a store -------------------------------------------------------------


def put_by_hand(folder, write):
    path = folder / "demo" / "x.zip"
    path.parent.mkdir(parents=True)
    with zipfile.ZipFile(path, "w") as packed:
        write(packed)


@pytest.mark.parametrize(
    ("write", "said"),
    [
        (lambda z: z.writestr("../outside", "x"), "lies outside its folder"),
        (lambda z: z.writestr("a/../../outside", "x"), "lies outside its folder"),
        (lambda z: z.writestr("/outside", "x"), "lies outside its folder"),
        (
            lambda z: z.writestr("bomb", "0" * 10**7, zipfile.ZIP_DEFLATED),
            "it grows when it is unpacked",
        ),
    ],
)
def test_a_zip_file_that_was_not_put_there_is_refused(
    tmp_path, monkeypatch, write, said
):
    monkeypatch.setenv(store.STORE, f"file://{tmp_path}/store")
    put_by_hand(tmp_path / "store", write)
    with pytest.warns(UserWarning, match=said):
        assert not store.fetch("demo/x", tmp_path / "to" / "folder")
    assert not (tmp_path / "to" / "folder").exists()
    assert not list(tmp_path.rglob("outside"))


# --- Secrets --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "pair",
    ["api_key=abc", "HF_TOKEN=abc", "password=abc", "aws_secret_key=abc",
     "data=https://me:abc@host/file", "data=s3://bucket/x?signature=abc"],
)  # fmt: skip
def test_a_parameter_that_would_be_recorded_holds_no_secret(pair):
    with pytest.raises(AlignlabError, match="seems to hold a secret") as error:
        read_parameters([pair])
    assert "abc" not in str(error.value) and "environment" in error.value.remedy


@pytest.mark.parametrize(
    "pair", ["seed=3", "new_tokens=5", "max_length=9", "model=a/b", "eos=</s>"]
)
def test_other_parameters_are_no_secrets(pair):
    assert read_parameters([pair])


def test_no_setting_is_taken_for_a_secret():
    from alignlab.runs.notebooks import SECRET
    from alignlab.runs.profiles import load_profiles

    profiles = load_profiles()
    names = {*profiles["defaults"]}
    for entry in profiles["notebooks"].values():
        names |= (entry.get("settings") or {}).keys()
    assert not [name for name in names if SECRET.fullmatch(name)]


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://me:abc@host/folder", "s3://…@host/folder"),
        ("Cannot read https://me:abc@host/x now", "Cannot read https://…@host/x now"),
        ("https://host/x?sig=abc&more", "https://host/x?…"),
        ("file:///mnt/shared", "file:///mnt/shared"),
        ("me@host", "me@host"),
    ],
)
def test_urls_are_shown_without_passwords(url, shown):
    assert store.without_password(url) == shown


def test_a_store_is_refused_without_telling_its_password():
    with pytest.raises(AlignlabError, match="cannot be used") as error:
        store.require_store("nonsense://me:abc@host/folder")
    assert "abc" not in str(error.value)


# --- What a model wrote ---------------------------------------------------------------


@pytest.fixture
def in_notebook(monkeypatch, tmp_path):
    """What is shown as Markdown, in a list."""
    shown = []
    start("90", profile="smoke", out_dir=tmp_path)
    monkeypatch.setattr(context, "_in_notebook", lambda: True)
    monkeypatch.setattr("IPython.display.display", lambda item: shown.append(item.data))
    return shown


def test_say_makes_no_html_links_or_pictures_of_values(in_notebook, tmp_path):
    say("It **replied**: {reply}, {reply!r}.", reply=EVIL)
    [text] = in_notebook
    notebook = new_notebook(cells=[new_markdown_cell(text)])
    nbformat.write(notebook, tmp_path / "x.ipynb")
    page = _Page(as_html(tmp_path / "x.ipynb"))
    assert "<strong>replied</strong>" in page.text
    assert not {"script", "img"} & page.body_tags
    assert not page.addresses
    assert EVIL in page.words, "and it looks as it was written"


def test_values_stay_inside_code(in_notebook):
    say("`{reply}` and {reply}", reply="a ` <b>\n\nc")
    assert in_notebook == ["`a ' <b> c` and a ` &#60;b&#62;\n\nc"]


def test_what_the_author_wrote_stays_markdown(in_notebook):
    say("* <b>{n}</b> [a](b): {text:>4}{word}", n=3, text="x", word="**y**")
    assert in_notebook == ["* <b>3</b> [a](b):    x**y**"]


def test_styled_tables_make_no_html_of_texts(tmp_path):
    start("90", profile="smoke", out_dir=tmp_path)
    assert "<script>" not in pd.DataFrame({"reply": [EVIL]}).style.to_html()


# --- Pages ----------------------------------------------------------------------------


class _Page(HTMLParser):
    """Tags, addresses and text of a page."""

    def __init__(self, text):
        super().__init__()
        self.text, self.body_tags, self.addresses = text, set(), []
        self.words, self.policy, self._tags = "", "", []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "Content-Security-Policy" in attributes.values():
            self.policy = attributes["content"]
        self.body_tags.add(tag)
        for name in ("src", "href", "data"):
            address = attributes.get(name) or ""
            if address and not address.startswith(("data:", "#")):
                self.addresses.append(address)

    def handle_data(self, data):
        self.words += data


def test_pages_load_nothing_and_run_no_script(tmp_path):
    picture = base64.b64encode(b"picture").decode()
    outputs = [
        new_output("display_data", {"text/html": f"<b>{EVIL}</b>"}),
        new_output("display_data", {"text/markdown": "Loss $x^2 < 1$, $$\\beta$$"}),
        new_output("display_data", {"application/javascript": "alert(1)"}),
        new_output("display_data", {"image/png": picture}),
        new_output("stream", text=EVIL),
    ]
    cells = [
        new_markdown_cell("# A\n\n```mermaid\ngraph TD\n```\n\n$\\frac{a}{b}$ `$5`"),
        new_code_cell("1", outputs=outputs, execution_count=1),
    ]
    nbformat.write(new_notebook(cells=cells), tmp_path / "x.ipynb")
    page = _Page(as_html(tmp_path / "x.ipynb"))
    assert "default-src 'none'" in page.policy and "script-src" not in page.policy
    assert not re.search(r"<script[^>]+src=|@import|url\((?!data:)", page.text)
    assert "cdnjs" not in page.text and "unpkg" not in page.text
    assert page.text.count("<math") == 3 and "$5" in page.words
    head = page.text.partition("<body")[0]
    assert "<script" not in head and page.text.index("Content-Security") < 2000


def test_formulas_of_the_notebooks_are_mathml():
    failed = []
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        for cell in nbformat.read(path, as_version=4).cells:
            if cell.cell_type == "markdown":
                text = re.sub(r"`[^`]*`", "", cell.source)
                for formula in re.findall(r"(?<![\\$])\$([^$]+)\$(?!\$)", text):
                    if "<math" not in in_mathml(formula, "inline"):
                        failed.append((path.name, formula))
    assert not failed


def test_a_formula_that_cannot_be_converted_is_shown_as_it_is(monkeypatch):
    def fails(*_, **__):
        raise IndexError

    monkeypatch.setattr("alignlab.runs.webpages.convert", fails)
    assert in_mathml("a < b", "inline") == "<code>a &lt; b</code>"


# --- Notebooks as they are committed --------------------------------------------------

PATHS = re.compile(r"(?<![\w.:/~])/(?:home|root|tmp|Users|work|opt|usr|var|mnt)/[\w.]")


def test_published_notebooks_hold_no_absolute_paths_and_no_scripts():
    for path in sorted((ROOT / "notebooks").rglob("*.ipynb")):
        notebook = json.loads(path.read_text(encoding="utf-8"))
        for cell in notebook["cells"]:
            for output in cell.get("outputs", ()):
                data = dict(output.get("data", {}), text=output.get("text", ""))
                data = {k: v for k, v in data.items() if not k.startswith("image/")}
                text = json.dumps(data)
                assert not PATHS.search(text), (path.name, PATHS.search(text))
                assert "<script" not in text and "javascript" not in text, path.name


# --- The network ----------------------------------------------------------------------


def test_tests_reach_no_other_machine():
    with (
        socket.socket() as other,
        pytest.raises(ConnectionError, match="mark the test"),
    ):
        other.connect(("192.0.2.1", 80))
    with socket.socket() as here, pytest.raises(ConnectionRefusedError):
        here.connect(("127.0.0.1", 9))
