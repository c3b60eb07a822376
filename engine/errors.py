"""Errors whose message is written for the person at the browser.

Everything else that is raised is a bug and keeps its traceback.
"""


class EngineError(Exception):
    """A failure a user can understand: the message is one sentence or two, and says what to do."""


class InvalidRequest(EngineError):
    """The request cannot be carried out as written; nothing was started."""


class ModelUnavailable(EngineError):
    """A model cannot be loaded here and now; the one that was loaded still is."""


class OutOfMemory(EngineError):
    """The device has no room for even the smallest network call of this image, or for decoding any part of it."""


class SpoiltPicture(EngineError):
    """The network or the decoder gave NaN or an all-black picture, which is never saved."""


class NotSaved(EngineError):
    """A picture was made but could not be written; the picture itself is not lost."""


class UnreadablePicture(EngineError):
    """A file handed in for its settings is no picture, is damaged, or carries none."""
