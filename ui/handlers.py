"""How the page's handlers are called, and who calls them."""

from __future__ import annotations

import uuid
from typing import Any

QUIET = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
"""For handlers that only adjust the page: at once, beside the queue, without an overlay."""

TOLD = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}
"""For handlers that go on for a while, or pop up a message, which only reaches the page through the queue."""


def known_visitor(token: Any) -> str:
    """The visitor's token as the browser kept it; a new one for a first visit, or for what is no token at all."""
    return token if isinstance(token, str) and 16 <= len(token) <= 64 else uuid.uuid4().hex
