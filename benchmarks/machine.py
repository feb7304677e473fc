"""The machine that figures were taken on, in one line."""

import os
import platform
from pathlib import Path


def describe() -> str:
    """Processor, cores, memory, load, Python."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    total = [int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")]
    memory = f", {total[0] / 2**20:.0f} GB" if total else ""
    load = os.getloadavg()[0]
    return (
        f"{names[0] if names else platform.machine()}, {len(os.sched_getaffinity(0))} cores{memory}, "
        f"load {load:.1f}, Python {platform.python_version()}"
    )


def _lines(path: str) -> list[str]:
    return Path(path).read_text().splitlines() if Path(path).exists() else []
