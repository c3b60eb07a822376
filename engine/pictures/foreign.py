"""Settings that other tools than A1111 write into pictures, put in A1111's keys; what has none there keeps its own, so that it is told of.

Each reader takes a file's texts and knows its own tool's. The formats are those of the tools' sources, named at each.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeGuard

from engine.errors import UnreadablePicture
from engine.pictures.comfyui import read_graph
from engine.pictures.containers import XMP_KEY
from engine.pictures.infotext import Imported, read_pairs

MAX_VALUE = 300
"""Characters of a value that has no key here and is told of; a graph's worth of JSON helps nobody."""

Texts = Mapping[str, str]
Pair = tuple[str, str]


def read_foreign(texts: Texts) -> Imported | None:
    """What another tool wrote; None when no text is one's. Raises UnreadablePicture, naming the tool, when it holds no plain prompt."""
    for tool, read in _READERS:
        try:
            if (found := read(texts)) is None:
                continue
            prompt, negative, pairs = found
            told = [(key, _clean(value)) for key, value in (("App", tool), *pairs) if value]
        except (TypeError, ValueError, AttributeError, LookupError, ArithmeticError, RecursionError):
            raise UnreadablePicture(f"This picture was made by {tool}, but its settings are not as {tool} writes them.") from None
        imported = read_pairs(_clean(prompt).strip(), _clean(negative).strip(), told)
        if not imported.settings.get("prompt") and not imported.settings.keys() & {"steps", "seed", "guidance_scale", "scheduler"}:
            raise UnreadablePicture(f"This picture was made by {tool}, but carries none of its settings.")
        return imported
    return None


Reading = tuple[str, str, Iterable[Pair]]


def _swarmui(texts: Texts) -> Reading | None:
    """SwarmUI's docs/Image Metadata Format.md: numbers may be strings, lists may be strings with commas."""
    content = _json(texts.get("parameters", "")) or _json(texts.get("sui_image_params", ""))
    if not isinstance(content.get("sui_image_params"), dict):
        return None
    told = dict(content["sui_image_params"])
    names = {
        "steps": "Steps", "cfgscale": "CFG scale", "seed": "Seed", "sampler": "Sampler", "scheduler": "Schedule type", "model": "Model",
        "vae": "VAE", "variationseed": "Variation seed", "variationseedstrength": "Variation seed strength", "refinermodel": "Refiner",
        "initimagecreativity": "Denoising strength", "seamlesstileable": "Tiling",
    }  # fmt: skip
    silent = ("swarm_version", "aspectratio", "automaticvae", "images", "nopreviews", "imageformat", "wildcardseed", "sidelength")
    loras, layer = _listed(told.pop("loras", None)), told.pop("clipstopatlayer", None)
    pairs = [("RNG", "CPU"), _size(told), ("Lora hashes", ", ".join(loras)), ("Clip skip", str(-int(layer)) if layer else "")]
    words = _text(told.pop("prompt", "")), _text(told.pop("negativeprompt", ""))
    return *words, [*pairs, *_renamed(told, names, silent)]


def _fooocus(texts: Texts) -> Reading | None:
    """Fooocus' modules/meta_parser.py, scheme "fooocus"; its scheme "a1111" is an infotext."""
    told = _json(texts.get("parameters", ""))
    if told.get("metadata_scheme") != "fooocus" and not str(told.get("version", "")).startswith("Fooocus"):
        return None
    names = {
        "steps": "Steps", "guidance_scale": "CFG scale", "seed": "Seed", "sampler": "Sampler", "scheduler": "Schedule type",
        "base_model": "Model", "base_model_hash": "Model hash", "clip_skip": "Clip skip", "refiner_model": "Refiner",
        "refiner_switch": "Refiner switch at",
    }  # fmt: skip
    silent = ("metadata_scheme", "version", "created_by", "full_prompt", "full_negative_prompt", "prompt_expansion")
    if told.get("refiner_model") in (None, "", "None"):
        silent += ("refiner_model", "refiner_switch")
    sides = re.findall(r"\d+", _text(told.pop("resolution", "")))
    loras = [_text(lora[0]) for lora in told.pop("loras", None) or []]
    vae, styles = _text(told.pop("vae", "")), re.findall(r"'([^']*)'", _text(told.pop("styles", "")))
    pairs = [
        ("RNG", "CPU"), ("Size", "x".join(sides)), ("Lora hashes", ", ".join(loras)), ("Styles", ", ".join(styles)),
        ("VAE", "" if vae.startswith("Default") else vae),
    ]  # fmt: skip
    told = {key: value for key, value in told.items() if not key.startswith("lora_combined_")}  # the same as "loras"
    words = _text(told.pop("prompt", "")), _text(told.pop("negative_prompt", ""))
    return *words, [*pairs, *_renamed(told, names, silent)]


EASY_DIFFUSION = {
    "prompt": "Prompt", "negative_prompt": "Negative Prompt", "seed": "Seed", "use_stable_diffusion_model": "Stable Diffusion model",
    "clip_skip": "Clip Skip", "use_vae_model": "VAE model", "sampler_name": "Sampler", "width": "Width", "height": "Height",
    "num_inference_steps": "Steps", "guidance_scale": "Guidance Scale", "prompt_strength": "Prompt Strength",
    "use_lora_model": "LoRA model", "tiling": "Seamless Tiling",
}  # fmt: skip
"""TASK_TEXT_MAPPING of its ui/easydiffusion/utils/save_utils.py: it writes one set of names or the other."""


def _easy_diffusion(texts: Texts) -> Reading | None:
    """One text for each setting in a PNG, one JSON object in EXIF."""
    content: Mapping[str, Any] = _json(texts.get("parameters", "")) or texts
    if {"num_inference_steps", "guidance_scale"} <= content.keys():
        told = dict(content)
    elif {"Guidance Scale", "Stable Diffusion model"} <= content.keys():
        plain = {there: here for here, there in EASY_DIFFUSION.items()}
        told = {plain.get(key, key): value for key, value in content.items()}
    else:
        return None
    told = {key: value for key, value in told.items() if value not in ("None", "False")}
    names = {
        "num_inference_steps": "Steps", "guidance_scale": "CFG scale", "seed": "Seed", "sampler_name": "Sampler", "use_vae_model": "VAE",
        "use_stable_diffusion_model": "Model", "prompt_strength": "Denoising strength", "tiling": "Tiling",
    }  # fmt: skip
    skips = str(told.pop("clip_skip", False)).casefold() == "true"  # a switch
    pairs = [_size(told), ("Clip skip", "2" if skips else ""), ("Lora hashes", ", ".join(_listed(told.pop("use_lora_model", None))))]
    words = _text(told.pop("prompt", "")), _text(told.pop("negative_prompt", ""))
    return *words, [*pairs, *_renamed(told, names, ("lora_alpha", "Software"))]


def _invokeai(texts: Texts) -> Reading | None:
    """InvokeAI from 3.0: CoreMetadataInvocation of its invokeai/app/invocations/metadata.py."""
    told = _json(texts.get("invokeai_metadata", ""))
    if not told:
        return None
    names = {
        "steps": "Steps", "cfg_scale": "CFG scale", "seed": "Seed", "scheduler": "Sampler", "strength": "Denoising strength",
        "refiner_start": "Refiner switch at", "hrf_method": "Hires upscaler", "hrf_strength": "Denoising strength",
    }  # fmt: skip
    if not told.get("hrf_enabled"):
        told = {key: value for key, value in told.items() if not key.startswith("hrf_")}
    silent = ("app_version", "hrf_enabled") + (("generation_mode",) if "txt2img" in str(told.get("generation_mode")) else ())
    models = {key: _model(told.pop(name, None)) for key, name in (("Model", "model"), ("VAE", "vae"), ("Refiner", "refiner_model"))}
    loras = [_model(lora.get("model") or lora.get("lora")) for lora in told.pop("loras", None) or []]
    skipped, tiling = told.pop("clip_skip", 0) or 0, (told.pop("seamless_x", False), told.pop("seamless_y", False))
    pairs = [
        *models.items(), _size(told), ("RNG", _text(told.pop("rand_device", "")).upper()), ("Lora hashes", ", ".join(loras)),
        ("Clip skip", str(1 + int(skipped))), ("Tiling", "True" if any(tiling) else ""),
    ]  # fmt: skip
    words = _text(told.pop("positive_prompt", "")), _text(told.pop("negative_prompt", ""))
    return *words, [*pairs, *_renamed(told, names, silent)]


def _invokeai_2(texts: Texts) -> Reading | None:
    """InvokeAI 2's "sd-metadata" (its ldm/invoke/pngwriter.py), whose prompt holds the negative one in brackets."""
    content = _json(texts.get("sd-metadata", ""))
    told = dict(content.get("image") or {})
    if not told:
        return None
    prompt = told.pop("prompt", "")
    if isinstance(prompt, list):
        prompt = ", ".join(_text(part["prompt"]) for part in prompt)
    names = {"steps": "Steps", "cfg_scale": "CFG scale", "seed": "Seed", "sampler": "Sampler", "strength": "Denoising strength"}
    silent = ("type",) if told.get("type") == "txt2img" else ()
    pairs = [("Model", _text(content.get("model_weights"))), ("RNG", "GPU"), _size(told)]
    return *_in_brackets(_text(prompt)), [*pairs, *_renamed(told, names, silent)]


_DREAM = re.compile(r'"(.*)"((?:\s+-[^"]*+)?)', re.DOTALL)
_SWITCH = re.compile(r"(?:^|\s)-(\w)\s*([\w.]+)")


def _dream(texts: Texts) -> Reading | None:
    """InvokeAI 1's command line: "a fox [text]" -s 50 -S 42 -W 512 -H 512 -C 7.5 -A k_lms."""
    if "Dream" not in texts:
        return None
    line = _DREAM.fullmatch(texts["Dream"].strip())
    if line is None:
        raise ValueError("no command line of InvokeAI's")
    switches = dict(_SWITCH.findall(line[2]))
    told = {"width": switches.pop("W", ""), "height": switches.pop("H", "")}
    names = {"s": "Steps", "S": "Seed", "C": "CFG scale", "A": "Sampler", "f": "Denoising strength"}
    return *_in_brackets(line[1]), [("RNG", "GPU"), _size(told), *_renamed(switches, names, ())]


def _novelai(texts: Texts) -> Reading | None:
    """NovelAI: JSON in "Comment", where there is no prompt in it that in "Description"; in WebP one JSON object of all these texts."""
    if "Comment" not in texts:
        texts = {key: value for key, value in _json(texts.get("parameters", "")).items() if isinstance(value, str)}
    if texts.get("Software") != "NovelAI":
        return None
    told = json.loads(texts["Comment"])
    names = {
        "steps": "Steps", "scale": "CFG scale", "seed": "Seed", "sampler": "Sampler", "noise_schedule": "Schedule type",
        "strength": "Denoising strength",
    }  # fmt: skip
    silent = (
        "n_samples", "signed_hash", "request_type", "version", "legacy", "legacy_v3_extend", "v4_prompt", "v4_negative_prompt", "prompt",
        "uncond_per_vibe", "wonky_vibe_correlation", "prefer_brownian", "cfg_sched_eligibility", "uncond_scale", "uc",
        "controlnet_strength", "dynamic_thresholding_percentile", "dynamic_thresholding_mimic_scale", "skip_cfg_below_sigma",
    )  # fmt: skip
    characters = [_text(one.get("char_caption")) for one in (told.get("v4_prompt") or {}).get("caption", {}).get("char_captions", [])]
    pairs = [("Model", texts.get("Source", "")), ("RNG", "GPU"), _size(told), ("Characters", ", ".join(characters))]
    return _text(told.get("prompt")) or texts.get("Description", ""), _text(told.get("uc")), [*pairs, *_renamed(told, names, silent)]


_XMP_JSON = re.compile(r"<exif:UserComment>.{0,200}?<rdf:li[^>]{0,100}+>\s*+(\{[^<]*+)</rdf:li>", re.DOTALL)


def _draw_things(texts: Texts) -> Reading | None:
    """Draw Things: JSON in XMP's exif:UserComment, "c" and "uc" for the two prompts."""
    xmp = texts.get(XMP_KEY, "")
    found = _XMP_JSON.match(xmp, max(xmp.find("<exif:UserComment>"), 0))
    told = _json(html.unescape(found[1]) if found else texts.get("parameters", ""))
    if not {"c", "uc"} <= told.keys():
        return None
    names = {
        "steps": "Steps", "scale": "CFG scale", "seed": "Seed", "sampler": "Sampler", "size": "Size", "model": "Model",
        "refiner": "Refiner", "refiner_start": "Refiner switch at", "strength": "Denoising strength", "seed_mode": "RNG",
    }  # fmt: skip
    if told.get("strength") == 1:
        del told["strength"]
    loras = [_text(lora.get("model")) for lora in told.pop("lora", None) or []]
    words = _text(told.pop("c")), _text(told.pop("uc"))
    return *words, [("Lora hashes", ", ".join(loras)), *_renamed(told, names, ("v2", "mask_blur"))]


def _comfyui(texts: Texts) -> Reading | None:
    """ComfyUI's SaveImage (its nodes.py): the graph that ran in "prompt", the page's own in "workflow".

    Other savers put both into one object, and Civitai's generator the graph alone, in "parameters".
    """
    whole = _json(texts.get("parameters", ""))
    graph = next(filter(_is_graph, (_json(texts.get("prompt", "")), whole.get("prompt"), whole)), {})
    if not graph and not _json(texts.get("workflow", "")):
        return None
    found = read_graph(graph)
    if found is None:
        raise UnreadablePicture(
            "This picture was made by ComfyUI with a workflow that holds no plain prompt: its words are put together by other nodes, "
            "or it was saved without the graph that ran. Copy them from ComfyUI by hand."
        )
    prompt, negative, pairs = found
    return prompt, negative, [("RNG", "CPU"), *pairs]


def _json(text: str) -> dict[str, Any]:
    """The JSON object that a text is; an empty one when it is none."""
    if not text.lstrip().startswith("{"):
        return {}
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _is_graph(content: Any) -> TypeGuard[dict[str, Any]]:
    return isinstance(content, dict) and any(isinstance(node, dict) and "class_type" in node for node in content.values())


def _renamed(told: Mapping[str, Any], names: Mapping[str, str], silent: Iterable[str]) -> Iterator[Pair]:
    """The pairs of what is told, by A1111's keys where it has them; nothing of what is silent, empty, off or, without a key there, 0."""
    for key, value in told.items():
        if key not in silent and value is not None and value is not False and value not in ("", [], {}) and (value or key in names):
            yield names.get(key, key), _text(value)


def _size(told: dict[str, Any]) -> Pair:
    """A1111's "Size" of the width and height that are told, which are taken out."""
    sides = _text(told.pop("width", "")), _text(told.pop("height", ""))
    return "Size", "x".join(sides) if all(sides) else ""


def _model(told: Any) -> str:
    """The name of one of InvokeAI's models: an object from version 3.0, with other keys from 4.0."""
    return _text(told.get("name") or told.get("model_name")) if isinstance(told, dict) else _text(told)


def _listed(told: Any) -> list[str]:
    """The texts of a JSON list, or of a string with commas."""
    return [_text(one).strip() for one in (told if isinstance(told, list) else _text(told).split(",")) if one]


def _in_brackets(text: str) -> tuple[str, str]:
    """(prompt, negative prompt) of a prompt that holds the latter in brackets."""
    negative = [part.strip(" ,") for part in re.findall(r"\[([^\[\]]*)\]", text)]
    prompt = re.sub(r"[ \t]++", " ", re.sub(r"\[[^\[\]]*\]", "", text))
    return prompt.strip(" ,"), ", ".join(filter(None, negative))


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)[:MAX_VALUE]


def _clean(text: str) -> str:
    """Without halves of surrogates, which JSON may hold and no page can show."""
    return text.encode("utf-8", "replace").decode()


_READERS: tuple[tuple[str, Callable[[Texts], Reading | None]], ...] = (
    ("SwarmUI", _swarmui), ("Fooocus", _fooocus), ("Easy Diffusion", _easy_diffusion), ("Draw Things", _draw_things),
    ("InvokeAI", _invokeai), ("InvokeAI", _invokeai_2), ("InvokeAI", _dream), ("NovelAI", _novelai), ("ComfyUI", _comfyui),
)  # fmt: skip
