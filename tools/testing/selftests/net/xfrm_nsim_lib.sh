#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC1091,SC2016,SC2034,SC2154
#
# netdevsim as a device that offloads IPsec. A device is known by its bus id N:
# the netdev is nsimN. What debugfs has of it is in nsim_file N ...:
# - ipsec: the SAs and policies
# - ipsec_counters: calls of the stack, and packets that would be encrypted
# - ipsec_max_sa: the limit of SAs
# - ipsec_hold: Y keeps the next SA or policy in the driver until N is written.
#   It is counted as added then, and a signal to ip ends the wait, too.

source "$(dirname "$(readlink -e "${BASH_SOURCE[0]}")")/lib.sh"

NSIM_BUS=/sys/bus/netdevsim
NSIM_DEBUG=/sys/kernel/debug/netdevsim
NSIM_NEXT=$((256 + RANDOM % 256))
NSIM_ERRORS=0
IPSEC_ALG=(aead 'rfc4106(gcm(aes))'
	   0x3132333435363738393031323334353664636261 128)

process_gone()
{
	! kill -0 "$1" 2>/dev/null
}

# in_time WHAT CMD...: for what no signal ends, such as the removal of a device
# that somebody holds. The status goes to check_err. A command that hangs keeps
# locks for which clean-up would wait: report it and exit.
in_time()
{
	local what=$1; shift
	local out pid rc=0

	out=$(mktemp)
	"$@" >"$out" 2>&1 &
	pid=$!
	if ! slowwait "$WAIT_TIMEOUT" process_gone "$pid"; then
		check_err 1 "$what hangs, the rest is not run"
		log_test "${FUNCNAME[1]}"
		trap - EXIT
		exit "$EXIT_STATUS"
	fi
	wait "$pid" || rc=$?
	check_err "$rc" "$what failed: $(tail -n 1 "$out")"
	rm -f "$out"
}

# monitor_listens NS PID: wait until the ip xfrm monitor is in its group
monitor_listens()
{
	busywait "$BUSYWAIT_TIMEOUT" ip netns exec "$1" awk -v "pid=$2" '
		$2 == 6 && $3 == pid { found = 1 }
		END { exit !found }' /proc/net/netlink
	check_err $? "the monitor does not listen"
}

nsim_skip()
{
	log_test_skip "$1"
	exit "$EXIT_STATUS"
}

# For the beginning of a script: skip all without IPsec packet offload.
nsim_require_ipsec()
{
	local ns probe

	[ "$(id -u)" -eq 0 ] || nsim_skip "need root"
	ip xfrm state help 2>&1 | grep -q 'crypto *| *packet' ||
		nsim_skip "iproute2 without packet offload"
	if [ ! -w "$NSIM_BUS/new_device" ]; then
		modprobe -q netdevsim || nsim_skip "no netdevsim"
		defer modprobe -q -r netdevsim
	fi
	if [ ! -d "$NSIM_DEBUG" ]; then
		mount -t debugfs none /sys/kernel/debug ||
			nsim_skip "no debugfs"
		defer umount /sys/kernel/debug
	fi
	[ -e "$NSIM_DEBUG/ipsec_errors" ] ||
		nsim_skip "netdevsim without IPsec packet offload"
	ip xfrm state count >/dev/null || nsim_skip "no XFRM_USER"
	NSIM_ERRORS=$(nsim_errors)
}

nsim_file()
{
	echo "$NSIM_DEBUG/netdevsim$1/ports/0/$2"
}

nsim_exists()
{
	[ -d "$NSIM_BUS/devices/netdevsim$1" ]
}

nsim_del()
{
	echo "$1" >"$NSIM_BUS/del_device"
}

# nsim_cleanup ID: for defer. A failure is a result of its own.
nsim_cleanup()
{
	local RET=0 retmsg=

	nsim_exists "$1" || return 0
	echo N >"$(nsim_file "$1" ipsec_hold)"
	in_time "removal of nsim$1" nsim_del "$1"
	((RET == 0)) || log_test "clean-up"
}

# nsim_create VAR NS: a device in NS that is up, its id goes to VAR
nsim_create()
{
	local var=$1; shift
	local ns=$1; shift

	while nsim_exists "$NSIM_NEXT"; do
		NSIM_NEXT=$((NSIM_NEXT + 1))
	done
	printf -v "$var" %s "$NSIM_NEXT"
	NSIM_NEXT=$((NSIM_NEXT + 1))

	create_netdevsim "${!var}" "$ns" >/dev/null
	defer nsim_cleanup "${!var}"
	[ -e "$(nsim_file "${!var}" ipsec_hold)" ]
	check_err $? "cannot create netdevsim ${!var}"
}

# nsim_link NS ID NS ID
nsim_link()
{
	local a b i j

	i=$(ip netns exec "$1" cat "/sys/class/net/nsim$2/ifindex")
	j=$(ip netns exec "$3" cat "/sys/class/net/nsim$4/ifindex")
	exec {a}<"/var/run/netns/$1" {b}<"/var/run/netns/$3"
	echo "$a:$i $b:$j" >"$NSIM_BUS/link_device" ||
		check_err 1 "cannot link nsim$2 and nsim$4"
	exec {a}<&- {b}<&-
}

# nsim_counter ID NAME
nsim_counter()
{
	awk -v "name=$2" '$1 == name { print $2 }' \
		"$(nsim_file "$1" ipsec_counters)"
}

# check_nsim_counter ID NAME N
check_nsim_counter()
{
	local n

	n=$(nsim_counter "$1" "$2")
	[ "$n" -eq "$3" ]
	check_err $? "$2 is $n instead of $3"
}

# check_nsim_table ID SAS POLICIES
check_nsim_table()
{
	local sas policies

	sas=$(grep -c 'spi=' "$(nsim_file "$1" ipsec)")
	policies=$(grep -c '^pol' "$(nsim_file "$1" ipsec)")
	[ "$sas $policies" = "$2 $3" ]
	check_err $? "$sas SAs and $policies policies instead of $2 and $3"
}

# nsim_released ID: whether all that was added is deleted and freed
nsim_released()
{
	awk '{ n[$1] = $2 }
		END {
			exit n["sa_deleted"] != n["sa_added"] ||
			     n["sa_freed"] != n["sa_added"] ||
			     n["pol_deleted"] != n["pol_added"] ||
			     n["pol_freed"] != n["pol_added"]
		}' "$(nsim_file "$1" ipsec_counters)"
}

# check_nsim_released ID [CMD...]: by now, or in time with busywait TIMEOUT, for
# an SA that a user deletes is freed later.
check_nsim_released()
{
	local id=$1; shift

	"$@" nsim_released "$id"
	check_err $? \
		"not released: $(xargs <"$(nsim_file "$id" ipsec_counters)")"
}

nsim_errors()
{
	cat "$NSIM_DEBUG/ipsec_errors" 2>/dev/null || echo 0
}

# The stack has kept to the contract of struct xfrmdev_ops since the last time.
check_nsim_errors()
{
	local before=$NSIM_ERRORS

	NSIM_ERRORS=$(nsim_errors)
	[ "$NSIM_ERRORS" -le "$before" ]
	check_err $? "$((NSIM_ERRORS - before)) wrong calls of the driver"
}
