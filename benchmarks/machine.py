"""The machine that a benchmark ran on, in one line, and the memory of a process."""

import os
import platform
import re
import resource
from pathlib import Path


def describe() -> str:
    """Processor, cores that may be used, memory, system and Python."""
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{model}, {cores} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def peak_mb() -> int:
    """The most memory that this process held, in MB of a million bytes."""
    status = Path("/proc/self/status")
    # `ru_maxrss` of a new process begins with what its parent held when it started it.
    if status.exists() and (found := re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE)):
        return int(found[1]) * 1024 // 1_000_000
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000
