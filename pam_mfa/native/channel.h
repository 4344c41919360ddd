/* SPDX-License-Identifier: Apache-2.0
 * The way to the verifier: its socket, or the same program started on demand; and to the ssh-agent.
 * Owns descriptors, deadlines and the child; knows nothing of PAM or of what frames mean. */
#pragma once
#include <stdbool.h>
#include <sys/types.h>

long long now_ms(void);		/* milliseconds on the monotonic clock, as every deadline */
/* Each a connected descriptor above 2, close-on-exec; or -1, *why saying what failed. */
int channel_open(const char *root, long long deadline, const char **why);
int verifier_start(const char *root, long long deadline, const char **why);
int agent_open(void);		/* to the invoking user's ssh-agent; -1: none that may be used */
int above_standard(int fd);	/* moved above 2: a host may talk through 0 to 2, closed or not */
/* One packet, whole, with a descriptor beside it unless that is -1. */
bool channel_send(int fd, const void *data, size_t size, int beside);
/* Size of the one packet received; or -1: closed, late, cut, or carrying descriptors. */
ssize_t channel_receive(int fd, void *data, size_t capacity, long long deadline);
