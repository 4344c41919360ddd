# SPDX-License-Identifier: Apache-2.0
"""The power goes while people log in: nothing is lost of what they were told.

`tests/vm/power` does the same as often as one likes.
"""

import random
from pathlib import Path

import pytest

from vm.after_cut import require_kept
from vm.lossy_disk import LossyDisk
from vm.powered import Powered

CUTS = 6
POWER_OFFS = 2
LOGINS = 30
LOGINS_AGAIN = 8


@pytest.fixture(scope="module")
def machine(prefix: Path, made: Path) -> Powered:
    """Have people log in on a disk that may lose what was not flushed, until the power goes."""
    machine = Powered(prefix, made)
    with machine.on() as period:
        period.await_told(LOGINS)
    return machine


@pytest.mark.parametrize("number", range(CUTS))
def test_disk_after_a_cut(machine: Powered, prefix: Path, number: int) -> None:
    """Whenever the power goes: who was told success is on record, the code is used, logins work."""
    dice = random.Random(number)  # noqa: S311 - reproducible
    length = len(machine.disk.history)
    require_kept(prefix, machine.after_cut(dice.randrange(length // 4, length), dice))


def test_machine_comes_back(machine: Powered, prefix: Path) -> None:
    """A machine that is switched on again refuses the codes that were told, and takes new ones."""
    left = machine
    for number in range(POWER_OFFS):
        dice = random.Random(number)  # noqa: S311 - reproducible
        left = left.after_cut(len(left.disk.history), dice)
        with left.on() as period:
            period.await_told(LOGINS_AGAIN)
    promises = require_kept(prefix, left.after_cut(len(left.disk.history), dice))
    assert len(promises.terminals) > len(machine.promises(len(machine.disk.history)).terminals)


def test_disk_loses_what_was_not_flushed() -> None:
    """The disk of these tests keeps what was flushed, and of the rest what the dice say."""
    disk = LossyDisk(bytes(3 * 4096))
    disk.write(0, b"a" * 4096)
    disk.flush()
    disk.write(4096, b"b" * 8192)
    lefts = {disk.after_cut(3, random.Random(number)) for number in range(40)}  # noqa: S311
    pages = {tuple(left[at : at + 1] for at in (0, 4096, 8192)) for left in lefts}
    expected = {(b"a", one, other) for one in (b"b", b"\0") for other in (b"b", b"\0")}
    assert expected == pages
    assert disk.after_cut(1, random.Random(0)) in {bytes(3 * 4096), b"a" * 4096 + bytes(8192)}  # noqa: S311
