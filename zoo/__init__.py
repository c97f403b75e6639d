"""What FiftyOne's model zoo copies and executes; the work is done in the package fiftyone-genseg.

Made for `foz.register_zoo_model_source`; docs/model_zoo.md says how.
"""

try:
    from fiftyone_genseg.zoo import download_model, load_model, resolve_input
except ImportError as error:
    import json
    from pathlib import Path

    # FiftyOne notes in its copy of the manifest where that came from
    source = json.loads((Path(__file__).parent / "manifest.json").read_text()).get("url") or "the repository"
    raise ImportError(
        f"these models need the package fiftyone-genseg beside FiftyOne ({error}): clone {source}, then run "
        "`pip install .` in it"
    ) from error

__all__ = ["download_model", "load_model", "resolve_input"]
