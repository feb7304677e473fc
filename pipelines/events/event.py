"""Read a request from RingCX as an End Call Event, or say in a sentence why it is not one.

An event may come as the documented JSON body or URL-encoded, in the query string or in the body: the bytes decide,
never the content type. Nothing is dropped: undocumented fields are kept, and all values are text.
"""

import codecs
import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, quote
from zoneinfo import ZoneInfo

from pipelines.ringcx.reports.charset import REPAIR
from pipelines.ringcx.reports.columns import fold, free_name
from pipelines.ringcx.reports.times import parse_report_time, uii_time

MAX_FIELDS: Final = 200
# Two clocks of the source say when a call began. The UII's is documented to be US/Eastern; further apart than this,
# the other one is in a zone that EVENTS_TIMEZONE does not name.
AGREE_WITHIN: Final = timedelta(minutes=10)
# The parameters of a recording link: where a link is not encoded, they become fields of the form around it.
_LINK_PARAMETERS: Final = ("accountId", "bucket", "region", "compliance", "file")


class NotAnEvent(Exception):  # noqa: N818 - the name says what happened, the text why
    """The request is not an End Call Event. The text gives the reason and the remedy, but none of its content."""


def read_event(query: bytes, body: bytes) -> dict[str, str]:
    """Return an event's fields by their original names (the body's win over the query's), or raise NotAnEvent."""
    fields = _from_form(query, "query string")
    content = body.removeprefix(codecs.BOM_UTF8).strip()
    if content:
        fields |= _from_json(content) if content[:1] in (b"{", b"[", b'"') else _from_form(content, "body")
    if not fields:
        raise NotAnEvent("The request has no fields; send the event as a JSON body or URL-encoded.")
    for name in ("call_id", "account_id"):
        if not field(fields, name):
            raise NotAnEvent(f"The field {name} is missing or empty; tick it in the event's fields.")
    kind = field(fields, "event_type").upper()
    # The same "Generic HTTP" can send log-ins and states of agents, some of which carry the id of a call.
    if kind and not kind.endswith("CALL") and not any(fold(name) == "recordingurl" for name in fields):
        raise NotAnEvent("This is an agent's event and not the end of a call; send End Call Events only.")
    return fields


def field(fields: Mapping[str, str], name: str) -> str:
    """Return the value of a documented field, however its name is spelled; empty if it is missing."""
    exact = fields.get(name)
    if exact is not None:
        return exact.strip()
    wanted = fold(name)
    return next((value.strip() for given, value in fields.items() if fold(given) == wanted), "")


def call_start(fields: Mapping[str, str], zone: ZoneInfo) -> tuple[datetime | None, bool]:
    """Return when the call began (UTC), and whether `call_start` (in `zone`) contradicts the UII, which then counts."""
    by_field = parse_report_time(field(fields, "call_start"), zone)
    by_uii = uii_time(field(fields, "call_id"))
    if by_field is None or by_uii is None:
        return by_field or by_uii, False
    return (by_field, False) if abs(by_field - by_uii) <= AGREE_WITHIN else (by_uii, True)


def _from_json(content: bytes) -> dict[str, str]:
    pairs: list[tuple[str, Any]] = []

    def keep(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs[:] = found  # the outermost object is read last; of a name that comes twice, `dict` keeps one value
        return dict(found)

    try:
        text = content.decode(errors=REPAIR)
        found = json.loads(text, object_pairs_hook=keep, parse_int=str, parse_float=str, parse_constant=str)
        named = [(name, _as_text(value)) for name, value in pairs if value is not None]
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise NotAnEvent("The body is not one flat JSON object; send each event as such an object, or URL-encoded.")
    return _named(named)


def _from_form(content: bytes, where: str) -> dict[str, str]:
    pairs = parse_qsl(content.decode(errors=REPAIR), keep_blank_values=True, errors=REPAIR)
    if len(pairs) == 1 and not pairs[0][1] and b"=" not in content:
        raise NotAnEvent(f"The {where} is neither JSON nor a URL-encoded form.")
    return _with_whole_link(_named(pairs))


def _named(pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
    fields: dict[str, str] = {}
    for name, value in pairs:
        if len(fields) == MAX_FIELDS:
            raise NotAnEvent("The event has too many fields; send the documented ones.")
        fields[free_name(_clean(name), fields)] = _clean(value)
    return fields


def _as_text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _with_whole_link(fields: dict[str, str]) -> dict[str, str]:
    """Join a link that was sent without encoding its own `&`; the parts stay as fields too."""
    link = fields.get("recording_url", "")
    if "?" not in link or "file=" in link or not fields.get("file"):
        return fields
    rest = [f"{name}={quote(fields[name], safe='/')}" for name in _LINK_PARAMETERS if fields.get(name)]
    return fields | {"recording_url": "&".join([link, *rest])}


def _clean(text: str) -> str:
    """Replace lone surrogates, which JSON may contain but no file can hold."""
    return text if text.isascii() else text.encode("utf-8", "replace").decode()
