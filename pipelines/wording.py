"""How sentences that people read are written."""

from collections.abc import Mapping
from typing import Final

_REASONS: Final[Mapping[str, str]] = {
    "not_found": "the source does not have it",
    "still_encoding": "the source is still encoding it",
    "empty_body": "the source sends an empty file",
    "header_only": "the source sends a file without audio",
    "cut_off": "the source's file ends too early",
    "length_unproven": "nothing proves that it is whole",
    "header_disagrees": "its header promises more audio than the file has",
    "html_body": "the source sends a web page instead",
    "json_body": "the source sends an error instead",
    "text_body": "the source sends text instead",
    "mp3_body": "the source sends an MP3 instead",
    **dict.fromkeys(("not_riff", "not_wave"), "the source sends something that is not a WAV file"),
    **dict.fromkeys(("no_fmt", "bad_fmt", "no_data"), "the source sends a broken WAV file"),
    "too_large": "it is larger than a recording may be",
    "unauthorized": "the source refuses it (401)",
    "forbidden": "the source refuses it (403)",
    "refused_by_firewall": "a firewall in front of the source refuses it",
    "redirect_not_allowed": "the source redirects to a host that is not allowed",
    "address_not_public": "its link leads to a private address",
    "source_unavailable": "the source did not answer",
    "too_slow": "the source was too slow",
    "source_refused": "the source refuses the request",
    "storage_unavailable": "the bucket did not answer",
    "storage_refused": "the bucket did not take it",
    "storage_damaged": "the bucket did not store it as it was sent",
    "temporary_disk_full": "the archiver's disk was full",
    "defect": "an error in the archiver",
    "conflict": "the source now sends different bytes from those archived",
    "log_in_refused": "the source refused the log-in",
    "link_corrected": "its link was refused, and the source has corrected it",
    "link_allowed_now": "its link was refused, and is allowed now",
    "retry_requested": "somebody asked for another attempt",
    "other_source_failed": "the other source failed; this one is tried",
    "link_refused:host_not_allowed": "its link's host is not allowed",
    "link_refused:other_api": "its link leads to a different API from the one that is set",
    "link_refused": "its link must not be requested",
    "http": "the source answers with an error",
    "no_link": "no report has a link to one",
    "flag_unknown": "the source does not say whether there is one",
}


def reason_in_words(reason: str, state: str = "") -> str:
    """Return why a recording in that state is not held, in words; return an unknown reason unchanged."""
    if (reason, state) == ("not_found", "pending"):
        return f"{_REASONS[reason]} yet"
    general, _, detail = reason.replace("http_", "http:").partition(":")
    words = _REASONS.get(reason) or _REASONS.get(general)
    if words is None or not detail or reason in _REASONS:
        return words or reason
    return f"{words} ({detail.replace('_', ' ')})"


def number(count: int, singular: str, plural: str | None = None) -> str:
    """Return `1 recording`, `2 recordings`. Give `plural` if it has no plain `s`: `1 is late`, `0 are late`."""
    return f"{count:,} {singular if count == 1 else plural or f'{singular}s'}"


def capitalized(sentence: object) -> str:
    """Return a sentence, or an error's sentence, with its first letter as a capital and the rest unchanged."""
    text = str(sentence)
    return f"{text[:1].upper()}{text[1:]}"
