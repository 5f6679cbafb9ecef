// SPDX-License-Identifier: GPL-2.0
/*
 * What user space sees, by netlink, of a device that departs.
 */
#include <linux/net.h>
#include <linux/netlink.h>
#include <net/netlink.h>
#include <net/sock.h>

#include "fixture.h"

#define HW_ESP	(NETIF_F_HW_ESP | NETIF_F_HW_ESP_TX_CSUM)

#define GROUP(name)	(1 << (XFRMNLGRP_##name - 1))

/**
 * struct nl_user - a key manager in user space
 * @test: the test it belongs to
 * @sock: for requests and answers
 * @events: for notifications
 * @nlh: the message that is made, or was received last
 * @buf: the same, with all that belongs to it
 */
struct nl_user {
	struct kunit *test;
	struct socket *sock;
	struct socket *events;
	union {
		struct nlmsghdr nlh;
		u8 buf[2048];
	};
};

static void user_close(void *sock)
{
	sock_release(sock);
}

static struct socket *user_open(struct kunit *test, u32 groups)
{
	struct sockaddr_nl addr = {
		.nl_family = AF_NETLINK,
		.nl_groups = groups,
	};
	struct socket *sock;

	/* As that of a task, with a reference to its netns. */
	KUNIT_ASSERT_EQ(test, 0,
			sock_create(AF_NETLINK, SOCK_RAW, NETLINK_XFRM, &sock));
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, user_close, sock));
	sock->sk->sk_rcvtimeo = XFRM_TEST_TIMEOUT;
	KUNIT_ASSERT_EQ(test, 0,
			kernel_bind(sock, (struct sockaddr_unsized *)&addr,
				    sizeof(addr)));
	return sock;
}

static struct nl_user *user_init(struct kunit *test)
{
	struct nl_user *u = kunit_kzalloc(test, sizeof(*u), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, u);
	u->test = test;
	u->sock = user_open(test, 0);
	u->events = user_open(test, GROUP(ACQUIRE) | GROUP(EXPIRE) |
				    GROUP(POLICY));
	return u;
}

/* The next message to @u. Returns whether there is one. */
static bool user_receive(struct nl_user *u, struct socket *sock, int flags)
{
	struct kvec vec = { u->buf, sizeof(u->buf) };
	struct msghdr msg = {};

	return kernel_recvmsg(sock, &msg, &vec, 1, vec.iov_len, flags) > 0;
}

/* How many events of this kind have there been? The last message is kept. */
static int user_heard(struct nl_user *u, int type)
{
	int n = 0;

	while (user_receive(u, u->events, MSG_DONTWAIT))
		n += u->nlh.nlmsg_type == type;
	return n;
}

/* Wait for an event of this kind. */
static bool user_hears(struct nl_user *u, int type)
{
	while (user_receive(u, u->events, 0))
		if (u->nlh.nlmsg_type == type)
			return true;
	return false;
}

/* Start a request. Returns its header, that has this length. */
static void *user_ask(struct nl_user *u, int type, int flags, size_t len)
{
	memset(u->buf, 0, sizeof(u->buf));
	u->nlh.nlmsg_type = type;
	u->nlh.nlmsg_flags = NLM_F_REQUEST | flags;
	u->nlh.nlmsg_len = NLMSG_LENGTH(len);
	return nlmsg_data(&u->nlh);
}

static void user_add(struct nl_user *u, int type, const void *data, int len)
{
	struct nlattr *nla;

	u->nlh.nlmsg_len = NLMSG_ALIGN(u->nlh.nlmsg_len);
	nla = (struct nlattr *)(u->buf + u->nlh.nlmsg_len);
	nla->nla_type = type;
	nla->nla_len = nla_attr_size(len);
	memcpy(nla_data(nla), data, len);
	u->nlh.nlmsg_len += nla_total_size(len);
}

static void user_add_offload(struct nl_user *u, struct net_device *dev,
			     u8 flags)
{
	struct xfrm_user_offload xuo = {
		.ifindex = dev->ifindex,
		.flags = flags,
	};

	user_add(u, XFRMA_OFFLOAD_DEV, &xuo, sizeof(xuo));
}

/* Send the request, and receive its answer. Returns the error in that. */
static int user_request(struct nl_user *u)
{
	/* With an address, it is not the file that has to be privileged. */
	struct sockaddr_nl addr = { .nl_family = AF_NETLINK };
	struct msghdr msg = { .msg_name = &addr, .msg_namelen = sizeof(addr) };
	struct kvec vec = { u->buf, u->nlh.nlmsg_len };
	struct nlmsgerr *e = nlmsg_data(&u->nlh);
	int err;

	err = kernel_sendmsg(u->sock, &msg, &vec, 1, vec.iov_len);
	if (err < 0)
		return err;
	if (!user_receive(u, u->sock, 0))
		return -ETIMEDOUT;
	return u->nlh.nlmsg_type == NLMSG_ERROR ? e->error : 0;
}

/* Index of the device that the last message tells of, or 0. */
static int user_offload(struct nl_user *u, size_t len)
{
	struct xfrm_user_offload *xuo;
	struct nlattr *nla;

	nla = nlmsg_find_attr(&u->nlh, len, XFRMA_OFFLOAD_DEV);
	if (!nla)
		return 0;
	xuo = nla_data(nla);
	return xuo->ifindex;
}

static const struct xfrm_lifetime_cfg no_limits = {
	.soft_byte_limit = XFRM_INF,
	.hard_byte_limit = XFRM_INF,
	.soft_packet_limit = XFRM_INF,
	.hard_packet_limit = XFRM_INF,
};

static const struct xfrm_test_pol pol_out = {
	.family = AF_INET,
	.kind = KIND_PROTECT,
	.dir = XFRM_POLICY_OUT,
};

static void user_selector(struct xfrm_selector *sel)
{
	sel->family = AF_INET;
	sel->prefixlen_s = 32;
	sel->prefixlen_d = 32;
	xfrm_test_addrs(AF_INET, 0, &sel->saddr, &sel->daddr);
}

/* The policy that pol_out stands for. */
static int user_add_policy(struct nl_user *u, struct net_device *dev)
{
	struct xfrm_user_tmpl tmpl = {
		.id.proto = IPPROTO_ESP,
		.family = AF_INET,
		.mode = XFRM_MODE_TRANSPORT,
		.aalgos = ~0,
		.ealgos = ~0,
		.calgos = ~0,
	};
	struct xfrm_userpolicy_info *info;

	info = user_ask(u, XFRM_MSG_NEWPOLICY, NLM_F_ACK, sizeof(*info));
	user_selector(&info->sel);
	info->lft = no_limits;
	info->priority = XFRM_TEST_PRIO;
	info->dir = XFRM_POLICY_OUT;
	info->action = XFRM_POLICY_ALLOW;
	user_add(u, XFRMA_TMPL, &tmpl, sizeof(tmpl));
	user_add_offload(u, dev, XFRM_OFFLOAD_PACKET);
	return user_request(u);
}

/* Its description, or NULL. */
static struct xfrm_userpolicy_info *user_get_policy(struct nl_user *u)
{
	struct xfrm_userpolicy_id *id;

	id = user_ask(u, XFRM_MSG_GETPOLICY, 0, sizeof(*id));
	user_selector(&id->sel);
	id->dir = XFRM_POLICY_OUT;
	if (user_request(u) || u->nlh.nlmsg_type != XFRM_MSG_NEWPOLICY)
		return NULL;
	return nlmsg_data(&u->nlh);
}

/* User space does not see that there is a third kind of action, nor a device
 * that is not there.
 */
static void policy_shown(struct kunit *test)
{
	struct xfrm_userpolicy_info *info, kept;
	struct xfrm_user_polexpire *up;
	struct nl_user *u = user_init(test);
	struct xfrm_test_nic *nic;
	int ifindex;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	ifindex = nic->dev->ifindex;
	KUNIT_ASSERT_EQ(test, user_add_policy(u, nic->dev), 0);
	info = user_get_policy(u);
	KUNIT_ASSERT_NOT_NULL(test, info);
	KUNIT_EXPECT_EQ(test, info->action, XFRM_POLICY_ALLOW);
	KUNIT_EXPECT_EQ(test, user_offload(u, sizeof(*info)), ifindex);
	kept = *info;

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	info = user_get_policy(u);
	KUNIT_ASSERT_NOT_NULL(test, info);
	KUNIT_EXPECT_EQ(test, info->index, kept.index);
	KUNIT_EXPECT_EQ(test, info->action, XFRM_POLICY_BLOCK);
	KUNIT_EXPECT_EQ(test, user_offload(u, sizeof(*info)), 0);

	KUNIT_ASSERT_TRUE(test, user_hears(u, XFRM_MSG_POLEXPIRE));
	up = nlmsg_data(&u->nlh);
	KUNIT_EXPECT_EQ(test, up->hard, 1);
	KUNIT_EXPECT_EQ(test, up->pol.index, kept.index);
	KUNIT_EXPECT_EQ(test, up->pol.action, XFRM_POLICY_BLOCK);
	KUNIT_EXPECT_EQ(test, user_offload(u, sizeof(*up)), 0);
	XFRM_TEST_EXPECT_TOLD(test, 0, 1);
}

/* A key manager may expire a policy itself. That of one which has expired with
 * its device is not told once more.
 */
static void policy_expired_by_user(struct kunit *test)
{
	struct xfrm_user_polexpire *up;
	struct nl_user *u = user_init(test);
	struct xfrm_test_nic *nic;
	int i;

	for (i = 0; i < 2; i++) {
		nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
		KUNIT_ASSERT_EQ(test, user_add_policy(u, nic->dev), 0);
		if (i) {
			xfrm_test_nic_depart(nic, NETDEV_DOWN);
			KUNIT_ASSERT_TRUE(test,
					  user_hears(u, XFRM_MSG_POLEXPIRE));
		}

		up = user_ask(u, XFRM_MSG_POLEXPIRE, NLM_F_ACK, sizeof(*up));
		user_selector(&up->pol.sel);
		up->pol.dir = XFRM_POLICY_OUT;
		up->hard = 1;
		KUNIT_EXPECT_EQ(test, user_request(u), 0);

		KUNIT_EXPECT_EQ(test, user_heard(u, XFRM_MSG_POLEXPIRE), !i);
		KUNIT_EXPECT_NULL(test, user_get_policy(u));
		XFRM_TEST_EXPECT_REFS(nic, 0);
	}
	XFRM_TEST_EXPECT_TOLD(test, 0, 2);
}

/* The device of a policy is the one that its states should have. */
static void acquire_shown(struct kunit *test)
{
	struct nl_user *u = user_init(test);
	struct xfrm_test_nic *nic;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	KUNIT_ASSERT_EQ(test, user_add_policy(u, nic->dev), 0);
	KUNIT_EXPECT_LT(test, xfrm_test_verdict(test, &pol_out), 0);
	KUNIT_ASSERT_TRUE(test, user_hears(u, XFRM_MSG_ACQUIRE));
	KUNIT_EXPECT_EQ(test,
			user_offload(u, sizeof(struct xfrm_user_acquire)),
			nic->dev->ifindex);
}

static int user_add_state(struct nl_user *u, struct net_device *dev)
{
	struct {
		struct xfrm_algo_aead aead;
		u8 key[20];
	} alg = {
		.aead = {
			.alg_name = "rfc4106(gcm(aes))",
			.alg_key_len = 160,
			.alg_icv_len = 128,
		},
	};
	struct xfrm_usersa_info *info;

	info = user_ask(u, XFRM_MSG_NEWSA, NLM_F_ACK, sizeof(*info));
	info->id.proto = IPPROTO_ESP;
	info->id.spi = xfrm_test_spi(0);
	xfrm_test_addrs(AF_INET, 0, &info->saddr, &info->id.daddr);
	info->lft = no_limits;
	info->family = AF_INET;
	info->mode = XFRM_MODE_TRANSPORT;
	user_add(u, XFRMA_ALG_AEAD, &alg, sizeof(alg));
	user_add_offload(u, dev, 0);
	return user_request(u);
}

static struct xfrm_usersa_info *user_get_state(struct nl_user *u)
{
	struct xfrm_usersa_id *id;
	xfrm_address_t saddr;

	id = user_ask(u, XFRM_MSG_GETSA, 0, sizeof(*id));
	xfrm_test_addrs(AF_INET, 0, &saddr, &id->daddr);
	id->spi = xfrm_test_spi(0);
	id->family = AF_INET;
	id->proto = IPPROTO_ESP;
	if (user_request(u) || u->nlh.nlmsg_type != XFRM_MSG_NEWSA)
		return NULL;
	return nlmsg_data(&u->nlh);
}

/* The last that one hears of a state are the counters of its device. */
static void state_shown(struct kunit *test)
{
	struct xfrm_usersa_info *info;
	struct nl_user *u = user_init(test);
	struct xfrm_user_expire *exp;
	struct xfrm_test_nic *nic;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	KUNIT_ASSERT_EQ(test, user_add_state(u, nic->dev), 0);
	nic->hw_packets = 815;
	info = user_get_state(u);
	KUNIT_ASSERT_NOT_NULL(test, info);
	KUNIT_EXPECT_EQ(test, info->curlft.packets, 815);
	KUNIT_EXPECT_EQ(test, user_offload(u, sizeof(*info)),
			nic->dev->ifindex);
	nic->hw_packets = 4711;

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	KUNIT_ASSERT_TRUE(test, user_hears(u, XFRM_MSG_EXPIRE));
	exp = nlmsg_data(&u->nlh);
	KUNIT_EXPECT_EQ(test, exp->hard, 1);
	KUNIT_EXPECT_EQ(test, exp->state.curlft.packets, 4711);
	KUNIT_EXPECT_EQ(test, user_heard(u, XFRM_MSG_EXPIRE), 0);
	KUNIT_EXPECT_NULL(test, user_get_state(u));
	XFRM_TEST_EXPECT_TOLD(test, 1, 0);
	XFRM_TEST_EXPECT_REFS(nic, 0);
}

/* What the driver does not take is not added. */
static void state_refused(struct kunit *test)
{
	struct nl_user *u = user_init(test);
	struct xfrm_test_nic *nic;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	nic->add_err = -ENOSPC;
	KUNIT_EXPECT_EQ(test, user_add_state(u, nic->dev), -ENOSPC);
	KUNIT_EXPECT_NULL(test, user_get_state(u));
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 0);
	XFRM_TEST_EXPECT_REFS(nic, 0);
}

#ifdef CONFIG_XFRM_MIGRATE
/* Move the state that user_add_state() adds to the addresses of @idx. */
static int user_migrate_state(struct nl_user *u, u32 idx)
{
	struct xfrm_user_migrate_state *um;
	xfrm_address_t saddr;

	um = user_ask(u, XFRM_MSG_MIGRATE_STATE, NLM_F_ACK, sizeof(*um));
	xfrm_test_addrs(AF_INET, 0, &saddr, &um->id.daddr);
	um->id.spi = xfrm_test_spi(0);
	um->id.family = AF_INET;
	um->id.proto = IPPROTO_ESP;
	xfrm_test_addrs(AF_INET, idx, &um->new_saddr, &um->new_daddr);
	um->new_family = AF_INET;
	um->new_sel.family = AF_INET;
	um->flags = XFRM_MIGRATE_STATE_CLEAR_OFFLOAD;
	return user_request(u);
}

/* A state can leave its device, but not when the device has left it. */
static void state_migrated(struct kunit *test)
{
	struct nl_user *u = user_init(test);
	struct xfrm_test *ctx = test->priv;
	xfrm_address_t saddr, daddr[2];
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;
	int i;

	for (i = 0; i < 2; i++)
		xfrm_test_addrs(AF_INET, i, &saddr, &daddr[i]);

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	KUNIT_ASSERT_EQ(test, user_add_state(u, nic->dev), 0);
	x = xfrm_state_lookup(ctx->net, 0, &daddr[0], xfrm_test_spi(0),
			      IPPROTO_ESP, AF_INET);
	KUNIT_ASSERT_NOT_NULL(test, x);
	xfrm_test_state_hold(test, x);
	xfrm_state_put(x);
	xfrm_test_state_freeze(x);
	xfrm_test_nic_depart(nic, NETDEV_DOWN);
	KUNIT_ASSERT_TRUE(test, xfrm_test_state_found(x));
	KUNIT_EXPECT_EQ(test, user_migrate_state(u, 1), -ESRCH);
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.state_num, 1);
	KUNIT_EXPECT_TRUE(test, xfrm_test_state_thaw(x));
	KUNIT_EXPECT_TRUE(test, xfrm_test_wait(test, 1, 0));

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	KUNIT_ASSERT_EQ(test, user_add_state(u, nic->dev), 0);
	KUNIT_EXPECT_EQ(test, user_migrate_state(u, 1), 0);
	xfrm_flush_gc();
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_ADD, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, 1);
	XFRM_TEST_EXPECT_REFS(nic, 0);
	x = xfrm_state_lookup(ctx->net, 0, &daddr[1], xfrm_test_spi(0),
			      IPPROTO_ESP, AF_INET);
	KUNIT_ASSERT_NOT_NULL(test, x);
	KUNIT_EXPECT_EQ(test, x->km.state, XFRM_STATE_VALID);
	KUNIT_EXPECT_NULL(test, x->xso.dev);
	xfrm_state_put(x);

	/* The departure is none of its business. */
	xfrm_test_nic_depart(nic, NETDEV_DOWN);
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.state_num, 1);
	XFRM_TEST_EXPECT_TOLD(test, 1, 0);
}
#endif

static struct kunit_case xfrm_test_user_cases[] = {
	KUNIT_CASE(policy_shown),
	KUNIT_CASE(policy_expired_by_user),
	KUNIT_CASE(acquire_shown),
	KUNIT_CASE(state_shown),
	KUNIT_CASE(state_refused),
#ifdef CONFIG_XFRM_MIGRATE
	KUNIT_CASE(state_migrated),
#endif
	{}
};

struct kunit_suite xfrm_test_user_suite = {
	.name = "xfrm_device_user",
	.suite_init = xfrm_test_suite_init,
	.init = xfrm_test_init,
	.test_cases = xfrm_test_user_cases,
};
