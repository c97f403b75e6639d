"""Icons of operators and panels: files in `assets/`, one for each mode of the App."""

from __future__ import annotations


def of(name: str) -> dict[str, str]:
    """Return the icons of an operator or panel, as FiftyOne takes them.

    Args:
        name: name of the operator or panel; `assets/NAME-light.svg` and `assets/NAME-dark.svg` are its files.
    """
    return {f"{mode}_icon": f"/assets/{name}-{mode}.svg" for mode in ("light", "dark")}
