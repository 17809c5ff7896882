from tests.drawing import explorer, style  # noqa: F401  fixtures
