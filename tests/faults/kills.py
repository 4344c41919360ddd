# SPDX-License-Identifier: Apache-2.0
"""Kills verifiers at random points under 16 parallel logins, and then reads the audit log.

Half of the logins go to a daemon, which is killed and started again, the other half start a
verifier each, of which some are killed; all write to one log, which is rotated meanwhile. At the
end every login that was told success must be in the log exactly once, no login twice, and the
chain must verify from its first record to its last.

    python tests/faults/kills.py --prefix DIR [--kills 1000] [--seed N]
"""

import argparse
import collections
import contextlib
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from audit_records import read_all, require_chain
from installed import DataRoot
from login_crowd import (
    USERS,
    Login,
    Person,
    answer,
    ask,
    connect,
    enable_everybody,
    rotate,
    start_verifier,
    wait_until_free,
)

_LIFE = 0.8  # seconds: the longest that one is left alone after its start
_DECISION = 0.04  # seconds: the longest after the code was sent
_ROTATE_EVERY = 1.0  # seconds
_DOOMED = 0.4  # of the verifiers on demand
_PAUSE = 0.01  # seconds, while no daemon listens


class Result(NamedTuple):
    """What a campaign came to."""

    kills: int
    told: int  # logins that were told success
    untold: int  # logins that are in the log, and whose verifier was killed before it told
    records: int
    rotations: int


class Campaign:
    """One campaign on one data root."""

    def __init__(self, root: DataRoot, kills: int, seed: int) -> None:
        """Give everybody a token."""
        self._root = root
        self._people = enable_everybody(root)
        self._left = kills
        self._kills = kills
        self._seed = seed
        self._lock = threading.Lock()
        self._told: list[str] = []
        self._faults: list[BaseException] = []
        self._rotations = 0

    def run(self) -> Result:
        """Carry it out, and check what is in the log.

        Raises:
            AssertionError: a login that succeeded is not in it, one is twice, or the chain tears.
        """
        on_demand = [self._thread(self._log_in_on_demand, one) for one in self._people[::2]]
        by_daemon = [self._thread(self._log_in_by_daemon, one) for one in self._people[1::2]]
        threads = [self._thread(self._kill_daemons, None), *on_demand, *by_daemon]
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(_ROTATE_EVERY)
            if self._is_going and self._root.audit_log.exists():
                rotate(self._root.audit_log)
                self._rotations += 1
        for thread in threads:
            thread.join()
        if self._faults:
            raise self._faults[0]
        self._log_in_once_more()
        return self._check()

    def _thread(self, target: Any, person: Person | None) -> threading.Thread:  # noqa: ANN401 - a method
        def run() -> None:
            try:
                target(*filter(None, (person,)))
            except BaseException as error:  # noqa: BLE001 - raised by the one who waits
                self._faults.append(error)
                self._left = 0

        return threading.Thread(target=run)

    @property
    def _is_going(self) -> bool:
        return self._left > 0

    def _count_kill(self) -> bool:
        """Whether one more is to be killed."""
        with self._lock:
            self._left -= 1
            return self._left >= 0

    def _log_in_on_demand(self, person: Person) -> None:
        dice, number = random.Random(f"{self._seed} {person.name}"), 0  # noqa: S311 - reproducible
        while self._is_going:
            number += 1
            login = Login(f"{person.name}-{number}", person)
            connection, process = start_verifier(self._root)
            is_doomed = dice.random() < _DOOMED and self._count_kill()
            is_late = dice.random() < 0.5
            timer = threading.Timer(dice.uniform(0, _DECISION if is_late else _LIFE), process.kill)
            with connection:
                if is_doomed and not is_late:
                    timer.start()
                is_asked = ask(connection, login)
                if is_doomed and is_late:
                    timer.start()
                if is_asked and answer(connection, login):
                    self._told.append(login.terminal)
            process.wait()
            if is_doomed:
                timer.join()

    def _log_in_by_daemon(self, person: Person) -> None:
        number = 0
        while self._is_going:
            number += 1
            login = Login(f"{person.name}-{number}", person)
            try:
                connection = connect(self._root)
            except OSError:
                time.sleep(_PAUSE)
                continue
            with connection:
                if ask(connection, login) and answer(connection, login):
                    self._told.append(login.terminal)

    def _kill_daemons(self) -> None:
        dice = random.Random(self._seed)  # noqa: S311 - reproducible
        while self._count_kill():
            with self._root.daemon() as process:
                time.sleep(dice.uniform(0, _LIFE))
                process.kill()
                process.wait()
            wait_until_free(self._root)

    def _log_in_once_more(self) -> None:
        """Let a last login append what the last kill kept from the log."""
        login = Login("last", self._people[0])
        connection, process = start_verifier(self._root)
        with connection:
            assert ask(connection, login)
            assert answer(connection, login)
        process.wait()
        self._told.append(login.terminal)

    def _check(self) -> Result:
        records = require_chain(read_all(self._root.audit_log.parent))
        successes = collections.Counter(
            one["tty"]
            for one in records
            if one["event_name"] == "VerifyMfa" and one["outcome"] == "success"
        )
        assert [one for one, count in successes.items() if count != 1] == [], "a login twice"
        assert set() == set(self._told) - set(successes), "a login that is not in the log"
        untold = len(set(successes) - set(self._told))
        resumed = [one for one in records if one["event_name"] in ("ResumeLog", "MendLog")]
        assert resumed == [], "a kill tears nothing"
        return Result(self._kills, len(self._told), untold, len(records), self._rotations)


def main() -> None:
    """Run one campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prefix", type=Path, required=True, help="of an installed pam-mfa")
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    print(f"{options.kills} kills, {USERS} logins at once, --seed {options.seed}")  # noqa: T201
    root = DataRoot(options.prefix)
    with contextlib.ExitStack() as stack:
        stack.callback(root.remove)
        print(Campaign(root, options.kills, options.seed).run())  # noqa: T201


if __name__ == "__main__":
    main()
