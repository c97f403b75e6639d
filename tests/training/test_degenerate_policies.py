"""No degenerate policy earns more than an honest one under the recipes for true checkpoints."""

import pytest

from benchmarks import degenerate_policies as policies


@pytest.fixture(scope="module")
def examples():
    return {"scenes": list(policies.refscenes("val", 8)), "photographs": list(policies.photographs(8, seed=2))}


@pytest.mark.parametrize("recipe", policies.RECIPES)
@pytest.mark.parametrize("name", ["scenes", "photographs"])
def test_honesty_pays(nano, examples, recipe, name):
    earned = policies.scores(recipe, examples[name], nano.segmenter)
    honest = earned.pop(policies.HONEST)
    best = max(earned, key=earned.__getitem__)
    assert earned[best] < honest, f"{best} earns {earned[best]}, an honest policy {honest}"
    for trick in ("empty thought", "filler thought of 900 words", "every instance twice"):
        assert earned[trick] <= honest - 0.1, trick
    assert earned["every instance five times"] < earned["every instance twice"]
    assert earned["every instance twice, 2 pixels apart"] < honest - 0.1
