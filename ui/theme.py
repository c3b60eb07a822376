"""The look: a darkroom. Quiet warm greys, one safelight red, and the picture the brightest thing on the page."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gradio as gr

ASSETS = Path(__file__).resolve().parent / "assets"

SAFELIGHT = gr.themes.Color(
    name="safelight", c50="#fff3f0", c100="#ffe2db", c200="#ffc4b6", c300="#ff9d86", c400="#ff7355", c500="#f4502f",
    c600="#d93a1c", c700="#b32c14", c800="#8c2411", c900="#6b1e11", c950="#3a0d06",
)  # fmt: skip
SILVER = gr.themes.Color(
    name="silver", c50="#f7f6f4", c100="#eeece9", c200="#dfdcd7", c300="#c6c1ba", c400="#a09a92", c500="#7c766f",
    c600="#5b5651", c700="#3d3936", c800="#272422", c900="#191716", c950="#100f0e",
)  # fmt: skip


def make_theme() -> gr.themes.Base:
    """System fonts only: the page makes no request outside of its own machine."""
    theme = gr.themes.Base(
        primary_hue=SAFELIGHT, secondary_hue=SAFELIGHT, neutral_hue=SILVER,
        font=["ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "sans-serif"],
        font_mono=["ui-monospace", "SF Mono", "Consolas", "monospace"],
        radius_size=gr.themes.sizes.radius_md, spacing_size=gr.themes.sizes.spacing_md,
    )  # fmt: skip
    return theme.set(
        body_background_fill="*neutral_100", body_background_fill_dark="*neutral_950",
        background_fill_primary_dark="*neutral_900", background_fill_secondary_dark="*neutral_950",
        block_background_fill="transparent", block_background_fill_dark="transparent",
        block_border_width="0px", block_shadow="none", block_padding="0px",
        block_label_background_fill="transparent", block_label_background_fill_dark="transparent",
        block_title_text_weight="500", block_title_text_size="*text_sm",
        block_title_text_color="*neutral_700", block_title_text_color_dark="*neutral_300",
        block_info_text_color="*neutral_600", block_info_text_color_dark="*neutral_400",
        body_text_color_subdued="*neutral_600", body_text_color_subdued_dark="*neutral_400",
        input_background_fill="white", input_background_fill_dark="*neutral_800",
        input_border_color="*neutral_300", input_border_color_dark="*neutral_700", input_border_width="1px",
        input_border_color_focus="*primary_500", input_border_color_focus_dark="*primary_500",
        button_primary_background_fill="*primary_600", button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600", button_primary_background_fill_hover_dark="*primary_500",
        button_primary_text_color="white", slider_color="*primary_500", slider_color_dark="*primary_500",
        checkbox_background_color_selected="*primary_600", checkbox_background_color_selected_dark="*primary_600",
        checkbox_label_background_fill_selected="*primary_100", checkbox_label_background_fill_selected_dark="*primary_950",
        checkbox_label_border_color_selected="*primary_500", checkbox_label_border_color_selected_dark="*primary_500",
    )  # fmt: skip


SCRIPTS = ("darkroom.js", "memory.js", "sheet.js", "loupe.js", "blind.js", "stage.js")


def page_assets() -> dict[str, Any]:
    """What gradio 6 wants handed to `launch` instead of to Blocks."""
    scripts = "".join(f"<script>{read_asset(name)}</script>" for name in SCRIPTS)
    # In the head, since gradio prefixes each part between commas of what it is handed as css, also inside :is(...).
    sheet = f"<style>{read_asset('sheet.css')}</style>"
    head = f'<meta name="color-scheme" content="dark light"><meta name="referrer" content="no-referrer">{sheet}{scripts}'
    return {"theme": make_theme(), "css": read_asset("darkroom.css"), "head": head, "favicon_path": ASSETS / "favicon.svg"}


def read_asset(name: str) -> str:
    """One of the page's own scripts or style sheets."""
    return (ASSETS / name).read_text(encoding="utf-8")
