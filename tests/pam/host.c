/* SPDX-License-Identifier: Apache-2.0
 * A host program for tests: an application of PAM that a test leads step by step, and that says
 * what of itself a module changed.
 *
 *   host CONFDIR SERVICE USER PHASES [OPTION ...]
 *
 * PHASES: auth, account and session, with commas. OPTION: rhost=, tty= and ruser= set PAM items,
 * NAME=VALUE otherwise stands in the PAM environment; silent is PAM_SILENT; ignore-sigchld,
 * close-standard and count-sigint are what they say. It writes lines: "ready" (then waits for a
 * line), "message STYLE HEX" (then, for a question, waits for "answer HEX" or "abort"), "changed
 * WHAT", "interrupts NUMBER", and at last "status NUMBER". */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include <security/pam_appl.h>

enum { PATIENCE = 120, DESCRIPTORS = 256, LINE = 1 << 20, ROOM = 1 << 16 };

extern char **environ;
static FILE *in, *out;
static volatile sig_atomic_t children_ended, interrupts;

struct state {
	int descriptors[DESCRIPTORS];
	struct { void *handler; int flags; unsigned long blocked; } actions[NSIG];
	sigset_t blocked;
	struct rlimit limits[RLIMIT_NLIMITS];
	mode_t mask;
	uid_t ids[6];
	pid_t session, group;
	char directory[4096], environment[ROOM];
};

static void count_child(int number)
{
	(void)number;
	children_ended++;
}

static void count_interrupt(int number)
{
	(void)number;
	interrupts++;
}

static void capture(struct state *state)
{
	struct sigaction action;

	memset(state, 0, sizeof(*state));
	for (int fd = 0; fd < DESCRIPTORS; fd++)
		state->descriptors[fd] = fcntl(fd, F_GETFD);
	for (int number = 1; number < NSIG; number++)
		if (sigaction(number, NULL, &action) == 0) {
			state->actions[number].handler = (void *)action.sa_handler;
			state->actions[number].flags = action.sa_flags;
			memcpy(&state->actions[number].blocked, &action.sa_mask, sizeof(long));
		}
	sigprocmask(SIG_SETMASK, NULL, &state->blocked);
	for (int limit = 0; limit < RLIMIT_NLIMITS; limit++)
		getrlimit(limit, &state->limits[limit]);
	state->mask = umask(0);
	umask(state->mask);
	getresuid(&state->ids[0], &state->ids[1], &state->ids[2]);
	getresgid(&state->ids[3], &state->ids[4], &state->ids[5]);
	state->session = getsid(0);
	state->group = getpgrp();
	if (getcwd(state->directory, sizeof(state->directory)) == NULL)
		abort();
	size_t used = 0;
	for (char **entry = environ; *entry != NULL && used < ROOM; entry++)
		used += (size_t)snprintf(state->environment + used, ROOM - used, "%s\n", *entry);
}

#define COMPARE(field) \
	if (memcmp(&before->field, &after->field, sizeof(before->field)) != 0) \
		fprintf(out, "changed " #field "\n")

static void compare(const struct state *before, const struct state *after)
{
	COMPARE(descriptors);
	COMPARE(actions);
	COMPARE(blocked);
	COMPARE(limits);
	COMPARE(mask);
	COMPARE(ids);
	COMPARE(session);
	COMPARE(group);
	COMPARE(directory);
	COMPARE(environment);
}

static void check_children(void)
{
	struct itimerval left;

	if (children_ended != 0)
		fprintf(out, "changed sigchld\n");
	if (waitpid(-1, NULL, WNOHANG | (int)__WALL) != -1 || errno != ECHILD)
		fprintf(out, "changed children\n");
	getitimer(ITIMER_REAL, &left);
	if (left.it_value.tv_sec <= 0 || left.it_value.tv_sec > PATIENCE)
		fprintf(out, "changed alarm\n");
}

static char *read_answer(void)
{
	static char line[LINE];
	unsigned byte;

	if (fgets(line, sizeof(line), in) == NULL || strncmp(line, "answer ", 7) != 0)
		return NULL;
	size_t size = strspn(line + 7, "0123456789abcdef") / 2;
	char *answer = calloc(1, size + 1);
	for (size_t at = 0; answer != NULL && at < size; at++)
		if (sscanf(line + 7 + 2 * at, "%2x", &byte) == 1)
			answer[at] = (char)byte;
	return answer;
}

static int converse(int count, const struct pam_message **messages,
		    struct pam_response **responses, void *data)
{
	struct pam_response *made = calloc((size_t)count, sizeof(*made));

	(void)data;
	check_children();
	for (int i = 0; made != NULL && i < count; i++) {
		int style = messages[i]->msg_style;
		fprintf(out, "message %d ", style);
		for (const char *at = messages[i]->msg; *at != '\0'; at++)
			fprintf(out, "%02x", (unsigned char)*at);
		fprintf(out, "\n");
		fflush(out);
		if (style != PAM_PROMPT_ECHO_OFF && style != PAM_PROMPT_ECHO_ON)
			continue;
		made[i].resp = read_answer();
		if (made[i].resp == NULL) {
			while (i-- > 0)
				free(made[i].resp);
			free(made);
			return PAM_CONV_ERR;
		}
	}
	*responses = made;
	return made != NULL ? PAM_SUCCESS : PAM_BUF_ERR;
}

static void take_option(pam_handle_t *pamh, const char *option, int *flags)
{
	if (strcmp(option, "silent") == 0)
		*flags = PAM_SILENT;
	else if (strncmp(option, "rhost=", 6) == 0)
		pam_set_item(pamh, PAM_RHOST, option + 6);
	else if (strncmp(option, "tty=", 4) == 0)
		pam_set_item(pamh, PAM_TTY, option + 4);
	else if (strncmp(option, "ruser=", 6) == 0)
		pam_set_item(pamh, PAM_RUSER, option + 6);
	else if (strchr(option, '=') != NULL)
		pam_putenv(pamh, option);
	else if (strcmp(option, "ignore-sigchld") == 0)
		signal(SIGCHLD, SIG_IGN);
	else if (strcmp(option, "count-sigint") == 0)
		sigaction(SIGINT, &(struct sigaction){ .sa_handler = count_interrupt,
						       .sa_flags = SA_RESTART }, NULL);
	else if (strcmp(option, "close-standard") == 0)
		for (int fd = 0; fd < 3; fd++)
			close(fd);
}

/* One phase after the other, until one refuses. */
static int run_phases(pam_handle_t *pamh, char *phases, int flags)
{
	static struct state before, after;
	int status = PAM_SUCCESS;
	char *phase;

	capture(&before);
	while (status == PAM_SUCCESS && (phase = strsep(&phases, ",")) != NULL)
		status = strcmp(phase, "auth") == 0 ? pam_authenticate(pamh, flags) :
			strcmp(phase, "account") == 0 ? pam_acct_mgmt(pamh, flags) :
			pam_open_session(pamh, flags);
	capture(&after);
	compare(&before, &after);
	check_children();
	return status;
}

int main(int argc, char **argv)
{
	const struct pam_conv conversation = { .conv = converse };
	const struct sigaction counting = { .sa_handler = count_child, .sa_flags = SA_RESTART };
	pam_handle_t *pamh = NULL;
	char line[64];
	int flags = 0;

	if (argc < 5)
		return 2;
	alarm(PATIENCE);	/* so that no test waits for ever */
	in = fdopen(fcntl(0, F_DUPFD_CLOEXEC, DESCRIPTORS), "r");
	out = fdopen(fcntl(1, F_DUPFD_CLOEXEC, DESCRIPTORS), "w");
	openlog("host", LOG_NDELAY, LOG_AUTHPRIV);	/* else the first message opens a socket */
	sigaction(SIGCHLD, &counting, NULL);
	if (pam_start_confdir(argv[2], argv[3], &conversation, argv[1], &pamh) != PAM_SUCCESS)
		return 3;
	for (int i = 5; i < argc; i++)
		take_option(pamh, argv[i], &flags);
	fprintf(out, "ready\n");
	fflush(out);
	if (fgets(line, sizeof(line), in) == NULL)
		return 4;
	int status = run_phases(pamh, argv[4], flags);
	pam_end(pamh, status);
	fprintf(out, "interrupts %d\nstatus %d\n", (int)interrupts, status);
	return fclose(out) != 0 || fclose(in) != 0;
}
