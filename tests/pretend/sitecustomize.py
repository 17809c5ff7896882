"""Python reads this at its start where this folder is on PYTHONPATH: every process of a
run, kernels included, then knows the pretend device."""

import os

if os.environ.get("ALIGNLAB_PRETEND_DEVICE"):
    import pretend_device

    pretend_device.install()
    os.environ["ACCELERATE_TORCH_DEVICE"] = pretend_device.NAME
