"""What there is to compute on, found out without torch and without starting anything."""

import os
from pathlib import Path


def gpu_count() -> int:
    """The GPUs this process may use; 0 where CUDA_VISIBLE_DEVICES hides them all."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    present = len(list(Path("/proc/driver/nvidia/gpus").glob("*"))) or len(list(Path("/dev").glob("nvidia[0-9]*")))
    if not present and Path("/dev/kfd").exists():  # AMD; one render node per card
        present = len(list(Path("/dev/dri").glob("renderD*")))
    if not present and Path("/dev/dxg").exists():  # WSL shows all of its GPUs as one device
        present = 1
    if visible is None:
        return present
    chosen = [item for item in visible.split(",") if item.strip() not in ("", "-1")]
    return min(present, len(chosen))


def cores() -> list[int]:
    """The CPU cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))
