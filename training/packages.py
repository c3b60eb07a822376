"""npm packages: fetched through the ordinary npm client, checked by hash, read without unpacking."""

from __future__ import annotations

import base64
import hashlib
import json
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.errors import InvalidRequest
from training.settings import Source


class Package:
    """A fetched package's files. Raises InvalidRequest for another hash or licence than `source` names."""

    def __init__(self, source: Source, file: Path):
        digest = base64.b64encode(hashlib.sha512(file.read_bytes()).digest()).decode()
        if f"sha512-{digest}" != source.integrity:
            raise InvalidRequest(f"{file.name} is not the file that sources.toml names (its hash differs): delete it and fetch it again.")
        self._tar = tarfile.open(file)  # noqa: SIM115 - stays open as long as the package is read
        stated = self.json("package.json").get("license")
        if stated != source.license:
            raise InvalidRequest(f"{source.package} states the licence “{stated}”, sources.toml “{source.license}”: settle which is right.")

    def read(self, path: str) -> bytes:
        """A file below the package's root. Raises KeyError where there is none."""
        stream = self._tar.extractfile(f"package/{path}")
        if stream is None:
            raise KeyError(f"{path} is a folder")
        with stream:
            return stream.read()

    def json(self, path: str) -> Any:
        return json.loads(self.read(path))

    def names(self, folder: str) -> Iterator[str]:
        """Of the files in a folder, sorted."""
        start = f"package/{folder}/"
        yield from sorted(name.removeprefix(start) for name in self._tar.getnames() if name.startswith(start))


def fetch(source: Source, folder: Path) -> Path:
    """The package's file in `folder`, downloaded if it is not there. Raises InvalidRequest where it cannot be had."""
    file = folder / f"{source.package.removeprefix('@').replace('/', '-')}-{source.version}.tgz"
    if file.is_file():
        return file
    if shutil.which("npm") is None:
        raise InvalidRequest(f"npm is needed to fetch {source.package}: install Node.js, or put {file.name} into {folder}.")
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "pack", "--silent", "--pack-destination", str(folder), f"{source.package}@{source.version}"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not file.is_file():
        raise InvalidRequest(f"npm could not fetch {source.package} {source.version}: {done.stderr.strip()[-300:]}")
    return file
