"""One signed request that carries a body to S3: what is sent for every recording, at a seventh of boto3's CPU.

The body goes from where it lies into the socket, without a copy in between. Address, region, credentials and proxies
are botocore's. Everything else that is asked of a bucket goes through boto3; what goes wrong here is raised as botocore
would raise it, so that `errors` knows one kind.

Not for deciding what is sent (`bucket`), nor whether it arrived (`transfer`), nor for the signature (`signing`).
"""

import re
import select
import socket
import ssl
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol
from urllib.parse import quote, urlsplit

import botocore.session
from botocore import exceptions as boto
from botocore.httpsession import get_cert_path

from pipelines.archive.route import Route
from pipelines.archive.signing import Credentials, Request, signed

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

__all__ = ["Answer", "Part", "Sender", "SignedSender"]

_LAST_WORD_S: Final = 1.0
_KEPT_S: Final = 60.0
_BLOCK: Final = 1 << 20  # the silence is for each of them: a slow line has a minute for so much
_LONGEST_ANSWER: Final = 1 << 20
_CODE: Final = re.compile(rb"<Code>([A-Za-z0-9.]{1,100})</Code>")
# Buckets of these names are part of the host's name at Amazon; a dot would not fit its certificate.
_HOST_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]")


@dataclass(frozen=True, slots=True)
class Answer:
    """What the store said: headers by lower-case name."""

    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Part:
    """`size` bytes of a seekable stream, from `start` on."""

    stream: BinaryIO
    start: int
    size: int


class Sender(Protocol):
    """Sends PUT requests to one bucket. Safe to share between threads."""

    def put(
        self, key: str, body: bytes | Part, headers: Mapping[str, str], query: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a body, once.

        Args:
            key: the whole key.
            body: bytes, or a part of a stream, read block by block.
            headers: signed with the rest; `x-amz-content-sha256` among them.
            query: of the address.

        Raises:
            botocore.exceptions.ClientError: the store said no.
            botocore.exceptions.BotoCoreError: it could not be asked.
            OSError: the stream could not be read.
        """


class SignedSender:
    """Sends to the endpoint of a boto3 client, signed with the credentials of the environment.

    Args:
        client: whose endpoint, region and manner of addressing are used.
        bucket: its name.
        silence_s: seconds for each MiB to be taken, and for the answer to begin.
    """

    def __init__(self, client: "S3Client", bucket: str, *, silence_s: float = 60.0) -> None:
        self._address = _address(client, bucket)
        self._region = client.meta.region_name
        self._session = botocore.session.get_session()
        bundle = self._session.get_config_variable("ca_bundle")  # AWS_CA_BUNDLE, or its line in AWS's own file
        self._route = Route.of(self._address, bundle or get_cert_path(True))
        self._silence_s = silence_s
        self._lock = threading.Lock()
        self._kept: list[tuple[float, HTTPConnection]] = []

    def put(
        self, key: str, body: bytes | Part, headers: Mapping[str, str], query: Mapping[str, str] | None = None
    ) -> Answer:
        """Send a body, once; see `Sender`."""
        to = self._route.to
        request = Request("PUT", to.netloc, f"{to.path}/{quote(key, safe='/~')}", query or {}, headers)
        headers = signed(request, self._credentials(), self._region, datetime.now(UTC))
        target, lines = self._route.request(request.target, headers)
        connection, is_kept = self._connection()
        try:
            try:
                status, answer, said = self._exchange(connection, target, lines, body)
            except boto.ConnectionClosedError:
                if not is_kept:
                    raise
                # It was closed while nobody used it. A put may be sent again: what it did shows in the next answer.
                connection.close()
                status, answer, said = self._exchange(connection, target, lines, body)
        except BaseException:
            connection.close()
            raise
        self._keep(connection)
        if status not in range(200, 300):
            raise _refused(status, said)
        return answer

    def _exchange(
        self, connection: HTTPConnection, target: str, lines: Mapping[str, str], body: bytes | Part
    ) -> tuple[int, Answer, bytes]:
        """Status, headers and body of the answer. What cannot be read of our own body is raised as it is."""
        if connection.sock is None:
            self._connect(connection)
        with self._botocores_errors():
            connection.putrequest("PUT", target, skip_host=True, skip_accept_encoding=True)
            for name, value in lines.items():
                connection.putheader(name, value)
            connection.putheader("content-length", str(body.size if isinstance(body, Part) else len(body)))
            connection.putheader("user-agent", "ringcx-archive")
            connection.endheaders()
        failure = None
        for block in _blocks(body):
            try:
                connection.send(block)
            except OSError as error:
                failure = error
                break
        with self._botocores_errors():
            if failure is not None:  # it may have said why before it stopped to listen
                connection.sock.settimeout(_LAST_WORD_S)
            try:
                response = connection.getresponse()
                said = response.read(_LONGEST_ANSWER)
            except (OSError, HTTPException) as error:
                raise failure or error from None
            if failure is not None and response.status < 300:
                raise failure
        if failure is not None or response.will_close or not response.isclosed():
            connection.close()
        return response.status, Answer({name.lower(): value for name, value in response.getheaders()}), said

    def _connect(self, connection: HTTPConnection) -> None:
        try:
            connection.connect()
        except ssl.SSLError as error:
            raise boto.SSLError(endpoint_url=self._address, error=error) from None
        except OSError as error:
            raise boto.EndpointConnectionError(endpoint_url=self._address, error=error) from None
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        connection.sock.settimeout(self._silence_s)

    @contextmanager
    def _botocores_errors(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError as error:
            raise boto.ReadTimeoutError(endpoint_url=self._address, error=error) from None
        except ConnectionError:
            raise boto.ConnectionClosedError(endpoint_url=self._address) from None
        except (OSError, HTTPException) as error:
            raise boto.HTTPClientError(error=error) from None

    def _credentials(self) -> Credentials:
        found = self._session.get_credentials()
        if found is None:
            raise boto.NoCredentialsError
        frozen = found.get_frozen_credentials()
        if not frozen.access_key or not frozen.secret_key:
            raise boto.NoCredentialsError
        return Credentials(frozen.access_key, frozen.secret_key, frozen.token)

    def _connection(self) -> tuple[HTTPConnection, bool]:
        """A connection, and whether it was used before: of those the one that was used last."""
        while True:
            with self._lock:
                if not self._kept:
                    break
                used, connection = self._kept.pop()
            poll = select.poll()
            poll.register(connection.sock, select.POLLIN)
            if time.monotonic() - used < _KEPT_S and not poll.poll(0):  # else it was closed, or says what nobody asked
                return connection, True
            connection.close()
        return self._route.connection(), False

    def _keep(self, connection: HTTPConnection) -> None:
        if connection.sock is not None:
            with self._lock:
                self._kept.append((time.monotonic(), connection))


def _blocks(body: bytes | Part) -> Iterator[bytes | memoryview]:
    """A body in blocks: as its stream gives them (`Spool.blocks`), else as they are read."""
    if isinstance(body, bytes):
        view = memoryview(body)
        yield from (view[start : start + _BLOCK] for start in range(0, len(view), _BLOCK))
        return
    left = body.size
    for block in getattr(body.stream, "blocks", partial(_read, body.stream))(body.start, body.size):
        left -= len(block)
        yield block
    if left:
        raise OSError(f"The body ended {left} bytes too early.")


def _read(stream: BinaryIO, start: int, size: int) -> Iterator[bytes]:
    stream.seek(start)
    while block := stream.read(min(size, _BLOCK)):
        size -= len(block)
        yield block


def _address(client: "S3Client", bucket: str) -> str:
    """Where the keys of a bucket begin: in the host's name at Amazon where it can, in the path everywhere else."""
    endpoint = client.meta.endpoint_url.rstrip("/")
    parts = urlsplit(endpoint)
    style = (getattr(client.meta.config, "s3", None) or {}).get("addressing_style", "auto")
    if style == "path" or not _HOST_NAME.fullmatch(bucket):
        return f"{endpoint}/{quote(bucket, safe='')}"
    return f"{parts.scheme}://{bucket}.{parts.netloc}{parts.path}"


def _refused(status: int, body: bytes) -> boto.ClientError:
    code = _CODE.search(body)
    said = code[1].decode() if code else str(status)
    return boto.ClientError(
        {"Error": {"Code": said, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        "PutObject",
    )
