# Needs Go 1.25 or newer; everything else comes through Go modules, but for the real
# hosts, which tests use if there is npm.

# The race detector needs cgo, and that a C compiler.
ifeq ($(shell test "$$(go env CGO_ENABLED)" = 1 && command -v $$(go env CC)),)
export CGO_ENABLED := 0
RACE :=
else
RACE := -race
endif

.PHONY: test bench lint ci

test: ## every module's tests
ifeq ($(RACE),)
	@echo "no C compiler: the tests run without the race detector"
endif
	@.ci/fetch-hosts
	go test $(RACE) work

bench: ## figures against a floor and a baseline, with their gates; a minute or two
	go run ./internal/bench
	@cd adapters/opencode && go test -count=1 -v -run TestRealAddedCost . | grep -E 'one turn:|needs opencode'

lint: ## gofmt, go vet, staticcheck over every module
	@out=$$(gofmt -l .); test -z "$$out" || { echo "gofmt -w" $$out; exit 1; }
	go vet work
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 work

ci: ## all that .ci/run does; under 20 minutes on two cores
	.ci/run
