#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC1091,SC2016,SC2034,SC2154,SC2317,SC2329
#
# States with crypto offload expire when their device goes away. A netdevsim is
# the device, and the route by dummy0 is there when it is gone.

source lib.sh

ALL_TESTS="test_down test_removed test_moved test_bond test_grace"

DST=10.0.0.2
ALG=(aead 'rfc4106(gcm(aes))' 0x3132333435363738393031323334353664636261 128)
ID=$((2048 + RANDOM))
DEV=nsim$ID
# No state expires sooner, in ms.
GRACE=500

EVENTS=$(mktemp)
PFKEY=$(mktemp)

# sa SPI REQID [ARGS...]
sa()
{
	local spi=$1 reqid=$2; shift 2

	ip -n "$NS" xfrm state add src 10.0.0.1 dst "$DST" proto esp \
		spi "$spi" reqid "$reqid" mode transport "${ALG[@]}" "$@"
}

# A software SA, and a device for others. The monitor hears of all of them.
setup()
{
	local pol="xfrm policy add src 10.0.0.1 dst"
	local tmpl="dir out tmpl proto esp mode transport"

	RET=0
	setup_ns NS OTHER
	defer cleanup_ns "$NS" "$OTHER"
	ip netns exec "$NS" sysctl -qw net.ipv6.conf.default.disable_ipv6=1
	create_netdevsim "$ID" "$NS" >/dev/null
	defer cleanup_netdevsim "$ID"
	ip -n "$NS" -batch - <<-EOT && DST=10.0.0.3 sa 0x2001 2
		link add dummy0 type dummy
		link set dummy0 up
		addr add 10.0.0.1/32 dev lo
		neigh add 10.0.0.2 lladdr 02:00:00:00:00:02 dev $DEV
		route add 10.0.0.2/32 dev $DEV src 10.0.0.1
		route add 10.0.0.0/24 dev dummy0 src 10.0.0.1
		$pol 10.0.0.2 $tmpl reqid 1
		$pol 10.0.0.3 $tmpl reqid 2
	EOT
	check_err $? "cannot set up $DEV and a software SA"
	ip -n "$NS" -o -s xfrm monitor acquire expire >"$EVENTS" &
	defer kill_process $!
	busywait "$BUSYWAIT_TIMEOUT" ip netns exec "$NS" awk -v "pid=$!" '
		$2 == 6 && $3 == pid { found = 1 }
		END { exit !found }' /proc/net/netlink
	check_err $? "the monitor does not listen"
}

# SADB_REGISTER for ESP, then SPI and packets of each hard SADB_EXPIRE
pfkey()
{
	ip netns exec "$NS" python3 -uc '
import socket, struct
sk = socket.socket(socket.AF_KEY, socket.SOCK_RAW, 2)
sk.send(struct.pack("=BBBBHHII", 2, 7, 0, 3, 2, 0, 0, 0))
while True:
    msg = sk.recv(8192)
    if msg[1] == 7:
        print("ready")
    if msg[1] != 8:
        continue
    ext, pos = {}, 16
    while pos < len(msg):
        size, kind = struct.unpack_from("=HH", msg, pos)
        ext[kind] = msg[pos + 4:pos + 8]
        pos += size * 8
    if 3 in ext:
        print("0x%s %u" % (ext[1].hex(), struct.unpack("=I", ext[2])[0]))
' >"$PFKEY"
}

# udp ADDRESS
udp()
{
	ip netns exec "$NS" bash -c 'echo x >"/dev/udp/$0/4000"' "$1" \
		2>/dev/null
}

only_software()
{
	ip -n "$NS" xfrm state count | grep -q ' 1$'
}

# No signal ends a removal that hangs, and it keeps locks: report it and exit.
depart()
{
	START=$(timestamp_ms)
	"$@" &
	if ! slowwait "$WAIT_TIMEOUT" eval '! kill -0 $! 2>/dev/null'; then
		check_err 1 "$* hangs, the rest is not run"
		log_test "${FUNCNAME[1]}"
		trap - EXIT
		exit "$EXIT_STATUS"
	fi
	wait $!
	check_err $? "$* failed"
}

# heard SPI PACKETS
heard()
{
	grep -c "^Expired .* spi $1(.* $2(packets).*hard 1" "$EVENTS"
}

# check_expired SPI PACKETS...: these and no others, once. The last to expire is
# a software SA that is added when none of them is left.
check_expired()
{
	local total=$(($# / 2)) n took

	busywait "$BUSYWAIT_TIMEOUT" only_software
	check_err $? "SAs are left"
	took=$(($(timestamp_ms) - START))
	sa 0x9999 9 limit time-hard 1
	busywait "$BUSYWAIT_TIMEOUT" heard 0x00009999 0 >/dev/null
	check_err $? "a software SA did not expire"
	n=$(grep -c ^Expired "$EVENTS")
	[ "$n" -eq $((total + 1)) ]
	check_err $? "$((n - 1)) expiries instead of $total"
	[ "$took" -ge "$GRACE" ]
	check_err $? "the SAs are gone after $took ms"
	while [ $# -gt 0 ]; do
		n=$(heard "$1" "$2")
		[ "$n" -eq 1 ]
		check_err $? "$n hard expiries of $1 with $2 packets"
		shift 2
	done
}

# check_sent N: packets that have left by dummy0
check_sent()
{
	local n

	n=$(ip netns exec "$NS" cat /sys/class/net/dummy0/statistics/tx_packets)
	[ "$n" -eq "$1" ]
	check_err $? "$n packets have left by dummy0 instead of $1"
}

# gone NAME CMD...: CMD lets the device go away
gone()
{
	local name=$1; shift

	sa 0x1001 1 offload dev "$DEV" dir out &&
		sa 0x1002 8 offload dev "$DEV" dir in
	check_err $? "cannot add SAs"
	udp 10.0.0.2
	depart "$@"
	check_expired 0x00001001 1 0x00001002 0
	udp 10.0.0.2
	udp 10.0.0.3
	check_sent 1
	ip -n "$NS" -s xfrm state | grep -A 20 0x00002001 |
		grep -q ' 1(packets)'
	check_err $? "the software SA is not used"
	log_test "$name"
}

test_down()
{
	setup
	pfkey &
	defer kill_process $!
	# which looks for a module of each algorithm
	busywait $((6 * BUSYWAIT_TIMEOUT)) grep -q ready "$PFKEY"
	check_err $? "nobody listens to PF_KEY"
	gone "device goes down" ip -n "$NS" link set "$DEV" down
	busywait "$BUSYWAIT_TIMEOUT" grep -q 0x00009999 "$PFKEY"
	[ "$(sort "$PFKEY" | xargs)" = \
		"0x00001001 1 0x00001002 0 0x00009999 0 ready" ]
	check_err $? "not one SADB_EXPIRE for each SA"
	log_test "device goes down: PF_KEY"
}

test_removed()
{
	setup
	gone "device is removed" cleanup_netdevsim "$ID"
}

test_moved()
{
	setup
	gone "device moves to another netns" \
		ip -n "$NS" link set "$DEV" netns "$OTHER"
}

test_bond()
{
	setup
	ip -n "$NS" -batch - <<-EOT
		link add bond0 type bond mode active-backup
		link set $DEV down
		link set $DEV master bond0
		link set bond0 up
	EOT
	sa 0x1001 1 offload dev bond0 dir out
	check_err $? "cannot add an SA"
	ip -n "$NS" link set "$DEV" down
	only_software
	check_fail $? "the SA of the bond goes with its port"
	depart ip -n "$NS" link del bond0
	check_expired 0x00001001 0
	log_test "bond is removed"
}

# What has to be done before the expiry is done by few processes.
test_grace()
{
	local said took

	setup
	sa 0x1001 1 offload dev "$DEV" dir out
	check_err $? "cannot add an SA"
	START=$(timestamp_ms)
	said=$(ip netns exec "$NS" bash -c 'ip -force -batch - 2>&1
		echo x >/dev/udp/10.0.0.2/4000' 2>/dev/null <<-EOT
		link set $DEV down
		xfrm state get src 10.0.0.1 dst $DST proto esp spi 0x1001
	EOT
	)
	took=$(($(timestamp_ms) - START))
	check_sent 0
	grep -q '^src 10.0.0.1' <<<"$said"
	check_err $? "XFRM_MSG_GETSA does not find the SA"
	awk '/^acquire/ { exit 1 } /^Expired/ { exit }' "$EVENTS"
	check_fail $? "no acquire before the expiry"
	if ((RET && took >= GRACE)) && [ "$(heard 0x00001001 0)" -gt 0 ]; then
		log_test_skip "until a state expires" "took $took ms"
		return
	fi
	busywait "$BUSYWAIT_TIMEOUT" heard 0x00001001 0 >/dev/null
	check_err $? "no expiry"
	log_test "until a state expires"
}

trap 'defer_scopes_cleanup; rm -f "$EVENTS" "$PFKEY"' EXIT
[ "$(id -u)" -eq 0 ] || { log_test_skip "need root"; exit "$EXIT_STATUS"; }
require_command python3
tests_run
exit "$EXIT_STATUS"
