// SPDX-License-Identifier: GPL-2.0
/*
 * What happens to packets of a device that departs.
 */
#include <linux/rtnetlink.h>
#include <net/ip.h>

#include "fixture.h"

#define HW_ESP	(NETIF_F_HW_ESP | NETIF_F_HW_ESP_TX_CSUM)

struct packet_param {
	char desc[KUNIT_PARAM_DESC_SIZE];
	u16 family;
	u8 mode;
};

static const struct packet_param packet_params[] = {
	{ "ipv4 transport", AF_INET, XFRM_MODE_TRANSPORT },
	{ "ipv4 tunnel", AF_INET, XFRM_MODE_TUNNEL },
#if IS_ENABLED(CONFIG_INET6_ESP_OFFLOAD)
	{ "ipv6 transport", AF_INET6, XFRM_MODE_TRANSPORT },
	{ "ipv6 tunnel", AF_INET6, XFRM_MODE_TUNNEL },
#endif
};

KUNIT_ARRAY_PARAM_DESC(packet, packet_params, desc);

static void release_dst(void *data)
{
	dst_release(data);
}

/* What a socket or a packet may hold: a bundle of @x, on a route by the NIC. */
static struct dst_entry *make_bundle(struct xfrm_test_nic *nic,
				     struct xfrm_state *x)
{
	struct kunit *test = nic->test;
	struct xfrm_test *ctx = test->priv;
	struct dst_ops *ops = &ctx->net->xfrm.xfrm4_dst_ops;
	struct dst_entry *route;
	struct xfrm_dst *xdst;

	route = xfrm_test_route(test, nic->dev, x->props.family);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, release_dst, route));
#if IS_ENABLED(CONFIG_IPV6)
	if (x->props.family == AF_INET6)
		ops = &ctx->net->xfrm.xfrm6_dst_ops;
#endif
	xdst = dst_alloc(ops, nic->dev, DST_OBSOLETE_FORCE_CHK, 0);
	KUNIT_ASSERT_NOT_NULL(test, xdst);
	memset_after(xdst, 0, u.dst);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, release_dst,
						  &xdst->u.dst));
	dst_hold(route);
	xfrm_dst_set_child(xdst, route);
	dst_hold(route);
	xdst->route = route;
	xdst->path = route;
	xdst->child_mtu_cached = 1500;
	xdst->route_mtu_cached = 1500;
	xfrm_state_hold(x);
	xdst->u.dst.xfrm = x;
	return &xdst->u.dst;
}

struct sender {
	struct kunit *test;
	struct dst_entry *dst;
	struct sk_buff *skb;	/* the next one, if it is there already */
	u16 family;
	int errors;
	int sent;
};

static void send(struct sender *s)
{
	struct sk_buff *skb = s->skb;

	if (!skb)
		skb = xfrm_test_skb(s->test, s->family, 0);
	s->skb = NULL;
	skb->dev = s->dst->dev;
	skb_dst_set(skb, dst_clone(s->dst));
	if (xfrm_output(NULL, skb) < 0)
		s->errors++;
	s->sent++;
}

static void send_hook(struct xfrm_test_nic *nic, enum xfrm_test_op op,
		      void *obj)
{
	struct sender *s = nic->hook_arg;

	/* Nothing but RTNL is locked, and the device is still in reach. */
	if (op == OP_STATE_FREE && s->skb)
		send(s);
}

/* With packet offload the stack hands out plain packets. They are sent while
 * the driver is still busy with the state, after it, and when that has expired.
 */
static void output_packet(struct kunit *test)
{
	const struct packet_param *p = test->param_value;
	struct xfrm_test_sa sa = {
		.family = p->family,
		.mode = p->mode,
		.type = XFRM_DEV_OFFLOAD_PACKET,
		.dir = XFRM_SA_DIR_OUT,
	};
	const int field = LINUX_MIB_XFRMOUTSTATEINVALID;
	struct sender s = { .test = test };
	unsigned long dropped, clear;
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &sa);
	s.dst = make_bundle(nic, x);
	s.family = p->family;
	xfrm_test_state_freeze(x);

	/* The device is given the plain packet. */
	send(&s);
	KUNIT_EXPECT_EQ(test, s.errors, 0);
	clear = xfrm_test_cleartext() + xfrm_test_nic_calls(nic, OP_XMIT);
	KUNIT_EXPECT_EQ(test, clear, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_OFFLOAD_OK, 1);
	dropped = xfrm_test_mib(field);

	s.skb = xfrm_test_skb(test, p->family, 0);
	nic->hook = send_hook;
	nic->hook_arg = &s;
	/* It is still up, or up again. */
	xfrm_test_nic_notify(nic, NETDEV_DOWN);
	nic->hook = NULL;
	KUNIT_EXPECT_EQ(test, s.sent, 2);
	send(&s);

	KUNIT_EXPECT_EQ(test, s.errors, 2);
	clear = xfrm_test_cleartext() + xfrm_test_nic_calls(nic, OP_XMIT);
	KUNIT_EXPECT_EQ(test, clear, 1);
	XFRM_TEST_EXPECT_MIB(test, field, dropped + 2);

	KUNIT_ASSERT_TRUE(test, xfrm_test_state_found(x));
	KUNIT_ASSERT_TRUE(test, xfrm_test_state_thaw(x));
	KUNIT_ASSERT_TRUE(test, xfrm_test_wait(test, 1, 0));
	send(&s);
	KUNIT_EXPECT_EQ(test, s.errors, 3);
	clear = xfrm_test_cleartext() + xfrm_test_nic_calls(nic, OP_XMIT);
	KUNIT_EXPECT_EQ(test, clear, 1);
	XFRM_TEST_EXPECT_MIB(test, field, dropped + 3);
}

/* What the driver does not want to encrypt is not sent in clear either. */
static void output_refused(struct kunit *test)
{
	const struct packet_param *p = test->param_value;
	struct xfrm_test_sa sa = {
		.family = p->family,
		.mode = p->mode,
		.type = XFRM_DEV_OFFLOAD_PACKET,
		.dir = XFRM_SA_DIR_OUT,
	};
	const int field = LINUX_MIB_XFRMOUTERROR;
	struct sender s = { .test = test };
	struct xfrm_test_nic *nic;
	unsigned long dropped;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	s.dst = make_bundle(nic, xfrm_test_state(nic, &sa));
	s.family = p->family;
	nic->refuse = true;
	dropped = xfrm_test_mib(field);

	send(&s);

	KUNIT_EXPECT_EQ(test, s.errors, 1);
	KUNIT_EXPECT_EQ(test, xfrm_test_cleartext(), 0);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_OFFLOAD_OK, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_XMIT, 0);
	XFRM_TEST_EXPECT_MIB(test, field, dropped + 1);
}

/* The device is there, but the state is deleted: a bundle keeps it. */
static void output_deleted(struct kunit *test)
{
	const struct packet_param *p = test->param_value;
	struct xfrm_test_sa sa = {
		.family = p->family,
		.mode = p->mode,
		.type = XFRM_DEV_OFFLOAD_PACKET,
		.dir = XFRM_SA_DIR_OUT,
	};
	const int field = LINUX_MIB_XFRMOUTSTATEINVALID;
	struct sender s = { .test = test };
	struct xfrm_test_nic *nic;
	unsigned long dropped, clear;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &sa);
	s.dst = make_bundle(nic, x);
	s.family = p->family;
	send(&s);
	KUNIT_EXPECT_EQ(test, s.errors, 0);
	clear = xfrm_test_cleartext() + xfrm_test_nic_calls(nic, OP_XMIT);
	KUNIT_EXPECT_EQ(test, clear, 1);
	dropped = xfrm_test_mib(field);
	KUNIT_ASSERT_EQ(test, xfrm_state_delete(x), 0);

	send(&s);

	KUNIT_EXPECT_EQ(test, s.errors, 1);
	clear = xfrm_test_cleartext() + xfrm_test_nic_calls(nic, OP_XMIT);
	KUNIT_EXPECT_EQ(test, clear, 1);
	XFRM_TEST_EXPECT_MIB(test, field, dropped + 1);
}

/* Everything else is dropped where it has always been. */
static void output_crypto(struct kunit *test)
{
	const struct packet_param *p = test->param_value;
	struct xfrm_test_sa sa = {
		.family = p->family,
		.mode = p->mode,
		.type = XFRM_DEV_OFFLOAD_CRYPTO,
		.dir = XFRM_SA_DIR_OUT,
	};
	const int field = LINUX_MIB_XFRMOUTSTATEINVALID;
	struct sender s = { .test = test };
	struct xfrm_test_nic *nic;
	unsigned long dropped;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &sa);
	s.dst = make_bundle(nic, x);
	s.family = p->family;
	xfrm_test_state_freeze(x);
	dropped = xfrm_test_mib(field);

	xfrm_test_nic_notify(nic, NETDEV_DOWN);
	KUNIT_ASSERT_TRUE(test, xfrm_test_state_found(x));
	send(&s);

	KUNIT_EXPECT_EQ(test, s.errors, 1);
	KUNIT_EXPECT_EQ(test, xfrm_test_cleartext(), 0);
	XFRM_TEST_EXPECT_CALLS(nic, OP_XMIT, 0);
	XFRM_TEST_EXPECT_MIB(test, field, dropped + 1);
}

/* An ESP packet for a state that has lost its device. */
static void input(struct kunit *test)
{
	struct xfrm_test_sa sa = {
		.family = AF_INET,
		.mode = XFRM_MODE_TRANSPORT,
		.type = XFRM_DEV_OFFLOAD_CRYPTO,
		.dir = XFRM_SA_DIR_IN,
	};
	const int field = LINUX_MIB_XFRMINSTATEINVALID;
	struct xfrm_test_nic *nic;
	unsigned long dropped;
	struct xfrm_state *x;
	struct sk_buff *skb;

	if (!IS_ENABLED(CONFIG_XFRM_STATISTICS))
		kunit_skip(test, "nothing to see without statistics");

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &sa);
	xfrm_test_state_freeze(x);
	xfrm_test_nic_notify(nic, NETDEV_DOWN);
	KUNIT_ASSERT_TRUE(test, xfrm_test_state_found(x));

	dropped = xfrm_test_mib(field);
	skb = xfrm_test_skb(test, AF_INET, 0);
	swap(ip_hdr(skb)->saddr, ip_hdr(skb)->daddr);
	XFRM_TUNNEL_SKB_CB(skb)->tunnel.ip4 = NULL;
	XFRM_SPI_SKB_CB(skb)->family = AF_INET;
	XFRM_SPI_SKB_CB(skb)->daddroff = offsetof(struct iphdr, daddr);
	skb_dst_set(skb, xfrm_test_route(test, skb->dev, AF_INET));
	skb_pull(skb, sizeof(struct iphdr));
	local_bh_disable();
	rcu_read_lock();
	xfrm_input(skb, IPPROTO_ESP, x->id.spi, 0);
	rcu_read_unlock();
	local_bh_enable();
	XFRM_TEST_EXPECT_MIB(test, field, dropped + 1);
}

/* A connected socket holds a bundle, and that state and policy. It keeps
 * neither the device nor on sending.
 */
static void bundle(struct kunit *test)
{
	struct xfrm_test_pol pol = {
		.family = AF_INET,
		.kind = KIND_PROTECT,
		.dir = XFRM_POLICY_OUT,
	};
	struct xfrm_test_sa sa = {
		.family = AF_INET,
		.mode = XFRM_MODE_TRANSPORT,
		.type = XFRM_DEV_OFFLOAD_PACKET,
		.dir = XFRM_SA_DIR_OUT,
	};
	struct xfrm_test_nic *nic;
	struct dst_entry *dst;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &sa);
	xfrm_test_policy(nic, &pol);
	dst = xfrm_test_lookup(test, AF_INET, 0);
	KUNIT_ASSERT_FALSE(test, IS_ERR(dst));
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, release_dst, dst));
	KUNIT_EXPECT_PTR_EQ(test, dst->xfrm, x);

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	XFRM_TEST_EXPECT_REFS(nic, 0);
	KUNIT_EXPECT_NULL(test, dst->ops->check(dst, 0));
	KUNIT_EXPECT_EQ(test, xfrm_test_verdict(test, &pol), -EPERM);
	KUNIT_EXPECT_TRUE(test, xfrm_test_wait(test, 1, 1));
	XFRM_TEST_EXPECT_TOLD(test, 1, 1);
}

/* A packet comes when the device is about to depart: what follows happens while
 * its lookup asks for a key manager, because it has not found a state.
 */
static struct {
	struct xfrm_policy *pol;
	struct net_device *dev;
	u8 action;
} alive;

static void take_device(struct kunit *test)
{
	alive.dev = alive.pol->xdo.dev;
	WRITE_ONCE(alive.pol->xdo.dev, NULL);
}

static void block_and_take_device(struct kunit *test)
{
	WRITE_ONCE(alive.pol->action, XFRM_POLICY_BLOCK);
	take_device(test);
}

static void alive_end(void *data)
{
	WRITE_ONCE(alive.pol->action, alive.action);
	if (alive.dev)
		WRITE_ONCE(alive.pol->xdo.dev, alive.dev);
}

static int alive_verdict(struct xfrm_test_nic *nic,
			 const struct xfrm_test_pol *p,
			 void (*is_alive)(struct kunit *test))
{
	struct kunit *test = nic->test;
	struct xfrm_test *ctx = test->priv;
	u32 index = xfrm_test_policy(nic, p);
	int ret;

	alive.dev = NULL;
	alive.pol = xfrm_test_policy_get(test, p, index);
	KUNIT_ASSERT_NOT_NULL(test, alive.pol);
	alive.action = alive.pol->action;
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, alive_end, NULL));
	ctx->km.is_alive = is_alive;

	ret = xfrm_test_verdict(test, p);

	ctx->km.is_alive = NULL;
	KUNIT_EXPECT_NOT_NULL(test, alive.dev);
	kunit_release_action(test, alive_end, NULL);
	xfrm_test_policy_put(test, alive.pol);
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.state_num, 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->km.acquires), 0);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_ADD, 0);
	return ret;
}

/* There is no larval state for a device that is not there. */
static void no_device_for_larval(struct kunit *test)
{
	struct xfrm_test_pol pol = {
		.family = AF_INET,
		.kind = KIND_PROTECT,
		.dir = XFRM_POLICY_OUT,
	};
	struct xfrm_test_nic *nic;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	KUNIT_EXPECT_LT(test, alive_verdict(nic, &pol, take_device), 0);
}

/* The state of an optional template may be missing because the device departs:
 * the packet does not go without.
 */
static void no_state_for_optional(struct kunit *test)
{
	struct xfrm_test_pol pol = {
		.family = AF_INET,
		.kind = KIND_OPTIONAL,
		.dir = XFRM_POLICY_OUT,
	};
	struct xfrm_test_nic *nic;
	int ret;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	ret = alive_verdict(nic, &pol, block_and_take_device);
	KUNIT_EXPECT_EQ(test, ret, -EPERM);
}

static void change_policy(struct kunit *test)
{
	atomic_inc(&alive.pol->genid);
}

/* A bundle that is made while its policy changes is stale. */
static void bundle_of_changed_policy(struct kunit *test)
{
	struct xfrm_test_pol p = {
		.family = AF_INET,
		.kind = KIND_PROTECT,
		.dir = XFRM_POLICY_OUT,
	};
	struct xfrm_test_sa sa = {
		.family = AF_INET,
		.mode = XFRM_MODE_TRANSPORT,
		.dir = XFRM_SA_DIR_OUT,
	};
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_nic *nic;
	struct xfrm_policy *pol;
	struct dst_entry *dst;
	struct flowi fl;
	u32 index;
	int i;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	xfrm_test_state(nic, &sa);
	/* There is no AH, only that is asked for. */
	ctx->km.acquire_err = -EINVAL;
	pol = xfrm_test_policy_alloc(test, &p);
	pol->xfrm_vec[1] = pol->xfrm_vec[0];
	pol->xfrm_vec[0].id.proto = IPPROTO_AH;
	pol->xfrm_vec[0].optional = 1;
	pol->xfrm_nr = 2;
	index = xfrm_test_policy_insert(test, NULL, pol, p.dir);
	pol = xfrm_test_policy_get(test, &p, index);
	KUNIT_ASSERT_NOT_NULL(test, pol);
	alive.pol = pol;

	for (i = 0; i < 2; i++) {
		ctx->km.is_alive = i ? change_policy : NULL;
		dst = xfrm_test_route(test, nic->dev, AF_INET);
		xfrm_test_flow(&fl, AF_INET, 0);
		dst = xfrm_lookup(ctx->net, dst, &fl, NULL, 0);
		ctx->km.is_alive = NULL;
		KUNIT_EXPECT_FALSE(test, IS_ERR(dst));
		if (IS_ERR(dst))
			break;
		KUNIT_EXPECT_NOT_NULL(test, dst->xfrm);
		KUNIT_EXPECT_PTR_EQ(test, dst->ops->check(dst, 0),
				    i ? NULL : dst);
		dst_release(dst);
	}
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->km.acquires), 2);
	xfrm_test_policy_put(test, pol);
}

struct late {
	struct notifier_block nb;
	struct net_device *dev;
	struct xfrm_state *x;
	bool called;
	bool unlinked;
};

static int late_event(struct notifier_block *nb, unsigned long event, void *ptr)
{
	struct net_device *dev = netdev_notifier_info_to_dev(ptr);
	struct late *late = container_of(nb, struct late, nb);

	if (event == NETDEV_DOWN && dev == late->dev) {
		late->called = true;
		late->unlinked = !READ_ONCE(late->x->xso.dev);
	}
	return NOTIFY_DONE;
}

static void late_unregister(void *nb)
{
	unregister_netdevice_notifier(nb);
}

/* Packets that wait for a neighbour are dropped by one of the notifiers that
 * have no priority. By then no more may come.
 */
static void before_neighbours(struct kunit *test)
{
	struct xfrm_test_sa sa = {
		.family = AF_INET,
		.mode = XFRM_MODE_TRANSPORT,
		.type = XFRM_DEV_OFFLOAD_PACKET,
		.dir = XFRM_SA_DIR_OUT,
	};
	struct xfrm_test_nic *nic;
	struct late *late;

	late = kunit_kzalloc(test, sizeof(*late), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, late);
	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	late->x = xfrm_test_state(nic, &sa);
	late->dev = nic->dev;
	/* In front of those, and behind the ones of its kind. */
	late->nb.priority = 1;
	late->nb.notifier_call = late_event;
	KUNIT_ASSERT_EQ(test, 0, register_netdevice_notifier(&late->nb));
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, late_unregister,
						  &late->nb));

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	KUNIT_EXPECT_TRUE(test, late->called);
	KUNIT_EXPECT_TRUE(test, late->unlinked);
}

static struct kunit_case xfrm_test_packet_cases[] = {
	KUNIT_CASE_PARAM(output_packet, packet_gen_params),
	KUNIT_CASE_PARAM(output_refused, packet_gen_params),
	KUNIT_CASE_PARAM(output_deleted, packet_gen_params),
	KUNIT_CASE_PARAM(output_crypto, packet_gen_params),
	KUNIT_CASE(input),
	KUNIT_CASE(bundle),
	KUNIT_CASE(no_device_for_larval),
	KUNIT_CASE(no_state_for_optional),
	KUNIT_CASE(bundle_of_changed_policy),
	KUNIT_CASE(before_neighbours),
	{}
};

struct kunit_suite xfrm_test_packet_suite = {
	.name = "xfrm_device_packet",
	.suite_init = xfrm_test_suite_init,
	.init = xfrm_test_init,
	.test_cases = xfrm_test_packet_cases,
};
