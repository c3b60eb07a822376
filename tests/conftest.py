"""Fixtures shared by all tests: tiny models of the real classes, and the embedded model."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
# Tiny networks run no faster on two threads, and far slower where something else runs beside them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
if "GRADIO_TEMP_DIR" not in os.environ:
    os.environ["GRADIO_TEMP_DIR"] = tempfile.mkdtemp(prefix="darkroom-tests-")
    atexit.register(shutil.rmtree, os.environ["GRADIO_TEMP_DIR"], ignore_errors=True)

# The same examples at every run, however slow the machine is.
settings.register_profile("darkroom", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("darkroom")

ROOT = Path(__file__).resolve().parent.parent
STARTER = ROOT / "presets" / "starter"


@pytest.fixture(scope="session")
def catalog():
    from engine.recipes.catalog import Catalog

    return Catalog.load(ROOT / "presets" / "models.toml")


@pytest.fixture(scope="session")
def starter_pipeline():
    """diffusers' own pipeline over the embedded model, float32."""
    from tests.tiny import read_pipeline

    return read_pipeline(STARTER)


@pytest.fixture(scope="session")
def starter_family(starter_pipeline):
    from tests.tiny import family_of

    return family_of(starter_pipeline)


@pytest.fixture(scope="session", params=["epsilon", "v_prediction"])
def tiny_pipeline(request):
    """A Stable Diffusion pipeline of the real classes with a few thousand random weights, by prediction type."""
    from tests.tiny import make_pipeline

    return make_pipeline(request.param)


@pytest.fixture(scope="session")
def tiny_family(tiny_pipeline):
    from tests.tiny import family_of

    return family_of(tiny_pipeline)
