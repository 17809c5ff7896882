"""Installing alignlab beside what Google Colab has changes none of it.

Bounds are compared here; .ci/colab installs for real and runs three notebooks, which
also finds what an older release lacks.
"""

import runpy
from importlib.metadata import PackageNotFoundError, requires
from types import SimpleNamespace

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_packaging import ROOT, requirements


def colab_versions() -> dict[str, str]:
    text = (ROOT / "tests" / "colab_versions.txt").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    pairs = [line.split("==") for line in lines]
    return {canonicalize_name(name): version for name, version in pairs}


def unmet(requirement: Requirement, versions: dict[str, str]) -> str:
    """What is wrong with Colab's version of a required package; "" if nothing."""
    name = canonicalize_name(requirement.name)
    if name not in versions or requirement.specifier.contains(versions[name]):
        return ""
    return f"{requirement} would change Colab's {versions[name]}"


def test_no_requirement_changes_a_package_of_colab():
    versions = colab_versions()
    faults = [unmet(requirement, versions) for requirement in requirements().values()]
    assert not any(faults), "\n".join(filter(None, faults))


def test_what_colab_lacks_changes_no_package_of_colab():
    """Such as sacrebleu: the releases last tested have requirements of their own."""
    versions = colab_versions()
    added = requirements().keys() - versions.keys() - {"torch"}
    assert added
    for name in added:
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        needed = [Requirement(line) for line in lines if "extra ==" not in line]
        faults = [unmet(requirement, versions) for requirement in needed]
        assert not any(faults), f"{name}: {[fault for fault in faults if fault]}"


def test_the_check_sees_a_change():
    assert unmet(Requirement("ipython>=8.18"), colab_versions())
    assert unmet(Requirement("datasets>=4.7"), colab_versions())
    assert not unmet(Requirement("ipython>=7.34"), colab_versions())


def test_the_core_does_without_what_only_running_and_comparing_needs():
    assert not {"papermill", "jupytext", "evaluate", "trl"} & requirements().keys()


def test_transformers_without_layers_that_keep_nothing(monkeypatch):
    """Colab's release has none; imported afresh, the cache does without."""
    monkeypatch.delattr("transformers.cache_utils.DummyLayer", raising=False)
    names = runpy.run_module("alignlab.models.cache")
    cache = SimpleNamespace(layers=[SimpleNamespace(get_seq_length=lambda: 3)])
    assert names["holds"](cache, 3) and not names["holds"](cache, 2)
