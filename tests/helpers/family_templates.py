"""Chat templates of the families that no installed package carries, in the shortest form that asks one question.

Each one writes the turns and the place of the image. Tools, thoughts, videos and several images are left out. None
was downloaded: COHERE, HY_V4, MINICPM and CHATML for Cosmos3-Edge follow a related family and the processor's tokens.
"""

from importlib import resources


def of_trl(name: str) -> str:
    """Return a chat template that TRL carries: a copy of the published one."""
    return resources.files("trl").joinpath(f"chat_templates/{name}.jinja").read_text()


def hunyuan(name: str) -> str:
    """Return a special token of Tencent's tokenizers, which has full-width bars."""
    return f"<\uff5c{name}\uff5c>"


def _turns(begin: str, turn: str, image: str, end: str, answer: str) -> str:
    """Return a template of turns.

    Args:
        begin: text before the first turn.
        turn: text before the content of a turn, in which `{{ m.role }}` is the role.
        image: text in the place of an image.
        end: text after the content of a turn.
        answer: text that asks for the answer.
    """
    content = f"{{% if part.type == 'image' %}}{image}{{% else %}}{{{{ part.text }}}}{{% endif %}}"
    return (
        f"{begin}{{% for m in messages %}}{turn}{{% if m.content is string %}}{{{{ m.content }}}}{{% else %}}"
        f"{{% for part in m.content %}}{content}{{% endfor %}}{{% endif %}}{end}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{answer}{{% endif %}}"
    )


def _chatml(image: str) -> str:
    return _turns("", "<|im_start|>{{ m.role }}\n", image, "<|im_end|>\n", "<|im_start|>assistant\n")


# zai-org's GLM-4.xV and GLM-OCR checkpoints.
GLM = _turns("[gMASK]<sop>", "<|{{ m.role }}|>\n", "<|begin_of_image|><|image|><|end_of_image|>", "", "<|assistant|>\n")
# Qwen3-Omni; also NVIDIA's Cosmos3-Edge, whose processor names this wrapper of an image in its docstrings.
CHATML = _chatml("<|vision_start|><|image_pad|><|vision_end|>")
# Qwen2.5-Omni.
QWEN2_5_OMNI = _chatml("<|vision_bos|><|IMAGE|><|vision_eos|>")
# OpenBMB's MiniCPM-V 4.6 and 4.7. The processor writes <image> and </image> around the tokens of an image.
MINICPM = _chatml("<|image_pad|>")
# PaddlePaddle's PaddleOCR-VL.
PADDLE_OCR = _turns(
    "<|begin_of_sentence|>",
    "{% if m.role == 'user' %}User: {% elif m.role == 'assistant' %}Assistant: {% endif %}",
    "<|IMAGE_START|><|IMAGE_PLACEHOLDER|><|IMAGE_END|>",
    "{{ '\n' }}",  # a bare newline after a block would be trimmed
    "Assistant: ",
)
# Baidu's ERNIE-4.5-VL.
ERNIE = PADDLE_OCR.replace("<|IMAGE_START|>", "Picture 1:<|IMAGE_START|>")
# Tencent's HunyuanOCR: the prompt ends with the token of the user's turn. Hy4's template could not be read. It has the
# same form here, with the pad token that Hy4's processor puts in the place of an image.
HUNYUAN_IMAGE = tuple(hunyuan(f"hy_place▁holder▁no▁{number}") for number in (100, 102, 101))  # start, image, end
HUNYUAN_BEGIN, HUNYUAN_USER = hunyuan("hy_begin▁of▁sentence"), hunyuan("hy_User")
HUNYUAN_SYSTEM = hunyuan("hy_place▁holder▁no▁3")
HUNYUAN = _turns(
    HUNYUAN_BEGIN,
    "",
    "".join(HUNYUAN_IMAGE),
    f"{{% if m.role == 'system' %}}{HUNYUAN_SYSTEM}{{% else %}}{HUNYUAN_USER}{{% endif %}}",
    "",
)
HY_V4 = HUNYUAN.replace(HUNYUAN_IMAGE[1], "<|image_pad|>")
# The turns of Cohere's Command models, with the image tokens that the processor of North-Micro-Vision names.
COHERE = _turns(
    "<BOS_TOKEN>",
    "<|START_OF_TURN_TOKEN|><|{{ 'CHATBOT' if m.role == 'assistant' else m.role | upper }}_TOKEN|>",
    "<|VISION_START|><|IMAGE_PAD|><|VISION_END|>",
    "<|END_OF_TURN_TOKEN|>",
    "<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>",
)
