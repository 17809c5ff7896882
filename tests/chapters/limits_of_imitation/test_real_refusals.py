"""Real prompts: replies classified, XSTest split by its labels."""

import pytest

from alignlab.chapters.limits_of_imitation import real_refusals
from alignlab.models.sampler import Completion


def test_real_prompts_are_classified(monkeypatch):
    texts = ["I can't help with that.", "Sure, here is how."]
    prompts = [{"prompt": f"prompt {i}"} for i in range(5)]
    monkeypatch.setattr(real_refusals.sources, "load", lambda name, path=None: prompts)
    monkeypatch.setattr(real_refusals, "load_model", lambda name, dtype: (None, None))
    monkeypatch.setattr(
        real_refusals,
        "complete",
        lambda m, t, asked, *a, **k: [
            Completion(texts[i % 2], [], True) for i, _ in enumerate(asked)
        ],
    )
    name = "HarmBench (harmful)"
    found = real_refusals.real_arm(seed=0, model="some/model", prompts=name, n=3)
    assert found == {"outcomes": {"refusal": 2, "partial": 0, "compliance": 1}}
    with pytest.raises(ValueError, match="prompts is 'none'"):
        real_refusals.draw_prompts("none", 1, 0)


def test_xstest_is_split_by_its_labels(monkeypatch):
    rows = [{"prompt": str(i), "label": ("safe", "unsafe")[i % 2]} for i in range(8)]
    paths = []

    def load(name, path=None):
        paths.append(path)
        return rows

    monkeypatch.setattr(real_refusals.sources, "load", load)
    unsafe = real_refusals.draw_prompts("XSTest (harmful)", 9, 0, "folder")
    assert sorted(unsafe) == ["1", "3", "5", "7"] and paths == ["folder"]
    assert sorted(real_refusals.draw_prompts("XSTest (sounds so)", 9, 0)) == [
        "0",
        "2",
        "4",
        "6",
    ]
    assert paths[-1] is None
