"""What a value must look like to go through gr.HTML's template and come out as the text it was."""

from __future__ import annotations

from typing import Any


def literal(value: Any) -> Any:
    """`value` (text, or lists and dicts of it) for an html_template's {{ }}.

    Handlebars escapes what HTML would take for markup, but gradio 6 then evaluates the filled-in template as a
    JavaScript template literal: a stranger's "${...}" would run, and a backslash would vanish. Both are escaped
    here; `tests/e2e/test_hostile_text.py` holds it in a real browser.
    """
    if isinstance(value, str):
        return value.replace("\\", "\\\\").replace("$", "\\$")
    if isinstance(value, list):
        return [literal(item) for item in value]
    if isinstance(value, dict):
        return {key: literal(item) for key, item in value.items()}
    return value
