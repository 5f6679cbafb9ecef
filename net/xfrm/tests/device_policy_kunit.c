// SPDX-License-Identifier: GPL-2.0
/*
 * What happens to the policies of a device that departs.
 */
#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/rtnetlink.h>

#include "fixture.h"

#define HW_ESP	(NETIF_F_HW_ESP | NETIF_F_HW_ESP_TX_CSUM)

struct policy_param {
	char desc[KUNIT_PARAM_DESC_SIZE];
	struct xfrm_test_pol pol;
	unsigned long event;
};

/* Directions, kinds, types, kinds of selector, events and families. */
#define N_DIR	3
#define N_KIND	4
#define N_TYPE	(1 + IS_ENABLED(CONFIG_XFRM_SUB_POLICY))
#define N_FAM	(1 + IS_ENABLED(CONFIG_INET6_ESP_OFFLOAD))
#define N_PARAM	(N_DIR * N_KIND * N_TYPE * 2 * 2 * N_FAM)

static struct policy_param policy_params[N_PARAM];

static const void *policy_gen_params(struct kunit *test, const void *prev,
				     char *desc)
{
	static const char * const dirs[] = { "in", "out", "fwd" };
	static const char * const kinds[] = {
		[KIND_PROTECT] = "protect",
		[KIND_OPTIONAL] = "optional",
		[KIND_BYPASS] = "bypass",
		[KIND_BLOCK] = "block",
	};
	const struct policy_param *last = prev;
	struct policy_param *p = policy_params;
	int i;

	if (last)
		p = &policy_params[last - policy_params + 1];
	i = p - policy_params;
	if (i == N_PARAM)
		return NULL;

	p->pol.dir = i % N_DIR;
	i /= N_DIR;
	p->pol.kind = i % N_KIND;
	i /= N_KIND;
	p->event = i % 2 ? NETDEV_UNREGISTER : NETDEV_DOWN;
	i /= 2;
	/* As between networks. */
	p->pol.inexact = i % 2;
	p->pol.mode = i % 2 ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT;
	i /= 2;
	p->pol.type = i % N_TYPE ? XFRM_POLICY_TYPE_SUB : XFRM_POLICY_TYPE_MAIN;
	i /= N_TYPE;
	p->pol.family = i % N_FAM ? AF_INET6 : AF_INET;
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%s %s %s %s %s %s",
		 p->pol.family == AF_INET ? "ipv4" : "ipv6",
		 p->pol.type == XFRM_POLICY_TYPE_MAIN ? "main" : "sub",
		 p->pol.inexact ? "prefix" : "host", kinds[p->pol.kind],
		 dirs[p->pol.dir],
		 p->event == NETDEV_DOWN ? "down" : "unregister");
	return p;
}

/* What is kept, and can be replaced. */
static const struct policy_param kept_params[] = {
	{ .desc = "host protect out",
	  .pol = { .family = AF_INET,
		   .kind = KIND_PROTECT, .dir = XFRM_POLICY_OUT } },
	{ .desc = "host protect in",
	  .pol = { .family = AF_INET,
		   .kind = KIND_PROTECT, .dir = XFRM_POLICY_IN } },
	{ .desc = "host optional out",
	  .pol = { .family = AF_INET,
		   .kind = KIND_OPTIONAL, .dir = XFRM_POLICY_OUT } },
	{ .desc = "host block out",
	  .pol = { .family = AF_INET,
		   .kind = KIND_BLOCK, .dir = XFRM_POLICY_OUT } },
	{ .desc = "prefix protect out",
	  .pol = { .family = AF_INET,
		   .kind = KIND_PROTECT, .dir = XFRM_POLICY_OUT,
		   .inexact = true, .mode = XFRM_MODE_TUNNEL } },
#if IS_ENABLED(CONFIG_INET6_ESP_OFFLOAD)
	{ .desc = "ipv6 host protect out",
	  .pol = { .kind = KIND_PROTECT, .dir = XFRM_POLICY_OUT,
		   .family = AF_INET6 } },
	{ .desc = "ipv6 prefix block in",
	  .pol = { .kind = KIND_BLOCK, .dir = XFRM_POLICY_IN,
		   .inexact = true, .family = AF_INET6 } },
#endif
	{ .desc = "prefix protect fwd",
	  .pol = { .family = AF_INET,
		   .kind = KIND_PROTECT, .dir = XFRM_POLICY_FWD,
		   .inexact = true, .mode = XFRM_MODE_TUNNEL } },
	{ .desc = "prefix block in",
	  .pol = { .family = AF_INET,
		   .kind = KIND_BLOCK, .dir = XFRM_POLICY_IN,
		   .inexact = true, .mode = XFRM_MODE_TUNNEL } },
};

KUNIT_ARRAY_PARAM_DESC(kept, kept_params, desc);

static const struct policy_param event_params[] = {
	{ .desc = "down", .event = NETDEV_DOWN },
	{ .desc = "unregister", .event = NETDEV_UNREGISTER },
};

KUNIT_ARRAY_PARAM_DESC(event, event_params, desc);

static const struct xfrm_test_pol simple_out = {
	.family = AF_INET,
	.kind = KIND_PROTECT,
	.dir = XFRM_POLICY_OUT,
};

/* The actions that user space knows say what happens to a plain packet. */
static void expect_blocked(struct kunit *test, const struct xfrm_test_pol *p)
{
	int field = p->dir == XFRM_POLICY_OUT ? LINUX_MIB_XFRMOUTPOLBLOCK :
						LINUX_MIB_XFRMINPOLBLOCK;
	unsigned long dropped = xfrm_test_mib(field);

	KUNIT_EXPECT_EQ(test, xfrm_test_verdict(test, p), -EPERM);
	XFRM_TEST_EXPECT_MIB(test, field, dropped + 1);
}

static void expect_unlinked(struct xfrm_test_nic *nic)
{
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_DELETE, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_FREE, 1);
	XFRM_TEST_EXPECT_REFS(nic, 0);
}

/* A policy that has been taken away from its device, with a reference. */
static struct xfrm_policy *assert_kept(struct kunit *test,
				       const struct xfrm_test_pol *p, u32 index)
{
	struct xfrm_policy *pol = xfrm_test_policy_get(test, p, index);

	KUNIT_ASSERT_NOT_NULL(test, pol);
	KUNIT_EXPECT_NULL(test, pol->xdo.dev);
	/* The place in the hash chains depends on it. */
	KUNIT_EXPECT_TRUE(test, pol->xdo.type == XFRM_DEV_OFFLOAD_PACKET);
	return pol;
}

static void freeze(struct kunit *test, const struct xfrm_test_pol *p, u32 index)
{
	struct xfrm_policy *pol = xfrm_test_policy_get(test, p, index);

	KUNIT_ASSERT_NOT_NULL(test, pol);
	xfrm_test_policy_freeze(pol);
	xfrm_test_policy_put(test, pol);
}

/* The whole life of a policy, with a look at what is before its timer runs. */
static void policy_departs(struct kunit *test)
{
	const struct policy_param *p = test->param_value;
	struct xfrm_test_nic *nic;
	struct xfrm_policy *pol;
	u32 index;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	index = xfrm_test_policy(nic, &p->pol);
	XFRM_TEST_EXPECT_REFS(nic, 1);
	if (p->pol.kind == KIND_BLOCK)
		expect_blocked(test, &p->pol);
	else if (p->pol.kind == KIND_BYPASS || p->pol.dir != XFRM_POLICY_OUT)
		KUNIT_EXPECT_EQ(test, xfrm_test_verdict(test, &p->pol), 0);
	freeze(test, &p->pol, index);

	xfrm_test_nic_depart(nic, p->event);

	pol = assert_kept(test, &p->pol, index);
	expect_unlinked(nic);
	KUNIT_EXPECT_STREQ(test, xfrm_test_nic_history(nic, pol),
			   "add delete free");
	if (p->pol.kind == KIND_BYPASS)
		KUNIT_EXPECT_EQ(test, xfrm_test_verdict(test, &p->pol), 0);
	else
		expect_blocked(test, &p->pol);
	XFRM_TEST_EXPECT_TOLD(test, 0, 0);

	KUNIT_EXPECT_TRUE(test, xfrm_test_policy_thaw(test, pol));
	xfrm_test_policy_put(test, pol);
	KUNIT_ASSERT_TRUE(test, xfrm_test_wait(test, 0, 1));

	/* And now that key managers know. */
	pol = xfrm_test_policy_get(test, &p->pol, index);
	if (p->pol.kind == KIND_BYPASS) {
		KUNIT_EXPECT_NULL(test, pol);
		KUNIT_EXPECT_EQ(test, xfrm_test_verdict(test, &p->pol), 0);
	} else {
		KUNIT_ASSERT_NOT_NULL(test, pol);
		/* Once is enough. */
		KUNIT_EXPECT_TRUE(test, xfrm_test_policy_kick(pol));
		expect_blocked(test, &p->pol);
	}
	if (pol)
		xfrm_test_policy_put(test, pol);
	expect_unlinked(nic);
	XFRM_TEST_EXPECT_TOLD(test, 0, 1);
}

/* Nothing in the way of the timer. */
static void policy_expires(struct kunit *test)
{
	static const u8 kinds[] = { KIND_PROTECT, KIND_BYPASS, KIND_BLOCK };
	const struct policy_param *p = test->param_value;
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_nic *nic;
	int i;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	for (i = 0; i < ARRAY_SIZE(kinds); i++) {
		struct xfrm_test_pol pol = simple_out;

		pol.kind = kinds[i];
		pol.idx = i;
		xfrm_test_policy(nic, &pol);
	}

	xfrm_test_nic_depart(nic, p->event);

	KUNIT_EXPECT_TRUE(test, xfrm_test_wait(test, 0, ARRAY_SIZE(kinds)));
	for (i = 0; i < ARRAY_SIZE(kinds); i++)
		KUNIT_EXPECT_EQ(test, ctx->km.policy_told[i], 1);
	XFRM_TEST_EXPECT_TOLD(test, 0, ARRAY_SIZE(kinds));
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.policy_count[XFRM_POLICY_OUT], 2);
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_DELETE, ARRAY_SIZE(kinds));
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_FREE, ARRAY_SIZE(kinds));
	XFRM_TEST_EXPECT_REFS(nic, 0);
}

static int insert_pol(struct xfrm_policy *pol, u8 dir, bool excl, u32 *index)
{
	int err;

	pol->index = *index;
	err = xfrm_policy_insert(dir, pol, excl);
	if (err) {
		pol->walk.dead = 1;
		xfrm_policy_destroy(pol);
	} else {
		*index = pol->index;
		xfrm_pol_put(pol);
	}
	return err;
}

/* To a key manager the policy is gone: it puts in another one. @index is the
 * index that it wants to have, if any, and the one that it gets.
 */
static int insert(struct kunit *test, const struct xfrm_test_pol *p, bool excl,
		  u32 *index)
{
	return insert_pol(xfrm_test_policy_alloc(test, p), p->dir, excl, index);
}

/* The policy of a parameter, frozen, on a NIC that is going to depart, and what
 * is put in instead. Returns the index of the first.
 */
static u32 kept_policy(struct kunit *test, struct xfrm_test_pol *kept,
		       struct xfrm_test_pol *other, struct xfrm_test_nic **nic)
{
	const struct policy_param *p = test->param_value;
	u32 index;

	*kept = p->pol;
	*other = p->pol;
	other->kind = KIND_BYPASS;
	*nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	index = xfrm_test_policy(*nic, kept);
	freeze(test, kept, index);
	return index;
}

static void kept_is_replaced(struct kunit *test, bool told)
{
	struct xfrm_test_pol kept, other;
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_nic *nic;
	struct xfrm_policy *pol;
	u32 index, successor = 0;

	index = kept_policy(test, &kept, &other, &nic);
	/* As long as the device is there it is in the way. */
	KUNIT_EXPECT_EQ(test, insert(test, &other, true, &successor), -EEXIST);

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	pol = assert_kept(test, &kept, index);
	if (told) {
		KUNIT_EXPECT_TRUE(test, xfrm_test_policy_thaw(test, pol));
		KUNIT_EXPECT_TRUE(test, xfrm_test_wait(test, 0, 1));
	}
	XFRM_TEST_EXPECT_TOLD(test, 0, told);
	xfrm_test_policy_put(test, pol);

	KUNIT_EXPECT_EQ(test, insert(test, &other, true, &successor), 0);
	/* If nobody has been told before then it is now. */
	XFRM_TEST_EXPECT_TOLD(test, 0, 1);
	KUNIT_EXPECT_EQ(test, xfrm_test_verdict(test, &other), 0);
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.policy_count[kept.dir], 1);

	/* The new one is as good as any other, not taken for the old one. */
	KUNIT_EXPECT_NE(test, successor, index);
	KUNIT_EXPECT_FALSE(test, xfrm_test_policy_found(&other, index));
	pol = xfrm_test_policy_get(test, &other, successor);
	KUNIT_ASSERT_NOT_NULL(test, pol);
	KUNIT_EXPECT_EQ(test, pol->action, XFRM_POLICY_ALLOW);
	KUNIT_EXPECT_EQ(test, pol->xfrm_nr, 0);
	KUNIT_EXPECT_TRUE(test, xfrm_test_policy_kick(pol));
	xfrm_test_policy_put(test, pol);
	KUNIT_EXPECT_EQ(test, insert(test, &other, true, &index), -EEXIST);
	KUNIT_EXPECT_EQ(test, insert(test, &kept, false, &index), 0);
	KUNIT_EXPECT_EQ(test, successor, index);
	KUNIT_EXPECT_TRUE(test, xfrm_test_policy_delete(&kept, index));
	expect_unlinked(nic);
	XFRM_TEST_EXPECT_TOLD(test, 0, 1);
}

/* XFRM_MSG_UPDPOLICY would have replaced it anyway. */
static void kept_is_updated(struct kunit *test)
{
	struct xfrm_test_pol kept, other;
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_nic *nic;
	u32 index, successor = 0;

	index = kept_policy(test, &kept, &other, &nic);

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	xfrm_test_policy_put(test, assert_kept(test, &kept, index));
	KUNIT_EXPECT_EQ(test, insert(test, &other, false, &successor), 0);
	KUNIT_EXPECT_NE(test, successor, index);
	KUNIT_EXPECT_FALSE(test, xfrm_test_policy_found(&other, index));
	KUNIT_EXPECT_EQ(test, xfrm_test_verdict(test, &other), 0);
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.policy_count[kept.dir], 1);
	expect_unlinked(nic);
	XFRM_TEST_EXPECT_TOLD(test, 0, 1);
}

static void kept_is_replaced_when_told(struct kunit *test)
{
	kept_is_replaced(test, true);
}

static void kept_is_replaced_before_told(struct kunit *test)
{
	kept_is_replaced(test, false);
}

/* Key managers may ask for an index, and get it unless it is the one of the
 * policy that has expired.
 */
static void successor_index(struct kunit *test)
{
	struct xfrm_test_nic *nic;
	u32 index, wanted, got;
	int i;

	for (i = 0; i < 2; i++) {
		struct xfrm_test_pol kept = simple_out, other = simple_out;

		kept.idx = i;
		other.idx = i;
		other.kind = KIND_BYPASS;
		nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
		index = xfrm_test_policy(nic, &kept);

		xfrm_test_nic_depart(nic, NETDEV_DOWN);

		xfrm_test_policy_put(test, assert_kept(test, &kept, index));
		wanted = i ? index + 8 * 1000 : index;
		got = wanted;
		KUNIT_EXPECT_EQ(test, insert(test, &other, true, &got), 0);
		if (i)
			KUNIT_EXPECT_EQ(test, got, wanted);
		else
			KUNIT_EXPECT_NE(test, got, wanted);
		KUNIT_EXPECT_TRUE(test, xfrm_test_policy_delete(&other, got));
	}
}

/* An offloaded policy stands in front of all others, whatever their priority. A
 * policy in software that replaces it does not inherit that.
 */
static void successor_in_place(struct kunit *test)
{
	struct xfrm_test_nic *nic;
	struct xfrm_policy *pol;
	u32 index;
	int i;

	for (i = 0; i < 2; i++) {
		struct xfrm_test_pol kept = simple_out, other;

		kept.idx = i + 1;
		kept.inexact = i;
		other = kept;
		other.kind = KIND_BLOCK;
		/* Matches the same packets, and comes before the next ones. */
		pol = xfrm_test_policy_alloc(test, &other);
		pol->priority--;
		pol->selector.proto = IPPROTO_UDP;
		index = 0;
		KUNIT_ASSERT_EQ(test, 0, insert_pol(pol, other.dir, true,
						    &index));
		nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
		index = xfrm_test_policy(nic, &kept);

		xfrm_test_nic_depart(nic, NETDEV_DOWN);

		xfrm_test_policy_put(test, assert_kept(test, &kept, index));
		other.kind = KIND_BYPASS;
		index = 0;
		KUNIT_EXPECT_EQ(test, insert(test, &other, true, &index), 0);
		expect_blocked(test, &kept);
	}
}

/* The other ways to get rid of it, before and after key managers know. */
static void kept_is_deleted(struct kunit *test)
{
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_nic *nic;
	struct xfrm_policy *pol;
	u32 index;
	int i;

	for (i = 0; i < 6; i++) {
		struct xfrm_test_pol p = simple_out;
		bool told = i & 1;

		p.idx = i;
		nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
		index = xfrm_test_policy(nic, &p);
		freeze(test, &p, index);
		xfrm_test_nic_depart(nic, NETDEV_DOWN);
		pol = assert_kept(test, &p, index);
		if (told) {
			KUNIT_EXPECT_TRUE(test,
					  xfrm_test_policy_thaw(test, pol));
			KUNIT_EXPECT_TRUE(test, xfrm_test_wait(test, 0, i + 1));
		}
		xfrm_test_policy_put(test, pol);

		if (i < 2)
			KUNIT_EXPECT_TRUE(test,
					  xfrm_test_policy_delete(&p, index));
		else
			/* With a task, and without one. */
			KUNIT_EXPECT_EQ(test, 0,
					xfrm_policy_flush(ctx->net,
							  XFRM_POLICY_TYPE_MAIN,
							  i < 4));
		KUNIT_EXPECT_FALSE(test, xfrm_test_policy_found(&p, index));
		KUNIT_EXPECT_EQ(test, ctx->km.policy_told[i], 1);
		XFRM_TEST_EXPECT_TOLD(test, 0, i + 1);
		expect_unlinked(nic);
	}
}

/* A bypass goes, but only once and by its timer. */
static void bypass_is_killed(struct kunit *test)
{
	struct xfrm_test_pol p = simple_out;
	struct xfrm_test_nic *nic;
	struct xfrm_policy *pol;
	u32 index;

	p.kind = KIND_BYPASS;
	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	index = xfrm_test_policy(nic, &p);
	freeze(test, &p, index);

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	pol = assert_kept(test, &p, index);
	KUNIT_EXPECT_TRUE(test, xfrm_test_policy_delete(&p, index));
	/* The timer may be about to run. */
	KUNIT_EXPECT_FALSE(test, timer_pending(&pol->timer));
	xfrm_test_policy_put(test, pol);
	XFRM_TEST_EXPECT_TOLD(test, 0, 1);
	expect_unlinked(nic);
}

/* Its hard lifetimes would open what it blocks, and tell about it again. */
static void lifetimes(struct kunit *test)
{
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_nic *nic;
	struct xfrm_policy *pol;
	u32 index;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	index = xfrm_test_policy(nic, &simple_out);
	freeze(test, &simple_out, index);

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	pol = assert_kept(test, &simple_out, index);
	pol->lft.hard_add_expires_seconds = 1;
	pol->lft.hard_use_expires_seconds = 1;
	pol->lft.soft_add_expires_seconds = 1;
	pol->curlft.add_time -= 3600;
	WRITE_ONCE(pol->curlft.use_time, pol->curlft.add_time);
	KUNIT_EXPECT_TRUE(test, xfrm_test_policy_thaw(test, pol));
	KUNIT_EXPECT_TRUE(test, xfrm_test_wait_soft(test));
	KUNIT_EXPECT_TRUE(test, xfrm_test_policy_kick(pol));
	xfrm_test_policy_put(test, pol);

	KUNIT_EXPECT_GE(test, atomic_read(&ctx->km.policy_soft), 2);
	XFRM_TEST_EXPECT_TOLD(test, 0, 1);
	expect_blocked(test, &simple_out);
}

/* A policy whose time is over as soon as its timer runs. */
static struct xfrm_policy *aged(struct kunit *test,
				const struct xfrm_test_pol *p, u32 index)
{
	struct xfrm_policy *pol = xfrm_test_policy_get(test, p, index);

	KUNIT_ASSERT_NOT_NULL(test, pol);
	pol->lft.hard_use_expires_seconds = 1;
	WRITE_ONCE(pol->curlft.use_time, pol->curlft.add_time - 3600);
	return pol;
}

/* Without the departure of its device a policy expires as ever. */
static void hard_lifetime(struct kunit *test)
{
	struct xfrm_policy *pol;
	u32 index;

	index = xfrm_test_policy(NULL, &simple_out);
	pol = aged(test, &simple_out, index);
	KUNIT_EXPECT_TRUE(test, xfrm_test_policy_kick(pol));
	xfrm_test_policy_put(test, pol);
	KUNIT_EXPECT_TRUE(test, xfrm_test_wait(test, 0, 1));
	KUNIT_EXPECT_FALSE(test, xfrm_test_policy_found(&simple_out, index));
	XFRM_TEST_EXPECT_TOLD(test, 0, 1);
}

/* If it is offloaded not in the timer: drivers sleep. */
static void hard_lifetime_offloaded(struct kunit *test)
{
	struct xfrm_test_nic *nic;
	struct xfrm_policy *pol;
	u32 index;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	index = xfrm_test_policy(nic, &simple_out);
	pol = aged(test, &simple_out, index);
	KUNIT_EXPECT_TRUE(test, xfrm_test_policy_kick(pol));
	xfrm_test_policy_put(test, pol);
	KUNIT_EXPECT_TRUE(test, xfrm_test_wait(test, 0, 1));
	KUNIT_EXPECT_FALSE(test, xfrm_test_policy_found(&simple_out, index));
	/* When all are told somebody still has a reference. */
	XFRM_TEST_EXPECT_REFS(nic, 0);
	expect_unlinked(nic);
	KUNIT_EXPECT_NULL_MSG(test, nic->fault, "%s", nic->fault);
	XFRM_TEST_EXPECT_TOLD(test, 0, 1);
}

struct expiring {
	struct xfrm_policy *other;
	struct completion entered;
};

static void expiring_hook(struct xfrm_test_nic *nic, enum xfrm_test_op op,
			  void *obj)
{
	unsigned long timeout = jiffies + XFRM_TEST_TIMEOUT;
	struct expiring *e = nic->hook_arg;

	if (op != OP_POLICY_DELETE || obj == e->other || in_interrupt())
		return;
	complete_all(&e->entered);
	/* For the departure, which has to wait for this. */
	while (READ_ONCE(e->other->xdo.dev) && time_before(jiffies, timeout))
		fsleep(1000);
}

/* One policy is about to expire when the device departs: then it has expired
 * with that. The driver is still busy with another one.
 */
static void departs_during_expiry(struct kunit *test)
{
	struct xfrm_test_pol p[2] = { simple_out, simple_out };
	struct xfrm_test *ctx = test->priv;
	struct xfrm_policy *pol[2];
	struct xfrm_test_nic *nic;
	struct expiring *e;
	u32 index[2];
	int i;

	e = kunit_kzalloc(test, sizeof(*e), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, e);
	init_completion(&e->entered);
	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	for (i = 0; i < 2; i++) {
		p[i].idx = i;
		index[i] = xfrm_test_policy(nic, &p[i]);
		pol[i] = aged(test, &p[i], index[i]);
	}
	e->other = pol[1];
	nic->hook_arg = e;
	nic->hook = expiring_hook;
	KUNIT_EXPECT_TRUE(test, xfrm_test_policy_kick(pol[0]));
	KUNIT_EXPECT_NE(test, 0,
			wait_for_completion_timeout(&e->entered,
						    XFRM_TEST_TIMEOUT));
	KUNIT_EXPECT_TRUE(test, xfrm_test_policy_kick(pol[1]));

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	nic->hook = NULL;
	for (i = 0; i < 2; i++)
		xfrm_test_policy_put(test, pol[i]);
	KUNIT_EXPECT_TRUE(test, xfrm_test_wait(test, 0, 2));
	KUNIT_EXPECT_FALSE(test, xfrm_test_policy_found(&p[0], index[0]));
	xfrm_test_policy_put(test, assert_kept(test, &p[1], index[1]));
	expect_blocked(test, &p[1]);
	for (i = 0; i < 2; i++)
		KUNIT_EXPECT_EQ(test, ctx->km.policy_told[i], 1);
	XFRM_TEST_EXPECT_TOLD(test, 0, 2);
	XFRM_TEST_EXPECT_REFS(nic, 0);
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_DELETE, 2);
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_FREE, 2);
}

/* Deleted, but a socket has a bundle, and that the policy. */
static void killed_is_referenced(struct kunit *test)
{
	const struct policy_param *p = test->param_value;
	struct xfrm_test_nic *nic;
	struct xfrm_policy *pol;
	u32 index;
	int refs;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	index = xfrm_test_policy(nic, &simple_out);
	pol = xfrm_test_policy_get(test, &simple_out, index);
	KUNIT_ASSERT_NOT_NULL(test, pol);
	KUNIT_EXPECT_TRUE(test, xfrm_test_policy_delete(&simple_out, index));
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_DELETE, 1);

	/* Down, since nobody would come back from unregister. */
	xfrm_test_nic_depart(nic, NETDEV_DOWN);
	refs = xfrm_test_nic_refs(nic, 0);
	if (!refs)
		xfrm_test_nic_depart(nic, p->event);

	KUNIT_EXPECT_EQ(test, refs, 0);
	KUNIT_EXPECT_NULL(test, pol->xdo.dev);
	xfrm_test_policy_put(test, pol);
	expect_unlinked(nic);
	XFRM_TEST_EXPECT_TOLD(test, 0, 0);
}

/* Somebody else is in the driver, or wants to be. */
struct racer {
	struct xfrm_policy *pol;
	struct kunit *test;
	enum xfrm_test_op op;
	struct completion entered;
	struct completion leave;
	struct completion left;
	u32 index;
	bool waited;
};

static void race_hook(struct xfrm_test_nic *nic, enum xfrm_test_op op,
		      void *obj)
{
	unsigned long timeout = jiffies + XFRM_TEST_TIMEOUT;
	struct racer *r = nic->hook_arg;

	if (op != r->op || completion_done(&r->entered))
		return;
	complete_all(&r->entered);
	wait_for_completion_timeout(&r->leave, XFRM_TEST_TIMEOUT);
	/* What the departure does to the policy itself. */
	while (op == OP_POLICY_DELETE && READ_ONCE(r->pol->xdo.dev) &&
	       !completion_done(&r->left) && time_before(jiffies, timeout))
		fsleep(1000);
	/* Give it the time to do what it must not do now. If that was too short
	 * a fault would be missed, never one be made.
	 */
	msleep(50);
	r->waited = !completion_done(&r->left);
}

static int race_thread(void *data)
{
	struct racer *r = data;

	if (r->op == OP_POLICY_DELETE)
		xfrm_test_policy_delete(&simple_out, r->index);
	else
		/* The last reference. */
		xfrm_test_policy_put(r->test, r->pol);
	return 0;
}

static void race_stop(void *data)
{
	struct task_struct *task = data;

	kthread_stop_put(task);
}

static void race(struct kunit *test, enum xfrm_test_op op)
{
	struct xfrm_test_nic *nic;
	struct task_struct *task;
	struct racer *r;

	r = kunit_kzalloc(test, sizeof(*r), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, r);
	init_completion(&r->entered);
	init_completion(&r->leave);
	init_completion(&r->left);
	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	nic->hook = race_hook;
	nic->hook_arg = r;
	r->test = test;
	r->op = op;
	r->index = xfrm_test_policy(nic, &simple_out);

	task = kthread_create(race_thread, r, "xfrm_test");
	KUNIT_ASSERT_NOT_ERR_OR_NULL(test, task);
	get_task_struct(task);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, race_stop, task));
	r->pol = xfrm_test_policy_get(test, &simple_out, r->index);
	KUNIT_ASSERT_NOT_NULL(test, r->pol);
	if (op == OP_POLICY_FREE)
		xfrm_test_policy_delete(&simple_out, r->index);
	wake_up_process(task);
	KUNIT_EXPECT_NE(test, 0,
			wait_for_completion_timeout(&r->entered,
						    XFRM_TEST_TIMEOUT));

	complete_all(&r->leave);
	xfrm_test_nic_depart(nic, NETDEV_DOWN);
	complete_all(&r->left);

	/* It is not back before the other one is. */
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_DELETE, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_FREE, 1);
	XFRM_TEST_EXPECT_REFS(nic, 0);
	kunit_release_action(test, race_stop, task);
	KUNIT_EXPECT_TRUE(test, r->waited);
	if (op == OP_POLICY_DELETE)
		xfrm_test_policy_put(test, r->pol);
	expect_unlinked(nic);
	XFRM_TEST_EXPECT_TOLD(test, 0, 0);
}

static void departs_during_delete(struct kunit *test)
{
	race(test, OP_POLICY_DELETE);
}

static void departs_during_free(struct kunit *test)
{
	race(test, OP_POLICY_FREE);
}

struct order {
	struct sk_buff *skb[3];
	unsigned int passed;
};

static void order_hook(struct xfrm_test_nic *nic, enum xfrm_test_op op,
		       void *obj)
{
	struct order *o = nic->hook_arg;
	int i;

	if (op != OP_STATE_DELETE)
		return;
	for (i = 0; i < ARRAY_SIZE(o->skb); i++)
		o->passed += xfrm_policy_check(NULL, XFRM_POLICY_IN, o->skb[i],
					       AF_INET);
}

static void order_free(void *data)
{
	struct order *o = data;
	int i;

	for (i = 0; i < ARRAY_SIZE(o->skb); i++)
		kfree_skb(o->skb[i]);
}

/* All policies block before the first state is touched, the driver frees the
 * states after it has deleted all, and is the last to forget the policies.
 */
static void order(struct kunit *test)
{
	const struct policy_param *p = test->param_value;
	struct xfrm_test_nic *nic;
	struct order *o;
	int i;

	o = kunit_kzalloc(test, sizeof(*o), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, o);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, order_free, o));
	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	for (i = 0; i < ARRAY_SIZE(o->skb); i++) {
		struct xfrm_test_pol pol = simple_out;
		struct xfrm_test_sa sa = {
			.family = AF_INET,
			.mode = XFRM_MODE_TRANSPORT,
			.type = XFRM_DEV_OFFLOAD_PACKET,
			.dir = XFRM_SA_DIR_IN,
			.idx = i,
		};

		pol.dir = XFRM_POLICY_IN;
		pol.idx = i;
		xfrm_test_policy(nic, &pol);
		xfrm_test_state(nic, &sa);
		o->skb[i] = xfrm_test_skb(test, AF_INET, i);
	}
	nic->hook_arg = o;
	nic->hook = order_hook;

	xfrm_test_nic_depart(nic, p->event);

	nic->hook = NULL;
	KUNIT_EXPECT_EQ(test, o->passed, 0);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 3);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, 3);
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_DELETE, 3);
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_FREE, 3);
	KUNIT_EXPECT_LT(test, nic->last[OP_STATE_DELETE],
			nic->first[OP_STATE_FREE]);
	KUNIT_EXPECT_LT(test, nic->last[OP_STATE_FREE],
			nic->first[OP_POLICY_DELETE]);
	KUNIT_EXPECT_TRUE(test, xfrm_test_wait(test, 3, 3));
	XFRM_TEST_EXPECT_TOLD(test, 3, 3);
}

#ifdef CONFIG_XFRM_SUB_POLICY
/* The main policy of a packet blocks also if its sub policy does not. */
static void main_behind_sub(struct kunit *test)
{
	struct xfrm_test_pol sub = simple_out, main = simple_out;
	struct xfrm_test_nic *nic;
	int i;

	for (i = 0; i < 2; i++) {
		main.idx = i;
		main.dir = i ? XFRM_POLICY_IN : XFRM_POLICY_OUT;
		sub = main;
		sub.kind = KIND_BYPASS;
		sub.type = XFRM_POLICY_TYPE_SUB;
		nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
		xfrm_test_policy(nic, &main);
		xfrm_test_policy(NULL, &sub);

		xfrm_test_nic_depart(nic, NETDEV_DOWN);

		expect_blocked(test, &main);
	}
}
#endif

#ifdef CONFIG_XFRM_MIGRATE
/* The policy and its state move to the addresses of another index. */
static int migrate(struct kunit *test, const struct xfrm_test_pol *p, u32 to)
{
	struct xfrm_migrate m = {
		.proto = IPPROTO_ESP,
		.mode = p->mode,
		.msg_type = XFRM_MSG_MIGRATE,
		.old_family = p->family,
		.new_family = p->family,
	};
	struct xfrm_selector sel = { .family = p->family };
	struct xfrm_test *ctx = test->priv;

	xfrm_test_addrs(p->family, p->idx, &sel.saddr, &sel.daddr);
	m.old_saddr = sel.saddr;
	m.old_daddr = sel.daddr;
	xfrm_test_addrs(p->family, to, &m.new_saddr, &m.new_daddr);
	return xfrm_migrate(&sel, p->dir, p->type, &m, 1, NULL, ctx->net, NULL,
			    0, NULL, NULL);
}

static struct xfrm_test_sa migrating_sa(void)
{
	return (struct xfrm_test_sa) {
		.family = AF_INET,
		.mode = XFRM_MODE_TRANSPORT,
		.dir = XFRM_SA_DIR_OUT,
	};
}

/* Without a device all is as ever. */
static void migrate_software(struct kunit *test)
{
	struct xfrm_test_sa sa = migrating_sa();
	struct xfrm_test *ctx = test->priv;
	xfrm_address_t saddr, daddr;
	struct xfrm_state *x, *xc;
	struct xfrm_test_nic *nic;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &sa);
	xfrm_test_policy(NULL, &simple_out);
	KUNIT_EXPECT_EQ(test, migrate(test, &simple_out, 1), 0);
	KUNIT_EXPECT_EQ(test, x->km.state, XFRM_STATE_DEAD);
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.state_num, 1);
	xfrm_test_addrs(AF_INET, 1, &saddr, &daddr);
	xc = xfrm_state_lookup(ctx->net, 0, &daddr, x->id.spi, IPPROTO_ESP,
			       AF_INET);
	KUNIT_ASSERT_NOT_NULL(test, xc);
	KUNIT_EXPECT_EQ(test, xc->km.state, XFRM_STATE_VALID);
	xfrm_state_put(xc);
	XFRM_TEST_EXPECT_TOLD(test, 0, 0);
}

/* A policy that has expired with its device does not come to life again, and
 * what is migrated along with it stays where it is.
 */
static void migrate_kept(struct kunit *test)
{
	struct xfrm_test_sa sa = migrating_sa();
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;
	u32 index;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &sa);
	index = xfrm_test_policy(nic, &simple_out);

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	xfrm_test_policy_put(test, assert_kept(test, &simple_out, index));
	KUNIT_EXPECT_EQ(test, migrate(test, &simple_out, 1), -ENOENT);
	KUNIT_EXPECT_TRUE(test, xfrm_test_state_found(x));
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.state_num, 1);
	expect_blocked(test, &simple_out);
}
#endif

/* A policy that the driver does not take has no device. */
static void policy_add_fails(struct kunit *test)
{
	struct xfrm_test_nic *nic, *crypto;
	struct xfrm_policy *pol;
	u32 index;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	crypto = xfrm_test_nic(test, OPS_CRYPTO, HW_ESP);
	pol = xfrm_test_policy_alloc(test, &simple_out);
	KUNIT_EXPECT_NE(test, 0, xfrm_test_policy_offload(nic, pol, 7));
	nic->add_err = -ENOSPC;
	KUNIT_EXPECT_EQ(test, -ENOSPC,
			xfrm_test_policy_offload(nic, pol, XFRM_POLICY_OUT));
	KUNIT_EXPECT_NE(test, 0,
			xfrm_test_policy_offload(crypto, pol, XFRM_POLICY_OUT));
	KUNIT_EXPECT_NULL(test, pol->xdo.dev);
	index = xfrm_test_policy_insert(test, NULL, pol, XFRM_POLICY_OUT);

	xfrm_test_nic_depart(nic, NETDEV_DOWN);
	xfrm_test_nic_depart(crypto, NETDEV_DOWN);
	pol = xfrm_test_policy_get(test, &simple_out, index);
	KUNIT_ASSERT_NOT_NULL(test, pol);
	KUNIT_EXPECT_EQ(test, pol->action, XFRM_POLICY_ALLOW);
	XFRM_TEST_EXPECT_REFS(nic, 0);
	XFRM_TEST_EXPECT_REFS(crypto, 0);
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_DELETE, 0);
	XFRM_TEST_EXPECT_TOLD(test, 0, 0);
	xfrm_test_policy_put(test, pol);
}

/* A driver without delete and free for policies. */
static void policy_departs_ops(struct kunit *test)
{
	struct xfrm_test_nic *nic;
	u32 index;

	nic = xfrm_test_nic(test, OPS_NO_FREE, HW_ESP);
	index = xfrm_test_policy(nic, &simple_out);
	KUNIT_EXPECT_TRUE(test, xfrm_test_policy_delete(&simple_out, index));
	XFRM_TEST_EXPECT_REFS(nic, 0);
	index = xfrm_test_policy(nic, &simple_out);

	xfrm_test_nic_depart(nic, NETDEV_UNREGISTER);

	XFRM_TEST_EXPECT_REFS(nic, 0);
	KUNIT_EXPECT_TRUE(test, xfrm_test_wait(test, 0, 1));
	expect_blocked(test, &simple_out);
	XFRM_TEST_EXPECT_TOLD(test, 0, 1);
}

/* With the NIC there, all is as ever. */
static void policy_stays(struct kunit *test)
{
	struct xfrm_test_nic *nic;
	u32 index, other = 0;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	index = xfrm_test_policy(nic, &simple_out);
	KUNIT_EXPECT_EQ(test, insert(test, &simple_out, true, &other), -EEXIST);
	KUNIT_EXPECT_TRUE(test, xfrm_test_policy_delete(&simple_out, index));
	expect_unlinked(nic);
	xfrm_test_nic_depart(nic, NETDEV_DOWN);
	expect_unlinked(nic);
	XFRM_TEST_EXPECT_TOLD(test, 0, 0);
}

static struct kunit_case xfrm_test_policy_cases[] = {
	KUNIT_CASE_PARAM(policy_departs, policy_gen_params),
	KUNIT_CASE_PARAM(policy_expires, event_gen_params),
	KUNIT_CASE_PARAM(kept_is_replaced_when_told, kept_gen_params),
	KUNIT_CASE_PARAM(kept_is_replaced_before_told, kept_gen_params),
	KUNIT_CASE_PARAM(kept_is_updated, kept_gen_params),
	KUNIT_CASE(successor_index),
	KUNIT_CASE(successor_in_place),
	KUNIT_CASE(kept_is_deleted),
	KUNIT_CASE(bypass_is_killed),
	KUNIT_CASE(lifetimes),
	KUNIT_CASE(hard_lifetime),
	KUNIT_CASE(hard_lifetime_offloaded),
	KUNIT_CASE(departs_during_expiry),
	KUNIT_CASE_PARAM(killed_is_referenced, event_gen_params),
	KUNIT_CASE(departs_during_delete),
	KUNIT_CASE(departs_during_free),
	KUNIT_CASE_PARAM(order, event_gen_params),
#ifdef CONFIG_XFRM_SUB_POLICY
	KUNIT_CASE(main_behind_sub),
#endif
#ifdef CONFIG_XFRM_MIGRATE
	KUNIT_CASE(migrate_software),
	KUNIT_CASE(migrate_kept),
#endif
	KUNIT_CASE(policy_add_fails),
	KUNIT_CASE(policy_departs_ops),
	KUNIT_CASE(policy_stays),
	{}
};

struct kunit_suite xfrm_test_policy_suite = {
	.name = "xfrm_device_policy",
	.suite_init = xfrm_test_suite_init,
	.init = xfrm_test_init,
	.test_cases = xfrm_test_policy_cases,
};
