"""What is trained and how: `config.toml` and `sources.toml` as checked values."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from engine.errors import InvalidRequest

HERE = Path(__file__).resolve().parent
CONFIG, SOURCES = HERE / "config.toml", HERE / "sources.toml"


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Table):
    """One npm package, by version and hash, with the licence that it states for itself."""

    package: str
    version: str
    integrity: str = Field(pattern=r"^sha512-")
    license: str
    attribution: str
    wordings: tuple[str, ...] = ()
    """How captions name the style; the first is the usual one."""
    codes_from: str | None = None
    """The style whose package says which icon is which code point, where this one does not."""


class Sources(_Table):
    """The package of names and keywords, and one of pictures for each style."""

    words: Source
    styles: dict[str, Source]


class SubjectRules(_Table):
    """Which subjects are trained on."""

    left_out_subgroups: tuple[str, ...]
    left_out_names: tuple[str, ...]
    """Parts of names."""
    min_styles: int = Field(ge=1)
    also_called: dict[str, tuple[str, ...]] = {}
    """What people call a subject beside its name and its short names, by its name."""


class HeldOut(_Table):
    """What training never sees together; `split.py` draws it by hash."""

    seed: int
    subject_share: float = Field(ge=0, le=1)
    """Of the subjects: each is held out in one of its styles."""
    pair_share: float = Field(ge=0, le=1)
    """Of all pairs of subjects: never composed in one picture."""
    min_styles: int = Field(ge=4)
    """Styles that a subject must have to be held out in one or two: it is still seen in two others."""
    alike: tuple[tuple[str, str], ...]
    """Styles of nearly the same pictures, which are held out together: one would give the other away."""


class SceneRules(_Table):
    """Shares of what is composed and said, each from 0 to 1."""

    seed: int
    white: float
    pairs: float
    placed: float
    recoloured: float
    steady: float
    """Of subjects alone in the picture: those that fill it as their art does. The others are a little smaller, and moved."""
    say_style: float
    say_white: float
    say_colour: float
    say_synonym: float
    say_keywords: float
    wordings: int = Field(ge=1)
    """Captions a scene."""


class VaeSettings(_Table):
    channels: tuple[int, ...]
    latent_channels: int
    layers: int
    groups: int


class TextSettings(_Table):
    width: int
    layers: int
    heads: int
    tokens: int
    """Positions, start and end marks included."""
    vocabulary: int = Field(ge=514)
    """At most; 512 bytes and two marks are the least."""


class UnetSettings(_Table):
    channels: tuple[int, ...]
    layers: int
    heads: tuple[int, ...]
    attention: tuple[bool, ...]
    """Cross-attention, by size, the largest first."""
    groups: int
    pooled_text: bool
    """Whether the prompt as a whole is added to the timestep's embedding, so that every block knows it, with cross-attention or not."""


class TinySettings(_Table):
    channels: int
    blocks: int


class Schedule(_Table):
    """Of one training: AdamW, the learning rate warmed up, flat, then along a cosine to 0."""

    seed: int
    steps: int = Field(ge=1)
    batch: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    warm_up: int = Field(ge=0)
    """Steps."""
    flat_share: float = Field(ge=0, lt=1)
    """Of the steps, before the cosine begins."""
    restart_at: int = Field(0, ge=0)
    """The step at which the rate begins anew, a warm restart (SGDR, arXiv:1608.03983), so that a finished training goes on; 0: never."""
    weight_decay: float = Field(ge=0)
    ema: float = Field(ge=0, lt=1)
    clip: float = Field(gt=0)
    """Norm of the gradient."""
    log_every: int = Field(ge=1)
    keep_every: int = Field(ge=1)
    """Steps between checkpoints, or a few more: one is written with a line of the log."""


class VaeTraining(Schedule):
    kl: float
    crop: int
    """Pixels; whole pictures follow in the last quarter."""


class DiffusionTraining(Schedule):
    caption_dropout: float
    min_snr: float
    """Gamma of arXiv:2303.09556."""
    known_times: int
    """How often scenes of known.txt's subjects, which people ask for first, come round while the others come once."""
    style_times: dict[str, int] = {}
    """The same for scenes of a style: one that is drawn like no other has to be learnt from its own pictures alone."""


class Profile(_Table):
    """One size of model, from pictures to weights."""

    size: int
    """Pixels of a picture's side."""
    scenes: int
    """Pictures composed, whose latents are trained on."""
    groups: tuple[str, ...] = ()
    """emojibase's groups of subjects; none means all."""
    newest_version: float = 99.0
    """Emoji version; early ones are the well-known subjects."""
    names: tuple[str, ...] = ()
    """The subjects' own names; none means all that are left by `groups` and `newest_version`."""
    vae: VaeSettings
    text: TextSettings
    unet: UnetSettings
    tiny: TinySettings
    vae_training: VaeTraining
    diffusion: DiffusionTraining
    tiny_training: Schedule


class Config(_Table):
    """config.toml."""

    picture_size: int
    """Pixels, as rendered once for all profiles."""
    subjects: SubjectRules
    held_out: HeldOut
    scenes: SceneRules
    profiles: dict[str, Profile]

    def profile(self, name: str) -> Profile:
        """Raises InvalidRequest, naming those that exist."""
        if name not in self.profiles:
            raise InvalidRequest(f"There is no profile “{name}”; config.toml has {', '.join(self.profiles)}.")
        return self.profiles[name]


_Read = TypeVar("_Read", bound=_Table)


def load_config(file: Path = CONFIG) -> Config:
    """Raises InvalidRequest with the first wrong key."""
    return _read(Config, file)


def load_sources(file: Path = SOURCES) -> Sources:
    """Raises InvalidRequest with the first wrong key."""
    return _read(Sources, file)


def _read(kind: type[_Read], file: Path) -> _Read:
    try:
        return kind.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
    except (ValidationError, tomllib.TOMLDecodeError) as error:
        raise InvalidRequest(f"{file.name} cannot be read: {_first_reason(error)}.") from error


def _first_reason(error: ValidationError | tomllib.TOMLDecodeError) -> str:
    if not isinstance(error, ValidationError):
        return str(error)
    first = error.errors()[0]
    return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
