"""The look: of this machine only, and readable."""

from __future__ import annotations

import re

import pytest

from ui.theme import SAFELIGHT, SCRIPTS, SILVER, make_theme, page_assets, read_asset

ASSETS = page_assets()
THEME = make_theme()
HUES = {"neutral": SILVER, "primary": SAFELIGHT}


def color(name: str) -> str:
    """A setting of the theme as "#rrggbb": "white", or "*hue_number"."""
    hue, _, number = getattr(THEME, name).removeprefix("*").partition("_")
    return getattr(HUES[hue], f"c{number}") if number else {"white": "#ffffff"}[hue]


def luminance(color: str) -> float:
    """WCAG 2.2's relative luminance of "#rrggbb"."""
    channels = [int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    red, green, blue = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    dark, light = sorted([luminance(first), luminance(second)])
    return (light + 0.05) / (dark + 0.05)


def test_launch_gets_theme_style_and_script() -> None:
    assert ASSETS.keys() == {"theme", "css", "head", "favicon_path"}
    assert ".stage" in ASSETS["css"]
    assert "darkroom-theme" in ASSETS["head"]


@pytest.mark.parametrize("name", ["css", "head"])
def test_the_page_asks_nobody_else(name: str) -> None:
    assert not re.search(r"https?:|@import|url\(\s*['\"]?//|src=", ASSETS[name])


def test_the_theme_asks_nobody_else() -> None:
    assert THEME._stylesheets == []
    assert re.findall(r"""url\((?!["']?data:)[^)]*|@import.*""", THEME._get_theme_css()) == []


def test_neither_a_script_nor_a_style_sheet_closes_itself() -> None:
    for tag, count in (("script", len(SCRIPTS)), ("style", 1)):
        assert ASSETS["head"].count(f"<{tag}>") == ASSETS["head"].count(f"</{tag}>") == count
    assert ASSETS["head"].endswith("</script>")


def test_the_script_that_others_build_on_comes_before_them() -> None:
    assert SCRIPTS.index("sheet.js") < min(SCRIPTS.index("loupe.js"), SCRIPTS.index("blind.js"))


@pytest.mark.parametrize("name", ["darkroom.css", "sheet.css"])
def test_braces_and_brackets_of_the_style_are_balanced(name: str) -> None:
    for opening, closing in ("{}", "()", "[]"):
        assert read_asset(name).count(opening) == read_asset(name).count(closing)


def test_contrast_of_black_on_white_is_known() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("dark", ["", "_dark"], ids=["light", "dark"])
@pytest.mark.parametrize("text", ["block_title_text_color", "block_info_text_color", "body_text_color_subdued"])
def test_text_can_be_read(text: str, dark: str) -> None:
    assert contrast(color(text + dark), color("body_background_fill" + dark)) >= 4.5


@pytest.mark.parametrize("dark", ["", "_dark"], ids=["light", "dark"])
def test_the_generate_button_can_be_read(dark: str) -> None:
    assert contrast(color("button_primary_text_color"), color("button_primary_background_fill" + dark)) >= 4.5


def test_what_went_wrong_can_be_read() -> None:
    assert ".refusal" in ASSETS["css"]
    assert contrast(SAFELIGHT.c700, SILVER.c100) >= 4.5
    assert contrast(SAFELIGHT.c300, SILVER.c950) >= 4.5
