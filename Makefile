# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# make demo [SRC=archive] [PLATFORM=os/architecture]
#                           provisions a root file system on this machine, twice
# make test [S=session]     runs every check, or one
# make unit [T=path]        runs the tests of the product's rooms with one Python, fast
# make unit-tools           runs the tests of the test tools: the crash laboratory, the model, the fleet, the comparers
# make format               formats every Python file
# make model [N=20000]      compares generated images with the executable specification
# make fuzz [SECONDS=60]    mutates archives, documents and layers
# make limits               images that ask for too much, at full size
# make crash [N=100]        kills runs at every step and at N random instants, and cuts power at every step
# make bench                measures against other tools, and writes docs/performance.md
# make bench-sharing        measures many containers and updates, and writes their section of docs/performance.md
# make bench-verify         measures what verifying costs, and writes its section of docs/performance.md
# make drift-software       runs nginx, postgres, redis and systemd, and counts false findings
# make fleet                measures what many nodes cost, and writes the tables of docs/fleet.md
# make fleet-large          interrupts transfers of 200 MB on a fleet
# make examples [PAGE=…]    runs every example of the documentation
PYTHON ?= python3
VENV := $(CURDIR)/.venv
DEMO := $(VENV)/demo
RESULTS := .nox/results
export PATH := $(VENV)/bin:$(PATH)

INSIDE := $(VENV)/collections/ansible_collections/hypervisor/oci
# what root runs, but for the demo: nothing outside of this folder is changed
SANDBOX := $(VENV)/bin/python $(CURDIR)/tests/tools/sandbox.py
NOX := $(SANDBOX) --or-outside $(VENV)/bin/nox
RUN := cd $(INSIDE) && PYTHONPATH=$(VENV)/collections $(SANDBOX) $(VENV)/bin/python

# Debian packages that sessions use; they are installed before the sandbox is entered.
PEERS := buildah skopeo umoci
EXAMPLES_PACKAGES := iproute2 lxc openssl util-linux
SERVERS := docker-registry nginx
FLEET_PACKAGES := docker-registry e2fsprogs iproute2 openssh-client openssh-server openssl skopeo sudo util-linux
# integration is for root
PACKAGES_integration = $(if $(filter 0,$(shell id -u)),$(PACKAGES_root))
PACKAGES_root := acl attr btrfs-progs crun e2fsprogs lxc runc systemd-container uidmap xfsprogs zstd \
    $(PEERS) $(SERVERS) $(FLEET_PACKAGES) $(EXAMPLES_PACKAGES)
PACKAGES_sanity := shellcheck
PACKAGES = $(foreach kind,integration sanity,$(if $(or $(if $(S),,all),$(findstring $(kind),$(S))),$(PACKAGES_$(kind))))

.PHONY: demo test unit unit-tools format model fuzz limits crash bench bench-sharing bench-verify drift-software fleet fleet-large examples clean
# the module makes the folder above the root file system, closed to other users
demo: export DEMO_SRC := $(or $(SRC),$(DEMO)/example.oci.tar)
demo: export DEMO_PLATFORM := $(PLATFORM)
demo: $(VENV)/done
	mkdir -p $(DEMO)
	$(if $(SRC),,$(VENV)/bin/python tests/images/build_demo.py $(DEMO)/example.oci.tar)
	tests/tools/demo.sh $(DEMO)/container/rootfs "$$DEMO_SRC" $(VENV)

# Folders of unit tests, and those among them that test the test tools.
UNIT_TESTS := $(sort $(dir $(wildcard tests/unit/*/.)))
TOOLS_TESTS := $(addsuffix /,$(addprefix tests/unit/,bench crash drift examples fleet images model races tools))

# REQUIRE: units that must have run, as units-2.19:3.8
test: $(VENV)/done
	rm -rf $(CURDIR)/$(RESULTS)
	mkdir -p $(RESULTS)
	tests/tools/install_packages.sh $(PACKAGES)
	$(if $(S),$(NOX) --report $(RESULTS)/report.json -s $(S),\
	    $(VENV)/bin/python tests/tools/lanes.py $(RESULTS)/report.json $(NOX)); status=$$?; \
	    $(VENV)/bin/python tests/tools/summary.py $(RESULTS) $(addprefix --require ,$(REQUIRE)) || status=1; exit $$status

unit: $(VENV)/tests-done
	$(RUN) -m pytest -q -n auto $(or $(T),$(filter-out $(TOOLS_TESTS),$(UNIT_TESTS)))

unit-tools: $(VENV)/tests-done
	$(RUN) -m pytest -q -n auto $(TOOLS_TESTS)

format: $(VENV)/done
	$(VENV)/bin/nox -s format

model: $(VENV)/tests-done
	$(RUN) tests/model/run.py -n $(or $(N),20000)

fuzz: $(VENV)/tests-done
	$(RUN) tests/fuzz/run.py --seconds $(or $(SECONDS),60)

limits: $(VENV)/tests-done
	$(RUN) tests/limits/run.py

crash: $(VENV)/tests-done
	$(RUN) tests/crash/run.py --random $(or $(N),100)
	$(RUN) tests/crash/run.py --power

# BENCH: options of tests/bench/run.py, paths absolute
bench: $(VENV)/tests-done
	tests/tools/install_packages.sh $(PEERS) tar gzip zstd libarchive-tools e2fsprogs
	$(RUN) tests/bench/run.py --folder $(CURDIR)/.nox $(BENCH)

# BENCH: options of tests/bench/sharing.py, paths absolute; root, since it mounts file systems
bench-sharing: $(VENV)/tests-done
	tests/tools/install_packages.sh btrfs-progs podman
	$(RUN) tests/bench/sharing.py --folder $(CURDIR)/.nox $(BENCH)

# BENCH: options of tests/bench/verify.py, paths absolute; root, since it mounts file systems
bench-verify: $(VENV)/tests-done
	$(RUN) tests/bench/verify.py --folder $(CURDIR)/.nox $(BENCH)

# DRIFT: options of tests/drift/run.py, paths absolute; root, and Debian's packages, of which it builds images
drift-software: $(VENV)/tests-done
	tests/tools/install_packages.sh buildah debootstrap runc systemd-container btrfs-progs e2fsprogs
	$(RUN) tests/drift/run.py $(DRIFT)

# FLEET: options of tests/fleet/measure.py, paths absolute; root, since it makes namespaces
fleet: $(VENV)/tests-done
	tests/tools/install_packages.sh $(FLEET_PACKAGES)
	$(RUN) tests/fleet/measure.py $(FLEET)

# root, since it makes namespaces
fleet-large: $(VENV)/tests-done
	tests/tools/install_packages.sh $(FLEET_PACKAGES)
	$(RUN) tests/fleet/check.py --large

# PAGE: some pages, as README.md; root, since it makes namespaces
examples: $(VENV)/tests-done
	tests/tools/install_packages.sh $(EXAMPLES_PACKAGES)
	$(RUN) tests/examples/check.py $(PAGE)

$(VENV)/tests-done: $(VENV)/done tests/unit/requirements.txt
	$(VENV)/bin/pip install -q -r tests/unit/requirements.txt
	touch $@

$(VENV)/done: requirements-dev.txt
	tests/tools/make_venv.sh $(PYTHON) $(VENV)
	$(VENV)/bin/python tests/tools/link_collection.py $(VENV)/collections
	touch $@

clean:
	[ ! -d $(DEMO) ] || chmod -R u+rwX $(DEMO)
	rm -rf $(addprefix $(CURDIR)/,.ansible .hypothesis .mypy_cache .nox .pytest_cache .ruff_cache .venv tests/output)
