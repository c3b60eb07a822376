"""From a job to what the page shows, at the page's own pace.

The stage's script asks, as the contact sheet's does: what it has shown is its own affair. Nothing on the server waits for a
page that has gone, and a page that missed something, or lost its line, asks again.
"""

from __future__ import annotations

import asyncio
import time

from engine.running.job import Job, Standing

FRAME = 0.05
"""Seconds between two looks at a job."""

HOLD = 5.0
"""Seconds after which a question is answered though nothing has happened."""


async def changed(job: Job, seen: object) -> Standing:
    """Where the job stands once that is another version than `seen`, or after HOLD seconds all the same.

    No thread waits for it: gradio has 40 for everybody, and a slow model is watched for minutes.
    """
    until = time.monotonic() + HOLD
    while job.version == seen and time.monotonic() < until:
        await asyncio.sleep(FRAME)
    return job.standing()
