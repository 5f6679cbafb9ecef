#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC1091,SC2016,SC2034,SC2154,SC2317,SC2329
#
# IPsec offload of netdevsim. Tests of the stack rely on the device to refuse,
# count, drop and complain.

source "$(dirname "$0")/../../../net/xfrm_nsim_lib.sh"

ALL_TESTS="
	test_states
	test_states_refused
	test_policies
	test_tx
	test_larval
	test_hold
"

ENDS=(src 192.0.2.1 dst 192.0.2.2)
TMPL=(tmpl "${ENDS[@]}" proto esp reqid 42 mode transport)

# A device, without IPv6, which sends by itself
setup()
{
	RET=0
	setup_ns NS
	defer cleanup_ns "$NS"
	ip netns exec "$NS" sysctl -qw net.ipv6.conf.default.disable_ipv6=1
	nsim_create ID "$NS"
	DEV=nsim$ID
	ip -n "$NS" -batch - <<-EOT
		addr add 192.0.2.1/24 dev $DEV
		neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev $DEV
		neigh add 192.0.2.3 lladdr 02:00:00:00:00:02 dev $DEV
	EOT
	check_err $? "cannot set up $DEV"
}

# finish NAME: what is left is deleted, and the device goes without a complaint
finish()
{
	ip -n "$NS" xfrm state flush
	ip -n "$NS" xfrm policy flush
	check_nsim_table "$ID" 0 0
	check_nsim_released "$ID" busywait "$BUSYWAIT_TIMEOUT"
	in_time "removal of $DEV" nsim_del "$ID"
	check_nsim_errors
	log_test "$1"
}

# sa SPI DIR TYPE [ALGORITHM...]
sa()
{
	local spi=$1 dir=$2 type=$3; shift 3

	[ $# -gt 0 ] || set -- "${IPSEC_ALG[@]}"
	ip -n "$NS" xfrm state add "${ENDS[@]}" proto esp spi "$spi" reqid 42 \
		mode transport "$@" offload "$type" dev "$DEV" dir "$dir"
}

# pol COMMAND DIR PRIORITY [ARGS...]
pol()
{
	local command=$1 dir=$2 priority=$3; shift 3

	ip -n "$NS" xfrm policy "$command" "${ENDS[@]}" dir "$dir" \
		priority "$priority" offload packet dev "$DEV" "$@"
}

# udp N [ADDRESS]
udp()
{
	ip netns exec "$NS" bash -c 'for ((i = 0; i < $0; i++)); do
		echo x >"/dev/udp/$1/4000"; done' "$1" "${2:-192.0.2.2}"
}

# check_shown LINE...: debugfs has them in this order, and no more
check_shown()
{
	diff <(grep -v '^SA\|key=' "$(nsim_file "$ID" ipsec)") \
		<(printf '%s\n' "$@")
	check_err $? "debugfs shows something else"
}

test_states()
{
	setup
	sa 0x1001 out crypto && sa 0x1002 in packet
	check_err $? "cannot add SAs"
	check_shown "sa[0] tx ipaddr=192.0.2.2" \
		"sa[0]    spi=0x00001001 proto=0x32 salt=0x61626364 crypt=1" \
		"sa[1] rx ipaddr=192.0.2.2" \
		"sa[1]    spi=0x00001002 proto=0x32 salt=0x61626364 crypt=1" \
		"sa[1]    packet reqid=42 larval=0"
	ip -n "$NS" xfrm state delete "${ENDS[@]}" proto esp spi 0x1001
	check_err $? "cannot delete an SA"
	check_nsim_table "$ID" 1 0
	finish "SAs are added and deleted"
}

test_states_refused()
{
	setup
	echo 1 >"$(nsim_file "$ID" ipsec_max_sa)"
	sa 0x1001 out crypto
	check_err $? "cannot add an SA below the limit"
	sa 0x1002 in packet 2>/dev/null
	check_fail $? "an SA above the limit is added"
	echo 2 >"$(nsim_file "$ID" ipsec_max_sa)"
	sa 0x1002 in packet enc 'cbc(aes)' "0x$(printf %032d 0)" 2>/dev/null
	check_fail $? "cbc(aes) is taken"
	check_nsim_counter "$ID" sa_added 1
	sa 0x1002 in packet
	check_err $? "cannot add an SA below the new limit"
	finish "SAs are refused"
}

test_policies()
{
	setup
	pol add out 30 "${TMPL[@]}" && pol add in 10 action block &&
		pol add fwd 20
	check_err $? "cannot add policies"
	pol update out 30 "${TMPL[@]}" "${TMPL[@]}" 2>/dev/null
	check_fail $? "a policy with two templates is added"
	check_shown "pol[0] out prio=30 action=encrypt reqid=42" \
		"pol[1] in prio=10 action=block reqid=0" \
		"pol[2] fwd prio=20 action=bypass reqid=0"
	pol update in 10 "${TMPL[@]}"
	check_err $? "cannot update a policy"
	ip -n "$NS" xfrm policy delete "${ENDS[@]}" dir fwd
	check_shown "pol[0] out prio=30 action=encrypt reqid=42" \
		"pol[1] in prio=10 action=encrypt reqid=42"
	finish "policies are added, updated and deleted"
}

test_tx()
{
	setup
	nsim_create PEER "$NS"
	nsim_link "$NS" "$ID" "$NS" "$PEER"
	sa 0x1001 out packet
	pol add out 2 "${TMPL[@]}"
	udp 3
	# The stack takes the policy with the exact selector, the device goes
	# by priority.
	ip -n "$NS" xfrm policy add dst 192.0.2.2 proto udp dport 4000 dir out \
		priority 1 action block offload packet dev "$DEV"
	udp 4
	udp 2 192.0.2.3
	busywait "$BUSYWAIT_TIMEOUT" until_counter_is "== 2" \
		ip netns exec "$NS" \
		cat "/sys/class/net/nsim$PEER/statistics/rx_packets" >/dev/null
	check_err $? "not only what no policy protects or blocks is received"
	check_nsim_counter "$ID" tx_encrypted 3
	for _ in first second; do
		ip -n "$NS" -s xfrm state | grep -q ' 3(packets)'
		check_err $? "not 3 packets in the counters of the stack"
	done
	finish "packets are encrypted, dropped or passed"
}

test_larval()
{
	setup
	ip -n "$NS" xfrm monitor acquire >/dev/null &
	defer kill_process $!
	monitor_listens "$NS" $!
	pol add out 2 "${TMPL[@]}"
	echo Y >"$(nsim_file "$ID" ipsec_hold)"
	udp 1
	grep -q 'packet reqid=42 larval=1' "$(nsim_file "$ID" ipsec)"
	check_err $? "no larval SA"
	finish "a larval SA is added"
}

test_hold()
{
	local pid

	setup
	echo Y >"$(nsim_file "$ID" ipsec_hold)"
	sa 0x1001 out packet &
	pid=$!
	busywait "$BUSYWAIT_TIMEOUT" until_counter_is "== 1" \
		nsim_counter "$ID" sa_added >/dev/null
	check_err $? "the SA does not get to the driver"
	busywait 100 process_gone "$pid"
	check_fail $? "the driver returns"
	echo N >"$(nsim_file "$ID" ipsec_hold)"
	in_time "the add" tail --pid="$pid" -f /dev/null
	wait "$pid"
	check_err $? "the add failed"
	finish "an add is held in the driver"
}

trap defer_scopes_cleanup EXIT
nsim_require_ipsec
tests_run

exit "$EXIT_STATUS"
