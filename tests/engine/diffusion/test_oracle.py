"""Oracle: with a network that knows the answer, every scheduler must land on it, and see it at every step."""

from __future__ import annotations

import pytest
import torch

from engine.diffusion.denoiser import Denoiser
from engine.diffusion.trajectory import Trajectory
from engine.recipes.recipe import Recipe
from engine.recipes.schedulers import SCHEDULERS
from tests.engine.diffusion.oracle import Oracle

pytestmark = pytest.mark.filterwarnings("ignore:Should have ta>=t0:UserWarning")  # torchsde, of float32 rounding

HALF = 1e-3
"""Rounding of values below 4 to float16, as x0 is kept."""

STEPS = 8

END_AT_FIRST_ALPHA = {"DDIM", "PNDM", "DEIS", "TCD", "SA-Solver"}
"""These end at alphas_cumprod[0] (set_alpha_to_one is off in Stable Diffusion's config), not at a clean image:
the noise of sigma 0.029 that stays is at most four sigma of these few latents."""

CLEAN, FIRST_ALPHA = 1e-5, 4 * 0.0292


@pytest.fixture(params=["epsilon", "v_prediction"])
def oracle(request) -> Oracle:
    return Oracle(request.param)


def develop(oracle: Oracle, name: str, steps: int = STEPS, **changes) -> Trajectory:
    denoiser = Denoiser(oracle)
    settings = {"scheduler": name, "steps": steps, "seed": 3, "guidance_scale": 1, "width": 32, "height": 32, **changes}
    trajectory = denoiser.admit("it", Recipe(**settings))
    while advances := denoiser.tick():
        assert advances[0].error is None, advances[0].error
    return trajectory


def distance(x: torch.Tensor, x0: torch.Tensor) -> float:
    return float((x.float() - x0).abs().max())


@pytest.mark.parametrize("name", SCHEDULERS)
def test_lands_on_x0_and_predicts_it_at_every_step(oracle, name):
    trajectory = develop(oracle, name)
    assert len(trajectory.x0) == trajectory.total
    assert {x0.dtype for x0 in trajectory.x0} == {torch.float16}
    assert max(distance(x0, oracle.clean) for x0 in trajectory.x0) <= HALF
    assert distance(trajectory.latents, oracle.clean) <= (FIRST_ALPHA if name in END_AT_FIRST_ALPHA else CLEAN)


@pytest.mark.parametrize("name", SCHEDULERS)
@pytest.mark.parametrize("steps", [1, 2, 3])
def test_very_few_steps_run(oracle, name, steps):
    trajectory = develop(oracle, name, steps)
    assert torch.isfinite(trajectory.latents).all()
    assert max(distance(x0, oracle.clean) for x0 in trajectory.x0) <= HALF


@pytest.mark.parametrize("name", ["DDIM", "DPM++ 2M Karras", "Euler a", "Heun"])
def test_guidance_leads_to_x0(oracle, name):
    trajectory = develop(oracle, name, guidance_scale=oracle.scale_of_guidance, negative_prompt="unconditional")
    assert trajectory.rows == 2
    assert max(distance(x0, oracle.clean) for x0 in trajectory.x0) <= 10 * HALF  # float32 of the two rows, over sqrt(alpha) 0.07
    assert distance(trajectory.latents, oracle.clean) <= FIRST_ALPHA


@pytest.mark.parametrize("steps", [20, 50])
def test_many_steps_drift_nowhere(oracle, steps):
    for name in ("LMS Karras", "DPM++ 3M SDE Karras", "UniPC"):
        assert distance(develop(oracle, name, steps).latents, oracle.clean) <= CLEAN
