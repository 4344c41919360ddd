# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa doctor``: what is wrong with this host, and what to do."""

import os
from collections.abc import Iterator

import click
from rich.console import Console
from rich.text import Text

from pam_mfa.cli.session import Session, json_option, pass_session, print_json
from pam_mfa.doctor.examination import CHECKS, Check, examine
from pam_mfa.doctor.finding import Finding, Level, exit_status, fault, ok
from pam_mfa.doctor.repairing import repair
from pam_mfa.doctor.view import View
from pam_mfa.errors import PamMfaError, RefusedError
from pam_mfa.forecast import ask_child
from pam_mfa.report import printable

_COLORS = {
    Level.OK: "green",
    Level.NOTICE: "cyan",
    Level.WARNING: "yellow",
    Level.FAULT: "bold red",
}


@click.command()
@json_option
@click.option(
    "--repair", "is_repairing", is_flag=True,
    help="Mend owners and modes of pam-mfa's own files, and rebuild a damaged state.db.",
)  # fmt: skip
@click.pass_context
@pass_session
def doctor(session: Session, context: click.Context, *, as_json: bool, is_repairing: bool) -> None:
    """Look at everything that logins need, and say what is wrong and what to do.

    Exit status: 0 nothing wrong, 1 warnings, 3 faults: logins are refused, or let by.
    """
    if session.is_own:
        raise RefusedError("only root can look at everything", hint="Run it by sudo.")
    if not session.layout.root.is_dir():
        raise RefusedError(f"there is no directory {session.layout.root} to look at")
    view = View(session.layout)
    checks = (*CHECKS, ("audit log", chain_check(context.find_root().command)))
    if is_repairing:
        for sentence in repair(view):
            click.echo(printable(sentence), err=as_json)
    findings: list[Finding] = []
    if as_json:
        findings = list(examine(view, checks))
        print_json(finding._asdict() for finding in findings)
    else:
        for finding in examine(view, checks):
            findings.append(finding)
            _print(finding)
        click.echo(_sum_up(findings))
    context.exit(exit_status(findings))


def chain_check(program: click.Command) -> Check:
    """Return the check that has ``audit verify`` verify the log; none where it is not there."""

    def check_chain(view: View) -> Iterator[Finding]:
        audit = program.commands.get("audit") if isinstance(program, click.Group) else None
        if not isinstance(audit, click.Group) or "verify" not in audit.commands:
            return
        if view.stat(view.layout.audit_log) is None:
            return
        try:
            ask_child(lambda: _verify(program, view))
        except PamMfaError as error:
            yield fault("audit log", str(error), error.hint or "See: pam-mfa audit verify")
        else:
            yield ok("audit log", "no record of it was changed, removed or put in")

    return check_chain


def _verify(program: click.Command, view: View) -> None:
    """Run the command as it is, without what it prints; in a process of its own."""
    null = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(null, descriptor)
    program.main(["--root", str(view.root), "audit", "verify"], standalone_mode=False)


def _print(finding: Finding) -> None:
    console = Console(highlight=False, markup=False)
    head = Text(f"{finding.level.value:<8}", style=_COLORS[finding.level])
    console.print(head.append(printable(f"{finding.subject}: {finding.what}"), style="not bold"),
                  soft_wrap=True)  # fmt: skip
    if finding.advice:
        console.print(Text(printable(f"         {finding.advice}")), soft_wrap=True)


def _sum_up(findings: list[Finding]) -> str:
    counts = {level: sum(one.level is level for one in findings) for level in Level}
    faults, warnings = counts[Level.FAULT], counts[Level.WARNING]
    if not faults and not warnings:
        return "Nothing is wrong."
    return f"{faults} fault{'s' * (faults != 1)}, {warnings} warning{'s' * (warnings != 1)}."
