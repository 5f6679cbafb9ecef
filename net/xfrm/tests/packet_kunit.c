// SPDX-License-Identifier: GPL-2.0
/*
 * Packets, lookups and other devices while a device goes away.
 */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/rtnetlink.h>

#include "fixture.h"

static struct dst_entry *bundle;

static void bundle_release(void *dst)
{
	dst_release(dst);
}

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

	atomic_set(&xdt.plain, 0);
	skb->dev = bundle->dev;
	skb_dst_set(skb, dst_clone(bundle));
	KUNIT_EXPECT_EQ(xdt.test, xfrm_output(NULL, skb), err);
	KUNIT_EXPECT_EQ(xdt.test, atomic_read(&xdt.plain), !err);
}

static void send_hook(struct xdt_nic *nic, enum xdt_op op, void *obj)
{
	if (op == OP_STATE_FREE)
		expect_sent(-EINVAL);
}

/* With packet offload they leave until the state is unlinked or deleted. */
static void packet_output(struct kunit *test)
{
	static const u8 modes[] = { XFRM_MODE_TRANSPORT, XFRM_MODE_TUNNEL };
	struct xfrm_state *x;
	struct xdt_nic *nic;
	int i;

	for (i = 0; i < 2 * ARRAY_SIZE(modes); i++) {
		nic = xdt_nic(OPS_FULL);
		x = xdt_state(nic, SA(.type = PACKET, .mode = modes[i % 2],
				      .idx = i));
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

/* The first state in software, which ends the walk of an offloaded policy, is not
 * what the policy is looking for.
 */
static void packet_cpu_acquire(struct kunit *test)
{
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_policy *pol;
	struct xfrm_state *x;

	x = xdt_state_alloc(NULL, SA());
	/* For the second of two walks. */
	memset(&x->props.saddr, 0, sizeof(x->props.saddr));
	xdt_state_insert(x);
	pol = xdt_policy_alloc(nic, PROTECT_OUT);
	pol->flags |= XFRM_POLICY_CPU_ACQUIRE;
	KUNIT_EXPECT_EQ(test, 0, xdt_policy_insert(pol, XFRM_POLICY_OUT, 1));

	KUNIT_EXPECT_LT(test, xdt_verdict(PROTECT_OUT), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&xdt.acquires), 1);
}

/* The lookup has read xdo.dev and is about to make a larval state for it. */
static void late_is_alive(void *data)
{
	unsigned long timeout = jiffies + XDT_TIMEOUT;
	struct xfrm_policy *pol = data;

	complete_all(&xdt.entered);
	while (READ_ONCE(pol->xdo.dev) && time_before(jiffies, timeout))
		cpu_relax();
	/* Too short a time hides a fault, it makes none. */
	mdelay(20);
}

static int late_thread(void *unused)
{
	struct dst_entry *dst = xdt_lookup(0);

	if (!IS_ERR(dst))
		dst_release(dst);
	kthread_complete_and_exit(&xdt.done, 0);
}

/* A larval state that is inserted meanwhile is unlinked as well. */
static void packet_late_larval(struct kunit *test)
{
	struct xdt_nic *nic;

	if (num_online_cpus() < 2)
		kunit_skip(test, "needs two CPUs");

	xdt_block_init();
	nic = xdt_nic(OPS_FULL);
	xdt.arg = xdt_policy(nic, PROTECT_OUT);
	xdt.is_alive = late_is_alive;
	KUNIT_ASSERT_FALSE(test, IS_ERR(kthread_run(late_thread, NULL,
						    "xfrm_test")));
	KUNIT_ASSERT_TRUE(test, xdt_wait(&xdt.entered));

	xdt_nic_event(nic, NETDEV_DOWN);
	KUNIT_ASSERT_TRUE(test, xdt_wait(&xdt.done));

	XDT_EXPECT_CALLS(nic, OP_STATE_ADD, 1);
	XDT_EXPECT_CALLS(nic, OP_STATE_FREE, 1);
}

static struct {
	struct xfrm_state *x;
	bool down, feat_change;
} listener;

static int listener_event(struct notifier_block *nb, unsigned long event,
			  void *ptr)
{
	if (event == NETDEV_DOWN && !READ_ONCE(listener.x->xso.dev))
		listener.down = true;
	if (event == NETDEV_FEAT_CHANGE)
		listener.feat_change = true;
	return NOTIFY_DONE;
}

static void listener_unregister(void *nb)
{
	unregister_netdevice_notifier(nb);
}

/* Neighbours are flushed by notifiers without priority: by then no more packets
 * may be queued there. And to veto features is no reason to keep an event of them
 * from others.
 */
static void packet_notifiers(struct kunit *test)
{
	/* In front of those, and behind xfrm's. */
	static struct notifier_block nb = {
		.notifier_call = listener_event, .priority = 1,
	};
	struct xdt_nic *nic = xdt_nic(OPS_FULL);

	listener.x = xdt_state(nic, SA(.type = PACKET));
	KUNIT_ASSERT_EQ(test, 0, register_netdevice_notifier(&nb));
	xdt_defer(listener_unregister, &nb);
	listener.down = false;
	listener.feat_change = false;

	rtnl_lock();
	nic->dev->features &= ~NETIF_F_HW_ESP;
	call_netdevice_notifiers(NETDEV_FEAT_CHANGE, nic->dev);
	nic->dev->features |= NETIF_F_HW_ESP;
	rtnl_unlock();
	xdt_nic_event(nic, NETDEV_DOWN);

	KUNIT_EXPECT_TRUE(test, listener.feat_change);
	KUNIT_EXPECT_TRUE(test, listener.down);
}

#ifndef CONFIG_TINY_RCU
/* Expedited grace periods of a device that goes down with these objects, or of
 * synchronize_net(). Others may have some at the same time, so take the least of a
 * few.
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

/* Many devices at once, and timers that go off by themselves. */
static void packet_batch(struct kunit *test)
{
	struct xdt_nic *nic[100];
	struct xfrm_state *x;
	LIST_HEAD(list);
	ktime_t start;
	int i;

	for (i = 0; i < ARRAY_SIZE(nic); i++) {
		nic[i] = xdt_nic(OPS_FULL);
		x = xdt_state(nic[i], SA(.type = PACKET, .idx = i));
		xdt_timer_thaw(x);
	}
	start = ktime_get_boottime();
	rtnl_lock();
	for (i = 0; i < ARRAY_SIZE(nic); i++)
		unregister_netdevice_queue(nic[i]->dev, &list);
	unregister_netdevice_many(&list);
	rtnl_unlock();

	KUNIT_EXPECT_TRUE(test, xdt_wait_expired(ARRAY_SIZE(nic)));
	KUNIT_EXPECT_GE(test, ktime_ms_delta(ktime_get_boottime(), start), 500);
	KUNIT_EXPECT_EQ(test, init_net.xfrm.state_num, 0);
}

static struct kunit_case packet_cases[] = {
	KUNIT_CASE(packet_output),
	KUNIT_CASE(packet_cpu_acquire),
	KUNIT_CASE(packet_late_larval),
	KUNIT_CASE(packet_notifiers),
#ifndef CONFIG_TINY_RCU
	KUNIT_CASE(packet_grace_periods),
#endif
	KUNIT_CASE_SLOW(packet_batch),
	{}
};

static struct kunit_suite packet_suite = {
	.name = "xfrm_device_packet",
	.suite_init = xdt_suite_init,
	.init = xdt_init,
	.test_cases = packet_cases,
};

kunit_test_suite(packet_suite);
