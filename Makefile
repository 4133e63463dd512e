# Needs Go 1.25 or newer; everything else comes through Go modules.

# Without a C compiler there is no race detector.
CC_FOUND := $(shell command -v $${CC:-cc} || command -v gcc)
ifeq ($(CC_FOUND),)
RACE :=
export CGO_ENABLED := 0
else
RACE := -race
endif

.PHONY: test bench lint ci
test: ## every module's tests
	@test -n "$(RACE)" || echo "no C compiler: the tests run without the race detector"
	go test $(RACE) work

bench: ## figures against a floor and a baseline, with their gates; about five minutes
	go run ./internal/bench

lint:
	@out=$$(gofmt -l .); test -z "$$out" || { echo "gofmt: $$out"; exit 1; }
	go vet work
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

ci: ## all that .ci/run does
	.ci/run
