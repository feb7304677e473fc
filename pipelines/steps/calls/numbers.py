"""Telephone numbers: as E.164, and as people write them when they search for one."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import phonenumbers

_SHAPE: Final = re.compile(r"[\d\s().+/-]{5,40}", re.ASCII)
_PARSED_LENGTH: Final = 64


@lru_cache(maxsize=1 << 17)  # a contact centre's own numbers come in every row
def to_e164(text: str | None, region: str) -> str | None:
    """Return a number in E.164, None for what is none. `region`: where a number without a country's code is from."""
    stripped = (text or "").strip()
    if not 3 <= len(stripped) <= _PARSED_LENGTH:
        return None
    try:
        number = phonenumbers.parse(stripped, region)
    except phonenumbers.NumberParseException:
        return None
    # "Possible" goes by length alone: numbering plans change, and no search may fail for a range that is new.
    if phonenumbers.is_possible_number_with_reason(number) != phonenumbers.ValidationResult.IS_POSSIBLE:
        return None
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)


@dataclass(frozen=True, slots=True)
class NumberQuery:
    """What somebody wrote to find a number.

    Attributes:
        e164: the whole number, None for a part of one.
        digits: its digits, without leading zeros, which stand for a country's or a trunk's prefix; empty for none.
        text: what was written, in lower case, for a caller who is no number, such as `anonymous`.
    """

    e164: str | None
    digits: str
    text: str

    @classmethod
    def of(cls, written: str, region: str) -> NumberQuery:
        """Read what was written, in any format."""
        stripped = written.strip()
        is_number = _SHAPE.fullmatch(stripped) is not None
        return cls(
            e164=to_e164(stripped, region) if is_number else None,
            digits=re.sub(r"[^0-9]", "", stripped).lstrip("0"),
            text=stripped.lower(),
        )
