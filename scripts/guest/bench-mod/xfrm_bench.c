// SPDX-License-Identifier: GPL-2.0
/* What scripts/lab/bench measures inside a guest while a device is removed: how long
 * RTNL is held, how long the notifiers take, for how long no softirq could run,
 * and which expiries the kernel sends. Never installed anywhere.
 *
 * /sys/kernel/debug/xfrm_bench: write "start DEVICE", remove the device, write
 * "stop", read the values.
 */
#include <linux/debugfs.h>
#include <linux/hrtimer.h>
#include <linux/interrupt.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/netdevice.h>
#include <linux/rtnetlink.h>
#include <linux/seq_file.h>
#include <linux/wait.h>
#include <net/xfrm.h>
#include "cputime.h"

#define PROBE_NSECS	(500 * NSEC_PER_USEC)

/* Before the removal, while it holds RTNL, afterwards. */
enum phase { BEFORE, RTNL, AFTER, PHASES };

static struct {
	char dev[IFNAMSIZ];
	enum phase phase;
	ktime_t rtnl_from, rtnl_to;
	u64 rtnl_cpu;
	ktime_t chain_from;
	s64 chain;
	u64 last_gap;
	u64 bh_off[PHASES];
	atomic_t states, policies;
	ktime_t first_expire, last_expire;
} m;

static bool running;
static struct hrtimer probe;
static struct task_struct *waiter;
static DECLARE_WAIT_QUEUE_HEAD(rtnl_wait);
static bool rtnl_taken;
static struct dentry *file;

/* A softirq could run now. */
static void gap(void)
{
	u64 now = cputime();

	m.bh_off[m.phase] = max(m.bh_off[m.phase], now - m.last_gap);
	m.last_gap = now;
}

static void probe_softirq(struct tasklet_struct *t)
{
	gap();
}

static DECLARE_TASKLET(probe_tasklet, probe_softirq);

static enum hrtimer_restart probe_tick(struct hrtimer *timer)
{
	if (softirq_count())
		tasklet_hi_schedule(&probe_tasklet);
	else
		gap();
	hrtimer_forward_now(timer, ns_to_ktime(PROBE_NSECS));

	return HRTIMER_RESTART;
}

/* Gets RTNL when the removal gives it back. */
static int rtnl_waiter(void *unused)
{
	for (;;) {
		wait_event_idle(rtnl_wait, rtnl_taken || kthread_should_stop());
		if (kthread_should_stop())
			break;
		rtnl_taken = false;
		rtnl_lock();
		m.rtnl_to = ktime_get();
		m.rtnl_cpu = cputime() - m.rtnl_cpu;
		m.phase = AFTER;
		rtnl_unlock();
	}

	return 0;
}

static bool is_ours(void *ptr)
{
	return running &&
	       !strcmp(netdev_name(netdev_notifier_info_to_dev(ptr)), m.dev);
}

static int first_event(struct notifier_block *nb, unsigned long event, void *ptr)
{
	if (!is_ours(ptr))
		return NOTIFY_DONE;

	m.chain_from = ktime_get();
	if (!m.rtnl_from) {
		m.rtnl_from = m.chain_from;
		m.rtnl_cpu = cputime();
		m.phase = RTNL;
		rtnl_taken = true;
		wake_up(&rtnl_wait);
	}

	return NOTIFY_DONE;
}

static int last_event(struct notifier_block *nb, unsigned long event, void *ptr)
{
	if (is_ours(ptr) && m.chain_from)
		m.chain += ktime_to_ns(ktime_sub(ktime_get(), m.chain_from));

	return NOTIFY_DONE;
}

static struct notifier_block first_notifier = {
	.notifier_call	= first_event,
	.priority	= INT_MAX,
};

static struct notifier_block last_notifier = {
	.notifier_call	= last_event,
	.priority	= INT_MIN,
};

static void sent(atomic_t *n)
{
	ktime_t now = ktime_get();

	if (!m.first_expire)
		m.first_expire = now;
	m.last_expire = now;
	atomic_inc(n);
}

static int km_notify(struct xfrm_state *x, const struct km_event *c)
{
	if (running && c->event == XFRM_MSG_EXPIRE && c->data.hard)
		sent(&m.states);

	return 0;
}

static int km_notify_policy(struct xfrm_policy *pol, int dir,
			    const struct km_event *c)
{
	if (running && c->event == XFRM_MSG_POLEXPIRE && c->data.hard)
		sent(&m.policies);

	return 0;
}

static int km_acquire(struct xfrm_state *x, struct xfrm_tmpl *tmpl,
		      struct xfrm_policy *pol)
{
	return -EINVAL;
}

static struct xfrm_policy *km_compile_policy(struct sock *sk, int opt, u8 *data,
					     int len, int *dir)
{
	*dir = -EINVAL;

	return NULL;
}

/* Hears what every key manager is told, without a buffer that overruns. */
static struct xfrm_mgr mgr = {
	.notify		= km_notify,
	.notify_policy	= km_notify_policy,
	.acquire	= km_acquire,
	.compile_policy	= km_compile_policy,
};

static void bench_stop(void)
{
	if (!running)
		return;
	hrtimer_cancel(&probe);
	tasklet_kill(&probe_tasklet);
	running = false;
}

static ssize_t bench_write(struct file *fp, const char __user *ubuf,
			   size_t count, loff_t *ppos)
{
	char buf[64], *arg;

	if (count >= sizeof(buf))
		return -EINVAL;
	if (copy_from_user(buf, ubuf, count))
		return -EFAULT;
	buf[count] = 0;
	arg = strim(buf);

	bench_stop();
	if (!strncmp(arg, "start ", 6)) {
		memset(&m, 0, sizeof(m));
		strscpy(m.dev, arg + 6, sizeof(m.dev));
		m.last_gap = cputime();
		running = true;
		hrtimer_start(&probe, ns_to_ktime(PROBE_NSECS),
			      HRTIMER_MODE_REL_HARD);
	} else if (strcmp(arg, "stop")) {
		return -EINVAL;
	}

	return count;
}

static s64 since(ktime_t to)
{
	return to ? ktime_us_delta(to, m.rtnl_from) : -1;
}

static int bench_show(struct seq_file *s, void *unused)
{
	seq_printf(s, "rtnl_us %lld\n", m.rtnl_from ? since(m.rtnl_to) : -1);
	seq_printf(s, "rtnl_cpu_us %llu\n", m.rtnl_to ? m.rtnl_cpu / NSEC_PER_USEC : 0);
	seq_printf(s, "notifiers_us %lld\n", m.chain / NSEC_PER_USEC);
	seq_printf(s, "bhoff_before_us %llu\n", m.bh_off[BEFORE] / NSEC_PER_USEC);
	seq_printf(s, "bhoff_rtnl_us %llu\n", m.bh_off[RTNL] / NSEC_PER_USEC);
	seq_printf(s, "bhoff_after_us %llu\n", m.bh_off[AFTER] / NSEC_PER_USEC);
	seq_printf(s, "sent_states %d\n", atomic_read(&m.states));
	seq_printf(s, "sent_policies %d\n", atomic_read(&m.policies));
	seq_printf(s, "first_expire_us %lld\n", since(m.first_expire));
	seq_printf(s, "last_expire_us %lld\n", since(m.last_expire));

	return 0;
}

static int bench_open(struct inode *inode, struct file *fp)
{
	return single_open(fp, bench_show, NULL);
}

static const struct file_operations bench_fops = {
	.owner		= THIS_MODULE,
	.open		= bench_open,
	.read		= seq_read,
	.write		= bench_write,
	.llseek		= seq_lseek,
	.release	= single_release,
};

static int __init bench_init(void)
{
	hrtimer_setup(&probe, probe_tick, CLOCK_MONOTONIC, HRTIMER_MODE_REL_HARD);
	waiter = kthread_run(rtnl_waiter, NULL, "xfrm_bench");
	if (IS_ERR(waiter))
		return PTR_ERR(waiter);
	sched_set_fifo(waiter);
	xfrm_register_km(&mgr);
	register_netdevice_notifier(&first_notifier);
	register_netdevice_notifier(&last_notifier);
	file = debugfs_create_file("xfrm_bench", 0600, NULL, NULL, &bench_fops);

	return 0;
}

static void __exit bench_exit(void)
{
	debugfs_remove(file);
	bench_stop();
	unregister_netdevice_notifier(&last_notifier);
	unregister_netdevice_notifier(&first_notifier);
	xfrm_unregister_km(&mgr);
	kthread_stop(waiter);
}

module_init(bench_init);
module_exit(bench_exit);
MODULE_DESCRIPTION("Measures what the removal of a device with IPsec offload takes");
MODULE_LICENSE("GPL");
