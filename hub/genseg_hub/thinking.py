"""Tell whether a chat template opens the thought, as Thinking models' do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_REQUEST = "Name the colour."
_CHAT = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": _REQUEST}]}]
_TEMPLATE_FILES = ("chat_template.jinja", "chat_template.json", "processor_config.json", "tokenizer_config.json")


def opens_thought(processor: Any) -> bool:
    """Return whether a prompt ends in an open thought, so that answers lack `<think>`.

    The function renders a chat of one message and looks at the text after the message. A template may name the tags in
    its own instructions before the message, and may close an empty thought after it.

    Args:
        processor: processor or tokenizer of the checkpoint, with a chat template.

    Raises:
        ValueError: there is no chat template.
    """
    return _is_open(str(processor.apply_chat_template(_CHAT, tokenize=False, add_generation_prompt=True)))


def template_opens_thought(folder: Path) -> bool:
    """Return whether the chat template of a checkpoint's folder opens the thought.

    The tokenizer is not loaded. Without a template that renders the answer is False.

    Args:
        folder: folder with the files of the checkpoint, of which all may be missing.
    """
    from transformers.utils.chat_template_utils import render_jinja_template

    template = next((text for name in _TEMPLATE_FILES if (text := _template(folder / name))), None)
    if template is None:
        return False
    try:
        prompts: Any = render_jinja_template([_CHAT], chat_template=template, add_generation_prompt=True)[0]
    except Exception:  # noqa: BLE001  a stranger's template; loading it gives the error
        return False
    return _is_open(prompts[0])


def _template(file: Path) -> str | None:
    """Return the chat template of a file; None if it has none."""
    if not file.is_file():
        return None
    try:
        text = file.read_text()
        found = text if file.suffix == ".jinja" else json.loads(text).get("chat_template")
    except (OSError, ValueError, AttributeError, RecursionError):
        return None
    return found if isinstance(found, str) else None


def _is_open(prompt: str) -> bool:
    end = prompt.rpartition(_REQUEST)[2]
    return end.rfind("<think>") > end.rfind("</think>")
