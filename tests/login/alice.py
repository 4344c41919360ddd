# SPDX-License-Identifier: Apache-2.0
"""Alice, who has an account on private hosts."""

from host_accounts import Account

ALICE = Account("alice-of-tests", "correct horse")
NAME = ALICE.name
