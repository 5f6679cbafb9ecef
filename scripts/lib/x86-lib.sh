#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What the x86-64 lane needs beyond lib.sh, which comes first: its packages, and
# virtme-ng, which Debian 12 does not have: below build/.

X86_PACKAGES=(qemu-system-x86 busybox-static udev file dwarves libmnl-dev lz4
	python3-argcomplete python3-pkg-resources python3-requests)
VNG_DIR=$BUILD/tools/virtme-ng
VNG_SUITE=trixie

x86_deps() {
	local missing tmp
	[ "$(uname -m)" = x86_64 ] || die "this is a $(uname -m) machine: take an x86-64 one"
	need_cmd dpkg-query dpkg-deb
	mapfile -t missing < <(comm -23 <(printf '%s\n' "${X86_PACKAGES[@]}" | sort) \
		<({ dpkg-query -W -f '${db:Status-Abbrev} ${Package}\n' "${X86_PACKAGES[@]}" 2>/dev/null || :; } |
			awk '$1 == "ii" || $1 == "hi" { print $2 }' | sort))
	if [ ${#missing[@]} -gt 0 ]; then
		[ "$(id -u)" -eq 0 ] ||
			die "packages are missing, as root: apt-get install -y --no-install-recommends ${missing[*]}"
		export DEBIAN_FRONTEND=noninteractive
		need_space 1
		# shellcheck disable=SC2016
		run_logged "apt-get install" "$BUILD/log/x86-deps" bash -c '
			apt-get -q -o Acquire::Retries=3 update &&
			apt-get -q -y -o Acquire::Retries=3 install --no-install-recommends "$@"' \
			- "${missing[@]}" || die "apt-get failed (build/log/x86-deps): fix the machine's apt and try again"
	fi

	! vng_runs || return 0
	# shellcheck source=scripts/lib/apt-lib.sh
	. "$TOP/scripts/lib/apt-lib.sh"
	apt_open "$VNG_SUITE"
	tmp=$(mktemp -d "$BUILD/tmp.XXXXXX")
	# shellcheck disable=SC2064
	trap "rm -rf '$tmp'" EXIT
	run_logged "download of virtme-ng" "$BUILD/log/download" apt_fetch "$tmp/deb" virtme-ng ||
		die "no virtme-ng in $VNG_SUITE: check the network and the mirror (build/log/download)"
	dpkg-deb -x "$tmp"/deb/*.deb "$tmp/root"
	mkdir -p "$BUILD/tools"
	rm -rf "$VNG_DIR"
	mv "$tmp/root" "$VNG_DIR"
	rm -rf "$tmp"
	trap - EXIT
	vng_runs || die "virtme-ng of $VNG_SUITE does not run on this machine: see '${VNG_DIR#"$TOP"/}/usr/bin/vng --version'"
}

# It starts programs of its own by name, and writes to its user's home.
vng_env() {
	env PATH="$VNG_DIR/usr/bin:$PATH" PYTHONPATH="$VNG_DIR/usr/lib/python3/dist-packages" \
		PYTHONDONTWRITEBYTECODE=1 "$@"
}

vng_runs() {
	[ -x "$VNG_DIR/usr/bin/vng" ] && vng_env vng --version >/dev/null 2>&1
}
