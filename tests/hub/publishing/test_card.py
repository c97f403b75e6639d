"""Model cards state the facts of their folder."""

import json

import huggingface_hub
import pytest
from genseg_hub.publishing import card, publish

REPORT = {
    "benchmark": "RefScenes 1.0 val",
    "command": "genseg evaluate refscenes --split val --limit 400",
    "policy": "grefcoco",
    "n": 400,
    "ciou": 0.77612,
    "miou": 0.8,
    "target_miou": 0.7,
    "n_acc": None,
    "t_acc": 0.9,
    "pr@0.5": 0.85,
    "parse_failures": 0.01,
    "step": 120,
}


@pytest.fixture
def trained(folder):
    """Make a folder like a training run's output."""
    (folder / "README.md").unlink()
    (folder / "evaluation").mkdir()
    (folder / "evaluation" / "held_out.json").write_text(json.dumps(REPORT))
    (folder / "recipe.yaml").write_text("learning_rate: 3.0e-5\n")
    (folder / "curves.png").write_bytes(b"png")
    settings = json.loads((folder / "genseg.json").read_text())
    settings |= {"base_model": "Qwen/Qwen3-VL-2B-Instruct", "versions": {"trl": "1.16.0", "peft": None}}
    (folder / "genseg.json").write_text(json.dumps(settings))
    return folder


def test_a_card_states_the_facts_of_its_folder(hub, trained):
    publish.push(trained, "me/r1")
    made = huggingface_hub.ModelCard(hub.content("me/r1", "README.md").decode())
    assert made.data.base_model == "Qwen/Qwen3-VL-2B-Instruct"
    assert (made.data.license, made.data.pipeline_tag) == ("apache-2.0", "image-segmentation")
    figures = {result.metric_type: result.metric_value for result in made.data.eval_results}
    assert figures == {"ciou": 0.7761, "miou": 0.8, "target_miou": 0.7, "t_acc": 0.9, "pr@0.5": 0.85}
    for part in (
        'GenSegR1.from_pretrained("me/r1")',
        "| RefScenes 1.0 val (step 120) | grefcoco | 400 | 0.776 | 0.800 | 0.700 | - | 0.900 | 0.850 | - | - | 1.00% |",
        "learning_rate: 3.0e-5",
        "![training curves](curves.png)",
        "trl 1.16.0",
        "not the weights of the paper's authors",
        "genseg evaluate refscenes --split val --limit 400 --model me/r1",
        "2602.09701",
    ):
        assert part in made.text
    assert "peft" not in made.text


def test_a_card_of_few_facts_has_no_empty_sections(folder):
    (folder / "README.md").unlink()
    for file in (folder / "logs").iterdir():
        file.unlink()
    settings = {"dialect": "genseg", "segmenter": "segmenter"}
    (folder / "genseg.json").write_text(json.dumps(settings))
    text = card.card(folder, "me/r1").text
    assert [line for line in text.splitlines() if line.startswith("#")] == [
        "# r1",
        "## Use",
        "## Training",
        "## Limits",
        "## Citation",
    ]
    assert "The folder that was published does not say how it was trained." in text
    assert "It was published without figures: evaluate it before use." in text
    assert "\n\n\n" not in text
    assert text.endswith("(https://arxiv.org/abs/2602.09701).\n")


def test_a_card_is_the_same_each_time(trained):
    assert str(card.card(trained, "me/r1")) == str(card.card(trained, "me/r1"))


def test_a_hand_written_card_keeps_its_text_and_gets_the_figures(trained):
    (trained / "README.md").write_text("---\nlicense: mit\ntags: [mine]\n---\n\n# Mine\n\nwords\n")
    made = huggingface_hub.ModelCard(str(card.card(trained, "me/r1")))
    assert made.text.strip() == "# Mine\n\nwords"
    assert made.data.license == "mit"
    assert made.data.tags[:2] == ["mine", "genseg-r1"]
    assert made.data.library_name == "fiftyone-genseg"
    assert {result.metric_type for result in made.data.eval_results} >= {"ciou", "miou"}
