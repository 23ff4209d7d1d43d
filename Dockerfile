# What the page loads from npm.
FROM node:20.20.2-bookworm-slim AS npm
WORKDIR /src
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund && npm run --silent vendor

FROM golang:1.26.8-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
COPY --from=npm /src/pb_public/vendor pb_public/vendor
ARG VERSION=(untracked)
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X 'main.version=${VERSION}'" -o /pocketriver . \
	&& mkdir /pb_data

FROM alpine:3.22.2
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /pocketriver /app/pocketriver
COPY --from=build --chown=65532:65532 /pb_data /app/pb_data
ENV PATH=/app:$PATH
# "docker exec … pocketriver" finds pb_data here: PocketBase looks beside the name that it was called by.
WORKDIR /app
USER 65532:65532
VOLUME /app/pb_data
EXPOSE 8090
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s \
	CMD ["wget", "-q", "-O", "/dev/null", "http://127.0.0.1:8090/api/health"]
ENTRYPOINT ["/app/pocketriver"]
# No migration files: they are for developers, and the image's own folder is read-only.
CMD ["serve", "--http=0.0.0.0:8090", "--automigrate=false"]
