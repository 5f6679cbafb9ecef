// SPDX-License-Identifier: GPL-2.0
/*
 * What happens to the states of a device that departs.
 */
#include <linux/rtnetlink.h>

#include "fixture.h"

#define HW_ESP	(NETIF_F_HW_ESP | NETIF_F_HW_ESP_TX_CSUM)

struct state_param {
	char desc[KUNIT_PARAM_DESC_SIZE];
	struct xfrm_test_sa sa;
	unsigned long event;
};

/* Families, modes, kinds of offload, directions and events: 2^5. */
static struct state_param state_params[32];

static const void *state_gen_params(struct kunit *test, const void *prev,
				    char *desc)
{
	const struct state_param *last = prev;
	struct state_param *p = state_params;
	int i;

	if (last)
		p = &state_params[last - state_params + 1];
	if (p == state_params + ARRAY_SIZE(state_params) ||
	    (!IS_ENABLED(CONFIG_INET6_ESP_OFFLOAD) &&
	     p == state_params + ARRAY_SIZE(state_params) / 2))
		return NULL;

	i = p - state_params;
	p->sa.family = i & 16 ? AF_INET6 : AF_INET;
	p->sa.mode = i & 8 ? XFRM_MODE_TUNNEL : XFRM_MODE_TRANSPORT;
	p->sa.type = i & 4 ? XFRM_DEV_OFFLOAD_PACKET : XFRM_DEV_OFFLOAD_CRYPTO;
	p->sa.dir = i & 2 ? XFRM_SA_DIR_IN : XFRM_SA_DIR_OUT;
	p->event = i & 1 ? NETDEV_UNREGISTER : NETDEV_DOWN;
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%s %s %s %s %s",
		 i & 16 ? "ipv6" : "ipv4", i & 8 ? "tunnel" : "transport",
		 i & 4 ? "packet" : "crypto", i & 2 ? "in" : "out",
		 i & 1 ? "unregister" : "down");
	return p;
}

static const struct state_param event_params[] = {
	{ .desc = "crypto down", .event = NETDEV_DOWN,
	  .sa.type = XFRM_DEV_OFFLOAD_CRYPTO },
	{ .desc = "crypto unregister", .event = NETDEV_UNREGISTER,
	  .sa.type = XFRM_DEV_OFFLOAD_CRYPTO },
	{ .desc = "packet down", .event = NETDEV_DOWN,
	  .sa.type = XFRM_DEV_OFFLOAD_PACKET },
	{ .desc = "packet unregister", .event = NETDEV_UNREGISTER,
	  .sa.type = XFRM_DEV_OFFLOAD_PACKET },
};

KUNIT_ARRAY_PARAM_DESC(event, event_params, desc);

static const struct state_param packet_params[] = {
	{ .desc = "down", .event = NETDEV_DOWN },
	{ .desc = "unregister", .event = NETDEV_UNREGISTER },
};

KUNIT_ARRAY_PARAM_DESC(packet, packet_params, desc);

/* An outbound transport mode state for IPv4. */
static struct xfrm_test_sa simple_sa(u8 type, u32 idx)
{
	return (struct xfrm_test_sa) {
		.family = AF_INET,
		.mode = XFRM_MODE_TRANSPORT,
		.type = type,
		.dir = XFRM_SA_DIR_OUT,
		.idx = idx,
	};
}

static void expect_unlinked(struct xfrm_test_nic *nic, struct xfrm_state *x)
{
	KUNIT_EXPECT_NULL(nic->test, x->xso.dev);
	KUNIT_EXPECT_EQ(nic->test, x->xso.offload_handle, 0);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, 1);
	XFRM_TEST_EXPECT_REFS(nic, 0);
}

static void expect_deleted(struct kunit *test, struct xfrm_state *x)
{
	KUNIT_EXPECT_FALSE(test, xfrm_test_state_found(x));
	KUNIT_EXPECT_EQ(test, x->km.state, XFRM_STATE_DEAD);
}

/* The whole life of a state, with a look at what is before its timer runs. */
static void state_departs(struct kunit *test)
{
	const struct state_param *p = test->param_value;
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &p->sa);
	xfrm_test_state_freeze(x);
	XFRM_TEST_EXPECT_REFS(nic, 1);
	KUNIT_ASSERT_TRUE(test, xfrm_test_state_found(x));

	xfrm_test_nic_depart(nic, p->event);

	KUNIT_ASSERT_TRUE(test, xfrm_test_state_found(x));
	KUNIT_EXPECT_EQ(test, x->km.state, XFRM_STATE_DEVGONE);
	expect_unlinked(nic, x);
	KUNIT_EXPECT_STREQ(test, xfrm_test_nic_history(nic, x),
			   "add stats* delete* free");
	/* The place in the hash chains depends on it. */
	KUNIT_EXPECT_TRUE(test, x->xso.type == p->sa.type);
	XFRM_TEST_EXPECT_TOLD(test, 0, 0);

	KUNIT_ASSERT_TRUE(test, xfrm_test_state_thaw(x));
	KUNIT_ASSERT_TRUE(test, xfrm_test_wait(test, 1, 0));
	expect_deleted(test, x);
	xfrm_flush_gc();
	expect_unlinked(nic, x);
	XFRM_TEST_EXPECT_TOLD(test, 1, 0);
}

/* Nothing in the way of the timer. */
static void state_expires(struct kunit *test)
{
	const struct state_param *p = test->param_value;
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_nic *nic;
	struct xfrm_state *x[3];
	int i;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	for (i = 0; i < ARRAY_SIZE(x); i++) {
		struct xfrm_test_sa sa = simple_sa(p->sa.type, i);

		x[i] = xfrm_test_state(nic, &sa);
	}

	xfrm_test_nic_depart(nic, p->event);

	KUNIT_EXPECT_TRUE(test, xfrm_test_wait(test, ARRAY_SIZE(x), 0));
	xfrm_flush_gc();
	for (i = 0; i < ARRAY_SIZE(x); i++) {
		expect_deleted(test, x[i]);
		KUNIT_EXPECT_EQ(test, ctx->km.state_told[i], 1);
	}
	XFRM_TEST_EXPECT_TOLD(test, ARRAY_SIZE(x), 0);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, ARRAY_SIZE(x));
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, ARRAY_SIZE(x));
	XFRM_TEST_EXPECT_REFS(nic, 0);
}

/* The last counters of the device are what key managers get to know. */
static void state_expires_with_counters(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_PACKET, 0);
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &sa);
	nic->hw_packets = 4711;

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	KUNIT_ASSERT_TRUE(test, xfrm_test_wait(test, 1, 0));
	KUNIT_EXPECT_EQ(test, ctx->km.packets, 4711);
	KUNIT_EXPECT_EQ(test, x->curlft.packets, 4711);
}

/* A state that has reached its limit is told about for that reason, once. */
static void state_expired(struct kunit *test)
{
	const struct state_param *p = test->param_value;
	struct xfrm_test_sa sa = simple_sa(p->sa.type, 0);
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	nic->hw_packets = 1;
	x = xfrm_test_state(nic, &sa);
	xfrm_test_state_freeze(x);
	spin_lock_bh(&x->lock);
	x->lft.hard_packet_limit = 1;
	x->curlft.packets = 1;
	xfrm_state_check_expire(x);
	spin_unlock_bh(&x->lock);
	KUNIT_ASSERT_EQ(test, x->km.state, XFRM_STATE_EXPIRED);
	nic->hw_packets = 2;

	xfrm_test_nic_depart(nic, p->event);

	KUNIT_ASSERT_TRUE(test, xfrm_test_state_found(x));
	KUNIT_EXPECT_EQ(test, x->km.state, XFRM_STATE_EXPIRED);
	expect_unlinked(nic, x);
	KUNIT_ASSERT_TRUE(test, xfrm_test_state_thaw(x));
	KUNIT_ASSERT_TRUE(test, xfrm_test_wait(test, 1, 0));
	KUNIT_EXPECT_EQ(test, ctx->km.packets, 2);
	expect_deleted(test, x);
	xfrm_flush_gc();
	expect_unlinked(nic, x);
	XFRM_TEST_EXPECT_TOLD(test, 1, 0);
}

/* A larval state that the stack made for the device of a policy. */
static void state_larval(struct kunit *test)
{
	const struct state_param *p = test->param_value;
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_pol pol = {
		.family = AF_INET,
		.kind = KIND_PROTECT,
		.dir = XFRM_POLICY_OUT,
	};
	struct xfrm_test_nic *nic;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	xfrm_test_policy(nic, &pol);
	KUNIT_ASSERT_LT(test, xfrm_test_verdict(test, &pol), 0);
	KUNIT_ASSERT_EQ(test, atomic_read(&ctx->km.acquires), 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_ADD, 1);
	KUNIT_ASSERT_EQ(test, ctx->net->xfrm.state_num, 1);
	XFRM_TEST_EXPECT_REFS(nic, 2);

	xfrm_test_nic_depart(nic, p->event);

	KUNIT_ASSERT_TRUE(test, xfrm_test_wait(test, 1, 1));
	xfrm_flush_gc();
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.state_num, 0);
	XFRM_TEST_EXPECT_TOLD(test, 1, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, 1);
	XFRM_TEST_EXPECT_REFS(nic, 0);
}

/* xfrm_add_sa() makes a state valid after it has inserted it. */
static void state_void(struct kunit *test)
{
	const struct state_param *p = test->param_value;
	struct xfrm_test_sa sa = simple_sa(p->sa.type, 0);
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state_offloaded(nic, &sa);
	x->km.state = XFRM_STATE_VOID;
	xfrm_test_state_insert(test, x);
	xfrm_test_state_hold(test, x);
	xfrm_test_state_freeze(x);

	xfrm_test_nic_depart(nic, p->event);

	KUNIT_ASSERT_TRUE(test, xfrm_test_state_found(x));
	KUNIT_EXPECT_EQ(test, x->km.state, XFRM_STATE_DEVGONE);
	expect_unlinked(nic, x);
	KUNIT_ASSERT_TRUE(test, xfrm_test_state_thaw(x));
	KUNIT_ASSERT_TRUE(test, xfrm_test_wait(test, 1, 0));
	expect_deleted(test, x);
	xfrm_flush_gc();
	XFRM_TEST_EXPECT_TOLD(test, 1, 0);
}

/* A state that the stack itself uses keeps no device either. */
static void state_kern(struct kunit *test)
{
	const struct state_param *p = test->param_value;
	struct xfrm_test_sa sa = simple_sa(p->sa.type, 0);
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &sa);
	atomic_set(&x->tunnel_users, 1);

	xfrm_test_nic_depart(nic, p->event);

	expect_unlinked(nic, x);
	KUNIT_ASSERT_TRUE(test, xfrm_test_wait(test, 1, 0));
	expect_deleted(test, x);
	XFRM_TEST_EXPECT_TOLD(test, 1, 0);
}

/* Deleted, but somebody has a reference. */
static void state_dead(struct kunit *test)
{
	const struct state_param *p = test->param_value;
	struct xfrm_test_sa sa = simple_sa(p->sa.type, 0);
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &sa);
	xfrm_test_state_freeze(x);
	KUNIT_ASSERT_EQ(test, xfrm_state_delete(x), 0);
	XFRM_TEST_EXPECT_REFS(nic, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 1);

	xfrm_test_nic_depart(nic, p->event);

	KUNIT_EXPECT_EQ(test, x->km.state, XFRM_STATE_DEAD);
	KUNIT_EXPECT_FALSE(test, xfrm_test_state_started(x));
	expect_unlinked(nic, x);
	XFRM_TEST_EXPECT_TOLD(test, 0, 0);
}

/* Deleted, and in the hands of the garbage collector, which may be slower than
 * the departure.
 */
static void state_collected(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_PACKET, 0);
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state_offloaded(nic, &sa);
	xfrm_test_state_insert(test, x);
	/* On one CPU the collector now waits until this task sleeps. A pending
	 * RCU callback would have the tick ask for a quiescent state.
	 */
	rcu_barrier();
	sched_set_fifo(current);
	cond_resched();
	/* Drops the last reference. */
	KUNIT_ASSERT_EQ(test, xfrm_state_delete(x), 0);

	xfrm_test_nic_notify(nic, NETDEV_DOWN);
	sched_set_normal(current, 0);

	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, 1);
	xfrm_flush_gc();
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, 1);
	XFRM_TEST_EXPECT_REFS(nic, 0);
	XFRM_TEST_EXPECT_TOLD(test, 0, 0);
}

struct collecting {
	struct work_struct work;
	struct task_struct *task;
	struct xfrm_state *alive;
	struct completion entered;
	struct completion released;
	struct completion leave;
};

static void collecting_hook(struct xfrm_test_nic *nic, enum xfrm_test_op op,
			    void *obj)
{
	struct collecting *c = nic->hook_arg;

	if (op != OP_STATE_FREE)
		return;
	if (obj == c->alive) {
		complete_all(&c->released);
	} else if (!completion_done(&c->entered)) {
		/* The first one. */
		complete_all(&c->entered);
		wait_for_completion_timeout(&c->leave, XFRM_TEST_TIMEOUT);
	}
}

/* The garbage collector goes on as soon as the departure waits for it. All that
 * is still to come for that when it has released what is alive is the mutex.
 */
static void collecting_work(struct work_struct *work)
{
	struct collecting *c = container_of(work, struct collecting, work);
	unsigned long timeout;

	wait_for_completion_timeout(&c->released, XFRM_TEST_TIMEOUT / 4);
	timeout = jiffies + XFRM_TEST_TIMEOUT / 4;
	while (READ_ONCE(c->task->__state) != TASK_UNINTERRUPTIBLE &&
	       time_before(jiffies, timeout))
		fsleep(1000);
	complete_all(&c->leave);
}

static void collecting_end(void *data)
{
	struct collecting *c = data;

	complete_all(&c->released);
	complete_all(&c->leave);
	flush_work(&c->work);
	put_task_struct(c->task);
}

/* The garbage collector is in the driver with one of them, others wait for it:
 * the departure frees those, or it does.
 */
static void state_being_collected(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_PACKET, 0);
	struct xfrm_test_nic *nic;
	struct xfrm_state *x[3];
	struct collecting *c;
	int i;

	c = kunit_kzalloc(test, sizeof(*c), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, c);
	init_completion(&c->entered);
	init_completion(&c->released);
	init_completion(&c->leave);
	INIT_WORK(&c->work, collecting_work);

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	nic->hook = collecting_hook;
	nic->hook_arg = c;
	c->task = get_task_struct(current);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, collecting_end, c));
	for (i = 0; i < ARRAY_SIZE(x); i++) {
		sa.idx = i;
		x[i] = xfrm_test_state_offloaded(nic, &sa);
		xfrm_test_state_insert(test, x[i]);
	}
	sa.idx = i;
	c->alive = xfrm_test_state(nic, &sa);
	xfrm_test_state_freeze(c->alive);
	KUNIT_EXPECT_EQ(test, xfrm_state_delete(x[0]), 0);
	KUNIT_ASSERT_NE(test, 0,
			wait_for_completion_timeout(&c->entered,
						    XFRM_TEST_TIMEOUT));
	for (i = 1; i < ARRAY_SIZE(x); i++)
		KUNIT_EXPECT_EQ(test, xfrm_state_delete(x[i]), 0);

	schedule_work(&c->work);
	xfrm_test_nic_notify(nic, NETDEV_DOWN);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, ARRAY_SIZE(x) + 1);
	XFRM_TEST_EXPECT_REFS(nic, 0);

	xfrm_flush_gc();
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, ARRAY_SIZE(x) + 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, ARRAY_SIZE(x) + 1);
	XFRM_TEST_EXPECT_TOLD(test, 0, 0);
}

/* The device departs before the state is inserted. */
static void state_not_inserted(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_PACKET, 0);
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state_offloaded(nic, &sa);

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	KUNIT_EXPECT_EQ(test, x->km.state, XFRM_STATE_VALID);
	KUNIT_EXPECT_PTR_EQ(test, x->xso.dev, nic->dev);
	KUNIT_EXPECT_FALSE(test, hrtimer_active(&x->mtimer));
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 0);

	xfrm_test_state_insert(test, x);
	KUNIT_EXPECT_EQ(test, xfrm_state_delete(x), 0);
	xfrm_flush_gc();
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, 1);
	XFRM_TEST_EXPECT_REFS(nic, 0);
}

/* Inserted when the device has left the netns already, but is not lost. */
static void state_inserted_late(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_PACKET, 0);
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state_offloaded(nic, &sa);
	xfrm_test_nic_notify(nic, NETDEV_UNREGISTER);
	xfrm_test_state_insert(test, x);
	KUNIT_EXPECT_EQ(test, x->km.state, XFRM_STATE_VALID);

	xfrm_test_nic_notify(nic, NETDEV_REGISTER);

	KUNIT_EXPECT_TRUE(test, xfrm_test_wait(test, 1, 0));
	XFRM_TEST_EXPECT_TOLD(test, 1, 0);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, 1);
	XFRM_TEST_EXPECT_REFS(nic, 0);
}

/* Never inserted, because the SPI is taken. */
static void state_not_inserted_dead(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_PACKET, 0);
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	xfrm_test_state(nic, &sa);
	x = xfrm_test_state_offloaded(nic, &sa);
	KUNIT_EXPECT_EQ(test, xfrm_state_add(x), -EEXIST);
	/* Like xfrm_add_sa(), but somebody still looks at it. */
	x->km.state = XFRM_STATE_DEAD;
	xfrm_dev_state_delete(x);
	xfrm_test_state_hold(test, x);
	xfrm_state_put(x);

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 2);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, 2);
	XFRM_TEST_EXPECT_REFS(nic, 0);
	KUNIT_EXPECT_NULL(test, x->xso.dev);
}

/* The driver may have nothing to free, or not want to be asked. */
static void state_departs_ops(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_CRYPTO, 0);
	static const enum xfrm_test_ops ops[] = { OPS_NO_FREE, OPS_CRYPTO };
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;
	int i;

	for (i = 0; i < ARRAY_SIZE(ops); i++) {
		sa.idx = i;
		nic = xfrm_test_nic(test, ops[i], HW_ESP);
		x = xfrm_test_state(nic, &sa);

		xfrm_test_nic_depart(nic, NETDEV_UNREGISTER);

		KUNIT_EXPECT_TRUE(test, xfrm_test_wait(test, i + 1, 0));
		XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 1);
		XFRM_TEST_EXPECT_REFS(nic, 0);
		KUNIT_EXPECT_NULL(test, x->xso.dev);
	}
	XFRM_TEST_EXPECT_TOLD(test, ARRAY_SIZE(ops), 0);
}

/* What the driver did not take is not unlinked from it. */
static void state_add_fails(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_UNSPECIFIED, 0);
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state_alloc(test, &sa);

	nic->add_err = -ENOSPC;
	KUNIT_EXPECT_EQ(test, -ENOSPC,
			xfrm_test_state_offload(nic, x,
						XFRM_DEV_OFFLOAD_PACKET));
	/* Asks for software instead. */
	nic->add_err = -EOPNOTSUPP;
	xfrm_set_type_offload(x, true);
	KUNIT_EXPECT_EQ(test, 0,
			xfrm_test_state_offload(nic, x,
						XFRM_DEV_OFFLOAD_CRYPTO));
	xfrm_test_state_insert(test, x);
	xfrm_test_state_hold(test, x);
	XFRM_TEST_EXPECT_REFS(nic, 0);

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	KUNIT_EXPECT_EQ(test, x->km.state, XFRM_STATE_VALID);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 0);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, 0);
}

/* No key manager wants the larval state: softirq gives it back. */
static void state_acquire_refused(struct kunit *test)
{
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_pol pol = {
		.family = AF_INET,
		.kind = KIND_PROTECT,
		.dir = XFRM_POLICY_OUT,
	};
	struct xfrm_test_nic *nic;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	xfrm_test_policy(nic, &pol);
	ctx->km.acquire_err = -EINVAL;
	KUNIT_EXPECT_LT(test, xfrm_test_verdict(test, &pol), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->km.acquires), 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_ADD, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, 1);
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.state_num, 0);
	XFRM_TEST_EXPECT_REFS(nic, 1);

	/* Nor does the driver. */
	nic->add_err = -ENOSPC;
	KUNIT_EXPECT_LT(test, xfrm_test_verdict(test, &pol), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->km.acquires), 1);
	XFRM_TEST_EXPECT_REFS(nic, 1);
}

/* NETDEV_UNREGISTER is sent again as long as there are references. */
static void unregister_again(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_PACKET, 0);
	struct xfrm_test_pol pol = {
		.family = AF_INET,
		.kind = KIND_PROTECT,
		.dir = XFRM_POLICY_IN,
	};
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;
	int i;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	xfrm_test_policy(nic, &pol);
	x = xfrm_test_state(nic, &sa);
	xfrm_test_state_freeze(x);

	xfrm_test_nic_depart(nic, NETDEV_UNREGISTER);
	KUNIT_ASSERT_TRUE(test, xfrm_test_state_found(x));
	for (i = 0; i < 2; i++) {
		if (i) {
			KUNIT_EXPECT_TRUE(test, xfrm_test_state_thaw(x));
			KUNIT_EXPECT_TRUE(test, xfrm_test_wait(test, 1, 1));
		}
		xfrm_test_nic_notify(nic, NETDEV_UNREGISTER);
	}

	xfrm_flush_gc();
	expect_unlinked(nic, x);
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_DELETE, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_FREE, 1);
	XFRM_TEST_EXPECT_TOLD(test, 1, 1);
}

/* Objects that have nothing to do with the device. */
static void bystanders(struct kunit *test)
{
	static const struct xfrm_test_pol pols[] = {
		{ .family = AF_INET, .kind = KIND_PROTECT, .idx = 0,
		  .dir = XFRM_POLICY_IN },
		{ .family = AF_INET, .kind = KIND_PROTECT, .idx = 1,
		  .dir = XFRM_POLICY_IN },
		{ .family = AF_INET, .kind = KIND_BYPASS, .idx = 2,
		  .dir = XFRM_POLICY_OUT },
		{ .family = AF_INET, .kind = KIND_BLOCK, .idx = 3,
		  .dir = XFRM_POLICY_OUT },
	};
	const struct state_param *p = test->param_value;
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_nic *nic, *other;
	u32 index[ARRAY_SIZE(pols)];
	struct xfrm_policy *pol;
	struct xfrm_state *x[2];
	unsigned int seq;
	int i;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	other = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	for (i = 0; i < ARRAY_SIZE(x); i++) {
		u8 type = i ? p->sa.type : XFRM_DEV_OFFLOAD_UNSPECIFIED;
		struct xfrm_test_sa sa = simple_sa(type, i);

		x[i] = xfrm_test_state(nic, &sa);
		/* Its timer would ask the driver for statistics. */
		xfrm_test_state_freeze(x[i]);
	}
	for (i = 0; i < ARRAY_SIZE(pols); i++)
		index[i] = xfrm_test_policy(i % 2 ? nic : NULL, &pols[i]);
	seq = nic->seq;

	xfrm_test_nic_depart(other, p->event);

	xfrm_flush_gc();
	KUNIT_EXPECT_EQ(test, other->seq, 0);
	KUNIT_EXPECT_EQ(test, nic->seq, seq);
	for (i = 0; i < ARRAY_SIZE(x); i++) {
		KUNIT_EXPECT_TRUE(test, xfrm_test_state_found(x[i]));
		KUNIT_EXPECT_EQ(test, x[i]->km.state, XFRM_STATE_VALID);
		KUNIT_EXPECT_PTR_EQ(test, x[i]->xso.dev, i ? nic->dev : NULL);
	}
	for (i = 0; i < ARRAY_SIZE(pols); i++) {
		pol = xfrm_test_policy_get(test, &pols[i], index[i]);
		KUNIT_EXPECT_NOT_NULL(test, pol);
		if (!pol)
			continue;
		KUNIT_EXPECT_EQ(test, pol->action,
				pols[i].kind == KIND_BLOCK ?
				XFRM_POLICY_BLOCK : XFRM_POLICY_ALLOW);
		KUNIT_EXPECT_PTR_EQ(test, pol->xdo.dev,
				    i % 2 ? nic->dev : NULL);
		xfrm_test_policy_put(test, pol);
	}
	XFRM_TEST_EXPECT_REFS(nic, 3);
	XFRM_TEST_EXPECT_TOLD(test, 0, 0);
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.state_num, 2);
}

/* A device that cannot offload has nothing that could be unlinked. */
static void no_offload(struct kunit *test)
{
	struct xfrm_test_nic *nic = xfrm_test_nic(test, OPS_FULL, 0);

	rtnl_lock();
	nic->dev->xfrmdev_ops = NULL;
	rtnl_unlock();
	xfrm_test_nic_depart(nic, NETDEV_UNREGISTER);
	KUNIT_EXPECT_EQ(test, nic->seq, 0);
	XFRM_TEST_EXPECT_REFS(nic, 0);
}

/* A device whose offload is switched off keeps what it has while it is down,
 * but not when it is unregistered.
 */
static void feature_off(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_PACKET, 0);
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, 0);
	x = xfrm_test_state(nic, &sa);

	xfrm_test_nic_depart(nic, NETDEV_DOWN);
	KUNIT_EXPECT_EQ(test, x->km.state, XFRM_STATE_VALID);
	KUNIT_EXPECT_PTR_EQ(test, x->xso.dev, nic->dev);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 0);

	xfrm_test_nic_depart(nic, NETDEV_UNREGISTER);
	KUNIT_ASSERT_TRUE(test, xfrm_test_wait(test, 1, 0));
	xfrm_flush_gc();
	expect_unlinked(nic, x);
	XFRM_TEST_EXPECT_TOLD(test, 1, 0);
}

/* What has expired with the device can be flushed before its timer runs, by a
 * task or without one.
 */
static void flush_before_expiry(struct kunit *test)
{
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;
	int i;

	for (i = 0; i < 2; i++) {
		struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_PACKET, i);

		nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
		x = xfrm_test_state(nic, &sa);
		xfrm_test_state_freeze(x);
		xfrm_test_nic_depart(nic, NETDEV_DOWN);

		KUNIT_EXPECT_EQ(test, xfrm_state_flush(ctx->net, 0, i), 0);
		expect_deleted(test, x);
		KUNIT_EXPECT_EQ(test, xfrm_state_flush(ctx->net, 0, i), -ESRCH);
		xfrm_flush_gc();
		expect_unlinked(nic, x);
	}
	/* Who deletes it knows that it is gone. */
	XFRM_TEST_EXPECT_TOLD(test, 0, 0);
}

/* A flow that a departed state stands for waits, as for one that has expired,
 * and does not ask for another one.
 */
static void find_departed(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_CRYPTO, 0);
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_pol pol = {
		.family = AF_INET,
		.kind = KIND_PROTECT,
		.dir = XFRM_POLICY_OUT,
	};
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &sa);
	xfrm_test_policy(NULL, &pol);
	KUNIT_EXPECT_EQ(test, xfrm_test_verdict(test, &pol), 1);
	xfrm_test_state_freeze(x);

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	KUNIT_EXPECT_LT(test, xfrm_test_verdict(test, &pol), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->km.acquires), 0);

	KUNIT_ASSERT_TRUE(test, xfrm_test_state_found(x));
	KUNIT_ASSERT_TRUE(test, xfrm_test_state_thaw(x));
	KUNIT_ASSERT_TRUE(test, xfrm_test_wait(test, 1, 0));
	KUNIT_EXPECT_LT(test, xfrm_test_verdict(test, &pol), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->km.acquires), 1);
}

/* An offloaded policy takes a state of its own device and of no other, in each
 * of the ways to find one.
 */
static void find_other_device(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_PACKET, 0);
	struct xfrm_test_pol p = {
		.family = AF_INET,
		.kind = KIND_PROTECT,
		.dir = XFRM_POLICY_OUT,
	};
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_nic *nic[2];
	struct xfrm_policy *pol;
	struct xfrm_state *x;
	int verdict;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(nic); i++)
		nic[i] = xfrm_test_nic(test, OPS_FULL, HW_ESP);

	for (i = 0; i < 6; i++) {
		sa.idx = i;
		p.idx = i;
		x = xfrm_test_state_offloaded(nic[i % 2], &sa);
		/* Of any source. */
		if (i / 2 == 1)
			memset(&x->props.saddr, 0, sizeof(x->props.saddr));
		xfrm_test_state_insert(test, x);

		pol = xfrm_test_policy_alloc(test, &p);
		/* A certain one. */
		if (i / 2 == 2)
			pol->xfrm_vec[0].id.spi = xfrm_test_spi(i);
		xfrm_test_policy_insert(test, nic[0], pol, p.dir);

		verdict = xfrm_test_verdict(test, &p);
		if (i % 2)
			KUNIT_EXPECT_LT_MSG(test, verdict, 0, "way %u", i / 2);
		else
			KUNIT_EXPECT_EQ_MSG(test, verdict, 1, "way %u", i / 2);
	}
	KUNIT_EXPECT_EQ(test, atomic_read(&ctx->km.acquires), 3);
}

/* A state is deleted, and then the driver finds that it has reached a limit. */
static void check_expire_dead(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_PACKET, 0);
	struct xfrm_test_nic *nic;
	struct xfrm_state *x;
	u8 state;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &sa);
	KUNIT_ASSERT_EQ(test, xfrm_state_delete(x), 0);
	/* It would be deleted once more. */
	xfrm_test_state_freeze(x);

	spin_lock_bh(&x->lock);
	x->lft.hard_packet_limit = 0;
	KUNIT_EXPECT_NE(test, xfrm_state_check_expire(x), 0);
	state = x->km.state;
	x->km.state = XFRM_STATE_DEAD;
	spin_unlock_bh(&x->lock);
	KUNIT_EXPECT_EQ(test, state, XFRM_STATE_DEAD);
	KUNIT_EXPECT_FALSE(test, xfrm_test_state_thaw(x));
	hrtimer_cancel(&x->mtimer);

	/* Nor is there a warning any more. */
	spin_lock_bh(&x->lock);
	x->lft.hard_packet_limit = XFRM_INF;
	x->lft.soft_packet_limit = 0;
	xfrm_state_check_expire(x);
	spin_unlock_bh(&x->lock);
	XFRM_TEST_EXPECT_TOLD(test, 0, 0);
	KUNIT_EXPECT_EQ(test, x->km.dying, 0);
}

/* No NAT keepalives for an SA that is over. */
static void nat_keepalive(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_CRYPTO, 0);
	struct delayed_work *work;
	struct xfrm_test_nic *nic;
	struct xfrm_test *ctx;
	struct xfrm_state *x;

	ctx = test->priv;
	sa.encap = true;
	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &sa);
	xfrm_test_state_freeze(x);
	work = &ctx->net->xfrm.nat_keepalive_work;
	WRITE_ONCE(x->lastused, ktime_get_real_seconds());
	mod_delayed_work(system_percpu_wq, work, 0);
	flush_delayed_work(work);
	KUNIT_EXPECT_NE(test, x->nat_keepalive_expiration, 0);

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	KUNIT_ASSERT_TRUE(test, xfrm_test_state_found(x));
	x->nat_keepalive_expiration = 0;
	mod_delayed_work(system_percpu_wq, work, 0);
	flush_delayed_work(work);
	KUNIT_EXPECT_EQ(test, x->nat_keepalive_expiration, 0);
}

#ifdef CONFIG_XFRM_MIGRATE
static struct xfrm_migrate migration(const struct xfrm_state *x, u32 idx)
{
	struct xfrm_migrate m = {
		.proto = x->id.proto,
		.mode = x->props.mode,
		.msg_type = XFRM_MSG_MIGRATE,
		.old_daddr = x->id.daddr,
		.old_saddr = x->props.saddr,
		.old_reqid = x->props.reqid,
		.new_reqid = x->props.reqid,
		.old_family = x->props.family,
		.new_family = x->props.family,
	};

	xfrm_test_addrs(m.new_family, idx, &m.new_saddr, &m.new_daddr);
	return m;
}

/* A state that is over does not come to life again somewhere else. */
static void migrate_expired(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_PACKET, 0);
	struct xfrm_test *ctx = test->priv;
	struct xfrm_state *x, *xc;
	struct xfrm_test_nic *nic;
	struct xfrm_migrate m;
	u32 reqid;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);

	/* There are two ways to look for it. */
	for (reqid = 0; reqid < 2; reqid++) {
		sa.idx = 2 * reqid;
		x = xfrm_test_state_offloaded(nic, &sa);
		x->props.reqid = reqid;
		xfrm_test_state_insert(test, x);
		xfrm_test_state_hold(test, x);
		m = migration(x, 2 * reqid + 1);
		xfrm_test_state_freeze(x);

		xc = xfrm_migrate_state_find(&m, ctx->net, 0);
		KUNIT_EXPECT_PTR_EQ(test, xc, x);
		if (xc)
			xfrm_state_put(xc);

		spin_lock_bh(&x->lock);
		x->lft.hard_packet_limit = 0;
		xfrm_state_check_expire(x);
		spin_unlock_bh(&x->lock);
		KUNIT_EXPECT_EQ(test, x->km.state, XFRM_STATE_EXPIRED);

		xc = xfrm_migrate_state_find(&m, ctx->net, 0);
		KUNIT_EXPECT_NULL(test, xc);
		if (xc)
			xfrm_state_put(xc);

		/* It may expire just after it has been found. */
		x->lft.hard_packet_limit = XFRM_INF;
		xc = xfrm_state_migrate(x, &m, ctx->net, NULL);
		KUNIT_EXPECT_NULL(test, xc);
		KUNIT_EXPECT_EQ(test, ctx->net->xfrm.state_num, reqid + 1);
	}
}

/* One that has lost its device neither. */
static void migrate_departed(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_PACKET, 0);
	struct xfrm_test *ctx = test->priv;
	struct xfrm_state *x, *xc;
	struct xfrm_test_nic *nic;
	struct xfrm_migrate m;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &sa);
	m = migration(x, 1);
	xfrm_test_state_freeze(x);

	xfrm_test_nic_depart(nic, NETDEV_DOWN);

	KUNIT_ASSERT_TRUE(test, xfrm_test_state_found(x));
	xc = xfrm_migrate_state_find(&m, ctx->net, 0);
	KUNIT_EXPECT_NULL(test, xc);
	if (xc)
		xfrm_state_put(xc);
	xc = xfrm_state_migrate(x, &m, ctx->net, NULL);
	KUNIT_EXPECT_NULL(test, xc);
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.state_num, 1);
}

/* Somebody else has the SPI there: the driver deletes what is dead already. */
static void migrate_taken(struct kunit *test)
{
	struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_PACKET, 1);
	struct xfrm_user_offload xuo = { .flags = XFRM_OFFLOAD_PACKET };
	struct xfrm_test *ctx = test->priv;
	struct xfrm_state *x, *taken, *xc;
	struct xfrm_test_nic *nic;
	struct xfrm_migrate m;
	int err;

	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	x = xfrm_test_state(nic, &sa);
	sa.idx = 0;
	sa.type = XFRM_DEV_OFFLOAD_UNSPECIFIED;
	taken = xfrm_test_state_alloc(test, &sa);
	taken->id.spi = x->id.spi;
	xfrm_test_state_insert(test, taken);
	xfrm_test_state_hold(test, taken);
	m = migration(x, 0);
	xc = xfrm_state_migrate_create(x, &m, ctx->net, NULL);
	KUNIT_ASSERT_NOT_NULL(test, xc);
	xfrm_set_type_offload(xc, true);
	err = xfrm_test_state_offload(nic, xc, XFRM_DEV_OFFLOAD_PACKET);
	KUNIT_EXPECT_EQ(test, err, 0);
	xuo.ifindex = nic->dev->ifindex;
	m.xuo = &xuo;

	err = xfrm_state_migrate_install(x, xc, &m, NULL);

	KUNIT_EXPECT_EQ(test, err, -EEXIST);
	KUNIT_EXPECT_TRUE(test, xfrm_test_state_found(x));
	KUNIT_EXPECT_TRUE(test, xfrm_test_state_found(taken));
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.state_num, 2);
	xfrm_flush_gc();
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_ADD, 2);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, 1);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, 1);
	XFRM_TEST_EXPECT_REFS(nic, 1);
	KUNIT_EXPECT_NULL_MSG(test, nic->fault, "%s", nic->fault);
}
#endif

/* The expiries of a device are spread: what a key manager can take is some
 * hundred messages at a time.
 */
static void expiries_are_spread(struct kunit *test)
{
	const unsigned int n = 600, burst = 100;
	const ktime_t window = ms_to_ktime(5);
	struct xfrm_test_nic *nic;
	struct xfrm_state **x;
	int i;

	xfrm_test_told_size(test, n);
	x = kunit_kcalloc(test, n, sizeof(*x), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, x);
	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	for (i = 0; i < n; i++) {
		struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_CRYPTO, i);

		x[i] = xfrm_test_state(nic, &sa);
		xfrm_test_state_freeze(x[i]);
	}

	xfrm_test_nic_notify(nic, NETDEV_DOWN);

	for (i = 0; i < n; i++) {
		KUNIT_ASSERT_TRUE(test, xfrm_test_state_found(x[i]));
		KUNIT_ASSERT_TRUE(test, xfrm_test_state_started(x[i]));
	}
	for (i = 0; i + burst < n; i++) {
		ktime_t first = hrtimer_get_expires(&x[i]->mtimer);
		ktime_t last = hrtimer_get_expires(&x[i + burst]->mtimer);

		KUNIT_ASSERT_GE(test, ktime_sub(last, first), window);
	}
}

/* Many states and policies: all of them, and all of them once. */
static void many(struct kunit *test)
{
	const unsigned int n = 20000;
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_nic *nic;
	unsigned int states = 0, policies = 0;
	unsigned long timeout;
	int i;

	xfrm_test_told_size(test, n);
	nic = xfrm_test_nic(test, OPS_FULL, HW_ESP);
	for (i = 0; i < n; i++) {
		struct xfrm_test_sa sa = simple_sa(XFRM_DEV_OFFLOAD_PACKET, i);
		struct xfrm_test_pol pol = {
			.family = AF_INET,
			.kind = KIND_PROTECT,
			.dir = i & 1 ? XFRM_POLICY_IN : XFRM_POLICY_OUT,
			.idx = i,
		};
		struct xfrm_state *x = xfrm_test_state_offloaded(nic, &sa);

		xfrm_test_state_insert(test, x);
		xfrm_test_policy(nic, &pol);
		cond_resched();
	}
	XFRM_TEST_EXPECT_REFS(nic, 2 * n);

	xfrm_test_nic_depart(nic, NETDEV_UNREGISTER);

	/* Does not depend on any of them having expired. */
	KUNIT_EXPECT_EQ(test, nic->leaked, 0);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_DELETE, n);
	XFRM_TEST_EXPECT_CALLS(nic, OP_STATE_FREE, n);
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_DELETE, n);
	XFRM_TEST_EXPECT_CALLS(nic, OP_POLICY_FREE, n);

	/* As long as there is progress. */
	timeout = jiffies + XFRM_TEST_TIMEOUT;
	while ((states < n || policies < n) && time_before(jiffies, timeout)) {
		unsigned int s = atomic_read(&ctx->km.state_hard);
		unsigned int p = atomic_read(&ctx->km.policy_hard);

		if (s != states || p != policies)
			timeout = jiffies + XFRM_TEST_TIMEOUT;
		states = s;
		policies = p;
		msleep(20);
	}
	xfrm_flush_gc();
	XFRM_TEST_EXPECT_TOLD(test, n, n);
	for (i = 0; i < n; i++) {
		KUNIT_ASSERT_EQ(test, ctx->km.state_told[i], 1);
		KUNIT_ASSERT_EQ(test, ctx->km.policy_told[i], 1);
	}
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.state_num, 0);
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.policy_count[XFRM_POLICY_IN],
			n / 2);
	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.policy_count[XFRM_POLICY_OUT],
			n / 2);
}

static struct kunit_case xfrm_test_state_cases[] = {
	KUNIT_CASE_PARAM(state_departs, state_gen_params),
	KUNIT_CASE_PARAM(state_expires, event_gen_params),
	KUNIT_CASE(state_expires_with_counters),
	KUNIT_CASE_PARAM(state_expired, event_gen_params),
	KUNIT_CASE_PARAM(state_larval, packet_gen_params),
	KUNIT_CASE_PARAM(state_void, event_gen_params),
	KUNIT_CASE_PARAM(state_kern, event_gen_params),
	KUNIT_CASE_PARAM(state_dead, event_gen_params),
	KUNIT_CASE(state_collected),
	KUNIT_CASE(state_being_collected),
	KUNIT_CASE(state_not_inserted),
	KUNIT_CASE(state_inserted_late),
	KUNIT_CASE(state_not_inserted_dead),
	KUNIT_CASE(state_departs_ops),
	KUNIT_CASE(state_add_fails),
	KUNIT_CASE(state_acquire_refused),
	KUNIT_CASE(unregister_again),
	KUNIT_CASE_PARAM(bystanders, event_gen_params),
	KUNIT_CASE(no_offload),
	KUNIT_CASE(feature_off),
	KUNIT_CASE(flush_before_expiry),
	KUNIT_CASE(find_departed),
	KUNIT_CASE(find_other_device),
	KUNIT_CASE(check_expire_dead),
	KUNIT_CASE(nat_keepalive),
#ifdef CONFIG_XFRM_MIGRATE
	KUNIT_CASE(migrate_expired),
	KUNIT_CASE(migrate_departed),
	KUNIT_CASE(migrate_taken),
#endif
	KUNIT_CASE(expiries_are_spread),
	KUNIT_CASE_SLOW(many),
	{}
};

struct kunit_suite xfrm_test_state_suite = {
	.name = "xfrm_device_state",
	.suite_init = xfrm_test_suite_init,
	.init = xfrm_test_init,
	.test_cases = xfrm_test_state_cases,
};
