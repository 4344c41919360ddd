# SPDX-License-Identifier: Apache-2.0
"""How long a login by a touch takes, beside pam_u2f with the same key, and from plugging in to cue.

Run as root: `python tests/bench/keys.py [--rounds N]`. Boots the guest of the layer vm and measures
inside (`key_logins.py`). Figures are printed and never judged. Without hardware virtualization the
guest is an order of magnitude slower than a machine; how much slower its Python is than this one's
is printed, so that its times can be read as a machine's.
"""

import argparse
import json
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

from key_speed import calculate

FOLDER = Path(__file__).resolve().parent
sys.path[:0] = [str(FOLDER.parent), str(FOLDER.parent / "login")]

from vm.guest import Guest  # noqa: E402 - found by the path above
from vm.product import install_product, made_for_guests  # noqa: E402
from vm.software_key import install_software_keys  # noqa: E402

LIBRARIES = "/opt:/opt/pam-mfa/lib/python"
AIM_LOGIN, AIM_HOTPLUG = 20, 200  # milliseconds


@dataclass(frozen=True)
class Row:
    """One module's logins; milliseconds, each the median."""

    name: str
    wall: float
    key: float
    own: float  # over the key's own time


def parse_options() -> argparse.Namespace:
    """Return the command line's options."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="logins of each module")
    return parser.parse_args()


def summarize(name: str, logins: list[list[float]]) -> Row:
    """Return a module's medians."""
    wall, key = ([login[i] for login in logins] for i in range(2))
    own = [login[0] - login[1] for login in logins]
    return Row(name, *(statistics.median(column) for column in (wall, key, own)))


def print_lines(*lines: str) -> None:
    """Print."""
    sys.stdout.write("\n".join(lines) + "\n")


def report(figures: dict[str, dict[str, list[list[float]]]], slower: float) -> None:
    """Print the tables."""
    rows = [summarize(name, logins) for name, logins in figures["logins"].items()]
    floor = next(row.own for row in rows if row.name == "pam_permit")
    peer = next(row.wall for row in rows if row.name == "pam_u2f")
    print_lines(
        "",
        "Logins by a touch; milliseconds, medians. own: over the key's own time and pam_permit's",
        f"{'':20}{'all':>10}{'key':>10}{'own':>10}{'own, here':>12}{'all, x pam_u2f':>16}",
    )
    for row in rows:
        own = row.own - floor
        times = f"{row.wall:10.1f}{row.key:10.1f}{own:10.1f}{own / slower:12.1f}"
        print_lines(f"{row.name:20}{times}{row.wall / peer:16.2f}")
    print_lines(f"aim: own at most {AIM_LOGIN} ms with the daemon, on a machine")


def report_hotplug(waits: list[list[float]], slower: float) -> None:
    """Print the times from plugging in to the cue."""
    udev = statistics.median(wait[0] for wait in waits)
    over = statistics.median(wait[1] - wait[0] for wait in waits)
    print_lines(
        "",
        f"From plugging in to udev's event {udev:.0f} ms, and to the cue {over:.0f} ms more "
        f"({over / slower:.0f} ms here); aim: at most {AIM_HOTPLUG} ms",
    )


def main() -> None:
    """Boot, measure, print."""
    rounds = parse_options().rounds
    with made_for_guests() as made, Guest() as guest:
        install_product(guest, made)
        install_software_keys(guest)
        guest.put(FOLDER, "/opt/bench")
        command = ["env", f"PYTHONPATH={LIBRARIES}", "python3", "/opt/bench/key_logins.py"]
        done = guest.run([*command, str(rounds)], timeout=60.0 * rounds)
        figures = json.loads(done.stdout)
        print_lines(f"machine: QEMU with {guest.accelerator}, {guest.output('uname -r')}")

    slower = figures.pop("calculation") / calculate()
    print_lines(f"Python in the guest is {slower:.1f} times slower than here")
    report(figures, slower)
    report_hotplug(figures["hotplug"], slower)


if __name__ == "__main__":
    main()
