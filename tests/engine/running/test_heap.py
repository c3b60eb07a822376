"""Heap: the process keeps what a network call frees, and gives back what nobody needs, where the C library can be told so."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from engine.running import heap
from tests.conftest import ROOT

CALLS = """
import resource, torch
from engine.running.heap import keep_freed
assert keep_freed()

def call():
    tensors = [torch.ones(2**22) for _ in range(6)]  # 16 MiB each

for _ in range(4):
    call()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    call()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

PIECES = """
import psutil
from engine.running.heap import give_back, keep_freed
assert keep_freed()
pieces = [bytearray(2**15) for _ in range(2048)]
del pieces[::2]
before = psutil.Process().memory_info().rss
give_back()
print(before, psutil.Process().memory_info().rss)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library here is not glibc")
def test_what_a_call_frees_is_there_for_the_next_one():
    """Ten calls of 96 MiB: returned to the kernel each time, they would be 245,760 page faults of 4 KiB."""
    done = subprocess.run([sys.executable, "-c", CALLS], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 1000


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library here is not glibc")
def test_freed_memory_between_what_is_kept_is_given_back():
    """64 MiB in small pieces, of which every other one is freed: nothing at the heap's end can be trimmed."""
    done = subprocess.run([sys.executable, "-c", PIECES], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    before, after = map(int, done.stdout.split())
    assert before - after > 20 * 2**20


@pytest.mark.parametrize(("system", "library"), [("Linux", ""), ("Darwin", ""), ("Windows", "")])
def test_other_c_libraries_are_left_alone(monkeypatch, system, library):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "libc_ver", lambda: (library, ""))
    heap._library.cache_clear()
    assert not heap.keep_freed()
    heap.give_back()
    heap._library.cache_clear()
