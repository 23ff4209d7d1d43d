# The secret and key of `make run` and `make send`: for trying out on this machine only.
DEV = MODELRIVER_WEBHOOK_SECRET=dev-secret MODELRIVER_API_KEY=dev-key MODELRIVER_CALLBACK_HOSTS=127.0.0.1
SDK = pb_public/vendor/pocketbase.es.mjs
SOURCES = $(shell find . -name '*.go' -not -path './node_modules/*') $(shell find hooks pb_public -type f -not -path 'pb_public/vendor/*') go.mod go.sum

BINARY = ./pocketriver
DEMO_ADDRESS = 127.0.0.1:8090
DEMO_API = 127.0.0.1:8787
DEMO_EVERY = 4s

.PHONY: help run demo send test bench clean torture

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

run: pocketriver ## serve on http://127.0.0.1:8090 with a development secret
	$(DEV) ./pocketriver serve

# Ctrl-C reaches both processes, and each ends by itself; any other end of one ends both.
demo: pocketriver ## serve, with a stand-in for ModelRiver that feeds the page
	@data=$$(mktemp -d); \
	export $(DEV) MODELRIVER_API_URL=http://$(DEMO_API); \
	$(BINARY) serve --dir $$data --http $(DEMO_ADDRESS) & server=$$!; \
	$(BINARY) modelriver simulate --dir $$data --listen $(DEMO_API) --every $(DEMO_EVERY) \
		--target http://$(DEMO_ADDRESS)/webhooks/modelriver & simulator=$$!; \
	trap 'kill $$server $$simulator 2>/dev/null' INT TERM; \
	wait $$simulator; wait $$simulator; \
	kill $$server 2>/dev/null; wait $$server; rm -rf $$data

send: pocketriver ## send a sample webhook to `make run` and show the callback
	$(DEV) ./pocketriver modelriver send

test: $(SDK) ## run all tests
	node_modules/.bin/tsc --noEmit --allowJs --checkJs --strict --target es2022 --lib es2022,dom,dom.iterable \
		--module nodenext pb_public/live-query.js
	go vet ./...
	go vet -tags no_ui ./...
	go test -race ./...

bench: ## measure beside stock PocketBase, about 15 minutes (see docs/benchmarks.md)
	go run ./hooks/bench $(BENCH)

# How long, and with which faults: `make torture FOR=1h SEED=42`. The seed of a run is
# printed. It needs root for mounts, and strace.
FOR = 15m
SEED = 0

torture: $(SDK) ## attack the binary with every fault for 15 minutes
	go test -count=1 -timeout 0 -v -run 'TestTorture|TestWaitingCallbacks' . -torture $(FOR) -seed $(SEED)
	go test -count=1 -timeout 0 -run 'TestLedgerBalances|TestNextDelayStays' ./hooks -rapid.checks=1000

clean: ## remove what was built, not pb_data
	rm -rf pocketriver dist node_modules pb_public/vendor

pocketriver: $(SDK) $(SOURCES)
	go build -o pocketriver .

# The PocketBase JS SDK, from npm, as the page and its readers load it.
$(SDK): package-lock.json
	npm ci --no-audit --no-fund
	mkdir -p pb_public/vendor
	cp node_modules/pocketbase/dist/pocketbase.es.mjs $(SDK)
