/* SPDX-License-Identifier: GPL-2.0 */
/* A UML kernel is a process, and a busy host takes the CPU away from it at any
 * time: ask the host how long it has really run, in nanoseconds.
 */
static inline u64 cputime(void)
{
	struct { s64 sec, nsec; } ts;
	long ret;

	/* clock_gettime(CLOCK_THREAD_CPUTIME_ID) */
	asm volatile("syscall"
		     : "=a" (ret)
		     : "0" (228), "D" (3), "S" (&ts)
		     : "rcx", "r11", "memory");

	return ret ? 0 : ts.sec * NSEC_PER_SEC + ts.nsec;
}
