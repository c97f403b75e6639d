"""A checkpoint's chat template tells whether it opens the thought in the prompt."""

import json

import pytest
from genseg_hub.thinking import opens_thought, template_opens_thought
from tokenizers import Tokenizer, models
from transformers import AutoProcessor, PreTrainedTokenizerFast

from tests.helpers.families import save_family

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


@pytest.mark.parametrize("model_type", ["qwen3_vl", "qwen3_5", "glm4v"])
def test_the_folder_alone_tells_the_same_as_the_processor(model_type, tmp_path):
    folder = save_family(tmp_path / model_type, model_type)
    processor = AutoProcessor.from_pretrained(folder)
    assert template_opens_thought(folder) is opens_thought(processor) is (model_type == "qwen3_5")
    template = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").unlink()
    assert not template_opens_thought(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": template}))
    assert template_opens_thought(folder) is (model_type == "qwen3_5")


@pytest.mark.parametrize("template", ["{% for", "{{ raise_exception('no') }}", "{{ 1 / 0 }}", ""])
def test_a_template_that_does_not_render_tells_nothing(template, tmp_path):
    (tmp_path / "chat_template.jinja").write_text(template)
    assert not template_opens_thought(tmp_path)
