# SPDX-License-Identifier: Apache-2.0
"""Multi-factor authentication for Linux logins.

The rooms, from the top: ``cli`` (the command line) and ``verifier`` (the program behind
``pam_mfa.so``) stand on ``lifecycle`` (what may be done to a device) and ``verification`` (one
attempt at a login); those stand on ``factors``, ``policy``, ``lockout`` and ``devices``; ``store``
and ``audit`` are the only rooms that write to disk; ``oath``, ``wire``, ``pam`` and ``document``
are one specification each. Imports point down this list only.
"""

__version__ = "0.1.0"
