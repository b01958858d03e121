# The images for users with a registry:
#   docker build --target node -t vectorsphere.io/vectorsphere:0.1.0 .
#   docker build --target operator -t vectorsphere.io/vectorsphere-operator:0.1.0 .
# `make images` assembles the same without Docker and without pulling anything.

FROM rust:1.95-bookworm AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake libopenblas-serial-dev protobuf-compiler libprotobuf-dev \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# FAISS chooses no code at run time: this is the processor that the image needs (docs/decisions/012-faiss.md). For older
# ones leave it out. It has no effect on other architectures.
ENV CXXFLAGS_x86_64_unknown_linux_gnu=-march=x86-64-v3
RUN cargo build --locked --release --package vectorsphere --package vectorsphere-operator
# OpenBLAS and its Fortran runtime, which the base image lacks. Debian's /lib is /usr/lib.
RUN ldd target/release/vectorsphere \
  | awk '$1 ~ /^lib(blas|lapack|openblas|gfortran|quadmath)[.]/ { print $3 }' \
  | while read -r library; do \
      install -D -m 644 "$library" "/libraries/usr/${library#/usr/}"; \
    done \
 && find /libraries -type f

FROM gcr.io/distroless/cc-debian12:nonroot AS node
COPY --from=build /libraries/ /
COPY --from=build /src/target/release/vectorsphere /usr/local/bin/vectorsphere
# OpenBLAS takes kernels of long ago for a processor that it does not know; these are right for every one of the level.
# The name means nothing on other architectures.
ENV OPENBLAS_CORETYPE=Haswell
USER 65532:65532
EXPOSE 8080 9090 9091
ENTRYPOINT ["/usr/local/bin/vectorsphere"]

FROM gcr.io/distroless/cc-debian12:nonroot AS operator
COPY --from=build /src/target/release/vectorsphere-operator /usr/local/bin/vectorsphere-operator
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/usr/local/bin/vectorsphere-operator"]
