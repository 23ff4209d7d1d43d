# The secret and key of `make run` and `make send`: for trying out on this machine only.
DEV = MODELRIVER_WEBHOOK_SECRET=dev-secret MODELRIVER_API_KEY=dev-key MODELRIVER_CALLBACK_HOSTS=127.0.0.1
SDK = pb_public/vendor/pocketbase.es.mjs
SOURCES = $(shell find . -name '*.go' -not -path './node_modules/*') $(shell find hooks pb_public -type f -not -path 'pb_public/vendor/*') go.mod go.sum

BINARY = ./pocketriver
DEMO_ADDRESS = 127.0.0.1:8090
DEMO_API = 127.0.0.1:8787
DEMO_EVERY = 4s

# What a release is built from, and how: nothing of the machine goes into the bytes.
VERSION = $(shell git describe --tags --always --dirty)
COMMIT = $(shell git rev-parse --short=12 HEAD)
PLATFORMS = linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
LDFLAGS = -s -w -buildid= -X 'main.version=$(VERSION) $(COMMIT)'
DIST = dist
BUILDFLAGS =

GOLANGCI = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0
CYCLONEDX = github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0

.PHONY: help run demo send simulate test bench lint vulncheck image dist reproducible clean torture

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

run: pocketriver ## serve on http://127.0.0.1:8090 with a development secret
	$(DEV) ./pocketriver serve

# Ctrl-C reaches both processes, and each ends by itself; any other end of one ends both.
# Each has a data directory of its own: two that set up the same one at once trip over it.
demo: pocketriver ## serve, with a stand-in for ModelRiver that feeds the page
	@data=$$(mktemp -d); \
	export $(DEV) MODELRIVER_API_URL=http://$(DEMO_API); \
	$(BINARY) serve --dir $$data/server --http $(DEMO_ADDRESS) & server=$$!; \
	$(BINARY) modelriver simulate --dir $$data/simulator --listen $(DEMO_API) --every $(DEMO_EVERY) \
		--target http://$(DEMO_ADDRESS)/webhooks/modelriver & simulator=$$!; \
	trap 'kill $$server $$simulator 2>/dev/null' INT TERM; \
	wait $$simulator; wait $$simulator; \
	kill $$server 2>/dev/null; wait $$server; rm -rf $$data

# Options of the command go into ARGS: `make send ARGS=--tamper`.
ARGS =

send: pocketriver ## send a sample webhook to `make run` and show the callback
	$(DEV) $(BINARY) modelriver send $(ARGS)

simulate: pocketriver ## take ModelRiver's place for `make run`
	$(DEV) $(BINARY) modelriver simulate $(ARGS)

test: $(SDK) ## run all tests
	node_modules/.bin/tsc --noEmit --allowJs --checkJs --strict --target es2022 --lib es2022,dom,dom.iterable \
		--module nodenext pb_public/live-query.js
	go vet ./...
	go vet -tags no_ui ./...
	go test -race -p 1 -timeout 20m ./...

bench: ## measure beside stock PocketBase, about 15 minutes (see docs/benchmarks.md)
	go run ./hooks/bench $(BENCH)

# How long, and with which faults: `make torture FOR=1h SEED=42`. The seed of a run is
# printed. It needs root for mounts, and strace.
FOR = 15m
SEED = 0

torture: $(SDK) ## attack the binary with every fault for 15 minutes
	go test -count=1 -timeout 0 -v -run 'TestTorture|TestWaitingCallbacks' . -torture $(FOR) -seed $(SEED)
	go test -count=1 -timeout 0 -run 'TestLedgerBalances|TestNextDelayStays' ./hooks -rapid.checks=1000

lint: $(SDK) ## run golangci-lint, staticcheck included
	go run $(GOLANGCI) run --timeout 10m ./...

vulncheck: $(SDK) ## look for known vulnerabilities (asks vuln.go.dev)
	go run $(GOVULNCHECK) ./...

image: ## build the Docker image
	docker build --build-arg "VERSION=$(VERSION) $(COMMIT)" -t pocketriver .

dist: $(SDK) ## build a release: static binaries, checksums and SBOM
	rm -rf $(DIST) && mkdir -p $(DIST)
	@set -e; for platform in $(PLATFORMS); do \
		os=$${platform%/*}; arch=$${platform#*/}; suffix=; \
		test $$os != windows || suffix=.exe; \
		echo building for $$os/$$arch; \
		CGO_ENABLED=0 GOOS=$$os GOARCH=$$arch go build $(BUILDFLAGS) -trimpath -buildvcs=false -ldflags "$(LDFLAGS)" \
			-o $(DIST)/pocketriver_$${os}_$$arch$$suffix .; \
	done
	go run $(CYCLONEDX) bin -json -std -noserial -notimestamp -version "$(VERSION)" \
		-output $(DIST)/pocketriver.cdx.json $(DIST)/pocketriver_$(subst /,_,$(firstword $(PLATFORMS)))
	cp LICENSE $(DIST)/
	cd $(DIST) && sha256sum * > SHA256SUMS

# From another folder, so that a path in the bytes would show.
reproducible: ## build this platform's release twice and compare the bytes
	@set -e; build=$$(mktemp -d); trap 'rm -rf $$build' EXIT; platform=$$(go env GOOS)/$$(go env GOARCH); \
	$(MAKE) -s dist DIST=$$build/one "PLATFORMS=$$platform"; \
	mkdir $$build/copy; cp -r Makefile LICENSE go.mod go.sum main.go hooks migrations pb_public package.json package-lock.json $$build/copy; \
	$(MAKE) -s -C $$build/copy dist BUILDFLAGS=-a DIST=$$build/two "PLATFORMS=$$platform" "VERSION=$(VERSION)" "COMMIT=$(COMMIT)"; \
	diff -r $$build/one $$build/two && echo "two builds, the same bytes"

clean: ## remove what was built, not pb_data
	rm -rf pocketriver dist node_modules pb_public/vendor

pocketriver: $(SDK) $(SOURCES)
	go build -o pocketriver .

# The PocketBase JS SDK, from npm, as the page and its readers load it.
$(SDK): package-lock.json
	npm ci --no-audit --no-fund
	mkdir -p pb_public/vendor
	cp node_modules/pocketbase/dist/pocketbase.es.mjs $(SDK)
