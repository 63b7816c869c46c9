# Makefile
#     The commands of message_bus. Each target is thin: the work is in tools/,
#     tests/run and the Makefiles of extension/ and gateway/.
#
# PG_CONFIG chooses the PostgreSQL to build for and to test with.

PG_CONFIG ?= /usr/lib/postgresql/15/bin/pg_config
SUDO := $(if $(filter 0,$(shell id -u)),,sudo)

export PG_CONFIG

.DEFAULT_GOAL := help

## help: this list
help:
	@echo 'make <target>, where <target> is one of'
	@sed -n 's/^## \([a-z]*\): /  \1\t/p' $(firstword $(MAKEFILE_LIST)) | \
		expand -t 16
	@echo 'PG_CONFIG=$(PG_CONFIG) chooses the PostgreSQL.'

## run: a private cluster and the gateway, one message sent, then serve
run:
	tools/setup build run
	$(MAKE) -s build
	tools/run

## test: everything, set-up included; TESTS="tests/t/..." for some of it
test:
	tools/setup build run test lint
	$(MAKE) -s build
	tests/run $(TESTS)

## stress: publish and consume for SECONDS (600) while everything is killed
stress:
	tools/setup build run test
	$(MAKE) -s build
	STRESS_SECONDS=$(or $(SECONDS),600) FAULTS_LONG=1 \
		tests/run stress tests/gateway/faults.test.mjs

## bench: measure the bus against plain SQL and PgQ, the gateway against NATS
bench:
	tools/setup build run bench
	$(MAKE) -s build
	tests/bench/run

## lint: warnings, layout, cppcheck and clang-tidy; a finding is an error
lint:
	tools/setup build lint
	tools/lint

## build: the extension and the gateway
build:
	$(MAKE) -j $(shell nproc) -C extension PG_CONFIG=$(PG_CONFIG)
	$(MAKE) -j $(shell nproc) -C gateway

## install: the extension and the gateway into the system (as root or sudo)
install: build
	$(SUDO) $(MAKE) -C extension PG_CONFIG=$(PG_CONFIG) install
	$(SUDO) $(MAKE) -C gateway install

## installcheck: pg_regress on a server (PGHOST ...) that serves contrib_regression
installcheck:
	mkdir -p tests/log
	"$(dir $(shell $(PG_CONFIG) --pgxs))../test/regress/pg_regress" \
		--bindir="$(shell $(PG_CONFIG) --bindir)" --inputdir=. \
		--outputdir=tests/log --dbname=contrib_regression \
		$(sort $(basename $(notdir $(wildcard sql/*.sql))))

## clean: remove what was built
clean:
	$(MAKE) -C extension PG_CONFIG=$(PG_CONFIG) clean
	$(MAKE) -C gateway clean
	rm -rf tests/bin tests/log

.PHONY: help run test stress bench lint build install installcheck clean
