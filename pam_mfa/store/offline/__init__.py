# SPDX-License-Identifier: Apache-2.0
"""What a host of a fleet does while its database cannot be reached, as far as policy lets it.

``store`` stands before the engine, ``kept`` is what it keeps of users on this host's disk,
``contact`` tells when the database last answered. Nothing of it is used while the database
answers, whatever the answer is; and nothing at all where policy says ``offline: deny``.
"""
