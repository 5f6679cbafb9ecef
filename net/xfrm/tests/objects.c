// SPDX-License-Identifier: GPL-2.0
/*
 * The states, policies and packets of the tests.
 */
#include <linux/udp.h>
#include <net/route.h>

#include "fixture.h"

static void no_limits(struct xfrm_lifetime_cfg *lft)
{
	lft->soft_byte_limit = XFRM_INF;
	lft->hard_byte_limit = XFRM_INF;
	lft->soft_packet_limit = XFRM_INF;
	lft->hard_packet_limit = XFRM_INF;
}

/* The timer of a frozen state can be started and stopped, but does nothing. It
 * is set to a time that nobody else uses, to see whether it has been started.
 */
static enum hrtimer_restart (*state_timer)(struct hrtimer *timer);
#define TIMER_FROZEN	(KTIME_MAX / 2)

static enum hrtimer_restart frozen_timer(struct hrtimer *timer)
{
	return HRTIMER_NORESTART;
}

void xdt_timer_freeze(struct xfrm_state *x)
{
	hrtimer_cancel(&x->mtimer);
	if (ACCESS_PRIVATE(&x->mtimer, function) != frozen_timer)
		state_timer = ACCESS_PRIVATE(&x->mtimer, function);
	hrtimer_update_function(&x->mtimer, frozen_timer);
	hrtimer_set_expires(&x->mtimer, TIMER_FROZEN);
}

bool xdt_timer_started(struct xfrm_state *x)
{
	return hrtimer_get_expires(&x->mtimer) != TIMER_FROZEN;
}

/* What the timer does if it goes off now. */
void xdt_timer_fire(struct xfrm_state *x)
{
	local_bh_disable();
	state_timer(&x->mtimer);
	local_bh_enable();
}

/* A valid state that is frozen, offloaded unless @sa is of a software one, but
 * not inserted.
 */
struct xfrm_state *xdt_state_alloc(struct xdt_nic *nic, const struct xdt_sa *sa)
{
	struct xfrm_user_offload xuo = {
		.flags = (sa->type == PACKET ? XFRM_OFFLOAD_PACKET : 0) |
			 (sa->dir == XFRM_SA_DIR_IN ? XFRM_OFFLOAD_INBOUND : 0),
	};
	struct xfrm_state *x = xfrm_state_alloc(&init_net);
	struct kunit *test = xdt.test;

	KUNIT_ASSERT_NOT_NULL(test, x);
	xdt_timer_freeze(x);
	x->id.proto = IPPROTO_ESP;
	x->id.spi = htonl(XDT_SPI + sa->idx);
	x->id.daddr.a4 = XDT_DADDR(sa->idx);
	x->props.saddr.a4 = XDT_SADDR;
	x->props.family = AF_INET;
	x->props.mode = sa->mode;
	x->props.reqid = sa->reqid;
	x->dir = sa->dir ?: XFRM_SA_DIR_OUT;
	no_limits(&x->lft);
	/* Freed with the state. */
	x->aead = kzalloc(sizeof(*x->aead) + 20, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, x->aead);
	strscpy(x->aead->alg_name, "rfc4106(gcm(aes))");
	x->aead->alg_key_len = 160;
	x->aead->alg_icv_len = 128;
	x->geniv = "seqiv";
	KUNIT_ASSERT_EQ(test, 0, xfrm_init_state(x, NULL));
	xfrm_set_type_offload(x, true);
	if (sa->type == XFRM_DEV_OFFLOAD_UNSPECIFIED)
		return x;
	xuo.ifindex = nic->dev->ifindex;
	KUNIT_ASSERT_EQ(test, 0, xfrm_dev_state_add(&init_net, x, &xuo, NULL));
	return x;
}

KUNIT_DEFINE_ACTION_WRAPPER(state_put, xfrm_state_put, struct xfrm_state *);

/* Lets it be there until the test ends, which keeps no device. */
void xdt_state_insert(struct xfrm_state *x)
{
	KUNIT_ASSERT_EQ(xdt.test, xfrm_state_add(x), 0);
	xfrm_state_hold(x);
	xdt_defer(state_put, x);
	/* Its timer has been started. */
	xdt_timer_freeze(x);
}

/* An inserted one. */
struct xfrm_state *xdt_state(struct xdt_nic *nic, const struct xdt_sa *sa)
{
	struct xfrm_state *x = xdt_state_alloc(nic, sa);

	xdt_state_insert(x);
	return x;
}

/* Lets it reach its hard or soft packet limit. */
void xdt_state_limit(struct xfrm_state *x, bool hard)
{
	u64 *limit = hard ? &x->lft.hard_packet_limit :
			    &x->lft.soft_packet_limit;

	spin_lock_bh(&x->lock);
	*limit = 0;
	xfrm_state_check_expire(x);
	*limit = XFRM_INF;
	spin_unlock_bh(&x->lock);
}

/* A policy that is offloaded if there is a @nic, but not inserted. */
struct xfrm_policy *xdt_policy_alloc(struct xdt_nic *nic,
				     const struct xdt_pol *p)
{
	struct xfrm_user_offload xuo = { .flags = XFRM_OFFLOAD_PACKET };
	struct xfrm_policy *pol;
	struct xfrm_tmpl *tmpl;

	pol = xfrm_policy_alloc(&init_net, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(xdt.test, pol);
	pol->priority = XDT_PRIO + p->idx + p->prio;
	pol->family = AF_INET;
	pol->action = p->kind == KIND_BLOCK ? XFRM_POLICY_BLOCK :
					      XFRM_POLICY_ALLOW;
	no_limits(&pol->lft);
	pol->selector.family = AF_INET;
	pol->selector.proto = p->proto;
	pol->selector.saddr.a4 = XDT_SADDR;
	pol->selector.daddr.a4 = XDT_DADDR(p->idx);
	pol->selector.prefixlen_s = p->prefix ?: 32;
	pol->selector.prefixlen_d = p->prefix ?: 32;

	if (p->kind == KIND_PROTECT) {
		tmpl = &pol->xfrm_vec[0];
		tmpl->id.proto = IPPROTO_ESP;
		tmpl->encap_family = AF_INET;
		tmpl->allalgs = 1;
		tmpl->saddr.a4 = XDT_SADDR;
		tmpl->id.daddr.a4 = XDT_DADDR(p->idx);
		pol->xfrm_nr = 1;
	}
	if (nic) {
		xuo.ifindex = nic->dev->ifindex;
		KUNIT_ASSERT_EQ(xdt.test, 0,
				xfrm_dev_policy_add(&init_net, pol, &xuo,
						    p->dir, NULL));
	}
	return pol;
}

KUNIT_DEFINE_ACTION_WRAPPER(policy_put, xfrm_pol_put, struct xfrm_policy *);

/* An inserted one, which is there until the test ends. That keeps no device. */
struct xfrm_policy *xdt_policy(struct xdt_nic *nic, const struct xdt_pol *p)
{
	struct xfrm_policy *pol = xdt_policy_alloc(nic, p);

	KUNIT_ASSERT_EQ(xdt.test, 0, xfrm_policy_insert(p->dir, pol, true));
	xdt_defer(policy_put, pol);
	return pol;
}

/* False if it is not in the SPD. */
bool xdt_policy_delete(struct xfrm_policy *pol)
{
	struct xfrm_mark mark = {};
	struct xfrm_policy *found;
	int err;

	found = xfrm_policy_byid(&init_net, &mark, 0, pol->type,
				 xfrm_policy_id2dir(pol->index), pol->index,
				 true, &err);
	if (found)
		xfrm_pol_put(found);
	return found == pol;
}

/* Where a packet ends up that needs no IPsec, or no more of it. */
static int clear_output(struct net *net, struct sock *sk, struct sk_buff *skb)
{
	xdt.plain++;
	xdt_fault(!rcu_read_lock_held(), "output without RCU");
	consume_skb(skb);
	return 0;
}

/* A route by @dev. */
struct dst_entry *xdt_route(struct net_device *dev)
{
	struct rtable *rt = rt_dst_alloc(dev, 0, RTN_UNICAST, false);

	KUNIT_ASSERT_NOT_NULL(xdt.test, rt);
	rt->dst.output = clear_output;
	return &rt->dst;
}

/* A packet for the policies and states with this index. */
struct sk_buff *xdt_skb(u32 idx)
{
	struct sk_buff *skb;
	struct iphdr *iph;

	skb = alloc_skb(256, GFP_ATOMIC);
	KUNIT_ASSERT_NOT_NULL(xdt.test, skb);
	skb_reserve(skb, 128);
	skb_reset_network_header(skb);
	skb_set_transport_header(skb, sizeof(*iph));
	iph = skb_put_zero(skb, sizeof(*iph) + sizeof(struct udphdr));
	iph->version = 4;
	iph->ihl = 5;
	iph->protocol = IPPROTO_UDP;
	iph->tot_len = htons(skb->len);
	iph->saddr = XDT_SADDR;
	iph->daddr = XDT_DADDR(idx);
	skb->protocol = htons(ETH_P_IP);
	skb->dev = init_net.loopback_dev;
	return skb;
}

/* What happens to a plain packet that matches the policy: 0 if it passes, 1 if
 * it is going to be transformed, or an error. One that is sent has a route by
 * another device than the NIC.
 */
int xdt_verdict(const struct xdt_pol *p)
{
	struct flowi fl = { .u.ip4 = {
		.flowi4_proto = IPPROTO_UDP,
		.saddr = XDT_SADDR,
		.daddr = XDT_DADDR(p->idx),
	} };
	struct dst_entry *dst;
	struct sk_buff *skb;
	int ret;

	if (p->dir == XFRM_POLICY_OUT) {
		dst = xdt_route(init_net.loopback_dev);
		dst = xfrm_lookup(&init_net, dst, &fl, NULL, 0);
		if (IS_ERR(dst))
			return PTR_ERR(dst);
		ret = !!dst->xfrm;
		dst_release(dst);
		return ret;
	}

	skb = xdt_skb(p->idx);
	ret = xfrm_policy_check(NULL, p->dir, skb, AF_INET) ? 0 : -EPERM;
	kfree_skb(skb);
	return ret;
}
