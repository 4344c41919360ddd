# SPDX-License-Identifier: Apache-2.0
"""A FIDO security key made of software, for tests: good, or bad in a way that has a name.

Written from CTAP 2.1 and CTAPHID. Layers, each importing only from those above it:

- ``cbor``, ``parameters``, ``status``, ``ctap``, ``exchange``: the words of the protocol
- ``model``, ``faults``, ``person``: what key it is, how it misbehaves, who stands beside it
- ``signing_key``, ``authenticator_data``, ``attestation``, ``credential``, ``memory``: what it
  holds
- ``pin_protocol``, ``pin_token``, ``parts``, ``user_verification``, ``client_pin``: who may use it
- ``registration``, ``assertion``, ``authenticator``, ``u2f``: bytes of a command in, bytes out
- ``key``: all that in one, and ``ctaphid``: packets in, packets out
- ``server``, ``control``: a loop around it, and how a test speaks to it
- ``wire`` and ``injected`` (no kernel device), ``uhid``, ``gadget``: how hosts see it

Only ``injected`` needs python-fido2; the rest needs Python 3.11 and ``cryptography`` 38 or later.
It protects nothing: private keys lie in its state file.
"""
