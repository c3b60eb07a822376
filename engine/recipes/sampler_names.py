"""What other tools call A1111's samplers and schedule types.

ComfyUI's and k-diffusion's names (comfy/samplers.py, k_diffusion/sampling.py), InvokeAI's and Easy Diffusion's for diffusers'
classes, A1111's own aliases (modules/sd_samplers_kdiffusion.py), and NovelAI's, which are k-diffusion's.
"""

from __future__ import annotations

import re

_SAMPLERS = {
    "ddim": "DDIM", "ddim_v3": "DDIM", "ddpm": "DDPM", "deis": "DEIS", "dpm2": "DPM2", "dpm2_a": "DPM2 a", "dpm_2": "DPM2",
    "dpm_2_a": "DPM2 a", "dpm_2_ancestral": "DPM2 a", "dpmpp_2m": "DPM++ 2M", "dpmpp_2m_sde": "DPM++ 2M SDE", "dpmpp_2s": "DPM++ 2S",
    "dpmpp_3m_sde": "DPM++ 3M SDE", "dpmpp_sde": "DPM++ SDE", "euler": "Euler", "euler_a": "Euler a", "euler_ancestral": "Euler a",
    "heun": "Heun", "kdpm_2": "DPM2", "kdpm_2_a": "DPM2 a", "lcm": "LCM", "lms": "LMS", "plms": "PLMS", "pndm": "PLMS",
    "sa_solver": "SA-Solver", "tcd": "TCD", "uni_pc": "UniPC", "uni_pc_bh2": "UniPC", "unipc": "UniPC",
    # Easy Diffusion's UniPC by how it spaces the steps
    "unipc_snr": "UniPC", "unipc_snr_2": "UniPC", "unipc_tq": "UniPC", "unipc_tu": "UniPC", "unipc_tu_2": "UniPC",
}  # fmt: skip

_SCHEDULES = {"k": "Karras", "ka": "Karras", "karras": "Karras", "exponential": "Exponential", "native": "Uniform"}
_NAME = re.compile(r"(?:sample_)?(?:k_)?(?P<rule>\w+?)(?:_gpu)?(?:_(?P<schedule>karras|exponential|ka|k))?(?:_gpu)?")


def in_a1111s_words(sampler: str, schedule_type: str | None) -> tuple[str, str | None]:
    """A1111's sampler and schedule type for those of another tool: ("k_dpmpp_2m_ka", None) -> ("DPM++ 2M", "Karras").

    What is not known comes back as it was.
    """
    kind = _SCHEDULES.get((schedule_type or "").strip().casefold(), schedule_type)
    parts = _NAME.fullmatch(re.sub(r"[\s-]+", "_", sampler.strip().casefold()[:60]).replace("++", "pp"))
    if parts is None or parts["rule"] not in _SAMPLERS:
        return sampler, kind
    return _SAMPLERS[parts["rule"]], kind or _SCHEDULES.get(parts["schedule"])
