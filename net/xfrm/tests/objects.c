// SPDX-License-Identifier: GPL-2.0
/*
 * The states, policies and packets of the tests.
 */
#include <linux/udp.h>
#include <net/route.h>

#include "fixture.h"

/* --------------------------------- states --------------------------------- */

/* Of benchmarking: 198.18.0.1 and 198.19/16. */
void xdt_addrs(u32 idx, xfrm_address_t *saddr, xfrm_address_t *daddr)
{
	memset(saddr, 0, sizeof(*saddr));
	memset(daddr, 0, sizeof(*daddr));
	saddr->a4 = htonl(0xc6120001);
	daddr->a4 = htonl(0xc6130000 + (idx << 1));
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

void xdt_timer_thaw(struct xfrm_state *x)
{
	hrtimer_cancel(&x->mtimer);
	hrtimer_update_function(&x->mtimer, state_timer);
}

/* What a timer does that goes off now, frozen or not. */
void xdt_timer_fire(struct xfrm_state *x)
{
	local_bh_disable();
	state_timer(&x->mtimer);
	local_bh_enable();
}

static int state_offload(struct xfrm_state *x, struct xdt_nic *nic, u8 type)
{
	struct xfrm_user_offload xuo = {
		.ifindex = nic->dev->ifindex,
		.flags = (type == PACKET ? XFRM_OFFLOAD_PACKET : 0) |
			 (x->dir == XFRM_SA_DIR_IN ? XFRM_OFFLOAD_INBOUND : 0),
	};

	return xfrm_dev_state_add(xs_net(x), x, &xuo, NULL);
}

static int state_init(struct xfrm_state *x, const struct xdt_sa *sa)
{
	struct xfrm_algo_aead *aead;

	/* Freed with the state. */
	aead = kzalloc(sizeof(*aead) + 20, GFP_KERNEL);
	if (!aead)
		return -ENOMEM;
	strscpy(aead->alg_name, "rfc4106(gcm(aes))");
	aead->alg_key_len = 160;
	aead->alg_icv_len = 128;
	x->aead = aead;
	x->geniv = "seqiv";
	if (sa->encap) {
		x->encap = kzalloc_obj(*x->encap);
		if (!x->encap)
			return -ENOMEM;
		x->encap->encap_type = UDP_ENCAP_ESPINUDP;
		x->nat_keepalive_interval = 3600;
	}
	return xfrm_init_state(x, NULL);
}

/* A valid state that is frozen, offloaded unless @sa is of a software one, but
 * not inserted.
 */
struct xfrm_state *xdt_state_alloc(struct xdt_nic *nic, const struct xdt_sa *sa)
{
	struct xfrm_state *x;
	int err;

	x = xfrm_state_alloc(&init_net);
	KUNIT_ASSERT_NOT_NULL(xdt.test, x);
	xdt_timer_freeze(x);
	x->id.proto = IPPROTO_ESP;
	x->id.spi = htonl(XDT_SPI + sa->idx);
	x->props.family = AF_INET;
	x->props.mode = sa->mode;
	x->dir = sa->dir ?: XFRM_SA_DIR_OUT;
	xdt_addrs(sa->idx, &x->props.saddr, &x->id.daddr);
	x->lft.soft_byte_limit = XFRM_INF;
	x->lft.hard_byte_limit = XFRM_INF;
	x->lft.soft_packet_limit = XFRM_INF;
	x->lft.hard_packet_limit = XFRM_INF;

	err = state_init(x, sa);
	if (!err)
		xfrm_set_type_offload(x, true);
	if (!err && sa->type != XFRM_DEV_OFFLOAD_UNSPECIFIED)
		err = state_offload(x, nic, sa->type);
	if (err)
		xfrm_state_discard(x);
	KUNIT_ASSERT_EQ(xdt.test, err, 0);
	return x;
}

void xdt_state_insert(struct xfrm_state *x)
{
	int err = xfrm_state_add(x);

	if (err)
		xfrm_state_discard(x);
	KUNIT_ASSERT_EQ(xdt.test, err, 0);
	/* Its timer has been started. */
	xdt_timer_freeze(x);
}

static void state_put(void *x)
{
	xfrm_state_put(x);
}

/* Let @x be there until the test ends. That keeps no device. */
void xdt_state_hold(struct xfrm_state *x)
{
	xfrm_state_hold(x);
	xdt_defer(state_put, x);
}

/* An inserted one, with a reference. */
struct xfrm_state *xdt_state(struct xdt_nic *nic, const struct xdt_sa *sa)
{
	struct xfrm_state *x = xdt_state_alloc(nic, sa);

	xdt_state_insert(x);
	xdt_state_hold(x);
	return x;
}

/* Is it in the SAD? */
bool xdt_state_found(struct xfrm_state *x)
{
	struct xfrm_state *y;

	y = xfrm_state_lookup(xs_net(x), 0, &x->id.daddr, x->id.spi,
			      x->id.proto, x->props.family);
	if (y)
		xfrm_state_put(y);
	return y == x;
}

/* Lets it reach its packet limit. */
void xdt_state_limit(struct xfrm_state *x)
{
	spin_lock_bh(&x->lock);
	x->lft.hard_packet_limit = 0;
	xfrm_state_check_expire(x);
	x->lft.hard_packet_limit = XFRM_INF;
	spin_unlock_bh(&x->lock);
}

/* -------------------------------- policies -------------------------------- */

void xdt_policy_release(struct xfrm_policy *pol)
{
	pol->walk.dead = 1;
	xfrm_dev_policy_release(pol);
	xfrm_policy_destroy(pol);
}

/* A policy that is offloaded if there is a @nic, but not inserted. */
struct xfrm_policy *xdt_policy_alloc(struct xdt_nic *nic,
				     const struct xdt_pol *p)
{
	struct xfrm_user_offload xuo = { .flags = XFRM_OFFLOAD_PACKET };
	struct xfrm_policy *pol;
	struct xfrm_tmpl *tmpl;
	int err = 0;

	pol = xfrm_policy_alloc(&init_net, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(xdt.test, pol);
	pol->priority = XDT_PRIO + p->idx;
	pol->family = AF_INET;
	pol->type = p->type;
	pol->action = p->kind == KIND_BLOCK ? XFRM_POLICY_BLOCK :
					      XFRM_POLICY_ALLOW;
	pol->lft.soft_byte_limit = XFRM_INF;
	pol->lft.hard_byte_limit = XFRM_INF;
	pol->lft.soft_packet_limit = XFRM_INF;
	pol->lft.hard_packet_limit = XFRM_INF;
	pol->selector.family = AF_INET;
	xdt_addrs(p->idx, &pol->selector.saddr, &pol->selector.daddr);
	/* idx makes even addresses. */
	pol->selector.prefixlen_s = p->inexact ? 31 : 32;
	pol->selector.prefixlen_d = p->inexact ? 31 : 32;

	if (p->kind == KIND_PROTECT) {
		tmpl = &pol->xfrm_vec[0];
		tmpl->id.proto = IPPROTO_ESP;
		tmpl->encap_family = AF_INET;
		tmpl->allalgs = 1;
		xdt_addrs(p->idx, &tmpl->saddr, &tmpl->id.daddr);
		pol->xfrm_nr = 1;
	}
	if (nic) {
		xuo.ifindex = nic->dev->ifindex;
		err = xfrm_dev_policy_add(&init_net, pol, &xuo, p->dir, NULL);
		if (err)
			xdt_policy_release(pol);
	}
	KUNIT_ASSERT_EQ(xdt.test, err, 0);
	return pol;
}

static void policy_put(void *pol)
{
	xfrm_pol_put(pol);
}

/* Releases @pol if that fails. Or lets it be there until the test ends, which
 * keeps no device.
 */
int xdt_policy_insert(struct xfrm_policy *pol, u8 dir, bool excl)
{
	int err = xfrm_policy_insert(dir, pol, excl);

	if (err)
		xdt_policy_release(pol);
	else
		xdt_defer(policy_put, pol);
	return err;
}

/* An inserted one. */
struct xfrm_policy *xdt_policy(struct xdt_nic *nic, const struct xdt_pol *p)
{
	struct xfrm_policy *pol = xdt_policy_alloc(nic, p);
	int err = xdt_policy_insert(pol, p->dir, true);

	KUNIT_ASSERT_EQ(xdt.test, err, 0);
	return pol;
}

static bool policy_byid(struct xfrm_policy *pol, bool delete)
{
	struct xfrm_mark mark = {};
	struct xfrm_policy *found;
	int err;

	found = xfrm_policy_byid(xp_net(pol), &mark, 0, pol->type,
				 xfrm_policy_id2dir(pol->index), pol->index,
				 delete, &err);
	if (found)
		xfrm_pol_put(found);
	return found == pol;
}

/* Is it in the SPD? */
bool xdt_policy_found(struct xfrm_policy *pol)
{
	return policy_byid(pol, false);
}

bool xdt_policy_delete(struct xfrm_policy *pol)
{
	return policy_byid(pol, true);
}

/* -------------------------------- packets --------------------------------- */

/* Where a packet ends up that needs no IPsec, or no more of it. */
static int clear_output(struct net *net, struct sock *sk, struct sk_buff *skb)
{
	atomic_inc(&xdt.plain);
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
	xfrm_address_t saddr, daddr;
	struct sk_buff *skb;
	struct iphdr *iph;

	skb = alloc_skb(256, GFP_ATOMIC);
	KUNIT_ASSERT_NOT_NULL(xdt.test, skb);
	skb_reserve(skb, 128);
	skb_reset_network_header(skb);
	xdt_addrs(idx, &saddr, &daddr);
	iph = skb_put_zero(skb, sizeof(*iph));
	iph->version = 4;
	iph->ihl = 5;
	iph->ttl = 64;
	iph->protocol = IPPROTO_UDP;
	iph->tot_len = htons(sizeof(*iph) + sizeof(struct udphdr));
	iph->saddr = saddr.a4;
	iph->daddr = daddr.a4;
	skb->protocol = htons(ETH_P_IP);
	skb_set_transport_header(skb, skb->len);
	skb_put_zero(skb, sizeof(struct udphdr));
	skb->dev = init_net.loopback_dev;
	return skb;
}

/* What such a packet gets for a destination, by another device than the NIC. To
 * be released.
 */
struct dst_entry *xdt_lookup(u32 idx)
{
	struct flowi fl = { .flowi_proto = IPPROTO_UDP };
	xfrm_address_t saddr, daddr;
	struct dst_entry *dst;

	dst = xdt_route(init_net.loopback_dev);
	xdt_addrs(idx, &saddr, &daddr);
	fl.u.ip4.saddr = saddr.a4;
	fl.u.ip4.daddr = daddr.a4;
	return xfrm_lookup(&init_net, dst, &fl, NULL, 0);
}

/* What happens to a plain packet that matches the policy: 0 if it passes, 1 if
 * it is going to be transformed, or an error.
 */
int xdt_verdict(const struct xdt_pol *p)
{
	struct dst_entry *dst;
	struct sk_buff *skb;
	int ret;

	if (p->dir == XFRM_POLICY_OUT) {
		dst = xdt_lookup(p->idx);
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
