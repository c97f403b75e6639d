"""The file that FiftyOne's model zoo copies and executes.

The package fiftyone-genseg does the work. `foz.register_zoo_model_source` registers it: see docs/model_zoo.md.
"""

try:
    from fiftyone_genseg.zoo import download_model, load_model, resolve_input
except ImportError as error:
    import json
    from pathlib import Path

    # FiftyOne writes the source's address into its copy of the manifest
    source = json.loads((Path(__file__).parent / "manifest.json").read_text()).get("url") or "the repository"
    raise ImportError(
        f"these models need the package fiftyone-genseg beside FiftyOne ({error}): clone {source}, then run "
        "`pip install .` in it"
    ) from error

__all__ = ["download_model", "load_model", "resolve_input"]
