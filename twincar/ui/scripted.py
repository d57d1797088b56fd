"""A component of our own: markup and a script next to this file, in a gr.HTML."""

from pathlib import Path
from typing import Any

import gradio as gr


def scripted(value: Any, markup: str, script: str, elem_id: str, **properties: Any) -> gr.HTML:
    """Draw a component into the open Blocks.

    Args:
        value: What the script reads as `props.value`.
        markup: The HTML that the script fills.
        script: Name of a file in this folder, which runs once with the component as `element`.
        elem_id: Its id.
        **properties: Further constants that the script reads from `props`.
    """
    return gr.HTML(
        value,
        html_template=markup,
        js_on_load=Path(__file__).with_name(script).read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id=elem_id,
        **properties,
    )
