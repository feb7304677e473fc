"""The calls of a day, made up from seed, account and date: the same arguments always give the same calls.

Knows nothing of reports, links or the present: a date in the future has calls too, and the reports decide what has
already happened.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import lru_cache
from typing import Literal
from zoneinfo import ZoneInfo

_AROUND_DAYS = 30

Direction = Literal["inbound", "outbound"]
Layout = Literal["mono", "stereo"]

EASTERN = ZoneInfo("US/Eastern")

AGENTS = (
    ("Ava", "O'Neill"),
    ("José", "García Márquez"),
    ("Łukasz", "Żółkiewski"),
    ("王", "小明"),
    ("Мария", "Иванова"),
    ("فاطمة", "الزهراء"),
    ("Grace", 'Hopper "Amazing"'),
    ("Nnamdi", "Okafor, Jr."),
)
QUEUES = ((41001, "Billing"), (41002, "Support, tier 2"), (41003, "Прием заявок"))
CAMPAIGNS = ((52001, "Renewals Q3"), (52002, 'Win-back "gold"'))
DISPOSITIONS = (
    "Resolved",
    "Callback, tomorrow",
    'Customer said "no, thanks"',
    "Refund promised\nsee ticket 4711",
    "Line one\r\nline two, with comma",
    "お客様は満足されました",
    "Не дозвонились; перезвонить",
    "تم الحل",
    "=1+1",
    "it's fine",
    "  blanks around  ",
    "naïve café 🙂",
    "",
)
NOTES = (
    "",
    "",
    "asked for +1 (602) 555-0142",
    'wants "platinum", not "gold"',
    "first line\nsecond line",
    "请在周五之前回电",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """An audio file at the source. `path` identifies it; `ready_from` is the end of its call."""

    path: str
    account_id: str
    uii: str
    layout: Layout
    started_at: datetime
    duration_s: int
    ready_from: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One agent leg of a call. Times are UTC, lengths whole seconds."""

    session_id: int
    agent_id: int
    first_name: str
    last_name: str
    username: str
    product_id: int
    product_name: str
    enqueued_at: datetime
    started_at: datetime
    ended_at: datetime
    wrap_s: int
    hold_s: int
    wait_s: int
    dial_s: int
    disposition: str
    term_party: str
    term_reason: str
    recording: Recording | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call with its legs. An unanswered one has no leg and no recording."""

    uii: str
    account_id: str
    direction: Direction
    ani: str
    dnis: str
    source_id: int
    source_name: str
    started_at: datetime
    ended_at: datetime
    queue_s: int
    notes: str
    segments: tuple[Segment, ...]
    mono: tuple[Recording, ...]

    def recordings(self) -> Iterator[Recording]:
        """All recordings of the call, those of the whole call first."""
        yield from self.mono
        yield from (segment.recording for segment in self.segments if segment.recording)


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """What the calls of all days have in common. Hashable, so that days are made once."""

    seed: int
    calls_per_day: tuple[int, int]
    talk_seconds: tuple[int, int]
    timezone: str
    crossing_zones: tuple[str, ...]
    same_around: date | None = None


def calls_between(plan: CallPlan, account_id: str, start: datetime, end: datetime) -> Iterator[Call]:
    """All calls of which any part may lie between two instants, in the order of their start days."""
    day = start.astimezone(UTC).date() - timedelta(days=1)  # no call is a day long
    while day <= end.astimezone(UTC).date():
        yield from calls_of_day(plan, account_id, day)
        day += timedelta(days=1)


def find_recording(plan: CallPlan, account_id: str, path: str) -> Recording | None:
    """The recording that has a file path, if there is one."""
    name = path.rpartition("/")[2]
    try:
        eastern = datetime.strptime(name[:8], "%Y%m%d").replace(tzinfo=EASTERN)
    except ValueError:
        return None
    for call in calls_between(plan, account_id, eastern, eastern + timedelta(days=1)):
        if name.startswith(call.uii):
            return next((recording for recording in call.recordings() if recording.path == path), None)
    return None


@lru_cache(maxsize=512)
def calls_of_day(plan: CallPlan, account_id: str, day: date) -> tuple[Call, ...]:
    """The calls that start on one UTC day, by start."""
    chance = random.Random(f"{plan.seed}/{account_id}/{_name(plan, day)}")
    count = chance.randint(*plan.calls_per_day)
    # The special ones come first, so that even a small day has them.
    starts = [datetime.combine(day, time(), UTC)]
    starts += [midnight - timedelta(seconds=2) for midnight in _midnights(plan.crossing_zones, day)]
    specials = len(starts)
    while len(starts) < count:
        starts.append(_some_time(chance, plan.timezone, day))
    made = []
    for number, start in enumerate(starts[:count]):
        call = _Maker(plan, account_id, chance, number, start)
        if 0 < number < specials:
            made.append(call.answered("inbound", legs=2, queue_s=1))
        elif number == specials:
            made.append(call.answered("inbound", legs=3, queue_s=2))
        elif number == specials + 1 or (number > specials and chance.random() < 0.15):
            made.append(call.unanswered())
        else:
            legs = chance.choices((1, 2, 3), (8, 2, 1))[0]
            direction: Direction = "outbound" if chance.random() < 0.35 else "inbound"
            made.append(call.answered(direction, legs=legs, queue_s=chance.randint(0, 4)))
    return tuple(sorted(made, key=lambda call: call.started_at))


def _name(plan: CallPlan, day: date) -> str:
    """What the chance of a day is drawn from."""
    if plan.same_around is not None and abs(distance := (day - plan.same_around).days) <= _AROUND_DAYS:
        return f"{distance:+d}"
    return day.isoformat()


def _midnights(zones: tuple[str, ...], day: date) -> list[datetime]:
    """The local midnights of the zones that fall on, or end, this UTC day."""
    first = datetime.combine(day, time(), UTC)
    found = []
    for zone in zones:
        for shift in (0, 1):
            local = datetime.combine(day + timedelta(days=shift), time(), ZoneInfo(zone)).astimezone(UTC)
            if first < local <= first + timedelta(days=1):
                found.append(local)
                break
    return found


def _some_time(chance: random.Random, zone: str, day: date) -> datetime:
    """Mostly in the zone's working hours, now and then in the night."""
    hour = chance.uniform(8, 18) if chance.random() < 0.85 else chance.uniform(0, 24)
    offset = datetime.combine(day, time(12), ZoneInfo(zone)).utcoffset() or timedelta()
    seconds = int(hour * 3600 - offset.total_seconds()) % 86_400
    return datetime.combine(day, time(), UTC) + timedelta(seconds=seconds)


class _Maker:
    """Makes one call; every draw of chance comes from the day's generator, in a fixed order."""

    def __init__(self, plan: CallPlan, account_id: str, chance: random.Random, number: int, start: datetime) -> None:
        self._plan, self._account_id, self._chance, self._start = plan, account_id, chance, start
        local = start.astimezone(EASTERN)
        self._uii = f"{local:%Y%m%d%H%M%S}01{zlib.crc32(account_id.encode()) % 10_000:04d}{number:010d}"
        self._folder = f"{account_id}/{local:%Y%m}/{local:%d}"
        self._customer = f"{chance.choice((602, 212, 415))}555{chance.randint(100, 9999):04d}"
        self._ours = f"8005550{chance.randint(100, 999)}"

    def unanswered(self) -> Call:
        """Nobody took it: no leg, nothing recorded."""
        direction: Direction = "inbound" if self._chance.random() < 0.6 else "outbound"
        waited = self._chance.randint(1, 40)
        return self._call(
            direction,
            self._source(direction),
            queue_s=waited,
            ended_at=self._start + timedelta(seconds=waited),
            segments=(),
            mono=(),
        )

    def answered(self, direction: Direction, *, legs: int, queue_s: int) -> Call:
        """Return a call with that many agent legs, each after a wait in a queue."""
        chance = self._chance
        source = self._source(direction)
        active = chance.random() >= 0.06  # recording is not activated for every queue
        begin = self._start + timedelta(seconds=queue_s)
        enqueued = self._start
        drafts: list[tuple[datetime, datetime, datetime, tuple[int, str]]] = []
        for leg in range(legs):
            low, high = self._plan.talk_seconds
            length = round(chance.triangular(low, high, low + (high - low) * 0.2))
            ended = begin + timedelta(seconds=max(1, length))
            product = source if leg == 0 else self._source(direction)
            drafts.append((enqueued, begin, ended, product))
            enqueued, begin = ended, ended + timedelta(seconds=chance.randint(0, 2))
        ended_at = drafts[-1][2]
        segments = tuple(
            self._segment(leg, draft, ended_at, last=leg == legs - 1, recorded=active and chance.random() >= 0.04)
            for leg, draft in enumerate(drafts)
        )
        parts = 2 if legs > 1 and chance.random() < 0.2 else 1  # recording stopped and started again
        mono = tuple(self._mono(n, parts, ended_at) for n in range(1, parts + 1)) if active else ()
        return self._call(direction, source, queue_s=queue_s, ended_at=ended_at, segments=segments, mono=mono)

    def _source(self, direction: Direction) -> tuple[int, str]:
        return self._chance.choice(QUEUES if direction == "inbound" else CAMPAIGNS)

    def _call(
        self,
        direction: Direction,
        source: tuple[int, str],
        *,
        queue_s: int,
        ended_at: datetime,
        segments: tuple[Segment, ...],
        mono: tuple[Recording, ...],
    ) -> Call:
        inbound = direction == "inbound"
        return Call(
            uii=self._uii,
            account_id=self._account_id,
            direction=direction,
            ani=self._customer if inbound else self._ours,
            dnis=self._ours if inbound else self._customer,
            source_id=source[0],
            source_name=source[1],
            started_at=self._start,
            ended_at=ended_at,
            queue_s=queue_s,
            notes=self._chance.choice(NOTES),
            segments=segments,
            mono=mono,
        )

    def _mono(self, part: int, parts: int, ended_at: datetime) -> Recording:
        whole = int((ended_at - self._start).total_seconds())
        share = whole // parts if part < parts else whole - whole // parts * (parts - 1)
        return Recording(
            path=f"{self._folder}/{self._uii}-{part}.WAV",
            account_id=self._account_id,
            uii=self._uii,
            layout="mono",
            started_at=self._start,
            duration_s=share,
            ready_from=ended_at,
        )

    def _segment(
        self,
        leg: int,
        draft: tuple[datetime, datetime, datetime, tuple[int, str]],
        call_ended_at: datetime,
        *,
        last: bool,
        recorded: bool,
    ) -> Segment:
        enqueued_at, started_at, ended_at, product = draft
        chance = self._chance
        agent = chance.randrange(len(AGENTS))
        session = leg + 2  # the first session is the caller's own
        stereo = Recording(
            path=f"perspective/{self._folder}/{self._uii}-session-{session}-stereo.WAV",
            account_id=self._account_id,
            uii=self._uii,
            layout="stereo",
            started_at=started_at,
            duration_s=int((ended_at - started_at).total_seconds()),
            ready_from=call_ended_at,
        )
        return Segment(
            session_id=session,
            agent_id=1_300_000 + agent,
            first_name=AGENTS[agent][0],
            last_name=AGENTS[agent][1],
            username=f"agent{agent}@example.com",
            product_id=product[0],
            product_name=product[1],
            enqueued_at=enqueued_at,
            started_at=started_at,
            ended_at=ended_at,
            wrap_s=chance.randint(0, 90),
            hold_s=chance.randint(0, 3),
            wait_s=chance.randint(0, 600),
            dial_s=chance.randint(0, 5),
            disposition=chance.choice(DISPOSITIONS),
            term_party=chance.choice(("CALLER", "AGENT")) if last else "AGENT",
            term_reason="HANGUP" if last else "TRANSFER",
            recording=stereo if recorded else None,
        )
