"""alignlab: one language model through the whole of alignment, every claim measured.

Importing this package is cheap on purpose: torch and friends load when first needed.
"""

__version__ = "0.1.0"

from alignlab.imported import record_imports

record_imports()
