# Two commands matter: `make demo` and `make test`. Both set up what is missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
SECONDS ?=

.DEFAULT_GOAL := help
.PHONY: help venv demo test lint deb bench soak fuzz test-clusters test-system boot-system test-vm boot-vm lock clean
.PHONY: debian-demo debian-test debian-clusters debian-system debian-vm

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

$(READY): pyproject.toml requirements.lock
	@.ci/need-python $(PYTHON)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

# Node for one test, and what the receiver in JavaScript imports
NODE := $(VENV)/.node
RECEIVERS := config/receivers
$(NODE): $(READY) requirements-node.lock $(RECEIVERS)/package-lock.json
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --only-binary :all: \
		-r requirements-node.lock
	cd $(RECEIVERS) && PATH="$(abspath $(BIN)):$$PATH" npm ci --loglevel=error --no-audit --no-fund
	@touch $@

venv: $(READY)  ## set up .venv with the command in .venv/bin/polegate

debian-demo:
	@.ci/need-debian dbus-daemon:dbus-daemon setpriv:util-linux

debian-test: debian-demo
	@.ci/need-debian mosquitto:mosquitto strace:strace systemd-analyze:systemd

debian-clusters: debian-test
	@.ci/need-debian nats-server:nats-server epmd:erlang-base rabbitmq-server:rabbitmq-server

demo: $(READY) debian-demo  ## a living pole in this terminal; SECONDS=30 runs without one and checks every channel
	$(BIN)/python -m hil.demo $(if $(SECONDS),--seconds $(SECONDS))

lint: $(READY)
	$(BIN)/ruff format --check --quiet
	$(BIN)/ruff check --quiet
	$(BIN)/mypy
	$(BIN)/lint-imports

# Many tests start the program; compiling it anew each time would double what that takes
unexport PYTHONDONTWRITEBYTECODE

# Many tests wait for a process or a broker most of their time
WORKERS := $(shell echo $$(( $$(nproc) * 3 / 2 )))

test: $(READY) $(NODE) debian-test lint  ## everything that must be true, in a few minutes
	$(BIN)/pytest -n $(WORKERS) --dist worksteal

# What a pole has installed, and nothing else: the figures are those of a pole.
.bench/pole/.ready: $(READY) requirements-run.lock
	test -x .bench/pole/bin/python || $(PYTHON) -m venv .bench/pole
	.bench/pole/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-run.lock
	@touch $@

bench: .bench/pole/.ready debian-test  ## measure for some fifteen minutes; prints a table and writes .bench/latest.json
	$(BIN)/python -m pip wheel --quiet --disable-pip-version-check --no-deps --no-build-isolation -w .bench/wheel .
	.bench/pole/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --force-reinstall .bench/wheel/*.whl
	$(BIN)/python -m hil.bench --polegate .bench/pole/bin/polegate $(SCENARIO)

soak: $(READY) debian-test  ## the long proofs: kills, power cuts, a week offline, mutants; about an hour
	$(BIN)/pytest -m soak --timeout 1200

fuzz: $(READY) debian-test  ## any input at all, new each time: twenty times what make test tries, some ten minutes
	FUZZ=20 $(BIN)/pytest -n 2 -m hypothesis --timeout 1800

test-clusters: $(READY) debian-clusters  ## poles at clusters of NATS and RabbitMQ whose nodes are killed; some six minutes
	$(BIN)/pytest -m clusters tests/clusters

deb: $(READY)  ## the Debian packages of all architectures, in dist/
	@.ci/need-debian dpkg-deb:dpkg
	$(BIN)/python systemd/debian/build.py

debian-system: debian-test
	@.ci/need-debian systemd-nspawn:systemd-container mmdebstrap:mmdebstrap qemu-aarch64:qemu-user

SYSTEM_ROOTS := $(addprefix .system/,bookworm trixie arm64 armhf)

# Of other machines only the files: nothing in them can be run yet when they are unpacked
.system/arm64 .system/armhf:
	.ci/debian-root bookworm $@ --variant=extract --architectures=$(notdir $@) \
		--include=python3,python3-cffi-backend,python3-zstandard

.system/bookworm .system/trixie:
	.ci/debian-root $(notdir $@) $@ --variant=minbase --include=systemd,systemd-sysv,dbus,python3,udev

test-system: $(READY)  ## the package on a real systemd, in containers; as root, some three minutes
	@why=$$($(BIN)/python -m hil.machine) || exit; \
	[ -n "$$why" ] || why=$$(.ci/why-no-debian $(SYSTEM_ROOTS)); \
	if [ -n "$$why" ]; then echo "test-system skipped: $$why"; else exec $(MAKE) --no-print-directory boot-system; fi

# Half of the time a machine is waited for
MACHINES := $(shell echo $$(( $$(nproc) * 2 )))

# What the machines write lies beside their roots: /tmp may be in memory, or be an overlay itself
boot-system: debian-system $(SYSTEM_ROOTS)
	@why=$$($(BIN)/python -m hil.machine .system/bookworm) || exit; \
	if [ -n "$$why" ]; then echo "test-system skipped: $$why"; else exec \
		$(BIN)/pytest -n $(MACHINES) --dist worksteal -m system --basetemp .system/tmp -o tmp_path_retention_policy=failed tests/system; fi
	@rm -rf .system/tmp

debian-vm: debian-test
	@.ci/need-debian qemu-system-x86_64:qemu-system-x86 qemu-img:qemu-utils mmdebstrap:mmdebstrap mke2fs:e2fsprogs

# Of the kernel's drivers and of the documents only what a pole could miss
VM_PACKAGES := systemd,systemd-sysv,dbus,python3,udev,iproute2,bluez,linux-image-amd64,libeatmydata1
VM_LEFT_OUT := /lib/modules/*/kernel/drivers/gpu/* /lib/modules/*/kernel/drivers/media/* \
	/lib/modules/*/kernel/drivers/net/ethernet/* /lib/modules/*/kernel/drivers/net/wireless/* \
	/lib/modules/*/kernel/drivers/infiniband/* /lib/modules/*/kernel/drivers/scsi/* /lib/modules/*/kernel/sound/* \
	/usr/share/doc/* /usr/share/locale/*

.system/vm:
	.ci/debian-root bookworm $@ --variant=minbase --include=$(VM_PACKAGES) \
		--essential-hook='mkdir -p "$$1/etc/initramfs-tools/conf.d"; echo MODULES=list >"$$1/etc/initramfs-tools/conf.d/vm"' \
		--essential-hook='printf "virtio_pci\nvirtio_blk\next4\n" >"$$1/etc/initramfs-tools/modules"' \
		$(VM_LEFT_OUT:%=--dpkgopt='path-exclude=%')

test-vm: $(READY)  ## the package on a kernel of its own: power cuts, USB, memory, Bluetooth; as root, some fifteen minutes
	@[ "$$(id -u)" != 0 ] || $(MAKE) --no-print-directory debian-vm
	@why=$$($(BIN)/python -m tests.vm.image --why-not); \
	if [ -n "$$why" ]; then echo "skipped: $$why"; else $(MAKE) --no-print-directory boot-vm; fi

boot-vm: .system/vm
	$(BIN)/python -m tests.vm.image
	$(BIN)/pytest -n 2 --dist worksteal -m vm tests/vm

lock:  ## resolve the dependencies anew and pin them with hashes
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/pip install --quiet --disable-pip-version-check uv
	$(VENV)-lock/bin/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
		--all-extras --upgrade -o requirements.lock pyproject.toml
	$(VENV)-lock/bin/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
		-c requirements.lock -o requirements-run.lock pyproject.toml
	$(VENV)-lock/bin/uv pip compile --quiet --universal --generate-hashes --no-header --python-version 3.11 \
		--group node --upgrade -o requirements-node.lock
	$(VENV)-lock/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements-node.lock
	cd $(RECEIVERS) && PATH="$(abspath $(VENV)-lock/bin):$$PATH" npm update --package-lock-only --loglevel=error --no-audit --no-fund
	rm -rf $(VENV)-lock

clean:  ## remove all that was made
	rm -rf $(VENV) $(VENV)-lock $(RECEIVERS)/node_modules .bench .system .run dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
