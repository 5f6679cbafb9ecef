/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A fake NIC with IPsec offload and a fake key manager, for the KUnit tests of
 * xfrm offload. Both write what they are called for to one log.
 */
#ifndef _XFRM_TESTS_FIXTURE_H
#define _XFRM_TESTS_FIXTURE_H

#include <kunit/test.h>
#include <linux/completion.h>
#include <linux/netdevice.h>
#include <linux/wait.h>
#include <net/xfrm.h>

#define XDT_TIMEOUT	(10 * HZ)
#define XDT_HW_ESP	(NETIF_F_HW_ESP | NETIF_F_HW_ESP_TX_CSUM)

/* SPI of the state and priority of the policy with index 0. */
#define XDT_SPI		0x1000
#define XDT_PRIO	1000

#define CRYPTO		XFRM_DEV_OFFLOAD_CRYPTO
#define PACKET		XFRM_DEV_OFFLOAD_PACKET

/* Calls of the driver. */
enum xdt_op {
	OP_STATE_ADD,
	OP_STATE_STATS,
	OP_STATE_DELETE,
	OP_STATE_FREE,
	OP_STATE_ESN,
	OP_POLICY_ADD,
	OP_POLICY_DELETE,
	OP_POLICY_FREE,
	OP_MAX
};

enum xdt_ops {
	OPS_FULL,		/* all callbacks */
	OPS_CRYPTO,		/* none for policies, no statistics */
};

struct xdt_nic {
	struct net_device *dev;
	bool gone;		/* set before the first event */
	int leaked;		/* references left when it was unregistered */
	int err;		/* answer of the add callbacks */
	bool refuse;		/* answer of xdo_dev_offload_ok() */
	u64 packets;		/* what the statistics say */
	atomic_t calls[OP_MAX];
	struct list_head objs;	/* what the driver keeps */
	const void *deleting;	/* a policy between delete and free */
	/* Called first in each callback for states and policies. */
	void (*hook)(struct xdt_nic *nic, enum xdt_op op, void *obj);
	void *hook_arg;
};

/* Of the test that runs. */
extern struct xdt {
	struct kunit *test;
	atomic_t expired;	/* hard expiries of states */
	u64 packets;		/* of the last one */
	atomic_t acquires;
	int acquire_err;	/* answer to them */
	/* Called when xfrm_state_find() looks for a key manager. */
	void (*is_alive)(void *arg);
	void *arg;
	atomic_t plain;		/* packets sent as clear text, or to a NIC */
	char log[256];		/* calls of drivers and of the key manager */
	size_t len;
	const char *fault;	/* what the kernel must not do, the first one */
	struct completion entered, back, done;
	bool overtaken;		/* see xdt_block() */
} xdt;

/* What a state is to be like. */
struct xdt_sa {
	u8 mode;		/* XFRM_MODE_TRANSPORT or _TUNNEL */
	u8 type;		/* XFRM_DEV_OFFLOAD_*; none is software */
	u8 dir;			/* XFRM_SA_DIR_*; none is OUT */
	bool encap;		/* in UDP, with NAT keepalives */
	u32 idx;		/* for SPI, addresses and log */
};

#define SA(...)		(&(const struct xdt_sa){ __VA_ARGS__ })

enum xdt_kind {
	KIND_PROTECT,		/* ALLOW with a template */
	KIND_BYPASS,		/* ALLOW without template */
	KIND_BLOCK,		/* BLOCK */
};

/* What a policy is to be like. */
struct xdt_pol {
	u8 kind;
	u8 dir;			/* XFRM_POLICY_IN, _OUT or _FWD */
	u8 type;		/* XFRM_POLICY_TYPE_MAIN or _SUB */
	bool inexact;		/* prefixes that are not hashed */
	u32 idx;		/* for priority, addresses and log */
};

#define POL(...)	(&(const struct xdt_pol){ __VA_ARGS__ })
#define PROTECT_OUT	POL(.dir = XFRM_POLICY_OUT)

int xdt_suite_init(struct kunit_suite *suite);
int xdt_init(struct kunit *test);
void xdt_defer(kunit_action_t *action, void *arg);
void xdt_flush(void *unused);
void xdt_log_state(struct xfrm_state *x, const char *what);
void xdt_log_policy(struct xfrm_policy *pol, const char *what);
void xdt_log_clear(void);
void xdt_fault(bool bad, const char *what);
bool xdt_wait_expired(int n);
void xdt_block_init(void);
bool xdt_wait(struct completion *c);
void xdt_block(void);

struct xdt_nic *xdt_nic(enum xdt_ops ops);
void xdt_nic_event(struct xdt_nic *nic, unsigned long event);

void xdt_addrs(u32 idx, xfrm_address_t *saddr, xfrm_address_t *daddr);
struct xfrm_state *xdt_state_alloc(struct xdt_nic *nic,
				   const struct xdt_sa *sa);
void xdt_state_insert(struct xfrm_state *x);
struct xfrm_state *xdt_state(struct xdt_nic *nic, const struct xdt_sa *sa);
void xdt_state_hold(struct xfrm_state *x);
bool xdt_state_found(struct xfrm_state *x);
void xdt_state_limit(struct xfrm_state *x);
void xdt_timer_freeze(struct xfrm_state *x);
bool xdt_timer_started(struct xfrm_state *x);
void xdt_timer_thaw(struct xfrm_state *x);
void xdt_timer_fire(struct xfrm_state *x);

struct xfrm_policy *xdt_policy_alloc(struct xdt_nic *nic,
				     const struct xdt_pol *p);
void xdt_policy_release(struct xfrm_policy *pol);
int xdt_policy_insert(struct xfrm_policy *pol, u8 dir, bool excl);
struct xfrm_policy *xdt_policy(struct xdt_nic *nic, const struct xdt_pol *p);
bool xdt_policy_found(struct xfrm_policy *pol);
bool xdt_policy_delete(struct xfrm_policy *pol);

struct dst_entry *xdt_route(struct net_device *dev);
struct sk_buff *xdt_skb(u32 idx);
struct dst_entry *xdt_lookup(u32 idx);
int xdt_verdict(const struct xdt_pol *p);

#define XDT_EXPECT_CALLS(nic, op, n)					\
	KUNIT_EXPECT_EQ(xdt.test, atomic_read(&(nic)->calls[op]), n)

#endif /* _XFRM_TESTS_FIXTURE_H */
