"""A pointer in A1111's own Train tab, where people look for training."""

from __future__ import annotations

import gradio as gr

TEXT = "<p>LoRAs are trained on the tab <b>LoRA Loom</b>.</p>"


def build() -> None:
    """Called inside the tabs of A1111's Train tab."""
    with gr.Tab("LoRA", elem_id="lora_loom_train_pointer"):
        gr.HTML(TEXT)
