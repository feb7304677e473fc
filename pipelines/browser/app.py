"""The page as an ASGI application: people find calls, view one, and play, verify or download its recordings.

Each action is written to the access log before it happens. The page works without scripts; only the player needs one.
`guard` decides who may connect, `sign_in` who is asking, `people` what a person may do.
"""

import asyncio
import hashlib
import logging
import re
import secrets
import threading
from collections.abc import Awaitable, Callable, Generator, Iterable, Iterator, Mapping
from datetime import date, datetime, timedelta
from functools import lru_cache, partial
from itertools import chain
from typing import Any, Final, NoReturn

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.sessions import SessionMiddleware
from starlette.requests import Request
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from pipelines.archive.bucket import Bucket
from pipelines.archive.errors import KeyMissing, StorageError, StoreDamaged
from pipelines.archive.proof.signature import Verifier
from pipelines.browser.guard import HEALTH, ConcurrencyLimit, Guard, WholeRead, WholeReadQueue, byte_range, read_form
from pipelines.browser.people import Person, Role
from pipelines.browser.playable import Playable, open_playable, peaks_of
from pipelines.browser.presentation import STATES, call_view, calls_view, duration, found_sentence
from pipelines.browser.searching import FIELDS, LISTED, SearchPage, WrongSearch, default_fields, find, prefill, query_of
from pipelines.browser.sign_in import WAYS_TO_SIGN_IN, address_of
from pipelines.browser.tokens import Tokens, parse_date
from pipelines.calendar import local_day, utc_now
from pipelines.compliance.access_log import Access, AccessLog, Action, DamagedAccess
from pipelines.evidence.integrity import IntegrityResult, SealedRecordings, check_recording, is_recording_key
from pipelines.evidence.package import EvidencePackage, ExportRequest, in_time
from pipelines.serving import RateLimit
from pipelines.settings import BrowseSettings, SettingsError
from pipelines.steps.calls.search import CallSearch, sentence_of_lacking
from pipelines.steps.calls.table import Row

_log: Final = logging.getLogger("pipelines.browser")
_BLOCK: Final = 1 << 18
_PIECE_S: Final = 60  # seconds of audio for each entry of the access log
_PIECE: Final = 1 << 20  # the same for a codec whose seconds are not known
_LARGEST_WAVEFORM: Final = 2 << 30
_STREAMS_AT_ONCE: Final = 6  # of a person: as many as browsers ask for
_SEARCHES_AT_ONCE: Final = 3  # of a person
_CLIENT_CHECK_S: Final = 0.5
_ACCESS_DAYS: Final = 30
_ACCESS_SHOWN: Final = 50
_SHORTEST_REASON: Final = 5
_LONGEST_REASON: Final = 1000
_MOST_EXPORTED: Final = 500  # rows of a search
_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
_LINK: Final = ("date", "account_id", "uii", "recording_id", "key", "size", "sha256", "agent_id", "queue_id")
"""A row's fields in a link to audio: the object, the call, and the agents and queues that decide who may hear it."""

_ERROR_PAGES: Final[Mapping[type[Exception], tuple[int, str]]] = {  # the first that fits
    KeyMissing: (404, "The recording was archived, but its object is gone."),
    StoreDamaged: (409, "The archive does not hold what was sealed: verify this date."),
    StorageError: (503, "The archive does not answer, so nothing was done; try again later."),
    SettingsError: (503, "The access file cannot be read, so nobody has access: tell the person who maintains it."),
}

PersonHandler = Callable[[Request, Person], Response | WholeRead]
FormHandler = Callable[[Request, Person, Mapping[str, str]], Response | WholeRead]
Endpoint = Callable[[Request], Awaitable[Response]]


class Browser:
    """The page's routes, and what their answers need. Of the bucket it writes only the access log.

    `verifier`: the keys that manifests must be signed with; None if they are not signed.
    """

    def __init__(
        self,
        bucket: Bucket,
        settings: BrowseSettings,
        *,
        verifier: Verifier | None = None,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self._bucket = bucket
        self._search = CallSearch(bucket, settings)
        self._sign_in = WAYS_TO_SIGN_IN[settings.browse_auth](settings)
        self._settings = settings
        self._verifier = verifier
        self._clock = clock
        secret = settings.browse_secret.get_secret_value() if settings.browse_secret else secrets.token_urlsafe(32)
        self._secret = secret
        self._tokens = Tokens(secret, lambda: clock().timestamp())
        self._access = AccessLog(bucket)
        self._sealed = SealedRecordings(bucket)
        self._rate = RateLimit(settings.browse_rate)
        self._readings = WholeReadQueue()
        self._streams = ConcurrencyLimit(
            _STREAMS_AT_ONCE,
            f"You are already playing or downloading {_STREAMS_AT_ONCE} recordings: stop one and try again.",
        )
        self._exports = ConcurrencyLimit(1, "One of your exports is still running: wait until it has ended.")
        self._searches = ConcurrencyLimit(
            _SEARCHES_AT_ONCE,
            f"{_SEARCHES_AT_ONCE} of your searches are still running: wait until one has ended, or close its page.",
        )
        self._playable = lru_cache(500)(partial(open_playable, bucket))
        self._peaks = lru_cache(100)(lambda key, size, _etag: peaks_of(self._playable(key, size)))
        self._templates = Environment(
            loader=PackageLoader("pipelines.browser"),
            autoescape=True,
            trim_blocks=True,
            lstrip_blocks=True,
            undefined=StrictUndefined,
        )

    def app(self) -> Starlette:
        """Return the ASGI application with its routes."""
        origin = self._settings.browse_origin
        is_https = origin.startswith("https:")
        return Starlette(
            routes=[
                Route("/", self._page(self._find)),
                Route("/search", self._form(self._take_search), methods=["POST"]),
                Route("/calls/{day}/{account}/{uii:path}", self._page(self._call)),
                Route("/check", self._form(self._check), methods=["POST"]),
                Route("/download", self._form(self._download), methods=["POST"]),
                Route("/export", self._form(self._export), methods=["POST"]),
                Route("/link", self._page(self._fresh_link)),
                Route("/audio/{token}", self._page(self._audio)),
                Route("/peaks/{token}", self._page(self._waveform)),
                Route("/signed-out", self._signed_out),
                Route(HEALTH, _health),
                *self._sign_in.routes(self),
                Mount("/static", StaticFiles(packages=[("pipelines.browser", "static")])),
            ],
            middleware=[
                Middleware(Guard, origin=origin),
                Middleware(
                    SessionMiddleware,
                    secret_key=self._secret,
                    session_cookie="__Host-browse" if is_https else "browse",
                    max_age=int(self._settings.browse_session_hours * 3600),
                    same_site="lax",
                    https_only=is_https,
                ),
            ],
            exception_handlers={
                HTTPException: self._on_http_error,
                StorageError: self._on_expected_error,
                SettingsError: self._on_expected_error,
            },
        )

    # What the ways to sign in need.

    def sign_in_form(self, sentence: str = "", status: int = 200) -> Response:
        """Return the form for a name and a password."""
        return self._render("sign_in.html", None, status, sentence=sentence)

    def signed_in(self, request: Request, name: str, *, failed: bool) -> None:
        """Write an attempt to sign in to the access log; raise StorageError if that fails."""
        self._record(request, name, "sign_in_failed" if failed else "sign_in")

    # Pages.

    def _find(self, request: Request, person: Person) -> Response:
        today = local_day(self._clock(), self._settings.zone)
        token = request.query_params.get("q")
        fields = self._tokens.read("search", token, person.name) if token else None
        page = _page_number(request.query_params.get("page"))
        found, sentence, status = None, "", 200
        if token:
            try:
                query = query_of(fields, person, today)
                search_terms = _filled_in(fields) | ({"page": str(page)} if page else {})
                self._record(request, person.name, "search", details=search_terms)
                with self._searches.task(person.name):
                    found = find(self._search, query, page, columns=LISTED, stop=request.state.gone.is_set)
            except WrongSearch as error:
                sentence, status = str(error), error.status
        fields = default_fields(today) | prefill(request.query_params) | (fields or {})
        calls = calls_view(found.rows, person) if found else []
        not_held = sum(each["state"] not in {"archived", "none"} for call in calls for each in call["recordings"])
        return self._render(
            "find.html", person, status,
            fields=fields, states=STATES, sentence=sentence, found=found, calls=calls, token=token, page=page,
            said=found_sentence(len(calls), more=bool(found and (found.more or page)), not_held=not_held),
            most_exported=_MOST_EXPORTED, sentence_of_lacking=sentence_of_lacking,
        )  # fmt: skip

    def _take_search(self, request: Request, person: Person, form: Mapping[str, str]) -> Response:  # noqa: ARG002 - request
        fields = {name: form.get(name, "").strip()[:300] for name in FIELDS}
        return RedirectResponse(f"/?q={self._tokens.make('search', fields, person.name)}", 303)

    def _call(self, request: Request, person: Person) -> Response:
        parameters = request.path_params
        rows = self._rows(request, person, parameters["day"], parameters["account"], parameters["uii"])
        self._record(request, person.name, "view", rows[0])
        return self._call_page(request, person, rows, {})

    def _call_page(
        self, request: Request, person: Person, rows: list[Row], checked: Mapping[str, IntegrityResult]
    ) -> Response:
        playable = (row for row in rows if _is_held(self._bucket, row) and person.may_hear(row))
        links = {row["recording_id"]: self._link(row, person) for row in playable}
        return self._render(
            "call.html", person,
            call=call_view(rows, person), links=links, checked=checked, now=self._clock(),
            history=self._history(request, person, rows[0]),
            problems=dict.fromkeys(filter(None, map(self._sealed.problem, rows))),
            may_see_history=person.has(Role.compliance),
            may_download=person.has(Role.export),
        )  # fmt: skip

    def _history(self, request: Request, person: Person, row: Row) -> list[dict[str, str]] | None:
        # Only when it is asked for: the names of all entries of 31 days are listed.
        if not person.has(Role.compliance) or "access" not in request.query_params:
            return None
        today = self._clock().date()
        call = row["account_id"], row["uii"]
        entries = list(self._access.read(today - timedelta(days=_ACCESS_DAYS), today, call=call))
        return [_history_line(entry) for entry in entries[: -_ACCESS_SHOWN - 1 : -1]]

    def _check(self, request: Request, person: Person, form: Mapping[str, str]) -> WholeRead:
        rows, row = self._recording(request, person, form)
        self._record(request, person.name, "check", row)

        def read() -> Response:
            checked = check_recording(self._bucket, self._verifier, row)
            return self._call_page(request, person, rows, {row["recording_id"]: checked})

        return WholeRead(person.name, read)

    def _download(self, request: Request, person: Person, form: Mapping[str, str]) -> Response:
        _, row = self._recording(request, person, form)
        if not person.has(Role.export) or not person.may_hear(row):
            self._refuse(request, person, "download", row)
        why = _reason(form)
        self._must_be_sealed(row)
        self._record(request, person.name, "download", row, why=why)
        key, size = row["key"], row["size"]
        starts = range(0, size, _BLOCK)
        blocks = (self._bucket.read_range(key, start, min(start + _BLOCK, size), size) for start in starts)
        body = self._streams.stream(person.name, _as_sealed(blocks, key, row["sha256"]))
        name = _UNSAFE.sub("_", key.rpartition("/")[2])
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "Content-Length": str(size)}
        return _Stream(body, 200, headers)

    def _export(self, request: Request, person: Person, form: Mapping[str, str]) -> Response:
        if "q" in form:
            found, asked_for = self._found_to_export(request, person, form["q"])
            rows, not_searched = list(found.rows), found.not_searched
        else:
            not_searched = ()
            asked_for = {name: form.get(name, "") for name in ("day", "account", "uii")}
            rows = self._rows(request, person, *asked_for.values())
        if not any(self._may_export(request, row) and _is_held(self._bucket, row) for row in rows):
            about = rows[0] if rows else None
            self._refuse(request, person, "export", about, "There is no recording here that you may export.")
        why, now = _reason(form), self._clock()
        entries = [self._entry(request, person.name, "export", row, why=why) for row in rows]

        def logged(blocks: Iterable[bytes]) -> Iterator[bytes]:
            self._access.record_all(entries)
            yield from blocks

        package = EvidencePackage(
            self._bucket,
            self._verifier,
            rows,
            ExportRequest(by=person.name, at=now, why=why, asked_for=asked_for, not_searched=not_searched),
            may_include=lambda row: self._may_export(request, row),
            shown=person.shown,
        )
        body = self._exports.stream(person.name, logged(package.blocks()))
        # Without a length, so that a truncated download is not taken for a whole one.
        headers = {"Content-Disposition": f'attachment; filename="calls-{now:%Y-%m-%dT%H%M%SZ}.zip"'}
        return _Stream(body, 200, headers, media_type="application/zip")

    def _found_to_export(self, request: Request, person: Person, token: str) -> tuple[SearchPage, dict[str, str]]:
        fields = self._tokens.read("search", token, person.name)
        asked_for = _filled_in(fields)
        refuse = partial(self._refuse, request, person, "export", details=asked_for)
        if fields is not None and not (person.may_search and person.has(Role.export)):
            refuse(sentence="You may not export search results.")
        try:
            query = query_of(fields, person, local_day(self._clock(), self._settings.zone))
        except WrongSearch as error:
            refuse(sentence=str(error), status=error.status)
        with self._searches.task(person.name):
            found = find(self._search, query, 0, _MOST_EXPORTED, stop=request.state.gone.is_set)
        if found.more:
            said = f"Your search finds more than {_MOST_EXPORTED} recordings and calls: narrow it, and export again."
            refuse(sentence=said, status=400)
        return found, asked_for

    def _may_export(self, request: Request, row: Row) -> bool:
        """Return whether the person may export the row now: a long export ends when the person loses the right."""
        person = self._sign_in.person(request)
        return person is not None and person.has(Role.export) and person.may_hear(row)

    # What the player asks for.

    def _fresh_link(self, request: Request, person: Person) -> Response:
        _, row = self._recording(request, person, request.query_params)
        if not person.may_hear(row):
            self._refuse(request, person, "play", row)
        token = self._link(row, person)
        return JSONResponse({"audio": f"/audio/{token}", "peaks": f"/peaks/{token}"})

    def _waveform(self, request: Request, person: Person) -> WholeRead:
        link = self._linked(request, person)
        self._record(request, person.name, "waveform", link)
        key, size = link["key"], link["size"]
        if self._playable(key, size).stored_size > _LARGEST_WAVEFORM:
            raise HTTPException(413, "The recording is too long for a waveform.")

        def read() -> Response:
            facts = self._bucket.head(key)
            if facts is None:
                raise KeyMissing(key)
            return JSONResponse(self._peaks(key, size, facts.etag) or {"channels": [], "step_s": 1})

        return WholeRead(person.name, read)

    def _audio(self, request: Request, person: Person) -> Response:
        link = self._linked(request, person)
        recording = self._playable(link["key"], link["size"])
        size, etag = recording.size, f'"{link["sha256"][:32]}-{recording.size}"'
        headers = {"Accept-Ranges": "bytes", "ETag": etag}
        is_same = request.headers.get("if-range") in {None, etag}
        asked = byte_range(request.headers.get("range"), size) if is_same and request.method == "GET" else None
        start, end = asked or (0, size)
        headers["Content-Length"] = str(end - start)
        if asked:
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
        if request.method == "HEAD":
            return Response(headers=headers, media_type="audio/wav")
        body = self._sent(request, person, link, recording, start=start, end=end)
        return _Stream(self._streams.stream(person.name, body), 206 if asked else 200, headers)

    def _sent(
        self, request: Request, person: Person, link: Row, recording: Playable, *, start: int, end: int
    ) -> Iterator[bytes]:
        """Yield bytes of a recording. Write each minute to the access log before it is sent, and stop as soon as the
        person may no longer hear it.
        """
        piece = _PIECE_S * recording.bytes_per_second or _PIECE
        for begin in range(start, end, piece):
            now = self._sign_in.person(request) if begin > start else person
            if now is None or not now.may_hear(link):
                self._refuse(request, person, "play", link)
            stop = min(begin + piece, end)
            self._record(request, person.name, "play", link, **recording.heard(begin, stop))
            for at in range(begin, stop, _BLOCK):
                yield recording.read(at, min(at + _BLOCK, stop))

    # What they share.

    def _rows(self, request: Request, person: Person, day: str, account_id: str, uii: str) -> list[Row]:
        """Return the rows of a call that the person may see; raise HTTPException (404) if there is none."""
        rows = self._search.call(of_day, account_id, uii).to_pylist() if (of_day := parse_date(day)) else []
        visible: list[Row] = [row for row in rows if person.may_see(row)]
        if not visible:
            # Also for a call that does not exist: the time to answer must not reveal whether it does.
            self._record(request, person.name, "refused", rows[0] if rows else None, details={"asked": "view"})
            raise HTTPException(404, "There is no such call, or you may not see it.")
        return sorted(visible, key=in_time)

    def _recording(self, request: Request, person: Person, fields: Mapping[str, str]) -> tuple[list[Row], Row]:
        day, account_id, uii, recording_id = (fields.get(name, "") for name in ("day", "account", "uii", "recording"))
        rows = self._rows(request, person, day, account_id, uii)
        for row in rows:
            if row["recording_id"] == recording_id and _is_held(self._bucket, row):
                return rows, row
        raise HTTPException(404, "There is no such recording, or it is not held.")

    def _refuse(
        self,
        request: Request,
        person: Person,
        asked: str,
        about: Row | None = None,
        sentence: str = "You may not do that with this recording.",
        *,
        status: int = 403,
        details: Mapping[str, str] | None = None,
    ) -> NoReturn:
        self._record(request, person.name, "refused", about, details={**(details or {}), "asked": asked})
        raise HTTPException(status, f"{sentence} Your attempt is in the access log.")

    def _link(self, row: Row, person: Person) -> str:
        return self._tokens.make("audio", {name: row[name] for name in _LINK}, person.name)

    def _linked(self, request: Request, person: Person) -> Row:
        """Return the fields of the recording that the request's link names, if the person may hear it."""
        link = self._tokens.read("audio", request.path_params["token"], person.name)
        if link is None:
            raise HTTPException(403, "This link has expired or is not yours: load the call's page again.")
        link["date"] = date.fromisoformat(link["date"])
        if not person.may_hear(link):
            self._refuse(request, person, "play", link)
        self._must_be_sealed(link)
        return link

    def _must_be_sealed(self, row: Row) -> None:
        if not self._sealed.has(row):
            raise HTTPException(
                409,
                "The table of calls and the sealed manifest of this date disagree about this recording, so it is not "
                "played or downloaded: verify the date.",
            )

    def _record(self, request: Request, name: str, action: Action, about: Row | None = None, **more: Any) -> None:  # noqa: ANN401 - as `_entry`
        self._access.record(self._entry(request, name, action, about, **more))

    def _entry(self, request: Request, name: str, action: Action, about: Row | None, **more: Any) -> Access:  # noqa: ANN401 - fields of an entry
        if about is not None:
            more |= {"account_id": about["account_id"], "uii": about["uii"]}
            more |= {"recording_id": about["recording_id"] or ""} if action != "view" else {}
        address = address_of(request, self._settings.browse_proxy_addresses)
        return Access(at=self._clock(), user=name, address=address, action=action, **more)

    def _page(self, handler: PersonHandler) -> Endpoint:
        def in_thread(request: Request) -> Response | WholeRead:
            person = self._sign_in.person(request)
            if person is None:
                return self._to_sign_in(request)
            if wait := self._rate.take(person.name):
                raise HTTPException(429, f"Too many requests: wait {wait} s.", {"Retry-After": str(wait)})
            return handler(request, person)

        async def answer(request: Request) -> Response:
            request.state.gone = threading.Event()
            watch = asyncio.create_task(_wait_for_disconnect(request))
            try:
                found = await run_in_threadpool(in_thread, request)
            finally:
                watch.cancel()
            return await self._readings.answer(found) if isinstance(found, WholeRead) else found

        return answer

    def _form(self, handler: FormHandler) -> Endpoint:
        async def read_and_answer(request: Request) -> Response:
            form = await read_form(request)
            return await self._page(lambda request, person: handler(request, person, form))(request)

        return read_and_answer

    def _to_sign_in(self, request: Request) -> Response:
        if request.url.path.startswith(("/audio/", "/peaks/", "/link")):
            raise HTTPException(401, "Sign in first.")
        if request.method == "GET" and request.url.path.startswith("/calls/"):
            request.session["next"] = request.url.path
        return RedirectResponse("/sign-in", 303)

    def _signed_out(self, _: Request) -> Response:
        return self._render("message.html", None, title="Signed out", sentence="You are signed out.")

    def _on_http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101 - Starlette calls it for these alone
        sentence = error.detail if error.detail.endswith(".") else "There is no such page."
        response = self._failed(request, error.status_code, sentence)
        response.headers.update(error.headers or {})
        return response

    def _on_expected_error(self, request: Request, error: Exception) -> Response:
        _log.error("%s", error)
        return self._failed(request, *next(said for kind, said in _ERROR_PAGES.items() if isinstance(error, kind)))

    def _failed(self, request: Request, status: int, sentence: str) -> Response:
        if request.url.path.startswith(("/audio/", "/peaks/", "/link")):
            return PlainTextResponse(f"{sentence}\n", status)
        return self._render("message.html", None, status, title="Not possible", sentence=sentence)

    def _render(self, template: str, person: Person | None, status: int = 200, **values: object) -> Response:
        context = {"person": person, "may": Role, "way_out": self._settings.browse_auth in {"password", "oidc"}}
        return HTMLResponse(self._templates.get_template(template).render(context | values), status)


class _Stream(StreamingResponse):
    """A response that makes the first block before it sends, and closes the blocks even if the client disconnects."""

    def __init__(
        self, body: Generator[bytes, None, None], status: int, headers: Mapping[str, str], media_type: str = "audio/wav"
    ) -> None:
        # An error before the first byte becomes a response of its own, not a truncated one.
        super().__init__(chain([next(body)], body), status, headers, media_type)
        self._body = body

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._body.close()


def _as_sealed(blocks: Iterable[bytes], key: str, sha256: str) -> Iterator[bytes]:
    """Yield blocks, but the last one only if all have the hash; else raise StoreDamaged: the download breaks off."""
    digest, held = hashlib.sha256(), b""
    for block in blocks:
        digest.update(block)
        if held:
            yield held
        held = block
    if digest.hexdigest() != sha256:
        raise StoreDamaged(f"{key} is no longer as it was sealed; verify its date")
    yield held


async def _wait_for_disconnect(request: Request) -> None:
    while not await request.is_disconnected():
        await asyncio.sleep(_CLIENT_CHECK_S)
    request.state.gone.set()


async def _health(_: Request) -> Response:
    return JSONResponse({"page": "serving"})


def _is_held(bucket: Bucket, row: Row) -> bool:
    is_whole = row["state"] == "archived" and row["size"] and row["sha256"]
    return bool(is_whole) and is_recording_key(bucket, row["key"])


def _filled_in(fields: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (fields or {}).items() if value}


def _reason(form: Mapping[str, str]) -> str:
    why = " ".join(form.get("why", "").split())[:_LONGEST_REASON]
    if len(why) < _SHORTEST_REASON:
        raise HTTPException(400, "Give a reason in a few words: it is written to the access log.")
    return why


def _page_number(text: str | None) -> int:
    return int(text) if text and text.isascii() and text.isdecimal() and len(text) < 5 else 0


_ACTION_WORDS: Final[Mapping[Action, str]] = {
    "view": "viewed the call",
    "waveform": "loaded the waveform",
    "play": "listened to",
    "check": "checked the bytes",
    "download": "downloaded",
    "export": "exported",
    "refused": "was refused",
}


def _history_line(entry: Access | DamagedAccess) -> dict[str, str]:
    at = f"{entry.at:%Y-%m-%d %H:%M:%S} UTC"
    if isinstance(entry, DamagedAccess):
        said = f"a damaged or altered entry: restore the first version of {entry.key}"
        return {"at": at, "user": "", "address": "", "said": said, "why": ""}
    said = _ACTION_WORDS.get(entry.action, entry.action)
    if entry.from_s is not None:
        said = f"{said} {duration(entry.from_s)}–{duration(entry.to_s)}"
    return {"at": at, "user": entry.user, "address": entry.address, "said": said, "why": entry.why}
