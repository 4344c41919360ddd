# SPDX-License-Identifier: Apache-2.0
"""Campaigns that break things while logins go on; the layer pam has a short run of each."""
