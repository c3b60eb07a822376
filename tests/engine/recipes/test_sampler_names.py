"""Other tools' names of samplers, against the tables that the tools publish; A1111's and ComfyUI's: test_published_schedulers.py."""

from __future__ import annotations

import pytest

from engine.errors import InvalidRequest
from engine.recipes.sampler_names import in_a1111s_words
from engine.recipes.schedulers import SCHEDULERS, scheduler_from_infotext

INVOKEAI = {
    "ddim": ("DDIMScheduler", False), "ddpm": ("DDPMScheduler", False), "deis": ("DEISMultistepScheduler", False),
    "lms": ("LMSDiscreteScheduler", False), "lms_k": ("LMSDiscreteScheduler", True), "pndm": ("PNDMScheduler", False),
    "heun": ("HeunDiscreteScheduler", False), "heun_k": ("HeunDiscreteScheduler", True), "euler": ("EulerDiscreteScheduler", False),
    "euler_k": ("EulerDiscreteScheduler", True), "euler_a": ("EulerAncestralDiscreteScheduler", False),
    "kdpm_2": ("KDPM2DiscreteScheduler", False), "kdpm_2_k": ("KDPM2DiscreteScheduler", True),
    "kdpm_2_a": ("KDPM2AncestralDiscreteScheduler", False), "kdpm_2_a_k": ("KDPM2AncestralDiscreteScheduler", True),
    "dpmpp_2s": ("DPMSolverSinglestepScheduler", False), "dpmpp_2s_k": ("DPMSolverSinglestepScheduler", True),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", False), "dpmpp_2m_k": ("DPMSolverMultistepScheduler", True),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", False), "dpmpp_2m_sde_k": ("DPMSolverMultistepScheduler", True),
    "dpmpp_3m": None, "dpmpp_3m_k": None, "dpmpp_sde": ("DPMSolverSDEScheduler", False), "dpmpp_sde_k": ("DPMSolverSDEScheduler", True),
    "unipc": ("UniPCMultistepScheduler", False), "unipc_k": ("UniPCMultistepScheduler", True), "lcm": ("LCMScheduler", False),
    "tcd": ("TCDScheduler", False),
}  # fmt: skip
"""SCHEDULER_MAP of InvokeAI's invokeai/backend/stable_diffusion/schedulers/schedulers.py: diffusers' class, and whether Karras."""

FOOOCUS = {
    "euler": "Euler", "euler_ancestral": "Euler a", "heun": "Heun", "dpm_2": "DPM2", "dpm_2_ancestral": "DPM2 a", "lms": "LMS",
    "dpm_fast": "DPM fast", "dpm_adaptive": "DPM adaptive", "dpmpp_2s_ancestral": "DPM++ 2S a", "dpmpp_sde": "DPM++ SDE",
    "dpmpp_sde_gpu": "DPM++ SDE", "dpmpp_2m": "DPM++ 2M", "dpmpp_2m_sde": "DPM++ 2M SDE", "dpmpp_2m_sde_gpu": "DPM++ 2M SDE",
    "lcm": "LCM", "tcd": "TCD", "restart": "Restart", "ddim": "DDIM", "uni_pc": "UniPC",
}  # fmt: skip
"""KSAMPLER and SAMPLER_EXTRA of Fooocus' modules/flags.py: ComfyUI's name -> A1111's."""


@pytest.mark.parametrize("name", INVOKEAI)
def test_invokeais_names_are_rows_of_the_same_class_of_diffusers(name: str) -> None:
    if INVOKEAI[name] is None:
        with pytest.raises(InvalidRequest):
            scheduler_from_infotext(name, None)
        return
    row = SCHEDULERS[scheduler_from_infotext(name, None)]
    assert (row.class_name, row.options.get("use_karras_sigmas", False)) == INVOKEAI[name]
    assert (row.options.get("algorithm_type") == "sde-dpmsolver++") == ("2m_sde" in name)


@pytest.mark.parametrize("name", FOOOCUS)
@pytest.mark.parametrize("schedule", ["normal", "karras", "exponential", "simple"])
def test_comfyuis_names_are_what_a1111_calls_them(name: str, schedule: str) -> None:
    def found(sampler: str, kind: str | None) -> str | None:
        try:
            return scheduler_from_infotext(sampler, kind)
        except InvalidRequest:
            return None

    row = found(name, schedule)
    assert row == found(FOOOCUS[name], schedule)
    if row and schedule in {"karras", "exponential"}:
        assert found(f"{name}_{schedule}", None) == row


@pytest.mark.parametrize(("name", "kind", "row"), [
    ("k_dpmpp_2m_sde", "karras", "DPM++ 2M SDE Karras"), ("k_euler_ancestral", "native", "Euler a"), ("Euler Ancestral", None, "Euler a"),
    ("DPM++ 2M Karras", "Uniform", "DPM++ 2M Karras"), ("ddim_v3", None, "DDIM"), ("unipc_snr_2", None, "UniPC"),
])  # fmt: skip
def test_names_of_novelai_draw_things_and_easy_diffusion(name: str, kind: str | None, row: str) -> None:
    assert scheduler_from_infotext(name, kind) == row


@pytest.mark.parametrize("name", ["", "_", "k_", "karras", "euler_cfg_pp", "res_multistep", "k_dpmpp_2m_" + "k" * 9999, "猫"])
def test_a_name_that_is_not_known_stays_as_it_is(name: str) -> None:
    assert in_a1111s_words(name, "x") == (name, "x")
