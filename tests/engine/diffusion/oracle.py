"""A family whose network knows the answer."""

from __future__ import annotations

import numpy
import torch

from engine.diffusion import schedule
from engine.diffusion.family import Conditions, Traits
from engine.diffusion.stable_diffusion import StableDiffusion
from engine.recipes.families import classifier_free
from engine.recipes.recipe import Recipe
from tests.engine.diffusion import rules


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
