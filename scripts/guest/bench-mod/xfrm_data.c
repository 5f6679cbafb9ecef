// SPDX-License-Identifier: GPL-2.0
/* Sends and receives packets for scripts/lab/bench, in batches, and takes the CPU
 * time of nothing but that. Never installed anywhere.
 *
 * /sys/kernel/debug/xfrm_data: write "out BATCHES ADDRESS" for datagrams to
 * ADDRESS, or "in BATCHES ADDRESS SPI" for packets of the inbound SA, which come
 * in by the device b0 as its offload type has them: ESP for software, ESP that
 * the device has decrypted, plain. With "step" in front there is a breakpoint
 * before and after the last packet of each batch, for bench-step to count the
 * instructions between them. Read: packets, how many of them arrived at the socket, nanoseconds of all
 * and of the fastest batch.
 */
#include <linux/debugfs.h>
#include <linux/etherdevice.h>
#include <linux/inet.h>
#include <linux/ip.h>
#include <linux/module.h>
#include <linux/net.h>
#include <linux/netdevice.h>
#include <linux/seq_file.h>
#include <linux/udp.h>
#include <net/esp.h>
#include <net/ip.h>
#include <net/sock.h>
#include <net/xfrm.h>
#include "cputime.h"

#define BATCH	64
#define PORT	4000
#define DATA	64

static struct {
	unsigned int packets, arrived;
	u64 nsecs, fastest;
} m;

static struct dentry *file;
static char payload[DATA];

static struct socket *udp_socket(__be32 addr, bool sink)
{
	struct sockaddr_in sin = {
		.sin_family = AF_INET,
		.sin_port = htons(PORT),
	};
	struct socket *sock;
	int err;

	err = sock_create_kern(&init_net, AF_INET, SOCK_DGRAM, IPPROTO_UDP, &sock);
	if (err)
		return ERR_PTR(err);
	if (sink) {
		err = kernel_bind(sock, (struct sockaddr_unsized *)&sin, sizeof(sin));
	} else {
		sin.sin_addr.s_addr = addr;
		err = kernel_connect(sock, (struct sockaddr_unsized *)&sin,
				     sizeof(sin), 0);
	}
	if (err) {
		sock_release(sock);
		return ERR_PTR(err);
	}

	return sock;
}

static int send_one(struct socket *sock)
{
	struct kvec vec = { .iov_base = payload, .iov_len = sizeof(payload) };
	struct msghdr msg = { .msg_flags = MSG_DONTWAIT };

	return kernel_sendmsg(sock, &msg, &vec, 1, sizeof(payload));
}

static unsigned int drain(struct socket *sock)
{
	char data[DATA];
	unsigned int n = 0;
	int len;

	for (;;) {
		struct kvec vec = { .iov_base = data, .iov_len = sizeof(data) };
		struct msghdr msg = {};

		len = kernel_recvmsg(sock, &msg, &vec, 1, sizeof(data), MSG_DONTWAIT);
		if (len != DATA)
			return n;
		n++;
	}
}

static struct sk_buff *packet_in(struct net_device *dev, struct xfrm_state *x)
{
	bool crypto = x->xso.type == XFRM_DEV_OFFLOAD_CRYPTO;
	bool packet = x->xso.type == XFRM_DEV_OFFLOAD_PACKET;
	unsigned int iv = crypto ? 8 : 0, icv = crypto ? 16 : 0;
	struct sk_buff *skb;
	struct udphdr *uh;
	struct iphdr *iph;

	skb = alloc_skb(256 + NET_SKB_PAD, GFP_KERNEL);
	if (!skb)
		return NULL;
	skb_reserve(skb, NET_SKB_PAD + ETH_HLEN);
	skb_reset_mac_header(skb);
	skb_reset_network_header(skb);
	iph = skb_put_zero(skb, sizeof(*iph));
	if (!packet) {
		struct ip_esp_hdr *esph = skb_put_zero(skb, sizeof(*esph) + iv);

		esph->spi = x->id.spi;
		esph->seq_no = htonl(1);
	}
	uh = skb_put_zero(skb, sizeof(*uh));
	uh->source = htons(PORT);
	uh->dest = htons(PORT);
	uh->len = htons(sizeof(*uh) + DATA);
	skb_put_zero(skb, DATA);
	if (!packet) {
		/* Two bytes of padding, their number, the next header. */
		u8 *tail = skb_put_zero(skb, 4 + icv);

		tail[0] = 1;
		tail[1] = 2;
		tail[2] = 2;
		tail[3] = IPPROTO_UDP;
	}

	iph->version = 4;
	iph->ihl = 5;
	iph->ttl = 64;
	iph->protocol = packet ? IPPROTO_UDP : IPPROTO_ESP;
	iph->saddr = x->props.saddr.a4;
	iph->daddr = x->id.daddr.a4;
	iph->tot_len = htons(skb->len);
	ip_send_check(iph);

	skb->protocol = htons(ETH_P_IP);
	skb->pkt_type = PACKET_HOST;
	skb->dev = dev;
	if (crypto || packet) {
		struct sec_path *sp = secpath_set(skb);
		struct xfrm_offload *xo;

		if (!sp) {
			kfree_skb(skb);
			return NULL;
		}
		xfrm_state_hold(x);
		sp->xvec[sp->len++] = x;
		sp->olen++;
		xo = xfrm_offload(skb);
		xo->flags = CRYPTO_DONE;
		xo->status = CRYPTO_SUCCESS;
	}

	return skb;
}

static __always_inline void mark(bool step)
{
	if (step)
		asm volatile("int3");
}

static void took(u64 from)
{
	u64 nsecs = cputime() - from;

	m.packets += BATCH;
	m.nsecs += nsecs;
	m.fastest = min(m.fastest, nsecs);
}

static int run_out(unsigned int batches, __be32 addr, bool step)
{
	struct socket *sock;
	int err = 0, i;
	u64 from;

	sock = udp_socket(addr, false);
	if (IS_ERR(sock))
		return PTR_ERR(sock);
	/* The route, the bundle and the neighbour. */
	for (i = 0; i < BATCH; i++)
		send_one(sock);
	while (batches-- && err >= 0) {
		cond_resched();
		from = cputime();
		for (i = 0; i < BATCH - 1; i++)
			send_one(sock);
		mark(step);
		err = send_one(sock);
		mark(step);
		took(from);
	}
	sock_release(sock);

	return err < 0 ? err : 0;
}

static int run_in(unsigned int batches, __be32 addr, __be32 spi, bool step)
{
	static struct sk_buff *skbs[BATCH];
	struct net_device *dev;
	struct xfrm_state *x;
	struct socket *sock;
	bool first = true;
	int err = 0, i;
	u64 from;

	dev = dev_get_by_name(&init_net, "b0");
	if (!dev)
		return -ENODEV;
	x = xfrm_state_lookup(&init_net, 0, (xfrm_address_t *)&addr, spi,
			      IPPROTO_ESP, AF_INET);
	if (!x) {
		dev_put(dev);
		return -ESRCH;
	}
	sock = udp_socket(0, true);
	if (IS_ERR(sock)) {
		err = PTR_ERR(sock);
		goto out;
	}
	while (batches) {
		for (i = 0; i < BATCH; i++) {
			skbs[i] = packet_in(dev, x);
			if (!skbs[i]) {
				while (i--)
					kfree_skb(skbs[i]);
				err = -ENOMEM;
				goto release;
			}
		}
		cond_resched();
		local_bh_disable();
		from = cputime();
		for (i = 0; i < BATCH - 1; i++)
			netif_receive_skb(skbs[i]);
		mark(step && !first);
		netif_receive_skb(skbs[i]);
		mark(step && !first);
		if (!first)
			took(from);
		local_bh_enable();
		i = drain(sock);
		if (!first) {
			m.arrived += i;
			batches--;
		}
		first = false;
	}
release:
	sock_release(sock);
out:
	xfrm_state_put(x);
	dev_put(dev);

	return err;
}

static ssize_t data_write(struct file *fp, const char __user *ubuf,
			  size_t count, loff_t *ppos)
{
	unsigned int batches, spi;
	char buf[80], addr[16], *p;
	bool step;
	int err;

	if (count >= sizeof(buf))
		return -EINVAL;
	if (copy_from_user(buf, ubuf, count))
		return -EFAULT;
	buf[count] = 0;

	memset(&m, 0, sizeof(m));
	m.fastest = U64_MAX;
	p = buf;
	step = !strncmp(p, "step ", 5);
	if (step)
		p += 5;
	if (sscanf(p, "out %u %15s", &batches, addr) == 2)
		err = run_out(batches, in_aton(addr), step);
	else if (sscanf(p, "in %u %15s %x", &batches, addr, &spi) == 3)
		err = run_in(batches, in_aton(addr), htonl(spi), step);
	else
		err = -EINVAL;

	return err ?: count;
}

static int data_show(struct seq_file *s, void *unused)
{
	seq_printf(s, "packets %u\narrived %u\nnsecs %llu\nfastest %llu\n",
		   m.packets, m.arrived, m.nsecs, m.fastest);

	return 0;
}

static int data_open(struct inode *inode, struct file *fp)
{
	return single_open(fp, data_show, NULL);
}

static const struct file_operations data_fops = {
	.owner		= THIS_MODULE,
	.open		= data_open,
	.read		= seq_read,
	.write		= data_write,
	.llseek		= seq_lseek,
	.release	= single_release,
};

static int __init data_init(void)
{
	file = debugfs_create_file("xfrm_data", 0600, NULL, NULL, &data_fops);

	return 0;
}

static void __exit data_exit(void)
{
	debugfs_remove(file);
}

module_init(data_init);
module_exit(data_exit);
MODULE_DESCRIPTION("Takes the time of packets that IPsec transforms");
MODULE_LICENSE("GPL");
