#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The key managers of another Debian suite, each with what it depends on in a root
# of its own below build/, for they conflict. Sourced by scripts/keymanagers, and by
# scripts/lab/litmus for how it downloads and unpacks.
# shellcheck disable=SC2154

# netbase has /etc/protocols, iproute2 and the shell are for pluto's own scripts.
declare -A KM_PACKAGES=(
	[charon]='strongswan-charon strongswan-swanctl libstrongswan-standard-plugins netbase'
	[pluto]='libreswan libnss3-tools netbase'
)

# Nothing counts as installed, so all that is needed comes.
km_download() {
	mkdir -p "$tmp/debs/partial"
	: >"$APT_DIR/status"
	apt_private apt-get -o "Dir::State::status=$APT_DIR/status" -o "Dir::Cache::archives=$tmp/debs/" \
		-o "APT::Architecture=$(dpkg --print-architecture)" -o APT::Install-Recommends=0 \
		--yes --download-only install "$@"
}

km_unpack() {
	local deb dir
	mkdir -p "$tmp/root"/{usr/{bin,sbin,lib,lib64},proc,sys,dev,run,tmp,etc,var}
	for dir in bin sbin lib lib64; do
		ln -s "usr/$dir" "$tmp/root/$dir"
	done
	for deb in "$tmp"/debs/*.deb; do
		dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$tmp/root" --keep-directory-symlink --no-same-owner || return
	done
	rm -rf "$tmp/root/var/run"
	ln -s /run "$tmp/root/var/run"
	dpkg-deb -f "$tmp/debs/${1}"_*.deb Version >"$tmp/root/.version"
}

# km_root DAEMON: build/roots/DAEMON, with the version in its file .version
km_root() {
	local packages root=$BUILD/roots/$1
	[ ! -s "$root/.version" ] || return 0
	need_space 2
	read -r -a packages <<<"${KM_PACKAGES[$1]}"
	apt_open trixie
	make_tmp
	run_logged "download of ${packages[0]}" "$BUILD/log/root-$1" km_download "${packages[@]}" ||
		die "cannot download ${packages[0]}: check the network and the mirror (see build/log/root-$1)"
	run_logged "root of $1" "$BUILD/log/root-$1" km_unpack "${packages[0]}" ||
		die "cannot unpack ${packages[0]}: see build/log/root-$1"
	mkdir -p "$BUILD/roots"
	rm -rf "$root"
	mv "$tmp/root" "$root"
	rm -rf "$tmp"
}
