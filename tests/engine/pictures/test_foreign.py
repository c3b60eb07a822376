"""Pictures of other tools, in the formats that they publish; sd-parsers, another reader of them, is the oracle where it reads them."""

from __future__ import annotations

import copy
import io
import json
from pathlib import Path
from typing import Any

import pytest
import sd_parsers
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from engine.errors import UnreadablePicture
from engine.pictures.comfyui import MAX_SAMPLERS
from engine.pictures.foreign import EASY_DIFFUSION, read_foreign
from engine.pictures.metadata import _NOTHING, Found, read_picture
from tests.engine.pictures.pngs import IMAGE, check_clean, png_with
from tests.engine.pictures.texts import NEW_A1111, examples

CAR = {"prompt": "a red car, a blue house", "negative_prompt": "text, frame", "steps": 20, "seed": 1234, "width": 96, "height": 64}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("pictures") / "picture.png"


def written(content: Any) -> str:
    return content if isinstance(content, str) else json.dumps(content, ensure_ascii=False)


def found_in(file: Path, **texts: Any) -> Found:
    return read_picture(png_with(file, **{key: written(value) for key, value in texts.items()}))


def with_exif(file: Path, kind: str, exif: Image.Exif) -> Found:
    buffer = io.BytesIO()
    IMAGE.save(buffer, kind, exif=exif.tobytes())
    file.write_bytes(buffer.getvalue())
    return read_picture(file)


# ---- the formats


def comfyui(**sampler: Any) -> dict[str, Any]:
    """The graph of ComfyUI's script_examples/basic_api_example.py, with our words and numbers."""
    inputs = {
        "cfg": 6.5, "denoise": 1, "latent_image": ["5", 0], "model": ["4", 0], "negative": ["7", 0], "positive": ["6", 0],
        "sampler_name": "euler_ancestral", "scheduler": "normal", "seed": 1234, "steps": 20, **sampler,
    }  # fmt: skip
    return {
        "3": {"class_type": "KSampler", "inputs": inputs},
        "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "toys.safetensors"}},
        "5": {"class_type": "EmptyLatentImage", "inputs": {"batch_size": 1, "height": 64, "width": 96}},
        "6": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": CAR["prompt"]}},
        "7": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["4", 1], "text": CAR["negative_prompt"]}},
        "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["4", 2]}},
        "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "ComfyUI", "images": ["8", 0]}, "is_changed": [float("nan")]},
    }


def workflow_of(graph: dict[str, Any]) -> dict[str, Any]:
    """The links of the page's own format: [number, from, slot, to, slot, type]."""
    kinds = {"clip": "CLIP", "model": "MODEL", "positive": "CONDITIONING", "negative": "CONDITIONING", "vae": "VAE", "images": "IMAGE"}
    links = [
        [0, value[0], value[1], node, 0, kinds.get(key, "LATENT")]
        for node, content in graph.items() for key, value in content["inputs"].items() if isinstance(value, list)
    ]  # fmt: skip
    return {"nodes": [], "links": links, "version": 0.4}


INVOKEAI = {
    "generation_mode": "txt2img", "positive_prompt": CAR["prompt"], "negative_prompt": CAR["negative_prompt"], "width": 96, "height": 64,
    "seed": 1234, "rand_device": "cpu", "cfg_scale": 6.5, "steps": 20, "scheduler": "euler_a", "clip_skip": 0,
    "model": {"model_name": "toys", "base_model": "sd-1", "model_type": "main"},
    "controlnets": [], "ipAdapters": [], "t2iAdapters": [], "loras": [], "app_version": "3.3.0post3",
}  # fmt: skip
"""CoreMetadata of InvokeAI 3.3, as its invokeai/app/invocations/metadata.py writes it."""

SD_METADATA = {
    "model": "stable diffusion", "model_weights": "toys", "model_hash": "cc6cb27103417325", "app_id": "invoke-ai/InvokeAI",
    "app_version": "2.2.5",
    "image": {
        "prompt": [{"prompt": f"{CAR['prompt']} [{CAR['negative_prompt']}]", "weight": 1.0}], "steps": 20, "cfg_scale": 6.5, "threshold": 0,
        "perlin": 0, "height": 64, "width": 96, "seed": 1234, "seamless": False, "hires_fix": False, "type": "txt2img",
        "postprocessing": None, "sampler": "k_euler_a", "variations": [],
    },
}  # fmt: skip
DREAM = f'"{CAR["prompt"]} [{CAR["negative_prompt"]}]" -s 20 -S 1234 -W 96 -H 64 -C 6.5 -A k_euler_a'

SWARMUI = {
    "sui_image_params": {
        "prompt": CAR["prompt"], "model": "OfficialStableDiffusion/toys", "seed": 1234, "steps": 20, "cfgscale": 6.5,
        "aspectratio": "Custom", "width": 96, "height": 64, "sampler": "euler_ancestral", "scheduler": "normal", "automaticvae": True,
        "negativeprompt": CAR["negative_prompt"], "swarm_version": "0.9.3.1",
    },
    "sui_extra_data": {"date": "2024-11-13", "generation_time": "6.11 (prep) and 4.84 (gen) seconds"},
}  # fmt: skip
"""After the full example in SwarmUI's docs/Image Metadata Format.md."""

FOOOCUS = {
    "adm_guidance": "(1.5, 0.8, 0.3)", "base_model": "toys", "base_model_hash": "aeb7e9e689", "clip_skip": 2,
    "full_negative_prompt": [CAR["negative_prompt"], "blurry"], "full_prompt": [CAR["prompt"], "cinematic"], "guidance_scale": 6.5,
    "lora_combined_1": "sd_xl_offset : 0.1", "loras": [["sd_xl_offset", 0.1, "4852686128"]], "metadata_scheme": "fooocus",
    "negative_prompt": CAR["negative_prompt"], "performance": "Speed", "prompt": CAR["prompt"], "prompt_expansion": "",
    "refiner_model": "None", "refiner_switch": 0.5, "resolution": "(96, 64)", "sampler": "euler_ancestral", "scheduler": "normal",
    "seed": "1234", "sharpness": 2.0, "steps": 20, "styles": "['Fooocus V2', 'SAI Cinematic']", "vae": "Default (model)",
    "version": "Fooocus v2.5.0",
}  # fmt: skip
"""What FooocusMetadataParser.to_string in Fooocus' modules/meta_parser.py writes."""

NOVELAI = {
    "prompt": CAR["prompt"], "steps": 20, "height": 64, "width": 96, "scale": 6.5, "uncond_scale": 1.0, "cfg_rescale": 0.0, "seed": 1234,
    "n_samples": 1, "noise_schedule": "native", "legacy_v3_extend": False, "reference_strength_multiple": [],
    "sampler": "k_euler_ancestral", "controlnet_strength": 1.0, "sm": False, "sm_dyn": False, "uc": CAR["negative_prompt"],
    "request_type": "PromptGenerateRequest", "signed_hash": "nM6vZLFGJWW7SH2xc4lpRY9s",
}  # fmt: skip
NOVELAI_TEXTS = {
    "Title": "AI generated image", "Description": CAR["prompt"], "Software": "NovelAI", "Source": "Stable Diffusion XL C1E1DE52",
    "Comment": json.dumps(NOVELAI),
}  # fmt: skip

EASY = {
    "prompt": CAR["prompt"], "negative_prompt": CAR["negative_prompt"], "seed": 1234, "use_stable_diffusion_model": "toys",
    "clip_skip": False, "use_vae_model": "None", "sampler_name": "euler_a", "width": 96, "height": 64, "num_inference_steps": 20,
    "guidance_scale": 6.5, "tiling": None,
}  # fmt: skip
"""get_printable_request of Easy Diffusion's ui/easydiffusion/utils/save_utils.py."""

DRAW_THINGS = {
    "c": CAR["prompt"], "uc": CAR["negative_prompt"], "steps": 20, "sampler": "Euler Ancestral", "scale": 6.5, "seed": 1234,
    "size": "96x64", "model": "toys.ckpt", "strength": 1, "seed_mode": "Scale Alike", "shift": 1,
}  # fmt: skip
DRAW_THINGS_XMP = (
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF><rdf:Description><xmp:CreatorTool>Draw Things</xmp:CreatorTool><exif:UserComment>'
    '<rdf:Alt><rdf:li xml:lang="x-default">{}</rdf:li></rdf:Alt></exif:UserComment></rdf:Description></rdf:RDF></x:xmpmeta>'
)

PLAIN: dict[str, tuple[str, dict[str, Any]]] = {
    "comfyui": ("ComfyUI", {"prompt": comfyui(), "workflow": workflow_of(comfyui())}),
    "comfyui-without-workflow": ("ComfyUI", {"prompt": comfyui()}),
    "comfyui-advanced": ("ComfyUI", {"prompt": comfyui(seed=None, noise_seed=1234, start_at_step=0, end_at_step=10000)}),
    "comfyui-in-one-object": ("ComfyUI", {"parameters": {"prompt": comfyui(), "workflow": {}}}),
    "comfyui-of-civitai": ("ComfyUI", {"parameters": {**comfyui(), "extra": {"airs": ["urn:air:sd1"]}, "extraMetadata": "{}"}}),
    "invokeai": ("InvokeAI", {"invokeai_metadata": INVOKEAI}),
    "invokeai-5": ("InvokeAI", {"invokeai_metadata": {**INVOKEAI, "model": {"key": "a", "name": "toys", "base": "sd-1", "type": "main"}}}),
    "invokeai-2": ("InvokeAI", {"sd-metadata": SD_METADATA, "Dream": DREAM}),
    "invokeai-1": ("InvokeAI", {"Dream": DREAM}),
    "swarmui": ("SwarmUI", {"parameters": SWARMUI}),
    "fooocus": ("Fooocus", {"parameters": FOOOCUS, "fooocus_scheme": "fooocus"}),
    "novelai": ("NovelAI", NOVELAI_TEXTS),
    "novelai-without-prompt": ("NovelAI", {**NOVELAI_TEXTS, "Comment": {**NOVELAI, "prompt": None}}),
    "novelai-webp": ("NovelAI", {"parameters": NOVELAI_TEXTS}),
    "easy-diffusion": ("Easy Diffusion", {key: str(value) for key, value in EASY.items()}),
    "easy-diffusion-names": ("Easy Diffusion", {EASY_DIFFUSION[key]: str(value) for key, value in EASY.items()}),
    "easy-diffusion-jpeg": ("Easy Diffusion", {"parameters": EASY}),
    "draw-things": ("Draw Things", {"XML:com.adobe.xmp": DRAW_THINGS_XMP.format(json.dumps(DRAW_THINGS).replace('"', "&quot;"))}),
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_what_stands_plainly_is_read(name: str, file: Path) -> None:
    tool, texts = PLAIN[name]
    found = found_in(file, **texts)
    assert found.source == tool
    taken = {key: found.settings.get(key) for key in (*CAR, "guidance_scale", "scheduler")}
    assert taken == {**CAR, "guidance_scale": 6.5, "scheduler": "Euler a"}
    model = found.settings.get("model")
    assert model is None if name == "invokeai-1" else ("toys" in model or name.startswith("novelai"))
    check_clean(found)


@pytest.mark.parametrize("name", [name for name in PLAIN if name.startswith(("invokeai", "comfyui", "swarmui"))])
def test_a_plain_picture_gives_no_note_but_of_what_it_lacks(name: str, file: Path) -> None:
    notes = [note for note in found_in(file, **PLAIN[name][1]).notes if "noise" not in note]
    assert notes == (["It names no model: that stays as it was."] if name == "invokeai-1" else [])


def as_sd_parsers_reads(file: Path) -> dict[str, Any]:
    [sampler] = sd_parsers.ParserManager().parse(file).samplers
    return {
        "prompt": ", ".join(prompt.value for prompt in sampler.prompts),
        "negative_prompt": ", ".join(prompt.value for prompt in sampler.negative_prompts),
        "seed": int(sampler.parameters["seed"]), "guidance_scale": float(sampler.parameters["cfg_scale"]),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["comfyui", "invokeai", "invokeai-5", "invokeai-2", "invokeai-1", "fooocus", "novelai"])
def test_sd_parsers_reads_the_same(name: str, file: Path) -> None:
    texts = copy.deepcopy(PLAIN[name][1])
    if name == "invokeai-5":  # it wants the older key there
        texts["invokeai_metadata"]["model"]["model_name"] = "toys"
    found = found_in(file, **texts)
    oracle = as_sd_parsers_reads(file)
    assert {key: found.settings[key] for key in oracle} == oracle


# ---- where they stand


@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "AVIF"])
@pytest.mark.parametrize("tool", ["SwarmUI", "Fooocus", "ComfyUI", "Easy Diffusion"])
def test_exif_holds_the_same(tool: str, kind: str, file: Path) -> None:
    exif = Image.Exif()
    if tool == "ComfyUI":  # SaveAnimatedWEBP of its comfy_extras/nodes_images.py
        exif[0x0110], exif[0x010F] = "prompt:" + json.dumps(comfyui()), "workflow:" + json.dumps(workflow_of(comfyui()))
    elif tool == "Fooocus":  # get_exif of its modules/meta_parser.py, in the first directory
        exif[0x9286], exif[0x0131], exif[0x927C] = json.dumps(FOOOCUS), "Fooocus v2.5.0", "fooocus"
    else:
        order = "utf-16-le" if tool == "SwarmUI" else "utf-16-be"  # ImageSharp and piexif
        exif.get_ifd(0x8769)[0x9286] = b"UNICODE\0" + json.dumps(SWARMUI if tool == "SwarmUI" else EASY).encode(order)
    found = with_exif(file, kind, exif)
    assert (found.source, found.settings["prompt"], found.settings["seed"]) == (tool, CAR["prompt"], 1234)


def test_an_infotext_counts_before_the_graph_beside_it(file: Path) -> None:
    found = found_in(file, parameters=NEW_A1111, prompt=comfyui())
    assert found.settings["seed"] == 965400086


def test_text_that_is_no_infotext_hides_no_graph(file: Path) -> None:
    assert found_in(file, parameters="just words", prompt=comfyui()).source == "ComfyUI"
    with pytest.raises(UnreadablePicture, match="no list of settings"):
        found_in(file, parameters="just words")


# ---- what is not taken over is said


def notes(found: Found) -> str:
    return " ".join(found.notes)


@pytest.mark.parametrize(
    ("texts", "told"),
    [
        ({"invokeai_metadata": {**INVOKEAI, "loras": [{"model": {"name": "toys"}, "weight": 0.5}]}}, "LoRA “toys”"),
        ({"invokeai_metadata": {**INVOKEAI, "loras": [{"lora": {"model_name": "toys"}, "weight": 0.5}]}}, "LoRA “toys”"),
        ({"invokeai_metadata": {**INVOKEAI, "generation_mode": "img2img", "strength": 0.7}}, "img2img"),
        ({"invokeai_metadata": {**INVOKEAI, "rand_device": "cuda"}}, "noise came from the GPU"),
        ({"invokeai_metadata": {**INVOKEAI, "seamless_x": True}}, "tiling"),
        ({"invokeai_metadata": {**INVOKEAI, "scheduler": "dpmpp_3m"}}, "no scheduler like the sampler “dpmpp_3m”"),
        ({"invokeai_metadata": {**INVOKEAI, "controlnets": [{"control_model": {"name": "canny"}}]}}, "controlnets"),
        ({"sd-metadata": {**SD_METADATA, "image": {**SD_METADATA["image"], "variations": [[9, 0.5]]}}}, "variations"),
        ({"parameters": {"sui_image_params": {**SWARMUI["sui_image_params"], "loras": "toys,more"}}}, "LoRAs “toys”, “more”"),
        ({"parameters": {"sui_image_params": {**SWARMUI["sui_image_params"], "variationseed": 9}}}, "variation seed 9"),
        ({"parameters": {"sui_image_params": {**SWARMUI["sui_image_params"], "initimagecreativity": 0.6}}}, "denoising 0.6"),
        ({"parameters": FOOOCUS}, "styles “Fooocus V2, SAI Cinematic”"),
        ({"parameters": FOOOCUS}, "LoRA “sd_xl_offset”"),
        ({"parameters": FOOOCUS}, "sharpness 2.0"),
        ({"invokeai_metadata": {**INVOKEAI, "hrf_enabled": True, "hrf_method": "ESRGAN", "hrf_strength": 0.4}}, "hires fix (ESRGAN"),
        ({**NOVELAI_TEXTS, "Comment": {**NOVELAI, "strength": 0.7, "noise": 0.2}}, "denoising 0.7"),
        ({**NOVELAI_TEXTS, "Comment": {**NOVELAI, "sm": True, "cfg_rescale": 0.5}}, "cfg_rescale 0.5"),
        ({**NOVELAI_TEXTS, "Comment": {**NOVELAI, "v4_prompt": {"caption": {"char_captions": [{"char_caption": "a girl"}]}}}}, "a girl"),
        ({"parameters": {**EASY, "use_lora_model": ["toys"], "lora_alpha": [0.5]}}, "LoRA “toys”"),
        ({"parameters": {**DRAW_THINGS, "lora": [{"model": "toys", "weight": 1}]}}, "LoRA “toys”"),
    ],
)
def test_what_is_not_done_here_is_named(texts: dict[str, Any], told: str, file: Path) -> None:
    found = found_in(file, **texts)
    assert found.settings["prompt"] == CAR["prompt"]
    assert told in notes(found)


def test_clip_skip_is_counted_as_a1111_counts(file: Path) -> None:
    assert found_in(file, invokeai_metadata={**INVOKEAI, "clip_skip": 1}).settings["clip_skip"] == 2  # skipped layers
    assert found_in(file, parameters={**EASY, "clip_skip": True}).settings["clip_skip"] == 2  # a switch
    params = {**SWARMUI["sui_image_params"], "clipstopatlayer": -2}  # from the end
    assert found_in(file, parameters={"sui_image_params": params}).settings["clip_skip"] == 2
    graph = comfyui()
    graph["10"] = {"class_type": "CLIPSetLastLayer", "inputs": {"stop_at_clip_layer": -2, "clip": ["4", 1]}}
    graph["6"]["inputs"]["clip"] = ["10", 0]
    assert found_in(file, prompt=graph).settings["clip_skip"] == 2


# ---- ComfyUI's graphs


def graph_with(**nodes: tuple[str, dict[str, Any]]) -> dict[str, Any]:
    graph = comfyui()
    for name, (kind, inputs) in nodes.items():
        graph[name] = {"class_type": kind, "inputs": inputs}
    return graph


def test_a_graph_of_custom_sampling_is_read(file: Path) -> None:
    """The nodes of comfy_extras/nodes_custom_sampler.py."""
    graph = comfyui()
    graph["3"] = {
        "class_type": "SamplerCustomAdvanced",
        "inputs": {"noise": ["20", 0], "guider": ["21", 0], "sampler": ["22", 0], "sigmas": ["23", 0], "latent_image": ["5", 0]},
    }
    graph |= {
        "20": {"class_type": "RandomNoise", "inputs": {"noise_seed": 1234}},
        "21": {"class_type": "CFGGuider", "inputs": {"cfg": 6.5, "model": ["4", 0], "positive": ["6", 0], "negative": ["7", 0]}},
        "22": {"class_type": "KSamplerSelect", "inputs": {"sampler_name": "dpmpp_2m"}},
        "23": {"class_type": "KarrasScheduler", "inputs": {"steps": 20, "sigma_max": 14.6, "sigma_min": 0.03, "rho": 7}},
    }
    found = found_in(file, prompt=graph)
    wanted = {**CAR, "guidance_scale": 6.5, "scheduler": "DPM++ 2M Karras", "model": "toys.safetensors", "clip_skip": 1}
    assert (found.settings, found.notes) == (wanted, ())


def test_a_second_pass_is_told_and_the_first_is_taken(file: Path) -> None:
    second = {**comfyui()["3"]["inputs"], "latent_image": ["11", 0], "steps": 12, "denoise": 0.5, "seed": 7}
    graph = graph_with(**{"10": ("KSampler", second), "11": ("LatentUpscale", {"samples": ["3", 0], "width": 192, "height": 128})})
    graph = {"10": graph.pop("10"), **graph}  # whatever their order
    found = found_in(file, prompt=graph)
    assert {key: found.settings[key] for key in CAR} == CAR
    assert "steps 12, denoising 0.5" in notes(found)


def test_two_samplers_side_by_side_are_told(file: Path) -> None:
    found = found_in(file, prompt=graph_with(**{"10": ("KSampler", {**comfyui()["3"]["inputs"], "seed": 7})}))
    assert found.settings["seed"] == 1234
    assert "Further samplers in its workflow 1" in notes(found)


def test_nodes_that_do_more_to_the_picture_are_told(file: Path) -> None:
    more = {"60": ("FaceDetailer", {"image": ["8", 0], "steps": 20, "denoise": 0.5}), "61": ("ImageUpscaleWithModel", {"image": ["60", 0]})}
    assert "Further nodes FaceDetailer, ImageUpscaleWithModel" in notes(found_in(file, prompt=graph_with(**more)))


def test_values_and_words_of_other_nodes_are_followed(file: Path) -> None:
    graph = graph_with(**{
        "30": ("PrimitiveInt", {"value": 1234}), "31": ("String", {"string": CAR["prompt"]}), "32": ("Int", {"value": 96}),
    })  # fmt: skip
    graph["3"]["inputs"]["seed"], graph["6"]["inputs"]["text"], graph["5"]["inputs"]["width"] = ["30", 0], ["31", 0], ["32", 0]
    assert {key: found_in(file, prompt=graph).settings[key] for key in CAR} == CAR


def test_loras_controlnet_and_pictures_to_begin_with_are_told(file: Path) -> None:
    graph = graph_with(**{
        "40": ("LoraLoader", {"lora_name": "fine.safetensors", "strength_model": 1, "model": ["4", 0], "clip": ["4", 1]}),
        "41": ("ControlNetApply", {"conditioning": ["6", 0], "control_net": ["42", 0], "strength": 1}),
        "42": ("ControlNetLoader", {"control_net_name": "canny.safetensors"}),
        "43": ("VAEEncode", {"pixels": ["44", 0], "vae": ["4", 2]}), "44": ("LoadImage", {"image": "a.png"}),
    })  # fmt: skip
    graph["3"]["inputs"] |= {"model": ["40", 0], "positive": ["41", 0], "latent_image": ["43", 0], "denoise": 0.6}
    found = found_in(file, prompt=graph)
    assert (found.settings["prompt"], found.settings["model"]) == (CAR["prompt"], "toys.safetensors")
    for told in ("fine.safetensors", "canny.safetensors", "img2img", "denoising 0.6", "no size"):
        assert told in notes(found)


def test_a_negative_prompt_that_is_zeroed_out_is_none(file: Path) -> None:
    graph = graph_with(**{"7": ("ConditioningZeroOut", {"conditioning": ["6", 0]})})
    found = found_in(file, prompt=graph)
    assert (found.settings["prompt"], found.settings["negative_prompt"]) == (CAR["prompt"], "")


def test_conditionings_that_are_combined_are_told(file: Path) -> None:
    graph = graph_with(**{
        "50": ("ConditioningCombine", {"conditioning_1": ["6", 0], "conditioning_2": ["51", 0]}),
        "51": ("CLIPTextEncode", {"clip": ["4", 1], "text": "a dog"}),
    })  # fmt: skip
    graph["3"]["inputs"]["positive"] = ["50", 0]
    found = found_in(file, prompt=graph)
    assert found.settings["prompt"] == CAR["prompt"]
    assert "Combined prompt a dog" in notes(found)
    graph["51"] = {"class_type": "ConditioningCombine", "inputs": {"conditioning_1": ["52", 0], "conditioning_2": ["53", 0]}}
    graph |= {name: {"class_type": "CLIPTextEncode", "inputs": {"text": text}} for name, text in (("52", "a dog"), ("53", "a bird"))}
    for told in ("a dog", "a bird"):
        assert told in notes(found_in(file, prompt=graph))


def test_a_comment_of_millions_of_brackets_ends() -> None:
    xmp = "<exif:UserComment>" * 11 + "<rdf:li" * 14 + ">{" + "}" * 2_000_000 + "<x"
    assert read_foreign({"XML:com.adobe.xmp": xmp}) is None


def refused() -> dict[str, dict[str, Any]]:
    concatenated = graph_with(**{
        "60": ("StringConcatenate", {"string_a": "a red", "string_b": ["61", 0]}), "61": ("String", {"string": "car"}),
    })  # fmt: skip
    concatenated["6"]["inputs"]["text"] = ["60", 0]
    circle = comfyui()
    circle["6"] = {"class_type": "A", "inputs": {"a": ["6", 0], "b": ["3", 0]}}
    nowhere = comfyui(positive=["99", 0])
    unknown = {"1": {"class_type": "Everything", "inputs": {"pipe": ["2", 0]}}, "2": {"class_type": "B", "inputs": {"text": "a fox"}}}
    return {
        "concatenated": {"prompt": concatenated}, "circle": {"prompt": circle}, "nowhere": {"prompt": nowhere},
        "unknown": {"prompt": unknown}, "workflow-alone": {"workflow": workflow_of(comfyui())},
    }  # fmt: skip


@pytest.mark.parametrize("name", refused())
def test_a_graph_without_a_plain_prompt_is_refused_by_the_tools_name(name: str, file: Path) -> None:
    with pytest.raises(UnreadablePicture, match=r"^This picture was made by ComfyUI with a workflow that holds no plain prompt: .*\.$"):
        found_in(file, **refused()[name])


# ---- strangers


def test_a_command_line_with_a_long_gap_ends() -> None:
    """Two parts of a pattern that both take spaces would try a square of them: for hours, with everybody else stopped."""
    with pytest.raises(UnreadablePicture):
        read_foreign({"Dream": '"a" -' + " " * 1_000_000 + '"b'})


def test_a_graph_of_thousands_of_nodes_in_circles_ends(file: Path) -> None:
    links = {f"in{at}": [str(at), 0] for at in range(200)}
    circles = {str(at): {"class_type": "A", "inputs": links} for at in range(200)}
    samplers = {f"s{at}": {"class_type": "K", "inputs": {"steps": 1, "latent_image": ["0", 0], "positive": ["0", 0]}} for at in range(9000)}
    assert len(samplers) > MAX_SAMPLERS
    with pytest.raises(UnreadablePicture, match="ComfyUI"):
        read_foreign({"prompt": json.dumps(circles | samplers)})


KEYS = ["parameters", "prompt", "workflow", "invokeai_metadata", "sd-metadata", "Dream", "Comment", "XML:com.adobe.xmp", "darkroom"]
DEEP = "[" * 100_000
NUMBERS = ["NaN", "Infinity", "-1e999", "9" * 5000, '"\\ud800"', "null", "true", "[[]]", "{}", '"-"', "1.5"]


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("text", [DEEP, '{"a":' + DEEP, '{"a":' * 50_000, "{}", "[]", '""', '"" -s'], ids=lambda text: text[:8])
def test_deep_or_empty_json_is_refused(key: str, text: str, file: Path) -> None:
    with pytest.raises(UnreadablePicture) as refusal:
        found_in(file, Software="NovelAI" if key == "Comment" else "", **{key: text})
    assert "SwarmUI" not in str(refusal.value).removesuffix(_NOTHING)  # the first reader takes nobody else's for its own


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("value", NUMBERS)
def test_any_value_in_any_place_is_survived(name: str, value: str, file: Path) -> None:
    """One value after another of the tool's own file takes another type."""
    for key, text in PLAIN[name][1].items():
        if isinstance(text, str) and not text.startswith("{"):
            continue
        content = json.loads(text) if isinstance(text, str) else text
        for changed in replaced(content):
            hostile = json.dumps(changed).replace('"@@"', value)
            try:
                check_clean(found_in(file, **{**PLAIN[name][1], key: hostile}))
            except UnreadablePicture as error:
                str(error).encode()


def replaced(content: Any) -> Any:
    """Copies of a JSON value, each with another of its parts replaced by a marker."""
    yield "@@"
    if isinstance(content, dict | list):
        for key in content if isinstance(content, dict) else range(len(content)):
            for part in replaced(content[key]):
                changed = copy.copy(content)
                changed[key] = part
                yield changed


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["3", "6", "KSampler"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["inputs", "class_type", "positive", "3", "text"]), inner),
    max_leaves=12,
)
names = st.sampled_from([*comfyui()["3"]["inputs"], *INVOKEAI, *SWARMUI["sui_image_params"], *FOOOCUS, *EASY, *NOVELAI, "image", "c", "uc"])


@examples
@given(texts=st.dictionaries(st.sampled_from(KEYS), st.dictionaries(names, values) | values, min_size=1))
def test_any_json_ends_in_settings_or_in_a_sentence(texts: dict[str, Any], file: Path) -> None:
    try:
        check_clean(found_in(file, Software="NovelAI", **{key: json.dumps(value) for key, value in texts.items()}))
    except UnreadablePicture as error:
        str(error).encode()
