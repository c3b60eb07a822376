"""Oracle: with a network that knows the answer, every scheduler must land on it, and see it at every step."""

from __future__ import annotations

import numpy
import pytest
import torch

from engine.diffusion import schedule
from engine.diffusion.denoiser import Denoiser
from engine.diffusion.family import Conditions, Traits
from engine.diffusion.stable_diffusion import StableDiffusion
from engine.diffusion.trajectory import Trajectory
from engine.recipes.families import classifier_free
from engine.recipes.recipe import Recipe
from engine.recipes.schedulers import SCHEDULERS
from tests.engine.diffusion import rules

pytestmark = pytest.mark.filterwarnings("ignore:Should have ta>=t0:UserWarning")  # torchsde, of float32 rounding

HALF = 1e-3
"""Rounding of values below 4 to float16, as x0 is kept."""

STEPS = 8

END_AT_FIRST_ALPHA = {"DDIM", "PNDM", "DEIS", "TCD", "SA-Solver"}
"""These end at alphas_cumprod[0] (set_alpha_to_one is off in Stable Diffusion's config), not at a clean image:
the noise of sigma 0.029 that stays is at most four sigma of these few latents."""

CLEAN, FIRST_ALPHA = 1e-5, 4 * 0.0292


class Oracle:
    """What a Denoiser needs of a Family, with the exact noise (or v) of one known x0 as its prediction.

    Guided, it is right only where guidance is applied as it should be: the unconditional row is off on purpose.
    """

    device = torch.device("cpu")
    dtype = torch.float32
    scale_of_guidance = 4.0

    def __init__(self, prediction_type: str):
        scheduler = rules.loaded({**rules.read_config("sd15"), "prediction_type": prediction_type})
        self.scheduler_config = dict(scheduler.config)
        self.traits = Traits(latent_channels=4, scale=8)
        self.clean = torch.randn(1, 4, 4, 4, generator=torch.Generator().manual_seed(1))
        alphas = scheduler.alphas_cumprod.double().numpy()
        self.log_sigmas = numpy.log((1 - alphas) / alphas) / 2

    def scheduler(self, recipe: Recipe):
        return schedule.build(recipe.scheduler, self.scheduler_config, recipe.steps, recipe.seed)

    def conditions(self, recipe: Recipe) -> Conditions:
        needs = classifier_free(recipe)
        rows = [{"offset": torch.full((1, 1, 1, 1), 0.5 if told.text == "unconditional" else 0.0)} for told in needs.rows]
        return Conditions(needs, tuple(rows), (recipe.guidance_scale,) if recipe.guided else ())

    def predict(self, model_input, timesteps, conditioning) -> torch.Tensor:
        # Between two training steps as between k-diffusion's (DiscreteSchedule.t_to_sigma): straight in log sigma.
        sigmas = torch.from_numpy(numpy.exp(numpy.interp(timesteps.numpy(), range(len(self.log_sigmas)), self.log_sigmas)))
        alpha = 1 / (1 + sigmas**2)
        signal, sigma = alpha.sqrt().view(-1, 1, 1, 1), (1 - alpha).sqrt().view(-1, 1, 1, 1)
        noise = (model_input - signal * self.clean) / sigma
        answer = noise if self.scheduler_config["prediction_type"] == "epsilon" else signal * noise - sigma * self.clean
        # u + w (c - u) = answer, for u = answer + d, needs c = answer + d (w - 1) / w.
        offset = conditioning["offset"]
        guided = offset.any()
        w = self.scale_of_guidance
        return (answer + torch.where(offset > 0, offset, 0.5 * (w - 1) / w if guided else 0.0)).float()

    combine, x0 = StableDiffusion.combine, StableDiffusion.x0


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
