# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL of Debian's own on loopback, with TLS and client certificates, for one test run."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg

from pam_mfa.store.postgresql.migrating import Admission, admit, migrate

HOST_ROLE = "web_host"
DESK_ROLE = "desk"
OTHER_ROLE = "other_fleet_host"
PASSWORD_ROLE = "host_by_password"
PASSWORD = "correct horse"
FLEET = "production"
ROLES = (HOST_ROLE, DESK_ROLE, OTHER_ROLE, "stranger")
_PROGRAMS = max(Path("/usr/lib/postgresql").glob("*/bin"))
_TABLES = (
    "device_document, lock_state, used_step, mfa_session, token, fingerprint, audit_host, "
    "audit_record, audit_alive, audit_other"
)
_CONFIG = """
listen_addresses = '127.0.0.1'
unix_socket_directories = '{folder}'
port = {port}
ssl = on
ssl_cert_file = '{folder}/server.crt'
ssl_key_file = '{folder}/server.key'
ssl_ca_file = '{folder}/ca.crt'
wal_level = replica
shared_buffers = 16MB
max_connections = 60
"""
_ACCESS = f"""
local all all trust
local replication all trust
hostssl all {PASSWORD_ROLE} 127.0.0.1/32 scram-sha-256
hostssl all all 127.0.0.1/32 cert
"""


def run(*arguments: object, user: str = "postgres", timeout: float = 60.0) -> str:
    """Run a program as a user, and return what it writes."""
    words = [str(argument) for argument in arguments]
    if os.geteuid() == 0:
        words = ["runuser", "-u", user, "--", *words]
    done = subprocess.run(
        words, capture_output=True, text=True, timeout=timeout, check=False, cwd="/"
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Authority:
    """Who signs the certificates: of the server, and of every role."""

    def __init__(self, folder: Path) -> None:
        """Make its key."""
        self.folder = folder
        self._openssl(
            "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", "/CN=fleet test authority", "-days", "2",
            "-keyout", folder / "ca.key", "-out", folder / "ca.crt",
        )  # fmt: skip

    def sign(self, name: str, common_name: str, *, days: int = 2, extra: str = "") -> None:
        """Make a key and its certificate; a negative number of days: it has expired."""
        self._openssl(
            "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes",
            "-subj", f"/CN={common_name}",
            "-keyout", self.folder / f"{name}.key", "-out", self.folder / f"{name}.csr",
        )  # fmt: skip
        extension = self.folder / f"{name}.ext"
        extension.write_text(extra or "basicConstraints=CA:FALSE\n", "ascii")
        arguments = [
            "x509", "-req", "-in", self.folder / f"{name}.csr", "-CA", self.folder / "ca.crt",
            "-CAkey", self.folder / "ca.key", "-CAcreateserial", "-extfile", extension,
            "-out", self.folder / f"{name}.crt",
        ]  # fmt: skip
        self._openssl(*arguments, "-days", str(days))
        (self.folder / f"{name}.key").chmod(0o600)

    @staticmethod
    def _openssl(*arguments: object) -> None:
        words = ["openssl", *map(str, arguments)]
        subprocess.run(words, check=True, capture_output=True, timeout=30)


class Database:
    """One server, and the database of pam-mfa in it."""

    def __init__(self, folder: Path, authority: Authority, port: int) -> None:
        """Take a folder that the server's user owns."""
        self.folder = folder
        self.authority = authority
        self.port = port
        self.data = folder / "data"
        self.name = "fleet"

    @property
    def owner(self) -> str:
        """The address for its owner."""
        return f"host={self.folder} port={self.port} dbname={self.name} user=postgres"

    def begin(self) -> None:
        """Make the server's files and start it, with nothing of ours in it."""
        run(_PROGRAMS / "initdb", "-D", self.data, "-A", "trust", "-E", "UTF8", "--no-locale")
        self._configure()
        self.start()

    def fill(self) -> None:
        """Make the database of pam-mfa, with the schema, roles and two fleets."""
        run(_PROGRAMS / "createdb", "-h", self.folder, "-p", self.port, "fleet")
        for role in ROLES:
            self.execute(f"CREATE ROLE {role} LOGIN")
        self.execute(f"CREATE ROLE {PASSWORD_ROLE} LOGIN PASSWORD '{PASSWORD}'")
        assert list(migrate(self.owner)) == [1]
        admit(self.owner, FLEET, [
            Admission(HOST_ROLE, is_administrator=False),
            Admission(PASSWORD_ROLE, is_administrator=False),
            Admission(DESK_ROLE, is_administrator=True),
        ])  # fmt: skip
        admit(self.owner, "staging", [Admission(OTHER_ROLE, is_administrator=False)])

    def _configure(self) -> None:
        config = _CONFIG.format(folder=self.folder, port=self.port)
        with (self.data / "postgresql.conf").open("a", encoding="ascii") as out:
            out.write(config)
        (self.data / "pg_hba.conf").write_text(_ACCESS, "ascii")

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        run(_PROGRAMS / "pg_ctl", "-D", self.data, "-l", self.folder / "log", "-w", "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop it; ``immediate`` is as if it was killed."""
        run(_PROGRAMS / "pg_ctl", "-D", self.data, "-m", mode, "-w", "stop")

    def follow(self, primary: "Database") -> None:
        """Become a streaming replica of another, and have it wait for this one's disk."""
        run(
            _PROGRAMS / "pg_basebackup", "-h", primary.folder, "-p", primary.port, "-D", self.data,
            "-R", "-X", "stream", "-c", "fast",
        )  # fmt: skip
        with (self.data / "postgresql.conf").open("a", encoding="ascii") as out:
            out.write(f"port = {self.port}\n")
        self.start()
        primary.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
        primary.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 20
        while not primary.execute("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"):
            assert time.monotonic() < deadline, "the replica does not follow"
            time.sleep(0.05)

    def promote(self) -> None:
        """Take writes from now on."""
        run(_PROGRAMS / "pg_ctl", "-D", self.data, "-w", "promote")

    def execute(self, query: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Ask as the owner."""
        with psycopg.connect(self.owner, autocommit=True) as connection:
            cursor = connection.execute(query.encode(), values or None)
            return cursor.fetchall() if cursor.description is not None else []

    def empty(self) -> None:
        """Take everything away that a test has left."""
        self.execute(f"TRUNCATE {', '.join('pam_mfa.' + one for one in _TABLES.split(', '))}")
        self.execute("UPDATE pam_mfa.fleet SET key_check = ''")

    def policy(self, role: str = HOST_ROLE, *, port: int = 0, more: str = "") -> str:
        """Return a policy by which a host asks this database, by certificate."""
        folder = self.folder
        return f"""version: 1
store:
  engine: postgresql
  url: postgresql://{role}@localhost:{port or self.port}/fleet
  tls:
    root_certificate: {folder}/ca.crt
    certificate: {folder}/{role}.crt
    key: {folder}/{role}.key
  timeout: 5s
  connections: 4
  administrator:
    user: {DESK_ROLE}
    certificate: {folder}/{DESK_ROLE}.crt
    key: {folder}/{DESK_ROLE}.key
{more}"""


@contextlib.contextmanager
def running_database(roles: Sequence[str] = ROLES) -> Iterator[Database]:
    """Give a server that answers, with certificates for roles; take it away afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="pam-mfa-fleet-", dir="/var/tmp"))
    folder.chmod(0o755)
    authority = Authority(folder)
    authority.sign("server", "localhost", extra="subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for role in roles:
        authority.sign(role, role)
    if os.geteuid() == 0:
        owner = pwd.getpwnam("postgres")
        for path in (folder, folder / "server.key", folder / "server.crt"):
            os.chown(path, owner.pw_uid, owner.pw_gid)
    database = Database(folder, authority, free_port())
    try:
        database.begin()
        yield database
    finally:
        with contextlib.suppress(AssertionError):
            database.stop("immediate")
        shutil.rmtree(folder)
