"""The tokenizer stage: a CLIP byte-pair encoding learnt from the captions.

Its vocabulary is in CLIP's order (256 bytes, 256 bytes that end a word, what was merged, the two marks), so that
`vocab.json` and `merges.txt` mean the same to every reader of CLIP's files.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import CLIPTokenizer
from transformers.convert_slow_tokenizer import bytes_to_unicode

from training.captions import all_words
from training.files import write_json, write_whole
from training.work import Work

END_OF_WORD = "</w>"
START, END = "<|startoftext|>", "<|endoftext|>"


def learn(texts: Iterable[str], vocabulary: int, positions: int) -> CLIPTokenizer:
    """A tokenizer of at most `vocabulary` tokens, which cuts and pads to `positions`."""
    like_clip = CLIPTokenizer()
    learner = Tokenizer(models.BPE(unk_token=END, continuing_subword_prefix="", end_of_word_suffix=END_OF_WORD))
    learner.normalizer = normalizers.Sequence([like_clip.backend_tokenizer.normalizer])
    learner.pre_tokenizer = pre_tokenizers.Sequence([like_clip.backend_tokenizer.pre_tokenizer])
    alphabet = list(bytes_to_unicode().values())
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, initial_alphabet=alphabet, special_tokens=[START, END], end_of_word_suffix=END_OF_WORD,
        min_frequency=2, show_progress=False,
    )  # fmt: skip
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    tokens = [*alphabet, *(letter + END_OF_WORD for letter in alphabet)]
    merged = list(dict.fromkeys("".join(pair) for pair in merges))[: vocabulary - len(tokens) - 2]
    kept = set(tokens) | set(merged)
    merges = [pair for pair in merges if {*pair, "".join(pair)} <= kept]
    order = {token: number for number, token in enumerate([*tokens, *merged, START, END])}
    # Pairs, as its own from_pretrained hands them over, whatever the annotation says.
    return CLIPTokenizer(vocab=order, merges=merges, model_max_length=positions)  # pyright: ignore[reportArgumentType]


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """transformers' own files, and CLIP's two beside them, which older readers want."""
    tokenizer.save_pretrained(folder)
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    write_json(folder / "vocab.json", model["vocab"])
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"])]
    write_whole(folder / "merges.txt", lambda beside: beside.write_text("\n".join(lines) + "\n", encoding="utf-8"))


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    return CLIPTokenizer.from_pretrained(folder, local_files_only=True)


def learn_captions(work: Work) -> None:
    """The stage: learns from all captions, and from every name and keyword, and writes the folder `tokenizer`."""
    words = [word for word in all_words(work.stage()) for _ in range(2)]  # twice: the learner leaves out what it saw once
    captions = (caption for scene in work.captions() for caption in scene)
    tokenizer = learn([*captions, *words], work.profile.text.vocabulary, work.profile.text.tokens)
    save_tokenizer(tokenizer, work.folder / "tokenizer")
    work.say(f"{len(tokenizer):,} tokens")
