"""Reads a compose file as `docker compose config` does, as far as the files of deploy/ need it.

Variables (`$$`, `${X}`, `${X:-default}`, `${X:?sentence}`) are filled in from an environment alone; what a service
names (env files, volumes, secrets, other services) must be there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

_VARIABLE = re.compile(r"\$(?:(?P<dollar>\$)|\{(?P<name>\w+)(?:(?P<kind>:[-?])(?P<rest>[^}]*))?\})")


class ComposeError(Exception):
    """`docker compose` would refuse the file; the text says why."""


def config(file: Path, environment: Mapping[str, str]) -> dict[str, Any]:
    """Return the file with its variables filled in; lists of volumes and ports stay in their short form.

    Raises:
        ComposeError: a variable is required and empty, or something that a service names is not there.
    """
    read = _filled(yaml.safe_load(file.read_text()), environment)
    assert isinstance(read, dict)
    services: dict[str, dict[str, Any]] = read["services"]
    for name, service in services.items():
        needed = service.get("depends_on", {})
        for other in needed:
            if other not in services:
                raise ComposeError(f"{name} depends on {other}, which is no service")
            conditions = needed[other]["condition"] if isinstance(needed, dict) else "service_started"
            if conditions == "service_healthy" and "healthcheck" not in services[other]:
                raise ComposeError(f"{name} waits until {other} is healthy, which has no health check")
        for volume in service.get("volumes", ()):
            source = volume.split(":")[0]
            if source.startswith("."):
                if not (file.parent / source).exists():
                    raise ComposeError(f"{name} mounts {source}, which is not there")
            elif source not in read.get("volumes", {}):
                raise ComposeError(f"{name} mounts {source}, which is no volume of the file")
        for network in service.get("networks", ()):
            if network not in {"default", *read.get("networks", {})}:
                raise ComposeError(f"{name} is in {network}, which is no network of the file")
        for secret in service.get("secrets", ()):
            if secret not in read.get("secrets", {}):
                raise ComposeError(f"{name} needs {secret}, which is no secret of the file")
    return read


def _filled(value: object, environment: Mapping[str, str]) -> object:
    if isinstance(value, dict):
        return {key: _filled(item, environment) for key, item in value.items()}
    if isinstance(value, list):
        return [_filled(item, environment) for item in value]
    if not isinstance(value, str):
        return value

    def fill(found: re.Match[str]) -> str:
        if found["dollar"]:
            return "$"
        given = environment.get(found["name"], "")
        if found["kind"] == ":?" and not given:
            raise ComposeError(f"{found['name']}: {found['rest']}")
        return given or (found["rest"] if found["kind"] == ":-" else "")

    if "$" in _VARIABLE.sub("", value):
        raise ComposeError(f"{value!r}: a variable is written like ${{NAME}}, a dollar sign like $$")
    return _VARIABLE.sub(fill, value)
