# SPDX-License-Identifier: Apache-2.0
"""Where the time of one login without a daemon goes: interpreter, imports, parsing, disk.

Run as root: `python tests/bench/on_demand.py --prefix DIR`. A verifier is started as pam_mfa.so
starts it, with its steps timed inside and the module's part played here; beside it whole logins
through libpam, in turns. Medians are printed and never judged.
"""

import argparse
import json
import signal
import socket
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from contender import BenchmarkError, User, create_users, totp
from one_login import Libpam
from product import Installation, Product
from syslog_sink import working_syslog

NONCE = bytes(16)
REQUEST, ANSWER, VERDICT = 0x01, 0x02, 0x82
SUCCESS = b"\x01\x00\x01\x01"  # the verdict's one field
CHILD = """
import time
began = time.perf_counter()
import gc, json, sys
gc.disable()
prefix, descriptor, root, spawned = sys.argv[1:]
last, steps, took = float(spawned), ["interpreter"], {}

def turn(enter=None):
    # What has passed since the last turn was the step's that was under way.
    global last
    now = time.perf_counter()
    took[steps[-1]] = took.get(steps[-1], 0.0) + now - last
    last = now
    steps.append(enter) if enter else steps.pop()

def timed(step, owner, name):
    real = getattr(owner, name)
    def call(*arguments, **options):
        turn(step)
        try:
            return real(*arguments, **options)
        finally:
            turn()
    setattr(owner, name, call)

took["interpreter"] = began - last
last = began
steps = ["imports"]
sys.path.insert(0, prefix + "/lib/python")
from pathlib import Path
from pam_mfa.verifier import __main__ as verifier, once, surroundings
from pam_mfa.store import embedded, layout
from pam_mfa.verifier.policy_file import PolicyFile
gc.freeze()
gc.enable()
turn("verification")
timed("leaving the caller", surroundings, "leave_caller")
timed("leaving the caller", verifier, "drop_privileges")
timed("policy", PolicyFile, "current")
timed("devices", embedded.EmbeddedStore, "read_enrollment")
timed("state and record, durable", embedded.EmbeddedStore, "commit")
timed("waiting for the module", once, "receive_packet")
timed("closing", embedded.EmbeddedStore, "close")
verifier._run_once(int(descriptor), layout.Layout(Path(root)))
turn()
print(json.dumps(took))
"""
STEPS = {
    "interpreter": "the bare interpreter's start",
    "imports": "what a login imports",
    "leaving the caller": "rights and surroundings left; mostly the kernel's change of cgroup",
    "policy": "the policy read and parsed",
    "devices": "the user's devices read, parsed and unsealed; seal key and state opened",
    "verification": "all else: request, decision, codes, frames",
    "state and record, durable": "judged, and on disk",
    "waiting for the module": "waiting for the answer; 0 where nobody types",
    "closing": "behind the verdict: nobody waits for it",
}


def frame(kind: int, *fields: tuple[int, bytes]) -> bytes:
    """Return a frame of the module's."""
    parts = [bytes((tag,)) + struct.pack(">H", len(value)) + value for tag, value in fields]
    return bytes((1, kind)) + NONCE + b"".join(parts)


def time_steps(prefix: Path, root: Path, user: User) -> dict[str, float]:
    """Log a user in by a verifier whose steps are timed; return the seconds of each.

    Raises:
        BenchmarkError: the right code was refused.
    """
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    number = struct.Struct(">I").pack
    with ours, theirs:
        arguments = [str(prefix), str(theirs.fileno()), str(root), str(time.perf_counter())]
        process = subprocess.Popen(
            ["/usr/bin/python3", "-IS", "-c", CHILD, *arguments],
            pass_fds=(theirs.fileno(),), stdout=subprocess.PIPE, env={},
        )  # fmt: skip
        ours.send(
            frame(
                REQUEST, (1, number(1)), (2, number(0)), (3, b"bench"),
                (4, user.name.encode()), (11, number(110)),
            )
        )  # fmt: skip
        ours.recv(65536)
        ours.send(frame(ANSWER, (2, totp(user, time.time()).encode())))
        verdict = ours.recv(65536)
        output, _ = process.communicate()
    if verdict != frame(VERDICT) + SUCCESS:
        raise BenchmarkError(f"a right code was refused: {verdict.hex()}")
    took: dict[str, float] = json.loads(output)
    return took


def measure(prefix: Path, directory: Path, turns: int) -> None:
    """Take turns of a verifier with timed steps and of a login through libpam; print medians."""
    users = create_users(2 * turns)
    product = Product(Installation(prefix, directory), directory / "root", daemon=False)
    services = directory / "pam.d"
    services.mkdir()
    (services / "bench").write_text(product.prepare(users), "ascii")
    libpam, whole = Libpam(services), []
    all_steps: list[dict[str, float]] = []
    for one, other in zip(users[::2], users[1::2], strict=True):
        all_steps.append(time_steps(prefix, directory / "root", one))
        attempt = libpam.log_in("bench", other.name, totp(other, time.time()))
        if not attempt.accepted:
            raise BenchmarkError(f"a right code was refused: {attempt.status}")
        whole.append(attempt.seconds)
    for step, meaning in STEPS.items():
        say(statistics.median(took.get(step, 0.0) for took in all_steps), meaning)
    say(statistics.median(whole), "one login through libpam, up to its verdict")


def say(seconds: float, what: str) -> None:
    """Print one line of the table."""
    sys.stdout.write(f"{seconds * 1000:8.2f} ms  {what}\n")


def main(arguments: Sequence[str]) -> int:
    """Run, with a plain sentence where it cannot."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--prefix", type=Path, required=True, help="where pam-mfa is installed")
    parser.add_argument("--turns", type=int, default=25, help="logins of each kind")
    parser.add_argument("--state", type=Path, default=Path("/var/tmp"))  # noqa: S108 - a disk
    options = parser.parse_args(arguments)
    try:
        with tempfile.TemporaryDirectory(prefix="demand-bench-", dir=options.state) as name:
            Path(name).chmod(0o755)
            with working_syslog():
                measure(options.prefix.resolve(), Path(name), options.turns)
    except BenchmarkError as error:
        sys.stderr.write(f"on_demand: {error}\n")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
