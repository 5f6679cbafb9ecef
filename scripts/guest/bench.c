// SPDX-License-Identifier: GPL-2.0
/* A departure, as a module that guest/bench inserts for each case: fill SAD and SPD,
 * some for fake NICs, unregister these NICs in one batch, wait until their states have
 * expired, remove the rest. @result has a line for each departure: microseconds for
 * which RTNL was held, microseconds until the NICs were free, expedited grace periods,
 * nanoseconds of the notifiers of NETDEV_DOWN when nothing is offloaded.
 * Never installed anywhere.
 */
#include <linux/delay.h>
#include <linux/if_arp.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <net/xfrm.h>

static unsigned int nics = 1;
module_param(nics, uint, 0);
static unsigned int states;
module_param(states, uint, 0);
MODULE_PARM_DESC(states, "offloaded ones of each NIC");
static unsigned int policies;
module_param(policies, uint, 0);
MODULE_PARM_DESC(policies, "offloaded ones of each NIC");
static unsigned int software;
module_param(software, uint, 0);
MODULE_PARM_DESC(software, "states, and as many policies, that are not offloaded");
static bool first;
module_param(first, bool, 0);
MODULE_PARM_DESC(first, "put the offloaded ones in before those of software");
static unsigned int times = 1;
module_param(times, uint, 0);
MODULE_PARM_DESC(times, "departures, more than one without offloaded objects only");

static char result[4096];
module_param_string(result, result, sizeof(result), 0444);

static struct net_device *nic[100];
static atomic_t added, freed;

static int nic_state_add(struct net_device *dev, struct xfrm_state *x,
			 struct netlink_ext_ack *extack)
{
	x->xso.offload_handle = atomic_inc_return(&added);
	return 0;
}

static void nic_state_delete(struct net_device *dev, struct xfrm_state *x)
{
}

static void nic_state_free(struct net_device *dev, struct xfrm_state *x)
{
	atomic_inc(&freed);
}

static int nic_policy_add(struct xfrm_policy *pol, struct netlink_ext_ack *extack)
{
	pol->xdo.offload_handle = atomic_inc_return(&added);
	return 0;
}

static void nic_policy_delete(struct xfrm_policy *pol)
{
}

static void nic_policy_free(struct xfrm_policy *pol)
{
	atomic_inc(&freed);
}

static const struct xfrmdev_ops nic_ops = {
	.xdo_dev_state_add	= nic_state_add,
	.xdo_dev_state_delete	= nic_state_delete,
	.xdo_dev_state_free	= nic_state_free,
	.xdo_dev_policy_add	= nic_policy_add,
	.xdo_dev_policy_delete	= nic_policy_delete,
	.xdo_dev_policy_free	= nic_policy_free,
};

static netdev_tx_t nic_xmit(struct sk_buff *skb, struct net_device *dev)
{
	kfree_skb(skb);
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
	dev->xfrmdev_ops = &nic_ops;
	dev->features = NETIF_F_HW_ESP;
	dev->needs_free_netdev = true;
}

static int add_nic(struct net_device **slot)
{
	struct net_device *dev;
	int err;

	dev = alloc_netdev(0, "bench%d", NET_NAME_ENUM, nic_setup);
	if (!dev)
		return -ENOMEM;
	err = register_netdev(dev);
	if (err)
		return err;
	*slot = dev;
	rtnl_lock();
	err = dev_open(dev, NULL);
	rtnl_unlock();
	return err;
}

static void lifetime(struct xfrm_lifetime_cfg *lft)
{
	lft->soft_byte_limit = XFRM_INF;
	lft->hard_byte_limit = XFRM_INF;
	lft->soft_packet_limit = XFRM_INF;
	lft->hard_packet_limit = XFRM_INF;
}

static int add_state(struct net_device *dev, u32 idx)
{
	struct xfrm_user_offload xuo = { .flags = XFRM_OFFLOAD_PACKET };
	struct xfrm_state *x = xfrm_state_alloc(&init_net);
	int err;

	if (!x)
		return -ENOMEM;
	x->id.proto = IPPROTO_ESP;
	x->id.spi = htonl(0x100 + idx);
	x->id.daddr.a4 = htonl(0x0a000000 + idx);
	x->props.saddr.a4 = htonl(0xc6120001);
	x->props.family = AF_INET;
	x->props.mode = XFRM_MODE_TUNNEL;
	x->dir = XFRM_SA_DIR_OUT;
	lifetime(&x->lft);
	x->ealg = kzalloc(sizeof(*x->ealg), GFP_KERNEL);
	if (!x->ealg)
		return -ENOMEM;
	strscpy(x->ealg->alg_name, "ecb(cipher_null)");
	err = xfrm_init_state(x, NULL);
	if (!err && dev) {
		xuo.ifindex = dev->ifindex;
		xfrm_set_type_offload(x, true);
		err = xfrm_dev_state_add(&init_net, x, &xuo, NULL);
	}
	return err ?: xfrm_state_add(x);
}

static int add_policy(struct net_device *dev, u32 idx)
{
	struct xfrm_user_offload xuo = { .flags = XFRM_OFFLOAD_PACKET };
	struct xfrm_policy *pol = xfrm_policy_alloc(&init_net, GFP_KERNEL);
	int err = 0;

	if (!pol)
		return -ENOMEM;
	pol->family = AF_INET;
	pol->action = XFRM_POLICY_ALLOW;
	lifetime(&pol->lft);
	pol->selector.family = AF_INET;
	pol->selector.saddr.a4 = htonl(0xc6130001);
	pol->selector.daddr.a4 = htonl(0x0a000000 + idx);
	pol->selector.prefixlen_s = 32;
	pol->selector.prefixlen_d = 32;
	pol->xfrm_nr = 1;
	pol->xfrm_vec[0].id.proto = IPPROTO_ESP;
	pol->xfrm_vec[0].id.daddr.a4 = htonl(0x0a000000 + idx);
	pol->xfrm_vec[0].saddr.a4 = htonl(0xc6120001);
	pol->xfrm_vec[0].mode = XFRM_MODE_TUNNEL;
	pol->xfrm_vec[0].encap_family = AF_INET;
	pol->xfrm_vec[0].allalgs = 1;
	if (dev) {
		xuo.ifindex = dev->ifindex;
		err = xfrm_dev_policy_add(&init_net, pol, &xuo, XFRM_POLICY_OUT, NULL);
	}
	err = err ?: xfrm_policy_insert(XFRM_POLICY_OUT, pol, 1);
	/* The SPD has a reference of its own. */
	if (!err)
		xfrm_pol_put(pol);
	return err;
}

/* States and policies of @dev, or of software. */
static int fill(struct net_device *dev, u32 base, unsigned int n_states,
		unsigned int n_policies)
{
	unsigned int i;
	int err = 0;

	for (i = 0; i < n_states && !err; i++)
		err = add_state(dev, base + i);
	for (i = 0; i < n_policies && !err; i++)
		err = add_policy(dev, base + i);
	return err;
}

static int depart(void)
{
	unsigned long timeout;
	struct rcu_gp_seq from, to;
	ktime_t start, held, done, down = 0;
	LIST_HEAD(batch);
	int i, objects = nics * (states + policies);

	rtnl_lock();
	if (!objects) {
		down = ktime_get();
		call_netdevice_notifiers(NETDEV_DOWN, nic[0]);
		down = ktime_get() - down;
	}
	get_state_synchronize_rcu_full(&from);
	start = ktime_get();
	for (i = 0; i < nics; i++)
		unregister_netdevice_queue(nic[i], &batch);
	unregister_netdevice_many(&batch);
	held = ktime_get();
	get_state_synchronize_rcu_full(&to);
	rtnl_unlock();
	done = ktime_get();

	/* The driver must have got back all that it had. */
	if (atomic_xchg(&added, 0) != objects || atomic_xchg(&freed, 0) != objects)
		return -EBUSY;
	timeout = jiffies + 60 * HZ;
	while (READ_ONCE(init_net.xfrm.state_num) != software) {
		if (time_after(jiffies, timeout))
			return -ETIMEDOUT;
		msleep(20);
	}
	/* The two lowest bits say whether one is going on. */
	scnprintf(result + strlen(result), sizeof(result) - strlen(result),
		  "%s%lld %lld %lu %lld", result[0] ? "\n" : "",
		  ktime_us_delta(held, start), ktime_us_delta(done, start),
		  (to.exp - from.exp) >> 2, down);
	return 0;
}

static int bench(void)
{
	unsigned int i, n;
	int err = 0;

	if (nics > ARRAY_SIZE(nic) || (times > 1 && states + policies))
		return -EINVAL;
	if (!first)
		err = fill(NULL, 0, software, software);
	for (n = 0; n < times && !err; n++) {
		for (i = 0; i < nics && !err; i++)
			err = add_nic(&nic[i]) ?:
			      fill(nic[i], BIT(20) + i * max(states, policies),
				   states, policies);
		if (first && !err)
			err = fill(NULL, 0, software, software);
		/* Each has a timer that goes off after a second. */
		if (!n)
			msleep(1500);
		if (!err)
			err = depart();
	}
	xfrm_policy_flush(&init_net, XFRM_POLICY_TYPE_MAIN, false);
	xfrm_state_flush(&init_net, IPSEC_PROTO_ANY, false);
	return err;
}

/* Stays when something is wrong: it may still have NICs. */
static int __init bench_init(void)
{
	int err = bench();

	if (err)
		snprintf(result, sizeof(result), "error %d", err);
	return 0;
}

static void __exit bench_exit(void)
{
}

module_init(bench_init);
module_exit(bench_exit);
MODULE_DESCRIPTION("Measures what the removal of NICs with IPsec offload takes");
MODULE_LICENSE("GPL");
