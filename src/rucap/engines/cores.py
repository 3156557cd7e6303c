"""How many processor cores this process may use, where that is fewer than the machine has: containers, taskset."""

from __future__ import annotations

import math
import os
from pathlib import Path

QUOTA = Path("/sys/fs/cgroup/cpu.max")
"""cgroup v2's limit of a container: microseconds of processor time (or `max`) in each period of microseconds."""


def limited_cores(quota: Path = QUOTA) -> int | None:
    """The cores left to this process by its affinity and its container, or None where it has the whole machine."""
    whole = os.cpu_count() or 1
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else whole
    try:
        allowed, period = quota.read_text().split()
        cores = min(cores, max(1, math.ceil(int(allowed) / int(period))))
    except (OSError, ValueError, ZeroDivisionError):  # no Linux, no such file, or `max`
        pass
    return cores if cores < whole else None
