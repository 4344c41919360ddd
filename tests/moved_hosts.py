# SPDX-License-Identifier: Apache-2.0
"""A host with everything that a store can keep, for the tests of moving it into another."""

import hmac
from pathlib import Path

from pam_mfa.actor import Actor
from pam_mfa.devices import Device, RecoveryCodes
from pam_mfa.factors import paper
from pam_mfa.lifecycle import Lifecycle
from pam_mfa.lockout import LockState
from pam_mfa.mfa_age import Place, Verified
from pam_mfa.oath import Parameters
from pam_mfa.secret import Secret
from pam_mfa.store import AdministratorsStore, Change, Claim, Known, Memory, encode_user
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.store.layout import Layout
from pam_mfa.store.rows import rows_of
from pam_mfa.token_stock import TokenStock
from pam_mfa.tokens import Delivery, Token

ACTOR = Actor(uid=0, pid=4321, login_uid=1000)
PHONE = "virtual/alice/phone"
NOW = 1_700_000_045.0
STEP = int(NOW) // 30
_SEEDS = (Secret(bytes(range(20))), Secret(bytes(range(100, 120))))


def make_root(root: Path, seal_key: bytes | None = None) -> Layout:
    """Make an empty root, with another's seal key where one is given."""
    layout = Layout(root)
    for directory in (layout.policy.parent, layout.devices, layout.audit_log.parent, layout.run):
        directory.mkdir(parents=True, exist_ok=True)
    layout.library.chmod(0o700)
    layout.devices.chmod(0o700)
    if seal_key is not None:
        layout.seal_key.write_bytes(seal_key)
        layout.seal_key.chmod(0o600)
    return layout


def code_of(seed: Secret, step: int) -> str:
    """Return a code (RFC 4226, section 5.3)."""
    digest = hmac.digest(seed.reveal(), step.to_bytes(8, "big"), "sha1")
    offset = digest[-1] & 15
    number = int.from_bytes(digest[offset : offset + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**6:06d}"


class KeptStore:
    """A store, and what is done to it and asked of it."""

    def __init__(self, store: AdministratorsStore) -> None:
        """Take the store."""
        self.store = store
        self.life = Lifecycle(store, lambda: NOW, ACTOR)

    def enable(self, user: str) -> Device:
        """Enable a phone by two codes."""
        pending = self.life.begin_virtual(user, "phone")
        pair = (code_of(pending.seed, STEP), code_of(pending.seed, STEP + 1))
        return self.life.enable(pending, *pair)

    def fill(self) -> None:
        """Give three users devices of several kinds, used codes, a lock and a session."""
        tokens = (
            Token("T-1", "Acme", Parameters(), 0, _SEEDS[0]),
            Token("H-1", "Acme", Parameters(period=0), 7, _SEEDS[1]),
        )
        TokenStock(self.store, lambda: NOW, ACTOR).take_in(Delivery("a", tokens, ()), "t.csv")
        for user in ("alice", "bob", "c/../d"):
            self.enable(user)
        pending = self.life.begin_token("bob", "H-1")
        self.life.enable(pending, code_of(_SEEDS[1], 9), code_of(_SEEDS[1], 10))
        self.life.enable_recovery("alice")
        codes = [one for one in self.life.list_devices("alice") if isinstance(one, RecoveryCodes)]
        self.decide("alice", Change(True, (), used_steps={paper.used_key(codes[0], 0): 1}))
        self.decide("bob", Change(False, (), lock=LockState((NOW - 9, NOW), NOW + 900)))
        place = Place("1@2", "", "3", "boot", "192.0.2.1")
        session = Verified(encode_user("alice"), "virtual", PHONE, "h", "sudo", "", place, NOW)
        self.decide("alice", Change(True, (), memory=Memory(session, 3600, NOW)))

    def decide(self, user: str, change: Change) -> None:
        """Make a change durable."""
        self.store.commit([Claim(encode_user(user), (), lambda _: change)])

    def use(self, step: int) -> bool:
        """Use a step of alice's phone; return whether it was fresh."""

        def judge(known: Known) -> Change:
            if step <= known.used_steps.get(PHONE, -1):
                return Change(accepted=False, events=())
            return Change(True, (), used_steps={PHONE: step}, used_at=NOW)

        (change,) = self.store.commit([Claim(encode_user("alice"), (PHONE,), judge)])
        return change.accepted

    def everything(self) -> list[object]:
        """Return all that is kept: devices, used codes, locks, seeds, tokens, sessions."""
        documents = self.store.documents
        rows = self.store.read_inventory(
            lambda inventory: [
                sorted(rows_of(inventory).states()),
                sorted(row for row in rows_of(inventory).locks() if row.lock != LockState()),
                sorted(rows_of(inventory).seeds()), sorted(rows_of(inventory).tokens()),
                sorted(rows_of(inventory).sessions()),
            ]
        )  # fmt: skip
        return [{user: documents.read(user) for user in documents.users()}, *rows]


class KeptHost(KeptStore):
    """A root with the embedded store."""

    def __init__(self, root: Path, seal_key: bytes | None = None) -> None:
        """Make it under an empty directory."""
        self.layout = make_root(root, seal_key)
        super().__init__(EmbeddedStore(self.layout))

    def open(self) -> None:
        """Open the store as another process would."""
        super().__init__(EmbeddedStore(self.layout))
