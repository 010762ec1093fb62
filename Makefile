# What .ci/run does before a change lands, in the pieces a developer needs.
.DEFAULT_GOAL := help
tool := go tool -modfile=tools/go.mod

.PHONY: help
help: ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*##/ { printf "%-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: test
test: ## run the tests; they need nothing but Go
	go test ./...

.PHONY: race
race: ## run the tests under the race detector, on a real redis-server too
	REDIS_REQUIRED=1 go test -race ./...

.PHONY: soak
soak: ## run the tests in full size: hours
	SPILLWAY_SOAK=1 REDIS_REQUIRED=1 go test -timeout 12h ./...

.PHONY: fuzz
fuzz: ## fuzz one target: make fuzz pkg=./shorturl target=FuzzDecode
	go test -run '^$$' -fuzz '^$(target)$$' -fuzztime $(or $(for),1m) $(pkg)

.PHONY: bench
bench: ## run the comparison with peers; writes bench/RESULTS.md
	go run -C bench ./report

.PHONY: lint
lint: ## vet, staticcheck and golangci-lint
	go vet ./...
	$(tool) staticcheck ./...
	$(tool) golangci-lint run ./...

.PHONY: fmt
fmt: ## format the Go files
	gofmt -w .

.PHONY: ci
ci: ## everything that has to hold before a change lands
	.ci/run
