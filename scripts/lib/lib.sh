#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Shared by the other scripts, which source it.
# shellcheck disable=SC2034
set -Eeuo pipefail
trap 'echo "${0##*/}: unexpected failure: $BASH_COMMAND (line $LINENO)" >&2' ERR

TOP=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd -P)
BUILD=$TOP/build
# Translated or localised messages would not be found by the parsers.
export LC_ALL=C
# The system's tools first: a user's python3 lacks the modules that checkpatch
# wants. And a user's PATH lacks sbin, where ip, modinfo and insmod are.
export PATH=/usr/bin:/bin:$PATH:/usr/sbin:/sbin
# A caller's git variables (a hook, say) must not point us at other trees.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

note() {
	printf '%s\n' "$*" >&2
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# kbuild refuses blanks and colons after minutes and in many lines.
[[ $TOP =~ ^[A-Za-z0-9_./+@~-]+$ ]] ||
	die "the path '$TOP' has other characters than A-Z a-z 0-9 _ . / + @ ~ -: move the repository"

# One of these that says 0 would be on: FORCE=0 throws work away.
for switch in QUICK FORCE SIGNOFF FULL POSTINGS; do
	[[ ${!switch:-1} = 1 ]] || die "$switch=${!switch}: $switch=1 or nothing"
done

need_cmd() {
	local cmd missing=()
	for cmd; do
		command -v "$cmd" >/dev/null || missing+=("$cmd")
	done
	[ ${#missing[@]} -eq 0 ] || die "missing: ${missing[*]}: install them"
}

# need_packages WORD...: see scripts/lib/deps
need_packages() {
	"$TOP/scripts/lib/deps" "$@" || exit 1
}

# need_space GIB: a build/ that can be written, with free space
need_space() {
	local kib
	{ mkdir -p "$BUILD" && [ -w "$BUILD" ]; } 2>/dev/null || die "cannot write to $BUILD: make it writable, or be the user who built"
	kib=$(df -Pk "$BUILD" | awk 'NR == 2 { print $4 }')
	[ "$kib" -ge $(($1 * 1024 * 1024)) ] ||
		die "needs $1 GiB free below $BUILD, $((kib / 1024 / 1024)) GiB there: free some space"
}

# lock_build: one run at a time works in build/. Its children are part of it.
lock_build() {
	local owner
	[ "${XFRM_LOCKED:-}" != "$BUILD" ] || return 0
	need_space 0
	exec {LOCK_FD}>>"$BUILD/.lock"
	if ! flock -n "$LOCK_FD"; then
		owner=$(tail -n 1 "$BUILD/.lock")
		die "another run works in build/ (${owner:-it has just started}, or what it has left running): wait until it has ended"
	fi
	echo "${0##*/}, pid $$" >"$BUILD/.lock"
	export XFRM_LOCKED=$BUILD
	sweep
}

# sweep: what killed runs left. The names have the pid of their run.
sweep() {
	local dir pid
	for dir in "$BUILD"/tmp.[0-9]* /dev/shm/xfrm.[0-9]*; do
		pid=${dir##*/}
		pid=${pid#*.}
		[ ! -O "$dir" ] || kill -0 "${pid%%.*}" 2>/dev/null || rm -rf "$dir"
	done
}

# make_tmp: sets tmp to a directory below build/ that goes when the script ends
make_tmp() {
	tmp=$(mktemp -d "$BUILD/tmp.$$.XXXXXX")
	trap 'rm -rf "$tmp"' EXIT
	trap 'exit 130' INT TERM HUP
}

# run_logged TITLE LOGFILE CMD...: run CMD, show that it is alive, and the end
# of its output when it fails. It is a process group of its own: neither ^C nor a
# terminal that is closed leaves a make behind.
run_logged() {
	local title=$1 log=$2 start=$SECONDS next=15 every=60 end='\n' pid rc=0 traps
	shift 2
	[ ! -t 1 ] || next=0 every=1 end='\e[K\r'
	mkdir -p "${log%/*}"
	traps=$(trap -p INT TERM HUP)
	set -m
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	set +m
	# shellcheck disable=SC2064
	trap "kill -TERM -- -$pid 2>/dev/null || :; trap - INT TERM HUP; exit 130" INT TERM HUP
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.2
		[ $((SECONDS - start)) -ge "$next" ] || continue
		next=$((SECONDS - start + every))
		printf "%s: %d s %s$end" "$title" $((SECONDS - start)) \
			"$(tail -c 400 "$log" | tr '\r' '\n' | tail -n 1 | tr -dc '[:print:]' | tr -s ' ' | cut -c 1-50)"
	done
	wait "$pid" || rc=$?
	trap - INT TERM HUP
	eval "$traps"
	[ ! -t 1 ] || printf '\e[K'
	if [ $rc -ne 0 ]; then
		note "$title: failed ($rc) after $((SECONDS - start)) s, the end of ${log#"$TOP"/}:"
		tail -n 20 "$log" >&2
		return "$rc"
	fi
	printf '%s: %d s\n' "$title" $((SECONDS - start))
}

# All objects are compiled from directories below build/, and every kernel with
# its objects in a dot directory of its tree, so that paths are relative and one
# tree's objects serve the next.
setup_ccache() {
	command -v ccache >/dev/null || return 0
	# DEPEND is without a run of the preprocessor for each object: a fifth of the time.
	export PATH=/usr/lib/ccache:$PATH CCACHE_DIR=$BUILD/ccache CCACHE_MAXSIZE=4G CCACHE_BASEDIR=$BUILD \
		CCACHE_NOHASHDIR=1 CCACHE_COMPILERCHECK=content CCACHE_SLOPPINESS=time_macros CCACHE_DEPEND=1
	unset CCACHE_DISABLE CCACHE_READONLY CCACHE_RECACHE CCACHE_CONFIGPATH
	# mkcompile_h and the UML version string would differ from build to build.
	export KBUILD_BUILD_TIMESTAMP='1970-01-01' KBUILD_BUILD_USER=base KBUILD_BUILD_HOST=xfrm
}

# clean_env CMD...: without what a make that called us has in the environment
clean_env() {
	env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u KBUILD_OUTPUT -u O -u ARCH \
		-u CROSS_COMPILE LOCALVERSION= PYTHONDONTWRITEBYTECODE=1 "$@"
}

kmake() {
	# The configuration has pahole's version: when LANE=vng installs it, all that is of
	# User-Mode Linux would be compiled anew.
	[[ " $* " != *' ARCH=um '* ]] || set -- "$@" PAHOLE=/nonexistent
	clean_env make --no-print-directory -j"$(nproc)" "$@"
}

# merge_config SRC OBJ ARCH DEFCONFIG FRAGMENT...: a .config
merge_config() {
	mkdir -p "$2"
	kmake -C "$1" O="$2" ARCH="$3" "$4" &&
		(cd "$2" && "$1/scripts/kconfig/merge_config.sh" -m -O "$2" .config "${@:5}") &&
		kmake -C "$1" O="$2" ARCH="$3" olddefconfig
}

# took OBJ FRAGMENT...: Kconfig drops what it cannot have without an error. A later
# fragment overrides an earlier one.
took() {
	awk -F= '!/^CONFIG_/ { next } FILENAME == ARGV[ARGC - 1] { is[$1] = $0; next } { want[$1] = $0 }
		END {
			for (i in want)
				if ((want[i] ~ /=n$/) ? i in is : want[i] != is[i]) {
					print want[i] " did not take: look at its dependencies"
					exit 1
				}
		}' "${@:2}" "$1/.config"
}

# A user's hooks, signing keys and am settings are not for the series.
tgit() {
	git -c core.hooksPath=/dev/null -c commit.gpgSign=false -c gc.auto=0 \
		-c maintenance.auto=false -c am.threeWay=false -c core.autocrlf=false \
		-c core.fsmonitor=false -c advice.detachedHead=false \
		-c core.abbrev=12 -c safe.directory='*' "$@"
}

SERIES_NAME='xfrm devgone series'
SERIES_MAIL=devgone@xfrm.invalid
export GIT_COMMITTER_NAME=$SERIES_NAME GIT_COMMITTER_EMAIL=$SERIES_MAIL

# am_series TREE LOG PATCH...: ids are reproducible: nothing of the user or the
# clock goes into a commit.
am_series() {
	[ $# -lt 3 ] || tgit -C "$1" am --quiet --committer-date-is-author-date \
		--keep-non-patch --whitespace=error "${@:3}" >"$2" 2>&1
}

# For format-patch, whose form a user's configuration can change.
FORMAT_CONFIG=(-c core.abbrev=12 -c diff.noprefix=false -c diff.mnemonicPrefix=false -c diff.context=3
	-c format.useAutoBase=false -c format.signOff=false -c format.thread=false -c format.pretty=
	-c format.suffix=.patch -c format.noprefix=false -c format.coverLetter=false)
FORMAT_OPTIONS=(--no-signature --no-renames --no-attach --no-indent-heuristic --diff-algorithm=myers
	--stat=72 --no-to --no-cc --no-add-header --no-from)

# am_failure TREE LOG PATCH...: which patch, which file and line, in one line
am_failure() {
	local tree=$1 log=$2 next where
	shift 2
	next=$(cat "$(tgit -C "$tree" rev-parse --path-format=absolute --git-path rebase-apply/next)" 2>/dev/null || echo 1)
	where=$(sed -n 's/^error: patch failed: //p' "$log" | head -n 1)
	[ -n "$where" ] || where=$(grep -E -m 1 '^(error|fatal): |: (trailing whitespace|space before tab|new blank line)' "$log" || head -n 1 "$log")
	shift $((next - 1))
	echo "${1#"$TOP"/patches/} does not apply: $where"
}

# drop_worktree REPO DIR: REPO forgets this one only. `worktree prune` would also
# drop a user's work trees that are on a disk not mounted now.
drop_worktree() {
	rm -rf "$2"
	tgit -C "$1" worktree remove --force --force "$2" 2>/dev/null || :
}

common_dir() {
	tgit -C "$1" rev-parse --path-format=absolute --git-common-dir 2>/dev/null
}

# add_worktree DIR [REV]: a whole work tree of REPO, at the base or REV, clean but
# for ignored files; one that is there stays.
add_worktree() {
	local dir=$1 rev=${2:-$BASE_REV}
	if [ "$(common_dir "$dir" || :)" != "$(common_dir "$REPO")" ]; then
		drop_worktree "$REPO" "$dir"
		run_logged "work tree ${dir##*/}" "$BUILD/log/worktree" \
			tgit -C "$REPO" worktree add -f --detach "$dir" "$rev" ||
			die "cannot add a work tree: see build/log/worktree"
	fi
	tgit -C "$dir" am --quit 2>/dev/null || :
	tgit -C "$dir" checkout -q -f --detach "$rev"
	tgit -C "$dir" clean -q -f -d
}

# posting NAME: the folder that NAME names, whole or by what is before the first -
posting() {
	local p
	for p in "${POSTINGS[@]}"; do
		[[ $p != "$1" && $p != "$1"-* ]] || { echo "$p"; return; }
	done
	return 1
}

# posting_patches POSTING: its patches, in order
posting_patches() {
	find "$TOP/patches/$1" -maxdepth 1 -name '[0-9][0-9][0-9][0-9]-*.patch' | sort
}

# list_patches: sets POSTINGS to all folders of patches/, in order; TAKEN to those
# that are applied, from SINCE= (a LINUX= that has those before) to UPTO=; ONLY to that
# of POSTING=; ALL_PATCHES to their patches, END to how many there are up to the end of a
# posting; CONTROL_PATCHES to what the unpatched kernel gets of them: netdevsim's packet
# offload, without which nothing could be shown.
list_patches() {
	local p file since upto var
	POSTINGS=() TAKEN=() ALL_PATCHES=() CONTROL_PATCHES=()
	declare -gA END=()
	[ -r "$TOP/patches/postings" ] || die "no patches/postings: a line is a folder and the subject of its first patch"
	mapfile -t POSTINGS < <(sed 's/ .*//; /^$/d' "$TOP/patches/postings")
	for var in SINCE UPTO POSTING; do
		[ -z "${!var:-}" ] || posting "${!var}" >/dev/null ||
			die "$var=${!var}: no such folder in patches/postings: ${POSTINGS[*]}"
	done
	since=$(posting "${SINCE:-}") || :
	upto=$(posting "${UPTO:-}") || :
	ONLY=$(posting "${POSTING:-}") || :
	for p in "${POSTINGS[@]}"; do
		[ -d "$TOP/patches/$p" ] || die "patches/postings names $p, which is no folder of patches/: run 'make export'"
		[ -z "$since" ] || [ "$p" = "$since" ] || continue
		since=
		TAKEN+=("$p")
		while read -r file; do
			ALL_PATCHES+=("$file")
			if [[ $p = *netdevsim* ]] && ! grep -E '^(---|\+\+\+) [ab]/' "$file" | grep -qv ' [ab]/drivers/'; then
				CONTROL_PATCHES+=("$file")
			fi
		done < <(posting_patches "$p")
		END[$p]=${#ALL_PATCHES[@]}
		[ "$p" != "$upto" ] || break
	done
	[ -z "$since" ] || die "SINCE=$SINCE comes after UPTO=$UPTO: nothing is left"
}

# Sets TREE, UNPATCHED (the two work trees) and STAMP for LINUX= or without.
tree_names() {
	TREE=$BUILD/linux${LINUX:+-user}
	UNPATCHED=$BUILD/${LINUX:+linux-user-}unpatched
	STAMP=$TREE.stamp
}

# stamp FIELD: what the last `make prepare` or `make export` left: key, base, tip.
stamp() {
	[ -f "$STAMP" ] && sed -n "s/^$1 //p" "$STAMP"
}

# Work in the series that is in no patch file.
has_work() {
	[ -e "$TREE/.git" ] && [ -f "$STAMP" ] || return 1
	[ "$(tgit -C "$TREE" rev-parse -q --verify HEAD)" = "$(stamp tip)" ] || return 0
	[ -n "$(tgit -C "$TREE" status --porcelain | head -n 1)" ]
}

need_tree() {
	tree_names
	if [ ! -f "$STAMP" ] || [ ! -e "$TREE/.git" ]; then
		die "no kernel tree: run '${LINUX:+LINUX=$LINUX }make prepare' first"
	fi
	BASE_REV=$(stamp base)
	REPO=$(stamp repo)
}

# list_commits: sets COMMITS to those of the series, of which there is one for each of
# ALL_PATCHES
list_commits() {
	list_patches
	mapfile -t COMMITS < <(tgit -C "$TREE" rev-list --reverse "$BASE_REV..HEAD")
	[ ${#COMMITS[@]} -eq ${#ALL_PATCHES[@]} ] ||
		die "${TREE#"$TOP"/} has ${#COMMITS[@]} commits, patches/ ${#ALL_PATCHES[@]} patches: run 'make prepare' or 'make export'"
}

# named_tree NAME: sets src to the work tree of the unpatched or the patched kernel
named_tree() {
	need_tree
	case $1 in
	patched) src=$TREE ;;
	unpatched) src=$UNPATCHED ;;
	*) die "no kernel '$1': unpatched or patched" ;;
	esac
	[ -e "$src/.git" ] || die "no ${src#"$TOP"/}: run 'make prepare' first"
}

# What a tree is made of; needs list_patches, and REPO and BASE_REV with LINUX=.
series_key() {
	{
		grep '^BASE_' "$TOP/base"
		[ -z "${LINUX:-}" ] || echo "$REPO $BASE_REV"
		cat "${ALL_PATCHES[@]}" /dev/null
	} | sha256sum | cut -d ' ' -f 1
}

# The tree holds what patches/ holds: bring the unpatched tree in line, and take note.
record_series() {
	local tip
	mkdir -p "$BUILD/log"
	tip=$(tgit -C "$TREE" rev-parse HEAD)
	add_worktree "$UNPATCHED"
	am_series "$UNPATCHED" "$BUILD/log/am-unpatched" "${CONTROL_PATCHES[@]}" ||
		die "netdevsim's patches must apply to the base without the others, for the unpatched kernel: $(am_failure "$UNPATCHED" "$BUILD/log/am-unpatched" "${CONTROL_PATCHES[@]}")"
	printf '%s\n' "key $(series_key)" "base $BASE_REV" "first $(tgit -C "$UNPATCHED" rev-parse HEAD)" \
		"tip $tip" "repo $REPO" >"$STAMP.tmp"
	mv "$STAMP.tmp" "$STAMP"
}

# virtme-ng below build/, where Debian 12 has none. It starts programs of its own by
# name, and writes to its user's home.
VNG_DIR=$BUILD/tools/virtme-ng
VNG_ENV=(env "PATH=$VNG_DIR/usr/bin:$PATH" "PYTHONPATH=$VNG_DIR/usr/lib/python3/dist-packages" PYTHONDONTWRITEBYTECODE=1)
vng_runs() {
	[ -x "$VNG_DIR/usr/bin/vng" ] && "${VNG_ENV[@]}" vng --version >/dev/null 2>&1
}
