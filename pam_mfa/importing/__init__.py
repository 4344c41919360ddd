# SPDX-License-Identifier: Apache-2.0
"""Taking over what users have with another program: pam_google_authenticator, pam_oath, pam_u2f.

One reader a format (``google_authenticator``, ``users_oath``, ``u2f_keys``); ``homes`` finds users'
files; ``admission`` decides what becomes of each seed and ``importer`` carries that out;
``security_keys`` does both for keys. The sources are left as they are. No login loads this room.
"""
