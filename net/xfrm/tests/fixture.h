/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A fake NIC with IPsec offload and a fake key manager, for the KUnit tests of
 * xfrm offload.
 *
 * Everything is taken down by KUnit actions, in the reverse order: objects
 * before the NIC they are offloaded to, so that a failed assertion leaves no
 * device behind.
 */
#ifndef _XFRM_TESTS_FIXTURE_H
#define _XFRM_TESTS_FIXTURE_H

#include <kunit/test.h>
#include <linux/netdevice.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <net/xfrm.h>

#define XFRM_TEST_TIMEOUT	(5 * HZ)

/* Priority of the policy with index 0. */
#define XFRM_TEST_PRIO		1000

/* Calls of the driver. */
enum xfrm_test_op {
	OP_STATE_ADD,
	OP_STATE_DELETE,
	OP_STATE_FREE,
	OP_STATE_STATS,
	OP_STATE_OFFLOAD_OK,
	OP_POLICY_ADD,
	OP_POLICY_DELETE,
	OP_POLICY_FREE,
	OP_XMIT,
	OP_MAX
};

enum xfrm_test_ops {
	OPS_FULL,		/* all callbacks */
	OPS_NO_FREE,		/* add and delete only */
	OPS_CRYPTO,		/* none for policies */
};

/* How many calls are remembered one by one. */
#define XFRM_TEST_LOG		32

/**
 * struct xfrm_test_call - a call of the driver
 * @op: which one
 * @atomic: whether it must not sleep
 * @obj: the state or policy
 */
struct xfrm_test_call {
	enum xfrm_test_op op;
	bool atomic;
	const void *obj;
};

/**
 * struct xfrm_test_nic - a NIC that records what its driver is called for
 * @test: the test it belongs to
 * @dev: the net_device, %NULL once it is freed
 * @departed: nothing is added any more, and policy calls can sleep
 * @refs_up: references to @dev when it was up and nothing was offloaded to it
 * @refs_down: the same when it was down
 * @leaked: references that were left when it was unregistered
 * @rescue: keeps them from stopping the test
 * @rescued: how many have been taken away for that
 * @add_err: what the add callbacks return
 * @refuse: xdo_dev_offload_ok() says no
 * @hw_packets: what xdo_dev_state_update_stats() writes to the state
 * @lock: protects what follows, up to @fault
 * @objs: what the driver keeps for each object it was told to add
 * @seq: number of recorded calls
 * @log: the first ones
 * @calls: number of calls of each kind
 * @first: when that kind was called first, in terms of @seq
 * @last: when that kind was called last
 * @fault: what the stack did that it must not do, the first one
 * @hook: called in front of everything else, by all but offload_ok and xmit
 * @hook_arg: for @hook
 */
struct xfrm_test_nic {
	struct kunit *test;
	struct net_device *dev;
	bool departed;
	int refs_up;
	int refs_down;
	int leaked;
	struct delayed_work rescue;
	int rescued;
	int add_err;
	bool refuse;
	u64 hw_packets;

	spinlock_t lock;	/* protects what follows, up to fault */
	struct list_head objs;
	unsigned int seq;
	struct xfrm_test_call log[XFRM_TEST_LOG];
	unsigned int calls[OP_MAX];
	unsigned int first[OP_MAX];
	unsigned int last[OP_MAX];
	const char *fault;

	void (*hook)(struct xfrm_test_nic *nic, enum xfrm_test_op op,
		     void *obj);
	void *hook_arg;
};

/**
 * struct xfrm_test_km - what the key manager was told
 * @wq: woken up with each message
 * @state_hard: hard expiries of states
 * @state_soft: soft expiries of states
 * @policy_hard: hard expiries of policies
 * @policy_soft: soft expiries of policies
 * @acquires: states it was asked for
 * @strange: messages about objects that the test does not know
 * @packets: curlft.packets of the last state
 * @n: number of entries in the following two
 * @state_told: hard expiries of the state with this index
 * @policy_told: hard expiries of the policy with this index
 * @acquire_err: answer to an acquire
 * @is_alive: called when the stack wants to know if there is a key manager
 */
struct xfrm_test_km {
	wait_queue_head_t wq;
	atomic_t state_hard;
	atomic_t state_soft;
	atomic_t policy_hard;
	atomic_t policy_soft;
	atomic_t acquires;
	atomic_t strange;
	u64 packets;
	unsigned int n;
	u8 *state_told;
	u8 *policy_told;
	int acquire_err;
	void (*is_alive)(struct kunit *test);
};

/* Of the test's context, kunit.priv. */
struct xfrm_test {
	struct net *net;
	struct xfrm_test_km km;
};

/**
 * struct xfrm_test_sa - what a state is to be like
 * @family: address family, inside and outside
 * @mode: XFRM_MODE_TRANSPORT or XFRM_MODE_TUNNEL
 * @type: XFRM_DEV_OFFLOAD_UNSPECIFIED (software), _CRYPTO or _PACKET
 * @dir: XFRM_SA_DIR_OUT or XFRM_SA_DIR_IN
 * @idx: makes SPI and destination address unique
 * @encap: encapsulated in UDP, with NAT keepalive
 */
struct xfrm_test_sa {
	u16 family;
	u8 mode;
	u8 type;
	u8 dir;
	u32 idx;
	bool encap;
};

enum xfrm_test_kind {
	KIND_PROTECT,		/* ALLOW with a template */
	KIND_OPTIONAL,		/* ALLOW with a template that is optional */
	KIND_BYPASS,		/* ALLOW without template */
	KIND_BLOCK,		/* BLOCK */
};

/**
 * struct xfrm_test_pol - what a policy is to be like
 * @family: address family
 * @kind: what it does to packets
 * @dir: XFRM_POLICY_OUT, XFRM_POLICY_IN or XFRM_POLICY_FWD
 * @type: XFRM_POLICY_TYPE_MAIN or XFRM_POLICY_TYPE_SUB
 * @inexact: the selector has a prefix that is too short for the hash table
 * @mode: mode of the template
 * @idx: makes priority and destination address unique
 */
struct xfrm_test_pol {
	u16 family;
	u8 kind;
	u8 dir;
	u8 type;
	bool inexact;
	u8 mode;
	u32 idx;
};

int xfrm_test_suite_init(struct kunit_suite *suite);
int xfrm_test_init(struct kunit *test);
void xfrm_test_told_size(struct kunit *test, unsigned int n);
bool xfrm_test_wait(struct kunit *test, int states, int policies);
bool xfrm_test_wait_soft(struct kunit *test);

/* NIC */
struct xfrm_test_nic *xfrm_test_nic(struct kunit *test, enum xfrm_test_ops ops,
				    netdev_features_t features);
void xfrm_test_nic_depart(struct xfrm_test_nic *nic, unsigned long event);
void xfrm_test_nic_notify(struct xfrm_test_nic *nic, unsigned long event);
int xfrm_test_nic_refs(struct xfrm_test_nic *nic, int want);
unsigned int xfrm_test_nic_calls(struct xfrm_test_nic *nic,
				 enum xfrm_test_op op);
const char *xfrm_test_nic_history(struct xfrm_test_nic *nic, const void *obj);

/* States */
void xfrm_test_addrs(u16 family, u32 idx, xfrm_address_t *saddr,
		     xfrm_address_t *daddr);
__be32 xfrm_test_spi(u32 idx);
struct xfrm_state *xfrm_test_state_alloc(struct kunit *test,
					 const struct xfrm_test_sa *sa);
int xfrm_test_state_offload(struct xfrm_test_nic *nic, struct xfrm_state *x,
			    u8 type);
struct xfrm_state *xfrm_test_state_offloaded(struct xfrm_test_nic *nic,
					     const struct xfrm_test_sa *sa);
void xfrm_test_state_insert(struct kunit *test, struct xfrm_state *x);
struct xfrm_state *xfrm_test_state(struct xfrm_test_nic *nic,
				   const struct xfrm_test_sa *sa);
void xfrm_test_state_hold(struct kunit *test, struct xfrm_state *x);
bool xfrm_test_state_found(struct xfrm_state *x);
void xfrm_test_state_freeze(struct xfrm_state *x);
bool xfrm_test_state_started(struct xfrm_state *x);
bool xfrm_test_state_thaw(struct xfrm_state *x);

/* Policies */
struct xfrm_policy *xfrm_test_policy_alloc(struct kunit *test,
					   const struct xfrm_test_pol *p);
int xfrm_test_policy_offload(struct xfrm_test_nic *nic, struct xfrm_policy *pol,
			     u8 dir);
u32 xfrm_test_policy_insert(struct kunit *test, struct xfrm_test_nic *nic,
			    struct xfrm_policy *pol, u8 dir);
u32 xfrm_test_policy(struct xfrm_test_nic *nic, const struct xfrm_test_pol *p);
struct xfrm_policy *xfrm_test_policy_get(struct kunit *test,
					 const struct xfrm_test_pol *p,
					 u32 index);
void xfrm_test_policy_put(struct kunit *test, struct xfrm_policy *pol);
bool xfrm_test_policy_found(const struct xfrm_test_pol *p, u32 index);
bool xfrm_test_policy_delete(const struct xfrm_test_pol *p, u32 index);
void xfrm_test_policy_freeze(struct xfrm_policy *pol);
bool xfrm_test_policy_thaw(struct kunit *test, struct xfrm_policy *pol);
bool xfrm_test_policy_kick(struct xfrm_policy *pol);

/* Packets */
struct dst_entry *xfrm_test_route(struct kunit *test, struct net_device *dev,
				  u16 family);
struct sk_buff *xfrm_test_skb(struct kunit *test, u16 family, u32 idx);
void xfrm_test_flow(struct flowi *fl, u16 family, u32 idx);
struct dst_entry *xfrm_test_lookup(struct kunit *test, u16 family, u32 idx);
int xfrm_test_verdict(struct kunit *test, const struct xfrm_test_pol *p);
unsigned long xfrm_test_mib(int field);
unsigned int xfrm_test_cleartext(void);

#define XFRM_TEST_EXPECT_TOLD(test, states, policies)			\
do {									\
	struct kunit *__test = (test);					\
	struct xfrm_test *__ctx = __test->priv;				\
									\
	KUNIT_EXPECT_EQ(__test, atomic_read(&__ctx->km.state_hard),	\
			states);					\
	KUNIT_EXPECT_EQ(__test, atomic_read(&__ctx->km.policy_hard),	\
			policies);					\
	KUNIT_EXPECT_EQ(__test, atomic_read(&__ctx->km.strange), 0);	\
} while (0)

/* Statistics may not be there. */
#define XFRM_TEST_EXPECT_MIB(test, field, value)			\
do {									\
	if (IS_ENABLED(CONFIG_XFRM_STATISTICS))				\
		KUNIT_EXPECT_EQ(test, xfrm_test_mib(field), value);	\
} while (0)

#define XFRM_TEST_EXPECT_CALLS(nic, op, n)				\
do {									\
	struct xfrm_test_nic *__nic = (nic);				\
									\
	KUNIT_EXPECT_EQ(__nic->test, xfrm_test_nic_calls(__nic, op), n); \
} while (0)

#define XFRM_TEST_EXPECT_REFS(nic, n)					\
do {									\
	struct xfrm_test_nic *__nic = (nic);				\
	int __n = (n);							\
									\
	KUNIT_EXPECT_EQ(__nic->test, xfrm_test_nic_refs(__nic, __n), __n); \
} while (0)

extern struct kunit_suite xfrm_test_state_suite;
extern struct kunit_suite xfrm_test_policy_suite;
extern struct kunit_suite xfrm_test_packet_suite;
extern struct kunit_suite xfrm_test_user_suite;

#endif /* _XFRM_TESTS_FIXTURE_H */
