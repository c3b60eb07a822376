"""How the page's handlers are called, and who calls them."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

QUIET = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
"""For handlers that only adjust the page: at once, beside the queue, without an overlay."""

TOLD = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}
"""For handlers that go on for a while, or pop up a message, which only reaches the page through the queue."""


class Newest:
    """Which of a page's questions was asked last: only the answer to that one is shown, however long an earlier one takes.

    A page has its own in a gr.State, which is copied for each.
    """

    def __init__(self) -> None:
        self._last: object = None

    def ask(self) -> Callable[[], bool]:
        """A new question; what is returned says whether it is still the newest."""
        mine = self._last = object()
        return lambda: self._last is mine


def known_visitor(token: Any) -> str:
    """The visitor's token as the browser kept it; a new one for a first visit, or for what is no token at all."""
    return token if isinstance(token, str) and 16 <= len(token) <= 64 else uuid.uuid4().hex
