# SPDX-License-Identifier: GPL-2.0
# LINUX=<git tree> makes the verbs work on a work tree of that kernel.

MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

LAB := bench stress kcsan mutants coverage hotpath boot-each htmldocs
.PHONY: help prepare build demo test kunit kselftest keymanagers ci export mails clean distclean $(LAB:%=lab-%)

# A line of help is "target: ## GROUP text".
help: ## use: list the verbs
	@for group in 'use' 'carry on' 'lab'; do \
		printf '%s\n' "$$group"; \
		sed -n "s/^\([a-z-]*\):.*## $$group: /  make \1\t/p" $(MAKEFILE_LIST) | expand -t 22; \
	done
	@echo 'LINUX=<kernel git tree> uses that tree instead of the pinned base;'
	@echo 'FIXES=0: it has patches/fixes already. README.series says more.'

prepare: ## use: fetch the base kernel, apply patches/ (FORCE=1: drop unexported work)
	@scripts/lib/deps
	@scripts/prepare

build: prepare
	@scripts/build unpatched
	@scripts/build patched

demo: build ## use: run the scenarios on both kernels and print a table
	@scripts/demo

test: ## use: run all checks; ends with "N passed, N failed, N skipped"
	@scripts/test

kunit: prepare ## use: run the KUnit suites (DEBUG=1, CONTROL=1: and without the fixes, MODULE=lockdep)
	@scripts/kunit $(if $(CONTROL),--control) $(if $(MODULE),--module $(MODULE))

kselftest: prepare ## use: run the kselftests and their neighbours on both kernels (LANE=uml: without virtme-ng, PROGRAMS=)
	@scripts/kselftest $(PROGRAMS)

keymanagers: build ## use: strongSwan and libreswan over netdevsim on both kernels
	@scripts/keymanagers

ci: prepare ## carry on: what netdev's CI looks at, patch by patch (QUICK=1, FROM=, TO=, EACH=1, NIPA=)
	@scripts/ci

export: ## carry on: write the branch series of build/linux to patches/ and the reading tree
	@scripts/export

mails: ## carry on: write the mails of the series, send none (NAME=, MAIL=, LINUX=)
	@scripts/mails

clean: ## carry on: remove what was built, keep downloads and ccache (FORCE=1: unexported work, too)
	@scripts/clean

distclean: ## carry on: remove build/ altogether
	@scripts/clean --all

lab-bench: prepare ## lab: what a departure and a packet cost, both kernels (QUICK=1, RUNS=7, PACE=1, PARTS="scale data pace")
	@scripts/lib/deps gnuplot-nox
	@scripts/lab/bench kernels $(PARTS)
	@scripts/lab/bench $(PARTS)

lab-stress: prepare ## lab: devices come and go under load (MINUTES=10, SEED=)
	@scripts/build patched lockdep
	@scripts/build patched kasan
	@scripts/build unpatched
	@scripts/lab/stress

lab-kcsan: prepare ## lab: the functional scenarios on an x86 kernel that looks for data races (TESTS=)
	@scripts/lab/kcsan

lab-mutants: prepare ## lab: break the kernel code in many ways, see who notices (MUTANTS="name ...")
	@scripts/lab/mutants $(MUTANTS)

lab-coverage: prepare ## lab: which of the series' lines in net/xfrm KUnit runs (KSELFTEST=1: and the kselftests)
	@scripts/lab/coverage $(if $(KSELFTEST),--kselftest)

lab-hotpath: build ## lab: count the instructions of the packet path in both kernels
	@scripts/lab/hotpath

lab-boot-each: prepare ## lab: boot each step of the series, run the tests it has (FROM=, TO=, STEPS=)
	@scripts/lab/boot-each

lab-htmldocs: prepare ## lab: build the documentation of both trees, fail on a new warning
	@scripts/lab/htmldocs
