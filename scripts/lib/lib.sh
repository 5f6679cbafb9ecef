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
# A user's PATH lacks these, where ip, modinfo and insmod are.
export PATH=$PATH:/usr/sbin:/sbin
# A caller's git variables (a hook, say) must not point us at other trees.
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE

note() {
	printf '%s\n' "$*" >&2
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# kbuild refuses such paths too, but only after minutes and in many lines.
case $TOP in
*[[:space:]:]*) die "the path '$TOP' has a blank or a colon, kbuild cannot work there: move the repository" ;;
esac

# One of these that says 0 would be on: FORCE=0 throws work away.
for switch in QUICK EACH FORCE SIGNOFF; do
	[[ ${!switch:-1} = 1 ]] || die "$switch=${!switch}: $switch=1 or nothing"
done

need_cmd() {
	local cmd missing=()
	for cmd; do
		command -v "$cmd" >/dev/null || missing+=("$cmd")
	done
	[ ${#missing[@]} -eq 0 ] || die "missing: ${missing[*]}: run 'make prepare' as root"
}

need_root() {
	[ "$(id -u)" -eq 0 ] || die "needs root: run it as root (sudo $0)"
}

# need_space GIB: free space below build/
need_space() {
	local kib
	mkdir -p "$BUILD" 2>/dev/null || die "cannot create $BUILD: make $TOP writable"
	kib=$(df -Pk "$BUILD" | awk 'NR == 2 { print $4 }')
	[ "$kib" -ge $(($1 * 1024 * 1024)) ] ||
		die "needs $1 GiB free below $BUILD, $((kib / 1024 / 1024)) GiB there: free some space"
}

# run_logged TITLE LOGFILE CMD...: run CMD, show that it is alive, and the end
# of its output when it fails. It is a process group of its own, for ^C must
# not leave a make behind.
run_logged() {
	local title=$1 log=$2 start=$SECONDS next=15 pid rc=0 last tty=
	shift 2
	[ ! -t 1 ] || tty=y
	mkdir -p "$(dirname "$log")"
	set -m
	"$@" >"$log" 2>&1 </dev/null &
	pid=$!
	set +m
	# shellcheck disable=SC2064
	trap "kill -TERM -- -$pid 2>/dev/null || :; trap - INT TERM; exit 130" INT TERM
	while kill -0 "$pid" 2>/dev/null; do
		sleep 0.2
		if [ "$tty" ] || [ $((SECONDS - start)) -ge "$next" ]; then
			last=$(tail -c 400 "$log" | tr '\r' '\n' | tail -n 1 | tr -dc '[:print:]' | tr -s ' ' | cut -c 1-50)
			if [ "$tty" ]; then
				printf '\r\033[K%s: %d s %s' "$title" $((SECONDS - start)) "$last"
			else
				printf '%s: %d s %s\n' "$title" $((SECONDS - start)) "$last"
				next=$((SECONDS - start + 15))
			fi
		fi
	done
	wait "$pid" || rc=$?
	trap - INT TERM
	[ -z "$tty" ] || printf '\r\033[K'
	if [ $rc -ne 0 ]; then
		note "$title: failed ($rc) after $((SECONDS - start)) s, the end of ${log#"$TOP"/}:"
		tail -n 20 "$log" >&2
		return "$rc"
	fi
	printf '%s: %d s\n' "$title" $((SECONDS - start))
}

# All objects are compiled from directories below build/, and every kernel with
# its objects in the .uml directory of its tree, so that paths are relative and
# one tree's objects serve the next.
setup_ccache() {
	command -v ccache >/dev/null || return 0
	export PATH=/usr/lib/ccache:$PATH
	export CCACHE_DIR=$BUILD/ccache CCACHE_MAXSIZE=4G CCACHE_BASEDIR=$BUILD
	export CCACHE_NOHASHDIR=1 CCACHE_COMPILERCHECK=content
	export CCACHE_SLOPPINESS=time_macros
	unset CCACHE_DISABLE CCACHE_READONLY CCACHE_RECACHE CCACHE_CONFIGPATH
	# mkcompile_h and the UML version string would differ from build to build.
	export KBUILD_BUILD_TIMESTAMP='1970-01-01' KBUILD_BUILD_USER=base KBUILD_BUILD_HOST=xfrm
}

# make(1) hands its own flags down, which a kernel build must not inherit.
kmake() {
	env -u MAKEFLAGS -u MFLAGS -u MAKELEVEL -u KBUILD_OUTPUT -u O -u ARCH \
		-u CROSS_COMPILE LOCALVERSION= \
		make --no-print-directory -j"$(nproc)" "$@"
}

# A user's hooks, signing keys and am settings are not for the series.
tgit() {
	git -c core.hooksPath=/dev/null -c commit.gpgSign=false -c gc.auto=0 \
		-c maintenance.auto=false -c am.threeWay=false -c core.autocrlf=false \
		-c core.fsmonitor=false -c advice.detachedHead=false \
		-c core.abbrev=12 -c safe.directory='*' -c core.sparseCheckoutCone=false \
		${SPARSE:+-c core.sparseCheckout=true} "$@"
}

SERIES_NAME='xfrm devgone series'
SERIES_MAIL=devgone@xfrm.invalid

# am_series TREE LOG PATCH...: ids are reproducible: nothing of the user or the
# clock goes into a commit.
am_series() {
	local tree=$1 log=$2
	shift 2
	[ $# -gt 0 ] || return 0
	GIT_COMMITTER_NAME=$SERIES_NAME GIT_COMMITTER_EMAIL=$SERIES_MAIL \
		tgit -C "$tree" am --quiet --committer-date-is-author-date \
		--keep-non-patch --whitespace=error "$@" >"$log" 2>&1
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
	echo "${1##*/} does not apply: $where"
}

# sparse_worktree REPO DIR REV PATCH...: a work tree with no more than the files
# the patches name, for a full one of a kernel takes a while.
sparse_worktree() {
	local repo=$1 dir=$2 rev=$3 list
	shift 3
	SPARSE=y
	tgit -C "$repo" worktree add -f -q --no-checkout --detach "$dir" "$rev"
	list=$(tgit -C "$dir" rev-parse --path-format=absolute --git-path info/sparse-checkout)
	mkdir -p "${list%/*}"
	{ printf "/%s\n" Makefile .gitattributes; sed -n 's/^\(---\|+++\) [ab]\//\//p' "$@" /dev/null | sort -u; } >"$list"
	tgit -C "$dir" checkout -q --detach "$rev"
}

# drop_worktree REPO DIR: REPO forgets this one only. `worktree prune` would also
# drop a user's work trees that are on a disk not mounted now.
drop_worktree() {
	local repo=$1 dir=$2
	SPARSE=
	rm -rf "$dir"
	tgit -C "$repo" worktree remove --force --force "$dir" 2>/dev/null || :
}

# lock_worktree DIR: until the script ends. Who finds a work tree at another commit
# than he thinks has checked something else.
declare -A worktree_lock=()
lock_worktree() {
	local fd
	[ -z "${worktree_lock[$1]:-}" ] || return 0
	exec {fd}>"$1.lock"
	flock -n "$fd" || return
	worktree_lock[$1]=$fd
}

# add_worktree DIR: a whole work tree beside TREE, to go from commit to commit in
add_worktree() {
	local dir=$1
	lock_worktree "$dir" || die "another run works in ${dir#"$TOP"/}: wait until it has ended"
	[ "$(tgit -C "$dir" rev-parse --path-format=absolute --git-common-dir 2>/dev/null)" != \
		"$(tgit -C "$TREE" rev-parse --path-format=absolute --git-common-dir)" ] || return 0
	drop_worktree "$REPO" "$dir"
	run_logged "work tree ${dir##*/}" "$BUILD/log/worktree" \
		tgit -C "$REPO" worktree add -f --detach "$dir" "$BASE_REV" ||
		die "cannot add a work tree: see build/log/worktree"
}

# scratch_worktree DIR: the same, at the base, whatever was in it
scratch_worktree() {
	add_worktree "$1"
	tgit -C "$1" am --quit 2>/dev/null || :
	tgit -C "$1" checkout -q -f --detach "$BASE_REV"
	tgit -C "$1" clean -q -f -d
}

# Sets FIX_PATCHES and MAIN_PATCHES to the patches of the two series, in order, and
# ALL_PATCHES to both. FIXES=0: LINUX= has the fixes already.
list_patches() {
	local had
	had=$(shopt -p nullglob) || :
	shopt -s nullglob
	FIX_PATCHES=("$TOP"/patches/fixes/[0-9][0-9][0-9][0-9]-*.patch)
	MAIN_PATCHES=("$TOP"/patches/[0-9][0-9][0-9][0-9]-*.patch)
	eval "$had"
	case ${FIXES:-} in
	'' | 1) ;;
	0) FIX_PATCHES=() ;;
	*) die "FIXES=$FIXES: FIXES=0 leaves patches/fixes out, there is nothing else to say" ;;
	esac
	ALL_PATCHES=("${FIX_PATCHES[@]}" "${MAIN_PATCHES[@]}")
}

# patch_subject FILE: in one line, without [PATCH ...]
patch_subject() {
	awk '/^Subject: / { s = $0; next } s && /^ / { s = s $0; next } s { exit }
		END { sub(/^Subject: (\[[^]]*\] *)?/, "", s); print s }' "$1"
}

# Sets TREE, UNPATCHED (the two work trees) and STAMP for LINUX= or without.
tree_names() {
	TREE=$BUILD/linux
	[ -z "${LINUX:-}" ] || TREE=$BUILD/linux-user
	UNPATCHED=$BUILD/unpatched
	[ -z "${LINUX:-}" ] || UNPATCHED=$BUILD/linux-user-unpatched
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

# What a tree is made of; needs list_patches, and REPO and BASE_REV with LINUX=.
series_key() {
	{
		cat "$TOP/base"
		[ -z "${LINUX:-}" ] || echo "$REPO $BASE_REV"
		cat "${ALL_PATCHES[@]}" /dev/null
	} | sha256sum | cut -d ' ' -f 1
}

# The tree holds what patches/ holds: bring the unpatched tree in line, which has
# the first patch of the main series on the base, and take note.
record_series() {
	local tip
	mkdir -p "$BUILD/log"
	tip=$(tgit -C "$TREE" rev-parse HEAD)
	if [ ! -e "$UNPATCHED/.git" ]; then
		drop_worktree "$REPO" "$UNPATCHED"
		run_logged "work tree ${UNPATCHED##*/}" "$BUILD/log/worktree" \
			tgit -C "$REPO" worktree add -f --detach "$UNPATCHED" "$BASE_REV"
	fi
	tgit -C "$UNPATCHED" am --quit 2>/dev/null || :
	tgit -C "$UNPATCHED" checkout -q -f --detach "$BASE_REV"
	am_series "$UNPATCHED" "$BUILD/log/am-unpatched" "${MAIN_PATCHES[@]:0:1}" ||
		die "the first patch must apply to the base without the fixes, for the unpatched kernel: $(am_failure "$UNPATCHED" "$BUILD/log/am-unpatched" "${MAIN_PATCHES[@]:0:1}")"
	printf '%s\n' "key $(series_key)" "base $BASE_REV" "first $(tgit -C "$UNPATCHED" rev-parse HEAD)" \
		"tip $tip" "repo $REPO" >"$STAMP.tmp"
	mv "$STAMP.tmp" "$STAMP"
}
