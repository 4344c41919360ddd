# SPDX-License-Identifier: Apache-2.0
"""The command line ``pam-mfa``: one file a noun, a thin layer over ``lifecycle``."""
