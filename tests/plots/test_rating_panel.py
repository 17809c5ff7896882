"""The panel rates, hides names until the end, and says what judges prefer."""

import re

from alignlab.plots.rating import RatingSession, pairs_to_rate
from alignlab.plots.rating_panel import KEYS, LISTEN, RatingPanel, still_table
from tests.plots.test_rating import NAMES, made, rated


def press(panel, *names):
    for name in names:
        panel.buttons[name].click()


def shown(panel):
    return panel.pair.value + panel.so_far.value


def test_buttons_rate_undo_and_turn_to_the_next_pair(tmp_path):
    session = RatingSession(made(5), tmp_path / "r.json")
    panel = RatingPanel(session)
    assert session.pairs[0].left in shown(panel) and "pair 1 of 5" in shown(panel)
    press(panel, "left", "tie", "skip", "undo", "right")
    assert session.ratings == ["left", "tie", "right"]
    assert RatingSession(made(5), tmp_path / "r.json").ratings == session.ratings
    assert session.pairs[3].right in shown(panel) and "pair 4 of 5" in shown(panel)
    assert "width:60.0%" in shown(panel) and session.summary()[:20] in shown(panel)


def test_systems_are_named_only_at_the_end():
    session = RatingSession(made(3))
    panel = RatingPanel(session)
    for name in ("left", "tie", "skip"):
        assert not any(name in shown(panel) for name in NAMES)
        assert panel.buttons["reveal"].disabled
        press(panel, name)
    assert not any(name in shown(panel) for name in NAMES)
    assert "the last pair" in shown(panel) and not panel.buttons["reveal"].disabled
    assert panel.buttons["left"].disabled and not panel.buttons["undo"].disabled
    press(panel, "reveal")
    assert session.revealed and panel.controls.layout.display == "none"
    rows = shown(panel).split("<tr>")[2:]
    assert session.pairs[0].sides[0] in rows[0].split("<td")[-1]
    assert "about equal" in rows[1] and "skipped" in rows[2]


def test_judges_are_shown_beside_the_rater_at_the_end():
    session = RatingSession(made(6))

    def likes_good(prompt, first, second):
        return 0.9 if "good" in first else 0.1

    judges = {"an <expert>": likes_good, "a coin": lambda *_: 0.5}
    panel = RatingPanel(session, judges)
    rated(session, wins=3, losses=1, ties=1, skips=1)
    assert "expert" not in shown(panel)
    press(panel, "reveal")
    page = shown(panel)
    assert "an &lt;expert&gt; preferred yours in 3 of 4 pairs" in page
    assert "a coin preferred yours in 0 of 0 pairs" in page
    rows = page.split("<tr>")[2:]
    assert all("best of 8 (90%)" in row and "about equal" in row for row in rows)


def test_a_panel_shows_a_session_that_was_resumed(tmp_path):
    first = rated(RatingSession(made(3), tmp_path / "r.json"), 2)
    panel = RatingPanel(RatingSession(made(3), tmp_path / "r.json"))
    assert "pair 3 of 3" in shown(panel) and not panel.buttons["undo"].disabled
    assert first.summary().split(".")[0] in shown(panel)


def test_a_rating_that_is_not_saved_is_told_in_the_panel(tmp_path):
    (tmp_path / "file").touch()
    panel = RatingPanel(RatingSession(made(3), tmp_path / "file" / "r.json"))
    press(panel, "left")
    assert "cannot be written" in shown(panel) and "pair 1 of 3" in shown(panel)


def test_replies_are_shown_as_text():
    pairs = pairs_to_rate(["<p>?"], ["<b>x</b>"], [""])
    session = RatingSession(pairs)
    for page in (shown(RatingPanel(session)), still_table(pairs)):
        assert "&lt;b&gt;x&lt;/b&gt;" in page and "(nothing)" in page
        assert "&lt;p&gt;?" in page and "<b>x</b>" not in page


def test_each_key_presses_a_button_of_the_panel():
    panel = RatingPanel(RatingSession(made(3)))
    keys = dict(re.findall(r"(\w+): '(\w+)'", LISTEN))
    assert set(keys.values()) == {"left", "right", "tie", "skip", "undo"}
    for name in keys.values():
        assert f"rate-{name}" in panel.buttons[name]._dom_classes
    for key in keys:
        said = {"ArrowLeft": "←", "ArrowRight": "→"}.get(key, key)
        assert f"<kbd>{said}</kbd>" in KEYS
    assert "alignlab-rating" in panel.panel._dom_classes


def test_a_page_without_widgets_shows_pairs_and_how_to_rate(monkeypatch):
    import IPython.display

    seen = []
    monkeypatch.setattr(IPython.display, "display", seen.append)
    panel = RatingPanel(RatingSession(made(20)))
    panel._ipython_display_()
    assert seen[0] is panel.panel
    page = seen[1].data
    assert "How to rate." in page and "all 20 pairs" in page
    assert page.count("<tr>") == 4 and not any(name in page for name in NAMES)
    mark = re.search(r"body:has\(\.(rating-\w+)\)", page)[1]
    assert mark in panel.panel._dom_classes and f"still-{mark}" in page
