"""Tune the memory allocator and the garbage collector of a run, and of a search."""

import ctypes
import gc
import os

import pyarrow as pa

_M_ARENA_MAX = -8  # malloc.h of glibc
_ARENAS = 2


def tune_allocator() -> None:
    """Use jemalloc where Arrow includes it, and few glibc arenas, unless `ARROW_DEFAULT_MEMORY_POOL` or
    `MALLOC_ARENA_MAX` is set. Call before threads start.

    Both return what threads have freed. With a million rows, jemalloc peaks 90 MB lower than Arrow's own choice; with
    500,000 recordings, glibc's eight arenas per core kept 50 MB. A search of calls peaks 100 MB lower.
    """
    if "ARROW_DEFAULT_MEMORY_POOL" not in os.environ and "jemalloc" in pa.supported_memory_backends():
        pa.set_memory_pool(pa.jemalloc_memory_pool())
    # Other C libraries have no such option, or no such function.
    if "MALLOC_ARENA_MAX" not in os.environ and "CS_GNU_LIBC_VERSION" in os.confstr_names:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, _ARENAS)


def tune_gc() -> None:
    """Freeze the objects made by imports and raise the threshold, so that collections scan only what the run allocates.

    Call after imports. It saves 2 of the 10 s of a finished date of 100,000 recordings.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000)
