// SPDX-License-Identifier: GPL-2.0
/*
 * What each test starts and ends with: a log and a fake key manager.
 */
#include <linux/module.h>

#include "fixture.h"

#define TIMEOUT	(10 * HZ)

struct xdt xdt;

/* Protects the log and the fault. */
static DEFINE_SPINLOCK(log_lock);

static void log_call(char kind, int idx, const char *what)
{
	spin_lock_bh(&log_lock);
	xdt.len += scnprintf(xdt.log + xdt.len, sizeof(xdt.log) - xdt.len,
			     "%s%c%d:%s", xdt.len ? " " : "", kind, idx, what);
	spin_unlock_bh(&log_lock);
}

/* Most larval states have no SPI, they are s-1. */
void xdt_log_state(struct xfrm_state *x, const char *what)
{
	log_call('s', x->id.spi ? ntohl(x->id.spi) - XDT_SPI : -1, what);
}

void xdt_log_policy(struct xfrm_policy *pol, const char *what)
{
	log_call('p', pol->priority - XDT_PRIO, what);
}

/* Until it happens, or for long enough: the caller looks at what happened. */
void xdt_log_wait(const char *what)
{
	unsigned long timeout = jiffies + TIMEOUT;

	while (!strstr(xdt.log, what) && time_before(jiffies, timeout))
		schedule_timeout_uninterruptible(1);
}

/* KUnit's own checks may sleep. */
void xdt_fault(bool bad, const char *what)
{
	spin_lock_bh(&log_lock);
	if (bad && !xdt.fault)
		xdt.fault = what;
	spin_unlock_bh(&log_lock);
}

static int km_notify(struct xfrm_state *x, const struct km_event *c)
{
	if (c->event == XFRM_MSG_EXPIRE)
		xdt_log_state(x, c->data.hard ? "expire" : "soft");
	return 0;
}

static int km_notify_policy(struct xfrm_policy *pol, int dir,
			    const struct km_event *c)
{
	if (c->event == XFRM_MSG_UPDPOLICY || c->event == XFRM_MSG_DELPOLICY) {
		/* Messages of others have to come later. */
		lockdep_assert_held(&init_net.xfrm.xfrm_policy_lock);
		xdt_fault(pol->xdo.dev || pol->xdo.ifindex,
			  "message with XFRMA_OFFLOAD_DEV");
		xdt_log_policy(pol, c->event == XFRM_MSG_UPDPOLICY ? "upd" :
								     "del");
	} else if (c->event == XFRM_MSG_POLEXPIRE) {
		xdt_log_policy(pol, c->data.hard ? "expire" : "soft");
	}
	return 0;
}

static int km_acquire(struct xfrm_state *x, struct xfrm_tmpl *tmpl,
		      struct xfrm_policy *pol)
{
	xdt_log_state(x, "acquire");
	return xdt.acquire_err;
}

static bool km_is_alive(const struct km_event *c)
{
	return true;
}

static struct xfrm_mgr km = {
	.notify		= km_notify,
	.notify_policy	= km_notify_policy,
	.acquire	= km_acquire,
	.is_alive	= km_is_alive,
};

KUNIT_DEFINE_ACTION_WRAPPER(km_unregister, xfrm_unregister_km,
			    struct xfrm_mgr *);

/* Waits for somebody who completes xdt.back, but must not come so far, or for
 * long enough. Too short a time hides a fault, it makes none.
 */
static void block_hook(struct xdt_nic *nic, void *obj)
{
	if (completion_done(&xdt.entered))
		return;
	complete_all(&xdt.entered);
	xdt.overtaken = wait_for_completion_timeout(&xdt.back, HZ / 5);
}

/* Let the driver wait in the first free. */
void xdt_block(struct xdt_nic *nic)
{
	init_completion(&xdt.entered);
	init_completion(&xdt.back);
	nic->hook = block_hook;
}

void xdt_entered(void)
{
	KUNIT_ASSERT_NE(xdt.test, 0,
			wait_for_completion_timeout(&xdt.entered, TIMEOUT));
}

void xdt_defer(kunit_action_t *action, void *arg)
{
	KUNIT_ASSERT_EQ(xdt.test, 0,
			kunit_add_action_or_reset(xdt.test, action, arg));
}

void xdt_flush(void *unused)
{
	xfrm_policy_flush(&init_net, XFRM_POLICY_TYPE_MAIN, false);
	xfrm_state_flush(&init_net, 0, false);
	/* Destinations hold states and policies. */
	rcu_barrier();
	xfrm_flush_gc();
}

static bool net_is_empty(void)
{
	int dir;

	for (dir = 0; dir < XFRM_POLICY_MAX * 2; dir++)
		if (init_net.xfrm.policy_count[dir])
			return false;
	return !init_net.xfrm.state_num;
}

static void expect_clean(void *unused)
{
	KUNIT_EXPECT_TRUE(xdt.test, net_is_empty());
	KUNIT_EXPECT_NULL_MSG(xdt.test, xdt.fault, "%s", xdt.fault);
}

/* The .init of all suites. */
int xdt_init(struct kunit *test)
{
	/* They are not for the tests. */
	if (!net_is_empty())
		kunit_skip(test, "init_net has states or policies");

	memset(&xdt, 0, sizeof(xdt));
	xdt.test = test;
	xdt_defer(expect_clean, NULL);
	xfrm_register_km(&km);
	xdt_defer(km_unregister, &km);
	xdt_defer(xdt_flush, NULL);
	return 0;
}

MODULE_DESCRIPTION("KUnit tests for xfrm offload and devices that go away");
MODULE_LICENSE("GPL");
