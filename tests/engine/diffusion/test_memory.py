"""Memory: the process keeps what a network call frees, where the C library can be told so."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

from engine.diffusion import memory
from tests.conftest import ROOT

CALLS = """
import resource, torch
from engine.diffusion.memory import keep_freed_memory
assert keep_freed_memory()

def call():
    tensors = [torch.ones(2**22) for _ in range(6)]  # 16 MiB each

for _ in range(4):
    call()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    call()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library here is not glibc")
def test_what_a_call_frees_is_there_for_the_next_one():
    """Ten calls of 96 MiB: returned to the kernel each time, they would be 245,760 page faults of 4 KiB."""
    done = subprocess.run([sys.executable, "-c", CALLS], cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert int(done.stdout) < 1000


@pytest.mark.parametrize(("system", "library"), [("Linux", ""), ("Darwin", ""), ("Windows", "")])
def test_other_c_libraries_are_left_alone(monkeypatch, system, library):
    monkeypatch.setattr(platform, "system", lambda: system)
    monkeypatch.setattr(platform, "libc_ver", lambda: (library, ""))
    assert not memory.keep_freed_memory()
