# postrider: all commands for development and installation. `make` alone lists them.
#
#   make run                         build and run at once, with a sample domain in ./run
#   make test                        all checks
#   make build && sudo make install  PREFIX=/usr/local DESTDIR=
#
# Longer recipes are scripts in scripts/.

PREFIX  ?= /usr/local
DESTDIR ?=
# The configuration is always here: it belongs to the host, not to the place of the program.
ETC     := $(DESTDIR)/etc/postrider
TARGET  := $(or $(CARGO_TARGET_DIR),target)
# The program to install or to try.
BIN     ?= $(TARGET)/release/postrider

MAN     := $(DESTDIR)$(PREFIX)/share/man
UNITS   := $(DESTDIR)$(PREFIX)/lib/systemd/system

.DEFAULT_GOAL := help
.PHONY: help deps build run test interop fuzz mutants model-mutants bench torture man install uninstall

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

deps: ## Packages for the build: installed if you are root and there is apt-get, else listed
	@scripts/deps

build: deps ## The program, as it is installed: target/release/postrider
	cargo build --release --locked

# exec: otherwise Ctrl-C would kill the shell in between, and make would get its status instead of the server's.
run: build ## Build and run at once: sample domain, user, certificate and mailboxes made in ./run
	@exec scripts/sample "$(BIN)"

test: ## All checks: format, lints, documents, all tests, real programs
	@scripts/deps c++
	@scripts/test

interop: deps ## Only the tests with real programs: Exim, Postfix, procmail, maildrop, swaks, Dovecot, HAProxy, fail2ban, curl, msmtp, gsasl
	cargo test --locked --test suite -- interop::

fuzz: ## Mutated input for each parser of input from the network (TIME=seconds, T=target)
	@scripts/deps c++
	@scripts/fuzz

mutants: ## Lists changes in src/queue and src/spool that no test finds, by cargo-mutants, in slices (SLICE=1/64, FILE=, RE=)
	@scripts/mutants

model-mutants: ## Shows that the concurrency model finds each fault of testdata/mutants (T=name)
	@scripts/model-mutants

bench: build ## How fast this host accepts and settles mail (BENCH_DIR, T=bench)
	cargo bench --locked --bench '$(or $(T),*)'
	$(if $(T),,scripts/bench-end-to-end "$(BIN)")

torture: build ## Durability, tested for long: kills, stops, 100,000 messages that wait, 100,000 schedules (BENCH_DIR; as root, one of root's)
	"$(BIN)" torture --rounds 200 --waiting 100000 "$(or $(BENCH_DIR),$(TARGET))"
	SCHEDULES=100000 cargo test --locked --profile fuzz --test suite -- concurrency::

man: deps ## Write the manual pages and the sample configuration again, from the program's tables
	UPDATE=1 cargo test --locked --test suite -- cli::generated

install: ## Program, manual pages, units and a sample configuration (PREFIX, DESTDIR, BIN)
	@test -x "$(BIN)" || { echo "$(BIN) is not there: run \`make build\` first, as the user who builds"; exit 1; }
	install -D -m 0755 "$(BIN)" "$(DESTDIR)$(PREFIX)/bin/postrider"
	install -D -m 0644 docs/man/postrider.8 "$(MAN)/man8/postrider.8"
	install -D -m 0644 docs/man/postrider.toml.5 "$(MAN)/man5/postrider.toml.5"
	install -d "$(UNITS)"
	for unit in etc/systemd/*.socket etc/systemd/*.service; do \
	    sed 's,@PREFIX@,$(PREFIX),g' "$$unit" > "$(UNITS)/$${unit##*/}" && chmod 0644 "$(UNITS)/$${unit##*/}" || exit 1; \
	done
# The user of the server may own this directory by now: existing files keep their mode, and no link is followed.
	umask 022 && mkdir -p "$(DESTDIR)/etc" && \
	for dir in "$(ETC)" "$(ETC)/domains" "$(ETC)/certs" "$(ETC)/hooks"; do \
	    test -e "$$dir" || test -L "$$dir" || mkdir "$$dir" || exit 1; \
	done
	@if test -e "$(ETC)/postrider.toml" || test -L "$(ETC)/postrider.toml"; then \
	    echo "$(ETC)/postrider.toml is there and stays as it is"; \
	else \
	    umask 022 && dd if=etc/postrider/postrider.toml of="$(ETC)/postrider.toml" conv=excl status=none; \
	fi
	install -D -m 0755 etc/postrider/hooks/post-data "$(DESTDIR)$(PREFIX)/share/postrider/hooks/post-data"
	@scripts/next-steps

uninstall: ## Remove the files of `make install`, but nothing in /etc or /var
	rm -f "$(DESTDIR)$(PREFIX)/bin/postrider"
	rm -f "$(DESTDIR)$(PREFIX)/share/postrider/hooks/post-data"
	rm -f "$(MAN)/man8/postrider.8" "$(MAN)/man5/postrider.toml.5"
	for unit in etc/systemd/*.socket etc/systemd/*.service; do rm -f "$(UNITS)/$${unit##*/}"; done
