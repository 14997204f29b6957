# Bellwether. `make help` lists the targets.
#
# Sources are found, not listed: a new .c file under src/ is part of the library, a new test file
# is built and run. The instruction set of a file follows from its suffix (_avx2, _avxvnni, _avx512, _neon),
# so no other file can use it. Another build (sanitizers, clang) has its own BUILD directory.

VERSION := 0.1.0
SONAME := libbellwether.so.0

ifeq ($(origin CC),default)
  CC := gcc
endif
AR ?= ar
BUILD ?= build
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
DESTDIR ?=
PKG_CONFIG ?= pkg-config
ARM := build-arm
FUZZ_SECONDS ?= 60
SOAK_SECONDS ?= 600
TEST_JOBS ?= 1
ifeq ($(V),1)
  Q :=
  say = @:
else
  Q := @
  say = @printf '  %-4s %s\n'
endif

# ---- packages ----------------------------------------------------------------------------------

PACKAGES := json-c libpcre2-8 libutf8proc libcrypto
SERVER_PACKAGES := libevent_core libevent_extra libevent_pthreads
GOALS := $(or $(MAKECMDGOALS),all)
WANTED := $(PACKAGES) $(SERVER_PACKAGES) libedit $(if $(filter test test-% tests asan tsan soak-engine build%,$(GOALS)),cmocka)
ifneq ($(filter-out help clean,$(GOALS)),)
  ifneq ($(shell $(PKG_CONFIG) --exists $(WANTED) 2>/dev/null && command -v $(CC) >/dev/null && echo yes),yes)
    $(error a compiler ($(CC)), pkg-config or a development package ($(WANTED)) is missing: run ./scripts/setup)
  endif
  PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PACKAGES) $(SERVER_PACKAGES))
  PKG_LIBS := $(shell $(PKG_CONFIG) --libs $(PACKAGES))
  SERVER_LIBS := $(shell $(PKG_CONFIG) --libs $(SERVER_PACKAGES))
  CLI_LIBS := $(shell $(PKG_CONFIG) --libs libedit)
  MACHINE := $(firstword $(subst -, ,$(shell $(CC) -dumpmachine)))
endif

# ---- flags -------------------------------------------------------------------------------------

# gcc's sanitizers confuse its own -Wmaybe-uninitialized; without them it stays on.
# -ffp-contract=off: a*b+c is two roundings unless the code says fma, so bytes repeat everywhere.
OPT ?= -O2 -g
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-format-truncation \
        -Werror=implicit-function-declaration $(if $(findstring clang,$(CC)),-Wno-unknown-warning-option) \
        $(if $(SANITIZE),-Wno-maybe-uninitialized)
CFLAGS_OWN := -std=c17 -D_POSIX_C_SOURCE=200809L -DBW_VERSION='"$(VERSION)"' $(OPT) $(WARN) -fPIC \
              -ffp-contract=off -fno-math-errno -pthread -Iinclude -Isrc
CFLAGS_ALL := $(CFLAGS_OWN) $(PKG_CFLAGS) $(CFLAGS) $(SANITIZE)
LDLIBS_ALL := $(LDFLAGS) $(PKG_LIBS) -lm -pthread $(SANITIZE)
ADDRESS := -fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer
THREAD := -fsanitize=thread -fno-omit-frame-pointer

# ---- what there is -----------------------------------------------------------------------------

LIB_SRC := $(filter-out src/cli/% src/server/% src/bench/%,$(sort $(wildcard src/*/*.c src/ops/cpu/*.c)))
NOT_x86_64 := %_neon.c
NOT_aarch64 := %_avx2.c %_avxvnni.c %_avx512.c
LIB_SRC := $(filter-out $(or $(NOT_$(MACHINE)),$(NOT_x86_64) $(NOT_aarch64)),$(LIB_SRC))
SERVER_SRC := $(sort $(wildcard src/server/*.c))
BENCH_SRC := $(sort $(wildcard src/bench/*.c))
CLI_SRC := $(sort $(wildcard src/cli/*.c))
TEST_SRC := $(sort $(foreach d,unit ops property golden server,$(wildcard tests/$d/test_*.c)))
FUZZ_SRC := $(sort $(wildcard tests/fuzz/fuzz_*.c))
SHAPE_FILES := $(sort $(wildcard bench/shapes/*.json))
WEB_FILES := $(filter-out %.md,$(sort $(wildcard src/server/web/*.* src/server/web/vendor/*.*)))
SCRIPT_TESTS := $(sort $(wildcard tests/cli/*.sh tests/repo/*.sh tests/server/*.sh))

LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o) $(BUILD)/shape_files.o
SERVER_OBJ := $(SERVER_SRC:%.c=$(BUILD)/%.o) $(BUILD)/web_files.o
BENCH_OBJ := $(BENCH_SRC:%.c=$(BUILD)/%.o)
CLI_OBJ := $(CLI_SRC:%.c=$(BUILD)/%.o)
TEST_LIB_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard tests/lib/*.c)))
ifeq ($(MACHINE),x86_64)
  TEST_LIB_OBJ += $(BUILD)/tests/lib/packed_evex.o
endif
TEST_BIN := $(TEST_SRC:%.c=$(BUILD)/%)
TEST_TOOLS := $(patsubst %.c,$(BUILD)/%,$(sort $(wildcard tests/cli/*.c))) # what shell tests look with
FUZZ_BIN := $(FUZZ_SRC:%.c=$(BUILD)/%)
LIB := $(BUILD)/libbellwether.a
SERVER := $(BUILD)/libserver.a
BENCH := $(BUILD)/libbench.a
SHARED := $(BUILD)/libbellwether.so.$(VERSION)

# The programs a user starts stand in the root; those of another build stay in its directory.
PROGRAM := $(if $(filter build,$(BUILD)),bellwether,$(BUILD)/bellwether)
SYNTH := $(if $(filter build,$(BUILD)),tools/synth,$(BUILD)/tools/synth)

.PHONY: all lib shared tests test test-fuzz test-web test-clients asan tsan fuzz install clean help \
        asan-build tsan-build fuzz-bins sanitized-tests
.PRECIOUS: $(BUILD)/%.o
all: $(PROGRAM) $(SYNTH)

help:
	@echo 'make              ./bellwether and tools/synth'
	@echo 'make test         builds and runs every test, some again with sanitizers (minutes)'
	@echo 'make install      PREFIX=$(PREFIX) DESTDIR=: program, library (static, shared), header, pkg-config file'
	@echo 'make asan         unit and property tests with the address and undefined sanitizers'
	@echo 'make tsan         unit and property tests with the thread sanitizer'
	@echo 'make soak-engine  random requests against a busy engine for SOAK_SECONDS, 600; another seed each time'
	@echo 'make test-arm     the operations on an emulated ARM processor (needs aarch64-linux-gnu-gcc, qemu-aarch64-static)'
	@echo 'make test-clients plays real clients (openai, LangChain, ...) against the server; needs PyPI and npm'
	@echo 'make test-fuzz    replays the corpora of tests/fuzz with gcc'
	@echo 'make test-web     the web page in Chromium, against a mock and the server (needs chromium, node, npm)'
	@echo 'make fuzz         explores with libFuzzer, FUZZ_SECONDS=$(FUZZ_SECONDS) per target (needs clang)'
	@echo 'make soak         random clients against a server with sanitizers, SOAK_SECONDS=$(SOAK_SECONDS) each (python3)'
	@echo 'make bench-ops    times products, ARGS="LEVEL TYPE THREADS"'
	@echo 'make bench-pool   times runs of the worker pool, ARGS=THREADS'
	@echo 'make bench-mixer  times attention and the delta rule, ARGS="LEVEL THREADS WHAT"'
	@echo 'make bench-moe    times a layer of experts, ARGS="LEVEL THREADS TYPE"'
	@echo 'make lib shared   the library alone, in $(BUILD)/'
	@echo 'make clean        removes everything built'
	@echo
	@echo 'V=1 shows commands; OPT, CFLAGS, LDFLAGS, CC, BUILD as usual; TEST_JOBS=2 runs two tests at a time.'
	@echo 'One test: make build/tests/unit/test_base && build/tests/unit/test_base'

# ---- the library and the programs --------------------------------------------------------------

AVX2 := -mavx2 -mfma -mf16c
AVXVNNI := $(AVX2) -mavxvnni
AVX512 := $(AVX2) -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni
NEON := -march=armv8.2-a+dotprod

# What was built with other flags, or from other files, is stale: six stamps, rewritten on a change.
$(BUILD)/flags: STAMP = $(CC) $(CFLAGS_ALL) $(AVX2) $(AVXVNNI) $(AVX512) $(NEON) $(LDLIBS_ALL) $(SERVER_LIBS)
$(BUILD)/sources: STAMP = $(LIB_SRC) $(SERVER_SRC) $(BENCH_SRC) $(CLI_SRC)
$(BUILD)/page: STAMP = $(WEB_FILES)
$(BUILD)/shapes: STAMP = $(SHAPE_FILES)
$(BUILD)/flags $(BUILD)/sources $(BUILD)/page $(BUILD)/shapes $(ARM)/flags $(ARM)/sources: FORCE
	@mkdir -p $(@D)
	@now='$(subst ','\'',$(STAMP))'; [ "$$now" = "$$(cat $@ 2>/dev/null)" ] || printf '%s\n' "$$now" >$@
.PHONY: FORCE

$(BUILD)/%_avx2.o: LEVEL_FLAGS := $(AVX2)
$(BUILD)/%_avxvnni.o: LEVEL_FLAGS := $(AVXVNNI)
$(BUILD)/%_avx512.o: LEVEL_FLAGS := $(AVX512)
$(BUILD)/%_neon.o: LEVEL_FLAGS := $(NEON)
$(BUILD)/tests/%.o: LEVEL_FLAGS := -Itests
$(BUILD)/%.o: %.c $(BUILD)/flags
	$(say) CC $<
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(LEVEL_FLAGS) -MMD -MP -c -o $@ $<

# The web page travels inside the program, and the shapes of bench/shapes: files become one C file each.
$(BUILD)/web_files.c: tools/embed $(WEB_FILES) $(BUILD)/page
	$(say) WEB $@
	$(Q)tools/embed server/web.h web src/server/web $(WEB_FILES) >$@.new && mv $@.new $@
$(BUILD)/shape_files.c: tools/embed $(SHAPE_FILES) $(BUILD)/shapes
	$(say) EMB $@
	$(Q)tools/embed format/shapes.h shape bench/shapes $(SHAPE_FILES) >$@.new && mv $@.new $@
$(BUILD)/web_files.o $(BUILD)/shape_files.o: %.o: %.c $(BUILD)/flags
	$(say) CC $<
	$(Q)$(CC) $(CFLAGS_ALL) -MMD -MP -c -o $@ $<

lib: $(LIB)
$(LIB): $(LIB_OBJ) $(BUILD)/sources
	$(say) AR $@
	@rm -f $@
	$(Q)$(AR) rcs $@ $(LIB_OBJ)

# The program's alone: who links the library gets no sockets, and no benchmark.
$(SERVER): $(SERVER_OBJ) $(BUILD)/sources
	$(say) AR $@
	@rm -f $@
	$(Q)$(AR) rcs $@ $(SERVER_OBJ)

$(BENCH): $(BENCH_OBJ) $(BUILD)/sources
	$(say) AR $@
	@rm -f $@
	$(Q)$(AR) rcs $@ $(BENCH_OBJ)

# The shared library exports what the installed header declares and nothing else.
shared: $(SHARED)
$(BUILD)/exports.map: include/bellwether.h
	@mkdir -p $(@D)
	@{ echo '{ global:'; sed -n 's/^.*\(bw_[a-z0-9_]*\)(.*$$/  \1;/p' $< | sort -u; echo 'local: *; };'; } >$@
$(SHARED): $(LIB_OBJ) $(BUILD)/exports.map $(BUILD)/sources
	$(say) LD $@
	$(Q)$(CC) -shared -Wl,-soname,$(SONAME) -Wl,--version-script=$(BUILD)/exports.map -o $@ $(LIB_OBJ) $(LDLIBS_ALL)

$(PROGRAM): $(CLI_OBJ) $(SERVER) $(BENCH) $(LIB)
	$(say) LD $@
	$(Q)$(CC) -o $@ $^ $(LDLIBS_ALL) $(SERVER_LIBS) $(CLI_LIBS)

$(SYNTH): $(BUILD)/tools/synth.o $(LIB)
	$(say) LD $@
	@mkdir -p $(@D)
	$(Q)$(CC) -o $@ $^ $(LDLIBS_ALL)

# What products cost: make bench-ops ARGS="avx512 q8_0 2" (level, type, threads)
$(BUILD)/bench/ops_bench: $(BUILD)/bench/ops_bench.o $(LIB)
	$(say) LD $@
	$(Q)$(CC) -o $@ $^ $(LDLIBS_ALL)
bench-ops: $(BUILD)/bench/ops_bench
	$(BUILD)/bench/ops_bench $(ARGS)

# What attention and the delta rule cost: make bench-mixer ARGS="avx512 1 attention" (level, threads, what)
$(BUILD)/bench/mixer_bench: $(BUILD)/bench/mixer_bench.o $(LIB)
	$(say) LD $@
	$(Q)$(CC) -o $@ $^ $(LDLIBS_ALL)
bench-mixer: $(BUILD)/bench/mixer_bench
	$(BUILD)/bench/mixer_bench $(ARGS)
.PHONY: bench-ops bench-mixer

# What a layer of experts costs: make bench-moe ARGS="avx512 1 q4_0" (level, threads, type)
$(BUILD)/bench/moe_bench: $(BUILD)/bench/moe_bench.o $(LIB)
	$(say) LD $@
	$(Q)$(CC) -o $@ $^ $(LDLIBS_ALL)
bench-moe: $(BUILD)/bench/moe_bench
	$(BUILD)/bench/moe_bench $(ARGS)
.PHONY: bench-moe

# What a run of the worker pool costs: make bench-pool ARGS=2 (threads)
$(BUILD)/bench/pool_bench: $(BUILD)/bench/pool_bench.o $(BENCH) $(LIB)
	$(say) LD $@
	$(Q)$(CC) -o $@ $^ $(LDLIBS_ALL)
bench-pool: $(BUILD)/bench/pool_bench
	$(BUILD)/bench/pool_bench $(ARGS)
.PHONY: bench-pool

$(BUILD)/bellwether.pc: Makefile
	@mkdir -p $(@D)
	@printf '%s\n' 'prefix=$(PREFIX)' 'libdir=$(LIBDIR)' 'includedir=$(INCLUDEDIR)' '' 'Name: bellwether' \
	    'Description: Runs models of the Qwen3.5, 3.6 and 3.8 family, drafting with their own MTP head' \
	    'Version: $(VERSION)' 'Requires.private: $(PACKAGES)' 'Cflags: -I$${includedir}' \
	    'Libs: -L$${libdir} -lbellwether' 'Libs.private: -lm -pthread' >$@
.PHONY: $(BUILD)/bellwether.pc

install: $(PROGRAM) $(LIB) $(SHARED) $(BUILD)/bellwether.pc
	install -d $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR)
	install -m 755 $(PROGRAM) $(DESTDIR)$(PREFIX)/bin/bellwether
	install -m 644 $(LIB) $(SHARED) $(DESTDIR)$(LIBDIR)/
	ln -sf $(notdir $(SHARED)) $(DESTDIR)$(LIBDIR)/$(SONAME)
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libbellwether.so
	install -m 644 include/bellwether.h $(DESTDIR)$(INCLUDEDIR)/
	install -m 644 $(BUILD)/bellwether.pc $(DESTDIR)$(LIBDIR)/pkgconfig/

# ---- the operations on ARM -----------------------------------------------------------------------

# Cross-built and run by qemu where both are there: what needs no library but libc, linked statically,
# with tests/arm/cmocka.h in cmocka's place; random tests try a quarter. CFLAGS and LDFLAGS are for the machine
# that builds: here ARM_CFLAGS and ARM_LDFLAGS count. On ARM itself the ordinary tests run every level.
ARM_CC ?= aarch64-linux-gnu-gcc
ARM_RUN ?= qemu-aarch64-static -cpu neoverse-n1
ARM_SRC := $(filter-out $(NOT_aarch64),$(sort $(wildcard src/base/*.c src/ops/*.c src/ops/cpu/*.c))) \
           tests/lib/check.c tests/lib/cpu_fixture.c tests/lib/threads_left.c
ARM_TEST_SRC := $(sort $(wildcard tests/ops/test_*.c)) tests/unit/test_dequant.c tests/unit/test_pool.c
ARM_OBJ := $(ARM_SRC:%.c=$(ARM)/%.o)
ARM_TESTS := $(ARM_TEST_SRC:%.c=$(ARM)/%)
ARM_FLAGS = $(CFLAGS_OWN) $(ARM_CFLAGS)
ifneq ($(filter test test-arm,$(GOALS)),)
  ifeq ($(shell command -v $(firstword $(ARM_RUN)) >/dev/null && test -e "$$($(ARM_CC) -print-file-name=libc.a)" && echo yes),)
    ARM_TESTS := tests/arm/missing.sh
  endif
  ifeq ($(MACHINE),aarch64)
    ARM_TESTS :=
  endif
endif

$(ARM)/flags: STAMP = $(ARM_CC) $(ARM_FLAGS) $(NEON) $(ARM_RUN)
$(ARM)/sources: STAMP = $(ARM_SRC)
$(ARM)/%_neon.o: LEVEL_FLAGS := $(NEON)
$(ARM)/tests/%.o: LEVEL_FLAGS := -Itests -Itests/arm
$(ARM)/%.o: %.c $(ARM)/flags
	$(say) CC "$< (ARM)"
	@mkdir -p $(@D)
	$(Q)$(ARM_CC) $(ARM_FLAGS) $(LEVEL_FLAGS) -MMD -MP -c -o $@ $<
$(ARM)/tests/%.elf: $(ARM)/tests/%.o $(ARM_OBJ) $(ARM)/sources
	$(say) LD $@
	$(Q)$(ARM_CC) -static -o $@ $< $(ARM_OBJ) $(ARM_LDFLAGS) -lm -pthread
$(ARM)/tests/%: $(ARM)/tests/%.elf $(ARM)/flags
	@printf '%s\n' '#!/bin/sh' 'BW_TEST_TRIES=$${BW_TEST_TRIES:-4} exec $(ARM_RUN) $< "$$@"' >$@ && chmod +x $@
.PRECIOUS: $(ARM)/%.o $(ARM)/tests/%.elf

test-arm: $(ARM_TESTS)
	@tests/run -j $(TEST_JOBS) $(or $(ARM_TESTS),$(error this is an ARM machine: make test runs its levels))
.PHONY: test-arm

# ---- tests -------------------------------------------------------------------------------------

# The AVX-VNNI products with the other encoding of their one instruction, which AVX-512 machines run.
$(BUILD)/tests/lib/packed_evex.o: src/ops/cpu/packed_avxvnni.c $(BUILD)/flags
	$(say) CC $@
	@mkdir -p $(@D)
	$(Q)$(CC) $(CFLAGS_ALL) $(AVX512) -DDPBUSD=_mm256_dpbusd_epi32 \
	    -Dbw_cpu_fill_avxvnni_packed=packed_evex_fill -MMD -MP -c -o $@ $<

$(BUILD)/tests/%: $(BUILD)/tests/%.o $(TEST_LIB_OBJ) $(SERVER) $(BENCH) $(LIB)
	$(say) LD $@
	$(Q)$(CC) -o $@ $^ $(LDLIBS_ALL) $(SERVER_LIBS) -lcmocka

# A fuzz target with a main of its own (gcc, replay) or libFuzzer's (clang).
FUZZ_MAIN ?= $(BUILD)/tests/fuzz/replay.o
$(BUILD)/tests/fuzz/fuzz_%: $(BUILD)/tests/fuzz/fuzz_%.o $(FUZZ_MAIN) $(SERVER) $(LIB)
	$(say) LD $@
	$(Q)$(CC) -o $@ $^ $(LDLIBS_ALL) $(SERVER_LIBS) $(FUZZ_LINK)

tests: $(TEST_BIN) $(TEST_TOOLS) $(BUILD)/bench/ops_bench $(BUILD)/bench/pool_bench $(BUILD)/bench/mixer_bench $(BUILD)/bench/moe_bench
fuzz-bins: $(FUZZ_BIN)
sanitized-tests: $(filter $(BUILD)/tests/unit/% $(BUILD)/tests/property/% $(BUILD)/tests/server/%,$(TEST_BIN))

SANITIZED := $(filter tests/unit/% tests/property/% tests/server/%,$(TEST_SRC:.c=))
ASAN_TESTS := $(SANITIZED:%=build-asan/%)
TSAN_TESTS := $(SANITIZED:%=build-tsan/%)
REPLAYS := $(FUZZ_SRC:%.c=build-asan/%)
RUN_ENV := ASAN_OPTIONS=allocator_may_return_null=1:detect_stack_use_after_return=0 \
           UBSAN_OPTIONS=print_stacktrace=1 TSAN_OPTIONS=halt_on_error=1

asan-build:
	@+$(MAKE) --no-print-directory BUILD=build-asan OPT='-O2 -g' SANITIZE='$(ADDRESS)' sanitized-tests fuzz-bins
tsan-build:
	@+$(MAKE) --no-print-directory BUILD=build-tsan OPT='-O2 -g' SANITIZE='$(THREAD)' sanitized-tests

test: all tests asan-build $(ARM_TESTS)
	@$(RUN_ENV) tests/run -j $(TEST_JOBS) $(TEST_BIN) $(SCRIPT_TESTS) $(ARM_TESTS) $(ASAN_TESTS) $(REPLAYS)
asan: asan-build
	@$(RUN_ENV) tests/run -j $(TEST_JOBS) $(ASAN_TESTS)
tsan: tsan-build
	@$(RUN_ENV) BW_TEST_LIMIT=3000 tests/run -j $(TEST_JOBS) $(TSAN_TESTS)
# The seed is printed with what failed: BW_TEST_SEED=N repeats it.
soak-engine: $(BUILD)/tests/property/test_serving_identity
	BW_TEST_SEED=$${BW_TEST_SEED:-$$(date +%s)} BW_SOAK_SECONDS=$(or $(SOAK_SECONDS),600) $(RUN_ENV) $<
.PHONY: soak-engine
test-fuzz: asan-build
	@$(RUN_ENV) tests/run $(REPLAYS)

# The page in a real browser; skipped with a reason where there is none. Not part of `make test`.
test-web: $(PROGRAM)
	@tests/run tests/web/page.sh

# Unmodified clients from PyPI and npm against the server (tests/clients/README.md).
test-clients: all $(TEST_TOOLS)
	@tests/clients/run.sh

# Explores; what it finds stays in build-fuzz/ (crash-*, new inputs in corpus/) for a look.
fuzz:
	@command -v clang >/dev/null || { echo 'make fuzz wants clang: apt-get install clang' >&2; exit 1; }
	@+$(MAKE) --no-print-directory BUILD=build-fuzz CC=clang OPT='-O1 -g' FUZZ_MAIN= FUZZ_LINK=-fsanitize=fuzzer \
	    SANITIZE='$(ADDRESS) -fsanitize=fuzzer-no-link' fuzz-bins
	@for t in $(FUZZ_SRC:tests/fuzz/fuzz_%.c=%); do \
	    mkdir -p build-fuzz/corpus/$$t && echo "== $$t, $(FUZZ_SECONDS) s" && \
	    $(RUN_ENV) build-fuzz/tests/fuzz/fuzz_$$t -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -timeout=10 \
	        -max_len=65536 -print_final_stats=1 -artifact_prefix=build-fuzz/$$t- \
	        build-fuzz/corpus/$$t tests/fuzz/corpus/$$t || exit 1; done

# A server built with the address sanitizer, then one with the thread sanitizer. SOAK_WITH="asan" for one of them.
SOAK_WITH ?= asan tsan
soak:
	@+for s in $(SOAK_WITH); do \
	    case $$s in asan) flags='$(ADDRESS)';; *) flags='$(THREAD)';; esac; \
	    $(MAKE) --no-print-directory BUILD=build-$$s OPT='-O2 -g' SANITIZE="$$flags" build-$$s/bellwether && \
	    python3 tests/soak/soak.py --seconds $(SOAK_SECONDS) build-$$s/bellwether models/lamb || exit 1; done
.PHONY: soak

clean:
	rm -rf build build-asan build-tsan build-fuzz build-arm bellwether tools/synth

-include $(wildcard $(LIB_OBJ:.o=.d) $(SERVER_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(TEST_BIN:=.d) $(FUZZ_BIN:=.d) $(TEST_LIB_OBJ:.o=.d) \
    $(TEST_TOOLS:=.d) $(BUILD)/bench/ops_bench.d $(BUILD)/bench/pool_bench.d $(BUILD)/bench/mixer_bench.d $(BUILD)/bench/moe_bench.d \
    $(BUILD)/tools/synth.d $(BUILD)/tests/fuzz/replay.d)
-include $(wildcard $(BENCH_OBJ:.o=.d))
-include $(wildcard $(ARM_OBJ:.o=.d) $(ARM_TEST_SRC:%.c=$(ARM)/%.d))
