# SPDX-License-Identifier: Apache-2.0
"""``pam-mfad``: the verifier's command line. Only ``main`` exits."""

import contextlib
import os
import resource
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from pam_mfa import __version__
from pam_mfa.audit import Event, EventName, Outcome, Reason
from pam_mfa.errors import BrokenSystemError, PamMfaError, PolicyError
from pam_mfa.store import Change, Claim
from pam_mfa.store.layout import Layout, drop_privileges, make_run_directory
from pam_mfa.store.opening import open_serving_store
from pam_mfa.verification import Machine
from pam_mfa.verifier import journal
from pam_mfa.verifier.confinement import hide_memory, keep_to_store
from pam_mfa.verifier.conversation import Services, follow_policy
from pam_mfa.verifier.login_session import is_remote
from pam_mfa.verifier.policy_file import PolicyFile
from pam_mfa.verifier.process_spot import locate

if TYPE_CHECKING:  # asyncio behind them
    from pam_mfa.hardware.keys import Keys
    from pam_mfa.verifier.budget import Limits
    from pam_mfa.verifier.companion import Companion

USAGE = """usage: pam-mfad [--root DIR]            listen until told to stop
       pam-mfad --once FD [--root DIR]  verify one login on a connected socket
       pam-mfad --version"""


def main() -> None:
    """Run the verifier; exit 0 when done, 2 on wrong usage, 3 where the system is broken."""
    journal.open_journal("pam-mfad")
    try:
        status = _run(sys.argv[1:])
    except PamMfaError as error:
        journal.tell_failure(error)
        sys.stderr.write(f"pam-mfad: {error}\n{error.hint}\n")
        status = error.exit_status
    except Exception as error:  # noqa: BLE001 - nobody reads a traceback of a verifier on demand
        journal.tell_fault(error)
        status = BrokenSystemError.exit_status
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    # By hand: argparse costs a login on demand more than the code's own verification.
    options = dict(zip(arguments[::2], arguments[1::2], strict=False))
    if arguments == ["--version"]:
        sys.stdout.write(f"pam-mfad {__version__}\n")
        return 0
    if len(arguments) % 2 or not set(options) <= {"--once", "--serve", "--root"}:
        sys.stderr.write(USAGE + "\n")
        return 2
    for name in {"--once", "--serve"} & set(options):
        if not (options[name].isascii() and options[name].isdigit()):
            sys.stderr.write(USAGE + "\n")
            return 2
    layout = Layout(Path(options.get("--root", "/") or "/"))
    if "--once" in options:
        _run_once(int(options["--once"]), layout)
    elif "--serve" in options:  # by the daemon itself, see companion.py
        _run_child(int(options["--serve"]), layout)
    else:
        _run_daemon(layout)
    return 0


def _open_services(layout: Layout, *, is_daemon: bool) -> Services:
    drop_privileges()
    hide_memory()
    # On demand it is opened when it is needed: a rule that skips needs none.
    store = open_serving_store(layout)
    machine = Machine(os.uname().nodename, os.urandom, _open_keys, is_remote, locate)
    services = Services(PolicyFile(layout.policy, journal.tell_error), store, time.time, machine)
    if is_daemon:
        _open_store(services)
    return services


def _open_store(services: Services) -> None:
    """Open the store that policy names, which no login has to wait for then."""
    try:
        follow_policy(services)
        services.store.open()
    except BrokenSystemError as error:  # logins are refused until it is mended
        if not isinstance(error, PolicyError):  # which is told in the journal already
            journal.tell_failure(error)


def _open_keys() -> "Keys":
    from pam_mfa.hardware.attached_keys import AttachedKeys  # noqa: PLC0415 - start-up cost

    return AttachedKeys(journal.tell_failure)


def _run_once(descriptor: int, layout: Layout) -> None:
    from pam_mfa.verifier.once import serve_once  # noqa: PLC0415 - start-up cost, see once.py
    from pam_mfa.verifier.surroundings import leave_caller  # noqa: PLC0415

    if os.geteuid() == 0:
        leave_caller()
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(OSError):
        services = _open_services(layout, is_daemon=False)
        keep_to_store(layout)
        try:
            serve_once(connection, services)  # OSError: the caller is gone
        finally:
            services.store.close()


def _spare_tls() -> None:
    """Have asyncio do without ssl, which it takes where it is: 2 MB of a daemon that never asks."""
    if "ssl" not in sys.modules:
        sys.modules["ssl"] = None  # type: ignore[assignment]
        import asyncio  # noqa: F401, PLC0415 - start-up cost, see once.py

        del sys.modules["ssl"]


def _run_daemon(layout: Layout) -> None:
    _spare_tls()
    from pam_mfa.verifier.companion import Child  # noqa: PLC0415 - start-up cost, see once.py
    from pam_mfa.verifier.listening import activated_listeners, own_listeners  # noqa: PLC0415
    from pam_mfa.verifier.server import ROOT_LIMITS  # noqa: PLC0415

    if os.geteuid() == 0:
        make_run_directory(layout)
    _raise_descriptor_limit()
    services = _open_services(layout, is_daemon=True)
    listeners = activated_listeners(layout) or own_listeners(layout)
    _record(services, EventName.START_VERIFIER, Reason.STARTED)
    try:
        _serve(listeners.root, services, ROOT_LIMITS, Child(listeners.own, str(layout.root)))
    finally:
        _record(services, EventName.STOP_VERIFIER, Reason.STOPPED)
        services.store.close()


def _run_child(descriptor: int, layout: Layout) -> None:
    _spare_tls()
    from pam_mfa.verifier.companion import Parent  # noqa: PLC0415 - start-up cost, see once.py
    from pam_mfa.verifier.server import SELF_LIMITS  # noqa: PLC0415

    _raise_descriptor_limit()
    services = _open_services(layout, is_daemon=True)
    try:
        _serve(socket.socket(fileno=descriptor), services, SELF_LIMITS, Parent())
    finally:
        services.store.close()


def _serve(
    listener: socket.socket, services: Services, limits: "Limits", companion: "Companion"
) -> None:
    import asyncio  # noqa: PLC0415 - start-up cost, see once.py

    from pam_mfa.verifier.server import serve_until_stopped  # noqa: PLC0415
    from pam_mfa.verifier.surroundings import refuse_core  # noqa: PLC0415

    refuse_core()
    asyncio.run(serve_until_stopped(listener, services, limits, companion))


def _record(services: Services, name: EventName, reason: Reason) -> None:
    """Record that the daemon begins or ends, signed; what hinders it hinders no start."""
    event = Event(name, Outcome.SUCCESS, reason, services.clock(), detail=f"pam-mfad {__version__}")
    change = Change(accepted=False, events=(event,))
    try:
        services.store.commit([Claim("", (), lambda _: change)])
    except BrokenSystemError as error:
        journal.tell_failure(error)
    services.store.follow_up(must_sign=True)


def _raise_descriptor_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


if __name__ == "__main__":
    main()
