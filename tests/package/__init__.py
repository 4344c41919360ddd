# SPDX-License-Identifier: Apache-2.0
"""The layer package: what packaging/ builds, installed as an administrator would."""
