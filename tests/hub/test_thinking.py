"""A checkpoint's chat template tells whether it opens the thought in the prompt."""

import pytest
from genseg_hub.thinking import opens_thought
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

CHAT = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for c in m.content %}{{ c.text }}{% endfor %}{% endfor %}"
INSTRUCTIONS = "Think in <think>"


@pytest.mark.parametrize(
    ("before", "after", "opened"),
    [
        ("", "<|im_start|>assistant\n", False),
        ("", "<|im_start|>assistant\n<think>\n", True),
        ("", "<|im_start|>assistant\n<think>\n\n</think>\n\n", False),
        (INSTRUCTIONS, "<|im_start|>assistant\n", False),
        (INSTRUCTIONS, "<|im_start|>assistant\n<think>", True),
    ],
)
def test_the_end_of_the_prompt_decides(before, after, opened):
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
    tokenizer.chat_template = f"{before}{CHAT}{{% if add_generation_prompt %}}{after}{{% endif %}}"
    assert opens_thought(tokenizer) is opened


def test_nano_opens_its_thought_itself(nano):
    assert not opens_thought(nano.reasoner.processor)
