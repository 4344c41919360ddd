# SPDX-License-Identifier: Apache-2.0
"""PgBouncer in transaction mode, as the database's user, with the database's certificates."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator

import psycopg
from database import DESK_ROLE, HOST_ROLE, Database, free_port

_CONFIG = """[databases]
fleet = host={folder} port={server} dbname=fleet
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
pool_mode = transaction
default_pool_size = {size}
max_client_conn = 4000
auth_type = cert
auth_file = {folder}/pooler.users
client_tls_sslmode = verify-full
client_tls_ca_file = {folder}/ca.crt
client_tls_cert_file = {folder}/server.crt
client_tls_key_file = {folder}/server.key
logfile = {folder}/pooler.log
pidfile = {folder}/pooler.pid
"""


@contextlib.contextmanager
def running_pooler(database: Database, size: int) -> Iterator[int]:
    """Give the port of a pooler that has so many connections for each role."""
    folder, port = database.folder, free_port()
    config = _CONFIG.format(folder=folder, server=database.port, port=port, size=size)
    (folder / "pooler.ini").write_text(config, "ascii")
    users = "".join(f'"{role}" ""\n' for role in (HOST_ROLE, DESK_ROLE))
    (folder / "pooler.users").write_text(users, "ascii")
    words = ["/usr/sbin/pgbouncer", str(folder / "pooler.ini")]
    if os.geteuid() == 0:
        words = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups", *words]
    with subprocess.Popen(words, cwd="/", stderr=subprocess.DEVNULL) as process:
        try:
            _wait_until_it_answers(database, port)
            yield port
        finally:
            process.terminate()


def _wait_until_it_answers(database: Database, port: int) -> None:
    folder = database.folder
    address = (
        f"host=localhost port={port} dbname=fleet user={HOST_ROLE} sslmode=verify-full "
        f"sslrootcert={folder}/ca.crt sslcert={folder}/{HOST_ROLE}.crt "
        f"sslkey={folder}/{HOST_ROLE}.key"
    )
    deadline = time.monotonic() + 10
    while True:
        try:
            psycopg.connect(address).close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, (folder / "pooler.log").read_text("utf-8")
            time.sleep(0.05)
        else:
            return
