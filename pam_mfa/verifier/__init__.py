# SPDX-License-Identifier: Apache-2.0
"""The verifier ``pam-mfad``: conversations with ``pam_mfa.so``, as a daemon or for one login."""
