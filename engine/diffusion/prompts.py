"""Prompt -> token ids, with the words that do not fit; and the counting that the page shows live."""

from __future__ import annotations

import threading
from typing import Any

from engine.device import TokenCount


class TokenCounter:
    """Counts a prompt's tokens as a CLIP tokenizer sees them.

    Holds a lock: the tokenizers library refuses two borrowers at a time, and the page asks from its own threads.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._lock = threading.Lock()

    def count(self, text: str) -> TokenCount:
        limit = self._tokenizer.model_max_length - 2  # without the start and end marks
        with self._lock:
            ids = self._tokenizer(text, truncation=False, add_special_tokens=False, verbose=False).input_ids
            cut = self._tokenizer.decode(ids[limit:], skip_special_tokens=True).strip() if len(ids) > limit else ""
        return TokenCount(len(ids), limit, cut)

    def padded(self, text: str) -> tuple[Any, Any]:
        """Token ids cut and padded to the model's length, and which of them are not padding, as diffusers' pipelines make them.
        # two of (1, T)"""
        with self._lock:
            padded = self._tokenizer(
                text,
                padding="max_length",
                max_length=self._tokenizer.model_max_length,
                truncation=True,
                return_tensors="pt",
            )
        return padded.input_ids, padded.attention_mask
