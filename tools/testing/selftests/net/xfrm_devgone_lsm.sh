#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC1091,SC2034,SC2154,SC2317,SC2329
#
# What a security module that lets nobody delete states and policies can keep
# from going: nothing that no task has asked for. BPF programs are that module
# (xfrm_lsm_deny.c), so the policy of the machine does not matter.
#
# Verifies, with IPsec offloaded to a netdevsim:
# - flush_refused: a flush that a task asks for is refused whole. Catches a
#   kernel that does not ask any more.
# - device_*: a device that is removed, goes down or moves to another netns, and
#   a bond, lose their states and policies, and the module is not asked. Catches
#   removals that hang in unregister_netdevice(), states that stay in a driver
#   that is gone, and questions on nobody's behalf (7.3 and before).
# - netns_*: a netns with the device, or with software states and policies,
#   goes. Catches a cleanup worker that hangs, leaked states and policies with
#   their warnings, and the timer of a leaked state that fires in freed memory.
#   7.3 and before do not recover from netns_device (no other netns goes after
#   that) nor from netns_timer (the machine goes down), so these come last;
#   "-t netns_timer" tells what it does by itself.

ALL_TESTS="
	flush_refused
	device_down
	device_moved
	device_removed
	device_bond
	netns_software
	netns_device
	netns_timer
"

# A netns takes longer to go than most of what is waited for.
: "${WAIT_TIMEOUT:=40}"

source lib.sh

usage()
{
	echo "Usage: ${0##*/} [-t TEST]..., TEST is one of:$ALL_TESTS"
}

chosen=
while getopts t: opt; do
	if [ "$opt" != t ] || ! grep -qxF "	$OPTARG" <<<"$ALL_TESTS"; then
		usage >&2
		exit 1
	fi
	chosen+=" $OPTARG"
done
if [ $# -ge "$OPTIND" ]; then
	usage >&2
	exit 1
fi
# run_kselftest.sh has a variable TESTS of its own.
TESTS=${chosen:-$ALL_TESTS}

NSIM=/sys/bus/netdevsim
ALG=(aead 'rfc4106(gcm(aes))' 0x3132333435363738393031323334353664636261 128)
ID=2600
TMP=$(mktemp -d)

# add_state NETNS SPI [ARGS...]
add_state()
{
	local ns=$1; shift
	local spi=$1; shift

	ip -n "$ns" xfrm state add src 10.0.0.1 dst 10.0.0.2 proto esp \
		spi "$spi" reqid 1 mode transport "${ALG[@]}" "$@"
}

# add_policy NETNS SUBNET [ARGS...]
add_policy()
{
	local ns=$1; shift
	local subnet=$1; shift

	ip -n "$ns" xfrm policy add src 10.0.0.1 dst "10.1.$subnet.0/24" \
		dir out tmpl proto esp reqid 1 mode transport "$@"
}

states()
{
	ip -n "$1" xfrm state count | sed 's/.* //'
}

no_states()
{
	[ "$(states "$1")" -eq 0 ]
}

policies()
{
	ip -n "$1" xfrm policy list nosock | grep -c "$2"
}

# A netns with a device of its own, for one test
setup()
{
	check_stuck
	RET=0
	ID=$((ID + 1))
	while [ -d "$NSIM/devices/netdevsim$ID" ]; do
		ID=$((ID + 1))
	done
	unset NS
	setup_ns NS
	DEV=$(create_netdevsim "$ID" "$NS")
	defer remove_device "$ID"
}

# The flush is no longer refused once the module is gone, and then a removal
# that waited for it comes to its end.
remove_device()
{
	[ ! -e "/run/netns/$NS" ] || ip -n "$NS" xfrm policy flush
	[ ! -e "/run/netns/$NS" ] || ip -n "$NS" xfrm state flush
	cleanup_in_time "removal of netdevsim $1" cleanup_netdevsim "$1"
}

add_offloaded()
{
	local dev=$1; shift

	add_state "$NS" 0x1000 offload crypto dev "$dev" dir out &&
		add_state "$NS" 0x1001 offload packet dev "$dev" dir out &&
		add_policy "$NS" 1 offload packet dev "$dev"
}

start_module()
{
	: >"$TMP/deny"
	./xfrm_lsm_deny >"$TMP/deny" 2>&1 &
	DENY=$!
}

deny()
{
	start_module
	defer allow
	busywait "$BUSYWAIT_TIMEOUT" grep -q ready "$TMP/deny" >/dev/null ||
		{ cat "$TMP/deny"; check_err 1 "no security module"; }
}

# Sets ASKED_STATE and ASKED_POLICY
allow()
{
	[ -n "$DENY" ] || return 0
	kill_process "$DENY"
	DENY=
	ASKED_STATE=$(sed -n 's/^asked state=\([0-9]*\) .*/\1/p' "$TMP/deny")
	ASKED_POLICY=$(sed -n 's/^asked .* policy=//p' "$TMP/deny")
}

not_asked()
{
	allow
	[ "$ASKED_STATE$ASKED_POLICY" = 00 ]
	check_err $? "asked for $ASKED_STATE states, $ASKED_POLICY policies"
}

lost_all()
{
	busywait "$BUSYWAIT_TIMEOUT" no_states "$NS"
	check_err $? "states left"
	[ "$(policies "$NS" 'action block')" -eq 1 ]
	check_err $? "no policy that blocks"
	[ "$(policies "$NS" offload)" -eq 0 ]
	check_err $? "policy with a device left"
}

flush_refused()
{
	setup
	add_state "$NS" 0x1 && add_policy "$NS" 0 && add_offloaded "$DEV"
	check_err $? "cannot add"
	deny
	ip -n "$NS" xfrm state flush 2>/dev/null
	check_fail $? "states flushed"
	ip -n "$NS" xfrm policy flush 2>/dev/null
	check_fail $? "policies flushed"
	ip -n "$NS" xfrm state delete src 10.0.0.1 dst 10.0.0.2 proto esp \
		spi 0x1 2>/dev/null
	check_fail $? "state deleted"
	[ "$(states "$NS")" -eq 3 ]
	check_err $? "states gone"
	[ "$(policies "$NS" '^src')" -eq 2 ]
	check_err $? "policies gone"
	allow
	[ "$ASKED_STATE" -ge 2 ] && [ "$ASKED_POLICY" -ge 1 ]
	check_err $? "not asked"
	ip -n "$NS" xfrm state flush
	check_err $? "states not flushed without the module"
	log_test "flush by a task is refused"
}

device_down()
{
	setup
	add_offloaded "$DEV"
	check_err $? "cannot add"
	deny
	in_time "link down" ip -n "$NS" link set "$DEV" down
	lost_all
	not_asked
	log_test "device goes down"
}

device_moved()
{
	setup
	unset OTHER
	setup_ns OTHER
	add_offloaded "$DEV"
	check_err $? "cannot add"
	deny
	in_time "move" ip -n "$NS" link set "$DEV" netns "$OTHER"
	lost_all
	not_asked
	log_test "device moves to another netns"
}

del_device()
{
	echo "$1" >"$NSIM/del_device"
}

device_removed()
{
	setup
	add_offloaded "$DEV"
	check_err $? "cannot add"
	deny
	in_time "removal" del_device "$ID"
	lost_all
	not_asked
	log_test "device is removed"
}

device_bond()
{
	setup
	ip -n "$NS" link add bond0 type bond mode active-backup
	ip -n "$NS" link set "$DEV" down
	ip -n "$NS" link set "$DEV" master bond0
	ip -n "$NS" link set bond0 up
	ip -n "$NS" link set "$DEV" up
	add_state "$NS" 0x1000 offload crypto dev bond0 dir out
	check_err $? "cannot add"
	deny
	in_time "removal" ip -n "$NS" link del bond0
	busywait "$BUSYWAIT_TIMEOUT" no_states "$NS"
	check_err $? "states left"
	not_asked
	log_test "bond is removed"
}

# tether NETNS: a veth that goes with it, to see it go
tether()
{
	ip link add "t-$ID" type veth peer name tether netns "$1" || {
		check_err 1 "cannot tether"
		return 1
	}
	defer untether "t-$ID"
}

untether()
{
	ip link del "$1" 2>/dev/null
}

untethered()
{
	[ ! -e "/sys/class/net/t-$ID" ]
}

# netns_gone NETNS
netns_gone()
{
	! untethered && ip netns del "$1" &&
		busywait "$BUSYWAIT_TIMEOUT" untethered
}

# The veth is among the first to go. The worker that cleans up comes to the next
# netns when nothing is left of this one.
netns_goes()
{
	local warnings

	warnings=$(cat /sys/kernel/warn_count)
	unset NEXT
	setup_ns NEXT
	netns_gone "$NS" && tether "$NEXT" && netns_gone "$NEXT"
	check_err $? "netns does not go"
	[ "$(cat /sys/kernel/warn_count)" = "$warnings" ]
	check_err $? "kernel warns"
	not_asked
}

netns_device()
{
	setup
	tether "$NS"
	add_state "$NS" 0x1 && add_offloaded "$DEV"
	check_err $? "cannot add"
	deny
	netns_goes
	log_test "netns with the device exits"
}

netns_software()
{
	setup
	tether "$NS"
	add_state "$NS" 0x1 && add_policy "$NS" 1
	check_err $? "cannot add"
	deny
	netns_goes
	log_test "netns with software states and policies exits"
}

# Had the state been leaked, its timer would run before that of the other one.
# That it expires before its netns is gone must not pass for success.
netns_timer()
{
	local lifetime=6 start

	[ "$KSFT_MACHINE_SLOW" != yes ] || lifetime=60
	setup
	tether "$NS"
	unset OTHER
	setup_ns OTHER
	start=$SECONDS
	add_state "$NS" 0x1 limit time-hard "$lifetime"
	check_err $? "cannot add"
	deny
	netns_goes
	if ((RET == 0 && SECONDS - start >= lifetime)); then
		log_test_skip "netns is gone when its state expires" \
			"too slow for a lifetime of $lifetime s"
		return
	fi
	add_state "$OTHER" 0x1 limit time-hard "$lifetime"
	check_err $? "cannot add"
	busywait $((BUSYWAIT_TIMEOUT + lifetime * 1000)) no_states "$OTHER"
	check_err $? "no timer"
	log_test "netns is gone when its state expires"
}

cleanup()
{
	defer_scopes_cleanup
	cleanup_all_ns
	rm -rf "$TMP"
	check_stuck "clean-up"
	((EXIT_STATUS != ksft_fail)) || exit "$ksft_fail"
}

skip()
{
	log_test_skip "$1"
	exit "$EXIT_STATUS"
}

module_decided()
{
	grep -q ready "$TMP/deny" || process_gone "$DENY"
}

# xfrm_lsm_deny knows what is a missing feature.
no_module()
{
	local why rc

	why=$(tail -n 1 "$TMP/deny")
	if process_gone "$DENY"; then
		wait "$DENY"
		rc=$?
		DENY=
		[ "$rc" -ne "$ksft_skip" ] || skip "no BPF LSM: $why"
	fi
	RET=0
	check_err 1 "${why:-no answer}"
	log_test "a module that denies"
	exit "$EXIT_STATUS"
}

# Somebody else may use it by now, that is no failure.
unload()
{
	modprobe -q -r netdevsim || :
}

# Is there a module to be had, and does the kernel ask it?
probe()
{
	local lsms=/sys/kernel/security/lsm

	[ "$(id -u)" -eq 0 ] || skip "needs root"
	if [ ! -d "$NSIM" ]; then
		modprobe -q netdevsim || skip "no netdevsim"
		# which waits for a device that does not go
		defer cleanup_in_time "modprobe -r" unload
	fi
	ip xfrm state help 2>&1 | grep -q 'crypto *| *packet' ||
		skip "ip does not know packet offload"
	[ -x ./xfrm_lsm_deny ] || skip "xfrm_lsm_deny is not built"
	setup_ns NS
	add_state "$NS" 0x1 || skip "no ESP with AES-GCM"
	start_module
	defer allow
	busywait "$BUSYWAIT_TIMEOUT" module_decided >/dev/null
	grep -q ready "$TMP/deny" || no_module
	# Not asked although it should be is for flush_refused to tell.
	if ip -n "$NS" xfrm state flush 2>/dev/null; then
		if [ ! -r "$lsms" ]; then
			mount -t securityfs none "${lsms%/*}" &&
				defer umount "${lsms%/*}"
		fi
		grep -qsw bpf "$lsms" ||
			skip "the kernel does not ask BPF programs (lsm=)"
	fi
	allow
}

trap cleanup EXIT

probe
tests_run
defer_scopes_cleanup

exit "$EXIT_STATUS"
