// SPDX-License-Identifier: GPL-2.0
/*
 * What happens to the states of a device that goes away.
 */
#include <linux/rtnetlink.h>

#include "fixture.h"

struct state_param {
	char desc[KUNIT_PARAM_DESC_SIZE];
	struct xdt_sa sa;
	u8 state;		/* km.state before the event */
	unsigned long event;
};

#define STATE(_mode, _type, _dir, _state, _event)			\
	{ .desc = #_mode " " #_type " " #_dir " " #_state " " #_event,	\
	  .sa = { .mode = XFRM_MODE_##_mode, .type = _type,		\
		  .dir = XFRM_SA_DIR_##_dir },				\
	  .state = XFRM_STATE_##_state, .event = NETDEV_##_event }

static const struct state_param state_params[] = {
	STATE(TRANSPORT, CRYPTO, OUT, VALID, DOWN),
	STATE(TUNNEL, CRYPTO, IN, VALID, UNREGISTER),
	STATE(TRANSPORT, PACKET, OUT, VALID, UNREGISTER),
	STATE(TUNNEL, PACKET, IN, VALID, DOWN),
	/* xfrm_add_sa() makes a state valid after it has inserted it. */
	STATE(TRANSPORT, PACKET, OUT, VOID, DOWN),
	STATE(TRANSPORT, PACKET, OUT, EXPIRED, DOWN),
	STATE(TRANSPORT, CRYPTO, OUT, EXPIRED, UNREGISTER),
	/* Deleted, but somebody has a reference. */
	STATE(TRANSPORT, PACKET, OUT, DEAD, UNREGISTER),
};

KUNIT_ARRAY_PARAM_DESC(state, state_params, desc);

/* The life of a state, with a look at it before its timer goes off. */
static void state_devgone(struct kunit *test)
{
	const struct state_param *p = test->param_value;
	bool expired = p->state == XFRM_STATE_EXPIRED;
	bool dead = p->state == XFRM_STATE_DEAD;
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_state *x;

	x = xdt_state_alloc(nic, &p->sa);
	if (p->state == XFRM_STATE_VOID)
		x->km.state = XFRM_STATE_VOID;
	xdt_state_insert(x);
	if (expired)
		xdt_state_limit(x, true);
	if (dead)
		KUNIT_EXPECT_EQ(test, xfrm_state_delete(x), 0);
	xdt_timer_freeze(x);
	nic->packets = 4711;

	xdt_nic_event(nic, p->event);

	XDT_EXPECT_LOG("s0:delete s0:free");
	KUNIT_EXPECT_EQ(test, x->km.state, expired || dead ?
					   p->state : XFRM_STATE_DEVGONE);
	KUNIT_EXPECT_NULL(test, x->xso.dev);
	/* Its place in the hash chains depends on it. */
	KUNIT_EXPECT_TRUE(test, x->xso.type == p->sa.type);
	KUNIT_EXPECT_EQ(test, init_net.xfrm.state_num, !dead);
	KUNIT_EXPECT_EQ(test, x->curlft.packets, dead ? 0 : 4711);
	/* That of an expired one runs already. */
	KUNIT_EXPECT_EQ(test, xdt_timer_started(x), !expired && !dead);

	xdt_timer_freeze(x);
	xdt_timer_fire(x);
	xdt_timer_fire(x);
	XDT_EXPECT_LOG(dead ? "" : "s0:expire");
	KUNIT_EXPECT_EQ(test, x->km.state, XFRM_STATE_DEAD);
	KUNIT_EXPECT_EQ(test, init_net.xfrm.state_num, 0);
}

/* Larval states of xfrm_state_find(), for a policy of the device. If no one
 * wants one, or the device has no place for it, it is undone in atomic context.
 */
static void state_larval(struct kunit *test)
{
	struct xdt_nic *nic = xdt_nic(OPS_FULL);

	xdt_policy(nic, PROTECT_OUT);
	xdt.acquire_err = -EINVAL;
	KUNIT_EXPECT_LT(test, xdt_verdict(PROTECT_OUT), 0);
	xdt.acquire_err = 0;
	nic->err = -ENOSPC;
	KUNIT_EXPECT_LT(test, xdt_verdict(PROTECT_OUT), 0);
	nic->err = 0;
	xfrm_flush_gc();
	XDT_EXPECT_LOG("s-1:acquire s-1:delete s-1:free");
	KUNIT_EXPECT_EQ(test, init_net.xfrm.state_num, 0);
	KUNIT_EXPECT_TRUE(test, list_empty(&nic->dev->xfrm_states));

	KUNIT_EXPECT_LT(test, xdt_verdict(PROTECT_OUT), 0);
	KUNIT_ASSERT_EQ(test, init_net.xfrm.state_num, 1);
	XDT_EXPECT_LOG("s-1:acquire");
	xdt_nic_event(nic, NETDEV_UNREGISTER);
	XDT_EXPECT_LOG("s-1:delete s-1:free p0:delete p0:free p0:upd");
	xdt_log_wait("expire");
	XDT_EXPECT_LOG("s-1:expire");
}

static void timer_hook(struct xdt_nic *nic, void *obj)
{
	struct xfrm_state *x = obj;

	KUNIT_EXPECT_EQ(xdt.test, x->km.state, XFRM_STATE_DEVGONE);
	KUNIT_EXPECT_FALSE(xdt.test, xdt_timer_started(x));
	/* One of its lifetimes ends. */
	xdt_timer_fire(x);
}

/* Nothing expires a state before the driver is through with it, and nothing but
 * the timer that is started then.
 */
static void state_timer_before_free(struct kunit *test)
{
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_state *x[2];
	int i;

	for (i = 0; i < ARRAY_SIZE(x); i++)
		x[i] = xdt_state(nic, SA(.type = PACKET, .idx = i));
	nic->hook = timer_hook;

	xdt_nic_event(nic, NETDEV_DOWN);

	for (i = 0; i < ARRAY_SIZE(x); i++) {
		KUNIT_EXPECT_TRUE(test, xdt_timer_started(x[i]));
		hrtimer_start(&x[i]->mtimer, ktime_set(3600, 0),
			      HRTIMER_MODE_REL_SOFT);
		xdt_timer_fire(x[i]);
		KUNIT_EXPECT_EQ(test, x[i]->km.state, XFRM_STATE_DEVGONE);
	}
	XDT_EXPECT_LOG("s0:delete s1:delete s0:free s1:free");
}

static void pace_hook(struct xdt_nic *nic, void *obj)
{
	ktime_t **freed = nic->hook_arg;

	*(*freed)++ = ktime_get_boottime();
}

/* The timer of a state starts between the driver's free of that state and of
 * the next one, with a grace and then 64 in 10 ms.
 */
static void state_pace(struct kunit *test)
{
	static struct xfrm_state *x[2 * 64 + 1];
	static ktime_t freed[ARRAY_SIZE(x) + 1];
	struct xdt_nic *nic = xdt_nic(OPS_CRYPTO);
	ktime_t *next = freed;
	int i, bad = 0;

	for (i = 0; i < ARRAY_SIZE(x); i++)
		x[i] = xdt_state(nic, SA(.type = CRYPTO, .idx = i));
	nic->hook = pace_hook;
	nic->hook_arg = &next;

	xdt_nic_event(nic, NETDEV_DOWN);

	KUNIT_ASSERT_PTR_EQ(test, next, freed + ARRAY_SIZE(x));
	*next = ktime_get_boottime();
	for (i = 0; i < ARRAY_SIZE(x); i++) {
		ktime_t delay = ms_to_ktime(500 + i / 64 * 10);
		ktime_t expires = hrtimer_get_expires(&x[i]->mtimer);

		bad += expires < ktime_add(freed[i], delay) ||
		       expires > ktime_add(freed[i + 1], delay);
	}
	KUNIT_EXPECT_EQ(test, bad, 0);
}

/* The garbage collector is in the driver with the first state, and others may
 * wait for it: nobody returns before all of them are freed, once.
 */
static void state_collected(struct kunit *test)
{
	struct xfrm_state *x;
	struct xdt_nic *nic;
	int i, n;

	for (n = 1; n <= 3; n += 2) {
		nic = xdt_nic(OPS_FULL);
		xdt_block(nic);
		for (i = 0; i < n; i++) {
			x = xdt_state_alloc(nic, SA(.type = PACKET, .idx = i));
			KUNIT_ASSERT_EQ(test, xfrm_state_add(x), 0);
			/* The last reference. */
			KUNIT_ASSERT_EQ(test, xfrm_state_delete(x), 0);
			xdt_entered();
		}

		xdt_nic_event(nic, NETDEV_DOWN);
		complete_all(&xdt.back);

		KUNIT_EXPECT_EQ(test, atomic_read(&nic->objs), 0);
		xfrm_flush_gc();
		KUNIT_EXPECT_FALSE(test, xdt.overtaken);
	}
}

/* A reader under RCU finds the rest of the chain also from a state that the
 * garbage collector has. There are some with a next one.
 */
static void state_collected_hash(struct kunit *test)
{
	struct hlist_node *dst, *src, *spi;
	struct xfrm_state *x[32];
	int i, bad = 0;

	for (i = 0; i < ARRAY_SIZE(x); i++) {
		x[i] = xdt_state_alloc(NULL, SA(.idx = i));
		KUNIT_ASSERT_EQ(test, xfrm_state_add(x[i]), 0);
	}
	rcu_read_lock();
	for (i = 0; i < ARRAY_SIZE(x); i++) {
		dst = x[i]->bydst.next;
		src = x[i]->bysrc.next;
		spi = x[i]->byspi.next;
		xfrm_state_delete(x[i]);
		bad += x[i]->bydst.next != dst || x[i]->bysrc.next != src ||
		       x[i]->byspi.next != spi;
	}
	rcu_read_unlock();
	KUNIT_EXPECT_EQ(test, bad, 0);
}

/* A state that the driver has and that is never inserted, one that only changes
 * another one, and one that no driver gets.
 */
static void state_discard(struct kunit *test)
{
	struct xfrm_user_offload xuo = { .ifindex = INT_MAX };
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_state *x;

	x = xdt_state_alloc(nic, SA(.type = PACKET));
	xfrm_state_hold(x);
	xfrm_state_discard(x);
	KUNIT_EXPECT_EQ(test, x->km.state, XFRM_STATE_DEAD);
	XDT_EXPECT_LOG("s0:delete");
	xdt_nic_event(nic, NETDEV_DOWN);
	XDT_EXPECT_LOG("s0:free");
	xfrm_state_put(x);

	nic = xdt_nic(OPS_FULL);
	xdt_state(nic, SA(.type = PACKET));
	x = xdt_state_alloc(nic, SA(.type = PACKET));
	KUNIT_EXPECT_EQ(test, xfrm_state_update(x), 0);
	xfrm_flush_gc();
	XDT_EXPECT_LOG("s0:delete s0:free");

	x = xdt_state_alloc(NULL, SA());
	KUNIT_EXPECT_EQ(test, xfrm_dev_state_add(&init_net, x, &xuo, NULL),
			-ENODEV);
	xfrm_state_discard(x);
}

/* Inserted after NETDEV_UNREGISTER of a device that moves to another netns. */
static void state_inserted_late(struct kunit *test)
{
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_state *x;

	x = xdt_state_alloc(nic, SA(.type = PACKET));
	rtnl_lock();
	nic->gone = true;
	call_netdevice_notifiers(NETDEV_UNREGISTER, nic->dev);
	xdt_state_insert(x);
	call_netdevice_notifiers(NETDEV_REGISTER, nic->dev);
	rtnl_unlock();

	KUNIT_EXPECT_EQ(test, x->km.state, XFRM_STATE_DEVGONE);
	XDT_EXPECT_LOG("s0:delete s0:free");
}

/* What has nothing to do with the device that goes away. */
static void state_bystanders(struct kunit *test)
{
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_state *x[3];
	int i;

	for (i = 0; i < ARRAY_SIZE(x); i++)
		x[i] = xdt_state(nic, SA(.type = i, .idx = i));

	xdt_nic_event(xdt_nic(OPS_FULL), NETDEV_UNREGISTER);
	/* Its offload is off: it may go down, but not away. */
	nic->dev->features = 0;
	xdt_nic_event(nic, NETDEV_DOWN);
	XDT_EXPECT_LOG("");

	xdt_nic_event(nic, NETDEV_UNREGISTER);
	for (i = 0; i < ARRAY_SIZE(x); i++)
		KUNIT_EXPECT_EQ(test, x[i]->km.state,
				i ? XFRM_STATE_DEVGONE : XFRM_STATE_VALID);
}

/* A lookup takes the state for deleted: it asks for another one at once. */
static void state_lookup(struct kunit *test)
{
	struct xdt_nic *nic = xdt_nic(OPS_CRYPTO);

	xdt_state(nic, SA(.type = CRYPTO));
	xdt_policy(NULL, PROTECT_OUT);
	KUNIT_EXPECT_EQ(test, xdt_verdict(PROTECT_OUT), 1);

	xdt_nic_event(nic, NETDEV_DOWN);

	KUNIT_EXPECT_LT(test, xdt_verdict(PROTECT_OUT), 0);
	XDT_EXPECT_LOG("s0:delete s0:free s-1:acquire");
}

/* A driver finds that a state has reached a limit, which is over already. */
static void state_check_expire(struct kunit *test)
{
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_state *x[2];
	u8 state;
	int i;

	for (i = 0; i < ARRAY_SIZE(x); i++)
		x[i] = xdt_state(nic, SA(.type = PACKET, .idx = i));
	KUNIT_ASSERT_EQ(test, xfrm_state_delete(x[0]), 0);
	xdt_nic_event(nic, NETDEV_DOWN);
	XDT_EXPECT_LOG("s0:delete s1:delete s0:free s1:free");

	for (i = 0; i < ARRAY_SIZE(x); i++) {
		state = i ? XFRM_STATE_DEVGONE : XFRM_STATE_DEAD;
		xdt_timer_freeze(x[i]);
		xdt_state_limit(x[i], true);
		xdt_state_limit(x[i], false);
		KUNIT_EXPECT_EQ(test, x[i]->km.state, state);
		KUNIT_EXPECT_FALSE(test, xdt_timer_started(x[i]));
		/* Or it would be deleted again. */
		x[i]->km.state = state;
	}
	XDT_EXPECT_LOG("");
}

/* No NAT keepalives for a state that is over, and no ESN for its device. */
static void state_keepalive_esn(struct kunit *test)
{
	struct delayed_work *work = &init_net.xfrm.nat_keepalive_work;
	struct xdt_nic *nic = xdt_nic(OPS_FULL);
	struct xfrm_state *x;
	int i;

	x = xdt_state(nic, SA(.type = CRYPTO));
	x->nat_keepalive_interval = 3600;
	for (i = 0; i < 2; i++) {
		if (i)
			xdt_nic_event(nic, NETDEV_DOWN);
		WRITE_ONCE(x->lastused, ktime_get_real_seconds());
		x->nat_keepalive_expiration = 0;
		mod_delayed_work(system_percpu_wq, work, 0);
		flush_delayed_work(work);
		KUNIT_EXPECT_EQ(test, !x->nat_keepalive_expiration, i);

		spin_lock_bh(&x->lock);
		xfrm_dev_state_advance_esn(x);
		spin_unlock_bh(&x->lock);
		XDT_EXPECT_LOG(i ? "s0:delete s0:free" : "s0:esn");
	}
}

#ifdef CONFIG_XFRM_MIGRATE
/* XFRM_MSG_MIGRATE of what is valid, has expired, has its sequence numbers in a
 * device, or has lost that.
 */
static void state_migrate(struct kunit *test)
{
	enum { SOFTWARE, EXPIRED, LIVE, GONE, N };
	static const u8 types[N] = { [LIVE] = PACKET, [GONE] = CRYPTO };
	struct xfrm_state *x, *found, *xc;
	struct xdt_nic *nic;
	int i, what;

	for (i = 0; i < 2 * N; i++) {
		struct xfrm_migrate m = {
			.proto = IPPROTO_ESP,
			.mode = XFRM_MODE_TRANSPORT,
			.msg_type = XFRM_MSG_MIGRATE,
			.old_family = AF_INET,
			.new_family = AF_INET,
			.old_saddr.a4 = XDT_SADDR,
			.new_saddr.a4 = XDT_SADDR,
			.old_daddr.a4 = XDT_DADDR(2 * i),
			.new_daddr.a4 = XDT_DADDR(2 * i + 1),
			/* There are two ways to look for it. */
			.old_reqid = i / N,
			.new_reqid = i / N,
		};

		what = i % N;
		nic = xdt_nic(OPS_FULL);
		x = xdt_state(nic, SA(.type = types[what], .reqid = i / N,
				      .idx = 2 * i));
		if (what == EXPIRED)
			xdt_state_limit(x, true);
		if (what == GONE)
			xdt_nic_event(nic, NETDEV_DOWN);

		found = xfrm_migrate_state_find(&m, &init_net, 0);
		KUNIT_EXPECT_PTR_EQ(test, found, what == EXPIRED ? NULL : x);
		if (found)
			xfrm_state_put(found);

		xc = xfrm_state_migrate(x, &m, &init_net, NULL);
		if (what != SOFTWARE) {
			KUNIT_EXPECT_PTR_EQ(test, xc, what == EXPIRED ?
					    ERR_PTR(-ESRCH) : NULL);
			continue;
		}
		KUNIT_ASSERT_NOT_ERR_OR_NULL(test, xc);
		/* The caller may go on using it. */
		KUNIT_EXPECT_EQ(test, xfrm_state_delete(xc), 0);
		KUNIT_EXPECT_EQ(test, refcount_read(&xc->refcnt), 1);
		xfrm_state_put(xc);
	}
	KUNIT_EXPECT_EQ(test, init_net.xfrm.state_num, 2 * N);
}
#endif

static struct kunit_case state_cases[] = {
	KUNIT_CASE_PARAM(state_devgone, state_gen_params),
	KUNIT_CASE(state_larval),
	KUNIT_CASE(state_timer_before_free),
	KUNIT_CASE(state_pace),
	KUNIT_CASE(state_collected),
	KUNIT_CASE(state_collected_hash),
	KUNIT_CASE(state_discard),
	KUNIT_CASE(state_inserted_late),
	KUNIT_CASE(state_bystanders),
	KUNIT_CASE(state_lookup),
	KUNIT_CASE(state_check_expire),
	KUNIT_CASE(state_keepalive_esn),
#ifdef CONFIG_XFRM_MIGRATE
	KUNIT_CASE(state_migrate),
#endif
	{}
};

static struct kunit_suite state_suite = {
	.name = "xfrm_device_state",
	.init = xdt_init,
	.test_cases = state_cases,
};

kunit_test_suite(state_suite);
