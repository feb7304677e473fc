"""How sentences that people read are written."""


def number(count: int, singular: str, plural: str | None = None) -> str:
    """Return `1 recording`, `2 recordings`. Give `plural` if it has no plain `s`: `1 is late`, `0 are late`."""
    return f"{count:,} {singular if count == 1 else plural or f'{singular}s'}"


def capitalized(sentence: object) -> str:
    """Return a sentence, or an error's sentence, with its first letter as a capital and the rest unchanged."""
    text = str(sentence)
    return f"{text[:1].upper()}{text[1:]}"
