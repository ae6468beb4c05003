"""Errors of a command become one line on standard error and an exit code."""

from __future__ import annotations

import errno
from typing import Any, NoReturn

import typer
from typer.core import TyperGroup

from eqr_core.errors import (
    BudgetError,
    DataError,
    EqrError,
    GridError,
    ModelError,
    RecipeError,
)
from eqr_core.extras import how_to_install

BAD_INPUT = (BudgetError, DataError, GridError, ModelError, RecipeError)


class Commands(TyperGroup):
    """A command group that reports errors in one line and never shows a traceback."""

    def make_context(self, info_name: Any, args: Any, *rest: Any, **extra: Any) -> Any:
        if not args:  # typer shows the help
            return super().make_context(info_name, args, *rest, **extra)
        try:
            return super().make_context(info_name, args, *rest, **extra)
        except Exception as error:
            if getattr(error, "format_message", None) is None:  # --help ends with an exception
                raise
            report(error)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (typer.Exit, typer.Abort):
            raise
        except KeyboardInterrupt:
            raise typer.Exit(130) from None
        except Exception as error:
            if isinstance(error, OSError) and error.errno == errno.EPIPE:
                raise
            report(error)


def report(error: Exception) -> NoReturn:
    """Say in one line what happened, and end with its exit code."""
    typer.echo(f"error: {describe(error)}", err=True)
    raise typer.Exit(exit_code(error)) from None


def exit_code(error: Exception) -> int:
    """2 where what the user gave is at fault, 1 where the work failed."""
    usage = getattr(error, "exit_code", None)
    if isinstance(usage, int):
        return usage
    return 2 if isinstance(error, BAD_INPUT) else 1


def describe(error: Exception) -> str:
    """The error in one line."""
    usage = getattr(error, "format_message", None)
    text = usage() if callable(usage) else str(error)
    if isinstance(error, ModuleNotFoundError) and error.name == "torch":
        return f"solving and training need torch: {how_to_install('engine')}"
    if not isinstance(error, EqrError | OSError) and usage is None:
        text = f"{type(error).__name__}: {text}"
    return " ".join(text.split())
