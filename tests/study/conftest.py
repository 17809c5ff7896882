import pytest

from alignlab.study import artifacts


@pytest.fixture
def own_artifacts(tmp_path_factory, monkeypatch):
    """Artifacts of the tests apart from the user's; downloads stay where they are."""
    folder = tmp_path_factory.getbasetemp() / "artifacts"
    real = artifacts.cache.artifact_path

    def moved(kind, key, code=()):
        return folder / kind / real(kind, key, code).name

    monkeypatch.setattr(artifacts.cache, "artifact_path", moved)
