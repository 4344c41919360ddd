# SPDX-License-Identifier: Apache-2.0
"""Switching services on and off: ``switchboard`` does it, ``journal`` remembers it.

``stacks`` and ``bypasses`` are pure and know PAM files, ``sshd`` knows sshd, ``placing`` writes,
``plan`` puts a change together, ``outlook`` asks who would be locked out, ``evidence`` who has got
in since, ``undoing`` waits for a confirmation that does not come.
"""
