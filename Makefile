# Bellwether. `make help` lists the targets.
#
# Sources are found, not listed: a new .c file under src/ is part of the library. The instruction
# set of a file follows from its suffix (_avx2, _avx512, _neon), so no other file can use it.

CC ?= gcc
AR ?= ar
BUILD ?= build
VERSION := 0.1.0
PREFIX ?= /usr/local
DESTDIR ?=
LIBDIR ?= $(PREFIX)/lib
PKG_CONFIG ?= pkg-config

PACKAGES := json-c libpcre2-8 libutf8proc libcrypto
ifneq ($(filter-out help clean,$(or $(MAKECMDGOALS),all)),)
ifneq ($(shell $(PKG_CONFIG) --exists $(PACKAGES) libedit && echo yes),yes)
$(error missing development packages (json-c, libpcre2-8, libutf8proc, libcrypto, libedit): run ./scripts/setup)
endif
endif
PKG_CFLAGS := $(shell $(PKG_CONFIG) --cflags $(PACKAGES))
PKG_LIBS := $(shell $(PKG_CONFIG) --libs $(PACKAGES))
CLI_LIBS := $(shell $(PKG_CONFIG) --libs libedit)

# -ffp-contract=off: a*b+c is two roundings unless the code says fma, so bytes repeat everywhere.
OPT ?= -O2 -g
WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wno-format-truncation -Werror=implicit-function-declaration
CFLAGS_ALL := -std=c17 -D_POSIX_C_SOURCE=200809L -DBW_VERSION='"$(VERSION)"' $(OPT) $(WARN) -fPIC -fvisibility=default \
              -ffp-contract=off -fno-math-errno -pthread -Iinclude -Isrc $(PKG_CFLAGS) $(CFLAGS) $(SANITIZE)
LDLIBS_ALL := $(PKG_LIBS) -lm -pthread $(SANITIZE)

LIB_SRC := $(filter-out src/cli/%,$(sort $(wildcard src/*/*.c src/ops/cpu/*.c)))
CLI_SRC := $(sort $(wildcard src/cli/*.c))
ifneq ($(shell $(CC) -dumpmachine | cut -d- -f1),x86_64)
LIB_SRC := $(filter-out %_avx2.c %_avx512.c,$(LIB_SRC))
endif
LIB_OBJ := $(LIB_SRC:%.c=$(BUILD)/%.o)
CLI_OBJ := $(CLI_SRC:%.c=$(BUILD)/%.o)
TEST_SRC := $(sort $(wildcard tests/unit/test_*.c tests/ops/test_*.c tests/property/test_*.c tests/golden/test_*.c))
TEST_BIN := $(TEST_SRC:%.c=$(BUILD)/%)
TEST_LIB_OBJ := $(patsubst %.c,$(BUILD)/%.o,$(sort $(wildcard tests/lib/*.c)))

LIB := $(BUILD)/libbellwether.a

.PHONY: all lib tests test clean help install
all: bellwether tools/synth

bellwether: $(CLI_OBJ) $(LIB)
	$(CC) -o $@ $^ $(LDLIBS_ALL) $(CLI_LIBS)

tools/synth: $(BUILD)/tools/synth.o $(LIB)
	$(CC) -o $@ $^ $(LDLIBS_ALL)

lib: $(LIB)
$(LIB): $(LIB_OBJ)
	@rm -f $@
	$(AR) rcs $@ $^

$(BUILD)/%_avx2.o: LEVEL_FLAGS := -mavx2 -mfma -mf16c
$(BUILD)/%_avx512.o: LEVEL_FLAGS := -mavx2 -mfma -mf16c -mavx512f -mavx512bw -mavx512dq -mavx512vl -mavx512vnni
$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CFLAGS_ALL) $(LEVEL_FLAGS) -MMD -MP -c -o $@ $<

$(BUILD)/tests/%.o: CFLAGS_ALL += -Itests
$(BUILD)/tests/%: $(BUILD)/tests/%.o $(TEST_LIB_OBJ) $(LIB)
	$(CC) -o $@ $^ $(LDLIBS_ALL) -lcmocka

tests: $(TEST_BIN)
.PRECIOUS: $(BUILD)/%.o

clean:
	rm -rf $(BUILD) bellwether tools/synth

-include $(LIB_OBJ:.o=.d) $(CLI_OBJ:.o=.d) $(TEST_BIN:=.d) $(TEST_LIB_OBJ:.o=.d) $(BUILD)/tools/synth.d
