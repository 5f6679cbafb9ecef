// SPDX-License-Identifier: GPL-2.0
/*
 * What happens to the policies of a device that goes away.
 */
#include <linux/kthread.h>
#include <linux/rtnetlink.h>

#include "fixture.h"

#define HOST	false
#define PREFIX	true

struct policy_param {
	char desc[KUNIT_PARAM_DESC_SIZE];
	struct xdt_pol pol;
	unsigned long event;
};

#define POLICY(_kind, _dir, _sel, _type, _event)			\
	{ .desc = #_kind " " #_dir " " #_sel " " #_type " " #_event,	\
	  .pol = { .kind = KIND_##_kind, .dir = XFRM_POLICY_##_dir,	\
		   .inexact = _sel, .type = XFRM_POLICY_TYPE_##_type },	\
	  .event = NETDEV_##_event }

static const struct policy_param policy_params[] = {
	POLICY(PROTECT, OUT, HOST, MAIN, DOWN),
	POLICY(PROTECT, OUT, PREFIX, MAIN, UNREGISTER),
	POLICY(PROTECT, IN, HOST, MAIN, UNREGISTER),
	POLICY(PROTECT, IN, PREFIX, MAIN, DOWN),
	POLICY(PROTECT, FWD, HOST, MAIN, DOWN),
	POLICY(PROTECT, FWD, PREFIX, MAIN, UNREGISTER),
	POLICY(BLOCK, OUT, PREFIX, MAIN, DOWN),
	POLICY(BLOCK, IN, HOST, MAIN, UNREGISTER),
	POLICY(BYPASS, OUT, HOST, MAIN, UNREGISTER),
	POLICY(BYPASS, IN, PREFIX, MAIN, DOWN),
#ifdef CONFIG_XFRM_SUB_POLICY
	POLICY(PROTECT, OUT, HOST, SUB, UNREGISTER),
	POLICY(PROTECT, IN, PREFIX, SUB, DOWN),
	POLICY(BYPASS, FWD, HOST, SUB, DOWN),
#endif
};

KUNIT_ARRAY_PARAM_DESC(policy, policy_params, desc);

/* Plain packets: with the device the hardware has seen to those that come in. */
static void expect_verdict(const struct xdt_pol *p, bool gone)
{
	struct kunit *test = xdt.test;
	int ret = xdt_verdict(p);

	if (p->kind == KIND_BYPASS)
		KUNIT_EXPECT_EQ(test, ret, 0);
	else if (p->kind == KIND_BLOCK)
		KUNIT_EXPECT_EQ(test, ret, -EPERM);
	else if (p->dir == XFRM_POLICY_OUT || gone)
		KUNIT_EXPECT_LT(test, ret, 0);
	else
		KUNIT_EXPECT_EQ(test, ret, 0);
}

/* A policy stays where and what it is, but for the device. A bypass goes. */
static void policy_devgone(struct kunit *test)
{
	const struct policy_param *p = test->param_value;
	bool bypass = p->pol.kind == KIND_BYPASS;
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_policy *pol;

	pol = xdt_policy(nic, &p->pol);
	if (p->pol.dir != XFRM_POLICY_OUT)
		expect_verdict(&p->pol, false);

	xdt_nic_event(nic, p->event);

	KUNIT_EXPECT_EQ(test, nic->leaked, 0);
	KUNIT_EXPECT_STREQ(test, xdt.log,
			   bypass ? "p0:add p0:delete p0:free p0:del" :
				    "p0:add p0:delete p0:free p0:upd");
	KUNIT_EXPECT_TRUE(test, xfrm_policy_devgone(pol));
	KUNIT_EXPECT_EQ(test, xdt_policy_found(pol), !bypass);
	KUNIT_EXPECT_EQ(test, pol->walk.dead, bypass);
	KUNIT_EXPECT_EQ(test, pol->action,
			p->pol.kind == KIND_BLOCK ? XFRM_POLICY_BLOCK :
						    XFRM_POLICY_ALLOW);
	KUNIT_EXPECT_EQ(test, pol->xfrm_nr, p->pol.kind == KIND_PROTECT);
	expect_verdict(&p->pol, true);
}

/* States in software do from now on, and are not used before. */
static void policy_software_state(struct kunit *test)
{
	struct xdt_nic *nic = xdt_nic(OPS_FULL);

	xdt_policy(nic, PROTECT_OUT);
	xdt_state(NULL, SA());
	nic->err = -ENOSPC; /* no larval state */
	KUNIT_EXPECT_LT(test, xdt_verdict(PROTECT_OUT), 0);

	xdt_nic_event(nic, NETDEV_DOWN);

	KUNIT_EXPECT_EQ(test, xdt_verdict(PROTECT_OUT), 1);
	KUNIT_EXPECT_EQ(test, atomic_read(&xdt.acquires), 0);
}

static void acquire_hook(struct xdt_nic *nic, enum xdt_op op, void *obj)
{
	KUNIT_EXPECT_LT(xdt.test, xdt_verdict(PROTECT_OUT), 0);
}

/* No ACQUIRE for a policy that the driver still has, or that is dead. */
static void policy_acquire(struct kunit *test)
{
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_policy *pol;

	pol = xdt_policy(nic, PROTECT_OUT);
	nic->hook = acquire_hook;

	xdt_nic_event(nic, NETDEV_DOWN);

	KUNIT_EXPECT_EQ(test, atomic_read(&xdt.acquires), 0);
	KUNIT_ASSERT_TRUE(test, xdt_policy_found(pol));
	/* As if a lookup had found it just before it is killed. */
	pol->walk.dead = 1;
	KUNIT_EXPECT_LT(test, xdt_verdict(PROTECT_OUT), 0);
	pol->walk.dead = 0;
	KUNIT_EXPECT_EQ(test, atomic_read(&xdt.acquires), 0);
	KUNIT_EXPECT_LT(test, xdt_verdict(PROTECT_OUT), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&xdt.acquires), 1);
}

/* Deleted, but something has a reference, as a bundle. That keeps no device. */
static void policy_killed(struct kunit *test)
{
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_policy *pol;

	pol = xdt_policy(nic, PROTECT_OUT);
	KUNIT_EXPECT_TRUE(test, xdt_policy_delete(pol));
	KUNIT_EXPECT_STREQ(test, xdt.log, "p0:add p0:delete p0:free");

	xdt_nic_event(nic, NETDEV_UNREGISTER);

	KUNIT_EXPECT_STREQ(test, xdt.log, "p0:add p0:delete p0:free");
	KUNIT_EXPECT_EQ(test, nic->leaked, 0);
}

static void killer_hook(struct xdt_nic *nic, enum xdt_op op, void *obj)
{
	if (op == OP_POLICY_FREE)
		xdt_block();
}

static int killer_thread(void *pol)
{
	xdt_policy_delete(pol);
	kthread_complete_and_exit(&xdt.done, 0);
}

/* A task deletes one policy and is in the driver when the device goes away, which
 * may have another one.
 */
static void policy_killed_before(struct kunit *test)
{
	struct xfrm_policy *pol;
	struct xdt_nic *nic;
	int i;

	for (i = 0; i < 2; i++) {
		xdt_block_init();
		nic = xdt_nic(OPS_FULL);
		nic->hook = killer_hook;
		pol = xdt_policy(nic, POL(.dir = XFRM_POLICY_OUT, .idx = i));
		if (i)
			xdt_policy(nic, POL(.dir = XFRM_POLICY_OUT, .idx = 2));
		xdt_log_clear();
		KUNIT_ASSERT_FALSE(test, IS_ERR(kthread_run(killer_thread, pol,
							    "xfrm_test")));
		KUNIT_ASSERT_TRUE(test, xdt_wait(&xdt.entered));

		xdt_nic_event(nic, NETDEV_DOWN);
		complete_all(&xdt.back);
		KUNIT_ASSERT_TRUE(test, xdt_wait(&xdt.done));

		KUNIT_EXPECT_FALSE(test, xdt.overtaken);
		KUNIT_EXPECT_STREQ(test, xdt.log,
				   i ? "p1:delete p1:free p2:delete p2:free p2:upd" :
				       "p0:delete p0:free");
	}
}

static void kill_hook(struct xdt_nic *nic, enum xdt_op op, void *obj)
{
	struct xfrm_policy *pol = nic->hook_arg;

	if (op == OP_STATE_FREE)
		KUNIT_EXPECT_TRUE(xdt.test, xdt_policy_delete(pol));
}

/* Three of a kind each: states go first, and the driver is through before anybody
 * hears of a policy. Of one that is deleted meanwhile, nobody does.
 */
static void policy_order(struct kunit *test)
{
	static const struct xdt_pol p[] = {
		{ .kind = KIND_PROTECT, .dir = XFRM_POLICY_IN, .idx = 0 },
		{ .kind = KIND_BYPASS, .dir = XFRM_POLICY_OUT, .idx = 1 },
		{ .kind = KIND_BLOCK, .dir = XFRM_POLICY_OUT, .idx = 2 },
	};
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_policy *pol[ARRAY_SIZE(p)];
	int i;

	xdt_state(nic, SA(.type = PACKET));
	for (i = 0; i < ARRAY_SIZE(p); i++)
		pol[i] = xdt_policy(nic, &p[i]);
	xdt_log_clear();
	nic->hook = kill_hook;
	nic->hook_arg = pol[2];

	xdt_nic_event(nic, NETDEV_UNREGISTER);

	KUNIT_EXPECT_STREQ(test, xdt.log,
			   "s0:stats s0:delete s0:free p0:delete p0:free p0:upd p1:delete p1:free p1:del p2:delete p2:free");
}

/* A policy in software that replaces an offloaded one: XFRM_MSG_NEWPOLICY does
 * that only when the device is gone. It is sorted in by priority, behind one for
 * UDP, and does not get the place at the head.
 */
static void policy_replaced(struct kunit *test)
{
	struct xdt_pol p = { .dir = XFRM_POLICY_OUT, .idx = 1 };
	struct xfrm_policy *pol, *block, *new;
	struct xdt_nic *nic;
	int i;

	for (i = 0; i < 4; i++) {
		bool gone = i / 2;

		p.inexact = i % 2;
		nic = xdt_nic(OPS_FULL);
		p.kind = KIND_BLOCK;
		block = xdt_policy_alloc(NULL, &p);
		block->priority--;
		block->selector.proto = IPPROTO_UDP;
		KUNIT_EXPECT_EQ(test, 0, xdt_policy_insert(block, p.dir, 1));
		p.kind = KIND_PROTECT;
		pol = xdt_policy(nic, &p);
		p.kind = KIND_BYPASS;
		new = xdt_policy_alloc(NULL, &p);
		KUNIT_EXPECT_EQ(test, -EEXIST,
				xdt_policy_insert(new, p.dir, 1));
		if (gone)
			xdt_nic_event(nic, NETDEV_DOWN);

		new = xdt_policy_alloc(NULL, &p);
		/* Otherwise as XFRM_MSG_UPDPOLICY does it. */
		KUNIT_EXPECT_EQ(test, 0, xdt_policy_insert(new, p.dir, gone));
		KUNIT_EXPECT_FALSE(test, xdt_policy_found(pol));
		KUNIT_EXPECT_TRUE(test, xdt_policy_found(new));
		KUNIT_EXPECT_EQ(test, xdt_verdict(&p), -EPERM);
		KUNIT_EXPECT_TRUE(test, xdt_policy_delete(block));
		KUNIT_EXPECT_EQ(test, xdt_verdict(&p), 0);
		KUNIT_EXPECT_TRUE(test, xdt_policy_delete(new));
		XDT_EXPECT_CALLS(nic, OP_POLICY_FREE, 1);
	}
}

/* The unsorted policy at the head of the chain is the worst, or one for TCP. It ends
 * no walk, and those in software are sorted behind it, also when the tables are built
 * again: the block is better than the bypass, be they in two chains or in one.
 */
static void policy_sorted(struct kunit *test)
{
	static const struct xdt_pol p[] = {
		{ .kind = KIND_BLOCK, .dir = XFRM_POLICY_OUT, .idx = 0 },
		{ .kind = KIND_PROTECT, .dir = XFRM_POLICY_OUT, .idx = 2 },
		{ .kind = KIND_BYPASS, .dir = XFRM_POLICY_OUT, .idx = 1 },
	};
	static const u8 protos[] = { IPPROTO_UDP, IPPROTO_TCP, 0 };
	struct xfrm_policy *pol;
	struct xdt_nic *nic;
	int i, j;

	for (i = 0; i < 2; i++) {
		nic = xdt_nic(OPS_FULL);
		for (j = 0; j < ARRAY_SIZE(p); j++) {
			pol = xdt_policy_alloc(j == 1 ? nic : NULL, &p[j]);
			xdt_addrs(1, &pol->selector.saddr,
				  &pol->selector.daddr);
			pol->selector.proto = protos[j];
			if (!i && j < 2) {
				/* All such prefixes are in one chain. */
				if (j)
					pol->selector.proto = 0;
				pol->selector.prefixlen_s = 12;
				pol->selector.prefixlen_d = 12;
			}
			KUNIT_EXPECT_EQ(test, 0,
					xdt_policy_insert(pol, p[j].dir, 1));
		}
		KUNIT_EXPECT_EQ(test, xdt_verdict(&p[2]), -EPERM);
		xdt_nic_event(nic, NETDEV_DOWN);
		KUNIT_EXPECT_EQ(test, xdt_verdict(&p[2]), -EPERM);
		xfrm_policy_hash_rebuild(&init_net);
		flush_work(&init_net.xfrm.policy_hthresh.work);
		KUNIT_EXPECT_EQ(test, xdt_verdict(&p[2]), -EPERM);
		xdt_flush(NULL);
	}
}

/* Inserted after the event of its device, which is unregistered or has moved to
 * another netns: no other event will release it. Nor if it cannot be inserted.
 */
static void policy_inserted_late(struct kunit *test)
{
	enum { UNREGISTERED, MOVED, REFUSED, N };
	struct xdt_pol p = { .dir = XFRM_POLICY_OUT };
	struct xdt_nic *nic;
	struct xfrm_policy *pol;
	struct net *elsewhere;
	int i, err;

	/* Nobody looks into it. */
	elsewhere = kunit_kzalloc(test, sizeof(*elsewhere), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, elsewhere);
	for (i = 0; i < N; i++) {
		p.idx = i;
		if (i == REFUSED)
			xdt_policy(NULL, &p);
		nic = xdt_nic(OPS_FULL);
		pol = xdt_policy_alloc(nic, &p);
		rtnl_lock();
		nic->gone = true;
		if (i == MOVED)
			write_pnet(&nic->dev->nd_net, elsewhere);
		else
			nic->dev->reg_state = NETREG_UNREGISTERING;
		err = xfrm_policy_insert(p.dir, pol, 1);
		write_pnet(&nic->dev->nd_net, &init_net);
		nic->dev->reg_state = NETREG_REGISTERED;
		rtnl_unlock();

		KUNIT_EXPECT_EQ(test, err, i == REFUSED ? -EEXIST : 0);
		KUNIT_EXPECT_TRUE(test, xfrm_policy_devgone(pol));
		XDT_EXPECT_CALLS(nic, OP_POLICY_FREE, 1);
		KUNIT_EXPECT_EQ(test, xdt_policy_found(pol), i != REFUSED);
		if (err)
			xdt_policy_release(pol);
		else
			xfrm_pol_put(pol);
	}
}

/* Its lifetime ends in a timer, but the driver may sleep. */
static void policy_expires(struct kunit *test)
{
	unsigned long timeout = jiffies + XDT_TIMEOUT;
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_policy *pol;

	pol = xdt_policy(nic, PROTECT_OUT);
	pol->lft.hard_add_expires_seconds = 1;
	pol->curlft.add_time -= 3600;
	if (!mod_timer(&pol->timer, jiffies))
		xfrm_pol_hold(pol);
	while (!strstr(xdt.log, "expire") && time_before(jiffies, timeout))
		schedule_timeout_uninterruptible(1);
	KUNIT_EXPECT_STREQ(test, xdt.log, "p0:add p0:delete p0:free p0:expire");
	KUNIT_EXPECT_FALSE(test, xdt_policy_found(pol));
}

static struct kunit_case policy_cases[] = {
	KUNIT_CASE_PARAM(policy_devgone, policy_gen_params),
	KUNIT_CASE(policy_software_state),
	KUNIT_CASE(policy_acquire),
	KUNIT_CASE(policy_killed),
	KUNIT_CASE(policy_killed_before),
	KUNIT_CASE(policy_order),
	KUNIT_CASE(policy_replaced),
	KUNIT_CASE(policy_sorted),
	KUNIT_CASE(policy_inserted_late),
	KUNIT_CASE(policy_expires),
	{}
};

static struct kunit_suite policy_suite = {
	.name = "xfrm_device_policy",
	.suite_init = xdt_suite_init,
	.init = xdt_init,
	.test_cases = policy_cases,
};

kunit_test_suite(policy_suite);
