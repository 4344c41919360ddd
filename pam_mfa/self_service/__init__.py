# SPDX-License-Identifier: Apache-2.0
"""Self-service: users who are not root manage their own devices.

``pam-mfa`` (``client``) sends a petition to ``pam-mfa-selfd`` (``server``), which starts one
process for it (``desk``). That process is root for as long as PAM checks the login password, which
nobody else can have checked, and the verifier's user for all that follows.
"""
