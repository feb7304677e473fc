"""The limiter's store for several hosts: a PostgreSQL database, whose clock all of them share.

It is imported only if RATE_LIMIT_URL names a database: psycopg comes with the extra `postgres`. A permit takes two
round trips. No session state outlives a transaction, so that a pooler such as PgBouncer may be used.
"""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import psycopg
from psycopg import conninfo, errors

from pipelines.ringcx.limits.store import TABLES, LimiterBroken, LimitStore, StoreLost

_QUIET_AFTER_FAILURE_S = 1.0  # the threads that waited for a connection that failed must not try it one by one
# A dead network is noticed within half a minute; parameters in the address take precedence.
_DEFAULTS: Mapping[str, str] = {
    "application_name": "ringcx-archive limits",
    "connect_timeout": "10",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
}
# A host that froze while it held the lock must not stop the others for longer than this.
_GUARDS = """
SELECT set_config('idle_in_transaction_session_timeout', '30s', true), set_config('lock_timeout', '60s', true)"""
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('ringcx_limit/' || %s || '/' || %s, 0))"
_TABLES_EXIST = """
SELECT to_regclass('ringcx_limit_permits') IS NOT NULL AND to_regclass('ringcx_limit_states') IS NOT NULL"""
# IF NOT EXISTS alone lets two that start together collide in the catalog.
_LOCK_TABLES = "SELECT pg_advisory_xact_lock(hashtextextended('ringcx_limit', 0))"
# The server's messages when a retry is useless; in another language it is retried for a minute.
_PERMANENT = re.compile(r"authentication failed|does not exist|no pg_hba\.conf entry|is not permitted", re.IGNORECASE)


class PostgresStore(LimitStore):
    """Two small tables in the database's default schema, created if they do not exist. No error shows the `url`."""

    _now = "coalesce(%s::float8, extract(epoch FROM clock_timestamp())::float8)"

    def __init__(self, url: str, *, clock: Callable[[], float] | None = None) -> None:
        super().__init__(clock or (lambda: None))
        try:
            self._parameters = {**_DEFAULTS, **conninfo.conninfo_to_dict(url)}
        except psycopg.Error:  # its text quotes the address, and with it the password
            raise LimiterBroken(
                "RATE_LIMIT_URL is not an address that PostgreSQL's library can read; write it as"
                " postgresql://user:password@host/database, with special characters percent-encoded."
            ) from None
        self._failed: tuple[float, psycopg.Error] | None = None

    @contextmanager
    def _locked(self, connection: psycopg.Connection, name: str, account_id: str) -> Iterator[None]:
        """Hold a lock that blocks only requests of the same limit and account."""
        with connection.pipeline(), connection.transaction():
            connection.execute(_GUARDS)
            connection.execute(_LOCK, (name, account_id))
            yield

    def _open(self) -> psycopg.Connection:
        if self._failed is not None and time.monotonic() - self._failed[0] < _QUIET_AFTER_FAILURE_S:
            raise self._failed[1].with_traceback(None)
        try:
            # prepare_threshold: a prepared statement belongs to a session, and a pooler changes it under us.
            address = conninfo.make_conninfo("", **self._parameters)
            connection = psycopg.connect(address, autocommit=True, prepare_threshold=None)
            try:
                connection.isolation_level = psycopg.IsolationLevel.READ_COMMITTED  # a statement sees what is committed
                if connection.execute(_TABLES_EXIST).fetchone() != (True,):
                    with connection.transaction():
                        for statement in (_LOCK_TABLES, *TABLES):
                            connection.execute(statement)
            except BaseException:
                connection.close()
                raise
        except psycopg.Error as error:
            self._failed = time.monotonic(), error
            raise
        return connection

    def _as_limiter_error(self, error: BaseException) -> LimiterBroken | None:
        if not isinstance(error, psycopg.Error):
            return None
        said = " ".join((error.diag.message_primary or str(error) or type(error).__name__).split())
        password = str(self._parameters.get("password") or "")
        shown = said.replace(password, "***") if password else said
        # A standby that has not taken over yet refuses to write.
        transient = psycopg.OperationalError | psycopg.InterfaceError | errors.ReadOnlySqlTransaction
        may_come_back = isinstance(error, transient) and not _PERMANENT.search(said)
        kind = StoreLost if may_come_back else LimiterBroken
        return kind(
            f"The rate limiter's database cannot be used ({shown}); check RATE_LIMIT_URL, that the database"
            " answers, and that its user may create tables there. No request is sent without it."
        )
