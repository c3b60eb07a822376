"""Loading: a model is read whole, or it is said in one sentence why not."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import load_file

from engine.diffusion import identity as identity_module
from engine.diffusion import loading
from engine.diffusion.device import TorchDevice
from engine.diffusion.loading import fetch, load, pick_device, pick_dtype
from engine.diffusion.stable_diffusion import StableDiffusion
from engine.errors import ModelUnavailable
from engine.recipes.catalog import ModelSpec, local_model
from tests.conftest import ROOT
from tests.tiny import SIZE, make_pipeline

identify = partial(identity_module.identify, parts=StableDiffusion.parts)
stamps = partial(identity_module.stamps, parts=StableDiffusion.parts)

CPU = torch.device("cpu")
NETWORK = "unet/diffusion_pytorch_model.safetensors"


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """A model's folder as diffusers saves it. Not to be changed."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    make_pipeline().save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path) -> Path:
    """A copy that a test may damage."""
    return shutil.copytree(saved, tmp_path / "model")


def read(folder: Path, **columns):
    told = []
    loaded = load(spec_of(folder, **columns), CPU, torch.float32, lambda text, part: told.append((text, part)))
    return loaded, told


def spec_of(folder: Path, **columns) -> ModelSpec:
    return ModelSpec(name="it", title="The model", source=str(folder), **columns)


def refusal(folder: Path) -> str:
    with pytest.raises(ModelUnavailable) as caught:
        read(folder)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert len(sentence) < 600
    return sentence


def test_the_embedded_model_loads(catalog):
    told = []
    loaded = load(catalog.default, CPU, torch.float32, lambda text, part: told.append(text))
    assert loaded.spec is catalog.default
    assert loaded.family.traits.latent_shape(catalog.default.recipe()) == (4, 16, 16)
    assert {parameter.dtype for parameter in loaded.family.unet.parameters()} == {torch.float32}
    assert not loaded.family.unet.training
    assert told == [f"Loading {catalog.default.title} ..."]


def test_a_folder_loads_with_its_own_weights(saved):
    loaded, _ = read(saved)
    weights = load_file(saved / NETWORK)
    assert all(torch.equal(tensor, weights[name]) for name, tensor in loaded.family.unet.state_dict().items())


def test_a_variant_is_for_hub_models_only(saved):
    assert read(saved, variant="fp16")[0].family.dtype == torch.float32


def test_a_dtype_is_applied(saved):
    loaded = load(spec_of(saved), CPU, torch.bfloat16, lambda *told: None)
    assert {loaded.family.unet.dtype, loaded.family.vae.dtype, loaded.family.text_encoder.dtype} == {torch.bfloat16}


def test_a_missing_folder(tmp_path):
    assert "is gone: put it back, or pick another model." in refusal(tmp_path / "nothing")


def test_a_folder_without_model_index(folder):
    (folder / "model_index.json").unlink()
    assert "cannot be read" in refusal(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_truncated_weights(folder, part):
    [file] = (folder / part).glob("*.safetensors")
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    assert "cannot be read" in refusal(folder)


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"\xff" * 64])
def test_weights_that_are_none(folder, content):
    (folder / NETWORK).write_bytes(content)
    assert "cannot be read" in refusal(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
def test_missing_weights(folder, part):
    [file] = (folder / part).glob("*.safetensors")
    file.unlink()
    assert "cannot be read" in refusal(folder)


def test_pickled_weights_are_refused(folder):
    torch.save(load_file(folder / NETWORK), folder / NETWORK.replace(".safetensors", ".bin"))
    (folder / NETWORK).unlink()
    assert "cannot be read" in refusal(folder)


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder", "tokenizer", "scheduler"])
def test_a_missing_part(folder, part):
    shutil.rmtree(folder / part)
    assert "cannot be read" in refusal(folder)


@pytest.mark.parametrize("file", ["model_index.json", "unet/config.json", "text_encoder/config.json", "scheduler/scheduler_config.json"])
@pytest.mark.parametrize("content", ["", "{"])
def test_a_damaged_config(folder, file, content):
    (folder / file).write_text(content)
    assert "cannot be read" in refusal(folder)


@pytest.mark.parametrize("file", ["model_index.json", "text_encoder/config.json"])
def test_a_config_that_is_no_table(folder, file):
    (folder / file).write_text("[]")
    assert "cannot be read" in refusal(folder)


def test_weights_of_another_shape(folder):
    config = json.loads((folder / "unet/config.json").read_text())
    (folder / "unet/config.json").write_text(json.dumps({**config, "block_out_channels": [8, 16]}))
    assert "cannot be read" in refusal(folder)


def test_a_distilled_network_is_refused(folder):
    config = json.loads((folder / "unet/config.json").read_text())
    (folder / "unet/config.json").write_text(json.dumps({**config, "time_cond_proj_dim": 8}))
    refusal(folder)


def test_another_kind_of_pipeline(folder):
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "_class_name": "StableDiffusionXLPipeline"}))
    with pytest.raises(ModelUnavailable, match="holds a StableDiffusionXLPipeline; only StableDiffusionPipeline"):
        local_model(folder)


def test_a_hub_model_without_the_hub_names_the_way_out():
    told = []
    spec = ModelSpec(name="far", title="Far Away", source="nobody/nothing")
    with pytest.raises(ModelUnavailable) as caught:
        fetch(spec, lambda text, part: told.append(text))
    assert str(caught.value).startswith("Far Away is not on this machine and the model hub cannot be reached")
    assert "choose the Starter model, which needs no download" in str(caught.value)
    assert told == ["Asking the model hub for Far Away ..."]


# What a model is known by.


def test_revision_of_a_folder_is_its_networks_hash(saved):
    assert identify(saved).revision == hashlib.sha256((saved / NETWORK).read_bytes()).hexdigest()[:10]


def test_revision_changes_with_the_weights(folder):
    before = identify(folder).revision
    append(folder / NETWORK)
    assert identify(folder).revision != before


def append(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b" ")


VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.mark.parametrize("part", [NETWORK, VAE, "scheduler/scheduler_config.json", "tokenizer/merges.txt", "model_index.json"])
@pytest.mark.parametrize("place", ["model", "snapshots/model", f"models--somebody--it/snapshots/{'0123' * 10}"])
def test_another_part_is_another_model_wherever_it_lies(saved, tmp_path, part, place):
    """A picture of the same network with another decoder is another picture."""
    folder = shutil.copytree(saved, tmp_path / place)
    before = identify(folder).weights
    append(folder / part)
    assert identify(folder).weights != before


def test_a_part_that_is_a_link_to_another_folder_counts(folder, tmp_path):
    shutil.move(folder / "unet", tmp_path / "elsewhere")
    (folder / "unet").symlink_to(tmp_path / "elsewhere")
    before = identify(folder)
    append(tmp_path / "elsewhere" / "diffusion_pytorch_model.safetensors")
    assert identify(folder).weights != before.weights
    assert identify(folder).revision != before.revision


def test_each_shard_and_the_index_count(folder):
    unet = UNet2DConditionModel.from_pretrained(folder / "unet")
    shutil.rmtree(folder / "unet")
    unet.save_pretrained(folder / "unet", max_shard_size="200KB")
    shards = sorted((folder / "unet").glob("*.safetensors"))
    assert len(shards) > 1
    for file in (*shards, folder / "unet" / "diffusion_pytorch_model.safetensors.index.json"):
        before = identify(folder)
        append(file)
        assert identify(folder).weights != before.weights
        assert (identify(folder).revision != before.revision) == (file in shards)


def test_what_is_never_read_does_not_count(folder):
    before = identify(folder)
    for name in ("README.md", "picture.png", "safety_checker/model.safetensors", "unet/diffusion_pytorch_model.bin"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("other")
    assert identify(folder) == before


def test_the_same_files_elsewhere_are_the_same_model(folder, tmp_path):
    assert identify(shutil.copytree(folder, tmp_path / "copy")) == identify(folder)


@pytest.mark.parametrize(
    ("place", "by_commit"),
    [
        (f"models--somebody--it/snapshots/{'0123' * 10}", True), (f"snapshots/{'0123' * 10}", False),
        ("models--somebody--it/snapshots/main", False), (f"models--somebody--it/{'0123' * 10}", False),
    ],
)  # fmt: skip
def test_revision_of_a_download_is_its_commit(saved, tmp_path, place, by_commit):
    revision = identify(shutil.copytree(saved, tmp_path / place)).revision
    assert revision == ("0123" * 10 if by_commit else identify(saved).revision)


def test_revision_of_nothing(tmp_path):
    assert identify(tmp_path).revision == "unknown"


def test_what_changes_while_it_is_looked_at_is_like_no_other_model(folder):
    before = stamps(folder)
    times = (folder / NETWORK).stat()
    content = (folder / NETWORK).read_bytes()
    (folder / NETWORK).write_bytes(content[:-1] + b"\x77")
    os.utime(folder / NETWORK, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if nothing had happened
    first, second = (identify(folder, before=before).weights for _ in range(2))
    assert len({first, second, identify(folder).weights}) == 3


def test_what_cannot_be_read_is_like_no_other_model(folder):
    before = stamps(folder)
    (folder / NETWORK).unlink()
    assert identify(folder, before=before).weights != identify(folder, before=before).weights


def test_want_of_memory_is_no_damage(saved, monkeypatch):
    def read(*arguments):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(StableDiffusion, "read", read)
    with pytest.raises(torch.OutOfMemoryError):
        load(spec_of(saved), CPU, torch.float32, lambda text, part: None)


def test_a_model_that_changes_while_it_is_read_is_refused(folder, monkeypatch):
    read_it = loading._read

    def reading(*arguments):
        family = read_it(*arguments)
        append(folder / "tokenizer" / "merges.txt")
        return family

    monkeypatch.setattr(loading, "_read", reading)
    assert "The model was changed while it was being read: try again" in refusal(folder)


def test_a_loaded_model_stays_what_it_was_when_its_files_are_written_over(folder):
    """In place, as `cp` does it: the very pages that were mapped."""
    loaded, _ = read(folder)
    identity = loaded.identity.result()
    assert identity == identify(folder)
    parts = {"unet": loaded.family.unet, "vae": loaded.family.vae, "text_encoder": loaded.family.text_encoder}
    before = {name: {key: tensor.clone() for key, tensor in part.state_dict().items()} for name, part in parts.items()}
    for name in parts:
        [file] = (folder / name).glob("*.safetensors")
        with file.open("r+b") as stream:
            stream.write(b"\x11" * file.stat().st_size)
    for name, part in parts.items():
        assert all(torch.equal(tensor, before[name][key]) for key, tensor in part.state_dict().items())
    assert identify(folder).weights != identity.weights


def test_nothing_waits_for_the_hash_but_who_asks_for_it(saved, monkeypatch):
    may_hash, one = threading.Event(), identity_module._digest
    monkeypatch.setattr(identity_module, "_digest", lambda file: may_hash.wait(20) and one(file))
    device = TorchDevice("cpu")
    device.install(device.load(spec_of(saved), lambda text, part: None))
    device.admit("it", spec_of(saved).recipe(steps=1, width=SIZE, height=SIZE))
    device.tick()
    device.picture("it")
    assert not device.facts("it").done()
    may_hash.set()
    assert device.facts("it").result().weights == identify(saved).weights


def test_each_file_is_hashed_once(saved, monkeypatch):
    hashed, one = [], identity_module._digest
    monkeypatch.setattr(identity_module, "_digest", lambda file: hashed.append(file) or one(file))
    read(saved)[0].identity.result()
    assert len(hashed) == len(set(hashed)) > 5


def test_a_device_that_is_there():
    assert pick_device("cpu") == CPU
    assert pick_device() == torch.device("cuda" if torch.cuda.is_available() else "cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
@pytest.mark.parametrize("name", ["cuda", "cuda:3"])
def test_a_device_that_is_not_there(name):
    with pytest.raises(ModelUnavailable, match=f"There is no usable device “{name}” here .*: use --device cpu.$"):
        pick_device(name)


NO_KERNEL = "CUDA error: no kernel image is available for execution on the device\nCUDA kernel errors might be reported later"


def test_a_card_that_this_torch_cannot_use_makes_way_for_the_cpu(monkeypatch):
    """The card is there, and its first kernel fails: too old or too new for this build."""
    told, working = [], loading._working

    def old_card(name):
        if name != "cpu":
            raise RuntimeError(NO_KERNEL)
        return working(name)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(loading, "_working", old_card)
    assert pick_device(None, told.append) == CPU
    assert told == [
        "Pictures are made on the CPU, slowly: this PyTorch cannot use the graphics card here"
        " (CUDA error: no kernel image is available for execution on the device)."
    ]
    with pytest.raises(ModelUnavailable, match=r"no usable device “cuda” here .*no kernel image is available"):
        pick_device("cuda", told.append)
    assert len(told) == 1


def test_that_the_card_cannot_be_used_is_told_with_the_first_load(saved, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(loading, "_working", lambda name: (_ for _ in ()).throw(RuntimeError(NO_KERNEL)))
    device, told = TorchDevice(), []
    for _ in range(2):
        device.load(spec_of(saved), lambda text, part: told.append(text))
    assert device.kind == "cpu"
    assert [text.partition(":")[0] for text in told] == [
        "Pictures are made on the CPU, slowly", "Loading The model ...", "Loading The model ...",
    ]  # fmt: skip


def test_a_device_that_does_not_exist():
    with pytest.raises(ModelUnavailable, match="no usable device “toaster”"):
        pick_device("toaster")


def test_dtype_by_device():
    assert pick_dtype(CPU) == torch.float32
    assert pick_dtype(torch.device("cuda")) == torch.float16
    assert pick_dtype(CPU, "bfloat16") == torch.bfloat16


# A download, from a hub of our own.

COMMIT = "0123456789abcdef0123456789abcdef01234567"

FETCH_AND_LOAD = """
import json, sys, torch
from engine.recipes.catalog import ModelSpec
from engine.diffusion.loading import fetch, load
from engine.errors import ModelUnavailable
told, told_again = [], []
spec = ModelSpec(name="it", title="The model", source="tests/tiny")
try:
    loaded = load(spec, torch.device("cpu"), torch.float32, lambda *one: told.append(one))
    fetch(spec, lambda *one: told_again.append(one))
    print(json.dumps({"revision": loaded.identity.result().revision, "told": told, "told_again": told_again}))
except ModelUnavailable as error:
    print(json.dumps({"error": str(error), "told": told}))
"""


class Hub(BaseHTTPRequestHandler):
    """The three answers of the model hub that a download needs."""

    folder: Path

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/api/models/tests/tiny/revision/main":
            self._answer(json.dumps({"id": "tests/tiny", "sha": COMMIT}).encode(), "application/json")
        elif path == f"/api/models/tests/tiny/tree/{COMMIT}":
            self._answer(json.dumps(self._tree()).encode(), "application/json")
        elif (file := self.folder / path.removeprefix(f"/tests/tiny/resolve/{COMMIT}/")).is_file():
            self._answer(file.read_bytes(), "application/octet-stream")
        else:
            self.send_error(404)

    do_HEAD = do_GET

    def _tree(self) -> list[dict]:
        files = [file for file in self.folder.rglob("*") if file.is_file()]
        return [
            {"type": "file", "path": str(file.relative_to(self.folder)), "size": file.stat().st_size, "oid": self._etag(file.read_bytes())}
            for file in files
        ]  # fmt: skip

    def _etag(self, content: bytes) -> str:
        return hashlib.sha1(content, usedforsecurity=False).hexdigest()

    def _answer(self, content: bytes, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("ETag", f'"{self._etag(content)}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def hub(saved):
    """The address of a hub that has the model "tests/tiny"."""
    with ThreadingHTTPServer(("127.0.0.1", 0), type("TheHub", (Hub,), {"folder": saved})) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fetch_and_load(home: Path, **environment: str) -> dict:
    """What FETCH_AND_LOAD tells, in a process of its own: huggingface_hub reads its settings once, at import."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FETCH_AND_LOAD], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False,
        env={**os.environ, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", **environment},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def check_download(told: dict) -> None:
    parts = [part for _, part in told["told"] if part is not None]
    assert parts == sorted(parts)
    assert parts[-1] == 1.0
    assert told["told"][0] == ["Asking the model hub for The model ...", None]
    assert told["told"][-1] == ["Loading The model ...", None]
    assert told["told_again"] == []
    assert told["revision"] == COMMIT


def test_a_model_is_downloaded_once(hub, tmp_path):
    check_download(fetch_and_load(tmp_path, HF_ENDPOINT=hub, TQDM_POSITION="-1"))  # -1: a bar without a terminal, too


def test_a_download_without_a_terminal(hub, tmp_path):
    check_download(fetch_and_load(tmp_path, HF_ENDPOINT=hub))


def test_a_hub_that_lacks_the_model(hub, tmp_path):
    told = fetch_and_load(tmp_path, HF_ENDPOINT=hub + "/elsewhere")
    assert "is not on this machine and the model hub cannot be reached" in told["error"]
