"""build_page: the tabs, put together."""

from __future__ import annotations

import tomllib
from pathlib import Path

import gradio as gr

from engine.recipes.catalog import load_styles
from engine.recipes.plan import load_grids
from engine.running.engine import Engine
from ui.tabs.bench import Bench

HEAD = """
<div id="head">
  <h1>Darkroom</h1>
  <div class="choices" role="group" aria-label="Theme">
    <button type="button" data-theme-choice="dark">Dark</button>
    <button type="button" data-theme-choice="light">Light</button>
    <button type="button" data-theme-choice="system">System</button>
  </div>
</div>
"""

KEPT_FILES = (3600, 86400)
"""Seconds between two clean-ups of gradio's file cache, and the age at which a file goes: a day's session keeps its downloads."""


def build_page(engine: Engine, presets: Path) -> gr.Blocks:
    """The whole page over an engine. Nothing here imports torch: the page opens before it is loaded."""
    styles = load_styles(presets / "styles.toml")
    negatives = tomllib.loads((presets / "negatives.toml").read_text(encoding="utf-8"))
    gr.set_static_paths([engine.outputs])  # pictures are served from where they lie: gradio would copy each that can be downloaded
    with gr.Blocks(title="Darkroom", delete_cache=KEPT_FILES, analytics_enabled=False, fill_width=True) as page:
        gr.HTML(HEAD)
        Bench(engine, styles, negatives, load_grids(presets / "grids")).restore(page)
    return page
