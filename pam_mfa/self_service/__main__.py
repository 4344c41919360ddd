# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa-selfd``: the command line of self-service. Only ``main`` exits.

Runs as root, because only root may have a password checked, and drops that right before it opens
the store. It does nothing else as root.
"""

import argparse
import contextlib
import os
import socket
import sys
from pathlib import Path

from pam_mfa.errors import BrokenSystemError, PamMfaError
from pam_mfa.self_service.desk import serve_petition
from pam_mfa.self_service.server import IDLE, serve_until_stopped
from pam_mfa.store.layout import Layout, make_run_directory
from pam_mfa.verifier import journal
from pam_mfa.verifier.listening import SELF_MODE, activated_sockets, listen
from pam_mfa.verifier.surroundings import refuse_core


def main() -> None:
    """Serve users; exit 0 when done, 2 on wrong usage, 3 where the system is broken."""
    journal.open_journal("pam-mfa-selfd")
    parser = argparse.ArgumentParser(prog="pam-mfa-selfd", description="Self-service of users.")
    parser.add_argument("--root", type=Path, default=Path("/"), help="default: /")
    parser.add_argument("--serve", type=int, metavar="FD", help="one petition; used by itself")
    options = parser.parse_args()
    try:
        refuse_core()
        layout = Layout(options.root)
        if options.serve is not None:
            _serve_one(options.serve, layout)
        else:
            _serve_all(layout)
    except PamMfaError as error:
        journal.tell_failure(error)
        sys.stderr.write(f"pam-mfa-selfd: {error}\n{error.hint}\n")
        sys.exit(error.exit_status)
    except Exception as error:  # noqa: BLE001 - its text might quote what was typed
        journal.tell_fault(error)
        sys.exit(BrokenSystemError.exit_status)


def _serve_one(descriptor: int, layout: Layout) -> None:
    with socket.socket(fileno=descriptor) as connection, contextlib.suppress(OSError):
        serve_petition(connection, layout)  # OSError: the user is gone


def _serve_all(layout: Layout) -> None:
    if os.geteuid() != 0:
        raise BrokenSystemError(
            "pam-mfa-selfd must be started as root: it has users' passwords checked",
            hint="Use the shipped unit: systemctl enable --now pam-mfa-selfd.socket",
        )
    passed = activated_sockets([layout.self_service_socket])
    if passed is not None:
        serve_until_stopped(passed[0], str(layout.root), idle=IDLE)
        return
    make_run_directory(layout)
    listener = listen(layout.self_service_socket, SELF_MODE)
    serve_until_stopped(listener, str(layout.root), idle=None)


if __name__ == "__main__":
    main()
