"""Whether the packages of an extra are installed, in versions that it allows."""

import pytest
from genseg_hub import extras


@pytest.mark.parametrize("extra", ["train", "ray"])
def test_the_extras_of_this_environment_are_installed(extra):
    assert extras.is_installed(extra)


@pytest.mark.parametrize("requirement", ["not-on-any-index>=1", "peft>=999"])
def test_a_package_that_is_missing_or_too_old_is_found(requirement, monkeypatch):
    monkeypatch.setitem(extras.EXTRAS, "train", ("accelerate>=1", requirement))
    assert not extras.is_installed("train")
    assert extras.install_command("train") == f'pip install "accelerate>=1" "{requirement}"'
