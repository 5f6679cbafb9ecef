// SPDX-License-Identifier: GPL-2.0
/* What ip does not do, or not fast enough, for scripts/guest/stress.
 *
 * stress-tool N SEED: worker N adds, updates, deletes, migrates, sends. When there is a
 * /tmp/stress/stop it says how often, and keeps its sockets.
 *
 * stress-tool: hear what becomes of states and policies. Every SA has an SPI, and every policy
 * a soft byte limit, that no other has: so each message can be put down to one object.
 * A line on stdin says that the devices have gone. When all is quiet it asks, with
 * "quiet", for lines `made-in-NETNS SPI` and `alive SPI`, up to an empty one, and does
 * the accounts.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <linux/netlink.h>
#include <linux/xfrm.h>
#include <netinet/udp.h>
#include "expire.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))
#define OBJECTS		(1 << 24)
#define SPI_BASE	0x10000u
#define POL_BASE	(1ULL << 40)
#define WORKERS		16	/* at most, with the probes of guest/stress */
#define WORKERS_A	6	/* the others are in d */
#define QUIET		6	/* seconds; nothing is due later than that */
#define CANARY		99	/* the flow without policies */
#define LARVAL		19	/* the one whose ACQUIREs nobody answers */
#define MOVED		12	/* the one whose states are migrated */

#define COUNTERS(C)									\
	C(packets) C(packets_refused) C(idle_sockets) C(migrations) C(dumps_pfkey)	\
	C(flushes_pfkey) C(states_added) C(states_updated) C(states_deleted)		\
	C(spis_allocated) C(policies_added) C(policies_replaced) C(policies_deleted)	\
	C(policies_told) C(state_expiries) C(cleartext) C(canaries_out) C(states_lost)	\
	C(states_twice) C(pfkey_differs) C(policies_lost) C(policies_twice) C(never_made) \
	C(acquires) C(acquires_expired) C(acquires_differ) C(overruns)
#define COUNTER_ENUM(name) name,
#define COUNTER_NAME(name) #name,
enum counter { COUNTERS(COUNTER_ENUM) NR_COUNTERS };
static const char *const names[] = { COUNTERS(COUNTER_NAME) };
static unsigned long counts[NR_COUNTERS];

#define rnd(n)		((unsigned int)random() % (n))

static void enter(const char *netns)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/run/netns/%s", netns);
	fd = open(path, O_RDONLY);
	if (fd < 0 || setns(fd, CLONE_NEWNET))
		err(1, "netns %s", netns);
	close(fd);
}

static int pfkey_socket(int type)
{
	struct sadb_msg m = {
		.sadb_msg_version = PF_KEY_V2, .sadb_msg_type = type,
		.sadb_msg_satype = type == SADB_REGISTER ? SADB_SATYPE_ESP : SADB_SATYPE_UNSPEC,
		.sadb_msg_len = sizeof(m) / 8, .sadb_msg_pid = getpid(),
	};
	int fd = socket(PF_KEY, SOCK_RAW, PF_KEY_V2);

	/* An allocation can fail. */
	if (fd < 0 || (send(fd, &m, sizeof(m), 0) < 0 && errno != ENOBUFS && errno != ENOMEM))
		err(1, "PF_KEY %d", type);
	return fd;
}

static int xfrm_socket(unsigned int groups)
{
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK, .nl_groups = groups };
	int fd = socket(AF_NETLINK, SOCK_RAW, NETLINK_XFRM);

	if (fd < 0 || bind(fd, (void *)&addr, sizeof(addr)))
		err(1, "NETLINK_XFRM");
	return fd;
}

/* Load */

#define SOCKETS		48
enum { TRANSPORT, TUNNEL, PLAIN, BLOCK };	/* PLAIN: without templates */
enum { SOFTWARE, CRYPTO, PACKET };
/* Flow N is between 10.9.N.1 or fd09::N:1, in a or c, and .2 in b. */
static const struct flow { int nr, family, mode, offload; } flows[] = {
	{ 1, AF_INET, TRANSPORT, PACKET },	{ 2, AF_INET, TRANSPORT, PACKET },
	{ 3, AF_INET6, TRANSPORT, PACKET },	{ 4, AF_INET6, TRANSPORT, PACKET },
	{ 5, AF_INET, TUNNEL, PACKET },		{ 6, AF_INET6, TUNNEL, PACKET },
	{ 7, AF_INET, TRANSPORT, CRYPTO },	{ 8, AF_INET6, TUNNEL, CRYPTO },
	{ 9, AF_INET, TUNNEL, PACKET },		{ 10, AF_INET6, TUNNEL, PACKET },
	{ MOVED, AF_INET, TUNNEL, CRYPTO },	/* up to here: states are added */
	{ 11, AF_INET, BLOCK, PACKET },		{ LARVAL, AF_INET, TRANSPORT, PACKET },
	{ 20, AF_INET, TRANSPORT, SOFTWARE },	/* policies are never deleted: never in clear */
	{ CANARY, AF_INET, PLAIN, SOFTWARE },	/* packets are sent */
	{ 40, AF_INET, PLAIN, PACKET },		{ 41, AF_INET6, TRANSPORT, PACKET },
	{ 42, AF_INET, BLOCK, PACKET },		{ 43, AF_INET6, PLAIN, PACKET },
	{ 44, AF_INET, TRANSPORT, PACKET },	{ 45, AF_INET6, BLOCK, PACKET },
};
enum { WITH_STATES = 11, GUARDED = 14, WITH_PACKETS = 15 };
static int sockets[SOCKETS], in_d, nl;
static unsigned int me, spis, limits;		/* each has its own */
static struct { struct nlmsghdr h; char data[2048]; } msg;

static void *start(int type, size_t len)
{
	memset(&msg, 0, sizeof(msg));
	msg.h.nlmsg_type = type;
	msg.h.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
	msg.h.nlmsg_len = NLMSG_LENGTH(len);
	return NLMSG_DATA(&msg.h);
}

static void put(int type, const void *data, size_t len)
{
	struct nlattr *a = (void *)((char *)&msg + NLMSG_ALIGN(msg.h.nlmsg_len));

	a->nla_type = type;
	a->nla_len = NLA_HDRLEN + len;
	memcpy(a + 1, data, len);
	msg.h.nlmsg_len = NLMSG_ALIGN(msg.h.nlmsg_len) + NLA_ALIGN(a->nla_len);
}

static void put_offload(int offload, bool out)
{
	struct xfrm_user_offload xuo = { if_nametoindex(in_d ? "d0" : "n0"), out ? 0 : XFRM_OFFLOAD_INBOUND };

	xuo.flags |= offload == PACKET ? 4 : 0;		/* XFRM_OFFLOAD_PACKET */
	if (offload != SOFTWARE)
		put(XFRMA_OFFLOAD_DEV, &xuo, sizeof(xuo));
}

/* Returns 0, a positive errno, or -1 when the answer got lost. */
static int talk(void)
{
	struct { struct nlmsghdr h; struct nlmsgerr e; char rest[8192]; } answer;
	static unsigned int seq;

	msg.h.nlmsg_seq = ++seq;
	if (send(nl, &msg, msg.h.nlmsg_len, 0) < 0)
		return errno;
	do {
		if (recv(nl, &answer, sizeof(answer), 0) < 0)
			return -1;
	} while (answer.h.nlmsg_seq != seq || answer.h.nlmsg_type != NLMSG_ERROR);
	return -answer.e.error;
}

/* 10.NET.NR.SIDE, fdNET::NR:SIDE; the digits are those of NR */
static xfrm_address_t address(int family, int net, int nr, int side)
{
	xfrm_address_t a = {};

	if (family == AF_INET) {
		a.a4 = htonl(10 << 24 | net << 16 | nr << 8 | side);
	} else {
		a.a6[0] = htonl(0xfd000000 | net << 16);
		a.a6[3] = htonl((nr / 10 << 4 | nr % 10) << 16 | side);
	}
	return a;
}

/* Of the flow, or of the tunnel that it goes through, where it is or is moved to */
static void ends(const struct flow *f, bool tunnel, bool out, int moved, xfrm_address_t *src,
		 xfrm_address_t *dst)
{
	*(out ? src : dst) = address(f->family, tunnel ? 0 : 9, tunnel ? 0 : f->nr, 1);
	*(out ? dst : src) = address(f->family, tunnel ? 11 : 9, tunnel ? 0 : f->nr, 2 + moved);
}

static void selector(struct xfrm_selector *sel, const struct flow *f, bool out)
{
	ends(f, false, out, 0, &sel->saddr, &sel->daddr);
	sel->family = f->family;
	sel->prefixlen_s = (f->family == AF_INET ? 32 : 128) - (f->nr > 42 && f->nr < 46 ? 8 : 0);
	sel->prefixlen_d = sel->prefixlen_s;
}

/* A new one, or one of the last. The flow and the direction are in the SPI. */
static void state(int type)
{
	unsigned int id = type == XFRM_MSG_NEWSA || type == XFRM_MSG_ALLOCSPI ?
			  (spis += WORKERS) : spis - rnd(64) * WORKERS;
	const struct flow *f = &flows[id / WORKERS % WITH_STATES];
	struct { struct xfrm_algo_aead head; char key[20]; } alg = {
		.head = { "rfc4106(gcm(aes))", 160, 128 }, .key = "a key of 20 letters",
	};
	struct xfrm_userspi_info *spi = start(type, sizeof(*spi));
	struct xfrm_usersa_info *x = &spi->info;
	struct xfrm_usersa_id *d = (void *)spi;
	bool out = id / WORKERS % 3;
	xfrm_address_t src;

	if (id >= OBJECTS)
		errx(1, "more SPIs than the listener knows: fewer minutes");
	if (type == XFRM_MSG_DELSA) {
		msg.h.nlmsg_len = NLMSG_LENGTH(sizeof(*d));
		ends(f, f->mode == TUNNEL, out, f->nr == MOVED && rnd(2), &src, &d->daddr);
		d->spi = htonl(SPI_BASE + id);
		d->family = f->family;
		d->proto = IPPROTO_ESP;
		talk();
		return;
	}
	ends(f, f->mode == TUNNEL, out, 0, &x->saddr, &x->id.daddr);
	x->id.proto = IPPROTO_ESP;
	x->family = f->family;
	x->reqid = f->nr;
	x->mode = f->mode;
	if (type == XFRM_MSG_ALLOCSPI) {
		spi->min = SPI_BASE + id;
		spi->max = SPI_BASE + id;
		/* No listener hears of it. */
		if (!talk())
			printf("made-in-%s %#x\n", in_d ? "d" : "a", SPI_BASE + id);
		return;
	}
	msg.h.nlmsg_len = NLMSG_LENGTH(sizeof(*x));
	x->id.spi = htonl(SPI_BASE + id);
	memset(&x->lft, 0xff, 4 * sizeof(__u64));	/* XFRM_INF */
	x->lft.hard_add_expires_seconds = rnd(12) ? 0 : 1 + rnd(2);
	x->lft.hard_packet_limit = rnd(12) ? XFRM_INF : 1 + rnd(200);
	x->lft.soft_packet_limit = rnd(12) ? XFRM_INF : 1 + rnd(200);
	put(XFRMA_ALG_AEAD, &alg, sizeof(alg.head) + sizeof(alg.key));
	put_offload(f->offload, out);
	talk();
}

static int policy(int type, const struct flow *f, int dir)
{
	struct xfrm_user_tmpl tmpl = {
		.id.proto = IPPROTO_ESP, .family = f->family, .reqid = f->nr,
		.mode = f->mode, .aalgos = ~0u, .ealgos = ~0u, .calgos = ~0u,
	};
	struct xfrm_userpolicy_info *x = start(type, sizeof(*x));
	struct xfrm_userpolicy_id *id = (void *)x;
	bool out = dir == XFRM_POLICY_OUT;

	selector(&x->sel, f, out);
	if (type == XFRM_MSG_DELPOLICY) {
		id->dir = dir;
		msg.h.nlmsg_len = NLMSG_LENGTH(sizeof(*id));
		return talk();
	}
	x->dir = dir;
	x->priority = type == XFRM_MSG_UPDPOLICY ? rnd(3) : 0;
	x->action = f->mode == BLOCK ? XFRM_POLICY_BLOCK : XFRM_POLICY_ALLOW;
	memset(&x->lft, 0xff, 4 * sizeof(__u64));
	if (f->nr >= 40 && !rnd(4))
		x->lft.hard_add_expires_seconds = 1 + rnd(3);
	ends(f, f->mode == TUNNEL, out, 0, &tmpl.saddr, &tmpl.id.daddr);
	if (f->mode <= TUNNEL)
		put(XFRMA_TMPL, &tmpl, sizeof(tmpl));
	/* With crypto offload the policy is in software. */
	if (f->offload == PACKET) {
		x->lft.soft_byte_limit = POL_BASE + (limits += WORKERS);
		put_offload(PACKET, true);
	}
	return talk();
}

static bool directed(const struct flow *f, int dir)
{
	return dir == XFRM_POLICY_OUT || (f->nr % 2 == 0 && f < flows + GUARDED);
}

/* The listener must hear of those of one flow in the order in which they came: one
 * worker for each.
 */
static void change_policy(void)
{
	const struct flow *f = &flows[rnd(ARRAY_SIZE(flows))];
	int dir = rnd(XFRM_POLICY_MAX), what = rnd(8);
	bool guarded = f < flows + GUARDED;

	if ((!in_d && (f - flows) % WORKERS_A != me) || !directed(f, dir) || f->offload == SOFTWARE)
		return;
	policy(what < 2 && !guarded ? XFRM_MSG_DELPOLICY :
	       what < 4 ? XFRM_MSG_UPDPOLICY : XFRM_MSG_NEWPOLICY, f, dir);
}

/* From one peer to the other one and back, with and without offload */
static void migrate(void)
{
	struct xfrm_userpolicy_id *id = start(XFRM_MSG_MIGRATE, sizeof(*id));
	const struct flow *f = &flows[WITH_STATES - 1];
	struct xfrm_user_migrate m = {
		.proto = IPPROTO_ESP, .mode = f->mode, .reqid = f->nr,
		.old_family = f->family, .new_family = f->family,
	};
	int moved = rnd(2);

	selector(&id->sel, f, true);
	id->dir = XFRM_POLICY_OUT;
	ends(f, true, true, moved, &m.old_saddr, &m.old_daddr);
	ends(f, true, true, !moved, &m.new_saddr, &m.new_daddr);
	put(XFRMA_MIGRATE, &m, sizeof(m));
	put_offload(rnd(2) ? f->offload : SOFTWARE, true);
	counts[migrations] += !talk();
}

/* IPv4 sockets are IPv6's, with mapped addresses. */
static struct sockaddr_in6 end_of(int i, int side)
{
	struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6, .sin6_port = htons(side == 2 ? 4000 : 0) };
	const struct flow *f = &flows[i % WITH_PACKETS];
	xfrm_address_t a = address(f->family, 9, f->nr, side);

	if (f->family == AF_INET)
		a = (xfrm_address_t){ .a6 = { 0, 0, htonl(0xffff), a.a4 } };
	memcpy(&sin6.sin6_addr, &a, sizeof(a));
	return sin6;
}

static int bound(int i, int type)
{
	struct sockaddr_in6 self = end_of(i, 1);
	int nr = flows[i % WITH_PACKETS].nr, fd;

	enter(nr == 9 || nr == 10 ? "c" : "a");
	fd = socket(AF_INET6, type | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (void *)&self, sizeof(self)))
		err(1, "bind socket %d", i);
	enter(in_d ? "d" : "a");
	return fd;
}

/* The upper half is mostly idle, and so holds routes for long. */
static void packet(void)
{
	static char data[9000];
	unsigned int i = rnd(SOCKETS / 2) + (rnd(64) ? 0 : SOCKETS / 2), size = 1 + rnd(1200);
	struct sockaddr_in6 to = end_of(i, 2);
	int fd = sockets[i], gso = 0;
	ssize_t ret;

	switch (rnd(40)) {
	case 0:
		size = 1500 + rnd(7000);	/* fragments */
		break;
	case 1:
		size = 1000 + rnd(4000);
		gso = 500;
		break;
	case 2:
		fd = bound(i, SOCK_STREAM);
		connect(fd, (void *)&to, sizeof(to));
		close(fd);
		return;
	}
	setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &gso, sizeof(gso));
	ret = send(fd, data, size, 0);
	if (ret < 0 && errno == EDESTADDRREQ)
		ret = sendto(fd, data, size, 0, (void *)&to, sizeof(to));
	counts[ret < 0 ? packets_refused : packets]++;
}

/* Dumps, some of them left half done, and in d flushes */
static void pfkey(void)
{
	static const int types[] = { SADB_DUMP, SADB_X_SPDDUMP, SADB_FLUSH, SADB_X_SPDFLUSH };
	unsigned int what = rnd(in_d ? 4 : 2);
	struct pollfd p = { .events = POLLIN };
	char buf[8192];

	p.fd = pfkey_socket(types[what]);
	counts[what < 2 ? dumps_pfkey : flushes_pfkey]++;
	while (rnd(50) && poll(&p, 1, 5) > 0 && recv(p.fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
	close(p.fd);
}

/* Without a function: of a state */
static const struct { void (*run)(void); int type, percent; } operations[] = {
	{ packet, 0, 60 },
	{ NULL, XFRM_MSG_NEWSA, 15 },
	{ NULL, XFRM_MSG_ALLOCSPI, 3 },
	{ NULL, XFRM_MSG_UPDSA, 3 },
	{ NULL, XFRM_MSG_DELSA, 11 },
	{ change_policy, 0, 6 },
	{ migrate, 0, 1 },
	{ pfkey, 0, 1 },
};

/* Listening. Of a chain of policies, each of which replaced the one before, the
 * kernel keeps the index.
 */
enum { MADE = 1, IN_D = 2, MIGRATES = 4, REPLACED = 8 };
struct object {
	unsigned char flags, expired, pfkey, deleted, told, alive;
};
static struct object sas[OBJECTS], policies[OBJECTS];
static unsigned int chains[2][OBJECTS];

#define BUMP(n)		((n) += (n) < 255)

/* The first of a table is for all else: states without an SPI, policies without a limit. */
static unsigned int number(unsigned long long id)
{
	return id < OBJECTS ? id : 0;
}

#define sa_of(spi)	(&sas[number((spi) - SPI_BASE)])

static void hear(const struct nlmsghdr *h, int in_d)
{
	const void *data = NLMSG_DATA(h);
	const struct xfrm_user_polexpire *pe = data;
	const struct xfrm_userpolicy_info *p = data;
	const struct xfrm_usersa_info *x = data;
	const struct xfrm_user_expire *e = data;
	const struct xfrm_usersa_id *id = data;
	const struct xfrm_user_acquire *acq = data;
	unsigned int nr, *chain;
	struct object *o;

	switch (h->nlmsg_type) {
	case XFRM_MSG_NEWSA:
	case XFRM_MSG_UPDSA:
		counts[h->nlmsg_type == XFRM_MSG_NEWSA ? states_added : states_updated]++;
		sa_of(ntohl(x->id.spi))->flags |=
			MADE | (in_d ? IN_D : 0) | (x->reqid == MOVED ? MIGRATES : 0);
		break;
	case XFRM_MSG_DELSA:
		counts[states_deleted]++;
		BUMP(sa_of(ntohl(id->spi))->deleted);
		break;
	case XFRM_MSG_EXPIRE:
		if (!e->hard)
			break;
		counts[state_expiries]++;
		counts[acquires_expired] += !e->state.id.spi && e->state.reqid == LARVAL;
		BUMP(sa_of(ntohl(e->state.id.spi))->expired);
		break;
	case XFRM_MSG_ACQUIRE:
		counts[acquires] += acq->sel.daddr.a4 == htonl(0x0a090002 | LARVAL << 8);
		break;
	case XFRM_MSG_POLEXPIRE:
		if (pe->hard)
			BUMP(policies[number(pe->pol.lft.soft_byte_limit - POL_BASE)].expired);
		break;
	case XFRM_MSG_NEWPOLICY:
	case XFRM_MSG_UPDPOLICY:
	case XFRM_MSG_DELPOLICY:
		/* The first attribute */
		if (h->nlmsg_type == XFRM_MSG_DELPOLICY)
			p = data + sizeof(struct xfrm_userpolicy_id) + NLA_HDRLEN;
		nr = number(p->lft.soft_byte_limit - POL_BASE);
		o = &policies[nr];
		if (!h->nlmsg_seq) {
			/* Nobody's request */
			counts[policies_told]++;
			BUMP(o->told);
		} else if (h->nlmsg_type == XFRM_MSG_DELPOLICY) {
			counts[policies_deleted]++;
			BUMP(o->deleted);
		} else {
			counts[h->nlmsg_type == XFRM_MSG_NEWPOLICY ? policies_added : policies_replaced]++;
			o->flags |= MADE | (in_d ? IN_D : 0);
			chain = &chains[in_d][number(p->index >> 3)];
			policies[*chain].flags |= REPLACED;
			*chain = nr;
		}
		break;
	}
}

/* Packets that arrive at b and are not ESP; the loopback device is the peer's own. */
static void capture(int fd)
{
	struct sockaddr_ll from;
	socklen_t len = sizeof(from);
	unsigned char b[128];
	bool v6;
	int nr;

	while (recvfrom(fd, b, sizeof(b), MSG_DONTWAIT, (void *)&from, &len) > 0) {
		v6 = from.sll_protocol == htons(ETH_P_IPV6);
		nr = v6 ? b[21] : b[14];
		if ((!v6 && from.sll_protocol != htons(ETH_P_IP)) ||
		    memcmp(v6 ? b + 8 : b + 12, v6 ? "\xfd\x09" : "\x0a\x09", 2) ||
		    b[v6 ? 6 : 9] == IPPROTO_ESP ||
		    from.sll_pkttype == PACKET_OUTGOING || from.sll_ifindex == 1)
			continue;
		counts[nr == CANARY ? canaries_out : cleartext]++;
		if (nr != CANARY && counts[cleartext] <= 8)
			printf("# clear: flow %d, IPv%d, protocol %d, device %d\n", nr, v6 ? 6 : 4,
			       b[v6 ? 6 : 9], from.sll_ifindex);
	}
}

/* Netlink of a and d, PF_KEY of both, the packets of b */
static struct pollfd ears[] = { { 0 }, { 0 }, { 0 }, { 0 }, { 0 }, { STDIN_FILENO, POLLIN, 0 } };

static bool hear_all(void)
{
	static union { struct nlmsghdr h; char b[65536]; } buf;
	const struct nlmsghdr *h;
	bool heard = false;
	unsigned int spi, len;
	int i, lifetime;
	ssize_t ret;

	for (i = 0; i < 4; i++) {
		while ((ret = recv(ears[i].fd, &buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
			heard = true;
			len = ret;
			if (i < 2) {
				for (h = &buf.h; NLMSG_OK(h, len); h = NLMSG_NEXT(h, len))
					hear(h, i);
			} else if (sadb_expire(&buf, len, &spi, &lifetime) &&
				   lifetime == SADB_EXT_LIFETIME_HARD) {
				BUMP(sa_of(spi)->pfkey);
			}
		}
		counts[overruns] += ret < 0 && errno == ENOBUFS;
	}
	capture(ears[4].fd);
	return heard;
}

static void check(enum counter c, const struct object *table, const struct object *o, bool wrong)
{
	if (wrong && counts[c]++ < 5)
		printf("# %s: %td, flags %d, expired %d, %d, deleted %d, told %d, alive %d\n", names[c],
		       o - table, o->flags, o->expired, o->pfkey, o->deleted, o->told, o->alive);
}

static void account(void)
{
	struct object *o;
	int i, made, ends;

	for (o = sas + 1; o < sas + OBJECTS; o++) {
		made = o->flags & MADE;
		ends = o->expired + o->deleted + o->alive;
		check(pfkey_differs, sas, o, o->expired != o->pfkey);
		check(never_made, sas, o, !made && ends);
		/* In d a flush can have deleted it, with one message for all. */
		check(states_lost, sas, o, made && !ends && !(o->flags & IN_D));
		/* A migration leaves two of the same SPI for a moment, and one of
		 * them can expire.
		 */
		check(states_twice, sas, o, ends > 1 && !(o->flags & MIGRATES));
	}
	for (o = policies + 1; o < policies + OBJECTS; o++) {
		ends = o->told + o->deleted + o->expired;
		check(never_made, policies, o, !(o->flags & MADE) && ends);
		check(policies_lost, policies, o, o->flags == MADE && !ends);
		/* Without its device it can still be deleted, or expire. */
		check(policies_twice, policies, o, o->told > 1 || o->deleted > 1 || o->expired > 1);
	}
	counts[acquires_differ] = labs((long)(counts[acquires] - counts[acquires_expired]));
	for (i = states_added; i < NR_COUNTERS; i++)
		printf("%s %lu\n", names[i], counts[i]);
}

static int listen_to_all(void)
{
	const int groups = 1 << (XFRMNLGRP_EXPIRE - 1) | 1 << (XFRMNLGRP_SA - 1) |
			   1 << (XFRMNLGRP_ACQUIRE - 1) | 1 << (XFRMNLGRP_POLICY - 1);
	struct tpacket_stats stats;
	socklen_t len = sizeof(stats);
	int i, size = 512 << 20;
	bool gone = false;
	time_t last = 0;
	unsigned int spi;
	char line[64], word[64];

	for (i = 0; i < 2; i++) {
		enter(i ? "d" : "a");
		ears[i].fd = xfrm_socket(groups);
		ears[2 + i].fd = pfkey_socket(SADB_REGISTER);
	}
	enter("b");
	ears[4].fd = socket(AF_PACKET, SOCK_DGRAM, htons(ETH_P_ALL));
	for (i = 0; i < 5; i++) {
		if (setsockopt(ears[i].fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)))
			err(1, "SO_RCVBUFFORCE");
		ears[i].events = POLLIN;
	}
	printf("listening\n");
	while (!gone || time(NULL) - last < QUIET) {
		poll(ears, ARRAY_SIZE(ears), 50);
		if (hear_all() || !gone)
			last = time(NULL);
		if (ears[5].revents) {
			if (read(STDIN_FILENO, line, 1) != 1)
				errx(1, "no orders");
			gone = true;
		}
	}
	/* All that has an end has come to it. */
	printf("quiet\n");
	while (fgets(line, sizeof(line), stdin) && sscanf(line, "%63s %x", word, &spi) == 2) {
		if (!strcmp(word, "alive")) {
			BUMP(sa_of(spi)->alive);
			continue;
		}
		sa_of(spi)->flags |= MADE | (strcmp(word, "made-in-d") ? 0 : IN_D);
		counts[spis_allocated]++;
	}
	hear_all();
	if (getsockopt(ears[4].fd, SOL_PACKET, PACKET_STATISTICS, &stats, &len))
		err(1, "PACKET_STATISTICS");
	counts[overruns] += stats.tp_drops;
	account();
	return 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in6 to;
	const struct flow *f;
	int i, n;

	setlinebuf(stdout);
	if (argc == 1)
		return listen_to_all();
	me = atoi(argv[1]);
	srandom(atoi(argv[2]) + me);
	spis = limits = WORKERS * 64 + me;
	in_d = me >= WORKERS_A;
	for (i = 0; i < SOCKETS; i++) {
		sockets[i] = bound(i, SOCK_DGRAM);
		to = end_of(i, 2);
		if (i & 1 || i >= SOCKETS / 2)
			connect(sockets[i], (void *)&to, sizeof(to));
	}
	nl = xfrm_socket(0);
	for (f = flows + me; f < flows + GUARDED && !in_d; f += WORKERS_A)
		for (i = 0; i < XFRM_POLICY_MAX; i++)
			if (directed(f, i) && policy(XFRM_MSG_NEWPOLICY, f, i))
				errx(1, "cannot add the policy of flow %d, direction %d", f->nr, i);
	printf("ready\n");
	while (access("/tmp/stress/go", F_OK))
		usleep(10000);
	while (access("/tmp/stress/stop", F_OK)) {
		n = rnd(100);
		for (i = 0; n >= operations[i].percent; i++)
			n -= operations[i].percent;
		if (operations[i].run)
			operations[i].run();
		else
			state(operations[i].type);
		/* The others are to get a turn. */
		if (!rnd(20))
			usleep(rnd(20000));
	}
	for (i = SOCKETS / 2; i < SOCKETS; i++)
		counts[send(sockets[i], "idle", 4, 0) == 4 ? idle_sockets : packets_refused]++;
	for (i = packets; i <= flushes_pfkey; i++)
		printf("%s %lu\n", names[i], counts[i]);
	while (1)
		pause();
}
