// SPDX-License-Identifier: GPL-2.0
/* What the scenarios of guest/demo need and no other tool does. */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <linux/netlink.h>
#include <linux/pfkeyv2.h>
#include <linux/xfrm.h>
#include "expire.h"

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static long long now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

/* Registered, so that the kernel believes somebody will answer an ACQUIRE */
static int pfkey_open(void)
{
	struct sadb_msg msg = {
		.sadb_msg_version = PF_KEY_V2,
		.sadb_msg_type = SADB_REGISTER,
		.sadb_msg_satype = SADB_SATYPE_ESP,
		.sadb_msg_len = sizeof(msg) / 8,
		.sadb_msg_seq = 1,
		.sadb_msg_pid = getpid(),
	};
	int fd = socket(PF_KEY, SOCK_RAW, PF_KEY_V2);

	if (fd < 0 || send(fd, &msg, sizeof(msg), 0) != sizeof(msg))
		err(1, "PF_KEY");
	return fd;
}

/* Is there an XFRMA_OFFLOAD_DEV behind the struct of the message? */
static const char *offload(const struct nlmsghdr *h, size_t size)
{
	const struct nlattr *a = (const void *)((const char *)NLMSG_DATA(h) + NLMSG_ALIGN(size));
	const char *end = (const char *)h + h->nlmsg_len;

	for (; (const char *)(a + 1) <= end && a->nla_len >= sizeof(*a);
	     a = (const void *)((const char *)a + NLA_ALIGN(a->nla_len)))
		if (a->nla_type == XFRMA_OFFLOAD_DEV)
			return "offload";
	return "software";
}

static void heard_netlink(FILE *out, long long now, const char *buf,
			  unsigned int len)
{
	const struct nlmsghdr *h;

	for (h = (const void *)buf; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len)) {
		if (h->nlmsg_type == XFRM_MSG_EXPIRE) {
			const struct xfrm_user_expire *e = NLMSG_DATA(h);

			fprintf(out, "nl sa 0x%08x hard=%d packets=%llu t=%lld\n",
				ntohl(e->state.id.spi), e->hard,
				(unsigned long long)e->state.curlft.packets,
				now);
		} else if (h->nlmsg_type == XFRM_MSG_ACQUIRE) {
			const struct xfrm_user_acquire *a = NLMSG_DATA(h);
			char dst[INET6_ADDRSTRLEN];

			fprintf(out, "nl acquire %s t=%lld\n",
				inet_ntop(a->sel.family, &a->sel.daddr, dst,
					  sizeof(dst)), now);
		} else if (h->nlmsg_type == XFRM_MSG_UPDPOLICY) {
			const struct xfrm_userpolicy_info *p = NLMSG_DATA(h);

			fprintf(out, "nl upd %u %s t=%lld\n", p->index,
				offload(h, sizeof(*p)), now);
		} else if (h->nlmsg_type == XFRM_MSG_DELPOLICY) {
			const struct xfrm_userpolicy_id *p = NLMSG_DATA(h);

			fprintf(out, "nl del %u t=%lld\n", p->index, now);
		} else if (h->nlmsg_type == XFRM_MSG_POLEXPIRE) {
			fprintf(out, "nl polexpire t=%lld\n", now);
		}
	}
}

static void heard_pfkey(FILE *out, long long now, const char *buf, size_t len)
{
	unsigned int spi;
	int lifetime;

	if (sadb_expire(buf, len, &spi, &lifetime))
		fprintf(out, "pfkey sa 0x%08x %s t=%lld\n", spi,
			lifetime == SADB_EXT_LIFETIME_HARD ? "hard" :
			lifetime == SADB_EXT_LIFETIME_SOFT ? "soft" : "unknown", now);
}

/* Both ways a key manager listens, each with its default receive buffer. As one
 * would, it reads all there is before it does anything slow. And at once, on
 * however busy a machine: this is about the buffer.
 */
static int cmd_listen(char **argv)
{
	struct sched_param prio = { .sched_priority = 1 };
	struct sockaddr_nl addr = {
		.nl_family = AF_NETLINK,
		.nl_groups = 1 << (XFRMNLGRP_EXPIRE - 1) |
			     1 << (XFRMNLGRP_ACQUIRE - 1) |
			     1 << (XFRMNLGRP_POLICY - 1),
	};
	static char buf[32768], lines[1 << 18];
	struct pollfd pfd[2];
	long long now;
	unsigned int i;
	ssize_t len;
	FILE *out;

	out = fopen(argv[0], "w");
	if (!out)
		err(1, "%s", argv[0]);
	setvbuf(out, lines, _IOFBF, sizeof(lines));
	pfd[0].fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_XFRM);
	if (pfd[0].fd < 0 || bind(pfd[0].fd, (void *)&addr, sizeof(addr)))
		err(1, "NETLINK_XFRM");
	pfd[1].fd = pfkey_open();
	pfd[0].events = POLLIN;
	pfd[1].events = POLLIN;
	if (sched_setscheduler(0, SCHED_FIFO, &prio))
		err(1, "SCHED_FIFO");
	fprintf(out, "ready\n");

	for (;;) {
		fflush(out);
		if (poll(pfd, ARRAY_SIZE(pfd), -1) < 0)
			err(1, "poll");
		now = now_us();
		for (i = 0; i < ARRAY_SIZE(pfd); i++) {
			while ((len = recv(pfd[i].fd, buf, sizeof(buf),
					   MSG_DONTWAIT)) > 0) {
				if (i == 0)
					heard_netlink(out, now, buf, len);
				else
					heard_pfkey(out, now, buf, len);
			}
			if (len < 0 && errno == ENOBUFS)
				fprintf(out, "overrun\n");
			else if (len < 0 && errno != EAGAIN)
				err(1, "recv");
		}
	}
}

static struct addrinfo *address(const char *host, const char *port)
{
	struct addrinfo hints = {
		.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV,
		.ai_socktype = SOCK_DGRAM,
	}, *res;
	int error = getaddrinfo(host, port, &hints, &res);

	if (error)
		errx(1, "%s %s: %s", host, port, gai_strerror(error));
	return res;
}

/* send SRC|- DST PORT COUNT TEXT [hold]: hold keeps the socket, connected so that it
 * has its route cached, and sends once more after a SIGUSR1.
 */
static int cmd_send(char **argv)
{
	struct addrinfo *dst = address(argv[1], argv[2]);
	int fd = socket(dst->ai_family, SOCK_DGRAM, 0);
	unsigned int refused = 0;
	const char *text = argv[4];
	int count, sig;
	sigset_t usr1;

	if (fd < 0)
		err(1, "socket");
	if (strcmp(argv[0], "-")) {
		struct addrinfo *src = address(argv[0], "0");

		if (bind(fd, src->ai_addr, src->ai_addrlen))
			err(1, "bind %s", argv[0]);
	}
	if (argv[5] && connect(fd, dst->ai_addr, dst->ai_addrlen))
		err(1, "connect %s", argv[1]);
	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	setbuf(stdout, NULL);
	for (count = atoi(argv[3]); count > 0; count--) {
		if (sendto(fd, text, strlen(text), 0, dst->ai_addr,
			   dst->ai_addrlen) < 0 && errno == EPERM)
			refused++;
		if (count == 1 && argv[5]) {
			printf("held\n");
			sigwait(&usr1, &sig);
			argv[5] = NULL;
			count++;
		}
	}
	printf("%u\n", refused);
	return 0;
}

/* One line for each datagram: in a netns without IPsec that is clear text. */
static int cmd_recv(char **argv)
{
	struct sockaddr_in6 addr = {
		.sin6_family = AF_INET6,
		.sin6_port = htons(atoi(argv[0])),
	};
	int fd = socket(AF_INET6, SOCK_DGRAM, 0);
	char buf[2048];
	ssize_t len;
	int out;

	out = open(argv[1], O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0644);
	if (out < 0)
		err(1, "%s", argv[1]);
	if (fd < 0 || bind(fd, (void *)&addr, sizeof(addr)))
		err(1, "bind port %s", argv[0]);
	dprintf(out, "ready\n");
	while ((len = recv(fd, buf, sizeof(buf), 0)) >= 0)
		dprintf(out, "%.*s\n", (int)len, buf);
	err(1, "recv");
}

static const struct {
	const char *name;
	int args;
	int (*run)(char **argv);
	const char *usage;
} commands[] = {
	{ "listen", 1, cmd_listen, "OUT" },
	{ "send", 5, cmd_send, "SRC|- DST PORT COUNT TEXT [hold]" },
	{ "recv", 2, cmd_recv, "PORT OUT" },
};

int main(int argc, char **argv)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(commands); i++)
		if (argc > 1 && argc - 2 >= commands[i].args &&
		    !strcmp(argv[1], commands[i].name))
			return commands[i].run(argv + 2);
	for (i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(stderr, "usage: guest-tool %s %s\n", commands[i].name,
			commands[i].usage);
	return 2;
}
