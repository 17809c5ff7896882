"""The speed of this machine, by a fixed matrix product, to compare times by.

Machines differ threefold; the report scales every notebook's seconds with this.
"""

import json
import os
import subprocess
import sys

# In its own process, because BLAS fixes its number of threads when it is loaded.
_CODE = """
import json, time
import numpy as np
a = np.random.default_rng(0).standard_normal((1024, 1024), dtype=np.float32)
seconds = []
for _ in range(7):
    start = time.perf_counter()
    a @ a
    seconds.append(time.perf_counter() - start)
print(json.dumps(sorted(seconds)[3]))
"""
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def matrix_gflops() -> float:
    """Speed of a 1024 x 1024 x 1024 product in float32 on one thread, in GFLOP/s.

    The median of seven products; about 0.5 seconds in all.
    """
    done = subprocess.run(
        [sys.executable, "-c", _CODE],
        env={**os.environ, **dict.fromkeys(_THREADS, "1")},
        capture_output=True,
        text=True,
        check=True,
    )
    return 2 * 1024**3 / json.loads(done.stdout) / 1e9
