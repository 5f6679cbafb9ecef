#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Packages of another Debian suite than the machine's, by way of a private apt
# directory below build/: the machine's own apt state stays as it is.
# shellcheck disable=SC2034,SC2154

apt_codename() {
	sed -n 's/^VERSION_CODENAME=//p' /etc/os-release
}

# apt_mirrors: URIs the machine has the Debian main archive from, each with the keyring
# that its source entry names. A third party may call its suite as Debian does; its key
# does not verify Debian's suites.
apt_mirrors() {
	local uri entry records
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(CREATED_BY) $(COMPONENT) $(RELEASE) $(REPO_URI) $(SOURCESENTRY)' 2>/dev/null |
		awk -v code="$(apt_codename)" '$1 == "Packages" && $2 == "main" &&
			($3 == code || $3 ~ /^(stable|testing|unstable|sid)$/) && !seen[$4]++ { print $4, $5 }' |
		while read -r uri entry; do
			# The number of a line, or of a paragraph
			records=$'\n'
			[[ $entry = *.list:* ]] || records=
			echo "$uri $(sed '/^#/d' "${entry%:*}" | awk -v RS="$records" -v n="${entry##*:}" 'NR == n' |
				sed -nE 's/.*signed-by[=:] *([^] ]+).*/\1/Ip')"
		done
}

# apt_private CMD...: an apt command that knows the suite of apt_open and nothing
# else. The machine's settings hold (a proxy), but not the hooks it has for updates.
apt_private() {
	local cmd=$1
	shift
	APT_CONFIG=$APT_DIR/apt.conf "$cmd" -q \
		-o "Dir::Etc::sourcelist=$APT_DIR/sources.list" -o Dir::Etc::sourceparts=- \
		-o "Dir::State::Lists=$APT_DIR/lists" -o "Dir::Cache=$APT_DIR/cache" \
		-o Dir::Etc::preferencesparts=- -o Dir::Etc::preferences=- \
		-o APT::Sandbox::User= -o APT::Update::Error-Mode=any \
		-o Acquire::Retries=3 -o Acquire::Languages=none \
		-o Debug::NoLocking=1 "$@"
}

# apt_open SUITE: makes SUITE the one of apt_private, and gets its package lists.
apt_open() {
	local suite=$1 uri key mirrors dir=$BUILD/apt/$1
	need_cmd apt-get apt-cache apt-config dpkg-deb
	APT_DIR=$dir
	mkdir -p "$dir/cache/archives/partial"
	{
		apt-config dump | grep -v -- '-Invoke'
		echo 'Dir::Etc::parts "/dev/null"; Dir::Etc::main "/dev/null";'
	} >"$dir/apt.conf"
	mirrors=$(apt_mirrors)
	# apt names only the archives that it has lists of.
	if [ -z "$mirrors" ] && [ "$(id -u)" -eq 0 ]; then
		run_logged "apt-get update" "$BUILD/log/apt-update" apt-get -q -o Acquire::Retries=3 update ||
			die "apt-get update failed (build/log/apt-update): fix the machine's apt"
		mirrors=$(apt_mirrors)
	fi
	[ -n "$mirrors" ] ||
		die "apt has no package lists of a Debian archive: check /etc/apt/sources.list* and run 'apt-get update' as root"
	while read -r uri key; do
		[ -r "$key" ] || key=/usr/share/keyrings/debian-archive-keyring.gpg
		echo "deb [signed-by=$key] $uri $suite main" >"$dir/sources.list"
		mkdir -p "$dir/lists/partial"
		if apt_private apt-get update >"$dir/log" 2>&1 &&
			grep -qs '^Origin: Debian' "$dir"/lists/*Release; then
			return 0
		fi
		rm -rf "$dir/lists"
	done <<<"$mirrors"
	die "no Debian mirror of this machine's apt sources serves $suite: check /etc/apt/sources.list* and the network (see ${dir#"$TOP"/}/log)"
}

# apt_deb SUITE PACKAGE[=VERSION]: sets DEB to the package, verified by apt, below tmp
apt_deb() {
	apt_open "$1"
	run_logged "download of $2" "$BUILD/log/download" apt_download "$tmp/deb-$2" "$2" ||
		die "no $2 in $1: check the network and the mirror (build/log/download)"
	DEB=$(ls "$tmp/deb-$2"/*.deb)
}

apt_download() {
	mkdir -p "$1"
	cd "$1" && apt_private apt-get download "$2"
}

# apt_source DIR PACKAGE: its source, verified by apt, unpacked into DIR/src
apt_source() {
	need_cmd dpkg-source
	sed -i '/^deb-src/d; p; s/^deb /deb-src /' "$APT_DIR/sources.list"
	apt_private apt-get update >"$APT_DIR/log" 2>&1 || return 1
	mkdir -p "$1"
	(cd "$1" && apt_private apt-get source --download-only --only-source "$2" &&
		dpkg-source --no-check -x ./*.dsc src)
}

# unpack_kernel DEB DIR: a linux-source package, as a git tree with the tag base
unpack_kernel() {
	run_logged "unpacking ${1##*/}" "$BUILD/log/unpack" kernel_tree "$1" ||
		die "cannot unpack ${1##*/} (build/log/unpack): remove it if it is in build/downloads, and try again"
	rm -rf "$2"
	mv "$tmp/linux" "$2"
}

kernel_tree() {
	mkdir -p "$tmp/linux"
	dpkg-deb --fsys-tarfile "$1" | tar -x -O --wildcards './usr/src/*.tar.xz' | tar -x -J -C "$tmp/linux" --strip-components=1 || return
	git -c init.defaultBranch=series init -q "$tmp/linux"
	cd "$tmp/linux" || exit
	git config gc.auto 0
	git config user.name "$SERIES_NAME"
	git config user.email "$SERIES_MAIL"
	# The package has files that the kernel's .gitignore names.
	tgit add -A -f
	export GIT_{AUTHOR,COMMITTER}_NAME=base GIT_{AUTHOR,COMMITTER}_EMAIL=base@xfrm.invalid \
		GIT_{AUTHOR,COMMITTER}_DATE='2026-01-01T00:00:00Z'
	tgit commit -q -m "$(dpkg-deb -f "$1" Package) $(dpkg-deb -f "$1" Version)"
	tgit tag base
}
