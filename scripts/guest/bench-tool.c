// SPDX-License-Identifier: GPL-2.0
/* What guest/bench needs and no other tool does, or not for 100,000 objects. */
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <linux/xfrm.h>

#define BATCH	64

static char buf[64 * 1024] __attribute__((aligned(NLMSG_ALIGNTO)));
static unsigned int used, batched;
static struct nlmsghdr *h;

static int xfrm_socket(unsigned int groups)
{
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK, .nl_groups = groups };
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_XFRM);

	if (fd < 0 || bind(fd, (void *)&addr, sizeof(addr)))
		err(1, "NETLINK_XFRM");
	return fd;
}

static void *put(unsigned int len)
{
	void *p = buf + used;

	if (used + NLMSG_ALIGN(len) > sizeof(buf))
		errx(1, "batch too large");
	memset(p, 0, NLMSG_ALIGN(len));
	used += NLMSG_ALIGN(len);
	h->nlmsg_len = buf + used - (char *)h;
	return p;
}

static void *message(int type, unsigned int len)
{
	h = (void *)(buf + used);
	memset(h, 0, sizeof(*h));
	used += NLMSG_HDRLEN;
	h->nlmsg_type = type;
	h->nlmsg_flags = NLM_F_REQUEST;
	return put(len);
}

static void *attribute(int type, unsigned int len)
{
	struct nlattr *nla = put(NLA_HDRLEN + len);

	nla->nla_type = type;
	nla->nla_len = NLA_HDRLEN + len;
	return (char *)nla + NLA_HDRLEN;
}

/* The last of a batch is acknowledged, an error comes for each that fails. What is
 * to be deleted can be gone.
 */
static void batch_end(int fd, int last)
{
	static char answer[8192] __attribute__((aligned(NLMSG_ALIGNTO)));
	const struct nlmsgerr *e;
	const struct nlmsghdr *a;
	ssize_t len;

	if (++batched < BATCH && !last)
		return;
	h->nlmsg_flags |= NLM_F_ACK;
	if (send(fd, buf, used, 0) != (ssize_t)used)
		err(1, "send");
	len = recv(fd, answer, sizeof(answer), 0);
	if (len < 0)
		err(1, "recv");
	a = (const void *)answer;
	e = NLMSG_DATA(a);
	if (!NLMSG_OK(a, len) || a->nlmsg_type != NLMSG_ERROR)
		errx(1, "no answer");
	if (e->error && e->msg.nlmsg_type != XFRM_MSG_DELPOLICY) {
		errno = -e->error;
		err(1, "%s", e->msg.nlmsg_type == XFRM_MSG_NEWSA ? "SA" : "policy");
	}
	used = 0;
	batched = 0;
}

static void lifetime(struct xfrm_lifetime_cfg *lft)
{
	lft->soft_byte_limit = XFRM_INF;
	lft->hard_byte_limit = XFRM_INF;
	lft->soft_packet_limit = XFRM_INF;
	lft->hard_packet_limit = XFRM_INF;
}

struct what {
	unsigned int count;
	unsigned int net;	/* second byte of the addresses */
	int one;		/* all in one hash bucket */
	int flags;		/* -1: software */
	int ifindex;
};

static void parse(struct what *w, char **argv)
{
	w->count = atoi(argv[0]);
	w->net = atoi(argv[1]);
	if (!strcmp(argv[2], "one"))
		w->one = 1;
	else if (strcmp(argv[2], "spread"))
		errx(2, "%s: one or spread", argv[2]);
	if (!strcmp(argv[3], "crypto"))
		w->flags = 0;
	else if (!strcmp(argv[3], "packet"))
		w->flags = XFRM_OFFLOAD_PACKET;
	else if (!strcmp(argv[3], "software"))
		w->flags = -1;
	else
		errx(2, "%s: crypto, packet or software", argv[3]);
	if (w->flags >= 0 && argv[4]) {
		w->ifindex = if_nametoindex(argv[4]);
		if (!w->ifindex)
			errx(1, "%s: no such device", argv[4]);
	}
}

static void offload(const struct what *w)
{
	struct xfrm_user_offload *o;

	if (w->flags < 0)
		return;
	o = attribute(XFRMA_OFFLOAD_DEV, sizeof(*o));
	o->ifindex = w->ifindex;
	o->flags = w->flags;
}

static __be32 address(const struct what *w, unsigned int i)
{
	return htonl(0x0a000001 + (w->one ? 0 : (w->net << 16) + i));
}

/* states COUNT NET one|spread crypto|packet|software [DEV] */
static int cmd_states(char **argv)
{
	struct what w = {};
	unsigned int i;
	int fd;

	parse(&w, argv);
	fd = xfrm_socket(0);
	for (i = 0; i < w.count; i++) {
		struct xfrm_usersa_info *p = message(XFRM_MSG_NEWSA, sizeof(*p));

		p->id.daddr.a4 = address(&w, i);
		p->id.spi = htonl((w.net << 20) + i + 0x100);
		p->id.proto = IPPROTO_ESP;
		p->saddr.a4 = htonl(0x0afe0001);
		p->family = AF_INET;
		p->mode = XFRM_MODE_TUNNEL;
		p->reqid = 1;
		lifetime(&p->lft);
		if (w.flags < 0) {
			struct xfrm_algo *alg;

			alg = attribute(XFRMA_ALG_CRYPT, sizeof(*alg));
			strcpy(alg->alg_name, "ecb(cipher_null)");
		} else {
			struct xfrm_algo_aead *alg;

			alg = attribute(XFRMA_ALG_AEAD, sizeof(*alg) + 20);
			strcpy(alg->alg_name, "rfc4106(gcm(aes))");
			alg->alg_key_len = 160;
			alg->alg_icv_len = 128;
			memset(alg->alg_key, 'k', 20);
		}
		offload(&w);
		batch_end(fd, i + 1 == w.count);
	}
	return 0;
}

static void selector(struct xfrm_selector *sel, const struct what *w, unsigned int i)
{
	sel->family = AF_INET;
	sel->saddr.a4 = htonl(0x0afd0001);
	sel->prefixlen_s = 32;
	sel->daddr.a4 = address(w, i);
	sel->prefixlen_d = 32;
	if (w->one) {
		sel->proto = IPPROTO_UDP;
		sel->dport = htons(i);
		sel->dport_mask = 0xffff;
		sel->sport = htons(w->net + (i >> 16));
		sel->sport_mask = 0xffff;
	}
}

/* policies COUNT NET one|spread packet|software [DEV] */
static int cmd_policies(char **argv)
{
	struct what w = {};
	unsigned int i;
	int fd;

	parse(&w, argv);
	fd = xfrm_socket(0);
	for (i = 0; i < w.count; i++) {
		struct xfrm_userpolicy_info *p = message(XFRM_MSG_NEWPOLICY, sizeof(*p));
		struct xfrm_user_tmpl *t;

		selector(&p->sel, &w, i);
		lifetime(&p->lft);
		p->dir = XFRM_POLICY_OUT;
		p->action = XFRM_POLICY_ALLOW;
		t = attribute(XFRMA_TMPL, sizeof(*t));
		t->id.daddr.a4 = address(&w, i);
		t->id.proto = IPPROTO_ESP;
		t->saddr.a4 = htonl(0x0afe0001);
		t->family = AF_INET;
		t->mode = XFRM_MODE_TUNNEL;
		t->reqid = 1;
		t->aalgos = t->ealgos = t->calgos = ~0;
		offload(&w);
		batch_end(fd, i + 1 == w.count);
	}
	return 0;
}

/* unpolicies COUNT NET one|spread packet: delete these policies again */
static int cmd_unpolicies(char **argv)
{
	struct what w = {};
	unsigned int i;
	int fd;

	parse(&w, argv);
	fd = xfrm_socket(0);
	for (i = 0; i < w.count; i++) {
		struct xfrm_userpolicy_id *p = message(XFRM_MSG_DELPOLICY, sizeof(*p));

		selector(&p->sel, &w, i);
		p->dir = XFRM_POLICY_OUT;
		batch_end(fd, 1);
	}
	return 0;
}

/* remove nsim ID | remove dummy NAME: the removal, and nothing else, in microseconds */
static int cmd_remove(char **argv)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
	} req = {
		.h = {
			.nlmsg_len = sizeof(req),
			.nlmsg_type = RTM_DELLINK,
			.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK,
		},
	};
	int nsim = !strcmp(argv[0], "nsim");
	struct timespec from, to;
	struct nlmsgerr *e;
	ssize_t len;
	int fd;

	if (nsim) {
		fd = open("/sys/bus/netdevsim/del_device", O_WRONLY);
	} else {
		fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
		req.i.ifi_index = if_nametoindex(argv[1]);
		if (!req.i.ifi_index)
			errx(1, "%s: no such device", argv[1]);
	}
	if (fd < 0)
		err(1, "remove %s", argv[0]);
	clock_gettime(CLOCK_MONOTONIC, &from);
	if (nsim)
		len = write(fd, argv[1], strlen(argv[1]));
	else
		len = send(fd, &req, sizeof(req), 0);
	clock_gettime(CLOCK_MONOTONIC, &to);
	if (len < 0)
		err(1, "remove %s %s", argv[0], argv[1]);
	if (!nsim) {
		len = recv(fd, buf, sizeof(buf), 0);
		e = NLMSG_DATA(buf);
		if (len < (ssize_t)NLMSG_LENGTH(sizeof(*e)) || e->error)
			errx(1, "%s is not removed", argv[1]);
	}
	printf("%lld\n", (to.tv_sec - from.tv_sec) * 1000000LL +
	       (to.tv_nsec - from.tv_nsec) / 1000);
	return 0;
}

static const struct {
	const char *name;
	int args;
	int (*run)(char **argv);
	const char *usage;
} commands[] = {
	{ "states", 4, cmd_states, "COUNT NET one|spread crypto|packet|software [DEV]" },
	{ "policies", 4, cmd_policies, "COUNT NET one|spread packet|software [DEV]" },
	{ "unpolicies", 4, cmd_unpolicies, "COUNT NET one|spread packet" },
	{ "remove", 2, cmd_remove, "nsim ID | remove dummy NAME" },
};

int main(int argc, char **argv)
{
	unsigned int i;

	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		if (argc > 1 && argc - 2 >= commands[i].args &&
		    !strcmp(argv[1], commands[i].name))
			return commands[i].run(argv + 2);
	for (i = 0; i < sizeof(commands) / sizeof(commands[0]); i++)
		fprintf(stderr, "usage: bench-tool %s %s\n", commands[i].name,
			commands[i].usage);
	return 2;
}
