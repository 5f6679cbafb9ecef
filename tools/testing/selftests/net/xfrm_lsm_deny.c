// SPDX-License-Identifier: GPL-2.0
/* A security module that lets nobody delete a state or policy, for
 * xfrm_devgone_lsm.sh: BPF programs at the LSM hooks that the kernel asks,
 * which are there until this ends. Says "ready" once they are, and, when told
 * to end (SIGTERM, SIGINT), how often each has been asked. They know nothing of
 * what the object is, it is the same for all in the machine: nothing else
 * should use IPsec meanwhile.
 *
 * The programs are a few instructions, so that neither clang nor libbpf is
 * needed.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/bpf.h>
#include <linux/btf.h>

#include "kselftest.h"

/* what the kernel says where there are no trampolines */
#define KERN_ENOTSUPP	524

#define BTF_FILE	"/sys/kernel/btf/vmlinux"

#define INSN(_code, _dst, _src, _off, _imm) \
	((struct bpf_insn) { .code = (_code), .dst_reg = (_dst), \
			     .src_reg = (_src), .off = (_off), .imm = (_imm) })

static int bpf(int cmd, union bpf_attr *attr)
{
	return syscall(__NR_bpf, cmd, attr, sizeof(*attr));
}

static __u64 ptr(const void *p)
{
	return (unsigned long)p;
}

/* What follows a struct btf_type, by its kind. */
static size_t btf_extra(const struct btf_type *t)
{
	unsigned int vlen = BTF_INFO_VLEN(t->info);

	switch (BTF_INFO_KIND(t->info)) {
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case BTF_KIND_DECL_TAG:
		return sizeof(__u32);
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return vlen * sizeof(struct btf_member);
	case BTF_KIND_ENUM:
		return vlen * sizeof(struct btf_enum);
	case BTF_KIND_ENUM64:
		return vlen * sizeof(struct btf_enum64);
	case BTF_KIND_FUNC_PROTO:
		return vlen * sizeof(struct btf_param);
	case BTF_KIND_DATASEC:
		return vlen * sizeof(struct btf_var_secinfo);
	default:
		return 0;
	}
}

static char *btf_load(void)
{
	size_t size = 0, room = 0;
	char *data = NULL;
	ssize_t len;
	int fd;

	fd = open(BTF_FILE, O_RDONLY);
	if (fd < 0)
		ksft_exit_skip("no %s (CONFIG_DEBUG_INFO_BTF)\n", BTF_FILE);
	do {
		if (size == room) {
			room += 4 << 20;
			data = realloc(data, room);
			if (!data)
				ksft_exit_fail_msg("no memory\n");
		}
		len = read(fd, data + size, room - size);
		if (len < 0)
			ksft_exit_fail_perror(BTF_FILE);
		size += len;
	} while (len);
	close(fd);

	return data;
}

static int btf_func(const char *btf, const char *name)
{
	const struct btf_header *hdr = (const void *)btf;
	const char *types = btf + hdr->hdr_len + hdr->type_off;
	const char *strs = btf + hdr->hdr_len + hdr->str_off;
	const char *end = types + hdr->type_len;
	int id;

	for (id = 1; types < end; id++) {
		const struct btf_type *t = (const void *)types;

		if (BTF_INFO_KIND(t->info) == BTF_KIND_FUNC &&
		    !strcmp(strs + t->name_off, name))
			return id;
		types += sizeof(*t) + btf_extra(t);
	}

	return -1;
}

static int map_create(void)
{
	union bpf_attr attr = {
		.map_type = BPF_MAP_TYPE_ARRAY,
		.key_size = sizeof(__u32),
		.value_size = sizeof(__u64),
		.max_entries = 1,
	};
	int fd = bpf(BPF_MAP_CREATE, &attr);

	if (fd < 0 && errno == EPERM)
		ksft_exit_skip("bpf(2) is not for us\n");
	if (fd < 0)
		ksft_exit_fail_perror("BPF_MAP_CREATE");

	return fd;
}

static __u64 map_read(int fd)
{
	__u64 value = 0;
	__u32 key = 0;
	union bpf_attr attr = {
		.map_fd = fd,
		.key = ptr(&key),
		.value = ptr(&value),
	};

	if (bpf(BPF_MAP_LOOKUP_ELEM, &attr))
		ksft_exit_fail_perror("BPF_MAP_LOOKUP_ELEM");

	return value;
}

/* Attach a program that counts in the map and returns -EPERM. */
static void deny(const char *btf, const char *hook, int map)
{
	const struct bpf_insn insns[] = {
		/* r0 = bpf_map_lookup_elem(map, &(u32){ 0 }) */
		INSN(BPF_ST | BPF_MEM | BPF_W, BPF_REG_10, 0, -4, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_X, BPF_REG_2, BPF_REG_10, 0, 0),
		INSN(BPF_ALU64 | BPF_ADD | BPF_K, BPF_REG_2, 0, 0, -4),
		INSN(BPF_LD | BPF_DW | BPF_IMM, BPF_REG_1, BPF_PSEUDO_MAP_FD, 0,
		     map),
		INSN(0, 0, 0, 0, 0),
		INSN(BPF_JMP | BPF_CALL, 0, 0, 0, BPF_FUNC_map_lookup_elem),
		/* if (r0) (*r0)++ */
		INSN(BPF_JMP | BPF_JEQ | BPF_K, BPF_REG_0, 0, 2, 0),
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_1, 0, 0, 1),
		INSN(BPF_STX | BPF_ATOMIC | BPF_DW, BPF_REG_0, BPF_REG_1, 0,
		     BPF_ADD),
		/* return -EPERM */
		INSN(BPF_ALU64 | BPF_MOV | BPF_K, BPF_REG_0, 0, 0, -EPERM),
		INSN(BPF_JMP | BPF_EXIT, 0, 0, 0, 0),
	};
	union bpf_attr attr = {};
	static char log[4096];
	int prog;

	attr.prog_type = BPF_PROG_TYPE_LSM;
	attr.expected_attach_type = BPF_LSM_MAC;
	attr.insns = ptr(insns);
	attr.insn_cnt = ARRAY_SIZE(insns);
	attr.license = ptr("GPL");
	attr.log_buf = ptr(log);
	attr.log_size = sizeof(log);
	attr.log_level = 1;
	attr.attach_btf_id = btf_func(btf, hook);
	if ((int)attr.attach_btf_id < 0)
		ksft_exit_skip("no %s (BPF_LSM, SECURITY_NETWORK_XFRM)\n",
			       hook);
	prog = bpf(BPF_PROG_LOAD, &attr);
	if (prog < 0)
		ksft_exit_fail_msg("%s: %s\n%s", hook, strerror(errno), log);

	/* It stays as long as the descriptor is open. */
	memset(&attr, 0, sizeof(attr));
	attr.raw_tracepoint.prog_fd = prog;
	if (bpf(BPF_RAW_TRACEPOINT_OPEN, &attr) < 0) {
		if (errno == EOPNOTSUPP || errno == KERN_ENOTSUPP)
			ksft_exit_skip("no BPF trampolines on this machine\n");
		ksft_exit_fail_perror("BPF_RAW_TRACEPOINT_OPEN");
	}
}

int main(void)
{
	pid_t parent = getppid();
	int state, policy, sig;
	sigset_t set;
	char *btf;

	/* The test may be killed, and this is for the whole machine. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		ksft_exit_fail_msg("the test is gone\n");

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);

	btf = btf_load();
	state = map_create();
	policy = map_create();
	deny(btf, "bpf_lsm_xfrm_state_delete_security", state);
	deny(btf, "bpf_lsm_xfrm_policy_delete_security", policy);
	free(btf);

	printf("ready\n");
	fflush(stdout);
	sigwait(&set, &sig);
	printf("asked state=%llu policy=%llu\n",
	       (unsigned long long)map_read(state),
	       (unsigned long long)map_read(policy));

	return KSFT_PASS;
}
