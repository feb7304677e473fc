"""Telephone numbers: in E.164, and as people type them to search for one."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import phonenumbers

_SHAPE: Final = re.compile(r"[\d\s().+/-]{5,40}", re.ASCII)
_PARSED_LENGTH: Final = 64
_EXTENSION: Final = re.compile(r"(?<=[\d)])[ ;,]*(?:ext(?:ension|n)?|x|#)[ .:=]*\d{1,7}", re.ASCII | re.IGNORECASE)
_TRUNK_ZERO: Final = re.compile(r"(?<=\d)[ .-]*\(0\)")  # +44 (0)20 …: not dialled after a country's code
_PREFIX: Final = re.compile(r"011(?=[1-9]\d{6})|0+")
_SHORTEST_WITH_AREA: Final = 6


@lru_cache(maxsize=1 << 17)  # a contact centre's own numbers come in every row
def to_e164(text: str | None, region: str) -> str | None:
    """Return a number in E.164, or None for other text. `region`: the country of numbers without a country code."""
    number = _parsed((text or "").strip(), region)
    return phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) if number else None


def _parsed(text: str, region: str) -> phonenumbers.PhoneNumber | None:
    if not 3 <= len(text) <= _PARSED_LENGTH:
        return None
    try:
        number = phonenumbers.parse(text, region)
    except phonenumbers.NumberParseException:
        return None
    # "Possible" goes by length alone: numbering plans change, and no search may fail for a range that is new.
    return number if _length(number) == phonenumbers.ValidationResult.IS_POSSIBLE else None


def _length(number: phonenumbers.PhoneNumber) -> int:
    return phonenumbers.is_possible_number_with_reason(number)


@dataclass(frozen=True, slots=True)
class NumberQuery:
    """A search for a telephone number, as somebody typed it.

    Attributes:
        e164: the number, or None if it can only be a part of one.
        is_whole: whether it has the greatest length of its country's numbers. A shorter one may be part of another.
        digits: its digits without what is dialled before a country or area code, or empty. A few digits after a single
            0, such as `0142`, are kept as they are if the country dials no 0 before an area code.
        text: the typed text in lower case, for a caller without a number, such as `anonymous`.
    """

    e164: str | None
    is_whole: bool
    digits: str
    text: str

    @classmethod
    def of(cls, written: str, region: str) -> NumberQuery:
        """Read a number in any format."""
        stripped = _plain(written)
        number = _EXTENSION.sub("", stripped) if _EXTENSION.search(stripped) else stripped
        if number.startswith(("+", "00", "011")):
            number = _TRUNK_ZERO.sub("", number)
        is_number = _SHAPE.fullmatch(number) is not None
        parsed = _parsed(number, region) if is_number else None
        digits = re.sub(r"[^0-9]", "", number if is_number else stripped)
        dialled = _PREFIX.sub("", digits, count=1) if _PREFIX.match(digits) else digits
        zero_is_dialled = digits.startswith("00") or phonenumbers.ndd_prefix_for_region(region, True) == "0"
        if dialled and (zero_is_dialled or len(dialled) >= _SHORTEST_WITH_AREA):
            digits = dialled
        return cls(
            e164=to_e164(number, region) if parsed else None,
            is_whole=parsed is not None and _is_longest(parsed),
            digits=digits,
            text=stripped.lower(),
        )

    @property
    def alternatives(self) -> list[str]:
        """Strings of digits: every matching number contains at least one. Empty for a caller without a number."""
        whole = [self.e164.removeprefix("+")] if self.e164 else []
        return whole if self.is_whole else [*whole, *filter(None, [self.digits])]


def _is_longest(number: phonenumbers.PhoneNumber) -> bool:
    longer = phonenumbers.PhoneNumber()
    longer.merge_from(number)
    longer.national_number = (number.national_number or 0) * 10
    return _length(longer) == phonenumbers.ValidationResult.TOO_LONG


def _plain(written: str) -> str:
    """Return text with plain digits, spaces and hyphens; a number pasted from a document may have others."""
    plain = re.sub(r"\d", lambda digit: str(int(digit[0])), unicodedata.normalize("NFKC", written))
    characters = []
    for character in plain:
        kind = unicodedata.category(character)
        if kind == "Pd":
            characters.append("-")
        elif kind != "Cf":
            characters.append(character)
    return "".join(characters).strip()
