"""ComfyUI's graph of a picture (its API format, which it writes into each file) -> the settings that stand in it plainly.

{"3": {"class_type": "KSampler", "inputs": {"seed": 5, "positive": ["6", 0], ...}}, ...}: an input is a value or a link to another
node. Nodes are known by the names of their inputs rather than by their class, so that custom ones that keep those names are read too.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

MAX_SAMPLERS, MAX_WALKED, MAX_LINKS, MAX_INPUTS = 50, 500, 50, 1000
"""Sampler nodes that are looked at, nodes on the way from one of them, and links of one that are followed: a stranger's graph has
thousands that lead in circles."""

SCALARS = (str, int, float)
_SEED, _SIDES = ("seed", "noise_seed"), {"width": ("width", "empty_latent_width"), "height": ("height", "empty_latent_height")}
_MODEL = ("ckpt_name", "unet_name", "base_ckpt_name", "model_name")
_SCHEDULES = {"KarrasScheduler": "karras", "ExponentialScheduler": "exponential", "PolyexponentialScheduler": "polyexponential"}
"""Nodes of comfy_extras/nodes_custom_sampler.py that are a schedule themselves -> its name."""

_ENCODED = ("text", "text_g", "text_l", "t5xxl", "clip_l", "prompt", "populated_text", "string", "value")
"""Inputs that hold words: of CLIPTextEncode and its likes for SDXL and Flux, of nodes that hold a string, of wildcards."""

_LISTED = {"LoRA": ("model", "lora_name"), "ControlNet": ("positive", "control_net_name"), "Guidance": ("positive", "guidance")}
"""What is told of nodes behind a sampler's inputs, each by a number: the input, and theirs that has it."""

_WORDLESS = {
    "clip", "model", "vae", "image", "images", "pixels", "mask", "samples", "latent_image", "control_net", "style_model",
    "clip_vision_output", "sampler", "sigmas", "noise", "guider",
}  # fmt: skip
"""Inputs behind which a prompt's words are not looked for."""

_UNDERSTOOD = {
    "BasicGuider", "BasicScheduler", "CFGGuider", "CheckpointLoader", "CheckpointLoaderSimple", "CLIPLoader", "CLIPSetLastLayer",
    "CLIPTextEncode", "CLIPTextEncodeFlux", "CLIPTextEncodeSDXL", "ConditioningZeroOut", "DualCLIPLoader", "EmptyLatentImage",
    "EmptySD3LatentImage", "KSamplerSelect", "Note", "PreviewImage", "PrimitiveFloat", "PrimitiveInt", "PrimitiveNode", "PrimitiveString",
    "PrimitiveStringMultiline", "RandomNoise", "Reroute", "SaveAnimatedWEBP", "SaveImage", "UNETLoader", "VAEDecode", "VAEDecodeTiled",
    *_SCHEDULES,
}  # fmt: skip
"""Nodes whose part in a picture is read here, or is none; the others are told by their names."""

Graph = Mapping[str, Any]


def read_graph(graph: Graph) -> tuple[str, str, list[tuple[str, str]]] | None:
    """(prompt, negative prompt, A1111's keys and values) of a graph. None when there is no sampler with a plain prompt in it."""
    samplers = [name for name in graph if _is_sampler(graph, name)][:MAX_SAMPLERS]
    denoising = set(samplers)
    firsts = [name for name in samplers if denoising.isdisjoint(_walk(graph, _behind(graph, name, "latent_image")))]
    for name in firsts or samplers:
        prompts, negatives = (_texts(graph, name, side) for side in ("positive", "negative"))
        if prompts:
            break
    else:
        return None
    pairs = list(_pairs(graph, name))
    if negatives is None:
        pairs.append(("Negative prompt", "put together by its workflow"))
    negatives = negatives or [""]
    pairs += _numbered("Combined prompt", prompts[1:]) + _numbered("Combined negative prompt", negatives[1:])
    if len(firsts) > 1:
        pairs.append(("Further samplers in its workflow", str(len(firsts) - 1)))
    passes = []
    for later in samplers:
        if later not in firsts:
            told = {"steps": _value(graph, later, "steps"), "denoising": _value(graph, later, "denoise")}
            passes.append(", ".join(f"{key} {value}" for key, value in told.items() if value is not None) or "unknown")
    pairs += _numbered("Further pass", passes)
    others = dict.fromkeys(_class(graph, node) for node in graph if node not in denoising)
    pairs.append(("Further nodes", ", ".join(sorted(others.keys() - _UNDERSTOOD - {""})[:MAX_LINKS])))
    return prompts[0], negatives[0], pairs


def _numbered(key: str, values: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs with keys of their own, as of equal ones only the first counts."""
    return [(key if len(values) == 1 else f"{key} {number}", value) for number, value in enumerate(values, 1)]


def _pairs(graph: Graph, sampler: str) -> Iterator[tuple[str, str]]:
    """What a sampler node, and those that it is linked to, say in numbers and names."""
    sigmas = _behind(graph, sampler, "sigmas")
    schedule = _value(graph, sampler, "scheduler") or _SCHEDULES.get(_class(graph, sigmas))
    sides = [next(_found(graph, sampler, "latent_image", names), None) for names in _SIDES.values()]
    values = {
        "Steps": _value(graph, sampler, "steps"), "Sampler": _value(graph, sampler, "sampler_name"), "Schedule type": schedule,
        "CFG scale": _value(graph, sampler, "cfg"), "Seed": _value(graph, sampler, *_SEED),
        "Size": None if None in sides else "x".join(map(str, sides)),
        "Model": next(_found(graph, sampler, "model", _MODEL), None),
    }  # fmt: skip
    for key, value in values.items():
        if value is not None:
            yield key, str(value)
    denoise = _value(graph, sampler, "denoise")
    if isinstance(denoise, int | float) and denoise != 1:
        yield "Denoising strength", str(denoise)
    elif None in sides:
        yield "Latents from", _class(graph, _behind(graph, sampler, "latent_image")) or "an unknown node"
    layer = next(_found(graph, sampler, "positive", ("stop_at_clip_layer",)), None)
    if isinstance(layer, int) and layer < 0:
        yield "Clip skip", str(-layer)
    for key, (part, name) in _LISTED.items():
        for number, value in enumerate(dict.fromkeys(_found(graph, sampler, part, (name,))), 1):
            yield f"{key} {number}", str(value)
    steps, start, end = (_value(graph, sampler, name) for name in ("steps", "start_at_step", "end_at_step"))
    if start or (isinstance(end, int) and isinstance(steps, int) and end < steps):
        yield "Steps made", f"{start or 0} to {end}"


def _is_sampler(graph: Graph, name: str) -> bool:
    """Whether a node denoises: it has latents, and steps or sigmas."""
    inputs = _inputs(graph, name)
    return "latent_image" in inputs and ("steps" in inputs or "sigmas" in inputs)


def _value(graph: Graph, sampler: str, *names: str) -> Any:
    """The first of these inputs of a sampler that has a value: its own, or of the nodes that are its noise, guider, rule and sigmas."""
    places = [sampler, *(_behind(graph, sampler, part) for part in ("noise", "guider", "sampler", "sigmas"))]
    values = (_scalar(graph, _inputs(graph, place).get(name), name) for place in places for name in names)
    return next((value for value in values if value is not None), None)


def _found(graph: Graph, sampler: str, part: str, names: tuple[str, ...]) -> Iterator[Any]:
    """The values that inputs of these names have, in the nodes behind an input of a sampler, or of its guider; nearest first."""
    for start in (_behind(graph, sampler, part), _behind(graph, _behind(graph, sampler, "guider"), part)):
        for node in _walk(graph, start):
            values = (_scalar(graph, _inputs(graph, node).get(name), name) for name in names)
            yield from (value for value in values if value not in (None, ""))


def _scalar(graph: Graph, value: Any, name: str) -> Any:
    """An input's value, or what the node that it is linked to holds: under the same name, or as all that it holds."""
    if linked := _linked(value):
        inputs = _inputs(graph, linked)
        held = [one for one in islice(inputs.values(), MAX_LINKS) if isinstance(one, SCALARS)]
        value = inputs.get(name, held[0] if len(held) == 1 else None)
    return value if isinstance(value, SCALARS) else None


def _texts(graph: Graph, sampler: str, side: str) -> list[str] | None:
    """The texts, each once, that a sampler's "positive" or "negative" comes from; None when nodes put one together."""
    guider = _behind(graph, sampler, "guider")
    sources = [(sampler, side), (guider, side), *([(guider, "conditioning")] if side == "positive" else [])]
    start = next(filter(None, (_behind(graph, node, part) for node, part in sources)), None)
    texts: list[str] = []
    closed = {*_WORDLESS, "negative" if side == "positive" else "positive"}

    def ends(node: str) -> bool:
        inputs = _inputs(graph, node)
        own = [inputs[key] for key in (*_ENCODED, side) if isinstance(inputs.get(key), str)]
        texts.extend(own)
        return bool(own) or _class(graph, node) == "ConditioningZeroOut"  # the latter: no words, whatever stands before it

    for node in _walk(graph, start, closed, ends):
        if re.search("concat|join|replace", _class(graph, node), re.IGNORECASE) and not _class(graph, node).startswith("Conditioning"):
            return None
    return list(dict.fromkeys(filter(str.strip, texts)))


def _walk(
    graph: Graph, start: str | None, closed: Collection[str] = (), ends: Callable[[str], bool] = lambda node: False
) -> Iterator[str]:
    """A node and all that it is linked to, nearest first; not by inputs that are `closed`, and no further from where it `ends`."""
    waiting, seen = deque([start] if start else []), set()
    while waiting and len(seen) < MAX_WALKED:
        node = waiting.popleft()
        if node in seen:
            continue
        seen.add(node)
        yield node
        if not ends(node):
            links = (_linked(value) for key, value in islice(_inputs(graph, node).items(), MAX_INPUTS) if key not in closed)
            waiting.extend(islice(filter(None, links), MAX_LINKS))


def _behind(graph: Graph, name: str | None, part: str) -> str | None:
    """The node that an input is linked to."""
    return _linked(_inputs(graph, name).get(part))


def _linked(value: Any) -> str | None:
    """The node that a link leads to; None for any other value."""
    is_link = isinstance(value, list) and len(value) == 2 and isinstance(value[0], str | int) and isinstance(value[1], int)
    return str(value[0]) if is_link else None


def _inputs(graph: Graph, name: str | None) -> Mapping[str, Any]:
    node = graph.get(name) if name else None
    inputs = node.get("inputs") if isinstance(node, dict) else None
    return inputs if isinstance(inputs, dict) else {}


def _class(graph: Graph, name: str | None) -> str:
    node = graph.get(name) if name else None
    kind = node.get("class_type") if isinstance(node, dict) else None
    return kind[:200] if isinstance(kind, str) else ""
