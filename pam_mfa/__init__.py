# SPDX-License-Identifier: Apache-2.0
"""Multi-factor authentication for Linux logins.

The rooms, from the top: ``cli`` (the command line) and ``verifier`` (the program behind
``pam_mfa.so``); ``next_login`` and ``report``, what is told of users; ``enrolling`` and
``token_stock`` over ``lifecycle`` (what may be done to a device) over ``verification`` (one attempt
at a login) over ``factors`` (the ways to prove); ``store``, the only room that writes to disk, with
``audit``; ``devices``, ``policy`` and ``lockout``, which are pure; ``host``, its accounts and PAM
services; ``oath``, ``wire``, ``pam``, ``pam_services``, ``pskc``, ``token_csv`` and ``document``,
one specification each. Imports point down this list only.
"""

__version__ = "0.1.0"
