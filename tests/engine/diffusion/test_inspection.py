"""Inspection: a folder that holds no whole model is refused in a sentence, and before its weights are read where its files tell."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.diffusion.inspection import Unfit, find_variant, inspect_folder
from engine.diffusion.loading import load
from engine.diffusion.stable_diffusion import NETWORKS, check_parts
from engine.errors import ModelUnavailable
from engine.recipes.catalog import ModelSpec
from tests.tiny import make_pipeline

WEIGHTS = {
    "unet": "unet/diffusion_pytorch_model.safetensors", "vae": "vae/diffusion_pytorch_model.safetensors",
    "text_encoder": "text_encoder/model.safetensors",
}  # fmt: skip
each_network = pytest.mark.parametrize("part", WEIGHTS)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A model's folder as diffusers saves it. Not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    make_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(saved, tmp_path / "model")


def read(folder: Path):
    return load(ModelSpec(name="it", title="The model", source=str(folder)), torch.device("cpu"), torch.float32, lambda *told: None)


def refusal(folder: Path) -> str:
    """What a visitor reads."""
    with pytest.raises(ModelUnavailable) as caught:
        read(folder)
    sentence = str(caught.value)
    assert sentence.startswith("The model cannot be read: ")
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert str(folder) not in sentence
    assert len(sentence) < 400
    return sentence


def unread_refusal(folder: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The same, where not one weight may be read for it."""
    monkeypatch.setattr(diffusers.StableDiffusionPipeline, "from_pretrained", lambda *_, **__: pytest.fail("it was read"))
    return refusal(folder)


def configure(folder: Path, part: str, **settings: Any) -> None:
    file = folder / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **settings}), encoding="utf-8")


def rewrite(folder: Path, part: str, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    weights = {name: tensor.clone() for name, tensor in load_file(folder / WEIGHTS[part]).items()}
    change(weights)
    save_file(weights, folder / WEIGHTS[part], metadata={"format": "pt"})


def first(weights: dict[str, torch.Tensor]) -> str:
    return min(weights)


@pytest.mark.parametrize(
    ("part", "settings", "told"),
    [
        ("unet", {"sample_size": 10**12}, "its unet's config says sample_size 1,000,000,000,000"),
        ("unet", {"sample_size": [64, 10**12]}, "sample_size 1,000,000,000,000"),
        ("vae", {"sample_size": 10**12}, "its vae's config says sample_size"),
        ("unet", {"block_out_channels": [16, 10**12]}, "block_out_channels 1,000,000,000,000"),
        ("unet", {"block_out_channels": [800_000, 800_000]}, " numbers, and 800,000"),
        ("unet", {"layers_per_block": 10**9}, "layers_per_block 1,000,000,000"),
        ("unet", {"transformer_layers_per_block": 1000}, "transformer_layers_per_block 1,000"),
        ("vae", {"layers_per_block": 0}, "layers_per_block 0"),
        ("vae", {"latent_channels": 10**12}, "latent_channels"),
        ("vae", {"scaling_factor": math.nan}, "scaling_factor nan"),
        ("vae", {"scaling_factor": math.inf}, "scaling_factor inf"),
        ("text_encoder", {"max_position_embeddings": 10**10}, "max_position_embeddings 10,000,000,000"),
        ("text_encoder", {"vocab_size": 900_000}, "token_embedding.weight is 2,690 x 32 numbers, and 900,000 x 32"),
        ("text_encoder", {"num_hidden_layers": 10**9}, "num_hidden_layers"),
        ("text_encoder", {"num_hidden_layers": -1}, "num_hidden_layers -1"),
        ("scheduler", {"num_train_timesteps": 10**10}, "its scheduler's config says num_train_timesteps"),
        ("scheduler", {"num_train_timesteps": 100_000}, "num_train_timesteps 100,000"),
        ("scheduler", {"steps_offset": 10**12}, "steps_offset"),
    ],
)
def test_absurd_numbers_are_refused_and_nothing_is_built_of_them(folder, monkeypatch, part, settings, told):
    configure(folder, part, **settings)
    assert told in unread_refusal(folder, monkeypatch)


@pytest.mark.parametrize(
    ("part", "settings"),
    [
        ("unet", {"block_out_channels": 16}), ("unet", {"block_out_channels": [-16, 32]}), ("unet", {"in_channels": "4"}),
        ("unet", {"cross_attention_dim": "x"}), ("unet", {"attention_head_dim": 0}), ("unet", {"norm_num_groups": 0}),
        ("unet", {"down_block_types": ["NoBlock", "X"]}), ("unet", {"act_fn": "nope"}), ("vae", {"block_out_channels": []}),
        ("vae", {"norm_num_groups": 0}), ("vae", {"sample_size": "x"}), ("text_encoder", {"hidden_size": 0}),
        ("text_encoder", {"hidden_size": "x"}), ("text_encoder", {"num_attention_heads": 0}), ("text_encoder", {"hidden_act": "nope"}),
    ],
)  # fmt: skip
def test_a_config_that_describes_no_network_is_refused(folder, monkeypatch, part, settings):
    configure(folder, part, **settings)
    assert f"its {part}'s config describes no network (" in unread_refusal(folder, monkeypatch)


@pytest.mark.parametrize(
    "settings",
    [{"num_train_timesteps": "x"}, {"num_train_timesteps": 0}, {"beta_start": "x"}, {"beta_schedule": "nope"}, {"trained_betas": []}],
)
def test_a_scheduler_config_that_describes_nothing_is_refused(folder, settings):
    configure(folder, "scheduler", **settings)
    refusal(folder)


@each_network
@pytest.mark.parametrize("kind", [torch.int8, torch.uint8, torch.int32])
def test_weights_in_whole_numbers_are_refused(folder, monkeypatch, part, kind):
    rewrite(folder, part, lambda weights: weights.update({name: tensor.to(kind) for name, tensor in weights.items()}))
    assert f"its {part}'s weights are {'U' if kind is torch.uint8 else 'I'}" in unread_refusal(folder, monkeypatch)


@each_network
def test_one_weight_in_whole_numbers_is_enough(folder, monkeypatch, part):
    rewrite(folder, part, lambda weights: weights.update({first(weights): weights[first(weights)].to(torch.int8)}))
    assert f"its {part}'s weights are I8 numbers; only floating-point ones can be read" in unread_refusal(folder, monkeypatch)


@each_network
@pytest.mark.parametrize("change", [dict.clear, lambda weights: weights.pop(first(weights))])
def test_weights_that_a_file_lacks_are_not_drawn_at_random(folder, monkeypatch, part, change):
    rewrite(folder, part, change)
    assert f"its {part}'s files hold " in unread_refusal(folder, monkeypatch)


@each_network
def test_weights_under_other_names_are_not_the_ones_asked_for(folder, part):
    rewrite(folder, part, lambda weights: weights.update({"other.name": weights.pop(first(weights))}))
    assert f"its {part}'s files lack 1 of its weights, such as " in refusal(folder)


@each_network
def test_a_weight_of_another_shape_is_named(folder, monkeypatch, part):
    rewrite(folder, part, lambda weights: weights.update({first(weights): torch.zeros(2, 3, 5)}))
    assert "is 2 x 3 x 5 numbers, and " in unread_refusal(folder, monkeypatch)


@each_network
@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_weights_that_are_no_numbers_are_refused(folder, part, number):
    rewrite(folder, part, lambda weights: weights[first(weights)].view(-1)[:1].fill_(number))
    assert f"its {part} holds weights that are no numbers (NaN or infinite), such as " in refusal(folder)


@pytest.mark.parametrize(
    ("part", "extra"),
    [
        ("text_encoder", {"embeddings.position_ids": torch.arange(32)[None]}), ("text_encoder", {"logit_scale": torch.ones(1)}),
        ("unet", {"model_ema.decay": torch.ones(1), "model_ema.num_updates": torch.tensor(3)}),
    ],
)  # fmt: skip
def test_what_a_file_holds_besides_is_no_matter(folder, part, extra):
    rewrite(folder, part, lambda weights: weights.update(extra))
    assert read(folder).family


def test_a_text_encoder_of_either_naming_is_read(folder, saved):
    """transformers before 5 saved `text_model.encoder...`, as Stable Diffusion's own file has it."""
    rewrite(folder, "text_encoder", lambda weights: weights.update({f"text_model.{name}": weights.pop(name) for name in list(weights)}))
    assert list(load_file(folder / WEIGHTS["text_encoder"])) != list(load_file(saved / WEIGHTS["text_encoder"]))
    ours, theirs = (read(one).family.text_encoder.state_dict() for one in (folder, saved))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def test_a_vae_with_attention_under_its_old_names_is_read(folder, saved):
    """As the first Stable Diffusions have it; diffusers knows them."""
    old = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}

    def rename(weights: dict[str, torch.Tensor]) -> None:
        for name in [name for name in weights if ".attentions." in name]:
            for new, former in old.items():
                if f".{new}." in name:
                    weights[name.replace(f".{new}.", f".{former}.")] = weights.pop(name)

    rewrite(folder, "vae", rename)
    assert any(".proj_attn." in name for name in load_file(folder / WEIGHTS["vae"]))
    ours, theirs = (read(one).family.vae.state_dict() for one in (folder, saved))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


# Several files for one network.


def shard(folder: Path) -> dict[str, str]:
    """Splits the network's file in two, as large ones are saved; returns the list of what is where."""
    weights = load_file(folder / WEIGHTS["unet"])
    (folder / WEIGHTS["unet"]).unlink()
    names = sorted(weights)
    placed = {}
    for number, part in enumerate((names[: len(names) // 2], names[len(names) // 2 :]), 1):
        file = f"diffusion_pytorch_model-0000{number}-of-00002.safetensors"
        save_file({name: weights[name] for name in part}, folder / "unet" / file, metadata={"format": "pt"})
        placed.update(dict.fromkeys(part, file))
    return placed


def write_index(folder: Path, placed: dict[str, str]) -> None:
    index = {"metadata": {"total_size": 1}, "weight_map": placed}
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def test_a_network_in_several_files_is_read(folder, saved):
    write_index(folder, shard(folder))
    ours, theirs = (read(one).family.unet.state_dict() for one in (folder, saved))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("named", ["no.safetensors", "../vae/diffusion_pytorch_model.safetensors", "/etc/passwd"])
def test_a_list_of_files_that_names_another_is_refused(folder, monkeypatch, named):
    placed = shard(folder)
    write_index(folder, {**placed, first(placed): named})
    told = unread_refusal(folder, monkeypatch)
    assert f"its unet lacks {Path(named).name}, which its list of files names" in told
    assert "/" not in told


def test_a_list_of_files_without_one_of_them_is_refused(folder, monkeypatch):
    placed = shard(folder)
    write_index(folder, {name: file for name, file in placed.items() if "-00001-" in file})
    assert "its unet's files hold " in unread_refusal(folder, monkeypatch)


def test_a_file_that_went_is_named(folder, monkeypatch):
    write_index(folder, shard(folder))
    (folder / "unet" / "diffusion_pytorch_model-00002-of-00002.safetensors").unlink()
    assert "its unet lacks diffusion_pytorch_model-00002-of-00002.safetensors" in unread_refusal(folder, monkeypatch)


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": []}', "{"])
def test_a_list_of_files_that_is_none_is_refused(folder, content):
    shard(folder)
    (folder / "unet" / "diffusion_pytorch_model.safetensors.index.json").write_text(content, encoding="utf-8")
    refusal(folder)


# Variants.


def rename(folder: Path, variants: dict[str, str], *, copy: bool = False) -> None:
    for part, variant in variants.items():
        file = folder / WEIGHTS[part]
        (shutil.copy if copy else shutil.move)(file, file.with_name(file.name.replace(".safetensors", f".{variant}.safetensors")))


@pytest.mark.parametrize(
    "variants",
    [dict.fromkeys(WEIGHTS, "fp16"), {"unet": "fp16"}, {"text_encoder": "fp16"}, {"unet": "bf16", "vae": "bf16"}, {"unet": "non_ema"}],
    ids=str,
)
def test_the_variant_that_is_there_is_read(folder, saved, variants):
    rename(folder, variants)
    ours, theirs = (read(one).family.unet.state_dict() for one in (folder, saved))
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("variant", ["fp16", "bf16"])
def test_a_variant_in_several_files_is_found(folder, variant):
    placed = shard(folder)
    renamed = {name: file.replace("model-", f"model.{variant}-") for name, file in placed.items()}
    for file in set(placed.values()):
        (folder / "unet" / file).rename(folder / "unet" / file.replace("model-", f"model.{variant}-"))
    index = json.dumps({"metadata": {}, "weight_map": renamed})
    (folder / "unet" / f"diffusion_pytorch_model.safetensors.index.{variant}.json").write_text(index, encoding="utf-8")
    assert inspect_folder(folder, NETWORKS) == variant
    assert read(folder).family


def test_plain_weights_come_before_variants_unless_one_is_wanted(folder):
    rename(folder, dict.fromkeys(WEIGHTS, "fp16"), copy=True)
    rename(folder, dict.fromkeys(WEIGHTS, "bf16"), copy=True)
    assert find_variant(folder, NETWORKS) is None
    assert find_variant(folder, NETWORKS, "bf16") == "bf16"
    assert find_variant(folder, NETWORKS, "fp8") is None
    (folder / WEIGHTS["vae"]).unlink()
    assert find_variant(folder, NETWORKS) == "fp16"


def test_networks_of_different_variants_are_refused(folder):
    rename(folder, {"unet": "fp16", "vae": "bf16"})
    assert "its networks have no variant of their weights in common (unet: fp16, vae: bf16)" in refusal(folder)


@each_network
def test_pickled_weights_are_not_read_and_it_is_said_why(folder, part):
    (folder / WEIGHTS[part]).rename((folder / WEIGHTS[part]).with_suffix(".bin"))
    assert f"its {part} has no weights in safetensors, and pickled ones (.bin, .ckpt), which may run code, are not read" in refusal(folder)


# Parts that do not belong together.


@pytest.mark.parametrize(
    ("part", "settings", "told"),
    [
        ("unet", {"time_cond_proj_dim": 8}, "more than a text and CFG (time_cond_proj_dim)"),
        ("unet", {"class_embed_type": "timestep"}, "more than a text and CFG (class_embed_type)"),
        ("unet", {"addition_embed_type": "text_time"}, "(addition_embed_type)"),
        ("unet", {"encoder_hid_dim_type": "image_proj"}, "(encoder_hid_dim_type)"),
        ("unet", {"in_channels": 9}, "takes 9 channels and gives 4, and its VAE has 4"),
        ("vae", {"latent_channels": 16}, "takes 4 channels and gives 4, and its VAE has 16"),
        ("unet", {"cross_attention_dim": 768}, "its network reads texts 768 wide, and its text encoder's are 32"),
        ("vae", {"scaling_factor": None}, "scaling_factor is None"), ("vae", {"scaling_factor": "x"}, "scaling_factor is x"),
        ("vae", {"scaling_factor": 0}, "scaling_factor is 0"),
    ],
)  # fmt: skip
def test_parts_that_do_not_belong_together_are_refused(part, settings, told):
    pipeline = make_pipeline()
    getattr(pipeline, part).register_to_config(**settings)
    with pytest.raises(Unfit) as caught:
        check_parts(pipeline)
    assert told in str(caught.value)


@pytest.mark.parametrize("settings", [{"model_max_length": 77}, {"model_max_length": 10**30}])
def test_a_tokenizer_of_another_model_is_refused(folder, settings):
    file = folder / "tokenizer" / "tokenizer_config.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **settings}), encoding="utf-8")
    assert "its tokenizer is not the one of its text encoder" in refusal(folder)


@pytest.mark.parametrize(
    ("kind", "config", "told"),
    [
        (diffusers.DDIMScheduler, {"prediction_type": "sample"}, "predicts “sample”; only those that predict epsilon or v_prediction"),
        (diffusers.DPMSolverMultistepScheduler, {"prediction_type": "flow_prediction", "use_flow_sigmas": True}, "“flow_prediction”"),
        (diffusers.FlowMatchEulerDiscreteScheduler, {}, "predicts “None”"),
        (diffusers.EDMEulerScheduler, {}, "not trained on a row of noise levels"),
        (diffusers.EulerDiscreteScheduler, {"timestep_type": "continuous", "prediction_type": "v_prediction"}, "row of noise levels"),
        (diffusers.DDIMScheduler, {"trained_betas": [0.1] * 3}, "does not say 1,000 noise levels from 0 to 1"),
        (diffusers.DDIMScheduler, {"beta_start": math.nan}, "does not say 1,000 noise levels from 0 to 1"),
        (diffusers.DDIMScheduler, {"beta_end": 7.0}, "does not say 1,000 noise levels from 0 to 1"),
    ],
)
def test_a_model_that_no_scheduler_draws_is_refused(kind, config, told):
    pipeline = make_pipeline()
    pipeline.scheduler = kind(**config)
    with pytest.raises(Unfit) as caught:
        check_parts(pipeline)
    assert told in str(caught.value)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_another_class_of_network_is_named(folder, monkeypatch, part):
    file = folder / "model_index.json"
    file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), part: ["diffusers", "SomethingElse"]}), encoding="utf-8")
    assert f"its {part} is a SomethingElse; only " in unread_refusal(folder, monkeypatch)


def test_where_the_folder_is_stands_in_the_log_alone(folder, caplog):
    (folder / "scheduler" / "scheduler_config.json").unlink()
    with caplog.at_level(logging.INFO):
        assert "its files are damaged or do not belong together (" in refusal(folder)
    assert str(folder) in caplog.text
