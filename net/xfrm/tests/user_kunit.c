// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the sizes of netlink messages, included by xfrm_user.c.
 *
 * No message may be longer than its size function says.  Payloads of variable
 * length are no multiples of four, so that padding counts, too.
 */
#include <kunit/skbuff.h>
#include <kunit/test.h>

#define LABEL_MAX	1024

enum {
	OPT_DEV, OPT_DIR, OPT_IF_ID, OPT_MARK, OPT_PCPU, OPT_SEC_CTX, OPT_TMPL
};

#define B(opt)		BIT(OPT_##opt)
#define POLICY_OPTS	(B(DEV) | B(IF_ID) | B(MARK) | B(SEC_CTX) | B(TMPL))

static const struct xfrm_user_msg {
	const char *name;
	unsigned int type;	/* XFRM_MSG_... */
	unsigned long optional;
} xfrm_user_msgs[] = {
	{ "acquire", XFRM_MSG_ACQUIRE, POLICY_OPTS | B(PCPU) },
	{ "expire", XFRM_MSG_EXPIRE, B(DIR) | B(IF_ID) | B(MARK) | B(PCPU) },
	{ "polexpire", XFRM_MSG_POLEXPIRE, POLICY_OPTS },
};

/* What the messages are built from. */
struct xfrm_user_test {
	struct net net;		/* has no netlink socket */
	struct sk_buff *skb;	/* has room for any message */
	struct xfrm_state x;
	struct xfrm_policy xp;
	struct xfrm_tmpl tmpl;
	struct km_event c;
	void *alg;		/* all kinds of algorithms begin alike */
	struct xfrm_encap_tmpl encap;
	struct xfrm_replay_state_esn *esn;
	struct xfrm_sec_ctx *label;
	xfrm_address_t addr;
};

static void fill(struct xfrm_user_test *t, unsigned long on)
{
	struct xfrm_policy *xp = &t->xp;
	struct xfrm_state *x = &t->x;

#define IF(opt, val)	((on & B(opt)) ? (val) : (typeof(val))0)
	x->xso.dev = IF(DEV, init_net.loopback_dev);
	x->dir = IF(DIR, XFRM_SA_DIR_IN);
	x->if_id = IF(IF_ID, 1);
	x->mark.v = IF(MARK, 1);
	x->mark.m = IF(MARK, 1);
	x->pcpu_num = (on & B(PCPU)) ? 0 : UINT_MAX;
	x->security = IF(SEC_CTX, t->label);

	xp->xdo.dev = x->xso.dev;
	xp->xdo.ifindex = IF(DEV, 1);
	xp->if_id = x->if_id;
	xp->mark = x->mark;
	xp->security = x->security;
	xp->xfrm_nr = IF(TMPL, XFRM_MAX_DEPTH);
#undef IF
}

/* Build a message. *@size is what its size function returns. */
static int build(struct xfrm_user_test *t, unsigned int type,
		 unsigned int *size)
{
	struct xfrm_policy *xp = &t->xp;
	struct xfrm_state *x = &t->x;

	switch (type) {
	case XFRM_MSG_ACQUIRE:
		*size = xfrm_acquire_msgsize(x, xp);
		return build_acquire(t->skb, x, &t->tmpl, xp);
	case XFRM_MSG_EXPIRE:
		*size = xfrm_expire_msgsize();
		return build_expire(t->skb, x, &t->c);
	case XFRM_MSG_POLEXPIRE:
		*size = xfrm_polexpire_msgsize(xp);
		return build_polexpire(t->skb, xp, XFRM_POLICY_OUT, &t->c);
	}
	return -EINVAL;
}

/* Each message is built with every combination of its optional attributes. */
static void msg_fits(struct kunit *test)
{
	const struct xfrm_user_msg *msg = test->param_value;
	struct xfrm_user_test *t = test->priv;
	unsigned long on = 0, worst = 0;
	unsigned int size;
	int missing = 0;

	do {
		fill(t, on);
		skb_trim(t->skb, 0);
		KUNIT_ASSERT_EQ(test, build(t, msg->type, &size), 0);
		if ((int)t->skb->len - nlmsg_total_size(size) > missing) {
			missing = t->skb->len - nlmsg_total_size(size);
			worst = on;
		}
		/* the next subset */
		on = (on - msg->optional) & msg->optional;
	} while (on);

	KUNIT_EXPECT_EQ_MSG(test, missing, 0,
			    "bytes not counted, bits of OPT_ are %#lx", worst);
}

/*
 * xfrm_notify_sa() and xfrm_notify_policy() count and build in one function.
 * With all attributes, a label that grows uses up the excess of the rounded
 * skb.  -EPIPE means that the message was built, because there is no socket to
 * send it.
 */
static void notify_fits(struct kunit *test)
{
	static const u32 events[] = {
		XFRM_MSG_NEWSA, XFRM_MSG_DELSA,
		XFRM_MSG_NEWPOLICY, XFRM_MSG_DELPOLICY,
	};
	struct xfrm_user_test *t = test->priv;
	struct xfrm_state *x = &t->x;
	int i, err;

	x->aalg = t->alg;
	x->calg = t->alg;
	x->ealg = t->alg;
	x->coaddr = &t->addr;
	x->encap = &t->encap;
	x->replay_esn = t->esn;
	x->props.extra_flags = 1;
	x->props.smark.m = 1;
	x->nat_keepalive_interval = 1;
	x->lastused = 1;
	x->mapping_maxage = 1;
	x->tfcpad = 1;
	fill(t, GENMASK(OPT_TMPL, 0));

	for (i = 0; i < ARRAY_SIZE(events) * LABEL_MAX; i += 4) {
		t->c.event = events[i / LABEL_MAX];
		t->label->ctx_len = i % LABEL_MAX;
		t->xp.xfrm_nr = i / 4 % (XFRM_MAX_DEPTH + 1);

		rcu_read_lock();
		if (i < 2 * LABEL_MAX)
			err = xfrm_send_state_notify(x, &t->c);
		else
			err = xfrm_send_policy_notify(&t->xp, XFRM_POLICY_OUT,
						      &t->c);
		rcu_read_unlock();
		KUNIT_ASSERT_EQ_MSG(test, err, -EPIPE,
				    "event %#x, label %u, templates %u",
				    t->c.event, t->label->ctx_len,
				    t->xp.xfrm_nr);
	}
}

static int xfrm_user_test_init(struct kunit *test)
{
	struct xfrm_user_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, t);
	test->priv = t;
	write_pnet(&t->x.xs_net, &t->net);
	write_pnet(&t->xp.xp_net, &t->net);
	t->alg = kunit_kzalloc(test, sizeof(struct xfrm_algo_auth) + 5,
			       GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t->alg);
	((struct xfrm_algo *)t->alg)->alg_key_len = 33;
	t->esn = kunit_kzalloc(test, struct_size(t->esn, bmp, 3), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t->esn);
	t->esn->bmp_len = 3;
	t->label = kunit_kzalloc(test, sizeof(*t->label) + LABEL_MAX,
				 GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t->label);
	t->label->ctx_len = 5;
	t->skb = kunit_zalloc_skb(test, 8192, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t->skb);
	return 0;
}

KUNIT_ARRAY_PARAM_DESC(xfrm_user_msg, xfrm_user_msgs, name);

static struct kunit_case xfrm_user_test_cases[] = {
	KUNIT_CASE_PARAM(msg_fits, xfrm_user_msg_gen_params),
	KUNIT_CASE(notify_fits),
	{}
};

static struct kunit_suite xfrm_user_test_suite = {
	.name = "xfrm_user",
	.init = xfrm_user_test_init,
	.test_cases = xfrm_user_test_cases,
};

kunit_test_suite(xfrm_user_test_suite);
