"""What a colocated vLLM is given: one image token for each image, because it expands them itself."""

from types import SimpleNamespace

import pytest
from genseg_hub.dialects import genseg
from genseg_training import cli
from genseg_training.vllm_prompts import correct, unexpanded
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.helpers.grpo_runs import history, options
from tests.helpers.vllm_installed import installed_for_trl

IMAGE = 7
WORDS = st.lists(st.integers(0, 6), min_size=1, max_size=5)


class Vllm:
    """TRL's `VLLMGeneration`, corrected, with as many tokens for each image."""

    def __init__(self, tokens_of_an_image):
        self.tokens_of_an_image = tokens_of_an_image
        correct(self, SimpleNamespace(image_token_id=IMAGE))

    def generate(self, prompts, images, num_generations):
        self.got = prompts
        expanded = [
            [part for token in ids for part in [token] * (self.tokens_of_an_image if token == IMAGE else 1)]
            for ids in prompts
        ]
        return expanded, images, num_generations


@given(st.lists(st.tuples(WORDS, st.integers(1, 40)), max_size=4), WORDS)
def test_every_image_has_one_token_whatever_its_size(parts, end):
    expanded = [token for words, count in parts for token in [*words, *[IMAGE] * count]] + end
    short = [token for words, _ in parts for token in [*words, IMAGE]] + end
    assert unexpanded(expanded, IMAGE, len(parts)) == short
    assert unexpanded(short, IMAGE, len(parts)) == short


@pytest.mark.parametrize("images", [0, 2])
def test_another_number_of_images_is_refused(images):
    with pytest.raises(ValueError, match=rf"1 runs of the image token 7 for {images} images.*--use_vllm false"):
        unexpanded([1, IMAGE, IMAGE, 2], IMAGE, images)


def test_a_prompt_without_images_stays_as_it_is():
    vllm = Vllm(tokens_of_an_image=2)
    assert vllm.generate(prompts=[[1, 2]], images=None, num_generations=3) == ([[1, 2]], None, 3)
    vllm.generate([[1, IMAGE, IMAGE], [2]], [["an image"], None], 1)
    assert vllm.got == [[1, IMAGE], [2]]


def test_another_size_of_the_image_in_vllm_is_refused():
    with pytest.raises(ValueError, match=r"a prompt of 4 tokens where the policy has 3.*--use_vllm false"):
        Vllm(tokens_of_an_image=3).generate([[1, IMAGE, IMAGE]], [["an image"]], 1)


@pytest.mark.parametrize("size", [(96, 96), (640, 480), (333, 512)])
def test_it_is_the_prompt_that_the_tokenizer_alone_makes(nano, size):
    processor = nano.reasoner.processor
    chat = processor.apply_chat_template(genseg.messages(size, "the red cross"), tokenize=False)
    expanded = processor(text=[chat], images=[Image.new("RGB", size)])["input_ids"][0]
    alone = processor.tokenizer(chat)["input_ids"]
    assert len(expanded) > len(alone)
    assert unexpanded(expanded, processor.image_token_id, 1) == alone


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"use_peft": True, "lora_target_modules": ["q_proj", "v_proj"]}])
def test_a_run_that_samples_with_vllm_has_the_figures_of_one_that_does_not(tmp_path, more):
    with installed_for_trl() as vllm:
        cli.main(options(tmp_path / "vllm", use_vllm=True, vllm_mode="colocate", **more))
        (made,) = vllm.LLM.made
    assert made["distributed_executor_backend"] == "external_launcher"
    cli.main(options(tmp_path / "ours", **more))
    sampled, ours = history(tmp_path / "vllm"), history(tmp_path / "ours")
    assert sampled[0]["eval_miou"] == ours[0]["eval_miou"] > 0.3
    assert all(entry["rewards/format_reward/mean"] > 0.5 for entry in sampled if "loss" in entry)
