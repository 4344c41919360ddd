# SPDX-License-Identifier: Apache-2.0
"""A store on which SSH keys are enabled, and the command line that acts on it."""

import json
from typing import Any

import pytest
from click.testing import CliRunner, Result
from doubles import Clock, make_layout

from pam_mfa.cli.__main__ import commands
from pam_mfa.cli.session import Session
from pam_mfa.lifecycle import Actor, Lifecycle
from pam_mfa.ssh_keys import ECDSA, ED25519, SshKey, format_key
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout

KEY = SshKey(ED25519, bytes(range(32)), "ssh:")
OTHER = SshKey(ECDSA, b"\4" + bytes(range(64)), "ssh:laptop")
LINE = f"{format_key(KEY)} alice@laptop\n"
SERIAL = "ssh-key/alice/ssh-key"


class Host:
    """A store in a directory, and what can be done to devices."""

    def __init__(self, layout: Layout) -> None:
        """Open the store."""
        self.layout = layout
        self.clock = Clock()
        self.store = EmbeddedStore(layout)
        self.lifecycle = Lifecycle(self.store, self.clock, Actor(0, 4321, 1000))

    def records(self) -> list[dict[str, Any]]:
        """Return the records in the log, without what it says of itself."""
        if not self.layout.audit_log.exists():
            return []
        records = map(json.loads, self.layout.audit_log.read_bytes().splitlines())
        return [one for one in records if one["event_name"] != "Checkpoint"]

    def set_policy(self, text: str) -> None:
        """Write the policy."""
        self.layout.policy.write_text(f"version: 1\n{text}\n")
        self.layout.policy.chmod(0o644)


def make_host(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Host:  # noqa: ANN401 - a path
    """Return a host where nobody is enrolled, which the command line acts on."""
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    host = Host(make_layout(tmp_path / "root"))
    monkeypatch.setattr(Session, "lifecycle", property(lambda _: host.lifecycle))
    monkeypatch.setattr(Session, "is_own", property(lambda _: False))
    return host


def invoke(host: Host, *arguments: str, stdin: str = "") -> Result:
    """Run a command, not under ``main``: a refusal is the result's exception."""
    return CliRunner().invoke(commands, ["--root", str(host.layout.root), *arguments], input=stdin)
