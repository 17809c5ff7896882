from tests.data.toy import index, toy  # noqa: F401  fixtures
