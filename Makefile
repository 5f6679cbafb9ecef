# SPDX-License-Identifier: GPL-2.0
# LINUX=<git tree> makes the verbs work on a work tree of that kernel.

MAKEFLAGS += --no-print-directory
.NOTPARALLEL:
export LINUX FIXES FORCE PREFIX VERSION FIXES_PREFIX FIXES_VERSION MAIN DEBUG MINUTES SEED SPHINXDIRS
export NIPA QUICK EACH FROM TO SMATCH TESTS RUNS PACE SLOW NAME MAIL SIGNOFF TRAILERS MAIL_CC SERIES

.PHONY: help deps tree build demo kselftest kunit coverage mutants stress kcsan bench hotpath htmldocs test export \
	export-check check bisect send shellcheck clean distclean

help: ## list the verbs
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST) | expand -t 20
	@echo 'LINUX=<kernel git tree> uses that tree instead of the pinned base;'
	@echo 'FIXES=0: it has patches/fixes already.'

deps: ## install the Debian packages that are missing (root)
	@scripts/deps

tree: deps ## fetch the base kernel, apply patches/ (FORCE=1: drop unexported work)
	@scripts/tree

build: tree ## build the unpatched and the patched UML kernel
	@scripts/build unpatched
	@scripts/build patched

demo: build ## run the scenarios on both kernels
	@scripts/demo

kselftest: tree ## run the kselftests and their neighbours on both kernels (LANE=uml: without virtme-ng, PROGRAMS=)
	@scripts/kselftest $(PROGRAMS)

kunit: tree ## run the KUnit suites (DEBUG=1, CONTROL=1: and without the fixes, MODULE=lockdep)
	@scripts/kunit $(if $(CONTROL),--control) $(if $(MODULE),--module $(MODULE))

coverage: tree ## which of the series' lines in net/xfrm KUnit runs (KSELFTEST=1: and the kselftests)
	@scripts/coverage $(if $(KSELFTEST),--kselftest)

mutants: tree ## break the kernel code in many ways, see who notices (MUTANTS="name ...")
	@scripts/mutants $(MUTANTS)

stress: tree ## devices come and go under load (MINUTES=10, SEED=)
	@scripts/build patched lockdep
	@scripts/build patched kasan
	@scripts/build unpatched
	@scripts/stress

kcsan: tree ## the functional scenarios once on an x86 kernel that looks for data races (TESTS=)
	@scripts/kcsan

bench: tree ## what a departure and a packet cost, both kernels (QUICK=1, RUNS=7, PACE=1, PARTS="scale data pace")
	@scripts/deps gnuplot-nox
	@scripts/bench kernels $(PARTS)
	@scripts/bench $(PARTS)

hotpath: build ## count the instructions of the packet path in both kernels
	@scripts/hotpath

htmldocs: tree ## build the documentation of both trees, fail on a new warning
	@scripts/htmldocs

test: ## run all checks; ends with "N passed, N failed, N skipped"
	@scripts/test

export: ## write the branch series of build/linux to patches/ and the reading tree
	@scripts/export

export-check: tree ## do the exported files say what patches/ say?
	@scripts/export --check

check: tree ## what netdev's CI looks at, patch by patch (QUICK=1, FROM=, TO=, EACH=1, NIPA=)
	@scripts/check

bisect: tree ## boot each step of the series, run the tests it has (FROM=, TO=, STEPS=)
	@scripts/bisect

send: ## write the mails of both series, send none (NAME=, MAIL=, LINUX=)
	@scripts/send

shellcheck: ## shellcheck all scripts
	@grep -lE '^#!/bin/(ba)?sh' -r scripts .ci | xargs shellcheck -x

clean: ## remove what was built, keep downloads and ccache (FORCE=1: unexported work, too)
	@scripts/clean

distclean: ## remove build/ altogether
	@scripts/clean --all
