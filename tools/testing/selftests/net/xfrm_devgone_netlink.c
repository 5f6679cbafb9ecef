// SPDX-License-Identifier: GPL-2.0
/* What key managers hear, and what they get for an answer, when a device with
 * IPsec offload goes down or is removed. xfrm_devgone.sh looks at states,
 * policies and devices, xfrm_devgone_traffic.sh at packets; here it is what is
 * in the messages.
 *
 * Each test runs in a netns of its own, with a netdevsim that it makes. What
 * was to be sent for a departure has been sent once a software SA, which is
 * added after it, is heard to expire: nothing here waits for something not to
 * happen.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef HAVE_LIBMNL
#include "kselftest.h"

int main(void)
{
	ksft_print_header();
	ksft_exit_skip("built without libmnl\n");
}
#else
#include <libmnl/libmnl.h>
#include <linux/netlink.h>
#include <linux/pfkeyv2.h>
#include <linux/xfrm.h>

#include "kselftest_harness.h"

#define NSIM_BUS	"/sys/bus/netdevsim"
#define NSIM_DEBUG	"/sys/kernel/debug/netdevsim/netdevsim%u/ports/0/"
#define SENTINEL	0x5e111000
#define MANY		300
#define REQID		7
#define TIMEOUT_MS	60000

#define LOCAL		"10.0.0.1"
#define PEER		"10.0.0.2"
#define LOCAL6		"fd00::1"
#define PEER6		"fd00::2"
#define INNER6		"fd01::"

enum trigger {
	DOWN,
	REMOVE,
};

struct sa {
	__u32 spi;
	__u8 dir;		/* XFRM_SA_DIR_*, 0 for none */
	int ifindex;		/* 0 for no offload */
	bool packet;
	bool tunnel6;		/* not IPv4 in transport mode */
	__u32 if_id;
	struct xfrm_mark mark;
	__u32 pcpu;		/* 1 + number, 0 for none */
	__u64 hard_add;
};

struct pol {
	int nr;			/* makes the selector */
	__u8 dir;
	int ifindex;
	bool inexact;
	bool tunnel6;		/* as struct sa */
	bool bypass;		/* no template */
	__u8 action;
	__u32 priority;
	__u32 if_id;
	struct xfrm_mark mark;
	__u64 hard_add;
};

/* Messages in the order of their arrival. */
struct heard {
	struct nlmsghdr **msg;
	unsigned int nr;
};

static char buf[65536];

static __be32 ip(const char *addr)
{
	return inet_addr(addr);
}

/* @addr with @nr in its last bytes */
static void ip6(xfrm_address_t *to, const char *addr, unsigned int nr)
{
	inet_pton(AF_INET6, addr, to);
	to->a6[3] |= htonl(nr);
}

static bool sa_in(const struct sa *sa)
{
	return sa->dir == XFRM_SA_DIR_IN;
}

static void sa_id(const struct sa *sa, xfrm_address_t *saddr,
		  struct xfrm_id *id)
{
	memset(id, 0, sizeof(*id));
	memset(saddr, 0, sizeof(*saddr));
	id->spi = htonl(sa->spi);
	id->proto = IPPROTO_ESP;
	if (sa->tunnel6) {
		ip6(saddr, sa_in(sa) ? PEER6 : LOCAL6, 0);
		ip6(&id->daddr, sa_in(sa) ? LOCAL6 : PEER6, 0);
		return;
	}
	saddr->a4 = ip(sa_in(sa) ? PEER : LOCAL);
	id->daddr.a4 = ip(sa_in(sa) ? LOCAL : PEER);
}

static void sa_sel(const struct sa *sa, struct xfrm_selector *sel)
{
	memset(sel, 0, sizeof(*sel));
	if (sa->tunnel6) {
		sel->family = AF_INET6;
		ip6(&sel->daddr, INNER6, 1);
		sel->prefixlen_d = 128;
		return;
	}
	sel->saddr.a4 = ip(sa_in(sa) ? PEER : LOCAL);
	sel->daddr.a4 = ip(sa_in(sa) ? LOCAL : PEER);
	sel->prefixlen_s = 32;
	sel->prefixlen_d = 32;
	sel->family = AF_INET;
}

static void no_limits(struct xfrm_lifetime_cfg *lft)
{
	memset(lft, 0, sizeof(*lft));
	lft->soft_byte_limit = XFRM_INF;
	lft->hard_byte_limit = XFRM_INF;
	lft->soft_packet_limit = XFRM_INF;
	lft->hard_packet_limit = XFRM_INF;
}

static void pol_sel(const struct pol *pol, struct xfrm_selector *sel)
{
	__u32 net = pol->inexact ? 0x0a020000 | pol->nr << 8 :
				   0x0a010000 | pol->nr;

	memset(sel, 0, sizeof(*sel));
	if (pol->tunnel6) {
		sel->family = AF_INET6;
		ip6(&sel->daddr, INNER6, pol->nr);
		sel->prefixlen_d = 128;
		return;
	}
	sel->saddr.a4 = ip(LOCAL);
	sel->daddr.a4 = pol->nr ? htonl(net) : ip(PEER);
	sel->prefixlen_s = 32;
	sel->prefixlen_d = pol->inexact ? 24 : 32;
	sel->family = AF_INET;
}

static void pol_tmpl(const struct pol *pol, struct xfrm_user_tmpl *tmpl)
{
	bool in = pol->dir != XFRM_POLICY_OUT;

	memset(tmpl, 0, sizeof(*tmpl));
	tmpl->id.proto = IPPROTO_ESP;
	tmpl->family = AF_INET;
	tmpl->reqid = REQID;
	tmpl->mode = XFRM_MODE_TRANSPORT;
	tmpl->aalgos = ~0;
	tmpl->ealgos = ~0;
	tmpl->calgos = ~0;
	if (pol->tunnel6) {
		tmpl->family = AF_INET6;
		tmpl->mode = XFRM_MODE_TUNNEL;
		ip6(&tmpl->saddr, in ? PEER6 : LOCAL6, 0);
		ip6(&tmpl->id.daddr, in ? LOCAL6 : PEER6, 0);
	}
}

static struct nlmsghdr *msg_start(__u16 type, __u16 flags)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_REQUEST | flags;

	return nlh;
}

/* A copy of @nlh at the end of @heard. */
static void keep(struct heard *heard, const struct nlmsghdr *nlh)
{
	struct nlmsghdr *copy = malloc(nlh->nlmsg_len);

	heard->msg = realloc(heard->msg,
			     (heard->nr + 1) * sizeof(*heard->msg));
	if (!copy || !heard->msg)
		ksft_exit_fail_msg("no memory\n");
	memcpy(copy, nlh, nlh->nlmsg_len);
	heard->msg[heard->nr++] = copy;
}

static void forget(struct heard *heard)
{
	while (heard->nr)
		free(heard->msg[--heard->nr]);
	free(heard->msg);
	heard->msg = NULL;
}

/* Returns 0 or the error that the kernel answers with. */
static int talk(struct mnl_socket *nl, struct nlmsghdr *nlh,
		struct heard *answer)
{
	bool dump = nlh->nlmsg_flags & NLM_F_DUMP;
	static unsigned int seq;
	struct nlmsghdr *pos;
	char rbuf[32768];
	int len;

	nlh->nlmsg_flags |= dump ? 0 : NLM_F_ACK;
	nlh->nlmsg_seq = ++seq;
	if (mnl_socket_sendto(nl, nlh, nlh->nlmsg_len) < 0)
		return -errno;

	for (;;) {
		len = mnl_socket_recvfrom(nl, rbuf, sizeof(rbuf));
		if (len < 0)
			return -errno;

		for (pos = (struct nlmsghdr *)rbuf; mnl_nlmsg_ok(pos, len);
		     pos = mnl_nlmsg_next(pos, &len)) {
			const struct nlmsgerr *err;

			if (pos->nlmsg_seq != seq)
				continue;
			if (pos->nlmsg_type == NLMSG_DONE)
				return 0;
			if (pos->nlmsg_type == NLMSG_ERROR) {
				err = mnl_nlmsg_get_payload(pos);
				return err->error;
			}
			if (answer)
				keep(answer, pos);
		}
	}
}

static int sa_add(struct mnl_socket *nl, const struct sa *sa)
{
	struct nlmsghdr *nlh = msg_start(XFRM_MSG_NEWSA, 0);
	struct {
		char alg_name[64];
		unsigned int alg_key_len;
		unsigned int alg_icv_len;
		char alg_key[20];
	} alg = { /* struct xfrm_algo_aead with a key */
		.alg_name = "rfc4106(gcm(aes))",
		.alg_key_len = 160,
		.alg_icv_len = 128,
		.alg_key = "0123456789abcdefsalt",
	};
	struct xfrm_user_offload xuo = {
		.ifindex = sa->ifindex,
		.flags = (sa->packet ? XFRM_OFFLOAD_PACKET : 0) |
			 (sa_in(sa) ? XFRM_OFFLOAD_INBOUND : 0),
	};
	struct xfrm_usersa_info *info;

	info = mnl_nlmsg_put_extra_header(nlh, sizeof(*info));
	sa_id(sa, &info->saddr, &info->id);
	sa_sel(sa, &info->sel);
	no_limits(&info->lft);
	info->lft.hard_add_expires_seconds = sa->hard_add;
	info->family = sa->tunnel6 ? AF_INET6 : AF_INET;
	info->mode = sa->tunnel6 ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT;
	info->reqid = REQID;
	/* in an outbound SA with a direction there is none to be */
	info->replay_window = sa->dir == XFRM_SA_DIR_OUT ? 0 : 32;

	mnl_attr_put(nlh, XFRMA_ALG_AEAD, sizeof(alg), &alg);
	if (sa->ifindex)
		mnl_attr_put(nlh, XFRMA_OFFLOAD_DEV, sizeof(xuo), &xuo);
	if (sa->mark.m)
		mnl_attr_put(nlh, XFRMA_MARK, sizeof(sa->mark), &sa->mark);
	if (sa->if_id)
		mnl_attr_put_u32(nlh, XFRMA_IF_ID, sa->if_id);
	if (sa->dir)
		mnl_attr_put_u8(nlh, XFRMA_SA_DIR, sa->dir);
	if (sa->pcpu)
		mnl_attr_put_u32(nlh, XFRMA_SA_PCPU, sa->pcpu - 1);

	return talk(nl, nlh, NULL);
}

static int sa_del(struct mnl_socket *nl, const struct sa *sa)
{
	struct nlmsghdr *nlh = msg_start(XFRM_MSG_DELSA, 0);
	struct xfrm_usersa_id *id;

	id = mnl_nlmsg_put_extra_header(nlh, sizeof(*id));
	id->daddr.a4 = ip(sa_in(sa) ? LOCAL : PEER);
	id->spi = htonl(sa->spi);
	id->proto = IPPROTO_ESP;
	id->family = AF_INET;

	return talk(nl, nlh, NULL);
}

static int sa_dump(struct mnl_socket *nl, struct heard *answer)
{
	struct nlmsghdr *nlh = msg_start(XFRM_MSG_GETSA, NLM_F_DUMP);

	return talk(nl, nlh, answer);
}

static int pol_set(struct mnl_socket *nl, __u16 type, const struct pol *pol)
{
	struct xfrm_userpolicy_type ptype = { .type = XFRM_POLICY_TYPE_MAIN };
	struct nlmsghdr *nlh = msg_start(type, 0);
	struct xfrm_user_offload xuo = {
		.ifindex = pol->ifindex,
		.flags = XFRM_OFFLOAD_PACKET,
	};
	struct xfrm_userpolicy_info *info;
	struct xfrm_user_tmpl tmpl;

	info = mnl_nlmsg_put_extra_header(nlh, sizeof(*info));
	pol_sel(pol, &info->sel);
	no_limits(&info->lft);
	info->lft.hard_add_expires_seconds = pol->hard_add;
	info->dir = pol->dir;
	info->action = pol->action;
	info->priority = pol->priority;

	mnl_attr_put(nlh, XFRMA_POLICY_TYPE, sizeof(ptype), &ptype);
	if (!pol->bypass) {
		pol_tmpl(pol, &tmpl);
		mnl_attr_put(nlh, XFRMA_TMPL, sizeof(tmpl), &tmpl);
	}
	if (pol->ifindex)
		mnl_attr_put(nlh, XFRMA_OFFLOAD_DEV, sizeof(xuo), &xuo);
	if (pol->mark.m)
		mnl_attr_put(nlh, XFRMA_MARK, sizeof(pol->mark), &pol->mark);
	if (pol->if_id)
		mnl_attr_put_u32(nlh, XFRMA_IF_ID, pol->if_id);

	return talk(nl, nlh, NULL);
}

static int pol_add(struct mnl_socket *nl, const struct pol *pol)
{
	return pol_set(nl, XFRM_MSG_NEWPOLICY, pol);
}

/* XFRM_MSG_GETPOLICY or XFRM_MSG_DELPOLICY, by selector or by index */
static int pol_id(struct mnl_socket *nl, __u16 type, const struct pol *pol,
		  __u32 index, struct heard *answer)
{
	struct nlmsghdr *nlh = msg_start(type, 0);
	struct xfrm_userpolicy_id *id;

	id = mnl_nlmsg_put_extra_header(nlh, sizeof(*id));
	if (index)
		id->index = index;
	else
		pol_sel(pol, &id->sel);
	id->dir = pol->dir;
	if (pol->mark.m)
		mnl_attr_put(nlh, XFRMA_MARK, sizeof(pol->mark), &pol->mark);
	if (pol->if_id)
		mnl_attr_put_u32(nlh, XFRMA_IF_ID, pol->if_id);

	return talk(nl, nlh, answer);
}

/* XFRM_MSG_POLEXPIRE, as a key manager sends it */
static int pol_expire(struct mnl_socket *nl, const struct pol *pol)
{
	struct nlmsghdr *nlh = msg_start(XFRM_MSG_POLEXPIRE, 0);
	struct xfrm_user_polexpire *exp;

	exp = mnl_nlmsg_put_extra_header(nlh, sizeof(*exp));
	pol_sel(pol, &exp->pol.sel);
	exp->pol.dir = pol->dir;
	exp->hard = 1;

	return talk(nl, nlh, NULL);
}

/* XFRM_MSG_MIGRATE of @pol and its states from PEER to itself + 1 */
static int pol_migrate(struct mnl_socket *nl, const struct pol *pol)
{
	struct nlmsghdr *nlh = msg_start(XFRM_MSG_MIGRATE, 0);
	struct xfrm_user_migrate migrate = {
		.old_daddr.a4 = ip(PEER),
		.old_saddr.a4 = ip(LOCAL),
		.new_daddr.a4 = htonl(ntohl(ip(PEER)) + 1),
		.new_saddr.a4 = ip(LOCAL),
		.proto = IPPROTO_ESP,
		.mode = XFRM_MODE_TRANSPORT,
		.reqid = REQID,
		.old_family = AF_INET,
		.new_family = AF_INET,
	};
	struct xfrm_userpolicy_id *id;

	id = mnl_nlmsg_put_extra_header(nlh, sizeof(*id));
	pol_sel(pol, &id->sel);
	id->dir = pol->dir;
	mnl_attr_put(nlh, XFRMA_MIGRATE, sizeof(migrate), &migrate);

	return talk(nl, nlh, NULL);
}

static int pol_flush(struct mnl_socket *nl)
{
	return talk(nl, msg_start(XFRM_MSG_FLUSHPOLICY, 0), NULL);
}

static int pol_dump(struct mnl_socket *nl, struct heard *answer)
{
	struct nlmsghdr *nlh = msg_start(XFRM_MSG_GETPOLICY, NLM_F_DUMP);

	return talk(nl, nlh, answer);
}

/* The action of the policy there is for @pol's selector, or an error. */
static int pol_action(struct mnl_socket *nl, const struct pol *pol)
{
	const struct xfrm_userpolicy_info *info;
	struct heard answer = {};
	int ret;

	ret = pol_id(nl, XFRM_MSG_GETPOLICY, pol, 0, &answer);
	if (!ret && answer.nr != 1)
		ret = -EBADMSG;
	if (!ret) {
		info = mnl_nlmsg_get_payload(answer.msg[0]);
		ret = info->action;
	}
	forget(&answer);

	return ret;
}

static __u32 pol_index(struct mnl_socket *nl, const struct pol *pol)
{
	const struct xfrm_userpolicy_info *info;
	struct heard answer = {};
	__u32 ret = 0;

	if (!pol_id(nl, XFRM_MSG_GETPOLICY, pol, 0, &answer) &&
	    answer.nr == 1) {
		info = mnl_nlmsg_get_payload(answer.msg[0]);
		ret = info->index;
	}
	forget(&answer);

	return ret;
}

static const void *attr(const struct nlmsghdr *nlh, size_t head, int type,
			size_t len)
{
	const struct nlattr *nla;

	mnl_attr_for_each(nla, nlh, head) {
		if (mnl_attr_get_type(nla) == type &&
		    mnl_attr_get_payload_len(nla) >= len)
			return mnl_attr_get_payload(nla);
	}

	return NULL;
}

static __u32 expire_spi(const struct nlmsghdr *nlh)
{
	const struct xfrm_user_expire *exp = mnl_nlmsg_get_payload(nlh);

	return ntohl(exp->state.id.spi);
}

static __u32 polexpire_index(const struct nlmsghdr *nlh)
{
	const struct xfrm_user_polexpire *upe = mnl_nlmsg_get_payload(nlh);

	return upe->pol.index;
}

/* How many expiries of the SA, and where the last one is. */
static unsigned int find_expire(const struct heard *heard, __u32 spi,
				struct nlmsghdr **nlh)
{
	unsigned int i, nr = 0;

	for (i = 0; i < heard->nr; i++) {
		if (heard->msg[i]->nlmsg_type != XFRM_MSG_EXPIRE ||
		    expire_spi(heard->msg[i]) != spi)
			continue;
		if (nlh)
			*nlh = heard->msg[i];
		nr++;
	}

	return nr;
}

static unsigned int find_polexpire(const struct heard *heard, __u32 index,
				   struct nlmsghdr **nlh)
{
	unsigned int i, nr = 0;

	for (i = 0; i < heard->nr; i++) {
		if (heard->msg[i]->nlmsg_type != XFRM_MSG_POLEXPIRE ||
		    polexpire_index(heard->msg[i]) != index)
			continue;
		if (nlh)
			*nlh = heard->msg[i];
		nr++;
	}

	return nr;
}

static unsigned int count(const struct heard *heard, __u16 type)
{
	unsigned int i, nr = 0;

	for (i = 0; i < heard->nr; i++)
		nr += heard->msg[i]->nlmsg_type == type;

	return nr;
}

static int write_file(const char *path, const char *fmt, unsigned int value)
{
	int fd = open(path, O_WRONLY);
	char text[32];
	int ret = 0;

	if (fd < 0)
		return -errno;
	snprintf(text, sizeof(text), fmt, value);
	if (write(fd, text, strlen(text)) < 0)
		ret = -errno;
	close(fd);

	return ret;
}

/* Sets @id only when the device is ours. */
static int nsim_new(unsigned int *id)
{
	unsigned int nr = 0;
	int i, err = -EBUSY;

	/* somebody else's may have the same number */
	for (i = 0; i < 100 && err; i++) {
		nr = 1000 + (getpid() * 100 + i) % 1000000;
		err = write_file(NSIM_BUS "/new_device", "%u 1", nr);
		if (err == -ENOENT || err == -EACCES)
			break;
	}
	if (!err)
		*id = nr;

	return err;
}

static int nsim_del(unsigned int id)
{
	return write_file(NSIM_BUS "/del_device", "%u", id);
}

static int link_set(const char *name, bool up)
{
	struct ifreq ifr = {};
	int fd, ret = 0;

	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0)
		return -errno;
	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	if (ioctl(fd, SIOCGIFFLAGS, &ifr)) {
		ret = -errno;
	} else {
		ifr.ifr_flags = up ? ifr.ifr_flags | IFF_UP :
				     ifr.ifr_flags & ~IFF_UP;
		if (ioctl(fd, SIOCSIFFLAGS, &ifr))
			ret = -errno;
	}
	close(fd);

	return ret;
}

/* LOCAL on the device, and a neighbour PEER that needs no answer. */
static int addr_set(const char *name)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	struct arpreq arp = { .arp_flags = ATF_COM | ATF_PERM };
	struct ifreq ifr = {};
	int fd, ret = 0;

	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0)
		return -errno;
	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	strncpy(arp.arp_dev, name, sizeof(arp.arp_dev) - 1);

	sin.sin_addr.s_addr = ip(LOCAL);
	memcpy(&ifr.ifr_addr, &sin, sizeof(sin));
	if (ioctl(fd, SIOCSIFADDR, &ifr))
		ret = -errno;

	sin.sin_addr.s_addr = ip(PEER);
	memcpy(&arp.arp_pa, &sin, sizeof(sin));
	arp.arp_ha.sa_family = ARPHRD_ETHER;
	memset(arp.arp_ha.sa_data, 2, ETH_ALEN);
	if (!ret && ioctl(fd, SIOCSARP, &arp))
		ret = -errno;
	close(fd);

	return ret;
}

/* Returns how many datagrams the stack took. */
static int send_datagrams(int nr, size_t len)
{
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons(4000),
		.sin_addr.s_addr = ip(PEER),
	};
	char data[256] = {};
	int fd, sent = 0;

	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0)
		return -errno;
	while (nr--)
		sent += sendto(fd, data, len, 0, (struct sockaddr *)&to,
			       sizeof(to)) == len;
	close(fd);

	return sent;
}

FIXTURE(xfrm_devgone)
{
	struct mnl_socket *nl;		/* asks */
	struct mnl_socket *ev;		/* hears of expiries, what it joins */
	unsigned int id, other_id;
	bool gone;
	char name[IFNAMSIZ];
	int ifindex;
	__u32 sentinels;
	struct heard heard;
};

FIXTURE_VARIANT(xfrm_devgone)
{
	enum trigger trigger;
};

FIXTURE_VARIANT_ADD(xfrm_devgone, down) {
	.trigger = DOWN,
};

FIXTURE_VARIANT_ADD(xfrm_devgone, remove) {
	.trigger = REMOVE,
};

static struct mnl_socket *open_nl(void)
{
	struct mnl_socket *nl = mnl_socket_open(NETLINK_XFRM);
	struct timeval tv = { .tv_sec = TIMEOUT_MS / 1000 };

	if (!nl)
		return NULL;
	if (mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) ||
	    setsockopt(mnl_socket_get_fd(nl), SOL_SOCKET, SO_RCVTIMEO, &tv,
		       sizeof(tv))) {
		mnl_socket_close(nl);
		return NULL;
	}

	return nl;
}

static int join(struct mnl_socket *nl, int group)
{
	return mnl_socket_setsockopt(nl, NETLINK_ADD_MEMBERSHIP, &group,
				     sizeof(group));
}

static void set_rcvbuf(struct mnl_socket *nl, int option, int size)
{
	setsockopt(mnl_socket_get_fd(nl), SOL_SOCKET, option, &size,
		   sizeof(size));
}

/* Somebody who hears of expiries, with room for all that a test can make. */
static struct mnl_socket *open_ev(void)
{
	struct mnl_socket *nl = open_nl();

	if (!nl)
		return NULL;
	set_rcvbuf(nl, SO_RCVBUFFORCE, 16 << 20);
	if (join(nl, XFRMNLGRP_EXPIRE)) {
		mnl_socket_close(nl);
		return NULL;
	}

	return nl;
}

/* Sets up what there is in this netns: the device, and what a kernel puts into
 * each.
 */
static int find_device(struct _test_data_xfrm_devgone *self)
{
	struct if_nameindex *names = if_nameindex(), *pos;

	if (!names)
		return -errno;
	for (pos = names; pos->if_index; pos++) {
		link_set(pos->if_name, true);
		if (strncmp(pos->if_name, "en", 2) &&
		    strncmp(pos->if_name, "eth", 3))
			continue;
		strncpy(self->name, pos->if_name, IFNAMSIZ - 1);
		self->ifindex = pos->if_index;
	}
	if_freenameindex(names);

	return self->ifindex ? 0 : -ENODEV;
}

/* The harness does not tear down what a setup that fails or skips leaves, and
 * a device would go on in init_net: nothing may end this while there is one.
 */
FIXTURE_SETUP(xfrm_devgone)
{
	struct sa sa = { .spi = 0x9999, .dir = XFRM_SA_DIR_OUT };
	char path[128];
	bool offloads;
	int err;

	if (unshare(CLONE_NEWNET)) {
		ASSERT_EQ(errno, EPERM);
		SKIP(return, "needs root: cannot make a network namespace");
	}
	if (access(NSIM_BUS, F_OK) && system("modprobe netdevsim 2>/dev/null"))
		SKIP(return, "no netdevsim (CONFIG_NETDEVSIM)");
	self->nl = open_nl();
	if (!self->nl)
		SKIP(return, "no NETLINK_XFRM (CONFIG_XFRM_USER)");
	err = sa_add(self->nl, &sa);
	if (err)
		SKIP(return, "no ESP with AES-GCM (CONFIG_INET_ESP): %s",
		     strerror(-err));
	ASSERT_EQ(sa_del(self->nl, &sa), 0);
	self->ev = open_ev();
	ASSERT_NE(self->ev, NULL);

	err = nsim_new(&self->id);
	if (err == -ENOENT || err == -EACCES)
		SKIP(return, "cannot use " NSIM_BUS ": %s", strerror(-err));
	ASSERT_EQ(err, 0);
	err = find_device(self);
	if (!err) {
		sa.ifindex = self->ifindex;
		sa.packet = true;
		err = sa_add(self->nl, &sa);
	}
	if (!err)
		err = sa_del(self->nl, &sa);
	snprintf(path, sizeof(path), NSIM_DEBUG "ipsec_counters", self->id);
	offloads = !access(path, F_OK);
	if (err)
		nsim_del(self->id);
	if (err && !offloads)
		SKIP(return, "no packet offload (CONFIG_INET_ESP_OFFLOAD): %s",
		     strerror(-err));
	ASSERT_EQ(err, 0);
}

FIXTURE_TEARDOWN(xfrm_devgone)
{
	if (self->id && !self->gone)
		EXPECT_EQ(nsim_del(self->id), 0);
	if (self->other_id)
		EXPECT_EQ(nsim_del(self->other_id), 0);
	forget(&self->heard);
	if (self->ev)
		mnl_socket_close(self->ev);
	if (self->nl)
		mnl_socket_close(self->nl);
}

static void depart(struct __test_metadata *_metadata,
		   struct _test_data_xfrm_devgone *self, enum trigger trigger)
{
	if (trigger == DOWN) {
		ASSERT_EQ(link_set(self->name, false), 0);
	} else {
		ASSERT_EQ(nsim_del(self->id), 0);
		self->gone = true;
	}
}

/* A software SA that tells when its lifetime of @seconds is over. */
static __u32 sentinel(struct __test_metadata *_metadata,
		      struct _test_data_xfrm_devgone *self, int seconds)
{
	struct sa sa = {
		.spi = SENTINEL + self->sentinels++,
		.hard_add = seconds,
	};

	ASSERT_EQ(sa_add(self->nl, &sa), 0);

	return sa.spi;
}

/* Takes all messages up to the sentinel's expiry, which does not count. */
static void listen_for(struct __test_metadata *_metadata,
		       struct _test_data_xfrm_devgone *self, __u32 spi)
{
	char rbuf[32768];

	for (;;) {
		struct nlmsghdr *pos;
		int len;

		len = mnl_socket_recvfrom(self->ev, rbuf, sizeof(rbuf));
		ASSERT_GT(len, 0) {
			TH_LOG("no sentinel: %s", strerror(errno));
		}
		for (pos = (struct nlmsghdr *)rbuf; mnl_nlmsg_ok(pos, len);
		     pos = mnl_nlmsg_next(pos, &len)) {
			if (pos->nlmsg_type == XFRM_MSG_EXPIRE &&
			    expire_spi(pos) == spi)
				return;
			keep(&self->heard, pos);
		}
	}
}

static void settle(struct __test_metadata *_metadata,
		   struct _test_data_xfrm_devgone *self)
{
	listen_for(_metadata, self, sentinel(_metadata, self, 1));
}

static void check_expire(struct __test_metadata *_metadata,
			 const struct nlmsghdr *nlh, const struct sa *sa)
{
	const struct xfrm_user_expire *exp = mnl_nlmsg_get_payload(nlh);
	const size_t head = sizeof(*exp);
	const struct xfrm_mark *mark;
	struct xfrm_selector sel;
	xfrm_address_t saddr;
	struct xfrm_id id;
	const __u32 *val;
	const __u8 *dir;

	/* no task has asked for it */
	EXPECT_EQ(nlh->nlmsg_pid, 0);
	EXPECT_EQ(nlh->nlmsg_seq, 0);
	ASSERT_GE(mnl_nlmsg_get_payload_len(nlh), head);
	EXPECT_EQ(exp->hard, 1);

	sa_id(sa, &saddr, &id);
	sa_sel(sa, &sel);
	EXPECT_EQ(memcmp(&exp->state.id, &id, sizeof(id)), 0);
	EXPECT_EQ(memcmp(&exp->state.saddr, &saddr, sizeof(saddr)), 0);
	EXPECT_EQ(memcmp(&exp->state.sel, &sel, sizeof(sel)), 0);
	EXPECT_EQ(exp->state.family, sa->tunnel6 ? AF_INET6 : AF_INET);
	EXPECT_EQ(exp->state.mode,
		  sa->tunnel6 ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT);
	EXPECT_EQ(exp->state.reqid, REQID);
	EXPECT_EQ(exp->state.lft.hard_add_expires_seconds, sa->hard_add);
	EXPECT_EQ(exp->state.lft.hard_packet_limit, XFRM_INF);
	EXPECT_NE(exp->state.curlft.add_time, 0);

	mark = attr(nlh, head, XFRMA_MARK, sizeof(*mark));
	ASSERT_EQ(!mark, !sa->mark.m);
	if (mark)
		EXPECT_EQ(memcmp(mark, &sa->mark, sizeof(*mark)), 0);
	val = attr(nlh, head, XFRMA_IF_ID, sizeof(*val));
	ASSERT_EQ(!val, !sa->if_id);
	if (val)
		EXPECT_EQ(*val, sa->if_id);
	dir = attr(nlh, head, XFRMA_SA_DIR, sizeof(*dir));
	ASSERT_EQ(!dir, !sa->dir);
	if (dir)
		EXPECT_EQ(*dir, sa->dir);
	val = attr(nlh, head, XFRMA_SA_PCPU, sizeof(*val));
	ASSERT_EQ(!val, !sa->pcpu);
	if (val)
		EXPECT_EQ(*val, sa->pcpu - 1);
	/* and nothing of a device that is not there */
	EXPECT_EQ(attr(nlh, head, XFRMA_OFFLOAD_DEV, 0), NULL);
}

/* Verifies the hard XFRM_MSG_EXPIRE of SAs whose device is gone, crypto and
 * packet offload, in and out, IPv4 in transport and IPv6 in tunnel mode, with
 * all optional attributes: it has what identifies the SA, comes once, and the
 * SA is gone then. Catches a departure that is not told (7.3 and before), a
 * message of somebody else's making, one that is too small for its attributes,
 * and a soft expiry.
 */
TEST_F_TIMEOUT(xfrm_devgone, expire_contents, 120)
{
	struct sa sa[] = {
		{ .dir = XFRM_SA_DIR_OUT },
		{ .dir = XFRM_SA_DIR_IN },
		{ .dir = XFRM_SA_DIR_OUT, .packet = true },
		{ .dir = XFRM_SA_DIR_IN, .packet = true },
		{ .dir = XFRM_SA_DIR_OUT, .tunnel6 = true },
		{ .dir = XFRM_SA_DIR_IN, .packet = true, .tunnel6 = true },
		{ .dir = 0, .packet = true, .hard_add = 86400 },
		{ .dir = XFRM_SA_DIR_OUT, .if_id = 0x1f },
		{ .dir = XFRM_SA_DIR_OUT, .packet = true, .if_id = 0x1f,
		  .mark = { .v = 5, .m = 0xff }, .pcpu = 1,
		  .hard_add = 86400 },
	};
	struct heard left = {};
	struct nlmsghdr *nlh;
	int i;

	ASSERT_EQ(join(self->ev, XFRMNLGRP_SA), 0);
	for (i = 0; i < ARRAY_SIZE(sa); i++) {
		sa[i].spi = 0x1000 + i;
		sa[i].ifindex = self->ifindex;
		ASSERT_EQ(sa_add(self->nl, &sa[i]), 0);
	}
	depart(_metadata, self, variant->trigger);
	settle(_metadata, self);

	for (i = 0; i < ARRAY_SIZE(sa); i++) {
		ASSERT_EQ(find_expire(&self->heard, sa[i].spi, &nlh), 1) {
			TH_LOG("SA %d", i);
		}
		check_expire(_metadata, nlh, &sa[i]);
	}
	EXPECT_EQ(count(&self->heard, XFRM_MSG_EXPIRE), ARRAY_SIZE(sa));
	/* that nobody has deleted */
	EXPECT_EQ(count(&self->heard, XFRM_MSG_DELSA), 0);
	ASSERT_EQ(sa_dump(self->nl, &left), 0);
	EXPECT_EQ(left.nr, 0);
	forget(&left);
}

/* Verifies that the expiry has the last counters, which for packet offload
 * only the device knows. Catches a departure that deletes the SA in the driver
 * before its statistics have been fetched.
 */
static void counters(struct __test_metadata *_metadata,
		     struct _test_data_xfrm_devgone *self, enum trigger trigger,
		     bool packet)
{
	struct sa sa = {
		.spi = 0x1000,
		.dir = XFRM_SA_DIR_OUT,
		.ifindex = self->ifindex,
		.packet = packet,
	};
	struct pol pol = {
		.dir = XFRM_POLICY_OUT,
		.ifindex = packet ? self->ifindex : 0,
	};
	const struct xfrm_user_expire *exp;
	struct nlmsghdr *nlh;

	ASSERT_EQ(addr_set(self->name), 0);
	ASSERT_EQ(sa_add(self->nl, &sa), 0);
	ASSERT_EQ(pol_add(self->nl, &pol), 0);
	ASSERT_EQ(send_datagrams(10, 100), 10);
	depart(_metadata, self, trigger);
	settle(_metadata, self);

	ASSERT_EQ(find_expire(&self->heard, sa.spi, &nlh), 1);
	exp = mnl_nlmsg_get_payload(nlh);
	EXPECT_EQ(exp->state.curlft.packets, 10);
	EXPECT_GE(exp->state.curlft.bytes, 10 * 100);
}

TEST_F_TIMEOUT(xfrm_devgone, counters_crypto, 120)
{
	counters(_metadata, self, variant->trigger, false);
}

TEST_F_TIMEOUT(xfrm_devgone, counters_packet, 120)
{
	counters(_metadata, self, variant->trigger, true);
}

static void check_policy(struct __test_metadata *_metadata,
			 const struct nlmsghdr *nlh, size_t head,
			 const struct pol *pol, __u32 index, __u8 action)
{
	const struct xfrm_userpolicy_info *info = mnl_nlmsg_get_payload(nlh);
	const struct xfrm_user_tmpl *tmpl;
	const struct xfrm_mark *mark;
	struct xfrm_user_tmpl want;
	struct xfrm_selector sel;
	const __u32 *if_id;
	const __u8 *type;

	ASSERT_GE(mnl_nlmsg_get_payload_len(nlh), head);
	pol_sel(pol, &sel);
	EXPECT_EQ(memcmp(&info->sel, &sel, sizeof(sel)), 0);
	EXPECT_EQ(info->index, index);
	EXPECT_EQ(info->dir, pol->dir);
	EXPECT_EQ(info->priority, pol->priority);
	EXPECT_EQ(info->lft.hard_add_expires_seconds, pol->hard_add);
	EXPECT_EQ(info->action, action);
	EXPECT_NE(info->curlft.add_time, 0);

	tmpl = attr(nlh, head, XFRMA_TMPL, sizeof(*tmpl));
	ASSERT_EQ(!tmpl, pol->bypass);
	if (tmpl) {
		pol_tmpl(pol, &want);
		EXPECT_EQ(memcmp(tmpl, &want, sizeof(want)), 0);
	}
	mark = attr(nlh, head, XFRMA_MARK, sizeof(*mark));
	ASSERT_EQ(!mark, !pol->mark.m);
	if (mark)
		EXPECT_EQ(memcmp(mark, &pol->mark, sizeof(*mark)), 0);
	if_id = attr(nlh, head, XFRMA_IF_ID, sizeof(*if_id));
	ASSERT_EQ(!if_id, !pol->if_id);
	if (if_id)
		EXPECT_EQ(*if_id, pol->if_id);
	/* depends on CONFIG_XFRM_SUB_POLICY */
	type = attr(nlh, head, XFRMA_POLICY_TYPE, sizeof(*type));
	if (type)
		EXPECT_EQ(*type, XFRM_POLICY_TYPE_MAIN);
	EXPECT_EQ(attr(nlh, head, XFRMA_OFFLOAD_DEV, 0), NULL);
}

/* Verifies the hard XFRM_MSG_POLEXPIRE of policies whose device is gone: out,
 * in and fwd, protecting, blocking and bypassing, IPv4 in transport and IPv6 in
 * tunnel mode, with all optional attributes. It comes once and shows what the
 * policy does from then on. Catches policies that vanish without a word (7.3
 * and before), and a kernel-internal action value that leaks to user space.
 */
TEST_F_TIMEOUT(xfrm_devgone, polexpire_contents, 120)
{
	struct pol pol[] = {
		{ .dir = XFRM_POLICY_OUT },
		{ .dir = XFRM_POLICY_IN },
		{ .dir = XFRM_POLICY_FWD },
		{ .dir = XFRM_POLICY_OUT, .tunnel6 = true },
		{ .dir = XFRM_POLICY_FWD, .tunnel6 = true },
		{ .dir = XFRM_POLICY_OUT, .inexact = true, .priority = 17 },
		{ .dir = XFRM_POLICY_OUT, .action = XFRM_POLICY_BLOCK,
		  .bypass = true },
		{ .dir = XFRM_POLICY_OUT, .bypass = true },
		{ .dir = XFRM_POLICY_OUT, .if_id = 0x1f, .priority = 17,
		  .mark = { .v = 5, .m = 0xff }, .hard_add = 86400 },
	};
	__u32 index[ARRAY_SIZE(pol)];
	struct nlmsghdr *nlh;
	__u8 action;
	int i;

	ASSERT_EQ(join(self->ev, XFRMNLGRP_POLICY), 0);
	for (i = 0; i < ARRAY_SIZE(pol); i++) {
		pol[i].nr = i + 1;
		pol[i].ifindex = self->ifindex;
		ASSERT_EQ(pol_add(self->nl, &pol[i]), 0);
		index[i] = pol_index(self->nl, &pol[i]);
		ASSERT_NE(index[i], 0);
	}
	depart(_metadata, self, variant->trigger);
	settle(_metadata, self);

	for (i = 0; i < ARRAY_SIZE(pol); i++) {
		const struct xfrm_user_polexpire *upe;

		ASSERT_EQ(find_polexpire(&self->heard, index[i], &nlh), 1) {
			TH_LOG("policy %d", i);
		}
		upe = mnl_nlmsg_get_payload(nlh);
		EXPECT_EQ(nlh->nlmsg_pid, 0);
		EXPECT_EQ(nlh->nlmsg_seq, 0);
		EXPECT_EQ(upe->hard, 1);
		action = XFRM_POLICY_BLOCK;
		if (pol[i].bypass && pol[i].action == XFRM_POLICY_ALLOW)
			action = XFRM_POLICY_ALLOW;
		check_policy(_metadata, nlh, sizeof(*upe), &pol[i], index[i],
			     action);
	}
	EXPECT_EQ(count(&self->heard, XFRM_MSG_POLEXPIRE), ARRAY_SIZE(pol));
	EXPECT_EQ(count(&self->heard, XFRM_MSG_DELPOLICY), 0);
}

/* Verifies what XFRM_MSG_GETPOLICY, by selector and by index, and a dump show
 * of policies that stay: action block, no device, all else as before; and that
 * one that only let packets pass is not there any more. Catches policies that
 * are deleted, and a dump that follows a device pointer that is gone.
 */
TEST_F_TIMEOUT(xfrm_devgone, getpolicy, 120)
{
	struct pol pol[] = {
		{ .dir = XFRM_POLICY_OUT, .priority = 3 },
		{ .dir = XFRM_POLICY_IN, .inexact = true },
		{ .dir = XFRM_POLICY_FWD, .if_id = 0x1f,
		  .mark = { .v = 5, .m = 0xff } },
	};
	struct pol pass = {
		.nr = 100,
		.dir = XFRM_POLICY_OUT,
		.ifindex = self->ifindex,
		.bypass = true,
	};
	__u32 index[ARRAY_SIZE(pol)];
	struct heard answer = {};
	int i;

	for (i = 0; i < ARRAY_SIZE(pol); i++) {
		pol[i].nr = i + 1;
		pol[i].ifindex = self->ifindex;
		ASSERT_EQ(pol_add(self->nl, &pol[i]), 0);
		index[i] = pol_index(self->nl, &pol[i]);
		ASSERT_NE(index[i], 0);
	}
	ASSERT_EQ(pol_add(self->nl, &pass), 0);
	depart(_metadata, self, variant->trigger);
	settle(_metadata, self);

	for (i = 0; i < ARRAY_SIZE(pol); i++) {
		ASSERT_EQ(pol_id(self->nl, XFRM_MSG_GETPOLICY, &pol[i], 0,
				 &answer), 0);
		ASSERT_EQ(pol_id(self->nl, XFRM_MSG_GETPOLICY, &pol[i],
				 index[i], &answer), 0);
		ASSERT_EQ(answer.nr, 2);
		check_policy(_metadata, answer.msg[0],
			     sizeof(struct xfrm_userpolicy_info), &pol[i],
			     index[i], XFRM_POLICY_BLOCK);
		check_policy(_metadata, answer.msg[1],
			     sizeof(struct xfrm_userpolicy_info), &pol[i],
			     index[i], XFRM_POLICY_BLOCK);
		forget(&answer);
	}
	EXPECT_EQ(pol_action(self->nl, &pass), -ENOENT);

	ASSERT_EQ(pol_dump(self->nl, &answer), 0);
	EXPECT_EQ(answer.nr, ARRAY_SIZE(pol));
	forget(&answer);
}

/* Verifies the answers that a key manager gets which does not know of kept
 * policies: the one it adds takes the place of the one that has expired for it,
 * once, with an index that no expiry refers to; update, delete and flush work
 * as ever. Exact selectors and prefixes, which the kernel keeps in different
 * places. Catches -EEXIST for the first XFRM_MSG_NEWPOLICY, no -EEXIST for the
 * second one, and policies that vanish.
 */
static void answers(struct __test_metadata *_metadata,
		    struct _test_data_xfrm_devgone *self, enum trigger trigger,
		    bool inexact)
{
	enum { NEW, UPD, DEL, DEL_INDEX, FLUSH, NR };
	struct pol pol[NR] = {};
	struct nlmsghdr *nlh;
	__u32 index[NR];
	int i;

	ASSERT_EQ(join(self->ev, XFRMNLGRP_POLICY), 0);
	for (i = 0; i < NR; i++) {
		pol[i].nr = i + 1;
		pol[i].dir = XFRM_POLICY_OUT;
		pol[i].inexact = inexact;
		pol[i].ifindex = self->ifindex;
		ASSERT_EQ(pol_add(self->nl, &pol[i]), 0);
		index[i] = pol_index(self->nl, &pol[i]);
	}
	ASSERT_EQ(pol_add(self->nl, &pol[NEW]), -EEXIST);
	depart(_metadata, self, trigger);
	settle(_metadata, self);
	for (i = 0; i < NR; i++) {
		EXPECT_EQ(pol_action(self->nl, &pol[i]), XFRM_POLICY_BLOCK);
		/* in software this time */
		pol[i].ifindex = 0;
	}

	EXPECT_EQ(pol_add(self->nl, &pol[NEW]), 0);
	EXPECT_EQ(pol_action(self->nl, &pol[NEW]), XFRM_POLICY_ALLOW);
	EXPECT_NE(pol_index(self->nl, &pol[NEW]), index[NEW]);
	EXPECT_EQ(pol_add(self->nl, &pol[NEW]), -EEXIST);

	EXPECT_EQ(pol_set(self->nl, XFRM_MSG_UPDPOLICY, &pol[UPD]), 0);
	EXPECT_EQ(pol_action(self->nl, &pol[UPD]), XFRM_POLICY_ALLOW);
	EXPECT_EQ(pol_add(self->nl, &pol[UPD]), -EEXIST);

	EXPECT_EQ(pol_id(self->nl, XFRM_MSG_DELPOLICY, &pol[DEL], 0, NULL), 0);
	EXPECT_EQ(pol_action(self->nl, &pol[DEL]), -ENOENT);
	EXPECT_EQ(pol_id(self->nl, XFRM_MSG_DELPOLICY, &pol[DEL], 0, NULL),
		  -ENOENT);

	EXPECT_EQ(pol_id(self->nl, XFRM_MSG_DELPOLICY, &pol[DEL_INDEX],
			 index[DEL_INDEX], NULL), 0);
	EXPECT_EQ(pol_action(self->nl, &pol[DEL_INDEX]), -ENOENT);

	EXPECT_EQ(pol_flush(self->nl), 0);
	EXPECT_EQ(pol_action(self->nl, &pol[FLUSH]), -ENOENT);

	/* All that is not told a second time, and changes as ever are. */
	settle(_metadata, self);
	for (i = 0; i < NR; i++)
		EXPECT_EQ(find_polexpire(&self->heard, index[i], &nlh), 1);
	EXPECT_EQ(count(&self->heard, XFRM_MSG_NEWPOLICY), NR + 1);
	EXPECT_EQ(count(&self->heard, XFRM_MSG_UPDPOLICY), 1);
	EXPECT_EQ(count(&self->heard, XFRM_MSG_DELPOLICY), 2);
	EXPECT_EQ(count(&self->heard, XFRM_MSG_FLUSHPOLICY), 1);
}

TEST_F_TIMEOUT(xfrm_devgone, answers_exact, 120)
{
	answers(_metadata, self, variant->trigger, false);
}

TEST_F_TIMEOUT(xfrm_devgone, answers_prefix, 120)
{
	answers(_metadata, self, variant->trigger, true);
}

/* Verifies that a kept policy, which has expired, does not do so again when its
 * own lifetime is over: the block stays and there is no second message. Catches
 * a policy timer that goes on with the hard lifetime and opens what is blocked.
 */
TEST_F_TIMEOUT(xfrm_devgone, lifetime_of_kept_policy, 120)
{
	const char *slow = getenv("KSFT_MACHINE_SLOW");
	int lifetime = slow && !strcmp(slow, "yes") ? 15 : 3;
	struct pol pol = {
		.nr = 1,
		.dir = XFRM_POLICY_OUT,
		.ifindex = self->ifindex,
		.hard_add = lifetime,
	};
	time_t start = time(NULL);
	__u32 index, spi;

	ASSERT_EQ(pol_add(self->nl, &pol), 0);
	index = pol_index(self->nl, &pol);
	depart(_metadata, self, variant->trigger);
	if (time(NULL) - start >= lifetime)
		SKIP(return, "too slow for a lifetime of %d s", lifetime);
	spi = sentinel(_metadata, self, lifetime + 2);
	listen_for(_metadata, self, spi);

	EXPECT_EQ(find_polexpire(&self->heard, index, NULL), 1);
	EXPECT_EQ(pol_action(self->nl, &pol), XFRM_POLICY_BLOCK);
}

/* Verifies that a key manager that lets a kept policy expire itself deletes it,
 * that the others do not hear of an expiry twice, but of the deletion. Catches
 * a policy that stays, a second expiry, and a block that goes without a word.
 */
TEST_F_TIMEOUT(xfrm_devgone, own_polexpire, 120)
{
	struct pol pol[] = {
		{ .nr = 1, .dir = XFRM_POLICY_OUT, .ifindex = self->ifindex },
		{ .nr = 2, .dir = XFRM_POLICY_OUT, .ifindex = self->ifindex },
	};
	__u32 index[ARRAY_SIZE(pol)];
	int i;

	ASSERT_EQ(join(self->ev, XFRMNLGRP_POLICY), 0);
	for (i = 0; i < ARRAY_SIZE(pol); i++) {
		ASSERT_EQ(pol_add(self->nl, &pol[i]), 0);
		index[i] = pol_index(self->nl, &pol[i]);
	}
	depart(_metadata, self, variant->trigger);
	/* possibly before the kernel tells of it, and after that */
	EXPECT_EQ(pol_expire(self->nl, &pol[0]), 0);
	settle(_metadata, self);
	EXPECT_EQ(pol_expire(self->nl, &pol[1]), 0);
	settle(_metadata, self);

	for (i = 0; i < ARRAY_SIZE(pol); i++) {
		EXPECT_EQ(find_polexpire(&self->heard, index[i], NULL), 1);
		EXPECT_EQ(pol_action(self->nl, &pol[i]), -ENOENT);
	}
	EXPECT_EQ(count(&self->heard, XFRM_MSG_DELPOLICY), ARRAY_SIZE(pol));
}

/* Verifies that a kept policy cannot be migrated: its states are gone, and it
 * would go on to block without anybody who knows of it. One in software can.
 */
TEST_F_TIMEOUT(xfrm_devgone, migrate, 120)
{
	struct pol soft = { .nr = 2, .dir = XFRM_POLICY_OUT };
	struct pol pol = {
		.nr = 1,
		.dir = XFRM_POLICY_OUT,
		.ifindex = self->ifindex,
	};
	int err;

	ASSERT_EQ(pol_add(self->nl, &pol), 0);
	ASSERT_EQ(pol_add(self->nl, &soft), 0);
	err = pol_migrate(self->nl, &soft);
	if (err == -ENOPROTOOPT)
		SKIP(return, "no CONFIG_XFRM_MIGRATE");
	EXPECT_EQ(err, 0);
	depart(_metadata, self, variant->trigger);

	EXPECT_EQ(pol_action(self->nl, &pol), XFRM_POLICY_BLOCK);
	EXPECT_EQ(pol_migrate(self->nl, &pol), -ENOENT);
	EXPECT_EQ(pol_action(self->nl, &pol), XFRM_POLICY_BLOCK);
}

/* Verifies the order of messages: the expiry of an old object comes before the
 * news of its successor, also when that is added at once. A key manager would
 * take the new one for expired otherwise. Catches a replaced policy whose
 * expiry is not sent, or after that of its successor.
 */
TEST_F_TIMEOUT(xfrm_devgone, expiry_before_successor, 120)
{
	struct pol pol = {
		.nr = 1,
		.dir = XFRM_POLICY_OUT,
		.ifindex = self->ifindex,
	};
	struct pol del = {
		.nr = 2,
		.dir = XFRM_POLICY_OUT,
		.ifindex = self->ifindex,
	};
	struct sa sa = {
		.spi = 0x1000,
		.dir = XFRM_SA_DIR_OUT,
		.ifindex = self->ifindex,
	};
	int i, err, expire = -1, newsa = -1, newpol = -1, delpol = -1;
	int polexpire = -1, delexpire = -1;
	__u32 index, del_index;

	ASSERT_EQ(join(self->ev, XFRMNLGRP_SA), 0);
	ASSERT_EQ(join(self->ev, XFRMNLGRP_POLICY), 0);
	ASSERT_EQ(pol_add(self->nl, &pol), 0);
	ASSERT_EQ(pol_add(self->nl, &del), 0);
	ASSERT_EQ(sa_add(self->nl, &sa), 0);
	index = pol_index(self->nl, &pol);
	del_index = pol_index(self->nl, &del);
	depart(_metadata, self, variant->trigger);
	pol.ifindex = 0;
	sa.ifindex = 0;
	EXPECT_EQ(pol_add(self->nl, &pol), 0);
	EXPECT_EQ(pol_id(self->nl, XFRM_MSG_DELPOLICY, &del, 0, NULL), 0);
	/* until the old one has expired */
	do {
		err = sa_add(self->nl, &sa);
	} while (err == -EEXIST);
	EXPECT_EQ(err, 0);
	settle(_metadata, self);

	/* the last of each kind */
	for (i = 0; i < self->heard.nr; i++) {
		struct nlmsghdr *nlh = self->heard.msg[i];

		switch (nlh->nlmsg_type) {
		case XFRM_MSG_EXPIRE:
			expire = i;
			break;
		case XFRM_MSG_NEWSA: {
			const struct xfrm_usersa_info *info;

			info = mnl_nlmsg_get_payload(nlh);
			if (info->id.spi == htonl(sa.spi))
				newsa = i;
			break;
		}
		case XFRM_MSG_NEWPOLICY:
			newpol = i;
			break;
		case XFRM_MSG_DELPOLICY:
			delpol = i;
			break;
		case XFRM_MSG_POLEXPIRE:
			if (polexpire_index(nlh) == index)
				polexpire = i;
			if (polexpire_index(nlh) == del_index)
				delexpire = i;
			break;
		}
	}
	EXPECT_GE(expire, 0);
	EXPECT_LT(expire, newsa);
	EXPECT_GE(polexpire, 0);
	EXPECT_LT(polexpire, newpol);
	EXPECT_GE(delexpire, 0);
	EXPECT_LT(delexpire, delpol);
	EXPECT_EQ(find_expire(&self->heard, sa.spi, NULL), 1);
	EXPECT_EQ(find_polexpire(&self->heard, index, NULL), 1);
	EXPECT_EQ(find_polexpire(&self->heard, del_index, NULL), 1);
}

/* SAs and policies of others that come and go, and dumps. Writes to @ready once
 * that goes on, and counts in @added.
 */
static pid_t start_load(int nr, int ready, unsigned int *added)
{
	struct pol pol = { .dir = XFRM_POLICY_OUT, .inexact = true };
	struct sa sa = { .dir = XFRM_SA_DIR_OUT };
	pid_t parent = getpid(), pid = fork();
	struct mnl_socket *nl;

	if (pid)
		return pid;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	nl = open_nl();
	while (nl && getppid() == parent) {
		pol.nr = 1 + rand() % 100;
		sa.spi = 0x800000 + nr * 0x1000 + rand() % 0x1000;
		if (!sa_add(nl, &sa))
			__atomic_add_fetch(added, 1, __ATOMIC_RELAXED);
		pol_add(nl, &pol);
		if (rand() % 16 == 0) {
			sa_dump(nl, NULL);
			pol_dump(nl, NULL);
		}
		sa_del(nl, &sa);
		pol_id(nl, XFRM_MSG_DELPOLICY, &pol, 0, NULL);
		if (ready >= 0 && write(ready, "", 1) == 1) {
			close(ready);
			ready = -1;
		}
	}
	_exit(0);
}

static void stop_load(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

/* Verifies that of hundreds of SAs and policies each is heard to expire exactly
 * once, while two others add, delete and dump what does not belong to the
 * device, and that none of that is told as expired. Catches objects that a walk
 * misses or meets twice when the tables change under it.
 */
TEST_F_TIMEOUT(xfrm_devgone, exactly_once_under_load, 240)
{
	unsigned int i, nr = MANY, missed = 0, twice = 0;
	__u32 *index = calloc(MANY, sizeof(*index));
	struct pol pol = { .dir = XFRM_POLICY_OUT };
	struct sa sa = { .dir = XFRM_SA_DIR_OUT };
	unsigned int *added, before[2];
	char path[128], byte;
	pid_t load[2];
	int ready[2];

	ASSERT_NE(index, NULL);
	snprintf(path, sizeof(path), NSIM_DEBUG "ipsec_max_sa", self->id);
	/* as many as there are by default */
	if (write_file(path, "%u", MANY))
		nr = 33;

	sa.ifindex = self->ifindex;
	pol.ifindex = self->ifindex;
	for (i = 0; i < nr; i++) {
		sa.spi = 0x1000 + i;
		sa.packet = i & 1;
		ASSERT_EQ(sa_add(self->nl, &sa), 0);
		pol.nr = i + 1;
		ASSERT_EQ(pol_add(self->nl, &pol), 0);
		index[i] = pol_index(self->nl, &pol);
		ASSERT_NE(index[i], 0);
	}
	added = mmap(NULL, sizeof(before), PROT_READ | PROT_WRITE,
		     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(added, MAP_FAILED);
	ASSERT_EQ(pipe(ready), 0);
	for (i = 0; i < ARRAY_SIZE(load); i++)
		load[i] = start_load(i, ready[1], added + i);
	close(ready[1]);
	for (i = 0; i < ARRAY_SIZE(load); i++)
		ASSERT_EQ(read(ready[0], &byte, 1), 1);
	close(ready[0]);
	memcpy(before, added, sizeof(before));
	depart(_metadata, self, variant->trigger);
	listen_for(_metadata, self, sentinel(_metadata, self, 3));
	for (i = 0; i < ARRAY_SIZE(load); i++) {
		stop_load(load[i]);
		EXPECT_GT(added[i], before[i]);
	}
	munmap(added, sizeof(before));

	for (i = 0; i < nr; i++) {
		unsigned int heard[] = {
			find_expire(&self->heard, 0x1000 + i, NULL),
			find_polexpire(&self->heard, index[i], NULL),
		};

		missed += !heard[0] + !heard[1];
		twice += (heard[0] > 1) + (heard[1] > 1);
	}
	EXPECT_EQ(missed, 0);
	EXPECT_EQ(twice, 0);
	EXPECT_EQ(count(&self->heard, XFRM_MSG_EXPIRE), nr);
	EXPECT_EQ(count(&self->heard, XFRM_MSG_POLEXPIRE), nr);
	free(index);
}

/* Verifies what documentation promises a listener that is too slow: it gets
 * ENOBUFS, and what it then asks for is the truth: no SA of the device is left,
 * its policies block, those of others are there. Another listener has heard of
 * everything. Catches expiries that are dropped without an error, and objects
 * that only go once they have been heard of.
 */
TEST_F_TIMEOUT(xfrm_devgone, enobufs_and_resync, 120)
{
	struct sa sa = { .dir = XFRM_SA_DIR_OUT, .packet = true };
	unsigned int i, nr = 30, blocked = 0, lost = 0, got = 0;
	struct pol pol = { .dir = XFRM_POLICY_OUT };
	struct heard answer = {};
	struct mnl_socket *slow;
	char rbuf[8192];
	int len;

	slow = open_nl();
	ASSERT_NE(slow, NULL);
	/* the least there is */
	set_rcvbuf(slow, SO_RCVBUF, 1);
	ASSERT_EQ(join(slow, XFRMNLGRP_EXPIRE), 0);
	for (i = 0; i < nr; i++) {
		sa.spi = 0x1000 + i;
		sa.ifindex = self->ifindex;
		ASSERT_EQ(sa_add(self->nl, &sa), 0);
		pol.nr = i + 1;
		pol.ifindex = self->ifindex;
		ASSERT_EQ(pol_add(self->nl, &pol), 0);
	}
	sa.spi = 0x2000;
	sa.ifindex = 0;
	sa.packet = false;
	ASSERT_EQ(sa_add(self->nl, &sa), 0);
	pol.nr = nr + 1;
	pol.ifindex = 0;
	ASSERT_EQ(pol_add(self->nl, &pol), 0);

	depart(_metadata, self, variant->trigger);
	settle(_metadata, self);

	for (;;) {
		struct nlmsghdr *pos = (struct nlmsghdr *)rbuf;

		len = recv(mnl_socket_get_fd(slow), rbuf, sizeof(rbuf),
			   MSG_DONTWAIT);
		if (len < 0 && errno == ENOBUFS) {
			lost++;
			continue;
		}
		if (len <= 0)
			break;
		for (; mnl_nlmsg_ok(pos, len); pos = mnl_nlmsg_next(pos, &len))
			got += pos->nlmsg_type == XFRM_MSG_EXPIRE ||
			       pos->nlmsg_type == XFRM_MSG_POLEXPIRE;
	}
	EXPECT_EQ(errno, EAGAIN);
	EXPECT_GT(lost, 0);
	EXPECT_LT(got, 2 * nr);
	EXPECT_EQ(count(&self->heard, XFRM_MSG_EXPIRE), nr);
	EXPECT_EQ(count(&self->heard, XFRM_MSG_POLEXPIRE), nr);

	ASSERT_EQ(sa_dump(self->nl, &answer), 0);
	EXPECT_EQ(answer.nr, 1);
	forget(&answer);
	ASSERT_EQ(pol_dump(self->nl, &answer), 0);
	EXPECT_EQ(answer.nr, nr + 1);
	for (i = 0; i < answer.nr; i++) {
		const struct xfrm_userpolicy_info *info;

		info = mnl_nlmsg_get_payload(answer.msg[i]);
		blocked += info->action == XFRM_POLICY_BLOCK;
	}
	EXPECT_EQ(blocked, nr);
	forget(&answer);
	mnl_socket_close(slow);
}

/* Verifies that a listener whose receive buffer is nobody's concern hears of
 * a few hundred objects: their expiries are spread over some time. Catches
 * timers that all fire at once, inside the departure.
 */
TEST_F_TIMEOUT(xfrm_devgone, default_buffer, 240)
{
	struct sa sa = { .dir = XFRM_SA_DIR_OUT };
	unsigned int i, got = 0, lost = 0;
	struct mnl_socket *other;
	int fds[2], err = 0;
	char path[128];
	__u32 spi;
	pid_t pid;

	snprintf(path, sizeof(path), NSIM_DEBUG "ipsec_max_sa", self->id);
	if (write_file(path, "%u", MANY))
		SKIP(return, "no debugfs to raise the limit of SAs in");

	sa.ifindex = self->ifindex;
	for (i = 0; i < MANY; i++) {
		sa.spi = 0x1000 + i;
		ASSERT_EQ(sa_add(self->nl, &sa), 0);
	}

	/* It listens while the device departs. */
	spi = SENTINEL + self->sentinels;
	ASSERT_EQ(pipe(fds), 0);
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		struct sched_param prio = { .sched_priority = 1 };
		struct timeval limit = { .tv_sec = 30 };
		struct nlmsghdr *pos;
		char rbuf[8192];
		int len;

		/* This is about the buffer, not about who gets the CPU. */
		other = open_nl();
		if (!other || join(other, XFRMNLGRP_EXPIRE) ||
		    setsockopt(mnl_socket_get_fd(other), SOL_SOCKET,
			       SO_RCVTIMEO, &limit, sizeof(limit)))
			_exit(1);
		if (sched_setscheduler(0, SCHED_FIFO, &prio))
			err = errno;
		if (write(fds[1], &err, sizeof(err)) < 0 || err)
			_exit(1);
		for (;;) {
			len = mnl_socket_recvfrom(other, rbuf, sizeof(rbuf));
			if (len < 0 && errno == ENOBUFS)
				lost++;
			else if (len < 0) /* the sentinel was lost, too */
				goto out;
			for (pos = (struct nlmsghdr *)rbuf;
			     mnl_nlmsg_ok(pos, len);
			     pos = mnl_nlmsg_next(pos, &len)) {
				if (expire_spi(pos) == spi)
					goto out;
				got++;
			}
		}
out:
		if (write(fds[1], &got, sizeof(got)) < 0 ||
		    write(fds[1], &lost, sizeof(lost)) < 0)
			_exit(1);
		_exit(0);
	}
	close(fds[1]);
	ASSERT_EQ(read(fds[0], &err, sizeof(err)), sizeof(err));
	if (err)
		SKIP(return, "no SCHED_FIFO: %s", strerror(err));
	depart(_metadata, self, variant->trigger);
	listen_for(_metadata, self, sentinel(_metadata, self, 3));
	ASSERT_EQ(read(fds[0], &got, sizeof(got)), sizeof(got));
	ASSERT_EQ(read(fds[0], &lost, sizeof(lost)), sizeof(lost));
	waitpid(pid, NULL, 0);
	close(fds[0]);
	EXPECT_EQ(got, MANY);
	EXPECT_EQ(lost, 0);
}

/* PF_KEY extensions come one after the other, in units of eight bytes. */
static const void *pfkey_ext(const struct sadb_msg *msg, int type)
{
	const struct sadb_ext *ext = (const void *)(msg + 1);
	const void *end = (const char *)msg + msg->sadb_msg_len * 8;

	while ((const void *)(ext + 1) <= end && ext->sadb_ext_len) {
		if (ext->sadb_ext_type == type)
			return ext;
		ext = (const void *)((const char *)ext +
				     ext->sadb_ext_len * 8);
	}

	return NULL;
}

/* Verifies SADB_EXPIRE, which key managers without netlink listen to: one for
 * each SA, with a hard lifetime and the SPI, addresses and counters. Catches a
 * departure that one of the two protocols is not told of. SADB_REGISTER looks
 * for a module of each algorithm that is missing, which takes its time.
 */
TEST_F_TIMEOUT(xfrm_devgone, pfkey_expire, 300)
{
	struct sadb_msg reg = {
		.sadb_msg_version = PF_KEY_V2,
		.sadb_msg_type = SADB_REGISTER,
		.sadb_msg_satype = SADB_SATYPE_ESP,
		.sadb_msg_len = sizeof(struct sadb_msg) / 8,
		.sadb_msg_pid = getpid(),
	};
	struct timeval tv = { .tv_sec = TIMEOUT_MS / 1000 };
	struct pol pol = { .dir = XFRM_POLICY_OUT };
	struct sa sa = { .packet = true };
	unsigned int i, got[4] = {};
	bool end = false;
	char rbuf[8192];
	__u32 spi;
	int fd;

	fd = socket(PF_KEY, SOCK_RAW, PF_KEY_V2);
	if (fd < 0)
		SKIP(return, "no PF_KEY (CONFIG_NET_KEY): %s", strerror(errno));
	ASSERT_EQ(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof(tv)), 0);
	ASSERT_EQ(send(fd, &reg, sizeof(reg), 0), sizeof(reg));

	ASSERT_EQ(addr_set(self->name), 0);
	for (i = 0; i < ARRAY_SIZE(got); i++) {
		sa.spi = 0x1000 + i;
		sa.dir = i & 1 ? XFRM_SA_DIR_IN : XFRM_SA_DIR_OUT;
		sa.packet = i & 2;
		sa.ifindex = self->ifindex;
		ASSERT_EQ(sa_add(self->nl, &sa), 0);
	}
	pol.ifindex = self->ifindex;
	ASSERT_EQ(pol_add(self->nl, &pol), 0);
	ASSERT_EQ(send_datagrams(10, 100), 10);
	depart(_metadata, self, variant->trigger);
	spi = sentinel(_metadata, self, 1);

	while (!end) {
		const struct sadb_msg *msg = (struct sadb_msg *)rbuf;
		const struct sadb_lifetime *hard, *cur;
		const struct sadb_address *src, *dst;
		const struct sockaddr_in *from, *to;
		const struct sadb_sa *ext;

		ASSERT_GT(recv(fd, rbuf, sizeof(rbuf), 0), 0);
		if (msg->sadb_msg_type != SADB_EXPIRE)
			continue;
		ext = pfkey_ext(msg, SADB_EXT_SA);
		ASSERT_NE(ext, NULL);
		if (ext->sadb_sa_spi == htonl(spi)) {
			end = true;
			continue;
		}
		i = ntohl(ext->sadb_sa_spi) - 0x1000;
		ASSERT_LT(i, ARRAY_SIZE(got));
		got[i]++;

		EXPECT_EQ(msg->sadb_msg_errno, 0);
		EXPECT_EQ(msg->sadb_msg_pid, 0);
		EXPECT_EQ(msg->sadb_msg_satype, SADB_SATYPE_ESP);
		hard = pfkey_ext(msg, SADB_EXT_LIFETIME_HARD);
		EXPECT_NE(hard, NULL);
		EXPECT_EQ(pfkey_ext(msg, SADB_EXT_LIFETIME_SOFT), NULL);
		cur = pfkey_ext(msg, SADB_EXT_LIFETIME_CURRENT);
		ASSERT_NE(cur, NULL);
		/* the one that has taken the datagrams */
		EXPECT_EQ(cur->sadb_lifetime_allocations, i == 2 ? 10 : 0);
		src = pfkey_ext(msg, SADB_EXT_ADDRESS_SRC);
		dst = pfkey_ext(msg, SADB_EXT_ADDRESS_DST);
		ASSERT_NE(src, NULL);
		ASSERT_NE(dst, NULL);
		from = (const void *)(src + 1);
		to = (const void *)(dst + 1);
		EXPECT_EQ(from->sin_addr.s_addr, ip(i & 1 ? PEER : LOCAL));
		EXPECT_EQ(to->sin_addr.s_addr, ip(i & 1 ? LOCAL : PEER));
	}
	for (i = 0; i < ARRAY_SIZE(got); i++)
		EXPECT_EQ(got[i], 1);
	close(fd);
}

/* Verifies that nobody is told of what is not the device's: software SAs and
 * policies, and those of another device, which go on as if nothing had been.
 * Catches a walk that takes too much.
 */
TEST_F_TIMEOUT(xfrm_devgone, bystanders, 120)
{
	struct pol pol = { .dir = XFRM_POLICY_OUT };
	struct sa sa = { .dir = XFRM_SA_DIR_OUT };
	struct if_nameindex *names, *pos;
	int i, ifindex[3] = { 0 };
	struct heard answer = {};

	ASSERT_EQ(nsim_new(&self->other_id), 0);
	names = if_nameindex();
	ASSERT_NE(names, NULL);
	for (pos = names; pos->if_index; pos++) {
		if (pos->if_index > self->ifindex)
			ifindex[1] = pos->if_index;
		link_set(pos->if_name, true);
	}
	if_freenameindex(names);
	ASSERT_NE(ifindex[1], 0);
	ifindex[2] = self->ifindex;

	for (i = 0; i < ARRAY_SIZE(ifindex); i++) {
		sa.spi = 0x1000 + i;
		sa.ifindex = ifindex[i];
		sa.packet = sa.ifindex;
		ASSERT_EQ(sa_add(self->nl, &sa), 0);
		pol.nr = 1 + i;
		pol.ifindex = ifindex[i];
		ASSERT_EQ(pol_add(self->nl, &pol), 0);
	}
	depart(_metadata, self, variant->trigger);
	settle(_metadata, self);

	EXPECT_EQ(count(&self->heard, XFRM_MSG_EXPIRE), 1);
	EXPECT_EQ(find_expire(&self->heard, 0x1002, NULL), 1);
	EXPECT_EQ(count(&self->heard, XFRM_MSG_POLEXPIRE), 1);
	ASSERT_EQ(sa_dump(self->nl, &answer), 0);
	EXPECT_EQ(answer.nr, 2);
	forget(&answer);
	for (i = 0; i < ARRAY_SIZE(ifindex); i++) {
		pol.nr = 1 + i;
		EXPECT_EQ(pol_action(self->nl, &pol),
			  ifindex[i] == self->ifindex ? XFRM_POLICY_BLOCK :
							XFRM_POLICY_ALLOW);
	}
}

TEST_HARNESS_MAIN
#endif /* HAVE_LIBMNL */
