// SPDX-License-Identifier: GPL-2.0
/*
 * A fake NIC with IPsec offload and a fake key manager.
 */
#include <linux/delay.h>
#include <linux/if_arp.h>
#include <linux/rtnetlink.h>
#include <linux/udp.h>
#include <net/ip.h>
#include <net/ip6_route.h>
#include <net/route.h>

#include "fixture.h"

#define SPI_BASE	0x1000

/* ------------------------------- key manager ------------------------------ */

/* The one that runs now: a key manager is not told which one it is. */
static struct kunit *km_test;

static void told(struct xfrm_test_km *km, u8 *told, u32 idx)
{
	if (idx < km->n)
		told[idx]++;
	else
		atomic_inc(&km->strange);
}

static int km_notify(struct xfrm_state *x, const struct km_event *c)
{
	struct xfrm_test *ctx = km_test->priv;
	struct xfrm_test_km *km = &ctx->km;

	if (c->event != XFRM_MSG_EXPIRE)
		return 0;

	if (c->data.hard) {
		km->packets = x->curlft.packets;
		/* Most larval states have no SPI. */
		if (x->id.spi)
			told(km, km->state_told, ntohl(x->id.spi) - SPI_BASE);
		atomic_inc(&km->state_hard);
	} else {
		atomic_inc(&km->state_soft);
	}
	wake_up(&km->wq);
	return 0;
}

static int km_notify_policy(struct xfrm_policy *pol, int dir,
			    const struct km_event *c)
{
	struct xfrm_test *ctx = km_test->priv;
	struct xfrm_test_km *km = &ctx->km;

	if (c->event != XFRM_MSG_POLEXPIRE)
		return 0;

	if (c->data.hard) {
		told(km, km->policy_told, pol->priority - XFRM_TEST_PRIO);
		atomic_inc(&km->policy_hard);
	} else {
		atomic_inc(&km->policy_soft);
	}
	wake_up(&km->wq);
	return 0;
}

static int km_acquire(struct xfrm_state *x, struct xfrm_tmpl *tmpl,
		      struct xfrm_policy *pol)
{
	struct xfrm_test *ctx = km_test->priv;

	atomic_inc(&ctx->km.acquires);
	return ctx->km.acquire_err;
}

static bool km_is_alive(const struct km_event *c)
{
	struct xfrm_test *ctx = km_test->priv;

	if (ctx->km.is_alive)
		ctx->km.is_alive(km_test);
	return true;
}

static struct xfrm_mgr xfrm_test_mgr = {
	.notify		= km_notify,
	.notify_policy	= km_notify_policy,
	.acquire	= km_acquire,
	.is_alive	= km_is_alive,
};

KUNIT_DEFINE_ACTION_WRAPPER(km_unregister, xfrm_unregister_km,
			    struct xfrm_mgr *);

/* For objects with an index up to @n. */
void xfrm_test_told_size(struct kunit *test, unsigned int n)
{
	struct xfrm_test *ctx = test->priv;

	ctx->km.state_told = kunit_kzalloc(test, n, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, ctx->km.state_told);
	ctx->km.policy_told = kunit_kzalloc(test, n, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, ctx->km.policy_told);
	ctx->km.n = n;
}

/* Wait until key managers have been told about that many hard expiries. */
bool xfrm_test_wait(struct kunit *test, int states, int policies)
{
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_km *km = &ctx->km;

	return wait_event_timeout(km->wq,
				  atomic_read(&km->state_hard) >= states &&
				  atomic_read(&km->policy_hard) >= policies,
				  XFRM_TEST_TIMEOUT) > 0;
}

/* The same, for the soft expiry of a policy. */
bool xfrm_test_wait_soft(struct kunit *test)
{
	struct xfrm_test *ctx = test->priv;

	return wait_event_timeout(ctx->km.wq,
				  atomic_read(&ctx->km.policy_soft),
				  XFRM_TEST_TIMEOUT) > 0;
}

/* Nobody else uses the tables while the tests run. */
static void flush_all(void *data)
{
	struct xfrm_test *ctx = data;

#ifdef CONFIG_XFRM_SUB_POLICY
	xfrm_policy_flush(ctx->net, XFRM_POLICY_TYPE_SUB, true);
#endif
	xfrm_policy_flush(ctx->net, XFRM_POLICY_TYPE_MAIN, true);
	xfrm_state_flush(ctx->net, 0, true);
	/* Destinations hold states and policies. */
	rcu_barrier();
	xfrm_flush_gc();
}

static void expect_empty(void *data)
{
	struct kunit *test = data;
	struct xfrm_test *ctx = test->priv;
	int dir;

	KUNIT_EXPECT_EQ(test, ctx->net->xfrm.state_num, 0);
	for (dir = 0; dir < XFRM_POLICY_MAX * 2; dir++)
		KUNIT_EXPECT_EQ(test, ctx->net->xfrm.policy_count[dir], 0);
}

/* The .suite_init of all suites: what is there is not ours. */
int xfrm_test_suite_init(struct kunit_suite *suite)
{
	int dir;

	if (init_net.xfrm.state_num)
		return -EBUSY;
	for (dir = 0; dir < XFRM_POLICY_MAX * 2; dir++)
		if (init_net.xfrm.policy_count[dir])
			return -EBUSY;
	return 0;
}

static atomic_t cleartext;

/* The .init of all suites. */
int xfrm_test_init(struct kunit *test)
{
	struct xfrm_test *ctx;

	ctx = kunit_kzalloc(test, sizeof(*ctx), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, ctx);
	ctx->net = &init_net;
	init_waitqueue_head(&ctx->km.wq);
	test->priv = ctx;
	xfrm_test_told_size(test, 64);
	atomic_set(&cleartext, 0);

	expect_empty(test);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, expect_empty, test));

	km_test = test;
	xfrm_register_km(&xfrm_test_mgr);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, km_unregister,
						  &xfrm_test_mgr));
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, flush_all, ctx));
	return 0;
}

/* ----------------------------------- NIC ---------------------------------- */

/* What the driver keeps for a state or policy. */
struct nic_obj {
	struct list_head list;
	enum {
		OBJ_ADDED,
		OBJ_DELETING,
		OBJ_DELETED,
		OBJ_FREED,
	} state;
	int end;		/* the state that it is to have in the end */
	struct rcu_gp_seq gp;	/* RCU at the time of delete */
};

static struct xfrm_test_nic *nic_of(struct net_device *dev)
{
	return *(struct xfrm_test_nic **)netdev_priv(dev);
}

static void nic_fault(struct xfrm_test_nic *nic, const char *what)
{
	if (!nic->fault)
		nic->fault = what;
}

static void nic_record(struct xfrm_test_nic *nic, enum xfrm_test_op op,
		       const void *obj, bool sleeps)
{
	if (nic->seq < ARRAY_SIZE(nic->log))
		nic->log[nic->seq] = (struct xfrm_test_call) {
			.op = op,
			.atomic = !sleeps,
			.obj = obj,
		};
	nic->seq++;
	nic->calls[op]++;
	if (!nic->first[op])
		nic->first[op] = nic->seq;
	nic->last[op] = nic->seq;
}

static bool may_sleep(void)
{
	return !in_interrupt() && !irqs_disabled();
}

static int nic_add(struct net_device *dev, unsigned long *handle,
		   enum xfrm_test_op op, void *x)
{
	const struct xfrmdev_ops *ops = dev->xfrmdev_ops;
	struct xfrm_test_nic *nic = nic_of(dev);
	bool sleeps = may_sleep();
	struct nic_obj *obj;

	if (nic->hook)
		nic->hook(nic, op, x);
	if (nic->add_err)
		return nic->add_err;

	obj = kzalloc_obj(*obj, GFP_ATOMIC);
	if (!obj)
		return -ENOMEM;

	if (op == OP_STATE_ADD)
		obj->end = ops->xdo_dev_state_free ? OBJ_FREED : OBJ_DELETED;
	else if (ops->xdo_dev_policy_free)
		obj->end = OBJ_FREED;
	else
		obj->end = ops->xdo_dev_policy_delete ? OBJ_DELETED : OBJ_ADDED;
	*handle = (unsigned long)obj;
	spin_lock_bh(&nic->lock);
	list_add_tail(&obj->list, &nic->objs);
	nic_record(nic, op, x, sleeps);
	if (nic->departed)
		nic_fault(nic, "add after the departure");
	spin_unlock_bh(&nic->lock);
	return 0;
}

static int nic_state_add(struct net_device *dev, struct xfrm_state *x,
			 struct netlink_ext_ack *extack)
{
	return nic_add(dev, &x->xso.offload_handle, OP_STATE_ADD, x);
}

static void nic_state_delete(struct net_device *dev, struct xfrm_state *x)
{
	struct nic_obj *obj = (struct nic_obj *)x->xso.offload_handle;
	struct xfrm_test_nic *nic = nic_of(dev);
	bool sleeps = may_sleep();

	/* Nobody else knows a state that is not inserted. */
	if (!list_empty(&x->km.all))
		lockdep_assert_held(&x->lock);
	if (nic->hook)
		nic->hook(nic, OP_STATE_DELETE, x);

	spin_lock_bh(&nic->lock);
	nic_record(nic, OP_STATE_DELETE, x, sleeps);
	if (dev != nic->dev)
		nic_fault(nic, "state delete for another device");
	if (obj->state != OBJ_ADDED)
		nic_fault(nic, "state delete for what is not there");
	if (x->km.state == XFRM_STATE_VALID)
		nic_fault(nic, "delete of a state that is valid");
	obj->state = OBJ_DELETED;
	get_state_synchronize_rcu_full(&obj->gp);
	spin_unlock_bh(&nic->lock);
}

static void nic_state_free(struct net_device *dev, struct xfrm_state *x)
{
	struct nic_obj *obj = (struct nic_obj *)x->xso.offload_handle;
	struct xfrm_test_nic *nic = nic_of(dev);
	bool sleeps = may_sleep();
	/* Nobody ever saw a larval state that is not inserted. */
	bool seen = x->km.state != XFRM_STATE_VOID || !list_empty(&x->km.all);

	if (seen)
		might_sleep();
	if (nic->hook)
		nic->hook(nic, OP_STATE_FREE, x);

	spin_lock_bh(&nic->lock);
	nic_record(nic, OP_STATE_FREE, x, sleeps);
	if (dev != nic->dev)
		nic_fault(nic, "state free for another device");
	if (obj->state != OBJ_DELETED)
		nic_fault(nic, "state free for what is not deleted");
	if (seen && !sleeps)
		nic_fault(nic, "state free in atomic context");
	if (seen && !poll_state_synchronize_rcu_full(&obj->gp))
		nic_fault(nic, "state free without a grace period");
	obj->state = OBJ_FREED;
	spin_unlock_bh(&nic->lock);
}

static void nic_state_stats(struct net_device *dev, struct xfrm_state *x)
{
	struct nic_obj *obj = (struct nic_obj *)x->xso.offload_handle;
	struct xfrm_test_nic *nic = nic_of(dev);
	bool sleeps = may_sleep();

	spin_lock_bh(&nic->lock);
	nic_record(nic, OP_STATE_STATS, x, sleeps);
	if (dev != nic->dev)
		nic_fault(nic, "statistics for another device");
	if (obj->state == OBJ_FREED)
		nic_fault(nic, "statistics of what is freed");
	if (IS_ENABLED(CONFIG_PROVE_RCU) && !rcu_read_lock_held())
		nic_fault(nic, "statistics without rcu_read_lock()");
	spin_unlock_bh(&nic->lock);

	if (nic->hw_packets)
		x->curlft.packets = nic->hw_packets;
}

static bool nic_state_offload_ok(struct sk_buff *skb, struct xfrm_state *x)
{
	struct nic_obj *obj = (struct nic_obj *)x->xso.offload_handle;
	struct net_device *dev = READ_ONCE(x->xso.dev);
	struct xfrm_test_nic *nic;
	bool sleeps = may_sleep();

	if (!dev)
		return false;

	nic = nic_of(dev);
	spin_lock_bh(&nic->lock);
	nic_record(nic, OP_STATE_OFFLOAD_OK, x, sleeps);
	if (obj->state == OBJ_FREED)
		nic_fault(nic, "offload_ok of what is freed");
	if (IS_ENABLED(CONFIG_PROVE_RCU) && !rcu_read_lock_held() &&
	    x->xso.type == XFRM_DEV_OFFLOAD_PACKET)
		nic_fault(nic, "packet offload without rcu_read_lock()");
	spin_unlock_bh(&nic->lock);
	return !nic->refuse;
}

static int nic_policy_add(struct net_device *dev, struct xfrm_policy *pol,
			  struct netlink_ext_ack *extack)
{
	return nic_add(dev, &pol->xdo.offload_handle, OP_POLICY_ADD, pol);
}

static void nic_policy_delete(struct net_device *dev, struct xfrm_policy *pol)
{
	struct nic_obj *obj = (struct nic_obj *)pol->xdo.offload_handle;
	struct xfrm_test_nic *nic = nic_of(dev);
	bool sleeps = may_sleep();

	might_sleep();
	spin_lock_bh(&nic->lock);
	nic_record(nic, OP_POLICY_DELETE, pol, sleeps);
	if (dev != nic->dev)
		nic_fault(nic, "policy delete for another device");
	if (obj->state != OBJ_ADDED)
		nic_fault(nic, "policy delete for what is not there");
	if (!sleeps)
		nic_fault(nic, "policy delete in atomic context");
	obj->state = OBJ_DELETING;
	spin_unlock_bh(&nic->lock);

	if (nic->hook)
		nic->hook(nic, OP_POLICY_DELETE, pol);

	spin_lock_bh(&nic->lock);
	obj->state = OBJ_DELETED;
	spin_unlock_bh(&nic->lock);
}

static void nic_policy_free(struct net_device *dev, struct xfrm_policy *pol)
{
	struct nic_obj *obj = (struct nic_obj *)pol->xdo.offload_handle;
	struct xfrm_test_nic *nic = nic_of(dev);
	bool sleeps = may_sleep();

	spin_lock_bh(&nic->lock);
	nic_record(nic, OP_POLICY_FREE, pol, sleeps);
	if (dev != nic->dev)
		nic_fault(nic, "policy free for another device");
	if (obj->state != OBJ_DELETED)
		nic_fault(nic, "policy free for what is not deleted");
	obj->state = OBJ_FREED;
	spin_unlock_bh(&nic->lock);

	if (nic->hook)
		nic->hook(nic, OP_POLICY_FREE, pol);
}

static const struct xfrmdev_ops nic_ops[] = {
	[OPS_FULL] = {
		.xdo_dev_state_add		= nic_state_add,
		.xdo_dev_state_delete		= nic_state_delete,
		.xdo_dev_state_free		= nic_state_free,
		.xdo_dev_state_update_stats	= nic_state_stats,
		.xdo_dev_offload_ok		= nic_state_offload_ok,
		.xdo_dev_policy_add		= nic_policy_add,
		.xdo_dev_policy_delete		= nic_policy_delete,
		.xdo_dev_policy_free		= nic_policy_free,
	},
	[OPS_NO_FREE] = {
		.xdo_dev_state_add		= nic_state_add,
		.xdo_dev_state_delete		= nic_state_delete,
		.xdo_dev_policy_add		= nic_policy_add,
	},
	[OPS_CRYPTO] = {
		.xdo_dev_state_add		= nic_state_add,
		.xdo_dev_state_delete		= nic_state_delete,
		.xdo_dev_state_free		= nic_state_free,
		.xdo_dev_state_update_stats	= nic_state_stats,
		.xdo_dev_offload_ok		= nic_state_offload_ok,
	},
};

static netdev_tx_t nic_xmit(struct sk_buff *skb, struct net_device *dev)
{
	struct xfrm_test_nic *nic = nic_of(dev);

	spin_lock_bh(&nic->lock);
	nic_record(nic, OP_XMIT, skb, false);
	spin_unlock_bh(&nic->lock);
	consume_skb(skb);
	return NETDEV_TX_OK;
}

static const struct net_device_ops nic_netdev_ops = {
	.ndo_start_xmit	= nic_xmit,
};

static void nic_setup(struct net_device *dev)
{
	dev->type = ARPHRD_NONE;
	dev->mtu = 1500;
	dev->flags = IFF_NOARP;
	/* Neither queues nor addresses: references would come and go. */
	dev->priv_flags |= IFF_NO_QUEUE | IFF_NO_ADDRCONF;
	dev->netdev_ops = &nic_netdev_ops;
}

static int nic_up(struct net_device *dev)
{
	int err;

	rtnl_lock();
	err = dev_open(dev, NULL);
	rtnl_unlock();
	return err;
}

static void nic_down(struct net_device *dev)
{
	rtnl_lock();
	dev_close(dev);
	rtnl_unlock();
}

/* References to @dev, if there are no more than @want, or after a while. */
static int dev_refs(struct net_device *dev, int want)
{
	unsigned long timeout = jiffies + 2 * HZ;

	for (;;) {
		int refs = netdev_refcnt_read(dev);

		if (refs <= want || time_after(jiffies, timeout))
			return refs;
		/* Some are dropped by RCU. */
		rcu_barrier();
		fsleep(1000);
	}
}

/* Only after a leak, which is reported: nobody comes back from
 * unregister_netdevice() as long as there are references, and all that follows
 * would hang. Take those away that others keep until the test is through with
 * that, and give them back.
 */
static void nic_rescue(struct work_struct *work)
{
	struct xfrm_test_nic *nic;
	int refs;

	nic = container_of(to_delayed_work(work), struct xfrm_test_nic, rescue);
	refs = netdev_refcnt_read(nic->dev);
	for (; refs > 1; refs--, nic->rescued++)
		netdev_put(nic->dev, NULL);
	for (; refs < 1; refs++, nic->rescued--)
		netdev_hold(nic->dev, NULL, GFP_KERNEL);
	schedule_delayed_work(&nic->rescue, HZ / 20);
}

static void nic_unregister(struct xfrm_test_nic *nic)
{
	struct net_device *dev = nic->dev;

	rtnl_lock();
	if (dev->reg_state != NETREG_REGISTERED) {
		rtnl_unlock();
		return;
	}

	nic->departed = true;
	unregister_netdevice(dev);
	nic->leaked = dev_refs(dev, 1) - 1;
	if (nic->leaked)
		schedule_delayed_work(&nic->rescue, 0);
	rtnl_unlock();

	/* Whoever has a reference is going to put it. */
	disable_delayed_work_sync(&nic->rescue);
	for (; nic->rescued > 0; nic->rescued--)
		netdev_hold(dev, NULL, GFP_KERNEL);
	for (; nic->rescued < 0; nic->rescued++)
		netdev_put(dev, NULL);
}

static void nic_action(void *data)
{
	struct xfrm_test_nic *nic = data;
	struct net_device *dev = nic->dev;
	struct kunit *test = nic->test;
	struct nic_obj *obj, *tmp;
	int unbalanced = 0;

	nic_unregister(nic);
	KUNIT_EXPECT_EQ_MSG(test, nic->leaked, 0, "references to the device");
	KUNIT_EXPECT_NULL_MSG(test, nic->fault, "%s", nic->fault);

	nic->dev = NULL;
	if (dev_refs(dev, 1) != 1) {
		KUNIT_FAIL(test, "the device is still in use, and not freed");
		dev->xfrmdev_ops = NULL;
		return;
	}
	list_for_each_entry_safe(obj, tmp, &nic->objs, list) {
		unbalanced += obj->state != obj->end;
		kfree(obj);
	}
	KUNIT_EXPECT_EQ_MSG(test, unbalanced, 0, "objects left in the driver");
	free_netdev(dev);
}

/* A NIC that is up. @features: NETIF_F_HW_ESP*, or none. */
struct xfrm_test_nic *xfrm_test_nic(struct kunit *test, enum xfrm_test_ops ops,
				    netdev_features_t features)
{
	struct xfrm_test *ctx = test->priv;
	struct xfrm_test_nic *nic;
	struct net_device *dev;
	int err;

	nic = kunit_kzalloc(test, sizeof(*nic), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, nic);
	nic->test = test;
	spin_lock_init(&nic->lock);
	INIT_LIST_HEAD(&nic->objs);
	INIT_DELAYED_WORK(&nic->rescue, nic_rescue);

	dev = alloc_netdev(sizeof(nic), "xfrmtest%d", NET_NAME_ENUM, nic_setup);
	KUNIT_ASSERT_NOT_NULL(test, dev);
	*(struct xfrm_test_nic **)netdev_priv(dev) = nic;
	nic->dev = dev;
	dev->xfrmdev_ops = &nic_ops[ops];
	dev->features = features;
	dev->hw_features = features;

	err = register_netdev(dev);
	if (err)
		free_netdev(dev);
	KUNIT_ASSERT_EQ(test, err, 0);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, nic_action, nic));
	/* What is offloaded to it has to go first. */
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, flush_all, ctx));

	KUNIT_ASSERT_EQ(test, nic_up(dev), 0);
	nic_down(dev);
	rcu_barrier();
	nic->refs_down = netdev_refcnt_read(dev);
	KUNIT_ASSERT_EQ(test, nic_up(dev), 0);
	rcu_barrier();
	nic->refs_up = netdev_refcnt_read(dev);
	return nic;
}

/**
 * xfrm_test_nic_depart - set the NIC down, or unregister it
 * @nic: the NIC
 * @event: NETDEV_DOWN or NETDEV_UNREGISTER
 */
void xfrm_test_nic_depart(struct xfrm_test_nic *nic, unsigned long event)
{
	if (event == NETDEV_UNREGISTER) {
		nic_unregister(nic);
		return;
	}

	nic->departed = true;
	nic_down(nic->dev);
}

/* Tells everybody that it departs, but it stays as it is. */
void xfrm_test_nic_notify(struct xfrm_test_nic *nic, unsigned long event)
{
	nic->departed = true;
	rtnl_lock();
	call_netdevice_notifiers(event, nic->dev);
	rtnl_unlock();
}

/* References to the NIC that nobody would have if nothing had ever been
 * offloaded to it, as soon as there are no more than @want.
 */
int xfrm_test_nic_refs(struct xfrm_test_nic *nic, int want)
{
	int refs;

	if (nic->dev->reg_state != NETREG_REGISTERED)
		return nic->leaked;

	refs = netif_running(nic->dev) ? nic->refs_up : nic->refs_down;
	return dev_refs(nic->dev, refs + want) - refs;
}

unsigned int xfrm_test_nic_calls(struct xfrm_test_nic *nic,
				 enum xfrm_test_op op)
{
	unsigned int calls;

	spin_lock_bh(&nic->lock);
	calls = nic->calls[op];
	spin_unlock_bh(&nic->lock);
	return calls;
}

/* What the driver was called for @obj, in order; with a star if it must not
 * sleep.
 */
const char *xfrm_test_nic_history(struct xfrm_test_nic *nic, const void *obj)
{
	static const char * const names[OP_MAX] = {
		[OP_STATE_ADD] = "add",
		[OP_STATE_DELETE] = "delete",
		[OP_STATE_FREE] = "free",
		[OP_STATE_STATS] = "stats",
		[OP_STATE_OFFLOAD_OK] = "ok",
		[OP_POLICY_ADD] = "add",
		[OP_POLICY_DELETE] = "delete",
		[OP_POLICY_FREE] = "free",
	};
	const struct xfrm_test_call *call;
	const size_t size = 256;
	size_t len = 0;
	char *text;

	text = kunit_kzalloc(nic->test, size, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(nic->test, text);
	spin_lock_bh(&nic->lock);
	for (call = nic->log;
	     call < nic->log + min(nic->seq, ARRAY_SIZE(nic->log)); call++)
		if (call->obj == obj)
			len += scnprintf(text + len, size - len, "%s%s%s",
					 len ? " " : "", names[call->op],
					 call->atomic ? "*" : "");
	spin_unlock_bh(&nic->lock);
	return text;
}

/* --------------------------------- states --------------------------------- */

/* Benchmarking and documentation addresses. */
void xfrm_test_addrs(u16 family, u32 idx, xfrm_address_t *saddr,
		     xfrm_address_t *daddr)
{
	memset(saddr, 0, sizeof(*saddr));
	memset(daddr, 0, sizeof(*daddr));
	if (family == AF_INET) {
		/* 198.18.0.1 and 198.19/16 */
		saddr->a4 = htonl(0xc6120001);
		daddr->a4 = htonl(0xc6130000 + (idx << 1));
	} else {
		saddr->a6[0] = htonl(0x20010db8);
		saddr->a6[3] = htonl(1);
		daddr->a6[0] = htonl(0x20010db8);
		daddr->a6[1] = htonl(1);
		daddr->a6[3] = htonl(idx << 1);
	}
}

__be32 xfrm_test_spi(u32 idx)
{
	return htonl(SPI_BASE + idx);
}

static struct xfrm_algo_aead *aead(void)
{
	struct xfrm_algo_aead *aead;

	/* The state frees it. */
	aead = kzalloc(sizeof(*aead) + 20, GFP_KERNEL);
	if (aead) {
		strscpy(aead->alg_name, "rfc4106(gcm(aes))");
		aead->alg_key_len = 160;
		aead->alg_icv_len = 128;
	}
	return aead;
}

/* A valid state that is not inserted. */
struct xfrm_state *xfrm_test_state_alloc(struct kunit *test,
					 const struct xfrm_test_sa *sa)
{
	struct xfrm_test *ctx = test->priv;
	struct xfrm_state *x;
	int err;

	x = xfrm_state_alloc(ctx->net);
	KUNIT_ASSERT_NOT_NULL(test, x);

	x->id.proto = IPPROTO_ESP;
	x->id.spi = xfrm_test_spi(sa->idx);
	xfrm_test_addrs(sa->family, sa->idx, &x->props.saddr, &x->id.daddr);
	if (sa->dir == XFRM_SA_DIR_IN)
		swap(x->props.saddr, x->id.daddr);
	x->props.family = sa->family;
	x->props.mode = sa->mode;
	x->dir = sa->dir;
	x->aead = aead();
	x->geniv = "seqiv";
	if (sa->encap) {
		x->encap = kzalloc_obj(*x->encap);
		if (x->encap)
			x->encap->encap_type = UDP_ENCAP_ESPINUDP;
		x->nat_keepalive_interval = 3600;
	}

	err = x->aead && !sa->encap == !x->encap ? xfrm_init_state(x, NULL) :
						   -ENOMEM;
	if (!err)
		xfrm_set_type_offload(x, true);
	if (err) {
		x->km.state = XFRM_STATE_DEAD;
		xfrm_state_put(x);
	}
	KUNIT_ASSERT_EQ(test, err, 0);
	return x;
}

int xfrm_test_state_offload(struct xfrm_test_nic *nic, struct xfrm_state *x,
			    u8 type)
{
	struct xfrm_user_offload xuo = { .ifindex = nic->dev->ifindex };

	if (type == XFRM_DEV_OFFLOAD_PACKET)
		xuo.flags |= XFRM_OFFLOAD_PACKET;
	if (x->dir == XFRM_SA_DIR_IN)
		xuo.flags |= XFRM_OFFLOAD_INBOUND;
	return xfrm_dev_state_add(xs_net(x), x, &xuo, NULL);
}

static void state_drop(struct xfrm_state *x)
{
	x->km.state = XFRM_STATE_DEAD;
	xfrm_dev_state_delete(x);
	xfrm_state_put(x);
}

/* A state that is offloaded, unless it is a software one, but not inserted. */
struct xfrm_state *xfrm_test_state_offloaded(struct xfrm_test_nic *nic,
					     const struct xfrm_test_sa *sa)
{
	struct xfrm_state *x = xfrm_test_state_alloc(nic->test, sa);
	int err;

	if (sa->type == XFRM_DEV_OFFLOAD_UNSPECIFIED)
		return x;

	err = xfrm_test_state_offload(nic, x, sa->type);
	if (err)
		state_drop(x);
	KUNIT_ASSERT_EQ(nic->test, err, 0);
	return x;
}

void xfrm_test_state_insert(struct kunit *test, struct xfrm_state *x)
{
	int err = xfrm_state_add(x);

	if (err)
		state_drop(x);
	KUNIT_ASSERT_EQ(test, err, 0);
}

static void state_action(void *data)
{
	struct xfrm_state *x = data;

	/* Also those that a flush leaves alone. */
	if (!list_empty(&x->km.all))
		xfrm_state_delete(x);
	xfrm_state_put(x);
}

/* Let @x be there until the test ends. That keeps no device. */
void xfrm_test_state_hold(struct kunit *test, struct xfrm_state *x)
{
	xfrm_state_hold(x);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, state_action, x));
}

/* An inserted state. */
struct xfrm_state *xfrm_test_state(struct xfrm_test_nic *nic,
				   const struct xfrm_test_sa *sa)
{
	struct xfrm_state *x = xfrm_test_state_offloaded(nic, sa);

	xfrm_test_state_insert(nic->test, x);
	xfrm_test_state_hold(nic->test, x);
	return x;
}

/* Is @x what one gets for its SPI? */
bool xfrm_test_state_found(struct xfrm_state *x)
{
	struct xfrm_state *y;

	y = xfrm_state_lookup(xs_net(x), 0, &x->id.daddr, x->id.spi,
			      x->id.proto, x->props.family);
	if (y)
		xfrm_state_put(y);
	return y == x;
}

/* The timer of a frozen state is started and stopped as ever, but does not
 * expire the state. It is set to a time that nobody else uses, so that one can
 * tell whether it has been started.
 */
static enum hrtimer_restart (*state_timer)(struct hrtimer *timer);
#define STATE_FROZEN	(KTIME_MAX / 2)

static enum hrtimer_restart state_frozen(struct hrtimer *timer)
{
	return HRTIMER_NORESTART;
}

void xfrm_test_state_freeze(struct xfrm_state *x)
{
	hrtimer_cancel(&x->mtimer);
	state_timer = ACCESS_PRIVATE(&x->mtimer, function);
	hrtimer_update_function(&x->mtimer, state_frozen);
	hrtimer_set_expires(&x->mtimer, STATE_FROZEN);
}

/* Has the timer been started since the state is frozen? */
bool xfrm_test_state_started(struct xfrm_state *x)
{
	return hrtimer_get_expires(&x->mtimer) != STATE_FROZEN;
}

/* Lets the timer go off, if it has been started. Returns whether it has. */
bool xfrm_test_state_thaw(struct xfrm_state *x)
{
	bool started = xfrm_test_state_started(x);

	hrtimer_cancel(&x->mtimer);
	hrtimer_update_function(&x->mtimer, state_timer);
	if (started)
		hrtimer_start(&x->mtimer, 0, HRTIMER_MODE_REL_SOFT);
	return started;
}

/* -------------------------------- policies -------------------------------- */

struct xfrm_policy *xfrm_test_policy_alloc(struct kunit *test,
					   const struct xfrm_test_pol *p)
{
	u8 prefixlen = p->family == AF_INET ? 32 : 128;
	struct xfrm_test *ctx = test->priv;
	struct xfrm_policy *pol;
	struct xfrm_tmpl *tmpl;

	pol = xfrm_policy_alloc(ctx->net, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, pol);

	pol->priority = XFRM_TEST_PRIO + p->idx;
	pol->family = p->family;
	pol->type = p->type;
	pol->action = p->kind == KIND_BLOCK ? XFRM_POLICY_BLOCK :
					      XFRM_POLICY_ALLOW;
	pol->lft.soft_byte_limit = XFRM_INF;
	pol->lft.hard_byte_limit = XFRM_INF;
	pol->lft.soft_packet_limit = XFRM_INF;
	pol->lft.hard_packet_limit = XFRM_INF;
	pol->selector.family = p->family;
	xfrm_test_addrs(p->family, p->idx, &pol->selector.saddr,
			&pol->selector.daddr);
	/* idx is in an even address. */
	pol->selector.prefixlen_s = p->inexact ? prefixlen - 1 : prefixlen;
	pol->selector.prefixlen_d = p->inexact ? prefixlen - 1 : prefixlen;

	if (p->kind == KIND_PROTECT || p->kind == KIND_OPTIONAL) {
		tmpl = &pol->xfrm_vec[0];
		tmpl->id.proto = IPPROTO_ESP;
		tmpl->mode = p->mode;
		tmpl->encap_family = p->family;
		tmpl->allalgs = 1;
		tmpl->optional = p->kind == KIND_OPTIONAL;
		xfrm_test_addrs(p->family, p->idx, &tmpl->saddr,
				&tmpl->id.daddr);
		pol->xfrm_nr = 1;
	}
	return pol;
}

int xfrm_test_policy_offload(struct xfrm_test_nic *nic, struct xfrm_policy *pol,
			     u8 dir)
{
	struct xfrm_user_offload xuo = {
		.ifindex = nic->dev->ifindex,
		.flags = XFRM_OFFLOAD_PACKET,
	};

	return xfrm_dev_policy_add(xp_net(pol), pol, &xuo, dir, NULL);
}

/* Offload @pol if there is a @nic, insert it, and return its index. Whoever
 * holds a policy may hold a device, so the test has no reference afterwards.
 */
u32 xfrm_test_policy_insert(struct kunit *test, struct xfrm_test_nic *nic,
			    struct xfrm_policy *pol, u8 dir)
{
	u32 index = 0;
	int err = 0;

	if (nic)
		err = xfrm_test_policy_offload(nic, pol, dir);
	if (!err) {
		err = xfrm_policy_insert(dir, pol, 1);
		if (err)
			xfrm_dev_policy_delete(pol);
	}
	if (err) {
		pol->walk.dead = 1;
		xfrm_policy_destroy(pol);
	} else {
		index = pol->index;
		/* The SPD has one of its own. */
		xfrm_pol_put(pol);
	}
	KUNIT_ASSERT_EQ(test, err, 0);
	return index;
}

/* A policy like @p; returns its index. */
u32 xfrm_test_policy(struct xfrm_test_nic *nic, const struct xfrm_test_pol *p)
{
	struct kunit *test = nic ? nic->test : km_test;

	return xfrm_test_policy_insert(test, nic,
				       xfrm_test_policy_alloc(test, p),
				       p->dir);
}

static void policy_put(void *pol)
{
	xfrm_pol_put(pol);
}

/* With a reference, until xfrm_test_policy_put() or the end of the test. */
struct xfrm_policy *xfrm_test_policy_get(struct kunit *test,
					 const struct xfrm_test_pol *p,
					 u32 index)
{
	struct xfrm_mark mark = {};
	struct xfrm_policy *pol;
	int err;

	pol = xfrm_policy_byid(&init_net, &mark, 0, p->type, p->dir, index, 0,
			       &err);
	if (pol)
		KUNIT_ASSERT_EQ(test, 0,
				kunit_add_action_or_reset(test, policy_put,
							  pol));
	return pol;
}

void xfrm_test_policy_put(struct kunit *test, struct xfrm_policy *pol)
{
	kunit_release_action(test, policy_put, pol);
}

/* Is there such a policy? And could it be deleted, if @delete? */
static bool policy_byid(const struct xfrm_test_pol *p, u32 index, bool delete)
{
	struct xfrm_mark mark = {};
	struct xfrm_policy *pol;
	int err;

	pol = xfrm_policy_byid(&init_net, &mark, 0, p->type, p->dir, index,
			       delete, &err);
	if (!pol)
		return false;
	xfrm_pol_put(pol);
	return !err;
}

bool xfrm_test_policy_found(const struct xfrm_test_pol *p, u32 index)
{
	return policy_byid(p, index, false);
}

bool xfrm_test_policy_delete(const struct xfrm_test_pol *p, u32 index)
{
	return policy_byid(p, index, true);
}

/* As for states. A pending timer has a reference. */
static void (*policy_timer)(struct timer_list *timer);
#define POLICY_FROZEN	(24 * 3600 * HZ)

static void policy_frozen(struct timer_list *timer)
{
	struct xfrm_policy *pol = timer_container_of(pol, timer, timer);
	bool dead;

	/* As xfrm_policy_timer(): whoever kills it has stopped the timer. */
	read_lock(&pol->lock);
	dead = pol->walk.dead;
	if (!dead)
		mod_timer(timer, jiffies + POLICY_FROZEN / 2);
	read_unlock(&pol->lock);
	if (dead)
		xfrm_pol_put(pol);
}

void xfrm_test_policy_freeze(struct xfrm_policy *pol)
{
	if (!timer_delete_sync(&pol->timer))
		xfrm_pol_hold(pol);
	policy_timer = pol->timer.function;
	pol->timer.function = policy_frozen;
	mod_timer(&pol->timer, jiffies + POLICY_FROZEN);
}

/* Lets the timer go off, if it is started. Returns whether it is. */
bool xfrm_test_policy_thaw(struct kunit *test, struct xfrm_policy *pol)
{
	bool started;

	started = time_before(pol->timer.expires,
			      jiffies + POLICY_FROZEN / 4 * 3);
	KUNIT_ASSERT_TRUE(test, timer_delete_sync(&pol->timer));
	pol->timer.function = policy_timer;
	if (started)
		mod_timer(&pol->timer, jiffies);
	else
		xfrm_pol_put(pol);
	return started;
}

/* Let the timer go off, and wait until it has. */
bool xfrm_test_policy_kick(struct xfrm_policy *pol)
{
	unsigned long timeout = jiffies + XFRM_TEST_TIMEOUT;
	unsigned long expires = jiffies;

	if (!mod_timer(&pol->timer, expires))
		xfrm_pol_hold(pol);
	while (timer_pending(&pol->timer) &&
	       READ_ONCE(pol->timer.expires) == expires) {
		if (time_after(jiffies, timeout))
			return false;
		msleep(20);
	}
	/* For the handler, a softirq, to return. */
	synchronize_rcu();
	return true;
}

/* -------------------------------- packets --------------------------------- */

/* Where a packet ends up that needs no IPsec (any more). */
static int clear_output(struct net *net, struct sock *sk, struct sk_buff *skb)
{
	atomic_inc(&cleartext);
	consume_skb(skb);
	return 0;
}

unsigned int xfrm_test_cleartext(void)
{
	return atomic_read(&cleartext);
}

/* A route by @dev. */
struct dst_entry *xfrm_test_route(struct kunit *test, struct net_device *dev,
				  u16 family)
{
	struct dst_entry *dst = NULL;

	if (family == AF_INET) {
		struct rtable *rt = rt_dst_alloc(dev, 0, RTN_UNICAST, false);

		if (rt)
			dst = &rt->dst;
#if IS_ENABLED(CONFIG_IPV6)
	} else {
		struct rt6_info *rt = ip6_dst_alloc(dev_net(dev), dev, 0);

		if (rt)
			dst = &rt->dst;
#endif
	}
	KUNIT_ASSERT_NOT_NULL(test, dst);
	dst->output = clear_output;
	return dst;
}

/* A packet for the policies and states with this index. */
struct sk_buff *xfrm_test_skb(struct kunit *test, u16 family, u32 idx)
{
	xfrm_address_t saddr, daddr;
	struct sk_buff *skb;
	struct udphdr *uh;

	skb = alloc_skb(256, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, skb);
	skb_reserve(skb, 128);
	skb_reset_network_header(skb);
	xfrm_test_addrs(family, idx, &saddr, &daddr);

	if (family == AF_INET) {
		struct iphdr *iph = skb_put_zero(skb, sizeof(*iph));

		iph->version = 4;
		iph->ihl = 5;
		iph->ttl = 64;
		iph->protocol = IPPROTO_UDP;
		iph->tot_len = htons(sizeof(*iph) + sizeof(*uh));
		iph->saddr = saddr.a4;
		iph->daddr = daddr.a4;
		skb->protocol = htons(ETH_P_IP);
	} else {
		struct ipv6hdr *ip6 = skb_put_zero(skb, sizeof(*ip6));

		ip6->version = 6;
		ip6->hop_limit = 64;
		ip6->nexthdr = IPPROTO_UDP;
		ip6->payload_len = htons(sizeof(*uh));
		ip6->saddr = saddr.in6;
		ip6->daddr = daddr.in6;
		skb->protocol = htons(ETH_P_IPV6);
	}
	skb_set_transport_header(skb, skb->len);
	uh = skb_put_zero(skb, sizeof(*uh));
	uh->len = htons(sizeof(*uh));
	skb->dev = init_net.loopback_dev;
	return skb;
}

void xfrm_test_flow(struct flowi *fl, u16 family, u32 idx)
{
	xfrm_address_t saddr, daddr;

	memset(fl, 0, sizeof(*fl));
	fl->flowi_proto = IPPROTO_UDP;
	xfrm_test_addrs(family, idx, &saddr, &daddr);
	if (family == AF_INET) {
		fl->u.ip4.saddr = saddr.a4;
		fl->u.ip4.daddr = daddr.a4;
	} else {
		fl->u.ip6.saddr = saddr.in6;
		fl->u.ip6.daddr = daddr.in6;
	}
}

/* What a packet gets for a destination whose route is by another device than
 * the NIC. To be released.
 */
struct dst_entry *xfrm_test_lookup(struct kunit *test, u16 family, u32 idx)
{
	struct dst_entry *dst;
	struct flowi fl;

	dst = xfrm_test_route(test, init_net.loopback_dev, family);
	xfrm_test_flow(&fl, family, idx);
	return xfrm_lookup(&init_net, dst, &fl, NULL, 0);
}

/* What happens to a plain packet that matches the policy: 0 if it passes, 1 if
 * it is going to be transformed, or an error.
 */
int xfrm_test_verdict(struct kunit *test, const struct xfrm_test_pol *p)
{
	struct dst_entry *dst;
	struct sk_buff *skb;
	int ret;

	if (p->dir == XFRM_POLICY_OUT) {
		dst = xfrm_test_lookup(test, p->family, p->idx);
		if (IS_ERR(dst))
			return PTR_ERR(dst);
		ret = !!dst->xfrm;
		dst_release(dst);
		return ret;
	}

	skb = xfrm_test_skb(test, p->family, p->idx);
	ret = xfrm_policy_check(NULL, p->dir, skb, p->family) ? 0 : -EPERM;
	kfree_skb(skb);
	return ret;
}

unsigned long xfrm_test_mib(int field)
{
	unsigned long sum = 0;
#ifdef CONFIG_XFRM_STATISTICS
	int cpu;

	for_each_possible_cpu(cpu)
		sum += snmp_get_cpu_field(init_net.mib.xfrm_statistics, cpu,
					  field);
#endif
	return sum;
}
