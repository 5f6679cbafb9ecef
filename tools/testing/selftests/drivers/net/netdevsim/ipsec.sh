#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC1091,SC2016,SC2034,SC2154,SC2317,SC2329
#
# IPsec offload of netdevsim, crypto and packet, as debugfs shows it: ipsec has
# the SAs and policies, ipsec_counters what became of the packets, ipsec_max_sa
# the limit, ipsec_fail_sa and ipsec_fail_policy refuse what is added.
#
# Verifies that:
# - test_sa_*: SAs of both kinds, families, modes and directions get into the
#   table and leave it; two do not share a slot. Catches a driver that mixes up
#   directions, or takes an SA of one kind for the other.
# - test_limit: at the limit an SA is refused, and fits after another has left.
#   Catches slots that are not given back, and a limit that is off by one.
# - test_fail_sa, test_fail_policy: what the device refuses is not in the SAD or
#   SPD, and leaves no reference to the device, which can be removed. Catches
#   error paths that keep half of it.
# - test_unsupported: other ciphers and tags are refused. Catches a fallback to
#   something that is not what was asked for.
# - test_policies: policies in, out and fwd are in the table by priority.
#   Catches a device that asks a policy of lower priority first.
# - test_tx, test_rx: packets are encrypted, dropped or passed by the first
#   policy that matches, and counted. Catches clear text.
# - test_crypto_tx: packets of crypto offloaded SAs are counted.
# - test_stats: the stack gets the counters of an SA, each packet once. Catches
#   counters that start again or are added twice.
# - test_larval: a larval SA is in the table and does not encrypt.
# In all of them the driver finds its tables empty at the end. A callback that
# is missing, or is called twice, makes it complain in the kernel log.

lib_dir=$(dirname "$0")
source "$lib_dir"/../../../net/lib.sh

ALL_TESTS="
	test_sa_crypto
	test_sa_packet
	test_limit
	test_fail_sa
	test_fail_policy
	test_unsupported
	test_policies
	test_tx
	test_rx
	test_crypto_tx
	test_stats
	test_larval
"

NSIM_BUS=/sys/bus/netdevsim
NSIM_ID=$((512 + RANDOM % 256))
while [ -d "$NSIM_BUS/devices/netdevsim$NSIM_ID" ] ||
      [ -d "$NSIM_BUS/devices/netdevsim$((NSIM_ID + 256))" ]; do
	NSIM_ID=$((NSIM_ID + 1))
done
NSIM_PEER_ID=$((NSIM_ID + 256))
DEV=nsim$NSIM_ID
PEER=nsim$NSIM_PEER_ID
DDIR=/sys/kernel/debug/netdevsim/netdevsim$NSIM_ID/ports/0
ALG=(aead 'rfc4106(gcm(aes))' 0x3132333435363738393031323334353664636261 128)
PORT=4000
TMP=$(mktemp)

cleanup()
{
	defer_scopes_cleanup
	cleanup_all_ns
	rm -f "$TMP"
	check_stuck "clean-up"
	((EXIT_STATUS != ksft_fail)) || exit "$ksft_fail"
}

skip_all()
{
	log_test_skip "$1"
	exit "$EXIT_STATUS"
}

nsim_del()
{
	echo "$1" >"$NSIM_BUS/del_device"
}

# Somebody else may use it by now, that is no failure.
unload()
{
	modprobe -q -r netdevsim || :
}

# nsim_destroy ID [HOW]
nsim_destroy()
{
	if [ -d "$NSIM_BUS/devices/netdevsim$1" ]; then
		"${2:-in_time}" "removal of netdevsim $1" nsim_del "$1"
	fi
}

complaints()
{
	dmesg | grep -cE -e 'tearing down IPsec offload with' \
		-e 'Invalid (SA|policy) for'
}

# setup [4]: IPv4 only, for what IPv6 sends by itself is counted as clear
setup()
{
	local no_ipv6=net.ipv6.conf.default.disable_ipv6=1

	check_stuck
	setup_ns NS
	defer cleanup_ns "$NS"
	if [ "$1" = 4 ]; then
		ip netns exec "$NS" sysctl -qw "$no_ipv6"
	fi
	create_netdevsim "$NSIM_ID" "$NS" >/dev/null
	defer nsim_destroy "$NSIM_ID" cleanup_in_time
	ip -n "$NS" -batch - <<-EOF
		addr add 192.0.2.1/24 dev $DEV
		neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev $DEV
		neigh add 192.0.2.3 lladdr 02:00:00:00:00:02 dev $DEV
	EOF
	check_err $? "cannot set up $DEV"
	[ "$1" = 4 ] || ip -n "$NS" -batch - <<-EOF
		addr add 2001:db8::1/64 dev $DEV nodad
		neigh add 2001:db8::2 lladdr 02:00:00:00:00:02 dev $DEV
	EOF
	check_err $? "cannot set up $DEV for IPv6"
	COMPLAINTS=$(complaints)
}

# Nothing is left when the device goes.
teardown()
{
	local kind n

	ip -n "$NS" xfrm state flush
	ip -n "$NS" xfrm policy flush
	check_table 0 0
	for kind in sa pol; do
		n=$(counter "${kind}_added")
		busywait "$BUSYWAIT_TIMEOUT" counter_is "${kind}_freed" "$n"
		check_counters "${kind}_deleted" "$n" "${kind}_freed" "$n"
	done
	nsim_destroy "$NSIM_ID"
	[ "$(complaints)" -eq "$COMPLAINTS" ]
	check_err $? "the driver complains, see the kernel log"
}

# addrs FAMILY DIR
addrs()
{
	local near=192.0.2.1 far=192.0.2.2

	[ "$1" -eq 4 ] || near=2001:db8::1 far=2001:db8::2
	if [ "$2" = out ]; then
		echo "src $near dst $far"
	else
		echo "src $far dst $near"
	fi
}

# sa SPI DIR MODE FAMILY TYPE [ARGS...]
sa()
{
	local spi=$1; shift
	local dir=$1; shift
	local mode=$1; shift
	local family=$1; shift
	local type=$1; shift
	local -a ends

	read -ra ends < <(addrs "$family" "$dir")
	ip -n "$NS" xfrm state add "${ends[@]}" proto esp spi "$spi" reqid 42 \
		mode "$mode" "${ALG[@]}" offload "$type" dev "$DEV" \
		dir "$dir" "$@"
}

# pol COMMAND DIR FAMILY TEMPLATE [ARGS...]: TEMPLATE is a mode or none. SEL is
# more of the selector.
SEL=()
pol()
{
	local command=$1; shift
	local dir=$1; shift
	local family=$1; shift
	local mode=$1; shift
	local -a ends tmpl=()

	read -ra ends < <(addrs "$family" "$dir")
	if [ "$mode" != none ]; then
		tmpl=(tmpl "${ends[@]}" proto esp reqid 42 mode "$mode")
	fi
	ip -n "$NS" xfrm policy "$command" "${ends[@]}" "${SEL[@]}" dir "$dir" \
		"$@" "${tmpl[@]}"
}

# check_table SAS POLICIES
check_table()
{
	local sas policies

	sas=$(sed -n 's/^SA count=\([0-9]*\) .*/\1/p' "$DDIR/ipsec")
	policies=$(grep -c '^pol' "$DDIR/ipsec")
	[ "$sas $policies" = "$1 $2" ]
	check_err $? "$sas SAs and $policies policies instead of $1 and $2"
	[ "$(grep -c 'spi=' "$DDIR/ipsec")" -eq "$1" ]
	check_err $? "the number of SAs is not that of the entries"
}

# check_shown REGEX
check_shown()
{
	grep -qE "$1" "$DDIR/ipsec"
	check_err $? "debugfs does not show $1"
}

counter()
{
	awk -v "name=$1" '$1 == name { print $2 }' "$DDIR/ipsec_counters"
}

counter_is()
{
	[ "$(counter "$1")" -eq "$2" ]
}

# check_counters NAME N...
check_counters()
{
	local now

	while [ $# -gt 0 ]; do
		now=$(counter "$1")
		[ "$now" -eq "$2" ]
		check_err $? "$1 is $now instead of $2"
		shift 2
	done
}

# udp NS FAMILY COUNT [ADDRESS]
udp()
{
	local to=192.0.2.2

	[ "$2" -eq 4 ] || to=2001:db8::2
	ip netns exec "$1" bash -c '
		for ((i = 0; i < $2; i++)); do
			echo x >"/dev/udp/$0/$1"
		done' "${4:-$to}" "$PORT" "$3" 2>/dev/null
}

sas()
{
	local type=$1; shift
	local dir mode family spi=0x1000 rx to shown

	RET=0
	setup
	for family in 4 6; do
		for mode in transport tunnel; do
			for dir in out in; do
				spi=$(printf '0x%08x' $((spi + 1)))
				sa "$spi" "$dir" "$mode" "$family" "$type"
				check_err $? "$type SA: $dir, $mode, IPv$family"
				[ "$dir" = out ] && rx=t || rx=r
				to=$(addrs "$family" "$dir")
				check_shown "${rx}x ipaddr=${to##* }\$"
				shown="salt=0x[0-9a-f]{8} crypt=1"
				check_shown "spi=$spi proto=0x32 $shown"
			done
		done
	done
	check_table 8 0
	if [ "$type" = packet ]; then
		[ "$(grep -c 'packet reqid=42 larval=0' "$DDIR/ipsec")" -eq 8 ]
		check_err $? "not all SAs are shown as packet offloaded"
	else
		grep -q 'packet reqid' "$DDIR/ipsec"
		check_fail $? "a crypto SA is shown as packet offloaded"
	fi
	[ "$(ip -n "$NS" xfrm state list | grep -c "dev $DEV")" -eq 8 ]
	check_err $? "not all SAs have the device"

	ip -n "$NS" xfrm state delete src 192.0.2.1 dst 192.0.2.2 proto esp \
		spi 0x1001
	check_err $? "cannot delete an SA"
	check_table 7 0
	grep -q 'spi=0x00001001' "$DDIR/ipsec"
	check_fail $? "the deleted SA is still shown"
	sa 0x1001 out transport 4 "$type"
	check_err $? "cannot add an SA again"
	check_table 8 0
	teardown
	log_test "$type: SAs are added and deleted"
}

test_sa_crypto()
{
	sas crypto
}

test_sa_packet()
{
	sas packet
}

test_limit()
{
	RET=0
	setup
	[ "$(cat "$DDIR/ipsec_max_sa")" -eq 33 ]
	check_err $? "the limit is not 33"
	echo 2 >"$DDIR/ipsec_max_sa"
	sa 0x1001 out transport 4 crypto
	check_err $? "cannot add the first SA"
	sa 0x1002 in transport 4 packet
	check_err $? "cannot add the second SA"
	sa 0x1003 in transport 6 packet 2>"$TMP"
	check_fail $? "an SA above the limit is added"
	grep -q 'No space' "$TMP"
	check_err $? "no reason is given"
	check_table 2 0
	[ "$(ip -n "$NS" xfrm state list | grep -c ^src)" -eq 2 ]
	check_err $? "the refused SA is in the SAD"
	ip -n "$NS" xfrm state delete src 192.0.2.1 dst 192.0.2.2 proto esp \
		spi 0x1001
	sa 0x1003 in transport 6 packet
	check_err $? "no room after a deletion"
	echo 3 >"$DDIR/ipsec_max_sa"
	sa 0x1001 out transport 4 crypto
	check_err $? "no room with a higher limit"
	check_table 3 0
	teardown
	log_test "limit of SAs"
}

test_fail_sa()
{
	local type

	RET=0
	setup
	echo Y >"$DDIR/ipsec_fail_sa"
	for type in crypto packet; do
		sa 0x1001 out transport 4 "$type" 2>"$TMP"
		check_fail $? "a $type SA is added"
		grep -q 'on demand' "$TMP"
		check_err $? "no reason is given"
		sa 0x1002 in tunnel 6 "$type" 2>/dev/null
		check_fail $? "a $type SA is added"
	done
	check_table 0 0
	[ -z "$(ip -n "$NS" xfrm state list)" ]
	check_err $? "a refused SA is in the SAD"
	pol add out 4 transport offload packet dev "$DEV"
	check_err $? "policies are refused, too"
	echo N >"$DDIR/ipsec_fail_sa"
	sa 0x1001 out transport 4 packet
	check_err $? "cannot add an SA any more"
	check_table 1 1
	echo Y >"$DDIR/ipsec_fail_sa"
	teardown
	log_test "SAs fail on demand"
}

test_fail_policy()
{
	local dir

	RET=0
	setup
	echo Y >"$DDIR/ipsec_fail_policy"
	for dir in out in fwd; do
		pol add "$dir" 4 transport offload packet dev "$DEV" 2>"$TMP"
		check_fail $? "a policy $dir is added"
		grep -q 'on demand' "$TMP"
		check_err $? "no reason is given"
	done
	check_table 0 0
	[ -z "$(ip -n "$NS" xfrm policy list)" ]
	check_err $? "a refused policy is in the SPD"
	sa 0x1001 out transport 4 packet
	check_err $? "SAs are refused, too"
	echo N >"$DDIR/ipsec_fail_policy"
	pol add out 4 transport offload packet dev "$DEV"
	check_err $? "cannot add a policy any more"
	echo Y >"$DDIR/ipsec_fail_policy"
	pol update out 4 none action block offload packet dev "$DEV" 2>/dev/null
	check_fail $? "a policy is updated"
	check_table 1 1
	check_shown '^pol\[0\] out prio=0 action=encrypt reqid=42$'
	teardown
	log_test "policies fail on demand"
}

test_unsupported()
{
	local id="src 192.0.2.1 dst 192.0.2.2 proto esp spi 0x1001"
	local type offload
	local key=0x31323334353637383930313233343536

	RET=0
	setup
	for type in crypto packet; do
		offload="mode transport offload $type dev $DEV dir out"
		# shellcheck disable=SC2086
		ip -n "$NS" xfrm state add $id enc 'cbc(aes)' "$key" \
			auth-trunc 'hmac(sha256)' "$key" 128 \
			$offload 2>"$TMP"
		check_fail $? "$type: cbc(aes) is taken"
		grep -q 'Failed to get key data' "$TMP"
		check_err $? "$type: cbc(aes): wrong reason"
		# shellcheck disable=SC2086
		ip -n "$NS" xfrm state add $id aead 'rfc4106(gcm(aes))' \
			"${ALG[2]}" 64 $offload 2>"$TMP"
		check_fail $? "$type: 64 bit authentication is taken"
		grep -q 'Failed to get key data' "$TMP"
		check_err $? "$type: 64 bit authentication: wrong reason"
	done
	check_table 0 0
	teardown
	log_test "unsupported SAs are refused"
}

test_policies()
{
	local n

	RET=0
	setup
	pol add out 4 transport priority 30 offload packet dev "$DEV"
	check_err $? "cannot add an out policy"
	pol add in 4 tunnel priority 10 offload packet dev "$DEV"
	check_err $? "cannot add an in policy"
	pol add fwd 6 tunnel priority 20 offload packet dev "$DEV"
	check_err $? "cannot add a fwd policy"
	pol add out 6 none priority 5 action block offload packet dev "$DEV"
	check_err $? "cannot add a block policy"
	pol add in 6 none priority 40 offload packet dev "$DEV"
	check_err $? "cannot add a bypass policy"
	grep ^pol "$DDIR/ipsec" >"$TMP"
	diff "$TMP" - <<-EOF
		pol[0] out prio=5 action=block reqid=0
		pol[1] in prio=10 action=encrypt reqid=42
		pol[2] fwd prio=20 action=encrypt reqid=42
		pol[3] out prio=30 action=encrypt reqid=42
		pol[4] in prio=40 action=bypass reqid=0
	EOF
	check_err $? "not the policies that were added, by priority"
	n=$(ip -n "$NS" xfrm policy list |
		grep -c "offload parameters: dev $DEV mode packet")
	[ "$n" -eq 5 ]
	check_err $? "$n instead of 5 policies have the device"

	pol add fwd 6 tunnel priority 20 offload packet dev "$DEV" 2>/dev/null
	check_fail $? "the same policy is added twice"
	check_table 0 5
	pol delete fwd 6 none
	check_err $? "cannot delete a policy"
	check_table 0 4
	pol update out 4 none priority 1 action block offload packet dev "$DEV"
	check_err $? "cannot update a policy"
	check_table 0 4
	check_shown '^pol\[0\] out prio=1 action=block'
	pol update out 4 none priority 1 action block
	check_err $? "cannot take a policy back into software"
	check_table 0 3
	teardown
	log_test "policies in, out and fwd"
}

test_tx()
{
	RET=0
	setup 4
	udp "$NS" 4 3
	check_counters tx_encrypted 0 tx_clear 0 tx_dropped 0
	sa 0x1041 out transport 4 packet
	pol add out 4 transport priority 2 offload packet dev "$DEV"
	udp "$NS" 4 3
	check_counters tx_encrypted 3 tx_clear 0 tx_dropped 0
	udp "$NS" 4 5 192.0.2.3
	check_counters tx_encrypted 3 tx_clear 5 tx_dropped 0
	# Of packet offloaded policies the stack takes the one with an exact
	# selector first, the device goes by priority.
	ip -n "$NS" xfrm policy add dst 192.0.2.2 proto udp dport "$PORT" \
		dir out priority 1 action block offload packet dev "$DEV"
	udp "$NS" 4 4
	check_counters tx_encrypted 3 tx_clear 5 tx_dropped 4 rx_dropped 0
	teardown
	log_test "IPv4 packets are encrypted, passed or dropped"

	RET=0
	setup
	sa 0x1061 out tunnel 6 packet
	pol add out 6 tunnel priority 2 offload packet dev "$DEV"
	udp "$NS" 6 4
	check_counters tx_encrypted 4 tx_dropped 0
	ip -n "$NS" xfrm policy add dst 2001:db8::2 proto udp dport "$PORT" \
		dir out priority 1 action block offload packet dev "$DEV"
	udp "$NS" 6 3
	check_counters tx_encrypted 4 tx_dropped 3
	teardown
	log_test "IPv6 packets are encrypted or dropped"
}

test_rx()
{
	local a b i j

	RET=0
	setup
	setup_ns NSB
	defer cleanup_ns "$NSB"
	create_netdevsim "$NSIM_PEER_ID" "$NSB" >/dev/null
	defer nsim_destroy "$NSIM_PEER_ID" cleanup_in_time
	ip -n "$NSB" -batch - <<-EOF
		addr add 192.0.2.2/24 dev $PEER
		addr add 2001:db8::2/64 dev $PEER nodad
		neigh add 192.0.2.1 lladdr $(cat_mac "$NS" "$DEV") dev $PEER
		neigh add 2001:db8::1 lladdr $(cat_mac "$NS" "$DEV") dev $PEER
	EOF
	check_err $? "cannot set up $PEER"
	i=$(ip netns exec "$NS" cat "/sys/class/net/$DEV/ifindex")
	j=$(ip netns exec "$NSB" cat "/sys/class/net/$PEER/ifindex")
	exec {a}<"/var/run/netns/$NS" {b}<"/var/run/netns/$NSB"
	echo "$a:$i $b:$j" >"$NSIM_BUS/link_device" || check_err 1 "cannot link"
	exec {a}<&- {b}<&-

	SEL=(proto udp dport "$PORT")
	pol add in 4 none action block offload packet dev "$DEV"
	pol add fwd 6 none action block offload packet dev "$DEV"
	udp "$NSB" 4 3 192.0.2.1
	check_counters rx_dropped 3
	udp "$NSB" 6 4 2001:db8::1
	check_counters rx_dropped 7
	ip -n "$NS" xfrm policy flush
	pol add in 4 transport offload packet dev "$DEV"
	udp "$NSB" 4 2 192.0.2.1
	check_counters rx_dropped 9
	ip -n "$NS" xfrm policy flush
	pol add in 4 none offload packet dev "$DEV"
	SEL=()
	udp "$NSB" 4 5 192.0.2.1
	busywait "$BUSYWAIT_TIMEOUT" received 5
	check_err $? "not all of 5 packets are received"
	check_counters rx_dropped 9 tx_encrypted 0 tx_dropped 0
	teardown
	log_test "plain packets are dropped or received"
}

# received N: datagrams for which there is no socket, as there is none
received()
{
	local n

	n=$(ip netns exec "$NS" awk '
		/^Udp:/ { n = $3 } END { print n }' /proc/net/snmp)
	[ "$n" -eq "$1" ]
}

cat_mac()
{
	ip netns exec "$1" cat "/sys/class/net/$2/address"
}

test_crypto_tx()
{
	RET=0
	setup
	sa 0x1041 out transport 4 crypto
	sa 0x1061 out tunnel 6 crypto
	pol add out 4 transport
	pol add out 6 tunnel
	udp "$NS" 4 3
	check_shown '^SA count=2 tx=3$'
	udp "$NS" 6 4
	check_shown '^SA count=2 tx=7$'
	check_counters tx_encrypted 0 tx_clear 0 tx_dropped 0
	teardown
	log_test "crypto offloaded packets are counted"
}

# stats SPI: packets, as the stack tells
stats()
{
	ip -n "$NS" -s xfrm state get src 192.0.2.1 dst 192.0.2.2 proto esp \
		spi "$1" | sed -n \
		'/lifetime current/,$ s/.*, \([0-9]*\)(packets).*/\1/p'
}

test_stats()
{
	local n

	RET=0
	setup
	sa 0x1041 out transport 4 packet
	pol add out 4 transport offload packet dev "$DEV"
	udp "$NS" 4 3
	n=$(stats 0x1041)
	[ "$n" -eq 3 ]
	check_err $? "$n packets instead of 3"
	n=$(stats 0x1041)
	[ "$n" -eq 3 ]
	check_err $? "asked again: $n packets instead of 3"
	udp "$NS" 4 2
	n=$(stats 0x1041)
	[ "$n" -eq 5 ]
	check_err $? "$n packets instead of 5"
	teardown
	log_test "the stack gets the counters"
}

acquires()
{
	ip netns exec "$NS" awk -v "pid=$1" '
		$2 == 6 && $3 == pid { found = 1 }
		END { exit !found }' /proc/net/netlink
}

test_larval()
{
	RET=0
	setup 4
	ip -n "$NS" xfrm monitor acquire >/dev/null &
	defer kill_process $!
	busywait "$BUSYWAIT_TIMEOUT" acquires $!
	check_err $? "the monitor does not listen"
	pol add out 4 transport offload packet dev "$DEV"
	udp "$NS" 4 3
	check_table 1 1
	check_shown 'packet reqid=42 larval=1'
	check_counters tx_encrypted 0 tx_clear 0
	teardown
	log_test "a larval SA"
}

trap cleanup EXIT

[ "$(id -u)" -eq 0 ] || skip_all "need root"
ip xfrm state help 2>&1 | grep -q 'crypto *| *packet' ||
	skip_all "iproute2 too old, no packet offload"
if [ ! -w "$NSIM_BUS/new_device" ]; then
	modprobe -q netdevsim || skip_all "no netdevsim"
	defer cleanup_in_time "modprobe -r" unload
fi
if [ ! -d /sys/kernel/debug/netdevsim ]; then
	mount -t debugfs none /sys/kernel/debug || skip_all "no debugfs"
	defer umount /sys/kernel/debug
fi
defer_scope_push
setup
[ -d "$NSIM_BUS/devices/netdevsim$NSIM_ID" ] || {
	log_test "set-up"
	exit "$EXIT_STATUS"
}
[ -e "$DDIR/ipsec" ] || skip_all "kernel without ESP offload"
[ -e "$DDIR/ipsec_fail_policy" ] || skip_all "no packet offload"
defer_scope_pop

tests_run
defer_scopes_cleanup

exit "$EXIT_STATUS"
