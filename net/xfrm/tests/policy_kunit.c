// SPDX-License-Identifier: GPL-2.0
/*
 * What happens to the policies of a device that goes away.
 */
#include <linux/rtnetlink.h>

#include "fixture.h"

/* Prefixes of this length are not hashed. */
#define PREFIX	31
#define HOST	32

struct policy_param {
	char desc[KUNIT_PARAM_DESC_SIZE];
	struct xdt_pol pol;
	unsigned long event;
};

#define POLICY(_kind, _dir, _sel, _event)				\
	{ .desc = #_kind " " #_dir " " #_sel " " #_event,		\
	  .pol = { .kind = KIND_##_kind, .dir = XFRM_POLICY_##_dir,	\
		   .prefix = _sel },					\
	  .event = NETDEV_##_event }

static const struct policy_param policy_params[] = {
	POLICY(PROTECT, OUT, HOST, DOWN),
	POLICY(PROTECT, OUT, PREFIX, UNREGISTER),
	POLICY(PROTECT, IN, HOST, UNREGISTER),
	POLICY(PROTECT, IN, PREFIX, DOWN),
	POLICY(PROTECT, FWD, HOST, DOWN),
	POLICY(BLOCK, OUT, PREFIX, DOWN),
	POLICY(BLOCK, IN, HOST, UNREGISTER),
	POLICY(BYPASS, OUT, HOST, UNREGISTER),
	POLICY(BYPASS, FWD, PREFIX, DOWN),
};

KUNIT_ARRAY_PARAM_DESC(policy, policy_params, desc);

/* Plain packets: with the device, the hardware has seen those that come in. */
static bool verdict_fits(const struct xdt_pol *p, bool gone)
{
	int ret = xdt_verdict(p);

	if (p->kind == KIND_BLOCK)
		return ret == -EPERM;
	if (p->kind == KIND_PROTECT && (gone || p->dir == XFRM_POLICY_OUT))
		return ret < 0;
	return !ret;
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
		KUNIT_EXPECT_TRUE(test, verdict_fits(&p->pol, false));

	xdt_nic_event(nic, p->event);

	XDT_EXPECT_LOG(bypass ? "p0:delete p0:free p0:del" :
				"p0:delete p0:free p0:upd");
	KUNIT_EXPECT_TRUE(test, xfrm_policy_devgone(pol));
	KUNIT_EXPECT_EQ(test, pol->walk.dead, bypass);
	KUNIT_EXPECT_EQ(test, pol->xfrm_nr, p->pol.kind == KIND_PROTECT);
	KUNIT_EXPECT_TRUE(test, verdict_fits(&p->pol, true));
	KUNIT_EXPECT_EQ(test, xdt_policy_delete(pol), !bypass);
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
	XDT_EXPECT_LOG("p0:delete p0:free p0:upd");
}

static void acquire_hook(struct xdt_nic *nic, void *obj)
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

	KUNIT_ASSERT_FALSE(test, pol->walk.dead);
	/* As if a lookup had found it just before it is killed. */
	pol->walk.dead = 1;
	KUNIT_EXPECT_LT(test, xdt_verdict(PROTECT_OUT), 0);
	pol->walk.dead = 0;
	XDT_EXPECT_LOG("p0:delete p0:free p0:upd");
	KUNIT_EXPECT_LT(test, xdt_verdict(PROTECT_OUT), 0);
	XDT_EXPECT_LOG("s-1:acquire");
}

static struct xfrm_policy *killed;

static void killer_func(struct work_struct *work)
{
	xdt_policy_delete(killed);
}

static DECLARE_WORK(killer, killer_func);

/* A task deletes one policy and is in the driver when the device goes away,
 * which may have another one.
 */
static void policy_killed(struct kunit *test)
{
	struct xdt_nic *nic;
	int i;

	for (i = 0; i < 2; i++) {
		nic = xdt_nic(OPS_FULL);
		xdt_block(nic);
		killed = xdt_policy(nic, POL(.dir = XFRM_POLICY_OUT, .idx = i));
		if (i)
			xdt_policy(nic, POL(.dir = XFRM_POLICY_OUT, .idx = 2));
		queue_work(system_dfl_wq, &killer);
		xdt_entered();

		xdt_nic_event(nic, NETDEV_DOWN);
		complete_all(&xdt.back);
		flush_work(&killer);

		KUNIT_EXPECT_FALSE(test, xdt.overtaken);
		XDT_EXPECT_LOG(i ?
			       "p1:delete p1:free p2:delete p2:free p2:upd" :
			       "p0:delete p0:free");
	}
}

static void kill_hook(struct xdt_nic *nic, void *obj)
{
	nic->hook = NULL;
	XDT_EXPECT_LOG("s0:delete");
	KUNIT_EXPECT_TRUE(xdt.test, xdt_policy_delete(nic->hook_arg));
}

/* Three of a kind each: states go first, and the driver is through before a
 * listener hears of a policy. Of one that is deleted meanwhile, none does.
 */
static void policy_order(struct kunit *test)
{
	static const char log[] = {
		"s0:free p0:delete p0:free p0:upd p1:delete p1:free p1:del p2:delete p2:free"
	};
	struct xdt_nic *nic = xdt_nic(OPS_FULL);

	xdt_state(nic, SA(.type = PACKET));
	xdt_policy(nic, POL(KIND_PROTECT, XFRM_POLICY_IN));
	xdt_policy(nic, POL(KIND_BYPASS, XFRM_POLICY_OUT, .idx = 1));
	nic->hook_arg = xdt_policy(nic, POL(KIND_BLOCK, XFRM_POLICY_OUT,
					    .idx = 2));
	nic->hook = kill_hook;

	xdt_nic_event(nic, NETDEV_UNREGISTER);

	XDT_EXPECT_LOG(log);
}

/* Policies in software and of another device have nothing to do with it. */
static void policy_bystanders(struct kunit *test)
{
	struct xdt_nic *other = xdt_nic(OPS_FULL);
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_policy *pol;

	xdt_policy(nic, POL(KIND_PROTECT, XFRM_POLICY_OUT));
	xdt_policy(NULL, POL(KIND_PROTECT, XFRM_POLICY_OUT, .idx = 1));
	pol = xdt_policy(other, POL(KIND_PROTECT, XFRM_POLICY_OUT, .idx = 2));

	xdt_nic_event(nic, NETDEV_UNREGISTER);

	XDT_EXPECT_LOG("p0:delete p0:free p0:upd");
	KUNIT_EXPECT_PTR_EQ(test, pol->xdo.dev, other->dev);
}

/* A policy in software that replaces an offloaded one: XFRM_MSG_NEWPOLICY does
 * so only when the device is gone. It is sorted in by priority, behind one for
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

		p.prefix = i % 2 ? PREFIX : HOST;
		nic = xdt_nic(OPS_FULL);
		block = xdt_policy(NULL, POL(KIND_BLOCK, p.dir, p.prefix,
					     IPPROTO_UDP, 1, .prio = -1));
		p.kind = KIND_PROTECT;
		pol = xdt_policy(nic, &p);
		p.kind = KIND_BYPASS;
		new = xdt_policy_alloc(NULL, &p);
		KUNIT_EXPECT_EQ(test, -EEXIST,
				xfrm_policy_insert(p.dir, new, true));
		if (gone)
			xdt_nic_event(nic, NETDEV_DOWN);

		/* Otherwise as XFRM_MSG_UPDPOLICY does it. */
		KUNIT_EXPECT_EQ(test, 0, xfrm_policy_insert(p.dir, new, gone));
		KUNIT_EXPECT_TRUE(test, pol->walk.dead);
		KUNIT_EXPECT_EQ(test, xdt_verdict(&p), -EPERM);
		KUNIT_EXPECT_TRUE(test, xdt_policy_delete(block));
		KUNIT_EXPECT_EQ(test, xdt_verdict(&p), 0);
		KUNIT_EXPECT_TRUE(test, xdt_policy_delete(new));
		xfrm_pol_put(new);
		XDT_EXPECT_LOG(gone ? "p1:delete p1:free p1:upd" :
				      "p1:delete p1:free");
	}
}

/* The unsorted policy at the head of the chain is the worst, or one for TCP. It
 * ends no walk, and those in software are sorted behind it, also when the
 * tables are built again: the block is better than the bypass.
 */
static void policy_sorted(struct kunit *test)
{
	struct xdt_nic *nic;
	int i;

	for (i = 0; i < 2; i++) {
		/* All prefixes of that length are in one chain. */
		u8 prefix = i ? HOST : 12;

		nic = xdt_nic(OPS_FULL);
		xdt_policy(NULL, POL(KIND_BLOCK, XFRM_POLICY_OUT, prefix,
				     IPPROTO_UDP));
		xdt_policy(nic, POL(KIND_PROTECT, XFRM_POLICY_OUT, prefix,
				    i ? IPPROTO_TCP : 0, .prio = 2));
		xdt_policy(NULL, POL(KIND_BYPASS, XFRM_POLICY_OUT, .prio = 1));
		KUNIT_EXPECT_EQ(test, xdt_verdict(PROTECT_OUT), -EPERM);
		xdt_nic_event(nic, NETDEV_DOWN);
		KUNIT_EXPECT_EQ(test, xdt_verdict(PROTECT_OUT), -EPERM);
		xfrm_policy_hash_rebuild(&init_net);
		flush_work(&init_net.xfrm.policy_hthresh.work);
		KUNIT_EXPECT_EQ(test, xdt_verdict(PROTECT_OUT), -EPERM);
		xdt_flush(NULL);
	}
}

/* Inserted after the event of its device, which is unregistered or has moved to
 * another netns: no other event will release it. Nor if it cannot be inserted.
 */
static void policy_inserted_late(struct kunit *test)
{
	enum { UNREGISTERED, MOVED, REFUSED, N };
	static struct net elsewhere;	/* nobody looks into it */
	struct xfrm_policy *pol;
	struct xdt_nic *nic;
	int i, err;

	for (i = 0; i < N; i++) {
		if (i == REFUSED)
			xdt_policy(NULL, PROTECT_OUT);
		nic = xdt_nic(OPS_FULL);
		pol = xdt_policy_alloc(nic, PROTECT_OUT);
		rtnl_lock();
		nic->gone = true;
		if (i == MOVED)
			write_pnet(&nic->dev->nd_net, &elsewhere);
		else
			nic->dev->reg_state = NETREG_UNREGISTERING;
		err = xfrm_policy_insert(XFRM_POLICY_OUT, pol, true);
		write_pnet(&nic->dev->nd_net, &init_net);
		nic->dev->reg_state = NETREG_REGISTERED;
		rtnl_unlock();

		KUNIT_EXPECT_EQ(test, err, i == REFUSED ? -EEXIST : 0);
		KUNIT_EXPECT_TRUE(test, xfrm_policy_devgone(pol));
		KUNIT_EXPECT_EQ(test, atomic_read(&nic->objs), 0);
		KUNIT_EXPECT_EQ(test, xdt_policy_delete(pol), !err);
		pol->walk.dead = 1;
		xfrm_pol_put(pol);
	}
}

/* Its lifetime ends in a timer, but the driver may sleep. */
static void policy_expires(struct kunit *test)
{
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_policy *pol;

	pol = xdt_policy(nic, PROTECT_OUT);
	pol->lft.hard_add_expires_seconds = 1;
	pol->curlft.add_time -= 3600;
	if (!mod_timer(&pol->timer, jiffies))
		xfrm_pol_hold(pol);
	xdt_log_wait("expire");
	XDT_EXPECT_LOG("p0:delete p0:free p0:expire");
	KUNIT_EXPECT_FALSE(test, xdt_policy_delete(pol));
}

static struct kunit_case policy_cases[] = {
	KUNIT_CASE_PARAM(policy_devgone, policy_gen_params),
	KUNIT_CASE(policy_software_state),
	KUNIT_CASE(policy_acquire),
	KUNIT_CASE(policy_killed),
	KUNIT_CASE(policy_order),
	KUNIT_CASE(policy_bystanders),
	KUNIT_CASE(policy_replaced),
	KUNIT_CASE(policy_sorted),
	KUNIT_CASE(policy_inserted_late),
	KUNIT_CASE(policy_expires),
	{}
};

static struct kunit_suite policy_suite = {
	.name = "xfrm_device_policy",
	.init = xdt_init,
	.test_cases = policy_cases,
};

kunit_test_suite(policy_suite);
