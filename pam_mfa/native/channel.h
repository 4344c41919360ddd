/* SPDX-License-Identifier: Apache-2.0
 * The way to the verifier: its socket, or the same program started on demand. Owns descriptors,
 * deadlines and the child; knows nothing of PAM or of what frames mean. */
#ifndef PAM_MFA_CHANNEL_H
#define PAM_MFA_CHANNEL_H

#include <stdbool.h>
#include <sys/types.h>

long long now_ms(void);		/* milliseconds on the monotonic clock, as every deadline */
/* Both: a connected descriptor above 2, close-on-exec; or -1, *why saying what failed. */
int channel_open(const char *root, long long deadline, const char **why);
int verifier_start(const char *program, const char *root, long long deadline, const char **why);
bool channel_send(int fd, const void *data, size_t size, long long deadline);
/* Size of the one packet received; or -1: closed, late, cut, or carrying descriptors. */
ssize_t channel_receive(int fd, void *data, size_t capacity, long long deadline);

#endif
