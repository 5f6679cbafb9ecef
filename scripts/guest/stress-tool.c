// SPDX-License-Identifier: GPL-2.0
/* What ip does not do for scripts/guest/stress, which chooses all numbers.
 *
 * stress-tool SEED NETNS FLOW...: send packets, use PF_KEY, migrate; when there is a
 * /tmp/stress/stop say how often, and keep the sockets. A flow is a netns, two addresses.
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
#include <sys/resource.h>
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
static char **flows;
static int nr_flows, sockets[SOCKETS];

/* Which word of a flow: 1 its address, 2 the peer's */
static struct sockaddr_in6 end_of(int i, int word)
{
	struct sockaddr_in6 sin6 = { .sin6_family = AF_INET6, .sin6_port = htons(word == 2 ? 4000 : 0) };
	const char *text = flows[i % nr_flows * 3 + word];

	if (inet_pton(AF_INET6, text, &sin6.sin6_addr) != 1)
		errx(1, "address %s", text);
	return sin6;
}

static int bound(int i, int type)
{
	struct sockaddr_in6 self = end_of(i, 1);
	int fd;

	enter(flows[i % nr_flows * 3]);
	fd = socket(AF_INET6, type | SOCK_NONBLOCK, 0);
	if (fd < 0 || bind(fd, (void *)&self, sizeof(self)))
		err(1, "bind socket %d", i);
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
		send(fd, data, size, MSG_MORE);
		break;
	case 3:
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
static void pfkey(const char *netns)
{
	static const int types[] = { SADB_DUMP, SADB_X_SPDDUMP, SADB_FLUSH, SADB_X_SPDFLUSH };
	unsigned int what = rnd(*netns == 'd' ? 4 : 2);
	struct pollfd p = { .events = POLLIN };
	char buf[8192];

	enter(netns);
	p.fd = pfkey_socket(types[what]);
	counts[what < 2 ? dumps_pfkey : flushes_pfkey]++;
	while (rnd(50) && poll(&p, 1, 5) > 0 && recv(p.fd, buf, sizeof(buf), MSG_DONTWAIT) > 0)
		;
	close(p.fd);
}

/* From one peer to the other one and back, with and without offload */
static void migrate(const char *netns)
{
	unsigned int old = rnd(2), peers[] = { htonl(0x0a0b0002), htonl(0x0a0b0003) };
	struct {
		struct nlmsghdr h;
		struct xfrm_userpolicy_id policy;
		struct nlattr migrate_attr;
		struct xfrm_user_migrate m;
		struct nlattr offload_attr;
		struct xfrm_user_offload offload;
	} r = {
		.h = { sizeof(r), XFRM_MSG_MIGRATE, NLM_F_REQUEST | NLM_F_ACK, 0, 0 },
		.policy = { .dir = XFRM_POLICY_OUT, .sel = {
			.saddr.a4 = htonl(0x0a090001 | MOVED << 8), .prefixlen_s = 32,
			.daddr.a4 = htonl(0x0a090002 | MOVED << 8), .prefixlen_d = 32,
			.family = AF_INET } },
		.migrate_attr = { NLA_HDRLEN + sizeof(r.m), XFRMA_MIGRATE },
		.m = { .proto = IPPROTO_ESP, .mode = XFRM_MODE_TUNNEL, .reqid = MOVED,
		       .old_saddr.a4 = htonl(0x0a000001), .old_daddr.a4 = peers[old],
		       .new_saddr.a4 = htonl(0x0a000001), .new_daddr.a4 = peers[!old],
		       .old_family = AF_INET, .new_family = AF_INET },
		.offload_attr = { NLA_HDRLEN + sizeof(r.offload), XFRMA_OFFLOAD_DEV },
	};
	struct { struct nlmsghdr h; struct nlmsgerr e; char rest[1024]; } answer;
	int fd;

	enter(netns);
	fd = xfrm_socket(0);
	r.offload.ifindex = if_nametoindex("n0");
	if (rnd(2))
		r.h.nlmsg_len -= NLA_HDRLEN + sizeof(r.offload);
	if (send(fd, &r, r.h.nlmsg_len, 0) > 0 && recv(fd, &answer, sizeof(answer), 0) > 0 &&
	    !answer.e.error)
		counts[migrations]++;
	close(fd);
}

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

static struct object *sa_of(unsigned int spi)
{
	return &sas[number(spi - SPI_BASE)];
}

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

static void wrong(enum counter c, const struct object *o, const struct object *table)
{
	if (counts[c]++ < 5)
		printf("# %s: %td, flags %d, expired %d, PF_KEY %d, deleted %d, told %d, alive %d\n",
		       names[c], o - table, o->flags, o->expired, o->pfkey, o->deleted, o->told,
		       o->alive);
}

static void account(void)
{
	struct object *o;
	unsigned int i;

	for (o = sas + 1; o < sas + OBJECTS; o++) {
		if (o->expired != o->pfkey)
			wrong(pfkey_differs, o, sas);
		if (!(o->flags & MADE) && o->expired + o->deleted + o->alive)
			wrong(never_made, o, sas);
		/* In d a flush can have deleted it, with one message for all. */
		if (o->flags & MADE && !(o->flags & IN_D) && !(o->expired + o->deleted + o->alive))
			wrong(states_lost, o, sas);
		/* A migration leaves two of the same SPI for a moment, and one of
		 * them can expire.
		 */
		if (o->expired + o->deleted + o->alive > 1 && !(o->flags & MIGRATES))
			wrong(states_twice, o, sas);
	}
	for (o = policies + 1; o < policies + OBJECTS; o++) {
		if (!(o->flags & MADE) && o->told + o->deleted + o->expired)
			wrong(never_made, o, policies);
		if (o->told > 1 || o->deleted > 1 || o->expired > 1)
			wrong(policies_twice, o, policies);
		if (o->flags == MADE && !(o->told + o->deleted + o->expired))
			wrong(policies_lost, o, policies);
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

	if (setpriority(PRIO_PROCESS, 0, -10))
		err(1, "setpriority");
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
	const char *netns;
	bool in_d;
	unsigned int i, n;

	setlinebuf(stdout);
	if (argc == 1)
		return listen_to_all();
	srandom(atoi(argv[1]));
	netns = argv[2];
	in_d = *netns == 'd';
	flows = argv + 3;
	nr_flows = (argc - 3) / 3;
	for (i = 0; i < SOCKETS; i++) {
		sockets[i] = bound(i, SOCK_DGRAM);
		to = end_of(i, 2);
		if (i & 1 || i >= SOCKETS / 2)
			connect(sockets[i], (void *)&to, sizeof(to));
	}
	while (access("/tmp/stress/stop", F_OK)) {
		n = in_d ? 99 : rnd(100);
		if (n == 99)
			pfkey(netns);
		else if (n == 98)
			migrate(netns);
		else
			packet();
		/* The others are to get a turn. */
		if (in_d || !rnd(16))
			usleep(rnd(in_d ? 300000 : 5000));
	}
	for (i = SOCKETS / 2; i < SOCKETS; i++)
		counts[send(sockets[i], "idle", 4, 0) == 4 ? idle_sockets : packets_refused]++;
	for (i = packets; i <= flushes_pfkey; i++)
		printf("%s %lu\n", names[i], counts[i]);
	while (1)
		pause();
}
