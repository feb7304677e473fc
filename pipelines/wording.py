"""How sentences that people read write numbers."""


def number(count: int, singular: str, plural: str | None = None) -> str:
    """`1 recording`, `2 recordings`. Give `plural` where it has no plain `s`: `1 is late`, `0 are late`."""
    return f"{count:,} {singular if count == 1 else plural or f'{singular}s'}"
