# Copyright (c) the hypervisor.oci authors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# make demo [SRC=archive]   provisions a root file system on this machine, twice
# make test [S=session]     runs every check, or one
# make unit [T=path]        runs the unit tests with one Python, fast
PYTHON ?= python3
VENV := $(CURDIR)/.venv
DEMO := $(VENV)/demo
export PATH := $(VENV)/bin:$(PATH)
export ANSIBLE_COLLECTIONS_PATH := $(VENV)/collections
export ANSIBLE_LOCALHOST_WARNING := false
export ANSIBLE_INVENTORY_UNPARSED_WARNING := false

.PHONY: demo test unit clean
demo: $(VENV)/done
	$(VENV)/bin/python tests/tools/link_collection.py $(VENV)/collections
	mkdir -p $(DEMO)
	$(if $(SRC),,$(VENV)/bin/python tests/images/build_demo.py $(DEMO)/example.oci.tar)
	tests/tools/demo.sh $(DEMO)/rootfs $(if $(SRC),"$(abspath $(SRC))",$(DEMO)/example.oci.tar)

test: $(VENV)/done
	tests/tools/install_packages.sh shellcheck
	rm -rf .nox/summary
	$(VENV)/bin/nox $(if $(S),-s $(S)); status=$$?; $(VENV)/bin/python tests/tools/summary.py .nox/summary; exit $$status

unit: $(VENV)/done
	$(VENV)/bin/python tests/tools/link_collection.py $(VENV)/collections
	$(VENV)/bin/pip install -q -r tests/unit/requirements.txt pytest
	cd $(VENV)/collections/ansible_collections/hypervisor/oci && PYTHONPATH=$(VENV)/collections $(VENV)/bin/python -m pytest -q $(or $(T),tests/unit)

$(VENV)/done: requirements-dev.txt
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install -q -r requirements-dev.txt
	touch $@

clean:
	rm -rf .ansible .mypy_cache .nox .pytest_cache .ruff_cache .venv tests/output
