# SPDX-License-Identifier: Apache-2.0
"""Verification by a fleet's database beside the embedded store, and a thousand hosts at once.

Run: `python tests/bench/fleet.py [--hosts N] [--users N] [--rate N] [--seconds N]`, with the
repository, tests and tests/fleet on PYTHONPATH. Starts a PostgreSQL and a PgBouncer of its own on
loopback, with TLS. Every login is a whole attempt, from the look at the user to the record on
disk, with a right code of its own user. Figures are printed and never judged.
"""

import argparse
import contextlib
import os
import random
import resource
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from database import HOST_ROLE, Database, running_database
from hosts import KEY, Hosts
from pooler import running_pooler
from store_behaviour import SEED, device_of

from pam_mfa import oath
from pam_mfa.oath import Parameters
from pam_mfa.policy import Policy
from pam_mfa.store import ServingStore
from pam_mfa.store.layout import Layout
from pam_mfa.store.opening import open_administrators_store, open_serving_store
from pam_mfa.verification import Caller, Commit, Listen, Look, attempt
from pam_mfa.wire import Phase, Request, Result

ROUNDS = 400
THREADS = 24
POOL = 16  # connections of the pooler to the database
STEP = 56_666_668
_BATCH = 1000
CALLER = Caller(pid=os.getpid(), uid=0, may_verify=True)


class Options(NamedTuple):
    """What is simulated."""

    hosts: int
    users: int
    rate: int
    seconds: int


def say(line: str) -> None:
    """Print a figure, at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def log_in(store: ServingStore, user: str, step: int) -> bool:
    """Verify one login by the code of a time step, which is now; return whether it is in."""
    now = step * 30 + 1.0
    (code,) = oath.codes(SEED, Parameters(), range(step, step + 1))
    request = Request(os.urandom(16), Phase.AUTH, user, "sshd", uid=1000)
    running = attempt(request, CALLER, Policy(), store, lambda: now)
    reply: object = None
    try:
        while True:
            need = running.send(reply)
            reply = None
            if isinstance(need, Look):
                reply = need.do()
            elif isinstance(need, Commit):
                reply = store.commit([need.claim])[0]
            elif isinstance(need, Listen):
                reply = code
    except StopIteration as end:
        return bool(end.value.result is Result.SUCCESS)


def compare(hosts: Hosts, folder: Path) -> None:
    """Time the same logins by both stores in turns."""
    embedded = Layout(folder / "embedded")
    for path in (embedded.devices, embedded.audit_log.parent):
        path.mkdir(0o700, parents=True)
    embedded.seal_key.write_bytes(KEY)
    embedded.seal_key.chmod(0o600)
    stores = {"embedded": open_serving_store(embedded), "fleet": hosts.serving()}
    for desk in (open_administrators_store(embedded), hosts.administration()):
        with desk.documents.lock():
            desk.documents.write("alice", (device_of(desk),))
    times: dict[str, list[float]] = {name: [] for name in stores}
    for round_ in range(ROUNDS):
        for name, store in stores.items():
            began = time.perf_counter()
            assert log_in(store, "alice", STEP + round_)
            times[name].append(time.perf_counter() - began)
    for name, found in times.items():
        say(f"{name:10} {describe(found[ROUNDS // 10 :])}")
    ratio = statistics.median(times["fleet"]) / statistics.median(times["embedded"])
    say(f"a verification by the database: {ratio:.2f} times the embedded one")


def describe(seconds: Sequence[float]) -> str:
    """Return the median and the slow ends."""
    ordered = sorted(seconds)
    at = {share: ordered[int(len(ordered) * share)] * 1000 for share in (0.5, 0.95, 0.99)}
    numbers = "  ".join(f"p{share * 100:.0f} {value:.2f}" for share, value in at.items())
    return f"{numbers}  worst {ordered[-1] * 1000:.2f} ms"


def enroll(hosts: Hosts, count: int) -> None:
    """Give so many users a device."""
    desk = hosts.administration()
    for first in range(0, count, _BATCH):
        names = [f"user{number}" for number in range(first, min(first + _BATCH, count))]
        with desk.documents.lock():
            desk.documents.write_all({name: (device_of(desk, name),) for name in names})


class Load:
    """Logins at a steady rate, at random hosts by users of their own."""

    def __init__(self, stores: Sequence[ServingStore], options: Options) -> None:
        """Take the hosts' stores."""
        self.times: list[float] = []
        self.refused = 0
        self._stores = stores
        self._options = options
        self._lock = threading.Lock()

    def run(self) -> None:
        """Go through all logins."""
        options, chance = self._options, random.Random(7)  # noqa: S311 - a load that can be repeated
        users = chance.sample(range(options.users), options.rate * options.seconds)
        began = time.perf_counter() + 0.2
        with ThreadPoolExecutor(THREADS) as threads:
            for number, user in enumerate(users):
                due = began + number / options.rate
                time.sleep(max(0.0, due - time.perf_counter()))
                threads.submit(self._log_in, chance.choice(self._stores), f"user{user}", due)

    def _log_in(self, store: ServingStore, user: str, due: float) -> None:
        is_in = log_in(store, user, STEP)
        with self._lock:
            self.times.append(time.perf_counter() - due)
            self.refused += not is_in


def watch(database: Database, counts: list[int], is_over: threading.Event) -> None:
    """Count the connections that the database has, as it goes."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE usename = %s"
    while not is_over.wait(1.0):
        counts.append(database.execute(query, (HOST_ROLE,))[0][0])


def simulate(hosts: Hosts, database: Database, options: Options) -> None:
    """Have many hosts log users in, behind a pooler."""
    began = time.perf_counter()
    enroll(hosts, options.users)
    say(f"{options.users} users enrolled in {time.perf_counter() - began:.0f} s")
    with running_pooler(database, POOL) as port:
        policy = database.policy(port=port).replace("connections: 4", "connections: 1")
        stores = [hosts.serving_on(hosts.make(policy=policy)) for _ in range(options.hosts)]
        with ThreadPoolExecutor(THREADS) as threads:
            list(threads.map(lambda store: store.read_enrollment("nobody"), stores))
        counts: list[int] = []
        is_over = threading.Event()
        watcher = threading.Thread(target=watch, args=(database, counts, is_over))
        watcher.start()
        load = Load(stores, options)
        load.run()
        is_over.set()
        watcher.join()
    say(f"{options.hosts} hosts, {options.rate} logins/s for {options.seconds} s: "
          f"{describe(load.times)}")  # fmt: skip
    say(f"refused: {load.refused}; connections to the database: {max(counts)} at most")


@contextlib.contextmanager
def made() -> Iterator[tuple[Hosts, Database, Path]]:
    """Give a database, and what makes hosts in a folder on a disk."""
    folder = Path(tempfile.mkdtemp(prefix="pam-mfa-bench-", dir="/var/tmp"))
    try:
        with running_database() as database, contextlib.ExitStack() as stack:
            database.fill()
            yield Hosts(database, folder, stack), database, folder
    finally:
        shutil.rmtree(folder)


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("hosts", 1000), ("users", 100_000), ("rate", 50), ("seconds", 60)):
        parser.add_argument(f"--{name}", type=int, default=default)
    options = Options(**vars(parser.parse_args()))
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with made() as (hosts, database, folder):
        compare(hosts, folder)
        simulate(hosts, database, options)


if __name__ == "__main__":
    main()
