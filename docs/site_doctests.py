"""A griffe extension: show the doctests of a docstring as code, under "Examples"."""

import re
import textwrap

import griffe

_DOCTEST = re.compile(r"(?:^|\n\n)((?:>>> ).*?)(?=\n\n|\Z)", re.DOTALL)


class Doctests(griffe.Extension):
    """Turn bare doctests into a section that Google's docstring style knows."""

    def on_object(self, *, obj: griffe.Object, **kwargs) -> None:
        """Rewrite the docstring of an object that was read from source."""
        if obj.docstring:
            obj.docstring.value = _DOCTEST.sub(
                lambda found: "\n\nExamples:\n" + textwrap.indent(found[1], "    "), obj.docstring.value
            )
