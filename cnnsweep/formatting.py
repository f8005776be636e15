"""Numbers, sizes and durations as text."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence

LISTED = 5
"""Names in a sentence at most."""


def duration(seconds: float) -> str:
    """Seconds in words.

    >>> duration(59), duration(61), duration(7300)
    ('59 s', '1:01', '2:01:40')
    """
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def time_unit(longest: float) -> tuple[str, int]:
    """The unit of an axis of time that is `longest` seconds long, and its seconds.

    >>> time_unit(50), time_unit(120)
    (('seconds', 1), ('minutes', 60))
    """
    return ("seconds", 1) if longest < 120 else ("minutes", 60)


def age(seconds: float) -> str:
    """Seconds since something, in one unit.

    >>> age(5), age(200), age(7000), age(90000), age(9e6)
    ('5 s', '3 min', '1 h', '1 day', '104 days')
    """
    if seconds < 100:
        return f"{max(0, seconds):.0f} s"
    if seconds < 6000:
        return f"{seconds / 60:.0f} min"
    if seconds < 24 * 3600:
        return f"{int(seconds / 3600)} h"
    days = int(seconds / 86400)
    return f"{days} day{'s' if days > 1 else ''}"


def counted(number: int, noun: str) -> str:
    """
    >>> counted(1, "seed"), counted(2000, "epoch")
    ('1 seed', '2,000 epochs')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def shape(sizes: Iterable[int]) -> str:
    """The shape of an array.

    >>> shape((28, 28, 1))
    '28×28×1'
    """
    return "×".join(map(str, sizes))


def from_here(path: str | os.PathLike[str]) -> str:
    """A path relative to the working folder; as it is where that was removed meanwhile."""
    try:
        return os.path.relpath(path)
    except FileNotFoundError:
        return os.fspath(path)


def plain(value: object) -> str:
    """A value of the config.

    >>> plain(0.00123456), plain(32), plain("max"), plain(True), plain(None)
    ('0.001235', '32', 'max', 'true', 'null')
    """
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def score(value: float) -> str:
    """The value of a metric: four decimals, or four digits where it is small or large.

    >>> [score(v) for v in (0.9611, 0.0, -12345.6, 1.234e-6, 1e308, float("nan"))]
    ['0.9611', '0.0000', '-12345.6000', '1.234e-06', '1e+308', 'nan']
    """
    return f"{value:.4f}" if value == 0 or 0.001 <= abs(value) < 1e5 else f"{value:.4g}"


def amount(value: float) -> str:
    """A size or a limit, of any unit.

    >>> amount(1e6), amount(2318480), amount(1234.5), amount(1e-9)
    ('1,000,000', '2,318,480', '1,234.5', '1e-09')
    """
    return f"{value:,.0f}" if value >= 1000 and value % 1 == 0 else f"{value:,.6g}"


def brief(value: float) -> str:
    """A number in a few characters, for an axis.

    >>> [brief(v) for v in (0.0003, 0.05, 30000.0, 1500000.0, 12.5, 0.0, 1e12)]
    ['3e-4', '0.05', '30k', '1.5M', '12.5', '0', '1e12']
    """
    if abs(value) >= 1e12 or 0 < abs(value) < 0.01:
        mantissa, _, exponent = f"{value:.1e}".partition("e")
        return f"{float(mantissa):g}e{int(exponent)}"
    for factor, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g}{unit}"
    return f"{value:.3g}"


def listed(names: Sequence[str]) -> str:
    """Names in a sentence.

    >>> listed(["radius"]), listed(["x", "y", "radius"]), listed([str(n) for n in range(9)])
    ('radius', 'x, y and radius', '0, 1, 2, 3 and 5 others')
    """
    shown = list(names) if len(names) <= LISTED else [*names[: LISTED - 1], f"{len(names) - LISTED + 1} others"]
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else shown[0]


def escaped(text: str) -> str:
    """A text as one line of Markdown, or a cell of a table.

    >>> print(escaped("a|b <i>"), escaped("two\\nlines"))
    a\\|b \\<i> two lines
    """
    return re.sub(r"[|<]", r"\\\g<0>", " ".join(text.splitlines()))


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [f"| {' | '.join(map(escaped, row))} |" for row in (header, *rows)]
    return "\n".join([lines[0], "|" + " --- |" * len(header), *lines[1:]])
