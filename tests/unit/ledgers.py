# SPDX-License-Identifier: Apache-2.0
"""What opens a ledger, as a process does."""

from collections.abc import Callable

from pam_mfa.store.ledger import Ledger

Opener = Callable[[], Ledger]
