"""What an A1111 text asks for and is not done here, in a user's words: nothing that changes a picture is left out in silence."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

MAX_NAMED, MAX_SHOWN = 6, 40
"""Names of one kind that a sentence lists, and characters of a value that it quotes."""

MAX_LISTED = 60
"""Further keys that are listed by name; extensions write some twenty each."""

_TOOLS = (("darkroom", "Darkroom"), ("f[0-9]|forge|neo", "Forge"), ("comfyui", "ComfyUI"), ("fooocus", "Fooocus"))
"""How `Version` begins -> the tool that wrote it. A1111's own begins with "v" and a number."""

_CPU_NOISE = re.compile("darkroom|comfyui|fooocus|neo", re.IGNORECASE)
"""Those of them that draw the noise on the CPU: ComfyUI (prepare_noise in its comfy/sample.py), Fooocus, which builds on it, and
Forge Neo (its default of randn_source). For A1111 and all others a missing "RNG" means the GPU (its infotext_utils.py)."""

_NO_EFFECT = {
    "version", "app", "backend", "user", "created date", "civitai metadata", "batch", "batch size", "batch pos", "index", "parser",
    "pipeline", "refiner hash", "raw prompt", "raw negative prompt", "lora weights",
}  # fmt: skip
"""Keys that say nothing of how the picture looks, or what another key says."""

_LORAS = {"lora", "lyco", "locon", "lycoris", "dora"}
_EMBEDDINGS = {"embed", "embedding", "textualinversion"}
_TAG = re.compile(r"<(lora|lyco|hypernet):([^:<>\n]{1,200})(?::[^<>\n]{0,200})?>", re.IGNORECASE)

# A1111's syntax of prompts (its modules/prompt_parser.py); a backslash takes a bracket its meaning. All repeats are bounded or
# possessive: a stranger's prompt takes linear time.
_WEIGHT = re.compile(r"(?<!\\)\([^()\[\]:\n]{1,40}:\s*+[\d.]++\s*+\)")
_BRACKET = re.compile(r"(?<!\\)(?:\(|\[[^\[\]:|\n]{1,200}\])")
_SCHEDULE = re.compile(r"(?<!\\)\[[^\[\]|\n]{0,60}:\s{0,9}(?:\d{1,9}(?:\.\d{0,9})?|\.\d{1,9})\s{0,9}\]")
_ALTERNATION = re.compile(r"(?<!\\)\[[^\[\]|\n]{0,60}\|[^\[\]\n]{0,60}\]")


class Pairs:
    """The "Key: value" pairs of a text that nobody has taken yet. Keys are compared without case; of equal ones the first counts."""

    def __init__(self, pairs: Iterable[tuple[str, str]]):
        self._pairs: dict[str, tuple[str, str]] = {}
        for key, value in pairs:
            self._pairs.setdefault(key.casefold(), (key, value))

    def __contains__(self, key: str) -> bool:
        return key in self._pairs

    def __iter__(self) -> Iterator[tuple[str, str]]:
        """What is left, keys as they were written."""
        return iter(self._pairs.values())

    def get(self, key: str) -> str:
        return self._pairs.get(key, ("", ""))[1]

    def take(self, *keys: str) -> str:
        """The value of the first of these keys that has one; all of them are gone then."""
        return next(filter(None, [self._pairs.pop(key, ("", ""))[1] for key in keys]), "")

    def take_all(self, *beginnings: str) -> dict[str, str]:
        """Key -> value of those whose keys begin so; they are gone then."""
        return {key: self._pairs.pop(key)[1] for key in list(self._pairs) if key.startswith(beginnings)}


def tool_of(pairs: Pairs) -> str:
    """What wrote a text, by its own words; "A1111" when it says nothing."""
    if app := pairs.get("app"):
        return app[:MAX_SHOWN]
    known = (tool for pattern, tool in _TOOLS if re.match(pattern, pairs.get("version"), re.IGNORECASE))
    return next(known, "Civitai" if "civitai resources" in pairs else "A1111")


def model_of(pairs: Pairs) -> str:
    """The model's name, as the text or its list of Civitai's resources has it; "" without."""
    listed = (name for kind, name in _civitai(pairs.get("civitai resources")) if kind in {"checkpoint", "model"})
    return pairs.take("model") or next(listed, "")


def stopped_note(where: str) -> str:
    return f"That picture was stopped at {where}: made to its end, it looks different."


def untaken(pairs: Pairs, prompt: str, negative: str, *, clip_skip: float = 1) -> Iterator[str]:
    """Sentences about all that is left of a text once its settings are taken. `pairs` is empty in the end."""
    ours, words = tool_of(pairs) == "Darkroom", f"{prompt}\n{negative}"
    if stopped := pairs.take("stopped at"):
        yield stopped_note(_short(stopped))
    noise = _noise(pairs)
    rules = (_hires, _source, _variation, _refiner, _resources, _single, _plot)
    things = [thing for rule in rules for thing in rule(pairs, words)]
    if things:
        yield f"Not taken over: {'; '.join(things)}."
    if not ours:  # brackets and capitals are plain text in our own prompts
        yield from _plain_text(words)
        if clip_skip > 1:
            yield "CLIP skip acts on the prompt alone here; in A1111 also on the negative prompt."
    yield from noise
    if rest := _rest(pairs):
        yield f"Further keys, not taken over: {'; '.join(rest)}."


def _noise(pairs: Pairs) -> list[str]:
    source, drawn_on_cpu = pairs.take("rng"), _CPU_NOISE.match(pairs.get("version"))
    if source.casefold() == "cpu" or (not source and drawn_on_cpu):
        return []
    if source:
        return [f"Its noise came from the GPU (RNG: {_short(source)}), here it comes from the CPU: the same seed draws another picture."]
    return ["Its noise most likely came from the GPU (A1111's default), here it comes from the CPU: the same seed draws another picture."]


def _hires(pairs: Pairs, _: str) -> Iterator[str]:
    found = {key.removeprefix("hires "): value for key, value in pairs.take_all("hires ").items()}
    first = pairs.take("first pass size")  # A1111 before 2023
    if not found and not first:
        return
    scale = found.pop("upscale", "") or found.pop("scale", "")
    resize, steps, upscaler = (found.pop(key, "") for key in ("resize", "steps", "upscaler"))
    denoising = pairs.take("denoising strength")
    parts = [
        scale and f"{_short(scale)}x", _given(resize) and f"to {_short(resize)}", first and f"first pass {_short(first)}",
        _given(steps) and f"{_short(steps)} steps", _short(upscaler), denoising and f"denoising {_short(denoising)}",
        *(f"{key} {_short(value)}" for key, value in found.items()),
    ]  # fmt: skip
    yield f"hires fix{_in_brackets(parts)}"


def _source(pairs: Pairs, _: str) -> Iterator[str]:
    """img2img and inpainting; without hires fix, a denoising strength is theirs. Of SD.Next's operations, those that nothing else tells."""
    done = {operation.strip().casefold() for operation in pairs.take("operations").split(";")}
    strength = pairs.take("denoising strength")
    masks, begun_from = pairs.take_all("mask", "inpaint", "conditional mask"), pairs.take_all("init image")
    if _given(strength) or masks or begun_from or done & {"img2img", "inpaint"}:
        kind = "inpainting" if masks or "inpaint" in done else "img2img"
        yield f"the picture it was made from{_in_brackets([kind, strength and f'denoising {_short(strength)}'])}"
    yield from map(_short, sorted(done - {"", "none", "txt2img", "img2img", "inpaint", "hires", "lora", "refine"}))


def _variation(pairs: Pairs, _: str) -> Iterator[str]:
    seed, strength = pairs.take("variation seed"), pairs.take("variation seed strength", "variation strength")
    resize = pairs.take("seed resize from")
    if seed or _given(strength):
        yield f"variation seed {_short(seed)}{_in_brackets([strength and f'strength {_short(strength)}'])}"
    if _given(resize):
        yield f"seed resized from {_short(resize)}"


def _refiner(pairs: Pairs, _: str) -> Iterator[str]:
    name, start = pairs.take("refiner"), pairs.take("refiner switch at", "refiner start")
    if name or start:
        yield f"refiner “{_short(name)}”{_in_brackets([start and f'from {_short(start)}'])}"


def _resources(pairs: Pairs, words: str) -> Iterator[str]:
    """LoRAs, embeddings and the like, wherever a text names them; each once."""
    named: dict[str, dict[str, str]] = {}
    for kind, name in [*_tags(words), *_hashes(pairs), *_civitai(pairs.take("civitai resources"))]:
        kind = "LoRA" if kind in _LORAS else "embedding" if kind in _EMBEDDINGS else "VAE" if kind == "vae" else kind
        if kind not in {"model", "checkpoint"} and name:
            named.setdefault(kind, {}).setdefault(name.casefold(), name)
    for kind, names in list(named.items())[:MAX_LISTED]:
        shown = [f"“{_short(name)}”" for name in list(names.values())[:MAX_NAMED]]
        more = f" and {len(names) - MAX_NAMED} more" if len(names) > MAX_NAMED else ""
        yield f"{_short(kind)}{'s' if len(names) > 1 else ''} {', '.join(shown)}{more}"


def _tags(words: str) -> Iterator[tuple[str, str]]:
    for kind, name in _TAG.findall(words):
        yield ("hypernetwork" if kind.casefold() == "hypernet" else "lora"), name


def _hashes(pairs: Pairs) -> Iterator[tuple[str, str]]:
    """(kind, name) in A1111's lists "name: hash, ...", in SD.Next's and Forge's of names, and in Civitai's object of hashes."""
    for key, kind in (("lora hashes", "lora"), ("ti hashes", "embed"), ("lora networks", "lora"), ("embeddings", "embed"), ("ti", "embed")):
        for part in pairs.take(key).split(","):
            name, colon, rest = part.strip().rpartition(":")
            yield kind, name if colon else rest
    yield "hypernetwork", pairs.take("hypernet")
    for key, name in pairs.take_all("addnet model").items():
        yield "lora", name if key != "addnet model" else ""
    for key, value in _json(pairs.take("hashes"), dict).items():
        kind, _, name = key.partition(":")
        unnamed = str(value) if kind == "vae" and "vae" not in pairs else ""
        yield kind.casefold(), name or unnamed


def _civitai(text: str) -> Iterator[tuple[str, str]]:
    """(kind, name) of Civitai's list of resources; its number where one has no name. An AIR is urn:air:BASE:KIND:civitai:MODEL@VERSION."""
    for resource in _json(text, list):
        if isinstance(resource, dict):
            told = {key: str(value) for key, value in resource.items() if value}
            air = told.get("air", "")
            kind = told.get("type") or (air.split(":") + [""] * 4)[3] or "resource"
            names = [told[key] for key in ("modelName", "modelVersionName", "versionName") if key in told]
            yield kind.casefold(), " ".join(names) or f"version {told.get('modelVersionId') or air.rpartition('@')[2]}"


def _single(pairs: Pairs, _: str) -> Iterator[str]:
    vae, vae_hash, faces, tiling, styles = (pairs.take(key) for key in ("vae", "vae hash", "face restoration", "tiling", "styles"))
    if vae.casefold() not in {"", "none", "automatic"}:
        yield f"VAE “{_short(vae)}”"
    elif vae_hash:
        yield f"VAE of the hash {_short(vae_hash)}"
    if faces:
        yield f"face restoration{_in_brackets([_short(faces)])}"
    if tiling.casefold() not in {"", "false"}:
        yield "tiling"
    if styles:
        yield f"styles “{_short(styles)}”"


def _plot(pairs: Pairs, _: str) -> Iterator[str]:
    """A1111's script "X/Y/Z plot", or another."""
    script = pairs.take("script")
    if not script:
        return
    axes = pairs.take_all(*(f"{at} {part}" for at in "xyz" for part in ("type", "values")), *(f"fixed {at} values" for at in "xyz"))
    lines = [f"{value}: {axes.get(f'{key[0]} values', '')}" for key, value in axes.items() if key.endswith("type")]
    yield f"{_short(script)}{_in_brackets(map(_short, lines))}"


def _plain_text(words: str) -> Iterator[str]:
    """A sentence about A1111's syntax in a prompt, which is read as words here."""
    schedule, alternation, tag = (pattern.search(words) for pattern in (_SCHEDULE, _ALTERNATION, _TAG))
    weight, bracket = _WEIGHT.search(words), _BRACKET.search(words)
    found = [
        f"weights such as {weight[0]}" if weight else bracket and "weights by brackets",
        "AND" if re.search(r"\bAND\b", words) else "", "BREAK" if re.search(r"\bBREAK\b", words) else "",
        *(match and _short(match[0]) for match in (schedule, alternation, tag)),
    ]  # fmt: skip
    found = [part for part in found if part]
    if found:
        yield f"Read as plain text here: {', '.join(found)}."


def _rest(pairs: Pairs) -> list[str]:
    """The keys that are left, with their values; those of one extension, whose keys begin with its name, together."""
    groups: dict[str, list[tuple[str, str]]] = {}
    left = [(key, value) for key, value in pairs if key.casefold() not in _NO_EFFECT]
    for key, value in left[:MAX_LISTED]:
        groups.setdefault(key.partition(" ")[0], []).append((key, value))
    told = []
    for name, members in groups.items():
        if len(members) < 3:
            told += [f"{_short(key)} {_short(value)}".strip() for key, value in members]
        else:
            told.append(f"{_short(name)}{_in_brackets([f'{_short(key[len(name) :].strip())} {_short(value)}' for key, value in members])}")
    return [*told, f"{len(left) - MAX_LISTED} more"] if len(left) > MAX_LISTED else told


def _json(text: str, kind: type) -> Any:
    """A JSON list or object; an empty one when the text is none."""
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return kind()
    return content if isinstance(content, kind) else kind()


def _given(value: str) -> bool:
    """Whether there is a value, and it is more than the 0, 0x0 or -1x-1 that stand for none."""
    numbers = re.findall(r"-?[0-9]*\.?[0-9]+", value[:MAX_SHOWN])
    return any(float(number) > 0 for number in numbers) if numbers else bool(value)


def _in_brackets(parts: Iterable[str | bool | None]) -> str:
    told = ", ".join(part for part in (given.strip() for given in parts if isinstance(given, str)) if part)
    return f" ({told})" if told else ""


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."
