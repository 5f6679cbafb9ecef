// SPDX-License-Identifier: GPL-2.0
/*
 * A fake NIC whose driver checks that it is called as it has to be.
 */
#include <linux/delay.h>
#include <linux/if_arp.h>
#include <linux/rtnetlink.h>

#include "fixture.h"

/* What the driver keeps for a state or policy, until the NIC is released. */
struct nic_obj {
	struct list_head list;
	struct xdt_nic *nic;
	enum { OBJ_ADDED, OBJ_DELETED, OBJ_FREED } state;
	struct rcu_gp_seq gp;	/* at the time of delete */
};

static const char * const op_names[OP_MAX] = {
	"add", "stats", "delete", "free", "esn", "add", "delete", "free",
};

static struct xdt_nic *nic_of(struct net_device *dev)
{
	return *(struct xdt_nic **)netdev_priv(dev);
}

static void nic_called(struct xdt_nic *nic, enum xdt_op op, void *obj)
{
	if (nic->hook && op != OP_STATE_STATS)
		nic->hook(nic, op, obj);
	atomic_inc(&nic->calls[op]);
	if (op < OP_POLICY_ADD)
		xdt_log_state(obj, op_names[op]);
	else
		xdt_log_policy(obj, op_names[op]);
}

static int nic_add(struct net_device *dev, unsigned long *handle,
		   enum xdt_op op, void *obj)
{
	struct xdt_nic *nic = nic_of(dev);
	struct nic_obj *no;

	if (nic->err)
		return nic->err;

	no = kzalloc_obj(*no, GFP_ATOMIC);
	if (!no)
		return -ENOMEM;

	nic_called(nic, op, obj);
	no->nic = nic;
	list_add_tail(&no->list, &nic->objs);
	*handle = (unsigned long)no;
	return 0;
}

static int nic_state_add(struct net_device *dev, struct xfrm_state *x,
			 struct netlink_ext_ack *extack)
{
	return nic_add(dev, &x->xso.offload_handle, OP_STATE_ADD, x);
}

/* A larval state that xfrm_state_find() has not inserted: nobody has seen it. */
static bool never_seen(struct xfrm_state *x)
{
	return x->km.state == XFRM_STATE_VOID && list_empty(&x->km.all);
}

static void nic_state_delete(struct net_device *dev, struct xfrm_state *x)
{
	struct nic_obj *no = (struct nic_obj *)x->xso.offload_handle;
	bool alive = x->km.state != XFRM_STATE_DEAD && !never_seen(x);

	if (!never_seen(x))
		lockdep_assert_held(&x->lock);
	nic_called(nic_of(dev), OP_STATE_DELETE, x);
	xdt_fault(no->nic != nic_of(dev) || no->state != OBJ_ADDED,
		  "delete of a state that is not there");
	xdt_fault(x->km.state == XFRM_STATE_VALID, "delete of a valid state");
	xdt_fault(READ_ONCE(x->xso.dev) != (alive ? NULL : dev),
		  "delete of a state with the wrong xso.dev");
	no->state = OBJ_DELETED;
	get_state_synchronize_rcu_full(&no->gp);
}

static void nic_state_free(struct net_device *dev, struct xfrm_state *x)
{
	struct nic_obj *no = (struct nic_obj *)x->xso.offload_handle;
	bool seen = !never_seen(x);

	if (seen) {
		might_sleep();
		lockdep_assert_not_held(&x->lock);
	}
	nic_called(nic_of(dev), OP_STATE_FREE, x);
	xdt_fault(no->nic != nic_of(dev) || no->state != OBJ_DELETED,
		  "free of a state that is not deleted");
	xdt_fault(seen == list_empty(&x->xso.node),
		  "free of a state that is (not) listed");
	xdt_fault(seen && !poll_state_synchronize_rcu_full(&no->gp),
		  "free of a state without a grace period");
	no->state = OBJ_FREED;
}

static void nic_state_stats(struct xfrm_state *x)
{
	struct nic_obj *no = (struct nic_obj *)x->xso.offload_handle;

	nic_called(no->nic, OP_STATE_STATS, x);
	xdt_fault(no->state != OBJ_ADDED,
		  "statistics of a state that is not there");
	xdt_fault(!rcu_read_lock_any_held(), "statistics without RCU");
	if (no->nic->packets)
		x->curlft.packets = no->nic->packets;
}

static void nic_state_esn(struct xfrm_state *x)
{
	struct nic_obj *no = (struct nic_obj *)x->xso.offload_handle;

	lockdep_assert_held(&x->lock);
	nic_called(no->nic, OP_STATE_ESN, x);
	xdt_fault(no->state != OBJ_ADDED, "ESN of a state that is not there");
}

static bool nic_offload_ok(struct sk_buff *skb, struct xfrm_state *x)
{
	struct nic_obj *no = (struct nic_obj *)x->xso.offload_handle;

	xdt_fault(!rcu_read_lock_held(), "offload_ok without RCU");
	xdt_fault(no->state == OBJ_FREED, "offload_ok of a freed state");
	return !no->nic->refuse;
}

static int nic_policy_add(struct xfrm_policy *pol,
			  struct netlink_ext_ack *extack)
{
	return nic_add(pol->xdo.dev, &pol->xdo.offload_handle, OP_POLICY_ADD,
		       pol);
}

static void nic_policy_delete(struct xfrm_policy *pol)
{
	struct nic_obj *no = (struct nic_obj *)pol->xdo.offload_handle;
	struct xdt_nic *nic = no->nic;

	might_sleep();
	xdt_fault(nic->deleting, "two policies at a time");
	nic->deleting = pol;
	nic_called(nic, OP_POLICY_DELETE, pol);
	xdt_fault(no->state != OBJ_ADDED, "delete of an unknown policy");
	xdt_fault(READ_ONCE(pol->xdo.dev), "delete of a policy with xdo.dev");
	xdt_fault(!nic->gone && !READ_ONCE(pol->walk.dead),
		  "delete of a live policy");
	no->state = OBJ_DELETED;
}

static void nic_policy_free(struct xfrm_policy *pol)
{
	struct nic_obj *no = (struct nic_obj *)pol->xdo.offload_handle;

	might_sleep();
	nic_called(no->nic, OP_POLICY_FREE, pol);
	xdt_fault(no->state != OBJ_DELETED || no->nic->deleting != pol,
		  "free of a policy that is not being deleted");
	no->nic->deleting = NULL;
	no->state = OBJ_FREED;
}

static const struct xfrmdev_ops nic_ops[] = {
	[OPS_FULL] = {
		.xdo_dev_state_add		= nic_state_add,
		.xdo_dev_state_delete		= nic_state_delete,
		.xdo_dev_state_free		= nic_state_free,
		.xdo_dev_state_update_stats	= nic_state_stats,
		.xdo_dev_state_advance_esn	= nic_state_esn,
		.xdo_dev_offload_ok		= nic_offload_ok,
		.xdo_dev_policy_add		= nic_policy_add,
		.xdo_dev_policy_delete		= nic_policy_delete,
		.xdo_dev_policy_free		= nic_policy_free,
	},
	[OPS_CRYPTO] = {
		.xdo_dev_state_add		= nic_state_add,
		.xdo_dev_state_delete		= nic_state_delete,
		.xdo_dev_state_free		= nic_state_free,
		.xdo_dev_offload_ok		= nic_offload_ok,
	},
};

static netdev_tx_t nic_xmit(struct sk_buff *skb, struct net_device *dev)
{
	atomic_inc(&xdt.plain);
	xdt_fault(!rcu_read_lock_held(), "xmit without RCU");
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
	dev->priv_flags |= IFF_NO_QUEUE | IFF_NO_ADDRCONF;
	dev->netdev_ops = &nic_netdev_ops;
	dev->features = XDT_HW_ESP;
}

/* References but its own, once they are gone or after a while. */
static int nic_refs(struct xdt_nic *nic)
{
	unsigned long timeout = jiffies + 2 * HZ;
	int refs;

	while ((refs = netdev_refcnt_read(nic->dev) - 1) > 0 &&
	       time_before(jiffies, timeout)) {
		/* Some are dropped by RCU. */
		rcu_barrier();
		fsleep(1000);
	}
	return refs;
}

/* Does nothing the second time. */
static void nic_unregister(struct xdt_nic *nic)
{
	int i;

	rtnl_lock();
	if (nic->dev->reg_state == NETREG_REGISTERED) {
		unregister_netdevice(nic->dev);
		nic->leaked = nic_refs(nic);
		/* Or nobody would ever return from rtnl_unlock(). */
		for (i = 0; i < nic->leaked; i++)
			netdev_put(nic->dev, NULL);
	}
	rtnl_unlock();
}

static void nic_action(void *data)
{
	struct xdt_nic *nic = data;
	struct nic_obj *no, *tmp;

	nic->gone = true;
	nic_unregister(nic);
	KUNIT_EXPECT_EQ_MSG(xdt.test, nic->leaked, 0, "references");
	if (nic->leaked)
		return;		/* somebody still uses it */

	list_for_each_entry_safe(no, tmp, &nic->objs, list) {
		xdt_fault(no->state != OBJ_FREED, "object left in the driver");
		kfree(no);
	}
	free_netdev(nic->dev);
}

/* A NIC that is up. All that is inserted goes before it. */
struct xdt_nic *xdt_nic(enum xdt_ops ops)
{
	struct kunit *test = xdt.test;
	struct net_device *dev;
	struct xdt_nic *nic;
	int err;

	nic = kunit_kzalloc(test, sizeof(*nic), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, nic);
	dev = alloc_netdev(sizeof(nic), "xfrmtest%d", NET_NAME_ENUM, nic_setup);
	KUNIT_ASSERT_NOT_NULL(test, dev);
	*(struct xdt_nic **)netdev_priv(dev) = nic;
	nic->dev = dev;
	INIT_LIST_HEAD(&nic->objs);
	dev->xfrmdev_ops = &nic_ops[ops];

	err = register_netdev(dev);
	if (err)
		free_netdev(dev);
	KUNIT_ASSERT_EQ(test, err, 0);
	xdt_defer(nic_action, nic);
	xdt_defer(xdt_flush, NULL);
	rtnl_lock();
	err = dev_open(dev, NULL);
	rtnl_unlock();
	KUNIT_ASSERT_EQ(test, err, 0);
	return nic;
}

/* NETDEV_UNREGISTER unregisters the NIC. All other events are only sent. */
void xdt_nic_event(struct xdt_nic *nic, unsigned long event)
{
	nic->gone = true;
	if (event == NETDEV_UNREGISTER) {
		nic_unregister(nic);
		return;
	}
	rtnl_lock();
	call_netdevice_notifiers(event, nic->dev);
	rtnl_unlock();
}
