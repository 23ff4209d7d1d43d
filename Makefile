# The secret and key of `make run` and `make send`: for trying out on this machine only. What
# is asked goes to `make simulate`.
DEV = MODELRIVER_WEBHOOK_SECRET=dev-secret MODELRIVER_API_KEY=dev-key MODELRIVER_CALLBACK_HOSTS=127.0.0.1 \
	MODELRIVER_API_URL=http://$(DEMO_API)
SDK = pb_public/vendor/pocketbase.es.mjs
SOURCES = $(shell find main.go hooks migrations pb_public -type f -not -name '*_test.go' -not -path 'pb_public/vendor/*') go.mod go.sum

BINARY = ./pocketriver
DEMO_ADDRESS = 127.0.0.1:8090
DEMO_API = 127.0.0.1:8787
DEMO_EVERY = 4s

# What a binary is built from, and how: nothing of the machine goes into a release's bytes.
VERSION = $(or $(shell git describe --tags --always --dirty 2>/dev/null),(untracked))
COMMIT = $(shell git rev-parse --short=12 HEAD 2>/dev/null)
PLATFORMS = linux/amd64 linux/arm64 darwin/amd64 darwin/arm64 windows/amd64 windows/arm64
LDFLAGS = -s -w -buildid= -X 'main.version=$(strip $(VERSION) $(COMMIT))'
DIST = dist
BUILDFLAGS =

GOLANGCI = github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0
GOVULNCHECK = golang.org/x/vuln/cmd/govulncheck@v1.9.0
CYCLONEDX = github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
VERSITYGW = github.com/versity/versitygw/cmd/versitygw@v1.8.0

.PHONY: help run demo cluster send simulate tools test bench lint vulncheck image package dist reproducible clean torture

help: ## list these targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

# Options of the command go into ARGS: `make send ARGS=--tamper`.
ARGS =

run: pocketriver ## serve on http://127.0.0.1:8090 with a development secret
	$(DEV) $(BINARY) serve $(ARGS)

# Ctrl-C reaches both processes, and each ends by itself; any other end of one ends both.
# Each has a data directory of its own: two that set up the same one at once trip over it.
# The users and their password are gone with the demo.
demo: pocketriver ## serve, with a stand-in for ModelRiver that feeds the page and answers
	@data=$$(mktemp -d); password=$$(od -An -N8 -tx1 /dev/urandom | tr -d ' \n'); \
	export $(DEV) DEMO_PASSWORD=$$password; \
	trap 'kill $$server $$simulator 2>/dev/null' INT TERM; \
	$(BINARY) superuser upsert demo@example.com $$password --dir $$data/server >/dev/null || { rm -rf $$data; exit 1; }; \
	$(BINARY) serve --dir $$data/server --migrationsDir docs/demo --http $(DEMO_ADDRESS) >$$data/started & server=$$!; \
	until grep -q started $$data/started; do \
		kill -0 $$server 2>/dev/null || { rm -rf $$data; \
			echo "The server did not start. If its port is taken: make demo DEMO_ADDRESS=127.0.0.1:8190 DEMO_API=127.0.0.1:8887" >&2; exit 1; }; \
		sleep 0.1; \
	done; \
	echo "Feed:      http://$(DEMO_ADDRESS)/    sign in to ask: asker@example.com with $$password"; \
	echo "Dashboard: http://$(DEMO_ADDRESS)/_/  sign in as demo@example.com with $$password"; \
	$(BINARY) modelriver simulate --dir $$data/simulator --listen $(DEMO_API) --every $(DEMO_EVERY) \
		--target http://$(DEMO_ADDRESS)/webhooks/modelriver & simulator=$$!; \
	wait $$simulator; wait $$simulator; status=$$?; \
	kill $$server 2>/dev/null; wait $$server; rm -rf $$data; exit $$status

# Three nodes with one database, in a folder with which the next run goes on. It has the port, the three after it, and six
# from the eleventh after it on. Each process ends with Ctrl-C, which reaches all.
CLUSTER = cluster
CLUSTER_PORT = 8090

cluster: pocketriver ## run three nodes that have one database, to try what happens when one is killed
	@$(DEV) REPLICA_URL= go run ./tests/cluster -binary $(BINARY) -dir $(CLUSTER) -port $(CLUSTER_PORT) -api $(DEMO_API) -every $(DEMO_EVERY)

send: pocketriver ## send a sample webhook to `make run` and show the callback
	$(DEV) $(BINARY) modelriver send $(ARGS)

simulate: pocketriver ## take ModelRiver's place for `make run`
	$(DEV) $(BINARY) modelriver simulate $(ARGS)

# The tests need a browser that chromedp finds, and a Firefox, which run: Ubuntu's packages
# chromium-browser and firefox have none, they point to snaps. They trace the server, and they mount
# file systems, for which those who are not root get a name space where they are.
OS_RELEASE = /etc/os-release
COMPILER = $(shell go env CC)
BROWSERS = headless_shell headless-shell chromium chromium-browser google-chrome google-chrome-stable /snap/bin/chromium
AS_ROOT = $(if $(filter-out 0,$(shell id -u)),unshare --map-root-user --mount)

tools:
	@missing=; id=$$(id -u); sudo=; test $$id = 0 || sudo="sudo "; \
	command -v strace >/dev/null || missing="$$missing strace"; \
	command -v python3 >/dev/null || missing="$$missing python3"; \
	echo '#include <stdlib.h>' | $(COMPILER) -E - >/dev/null 2>&1 || missing="$$missing gcc libc6-dev"; \
	for browser in $(BROWSERS); do ! command -v $$browser >/dev/null || break; done; \
	$$browser --version >/dev/null 2>&1 || missing="$$missing chromium"; \
	firefox-esr --version >/dev/null 2>&1 || firefox --version >/dev/null 2>&1 || missing="$$missing firefox-esr"; \
	if test -n "$$missing"; then \
		ID=; test ! -r $(OS_RELEASE) || . $(OS_RELEASE); \
		install="apt-get install -y --no-install-recommends"; \
		case "$$ID$$missing" in \
		ubuntu*chromium*|ubuntu*firefox-esr) \
			echo "The tests need$$missing. Ubuntu's own browsers are snaps. Run:"; \
			case "$$missing" in *firefox-esr) echo "curl -fL 'https://download.mozilla.org/?product=firefox-esr-latest-ssl&os=linux64&lang=en-US' |" \
				"$${sudo}tar xJC /opt && $${sudo}ln -s /opt/firefox/firefox /usr/local/bin/firefox";; esac; \
			missing=$${missing% firefox-esr}; \
			case "$$missing" in *chromium) echo "curl -fLo /tmp/chrome.deb https://dl.google.com/linux/direct/google-chrome-stable_current_amd64.deb &&" \
				"$${sudo}apt-get update && $${sudo}$$install$${missing% chromium} /tmp/chrome.deb chromium-browser-";; \
			?*) echo "$${sudo}apt-get update && $${sudo}$$install$$missing";; esac; \
			exit 1;; \
		debian*|ubuntu*) ;; \
		*) echo "The tests need Linux with$$missing: install them as your system does."; exit 1;; \
		esac; \
		if test -n "$$sudo" && ! command -v sudo >/dev/null; then \
			echo "The tests need$$missing. As root: apt-get update && $$install$$missing"; exit 1; \
		fi; \
		echo "Installing$$missing"; \
		$${sudo}apt-get update && $${sudo}$$install$$missing || exit 1; \
	fi; \
	dir=$$(mktemp -d); $(AS_ROOT) sh -c "mount -t tmpfs none $$dir && umount $$dir"; mounts=$$?; rmdir $$dir; test $$mounts = 0 || { \
		echo "The tests mount file systems. Run them as root, in Docker with --cap-add SYS_ADMIN --cap-add SYS_PTRACE," \
			"or let users have name spaces: sysctl kernel.unprivileged_userns_clone=1, and on Ubuntu" \
			"kernel.apparmor_restrict_unprivileged_userns=0"; exit 1; }

# The race detector is kept from where nearly all of its time goes: from SQLite, whose C is translated and whose memory lies
# outside of what it watches, and from the hash of passwords.
UNWATCHED = modernc.org/sqlite/lib modernc.org/libc golang.org/x/crypto/blowfish
RACE = -race $(UNWATCHED:%=-gcflags=%=-race=false)

# Of what go test -v says, every test that has ended, and all that failed ones say.
test: SHELL = bash
test: .SHELLFLAGS = -o pipefail -c
test: tools $(SDK) ## run all tests, about 20 minutes
	@echo "Type check, vet, and all tests with the race detector: about 20 minutes on two cores."
	node_modules/.bin/tsc --noEmit -p npm
	go vet ./...
	go vet -tags no_ui ./...
	$(AS_ROOT) go test $(RACE) -p 1 -timeout 20m -v ./... | grep --line-buffered -vE '^=== |^ +--- PASS|no test files'

bench: $(SDK) ## measure beside stock PocketBase, about 20 minutes (see docs/benchmarks.md)
	go run ./tests/bench $(if $(COMPARE),-compare $(COMPARE)) $(BENCH)

# How long, and with which faults: `make torture FOR=1h SEED=42`. The seed of a run is
# printed. It needs root for mounts, and strace. Then, how many machines with a folder are lost, and with
# a bucket of a real S3 server, for each way of answering a webhook. And how often a server is killed
# whose database has a log. `make torture NODES=3` attacks three servers that keep one database instead, for half an hour, and sets their
# clocks: what they run for that is built first, for some minutes once.
NODES = 1
FOR = $(if $(filter 3,$(NODES)),30m,15m)
SEED = 0
MACHINES = 50
KILLS = 100

torture: $(SDK) ## attack the binary with every fault for 15 minutes, then its replica, and a node
ifeq ($(NODES),3)
	go test -count=1 -timeout 0 -v -run TestThreeNodesTorture ./tests -torture $(FOR) -seed $(SEED)
else
	go test -count=1 -timeout 0 -v -run 'TestTorture|TestAskFaults|TestWaitingCallbacks' ./tests -torture $(FOR) -seed $(SEED)
	go test -count=1 -timeout 30m -v -run TestNode ./tests -kills $(KILLS)
	go test -count=1 -timeout 0 -run 'TestLedgerBalances|TestNextDelayStays' ./hooks ./hooks/internal/outbox -rapid.checks=1000
	@set -e; bin=$$(mktemp -d); trap 'rm -rf $$bin' EXIT; \
	GOBIN=$$bin go install $(VERSITYGW); \
	go test -count=1 -timeout 40m -v -run 'Replica|Restore' ./tests -versitygw $$bin/versitygw -machines $(MACHINES)
endif

lint: $(SDK) ## run gofmt and golangci-lint, staticcheck included
	@files=$$(gofmt -l .); test -z "$$files" || { echo "gofmt -w" $$files; exit 1; }
	go run $(GOLANGCI) run --timeout 10m ./...

vulncheck: $(SDK) ## look for known vulnerabilities (asks vuln.go.dev)
	go run $(GOVULNCHECK) ./...

image: ## build the Docker image
	docker build --build-arg "VERSION=$(strip $(VERSION) $(COMMIT))" -t pocketriver .

package: $(SDK) ## pack the npm package into dist
	mkdir -p $(DIST)
	npm pack --silent --pack-destination $(DIST)

dist: $(SDK) ## build a release: static binaries, npm package, checksums and SBOM
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
	$(MAKE) -s package
	cd $(DIST) && sha256sum * > SHA256SUMS

# From another folder, so that a path in the bytes would show.
reproducible: ## build this platform's release twice and compare the bytes
	@set -e; build=$$(mktemp -d); trap 'rm -rf $$build' EXIT; platform=$$(go env GOOS)/$$(go env GOARCH); \
	$(MAKE) -s dist DIST=$$build/one "PLATFORMS=$$platform"; \
	mkdir $$build/copy; cp -r Makefile LICENSE README.md go.mod go.sum main.go hooks migrations npm pb_public package.json package-lock.json $$build/copy; \
	$(MAKE) -s -C $$build/copy dist BUILDFLAGS=-a DIST=$$build/two "PLATFORMS=$$platform" "VERSION=$(VERSION)" "COMMIT=$(COMMIT)"; \
	diff -r $$build/one $$build/two && echo "two builds, the same bytes"

clean: ## remove what was built, not pb_data
	rm -rf pocketriver dist node_modules npm/types pb_public/vendor

pocketriver: $(SDK) $(SOURCES)
	go build -ldflags "$(LDFLAGS)" -o $(BINARY) .

# What the page loads from npm: the PocketBase JS SDK, and what renders Markdown, with their licences.
$(SDK): package-lock.json
	npm ci --no-audit --no-fund
	npm run --silent vendor
