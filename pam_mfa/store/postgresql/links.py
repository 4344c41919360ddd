# SPDX-License-Identifier: Apache-2.0
"""Connections to the database: how they are made, what an answer may take, and what failed.

Questions are sent as text with their values quoted by libpq, several in one message: nothing is
prepared and nothing of a session is set, so a pooler may give every transaction another server
connection. What a server says of values it was sent is left out of errors.
"""

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, TypeVar

import psycopg
from psycopg import errors
from psycopg.abc import PQGen
from psycopg.conninfo import make_conninfo

from pam_mfa.errors import NoRightError, StateError, UnreachableError
from pam_mfa.policy import Account, StoreRules
from pam_mfa.store.postgresql.reach import is_silence
from pam_mfa.store.postgresql.schema import VERSION

_Result = TypeVar("_Result")
Row = tuple[Any, ...]
_KEPT_SECONDS = 60.0  # an idle connection is used again within so many seconds
_NOT_DURABLE = ("off", "local")  # local: a replica that is promoted would not have it
_IN_TRANSACTION = (psycopg.pq.TransactionStatus.INTRANS, psycopg.pq.TransactionStatus.INERROR)
FLEET = """SELECT pam_mfa.own_fleet(), coalesce((SELECT key_check FROM pam_mfa.fleet
    WHERE fleet = pam_mfa.own_fleet()), '')"""
_GREETING = """SELECT version, pam_mfa.own_fleet(), current_setting(
    'synchronous_commit') FROM pam_mfa.schema_version"""


class Question(NamedTuple):
    """One statement and its values."""

    query: str
    values: tuple[object, ...] = ()


class Fleet(NamedTuple):
    """The fleet that a role is of."""

    name: str
    key_check: str  # by which the fleet's seal key is known; "": nobody has opened it yet


class Link(psycopg.Connection[Row]):
    """One connection, whose every wait ends in time."""

    deadline = 0.0  # by time.monotonic
    used_at = 0.0

    def wait(
        self,
        gen: PQGen[_Result],
        interval: float = 1.0,
        timeout: float | None = None,
    ) -> _Result:
        """Wait for an answer until the deadline; whoever gives up closes the connection.

        A server that is stopped, or cut off by a network that drops packets, says nothing.
        """
        del timeout
        left = max(0.0, self.deadline - time.monotonic())
        return super().wait(gen, min(interval, left), left)

    def ask(self, *questions: Question) -> list[list[Row]]:
        """Send questions in one message and return each one's rows.

        Raises:
            psycopg.Error: one failed, and those behind it were not asked.
        """
        text = ";\n".join(question.query for question in questions)
        values = [value for question in questions for value in question.values]
        results: list[list[Row]] = []
        with self.cursor() as cursor:
            cursor.execute(text.encode(), values)
            while True:
                results.append(cursor.fetchall() if cursor.description is not None else [])
                if not cursor.nextset():
                    return results


class Links:
    """The connections of one process to one database, as one role; for several threads."""

    def __init__(self, rules: StoreRules, account: Account) -> None:
        """Take where the database is and as whom it is asked; nothing is connected yet."""
        self._rules = rules
        self._account = account
        self._idle: list[Link] = []
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(rules.connections)

    @contextlib.contextmanager
    def lend(self, seconds: float) -> Iterator[Link]:
        """Lend a connection for one transaction; what fails meanwhile costs the connection.

        Raises:
            StateError: there is none, or what it was asked failed.
        """
        deadline = time.monotonic() + seconds
        if not self._places.acquire(timeout=seconds):
            raise StateError(
                f"all {self._rules.connections} connections to {self.place} are in use",
                hint="The database is too slow for the logins that there are. "
                "See: pam-mfa store status",
            )
        try:
            link = self._borrow(deadline)
            try:
                yield link
            except psycopg.Error as error:
                link.close()
                raise self.translate(error) from error
            finally:
                self._take_back(link)
        finally:
            self._places.release()

    def _borrow(self, deadline: float) -> Link:
        try:
            link = self._take() or self._connect()
        except psycopg.Error as error:
            raise self.translate(error) from error
        link.deadline = deadline
        return link

    @property
    def place(self) -> str:
        """The database, for messages."""
        servers = ",".join(server.host for server in self._rules.servers)
        return f"the database {self._rules.database} at {servers}"

    def drop_idle(self) -> None:
        """Close what is idle: where one connection turns out dead, the others mostly are, too."""
        with self._lock:
            idle, self._idle = self._idle, []
        for link in idle:
            link.close()

    def _take(self) -> Link | None:
        now = time.monotonic()
        with self._lock:
            while self._idle:
                link = self._idle.pop()
                if now - link.used_at < _KEPT_SECONDS and not link.closed:
                    return link
                link.close()
        return None

    def _take_back(self, link: Link) -> None:
        """Keep a connection whose transaction has ended, or can be; close every other one.

        Once it is among the idle ones, another thread may have it: it is not touched any more.
        """
        with contextlib.suppress(psycopg.Error):
            if not link.closed and link.info.transaction_status in _IN_TRANSACTION:
                link.ask(Question("ROLLBACK"))
            if link.info.transaction_status is psycopg.pq.TransactionStatus.IDLE:
                link.used_at = time.monotonic()
                with self._lock:
                    self._idle.append(link)
                return
        link.close()

    def _connect(self) -> Link:
        for name in [name for name in os.environ if name.startswith("PG")]:
            os.environ.pop(name, None)  # libpq would take more of them than policy has said
        link = Link.connect(
            make_conninfo(**self._parameters()),
            autocommit=True,
            prepare_threshold=None,
            cursor_factory=psycopg.ClientCursor,
        )
        link.deadline = time.monotonic() + self._rules.timeout
        try:
            self._greet(link)
        except BaseException:
            link.close()
            raise
        return link

    def _greet(self, link: Link) -> None:
        """Ask whether this program and the database fit, before anything is judged by it."""
        ((version, fleet, durability),) = link.ask(Question(_GREETING))[0]
        if version != VERSION:
            other = "older" if version < VERSION else "newer"
            step = (
                "Bring it up to date from an administrator's host: pam-mfa store migrate"
                if version < VERSION
                else "Install the version of pam-mfa that the other hosts have."
            )
            raise StateError(
                f"{self.place} is of version {version}, {other} than this program's {VERSION}",
                hint=step,
            )
        if fleet is None:
            raise StateError(
                f"the role {self._account.user} is of no fleet in {self.place}",
                hint="As the database's owner: pam-mfa store migrate --url URL --fleet NAME "
                f"--host-role {self._account.user}",
            )
        if durability in _NOT_DURABLE:
            raise StateError(
                f"{self.place} tells of commits that it may lose (synchronous_commit is "
                f"'{durability}'), and a used code would be good again",
                hint=f"ALTER ROLE {self._account.user} SET synchronous_commit = on;",
            )

    def _parameters(self) -> dict[str, str]:
        rules, account = self._rules, self._account
        parameters = {
            "host": ",".join(server.host for server in rules.servers),
            "port": ",".join(str(server.port) for server in rules.servers),
            "dbname": rules.database,
            "user": account.user,
            "connect_timeout": str(round(rules.timeout)),
            "tcp_user_timeout": str(round(rules.timeout * 1000)),
            "keepalives_idle": "30",
            "target_session_attrs": "read-write",  # of several, the one that is no replica
            "application_name": "pam-mfa",
            # What is not named here libpq would look for in a home.
            "sslcert": account.certificate or "/nonexistent",
            "sslkey": account.key or "/nonexistent",
            "passfile": account.passfile or "/nonexistent",
            "gssencmode": "disable",
        }
        if rules.root_certificate:
            parameters |= {"sslmode": "verify-full", "sslrootcert": rules.root_certificate}
        return parameters

    def translate(self, error: psycopg.Error) -> StateError:
        """Return what a failure means, in a sentence and with what to do next."""
        what, hint = _explain(error, self._account.user)
        kind = StateError
        if isinstance(error, errors.InsufficientPrivilege):
            kind = NoRightError
        elif is_silence(error.sqlstate, str(error)):
            kind = UnreachableError
        return kind(f"{self.place}: {what}", hint=hint)


def _explain(error: psycopg.Error, user: str) -> tuple[str, str]:
    said = _primary(error)
    for kinds, what, hint in _MEANINGS:
        if isinstance(error, kinds):
            return what.format(user=user, said=said), hint
    if error.sqlstate == _USED_MEANWHILE:
        return "the code was used meanwhile, at another host", ""
    if error.sqlstate is None:
        said = " ".join(str(error).split())
        if "timeout" in said:
            return "it did not answer in time", SLOW
    return said, next((hint for words, hint in _CONNECTING if words in said), _UNREACHABLE)


def _primary(error: psycopg.Error) -> str:
    """Return what the server says, without what it quotes of values."""
    return error.diag.message_primary or type(error).__name__


_USED_MEANWHILE = "P0M02"
SLOW = "Until it answers within store: timeout, logins are refused. See: pam-mfa store status"
_UNREACHABLE = "Until it can be used, logins are refused. See: pam-mfa store status"
_NO_TABLES = (errors.UndefinedTable, errors.InvalidSchemaName, errors.UndefinedFunction)
_MEANINGS: tuple[tuple[tuple[type[psycopg.Error], ...], str, str], ...] = (
    (_NO_TABLES, "it has no tables of pam-mfa", "As its owner: pam-mfa store migrate --url URL"),
    (
        (errors.InsufficientPrivilege,),
        "the role {user} has no right to that ({said})",
        "A host's role changes no devices. Run the command where policy has store: administrator.",
    ),
    ((errors.QueryCanceled, errors.LockNotAvailable), "it did not answer in time", SLOW),
    (
        (errors.ReadOnlySqlTransaction,),
        "it is a replica, which takes no writes",
        "Name the others in store: url, too.",
    ),
    ((errors.DiskFull,), "its disk is full", "Until there is room, every login is refused."),
    ((errors.UniqueViolation,), "that is taken already", ""),
)
_CONNECTING = (
    ("password authentication failed", "Compare the password in store: passfile with the role's."),
    ("no password supplied", "Name a file with the role's password: store: passfile."),
    ("certificate has expired", "Renew the database's certificate, or this host's (store: tls)."),
    ("certificate expired", "Renew this host's certificate (store: tls: certificate)."),
    ("certificate verify failed", "Compare store: tls: root_certificate with the database's."),
    ("does not match host name", "Name the host in store: url as its certificate does."),
    ("certificate authentication failed", "The certificate is another role's: see pg_hba.conf."),
    ("no pg_hba.conf entry", "Let this host and role in: see the database's pg_hba.conf."),
    ("root certificate file", "Put the authority's certificate where store: tls: says."),
    ("certificate file", "Put this host's certificate where store: tls: says, pam-mfa's."),
    ("private key", "Put the certificate's key where store: tls: says, pam-mfa's with mode 0600."),
    ("does not exist", "As the database's owner, make the role and the database."),
)
