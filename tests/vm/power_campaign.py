# SPDX-License-Identifier: Apache-2.0
"""Cuts the power of a guest in which people log in, and looks at what is left.

Cuts: one guest runs with every write and flush of its disk on record, and the disk is made as each
of so many random moments would have left it. Power-offs: a guest is killed at a random moment,
loses what it had not flushed, and is booted again, so many times.
"""

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

from installed import install

from vm.after_cut import require_kept
from vm.powered import Powered
from vm.product import made_for_guests

_LOGINS = 100  # told in the run that the cuts are made of
_MOST_TOLD = 16  # of a power-off's time, by then at the latest


def main() -> None:
    """Run one campaign from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--power-offs", type=int, default=50)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    options = parser.parse_args()
    _say(f"{options.cuts} cuts, {options.power_offs} power-offs, --seed {options.seed}")
    dice = random.Random(options.seed)  # noqa: S311 - reproducible
    with (
        tempfile.TemporaryDirectory(prefix="pam-mfa-prefix-", dir="/var/tmp") as scratch,
        made_for_guests() as made,
    ):
        Path(scratch).chmod(0o755)
        prefix = Path(scratch, "prefix")
        install(prefix)
        if options.cuts:
            _cut(Powered(prefix, made), prefix, options.cuts, dice)
        if options.power_offs:
            _power_off(Powered(prefix, made), prefix, options.power_offs, dice)


def _cut(machine: Powered, prefix: Path, cuts: int, dice: random.Random) -> None:
    with machine.on() as period:
        period.await_told(_LOGINS)
    history = machine.disk.history
    flushes = sum(one.is_flush for one in history)
    _say(f"{len(history) - flushes} writes, {flushes} flushes, {_LOGINS} told")
    for number in range(1, cuts + 1):
        moment = dice.randrange(len(history))
        promises = require_kept(prefix, machine.after_cut(moment, dice))
        _say(f"cut {number} at {moment}: {len(promises.terminals)} logins kept")


def _power_off(machine: Powered, prefix: Path, power_offs: int, dice: random.Random) -> None:
    for number in range(1, power_offs + 1):
        with machine.on() as period:
            period.await_told(dice.randrange(_MOST_TOLD))
            time.sleep(dice.random())  # between two things that are told, too
        machine = machine.after_cut(len(machine.disk.history), dice)
        promises = require_kept(prefix, machine)
        _say(f"power-off {number}: {len(promises.terminals)} logins kept")


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
