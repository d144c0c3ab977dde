# Two stages: build on Debian with the Rust toolchain, run on slim Debian with the drivers that an appliance meets.
# No C compiler, header or cargo is in the image that runs.
#
#   docker build --tag sluicegate .
#   docker run --rm sluicegate demo --seconds 5
#   docker run --rm --device /dev/vfio --cap-add IPC_LOCK --ulimit memlock=-1 \
#       -v /etc/sluicegate:/etc/sluicegate:ro sluicegate run /etc/sluicegate/edge.toml

FROM docker.io/library/rust:1-trixie AS build
WORKDIR /src
COPY ci/deps.sh ci/deps.sh
RUN ci/deps.sh build && rm -rf /var/lib/apt/lists/*
COPY . .
# The revision is passed in because .git stays outside (.dockerignore).
ARG REVISION=unknown
RUN SLUICEGATE_REVISION="$REVISION" cargo build --locked --release --bin sluicegate

FROM docker.io/library/debian:trixie-slim
LABEL org.opencontainers.image.title="sluicegate" \
      org.opencontainers.image.description="A data plane for appliances behind a gateway load balancer (GENEVE), on DPDK" \
      org.opencontainers.image.licenses="Apache-2.0 OR MIT"
# Names end in DPDK's ABI number: 25 is DPDK 24.11. Below: libraries, buses, the mempool drivers (every pool uses the stack, where it is),
# then ENA and the virtual drivers.
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        librte-eal25 librte-ethdev25 librte-acl25 librte-mempool25 librte-mbuf25 librte-ring25 librte-timer25 \
        librte-bus-pci25 librte-bus-vdev25 librte-mempool-ring25 librte-mempool-stack25 \
        librte-net-ena25 librte-net-virtio25 librte-net-af-packet25 librte-net-af-xdp25 librte-net-tap25 \
        librte-net-memif25 librte-net-pcap25 librte-net-ring25 librte-net-null25 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin sluicegate
COPY --from=build /src/target/release/sluicegate /usr/local/bin/sluicegate
COPY pipelines /usr/share/sluicegate/pipelines
# Fails the build if a library that the program needs is not in the list above.
RUN ["sluicegate", "version"]
USER sluicegate
# Where `run` tells this container, and nobody else, whether its data path is fit; `health` asks there.
ENV SLUICEGATE_MANAGEMENT__LISTEN=127.0.0.1:9100
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s CMD ["sluicegate", "health"]
ENTRYPOINT ["sluicegate"]
CMD ["--help"]
