"""The source of alignlab's modules as it was when they were imported.

A file that is edited while a process runs does not change what the process does; this
is how a result can still be told apart from that of the edited code.
"""

import sys
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from types import ModuleType

SOURCES: dict[str, bytes] = {}  # by module


class RecordingLoader(SourceFileLoader):
    """Loads a module as usual and keeps its source."""

    def exec_module(self, module: ModuleType) -> None:
        SOURCES[module.__name__] = self.get_data(self.path)
        super().exec_module(module)


class RecordingFinder:
    """Finds alignlab's modules as usual and has them loaded by ``RecordingLoader``."""

    @staticmethod
    def find_spec(name, path=None, target=None) -> ModuleSpec | None:
        if not name.startswith("alignlab."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            spec.loader = RecordingLoader(spec.loader.name, spec.loader.path)
        return spec


def record_imports() -> None:
    """Keep the source of every module of alignlab that is imported from now on."""
    if RecordingFinder not in sys.meta_path:
        sys.meta_path.insert(0, RecordingFinder)
