# The two commands a visitor needs are `go run ./cmd/tidings dev` and `make test`.
GO ?= go
export CGO_ENABLED ?= 0

.PHONY: help build test chaos check console screenshots figures pgo clean
build: ## bin/tidings
	$(GO) build -trimpath -o bin/tidings ./cmd/tidings

test: ## everything that CI runs, with what it needs installed
	./test/run

chaos: ## the long run of the chaos suite: about half an hour, as root
	CHAOS_LONG=1 ./test/chaos/run

check: ## what to run before a commit
	./test/check

console: ## the console's bundle from its sources, to be committed with them
	cd internal/front/console/web/build && $(GO) run .

screenshots: ## the pictures of the console in docs/img, from the browser tests
	PICTURES=write ./test/browser/run cluster

figures: ## all figures that the documentation quotes; see test/figures
	./test/figures

pgo: ## cmd/tidings/default.pgo from the bench's workloads; see test/profile
	./test/profile

clean: ## drop what was built
	rm -rf bin build

help: ## what there is to make
	@sed -n 's/^\([a-z]*\):.*## /\1	/p' $(MAKEFILE_LIST) | expand -t 14
