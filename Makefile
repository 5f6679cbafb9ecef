# SPDX-License-Identifier: GPL-2.0
# LINUX=<git tree> makes the verbs work on a work tree of that kernel.

MAKEFLAGS += --no-print-directory
.NOTPARALLEL:

.PHONY: help prepare build demo test kunit kselftest keymanagers ci export mails clean distclean \
	lab-bench lab-stress lab-kcsan lab-mutants lab-coverage lab-hotpath lab-litmus lab-boot-each lab-htmldocs lab-backports

# A line of help is "target: ## GROUP: text".
help: ## use: list the verbs
	@for group in 'use' 'carry on' 'lab'; do \
		printf '%s\n' "$$group"; \
		sed -n "s/^\([a-z-]*\):.*## $$group: /  make \1\t/p" $(MAKEFILE_LIST) | expand -t 22; \
	done
	@echo 'LINUX=<kernel git tree> uses that tree instead of the pinned base, SINCE=<posting>:'
	@echo 'it has the postings before that one, UPTO=<posting>: no later ones.'

prepare: ## use: fetch the base kernel, apply patches/ (FORCE=1: drop unexported work)
	@scripts/prepare

build: prepare
	@scripts/build unpatched
	@scripts/build patched

demo: build ## use: run the scenarios on both kernels and print a table
	@scripts/demo

test: ## use: run the checks, a line each; ends with "N passed, N failed, N skipped" (FULL=1: as CI)
	@scripts/test

kunit: prepare ## use: run the KUnit suites (FRAGMENT=kasan, CONTROL=1: and without the series)
	@scripts/kunit $(if $(CONTROL),--control)

kselftest: prepare ## use: run the kselftests and their neighbours on both kernels (LANE=uml: without virtme-ng, PROGRAMS=)
	@scripts/kselftest $(PROGRAMS)

keymanagers: build ## use: strongSwan and libreswan over netdevsim on both kernels
	@scripts/keymanagers

ci: prepare ## carry on: what netdev's CI looks at, by its own scripts (QUICK=1, POSTING=, NIPA=, SMATCH=)
	@scripts/ci

export: ## carry on: write the branch series of build/linux to patches/ and the reading tree
	@scripts/export

mails: ## carry on: write the mails of the postings, send none (POSTING=, NAME=, MAIL=, LINUX=)
	@scripts/mails

clean: ## carry on: remove what was built, keep downloads and ccache (FORCE=1: unexported work, too)
	@scripts/clean

distclean: ## carry on: remove build/ altogether
	@scripts/clean --all

lab-bench: prepare ## lab: what a departure costs, both kernels (QUICK=1, RUNS=7)
	@scripts/lab/bench

lab-stress: prepare ## lab: devices come and go under load (MINUTES=10, SEED=)
	@scripts/lab/stress

lab-kcsan: prepare ## lab: the functional scenarios on an x86 kernel that looks for data races (TESTS=)
	@scripts/lab/kcsan

lab-mutants: prepare ## lab: break the kernel code in many ways, see who notices (MUTANTS="name ...", MUTANTS_BY=)
	@scripts/lab/mutants $(MUTANTS)

lab-coverage: prepare ## lab: which of the series' lines in net/xfrm KUnit runs (KSELFTEST=1: and the kselftests)
	@scripts/lab/coverage $(if $(KSELFTEST),--kselftest)

lab-hotpath: prepare ## lab: count the instructions of the packet path in both kernels
	@scripts/lab/hotpath

lab-litmus: prepare ## lab: the barriers in the kernel's memory model, the driver calls in every order (LITMUS="name ...")
	@scripts/lab/litmus $(LITMUS)

lab-boot-each: prepare ## lab: boot each step of the series, with its KUnit (POSTINGS=1: each posting, with its kselftests; STEPS=)
	@scripts/lab/boot-each

lab-backports: ## lab: which patches apply to and compile on Debian 6.12 and 7.2 (QUICK=1)
	@scripts/lab/backports

lab-htmldocs: prepare ## lab: build the documentation of both trees, fail on a new warning
	@scripts/lab/htmldocs
