"""What code leaves behind in an interpreter of its own."""

from __future__ import annotations

import subprocess
import sys

from tests.conftest import ROOT


def modules_left_after(code: str, *packages: str) -> set[str]:
    """Which of the packages a fresh interpreter has imported after `code`."""
    report = f"\nimport sys\nprint('LOADED', *[name for name in {packages!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code + report], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.splitlines()[-1].split()[1:])
