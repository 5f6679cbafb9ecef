// SPDX-License-Identifier: GPL-2.0
/* What does the work in a guest of scripts/lab/stress: many processes that add,
 * delete, dump, send and listen at once, and at the end the accounts.
 *
 * Every SA has an SPI, and every policy a soft byte limit that no other has, so
 * that each expiry can be put down to one object.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <linux/filter.h>
#include <linux/if_arp.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/pfkeyv2.h>
#include <linux/xfrm.h>
#include <netinet/in.h>
#include <netinet/udp.h>

#ifndef XFRM_OFFLOAD_PACKET
#define XFRM_OFFLOAD_PACKET	4
#endif
#ifndef UDP_SEGMENT
#define UDP_SEGMENT		103
#endif

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define OBJECTS		(1 << 22)
#define SPI_BASE	0x10000u
#define POL_BASE	(1ULL << 40)
#define PORT		4000
#define ACQUIRES	19	/* the pair that never has a state */
#define BYSTANDER	20
#define CANARY		99	/* the pair without policies */

/* Pair P: 10.9.P.1 and fd09:P::1 behind a talk to .2 and ::2 behind b. */
enum mode { TRANSPORT, TUNNEL, NONE, BLOCK };
static const struct pair {
	int nr;
	int family;
	enum mode mode;
	int offload;		/* 0: software, 1: crypto, 2: packet */
	const char *from;	/* netns that sends */
	bool prefix;		/* the selectors are */
	bool lifetime;		/* the policies have a hard one */
} pairs[] = {
	{ 1, AF_INET, TRANSPORT, 2, "a" },
	{ 2, AF_INET, TRANSPORT, 2, "a" },
	{ 3, AF_INET6, TRANSPORT, 2, "a" },
	{ 4, AF_INET6, TRANSPORT, 2, "a" },
	{ 5, AF_INET, TUNNEL, 2, "a" },
	{ 6, AF_INET6, TUNNEL, 2, "a" },
	{ 7, AF_INET, TRANSPORT, 1, "a" },
	{ 8, AF_INET6, TUNNEL, 1, "a" },
	{ 9, AF_INET, TUNNEL, 2, "c" },
	{ 10, AF_INET6, TUNNEL, 2, "c" },
	{ 11, AF_INET, BLOCK, 2, "a" },
	{ 12, AF_INET, TUNNEL, 1, "a" },	/* is migrated */
	{ ACQUIRES, AF_INET, TRANSPORT, 2, "a" },
	{ BYSTANDER, AF_INET, TRANSPORT, 0, "a" },
};
#define MIGRATED	(&pairs[11])

enum counter {
	C_SA_MADE, C_SA_FAILED, C_SA_DELETED, C_SA_UPDATED, C_SPI_ALLOCATED,
	C_POL_MADE, C_POL_REPLACED, C_POL_FAILED, C_POL_DELETED,
	C_MIGRATED, C_DUMPS, C_FLUSHES, C_SENT, C_SEND_ERRORS, C_HELD,
	C_CLEAR, C_CANARY, C_PLAIN_SENT, C_PLAIN_ACCEPTED, C_PLAIN_CANARY,
	C_EXPIRES, C_POL_TOLD, C_PFKEY, C_ACQUIRED, C_ACQ_EXPIRED,
	C_OVERRUNS, C_UNKNOWN, C_NO_ANSWER, C_GUARDS, C_GUARDS_LOST,
	COUNTERS
};

/* What is known of an SA. */
#define SA_MADE		1	/* the kernel said so */
#define SA_UNSURE	2	/* made, or not: no promise about its end */
#define SA_FLUSHABLE	4
#define SA_MIGRATED	8
#define SA_BYSTANDER	16
/* What is known of a policy. */
#define POL_MADE	1
#define POL_GONE	2	/* has lost its device, or has gone with it */
#define POL_NETNS_D	4
#define POL_UNSURE	8	/* made, or not */
#define POL_SOFT	16	/* never had a device */

static struct shared {
	volatile int stop, end, go;
	unsigned int spis, policies, flushes;
	unsigned long counts[COUNTERS];
	unsigned char sa[OBJECTS], sa_expired[OBJECTS], sa_deleted[OBJECTS];
	unsigned char sa_pfkey[OBJECTS], sa_alive[OBJECTS];
	unsigned char sa_ended[OBJECTS];
	unsigned int sa_flush[OBJECTS];
	unsigned char pol[OBJECTS], pol_told[OBJECTS], pol_expired[OBJECTS];
	unsigned char sentinel_heard[4];
} *sh;

static unsigned long long rng;
static int dgram = -1;

static unsigned int rnd(unsigned int n)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return (rng >> 11) % n;
}

static void count(enum counter c, unsigned long n)
{
	__atomic_add_fetch(&sh->counts[c], n, __ATOMIC_RELAXED);
}

static void pause_us(unsigned int us)
{
	struct timespec ts = { us / 1000000, us % 1000000 * 1000L };

	nanosleep(&ts, NULL);
}

static unsigned int next_id(unsigned int *counter)
{
	unsigned int id = __atomic_add_fetch(counter, 1, __ATOMIC_RELAXED);

	if (id >= OBJECTS)
		errx(1, "more than %d objects: fewer minutes", OBJECTS);
	return id;
}

static void enter(const char *netns)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/run/netns/%s", netns);
	fd = open(path, O_RDONLY);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		err(1, "netns %s", netns);
	close(fd);
	dgram = socket(AF_INET, SOCK_DGRAM, 0);
	if (dgram < 0)
		err(1, "socket");
}

static int ifindex(const char *name)
{
	struct ifreq ifr = {};

	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	return ioctl(dgram, SIOCGIFINDEX, &ifr) ? 0 : ifr.ifr_ifindex;
}

/* For those that hear what must not get lost. */
static void urgent(void)
{
	if (setpriority(PRIO_PROCESS, 0, -10))
		err(1, "setpriority");
}

/* What a dump of a gets, or a listener. */
static void big_buffer(int fd)
{
	int size = 512 << 20;

	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)))
		err(1, "SO_RCVBUFFORCE");
}

/* Netlink */

struct request {
	struct nlmsghdr h;
	char buf[2048];
};

static void *start(struct request *r, int type, int flags, size_t len)
{
	memset(r, 0, sizeof(*r));
	r->h.nlmsg_type = type;
	r->h.nlmsg_flags = NLM_F_REQUEST | flags;
	r->h.nlmsg_len = NLMSG_LENGTH(len);
	return NLMSG_DATA(&r->h);
}

static void attr(struct request *r, int type, const void *data, size_t len)
{
	struct nlattr *a = (void *)((char *)r + NLMSG_ALIGN(r->h.nlmsg_len));

	a->nla_type = type;
	a->nla_len = NLA_HDRLEN + len;
	memcpy((char *)a + NLA_HDRLEN, data, len);
	r->h.nlmsg_len = NLMSG_ALIGN(r->h.nlmsg_len) + NLA_ALIGN(a->nla_len);
}

static const void *find_attr(const struct nlmsghdr *h, size_t skip, int type)
{
	const char *p = (const char *)NLMSG_DATA(h) + NLMSG_ALIGN(skip);
	const char *end = (const char *)h + h->nlmsg_len;

	while (p + NLA_HDRLEN <= end) {
		const struct nlattr *a = (const void *)p;

		if (a->nla_len < NLA_HDRLEN)
			return NULL;
		if ((a->nla_type & NLA_TYPE_MASK) == type)
			return p + NLA_HDRLEN;
		p += NLA_ALIGN(a->nla_len);
	}
	return NULL;
}

static int xfrm_socket(unsigned int groups)
{
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK };
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_XFRM);

	addr.nl_groups = groups;
	if (fd < 0 || bind(fd, (void *)&addr, sizeof(addr)))
		err(1, "NETLINK_XFRM");
	return fd;
}

/* Returns 0, a positive errno, or -1 when the answer got lost. */
static int talk(int fd, struct request *r)
{
	static unsigned int seq;
	char buf[8192];
	ssize_t len;

	r->h.nlmsg_seq = ++seq;
	if (send(fd, r, r->h.nlmsg_len, 0) < 0)
		return errno == ENOBUFS ? ENOMEM : errno;
	for (;;) {
		struct nlmsghdr *h = (void *)buf;

		len = recv(fd, buf, sizeof(buf), 0);
		if (len < 0 && errno == EINTR)
			continue;
		if (len < 0) {
			count(C_NO_ANSWER, 1);
			return -1;
		}
		if (h->nlmsg_seq != r->h.nlmsg_seq)
			continue;
		if (h->nlmsg_type == NLMSG_ERROR)
			return -((struct nlmsgerr *)NLMSG_DATA(h))->error;
		if (!(r->h.nlmsg_flags & NLM_F_ACK))
			return 0;
	}
}

/* Addresses */

static void address(xfrm_address_t *a, int family, const char *text)
{
	memset(a, 0, sizeof(*a));
	if (inet_pton(family, text, a) != 1)
		errx(1, "address %s", text);
}

static void end_address(xfrm_address_t *a, int family, int pair, int side)
{
	char text[64];

	snprintf(text, sizeof(text), family == AF_INET ? "10.9.%d.%d" : "fd09:%d::%d",
		 pair, side);
	address(a, family, text);
}

static socklen_t end_sockaddr(struct sockaddr_storage *ss, int family, int pair,
			      int side, int port)
{
	xfrm_address_t a;

	end_address(&a, family, pair, side);
	memset(ss, 0, sizeof(*ss));
	ss->ss_family = family;
	if (family == AF_INET) {
		struct sockaddr_in *sin = (void *)ss;

		sin->sin_port = htons(port);
		memcpy(&sin->sin_addr, &a, 4);
		return sizeof(*sin);
	} else {
		struct sockaddr_in6 *sin6 = (void *)ss;

		sin6->sin6_port = htons(port);
		memcpy(&sin6->sin6_addr, &a, 16);
		return sizeof(*sin6);
	}
}

/* The ends of an SA; variant 1 is where a migration moves it. */
static void sa_ends(const struct pair *p, bool out, int variant,
		    xfrm_address_t *src, xfrm_address_t *dst)
{
	bool v4 = p->family == AF_INET;
	xfrm_address_t l, r;

	if (p->mode == TUNNEL) {
		address(&l, p->family, v4 ? "10.0.0.1" : "fd00::1");
		if (v4)
			address(&r, p->family, variant ? "10.11.0.3" : "10.11.0.2");
		else
			address(&r, p->family, variant ? "fd0b::3" : "fd0b::2");
	} else {
		end_address(&l, p->family, p->nr, 1);
		end_address(&r, p->family, p->nr, 2);
	}
	*src = out ? l : r;
	*dst = out ? r : l;
}

static void selector(struct xfrm_selector *sel, const struct pair *p, bool out)
{
	end_address(&sel->saddr, p->family, p->nr, out ? 1 : 2);
	end_address(&sel->daddr, p->family, p->nr, out ? 2 : 1);
	sel->family = p->family;
	sel->prefixlen_s = (p->family == AF_INET ? 32 : 128) - 8 * p->prefix;
	sel->prefixlen_d = sel->prefixlen_s;
}

static void no_limits(struct xfrm_lifetime_cfg *lft)
{
	lft->soft_byte_limit = XFRM_INF;
	lft->hard_byte_limit = XFRM_INF;
	lft->soft_packet_limit = XFRM_INF;
	lft->hard_packet_limit = XFRM_INF;
}

static void offload_attr(struct request *r, int offload, bool out, int ifindex)
{
	struct xfrm_user_offload xuo = { .ifindex = ifindex };

	if (!offload)
		return;
	if (!out)
		xuo.flags |= XFRM_OFFLOAD_INBOUND;
	if (offload == 2)
		xuo.flags |= XFRM_OFFLOAD_PACKET;
	attr(r, XFRMA_OFFLOAD_DEV, &xuo, sizeof(xuo));
}

/* States */

static void build_sa(struct request *r, int type, const struct pair *p, bool out,
		     unsigned int id, const char *dev, int variant)
{
	struct {
		struct xfrm_algo_aead head;
		char key[20];
	} alg = { .head.alg_key_len = 160, .head.alg_icv_len = 128 };
	struct xfrm_usersa_info *x;

	x = start(r, type, NLM_F_ACK, sizeof(*x));
	sa_ends(p, out, variant, &x->saddr, &x->id.daddr);
	x->id.spi = htonl(SPI_BASE + id);
	x->id.proto = IPPROTO_ESP;
	x->family = p->family;
	x->reqid = p->nr;
	x->mode = p->mode == TUNNEL ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT;
	no_limits(&x->lft);
	switch (rnd(12)) {
	case 0:
		x->lft.hard_add_expires_seconds = 1 + rnd(2);
		break;
	case 1:
		x->lft.hard_packet_limit = 1 + rnd(200);
		break;
	case 2:
		x->lft.soft_packet_limit = 1 + rnd(200);
		break;
	}
	strcpy(alg.head.alg_name, "rfc4106(gcm(aes))");
	memset(alg.key, 'k', sizeof(alg.key));
	attr(r, XFRMA_ALG_AEAD, &alg, sizeof(alg.head) + sizeof(alg.key));
	offload_attr(r, p->offload, out, dev ? ifindex(dev) : 0);
}

/* Returns the id, or 0. */
static unsigned int make_sa(int fd, const struct pair *p, bool out, const char *dev,
			    int flags)
{
	unsigned int id = next_id(&sh->spis);
	struct request r;
	int error;

	build_sa(&r, XFRM_MSG_NEWSA, p, out, id, dev, 0);
	if (flags & SA_BYSTANDER) {
		struct xfrm_usersa_info *x = NLMSG_DATA(&r.h);

		memset(&x->lft, 0, sizeof(x->lft));
		no_limits(&x->lft);
	}
	sh->sa_flush[id] = sh->flushes;
	error = talk(fd, &r);
	if (error > 0) {
		count(C_SA_FAILED, 1);
		return 0;
	}
	sh->sa[id] = (error ? SA_UNSURE : SA_MADE) | flags;
	count(C_SA_MADE, 1);
	return id;
}

static unsigned int alloc_spi(int fd, const struct pair *p, bool out, int flags)
{
	unsigned int id = next_id(&sh->spis);
	struct xfrm_userspi_info *x;
	struct request r;
	int error;

	x = start(&r, XFRM_MSG_ALLOCSPI, 0, sizeof(*x));
	sa_ends(p, out, 0, &x->info.saddr, &x->info.id.daddr);
	x->info.id.proto = IPPROTO_ESP;
	x->info.family = p->family;
	x->info.reqid = p->nr;
	x->info.mode = p->mode == TUNNEL ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT;
	x->min = SPI_BASE + id;
	x->max = SPI_BASE + id;
	sh->sa_flush[id] = sh->flushes;
	error = talk(fd, &r);
	/* Without memory for the answer the state stays all the same. */
	if (error == ENOMEM)
		sh->sa[id] = SA_UNSURE | flags;
	if (error > 0)
		return 0;
	sh->sa[id] = (error ? SA_UNSURE : SA_MADE) | flags;
	count(C_SPI_ALLOCATED, 1);
	return id;
}

static int delete_sa(int fd, const struct pair *p, bool out, unsigned int id)
{
	struct xfrm_usersa_id *x;
	xfrm_address_t src;
	struct request r;

	x = start(&r, XFRM_MSG_DELSA, NLM_F_ACK, sizeof(*x));
	sa_ends(p, out, 0, &src, &x->daddr);
	x->spi = htonl(SPI_BASE + id);
	x->family = p->family;
	x->proto = IPPROTO_ESP;
	return talk(fd, &r);
}

static void ready(void)
{
	while (!sh->go)
		pause_us(10000);
}

/* Each adder knows the SAs that it has made, nobody else deletes them. */
static void adder(const char *netns, const char *dev, int flags, bool migrated)
{
	struct { unsigned int id; const struct pair *p; bool out; } own[48];
	struct request r;
	unsigned int n = 0, i;
	int fd;

	enter(netns);
	fd = xfrm_socket(0);
	ready();
	while (!sh->stop) {
		const struct pair *p;
		unsigned int id = 0;
		bool out = rnd(3);

		do {
			p = migrated ? MIGRATED : &pairs[rnd(ARRAY_SIZE(pairs))];
		} while (p->nr >= ACQUIRES || p->mode == BLOCK ||
			 (!migrated && p == MIGRATED));

		switch (rnd(10)) {
		case 0 ... 4:
			id = make_sa(fd, p, out, dev, flags);
			break;
		case 5:
			id = alloc_spi(fd, p, out, flags);
			break;
		case 6:
			if (!n)
				break;
			i = rnd(n);
			build_sa(&r, XFRM_MSG_UPDSA, own[i].p, own[i].out,
				 own[i].id, dev, 0);
			if (!talk(fd, &r))
				count(C_SA_UPDATED, 1);
			break;
		default:
			if (!n)
				break;
			i = rnd(n);
			if (!delete_sa(fd, own[i].p, own[i].out, own[i].id))
				count(C_SA_DELETED, 1);
			own[i] = own[--n];
		}
		if (id && n == ARRAY_SIZE(own)) {
			i = rnd(n);
			if (!delete_sa(fd, own[i].p, own[i].out, own[i].id))
				count(C_SA_DELETED, 1);
			own[i] = own[--n];
		}
		if (id) {
			own[n].id = id;
			own[n].p = p;
			own[n++].out = out;
		}
		if (!rnd(20))
			pause_us(rnd(20000));
	}
}

static void migrator(void)
{
	struct xfrm_user_migrate m[2] = {};
	struct xfrm_userpolicy_id *pi;
	struct request r;
	int variant = 0;
	int fd;

	enter("a");
	fd = xfrm_socket(0);
	ready();
	while (!sh->stop) {
		pi = start(&r, XFRM_MSG_MIGRATE, NLM_F_ACK, sizeof(*pi));
		selector(&pi->sel, MIGRATED, true);
		pi->dir = XFRM_POLICY_OUT;
		memset(m, 0, sizeof(m));
		sa_ends(MIGRATED, true, variant, &m[0].old_saddr, &m[0].old_daddr);
		sa_ends(MIGRATED, true, !variant, &m[0].new_saddr, &m[0].new_daddr);
		m[0].proto = IPPROTO_ESP;
		m[0].mode = XFRM_MODE_TUNNEL;
		m[0].reqid = MIGRATED->nr;
		m[0].old_family = AF_INET;
		m[0].new_family = AF_INET;
		attr(&r, XFRMA_MIGRATE, m, sizeof(m[0]));
		if (rnd(2))
			offload_attr(&r, 1, true, ifindex("n0"));
		if (!talk(fd, &r))
			count(C_MIGRATED, 1);
		/* The policy is put in anew with the first variant. */
		if (rnd(2))
			variant = !variant;
		pause_us(rnd(10000));
	}
}

/* Policies */

static int policy(int fd, int type, const struct pair *p, int dir, const char *dev,
		  unsigned int id, int priority)
{
	bool out = dir == XFRM_POLICY_OUT;
	struct xfrm_userpolicy_info *x;
	struct xfrm_user_tmpl tmpl = {};
	struct request r;

	if (type == XFRM_MSG_DELPOLICY) {
		struct xfrm_userpolicy_id *pi;

		pi = start(&r, type, NLM_F_ACK, sizeof(*pi));
		selector(&pi->sel, p, out);
		pi->dir = dir;
		return talk(fd, &r);
	}
	x = start(&r, type, NLM_F_ACK, sizeof(*x));
	selector(&x->sel, p, out);
	x->dir = dir;
	x->priority = priority;
	x->action = p->mode == BLOCK ? XFRM_POLICY_BLOCK : XFRM_POLICY_ALLOW;
	no_limits(&x->lft);
	x->lft.soft_byte_limit = POL_BASE + id;
	if (p->lifetime && !rnd(4))
		x->lft.hard_add_expires_seconds = 1 + rnd(3);
	if (p->mode != NONE && p->mode != BLOCK) {
		sa_ends(p, out, 0, &tmpl.saddr, &tmpl.id.daddr);
		tmpl.id.proto = IPPROTO_ESP;
		tmpl.family = p->family;
		tmpl.reqid = p->nr;
		tmpl.mode = p->mode == TUNNEL ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT;
		tmpl.aalgos = tmpl.ealgos = tmpl.calgos = ~0u;
		attr(&r, XFRMA_TMPL, &tmpl, sizeof(tmpl));
	}
	if (p->offload == 2)
		offload_attr(&r, 2, true, ifindex(dev));
	return talk(fd, &r);
}

/* One selector, with one process to look after it. When a policy can be put in
 * with XFRM_MSG_NEWPOLICY there is none, or it has lost its device.
 */
static int policy_new(int fd, const struct pair *p, int dir, const char *dev,
		      unsigned int *cur)
{
	unsigned int id = next_id(&sh->policies);
	int error = policy(fd, XFRM_MSG_NEWPOLICY, p, dir, dev, id, 0);

	if (error == EEXIST)
		return error;
	if (error) {
		sh->pol[id] |= error < 0 ? POL_UNSURE : 0;
		count(C_POL_FAILED, 1);
		return error;
	}
	count(C_POL_MADE, 1);
	sh->pol[id] |= POL_MADE | (p->offload == 2 ? 0 : POL_SOFT);
	*cur = id;
	return 0;
}

static int policy_update(int fd, const struct pair *p, int dir, const char *dev,
			 unsigned int *cur)
{
	unsigned int id = next_id(&sh->policies);
	int error = policy(fd, XFRM_MSG_UPDPOLICY, p, dir, dev, id, rnd(3));

	if (error) {
		sh->pol[id] |= error < 0 ? POL_UNSURE : 0;
		count(C_POL_FAILED, 1);
		return error;
	}
	count(C_POL_REPLACED, 1);
	sh->pol[id] |= POL_MADE | (p->offload == 2 ? 0 : POL_SOFT);
	*cur = id;
	return 0;
}

/* Still there, what it was, and in software? */
static bool kept(int fd, const struct pair *p, int dir)
{
	int action = p->mode == BLOCK ? XFRM_POLICY_BLOCK : XFRM_POLICY_ALLOW;
	const struct xfrm_userpolicy_info *info;
	struct nlmsghdr *h;
	struct xfrm_userpolicy_id *pi;
	struct request r;
	char buf[8192];

	pi = start(&r, XFRM_MSG_GETPOLICY, 0, sizeof(*pi));
	selector(&pi->sel, p, dir == XFRM_POLICY_OUT);
	pi->dir = dir;
	if (send(fd, &r, r.h.nlmsg_len, 0) < 0 || recv(fd, buf, sizeof(buf), 0) < 0)
		err(1, "XFRM_MSG_GETPOLICY");
	h = (struct nlmsghdr *)buf;
	info = NLMSG_DATA(h);
	return h->nlmsg_type == XFRM_MSG_NEWPOLICY && info->action == action &&
	       !find_attr(h, sizeof(*info), XFRMA_OFFLOAD_DEV);
}

/* The policies of the pairs are there all the time: never deleted, only put in
 * again or replaced. So are none of their packets ever to be seen in clear.
 */
static void guard(int part, int parts, int ready_fd)
{
	unsigned int cur[ARRAY_SIZE(pairs)][XFRM_POLICY_MAX] = {};
	unsigned int i;
	int fd, dir, error;

	enter("a");
	fd = xfrm_socket(0);
	for (i = part; i < ARRAY_SIZE(pairs); i += parts) {
		for (dir = 0; dir < XFRM_POLICY_MAX; dir++) {
			if (dir != XFRM_POLICY_OUT && pairs[i].nr & 1)
				continue;
			error = policy_new(fd, &pairs[i], dir, "n0", &cur[i][dir]);
			if (error)
				errx(1, "cannot add the policy of pair %d, direction %d: %s",
				     pairs[i].nr, dir, strerror(error));
		}
	}
	if (write(ready_fd, "", 1) != 1)
		err(1, "ready");
	ready();
	while (!sh->stop) {
		i = part + parts * rnd(ARRAY_SIZE(pairs) / parts + 1);
		if (i >= ARRAY_SIZE(pairs) || !pairs[i].offload)
			continue;
		dir = rnd(XFRM_POLICY_MAX);
		if (!cur[i][dir])
			continue;
		/* Crypto offload leaves the policy in software. */
		if (rnd(4))
			policy_new(fd, &pairs[i], dir, "n0", &cur[i][dir]);
		else
			policy_update(fd, &pairs[i], dir, "n0", &cur[i][dir]);
		pause_us(rnd(4) ? rnd(3000) : rnd(100000));
	}
	/* What is there now will have lost its device, too, when that has gone. */
	while (!sh->end)
		pause_us(10000);
	close(fd);
	fd = xfrm_socket(0);
	for (i = part; i < ARRAY_SIZE(pairs); i += parts) {
		for (dir = 0; dir < XFRM_POLICY_MAX; dir++) {
			if (!cur[i][dir] || pairs[i].offload != 2)
				continue;
			sh->pol[cur[i][dir]] |= POL_GONE;
			count(C_GUARDS, 1);
			if (!kept(fd, &pairs[i], dir))
				count(C_GUARDS_LOST, 1);
		}
	}
}

/* Policies that come and go, bypasses among them. */
static void policies(const char *netns, const char *dev, int base, int flags)
{
	struct pair own[6] = {};
	unsigned int cur[ARRAY_SIZE(own)] = {};
	unsigned int i, id;
	int fd, error;

	for (i = 0; i < ARRAY_SIZE(own); i++) {
		own[i].nr = base + i;
		own[i].family = i & 1 ? AF_INET6 : AF_INET;
		own[i].mode = i % 3 == 0 ? NONE : i % 3 == 1 ? TRANSPORT : BLOCK;
		own[i].offload = 2;
		own[i].prefix = i >= 3;
		own[i].lifetime = true;
	}
	enter(netns);
	fd = xfrm_socket(0);
	ready();
	while (!sh->stop) {
		i = rnd(ARRAY_SIZE(own));
		id = cur[i];
		switch (rnd(4)) {
		case 0:
			if (!id)
				break;
			error = policy(fd, XFRM_MSG_DELPOLICY, &own[i],
				       XFRM_POLICY_OUT, dev, 0, 0);
			if (!error)
				count(C_POL_DELETED, 1);
			else if (error == ENOENT)
				sh->pol[id] |= POL_GONE;
			if (!error || error == ENOENT)
				cur[i] = 0;
			break;
		case 1:
			policy_update(fd, &own[i], XFRM_POLICY_OUT, dev, &cur[i]);
			break;
		default:
			policy_new(fd, &own[i], XFRM_POLICY_OUT, dev, &cur[i]);
		}
		if (cur[i] != id && cur[i])
			sh->pol[cur[i]] |= flags;
		pause_us(rnd(10000));
	}
	while (!sh->end)
		pause_us(10000);
	for (i = 0; i < ARRAY_SIZE(own); i++)
		if (cur[i])
			sh->pol[cur[i]] |= POL_GONE;
}

/* Inbound and forwarded: once a policy has lost its device, plain packets that it
 * matches are not accepted any more, until it is put in again. b sends them by
 * the device that stays.
 */
static void inbound(int nr, int dir)
{
	const struct pair p = {
		.nr = nr, .family = nr & 1 ? AF_INET6 : AF_INET,
		.mode = TRANSPORT, .offload = 2,
	};
	int fd, xfrm, pid, to[2], from[2], i;
	const char *rx = dir == XFRM_POLICY_IN ? "a" : "c";
	struct sockaddr_storage ss;
	unsigned int cur = 0, id;
	bool tested = false;
	char c, buf[64];
	socklen_t len;

	if (pipe(to) || pipe(from))
		err(1, "pipe");
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (!pid) {
		/* The peer's side: send, then let the canary follow. */
		enter("b");
		close(to[1]);
		while (read(to[0], &c, 1) == 1) {
			for (i = 0; i < 11; i++) {
				int pair = i < 10 ? nr : CANARY;

				fd = socket(p.family, SOCK_DGRAM, 0);
				len = end_sockaddr(&ss, p.family, pair, 2, 0);
				if (fd < 0 || bind(fd, (void *)&ss, len) ||
				    setsockopt(fd, SOL_SOCKET, SO_BINDTODEVICE, "v1", 3))
					err(1, "peer %d", pair);
				len = end_sockaddr(&ss, p.family, nr, 1, PORT + nr);
				snprintf(buf, sizeof(buf), "%s", i < 10 ? "plain" : "canary");
				if (sendto(fd, buf, strlen(buf), 0, (void *)&ss, len) < 0)
					count(C_SEND_ERRORS, 1);
				close(fd);
			}
			if (write(from[1], &c, 1) != 1)
				break;
		}
		_exit(0);
	}
	close(to[0]);
	close(from[1]);
	enter(rx);
	fd = socket(p.family, SOCK_DGRAM, 0);
	len = end_sockaddr(&ss, p.family, nr, 1, PORT + nr);
	if (fd < 0 || bind(fd, (void *)&ss, len))
		err(1, "bind pair %d in %s", nr, rx);
	big_buffer(fd);
	enter("a");
	xfrm = xfrm_socket(0);
	ready();
	while (!sh->stop) {
		struct pollfd pfd = { fd, POLLIN, 0 };
		bool canary = false;

		/* Put in again only after the test, or now and then, in case
		 * that it has gone without a word.
		 */
		if (tested || !cur || !rnd(500)) {
			id = cur;
			/* No answer: it may be in, and then the device answers
			 * for what is accepted.
			 */
			if (policy_new(xfrm, &p, dir, "n0", &cur) < 0)
				cur = 0;
			tested = tested && cur == id && rnd(4);
			pause_us(1000);
		}
		if (!cur || !sh->pol_told[cur] || tested) {
			pause_us(1000);
			continue;
		}
		tested = true;
		while (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) >= 0)
			;
		if (write(to[1], "x", 1) != 1 || read(from[0], &c, 1) != 1)
			errx(1, "the peer of pair %d has died", nr);
		count(C_PLAIN_SENT, 10);
		while (!canary && poll(&pfd, 1, 200) > 0) {
			ssize_t n = recv(fd, buf, sizeof(buf) - 1, MSG_DONTWAIT);

			buf[n > 0 ? n : 0] = 0;
			if (!strcmp(buf, "canary")) {
				count(C_PLAIN_CANARY, 1);
				canary = true;
			} else if (n > 0) {
				count(C_PLAIN_ACCEPTED, 1);
			}
		}
	}
	close(to[1]);
	waitpid(pid, NULL, 0);
	while (!sh->end)
		pause_us(10000);
	if (cur)
		sh->pol[cur] |= POL_GONE;
}

static void flusher(void)
{
	int fd, pf;

	enter("d");
	fd = xfrm_socket(0);
	pf = socket(PF_KEY, SOCK_RAW, PF_KEY_V2);
	if (pf < 0)
		err(1, "PF_KEY");
	ready();
	while (!sh->stop) {
		struct sadb_msg msg = {
			.sadb_msg_version = PF_KEY_V2,
			.sadb_msg_len = sizeof(msg) / 8,
			.sadb_msg_pid = getpid(),
		};
		struct xfrm_usersa_flush *f;
		struct request r;
		char buf[8192];

		switch (rnd(4)) {
		case 0:
			f = start(&r, XFRM_MSG_FLUSHSA, NLM_F_ACK, sizeof(*f));
			f->proto = 0;
			talk(fd, &r);
			break;
		case 1:
			start(&r, XFRM_MSG_FLUSHPOLICY, NLM_F_ACK, 0);
			talk(fd, &r);
			break;
		default:
			msg.sadb_msg_type = rnd(2) ? SADB_FLUSH : SADB_X_SPDFLUSH;
			if (send(pf, &msg, sizeof(msg), 0) < 0)
				count(C_SEND_ERRORS, 1);
			while (recv(pf, buf, sizeof(buf), MSG_DONTWAIT) > 0)
				;
		}
		__atomic_add_fetch(&sh->flushes, 1, __ATOMIC_SEQ_CST);
		count(C_FLUSHES, 1);
		pause_us(rnd(300000));
	}
}

static void dumper(const char *netns)
{
	static char buf[65536];
	struct nlmsghdr *h = (void *)buf;
	struct request r;
	ssize_t len;
	int fd;

	enter(netns);
	ready();
	while (!sh->stop) {
		switch (rnd(6)) {
		case 0 ... 1:
			start(&r, rnd(2) ? XFRM_MSG_GETSA : XFRM_MSG_GETPOLICY,
			      NLM_F_DUMP, 0);
			fd = xfrm_socket(0);
			if (send(fd, &r, r.h.nlmsg_len, 0) < 0)
				count(C_SEND_ERRORS, 1);
			/* Now and then a dump is left half done. */
			while (rnd(8) && (len = recv(fd, buf, sizeof(buf), 0)) > 0)
				if (h->nlmsg_type == NLMSG_DONE ||
				    h->nlmsg_type == NLMSG_ERROR)
					break;
			close(fd);
			break;
		case 2: {
			struct sadb_msg msg = {
				.sadb_msg_version = PF_KEY_V2,
				.sadb_msg_len = sizeof(msg) / 8,
				.sadb_msg_pid = getpid(),
				.sadb_msg_type = rnd(2) ? SADB_DUMP : SADB_X_SPDDUMP,
			};
			struct pollfd pfd;

			fd = socket(PF_KEY, SOCK_RAW, PF_KEY_V2);
			if (fd < 0)
				err(1, "PF_KEY");
			pfd.fd = fd;
			pfd.events = POLLIN;
			if (send(fd, &msg, sizeof(msg), 0) < 0)
				count(C_SEND_ERRORS, 1);
			while (rnd(50) && poll(&pfd, 1, 5) > 0)
				if (recv(fd, buf, sizeof(buf), MSG_DONTWAIT) < 0)
					break;
			close(fd);
			break;
		}
		case 3:
			/* The file is of the netns of the task. */
			fd = open("/proc/thread-self/net/xfrm_stat", O_RDONLY);
			if (fd < 0)
				err(1, "xfrm_stat");
			while (read(fd, buf, sizeof(buf)) > 0)
				;
			close(fd);
			break;
		case 4: {
			/* Not a dump: which policies are in the hash tables? */
			struct xfrmu_spdhthresh t = { 24 + rnd(9), 24 + rnd(9) };

			*(__u32 *)start(&r, XFRM_MSG_NEWSPDINFO, NLM_F_ACK, 4) = 0;
			attr(&r, XFRMA_SPD_IPV4_HTHRESH, &t, sizeof(t));
			fd = xfrm_socket(0);
			if (!rnd(4) && talk(fd, &r))
				count(C_SEND_ERRORS, 1);
			close(fd);
			break;
		}
		default:
			fd = open("/sys/kernel/debug/netdevsim/netdevsim1/ports/0/ipsec",
				  O_RDONLY);
			if (fd < 0)
				break;
			while (read(fd, buf, sizeof(buf)) > 0)
				;
			close(fd);
		}
		count(C_DUMPS, 1);
		pause_us(rnd(20000));
	}
}

/* Packets */

static int flow_socket(const struct pair *p, bool connected)
{
	struct sockaddr_storage ss;
	socklen_t len;
	int fd;

	fd = socket(p->family, SOCK_DGRAM | SOCK_NONBLOCK, 0);
	len = end_sockaddr(&ss, p->family, p->nr, 1, 0);
	if (fd < 0 || bind(fd, (void *)&ss, len))
		err(1, "bind pair %d", p->nr);
	len = end_sockaddr(&ss, p->family, p->nr, 2, PORT);
	if (connected && connect(fd, (void *)&ss, len))
		count(C_SEND_ERRORS, 1);
	return fd;
}

static const struct pair *flow_pair(const char *netns)
{
	const struct pair *p;

	do {
		p = &pairs[rnd(ARRAY_SIZE(pairs))];
	} while (strcmp(p->from, netns));
	return p;
}

static void flood(const char *netns)
{
	static char data[9000];
	struct { int fd; const struct pair *p; bool connected; } s[24];
	const struct pair canary = { CANARY, AF_INET, NONE, 0, "a" };
	unsigned int i, n = 0;

	enter(netns);
	for (i = 0; i < ARRAY_SIZE(s); i++) {
		s[i].p = flow_pair(netns);
		s[i].connected = rnd(2);
		s[i].fd = flow_socket(s[i].p, s[i].connected);
	}
	ready();
	while (!sh->stop) {
		struct sockaddr_storage ss;
		int gso = 0, more = 0, raw;
		unsigned int size;
		socklen_t len;
		ssize_t ret;

		i = rnd(ARRAY_SIZE(s));
		len = end_sockaddr(&ss, s[i].p->family, s[i].p->nr, 2, PORT);
		size = 1 + rnd(1200);
		switch (rnd(40)) {
		case 0:
			size = 1500 + rnd(7000);	/* fragments */
			break;
		case 1:
			gso = 500;
			size = 1000 + rnd(4000);
			break;
		case 2:
			more = MSG_MORE;
			break;
		case 3:
			close(s[i].fd);
			s[i].p = flow_pair(netns);
			s[i].connected = rnd(2);
			s[i].fd = flow_socket(s[i].p, s[i].connected);
			continue;
		case 4: {
			struct sockaddr_storage src;
			static const char echo[16] = { 8, 0, (char)0xf7, (char)0xff };

			if (s[i].p->family != AF_INET)
				continue;
			raw = socket(AF_INET, SOCK_RAW, IPPROTO_ICMP);
			len = end_sockaddr(&src, AF_INET, s[i].p->nr, 1, 0);
			if (raw < 0 || bind(raw, (void *)&src, len))
				err(1, "raw socket");
			ret = sendto(raw, echo, sizeof(echo), MSG_DONTWAIT,
				     (void *)&ss, len);
			count(ret < 0 ? C_SEND_ERRORS : C_SENT, 1);
			close(raw);
			continue;
		}
		case 5:
			raw = socket(s[i].p->family, SOCK_STREAM | SOCK_NONBLOCK, 0);
			if (raw < 0)
				err(1, "socket");
			len = end_sockaddr(&ss, s[i].p->family, s[i].p->nr, 1, 0);
			if (bind(raw, (void *)&ss, len))
				err(1, "bind");
			len = end_sockaddr(&ss, s[i].p->family, s[i].p->nr, 2, PORT);
			if (connect(raw, (void *)&ss, len) && errno != EINPROGRESS)
				count(C_SEND_ERRORS, 1);
			close(raw);
			continue;
		}
		setsockopt(s[i].fd, IPPROTO_UDP, UDP_SEGMENT, &gso, sizeof(gso));
		if (s[i].connected)
			ret = send(s[i].fd, data, size, more);
		else
			ret = sendto(s[i].fd, data, size, more, (void *)&ss, len);
		if (more) {
			pause_us(rnd(5000));
			send(s[i].fd, data, size, 0);
		}
		count(ret < 0 ? C_SEND_ERRORS : C_SENT, 1);
		if (!(++n % 512) && !strcmp(netns, "a")) {
			raw = flow_socket(&canary, true);
			send(raw, data, 1, 0);
			close(raw);
		}
		/* The others are to get a turn. */
		if (!(n % 16))
			pause_us(rnd(5000));
	}
}

/* Sockets that sent once and then do nothing, but hold the route. */
static void idler(void)
{
	int fds[64], i;

	enter("a");
	for (i = 0; i < (int)ARRAY_SIZE(fds); i++)
		fds[i] = -1;
	ready();
	while (!sh->stop) {
		i = rnd(ARRAY_SIZE(fds));
		if (fds[i] >= 0)
			close(fds[i]);
		fds[i] = flow_socket(flow_pair("a"), true);
		if (send(fds[i], "idle", 4, 0) == 4)
			count(C_HELD, 1);
		pause_us(rnd(30000));
	}
	/* The device has to go all the same. */
	while (!sh->end)
		pause_us(10000);
}

/* Anything of the pairs that is not ESP, on any device of b. */
static void capture(int ready_fd)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PKTTYPE),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PACKET_OUTGOING, 12, 0),
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS, SKF_AD_OFF + SKF_AD_PROTOCOL),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IP, 0, 4),
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 12),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0x0a09, 0, 8),
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 9),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_ESP, 6, 5),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, ETH_P_IPV6, 0, 5),
		BPF_STMT(BPF_LD | BPF_H | BPF_ABS, 8),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0xfd09, 0, 3),
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, 6),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, IPPROTO_ESP, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, 128),
		BPF_STMT(BPF_RET | BPF_K, 0),
	};
	struct sock_fprog prog = { ARRAY_SIZE(code), code };
	struct tpacket_stats stats;
	socklen_t slen = sizeof(stats);
	struct sockaddr_ll from;
	struct pollfd pfd;
	int fd, shown = 0;
	ssize_t len;

	urgent();
	enter("b");
	fd = socket(AF_PACKET, SOCK_DGRAM, 0);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &prog, sizeof(prog)))
		err(1, "capture");
	big_buffer(fd);
	from = (struct sockaddr_ll){ .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	if (bind(fd, (void *)&from, sizeof(from)))
		err(1, "bind capture");
	if (write(ready_fd, "", 1) != 1)
		err(1, "ready");
	pfd.fd = fd;
	pfd.events = POLLIN;
	while (!sh->end || poll(&pfd, 1, 0) > 0) {
		unsigned char b[128];
		bool v4;
		int pair;

		if (poll(&pfd, 1, 100) <= 0)
			continue;
		slen = sizeof(from);
		len = recvfrom(fd, b, sizeof(b), MSG_DONTWAIT, (void *)&from, &slen);
		/* The loopback device is the peer's own. */
		if (len < 28 || from.sll_hatype == ARPHRD_LOOPBACK)
			continue;
		v4 = b[0] >> 4 == 4;
		pair = v4 ? b[14] : (b[10] >> 4) * 1000 + (b[10] & 15) * 100 +
				    (b[11] >> 4) * 10 + (b[11] & 15);
		if (pair == CANARY) {
			count(C_CANARY, 1);
			continue;
		}
		count(C_CLEAR, 1);
		if (shown++ < 8)
			printf("# clear: pair %d, IPv%d, protocol %d, device %d\n", pair,
			       v4 ? 4 : 6, v4 ? b[9] : b[6], from.sll_ifindex);
	}
	slen = sizeof(stats);
	if (!getsockopt(fd, SOL_PACKET, PACKET_STATISTICS, &stats, &slen) && stats.tp_drops)
		count(C_OVERRUNS, stats.tp_drops);
}

/* Listeners */

static void bump(unsigned char *c)
{
	if (*c < 255)
		(*c)++;
}

static void heard_sa(unsigned int spi, unsigned char *table)
{
	if (spi - SPI_BASE < OBJECTS)
		bump(&table[spi - SPI_BASE]);
	else if (spi - SPI_BASE >= OBJECTS && spi)
		count(C_UNKNOWN, 1);
}

static void heard(const struct nlmsghdr *h, int which)
{
	const struct xfrm_user_polexpire *pe = NLMSG_DATA(h);
	const struct xfrm_userpolicy_info *info = NLMSG_DATA(h);
	const struct xfrm_user_acquire *acq = NLMSG_DATA(h);
	const struct xfrm_user_expire *e = NLMSG_DATA(h);
	const struct xfrm_usersa_id *id = NLMSG_DATA(h);
	const struct xfrm_user_tmpl *tmpl;
	unsigned long long pol;

	switch (h->nlmsg_type) {
	case XFRM_MSG_EXPIRE:
		if (!e->hard)
			break;
		count(C_EXPIRES, 1);
		if (e->state.reqid == ACQUIRES)
			count(C_ACQ_EXPIRED, 1);
		if (ntohl(e->state.id.spi) == 0x100u + which)
			sh->sentinel_heard[which] = 1;
		else
			heard_sa(ntohl(e->state.id.spi), sh->sa_expired);
		break;
	case XFRM_MSG_DELSA:
		heard_sa(ntohl(id->spi), sh->sa_deleted);
		break;
	case XFRM_MSG_POLEXPIRE:
		pol = pe->pol.lft.soft_byte_limit - POL_BASE;
		if (pe->hard && pol < OBJECTS)
			bump(&sh->pol_expired[pol]);
		break;
	case XFRM_MSG_UPDPOLICY:
		/* The kernel's own: the device is missing. */
		pol = info->lft.soft_byte_limit - POL_BASE;
		if (find_attr(h, sizeof(*info), XFRMA_OFFLOAD_DEV) || pol >= OBJECTS ||
		    sh->pol[pol] & POL_SOFT)
			break;
		count(C_POL_TOLD, 1);
		bump(&sh->pol_told[pol]);
		break;
	case XFRM_MSG_DELPOLICY:
		info = find_attr(h, sizeof(struct xfrm_userpolicy_id), XFRMA_POLICY);
		pol = info ? info->lft.soft_byte_limit - POL_BASE : OBJECTS;
		if (pol < OBJECTS)
			bump(&sh->pol_told[pol]);
		break;
	case XFRM_MSG_ACQUIRE:
		tmpl = find_attr(h, sizeof(*acq), XFRMA_TMPL);
		if (tmpl && tmpl->reqid == ACQUIRES)
			count(C_ACQUIRED, 1);
		break;
	}
}

static void heard_pfkey(const char *buf, ssize_t len)
{
	const struct sadb_msg *msg = (const void *)buf;
	const struct sadb_ext *ext;
	unsigned int spi = 0;
	bool hard = false;
	ssize_t pos;

	if (len < (ssize_t)sizeof(*msg) || msg->sadb_msg_type != SADB_EXPIRE)
		return;
	for (pos = sizeof(*msg); pos + (ssize_t)sizeof(*ext) <= len;
	     pos += ext->sadb_ext_len * 8) {
		ext = (const void *)(buf + pos);
		if (!ext->sadb_ext_len)
			break;
		if (ext->sadb_ext_type == SADB_EXT_SA)
			spi = ntohl(((const struct sadb_sa *)ext)->sadb_sa_spi);
		else if (ext->sadb_ext_type == SADB_EXT_LIFETIME_HARD)
			hard = true;
	}
	if (hard && spi >= SPI_BASE) {
		count(C_PFKEY, 1);
		heard_sa(spi, sh->sa_pfkey);
	}
}

static void listener(const char *netns, int which, int ready_fd)
{
	static char buf[65536];
	struct sadb_msg reg = {
		.sadb_msg_version = PF_KEY_V2,
		.sadb_msg_type = SADB_REGISTER,
		.sadb_msg_satype = SADB_SATYPE_ESP,
		.sadb_msg_len = sizeof(reg) / 8,
		.sadb_msg_pid = getpid(),
	};
	struct pollfd pfd[2];
	unsigned int len;
	ssize_t ret;
	int i;

	urgent();
	enter(netns);
	pfd[0].fd = xfrm_socket(1 << (XFRMNLGRP_EXPIRE - 1) | 1 << (XFRMNLGRP_SA - 1) |
				1 << (XFRMNLGRP_ACQUIRE - 1) | 1 << (XFRMNLGRP_POLICY - 1));
	pfd[1].fd = socket(PF_KEY, SOCK_RAW, PF_KEY_V2);
	if (pfd[1].fd < 0 || send(pfd[1].fd, &reg, sizeof(reg), 0) < 0)
		err(1, "PF_KEY");
	big_buffer(pfd[0].fd);
	big_buffer(pfd[1].fd);
	pfd[0].events = POLLIN;
	pfd[1].events = POLLIN;
	if (write(ready_fd, "", 1) != 1)
		err(1, "ready");
	do {
		poll(pfd, 2, 50);
		for (i = 0; i < 2; i++) {
			while ((ret = recv(pfd[i].fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
				const struct nlmsghdr *h = (const void *)buf;

				if (i) {
					heard_pfkey(buf, ret);
					continue;
				}
				len = ret;
				for (; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len))
					heard(h, which);
			}
			if (ret < 0 && errno == ENOBUFS)
				count(C_OVERRUNS, 1);
		}
	} while (!sh->end);
}

/* The end */

static void take_stock(const char *netns)
{
	static char buf[65536];
	bool done = false;
	struct request r;
	int fd;

	enter(netns);
	fd = xfrm_socket(0);
	big_buffer(fd);
	start(&r, XFRM_MSG_GETSA, NLM_F_DUMP, 0);
	if (send(fd, &r, r.h.nlmsg_len, 0) < 0)
		err(1, "dump");
	while (!done) {
		ssize_t ret = recv(fd, buf, sizeof(buf), 0);
		const struct nlmsghdr *h = (const void *)buf;
		unsigned int len = ret;

		if (ret < 0)
			err(1, "dump");
		for (; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len)) {
			const struct xfrm_usersa_info *x = NLMSG_DATA(h);

			if (h->nlmsg_type == NLMSG_DONE)
				done = true;
			else if (h->nlmsg_type == XFRM_MSG_NEWSA)
				heard_sa(ntohl(x->id.spi), sh->sa_alive);
		}
	}
	close(fd);
}

/* When this SA's expiry has been heard, so has all that was sent before. */
static void sentinel(const char *netns, int which)
{
	struct pair p = { 200, AF_INET, TRANSPORT, 0, "a" };
	struct xfrm_usersa_info *x;
	struct request r;
	int fd, i;

	enter(netns);
	fd = xfrm_socket(0);
	sh->sentinel_heard[which] = 0;
	build_sa(&r, XFRM_MSG_NEWSA, &p, true, 0, NULL, 0);
	x = NLMSG_DATA(&r.h);
	x->id.spi = htonl(0x100 + which);
	no_limits(&x->lft);
	x->lft.hard_add_expires_seconds = 5;
	if (talk(fd, &r))
		errx(1, "cannot add the sentinel in %s", netns);
	for (i = 0; i < 6000 && !sh->sentinel_heard[which]; i++)
		pause_us(10000);
	close(fd);
	if (!sh->sentinel_heard[which])
		errx(1, "the sentinel of %s is not heard", netns);
}

static const char *const names[COUNTERS] = {
	[C_SA_MADE] = "states-added",
	[C_SA_FAILED] = "states-refused",
	[C_SA_DELETED] = "states-deleted",
	[C_SA_UPDATED] = "states-updated",
	[C_SPI_ALLOCATED] = "spis-allocated",
	[C_POL_MADE] = "policies-added",
	[C_POL_REPLACED] = "policies-replaced",
	[C_POL_FAILED] = "policies-refused",
	[C_POL_DELETED] = "policies-deleted",
	[C_MIGRATED] = "migrations",
	[C_DUMPS] = "dumps",
	[C_FLUSHES] = "flushes",
	[C_SENT] = "packets",
	[C_SEND_ERRORS] = "packets-refused",
	[C_HELD] = "idle-sockets",
	[C_CLEAR] = "cleartext",
	[C_CANARY] = "canaries-out",
	[C_PLAIN_SENT] = "plain-sent",
	[C_PLAIN_ACCEPTED] = "plain-accepted",
	[C_PLAIN_CANARY] = "canaries-in",
	[C_EXPIRES] = "state-expiries",
	[C_POL_TOLD] = "policies-told",
	[C_PFKEY] = "pfkey-expiries",
	[C_ACQUIRED] = "acquires",
	[C_ACQ_EXPIRED] = "acquires-expired",
	[C_OVERRUNS] = "overruns",
	[C_UNKNOWN] = "unknown-objects",
	[C_NO_ANSWER] = "answers-lost",
	[C_GUARDS] = "guards",
	[C_GUARDS_LOST] = "guards-lost",
};

static void complain(unsigned long *n, const char *what, unsigned int i, int flags,
		     int expired, int deleted, int alive)
{
	if ((*n)++ < 5)
		printf("# %s: object %u flags %d expired %d deleted %d alive %d\n", what, i,
		       flags, expired, deleted, alive);
}

static void accounts(void)
{
	unsigned long lost = 0, twice = 0, pol_lost = 0, pol_twice = 0, ghosts = 0;
	unsigned long pfkey = 0, left = 0, pol_gone = 0, away = 0, c;
	unsigned int i;

	for (i = 1; i <= sh->spis; i++) {
		int f = sh->sa[i], e = sh->sa_expired[i], d = sh->sa_deleted[i];
		int a = sh->sa_alive[i], before = sh->sa_ended[i];

		left += !!a;
		if (f & SA_BYSTANDER && !a)
			complain(&away, "bystander", i, f, e, d, a);
		if (e != sh->sa_pfkey[i])
			complain(&pfkey, "PF_KEY differs", i, f, e, sh->sa_pfkey[i], a);
		if (!f && e + d + a)
			complain(&ghosts, "never made", i, f, e, d, a);
		if (!(f & SA_MADE))
			continue;
		/* A migration leaves two of the same SPI for a moment, and one of
		 * them can expire.
		 */
		if ((e + d > 1 || before + a > 1) && !(f & SA_MIGRATED))
			complain(&twice, "more than one end", i, f, e, d, a);
		if (e + d + a == 0 &&
		    !(f & SA_FLUSHABLE && sh->sa_flush[i] != sh->flushes))
			complain(&lost, "no end", i, f, e, d, a);
	}
	for (i = 1; i <= sh->policies; i++) {
		int f = sh->pol[i], t = sh->pol_told[i], e = sh->pol_expired[i];

		if (!(f & POL_MADE)) {
			if (t + e && !(f & POL_UNSURE))
				complain(&ghosts, "policy never made", i, f, e, t, 0);
			continue;
		}
		/* A policy that has lost its device can be deleted afterwards. */
		if (t > 2 || e > 1)
			complain(&pol_twice, "policy told twice", i, f, e, t, 0);
		/* Flushes in netns d can have removed it instead. */
		if (f & POL_GONE && !(f & (POL_NETNS_D | POL_SOFT))) {
			pol_gone++;
			if (!(t + e))
				complain(&pol_lost, "policy not told", i, f, e, t, 0);
		}
	}
	for (c = 0; c < COUNTERS; c++)
		printf("%s %lu\n", names[c], sh->counts[c]);
	printf("states-left %lu\n", left);
	printf("policies-departed %lu\n", pol_gone);
	printf("bystanders-lost %lu\n", away);
	printf("states-lost %lu\n", lost);
	printf("states-twice %lu\n", twice);
	printf("policies-lost %lu\n", pol_lost);
	printf("policies-twice %lu\n", pol_twice);
	printf("pfkey-differs %lu\n", pfkey);
	printf("never-made %lu\n", ghosts);
}

static void bystanders(void)
{
	const struct pair *p = &pairs[ARRAY_SIZE(pairs) - 1];
	int fd, i;

	enter("a");
	fd = xfrm_socket(0);
	for (i = 0; i < 8; i++)
		if (!make_sa(fd, p, i & 1, NULL, SA_BYSTANDER))
			errx(1, "cannot add the bystanders");
}

static int children;

#define spawn(seed, call) do {				\
	pid_t __pid = fork();				\
							\
	if (__pid < 0)					\
		err(1, "fork");				\
	if (!__pid) {					\
		rng = (seed) * 0x9e3779b97f4a7c15ULL + ++children; \
		for (int __i = 0; __i < 8; __i++)	\
			rnd(2);				\
		call;					\
		fflush(stdout);				\
		_exit(0);				\
	}						\
	children++;					\
} while (0)

static void wait_ready(int fd, int n)
{
	char c;

	while (n--)
		if (read(fd, &c, 1) != 1)
			errx(1, "a process did not start");
}

static void a_child_died(int sig)
{
	int status, saved = errno;
	(void)sig;

	while (waitpid(-1, &status, WNOHANG) > 0) {
		if (!WIFEXITED(status) || WEXITSTATUS(status))
			_exit(3);
		__atomic_sub_fetch(&children, 1, __ATOMIC_SEQ_CST);
	}
	errno = saved;
}

/* stress-tool SEED: says "running", then reads from stdin: "stop" ends what
 * changes things, "end" (the devices have gone by then) asks for the accounts.
 */
int main(int argc, char **argv)
{
	struct sigaction sa = { .sa_handler = a_child_died, .sa_flags = SA_RESTART };
	unsigned long long seed;
	sigset_t chld;
	char line[64];
	int p[2], i;

	if (argc != 2)
		errx(2, "usage: stress-tool SEED");
	seed = strtoull(argv[1], NULL, 0) + 1;
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		  -1, 0);
	if (sh == MAP_FAILED || pipe(p))
		err(1, "mmap");
	setvbuf(stdout, NULL, _IOLBF, 0);
	sigemptyset(&chld);
	sigaddset(&chld, SIGCHLD);
	sigaction(SIGCHLD, &sa, NULL);

	spawn(seed, listener("a", 0, p[1]));
	spawn(seed, listener("d", 1, p[1]));
	spawn(seed, capture(p[1]));
	wait_ready(p[0], 3);
	for (i = 0; i < 2; i++)
		spawn(seed, guard(i, 2, p[1]));
	wait_ready(p[0], 2);
	for (i = 0; i < 3; i++)
		spawn(seed, adder("a", "n0", 0, false));
	spawn(seed, adder("a", "n0", SA_MIGRATED, true));
	spawn(seed, adder("d", "d0", SA_FLUSHABLE, false));
	spawn(seed, migrator());
	spawn(seed, policies("a", "n0", 40, 0));
	spawn(seed, policies("a", "n0", 50, 0));
	for (i = 0; i < 2; i++)
		spawn(seed, policies("d", "d0", 40, POL_NETNS_D));
	spawn(seed, inbound(30, XFRM_POLICY_IN));
	spawn(seed, inbound(31, XFRM_POLICY_IN));
	spawn(seed, inbound(32, XFRM_POLICY_FWD));
	spawn(seed, flusher());
	spawn(seed, dumper("a"));
	spawn(seed, dumper("a"));
	spawn(seed, dumper("d"));
	for (i = 0; i < 2; i++)
		spawn(seed, flood("a"));
	spawn(seed, flood("c"));
	spawn(seed, idler());
	bystanders();
	sh->go = 1;
	printf("running\n");

	while (fgets(line, sizeof(line), stdin)) {
		if (!strcmp(line, "stop\n")) {
			sh->stop = 1;
			printf("stopped\n");
		} else if (!strcmp(line, "end\n")) {
			signal(SIGCHLD, SIG_DFL);
			sentinel("a", 0);
			sentinel("d", 1);
			/* What is there has no end yet. Of what is not, all has
			 * been heard with the next sentinels.
			 */
			for (i = 0; i < OBJECTS; i++)
				sh->sa_ended[i] = sh->sa_expired[i] + sh->sa_deleted[i];
			take_stock("a");
			take_stock("d");
			sentinel("a", 0);
			sentinel("d", 1);
			sh->end = 1;
			while (wait(&i) > 0)
				if (!WIFEXITED(i) || WEXITSTATUS(i))
					errx(1, "a process failed");
			accounts();
			return 0;
		}
	}
	errx(1, "no more orders");
}
