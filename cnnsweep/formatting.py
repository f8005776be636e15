"""Numbers, sizes and durations as text."""

from __future__ import annotations


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
