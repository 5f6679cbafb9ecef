#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC2016,SC2034,SC2154,SC2317,SC2329
#
# Shared by the xfrm_devgone*.sh tests: what happens to IPsec when the network
# device that offloads it leaves. netdevsim is the device, NSA the host under
# test:
#
#   +-----+        +-----------------------+             +-----+
#   | NSC |--veth--| NSA               DEV |--netdevsim--| NSB |
#   |     |  w1 w0 |                    v0 |----veth---- |     |
#   +-----+        +-----------------------+          v1 +-----+
#
# NSB has no IPsec at all: what gets there has left NSA in clear. NSA has two
# routes to it, by DEV and, with a worse metric, by v0. The addresses of pair P
# are 10.9.P.1 and fd09:P::1 on this side (P = 1, 2: NSA, P = 3: NSC), 10.9.P.2
# and fd09:P::2 in NSB. The far ends of tunnels, 10.11.0.2 and fd0b::2, are
# behind NSB, because a packet that the device is to encapsulate needs a
# neighbour to go to.

source lib.sh

PORT=4000
PACKETS=10
ALG=(aead 'rfc4106(gcm(aes))' 0x3132333435363738393031323334353664636261 128)
NSIM_BUS=/sys/bus/netdevsim
NSIM_DEBUG=/sys/kernel/debug/netdevsim
NSIM_NEXT=$((256 + RANDOM % 256))
# The netns that DEV comes from
DEV_BORN=NSA
SENTINELS=0

TMP=$(mktemp -d)
EVENTS=$TMP/events

cleanup()
{
	defer_scopes_cleanup
	cleanup_all_ns
	rm -rf "$TMP"
	check_stuck "clean-up"
	((EXIT_STATUS != ksft_fail)) || exit "$ksft_fail"
}

skip_all()
{
	log_test_skip "$1"
	exit "$EXIT_STATUS"
}

##############################################################################
# netdevsim

nsim_debug()
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

# Somebody else may use it by now, that is no failure.
unload()
{
	modprobe -q -r netdevsim || :
}

nsim_destroy()
{
	if nsim_exists "$1"; then
		cleanup_in_time "removal of netdevsim $1" nsim_del "$1"
	fi
}

# nsim_create VAR NS: a device nsim$VAR in NS, VAR is its bus id
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
	defer nsim_destroy "${!var}"
	[ -e "$(nsim_debug "${!var}" ipsec)" ]
	check_err $? "netdevsim ${!var} was not created"
}

# nsim_link NS ID NS ID
nsim_link()
{
	local a b i j

	i=$(ip netns exec "$1" cat "/sys/class/net/nsim$2/ifindex")
	j=$(ip netns exec "$3" cat "/sys/class/net/nsim$4/ifindex")
	exec {a}<"/var/run/netns/$1" {b}<"/var/run/netns/$3"
	echo "$a:$i $b:$j" >"$NSIM_BUS/link_device" ||
		check_err 1 "cannot link netdevsim $2 and $4"
	exec {a}<&- {b}<&-
}

# nsim_counter ID NAME
nsim_counter()
{
	awk -v "name=$2" '$1 == name { print $2 }' \
		"$(nsim_debug "$1" ipsec_counters)"
}

nsim_sa_count()
{
	sed -n 's/^SA count=\([0-9]*\) .*/\1/p' "$(nsim_debug "$1" ipsec)"
}

nsim_policy_count()
{
	grep -c '^pol' "$(nsim_debug "$1" ipsec)"
}

# The driver tells when the callbacks for an SA or policy do not balance.
nsim_complaints()
{
	dmesg | grep -cE -e 'tearing down IPsec offload with' \
		-e 'Invalid (SA|policy) for'
}

check_nsim_balance()
{
	local before=$COMPLAINTS

	COMPLAINTS=$(nsim_complaints)
	[ "$COMPLAINTS" -eq "$before" ]
	check_err $? "the driver complains $((COMPLAINTS - before)) times"
}

# nsim_has_freed ID KIND: all that it was given of sa or pol
nsim_has_freed()
{
	local n

	n=$(nsim_counter "$1" "$2_added")
	[ "$(nsim_counter "$1" "$2_deleted")" -eq "$n" ] &&
		[ "$(nsim_counter "$1" "$2_freed")" -eq "$n" ]
}

# check_nsim_empty ID
check_nsim_empty()
{
	[ "$(nsim_sa_count "$1")" -eq 0 ] &&
		[ "$(nsim_policy_count "$1")" -eq 0 ]
	check_err $? "nsim$1 still has SAs or policies"
	busywait "$BUSYWAIT_TIMEOUT" nsim_has_freed "$1" sa
	check_err $? "nsim$1 was not told to free all SAs that it was given"
	busywait "$BUSYWAIT_TIMEOUT" nsim_has_freed "$1" pol
	check_err $? "nsim$1 was not told to free all policies"
}

# Skips all when something is missing that no test can do without.
require_features()
{
	[ "$(id -u)" -eq 0 ] || skip_all "need root"
	require_command ping
	ip xfrm state help 2>&1 | grep -q 'crypto *| *packet' ||
		skip_all "iproute2 too old, no packet offload"
	if [ ! -w "$NSIM_BUS/new_device" ]; then
		modprobe -q netdevsim || skip_all "no netdevsim"
		defer cleanup_in_time "modprobe -r" unload
	fi
	if [ ! -d "$NSIM_DEBUG" ]; then
		mount -t debugfs none /sys/kernel/debug || skip_all "no debugfs"
		defer umount /sys/kernel/debug
	fi
	defer_scope_push
	setup_ns NSA
	defer cleanup_ns "$NSA"
	nsim_create probe "$NSA"
	nsim_exists "$probe" || {
		log_test "set-up"
		exit "$EXIT_STATUS"
	}
	[ -e "$(nsim_debug "$probe" ipsec)" ] ||
		skip_all "kernel without ESP offload"
	[ -e "$(nsim_debug "$probe" ipsec_counters)" ] ||
		skip_all "netdevsim without IPsec packet offload"
	ip -n "$NSA" xfrm state count >/dev/null || skip_all "no XFRM_USER"
	ip netns exec "$NSA" test -e /proc/net/xfrm_stat ||
		skip_all "kernel without XFRM_STATISTICS"
	defer_scope_pop
	RET=0
	COMPLAINTS=$(nsim_complaints)
}

##############################################################################
# Topology

# Also after DEV has been down, which takes routes and IPv6 addresses away.
dev_up()
{
	local via4="via 10.0.0.2 dev $DEV metric 10"
	local via6="via fd00::2 dev $DEV metric 10"

	ip -n "$NSA" -batch - <<-EOF
		link set $DEV up
		addr replace 10.0.0.1/24 dev $DEV
		addr replace fd00::1/64 dev $DEV nodad
		route replace 10.11.0.0/24 via 10.0.0.2 dev $DEV
		route replace fd0b::/64 via fd00::2 dev $DEV
		route replace 10.9.1.2 $via4 src 10.9.1.1
		route replace 10.9.2.2 $via4 src 10.9.2.1
		route replace 10.9.3.2 $via4
		route replace fd09:1::2 $via6 src fd09:1::1
		route replace fd09:2::2 $via6 src fd09:2::1
		route replace fd09:3::2 $via6
	EOF
	check_err $? "cannot set up $DEV"
}

# peer_route dev|veth: the way from NSB to the addresses of NSA and NSC
peer_route()
{
	local via4="via 10.0.0.1 dev $PEER" via6="via fd00::1 dev $PEER" p

	if [ "$1" = veth ]; then
		via4="via 10.0.1.1 dev v1" via6="via fd01::1 dev v1"
	fi
	for p in 1 2 3; do
		echo "route replace 10.9.$p.1 $via4 src 10.9.$p.2"
		echo "route replace fd09:$p::1 $via6 src fd09:$p::2"
	done | ip -n "$NSB" -batch -
	check_err $? "cannot set routes in NSB"
}

# Without what it needs a test says nothing about the kernel.
setup_done()
{
	((RET == 0)) || log_test "set-up"
}

setup_topology()
{
	check_stuck
	setup_ns NSA NSB NSC
	defer cleanup_ns "$NSA" "$NSB" "$NSC"
	nsim_create NSIM "${!DEV_BORN}"
	nsim_create NSIM_PEER "$NSB"
	DEV=nsim$NSIM
	if [ "$DEV_BORN" != NSA ]; then
		ip -n "${!DEV_BORN}" link set "$DEV" netns "$NSA"
		check_err $? "cannot move $DEV"
	fi
	PEER=nsim$NSIM_PEER
	nsim_link "$NSA" "$NSIM" "$NSB" "$NSIM_PEER"
	ip link add v0 netns "$NSA" type veth peer name v1 netns "$NSB"
	ip link add w0 netns "$NSA" type veth peer name w1 netns "$NSC"
	ip netns exec "$NSA" sysctl -qw net.ipv4.ip_forward=1 \
		net.ipv6.conf.all.forwarding=1
	ip -n "$NSA" -batch - <<-EOF
		link set v0 up
		link set w0 up
		addr add 10.0.1.1/24 dev v0
		addr add fd01::1/64 dev v0 nodad
		addr add 10.0.2.1/24 dev w0
		addr add fd02::1/64 dev w0 nodad
		addr add 10.9.1.1/32 dev lo
		addr add 10.9.2.1/32 dev lo
		addr add fd09:1::1/128 dev lo nodad
		addr add fd09:2::1/128 dev lo nodad
		route add 10.9.1.2 via 10.0.1.2 dev v0 src 10.9.1.1 metric 20
		route add 10.9.2.2 via 10.0.1.2 dev v0 src 10.9.2.1 metric 20
		route add 10.9.3.2 via 10.0.1.2 dev v0 metric 20
		route add fd09:1::2 via fd01::2 dev v0 src fd09:1::1 metric 20
		route add fd09:2::2 via fd01::2 dev v0 src fd09:2::1 metric 20
		route add fd09:3::2 via fd01::2 dev v0 metric 20
		route add 10.9.3.1 via 10.0.2.2 dev w0
		route add fd09:3::1 via fd02::2 dev w0
	EOF
	check_err $? "cannot set up NSA"
	ip -n "$NSB" -batch - <<-EOF
		link set $PEER up
		link set v1 up
		addr add 10.0.0.2/24 dev $PEER
		addr add fd00::2/64 dev $PEER nodad
		addr add 10.0.1.2/24 dev v1
		addr add fd01::2/64 dev v1 nodad
		addr add 10.9.1.2/32 dev lo
		addr add 10.9.2.2/32 dev lo
		addr add 10.9.3.2/32 dev lo
		addr add fd09:1::2/128 dev lo nodad
		addr add fd09:2::2/128 dev lo nodad
		addr add fd09:3::2/128 dev lo nodad
		route add default via 10.0.1.1 dev v1
		route add default via fd01::1 dev v1
	EOF
	check_err $? "cannot set up NSB"
	ip -n "$NSC" -batch - <<-EOF
		link set w1 up
		addr add 10.0.2.2/24 dev w1
		addr add fd02::2/64 dev w1 nodad
		addr add 10.9.3.1/32 dev lo
		addr add fd09:3::1/128 dev lo nodad
		route add default via 10.0.2.1 dev w1
		route add default via fd02::1 dev w1
		route add 10.9.3.2 via 10.0.2.1 dev w1 src 10.9.3.1
		route add fd09:3::2 via fd02::1 dev w1 src fd09:3::1
	EOF
	check_err $? "cannot set up NSC"
	dev_up
	peer_route veth
	setup_done
}

# addr FAMILY PAIR SIDE
addr()
{
	if [ "$1" -eq 4 ]; then
		echo "10.9.$2.$3"
	else
		echo "fd09:$2::$3"
	fi
}

##############################################################################
# States and policies

# sa_ends MODE FAMILY PAIR DIR
sa_ends()
{
	local mode=$1; shift
	local family=$1; shift
	local pair=$1; shift
	local dir=$1; shift
	local near far

	near=$(addr "$family" "$pair" 1)
	far=$(addr "$family" "$pair" 2)
	if [ "$mode $family" = "tunnel 4" ]; then
		near=10.0.0.1 far=10.11.0.2
	elif [ "$mode" = tunnel ]; then
		near=fd00::1 far=fd0b::2
	fi
	if [ "$dir" = out ]; then
		echo "src $near dst $far"
	else
		echo "src $far dst $near"
	fi
}

# sa_add SPI DIR MODE FAMILY PAIR [ARGS...]: in NSA
sa_add()
{
	local spi=$1; shift
	local dir=$1; shift
	local mode=$1; shift
	local family=$1; shift
	local pair=$1; shift
	local -a ends

	read -ra ends < <(sa_ends "$mode" "$family" "$pair" "$dir")
	ip -n "$NSA" xfrm state add "${ends[@]}" proto esp spi "$spi" \
		reqid "$family$pair" mode "$mode" "${ALG[@]}" "$@"
}

# sa_offload TYPE SPI DIR MODE FAMILY PAIR: to DEV
sa_offload()
{
	local type=$1; shift

	sa_add "$@" offload "$type" dev "$DEV" dir "$2"
	check_err $? "cannot add $type offloaded SA $1"
}

# pol_sel DIR FAMILY PAIR: as ip shows it
pol_sel()
{
	local len=32

	[ "$2" -eq 4 ] || len=128
	if [ "$1" = out ]; then
		echo "src $(addr "$2" "$3" 1)/$len dst $(addr "$2" "$3" 2)/$len"
	else
		echo "src $(addr "$2" "$3" 2)/$len dst $(addr "$2" "$3" 1)/$len"
	fi
}

# pol COMMAND DIR MODE FAMILY PAIR [ARGS...]: in NSA, MODE none: no template
pol()
{
	local command=$1; shift
	local dir=$1; shift
	local mode=$1; shift
	local family=$1; shift
	local pair=$1; shift
	local -a sel ends tmpl=()

	read -ra sel < <(pol_sel "$dir" "$family" "$pair")
	if [ "$mode" != none ]; then
		read -ra ends < <(sa_ends "$mode" "$family" "$pair" "$dir")
		tmpl=(tmpl "${ends[@]}" proto esp reqid "$family$pair")
		tmpl+=(mode "$mode")
	fi
	ip -n "$NSA" xfrm policy "$command" "${sel[@]}" dir "$dir" "$@" \
		"${tmpl[@]}"
}

# pol_offload DIR MODE FAMILY PAIR [ARGS...]: to DEV
pol_offload()
{
	pol add "$@" offload packet dev "$DEV"
	check_err $? "cannot add offloaded policy $*"
}

# pol_state DIR FAMILY PAIR: what the policy does, "offload" if it has a device
pol_state()
{
	local -a sel
	local shown

	read -ra sel < <(pol_sel "$@")
	shown=$(ip -n "$NSA" xfrm policy get "${sel[@]}" dir "$1" 2>/dev/null)
	case $shown in
	"") echo gone ;;
	*offload*) echo offload ;;
	*"action block"*) echo block ;;
	*) echo allow ;;
	esac
}

# check_pol DIR FAMILY PAIR STATE
check_pol()
{
	local state

	state=$(pol_state "$1" "$2" "$3")
	[ "$state" = "$4" ]
	check_err $? "policy $1, IPv$2: $state instead of $4"
}

sa_count()
{
	ip -n "${1:-$NSA}" xfrm state count | sed 's/.* //'
}

# check_sa_count N [NS]
check_sa_count()
{
	local n

	n=$(sa_count "${2:-$NSA}")
	[ "$n" -eq "$1" ]
	check_err $? "$n SAs instead of $1"
}

xfrm_stat()
{
	ip netns exec "$1" awk -v "name=$2" '$1 == name { print $2 }' \
		/proc/net/xfrm_stat
}

##############################################################################
# Departure

depart_now()
{
	case $1 in
	down)
		ip -n "$NSA" link set "$DEV" down
		;;
	del_port)
		echo 0 >"$NSIM_BUS/devices/netdevsim$NSIM/del_port"
		;;
	del_device)
		echo "$NSIM" >"$NSIM_BUS/del_device"
		;;
	rmmod)
		rmmod netdevsim
		;;
	move)
		ip -n "$NSA" link set "$DEV" netns "$NSC"
		;;
	*)
		"$@"
		;;
	esac
}

# depart HOW: a trigger or a command
depart()
{
	in_time "$1" depart_now "$@"
	case $1 in
	down | move)
		# which would keep RTNL, and the test goes on with it
		check_stuck "$1"
		;;
	esac
}

##############################################################################
# Notifications

# The end of a line of the monitor
HARD='.*hard 1\\$'
SOFT='.*hard 0\\$'

monitor_listens()
{
	ip netns exec "$NSA" awk -v "pid=$1" '
		$2 == 6 && $3 == pid { found = 1 }
		END { exit !found }' /proc/net/netlink
}

monitor_start()
{
	SENTINELS=0
	: >"$EVENTS"
	ip -n "$NSA" -o -s xfrm monitor expire >"$EVENTS" &
	MONITOR=$!
	defer kill_process "$MONITOR"
	busywait "$BUSYWAIT_TIMEOUT" monitor_listens "$MONITOR"
	check_err $? "the monitor does not listen"
}

# monitor_sync [SECONDS]: a software SA expires that long after this. When its
# message has been read, so has all that was sent before, and whatever is sent
# twice had SECONDS to arrive.
monitor_sync()
{
	local seconds=${1:-1} spi

	SENTINELS=$((SENTINELS + 1))
	spi=$(printf '0x5e11%04x' "$SENTINELS")
	ip -n "$NSA" xfrm state add src 192.0.2.1 dst 192.0.2.2 proto esp \
		spi "$spi" reqid 9999 mode transport "${ALG[@]}" \
		limit time-hard "$seconds"
	check_err $? "cannot add the sentinel"
	busywait $((BUSYWAIT_TIMEOUT + seconds * 1000)) \
		grep -qE "spi $spi\\($HARD" "$EVENTS"
	check_err $? "the sentinel did not expire"
}

# heard REGEX
heard()
{
	grep -cE "^Expired $1" "$EVENTS"
}

sa_told()
{
	heard "[^/]* spi $(printf '0x%08x' "$1")\($HARD"
}

# check_sa_told SPI...: exactly once each
check_sa_told()
{
	local spi n

	for spi in "$@"; do
		n=$(sa_told "$spi")
		[ "$n" -eq 1 ]
		check_err $? "SA $spi: $n hard expiries instead of 1"
	done
}

# check_pol_told DIR FAMILY PAIR: exactly once
check_pol_told()
{
	local n

	n=$(heard "$(pol_sel "$1" "$2" "$3") .*dir $1 $HARD")
	[ "$n" -eq 1 ]
	check_err $? "policy $1, IPv$2: $n hard expiries instead of 1"
}

# check_told_total N: and nothing else
check_told_total()
{
	local n

	n=$(($(heard "$HARD") - SENTINELS))
	[ "$n" -eq "$1" ]
	check_err $? "$n hard expiries in all instead of $1"
}

##############################################################################
# Traffic

# udp_send NS ADDRESS: PACKETS datagrams, each from a socket of its own; says
# how many were refused with EPERM
udp_send()
{
	ip netns exec "$1" env LC_ALL=C bash -c '
		for ((i = 0; i < $2; i++)); do
			err=$({ echo x >"/dev/udp/$0/$1"; } 2>&1) && continue
			[[ $err != *"not permitted"* ]] || eperm=$((eperm + 1))
		done
		echo "$((eperm))"' "$2" "$PORT" "$PACKETS"
}

# received NS FAMILY: datagrams for which there is no socket, as there is none
received()
{
	if [ "$2" -eq 4 ]; then
		ip netns exec "$1" awk '
			/^Udp:/ && n { print $n }
			/^Udp:/ {
				for (i = 1; i <= NF; i++)
					if ($i == "NoPorts")
						n = i
			}' /proc/net/snmp
	else
		ip netns exec "$1" awk '$1 == "Udp6NoPorts" { print $2 }' \
			/proc/net/snmp6
	fi
}

# settle NS ADDRESS...: what was sent before on the same way has arrived when
# the reply of an unprotected address is there
settle()
{
	local ns=$1; shift
	local address

	for address in "$@"; do
		busywait "$BUSYWAIT_TIMEOUT" ip netns exec "$ns" \
			ping -q -c 1 -W 1 "$address" >/dev/null 2>&1
		check_err $? "no way to $address"
	done
}

# Addresses of NSB on the link of DEV and on the other one
BY_DEV=(10.0.0.2 fd00::2)
BY_VETH=(10.0.1.2 fd01::2)
