/* SPDX-License-Identifier: GPL-2.0 */
/*
 * For `scripts/kunit --control`: what the KUnit suites use and a kernel without the
 * series does not have. Nothing here makes a case pass.
 */
#include <linux/netdevice.h>
#include <net/xfrm.h>

/* No state is ever in this one. */
#define XFRM_STATE_DEVGONE	77

/* A list of the device that has nothing to do with states, and is empty. */
#define xfrm_states		ptype_all

static inline void xfrm_state_discard(struct xfrm_state *x)
{
	x->km.state = XFRM_STATE_DEAD;
	xfrm_dev_state_delete(x);
	xfrm_state_put(x);
}

static inline bool xfrm_policy_devgone(const struct xfrm_policy *pol)
{
	return pol->xdo.type == XFRM_DEV_OFFLOAD_PACKET && !pol->xdo.dev;
}
