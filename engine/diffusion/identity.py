"""Identity: what tells one model's pictures from another's, from the files that it is read from."""

from __future__ import annotations

import hashlib
import re
import secrets
import threading
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

WEIGHTS = ".safetensors"

READ = {".json", WEIGHTS, ".txt"}
"""The kinds of files that are read of a model's parts: configs and shards' indexes, weights, the tokenizer's lists."""

Stamps = tuple[tuple[Path, int, int, int, int], ...]


@dataclass(frozen=True)
class Identity:
    """`revision` is for people: the hub's commit of a downloaded model, else the first ten digits of the network file's
    SHA-256, as A1111's model hash. `weights` is a SHA-256 over all that decides what the model draws: equal ones are
    equal models, wherever their folders are and whatever they are called."""

    revision: str
    weights: str


def stamps(folder: Path, parts: Iterable[str]) -> Stamps:
    """(file, bytes, time changed, time of the last change to its entry, file number) of each file that a model of these parts
    (Family.parts) is read from.

    Equal stamps before and after are files that nobody has touched: writing sets the entry's time, which no program can
    set back, as it can the file's own. Raises OSError for a file that goes meanwhile.
    """
    there = [folder / "model_index.json", *(file for part in parts for file in (folder / part).glob("*"))]  # through links, too
    files = sorted(file for file in there if file.suffix in READ and file.is_file())
    seen = [(file, file.stat()) for file in files]
    return tuple((file, one.st_size, one.st_mtime_ns, one.st_ctime_ns, one.st_ino) for file, one in seen)


def identify(folder: Path, parts: Sequence[str], before: Stamps | None = None) -> Identity:
    """Reads every file once. When they are not what they were at the stamps `before`, or cannot be read, nobody knows
    what the model was made of: its weights are then like no others'."""
    try:
        before = stamps(folder, parts) if before is None else before
        digests = {file.relative_to(folder).as_posix(): _digest(file) for file, *_ in before}
        unchanged = stamps(folder, parts) == before
    except OSError:
        digests, unchanged = {}, False
    whole = hashlib.sha256()
    for name, digest in digests.items():
        whole.update(name.encode() + b"\0" + digest)
    return Identity(_revision(folder, parts[0], digests), whole.hexdigest() if unchanged else f"unknown-{secrets.token_hex(16)}")


def identify_beside(folder: Path, parts: Sequence[str], before: Stamps) -> Future[Identity]:
    """`identify` in a thread of its own: gigabytes take seconds that only those need to wait for who ask."""
    identity: Future[Identity] = Future()

    def work() -> None:
        try:
            identity.set_result(identify(folder, parts, before))
        except BaseException as error:  # noqa: BLE001 - nobody may wait for ever
            identity.set_exception(error)

    threading.Thread(target=work, name="identify a model", daemon=True).start()
    return identity


def _revision(folder: Path, part: str, digests: dict[str, bytes]) -> str:
    snapshots = folder.parent
    if re.fullmatch("[0-9a-f]{40}", folder.name) and snapshots.name == "snapshots" and snapshots.parent.name.startswith("models--"):
        return folder.name
    network = [digest for name, digest in digests.items() if name.startswith(f"{part}/") and name.endswith(WEIGHTS)]
    if not network:
        return "unknown"
    return (network[0] if len(network) == 1 else hashlib.sha256(b"".join(network)).digest()).hex()[:10]


def _digest(file: Path) -> bytes:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()
