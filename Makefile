# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# make demo [SRC=archive]   provisions a root file system on this machine, twice
# make test [S=session]     runs every check, or one
# make unit [T=path]        runs the unit tests with one Python, fast
# make model [N=20000]      compares generated images with the executable specification
# make fuzz [SECONDS=60]    mutates archives, documents and layers
# make crash [N=100]        kills runs at every step and at N random instants
# make bench                measures against other tools, and writes docs/performance.md
PYTHON ?= python3
VENV := $(CURDIR)/.venv
DEMO := $(VENV)/demo
export PATH := $(VENV)/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(VENV)/collections
export ANSIBLE_LOCALHOST_WARNING := false
export ANSIBLE_INVENTORY_UNPARSED_WARNING := false

INSIDE := $(VENV)/collections/ansible_collections/hypervisor/oci
RUN := cd $(INSIDE) && PYTHONPATH=$(VENV)/collections $(VENV)/bin/python

.PHONY: demo test unit model fuzz crash bench clean
demo: $(VENV)/done
	$(VENV)/bin/python tests/tools/link_collection.py $(VENV)/collections
	mkdir -p $(DEMO)
	$(if $(SRC),,$(VENV)/bin/python tests/images/build_demo.py $(DEMO)/example.oci.tar)
	tests/tools/demo.sh $(DEMO)/rootfs $(if $(SRC),"$(abspath $(SRC))",$(DEMO)/example.oci.tar)

test: $(VENV)/done
	tests/tools/install_packages.sh shellcheck
	rm -rf .nox/summary
	$(VENV)/bin/nox $(if $(S),-s $(S)); status=$$?; $(VENV)/bin/python tests/tools/summary.py .nox/summary; exit $$status

unit: $(VENV)/tests-done
	$(RUN) -m pytest -q $(or $(T),tests/unit)

model: $(VENV)/tests-done
	$(RUN) tests/model/run.py -n $(or $(N),20000)

fuzz: $(VENV)/tests-done
	$(RUN) tests/fuzz/run.py --seconds $(or $(SECONDS),60)

crash: $(VENV)/tests-done
	$(RUN) tests/crash/run.py --random $(or $(N),100)

bench: $(VENV)/tests-done
	$(RUN) tests/bench/run.py

$(VENV)/tests-done: $(VENV)/done tests/unit/requirements.txt
	$(VENV)/bin/python tests/tools/link_collection.py $(VENV)/collections
	$(VENV)/bin/pip install -q -r tests/unit/requirements.txt pytest
	touch $@

$(VENV)/done: requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q -r requirements-dev.txt
	touch $@

clean:
	rm -rf .ansible .mypy_cache .nox .pytest_cache .ruff_cache .venv tests/output
