"""Heap: what the C library does with memory that was freed. glibc on Linux only; elsewhere nothing is changed."""

from __future__ import annotations

import ctypes
import functools
import platform

# Of glibc's malloc.h. 32 MiB is the most that it takes as a threshold.
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = (-1, 256 * 2**20), (-3, 32 * 2**20), (-8, 1)


@functools.cache
def _library() -> ctypes.CDLL | None:
    return ctypes.CDLL(None) if platform.system() == "Linux" and platform.libc_ver()[0] == "glibc" else None


def keep_freed() -> bool:
    """Has the C library keep what a network call frees for the next one; whether it could be told.

    A call on the CPU takes and frees hundreds of tensors of megabytes each. Left to itself glibc returns them to the kernel,
    which then hands out zeroed pages one fault at a time, in every call anew; and it makes an arena of its own for each
    thread, between which freed memory is lost: so it is told before there are threads. Up to 256 MiB stay with the process.
    """
    library = _library()
    return library is not None and [library.mallopt(*option) for option in (_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX)] == [1, 1, 1]


def give_back() -> None:
    """Returns freed pages to the kernel, also those between what is still in use, which glibc never does by itself."""
    library = _library()
    if library is not None:
        library.malloc_trim(0)
