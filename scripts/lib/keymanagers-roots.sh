#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The key managers of another Debian suite, each with what it depends on in a root
# of its own below build/, for they conflict. Sourced by scripts/keymanagers, and by
# scripts/lab/litmus for how it downloads and unpacks.

KM_SUITE=trixie
# netbase has /etc/protocols, iproute2 and the shell are for pluto's own scripts.
declare -A KM_PACKAGES=(
	[charon]='strongswan-charon strongswan-swanctl libstrongswan-standard-plugins netbase'
	[pluto]='libreswan libnss3-tools netbase'
)
declare -A KM_NAME=([charon]=strongswan-charon [pluto]=libreswan)

km_download() {
	local dir=$1
	shift
	mkdir -p "$dir/partial"
	: >"$APT_DIR/status"
	# Nothing counts as installed, so all that is needed comes.
	apt_private apt-get -o "Dir::State::status=$APT_DIR/status" -o "Dir::Cache::archives=$dir/" \
		-o "APT::Architecture=$(dpkg --print-architecture)" -o APT::Install-Recommends=0 \
		--yes --download-only install "$@"
}

km_unpack() {
	local root=$1 deb
	shift
	mkdir -p "$root"/{usr/{bin,sbin,lib,lib64},proc,sys,dev,run,tmp,etc,var}
	for deb in bin sbin lib lib64; do
		ln -s "usr/$deb" "$root/$deb"
	done
	for deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$root" --keep-directory-symlink --no-same-owner
	done
	rm -rf "$root/var/run"
	ln -s /run "$root/var/run"
}

# km_root DAEMON: build/roots/DAEMON, with the version in its file .version
km_root() {
	local daemon=$1 root=$BUILD/roots/$1 tmp
	[ ! -s "$root/.version" ] || return 0
	need_space 2
	need_cmd apt-get dpkg-deb tar
	[ -n "${KM_OPEN:-}" ] || apt_open "$KM_SUITE"
	KM_OPEN=y
	mkdir -p "$BUILD/roots"
	tmp=$(mktemp -d "$BUILD/roots/tmp.XXXXXX")
	# shellcheck disable=SC2064
	trap "rm -rf '$tmp'" EXIT
	# shellcheck disable=SC2086
	run_logged "download of ${KM_NAME[$daemon]}" "$BUILD/log/root-$daemon" \
		km_download "$tmp/debs" ${KM_PACKAGES[$daemon]} ||
		die "cannot download ${KM_NAME[$daemon]} of $KM_SUITE: check the network and the mirror (see build/log/root-$daemon)"
	run_logged "root of $daemon" "$BUILD/log/root-$daemon" km_unpack "$tmp/tree" "$tmp"/debs/*.deb ||
		die "cannot unpack ${KM_NAME[$daemon]}: see build/log/root-$daemon"
	dpkg-deb -f "$tmp/debs/${KM_NAME[$daemon]}"_*.deb Version >"$tmp/tree/.version"
	rm -rf "$root"
	mv "$tmp/tree" "$root"
	rm -rf "$tmp"
	trap - EXIT
}
