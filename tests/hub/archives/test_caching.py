"""Tables in the cache: made once for each key, the same as `datasets` makes them, and never half."""

import datasets
import pytest
from datasets.exceptions import DatasetGenerationError
from genseg_hub.archives.caching import cached
from genseg_hub.referring_dataset import RLE

FEATURES = datasets.Features(
    {
        "image": datasets.Image(),
        "masks": datasets.List(RLE),
        "name": datasets.Value("string"),
        "n": datasets.Value("int64"),
    }
)
calls: list[int] = []


def rows(count: int, broken: bool = False):
    calls.append(count)
    for n in range(count):
        masks = [{"size": [2, 3], "counts": "06"}] * (n % 3)
        yield {"image": {"bytes": None, "path": f"{n}.jpg"} if n % 2 else None, "masks": masks, "name": None, "n": n}
    if broken:
        raise ValueError("the disk is on fire")


@pytest.mark.parametrize("count", [1, 500, 1001])
def test_a_table_is_made_once_and_is_that_of_datasets(root, count):
    calls.clear()
    settings = {"count": count}
    made = [cached(rows, settings, FEATURES, "testA").cast_column("image", datasets.Image(decode=False)) for _ in "12"]
    assert calls == [count]
    assert len(made[0]) == count
    own = datasets.Dataset.from_generator(rows, gen_kwargs=settings, features=FEATURES)
    own = own.cast_column("image", datasets.Image(decode=False))
    assert made[0].to_dict() == made[1].to_dict() == own.to_dict()
    assert made[0].features == own.features


def test_an_error_leaves_nothing_in_the_cache(root):
    calls.clear()
    for _ in "12":
        with pytest.raises(DatasetGenerationError) as caught:
            cached(rows, {"count": 700, "broken": True}, FEATURES)
        assert str(caught.value.__cause__) == "the disk is on fire"
    assert calls == [700, 700]
