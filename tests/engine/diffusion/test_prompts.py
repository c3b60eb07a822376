"""Prompts: tokens are counted beside the encoding, and not of any length."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from transformers import CLIPTokenizer

from engine.diffusion.prompts import TokenCounter
from engine.recipes.recipe import MAX_FULL_PROMPT
from tests.conftest import STARTER
from tests.fake_device import SAFETY


@pytest.fixture
def tokenizer() -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(STARTER / "tokenizer")


@pytest.fixture
def tokens() -> TokenCounter:
    return TokenCounter(CLIPTokenizer.from_pretrained(STARTER / "tokenizer"))


def padded(tokenizer: CLIPTokenizer, text: str) -> torch.Tensor:
    """As diffusers' StableDiffusionPipeline.encode_prompt has them."""
    length = tokenizer.model_max_length
    return tokenizer(text, padding="max_length", max_length=length, truncation=True, return_tensors="pt").input_ids


def test_encoding_does_not_wait_for_a_count(tokens, tokenizer, monkeypatch) -> None:
    counting, go_on, begun = tokens._counting, threading.Event(), threading.Event()

    class Slow:
        def encode(self, *given, **options):
            begun.set()
            go_on.wait(SAFETY)
            return counting.encode(*given, **options)

    monkeypatch.setattr(tokens, "_counting", Slow())
    with ThreadPoolExecutor() as pool:
        counted = pool.submit(tokens.count, "an owl")
        assert begun.wait(SAFETY)
        assert torch.equal(pool.submit(tokens.padded, "an owl").result(SAFETY)[0], padded(tokenizer, "an owl"))
        assert not counted.done()
        go_on.set()
        assert counted.result(SAFETY).used == 2


def test_many_count_while_one_encodes(tokens, tokenizer) -> None:
    texts = [f"an owl and {number} cats, " * 20 * number for number in range(1, 9)]
    expected = [len(tokenizer(text, add_special_tokens=False, verbose=False).input_ids) for text in texts]
    with ThreadPoolExecutor(8) as pool:
        counts = [pool.submit(tokens.count, text) for text in texts * 20]
        for text in texts * 10:
            assert torch.equal(tokens.padded(text)[0], padded(tokenizer, text))
        assert [count.result(SAFETY).used for count in counts] == expected * 20


def test_a_tokenizer_whose_file_cuts_texts_counts_them_whole(tokenizer) -> None:
    tokenizer.backend_tokenizer.enable_truncation(8)
    tokenizer.backend_tokenizer.enable_padding(length=8)
    assert [TokenCounter(tokenizer).count("cat " * words).used for words in (1, 50)] == [1, 50]


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ("cat " * 30 + "Zebra  Crossing", "Zebra  Crossing"), ("cat " * 30, ""), ("cat\n" * 29 + "cat, Émile\n", ", Émile"),
        ("CAT " * 31 + "<|endoftext|>", "CAT <|endoftext|>"),
    ],
)  # fmt: skip
def test_what_is_cut_is_shown_as_it_was_written(tokens, text, cut) -> None:
    assert (tokens.count(text).limit, tokens.count(text).cut) == (30, cut)


@pytest.mark.parametrize(
    ("text", "used"),
    [
        ("cat " * (MAX_FULL_PROMPT // 4), MAX_FULL_PROMPT // 4), ("cat " * 1_000_000, MAX_FULL_PROMPT // 4),
        ("x" * 1_000_000, MAX_FULL_PROMPT), (" " * 1_000_000, 0), ("an owl", 2), ("", 0),
    ],
    ids=["the longest recipe", "longer", "one word", "nothing but spaces", "short", "nothing"],
)  # fmt: skip
def test_no_more_is_looked_at_than_a_recipe_can_hold(tokens, monkeypatch, text, used) -> None:
    counting, looked_at = tokens._counting, []

    class Recorded:
        def encode(self, text, **options):
            looked_at.append(len(text))
            return counting.encode(text, **options)

    monkeypatch.setattr(tokens, "_counting", Recorded())
    count = tokens.count(text)
    assert (count.used, count.more) == (used, len(text) > MAX_FULL_PROMPT)
    assert max(looked_at) <= MAX_FULL_PROMPT
