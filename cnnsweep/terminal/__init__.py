"""Output on the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from typing import TextIO

    from rich.console import Console


def make_console() -> Console:
    """The terminal, or a wide file; texts are printed as they are, because error messages may hold brackets."""
    from rich.console import Console  # not for --help

    from cnnsweep.terminal.output import Output

    file = cast("TextIO", sys.stdout if isinstance(sys.stdout, Output) else Output(sys.stdout))
    console = Console(file=file, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = 140
    return console
