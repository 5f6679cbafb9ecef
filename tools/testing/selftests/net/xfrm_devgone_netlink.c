// SPDX-License-Identifier: GPL-2.0
/* What the kernel sends to key managers, and what it answers them, when a
 * device with IPsec offload goes away: what ip(8) and xfrm_devgone*.sh cannot
 * ask. Each test has a netns with a netdevsim of its own.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
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
#include <linux/udp.h>
#include <linux/xfrm.h>

#include "kselftest_harness.h"

#define NSIM_BUS	"/sys/bus/netdevsim"
#define NSIM_DEBUG	"/sys/kernel/debug/netdevsim/netdevsim%u/ports/0/%s"
#define SENTINEL	0x5e111000
#define MANY		400
#define WAIT_MS		30000

#define LOCAL		"10.0.0.1"
#define PEER		"10.0.0.2"

struct sa {
	__u32 spi;		/* also the reqid */
	__u8 dir;		/* XFRM_SA_DIR_*, 0 for none */
	int ifindex;		/* 0 for no offload */
	bool packet;
	__u32 if_id;
	struct xfrm_mark mark;
	__u32 pcpu;		/* 1 + number, 0 for none */
	__u64 hard_add;
};

struct pol {
	int nr;			/* makes the selector, 0 is PEER */
	__u8 dir;
	int ifindex;
	int tmpls;
	__u8 action;
	__u32 reqid;
	__u32 priority;
	__u32 if_id;
	struct xfrm_mark mark;
};

/* Messages in the order of their arrival */
struct heard {
	struct nlmsghdr **msg;
	unsigned int nr;
};

static char buf[65536];
static char extack[256];	/* of the last answer */

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
	saddr->a4 = inet_addr(sa_in(sa) ? PEER : LOCAL);
	id->daddr.a4 = inet_addr(sa_in(sa) ? LOCAL : PEER);
}

static void sa_sel(const struct sa *sa, struct xfrm_selector *sel)
{
	memset(sel, 0, sizeof(*sel));
	sel->saddr.a4 = inet_addr(sa_in(sa) ? PEER : LOCAL);
	sel->daddr.a4 = inet_addr(sa_in(sa) ? LOCAL : PEER);
	sel->prefixlen_s = 32;
	sel->prefixlen_d = 32;
	sel->family = AF_INET;
}

static void usersa_id(const struct sa *sa, struct xfrm_usersa_id *to)
{
	xfrm_address_t saddr;
	struct xfrm_id id;

	sa_id(sa, &saddr, &id);
	to->daddr = id.daddr;
	to->spi = id.spi;
	to->proto = id.proto;
	to->family = AF_INET;
}

static void pol_sel(const struct pol *pol, struct xfrm_selector *sel)
{
	memset(sel, 0, sizeof(*sel));
	sel->saddr.a4 = inet_addr(LOCAL);
	sel->daddr.a4 = pol->nr ? htonl(0x0a010000 + pol->nr) : inet_addr(PEER);
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

static struct nlmsghdr *start(__u16 type, __u16 flags)
{
	struct nlmsghdr *nlh = mnl_nlmsg_put_header(buf);

	nlh->nlmsg_type = type;
	nlh->nlmsg_flags = NLM_F_REQUEST | flags;

	return nlh;
}

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

static void keep_extack(const struct nlmsghdr *nlh)
{
	size_t head = sizeof(struct nlmsgerr);
	const struct nlmsgerr *err = mnl_nlmsg_get_payload(nlh);
	const struct nlattr *nla;

	extack[0] = 0;
	if (!(nlh->nlmsg_flags & NLM_F_ACK_TLVS))
		return;
	if (!(nlh->nlmsg_flags & NLM_F_CAPPED))
		head += mnl_nlmsg_get_payload_len(nlh) > sizeof(*err) ?
			err->msg.nlmsg_len - sizeof(err->msg) : 0;
	mnl_attr_for_each(nla, nlh, MNL_ALIGN(head))
		if (mnl_attr_get_type(nla) == NLMSGERR_ATTR_MSG)
			snprintf(extack, sizeof(extack), "%s",
				 mnl_attr_get_str(nla));
}

/* Returns 0 or the error that the kernel answers with. */
static int talk(struct mnl_socket *nl, struct nlmsghdr *nlh,
		struct heard *answer)
{
	static unsigned int seq;
	struct nlmsghdr *pos;
	char rbuf[32768];
	int len;

	if (!(nlh->nlmsg_flags & NLM_F_DUMP))
		nlh->nlmsg_flags |= NLM_F_ACK;
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
				keep_extack(pos);
				return err->error;
			}
			if (answer)
				keep(answer, pos);
		}
	}
}

/* XFRM_MSG_NEWSA or XFRM_MSG_UPDSA */
static int sa_set(struct mnl_socket *nl, __u16 type, const struct sa *sa)
{
	struct nlmsghdr *nlh = start(type, 0);
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
	info->family = AF_INET;
	info->mode = XFRM_MODE_TRANSPORT;
	info->reqid = sa->spi;
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

static int sa_add(struct mnl_socket *nl, const struct sa *sa)
{
	return sa_set(nl, XFRM_MSG_NEWSA, sa);
}

/* XFRM_MSG_GETSA or XFRM_MSG_DELSA */
static int sa_by_id(struct mnl_socket *nl, __u16 type, const struct sa *sa)
{
	struct nlmsghdr *nlh = start(type, 0);
	struct xfrm_usersa_id *id;

	id = mnl_nlmsg_put_extra_header(nlh, sizeof(*id));
	usersa_id(sa, id);

	return talk(nl, nlh, NULL);
}

/* XFRM_MSG_GETAE or XFRM_MSG_NEWAE */
static int sa_ae(struct mnl_socket *nl, __u16 type, const struct sa *sa)
{
	struct nlmsghdr *nlh = start(type, NLM_F_REPLACE);
	struct xfrm_replay_state replay = { .oseq = 1000 };
	struct xfrm_aevent_id *id;

	if (type == XFRM_MSG_GETAE)
		nlh->nlmsg_flags &= ~NLM_F_REPLACE;
	id = mnl_nlmsg_put_extra_header(nlh, sizeof(*id));
	usersa_id(sa, &id->sa_id);
	if (type == XFRM_MSG_NEWAE)
		mnl_attr_put(nlh, XFRMA_REPLAY_VAL, sizeof(replay), &replay);

	return talk(nl, nlh, NULL);
}

/* -ESRCH if the dump does not have it */
static int sa_dumped(struct mnl_socket *nl, const struct sa *sa)
{
	const struct xfrm_usersa_info *info;
	struct heard answer = {};
	int ret;

	ret = talk(nl, start(XFRM_MSG_GETSA, NLM_F_DUMP), &answer) ?: -ESRCH;
	while (answer.nr) {
		info = mnl_nlmsg_get_payload(answer.msg[--answer.nr]);
		if (info->id.spi == htonl(sa->spi))
			ret = 0;
		free(answer.msg[answer.nr]);
	}
	free(answer.msg);

	return ret;
}

static int sa_alloc_spi(struct mnl_socket *nl, const struct sa *sa)
{
	struct nlmsghdr *nlh = start(XFRM_MSG_ALLOCSPI, 0);
	struct xfrm_userspi_info *spi;

	spi = mnl_nlmsg_put_extra_header(nlh, sizeof(*spi));
	sa_id(sa, &spi->info.saddr, &spi->info.id);
	spi->info.id.spi = 0;
	spi->info.family = AF_INET;
	spi->info.mode = XFRM_MODE_TRANSPORT;
	spi->info.reqid = 0x7777;
	spi->min = sa->spi;
	spi->max = sa->spi;

	return talk(nl, nlh, NULL);
}

static int sa_expire(struct mnl_socket *nl, const struct sa *sa)
{
	struct nlmsghdr *nlh = start(XFRM_MSG_EXPIRE, 0);
	struct xfrm_user_expire *exp;

	exp = mnl_nlmsg_put_extra_header(nlh, sizeof(*exp));
	sa_id(sa, &exp->state.saddr, &exp->state.id);
	exp->state.family = AF_INET;
	exp->hard = 1;

	return talk(nl, nlh, NULL);
}

static int sa_migrate_state(struct mnl_socket *nl, const struct sa *sa)
{
	struct nlmsghdr *nlh = start(XFRM_MSG_MIGRATE_STATE, 0);
	struct xfrm_user_migrate_state *um;

	um = mnl_nlmsg_put_extra_header(nlh, sizeof(*um));
	usersa_id(sa, &um->id);
	um->new_daddr.a4 = inet_addr("10.0.0.9");
	um->new_saddr.a4 = inet_addr(LOCAL);
	um->new_family = AF_INET;
	um->new_reqid = sa->spi;
	um->flags = XFRM_MIGRATE_STATE_UPDATE_H2H_SEL |
		    XFRM_MIGRATE_STATE_CLEAR_OFFLOAD;

	return talk(nl, nlh, NULL);
}

static int pol_set(struct mnl_socket *nl, __u16 type, const struct pol *pol)
{
	struct nlmsghdr *nlh = start(type, 0);
	struct xfrm_user_tmpl tmpl[2] = {};
	struct xfrm_user_offload xuo = {
		.ifindex = pol->ifindex,
		.flags = XFRM_OFFLOAD_PACKET,
	};
	struct xfrm_userpolicy_info *info;
	int i;

	info = mnl_nlmsg_put_extra_header(nlh, sizeof(*info));
	pol_sel(pol, &info->sel);
	no_limits(&info->lft);
	info->dir = pol->dir;
	info->action = pol->action;
	info->priority = pol->priority;

	for (i = 0; i < pol->tmpls; i++) {
		tmpl[i].id.proto = IPPROTO_ESP;
		tmpl[i].family = AF_INET;
		tmpl[i].reqid = pol->reqid + i;
		tmpl[i].mode = XFRM_MODE_TRANSPORT;
		tmpl[i].aalgos = ~0;
		tmpl[i].ealgos = ~0;
		tmpl[i].calgos = ~0;
	}
	if (pol->tmpls)
		mnl_attr_put(nlh, XFRMA_TMPL, pol->tmpls * sizeof(tmpl[0]),
			     tmpl);
	if (pol->ifindex)
		mnl_attr_put(nlh, XFRMA_OFFLOAD_DEV, sizeof(xuo), &xuo);
	if (pol->mark.m)
		mnl_attr_put(nlh, XFRMA_MARK, sizeof(pol->mark), &pol->mark);
	if (pol->if_id)
		mnl_attr_put_u32(nlh, XFRMA_IF_ID, pol->if_id);

	return talk(nl, nlh, NULL);
}

/* XFRM_MSG_GETPOLICY or XFRM_MSG_DELPOLICY */
static int pol_id(struct mnl_socket *nl, __u16 type, const struct pol *pol,
		  struct heard *answer)
{
	struct nlmsghdr *nlh = start(type, 0);
	struct xfrm_userpolicy_id *id;

	id = mnl_nlmsg_put_extra_header(nlh, sizeof(*id));
	pol_sel(pol, &id->sel);
	id->dir = pol->dir;
	if (pol->mark.m)
		mnl_attr_put(nlh, XFRMA_MARK, sizeof(pol->mark), &pol->mark);
	if (pol->if_id)
		mnl_attr_put_u32(nlh, XFRMA_IF_ID, pol->if_id);

	return talk(nl, nlh, answer);
}

/* XFRM_MSG_MIGRATE of @nr templates, and of their SAs, to another peer */
static struct nlmsghdr *migrate_msg(const struct pol *pol, int nr)
{
	struct nlmsghdr *nlh = start(XFRM_MSG_MIGRATE, 0);
	struct xfrm_user_migrate migrate[2] = {};
	struct xfrm_userpolicy_id *id;
	int i;

	for (i = 0; i < nr; i++) {
		migrate[i].old_daddr.a4 = inet_addr(PEER);
		migrate[i].old_saddr.a4 = inet_addr(LOCAL);
		migrate[i].new_daddr.a4 = inet_addr("10.0.0.9");
		migrate[i].new_saddr.a4 = inet_addr(LOCAL);
		migrate[i].proto = IPPROTO_ESP;
		migrate[i].mode = XFRM_MODE_TRANSPORT;
		migrate[i].reqid = pol->reqid + i;
		migrate[i].old_family = AF_INET;
		migrate[i].new_family = AF_INET;
	}
	id = mnl_nlmsg_put_extra_header(nlh, sizeof(*id));
	pol_sel(pol, &id->sel);
	id->dir = pol->dir;
	mnl_attr_put(nlh, XFRMA_MIGRATE, nr * sizeof(migrate[0]), migrate);

	return nlh;
}

static const void *attr(const struct nlmsghdr *nlh, size_t head, int type,
			size_t len)
{
	const struct nlattr *nla;

	mnl_attr_for_each(nla, nlh, head)
		if (mnl_attr_get_type(nla) == type &&
		    mnl_attr_get_payload_len(nla) >= len)
			return mnl_attr_get_payload(nla);

	return NULL;
}

static __u32 expire_spi(const struct nlmsghdr *nlh)
{
	const struct xfrm_user_expire *exp = mnl_nlmsg_get_payload(nlh);

	return nlh->nlmsg_type == XFRM_MSG_EXPIRE ?
	       ntohl(exp->state.id.spi) : 0;
}

/* How many expiries of the SA, and where the last one is */
static unsigned int find_expire(const struct heard *heard, __u32 spi,
				struct nlmsghdr **nlh)
{
	unsigned int i, nr = 0;

	for (i = 0; i < heard->nr; i++) {
		if (expire_spi(heard->msg[i]) != spi)
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

static int nsim_write(unsigned int id, const char *name, unsigned int value)
{
	char path[128];

	snprintf(path, sizeof(path), NSIM_DEBUG, id, name);

	return write_file(path, "%u", value);
}

static unsigned int nsim_counter(unsigned int id, const char *name)
{
	unsigned int value, ret = 0;
	char path[128], key[32];
	FILE *file;

	snprintf(path, sizeof(path), NSIM_DEBUG, id, "ipsec_counters");
	file = fopen(path, "r");
	while (file && fscanf(file, "%31s %u", key, &value) == 2)
		if (!strcmp(key, name))
			ret = value;
	if (file)
		fclose(file);

	return ret;
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
	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	if (ioctl(fd, SIOCGIFFLAGS, &ifr))
		ret = -errno;
	ifr.ifr_flags = up ? ifr.ifr_flags | IFF_UP : ifr.ifr_flags & ~IFF_UP;
	if (!ret && ioctl(fd, SIOCSIFFLAGS, &ifr))
		ret = -errno;
	close(fd);

	return ret;
}

/* LOCAL on the device, and a neighbour PEER that needs no answer */
static int addr_set(const char *name)
{
	struct sockaddr_in sin = { .sin_family = AF_INET };
	struct arpreq arp = { .arp_flags = ATF_COM | ATF_PERM };
	struct ifreq ifr = {};
	int fd, ret = 0;

	fd = socket(AF_INET, SOCK_DGRAM, 0);
	strncpy(ifr.ifr_name, name, IFNAMSIZ - 1);
	strncpy(arp.arp_dev, name, sizeof(arp.arp_dev) - 1);
	sin.sin_addr.s_addr = inet_addr(LOCAL);
	memcpy(&ifr.ifr_addr, &sin, sizeof(sin));
	if (ioctl(fd, SIOCSIFADDR, &ifr))
		ret = -errno;

	sin.sin_addr.s_addr = inet_addr(PEER);
	memcpy(&arp.arp_pa, &sin, sizeof(sin));
	arp.arp_ha.sa_family = ARPHRD_ETHER;
	memset(arp.arp_ha.sa_data, 2, ETH_ALEN);
	if (!ret && ioctl(fd, SIOCSARP, &arp))
		ret = -errno;
	close(fd);

	return ret;
}

/* Polls until it is true, or for WAIT_MS */
#define wait_for(cond)						\
({								\
	int _ms = 0;						\
								\
	while (!(cond) && _ms++ < WAIT_MS)			\
		usleep(1000);					\
	_ms <= WAIT_MS;						\
})

FIXTURE(xfrm_devgone)
{
	struct mnl_socket *nl;		/* asks */
	struct mnl_socket *ev;		/* hears of expiries, what it joins */
	unsigned int id;
	char name[IFNAMSIZ];
	int ifindex;
	__u32 sentinels;
	struct heard heard;
};

static struct mnl_socket *open_nl(int group)
{
	struct mnl_socket *nl = mnl_socket_open(NETLINK_XFRM);
	struct timeval tv = { .tv_sec = WAIT_MS / 1000 };
	int one = 1;

	if (!nl)
		return NULL;
	if (!mnl_socket_bind(nl, 0, MNL_SOCKET_AUTOPID) &&
	    !setsockopt(mnl_socket_get_fd(nl), SOL_SOCKET, SO_RCVTIMEO, &tv,
			sizeof(tv)) &&
	    !mnl_socket_setsockopt(nl, NETLINK_EXT_ACK, &one, sizeof(one)) &&
	    (!group || !mnl_socket_setsockopt(nl, NETLINK_ADD_MEMBERSHIP,
					      &group, sizeof(group))))
		return nl;
	mnl_socket_close(nl);

	return NULL;
}

static int join(struct mnl_socket *nl, int group)
{
	return mnl_socket_setsockopt(nl, NETLINK_ADD_MEMBERSHIP, &group,
				     sizeof(group));
}

FIXTURE_SETUP(xfrm_devgone)
{
	struct if_nameindex *names, *pos;
	int i, size = 16 << 20;
	char path[128];

	if (unshare(CLONE_NEWNET))
		SKIP(return, "needs root: cannot make a network namespace");
	if (access(NSIM_BUS, F_OK) && system("modprobe netdevsim 2>/dev/null"))
		SKIP(return, "no netdevsim (CONFIG_NETDEVSIM)");
	self->nl = open_nl(0);
	self->ev = open_nl(XFRMNLGRP_EXPIRE);
	if (!self->nl || !self->ev)
		SKIP(return, "no NETLINK_XFRM (CONFIG_XFRM_USER)");
	setsockopt(mnl_socket_get_fd(self->ev), SOL_SOCKET, SO_RCVBUFFORCE,
		   &size, sizeof(size));

	/* somebody else's may have the same number */
	for (i = 0; i < 100; i++) {
		self->id = 1000 + (getpid() * 100 + i) % 1000000;
		if (write_file(NSIM_BUS "/new_device", "%u 1", self->id) !=
		    -EEXIST)
			break;
	}
	names = if_nameindex();
	ASSERT_NE(names, NULL);
	for (pos = names; pos->if_index; pos++) {
		link_set(pos->if_name, true);
		if (!strcmp(pos->if_name, "lo"))
			continue;
		strncpy(self->name, pos->if_name, IFNAMSIZ - 1);
		self->ifindex = pos->if_index;
	}
	if_freenameindex(names);

	snprintf(path, sizeof(path), NSIM_DEBUG, self->id, "ipsec_hold");
	if (access(path, F_OK)) {
		nsim_del(self->id);
		SKIP(return, "netdevsim without IPsec packet offload");
	}
}

FIXTURE_TEARDOWN(xfrm_devgone)
{
	struct nlmsghdr *nlh = start(XFRM_MSG_FLUSHSA, 0);
	char path[128];

	/* What keeps the device would let its removal hang. */
	*(__u8 *)mnl_nlmsg_put_extra_header(nlh, sizeof(__u8)) = 0;
	talk(self->nl, nlh, NULL);
	talk(self->nl, start(XFRM_MSG_FLUSHPOLICY, 0), NULL);
	snprintf(path, sizeof(path), NSIM_BUS "/devices/netdevsim%u", self->id);
	if (!access(path, F_OK))
		EXPECT_EQ(nsim_del(self->id), 0);
}

/* XFRM_MSG_GETSADINFO: also those that a dump does not show */
static int sa_count(struct mnl_socket *nl)
{
	struct nlmsghdr *nlh = start(XFRM_MSG_GETSADINFO, 0);
	struct heard answer = {};
	const __u32 *nr = NULL;
	int ret = -EBADMSG;

	*(__u32 *)mnl_nlmsg_put_extra_header(nlh, sizeof(__u32)) = ~0;
	if (!talk(nl, nlh, &answer) && answer.nr)
		nr = attr(answer.msg[0], sizeof(__u32), XFRMA_SAD_CNT,
			  sizeof(*nr));
	if (nr)
		ret = *nr;
	while (answer.nr)
		free(answer.msg[--answer.nr]);
	free(answer.msg);

	return ret;
}

/* Takes all messages until no more than @left SAs are there, and then up to the
 * expiry of a software SA, which does not count.
 */
static void settle(struct __test_metadata *_metadata,
		   struct _test_data_xfrm_devgone *self, int left)
{
	struct sa sa = {
		.spi = SENTINEL + self->sentinels++,
		.hard_add = 1,
	};
	char rbuf[32768];

	ASSERT_TRUE(wait_for(sa_count(self->nl) <= left)) {
		TH_LOG("%d SAs instead of %d", sa_count(self->nl), left);
	}
	ASSERT_EQ(sa_add(self->nl, &sa), 0);
	for (;;) {
		struct nlmsghdr *pos;
		int len;

		len = mnl_socket_recvfrom(self->ev, rbuf, sizeof(rbuf));
		ASSERT_GT(len, 0) {
			TH_LOG("no sentinel: %s", strerror(errno));
		}
		for (pos = (struct nlmsghdr *)rbuf; mnl_nlmsg_ok(pos, len);
		     pos = mnl_nlmsg_next(pos, &len)) {
			if (expire_spi(pos) == sa.spi)
				return;
			keep(&self->heard, pos);
		}
	}
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
	EXPECT_EQ(exp->state.reqid, sa->spi);
	EXPECT_EQ(exp->state.lft.hard_add_expires_seconds, sa->hard_add);
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

/* The hard XFRM_MSG_EXPIRE of SAs whose device is gone has what identifies the
 * SA, and all optional attributes.
 */
TEST_F_TIMEOUT(xfrm_devgone, expire, 120)
{
	struct sa sa[] = {
		{ .dir = XFRM_SA_DIR_OUT },
		{ .dir = XFRM_SA_DIR_IN, .packet = true },
		{ .dir = 0, .packet = true, .hard_add = 86400 },
		{ .dir = XFRM_SA_DIR_OUT, .packet = true, .if_id = 0x1f,
		  .mark = { .v = 5, .m = 0xff }, .pcpu = 1,
		  .hard_add = 86400 },
	};
	struct nlmsghdr *nlh;
	int i;

	ASSERT_EQ(join(self->ev, XFRMNLGRP_SA), 0);
	for (i = 0; i < ARRAY_SIZE(sa); i++) {
		sa[i].spi = 0x1000 + i;
		sa[i].ifindex = self->ifindex;
		ASSERT_EQ(sa_add(self->nl, &sa[i]), 0) {
			TH_LOG("SA %d: %s", i, extack);
		}
	}
	ASSERT_EQ(link_set(self->name, false), 0);
	settle(_metadata, self, 0);

	for (i = 0; i < ARRAY_SIZE(sa); i++) {
		ASSERT_EQ(find_expire(&self->heard, sa[i].spi, &nlh), 1) {
			TH_LOG("SA %d", i);
		}
		check_expire(_metadata, nlh, &sa[i]);
	}
	EXPECT_EQ(count(&self->heard, XFRM_MSG_EXPIRE), ARRAY_SIZE(sa));
	/* that nobody has deleted */
	EXPECT_EQ(count(&self->heard, XFRM_MSG_DELSA), 0);
}

/* The expiry has the last counters, which only the device knows. */
TEST_F_TIMEOUT(xfrm_devgone, counters, 120)
{
	struct sa sa = {
		.spi = 0x1000,
		.dir = XFRM_SA_DIR_OUT,
		.ifindex = self->ifindex,
		.packet = true,
	};
	struct pol pol = {
		.dir = XFRM_POLICY_OUT,
		.ifindex = self->ifindex,
		.tmpls = 1,
		.reqid = 0x1000,
	};
	struct sockaddr_in to = {
		.sin_family = AF_INET,
		.sin_port = htons(4000),
		.sin_addr.s_addr = inet_addr(PEER),
	};
	const struct xfrm_user_expire *exp;
	struct nlmsghdr *nlh;
	int i, fd;

	ASSERT_EQ(addr_set(self->name), 0);
	ASSERT_EQ(sa_add(self->nl, &sa), 0);
	ASSERT_EQ(pol_set(self->nl, XFRM_MSG_NEWPOLICY, &pol), 0);
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	for (i = 0; i < 10; i++)
		ASSERT_EQ(sendto(fd, buf, 100, 0, (struct sockaddr *)&to,
				 sizeof(to)), 100);
	close(fd);
	ASSERT_EQ(link_set(self->name, false), 0);
	settle(_metadata, self, 0);

	ASSERT_EQ(find_expire(&self->heard, sa.spi, &nlh), 1);
	exp = mnl_nlmsg_get_payload(nlh);
	EXPECT_EQ(exp->state.curlft.packets, 10);
	EXPECT_GE(exp->state.curlft.bytes, 10 * 100);
}

/* SADB_GET or SADB_DUMP of ESP: -ESRCH if the answer does not have the SA */
static int pfkey_ask(int fd, int type, const struct sa *sa)
{
	struct {
		struct sadb_msg msg;
		struct sadb_sa sa;
		struct sadb_address src;
		struct sockaddr_in from;
		struct sadb_address dst;
		struct sockaddr_in to;
	} req = {
		.msg = {
			.sadb_msg_version = PF_KEY_V2,
			.sadb_msg_type = type,
			.sadb_msg_satype = SADB_SATYPE_ESP,
			.sadb_msg_len = sizeof(req) / 8,
			.sadb_msg_pid = getpid(),
		},
		.sa = { sizeof(req.sa) / 8, SADB_EXT_SA, htonl(sa->spi) },
		.src = { 3, SADB_EXT_ADDRESS_SRC },
		.from = { AF_INET, 0, { inet_addr(LOCAL) } },
		.dst = { 3, SADB_EXT_ADDRESS_DST },
		.to = { AF_INET, 0, { inet_addr(PEER) } },
	};
	const struct sadb_msg *msg = (struct sadb_msg *)buf;
	const struct sadb_sa *ext = (struct sadb_sa *)(msg + 1);
	int ret = -ESRCH;

	if (type == SADB_DUMP)
		req.msg.sadb_msg_len = sizeof(req.msg) / 8;
	if (send(fd, &req, req.msg.sadb_msg_len * 8, 0) < 0)
		return -errno;
	do {
		if (recv(fd, buf, sizeof(buf), 0) < 0)
			return -errno;
		if (msg->sadb_msg_type != type)
			continue;
		if (msg->sadb_msg_errno)
			return -msg->sadb_msg_errno;
		if (msg->sadb_msg_len > 2 &&
		    ext->sadb_sa_spi == htonl(sa->spi))
			ret = 0;
	} while (msg->sadb_msg_type != type ||
		 (type == SADB_DUMP && msg->sadb_msg_seq));

	return ret;
}

/* Until an SA expires it cannot be used or changed. Its keys and sequence
 * number are to be had if they are the kernel's (crypto offload). One with the
 * same SPI replaces it.
 */
TEST_F_TIMEOUT(xfrm_devgone, answers, 120)
{
	static const struct {
		const char *name;
		int crypto, packet;
	} want[] = {
		{ "GETSA",		0,		-ESRCH },
		{ "GETAE",		0,		-ESRCH },
		{ "dump",		0,		-ESRCH },
		{ "SADB_GET",		0,		-ESRCH },
		{ "SADB_DUMP",		0,		-ESRCH },
		{ "UPDSA",		-EINVAL,	-EINVAL },
		{ "NEWAE",		-EINVAL,	-EINVAL },
		{ "EXPIRE",		-EINVAL,	-EINVAL },
		{ "ALLOCSPI",		-ENOENT,	-ENOENT },
		{ "MIGRATE_STATE",	-EINVAL,	-EINVAL },
		{ "MIGRATE",		-ENODATA,	-ENODATA },
		{ "extack of MIGRATE",	0,		0 },
		{ "NEWSA",		0,		0 },
		{ "DELSA",		0,		0 },
		{ "DELSA of the old",	-ESRCH,		-ESRCH },
	};
	int got[2][ARRAY_SIZE(want)];
	struct mnl_socket *nl = self->nl;
	struct sa sa[2], soft;
	struct pol pol[2];
	int i, k, fd;
	bool slow;

	fd = socket(PF_KEY, SOCK_RAW, PF_KEY_V2);
	if (fd < 0)
		SKIP(return, "no PF_KEY (CONFIG_NET_KEY): %s", strerror(errno));
	for (k = 0; k < 2; k++) {
		sa[k] = (struct sa) {
			.spi = 0x1000 + k,
			.dir = XFRM_SA_DIR_OUT,
			.ifindex = self->ifindex,
			.packet = k,
		};
		ASSERT_EQ(sa_add(nl, &sa[k]), 0);
		pol[k] = (struct pol) {
			.nr = k,
			.dir = XFRM_POLICY_OUT,
			.tmpls = 1,
			.reqid = sa[k].spi,
		};
		ASSERT_EQ(pol_set(nl, XFRM_MSG_NEWPOLICY, &pol[k]), 0);
	}
	ASSERT_EQ(link_set(self->name, false), 0);
	for (k = 0; k < 2; k++) {
		i = 0;
		soft = sa[k];
		soft.ifindex = 0;
		got[k][i++] = sa_by_id(nl, XFRM_MSG_GETSA, &sa[k]);
		/* all of it has to be done until they expire */
		if (!k)
			slow = got[k][0] &&
			       recv(mnl_socket_get_fd(self->ev), buf,
				    sizeof(buf), MSG_DONTWAIT) > 0;
		got[k][i++] = sa_ae(nl, XFRM_MSG_GETAE, &sa[k]);
		got[k][i++] = sa_dumped(nl, &sa[k]);
		got[k][i++] = pfkey_ask(fd, SADB_GET, &sa[k]);
		got[k][i++] = pfkey_ask(fd, SADB_DUMP, &sa[k]);
		got[k][i++] = sa_set(nl, XFRM_MSG_UPDSA, &soft);
		got[k][i++] = sa_ae(nl, XFRM_MSG_NEWAE, &sa[k]);
		got[k][i++] = sa_expire(nl, &sa[k]);
		got[k][i++] = sa_alloc_spi(nl, &sa[k]);
		got[k][i++] = sa_migrate_state(nl, &sa[k]);
		got[k][i++] = talk(nl, migrate_msg(&pol[k], 1), NULL);
		got[k][i++] = !strstr(extack, "lost its offload device");
	}
	if (slow || (!got[0][0] && sa_by_id(nl, XFRM_MSG_GETSA, &sa[0])))
		SKIP(return, "this machine is too slow");
	for (k = 0; k < 2; k++) {
		soft = sa[k];
		soft.ifindex = 0;
		got[k][i] = sa_add(nl, &soft);
		got[k][i + 1] = sa_by_id(nl, XFRM_MSG_DELSA, &soft);
		got[k][i + 2] = sa_by_id(nl, XFRM_MSG_DELSA, &soft);
	}

	for (i = 0; i < ARRAY_SIZE(want); i++) {
		EXPECT_EQ(got[0][i], want[i].crypto) {
			TH_LOG("%s, crypto offload", want[i].name);
		}
		EXPECT_EQ(got[1][i], want[i].packet) {
			TH_LOG("%s, packet offload", want[i].name);
		}
	}
	close(fd);
}

/* The device has the sequence numbers of packet offload. The same messages
 * move an SA with crypto offload.
 */
TEST_F(xfrm_devgone, migrate_packet)
{
	struct sa sa = {
		.spi = 0x1000,
		.dir = XFRM_SA_DIR_OUT,
		.ifindex = self->ifindex,
		.packet = true,
	};
	struct pol pol = {
		.dir = XFRM_POLICY_OUT,
		.tmpls = 1,
		.reqid = 0x1000,
	};

	ASSERT_EQ(sa_add(self->nl, &sa), 0);
	ASSERT_EQ(pol_set(self->nl, XFRM_MSG_NEWPOLICY, &pol), 0);
	EXPECT_EQ(sa_migrate_state(self->nl, &sa), -EINVAL);
	EXPECT_STREQ(extack, "State with packet offload cannot be migrated");
	EXPECT_EQ(talk(self->nl, migrate_msg(&pol, 1), NULL), -ENODATA);
	EXPECT_STREQ(extack, "State with packet offload cannot be migrated");
	EXPECT_EQ(sa_by_id(self->nl, XFRM_MSG_GETSA, &sa), 0);

	sa.spi = 0x1001;
	pol.reqid = 0x1001;
	sa.packet = false;
	ASSERT_EQ(sa_add(self->nl, &sa), 0);
	ASSERT_EQ(pol_set(self->nl, XFRM_MSG_UPDPOLICY, &pol), 0);
	EXPECT_EQ(talk(self->nl, migrate_msg(&pol, 1), NULL), 0);
	EXPECT_EQ(sa_by_id(self->nl, XFRM_MSG_GETSA, &sa), -ESRCH);
}

/* It does not get to the device of the route instead. */
TEST_F(xfrm_devgone, unknown_device)
{
	struct sa sa = {
		.spi = 0x1000,
		.dir = XFRM_SA_DIR_OUT,
		.ifindex = self->ifindex + 1000,
	};
	struct pol pol = {
		.dir = XFRM_POLICY_OUT,
		.ifindex = self->ifindex + 1000,
	};

	ASSERT_EQ(addr_set(self->name), 0);
	EXPECT_EQ(sa_add(self->nl, &sa), -ENODEV);
	EXPECT_STREQ(extack, "Offload device not found");
	EXPECT_EQ(nsim_counter(self->id, "sa_added"), 0);
	EXPECT_EQ(pol_set(self->nl, XFRM_MSG_NEWPOLICY, &pol), -EINVAL);
	EXPECT_STREQ(extack, "Offload device not found");
}

/* Where the message about a policy is, -1 if there is none */
static int find_policy(const struct heard *heard, __u16 type,
		       const struct pol *pol)
{
	const struct xfrm_userpolicy_info *info;
	struct xfrm_selector sel;
	int i, found = -1;

	pol_sel(pol, &sel);
	for (i = 0; i < heard->nr; i++) {
		info = mnl_nlmsg_get_payload(heard->msg[i]);
		/* a deleted one is in an attribute */
		if (heard->msg[i]->nlmsg_type == XFRM_MSG_DELPOLICY)
			info = attr(heard->msg[i],
				    sizeof(struct xfrm_userpolicy_id),
				    XFRMA_POLICY, sizeof(*info));
		if (heard->msg[i]->nlmsg_type == type && info &&
		    !memcmp(&info->sel, &sel, sizeof(sel)) &&
		    info->dir == pol->dir)
			found = i;
	}

	return found;
}

/* XFRM_MSG_UPDPOLICY shows a policy as it was, but for the device, and comes
 * before what others do to it. XFRM_MSG_DELPOLICY is for one that only lets
 * packets pass.
 */
TEST_F_TIMEOUT(xfrm_devgone, policies, 120)
{
	struct pol pol[] = {
		{ .dir = XFRM_POLICY_OUT, .tmpls = 1 },
		{ .dir = XFRM_POLICY_IN, .tmpls = 1, .priority = 17 },
		{ .dir = XFRM_POLICY_FWD, .tmpls = 1, .if_id = 0x1f,
		  .mark = { .v = 5, .m = 0xff } },
		{ .dir = XFRM_POLICY_OUT, .action = XFRM_POLICY_BLOCK },
		{ .dir = XFRM_POLICY_OUT },
	};
	const size_t head = sizeof(struct xfrm_userpolicy_info);
	struct heard before = {}, after = {};
	struct nlmsghdr *old, *new;
	int i, at;

	for (i = 0; i < ARRAY_SIZE(pol); i++) {
		pol[i].nr = 1 + i;
		pol[i].reqid = 7;
		pol[i].ifindex = self->ifindex;
		ASSERT_EQ(pol_set(self->nl, XFRM_MSG_NEWPOLICY, &pol[i]), 0);
		ASSERT_EQ(pol_id(self->nl, XFRM_MSG_GETPOLICY, &pol[i],
				 &before), 0);
	}
	ASSERT_EQ(join(self->ev, XFRMNLGRP_POLICY), 0);
	ASSERT_EQ(link_set(self->name, false), 0);
	for (i = 0; i < 4; i++)
		EXPECT_EQ(pol_id(self->nl, XFRM_MSG_GETPOLICY, &pol[i],
				 &after), 0);
	EXPECT_EQ(pol_id(self->nl, XFRM_MSG_GETPOLICY, &pol[4], NULL), -ENOENT);
	pol[0].ifindex = 0;
	EXPECT_EQ(pol_set(self->nl, XFRM_MSG_NEWPOLICY, &pol[0]), 0);
	EXPECT_EQ(pol_set(self->nl, XFRM_MSG_NEWPOLICY, &pol[0]), -EEXIST);
	EXPECT_EQ(pol_id(self->nl, XFRM_MSG_DELPOLICY, &pol[1], NULL), 0);
	settle(_metadata, self, 0);

	EXPECT_EQ(count(&self->heard, XFRM_MSG_UPDPOLICY), 4);
	EXPECT_EQ(count(&self->heard, XFRM_MSG_DELPOLICY), 2);
	EXPECT_EQ(count(&self->heard, XFRM_MSG_POLEXPIRE), 0);
	EXPECT_GE(find_policy(&self->heard, XFRM_MSG_DELPOLICY, &pol[4]), 0);
	ASSERT_EQ(after.nr, 4);
	for (i = 0; i < 4; i++) {
		at = find_policy(&self->heard, XFRM_MSG_UPDPOLICY, &pol[i]);
		ASSERT_GE(at, 0);
		old = before.msg[i];
		new = self->heard.msg[at];
		EXPECT_EQ(new->nlmsg_pid, 0);
		EXPECT_EQ(memcmp(mnl_nlmsg_get_payload(new),
				 mnl_nlmsg_get_payload(old), head), 0);
		EXPECT_NE(attr(old, head, XFRMA_OFFLOAD_DEV, 0), NULL);
		EXPECT_EQ(attr(new, head, XFRMA_OFFLOAD_DEV, 0), NULL);
		EXPECT_EQ(attr(after.msg[i], head, XFRMA_OFFLOAD_DEV, 0), NULL);
		EXPECT_EQ(!attr(new, head, XFRMA_TMPL, 0), !pol[i].tmpls);
		EXPECT_EQ(!attr(new, head, XFRMA_MARK, 0), !pol[i].mark.m);
		EXPECT_EQ(!attr(new, head, XFRMA_IF_ID, 0), !pol[i].if_id);
	}
	EXPECT_LT(find_policy(&self->heard, XFRM_MSG_UPDPOLICY, &pol[0]),
		  find_policy(&self->heard, XFRM_MSG_NEWPOLICY, &pol[0]));
	EXPECT_LT(find_policy(&self->heard, XFRM_MSG_UPDPOLICY, &pol[1]),
		  find_policy(&self->heard, XFRM_MSG_DELPOLICY, &pol[1]));
}

/* Expiries are spread, so that a listener with a default receive buffer hears
 * of a few hundred.
 */
TEST_F_TIMEOUT(xfrm_devgone, default_buffer, 240)
{
	struct sa sa = { .dir = XFRM_SA_DIR_OUT, .ifindex = self->ifindex };
	int i, fds[2], got[2] = {}, err = 0;
	pid_t pid;

	ASSERT_EQ(nsim_write(self->id, "ipsec_max_sa", MANY), 0);
	for (i = 0; i < MANY; i++) {
		sa.spi = 0x1000 + i;
		ASSERT_EQ(sa_add(self->nl, &sa), 0);
	}

	/* It listens while the device goes away. */
	ASSERT_EQ(pipe(fds), 0);
	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		struct sched_param prio = { .sched_priority = 1 };
		struct mnl_socket *other = open_nl(XFRMNLGRP_EXPIRE);
		struct nlmsghdr *pos;
		char rbuf[8192];
		bool end = false;
		int len;

		prctl(PR_SET_PDEATHSIG, SIGKILL);
		/* This is about the buffer, not about who gets the CPU. */
		if (!other || sched_setscheduler(0, SCHED_FIFO, &prio))
			err = errno;
		if (write(fds[1], &err, sizeof(err)) < 0 || err)
			_exit(1);
		while (!end) {
			len = mnl_socket_recvfrom(other, rbuf, sizeof(rbuf));
			if (len < 0 && errno != ENOBUFS)
				break;
			got[1] += len < 0;
			for (pos = (struct nlmsghdr *)rbuf;
			     mnl_nlmsg_ok(pos, len);
			     pos = mnl_nlmsg_next(pos, &len)) {
				if (expire_spi(pos) == SENTINEL)
					end = true;
				else
					got[0]++;
			}
		}
		len = write(fds[1], got, sizeof(got));
		_exit(len != sizeof(got));
	}
	ASSERT_EQ(read(fds[0], &err, sizeof(err)), sizeof(err));
	if (err)
		SKIP(return, "no SCHED_FIFO: %s", strerror(err));
	ASSERT_EQ(link_set(self->name, false), 0);
	settle(_metadata, self, 0);
	ASSERT_EQ(read(fds[0], got, sizeof(got)), sizeof(got));
	waitpid(pid, NULL, 0);
	EXPECT_EQ(got[0], MANY);
	EXPECT_EQ(got[1], 0);
}

/* The device is removed or moves to another netns while the driver still adds
 * the SA or the policy, whichever is not NULL. Returns the answer to the add.
 */
static int hold(struct __test_metadata *_metadata,
		struct _test_data_xfrm_devgone *self, struct sa *sa,
		struct pol *pol, bool move)
{
	int added, status, ready[2];
	pid_t adder, other, goer;
	char cmd[128], byte;

	ASSERT_EQ(nsim_write(self->id, "ipsec_hold", 1), 0);
	adder = fork();
	ASSERT_GE(adder, 0);
	if (!adder)
		_exit(-(sa ? sa_add(self->nl, sa) :
			     pol_set(self->nl, XFRM_MSG_NEWPOLICY, pol)));
	ASSERT_TRUE(wait_for(nsim_counter(self->id, sa ? "sa_added" :
					  "pol_added") == 1));

	/* the other netns */
	ASSERT_EQ(pipe(ready), 0);
	other = fork();
	ASSERT_GE(other, 0);
	if (!other) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWNET) || write(ready[1], "", 1) != 1)
			_exit(1);
		pause();
	}
	ASSERT_EQ(read(ready[0], &byte, 1), 1);

	goer = fork();
	ASSERT_GE(goer, 0);
	if (!goer && move) {
		snprintf(cmd, sizeof(cmd), "ip link set dev %s netns %d",
			 self->name, other);
		_exit(!!system(cmd));
	}
	if (!goer)
		_exit(!!nsim_del(self->id));

	/* A move comes to its end, a removal waits for the driver. */
	if (move)
		ASSERT_EQ(waitpid(goer, &status, 0), goer);
	ASSERT_TRUE(wait_for(!if_nametoindex(self->name)));
	ASSERT_EQ(nsim_write(self->id, "ipsec_hold", 0), 0);
	ASSERT_TRUE(wait_for(waitpid(adder, &added, WNOHANG) == adder)) {
		TH_LOG("the add hangs");
	}
	if (!move)
		ASSERT_TRUE(wait_for(waitpid(goer, &status, WNOHANG) == goer)) {
			TH_LOG("the removal hangs");
		}
	EXPECT_EQ(status, 0);
	kill(other, SIGKILL);
	waitpid(other, NULL, 0);

	return -WEXITSTATUS(added);
}

/* It cannot be told any more that the SA has gone with its device. */
TEST_F_TIMEOUT(xfrm_devgone, held_state_moved, 180)
{
	struct sa sa = {
		.spi = 0x1000,
		.dir = XFRM_SA_DIR_OUT,
		.ifindex = self->ifindex,
		.packet = true,
	};

	EXPECT_EQ(hold(_metadata, self, &sa, NULL, true), -ENODEV);
	EXPECT_EQ(sa_count(self->nl), 0);
	EXPECT_TRUE(wait_for(nsim_counter(self->id, "sa_freed") == 1));
}

TEST_F_TIMEOUT(xfrm_devgone, held_state_removed, 180)
{
	struct sa sa = {
		.spi = 0x1000,
		.dir = XFRM_SA_DIR_OUT,
		.ifindex = self->ifindex,
		.packet = true,
	};

	EXPECT_EQ(hold(_metadata, self, &sa, NULL, false), 0);
	settle(_metadata, self, 0);
	EXPECT_EQ(find_expire(&self->heard, sa.spi, NULL), 1);
}

static void hold_policy(struct __test_metadata *_metadata,
			struct _test_data_xfrm_devgone *self, bool move)
{
	struct pol pol = {
		.dir = XFRM_POLICY_OUT,
		.ifindex = self->ifindex,
		.tmpls = 1,
	};
	struct heard answer = {};

	EXPECT_EQ(hold(_metadata, self, NULL, &pol, move), 0);
	ASSERT_EQ(pol_id(self->nl, XFRM_MSG_GETPOLICY, &pol, &answer), 0);
	EXPECT_EQ(attr(answer.msg[0], sizeof(struct xfrm_userpolicy_info),
		       XFRMA_OFFLOAD_DEV, 0), NULL);
}

TEST_F_TIMEOUT(xfrm_devgone, held_policy_moved, 180)
{
	hold_policy(_metadata, self, true);
	EXPECT_EQ(nsim_counter(self->id, "pol_freed"), 1);
}

TEST_F_TIMEOUT(xfrm_devgone, held_policy_removed, 180)
{
	hold_policy(_metadata, self, false);
}

/* The last one: a kernel that computes too small a size for XFRM_MSG_MIGRATE
 * does not survive it.
 */
TEST_F(xfrm_devgone, migrate_two)
{
	struct xfrm_user_kmaddress kma = { .family = AF_INET };
	struct xfrm_encap_tmpl encap = {
		.encap_type = UDP_ENCAP_ESPINUDP,
		.encap_sport = htons(4500),
		.encap_dport = htons(4500),
	};
	struct pol pol = { .dir = XFRM_POLICY_OUT, .tmpls = 2, .reqid = 7 };
	const size_t head = sizeof(struct xfrm_userpolicy_id);
	const struct nlmsghdr *heard = (struct nlmsghdr *)buf;
	const struct nlattr *nla;
	struct nlmsghdr *nlh;
	int nr = 0;

	ASSERT_EQ(join(self->ev, XFRMNLGRP_MIGRATE), 0);
	ASSERT_EQ(pol_set(self->nl, XFRM_MSG_NEWPOLICY, &pol), 0);
	nlh = migrate_msg(&pol, 2);
	mnl_attr_put(nlh, XFRMA_KMADDRESS, sizeof(kma), &kma);
	mnl_attr_put(nlh, XFRMA_ENCAP, sizeof(encap), &encap);
	ASSERT_EQ(talk(self->nl, nlh, NULL), 0);

	ASSERT_GT(mnl_socket_recvfrom(self->ev, buf, sizeof(buf)), 0);
	ASSERT_EQ(heard->nlmsg_type, XFRM_MSG_MIGRATE);
	EXPECT_NE(attr(heard, head, XFRMA_KMADDRESS, sizeof(kma)), NULL);
	EXPECT_NE(attr(heard, head, XFRMA_ENCAP, sizeof(encap)), NULL);
	mnl_attr_for_each(nla, heard, head)
		nr += mnl_attr_get_type(nla) == XFRMA_MIGRATE;
	EXPECT_EQ(nr, 2);
}

TEST_HARNESS_MAIN
#endif /* HAVE_LIBMNL */
