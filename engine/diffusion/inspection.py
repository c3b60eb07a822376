"""Inspection: whether what a model's folder holds is a model, told before its weights are read and before it draws.

The loaders do not tell: they build whatever a config says, however large, take integers for weights, and fill what a
file lacks with random numbers.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open


class Unfit(ValueError):
    """What is wrong with a model, in words that go on from "it cannot be read: "."""


@dataclass(frozen=True)
class Network:
    """What a part of a model's folder must be."""

    stem: str
    """What transformers ("model") or diffusers ("diffusion_pytorch_model") calls the files of its weights."""
    kinds: Collection[str] = ()
    """The classes that can be drawn with, where not every one can."""


LARGEST = 1_000_000
"""Of any number in a network's config: the largest that models have is the number of a tokenizer's words, about 50,000."""

MOST_LAYERS = 200
"""In one block or encoder: published ones have at most 32."""

MOST_STEPS = 10_000
"""Of training; published models have 1,000. DPM2 builds a table of their number squared."""

PREDICTIONS = ("epsilon", "v_prediction")
"""What a network may predict: the noise, or v."""


def inspect_folder(folder: Path, networks: Mapping[str, Network], wanted: str | None = None) -> str | None:
    """The variant of the weights to read (None: the plain files; `wanted` before others), from configs and files' headers alone.

    Raises Unfit, or whatever reading damaged files raises.
    """
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    variant = find_variant(folder, networks, wanted)
    scheduler = json.loads((folder / "scheduler" / "scheduler_config.json").read_text(encoding="utf-8"))
    check_numbers("scheduler", {key: value for key, value in scheduler.items() if key != "lambda_min_clipped"})  # -Infinity
    if not 1 <= scheduler.get("num_train_timesteps", 1) <= MOST_STEPS:
        raise Unfit(f"its scheduler's config says num_train_timesteps {scheduler['num_train_timesteps']:,}")
    for part, must_be in networks.items():
        library, name = index[part]
        if must_be.kinds and name not in must_be.kinds:
            raise Unfit(f"its {part} is a {str(name)[:60]}; only {' or '.join(must_be.kinds)} can be drawn with")
        check_numbers(part, json.loads((folder / part / "config.json").read_text(encoding="utf-8")))
        try:
            network = _without_weights(library, name, folder / part)
        except Exception as error:
            raise Unfit(f"its {part}'s config describes no network ({' '.join(str(error).split())[:150]})") from error
        _compare(part, network, dict(_headers(folder / part, must_be.stem, variant)))
    return variant


def find_variant(folder: Path, networks: Mapping[str, Network], wanted: str | None = None) -> str | None:
    """Of the variants that every network has, or has plain files instead of: `wanted`, else none, else fp16, else any.

    Raises Unfit when there is none.
    """
    found = {part: _variants(folder / part, network.stem) for part, network in networks.items()}
    every = sorted({name for names in found.values() for name in names if name})
    for variant in (wanted, None, "fp16", *every):
        if all({variant, None} & names for names in found.values()) and (variant is None or variant in every):
            return variant
    missing = [part for part, names in found.items() if not names]
    if not missing:
        there = ", ".join(f"{part}: {min(filter(None, names))}" for part, names in found.items() if None not in names)
        raise Unfit(f"its networks have no variant of their weights in common ({there})")
    if any(file.suffix in {".bin", ".ckpt"} for part in missing for file in (folder / part).glob("*")):
        raise Unfit(f"its {missing[0]} has no weights in safetensors, and pickled ones (.bin, .ckpt), which may run code, are not read")
    raise Unfit(f"its {missing[0]} has no weights (.safetensors)")


def check_numbers(part: str, config: Any) -> None:
    """Raises Unfit where a network's config says a number that no network has."""
    for key, value in _numbers(config):
        if not math.isfinite(value) or abs(value) > LARGEST or ("layers" in key and not 1 <= value <= MOST_LAYERS):
            raise Unfit(f"its {part}'s config says {key[:60]} {value:,}")


def check_scheduler(scheduler: Any) -> None:
    """Raises Unfit for a model's own scheduler when no row of ours can take its place."""
    config, alphas = scheduler.config, getattr(scheduler, "alphas_cumprod", None)
    prediction = config.get("prediction_type")
    if prediction not in PREDICTIONS:
        raise Unfit(f"its network predicts “{str(prediction)[:40]}”; only those that predict {' or '.join(PREDICTIONS)} are drawn with")
    if alphas is None or config.get("timestep_type", "discrete") != "discrete":
        raise Unfit("its network was not trained on a row of noise levels (betas), as Stable Diffusion's was")
    if len(alphas) != config.num_train_timesteps or not bool(((alphas >= 0) & (alphas <= 1)).all()):
        raise Unfit(f"its scheduler's config does not say {config.num_train_timesteps:,} noise levels from 0 to 1")


def check_weights(networks: Mapping[str, torch.nn.Module]) -> None:
    """Raises Unfit where a network that was read lacks weights, or has some that are no numbers."""
    for part, network in networks.items():
        weights = dict(network.named_parameters())
        if missing := [name for name, weight in weights.items() if weight.is_meta]:
            raise Unfit(f"its {part}'s files lack {len(missing):,} of its weights, such as {missing[0]}")
        for name, weight in weights.items():
            if weight.numel() and not bool(torch.isfinite(torch.stack(weight.detach().aminmax())).all()):
                raise Unfit(f"its {part} holds weights that are no numbers (NaN or infinite), such as {name}")


def _without_weights(library: str, name: str, folder: Path) -> torch.nn.Module:
    """The network that a config describes, of shapes alone: it takes no memory."""
    import diffusers
    import transformers

    kind = getattr({"diffusers": diffusers, "transformers": transformers}[library], name)
    with torch.device("meta"):
        if library == "transformers":
            return kind(kind.config_class.from_pretrained(folder, local_files_only=True))
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        return kind(**{key: value for key, value in config.items() if key in signature(kind.__init__).parameters})


def _compare(part: str, network: torch.nn.Module, held: Mapping[str, tuple[str, list[int]]]) -> None:
    for name, (kind, _) in held.items():
        if name.endswith((".weight", ".bias")) and not _is_floating(kind):
            raise Unfit(f"its {part}'s weights are {kind} numbers; only floating-point ones can be read")
    # transformers' releases differ in whether the names of a text encoder begin so, and each of them reads both.
    needed = {name.removeprefix("text_model."): list(weight.shape) for name, weight in network.named_parameters()}
    held = {name.removeprefix("text_model."): one for name, one in held.items()}
    for name, shape in needed.items():
        if name in held and held[name][1] != shape:
            raise Unfit(f"its {part}'s {name} is {_times(held[name][1])} numbers, and {_times(shape)} by its config")
    there, wanted = sum(math.prod(shape) for kind, shape in held.values() if _is_floating(kind)), sum(map(math.prod, needed.values()))
    if there < wanted:
        raise Unfit(f"its {part}'s files hold {there:,} of the {wanted:,} weights that its config describes")
    missing = [name for name in needed if name not in held]
    if missing and part == "text_encoder":  # of diffusers' networks the names have changed over the years, and it knows the old ones
        raise Unfit(f"its {part}'s files lack {len(missing):,} of its weights, such as {missing[0]}")


def _is_floating(kind: str) -> bool:
    return kind.startswith(("F", "BF"))


def _times(shape: list[int]) -> str:
    return " x ".join(f"{side:,}" for side in shape)


def _headers(folder: Path, stem: str, variant: str | None) -> Iterator[tuple[str, tuple[str, list[int]]]]:
    """(name, (kind of number, shape)) of each tensor in a network's files."""
    for file in _files(folder, stem, variant if variant in _variants(folder, stem) else None):
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118 - it is no mapping
                tensor = tensors.get_slice(name)
                yield name, (tensor.get_dtype(), tensor.get_shape())


def _files(folder: Path, stem: str, variant: str | None) -> list[Path]:
    suffix = f".{variant}" if variant else ""
    single = folder / f"{stem}{suffix}.safetensors"
    if single.is_file():
        return [single]
    index = json.loads((folder / f"{stem}.safetensors.index{suffix}.json").read_text(encoding="utf-8"))
    shards = {str(name) for name in index["weight_map"].values()}
    if odd := [name for name in shards if not (folder / name).is_file() or Path(name).name != name]:
        raise Unfit(f"its {folder.name} lacks {Path(odd[0]).name[:80]}, which its list of files names")
    return [folder / name for name in sorted(shards)]


def _variants(folder: Path, stem: str) -> set[str | None]:
    """The variants in which a network's weights are there, None for plain ones."""
    whole = re.compile(rf"{stem}(?:\.([\w-]+))?\.safetensors|{stem}\.safetensors\.index(?:\.([\w-]+))?\.json")
    found = (whole.fullmatch(file.name) for file in folder.glob(f"{stem}*"))
    return {match[1] or match[2] for match in found if match and not re.search(r"-\d+-of-\d+$", match[1] or "")}


def _numbers(config: Any, key: str = "") -> Iterator[tuple[str, float]]:
    if isinstance(config, dict):
        for name, value in config.items():
            yield from _numbers(value, str(name))
    elif isinstance(config, list):
        for value in config:
            yield from _numbers(value, key)
    elif isinstance(config, (int, float)) and not isinstance(config, bool):
        yield key, config
