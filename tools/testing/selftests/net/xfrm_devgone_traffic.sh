#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC2016,SC2034,SC2154,SC2317,SC2329
#
# A network device with IPsec packet offload leaves: what becomes of the packets
# that its policies protected, blocked or let pass. xfrm_devgone.sh has what the
# key manager hears.
#
# Verifies that:
# - test_out_*: what an out policy protected does not leave in clear: not by
#   another device with a route to the peer, not by the same one when it is up
#   again. Sockets get EPERM, XfrmOutPolBlock counts. IPv4 and IPv6, transport
#   and tunnel mode.
# - test_forwarded_*: nor does what is forwarded.
# - test_in_*: plain packets that an in policy does not accept are not accepted
#   when the device is no longer there to check: by another device, by the same
#   one when it is up again. XfrmInPolBlock counts.
# - test_fwd_*: nor are they forwarded when a fwd policy does not accept them.
# - test_block: what an offloaded policy blocked stays blocked.
# - test_bypass: what an offloaded policy let pass still passes.
# - test_crypto: with crypto offload the policy is in software and keeps
#   protecting when the SA is gone.
# - test_socket_*: a connected socket that holds a route through the device
#   (and through the policy, killed or not) does not delay its removal. As long
#   as the policy is there, the next datagram does not leave in clear. Catches
#   "unregister_netdevice: waiting for ... to become free".
# - test_bystanders: traffic of a software SA goes on.

source xfrm_devgone_lib.sh

ALL_TESTS="
	test_out_down
	test_out_del_port
	test_out_del_device
	test_out_move
	test_out_updown
	test_forwarded_del_device
	test_forwarded_move
	test_forwarded_updown
	test_in_del_device
	test_in_move
	test_in_updown
	test_fwd_del_device
	test_fwd_move
	test_fwd_updown
	test_block
	test_bypass
	test_crypto
	test_socket_idle
	test_socket_killed
	test_bystanders
"

# updown: the way by DEV is there again, else the other one remains.
leave()
{
	if [ "$1" = updown ]; then
		depart down
		dev_up
		peer_route dev
		WAY=("${BY_DEV[@]}")
		BACK=(10.0.0.1 fd00::1)
	else
		depart "$1"
		WAY=("${BY_VETH[@]}")
		BACK=(10.0.1.1 fd01::1)
	fi
}

# check_clear NS FAMILY BEFORE N: since BEFORE, N datagrams got to NS
check_clear()
{
	local n

	n=$(($(received "$1" "$2") - $3))
	[ "$n" -eq "$4" ]
	check_err $? "$n packets got through in clear instead of $4"
}

# check_blocked NAME BEFORE
check_blocked()
{
	local n

	n=$(($(xfrm_stat "$NSA" "$1") - $2))
	[ "$n" -eq "$PACKETS" ]
	check_err $? "$1 counted $n instead of $PACKETS"
}

check_refused()
{
	[ "$1" -eq "$PACKETS" ]
	check_err $? "$1 of $PACKETS packets refused with EPERM"
}

check_encrypted()
{
	local n

	n=$(nsim_counter "$NSIM" tx_encrypted)
	[ "$n" -eq "$1" ]
	check_err $? "the device encrypted $n packets instead of $1"
}

# Pair 1 in transport mode, pair 2 in tunnel mode
pair_of()
{
	[ "$1" = transport ] && echo 1 || echo 2
}

out()
{
	local how=$1; shift
	local family mode pair clear blocked eperm what

	RET=0
	setup_topology || return
	settle "$NSA" "${BY_DEV[@]}" "${BY_VETH[@]}"
	for family in 4 6; do
		for mode in transport tunnel; do
			pair=$(pair_of "$mode")
			sa_offload packet "0x10$family$pair" out "$mode" \
				"$family" "$pair"
			pol_offload out "$mode" "$family" "$pair"
		done
	done
	for family in 4 6; do
		clear=$(received "$NSB" "$family")
		for pair in 1 2; do
			udp_send "$NSA" "$(addr "$family" "$pair" 2)" >/dev/null
		done
		settle "$NSA" "${BY_DEV[@]}"
		check_clear "$NSB" "$family" "$clear" 0
	done
	check_encrypted $((4 * PACKETS))
	leave "$how"
	setup_done || return

	for family in 4 6; do
		for mode in transport tunnel; do
			RET=0
			pair=$(pair_of "$mode")
			clear=$(received "$NSB" "$family")
			blocked=$(xfrm_stat "$NSA" XfrmOutPolBlock)
			eperm=$(udp_send "$NSA" "$(addr "$family" "$pair" 2)")
			settle "$NSA" "${WAY[@]}"
			check_clear "$NSB" "$family" "$clear" 0
			check_blocked XfrmOutPolBlock "$blocked"
			check_refused "$eperm"
			what="$how: IPv$family, $mode, out"
			log_test "$what: nothing leaves in clear"
		done
	done
}

test_out_down()
{
	out down
}

test_out_del_port()
{
	out del_port
}

test_out_del_device()
{
	out del_device
}

test_out_move()
{
	out move
}

test_out_updown()
{
	out updown
}

forwarded()
{
	local how=$1; shift
	local family clear blocked what

	RET=0
	setup_topology || return
	settle "$NSC" "${BY_DEV[@]}" "${BY_VETH[@]}"
	for family in 4 6; do
		sa_offload packet "0x10$family"3 out tunnel "$family" 3
		pol_offload out tunnel "$family" 3
		clear=$(received "$NSB" "$family")
		udp_send "$NSC" "$(addr "$family" 3 2)" >/dev/null
		settle "$NSC" "${BY_DEV[@]}"
		check_clear "$NSB" "$family" "$clear" 0
	done
	check_encrypted $((2 * PACKETS))
	leave "$how"
	setup_done || return

	for family in 4 6; do
		RET=0
		clear=$(received "$NSB" "$family")
		blocked=$(xfrm_stat "$NSA" XfrmOutPolBlock)
		udp_send "$NSC" "$(addr "$family" 3 2)" >/dev/null
		settle "$NSC" "${WAY[@]}"
		check_clear "$NSB" "$family" "$clear" 0
		check_blocked XfrmOutPolBlock "$blocked"
		what="$how: IPv$family, tunnel, forwarded"
		log_test "$what: nothing leaves in clear"
	done
}

test_forwarded_del_device()
{
	forwarded del_device
}

test_forwarded_move()
{
	forwarded move
}

test_forwarded_updown()
{
	forwarded updown
}

# plain HOW DIR MODE...: plain packets from NSB, before there is a policy
# and after its device has left
plain()
{
	local how=$1; shift
	local dir=$1; shift
	local family mode pair clear blocked ns what end=()

	RET=0
	setup_topology || return
	ns=$NSA
	if [ "$dir" = fwd ]; then
		ns=$NSC
		end=(10.0.2.2 fd02::2)
	fi
	settle "$NSB" 10.0.1.1 fd01::1 "${end[@]}"
	for family in 4 6; do
		for mode; do
			pair=3
			[ "$dir" = fwd ] || pair=$(pair_of "$mode")
			clear=$(received "$ns" "$family")
			udp_send "$NSB" "$(addr "$family" "$pair" 1)" >/dev/null
			settle "$NSB" 10.0.1.1 fd01::1 "${end[@]}"
			check_clear "$ns" "$family" "$clear" "$PACKETS"
			sa_offload packet "0x20$family$pair" in "$mode" \
				"$family" "$pair"
			pol_offload "$dir" "$mode" "$family" "$pair"
		done
	done
	leave "$how"
	settle "$NSB" "${BACK[@]}" "${end[@]}"
	setup_done || return

	for family in 4 6; do
		for mode; do
			RET=0
			pair=3
			[ "$dir" = fwd ] || pair=$(pair_of "$mode")
			clear=$(received "$ns" "$family")
			blocked=$(xfrm_stat "$NSA" XfrmInPolBlock)
			udp_send "$NSB" "$(addr "$family" "$pair" 1)" >/dev/null
			settle "$NSB" "${BACK[@]}" "${end[@]}"
			check_clear "$ns" "$family" "$clear" 0
			check_blocked XfrmInPolBlock "$blocked"
			what="$how: IPv$family, $mode, $dir"
			log_test "$what: no plain packet accepted"
		done
	done
}

test_in_del_device()
{
	plain del_device in transport tunnel
}

test_in_move()
{
	plain move in transport tunnel
}

test_in_updown()
{
	plain updown in transport tunnel
}

test_fwd_del_device()
{
	plain del_device fwd tunnel
}

test_fwd_move()
{
	plain move fwd tunnel
}

test_fwd_updown()
{
	plain updown fwd tunnel
}

test_block()
{
	local family clear blocked eperm

	RET=0
	setup_topology || return
	settle "$NSA" "${BY_DEV[@]}" "${BY_VETH[@]}"
	for family in 4 6; do
		pol_offload out none "$family" 1 action block
		pol_offload in none "$family" 2 action block
		pol_offload fwd none "$family" 3 action block
	done
	leave del_device
	settle "$NSB" "${BACK[@]}" 10.0.2.2 fd02::2
	for family in 4 6; do
		clear=$(received "$NSB" "$family")
		eperm=$(udp_send "$NSA" "$(addr "$family" 1 2)")
		settle "$NSA" "${WAY[@]}"
		check_clear "$NSB" "$family" "$clear" 0
		check_refused "$eperm"

		clear=$(received "$NSA" "$family")
		blocked=$(xfrm_stat "$NSA" XfrmInPolBlock)
		udp_send "$NSB" "$(addr "$family" 2 1)" >/dev/null
		settle "$NSB" "${BACK[@]}"
		check_clear "$NSA" "$family" "$clear" 0
		check_blocked XfrmInPolBlock "$blocked"

		clear=$(received "$NSC" "$family")
		blocked=$(xfrm_stat "$NSA" XfrmInPolBlock)
		udp_send "$NSB" "$(addr "$family" 3 1)" >/dev/null
		settle "$NSB" 10.0.2.2 fd02::2
		check_clear "$NSC" "$family" "$clear" 0
		check_blocked XfrmInPolBlock "$blocked"
	done
	log_test "what was blocked stays blocked"
}

test_bypass()
{
	local family clear

	RET=0
	setup_topology || return
	settle "$NSA" "${BY_DEV[@]}" "${BY_VETH[@]}"
	for family in 4 6; do
		pol_offload out none "$family" 1
	done
	leave del_device
	for family in 4 6; do
		clear=$(received "$NSB" "$family")
		udp_send "$NSA" "$(addr "$family" 1 2)" >/dev/null
		settle "$NSA" "${WAY[@]}"
		check_clear "$NSB" "$family" "$clear" "$PACKETS"
	done
	log_test "what could pass still passes"
}

test_crypto()
{
	local family clear n

	RET=0
	setup_topology || return
	settle "$NSA" "${BY_DEV[@]}" "${BY_VETH[@]}"
	n=$(xfrm_stat "$NSB" XfrmInNoStates)
	for family in 4 6; do
		sa_offload crypto "0x10$family"1 out transport "$family" 1
		pol add out transport "$family" 1
		udp_send "$NSA" "$(addr "$family" 1 2)" >/dev/null
	done
	settle "$NSA" "${BY_DEV[@]}"
	n=$(($(xfrm_stat "$NSB" XfrmInNoStates) - n))
	[ "$n" -eq $((2 * PACKETS)) ]
	check_err $? "$n packets came as ESP before instead of $((2 * PACKETS))"
	leave del_device
	for family in 4 6; do
		clear=$(received "$NSB" "$family")
		n=$(xfrm_stat "$NSA" XfrmOutNoStates)
		udp_send "$NSA" "$(addr "$family" 1 2)" >/dev/null
		settle "$NSA" "${WAY[@]}"
		check_clear "$NSB" "$family" "$clear" 0
		# More than one each, as connect() looks, too.
		n=$(($(xfrm_stat "$NSA" XfrmOutNoStates) - n))
		[ "$n" -ge "$PACKETS" ]
		check_err $? "XfrmOutNoStates counted $n for $PACKETS packets"
	done
	log_test "crypto offload: nothing leaves in clear"
}

##############################################################################
# A connected socket keeps its route.

# hold_start FAMILY: the second datagram when something comes through the fifo
hold_start()
{
	rm -f "$TMP/go"
	mkfifo "$TMP/go"
	LC_ALL=C ip netns exec "$NSA" bash -c '
		exec 3>"/dev/udp/$0/$1"
		echo x >&3
		echo ready
		read -r _ <"$2"
		echo x >&3
		echo over' "$(addr "$1" 1 2)" "$PORT" "$TMP/go" \
		>"$TMP/held" 2>&1 &
	HOLDER=$!
	defer kill_process "$HOLDER"
	busywait "$BUSYWAIT_TIMEOUT" grep -q ready "$TMP/held"
	check_err $? "the socket does not send"
}

hold_send()
{
	echo >"$TMP/go"
	busywait "$BUSYWAIT_TIMEOUT" grep -q over "$TMP/held"
	check_err $? "the socket does not send again"
}

# The kernel complains after 10 seconds.
waits_for_references()
{
	dmesg | grep -c 'unregister_netdevice: waiting for .* to become free'
}

held()
{
	local policy=$1; shift
	local family clear waits what

	for family in 4 6; do
		defer_scope_push
		RET=0
		setup_topology || { defer_scope_pop; return; }
		settle "$NSA" "${BY_DEV[@]}" "${BY_VETH[@]}"
		sa_offload packet "0x10$family"1 out transport "$family" 1
		pol_offload out transport "$family" 1
		hold_start "$family"
		check_encrypted 1
		[ "$policy" = idle ] || ip -n "$NSA" xfrm policy flush
		waits=$(waits_for_references)
		depart del_device
		[ "$(waits_for_references)" -eq "$waits" ]
		check_err $? "the removal waits for references to the device"
		check_nsim_balance
		what="$policy policy, idle socket"
		log_test "IPv$family: $what: the device is free"

		if [ "$policy" = idle ]; then
			RET=0
			clear=$(received "$NSB" "$family")
			hold_send
			settle "$NSA" "${BY_VETH[@]}"
			check_clear "$NSB" "$family" "$clear" 0
			grep -q 'not permitted' "$TMP/held"
			check_err $? "its datagram is not refused with EPERM"
			what="idle socket: nothing leaves in clear"
			log_test "IPv$family: $what"
		fi
		kill_process "$HOLDER"
		defer_scope_pop
	done
}

test_socket_idle()
{
	held idle
}

test_socket_killed()
{
	held killed
}

test_bystanders()
{
	local n

	RET=0
	setup_topology || return
	settle "$NSA" "${BY_DEV[@]}" "${BY_VETH[@]}"
	sa_offload packet 0x1041 out transport 4 1
	pol_offload out transport 4 1
	sa_add 0xb001 out transport 6 1
	pol add out transport 6 1
	depart del_device
	n=$(xfrm_stat "$NSB" XfrmInNoStates)
	udp_send "$NSA" "$(addr 6 1 2)" >/dev/null
	settle "$NSA" "${BY_VETH[@]}"
	n=$(($(xfrm_stat "$NSB" XfrmInNoStates) - n))
	[ "$n" -eq "$PACKETS" ]
	check_err $? "$n of $PACKETS packets of the software SA got out as ESP"
	log_test "a software SA goes on"
}

trap cleanup EXIT
require_features
tests_run
defer_scopes_cleanup

exit "$EXIT_STATUS"
