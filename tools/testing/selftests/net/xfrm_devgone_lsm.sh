#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC1091,SC2034,SC2154,SC2317,SC2329
#
# A security module that lets no task delete states and policies does not keep
# those of a device or of a netns that goes away. The module is SELinux, with a
# policy that does not allow association:setcontext, such as that of mdp without
# this permission. Arguments: the tests to run.

source "$(dirname "$0")/xfrm_nsim_lib.sh"

ALL_TESTS="test_flush test_down test_removed test_netns_device test_netns_timer"
# run_kselftest.sh has a variable of this name.
TESTS=${*:-$ALL_TESTS}

SELINUX=/sys/fs/selinux/enforce
CTX=$(tr -d '\0' </proc/self/attr/current 2>/dev/null)
ENDS=(src 10.0.0.1 dst 10.0.0.2)

# state SPI [ARGS...]
state()
{
	local spi=$1; shift

	ip -n "$NS" xfrm state add "${ENDS[@]}" proto esp spi "$spi" reqid 1 \
		mode transport "${IPSEC_ALG[@]}" "$@" ctx "$CTX"
}

# policy DPORT [ARGS...]
policy()
{
	local port=$1; shift

	ip -n "$NS" xfrm policy add "${ENDS[@]}" proto udp dport "$port" \
		dir out ctx "$CTX" "$@" \
		tmpl "${ENDS[@]}" proto esp reqid 1 mode transport
}

# A netns with a state and a policy in software
setup_software()
{
	RET=0
	setup_ns NS
	defer cleanup_ns "$NS"
	state 0x1001 && policy 1
	check_err $? "cannot add a state and a policy"
}

# And with a device and what is offloaded to it
setup()
{
	setup_software
	nsim_create ID "$NS"
	DEV=nsim$ID
	state 0x1002 offload crypto dev "$DEV" dir out &&
		state 0x1003 offload packet dev "$DEV" dir out &&
		policy 2 offload packet dev "$DEV"
	check_err $? "cannot add states and policies"
}

enforce()
{
	echo "$1" >"$SELINUX"
}

# No task can delete them from now on.
deny()
{
	enforce 1
	defer enforce 0
}

# left STATES POLICIES OFFLOADED
left()
{
	local policies

	policies=$(ip -n "$NS" -o xfrm policy list nosock)
	ip -n "$NS" xfrm state count | grep -q " $1\$" &&
		[ "$(grep -c . <<<"$policies")" -eq "$2" ] &&
		[ "$(grep -c offload <<<"$policies")" -eq "$3" ]
}

test_flush()
{
	setup
	deny
	ip -n "$NS" xfrm state flush 2>/dev/null
	check_fail $? "states are flushed"
	ip -n "$NS" xfrm policy flush 2>/dev/null
	check_fail $? "policies are flushed"
	left 3 2 1
	check_err $? "not all states and policies are left"
	log_test "a task is denied to flush"
}

test_down()
{
	setup
	deny
	in_time "link down" ip -n "$NS" link set "$DEV" down
	busywait "$BUSYWAIT_TIMEOUT" left 1 2 0
	check_err $? "states and policies keep their device"
	check_nsim_released "$ID"
	log_test "device goes down"
}

# goes WHAT CMD...: CMD says whether it has gone. If it hangs, it comes to its
# end without the module.
goes()
{
	local what=$1; shift

	slowwait "$WAIT_TIMEOUT" "$@"
	check_err $? "$what hangs"
	enforce 0
	in_time "$what" slowwait "$WAIT_TIMEOUT" "$@"
}

test_removed()
{
	setup
	deny
	nsim_del "$ID" &
	goes "the removal" process_gone $!
	busywait "$BUSYWAIT_TIMEOUT" left 1 2 0
	check_err $? "states and policies keep their device"
	log_test "device is removed"
}

untethered()
{
	! ip link show dev xfrm-tether >/dev/null 2>&1
}

# A veth is there until the netns is gone.
netns_goes()
{
	ip link add xfrm-tether type veth peer name tether netns "$NS"
	check_err $? "cannot create a veth"
	deny
	ip netns del "$NS"
	goes "the netns" untethered
}

test_netns_device()
{
	setup
	netns_goes
	log_test "netns of a device is deleted"
}

no_witness()
{
	ip -n "$WITNESS" xfrm state count | grep -q ' 0$'
}

# The timer of a state that is left would fire before that of the witness, and
# bring the machine down.
test_netns_timer()
{
	local lifetime=$((WAIT_TIMEOUT / 2))

	[ "$KSFT_MACHINE_SLOW" != yes ] || lifetime=$((3 * WAIT_TIMEOUT))
	setup_software
	setup_ns WITNESS
	defer cleanup_ns "$WITNESS"
	state 0x1004 limit time-hard "$lifetime"
	check_err $? "cannot add a state"
	NS=$WITNESS state 0x1004 limit time-hard $((lifetime + 2))
	netns_goes
	if ((RET == 0)) && no_witness; then
		log_test_skip "netns of a state with a lifetime is deleted" \
			"it took $lifetime s"
		return
	fi
	slowwait $((lifetime + WAIT_TIMEOUT)) no_witness
	check_err $? "no timer fires"
	log_test "netns of a state with a lifetime is deleted"
}

trap defer_scopes_cleanup EXIT
nsim_require_ipsec
[ -w "$SELINUX" ] || nsim_skip "no SELinux"
[ "$(<"$SELINUX")" -eq 0 ] || nsim_skip "SELinux is enforcing already"
defer_scope_push
setup
((RET == 0)) || nsim_skip "no states and policies with label $CTX"
enforce 1
ip -n "$NS" xfrm state delete "${ENDS[@]}" proto esp spi 0x1001 2>/dev/null &&
	why="SELinux allows association:setcontext"
enforce 0
defer_scope_pop
[ -z "$why" ] || nsim_skip "$why"
tests_run
exit "$EXIT_STATUS"
