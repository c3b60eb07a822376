"""The engine: a Recipe describes one image, a Plan is a grid of recipes, the Engine turns a plan into Events.

Usable without the page and without gradio. Nothing at this level imports torch; engine.diffusion does.
"""

__version__ = "0.2.0.dev0"
