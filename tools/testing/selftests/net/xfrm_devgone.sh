#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC2034,SC2154,SC2317,SC2329
#
# A network device that offloads IPsec leaves: what becomes of its states and
# policies, and what the key manager hears of it. xfrm_devgone_traffic.sh has
# what becomes of the packets.
#
# Verifies that:
# - test_crypto_*, test_packet_*: when the device goes down, is removed (its
#   port, itself, the module) or moves to another netns, each state offloaded
#   to it expires with exactly one message, hard 1, and is gone; each policy is
#   announced with exactly one, loses the device, stays and blocks; the driver
#   is left with nothing. Catches a kernel that deletes them and tells nobody,
#   tells twice, or calls the driver too often or not at all.
# - test_down_then_removed: the second departure finds nothing left to tell.
#   Catches an unlink that is not idempotent (NETDEV_UNREGISTER is repeated).
# - test_counters: the last counters of the device are in the message. Catches
#   an unlink that drops the device before it has asked for them.
# - test_larval: a larval state that waits for the key manager expires, too.
# - test_many: hundreds of states and policies are told once each, and those
#   who listen can keep up.
# - test_block, test_bypass: a policy that blocked goes on doing so, in
#   software; one that only let packets pass goes away, for it would lock out
#   the key manager. Each is told once.
# - test_kept_*: for the key manager a kept policy has expired: NEWPOLICY
#   replaces it (once: the new one is like any other), UPDPOLICY, DELPOLICY and
#   FLUSHPOLICY work; exact and prefix selectors have tables of their own.
# - test_lifetime: the hard lifetime of a kept policy does not delete the block
#   or tell again; a soft one is told as before.
# - test_bystanders: states and policies in software, of another device and of
#   another netns stay as they are. Catches a flush that is too broad.
# - test_reuse: the device takes the same states and policies again after it
#   was down. Catches a handle, table entry or SPI that is left behind.
# - test_moved: in its new netns the device has nothing from the old one and
#   takes new states.
# - test_bond_*: states belong to the bond. They expire when it is removed or
#   goes down, not when a slave goes down, leaves or is removed: then they move
#   to the other slave.
# - test_netns_*: a netns that exits with offloaded states and policies is gone
#   in time, and so are others after it; also when its device belongs to another
#   netns and goes back to init_net, or was set down right before, with
#   expiries under way. Catches leaked references and timers that outlive the
#   netns.

source xfrm_devgone_lib.sh

ALL_TESTS="
	test_crypto_down
	test_crypto_del_port
	test_crypto_del_device
	test_crypto_move
	test_crypto_rmmod
	test_packet_down
	test_packet_del_port
	test_packet_del_device
	test_packet_move
	test_packet_rmmod
	test_down_then_removed
	test_counters
	test_larval
	test_many
	test_block
	test_bypass
	test_kept_new
	test_kept_update
	test_kept_delete
	test_kept_flush
	test_lifetime
	test_bystanders
	test_reuse
	test_moved
	test_bond_removed
	test_bond_down
	test_bond_slave_down
	test_bond_slave_leaves
	test_bond_slave_removed
	test_netns_exit
	test_netns_exit_moved
	test_netns_exit_after_down
"

SPIS=(0x1041 0x2042 0x1061 0x2062)

# Both families, modes and directions
four_sas()
{
	sa_offload "$1" 0x1041 out transport 4 1
	sa_offload "$1" 0x2042 in tunnel 4 2
	sa_offload "$1" 0x1061 out tunnel 6 1
	sa_offload "$1" 0x2062 in transport 6 2
	check_sa_count 4
}

POLS=("out 4 1" "in 4 1" "out 6 1" "in 6 1" "fwd 6 1")

five_policies()
{
	pol_offload out transport 4 1
	pol_offload in transport 4 1
	pol_offload out tunnel 6 1
	pol_offload in tunnel 6 1
	pol_offload fwd tunnel 6 1
}

# can_rmmod TEST: says why not
can_rmmod()
{
	if [ ! -e /sys/module/netdevsim/refcnt ]; then
		log_test_skip "$1" "netdevsim is built in"
	elif [ -n "$(ls "$NSIM_BUS/devices")" ]; then
		log_test_skip "$1" "netdevsim is in use"
	else
		defer modprobe -q netdevsim
	fi
}

crypto()
{
	local how=$1; shift

	RET=0
	setup_topology || return
	monitor_start
	four_sas crypto
	depart "$how"
	monitor_sync
	check_sa_told "${SPIS[@]}"
	check_told_total 4
	check_sa_count 0
	[ "$how" != down ] || check_nsim_empty "$NSIM"
	check_nsim_balance
	log_test "crypto offload, $how: each SA expires once"
}

test_crypto_down()
{
	crypto down
}

test_crypto_del_port()
{
	crypto del_port
}

test_crypto_del_device()
{
	crypto del_device
}

test_crypto_move()
{
	crypto move
}

test_crypto_rmmod()
{
	can_rmmod "crypto offload, rmmod" && crypto rmmod
}

packet()
{
	local how=$1; shift
	local p

	RET=0
	setup_topology || return
	monitor_start
	four_sas packet
	five_policies
	depart "$how"
	monitor_sync
	check_sa_told "${SPIS[@]}"
	check_sa_count 0
	log_test "packet offload, $how: each SA expires once"

	RET=0
	for p in "${POLS[@]}"; do
		# shellcheck disable=SC2086
		check_pol_told $p
	done
	check_told_total 9
	log_test "packet offload, $how: each policy is told once"

	RET=0
	for p in "${POLS[@]}"; do
		# shellcheck disable=SC2086
		check_pol $p block
	done
	[ "$how" != down ] || check_nsim_empty "$NSIM"
	check_nsim_balance
	log_test "packet offload, $how: policies stay and block"
}

test_packet_down()
{
	packet down
}

test_packet_del_port()
{
	packet del_port
}

test_packet_del_device()
{
	packet del_device
}

test_packet_move()
{
	packet move
}

test_packet_rmmod()
{
	can_rmmod "packet offload, rmmod" && packet rmmod
}

test_down_then_removed()
{
	RET=0
	setup_topology || return
	monitor_start
	four_sas packet
	five_policies
	depart down
	depart del_device
	monitor_sync
	check_sa_told "${SPIS[@]}"
	check_told_total 9
	check_pol out 4 1 block
	check_nsim_balance
	log_test "down, then removed: told once"
}

test_counters()
{
	local n

	RET=0
	setup_topology || return
	monitor_start
	sa_offload packet 0x1041 out transport 4 1
	pol_offload out transport 4 1
	settle "$NSA" "${BY_DEV[@]}"
	udp_send "$NSA" "$(addr 4 1 2)" >/dev/null
	n=$(nsim_counter "$NSIM" tx_encrypted)
	[ "$n" -eq "$PACKETS" ]
	check_err $? "the device encrypted $n packets instead of $PACKETS"
	depart del_device
	monitor_sync
	check_sa_told 0x1041
	n=$(heard ".* spi 0x00001041\(.* $PACKETS\(packets\)")
	[ "$n" -eq 1 ]
	check_err $? "no $PACKETS packets in the expiry"
	log_test "the expiry has the last counters of the device"
}

# Somebody has to listen for acquires, else there is no larval state.
test_larval()
{
	RET=0
	setup_topology || return
	monitor_start
	ip -n "$NSA" xfrm monitor acquire >"$TMP/acquires" &
	defer kill_process $!
	busywait "$BUSYWAIT_TIMEOUT" monitor_listens $!
	pol_offload out transport 4 1
	udp_send "$NSA" "$(addr 4 1 2)" >/dev/null
	check_sa_count 1
	depart del_device
	monitor_sync
	check_sa_told 0
	check_sa_count 0
	check_nsim_balance
	log_test "a larval state expires once"
}

# many_sas SPI N: N more than there are, each to a peer of its own, for adding
# to one long hash chain takes a while
many_sas()
{
	local sa="mode transport ${ALG[*]} offload packet dev $DEV dir out"
	local i

	echo $(($(nsim_sa_count "$NSIM") + $2)) \
		>"$(nsim_debug "$NSIM" ipsec_max_sa)"
	check_err $? "cannot make room for $2 SAs"
	for ((i = 0; i < $2; i++)); do
		echo "xfrm state add src 10.9.1.1 proto esp" \
			"dst 10.16.$((i / 250)).$((i % 250))" \
			"spi $(($1 + i)) $sa"
	done >"$TMP/batch"
	ip -n "$NSA" -batch "$TMP/batch"
	check_err $? "cannot add $2 SAs"
}

test_many()
{
	local pol="dst 10.8.1.0/24 dir out tmpl proto esp mode transport"
	local nsa=400 npol=200 i n

	RET=0
	setup_topology || return
	monitor_start
	pol="$pol offload packet dev $DEV"
	many_sas 0x1000 "$nsa"
	for ((i = 0; i < npol; i++)); do
		echo "xfrm policy add src 10.8.0.$i $pol"
	done >"$TMP/batch"
	ip -n "$NSA" -batch "$TMP/batch"
	check_err $? "cannot add $npol policies"
	depart del_device
	monitor_sync
	check_told_total "$((nsa + npol))"
	n=$(grep -E "$HARD" "$EVENTS" | grep -o ' spi 0x00001[0-9a-f]*' |
		sort -u | wc -l)
	[ "$n" -eq "$nsa" ]
	check_err $? "$n of $nsa SAs are told"
	n=$(grep -E "$HARD" "$EVENTS" | grep -o '^Expired src 10.8.0[^ ]*' |
		sort -u | wc -l)
	[ "$n" -eq "$npol" ]
	check_err $? "$n of $npol policies are told"
	check_sa_count 0
	n=$(ip -n "$NSA" xfrm policy list | grep -c 'action block')
	[ "$n" -eq "$npol" ]
	check_err $? "$n of $npol policies block"
	check_nsim_balance
	log_test "$nsa SAs, $npol policies: told once each"
}

test_block()
{
	local dir

	RET=0
	setup_topology || return
	monitor_start
	for dir in out in fwd; do
		pol_offload "$dir" none 4 1 action block
	done
	depart del_device
	monitor_sync
	for dir in out in fwd; do
		check_pol_told "$dir" 4 1
		check_pol "$dir" 4 1 block
	done
	check_told_total 3
	log_test "block policies stay, told once"
}

test_bypass()
{
	local dir

	RET=0
	setup_topology || return
	monitor_start
	for dir in out in fwd; do
		pol_offload "$dir" none 6 1
	done
	depart del_device
	monitor_sync
	for dir in out in fwd; do
		check_pol_told "$dir" 6 1
		check_pol "$dir" 6 1 gone
	done
	check_told_total 3
	log_test "bypass policies expire, told once"
}

##############################################################################
# What the key manager does to a kept policy

KEPT=("10.8.0.1 10.8.1.1" "10.8.2.0/24 10.8.3.0/24" "fd08::1 fd08::2"
	"fd08:1::/64 fd08:2::/64")

# kept COMMAND "SRC DST" [ARGS...]
kept()
{
	local command=$1; shift
	local src=${1% *} dst=${1#* }; shift
	local tmpl=(tmpl proto esp reqid 1 mode transport)

	case $command in
	get | delete) tmpl=() ;;
	esac
	ip -n "$NSA" xfrm policy "$command" src "$src" dst "$dst" dir out "$@" \
		"${tmpl[@]}"
}

# check_kept "SRC DST" STATE
check_kept()
{
	local shown state

	shown=$(kept get "$1" 2>/dev/null)
	case $shown in
	"") state=gone ;;
	*offload*) state=offload ;;
	*"action block"*) state=block ;;
	*) state=allow ;;
	esac
	[ "$state" = "$2" ]
	check_err $? "policy $1: $state instead of $2"
}

kept_setup()
{
	local sel

	setup_topology || return
	for sel in "${KEPT[@]}"; do
		kept add "$sel" offload packet dev "$DEV"
		check_err $? "cannot add policy $sel"
	done
	depart "$1"
	for sel in "${KEPT[@]}"; do
		check_kept "$sel" block
	done
	return 0
}

test_kept_new()
{
	local sel err

	RET=0
	kept_setup del_device || return
	for sel in "${KEPT[@]}"; do
		kept add "$sel"
		check_err $? "$sel is not replaced"
		check_kept "$sel" allow
		err=$(kept add "$sel" 2>&1)
		check_fail $? "$sel is replaced twice"
		[[ $err == *"File exists"* ]]
		check_err $? "$sel: no EEXIST"
	done
	log_test "NEWPOLICY replaces a kept policy, once"
}

test_kept_update()
{
	local sel

	RET=0
	kept_setup down || return
	ip -n "$NSA" link set "$DEV" up
	for sel in "${KEPT[@]}"; do
		kept update "$sel" offload packet dev "$DEV"
		check_err $? "cannot update $sel"
		check_kept "$sel" offload
	done
	log_test "UPDPOLICY replaces a kept policy"
}

test_kept_delete()
{
	local sel

	RET=0
	kept_setup del_device || return
	for sel in "${KEPT[@]}"; do
		kept delete "$sel"
		check_err $? "cannot delete $sel"
		check_kept "$sel" gone
	done
	log_test "DELPOLICY deletes a kept policy"
}

test_kept_flush()
{
	local sel

	RET=0
	kept_setup del_device || return
	ip -n "$NSA" xfrm policy flush
	check_err $? "cannot flush"
	for sel in "${KEPT[@]}"; do
		check_kept "$sel" gone
	done
	log_test "FLUSHPOLICY deletes kept policies"
}

test_lifetime()
{
	local hard="a kept policy ignores its hard lifetime"
	local soft="a kept policy has its soft lifetime"
	local lifetime=4 start n

	# The device is to leave before that.
	[ "$KSFT_MACHINE_SLOW" != yes ] || lifetime=15
	RET=0
	setup_topology || return
	monitor_start
	start=$SECONDS
	pol_offload out transport 4 1 limit time-hard "$lifetime"
	pol_offload in transport 4 1 limit time-soft "$lifetime"
	depart del_device
	if ((RET == 0 && SECONDS - start >= lifetime)); then
		log_test_skip "$hard" "too slow for a lifetime of $lifetime s"
		log_test_skip "$soft" "too slow for a lifetime of $lifetime s"
		return
	fi
	monitor_sync $((lifetime + 2))
	check_pol_told out 4 1
	check_pol out 4 1 block
	log_test "$hard"

	RET=0
	check_pol_told in 4 1
	check_pol in 4 1 block
	n=$(heard "$(pol_sel in 4 1) .*dir in $SOFT")
	[ "$n" -eq 1 ]
	check_err $? "$n soft expiries instead of 1"
	log_test "$soft"
}

# check_pol_count N [NS]
check_pol_count()
{
	local n

	n=$(ip -n "${2:-$NSA}" xfrm policy list nosock | grep -c '^src')
	[ "$n" -eq "$1" ]
	check_err $? "$n policies instead of $1"
}

everything_else()
{
	ip -n "$NSA" xfrm state list
	ip -n "$NSA" xfrm policy list
	nsim_sa_count "$other"
	nsim_policy_count "$other"
	ip -n "$NSC" xfrm state list
	ip -n "$NSC" xfrm policy list
}

test_bystanders()
{
	local before other

	RET=0
	setup_topology || return
	monitor_start
	nsim_create other "$NSA"
	sa_add 0xb001 out transport 4 1
	sa_add 0xb002 in tunnel 6 1
	sa_add 0xb003 out tunnel 4 2 offload packet dev "nsim$other" dir out
	sa_add 0xb004 in transport 6 2 offload crypto dev "nsim$other" dir in
	pol add out transport 4 1
	pol add fwd tunnel 6 1
	pol add out tunnel 4 2 offload packet dev "nsim$other"
	pol add in none 6 2 action block offload packet dev "nsim$other"
	ip -n "$NSC" xfrm state add src 10.9.1.1 dst 10.9.1.2 proto esp \
		spi 0x1041 reqid 41 mode transport "${ALG[@]}"
	ip -n "$NSC" xfrm policy add src 10.9.1.1 dst 10.9.1.2 dir out \
		tmpl proto esp reqid 41 mode transport
	check_sa_count 4
	check_sa_count 1 "$NSC"
	check_pol_count 4
	check_pol_count 1 "$NSC"
	before=$(everything_else)

	sa_offload packet 0x1041 out transport 4 1
	pol_offload in transport 4 1
	depart del_device
	monitor_sync
	check_sa_told 0x1041
	check_pol_told in 4 1
	check_told_total 2
	pol delete in none 4 1
	check_err $? "the policy of the device is not kept"
	[ "$before" = "$(everything_else)" ]
	check_err $? "the others are not what they were"
	check_nsim_balance
	log_test "software, other devices and netns are left alone"
}

test_reuse()
{
	local n

	RET=0
	setup_topology || return
	monitor_start
	four_sas packet
	five_policies
	depart down
	monitor_sync
	check_pol out 4 1 block
	dev_up
	four_sas packet
	pol update out transport 4 1 offload packet dev "$DEV"
	check_err $? "cannot offload the policy again"
	check_pol out 4 1 offload
	settle "$NSA" "${BY_DEV[@]}"
	udp_send "$NSA" "$(addr 4 1 2)" >/dev/null
	n=$(nsim_counter "$NSIM" tx_encrypted)
	[ "$n" -eq "$PACKETS" ]
	check_err $? "the device encrypted $n packets instead of $PACKETS"
	depart down
	monitor_sync
	n=$(sa_told 0x1041)
	[ "$n" -eq 2 ]
	check_err $? "SA 0x1041: $n hard expiries instead of 2"
	check_nsim_empty "$NSIM"
	check_nsim_balance
	log_test "down and up: the device takes the same again"
}

test_moved()
{
	RET=0
	setup_topology || return
	four_sas packet
	five_policies
	depart move
	check_pol out 4 1 block
	check_sa_count 0 "$NSC"
	check_nsim_empty "$NSIM"
	ip -n "$NSC" link set "$DEV" up
	ip -n "$NSC" xfrm state add src 10.9.1.1 dst 10.9.1.2 proto esp \
		spi 0x1041 reqid 41 mode transport "${ALG[@]}" \
		offload packet dev "$DEV" dir out
	check_err $? "cannot offload in the new netns"
	[ "$(nsim_sa_count "$NSIM")" -eq 1 ]
	check_err $? "the driver does not have the new SA"
	check_nsim_balance
	log_test "a moved device starts afresh"
}

##############################################################################
# Bond

active_slave_is()
{
	local attr=/sys/class/net/bond0/bonding/active_slave

	[ "$(ip netns exec "$NSA" cat "$attr")" = "$1" ]
}

# SAs of a bond of two devices, NSIM and NSIM2: the first one is active
setup_bond()
{
	local peer slave

	check_stuck
	setup_ns NSA NSB
	defer cleanup_ns "$NSA" "$NSB"
	nsim_create NSIM "$NSA"
	nsim_create NSIM2 "$NSA"
	for slave in "$NSIM" "$NSIM2"; do
		nsim_create peer "$NSB"
		nsim_link "$NSA" "$slave" "$NSB" "$peer"
	done
	ip -n "$NSA" -batch - <<-EOF
		link add bond0 type bond mode active-backup miimon 10
		link set nsim$NSIM down
		link set nsim$NSIM2 down
		link set nsim$NSIM master bond0
		link set nsim$NSIM2 master bond0
		link set bond0 up
	EOF
	check_err $? "cannot set up a bond"
	busywait "$BUSYWAIT_TIMEOUT" active_slave_is "nsim$NSIM"
	check_err $? "nsim$NSIM is not the active slave"
	monitor_start
	DEV=bond0
	four_sas crypto
	[ "$(nsim_sa_count "$NSIM")" -eq 4 ]
	check_err $? "the slave does not have the SAs"
	setup_done
}

# bond_gone TEST HOW
bond_gone()
{
	local name=$1; shift
	local how=$1; shift

	RET=0
	setup_bond || return
	depart "$how"
	monitor_sync
	check_sa_told "${SPIS[@]}"
	check_told_total 4
	check_sa_count 0
	check_nsim_empty "$NSIM"
	check_nsim_empty "$NSIM2"
	check_nsim_balance
	log_test "$name"
}

bond_removed()
{
	ip -n "$NSA" link del bond0
}

test_bond_removed()
{
	bond_gone "bond removed: each SA expires once" bond_removed
}

bond_down()
{
	ip -n "$NSA" link set bond0 down
}

test_bond_down()
{
	bond_gone "bond down: each SA expires once" bond_down
}

# bond_kept TEST HOW
bond_kept()
{
	local name=$1; shift
	local how=$1; shift

	RET=0
	setup_bond || return
	depart "$how"
	busywait "$BUSYWAIT_TIMEOUT" active_slave_is "nsim$NSIM2"
	check_err $? "nsim$NSIM2 is not the active slave"
	monitor_sync
	check_told_total 0
	check_sa_count 4
	[ "$(nsim_sa_count "$NSIM2")" -eq 4 ]
	check_err $? "the other slave does not have the SAs"
	check_nsim_balance
	log_test "$name"
}

slave_down()
{
	ip -n "$NSA" link set "nsim$NSIM" down
}

test_bond_slave_down()
{
	bond_kept "bond, slave down: SAs stay" slave_down
}

slave_leaves()
{
	ip -n "$NSA" link set "nsim$NSIM" nomaster
}

test_bond_slave_leaves()
{
	bond_kept "bond, slave leaves: SAs stay" slave_leaves
}

test_bond_slave_removed()
{
	bond_kept "bond, slave removed: SAs stay" del_device
}

##############################################################################
# Netns exit

# tether NS: a veth goes with its peer in NSC
tether()
{
	ip -n "$1" link add tether type veth peer name tether netns "$NSC" || {
		check_err 1 "cannot tether $1"
		return 1
	}
}

untethered()
{
	! ip -n "$NSC" link show tether >/dev/null 2>&1
}

# netns_gone NS: in time
netns_gone()
{
	ip netns del "$1"
	check_err $? "cannot delete netns $1"
	busywait "$BUSYWAIT_TIMEOUT" untethered
	check_err $? "netns $1 is still there"
}

# netns_exit [HOW...]: with the device, or right after it has left
netns_exit()
{
	local warnings

	warnings=$(cat /sys/kernel/warn_count)
	four_sas packet
	five_policies
	sa_add 0xb001 out transport 4 1
	pol add out tunnel 4 2
	tether "$NSA" || return
	"$@"
	netns_gone "$NSA"
	# The worker that cleans up is there for the next one.
	tether "$NSB" && netns_gone "$NSB"
	[ "$(cat /sys/kernel/warn_count)" = "$warnings" ]
	check_err $? "kernel warns"
}

test_netns_exit()
{
	RET=0
	setup_topology || return
	netns_exit
	depart del_device
	check_nsim_balance
	log_test "netns exits with its device"
}

# A device whose devlink instance is elsewhere goes back to init_net, that is to
# say: it leaves, too.
test_netns_exit_moved()
{
	local DEV_BORN=NSC

	RET=0
	setup_topology || return
	netns_exit
	[ -n "$(ls "$NSIM_BUS/devices/netdevsim$NSIM/net" 2>/dev/null)" ]
	check_err $? "the device is not in init_net"
	check_nsim_empty "$NSIM"
	depart del_device
	check_nsim_balance
	log_test "netns exits with a device from elsewhere"
}

# down_and_count FILE: how many SAs are there right after that?
down_and_count()
{
	printf '%s\n' "link set $DEV down" "xfrm state count" |
		ip -n "$NSA" -batch - >"$1"
}

# The device goes down, and many of its states are still to expire, unless all
# expire at once: default_buffer in xfrm_devgone_netlink.c looks at their pace.
down_expiring()
{
	local nsa=16000 n=

	# At the pace of the expiries (XFRM_DEV_PACE_*), 2.5 or 5 seconds
	[ "$KSFT_MACHINE_SLOW" != yes ] || nsa=32000
	many_sas 0x10000 "$nsa"
	monitor_start
	# It takes the CPU, and may not be needed.
	kill -STOP "$MONITOR"
	in_time "down" down_and_count "$TMP/count"
	kill -CONT "$MONITOR"
	check_stuck "down"
	n=$(sed 's/.* //' "$TMP/count")
	[ -n "$n" ]
	check_err $? "cannot set $DEV down"
	if [ "${n:-0}" -le $((nsa / 8)) ]; then
		busywait "$BUSYWAIT_TIMEOUT" \
			grep -q "^Expired .*$HARD" "$EVENTS"
		check_err $? "none of $nsa SAs has expired"
		TOO_SLOW="$n of $nsa SAs are left"
	fi
	kill_process "$MONITOR"
}

test_netns_exit_after_down()
{
	local name="netns exits while the SAs of its device expire"
	local TOO_SLOW=

	RET=0
	setup_topology || return
	netns_exit down_expiring
	depart del_device
	check_nsim_balance
	if ((RET == 0)) && [ -n "$TOO_SLOW" ]; then
		log_info "$TOO_SLOW"
		log_test_skip "$name"
		return
	fi
	log_test "$name"
}

trap cleanup EXIT
require_features
tests_run
defer_scopes_cleanup

exit "$EXIT_STATUS"
