"""The only place that imports torch, diffusers and transformers."""

import os

# Read once at import: without it transformers prints lines about torchvision, which nothing here needs.
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
