# What a user and a developer type; `make help` lists it. The work is in scripts/ and in cargo.

SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
MAKEFLAGS += --no-builtin-rules

MODEL ?= smollm2
CRD := crds/federatedfinetunes.fedtune.io.yaml
# Helm installs what lies in the chart.
CHART_CRD := charts/fedtune/$(CRD)
CARGO_DENY_VERSION := 0.20.2
PROMETHEUS := .cache/tools/prometheus
MONITORING := .cache/tools/monitoring
CARGO_DENY := .cache/tools/cargo-deny-$(CARGO_DENY_VERSION)/bin/cargo-deny
HELM_DOCS_VERSION := 1.14.2
HELM_DOCS := .cache/tools/helm-docs-$(HELM_DOCS_VERSION)/helm-docs
# What it prints of the chart.
CHART_README = $(HELM_DOCS) --chart-search-root charts/fedtune --dry-run --log-level warning
CARGO_FUZZ_VERSION := 0.13.2
CARGO_FUZZ := .cache/tools/cargo-fuzz-$(CARGO_FUZZ_VERSION)/bin/cargo-fuzz
# How long `make fuzz` feeds each target.
SECONDS ?= 600
# Bash counts on from a SECONDS that it finds in its environment.
unexport SECONDS
TARGET := $(or $(CARGO_TARGET_DIR),target)
# Says the command and the time it took.
TIMED := @scripts/timed.sh
# With `-p` in place of `--workspace` cargo would choose other features and build kube a second time, for minutes.
BUILD_OPERATOR = cargo build $(LOCKED) --workspace --bin fedtune-operator
BUILD_TRAINER = cargo build $(LOCKED) --workspace --bin fedtune
METRICS_PAGE = $(TARGET)/debug/fedtune-operator metrics && $(TARGET)/debug/fedtune metrics
# In CI the lock file must be right as it is; at home cargo may bring it up to date.
LOCKED := $(if $(CI),--locked)

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

.PHONY: setup
setup: ## Bring libtorch, the models and the mail into .cache (720 MB of downloads, once)
	@scripts/setup.sh

FRAMEWORKS := manifests/fedllm.yaml manifests/kd.yaml manifests/split-v1.yaml
BASELINES := manifests/central.yaml manifests/local-only.yaml
# MiniLM is small enough for more steps and for both baselines in the same time.
MINILM := --set model.source.path=.cache/models/minilm
DEMO_smollm2 := $(FRAMEWORKS) --out out/demo
DEMO_minilm := $(FRAMEWORKS) $(BASELINES) $(MINILM) --set training.localSteps=8 --out out/demo-minilm
SMOKE := $(FRAMEWORKS) $(MINILM) --set training.rounds=3 --set training.localSteps=8 --set data.evaluation.examples=200 \
	--out out/smoke

.PHONY: smoke
smoke: setup ## Prove the main job: a model fine-tuned in three frameworks, in two minutes
	$(TIMED) cargo build $(LOCKED) --release -p fedtune
	$(TIMED) target/release/fedtune run $(SMOKE) --fresh

.PHONY: demo
demo: demo-model setup ## Compare the frameworks on real mail with SmolLM2 (MODEL=minilm: with a small BERT, and baselines)
	$(TIMED) cargo build $(LOCKED) --release -p fedtune
	$(TIMED) target/release/fedtune run $(DEMO_$(MODEL))

.PHONY: demo-model
demo-model:
	@test -n "$(DEMO_$(MODEL))" || { \
		echo "make demo: no experiments for MODEL=$(MODEL); there are smollm2 and minilm" >&2; exit 1; }

.PHONY: test
test: setup control-plane $(PROMETHEUS) $(MONITORING) ## Run every test of every crate
	$(TIMED) cargo test $(LOCKED) --workspace

# What tests of the operator and the chart talk to: the real API server, built once from its Go module.
.PHONY: control-plane
control-plane:
	$(TIMED) scripts/cluster.sh control-plane helm kstatus

.PHONY: node
node:
	@scripts/check_node.sh
	$(TIMED) scripts/cluster.sh control-plane helm node

.PHONY: images
images: setup ## Build the images of operator and trainer, with buildah or docker (LIBTORCH=DIR: with that libtorch)
	$(TIMED) scripts/images.sh operator trainer pause

.PHONY: image-cuda
image-cuda: ## Build the trainer's image for NVIDIA GPUs (2 GB of downloads, once; 12 GB of disk)
	$(TIMED) scripts/setup.sh libtorch-cuda
	$(TIMED) scripts/images.sh trainer-cuda

CLUSTER = $(TARGET)/debug/fedtune-cluster
CLUSTER_NOTE := .cache/k8s/running

.PHONY: cluster
cluster: node images ## Start a real cluster of one node on this machine with the operator in it; prints the KUBECONFIG line; takes root
	$(TIMED) cargo build $(LOCKED) --workspace --bin fedtune-cluster
	@$(CLUSTER) up $(CLUSTER_NOTE)

.PHONY: cluster-down
cluster-down: ## End it
	$(TIMED) cargo build $(LOCKED) --workspace --bin fedtune-cluster
	@$(CLUSTER) down $(CLUSTER_NOTE)

# What upgrades begin at.
FIRST_RELEASE := v0.1.0
E2E = cargo test $(LOCKED) --workspace --test cluster_node --test e2e -- --ignored --nocapture --test-threads 1

.PHONY: e2e
e2e: node images ## Run what needs nodes: pods on a real cluster (ONLY=each_framework: one run of each); takes root
	$(TIMED) scripts/images.sh operator@$(FIRST_RELEASE)
	$(TIMED) env FEDTUNE_PROGRAM=$(abspath $(TARGET))/release/fedtune $(E2E) $(ONLY)

# Unoptimised, which `make test` builds anyway.
.PHONY: e2e-smoke
e2e-smoke: setup node ## The shortest of it: one run of each framework in pods
	$(TIMED) env PROFILE=dev scripts/images.sh operator trainer pause
	$(TIMED) $(E2E) each_framework

.PHONY: check
check: setup $(CARGO_DENY) $(HELM_DOCS) ## Formatting, lints, docs, licences, generated files: what must be clean besides the tests
	$(TIMED) cargo fmt --check
	$(TIMED) scripts/check_sources.sh
	$(TIMED) $(CARGO_DENY) $(LOCKED) --log-level error check bans licenses sources
	$(TIMED) cargo clippy $(LOCKED) --workspace --all-targets -- -D warnings
	$(TIMED) env RUSTDOCFLAGS='-D warnings' cargo doc $(LOCKED) --workspace --no-deps
	$(TIMED) $(BUILD_OPERATOR)
	$(TIMED) scripts/check_generated.sh $(CRD) $(TARGET)/debug/fedtune-operator crd
	$(TIMED) scripts/check_generated.sh $(CHART_CRD) $(TARGET)/debug/fedtune-operator crd
	$(TIMED) scripts/check_generated.sh docs/resource.md $(TARGET)/debug/fedtune-operator reference
	$(TIMED) $(BUILD_TRAINER)
	$(TIMED) scripts/check_generated.sh docs/metrics.md sh -c '$(METRICS_PAGE)'
	$(TIMED) scripts/check_generated.sh charts/fedtune/README.md $(CHART_README)
	$(TIMED) $(MAKE) --no-print-directory bench-smoke

# Tests do without it where it cannot be had.
$(PROMETHEUS):
	@scripts/prometheus.sh $(@D)

$(MONITORING):
	@scripts/monitoring.sh $@

# Unoptimised, and without the client of the advisories: that builds in a minute, and it runs for seconds.
$(CARGO_DENY):
	$(TIMED) cargo install --locked --debug --no-default-features cargo-deny --version $(CARGO_DENY_VERSION) \
		--root $(dir $(@D))

# Contests whose names hold ONLY, each side REPEATS times. QUICK=1: of a size that takes seconds.
REPEATS ?= 5
BENCH = $(TARGET)/release/fedtune-bench run --repeats $(REPEATS) $(if $(QUICK),--smoke) $(addprefix --only ,$(ONLY))
PEERS := .cache/peers/env

.PHONY: bench
bench: setup ## Measure speed, memory and bytes of the trainer (ONLY=word, REPEATS=n, QUICK=1)
	$(TIMED) cargo build $(LOCKED) --release -p fedtune -p fedtune-bench
	$(TIMED) $(BENCH)

.PHONY: bench-peers
bench-peers: setup ## The same beside PyTorch, PEFT and Flower, in turn (5.3 GB of Python in .cache/peers)
	$(TIMED) scripts/peers.sh $(PEERS)
	$(TIMED) cargo build $(LOCKED) --release -p fedtune -p fedtune-bench
	$(TIMED) $(BENCH) --python $(PEERS)/bin/python

# Unoptimised, which `make test` builds anyway: it shows that the bench runs, not how fast.
# RUNS=n runs; and IDLE=n seconds in which nothing should happen.
RUNS ?= 1000
IDLE ?= 600
.PHONY: bench-operator
bench-operator: control-plane ## Measure the operator against a real API server: RUNS=1000 at once, take-over, IDLE=600 seconds of suspended runs; PODS=yes: with pretended pods
	$(if $(PODS),$(TIMED) scripts/cluster.sh pretended)
	$(TIMED) cargo build $(LOCKED) --release --workspace --bin fedtune-operator --bin fedtune-bench-operator --bin fedtune-cluster
	$(TIMED) $(TARGET)/release/fedtune-bench-operator --runs $(RUNS) --idle-seconds $(IDLE) $(if $(PODS),--pods)

.PHONY: bench-smoke
bench-smoke: setup
	$(TIMED) cargo build $(LOCKED) --workspace --bin fedtune --bin fedtune-bench
	$(TIMED) $(TARGET)/debug/fedtune-bench run --smoke

.PHONY: fuzz
fuzz: setup $(CARGO_FUZZ) ## Feed every parser made-up bytes, SECONDS=600 each
	$(TIMED) env CARGO_FUZZ=$(CARGO_FUZZ) scripts/fuzz.sh $(SECONDS)

# A part of its own for what takes an hour: only where its seconds are given.
.PHONY: soak
soak: setup $(CARGO_FUZZ) soak-kills $(if $(QUIET),soak-quiet) ## What takes too long for each change: 300 kills, a minute of each fuzz target (QUIET=3600: and an hour of silence)
	$(TIMED) env CARGO_FUZZ=$(CARGO_FUZZ) scripts/fuzz.sh 60

$(CARGO_FUZZ):
	$(TIMED) cargo install --locked --debug cargo-fuzz --version $(CARGO_FUZZ_VERSION) --root $(dir $(@D))

# Kills processes of each framework at seeded moments (KILLS=n, FEDTUNE_SEED=n): the same adapters.
KILLS ?= 300
.PHONY: soak-kills
soak-kills: setup
	$(TIMED) env FEDTUNE_KILLS=$(KILLS) cargo test $(LOCKED) --workspace --test kills -- --nocapture

# Blocks a client's model thread, and a server's disk, for QUIET seconds: every session is kept.
.PHONY: soak-quiet
soak-quiet: setup
	$(TIMED) env FEDTUNE_QUIET=$(or $(QUIET),3600) cargo test $(LOCKED) --workspace --lib -- \
		--ignored --nocapture --exact server::quiet::a_session_quiet_for_an_hour_is_kept

# From the Go module, as the cluster's programs are.
$(HELM_DOCS):
	$(TIMED) env GOBIN=$(abspath $(@D)) go install github.com/norwoodj/helm-docs/cmd/helm-docs@v$(HELM_DOCS_VERSION)

.PHONY: generate
generate: setup $(HELM_DOCS) ## Write anew what is generated: the custom resource definition and docs' reference pages from the code, the chart's README
	$(TIMED) $(BUILD_OPERATOR)
	@$(TARGET)/debug/fedtune-operator crd > $(CRD).new
	@mv $(CRD).new $(CRD)
	@cp $(CRD) $(CHART_CRD)
	@$(TARGET)/debug/fedtune-operator reference > docs/resource.md.new
	@mv docs/resource.md.new docs/resource.md
	$(TIMED) $(BUILD_TRAINER)
	@($(METRICS_PAGE)) > docs/metrics.md.new
	@mv docs/metrics.md.new docs/metrics.md
	@$(CHART_README) > charts/fedtune/README.md.new
	@mv charts/fedtune/README.md.new charts/fedtune/README.md

MDBOOK_VERSION := 0.4.52
MDBOOK := .cache/tools/mdbook-$(MDBOOK_VERSION)/bin/mdbook
$(MDBOOK):
	$(TIMED) cargo install --locked --debug --no-default-features mdbook --version $(MDBOOK_VERSION) --root $(dir $(@D))

.PHONY: docs
docs: $(MDBOOK) ## Build the pages of docs/ as a site, in target/book
	$(TIMED) $(MDBOOK) build docs

# Grafana's own types for dashboards.
DASHBOARDS := .cache/tools/dashboards
$(DASHBOARDS):
	$(TIMED) python3 -m venv $@.new
	$(TIMED) $@.new/bin/pip install --quiet --disable-pip-version-check grafana-foundation-sdk==1769699998!10.1.0
	@mv $@.new $@

.PHONY: dashboards
dashboards: $(DASHBOARDS) ## Write the chart's Grafana dashboards anew from scripts/dashboards.py
	@$(DASHBOARDS)/bin/python scripts/dashboards.py charts/fedtune/dashboards

.PHONY: clean
clean: ## Remove what was built and what runs wrote; .cache stays
	cargo clean
	rm -rf out
