"""A slider whose field takes any number: what is wrong with it is said by whoever reads it.

In a module of its own, as gradio writes the .pyi of a component's class beside it.
"""

from __future__ import annotations

import gradio as gr


class Slider(gr.Slider):
    """gradio's own answers a number beyond its ends, typed into its field, with an error of the server's that nobody sees."""

    is_template = True  # to the browser it is gradio's

    def preprocess(self, payload: float) -> float:
        return payload
