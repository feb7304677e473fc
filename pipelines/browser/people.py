"""Who may do what with the rows of the table `calls`: roles, teams, and the file that grants them."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pipelines.settings import SettingsError
from pipelines.steps.calls.search import Parties
from pipelines.steps.calls.table import SEPARATOR, Row

_FEWEST_DIGITS: Final = 3  # that are masked in free text
_SHOWN_DIGITS: Final = 2
_NUMBERS: Final = ("ani", "dnis", "ani_e164", "dnis_e164")
_TEXTS: Final = ("agent_login", "agent_name", "queue_name", "session", "disposition", "notes")  # that people wrote


class Role(StrEnum):
    """What a person may do, as docs/browse.md explains; `Person` has the rules."""

    metadata = "metadata"
    listen_own_team = "listen_own_team"
    listen_all = "listen_all"
    numbers = "numbers"
    export = "export"
    compliance = "compliance"


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, coerce_numbers_to_str=True)  # an id may be a number


class Team(_Part):
    """The calls of a team: those of any of its agents (ids), queues or campaigns (ids), or accounts."""

    agents: tuple[str, ...] = ()
    queues: tuple[str, ...] = ()
    accounts: tuple[str, ...] = ()

    def takes_part(self, row: Row) -> bool:
        """Return whether a row of the table `calls` names an agent, a queue or the account of the team."""
        return (
            row["account_id"] in self.accounts
            or any(agent in self.agents for agent in _ids(row["agent_id"]))
            or any(queue in self.queues for queue in _ids(row["queue_id"]))
        )

    def owns(self, row: Row) -> bool:
        """Return whether a row's recording is the team's alone; the row of a whole call names every agent and queue."""
        agents, queues = _ids(row["agent_id"]), _ids(row["queue_id"])
        return (
            row["account_id"] in self.accounts
            or (bool(agents) and all(agent in self.agents for agent in agents))
            or (bool(queues) and all(queue in self.queues for queue in queues))
        )


class Grant(_Part):
    """What a person or a group may do. `password`: an Argon2 hash, for BROWSE_AUTH=password."""

    roles: tuple[Role, ...] = ()
    teams: tuple[str, ...] = ()
    password: Annotated[str, Field(pattern=r"^\$argon2id\$")] | None = Field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is signed in, and what that person may do."""

    name: str
    roles: frozenset[Role]
    teams: tuple[Team, ...] = ()

    def has(self, role: Role) -> bool:
        """Return whether the person has a role; `compliance` includes every other one."""
        return role in self.roles or Role.compliance in self.roles

    @property
    def may_search(self) -> bool:
        """Whether there are calls that the person may find."""
        return self.sees_all or self.has(Role.listen_own_team)

    @property
    def sees_all(self) -> bool:
        """Whether the person may find every call."""
        return self.has(Role.metadata) or self.has(Role.listen_all)

    @property
    def within(self) -> Parties | None:
        """The agents, queues and accounts whose calls the person may find; None for all calls."""
        if self.sees_all:
            return None
        own = self.teams if self.has(Role.listen_own_team) else ()
        members = ({member for team in own for member in getattr(team, kind)} for kind in Team.model_fields)
        return Parties(*map(tuple, members))

    def may_see(self, row: Row) -> bool:
        """Return whether the person may see a row of the table `calls`."""
        return self.sees_all or (self.has(Role.listen_own_team) and any(team.takes_part(row) for team in self.teams))

    def may_hear(self, row: Row) -> bool:
        """Return whether the person may hear the recording of a row."""
        own = self.has(Role.listen_own_team) and any(team.owns(row) for team in self.teams)
        return own or self.has(Role.listen_all)

    def shown(self, row: Row) -> Row:
        """Return a row of the table `calls`; mask the values that the person may not see."""
        numbers = {name: self.number(row[name]) for name in _NUMBERS}
        texts = {name: self.free_text(row[name]) for name in _TEXTS}
        return {**row, **numbers, **texts}

    def number(self, text: str | None) -> str:
        """Return a telephone number, masked unless the person may see numbers."""
        return text or "" if self.has(Role.numbers) else _masked(text or "")

    def free_text(self, text: str | None) -> str:
        """Return free text; unless the person may see numbers, mask three or more digits that no letter separates."""
        text = text or ""
        if self.has(Role.numbers):
            return text
        runs = ("".join(characters) for _, characters in groupby(text, str.isalpha))
        return "".join(_masked(run) if _digits(run) >= _FEWEST_DIGITS else run for run in runs)


class AccessFile(_Part):
    """The content of BROWSE_ACCESS_FILE: users and groups by name, and their teams."""

    users: Mapping[str, Grant] = Field(default_factory=dict)
    groups: Mapping[str, Grant] = Field(default_factory=dict)
    teams: Mapping[str, Team] = Field(default_factory=dict)

    def person(self, name: str, groups: Iterable[str] = ()) -> Person:
        """Return the rights granted to a name and its groups; none if the file lists neither."""
        grants = [self.users.get(name), *(self.groups.get(group) for group in groups)]
        found = [grant for grant in grants if grant is not None]
        roles = frozenset(role for grant in found for role in grant.roles)
        teams = dict.fromkeys(team for grant in found for team in grant.teams)
        return Person(name, roles, tuple(self.teams[team] for team in teams))


@lru_cache(1)
def _parsed(path: Path, _changed_ns: int, _size: int) -> AccessFile:
    return AccessFile.model_validate(tomllib.loads(path.read_text("utf-8")))


def read_access_file(path: Path) -> AccessFile:
    """Return the current content of the file, read again when it has changed; raise SettingsError if it is wrong."""
    try:
        facts = path.stat()
        found = _parsed(path, facts.st_mtime_ns, facts.st_size)
    except OSError as error:
        raise SettingsError(f"BROWSE_ACCESS_FILE {path} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"BROWSE_ACCESS_FILE {path} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"BROWSE_ACCESS_FILE {path}: {where}: {first['msg']} (docs/browse.md)") from None
    named = {team for grant in (*found.users.values(), *found.groups.values()) for team in grant.teams}
    if unknown := sorted(named - found.teams.keys()):
        raise SettingsError(f"BROWSE_ACCESS_FILE {path} names the team {unknown[0]}, which it does not define")
    return found


def _ids(text: str | None) -> list[str]:
    return text.split(SEPARATOR) if text else []


def _digits(text: str) -> int:
    return sum(character.isdigit() for character in text)


def _masked(number: str) -> str:
    to_hide = _digits(number) - _SHOWN_DIGITS
    masked = []
    for character in number:
        hide = character.isdigit() and to_hide > 0
        to_hide -= hide
        masked.append("•" if hide else character)
    return "".join(masked)
