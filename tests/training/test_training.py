"""Tokenizer, networks and the loop at sizes that take moments."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline
from safetensors.torch import load_file
from transformers import CLIPTokenizer

from engine.errors import InvalidRequest
from tests.conftest import STARTER
from training.__main__ import main
from training.adopt import adopt
from training.curves import draw_curve
from training.diffusion import DiffusionLoss, diffusion_run, min_snr_weights, scenes_in_turn, stratified_times, train_diffusion
from training.export import TINY, export
from training.loop import draws_of, learning_rate, train
from training.networks import make_unet, make_vae
from training.questions import known_names
from training.settings import load_config
from training.tiny import train_tiny
from training.tokenizer import END, START, learn, save_tokenizer
from training.vae import encode_scenes, fold_spread, train_vae, vae_run


def test_the_tokenizer_keeps_clips_conventions(tmp_path) -> None:
    learnt = learn(["a red apple, noto style", "an owl on a blue background, noto style"] * 3, 560, 16)
    save_tokenizer(learnt, tmp_path)
    for tokenizer in (CLIPTokenizer.from_pretrained(tmp_path), learnt):
        ids = tokenizer("A red  Apple, noto style", padding="max_length", truncation=True).input_ids
        assert len(ids) == 16
        assert tokenizer.convert_ids_to_tokens(ids)[:4] == [START, "a</w>", "red</w>", "apple</w>"]
        assert ids[-1] == tokenizer.eos_token_id == len(tokenizer) - 1
        assert tokenizer.bos_token_id == len(tokenizer) - 2
        assert tokenizer.decode(ids, skip_special_tokens=True) == "a red apple , noto style"
        assert tokenizer.unk_token == END
    assert len(learnt) <= 560
    assert learnt.get_vocab()["!"] == 0
    assert learnt.get_vocab()["!</w>"] == 256
    unseen = learnt("Käse 猫 %").input_ids
    assert learnt.unk_token_id not in unseen[1:-1], "bytes say whatever no word does"


def test_clips_own_two_files_alone_are_a_tokenizer(tmp_path) -> None:
    learnt = learn(["a rocket and a star, flat style"] * 4, 540, 16)
    save_tokenizer(learnt, tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    old = CLIPTokenizer.from_pretrained(tmp_path)
    assert old("a star rocket!").input_ids == learnt("a star rocket!").input_ids


def test_one_fixed_batch_is_learnt(work) -> None:
    torch.manual_seed(0)
    run = diffusion_run(work)
    settings = work.profile.diffusion.model_copy(update={"caption_dropout": 0.0})
    tokens = torch.ones(9, 1, 24, dtype=torch.int16)
    loss_of = DiffusionLoss(run.model, torch.zeros(8, 4, 16, 16), tokens, settings, work.device, torch.arange(8))
    losses = []
    for _ in range(8):
        loss = loss_of(0, draws_of(settings, 0))
        run.optimiser.zero_grad()
        loss.backward()
        run.optimiser.step()
        losses.append(loss.item())
    assert losses[1] < losses[0]
    assert losses[-1] < 0.9 * losses[0]


def test_known_subjects_come_round_more_often(work) -> None:
    stage, count = work.stage(), 40
    shown = [stage.subject(stage.scene(row).parts[0]).name for row in range(count)]
    settings = work.profile.diffusion.model_copy(update={"known_times": 3})
    rows = scenes_in_turn(stage, count, settings).tolist()
    assert [rows.count(row) for row in range(count)] == [3 if name in known_names() else 1 for name in shown]
    assert {rows.count(row) for row in range(count)} == {1, 3}, "the small world has subjects of both kinds"
    assert scenes_in_turn(stage, count, work.profile.diffusion).tolist() == list(range(count))


def test_a_style_comes_round_more_often_whatever_its_subject(work) -> None:
    stage, count = work.stage(), 40
    styles = [stage.picture(stage.scene(row).parts[0]).style for row in range(count)]
    once = scenes_in_turn(stage, count, work.profile.diffusion.model_copy(update={"known_times": 2})).tolist()
    both = scenes_in_turn(stage, count, work.profile.diffusion.model_copy(update={"known_times": 2, "style_times": {"noto": 3}})).tolist()
    assert [both.count(row) / once.count(row) for row in range(count)] == [3 if style == "noto" else 1 for style in styles]


@pytest.mark.parametrize(("stop_after", "kept"), [(3, 0), (5, 0), (7, 6)])
def test_a_restart_gives_the_bits_of_an_uninterrupted_run(work, tmp_path, stop_after, kept) -> None:
    """Stopped between checkpoints, too: then the steps since the last one are made again."""
    whole, stopped = place_of(work, tmp_path / "whole"), place_of(work, tmp_path / "stopped")
    assert train_vae(whole)
    with pytest.raises(KeyboardInterrupt):
        train_vae(replace(stopped, say=interrupting(stop_after)))
    assert vae_run(stopped).step == kept
    assert train_vae(stopped)
    one, other = (torch.load(place.folder / "vae.pt", weights_only=True) for place in (whole, stopped))
    assert one["step"] == other["step"] == work.profile.vae_training.steps
    for part in ("model", "average"):
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items())
    for number, state in one["optimiser"]["state"].items():
        assert all(torch.equal(value, other["optimiser"]["state"][number][name]) for name, value in state.items())
    logs = [(place.folder / "vae.csv").read_text().splitlines() for place in (whole, stopped)]
    assert [line.rsplit(",", 1)[0] for line in logs[0]] == [line.rsplit(",", 1)[0] for line in logs[1]]


def place_of(work, folder):
    """The same work in another folder, with its scenes."""
    folder.mkdir()
    (folder / "scenes.npy").symlink_to(work.folder / "scenes.npy")
    return replace(work, folder=folder)


def interrupting(after: int):
    """A `say` that interrupts once so many steps are told of."""

    def say(text: str) -> None:
        if text.startswith("vae ") and int(text.split("/")[0].split()[1]) > after:
            raise KeyboardInterrupt

    return say


def test_minutes_that_are_over_stop_a_run_with_a_checkpoint(work, tmp_path) -> None:
    place = replace(place_of(work, tmp_path / "short"), stop_at=-math.inf)
    assert not train_vae(place)
    assert (place.folder / "vae.pt").exists()
    assert vae_run(place).step == 0


def test_a_checkpoint_of_other_settings_is_refused(work) -> None:
    changed = work.profile.vae_training.model_copy(update={"kl": 0.5})
    profile = work.profile.model_copy(update={"vae_training": changed})
    other = replace(work, config=work.config.model_copy(update={"profiles": {"smoke": profile}}))
    with pytest.raises(InvalidRequest, match="other settings"):
        vae_run(other)


def test_a_stage_says_which_one_must_run_first(work, tmp_path) -> None:
    with pytest.raises(InvalidRequest, match="training scenes --profile smoke"):
        train_vae(replace(work, folder=tmp_path))


def test_folding_gives_latents_of_mean_0_and_spread_1_and_the_same_pictures(work) -> None:
    torch.manual_seed(1)
    vae = make_vae(work.profile).eval()
    pictures = torch.rand(6, 3, 32, 32) * 2 - 1
    with torch.no_grad():
        before = vae.encode(pictures).latent_dist
        shown = vae.decode(before.mean).sample
        fold_spread(vae, before.mean)
        after = vae.encode(pictures).latent_dist
        again = vae.decode(after.mean).sample
    assert torch.allclose(after.mean.mean((0, 2, 3)), torch.zeros(4), atol=1e-4)
    assert torch.allclose(after.mean.std((0, 2, 3)), torch.ones(4), atol=1e-4)
    assert torch.allclose(again, shown, atol=1e-4)
    assert torch.allclose(
        after.std / after.mean.std((0, 2, 3), keepdim=True), before.std / before.mean.std((0, 2, 3), keepdim=True), rtol=1e-3
    )


def test_latents_and_tokens_are_kept_for_every_scene(work) -> None:
    latents, tokens = work.array("latents.npy"), work.array("tokens.npy")
    assert latents.shape == (96, 4, 16, 16)
    assert abs(float(np.std(latents.astype(np.float32))) - 1) < 0.05
    assert tokens.shape == (97, work.config.scenes.wordings, 24)
    assert len(np.unique(tokens[-1], axis=0)) == 1, "the last row is the empty prompt"


def test_timesteps_cover_the_schedule_in_every_batch() -> None:
    times = stratified_times(10, 1000, torch.Generator().manual_seed(3))
    assert sorted((times // 100).tolist()) == list(range(10))


def test_min_snr_weights_spare_the_steps_in_noise() -> None:
    snr = torch.tensor([0.0, 1.0, 4.0, 9.0, 49.0])
    assert torch.allclose(min_snr_weights(snr / (1 + snr), 5.0), torch.tensor([1.0, 1.0, 1.0, 0.5, 0.1]), atol=1e-5)


@pytest.mark.parametrize("begins_at", [0, 5_000])
def test_the_learning_rate_rises_stays_and_falls_to_nothing(begins_at) -> None:
    whole = load_config().profile("cpu").diffusion.model_copy(update={"restart_at": 0})
    schedule = whole.model_copy(update={"restart_at": begins_at, "steps": begins_at + whole.steps})
    rates = [learning_rate(schedule, step) for step in range(begins_at, schedule.steps + 1, 100)]
    assert rates[0] < 0.01 * max(rates)
    assert rates.count(schedule.learning_rate) > 0.3 * len(rates)
    assert rates[-1] < 1e-6 * schedule.learning_rate
    assert rates[len(rates) // 2 :] == sorted(rates[len(rates) // 2 :], reverse=True)
    assert rates == [learning_rate(whole, step) for step in range(0, whole.steps + 1, 100)]


def test_the_steps_before_a_restart_are_those_of_a_training_that_ends_there() -> None:
    short = load_config().profile("cpu").diffusion.model_copy(update={"restart_at": 0, "steps": 4_000})
    longer = short.model_copy(update={"restart_at": 4_000, "steps": 9_000})
    assert [learning_rate(short, step) for step in range(4_000)] == [learning_rate(longer, step) for step in range(4_000)]


@pytest.mark.parametrize("name", ["cpu", "gpu"])
def test_profiles_fit_the_repository(name) -> None:
    """Below 100 MB with float16: counted, not made."""
    profile = load_config().profile(name)
    with torch.device("meta"):
        weights = sum(value.numel() for network in (make_vae(profile), make_unet(profile)) for value in network.parameters())
    assert 5e6 < weights < 48e6


def test_the_exported_folder_is_a_pipeline_that_draws(work) -> None:
    with pytest.raises(InvalidRequest, match="0 of 12"):
        export(work)
    assert train_diffusion(work)
    assert train_tiny(work)
    folder = export(work)
    assert not [file for file in folder.rglob("*") if file.suffix in {".bin", ".pt", ".pkl"}]
    assert str(work.folder) not in "".join(file.read_text() for file in folder.rglob("*.json"))
    pipeline = StableDiffusionPipeline.from_pretrained(folder, use_safetensors=True, local_files_only=True)
    assert pipeline.unet.dtype == pipeline.vae.dtype == pipeline.text_encoder.dtype == torch.float32
    pipeline.set_progress_bar_config(disable=True)
    assert {"vocab.json", "merges.txt", "tokenizer.json"} <= {file.name for file in (folder / "tokenizer").iterdir()}
    images = [pipeline("a red apple", num_inference_steps=2, generator=torch.Generator().manual_seed(seed)).images[0] for seed in (1, 1, 2)]
    assert images[0].size == (32, 32)
    assert images[0].tobytes() == images[1].tobytes() != images[2].tobytes()
    assert "block_out_channels" not in (folder / TINY / "config.json").read_text(encoding="utf-8").replace("coder_block_out_channels", "")
    tiny = AutoencoderTiny.from_pretrained(folder / TINY, local_files_only=True, dtype=torch.float32)
    assert tiny.decode(torch.zeros(1, 4, 16, 16)).sample.shape == (1, 3, 32, 32)


def test_a_finished_model_is_gone_on_from(work, tmp_path) -> None:
    """As the command does it: adopted, then all stages; what is left is the diffusion stage's part after its restart."""
    assert train_diffusion(work)
    assert train_tiny(work)
    model = export(work)
    schedule = work.profile.diffusion.model_copy(
        update={"restart_at": work.profile.diffusion.steps, "steps": work.profile.diffusion.steps + 4}
    )
    profile = work.profile.model_copy(update={"diffusion": schedule})
    later = replace(place_of(work, tmp_path / "later"), config=work.config.model_copy(update={"profiles": {"smoke": profile}}))
    adopt(later, model)
    assert later.is_done("tokenizer")
    assert vae_run(later).finished
    begun = diffusion_run(later)
    assert begun.step == schedule.restart_at
    kept = load_file(model / "unet/diffusion_pytorch_model.safetensors")
    assert all(torch.equal(value.half(), kept[name]) for name, value in begun.model.unet.state_dict().items())
    (later.folder / "captions.json").symlink_to(work.folder / "captions.json")
    encode_scenes(later)
    assert np.abs(later.array("latents.npy").astype(float) - work.array("latents.npy")).max() < 0.05, "it is the same VAE"
    assert train_diffusion(later)
    assert [line.split(",")[0] for line in (later.folder / "diffusion.csv").read_text().splitlines()[1:]] == ["14", "16"]
    made = json.loads((export(later) / "training.json").read_text(encoding="utf-8"))
    assert made["steps"] == 16
    assert made["went_on_from"] == json.loads((model / "training.json").read_text(encoding="utf-8"))
    with pytest.raises(InvalidRequest, match="already"):
        adopt(later, model)


def test_a_model_of_another_size_or_none_at_all_is_not_gone_on_from(work, tmp_path) -> None:
    fresh = replace(work, folder=tmp_path / "fresh")
    fresh.folder.mkdir()
    with pytest.raises(InvalidRequest, match=r"lacks model_index\.json"):
        adopt(fresh, tmp_path)
    with pytest.raises(InvalidRequest, match="another vae network than the profile"):
        adopt(fresh, STARTER)
    assert not list(fresh.folder.iterdir()), "nothing is left that would be in the way"


def test_a_finished_training_does_nothing_more(work) -> None:
    run = vae_run(work)
    assert train(run, lambda step, draws: pytest.fail("it is finished"), work.say)


def test_a_curve_is_drawn_of_a_log_with_two_lines(tmp_path) -> None:
    log, picture = tmp_path / "some.csv", tmp_path / "some.png"
    log.write_text("step,loss,learning_rate,seconds\n2,1.5,1e-3,1\n")
    draw_curve(log, picture)
    assert not picture.exists()
    log.write_text(log.read_text() + "4,0.7,1e-3,2\n")
    draw_curve(log, picture)
    assert picture.exists()


def test_a_stage_is_done_anew_when_what_it_depends_on_changes(work, config, tmp_path) -> None:
    first = replace(work, folder=tmp_path)
    assert not first.is_done("scenes")
    for stage in ("scenes", "tokenizer", "vae", "latents"):
        first.mark_done(stage)
    profile = config.profile("smoke")
    words = profile.model_copy(update={"text": profile.text.model_copy(update={"vocabulary": 600})})
    scenes = config.scenes.model_copy(update={"white": 0.1})
    for changed, kept in (
        ({}, {"scenes", "tokenizer", "latents"}),
        ({"profiles": {"smoke": words}}, {"scenes"}),
        ({"scenes": scenes}, set()),
    ):
        now = replace(first, config=config.model_copy(update=changed))
        assert {stage for stage in ("scenes", "tokenizer", "vae", "latents") if now.is_done(stage)} == kept


def test_a_stage_without_what_it_needs_says_which_stage_makes_it(tmp_path, capsys) -> None:
    assert main(["tokenizer", "--profile", "smoke", "--work", str(tmp_path)]) == 1
    assert "run `python -m training data` first" in capsys.readouterr().err
