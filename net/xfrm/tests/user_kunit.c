// SPDX-License-Identifier: GPL-2.0
/*
 * KUnit tests for the sizes of netlink messages, included by xfrm_user.c.
 *
 * Each message is built with every combination of its optional attributes.
 * None may be longer than its size function says.  Payloads of variable length
 * are no multiples of four, so that padding counts, too.
 */
#include <kunit/skbuff.h>
#include <kunit/test.h>

#define LABEL_MAX	1024

enum {
	/* Options of every SA ... */
	OPT_AUTH, OPT_COADDR, OPT_COMP, OPT_CRYPT, OPT_DEV, OPT_DIR, OPT_ENCAP,
	OPT_ESN, OPT_EXTRA_FLAGS, OPT_IF_ID, OPT_KEEPALIVE, OPT_LASTUSED,
	OPT_MARK, OPT_MAXAGE, OPT_PCPU, OPT_SEC_CTX, OPT_SET_MARK, OPT_TFCPAD,
	/* ... and others */
	OPT_AEAD, OPT_ENTRIES, OPT_ETIMER, OPT_IPTFS, OPT_KMADDRESS, OPT_RTHRESH,
	OPT_TMPL, OPT_MAX
};

static const char * const opt_names[OPT_MAX] = {
	" auth", " coaddr", " comp", " crypt", " offload", " dir", " encap",
	" esn", " extra_flags", " if_id", " keepalive", " lastused", " mark",
	" mtimer", " pcpu", " sec_ctx", " set_mark", " tfcpad", " aead",
	" entries", " etimer", " iptfs", " kmaddress", " rthresh", " tmpl",
};

#define B(opt)		BIT(OPT_##opt)
#define SA_OPTS		GENMASK(OPT_TFCPAD, OPT_AUTH)
#define POLICY_OPTS	(B(DEV) | B(IF_ID) | B(MARK) | B(SEC_CTX) | B(TMPL))

static const struct xfrm_user_msg {
	const char *name;
	unsigned int type;	/* XFRM_MSG_... */
	unsigned long always, optional;
} xfrm_user_msgs[] = {
	{ "acquire", XFRM_MSG_ACQUIRE, 0, POLICY_OPTS | B(PCPU) },
	{ "aevent", XFRM_MSG_NEWAE, 0, B(DIR) | B(ESN) | B(ETIMER) | B(IF_ID) |
	  B(MARK) | B(PCPU) | B(RTHRESH) },
	{ "expire", XFRM_MSG_EXPIRE, 0, B(DIR) | B(IF_ID) | B(MARK) | B(PCPU) },
	{ "mapping", XFRM_MSG_MAPPING, B(ENCAP), 0 },
	{ "migrate", XFRM_MSG_MIGRATE, 0, B(ENCAP) | B(ENTRIES) | B(KMADDRESS) },
	{ "migrate_state", XFRM_MSG_MIGRATE_STATE, 0, B(DEV) | B(DIR) | B(ENCAP) |
	  B(KEEPALIVE) | B(MARK) | B(MAXAGE) | B(SET_MARK) },
	{ "polexpire", XFRM_MSG_POLEXPIRE, 0, POLICY_OPTS },
	{ "report", XFRM_MSG_REPORT, 0, B(COADDR) },
	{ "sa", XFRM_MSG_NEWSA, 0, SA_OPTS },
	{ "sa_aead", XFRM_MSG_NEWSA, B(AEAD), B(LASTUSED) },
	{ "sa_iptfs", XFRM_MSG_NEWSA, B(IPTFS), B(DIR) | B(LASTUSED) },
	{ "sadinfo", XFRM_MSG_NEWSADINFO, 0, 0 },
	{ "spdinfo", XFRM_MSG_NEWSPDINFO, 0, 0 },
};

/* What the messages are built from. */
struct xfrm_user_test {
	struct net net;		/* has no netlink socket */
	struct sk_buff *skb;	/* has room for any message */
	struct xfrm_state x, *iptfs;
	struct xfrm_policy xp;
	struct xfrm_tmpl tmpl;
	struct xfrm_selector sel;
	struct km_event c;
	struct xfrm_migrate m[XFRM_MAX_DEPTH];
	struct xfrm_user_migrate_state um;
	struct xfrm_user_offload xuo;
	void *alg;		/* all kinds of algorithms begin alike */
	struct xfrm_encap_tmpl encap;
	struct xfrm_replay_state_esn *esn;
	struct xfrm_sec_ctx *label;
	struct xfrm_kmaddress kma;
	xfrm_address_t addr;
};

static void fill(struct xfrm_user_test *t, unsigned long on)
{
	static const struct xfrm_mark mark = { .v = 1, .m = 1 }, no_mark;
	struct xfrm_policy *xp = &t->xp;
	struct xfrm_state *x = &t->x;

#define IF(opt, val)	((on & B(opt)) ? (val) : (typeof(val))0)
	x->aead = IF(AEAD, t->alg);
	x->aalg = IF(AUTH, t->alg);
	x->coaddr = IF(COADDR, &t->addr);
	x->calg = IF(COMP, t->alg);
	x->ealg = IF(CRYPT, t->alg);
	x->xso.dev = IF(DEV, init_net.loopback_dev);
	x->dir = IF(DIR, XFRM_SA_DIR_IN);
	x->encap = IF(ENCAP, &t->encap);
	x->replay_esn = IF(ESN, t->esn);
	x->props.extra_flags = IF(EXTRA_FLAGS, 1);
	x->if_id = IF(IF_ID, 1);
	x->mode_cbs = IF(IPTFS, t->iptfs->mode_cbs);
	x->mode_data = IF(IPTFS, t->iptfs->mode_data);
	x->nat_keepalive_interval = IF(KEEPALIVE, 1);
	x->lastused = IF(LASTUSED, 1);
	x->mark = (on & B(MARK)) ? mark : no_mark;
	x->mapping_maxage = IF(MAXAGE, 1);
	x->pcpu_num = (on & B(PCPU)) ? 0 : UINT_MAX;
	x->security = IF(SEC_CTX, t->label);
	x->props.smark = (on & B(SET_MARK)) ? mark : no_mark;
	x->tfcpad = IF(TFCPAD, 1);
	t->c.data.aevent = IF(ETIMER, XFRM_AE_ETHR) | IF(RTHRESH, XFRM_AE_RTHR);

	xp->xdo.dev = x->xso.dev;
	xp->if_id = x->if_id;
	xp->mark = x->mark;
	xp->security = x->security;
	xp->xfrm_nr = IF(TMPL, XFRM_MAX_DEPTH);

	t->m[0].xuo = IF(DEV, &t->xuo);
	t->m[0].encap = x->encap;
	t->m[0].nat_keepalive_interval = x->nat_keepalive_interval;
	t->m[0].new_mark = IF(MARK, &mark);
	t->m[0].mapping_maxage = x->mapping_maxage;
	t->m[0].new_sel = &t->sel;
	t->m[0].smark = x->props.smark;
#undef IF
}

/* Build a message. *@size is what its size function returns. */
static int build(struct xfrm_user_test *t, unsigned int type, unsigned long on,
		 unsigned int *size)
{
	struct xfrm_kmaddress *kma = (on & B(KMADDRESS)) ? &t->kma : NULL;
	int num_migrate = (on & B(ENTRIES)) ? XFRM_MAX_DEPTH : 1;
	struct xfrm_policy *xp = &t->xp;
	struct xfrm_state *x = &t->x;
	struct sk_buff *skb = t->skb;
	struct nlmsghdr *nlh;

	switch (type) {
	case XFRM_MSG_ACQUIRE:
		*size = xfrm_acquire_msgsize(x, xp);
		return build_acquire(skb, x, &t->tmpl, xp);
	case XFRM_MSG_EXPIRE:
		*size = xfrm_expire_msgsize();
		return build_expire(skb, x, &t->c);
	case XFRM_MSG_MAPPING:
		*size = xfrm_mapping_msgsize();
		return build_mapping(skb, x, &t->addr, 0);
	case XFRM_MSG_MIGRATE:
		*size = xfrm_migrate_msgsize(num_migrate, !!kma, !!x->encap);
		return build_migrate(skb, t->m, num_migrate, kma, &t->sel, x->encap,
				     XFRM_POLICY_OUT, XFRM_POLICY_TYPE_MAIN);
	case XFRM_MSG_MIGRATE_STATE:
		*size = xfrm_migrate_state_msgsize(t->m, x->dir);
		return build_migrate_state(skb, &t->um, t->m, x->dir, 0, 0);
	case XFRM_MSG_NEWAE:
		*size = xfrm_aevent_msgsize(x);
		return build_aevent(skb, x, &t->c);
	case XFRM_MSG_NEWSA:
		*size = NLMSG_ALIGN(sizeof(struct xfrm_usersa_info)) + xfrm_sa_len(x);
		nlh = nlmsg_put(skb, 0, 0, type, sizeof(struct xfrm_usersa_info), 0);
		return copy_to_user_state_extra(x, nlmsg_data(nlh), skb);
	case XFRM_MSG_NEWSADINFO:
		*size = xfrm_sadinfo_msgsize();
		return build_sadinfo(skb, &init_net, 0, 0, 0);
	case XFRM_MSG_NEWSPDINFO:
		*size = xfrm_spdinfo_msgsize();
		return build_spdinfo(skb, &init_net, 0, 0, 0);
	case XFRM_MSG_POLEXPIRE:
		*size = xfrm_polexpire_msgsize(xp);
		return build_polexpire(skb, xp, XFRM_POLICY_OUT, &t->c);
	case XFRM_MSG_REPORT:
		*size = xfrm_report_msgsize();
		return build_report(skb, IPPROTO_DSTOPTS, &t->sel, x->coaddr);
	}
	return -EINVAL;
}

KUNIT_DEFINE_ACTION_WRAPPER(put_state, xfrm_state_put, struct xfrm_state *);

static void get_iptfs(struct kunit *test, struct xfrm_user_test *t)
{
	struct nlattr *attrs[XFRMA_MAX + 1] = {}, dont_frag;
	struct xfrm_state *x = xfrm_state_alloc(&init_net);

	KUNIT_ASSERT_NOT_NULL(test, x);
	x->km.state = XFRM_STATE_DEAD;
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, put_state, x), 0);
	x->id.proto = IPPROTO_ESP;
	x->props.family = AF_INET;
	x->props.mode = XFRM_MODE_IPTFS;
	x->sel.family = AF_INET;
	x->geniv = "seqiv";
	x->aead = kzalloc(sizeof(*x->aead) + 20, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, x->aead);
	strscpy(x->aead->alg_name, "rfc4106(gcm(aes))");
	x->aead->alg_key_len = 160;
	x->aead->alg_icv_len = 128;
	KUNIT_ASSERT_EQ(test, __xfrm_init_state(x, NULL), 0);
	KUNIT_ASSERT_NOT_NULL(test, x->mode_cbs);
	attrs[XFRMA_IPTFS_DONT_FRAG] = &dont_frag;
	KUNIT_ASSERT_EQ(test, x->mode_cbs->user_init(&init_net, x, attrs, NULL), 0);
	t->iptfs = x;
}

static void msg_fits(struct kunit *test)
{
	const struct xfrm_user_msg *msg = test->param_value;
	struct xfrm_user_test *t = test->priv;
	unsigned long on = 0, worst = 0;
	int missing = 0, opt;
	unsigned int size;
	char opts[128] = "";

	if (msg->always & B(IPTFS)) {
		if (!IS_ENABLED(CONFIG_XFRM_IPTFS))
			kunit_skip(test, "needs CONFIG_XFRM_IPTFS");
		get_iptfs(test, t);
	}

	do {
		fill(t, msg->always | on);
		skb_trim(t->skb, 0);
		KUNIT_ASSERT_EQ(test, build(t, msg->type, on, &size), 0);
		if ((int)t->skb->len - nlmsg_total_size(size) > missing) {
			missing = t->skb->len - nlmsg_total_size(size);
			worst = on;
		}
		/* the next subset */
		on = (on - msg->optional) & msg->optional;
	} while (on);

	for_each_set_bit(opt, &worst, OPT_MAX)
		strlcat(opts, opt_names[opt], sizeof(opts));
	KUNIT_EXPECT_EQ_MSG(test, missing, 0, "bytes not counted, options:%s", opts);
}

/*
 * xfrm_notify_sa() and xfrm_notify_policy() count and build in one function.
 * A label that grows uses up the excess of the rounded skb.  -EPIPE means that
 * the message was built, because there is no socket to send it.
 */
static void notify_fits(struct kunit *test)
{
	struct xfrm_user_test *t = test->priv;
	static const u32 events[] = {
		XFRM_MSG_NEWSA, XFRM_MSG_DELSA, XFRM_MSG_NEWPOLICY, XFRM_MSG_DELPOLICY,
	};
	int i, err;

	fill(t, SA_OPTS | POLICY_OPTS);

	for (i = 0; i < ARRAY_SIZE(events) * LABEL_MAX; i += 4) {
		t->c.event = events[i / LABEL_MAX];
		t->label->ctx_len = i % LABEL_MAX;
		t->xp.xfrm_nr = i / 4 % (XFRM_MAX_DEPTH + 1);

		rcu_read_lock();
		if (i < 2 * LABEL_MAX)
			err = xfrm_send_state_notify(&t->x, &t->c);
		else
			err = xfrm_send_policy_notify(&t->xp, XFRM_POLICY_OUT, &t->c);
		rcu_read_unlock();
		KUNIT_ASSERT_EQ_MSG(test, err, -EPIPE, "event %#x, label %u, templates %u",
				    t->c.event, t->label->ctx_len, t->xp.xfrm_nr);
	}
}

static int xfrm_user_test_init(struct kunit *test)
{
	struct xfrm_user_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, t);
	test->priv = t;
	write_pnet(&t->x.xs_net, &t->net);
	write_pnet(&t->xp.xp_net, &t->net);
	t->alg = kunit_kzalloc(test, sizeof(struct xfrm_algo_auth) + 5, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t->alg);
	((struct xfrm_algo *)t->alg)->alg_key_len = 33;
	t->esn = kunit_kzalloc(test, struct_size(t->esn, bmp, 3), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t->esn);
	t->esn->bmp_len = 3;
	t->label = kunit_kzalloc(test, sizeof(*t->label) + LABEL_MAX, GFP_KERNEL);
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
