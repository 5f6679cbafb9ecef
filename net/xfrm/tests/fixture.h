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
#include <net/xfrm.h>

/* SPI of the state and priority of the policy with index 0. */
#define XDT_SPI		0x1000
#define XDT_PRIO	1000
/* Addresses of benchmarking, which are even. */
#define XDT_SADDR	htonl(0xc6120000)
#define XDT_DADDR(idx)	htonl(0xc6130000 + 2 * (idx))
#define CRYPTO		XFRM_DEV_OFFLOAD_CRYPTO
#define PACKET		XFRM_DEV_OFFLOAD_PACKET

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
	atomic_t objs;		/* states and policies that the driver has */
	const void *deleting;	/* a policy between delete and free */
	struct rcu_gp_seq gp;	/* when a state was deleted last */
	/* Called first when the driver frees a state or policy. */
	void (*hook)(struct xdt_nic *nic, void *obj);
	void *hook_arg;
};

/* Of the test that runs. */
extern struct xdt {
	struct kunit *test;
	int acquire_err;	/* answer of the key manager */
	int plain;		/* packets sent as clear text, or to a NIC */
	char log[256];		/* calls of drivers and of the key manager */
	size_t len;
	const char *fault;	/* what the kernel must not do, the first one */
	struct completion entered, back;
	bool overtaken;		/* see xdt_block() */
} xdt;

/* What a state is to be like. */
struct xdt_sa {
	u8 mode;		/* XFRM_MODE_TRANSPORT or _TUNNEL */
	u8 type;		/* XFRM_DEV_OFFLOAD_*; none is software */
	u8 dir;			/* XFRM_SA_DIR_*; none is OUT */
	u32 reqid;
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
	u8 prefix;		/* length; none is a host */
	u8 proto;
	u32 idx;		/* for priority, addresses and log */
	int prio;		/* added to that priority */
};

#define POL(...)	(&(const struct xdt_pol){ __VA_ARGS__ })
#define PROTECT_OUT	POL(.dir = XFRM_POLICY_OUT)

int xdt_init(struct kunit *test);
void xdt_defer(kunit_action_t *action, void *arg);
void xdt_flush(void *unused);
void xdt_log_state(struct xfrm_state *x, const char *what);
void xdt_log_policy(struct xfrm_policy *pol, const char *what);
void xdt_log_wait(const char *what);
void xdt_fault(bool bad, const char *what);
void xdt_block(struct xdt_nic *nic);
void xdt_entered(void);

struct xdt_nic *xdt_nic(enum xdt_ops ops);
void xdt_nic_event(struct xdt_nic *nic, unsigned long event);

struct xfrm_state *xdt_state_alloc(struct xdt_nic *nic,
				   const struct xdt_sa *sa);
void xdt_state_insert(struct xfrm_state *x);
struct xfrm_state *xdt_state(struct xdt_nic *nic, const struct xdt_sa *sa);
void xdt_state_limit(struct xfrm_state *x, bool hard);
void xdt_timer_freeze(struct xfrm_state *x);
bool xdt_timer_started(struct xfrm_state *x);
void xdt_timer_fire(struct xfrm_state *x);

struct xfrm_policy *xdt_policy_alloc(struct xdt_nic *nic,
				     const struct xdt_pol *p);
struct xfrm_policy *xdt_policy(struct xdt_nic *nic, const struct xdt_pol *p);
bool xdt_policy_delete(struct xfrm_policy *pol);

struct dst_entry *xdt_route(struct net_device *dev);
struct sk_buff *xdt_skb(u32 idx);
int xdt_verdict(const struct xdt_pol *p);

/* What has happened since the last time. */
#define XDT_EXPECT_LOG(what)						\
do {									\
	KUNIT_EXPECT_STREQ(xdt.test, xdt.log, what);			\
	xdt.len = 0;							\
	xdt.log[0] = '\0';						\
} while (0)

#endif /* _XFRM_TESTS_FIXTURE_H */
