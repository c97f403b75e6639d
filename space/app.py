"""A Gradio page: an image and an expression become masks.

MODEL_ID names the checkpoint: "nano", a Hub id (also owner/name@revision), or a folder. SERVER is the address of an
OpenAI-compatible server that has the reasoner, if it is set.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gradio as gr
from genseg_hub import GenSegR1, Prediction
from genseg_hub.errors import CheckpointError, ReasonerError, SegmenterError
from genseg_hub.overlay import draw_prediction
from PIL import Image

MODEL_ID = os.environ.get("MODEL_ID", "nano")
SERVER = os.environ.get("SERVER") or None
SCENE = str(Path(__file__).with_name("scene.png"))
EXPRESSIONS = ("the topmost star", "the small purple shape", "the green star")
NANO = "**nano knows drawn shapes only, not photographs.** Another checkpoint: set `MODEL_ID`."

model = GenSegR1.from_pretrained(MODEL_ID, server=SERVER)


def segment(image: Image.Image | None, expression: str) -> Iterator[tuple[Any, str, str]]:
    """Yield the picture with masks, the outcome and the answer.

    They come while the answer is generated.
    """
    if image is None:
        raise gr.Error("Choose an image first.")
    try:
        for state in model.ask(image, expression):
            if state.prediction is None:
                yield image, "Answering ...", state.text
            else:
                yield draw_prediction(image, state.prediction), outcome(state.prediction), state.text
    except (CheckpointError, ReasonerError, SegmenterError, ValueError, TypeError) as error:
        raise gr.Error(str(error)) from error


def outcome(prediction: Prediction) -> str:
    """Return the result of an expression, as a sentence."""
    count = len(prediction.masks)
    if count:
        return f"{count} mask{'s' if count > 1 else ''}."
    if prediction.response.no_target:
        return "The model says that nothing in the image is meant."
    return f"The answer cannot be used: {prediction.response.error}."


with gr.Blocks(title="Referring segmentation") as page:
    gr.Markdown(f"# Referring segmentation\nDescribe a thing in words, get its mask. Checkpoint: `{MODEL_ID}`.")
    if MODEL_ID == "nano":
        gr.Markdown(NANO)
    with gr.Row():
        with gr.Column():
            picture = gr.Image(type="pil", label="Image", image_mode="RGB")
            words = gr.Textbox(label="Expression", placeholder="the dog left of the bench", submit_btn=True)
            gr.Examples([[SCENE, expression] for expression in EXPRESSIONS], [picture, words], label="Drawn shapes")
        with gr.Column():
            masks = gr.Image(label="Masks", interactive=False, format="png")
            said = gr.Textbox(label="Outcome", interactive=False)
            answer = gr.Textbox(label="Answer of the model", interactive=False, lines=8)
    words.submit(segment, [picture, words], [masks, said, answer], api_name="segment")

if __name__ == "__main__":
    page.launch()
