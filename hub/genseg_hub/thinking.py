"""Tell whether a checkpoint's chat template opens the thought in the prompt, as templates of Thinking models do."""

from __future__ import annotations

from typing import Any

_REQUEST = "Name the colour."


def opens_thought(processor: Any) -> bool:
    """Return whether the prompt ends inside an open thought, so that an answer lacks its `<think>`.

    The function renders a chat of one message and looks at the text after the message. A template may name the tags in
    its own instructions before the message, and may close an empty thought after it.

    Args:
        processor: processor or tokenizer of the checkpoint, with a chat template.

    Raises:
        ValueError: there is no chat template.
    """
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _REQUEST}]}]
    prompt = str(processor.apply_chat_template(chat, tokenize=False, add_generation_prompt=True))
    end = prompt.rpartition(_REQUEST)[2]
    return end.rfind("<think>") > end.rfind("</think>")
