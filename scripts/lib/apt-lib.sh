#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Packages of another Debian suite than the machine's, by way of a private apt
# directory below build/: the machine's own apt state stays as it is.

apt_codename() {
	sed -n 's/^VERSION_CODENAME=//p' /etc/os-release
}

# The keyring a machine's source entry for a URI is signed by, if it names one.
apt_keyring() {
	local uri=${1%/}
	{ cat /etc/apt/sources.list.d/*.sources 2>/dev/null || :; } | sed '/^#/d' |
		awk -v RS= -v uri="$uri" '{
			n = split($0, line, "\n"); hit = 0; key = ""
			for (i = 1; i <= n; i++) {
				m = split(line[i], w, /[ \t]+/)
				if (tolower(w[1]) == "uris:")
					for (j = 2; j <= m; j++) {
						sub(/\/$/, "", w[j])
						if (w[j] == uri)
							hit = 1
					}
				if (tolower(w[1]) == "signed-by:")
					key = w[2]
			}
			if (hit && key)
				print key
		}'
	{ cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null || :; } |
		awk -v uri="$uri" '$1 ~ /^deb/ && index($0, uri) &&
			match($0, /signed-by=[^] ]*/) {
				print substr($0, RSTART + 10, RLENGTH - 10)
			}'
}

# apt_mirrors: URIs the machine has the Debian main archive from. A third party
# may call its suite as Debian does; its key does not verify Debian's suites.
apt_mirrors() {
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(CREATED_BY) $(COMPONENT) $(RELEASE) $(REPO_URI)' 2>/dev/null |
		awk -v code="$(apt_codename)" '$1 == "Packages" && $2 == "main" &&
			($3 == code || $3 ~ /^(stable|testing|unstable|sid)$/) &&
			!seen[$4]++ { print $4 }'
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
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
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
	for uri in $mirrors; do
		key=$(apt_keyring "$uri" | head -n 1)
		[ -r "$key" ] || key=/usr/share/keyrings/debian-archive-keyring.gpg
		echo "deb [signed-by=$key] $uri $suite main" >"$dir/sources.list"
		if apt_private apt-get update >"$dir/log" 2>&1 &&
			grep -qs '^Origin: Debian' "$dir"/lists/*Release; then
			return 0
		fi
		rm -rf "$dir/lists"
		mkdir -p "$dir/lists/partial"
	done
	die "no Debian mirror of this machine's apt sources serves $suite: check /etc/apt/sources.list* and the network (see ${dir#"$TOP"/}/log)"
}

# apt_fetch DIR PACKAGE[=VERSION]: download a .deb, verified by apt, into DIR
apt_fetch() {
	local dir=$1 what=$2
	mkdir -p "$dir"
	(cd "$dir" && apt_private apt-get download "$what")
}

# apt_versions PACKAGE: the versions the suite has, the newest first
apt_versions() {
	apt_private apt-cache madison "$1" | awk -F ' *[|] *' '{ print $2 }'
}

# apt_source DIR PACKAGE: its source, verified by apt, unpacked into DIR/src
apt_source() {
	local dir=$1 what=$2 list=$APT_DIR/sources.list
	need_cmd dpkg-source
	grep -q '^deb-src' "$list" || sed -n 's/^deb /deb-src /p' "$list" >"$list.src"
	cat "$list.src" >>"$list" 2>/dev/null || :
	rm -f "$list.src"
	apt_private apt-get update >"$APT_DIR/log" 2>&1 || return 1
	mkdir -p "$dir"
	(cd "$dir" && apt_private apt-get source --download-only --only-source "$what" &&
		dpkg-source --no-check -x ./*.dsc src)
}

# unpack_kernel DEB: of a linux-source package, as a git tree tmp/linux with the tag base
# shellcheck disable=SC2154
unpack_kernel() (
	dpkg-deb --fsys-tarfile "$1" | tar -x -C "$tmp" --wildcards './usr/src/*.tar.xz'
	mkdir "$tmp/linux"
	tar -x -C "$tmp/linux" --strip-components=1 -f "$tmp"/usr/src/*.tar.xz
	git -c init.defaultBranch=series init -q "$tmp/linux"
	cd "$tmp/linux" || exit
	git config gc.auto 0
	git config user.name "$SERIES_NAME"
	git config user.email "$SERIES_MAIL"
	# The package has files that the kernel's .gitignore names.
	tgit add -A -f
	GIT_AUTHOR_NAME=base GIT_AUTHOR_EMAIL=base@xfrm.invalid \
		GIT_COMMITTER_NAME=base GIT_COMMITTER_EMAIL=base@xfrm.invalid \
		GIT_AUTHOR_DATE='2026-01-01T00:00:00Z' GIT_COMMITTER_DATE='2026-01-01T00:00:00Z' \
		tgit commit -q -m "$(dpkg-deb -f "$1" Package) $(dpkg-deb -f "$1" Version)"
	tgit tag base
)
