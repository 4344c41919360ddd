# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa audit ship``: the log's records, copied to where this host cannot change them."""

import contextlib
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

import click

from pam_mfa.audit_shipping import RecordSink, Shipper
from pam_mfa.audit_shipping.file_sink import FileSink
from pam_mfa.audit_shipping.hosts import Claim, find_machine, is_host_name, now_text
from pam_mfa.audit_shipping.position import Positions
from pam_mfa.audit_shipping.syslog_sink import SyslogSink, Trust, parse_address
from pam_mfa.cli.audit_database import DATABASE, open_database_sink
from pam_mfa.cli.session import Session, pass_session
from pam_mfa.errors import BrokenSystemError, PamMfaError, RefusedError
from pam_mfa.report import printable
from pam_mfa.store.layout import Layout, drop_privileges

_POSITIONS: Final = "shipped.json"
_PAUSE: Final = 1.0  # seconds between looks at the log
_PAUSE_MAX: Final = 60.0  # where the target does not work
_SYSLOG: Final = "syslog:"


class _Options(NamedTuple):
    """The command line."""

    target: str
    name: str
    trust: Trust


@click.command()
@click.option(
    "--to", "target", metavar="TARGET", required=True,
    help="A directory; or syslog:/dev/log, syslog:tcp://HOST:PORT, syslog:tls://HOST:PORT; or "
    "database, the one that policy has as the store.",
)  # fmt: skip
@click.option("--follow", is_flag=True, help="Go on with every record as it is written.")
@click.option("--name", default="", help="What this host is called there, if not by its own name.")
@click.option(
    "--ca", "authorities", metavar="FILE", type=click.Path(path_type=Path),
    help="Trust the collectors that these certificates vouch for (PEM; tls only).",
)  # fmt: skip
@click.option(
    "--certificate", metavar="FILE", type=click.Path(path_type=Path),
    help="This host's certificate and key (PEM; tls only).",
)  # fmt: skip
@pass_session
def ship(  # noqa: PLR0913 - options
    session: Session,
    *,
    target: str,
    follow: bool,
    name: str,
    authorities: Path | None,
    certificate: Path | None,
) -> None:
    """Copy records that TARGET lacks to it: each once, or to syslog at least once.

    Exit status: 0 all is there, 1 it is and something is wrong with the log or the target, 3 it is
    not all there.
    """
    options = _Options(target, name or os.uname().nodename, Trust(authorities, certificate))
    _become_owner(session.layout)
    told: list[str] = []

    def tell(text: str) -> None:
        if text not in told:
            told.append(text)
            click.echo(f"pam-mfa: {options.name}: {printable(text)}", err=True)

    positions = Positions(session.layout.library / _POSITIONS, f"{options.name} {target}")
    with _opened(session.layout, options, positions) as sink:
        shipper = Shipper(session.layout.audit_log, sink, positions, tell)
        if follow:
            _follow(shipper)
        else:
            shipper.ship()
        _summarize(shipper, options)
    if told and not follow:  # a service that is stopped has not failed; all of it was told
        raise RefusedError("something is wrong with the log here, or with the target: see above")


def _become_owner(layout: Layout) -> None:
    """Become the user whose the log is; what the log holds is not read as root.

    Raises:
        RefusedError: somebody else ships.
    """
    drop_privileges()
    if not os.access(layout.library, os.W_OK):
        raise RefusedError(
            "only root and the user pam-mfa may ship records",
            hint=f"Run it as root. If {layout.library} is missing: pam-mfa list makes it.",
        )


@contextlib.contextmanager
def _opened(layout: Layout, options: _Options, positions: Positions) -> Iterator[RecordSink]:
    """Open the target.

    Raises:
        click.BadParameter: it is none.
        RefusedError: it is another machine's.
        BrokenSystemError: it cannot be used.
    """
    if not is_host_name(options.name):
        raise click.BadParameter("is no name for a host", param_hint="--name")
    if not options.target:  # a variable of the unit that nobody has set
        raise click.BadParameter("is empty", param_hint="--to")
    sink: RecordSink
    machine = find_machine(layout.root) or positions.machine
    claim = Claim(options.name, machine, _public_key(layout), now_text(time.time()))
    if options.target == DATABASE:
        sink = open_database_sink(layout, claim)
    elif options.target.startswith(_SYSLOG):
        try:
            address = parse_address(options.target.removeprefix(_SYSLOG))
        except ValueError as error:
            raise click.BadParameter(
                "is none of syslog:/dev/log, syslog:tcp://HOST:PORT, syslog:tls://HOST:PORT",
                param_hint="--to",
            ) from error
        sink = SyslogSink(address, options.name, options.trust)
    else:
        machine = find_machine(layout.root) or positions.machine
        claim = Claim(options.name, machine, _public_key(layout), now_text(time.time()))
        sink = FileSink(Path(options.target), claim)
    try:
        yield sink
    finally:
        sink.close()


def _public_key(layout: Layout) -> str:
    with contextlib.suppress(OSError, ValueError):
        return layout.public_key.read_text("ascii")[:1024]
    return ""  # nothing was signed yet


def _follow(shipper: Shipper) -> None:
    """Ship until SIGTERM or Ctrl-C; a target that does not work is tried again."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    pause, is_told = _PAUSE, False
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            try:
                shipper.ship()
            except BrokenSystemError as error:
                if not is_told:
                    _warn(error)
                is_told, pause = True, min(pause * 2, _PAUSE_MAX)
            else:
                if is_told:
                    click.echo("pam-mfa: records are shipped again.", err=True)
                is_told, pause = False, _PAUSE
            time.sleep(pause)


def _warn(error: PamMfaError) -> None:
    click.echo(f"pam-mfa: {printable(str(error))}. It is tried again. {error.hint}", err=True)


def _summarize(shipper: Shipper, options: _Options) -> None:
    chain = shipper.chain
    end = f"up to record {chain.head.sequence}" if chain else "no record yet"
    click.echo(
        f"{options.name}: {shipper.shipped} records shipped; {printable(options.target)} has {end}."
    )
    if shipper.skipped:
        click.echo(
            f"{shipper.skipped} lines of the log are no records and were left out; see: "
            "pam-mfa audit verify",
            err=True,
        )
