# The commands of a contributor, in an active virtual environment (see CONTRIBUTING.md).
SOURCE = PYTHONPATH=src
COMPILED = $(patsubst src/%.pyx,%,$(shell find src -name '*.pyx'))
STUBBED = $(subst /,.,$(COMPILED)) headgate.cachetools
SANITIZE = -fsanitize=address,undefined
ASAN = build/asan
TSAN = build/tsan
UNSANITIZED = *_cli.py *_protocol.py */test_architecture.py */test_backend.py */test_packaging.py */test_pages.py \
	*/test_cache_traces.py */test_forks.py tests/adapters/* tests/c/* tests/config/* tests/httpcache/* \
	tests/services/*
FUZZ = build/fuzz
FUZZ_SECONDS = 60
FUZZERS = $(filter-out replay,$(basename $(notdir $(wildcard tests/fuzz/*.c))))

.PHONY: build test doctest lint bench edge asan tsan fuzz wheels ci clean

build:
	python setup.py -q build_ext --inplace

test: build
	HEADGATE_PURE=0 $(SOURCE) python -m pytest
	HEADGATE_PURE=1 $(SOURCE) python -m pytest

doctest: build
	$(SOURCE) python -m pytest tests/test_doctests.py

lint: build
	ruff check .
	cython-lint src
	mypy
	$(SOURCE) stubtest --allowlist .ci/stubtest.allow --ignore-unused-allowlist $(STUBBED)

bench: build
	$(SOURCE) python -m pytest bench --benchmark-only

# The edge of examples/edge under load for half a minute; needs nginx and redis-server.
edge: build
	$(SOURCE):examples/edge python examples/edge/demo.py

# The compiled modules and their tests under AddressSanitizer and UndefinedBehaviorSanitizer, without the tests that
# are about other code, or compile what they run. Nor may a thread allocate while another forks: the child would wait
# for the allocator of the sanitizer.
asan:
	CFLAGS="$(SANITIZE) -fno-sanitize-recover=undefined -g -O1 -fno-omit-frame-pointer" \
	LDFLAGS="$(SANITIZE)" python setup.py -q build --build-base $(ASAN) --build-lib $(ASAN)/lib
	LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=print_stacktrace=1 PYTHONMALLOC=malloc \
	HEADGATE_PURE=0 PYTHONPATH=$(ASAN)/lib \
	python -m pytest --hypothesis-profile=sanitizers -p no:cacheprovider -k "not pure" \
	$(patsubst %,--ignore-glob='%',$(UNSANITIZED))

# The compiled modules under ThreadSanitizer, on a CPython built --disable-gil --with-thread-sanitizer by the same CC.
tsan:
	CFLAGS="-fsanitize=thread -g -O1" LDFLAGS="-fsanitize=thread" \
	python setup.py -q build --build-base $(TSAN) --build-lib $(TSAN)/lib
	TSAN_OPTIONS="suppressions=$(CURDIR)/.ci/tsan.suppressions halt_on_error=0 exitcode=66" \
	HEADGATE_PURE=0 PYTHONPATH=$(TSAN)/lib \
	python -m pytest -s -p no:cacheprovider -k "not pure" tests/test_races.py tests/test_conservation.py

# The C structures against simple models, FUZZ_SECONDS each, by clang's libFuzzer. Inputs that fail are in build/fuzz.
fuzz: $(FUZZERS:%=fuzz-%)

fuzz-%:
	mkdir -p $(FUZZ)/corpus/$*
	clang -g -O1 -Wall -Werror -Wno-unused-function -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
	$(addprefix -I,$(sort $(dir $(shell find src -name '*.h')))) tests/fuzz/$*.c -o $(FUZZ)/$*
	$(FUZZ)/$* -max_total_time=$(FUZZ_SECONDS) -max_len=1024 -timeout=10 -verbosity=0 -print_final_stats=1 \
	-artifact_prefix=$(FUZZ)/ $(FUZZ)/corpus/$* tests/fuzz/seeds/$*

wheels:
	.ci/wheels

ci:
	.ci/run

clean:
	rm -rf build dist wheelhouse src/*.egg-info
	find src -name '*.so' -delete
