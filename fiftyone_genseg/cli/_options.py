"""The options of `genseg_hub.options`, for every command that loads a model."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any, Literal, get_type_hints

import typer
from genseg_hub.options import HubOptions, ReasonerOptions, ServerOptions, pick

PARAMETER = "model_options"
_NUMBERS = ("max_new_tokens", "max_pixels", "min_pixels", "concurrency")
_KINDS: tuple[Any, ...] = (ReasonerOptions, HubOptions, ServerOptions)
_SWITCHES = ("local_files_only", "force_download")


def takes_model_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of a model to a command.

    The command gets the typed options as the dict `model_options`. A value that no checkpoint can take ends the command
    before its work.
    """
    own = inspect.signature(command)
    hints = get_type_hints(command, include_extras=True)
    parameters = [
        parameter.replace(annotation=hints[name]) for name, parameter in own.parameters.items() if name != PARAMETER
    ]
    options = [_parameter(option) for kind in _KINDS for option in fields(kind)]

    @functools.wraps(command)
    def wrapper(**given: Any) -> Any:
        typed = {option.name: given.pop(option.name) for option in options}
        typed = {name: value for name, value in typed.items() if value is not None and value is not False}
        try:
            for kind in _KINDS:
                pick(kind, typed)
        except ValueError as error:
            raise typer.BadParameter(str(error)) from error
        return command(**given, **{PARAMETER: typed})

    wrapper.__signature__ = own.replace(parameters=[*parameters, *options])  # type: ignore[attr-defined]
    wrapper.__annotations__ = {p.name: p.annotation for p in [*parameters, *options]} | {"return": None}
    return wrapper


def _parameter(option: Any) -> inspect.Parameter:
    """Return a field of the options as a parameter that Typer understands."""
    choices, help_text = option.metadata["choices"], option.metadata["help"]
    kind: Any = str
    if option.name in _NUMBERS:
        kind = int
    elif option.name == "timeout":
        kind = float
    elif option.name in _SWITCHES:
        kind = bool
    elif choices:
        kind = Literal[choices]
    flag = f"--{option.name.replace('_', '-')}"
    shown = typer.Option(flag, help=help_text, rich_help_panel="Loading", show_default=False)
    default = False if kind is bool else None
    annotation: Any = Annotated[kind if kind is bool else kind | None, shown]
    return inspect.Parameter(option.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)
