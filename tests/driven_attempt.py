# SPDX-License-Identifier: Apache-2.0
"""An attempt on a host's own store, carried to its end with one answer."""

from pam_mfa.audit import Reason
from pam_mfa.store.embedded import EmbeddedStore
from pam_mfa.verification import Attempt, Commit, Listen, Verdict


def drive(running: Attempt, store: EmbeddedStore, code: str) -> Reason:
    """Carry an attempt to its end with one answer."""
    reply: object = None
    while True:
        try:
            need = running.send(reply)
        except StopIteration as end:
            verdict: Verdict = end.value
            assert verdict.reason is not None
            return verdict.reason
        reply = store.commit([need.claim])[0] if isinstance(need, Commit) else None
        reply = code if isinstance(need, Listen) else reply
