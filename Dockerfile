# The images for users with a registry:
#   docker build --target node -t vectorsphere.io/vectorsphere:0.1.0 .
#   docker build --target operator -t vectorsphere.io/vectorsphere-operator:0.1.0 .
# `make images` assembles the same without Docker and without pulling anything.

FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake protobuf-compiler libprotobuf-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --locked --release --package vectorsphere --package vectorsphere-operator

FROM gcr.io/distroless/cc-debian12:nonroot AS node
COPY --from=build /src/target/release/vectorsphere /usr/local/bin/vectorsphere
USER 65532:65532
EXPOSE 8080 9090 9091
ENTRYPOINT ["/usr/local/bin/vectorsphere"]

FROM gcr.io/distroless/cc-debian12:nonroot AS operator
COPY --from=build /src/target/release/vectorsphere-operator /usr/local/bin/vectorsphere-operator
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/vectorsphere-operator"]
