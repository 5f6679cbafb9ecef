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

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))

static long long now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

static void pfkey_send(int fd, int type, int satype)
{
	struct sadb_msg msg = {
		.sadb_msg_version = PF_KEY_V2,
		.sadb_msg_type = type,
		.sadb_msg_satype = satype,
		.sadb_msg_len = sizeof(msg) / 8,
		.sadb_msg_seq = type,
		.sadb_msg_pid = getpid(),
	};

	if (send(fd, &msg, sizeof(msg), 0) != sizeof(msg))
		err(1, "pfkey message %d", type);
}

static int pfkey_open(void)
{
	int fd = socket(PF_KEY, SOCK_RAW, PF_KEY_V2);

	if (fd < 0)
		err(1, "PF_KEY socket");
	return fd;
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
		} else if (h->nlmsg_type == XFRM_MSG_POLEXPIRE) {
			const struct xfrm_user_polexpire *e = NLMSG_DATA(h);

			fprintf(out, "nl pol %u dir=%d hard=%d action=%s t=%lld\n",
				e->pol.index, e->pol.dir, e->hard,
				e->pol.action == XFRM_POLICY_ALLOW ?
				"allow" : "block", now);
		}
	}
}

static void heard_pfkey(FILE *out, long long now, const char *buf, size_t len)
{
	const struct sadb_msg *msg = (const void *)buf;
	const char *what = "unknown";
	const struct sadb_ext *ext;
	unsigned int spi = 0;
	size_t pos;

	if (len < sizeof(*msg) || msg->sadb_msg_type != SADB_EXPIRE)
		return;
	for (pos = sizeof(*msg); pos + sizeof(*ext) <= len;
	     pos += ext->sadb_ext_len * 8) {
		ext = (const void *)(buf + pos);
		if (!ext->sadb_ext_len)
			break;
		if (ext->sadb_ext_type == SADB_EXT_SA)
			spi = ntohl(((const struct sadb_sa *)ext)->sadb_sa_spi);
		else if (ext->sadb_ext_type == SADB_EXT_LIFETIME_HARD)
			what = "hard";
		else if (ext->sadb_ext_type == SADB_EXT_LIFETIME_SOFT)
			what = "soft";
	}
	fprintf(out, "pfkey sa 0x%08x %s t=%lld\n", spi, what, now);
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
		.nl_groups = 1 << (XFRMNLGRP_EXPIRE - 1),
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
	pfkey_send(pfd[1].fd, SADB_REGISTER, SADB_SATYPE_ESP);
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

static const char *error_name(int error)
{
	return error ? strerrorname_np(error) : "ok";
}

/* Some answers come twice, first as a success. */
static int pfkey_answer(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	static char buf[32768];
	const struct sadb_msg *msg = (const void *)buf;
	int ret = 0;

	while (poll(&pfd, 1, 0) > 0) {
		if (recv(fd, buf, sizeof(buf), 0) < (ssize_t)sizeof(*msg))
			err(1, "recv");
		if (msg->sadb_msg_pid == (__u32)getpid() && msg->sadb_msg_errno)
			ret = msg->sadb_msg_errno;
	}
	return ret;
}

static int cmd_pfkey_flush(char **argv)
{
	int fd = pfkey_open();

	(void)argv;
	pfkey_send(fd, SADB_FLUSH, SADB_SATYPE_UNSPEC);
	printf("states %s\n", error_name(pfkey_answer(fd)));
	pfkey_send(fd, SADB_X_SPDFLUSH, SADB_SATYPE_UNSPEC);
	printf("policies %s\n", error_name(pfkey_answer(fd)));
	return 0;
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

/* send SRC|- DST PORT COUNT [TEXT] */
static int cmd_send(char **argv)
{
	struct addrinfo *dst = address(argv[1], argv[2]);
	const char *text = argv[4] ? argv[4] : "data";
	int fd = socket(dst->ai_family, SOCK_DGRAM, 0);
	unsigned int failed[256] = {}, sent = 0, i;
	int count = atoi(argv[3]);

	if (fd < 0)
		err(1, "socket");
	if (strcmp(argv[0], "-")) {
		struct addrinfo *src = address(argv[0], "0");

		if (bind(fd, src->ai_addr, src->ai_addrlen))
			err(1, "bind %s", argv[0]);
	}
	while (count-- > 0) {
		if (sendto(fd, text, strlen(text), 0, dst->ai_addr,
			   dst->ai_addrlen) >= 0)
			sent++;
		else
			failed[errno < 255 ? errno : 255]++;
	}
	printf("sent %u\n", sent);
	for (i = 0; i < ARRAY_SIZE(failed); i++)
		if (failed[i])
			printf("%s %u\n", error_name(i), failed[i]);
	return 0;
}

/* hold SRC DST PORT: one datagram now and one for each SIGUSR1, until SIGTERM */
static int cmd_hold(char **argv)
{
	struct addrinfo *src = address(argv[0], "0");
	struct addrinfo *dst = address(argv[1], argv[2]);
	int fd = socket(dst->ai_family, SOCK_DGRAM, 0);
	sigset_t usr1;
	int sig;

	sigemptyset(&usr1);
	sigaddset(&usr1, SIGUSR1);
	sigprocmask(SIG_BLOCK, &usr1, NULL);
	if (fd < 0 || bind(fd, src->ai_addr, src->ai_addrlen) ||
	    connect(fd, dst->ai_addr, dst->ai_addrlen))
		err(1, "connect %s", argv[1]);
	setbuf(stdout, NULL);
	if (send(fd, "data", 4, 0) != 4)
		err(1, "send");
	printf("ready\n");
	while (!sigwait(&usr1, &sig))
		printf("%s\n", error_name(send(fd, "data", 4, 0) < 0 ? errno : 0));
	errx(1, "sigwait");
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
	{ "pfkey-flush", 0, cmd_pfkey_flush, "" },
	{ "send", 4, cmd_send, "SRC|- DST PORT COUNT [TEXT]" },
	{ "hold", 3, cmd_hold, "SRC DST PORT" },
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
