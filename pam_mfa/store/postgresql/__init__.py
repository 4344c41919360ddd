# SPDX-License-Identifier: Apache-2.0
"""The store of a fleet: devices and state of many hosts in one PostgreSQL database.

``schema`` is what the database has and may let whom do, ``migrating`` brings it there; ``links``
connects, ``turn`` is one transaction, ``documents`` and ``inventory`` are what an administrator
changes, ``fleet`` is the store. Records stay each host's own. Loaded only where policy names it.
"""
