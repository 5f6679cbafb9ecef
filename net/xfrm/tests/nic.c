// SPDX-License-Identifier: GPL-2.0
/*
 * A fake NIC whose driver checks that it is called as it has to be.
 */
#include <linux/delay.h>
#include <linux/if_arp.h>
#include <linux/rtnetlink.h>

#include "fixture.h"

/* The handle of a state or policy is its NIC and what the driver has done. */
#define OBJ_ADDED	1UL
#define OBJ_DELETED	2UL
#define OBJ_FREED	3UL
#define OBJ_MASK	3UL

static struct xdt_nic *nic_of(unsigned long handle)
{
	return (struct xdt_nic *)(handle & ~OBJ_MASK);
}

static int nic_add(struct net_device *dev, unsigned long *handle)
{
	struct xdt_nic *nic = netdev_priv(dev);

	if (nic->err)
		return nic->err;

	atomic_inc(&nic->objs);
	*handle = (unsigned long)nic | OBJ_ADDED;
	return 0;
}

static struct xdt_nic *nic_delete(unsigned long *handle)
{
	xdt_fault((*handle & OBJ_MASK) != OBJ_ADDED,
		  "delete of what is not there");
	*handle = (*handle & ~OBJ_MASK) | OBJ_DELETED;
	return nic_of(*handle);
}

static struct xdt_nic *nic_free(unsigned long *handle, void *obj)
{
	struct xdt_nic *nic = nic_of(*handle);

	if (nic->hook)
		nic->hook(nic, obj);
	xdt_fault((*handle & OBJ_MASK) != OBJ_DELETED,
		  "free of what is not deleted");
	*handle |= OBJ_FREED;
	atomic_dec(&nic->objs);
	return nic;
}

static int nic_state_add(struct net_device *dev, struct xfrm_state *x,
			 struct netlink_ext_ack *extack)
{
	return nic_add(dev, &x->xso.offload_handle);
}

/* A larval state that xfrm_state_find() did not insert: no one has seen it. */
static bool never_seen(struct xfrm_state *x)
{
	return x->km.state == XFRM_STATE_VOID && list_empty(&x->km.all);
}

static void nic_state_delete(struct net_device *dev, struct xfrm_state *x)
{
	bool alive = x->km.state != XFRM_STATE_DEAD && !never_seen(x);
	struct xdt_nic *nic = nic_delete(&x->xso.offload_handle);

	if (!never_seen(x))
		lockdep_assert_held(&x->lock);
	xdt_log_state(x, "delete");
	xdt_fault(nic->dev != dev, "delete for another device");
	xdt_fault(x->km.state == XFRM_STATE_VALID, "delete of a valid state");
	xdt_fault(READ_ONCE(x->xso.dev) != (alive ? NULL : dev),
		  "delete of a state with the wrong xso.dev");
	get_state_synchronize_rcu_full(&nic->gp);
}

static void nic_state_free(struct net_device *dev, struct xfrm_state *x)
{
	struct xdt_nic *nic = netdev_priv(dev);
	bool seen = !never_seen(x);

	if (seen) {
		might_sleep();
		lockdep_assert_not_held(&x->lock);
		xdt_fault(!poll_state_synchronize_rcu_full(&nic->gp),
			  "free of a state without a grace period");
	}
	xdt_fault(nic_free(&x->xso.offload_handle, x) != nic,
		  "free for another device");
	xdt_log_state(x, "free");
	xdt_fault(seen == list_empty(&x->xso.node),
		  "free of a state that is (not) listed");
}

static void nic_state_stats(struct xfrm_state *x)
{
	struct xdt_nic *nic = nic_of(x->xso.offload_handle);

	xdt_fault((x->xso.offload_handle & OBJ_MASK) != OBJ_ADDED,
		  "statistics of a state that is not there");
	xdt_fault(!rcu_read_lock_any_held(), "statistics without RCU");
	if (nic->packets)
		x->curlft.packets = nic->packets;
}

static void nic_state_esn(struct xfrm_state *x)
{
	lockdep_assert_held(&x->lock);
	xdt_log_state(x, "esn");
	xdt_fault((x->xso.offload_handle & OBJ_MASK) != OBJ_ADDED,
		  "ESN of a state that is not there");
}

static bool nic_offload_ok(struct sk_buff *skb, struct xfrm_state *x)
{
	xdt_fault(!rcu_read_lock_held(), "offload_ok without RCU");
	xdt_fault((x->xso.offload_handle & OBJ_MASK) == OBJ_FREED,
		  "offload_ok of a freed state");
	return !nic_of(x->xso.offload_handle)->refuse;
}

static int nic_policy_add(struct xfrm_policy *pol,
			  struct netlink_ext_ack *extack)
{
	return nic_add(pol->xdo.dev, &pol->xdo.offload_handle);
}

static void nic_policy_delete(struct xfrm_policy *pol)
{
	struct xdt_nic *nic = nic_delete(&pol->xdo.offload_handle);

	might_sleep();
	xdt_log_policy(pol, "delete");
	xdt_fault(nic->deleting, "two policies at a time");
	nic->deleting = pol;
	xdt_fault(READ_ONCE(pol->xdo.dev), "delete of a policy with xdo.dev");
	xdt_fault(!nic->gone && !READ_ONCE(pol->walk.dead),
		  "delete of a live policy");
}

static void nic_policy_free(struct xfrm_policy *pol)
{
	struct xdt_nic *nic = nic_free(&pol->xdo.offload_handle, pol);

	might_sleep();
	xdt_log_policy(pol, "free");
	xdt_fault(nic->deleting != pol, "free of another policy");
	nic->deleting = NULL;
}

#define STATE_OPS						\
	.xdo_dev_state_add	= nic_state_add,		\
	.xdo_dev_state_delete	= nic_state_delete,		\
	.xdo_dev_state_free	= nic_state_free,		\
	.xdo_dev_offload_ok	= nic_offload_ok

static const struct xfrmdev_ops nic_ops[] = {
	[OPS_FULL] = {
		STATE_OPS,
		.xdo_dev_state_update_stats	= nic_state_stats,
		.xdo_dev_state_advance_esn	= nic_state_esn,
		.xdo_dev_policy_add		= nic_policy_add,
		.xdo_dev_policy_delete		= nic_policy_delete,
		.xdo_dev_policy_free		= nic_policy_free,
	},
	[OPS_CRYPTO] = { STATE_OPS },
};

static netdev_tx_t nic_xmit(struct sk_buff *skb, struct net_device *dev)
{
	xdt.plain++;
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
	dev->features = NETIF_F_HW_ESP | NETIF_F_HW_ESP_TX_CSUM;
}

/* Does nothing the second time. */
static void nic_unregister(struct xdt_nic *nic)
{
	int i;

	rtnl_lock();
	if (nic->dev->reg_state == NETREG_REGISTERED) {
		unregister_netdevice(nic->dev);
		/* Some references are dropped by RCU. */
		for (i = 0; i < 1000 && netdev_refcnt_read(nic->dev) > 1; i++) {
			rcu_barrier();
			fsleep(1000);
		}
		nic->leaked = netdev_refcnt_read(nic->dev) - 1;
		/* Or nobody would ever return from rtnl_unlock(). */
		for (i = 0; i < nic->leaked; i++)
			netdev_put(nic->dev, NULL);
	}
	rtnl_unlock();
}

static void nic_action(void *data)
{
	struct xdt_nic *nic = data;

	nic->gone = true;
	nic_unregister(nic);
	KUNIT_EXPECT_EQ_MSG(xdt.test, nic->leaked, 0, "references");
	KUNIT_EXPECT_EQ_MSG(xdt.test, atomic_read(&nic->objs), 0, "in driver");
	/* Or somebody still uses it. */
	if (!nic->leaked)
		free_netdev(nic->dev);
}

/* A NIC that is up. All that is inserted goes before it. */
struct xdt_nic *xdt_nic(enum xdt_ops ops)
{
	struct net_device *dev;
	struct xdt_nic *nic;
	int err;

	dev = alloc_netdev(sizeof(*nic), "xfrmtest%d", NET_NAME_ENUM,
			   nic_setup);
	KUNIT_ASSERT_NOT_NULL(xdt.test, dev);
	nic = netdev_priv(dev);
	nic->dev = dev;
	dev->xfrmdev_ops = &nic_ops[ops];

	rtnl_lock();
	err = register_netdevice(dev);
	if (!err)
		dev_open(dev, NULL);
	rtnl_unlock();
	if (err)
		free_netdev(dev);
	KUNIT_ASSERT_EQ(xdt.test, err, 0);
	xdt_defer(nic_action, nic);
	xdt_defer(xdt_flush, NULL);
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
