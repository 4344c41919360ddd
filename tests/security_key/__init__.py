# SPDX-License-Identifier: Apache-2.0
"""A FIDO security key made of software, for tests: good, or bad in a way that has a name.

Written from CTAP 2.1 and CTAPHID. Layers, each importing only from those above it:

- ``cbor``, ``status``, ``ctap``, ``parameters``, ``exchange``, ``authenticator_data``: the words
  of the protocol
- ``model``, ``faults``, ``person``: what key it is, how it misbehaves, who stands beside it
- ``signing_key``, ``attestation``, ``credential``, ``memory``: what it holds
- ``pin_protocol``, ``pin_token``, ``parts``, ``user_verification``, ``client_pin``: who may use it
- ``registration``, ``assertion``, ``authenticator``, ``u2f``: bytes of a command in, bytes out
- ``key``: all that in one, and ``ctaphid``: packets in, packets out
- ``server``, ``control``: a loop around it, and how a test speaks to it
- ``wire`` and ``injected`` (no kernel device), ``uhid``, ``gadget``: how hosts see it
- ``host``: the other side, by python-fido2, for tests

Only ``injected`` and ``host`` need python-fido2; all need Python 3.11 and ``cryptography`` 38 or
later.
It protects nothing: private keys lie in its state file.
"""
