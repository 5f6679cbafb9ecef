#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC1091,SC2016,SC2034,SC2153,SC2154,SC2317,SC2329
#
# Policies with packet offload are kept in software when their device goes away:
# what they protect neither leaves nor is accepted in clear.
#
#   C (10.7) --w0-- A (10.8) --nsim, or v0 when it is gone-- B (10.9)
#
# The datagrams that policy and SA I are for go to 10.N.I.1 or fd0N:I::1.

source "$(dirname "$0")/xfrm_nsim_lib.sh"

ALL_TESTS="test_clear test_again test_carrier test_xfrmi test_tcp test_optional
	test_priority"

# From, to, direction of the policy in A, family, mode, length of the prefixes
ROWS=(
	"" # no policy
	"A B out 4 transport 32 main"
	"B A in 4 transport 32 main"
	"A B out 6 tunnel 32 main"
	"A B out 6 transport 128 sub"
	"A B out 4 block 24 main"
	"C B out 4 tunnel 24 main"
	"B A in 6 tunnel 32 main"
	"B A in 4 tunnel 24 sub"
	"B A in 6 block 128 main"
	"B C fwd 4 tunnel 32 main"
	"B C fwd 4 block 24 main"
)
declare -A NET=([A]=8 [B]=9 [C]=7)
# Datagrams for each check
N=3

# addr FAMILY HOST I
addr()
{
	[ "$1" -eq 6 ] || { echo "10.${NET[$2]}.$3.1"; return; }
	echo "fd0${NET[$2]}:$3::1"
}

# row I: sets what the functions below use
row()
{
	local mode len ptype

	I=$1
	read -r FROM TO DIR FAMILY MODE len ptype <<<"${ROWS[I]}"
	SRC=$(addr "$FAMILY" "$FROM" 0) DST=$(addr "$FAMILY" "$TO" "$I")
	SELECTOR=(src "$SRC/$len" dst "$DST/$len" dir "$DIR" ptype "$ptype")
	ENDS=(src "$SRC" dst "$DST")
	if [ "$MODE" = tunnel ]; then
		ENDS=(src "$(addr "$FAMILY" A 0)" dst "$(addr "$FAMILY" B 0)")
		[ "$DIR" = out ] || ENDS=(src "${ENDS[3]}" dst "${ENDS[1]}")
	fi
	TMPL=(tmpl "${ENDS[@]}" proto esp reqid "$I" mode "$MODE")
	[ "$MODE" != block ] || TMPL=(action block)
}

# pol COMMAND [ARGS...], in A
pol()
{
	local command=$1; shift

	ip -n "$A" xfrm policy "$command" "${SELECTOR[@]}" "$@" "${TMPL[@]}"
}

# sa NS [ARGS...]
sa()
{
	local ns=$1; shift

	ip -n "$ns" xfrm state add "${ENDS[@]}" proto esp spi $((0x1000 + I)) \
		reqid "$I" mode "$MODE" "${IPSEC_ALG[@]}" "$@"
}

# offload DEV [COMMAND]: policy and SA
offload()
{
	pol "${2:-add}" offload packet dev "$1"
	check_err $? "cannot offload policy $I"
	[ "$MODE" = block ] ||
		sa "$A" offload packet dev "$1" dir "${DIR/fwd/in}"
	check_err $? "cannot offload SA $I"
}

# Also after the device was down, which takes addresses and routes away
dev_up()
{
	ip -n "$A" -batch - <<-EOT
		link set $DEV up
		addr replace 10.0.0.1/24 dev $DEV
		addr replace fd00::1/64 dev $DEV nodad
		route replace 10.9.0.0/16 via 10.0.0.2 src 10.8.0.1 metric 10
		route replace fd09::/16 via fd00::2 src fd08::1 metric 10
	EOT
	check_err $? "cannot set up $DEV"
}

# All addresses of the nets are local.
setup()
{
	RET=0
	setup_ns A B C
	defer cleanup_ns "$A" "$B" "$C"
	nsim_create ID "$A"
	nsim_create PEER "$B"
	nsim_link "$A" "$ID" "$B" "$PEER"
	DEV=nsim$ID
	ip link add v0 up netns "$A" type veth peer name v0 netns "$B"
	ip link add w0 up netns "$A" type veth peer name w0 netns "$C"
	ip netns exec "$A" sysctl -qw net.ipv4.ip_forward=1
	ip -n "$A" -batch - <<-EOT
		addr add 10.8.0.1/16 dev lo
		addr add fd08::1/128 dev lo nodad
		route add local fd08::/16 dev lo
		addr add 10.0.1.1/24 dev v0
		addr add fd01::1/64 dev v0 nodad
		addr add 10.0.2.1/24 dev w0
		route add 10.9.0.0/16 via 10.0.1.2 src 10.8.0.1 metric 20
		route add fd09::/16 via fd01::2 src fd08::1 metric 20
		route add 10.7.0.0/16 via 10.0.2.2
	EOT
	check_err $? "cannot set up A"
	ip -n "$B" -batch - <<-EOT
		link set v0 up
		addr add 10.9.0.1/16 dev lo
		addr add fd09::1/128 dev lo nodad
		route add local fd09::/16 dev lo
		addr add 10.0.0.2/24 dev nsim$PEER
		addr add fd00::2/64 dev nsim$PEER nodad
		addr add 10.0.1.2/24 dev v0
		addr add fd01::2/64 dev v0 nodad
		route add default via 10.0.1.1 src 10.9.0.1
		route add default via fd01::1 src fd09::1
	EOT
	check_err $? "cannot set up B"
	ip -n "$C" -batch - <<-EOT
		link set w0 up
		addr add 10.7.0.1/16 dev lo
		addr add 10.0.2.2/24 dev w0
		route add default via 10.0.2.1 src 10.7.0.1
	EOT
	check_err $? "cannot set up C"
	dev_up
}

# received NS: datagrams for which there is no socket, as there is none
received()
{
	ip netns exec "$1" awk '/^Udp:/ { v4 = $3 } /^Udp6NoPorts/ { v6 = $2 }
		END { print v4 + v6 }' /proc/net/snmp /proc/net/snmp6
}

# check_passes COUNT: of N datagrams. One that no policy is for follows them.
check_passes()
{
	local before n

	before=$(($(received "${!TO}") + 1))
	ip netns exec "${!FROM}" bash -c 'for ((i = 0; i < $0; i++)); do
		echo x >"/dev/udp/$1/4000"; done; echo x >"/dev/udp/$2/4000"' \
		"$N" "$DST" "$(addr "$FAMILY" "$TO" 99)" 2>/dev/null
	busywait "$BUSYWAIT_TIMEOUT" until_counter_is ">= $((before + $1))" \
		received "${!TO}" >/dev/null
	n=$(($(received "${!TO}") - before))
	[ "$n" -eq "$1" ]
	check_err $? "$n of $N datagrams get through instead of $1"
}

used()
{
	ip -n "$A" -s xfrm state get "${ENDS[@]}" proto esp \
		spi $((0x1000 + I)) | grep -q " $1(packets)"
}

# check_sa [ARGS...]: with it in both hosts all datagrams get through
check_sa()
{
	sa "$A" "$@" && sa "$B"
	check_err $? "cannot add SA $I"
	check_passes "$N"
	used "$N"
	check_err $? "not by the SA"
}

# gone CMD...: the device goes away, and so do the SAs
gone()
{
	in_time "$*" "$@"
	busywait "$BUSYWAIT_TIMEOUT" eval \
		'ip -n "$A" xfrm state count | grep -q " 0$"'
	check_err $? "SAs are left"
}

# check_policies N OFFLOADED
check_policies()
{
	local shown

	shown=$(ip -n "$A" -o xfrm policy list nosock)
	[ "$(grep -c . <<<"$shown") $(grep -c offload <<<"$shown")" = "$1 $2" ]
	check_err $? "not $1 policies, $2 with a device"
}

# monitor OBJECT: what A hears is in EVENTS
monitor()
{
	ip -n "$A" -o xfrm monitor "$1" >"$EVENTS" &
	defer kill_process $!
	monitor_listens "$A" $!
}

test_clear()
{
	local i

	setup
	for ((i = 1; i < ${#ROWS[@]}; i++)); do
		row "$i"
		offload "$DEV"
		[[ $DIR != out || $MODE = block ]] || check_passes 0
	done
	check_nsim_counter "$ID" tx_encrypted $((4 * N))
	gone nsim_del "$ID"
	check_nsim_errors
	((RET == 0)) || log_test "set-up"

	for ((i = 1; i < ${#ROWS[@]}; i++)); do
		RET=0
		row "$i"
		check_passes 0
		log_test "nothing in clear: ${ROWS[i]}"
	done

	RET=0
	monitor acquire
	for i in 1 3 4 6; do
		row "$i"
		check_passes 0
		busywait "$BUSYWAIT_TIMEOUT" \
			grep -q "^acquire.* dst $DST/" "$EVENTS"
		check_err $? "no acquire for policy $i"
	done
	log_test "a key manager is asked"
}

# told TEXT: what became of policies, and nothing else, is in EVENTS
told()
{
	[ "$(sed -n 's/^\([UD][a-z]* src [^ ]*\).*/\1/p' "$EVENTS" | sort |
		xargs)" = "$1" ]
}

# A policy without template is deleted, the others take SAs in software. By
# another device a policy is added, by the same one it is updated.
test_again()
{
	setup
	row 3
	TMPL=()
	pol add offload packet dev "$DEV"
	row 2
	offload "$DEV"
	row 1
	offload "$DEV"
	monitor policy
	gone ip -n "$A" link set "$DEV" down
	check_sa
	row 2
	check_passes 0
	ip -n "$B" xfrm policy add "${ENDS[@]}" dir out "${TMPL[@]}"
	check_sa
	check_policies 2 0
	log_test "traffic goes on in software"

	RET=0
	busywait "$BUSYWAIT_TIMEOUT" told "Deleted src fd08::1/32 \
Updated src 10.8.0.1/32 Updated src 10.9.0.1/32"
	check_err $? "not what a listener hears: $(grep "^[UD]" "$EVENTS")"
	log_test "listeners hear of policies"

	RET=0
	row 1
	ip -n "$A" xfrm state flush
	nsim_create OTHER "$A"
	ip -n "$A" -batch - <<-EOT
		addr add 10.0.5.1/24 dev nsim$OTHER
		neigh add 10.0.5.2 lladdr 02:00:00:00:00:02 dev nsim$OTHER
		route add $DST via 10.0.5.2 src $SRC metric 5
	EOT
	check_policies 2 0
	offload "nsim$OTHER"
	pol add 2>/dev/null
	check_fail $? "a policy is added twice"
	check_passes 0
	check_nsim_counter "$OTHER" tx_encrypted "$N"
	log_test "traffic goes on by another device"

	RET=0
	gone nsim_del "$OTHER"
	dev_up
	check_passes 0
	check_nsim_counter "$ID" tx_encrypted 0
	offload "$DEV" update
	check_passes 0
	check_nsim_counter "$ID" tx_encrypted "$N"
	log_test "traffic goes on by the same device"
}

test_carrier()
{
	setup
	row 1
	offload "$DEV"
	ip -n "$B" link set "nsim$PEER" down
	ip -n "$A" link show "$DEV" | grep -q NO-CARRIER
	check_err $? "$DEV has a carrier"
	check_nsim_table "$ID" 1 1
	check_policies 1 1
	log_test "carrier is lost: nothing changes"
}

# The interface drops what has no policy: without it nothing goes on.
test_xfrmi()
{
	setup
	row 6
	FROM=A
	SELECTOR=(dst "$DST/24" dir out if_id 42)
	ip -n "$A" -batch - <<-EOT
		link add ipsec0 up type xfrm if_id 42
		route add $DST dev ipsec0 src 10.8.0.1 metric 5
	EOT
	pol add offload packet dev "$DEV" &&
		sa "$A" if_id 42 offload packet dev "$DEV" dir out
	check_err $? "cannot offload"
	check_passes 0
	check_nsim_counter "$ID" tx_encrypted "$N"
	gone nsim_del "$ID"
	ip -n "$B" xfrm policy add dst "$DST" dir in "${TMPL[@]}"
	check_sa if_id 42
	log_test "traffic of an xfrm interface goes on"
}

# The connection is older than the policy. Its second line waits for the SA.
test_tcp()
{
	local fd

	setup
	row 1
	ip netns exec "$B" python3 -uc '
import socket, sys
sk = socket.create_server((sys.argv[1], 5000))
print("ready")
con = sk.accept()[0]
while data := con.recv(100):
    print(data.decode(), end="")' "$DST" >"$EVENTS" &
	defer kill_process $!
	busywait "$BUSYWAIT_TIMEOUT" grep -q ready "$EVENTS"
	coproc CLIENT {
		exec ip netns exec "$A" bash -c \
			'exec 3>"/dev/tcp/$0/5000"; exec cat >&3' "$DST"
	}
	defer kill_process "$CLIENT_PID"
	exec {fd}>&"${CLIENT[1]}"
	echo one >&"$fd"
	busywait "$BUSYWAIT_TIMEOUT" grep -q one "$EVENTS"
	check_err $? "no connection"
	offload "$DEV"
	gone nsim_del "$ID"
	echo two >&"$fd"
	sa "$A" && sa "$B"
	busywait "$BUSYWAIT_TIMEOUT" grep -q two "$EVENTS"
	check_err $? "the connection does not go on"
	used '[1-9][0-9]*'
	check_err $? "not by the SA"
	exec {fd}>&-
	log_test "a TCP connection goes on"
}

test_optional()
{
	setup
	row 1
	TMPL+=(level use)
	pol add offload packet dev "$DEV"
	check_err $? "cannot offload the policy"
	gone nsim_del "$ID"
	check_passes "$N"
	check_sa
	log_test "an optional template stays optional"
}

# A block is better than a bypass, also when a policy for others is offloaded,
# and when that one is replaced in software.
test_priority()
{
	local other="src 10.8.7.0/24 dst 10.9.7.0/24 dir out priority 200"

	setup
	row 1
	ip -n "$A" -batch - <<-EOT
		xfrm policy add src 10.8.0.0/16 dst 10.9.0.0/16 dir out \
			priority 100 action block
		xfrm policy add src 10.8.0.1 dst $DST dir out priority 150
		xfrm policy add src 10.8.0.1 dst $(addr 4 B 99) dir out
	EOT
	check_passes 0
	ip -n "$A" -batch - <<<"xfrm policy add $other offload packet dev $DEV"
	check_err $? "cannot offload a policy"
	check_passes 0
	log_test "priority, a policy for others is offloaded"

	RET=0
	ip -n "$A" -batch - <<<"xfrm policy update $other"
	check_passes 0
	log_test "priority, a policy for others is replaced"
}

EVENTS=$(mktemp)
trap 'defer_scopes_cleanup; rm -f "$EVENTS"' EXIT
nsim_require_ipsec
require_command python3
tests_run
exit "$EXIT_STATUS"
