"""Model cards state the facts of their folder."""

import json

import huggingface_hub
import pytest
import yaml
from genseg_hub.errors import PublishError
from genseg_hub.publishing import card, eval_results, publish

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


ON_HUB = REPORT | {"benchmark": "me/refscenes:test", "dataset": {"id": "me/refscenes", "task_id": "test"}}


def _evaluated(folder, **reports):
    for name, report in reports.items():
        (folder / "evaluation" / f"{name}.json").write_text(json.dumps(report))


def test_figures_on_a_dataset_of_the_hub_are_published_as_its_results(hub, trained):
    _evaluated(trained, held_out=ON_HUB, start=ON_HUB | {"start": True}, scenes=REPORT)
    publish.push(trained, "me/r1")
    kept = {path for path in hub.paths("me/r1") if path.startswith(".eval_results/")}
    assert kept == {".eval_results/held_out.yaml"}, "neither the start's, nor of examples that are not on the Hub"
    content = yaml.safe_load(hub.content("me/r1", ".eval_results/held_out.yaml"))
    (entry,) = huggingface_hub.parse_eval_result_entries(content)
    assert (entry.dataset_id, entry.task_id, entry.value) == ("me/refscenes", "test", 0.8)
    assert entry.notes == "mIoU of 400 expressions, policy grefcoco"
    made = huggingface_hub.ModelCard(hub.content("me/r1", "README.md").decode())
    types = {result.dataset_config: result.dataset_type for result in made.data.eval_results}
    assert types == {"held_out": "me/refscenes", "scenes": "refscenes-1.0-val"}


def test_results_of_earlier_weights_do_not_stay(hub, trained):
    _evaluated(trained, held_out=ON_HUB)
    publish.push(trained, "me/r1")
    _evaluated(trained, held_out=REPORT)
    publish.push(trained, "me/r1")
    assert not [path for path in hub.paths("me/r1") if path.startswith(".eval_results/")]


def test_an_undefined_figure_is_no_result(trained):
    _evaluated(trained, held_out=ON_HUB | {"miou": None})
    assert eval_results.files(card.reports(trained)) == {}


@pytest.mark.parametrize("stated", [{"id": "/data/mine", "task_id": "test"}, {"id": "me/mine"}, "me/mine"])
def test_a_result_that_names_no_dataset_of_the_hub_is_refused(hub, trained, stated):
    _evaluated(trained, held_out=ON_HUB | {"dataset": stated})
    with pytest.raises(PublishError, match=r"model card .* cannot be made, nothing .* expected a Hub id"):
        publish.push(trained, "me/r1")
    assert hub.requests == []


def test_the_card_names_the_datasets_of_the_training(trained):
    settings = json.loads((trained / "genseg.json").read_text())
    (trained / "genseg.json").write_text(json.dumps(settings | {"datasets": ["me/refscenes", "/data/mine"]}))
    assert card.card(trained, "me/r1").data.datasets == ["me/refscenes"]
    (trained / "README.md").write_text("---\ndatasets: [me/other]\n---\n\n# Mine\n")
    assert card.card(trained, "me/r1").data.datasets == ["me/other"], "what a person wrote counts"


def test_a_card_has_the_fields_that_the_hub_searches(trained):
    data = card.card(trained, "me/r1").data
    assert (data.library_name, data.pipeline_tag) == ("fiftyone-genseg", "image-segmentation")
    assert data.base_model == "Qwen/Qwen3-VL-2B-Instruct"
    assert data.get("datasets") is None, "no Hub dataset is known"
