// SPDX-License-Identifier: GPL-2.0
/*
 * Packets, lookups and other devices while a device goes away.
 */
#include <linux/rtnetlink.h>

#include "fixture.h"

static struct dst_entry *bundle;

KUNIT_DEFINE_ACTION_WRAPPER(bundle_release, dst_release, struct dst_entry *);

/* What a socket or a packet may hold: a bundle of @x, on a route by the NIC. */
static void bundle_make(struct xdt_nic *nic, struct xfrm_state *x)
{
	struct dst_entry *route = xdt_route(nic->dev);
	struct xfrm_dst *xdst;

	xdst = dst_alloc(&init_net.xfrm.xfrm4_dst_ops, nic->dev,
			 DST_OBSOLETE_FORCE_CHK, 0);
	KUNIT_ASSERT_NOT_NULL(xdt.test, xdst);
	memset_after(xdst, 0, u.dst);
	xfrm_dst_set_child(xdst, route);
	dst_hold(route);
	xdst->route = route;
	xdst->path = route;
	xdst->child_mtu_cached = 1500;
	xdst->route_mtu_cached = 1500;
	xfrm_state_hold(x);
	bundle = &xdst->u.dst;
	bundle->xfrm = x;
	xdt_defer(bundle_release, bundle);
}

/* A packet of the bundle leaves as clear text or to the NIC, or is dropped. */
static void expect_sent(int err)
{
	struct sk_buff *skb = xdt_skb(0);

	xdt.plain = 0;
	skb->dev = bundle->dev;
	skb_dst_set(skb, dst_clone(bundle));
	KUNIT_EXPECT_EQ(xdt.test, xfrm_output(NULL, skb), err);
	KUNIT_EXPECT_EQ(xdt.test, xdt.plain, !err);
}

static void send_hook(struct xdt_nic *nic, void *obj)
{
	expect_sent(-EINVAL);
}

/* With packet offload they leave until the state is unlinked or deleted. */
static void packet_output(struct kunit *test)
{
	struct xfrm_state *x;
	struct xdt_nic *nic;
	int i;

	for (i = 0; i < 4; i++) {
		nic = xdt_nic(OPS_FULL);
		x = xdt_state(nic, SA(i % 2 ? XFRM_MODE_TUNNEL :
					      XFRM_MODE_TRANSPORT,
				      PACKET, .idx = i));
		bundle_make(nic, x);
		expect_sent(0);
		nic->refuse = true;
		expect_sent(-EHOSTUNREACH);
		nic->refuse = false;
		if (i / 2) {
			KUNIT_EXPECT_EQ(test, xfrm_state_delete(x), 0);
		} else {
			nic->hook = send_hook;
			xdt_nic_event(nic, NETDEV_DOWN);
			nic->hook = NULL;
		}
		expect_sent(-EINVAL);
	}
}

/* The first state in software, which ends the walk of an offloaded policy, is
 * not what the policy is looking for.
 */
static void packet_cpu_acquire(struct kunit *test)
{
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_state *x;

	x = xdt_state_alloc(NULL, SA());
	/* For the second of two walks. */
	memset(&x->props.saddr, 0, sizeof(x->props.saddr));
	xdt_state_insert(x);
	xdt_policy(nic, PROTECT_OUT)->flags |= XFRM_POLICY_CPU_ACQUIRE;

	KUNIT_EXPECT_LT(test, xdt_verdict(PROTECT_OUT), 0);
	XDT_EXPECT_LOG("s-1:acquire");
}

static struct xfrm_state *listener_state;

static int listener_event(struct notifier_block *nb, unsigned long event,
			  void *ptr)
{
	if (event == NETDEV_DOWN)
		xdt_log_state(listener_state, "down");
	if (event == NETDEV_FEAT_CHANGE)
		xdt_log_state(listener_state, "features");
	return NOTIFY_DONE;
}

KUNIT_DEFINE_ACTION_WRAPPER(listener_unregister, unregister_netdevice_notifier,
			    struct notifier_block *);

/* Neighbours are flushed by notifiers without priority: by then no more packets
 * may be queued there. A veto of features must not keep the event from others.
 */
static void packet_notifiers(struct kunit *test)
{
	/* In front of those, and behind xfrm's. */
	static struct notifier_block nb = {
		.notifier_call = listener_event, .priority = 1,
	};
	struct xdt_nic *nic = xdt_nic(OPS_FULL);

	listener_state = xdt_state(nic, SA(.type = PACKET));
	KUNIT_ASSERT_EQ(test, 0, register_netdevice_notifier(&nb));
	xdt_defer(listener_unregister, &nb);

	nic->dev->features &= ~NETIF_F_HW_ESP;
	xdt_nic_event(nic, NETDEV_FEAT_CHANGE);
	nic->dev->features |= NETIF_F_HW_ESP;
	xdt_nic_event(nic, NETDEV_DOWN);

	XDT_EXPECT_LOG("s0:features s0:delete s0:free s0:down");
}

#ifndef CONFIG_TINY_RCU
/* Expedited grace periods of a device that goes down with these objects, or of
 * synchronize_net(). Others may have some at the same time, so take the least
 * of a few.
 */
static unsigned long grace_periods(enum xdt_ops ops, bool state, bool policy)
{
	unsigned long least = ULONG_MAX;
	struct xdt_nic *nic;
	struct rcu_gp_seq from, to;
	int i;

	for (i = 0; i < 3; i++) {
		xdt_flush(NULL);
		nic = xdt_nic(ops);
		if (state)
			xdt_state(nic, SA(.type = CRYPTO));
		if (policy)
			xdt_policy(nic, PROTECT_OUT);
		get_state_synchronize_rcu_full(&from);
		xdt_nic_event(nic, NETDEV_DOWN);
		get_state_synchronize_rcu_full(&to);
		/* The two lowest bits say whether one is going on. */
		least = min(least, (to.exp - from.exp) >> 2);
	}
	return least;
}

/* Nothing offloaded costs nothing, states cost one, policies another one. */
static void packet_grace_periods(struct kunit *test)
{
	struct rcu_gp_seq from, to;

	rtnl_lock();
	get_state_synchronize_rcu_full(&from);
	synchronize_net();
	get_state_synchronize_rcu_full(&to);
	rtnl_unlock();
	if (to.exp == from.exp)
		kunit_skip(test, "grace periods are not expedited");

	KUNIT_EXPECT_EQ(test, 0, grace_periods(OPS_FULL, false, false));
	KUNIT_EXPECT_EQ(test, 1, grace_periods(OPS_CRYPTO, true, false));
	KUNIT_EXPECT_EQ(test, 1, grace_periods(OPS_FULL, false, true));
	KUNIT_EXPECT_EQ(test, 2, grace_periods(OPS_FULL, true, true));
}
#endif

static struct kunit_case packet_cases[] = {
	KUNIT_CASE(packet_output),
	KUNIT_CASE(packet_cpu_acquire),
	KUNIT_CASE(packet_notifiers),
#ifndef CONFIG_TINY_RCU
	KUNIT_CASE(packet_grace_periods),
#endif
	{}
};

static struct kunit_suite packet_suite = {
	.name = "xfrm_device_packet",
	.init = xdt_init,
	.test_cases = packet_cases,
};

kunit_test_suite(packet_suite);
