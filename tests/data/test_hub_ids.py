"""Data by the id they have on the Hub, from a folder where the Hub is out of reach."""

import os
import socket
from collections import Counter
from pathlib import Path

import pytest

from alignlab import data
from alignlab.data import sources
from alignlab.errors import AlignlabError

# Real data for development and CI: beside the checkout, or where the variable says.
BESIDE = Path(__file__).parents[3] / "shared" / "data"
MIRROR = Path(os.environ.get("ALIGNLAB_HUB_MIRROR") or BESIDE)


@pytest.fixture
def mirror(tmp_path, monkeypatch):
    """An empty mirror, and no way to the Hub."""

    def unreachable(where, **options):
        if not Path(where).is_dir():
            raise ConnectionError(f"Couldn't reach '{where}' on the Hub")
        return load_dataset(where, **options)

    import datasets

    load_dataset = datasets.load_dataset
    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    monkeypatch.setenv("ALIGNLAB_HUB_MIRROR", str(tmp_path))
    return tmp_path


@pytest.fixture
def real(monkeypatch):
    """A function that loads by a Hub id from the folder with the real data."""
    monkeypatch.setenv("ALIGNLAB_HUB_MIRROR", str(MIRROR))

    def load(load_by, name, *arguments):
        if sources.hub_place(sources.DATASETS[name].hub_id).count("/") < 2:
            pytest.skip(f"{MIRROR} holds no {name}; set ALIGNLAB_HUB_MIRROR")
        return load_by(*arguments)

    return load


def write(folder, text, name="test.csv"):
    folder.mkdir(parents=True)
    (folder / name).write_text(text)


@pytest.mark.parametrize("name", ["owner/things", "things"])
def test_a_hub_id_is_looked_for_in_the_mirror(mirror, name):
    write(mirror / name, "prompt,completion\nSky?,Blue.\n")
    loaded = data.load("owner/things", quiet=True)
    assert loaded.to_list() == [{"prompt": "Sky?", "completion": "Blue."}]
    with pytest.raises(AlignlabError, match="'owner/others'.*Couldn't reach"):
        data.load("owner/others")


def test_owner_and_name_come_before_the_name_alone(mirror):
    write(mirror / "things", "text\nanother owner's\n")
    write(mirror / "owner/things", "text\nhis\n")
    assert data.load("owner/things", quiet=True)["text"][:] == ["his"]


def test_without_a_mirror_the_hub_is_asked(monkeypatch):
    monkeypatch.delenv("ALIGNLAB_HUB_MIRROR", raising=False)
    assert sources.hub_place("owner/things") == "owner/things"


def test_an_id_of_the_catalogue_is_read_as_its_card_says(mirror, capsys):
    write(
        mirror / "simple_safety_tests",
        "id,harm_area,counter,category,prompts_final\n1,Area,1,Kind,How?\n",
    )
    loaded = data.load("Bertievidgen/SimpleSafetyTests")
    row = {"prompt": "How?", "harm_area": "Area", "category": "Kind", "id": 1}
    assert loaded.to_list() == [row]
    assert data.load("simple_safety_tests", quiet=True).to_list() == [row]
    out = capsys.readouterr().out
    assert out.startswith("Bertievidgen/SimpleSafetyTests: as its card says (prompt,")


def test_an_id_that_names_more_than_a_card_reads_is_read_whole(mirror):
    pair = "Human: Sky?\\n\\nAssistant: {}"
    row = f'{{"chosen": "{pair.format("Blue.")}", "rejected": "{pair.format("Red.")}"}}'
    for part in ("harmless-base", "helpful-base"):
        write(mirror / "hh-rlhf" / part, row + "\n", "test.jsonl")
    assert len(data.load("Anthropic/hh-rlhf", quiet=True)) == 2
    assert len(sources.load("hh_rlhf")) == 1


# --- The real ones ----------------------------------------------------------------


def test_xstest_by_its_hub_id(real):
    loaded = real(data.load, "xstest", "natolambert/xstest-v2-copy")
    assert len(loaded) == 450
    assert Counter(loaded["label"]) == {"safe": 250, "unsafe": 200}
    assert len(set(loaded["prompt"])) == 450


def test_simple_safety_tests_by_its_hub_id(real):
    loaded = real(data.load, "simple_safety_tests", "Bertievidgen/SimpleSafetyTests")
    assert len(loaded) == 100
    assert sorted(Counter(loaded["harm_area"]).values()) == [20] * 5


def test_hh_rlhf_by_its_hub_id(real, capsys):
    """2,312 pairs are published; in four of them a completion is empty."""
    assert len(real(sources.load, "hh_rlhf", "hh_rlhf")) == 2312
    loaded = real(data.load, "hh_rlhf", "Anthropic/hh-rlhf", "test")
    assert "left out: 4 with an empty completion" in capsys.readouterr().out
    assert len(loaded) == 2308
    for row in loaded:
        assert row["prompt"][-1]["role"] == "user"
        assert row["chosen"][-1]["role"] == row["rejected"][-1]["role"] == "assistant"


# --- The Hub itself ---------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch):
    """The Hub, or a skip where it is out of reach; not so where ALIGNLAB_NETWORK says
    that it is required."""
    monkeypatch.delenv("ALIGNLAB_HUB_MIRROR", raising=False)
    if os.environ.get("ALIGNLAB_NETWORK") != "required":
        try:
            socket.create_connection(("huggingface.co", 443), timeout=5).close()
        except OSError as error:
            pytest.skip(f"the Hub cannot be reached: {error}")


@pytest.mark.network
@pytest.mark.parametrize("name", ["xstest", "simple_safety_tests", "hh_rlhf"])
def test_the_hub_has_what_the_cards_say(hub, name):
    card, loaded = sources.DATASETS[name], sources.load(name)
    assert len(loaded) == card.rows
    assert set(loaded.column_names) == set(card.columns)


@pytest.mark.network
def test_a_model_of_the_hub_can_be_a_base(hub):
    from alignlab.models.base import load_base, weights_hash

    name = "trl-internal-testing/tiny-Qwen2ForCausalLM-2.5"
    model, tokenizer = load_base(name)
    assert model.config.model_type == "qwen2" and tokenizer.chat_template
    assert len(weights_hash(name)) == 12
