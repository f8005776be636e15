"""Output on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console


def make_console() -> Console:
    """The terminal, or a wide file; texts are printed as they are, because error messages may hold brackets."""
    from rich.console import Console  # not for --help

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console.width = 140
    return console
