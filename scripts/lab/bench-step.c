// SPDX-License-Identifier: GPL-2.0
/* bench-step OUT COMMAND...: runs COMMAND, a UML kernel, and counts the
 * instructions between each two breakpoints that it runs into, one by one. One
 * line with their number goes to OUT for each pair. Its signals (the timer) wait
 * meanwhile, so that only what is to be measured counts.
 */
#include <err.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int status, sig = 0, counting = 0, i;
	unsigned char held[_NSIG] = {};
	unsigned long n = 0;
	siginfo_t info;
	FILE *out;
	pid_t pid;

	if (argc < 3)
		errx(2, "usage: bench-step OUT COMMAND...");
	out = fopen(argv[1], "w");
	if (!out)
		err(1, "%s", argv[1]);
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		if (ptrace(PTRACE_TRACEME, 0, 0, 0))
			err(1, "ptrace");
		execv(argv[2], argv + 2);
		err(127, "%s", argv[2]);
	}
	if (waitpid(pid, &status, 0) != pid || !WIFSTOPPED(status))
		errx(1, "%s does not start", argv[2]);
	/* exec() of the kernel again is no breakpoint. */
	if (ptrace(PTRACE_SETOPTIONS, pid, 0,
		   PTRACE_O_EXITKILL | PTRACE_O_TRACEEXEC))
		err(1, "PTRACE_SETOPTIONS");

	for (;;) {
		if (ptrace(counting ? PTRACE_SINGLESTEP : PTRACE_CONT, pid, 0, sig))
			err(1, "ptrace");
		sig = 0;
		if (waitpid(pid, &status, __WALL) != pid)
			err(1, "waitpid");
		if (WIFEXITED(status) || WIFSIGNALED(status))
			break;
		if (status >> 16)
			continue;
		if (WSTOPSIG(status) != SIGTRAP) {
			if (counting && WSTOPSIG(status) != SIGSEGV)
				held[WSTOPSIG(status)] = 1;
			else
				sig = WSTOPSIG(status);
			continue;
		}
		if (ptrace(PTRACE_GETSIGINFO, pid, 0, &info))
			err(1, "PTRACE_GETSIGINFO");
		if (info.si_code != SI_KERNEL) {
			n++;
			continue;
		}
		counting = !counting;
		if (counting) {
			n = 0;
			continue;
		}
		fprintf(out, "%lu\n", n);
		for (i = 1; i < _NSIG; i++) {
			if (held[i])
				syscall(SYS_tgkill, pid, pid, i);
			held[i] = 0;
		}
	}
	if (fclose(out))
		err(1, "%s", argv[1]);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}
