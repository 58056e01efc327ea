# The daemon in a small image. Two stages: the dependencies are built before the source is copied,
# so that a change of the source does not build them again.
#
#   docker build -t stopover .
#   docker buildx build --platform linux/amd64,linux/arm64 -t NAME --push .   # emulates one: slow
#   docker run --rm -v spool:/var/lib/stopover --network host stopover
#
# Without a configuration, segments are stored in /var/lib/stopover/data/stopover. Name a
# configuration file with the variable STOPOVER_CONFIG, not with --config, so that the health check
# reads server.listen from it too. The default is to listen on loopback, which other containers of a
# pod can reach. To be reached from outside, it needs a token (STOPOVER_SERVER__TOKEN_FILE) and
# STOPOVER_SERVER__LISTEN=0.0.0.0:7077.

# Base images are named by tag for people and by digest (of the index of all architectures) for the
# build. To update one, change both: docker buildx imagetools inspect NAME:TAG prints the digest.
FROM docker.io/library/rust:1.95-slim-bookworm@sha256:d7482085ff5b415f84dba5647ae71606650bdef00db7aeb69f4b3d170c3e4082 AS build
WORKDIR /build
# Function names remain for panics; line tables would more than double the size of the image.
ENV CARGO_PROFILE_RELEASE_STRIP=debuginfo
# `git archive HEAD .source-revision | tar -x` before the build tells it the commit.
COPY Cargo.toml Cargo.lock build.rs .source-revision ./
RUN mkdir src \
 && echo '//! Empty.' > src/lib.rs \
 && echo 'fn main() {}' > src/main.rs \
 && cargo build --release --locked \
 && rm -r src
COPY src src
# Cargo compares times, and the empty crate is newer than the source that replaces it.
RUN touch src/lib.rs src/main.rs \
 && cargo build --release --locked --bin stopover \
 && cp target/release/stopover /stopover \
 && mkdir -p /spool

FROM docker.io/library/debian:bookworm-slim@sha256:96e378d7e6531ac9a15ad505478fcc2e69f371b10f5cdf87857c4b8188404716
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /stopover /usr/local/bin/stopover
# A number, so that Kubernetes can verify that it is not root.
COPY --from=build --chown=10001:10001 /spool /var/lib/stopover
USER 10001:10001
WORKDIR /var/lib/stopover
VOLUME /var/lib/stopover
EXPOSE 7077
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s CMD ["stopover", "health"]
ENTRYPOINT ["stopover"]
CMD ["serve"]
