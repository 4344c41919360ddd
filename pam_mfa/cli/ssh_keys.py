# SPDX-License-Identifier: Apache-2.0
"""``pam-mfa enable ssh-key``: by a signature of the key, or vouched for."""

import os
import shlex
import sys
from typing import BinaryIO, NamedTuple, TextIO

import click

from pam_mfa.cli.own_agent import HeldKey, OwnAgent, open_agent
from pam_mfa.cli.session import Session, pass_session
from pam_mfa.devices import SshKeyDevice
from pam_mfa.errors import RefusedError
from pam_mfa.factors.ssh_attestation import CHALLENGE_MAX
from pam_mfa.lifecycle import Evidence, Lifecycle, PendingSshKey, SshKeyWish
from pam_mfa.policy import AgentKeys, Policy
from pam_mfa.self_service.protocol import Operation, Petition
from pam_mfa.ssh_attestation import FILE_MAX
from pam_mfa.ssh_keys import TEXT_MAX, fingerprint, format_key, require_key
from pam_mfa.ssh_possession import BEGIN, END, namespace_of
from pam_mfa.ssh_possession import TEXT_MAX as SIGNATURE_MAX
from pam_mfa.store.policies import read_policy

_LINES_MAX = 200  # of a signature that is pasted
_LINE_MAX = 1000  # characters
_VOUCH = "vouch"


class Given(NamedTuple):
    """What stands on the command line, its files read: root is given up later."""

    user: str
    name: str
    public_key: str  # the text of its file; "": from the agent
    signature: str | None
    evidence: Evidence
    vouches: bool
    fingerprint: str


@click.command(name="ssh-key")
@click.argument("user")
@click.option(
    "--public-key",
    type=click.File("r", encoding="utf-8", errors="replace"),
    metavar="FILE",
    help="The key's .pub file; - is standard input.",
)
@click.option("--from-agent", is_flag=True, help="A key that your own ssh-agent holds.")
@click.option("--fingerprint", "wanted", metavar="SHA256:...", help="Which key of the agent.")
@click.option("--name", help="The device's name; default: ssh-key.")
@click.option(
    "--signature",
    type=click.File("r", encoding="utf-8", errors="replace"),
    metavar="FILE",
    help="The key's signature over the challenge that this command shows; - is standard input.",
)
@click.option("--vouch", is_flag=True, help="You know that the key is the user's: no proof.")
@click.option(
    "--attestation",
    type=click.File("rb"),
    metavar="FILE",
    help="Written by ssh-keygen -O write-attestation=FILE when the key was made.",
)
@click.option(
    "--challenge",
    type=click.File("rb"),
    metavar="FILE",
    help="What the attestation was made for: ssh-keygen -O challenge=FILE.",
)
@pass_session
def ssh_key(  # noqa: PLR0913 - one parameter an option
    session: Session,
    user: str,
    *,
    public_key: TextIO | None,
    from_agent: bool,
    wanted: str | None,
    name: str | None,
    signature: TextIO | None,
    vouch: bool,
    attestation: BinaryIO | None,
    challenge: BinaryIO | None,
) -> None:
    """Enable an SSH key that lives on a security key, made by ssh-keygen -t ed25519-sk.

    The key proves by one signature that it is at hand: through the ssh-agent, or by a challenge
    that is shown here and signed on the computer with the key. An administrator may vouch instead.
    """
    if (public_key is None) != from_agent:
        raise click.UsageError("say one of --public-key FILE and --from-agent")
    if sum((from_agent, signature is not None, vouch)) > 1:
        raise click.UsageError("--from-agent, --signature and --vouch are three ways: say one")
    if wanted and not from_agent:
        raise click.UsageError("--fingerprint chooses a key of the agent: --from-agent")
    if (attestation is None) != (challenge is None):
        raise click.UsageError("--attestation and --challenge belong together")
    evidence = Evidence(
        attestation.read(FILE_MAX + 1) if attestation else b"",
        challenge.read(CHALLENGE_MAX + 1) if challenge else b"",
    )
    given = Given(
        user=user,
        name=name or "",
        public_key=public_key.read(TEXT_MAX + 1) if public_key else "",
        signature=signature.read(SIGNATURE_MAX + 1) if signature else None,
        evidence=evidence,
        vouches=vouch,
        fingerprint=wanted or "",
    )
    if given.signature == "":
        raise click.UsageError("the signature's file is empty; one file can be standard input")
    agent = open_agent() if from_agent else None  # before root is given up
    if session.is_own:
        _petition(session, given, agent)
    else:
        _enable(session, given, agent)


def _enable(session: Session, given: Given, agent: OwnAgent | None) -> None:
    """Enable a user's key as an administrator."""
    lifecycle, user = session.lifecycle, given.user
    session.note_unknown(user)
    layout = session.layout
    policy = read_policy(layout.policy) if layout.policy.exists() else Policy()
    is_any = policy.agent.keys is AgentKeys.ANY
    wish = SshKeyWish(given.name, policy.fido, given.evidence, may_be_in_file=is_any)
    if agent is not None:
        agent.require_meant(user, given.fingerprint)
        devices = lifecycle.list_devices(user)
        enrolled = [one.key for one in devices if isinstance(one, SshKeyDevice)]
        held = agent.choose(enrolled, given.fingerprint)
        pending = lifecycle.begin_ssh_key(user, format_key(held.key), wish)
        signature = agent.sign(held, pending.namespace, pending.challenge)
        device = lifecycle.enable_proven_ssh_key(pending, signature)
    else:
        pending = lifecycle.begin_ssh_key(user, given.public_key, wish)
        device = _prove(lifecycle, pending, given)
    click.echo(f"Enabled {device.serial_number} for {user}: {fingerprint(device.key)}.")


def _prove(lifecycle: Lifecycle, pending: PendingSshKey, given: Given) -> SshKeyDevice:
    if given.vouches:
        return lifecycle.vouch_for_ssh_key(pending)
    if given.signature is not None:
        return lifecycle.enable_proven_ssh_key(pending, given.signature)
    _show_challenge(pending.namespace, pending.challenge)
    if not sys.stdin.isatty():
        raise RefusedError(
            f"nothing proves that {fingerprint(pending.key)} is at hand; nothing was enabled",
            hint="Within five minutes, run this command again with --signature FILE. If you "
            f"know that the key is {pending.user}'s, say so: --vouch",
        )
    click.echo(
        f"Paste the signature here. Or, if you know that the key is {pending.user}'s, "
        f"type {_VOUCH} (that is recorded):"
    )
    pasted = _read_pasted()
    if pasted == _VOUCH:
        return lifecycle.vouch_for_ssh_key(pending)
    if pasted is None:
        raise RefusedError(
            "there was no signature; nothing was enabled",
            hint="Within five minutes you can still bring it: --signature FILE",
        )
    return lifecycle.enable_proven_ssh_key(pending, pasted)


def _petition(session: Session, given: Given, agent: OwnAgent | None) -> None:
    """Have self-service enable a key of one's own; agent and key stay on this side."""
    if given.vouches:
        raise RefusedError(
            "only an administrator can vouch for a key",
            hint="Have the key sign: leave --vouch out.",
        )
    held: HeldKey | None = agent.choose((), given.fingerprint) if agent else None
    key = held.key if held else require_key(given.public_key, may_be_in_file=True)

    def sign(challenge: str) -> str | None:
        # Whatever is asked for, the signature is good for enabling a key on this host alone.
        namespace = namespace_of(os.uname().nodename)
        if agent is not None and held is not None:
            return agent.sign(held, namespace, challenge)
        if given.signature is not None:
            return given.signature
        _show_challenge(namespace, challenge)
        if not sys.stdin.isatty():
            click.echo("Then run this command again with --signature FILE.")
            return None
        click.echo("Paste the signature here:")
        return _read_pasted()

    petition = Petition(
        Operation.ENABLE_SSH_KEY,
        given.user,
        name=given.name,
        public_key=format_key(key),
        attestation=given.evidence.attestation.decode("utf-8", "surrogateescape"),
        challenge=given.evidence.challenge.decode("utf-8", "surrogateescape"),
    )
    session.petition(petition, sign)


def _show_challenge(namespace: str, challenge: str) -> None:
    click.echo(
        "On the computer with the security key, run this and touch the key when it blinks:\n\n"
        f"  printf '%s\\n' {shlex.quote(challenge)} |\n"
        f"  ssh-keygen -Y sign -n {shlex.quote(namespace)} -f ~/.ssh/id_ed25519_sk\n"
    )


def _read_pasted() -> str | None:
    """Read a signature's lines, "vouch" alone, or None: an empty line, or the end before it.

    What ssh-keygen says before its signature is often pasted with it. It is read and left out: what
    is not read, the shell that this command was run from would take for commands.
    """
    lines: list[str] = []
    for number in range(_LINES_MAX):
        line = sys.stdin.readline(_LINE_MAX)
        words = line.strip()
        if number == 0 and words == _VOUCH:
            return _VOUCH
        if not line or (not words and not lines):
            break
        if lines or words == BEGIN:
            lines.append(words)
        if lines and words == END:
            break
    return "\n".join(lines) if lines else None
