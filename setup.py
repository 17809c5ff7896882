"""A wheel also holds the notebooks, which lie outside the package: `alignlab notebooks`
copies them out. All else stands in pyproject.toml."""

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithNotebooks(build_py):
    def run(self):
        super().run()
        if self.editable_mode:  # a checkout has them beside the package
            return
        here = Path(__file__).parent / "notebooks"
        for notebook in [*here.glob("*.ipynb"), *here.glob("exercises/*.ipynb")]:
            target = Path(
                self.build_lib, "alignlab/notebooks", notebook.relative_to(here)
            )
            target.parent.mkdir(parents=True, exist_ok=True)
            self.copy_file(str(notebook), str(target))


setup(cmdclass={"build_py": WithNotebooks})
