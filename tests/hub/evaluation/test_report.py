"""Reports of a run: figures beside published ones, and a page that shows text as text and loads nothing."""

import base64
import io
import json
from html.parser import HTMLParser

import numpy as np
import pytest
from genseg_hub import archives
from genseg_hub.evaluation import benchmark_run, gallery, literature, report
from genseg_hub.evaluation.metrics import get_policy
from genseg_hub.referring_dataset import to_dataset
from genseg_hub.schema import Failure, Prediction, ReferringExample, Response, encode_mask
from PIL import Image

SETTINGS = {"benchmark": "refcocog", "split": "val", "model": "a|<b>model</b>\nx"}
EVIL = '<script>alert("1")</script><img src=x onerror=alert(2)> \u202e\x00 {{ 7 * 7 }} </bdi></pre>'
SIZE = (60, 40)


class Page(HTMLParser):
    """Elements, addresses, handlers and text of a page, as a browser reads them."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.addresses, self.handlers, self.text = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for name, value in attributes if name in ("src", "href", "srcset", "action", "data")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]

    def handle_data(self, data):
        self.text += f" {data} "


def square(x, y, side):
    mask = np.zeros(SIZE[::-1], dtype=bool)
    mask[y : y + side, x : x + side] = True
    return mask


def examples():
    """Yield two expressions for each of twelve images: one with a target of 10 x 10 pixels, and a no-target."""
    image = np.full((*SIZE[::-1], 3), 200, dtype=np.uint8)
    for i in range(12):
        attributes = {"kind": EVIL if i % 2 else "plain"}
        target = encode_mask(square(20, 10, 10))
        yield ReferringExample(image, f"{EVIL} {i}", (target,), f"{i}/target", str(i), attributes)
        yield ReferringExample(image, f"unicorn {i}", (), f"{i}/nothing", str(i), attributes)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Score a run that misses the i-th target by i pixels and predicts masks for the first four no-targets."""
    import datasets

    folder = tmp_path_factory.mktemp("report")
    made = to_dataset(examples(), datasets.Features({"kind": datasets.Value("string")}))
    lines = []
    for i in range(12):
        mask = {"mask": encode_mask(square(20 + i, 10, 10)), "box": [20 + i, 10, 30 + i, 20], "points": [[1e7, 5]]}
        error = "invalid_json" if i == 11 else None
        lines.append({"example_id": f"{i}/target", "answer": EVIL + "\ud800", "error": error, "instances": [mask]})
        found = [{"mask": encode_mask(square(0, 0, 4 + i))}] if i < 4 else []
        lines.append({"example_id": f"{i}/nothing", "instances": found})
    lines[4] = {"example_id": "2/target", "failure": "no memory"}
    file = folder / "mine.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines[:-1]))
    benchmark_run.run(folder / "run", SETTINGS, made, file, "grefcoco", EVIL, EVIL)
    return folder / "run"


def test_a_page_shows_text_as_text_and_loads_nothing(finished):
    text = (finished / benchmark_run.PAGE).read_text()
    page = Page(text)
    assert "script" not in page.tags
    assert not page.handlers
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert "default-src 'none'" in text
    assert '<script>alert("1")</script>' in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert "a|<b>model</b>\nx" in page.text
    assert page.text.count("{{ 7 * 7 }} </bdi></pre>\ufffd") == 9  # answers, with what UTF-8 cannot hold


def test_a_page_has_the_figures_and_what_went_wrong(finished):
    figures = json.loads((finished / benchmark_run.METRICS).read_text())
    text = " ".join(Page((finished / benchmark_run.PAGE).read_text()).text.split())
    assert f"{100 * figures['ciou']:.2f}" in text
    assert "GenSeg-R1-8B 71.27 73.82 81.01" in text
    assert "Without a prediction 1 24 4.17" in text
    assert "Not segmented: the model failed 1 24" in text
    assert "Answer not as asked: invalid json 1 24" in text
    assert "Without a target, and not answered with nothing 5 12" in text
    assert "plain 12" in text


def test_pictures_are_of_the_worst_the_median_and_the_best(finished):
    text = (finished / benchmark_run.PAGE).read_text()
    pictures = [Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))) for address in Page(text).addresses]
    assert {picture.format for picture in pictures} == {"JPEG"}
    assert {max(picture.size) for picture in pictures} == {320}
    assert len(pictures) == 2 * (4 * 3)
    text = " ".join(Page(text).text.split())
    order = [text.index(heading) for heading in (gallery.WORST, gallery.MEDIAN, gallery.BEST, gallery.WRONG)]
    assert order == sorted(order)
    assert text.index("100.00 <script>") > text.index(gallery.BEST)
    assert [text.count(f"unicorn {i} ") for i in range(12)] == [0, 1, 1, 1, *[0] * 8]


def results(*ious):
    response = Prediction(Response(""), (), (), (1, 1))
    for iou in ious:
        if iou is None:
            yield Failure("x", ValueError()), {"iou": 0.0, "target_area": 5, "prediction_area": 0}
        else:
            yield response, {"iou": iou, "target_area": 5, "prediction_area": 5}


def test_an_expression_is_shown_once_and_an_image_once_a_heading():
    chosen = gallery.Choice()
    for result, row in results(0.0, 0.0, 0.5, None, 1.0, 0.9):
        chosen.add(result, row)
    assert chosen.made(list("aabcde")) == {gallery.WORST: {0: 0.0, 2: 0.5, 5: 0.9}, gallery.BEST: {4: 1.0, 1: 0.0}}
    assert chosen.made([""] * 6)[gallery.WORST] == {0: 0.0, 1: 0.0, 2: 0.5}
    assert gallery.Choice().made([]) == {}


def test_a_page_names_an_image_that_is_gone(finished, tmp_path):
    Image.new("RGB", SIZE).save(tmp_path / "scene.png")
    example = ReferringExample(str(tmp_path / "scene.png"), "x", (encode_mask(square(0, 0, 5)),), "1", "1")
    made = to_dataset([example])
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"example_id": "1", "instances": [{"mask": example.masks[0]}]}))
    (tmp_path / "scene.png").unlink()
    benchmark_run.run(tmp_path / "run", SETTINGS, made, file, "grefcoco", "", "")
    assert "there is no file" in Page((tmp_path / "run" / benchmark_run.PAGE).read_text()).text


def test_published_figures_stand_beside(finished):
    text = (finished / benchmark_run.REPORT).read_text()
    assert "| GenSeg-R1-8B | 71.27 | 73.82 |  | 81.01 |" in text
    assert "| **a/&lt;b&gt;model&lt;/b&gt; x** |" in text
    known = archives.by_name()
    for row in literature.PUBLISHED:
        assert row.split in known[row.benchmark].splits
        assert set(row.figures) <= set(report.COLUMNS)
        assert all(0 < value < 1 for value in row.figures.values())
    for benchmark in known.values():
        get_policy(benchmark.policy)


def test_a_report_says_how_many_no_target_answers_are_words(finished):
    figures = json.loads((finished / benchmark_run.METRICS).read_text())
    assert figures.pop("no_target_in_words") == 0
    for count, told in ((None, False), (0, False), (1234, True)):  # None: figures of an earlier version
        given = figures if count is None else figures | {"no_target_in_words": count}
        for text in (report.markdown(given), report.html(given, {})):
            assert ("instead of []: 1,234" in text) == told
