"""Prompt -> token ids, with the words that do not fit; and the counting that the page shows live."""

from __future__ import annotations

import copy
from typing import Any

from engine.recipes.recipe import MAX_FULL_PROMPT
from engine.running.device import TokenCount


class TokenCounter:
    """Counts a prompt's tokens as a CLIP tokenizer sees them, and makes them ids for the text encoder.

    `count` may be called from any thread, `padded` from one. The tokenizers library refuses to change how a text is cut while
    somebody reads, so each has a tokenizer of its own: nobody waits, and nobody is refused.
    """

    def __init__(self, tokenizer: Any):
        self._tokenizer = tokenizer
        self._counting = copy.deepcopy(tokenizer.backend_tokenizer)
        self._counting.no_truncation()
        self._counting.no_padding()

    def count(self, text: str) -> TokenCount:
        """Of a text longer than any recipe's only the beginning is looked at."""
        limit = self._tokenizer.model_max_length - 2  # without the start and end marks
        more = len(text) > MAX_FULL_PROMPT
        if more:
            text = text[:MAX_FULL_PROMPT]
            text = text.rpartition(" ")[0] or text  # half a word would have other tokens
        found = self._counting.encode(text, add_special_tokens=False)
        cut = text[found.offsets[limit][0] :].strip() if len(found) > limit else ""
        return TokenCount(len(found), limit, cut, more)

    def padded(self, text: str) -> tuple[Any, Any]:
        """Token ids cut and padded to the model's length, and which of them are not padding, as diffusers' pipelines make them.
        # two of (1, T)"""
        padded = self._tokenizer(
            text,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            truncation=True,
            return_tensors="pt",
        )
        return padded.input_ids, padded.attention_mask
