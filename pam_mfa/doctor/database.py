# SPDX-License-Identifier: Apache-2.0
"""The state: whether SQLite takes it, and who could not log in by what it and the policy say.

Looked at by a child that is the service user: a database that root opens gets files of root's
beside it, and then no verifier could use it any more.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

from pam_mfa.audit import AuditLog, Head
from pam_mfa.doctor.finding import Finding, fault, ok, warning
from pam_mfa.doctor.rebuilding import is_placeholder
from pam_mfa.doctor.view import View
from pam_mfa.forecast import ask_child, forecast_logins
from pam_mfa.login_words import Outcome
from pam_mfa.store.joining import find_ahead
from pam_mfa.store.layout import Layout, drop_privileges
from pam_mfa.store.log_state import read_log_state
from pam_mfa.store.state import SCHEMA_VERSION, create_schema

_NAMES_MAX = 20
_TRIES = 5
_NEWER_MAX = 100  # versions of newer programs; another number was turned by a disk
_ADVICE = (
    "pam-mfa doctor --repair rebuilds it and keeps the old one; no used code becomes good again."
)


def check_state(view: View) -> Iterator[Finding]:
    """Have SQLite check the database."""
    path = view.layout.state
    is_there = view.stat(path) is not None
    words = find_damage(path) if is_there else ""
    lost = "" if words else find_loss(view.layout)
    if words:
        yield fault("state", f"{path} is damaged: {words}", _ADVICE)
    elif lost:
        yield fault("state", f"{path} {lost}, so every login is refused", _ADVICE)
    else:
        yield ok("state", f"{path} is whole" if is_there else "there is no state yet")


def find_damage(path: Path) -> str:
    """Return what is wrong with a database, by SQLite's word; "" for nothing."""
    if is_placeholder(path):
        return "its repair was interrupted"
    return str(ask_child(lambda: _look(path)))


def find_loss(layout: Layout) -> str:
    """Return how a state that is whole is older than the audit log; "" where it is not."""
    return str(ask_child(lambda: _compare(layout)))


def _compare(layout: Layout) -> str:
    drop_privileges()
    log, head = AuditLog(layout.audit_log), _read_head(layout.state)
    try:
        for _ in range(_TRIES):
            ahead, before = find_ahead(log, head), head
            head = _read_head(layout.state)
            if ahead is None:
                return ""
            if head == before:  # no login went on between the two looks
                return (
                    f"knows the audit log's records up to number {head.sequence}, and the log's "
                    f"last one is number {ahead.sequence}: it was restored, deleted or damaged"
                )
    finally:
        log.close()
    return ""


def _read_head(path: Path) -> Head:
    if not path.exists() or not path.stat().st_size:
        return Head()
    try:
        connection = sqlite3.connect(path, timeout=10.0, isolation_level=None)
        try:
            return read_log_state(connection).head
        finally:
            connection.close()
    except sqlite3.OperationalError:  # no table: a new one, or one from before there was a chain
        return Head()


def _look(path: Path) -> str:
    drop_privileges()
    try:
        connection = sqlite3.connect(path, timeout=10.0, isolation_level=None)
        try:
            (word,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            connection.execute("SELECT count(*) FROM used_step").fetchone()
            # A head that says "nobody may write" passes the check, and no login could be judged.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("UPDATE audit_head SET policy = policy")
            connection.execute("ROLLBACK")
            version = connection.execute("PRAGMA user_version").fetchone()[0]
            strange = _find_strange_table(connection) if version == SCHEMA_VERSION else ""
        finally:
            connection.close()
    except (sqlite3.Error, UnicodeDecodeError, MemoryError) as error:  # a name that is no text
        return str(error) or type(error).__name__
    if not 0 <= version <= SCHEMA_VERSION + _NEWER_MAX:
        return f"it claims to be of version {version}"
    if strange:
        return f"its table {strange} is not as it was made"
    return "" if word == "ok" else str(word)


def _find_strange_table(connection: sqlite3.Connection) -> str:
    """Return a table whose columns or indexes were turned into others; "" where none was."""
    made = sqlite3.connect(":memory:", isolation_level=None)
    try:
        create_schema(made)
        tables = made.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
        return next(
            (name for (name,) in tables if _shape(connection, name) != _shape(made, name)), ""
        )
    finally:
        made.close()


def _shape(connection: sqlite3.Connection, table: str) -> list[object]:
    """Return a table's columns, and its indexes' columns by their names."""
    columns = connection.execute(f"PRAGMA table_info({table})").fetchall()
    indexes = connection.execute(f"PRAGMA index_list({table})").fetchall()
    names = sorted(row[1] for row in indexes)
    return [columns, *((name, *_index(connection, name)) for name in names)]


def _index(connection: sqlite3.Connection, name: str) -> list[object]:
    return connection.execute(
        f"PRAGMA index_info('{name.replace(chr(39), chr(39) * 2)}')"
    ).fetchall()


def check_users(view: View) -> Iterator[Finding]:
    """Foretell whom logins would refuse, for services that ask."""
    if not view.asking or view.policy is None:
        return
    refused: dict[str, list[str]] = {}
    for one in forecast_logins(view.layout, view.asking, None):
        if one.outcome is Outcome.REFUSED:
            refused.setdefault(one.user, []).append(one.service)
    if not refused:
        yield ok("users", "nobody who can log in would be refused")
        return
    names = ", ".join(f"{user} ({' '.join(where)})" for user, where in
                      list(refused.items())[:_NAMES_MAX])  # fmt: skip
    more = f", and {len(refused) - _NAMES_MAX} more" if len(refused) > _NAMES_MAX else ""
    yield warning(
        "users", f"{len(refused)} would be refused: {names}{more}",
        "See why: pam-mfa status USER. Enable a device: pam-mfa enable virtual USER",
    )  # fmt: skip
