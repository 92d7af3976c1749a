# The commands of this tree. Everything real is in CMake, tools/ and tests/; this names it.
#
#   make up      installs what is missing, builds, starts the systems, says how to try them
#   make demo    a guided story over them
#   make test    the same set-up, then every proof this machine can run
BUILD := build/release
JOBS := $(shell nproc)
FUZZ_SECONDS ?= 60

.PHONY: all deps up down test sim fuzz bench demo clean asan tsan clang coverage tidy

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
	@tools/demo $(BUILD)

down:
	$(BUILD)/bin/bonsai down

test:
	tools/test

sim: all
	cd $(BUILD) && ctest -R '^sim_' --output-on-failure -j$(JOBS)

fuzz:
	tools/deps --tests
	cmake --preset fuzz >/dev/null
	ninja -C build/fuzz
	tools/fuzz build/fuzz $(FUZZ_SECONDS)

bench: all
	tools/bench $(BUILD)

asan tsan: deps
	tools/test $@

clang coverage: deps
	tools/test $@

tidy:
	tools/tidy

clean:
	rm -rf build
