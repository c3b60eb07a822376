"""What others publish about schedulers (tests/data/schedulers.toml says who and where)."""

from __future__ import annotations

import tomllib

from tests.conftest import ROOT

PUBLISHED = tomllib.loads((ROOT / "tests" / "data" / "schedulers.toml").read_text(encoding="utf-8"))
DIFFUSERS = {row["name"]: (row["class"], row.get("options", {})) for row in PUBLISHED["diffusers"]["samplers"]}
SDNEXT = {row["name"]: (row["class"], row.get("options", {})) for row in PUBLISHED["sdnext"]["samplers"]}
"""Name -> diffusers' class ("": none) and options."""

ANOTHER_CLASS = {"DPM++ SDE", "DPM++ SDE Karras"}
"""diffusers' manual maps them to the single-step class, which draws no noise. DPMSolverSDEScheduler is Katherine Crowson's own rule
(its page in the manual), which is what A1111 calls by this name; SD.Next has it as "DPM SDE"."""
