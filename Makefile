# The commands of this tree. Everything real is in CMake, tools/ and tests/; this names it.
#
#   make up      installs what is missing, builds, starts the systems, says how to try them
#   make demo    a guided story over them
#   make image   one image for all systems (docker/); BASE= is what it is built on
#   make test    the same set-up, then every proof this machine can run
BUILD := build/release
FUZZ_SECONDS ?= 60
SEEDS ?= 2000

.PHONY: all deps up down test sim fuzz bench demo fresh image chaos clean asan tsan clang coverage
.PHONY: tidy lint

all: deps
	cmake --preset release >/dev/null
	ninja -C $(BUILD)

deps:
	@tools/deps

# Only what `up` runs: the tests take longer to build than the systems.
up: deps
	cmake --preset release >/dev/null
	ninja -C $(BUILD) programs
	@$(BUILD)/bin/bonsai status 2>/dev/null || $(BUILD)/bin/bonsai up -d

# A story over the running systems; starts them when they are not.
demo: up
	ninja -C $(BUILD) sim_daemon
	@tools/demo $(BUILD)

down:
	$(BUILD)/bin/bonsai down

test:
	tools/test

# SEEDS fresh seeds, and every planted bug searched for anew.
sim: all
	tools/sim $(BUILD) $(SEEDS)

fuzz:
	tools/deps --tests
	cmake --preset fuzz >/dev/null
	ninja -C build/fuzz fuzzers
	tools/fuzz build/fuzz $(FUZZ_SECONDS)

bench: all
	tools/bench $(BUILD)

# The commands above on a minimal Debian 12, made for it and removed after; FULL=1: `make test` too.
fresh:
	tests/fresh $(if $(FULL),--full)

image:
	docker build -f docker/Dockerfile $(if $(BASE),--build-arg BASE=$(BASE)) -t bonsai .

# Faults from outside, on processes and on containers; ROUNDS=n: more of the same.
chaos:
	BNS_CHAOS_ROUNDS=$(or $(ROUNDS),1) tools/test chaos

asan tsan clang coverage:
	tools/test $@

tidy:
	tools/tidy

# clang's analyzer over all that is shipped; minutes.
lint: all
	tools/lint $(BUILD)

clean:
	rm -rf build
