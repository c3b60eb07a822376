"""A small world to train on: a dozen subjects of plain shapes in six styles, and the smoke profile over it."""

from __future__ import annotations

import io

import pytest
import torch
from PIL import Image, ImageDraw

from training.composing import compose_scenes
from training.data import make_manifest, write_archive
from training.settings import load_config, load_sources
from training.tokenizer import learn_captions
from training.vae import encode_scenes, train_vae
from training.words import Subject
from training.work import Work

NAMES = ("red apple", "cat face", "rocket", "owl", "house", "yellow star", "green book", "pizza", "ship", "tree", "glasses", "key")
SIDES = {"noto": 40, "twemoji": 46, "fluent": 34, "flat": 30, "outline": 26, "3d": 36}


def subject(number: int, name: str) -> Subject:
    return Subject(code=f"1f3{number:02x}", name=name, synonyms=(), keywords=("thing",), group="food-drink", version=1.0)


def shape(number: int, style: str) -> bytes:
    """A triangle, square, disc ... by the subject's number; the style decides how large it is."""
    image = Image.new("RGBA", (64, 64))
    colour = ((220, 40, 40), (60, 170, 80), (60, 110, 220))[number % 3]
    ImageDraw.Draw(image).regular_polygon((32, 32, SIDES[style] // 2 + 6), 3 + number, 10 * number, fill=(*colour, 255))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", lossless=True)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def config():
    config = load_config()
    held_out = config.held_out.model_copy(update={"subject_share": 0.5, "pair_share": 0.3})
    profile = config.profile("smoke").model_copy(update={"scenes": 96})
    return config.model_copy(update={"held_out": held_out, "profiles": {"smoke": profile}})


@pytest.fixture(scope="session")
def data(tmp_path_factory, config):
    folder = tmp_path_factory.mktemp("data")
    subjects = [subject(number, name) for number, name in enumerate(NAMES)]
    drawn = {(one.code, style): shape(number, style) for number, one in enumerate(subjects) for style in SIDES}
    write_archive(folder, make_manifest(config, load_sources(), subjects, set(drawn), []), drawn)
    return folder


@pytest.fixture(scope="session")
def work(tmp_path_factory, config, data):
    """With everything before the diffusion stage done."""
    torch.set_num_threads(1)
    work = Work(config, "smoke", data, tmp_path_factory.mktemp("work"), torch.device("cpu"), say=lambda text: None)
    compose_scenes(work)
    learn_captions(work)
    assert train_vae(work)
    encode_scenes(work)
    return work


@pytest.fixture(scope="session")
def stage(work):
    return work.stage()
