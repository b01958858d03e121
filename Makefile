# The commands of the project; `make help` lists them. The work is done by scripts/ and by cargo.

.DEFAULT_GOAL := help
SHELL := /bin/bash
PORT ?= 8080

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-14s %s\n", $$1, $$2 }' Makefile

.PHONY: demo
demo: ## Install what is missing, build, start a cluster, load real data, search (DEMO_EXIT=1 ends, PORT=8080)
	@scripts/demo --port $(PORT) $(if $(DEMO_EXIT),--exit)

.PHONY: test
test: ## Install what is missing and run everything that CI runs
	@scripts/test all

.PHONY: test-fast
test-fast: ## Lints and all tests that need no Kubernetes
	@scripts/test fast

.PHONY: test-kube
test-kube: ## The tests on a real three-node Kubernetes (needs root; KUBECONFIG uses yours)
	@scripts/test kube

.PHONY: test-day-two
test-day-two: ## Scaling, failures and deletion of a cluster on Kubernetes
	@scripts/test day-two

.PHONY: test-doors
test-doors: ## Authentication and limits of the public API
	@scripts/test doors

.PHONY: test-kernels
test-kernels: ## The distance kernels for 64-bit Arm under qemu, those for AVX2 under valgrind
	@scripts/test-kernels

.PHONY: kube-up
kube-up: ## Start the three-node Kubernetes of the tests and leave it to you
	@scripts/kube up

.PHONY: kube-down
kube-down: ## Remove the Kubernetes of kube-up
	@scripts/kube down

.PHONY: soak
soak: ## Simulations of the storage and of clusters over many seeds (SEEDS=1000 FROM=1)
	@$(if $(SEEDS),SEEDS=$(SEEDS)) $(if $(FROM),FROM=$(FROM)) scripts/soak

.PHONY: fuzz
fuzz: ## Fuzz what reads files, records and tokens (TARGET=manifest MINUTES=5; needs a nightly toolchain)
	@$(if $(TARGET),TARGET=$(TARGET)) $(if $(MINUTES),MINUTES=$(MINUTES)) scripts/fuzz

.PHONY: torture
torture: ## Faults of processes, network, disks and etcd on a loaded cluster (needs root; MINUTES=10 SEED=1)
	@$(if $(MINUTES),MINUTES=$(MINUTES)) $(if $(SEED),SEED=$(SEED)) scripts/torture

.PHONY: bench-index
bench-index: ## Kernels, flat scan against the memory's bandwidth, graphs that live through merges, search against other engines (QUICK=1 PART=peers SET=debian)
	@$(if $(QUICK),QUICK=1) $(if $(PART),PART=$(PART)) $(if $(SET),SET=$(SET)) scripts/bench index

.PHONY: bench-server
bench-server: ## One node beside the floors of wire and disk, then a cluster (QUICK=1 PART=one-node|cluster)
	@$(if $(QUICK),QUICK=1) $(if $(PART),PART=$(PART)) scripts/bench server

.PHONY: bench-replication
bench-replication: ## What copies cost: latency, gaps, catching up, idle shards (QUICK=1 PART=idle; needs root)
	@$(if $(QUICK),QUICK=1) $(if $(PART),PART=$(PART)) scripts/bench replication

.PHONY: images
images: ## Build the container images without pulling any
	@scripts/images

.PHONY: lint
lint: ## Formatting and clippy
	@scripts/test lint
