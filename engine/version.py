"""Which Darkroom this is: written into every picture, and so known to rooms that know nothing of the engine's top."""

VERSION = "0.2.0.dev0"
