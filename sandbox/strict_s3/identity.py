"""Where credentials come from, as Amazon's services answer: STS, SSO, and the metadata of instances and containers.

What is handed out is known to the strict S3 and good for `lifetime`, so that a run outlives it.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import parse_qs

from sandbox.strict_s3.certificates import Authority
from sandbox.strict_s3.http import Listener
from sandbox.strict_s3.messages import Answer, Request
from sandbox.strict_s3.signatures import Key, Keyring
from sandbox.strict_s3.xml import Content, document

_ROLE: Final = "archiver"
_STS: Final = "https://sts.amazonaws.com/doc/2011-06-15/"


class Identity:
    """Hands out credentials, on a port of its own, for the length of a `with` block.

    Args:
        keys: Of the S3 that is to know what is handed out.
        authority: The S3's.
        clock: The S3's.
        lifetime: How long the credentials are valid.

    Attributes:
        issued: How often each way was used: `sts`, `web identity`, `sso`, `imds`, `ecs`, `process`.
    """

    def __init__(
        self,
        keys: Keyring,
        authority: Authority,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        lifetime: timedelta = timedelta(hours=1),
    ) -> None:
        self.lifetime = lifetime
        self.issued: Counter[str] = Counter()
        self.sso_token = secrets.token_hex(16)
        self.container_token = secrets.token_hex(16)
        self.web_token = secrets.token_hex(16)
        self._imds_token = secrets.token_hex(16)
        self._keys, self._clock = keys, clock
        self._listener = Listener(self, authority)

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`."""
        return self._listener.url

    def __enter__(self) -> Self:
        self._listener.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._listener.__exit__(kind, error, trace)

    def environment(self, way: str, folder: Path) -> dict[str, str]:
        """Variables and files that lead boto3 to credentials.

        Args:
            way: `profile`, `role`, `web identity`, `sso`, `imds`, `ecs` or `process`.
            folder: Where the files are written: `config`, `credentials` and what belongs to them. For `sso` it becomes
                the home folder, in which boto3 looks for the log-in's token.
        """
        folder.mkdir(parents=True, exist_ok=True)
        forever = self._keys.forever
        pair = f"aws_access_key_id={forever.id}\naws_secret_access_key={forever.secret}\n"
        config, shared = folder / "config", folder / "credentials"
        shared.write_text(f"[source]\n{pair}")
        arn = f"arn:aws:iam::123456789012:role/{_ROLE}"
        found = {
            "AWS_CONFIG_FILE": str(config),
            "AWS_SHARED_CREDENTIALS_FILE": str(shared),
            "AWS_ENDPOINT_URL_STS": self.url,
            "AWS_ENDPOINT_URL_SSO": self.url,
            "AWS_ENDPOINT_URL_SSO_OIDC": self.url,
        }
        profile, lines = {"AWS_PROFILE": "archive"}, "[profile archive]\n"
        if way == "profile":
            found["AWS_PROFILE"], lines = "source", ""
        elif way == "role":
            found, lines = found | profile, f"{lines}role_arn={arn}\nsource_profile=source\n"
        elif way == "process":
            found, lines = found | profile, f"{lines}credential_process={self._program(folder)}\n"
        elif way == "sso":
            found, lines = found | profile | {"HOME": str(folder)}, f"{lines}{self._sso(folder)}"
        elif way == "web identity":
            token = folder / "token"
            token.write_text(self.web_token)
            found |= {"AWS_ROLE_ARN": arn, "AWS_WEB_IDENTITY_TOKEN_FILE": str(token)}
        elif way == "imds":
            found |= {"AWS_EC2_METADATA_SERVICE_ENDPOINT": self.url}
        elif way == "ecs":
            found |= {
                "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.url}/v2/credentials",
                "AWS_CONTAINER_AUTHORIZATION_TOKEN": self.container_token,
            }
        config.write_text(lines if "AWS_PROFILE" in found else "")
        return found

    def _program(self, folder: Path) -> str:
        program = folder / "give_credentials.py"
        program.write_text(
            f"import sys, urllib.request\n"
            f"url = {self.url + '/process'!r}\n"
            "opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))\n"
            "sys.stdout.write(opener.open(url).read().decode())\n"
        )
        return f'"{sys.executable}" "{program}"'

    def _sso(self, folder: Path) -> str:
        cache = folder / ".aws" / "sso" / "cache"
        cache.mkdir(parents=True, exist_ok=True)
        start = "https://archive.awsapps.com/start"
        name = hashlib.sha1(start.encode(), usedforsecurity=False).hexdigest()
        until = (self._clock() + timedelta(hours=8)).strftime("%Y-%m-%dT%H:%M:%SZ")
        token = {"accessToken": self.sso_token, "expiresAt": until, "region": "us-east-1", "startUrl": start}
        (cache / f"{name}.json").write_text(json.dumps(token))
        return f"sso_start_url={start}\nsso_region=us-east-1\nsso_account_id=123456789012\nsso_role_name={_ROLE}\n"

    def serves(self, host: str) -> bool:
        """Names of these services, for the proxy."""
        return host.startswith(("sts.", "portal.sso.", "oidc.")) or host in {"169.254.169.254", "169.254.170.2"}

    def refusal(self, request: Request) -> Answer | None:
        """None: nothing large is sent here."""

    def answer(self, request: Request) -> Answer | None:
        """The answer of whichever service the path belongs to."""
        path, headers = request.path, request.headers
        if path == "/" and request.method == "POST":
            return self._sts(parse_qs(request.body.decode()))
        if path == "/federation/credentials":
            if headers.get("x-amz-sso_bearer_token") != self.sso_token:
                refused = _json({"message": "Session token not found or invalid"}, 401)
                return replace(refused, headers={**refused.headers, "x-amzn-errortype": "UnauthorizedException"})
            key = self._issue("sso")
            return _json(
                {"roleCredentials": {**_pair(key), "sessionToken": key.token, "expiration": _until(key) * 1000}}
            )
        if path == "/latest/api/token" and request.method == "PUT":
            lasts = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "21600")
            return Answer(200, {"x-aws-ec2-metadata-token-ttl-seconds": lasts}, self._imds_token.encode())
        if path.startswith("/latest/meta-data/"):
            return self._imds(path.removeprefix("/latest/meta-data/"), headers.get("x-aws-ec2-metadata-token", ""))
        if path == "/v2/credentials":
            if headers.get("authorization") != self.container_token:
                return _json({"code": "AccessDenied", "message": "wrong authorization token"}, 401)
            return _json(self._document("ecs"))
        if path == "/process":
            key = self._issue("process")
            return _json(
                {
                    "Version": 1, "AccessKeyId": key.id, "SecretAccessKey": key.secret, "SessionToken": key.token,
                    "Expiration": _written(key),
                }
            )  # fmt: skip
        return Answer(404)

    def _issue(self, way: str) -> Key:
        self.issued[way] += 1
        return self._keys.issue(self.lifetime, now=self._clock())

    def _document(self, way: str) -> dict[str, object]:
        key = self._issue(way)
        return {
            "Code": "Success", "Type": "AWS-HMAC", "LastUpdated": _written(key), "AccessKeyId": key.id,
            "SecretAccessKey": key.secret, "Token": key.token, "Expiration": _written(key),
        }  # fmt: skip

    def _imds(self, path: str, token: str) -> Answer:
        if token != self._imds_token:  # version 2 only
            return Answer(401)
        if path == "iam/security-credentials/":
            return Answer(200, {"content-type": "text/plain"}, _ROLE.encode())
        if path == f"iam/security-credentials/{_ROLE}":
            return _json(self._document("imds"))
        return Answer(404)

    def _sts(self, form: dict[str, list[str]]) -> Answer:
        action = form.get("Action", [""])[0]
        if action == "AssumeRoleWithWebIdentity":
            if form.get("WebIdentityToken") != [self.web_token]:
                return _sts_error("InvalidIdentityToken")
            return self._assumed(action, "web identity")
        if action == "AssumeRole":
            return self._assumed(action, "sts")
        return _sts_error("InvalidAction")

    def _assumed(self, action: str, way: str) -> Answer:
        key = self._issue(way)
        credentials: Content = [
            ("AccessKeyId", key.id),
            ("SecretAccessKey", key.secret),
            ("SessionToken", key.token or ""),
            ("Expiration", _written(key)),
        ]
        user: Content = [
            ("AssumedRoleId", f"AROA:{_ROLE}"),
            ("Arn", f"arn:aws:sts::123456789012:assumed-role/{_ROLE}/x"),
        ]
        result: Content = [(f"{action}Result", [("Credentials", credentials), ("AssumedRoleUser", user)])]
        return Answer(200, {"content-type": "text/xml"}, document(f"{action}Response", result, namespace=_STS))


def _sts_error(code: str) -> Answer:
    error: Content = [("Error", [("Type", "Sender"), ("Code", code), ("Message", code)])]
    return Answer(400, {"content-type": "text/xml"}, document("ErrorResponse", error, namespace=_STS), code=code)


def _pair(key: Key) -> dict[str, str]:
    return {"accessKeyId": key.id, "secretAccessKey": key.secret}


def _until(key: Key) -> int:
    return int(key.expires.timestamp()) if key.expires else 0


def _written(key: Key) -> str:
    return key.expires.strftime("%Y-%m-%dT%H:%M:%SZ") if key.expires else ""


def _json(content: dict[str, object], status: int = 200) -> Answer:
    return Answer(status, {"content-type": "application/json"}, json.dumps(content).encode())
