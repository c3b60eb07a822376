"""From a job's mailbox to what the page shows, at the page's own pace."""

from __future__ import annotations

import time
from collections.abc import Iterator

from engine.job import Job
from ui import view as views
from ui.view import JobView

FRAME = 0.1
"""Seconds between two updates of the page: ten a second is as smooth as it gets, and no queue builds up."""


def follow(job: Job) -> Iterator[JobView]:
    """The job's view after each batch of events, until it ends. Yields once at once.

    Leaving it (the visitor closed the page) stops the watching, not the job.
    """
    view = views.begin(job)
    watcher = job.watch()
    try:
        yield view
        while not watcher.ended:
            started = time.monotonic()
            events = watcher.take(timeout=1.0)
            for event in events:
                view = views.reduce(view, event)
            if events:
                yield view
                if not watcher.ended:
                    time.sleep(max(0.0, FRAME - (time.monotonic() - started)))
    finally:
        job.leave(watcher)
