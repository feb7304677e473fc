"""How sentences that people read write numbers."""


def number(count: int, one: str, more: str | None = None) -> str:
    """`1 recording`, `2 recordings`. `more`: what other numbers than 1 are called, or do: `1 is late`, `0 are late`."""
    return f"{count:,} {one}" if count == 1 else f"{count:,} {more or f'{one}s'}"
